//! Objects that nobody holds as a whole: made while they are written, compared while they are read.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use claviger_s3::xml::InitiateMultipartUploadResult;
use http::Method;
use http::header::{ETAG, HeaderValue, RANGE};
use http_body_util::BodyExt as _;

use super::connection::{Connection, content_part, document};
use super::content::Content;

/// Bytes of a range.
pub(crate) const RANGE_LEN: u64 = 64 << 10;
/// Bytes of a part. The store has the first of each.
pub(crate) const PART_LEN: u64 = 64 << 20;
/// What one PUT may have (S3).
pub(crate) const PUT_LEN_MAX: u64 = 5 << 30;
/// Bytes of the objects that are written for epochs.
const IN_EPOCH_LEN: u64 = 1024;

impl Connection {
    pub(super) async fn write_large(&mut self, len: u64) -> Result<()> {
        let key = self.target.key("large", len);
        self.send(Method::PUT, &key, "", content_part(0, len)).await.map(drop)
    }

    /// All of it, and at each place what belongs there.
    pub(super) async fn download(&mut self, len: u64) -> Result<()> {
        let key = self.target.key("large", len);
        let mut body = self.send_raw(Method::GET, &key, "", document(Bytes::new())).await?.into_body();
        let mut at = 0;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                ensure!(Content::is_at(at, &data), "{key} came back with other content at {at}");
                at += data.len() as u64;
            }
        }
        ensure!(at == len, "{key} came back with {at} bytes, not {len}");
        Ok(())
    }

    pub(super) async fn upload(&mut self, len: u64) -> Result<()> {
        if len > PUT_LEN_MAX {
            return self.write_parts(len).await;
        }
        let key = self.target.key("put", format_args!("{len}-{}", self.number));
        self.send(Method::PUT, &key, "", content_part(0, len)).await.map(drop)
    }

    pub(super) async fn write_parts(&mut self, len: u64) -> Result<()> {
        let key = self.target.key("ends", len);
        let begun = self.send(Method::POST, &key, "uploads=", document(Bytes::new())).await?;
        let id = InitiateMultipartUploadResult::parse(begun.1.as_bytes())?.upload_id;
        let mut list = String::new();
        for part in 0..len.div_ceil(PART_LEN) {
            let (at, number) = (part * PART_LEN, part + 1);
            let body = content_part(at, PART_LEN.min(len - at));
            let query = format!("partNumber={number}&uploadId={id}");
            let (headers, _) = self.send(Method::PUT, &key, &query, body).await?;
            let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok()).context("no ETag")?;
            list.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
        }
        let list = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let done = self.send(Method::POST, &key, &format!("uploadId={id}"), document(list)).await?;
        ensure!(done.1.contains("<ETag>"), "{key} was not completed: {}", done.1);
        Ok(())
    }

    /// The beginning of one part; of another one each time, far from the last.
    pub(super) async fn range(&mut self, len: u64) -> Result<()> {
        let key = self.target.key("ends", len);
        let part = (self.turns + self.number as u64).wrapping_mul(7919) % (len / PART_LEN).max(1);
        self.turns += 1;
        let first = part * PART_LEN;
        let range = format!("bytes={first}-{}", first + RANGE_LEN - 1);
        let range = (RANGE, HeaderValue::from_str(&range)?);
        let answer = self.exchange_with(Method::GET, &key, "", document(Bytes::new()), Some(range)).await?;
        let status = answer.status();
        let found = answer.into_body().collect().await?.to_bytes();
        ensure!(status == 206, "{key} from {first}: {status} {}", String::from_utf8_lossy(&found));
        ensure!(found.len() as u64 == RANGE_LEN, "{key} from {first}: {} bytes", found.len());
        ensure!(Content::is_at(first, &found), "{key} came back with other content at {first}");
        Ok(())
    }

    pub(super) async fn remove(&mut self, area: &str, len: u64) -> Result<()> {
        let key = self.target.key(area, len);
        self.send(Method::DELETE, &key, "", document(Bytes::new())).await.map(drop)
    }

    pub(super) async fn write_in_epoch(&mut self, number: usize) -> Result<()> {
        let key = self.target.key("epochs", number);
        self.send(Method::PUT, &key, "", content_part(0, IN_EPOCH_LEN)).await.map(drop)
    }

    /// The object of the next epoch. Connections begin at different ones.
    pub(super) async fn read_of_next_epoch(&mut self, epochs: usize) -> Result<()> {
        let number = (self.turns + 7919 * self.number as u64) % epochs.max(1) as u64;
        self.turns += 1;
        self.read_of_epoch(number).await
    }

    pub(super) async fn read_of_epoch(&mut self, number: u64) -> Result<()> {
        let key = self.target.key("epochs", number);
        let body = self.send_raw(Method::GET, &key, "", document(Bytes::new())).await?.into_body();
        let found = body.collect().await?.to_bytes();
        ensure!(found.len() as u64 == IN_EPOCH_LEN && Content::is_at(0, &found), "{key} came back changed");
        Ok(())
    }
}
