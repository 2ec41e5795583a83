//! Sub-resources with configuration documents: ACLs, policies, rules. What they say is the store's affair; the gateway
//! checks who may ask, and that a document is what it claims to be (the table is `claviger_s3::operation::SUBRESOURCES`).

use claviger_s3::operation::{Configuration, Verb};
use claviger_s3::xml::ConfigurationDocument;
use http::Response;
use http::StatusCode;
use hyper::body::Incoming;

use super::reply;
use crate::authz::{ManageBucket, ReadBucket, ReadObject, WriteObject};
use crate::body::client::ClientBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;
use crate::upstream::configuration::StoreConfiguration;

/// Serves a request on such a sub-resource. Reading needs any grant on the bucket, changing `manage`; an object's
/// needs `read` and `write`.
///
/// # Errors
/// What is wrong with the document; the provider's.
pub(crate) async fn serve(
    call: &Call<'_>,
    op: Configuration,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let (bucket, key) = (op.bucket.as_str(), op.key.as_ref().map(|key| key.as_str()));
    match (key, op.verb) {
        (None, Verb::Get) => {
            let permit = call.permit::<ReadBucket>(bucket, "")?;
            forward(call, StoreConfiguration { bucket: permit.bucket(), key: None, asked: &op }, body).await
        }
        (None, Verb::Put | Verb::Delete) => {
            let permit = call.permit::<ManageBucket>(bucket, "")?;
            forward(call, StoreConfiguration { bucket: permit.bucket(), key: None, asked: &op }, body).await
        }
        (Some(key), Verb::Get) => {
            let permit = call.permit::<ReadObject>(bucket, key)?;
            let at = StoreConfiguration { bucket: permit.bucket(), key: Some(permit.key()), asked: &op };
            forward(call, at, body).await
        }
        (Some(key), Verb::Put | Verb::Delete) => {
            // An ACL can give to everybody, who may be let in here without a key: whoever changes one has to be able to read.
            call.permit::<ReadObject>(bucket, key)?;
            let permit = call.permit::<WriteObject>(bucket, key)?;
            let at = StoreConfiguration { bucket: permit.bucket(), key: Some(permit.key()), asked: &op };
            forward(call, at, body).await
        }
    }
}

async fn forward(
    call: &Call<'_>,
    at: StoreConfiguration<'_>,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    // A document is read and found good before anybody else hears of it.
    let document = match at.asked.verb {
        Verb::Put => document(call, at.asked, body).await?,
        Verb::Get | Verb::Delete => None,
    };
    call.gateway.bindings.resolve(at.bucket).await?;
    let changed = match at.asked.verb {
        Verb::Get => {
            let found = call.upstream.get_configuration(at).await?;
            return Ok(reply::foreign_document(found, at.asked.subresource.form.content_type()));
        }
        Verb::Put => call.upstream.put_configuration(at, document).await,
        Verb::Delete => call.upstream.delete_configuration(at).await,
    };
    // Also after a failure, which may have come behind the change. Rules of a bucket alone are CORS rules.
    if at.key.is_none() {
        call.gateway.stranger_preflights.rules_changed();
    }
    changed.map(done)
}

/// The client's document, checked; none where the ACL comes in headers.
async fn document(
    call: &Call<'_>,
    op: &Configuration,
    body: Incoming,
) -> Result<Option<ConfigurationDocument>, GatewayError> {
    let has_body =
        op.body.content_length.is_some_and(|len| len > 0) || call.authenticated.payload().is_chunked();
    if !has_body && !op.acl.is_empty() {
        return Ok(None);
    }
    let row = op.subresource;
    let read = ClientBody::new(call, body, &op.body, &[])?.document(row.len_max).await?;
    Ok(Some(ConfigurationDocument::of_client(read.clone(), row.form, row.len_max, row.malformed)?))
}

/// The store's success: stores differ in which one they say, and clients are used to theirs.
fn done(status: StatusCode) -> Response<ResponseBody> {
    let is_known = matches!(status, StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT);
    reply::empty(if is_known { status } else { StatusCode::OK })
}
