//! One type per secret: no Clone, no comparison, nothing in Debug, wiped on drop.

use crate::{EpochId, Error, ObjectId, Random, Result, Structure, kdf};
use core::fmt;
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
    /// Data encryption key of one object; it encrypts nothing itself (docs/format.md §2).
    Dek, 32
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

impl Dek {
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
        Self::build(|out| out.copy_from_slice(&self.0[..]))
    }
}

impl UnitKeys {
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
