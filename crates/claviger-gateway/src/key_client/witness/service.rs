//! The key service's trait: every call goes through [`Witness::asked`].

use claviger_format::EpochId;
use claviger_keyapi::{
    Answered, Binding, ContinueItem, Continued, DeriveItem, Derived, FinishedUpload, KeyFuture, KeyService,
    Lease, LeaseItem, Line, LogView, ReleaseError, ServiceStatus, SessionInfo, Watch,
};
use futures_util::FutureExt as _;

use super::Witness;

impl KeyService for Witness {
    /// Looks at the log first, whenever it was looked at last.
    fn session(&self) -> Answered<'_, SessionInfo> {
        async {
            self.look().await?;
            self.asked(|| self.inner.session()).await
        }
        .boxed()
    }

    fn binding<'a>(&'a self, bucket: &'a str) -> Answered<'a, Option<Binding>> {
        self.asked(|| self.inner.binding(bucket)).boxed()
    }

    fn bindings(&self) -> Answered<'_, Vec<Binding>> {
        self.asked(|| self.inner.bindings()).boxed()
    }

    fn bind_bucket<'a>(&'a self, bucket: &'a str, keyset: Option<&'a str>) -> Answered<'a, Binding> {
        self.asked(move || self.inner.bind_bucket(bucket, keyset)).boxed()
    }

    fn unbind_bucket<'a>(&'a self, bucket: &'a str, bucket_id: &'a str) -> KeyFuture<'a, ()> {
        self.asked(move || self.inner.unbind_bucket(bucket, bucket_id)).boxed()
    }

    fn register_epoch<'a>(&'a self, record: &'a [u8]) -> KeyFuture<'a, ()> {
        self.asked(move || self.inner.register_epoch(record)).boxed()
    }

    fn epoch_record(&self, epoch_id: EpochId) -> KeyFuture<'_, Option<Vec<u8>>> {
        self.asked(move || self.inner.epoch_record(epoch_id)).boxed()
    }

    fn lease(&self, items: Vec<LeaseItem>) -> Answered<'_, Vec<Result<Lease, ReleaseError>>> {
        self.asked(move || self.inner.lease(items.clone())).boxed()
    }

    fn derive(&self, items: Vec<DeriveItem>) -> Answered<'_, Vec<Result<Derived, ReleaseError>>> {
        self.asked(move || self.inner.derive(items.clone())).boxed()
    }

    fn continue_upload(
        &self,
        items: Vec<ContinueItem>,
    ) -> Answered<'_, Vec<Result<Continued, ReleaseError>>> {
        self.asked(move || self.inner.continue_upload(items.clone())).boxed()
    }

    fn finish_upload(&self, items: Vec<FinishedUpload>) -> KeyFuture<'_, Vec<Result<(), ReleaseError>>> {
        self.asked(move || self.inner.finish_upload(items.clone())).boxed()
    }

    fn watch(&self) -> KeyFuture<'_, Watch> {
        self.asked(|| self.inner.watch()).boxed()
    }

    fn log_head(&self, from: u64) -> KeyFuture<'_, LogView> {
        self.asked(move || self.inner.log_head(from)).boxed()
    }

    fn keep_to(&self, line: Line) {
        self.inner.keep_to(line);
    }

    fn vouch_elsewhere<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()> {
        self.inner.vouch_elsewhere(checkpoint)
    }

    fn show_checkpoint<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()> {
        self.inner.show_checkpoint(checkpoint)
    }

    fn status(&self) -> KeyFuture<'_, ServiceStatus> {
        self.asked(|| self.inner.status()).boxed()
    }
}
