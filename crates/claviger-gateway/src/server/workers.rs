//! Threads that serve connections, one per core, each with a runtime of its own.
//!
//! A connection stays with its worker, and so does everything that its requests wait for, the connections to the provider
//! among them. Nothing is handed from thread to thread on the way of a request: with a runtime whose threads take each
//! other's work, waking them costs as much as a request of 4 KiB itself (docs/decisions/038).

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// More threads than this no gateway starts.
pub(crate) const COUNT_MAX: usize = 256;

/// How often a worker wakes up although nothing has come. A timer that ends before the next moment at which its runtime means to
/// wake up costs two system calls and a turn of the event loop; timeouts of requests are longer than this, so none of them does,
/// but for the wait of a request that finds no connection to the store idle (`upstream::pool`).
const BEAT: Duration = Duration::from_millis(500);

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The number of the worker that this thread is, from 1; 0 for every other thread.
pub(crate) fn current() -> usize {
    CURRENT.get()
}

/// How many workers a gateway on this machine has: one for each core that it may use.
pub(crate) fn count_wanted() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(COUNT_MAX)
}

struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// The threads. Dropping them ends what still runs in them.
pub struct Workers {
    workers: Vec<Worker>,
    stop: watch::Sender<bool>,
}

/// A connection's place at its worker; given back on drop.
pub(super) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts one worker for each core that this process may use.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start() -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut workers = Self { workers: Vec::new(), stop };
        for number in 1..=count_wanted() {
            workers.workers.push(Worker::start(number, stopped.clone())?);
        }
        Ok(workers)
    }

    /// The worker with the fewest connections, and a place there.
    pub(super) fn seat(&self) -> Option<(&Handle, Seat)> {
        let worker = self.workers.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed))?;
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Some((&worker.handle, Seat(worker.connections.clone())))
    }
}

impl Worker {
    fn start(number: usize, mut stopped: watch::Receiver<bool>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread =
            std::thread::Builder::new().name(format!("claviger-worker-{number}")).spawn(move || {
                CURRENT.set(number);
                drop(runtime.spawn(beat()));
                // An error means that the sender is gone, which is the end too.
                runtime.block_on(async { drop(stopped.wait_for(|stopped| *stopped).await) });
            })?;
        Ok(Self { handle, connections: Arc::default(), thread: Some(thread) })
    }
}

async fn beat() {
    loop {
        tokio::time::sleep(BEAT).await;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            // A worker's panic was reported by the task that panicked; there is nobody left to tell.
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("count", &self.workers.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_go_to_the_worker_that_has_the_fewest_and_places_come_back() {
        let workers = Workers::start().unwrap();
        let all = workers.workers.len();
        let seats: Vec<_> = (0..2 * all).map(|_| workers.seat().unwrap()).collect();
        let taken = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        assert!(workers.workers.iter().all(|worker| taken(worker) == 2));
        let mut numbers = Vec::new();
        for (handle, _) in &seats {
            numbers.push(handle.spawn(async { current() }).await.unwrap());
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, (1..=all).collect::<Vec<_>>());
        drop(seats);
        assert!(workers.workers.iter().all(|worker| taken(worker) == 0));
        assert_eq!(current(), 0);
    }
}
