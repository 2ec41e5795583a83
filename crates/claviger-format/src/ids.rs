//! Public identifiers: 16 random bytes each, and the name that an object is bound to.

use crate::encoding::{hex, put_u16_prefixed, unhex};
use crate::{Error, Random, Result, Structure, kdf};
use core::fmt;
use core::str::FromStr;

/// Bytes of every identifier and salt.
pub const ID_LEN: usize = 16;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_LEN]);

        impl $name {
            /// From its 16 bytes.
            pub const fn new(bytes: [u8; ID_LEN]) -> Self {
                Self(bytes)
            }

            /// From a slice, which must be 16 bytes long.
            pub fn from_slice(bytes: &[u8]) -> Result<Self> {
                bytes.try_into().map(Self).map_err(|_| Error::Malformed(Structure::Identifier))
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; ID_LEN] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// 32 lower-case hex digits.
            fn from_str(text: &str) -> Result<Self> {
                unhex(text).map(Self)
            }
        }
    };
}

macro_rules! drawn {
    ($($name:ident)*) => {$(
        impl $name {
            /// A fresh one, straight from the random source.
            pub fn draw(rng: &dyn Random) -> Result<Self> {
                let mut bytes = [0; ID_LEN];
                rng.fill(&mut bytes)?;
                Ok(Self(bytes))
            }
        }
    )*};
}

identifier! {
    /// Names a write epoch; in clear in every unit (docs/format.md §2).
    EpochId
}
identifier! {
    /// Names one version of one object, fresh for every PutObject and CreateMultipartUpload (docs/format.md §0).
    ObjectId
}
identifier! {
    /// Who sealed an epoch: a gateway, or [`SealerId::KEY_SERVICE`] (docs/format.md §2).
    SealerId
}
identifier! {
    /// Names a keyset (docs/format.md §2.1).
    KeysetId
}
identifier! {
    /// Fresh for every unit ever sealed (docs/format.md §3.1).
    Salt
}
drawn!(EpochId ObjectId SealerId KeysetId);

impl SealerId {
    /// The key service itself: 16 zero bytes.
    pub const KEY_SERVICE: Self = Self([0; ID_LEN]);
}

impl Salt {
    /// A hedged salt: even a random source that repeats after a VM was cloned gives another one, unless boot nonce,
    /// counter and clock coincide as well (docs/format.md §2.9).
    pub fn draw(rng: &dyn Random) -> Result<Self> {
        let mut entropy = [0; 32];
        rng.fill(&mut entropy)?;
        Ok(Self(kdf::salt(&entropy, &rng.hedge())))
    }
}

impl EpochId {
    /// Where the epoch's record lies in the system area (docs/format.md §2.5).
    pub fn storage_key(&self) -> String {
        format!(".claviger/epochs/{}/{self}", hex(&self.0[..1]))
    }
}

impl KeysetId {
    /// Where the keyset's record lies in the system area (docs/format.md §2.5).
    pub fn storage_key(&self) -> String {
        format!(".claviger/keyset/{self}")
    }
}

/// The binding id of a bucket, fixed when it is registered and never reused (docs/format.md §5.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketId(String);

impl BucketId {
    /// Longest binding id in bytes; the bucket name and its 33 characters of suffix need far less.
    pub const LEN_MAX: usize = 255;

    /// Takes 1 to 255 bytes of printable ASCII without spaces.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        let sound = !id.is_empty() && id.len() <= Self::LEN_MAX && id.bytes().all(|b| b.is_ascii_graphic());
        if sound { Ok(Self(id)) } else { Err(Error::Malformed(Structure::BucketId)) }
    }

    /// The id of a bucket that is being registered: `name#` and 32 random hex digits.
    pub fn draw(bucket_name: &str, rng: &dyn Random) -> Result<Self> {
        let mut bytes = [0; ID_LEN];
        rng.fill(&mut bytes)?;
        Self::new(format!("{bucket_name}#{}", hex(&bytes)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BucketId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

/// The name that an object is sealed under: bucket binding id and key, exactly as the client wrote it after URL
/// decoding, unnormalised (docs/format.md §5.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectName {
    bucket_id: BucketId,
    key: String,
}

impl ObjectName {
    /// Takes a key of 1 to 65,535 bytes; S3's own limit of 1,024 is for the caller to enforce.
    pub fn new(bucket_id: BucketId, key: impl Into<String>) -> Result<Self> {
        let key = key.into();
        if key.is_empty() {
            return Err(Error::Malformed(Structure::ObjectName));
        }
        if key.len() > usize::from(u16::MAX) {
            return Err(Error::NameTooLong);
        }
        Ok(Self { bucket_id, key })
    }

    /// The bucket's binding id.
    pub fn bucket_id(&self) -> &BucketId {
        &self.bucket_id
    }

    /// The object key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The `extra` of an envelope's key derivation: `u16(len) ‖ bucket_id ‖ u16(len) ‖ key` (docs/format.md §5.1).
    pub fn extra(&self) -> Vec<u8> {
        let mut extra = Vec::with_capacity(4 + self.bucket_id.0.len() + self.key.len());
        for field in [&self.bucket_id.0, &self.key] {
            put_u16_prefixed(&mut extra, field.as_bytes())
                .expect("the constructors bound both lengths to u16");
        }
        extra
    }
}
