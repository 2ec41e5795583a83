//! What a run tells: a line that moves while it works, and counts at the end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_format::SealerId;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::entry::Proof;
use super::keyring::Origin;
use super::source::Item;

/// Counts, as `_summary.json` has them.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Summary {
    /// Content and name verified.
    pub(super) verified: Count,
    /// Content verified, name not.
    pub(super) name_unverified: Count,
    /// Of both, versions that another one or a deletion took the place of.
    pub(super) older_versions: u64,
    /// Delete markers that were seen.
    pub(super) delete_markers: u64,
    /// There from an earlier run, and whole.
    pub(super) already_there: u64,
    /// Not opened.
    pub(super) failed: u64,
    /// Who sealed what, by gateway and epoch.
    pub(super) sealed_by: BTreeMap<String, BTreeMap<String, OfEpoch>>,
}

/// Objects and their bytes of content.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Count {
    pub(super) objects: u64,
    pub(super) bytes: u64,
}

/// What came out of one epoch.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct OfEpoch {
    /// When its gateway says that it began, milliseconds since 1970.
    created_ms: u64,
    objects: u64,
    bytes: u64,
}

/// Counts for all who work.
pub(super) struct Report {
    summary: Mutex<Summary>,
    bar: ProgressBar,
}

impl Report {
    /// Shows the line on a terminal, and nothing elsewhere.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template(
            "{spinner} {msg}, {decimal_bytes} ({decimal_bytes_per_sec}), {elapsed}",
        ) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { summary: Mutex::default(), bar }
    }

    /// An object opened.
    pub(super) fn opened(&self, epoch: &Origin, proof: Proof, item: &Item, len: u64) {
        let mut summary = self.summary();
        summary.older_versions += u64::from(item.older().is_some());
        let count = match proof {
            Proof::Verified => &mut summary.verified,
            Proof::Unverified => &mut summary.name_unverified,
        };
        count.objects += 1;
        count.bytes += len;
        let epochs = summary.sealed_by.entry(epoch.gateway_id.to_string()).or_default();
        let of = epochs.entry(epoch.epoch_id.to_string()).or_default();
        of.created_ms = epoch.created_ms;
        of.objects += 1;
        of.bytes += len;
        self.bar.inc(len);
        self.show(&summary);
    }

    /// An object that an earlier run recovered.
    pub(super) fn already_there(&self) {
        let mut summary = self.summary();
        summary.already_there += 1;
        self.show(&summary);
    }

    /// An object that does not open.
    pub(super) fn failed(&self, bucket: &str, item: &Item, why: &str) {
        let mut summary = self.summary();
        summary.failed += 1;
        self.show(&summary);
        drop(summary);
        self.line(&format!("FAILED  {}{}  {why}", shown(bucket, &item.key), version_of(item)));
    }

    /// A delete marker.
    pub(super) fn deleted(&self) {
        self.summary().delete_markers += 1;
    }

    /// A line of the result, above the moving one.
    pub(super) fn line(&self, text: &str) {
        self.bar.suspend(|| say!("{text}"));
    }

    fn show(&self, summary: &Summary) {
        let opened = summary.verified.objects + summary.name_unverified.objects;
        let failed = summary.failed;
        self.bar.set_message(format!("{opened} objects opened, {failed} failed"));
    }

    /// The counts at the end.
    pub(super) fn end(&self) -> Summary {
        self.bar.finish_and_clear();
        self.summary().clone()
    }

    fn summary(&self) -> MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name for people; what could move a terminal's cursor is escaped.
pub(super) fn shown(bucket: &str, key: &str) -> String {
    format!("{bucket}/{key}").escape_debug().to_string()
}

/// Which version an item is, for people; nothing if that was not asked.
pub(super) fn version_of(item: &Item) -> String {
    item.version.as_ref().map(|version| format!("  version {}", version.id)).unwrap_or_default()
}

/// What came of it, in lines.
pub(super) fn tell(
    summary: &Summary,
    census: &(BTreeMap<SealerId, usize>, usize),
    listed: bool,
) -> Vec<String> {
    let verb = if listed { "would open" } else { "recovered" };
    let Summary { verified, name_unverified, older_versions, delete_markers, already_there, failed, .. } =
        summary;
    let mut lines = vec![format!(
        "{} objects {verb} and verified, name and content: {} bytes",
        verified.objects, verified.bytes
    )];
    if name_unverified.objects > 0 {
        lines.push(format!(
            "{} objects {verb} with content verified, name and metadata UNVERIFIED (no envelope): {} bytes",
            name_unverified.objects, name_unverified.bytes
        ));
    }
    if *older_versions > 0 {
        lines.push(format!("{older_versions} of them are older versions"));
    }
    if *delete_markers > 0 {
        lines
            .push(format!("{delete_markers} delete markers: the store says that these objects were deleted"));
    }
    if *already_there > 0 {
        lines.push(format!("{already_there} objects were there from an earlier run, and whole"));
    }
    lines.push(format!("{failed} objects FAILED"));
    let (sealers, shut) = census;
    for (sealer, epochs) in sealers {
        let of = summary.sealed_by.get(&sealer.to_string());
        let objects: u64 = of.into_iter().flatten().map(|(_, epoch)| epoch.objects).sum();
        let bytes: u64 = of.into_iter().flatten().map(|(_, epoch)| epoch.bytes).sum();
        lines.push(format!("sealed by gateway {sealer}: {epochs} epochs, {objects} objects, {bytes} bytes"));
    }
    if *shut > 0 {
        lines.push(format!("{shut} epoch records don't open with these shares"));
    }
    lines.push(
        "Offline there is no registry: what a revoked gateway sealed, or what lies in quarantine, is among them. The store \
         may have kept back newer versions and whole objects."
            .to_owned(),
    );
    lines
}
