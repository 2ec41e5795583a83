//! Asking: as much as is answered, or so many requests a second.

mod connection;
pub(crate) mod content;
mod large;
mod metronome;
pub(crate) mod names;
pub(crate) mod streams;
pub(crate) mod target;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use self::connection::Connection;
use self::metronome::Beats;
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
    /// Reads one object that lies on the store's disk, and compares it.
    Download {
        /// Bytes.
        len: u64,
    },
    /// Writes one object, in parts if it is longer than one request may be. Of parts the store keeps the ends.
    Upload {
        /// Bytes.
        len: u64,
    },
    /// Reads the first [`large::RANGE_LEN`] bytes of one part after the other of an object of so many, and compares them.
    Range {
        /// Bytes.
        len: u64,
    },
    /// Asks for a page of 1,000 names in a bucket that holds many.
    Page {
        /// Behind this name; from the beginning if it is empty.
        after: String,
    },
    /// Asks for all pages.
    Walk {
        /// So many names there are.
        names: u64,
    },
    /// Reads one object after the other, each of another epoch.
    Epochs {
        /// So many there are.
        epochs: usize,
    },
}

impl Work {
    /// Bytes of content that one turn moves.
    pub(crate) fn content_len(&self) -> u64 {
        match self {
            Self::Get { len } | Self::Put { len } | Self::Download { len } | Self::Upload { len } => *len,
            Self::Multipart { part_len, parts, .. } => part_len * u64::from(*parts),
            Self::Range { .. } => large::RANGE_LEN,
            Self::List { .. } | Self::Page { .. } | Self::Walk { .. } | Self::Epochs { .. } => 0,
        }
    }

    /// Whether one turn is so much that what a connection costs once is nothing beside it.
    fn is_long(&self) -> bool {
        self.content_len() > 64 << 20 || matches!(self, Self::Walk { .. })
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

/// Connections that are opened at once.
const OPENING_MAX: usize = 16;

/// How long a load is kept up before it counts. Contenders make connections of their own to the store when more is asked for at
/// once than before: what is made once is made by then.
const RUN_IN: Duration = Duration::from_millis(250);

/// Connections that are open and have done one turn each.
pub(crate) struct Crew {
    connections: Vec<Connection>,
    work: Work,
    pace: Pace,
}

impl Crew {
    pub(crate) async fn open(target: &Arc<Target>, work: &Work, pace: Pace) -> Result<Self> {
        let count = match pace {
            Pace::Closed(workers) => workers,
            Pace::PerSecond(_) => OPEN_WORKERS,
        };
        Ok(Self { connections: open(target, Some(work), count).await?, work: work.clone(), pace })
    }

    /// Keeps the load up for a while that does not count, unless its turns are so long that the beginning is nothing beside them.
    pub(crate) async fn run_in(&mut self) -> Result<()> {
        if !self.work.is_long() {
            self.run(RUN_IN).await?;
        }
        Ok(())
    }

    /// Keeps the load up for so long; turns that have begun are done.
    pub(crate) async fn run(&mut self, time: Duration) -> Result<Sample> {
        let connections = std::mem::take(&mut self.connections);
        let begun = Instant::now();
        let end = begun + time;
        let mut workers = JoinSet::new();
        match self.pace {
            Pace::Closed(_) => {
                for connection in connections {
                    workers.spawn(one_after_the_other(connection, self.work.clone(), end));
                }
            }
            Pace::PerSecond(rate) => {
                let beats = metronome::start(connections.len(), Duration::from_secs_f64(1.0 / rate), end)?;
                for (connection, beats) in connections.into_iter().zip(beats) {
                    workers.spawn(when_due(connection, self.work.clone(), beats));
                }
            }
        }
        let mut latencies = Vec::new();
        while let Some(done) = workers.join_next().await {
            let (connection, of_connection) = done??;
            self.connections.push(connection);
            latencies.extend(of_connection);
        }
        let elapsed = begun.elapsed();
        latencies.sort_unstable();
        anyhow::ensure!(!latencies.is_empty(), "nothing was answered in the time");
        let content_len = self.work.content_len() * latencies.len() as u64;
        Ok(Sample { elapsed, content_len, latencies })
    }
}

/// Opens connections, some at a time, and has each do one turn, if that is little.
async fn open(target: &Arc<Target>, first: Option<&Work>, count: usize) -> Result<Vec<Connection>> {
    let mut opening = JoinSet::new();
    let mut connections = Vec::new();
    for number in 0..count {
        if opening.len() == OPENING_MAX
            && let Some(opened) = opening.join_next().await
        {
            connections.push(opened??);
        }
        let (target, first) = (Arc::clone(target), first.filter(|work| !work.is_long()).cloned());
        opening.spawn(async move {
            let mut connection = Connection::open(target, number).await?;
            // The first turn of a connection pays for what is made once: it is not counted.
            if let Some(work) = first {
                connection.turn(&work).await?;
            }
            anyhow::Ok(connection)
        });
    }
    while let Some(opened) = opening.join_next().await {
        connections.push(opened??);
    }
    Ok(connections)
}

async fn one_after_the_other(
    mut connection: Connection,
    work: Work,
    end: Instant,
) -> Result<(Connection, Vec<Duration>)> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        connection.turn(&work).await?;
        latencies.push(begun.elapsed());
    }
    Ok((connection, latencies))
}

/// Latencies count from when a turn was due, not from when it could begin.
async fn when_due(
    mut connection: Connection,
    work: Work,
    mut beats: Beats,
) -> Result<(Connection, Vec<Duration>)> {
    let mut latencies = Vec::new();
    while let Some(due) = beats.recv().await {
        connection.turn(&work).await?;
        latencies.push(due.elapsed());
    }
    Ok((connection, latencies))
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
        Work::Download { len } => connection.write_large(*len).await,
        Work::Range { len } => connection.write_parts(*len).await,
        Work::Put { .. }
        | Work::Multipart { .. }
        | Work::Upload { .. }
        | Work::Page { .. }
        | Work::Walk { .. }
        | Work::Epochs { .. } => Ok(()),
    }
}

/// Deletes what [`prepare`] made, where it is much.
pub(crate) async fn remove(target: &Arc<Target>, work: &Work) -> Result<()> {
    let mut connection = Connection::open(Arc::clone(target), 0).await?;
    match work {
        Work::Download { len } => connection.remove("large", *len).await,
        Work::Range { len } => connection.remove("ends", *len).await,
        _ => Ok(()),
    }
}

/// Writes a small object under whatever epoch is running.
pub(crate) async fn write_in_epoch(target: &Arc<Target>, number: usize) -> Result<()> {
    Connection::open(Arc::clone(target), 0).await?.write_in_epoch(number).await
}

/// Reads the objects of these epochs, each once.
pub(crate) async fn each_epoch_once(
    target: &Arc<Target>,
    epochs: std::ops::Range<usize>,
    count: usize,
) -> Result<Sample> {
    let mut workers = JoinSet::new();
    let begun = Instant::now();
    for worker in 0..count {
        let (target, numbers) = (Arc::clone(target), epochs.clone().skip(worker).step_by(count));
        workers.spawn(async move {
            let mut connection = Connection::open(target, worker).await?;
            let mut latencies = Vec::new();
            for number in numbers {
                let begun = Instant::now();
                connection.read_of_epoch(number as u64).await?;
                latencies.push(begun.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = workers.join_next().await {
        latencies.extend(done??);
    }
    latencies.sort_unstable();
    Ok(Sample { elapsed: begun.elapsed(), content_len: 0, latencies })
}

/// Makes a bucket, if it isn't there.
pub(crate) async fn make_bucket(target: &Arc<Target>) -> Result<()> {
    Connection::open(Arc::clone(target), 0).await?.make_bucket().await
}

/// Deletes everything that was written below the target's prefix.
pub(crate) async fn clean(target: &Arc<Target>) -> Result<()> {
    Connection::open(Arc::clone(target), 0).await?.clean().await
}
