//! UploadPartCopy: the source is opened and sealed anew as a part, since a part's position is under its key.

use std::task::{Context, Poll};

use bytes::Bytes;
use claviger_format::layout::PlainRange;
use claviger_s3::checksum::{BodyIntegrity, BodyVerifier, ChecksumAlgorithm};
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::UploadPartCopy;
use claviger_s3::range::{RangeSpec, Resolved};
use claviger_s3::sigv4::PayloadMode;
use claviger_s3::xml::CopyResult;
use http::Response;

use super::NamedUpload;
use super::part::{store, wanted_algorithm};
use crate::authz::{ReadObject, WriteObject};
use crate::body::open::OpenedBody;
use crate::body::{PlaintextSource, Verified};
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::ops::copy_object::find_source;
use crate::ops::reply;
use crate::ops::source::{Object, Source};
use crate::server::ResponseBody;

/// Serves UploadPartCopy.
///
/// # Errors
/// Both names are authorised; what the source and the provider report.
pub(crate) async fn copy(
    call: &Call<'_>,
    op: UploadPartCopy,
) -> Result<Response<ResponseBody>, GatewayError> {
    let read = call.permit::<ReadObject>(op.source.bucket.as_str(), op.source.key.as_str())?;
    let write = call.permit::<WriteObject>(op.bucket.as_str(), op.key.as_str())?;
    let upload = NamedUpload::locate(call, write, &op.upload_id).await?;
    check_era(call, &upload).await?;
    let _share = call.gateway.stream_share().await?;
    let source = Source::locate(call, &read, op.source.version.as_ref()).await?;
    let found = find_source(&source, &op.source).await?;
    let copied = found.head.passed.version();
    let object = source.open(found).await?;
    let range = op.source_range.map(|range| source_range(range, object.length)).transpose()?;
    let opened = open(&source, &object, range).await?;
    let length = opened.len();
    let body = Hashed::new(opened, wanted_algorithm(&upload));
    let (tag, verified) = store(call.gateway, &upload, op.part_number, length, body).await?;
    let checksum = wanted_algorithm(&upload)
        .and_then(|algorithm| verified.client.as_ref()?.value(algorithm))
        .map(claviger_s3::checksum::ObjectChecksum::full);
    let result = CopyResult { etag: tag.to_text(), last_modified_ms: call.gateway.clock.now_ms(), checksum };
    let mut response = reply::document(result.to_part_xml());
    reply::set_copied_version(response.headers_mut(), copied.as_ref());
    Ok(response)
}

/// A part lies where its upload began. In a keyset that is shredded by era a copy has to lie under the newest version
/// (docs/format.md §2.1), so an upload from before the last rotation takes none.
///
/// # Errors
/// `NoSuchUpload`, which tells whoever copies to begin the upload anew.
async fn check_era(call: &Call<'_>, upload: &NamedUpload) -> Result<(), GatewayError> {
    let keyset = call.gateway.read_keys.keyset(&upload.bound).await?;
    if !keyset.era_shred || keyset.is_of_this_era(call.gateway.uploads.version(upload.asked()).await?) {
        return Ok(());
    }
    let text = "The upload began under an older version of a keyset that is shredded by era: a part that is copied into it would be \
                lost with that version. Abort it, and begin the upload anew.";
    Err(S3Error::new(ErrorCode::NoSuchUpload).with_message(text).into())
}

/// The range has to lie inside the source: nothing saturates here, unlike in a GET.
fn source_range(range: RangeSpec, length: u64) -> Result<PlainRange, GatewayError> {
    match (range, range.resolve(length)) {
        (RangeSpec::Inclusive { last, .. }, Resolved::Range { start, end }) if last < length => {
            PlainRange::new(start, end - 1).map_err(|_| GatewayError::Internal("an empty range was resolved"))
        }
        _ => {
            let text = format!("Range specified is not valid for source object of size: {length}");
            Err(S3Error::new(ErrorCode::InvalidRange).with_message(text).into())
        }
    }
}

async fn open(
    source: &Source<'_>,
    object: &Object,
    range: Option<PlainRange>,
) -> Result<OpenedBody, GatewayError> {
    if let Some(range) = range {
        return source.range(object, range, None).await;
    }
    let body = source.get_again(object).await?;
    source.whole(object, body).await
}

/// An opened body whose checksum is computed on the way, for uploads that want one of each part.
struct Hashed {
    body: OpenedBody,
    verifier: Option<BodyVerifier>,
}

impl Hashed {
    fn new(body: OpenedBody, algorithm: Option<ChecksumAlgorithm>) -> Self {
        let verifier =
            BodyVerifier::new(&BodyIntegrity::default(), &PayloadMode::Unsigned, algorithm.as_slice());
        Self { body, verifier: Some(verifier) }
    }
}

impl PlaintextSource for Hashed {
    fn poll_plaintext(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>> {
        let next = self.body.poll_plaintext(cx);
        if let (Poll::Ready(Some(Ok(piece))), Some(verifier)) = (&next, &mut self.verifier) {
            verifier.update(piece);
        }
        next
    }

    fn verify(&mut self) -> Result<Verified, GatewayError> {
        self.body.verify()?;
        let verifier = self.verifier.take().ok_or(GatewayError::Internal("a body is verified once"))?;
        Ok(Verified { client: Some(verifier.finish(None)?) })
    }
}
