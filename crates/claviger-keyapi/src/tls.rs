//! The channel between gateways, operators and the key service.
//!
//! TLS 1.3 only; key exchange X25519MLKEM768 and nothing else (docs/format.md §1.1, A2); both sides have certificates of the
//! service's own CA; no session resumption, so that every connection shows its certificate again; HTTP/2 only.
//!
//! The service shows one of two names. [`SERVICE_NAME`] stands in a certificate whose key exists in memory only while the
//! service is unlocked; gateways accept nothing else. [`LOCKED_NAME`] stands in a certificate whose key lies on the service's
//! disk, so that an operator can reach it to unlock it; no gateway accepts it.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// DNS name in the certificate of an unlocked service.
pub const SERVICE_NAME: &str = "keyservice.claviger.invalid";
/// DNS name in the certificate that a locked service shows.
pub const LOCKED_NAME: &str = "locked.keyservice.claviger.invalid";

const ALPN_HTTP2: &[u8] = b"h2";

/// Which states of the service a client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Only the unlocked service: gateways.
    Unlocked,
    /// Also the locked one: operators.
    AnyState,
}

/// A certificate chain and its private key.
pub struct TlsIdentity {
    /// Leaf first, then the CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the leaf.
    pub key: PrivateKeyDer<'static>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(redacted)")
    }
}

/// SHA-256 of a DER SubjectPublicKeyInfo; 64 lower-case hex digits in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpkiHash(pub [u8; 32]);

impl SpkiHash {
    /// The hash of a certificate's public key; `None` if the certificate can't be read.
    #[must_use]
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let mut store = RootCertStore::empty();
        store.add(certificate.clone().into_owned()).ok()?;
        let content = store.roots.first()?.subject_public_key_info.as_ref();
        let mut der = der_sequence_header(content.len())?;
        der.extend_from_slice(content);
        Some(Self(Sha256::digest(&der).into()))
    }
}

/// `SEQUENCE` tag and definite length; public keys are shorter than 64 KiB.
fn der_sequence_header(len: usize) -> Option<Vec<u8>> {
    let len = u16::try_from(len).ok()?.to_be_bytes();
    Some(match len {
        [0, low] if low < 0x80 => vec![0x30, low],
        [0, low] => vec![0x30, 0x81, low],
        [high, low] => vec![0x30, 0x82, high, low],
    })
}

impl fmt::Display for SpkiHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for SpkiHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash of a public key is 64 lower-case hex digits")]
pub struct SpkiHashError;

impl std::str::FromStr for SpkiHash {
    type Err = SpkiHashError;

    fn from_str(text: &str) -> Result<Self, SpkiHashError> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(SpkiHashError);
        }
        let mut hash = [0u8; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| SpkiHashError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| SpkiHashError)?;
        }
        Ok(Self(hash))
    }
}

impl<'de> Deserialize<'de> for SpkiHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The cryptography of the channel: aws-lc-rs with X25519MLKEM768 as the only key exchange.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    })
}

/// The service's side. Clients without a certificate get through the handshake, for enrolment; every other route refuses
/// them. A certificate that is shown must be good.
///
/// # Errors
/// If `ca` or the identity can't be used.
pub fn server_config(
    identity: TlsIdentity,
    ca: CertificateDer<'static>,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(root_store(ca)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
    let mut config = ServerConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)?;
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The side of an enrolled gateway or operator: trusts exactly `ca`.
///
/// # Errors
/// If `ca` or the identity can't be used.
pub fn client_config(
    identity: TlsIdentity,
    ca: CertificateDer<'static>,
    accept: Accept,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = ServiceVerifier::new(ca, accept)?;
    let config = client_builder(time)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain, identity.key)?;
    Ok(finish_client(config))
}

/// The side of one who is about to enrol: has no certificate, and trusts a service only if its chain ends in a CA whose
/// public key has the hash that the enrolment token carries. Nothing is sent before that has been checked.
///
/// # Errors
/// If the configuration can't be built.
pub fn enrol_config(pin: SpkiHash, time: Arc<dyn TimeProvider>) -> Result<ClientConfig, rustls::Error> {
    let config = client_builder(time)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedVerifier { pin, provider: provider() }))
        .with_no_client_auth();
    Ok(finish_client(config))
}

/// The name to connect with; which of the service's names is accepted is up to the configuration.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    // A constant DNS name; a test converts it.
    ServerName::try_from(SERVICE_NAME).unwrap_or_else(|_| unreachable!("SERVICE_NAME is a DNS name"))
}

fn client_builder(
    time: Arc<dyn TimeProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_details(provider(), time).with_protocol_versions(&[&rustls::version::TLS13])
}

fn finish_client(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

fn root_store(ca: CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut store = RootCertStore::empty();
    store.add(ca)?;
    Ok(store)
}

/// WebPKI checks against one root, with the accepted service names in place of the host's.
#[derive(Debug)]
struct ServiceVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ServiceVerifier {
    fn new(ca: CertificateDer<'static>, accept: Accept) -> Result<Self, rustls::Error> {
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(root_store(ca)?), provider())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let texts: &[&'static str] = match accept {
            Accept::Unlocked => &[SERVICE_NAME],
            Accept::AnyState => &[SERVICE_NAME, LOCKED_NAME],
        };
        let names = texts
            .iter()
            .map(|name| ServerName::try_from(*name).map_err(|e| rustls::Error::General(e.to_string())))
            .collect::<Result<_, _>>()?;
        Ok(Self { webpki, names })
    }
}

impl ServerCertVerifier for ServiceVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut refusal = rustls::Error::InvalidCertificate(CertificateError::NotValidForName);
        for name in &self.names {
            match self.webpki.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Finds the CA with the pinned key in the chain that the service shows, then checks the chain against it.
#[derive(Debug)]
struct PinnedVerifier {
    pin: SpkiHash,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|cert| SpkiHash::of_certificate(cert) == Some(self.pin))
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        ServiceVerifier::new(ca.clone().into_owned(), Accept::Unlocked)?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
