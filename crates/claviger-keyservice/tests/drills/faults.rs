//! Disks that do not keep what they are given: `fsync` and `fdatasync` fail with EIO where a test says so. A small library in C is
//! loaded before the system's (`faults.c`), which takes no rights, so a test that wants it runs itself again as a process with it.

use std::path::{Path, PathBuf};
use std::process::Command;

const CONTROL: &str = "CLAVIGER_FAULTS";

/// What fails from now on.
pub(crate) struct Faults {
    control: PathBuf,
}

impl Faults {
    /// `None`: the test ran in a process of its own, and well. To be called first, with the test's name.
    pub(crate) fn begin(test: &str) -> Option<Self> {
        if let Some(control) = std::env::var_os(CONTROL) {
            return Some(Self { control: control.into() });
        }
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("faults.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drills/faults.c");
        let compiler =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
        let compiler = compiler.unwrap();
        assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
        let control = folder.path().join("control");
        std::fs::write(&control, "").unwrap();
        let ran = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("LD_PRELOAD", library)
            .env(CONTROL, control)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        None
    }

    /// Syncs of files whose path has this part fail, and what was to be synced is on the disk all the same or not.
    pub(crate) fn fail(&self, part: &str, is_kept: bool) {
        let sign = if is_kept { '+' } else { '-' };
        std::fs::write(&self.control, format!("{sign}{part}")).unwrap();
    }

    pub(crate) fn end(&self) {
        std::fs::write(&self.control, "").unwrap();
    }
}
