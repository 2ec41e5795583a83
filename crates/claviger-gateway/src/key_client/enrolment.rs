//! From a one-time token to an identity.

use std::path::Path;
use std::sync::Arc;

use claviger_env::Clock;
use claviger_keyapi::enrol::{Certificate, EnrolRequest, EnrolToken, RenewRequest};
use claviger_keyapi::tls::{self, SpkiHash};
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{Role, routes};
use rustls_pki_types::CertificateDer;

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
    let config = tls::enrol_config(token.ca_spki_sha256, Arc::new(ClockTime(Arc::clone(&clock))))?;
    let transport = Transport::with_config(&token.address, config, Arc::clone(&clock));
    let request = EnrolRequest {
        identity: token.identity.clone(),
        secret: token.secret,
        csr: Blob(unsigned.csr().to_vec()),
    };
    let certificate: Certificate = transport.call(routes::ENROL, &request).await?.value;
    let ca = CertificateDer::from(certificate.ca.0.clone());
    if SpkiHash::of_certificate(&ca) != Some(token.ca_spki_sha256) {
        return Err(ClientError::ForeignCertificate);
    }
    let identity = unsigned.signed(token.address, token.identity, certificate);
    check_usable(&identity, &clock)?;
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
