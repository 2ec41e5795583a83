//! Content headers and user metadata: what an object carries besides its bytes.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The content headers that are stored with an object (sealed), each as the client wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemHeaders {
    /// `Content-Type`
    pub content_type: Option<String>,
    /// `Cache-Control`
    pub cache_control: Option<String>,
    /// `Content-Disposition`
    pub content_disposition: Option<String>,
    /// `Content-Encoding`, `aws-chunked` taken out
    pub content_encoding: Option<String>,
    /// `Content-Language`
    pub content_language: Option<String>,
    /// `Expires`
    pub expires: Option<String>,
}

impl SystemHeaders {
    /// The headers that are set, as (lower-case name, value), in the order of the fields.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("content-type", &self.content_type),
            ("cache-control", &self.cache_control),
            ("content-disposition", &self.content_disposition),
            ("content-encoding", &self.content_encoding),
            ("content-language", &self.content_language),
            ("expires", &self.expires),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// The place of a header by its lower-case name; `None` for other headers.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "content-type" => &mut self.content_type,
            "cache-control" => &mut self.cache_control,
            "content-disposition" => &mut self.content_disposition,
            "content-encoding" => &mut self.content_encoding,
            "content-language" => &mut self.content_language,
            "expires" => &mut self.expires,
            _ => return None,
        })
    }
}

/// User metadata: names without `x-amz-meta-` in lower case, values as UTF-8, sorted by name. A name that was sent
/// more than once has its values joined by commas, as S3 does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserMetadata(Vec<(String, String)>);

impl UserMetadata {
    /// Collects pairs; names are lower-cased, doubles joined.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut sorted: Vec<(String, String)> = Vec::new();
        for (name, value) in pairs {
            let name = name.to_ascii_lowercase();
            match sorted.binary_search_by(|(other, _)| other.as_str().cmp(&name)) {
                Ok(at) => {
                    sorted[at].1.push(',');
                    sorted[at].1.push_str(&value);
                }
                Err(at) => sorted.insert(at, (name, value)),
            }
        }
        Self(sorted)
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and values: what S3 counts against its 2 KB.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// A metadata value as a response header: printable ASCII as it is, anything else as an RFC 2047 encoded word
/// (`=?UTF-8?B?…?=`), the way S3 returns it.
pub fn encode_metadata_value(value: &str) -> String {
    if value.bytes().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e)) {
        return value.to_owned();
    }
    let mut out = String::from("=?UTF-8?B?");
    out.push_str(&BASE64.encode(value));
    out.push_str("?=");
    out
}

/// `Content-Encoding` without `aws-chunked`: `None` when nothing remains.
pub fn content_encoding_without_aws_chunked(value: &str) -> Option<String> {
    let mut out = String::new();
    for coding in value.split(',').map(str::trim) {
        if coding.is_empty() || coding.eq_ignore_ascii_case("aws-chunked") {
            continue;
        }
        let comma = if out.is_empty() { "" } else { "," };
        write!(out, "{comma}{coding}").expect("writing to a String does not fail");
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_chunked_never_stays_in_the_content_encoding() {
        let cases = [
            ("aws-chunked", None),
            ("aws-chunked,gzip", Some("gzip")),
            ("gzip, AWS-Chunked", Some("gzip")),
            ("gzip, br", Some("gzip,br")),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(content_encoding_without_aws_chunked(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn metadata_names_are_lower_case_sorted_and_joined() {
        let pairs = [("B", "1"), ("a", "2"), ("b", "3")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let metadata = UserMetadata::from_pairs(pairs);
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "1,3")]);
        assert_eq!(metadata.size(), 6);
    }

    #[test]
    fn values_beyond_ascii_travel_as_encoded_words() {
        assert_eq!(encode_metadata_value("plain text"), "plain text");
        let word = encode_metadata_value("naïve\n");
        assert_eq!(word, "=?UTF-8?B?bmHDr3ZlCg==?=");
    }
}
