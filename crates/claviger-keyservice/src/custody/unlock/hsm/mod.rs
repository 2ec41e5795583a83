//! The master under a key in an HSM, over PKCS#11 (OASIS PKCS #11 v2.40 and later). The key never leaves the HSM; the service
//! sends it the wrapped master once per unlock and holds no session afterwards. An HSM that goes away is missed at the next
//! unlock, and one that comes back is found without a restart.

mod session;

use std::path::PathBuf;

use claviger_format::Random;
use claviger_keyapi::wire::Blob;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::session::{Access, failed, hsm, on_token, with_session};
use super::{MASTER, secret};
use crate::ServiceError;

const GCM_NONCE_LEN: usize = 12;
const GCM_TAG_BITS: u64 = 128;
const AES_KEY_LEN: u64 = 32;
const RSA_MODULUS_LEN_MIN: usize = 256;
/// Modulus of RSA keys made here, in bits.
const RSA_BITS: u64 = 3072;

/// How the HSM wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WrapMechanism {
    /// An AES-256 key, CKM_AES_GCM.
    AesGcm,
    /// An RSA key of 2048 bits or more, CKM_RSA_PKCS_OAEP with SHA-256.
    RsaOaepSha256,
    /// The same with SHA-1, for HSMs that have nothing else. OAEP does not rest on SHA-1's resistance to collisions.
    RsaOaepSha1,
}

/// Where the key is: `[pkcs11]` in the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HsmConfig {
    /// The vendor's PKCS#11 library.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// Serial number of the token, where several have the label.
    pub serial: Option<String>,
    /// Label of the key.
    pub key: String,
    /// File with the user's PIN, mode 0600.
    pub pin_file: PathBuf,
    /// What the key is for.
    #[serde(default = "default_mechanism")]
    pub mechanism: WrapMechanism,
}

fn default_mechanism() -> WrapMechanism {
    WrapMechanism::AesGcm
}

/// What is wrong with an HSM. Each says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HsmProblem {
    /// No library.
    #[error("its module can't be used; check pkcs11.module and the vendor's installation")]
    Module,
    /// No token.
    #[error("the token is not there; plug it in or mend the way to it")]
    Absent,
    /// More than one.
    #[error("several tokens have this label; name one with pkcs11.serial")]
    Ambiguous,
    /// Wrong PIN; never tried twice without being told to, because an HSM locks itself after a few.
    #[error("it refuses the PIN; correct pkcs11.pin_file, then run `claviger keys unlock --hsm`")]
    Pin,
    /// Locked.
    #[error(
        "its PIN is locked after wrong ones; reset it with the HSM's own tool, then run `claviger keys unlock --hsm`"
    )]
    PinLocked,
    /// No key.
    #[error(
        "it holds no such key; check pkcs11.key, restore the key, or make one with `claviger keys hsm make-key`"
    )]
    NoKey,
    /// More than one.
    #[error("it holds several keys with this label")]
    SeveralKeys,
    /// The key could be taken out.
    #[error("the key can be taken out of it; use one that is sensitive and not extractable")]
    LooseKey,
    /// AES-128, or RSA that is too short.
    #[error("the key is too short; AES needs 256 bits, RSA at least 2048")]
    ShortKey,
    /// Anything else that a call gave.
    #[error("it failed; see its own log")]
    Failed,
    /// Another key than the one that wrapped.
    #[error(
        "the key does not open this service's master secret; it is another key than the one that wrapped it"
    )]
    Foreign,
}

impl HsmProblem {
    /// Whether it may go away by itself, so that trying again makes sense and does no harm.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Module | Self::Absent | Self::Failed)
    }
}

/// The wrapped master: `nonce(12) ‖ ct` of AES-GCM, or the OAEP ciphertext.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HsmWrap {
    mechanism: WrapMechanism,
    wrapped: Blob,
}

/// Wraps the master.
///
/// # Errors
/// [`ServiceError::Hsm`].
pub(crate) fn wrap(
    config: &HsmConfig,
    master: &[u8; 32],
    random: &dyn Random,
) -> Result<HsmWrap, ServiceError> {
    let mut nonce = [0u8; GCM_NONCE_LEN];
    random.fill(&mut nonce)?;
    let wrapped = with_session(config, Access::Read, |session| match config.mechanism {
        WrapMechanism::AesGcm => {
            let key = aes_key(session, config)?;
            let mechanism = gcm(&mut nonce)?;
            session.encrypt(&mechanism, key, master).map_err(failed("encrypt"))
        }
        oaep => {
            let key = rsa_key(session, config, ObjectClass::PUBLIC_KEY)?;
            session.encrypt(&rsa_oaep(oaep), key, master).map_err(failed("encrypt"))
        }
    })?;
    let wrapped = match config.mechanism {
        WrapMechanism::AesGcm => [&nonce[..], &wrapped].concat(),
        _ => wrapped,
    };
    Ok(HsmWrap { mechanism: config.mechanism, wrapped: Blob(wrapped) })
}

/// Unwraps the master.
///
/// # Errors
/// [`ServiceError::Hsm`].
pub(crate) fn unwrap(config: &HsmConfig, wrap: &HsmWrap) -> Result<Zeroizing<[u8; 32]>, ServiceError> {
    if wrap.mechanism != config.mechanism {
        return Err(hsm(HsmProblem::Foreign, "pkcs11.mechanism is not the one that wrapped it"));
    }
    let plain = with_session(config, Access::Read, |session| match config.mechanism {
        WrapMechanism::AesGcm => {
            let key = aes_key(session, config)?;
            let parts = wrap.wrapped.0.split_first_chunk::<GCM_NONCE_LEN>();
            let (nonce, sealed) = parts.ok_or(ServiceError::Damaged("wrapped master"))?;
            let mut nonce = *nonce;
            let mechanism = gcm(&mut nonce)?;
            session.decrypt(&mechanism, key, sealed).map_err(decrypt_failed)
        }
        oaep => {
            let key = rsa_key(session, config, ObjectClass::PRIVATE_KEY)?;
            session.decrypt(&rsa_oaep(oaep), key, &wrap.wrapped.0).map_err(decrypt_failed)
        }
    });
    secret(&Zeroizing::new(plain?)).ok_or_else(|| hsm(HsmProblem::Foreign, "decrypt"))
}

/// Whether the token is there; asks for no PIN.
///
/// # Errors
/// [`ServiceError::Hsm`].
pub(crate) fn is_there(config: &HsmConfig) -> Result<(), ServiceError> {
    on_token(config, |_, _| Ok(()))
}

/// Wraps and unwraps something of no use with the configured key.
///
/// # Errors
/// [`ServiceError::Hsm`].
pub fn try_out(config: &HsmConfig, random: &dyn Random) -> Result<(), ServiceError> {
    let mut probe = Zeroizing::new([0u8; 32]);
    random.fill(&mut probe[..])?;
    let wrapped = wrap(config, &probe, random)?;
    if *unwrap(config, &wrapped)? == *probe { Ok(()) } else { Err(hsm(HsmProblem::Foreign, "trial")) }
}

/// Makes the configured key in the HSM: sensitive, not extractable, for nothing but wrapping. Never beside one that is there.
///
/// # Errors
/// [`ServiceError::Hsm`], also if an object with this label is there.
pub fn make_key(config: &HsmConfig) -> Result<(), ServiceError> {
    let label = || Attribute::Label(config.key.clone().into_bytes());
    with_session(config, Access::Write, |session| {
        if !session.find_objects(&[label()]).map_err(failed("find"))?.is_empty() {
            return Err(hsm(
                HsmProblem::SeveralKeys,
                "an object with this label is there already; it is kept",
            ));
        }
        let secret = [Attribute::Token(true), Attribute::Private(true), Attribute::Sensitive(true)];
        let secret =
            [&secret[..], &[Attribute::Extractable(false), Attribute::Decrypt(true), label()]].concat();
        if config.mechanism == WrapMechanism::AesGcm {
            let length = [Attribute::ValueLen(AES_KEY_LEN.into()), Attribute::Encrypt(true)];
            let template = [&secret[..], &length].concat();
            return session
                .generate_key(&Mechanism::AesKeyGen, &template)
                .map(drop)
                .map_err(failed("generate"));
        }
        let public = [Attribute::Token(true), Attribute::Encrypt(true), label()];
        let kind = [Attribute::ModulusBits(RSA_BITS.into()), Attribute::PublicExponent(vec![1, 0, 1])];
        let public = [&public[..], &kind].concat();
        session
            .generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &secret)
            .map(drop)
            .map_err(failed("generate"))
    })
}

fn gcm(nonce: &mut [u8; GCM_NONCE_LEN]) -> Result<Mechanism<'_>, ServiceError> {
    let params =
        GcmParams::new(nonce, MASTER.as_bytes(), GCM_TAG_BITS.into()).map_err(failed("parameters"))?;
    Ok(Mechanism::AesGcm(params))
}

fn rsa_oaep(mechanism: WrapMechanism) -> Mechanism<'static> {
    let (hash, mask) = match mechanism {
        WrapMechanism::RsaOaepSha1 => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
        _ => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
    };
    // No label: not every HSM takes one.
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mask, PkcsOaepSource::empty()))
}

fn aes_key(session: &Session, config: &HsmConfig) -> Result<ObjectHandle, ServiceError> {
    let key = the_one(session, config, ObjectClass::SECRET_KEY, KeyType::AES)?;
    check_custody(session, key)?;
    let attributes = session.get_attributes(key, &[AttributeType::ValueLen]).map_err(failed("attributes"))?;
    match attributes.as_slice() {
        [Attribute::ValueLen(len)] if u64::from(*len) == AES_KEY_LEN => Ok(key),
        _ => Err(hsm(HsmProblem::ShortKey, &config.key)),
    }
}

fn rsa_key(session: &Session, config: &HsmConfig, class: ObjectClass) -> Result<ObjectHandle, ServiceError> {
    let key = the_one(session, config, class, KeyType::RSA)?;
    if class == ObjectClass::PRIVATE_KEY {
        check_custody(session, key)?;
    } else {
        // What is sealed to the public half is opened by the private one, so that one has to be a good one already.
        check_custody(session, the_one(session, config, ObjectClass::PRIVATE_KEY, KeyType::RSA)?)?;
    }
    let attributes = session.get_attributes(key, &[AttributeType::Modulus]).map_err(failed("attributes"))?;
    match attributes.as_slice() {
        [Attribute::Modulus(modulus)] if modulus.len() >= RSA_MODULUS_LEN_MIN => Ok(key),
        _ => Err(hsm(HsmProblem::ShortKey, &config.key)),
    }
}

fn the_one(
    session: &Session,
    config: &HsmConfig,
    class: ObjectClass,
    kind: KeyType,
) -> Result<ObjectHandle, ServiceError> {
    let template = [
        Attribute::Class(class),
        Attribute::KeyType(kind),
        Attribute::Token(true),
        Attribute::Label(config.key.clone().into_bytes()),
    ];
    match session.find_objects(&template).map_err(failed("find"))?.as_slice() {
        [key] => Ok(*key),
        [] => Err(hsm(HsmProblem::NoKey, &config.key)),
        _ => Err(hsm(HsmProblem::SeveralKeys, &config.key)),
    }
}

/// A key that could be read out would make the HSM a file.
fn check_custody(session: &Session, key: ObjectHandle) -> Result<(), ServiceError> {
    let wanted = [AttributeType::Sensitive, AttributeType::Extractable];
    let attributes = session.get_attributes(key, &wanted).map_err(failed("attributes"))?;
    let sensitive = attributes.contains(&Attribute::Sensitive(true));
    let kept = attributes.contains(&Attribute::Extractable(false));
    if sensitive && kept { Ok(()) } else { Err(hsm(HsmProblem::LooseKey, "CKA_SENSITIVE, CKA_EXTRACTABLE")) }
}

fn decrypt_failed(error: cryptoki::error::Error) -> ServiceError {
    use cryptoki::error::{Error, RvError};
    match error {
        Error::Pkcs11(
            RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::GeneralError
            | RvError::DataInvalid,
            function,
        ) => hsm(HsmProblem::Foreign, &format!("{function:?}")),
        other => failed("decrypt")(other),
    }
}
