//! Everything that this gateway got from the key service and keeps, as one thing that can be dropped.

use std::sync::Arc;

use claviger_keyapi::Verb;

use super::era::Era;
use super::read::ReadKeys;
use super::session::Session;
use super::uploads::Uploads;
use super::write::WriteEpochs;
use crate::error::GatewayError;
use crate::metrics::KEYS_DROPPED;
use crate::ops::manifests::Manifests;

/// The keys and what was learned by them.
pub(crate) struct Holdings {
    pub(crate) era: Era,
    pub(crate) session: Arc<Session>,
    pub(crate) write_epochs: Arc<WriteEpochs>,
    pub(crate) read_keys: Arc<ReadKeys>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) manifests: Manifests,
}

impl Holdings {
    /// Drops everything: this gateway then knows no more than one that was just started. Answers that are being sent are broken
    /// off. `cause` is for the metric.
    pub(crate) fn drop_all(&self, cause: &'static str) {
        self.end_era(cause);
        self.session.forget();
        self.uploads.keep_where(|_| false);
    }

    /// Something was taken away: drops what may be part of it, and asks what is left. If nobody answers, nothing is.
    ///
    /// # Errors
    /// When the session could not be had; everything is dropped then.
    pub(crate) async fn drop_less(&self) -> Result<(), GatewayError> {
        self.end_era("less");
        if let Err(error) = self.session.refresh().await {
            self.session.forget();
            self.uploads.keep_where(|_| false);
            return Err(error);
        }
        let keysets = self.session.keysets();
        self.uploads.keep_where(|id| {
            keysets.iter().any(|keyset| keyset.keyset_id == id && keyset.grants(Verb::Write))
        });
        Ok(())
    }

    /// Frees what the caches keep of dropped keys for later. Not waited for where a key must not be used: the era sees to that.
    pub(crate) async fn wipe(&self) {
        self.manifests.tick();
        self.read_keys.tick().await;
    }

    fn end_era(&self, cause: &'static str) {
        self.era.end();
        ::metrics::counter!(KEYS_DROPPED, "cause" => cause).increment(1);
        self.write_epochs.wipe_ended();
        self.read_keys.forget();
        self.manifests.clear();
    }
}
