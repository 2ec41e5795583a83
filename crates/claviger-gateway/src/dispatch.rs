//! From a request to its operation: who signed it, what it asks for, and the handler that does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claviger_s3::cors::CrossOrigin;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::{Accompanying, PostObject};
use claviger_s3::{Authenticated, Operation, OperationKind, RequestHead, classify, post_form};
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;

use crate::authz::{Action, Permit};
use crate::body::form::FormBody;
use crate::boxed::boxed;
use crate::credentials::Identity;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::ops;
use crate::server::{AccessNote, Handler, IdleTimeout, RequestMeta, ResponseBody, error_reply};
use crate::strangers::Place;
use crate::upstream::Upstream;
use crate::upstream::along::Along;
use crate::upstream::observed::Observed;

/// One request of a known identity, which may be the anonymous one.
pub(crate) struct Call<'a> {
    /// The gateway.
    pub gateway: &'a Arc<Gateway>,
    /// Who signed.
    pub identity: Arc<Identity>,
    /// The provider, by the caller's account. All that is done for the caller goes this way.
    pub upstream: Upstream,
    /// How the body is covered by the signature.
    pub authenticated: Authenticated,
    /// Set when the body has been read to its end.
    pub body_read_to_end: Arc<AtomicBool>,
    /// Request id, for documents that are written after the head of the answer.
    pub meta: &'a RequestMeta,
    /// Where nobody signed: for what goes on without the client, to be kept as long as that lasts.
    pub place: Option<Arc<Place>>,
}

impl Call<'_> {
    /// Proof that the signer may do `A`; the system bucket is nobody's.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn permit<A: Action>(&self, bucket: &str, key: &str) -> Result<Permit<A>, GatewayError> {
        if bucket == self.gateway.system.bucket() {
            let text = "Access Denied: this bucket holds the gateway's own records and is not served.";
            return Err(S3Error::new(ErrorCode::AccessDenied).with_message(text).into());
        }
        Ok(self.identity.permit(bucket, key).map_err(S3Error::from)?)
    }

    /// The client's access key id, for the key service's audit log.
    pub(crate) fn on_behalf_of(&self) -> &str {
        self.identity.access_key_id()
    }
}

/// What is known about a request by the time it fails.
#[derive(Default)]
struct Progress {
    operation: Option<&'static str>,
    access_key_id: Option<String>,
    body_read_to_end: Arc<AtomicBool>,
    observed: Arc<Observed>,
    /// Where nobody signed.
    place: Option<Arc<Place>>,
}

impl Handler for Gateway {
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        meta: RequestMeta,
    ) -> BoxFuture<'static, Response<ResponseBody>> {
        boxed(|| async move {
            let is_head = request.method() == Method::HEAD;
            let resource = request.uri().path().to_owned();
            let mut progress = Progress::default();
            let mut response = match self.serve(request, &meta, &mut progress).await {
                Ok(response) => response,
                Err(error) => failure(&error, &resource, is_head, &meta),
            };
            // A client that hears the answer before it has sent the body may leave the body out: what it sends next would
            // be taken for it.
            if !progress.body_read_to_end.load(Ordering::Relaxed) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            progress.observed.tell_browser(response.headers_mut());
            let note = response.extensions_mut().get_or_insert_default::<AccessNote>();
            note.operation = progress.operation;
            note.access_key_id = progress.access_key_id;
            note.store_request_ids = progress.observed.request_ids();
            match progress.place {
                Some(place) => place.until_sent(response),
                None => response,
            }
        })
    }
}

impl Gateway {
    async fn serve(
        self: &Arc<Self>,
        request: Request<Incoming>,
        meta: &RequestMeta,
        progress: &mut Progress,
    ) -> Result<Response<ResponseBody>, GatewayError> {
        let (parts, body) = request.into_parts();
        progress.body_read_to_end.store(body.is_end_stream(), Ordering::Relaxed);
        let head = RequestHead::from_parts(&parts);
        if *head.method == Method::OPTIONS {
            return self.preflight(&head, progress).await;
        }
        if post_form::is_form(&head) {
            let operation = classify(&head, &self.hosts)?;
            let along = Along::of(head.method, &operation, Accompanying::read(&head)?);
            if let Operation::PostObject(op) = operation {
                return boxed(|| self.serve_form(&head, (op, along), body, meta, progress)).await;
            }
        }
        let (identity, authenticated) = self.authenticate(&head)?;
        self.admit(&identity, progress)?;
        // The bucket of a virtual host is the one that was signed, whatever a load balancer made of the name.
        let head = RequestHead { host: authenticated.host().or(head.host), ..head };
        let operation = classify(&head, &self.hosts)?;
        progress.operation = Some(operation.kind().as_str());
        let account = self.account_of(&identity)?;
        let along = Along::of(head.method, &operation, Accompanying::read(&head)?).told_to(&identity);
        let call = Call {
            gateway: self,
            identity,
            upstream: self.upstream.on_behalf_of(account, Arc::new(along), progress.observed.clone()),
            authenticated,
            body_read_to_end: progress.body_read_to_end.clone(),
            meta,
            place: progress.place.clone(),
        };
        ops::anonymous::admit(&call, &operation).await?;
        // Boxed one by one: the state of the largest handler would otherwise be carried by every request.
        match operation {
            Operation::ListBuckets(_) if call.identity.is_anonymous() => {
                boxed(|| ops::anonymous::list_buckets(&call)).await
            }
            Operation::ListBuckets(op) => boxed(|| ops::bucket::list_buckets(&call, &op)).await,
            Operation::CreateBucket(op) => boxed(|| ops::bucket::create(&call, op, body)).await,
            Operation::HeadBucket(op) => boxed(|| ops::bucket::head(&call, &op)).await,
            Operation::DeleteBucket(op) => boxed(|| ops::bucket::delete(&call, &op)).await,
            Operation::GetBucketLocation(op) => boxed(|| ops::bucket::location(&call, &op)).await,
            Operation::GetBucketVersioning(op) => boxed(|| ops::versioning::get(&call, &op)).await,
            Operation::PutBucketVersioning(op) => boxed(|| ops::versioning::put(&call, op, body)).await,
            Operation::PostObject(_) => {
                let text = "A form is signed by its fields, not by a header or the query.";
                Err(S3Error::new(ErrorCode::InvalidRequest).with_message(text).into())
            }
            Operation::PutObject(op) => boxed(|| ops::put_object::put(&call, *op, body)).await,
            Operation::GetObject(op) => boxed(|| ops::get_object::get(&call, *op)).await,
            Operation::HeadObject(op) => boxed(|| ops::head_object::head(&call, *op)).await,
            Operation::DeleteObject(op) => boxed(|| ops::delete::delete_object(&call, &op)).await,
            Operation::DeleteObjects(op) => boxed(|| ops::delete::delete_objects(&call, op, body)).await,
            Operation::CopyObject(op) => boxed(|| ops::copy_object::copy(&call, *op)).await,
            Operation::GetObjectAttributes(op) => boxed(|| ops::attributes::get(&call, &op)).await,
            Operation::GetObjectTagging(op) => boxed(|| ops::tagging::get(&call, &op)).await,
            Operation::PutObjectTagging(op) => boxed(|| ops::tagging::put(&call, op, body)).await,
            Operation::DeleteObjectTagging(op) => boxed(|| ops::tagging::delete(&call, &op)).await,
            Operation::GetObjectRetention(op) => boxed(|| ops::object_lock::retention(&call, &op)).await,
            Operation::PutObjectRetention(op) => {
                boxed(|| ops::object_lock::put_retention(&call, op, body)).await
            }
            Operation::GetObjectLegalHold(op) => boxed(|| ops::object_lock::legal_hold(&call, &op)).await,
            Operation::PutObjectLegalHold(op) => {
                boxed(|| ops::object_lock::put_legal_hold(&call, op, body)).await
            }
            Operation::GetObjectLockConfiguration(op) => {
                boxed(|| ops::object_lock::configuration(&call, &op)).await
            }
            Operation::PutObjectLockConfiguration(op) => {
                boxed(|| ops::object_lock::put_configuration(&call, op, body)).await
            }
            Operation::ListObjects(op) => boxed(|| ops::list::list_v1(&call, &op)).await,
            Operation::ListObjectsV2(op) => boxed(|| ops::list::list_v2(&call, &op)).await,
            Operation::ListObjectVersions(op) => boxed(|| ops::list_versions::list(&call, &op)).await,
            Operation::CreateMultipartUpload(op) => {
                boxed(|| ops::multipart::create::create(&call, *op)).await
            }
            Operation::UploadPart(op) => boxed(|| ops::multipart::part::upload(&call, op, body)).await,
            Operation::UploadPartCopy(op) => boxed(|| ops::multipart::part_copy::copy(&call, *op)).await,
            Operation::CompleteMultipartUpload(op) => {
                boxed(|| ops::multipart::complete::complete(&call, *op, body)).await
            }
            Operation::AbortMultipartUpload(op) => boxed(|| ops::multipart::abort::abort(&call, &op)).await,
            Operation::ListParts(op) => boxed(|| ops::multipart::list_parts::list(&call, &op)).await,
            Operation::ListMultipartUploads(op) => {
                boxed(|| ops::multipart::list_uploads::list(&call, &op)).await
            }
            // Served before anybody is asked who he is.
            Operation::Preflight(_) => Err(GatewayError::Internal("a preflight with another method")),
            Operation::Configuration(op) => boxed(|| ops::configuration::serve(&call, *op, body)).await,
        }
    }

    /// Notes whose request it is. Those of nobody have places of their own.
    fn admit(&self, identity: &Identity, progress: &mut Progress) -> Result<(), GatewayError> {
        progress.access_key_id = Some(identity.access_key_id().to_owned());
        if identity.is_anonymous() {
            progress.place = Some(Arc::new(self.strangers.take()?));
        }
        Ok(())
    }

    /// Nobody signs a preflight: what it says is read like any other request's, and only the bucket's rules are asked.
    async fn preflight(
        &self,
        head: &RequestHead<'_>,
        progress: &mut Progress,
    ) -> Result<Response<ResponseBody>, GatewayError> {
        let operation = classify(head, &self.hosts)?;
        progress.operation = Some(operation.kind().as_str());
        let cross_origin = CrossOrigin::read(head.headers)?;
        let complete = CrossOrigin::check_preflight(cross_origin.as_ref());
        let holds_once = self.check_page(head, cross_origin.as_ref())?;
        let signer = self.preflight_signer(head);
        let stranger = cross_origin.clone().filter(|_| signer.is_none());
        let said = Accompanying { cross_origin, ..Accompanying::default() };
        let along = Arc::new(Along::of(head.method, &operation, said));
        let account = self.preflight_account(signer.as_deref());
        let upstream = self.upstream.on_behalf_of(account, along, progress.observed.clone());
        let Operation::Preflight(op) = operation else {
            return Err(GatewayError::Internal("an operation of OPTIONS that is none"));
        };
        let asked = ops::preflight::Asked { op: &op, complete, stranger };
        let answer = boxed(|| ops::preflight::answer(self, (&upstream, &progress.observed), asked)).await;
        if holds_once {
            progress.observed.holds_once();
        }
        answer
    }

    /// An HTML form: its fields say who signed it, so they are read first.
    async fn serve_form(
        self: &Arc<Self>,
        head: &RequestHead<'_>,
        (op, along): (PostObject, Along),
        body: Incoming,
        meta: &RequestMeta,
        progress: &mut Progress,
    ) -> Result<Response<ResponseBody>, GatewayError> {
        progress.operation = Some(OperationKind::PostObject.as_str());
        // Whose the form is, its body says; that the bucket is none, nobody has to wait for.
        self.bindings.known_to_anyone(op.bucket.as_str()).await?;
        let body_read_to_end = progress.body_read_to_end.clone();
        let body = IdleTimeout::new(body, self.client_idle_timeout());
        let body = FormBody::new(body, body_read_to_end.clone());
        let (form, identity, authenticated) =
            ops::post_object::authenticate(self, &op, head.host, body).await?;
        self.admit(&identity, progress)?;
        let account = self.account_of(&identity)?;
        let along = Arc::new(along.told_to(&identity));
        let upstream = self.upstream.on_behalf_of(account, along, progress.observed.clone());
        let place = progress.place.clone();
        let call = Call { gateway: self, identity, upstream, authenticated, body_read_to_end, meta, place };
        ops::anonymous::admit_bucket(&call, op.bucket.as_str()).await?;
        let scheme = if meta.tls { "https" } else { "http" };
        let address = format!("{scheme}://{}{}", head.host.unwrap_or_default(), head.raw_path);
        ops::post_object::post(&call, op, form, &address).await
    }
}

fn failure(
    error: &GatewayError,
    resource: &str,
    is_head: bool,
    meta: &RequestMeta,
) -> Response<ResponseBody> {
    let s3 = error.to_s3(resource);
    let bodiless = is_head || s3.status() == http::StatusCode::NOT_MODIFIED;
    let mut response = error_reply(&s3, meta);
    if bodiless {
        *response.body_mut() = ops::reply::no_body();
        response.headers_mut().remove(http::header::CONTENT_TYPE);
    }
    if let Some(seconds) = error.retry_after_s() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    for (name, value) in error.answer_headers() {
        response.headers_mut().insert(name, value);
    }
    if let Some(note) = response.extensions_mut().get_mut::<AccessNote>() {
        note.blame = Some(error.blame());
        note.detail = Some(error.to_string());
    }
    error.count();
    response
}
