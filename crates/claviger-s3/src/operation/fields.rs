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

/// Everything that a request says besides method and path. Header names are in lower case.
pub(super) struct Fields<'a> {
    head: &'a RequestHead<'a>,
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
        let mut fields = Self { head, hoisted: Vec::new(), query: Vec::new() };
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
        self.head.headers.contains_key(name) || self.hoisted.iter().any(|(other, _)| other == name)
    }

    /// Whether the header was sent as one, not hoisted into a presigned query.
    pub(super) fn was_sent(&self, name: &str) -> bool {
        self.head.headers.contains_key(name)
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
