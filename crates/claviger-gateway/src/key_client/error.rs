use std::io;
use std::path::{Path, PathBuf};

use claviger_keyapi::enrol::TokenError;
use claviger_keyapi::{KeyServiceError, UnavailableReason};

/// Why there is no connection to the key service, or no identity to make one with.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The identity's file or folder can't be read or written.
    #[error("{path}: {reason}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// Others can read the private key.
    #[error("{path} has mode {mode:04o}: it holds a private key; chmod {wanted:04o} {path}")]
    LooseMode {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The loosest that is accepted.
        wanted: u32,
    },
    /// The folder holds no identity.
    #[error("{0} holds no identity; enrol with a token from `claviger keys gateway enrol`")]
    NotEnrolled(PathBuf),
    /// The folder holds one already.
    #[error("{0} holds an identity already; remove it first if it is no longer wanted")]
    AlreadyEnrolled(PathBuf),
    /// The identity's file is not one.
    #[error("{0} is not an identity that was written here")]
    Damaged(PathBuf),
    /// The token's text is not one.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is for the other kind of identity.
    #[error("the token is for {0}")]
    WrongRole(claviger_keyapi::Identity),
    /// The token has expired.
    #[error("the token has expired; ask for another")]
    TokenExpired,
    /// No TCP connection.
    #[error("{address}: {reason}")]
    Connect {
        /// `host:port`.
        address: String,
        /// What the system says.
        reason: io::Error,
    },
    /// The service has not the key that was expected of it: nothing was sent.
    #[error("{address} is not the expected key service, or it is locked: {reason}; nothing was sent to it")]
    Handshake {
        /// `host:port`.
        address: String,
        /// What TLS says.
        reason: io::Error,
    },
    /// It took too long.
    #[error("{0} did not answer in time")]
    Timeout(String),
    /// It is a new connection, and the audit log was not looked at over it yet: nothing was sent.
    #[error("{0}: its audit log is to be looked at first, over this connection")]
    Unseen(String),
    /// HTTP/2 broke.
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
    /// A key or a certificate request could not be made.
    #[error("certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The certificate that came back is not of the CA that the token names.
    #[error("the certificate that came back is not of the service's CA")]
    ForeignCertificate,
    /// The service answered, and refused.
    #[error(transparent)]
    Service(#[from] KeyServiceError),
}

impl ClientError {
    pub(crate) fn io(path: &Path, reason: io::Error) -> Self {
        Self::Io { path: path.to_owned(), reason }
    }

    /// What callers of the key service's trait see.
    pub(crate) fn outward(&self) -> KeyServiceError {
        let unavailable = |reason| KeyServiceError::Unavailable { reason, retry_after_ms: 2_000 };
        match self {
            Self::Service(error) => error.clone(),
            Self::Timeout(_) => unavailable(UnavailableReason::Timeout),
            Self::Unseen(_) => super::witness::UNSEEN,
            Self::Handshake { reason, .. } if shows_the_locked_name(reason) => KeyServiceError::Locked,
            Self::Connect { .. } | Self::Handshake { .. } | Self::Http(_) => {
                unavailable(UnavailableReason::Connection)
            }
            _ => KeyServiceError::Internal,
        }
    }
}

/// A locked service has another name in its certificate, which gateways don't accept (`claviger_keyapi::tls`).
fn shows_the_locked_name(reason: &io::Error) -> bool {
    use rustls::CertificateError as C;
    let tls = reason.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        tls,
        Some(rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }))
    )
}
