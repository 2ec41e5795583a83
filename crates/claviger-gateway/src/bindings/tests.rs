//! Strangers cost the key service little, and shut nobody out; news that come before an answer refuse nobody.

use std::sync::{Mutex, OnceLock};

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

type Meanwhile = Box<dyn Fn(&str) + Send + Sync>;

/// A key service that knows one bucket from the start, may be told of another, and knows nothing but bindings.
struct OneBucket {
    clock: Arc<At>,
    asked: Mutex<u32>,
    bound_since: Mutex<Option<String>>,
    /// What happens while an answer is under way, at this bucket.
    meanwhile: OnceLock<Meanwhile>,
}

impl OneBucket {
    fn at(clock: &Arc<At>) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            asked: Mutex::default(),
            bound_since: Mutex::default(),
            meanwhile: OnceLock::new(),
        })
    }

    fn binding_of(bucket: &str, created: bool) -> Binding {
        Binding {
            bucket: bucket.to_owned(),
            bucket_id: format!("{bucket}#{}", "0".repeat(32)),
            keyset_id: Id16([0; 16]),
            created,
        }
    }

    /// An answer to a question that leaves now.
    fn answer<T>(&self, bucket: &str, value: T) -> Result<Answer<T>, KeyServiceError> {
        let sent_boot_ms = self.clock.boot_ms();
        if let Some(meanwhile) = self.meanwhile.get() {
            *self.clock.0.lock().unwrap() += 1;
            meanwhile(bucket);
        }
        Ok(Answer { value, sent_boot_ms })
    }
}

impl KeyService for OneBucket {
    fn binding<'a>(&'a self, bucket: &'a str) -> Answered<'a, Option<Binding>> {
        *self.asked.lock().unwrap() += 1;
        let is_bound = bucket == "bound" || self.bound_since.lock().unwrap().as_deref() == Some(bucket);
        let value = is_bound.then(|| Self::binding_of(bucket, false));
        async move { self.answer(bucket, value) }.boxed()
    }

    fn session(&self) -> Answered<'_, SessionInfo> {
        unreachable!()
    }
    fn bindings(&self) -> Answered<'_, Vec<Binding>> {
        unreachable!()
    }
    fn bind_bucket<'a>(&'a self, bucket: &'a str, _: Option<&'a str>) -> Answered<'a, Binding> {
        *self.bound_since.lock().unwrap() = Some(bucket.to_owned());
        async move { self.answer(bucket, Self::binding_of(bucket, true)) }.boxed()
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
    fn log_head(&self, _: u64) -> KeyFuture<'_, claviger_keyapi::LogView> {
        unreachable!()
    }
    fn show_checkpoint<'a>(&'a self, _: &'a str) -> KeyFuture<'a, ()> {
        unreachable!()
    }
    fn status(&self) -> KeyFuture<'_, ServiceStatus> {
        unreachable!()
    }
}

#[tokio::test]
async fn strangers_ask_a_few_times_a_second_and_shut_out_no_bucket_that_was_bound() {
    let clock = Arc::new(At::default());
    let keys = OneBucket::at(&clock);
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

/// A key service and bindings to which this happens while the first so many answers are under way.
fn meanwhile(
    times: u32,
    happens: impl Fn(&Bindings, &str) + Send + Sync + 'static,
) -> (Arc<OneBucket>, Arc<Bindings>) {
    let clock = Arc::new(At::default());
    let keys = OneBucket::at(&clock);
    let session = Arc::new(Session::new(keys.clone(), Era::default()));
    let bindings = Arc::new(Bindings::new(keys.clone(), clock, session));
    let (weak, left) = (Arc::downgrade(&bindings), Mutex::new(times));
    let told = keys.meanwhile.set(Box::new(move |bucket| {
        let mut left = left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            happens(&weak.upgrade().unwrap(), bucket);
        }
    }));
    assert!(told.is_ok());
    (keys, bindings)
}

fn news(bindings: &Bindings, bucket: &str) {
    bindings.ask_again(Some(&[bucket.to_owned()]));
}

fn code(error: GatewayError) -> ErrorCode {
    error.to_s3("/bucket").code()
}

#[tokio::test]
async fn a_bucket_that_was_asked_for_in_vain_is_made_though_the_news_of_it_comes_before_the_answer() {
    let (_, bindings) = meanwhile(2, news);
    // As many clients do: HEAD first, then PUT.
    assert_eq!(code(bindings.resolve("new").await.unwrap_err()), ErrorCode::NoSuchBucket);
    let (bound, is_new) = bindings.bind("new").await.unwrap();
    assert!(is_new && bindings.stands_for("new", &bound).await.unwrap());
    assert_eq!(bindings.resolve("new").await.unwrap().bucket_id, bound.bucket_id);
}

#[tokio::test]
async fn an_answer_that_news_have_overtaken_is_asked_for_again_also_the_first() {
    for (times, refused) in
        [(1, None), (QUESTIONS_MAX - 1, None), (QUESTIONS_MAX, Some(ErrorCode::OperationAborted))]
    {
        let (keys, bindings) = meanwhile(times, news);
        assert_eq!(bindings.resolve("bound").await.err().map(code), refused, "{times}");
        assert_eq!(*keys.asked.lock().unwrap(), QUESTIONS_MAX.min(times + 1));
    }
}

#[tokio::test]
async fn many_who_ask_at_once_for_a_bucket_that_is_not_there_are_told_so_after_one_question_each() {
    // Another asks later, and hears sooner.
    let other = |bindings: &Bindings, bucket: &str| {
        drop(bindings.remember(bucket, None, bindings.clock.boot_ms()));
    };
    let (keys, bindings) = meanwhile(u32::MAX, other);
    for asked in 1..=3 {
        assert_eq!(code(bindings.resolve("nowhere").await.unwrap_err()), ErrorCode::NoSuchBucket);
        assert_eq!(*keys.asked.lock().unwrap(), asked);
    }
}

#[tokio::test]
async fn a_binding_that_is_made_is_used_though_another_answer_told_of_the_one_before_it() {
    // It asked later, and before the end of the one before had come through.
    let other = |bindings: &Bindings, bucket: &str| {
        let mut before = OneBucket::binding_of(bucket, false);
        before.bucket_id = format!("{bucket}#{}", "1".repeat(32));
        let before = Arc::new(BoundBucket::from_wire(&before).unwrap());
        drop(bindings.remember(bucket, Some(before), bindings.clock.boot_ms()));
    };
    let (_, bindings) = meanwhile(1, other);
    let (bound, _) = bindings.bind("new").await.unwrap();
    assert_eq!(bindings.resolve("new").await.unwrap().bucket_id, bound.bucket_id);
}

#[tokio::test]
async fn each_question_for_strangers_counts() {
    let (keys, bindings) = meanwhile(u32::MAX, news);
    for _ in 0..1_000 {
        drop(bindings.known_to_anyone("nowhere").await);
    }
    // Each answer takes a millisecond here.
    assert!(*keys.asked.lock().unwrap() <= 2 * STRANGERS_PER_SECOND_MAX);
}
