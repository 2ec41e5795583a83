//! Who reads the beginnings of forms: a form says who signed it in its body, so anybody can make the gateway wait for one.

use std::future::Future;
use std::time::Duration;

use claviger_s3::error::{ErrorCode, S3Error};
use tokio::sync::Semaphore;

use crate::error::GatewayError;

/// One in so many of the requests in flight may be a form of which nobody knows yet whose it is.
const REQUESTS_PER_HEAD: usize = 8;

/// Bounds how many forms are read at once before it is known who signed them, and for how long each of them.
#[derive(Debug)]
pub(crate) struct FormHeads {
    places: Semaphore,
    timeout: Duration,
}

impl FormHeads {
    /// For a gateway that serves `requests_max` requests at once. `timeout` is for all that precedes the file of a form,
    /// however steadily it comes.
    pub(crate) fn new(requests_max: usize, timeout: Duration) -> Self {
        Self { places: Semaphore::new((requests_max / REQUESTS_PER_HEAD).max(1)), timeout }
    }

    /// Waits for the beginning of a form.
    ///
    /// # Errors
    /// [`GatewayError::Busy`] while too many others are read, `RequestTimeout` when it does not come in time, and
    /// those of `reading`.
    pub(crate) async fn read<T>(
        &self,
        reading: impl Future<Output = Result<T, GatewayError>>,
    ) -> Result<T, GatewayError> {
        let busy =
            |_| GatewayError::Busy("too many forms are being read of which nobody knows yet whose they are");
        let _place = self.places.try_acquire().map_err(busy)?;
        let read = tokio::time::timeout(self.timeout, reading).await;
        read.unwrap_or_else(|_| Err(S3Error::new(ErrorCode::RequestTimeout).into()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt as _;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_form_that_trickles_is_given_up_in_time() {
        let heads = FormHeads::new(512, TIMEOUT);
        let begun = tokio::time::Instant::now();
        let trickling = async {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        };
        let given_up = heads.read::<()>(trickling).await.unwrap_err();
        assert!(matches!(given_up, GatewayError::S3(error) if error.code() == ErrorCode::RequestTimeout));
        assert_eq!(begun.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn forms_of_nobody_knows_whom_take_an_eighth_of_the_requests() {
        for (requests_max, places) in [(512, 64), (8, 1), (1, 1)] {
            let heads = FormHeads::new(requests_max, TIMEOUT);
            let mut waiting: Vec<_> = (0..places).map(|_| Box::pin(heads.read::<()>(pending()))).collect();
            for read in &mut waiting {
                assert!(read.now_or_never().is_none());
            }
            assert!(matches!(heads.read(ready(Ok(()))).await, Err(GatewayError::Busy(_))));
            waiting.pop();
            assert!(heads.read(ready(Ok(()))).await.is_ok());
            assert!(heads.read(ready(Ok(()))).await.is_ok());
        }
    }
}
