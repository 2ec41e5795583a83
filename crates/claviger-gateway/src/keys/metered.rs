//! The key service with every call counted and timed.

use std::sync::Arc;

use claviger_env::Clock;
use claviger_format::EpochId;
use claviger_keyapi::{
    Answered, Binding, ContinueItem, Continued, DeriveItem, Derived, FinishedUpload, KeyFuture, KeyService,
    KeyServiceError, Lease, LeaseItem, Line, LogView, ReleaseError, ServiceStatus, SessionInfo, Watch,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::metrics::{KEY_SERVICE_CALLS, KEY_SERVICE_SECONDS};

/// Passes every call on.
pub(crate) struct Metered {
    inner: Arc<dyn KeyService>,
    clock: Arc<dyn Clock>,
}

impl Metered {
    pub(crate) fn new(inner: Arc<dyn KeyService>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock }
    }

    fn meter<'a, T: Send + 'a>(
        &'a self,
        call: &'static str,
        future: KeyFuture<'a, T>,
    ) -> BoxFuture<'a, Result<T, KeyServiceError>> {
        let begun_ms = self.clock.boot_ms();
        future
            .inspect(move |result| {
                let outcome = match result {
                    Ok(_) => "ok",
                    Err(error) if error.retry_after_ms().is_some() => "unavailable",
                    Err(_) => "refused",
                };
                ::metrics::counter!(KEY_SERVICE_CALLS, "call" => call, "outcome" => outcome).increment(1);
                let elapsed_ms = self.clock.boot_ms().saturating_sub(begun_ms);
                let seconds = std::time::Duration::from_millis(elapsed_ms).as_secs_f64();
                ::metrics::histogram!(KEY_SERVICE_SECONDS, "call" => call).record(seconds);
            })
            .boxed()
    }
}

impl KeyService for Metered {
    fn session(&self) -> Answered<'_, SessionInfo> {
        self.meter("session", self.inner.session())
    }

    fn binding<'a>(&'a self, bucket: &'a str) -> Answered<'a, Option<Binding>> {
        self.meter("binding", self.inner.binding(bucket))
    }

    fn bindings(&self) -> Answered<'_, Vec<Binding>> {
        self.meter("bindings", self.inner.bindings())
    }

    fn bind_bucket<'a>(&'a self, bucket: &'a str, keyset: Option<&'a str>) -> Answered<'a, Binding> {
        self.meter("bind_bucket", self.inner.bind_bucket(bucket, keyset))
    }

    fn unbind_bucket<'a>(&'a self, bucket: &'a str, bucket_id: &'a str) -> KeyFuture<'a, ()> {
        self.meter("unbind_bucket", self.inner.unbind_bucket(bucket, bucket_id))
    }

    fn register_epoch<'a>(&'a self, record: &'a [u8]) -> KeyFuture<'a, ()> {
        self.meter("register_epoch", self.inner.register_epoch(record))
    }

    fn epoch_record(&self, epoch_id: EpochId) -> KeyFuture<'_, Option<Vec<u8>>> {
        self.meter("epoch_record", self.inner.epoch_record(epoch_id))
    }

    fn lease(&self, items: Vec<LeaseItem>) -> Answered<'_, Vec<Result<Lease, ReleaseError>>> {
        self.meter("lease", self.inner.lease(items))
    }

    fn derive(&self, items: Vec<DeriveItem>) -> Answered<'_, Vec<Result<Derived, ReleaseError>>> {
        self.meter("derive", self.inner.derive(items))
    }

    fn continue_upload(
        &self,
        items: Vec<ContinueItem>,
    ) -> Answered<'_, Vec<Result<Continued, ReleaseError>>> {
        self.meter("continue_upload", self.inner.continue_upload(items))
    }

    fn finish_upload(&self, items: Vec<FinishedUpload>) -> KeyFuture<'_, Vec<Result<(), ReleaseError>>> {
        self.meter("finish_upload", self.inner.finish_upload(items))
    }

    fn watch(&self) -> KeyFuture<'_, Watch> {
        self.meter("watch", self.inner.watch())
    }

    fn log_head(&self, from: u64) -> KeyFuture<'_, LogView> {
        self.meter("log_head", self.inner.log_head(from))
    }

    fn keep_to(&self, line: Line) {
        self.inner.keep_to(line);
    }

    fn vouch_elsewhere<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()> {
        self.meter("vouch_elsewhere", self.inner.vouch_elsewhere(checkpoint))
    }

    fn show_checkpoint<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()> {
        self.meter("show_checkpoint", self.inner.show_checkpoint(checkpoint))
    }

    fn status(&self) -> KeyFuture<'_, ServiceStatus> {
        self.meter("status", self.inner.status())
    }
}
