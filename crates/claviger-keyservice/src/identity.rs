//! The service's own certificate authority, and who a certificate speaks for.
//!
//! Keys are ECDSA P-256. A client certificate carries exactly one URI (`urn:claviger:gateway:edge-1`) and the usage
//! clientAuth; the service's own carry a DNS name and serverAuth. So neither can play the other.
//!
//! All begin when the authority began: when a certificate ends is what bounds it, and one that was issued a moment ago must not be
//! refused because someone set a clock back.

use claviger_env::Clock;
use claviger_keyapi::tls::{SpkiHash, TlsIdentity};
use claviger_keyapi::{Identity, Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use claviger_format::Random;

use crate::ServiceError;

const DAY_MS: u64 = 86_400_000;
/// Clocks of gateways may be behind by so much.
const BACKDATE_MS: u64 = 300_000;
const CA_TTL_MS: u64 = 20 * 365 * DAY_MS;
/// Life of the certificate of an unlocked service; its key exists in memory only.
pub(crate) const SERVICE_TTL_MS: u64 = DAY_MS;
/// Life of the certificate that a locked service shows; made anew at every unlock.
pub(crate) const LOCKED_TTL_MS: u64 = 2 * 365 * DAY_MS;
const OPERATOR_TTL_MS: u64 = 90 * DAY_MS;

/// The CA with its key; only in memory while the service is unlocked.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// When it began.
    since_ms: u64,
}

/// A certificate that was issued.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) spki: SpkiHash,
    /// From where its life counts, of which half is over when it is renewed; the certificate itself says less.
    pub(crate) not_before_ms: u64,
    pub(crate) not_after_ms: u64,
}

/// Who a client certificate speaks for. The TLS layer has checked its chain and dates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    pub(crate) spki: SpkiHash,
    pub(crate) not_after_ms: u64,
}

impl Authority {
    /// A new CA: its certificate, and its key as PKCS#8.
    pub(crate) fn generate(
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<(CertificateDer<'static>, Zeroizing<Vec<u8>>), ServiceError> {
        let key = KeyPair::generate()?;
        let mut params = base_params("Claviger key service CA", clock.now_ms(), CA_TTL_MS, random)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok((certificate, Zeroizing::new(key.serialize_der())))
    }

    pub(crate) fn load(certificate: CertificateDer<'static>, key_pkcs8: &[u8]) -> Result<Self, ServiceError> {
        let key = KeyPair::try_from(key_pkcs8)?;
        let since_ms = began_ms(&certificate).ok_or(ServiceError::Damaged("CA certificate"))?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate, since_ms })
    }

    /// The CA's own certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A client certificate. Of the request only the public key is used; its self-signature proves possession.
    pub(crate) fn issue_client(
        &self,
        csr: &[u8],
        identity: &Identity,
        now_ms: u64,
        random: &dyn Random,
    ) -> Result<Issued, ServiceError> {
        let csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))?;
        let ttl_ms = match identity.role() {
            Role::Gateway => claviger_keyapi::enrol::CERTIFICATE_TTL_MS,
            Role::Admin => OPERATOR_TTL_MS,
        };
        let mut params = self.params(&identity.to_string(), now_ms, ttl_ms, random)?;
        params.subject_alt_names = vec![SanType::URI(identity.to_uri().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&csr.public_key, &self.issuer)?.der().clone();
        let spki = SpkiHash::of_certificate(&certificate).ok_or(ServiceError::Damaged("certificate"))?;
        Ok(Issued {
            certificate,
            spki,
            not_before_ms: now_ms.saturating_sub(BACKDATE_MS),
            not_after_ms: now_ms.saturating_add(ttl_ms),
        })
    }

    /// A certificate for the service itself, with a fresh key: leaf and CA, and the key as PKCS#8.
    pub(crate) fn issue_service(
        &self,
        dns_name: &str,
        now_ms: u64,
        ttl_ms: u64,
        random: &dyn Random,
    ) -> Result<TlsIdentity, ServiceError> {
        let key = KeyPair::generate()?;
        let mut params = self.params("Claviger key service", now_ms, ttl_ms, random)?;
        params.subject_alt_names = vec![SanType::DnsName(dns_name.to_owned().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(TlsIdentity {
            chain: vec![leaf, self.certificate.clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        })
    }

    fn params(
        &self,
        common_name: &str,
        now_ms: u64,
        ttl_ms: u64,
        random: &dyn Random,
    ) -> Result<CertificateParams, ServiceError> {
        let mut params = base_params(common_name, now_ms, ttl_ms, random)?;
        params.not_before = params.not_before.min(to_date(self.since_ms)?);
        Ok(params)
    }
}

fn began_ms(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_before.timestamp()).ok()?.checked_mul(1000)
}

fn base_params(
    common_name: &str,
    now_ms: u64,
    ttl_ms: u64,
    random: &dyn Random,
) -> Result<CertificateParams, ServiceError> {
    let mut serial = [0u8; 16];
    random.fill(&mut serial)?;
    // Positive, and of full length.
    serial[0] = (serial[0] & 0x3f) | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = to_date(now_ms.saturating_sub(BACKDATE_MS))?;
    params.not_after = to_date(now_ms.saturating_add(ttl_ms))?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn to_date(unix_ms: u64) -> Result<OffsetDateTime, ServiceError> {
    i64::try_from(unix_ms / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(ServiceError::Damaged("clock"))
}

/// Reads who a client certificate speaks for; `None` unless it has exactly one name and that is one of ours.
pub(crate) fn peer(certificate: &CertificateDer<'_>) -> Option<Peer> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let [GeneralName::URI(uri)] = names.value.general_names[..] else { return None };
    let not_after_s = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(Peer {
        identity: Identity::from_uri(uri).ok()?,
        spki: SpkiHash::of_certificate(certificate)?,
        not_after_ms: not_after_s.checked_mul(1000)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use claviger_env::SystemClock;

    fn authority() -> Authority {
        let (certificate, key) = Authority::generate(&SystemClock, &*random()).unwrap();
        Authority::load(certificate, &key).unwrap()
    }

    fn csr(key: &KeyPair, names: Vec<String>) -> Vec<u8> {
        CertificateParams::new(names).unwrap().serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_speaks_for_the_identity_that_the_service_chose_not_for_what_the_request_asks() {
        let (authority, key) = (authority(), KeyPair::generate().unwrap());
        let identity: Identity = "gateway:edge".parse().unwrap();
        let request = csr(&key, vec!["keyservice.claviger.invalid".into()]);
        let issued = authority.issue_client(&request, &identity, 1_750_000_000_000, &*random()).unwrap();
        let peer = peer(&issued.certificate).unwrap();
        assert_eq!((peer.identity, peer.spki), (identity, issued.spki));
        assert_eq!(peer.not_after_ms, 1_750_000_000_000 + DAY_MS);
        let (_, parsed) = X509Certificate::from_der(&issued.certificate).unwrap();
        assert!(!parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
    }

    #[test]
    fn a_request_whose_signature_is_wrong_is_refused() {
        let (authority, key) = (authority(), KeyPair::generate().unwrap());
        let mut request = csr(&key, vec![]);
        let last = request.len() - 1;
        request[last] ^= 1;
        let identity: Identity = "gateway:edge".parse().unwrap();
        assert!(authority.issue_client(&request, &identity, 1_750_000_000_000, &*random()).is_err());
        assert!(authority.issue_client(b"garbage", &identity, 1_750_000_000_000, &*random()).is_err());
    }

    #[test]
    fn the_services_own_certificate_is_no_peer() {
        let identity = authority().issue_service("x.invalid", 1_750_000_000_000, DAY_MS, &*random()).unwrap();
        assert_eq!(peer(&identity.chain[0]), None);
        assert_eq!(peer(&identity.chain[1]), None);
    }
}
