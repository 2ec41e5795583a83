//! The channel: who gets through the handshake and who does not.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

use std::sync::Arc;

use claviger_keyapi::tls::{self, Accept, LOCKED_NAME, SERVICE_NAME, SpkiHash, TlsIdentity};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[derive(Debug)]
struct FixedTime;

impl TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_750_000_000)))
    }
}

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(ca: &Ca, dns: &str, usage: ExtendedKeyUsagePurpose) -> TlsIdentity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, ca).unwrap();
    TlsIdentity {
        chain: vec![certificate.der().clone(), ca_der(ca)],
        key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
    }
}

fn ca_der(ca: &Ca) -> CertificateDer<'static> {
    ca.der().clone()
}

fn server(ca: &Ca, name: &str) -> ServerConfig {
    let identity = leaf(ca, name, ExtendedKeyUsagePurpose::ServerAuth);
    tls::server_config(identity, ca_der(ca), Arc::new(FixedTime)).unwrap()
}

fn client(ca: &Ca, accept: Accept) -> ClientConfig {
    let identity = leaf(ca, "client", ExtendedKeyUsagePurpose::ClientAuth);
    tls::client_config(identity, ca_der(ca), accept, Arc::new(FixedTime)).unwrap()
}

/// Both sides' verdicts; the client's includes reading one byte, so that a late alert counts.
async fn handshake(server: ServerConfig, client: ClientConfig) -> (Result<(), String>, Result<(), String>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (near, far) = tokio::io::duplex(1 << 16);
    let serve = async {
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(far).await.map_err(|e| e.to_string())?;
        stream.write_all(b"x").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())
    };
    let ask = async {
        let connector = TlsConnector::from(Arc::new(client));
        let mut stream = connector.connect(tls::server_name(), near).await.map_err(|e| e.to_string())?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut byte = [0u8; 1];
        stream.read_exact(&mut byte).await.map(drop).map_err(|e| e.to_string())
    };
    tokio::join!(serve, ask)
}

#[tokio::test]
async fn both_sides_of_one_ca_meet_over_the_hybrid_key_exchange() {
    let ca = ca();
    let (served, asked) = handshake(server(&ca, SERVICE_NAME), client(&ca, Accept::Unlocked)).await;
    assert_eq!((served, asked), (Ok(()), Ok(())));
}

#[tokio::test]
async fn a_client_that_offers_only_x25519_is_refused() {
    let ca = ca();
    let mut old = aws_lc_rs::default_provider();
    old.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_der(&ca)).unwrap();
    let identity = leaf(&ca, "client", ExtendedKeyUsagePurpose::ClientAuth);
    let mut config = ClientConfig::builder_with_details(Arc::new(old), Arc::new(FixedTime))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(identity.chain, identity.key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (served, asked) = handshake(server(&ca, SERVICE_NAME), config).await;
    assert!(served.unwrap_err().contains("NoKxGroupsInCommon"));
    assert!(asked.is_err());
}

#[tokio::test]
async fn a_server_that_knows_only_x25519_is_refused() {
    let ca = ca();
    let mut config = server(&ca, SERVICE_NAME);
    let mut old = aws_lc_rs::default_provider();
    old.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let identity = leaf(&ca, SERVICE_NAME, ExtendedKeyUsagePurpose::ServerAuth);
    config = {
        let mut weak = ServerConfig::builder_with_details(Arc::new(old), Arc::new(FixedTime))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .unwrap();
        weak.alpn_protocols = config.alpn_protocols;
        weak
    };
    assert!(handshake(config, client(&ca, Accept::Unlocked)).await.1.is_err());
}

#[tokio::test]
async fn a_client_of_another_ca_is_refused() {
    let (ours, theirs) = (ca(), ca());
    let identity = leaf(&theirs, "client", ExtendedKeyUsagePurpose::ClientAuth);
    let config = tls::client_config(identity, ca_der(&ours), Accept::Unlocked, Arc::new(FixedTime)).unwrap();
    let (served, asked) = handshake(server(&ours, SERVICE_NAME), config).await;
    assert!(served.is_err() && asked.is_err());
}

#[tokio::test]
async fn a_service_of_another_ca_is_refused() {
    let (ours, theirs) = (ca(), ca());
    assert!(handshake(server(&theirs, SERVICE_NAME), client(&ours, Accept::Unlocked)).await.1.is_err());
}

#[tokio::test]
async fn a_gateway_certificate_cannot_play_the_service() {
    let ca = ca();
    let identity = leaf(&ca, SERVICE_NAME, ExtendedKeyUsagePurpose::ClientAuth);
    let config = tls::server_config(identity, ca_der(&ca), Arc::new(FixedTime)).unwrap();
    assert!(handshake(config, client(&ca, Accept::Unlocked)).await.1.is_err());
}

#[tokio::test]
async fn only_operators_talk_to_a_locked_service() {
    let ca = ca();
    assert!(handshake(server(&ca, LOCKED_NAME), client(&ca, Accept::Unlocked)).await.1.is_err());
    assert_eq!(handshake(server(&ca, LOCKED_NAME), client(&ca, Accept::AnyState)).await.1, Ok(()));
}

#[tokio::test]
async fn one_who_enrols_trusts_the_pinned_ca_and_no_other() {
    let (ours, theirs) = (ca(), ca());
    let pin = SpkiHash::of_certificate(&ca_der(&ours)).unwrap();
    let config = || tls::enrol_config(pin, Arc::new(FixedTime)).unwrap();
    assert_eq!(handshake(server(&ours, SERVICE_NAME), config()).await.1, Ok(()));
    assert!(handshake(server(&theirs, SERVICE_NAME), config()).await.1.is_err());
    // A leaf of another CA with our CA shown beside it.
    let mut mixed = leaf(&theirs, SERVICE_NAME, ExtendedKeyUsagePurpose::ServerAuth);
    mixed.chain[1] = ca_der(&ours);
    let mixed = tls::server_config(mixed, ca_der(&theirs), Arc::new(FixedTime)).unwrap();
    assert!(handshake(mixed, config()).await.1.is_err());
}

#[test]
fn the_hash_of_a_certificate_is_that_of_its_der_public_key() {
    use rcgen::PublicKeyData as _;
    use sha2::{Digest as _, Sha256};
    let ca = ca();
    let expected: [u8; 32] = Sha256::digest(ca.key().subject_public_key_info()).into();
    assert_eq!(SpkiHash::of_certificate(&ca_der(&ca)).unwrap(), SpkiHash(expected));
}
