//! Enrolment, certificates, lock, restart, and callers that mean no good, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use claviger_gateway::key_client::{self, ClientError, KeyClient, StoredIdentity};
use claviger_keyapi::admin::{
    self, AdminStatus, AuditTail, AuditTailRequest, ConfirmKeysetRequest, CreateKeysetRequest, EpochList,
    EpochListRequest, IdentityList, KeysetInfo, KeysetList, KeysetShares, PolicyInForce, RevokeAnswer,
    RevokeRequest, UnlockRequest,
};
use claviger_keyapi::enrol::EnrolToken;
use claviger_keyapi::proposals::Action;
use claviger_keyapi::routes::{Empty, LeaseRequest};
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{
    DeriveItem, DerivePurpose, KeyService as _, KeyServiceError, LeaseItem, ReleaseError, Role, ServiceState,
};
use claviger_keyservice::custody::shamir::{Share, ShareOf, combine};
use claviger_keyservice::{ServiceError, Unlock, init};
use common::{POLICY, World, ask, enrol, stored};

#[tokio::test]
async fn a_token_is_good_once() {
    let world = World::new().await;
    let token = world.token("gateway:full").await;
    key_client::enrol(&token, &world.path("one"), world.clock.clone()).await.unwrap();
    let again = key_client::enrol(&token, &world.path("two"), world.clock.clone()).await.unwrap_err();
    assert!(matches!(again, ClientError::Service(KeyServiceError::Unauthenticated { .. })), "{again}");
    assert!(!StoredIdentity::exists(&world.path("two")));
    assert_eq!(world.last_audit()["outcome"], "refused");
    let over = key_client::enrol(&token, &world.path("one"), world.clock.clone()).await.unwrap_err();
    assert!(matches!(over, ClientError::AlreadyEnrolled(_)));
}

#[tokio::test]
async fn an_expired_token_is_refused_on_both_sides() {
    let world = World::new().await;
    let token = world.token("gateway:full").await;
    world.clock.advance(601_000);
    let error = key_client::enrol(&token, &world.path("full"), world.clock.clone()).await.unwrap_err();
    assert!(matches!(error, ClientError::TokenExpired));
    // A client whose clock is behind: the service refuses.
    let behind: Arc<dyn claviger_env::Clock> = Arc::new(Behind(world.clock.clone()));
    let error = key_client::enrol(&token, &world.path("full"), behind).await.unwrap_err();
    assert!(matches!(error, ClientError::Service(KeyServiceError::Unauthenticated { .. })), "{error}");
}

struct Behind(Arc<common::TestClock>);
impl claviger_env::Clock for Behind {
    fn now_ms(&self) -> u64 {
        self.0.now_ms() - 200_000
    }
    fn boot_ms(&self) -> u64 {
        self.0.boot_ms()
    }
}

#[tokio::test]
async fn a_token_that_names_another_ca_sends_nothing_and_one_for_another_name_is_refused() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let world = World::new().await;
    let token = world.token("gateway:full").await;
    let tampered = |from: &str, to: &str| {
        let json = URL_SAFE_NO_PAD.decode(token.strip_prefix("clv-enrol-1.").unwrap()).unwrap();
        let json = String::from_utf8(json).unwrap();
        assert!(json.contains(from), "{from}");
        format!("clv-enrol-1.{}", URL_SAFE_NO_PAD.encode(json.replace(from, to)))
    };
    let before = world.audit().len();
    let pin = "\"ca_spki_sha256\":\"";
    let json = URL_SAFE_NO_PAD.decode(token.strip_prefix("clv-enrol-1.").unwrap()).unwrap();
    let json = String::from_utf8(json).unwrap();
    let at = json.find(pin).unwrap() + pin.len();
    let hash = &json[at..at + 64];
    let error =
        key_client::enrol(&tampered(hash, &"0".repeat(64)), &world.path("x"), world.clock.clone()).await;
    assert!(matches!(error, Err(ClientError::Handshake { .. })), "{error:?}");
    assert_eq!(world.audit().len(), before, "the service never heard of it");
    let error =
        key_client::enrol(&tampered("gateway:full", "gateway:second"), &world.path("x"), world.clock.clone())
            .await;
    assert!(matches!(error, Err(ClientError::Service(KeyServiceError::Unauthenticated { .. }))), "{error:?}");
    let error = key_client::enrol_as(Role::Admin, &token, &world.path("x"), world.clock.clone()).await;
    assert!(matches!(error, Err(ClientError::WrongRole(_))));
}

#[tokio::test]
async fn a_revoked_gateway_gets_nothing_and_its_unregistered_epochs_are_refused_to_all() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let (known, unknown) = (full.seal_epoch(), full.seal_epoch());
    full.keys.register_epoch(&known.record).await.unwrap();
    let operator = world.operator();
    let revoke = RevokeRequest { identity: "gateway:full".parse().unwrap(), since_ms: None, logs: vec![] };
    ask::<RevokeAnswer>(&operator, admin::REVOKE, &revoke).await.unwrap();
    assert!(
        matches!(full.keys.session().await, Err(KeyServiceError::Unauthenticated { .. })),
        "on the open connection"
    );
    assert_eq!(world.last_audit()["action"], "authenticate");
    let fresh = KeyClient::open("", &world.path("full"), world.clock.clone()).unwrap();
    assert!(matches!(fresh.session().await, Err(KeyServiceError::Unauthenticated { .. })), "on a new one");
    assert!(matches!(
        fresh.renew().await,
        Err(ClientError::Service(KeyServiceError::Unauthenticated { .. }))
    ));
    let items =
        [&known, &unknown].map(|e| LeaseItem { epoch_id: e.id.into(), record: Some(Blob(e.record.clone())) });
    let leases = second.keys.lease(items.to_vec()).await.unwrap().value;
    assert!(leases[0].is_ok(), "what was registered before stays readable");
    assert_eq!(leases[1].as_ref().unwrap_err(), &ReleaseError::EpochRevoked);
}

#[tokio::test]
async fn certificates_end_after_a_day_and_renewal_carries_on() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    full.keys.renew_if_due().await.unwrap();
    let first = stored(&world, "full").certificate;
    world.clock.advance(12 * 3_600_000);
    full.keys.renew_if_due().await.unwrap();
    assert!(stored(&world, "full").certificate.not_after_ms > first.not_after_ms);
    world.clock.advance(12 * 3_600_000 + 1);
    full.keys.session().await.unwrap();
    let expired = second.keys.session().await.unwrap_err();
    assert!(matches!(expired, KeyServiceError::Unauthenticated { .. }), "on the open connection: {expired}");
    assert!(second.keys.session().await.is_err(), "on a new one");
}

#[tokio::test]
async fn a_renewal_whose_answers_got_lost_locks_nobody_out() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let copy = world.path("copy");
    stored(&world, "full").save(&copy).unwrap();
    full.keys.renew().await.unwrap();
    // The old key asks again, twice, as if no answer had arrived.
    for _ in 0..2 {
        world.clock.advance(60_000);
        let old = KeyClient::open("", &copy, world.clock.clone()).unwrap();
        let (_, request) = key_client::new_request().unwrap();
        ask::<claviger_keyapi::enrol::Certificate>(&old, claviger_keyapi::routes::RENEW, &request)
            .await
            .unwrap();
    }
    let old = KeyClient::open("", &copy, world.clock.clone()).unwrap();
    old.session().await.unwrap();
}

#[tokio::test]
async fn a_locked_service_releases_nothing_and_only_operators_reach_it() {
    let mut world = World::with(POLICY, Unlock::Operator).await;
    let operator = world.operator();
    assert_eq!(
        ask::<AdminStatus>(&operator, admin::STATUS, &Empty {}).await.unwrap().state,
        ServiceState::Locked
    );
    assert_eq!(
        ask::<KeysetList>(&operator, admin::KEYSET_LIST, &Empty {}).await.unwrap_err(),
        KeyServiceError::Locked
    );
    let wrong = UnlockRequest { passphrase: SecretText::new(format!("clv-passphrase-1.{}", "0".repeat(64))) };
    let refused = ask::<AdminStatus>(&operator, admin::UNLOCK, &wrong).await.unwrap_err();
    assert!(matches!(refused, KeyServiceError::Denied { .. }));
    assert_eq!(world.last_audit()["outcome"], "refused");
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    let right = || UnlockRequest { passphrase: SecretText::new(passphrase.clone()) };
    let status: AdminStatus = ask(&operator, admin::UNLOCK, &right()).await.unwrap();
    assert_eq!((status.state, status.problems.len()), (ServiceState::Unlocked, 0));

    let full = world.enrol("full").await;
    assert!(matches!(
        ask::<AdminStatus>(&full.keys, admin::LOCK, &Empty {}).await,
        Err(KeyServiceError::Denied { .. })
    ));
    ask::<AdminStatus>(&operator, admin::LOCK, &Empty {}).await.unwrap();
    assert_eq!(full.keys.session().await.unwrap_err(), KeyServiceError::Locked, "on the open connection");
    let fresh = KeyClient::open("", &world.path("full"), world.clock.clone()).unwrap();
    assert_eq!(fresh.session().await.unwrap_err(), KeyServiceError::Locked, "by the name that it shows");
    world.restart().await;
    assert_eq!(world.service().health().0, ServiceState::Locked);
    ask::<AdminStatus>(&operator, admin::UNLOCK, &right()).await.unwrap();
    fresh.session().await.unwrap();
}

#[tokio::test]
async fn everything_acknowledged_survives_a_restart_and_an_unfinished_record_is_cut_off() {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let before = world.audit();
    world.stop().await;
    let log = world.config.state_dir.join("audit/00000000000000000000.jsonl");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend_from_slice(b"{\"index\":99,\"salt\":\"00");
    std::fs::write(&log, &bytes).unwrap();
    world.start().await.unwrap();
    let after = world.audit();
    assert_eq!(after[..before.len()], before[..]);
    assert!(after[before.len()]["reason"].as_str().unwrap().contains("22 bytes"));
    let full = world.gateway("full").await;
    assert_eq!(full.keys.binding("photos").await.unwrap().value.unwrap().bucket_id, bucket_id);
    let lease = full.keys.lease(vec![LeaseItem { epoch_id: epoch.id.into(), record: None }]).await.unwrap();
    assert_eq!(lease.value[0].as_ref().unwrap().wek.expose(), epoch.wek.expose());
}

#[tokio::test]
async fn hostile_bodies_are_refused_and_the_service_goes_on() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let malformed =
        |error: KeyServiceError| assert!(matches!(error, KeyServiceError::Malformed { .. }), "{error}");
    let routes = claviger_keyapi::routes::LEASE;
    malformed(ask::<Empty>(&full.keys, routes, &"not an object").await.unwrap_err());
    malformed(
        ask::<Empty>(&full.keys, routes, &serde_json::json!({"items": [], "more": 1})).await.unwrap_err(),
    );
    malformed(
        ask::<Empty>(&full.keys, routes, &serde_json::json!({"items": [{"epoch_id": "zz"}]}))
            .await
            .unwrap_err(),
    );
    malformed(ask::<Empty>(&full.keys, "/v1/nothing", &Empty {}).await.unwrap_err());
    let deep = "[".repeat(100_000);
    malformed(ask::<Empty>(&full.keys, routes, &deep).await.unwrap_err());
    let long = LeaseRequest {
        items: vec![LeaseItem {
            epoch_id: claviger_keyapi::Id16([1; 16]),
            record: Some(Blob(vec![0; 9 << 20])),
        }],
    };
    // The service stops reading: the client sees its refusal or a broken stream, never an answer.
    assert!(full.keys.transport().call::<_, Empty>(routes, &long).await.is_err());
    for bucket in ["", "ab", "UPPER", "a/b", "../x", &"a".repeat(64)] {
        malformed(full.keys.bind_bucket(bucket, None).await.unwrap_err());
    }
    full.keys.session().await.unwrap();
}

#[tokio::test]
async fn operators_need_their_verb_and_gateways_never_pass_for_one() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let operator = world.operator();
    for path in [admin::KEYSET_LIST, admin::IDENTITY_LIST, admin::POLICY_SHOW] {
        assert!(
            matches!(ask::<Empty>(&full.keys, path, &Empty {}).await, Err(KeyServiceError::Denied { .. })),
            "{path}"
        );
    }
    assert!(
        matches!(operator.session().await, Err(KeyServiceError::Denied { .. })),
        "nor the other way round"
    );
    let token = world.token_for(enrol("admin:watcher", &[], false)).await.unwrap();
    let folder = world.path("watcher");
    key_client::enrol_as(Role::Admin, &token, &folder, world.clock.clone()).await.unwrap();
    let watcher = KeyClient::open_operator("", &folder, world.clock.clone()).unwrap();
    ask::<IdentityList>(&watcher, admin::IDENTITY_LIST, &Empty {}).await.unwrap();
    let refused = ask::<AdminStatus>(&watcher, admin::LOCK, &Empty {}).await;
    assert!(matches!(refused, Err(KeyServiceError::Denied { .. })));
    assert!(world.by_two(enrol("gateway:x", &[&"x".repeat(50_000)], false)).await.is_err());
    assert!(world.last_audit().to_string().len() < 4_000, "a caller can't make a record as long as he likes");
    let last = RevokeRequest { identity: "admin:first".parse().unwrap(), since_ms: None, logs: vec![] };
    ask::<RevokeAnswer>(&operator, admin::REVOKE, &last).await.unwrap();
    assert!(ask::<IdentityList>(&operator, admin::IDENTITY_LIST, &Empty {}).await.is_err());
}

#[tokio::test]
async fn a_keyset_is_active_only_after_all_its_shares_came_back() {
    let world = World::new().await;
    let operator = world.operator();
    let create = CreateKeysetRequest { name: "archive".into(), shares: 3, threshold: 2 };
    let made: KeysetShares = ask(&operator, admin::KEYSET_CREATE, &create).await.unwrap();
    let list: KeysetList = ask(&operator, admin::KEYSET_LIST, &Empty {}).await.unwrap();
    assert_eq!(list.keysets.iter().find(|k| k.name == "archive").unwrap().version, None);
    let order = || enrol("gateway:x", &["archive"], false);
    assert!(matches!(world.by_two(order()).await, Err(KeyServiceError::Keyset { .. })));
    let confirm = |texts: Vec<String>| ConfirmKeysetRequest {
        keyset_id: made.keyset_id,
        shares: texts.into_iter().map(SecretText::new).collect(),
    };
    let texts: Vec<String> = made.shares.iter().map(|s| s.expose().to_owned()).collect();
    let mut twice = texts.clone();
    twice[2] = twice[1].clone();
    for wrong in [texts[..2].to_vec(), twice] {
        let refused = ask::<KeysetInfo>(&operator, admin::KEYSET_CONFIRM, &confirm(wrong)).await;
        assert!(matches!(refused, Err(KeyServiceError::Malformed { .. })));
    }
    let info: KeysetInfo = ask(&operator, admin::KEYSET_CONFIRM, &confirm(texts)).await.unwrap();
    assert_eq!(info.version, Some(1));
    world.token_for(order()).await.unwrap();
}

#[tokio::test]
async fn the_recovery_shares_alone_open_what_a_gateway_sealed() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let epoch = full.seal_epoch();
    let read = |n: u8| {
        let path = world.path(&format!("recovery/default-v1-share-{n}.txt"));
        Share::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let shares = [read(3), read(1)];
    let ShareOf::Root { keyset_id, version } = shares[0].of else { panic!("no recovery share") };
    let root = claviger_format::Root::new(combine(&shares).unwrap(), keyset_id, version);
    let record = claviger_format::EpochRecord::parse(&epoch.record).unwrap();
    assert_eq!(record.open(&root).unwrap().expose(), epoch.wek.expose());
    let keyset = claviger_format::KeysetRecord::parse(&full.keyset().record.0).unwrap();
    assert_eq!(keyset.open(&root).unwrap().expose(), full.keyset().name_key.as_ref().unwrap().expose());
}

#[tokio::test]
async fn a_policy_with_a_mistake_changes_nothing_and_a_good_one_counts_at_once() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let operator = world.operator();
    let policy = |text: String| Action::Policy { text };
    let refused = world.by_two(policy(POLICY.replace("\"lease\", ", "\"fly\", "))).await.unwrap_err();
    assert!(refused.to_string().contains("remedy"), "{refused}");
    assert!(full.keys.bind_bucket("one", None).await.is_ok());
    let without = POLICY.replace("\"bind\", ", "").replace("\"default\"", "\"defalt\"");
    assert!(world.by_two(policy(without)).await.unwrap().done);
    let report: PolicyInForce = ask(&operator, admin::POLICY_SHOW, &Empty {}).await.unwrap();
    assert!(report.warnings.iter().any(|w| w.contains("defalt")));
    assert!(matches!(full.keys.bind_bucket("two", None).await, Err(KeyServiceError::Denied { .. })));
}

#[tokio::test]
async fn operators_see_epochs_in_pages_and_the_end_of_the_log() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    for _ in 0..3 {
        full.keys.register_epoch(&full.seal_epoch().record).await.unwrap();
    }
    let operator = world.operator();
    let request = |after| EpochListRequest { gateway_id: Some(full.session.gateway_id), after, limit: 2 };
    let first: EpochList = ask(&operator, admin::EPOCH_LIST, &request(None)).await.unwrap();
    assert!(first.more && first.epochs.len() == 2);
    let rest: EpochList =
        ask(&operator, admin::EPOCH_LIST, &request(Some(first.epochs[1].epoch_id))).await.unwrap();
    assert!(!rest.more && rest.epochs.len() == 1);
    let tail: AuditTail = ask(&operator, admin::AUDIT_TAIL, &AuditTailRequest { count: 2 }).await.unwrap();
    assert!(tail.lines.len() == 2 && tail.lines[1].contains("register-epoch"));
}

#[tokio::test]
async fn a_database_that_was_edited_keeps_the_service_locked() {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    full.keys.bind_bucket("photos", None).await.unwrap();
    let id = full.keys.bind_bucket("gone", None).await.unwrap().value.bucket_id;
    full.keys.unbind_bucket("gone", &id).await.unwrap();
    world.token("gateway:second").await;
    world.stop().await;
    for kind in ["identity", "binding", "closing", "token", "keyset", "service"] {
        let (id, body): (String, Vec<u8>) = world
            .database()
            .query_row("SELECT id, body FROM row WHERE kind = ?1", [kind], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        let put = |body: &[u8]| {
            let update = "UPDATE row SET body = ?1 WHERE kind = ?2 AND id = ?3";
            assert_eq!(world.database().execute(update, (body, kind, &id)).unwrap(), 1);
        };
        // Still the same JSON.
        put(&[&body[..], b" "].concat());
        assert!(
            matches!(world.open(), Err(ServiceError::Tampered { kind: found, .. }) if found == kind),
            "{kind}"
        );
        put(&body);
    }
    let swap = "UPDATE row SET body = (SELECT body FROM row WHERE kind='identity' AND id != ?1),
        mac = (SELECT mac FROM row WHERE kind='identity' AND id != ?1) WHERE kind='identity' AND id = ?1";
    let uid = full.session.gateway_id.to_string();
    assert_eq!(world.database().execute(swap, [&uid]).unwrap(), 1);
    assert!(matches!(world.open(), Err(ServiceError::Tampered { kind: "identity", .. })), "of another row");
}

#[tokio::test]
async fn secrets_in_loose_files_and_a_second_init_are_refused() {
    let mut world = World::new().await;
    world.stop().await;
    let clock: Arc<dyn claviger_env::Clock> = world.clock.clone();
    let options = common::init_options(world.folder.path(), &[&[], &[]]);
    assert!(matches!(
        init(&world.config, &options, &clock, &world.random),
        Err(ServiceError::AlreadyInitialised(_))
    ));
    let loosen =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let open = || world.open();
    loosen(&world.path("passphrase"), 0o644);
    assert!(matches!(open(), Err(ServiceError::LooseMode { .. })));
    loosen(&world.path("passphrase"), 0o600);
    loosen(&world.config.state_dir, 0o750);
    assert!(matches!(open(), Err(ServiceError::LooseMode { .. })));
    loosen(&world.config.state_dir, 0o700);
    loosen(&world.config.state_dir.join("locked-tls.json"), 0o640);
    assert!(matches!(open(), Err(ServiceError::LooseMode { .. })));
}

#[tokio::test]
async fn no_secret_stands_in_the_log_or_in_clear_in_the_database() {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    full.keys.lease(vec![LeaseItem { epoch_id: epoch.id.into(), record: None }]).await.unwrap();
    let object = full.seal_object(&epoch, &bucket_id, "k");
    let item = DeriveItem {
        record: None,
        header: object.header.clone(),
        bucket_id,
        key: "k".into(),
        purpose: DerivePurpose::Read,
        on_behalf_of: None,
    };
    assert!(full.keys.derive(vec![item]).await.unwrap().value[0].is_ok());
    let token = EnrolToken::parse(&world.token("gateway:second").await).unwrap();
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    world.stop().await;
    let share = std::fs::read_to_string(world.path("recovery/default-v1-share-1.txt")).unwrap();
    let shares: Vec<Share> = (1..=3)
        .map(|n| {
            Share::parse(
                &std::fs::read_to_string(world.path(&format!("recovery/default-v1-share-{n}.txt"))).unwrap(),
            )
        })
        .collect::<Result<_, _>>()
        .unwrap();
    let root = combine(&shares).unwrap();
    let object_key = object.dek;
    let canaries: [&[u8]; 8] = [
        epoch.wek.expose(),
        root.expose(),
        full.keyset().psk.as_ref().unwrap().expose(),
        full.keyset().name_key.as_ref().unwrap().expose(),
        object_key.expose(),
        full.session.seed.expose(),
        passphrase.trim().as_bytes(),
        token.secret.expose().as_bytes(),
    ];
    let mut haystack = Vec::new();
    for entry in walk(&world.config.state_dir) {
        haystack.extend(std::fs::read(entry).unwrap());
    }
    assert!(haystack.len() > 10_000 && !share.is_empty());
    let found = |needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
    for canary in canaries {
        let hex: String = canary.iter().map(|b| format!("{b:02x}")).collect();
        assert!(!found(canary) && !found(hex.as_bytes()));
        // Without the last character, which depends on what would follow.
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(canary);
            assert!(!found(&text.as_bytes()[..text.len() - 1]), "base64");
        }
    }
    assert!(found(b"photos") && found(b"gateway:full"), "the search finds what is there");
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
