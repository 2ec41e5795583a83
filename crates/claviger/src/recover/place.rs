//! Where an object's content goes: a path that shows bucket and key, and never leads out of the folder.
//!
//! A key is cut at its slashes. Within a component, control characters, `%` and `\` are written as `%` and two hexadecimal
//! digits; `.` and `..` become `%2E` and `%2E%2E`, and nothing between two slashes becomes `%`. That can be undone, and no
//! two keys meet. What does not fit a file system (a long component, `a` beside `a/b`) goes to `%sha256/` and the SHA-256 of
//! its key in hexadecimal, which no other key is written as. The index knows each key as it is.
//!
//! Versions that another one took the place of lie in a tree of their own, `_versions`: the tree of a bucket is what a client saw
//! last, and can be uploaded as it is. There a file is `KEY~ID`. In the id everything but letters, digits, `.`, `_` and `-` is
//! written as `%` and two hexadecimal digits, so the last `~` is where the key ends, whatever `~` keys have. What does not fit
//! goes by the SHA-256 of both.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Longest component that common file systems take.
const COMPONENT_LEN_MAX: usize = 255;
/// Longest path below the folder; Linux takes 4,096 bytes for the whole.
const PATH_LEN_MAX: usize = 3_000;
/// Folder of what has no place under its own name.
const BY_HASH: &str = "%sha256";
/// Folder of older versions.
const VERSIONS: &str = "_versions";

/// The path that shows the key, if a file system can hold it.
pub(super) fn natural(bucket: &str, key: &str) -> Option<PathBuf> {
    below(PathBuf::from(bucket_folder(bucket)), key, "")
}

/// The path that shows the key and the id of an older version of it, if a file system can hold it.
pub(super) fn natural_version(bucket: &str, key: &str, id: &str) -> Option<PathBuf> {
    let mut suffix = String::from("~");
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            suffix.push(char::from(byte));
        } else {
            // Writing to a String has no way to fail.
            let _ = write!(suffix, "%{byte:02X}");
        }
    }
    below(Path::new(VERSIONS).join(bucket_folder(bucket)), key, &suffix)
}

fn below(mut path: PathBuf, key: &str, suffix: &str) -> Option<PathBuf> {
    let mut components = key.split('/').peekable();
    while let Some(component) = components.next() {
        let mut component = escape(component);
        if components.peek().is_none() {
            component.push_str(suffix);
        }
        if component.len() > COMPONENT_LEN_MAX {
            return None;
        }
        path.push(component);
    }
    (path.as_os_str().len() <= PATH_LEN_MAX).then_some(path)
}

/// The path for a key that has none of its own.
pub(super) fn by_hash(bucket: &str, key: &str) -> PathBuf {
    [&bucket_folder(bucket), BY_HASH, &sha256(key)].iter().collect()
}

/// The path for an older version that has none of its own.
pub(super) fn version_by_hash(bucket: &str, key: &str, id: &str) -> PathBuf {
    let name = format!("{}~{}", sha256(key), sha256(id));
    [VERSIONS, &bucket_folder(bucket), BY_HASH, &name].iter().collect()
}

fn sha256(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a String has no way to fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Names that begin with `_` are this program's own, and no bucket's.
fn bucket_folder(bucket: &str) -> String {
    let folder = escape(bucket).replace('/', "%2F");
    match folder.strip_prefix('_') {
        Some(rest) => format!("%5F{rest}"),
        None => folder,
    }
}

fn escape(component: &str) -> String {
    match component {
        "" => return "%".to_owned(),
        "." => return "%2E".to_owned(),
        ".." => return "%2E%2E".to_owned(),
        _ => {}
    }
    let mut escaped = String::with_capacity(component.len());
    for character in component.chars() {
        if character.is_ascii_control() || matches!(character, '%' | '\\') {
            // Writing to a String has no way to fail.
            let _ = write!(escaped, "%{:02X}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Makes the folders above `path`, which counts from `root`, for their owner alone. Nothing outside of `root` is touched: what
/// is no plain folder, a symbolic link above all, is an error.
///
/// # Errors
/// [`ErrorKind::NotADirectory`] when something else has the name of a folder; the file system's.
pub(super) fn make_parents(root: &Path, path: &Path) -> io::Result<()> {
    let mut folder = root.to_path_buf();
    for component in path.parent().into_iter().flat_map(Path::components) {
        folder.push(component);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&folder)?.is_dir() {
                    return Err(ErrorKind::NotADirectory.into());
                }
            }
            made => made?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Component;

    use super::*;

    const NASTY: &[&str] = &[
        "a",
        "a/b",
        "../x",
        "..",
        ".",
        "./a",
        "a/../../b",
        "/",
        "//",
        "/a",
        "a/",
        "a//b",
        "a/./b",
        "%",
        "%2E",
        "%2E%2E",
        "%25",
        "a\0b",
        "a%00b",
        "a\nb",
        "a\\b",
        "..\\x",
        "ü/日本/🔑",
        "%sha256/x",
        "_index.jsonl",
        " ",
        "a\u{7f}",
    ];

    #[test]
    fn no_key_leads_out_of_its_bucket() {
        for key in NASTY {
            let path = natural("bkt", key).unwrap();
            assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{key:?}: {path:?}");
            assert!(path.starts_with("bkt") && path.components().count() > 1, "{key:?}: {path:?}");
            assert_eq!(path.components().count(), key.split('/').count() + 1, "{key:?}: {path:?}");
        }
    }

    #[test]
    fn no_two_keys_have_one_path() {
        let paths: HashSet<PathBuf> = NASTY.iter().map(|key| natural("bkt", key).unwrap()).collect();
        let hashes: HashSet<PathBuf> = NASTY.iter().map(|key| by_hash("bkt", key)).collect();
        assert_eq!(paths.len(), NASTY.len());
        assert_eq!(hashes.len(), NASTY.len());
        assert!(paths.is_disjoint(&hashes));
    }

    #[test]
    fn a_key_that_no_file_system_holds_goes_by_its_hash() {
        assert_eq!(natural("bkt", &"k".repeat(256)), None);
        assert!(natural("bkt", &"k".repeat(255)).is_some());
        assert_eq!(natural("bkt", &format!("{}x", "\u{1}/".repeat(1_000))), None, "3,000 bytes and more");
        let path = by_hash("bkt", &"k".repeat(1024));
        assert!(path.starts_with("bkt/%sha256"));
        assert_eq!(path.file_name().unwrap().len(), 64);
    }

    #[test]
    fn no_two_versions_have_one_path_and_none_leads_out_of_their_tree() {
        let ids =
            ["null", "v1", "v2", "v1~v2", "..", ".", "/", "../x", "%2F", "a%2Fb", "a/b", "3sL4+kq/J", "V1"];
        let keys = NASTY.iter().copied().chain(["a~v1", "a~v1~v2", "a~", "~", "a/~v1", "a~v1/b"]);
        let mut paths = HashSet::new();
        for key in keys {
            for id in ids {
                let path = natural_version("bkt", key, id).unwrap();
                assert!(
                    path.components().all(|part| matches!(part, Component::Normal(_))),
                    "{key:?} {id}: {path:?}"
                );
                assert!(path.starts_with("_versions/bkt"), "{key:?} {id}: {path:?}");
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(!name.rsplit_once('~').unwrap().1.contains('/'));
                assert!(paths.insert(path), "{key:?} {id} has the path of another");
                assert!(
                    paths.insert(version_by_hash("bkt", key, id)),
                    "{key:?} {id} has the hash of another"
                );
            }
        }
        assert_eq!(
            natural_version("bkt", "2026/a.pdf", "x/1").unwrap(),
            Path::new("_versions/bkt/2026/a.pdf~x%2F1")
        );
        assert_eq!(natural_version("bkt", "k", &"v".repeat(1024)), None);
        assert!(
            version_by_hash("bkt", "k", &"v".repeat(1024)).file_name().unwrap().len() < COMPONENT_LEN_MAX
        );
    }

    #[test]
    fn a_bucket_never_has_the_name_of_a_file_of_our_own() {
        assert_eq!(natural("_index.jsonl", "a").unwrap(), Path::new("%5Findex.jsonl/a"));
        assert_eq!(natural("..", "a").unwrap(), Path::new("%2E%2E/a"));
        assert_eq!(natural("a/b", "c").unwrap(), Path::new("a%2Fb/c"));
    }

    #[test]
    fn a_symbolic_link_is_no_folder_to_write_into() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("bkt")).unwrap();
        let error = make_parents(root.path(), Path::new("bkt/a/b")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADirectory);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        make_parents(root.path(), Path::new("other/a/b")).unwrap();
        assert!(root.path().join("other/a").is_dir() && !root.path().join("other/a/b").exists());
    }
}
