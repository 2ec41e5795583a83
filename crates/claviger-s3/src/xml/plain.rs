//! The fast way to read a document, for those that are written as stores write them: elements, text and references, with
//! or without attributes; no comments, sections or instructions, no prefixes of names, no carriage returns.
//!
//! Whatever else a document holds, and whatever is wrong with it, is left to [`super::full`]: this reader never refuses a
//! document, and what it reads, the other reads to the same.

use memchr::{memchr, memchr2};

use super::reader::{DEPTH_MAX, Node};
use super::text::{Text, reference};

/// Bytes of a listing for each of its elements, about.
const ELEMENT_LEN: usize = 40;

/// The elements of the document in the order of their start tags, or `None` when it is not for this reader.
pub(super) fn read(document: &str, elements_max: usize) -> Option<Vec<Node<'_>>> {
    if memchr2(b'\0', b'\r', document.as_bytes()).is_some() {
        return None;
    }
    let nodes = Vec::with_capacity((document.len() / ELEMENT_LEN).min(elements_max));
    let scanner =
        Scanner { document, at: root_of(document)?, nodes, open: [0; DEPTH_MAX], depth: 0, elements_max };
    scanner.run()
}

/// Where the root begins: behind a declaration and white space.
fn root_of(document: &str) -> Option<usize> {
    let rest = match document.strip_prefix("<?xml ") {
        None => document,
        Some(declaration) => {
            let (declaration, rest) = declaration.split_at(memchr(b'?', declaration.as_bytes())?);
            if memchr2(b'<', b'>', declaration.as_bytes()).is_some() {
                return None;
            }
            rest.strip_prefix("?>")?
        }
    };
    Some(document.len() - rest.trim_start_matches(is_layout).len())
}

fn is_layout(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n')
}

struct Scanner<'a> {
    document: &'a str,
    /// Where the next tag or text begins.
    at: usize,
    nodes: Vec<Node<'a>>,
    /// Which nodes are open: the first `depth` of these.
    open: [usize; DEPTH_MAX],
    depth: usize,
    elements_max: usize,
}

impl<'a> Scanner<'a> {
    fn run(mut self) -> Option<Vec<Node<'a>>> {
        self.element()?;
        while let Some(innermost) = self.depth.checked_sub(1) {
            let text = self.text()?;
            if self.is_end_tag() {
                let end = self.nodes.len();
                let parent = self.nodes.get_mut(self.open[innermost])?;
                // What stood before the last child is layout, or nobody's.
                (parent.text, parent.end) = (text, end);
                let name = parent.name;
                self.end_tag(name)?;
                self.depth = innermost;
            } else {
                self.element()?;
            }
        }
        let is_all = self.document[self.at..].chars().all(is_layout);
        is_all.then_some(self.nodes)
    }

    /// A leaf as a whole, or the start tag of an element with children.
    fn element(&mut self) -> Option<()> {
        if self.depth == DEPTH_MAX || self.nodes.len() == self.elements_max {
            return None;
        }
        let (name, is_empty) = self.start_tag()?;
        let end = self.nodes.len() + 1;
        if is_empty {
            self.nodes.push(Node { name, text: Text::EMPTY, end });
            return Some(());
        }
        let text = self.text()?;
        if self.is_end_tag() {
            self.end_tag(name)?;
        } else {
            self.open[self.depth] = self.nodes.len();
            self.depth += 1;
        }
        self.nodes.push(Node { name, text, end });
        Some(())
    }

    /// The name in a start tag, and whether it is the tag of an empty element.
    fn start_tag(&mut self) -> Option<(&'a str, bool)> {
        let tag = self.document[self.at..].strip_prefix('<')?;
        let name_len = tag.bytes().position(|byte| !IS_OF_NAME[usize::from(byte)]).filter(|len| *len > 0)?;
        let (name, rest) = tag.split_at(name_len);
        let (rest_len, is_empty) = match rest.as_bytes() {
            [b'>', ..] => (1, false),
            [b'/', b'>', ..] => (2, true),
            [b' ' | b'\t' | b'\n', ..] => attributes(rest)?,
            _ => return None,
        };
        self.at += 1 + name_len + rest_len;
        Some((name, is_empty))
    }

    /// Whether the tag that comes is an end tag.
    fn is_end_tag(&self) -> bool {
        self.document.as_bytes().get(self.at + 1) == Some(&b'/')
    }

    fn end_tag(&mut self, name: &str) -> Option<()> {
        let rest = self.document.as_bytes()[self.at..].strip_prefix(b"</")?;
        let (found, rest) = rest.split_at_checked(name.len())?;
        self.at += 3 + name.len();
        (found == name.as_bytes() && rest.first() == Some(&b'>')).then_some(())
    }

    /// Text up to the next tag.
    fn text(&mut self) -> Option<Text<'a>> {
        let rest = &self.document[self.at..];
        if rest.starts_with('<') {
            return Some(Text::EMPTY);
        }
        let mut len = memchr2(b'<', b'&', rest.as_bytes())?;
        let is_plain = rest.as_bytes()[len] == b'<';
        while rest.as_bytes()[len] == b'&' {
            len += reference(&rest[len..])?.1;
            len += memchr2(b'<', b'&', &rest.as_bytes()[len..])?;
        }
        self.at += len;
        let text = &rest[..len];
        Some(if is_plain { Text::Plain(text) } else { Text::Referring(text) })
    }
}

/// Letters, digits and what else stands in the names of S3; no colon.
const IS_OF_NAME: [bool; 256] = {
    let mut is_of_name = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        is_of_name[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        byte += 1;
    }
    is_of_name
};

/// How long the rest of a tag with attributes is, and whether the element is empty. Nobody reads the attributes: only their
/// quotes matter, since a tag does not end within them.
fn attributes(rest: &str) -> Option<(usize, bool)> {
    let len = memchr(b'>', rest.as_bytes())?;
    let attributes = &rest[..len];
    let quotes = attributes.bytes().filter(|byte| *byte == b'"').count();
    let is_simple = quotes % 2 == 0 && memchr2(b'<', b'\'', attributes.as_bytes()).is_none();
    is_simple.then(|| (len + 1, attributes.ends_with('/')))
}
