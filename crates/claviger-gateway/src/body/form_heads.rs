//! Who reads the beginnings of forms: a form says who signed it in its body, so anybody can make the gateway wait for one.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::within;
use crate::error::GatewayError;

/// One in so many of the requests in flight may be a form of which nobody knows yet whose it is …
const REQUESTS_PER_HEAD: usize = 8;
/// … beside one in so many that have only just come: nearly every form has its fields in its first packets.
const REQUESTS_PER_ARRIVING: usize = 4;
/// How long a form has only just come.
const MOMENT: Duration = Duration::from_millis(250);
/// For all that precedes the file of a form, however steadily it comes.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// Bounds how many forms are read at once before it is known who signed them, and for how long each of them.
#[derive(Debug)]
pub(crate) struct FormHeads {
    arriving: Semaphore,
    places: Semaphore,
    timeout: Duration,
}

impl FormHeads {
    /// For a gateway that serves `requests_max` requests at once, and waits for a request's headers for `header_timeout`.
    pub(crate) fn new(requests_max: usize, header_timeout: Duration) -> Self {
        let one_in = |so_many: usize| Semaphore::new((requests_max / so_many).max(1));
        Self {
            arriving: one_in(REQUESTS_PER_ARRIVING),
            places: one_in(REQUESTS_PER_HEAD),
            timeout: TIMEOUT_MAX.min(header_timeout),
        }
    }

    /// Waits for the beginning of a form. Only one that is not there after a moment takes a place, so that those who
    /// hold all of them keep nobody else's form out.
    ///
    /// # Errors
    /// [`GatewayError::Busy`] while too many others are read, `RequestTimeout` when it does not come in time, and
    /// those of `reading`.
    pub(crate) async fn read<T>(
        &self,
        reading: impl Future<Output = Result<T, GatewayError>>,
    ) -> Result<T, GatewayError> {
        let mut reading = pin!(reading);
        if let Ok(_arriving) = self.arriving.try_acquire()
            && let Ok(read) = tokio::time::timeout(MOMENT, &mut reading).await
        {
            return read;
        }
        let busy =
            |_| GatewayError::Busy("too many forms are being read of which nobody knows yet whose they are");
        let _place = self.places.try_acquire().map_err(busy)?;
        within(Some(self.timeout), reading).await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use claviger_s3::error::ErrorCode;
    use futures_util::FutureExt as _;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_form_that_trickles_is_given_up_in_time() {
        for (header_timeout, expected) in [(TIMEOUT, TIMEOUT_MAX), (MOMENT, MOMENT)] {
            let heads = FormHeads::new(512, header_timeout);
            let begun = tokio::time::Instant::now();
            let trickling = async {
                loop {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
            };
            let given_up = heads.read::<()>(trickling).await.unwrap_err();
            assert!(matches!(given_up, GatewayError::S3(error) if error.code() == ErrorCode::RequestTimeout));
            assert_eq!(begun.elapsed(), MOMENT + expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn forms_of_nobody_knows_whom_take_an_eighth_of_the_requests_and_keep_no_whole_form_out() {
        for (requests_max, places) in [(512, 64), (8, 1), (1, 1)] {
            let heads = FormHeads::new(requests_max, TIMEOUT);
            let mut waiting: Vec<_> = Vec::new();
            for _ in 0..places {
                waiting.push(Box::pin(heads.read::<()>(pending())));
                assert!(tokio::time::timeout(MOMENT * 2, waiting.last_mut().unwrap()).await.is_err());
            }
            assert!(matches!(heads.read::<()>(pending()).await, Err(GatewayError::Busy(_))));
            // One whose fields come at once, or nearly so, needs no place.
            assert!(heads.read(ready(Ok(()))).await.is_ok());
            let soon = async {
                tokio::time::sleep(MOMENT / 2).await;
                Ok(())
            };
            assert!(heads.read(soon).await.is_ok());
            waiting.pop();
            let late = async {
                tokio::time::sleep(MOMENT * 2).await;
                Ok(())
            };
            assert!(heads.read(late).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_have_only_just_come_are_a_quarter_of_the_requests() {
        let heads = FormHeads::new(64, TIMEOUT);
        let mut waiting: Vec<_> = (0..16 + 8).map(|_| Box::pin(heads.read::<()>(pending()))).collect();
        for read in &mut waiting {
            assert!(read.now_or_never().is_none());
        }
        assert!(matches!(heads.read(ready(Ok(()))).await, Err(GatewayError::Busy(_))));
    }
}
