//! The log without the service: verified, read and proved from its folder or a copy of it. Needs no secret and writes nothing.

use claviger_audit::line::LineError;
use claviger_audit::proof::{prove_inclusion, verify_inclusion};
use claviger_audit::verify::{Fault, Remembered, Report};
use claviger_audit::{
    Checkpoint, Line, LogLine, LogProof, Note, SignedCheckpoint, TileTree, Verifier, VerifierKey, leaf_hash,
};

use super::folder::{AuditFolder, Lines, Next, line_at};
use crate::ServiceError;

/// Why a log, or something about it, is not believed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// It can't be read: that says nothing about it.
    #[error(transparent)]
    Unreadable(ServiceError),
    /// It does not verify.
    #[error("the log does not verify: {0}")]
    Fault(#[source] Fault<ServiceError>),
    /// Its own checkpoint is missing or not its own.
    #[error("the log does not verify: {0}")]
    Checkpoint(String),
    /// There is no such record, or none that could be proved.
    #[error("{0}")]
    NotThere(String),
}

impl From<ServiceError> for OfflineError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Audit(what) => Self::Checkpoint(what),
            other => Self::Unreadable(other),
        }
    }
}

impl From<Fault<ServiceError>> for OfflineError {
    fn from(fault: Fault<ServiceError>) -> Self {
        match fault {
            Fault::Read(error) => error.into(),
            fault => Self::Fault(fault),
        }
    }
}

/// What a log that verified holds.
#[derive(Debug)]
pub struct Verified {
    /// Counts.
    pub report: Report,
    /// Its own checkpoint.
    pub checkpoint: SignedCheckpoint,
    /// Bytes at the end that are no whole record: one that was being written when the copy was made, or before a crash.
    pub unfinished_len: usize,
}

impl AuditFolder {
    /// Verifies everything: that the records are those which this key signed for, in their order and none missing, that the tiles
    /// are theirs, and that `remembered` checkpoints are of this log.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn verify(&self, key: &VerifierKey, remembered: Vec<Remembered>) -> Result<Verified, OfflineError> {
        self.verify_each(key, remembered, |_| {})
    }

    /// The same, and hands over every line, in order. What was handed over is worth nothing before this returns: then these lines,
    /// and no others, are verified.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn verify_each(
        &self,
        key: &VerifierKey,
        remembered: Vec<Remembered>,
        mut take: impl FnMut(&LogLine<'_>),
    ) -> Result<Verified, OfflineError> {
        let missing = || OfflineError::Checkpoint("there is no checkpoint in its folder".into());
        let bytes = self.checkpoint()?.ok_or_else(missing)?;
        let checkpoint = SignedCheckpoint::open(&bytes, key)
            .map_err(|error| OfflineError::Checkpoint(format!("the checkpoint in its folder: {error}")))?;
        let name = "the checkpoint in its folder".to_owned();
        let own = Remembered { name, checkpoint: checkpoint.clone() };
        let mut verifier = Verifier::new(self, self.tiles()?, own, remembered)?;
        let mut unfinished_len = 0;
        for file in self.files()? {
            if unfinished_len > 0 {
                let index = verifier.next_index();
                return Err(Fault::Line { index, error: LineError::Frame }.into());
            }
            verifier.file(file.first_index)?;
            let mut lines = Lines::open(&file)?;
            loop {
                match lines.read()? {
                    // Only the last file may end so.
                    Next::Unfinished(len) => {
                        unfinished_len = len;
                        break;
                    }
                    Next::Line(line) => take(&verifier.line(line)?),
                    Next::End => break,
                }
            }
        }
        Ok(Verified { report: verifier.finish()?, checkpoint, unfinished_len })
    }

    /// Hands every record from this index on to `take`, in order, until it returns `false`, and gives how many on the way were
    /// pruned. That they are as they were written is for [`Self::verify`] to tell.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] for what is not a record; [`ServiceError::Io`].
    pub fn for_each_record(
        &self,
        from_index: u64,
        mut take: impl FnMut(&Line<'_>) -> bool,
    ) -> Result<u64, ServiceError> {
        let mut pruned = 0;
        self.for_each_line(from_index, |line| match line {
            LogLine::Record(line) => take(line),
            LogLine::Pruned(_) => {
                pruned += 1;
                true
            }
        })?;
        Ok(pruned)
    }

    /// The same with the places of records that were pruned.
    ///
    /// # Errors
    /// As [`Self::for_each_record`].
    pub fn for_each_line(
        &self,
        from_index: u64,
        mut take: impl FnMut(&LogLine<'_>) -> bool,
    ) -> Result<(), ServiceError> {
        let files = self.files()?;
        let first = files.partition_point(|file| file.first_index <= from_index).saturating_sub(1);
        for file in &files[first.min(files.len())..] {
            let mut lines = Lines::open(file)?;
            let mut index = file.first_index;
            while let Next::Line(bytes) = lines.read()? {
                let line = line_at(&file.path, bytes, index)?;
                if index >= from_index && !take(&line) {
                    return Ok(());
                }
                index += 1;
            }
        }
        Ok(())
    }

    /// A proof that record `index` is in the log: for whoever has the log's public key and nothing else.
    ///
    /// # Errors
    /// [`OfflineError::NotThere`] if the checkpoint in the folder does not cover the record; others if the folder is damaged.
    pub fn prove(&self, index: u64) -> Result<LogProof, OfflineError> {
        let bytes = self.checkpoint()?;
        let bytes = bytes.ok_or_else(|| OfflineError::NotThere("the folder has no checkpoint yet".into()))?;
        let parsed = Note::parse(&bytes).ok().and_then(|note| {
            let head = Checkpoint::parse(note.text()).ok()?;
            Some((note, head))
        });
        let (note, head) =
            parsed.ok_or_else(|| OfflineError::Checkpoint("the checkpoint in its folder is none".into()))?;
        if index >= head.size {
            let text = format!(
                "the checkpoint covers {} records, so not yet record {index}: try again a second after the service was unlocked",
                head.size
            );
            return Err(OfflineError::NotThere(text));
        }
        let (entry, extra) = self.entry(index)?;
        let broken = || {
            OfflineError::Checkpoint(format!("its tiles don't lead from record {index} to the checkpoint"))
        };
        let hashes =
            prove_inclusion(&TileTree::new(self, head.size), index, head.size).map_err(|_| broken())?;
        verify_inclusion(&leaf_hash(&entry), index, head.size, &head.root, &hashes).map_err(|_| broken())?;
        Ok(LogProof { extra: Some(extra), index, hashes, checkpoint: note })
    }

    /// The entry of a record, and its line.
    fn entry(&self, index: u64) -> Result<([u8; 32], Vec<u8>), OfflineError> {
        let mut found = Err(OfflineError::Checkpoint(format!("record {index} is missing")));
        self.for_each_line(index, |line| {
            let mut bytes = Vec::new();
            found = match line {
                LogLine::Record(record) => {
                    record.write(&mut bytes);
                    bytes.pop();
                    Ok((record.entry(), bytes))
                }
                LogLine::Pruned(_) => Err(OfflineError::NotThere(format!(
                    "record {index} was pruned: the log still shows that there was one, and no more what it said"
                ))),
            };
            false
        })?;
        found
    }
}

/// Checks a proof and gives the record that it proves with its index, and the checkpoint under which it stands.
///
/// # Errors
/// A text that says what does not hold.
pub fn check_proof(proof: &LogProof, key: &VerifierKey) -> Result<(String, SignedCheckpoint), String> {
    let extra = proof.extra.as_deref().ok_or("it does not hold the record that it is about")?;
    let line = Line::parse(extra).map_err(|error| format!("the record that it holds is {error}"))?;
    if line.index != proof.index {
        return Err("the record that it holds has another index than it proves".into());
    }
    let checkpoint = proof.verify(&line.entry(), key).map_err(|error| error.to_string())?;
    Ok((line.record.to_owned(), checkpoint))
}
