//! One recipient of an epoch or keyset record: HPKE mode_psk, X-Wing, HKDF-SHA256, AES-256-GCM, single shot, empty
//! associated data (docs/format.md §2.3).
//!
//! ```text
//! u32 version; u8 epoch_suite = 1; u8 mode = 1 (psk); u16 0; sealer_id(16); u16 1120; enc(1120); u16 len; ct(len)
//! ```

use crate::encoding::{Cursor, put_u16_prefixed};
use crate::random::HpkeRandom;
use crate::{Error, KemSeed, KeysetId, Psk, Random, Result, SealerId, Structure, kdf};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, PskBundle, Serializable};
use zeroize::Zeroizing;

/// Bytes of an X-Wing public key.
pub(crate) const PUBLIC_KEY_LEN: usize = 1216;
/// Most recipients of one record.
pub(crate) const RECIPIENTS_MAX: usize = 8;

const ENC_LEN: usize = 1120;
const EPOCH_SUITE: u8 = 1;
const MODE_PSK: u8 = 1;

type PublicKey = <XWing as Kem>::PublicKey;
type PrivateKey = <XWing as Kem>::PrivateKey;

/// A sealed copy of `CT_LEN - 16` bytes for one keyset version.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Recipient<const CT_LEN: usize> {
    pub(crate) version: u32,
    pub(crate) sealer_id: SealerId,
    enc: Box<[u8; ENC_LEN]>,
    ct: [u8; CT_LEN],
}

/// What the seal is bound to besides the keys.
pub(crate) struct Binding<'a> {
    pub(crate) label: &'a [u8],
    /// Everything of the record that the seal authenticates.
    pub(crate) content: &'a [u8],
    pub(crate) keyset_id: KeysetId,
    pub(crate) version: u32,
    pub(crate) sealer_id: SealerId,
}

impl Binding<'_> {
    fn info(&self) -> Vec<u8> {
        [self.label, self.content, &self.version.to_be_bytes(), self.sealer_id.as_bytes()].concat()
    }

    fn psk_id(&self) -> Vec<u8> {
        [kdf::PSK_ID, self.keyset_id.as_bytes(), &self.version.to_be_bytes(), self.sealer_id.as_bytes()]
            .concat()
    }
}

impl<const CT_LEN: usize> Recipient<CT_LEN> {
    pub(crate) fn seal(
        binding: &Binding<'_>,
        public_key: &[u8],
        psk: &Psk,
        plaintext: &[u8],
        rng: &dyn Random,
    ) -> Result<Self> {
        let public_key = parse_public_key(public_key)?;
        let psk_id = binding.psk_id();
        let mode = OpModeS::Psk(PskBundle::new(psk.expose(), &psk_id).map_err(|_| Error::Authentication)?);
        let mut rng = HpkeRandom::new(rng);
        let sealed = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
            &mode,
            &public_key,
            &binding.info(),
            plaintext,
            b"",
            &mut rng,
        );
        rng.check()?;
        let (enc, ct) = sealed.map_err(|_| Error::Authentication)?;
        let mut boxed = Box::new([0; ENC_LEN]);
        enc.write_exact(&mut boxed[..]);
        let ct = ct.try_into().map_err(|_| Error::TooLarge)?;
        Ok(Self { version: binding.version, sealer_id: binding.sealer_id, enc: boxed, ct })
    }

    pub(crate) fn open(
        &self,
        binding: &Binding<'_>,
        seed: &KemSeed,
        psk: &Psk,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let failed = |_| Error::Authentication;
        let private_key = PrivateKey::from_bytes(seed.expose()).map_err(failed)?;
        let enc = <XWing as Kem>::EncappedKey::from_bytes(&self.enc[..]).map_err(failed)?;
        let psk_id = binding.psk_id();
        let mode = OpModeR::Psk(PskBundle::new(psk.expose(), &psk_id).map_err(failed)?);
        hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
            &mode,
            &private_key,
            &enc,
            &binding.info(),
            &self.ct,
            b"",
        )
        .map(Zeroizing::new)
        .map_err(failed)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&[EPOCH_SUITE, MODE_PSK, 0, 0]);
        out.extend_from_slice(self.sealer_id.as_bytes());
        for field in [&self.enc[..], &self.ct] {
            put_u16_prefixed(out, field).expect("KEM and AEAD outputs are about a kilobyte");
        }
    }

    fn read(cursor: &mut Cursor<'_>, what: Structure) -> Result<Self> {
        let version = cursor.u32()?;
        if (cursor.u8()?, cursor.u8()?) != (EPOCH_SUITE, MODE_PSK) {
            return Err(Error::Unsupported(what));
        }
        cursor.zeros(2)?;
        let sealer_id = SealerId::new(cursor.array()?);
        expect_len(cursor, ENC_LEN)?;
        let enc = Box::new(cursor.array()?);
        expect_len(cursor, CT_LEN)?;
        Ok(Self { version, sealer_id, enc, ct: cursor.array()? })
    }
}

/// Writes `u8 r ‖ r × recipient`.
pub(crate) fn write_recipients<const N: usize>(out: &mut Vec<u8>, recipients: &[Recipient<N>]) {
    out.push(u8::try_from(recipients.len()).expect("records hold at most eight recipients"));
    for recipient in recipients {
        recipient.write(out);
    }
}

/// Reads `u8 r ‖ r × recipient`, 1 to 8 of them.
pub(crate) fn read_recipients<const N: usize>(
    cursor: &mut Cursor<'_>,
    what: Structure,
) -> Result<Vec<Recipient<N>>> {
    let count = usize::from(cursor.u8()?);
    if !(1..=RECIPIENTS_MAX).contains(&count) {
        return Err(cursor.malformed());
    }
    (0..count).map(|_| Recipient::read(cursor, what)).collect()
}

/// The public key that belongs to a private seed.
pub(crate) fn public_key(seed: &KemSeed) -> Result<Box<[u8; PUBLIC_KEY_LEN]>> {
    let private_key = PrivateKey::from_bytes(seed.expose()).map_err(|_| Error::Authentication)?;
    let mut out = Box::new([0; PUBLIC_KEY_LEN]);
    XWing::sk_to_pk(&private_key).write_exact(&mut out[..]);
    Ok(out)
}

/// Refuses wrong lengths and keys outside of the KEM's domain.
pub(crate) fn parse_public_key(bytes: &[u8]) -> Result<PublicKey> {
    PublicKey::from_bytes(bytes).map_err(|_| Error::Malformed(Structure::PublicKey))
}

fn expect_len(cursor: &mut Cursor<'_>, len: usize) -> Result<()> {
    if usize::from(cursor.u16()?) == len { Ok(()) } else { Err(cursor.malformed()) }
}
