//! The answer to a Complete that takes long: 200 at once, spaces while it lasts, then the result or the error, as S3
//! does it, so that no client or proxy in between gives up.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::complete::Completed;
use crate::error::GatewayError;
use crate::server::{BodyError, RequestMeta, ResponseBody};

/// Between two spaces.
const EVERY: Duration = Duration::from_secs(10);
const DECLARATION: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

type Completion = JoinHandle<Result<Completed, GatewayError>>;

/// The head of the answer now, the document when `completion` has ended.
pub(crate) fn respond(
    completion: Completion,
    resource: String,
    meta: &RequestMeta,
) -> Response<ResponseBody> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let body = LateAnswer {
        completion: Some(completion),
        ticks,
        begun: false,
        resource,
        request_id: meta.request_id.to_string(),
        host_id: meta.host_id.to_string(),
    };
    let mut response = Response::new(body.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(claviger_s3::xml::CONTENT_TYPE));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

struct LateAnswer {
    completion: Option<Completion>,
    ticks: Interval,
    begun: bool,
    resource: String,
    request_id: String,
    host_id: String,
}

impl LateAnswer {
    fn document(&self, completed: Result<Completed, GatewayError>) -> Bytes {
        let document = match completed {
            Ok(completed) => completed.result.to_xml(),
            Err(error) => {
                tracing::warn!(blame = error.blame().as_str(), %error, "a Complete failed after its answer had begun");
                error.count();
                error.to_s3(&self.resource).to_xml(&self.request_id, &self.host_id)
            }
        };
        // The declaration is out already.
        let begins = if document.starts_with(DECLARATION) { DECLARATION.len() } else { 0 };
        document.slice(begins..)
    }
}

impl Body for LateAnswer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !std::mem::replace(&mut self.begun, true) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(DECLARATION)))));
        }
        let Some(completion) = &mut self.completion else { return Poll::Ready(None) };
        if let Poll::Ready(ended) = Pin::new(completion).poll(cx) {
            self.completion = None;
            let panicked = |_| GatewayError::Internal("the completion of an upload panicked");
            let document = self.document(ended.map_err(panicked).flatten());
            return Poll::Ready(Some(Ok(Frame::data(document))));
        }
        self.ticks.poll_tick(cx).map(|_| Some(Ok(Frame::data(Bytes::from_static(b" ")))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_s3::error::{ErrorCode, S3Error};
    use claviger_s3::xml::CompleteMultipartUploadResult;

    use crate::upstream::passed::Passed;

    async fn answer(result: Result<CompleteMultipartUploadResult, GatewayError>) -> String {
        let completion = tokio::spawn(async {
            tokio::time::sleep(EVERY * 3 + EVERY / 2).await;
            result.map(|result| Completed { result, passed: Passed::default() })
        });
        let body = LateAnswer {
            completion: Some(completion),
            ticks: interval(EVERY),
            begun: false,
            resource: "/b/k".to_owned(),
            request_id: "RID".to_owned(),
            host_id: "HID".to_owned(),
        };
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn spaces_come_until_the_result_is_there() {
        let result = CompleteMultipartUploadResult { etag: "e-1".to_owned(), ..Default::default() };
        let expected = result.to_xml();
        let text = answer(Ok(result)).await;
        let (declaration, rest) = text.split_at(DECLARATION.len());
        assert_eq!(declaration.as_bytes(), DECLARATION);
        assert!(rest.starts_with("   "), "{rest}");
        assert_eq!(rest.trim_start().as_bytes(), &expected[DECLARATION.len()..]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_failure_is_an_error_document() {
        let text = answer(Err(S3Error::new(ErrorCode::InvalidPart).into())).await;
        assert!(
            text.contains("<Code>InvalidPart</Code>") && text.contains("<RequestId>RID</RequestId>"),
            "{text}"
        );
        assert_eq!(text.matches("<?xml").count(), 1);
    }
}
