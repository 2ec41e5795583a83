//! Epoch records: a write epoch's key, sealed to the keyset (docs/format.md §2.3).
//!
//! ```text
//! header(64): 0 "CLE" 0x01  4 u8 suite  5 zeros(3)  8 u64 created_ms  16 epoch_id  32 gateway_id  48 keyset_id
//! 64 wek_commit(32)  96 u8 r (1..8)  97 r × recipient
//! ```

use crate::encoding::Cursor;
use crate::hpke_seal::{self, Binding, PUBLIC_KEY_LEN, RECIPIENTS_MAX, Recipient};
use crate::suite::{SUITE_ID, TAG_LEN};
use crate::{
    EpochId, Error, KemSeed, KeysetId, Psk, Random, Result, RootSecret, SealerId, Structure, Wek, kdf,
};
use subtle::ConstantTimeEq;

const MAGIC: &[u8; 4] = b"CLE\x01";
const HEADER_LEN: usize = 64;
const SEALED_WEK_LEN: usize = Wek::LEN + TAG_LEN;

/// The root secret of one keyset version, with all that derives from it (docs/format.md §2).
#[derive(Debug)]
pub struct Root {
    secret: RootSecret,
    keyset_id: KeysetId,
    version: u32,
}

impl Root {
    /// Puts the secret together with what it belongs to.
    pub fn new(secret: RootSecret, keyset_id: KeysetId, version: u32) -> Self {
        Self { secret, keyset_id, version }
    }

    /// The keyset.
    pub fn keyset_id(&self) -> KeysetId {
        self.keyset_id
    }

    /// The version within the keyset.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The secret itself, for custody to wrap.
    pub fn secret(&self) -> &RootSecret {
        &self.secret
    }

    /// The X-Wing private key.
    pub fn kem_seed(&self) -> KemSeed {
        kdf::kem_seed(&self.secret, self.keyset_id, self.version)
    }

    /// The X-Wing public key, which gateways get at enrolment and never from the provider.
    pub fn public_key(&self) -> Result<KemPublicKey> {
        hpke_seal::public_key(&self.kem_seed()).map(KemPublicKey)
    }

    /// The pre-shared key of one sealer.
    pub fn psk(&self, sealer_id: SealerId) -> Psk {
        kdf::psk(&self.secret, self.keyset_id, self.version, sealer_id)
    }
}

/// X-Wing public key of a keyset version, 1,216 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct KemPublicKey(Box<[u8; PUBLIC_KEY_LEN]>);

impl KemPublicKey {
    /// Length in bytes.
    pub const LEN: usize = PUBLIC_KEY_LEN;

    /// Refuses wrong lengths and encodings outside of the KEM's domain.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        hpke_seal::parse_public_key(bytes)?;
        let array = bytes.try_into().map_err(|_| Error::Malformed(Structure::PublicKey))?;
        Ok(Self(Box::new(array)))
    }

    /// The encoded key.
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.0
    }

    /// SHA-256 of the encoded key, for people to compare.
    pub fn fingerprint(&self) -> [u8; 32] {
        kdf::sha256(&[&self.0[..]])
    }
}

impl core::fmt::Debug for KemPublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "KemPublicKey(sha256 {})", crate::encoding::hex(&self.fingerprint()))
    }
}

/// The clear header of an epoch record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochHeader {
    /// When the epoch began, in milliseconds since 1970, as its gateway claims.
    pub created_ms: u64,
    /// The epoch.
    pub epoch_id: EpochId,
    /// The gateway that made it.
    pub gateway_id: SealerId,
    /// The keyset it is sealed to.
    pub keyset_id: KeysetId,
}

impl EpochHeader {
    /// The 64 bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..4].copy_from_slice(MAGIC);
        out[4] = SUITE_ID;
        out[8..16].copy_from_slice(&self.created_ms.to_be_bytes());
        out[16..32].copy_from_slice(self.epoch_id.as_bytes());
        out[32..48].copy_from_slice(self.gateway_id.as_bytes());
        out[48..].copy_from_slice(self.keyset_id.as_bytes());
        out
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
        cursor.magic(MAGIC)?;
        if cursor.u8()? != SUITE_ID {
            return Err(Error::Unsupported(Structure::EpochRecord));
        }
        cursor.zeros(3)?;
        Ok(Self {
            created_ms: cursor.u64()?,
            epoch_id: EpochId::new(cursor.array()?),
            gateway_id: SealerId::new(cursor.array()?),
            keyset_id: KeysetId::new(cursor.array()?),
        })
    }
}

/// The public commitment to an epoch key under its record's header (docs/format.md §2).
pub fn wek_commit(wek: &Wek, header: &EpochHeader) -> [u8; 32] {
    kdf::wek_commit(wek, &header.encode())
}

/// To whom, and as whom, a record is sealed.
#[derive(Debug, Clone, Copy)]
pub struct SealTo<'a> {
    /// Keyset version.
    pub version: u32,
    /// Its public key.
    pub public_key: &'a KemPublicKey,
    /// Who seals: the gateway, or [`SealerId::KEY_SERVICE`].
    pub sealer_id: SealerId,
    /// The sealer's pre-shared key under that version.
    pub psk: &'a Psk,
}

/// An epoch record; what it says is believed only after [`EpochRecord::open`].
#[derive(Clone, PartialEq, Eq)]
pub struct EpochRecord {
    header: EpochHeader,
    wek_commit: [u8; 32],
    recipients: Vec<Recipient<SEALED_WEK_LEN>>,
}

impl EpochRecord {
    /// Seals a fresh epoch key to one keyset version.
    pub fn seal(header: &EpochHeader, wek: &Wek, to: &SealTo<'_>, rng: &dyn Random) -> Result<Self> {
        let wek_commit = wek_commit(wek, header);
        let mut record = Self { header: *header, wek_commit, recipients: Vec::with_capacity(1) };
        record.add_recipient(wek, to, rng)?;
        Ok(record)
    }

    /// Re-seal: adds a recipient for another version (docs/format.md §2.1). `wek` MUST be this record's key, and the
    /// sealer its gateway or the key service.
    pub fn add_recipient(&mut self, wek: &Wek, to: &SealTo<'_>, rng: &dyn Random) -> Result<()> {
        if !bool::from(wek_commit(wek, &self.header).ct_eq(&self.wek_commit)) {
            return Err(Error::Authentication);
        }
        if self.recipients.len() >= RECIPIENTS_MAX {
            return Err(Error::TooLarge);
        }
        self.check_sealer(to.sealer_id)?;
        let content = self.content();
        let binding = self.binding(&content, to.version, to.sealer_id);
        let recipient = Recipient::seal(&binding, &to.public_key.0[..], to.psk, wek.expose(), rng)?;
        self.recipients.push(recipient);
        Ok(())
    }

    /// Drops the recipients of one version; the last one stays, since a record without any is no record.
    pub fn drop_recipients(&mut self, version: u32) -> Result<()> {
        if self.recipients.iter().all(|recipient| recipient.version == version) {
            return Err(Error::Malformed(Structure::EpochRecord));
        }
        self.recipients.retain(|recipient| recipient.version != version);
        Ok(())
    }

    /// Parses a whole record; wrong lengths, reserved bytes and trailing bytes are refused before any cryptography.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, Structure::EpochRecord);
        let header = EpochHeader::read(&mut cursor)?;
        let wek_commit = cursor.array()?;
        let recipients = hpke_seal::read_recipients(&mut cursor, Structure::EpochRecord)?;
        cursor.end()?;
        let record = Self { header, wek_commit, recipients };
        for recipient in &record.recipients {
            record.check_sealer(recipient.sealer_id)?;
        }
        Ok(record)
    }

    /// The bytes that [`Self::parse`] takes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.content();
        hpke_seal::write_recipients(&mut out, &self.recipients);
        out
    }

    /// The clear header.
    pub fn header(&self) -> &EpochHeader {
        &self.header
    }

    /// The commitment that the registry keeps (docs/format.md §2.6).
    pub fn wek_commit(&self) -> &[u8; 32] {
        &self.wek_commit
    }

    /// Keyset version and sealer of every recipient.
    pub fn recipients(&self) -> impl Iterator<Item = (u32, SealerId)> + '_ {
        self.recipients.iter().map(|recipient| (recipient.version, recipient.sealer_id))
    }

    /// Opens the record with a root and checks the commitment. Revocation is for the registry to decide.
    ///
    /// [`Error::Inconsistent`] if the record belongs to another keyset or has no recipient for this version.
    pub fn open(&self, root: &Root) -> Result<Wek> {
        let mut result = Err(Error::Inconsistent(Structure::EpochRecord));
        if self.header.keyset_id != root.keyset_id {
            return result;
        }
        let content = self.content();
        for recipient in self.recipients.iter().filter(|recipient| recipient.version == root.version) {
            let binding = self.binding(&content, recipient.version, recipient.sealer_id);
            let opened = recipient.open(&binding, &root.kem_seed(), &root.psk(recipient.sealer_id));
            result = opened.and_then(|wek| self.check_wek(&wek));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Two recipients can never yield two keys: the commitment decides (docs/format.md §2.3).
    fn check_wek(&self, wek: &[u8]) -> Result<Wek> {
        let wek = Wek::from_slice(wek).map_err(|_| Error::Authentication)?;
        let commit = wek_commit(&wek, &self.header);
        if bool::from(commit.ct_eq(&self.wek_commit)) { Ok(wek) } else { Err(Error::Authentication) }
    }

    /// Only the gateway that the header names and the key service seal its record: no one else is attributed.
    fn check_sealer(&self, sealer_id: SealerId) -> Result<()> {
        if sealer_id == self.header.gateway_id || sealer_id == SealerId::KEY_SERVICE {
            Ok(())
        } else {
            Err(Error::Malformed(Structure::EpochRecord))
        }
    }

    fn content(&self) -> Vec<u8> {
        [&self.header.encode()[..], &self.wek_commit].concat()
    }

    fn binding<'a>(&self, content: &'a [u8], version: u32, sealer_id: SealerId) -> Binding<'a> {
        Binding { label: kdf::EPOCH_SEAL, content, keyset_id: self.header.keyset_id, version, sealer_id }
    }
}

impl core::fmt::Debug for EpochRecord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "EpochRecord({:?}, {} recipients)", self.header, self.recipients.len())
    }
}
