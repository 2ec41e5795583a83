//! The thread that owns the session, and how the rest of the service asks it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use claviger_env::Clock;
use tokio_postgres::{Client, Error};

use super::config::{PostgresConfig, Timing};
use super::fault::Fault;
use super::session::{Purpose, Session};
use crate::ServiceError;
use crate::store::Role;

/// How long a request is tried anew over further connections, from when it was handed in: time for one that falls silent, and
/// for another.
const RETRY_MS: u64 = 14_000;

/// What the thread and everybody else know.
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    /// Boot time of the sending of the last statement that was answered over the session that holds the lock.
    proved_ms: AtomicU64,
    /// A [`Role`].
    role: AtomicU8,
    /// Whether this process would work with the rows if it could.
    ready: AtomicBool,
    /// From when on nobody who held the database before this process can release anything, on the boot-time clock.
    quiet_ms: AtomicU64,
    pub(super) timing: Timing,
    trouble: Mutex<Option<String>>,
}

impl Shared {
    /// # Errors
    /// [`ServiceError::Database`] if another process may be working with the database, [`ServiceError::Standby`] if one does.
    pub(super) fn check_ours(&self) -> Result<(), ServiceError> {
        match self.role() {
            Role::Replaced => return Err(taken().into_error()),
            Role::Standby => return Err(ServiceError::Standby),
            Role::Active => {}
        }
        let silent_ms = self.clock.boot_ms().saturating_sub(self.proved_ms.load(Ordering::Acquire));
        if silent_ms <= self.timing.hold_ms {
            return Ok(());
        }
        Err(ServiceError::Database(format!("no answer for {} s; nothing is released", silent_ms / 1000)))
    }

    pub(super) fn role(&self) -> Role {
        match self.role.load(Ordering::Acquire) {
            0 => Role::Active,
            1 => Role::Standby,
            _ => Role::Replaced,
        }
    }

    /// Only the thread of the session changes it.
    pub(super) fn set_role(&self, role: Role) {
        self.role.store(role as u8, Ordering::Release);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// From when on nobody who held the database before can release anything, as far as this process knows it.
    pub(super) fn quiet_from(&self) -> u64 {
        self.quiet_ms.load(Ordering::Acquire)
    }

    pub(super) fn set_quiet_from(&self, boot_ms: u64) {
        self.quiet_ms.store(boot_ms, Ordering::Release);
    }

    /// So long from now, on the boot-time clock.
    pub(super) fn after(&self, time: Duration) -> u64 {
        self.clock.boot_ms().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn problem(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.check_ours() {
            Err(ServiceError::Standby) | Ok(()) => trouble,
            Err(error) => Some(error.to_string()),
        }
    }

    pub(super) fn well(&self, sent_ms: u64) {
        self.proved_ms.store(sent_ms, Ordering::Release);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn ill(&self, fault: &Fault) {
        let text = match fault {
            Fault::Connection(text) => text.clone(),
            Fault::Final(error) => error.to_string(),
        };
        tracing::warn!(error = text, "the database can't be used");
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("database: {text}"));
    }
}

pub(super) fn taken() -> Fault {
    Fault::set_up(
        "another key service took the database over while this one had no connection to it; what this one knows is out \
         of date",
        "find out where the other runs, and keep one of them",
    )
}

type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// Handle to the thread. Dropping it says in the database that this process ended.
pub(super) struct Worker {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub(super) shared: Arc<Shared>,
}

impl Worker {
    /// Connects, takes the lock, and prepares the tables. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::DatabaseSetUp`], [`ServiceError::Database`], [`ServiceError::Tls`], [`ServiceError::Io`].
    pub(super) fn start(
        config: PostgresConfig,
        purpose: Purpose,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServiceError> {
        let shared = Arc::new(Shared {
            proved_ms: AtomicU64::new(clock.boot_ms()),
            clock,
            role: AtomicU8::new(Role::Active as u8),
            ready: AtomicBool::new(true),
            quiet_ms: AtomicU64::new(0),
            timing: config.timing,
            trouble: Mutex::new(None),
        });
        let (jobs, waiting) = channel();
        let (tell, told) = sync_channel(1);
        let mut session = Session::new(config, purpose, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("postgres".into()).spawn(move || {
            let opened = session.open();
            let good = opened.is_ok();
            // Whoever asked is waiting below.
            let _ = tell.send(opened);
            if good {
                run(&mut session, &waiting);
            }
        });
        let thread = thread.map_err(|e| ServiceError::Database(e.to_string()))?;
        told.recv().unwrap_or_else(|_| Err(gone()))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), shared })
    }

    /// Runs `work` on the session, again on another one if the connection breaks: everything that is asked of the
    /// database may be asked twice.
    ///
    /// # Errors
    /// [`ServiceError::Database`], [`ServiceError::DatabaseSetUp`], [`ServiceError::Standby`]. What was to be written may have
    /// been.
    pub(super) fn call<T: Send + 'static>(
        &self,
        work: impl AsyncFn(&mut Client) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.run(true, work)
    }

    /// The same for what changes nothing: a standby does that too.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn read<T: Send + 'static>(
        &self,
        work: impl AsyncFn(&mut Client) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.run(false, work)
    }

    /// The same for what is written beside the rows, where no order has to be kept: a standby does that too.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn beside<T: Send + 'static>(
        &self,
        work: impl AsyncFn(&mut Client) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.run(false, work)
    }

    fn run<T: Send + 'static>(
        &self,
        changes: bool,
        work: impl AsyncFn(&mut Client) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let until_ms = self.shared.clock.boot_ms().saturating_add(RETRY_MS);
        let (tell, told) = sync_channel(1);
        let job: Job = Box::new(move |session| {
            // Whoever asked waits until he is told.
            let _ = tell.send(session.perform(until_ms, changes, &work));
        });
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(gone)?;
        told.recv().unwrap_or_else(|_| Err(gone()))
    }
}

pub(super) fn gone() -> ServiceError {
    ServiceError::Database("the thread that speaks to it has ended".to_owned())
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn run(session: &mut Session, jobs: &Receiver<Job>) {
    loop {
        match jobs.recv_timeout(session.heartbeat_interval()) {
            Ok(job) => {
                job(session);
                // Whoever works proves with it that it holds the database; a standby has to look.
                session.look_if_standby();
            }
            Err(RecvTimeoutError::Timeout) => session.heartbeat(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    session.end();
}
