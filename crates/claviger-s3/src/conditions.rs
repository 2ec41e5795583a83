//! Conditional requests (RFC 9110 §13): parsing, and the verdict where the gateway itself has to reach one.

use crate::etag::ETag;
use crate::timestamp;

/// The value of `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtagCondition {
    /// `*`
    Any,
    /// One tag or several.
    Tags(Vec<ETag>),
}

impl EtagCondition {
    /// Reads `*`, `"a"`, `"a", "b"`, weak and bare tags. `None` when nothing usable is there or a tag is broken.
    pub fn parse(header: &str) -> Option<Self> {
        if header.trim() == "*" {
            return Some(Self::Any);
        }
        let tags: Option<Vec<ETag>> = header.split(',').map(ETag::parse).collect();
        tags.map(Self::Tags)
    }

    /// Whether the condition covers `etag`.
    pub fn covers(&self, etag: &ETag) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.contains(etag),
        }
    }

    /// The header value, every tag passed through `map` (the gateway takes its `-0` mark off).
    pub fn to_header(&self, map: impl Fn(&str) -> String) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Tags(tags) => {
                let tags: Vec<String> = tags.iter().map(|tag| format!("\"{}\"", map(tag.as_str()))).collect();
                tags.join(", ")
            }
        }
    }
}

/// Conditions on GET, HEAD and (by the `x-amz-copy-source-if-*` headers) on the source of a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadConditions {
    /// `If-Match`
    pub if_match: Option<EtagCondition>,
    /// `If-None-Match`
    pub if_none_match: Option<EtagCondition>,
    /// `If-Modified-Since`, ms since the epoch, whole seconds.
    pub if_modified_since_ms: Option<u64>,
    /// `If-Unmodified-Since`, ms since the epoch, whole seconds.
    pub if_unmodified_since_ms: Option<u64>,
}

/// What the conditions say about the object at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Proceed,
    /// 304.
    NotModified,
    /// 412; the name of the header that failed, for `<Condition>`.
    PreconditionFailed(&'static str),
}

impl ReadConditions {
    /// Whether there is no condition at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The verdict for GET and HEAD. As in RFC 9110 §13.2.2 and S3: `If-Match` outranks `If-Unmodified-Since`,
    /// `If-None-Match` outranks `If-Modified-Since`; dates compare in whole seconds.
    pub fn evaluate(&self, etag: &ETag, last_modified_ms: u64) -> Verdict {
        let modified_s = last_modified_ms / 1000;
        match (&self.if_match, self.if_unmodified_since_ms) {
            (Some(tags), _) if !tags.covers(etag) => return Verdict::PreconditionFailed("If-Match"),
            (None, Some(ms)) if modified_s > ms / 1000 => {
                return Verdict::PreconditionFailed("If-Unmodified-Since");
            }
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since_ms) {
            (Some(tags), _) if tags.covers(etag) => Verdict::NotModified,
            (None, Some(ms)) if modified_s <= ms / 1000 => Verdict::NotModified,
            _ => Verdict::Proceed,
        }
    }

    /// The verdict for the source of a copy, where everything that fails is 412.
    pub fn evaluate_copy_source(&self, etag: &ETag, last_modified_ms: u64) -> Verdict {
        match self.evaluate(etag, last_modified_ms) {
            Verdict::NotModified if self.if_none_match.is_some() => {
                Verdict::PreconditionFailed("x-amz-copy-source-if-none-match")
            }
            Verdict::NotModified => Verdict::PreconditionFailed("x-amz-copy-source-if-modified-since"),
            Verdict::PreconditionFailed("If-Match") => {
                Verdict::PreconditionFailed("x-amz-copy-source-if-match")
            }
            Verdict::PreconditionFailed(_) => {
                Verdict::PreconditionFailed("x-amz-copy-source-if-unmodified-since")
            }
            Verdict::Proceed => Verdict::Proceed,
        }
    }
}

/// A conditional write, passed through to the upstream store and never emulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteCondition {
    /// `If-None-Match`: only if nothing is there, or not this.
    IfNoneMatch(WriteTag),
    /// `If-Match`: only if something is there, or exactly this.
    IfMatch(WriteTag),
}

/// What a conditional write compares with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteTag {
    /// `*`: any object.
    Any,
    /// One entity tag.
    Tag(ETag),
}

/// `If-Range`: serve the range only if the object is still this one, else the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfRange {
    /// An entity tag.
    Tag(ETag),
    /// A date, ms since the epoch.
    Date(u64),
}

impl IfRange {
    /// Reads a tag or a date; `None` when it is neither (the range is then not served).
    pub fn parse(header: &str) -> Option<Self> {
        match timestamp::parse_http_date(header) {
            Some(ms) => Some(Self::Date(ms)),
            None => ETag::parse(header).map(Self::Tag),
        }
    }

    /// Whether the range may be served.
    pub fn holds(&self, etag: &ETag, last_modified_ms: u64) -> bool {
        match self {
            Self::Tag(tag) => tag == etag,
            Self::Date(ms) => last_modified_ms / 1000 == ms / 1000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 784_111_777_000;

    fn tag(text: &str) -> ETag {
        ETag::parse(text).unwrap()
    }

    #[test]
    fn lists_weak_tags_and_the_star_are_read() {
        let list = EtagCondition::parse("\"a\", W/\"b\",c").unwrap();
        assert!(list.covers(&tag("a")) && list.covers(&tag("b")) && list.covers(&tag("c")));
        assert!(!list.covers(&tag("d")));
        assert_eq!(EtagCondition::parse(" * "), Some(EtagCondition::Any));
        assert_eq!(EtagCondition::parse("\"a"), None);
        assert_eq!(list.to_header(|t| format!("{t}!")), "\"a!\", \"b!\", \"c!\"");
    }

    #[test]
    fn a_match_outranks_a_date() {
        let mut c = ReadConditions { if_match: EtagCondition::parse("a"), ..Default::default() };
        c.if_unmodified_since_ms = Some(T - 1000);
        assert_eq!(c.evaluate(&tag("a"), T), Verdict::Proceed);
        assert_eq!(c.evaluate(&tag("b"), T), Verdict::PreconditionFailed("If-Match"));
        let mut c = ReadConditions { if_none_match: EtagCondition::parse("a"), ..Default::default() };
        c.if_modified_since_ms = Some(T + 1000);
        assert_eq!(c.evaluate(&tag("a"), T), Verdict::NotModified);
        assert_eq!(c.evaluate(&tag("b"), T), Verdict::Proceed);
    }

    #[test]
    fn dates_compare_in_whole_seconds() {
        let c = ReadConditions { if_modified_since_ms: Some(T), ..Default::default() };
        assert_eq!(c.evaluate(&tag("a"), T + 999), Verdict::NotModified);
        assert_eq!(c.evaluate(&tag("a"), T + 1000), Verdict::Proceed);
        let c = ReadConditions { if_unmodified_since_ms: Some(T), ..Default::default() };
        assert_eq!(c.evaluate(&tag("a"), T + 999), Verdict::Proceed);
        let failed = Verdict::PreconditionFailed("If-Unmodified-Since");
        assert_eq!(c.evaluate(&tag("a"), T + 1000), failed);
    }

    #[test]
    fn every_failed_condition_on_a_copy_source_is_412() {
        let c = ReadConditions { if_none_match: EtagCondition::parse("a"), ..Default::default() };
        let failed = Verdict::PreconditionFailed("x-amz-copy-source-if-none-match");
        assert_eq!(c.evaluate_copy_source(&tag("a"), T), failed);
        let c = ReadConditions { if_modified_since_ms: Some(T), ..Default::default() };
        let failed = Verdict::PreconditionFailed("x-amz-copy-source-if-modified-since");
        assert_eq!(c.evaluate_copy_source(&tag("a"), T), failed);
    }

    #[test]
    fn if_range_takes_a_tag_or_a_date() {
        assert!(IfRange::parse("\"a\"").unwrap().holds(&tag("a"), T));
        assert!(!IfRange::parse("\"a\"").unwrap().holds(&tag("b"), T));
        let date = IfRange::parse("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert!(date.holds(&tag("a"), T + 5) && !date.holds(&tag("a"), T + 1000));
        assert_eq!(IfRange::parse(""), None);
    }
}
