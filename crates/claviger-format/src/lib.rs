//! The at-rest object format and key hierarchy of Claviger, version 1 ("CLV1"), as docs/format.md states it.
//!
//! Pure: bytes in, bytes out. No async, clock, operating-system randomness, sockets, HTTP or serde. Randomness comes
//! in through [`Random`], time as a number of milliseconds. Bulk AES-256-GCM sits behind [`SegmentAead`]; the
//! RustCrypto backend is inside, others live outside.
//!
//! Reading order: [`layout`] (sizes), [`mod@unit`] (the 96-byte header and key commitment that everything sealed starts
//! with), [`object`] (bodies), [`footer`], [`envelope`], [`epoch`], [`token`].

pub mod checksum;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod crc64;
mod encoding;
pub mod envelope;
pub mod epoch;
pub mod error;
pub mod footer;
mod hpke_seal;
pub mod ids;
mod kdf;
pub mod keyset;
pub mod layout;
pub mod metadata;
pub mod name;
pub mod object;
pub mod output;
pub mod random;
pub mod secret;
mod segment;
pub mod suite;
pub mod token;
pub mod unit;

pub use checksum::{Algo, Checksum, ChecksumType};
pub use envelope::{Envelope, OpenedEnvelope};
pub use epoch::{EpochHeader, EpochRecord, KemPublicKey, Root, SealTo, wek_commit};
pub use error::{Error, Structure};
pub use footer::{Entry, FooterInfo, FooterRead, Manifest};
pub use ids::{BucketId, EpochId, KeysetId, ObjectId, ObjectName, Salt, SealerId};
pub use keyset::{KeyVersion, KeyVersionState, KeysetRecord};
pub use layout::{CipherRange, PlainRange};
pub use metadata::{Layout, Metadata, SystemHeader};
pub use object::{BodySummary, BodyWriter, ObjectReader, PartState, PartWriter};
pub use output::{Buffer, Output};
pub use random::{Hedge, Random, RandomError};
pub use secret::{Dek, EtagKey, KemSeed, NameKey, Psk, RootSecret, UnitKeys, UploadKey, Wek};
pub use suite::{OpenError, RustCryptoAes256Gcm, SegmentAead};
pub use token::{PartTag, PartTagState, UploadFields, UploadToken};
pub use unit::{Kind, UnitContext, UnitGrant, UnitHeader, UnitRequest};

/// This crate's result.
pub type Result<T, E = Error> = core::result::Result<T, E>;
