//! `claviger audit` as processes, on the folder of a real service: everything that docs/operations.md tells an auditor to do.
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
    let operator = folder.join("operator");
    command.current_dir(folder).args(arguments.split_whitespace()).env("CLAVIGER_OPERATOR", operator);
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

const INIT: &str = "keys init --config keyservice.toml --policy policy.toml --shares 2 --threshold 2 \
    --operator first=operator --operator second=second";

/// Makes a service on a free port and gives its log's key, as `init` printed it.
fn make(folder: &Path) -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "state_dir = \"state\"\nlisten = \"127.0.0.1:{port}\"\nunlock = \"operator\"\n\
         passphrase_file = \"passphrase\"\n"
    );
    std::fs::write(folder.join("keyservice.toml"), config).unwrap();
    std::fs::write(folder.join("policy.toml"), include_str!("../../../deploy/policy.toml")).unwrap();
    let made = succeeds(folder, &format!("{INIT} --recovery recovery"));
    let key = made.split_whitespace().find(|word| word.starts_with("claviger.invalid/log/"));
    key.unwrap_or_else(|| panic!("{made}")).to_owned()
}

fn start(folder: &Path) -> Running {
    let service =
        Running(claviger(folder, "keyservice --config keyservice.toml --log error").spawn().unwrap());
    for _ in 0..600 {
        if run(folder, "keys status").status.success() {
            return service;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the key service did not answer: {}", fails(folder, "keys status", 1));
}

fn stop(mut service: Running) {
    let pid = service.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(service.0.wait().unwrap().success());
}

#[test]
fn an_auditor_checks_searches_proves_and_exports_a_log_that_he_was_given() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let key = make(folder);
    let verify = format!("audit verify state/audit --key {key}");
    assert!(succeeds(folder, &verify).contains("covers 2,"), "init signs its own records");
    let service = start(folder);
    assert!(fails(folder, "keys audit checkpoint", 1).contains("unlock it first"));
    succeeds(folder, "keys unlock --passphrase-file passphrase");
    let status = succeeds(folder, "keys status");
    assert!(status.contains(&key), "{status}");
    std::fs::write(folder.join("early"), succeeds(folder, "keys audit checkpoint")).unwrap();
    let proposed = succeeds(folder, "keys gateway enrol main --keyset default");
    let id = proposed.split_whitespace().nth(2).unwrap().trim_end_matches(',').to_owned();
    succeeds(folder, &format!("keys approve {id} --identity second"));
    succeeds(folder, &format!("keys collect {id} --token-file token"));
    succeeds(folder, "gateway enrol --token-file token --state-dir gateway");
    succeeds(folder, "keys gateway revoke main");
    stop(service);

    let verified = succeeds(folder, &format!("{verify} --checkpoint early"));
    assert!(
        verified.contains("remembered   1 checkpoints agree") && !verified.contains("not covered"),
        "{verified}"
    );
    let found = succeeds(
        folder,
        "audit search state/audit --identity gateway:main --action revoke --since 2020-01-01",
    );
    assert_eq!(found.lines().count(), 1, "{found}");
    assert!(succeeds(folder, "audit search state/audit --until 2020-01-01").is_empty());
    let syslog =
        succeeds(folder, "audit export state/audit --format syslog --hostname keys.example --from 1");
    let lines = std::fs::read_to_string(folder.join("state/audit/00000000000000000000.jsonl")).unwrap();
    assert_eq!(syslog.lines().count(), lines.lines().count() - 1);
    assert!(syslog.lines().all(|line| line.starts_with("<1") && line.contains(" keys.example claviger - ")));
    assert_eq!(succeeds(folder, "audit export state/audit --format jsonl"), lines);

    let index = lines.lines().position(|line| line.contains("\"action\":\"revoke\"")).unwrap();
    succeeds(folder, &format!("audit prove state/audit --index {index} -o proof"));
    assert!(fails(folder, &format!("audit prove state/audit --index {index} -o proof"), 2).contains("proof"));
    let proved = succeeds(folder, &format!("audit check-proof proof --key {key}"));
    assert!(
        proved.contains("\"action\":\"revoke\"") && proved.contains(&format!("record {index} of")),
        "{proved}"
    );
    let request =
        lines.lines().nth(index).unwrap().split("\"request_id\":\"").nth(1).unwrap()[..16].to_owned();
    succeeds(folder, &format!("audit prove state/audit --request {request} -o by-request"));
    assert_eq!(
        std::fs::read(folder.join("proof")).unwrap(),
        std::fs::read(folder.join("by-request")).unwrap()
    );
    assert!(fails(folder, "audit prove state/audit --request 0000 -o none", 1).contains("no record"));

    // Another service's log, a log that was cut off, an edited one, and what is none.
    assert!(fails(folder, "audit verify state --key nonsense", 2).contains("--key"));
    assert!(fails(folder, &format!("audit verify state --key {key}"), 2).contains("holds no audit log"));
    let other = tempfile::tempdir().unwrap();
    let strange = make(other.path());
    fails(folder, &format!("audit verify state/audit --key {strange}"), 1);
    fails(folder, &format!("audit check-proof proof --key {strange}"), 1);
    let first = folder.join("state/audit/00000000000000000000.jsonl");
    std::fs::write(&first, lines.replacen("\"action\":\"revoke\"", "\"action\":\"renew!\"", 1)).unwrap();
    assert!(fails(folder, &verify, 1).contains(&format!("record {index} is not the one")));
    fails(folder, "keyservice --config keyservice.toml", 2);
    let cut: String = lines.split_inclusive('\n').take(index).collect();
    std::fs::write(&first, cut).unwrap();
    assert!(fails(folder, &verify, 1).contains("does not verify"));
    assert!(fails(folder, "keyservice --config keyservice.toml", 2).contains("cut off"));
    std::fs::write(&first, &lines).unwrap();
    succeeds(folder, &verify);
    drop(start(folder));
}

#[test]
fn a_log_is_never_begun_over_another() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    make(folder);
    std::fs::remove_file(folder.join("state/keyservice.db")).unwrap();
    std::fs::remove_file(folder.join("passphrase")).unwrap();
    std::fs::remove_dir_all(folder.join("operator")).unwrap();
    std::fs::remove_dir_all(folder.join("second")).unwrap();
    let error = fails(folder, &format!("{INIT} --recovery again"), 1);
    assert!(error.contains("holds a log already"), "{error}");
}
