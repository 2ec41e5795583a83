//! The program as a process: what it prints, how it ends, what it leaves in its folder.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]
#![allow(clippy::disallowed_methods, reason = "a test that waits for a process needs the real clock")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn claviger() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.env_remove("CLAVIGER_LOG").env_remove("CLAVIGER_LOG_FORMAT").stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output, text)
}

/// A running demonstration; killed if the test fails before it is stopped.
struct Demo {
    process: Child,
    endpoint: String,
}

impl Demo {
    fn start(dir: &Path) -> Self {
        let ready = dir.with_extension("ready");
        let mut command = claviger();
        command
            .arg("demo")
            .arg("--dir")
            .arg(dir)
            .args(["--listen", "127.0.0.1:0", "--ready-file"])
            .arg(&ready);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while !ready.exists() {
            if let Some(status) = process.try_wait().unwrap() {
                let mut errors = String::new();
                process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
                panic!("the demo ended with {status}: {errors}");
            }
            assert!(begun.elapsed() < PATIENCE, "the demo is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        let endpoint = std::fs::read_to_string(&ready).unwrap().trim().to_owned();
        Self { process, endpoint }
    }

    /// Sends bytes and gives the status line of the answer.
    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.endpoint.trim_start_matches("http://")).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    }

    /// Stops it as a terminal (SIGINT) or a supervisor (SIGTERM) does.
    fn stop(mut self, signal: &str) -> String {
        let killed = Command::new("kill").arg(signal).arg(self.process.id().to_string()).status().unwrap();
        assert!(killed.success());
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "the demo does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut text = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(status.success(), "{status}: {text}");
        text
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has usually ended already, which is what this fails for.
        drop(self.process.kill());
    }
}

fn mode(path: PathBuf) -> u32 {
    std::fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode()
        & 0o777
}

#[test]
fn a_demo_starts_serves_ends_on_both_signals_and_keeps_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let demo = Demo::start(&dir);
    let answer = demo.ask("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 403 "), "who does not sign is refused: {answer}");
    let environment = std::fs::read_to_string(dir.join("credentials.env")).unwrap();
    assert!(environment.contains(&format!("export AWS_ENDPOINT_URL={}\n", demo.endpoint)), "{environment}");
    assert_eq!(mode(dir.join("credentials.env")), 0o600);
    assert_eq!(mode(dir.join("demo.json")), 0o600);
    let shares: Vec<_> =
        std::fs::read_dir(dir.join("recovery")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(shares.len(), 5);
    assert!(shares.into_iter().all(|share| mode(share) == 0o600));

    let (second, text) =
        output(claviger().arg("demo").arg("--dir").arg(&dir).args(["--listen", "127.0.0.1:0"]));
    assert_eq!(second.status.code(), Some(2), "{text}");
    assert!(text.contains("another demo runs"), "{text}");
    let (peek, text) = output(claviger().args(["peek", "s3://no-such/key", "--dir"]).arg(&dir));
    assert_eq!(peek.status.code(), Some(1), "{text}");

    let screen = demo.stop("-INT");
    for part in ["aws s3 mb s3://demo", "boto3", "claviger peek", "recovery", "Stopped."] {
        assert!(screen.contains(part), "{screen}");
    }
    assert!(!dir.with_extension("ready").exists());

    let again = Demo::start(&dir);
    let secret = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("export AWS_SECRET_ACCESS_KEY="));
        line.unwrap().to_owned()
    };
    let now = std::fs::read_to_string(dir.join("credentials.env")).unwrap();
    assert_eq!(secret(&now), secret(&environment));
    assert!(!screen.contains(&secret(&now)), "the screen shows no secret");
    again.stop("-TERM");
}

#[test]
fn a_wrong_configuration_ends_with_code_2_line_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\ncolour = 1\n").unwrap();
    for more in [&["--check"][..], &[]] {
        let (ended, text) = output(claviger().args(["gateway", "--config"]).arg(&file).args(more));
        assert_eq!(ended.status.code(), Some(2), "{text}");
        assert!(text.contains("gateway.toml:2: error: ") && text.contains("remedy: "), "{text}");
    }
}

#[test]
fn a_check_and_a_start_list_everything_that_is_missing_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/gateway.toml"), &file).unwrap();
    for more in [&["--check"][..], &[]] {
        let (ended, text) = output(claviger().args(["gateway", "--config"]).arg(&file).args(more));
        assert_eq!(ended.status.code(), Some(2), "{text}");
        for missing in ["credentials.toml", "upstream-credentials.toml", "/var/lib/claviger/gateway"] {
            assert!(text.contains(missing), "{missing} in {text}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_code_2_and_help_with_0() {
    for wrong in
        [&["fly"][..], &["gateway"], &["peek", "not-a-url"], &["demo", "--upstream", "http://x"], &[]]
    {
        let (ended, text) = output(claviger().args(wrong));
        assert_eq!(ended.status.code(), Some(2), "{wrong:?}: {text}");
    }
    for help in [&["--help"][..], &["demo", "--help"], &["gateway", "enrol", "--help"], &["keys", "--help"]] {
        let (ended, text) = output(claviger().args(help));
        assert_eq!(ended.status.code(), Some(0), "{text}");
        assert!(text.contains("Usage: "), "{text}");
    }
}
