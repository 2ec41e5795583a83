//! The canonical request: one canonicaliser for what clients signed and for what is signed for the store.
//!
//! ```text
//! METHOD \n path \n query \n (name:value \n)* \n names \n payload hash
//! ```

use std::borrow::Cow;

use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};

use super::hex;
use crate::uri::{Slash, encode, is_unreserved};

/// The algorithm of both directions.
pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// How the canonical path and query come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Decoded and encoded again, as the documentation has it.
    Encoded,
    /// As they came. Some clients (curl) sign what they send without encoding it anew. Accepting this form too is
    /// safe: the signature then covers the very bytes that are acted on, and [`encode`] never yields a form that
    /// decodes to anything but its own input.
    Raw,
}

/// What is canonicalised. `host` stands for the `Host` header, which HTTP/2 does not have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canonical<'a> {
    pub(super) method: &'a Method,
    pub(super) raw_path: &'a str,
    pub(super) raw_query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) host: &'a str,
    /// `SignedHeaders`: lower-case names with `;` between them.
    pub(super) signed_headers: &'a str,
    pub(super) payload_hash: &'a str,
}

impl Canonical<'_> {
    /// The canonical request.
    pub(super) fn request(&self, form: Form) -> Vec<u8> {
        let (path, query) = match form {
            Form::Encoded => (encoded_path(self.raw_path), encoded_query(self.raw_query)),
            Form::Raw => (Cow::Borrowed(self.raw_path), raw_query(self.raw_query)),
        };
        let mut out = Vec::with_capacity(1024);
        for line in [self.method.as_str(), &path, &query] {
            push_line(&mut out, line.as_bytes());
        }
        for name in self.signed_headers.split(';') {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            self.push_values(&mut out, name);
            out.push(b'\n');
        }
        out.push(b'\n');
        push_line(&mut out, self.signed_headers.as_bytes());
        out.extend_from_slice(self.payload_hash.as_bytes());
        out
    }

    fn push_values(&self, out: &mut Vec<u8>, name: &str) {
        if name == "host" {
            return push_trimmed(out, self.host.as_bytes());
        }
        for (index, value) in self.headers.get_all(name).iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_trimmed(out, value.as_bytes());
        }
    }
}

/// The string to sign for a canonical request.
pub(super) fn string_to_sign(timestamp: &str, scope: &str, canonical_request: &[u8]) -> String {
    let digest = hex(&Sha256::digest(canonical_request));
    [ALGORITHM, "\n", timestamp, "\n", scope, "\n", &digest].concat()
}

fn encoded_path(raw: &str) -> Cow<'_, str> {
    // Most keys have nothing to decode or encode.
    if raw.bytes().all(|byte| is_unreserved(byte) || byte == b'/') {
        return Cow::Borrowed(raw);
    }
    let decoded: Vec<u8> = percent_decode_str(raw).collect();
    encode(&decoded, Slash::Keep).into()
}

fn encoded_query(raw: &str) -> String {
    if raw.is_empty() {
        return String::new();
    }
    let pairs = query_pairs(raw).map(|(name, value)| {
        let encoded = |text: &str| {
            let decoded: Vec<u8> = percent_decode_str(&text.replace('+', " ")).collect();
            encode(&decoded, Slash::Encode)
        };
        (encoded(name), encoded(value))
    });
    sorted_query(pairs.collect())
}

fn raw_query(raw: &str) -> String {
    sorted_query(query_pairs(raw).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// The pairs of a query without the signature itself.
fn query_pairs(raw: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = raw.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| *name != "X-Amz-Signature")
}

fn sorted_query(mut pairs: Vec<(String, String)>) -> String {
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn push_line(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// A header value without white space at its ends and with runs of spaces made one.
fn push_trimmed(out: &mut Vec<u8>, value: &[u8]) {
    let value = value.trim_ascii();
    if !value.contains(&b' ') {
        return out.extend_from_slice(value);
    }
    let mut last_was_space = false;
    for &byte in value {
        let is_space = byte == b' ';
        if !(is_space && last_was_space) {
            out.push(byte);
        }
        last_was_space = is_space;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_once_and_slashes_stay() {
        assert_eq!(encoded_path("/b/a%20b+c//%c3%bc/../!"), "/b/a%20b%2Bc//%C3%BC/../%21");
    }

    #[test]
    fn queries_are_sorted_after_encoding_and_lose_the_signature() {
        assert_eq!(encoded_query("uploads&a=b+c&X-Amz-Signature=x&a=%2f"), "a=%2F&a=b%20c&uploads=");
        assert_eq!(raw_query("b=1&a=+"), "a=+&b=1");
    }

    #[test]
    fn values_are_trimmed_and_joined() {
        let mut headers = HeaderMap::new();
        headers.append("x-amz-meta-a", "  one   two ".parse().unwrap());
        headers.append("x-amz-meta-a", "three".parse().unwrap());
        let canonical = Canonical {
            method: &Method::GET,
            raw_path: "/",
            raw_query: "",
            headers: &headers,
            host: "h:1",
            signed_headers: "host;x-amz-meta-a",
            payload_hash: "UNSIGNED-PAYLOAD",
        };
        let request = String::from_utf8(canonical.request(Form::Encoded)).unwrap();
        assert_eq!(
            request,
            "GET\n/\n\nhost:h:1\nx-amz-meta-a:one two,three\n\nhost;x-amz-meta-a\nUNSIGNED-PAYLOAD"
        );
    }
}
