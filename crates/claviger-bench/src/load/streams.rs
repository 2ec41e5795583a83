//! Many long reads at once, broken off after a while: what counts is what they hold meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;

use super::Sample;
use super::connection::{Connection, document};
use super::content::Content;
use super::target::Target;

/// Opens so many connections.
pub(crate) async fn open(target: &Arc<Target>, count: usize) -> Result<Streams> {
    Ok(Streams(super::open(target, None, count).await?))
}

/// Connections that are open.
pub(crate) struct Streams(Vec<Connection>);

impl Streams {
    /// Reads one object by all of them at once, again and again, until `time` is over. Latencies are those to the first byte of
    /// the first answer.
    pub(crate) async fn run(self, len: u64, time: Duration) -> Result<Sample> {
        read_all(self.0, len, time).await
    }
}

async fn read_all(connections: Vec<Connection>, len: u64, time: Duration) -> Result<Sample> {
    let mut workers = JoinSet::new();
    let begun = Instant::now();
    for connection in connections {
        workers.spawn(read(connection, len, begun + time));
    }
    let (mut latencies, mut content_len) = (Vec::new(), 0);
    while let Some(done) = workers.join_next().await {
        let (first, read_len) = done??;
        latencies.push(first);
        content_len += read_len;
    }
    latencies.sort_unstable();
    Ok(Sample { elapsed: begun.elapsed(), content_len, latencies })
}

async fn read(mut connection: Connection, len: u64, end: Instant) -> Result<(Duration, u64)> {
    let key = connection.target.key("large", len);
    let begun = Instant::now();
    let (mut first, mut total) = (None, 0);
    while Instant::now() < end || first.is_none() {
        let mut body = connection.send_raw(Method::GET, &key, "", document(Bytes::new())).await?.into_body();
        let mut at = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            first.get_or_insert_with(|| begun.elapsed());
            ensure!(Content::is_at(at, &data), "{key} came back with other content at {at}");
            at += data.len() as u64;
            total += data.len() as u64;
            if Instant::now() >= end {
                return Ok((first.unwrap_or_default(), total));
            }
        }
        ensure!(at == len, "{key} came back with {at} bytes, not {len}");
    }
    Ok((first.unwrap_or_default(), total))
}
