//! GetObjectAttributes.

use claviger_format::metadata::Layout;
use claviger_s3::operation::GetObjectAttributes;
use claviger_s3::timestamp::http_date;
use claviger_s3::xml::{GetObjectAttributesResult, ObjectPartsResult, PartEntry};
use http::Response;
use http::header::LAST_MODIFIED;

use super::source::{Object, Source};
use super::{checksums, reply};
use crate::authz::ReadObject;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;

/// Serves GetObjectAttributes.
///
/// # Errors
/// Everything that [`Source`] reports.
pub(crate) async fn get(
    call: &Call<'_>,
    op: &GetObjectAttributes,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ReadObject>(op.bucket.as_str(), op.key.as_str())?;
    let source = Source::locate(call, &permit, op.version.as_ref()).await?;
    let found = source.head().await?;
    let object = source.open(found).await?;
    let mut result = GetObjectAttributesResult::default();
    if op.attributes.etag {
        result.etag = Some(reply::marked(&object.head.etag).as_str().to_owned());
    }
    if op.attributes.storage_class {
        result.storage_class =
            Some(object.head.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()));
    }
    if op.attributes.object_size {
        if object.envelope.layout == Layout::Multipart {
            source.manifest(&object).await?;
        }
        result.object_size = Some(object.length);
    }
    if op.attributes.checksum || op.attributes.object_parts {
        add_manifest(&source, op, &object, &mut result).await?;
    }
    let mut response = reply::document(result.to_xml());
    object.head.passed.set_on(response.headers_mut());
    reply::set(response.headers_mut(), LAST_MODIFIED, &http_date(object.head.last_modified_ms));
    Ok(response)
}

async fn add_manifest(
    source: &Source<'_>,
    op: &GetObjectAttributes,
    object: &Object,
    result: &mut GetObjectAttributesResult,
) -> Result<(), GatewayError> {
    let manifest = source.manifest(object).await?;
    if op.attributes.checksum {
        result.checksum = checksums::of_footer(manifest.info());
    }
    if !op.attributes.object_parts || object.envelope.layout != Layout::Multipart {
        return Ok(());
    }
    // Parts of a completed object count from 1, whatever numbers they were uploaded under.
    let parts: Vec<PartEntry> = manifest
        .entries()
        .iter()
        .zip(1u16..)
        .filter(|(_, number)| *number > op.part_number_marker)
        .map(|(entry, part_number)| PartEntry { part_number, size: entry.length, ..PartEntry::default() })
        .collect();
    let max = usize::try_from(op.max_parts).unwrap_or(usize::MAX);
    let is_truncated = parts.len() > max;
    let shown: Vec<PartEntry> = parts.into_iter().take(max).collect();
    result.object_parts = Some(ObjectPartsResult {
        total_parts_count: u32::try_from(manifest.entries().len()).unwrap_or(u32::MAX),
        part_number_marker: op.part_number_marker,
        next_part_number_marker: shown.last().map(|part| part.part_number),
        max_parts: op.max_parts,
        is_truncated,
        parts: shown,
    });
    Ok(())
}
