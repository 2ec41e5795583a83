//! Request bodies: kept, or counted and forgotten, and both no faster than the store is told to be.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

/// Bytes a second of all connections together.
pub(super) struct Limit {
    bytes_per_second: u64,
    free_at: Mutex<Option<Instant>>,
}

impl Limit {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(None) }
    }

    async fn take(&self, len: usize) {
        if self.bytes_per_second == 0 {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let time = Duration::from_secs_f64(len as f64 / self.bytes_per_second as f64);
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let until = free_at.map_or(now, |at| at.max(now)) + time;
            *free_at = Some(until);
            until
        };
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Reads to the end and keeps nothing.
pub(super) async fn forget(mut body: Incoming, limit: Option<&Limit>) -> Result<(), hyper::Error> {
    while let Some(frame) = body.frame().await {
        if let (Ok(data), Some(limit)) = (frame?.into_data(), limit) {
            limit.take(data.len()).await;
        }
    }
    Ok(())
}

/// Reads to the end.
pub(super) async fn keep(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let mut all = BytesMut::with_capacity(usize::try_from(body.size_hint().lower()).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}
