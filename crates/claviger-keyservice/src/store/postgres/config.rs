//! `[store.postgres]` of `keyservice.toml`.

use std::path::{Path, PathBuf};

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
        })
    }
}
