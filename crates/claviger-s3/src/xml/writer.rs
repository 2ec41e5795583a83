//! The writer: elements and escaped text, nothing more.

use std::fmt::{Display, Write as _};

use bytes::Bytes;

use super::NAMESPACE;
use super::list::Owner;
use crate::checksum::ObjectChecksum;
use crate::operation::EncodingType;
use crate::timestamp::push_iso8601;
use crate::uri::push_encoded_listing;

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Room for the declaration and the tags of the root.
const FRAME_LEN: usize = 256;

/// Builds one document.
pub(super) struct XmlWriter {
    out: String,
    encoding: Option<EncodingType>,
}

impl XmlWriter {
    /// Writes one document with S3's namespace; names given to [`Self::name`] follow `encoding`.
    pub(super) fn document(
        root: &'static str,
        encoding: Option<EncodingType>,
        body: impl FnOnce(&mut Self),
    ) -> Bytes {
        Self::document_of(root, encoding, 0, body)
    }

    /// As [`Self::document`], for one that is likely to have `body_len` bytes in its root.
    pub(super) fn document_of(
        root: &'static str,
        encoding: Option<EncodingType>,
        body_len: usize,
        body: impl FnOnce(&mut Self),
    ) -> Bytes {
        let mut out = String::with_capacity(FRAME_LEN + body_len);
        out.push_str(DECLARATION);
        let mut writer = Self { out, encoding };
        writer.push(format_args!("<{root} xmlns=\"{NAMESPACE}\">"));
        body(&mut writer);
        writer.push(format_args!("</{root}>"));
        writer.out.into()
    }

    /// Writes one document without a namespace, as `Error` has none.
    pub(super) fn plain_document(root: &'static str, body: impl FnOnce(&mut Self)) -> Bytes {
        let mut writer = Self { out: DECLARATION.to_owned(), encoding: None };
        writer.group(root, body);
        writer.out.into()
    }

    /// `<element>…</element>` around what `body` writes.
    pub(super) fn group(&mut self, element: &str, body: impl FnOnce(&mut Self)) {
        self.open(element);
        body(self);
        self.close(element);
    }

    /// `<element>text</element>`
    pub(super) fn text(&mut self, element: &str, text: &str) {
        self.group(element, |writer| escape(&mut writer.out, text));
    }

    /// As [`Self::text`], if there is a value.
    pub(super) fn optional(&mut self, element: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(element, text);
        }
    }

    /// A time, as S3 writes it.
    pub(super) fn time(&mut self, element: &str, ms: u64) {
        self.group(element, |writer| push_iso8601(&mut writer.out, ms));
    }

    /// A number or a boolean.
    pub(super) fn value(&mut self, element: &str, value: impl Display) {
        self.open(element);
        self.push(format_args!("{value}"));
        self.close(element);
    }

    /// A key, prefix, marker or delimiter: encoded if the client asked for it.
    pub(super) fn name(&mut self, element: &str, name: &str) {
        self.group(element, |writer| writer.bare_name(name));
    }

    /// Tags as they are. What is there a thousand times in a document is written with as few pieces as possible.
    #[inline]
    pub(super) fn tags(&mut self, tags: &'static str) {
        self.out.push_str(tags);
    }

    /// As [`Self::name`], between tags that are already there.
    pub(super) fn bare_name(&mut self, name: &str) {
        match self.encoding {
            // Nothing in an encoded name means anything in XML.
            Some(EncodingType::Url) => push_encoded_listing(&mut self.out, name),
            None => escape(&mut self.out, name),
        }
    }

    /// As [`Self::text`], between tags that are already there.
    pub(super) fn bare_text(&mut self, text: &str) {
        escape(&mut self.out, text);
    }

    /// As [`Self::time`], between tags that are already there.
    pub(super) fn bare_time(&mut self, ms: u64) {
        push_iso8601(&mut self.out, ms);
    }

    /// A number, between tags that are already there.
    pub(super) fn bare_number(&mut self, number: u64) {
        const DIGITS_MAX: usize = 20;
        let mut digits = [b'0'; DIGITS_MAX];
        let (mut rest, mut first) = (number, DIGITS_MAX);
        while rest > 0 || first == DIGITS_MAX {
            first -= 1;
            digits[first] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        self.out.push_str(std::str::from_utf8(&digits[first..]).unwrap_or_default());
    }

    /// As [`Self::name`], if there is one.
    pub(super) fn optional_name(&mut self, element: &str, name: Option<&str>) {
        if let Some(name) = name {
            self.name(element, name);
        }
    }

    /// `EncodingType`, if the client asked for one.
    pub(super) fn encoding_type(&mut self) {
        if self.encoding.is_some() {
            self.text("EncodingType", "url");
        }
    }

    /// An entity tag in quotes.
    pub(super) fn etag(&mut self, etag: &str) {
        self.group("ETag", |writer| {
            writer.out.push_str("&quot;");
            escape(&mut writer.out, etag);
            writer.out.push_str("&quot;");
        });
    }

    /// `<Prefix>` entries under `CommonPrefixes`.
    pub(super) fn common_prefixes(&mut self, prefixes: &[impl AsRef<str>]) {
        for prefix in prefixes {
            self.group("CommonPrefixes", |writer| writer.name("Prefix", prefix.as_ref()));
        }
    }

    /// `ChecksumCRC32` and the like.
    pub(super) fn checksum(&mut self, checksum: Option<&ObjectChecksum>) {
        if let Some(checksum) = checksum {
            self.text(checksum.value.algorithm().element_name(), &checksum.to_text());
        }
    }

    /// `Owner` or `Initiator`.
    pub(super) fn owner(&mut self, element: &str, owner: &Owner<'_>) {
        self.group(element, |writer| {
            writer.text("ID", &owner.id);
            writer.optional("DisplayName", owner.display_name.as_deref());
        });
    }

    fn open(&mut self, element: &str) {
        self.out.push('<');
        self.out.push_str(element);
        self.out.push('>');
    }

    fn close(&mut self, element: &str) {
        self.out.push_str("</");
        self.out.push_str(element);
        self.out.push('>');
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.out.write_fmt(arguments).expect("writing to a String does not fail");
    }
}

/// Printable ASCII that means nothing in XML: most of all text.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'&' | b'<' | b'>' | b'"')
}

/// Escapes text. Characters that XML 1.0 does not allow become character references, as S3 sends them; so do carriage
/// returns, which a parser would turn into line feeds.
fn escape(out: &mut String, text: &str) {
    // Looking at all bytes takes less time than finding the first that is not plain: 16 or more are compared at once.
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        return out.push_str(text);
    }
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(character),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {
                write!(out, "&#x{:x};", u32::from(character)).expect("writing to a String does not fail");
            }
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_written_as_everybody_writes_it(number in any::<u64>(), bits in 0_u32..64) {
            let number = number >> bits;
            let mut writer = XmlWriter { out: String::new(), encoding: None };
            writer.bare_number(number);
            prop_assert_eq!(writer.out, number.to_string());
        }

        #[test]
        fn what_is_escaped_reads_as_it_was(text in "[a-c&<>\"'\u{1}\r\n\t\u{80}é\u{fffe}]{0,40}") {
            let mut out = String::new();
            escape(&mut out, &text);
            let document = format!("<r>{out}</r>");
            let limits = super::super::reader::Limits::UPSTREAM;
            let document = super::super::reader::Document::parse(document.as_bytes(), "r", limits).unwrap();
            prop_assert_eq!(document.root().text(), text);
        }
    }

    #[test]
    fn the_least_and_the_largest_number_are_written_in_full() {
        let mut writer = XmlWriter { out: String::new(), encoding: None };
        writer.bare_number(0);
        writer.bare_number(u64::MAX);
        assert_eq!(writer.out, format!("0{}", u64::MAX));
    }
}
