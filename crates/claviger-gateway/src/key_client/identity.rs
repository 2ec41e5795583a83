//! Who this gateway (or operator) is: `identity.json`, mode 0600, in a folder with mode 0700. Replaced in one step, so that
//! a crash leaves the old or the new one.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_keyapi::enrol::Certificate;
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::tls::TlsIdentity;
use claviger_keyapi::{Id16, Identity};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{ClientError, durable};

const FILE: &str = "identity.json";
const FILE_LEN_MAX: u64 = 64 << 10;

/// A private key with its certificate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredIdentity {
    /// `host:port` of the key service, as the enrolment token gave it; perhaps several, divided by commas.
    pub address: String,
    /// The name.
    pub identity: Identity,
    /// What the service issued.
    pub certificate: Certificate,
    /// Base64 of the PKCS#8 private key.
    key: SecretText,
}

/// A fresh private key whose certificate was not issued yet.
pub struct UnsignedIdentity {
    key: Zeroizing<Vec<u8>>,
    csr: Vec<u8>,
}

impl std::fmt::Debug for UnsignedIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnsignedIdentity(redacted)")
    }
}

impl UnsignedIdentity {
    /// Draws a key. Only the request ever leaves.
    ///
    /// # Errors
    /// [`ClientError::Request`].
    pub fn generate() -> Result<Self, ClientError> {
        let key = KeyPair::generate()?;
        // The service chooses every name in the certificate.
        let request = CertificateParams::default().serialize_request(&key)?;
        Ok(Self { key: Zeroizing::new(key.serialize_der()), csr: request.der().to_vec() })
    }

    /// The certificate request, DER.
    #[must_use]
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// Key and certificate together.
    #[must_use]
    pub fn signed(self, address: String, identity: Identity, certificate: Certificate) -> StoredIdentity {
        StoredIdentity {
            address,
            identity,
            certificate,
            key: SecretText::new(STANDARD.encode(&self.key[..])),
        }
    }
}

impl StoredIdentity {
    /// Reads the identity of a folder.
    ///
    /// # Errors
    /// [`ClientError::NotEnrolled`], [`ClientError::LooseMode`], [`ClientError::Damaged`], [`ClientError::Io`].
    pub fn load(folder: &Path) -> Result<Self, ClientError> {
        let path = folder.join(FILE);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ClientError::NotEnrolled(folder.to_owned()));
            }
            opened => opened.map_err(|e| ClientError::io(&path, e))?,
        };
        refuse_loose(&path, file.metadata().map_err(|e| ClientError::io(&path, e))?.mode(), 0o600)?;
        let mut text = Zeroizing::new(Vec::with_capacity(8 << 10));
        file.take(FILE_LEN_MAX).read_to_end(&mut text).map_err(|e| ClientError::io(&path, e))?;
        serde_json::from_slice(&text).map_err(|_| ClientError::Damaged(path))
    }

    /// Whether a folder holds an identity.
    #[must_use]
    pub fn exists(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    /// Writes the identity, replacing the one before.
    ///
    /// # Errors
    /// [`ClientError::Io`]; [`ClientError::LooseMode`] if the folder is open to others.
    pub fn save(&self, folder: &Path) -> Result<(), ClientError> {
        private_folder(folder)?;
        let path = folder.join(FILE);
        let text = Zeroizing::new(serde_json::to_vec(self).map_err(|_| ClientError::Damaged(path.clone()))?);
        durable::replace(folder, FILE, &text).map_err(|e| ClientError::io(&path, e))
    }

    /// For rustls: leaf, CA and key.
    ///
    /// # Errors
    /// [`ClientError::Damaged`].
    pub(super) fn tls(&self) -> Result<TlsIdentity, ClientError> {
        let key =
            STANDARD.decode(self.key.expose()).map_err(|_| ClientError::Damaged(PathBuf::from(FILE)))?;
        Ok(TlsIdentity {
            chain: vec![CertificateDer::from(self.certificate.certificate.0.clone()), self.ca()],
            key: PrivateKeyDer::Pkcs8(key.into()),
        })
    }

    pub(super) fn ca(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.certificate.ca.0.clone())
    }

    /// Wall-clock moment, Unix milliseconds, from which the certificate should be renewed.
    #[must_use]
    pub fn renew_at_ms(&self) -> u64 {
        let Certificate { not_before_ms, not_after_ms, .. } = self.certificate;
        not_before_ms.saturating_add(not_after_ms.saturating_sub(not_before_ms) / 2)
    }

    /// `sealer_id` of a gateway.
    #[must_use]
    pub fn gateway_id(&self) -> Id16 {
        self.certificate.gateway_id
    }
}

fn private_folder(folder: &Path) -> Result<(), ClientError> {
    durable::make_private(folder).map_err(|e| ClientError::io(folder, e))?;
    let mode = fs::metadata(folder).map_err(|e| ClientError::io(folder, e))?.mode();
    refuse_loose(folder, mode, 0o700)
}

fn refuse_loose(path: &Path, mode: u32, wanted: u32) -> Result<(), ClientError> {
    let mode = mode & 0o7777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(ClientError::LooseMode { path: path.to_owned(), mode, wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_keyapi::wire::Blob;
    use std::os::unix::fs::PermissionsExt as _;

    fn identity() -> StoredIdentity {
        let certificate = Certificate {
            certificate: Blob(vec![1]),
            ca: Blob(vec![2]),
            gateway_id: Id16([3; 16]),
            not_before_ms: 1_000,
            not_after_ms: 3_000,
        };
        let unsigned = UnsignedIdentity::generate().unwrap();
        unsigned.signed("127.0.0.1:1".into(), "gateway:edge".parse().unwrap(), certificate)
    }

    #[test]
    fn an_identity_is_saved_for_its_owner_only_and_read_back() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("identity");
        assert!(matches!(StoredIdentity::load(&folder), Err(ClientError::NotEnrolled(_))));
        identity().save(&folder).unwrap();
        identity().save(&folder).unwrap();
        let path = folder.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(StoredIdentity::load(&folder).unwrap().renew_at_ms(), 2_000);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(StoredIdentity::load(&folder), Err(ClientError::LooseMode { .. })));
    }

    #[test]
    fn a_private_key_never_prints() {
        assert!(format!("{:?}", identity()).contains("redacted"));
    }
}
