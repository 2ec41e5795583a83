//! Which parts wait in the system area until Complete (docs/format.md §4.5).

use claviger_format::layout::{PART_LEN_MIN, PARTS_MAX, h_inverse};

use super::NamedUpload;
use crate::error::GatewayError;
use crate::gateway::Gateway;

/// Whether part `number` of `length` plaintext bytes is held. Everywhere those are that can only be the last. Where
/// the provider wants parts of one size, all that are not known to be of the first part's are: which one is the last
/// is known at Complete, and the last may be of any size. Only for uploads whose token has been verified.
///
/// # Errors
/// The provider's, when it has to be asked for the first part.
pub(super) async fn is_held(
    gateway: &Gateway,
    upload: &NamedUpload,
    number: u16,
    length: u64,
) -> Result<bool, GatewayError> {
    if length < PART_LEN_MIN || number == PARTS_MAX {
        return Ok(true);
    }
    if !upload.upstream.profile().equal_parts {
        return Ok(false);
    }
    let object_id = upload.token.fields().object_id;
    if number == 1 {
        gateway.uploads.note_first_part(object_id, length);
        return Ok(false);
    }
    let first = match gateway.uploads.first_part_len(object_id) {
        Some(first) => Some(first),
        None => ask_for_first_part(gateway, upload).await?,
    };
    Ok(first != Some(length))
}

/// The length of the first part, which another gateway may have stored, or this one before it was started anew.
async fn ask_for_first_part(gateway: &Gateway, upload: &NamedUpload) -> Result<Option<u64>, GatewayError> {
    let page = upload.upstream.list_parts(upload.at_store(), 0, 1).await?;
    let first = page.parts.first().filter(|part| part.part_number == 1);
    let length = first.and_then(|part| h_inverse(part.size));
    if let Some(length) = length {
        gateway.uploads.note_first_part(upload.token.fields().object_id, length);
    }
    Ok(length)
}

/// Whether the upload was completed or aborted while a part of it was being held. A part of its own the provider would
/// have refused; a held one would lie there for days. An upload that is not known to be open here is over if its token
/// is gone.
pub(super) async fn is_over(gateway: &Gateway, upload: &NamedUpload) -> bool {
    let fields = upload.token.fields();
    if gateway.uploads.is_open_here(fields.object_id) {
        return false;
    }
    let token = gateway.system.fetch_token(&upload.bound.bucket_id, &fields.upstream_upload_id).await;
    matches!(token, Ok(None))
}
