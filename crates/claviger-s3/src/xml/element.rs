//! What a reader of a document asks its elements for.

use std::borrow::Cow;

use memchr::memchr2;

use super::field::Field;
use super::reader::{Document, Node, XmlError};
use crate::checksum::{ChecksumAlgorithm, ObjectChecksum};
use crate::uri::decode_listing;

/// One element of a document: its local name, its text (meaningful for leaves) and its children. `'a` is the document's
/// bytes, which names and most texts are borrowed from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'d, 'a> {
    document: &'d Document<'a>,
    /// Its place among the nodes.
    at: usize,
}

/// The elements in an element, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Children<'d, 'a> {
    document: &'d Document<'a>,
    /// The place of the next.
    at: usize,
    /// The place behind the last.
    end: usize,
}

impl<'d, 'a> Iterator for Children<'d, 'a> {
    type Item = Element<'d, 'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let element = Element { document: self.document, at: self.at };
        self.at = element.node().end;
        Some(element)
    }
}

impl<'d, 'a> Element<'d, 'a> {
    /// The first element of a document, of which there is one.
    pub(super) fn root_of(document: &'d Document<'a>) -> Self {
        Self { document, at: 0 }
    }

    fn node(&self) -> &'d Node<'a> {
        &self.document.nodes[self.at]
    }

    pub(super) fn name(&self) -> &'a str {
        self.node().name
    }

    pub(super) fn children(&self) -> Children<'d, 'a> {
        Children { document: self.document, at: self.at + 1, end: self.node().end }
    }

    /// All children of this name.
    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = Self> + use<'d, 'a> {
        self.children().filter(move |child| child.name() == name)
    }

    /// The only child of this name; two are an error, since readers would differ about which one counts.
    pub(super) fn child(&self, name: &'static str) -> Result<Option<Self>, XmlError> {
        let mut found = self.all(name);
        let first = found.next();
        if found.next().is_some() { Err(XmlError::Invalid(name)) } else { Ok(first) }
    }

    /// The only child of this name, there or not.
    pub(super) fn field(&self, name: &'static str) -> Result<Field<'d, 'a>, XmlError> {
        Ok(Field { name, element: self.child(name)? })
    }

    /// The only children of these names, as by [`Self::field`] for each, in one pass over all children. Each child is first
    /// shown to `is_other`, which says whether it takes it. The pass is shortest when `names` come in the order that they
    /// mostly have in documents.
    pub(super) fn fields<const N: usize>(
        &self,
        names: &[&'static str; N],
        mut is_other: impl FnMut(Self) -> bool,
    ) -> Result<[Field<'d, 'a>; N], XmlError> {
        let mut fields = names.map(|name| Field { name, element: None });
        let mut likely = 0;
        for child in self.children() {
            if is_other(child) {
                continue;
            }
            let name = child.name();
            let place = (likely..N).chain(0..likely).find(|&place| names[place] == name);
            let Some(place) = place else { continue };
            if fields[place].element.replace(child).is_some() {
                return Err(XmlError::Invalid(names[place]));
            }
            likely = place + 1;
        }
        Ok(fields)
    }

    /// The text of the only child of this name.
    pub(super) fn text_of(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, XmlError> {
        Ok(self.field(name)?.text())
    }

    /// The text of the child, which has to be there.
    pub(super) fn required(&self, name: &'static str) -> Result<Cow<'a, str>, XmlError> {
        self.field(name)?.required()
    }

    /// The text of the child; empty when it is not there.
    pub(super) fn string(&self, name: &'static str) -> Result<String, XmlError> {
        Ok(self.field(name)?.string().into_owned())
    }

    /// The text of the child; `None` when it is missing or empty.
    pub(super) fn non_empty(&self, name: &'static str) -> Result<Option<String>, XmlError> {
        Ok(self.field(name)?.non_empty().map(Cow::into_owned))
    }

    /// The number in the child; `None` when it is missing or empty.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>, XmlError> {
        self.field(name)?.number()
    }

    /// The boolean in the child; `false` when it is missing or empty.
    pub(super) fn boolean(&self, name: &'static str) -> Result<bool, XmlError> {
        self.field(name)?.boolean()
    }

    /// The ISO 8601 time in the child, in ms since the epoch.
    pub(super) fn time(&self, name: &'static str) -> Result<u64, XmlError> {
        self.field(name)?.time()
    }

    /// The entity tag in the child, without quotes; empty when it is not there.
    pub(super) fn etag(&self) -> Result<String, XmlError> {
        Ok(self.field("ETag")?.etag().into_owned())
    }

    /// A checksum of a known algorithm among the children, as a client sends it: unreadable is an error.
    pub(super) fn checksum(&self) -> Result<Option<ObjectChecksum>, XmlError> {
        // Most have none, and a listing asks for each of its parts.
        if !self.children().any(|child| child.name().starts_with("Checksum")) {
            return Ok(None);
        }
        for &algorithm in ChecksumAlgorithm::ALL {
            let name = algorithm.element_name();
            if let Some(text) = self.text_of(name)?.filter(|text| !text.trim().is_empty()) {
                return ObjectChecksum::parse(algorithm, &text)
                    .map(Some)
                    .map_err(|_| XmlError::Invalid(name));
            }
        }
        Ok(None)
    }

    /// The text of this element as a name from a listing, decoded if the document says `EncodingType` url; `None` when it
    /// can't be.
    pub(super) fn as_name(&self, encoded: bool) -> Option<Cow<'a, str>> {
        let text = self.text();
        if encoded && memchr2(b'%', b'+', text.as_bytes()).is_some() {
            decode_listing(&text).map(Cow::Owned)
        } else {
            Some(text)
        }
    }

    /// The text, with references expanded.
    pub(super) fn text(&self) -> Cow<'a, str> {
        self.node().text.value()
    }

    /// The text as an entity tag, without quotes.
    pub(super) fn as_etag(&self) -> Cow<'a, str> {
        self.node().text.unquoted()
    }
}
