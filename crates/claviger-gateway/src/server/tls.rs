//! TLS toward clients: 1.3 and 1.2, hybrid post-quantum key exchange first.
//!
//! Each handshake looks whether the certificate's files have changed (two `stat` calls, nothing beside the handshake
//! itself), so that a renewed certificate is used without a restart. A pair that can't be used changes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsConfig;
use crate::fingerprint::Fingerprint;
use crate::metrics::TLS_RELOADS;
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
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificates = Certificates::load(files.clone(), Arc::clone(&provider))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|source| TlsConfigError::Mismatch { path: files.certificate_file.clone(), source })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificate in use, and the files that it comes from.
struct Certificates {
    files: TlsConfig,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
    seen: Mutex<[Fingerprint; 2]>,
}

impl Certificates {
    fn load(files: TlsConfig, provider: Arc<CryptoProvider>) -> Result<Self, TlsConfigError> {
        let seen = Mutex::new(fingerprints(&files));
        let current = ArcSwap::from_pointee(certified_key(&files, &provider)?);
        Ok(Self { files, provider, current, seen })
    }

    fn reload_if_changed(&self) {
        let now = fingerprints(&self.files);
        let before = std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), now);
        if now == before {
            return;
        }
        let outcome = match certified_key(&self.files, &self.provider) {
            Ok(key) => {
                self.current.store(Arc::new(key));
                tracing::info!("the certificate for clients was renewed");
                "applied"
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate for clients is not used, the old one stays");
                "refused"
            }
        };
        ::metrics::counter!(TLS_RELOADS, "outcome" => outcome).increment(1);
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.reload_if_changed();
        Some(self.current.load_full())
    }
}

fn fingerprints(files: &TlsConfig) -> [Fingerprint; 2] {
    [Fingerprint::of(&files.certificate_file), Fingerprint::of(&files.key_file)]
}

/// Reads both files; the key must be the certificate's.
fn certified_key(files: &TlsConfig, provider: &CryptoProvider) -> Result<CertifiedKey, TlsConfigError> {
    let chain = read_certificates(&files.certificate_file)?;
    let key_text = read_secret_file(&files.key_file)?;
    let key = PrivateKeyDer::from_pem_slice(key_text.as_bytes())
        .map_err(|_| TlsConfigError::NoKey { path: files.key_file.clone() })?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|source| TlsConfigError::Mismatch { path: files.certificate_file.clone(), source })
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
