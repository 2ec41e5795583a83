//! Entity tags: quoted on the wire, bare inside.

use std::fmt;

/// The opaque text of an entity tag, without quotes. S3's tags are strong; a `W/` mark is dropped when read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ETag(String);

impl ETag {
    /// Reads `"abc"`, `W/"abc"` or, as S3 clients also send it, bare `abc`. `None` when the text is empty or holds a
    /// quote, a control character or a non-ASCII character.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("W/").unwrap_or(text);
        let bare = match text.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"')?,
            None => text,
        };
        let printable = bare.bytes().all(|b| matches!(b, 0x21..=0x7e) && b != b'"');
        (!bare.is_empty() && printable).then(|| Self(bare.to_owned()))
    }

    /// The text without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text in double quotes, as headers and XML carry it.
    pub fn quoted(&self) -> String {
        ["\"", self.as_str(), "\""].concat()
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_weak_and_bare_tags_mean_the_same() {
        for text in ["\"abc-1\"", "abc-1", "W/\"abc-1\"", " \"abc-1\" "] {
            let tag = ETag::parse(text).unwrap();
            assert_eq!((tag.as_str(), tag.quoted().as_str()), ("abc-1", "\"abc-1\""));
        }
    }

    #[test]
    fn broken_tags_are_refused() {
        for text in ["", "\"", "\"\"", "\"a", "a\"b", "a b", "é", "a\r\nb"] {
            assert_eq!(ETag::parse(text), None, "{text:?}");
        }
    }
}
