//! What can go wrong with a server, sorted by what helps.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use crate::ServiceError;

/// Why something did not work.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection broke, or the server is starting or stopping: another connection may help.
    Connection(String),
    /// Trying again is useless until a person has done something.
    Final(ServiceError),
}

impl Fault {
    pub(super) fn set_up(text: impl Into<String>, remedy: &str) -> Self {
        Self::Final(ServiceError::DatabaseSetUp { text: text.into(), remedy: remedy.to_owned() })
    }

    pub(super) fn into_error(self) -> ServiceError {
        match self {
            Self::Connection(text) => ServiceError::Database(text),
            Self::Final(error) => error,
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = describe(&error);
        match error.code() {
            Some(code) if code == &SqlState::INVALID_PASSWORD || code.code().starts_with("28") => {
                Self::set_up(
                    text,
                    "look at store.postgres: user, password_file, and at the server's pg_hba.conf",
                )
            }
            Some(code) if code == &SqlState::INVALID_CATALOG_NAME => {
                Self::set_up(text, "create it: CREATE DATABASE … OWNER … ENCODING 'UTF8' TEMPLATE template0")
            }
            Some(code) if may_pass(code) => Self::Connection(text),
            None if error.is_closed() || is_io(&error) => Self::Connection(text),
            _ => Self::Final(ServiceError::Database(text)),
        }
    }
}

/// States in which the same request may work on another connection, a moment later.
fn may_pass(code: &SqlState) -> bool {
    let transient = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
    ];
    code.code().starts_with("08") || transient.contains(code)
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<std::io::Error>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// With its causes; the library's own text leaves them out.
fn describe(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
