//! Tags of objects: pairs of words that the store can read.

use crate::error::{ErrorCode, S3Error};
use crate::uri::{Slash, decode_query_component, encode};

/// Most tags of an object (S3 user guide, "Categorizing your objects using tags").
pub const TAGS_MAX: usize = 10;
/// Longest key of a tag, in characters.
pub const TAG_KEY_CHARS_MAX: usize = 128;
/// Longest value of a tag, in characters.
pub const TAG_VALUE_CHARS_MAX: usize = 256;

/// The tags of an object in the order in which they were given: at most ten, with keys of 1 to 128 characters, each only
/// once, and values of up to 256. Which characters are allowed is the store's to say; control characters never are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagSet(Vec<(String, String)>);

impl TagSet {
    /// Takes keys and values; `InvalidTag` where they break a rule.
    pub fn from_pairs(pairs: Vec<(String, String)>) -> Result<Self, S3Error> {
        let invalid = |text: &'static str| Err(S3Error::new(ErrorCode::InvalidTag).with_message(text));
        if pairs.len() > TAGS_MAX {
            return invalid("Object tags cannot be greater than 10");
        }
        for (at, (key, value)) in pairs.iter().enumerate() {
            if key.is_empty() || key.chars().count() > TAG_KEY_CHARS_MAX || key.chars().any(char::is_control)
            {
                return invalid("The TagKey you have provided is invalid");
            }
            if value.chars().count() > TAG_VALUE_CHARS_MAX || value.chars().any(char::is_control) {
                return invalid("The TagValue you have provided is invalid");
            }
            if pairs[..at].iter().any(|(other, _)| other == key) {
                return invalid("Cannot provide multiple Tags with the same key");
            }
        }
        Ok(Self(pairs))
    }

    /// Reads `x-amz-tagging`, which has the form of a query: `InvalidArgument` when it can't be decoded, `InvalidTag` as
    /// [`TagSet::from_pairs`].
    pub fn parse_header(text: &str) -> Result<Self, S3Error> {
        let decode = |part: &str| {
            decode_query_component(part).map_err(|_| {
                S3Error::new(ErrorCode::InvalidArgument).with_message(
                    "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters \
                     without tag name duplicates.",
                )
            })
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        Self::from_pairs(pairs.collect::<Result<_, S3Error>>()?)
    }

    /// The value of `x-amz-tagging` for the store.
    pub fn to_header(&self) -> String {
        let part = |text: &str| encode(text.as_bytes(), Slash::Encode);
        let pairs = self.0.iter().map(|(key, value)| format!("{}={}", part(key), part(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a store gave them: its own rules count, not S3's.
    pub(crate) fn of_store(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(count: usize) -> Vec<(String, String)> {
        (0..count).map(|n| (format!("k{n}"), String::new())).collect()
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let tags = TagSet::parse_header("a%20b=c%26d&e+f=&%C3%BC=x%3Dy&").unwrap();
        let expected = [("a b", "c&d"), ("e f", ""), ("ü", "x=y")];
        assert_eq!(tags.iter().collect::<Vec<_>>(), expected);
        assert_eq!(tags.to_header(), "a%20b=c%26d&e%20f=&%C3%BC=x%3Dy");
        assert_eq!(TagSet::parse_header(&tags.to_header()).unwrap(), tags);
        assert!(TagSet::parse_header("").unwrap().is_empty());
    }

    #[test]
    fn the_rules_of_s3_hold() {
        let one = |key: &str, value: &str| TagSet::from_pairs(vec![(key.to_owned(), value.to_owned())]);
        assert!(one(&"ü".repeat(128), &"v".repeat(256)).is_ok());
        assert!(TagSet::from_pairs(pairs(10)).is_ok());
        let mut twice = pairs(2);
        twice[1].0 = "k0".to_owned();
        for refused in [
            one("", "v"),
            one(&"k".repeat(129), "v"),
            one("k", &"v".repeat(257)),
            one("k\n", "v"),
            one("k", "\u{7f}"),
            TagSet::from_pairs(pairs(11)),
            TagSet::from_pairs(twice),
            TagSet::parse_header("a=1&a=2"),
        ] {
            assert_eq!(refused.unwrap_err().code(), ErrorCode::InvalidTag);
        }
        for text in ["a=%zz", "%ff=1"] {
            assert_eq!(TagSet::parse_header(text).unwrap_err().code(), ErrorCode::InvalidArgument, "{text}");
        }
    }
}
