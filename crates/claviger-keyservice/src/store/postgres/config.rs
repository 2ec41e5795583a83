//! `[store.postgres]` of `keyservice.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// Where a PostgreSQL server is and who asks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// The server.
    pub server: Server,
    /// Port; over a socket the number in the socket's name.
    pub port: u16,
    /// Database; it holds one key service and nothing else.
    pub database: String,
    /// Role; owner of the database.
    pub user: String,
    /// File with the role's password, mode 0600. Without it the server has to know the process by its Unix user (`peer`).
    pub password_file: Option<PathBuf>,
    /// How processes that work with one database wait for each other. The same for all of them, so it stands in no file.
    pub timing: Timing,
}

/// How long processes that work with one database wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long after its last proof a process may still release, in milliseconds.
    pub hold_ms: u64,
    /// How long a newcomer waits for one that did not say that it ended; longer than `hold_ms` on any clock that is not broken.
    pub take_over_after: Duration,
    /// How often a process proves that it holds the database, or a standby looks whether another one does.
    pub heartbeat: Duration,
    /// How long the database has to be free before a standby takes it from one that did not say that it ended, in milliseconds:
    /// time to come back after a connection broke.
    pub patience_ms: u64,
    /// How long a replica that joined waits before it may take over, in milliseconds: gateways look at the log once a minute.
    pub join_wait_ms: u64,
    /// How old the last word of the one that worked may be when a standby begins to take over, in milliseconds: it may have hung for
    /// `hold_ms` before it is ended, and `patience_ms` after that.
    pub word_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            hold_ms: 10_000,
            take_over_after: Duration::from_secs(13),
            heartbeat: Duration::from_secs(2),
            patience_ms: 4_000,
            join_wait_ms: 150_000,
            word_ms: 25_000,
        }
    }
}

impl Timing {
    /// For tests, where nobody wants to wait: a tenth of everything but what a busy machine may take, on machines whose clocks are one.
    #[must_use]
    pub fn tenth() -> Self {
        let real = Self::default();
        Self {
            hold_ms: real.hold_ms / 10,
            take_over_after: real.take_over_after / 10,
            heartbeat: real.heartbeat / 10,
            patience_ms: real.patience_ms / 10,
            join_wait_ms: 500,
            word_ms: real.word_ms,
        }
    }
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// By the Unix socket in this folder.
    Socket(PathBuf),
    /// Over TLS 1.3, never without.
    Tls {
        /// DNS name or address that stands in the server's certificate.
        host: String,
        /// PEM file: the CA that signed it.
        ca_file: PathBuf,
    },
}

/// The table as it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPostgres {
    socket: Option<PathBuf>,
    host: Option<String>,
    ca_file: Option<PathBuf>,
    #[serde(default = "default_port")]
    port: u16,
    database: String,
    user: String,
    password_file: Option<PathBuf>,
}

fn default_port() -> u16 {
    5432
}

/// A mistake and its remedy.
pub(crate) type Mistake = (&'static str, &'static str);

impl RawPostgres {
    /// Checks the table; relative paths count from `folder`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(self, folder: &Path) -> Result<PostgresConfig, Mistake> {
        let server = match (self.socket, self.host, self.ca_file) {
            (Some(socket), None, None) => Server::Socket(folder.join(socket)),
            (None, Some(host), Some(ca_file)) => Server::Tls { host, ca_file: folder.join(ca_file) },
            (None, Some(_), None) => {
                return Err((
                    "store.postgres: host without ca_file; anyone on the way could be the database",
                    "name the CA of the server's certificate, or use socket = \"/run/postgresql\"",
                ));
            }
            (Some(_), None, Some(_)) => {
                return Err((
                    "store.postgres: ca_file with socket; there is no TLS on a Unix socket",
                    "leave ca_file out",
                ));
            }
            (Some(_), Some(_), _) => {
                return Err(("store.postgres: both socket and host", "keep one of them"));
            }
            (None, None, _) => {
                return Err((
                    "store.postgres: neither socket nor host",
                    "socket = \"/run/postgresql\", or host = \"…\" with ca_file = \"…\"",
                ));
            }
        };
        if matches!(server, Server::Tls { .. }) && self.password_file.is_none() {
            return Err((
                "store.postgres: host without password_file",
                "over a network the service proves itself by a password: name its file, mode 0600",
            ));
        }
        Ok(PostgresConfig {
            server,
            port: self.port,
            database: self.database,
            user: self.user,
            password_file: self.password_file.map(|path| folder.join(path)),
            timing: Timing::default(),
        })
    }
}
