//! Object keys as paths.
//!
//! Every S3 key (any UTF-8 string of 1 to 1,024 bytes) has one place of its own under a bucket's `objects` folder, and
//! the key can be read back from the place:
//!
//! ```text
//! key component      [A-Za-z0-9._-] as it is, every other byte as %XX
//! empty component    %          (`a//b` is `a/%/b`, a key that ends in `/` ends in `%`)
//! `.` and `..`       %2E and %2E%2E
//! longer than 180    cut in pieces; all but the last are folders that end in `@more`
//! an object `k`      two files in the same folder: `k@meta.json` and `k@<generation>` (the bytes)
//! ```
//!
//! An escaped component holds no `@`, so the files of the object `a` never meet the folder of `a/b`.

use std::path::{Path, PathBuf};

/// Bytes of one file name before it is cut; file systems allow 255, the suffixes take up to 24.
const PIECE_LEN_MAX: usize = 180;
/// Ends the name of a folder that holds the rest of a component that was too long.
const MORE: &str = "@more";
/// Ends the name of an object's sidecar.
pub(crate) const META_SUFFIX: &str = "@meta.json";

/// The folder and the file-name stem of `key`, relative to the bucket's `objects` folder.
pub(crate) fn place_of(key: &str) -> (PathBuf, String) {
    let mut folder = PathBuf::new();
    let mut components = key.split('/').peekable();
    loop {
        let escaped = escape(components.next().unwrap_or_default());
        let mut rest = escaped.as_str();
        while rest.len() > PIECE_LEN_MAX {
            // At least three bytes remain, so that no tail is `.` or `..`.
            let (piece, tail) = rest.split_at(PIECE_LEN_MAX.min(rest.len() - 3));
            folder.push(format!("{piece}{MORE}"));
            rest = tail;
        }
        if components.peek().is_none() {
            return (folder, rest.to_owned());
        }
        folder.push(rest);
    }
}

/// The key whose sidecar lies at `path` (relative to the bucket's `objects` folder); `None` if no key does.
pub(crate) fn key_of(path: &Path) -> Option<String> {
    let mut key = Vec::new();
    let mut pieces = path.components().peekable();
    let mut component = String::new();
    while let Some(piece) = pieces.next() {
        let name = piece.as_os_str().to_str()?;
        if let (Some(head), true) = (name.strip_suffix(MORE), pieces.peek().is_some()) {
            component.push_str(head);
            continue;
        }
        let last = pieces.peek().is_none();
        component.push_str(if last { name.strip_suffix(META_SUFFIX)? } else { name });
        unescape(&component, &mut key)?;
        component.clear();
        if !last {
            key.push(b'/');
        }
    }
    let key = String::from_utf8(key).ok()?;
    let (folder, stem) = place_of(&key);
    (folder.join(format!("{stem}{META_SUFFIX}")) == path).then_some(key)
}

fn escape(component: &str) -> String {
    match component {
        "" => return "%".to_owned(),
        "." => return "%2E".to_owned(),
        ".." => return "%2E%2E".to_owned(),
        _ => {}
    }
    let mut escaped = String::with_capacity(component.len());
    for byte in component.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn unescape(escaped: &str, key: &mut Vec<u8>) -> Option<()> {
    if escaped == "%" {
        return Some(());
    }
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            key.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        key.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sidecar_of(key: &str) -> PathBuf {
        let (folder, stem) = place_of(key);
        folder.join(format!("{stem}{META_SUFFIX}"))
    }

    #[test]
    fn hostile_keys_stay_inside_and_apart() {
        let keys = [
            "a",
            "a/b",
            "a/",
            "a//b",
            "/a",
            "//",
            ".",
            "..",
            "../a",
            "a/../b",
            "a@meta.json",
            "a@more/b",
            "%",
            "%2E",
            "\0",
            "ü",
        ];
        let mut places: Vec<_> = keys.iter().map(|key| sidecar_of(key)).collect();
        for (key, place) in keys.iter().zip(&places) {
            assert!(
                place.components().all(|c| matches!(c, std::path::Component::Normal(_))),
                "{key} gives {place:?}"
            );
            assert_eq!(key_of(place).as_deref(), Some(*key));
        }
        places.sort();
        places.dedup();
        assert_eq!(places.len(), keys.len());
    }

    #[test]
    fn the_longest_keys_have_short_file_names() {
        for key in [
            format!("{}../b", "a".repeat(180)),
            format!("{}./b", "a".repeat(180)),
            "a".repeat(1024),
            "ü".repeat(512),
            "/".repeat(1024),
            format!("{}/b", "%".repeat(1022)),
        ] {
            let place = sidecar_of(&key);
            assert!(place.components().all(|c| matches!(c, std::path::Component::Normal(_))));
            assert!(place.components().all(|c| c.as_os_str().len() + 24 < 255));
            assert!(place.as_os_str().len() < 3_200);
            assert_eq!(key_of(&place), Some(key));
        }
    }

    #[test]
    fn a_place_that_no_key_has_is_no_key() {
        for place in ["a", "%61@meta.json", "%zz@meta.json", "%2e@meta.json", "a@more/b@meta.json", "b@1-2"] {
            assert_eq!(key_of(Path::new(place)), None, "{place}");
        }
    }

    proptest! {
        #[test]
        fn every_key_is_read_back_from_its_place(key in "[\\PC/.@%]{1,300}") {
            prop_assert_eq!(key_of(&sidecar_of(&key)), Some(key));
        }
    }
}
