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

/// The second operator's turn.
fn second(folder: &Path, arguments: &str) -> String {
    succeeds(folder, &format!("{arguments} --identity second"))
}

/// The id of what a command proposed.
fn proposed(text: &str) -> String {
    text.split_whitespace().nth(2).unwrap().trim_end_matches(',').to_owned()
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
        "state_dir = \"state\"\nlisten = \"127.0.0.1:{port}\"\nunlock = \"operator\"\n\
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
    let init = "keys init --config keyservice.toml --policy policy.toml --shares 3 --threshold 2";
    let two = "--operator first=operator --operator second=second";
    let alone = fails(folder, &format!("{init} --recovery recovery --operator first=operator"), 1);
    assert!(alone.contains("two operators"), "{alone}");
    let made = succeeds(folder, &format!("{init} --recovery recovery {two}"));
    assert!(made.contains("recovery/default-v1-share-3.txt"), "{made}");
    assert!(fails(folder, &format!("{init} --recovery again {two}"), 2).contains("already"));

    let service = start(folder);
    assert!(succeeds(folder, "keys status").contains("Locked"));
    assert!(fails(folder, "keys keyset list", 1).contains("locked"));
    assert!(succeeds(folder, "keys unlock --passphrase-file passphrase").contains("Unlocked"));
    succeeds(folder, "keys keyset create archive --recovery more --shares 3 --threshold 2");
    assert!(succeeds(folder, "keys keyset list").contains("archive  version 1"));
    let id = proposed(&succeeds(folder, "keys gateway enrol main --keyset default"));
    assert!(fails(folder, &format!("keys approve {id}"), 1).contains("another operator"));
    assert!(second(folder, "keys proposals").contains(&format!("{id}  by admin:first")));
    assert!(second(folder, &format!("keys approve {id}")).contains("collect"));
    succeeds(folder, &format!("keys collect {id} --token-file token"));
    succeeds(folder, "gateway enrol --token-file token --state-dir gateway");
    assert!(fails(folder, "gateway enrol --token-file token --state-dir other", 1).contains("used"));
    assert!(succeeds(folder, "keys gateway list").contains("gateway:main"));

    let budgets = succeeds(folder, "keys budgets show");
    assert!(
        budgets.contains("gateway:main  default  0 of 500 epochs, 0 of 20000 objects in 3600 s"),
        "{budgets}"
    );

    drop(service);
    let _service = start(folder);
    assert!(succeeds(folder, "keys status").contains("Locked"), "a start leaves it locked");
    succeeds(folder, "keys unlock --passphrase-file passphrase");
    assert!(succeeds(folder, "keys gateway list").contains("gateway:main"), "kill -9 lost nothing");
    succeeds(folder, "keys freeze --gateway main --reason drill");
    assert!(succeeds(folder, "keys status").contains("gateway:main since"));
    let id = proposed(&succeeds(folder, "keys unfreeze --gateway main"));
    assert!(second(folder, &format!("keys approve {id}")).contains("Done."));
    succeeds(folder, "keys gateway revoke main --since 2026-01-31T12:00:00Z");
    let tail = succeeds(folder, "keys audit tail -n 3");
    assert!(tail.contains("\"action\":\"revoke\"") && tail.contains("gateway:main"), "{tail}");
    let held = succeeds(folder, "keys epochs quarantine");
    assert!(held.lines().count() == 1 && held.contains("(gateway:main): all that it sealed since"), "{held}");
    let policy = succeeds(folder, "keys policy show");
    assert!(policy.contains("identity = \"gateway:camera\"") && policy.starts_with("# sha256 "), "{policy}");
    std::fs::write(folder.join("other.toml"), policy.replace("\"write\", \"continue\"]", "\"write\"]"))
        .unwrap();
    let proposal = succeeds(folder, "keys policy propose other.toml");
    assert!(proposal.contains("- gateway:camera may write, continue on keyset default"), "{proposal}");
    let words = second(folder, &format!("keys approve {}", proposed(&proposal)));
    assert!(words.contains("+ gateway:camera may write on keyset default"), "{words}");
    let gone = proposed(&succeeds(folder, "keys operator enrol third"));
    assert!(second(folder, &format!("keys withdraw {gone}")).contains("withdrawn"));
    let ca = made.lines().find(|line| line.starts_with("Certificate authority")).unwrap();
    let ca = ca.rsplit(' ').next().unwrap();
    let port = std::fs::read_to_string(folder.join("keyservice.toml")).unwrap();
    let address = port.split('"').find(|text| text.starts_with("127.")).unwrap();
    let shares = "--share recovery/default-v1-share-1.txt --share recovery/default-v1-share-3.txt";
    let recover = format!("keys operator recover second {shares} --address {address} --ca {ca}");
    succeeds(folder, &format!("{recover} --identity third"));
    succeeds(folder, "keys status --identity third");
    assert!(fails(folder, "keys status --identity second", 1).contains("revoked"), "replaced");
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
    let init =
        "keys init --config keyservice.toml --policy policy.toml --recovery r --operator a=a --operator b=b";
    for (command, code) in [("keys policy check policy.toml", 2), (init, 1)] {
        let error = fails(folder, command, code);
        assert!(error.contains("policy.toml:") && error.contains("remedy:"), "{error}");
    }
}

#[test]
fn a_policy_is_tried_before_it_counts() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    prepare(folder);
    let expect = |allow| {
        format!(
            "[[expect]]\nidentity = \"gateway:camera\"\nverb = \"read\"\nkeyset = \"default\"\nallow = {allow}\n"
        )
    };
    std::fs::write(folder.join("expect.toml"), expect(false)).unwrap();
    assert!(succeeds(folder, "keys policy test policy.toml expect.toml").contains("1 expectations, all met"));
    std::fs::write(folder.join("expect.toml"), expect(true)).unwrap();
    let failed = run(folder, "keys policy test policy.toml expect.toml");
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stdout).contains("expect.toml:1: gateway:camera read"));
    let explain = "keys policy explain policy.toml --keyset default --bucket invoices";
    let granted =
        succeeds(folder, &format!("{explain} --identity gateway:auditors --verb read --key 2026/a"));
    assert!(granted.starts_with("granted\n  line "), "{granted}");
    assert!(granted.contains("at most 2000 distinct objects in 86400 s"), "{granted}");
    let denied = succeeds(folder, &format!("{explain} --identity gateway:auditors --verb read --key 2025/a"));
    assert!(denied.starts_with("denied\n  line ") && denied.contains("only below"), "{denied}");
    assert!(fails(folder, &format!("{explain} --identity gateway:auditors --verb fly"), 2).contains("fly"));
}
