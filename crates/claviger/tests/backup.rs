//! `keys backup` and `keys restore` as an operator types them.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
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

/// Exit code and everything that was said.
fn run(folder: &Path, arguments: &str) -> (Option<i32>, String) {
    let output = claviger(folder, arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn succeeds(folder: &Path, arguments: &str) -> String {
    let (code, text) = run(folder, arguments);
    assert_eq!(code, Some(0), "claviger {arguments}: {text}");
    text
}

fn write_config(folder: &Path, name: &str, state_dir: &str) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "state_dir = \"{state_dir}\"\nlisten = \"127.0.0.1:{port}\"\n\
         unlock = \"passphrase-file\"\npassphrase_file = \"passphrase\"\n"
    );
    std::fs::write(folder.join(name), config).unwrap();
}

/// Starts a service and gives the address at which it answers.
fn start(folder: &Path, config: &str) -> (Running, String) {
    let text = std::fs::read_to_string(folder.join(config)).unwrap();
    let address = text.lines().find_map(|line| line.strip_prefix("listen = ")).unwrap();
    let address = address.trim_matches('"').to_owned();
    let service =
        Running(claviger(folder, &format!("keyservice --config {config} --log error")).spawn().unwrap());
    for _ in 0..200 {
        if run(folder, &format!("keys status --address {address}")).0 == Some(0) {
            return (service, address);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the key service did not answer: {}", run(folder, "keys status").1);
}

#[test]
fn a_backup_is_taken_while_the_service_runs_and_restored_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    write_config(folder, "keyservice.toml", "state");
    std::fs::write(folder.join("policy.toml"), include_str!("../../../deploy/policy.toml")).unwrap();
    succeeds(
        folder,
        "keys init --config keyservice.toml --policy policy.toml --recovery recovery --shares 3 --threshold 2 \
         --operator first=operator --operator second=second",
    );
    let (first, _) = start(folder, "keyservice.toml");
    assert!(succeeds(folder, "keys backup copy").contains("read back and whole"));
    let (code, text) = run(folder, "keys backup copy");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("not overwritten") && !folder.join("copy.unfinished").exists());
    drop(first);

    write_config(folder, "restored.toml", "restored");
    let shares = "--share recovery/default-v1-share-1.txt --share recovery/default-v1-share-3.txt";
    let restore = format!("keys restore copy --config restored.toml {shares}");
    let (code, text) = run(folder, "keys restore copy --config restored.toml");
    assert_eq!(code, Some(1), "{text}");
    assert!(succeeds(folder, &restore).contains("all agree"));
    assert_eq!(run(folder, &restore).0, Some(1), "it is there already");
    let (_second, address) = start(folder, "restored.toml");
    assert!(succeeds(folder, &format!("keys status --address {address}")).contains("Unlocked"));
    let tail = succeeds(folder, &format!("keys audit tail --address {address}"));
    assert!(tail.contains("\"action\":\"init\"") && tail.contains("\"action\":\"restore\""), "{tail}");
}
