use futures_util::future::BoxFuture;

use crate::error::{KeyServiceError, ReleaseError};
use crate::routes::LogHead;
use crate::types::{
    Binding, ContinueItem, Continued, DeriveItem, Derived, FinishedUpload, Lease, LeaseItem, ServiceStatus,
    SessionInfo,
};
use crate::watch::Watch;

/// Most items in one call of `lease`, `derive`, `continue_upload` or `finish_upload`.
pub const BATCH_ITEMS_MAX: usize = 256;

/// What the trait's methods return.
pub type KeyFuture<'a, T> = BoxFuture<'a, Result<T, KeyServiceError>>;

/// An answer and the moment its request was sent, on the caller's boot-time clock. Lifetimes in the answer count from
/// there: the time that the answer took is not a gift.
#[derive(Debug)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// When the request left, `Clock::boot_ms` of the caller.
    pub sent_boot_ms: u64,
}

impl<T> Answer<T> {
    /// The boot-clock moment at which something with this lifetime ends.
    #[must_use]
    pub fn expires_boot_ms(&self, ttl_ms: u64) -> u64 {
        self.sent_boot_ms.saturating_add(ttl_ms)
    }

    /// The same moment with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: f(self.value), sent_boot_ms: self.sent_boot_ms }
    }
}

/// An [`Answer`] in a future.
pub type Answered<'a, T> = KeyFuture<'a, Answer<T>>;

/// A connection to the service, by a number that no other one has.
pub type Line = u64;

/// The service's audit log, and the connection over which it was shown.
#[derive(Debug)]
pub struct LogView {
    /// What was shown.
    pub head: LogHead,
    /// Where; 0 from a service that is not reached by connections.
    pub line: Line,
}

/// The key service as one gateway sees it; the caller's identity belongs to the implementation (its certificate).
///
/// Batches return one result for each item, in order. A whole call fails with [`KeyServiceError`].
/// Every release and every refusal is durable in the audit log before the answer leaves the service.
pub trait KeyService: Send + Sync {
    /// Who the caller is and what it seals with. To be asked at start and every `session_ttl_s`.
    fn session(&self) -> Answered<'_, SessionInfo>;

    /// The binding of one bucket, by the name that clients use; `None` if the name is not bound or the caller may do
    /// nothing in it. May be used for `binding_ttl_s`.
    fn binding<'a>(&'a self, bucket: &'a str) -> Answered<'a, Option<Binding>>;

    /// All bindings that the caller may do anything in, by name. May be used for `binding_ttl_s`.
    fn bindings(&self) -> Answered<'_, Vec<Binding>>;

    /// Binds a bucket name (CreateBucket) to a keyset named by the operator's name, or to the only one that the caller may
    /// bind in. The answer's `created` is `false` if it was bound already (to that keyset).
    ///
    /// # Errors
    /// `Denied`; `Keyset` if there is none or a choice of several; `Conflict` if bound to another keyset than the one
    /// named; `BucketClosing` while other gateways may still use an earlier binding of the same name.
    fn bind_bucket<'a>(&'a self, bucket: &'a str, keyset: Option<&'a str>) -> Answered<'a, Binding>;

    /// Ends the binding with this id (DeleteBucket), after the provider has deleted the bucket. The id is never used
    /// again. The id is named so that a late call can't end the binding of a successor.
    ///
    /// # Errors
    /// `UnknownBucket` if the name is not bound, or to another id; `Denied`.
    fn unbind_bucket<'a>(&'a self, bucket: &'a str, bucket_id: &'a str) -> KeyFuture<'a, ()>;

    /// Registers an epoch record that the caller sealed. Durable when it returns; the same record again is fine.
    ///
    /// # Errors
    /// `Denied` without `write` or for an epoch of another sealer; `Malformed`; `Conflict` if another record has the id.
    fn register_epoch<'a>(&'a self, record: &'a [u8]) -> KeyFuture<'a, ()>;

    /// The record of a registered epoch, if the registry has it: the second of its two copies (docs/format.md §2.5).
    fn epoch_record(&self, epoch_id: claviger_format::EpochId) -> KeyFuture<'_, Option<Vec<u8>>>;

    /// WEKs for a while, docs/format.md §2.7. Up to [`BATCH_ITEMS_MAX`] items.
    fn lease(&self, items: Vec<LeaseItem>) -> Answered<'_, Vec<Result<Lease, ReleaseError>>>;

    /// Keys of single objects whose names the service verified, docs/format.md §2.7. Up to [`BATCH_ITEMS_MAX`] items.
    fn derive(&self, items: Vec<DeriveItem>) -> Answered<'_, Vec<Result<Derived, ReleaseError>>>;

    /// Keys of one unit of an upload that another gateway began, docs/format.md §2.8. Up to [`BATCH_ITEMS_MAX`] items.
    fn continue_upload(&self, items: Vec<ContinueItem>)
    -> Answered<'_, Vec<Result<Continued, ReleaseError>>>;

    /// Complete or Abort happened: `continue_upload` refuses these uploads from then on. Repeating it is fine.
    fn finish_upload(&self, items: Vec<FinishedUpload>) -> KeyFuture<'_, Vec<Result<(), ReleaseError>>>;

    /// What concerns the caller, as it happens: see [`crate::watch`]. The future is ready once the service has begun to answer.
    fn watch(&self) -> KeyFuture<'_, Watch>;

    /// The service's audit log as it is now, with the proof that it continues the log of the first `from` records.
    fn log_head(&self, from: u64) -> KeyFuture<'_, LogView>;

    /// From now on everything but [`Self::log_head`] goes over this connection, and is not sent over another one: who is at the
    /// other end of that has not shown its log yet. It ends with [`crate::UnavailableReason::Unseen`] then.
    fn keep_to(&self, line: Line) {
        // Without connections there is one service, always the same.
        let _ = line;
    }

    /// Shows a checkpoint to whoever is locked at another address than the one that is connected, if there are others.
    fn vouch_elsewhere<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()> {
        let _ = checkpoint;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Shows the service a checkpoint of its audit log that the caller believed, at each of its addresses; also while it is
    /// locked. Done if one of them takes it.
    ///
    /// # Errors
    /// `Malformed` if the log's key did not sign it; `Conflict` if an unlocked service's log contradicts it.
    fn show_checkpoint<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()>;

    /// Whether the service is there and unlocked.
    fn status(&self) -> KeyFuture<'_, ServiceStatus>;
}
