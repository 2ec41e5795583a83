//! Keys over real sockets: what is released, to whom, and what the log says about it.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use claviger_format::{
    Envelope, Layout, Metadata, UnitContext, UnitGrant, UnitKeys, UploadFields, UploadToken, envelope,
    footer, unit,
};
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{
    ContinueItem, ContinueUnit, DeriveItem, DerivePurpose, Derived, EnvelopeHeader, FinishedUpload, Id16,
    KeyService as _, KeyServiceError, LeaseItem, ReleaseError, Verb,
};
use common::{Epoch, Gateway, Object, World};

fn read_item(object: &Object, epoch: &Epoch, key: &str) -> DeriveItem {
    DeriveItem {
        record: Some(Blob(epoch.record.clone())),
        header: object.header.clone(),
        bucket_id: object.name.bucket_id().as_str().to_owned(),
        key: key.to_owned(),
        purpose: DerivePurpose::Read,
        on_behalf_of: Some("AKIDEXAMPLE".into()),
    }
}

async fn derive(gateway: &Gateway, item: DeriveItem) -> Result<Derived, ReleaseError> {
    gateway.keys.derive(vec![item]).await.unwrap().value.remove(0)
}

async fn bound(gateway: &Gateway, bucket: &str) -> String {
    gateway.keys.bind_bucket(bucket, None).await.unwrap().value.bucket_id
}

fn unit_keys(bytes: &[u8; 76]) -> UnitKeys {
    UnitKeys::from_slice(bytes).unwrap()
}

#[tokio::test]
async fn a_full_gateway_seals_registers_leases_and_derives_and_every_key_is_in_the_log_before_it_arrives() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    assert!(full.keyset().verbs.contains(&Verb::Lease) && full.keyset().name_key.is_some());
    let bucket_id = bound(&full, "photos").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    full.keys.register_epoch(&epoch.record).await.unwrap();

    let leases = full.keys.lease(vec![LeaseItem { epoch_id: epoch.id.into(), record: None }]).await.unwrap();
    let lease = leases.value.into_iter().next().unwrap().unwrap();
    assert_eq!(lease.wek.expose(), epoch.wek.expose());
    assert_eq!((lease.ttl_ms, lease.sealer_id), (300_000, full.session.gateway_id));
    let last = world.last_audit();
    assert_eq!((last["action"].as_str(), last["outcome"].as_str()), (Some("lease"), Some("released")));
    assert_eq!(last["epoch_id"], epoch.id.to_string());

    let object = full.seal_object(&epoch, &bucket_id, "2026/a b.txt");
    let Derived::Read { dek, .. } = derive(&full, read_item(&object, &epoch, "2026/a b.txt")).await.unwrap()
    else {
        panic!("not a DEK")
    };
    assert_eq!(dek.expose(), object.dek.expose());
    let last = world.last_audit();
    assert_eq!(last["action"], "derive");
    assert_eq!(last["identity"], "gateway:full");
    assert_eq!((last["bucket"].as_str(), last["key"].as_str()), (Some("photos"), Some("2026/a b.txt")));
    assert_eq!(
        (last["name_verified"].as_bool(), last["on_behalf_of"].as_str()),
        (Some(true), Some("AKIDEXAMPLE"))
    );
    assert_eq!(last["object_id"], object.id.to_string());
}

#[tokio::test]
async fn a_claimed_name_that_is_not_the_objects_gets_no_key_and_is_logged_as_claimed() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let (photos, other) = (bound(&full, "photos").await, bound(&full, "other").await);
    let epoch = full.seal_epoch();
    let object = full.seal_object(&epoch, &photos, "secret");
    let mut items = vec![read_item(&object, &epoch, "harmless"), read_item(&object, &epoch, "secret")];
    items[1].bucket_id = other;
    for item in items {
        assert_eq!(derive(&full, item).await.unwrap_err(), ReleaseError::BindingMismatch);
        let last = world.last_audit();
        assert_eq!(
            (last["outcome"].as_str(), last["reason"].as_str()),
            (Some("refused"), Some("binding mismatch"))
        );
        assert_eq!(last["name_verified"], false);
    }
}

#[tokio::test]
async fn headers_that_are_not_an_envelopes_release_nothing() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let bucket_id = bound(&full, "photos").await;
    let epoch = full.seal_epoch();
    let object = full.seal_object(&epoch, &bucket_id, "k");
    for kind in [1u8, 2, 3] {
        let mut header = *object.header.as_bytes();
        header[5] = kind;
        header[7] = 1;
        let item = DeriveItem { header: EnvelopeHeader::new(&header), ..read_item(&object, &epoch, "k") };
        assert!(matches!(derive(&full, item).await, Err(ReleaseError::Malformed { .. })), "kind {kind}");
    }
    let mut flipped = *object.header.as_bytes();
    flipped[95] ^= 1;
    let item = DeriveItem { header: EnvelopeHeader::new(&flipped), ..read_item(&object, &epoch, "k") };
    assert_eq!(derive(&full, item).await.unwrap_err(), ReleaseError::BindingMismatch);
}

#[tokio::test]
async fn head_opens_the_metadata_and_nothing_else() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let bucket_id = bound(&full, "photos").await;
    let epoch = full.seal_epoch();
    let object = full.seal_object(&epoch, &bucket_id, "k");
    let item = DeriveItem { purpose: DerivePurpose::Head, ..read_item(&object, &epoch, "k") };
    let Derived::Head { unit, .. } = derive(&full, item).await.unwrap() else { panic!("not unit keys") };
    let opened =
        Envelope::parse(&object.envelope).unwrap().open_with_unit_keys(&unit_keys(unit.expose())).unwrap();
    assert!(matches!(opened.layout, Layout::Single { length: 5, .. }));
    assert!(!unit.expose().windows(32).any(|window| window == object.dek.expose()));
}

#[tokio::test]
async fn a_copy_gets_one_new_envelope_for_exactly_its_destination() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let bucket_id = bound(&full, "photos").await;
    let epoch = full.seal_epoch();
    let object = full.seal_object(&epoch, &bucket_id, "from");
    let old_len = u32::from_be_bytes(object.header.as_bytes()[12..16].try_into().unwrap());
    let purpose = DerivePurpose::CopySource {
        dest_bucket_id: bucket_id.clone(),
        dest_key: "to".into(),
        tlv_lengths: vec![old_len, 3],
    };
    let item = DeriveItem { purpose, ..read_item(&object, &epoch, "from") };
    let Derived::CopySource { unit, new_units } = derive(&full, item).await.unwrap() else {
        panic!("not a copy")
    };
    let old =
        Envelope::parse(&object.envelope).unwrap().open_with_unit_keys(&unit_keys(unit.expose())).unwrap();
    assert_eq!(new_units.len(), 2);
    assert_ne!(new_units[0].salt, new_units[1].salt);
    let context = UnitContext {
        kind: unit::Kind::Envelope,
        number: 0,
        length: u64::from(old_len),
        epoch_id: epoch.id,
        object_id: object.id,
        salt: new_units[0].salt.into(),
    };
    let grant = UnitGrant::new(context, unit_keys(new_units[0].unit.expose())).unwrap();
    let copied = envelope::seal_granted(grant, &old.layout, &Metadata::default()).unwrap();
    let copied = Envelope::parse(&copied).unwrap();
    assert!(copied.open(&object.dek, &common::object_name(&bucket_id, "to")).is_ok());
    assert!(copied.open(&object.dek, &object.name).is_err());
    let last = world.last_audit();
    assert_eq!((last["purpose"].as_str(), last["dest_key"].as_str()), (Some("copy-source"), Some("to")));
}

#[tokio::test]
async fn policy_decides_per_verb_bucket_and_prefix() {
    let world = World::new().await;
    let (full, writer, narrow) =
        (world.enrol("full").await, world.enrol("writer").await, world.enrol("narrow").await);
    let (photos, other) = (bound(&full, "photos").await, bound(&full, "other").await);
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let denied = |result: &Result<Derived, ReleaseError>| matches!(result, Err(ReleaseError::Denied { .. }));

    let inside = full.seal_object(&epoch, &photos, "2026/x");
    assert!(derive(&narrow, read_item(&inside, &epoch, "2026/x")).await.is_ok());
    assert!(denied(&derive(&writer, read_item(&inside, &epoch, "2026/x")).await));
    assert_eq!(world.last_audit()["outcome"], "refused");
    let outside = full.seal_object(&epoch, &photos, "2025/x");
    assert!(denied(&derive(&narrow, read_item(&outside, &epoch, "2025/x")).await));
    let elsewhere = full.seal_object(&epoch, &other, "2026/x");
    assert!(denied(&derive(&narrow, read_item(&elsewhere, &epoch, "2026/x")).await));
    let lease = |gateway: &Gateway| {
        let keys = gateway.keys.clone();
        let item = LeaseItem { epoch_id: epoch.id.into(), record: None };
        async move { keys.lease(vec![item]).await.unwrap().value.remove(0) }
    };
    assert!(matches!(lease(&narrow).await, Err(ReleaseError::Denied { .. })));
    assert!(matches!(lease(&writer).await, Err(ReleaseError::Denied { .. })));

    assert!(writer.keyset().psk.is_some() && writer.keyset().name_key.is_none());
    assert!(narrow.keyset().psk.is_none());
    assert_eq!(narrow.keyset().narrow_verbs, [Verb::Read, Verb::Head]);
    assert!(matches!(writer.keys.bind_bucket("mine", None).await, Err(KeyServiceError::Denied { .. })));
    assert!(matches!(
        writer.keys.unbind_bucket("photos", &photos).await,
        Err(KeyServiceError::Denied { .. })
    ));
    assert!(
        narrow.keys.binding("other").await.unwrap().value.is_none(),
        "what it may not touch it does not see"
    );
    assert_eq!(narrow.keys.bindings().await.unwrap().value.len(), 1);
}

#[tokio::test]
async fn a_forged_or_foreign_epoch_is_refused_and_an_unknown_one_asked_for() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let lease = |epoch_id: Id16, record: Option<Vec<u8>>| {
        let keys = full.keys.clone();
        async move {
            keys.lease(vec![LeaseItem { epoch_id, record: record.map(Blob) }]).await.unwrap().value.remove(0)
        }
    };
    let epoch = full.seal_epoch();
    assert_eq!(lease(epoch.id.into(), None).await.unwrap_err(), ReleaseError::UnknownEpoch);
    assert!(lease(epoch.id.into(), Some(epoch.record.clone())).await.is_ok(), "registered on the way");
    assert!(lease(epoch.id.into(), None).await.is_ok());
    assert!(full.keys.epoch_record(epoch.id).await.unwrap().as_deref() == Some(&epoch.record[..]));

    // Sealed with full's PSK in second's name.
    let forged = full.seal_epoch_for(second.session.gateway_id);
    assert_eq!(lease(forged.id.into(), Some(forged.record)).await.unwrap_err(), ReleaseError::EpochRejected);
    // Another record under a registered id.
    let mut other = full.seal_epoch();
    other.record[16..32].copy_from_slice(epoch.id.as_bytes());
    assert_eq!(
        lease(epoch.id.into(), Some(other.record.clone())).await.unwrap_err(),
        ReleaseError::EpochRejected
    );
    assert!(full.keys.register_epoch(&other.record).await.is_err());
    assert_eq!(lease(epoch.id.into(), Some(vec![1, 2, 3])).await.unwrap_err(), ReleaseError::EpochRejected);
    // Only the sealer registers.
    let late = full.seal_epoch();
    assert!(matches!(second.keys.register_epoch(&late.record).await, Err(KeyServiceError::Denied { .. })));
}

struct Upload {
    object: Object,
    token: String,
}

fn upload(gateway: &Gateway, epoch: &Epoch, bucket_id: &str, expires_ms: u64) -> Upload {
    let object = gateway.seal_object(epoch, bucket_id, "big");
    let fields = UploadFields {
        epoch_id: epoch.id,
        object_id: object.id,
        expires_ms,
        checksum: None,
        upstream_upload_id: "upstream-1".into(),
    };
    let token = UploadToken::issue(&object.dek.upload_key(), fields, &object.name).unwrap().to_text();
    Upload { object, token }
}

#[tokio::test]
async fn another_gateway_continues_an_upload_without_ever_holding_its_dek() {
    let world = World::new().await;
    let (full, writer) = (world.enrol("full").await, world.enrol("writer").await);
    let bucket_id = bound(&full, "photos").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let now_ms = full.keys.status().await.unwrap().now_ms;
    let begun = upload(&full, &epoch, &bucket_id, now_ms + 1_000);
    let item = |unit| ContinueItem {
        record: None,
        upload_token: begun.token.clone(),
        bucket_id: bucket_id.clone(),
        key: "big".into(),
        unit,
        on_behalf_of: None,
    };
    let ask = |item: ContinueItem| {
        let keys = writer.keys.clone();
        async move { keys.continue_upload(vec![item]).await.unwrap().value.remove(0) }
    };
    let footer_unit = ContinueUnit::Footer { parts: 1, length: 7 };
    let continued = ask(item(footer_unit)).await.unwrap();
    let granted = continued.unit.unwrap();
    let context = UnitContext {
        kind: unit::Kind::Footer,
        number: 1,
        length: 7,
        epoch_id: epoch.id,
        object_id: begun.object.id,
        salt: granted.salt.into(),
    };
    let entry = claviger_format::Entry { number: 1, length: 7, salt: None, crc64: None };
    let info = claviger_format::FooterInfo { created_ms: 1, crc64: None, checksum: None };
    let grant = UnitGrant::new(context, unit_keys(granted.unit.expose())).unwrap();
    let sealed = footer::seal_granted(grant, std::slice::from_ref(&entry), &info).unwrap();
    let total = claviger_format::layout::g(7).unwrap();
    assert!(footer::open(&begun.object.dek, epoch.id, begun.object.id, &sealed, total).is_ok());
    assert_eq!(continued.upload_key.unwrap().expose(), begun.object.dek.upload_key().expose());
    assert_eq!(continued.etag_key.expose(), begun.object.dek.etag_key().expose());

    let wrong_name = ContinueItem { key: "small".into(), ..item(footer_unit) };
    assert_eq!(ask(wrong_name).await.unwrap_err(), ReleaseError::BindingMismatch);
    let bad = ask(item(ContinueUnit::Part { number: 0, length: 1 })).await;
    assert!(matches!(bad, Err(ReleaseError::Malformed { .. })), "{bad:?}");
    world.clock.advance(2_000);
    assert_eq!(ask(item(footer_unit)).await.unwrap_err(), ReleaseError::UploadExpired);
    let checked = ask(item(ContinueUnit::Check)).await.unwrap();
    assert!(checked.unit.is_none(), "Abort works after expiry");
    assert!(checked.upload_key.is_none(), "with it the token could be renewed for ever");
}

#[tokio::test]
async fn a_finished_upload_is_never_continued_not_even_after_a_restart() {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    let bucket_id = bound(&full, "photos").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let begun = upload(&full, &epoch, &bucket_id, u64::MAX);
    let report = |token: &str| FinishedUpload {
        record: None,
        upload_token: token.to_owned(),
        bucket_id: bucket_id.clone(),
        key: "big".into(),
    };
    let mut forged = begun.token.clone().into_bytes();
    forged[30] = if forged[30] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    assert!(full.keys.finish_upload(vec![report(&forged)]).await.unwrap()[0].is_err());
    assert_eq!(full.keys.finish_upload(vec![report(&begun.token)]).await.unwrap(), [Ok(())]);
    world.restart().await;
    let item = ContinueItem {
        record: None,
        upload_token: begun.token.clone(),
        bucket_id: bucket_id.clone(),
        key: "big".into(),
        unit: ContinueUnit::Part { number: 1, length: 1 },
        on_behalf_of: None,
    };
    let refused = full.keys.continue_upload(vec![item]).await.unwrap().value.remove(0);
    assert_eq!(refused.unwrap_err(), ReleaseError::UploadFinished);
}

#[tokio::test]
async fn a_batch_answers_each_item_and_logs_each_and_has_a_limit() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let bucket_id = bound(&full, "photos").await;
    let epoch = full.seal_epoch();
    let objects: Vec<Object> =
        (0..256).map(|n| full.seal_object(&epoch, &bucket_id, &format!("k{n}"))).collect();
    let items =
        objects.iter().enumerate().map(|(n, o)| read_item(o, &epoch, &format!("k{}", n / 2 * 2))).collect();
    let before = world.audit().len();
    let results = full.keys.derive(items).await.unwrap().value;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 128);
    assert_eq!(world.audit().len() - before, 257, "256 decisions and one registration");
    let one_too_many = vec![LeaseItem { epoch_id: epoch.id.into(), record: None }; 257];
    assert!(matches!(full.keys.lease(one_too_many).await, Err(KeyServiceError::TooManyItems { max: 256 })));
}

#[tokio::test]
async fn objects_of_a_deleted_bucket_are_not_opened_by_its_successor_nor_under_their_old_id() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let old_id = bound(&full, "photos").await;
    let again = full.keys.bind_bucket("photos", Some("default")).await.unwrap().value;
    assert_eq!((again.bucket_id.as_str(), again.created), (old_id.as_str(), false));
    let epoch = full.seal_epoch();
    let object = full.seal_object(&epoch, &old_id, "k");
    full.keys.unbind_bucket("photos", &old_id).await.unwrap();
    assert_eq!(full.keys.unbind_bucket("photos", &old_id).await.unwrap_err(), KeyServiceError::UnknownBucket);
    assert_eq!(
        derive(&full, read_item(&object, &epoch, "k")).await.unwrap_err(),
        ReleaseError::UnknownBucket
    );
    let new_id = bound(&full, "photos").await;
    assert_ne!(new_id, old_id);
    // A delayed or repeated call for the old binding leaves the new one alone.
    assert_eq!(full.keys.unbind_bucket("photos", &old_id).await.unwrap_err(), KeyServiceError::UnknownBucket);
    assert!(full.keys.binding("photos").await.unwrap().value.is_some());
    let item = DeriveItem { bucket_id: new_id, ..read_item(&object, &epoch, "k") };
    assert_eq!(derive(&full, item).await.unwrap_err(), ReleaseError::BindingMismatch);
}

#[tokio::test]
async fn a_deleted_buckets_name_stays_closed_while_another_gateway_may_use_it_even_over_a_restart() {
    let mut world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    world.clock.advance(60_000);
    let id = bound(&full, "photos").await;
    assert!(second.keys.binding("photos").await.unwrap().value.is_some());
    full.keys.unbind_bucket("photos", &id).await.unwrap();
    let closed = full.keys.bind_bucket("photos", None).await.unwrap_err();
    assert_eq!(closed, KeyServiceError::BucketClosing { retry_after_ms: 30_000 });
    world.clock.advance(10_000);
    world.restart().await;
    assert!(matches!(
        full.keys.bind_bucket("photos", None).await,
        Err(KeyServiceError::BucketClosing { .. })
    ));
    world.clock.advance(31_000);
    bound(&full, "photos").await;
}
