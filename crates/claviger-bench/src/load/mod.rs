//! Asking: as much as is answered, or so many requests a second.

mod connection;
pub(crate) mod content;
pub(crate) mod target;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use self::connection::Connection;
use self::target::Target;

/// What one worker does again and again.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Reads one object of this length.
    Get {
        /// Bytes.
        len: u64,
    },
    /// Writes one object of this length.
    Put {
        /// Bytes.
        len: u64,
    },
    /// Writes one object in parts.
    Multipart {
        /// Bytes of each part.
        part_len: u64,
        /// Their number.
        parts: u32,
        /// Whether the store takes only so many bytes a second.
        limited: bool,
    },
    /// Asks for one page of so many names.
    List {
        /// At most 1,000.
        keys: usize,
    },
}

impl Work {
    /// Bytes of content that one turn moves.
    pub(crate) fn content_len(&self) -> u64 {
        match self {
            Self::Get { len } | Self::Put { len } => *len,
            Self::Multipart { part_len, parts, .. } => part_len * u64::from(*parts),
            Self::List { .. } => 0,
        }
    }
}

/// What came of one load.
pub(crate) struct Sample {
    pub(crate) elapsed: Duration,
    /// Bytes of content.
    pub(crate) content_len: u64,
    /// Of each turn, ascending.
    pub(crate) latencies: Vec<Duration>,
}

impl Sample {
    #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Milliseconds within which this part of the turns was done.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a part of a length"
    )]
    pub(crate) fn quantile_ms(&self, part: f64) -> f64 {
        let at = (self.latencies.len() as f64 * part).ceil() as usize;
        1e3 * self.latencies[at.clamp(1, self.latencies.len()) - 1].as_secs_f64()
    }
}

/// How a load is kept up.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// So many workers, each with one turn after the other.
    Closed(usize),
    /// So many turns begin in a second, whether those before are done or not (up to 64 at once).
    PerSecond(f64),
}

/// Workers of an open load. A turn that finds none free waits, and its wait counts.
const OPEN_WORKERS: usize = 64;

/// Keeps the load up for so long; turns that have begun are done.
pub(crate) async fn run(target: &Arc<Target>, work: &Work, pace: Pace, time: Duration) -> Result<Sample> {
    let count = match pace {
        Pace::Closed(workers) => workers,
        Pace::PerSecond(_) => OPEN_WORKERS,
    };
    let mut connections = Vec::new();
    for number in 0..count {
        let mut connection = Connection::open(Arc::clone(target), number).await?;
        // The first turn of a connection pays for what is made once: it is not counted.
        connection.turn(work).await?;
        connections.push(connection);
    }
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for (number, connection) in connections.into_iter().enumerate() {
        let work = work.clone();
        match pace {
            Pace::Closed(_) => drop(workers.spawn(one_after_the_other(connection, work, begun + time))),
            Pace::PerSecond(rate) => {
                let every = Duration::from_secs_f64(1.0 / rate);
                let first = begun + every.mul_f64(f64::from(u32::try_from(number)?));
                let every = every.mul_f64(f64::from(u32::try_from(count)?));
                drop(workers.spawn(at_times(connection, work, first, every, begun + time)));
            }
        }
    }
    let mut latencies = Vec::new();
    while let Some(done) = workers.join_next().await {
        latencies.extend(done??);
    }
    let elapsed = begun.elapsed();
    latencies.sort_unstable();
    anyhow::ensure!(!latencies.is_empty(), "nothing was answered in the time");
    let content_len = work.content_len() * latencies.len() as u64;
    Ok(Sample { elapsed, content_len, latencies })
}

async fn one_after_the_other(mut connection: Connection, work: Work, end: Instant) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        connection.turn(&work).await?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

/// Latencies count from when a turn was due, not from when it could begin.
async fn at_times(
    mut connection: Connection,
    work: Work,
    first: Instant,
    every: Duration,
    end: Instant,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut due = first;
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        connection.turn(&work).await?;
        latencies.push(due.elapsed());
        due += every;
    }
    Ok(latencies)
}

/// Makes what `work` reads, and shows that it comes back as it was written.
pub(crate) async fn prepare(target: &Arc<Target>, work: &Work) -> Result<()> {
    let mut connection = Connection::open(Arc::clone(target), 0).await?;
    match work {
        Work::Get { len } => connection.write_and_compare(*len).await,
        Work::List { keys } => {
            for number in 0..*keys {
                connection.write_listed(number).await?;
            }
            Ok(())
        }
        Work::Put { .. } | Work::Multipart { .. } => Ok(()),
    }
}

/// Makes a bucket, if it isn't there.
pub(crate) async fn make_bucket(target: &Arc<Target>) -> Result<()> {
    Connection::open(Arc::clone(target), 0).await?.make_bucket().await
}

/// Deletes everything that was written below the target's prefix.
pub(crate) async fn clean(target: &Arc<Target>) -> Result<()> {
    Connection::open(Arc::clone(target), 0).await?.clean().await
}
