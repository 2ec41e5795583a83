//! What is read with ends when it is taken back, and by itself where nobody says so.

use std::collections::VecDeque;
use std::sync::Mutex;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use claviger_env::{OsRandom, SystemClock};
use claviger_format::{
    BucketId, KeysetId, Layout, Metadata, ObjectId, Root, RootSecret, Salt, UploadFields, UploadToken,
    envelope,
};
use claviger_keyapi::{
    Answered, Binding, ContinueItem, Continued, DekBytes, FinishedUpload, KeyFuture, PskBytes, PublicKey,
    Seed32, ServiceStatus, SessionInfo, SessionKeyset, Watch, WatchEvent, WekBytes,
};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::admin::Readiness;
use crate::bindings::Bindings;
use crate::key_client::Sight;
use crate::keys::holdings::Holdings;
use crate::keys::seen::seen;
use crate::keys::uploads::{AskedUpload, Uploads};
use crate::keys::watch::Watcher;
use crate::keys::write::WriteEpochs;
use crate::ops::manifests::Manifests;
use crate::upstream::double;

const KEYSET: [u8; 16] = [4; 16];
const EPOCH: EpochId = EpochId::new([5; 16]);
const TTL_MS: u64 = 5_000;

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

/// A key service with one keyset, which leases everything to whom it knows.
struct Service {
    clock: Arc<At>,
    knows: Mutex<bool>,
    /// While `Some`, leases wait for it after they were decided.
    delay: Mutex<Option<Arc<Notify>>>,
    told: Mutex<Told>,
    asked: Notify,
    streams: Mutex<VecDeque<mpsc::UnboundedReceiver<WatchEvent>>>,
}

/// What it says of versions.
#[derive(Clone, Copy)]
struct Told {
    era_shred: bool,
    newest: u32,
    of_epoch: Option<u32>,
    /// Whether it leases; else it releases object by object.
    leases: bool,
    /// Whether it releases those of this bucket.
    releases: bool,
}

fn told(era_shred: bool, newest: u32, of_epoch: Option<u32>) -> Told {
    Told { era_shred, newest, of_epoch, leases: true, releases: false }
}

impl Service {
    fn known(&self) -> Result<(), KeyServiceError> {
        if *self.knows.lock().unwrap() {
            return Ok(());
        }
        Err(KeyServiceError::Unauthenticated { text: "the identity is revoked".into() })
    }
}

impl KeyService for Service {
    fn session(&self) -> Answered<'_, SessionInfo> {
        async {
            self.known()?;
            let Told { era_shred, newest, leases, .. } = *self.told.lock().unwrap();
            let root = Root::new(RootSecret::from_slice(&[1; 32]).unwrap(), KeysetId::new(KEYSET), newest);
            let keyset = SessionKeyset {
                keyset_id: Id16(KEYSET),
                name: "default".into(),
                version: newest,
                public_key: PublicKey::new(root.public_key().unwrap().as_bytes()),
                psk: Some(PskBytes::new(&[2; 32])),
                name_key: None,
                verbs: if leases { vec![Verb::Lease, Verb::Read, Verb::Write] } else { vec![Verb::Write] },
                narrow_verbs: if leases { vec![] } else { vec![Verb::Read] },
                era_shred,
                record: Blob(vec![]),
            };
            let info = SessionInfo {
                identity: "gateway:main".parse().unwrap(),
                gateway_id: Id16([3; 16]),
                seed: Seed32::new(&[9; 32]),
                keysets: vec![keyset],
                binding_ttl_s: 30,
                lease_ttl_s: 5,
                derive_ttl_s: 5,
                session_ttl_s: 600,
            };
            Ok(Answer { value: info, sent_boot_ms: self.clock.boot_ms() })
        }
        .boxed()
    }

    fn lease(&self, items: Vec<LeaseItem>) -> Answered<'_, Vec<Result<Lease, ReleaseError>>> {
        async move {
            self.known()?;
            assert_eq!(items.len(), 1);
            let sent_boot_ms = self.clock.boot_ms();
            let delay = self.delay.lock().unwrap().clone();
            self.asked.notify_one();
            if let Some(delay) = delay {
                delay.notified().await;
            }
            let (wek, keyset_id) = (WekBytes::new(&[6; 32]), Id16(KEYSET));
            let version = self.told.lock().unwrap().of_epoch;
            let lease = Lease { wek, sealer_id: Id16([3; 16]), keyset_id, ttl_ms: TTL_MS, version };
            Ok(Answer { value: vec![Ok(lease)], sent_boot_ms })
        }
        .boxed()
    }

    fn watch(&self) -> KeyFuture<'_, Watch> {
        let events = self.streams.lock().unwrap().pop_front();
        async {
            let events = events.ok_or(KeyServiceError::Internal)?;
            let next = |mut events: mpsc::UnboundedReceiver<WatchEvent>| async {
                Some((Ok(events.recv().await?), events))
            };
            Ok(stream::unfold(events, next).boxed())
        }
        .boxed()
    }

    fn binding<'a>(&'a self, _: &'a str) -> Answered<'a, Option<Binding>> {
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
    fn derive(&self, items: Vec<DeriveItem>) -> Answered<'_, Vec<Result<Derived, ReleaseError>>> {
        async move {
            self.known()?;
            assert_eq!(items.len(), 1);
            let sent_boot_ms = self.clock.boot_ms();
            let result = if self.told.lock().unwrap().releases {
                Ok(Derived::Read { dek: DekBytes::new(dek().expose()), ttl_ms: TTL_MS })
            } else {
                Err(ReleaseError::Denied { text: "not in this bucket".into() })
            };
            Ok(Answer { value: vec![result], sent_boot_ms })
        }
        .boxed()
    }
    fn continue_upload(&self, _: Vec<ContinueItem>) -> Answered<'_, Vec<Result<Continued, ReleaseError>>> {
        unreachable!()
    }
    fn finish_upload(&self, _: Vec<FinishedUpload>) -> KeyFuture<'_, Vec<Result<(), ReleaseError>>> {
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

/// A gateway as far as its keys go, with a session.
struct Gateway {
    service: Arc<Service>,
    read_keys: Arc<ReadKeys>,
    write_epochs: Arc<WriteEpochs>,
    session: Arc<Session>,
    holdings: Arc<Holdings>,
    readiness: Readiness,
    tell: mpsc::UnboundedSender<WatchEvent>,
    watching: tokio::task::JoinHandle<()>,
    bound: BoundBucket,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

fn random() -> OsRandom {
    OsRandom::new(Arc::new(SystemClock)).unwrap()
}

const OBJECT: ObjectId = ObjectId::new([7; 16]);

/// The key of the object, which is of the epoch.
fn dek() -> Dek {
    Wek::from_slice(&[6; 32]).unwrap().dek(EPOCH, OBJECT)
}

async fn gateway() -> Gateway {
    let clock = Arc::new(At::default());
    let (tell, events) = mpsc::unbounded_channel();
    let service = Arc::new(Service {
        clock: clock.clone(),
        knows: Mutex::new(true),
        delay: Mutex::default(),
        told: Mutex::new(told(false, 1, None)),
        asked: Notify::new(),
        streams: Mutex::new([events].into()),
    });
    let keys: Arc<dyn KeyService> = service.clone();
    let random: Arc<dyn claviger_format::Random> = Arc::new(random());
    let upstream = double::store("generic", |_| double::answer(403, &[], "")).await.upstream;
    let system = Arc::new(SystemArea::new(upstream, "system".into()));
    let era = Era::default();
    let session = Arc::new(Session::new(keys.clone(), era.clone()));
    let (k, s, y, c, r) = (&keys, &session, &system, &clock, &random);
    let read_keys = Arc::new(ReadKeys::new(k.clone(), s.clone(), y.clone(), c.clone(), era.clone()));
    let write_epochs =
        Arc::new(WriteEpochs::new(k.clone(), s.clone(), y.clone(), c.clone(), r.clone(), era.clone()));
    let holdings = Arc::new(Holdings {
        era,
        session: session.clone(),
        write_epochs: write_epochs.clone(),
        read_keys: read_keys.clone(),
        uploads: Arc::new(Uploads::new(k.clone(), y.clone(), c.clone(), r.clone())),
        manifests: Manifests::new(),
    });
    let bindings = Arc::new(Bindings::new(k.clone(), c.clone(), s.clone()));
    let readiness = Readiness::new();
    let (begun, warning) = (readiness.register("stream"), readiness.warning("stream"));
    let watcher = Watcher::new(keys, holdings.clone(), bindings, random, begun, warning);
    let bucket_id = BucketId::new(format!("photos#{}", "0".repeat(32))).unwrap();
    let bound = BoundBucket { bucket_id, keyset_id: KeysetId::new(KEYSET) };
    session.refresh().await.unwrap();
    let watching = tokio::spawn(watcher.run());
    Gateway { service, read_keys, write_epochs, session, holdings, readiness, tell, watching, bound }
}

impl Gateway {
    async fn reads(&self) -> Result<(), GatewayError> {
        self.read_keys.leased(&self.bound, EPOCH).await.map(drop)
    }

    fn is_kept(&self) -> bool {
        self.read_keys.leases.contains_key(&EPOCH)
    }

    fn name(&self, key: &str) -> ObjectName {
        self.bound.name(key).unwrap()
    }

    /// The text of an envelope of an object of the epoch.
    fn sealed(&self, key: &str) -> String {
        self.sealed_with(key, Metadata::default())
    }

    fn sealed_with(&self, key: &str, metadata: Metadata) -> String {
        let layout = Layout::Single { salt: Salt::new([8; 16]), length: 5 };
        let name = self.name(key);
        envelope::seal(&dek(), EPOCH, OBJECT, &name, &layout, &metadata, 1418, &random()).unwrap()
    }

    async fn opens(&self, key: &str, sealed: &str) -> Result<OpenedObject, GatewayError> {
        let (name, envelope) = (self.name(key), Envelope::parse(sealed).unwrap());
        let asked = Asked { bound: &self.bound, name: &name, envelope: &envelope, on_behalf_of: "" };
        self.read_keys.open(asked).await
    }

    /// The service says this of versions and rights, and the gateway asks for its session again.
    async fn hears(&self, told: Told) {
        *self.service.told.lock().unwrap() = told;
        self.session.refresh().await.unwrap();
    }

    /// Whether a copy of an object of the epoch may stay in it, once the gateway has asked for its session again.
    async fn stays(&self, told: Told) -> bool {
        self.hears(told).await;
        let (name, envelope) = (self.name("k"), Envelope::parse(&self.sealed("k")).unwrap());
        let asked = Asked { bound: &self.bound, name: &name, envelope: &envelope, on_behalf_of: "" };
        self.read_keys.may_stay_in_its_epoch(asked).await.unwrap()
    }

    async fn told(&self, event: WatchEvent) {
        self.tell.send(event).unwrap();
        // A current-thread runtime: whoever hears it has done so once this is polled again and again.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn without_the_stream_a_lease_serves_until_it_runs_out_and_no_longer() {
    let gateway = gateway().await;
    gateway.reads().await.unwrap();
    *gateway.service.knows.lock().unwrap() = false;
    *gateway.service.clock.0.lock().unwrap() = TTL_MS - 1;
    gateway.reads().await.unwrap();
    *gateway.service.clock.0.lock().unwrap() = TTL_MS;
    gateway.reads().await.unwrap_err();
    assert!(!gateway.is_kept());
}

#[tokio::test]
async fn an_envelope_that_was_opened_serves_as_long_as_its_lease_and_no_longer() {
    let gateway = gateway().await;
    let sealed = gateway.sealed("k");
    let first = gateway.opens("k", &sealed).await.unwrap();
    *gateway.service.knows.lock().unwrap() = false;
    gateway.read_keys.leases.invalidate_all();
    *gateway.service.clock.0.lock().unwrap() = TTL_MS - 1;
    let again = gateway.opens("k", &sealed).await.unwrap();
    assert!(Arc::ptr_eq(&first.envelope, &again.envelope) && Arc::ptr_eq(&first.dek, &again.dek));
    *gateway.service.clock.0.lock().unwrap() = TTL_MS;
    assert!(gateway.opens("k", &sealed).await.is_err());
}

#[tokio::test]
async fn what_was_opened_by_a_lease_does_not_serve_where_the_service_releases_one_by_one() {
    let gateway = gateway().await;
    let sealed = gateway.sealed("k");
    gateway.opens("k", &sealed).await.unwrap();
    // Nobody says so on the stream.
    gateway.service.told.lock().unwrap().leases = false;
    gateway.session.refresh().await.unwrap();
    assert!(gateway.opens("k", &sealed).await.is_err());
    gateway.service.told.lock().unwrap().leases = true;
    gateway.session.refresh().await.unwrap();
    gateway.opens("k", &sealed).await.unwrap();
}

#[tokio::test]
async fn keys_of_opened_envelopes_are_wiped_when_their_lease_is_over_also_where_nobody_asks() {
    let gateway = gateway().await;
    let dek = gateway.opens("k", &gateway.sealed("k")).await.unwrap().dek;
    gateway.read_keys.tick().await;
    assert_eq!(Arc::strong_count(&dek), 2);
    *gateway.service.clock.0.lock().unwrap() = TTL_MS;
    gateway.read_keys.tick().await;
    assert!(Arc::strong_count(&dek) == 1 && !gateway.is_kept());
}

#[tokio::test]
async fn a_key_that_was_released_by_itself_serves_for_its_time_and_no_longer() {
    let gateway = gateway().await;
    let sealed = gateway.sealed("k");
    gateway.hears(Told { leases: false, releases: true, ..told(false, 1, None) }).await;
    let first = gateway.opens("k", &sealed).await.unwrap();
    *gateway.service.knows.lock().unwrap() = false;
    for (at_ms, is_opened) in [(TTL_MS - 1, true), (TTL_MS, false)] {
        gateway.read_keys.opened.forget();
        *gateway.service.clock.0.lock().unwrap() = at_ms;
        let opened = gateway.opens("k", &sealed).await;
        assert_eq!(opened.is_ok_and(|again| Arc::ptr_eq(&first.dek, &again.dek)), is_opened, "{at_ms} ms");
    }
}

#[tokio::test]
async fn a_key_that_was_released_by_itself_is_wiped_when_it_is_over_or_taken_back() {
    for is_taken_back in [false, true] {
        let gateway = gateway().await;
        gateway.hears(Told { leases: false, releases: true, ..told(false, 1, None) }).await;
        let dek = gateway.opens("k", &gateway.sealed("k")).await.unwrap().dek;
        gateway.read_keys.tick().await;
        assert_eq!(Arc::strong_count(&dek), 3, "among the derived, among the opened, here");
        if is_taken_back {
            gateway.told(WatchEvent::Revoked).await;
        } else {
            *gateway.service.clock.0.lock().unwrap() = TTL_MS;
        }
        gateway.read_keys.tick().await;
        assert_eq!(Arc::strong_count(&dek), 1, "taken back: {is_taken_back}");
    }
}

#[tokio::test]
async fn an_epoch_is_written_in_for_an_hour_or_until_its_era_ends_and_its_key_is_wiped_then() {
    const HOUR_MS: u64 = 3_600_000;
    let gateway = gateway().await;
    let (epochs, keyset_id) = (&gateway.write_epochs, gateway.bound.keyset_id);
    let at = |ms| *gateway.service.clock.0.lock().unwrap() = ms;
    epochs.write_in(keyset_id, EPOCH, 1);
    at(HOUR_MS - 1);
    assert_eq!(epochs.new_object(keyset_id, 1).await.unwrap().epoch_id, EPOCH);
    epochs.wipe_ended();
    assert!(epochs.holds_a_key());
    at(HOUR_MS);
    epochs.wipe_ended();
    assert!(!epochs.holds_a_key());
    // Where nobody wiped it, it is over all the same; and the store takes no new one.
    at(0);
    epochs.write_in(keyset_id, EPOCH, 1);
    at(HOUR_MS);
    assert!(epochs.new_object(keyset_id, 1).await.is_err() && !epochs.holds_a_key());
    epochs.write_in(keyset_id, EPOCH, 2);
    assert!(epochs.new_object(keyset_id, 1).await.is_err(), "of another version than the keyset's");
    epochs.write_in(keyset_id, EPOCH, 1);
    gateway.holdings.era.end();
    epochs.wipe_ended();
    assert!(!epochs.holds_a_key());
}

#[tokio::test]
async fn much_metadata_is_not_kept() {
    let gateway = gateway().await;
    for (len, is_kept) in [(900, true), (1100, false)] {
        let metadata = Metadata { user: vec![("note".into(), vec![b'x'; len])], ..Metadata::default() };
        let sealed = gateway.sealed_with("k", metadata);
        let dek = gateway.opens("k", &sealed).await.unwrap().dek;
        assert_eq!(Arc::strong_count(&dek) > 1, is_kept, "{len}");
    }
}

#[tokio::test]
async fn an_envelope_that_was_opened_opens_under_no_other_name_and_no_bit_of_it_may_differ() {
    let mut gateway = gateway().await;
    let (sealed, other) = (gateway.sealed("k"), gateway.sealed("l"));
    gateway.opens("k", &sealed).await.unwrap();
    assert!(gateway.opens("l", &sealed).await.is_err() && gateway.opens("k", &other).await.is_err());
    let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let altered = URL_SAFE_NO_PAD.encode(altered);
        if Envelope::parse(&altered).is_ok() {
            assert!(gateway.opens("k", &altered).await.is_err(), "bit {bit}");
        }
    }
    gateway.opens("k", &sealed).await.unwrap();
    // Of a bucket that belongs to another keyset by now.
    gateway.bound.keyset_id = KeysetId::new([9; 16]);
    assert!(gateway.opens("k", &sealed).await.is_err());
}

#[tokio::test]
async fn with_the_stream_whatever_takes_something_away_ends_it_at_once() {
    let state = Id16([1; 16]);
    for event in [
        WatchEvent::Revoked,
        WatchEvent::Locked,
        WatchEvent::Policy { state, less: true },
        WatchEvent::Frozen { state },
        WatchEvent::Quarantined { state },
        WatchEvent::Unknown,
        WatchEvent::Hello { state },
    ] {
        let gateway = gateway().await;
        gateway.reads().await.unwrap();
        let sealed = gateway.sealed("k");
        let opened = gateway.opens("k", &sealed).await.unwrap();
        *gateway.service.knows.lock().unwrap() = false;
        gateway.told(event.clone()).await;
        assert!(gateway.reads().await.is_err() && !gateway.is_kept(), "{event:?}");
        assert!(gateway.opens("k", &sealed).await.is_err(), "{event:?}: nor what was opened before");
        assert_eq!(Arc::strong_count(&opened.dek), 1, "{event:?}: its key is wiped");
        assert!(gateway.session.state().is_err(), "{event:?}: nor does it write");
        assert!(gateway.write_epochs.new_object(gateway.bound.keyset_id, 1).await.is_err(), "{event:?}");
    }
}

#[tokio::test]
async fn what_takes_nothing_away_disturbs_nothing() {
    let gateway = gateway().await;
    let state = Id16([1; 16]);
    gateway.told(WatchEvent::Hello { state }).await;
    gateway.reads().await.unwrap();
    *gateway.service.knows.lock().unwrap() = false;
    for event in [
        WatchEvent::Beat,
        WatchEvent::Bindings { buckets: None },
        WatchEvent::Policy { state: Id16([2; 16]), less: false },
    ] {
        gateway.told(event).await;
        gateway.reads().await.unwrap();
    }
    assert!(gateway.session.state().is_ok());
}

#[tokio::test]
async fn a_key_that_was_on_its_way_when_it_was_taken_back_is_not_used() {
    let gateway = gateway().await;
    let delay = Arc::new(Notify::new());
    *gateway.service.delay.lock().unwrap() = Some(delay.clone());
    let reading = async {
        let read = gateway.reads().await;
        assert!(matches!(read, Err(GatewayError::TakenBack)), "{read:?}");
    };
    let meanwhile = async {
        gateway.service.asked.notified().await;
        gateway.told(WatchEvent::Revoked).await;
        delay.notify_one();
    };
    tokio::join!(reading, meanwhile);
}

#[tokio::test(start_paused = true)]
async fn health_tells_whether_the_stream_is_held() {
    let gateway = gateway().await;
    let warning = || gateway.readiness.warnings()["stream"].clone();
    assert!(warning().is_some() && !gateway.readiness.is_ready(), "not before the first line");
    gateway.told(WatchEvent::Hello { state: Id16([1; 16]) }).await;
    assert_eq!(warning(), None);
    assert!(gateway.readiness.is_ready(), "what is obtained from here on is kept");
    gateway.reads().await.unwrap();
    gateway.told(WatchEvent::Hello { state: Id16([1; 16]) }).await;
    assert!(gateway.is_kept());
    // Silent for too long, as if the way were cut without a word.
    tokio::time::sleep(std::time::Duration::from_secs(26)).await;
    assert!(warning().unwrap().contains("as keys run out"));
    assert!(gateway.readiness.is_ready(), "requests are served without it");
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_twice_when_it_asks_for_its_session_holds_nothing_any_more() {
    let gateway = gateway().await;
    gateway.reads().await.unwrap();
    *gateway.service.knows.lock().unwrap() = false;
    let refused = Arc::new(Mutex::new(0));
    let count = refused.clone();
    let asking =
        tokio::spawn(gateway.session.clone().keep_fresh(|_| {}, move |_| *count.lock().unwrap() += 1));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(*refused.lock().unwrap(), 0, "once may be the connection");
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    assert_eq!(*refused.lock().unwrap(), 1, "told once");
    asking.abort();
}

#[tokio::test]
async fn what_a_service_gave_that_hides_its_log_is_dropped_and_health_tells_at_the_first_look() {
    let gateway = gateway().await;
    gateway.reads().await.unwrap();
    let tell = seen(&gateway.readiness, &gateway.holdings);
    let health = || {
        let component = gateway.readiness.snapshot()["key_service_log"].clone();
        (component, gateway.readiness.warnings()["key_service_log"].clone())
    };
    assert!(health().0.is_some(), "nobody has looked yet");
    tell(&Sight::Clear);
    assert_eq!(health(), (None, None));
    tell(&Sight::Away("no connection".into()));
    let (component, warning) = health();
    assert!(component.is_none() && warning.unwrap().contains("no connection"));
    tell(&Sight::Hidden("an error".into()));
    assert_eq!(health(), (Some("an error".into()), None));
    gateway.reads().await.unwrap();
    *gateway.service.knows.lock().unwrap() = false;
    tell(&Sight::Over("for too long".into()));
    assert_eq!(health().0.unwrap(), "for too long");
    assert!(gateway.reads().await.is_err() && !gateway.is_kept());
    assert!(gateway.session.state().is_err(), "nor does it write");

    // Once; what is obtained after the next good look stands.
    *gateway.service.knows.lock().unwrap() = true;
    gateway.session.refresh().await.unwrap();
    tell(&Sight::Over("for too long".into()));
    assert!(gateway.session.state().is_ok());
    tell(&Sight::Clear);
    assert_eq!(health(), (None, None));
}

#[tokio::test]
async fn under_a_session_of_more_than_a_day_no_epoch_begins() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let gateway = gateway().await;
    let write =
        async || gateway.write_epochs.new_object(gateway.bound.keyset_id, 1).await.map(drop).unwrap_err();
    *gateway.service.clock.0.lock().unwrap() = DAY_MS - 1;
    let failed = write().await;
    assert!(!matches!(failed, GatewayError::KeyService(_)), "it fails at the store: {failed:?}");
    *gateway.service.clock.0.lock().unwrap() = DAY_MS;
    let refused = write().await;
    assert!(matches!(refused, GatewayError::KeyService(KeyServiceError::Unavailable { .. })), "{refused:?}");
    gateway.session.refresh().await.unwrap();
    let failed = write().await;
    assert!(!matches!(failed, GatewayError::KeyService(_)), "{failed:?}");
}

#[tokio::test]
async fn in_a_keyset_that_is_shredded_by_era_a_copy_stays_in_an_epoch_of_the_newest_version_alone() {
    for (era_shred, newest, of_epoch, stays) in [
        (false, 2, None, true),
        (true, 2, Some(2), true),
        (true, 2, Some(1), false),
        // A lease from before the keyset was one: it says nothing of versions.
        (true, 2, None, false),
    ] {
        let gateway = gateway().await;
        assert_eq!(
            gateway.stays(told(era_shred, newest, of_epoch)).await,
            stays,
            "{era_shred} {newest} {of_epoch:?}"
        );
    }
}

#[tokio::test]
async fn a_lease_that_is_kept_over_a_rotation_is_one_of_an_older_version() {
    let gateway = gateway().await;
    assert!(gateway.stays(told(true, 1, Some(1))).await);
    // What is kept is looked at: whatever the service said of the epoch now would not be heard.
    assert!(!gateway.stays(told(true, 2, Some(2))).await);
    assert!(gateway.is_kept());
}

#[tokio::test]
async fn an_upload_that_began_here_knows_its_version_without_asking() {
    let gateway = gateway().await;
    let uploads = &gateway.holdings.uploads;
    let (object_id, dek) = (ObjectId::new([7; 16]), || Dek::from_slice(&[9; 32]).unwrap());
    uploads.remember(object_id, gateway.bound.keyset_id, 3, dek());
    let fields = UploadFields {
        epoch_id: EPOCH,
        object_id,
        expires_ms: u64::MAX,
        checksum: None,
        upstream_upload_id: "upstream".into(),
    };
    let name = |key: &str| ObjectName::new(gateway.bound.bucket_id.clone(), key).unwrap();
    let (mine, other) = (name("k"), name("l"));
    let token = UploadToken::issue(&dek().upload_key(), fields, &mine).unwrap();
    let asked = |name| AskedUpload { token: &token, name, on_behalf_of: "" };
    assert_eq!(uploads.version(asked(&mine)).await.unwrap(), Some(3));
    assert!(uploads.version(asked(&other)).await.is_err(), "it is checked first");
}
