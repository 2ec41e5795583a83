//! Ceremonies as people hold them, with the program as a process: shares on paper read by programs that are not ours, unlocking
//! by a quorum, unlocking by an HSM (SoftHSM2) that comes and goes.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod debian;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What every service begins with, however it is unlocked.
const FOUNDING: [&str; 6] =
    ["--policy", "policy.toml", "--operator", "first=operator", "--operator", "second=second"];

/// A folder with a configuration on a free port, and what the processes that work in it are told.
struct Home {
    folder: tempfile::TempDir,
    admin_port: u16,
}

impl Home {
    fn new(unlock: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (main, admin) = (free(), free());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let config = format!(
            "state_dir = \"state\"\nlisten = \"127.0.0.1:{}\"\nadmin_listen = \"127.0.0.1:{}\"\n\
             {unlock}\n",
            port(&main),
            port(&admin)
        );
        fs::write(folder.path().join("keyservice.toml"), config).unwrap();
        fs::write(folder.path().join("policy.toml"), include_str!("../../../deploy/policy.toml")).unwrap();
        Self { admin_port: port(&admin), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn claviger(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command
            .current_dir(self.folder.path())
            .args(arguments.split_whitespace())
            .args(if arguments.starts_with("keys init ") { &FOUNDING[..] } else { &[] })
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .env("CLAVIGER_OPERATOR", self.path("operator"));
        command
    }

    fn succeeds(&self, arguments: &str) -> String {
        said(self.claviger(arguments).output().unwrap(), arguments)
    }

    fn fails(&self, arguments: &str) -> String {
        let output = self.claviger(arguments).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "claviger {arguments}: {errors}");
        errors
    }

    fn typed(&self, arguments: &str, input: &str) -> Output {
        let mut command = self.claviger(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn start(&self) -> Running {
        let service = self.claviger("keyservice --config keyservice.toml --log error").spawn().unwrap();
        let service = Running(service);
        wait("the key service answers", || self.claviger("keys status").output().unwrap().status.success());
        service
    }

    /// Status and body of `/ready`.
    fn ready(&self) -> (u16, String) {
        self.get("/ready")
    }

    fn get(&self, path: &str) -> (u16, String) {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.admin_port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Whether the metrics have exactly this line.
    fn measures(&self, line: &str) -> bool {
        self.get("/metrics").1.lines().any(|there| there == line)
    }
}

fn said(output: Output, what: &str) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within 30 s: {what}");
}

/// A program of a Debian package; installed if it is missing.
fn program(name: &str, package: &str) -> Command {
    debian::install(package, || debian::has(name));
    Command::new(name)
}

/// What a QR reader that is not ours (ZBar) reads in a picture.
fn scanned(picture: &Path) -> String {
    let output = program("zbarimg", "zbar-tools")
        .args(["--quiet", "--raw", "-Sdisable", "-Sqrcode.enable"])
        .arg(picture)
        .output();
    said(output.unwrap(), "zbarimg").trim().to_owned()
}

#[test]
fn shares_on_paper_are_read_by_programs_that_are_not_ours() {
    let home = Home::new("unlock = \"operator\"\npassphrase_file = \"passphrase\"");
    let made = home.succeeds(
        "keys init --config keyservice.toml --recovery recovery --shares 3 --threshold 2 --shares-format text,png,pdf",
    );
    let root = made.split("root ").nth(1).unwrap().split_whitespace().next().unwrap();
    let text = fs::read_to_string(home.path("recovery/default-v1-share-2.txt")).unwrap();
    let line = text.lines().find(|line| line.starts_with("clv-share-1.")).unwrap();
    assert_eq!(scanned(&home.path("recovery/default-v1-share-2.png")), line.to_uppercase());

    let sheet = home.path("recovery/default-v1-share-2.pdf");
    let printed = program("pdftotext", "poppler-utils").arg("-layout").arg(&sheet).arg("-").output().unwrap();
    let printed = said(printed, "pdftotext");
    let check = line.rsplit('.').next().unwrap();
    for part in ["Claviger recovery share 2 of 3", root, check, "needed", line.split('.').nth(3).unwrap()] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    let rows: String = printed
        .lines()
        .filter(|row| row.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        .fold(String::new(), |all, row| all + row + "\n");
    let typed = home.typed(&format!("keys share check - --some --root {root}"), &rows);
    assert!(said(typed, "the words of the sheet, typed").contains("share 2 of 3"));
    let drawn = program("pdftoppm", "poppler-utils")
        .args(["-png", "-singlefile", "-r", "110"])
        .arg(&sheet)
        .arg(home.path("page"))
        .output();
    said(drawn.unwrap(), "pdftoppm");
    assert_eq!(scanned(&home.path("page.png")), line.to_uppercase());
}

#[test]
fn shares_are_checked_shown_and_printed_anew_without_a_service() {
    let home = Home::new("unlock = \"operator\"\npassphrase_file = \"passphrase\"");
    home.succeeds("keys init --config keyservice.toml --recovery recovery --shares 3 --threshold 2");
    let all =
        "recovery/default-v1-share-1.txt recovery/default-v1-share-2.txt recovery/default-v1-share-3.txt";
    let verdict = home.succeeds(&format!("keys share check {all}"));
    assert!(verdict.contains("give the root that they name"), "{verdict}");
    let one = "recovery/default-v1-share-1.txt";
    assert!(home.fails(&format!("keys share check {one}")).contains("1 more"));
    assert!(home.succeeds(&format!("keys share check --some {one}")).contains("belong together"));
    assert!(home.fails(&format!("keys share check {all} --root {}", "0".repeat(32))).contains("not 0000"));
    assert!(home.fails(&format!("keys share check {one} {one}")).contains("twice"));

    let text = fs::read_to_string(home.path(one)).unwrap();
    let value = text.lines().find(|line| line.starts_with("clv-")).unwrap().split('.').nth(8).unwrap();
    assert!(!verdict.contains(value), "nothing secret is shown");
    let mut words: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("clv-"))
        .flat_map(str::split_whitespace)
        .filter(|word| !word.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    assert!(
        said(home.typed("keys share show -", &words.join("\n")), "show").contains("recovery share 1 of 3")
    );
    words[30] = if words[30] == "zoo" { "zone" } else { "zoo" };
    let wrong = home.typed("keys share check --some -", &words.join(" "));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("word 31 is another"));

    home.succeeds(&format!("keys share print {one} --to again --shares-format png,pdf"));
    let mixed = "again/default-v1-share-1.png recovery/default-v1-share-2.txt";
    assert!(home.succeeds(&format!("keys share check {mixed}")).contains("give the root"));
    let mixed = "again/default-v1-share-1.pdf recovery/default-v1-share-3.txt";
    assert!(home.succeeds(&format!("keys share check {mixed}")).contains("give the root"));
}

#[test]
fn a_quorum_unlocks_and_nothing_less_does() {
    let home = Home::new("unlock = \"quorum\"");
    assert!(
        String::from_utf8_lossy(
            &home.claviger("keys init --config keyservice.toml --recovery recovery").output().unwrap().stderr
        )
        .contains("--unlock-shares-dir")
    );
    let made = home.succeeds(
        "keys init --config keyservice.toml --recovery recovery --unlock-shares-dir unlock --unlock-shares 3 --unlock-threshold 2",
    );
    assert!(made.contains("3 unlock shares were written, read back"), "{made}");
    let mut shares: Vec<PathBuf> =
        fs::read_dir(home.path("unlock")).unwrap().map(|e| e.unwrap().path()).collect();
    shares.sort();
    let share = |n: usize| shares[n].display().to_string();
    assert!(home.succeeds(&format!("keys share check {} {}", share(0), share(2))).contains("give"));

    let service = home.start();
    assert!(home.ready().1.contains("0 of 2 shares are here"), "{:?}", home.ready());
    assert!(home.fails("keys unlock --hsm").contains("unlocked by shares"));
    let recovery = home.fails("keys unlock --share recovery/default-v1-share-1.txt");
    assert!(recovery.contains("recovery share"), "{recovery}");
    assert!(home.succeeds(&format!("keys unlock --share {}", share(0))).contains("1 of 2 needed"));
    assert!(home.fails(&format!("keys unlock --share {}", share(0))).contains("already"));
    assert!(home.succeeds("keys status").contains("here: 1; wiped in"), "{}", home.succeeds("keys status"));
    let words: String = fs::read_to_string(&shares[2])
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with("clv-"))
        .fold(String::new(), |all, line| all + line + "\n");
    let typed = home.typed("keys unlock --share -", &words);
    assert!(said(typed, "a share as words").contains("Unlocked"));
    assert_eq!(home.ready(), (200, "ready\n".to_owned()));
    assert!(home.succeeds("keys lock").contains("0 of 2 needed"));
    drop(service);

    let _service = home.start();
    assert!(home.succeeds("keys status").contains("Locked"), "a start leaves it locked");
    home.succeeds(&format!("keys unlock --share {}", share(1)));
    assert!(home.succeeds(&format!("keys unlock --share {}", share(0))).contains("Unlocked"));
    let tail = home.succeeds("keys audit tail -n 3");
    assert!(tail.contains("unlock-share") && tail.contains("share 2 of 3"), "{tail}");
}

#[test]
fn an_rsa_key_in_an_hsm_unlocks_too() {
    let home = with_token("rsa-oaep-sha1");
    home.succeeds("keys hsm make-key --config keyservice.toml");
    home.succeeds("keys init --config keyservice.toml --recovery recovery --shares 2 --threshold 2");
    let _service = home.start();
    wait("it unlocks by itself", || home.succeeds("keys status").contains("Unlocked"));
}

/// A token of SoftHSM2 and the configuration that names it.
fn with_token(mechanism: &str) -> Home {
    let home = Home::new(&format!(
        "unlock = \"pkcs11\"\n[pkcs11]\nmodule = \"/usr/lib/softhsm/libsofthsm2.so\"\ntoken = \"claviger test\"\n\
         key = \"master\"\npin_file = \"pin\"\nmechanism = \"{mechanism}\""
    ));
    fs::create_dir(home.path("tokens")).unwrap();
    let tokens = home.path("tokens");
    let conf = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    fs::write(home.path("softhsm2.conf"), conf).unwrap();
    let made = program("softhsm2-util", "softhsm2")
        .args("--init-token --free --so-pin 7777 --pin 4711 --label".split(' '))
        .arg("claviger test")
        .env("SOFTHSM2_CONF", home.path("softhsm2.conf"))
        .output();
    said(made.unwrap(), "softhsm2-util");
    write_pin(&home, "4711\n");
    home
}

fn write_pin(home: &Home, pin: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(home.path("pin"));
    file.unwrap().write_all(pin.as_bytes()).unwrap();
}

#[test]
fn an_aes_key_in_an_hsm_unlocks_and_the_hsm_may_come_and_go() {
    let home = with_token("aes-gcm");
    let (plugged, away) = (home.path("tokens"), home.path("away"));
    let init = "keys init --config keyservice.toml --recovery recovery --shares 2 --threshold 2";
    assert!(home.fails(init).contains("make-key"), "no key yet");
    home.succeeds("keys hsm make-key --config keyservice.toml");
    assert!(home.fails("keys hsm make-key --config keyservice.toml").contains("there already"));
    fs::remove_dir_all(home.path("recovery")).ok();
    assert!(home.succeeds(init).contains("unlocked by its HSM"));

    let service = home.start();
    wait("it unlocks by itself", || home.succeeds("keys status").contains("Unlocked"));
    assert_eq!(home.ready(), (200, "ready\n".to_owned()));
    // The token is pulled out: what runs goes on.
    fs::rename(&plugged, &away).unwrap();
    fs::create_dir(&plugged).unwrap();
    assert!(home.succeeds("keys keyset list").contains("default"));
    assert!(home.succeeds("keys lock").contains("Locked"));
    let gone = home.fails("keys unlock --hsm");
    assert!(gone.contains("the token is not there"), "{gone}");
    assert!(home.ready().1.contains("plug it in"), "{:?}", home.ready());
    // It comes back: no restart is needed, but whoever locked the service has to unlock it.
    fs::remove_dir(&plugged).unwrap();
    fs::rename(&away, &plugged).unwrap();
    assert!(home.succeeds("keys unlock --hsm").contains("Unlocked"));
    drop(service);

    // A start without the token: locked, and it comes back by itself.
    fs::rename(&plugged, &away).unwrap();
    fs::create_dir(&plugged).unwrap();
    let service = home.start();
    assert!(
        home.succeeds("keys status").contains("the token is not there"),
        "{}",
        home.succeeds("keys status")
    );
    let is_locked = "claviger_keyservice_problem{problem=\"locked\"} 1";
    assert!(home.measures(is_locked) && home.measures("claviger_keyservice_ready 0"));
    fs::remove_dir(&plugged).unwrap();
    fs::rename(&away, &plugged).unwrap();
    wait("it finds the token again", || home.succeeds("keys status").contains("Unlocked"));
    assert!(!home.measures(is_locked) && home.measures("claviger_keyservice_ready 1"));
    drop(service);
    a_wrong_pin_is_tried_once(&home);
}

fn a_wrong_pin_is_tried_once(home: &Home) {
    write_pin(home, "0000\n");
    let _service = home.start();
    assert!(home.ready().1.contains("refuses the PIN"), "{:?}", home.ready());
    write_pin(home, "4711\n");
    // Longer than the service waits between two visits.
    std::thread::sleep(Duration::from_secs(6));
    assert!(home.succeeds("keys status").contains("Locked"), "nobody told it to try again");
    assert!(home.succeeds("keys unlock --hsm").contains("Unlocked"));
}

/// Proposed by the first operator, approved by the second; what the second was shown.
fn by_two(home: &Home, proposal: &str) -> (String, String) {
    let text = home.succeeds(proposal);
    let id = text.split_whitespace().nth(2).unwrap().trim_end_matches(',').to_owned();
    let shown = home.succeeds(&format!("keys approve {id} --identity second"));
    (id, shown)
}

#[test]
fn two_operators_move_the_service_from_a_passphrase_to_an_hsm_and_to_a_quorum() {
    let home = with_token("aes-gcm");
    let by = |unlock: &str| {
        let config = fs::read_to_string(home.path("keyservice.toml")).unwrap();
        let rest = config.split_once("[pkcs11]").unwrap();
        let head: String = rest
            .0
            .lines()
            .filter(|line| !line.starts_with("unlock"))
            .fold(String::new(), |all, line| all + line + "\n");
        let config = format!("{head}unlock = \"{unlock}\"\n[pkcs11]{}", rest.1);
        fs::write(home.path("keyservice.toml"), config).unwrap();
    };
    by("operator");
    home.succeeds("keys hsm make-key --config keyservice.toml");
    home.succeeds("keys init --config keyservice.toml --recovery recovery --shares 2 --threshold 2 --passphrase-file passphrase");
    let service = home.start();
    home.succeeds("keys unlock --passphrase-file passphrase");
    let (_, shown) = by_two(&home, "keys unlock-change --to pkcs11");
    assert!(shown.contains("every older copy") && shown.contains("Done."), "{shown}");
    assert!(home.succeeds("keys status").contains("unlocked by    pkcs11"));
    home.succeeds("keys lock");
    assert!(home.fails("keys unlock --passphrase-file passphrase").contains("unlocked by an HSM"));
    drop(service);
    by("pkcs11");
    let service = home.start();
    wait("it unlocks by itself", || home.succeeds("keys status").contains("Unlocked"));

    let (id, shown) = by_two(&home, "keys unlock-change --to quorum --shares 3 --threshold 2");
    assert!(shown.contains("--to DIR"), "{shown}");
    let wrong = home.claviger(&format!("keys collect {id} --token-file token")).output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("is collected with --to DIR"), "it is not lost");
    let kept = home.succeeds(&format!("keys collect {id} --to unlock --shares-format text,pdf"));
    assert!(kept.contains("in force"), "{kept}");
    let (id, shown) = by_two(&home, "keys keyset reshare default --shares 3 --threshold 2");
    assert!(shown.contains("until they are destroyed"), "{shown}");
    home.succeeds(&format!("keys collect {id} --to again"));
    let list = home.succeeds("keys keyset list");
    assert!(list.contains("2 of 3 shares open it") && list.contains("2 of 2 shares of set"), "{list}");
    let both = "again/default-v1-share-1.txt again/default-v1-share-3.txt";
    assert!(home.succeeds(&format!("keys share check {both}")).contains("give"));
    drop(service);
    by("quorum");
    let _service = home.start();
    let mut shares: Vec<PathBuf> = fs::read_dir(home.path("unlock"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "pdf"))
        .collect();
    shares.sort();
    home.succeeds(&format!("keys unlock --share {}", shares[0].display()));
    assert!(home.succeeds(&format!("keys unlock --share {}", shares[2].display())).contains("Unlocked"));
}

#[test]
fn a_keyset_gets_a_new_version_and_what_the_old_one_opens_is_nearly_forgotten() {
    let home = Home::new("unlock = \"operator\"");
    home.succeeds("keys init --config keyservice.toml --recovery recovery --shares 2 --threshold 2 --passphrase-file passphrase");
    let _service = home.start();
    home.succeeds("keys unlock --passphrase-file passphrase");
    let (id, shown) = by_two(&home, "keys keyset rotate default --shares 3 --threshold 2");
    assert!(shown.contains("no object is touched") && shown.contains("--to DIR"), "{shown}");
    let kept = home.succeeds(&format!("keys collect {id} --to shares"));
    assert!(kept.contains("in force"), "{kept}");
    let list = home.succeeds("keys keyset list");
    assert!(list.contains("version 1  retired") && list.contains("version 2  active"), "{list}");
    let two = "shares/default-v2-share-1.txt shares/default-v2-share-3.txt";
    assert!(home.succeeds(&format!("keys share check {two}")).contains("give"));

    let plan = home.succeeds("keys shred plan default --version 1");
    assert!(plan.contains("everything in 0 epochs") && plan.contains("Nobody was given a key"), "{plan}");
    let early = home.claviger("keys shred propose default --version 1 --wait-days 2").output().unwrap();
    assert_eq!(early.status.code(), Some(2));
    assert!(
        home.fails("keys shred propose default --version 2").contains("keys keyset rotate default first")
    );
    let (_, shown) = by_two(&home, "keys shred propose default --version 1");
    assert!(shown.contains("its recovery shares and older backups") && shown.contains("Done."), "{shown}");
    assert!(home.succeeds("keys status").contains("keys shred cancel default --version 1"));
    assert!(home.ready().1.contains("note: version 1 of keyset default opens nothing"));
    assert!(home.succeeds("keys keyset list").contains("version 1  opens nothing"));
    assert!(home.fails("keys shred certificate default --version 1 --to .").contains("was not destroyed"));
    home.succeeds("keys shred cancel default --version 1 --identity second");
    assert!(home.succeeds("keys keyset list").contains("version 1  retired"));
    assert!(home.succeeds("keys keyset retire default").contains("keys keyset rotate default"));
    assert!(home.succeeds("keys keyset list").contains("default  read only"));
}
