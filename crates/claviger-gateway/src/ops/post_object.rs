//! PostObject: a browser's form. Who it is from, and what it may be, its own fields say; until they are verified nobody hears
//! of it, but that the key service may be asked whether there is such a bucket. Then it is a PutObject.
//!
//! A form does not say how long its file is, and sealing has to know. What remains of the request when the file begins is
//! known: file and what follows it. A file that fits [`HELD_LEN_MAX`] is read first and sealed then. Of a longer one all
//! but the last [`FORM_TAIL_LEN_MAX`] bytes of the request are certainly its own: they are sealed while they come, as
//! parts, and the rest, by then counted, is one more part.

use std::sync::Arc;

use claviger_format::Checksum;
use claviger_format::layout::{CLIENT_PART_LEN_MAX, CLIENT_PUT_LEN_MAX, PART_LEN_MIN};
use claviger_s3::Authenticated;
use claviger_s3::checksum::BodyIntegrity;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::{BodyHead, CompleteMultipartUpload, PostObject, PutObject};
use claviger_s3::post_form::{FORM_TAIL_LEN_MAX, Form, LengthRange, Policy, Presented, Success};
use claviger_s3::uri::{Slash, encode};
use claviger_s3::xml::{CompletedPart, PostResponse};
use http::header::{ETAG, LOCATION};
use http::{Response, StatusCode};

use super::multipart::complete::{self, Completed};
use super::multipart::{NamedUpload, abort, create, part};
use super::put_object::{metadata_asked, store_asked, too_large};
use super::{checksums, object_headers, reply};
use crate::authz::{Permit, WriteObject};
use crate::body::form::{FileAhead, FormBody, FormFile, HeldFile};
use crate::body::{PlaintextSource, within};
use crate::credentials::Identity;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::server::ResponseBody;

/// Files up to about this size are held in memory while they are counted: shorter ones could not be cut, since a part
/// that is not the last has to have as much.
const HELD_LEN_MAX: u64 = PART_LEN_MIN + TAIL_LEN_MAX;
const TAIL_LEN_MAX: u64 = FORM_TAIL_LEN_MAX as u64;

/// A form whose signer is known, and whose policy holds.
pub(crate) struct SignedForm {
    form: Form,
    file: FileAhead,
    length: LengthRange,
}

/// Reads a form up to its file and verifies who signed it and that its policy covers it.
///
/// # Errors
/// `MalformedPOSTRequest`, `InvalidPolicyDocument`, `InvalidArgument`; `AccessDenied` with what the policy does not allow;
/// `InvalidAccessKeyId`, `SignatureDoesNotMatch`; `RequestTimeout` and `SlowDown`, see [`crate::body::form_heads`].
pub(crate) async fn authenticate(
    gateway: &Gateway,
    op: &PostObject,
    host: Option<&str>,
    body: FormBody,
) -> Result<(SignedForm, Arc<Identity>, Authenticated), GatewayError> {
    let (form, file) = gateway.form_heads.read(body.fields(&op.boundary)).await?;
    if form.is_anonymous() {
        let identity = gateway.anonymous_identity(host)?;
        let authenticated = Authenticated::of_form(identity.access_key_id().to_owned());
        return Ok((SignedForm { form, file, length: LengthRange::ANY }, identity, authenticated));
    }
    let presented = Presented::of_form(&form, gateway.upstream.profile().signature_v2)?;
    let unknown = || S3Error::new(ErrorCode::InvalidAccessKeyId);
    let identity = gateway.credentials.lookup(presented.access_key_id()).ok_or_else(unknown)?;
    let secret = identity.secret().ok_or_else(unknown)?;
    let authenticated = presented.verify(&form, secret, identity.session_token())?;
    let policy = Policy::parse(form.get("policy").unwrap_or_default())?;
    let length = policy.check(&form, op.bucket.as_str(), gateway.clock.now_ms())?;
    Ok((SignedForm { form, file, length }, identity, authenticated))
}

/// Stores the file of a form. `address` is where the form was sent to, for the answer.
///
/// # Errors
/// As PutObject; `EntityTooLarge` and `EntityTooSmall` by the policy. Nothing is stored then.
pub(crate) async fn post(
    call: &Call<'_>,
    op: PostObject,
    signed: SignedForm,
    address: &str,
) -> Result<Response<ResponseBody>, GatewayError> {
    let SignedForm { form, file, length } = signed;
    let rest_len = op.content_length.saturating_sub(file.head_len);
    let put = form.put_object(op.bucket)?;
    let permit = call.permit::<WriteObject>(put.bucket.as_str(), put.key.as_str())?;
    let file = file.declared(&put.body.integrity);
    let stored = if rest_len <= HELD_LEN_MAX {
        store_held(call, &permit, &put, (rest_len, length), file).await?
    } else {
        store_in_parts(call, permit, &put, (rest_len, length), file).await?
    };
    Ok(answer(&form.success(), &put, address, stored))
}

/// A file that is held in memory until it is counted and verified.
async fn store_held(
    call: &Call<'_>,
    permit: &Permit<WriteObject>,
    put: &PutObject,
    (rest_len, allowed): (u64, LengthRange),
    file: FormFile,
) -> Result<Response<ResponseBody>, GatewayError> {
    let rest_len = usize::try_from(rest_len).map_err(|_| GatewayError::Internal("a length beyond memory"))?;
    let _share = call.gateway.stream_share_holding(&call.identity, rest_len).await?;
    let timeout = call.gateway.held_body_timeout(&call.identity);
    let (bytes, verified) = within(timeout, file.rest(rest_len)).await?;
    let length = bytes.len() as u64;
    allowed.check(length)?;
    store_asked(call, permit, put, length, HeldFile::new(bytes, verified)).await
}

/// A file that is too long to be held: parts of an upload, committed when the whole is verified.
async fn store_in_parts(
    call: &Call<'_>,
    permit: Permit<WriteObject>,
    put: &PutObject,
    (rest_len, allowed): (u64, LengthRange),
    file: FormFile,
) -> Result<Response<ResponseBody>, GatewayError> {
    let certain_len = rest_len - TAIL_LEN_MAX;
    allowed.check_at_least(certain_len)?;
    if certain_len > CLIENT_PUT_LEN_MAX {
        return Err(too_large(certain_len, CLIENT_PUT_LEN_MAX));
    }
    let share = call.gateway.stream_share().await?;
    let metadata = metadata_asked(call, put);
    let upload = create::begin(call, permit, &put.headers, &metadata, None).await?;
    let (gateway, op, checksum) = (call.gateway.clone(), complete_op(put), metadata.checksum.clone());
    // Nobody but this knows of the upload: it goes on without the client to its end, which for a body that breaks off is
    // to drop it.
    let place = call.place.clone();
    let task = call.gateway.errands.spawn(async move {
        let _held = (share, place);
        let stored = store_and_commit(&gateway, &upload, op, (certain_len, allowed), (file, checksum)).await;
        if stored.is_err()
            && let Err(left) = abort::drop_upload(&gateway, &upload).await
        {
            tracing::warn!(error = %left, "the upload of a form could not be aborted");
        }
        stored
    });
    let completed = task.await.map_err(|_| GatewayError::Internal("the upload of a form panicked"))??;
    Ok(answer_parts(&completed, put, metadata.checksum.as_ref()))
}

/// Stores the parts and completes the upload.
async fn store_and_commit(
    gateway: &Gateway,
    upload: &NamedUpload,
    mut op: CompleteMultipartUpload,
    lengths: (u64, LengthRange),
    (file, checksum): (FormFile, Option<Checksum>),
) -> Result<Completed, GatewayError> {
    let StoredParts { list, length } = store_parts(gateway, upload, lengths, file).await?;
    op.object_size = Some(length);
    complete::finish(gateway, upload, &op, list, checksum).await
}

/// The parts of a form's file, all of them stored and the whole verified.
struct StoredParts {
    list: Vec<CompletedPart>,
    length: u64,
}

async fn store_parts(
    gateway: &Gateway,
    upload: &NamedUpload,
    (certain_len, allowed): (u64, LengthRange),
    file: FormFile,
) -> Result<StoredParts, GatewayError> {
    let mut list = Vec::new();
    let mut left_len = certain_len;
    while left_len > 0 {
        // More than a part can be: in halves, so that none is too small.
        let length = if left_len > CLIENT_PART_LEN_MAX { left_len / 2 } else { left_len };
        store_part(gateway, upload, &mut list, length, file.next(length)).await?;
        left_len -= length;
    }
    let (rest, verified) = file.rest(FORM_TAIL_LEN_MAX).await?;
    let rest_len = rest.len() as u64;
    let length = certain_len + rest_len;
    allowed.check(length)?;
    if length > CLIENT_PUT_LEN_MAX {
        return Err(too_large(length, CLIENT_PUT_LEN_MAX));
    }
    if rest_len > 0 {
        store_part(gateway, upload, &mut list, rest_len, HeldFile::new(rest, verified)).await?;
    }
    Ok(StoredParts { list, length })
}

async fn store_part<S: PlaintextSource + 'static>(
    gateway: &Gateway,
    upload: &NamedUpload,
    list: &mut Vec<CompletedPart>,
    length: u64,
    source: S,
) -> Result<(), GatewayError> {
    let part_number =
        u16::try_from(list.len() + 1).map_err(|_| GatewayError::Internal("a form in too many parts"))?;
    let (tag, _) = part::store(gateway, upload, part_number, length, source).await?;
    list.push(CompletedPart { part_number, etag: tag.to_text(), checksum: None });
    Ok(())
}

fn complete_op(put: &PutObject) -> CompleteMultipartUpload {
    CompleteMultipartUpload {
        bucket: put.bucket.clone(),
        key: put.key.clone(),
        upload_id: String::new(),
        condition: put.condition.clone(),
        checksum: None,
        checksum_type: None,
        object_size: None,
        body: BodyHead {
            content_length: None,
            decoded_content_length: None,
            integrity: BodyIntegrity::default(),
        },
    }
}

fn answer_parts(
    completed: &Completed,
    put: &PutObject,
    checksum: Option<&Checksum>,
) -> Response<ResponseBody> {
    let mut response = reply::empty(StatusCode::OK);
    let headers = response.headers_mut();
    completed.passed.set_on(headers);
    reply::set(headers, ETAG, &reply::quoted(&completed.result.etag));
    if let Some(checksum) = checksum.and_then(checksums::to_s3) {
        checksums::set_headers(headers, &checksum);
    }
    object_headers::echo_sse(headers, &put.headers);
    response
}

/// Turns the answer of a PutObject into the one that the form asks for.
fn answer(
    success: &Success,
    put: &PutObject,
    address: &str,
    mut stored: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let etag = stored.headers().get(ETAG).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let etag = etag.trim_matches('"').to_owned();
    let (bucket, key) = (put.bucket.as_str(), put.key.as_str());
    let location = match success {
        Success::Redirect(url) => Success::location(url, bucket, key, &etag),
        Success::Status(_) => {
            format!("{}/{}", address.trim_end_matches('/'), encode(key.as_bytes(), Slash::Keep))
        }
    };
    reply::set(stored.headers_mut(), LOCATION, &location);
    match success {
        Success::Redirect(_) => *stored.status_mut() = StatusCode::SEE_OTHER,
        Success::Status(status) => *stored.status_mut() = *status,
    }
    if stored.status() == StatusCode::CREATED {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let (parts, body) =
            reply::document(PostResponse { location, bucket, key, etag }.to_xml()).into_parts();
        stored.headers_mut().extend(parts.headers);
        *stored.body_mut() = body;
    }
    stored
}
