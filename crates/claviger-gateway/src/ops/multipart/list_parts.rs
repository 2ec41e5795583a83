//! ListParts: what lies at the provider and what is held in the system area, as one list (docs/format.md §4.5, §7.3).

use claviger_format::layout::{PARTS_MAX, h_inverse};
use claviger_format::token::{PartTag, UploadToken};
use claviger_s3::operation::ListParts;
use claviger_s3::xml::{ListPartsResult, PartEntry};
use http::Response;

use super::NamedUpload;
use crate::authz::WriteObject;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::ops::{checksums, reply};
use crate::server::ResponseBody;
use crate::system_area::HeldPart;
use crate::upstream::multipart::StoreUpload;

/// Serves ListParts.
///
/// # Errors
/// `NoSuchUpload`, or the provider's.
pub(crate) async fn list(call: &Call<'_>, op: &ListParts) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<WriteObject>(op.bucket.as_str(), op.key.as_str())?;
    let gateway = call.gateway;
    let page = if UploadToken::parse(&op.upload_id).is_err() {
        // The provider's own id: there is no token, hence no object id to find held parts by.
        gateway.bindings.resolve(permit.bucket()).await?;
        let upload = StoreUpload { bucket: permit.bucket(), key: permit.key(), upload_id: &op.upload_id };
        let stored = call.upstream.list_parts(upload, op.part_number_marker, op.max_parts).await?;
        merge(op, stored, Vec::new())
    } else {
        let upload = NamedUpload::locate(call, permit, &op.upload_id).await?;
        gateway.uploads.check(upload.asked()).await?;
        let fields = upload.token.fields();
        let (stored, held) = tokio::try_join!(
            call.upstream.list_parts(upload.at_store(), op.part_number_marker, op.max_parts),
            gateway.system.held_parts(fields.object_id),
        )?;
        let mut page = merge(op, stored, held);
        if let Some((algo, checksum_type)) = fields.checksum {
            page.checksum_algorithm = Some(checksums::algorithm(algo));
            let default = page.checksum_algorithm.map(|algorithm| algorithm.default_multipart_type());
            page.checksum_type = checksum_type.map(checksums::s3_type).or(default);
        }
        page
    };
    Ok(reply::document(page.to_xml()))
}

/// One page of both lists. Of a number that is in both the later one counts; the provider's part 10,000 is a footer
/// that an unfinished Complete has left, never a client's part.
fn merge(op: &ListParts, stored: ListPartsResult, held: Vec<HeldPart>) -> ListPartsResult {
    let end = if stored.is_truncated {
        stored.parts.last().map_or(PARTS_MAX, |part| part.part_number)
    } else {
        PARTS_MAX
    };
    let mut parts: Vec<PartEntry> =
        stored.parts.into_iter().filter(|part| part.part_number != PARTS_MAX).map(as_plaintext).collect();
    let in_page = |part: &HeldPart| part.number > op.part_number_marker && part.number <= end;
    for part in held.into_iter().filter(in_page) {
        let entry = as_plaintext(PartEntry {
            part_number: part.number,
            last_modified_ms: part.last_modified_ms,
            etag: part.etag,
            size: part.stored_len,
            checksum: None,
        });
        match parts.binary_search_by_key(&entry.part_number, |other| other.part_number) {
            Ok(at) if parts[at].last_modified_ms < entry.last_modified_ms => parts[at] = entry,
            Ok(_) => {}
            Err(at) => parts.insert(at, entry),
        }
    }
    let max = usize::try_from(op.max_parts).unwrap_or(usize::MAX);
    let is_truncated = stored.is_truncated || parts.len() > max;
    parts.truncate(max);
    ListPartsResult {
        bucket: op.bucket.as_str().to_owned(),
        key: op.key.as_str().to_owned(),
        upload_id: op.upload_id.clone(),
        part_number_marker: op.part_number_marker,
        next_part_number_marker: parts.last().map(|part| part.part_number),
        max_parts: op.max_parts,
        encoding_type: op.encoding_type,
        is_truncated,
        parts,
        checksum_algorithm: None,
        checksum_type: None,
        ..stored
    }
}

fn as_plaintext(mut part: PartEntry) -> PartEntry {
    part.size = h_inverse(part.size).unwrap_or(part.size);
    let etag = part.etag.trim_matches('"');
    part.etag = PartTag::bare(etag).map_or_else(|_| etag.to_owned(), |tag| tag.to_text());
    part.checksum = None;
    part
}
