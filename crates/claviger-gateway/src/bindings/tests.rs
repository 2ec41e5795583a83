//! Strangers cost the key service little, and shut nobody out.

use std::sync::Mutex;

use claviger_format::EpochId;
use claviger_keyapi::{
    Answered, ContinueItem, Continued, DeriveItem, Derived, FinishedUpload, Id16, KeyFuture, Lease,
    LeaseItem, ServiceStatus, SessionInfo,
};
use futures_util::FutureExt as _;

use super::*;
use crate::keys::era::Era;

/// A clock that stands where it is put.
#[derive(Default)]
struct At(Mutex<u64>);

impl Clock for At {
    fn now_ms(&self) -> u64 {
        self.boot_ms()
    }

    fn boot_ms(&self) -> u64 {
        *self.0.lock().unwrap()
    }
}

/// A key service that knows one bucket, and nothing but bindings.
struct OneBucket {
    clock: Arc<At>,
    asked: Mutex<u32>,
}

impl KeyService for OneBucket {
    fn binding<'a>(&'a self, bucket: &'a str) -> Answered<'a, Option<Binding>> {
        *self.asked.lock().unwrap() += 1;
        let binding = Binding {
            bucket: bucket.to_owned(),
            bucket_id: format!("{bucket}#{}", "0".repeat(32)),
            keyset_id: Id16([0; 16]),
            created: false,
        };
        let value = (bucket == "bound").then_some(binding);
        async move { Ok(Answer { value, sent_boot_ms: self.clock.boot_ms() }) }.boxed()
    }

    fn session(&self) -> Answered<'_, SessionInfo> {
        unreachable!()
    }
    fn bindings(&self) -> Answered<'_, Vec<Binding>> {
        unreachable!()
    }
    fn bind_bucket<'a>(&'a self, _: &'a str, _: Option<&'a str>) -> Answered<'a, Binding> {
        unreachable!()
    }
    fn unbind_bucket<'a>(&'a self, _: &'a str, _: &'a str) -> KeyFuture<'a, ()> {
        unreachable!()
    }
    fn register_epoch<'a>(&'a self, _: &'a [u8]) -> KeyFuture<'a, ()> {
        unreachable!()
    }
    fn epoch_record(&self, _: EpochId) -> KeyFuture<'_, Option<Vec<u8>>> {
        unreachable!()
    }
    fn lease(&self, _: Vec<LeaseItem>) -> Answered<'_, Vec<Result<Lease, claviger_keyapi::ReleaseError>>> {
        unreachable!()
    }
    fn derive(
        &self,
        _: Vec<DeriveItem>,
    ) -> Answered<'_, Vec<Result<Derived, claviger_keyapi::ReleaseError>>> {
        unreachable!()
    }
    fn continue_upload(
        &self,
        _: Vec<ContinueItem>,
    ) -> Answered<'_, Vec<Result<Continued, claviger_keyapi::ReleaseError>>> {
        unreachable!()
    }
    fn finish_upload(
        &self,
        _: Vec<FinishedUpload>,
    ) -> KeyFuture<'_, Vec<Result<(), claviger_keyapi::ReleaseError>>> {
        unreachable!()
    }
    fn watch(&self) -> KeyFuture<'_, claviger_keyapi::Watch> {
        unreachable!()
    }
    fn status(&self) -> KeyFuture<'_, ServiceStatus> {
        unreachable!()
    }
}

#[tokio::test]
async fn strangers_ask_a_few_times_a_second_and_shut_out_no_bucket_that_was_bound() {
    let clock = Arc::new(At::default());
    let keys = Arc::new(OneBucket { clock: clock.clone(), asked: Mutex::default() });
    let session = Arc::new(Session::new(keys.clone(), Era::default()));
    let bindings = Bindings::new(keys.clone(), clock.clone(), session.clone());
    bindings.known_to_anyone("bound").await.unwrap();
    // Long after the entry may be used for anything that is sealed or opened.
    *clock.0.lock().unwrap() = 10 * session.binding_ttl_ms();
    for round in 0..1_000 {
        let refused = bindings.known_to_anyone(&format!("random-{round}")).await.unwrap_err();
        assert_eq!(matches!(refused, GatewayError::Busy(_)), round >= STRANGERS_PER_SECOND_MAX, "{round}");
        bindings.known_to_anyone("bound").await.unwrap();
    }
    assert_eq!(*keys.asked.lock().unwrap(), 1 + STRANGERS_PER_SECOND_MAX);
    // Who acts on a binding asks again.
    bindings.resolve("bound").await.unwrap();
    assert_eq!(*keys.asked.lock().unwrap(), 2 + STRANGERS_PER_SECOND_MAX);
}
