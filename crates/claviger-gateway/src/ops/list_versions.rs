//! ListObjectVersions: the provider's page with plaintext sizes and marked entity tags, as in [`super::list`].

use claviger_s3::operation::ListObjectVersions;
use claviger_s3::xml::{ListVersionsResult, ListedVersion, VersionEntry};
use http::Response;

use super::list::{confine_names, show_as_plaintext, what};
use super::reply;
use crate::authz::ListObjects;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;

/// Serves ListObjectVersions.
///
/// # Errors
/// `AccessDenied`, `NoSuchBucket`, or the provider's.
pub(crate) async fn list(
    call: &Call<'_>,
    op: &ListObjectVersions,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ListObjects>(op.bucket.as_str(), &op.prefix)?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    let _share = call.gateway.stream_share().await?;
    let what = what(&permit, op.delimiter.as_deref(), op.max_keys);
    let document = call
        .upstream
        .list_versions(permit.bucket(), what, &op.key_marker, op.version_id_marker.as_ref())
        .await?;
    let mut page = document.page()?;
    confine_names(&permit, page.entries.iter().map(|entry| &*entry.key), &page.common_prefixes, op.max_keys)?;
    set_next_marker(&mut page)?;
    // What the client asked for is repeated as it was asked, not as the provider understood it.
    page.name = permit.bucket().to_owned();
    page.prefix.clone_from(&op.prefix);
    page.key_marker.clone_from(&op.key_marker);
    page.version_id_marker =
        op.version_id_marker.as_ref().map(|marker| marker.as_str().to_owned()).unwrap_or_default();
    page.delimiter.clone_from(&op.delimiter);
    page.max_keys = op.max_keys;
    page.encoding_type = op.encoding_type;
    page.entries.iter_mut().for_each(as_plaintext);
    Ok(reply::document(page.to_xml()))
}

/// Where the next page begins: behind the last entry of this one. Stores differ in how they write their own marker (some
/// leave it unencoded, which then can't be told from another key), so it is only asked for what the page itself does
/// not say.
///
/// # Errors
/// For a page that goes on from nowhere.
fn set_next_marker(page: &mut ListVersionsResult<'_>) -> Result<(), GatewayError> {
    let theirs = (page.next_key_marker.take(), page.next_version_id_marker.take());
    if !page.is_truncated {
        return Ok(());
    }
    let last_entry =
        page.entries.last().map(|entry| (entry.key.to_string(), Some(entry.version.to_string())));
    let last_prefix = page.common_prefixes.last().map(|prefix| (prefix.to_string(), None));
    let last = match (last_entry, last_prefix) {
        (Some(entry), Some(prefix)) => Some(if entry.0 > prefix.0 { entry } else { prefix }),
        (entry, prefix) => entry.or(prefix),
    };
    match last {
        Some((key, version)) => {
            page.next_key_marker = Some(key);
            page.next_version_id_marker = version;
        }
        None if theirs.0.is_some() => (page.next_key_marker, page.next_version_id_marker) = theirs,
        None if page.max_keys == 0 => page.is_truncated = false,
        None => return Err(GatewayError::UpstreamAnswer("a listing that goes on without saying where")),
    }
    Ok(())
}

fn as_plaintext(entry: &mut VersionEntry<'_>) {
    if let ListedVersion::Object { etag, etag_suffix, size, .. } = &mut entry.what {
        show_as_plaintext(size, etag, etag_suffix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_s3::VersionId;

    fn entry<'a>(key: &'a str, version: &str) -> VersionEntry<'a> {
        VersionEntry {
            key: key.into(),
            version: VersionId::parse(version).unwrap(),
            is_latest: true,
            last_modified_ms: 0,
            owner: None,
            what: ListedVersion::DeleteMarker,
        }
    }

    fn next(
        entries: &[VersionEntry<'_>],
        prefixes: &[&str],
        theirs: Option<&str>,
    ) -> (Option<String>, Option<String>) {
        let mut page = ListVersionsResult {
            entries: entries.to_vec(),
            common_prefixes: prefixes.iter().map(|prefix| (*prefix).into()).collect(),
            is_truncated: true,
            max_keys: 2,
            next_key_marker: theirs.map(str::to_owned),
            next_version_id_marker: theirs.map(|_| "v".to_owned()),
            ..ListVersionsResult::default()
        };
        set_next_marker(&mut page).unwrap();
        (page.next_key_marker, page.next_version_id_marker)
    }

    #[test]
    fn a_page_goes_on_behind_its_last_entry() {
        let some = |text: &str| Some(text.to_owned());
        let entries = [entry("a", "v2"), entry("a", "v1")];
        assert_eq!(next(&entries, &[], Some("read wrongly")), (some("a"), some("v1")));
        assert_eq!(next(&entries, &["b/"], None), (some("b/"), None));
        assert_eq!(next(&[entry("c", "null")], &["b/"], None), (some("c"), some("null")));
        assert_eq!(next(&[], &[], Some("m")), (some("m"), some("v")));
    }

    #[test]
    fn a_page_that_goes_on_from_nowhere_is_refused() {
        let mut page =
            ListVersionsResult { is_truncated: true, max_keys: 1, ..ListVersionsResult::default() };
        assert!(set_next_marker(&mut page).is_err());
        page.max_keys = 0;
        set_next_marker(&mut page).unwrap();
        assert!(!page.is_truncated);
    }

    #[test]
    fn a_delete_marker_has_neither_size_nor_tag() {
        let mut marker = entry("a", "v1");
        as_plaintext(&mut marker);
        assert_eq!(marker, entry("a", "v1"));
        let what =
            ListedVersion::Object { etag: "\"abc\"".into(), etag_suffix: "", size: 344, storage_class: None };
        let mut object = VersionEntry { what, ..entry("a", "v1") };
        as_plaintext(&mut object);
        let ListedVersion::Object { etag, etag_suffix, size, .. } = object.what else {
            panic!("it was an object")
        };
        assert_eq!((&*etag, etag_suffix, Some(size)), ("abc", "-0", claviger_format::layout::g_inverse(344)));
    }
}
