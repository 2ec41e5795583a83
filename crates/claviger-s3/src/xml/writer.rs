//! The writer: elements and escaped text, nothing more.

use std::fmt::{Display, Write as _};

use bytes::Bytes;

use super::NAMESPACE;
use super::list::Owner;
use crate::checksum::ObjectChecksum;
use crate::operation::EncodingType;
use crate::timestamp::push_iso8601;
use crate::uri::encode_listing;

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

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
        let mut writer = Self { out: DECLARATION.to_owned(), encoding };
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
        match self.encoding {
            Some(EncodingType::Url) => self.text(element, &encode_listing(name)),
            None => self.text(element, name),
        }
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
    pub(super) fn common_prefixes(&mut self, prefixes: &[String]) {
        for prefix in prefixes {
            self.group("CommonPrefixes", |writer| writer.name("Prefix", prefix));
        }
    }

    /// `ChecksumCRC32` and the like.
    pub(super) fn checksum(&mut self, checksum: Option<&ObjectChecksum>) {
        if let Some(checksum) = checksum {
            self.text(checksum.value.algorithm().element_name(), &checksum.to_text());
        }
    }

    /// `Owner` or `Initiator`.
    pub(super) fn owner(&mut self, element: &str, owner: &Owner) {
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
    if text.bytes().all(is_plain) {
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
