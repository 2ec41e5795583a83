//! Two keysets, and gateways that reach for what is not theirs.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use claviger_keyapi::wire::Blob;
use claviger_keyapi::{
    ContinueItem, ContinueUnit, DeriveItem, DerivePurpose, Derived, FinishedUpload, KeyService as _,
    KeyServiceError, LeaseItem, ReleaseError,
};
use claviger_keyservice::Unlock;
use common::{Epoch, Gateway, Object, World};

/// `tenant` is granted everything on both keysets and enrolled for one; `both` is enrolled for both.
const POLICY: &str = r#"
[[operator]]
identity = "admin:first"
verbs = ["inspect", "unlock", "keyset", "enrol", "policy"]
[[operator]]
identity = "admin:second"
verbs = ["enrol", "policy"]
[[grant]]
identity = "gateway:full"
keyset = "default"
verbs = ["lease", "write", "read", "head", "copy-source", "continue", "bind", "names"]
[[grant]]
identity = "gateway:tenant"
keyset = "default"
verbs = ["lease", "write", "read", "head", "copy-source", "continue", "bind", "names"]
[[grant]]
identity = "gateway:tenant"
keyset = "archive"
verbs = ["lease", "write", "read", "head", "copy-source", "continue", "bind", "names"]
[[grant]]
identity = "gateway:both"
keyset = "default"
verbs = ["lease", "write", "read", "copy-source", "bind"]
[[grant]]
identity = "gateway:both"
keyset = "archive"
verbs = ["lease", "write", "read", "copy-source", "bind"]
[[grant]]
identity = "gateway:seals"
keyset = "default"
verbs = ["write"]
[[grant]]
identity = "gateway:goes-on"
keyset = "default"
verbs = ["read", "continue"]
[[grant]]
identity = "gateway:copies"
keyset = "default"
verbs = ["copy-source"]
"#;

async fn world() -> World {
    let world = World::with(POLICY, Unlock::PassphraseFile).await;
    world.add_keyset("archive").await;
    world
}

fn derive_item(object: &Object, key: &str, purpose: DerivePurpose) -> DeriveItem {
    DeriveItem {
        record: None,
        header: object.header.clone(),
        bucket_id: object.name.bucket_id().as_str().to_owned(),
        key: key.to_owned(),
        purpose,
        on_behalf_of: None,
    }
}

async fn derive(gateway: &Gateway, item: DeriveItem) -> Result<Derived, ReleaseError> {
    gateway.keys.derive(vec![item]).await.unwrap().value.remove(0)
}

async fn lease(gateway: &Gateway, epoch: &Epoch, record: bool) -> Result<(), ReleaseError> {
    let record = record.then(|| Blob(epoch.record.clone()));
    let item = LeaseItem { epoch_id: epoch.id.into(), record };
    gateway.keys.lease(vec![item]).await.unwrap().value.remove(0).map(drop)
}

async fn go_on(gateway: &Gateway, token: &str, bucket_id: &str) -> Result<(), ReleaseError> {
    let item = ContinueItem {
        record: None,
        upload_token: token.to_owned(),
        bucket_id: bucket_id.to_owned(),
        key: "big".into(),
        unit: ContinueUnit::Part { number: 1, length: 1 },
        on_behalf_of: None,
    };
    gateway.keys.continue_upload(vec![item]).await.unwrap().value.remove(0).map(drop)
}

async fn finish(gateway: &Gateway, token: &str, bucket_id: &str) -> Result<(), ReleaseError> {
    let item = FinishedUpload {
        record: None,
        upload_token: token.to_owned(),
        bucket_id: bucket_id.to_owned(),
        key: "big".into(),
    };
    gateway.keys.finish_upload(vec![item]).await.unwrap().remove(0)
}

fn denied<T>(result: &Result<T, ReleaseError>) -> bool {
    matches!(result, Err(ReleaseError::Denied { text }) if !text.contains("default"))
}

async fn bound(gateway: &Gateway, bucket: &str, keyset: &str) -> String {
    gateway.keys.bind_bucket(bucket, Some(keyset)).await.unwrap().value.bucket_id
}

#[tokio::test]
async fn a_policy_opens_nothing_in_a_keyset_that_the_gateway_is_not_enrolled_for() {
    let world = world().await;
    let (full, tenant) = (world.enrol("full").await, world.enrol_for("tenant", &["archive"]).await);
    let photos = bound(&full, "photos", "default").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let object = full.seal_object(&epoch, &photos, "k");
    let token = full.begin_upload(&epoch, &photos, "big");

    assert!(denied(&lease(&tenant, &epoch, false).await));
    assert!(denied(&lease(&tenant, &epoch, true).await));
    for key in ["k", "another"] {
        let read = derive(&tenant, derive_item(&object, key, DerivePurpose::Read)).await;
        assert!(denied(&read), "and the right name is answered like a wrong one: {read:?}");
    }
    assert!(denied(&go_on(&tenant, &token, &photos).await));
    assert!(denied(&finish(&tenant, &token, &photos).await));
    assert!(tenant.keys.epoch_record(epoch.id).await.unwrap().is_none());
    assert!(tenant.keys.binding("photos").await.unwrap().value.is_none());
    assert!(tenant.keys.bindings().await.unwrap().value.is_empty());
    assert!(matches!(
        tenant.keys.unbind_bucket("photos", &photos).await,
        Err(KeyServiceError::Denied { .. })
    ));
    let elsewhere = tenant.keys.bind_bucket("mine", Some("default")).await;
    assert!(matches!(elsewhere, Err(KeyServiceError::Denied { .. })));
    let taken = tenant.keys.bind_bucket("photos", None).await;
    assert!(matches!(taken, Err(KeyServiceError::Conflict { .. })), "{taken:?}");
    assert_eq!(tenant.session.keysets.len(), 1);

    // Nor does he register for others, or learn which of their buckets exist.
    let late = full.seal_epoch();
    assert!(denied(&lease(&tenant, &late, true).await));
    assert!(full.keys.epoch_record(late.id).await.unwrap().is_none());
    let own = tenant.seal_epoch();
    tenant.keys.register_epoch(&own.record).await.unwrap();
    let there = tenant.seal_object(&own, &photos, "k");
    assert_eq!(
        derive(&tenant, derive_item(&there, "k", DerivePurpose::Read)).await.unwrap_err(),
        ReleaseError::UnknownBucket
    );
}

#[tokio::test]
async fn keys_of_one_keyset_are_never_released_for_buckets_of_another() {
    let world = world().await;
    let both = world.enrol_for("both", &["default", "archive"]).await;
    assert_eq!(both.session.keysets.len(), 2);
    let (here, there) = (bound(&both, "here", "default").await, bound(&both, "there", "archive").await);
    let epoch = both.seal_epoch();
    both.keys.register_epoch(&epoch.record).await.unwrap();
    let homes: Vec<_> = both.session.keysets.iter().map(|keyset| keyset.name.as_str()).collect();
    let (home, abroad) = if homes[0] == "default" { (&here, &there) } else { (&there, &here) };
    let object = both.seal_object(&epoch, abroad, "k");
    assert_eq!(
        derive(&both, derive_item(&object, "k", DerivePurpose::Read)).await.unwrap_err(),
        ReleaseError::KeysetMismatch
    );
    let object = both.seal_object(&epoch, home, "k");
    let copy = |dest: &str, tlv_lengths: Vec<u32>| {
        let dest_bucket_id = dest.to_owned();
        derive_item(
            &object,
            "k",
            DerivePurpose::CopySource { dest_bucket_id, dest_key: "copy".into(), tlv_lengths },
        )
    };
    assert!(derive(&both, copy(home, vec![100])).await.is_ok());
    assert_eq!(derive(&both, copy(abroad, vec![100])).await.unwrap_err(), ReleaseError::KeysetMismatch);
    let unbound = format!("nowhere#{}", "0".repeat(32));
    assert_eq!(derive(&both, copy(&unbound, vec![100])).await.unwrap_err(), ReleaseError::UnknownBucket);
    for lengths in [vec![], vec![1; 5], vec![0], vec![16_385]] {
        let refused = derive(&both, copy(home, lengths)).await;
        assert!(matches!(refused, Err(ReleaseError::Malformed { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn going_on_with_an_upload_needs_write_and_continue_and_ending_it_write() {
    let world = world().await;
    let (full, seals) = (world.enrol("full").await, world.enrol("seals").await);
    let goes_on = world.enrol("goes-on").await;
    let photos = bound(&full, "photos", "default").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let token = full.begin_upload(&epoch, &photos, "big");
    let denied = |result: Result<(), ReleaseError>| matches!(result, Err(ReleaseError::Denied { .. }));
    assert!(denied(go_on(&seals, &token, &photos).await));
    assert!(denied(go_on(&goes_on, &token, &photos).await));
    assert!(denied(finish(&goes_on, &token, &photos).await));
    go_on(&full, &token, &photos).await.unwrap();
    finish(&seals, &token, &photos).await.unwrap();
    assert_eq!(go_on(&full, &token, &photos).await.unwrap_err(), ReleaseError::UploadFinished);
    let edited =
        world.database().execute("UPDATE finished_upload SET finished_ms = finished_ms + 1", []).unwrap();
    assert_eq!(edited, 1);
    let item = ContinueItem {
        record: None,
        upload_token: token,
        bucket_id: photos,
        key: "big".into(),
        unit: ContinueUnit::Check,
        on_behalf_of: None,
    };
    assert_eq!(full.keys.continue_upload(vec![item]).await.unwrap_err(), KeyServiceError::Internal);
}

#[tokio::test]
async fn a_copy_needs_write_for_its_destination() {
    let world = world().await;
    let (full, copies) = (world.enrol("full").await, world.enrol("copies").await);
    let photos = bound(&full, "photos", "default").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let object = full.seal_object(&epoch, &photos, "k");
    let purpose = || DerivePurpose::CopySource {
        dest_bucket_id: photos.clone(),
        dest_key: "copy".into(),
        tlv_lengths: vec![100],
    };
    let refused = derive(&copies, derive_item(&object, "k", purpose())).await;
    assert!(matches!(refused, Err(ReleaseError::Denied { .. })), "{refused:?}");
    assert!(derive(&full, derive_item(&object, "k", purpose())).await.is_ok());
}
