//! Debian's packages that tests need: installed when they are missing, one at a time.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Sees to it that `is_there` holds, by installing `package` if need be. Tests of one program run side by side, and two `apt-get`
/// at once refuse each other.
pub(crate) fn install(package: &str, is_there: impl Fn() -> bool) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if is_there() {
        return;
    }
    let install = format!(
        "root=; [ \"$(id -u)\" = 0 ] || root=sudo; $root apt-get update -q && \
         DEBIAN_FRONTEND=noninteractive $root apt-get install -y -q --no-install-recommends {package}"
    );
    let installed = Command::new("sh").args(["-c", &install]).output().unwrap();
    assert!(is_there(), "{package}: {}", String::from_utf8_lossy(&installed.stderr));
}

/// Whether there is a program of this name.
pub(crate) fn has(program: &str) -> bool {
    let look = format!("PATH=$PATH:/usr/sbin command -v {program}");
    Command::new("sh").args(["-c", &look]).output().unwrap().status.success()
}
