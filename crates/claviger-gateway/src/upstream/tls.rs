//! TLS towards the provider: the system's certificate authorities, or those of one file.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt;

use crate::server::{TlsConfigError, read_certificates};

/// Why there is no TLS configuration for the provider.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    /// The file of `upstream.ca_file`.
    #[error(transparent)]
    CaFile(#[from] TlsConfigError),
    /// A certificate in it is no certificate authority, or the system's authorities can't be read.
    #[error("certificate authorities for the upstream: {0}")]
    Rustls(#[from] rustls::Error),
}

/// TLS 1.3 and 1.2 with hybrid key exchange preferred; certificates are always verified.
pub(crate) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, UpstreamTlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // The verifier of the platform takes the process's default provider.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing the race means that another thread has set the same one.
        let _ = rustls::crypto::CryptoProvider::clone(&provider).install_default();
    }
    let Some(path) = ca_file else { return Ok(ClientConfig::with_platform_verifier()?) };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate)?;
    }
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
