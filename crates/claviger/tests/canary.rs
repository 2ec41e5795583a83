//! Secrets that the test knows are looked for in everything that can be read of a key service: its log at the highest level, its
//! metrics, its answers, its state folder, and what is left of it when it is killed. And nobody of the same user looks into it.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use claviger_env::{Clock as _, OsRandom, SystemClock};
use claviger_format::{
    BucketId, EpochHeader, EpochId, EpochRecord, KemPublicKey, Layout, Metadata, ObjectId, ObjectName, Psk,
    Random, Salt, SealTo, Wek, envelope,
};
use claviger_gateway::key_client::KeyClient;
use claviger_keyapi::enrol::EnrolToken;
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{
    DeriveItem, DerivePurpose, Derived, EnvelopeHeader, KeyService as _, LeaseItem, SessionInfo,
};
use claviger_keyservice::custody::shamir::{Share, combine};

use common::{NOBODY, copy_program};

const POLICY: &str = r#"
[[operator]]
identity = "admin:first"
verbs = ["inspect", "unlock", "keyset", "enrol", "policy", "freeze", "backup", "disclose"]
[[operator]]
identity = "admin:second"
verbs = ["inspect", "unlock", "keyset", "enrol", "policy", "freeze", "backup", "disclose"]
[[grant]]
identity = "gateway:main"
keyset = "default"
verbs = ["lease", "write", "read", "head", "copy-source", "continue", "bind", "names"]
"#;

/// A folder in which everything happens, as a user without rights.
struct Home {
    folder: tempfile::TempDir,
    uid: Option<u32>,
    port: u16,
    admin_port: u16,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uid = (folder.path().metadata().unwrap().uid() == 0).then_some(NOBODY);
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (main, admin) = (free(), free());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let home = Self { port: port(&main), admin_port: port(&admin), uid, folder };
        let config = format!(
            "state_dir = \"state\"\nlisten = \"127.0.0.1:{}\"\nadmin_listen = \"127.0.0.1:{}\"\nunlock = \"operator\"\n\
             passphrase_file = \"passphrase\"\n",
            home.port, home.admin_port
        );
        fs::write(home.path("keyservice.toml"), config).unwrap();
        fs::write(home.path("policy.toml"), POLICY).unwrap();
        // The other user may not reach where it was built.
        copy_program(env!("CARGO_BIN_EXE_claviger"), home.path("claviger"));
        if let Some(uid) = home.uid {
            let own = |path: &Path| chown(path, Some(uid), Some(uid)).unwrap();
            own(home.folder.path());
            fs::read_dir(home.folder.path()).unwrap().for_each(|entry| own(&entry.unwrap().path()));
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn as_user(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    fn claviger(&self, arguments: &str) -> Command {
        let mut command = self.as_user("./claviger");
        command.args(arguments.split_whitespace()).env("CLAVIGER_OPERATOR", self.path("operator"));
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.claviger(arguments).output().unwrap()
    }

    fn succeeds(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        chown(self.path(name), self.uid, self.uid).unwrap();
        fs::set_permissions(self.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The service, in a shell that asks for core dumps, and everything that it says in `service.log`.
    fn start(&self) -> Running {
        let log = File::create(self.path("service.log")).unwrap();
        let serve = "ulimit -c unlimited; exec ./claviger keyservice --config keyservice.toml --log trace --log-format json";
        let mut command = self.as_user("sh");
        command.args(["-c", serve]).stdout(log.try_clone().unwrap()).stderr(log);
        let running = Running(command.spawn().unwrap());
        for _ in 0..400 {
            if self.run("keys status").status.success() {
                return running;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the key service did not answer: {}", self.read("service.log"));
    }

    /// What health and metrics say.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Known secrets, and where they must not be.
#[derive(Default)]
struct Canaries(Vec<(String, Vec<u8>)>);

impl Canaries {
    fn text(&mut self, what: &str, text: &str) {
        self.0.push((what.to_owned(), text.trim().as_bytes().to_vec()));
    }

    /// Bytes, in every form in which they would be printed.
    fn bytes(&mut self, what: &str, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let numbers = format!("{bytes:?}");
        let numbers = numbers.trim_matches(['[', ']']).to_owned();
        let forms = [
            bytes.to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            STANDARD.encode(bytes).trim_end_matches('=').as_bytes().to_vec(),
            URL_SAFE_NO_PAD.encode(bytes).into_bytes(),
            numbers.replace(' ', "").into_bytes(),
            numbers.into_bytes(),
        ];
        self.0.extend(forms.into_iter().map(|form| (what.to_owned(), form)));
    }

    /// In base64, as keys are on the wire.
    fn printed(&self, what: &str) -> &str {
        let is_base64 = |form: &&Vec<u8>| form.len() == 43 && form.is_ascii();
        let mut forms = self.0.iter().filter(|(name, _)| name == what).map(|(_, form)| form);
        std::str::from_utf8(forms.find(is_base64).unwrap()).unwrap()
    }

    fn assert_not_in(&self, place: &str, content: &[u8]) {
        for (what, secret) in &self.0 {
            assert!(secret.len() >= 16, "{what} is too short to be looked for");
            assert!(!contains(content, secret), "{what} is in {place}");
        }
    }

    fn assert_not_below(&self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                self.assert_not_below(&entry.path());
            } else {
                self.assert_not_in(&entry.path().display().to_string(), &fs::read(entry.path()).unwrap());
            }
        }
    }
}

fn contains(content: &[u8], wanted: &[u8]) -> bool {
    content.windows(wanted.len()).any(|window| window == wanted)
}

/// The id of what a command proposed.
fn proposed(text: &str) -> String {
    text.split_whitespace().nth(2).unwrap().trim_end_matches(',').to_owned()
}

/// What only the founders know.
fn founders_secrets(home: &Home) -> Canaries {
    let mut canaries = Canaries::default();
    let passphrase = home.read("passphrase");
    let digits = passphrase.trim().rsplit(['.', '-', ':']).next().unwrap().to_owned();
    canaries.text("the passphrase", &passphrase);
    canaries.text("the passphrase's bits", &digits);
    let shares: Vec<String> =
        (1..=3).map(|n| home.read(&format!("recovery/default-v1-share-{n}.txt"))).collect();
    let parsed: Vec<Share> = shares.iter().map(|text| Share::parse(text).unwrap()).collect();
    for share in &parsed {
        let line = share.to_line();
        canaries.text("a share", &line);
        canaries.text("the value of a share", line.rsplit('.').nth(1).unwrap());
        canaries.text("the words of a share", &share.to_words()[20..30].join(" "));
    }
    canaries.bytes("the root", combine(&parsed[..2]).unwrap().expose());
    for operator in ["operator", "second"] {
        let identity: serde_json::Value =
            serde_json::from_str(&home.read(&format!("{operator}/identity.json"))).unwrap();
        canaries.text("an operator's private key", identity["key"].as_str().unwrap());
    }
    canaries
}

/// A gateway that seals and opens something; every key that it is given is a canary.
async fn use_as_gateway(home: &Home, canaries: &mut Canaries) -> EpochId {
    let clock = Arc::new(SystemClock);
    let random = OsRandom::new(clock.clone()).unwrap();
    let address = format!("127.0.0.1:{}", home.port);
    let keys = KeyClient::open(&address, &home.path("gateway"), clock).unwrap();
    let session = keys.session().await.unwrap().value;
    let keyset = &session.keysets[0];
    canaries.bytes("a PSK", keyset.psk.as_ref().unwrap().expose());
    canaries.bytes("the name key", keyset.name_key.as_ref().unwrap().expose());
    canaries.bytes("a seed", session.seed.expose());
    let bucket_id = keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    let (id, wek, record) = seal_epoch(&session, &random);
    canaries.bytes("a WEK", wek.expose());
    keys.register_epoch(&record).await.unwrap();
    let leased =
        keys.lease(vec![LeaseItem { epoch_id: id.into(), record: None }]).await.unwrap().value.remove(0);
    let lease = leased.unwrap();
    assert_eq!(lease.wek.expose(), wek.expose());

    let object_id = ObjectId::draw(&random).unwrap();
    let dek = wek.dek(id, object_id);
    canaries.bytes("a DEK", dek.expose());
    let name = ObjectName::new(BucketId::new(bucket_id.as_str()).unwrap(), "a.jpg").unwrap();
    let layout = Layout::Single { salt: Salt::draw(&random).unwrap(), length: 5 };
    let sealed =
        envelope::seal(&dek, id, object_id, &name, &layout, &Metadata::default(), 1418, &random).unwrap();
    let header = EnvelopeHeader::new(&envelope::Envelope::parse(&sealed).unwrap().header_bytes());
    home.write("a.envelope", &sealed);
    let item = |key: &str, record: Option<Vec<u8>>| DeriveItem {
        record: record.map(Blob),
        header: header.clone(),
        bucket_id: bucket_id.clone(),
        key: key.to_owned(),
        purpose: DerivePurpose::Read,
        on_behalf_of: None,
    };
    let items = vec![item("a.jpg", None), item("b.jpg", None), item("a.jpg", Some(vec![1; 700]))];
    let mut derived = keys.derive(items).await.unwrap().value;
    assert!(derived[1].is_err() && derived[2].is_err());
    let Ok(Derived::Read { dek: given, .. }) = derived.remove(0) else { panic!("no DEK") };
    assert_eq!(given.expose(), dek.expose());
    // A panic says what somebody wanted to see of these; nothing of it is secret.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        panic!("{session:?} {lease:?} {given:?} {keys:?} {:?}", Err::<(), _>(&lease.wek));
    }));
    let said = panicked.unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains(&session.gateway_id.to_string()), "{said}");
    canaries.assert_not_in("a panic", said.as_bytes());
    // Requests that make no sense, with a key where none belongs: the answer does not repeat it.
    for path in ["/v1/lease", "/v1/bind", "/v1/register", "/v1/epoch", "/v1/nothing"] {
        let odd = serde_json::json!({"items": 7, "bucket": 1, "key": STANDARD.encode(wek.expose())});
        let refused = keys.transport().call::<_, serde_json::Value>(path, &odd).await.map(drop).unwrap_err();
        canaries.assert_not_in(path, format!("{refused} {refused:?}").as_bytes());
    }
    id
}

fn seal_epoch(session: &SessionInfo, random: &dyn Random) -> (EpochId, Wek, Vec<u8>) {
    let keyset = &session.keysets[0];
    let id = EpochId::draw(random).unwrap();
    let wek = Wek::generate(random, session.seed.expose()).unwrap();
    let sealer_id = session.gateway_id.into();
    let header = EpochHeader {
        created_ms: SystemClock.now_ms(),
        epoch_id: id,
        gateway_id: sealer_id,
        keyset_id: keyset.keyset_id.into(),
    };
    let public_key = KemPublicKey::from_slice(keyset.public_key.as_bytes()).unwrap();
    let psk = Psk::from_slice(keyset.psk.as_ref().unwrap().expose()).unwrap();
    let to = SealTo { version: keyset.version, public_key: &public_key, sealer_id, psk: &psk };
    let record = EpochRecord::seal(&header, &wek, &to, random).unwrap().to_bytes();
    (id, wek, record)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_can_be_read_of_a_key_service() {
    let home = Home::new();
    home.succeeds(
        "keys init --config keyservice.toml --policy policy.toml --recovery recovery --shares 3 --threshold 2 \
         --operator first=operator --operator second=second",
    );
    let mut canaries = founders_secrets(&home);
    let mut service = home.start();

    // Secrets that are wrong, half right, or in the wrong place.
    let wrong: String = home.read("passphrase").chars().rev().collect();
    home.write("reversed", &wrong);
    canaries.text("a wrong passphrase", &wrong);
    let share = home.read("recovery/default-v1-share-1.txt");
    home.write("share", &share);
    let mut said = String::new();
    said += &home.fails("keys unlock --passphrase-file reversed");
    said += &home.fails("keys unlock --share share");
    said += &home.fails("keys unlock --passphrase-file share");
    said += &home.succeeds("keys unlock --passphrase-file passphrase");

    let id = proposed(&home.succeeds("keys gateway enrol main --keyset default"));
    home.succeeds(&format!("keys approve {id} --identity second"));
    home.succeeds(&format!("keys collect {id} --token-file token"));
    let token = home.read("token");
    canaries.text("an enrolment token", &token);
    canaries.text("its secret", EnrolToken::parse(token.trim()).unwrap().secret.expose());
    said += &home.succeeds("gateway enrol --token-file token --state-dir gateway");
    said += &home.fails("gateway enrol --token-file token --state-dir again");
    let epoch_id = use_as_gateway(&home, &mut canaries).await;
    let gateway: serde_json::Value = serde_json::from_str(&home.read("gateway/identity.json")).unwrap();
    canaries.text("a gateway's private key", gateway["key"].as_str().unwrap());
    let id = proposed(&home.succeeds("keys disclose photos/a.jpg --envelope a.envelope --reason drill"));
    said += &home.succeeds(&format!("keys approve {id} --identity second"));
    said += &home.succeeds(&format!("keys collect {id} --key-file a.key"));
    // The key file is a secret of its own: what says that it is no object of it does not show it.
    home.write("a.sealed", &home.read("a.key"));
    said += &home.fails("open --key-file a.key --object a.sealed --envelope a.envelope --out a.jpg");
    said += &home.fails("open --key-file a.envelope --object a.sealed --envelope a.key --out a.jpg");
    assert!(contains(home.read("a.key").as_bytes(), canaries.printed("a DEK").as_bytes()));
    said += &home.succeeds("keys freeze --gateway main --reason drill");
    said += &home.succeeds("keys status");
    said += &home.succeeds("keys audit tail -n 1000");
    said += &home.succeeds("keys policy show");
    said += &home.succeeds("keys lock");
    said += &home.succeeds("keys unlock --passphrase-file passphrase");

    assert!(contains(said.as_bytes(), epoch_id.to_string().as_bytes()), "what is no secret is found");
    canaries.assert_not_in("what the commands say", said.as_bytes());
    for path in ["/metrics", "/ready", "/live", "/nothing"] {
        canaries.assert_not_in(path, home.get(path).as_bytes());
    }
    assert!(home.get("/metrics").contains("claviger_keyservice_requests_total"));
    // Killed in a way that asks for a core dump, in a shell that allows one.
    let killed = Command::new("kill").args(["-ABRT", &service.0.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let end = service.0.wait().unwrap();
    assert_eq!((end.signal(), end.core_dumped()), (Some(6), false));
    let names = fs::read_dir(home.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with("core")));
    let log = fs::read(home.path("service.log")).unwrap();
    assert!(log.len() > 10_000, "it logs everything");
    canaries.assert_not_in("the service's log", &log);
    canaries.assert_not_below(&home.path("state"));
}

/// Whether another process of this user may read something of a process that only its owner may.
fn may_read(home: &Home, pid: u32, name: &str) -> bool {
    let mut cat = home.as_user("cat");
    cat.arg(format!("/proc/{pid}/{name}")).stdout(Stdio::null()).stderr(Stdio::null());
    cat.status().unwrap().success()
}

#[test]
fn nobody_of_the_same_user_looks_into_a_service_and_it_says_whether_its_memory_is_locked() {
    let home = Home::new();
    home.succeeds(
        "keys init --config keyservice.toml --policy policy.toml --recovery recovery --shares 3 --threshold 2 \
         --operator first=operator --operator second=second",
    );
    let open = Running(home.as_user("sleep").arg("60").spawn().unwrap());
    assert!(may_read(&home, open.0.id(), "environ"), "of a process that does nothing against it");
    let service = home.start();
    let pid = service.0.id();
    assert!(
        !may_read(&home, pid, "environ") && !may_read(&home, pid, "maps") && !may_read(&home, pid, "mem")
    );
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let limits = read("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");

    home.succeeds("keys unlock --passphrase-file passphrase");
    let status = read("status");
    let locked = status.lines().find(|line| line.starts_with("VmLck")).unwrap();
    let is_locked = !locked.contains("\t       0 kB");
    let ready = home.get("/ready");
    assert!(ready.contains("200 OK"), "{ready}");
    assert_eq!(ready.contains("note: keys in memory can be swapped out"), !is_locked, "{locked}: {ready}");
}

#[test]
fn a_service_that_must_lock_its_memory_does_not_start_where_it_can_not() {
    let home = Home::new();
    let start = |limit: &str, what: &str| {
        let line = format!("ulimit -l {limit}; exec ./claviger {what} --require-locked-memory");
        home.as_user("sh").args(["-c", &line]).output().unwrap()
    };
    let refused = start("64", "keyservice --config keyservice.toml");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("LimitMEMLOCK=infinity"), "{said}");
}

/// Other tests start processes while this one copies its program.
#[test]
fn a_copied_program_runs_at_once_though_others_start_processes() {
    let folder = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(Command::new("true").current_dir("/").status().unwrap().success());
            }
        });
        let runs = (0..100).map(|index| {
            let program = folder.path().join(format!("true-{index}"));
            copy_program("/bin/true", &program);
            Command::new(program).status()
        });
        let failed: Vec<_> = runs.filter_map(Result::err).collect();
        done.store(true, Ordering::Relaxed);
        assert!(failed.is_empty(), "{failed:?}");
    });
}
