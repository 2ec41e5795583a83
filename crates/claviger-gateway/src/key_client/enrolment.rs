//! From a one-time token to an identity.

use std::path::Path;
use std::sync::Arc;

use claviger_env::Clock;
use claviger_keyapi::enrol::{Certificate, EnrolRequest, EnrolToken, RecoverRequest, RenewRequest};
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::tls::{self, SpkiHash};
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{Identity, Role, routes};
use rustls_pki_types::CertificateDer;
use serde::Serialize;

use super::transport::ClockTime;
use super::{ClientError, StoredIdentity, Transport, UnsignedIdentity};

/// Enrols a gateway: checks the service against the token, sends a certificate request, and writes the identity to
/// `folder` (made with mode 0700). The private key never leaves this machine.
///
/// # Errors
/// [`ClientError`]; the token is still good unless the service answered.
pub async fn enrol(token: &str, folder: &Path, clock: Arc<dyn Clock>) -> Result<StoredIdentity, ClientError> {
    enrol_as(Role::Gateway, token, folder, clock).await
}

/// The same for either role.
///
/// # Errors
/// As [`enrol`]; [`ClientError::WrongRole`] if the token is for the other.
pub async fn enrol_as(
    role: Role,
    token: &str,
    folder: &Path,
    clock: Arc<dyn Clock>,
) -> Result<StoredIdentity, ClientError> {
    let token = EnrolToken::parse(token)?;
    if token.identity.role() != role {
        return Err(ClientError::WrongRole(token.identity));
    }
    if token.expires_ms <= clock.now_ms() {
        return Err(ClientError::TokenExpired);
    }
    if StoredIdentity::exists(folder) {
        return Err(ClientError::AlreadyEnrolled(folder.to_owned()));
    }
    let unsigned = UnsignedIdentity::generate()?;
    let request = EnrolRequest {
        identity: token.identity.clone(),
        secret: token.secret,
        csr: Blob(unsigned.csr().to_vec()),
    };
    let service = Service { address: token.address, ca: token.ca_spki_sha256 };
    let certificate = service.ask(routes::ENROL, &request, &clock).await?;
    keep(unsigned.signed(service.address, token.identity, certificate), folder, &clock)
}

/// What it takes to enrol an operator without another.
#[derive(Debug)]
pub struct Recovery {
    /// The service's host:port.
    pub address: String,
    /// SHA-256 of the public key of the service's CA.
    pub ca: SpkiHash,
    /// The operator.
    pub identity: Identity,
    /// Recovery shares, as many as open a keyset.
    pub shares: Vec<SecretText>,
}

/// Enrols an operator with recovery shares: checks the service against the hash of its CA before it sends anything, and writes
/// the identity to `folder`.
///
/// # Errors
/// [`ClientError`].
pub async fn recover(
    recovery: Recovery,
    folder: &Path,
    clock: Arc<dyn Clock>,
) -> Result<StoredIdentity, ClientError> {
    if StoredIdentity::exists(folder) {
        return Err(ClientError::AlreadyEnrolled(folder.to_owned()));
    }
    let unsigned = UnsignedIdentity::generate()?;
    let request = RecoverRequest {
        identity: recovery.identity.clone(),
        shares: recovery.shares,
        csr: Blob(unsigned.csr().to_vec()),
    };
    let service = Service { address: recovery.address, ca: recovery.ca };
    let certificate = service.ask(routes::RECOVER, &request, &clock).await?;
    keep(unsigned.signed(service.address, recovery.identity, certificate), folder, &clock)
}

/// A service of which only the CA is known.
struct Service {
    address: String,
    ca: SpkiHash,
}

impl Service {
    async fn ask(
        &self,
        route: &str,
        request: &(impl Serialize + Sync),
        clock: &Arc<dyn Clock>,
    ) -> Result<Certificate, ClientError> {
        let config = tls::enrol_config(self.ca, Arc::new(ClockTime(Arc::clone(clock))))?;
        let transport = Transport::with_config(&self.address, config, Arc::clone(clock));
        let certificate: Certificate = transport.call(route, request).await?.value;
        let ca = CertificateDer::from(certificate.ca.0.clone());
        if SpkiHash::of_certificate(&ca) != Some(self.ca) {
            return Err(ClientError::ForeignCertificate);
        }
        Ok(certificate)
    }
}

fn keep(
    identity: StoredIdentity,
    folder: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<StoredIdentity, ClientError> {
    check_usable(&identity, clock)?;
    identity.save(folder)?;
    Ok(identity)
}

/// A fresh key and the request to renew a certificate with.
///
/// # Errors
/// [`ClientError::Request`].
pub fn new_request() -> Result<(UnsignedIdentity, RenewRequest), ClientError> {
    let unsigned = UnsignedIdentity::generate()?;
    let csr = Blob(unsigned.csr().to_vec());
    Ok((unsigned, RenewRequest { csr }))
}

/// rustls refuses a certificate that doesn't fit its key: better now than at the next start.
pub(super) fn check_usable(identity: &StoredIdentity, clock: &Arc<dyn Clock>) -> Result<(), ClientError> {
    let time = Arc::new(ClockTime(Arc::clone(clock)));
    tls::client_config(identity.tls()?, identity.ca(), tls::Accept::Unlocked, time)?;
    Ok(())
}
