//! The log as it shows itself to whoever remembers an earlier checkpoint of it.

use claviger_audit::proof::prove_consistency;
use claviger_audit::tree::root;
use claviger_audit::{SignedCheckpoint, TileTree};
use claviger_keyapi::routes::LogHead;

use super::AuditLog;
use crate::ServiceError;
use crate::outside::Evidence;

impl AuditLog {
    /// The checkpoint in the file, and the proof that it continues the first `from` records. The one in the file, because its
    /// tiles are there, and because what lies there can't be lost again.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] while there is no key that signs, or if the tree's files don't fit the checkpoint;
    /// [`ServiceError::Io`].
    pub(crate) fn head(&self, from: u64) -> Result<LogHead, ServiceError> {
        let not_yet = || ServiceError::Audit("it has no checkpoint yet".to_owned());
        let key = self.verifier().ok_or_else(not_yet)?;
        let folder = self.folder.as_ref().ok_or_else(not_yet)?;
        let bytes = folder.checkpoint()?.ok_or_else(not_yet)?;
        let signed = SignedCheckpoint::open(&bytes, &key).map_err(|error| broken(&error.to_string()))?;
        let size = signed.checkpoint().size;
        let proof = if from <= size {
            prove_consistency(&TileTree::new(folder, size), from, size)
                .map_err(|error| broken(&error.to_string()))?
        } else {
            Vec::new()
        };
        Ok(LogHead {
            key: key.to_string(),
            checkpoint: signed.note().to_string(),
            proof: proof.iter().map(claviger_audit::Hash::to_base64).collect(),
        })
    }

    /// Whether one of these checkpoints, all signed with this log's key, is of other records than the ones here; the first that
    /// is, in words. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if the log has failed or its tree's files don't fit.
    pub(crate) fn contradicts(&self, evidence: &[Evidence]) -> Result<Option<String>, ServiceError> {
        // A log without files is one of a test.
        let Some(folder) = &self.folder else { return Ok(None) };
        let size = self.settled_size()?;
        let tiles = TileTree::new(folder, size);
        for Evidence { whose, checkpoint } in evidence {
            let head = checkpoint.checkpoint();
            if head.size > size {
                return Ok(Some(format!(
                    "the audit log has {size} records, and {whose} remembers {}: the service was put back to an earlier state",
                    head.size
                )));
            }
            if root(&tiles, head.size).map_err(|error| broken(&error.to_string()))? != head.root {
                return Ok(Some(format!(
                    "the first {} records of the audit log are not the ones that {whose} remembers: the service was put back to \
                     an earlier state and has written on since",
                    head.size
                )));
            }
        }
        Ok(None)
    }
}

fn broken(what: &str) -> ServiceError {
    ServiceError::Audit(format!("its tree can't be read: {what}"))
}
