//! Request bodies: kept, or counted and forgotten, and both no faster than the store is told to be.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::content::Content;

/// Bytes that are kept of each end of a part.
const END_LEN: usize = 128 << 10;

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

/// Reads to the end, into a file that is gone when nobody needs it any more.
pub(super) async fn keep_on_disk(mut body: Incoming, dir: &Path) -> anyhow::Result<Content> {
    let mut file = tempfile::tempfile_in(dir)?;
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            file.write_all(&data)?;
            len += data.len() as u64;
        }
    }
    Ok(Content::of_file(file, len))
}

/// Reads to the end, and keeps what comes first and what comes last.
pub(super) async fn keep_ends(mut body: Incoming) -> Result<Content, hyper::Error> {
    let mut ends = Ends::default();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            ends.take(&data);
        }
    }
    Ok(ends.into_content())
}

/// The first [`END_LEN`] bytes of what came, and at least the last.
#[derive(Default)]
struct Ends {
    begin: BytesMut,
    gone_len: u64,
    end: BytesMut,
}

impl Ends {
    fn take(&mut self, data: &[u8]) {
        let (first, rest) = data.split_at(data.len().min(END_LEN - self.begin.len()));
        self.begin.extend_from_slice(first);
        self.end.extend_from_slice(rest);
        // Not at each piece: what stays is moved.
        if self.end.len() > 8 * END_LEN {
            self.forget_middle();
        }
    }

    fn forget_middle(&mut self) {
        let gone_len = self.end.len().saturating_sub(END_LEN);
        self.end = BytesMut::from(&self.end[gone_len..]);
        self.gone_len += gone_len as u64;
    }

    fn into_content(mut self) -> Content {
        self.forget_middle();
        Content::of_ends(self.begin.freeze(), self.gone_len, self.end.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_ends_are_kept_however_the_pieces_fall() {
        let all: Vec<u8> = (0..=250).cycle().take(21 * END_LEN + 77).collect();
        for piece_len in [1000, END_LEN, 3 * END_LEN + 1, all.len()] {
            let mut ends = Ends::default();
            all.chunks(piece_len).for_each(|piece| ends.take(piece));
            let content = ends.into_content();
            let len = all.len() as u64;
            assert_eq!(content.len(), len);
            let end_len = END_LEN as u64;
            for (first, last) in [(0, end_len - 1), (len - end_len, len - 1)] {
                let body = content.range(first, last).unwrap().to_body().unwrap();
                let found = body.collect().await.unwrap().to_bytes();
                assert!(found == all[usize::try_from(first).unwrap()..=usize::try_from(last).unwrap()]);
            }
            assert!(content.range(end_len, end_len).is_none());
        }
    }

    #[test]
    fn something_short_is_kept_as_a_whole() {
        let mut ends = Ends::default();
        ends.take(&[7; 3 * END_LEN / 2]);
        assert!(ends.into_content().to_body().is_some());
    }
}
