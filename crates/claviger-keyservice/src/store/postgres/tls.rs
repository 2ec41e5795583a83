//! TLS towards a PostgreSQL server: 1.3 only, its certificate signed by the one CA that the configuration names.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use claviger_env::Clock;
use rustls::crypto::aws_lc_rs;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use x509_parser::oid_registry as oid;

use super::config::{PostgresConfig, Server};
use crate::ServiceError;
use crate::service::tls::ClockTime;

/// Makes TLS connections for `tokio_postgres`.
#[derive(Clone)]
pub(super) struct Connector {
    config: Arc<ClientConfig>,
}

impl Connector {
    /// What the configuration asks for; `None` on a Unix socket.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn of(config: &PostgresConfig, clock: &Arc<dyn Clock>) -> Result<Option<Self>, ServiceError> {
        match &config.server {
            Server::Socket(_) => Ok(None),
            Server::Tls { ca_file, .. } => {
                Self::new(ca_file, Arc::new(ClockTime(Arc::clone(clock)))).map(Some)
            }
        }
    }

    /// Trusts what the certificates in `ca_file` (PEM) signed, and nothing else.
    ///
    /// # Errors
    /// [`ServiceError::DatabaseSetUp`] if the file holds no certificate; [`ServiceError::Tls`].
    fn new(ca_file: &Path, time: Arc<dyn TimeProvider>) -> Result<Self, ServiceError> {
        let unusable = |why: &dyn fmt::Display| ServiceError::DatabaseSetUp {
            text: format!("ca_file {} can't be used: {why}", ca_file.display()),
            remedy: "a PEM file with the certificate of the CA that signed the database server's".to_owned(),
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|e| unusable(&e))? {
            roots.add(certificate.map_err(|e| unusable(&e))?)?;
        }
        if roots.is_empty() {
            return Err(unusable(&"it holds no certificate"));
        }
        let config = ClientConfig::builder_with_details(Arc::new(aws_lc_rs::default_provider()), time)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Stream<S>;
    type TlsConnect = Handshake;
    type Error = rustls_pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Handshake, Self::Error> {
        let name = ServerName::try_from(domain)?.to_owned();
        Ok(Handshake { config: Arc::clone(&self.config), name })
    }
}

/// One handshake, about to begin.
pub(super) struct Handshake {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let connector = tokio_rustls::TlsConnector::from(self.config);
            Ok(Stream(connector.connect(self.name, stream).await?))
        })
    }
}

/// A TLS connection.
pub(super) struct Stream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let certificate = session.peer_certificates().and_then(|chain| end_point(chain.first()?));
        certificate.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// RFC 5929 §4: the hash of the certificate by the hash of its signature, SHA-256 in place of anything weaker. `None` for
/// signatures that name no hash (Ed25519), which the RFC leaves open; the certificate itself was verified anyway.
fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm.algorithm;
    let is = |oids: &[oid::Oid<'static>]| oids.iter().any(|known| known == algorithm);
    if is(&[oid::OID_PKCS1_SHA256WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA256, oid::OID_PKCS1_SHA1WITHRSA]) {
        Some(Sha256::digest(certificate).to_vec())
    } else if is(&[oid::OID_PKCS1_SHA384WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA384]) {
        Some(Sha384::digest(certificate).to_vec())
    } else if is(&[oid::OID_PKCS1_SHA512WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA512]) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}
