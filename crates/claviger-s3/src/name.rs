//! Names of buckets and objects, checked once at the edge.

use std::fmt;

use crate::error::{ErrorCode, S3Error};

/// Longest object key that S3 takes, in bytes of UTF-8.
pub const KEY_LEN_MAX: usize = 1024;

/// A bucket name that follows S3's rules: 3 to 63 characters of `a-z`, `0-9`, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(String);

impl BucketName {
    /// Takes a decoded name and checks it; anything else is `InvalidBucketName`.
    ///
    /// The rules are those of the S3 user guide ("General purpose bucket naming rules"): letters and digits at both
    /// ends, no two dots in a row, not in the form of an IPv4 address.
    pub fn parse(name: &str) -> Result<Self, S3Error> {
        if is_valid_bucket_name(name) {
            return Ok(Self(name.to_owned()));
        }
        Err(S3Error::new(ErrorCode::InvalidBucketName).with_extra("BucketName", printable(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for BucketName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The exact UTF-8 of an object key after percent-decoding: 1 to 1,024 bytes, never normalised.
///
/// `//`, a leading `/`, `.` and `..` are ordinary characters here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Takes a decoded key; `KeyTooLongError` above 1,024 bytes, `InvalidArgument` when empty.
    pub fn parse(key: String) -> Result<Self, S3Error> {
        if key.is_empty() {
            return Err(
                S3Error::new(ErrorCode::InvalidArgument).with_message("An object key must not be empty.")
            );
        }
        if key.len() > KEY_LEN_MAX {
            return Err(S3Error::new(ErrorCode::KeyTooLongError)
                .with_extra("Size", key.len().to_string())
                .with_extra("MaxSizeAllowed", KEY_LEN_MAX.to_string()));
        }
        Ok(Self(key))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ObjectKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

fn is_valid_bucket_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        && edge(bytes.first())
        && edge(bytes.last())
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

/// A client's text shortened for an error document.
fn printable(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_the_rules_of_s3() {
        for good in ["abc", "my-bucket", "a.b.c", "0x0", &"a".repeat(63)] {
            assert!(BucketName::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "ab", "Abc", "a_b", "-abc", "abc-", "a..b", "192.168.0.1", ".abc", "a/b", &"a".repeat(64)]
        {
            let error = BucketName::parse(bad).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidBucketName, "{bad}");
        }
    }

    #[test]
    fn a_key_of_1024_bytes_is_the_longest() {
        assert!(ObjectKey::parse("k".repeat(1024)).is_ok());
        let error = ObjectKey::parse("k".repeat(1025)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::KeyTooLongError);
        assert_eq!(ObjectKey::parse(String::new()).unwrap_err().code(), ErrorCode::InvalidArgument);
    }

    #[test]
    fn a_key_is_kept_as_it_is() {
        for key in ["/a", "a//b", "../x", ".", "ü+%", " "] {
            assert_eq!(ObjectKey::parse(key.to_owned()).unwrap().as_str(), key);
        }
    }
}
