//! The text of an element, and what references in it stand for.

use std::borrow::Cow;

/// The text of an element. It stays where it is in the document; references in it are only expanded when somebody asks for it.
#[derive(Debug, Clone)]
pub(super) enum Text<'a> {
    /// As it stands in the document.
    Plain(&'a str),
    /// As it stands in the document, with references: only such as [`reference()`] knows.
    Referring(&'a str),
    /// Put together from several pieces of the document.
    Joined(String),
}

impl<'a> Text<'a> {
    pub(super) const EMPTY: Self = Self::Plain("");

    /// What the document says.
    pub(super) fn value(&self) -> Cow<'a, str> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            Self::Referring(text) => Cow::Owned(expand(text)),
            Self::Joined(text) => Cow::Owned(text.clone()),
        }
    }

    /// [`Self::value`] without white space around it and without a pair of quotes: an entity tag. Nearly all stores write the
    /// quotes as references, so these are taken off before the others are expanded.
    pub(super) fn unquoted(&self) -> Cow<'a, str> {
        if let Self::Referring(text) = self
            && let Some(bare) = between_quotes(text.trim()).filter(|bare| !bare.contains('&'))
        {
            return Cow::Borrowed(bare);
        }
        match self.value() {
            Cow::Borrowed(text) => Cow::Borrowed(without_quotes(text)),
            Cow::Owned(text) => Cow::Owned(without_quotes(&text).to_owned()),
        }
    }
}

fn between_quotes(text: &str) -> Option<&str> {
    let quoted = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    quoted("&quot;").or_else(|| quoted("&#34;"))
}

fn without_quotes(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// The reference at the beginning of `text`, which begins with `&`: what it stands for, and how long it is. `None` for
/// anything but the five entities of XML and character references (XML 1.0 §4.1), and for character references that no
/// writer needs: more than seven digits, or none of a character.
pub(super) fn reference(text: &str) -> Option<(char, usize)> {
    const LEN_MAX: usize = "&#x10ffff;".len();
    const QUOTE: &str = "&quot;";
    // Two in each entry of a listing, and hardly any other.
    if text.starts_with(QUOTE) {
        return Some(('"', QUOTE.len()));
    }
    let len = text.bytes().take(LEN_MAX).position(|byte| byte == b';')? + 1;
    let character = match text.get(1..len - 1)? {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        name => numbered(name.strip_prefix('#')?)?,
    };
    Some((character, len))
}

fn numbered(number: &str) -> Option<char> {
    let (digits, radix) = match number.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let code = u32::from_str_radix(digits, radix).ok().filter(|code| *code > 0)?;
    char::from_u32(code)
}

/// Expands the references in a text that has no others than [`reference()`] knows; any other would stay as it is.
fn expand(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (character, len) = reference(from).unwrap_or(('&', 1));
        out.push(character);
        rest = &from[len..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_one_of_xml_or_of_a_character() {
        for (text, character) in [
            ("&amp;", '&'),
            ("&apos;x", '\''),
            ("&#34;", '"'),
            ("&#x10ffff;", '\u{10ffff}'),
            ("&#x1;", '\u{1}'),
        ] {
            let (found, len) = reference(text).unwrap();
            assert_eq!((found, &text[len - 1..len]), (character, ";"), "{text}");
        }
        for text in
            ["&", "&;", "&#;", "&#x;", "&nbsp;", "&amp", "&#+1;", "&#0;", "&#xd800;", "&#x110000;", "&é;"]
        {
            assert_eq!(reference(text), None, "{text}");
        }
    }

    #[test]
    fn references_are_expanded_once() {
        assert_eq!(Text::Referring("a&amp;lt;b&#38;#60;").value(), "a&lt;b&#60;");
    }

    #[test]
    fn an_entity_tag_has_one_pair_of_quotes_or_none() {
        for (text, etag) in [
            (Text::Referring("&quot;abc&quot;"), "abc"),
            (Text::Referring(" &#34;abc&#34;\n"), "abc"),
            (Text::Referring("&quot;abc&#34;"), "abc"),
            (Text::Referring("&quot;a&amp;c&quot;"), "a&c"),
            (Text::Referring("&quot;&quot;abc&quot;&quot;"), "\"abc\""),
            (Text::Referring("&quot;"), "\""),
            (Text::Plain(" \"abc\" "), "abc"),
            (Text::Plain("abc\""), "abc\""),
            (Text::Joined("\"abc\"".to_owned()), "abc"),
        ] {
            assert_eq!(text.unquoted(), etag, "{text:?}");
        }
        assert!(matches!(Text::Referring("&quot;abc&quot;").unquoted(), Cow::Borrowed(_)));
    }
}
