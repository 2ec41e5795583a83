//! All rows as they were at one moment, read while the service goes on changing them.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::{EpochRow, FinishedRow, Row};
use crate::ServiceError;

/// Rows that are handed over at once.
pub(crate) const PAGE_ROWS: u32 = 500;

/// A row of any table, as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A value that is not a row.
    Meta {
        /// Its name.
        name: String,
        /// The value.
        value: Vec<u8>,
    },
    /// A row of a kind.
    Row {
        /// The kind's name.
        kind: String,
        /// The row.
        row: Row,
    },
    /// A registered epoch.
    Epoch(EpochRow),
    /// An upload that was reported finished.
    Finished {
        /// Its object.
        object_id: [u8; 16],
        /// The report.
        row: FinishedRow,
    },
}

/// A snapshot that is being read by a thread of its own. Dropping it ends that.
#[derive(Debug)]
pub struct Snapshot {
    pages: Receiver<Result<Vec<Item>, ServiceError>>,
}

/// Where the thread puts what it reads.
pub(crate) struct Pages(SyncSender<Result<Vec<Item>, ServiceError>>);

impl Snapshot {
    /// Starts the thread and returns when `read` has said that it [began](Pages::begun).
    ///
    /// # Errors
    /// Of `read`, as far as it came before that.
    pub(crate) fn start(
        read: impl FnOnce(&Pages) -> Result<(), ServiceError> + Send + 'static,
    ) -> Result<Self, ServiceError> {
        let (to, pages) = sync_channel(2);
        let run = move || {
            let to = Pages(to);
            // Whoever reads may have gone: then nobody wants to know.
            let _ = to.0.send(read(&to).map(|()| Vec::new()));
        };
        let thread = std::thread::Builder::new().name("snapshot".into()).spawn(run);
        thread.map_err(|e| ServiceError::Database(e.to_string()))?;
        let snapshot = Self { pages };
        snapshot.receive()?;
        Ok(snapshot)
    }

    /// The next rows; `None` after the last. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`]; what was read so far is not all.
    pub fn next_page(&mut self) -> Result<Option<Vec<Item>>, ServiceError> {
        let page = self.receive()?;
        Ok((!page.is_empty()).then_some(page))
    }

    fn receive(&self) -> Result<Vec<Item>, ServiceError> {
        let ended = || ServiceError::Database("the snapshot ended early".to_owned());
        self.pages.recv().map_err(|_| ended())?
    }
}

impl Pages {
    /// From now on the snapshot does not change.
    ///
    /// # Errors
    /// If nobody reads it.
    pub(crate) fn begun(&self) -> Result<(), ServiceError> {
        self.send(Vec::new())
    }

    /// Hands rows over; waits for whoever reads.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub(crate) fn page(&self, items: Vec<Item>) -> Result<(), ServiceError> {
        if items.is_empty() { Ok(()) } else { self.send(items) }
    }

    fn send(&self, items: Vec<Item>) -> Result<(), ServiceError> {
        let gone = |_| ServiceError::Database("nobody reads the snapshot any more".to_owned());
        self.0.send(Ok(items)).map_err(gone)
    }
}
