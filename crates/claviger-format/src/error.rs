//! The one error type of this crate.

use crate::random::RandomError;

/// What a parser was reading when it gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Structure {
    /// A 16-byte identifier or its hex text.
    Identifier,
    /// A bucket binding id (docs/format.md §5.1).
    BucketId,
    /// An object key (§5.1).
    ObjectName,
    /// A secret of the wrong length.
    Secret,
    /// The 96-byte unit header (§3.1).
    UnitHeader,
    /// Segments of a body (§3.1).
    Body,
    /// The zero pad before the footer (§4).
    Pad,
    /// The sealed manifest (§3.4).
    Footer,
    /// The metadata envelope (§5.1).
    Envelope,
    /// The type-length-value list inside the envelope (§5.1).
    Metadata,
    /// A checksum description.
    Checksum,
    /// An epoch record (§2.3).
    EpochRecord,
    /// A keyset record (§2.5).
    KeysetRecord,
    /// The public half of a keyset version.
    PublicKey,
    /// An upload token (§7.2).
    UploadToken,
    /// A part ETag (§7.3).
    PartTag,
    /// A sealed object name (§6).
    SealedName,
}

/// Everything that can go wrong here. Failures of cryptography are one opaque variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Wrong length, reserved bits set, non-canonical encoding: refused before any cryptography.
    #[error("malformed {0:?}")]
    Malformed(Structure),
    /// A version, suite, kind or type that this version does not know (docs/format.md §9: no negotiation).
    #[error("unsupported {0:?}")]
    Unsupported(Structure),
    /// A tag, commitment or MAC did not match. Says nothing more on purpose.
    #[error("authentication failed")]
    Authentication,
    /// The envelope was not sealed under this bucket and key (§5.1).
    #[error("binding mismatch")]
    BindingMismatch,
    /// Authentic pieces that do not belong together: ids, sizes or order contradict each other (§3.5, §3.6).
    #[error("inconsistent {0:?}")]
    Inconsistent(Structure),
    /// The input ended early or ran over its declared length.
    #[error("length mismatch: expected {expected} bytes, got {got}")]
    LengthMismatch {
        /// Declared length in bytes.
        expected: u64,
        /// Bytes seen so far.
        got: u64,
    },
    /// A length or count above what the format carries.
    #[error("too large for the format")]
    TooLarge,
    /// Metadata beyond the budget of the upstream (§5.2).
    #[error("metadata too large: {len} bytes, at most {len_max}")]
    MetadataTooLarge {
        /// Encoded length in bytes.
        len: usize,
        /// The limit in bytes.
        len_max: usize,
    },
    /// An object key or sealed name beyond its limit (§5.1, §6).
    #[error("name too long")]
    NameTooLong,
    /// A part that is not the last has less than 5 MiB (§4.1).
    #[error("part {0} is smaller than 5 MiB and not the last")]
    PartTooSmall(u16),
    /// Parts not in strictly ascending order, none at all, or more than 10,000.
    #[error("invalid part list")]
    PartList,
    /// A range outside of the object, or backwards.
    #[error("range not satisfiable")]
    Range,
    /// A writer or reader that already failed was used again.
    #[error("used after a failure")]
    Poisoned,
    /// The random source failed; nothing was sealed.
    #[error(transparent)]
    Random(#[from] RandomError),
}
