//! The hardened reader.

/// Deepest nesting that is read.
pub const DEPTH_MAX: usize = 16;

/// Why a document was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Not well-formed, not UTF-8, a DTD, or an unknown entity.
    #[error("the document is not well-formed XML")]
    Malformed,
    /// More bytes, levels or entries than allowed.
    #[error("the document exceeds a limit")]
    TooLarge,
    /// Another root element than expected.
    #[error("the document has another root than {0}")]
    UnexpectedRoot(&'static str),
    /// A required element is missing.
    #[error("the element {0} is missing")]
    Missing(&'static str),
    /// An element has a value that can't be.
    #[error("the element {0} has an invalid value")]
    Invalid(&'static str),
}
