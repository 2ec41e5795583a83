//! ListMultipartUploads: the provider's listing with its own ids replaced by our tokens (docs/format.md §7.2), so that
//! tools that resume from a listing can go on.

use claviger_format::token::UploadToken;
use claviger_s3::operation::ListMultipartUploads;
use claviger_s3::xml::{ListMultipartUploadsResult, UploadEntry};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Response;

use crate::authz::ListObjects;
use crate::bindings::BoundBucket;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::ops::reply;
use crate::server::ResponseBody;
use crate::upstream::multipart::ListUploadsWhat;

/// Tokens that are fetched side by side.
const TOKENS_AT_ONCE: usize = 16;

/// Serves ListMultipartUploads.
///
/// # Errors
/// `NoSuchBucket`, or the provider's.
pub(crate) async fn list(
    call: &Call<'_>,
    op: &ListMultipartUploads,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ListObjects>(op.bucket.as_str(), &op.prefix)?;
    let gateway = call.gateway;
    let bound = gateway.bindings.resolve(permit.bucket()).await?;
    let _share = gateway.stream_share().await?;
    let marker = UploadToken::parse(&op.upload_id_marker)
        .map_or_else(|_| op.upload_id_marker.clone(), |token| token.fields().upstream_upload_id.clone());
    let what = ListUploadsWhat {
        prefix: permit.prefix(),
        delimiter: op.delimiter.as_deref(),
        key_marker: &op.key_marker,
        upload_id_marker: &marker,
        max_uploads: op.max_uploads,
    };
    let mut page = call.upstream.list_uploads(permit.bucket(), what).await?;
    let names = page.uploads.iter().map(|upload| &upload.key).chain(&page.common_prefixes);
    if !names.clone().all(|name| name.starts_with(permit.prefix()))
        || names.count() > usize::try_from(op.max_uploads).unwrap_or(usize::MAX)
    {
        return Err(GatewayError::UpstreamAnswer("a listing of uploads beyond what was asked for"));
    }
    // Every page of S3 is ordered; some stores' are not, and their markers are those of the highest key all the same.
    page.uploads.sort_by(|a, b| a.key.cmp(&b.key));
    let marked = marked(&page);
    page.uploads = stream::iter(std::mem::take(&mut page.uploads))
        .map(|upload| with_token(call, &bound, upload))
        .buffered(TOKENS_AT_ONCE)
        .try_collect()
        .await?;
    if let Some(at) = marked {
        page.next_upload_id_marker = page.uploads.get(at).map(|upload| upload.upload_id.clone());
    }
    page.bucket = permit.bucket().to_owned();
    page.prefix.clone_from(&op.prefix);
    page.delimiter.clone_from(&op.delimiter);
    page.key_marker.clone_from(&op.key_marker);
    page.upload_id_marker.clone_from(&op.upload_id_marker);
    page.max_uploads = op.max_uploads;
    page.encoding_type = op.encoding_type;
    Ok(reply::document(page.to_xml()))
}

/// Which upload the page's marker names. S3 always names one when a listing goes on; stores that give the key alone mean the
/// last upload of that key.
fn marked(page: &ListMultipartUploadsResult) -> Option<usize> {
    match &page.next_upload_id_marker {
        Some(id) => page.uploads.iter().position(|upload| upload.upload_id == *id),
        None if page.is_truncated => {
            page.uploads.iter().rposition(|upload| page.next_key_marker.as_deref() == Some(&upload.key))
        }
        None => None,
    }
}

/// Replaces the provider's id. An upload without a token of ours keeps it: it serves to abort.
async fn with_token(
    call: &Call<'_>,
    bound: &BoundBucket,
    mut upload: UploadEntry,
) -> Result<UploadEntry, GatewayError> {
    let stored = call.gateway.system.fetch_token(&bound.bucket_id, &upload.upload_id).await?;
    if let Some(text) = stored
        && UploadToken::parse(&text).is_ok_and(|token| token.fields().upstream_upload_id == upload.upload_id)
    {
        upload.upload_id = text;
    }
    upload.checksum_algorithm = None;
    upload.checksum_type = None;
    Ok(upload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(uploads: &[(&str, &str)], key: Option<&str>, id: Option<&str>) -> ListMultipartUploadsResult {
        let entry = |(key, id): &(&str, &str)| UploadEntry {
            key: (*key).to_owned(),
            upload_id: (*id).to_owned(),
            ..UploadEntry::default()
        };
        ListMultipartUploadsResult {
            uploads: uploads.iter().map(entry).collect(),
            is_truncated: key.is_some(),
            next_key_marker: key.map(str::to_owned),
            next_upload_id_marker: id.map(str::to_owned),
            ..ListMultipartUploadsResult::default()
        }
    }

    #[test]
    fn a_listing_that_goes_on_names_an_upload_even_if_the_store_names_only_its_key() {
        let uploads = [("a", "1"), ("b", "2"), ("b", "3")];
        assert_eq!(marked(&page(&uploads, Some("b"), Some("2"))), Some(1));
        assert_eq!(marked(&page(&uploads, Some("b"), None)), Some(2));
        assert_eq!(marked(&page(&uploads, Some("z"), None)), None);
        assert_eq!(marked(&page(&uploads, None, None)), None);
    }
}
