//! ListObjects, both versions: the provider's page with plaintext sizes and marked entity tags, and no further request
//! (docs/format.md §3.8).

use std::borrow::Cow;

use claviger_format::layout::g_inverse;
use claviger_format::token::object_etag;
use claviger_s3::operation::{ListObjects as ListV1, ListObjectsV2 as ListV2};
use claviger_s3::xml::ObjectEntry;
use http::Response;

use super::reply;
use crate::authz::{ListObjects, Permit};
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;
use crate::upstream::list::ListWhat;

/// Serves ListObjects.
///
/// # Errors
/// `AccessDenied`, `NoSuchBucket`, or the provider's.
pub(crate) async fn list_v1(call: &Call<'_>, op: &ListV1) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ListObjects>(op.bucket.as_str(), &op.prefix)?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    let _share = call.gateway.stream_share().await?;
    let what = what(&permit, op.delimiter.as_deref(), op.max_keys);
    let marker = if call.upstream.profile().marker_skips_prefix {
        Cow::Borrowed(op.marker.as_str())
    } else {
        behind_prefix(&op.marker, &op.prefix, op.delimiter.as_deref())
    };
    let document = call.upstream.list_objects(permit.bucket(), what, &marker).await?;
    let mut page = document.page()?;
    if op.max_keys == 0 {
        page.is_truncated = false;
        clear(&mut page.contents, &mut page.common_prefixes);
    }
    confine(&permit, &page.contents, &page.common_prefixes, op.max_keys)?;
    // What the client asked for is repeated as it was asked, not as the provider understood it.
    page.name = permit.bucket().to_owned();
    page.prefix.clone_from(&op.prefix);
    page.marker.clone_from(&op.marker);
    page.delimiter.clone_from(&op.delimiter);
    page.max_keys = op.max_keys;
    page.encoding_type = op.encoding_type;
    // Some stores leave their own marker unencoded, which then can't be read; and only with a delimiter there is one.
    let goes_on = page.is_truncated && op.delimiter.is_some();
    page.next_marker = if goes_on { last_of(&page.contents, &page.common_prefixes) } else { None };
    page.contents.iter_mut().for_each(as_plaintext);
    Ok(reply::document(page.to_xml()))
}

/// Serves ListObjectsV2.
///
/// # Errors
/// As [`list_v1`].
pub(crate) async fn list_v2(call: &Call<'_>, op: &ListV2) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ListObjects>(op.bucket.as_str(), &op.prefix)?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    let what = what(&permit, op.delimiter.as_deref(), op.max_keys);
    let _share = call.gateway.stream_share().await?;
    // An empty token is the beginning.
    let token = op.continuation_token.as_deref().filter(|token| !token.is_empty());
    let start_after = op.start_after.as_deref();
    let document =
        call.upstream.list_objects_v2(permit.bucket(), what, start_after, token, op.fetch_owner).await?;
    let mut page = document.page()?;
    if op.max_keys == 0 {
        (page.is_truncated, page.next_continuation_token) = (false, None);
        clear(&mut page.contents, &mut page.common_prefixes);
    }
    confine(&permit, &page.contents, &page.common_prefixes, op.max_keys)?;
    if page.is_truncated && page.next_continuation_token.is_none() {
        return Err(GatewayError::UpstreamAnswer("a listing that goes on without saying where"));
    }
    page.name = permit.bucket().to_owned();
    page.prefix.clone_from(&op.prefix);
    page.delimiter.clone_from(&op.delimiter);
    page.start_after.clone_from(&op.start_after);
    page.continuation_token.clone_from(&op.continuation_token);
    page.max_keys = op.max_keys;
    page.encoding_type = op.encoding_type;
    page.key_count = u32::try_from(page.contents.len() + page.common_prefixes.len()).unwrap_or(u32::MAX);
    if !op.fetch_owner {
        page.contents.iter_mut().for_each(|entry| entry.owner = None);
    }
    page.contents.iter_mut().for_each(as_plaintext);
    Ok(reply::document(page.to_xml()))
}

pub(crate) fn what<'a>(
    permit: &'a Permit<ListObjects>,
    delimiter: Option<&'a str>,
    max_keys: u32,
) -> ListWhat<'a> {
    ListWhat { prefix: permit.prefix(), delimiter, max_keys }
}

/// Checks that a page keeps to what was permitted and asked for: the prefix, the number, and the order that
/// synchronising tools rely on.
///
/// # Errors
/// When it does not.
pub(crate) fn confine(
    permit: &Permit<ListObjects>,
    contents: &[ObjectEntry<'_>],
    common_prefixes: &[Cow<'_, str>],
    max_keys: u32,
) -> Result<(), GatewayError> {
    confine_names(permit, contents.iter().map(|entry| &*entry.key), common_prefixes, max_keys)?;
    if contents.is_sorted_by(|a, b| a.key < b.key) { Ok(()) } else { Err(out_of_order()) }
}

/// As [`confine`], for listings that may name a key several times: once for each of its versions.
///
/// # Errors
/// When the page does not keep to it.
pub(crate) fn confine_names<'a>(
    permit: &Permit<ListObjects>,
    keys: impl ExactSizeIterator<Item = &'a str> + Clone,
    common_prefixes: &[Cow<'_, str>],
    max_keys: u32,
) -> Result<(), GatewayError> {
    let is_permitted = |name: &str| name.starts_with(permit.prefix());
    if !keys.clone().all(is_permitted) || !common_prefixes.iter().all(|prefix| is_permitted(prefix)) {
        return Err(GatewayError::UpstreamAnswer("a listing beyond the prefix"));
    }
    if keys.len() + common_prefixes.len() > usize::try_from(max_keys).unwrap_or(usize::MAX) {
        return Err(GatewayError::UpstreamAnswer("a listing longer than asked for"));
    }
    if keys.is_sorted() && common_prefixes.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(out_of_order()) }
}

fn out_of_order() -> GatewayError {
    GatewayError::UpstreamAnswer("a listing out of order")
}

/// A page of nothing ends the listing (S3). Some stores take 0 for 1.
fn clear(contents: &mut Vec<ObjectEntry<'_>>, common_prefixes: &mut Vec<Cow<'_, str>>) {
    contents.clear();
    common_prefixes.clear();
}

/// A marker that has the same keys and prefixes before it, for stores that would go on inside the common prefix that it
/// names: no key of the prefix comes after it, since no character does.
fn behind_prefix<'a>(marker: &'a str, prefix: &str, delimiter: Option<&str>) -> Cow<'a, str> {
    let names_a_prefix = delimiter.is_some_and(|delimiter| {
        !delimiter.is_empty()
            && marker
                .strip_prefix(prefix)
                .and_then(|rest| rest.find(delimiter).map(|at| at + delimiter.len() == rest.len()))
                == Some(true)
    });
    if names_a_prefix { Cow::Owned(format!("{marker}{}", char::MAX)) } else { Cow::Borrowed(marker) }
}

/// Where a page ends: the later of its last key and its last common prefix.
fn last_of(contents: &[ObjectEntry<'_>], common_prefixes: &[Cow<'_, str>]) -> Option<String> {
    let key = contents.last().map(|entry| &entry.key);
    key.max(common_prefixes.last()).map(ToString::to_string)
}

fn as_plaintext(entry: &mut ObjectEntry<'_>) {
    show_as_plaintext(&mut entry.size, &mut entry.etag, &mut entry.etag_suffix);
    entry.checksum_algorithm = None;
    entry.checksum_type = None;
}

/// Sizes and presence are the provider's claims; a size that no sealed object has is shown as it is and counted.
pub(crate) fn show_as_plaintext(size: &mut u64, etag: &mut Cow<'_, str>, etag_suffix: &mut &'static str) {
    match g_inverse(*size) {
        Some(length) => *size = length,
        None => ::metrics::counter!(crate::metrics::FOREIGN_SIZES).increment(1),
    }
    if etag.starts_with('"') || etag.ends_with('"') {
        *etag = Cow::Owned(etag.trim_matches('"').to_owned());
    }
    *etag_suffix = object_etag::mark_of(etag);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_marker_that_names_a_common_prefix_is_moved_behind_it() {
        let moved = |marker, prefix, delimiter| behind_prefix(marker, prefix, delimiter).into_owned();
        assert_eq!(moved("t/c/", "t/", Some("/")), "t/c/\u{10FFFF}");
        assert_eq!(moved("t/c--", "t/", Some("--")), "t/c--\u{10FFFF}");
        for (marker, prefix, delimiter) in [
            ("t/c/", "t/", None),
            ("t/c", "t/", Some("/")),
            ("t/", "t/", Some("/")),
            ("t/c/d/", "t/", Some("/")),
            ("u/", "t/", Some("/")),
        ] {
            assert_eq!(moved(marker, prefix, delimiter), marker);
        }
    }
}
