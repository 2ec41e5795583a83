//! The hardened reader: a document becomes a row of elements, within limits.

use super::element::Element;
use super::text::Text;
use super::{full, plain};
use crate::error::{ErrorCode, S3Error};

/// Deepest nesting that is read.
pub const DEPTH_MAX: usize = 16;

/// Largest answer of the upstream store that is read, in bytes.
pub const UPSTREAM_LEN_MAX: usize = 16 << 20;

/// Most elements in an answer of the upstream store.
pub(super) const UPSTREAM_ELEMENTS_MAX: usize = 100_000;

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
    /// An element occurs twice or has a value that can't be.
    #[error("the element {0} has an invalid value")]
    Invalid(&'static str),
}

/// A client's document that can't be read is `MalformedXML`, whatever the reason.
impl From<XmlError> for S3Error {
    fn from(_: XmlError) -> Self {
        Self::new(ErrorCode::MalformedXML)
    }
}

/// Limits for one kind of document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) len_max: usize,
    pub(super) elements_max: usize,
}

impl Limits {
    /// For answers of the upstream store.
    pub(super) const UPSTREAM: Self = Self { len_max: UPSTREAM_LEN_MAX, elements_max: UPSTREAM_ELEMENTS_MAX };
}

/// One element, in the order of the start tags. Names and texts stay where they are in the document.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Without its prefix.
    pub(super) name: &'a str,
    /// Meaningful for leaves: of an element with children, what stands behind the last of them.
    pub(super) text: Text<'a>,
    /// The place of the first node behind this one and all that is in it.
    pub(super) end: usize,
}

/// A document that was read: its elements in one row, so that a listing of thousands costs one allocation.
#[derive(Debug)]
pub(super) struct Document<'a> {
    /// At least one.
    pub(super) nodes: Vec<Node<'a>>,
}

impl<'a> Document<'a> {
    /// Reads a document of at most the given size whose root is called `root`.
    pub(super) fn parse(body: &'a [u8], root: &'static str, limits: Limits) -> Result<Self, XmlError> {
        let document = Self::parse_any(body, limits)?;
        if document.root().name() == root { Ok(document) } else { Err(XmlError::UnexpectedRoot(root)) }
    }

    /// Reads a document with any root.
    pub(super) fn parse_any(body: &'a [u8], limits: Limits) -> Result<Self, XmlError> {
        let text = checked(body, limits)?;
        let nodes = match plain::read(text, limits.elements_max) {
            Some(nodes) => nodes,
            None => full::read(text, limits.elements_max, true)?,
        };
        Ok(Self { nodes })
    }

    /// Reads a document with any root that is going to be passed on as it is: its reader might follow processing
    /// instructions, so there must be none.
    pub(super) fn parse_to_pass_on(body: &'a [u8], limits: Limits) -> Result<Self, XmlError> {
        Ok(Self { nodes: full::read(checked(body, limits)?, limits.elements_max, false)? })
    }

    /// The element around all others.
    pub(super) fn root(&self) -> Element<'_, 'a> {
        Element::root_of(self)
    }
}

fn checked(body: &[u8], limits: Limits) -> Result<&str, XmlError> {
    if body.len() > limits.len_max {
        return Err(XmlError::TooLarge);
    }
    std::str::from_utf8(body).map_err(|_| XmlError::Malformed)
}

#[cfg(test)]
mod tests;
