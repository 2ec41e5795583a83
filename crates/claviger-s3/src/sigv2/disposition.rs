//! A `Content-Disposition` whose end can be told from itself (RFC 6266 §4.1).

/// Whether this is a whole disposition that no cut through a longer one gives: a type, and parameters each of which shows where it
/// ends. A name of a file is in quotes, or percent-encoded after RFC 8187; a bare one could go on behind any character.
pub(super) fn is_complete(value: &str) -> bool {
    let Some(mut rest) = token(value) else { return false };
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return true;
        }
        let Some(behind) = rest.strip_prefix(';').and_then(parameter) else { return false };
        rest = behind;
    }
}

/// What follows one parameter.
fn parameter(text: &str) -> Option<&str> {
    let text = text.trim_start_matches([' ', '\t']);
    let behind_name = token(text)?;
    let name = &text[..text.len() - behind_name.len()];
    let value =
        behind_name.trim_start_matches([' ', '\t']).strip_prefix('=')?.trim_start_matches([' ', '\t']);
    if let Some(quoted) = value.strip_prefix('"') {
        return behind_quote(quoted);
    }
    if name.eq_ignore_ascii_case("filename") {
        return None;
    }
    token(value)
}

/// What follows the end of a quoted string.
fn behind_quote(text: &str) -> Option<&str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()?),
            '"' => return Some(&text[at + 1..]),
            _ => {}
        }
    }
    None
}

/// What follows a token, without `&`, which may stand in tokens and which this is all about. Extended values (`UTF-8''a%26b`) have
/// these characters, too.
fn token(text: &str) -> Option<&str> {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || "!#$%'*+-.^_`|~".contains(c);
    let behind = text.trim_start_matches(is_inside);
    (behind.len() < text.len()).then_some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_shows_its_own_end_is_complete() {
        for whole in [
            "inline",
            "attachment; filename=\"a & b\"",
            "attachment;filename=\"a\\\"b\" ; x=1",
            "attachment; filename*=UTF-8''a%26b",
            "attachment; filename=\"\"; filename*=UTF-8'en'x",
        ] {
            assert!(is_complete(whole), "{whole}");
        }
        for cut in [
            "",
            "; filename=\"a\"",
            "inline; filename=a",
            "inline; FileName = a",
            "inline; filename=x;y",
            "inline; filename=a\"\"",
            "inline; filename=a*=",
            "inline; filename=\"a\\\"",
            "inline; filename=\"a",
            "inline; filename=\"a\"b",
            "inline; filename*=UTF-8''a&b",
            "inline;",
            "inline; y",
            "inline a",
        ] {
            assert!(!is_complete(cut), "{cut}");
        }
    }
}
