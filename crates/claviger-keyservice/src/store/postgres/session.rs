//! The one session through which a key service works with its database, and the thread that owns it.
//!
//! Everything goes through one session because that session holds an advisory lock: what it writes, no other process writes
//! beside it, and when it breaks the server gives back the lock and ends what was under way. A new session takes the lock
//! again and looks at the row `holder`: if another process was there meanwhile, what this one has in memory is out of date,
//! and it never works again. Until the lock is proved anew, [`Shared::check_ours`] fails and nothing is released; a process
//! elsewhere that finds the lock free, but no word that the former holder ended, waits longer than that.
//!
//! A replica that is not the one begins as a *standby*: a session without the lock, over which it reads, and looks whether the
//! one that works is still there (`standby`).

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::config::{PostgresConfig, Server};
use super::fault::Fault;
use super::hold::{self, Backend, Claim};
use super::schema;
use super::tls::Connector;
use super::worker::{Shared, taken};
use crate::ServiceError;
use crate::files::read_secret;
use crate::store::Role;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For the answer to one statement or transaction; the server gives up on it a second earlier.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long an opening process waits for the lock: a killed one's session ends a moment after it.
const LOCK_WAIT_MS: u64 = 5_000;
/// TCP asks after a peer that says nothing.
const KEEPALIVE: Duration = Duration::from_secs(2);

/// What a session is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// A service that exists.
    Serve(Claim),
    /// A service that is being made, in a schema that gets its name at the end.
    Make,
    /// Someone who only reads, and then perhaps joins.
    Look,
}

/// A session of the server, and the lock with it unless this is a standby.
pub(super) struct Live {
    pub(super) client: Client,
    driver: tokio::task::JoinHandle<()>,
    backend: Backend,
}

pub(super) struct Session {
    pub(super) runtime: Runtime,
    config: PostgresConfig,
    connector: Option<Connector>,
    pub(super) purpose: Purpose,
    pub(super) shared: Arc<Shared>,
    pub(super) live: Option<Live>,
    /// The session before: if it still holds the lock, the server has not noticed that it is dead.
    former: Option<Backend>,
    /// Since when a standby has seen nobody work with the database, on the boot-time clock.
    pub(super) free_since_ms: Option<u64>,
}

impl Session {
    pub(super) fn new(
        config: PostgresConfig,
        purpose: Purpose,
        shared: Arc<Shared>,
    ) -> Result<Self, ServiceError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| ServiceError::Database(e.to_string()))?;
        let connector = Connector::of(&config, &shared.clock)?;
        Ok(Self {
            runtime,
            config,
            connector,
            purpose,
            shared,
            live: None,
            former: None,
            free_since_ms: None,
        })
    }

    /// The first session: makes or checks the tables and writes down who holds the database.
    pub(super) fn open(&mut self) -> Result<(), ServiceError> {
        let until_ms = self.now_ms().saturating_add(LOCK_WAIT_MS);
        loop {
            match self.first(until_ms) {
                Err(Fault::Connection(text)) if self.now_ms() < until_ms => {
                    tracing::warn!(error = text, "the database does not answer yet");
                    self.pause();
                }
                other => return other.map_err(Fault::into_error),
            }
        }
    }

    fn first(&mut self, until_ms: u64) -> Result<(), Fault> {
        let mut live = self.link()?;
        let prepared = match self.purpose.clone() {
            Purpose::Look => {
                self.shared.set_ready(false);
                self.shared.set_role(Role::Standby);
                self.runtime.block_on(hold::check_service(&live.client))
            }
            Purpose::Make => self.locked(&live, until_ms).and_then(|()| {
                self.runtime.block_on(prepare_new(&mut live.client))?;
                self.prove(&live)
            }),
            Purpose::Serve(claim) => self.first_of_service(&mut live, &claim, until_ms),
        };
        match prepared {
            Ok(()) => self.live = Some(live),
            Err(_) => self.drop_session(Some(live)),
        }
        prepared
    }

    fn first_of_service(&mut self, live: &mut Live, claim: &Claim, until_ms: u64) -> Result<(), Fault> {
        let is_one_of_several = self.runtime.block_on(async {
            hold::check_instance(&live.client, claim).await?;
            schema::migrate(&mut live.client).await?;
            Ok::<_, Fault>(claim.joined || hold::is_replicated(&live.client).await?)
        })?;
        if is_one_of_several {
            self.shared.set_ready(false);
            self.shared.set_role(Role::Standby);
            return Ok(());
        }
        self.locked(live, until_ms)?;
        self.runtime.block_on(hold::take_over(&live.client, claim, &self.shared))?;
        self.prove(live)
    }

    /// The lock, or that it is in use.
    fn locked(&self, live: &Live, until_ms: u64) -> Result<(), Fault> {
        if self.lock(live, until_ms)? { Ok(()) } else { Err(hold::in_use()) }
    }

    fn lock(&self, live: &Live, until_ms: u64) -> Result<bool, Fault> {
        let clock = Arc::clone(&self.shared.clock);
        let limit = ANSWER_TIMEOUT + Duration::from_millis(LOCK_WAIT_MS);
        self.runtime.block_on(async {
            let lock = hold::lock(&live.client, self.former.as_ref(), || clock.boot_ms() < until_ms);
            tokio::time::timeout(limit, lock).await.unwrap_or_else(|_| Err(late()))
        })
    }

    pub(super) fn prove(&self, live: &Live) -> Result<(), Fault> {
        let sent_ms = self.now_ms();
        let proof = async { tokio::time::timeout(CONNECT_TIMEOUT, schema::prove(&live.client)).await };
        self.runtime.block_on(proof).unwrap_or_else(|_| Err(late()))?;
        self.shared.well(sent_ms);
        Ok(())
    }

    pub(super) fn heartbeat_interval(&self) -> Duration {
        self.shared.timing.heartbeat
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.shared.clock.boot_ms()
    }

    fn pause(&self) {
        std::thread::sleep(RETRY_PAUSE);
    }

    pub(super) fn perform<T>(
        &mut self,
        until_ms: u64,
        changes: bool,
        work: &impl AsyncFn(&mut Client) -> Result<T, Error>,
    ) -> Result<T, ServiceError> {
        let was_sent = Cell::new(false);
        loop {
            if changes && self.shared.role() == Role::Standby {
                return Err(if was_sent.get() { perhaps_done() } else { ServiceError::Standby });
            }
            // Also before the first attempt: whoever waited too long in the queue must not be surprised later.
            if self.now_ms() > until_ms {
                return Err(late().into_error());
            }
            let send = async |client: &mut Client| {
                was_sent.set(true);
                work(client).await.map_err(Fault::from)
            };
            match self.attempt(ANSWER_TIMEOUT, send) {
                Ok(value) => return Ok(value),
                Err(fault @ Fault::Connection(_)) if self.now_ms() < until_ms => {
                    self.shared.ill(&fault);
                    self.pause();
                }
                Err(fault) => {
                    self.shared.ill(&fault);
                    return Err(fault.into_error());
                }
            }
        }
    }

    pub(super) fn heartbeat(&mut self) {
        let done = match self.shared.role() {
            _ if matches!(self.purpose, Purpose::Look) => Ok(()),
            Role::Standby => self.stand_by(),
            Role::Active if !self.shared.is_ready() => self.step_back(),
            _ => self.attempt(CONNECT_TIMEOUT, async |client| schema::prove(client).await),
        };
        if let Err(fault) = done {
            self.shared.ill(&fault);
        }
    }

    pub(super) fn look_if_standby(&mut self) {
        if self.shared.role() == Role::Standby {
            self.heartbeat();
        }
    }

    /// One try, over the session there is or a new one. After any error the session is dropped: what state it is in is not
    /// known, and making another takes milliseconds.
    pub(super) fn attempt<T>(
        &mut self,
        timeout: Duration,
        work: impl AsyncFn(&mut Client) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut live = match self.live.take() {
            Some(live) if !live.client.is_closed() => live,
            dead => {
                self.drop_session(dead);
                self.reconnect()?
            }
        };
        let sent_ms = self.now_ms();
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(timeout, work(&mut live.client)).await });
        match answer.unwrap_or_else(|_| Err(late())) {
            Ok(value) => {
                self.live = Some(live);
                self.shared.well(sent_ms);
                Ok(value)
            }
            Err(fault) => {
                self.drop_session(Some(live));
                Err(fault)
            }
        }
    }

    /// A session after another one. One that works with the database goes on only if nobody else was there meanwhile.
    fn reconnect(&mut self) -> Result<Live, Fault> {
        let Purpose::Serve(claim) = self.purpose.clone() else {
            return Err(Fault::set_up(
                "the connection broke while the service was being made",
                "begin again",
            ));
        };
        if self.shared.role() == Role::Replaced {
            return Err(taken());
        }
        let live = self.link()?;
        match self.may_go_on(&live, &claim) {
            Ok(()) => {
                tracing::info!("the database answers again");
                Ok(live)
            }
            Err(fault) => {
                self.drop_session(Some(live));
                Err(fault)
            }
        }
    }

    fn may_go_on(&mut self, live: &Live, claim: &Claim) -> Result<(), Fault> {
        self.runtime.block_on(hold::check_instance(&live.client, claim))?;
        if self.shared.role() == Role::Standby {
            return Ok(());
        }
        let is_locked = self.lock(live, 0)?;
        let (is_ours, is_one_of_several) = self.runtime.block_on(async {
            let is_ours = hold::still_holds(&live.client, claim).await?;
            Ok::<_, Fault>((is_ours, claim.joined || hold::is_replicated(&live.client).await?))
        })?;
        match (is_locked, is_ours) {
            (true, true) => Ok(()),
            // Another one is about to write down that it holds it.
            (false, true) => Err(hold::in_use()),
            (_, false) if is_one_of_several => {
                self.become_standby();
                Err(Fault::Connection("another replica took the database over".to_owned()))
            }
            (_, false) => {
                self.shared.set_role(Role::Replaced);
                Err(taken())
            }
        }
    }

    /// A connection to a server that keeps what it acknowledges. No lock.
    fn link(&mut self) -> Result<Live, Fault> {
        let schema = match self.purpose {
            Purpose::Serve(_) | Purpose::Look => schema::SCHEMA,
            Purpose::Make => schema::SCHEMA_UNFINISHED,
        };
        let (client, driver) =
            self.runtime.block_on(open_connection(&self.config, self.connector.clone()))?;
        let prepared = self.runtime.block_on(async {
            let prepare = async {
                schema::prepare_session(&client, schema).await?;
                Ok(hold::backend(&client).await?)
            };
            tokio::time::timeout(ANSWER_TIMEOUT, prepare).await.unwrap_or_else(|_| Err(late()))
        });
        match prepared {
            Ok(backend) => Ok(Live { client, driver, backend }),
            Err(fault) => {
                driver.abort();
                Err(fault)
            }
        }
    }

    /// Closes the connection for certain; the server's side may take longer to notice.
    pub(super) fn drop_session(&mut self, live: Option<Live>) {
        let Some(Live { client, driver, backend }) = live else { return };
        self.former = Some(backend);
        drop(client);
        driver.abort();
        // Cancelled, or ended by itself: either way it is over.
        let _ = self.runtime.block_on(driver);
    }

    /// Says that this process works with the database no more, so that the next one need not wait.
    pub(super) fn end(&mut self) {
        let Some(live) = self.live.take() else { return };
        if let Purpose::Serve(claim) = &self.purpose
            && self.shared.role() == Role::Active
        {
            let end = [(&claim.process.as_slice() as &(dyn ToSql + Sync), Type::BYTEA)];
            let said = live.client.execute_typed("UPDATE holder SET ended = true WHERE process = $1", &end);
            let said = self.runtime.block_on(async { tokio::time::timeout(CONNECT_TIMEOUT, said).await });
            if !matches!(said, Ok(Ok(1))) {
                tracing::warn!(
                    "the database was not told that this process ends; the next one may wait for it"
                );
            }
        }
        self.drop_session(Some(live));
    }
}

/// Of what was under way when another replica took over. It is not "standby", which says that nothing was done.
fn perhaps_done() -> ServiceError {
    ServiceError::Database(
        "another replica took the database over; what was to be written may be there".to_owned(),
    )
}

pub(super) fn late() -> Fault {
    Fault::Connection("no answer in time".to_owned())
}

/// A connection, and the task that drives it.
pub(super) async fn open_connection(
    config: &PostgresConfig,
    connector: Option<Connector>,
) -> Result<(Client, tokio::task::JoinHandle<()>), Fault> {
    let mut to = tokio_postgres::Config::new();
    to.user(&config.user)
        .dbname(&config.database)
        .port(config.port)
        .application_name("claviger keyservice")
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(ANSWER_TIMEOUT / 2)
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE)
        .keepalives_retries(3);
    if let Some(path) = &config.password_file {
        // Read each time: it may have been changed at the server and here.
        to.password(read_secret(path).map_err(Fault::Final)?.trim());
    }
    match &config.server {
        Server::Socket(folder) => to.host_path(folder).ssl_mode(tokio_postgres::config::SslMode::Disable),
        Server::Tls { host, .. } => to.host(host).ssl_mode(tokio_postgres::config::SslMode::Require),
    };
    let late = || Fault::Connection("no connection in time".to_owned());
    let drive = |ended: Result<(), Error>| {
        if let Err(error) = ended {
            tracing::debug!(%error, "the connection to the database ended");
        }
    };
    Ok(match connector {
        None => {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, to.connect(tokio_postgres::NoTls)).await;
            let (client, connection) = connected.map_err(|_| late())??;
            (client, tokio::spawn(async move { drive(connection.await) }))
        }
        Some(connector) => {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, to.connect(connector)).await;
            let (client, connection) = connected.map_err(|_| late())??;
            (client, tokio::spawn(async move { drive(connection.await) }))
        }
    })
}

async fn prepare_new(client: &mut Client) -> Result<(), Fault> {
    if schema::schema_exists(client, schema::SCHEMA).await? {
        return Err(Fault::set_up(
            "the database holds a key service already; it is never overwritten",
            "name another database, or, if no one needs that service any more, DROP SCHEMA claviger CASCADE",
        ));
    }
    Ok(schema::create(client).await?)
}
