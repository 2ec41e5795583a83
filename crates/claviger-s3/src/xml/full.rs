//! The reader of any document, which says what is wrong with one.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

use super::reader::{DEPTH_MAX, Node, XmlError};
use super::text::Text;

/// The elements of the document in the order of their start tags.
///
/// # Errors
/// When the document is not well-formed, holds what we refuse, or exceeds a limit.
pub(super) fn read(
    document: &str,
    elements_max: usize,
    takes_instructions: bool,
) -> Result<Vec<Node<'_>>, XmlError> {
    Builder { nodes: Vec::new(), open: Vec::new(), elements_max, takes_instructions }.build(document)
}

/// Turns the events of the parser into nodes.
struct Builder<'a> {
    nodes: Vec<Node<'a>>,
    /// Which nodes are open, the root first.
    open: Vec<usize>,
    elements_max: usize,
    takes_instructions: bool,
}

impl<'a> Builder<'a> {
    fn build(mut self, document: &'a str) -> Result<Vec<Node<'a>>, XmlError> {
        let mut reader = Reader::from_str(document);
        loop {
            match reader.read_event().map_err(|_| XmlError::Malformed)? {
                Event::Start(start) => self.start(where_it_stands(document, start.local_name().as_ref())?)?,
                Event::Empty(start) => {
                    self.start(where_it_stands(document, start.local_name().as_ref())?)?;
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
        if self.open.is_empty() && !self.nodes.is_empty() { Ok(self.nodes) } else { Err(XmlError::Malformed) }
    }

    fn start(&mut self, name: &'a str) -> Result<(), XmlError> {
        let is_second_root = self.open.is_empty() && !self.nodes.is_empty();
        if is_second_root || name.is_empty() {
            return Err(XmlError::Malformed);
        }
        if self.open.len() == DEPTH_MAX || self.nodes.len() == self.elements_max {
            return Err(XmlError::TooLarge);
        }
        self.open.push(self.nodes.len());
        self.nodes.push(Node { name, text: Text::EMPTY, end: 0 });
        Ok(())
    }

    fn end(&mut self) -> Result<(), XmlError> {
        let closed = self.open.pop().ok_or(XmlError::Malformed)?;
        self.nodes[closed].end = self.nodes.len();
        if let Some(&parent) = self.open.last() {
            // Text between elements is layout; dropping it keeps mixed content from piling up.
            self.nodes[parent].text = Text::EMPTY;
        }
        Ok(())
    }

    fn text(&mut self, piece: Cow<'a, str>) -> Result<(), XmlError> {
        // XML has no way to write it, not even as a reference: what holds one could not be passed on.
        if piece.contains('\0') {
            return Err(XmlError::Malformed);
        }
        match self.open.last() {
            Some(&open) => append(&mut self.nodes[open].text, piece),
            None if piece.trim_matches(['\u{feff}', ' ', '\t', '\n', '\r']).is_empty() => {}
            None => return Err(XmlError::Malformed),
        }
        Ok(())
    }
}

fn append<'a>(text: &mut Text<'a>, piece: Cow<'a, str>) {
    match (&mut *text, piece) {
        (Text::Plain(""), Cow::Borrowed(piece)) => *text = Text::Plain(piece),
        (Text::Joined(joined), piece) => joined.push_str(&piece),
        (before, piece) => *text = Text::Joined(format!("{}{piece}", before.value())),
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
