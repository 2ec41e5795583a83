//! Conditions on writes: passed on in the form that the store understands, and never emulated.

use claviger_s3::conditions::{EtagCondition, WriteCondition, WriteTag};
use claviger_s3::error::{ErrorCode, S3Error};
use http::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};

use super::object::store_etag;
use super::profile::{Condition, Profile, TagForm};
use crate::error::GatewayError;

/// The requests that a condition can stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// PutObject, and CopyObject for what it replaces.
    Put,
    /// CompleteMultipartUpload.
    Complete,
}

/// Adds a client's condition to a request.
///
/// # Errors
/// `PreconditionFailed` when no tag in it can be ours, `NotImplemented` when the store has no such conditions.
pub(super) fn set(
    headers: &mut HeaderMap,
    condition: Option<&WriteCondition>,
    write: Write,
    profile: &Profile,
) -> Result<(), GatewayError> {
    let Some(condition) = condition else { return Ok(()) };
    let (name, tag, kept_on_put) = match condition {
        WriteCondition::IfNoneMatch(tag) => (IF_NONE_MATCH, tag, profile.conditions.put_if_none_match),
        WriteCondition::IfMatch(tag) => (IF_MATCH, tag, profile.conditions.put_if_match),
    };
    refuse_unless_sent(if write == Write::Put { kept_on_put } else { profile.conditions.complete }, &name)?;
    let form = if write == Write::Put { profile.tag_on_put } else { TagForm::Quoted };
    let value = match tag {
        WriteTag::Any => "*".to_owned(),
        // A tag that the gateway can't have issued is on no object: the condition holds, and the tag is not sent.
        WriteTag::Tag(etag) if name == IF_NONE_MATCH => match store_etag(etag.as_str()) {
            Some(etag) => form.write(etag),
            None => return Ok(()),
        },
        WriteTag::Tag(etag) => if_match(&EtagCondition::Tags(vec![etag.clone()]), form)?,
    };
    headers.insert(name, header_value(&value)?);
    Ok(())
}

/// Adds a client's condition to a DeleteObject.
///
/// # Errors
/// As [`set`].
pub(super) fn set_on_delete(
    headers: &mut HeaderMap,
    condition: Option<&EtagCondition>,
    profile: &Profile,
) -> Result<(), GatewayError> {
    let Some(condition) = condition else { return Ok(()) };
    refuse_unless_sent(profile.conditions.delete, &IF_MATCH)?;
    headers.insert(IF_MATCH, header_value(&if_match(condition, TagForm::Quoted)?)?);
    Ok(())
}

/// A write must not happen in spite of its condition.
fn refuse_unless_sent(kept: Condition, name: &HeaderName) -> Result<(), GatewayError> {
    if kept != Condition::NotSent {
        return Ok(());
    }
    let text = format!("The store behind this endpoint has no condition '{name}' on writes.");
    Err(S3Error::new(ErrorCode::NotImplemented).with_message(text).into())
}

fn header_value(text: &str) -> Result<HeaderValue, GatewayError> {
    HeaderValue::from_str(text).map_err(|_| GatewayError::Internal("a header is not ASCII"))
}

/// The header of an `If-Match` on a write.
fn if_match(condition: &EtagCondition, form: TagForm) -> Result<String, GatewayError> {
    let EtagCondition::Tags(tags) = condition else { return Ok("*".to_owned()) };
    let known: Vec<String> =
        tags.iter().filter_map(|tag| store_etag(tag.as_str())).map(|tag| form.write(tag)).collect();
    if known.is_empty() {
        return Err(S3Error::new(ErrorCode::PreconditionFailed).with_extra("Condition", "If-Match").into());
    }
    Ok(known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_s3::ETag;

    const MD5: &str = "5d41402abc4b2a76b9719d911017c592";

    fn sent(profile: &str, write: Write, condition: &WriteCondition) -> Result<HeaderMap, GatewayError> {
        let mut headers = HeaderMap::new();
        set(&mut headers, Some(condition), write, Profile::named(profile).unwrap()).map(|()| headers)
    }

    fn is(tag: &str) -> WriteCondition {
        WriteCondition::IfMatch(WriteTag::Tag(ETag::parse(tag).unwrap()))
    }

    #[test]
    fn a_write_condition_that_can_not_hold_fails_without_a_request() {
        let tags = |text: &str| EtagCondition::parse(text).unwrap();
        let quoted = |text: &str| if_match(&tags(text), TagForm::Quoted);
        assert!(quoted(MD5).is_err());
        assert_eq!(quoted("\"a-0\", \"plain\", \"b-2\"").unwrap(), "\"a\", \"b-2\"");
        assert_eq!(if_match(&EtagCondition::Any, TagForm::Quoted).unwrap(), "*");
    }

    #[test]
    fn rgw_gets_the_tag_of_a_put_without_quotes_and_everybody_else_with_them() {
        let condition = is(&format!("\"{MD5}-0\""));
        assert_eq!(sent("ceph-rgw", Write::Put, &condition).unwrap()["if-match"], MD5);
        let quoted = format!("\"{MD5}\"");
        assert_eq!(sent("ceph-rgw", Write::Complete, &condition).unwrap()["if-match"], *quoted);
        assert_eq!(sent("aws", Write::Put, &condition).unwrap()["if-match"], *quoted);
        assert_eq!(sent("generic", Write::Put, &condition).unwrap()["if-match"], *quoted);
        let other = |tag: &str| WriteCondition::IfNoneMatch(WriteTag::Tag(ETag::parse(tag).unwrap()));
        assert_eq!(sent("ceph-rgw", Write::Put, &other(&format!("{MD5}-0"))).unwrap()["if-none-match"], MD5);
        assert!(sent("ceph-rgw", Write::Put, &other(MD5)).unwrap().is_empty(), "the MD5 of a plaintext");
    }

    #[test]
    fn where_a_store_has_no_such_conditions_nothing_is_sent() {
        for condition in [WriteCondition::IfNoneMatch(WriteTag::Any), is(&format!("{MD5}-0"))] {
            for write in [Write::Put, Write::Complete] {
                let error = sent("gcs", write, &condition).unwrap_err();
                assert!(
                    matches!(&error, GatewayError::S3(error) if error.code() == ErrorCode::NotImplemented),
                    "{error:?}"
                );
            }
        }
        let mut headers = HeaderMap::new();
        let gcs = Profile::named("gcs").unwrap();
        assert!(set_on_delete(&mut headers, Some(&EtagCondition::Any), gcs).is_err() && headers.is_empty());
        assert!(set_on_delete(&mut headers, None, gcs).is_ok());
    }

    #[test]
    fn what_a_store_ignores_is_passed_on_all_the_same() {
        assert_eq!(
            sent("garage", Write::Put, &WriteCondition::IfNoneMatch(WriteTag::Any)).unwrap()["if-none-match"],
            "*"
        );
    }
}
