//! Headers of the provider's answers that concern the client as well: versions, lock, expiry, tags. One allow-list;
//! what is not in it goes no further. All of it is the provider's claim and none of it is about plaintext.

use claviger_s3::VersionId;
use claviger_s3::timestamp::parse_iso8601;
use http::StatusCode;
use http::header::{ALLOW, HeaderMap, HeaderName, HeaderValue};

/// Longest value that is passed on, in bytes.
const VALUE_LEN_MAX: usize = 1024;

pub(super) const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");
const TAGGING_COUNT: HeaderName = HeaderName::from_static("x-amz-tagging-count");
const DELETE_MARKER: HeaderName = HeaderName::from_static("x-amz-delete-marker");

/// One header: its name and which of its values are believed.
type Rule = (&'static str, fn(&str) -> bool);

/// With what succeeded.
static OF_ANSWERS: &[Rule] = &[
    // which version was copied
    ("x-amz-copy-source-version-id", is_version),
    // whether a deletion made or removed a marker
    ("x-amz-delete-marker", is_boolean),
    // when a lifecycle rule removes the object
    ("x-amz-expiration", is_text),
    // whether the object may be deleted
    ("x-amz-object-lock-legal-hold", is_on_or_off),
    // whether the object may be deleted
    ("x-amz-object-lock-mode", is_lock_mode),
    // since when the object may be deleted
    ("x-amz-object-lock-retain-until-date", is_date),
    // whether the store has copied the object elsewhere
    ("x-amz-replication-status", is_word),
    // whether the requester pays
    ("x-amz-request-charged", is_word),
    // whether an archived object can be read
    ("x-amz-restore", is_text),
    // the storage class, if it is not the standard one
    ("x-amz-storage-class", is_other_class),
    // whether there are tags to ask for
    ("x-amz-tagging-count", is_number),
    // which version it is
    ("x-amz-version-id", is_version),
];

/// With errors: what is there instead of an object.
static OF_ERRORS: &[Rule] = &[
    // the newest version says that the object was deleted
    ("x-amz-delete-marker", is_boolean),
    // the marker's own version id
    ("x-amz-version-id", is_version),
];

/// Those that an answer had.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passed(Vec<(HeaderName, HeaderValue)>);

impl Passed {
    /// Of an answer that succeeded. A value that is not one of its header's is left out.
    pub(super) fn of_answer(headers: &HeaderMap) -> Self {
        Self(listed(OF_ANSWERS, headers))
    }

    /// Of an error. `Allow` is what S3 says of a delete marker, which can be deleted and not read.
    pub(super) fn of_error(status: StatusCode, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        let mut passed = listed(OF_ERRORS, headers);
        let allow = headers.get(ALLOW).filter(|value| value.as_bytes() == b"DELETE");
        if let Some(value) = allow.filter(|_| status == StatusCode::METHOD_NOT_ALLOWED) {
            passed.push((ALLOW, value.clone()));
        }
        passed
    }

    /// `x-amz-version-id`; none from a bucket that never had versions.
    pub(crate) fn version(&self) -> Option<VersionId> {
        self.get(&VERSION_ID).and_then(|value| VersionId::parse(value).ok())
    }

    /// `x-amz-delete-marker`
    pub(crate) fn is_delete_marker(&self) -> bool {
        self.get(&DELETE_MARKER).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether `x-amz-tagging-count` says that there are tags.
    pub(crate) fn has_tags(&self) -> bool {
        self.get(&TAGGING_COUNT).is_some_and(|value| value.parse().is_ok_and(|count: u32| count > 0))
    }

    /// Puts `x-amz-version-id` alone into the client's answer.
    pub(crate) fn set_version_on(&self, headers: &mut HeaderMap) {
        if let Some((name, value)) = self.0.iter().find(|(name, _)| *name == VERSION_ID) {
            headers.insert(name, value.clone());
        }
    }

    /// Puts them into the client's answer.
    pub(crate) fn set_on(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.insert(name, value.clone());
        }
    }

    fn get(&self, name: &HeaderName) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).and_then(|(_, value)| value.to_str().ok())
    }
}

fn listed(rules: &'static [Rule], headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    // Most answers have none of them: their few names are looked up here, and not all of these there.
    let amz = || headers.keys().filter(|name| name.as_str().starts_with("x-amz-"));
    let believed = |(name, accepts): &Rule| {
        debug_assert!(name.starts_with("x-amz-"), "{name} is never found");
        let name = amz().find(|sent| sent.as_str() == *name)?;
        let value = headers.get(name)?;
        let text = value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= VALUE_LEN_MAX)?;
        accepts(text).then(|| (name.clone(), value.clone()))
    };
    rules.iter().filter_map(believed).collect()
}

fn is_version(text: &str) -> bool {
    VersionId::parse(text).is_ok()
}

fn is_boolean(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

fn is_text(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn is_word(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn is_other_class(text: &str) -> bool {
    is_word(text) && text != "STANDARD"
}

fn is_number(text: &str) -> bool {
    text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_on_or_off(text: &str) -> bool {
    matches!(text, "ON" | "OFF")
}

fn is_lock_mode(text: &str) -> bool {
    matches!(text, "GOVERNANCE" | "COMPLIANCE")
}

fn is_date(text: &str) -> bool {
    parse_iso8601(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn passed(pairs: &[(&'static str, &str)]) -> Vec<String> {
        let mut out = HeaderMap::new();
        Passed::of_answer(&headers(pairs)).set_on(&mut out);
        out.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn only_listed_headers_pass() {
        for name in ["x-amz-meta-claviger", "set-cookie", "server", "x-amz-missing-meta", "etag", "location"]
        {
            assert!(passed(&[(name, "1")]).is_empty(), "{name}");
        }
        assert_eq!(passed(&[("x-amz-version-id", "v.1"), ("x-amz-id-2", "x")]), ["x-amz-version-id"]);
    }

    #[test]
    fn only_values_that_the_header_can_have_pass() {
        let long = "v".repeat(1025);
        for (name, value) in [
            ("x-amz-version-id", ""),
            ("x-amz-version-id", "a b"),
            ("x-amz-version-id", long.as_str()),
            ("x-amz-version-id", "ü"),
            ("x-amz-delete-marker", "perhaps"),
            ("x-amz-object-lock-mode", "NONE"),
            ("x-amz-object-lock-legal-hold", "on"),
            ("x-amz-object-lock-retain-until-date", "tomorrow"),
            ("x-amz-tagging-count", "-1"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-replication-status", "a b"),
        ] {
            assert!(passed(&[(name, value)]).is_empty(), "{name}: {value}");
        }
        for (name, value) in [
            ("x-amz-delete-marker", "true"),
            ("x-amz-object-lock-mode", "COMPLIANCE"),
            ("x-amz-object-lock-retain-until-date", "2030-01-01T00:00:00.000000000Z"),
            ("x-amz-expiration", "expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\", rule-id=\"a b\""),
            ("x-amz-storage-class", "GLACIER"),
        ] {
            assert_eq!(passed(&[(name, value)]), [name], "{value}");
        }
    }

    #[test]
    fn an_error_says_that_a_marker_is_there_and_what_can_be_done_with_it() {
        let all = headers(&[
            ("x-amz-delete-marker", "true"),
            ("x-amz-version-id", "v1"),
            ("allow", "DELETE"),
            ("x-amz-expiration", "no"),
        ]);
        let names = |status| {
            Passed::of_error(status, &all).into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(StatusCode::METHOD_NOT_ALLOWED),
            ["x-amz-delete-marker", "x-amz-version-id", "allow"]
        );
        assert_eq!(names(StatusCode::NOT_FOUND), ["x-amz-delete-marker", "x-amz-version-id"]);
        let other = headers(&[("allow", "DELETE, GET")]);
        assert!(Passed::of_error(StatusCode::METHOD_NOT_ALLOWED, &other).is_empty());
    }

    #[test]
    fn the_version_of_an_answer_is_known() {
        let answer =
            Passed::of_answer(&headers(&[("x-amz-version-id", "null"), ("x-amz-delete-marker", "true")]));
        assert!(answer.version().unwrap().is_null() && answer.is_delete_marker());
        let tagged = |count| Passed::of_answer(&headers(&[("x-amz-tagging-count", count)])).has_tags();
        assert!(tagged("2") && !tagged("0") && !Passed::default().has_tags());
        assert!(Passed::default().version().is_none() && !Passed::default().is_delete_marker());
    }
}
