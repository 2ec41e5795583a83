//! The hardened reader: a document becomes a small tree, within limits.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

use crate::checksum::{ChecksumAlgorithm, ObjectChecksum};
use crate::error::{ErrorCode, S3Error};
use crate::timestamp;
use crate::uri::decode_listing;

/// Deepest nesting that is read.
pub const DEPTH_MAX: usize = 16;

/// Largest answer of the upstream store that is read, in bytes.
pub const UPSTREAM_LEN_MAX: usize = 16 << 20;

/// Most elements in an answer of the upstream store.
pub(super) const UPSTREAM_ELEMENTS_MAX: usize = 100_000;

/// Children that an element has if it has any: those of an object in a listing.
const CHILDREN_MOSTLY: usize = 8;

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

/// One element: its local name, its text (meaningful for leaves) and its children. Names and texts stay where they are in
/// the document; only a text with references or carriage returns in it is written anew.
#[derive(Debug)]
pub(super) struct Element<'a> {
    name: &'a str,
    text: Cow<'a, str>,
    children: Vec<Element<'a>>,
}

impl<'a> Element<'a> {
    /// Reads a document of at most the given size whose root is called `root`.
    pub(super) fn parse(body: &'a [u8], root: &'static str, limits: Limits) -> Result<Self, XmlError> {
        let element = Self::parse_any(body, limits)?;
        if element.name() == root { Ok(element) } else { Err(XmlError::UnexpectedRoot(root)) }
    }

    /// Reads a document with any root.
    pub(super) fn parse_any(body: &'a [u8], limits: Limits) -> Result<Self, XmlError> {
        Self::build(body, limits, true)
    }

    /// Reads a document with any root that is going to be passed on as it is: its reader might follow processing
    /// instructions, so there must be none.
    pub(super) fn parse_to_pass_on(body: &'a [u8], limits: Limits) -> Result<Self, XmlError> {
        Self::build(body, limits, false)
    }

    fn build(body: &'a [u8], limits: Limits, takes_instructions: bool) -> Result<Self, XmlError> {
        if body.len() > limits.len_max {
            return Err(XmlError::TooLarge);
        }
        let text = std::str::from_utf8(body).map_err(|_| XmlError::Malformed)?;
        Builder::new(limits.elements_max, takes_instructions).build(text)
    }

    pub(super) fn name(&self) -> &str {
        self.name
    }

    pub(super) fn children(&self) -> &[Self] {
        &self.children
    }

    /// All children of this name.
    pub(super) fn all<'s>(&'s self, name: &'static str) -> impl Iterator<Item = &'s Self> {
        self.children.iter().filter(move |child| child.name() == name)
    }

    /// The only child of this name; two are an error, since readers would differ about which one counts.
    pub(super) fn child(&self, name: &'static str) -> Result<Option<&Self>, XmlError> {
        let mut found = self.all(name);
        let first = found.next();
        if found.next().is_some() { Err(XmlError::Invalid(name)) } else { Ok(first) }
    }

    /// The text of the only child of this name.
    pub(super) fn text_of(&self, name: &'static str) -> Result<Option<&str>, XmlError> {
        Ok(self.child(name)?.map(Self::text))
    }

    /// The text of the child, which has to be there.
    pub(super) fn required(&self, name: &'static str) -> Result<&str, XmlError> {
        self.text_of(name)?.ok_or(XmlError::Missing(name))
    }

    /// The text of the child; empty when it is not there.
    pub(super) fn string(&self, name: &'static str) -> Result<String, XmlError> {
        Ok(self.text_of(name)?.unwrap_or_default().to_owned())
    }

    /// The text of the child; `None` when it is missing or empty.
    pub(super) fn non_empty(&self, name: &'static str) -> Result<Option<String>, XmlError> {
        Ok(self.text_of(name)?.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// The number in the child; `None` when it is missing or empty.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>, XmlError> {
        match self.text_of(name)?.map(str::trim) {
            None | Some("") => Ok(None),
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map(Some).map_err(|_| XmlError::Invalid(name))
            }
            Some(_) => Err(XmlError::Invalid(name)),
        }
    }

    /// The boolean in the child; `false` when it is missing or empty.
    pub(super) fn boolean(&self, name: &'static str) -> Result<bool, XmlError> {
        match self.text_of(name)?.map(str::trim) {
            None | Some("" | "false" | "False" | "0") => Ok(false),
            Some("true" | "True" | "1") => Ok(true),
            Some(_) => Err(XmlError::Invalid(name)),
        }
    }

    /// The ISO 8601 time in the child, in ms since the epoch.
    pub(super) fn time(&self, name: &'static str) -> Result<u64, XmlError> {
        timestamp::parse_iso8601(self.required(name)?).ok_or(XmlError::Invalid(name))
    }

    /// The entity tag in the child, without quotes; empty when it is not there.
    pub(super) fn etag(&self) -> Result<String, XmlError> {
        let text = self.text_of("ETag")?.unwrap_or_default().trim();
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        Ok(bare.to_owned())
    }

    /// A checksum of a known algorithm among the children, as a client sends it: unreadable is an error.
    pub(super) fn checksum(&self) -> Result<Option<ObjectChecksum>, XmlError> {
        for &algorithm in ChecksumAlgorithm::ALL {
            let name = algorithm.element_name();
            if let Some(text) = self.text_of(name)?.filter(|text| !text.trim().is_empty()) {
                return ObjectChecksum::parse(algorithm, text).map(Some).map_err(|_| XmlError::Invalid(name));
            }
        }
        Ok(None)
    }

    /// A name from a listing, decoded if the document says `EncodingType` url.
    pub(super) fn name_of(&self, name: &'static str, encoded: bool) -> Result<Option<String>, XmlError> {
        match self.text_of(name)? {
            Some(text) if encoded => decode_listing(text).map(Some).ok_or(XmlError::Invalid(name)),
            text => Ok(text.map(str::to_owned)),
        }
    }

    /// The text of a child that repeats what was asked for. Stores differ in whether they encode it, so one that can't be
    /// decoded is taken as missing; the caller knows what it asked for.
    pub(super) fn echo_of(&self, name: &'static str, encoded: bool) -> Result<Option<String>, XmlError> {
        let text = self.text_of(name)?;
        Ok(if encoded { text.and_then(decode_listing) } else { text.map(str::to_owned) })
    }

    /// Whether names in this listing are percent-encoded.
    pub(super) fn is_url_encoded(&self) -> Result<bool, XmlError> {
        match self.text_of("EncodingType")? {
            None | Some("") => Ok(false),
            Some("url") => Ok(true),
            Some(_) => Err(XmlError::Invalid("EncodingType")),
        }
    }

    /// The text of this element as a name from a listing.
    pub(super) fn own_name(&self, encoded: bool) -> Option<String> {
        if encoded { decode_listing(&self.text) } else { Some(self.text.clone().into_owned()) }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Turns the events of the parser into a tree.
struct Builder<'a> {
    open: Vec<Element<'a>>,
    root: Option<Element<'a>>,
    elements_left: usize,
    takes_instructions: bool,
}

impl<'a> Builder<'a> {
    fn new(elements_max: usize, takes_instructions: bool) -> Self {
        Self { open: Vec::new(), root: None, elements_left: elements_max, takes_instructions }
    }

    fn build(mut self, text: &'a str) -> Result<Element<'a>, XmlError> {
        let mut reader = Reader::from_str(text);
        loop {
            match reader.read_event().map_err(|_| XmlError::Malformed)? {
                Event::Start(start) => self.start(where_it_stands(text, start.local_name().as_ref())?)?,
                Event::Empty(start) => {
                    self.start(where_it_stands(text, start.local_name().as_ref())?)?;
                    self.end()?;
                }
                Event::End(_) => self.end()?,
                Event::Text(text) => self.text(text.xml10_content())?,
                Event::CData(data) => self.text(data.xml10_content())?,
                Event::GeneralRef(reference) => {
                    self.text(Cow::Owned(resolve(&reference)?.to_string()))?;
                }
                Event::DocType(_) => return Err(XmlError::Malformed),
                Event::PI(_) if !self.takes_instructions => return Err(XmlError::Malformed),
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
                Event::Eof => break,
            }
        }
        if self.open.is_empty() { self.root.ok_or(XmlError::Malformed) } else { Err(XmlError::Malformed) }
    }

    fn start(&mut self, name: &'a str) -> Result<(), XmlError> {
        if self.root.is_some() || name.is_empty() {
            return Err(XmlError::Malformed);
        }
        if self.open.len() == DEPTH_MAX || self.elements_left == 0 {
            return Err(XmlError::TooLarge);
        }
        self.elements_left -= 1;
        self.open.push(Element { name, text: Cow::Borrowed(""), children: Vec::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), XmlError> {
        let element = self.open.pop().ok_or(XmlError::Malformed)?;
        match self.open.last_mut() {
            Some(parent) => {
                // Text between elements is layout; dropping it keeps mixed content from piling up.
                parent.text = Cow::Borrowed("");
                if parent.children.is_empty() {
                    parent.children.reserve(CHILDREN_MOSTLY);
                }
                parent.children.push(element);
            }
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: Cow<'a, str>) -> Result<(), XmlError> {
        // XML has no way to write it, not even as a reference: what holds one could not be passed on.
        if text.contains('\0') {
            return Err(XmlError::Malformed);
        }
        match self.open.last_mut() {
            Some(element) if element.text.is_empty() => element.text = text,
            Some(element) => element.text.to_mut().push_str(&text),
            None if text.trim_matches(['\u{feff}', ' ', '\t', '\n', '\r']).is_empty() => {}
            None => return Err(XmlError::Malformed),
        }
        Ok(())
    }
}

/// The same piece of `document`, with the document's lifetime: the parser lends names for as long as its event lives.
fn where_it_stands<'a>(document: &'a str, piece: &str) -> Result<&'a str, XmlError> {
    let at = piece.as_ptr().addr().checked_sub(document.as_ptr().addr());
    let found = at.and_then(|at| document.get(at..at.checked_add(piece.len())?));
    found.filter(|found| *found == piece).ok_or(XmlError::Malformed)
}

/// The five entities of XML and character references; nothing else is ever expanded.
fn resolve(reference: &BytesRef<'_>) -> Result<char, XmlError> {
    match &**reference {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => reference.resolve_char_ref().ok().flatten().ok_or(XmlError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { len_max: 1000, elements_max: 20 };

    fn text_of_root(body: &str) -> Result<String, XmlError> {
        Element::parse(body.as_bytes(), "r", LIMITS).map(|element| element.text.into_owned())
    }

    #[test]
    fn only_the_entities_of_xml_are_expanded() {
        let text = text_of_root("<r>&amp;&lt;&gt;&quot;&apos;&#65;&#x42;&#x1;<![CDATA[<&x;]]></r>").unwrap();
        assert_eq!(text, "&<>\"'AB\u{1}<&x;");
        for body in [
            "<r>&foo;</r>",
            "<r>&</r>",
            "<r>&#0;</r>",
            "<r>\0</r>",
            "<r><![CDATA[\0]]></r>",
            "<r>&#xd800;</r>",
        ] {
            assert_eq!(text_of_root(body), Err(XmlError::Malformed), "{body}");
        }
    }

    #[test]
    fn a_document_type_is_refused() {
        let bomb = "<!DOCTYPE r [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><r>&b;</r>";
        assert_eq!(text_of_root(bomb), Err(XmlError::Malformed));
        assert_eq!(text_of_root("<!DOCTYPE r SYSTEM \"file:///etc/passwd\"><r/>"), Err(XmlError::Malformed));
    }

    #[test]
    fn limits_hold() {
        let deep = format!("{}{}", "<r>".repeat(17), "</r>".repeat(17));
        assert_eq!(text_of_root(&deep), Err(XmlError::TooLarge));
        let wide = format!("<r>{}</r>", "<a/>".repeat(20));
        assert_eq!(text_of_root(&wide), Err(XmlError::TooLarge));
        let long = format!("<r>{}</r>", "x".repeat(1000));
        assert_eq!(text_of_root(&long), Err(XmlError::TooLarge));
    }

    #[test]
    fn broken_documents_are_refused() {
        for body in ["", "x", "<r>", "<r></x>", "<r/><r/>", "<r/>x", "</r>", "<r><a></r></a>", "<r", "<>x</>"]
        {
            assert_eq!(text_of_root(body), Err(XmlError::Malformed), "{body}");
        }
        assert_eq!(Element::parse(b"<r>\xff</r>", "r", LIMITS).unwrap_err(), XmlError::Malformed);
        assert_eq!(text_of_root("<x/>"), Err(XmlError::UnexpectedRoot("r")));
    }

    #[test]
    fn prefixes_layout_and_comments_do_not_matter() {
        let body =
            "\u{feff}<?xml version=\"1.0\"?>\n<!-- c -->\n<s3:r xmlns:s3=\"x\">\n <s3:a>1</s3:a>\n</s3:r>\n";
        let element = Element::parse(body.as_bytes(), "r", LIMITS).unwrap();
        assert_eq!(element.number::<u32>("a"), Ok(Some(1)));
    }

    #[test]
    fn a_doubled_element_is_ambiguous() {
        let element = Element::parse(b"<r><a>1</a><a>2</a></r>", "r", LIMITS).unwrap();
        assert_eq!(element.text_of("a"), Err(XmlError::Invalid("a")));
    }

    #[test]
    fn numbers_and_booleans_are_strict() {
        let element =
            Element::parse(b"<r><a>+1</a><b> 7 </b><c>maybe</c><d>300</d></r>", "r", LIMITS).unwrap();
        assert_eq!(element.number::<u32>("a"), Err(XmlError::Invalid("a")));
        assert_eq!(element.number::<u32>("b"), Ok(Some(7)));
        assert_eq!(element.boolean("c"), Err(XmlError::Invalid("c")));
        assert_eq!(element.number::<u8>("d"), Err(XmlError::Invalid("d")));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(body in "[<>/&;!?\\[\\]a-c #x0-9\"=-]{0,200}") {
            let _ = Element::parse(body.as_bytes(), "r", LIMITS);
        }
    }
}
