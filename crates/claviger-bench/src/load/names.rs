//! Listings of buckets with many names, and what the store was asked for them.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use claviger_s3::xml::ListObjectsV2Result;
use http::Method;

use super::connection::{Connection, document, encode};
use super::target::Target;

/// Names on a page.
pub(crate) const PAGE: u64 = 1_000;

/// The name with this number, as the null store makes them.
pub(crate) fn name(number: u64) -> String {
    format!("2026/11/scan-{number:010}.dcm")
}

impl Connection {
    /// One page, which has to be full.
    pub(super) async fn page_behind(&mut self, after: &str) -> Result<()> {
        let start = if after.is_empty() { String::new() } else { format!("&start-after={}", encode(after)) };
        let (_, page) = self.page(&format!("list-type=2&max-keys={PAGE}{start}")).await?;
        let found = page.matches("<Key>").count() as u64;
        ensure!(found == PAGE, "{found} names on a page behind {after:?}, not {PAGE}");
        Ok(())
    }

    /// All pages; the names have to be those that there are.
    pub(super) async fn walk(&mut self, names: u64) -> Result<()> {
        let (mut found, mut token) = (0, String::new());
        loop {
            let (_, page) =
                self.page(&format!("continuation-token={token}&list-type=2&max-keys={PAGE}")).await?;
            let page = ListObjectsV2Result::parse(page.as_bytes())?;
            for entry in &page.contents {
                ensure!(entry.key == name(found), "{} where {} should be", entry.key, name(found));
                found += 1;
            }
            match page.next_continuation_token {
                Some(next) => token = encode(&next),
                None => break,
            }
        }
        ensure!(found == names, "{found} names in a walk, not {names}");
        Ok(())
    }
}

/// How many requests the null store has had, this one left out.
pub(crate) async fn requests_at(store: &Arc<Target>) -> Result<u64> {
    let mut connection = Connection::open(Arc::clone(store), 0).await?;
    let answer = connection.send_to_service(Method::GET, "requests=", document(Bytes::new())).await?;
    let count: u64 = answer.trim().parse().context("the store counts no requests")?;
    Ok(count - 1)
}
