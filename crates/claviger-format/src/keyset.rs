//! The keyset record: written by the key service for offline recovery only (docs/format.md §2.5). Gateways never take
//! keys from it.
//!
//! ```text
//! "CLK" 0x01 ‖ u8 1 ‖ zeros(3) ‖ keyset_id(16) ‖ u16 v × { u32 version ‖ u8 state ‖ zeros(3) ‖ pk(1216) }
//! ‖ u16 b × { u16 len ‖ bucket_id } ‖ u8 r × recipient
//! ```

use crate::encoding::{Cursor, put_u16_prefixed};
use crate::hpke_seal::{self, Binding, Recipient};
use crate::suite::{SUITE_ID, TAG_LEN};
use crate::{
    BucketId, Error, KemPublicKey, KeysetId, NameKey, Random, Result, Root, SealerId, Structure, kdf,
};

const MAGIC: &[u8; 4] = b"CLK\x01";
const SEALED_NAME_KEY_LEN: usize = NameKey::LEN + TAG_LEN;

/// What a keyset version is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KeyVersionState {
    /// Made, but not handed out before its recovery shares have proved themselves.
    Prepared = 0,
    /// Seals and opens.
    Active = 1,
    /// Opens only.
    Retired = 2,
    /// Its root is gone; kept for the record.
    Destroyed = 3,
}

impl KeyVersionState {
    fn from_code(code: u8) -> Result<Self> {
        [Self::Prepared, Self::Active, Self::Retired, Self::Destroyed]
            .into_iter()
            .find(|state| *state as u8 == code)
            .ok_or(Error::Unsupported(Structure::KeysetRecord))
    }
}

/// One version of a keyset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyVersion {
    /// Increasing number.
    pub version: u32,
    /// What it is good for.
    pub state: KeyVersionState,
    /// X-Wing public key.
    pub public_key: KemPublicKey,
}

/// A keyset record.
#[derive(Clone, PartialEq, Eq)]
pub struct KeysetRecord {
    keyset_id: KeysetId,
    versions: Vec<KeyVersion>,
    bucket_ids: Vec<BucketId>,
    recipients: Vec<Recipient<SEALED_NAME_KEY_LEN>>,
}

impl KeysetRecord {
    /// Seals the name key to every root in `roots` (1 to 8), as the key service.
    ///
    /// `versions` are in ascending order, at least one.
    pub fn seal(
        keyset_id: KeysetId,
        versions: Vec<KeyVersion>,
        bucket_ids: Vec<BucketId>,
        name_key: &NameKey,
        roots: &[&Root],
        rng: &dyn Random,
    ) -> Result<Self> {
        let mut record =
            Self { keyset_id, versions, bucket_ids, recipients: Vec::with_capacity(roots.len()) };
        record.check_versions()?;
        if !(1..=hpke_seal::RECIPIENTS_MAX).contains(&roots.len()) {
            return Err(Error::Malformed(Structure::KeysetRecord));
        }
        let digest = kdf::sha256(&[&record.content()?]);
        for root in roots {
            if root.keyset_id() != keyset_id {
                return Err(Error::Inconsistent(Structure::KeysetRecord));
            }
            let (psk, public_key) = (root.psk(SealerId::KEY_SERVICE), root.public_key()?);
            let binding = record.binding(&digest, root.version());
            let (to, text) = (&public_key.as_bytes()[..], name_key.expose());
            record.recipients.push(Recipient::seal(&binding, to, &psk, text, rng)?);
        }
        Ok(record)
    }

    /// Parses a whole record; wrong lengths, reserved bytes and trailing bytes are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, Structure::KeysetRecord);
        cursor.magic(MAGIC)?;
        if cursor.u8()? != SUITE_ID {
            return Err(Error::Unsupported(Structure::KeysetRecord));
        }
        cursor.zeros(3)?;
        let keyset_id = KeysetId::new(cursor.array()?);
        let versions = (0..cursor.u16()?).map(|_| read_version(&mut cursor)).collect::<Result<_>>()?;
        let bucket_ids = (0..cursor.u16()?).map(|_| read_bucket_id(&mut cursor)).collect::<Result<_>>()?;
        let recipients = hpke_seal::read_recipients(&mut cursor, Structure::KeysetRecord)?;
        cursor.end()?;
        let record = Self { keyset_id, versions, bucket_ids, recipients };
        record.check_versions()?;
        if record.recipients.iter().any(|recipient| recipient.sealer_id != SealerId::KEY_SERVICE) {
            return Err(Error::Malformed(Structure::KeysetRecord));
        }
        Ok(record)
    }

    /// The bytes that [`Self::parse`] takes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = self.content()?;
        hpke_seal::write_recipients(&mut out, &self.recipients);
        Ok(out)
    }

    /// Opens the name key with a root, and checks that the root's public key is the one in the record: after this,
    /// versions and bucket ids are authentic as well.
    pub fn open(&self, root: &Root) -> Result<NameKey> {
        let listed = self.versions.iter().find(|version| version.version == root.version());
        if root.keyset_id() != self.keyset_id || listed.map(|v| &v.public_key) != Some(&root.public_key()?) {
            return Err(Error::Inconsistent(Structure::KeysetRecord));
        }
        let digest = kdf::sha256(&[&self.content()?]);
        let recipient = self.recipients.iter().find(|recipient| recipient.version == root.version());
        let recipient = recipient.ok_or(Error::Inconsistent(Structure::KeysetRecord))?;
        let binding = self.binding(&digest, root.version());
        let opened = recipient.open(&binding, &root.kem_seed(), &root.psk(SealerId::KEY_SERVICE))?;
        NameKey::from_slice(&opened).map_err(|_| Error::Authentication)
    }

    /// The keyset.
    pub fn keyset_id(&self) -> KeysetId {
        self.keyset_id
    }

    /// All versions, ascending.
    pub fn versions(&self) -> &[KeyVersion] {
        &self.versions
    }

    /// The buckets bound to this keyset.
    pub fn bucket_ids(&self) -> &[BucketId] {
        &self.bucket_ids
    }

    /// Versions that the name key is sealed to.
    pub fn recipients(&self) -> impl Iterator<Item = u32> + '_ {
        self.recipients.iter().map(|recipient| recipient.version)
    }

    fn check_versions(&self) -> Result<()> {
        let ascending = self.versions.windows(2).all(|pair| pair[0].version < pair[1].version);
        if ascending && !self.versions.is_empty() {
            Ok(())
        } else {
            Err(Error::Malformed(Structure::KeysetRecord))
        }
    }

    fn content(&self) -> Result<Vec<u8>> {
        let mut out = [&MAGIC[..], &[SUITE_ID, 0, 0, 0], self.keyset_id.as_bytes()].concat();
        out.extend_from_slice(&count(self.versions.len())?);
        for version in &self.versions {
            out.extend_from_slice(&version.version.to_be_bytes());
            out.extend_from_slice(&[version.state as u8, 0, 0, 0]);
            out.extend_from_slice(version.public_key.as_bytes());
        }
        out.extend_from_slice(&count(self.bucket_ids.len())?);
        for bucket_id in &self.bucket_ids {
            put_u16_prefixed(&mut out, bucket_id.as_str().as_bytes())?;
        }
        Ok(out)
    }

    fn binding<'a>(&self, digest: &'a [u8], version: u32) -> Binding<'a> {
        Binding {
            label: kdf::KEYSET_SEAL,
            content: digest,
            keyset_id: self.keyset_id,
            version,
            sealer_id: SealerId::KEY_SERVICE,
        }
    }
}

impl core::fmt::Debug for KeysetRecord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "KeysetRecord({}, {} versions)", self.keyset_id, self.versions.len())
    }
}

fn count(len: usize) -> Result<[u8; 2]> {
    u16::try_from(len).map(u16::to_be_bytes).map_err(|_| Error::TooLarge)
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<KeyVersion> {
    let version = cursor.u32()?;
    let state = KeyVersionState::from_code(cursor.u8()?)?;
    cursor.zeros(3)?;
    Ok(KeyVersion { version, state, public_key: KemPublicKey::from_slice(cursor.take(KemPublicKey::LEN)?)? })
}

fn read_bucket_id(cursor: &mut Cursor<'_>) -> Result<BucketId> {
    let len = cursor.u16()?;
    let text = core::str::from_utf8(cursor.take(usize::from(len))?).map_err(|_| cursor.malformed())?;
    BucketId::new(text)
}
