//! Tiles are made of the records, and can be made again. A start mends those that it reads (`recovery`); what is damaged while the
//! log is open, or lies further back than a start looks, is mended here, once somebody asks for what is in it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use claviger_audit::builder::Tile;
use claviger_audit::{LogTree, TilePath, Tiles as _};

use super::Shared;
use super::folder::AuditFolder;
use super::head::Known;
use super::tail::Tail;
use super::tile_files::mend_tile;
use crate::ServiceError;

/// Mends behind whoever found that it has to be done; one at a time.
#[derive(Default)]
pub(super) struct Mender {
    stops: Arc<AtomicBool>,
    works: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Mender {
    /// Begins, unless that was done already. If the records themselves are not the ones that were signed the log has failed.
    pub(super) fn begin(&self, folder: &AuditFolder, here: Known, why: &ServiceError, shared: &Arc<Shared>) {
        if self.stops.load(Ordering::Acquire) || self.works.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(%why, "the audit log's tiles are made anew from its records");
        let (folder, shared) = (folder.clone(), Arc::clone(shared));
        let (stops, works) = (Arc::clone(&self.stops), Arc::clone(&self.works));
        let run = move || {
            match rebuild(&folder, here, &|| stops.load(Ordering::Acquire)) {
                Ok(count) => tracing::warn!(count, "tiles of the audit log were made anew"),
                Err(error @ ServiceError::Audit(_)) => {
                    tracing::error!(%error, "the audit log's records were altered: releases stop");
                    shared.failed.store(true, Ordering::Release);
                }
                Err(error) => tracing::error!(%error, "the audit log's tiles can't be made anew"),
            }
            works.store(false, Ordering::Release);
        };
        match std::thread::Builder::new().name("audit-mend".to_owned()).spawn(run) {
            Ok(thread) => {
                *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
            }
            Err(error) => {
                tracing::error!(%error, "the audit log's tiles can't be made anew");
                self.works.store(false, Ordering::Release);
            }
        }
    }

    /// Breaks off what is under way and begins nothing any more.
    pub(super) fn stop(&self) {
        self.stops.store(true, Ordering::Release);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of the audit log panicked");
        }
    }
}

/// Makes again every tile of the first records that is not theirs; how many that were. Nothing is written before the records
/// were held against the root. Blocks for as long as reading all of them takes, unless it is to stop.
///
/// # Errors
/// [`ServiceError::Audit`] if these are not the records; [`ServiceError::Io`].
pub(super) fn rebuild(
    folder: &AuditFolder,
    here: Known,
    stops: &dyn Fn() -> bool,
) -> Result<usize, ServiceError> {
    let mut torn = BTreeSet::new();
    let tree = each_tile(folder, here.size, stops, |(path, bytes)| {
        if folder.tile(&path)?.as_ref() != Some(&bytes) {
            torn.insert(path);
        }
        Ok(())
    })?;
    if stops() {
        return Ok(0);
    }
    if (tree.size(), tree.root()) != (here.size, here.root) {
        let text = format!("its first {} records are not the ones that it was signed for", here.size);
        return Err(ServiceError::Audit(text));
    }
    each_tile(folder, here.size, stops, |(path, bytes)| {
        if torn.contains(&path) { mend_tile(folder, &path, &bytes) } else { Ok(()) }
    })?;
    Ok(torn.len())
}

/// Hands over every tile of the first `size` records, as they follow from the records; the tree of those that are there.
fn each_tile(
    folder: &AuditFolder,
    size: u64,
    stops: &dyn Fn() -> bool,
    mut take: impl FnMut(Tile) -> Result<(), ServiceError>,
) -> Result<LogTree, ServiceError> {
    let (mut tree, mut full, mut outcome) = (LogTree::new(), Vec::new(), Ok(()));
    if size == 0 {
        return Ok(tree);
    }
    Tail::new(folder.clone()).read(|line| {
        tree.push(&line.entry(), &mut full);
        outcome = full.drain(..).try_for_each(&mut take);
        outcome.is_ok() && tree.size() < size && !stops()
    })?;
    outcome?;
    if tree.size() == size {
        // Those that became full since are not needed any more.
        let is_partial = |path: &TilePath| !std::fs::exists(folder.tile_path(&path.full())).unwrap_or(false);
        tree.partials().into_iter().filter(|(path, _)| is_partial(path)).try_for_each(&mut take)?;
    }
    Ok(tree)
}
