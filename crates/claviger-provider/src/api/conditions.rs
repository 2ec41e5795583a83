//! Conditional requests: RFC 9110 §13 for reads, S3's subset for writes.

use http::{HeaderMap, HeaderValue};
use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::timestamp;
use crate::store::{Condition, Sidecar};

/// The four conditions of a read (or of a copy's source).
pub(super) struct ReadConditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
    pub(super) if_modified_since: Option<Timestamp>,
    pub(super) if_unmodified_since: Option<Timestamp>,
}

/// What the conditions of a read come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    /// 304 for a read, 412 for a copy.
    NotModified,
    /// 412.
    Failed,
}

impl ReadConditions {
    /// Evaluates in the order of RFC 9110 §13.2.2. Dates count in whole seconds.
    pub(super) fn verdict(&self, object: &Sidecar) -> Verdict {
        let second = timestamp(object.last_modified_ms / 1000 * 1000);
        let failed = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => !matches(condition, &object.etag),
            (None, Some(since)) => second > *since,
            (None, None) => false,
        };
        let unchanged = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => matches(condition, &object.etag),
            (None, Some(since)) => second <= *since,
            (None, None) => false,
        };
        match (failed, unchanged) {
            (true, _) => Verdict::Failed,
            (false, true) => Verdict::NotModified,
            (false, false) => Verdict::Go,
        }
    }
}

/// The conditions of a write. S3 knows `If-None-Match` there only as `*`.
pub(super) fn of_write(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Vec<Condition>> {
    let mut conditions = Vec::new();
    match if_none_match {
        Some(ETagCondition::Any) => conditions.push(Condition::Absent),
        Some(ETagCondition::ETag(_)) => {
            return Err(s3_error!(NotImplemented, "A conditional write takes If-None-Match: * only."));
        }
        None => {}
    }
    match if_match {
        Some(ETagCondition::Any) => conditions.push(Condition::Present),
        Some(ETagCondition::ETag(etag)) => conditions.push(Condition::Is(etag.value().to_owned())),
        None => {}
    }
    Ok(conditions)
}

/// The conditions of a copy on its destination, which the framework leaves in the headers.
pub(super) fn of_copy(headers: &HeaderMap) -> S3Result<Vec<Condition>> {
    let read = |name: &str| {
        let value = headers.get(name).map(|value| ETagCondition::parse_http_header(value.as_bytes()));
        value.transpose().map_err(|_| s3_error!(InvalidArgument, "The entity tag is not valid."))
    };
    of_write(read("if-match")?, read("if-none-match")?)
}

/// 304 with the ETag, as RFC 9110 §15.4.5 wants it.
pub(super) fn not_modified(object: &Sidecar) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    let mut headers = HeaderMap::new();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", object.etag)) {
        headers.insert(http::header::ETAG, etag);
    }
    error.set_headers(headers);
    error
}

fn matches(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(wanted) => wanted.value() == etag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Attributes;
    use s3s::dto::ETag;

    fn object() -> Sidecar {
        Sidecar {
            key: "k".to_owned(),
            data: String::new(),
            size: 1,
            etag: "e".to_owned(),
            last_modified_ms: 5_900,
            attributes: Attributes::default(),
            checksums: Default::default(),
            part_sizes: Vec::new(),
        }
    }

    fn conditions(
        if_match: Option<&str>,
        if_none_match: Option<&str>,
        since_s: Option<u64>,
    ) -> ReadConditions {
        let etag = |value: &str| ETagCondition::ETag(ETag::Strong(value.to_owned()));
        ReadConditions {
            if_match: if_match.map(etag),
            if_none_match: if_none_match.map(etag),
            if_modified_since: since_s.map(|s| timestamp(s * 1000)),
            if_unmodified_since: since_s.map(|s| timestamp(s * 1000)),
        }
    }

    #[test]
    fn an_etag_condition_outranks_its_date() {
        assert_eq!(conditions(Some("e"), Some("x"), Some(1)).verdict(&object()), Verdict::Go);
        assert_eq!(conditions(Some("x"), None, Some(9)).verdict(&object()), Verdict::Failed);
        assert_eq!(conditions(Some("e"), Some("e"), Some(9)).verdict(&object()), Verdict::NotModified);
    }

    #[test]
    fn the_second_of_the_last_change_counts_as_unchanged() {
        assert_eq!(conditions(None, None, Some(5)).verdict(&object()), Verdict::NotModified);
        assert_eq!(conditions(None, None, Some(4)).verdict(&object()), Verdict::Failed);
    }
}
