//! `claviger audit export` as a process, before real sockets: nothing is lost, and nothing is sent twice without a word.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod debian;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use claviger_audit::SigningKey;
use claviger_audit::note::KeyKind;
use claviger_env::{OsRandom, SystemClock};
use claviger_keyservice::audit_log::AuditLog;
use serde::Deserialize;

const WAIT: Duration = Duration::from_secs(30);

/// A log that grows.
struct Log {
    folder: tempfile::TempDir,
    log: AuditLog,
    count: u64,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder.path().join("audit"));
        Self { folder, log, count: 0 }
    }

    fn grow(&mut self, by: u64) {
        let record = |n: u64| {
            let outcome = if n.is_multiple_of(5) { "refused" } else { "released" };
            format!(
                "{{\"v\":1,\"time_ms\":{},\"action\":\"lease\",\"outcome\":\"{outcome}\",\"key\":\"ä{n}\"}}",
                1_750_000_000_000 + n
            )
            .into_bytes()
        };
        self.log.append_blocking((self.count..self.count + by).map(record).collect()).unwrap();
        self.count += by;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.current_dir(self.folder.path()).args(["audit", "export", "audit"]);
        command.args(arguments.split_whitespace()).stderr(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    fn export(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn follow(&self, arguments: &str) -> Following {
        Following(self.command(&format!("{arguments} --follow")).spawn().unwrap())
    }
}

fn open(folder: &Path) -> AuditLog {
    let clock = Arc::new(SystemClock);
    let random = Arc::new(OsRandom::new(clock.clone()).unwrap());
    let (log, _) = AuditLog::open(folder, 4_000, random, clock).unwrap();
    let name = "claviger.invalid/log/00112233445566778899aabbccddeeff";
    log.sign_with(SigningKey::from_seed(name, KeyKind::Log, &[1; 32]).unwrap()).unwrap();
    log
}

struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Index of the line in a syslog message (RFC 5424), whose head is checked.
fn index_of_message(message: &str) -> u64 {
    let (head, text) = message.split_once(" claviger - lease - \u{feff}").unwrap();
    let mut fields = head.split(' ');
    assert!(matches!(fields.next(), Some("<110>1" | "<108>1")), "{head}");
    assert!(fields.next().unwrap().starts_with("2025-06-15T15:06:4"), "{head}");
    assert_eq!((fields.next(), fields.next()), (Some("keys.example"), None));
    index_of_line(text)
}

fn index_of_line(line: &str) -> u64 {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert!(line["record"]["key"].as_str().unwrap().starts_with('ä'));
    line["index"].as_u64().unwrap()
}

/// The indexes of so many messages, one a datagram.
fn datagrams(count: usize, mut receive: impl FnMut(&mut [u8]) -> usize) -> Vec<u64> {
    let mut bytes = vec![0; 70_000];
    let mut one = || {
        let len = receive(&mut bytes);
        index_of_message(std::str::from_utf8(&bytes[..len]).unwrap())
    };
    (0..count).map(|_| one()).collect()
}

#[test]
fn datagrams_hold_one_message_each() {
    let mut log = Log::new();
    log.grow(100);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = UnixDatagram::bind(log.path("dev-log")).unwrap();
    udp.set_read_timeout(Some(WAIT)).unwrap();
    unix.set_read_timeout(Some(WAIT)).unwrap();
    let received = std::thread::scope(|scope| {
        let by_udp = scope.spawn(|| datagrams(100, |bytes| udp.recv(bytes).unwrap()));
        let by_unix = scope.spawn(|| datagrams(100, |bytes| unix.recv(bytes).unwrap()));
        let port = udp.local_addr().unwrap().port();
        for to in [format!("udp://127.0.0.1:{port}"), format!("unix://{}", log.path("dev-log").display())] {
            let sent = log.export(&format!("--format syslog --hostname keys.example --to {to}"));
            assert!(sent.status.success(), "{}", errors(&sent));
        }
        [by_udp.join().unwrap(), by_unix.join().unwrap()]
    });
    let all: Vec<u64> = (0..100).collect();
    assert_eq!(received, [all.clone(), all]);
}

/// Reads messages with octet counting (RFC 6587) until the end of the stream.
fn octet_counted(stream: TcpStream, tell: &Sender<u64>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut len = Vec::new();
        reader.read_until(b' ', &mut len).unwrap();
        let Some((b' ', digits)) = len.split_last() else { return };
        let len: usize = std::str::from_utf8(digits).unwrap().parse().unwrap();
        let mut message = vec![0; len];
        reader.read_exact(&mut message).unwrap();
        if tell.send(index_of_message(std::str::from_utf8(&message).unwrap())).is_err() {
            return;
        }
    }
}

#[test]
fn an_export_goes_on_at_its_cursor_and_follows_a_log_over_files_and_a_receiver_that_was_away() {
    let mut log = Log::new();
    log.grow(10);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let arguments = format!("--format syslog --hostname keys.example --to tcp://{address} --cursor cursor");
    let (tell, told) = channel();
    let accept = |listener: TcpListener, tell: Sender<u64>| {
        std::thread::spawn(move || octet_counted(listener.accept().unwrap().0, &tell))
    };
    let receiver = accept(listener, tell.clone());
    let sent = log.export(&arguments);
    assert!(sent.status.success(), "{}", errors(&sent));
    receiver.join().unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());

    // Nothing new, nobody there: nothing is sent, so nothing fails. Then something is, and it fails, and is not forgotten.
    assert!(log.export(&arguments).status.success());
    log.grow(5);
    let failed = log.export(&arguments);
    assert_eq!(failed.status.code(), Some(1), "{}", errors(&failed));

    // Away at first, and there later.
    let following = log.follow(&arguments);
    std::thread::sleep(Duration::from_millis(300));
    let receiver = accept(TcpListener::bind(address).unwrap(), tell);
    assert_eq!(next(&told, 5), (10..15).collect::<Vec<_>>());
    for _ in 0..4 {
        log.grow(20);
    }
    assert_eq!(next(&told, 80), (15..95).collect::<Vec<_>>());
    drop(following);
    receiver.join().unwrap();
    let cursor: serde_json::Value =
        serde_json::from_slice(&std::fs::read(log.path("cursor")).unwrap()).unwrap();
    assert!(cursor["next"].as_u64().unwrap() <= 95);
}

fn next(told: &Receiver<u64>, count: usize) -> Vec<u64> {
    (0..count).map(|_| told.recv_timeout(WAIT).unwrap()).collect()
}

#[test]
fn an_interrupted_export_and_another_log_are_told() {
    let mut log = Log::new();
    log.grow(20);
    let lines = |output: &Output| -> Vec<u64> {
        String::from_utf8_lossy(&output.stdout).lines().map(index_of_line).collect()
    };
    assert_eq!(lines(&log.export("--cursor cursor")), (0..20).collect::<Vec<_>>());
    assert_eq!(lines(&log.export("--cursor cursor")), Vec::<u64>::new());
    log.grow(3);
    // As a crash between sending and noting it leaves the cursor.
    let cursor = std::fs::read_to_string(log.path("cursor")).unwrap();
    std::fs::write(log.path("cursor"), cursor.replace('}', ",\"sending\":23}")).unwrap();
    let again = log.export("--cursor cursor");
    assert_eq!(lines(&again), [20, 21, 22]);
    assert!(errors(&again).contains("records 20 to 22 may have been sent already"), "{}", errors(&again));
    assert!(errors(&log.export("--cursor cursor")).is_empty());

    let mut other = Log::new();
    other.grow(30);
    std::fs::copy(log.path("cursor"), other.path("cursor")).unwrap();
    let refused = other.export("--cursor cursor");
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    assert!(errors(&refused).contains("another log"), "{}", errors(&refused));
    let mut short = Log::new();
    short.grow(3);
    std::fs::copy(log.path("cursor"), short.path("cursor")).unwrap();
    assert!(errors(&short.export("--cursor cursor")).contains("ends before"));
    std::fs::write(log.path("cursor"), "{}").unwrap();
    assert_eq!(log.export("--cursor cursor").status.code(), Some(2));
}

/// A real rsyslogd that writes what it understood of each message to a file: host, program, kind, severity and text.
struct Rsyslog {
    process: Child,
    file: PathBuf,
    port: u16,
}

impl Rsyslog {
    fn start(folder: &Path) -> Self {
        debian::install("rsyslog", || debian::has("rsyslogd"));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (config, file) = (folder.join("rsyslog.conf"), folder.join("received"));
        let text = format!(
            "global(workDirectory=\"{folder}\" maxMessageSize=\"64k\")\nmodule(load=\"imtcp\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             template(name=\"parts\" type=\"string\" string=\"%hostname%|%app-name%|%msgid%|%syslogseverity-text%|%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{file}\" template=\"parts\")\n",
            folder = folder.display(),
            file = file.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("/usr/sbin/rsyslogd");
        command.arg("-n").arg("-f").arg(&config).arg("-i").arg(folder.join("rsyslog.pid"));
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        Self { process, file, port }
    }

    /// The indexes of the records that it has, once there are so many.
    fn indexes(&self, count: usize) -> Vec<u64> {
        for _ in 0..300 {
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            if text.lines().count() >= count {
                return text.lines().map(understood).collect();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{}", std::fs::read_to_string(&self.file).unwrap_or_default());
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn understood(line: &str) -> u64 {
    let parts: Vec<&str> = line.splitn(5, '|').collect();
    assert_eq!(parts[..3], ["keys.example", "claviger", "lease"], "{line}");
    let index = index_of_line(parts[4].trim_start_matches('\u{feff}'));
    assert_eq!(parts[3], if index.is_multiple_of(5) { "warning" } else { "info" }, "{line}");
    index
}

/// Takes away what the first records said, as pruning does, and leaves their entries.
fn prune(log: &Log, count: usize) {
    let path = log.path("audit/00000000000000000000.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut pruned = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Ok(record) = claviger_audit::Line::parse(line.as_bytes()) else { panic!("{line}") };
        if number < count {
            claviger_audit::pruned::Pruned { index: record.index, entry: record.entry() }.write(&mut pruned);
        } else {
            record.write(&mut pruned);
        }
    }
    std::fs::write(path, pruned).unwrap();
}

#[test]
fn rsyslog_understands_every_record_and_a_pruned_log_is_searched_and_handed_on_with_what_is_left() {
    let mut log = Log::new();
    log.grow(120);
    let rsyslog = Rsyslog::start(log.folder.path());
    let arguments = format!(
        "--format syslog --hostname keys.example --to tcp://127.0.0.1:{} --cursor cursor",
        rsyslog.port
    );
    let following = log.follow(&arguments);
    assert_eq!(rsyslog.indexes(120), (0..120).collect::<Vec<_>>());
    log.grow(40);
    assert_eq!(rsyslog.indexes(160), (0..160).collect::<Vec<_>>());
    drop(following);
    drop(rsyslog);

    prune(&log, 3);
    std::fs::remove_file(log.path("received")).unwrap();
    let rsyslog = Rsyslog::start(log.folder.path());
    let arguments = format!("--format syslog --hostname keys.example --to tcp://127.0.0.1:{}", rsyslog.port);
    let mut sent = log.export(&arguments);
    for _ in 0..50 {
        if sent.status.success() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        sent = log.export(&arguments);
    }
    assert!(errors(&sent).contains("3 records were pruned"), "{}", errors(&sent));
    assert_eq!(rsyslog.indexes(157), (3..160).collect::<Vec<_>>());
    let mut search = Command::new(env!("CARGO_BIN_EXE_claviger"));
    let found = search.current_dir(log.folder.path()).args(["audit", "search", "audit"]).output().unwrap();
    assert!(found.status.success() && errors(&found).contains("3 records were pruned"), "{}", errors(&found));
    assert_eq!(
        String::from_utf8_lossy(&found.stdout).lines().map(index_of_line).collect::<Vec<_>>(),
        (3..160).collect::<Vec<_>>()
    );
}

/// Rotel, a collector of OpenTelemetry that is not ours, which prints each record that it understood.
struct Rotel {
    process: Child,
    printed: PathBuf,
    port: u16,
}

impl Rotel {
    /// From PyPI, into a folder that stays; the program itself lies in the package.
    fn program() -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rotel-0.0.1a15");
        let program = folder.join("rotel/rotel-agent");
        if !program.exists() {
            let pip = ["-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target"];
            let installed =
                Command::new("python3").args(pip).arg(&folder).arg("rotel==0.0.1a15").output().unwrap();
            assert!(installed.status.success(), "rotel: {}", errors(&installed));
        }
        program
    }

    fn start(folder: &Path) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (http, grpc) = (free(), free());
        let (port, other) = (http.local_addr().unwrap().port(), grpc.local_addr().unwrap().port());
        drop((http, grpc));
        let printed = folder.join("rotel.log");
        let output = std::fs::File::create(&printed).unwrap();
        let mut command = Command::new(Self::program());
        command.args([
            "start",
            "--exporter",
            "blackhole",
            "--debug-log",
            "logs",
            "--debug-log-verbosity",
            "detailed",
        ]);
        command.args(["--otlp-http-endpoint", &format!("127.0.0.1:{port}")]);
        command.args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{other}")]);
        let process = command.stderr(output.try_clone().unwrap()).stdout(output).spawn().unwrap();
        Self { process, printed, port }
    }

    /// What stands behind these words, in each line that has them, once there are so many.
    fn values(&self, words: &str, count: usize) -> Vec<String> {
        for _ in 0..300 {
            let text = std::fs::read_to_string(&self.printed).unwrap();
            let values = text.lines().filter_map(|line| Some(line.split_once(words)?.1.to_owned()));
            let values: Vec<String> = values.collect();
            if values.len() >= count {
                return values;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{}", std::fs::read_to_string(&self.printed).unwrap());
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_collector_that_is_not_ours_understands_every_record() {
    let mut log = Log::new();
    log.grow(60);
    let rotel = Rotel::start(log.folder.path());
    let following =
        log.follow(&format!("--format otlp --hostname keys.example --to http://127.0.0.1:{}", rotel.port));
    rotel.values("claviger.index: ", 60);
    log.grow(40);
    let indexes: Vec<String> = (0..100).map(|n| format!("Int({n})")).collect();
    assert_eq!(rotel.values("claviger.index: ", 100), indexes);
    let severities = rotel.values("SeverityText: ", 100);
    let is_right =
        |(n, severity): (usize, &String)| severity == if n.is_multiple_of(5) { "WARN" } else { "INFO" };
    assert!(severities.iter().enumerate().all(is_right), "{severities:?}");
    for (n, body) in rotel.values("Body: Str(", 100).iter().enumerate() {
        assert_eq!(index_of_line(body.strip_suffix(')').unwrap()), n as u64);
    }
    drop(following);
}

// What opentelemetry-proto's JSON may hold here, and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ExportLogsServiceRequest {
    resource_logs: Vec<ResourceLogs>,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ResourceLogs {
    resource: Resource,
    scope_logs: Vec<ScopeLogs>,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    attributes: Vec<KeyValue>,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ScopeLogs {
    scope: Scope,
    log_records: Vec<LogRecord>,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    name: String,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LogRecord {
    time_unix_nano: String,
    observed_time_unix_nano: String,
    severity_number: u32,
    severity_text: String,
    body: AnyValue,
    attributes: Vec<KeyValue>,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyValue {
    key: String,
    value: AnyValue,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum AnyValue {
    StringValue(String),
    IntValue(String),
}

fn indexes(request: &str) -> Vec<u64> {
    let request: ExportLogsServiceRequest = serde_json::from_str(request).unwrap();
    let mut indexes = Vec::new();
    for resource in request.resource_logs {
        assert_eq!(resource.resource.attributes[0].key, "service.name");
        for scope in resource.scope_logs {
            assert_eq!(scope.scope.name, "claviger.audit");
            for record in scope.log_records {
                let AnyValue::StringValue(line) = &record.body else { panic!("a body that is no text") };
                let index = index_of_line(line);
                assert_eq!(record.time_unix_nano, ((1_750_000_000_000 + index) * 1_000_000).to_string());
                assert_eq!(record.time_unix_nano, record.observed_time_unix_nano);
                let severity = (record.severity_number, record.severity_text.as_str());
                assert_eq!(severity, if index.is_multiple_of(5) { (13, "WARN") } else { (9, "INFO") });
                let AnyValue::IntValue(number) = &record.attributes[0].value else { panic!("no number") };
                assert_eq!(*number, index.to_string());
                indexes.push(index);
            }
        }
    }
    indexes
}

/// A collector that gives these answers, one to each request, and tells what each request held.
fn collector(answers: Vec<(&'static str, &'static str)>) -> (String, Receiver<Vec<u64>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for (status, answer) in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let (mut head, mut len) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    len = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
                head.push_str(&line);
            }
            assert!(head.starts_with("POST /v1/logs HTTP/1.1\r\n"), "{head}");
            assert!(head.to_ascii_lowercase().contains("content-type: application/json\r\n"), "{head}");
            let mut body = vec![0; len];
            reader.read_exact(&mut body).unwrap();
            tell.send(indexes(std::str::from_utf8(&body).unwrap())).unwrap();
            let len = answer.len();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n");
            reader.get_mut().write_all(format!("{head}{answer}").as_bytes()).unwrap();
        }
    });
    (url, told)
}

#[test]
fn a_collector_of_opentelemetry_gets_every_record_also_if_it_is_busy_at_first() {
    let mut log = Log::new();
    log.grow(300);
    let (url, told) = collector(vec![("200 OK", "{}"), ("200 OK", "{\"partialSuccess\":{}}")]);
    let sent = log.export(&format!("--format otlp --to {url} --cursor cursor"));
    assert!(sent.status.success(), "{}", errors(&sent));
    assert_eq!(told.iter().flatten().collect::<Vec<_>>(), (0..300).collect::<Vec<_>>());

    log.grow(4);
    let (url, told) = collector(vec![("503 Service Unavailable", ""), ("200 OK", "{}")]);
    let following = log.follow(&format!("--format otlp --to {url} --cursor cursor"));
    assert_eq!(told.recv_timeout(WAIT).unwrap(), [300, 301, 302, 303]);
    assert_eq!(told.recv_timeout(WAIT).unwrap(), [300, 301, 302, 303]);
    drop(following);

    log.grow(2);
    let refuses = "{\"partialSuccess\":{\"rejectedLogRecords\":\"1\",\"errorMessage\":\"too old\"}}";
    let (url, _told) = collector(vec![("200 OK", refuses)]);
    let refused = log.export(&format!("--format otlp --to {url} --from 304"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains("refuses 1 records: too old"), "{}", errors(&refused));

    let lines = log.export("--format otlp");
    let lines = String::from_utf8(lines.stdout).unwrap();
    assert_eq!(lines.lines().flat_map(indexes).collect::<Vec<_>>(), (0..306).collect::<Vec<_>>());
}
