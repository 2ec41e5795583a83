//! The unit files that ship: systemd reads them, finds little to complain of, and lets the program do what it does at its start.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd").join(name)
}

const UNITS: [&str; 2] = ["claviger-gateway.service", "claviger-keyservice.service"];

/// systemd's own judge; installed if it is missing.
fn analyze() -> Command {
    let is_there = || Command::new("which").arg("systemd-analyze").output().unwrap().status.success();
    if !is_there() {
        let install = "root=; [ \"$(id -u)\" = 0 ] || root=sudo; $root apt-get update -q && \
             DEBIAN_FRONTEND=noninteractive $root apt-get install -y -q --no-install-recommends systemd";
        let installed = Command::new("sh").args(["-c", install]).output().unwrap();
        assert!(is_there(), "systemd: {}", String::from_utf8_lossy(&installed.stderr));
    }
    Command::new("systemd-analyze")
}

#[test]
fn systemd_finds_no_mistake_in_the_units_and_little_that_they_leave_open() {
    for name in UNITS {
        let text = std::fs::read_to_string(unit(name)).unwrap();
        // Without a line in it that it doesn't know, and with a program that is there.
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join(name);
        std::fs::write(&copy, text.replace("/usr/local/bin/claviger", env!("CARGO_BIN_EXE_claviger")))
            .unwrap();
        let verified = analyze().arg("verify").arg("--man=no").arg(&copy).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("claviger")).collect();
        assert!(verified.status.success() && ours.is_empty(), "{said}");
        // Tenths: 1.5 of 10.
        let judged = analyze()
            .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
            .arg(unit(name))
            .output()
            .unwrap();
        assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    }
}

#[test]
fn the_units_keep_keys_out_of_swap_and_dumps_and_code_out_of_data() {
    for name in UNITS {
        let text = std::fs::read_to_string(unit(name)).unwrap();
        for line in [
            "LimitCORE=0",
            "LimitMEMLOCK=infinity",
            "MemorySwapMax=0",
            "MemoryDenyWriteExecute=yes",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "SystemCallFilter=@system-service",
        ] {
            assert!(text.lines().any(|own| own == line), "{name}: {line}");
        }
        assert!(text.contains(" --require-locked-memory "), "{name}");
    }
}
