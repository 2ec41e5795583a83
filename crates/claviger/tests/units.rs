//! The unit files that ship: systemd reads them, finds little to complain of, and under the filter
//! of system calls that they name the program does what it does.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;
mod debian;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{NOBODY, copy_program};

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd").join(name)
}

const UNITS: [&str; 2] = ["claviger-gateway.service", "claviger-keyservice.service"];

/// systemd's own judge; installed if it is missing.
fn analyze() -> Command {
    debian::install("systemd", || debian::has("systemd-analyze"));
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

/// A folder of the user that runs the units' programs, with the program in it.
struct Home {
    folder: tempfile::TempDir,
    uid: Option<u32>,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uid = (folder.path().metadata().unwrap().uid() == 0).then_some(NOBODY);
        copy_program(env!("CARGO_BIN_EXE_claviger"), folder.path().join("claviger"));
        let filter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/systemd/under_filter.py");
        std::fs::copy(filter, folder.path().join("under_filter.py")).unwrap();
        for name in UNITS {
            std::fs::copy(unit(name), folder.path().join(name)).unwrap();
        }
        chown(folder.path(), uid, uid).unwrap();
        Self { folder, uid }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        chown(self.path(name), self.uid, self.uid).unwrap();
    }

    fn as_user(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env("CLAVIGER_OPERATOR", self.path("operator"));
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// A program as the unit's filter of system calls lets it run. systemd is not there to apply it, so libseccomp does.
    fn under_filter(&self, unit_name: &str) -> Command {
        // Makes sure that systemd's list of groups is there.
        analyze();
        debian::install("python3-seccomp", || {
            Command::new("/usr/bin/python3").args(["-c", "import seccomp"]).output().unwrap().status.success()
        });
        let mut command = self.as_user("/usr/bin/python3");
        command.arg("under_filter.py").arg(unit_name);
        command
    }
}

/// Ended however the test does.
struct Running(Child);

impl Running {
    fn wait_until(&mut self, what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..600 {
            if let Some(status) = self.0.try_wait().unwrap() {
                panic!("{what}: it ended with {status}");
            }
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("not within 30 s: {what}");
    }

    fn end(mut self) {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_filter_ends_who_makes_a_call_that_is_not_in_it() {
    let home = Home::new();
    for name in UNITS {
        let mut calls = home.under_filter(name);
        let status = calls.args(["/usr/bin/python3", "-c", "import os; os.chroot('/')"]).status().unwrap();
        assert_eq!(status.signal(), Some(31), "SIGSYS, not {status}");
    }
}

#[test]
fn a_key_service_does_all_that_it_does_under_the_filter_of_its_unit() {
    let home = Home::new();
    let (main, admin) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let config = format!(
        "state_dir = \"state\"\nlisten = \"127.0.0.1:{}\"\nadmin_listen = \"127.0.0.1:{}\"\n\
         unlock = \"passphrase-file\"\npassphrase_file = \"passphrase\"\n",
        port(&main),
        port(&admin)
    );
    drop((main, admin));
    home.write("keyservice.toml", &config);
    home.write("policy.toml", include_str!("../../../deploy/policy.toml"));
    let run =
        |arguments: &str| home.as_user("./claviger").args(arguments.split_whitespace()).output().unwrap();
    let succeeds = |arguments: &str| {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    succeeds(
        "keys init --config keyservice.toml --policy policy.toml --recovery recovery --shares 2 --threshold 2 \
         --operator first=operator --operator second=second",
    );
    let serve = || {
        let mut command = home.under_filter("claviger-keyservice.service");
        command.args(["./claviger", "keyservice", "--config", "keyservice.toml", "--log-format", "json"]);
        command
    };
    assert!(serve().arg("--check").status().unwrap().success());
    let mut service = Running(serve().spawn().unwrap());
    service.wait_until("it answers", || run("keys status").status.success());
    succeeds("keys freeze --everything");
    succeeds("keys backup copy");
    succeeds("keys lock");
    succeeds("keys unlock --passphrase-file passphrase");
    succeeds("keys status");
    service.end();
}

#[test]
fn a_gateway_with_all_that_it_needs_runs_under_the_filter_of_its_unit() {
    let home = Home::new();
    let ready = home.path("ready");
    let mut command = home.under_filter("claviger-gateway.service");
    command.args(["./claviger", "demo", "--dir", "demo", "--listen", "127.0.0.1:0", "--ready-file", "ready"]);
    let mut demo = Running(command.stdout(Stdio::null()).spawn().unwrap());
    demo.wait_until("it is ready", || ready.exists());
    let endpoint = std::fs::read_to_string(&ready).unwrap();
    let address = endpoint.trim().trim_start_matches("http://");
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /bucket/key HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    demo.end();
}
