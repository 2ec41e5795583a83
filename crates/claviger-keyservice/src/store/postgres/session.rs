//! The one session through which a key service works with its database, and the thread that owns it.
//!
//! Everything goes through one session because that session holds an advisory lock: what it writes, no other process writes
//! beside it, and when it breaks the server gives back the lock and ends what was under way. A new session takes the lock
//! again and looks at the row `holder`: if another process was there meanwhile, what this one has in memory is out of date,
//! and it never works again. Until the lock is proved anew, [`Shared::check_ours`] fails and nothing is released; a process
//! elsewhere that finds the lock free, but no word that the former holder ended, waits longer than that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::config::{PostgresConfig, Server};
use super::fault::Fault;
use super::hold::{self, Backend, Claim};
use super::schema;
use super::tls::Connector;
use super::worker::{HEARTBEAT, Shared, gone, taken};
use crate::ServiceError;
use crate::files::read_secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For the answer to one statement or transaction; the server gives up on it a second earlier.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long an opening process waits for the lock: a killed one's session ends a moment after it.
const LOCK_WAIT_MS: u64 = 5_000;

/// What a session is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// A service that exists.
    Serve(Claim),
    /// A service that is being made, in a schema that gets its name at the end.
    Make,
}

/// A session of the server, and the lock with it.
struct Live {
    client: Client,
    driver: tokio::task::JoinHandle<()>,
    backend: Backend,
}

pub(super) struct Session {
    runtime: Runtime,
    config: PostgresConfig,
    connector: Option<Connector>,
    purpose: Purpose,
    shared: Arc<Shared>,
    live: Option<Live>,
    /// The session before: if it still holds the lock, the server has not noticed that it is dead.
    former: Option<Backend>,
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
        Ok(Self { runtime, config, connector, purpose, shared, live: None, former: None })
    }

    /// The first session: makes or checks the tables and writes down who holds the database.
    pub(super) fn open(&mut self) -> Result<(), ServiceError> {
        let until_ms = self.now_ms().saturating_add(LOCK_WAIT_MS);
        let mut live = loop {
            match self.connect(until_ms) {
                Err(Fault::Connection(text)) if self.now_ms() < until_ms => {
                    tracing::warn!(error = text, "the database does not answer yet");
                    self.pause();
                }
                other => break other.map_err(Fault::into_error)?,
            }
        };
        let purpose = self.purpose.clone();
        let prepared = self.runtime.block_on(async {
            match &purpose {
                Purpose::Make => prepare_new(&mut live.client).await,
                Purpose::Serve(claim) => {
                    hold::check_instance(&live.client, claim).await?;
                    schema::migrate(&mut live.client).await?;
                    hold::take_over(&live.client, claim).await
                }
            }
        });
        prepared.map_err(Fault::into_error)?;
        self.live = Some(live);
        let sent_ms = self.now_ms();
        let live = self.live.as_ref().ok_or_else(gone)?;
        self.runtime.block_on(schema::prove(&live.client)).map_err(Fault::into_error)?;
        self.shared.well(sent_ms);
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        self.shared.clock.boot_ms()
    }

    fn pause(&self) {
        std::thread::sleep(RETRY_PAUSE);
    }

    pub(super) fn perform<T>(
        &mut self,
        until_ms: u64,
        work: &impl AsyncFn(&mut Client) -> Result<T, Error>,
    ) -> Result<T, ServiceError> {
        loop {
            // Also before the first attempt: whoever waited too long in the queue must not be surprised later.
            if self.now_ms() > until_ms {
                return Err(ServiceError::Database("no answer in time".to_owned()));
            }
            match self.attempt(ANSWER_TIMEOUT, async |client| work(client).await.map_err(Fault::from)) {
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
        if let Err(fault) = self.attempt(CONNECT_TIMEOUT, async |client| schema::prove(client).await) {
            self.shared.ill(&fault);
        }
    }

    /// One try, over the session there is or a new one. After any error the session is dropped: what state it is in is not
    /// known, and making another takes milliseconds.
    fn attempt<T>(
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
        match answer.unwrap_or_else(|_| Err(Fault::Connection("no answer in time".to_owned()))) {
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

    /// A session after another one, for a service that is open: only if nobody else was there meanwhile.
    fn reconnect(&mut self) -> Result<Live, Fault> {
        let Purpose::Serve(claim) = self.purpose.clone() else {
            return Err(Fault::set_up(
                "the connection broke while the service was being made",
                "begin again",
            ));
        };
        if self.shared.is_taken() {
            return Err(taken());
        }
        let live = self.connect(0)?;
        let holds = self.runtime.block_on(async {
            hold::check_instance(&live.client, &claim).await?;
            hold::still_holds(&live.client, &claim).await
        });
        match holds {
            Ok(true) => {
                tracing::info!("the database answers again");
                Ok(live)
            }
            Ok(false) => {
                self.shared.taken.store(true, Ordering::Release);
                self.drop_session(Some(live));
                Err(taken())
            }
            Err(fault) => {
                self.drop_session(Some(live));
                Err(fault)
            }
        }
    }

    /// Connects, checks the server and takes the lock, trying for the lock until `until_ms`.
    fn connect(&mut self, until_ms: u64) -> Result<Live, Fault> {
        let schema = match self.purpose {
            Purpose::Serve(_) => schema::SCHEMA,
            Purpose::Make => schema::SCHEMA_UNFINISHED,
        };
        let (client, driver) =
            self.runtime.block_on(open_connection(&self.config, self.connector.clone()))?;
        let former = self.former.clone();
        let clock = Arc::clone(&self.shared.clock);
        let prepared = self.runtime.block_on(async {
            let prepare = async {
                schema::prepare_session(&client, schema).await?;
                let backend = hold::backend(&client).await?;
                hold::lock(&client, former.as_ref(), || clock.boot_ms() < until_ms).await?;
                Ok(backend)
            };
            let limit = ANSWER_TIMEOUT + Duration::from_millis(LOCK_WAIT_MS);
            let late = || Fault::Connection("no answer in time".to_owned());
            tokio::time::timeout(limit, prepare).await.unwrap_or_else(|_| Err(late()))
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
    fn drop_session(&mut self, live: Option<Live>) {
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
        if let Purpose::Serve(claim) = &self.purpose {
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
        .keepalives_idle(HEARTBEAT)
        .keepalives_interval(HEARTBEAT)
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
