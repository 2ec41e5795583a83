//! The key service's trait over the channel.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use claviger_env::Clock;
use claviger_format::EpochId;
use claviger_keyapi::enrol::{CERTIFICATE_TTL_MS, Certificate};
use claviger_keyapi::routes::{
    self, BindRequest, BindingAnswer, BindingRequest, BindingsAnswer, CheckpointRequest, ConsistencyRequest,
    ContinueAnswer, ContinueRequest, DeriveAnswer, DeriveRequest, Empty, EpochAnswer, EpochRequest,
    FinishAnswer, FinishRequest, LeaseAnswer, LeaseRequest, RegisterRequest, UnbindRequest,
};
use claviger_keyapi::tls::Accept;
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{
    Answer, Answered, BATCH_ITEMS_MAX, Binding, ContinueItem, Continued, DeriveItem, Derived, FinishedUpload,
    KeyFuture, KeyService, KeyServiceError, Lease, LeaseItem, Line, LogView, ReleaseError, ServiceStatus,
    SessionInfo, Watch, WatchEvent,
};
use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::addresses::Target;
use super::enrolment::{check_usable, new_request};
use super::lines::Lines;
use super::transport::Over;
use super::{ClientError, StoredIdentity, Transport};

const RENEWAL_CHECK: Duration = Duration::from_secs(60);
/// A gateway that has run for so long since its last renewal renews, whatever its wall clock says: one that was set back would let
/// the certificate run out.
const RENEWED_FOR_MS: u64 = CERTIFICATE_TTL_MS / 4;
/// A certificate that is good for less is renewed by whoever answers with one of the same CA.
const URGENT_MS: u64 = 3_600_000;

/// A connection to the key service with the identity of a folder.
pub struct KeyClient {
    transport: Transport,
    folder: PathBuf,
    accept: Accept,
    clock: Arc<dyn Clock>,
    /// When it was renewed last, or this client began, on the boot-time clock.
    renewed_boot_ms: AtomicU64,
}

impl std::fmt::Debug for KeyClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyClient({:?})", self.transport)
    }
}

impl KeyClient {
    /// A gateway's client; connects when it is first used. `address` is `host:port`, or several divided by commas
    /// of which one serves at a time; empty, it is the one that the enrolment token gave.
    ///
    /// # Errors
    /// [`ClientError`] if the folder holds no usable identity.
    pub fn open(address: &str, folder: &Path, clock: Arc<dyn Clock>) -> Result<Arc<Self>, ClientError> {
        Self::open_accepting(Accept::Unlocked, address, folder, clock)
    }

    /// An operator's client, which also talks to a locked service.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_operator(
        address: &str,
        folder: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ClientError> {
        Self::open_accepting(Accept::AnyState, address, folder, clock)
    }

    fn open_accepting(
        accept: Accept,
        address: &str,
        folder: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ClientError> {
        let identity = StoredIdentity::load(folder)?;
        let address = if address.is_empty() { identity.address.as_str() } else { address };
        let transport = Transport::new(address, &identity, accept, Arc::clone(&clock))?;
        let renewed_boot_ms = AtomicU64::new(clock.boot_ms());
        Ok(Arc::new(Self { transport, folder: folder.to_owned(), accept, clock, renewed_boot_ms }))
    }

    /// The bare channel, for the operators' routes.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Renews the certificate of a gateway at half its life, for as long as it is polled. To be spawned beside the client and a
    /// [`super::Witness`]: it asks only who has shown the log that is known, unless the certificate ends within the hour. A copy of the
    /// service that answered would leave this gateway with a key that the true one does not know.
    pub async fn renewal(self: Arc<Self>) {
        loop {
            let renewed = match self.is_urgent() {
                Ok(is_urgent) => self.renew_over_if_due(if is_urgent { Over::Any } else { Over::Seen }).await,
                Err(error) => Err(error),
            };
            if let Err(error) = renewed {
                tracing::warn!(%error, "the certificate was not renewed; trying again in a minute");
            }
            tokio::time::sleep(RENEWAL_CHECK).await;
        }
    }

    /// Whether the certificate ends soon by either clock.
    fn is_urgent(&self) -> Result<bool, ClientError> {
        let until_ms = StoredIdentity::load(&self.folder)?.certificate.not_after_ms;
        let has_run_ms = self.clock.boot_ms().saturating_sub(self.renewed_boot_ms.load(Ordering::Relaxed));
        Ok(until_ms.saturating_sub(self.clock.now_ms()) <= URGENT_MS
            || has_run_ms >= CERTIFICATE_TTL_MS - URGENT_MS)
    }

    /// Renews the certificate if half its life is over, or if this client has run for a quarter of a gateway's without.
    ///
    /// # Errors
    /// [`ClientError`]; the present certificate stays in use.
    pub async fn renew_if_due(&self) -> Result<(), ClientError> {
        self.renew_over_if_due(Over::Usual).await
    }

    async fn renew_over_if_due(&self, over: Over) -> Result<(), ClientError> {
        let renewed_boot_ms = self.renewed_boot_ms.load(Ordering::Relaxed);
        let has_run_long = self.clock.boot_ms().saturating_sub(renewed_boot_ms) >= RENEWED_FOR_MS;
        if has_run_long || self.clock.now_ms() >= StoredIdentity::load(&self.folder)?.renew_at_ms() {
            return self.renew_over(over).await;
        }
        Ok(())
    }

    /// Renews the certificate now, with a fresh key.
    ///
    /// # Errors
    /// As [`Self::renew_if_due`].
    pub async fn renew(&self) -> Result<(), ClientError> {
        self.renew_over(Over::Usual).await
    }

    async fn renew_over(&self, over: Over) -> Result<(), ClientError> {
        let old = StoredIdentity::load(&self.folder)?;
        let (unsigned, request) = new_request()?;
        let mut certificate: Certificate =
            self.transport.call_over(over, routes::RENEW, &request).await?.value;
        // The root of trust is the one that the token pinned, whatever the answer says.
        certificate.ca = old.certificate.ca.clone();
        let renewed = unsigned.signed(old.address, old.identity, certificate);
        check_usable(&renewed, &self.clock)?;
        renewed.save(&self.folder)?;
        self.transport.replace(&renewed, self.accept).await?;
        self.renewed_boot_ms.store(self.clock.boot_ms(), Ordering::Relaxed);
        tracing::info!(until_ms = renewed.certificate.not_after_ms, "certificate renewed");
        Ok(())
    }

    async fn ask<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        request: Q,
    ) -> Result<Answer<A>, KeyServiceError> {
        self.transport.call(path, &request).await.map_err(|error| self.told(path, &error))
    }

    fn told(&self, path: &str, error: &ClientError) -> KeyServiceError {
        if !matches!(error, ClientError::Service(_) | ClientError::Unseen(_)) {
            tracing::warn!(path, %error, "the key service can't be asked");
        }
        error.outward()
    }

    /// A connection of its own to one address.
    fn transport_to(&self, target: &Target, accept: Accept) -> Result<Transport, ClientError> {
        let identity = StoredIdentity::load(&self.folder)?;
        Transport::new(&target.to_string(), &identity, accept, Arc::clone(&self.clock))
    }

    /// A locked service shows another name, which everything else refuses. What goes there is no secret, and of use to it alone.
    async fn show_at(&self, target: Target, checkpoint: &str) -> Result<(), ClientError> {
        let request = CheckpointRequest { checkpoint: checkpoint.to_owned() };
        let transport = self.transport_to(&target, Accept::AnyState)?;
        transport.call::<_, Empty>(routes::CHECKPOINT, &request).await.map(drop)
    }

    async fn is_locked_at(&self, target: Target) -> Result<bool, ClientError> {
        match self.transport_to(&target, Accept::Unlocked)?.connect_now().await {
            Ok(()) => Ok(false),
            Err(error) if error.outward() == KeyServiceError::Locked => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// A batch; its answer must have one result for each item.
    async fn ask_batch<Q: Serialize + Sync, A: DeserializeOwned, T>(
        &self,
        path: &str,
        count: usize,
        request: Q,
        results: impl FnOnce(A) -> Vec<T>,
    ) -> Result<Answer<Vec<T>>, KeyServiceError> {
        if count > BATCH_ITEMS_MAX {
            return Err(KeyServiceError::TooManyItems {
                max: u32::try_from(BATCH_ITEMS_MAX).unwrap_or(u32::MAX),
            });
        }
        let answer = self.ask(path, request).await?.map(results);
        if answer.value.len() == count { Ok(answer) } else { Err(KeyServiceError::Internal) }
    }
}

impl KeyService for KeyClient {
    fn session(&self) -> Answered<'_, SessionInfo> {
        self.ask(routes::SESSION, Empty {}).boxed()
    }

    fn binding<'a>(&'a self, bucket: &'a str) -> Answered<'a, Option<Binding>> {
        let request = BindingRequest { bucket: bucket.to_owned() };
        async move { Ok(self.ask(routes::BINDING, request).await?.map(|answer: BindingAnswer| answer.binding)) }.boxed()
    }

    fn bindings(&self) -> Answered<'_, Vec<Binding>> {
        async move {
            Ok(self.ask(routes::BINDINGS, Empty {}).await?.map(|answer: BindingsAnswer| answer.bindings))
        }
        .boxed()
    }

    fn bind_bucket<'a>(&'a self, bucket: &'a str, keyset: Option<&'a str>) -> Answered<'a, Binding> {
        let request = BindRequest { bucket: bucket.to_owned(), keyset: keyset.map(str::to_owned) };
        self.ask(routes::BIND, request).boxed()
    }

    fn unbind_bucket<'a>(&'a self, bucket: &'a str, bucket_id: &'a str) -> KeyFuture<'a, ()> {
        let request = UnbindRequest { bucket: bucket.to_owned(), bucket_id: bucket_id.to_owned() };
        async move { self.ask::<_, Empty>(routes::UNBIND, request).await.map(|_| ()) }.boxed()
    }

    fn register_epoch<'a>(&'a self, record: &'a [u8]) -> KeyFuture<'a, ()> {
        let request = RegisterRequest { record: Blob(record.to_vec()) };
        async move { self.ask::<_, Empty>(routes::REGISTER, request).await.map(|_| ()) }.boxed()
    }

    fn epoch_record(&self, epoch_id: EpochId) -> KeyFuture<'_, Option<Vec<u8>>> {
        let request = EpochRequest { epoch_id: epoch_id.into() };
        async move {
            let answer: Answer<EpochAnswer> = self.ask(routes::EPOCH, request).await?;
            Ok(answer.value.record.map(|record| record.0))
        }
        .boxed()
    }

    fn lease(&self, items: Vec<LeaseItem>) -> Answered<'_, Vec<Result<Lease, ReleaseError>>> {
        let count = items.len();
        self.ask_batch(routes::LEASE, count, LeaseRequest { items }, |answer: LeaseAnswer| answer.results)
            .boxed()
    }

    fn derive(&self, items: Vec<DeriveItem>) -> Answered<'_, Vec<Result<Derived, ReleaseError>>> {
        let count = items.len();
        self.ask_batch(routes::DERIVE, count, DeriveRequest { items }, |answer: DeriveAnswer| answer.results)
            .boxed()
    }

    fn continue_upload(
        &self,
        items: Vec<ContinueItem>,
    ) -> Answered<'_, Vec<Result<Continued, ReleaseError>>> {
        let count = items.len();
        self.ask_batch(routes::CONTINUE, count, ContinueRequest { items }, |answer: ContinueAnswer| {
            answer.results
        })
        .boxed()
    }

    fn finish_upload(&self, items: Vec<FinishedUpload>) -> KeyFuture<'_, Vec<Result<(), ReleaseError>>> {
        let count = items.len();
        async move {
            let request = FinishRequest { items };
            let answer =
                self.ask_batch(routes::FINISH, count, request, |answer: FinishAnswer| answer.results).await?;
            Ok(answer.value)
        }
        .boxed()
    }

    fn watch(&self) -> KeyFuture<'_, Watch> {
        async move {
            let lines = self.transport.stream(routes::WATCH, &Empty {}).await.map_err(|e| e.outward())?;
            Ok(events(lines))
        }
        .boxed()
    }

    fn log_head(&self, from: u64) -> KeyFuture<'_, LogView> {
        async move {
            let request = ConsistencyRequest { from };
            let asked = self.transport.call_over_a_line(routes::CONSISTENCY, &request).await;
            let (answer, line) = asked.map_err(|error| self.told(routes::CONSISTENCY, &error))?;
            Ok(LogView { head: answer.value, line })
        }
        .boxed()
    }

    fn keep_to(&self, line: Line) {
        self.transport.keep_to(line);
    }

    fn vouch_elsewhere<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()> {
        async move {
            let (targets, connected) = self.transport.places().await.map_err(|error| error.outward())?;
            let others = targets.into_iter().filter(|target| Some(target) != connected.as_ref());
            join_all(others.map(async |target| {
                let is_locked = Box::pin(self.is_locked_at(target.clone())).await?;
                if is_locked { Box::pin(self.show_at(target, checkpoint)).await } else { Ok(()) }
            }))
            .await
            .into_iter()
            .collect::<Result<(), ClientError>>()
            .map_err(|error| error.outward())
        }
        .boxed()
    }

    fn show_checkpoint<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()> {
        async move {
            let (targets, _) = self.transport.places().await.map_err(|error| error.outward())?;
            let shown = targets.into_iter().map(|target| Box::pin(self.show_at(target, checkpoint)));
            let failures: Vec<ClientError> =
                match join_all(shown).await.into_iter().map(Result::err).collect::<Option<Vec<_>>>() {
                    Some(failures) => failures,
                    // One of them took it.
                    None => return Ok(()),
                };
            // What one of them answered says more than that another one is not there.
            let told = failures.iter().find(|error| matches!(error, ClientError::Service(_)));
            Err(told.or(failures.first()).map_or(KeyServiceError::Internal, ClientError::outward))
        }
        .boxed()
    }

    fn status(&self) -> KeyFuture<'_, ServiceStatus> {
        async move { Ok(self.ask(routes::STATUS, Empty {}).await?.value) }.boxed()
    }
}

/// The lines as events. A line that is none ends the stream with an error.
fn events(lines: Lines) -> Watch {
    stream::try_unfold(lines, |mut lines| async move {
        let Some(line) = lines.next().await.map_err(|error| error.outward())? else { return Ok(None) };
        let event: WatchEvent = serde_json::from_slice(&line).map_err(|_| KeyServiceError::Internal)?;
        Ok(Some((event, lines)))
    })
    .boxed()
}
