//! DeleteObject and DeleteObjects. Nothing is opened for them; every key of a batch is authorised by itself.

use std::collections::HashSet;

use claviger_format::token::object_etag;
use claviger_s3::conditions::EtagCondition;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::{DeleteObject as DeleteOp, DeleteObjects};
use claviger_s3::xml::{
    self, DELETE_LEN_MAX, DeleteEntry, DeleteErrorEntry, DeleteRequest, DeleteResult, DeletedEntry,
};
use claviger_s3::{ETag, VersionId};
use futures_util::{StreamExt as _, stream};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::reply;
use crate::authz::{DeleteObject, ManageBucket, ReadBucket};
use crate::body::client::ClientBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::profile;
use crate::server::ResponseBody;
use crate::upstream::Upstream;
use crate::upstream::object::{Deletion, store_etag};
use crate::upstream::passed::Passed;

/// Keys that are deleted at the same time where each takes a request of its own.
const ALONE_AT_ONCE: usize = 16;

/// Serves DeleteObject.
///
/// # Errors
/// `AccessDenied`, or the provider's.
pub(crate) async fn delete_object(
    call: &Call<'_>,
    op: &DeleteOp,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<DeleteObject>(op.bucket.as_str(), op.key.as_str())?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    let what = Deletion {
        version: op.version.as_ref(),
        condition: op.if_match.as_ref(),
        bypass_governance: may_bypass(call, op.bucket.as_str(), op.bypass_governance)?,
    };
    let passed = match call.upstream.delete_object(permit.bucket(), permit.key(), what).await {
        Ok(passed) => passed,
        // Deleting what is not there succeeds, whatever the store says to it.
        Err(error) if is_gone(&error) && op.if_match.is_none() => Passed::default(),
        Err(error) => return Err(error),
    };
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    passed.set_on(response.headers_mut());
    Ok(response)
}

/// Whether retention in governance mode is to be overridden. The account at the store may do that for everybody, so the
/// client needs a grant of its own.
///
/// # Errors
/// `AccessDenied` for a client that may not manage the bucket.
pub(crate) fn may_bypass(call: &Call<'_>, bucket: &str, asked: bool) -> Result<bool, GatewayError> {
    if asked {
        call.permit::<ManageBucket>(bucket, "")?;
    }
    Ok(asked)
}

fn is_gone(error: &GatewayError) -> bool {
    matches!(error.upstream_code(), Some(ErrorCode::NoSuchKey | ErrorCode::NoSuchVersion))
}

/// Serves DeleteObjects.
///
/// # Errors
/// `AccessDenied` without any right to delete in the bucket; `MalformedXML` and the like for the document; keys that may not be deleted are errors in the answer.
pub(crate) async fn delete_objects(
    call: &Call<'_>,
    op: DeleteObjects,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let gateway = call.gateway;
    call.permit::<ReadBucket>(op.bucket.as_str(), "")?;
    // Each key is authorised by itself; who may delete none is not asked which.
    call.identity.permit_some::<DeleteObject>(op.bucket.as_str()).map_err(S3Error::from)?;
    let body = ClientBody::new(call, body, &op.body, &[])?;
    let request = xml::parse_delete(&body.document(DELETE_LEN_MAX).await?)?;
    let bypass_governance = may_bypass(call, op.bucket.as_str(), op.bypass_governance)?;
    gateway.bindings.resolve(op.bucket.as_str()).await?;
    let (allowed, mut errors) = authorise(call, op.bucket.as_str(), request.objects);
    let (allowed, unknown) = with_known_versions(&call.upstream, op.bucket.as_str(), allowed).await;
    errors.extend(unknown);
    let mut result = DeleteResult { deleted: Vec::new(), errors };
    let together = call.upstream.profile().delete_objects == profile::DeleteObjects::Together;
    let (plain, awkward): (Vec<_>, Vec<_>) =
        allowed.into_iter().partition(|entry| together && xml::is_xml_text(&entry.key));
    if !plain.is_empty() {
        delete_batch(call, op.bucket.as_str(), plain, bypass_governance, &mut result).await?;
    }
    // No XML document can name these keys, and one of them would fail the whole batch; or the store takes none.
    let alone =
        awkward.into_iter().map(|entry| delete_alone(call, op.bucket.as_str(), entry, bypass_governance));
    let mut alone = stream::iter(alone).buffered(ALONE_AT_ONCE);
    while let Some(deleted) = alone.next().await {
        match deleted {
            Ok(entry) => result.deleted.push(entry),
            Err(entry) => result.errors.push(entry),
        }
    }
    if request.quiet {
        result.deleted.clear();
    }
    Ok(reply::document(result.to_xml()))
}

/// Divides entries into those that name no version, or one that the store is sure to delete and nothing else, and the
/// refusals of all others.
async fn with_known_versions(
    upstream: &Upstream,
    bucket: &str,
    entries: Vec<DeleteEntry>,
) -> (Vec<DeleteEntry>, Vec<DeleteErrorEntry>) {
    let made_sure = entries.into_iter().map(|entry| async move {
        let version = entry.version_id.as_deref().map(VersionId::parse).transpose();
        let version = match version {
            Ok(version) if upstream.has_versions() => version,
            Ok(version) if version.as_ref().is_none_or(VersionId::is_null) => return Ok(entry),
            _ => return Err(refusal(ErrorCode::NoSuchVersion, entry)),
        };
        match upstream.make_sure_of_version(bucket, &entry.key, version.as_ref()).await {
            Ok(()) => Ok(entry),
            Err(error) => Err(refusal(code_of(&error), entry)),
        }
    });
    let (mut known, mut refused) = (Vec::new(), Vec::new());
    let mut made_sure = stream::iter(made_sure).buffered(ALONE_AT_ONCE);
    while let Some(entry) = made_sure.next().await {
        match entry {
            Ok(entry) => known.push(entry),
            Err(entry) => refused.push(entry),
        }
    }
    (known, refused)
}

/// One request for many keys. A key that the answer does not mention is an error: nobody knows what became of it.
async fn delete_batch(
    call: &Call<'_>,
    bucket: &str,
    entries: Vec<DeleteEntry>,
    bypass_governance: bool,
    result: &mut DeleteResult,
) -> Result<(), GatewayError> {
    let request = DeleteRequest { objects: entries, quiet: false };
    let mut answered = call.upstream.delete_objects(bucket, &request, bypass_governance).await?;
    let asked: HashSet<(String, String)> = request
        .objects
        .iter()
        .filter_map(|entry| Some((entry.key.clone(), entry.version_id.clone()?)))
        .collect();
    for entry in request.objects {
        // Each line of the answer is used once: a key may have been named twice, and in several versions.
        let failed = answered.errors.iter().map(|error| (error.key.as_str(), error.version_id.as_deref()));
        let failed = line_of(&entry, failed, &asked);
        let done = answered.deleted.iter().map(|done| (done.key.as_str(), done.version_id.as_deref()));
        let done = line_of(&entry, done, &asked);
        if let Some(at) = failed {
            let code = ErrorCode::from_name(&answered.errors.swap_remove(at).code);
            result.errors.push(refusal(code.unwrap_or(ErrorCode::InternalError), entry));
        } else if let Some(at) = done {
            result.deleted.push(answered.deleted.swap_remove(at));
        } else {
            result.errors.push(refusal(ErrorCode::InternalError, entry));
        }
    }
    Ok(())
}

/// Which of the answer's lines is about `entry`: one of its key and version. Stores leave the version out where it is
/// `null`; and some name one where none was asked for, which must not be a version that another entry asked for.
fn line_of<'a>(
    entry: &DeleteEntry,
    lines: impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone,
    asked: &HashSet<(String, String)>,
) -> Option<usize> {
    let wanted = entry.version_id.as_deref().unwrap_or("null");
    let exact =
        |(key, version): (&str, Option<&str>)| key == entry.key && version.unwrap_or("null") == wanted;
    let unasked = |(key, version): (&str, Option<&str>)| {
        let is_asked = |version: &str| asked.contains(&(key.to_owned(), version.to_owned()));
        entry.version_id.is_none() && key == entry.key && !version.is_some_and(is_asked)
    };
    lines.clone().position(exact).or_else(|| lines.clone().position(unasked))
}

/// One request for one key.
async fn delete_alone(
    call: &Call<'_>,
    bucket: &str,
    entry: DeleteEntry,
    bypass_governance: bool,
) -> Result<DeletedEntry, DeleteErrorEntry> {
    let version = entry.version_id.as_deref().and_then(|version| VersionId::parse(version).ok());
    // The tag is the provider's by now; on its way out the mark is taken off once more.
    let condition = entry.etag.as_deref().and_then(|etag| ETag::parse(&object_etag::mark(etag)));
    let condition = condition.map(|etag| EtagCondition::Tags(vec![etag]));
    let gone = |error: &GatewayError| {
        condition.is_none()
            && error.upstream_code().is_none_or(|code| code == ErrorCode::NoSuchKey)
            && error.is_upstream_not_found()
    };
    let what = Deletion { version: version.as_ref(), condition: condition.as_ref(), bypass_governance };
    match call.upstream.delete_object(bucket, &entry.key, what).await {
        Ok(passed) => Ok(deleted(entry, &passed)),
        Err(error) if gone(&error) => Ok(deleted(entry, &Passed::default())),
        Err(error) => Err(refusal(code_of(&error), entry)),
    }
}

/// What an error of a single request is in the words of a batch.
fn code_of(error: &GatewayError) -> ErrorCode {
    let code = match error {
        GatewayError::S3(error) => Some(error.code()),
        other => other.upstream_code(),
    };
    code.unwrap_or(ErrorCode::InternalError)
}

/// What the answer to a single DELETE means in the words of a batch: a marker was made, or the one that was named was
/// removed.
fn deleted(entry: DeleteEntry, passed: &Passed) -> DeletedEntry {
    let marker = passed.is_delete_marker();
    DeletedEntry {
        key: entry.key,
        version_id: entry.version_id,
        delete_marker: marker,
        delete_marker_version_id: passed.version().filter(|_| marker).map(String::from),
    }
}

fn refusal(code: ErrorCode, entry: DeleteEntry) -> DeleteErrorEntry {
    DeleteErrorEntry {
        key: entry.key,
        version_id: entry.version_id,
        code: code.as_str().to_owned(),
        message: code.default_message().to_owned(),
    }
}

fn authorise(
    call: &Call<'_>,
    bucket: &str,
    entries: Vec<DeleteEntry>,
) -> (Vec<DeleteEntry>, Vec<DeleteErrorEntry>) {
    let (mut allowed, mut errors) = (Vec::new(), Vec::new());
    for entry in entries {
        if entry.version_id.as_deref().is_some_and(|version| VersionId::parse(version).is_err()) {
            errors.push(refusal(ErrorCode::NoSuchVersion, entry));
        } else if call.permit::<DeleteObject>(bucket, &entry.key).is_err() {
            errors.push(refusal(ErrorCode::AccessDenied, entry));
        } else {
            let wanted =
                entry.etag.as_deref().map(|etag| store_etag(etag.trim_matches('"')).map(str::to_owned));
            match wanted {
                None => allowed.push(entry),
                Some(Some(etag)) => allowed.push(DeleteEntry { etag: Some(etag), ..entry }),
                // No object has such a tag, and it is not sent: it may be the MD5 of a plaintext.
                Some(None) => errors.push(refusal(ErrorCode::PreconditionFailed, entry)),
            }
        }
    }
    (allowed, errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::double;

    fn entry(key: &str, version: Option<&str>) -> DeleteEntry {
        DeleteEntry { key: key.to_owned(), version_id: version.map(str::to_owned), etag: None }
    }

    /// Keys that go out, and keys with the codes of those that don't.
    async fn sorted(upstream: &Upstream) -> (Vec<String>, Vec<(String, String)>) {
        let entries = vec![
            entry("newest", None),
            entry("null", Some("null")),
            entry("k", Some("v1")),
            entry("l", Some("v2")),
        ];
        let (known, refused) = with_known_versions(upstream, "b", entries).await;
        let known = known.into_iter().map(|entry| entry.key).collect();
        (known, refused.into_iter().map(|entry| (entry.key, entry.code)).collect())
    }

    #[tokio::test]
    async fn a_batch_takes_no_version_to_a_store_without_versions() {
        for profile in ["garage", "gcs", "r2"] {
            let store = double::store(profile, |_| double::object(&[])).await;
            let (known, refused) = sorted(&store.upstream).await;
            assert_eq!(known, ["newest", "null"], "{profile}");
            let no_such = |key: &str| (key.to_owned(), "NoSuchVersion".to_owned());
            assert_eq!(refused, [no_such("k"), no_such("l")], "{profile}");
            assert!(store.asked().is_empty(), "{profile}");
        }
    }

    #[tokio::test]
    async fn a_store_of_unknown_kind_is_asked_for_each_version_of_a_batch() {
        let store = double::store("generic", |request| {
            let shown: &[_] = if request.contains(" /b/k?") { &[("x-amz-version-id", "v1")] } else { &[] };
            double::object(shown)
        })
        .await;
        let (known, refused) = sorted(&store.upstream).await;
        assert_eq!(known, ["newest", "null", "k"]);
        assert_eq!(refused, [("l".to_owned(), "NotImplemented".to_owned())]);
        let mut lines = store.lines();
        lines.sort();
        assert_eq!(lines, ["HEAD /b/k?versionId=v1", "HEAD /b/l?versionId=v2"]);
    }

    #[test]
    fn a_line_is_found_by_key_and_version_also_where_a_store_names_versions_unasked() {
        let asked = HashSet::from([("k".to_owned(), "v1".to_owned())]);
        let lines = [("k", Some("v1")), ("other", None), ("k", Some("invented"))];
        let found = |entry: DeleteEntry| line_of(&entry, lines.into_iter(), &asked);
        assert_eq!(found(entry("k", Some("v1"))), Some(0));
        assert_eq!(found(entry("k", None)), Some(2), "not the line of the version that was asked for");
        assert_eq!(found(entry("other", None)), Some(1));
        assert_eq!(found(entry("other", Some("null"))), Some(1));
        assert_eq!(found(entry("k", Some("v2"))), None);
        assert_eq!(found(entry("none", None)), None);
    }
}
