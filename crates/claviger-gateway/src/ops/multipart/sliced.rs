//! One sealed stream that is longer than the provider takes in one PUT, cut into the provider's parts. Where it is cut
//! means nothing in the format (docs/format.md §3.2).

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use claviger_s3::xml::CompletedPart;

use super::begun::BegunUpload;
use crate::errands::Errands;
use crate::error::GatewayError;
use crate::upstream::Upstream;
use crate::upstream::body::{Abandoned, Ciphertext, SealedStream, UpstreamBody};
use crate::upstream::mark::Mark;
use crate::upstream::multipart::StoreUpload;
use crate::upstream::object::{StoreAs, Stored};

/// Stored bytes of every slice but the last.
const SLICE_LEN: u64 = 1 << 30;

/// The stream and what was read of it beyond the last slice.
struct Shared {
    stream: Box<dyn SealedStream>,
    rest: Bytes,
}

struct Slice {
    shared: Arc<Mutex<Shared>>,
    left_len: u64,
}

impl SealedStream for Slice {
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
        if self.left_len == 0 {
            return Poll::Ready(None);
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.rest.is_empty() {
            match shared.stream.poll_sealed(cx) {
                Poll::Ready(Some(Ok(sealed))) => shared.rest = sealed.as_bytes().clone(),
                other => return other,
            }
        }
        let take = usize::try_from(self.left_len).unwrap_or(usize::MAX).min(shared.rest.len());
        self.left_len -= take as u64;
        Poll::Ready(Some(Ok(Ciphertext::sealed(shared.rest.split_to(take)))))
    }
}

/// Stores `sealed_len` bytes of `stream` as one object through an upload of the gateway's own.
///
/// # Errors
/// The provider's; the upload is aborted then, and nothing is stored. So it is when the caller goes away.
pub(crate) async fn store(
    errands: &Errands,
    upstream: &Upstream,
    place: (&str, &str),
    store_as: StoreAs<'_>,
    stream: impl SealedStream + 'static,
    sealed_len: u64,
) -> Result<Stored, GatewayError> {
    let condition = store_as.condition;
    let envelope = store_as.envelope.ok_or(GatewayError::Internal("an object without an envelope"))?;
    let store_as = StoreAs { condition: None, ..store_as };
    let begun = BegunUpload::begin(errands, upstream, place, store_as).await?;
    let upload = begun.at_store();
    let shared = Arc::new(Mutex::new(Shared { stream: Box::new(stream), rest: Bytes::new() }));
    let stored = async {
        let parts = store_slices(upstream, upload, &shared, sealed_len).await?;
        upstream.complete_upload(upload, &parts, condition, Mark::Envelope(envelope)).await
    };
    match stored.await {
        Ok(stored) => {
            begun.keep();
            Ok(stored)
        }
        Err(error) => {
            begun.abandon().await;
            Err(error)
        }
    }
}

async fn store_slices(
    upstream: &Upstream,
    upload: StoreUpload<'_>,
    shared: &Arc<Mutex<Shared>>,
    sealed_len: u64,
) -> Result<Vec<CompletedPart>, GatewayError> {
    let mut parts = Vec::new();
    let mut left_len = sealed_len;
    for part_number in 1.. {
        let len = left_len.min(SLICE_LEN);
        let slice = Slice { shared: shared.clone(), left_len: len };
        let body = UpstreamBody::stream(Box::new(slice), len);
        let etag = upstream.upload_part(upload, part_number, body).await?;
        parts.push(CompletedPart { part_number, etag: etag.as_str().to_owned(), checksum: None });
        left_len -= len;
        if left_len == 0 {
            break;
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::begun::tests::{next, store as store_double};
    use super::*;

    /// A client that has sent nothing yet.
    struct Silent;

    impl SealedStream for Silent {
        fn poll_sealed(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_transfer_that_is_broken_off_leaves_no_upload() {
        let (upstream, mut requests) = store_double(Duration::ZERO).await;
        let errands = Errands::new();
        let store_as = StoreAs { envelope: Some("e"), ..StoreAs::default() };
        let transfer = store(&errands, &upstream, ("b", "k"), store_as, Silent, SLICE_LEN + 1);
        assert!(tokio::time::timeout(Duration::from_millis(300), transfer).await.is_err());
        assert!(next(&mut requests).await.starts_with("POST /b/k?uploads"));
        let (part, last) = (next(&mut requests).await, next(&mut requests).await);
        assert!(part.starts_with("PUT /b/k?") && part.contains("partNumber=1"), "{part}");
        assert!(last.starts_with("DELETE /b/k?uploadId=u1"), "{last}");
        errands.settled().await;
    }
}
