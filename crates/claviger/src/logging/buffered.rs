//! Standard error for a service under load: lines go out together, a few times a second at least, instead of with a system
//! call each. What is a warning or worse goes out at once with all before it.
//!
//! A thread of its own writes them, so that a request does not wait for the disk under the log. Whoever logs waits for the
//! reader of the log when so much is waiting that it has fallen behind; no line is dropped, unless the system refuses to take
//! any (a full disk): then those that were written together are lost together. A process that is killed loses
//! the lines of its last [`DELAY`]; the audit log is another thing and knows no such buffer.

use std::io::{self, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// A line waits at most about this long.
const DELAY: Duration = Duration::from_millis(50);
/// So much is written without waiting for more.
const LEN_ENOUGH: usize = 64 << 10;
/// Whoever logs more than this at once, or while as much is waiting, writes it himself.
const LEN_MAX: usize = 4 << 20;

/// Where lines go. A clone is another handle on the same.
#[derive(Clone)]
pub(super) struct Buffered(Arc<Shared>);

struct Shared {
    lines: Mutex<Vec<u8>>,
    filled: Condvar,
    writing: Mutex<Writing>,
}

/// Held by whoever writes: lines stay in order.
struct Writing {
    sink: Sink,
    /// The lines that are being written; kept for the room that it has.
    taken: Vec<u8>,
    /// The last line that was written may have no end.
    is_cut: bool,
}

/// Where they end; tests take another place.
type Sink = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

impl Buffered {
    /// Standard error.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn stderr() -> io::Result<Self> {
        Self::to(Box::new(|lines| io::stderr().lock().write_all(lines)))
    }

    fn to(sink: Sink) -> io::Result<Self> {
        let writing = Mutex::new(Writing { sink, taken: Vec::new(), is_cut: false });
        let shared = Arc::new(Shared { lines: Mutex::default(), filled: Condvar::new(), writing });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new().name("claviger-log".to_owned()).spawn(move || {
            while let Some(shared) = weak.upgrade() {
                shared.write_when_filled();
            }
        })?;
        Ok(Self(shared))
    }

    /// Writes what is waiting.
    pub(super) fn flush(&self) {
        self.0.write();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is waiting. Others go on logging meanwhile.
    fn write(&self) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Writing { sink, taken, is_cut } = &mut *writing;
        taken.clear();
        std::mem::swap(taken, &mut self.lock());
        if !taken.is_empty() {
            // A log that nobody can take any more must not end the service; there is nowhere to say so. What comes after it
            // begins a line.
            *is_cut = (*is_cut && sink(b"\n").is_err()) || sink(taken).is_err();
        }
        if taken.capacity() > 4 * LEN_ENOUGH {
            *taken = Vec::new();
        }
    }

    /// Waits for lines, then a little for more of them.
    fn write_when_filled(&self) {
        let wait = |lines, time, goes_on: fn(&mut Vec<u8>) -> bool| {
            let waited = self.filled.wait_timeout_while(lines, time, goes_on);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        let lines = wait(self.lock(), Duration::from_secs(1), |lines| lines.is_empty());
        drop(wait(lines, DELAY, |lines| lines.len() < LEN_ENOUGH));
        self.write();
    }
}

/// Takes one line.
pub(super) struct Line<'a> {
    shared: &'a Shared,
    at_once: bool,
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = self.shared.lock();
        let before = lines.len();
        lines.extend_from_slice(bytes);
        let after = lines.len();
        drop(lines);
        if self.at_once || after >= LEN_MAX {
            self.shared.write();
        } else if before == 0 || (before < LEN_ENOUGH && after >= LEN_ENOUGH) {
            self.shared.filled.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Buffered {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { shared: &self.0, at_once: true }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { shared: &self.0, at_once: *meta.level() <= Level::WARN }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// A log, and what reaches its end, a piece per write.
    fn log() -> (Buffered, mpsc::Receiver<String>) {
        let (end, pieces) = mpsc::channel();
        let sink = move |lines: &[u8]| {
            end.send(String::from_utf8(lines.to_vec()).unwrap()).map_err(|_| io::ErrorKind::BrokenPipe.into())
        };
        (Buffered::to(Box::new(sink)).unwrap(), pieces)
    }

    fn put(log: &Buffered, line: &str, at_once: bool) {
        Line { shared: &log.0, at_once }.write_all(line.as_bytes()).unwrap();
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn every_line_comes_whole_and_in_order_with_fewer_writes_than_lines() {
        let (log, pieces) = log();
        let lines: Vec<String> = (0..2_000).map(|number| format!("line {number}\n")).collect();
        lines.iter().for_each(|line| put(&log, line, false));
        log.flush();
        let pieces: Vec<String> = pieces.try_iter().collect();
        assert_eq!(pieces.concat(), lines.concat());
        assert!(pieces.len() < lines.len() / 2, "{} writes", pieces.len());
        assert!(pieces.iter().all(|piece| piece.ends_with('\n')));
    }

    #[test]
    fn a_line_alone_comes_without_anybody_asking() {
        let (log, pieces) = log();
        for line in ["first\n", "second\n"] {
            put(&log, line, false);
            assert_eq!(pieces.recv_timeout(PATIENCE).unwrap(), line);
        }
    }

    #[test]
    fn a_warning_comes_at_once_behind_what_was_waiting() {
        let (log, pieces) = log();
        let subscriber = tracing_subscriber::registry().with(
            tracing_subscriber::fmt::layer().with_writer(log.clone()).without_time().with_target(false),
        );
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("one");
            tracing::warn!("two");
        });
        let written: String = pieces.try_iter().collect();
        let at = |text| written.find(text).unwrap();
        assert!(at("one") < at("two"), "{written}");
    }

    #[test]
    fn what_is_much_is_not_kept_back() {
        let (log, pieces) = log();
        put(&log, "a\n", false);
        put(&log, &"b".repeat(LEN_MAX), false);
        assert_eq!(pieces.try_iter().map(|piece| piece.len()).sum::<usize>(), LEN_MAX + 2);
    }

    #[test]
    fn what_comes_after_a_write_that_failed_begins_a_line() {
        let (end, pieces) = mpsc::channel();
        let mut full = true;
        let log = Buffered::to(Box::new(move |lines: &[u8]| {
            let takes = if std::mem::take(&mut full) { 3 } else { lines.len() };
            end.send(lines[..takes].to_vec()).unwrap();
            if takes == lines.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }));
        let log = log.unwrap();
        put(&log, "first\n", true);
        put(&log, "second\n", true);
        assert_eq!(pieces.try_iter().collect::<Vec<_>>().concat(), b"fir\nsecond\n");
    }

    #[test]
    fn nobody_who_logs_waits_for_a_slow_reader_and_nothing_is_lost() {
        let (end, pieces) = mpsc::channel();
        let (begun, writing) = mpsc::channel();
        let (go_on, held) = mpsc::channel();
        let log = Buffered::to(Box::new(move |lines: &[u8]| {
            let _ = begun.send(());
            held.recv().unwrap();
            end.send(String::from_utf8(lines.to_vec()).unwrap()).map_err(|_| io::ErrorKind::BrokenPipe.into())
        }));
        let log = log.unwrap();
        put(&log, "first\n", false);
        writing.recv_timeout(PATIENCE).unwrap();
        // The reader of the log takes nothing now.
        let lines: Vec<String> = (0..20_000).map(|number| format!("line {number}\n")).collect();
        lines.iter().for_each(|line| put(&log, line, false));
        drop(writing);
        let _ = go_on.send(());
        for _ in 0..3 {
            // However often it is written after that.
            let _ = go_on.send(());
        }
        let mut received = String::new();
        while received.len() < "first\n".len() + lines.concat().len() {
            received.push_str(&pieces.recv_timeout(PATIENCE).unwrap());
        }
        assert_eq!(received, format!("first\n{}", lines.concat()));
    }
}
