//! Bodies on their way through: what the client sends becomes verified plaintext (`client`), plaintext becomes sealed
//! units (`seal`), and what the provider sends becomes authenticated plaintext (`open`). Each is a pure `poll`
//! adapter: no task and no channel, so backpressure reaches from one socket to the other by itself.

pub(crate) mod client;
pub(crate) mod form;
pub(crate) mod form_heads;
mod frames;
pub(crate) mod open;
pub(crate) mod seal;

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use claviger_s3::error::{ErrorCode, S3Error};

use crate::error::GatewayError;

/// Plaintext that is about to be sealed.
pub(crate) trait PlaintextSource: Send {
    /// The next piece; `None` after the last.
    fn poll_plaintext(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>>;

    /// Called once after the end: whether everything that came was what its sender declared. The commit point
    /// waits for it (docs/format.md §7.4).
    ///
    /// # Errors
    /// `BadDigest` and the like; nothing may be committed then.
    fn verify(&mut self) -> Result<Verified, GatewayError>;
}

/// Reads within a time, however steadily what is read comes; without a bound for `None`.
///
/// # Errors
/// `RequestTimeout`, and those of `reading`.
pub(crate) async fn within<T>(
    timeout: Option<Duration>,
    reading: impl Future<Output = Result<T, GatewayError>>,
) -> Result<T, GatewayError> {
    let Some(timeout) = timeout else { return reading.await };
    let read = tokio::time::timeout(timeout, reading).await;
    read.unwrap_or_else(|_| Err(S3Error::new(ErrorCode::RequestTimeout).into()))
}

/// What the verification of a body leaves for the footer and the answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verified {
    /// The checksums that were computed over a client's body and found right; `None` for a body that did not come
    /// from a client.
    pub client: Option<claviger_s3::checksum::Verified>,
}

impl Verified {
    /// The checksum that the client declared for the body, as the footer keeps it.
    pub(crate) fn footer_checksum(&self) -> Option<claviger_format::checksum::Checksum> {
        let value = self.client.as_ref()?.checksum?;
        Some(crate::ops::checksums::to_format(&claviger_s3::checksum::ObjectChecksum::full(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up_where_there_is_a_bound() {
        let trickling = || async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            Ok(())
        };
        let begun = tokio::time::Instant::now();
        let given_up = within(Some(Duration::from_secs(60)), trickling()).await.unwrap_err();
        assert!(matches!(given_up, GatewayError::S3(error) if error.code() == ErrorCode::RequestTimeout));
        assert_eq!(begun.elapsed(), Duration::from_secs(60));
        assert!(within(None, trickling()).await.is_ok());
    }
}
