//! The log as it shows itself to whoever remembers an earlier checkpoint of it.
//!
//! Tiles are files that somebody can damage or remove. So nothing is said from them before it was held against a root that
//! does not come from a file: that of the checkpoint in memory, or that of the tree which the keeper holds.

use claviger_audit::proof::{prove_consistency, verify_consistency};
use claviger_audit::tree::root;
use claviger_audit::{Hash, TileTree};
use claviger_keyapi::routes::LogHead;

use super::AuditLog;
use super::folder::AuditFolder;
use super::rebuild::rebuild;
use crate::ServiceError;
use crate::outside::Evidence;

/// So many records have this root.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) size: u64,
    pub(super) root: Hash,
}

impl AuditLog {
    /// The newest checkpoint that is in the file, and the proof that it continues the first `from` records. The one in the file,
    /// because its tiles are there, and because it can't be lost again; but from memory, so that nobody who can
    /// remove the file keeps the service from showing it. `logs` are the keys of all logs of the service.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] while there is no key that signs, or if the tree's files don't fit the checkpoint: they are made
    /// again from the records meanwhile; [`ServiceError::Io`].
    pub(crate) fn head(&self, from: u64, logs: Vec<String>) -> Result<LogHead, ServiceError> {
        let not_yet = || ServiceError::Audit("it has no checkpoint yet".to_owned());
        let key = self.verifier().ok_or_else(not_yet)?;
        let folder = self.folder.as_ref().ok_or_else(not_yet)?;
        let signed = self.shared.written.load_full().ok_or_else(not_yet)?;
        let Known { size, root } = known(&signed);
        let proof = if from <= size {
            let checked = self.checked(folder, from, Known { size, root });
            checked.inspect_err(|why| self.mend_behind(folder, Known { size, root }, why))?.1
        } else {
            Vec::new()
        };
        Ok(LogHead {
            key: key.to_string(),
            checkpoint: signed.note().to_string(),
            proof: proof.iter().map(Hash::to_base64).collect(),
            logs,
            state: None,
        })
    }

    /// Whether one of these checkpoints, all signed with this log's key, is of other records than the ones here; the first that
    /// is, in words. Blocks. While checkpoints are signed it is the one in the file that they are held against: nobody
    /// can know of a later one.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if the log has failed or its tree's files don't fit.
    pub(crate) fn contradicts(&self, evidence: &[Evidence]) -> Result<Option<String>, ServiceError> {
        // A log without files is one of a test.
        let Some(folder) = &self.folder else { return Ok(None) };
        let written = self.verifier().and_then(|_| self.shared.written.load_full());
        let here = match &written {
            Some(signed) => known(signed),
            None => {
                let (size, root) = self.settled()?;
                Known { size, root }
            }
        };
        for Evidence { whose, checkpoint } in evidence {
            let head = checkpoint.checkpoint();
            if head.size > here.size {
                // It is in the file a moment before it is remembered as written.
                let newest = self.checkpoint().filter(|_| written.is_some());
                if newest.is_some_and(|newest| newest.checkpoint() == head) {
                    continue;
                }
                return Ok(Some(format!(
                    "the audit log has {} records, and {whose} remembers {}: the service was put back to an earlier state",
                    here.size, head.size
                )));
            }
            let found = match self.checked(folder, head.size, here) {
                Err(why) if written.is_some() => {
                    self.mend_behind(folder, here, &why);
                    return Err(why);
                }
                Err(why) => {
                    tracing::warn!(%why, "the audit log's tiles are made anew from its records");
                    rebuild(folder, here, &|| false)?;
                    self.checked(folder, head.size, here)?
                }
                found => found?,
            };
            if found.0 != head.root {
                return Ok(Some(format!(
                    "the first {} records of the audit log are not the ones that {whose} remembers: the service was put back to \
                     an earlier state and has written on since",
                    head.size
                )));
            }
        }
        Ok(None)
    }

    /// The root of the first `from` records, and the proof that those here continue them, once both were held against what is
    /// known. A tile that is replaced by a wider one just now is read again.
    fn checked(
        &self,
        folder: &AuditFolder,
        from: u64,
        here: Known,
    ) -> Result<(Hash, Vec<Hash>), ServiceError> {
        prove(folder, from, here).or_else(|_| prove(folder, from, here))
    }

    fn mend_behind(&self, folder: &AuditFolder, here: Known, why: &ServiceError) {
        self.mender.begin(folder, here, why, &self.shared);
    }
}

fn known(signed: &claviger_audit::SignedCheckpoint) -> Known {
    Known { size: signed.checkpoint().size, root: signed.checkpoint().root }
}

fn prove(folder: &AuditFolder, from: u64, here: Known) -> Result<(Hash, Vec<Hash>), ServiceError> {
    let broken = |what: String| ServiceError::Audit(format!("its tree can't be read: {what}"));
    let tiles = TileTree::new(folder, here.size);
    let from_root = root(&tiles, from).map_err(|error| broken(error.to_string()))?;
    let proof = prove_consistency(&tiles, from, here.size).map_err(|error| broken(error.to_string()))?;
    verify_consistency(from, &from_root, here.size, &here.root, &proof)
        .map_err(|_| broken("its tiles don't lead to its root".to_owned()))?;
    Ok((from_root, proof))
}
