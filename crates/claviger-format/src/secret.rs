//! One type per secret: no Clone, no comparison, nothing in Debug, wiped on drop.

use crate::unit::{Kind, UnitContext};
use crate::{EpochId, Error, ObjectId, Random, Result, Structure, kdf};
use core::fmt;
use std::sync::{Arc, OnceLock};
use zeroize::Zeroize;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        pub struct $name(Box<[u8; $len]>);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Copies the secret from a slice of exactly [`Self::LEN`] bytes; the caller wipes its own copy.
            pub fn from_slice(bytes: &[u8]) -> Result<Self> {
                if bytes.len() != Self::LEN {
                    return Err(Error::Malformed(Structure::Secret));
                }
                Ok(Self::build(|out| out.copy_from_slice(bytes)))
            }

            /// The secret bytes. They must go into a computation, never into a log or an error.
            pub fn expose(&self) -> &[u8; $len] {
                &self.0
            }

            /// Fills a boxed array in place, so that the secret never passes over the stack.
            #[allow(dead_code, reason = "not every secret is derived inside this crate")]
            pub(crate) fn build(fill: impl FnOnce(&mut [u8; $len])) -> Self {
                let mut secret = Self(Box::new([0; $len]));
                fill(&mut secret.0);
                secret
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }
    };
}

secret! {
    /// Root secret of one keyset version (docs/format.md §2).
    RootSecret, 32
}
secret! {
    /// X-Wing private key: the raw seed (docs/format.md §2.3).
    KemSeed, 32
}
secret! {
    /// Pre-shared key of one sealer under one keyset version (docs/format.md §2.4).
    Psk, 32
}
secret! {
    /// Write epoch key (docs/format.md §2).
    Wek, 32
}
secret! {
    /// The bytes of a [`Dek`].
    DekBytes, 32
}
secret! {
    /// What a unit's key derivation gives: key(32) ‖ commitment(32) ‖ base nonce(12) (docs/format.md §3.1).
    UnitKeys, 76
}
secret! {
    /// MAC key of the upload token (docs/format.md §7.2).
    UploadKey, 32
}
secret! {
    /// MAC key of part-ETag tokens (docs/format.md §7.3).
    EtagKey, 32
}
secret! {
    /// AES-256-SIV key for object names (docs/format.md §6).
    NameKey, 64
}

impl RootSecret {
    /// A fresh root for a new keyset version.
    pub fn draw(rng: &dyn Random) -> Result<Self> {
        let mut secret = Self::build(|_| ());
        rng.fill(&mut secret.0[..])?;
        Ok(secret)
    }
}

impl NameKey {
    /// A fresh name key for a new keyset.
    pub fn draw(rng: &dyn Random) -> Result<Self> {
        let mut secret = Self::build(|_| ());
        rng.fill(&mut secret.0[..])?;
        Ok(secret)
    }
}

impl Wek {
    /// A fresh epoch key from 32 random bytes and the 32 bytes that the key service sent at the last refresh (zeros
    /// if it could not be reached), so that a gateway booted with poor entropy still gets a good one
    /// (docs/format.md §2.2).
    pub fn generate(rng: &dyn Random, seed: &[u8; 32]) -> Result<Self> {
        let mut entropy = zeroize::Zeroizing::new([0; 32]);
        rng.fill(&mut entropy[..])?;
        Ok(kdf::wek(&entropy, seed))
    }

    /// The key of one object of this epoch.
    pub fn dek(&self, epoch_id: EpochId, object_id: ObjectId) -> Dek {
        kdf::dek(self, epoch_id, object_id)
    }
}

/// Data encryption key of one object; it encrypts nothing itself (docs/format.md §2).
pub struct Dek {
    bytes: DekBytes,
    /// Where it is kept for more than one use.
    units: Option<Arc<DerivedUnits>>,
}

/// Keys that were derived from a [`Dek`]: of its single body and its footer, the first that were found genuine.
#[derive(Default)]
struct DerivedUnits {
    body: OnceLock<(UnitContext, UnitKeys)>,
    footer: OnceLock<(UnitContext, UnitKeys)>,
}

impl DerivedUnits {
    fn of(&self, kind: Kind) -> Option<&OnceLock<(UnitContext, UnitKeys)>> {
        match kind {
            Kind::Single => Some(&self.body),
            Kind::Footer => Some(&self.footer),
            // Of parts there are many. An envelope's keys follow from its name besides, which the context does not hold.
            Kind::Part | Kind::Envelope => None,
        }
    }
}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dek(..)")
    }
}

impl Dek {
    /// Length in bytes.
    pub const LEN: usize = DekBytes::LEN;

    /// Copies the secret from a slice of exactly [`Self::LEN`] bytes; the caller wipes its own copy.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        Ok(Self { bytes: DekBytes::from_slice(bytes)?, units: None })
    }

    /// The same key, to be kept for several readers: it remembers what is derived from it for the object's body and footer, and
    /// wipes that with itself. What comes out is the same as without.
    pub fn to_keep(self) -> Self {
        Self { units: Some(Arc::default()), ..self }
    }

    /// The secret bytes. They must go into a computation, never into a log or an error.
    pub fn expose(&self) -> &[u8; Self::LEN] {
        self.bytes.expose()
    }

    pub(crate) fn build(fill: impl FnOnce(&mut [u8; Self::LEN])) -> Self {
        Self { bytes: DekBytes::build(fill), units: None }
    }

    /// The keys of a unit, if they were remembered.
    pub(crate) fn known_unit(&self, context: &UnitContext) -> Option<UnitKeys> {
        let (known, keys) = self.units.as_ref()?.of(context.kind)?.get()?;
        (known == context).then(|| keys.duplicate())
    }

    /// Remembers what was derived from this key and `context` alone. To be called once the context is known to be genuine.
    pub(crate) fn remember_unit(&self, context: &UnitContext, keys: &UnitKeys) {
        if let Some(slot) = self.units.as_ref().and_then(|units| units.of(context.kind)) {
            slot.get_or_init(|| (*context, keys.duplicate()));
        }
    }

    /// MAC key of this upload's token.
    pub fn upload_key(&self) -> UploadKey {
        kdf::upload_key(self)
    }

    /// MAC key of this upload's part ETags.
    pub fn etag_key(&self) -> EtagKey {
        kdf::etag_key(self)
    }

    /// A second copy for a reader or writer that outlives the borrow; wiped like the first.
    pub(crate) fn duplicate(&self) -> Self {
        Self { units: self.units.clone(), ..Self::build(|out| out.copy_from_slice(self.expose())) }
    }
}

impl UnitKeys {
    fn duplicate(&self) -> Self {
        Self::build(|out| out.copy_from_slice(self.expose()))
    }

    /// The AEAD key.
    pub(crate) fn key(&self) -> &[u8; 32] {
        self.0.first_chunk().expect("76 bytes begin with 32")
    }

    /// The public commitment, which is the header's MAC.
    pub(crate) fn commitment(&self) -> &[u8; 32] {
        self.0[32..64].try_into().expect("32 bytes of 76")
    }

    /// The nonce of segment 0.
    pub(crate) fn base_nonce(&self) -> &[u8; 12] {
        self.0.last_chunk().expect("76 bytes end with 12")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BucketId, ObjectName, Salt, UnitHeader};

    fn context(kind: Kind, salt: u8) -> UnitContext {
        let (epoch_id, object_id) = (EpochId::new([1; 16]), ObjectId::new([2; 16]));
        UnitContext { kind, number: 1, length: 5, epoch_id, object_id, salt: Salt::new([salt; 16]) }
    }

    #[test]
    fn a_key_that_remembers_derives_what_any_other_does() {
        let key = || Dek::from_slice(&[7; 32]).unwrap();
        let kept = key().to_keep();
        let copy = kept.duplicate();
        for (salt, is_genuine) in [(1, false), (2, true), (1, false), (2, true)] {
            for kind in [Kind::Single, Kind::Footer, Kind::Part] {
                let context = context(kind, salt);
                let want = context.derive(&key(), None);
                for dek in [&kept, &copy] {
                    let keys = context.derive(dek, None);
                    assert_eq!(keys.expose(), want.expose(), "{kind:?} {salt}");
                    if is_genuine {
                        dek.remember_unit(&context, &keys);
                    }
                }
                let is_known = is_genuine && kind != Kind::Part;
                assert_eq!(copy.known_unit(&context).is_some(), is_known, "{kind:?} {salt}");
            }
        }
    }

    #[test]
    fn of_an_envelope_nothing_is_remembered_since_its_name_counts() {
        let kept = Dek::from_slice(&[7; 32]).unwrap().to_keep();
        let name =
            |key| ObjectName::new(BucketId::new(format!("b#{}", "0".repeat(32))).unwrap(), key).unwrap();
        let context = UnitContext { number: 0, ..context(Kind::Envelope, 1) };
        let header = |key| {
            let commitment = *context.derive(&kept, Some(&name(key))).commitment();
            UnitHeader { context, commitment }
        };
        let keys = header("a").open_keys(&kept, Some(&name("a"))).unwrap();
        assert!(kept.known_unit(&context).is_none());
        assert!(header("a").open_keys(&kept, Some(&name("b"))).is_err());
        let other = header("b").open_keys(&kept, Some(&name("b"))).unwrap();
        assert_ne!(keys.expose(), other.expose());
    }

    #[test]
    fn a_header_that_is_not_genuine_is_not_remembered() {
        let kept = Dek::from_slice(&[7; 32]).unwrap().to_keep();
        let context = context(Kind::Footer, 1);
        let mut commitment = *context.derive(&kept, None).commitment();
        commitment[31] ^= 1;
        assert!(UnitHeader { context, commitment }.open_keys(&kept, None).is_err());
        assert!(kept.known_unit(&context).is_none());
        commitment[31] ^= 1;
        UnitHeader { context, commitment }.open_keys(&kept, None).unwrap();
        assert!(kept.known_unit(&context).is_some());
    }

    #[test]
    fn nothing_of_a_key_shows_in_debug() {
        let kept = Dek::from_slice(&[0xab; 32]).unwrap().to_keep();
        let context = context(Kind::Footer, 1);
        kept.remember_unit(&context, &context.derive(&kept, None));
        assert_eq!(format!("{kept:?}"), "Dek(..)");
    }
}
