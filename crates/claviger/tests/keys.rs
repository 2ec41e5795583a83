//! The key service and its operators' commands as processes: from nothing to an enrolled gateway, and back to locked.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::Duration;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn claviger(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command
        .current_dir(folder)
        .args(arguments.split_whitespace())
        .env("CLAVIGER_OPERATOR", folder.join("operator"));
    command
}

fn run(folder: &Path, arguments: &str) -> Output {
    claviger(folder, arguments).output().unwrap()
}

fn succeeds(folder: &Path, arguments: &str) -> String {
    let output = run(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "claviger {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(folder: &Path, arguments: &str, code: i32) -> String {
    let output = run(folder, arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "claviger {arguments}: {errors}");
    errors
}

/// A configuration on a free port, with the policy that ships.
fn prepare(folder: &Path) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "state_dir = \"state\"\nlisten = \"127.0.0.1:{port}\"\npolicy = \"policy.toml\"\nunlock = \"operator\"\n\
         passphrase_file = \"passphrase\"\n"
    );
    std::fs::write(folder.join("keyservice.toml"), config).unwrap();
    std::fs::write(folder.join("policy.toml"), include_str!("../../../deploy/policy.toml")).unwrap();
}

fn start(folder: &Path) -> Running {
    let service =
        Running(claviger(folder, "keyservice --config keyservice.toml --log error").spawn().unwrap());
    for _ in 0..200 {
        if run(folder, "keys status").status.success() {
            return service;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the key service did not answer: {}", fails(folder, "keys status", 1));
}

#[test]
fn a_service_is_made_unlocked_used_killed_and_unlocked_again() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    prepare(folder);
    assert!(fails(folder, "keyservice --config keyservice.toml", 2).contains("claviger keys init"));
    let made =
        succeeds(folder, "keys init --config keyservice.toml --recovery recovery --shares 3 --threshold 2");
    assert!(made.contains("recovery/default-v1-share-3.txt"), "{made}");
    assert!(fails(folder, "keys init --config keyservice.toml --recovery again", 2).contains("already"));

    let service = start(folder);
    assert!(succeeds(folder, "keys status").contains("Locked"));
    assert!(fails(folder, "keys keyset list", 1).contains("locked"));
    assert!(succeeds(folder, "keys unlock --passphrase-file passphrase").contains("Unlocked"));
    succeeds(folder, "keys keyset create archive --recovery more --shares 3 --threshold 2");
    assert!(succeeds(folder, "keys keyset list").contains("archive  version 1"));
    succeeds(folder, "keys gateway enrol main --keyset default --token-file token");
    succeeds(folder, "gateway enrol --token-file token --state-dir gateway");
    assert!(fails(folder, "gateway enrol --token-file token --state-dir other", 1).contains("used"));
    assert!(succeeds(folder, "keys gateway list").contains("gateway:main"));

    drop(service);
    let _service = start(folder);
    assert!(succeeds(folder, "keys status").contains("Locked"), "a start leaves it locked");
    succeeds(folder, "keys unlock --passphrase-file passphrase");
    assert!(succeeds(folder, "keys gateway list").contains("gateway:main"), "kill -9 lost nothing");
    succeeds(folder, "keys gateway revoke main");
    let tail = succeeds(folder, "keys audit tail -n 1");
    assert!(tail.contains("\"action\":\"revoke\"") && tail.contains("gateway:main"), "{tail}");
    assert!(succeeds(folder, "keys lock").contains("Locked"));
}

#[test]
fn a_check_names_the_line_and_the_remedy() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    prepare(folder);
    assert!(succeeds(folder, "keyservice --config keyservice.toml --check").contains("can be used"));
    let policy = include_str!("../../../deploy/policy.toml").replace("\"bind\"]", "\"fly\"]");
    std::fs::write(folder.join("policy.toml"), policy).unwrap();
    for command in ["keyservice --config keyservice.toml --check", "keys policy check policy.toml"] {
        let error = fails(folder, command, 2);
        assert!(error.contains("policy.toml:") && error.contains("remedy:"), "{error}");
    }
}
