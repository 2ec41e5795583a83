//! TLS toward clients: 1.3 and 1.2, hybrid post-quantum key exchange first.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsConfig;
use crate::secret_file::{SecretFileError, read_secret_file};

/// Why a certificate or its key can't be used. Never quotes the key.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// The certificate file can't be read.
    #[error("{path}: can't be read: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// No certificate in it.
    #[error("{path}: holds no PEM certificate (-----BEGIN CERTIFICATE-----)", path = path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key file can't be read, or others may read it.
    #[error(transparent)]
    KeyFile(#[from] SecretFileError),
    /// No private key in it.
    #[error("{path}: holds no PEM private key (PKCS#8, PKCS#1 or SEC 1)", path = path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The two don't belong together, or are of a kind that TLS does not take.
    #[error("{path}: can't be used with its key: {source}", path = path.display())]
    Mismatch {
        /// The certificate file.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
}

/// The server side of TLS for clients: 1.3 and 1.2, X25519MLKEM768 preferred, ALPN `http/1.1`.
///
/// # Errors
/// [`TlsConfigError`].
pub fn tls_config(files: &TlsConfig) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let chain = read_certificates(&files.certificate_file)?;
    let key_text = read_secret_file(&files.key_file)?;
    let key = PrivateKeyDer::from_pem_slice(key_text.as_bytes())
        .map_err(|_| TlsConfigError::NoKey { path: files.key_file.clone() })?;
    let mismatch = |source| TlsConfigError::Mismatch { path: files.certificate_file.clone(), source };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(mismatch)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// All certificates in a PEM file, at least one.
///
/// # Errors
/// [`TlsConfigError::Unreadable`] and [`TlsConfigError::NoCertificate`].
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let text = std::fs::read(path)
        .map_err(|source| TlsConfigError::Unreadable { path: path.to_path_buf(), source })?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(TlsConfigError::NoCertificate { path: path.to_path_buf() }),
    }
}
