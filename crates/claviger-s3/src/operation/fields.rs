//! The fields of a request under one roof: headers, their hoisted forms in the query, and query parameters.

use crate::error::{ErrorCode, S3Error};
use crate::request::RequestHead;

/// The parameters that carry a presigned signature; Signature Version 4 reads them, nobody else.
const PRESIGN: &[&str] = &[
    "X-Amz-Algorithm",
    "X-Amz-Content-Sha256",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

/// Those of Signature Version 2.
const PRESIGN_V2: &[&str] = &["AWSAccessKeyId", "Expires", "Signature"];

/// Plain headers that presigning SDKs move into the query, besides every `x-amz-*` one.
const HOISTED: &[&str] = &[
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// Which header names a request may have: one bit for all names of a kind. Each operation asks for some fifty that hardly any
/// request has.
struct NamesSent(u64);

impl NamesSent {
    fn of(head: &RequestHead<'_>) -> Self {
        Self(head.headers.keys().fold(0, |bits, name| bits | Self::bit(name.as_str())))
    }

    /// False only if no header has this name, in lower case.
    fn may_include(&self, name: &str) -> bool {
        debug_assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name} is not in lower case");
        self.0 & Self::bit(name) != 0
    }

    fn bit(name: &str) -> u64 {
        let bytes = name.as_bytes();
        let at = |index: usize| bytes.get(index).map_or(0, |byte| usize::from(*byte));
        1 << ((bytes.len() + 5 * at(bytes.len() / 2) + 11 * at(bytes.len().wrapping_sub(1))) % 64)
    }
}

/// Everything that a request says besides method and path. Header names are in lower case.
pub(super) struct Fields<'a> {
    head: &'a RequestHead<'a>,
    sent: NamesSent,
    hoisted: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

impl<'a> Fields<'a> {
    /// The request itself.
    pub(super) fn head(&self) -> &'a RequestHead<'a> {
        self.head
    }

    /// Sorts the query into signature, hoisted headers and parameters. A parameter that occurs twice is
    /// `InvalidArgument`, a header that says something else than its hoisted form `InvalidRequest`.
    pub(super) fn read(head: &'a RequestHead<'a>) -> Result<Self, S3Error> {
        let pairs = head.pairs()?;
        let has = |wanted: &str| pairs.iter().any(|(name, _)| name == wanted);
        let is_presigned_v2 = has("AWSAccessKeyId") && has("Signature");
        let is_presigned_v4 = has("X-Amz-Signature");
        let is_presigned = is_presigned_v2 || is_presigned_v4;
        let sent = NamesSent::of(head);
        let mut fields = Self { head, sent, hoisted: Vec::new(), query: Vec::new() };
        for (name, value) in pairs {
            // In a query of Version 2 these are headers like any other.
            if is_presigned_v4 && PRESIGN.contains(&name.as_str()) {
                continue;
            }
            if is_presigned_v2 && PRESIGN_V2.contains(&name.as_str()) {
                continue;
            }
            let lower = name.to_ascii_lowercase();
            let is_hoisted =
                is_presigned && (lower.starts_with("x-amz-") || HOISTED.contains(&lower.as_str()));
            if is_hoisted {
                fields.add_hoisted(lower, value)?;
            } else if !super::IGNORED_PARAMETERS.contains(&name.as_str()) {
                fields.add_parameter(name, value)?;
            }
        }
        Ok(fields)
    }

    fn add_hoisted(&mut self, name: String, value: String) -> Result<(), S3Error> {
        let sent = self.sent_header(&name)?;
        let is_doubled = self.hoisted.iter().any(|(other, _)| *other == name);
        if is_doubled || sent.is_some_and(|sent| sent != value.trim()) {
            return Err(S3Error::new(ErrorCode::InvalidRequest)
                .with_message(format!("{name} is given twice with different values.")));
        }
        self.hoisted.push((name, value.trim().to_owned()));
        Ok(())
    }

    fn add_parameter(&mut self, name: String, value: String) -> Result<(), S3Error> {
        if self.query.iter().any(|(other, _)| *other == name) {
            return Err(S3Error::invalid_argument(&name, &value, "A query parameter was given twice."));
        }
        self.query.push((name, value));
        Ok(())
    }

    /// The value of a header; several lines are joined by commas. `None` when it is missing.
    pub(super) fn header(&self, name: &str) -> Result<Option<String>, S3Error> {
        if let Some((_, value)) = self.hoisted.iter().find(|(other, _)| other == name) {
            return Ok(Some(value.clone()));
        }
        self.sent_header(name)
    }

    /// The value of a header; `None` when it is missing or empty.
    pub(super) fn header_non_empty(&self, name: &str) -> Result<Option<String>, S3Error> {
        Ok(self.header(name)?.filter(|value| !value.is_empty()))
    }

    pub(super) fn has_header(&self, name: &str) -> bool {
        self.was_sent(name) || self.hoisted.iter().any(|(other, _)| other == name)
    }

    /// Whether the header was sent as one, not hoisted into a presigned query.
    pub(super) fn was_sent(&self, name: &str) -> bool {
        self.sent.may_include(name) && self.head.headers.contains_key(name)
    }

    /// The names of all `x-amz-*` headers.
    pub(super) fn amz_names(&self) -> impl Iterator<Item = &str> {
        let sent = self.head.headers.keys().map(http::HeaderName::as_str);
        let hoisted = self.hoisted.iter().map(|(name, _)| name.as_str());
        let hoisted = hoisted.filter(|name| !self.was_sent(name));
        sent.chain(hoisted).filter(|name| name.starts_with("x-amz-"))
    }

    /// The value of a query parameter.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value of a query parameter; `None` when it is missing or empty.
    pub(super) fn query_non_empty(&self, name: &str) -> Option<String> {
        self.query(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// The value of a query parameter; empty when it is missing.
    pub(super) fn query_string(&self, name: &str) -> String {
        self.query(name).unwrap_or_default().to_owned()
    }

    /// The names of all query parameters.
    pub(super) fn query_names(&self) -> impl Iterator<Item = &str> {
        self.query.iter().map(|(name, _)| name.as_str())
    }

    fn sent_header(&self, name: &str) -> Result<Option<String>, S3Error> {
        if !self.sent.may_include(name) {
            return Ok(None);
        }
        let mut joined: Option<String> = None;
        for value in self.head.headers.get_all(name) {
            let text = std::str::from_utf8(value.as_bytes()).map_err(|_| {
                S3Error::new(ErrorCode::InvalidArgument)
                    .with_message(format!("The header {name} is not UTF-8."))
            })?;
            match &mut joined {
                Some(all) => {
                    all.push(',');
                    all.push_str(text.trim());
                }
                None => joined = Some(text.trim().to_owned()),
            }
        }
        Ok(joined)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    #[test]
    fn every_header_that_was_sent_is_found_and_no_other() {
        let names = [
            "range",
            "if-match",
            "x-amz-acl",
            "x-amz-tagging",
            "x-amz-meta-a",
            "content-md5",
            "a",
            "x-amz-acl2",
        ];
        for sent in 0..1_u32 << names.len() {
            let is_sent = |index: usize| sent >> index & 1 == 1;
            let mut headers = HeaderMap::new();
            for (index, name) in names.iter().enumerate().filter(|(index, _)| is_sent(*index)) {
                headers.insert(*name, index.to_string().parse().unwrap());
            }
            let head = RequestHead {
                method: &Method::GET,
                raw_path: "/",
                raw_query: "",
                host: None,
                headers: &headers,
            };
            let fields = Fields::read(&head).unwrap();
            for (index, name) in names.iter().enumerate() {
                let expected = is_sent(index).then(|| index.to_string());
                assert_eq!(fields.header(name).unwrap(), expected, "{name}");
                assert_eq!(
                    (fields.has_header(name), fields.was_sent(name)),
                    (is_sent(index), is_sent(index))
                );
            }
        }
    }
}
