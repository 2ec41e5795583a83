//! What becomes of records.

use std::fs;
use std::sync::Mutex;

use claviger_audit::Line;
use claviger_env::SystemClock;

use super::*;
use crate::testing::random;

mod tree;

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn open(folder: &Path) -> (AuditLog, Option<TornTail>) {
    AuditLog::open(&folder.join("audit"), 1 << 20, random(), clock()).unwrap()
}

fn record(n: u32) -> Vec<u8> {
    format!("{{\"n\":{n}}}").into_bytes()
}

fn indexes(lines: &[String]) -> Vec<u64> {
    lines.iter().map(|l| Line::parse(l.as_bytes()).unwrap().index).collect()
}

#[test]
fn a_record_that_is_too_long_is_refused_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).0;
    let long = format!("{{\"n\":\"{}\"}}", "a".repeat(64 << 10)).into_bytes();
    assert!(log.append_blocking(vec![long]).is_err());
    assert!(!log.has_failed());
    log.append_blocking(vec![record(1)]).unwrap();
}

#[test]
fn a_last_line_of_any_length_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let line = |index: u64, len: usize| {
        format!(
            "{{\"index\":{index},\"salt\":\"{:032x}\",\"record\":{{\"a\":\"{}\"}}}}\n",
            7,
            "a".repeat(len)
        )
    };
    let path = folder.path().join("audit/00000000000000000000.jsonl");
    fs::write(&path, [line(0, 1), line(1, 300_000), line(2, 300_000)].concat() + "{\"index\":3").unwrap();
    let (log, torn) = open(folder.path());
    assert_eq!(torn, Some(TornTail { len: 10 }));
    assert_eq!(log.records(), 3);
}

#[test]
fn a_log_that_two_processes_wrote_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).0;
    log.append_blocking(vec![record(0), record(1)]).unwrap();
    drop(log);
    let path = folder.path().join("audit/00000000000000000000.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let second = text.lines().nth(1).unwrap();
    for wrong in [format!("{text}{second}\n"), text.replace("{\"index\":0", "garbage{\"index\":0")] {
        fs::write(&path, &wrong).unwrap();
        let opened = AuditLog::open(&folder.path().join("audit"), 1 << 20, random(), clock());
        assert!(matches!(opened, Err(ServiceError::Audit(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), wrong, "what is not understood is not mended");
    }
}

#[test]
fn records_are_in_the_file_when_append_returns_and_go_on_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let (log, torn) = open(folder.path());
    assert_eq!(torn, None);
    log.append_blocking(vec![record(0), record(1)]).unwrap();
    let text = fs::read_to_string(folder.path().join("audit/00000000000000000000.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 2);
    let line = Line::parse(text.lines().nth(1).unwrap().as_bytes()).unwrap();
    assert_eq!((line.index, line.record), (1, "{\"n\":1}"));
    assert_ne!(line.salt, [0; 16]);
    drop(log);
    let (log, _) = open(folder.path());
    log.append_blocking(vec![record(2)]).unwrap();
    assert_eq!(indexes(&log.tail(10).unwrap()), [0, 1, 2]);
    assert_eq!(indexes(&log.tail(1).unwrap()), [2]);
    assert_eq!(log.records(), 3);
}

#[test]
fn an_unfinished_last_line_is_cut_off_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit/00000000000000000000.jsonl");
    open(folder.path()).0.append_blocking(vec![record(0), record(1)]).unwrap();
    let whole = fs::read(&path).unwrap();
    let first_len = whole.iter().position(|&b| b == b'\n').unwrap() + 1;
    for cut in first_len + 1..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (log, torn) = open(folder.path());
        assert_eq!(torn, Some(TornTail { len: (cut - first_len) as u64 }));
        log.append_blocking(vec![record(9)]).unwrap();
        assert_eq!(indexes(&log.tail(10).unwrap()), [0, 1]);
    }
}

#[test]
fn a_damaged_whole_line_at_the_end_is_not_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit/00000000000000000000.jsonl");
    open(folder.path()).0.append_blocking(vec![record(0)]).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[3] = 0;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        AuditLog::open(&folder.path().join("audit"), 1 << 20, random(), clock()),
        Err(ServiceError::Audit(_))
    ));
}

#[test]
fn a_full_file_is_followed_by_another_that_goes_on_counting() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit");
    let (log, _) = AuditLog::open(&audit, 100, random(), clock()).unwrap();
    for n in 0..5 {
        log.append_blocking(vec![record(n)]).unwrap();
    }
    assert!(AuditFolder::new(&audit).files().unwrap().len() > 1);
    assert_eq!(indexes(&log.tail(10).unwrap()), [0, 1, 2, 3, 4]);
    drop(log);
    let (log, _) = AuditLog::open(&audit, 100, random(), clock()).unwrap();
    log.append_blocking(vec![record(5)]).unwrap();
    assert_eq!(indexes(&log.tail(2).unwrap()), [4, 5]);
}

#[test]
fn once_records_are_sealed_none_that_decides_something_goes_without() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).0;
    log.append_blocking(vec![record(0)]).unwrap();
    log.seal_with(SealKey::new(zeroize::Zeroizing::new([1; 32]))).unwrap();
    log.append_blocking(vec![record(1)]).unwrap();
    log.stop_sealing();
    let late = log.append_blocking(vec![record(2)]).unwrap_err();
    assert_eq!(late.outward(), KeyServiceError::Locked);
    assert!(!log.has_failed(), "only this caller came too late");
    log.append_blocking(vec![b"{\"action\":\"start\",\"outcome\":\"done\"}".to_vec()]).unwrap();
    let lines = log.tail(10).unwrap();
    assert_eq!(indexes(&lines), [0, 1, 2]);
    assert_eq!(lines.iter().map(|line| line.contains("\"seal\"")).collect::<Vec<_>>(), [false, true, false]);
}

/// Fails on demand, before or after the bytes are kept.
struct Faulty {
    kept: Arc<Mutex<Vec<u8>>>,
    fail_append: bool,
    fail_sync: Arc<AtomicBool>,
}

impl AuditSink for Faulty {
    fn append(&mut self, _first_index: u64, lines: &[u8]) -> io::Result<()> {
        if self.fail_append {
            return Err(io::Error::other("disk full"));
        }
        self.kept.lock().unwrap().extend_from_slice(lines);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        if self.fail_sync.load(Ordering::Relaxed) { Err(io::Error::other("I/O error")) } else { Ok(()) }
    }
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_any_more() {
    let sink = Faulty { kept: Arc::default(), fail_append: true, fail_sync: Arc::default() };
    let log = AuditLog::with_sink(Box::new(sink), None, random(), clock()).unwrap();
    assert!(log.append_blocking(vec![record(0)]).is_err());
    assert!(log.has_failed());
    assert!(log.append_blocking(vec![record(1)]).is_err());
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_any_more_even_if_the_bytes_are_there() {
    let (kept, fail_sync) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::new(AtomicBool::new(true)));
    let sink = Faulty { kept: Arc::clone(&kept), fail_append: false, fail_sync: Arc::clone(&fail_sync) };
    let log = AuditLog::with_sink(Box::new(sink), None, random(), clock()).unwrap();
    assert!(log.append_blocking(vec![record(0)]).is_err());
    assert!(!kept.lock().unwrap().is_empty());
    fail_sync.store(false, Ordering::Relaxed);
    assert!(
        log.append_blocking(vec![record(1)]).is_err(),
        "a sync that works again proves nothing about the first"
    );
}

#[test]
fn many_callers_share_a_sync_and_each_record_has_its_own_index() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(open(folder.path()).0);
    let threads: Vec<_> = (0..16)
        .map(|n| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || (0..20).for_each(|_| log.append_blocking(vec![record(n)]).unwrap()))
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(indexes(&log.tail(1000).unwrap()), (0..320).collect::<Vec<_>>());
}
