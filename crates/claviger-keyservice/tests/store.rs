//! What every database must do for the key service: the same tests over SQLite and over a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

#[path = "common/postgres.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod postgres_server;

use std::sync::Arc;

use claviger_env::{Clock, OsRandom, SystemClock};
use claviger_keyservice::store::postgres::PostgresStore;
use claviger_keyservice::store::snapshot::{Item, Snapshot};
use claviger_keyservice::store::sqlite::SqliteStore;
use claviger_keyservice::store::{Change, EpochPage, EpochRow, FinishedRow, Kind, Row, Store};
use postgres_server::{Database, Server};

/// Rows that are still there when they are opened again.
trait Kept {
    fn new() -> Self;
    fn open(&self) -> Box<dyn Store>;
}

struct Sqlite(tempfile::TempDir);

impl Kept for Sqlite {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Box<dyn Store> {
        Box::new(SqliteStore::open(&self.0.path().join("db")).unwrap())
    }
}

struct Postgres {
    database: Database,
    state_dir: tempfile::TempDir,
}

const INSTANCE: &str = "00112233445566778899aabbccddeeff";

impl Kept for Postgres {
    fn new() -> Self {
        let database = Database::new(&Server::shared());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        PostgresStore::begin(&database.config(), INSTANCE, &clock).unwrap().finish().unwrap();
        Self { database, state_dir: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Box<dyn Store> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let random = OsRandom::new(Arc::clone(&clock)).unwrap();
        let folder = self.state_dir.path();
        Box::new(PostgresStore::open(&self.database.config(), folder, INSTANCE, &clock, &random).unwrap())
    }
}

/// Each of these functions is a test for each database.
macro_rules! for_every_store {
    ($($claim:ident),* $(,)?) => {
        mod sqlite { $(#[test] fn $claim() { super::$claim::<super::Sqlite>(); })* }
        mod postgres { $(#[test] fn $claim() { super::$claim::<super::Postgres>(); })* }
    };
}

for_every_store!(
    values_are_replaced_and_survive,
    changes_apply_together_and_survive,
    rows_come_by_kind_in_the_order_of_their_bytes,
    applying_the_same_changes_again_changes_nothing,
    the_first_registration_of_an_epoch_stays,
    epochs_are_listed_in_pages_and_by_gateway,
    the_first_report_of_an_upload_stays,
    bytes_and_numbers_of_any_value_come_back,
    many_threads_may_ask_at_once,
    a_new_store_is_empty_and_well,
    scrubbing_takes_nothing_away,
    a_snapshot_is_of_one_moment_and_fills_another_store,
    a_snapshot_that_nobody_reads_any_more_holds_nothing_up,
);

fn row(id: &str) -> Row {
    Row { id: id.into(), body: b"{}".to_vec(), mac: vec![7; 32] }
}

fn epoch(id: u8, gateway: u8) -> EpochRow {
    EpochRow {
        epoch_id: [id; 16],
        gateway_id: [gateway; 16],
        keyset_id: [3; 16],
        created_ms: 4,
        first_seen_ms: 5,
        wek_commit: [id; 32],
        record: vec![id; 1500],
        mac: vec![1; 32],
    }
}

fn finished(finished_ms: u64) -> FinishedRow {
    FinishedRow { finished_ms, mac: vec![2; 32] }
}

fn values_are_replaced_and_survive<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    assert_eq!(store.meta("a").unwrap(), None);
    store.set_meta("a", b"1").unwrap();
    store.set_meta("a", &[0, 255]).unwrap();
    store.set_meta("b", b"").unwrap();
    drop(store);
    let store = kept.open();
    assert_eq!(store.meta("a").unwrap(), Some(vec![0, 255]));
    assert_eq!(store.meta("b").unwrap(), Some(Vec::new()));
}

fn changes_apply_together_and_survive<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    store.apply(&[Change::Put(Kind::Token, row("a")), Change::Put(Kind::Binding, row("b"))]).unwrap();
    let replaced = Row { body: b"{\"x\":1}".to_vec(), ..row("c") };
    let changes = [
        Change::Delete(Kind::Token, "a".into()),
        Change::Put(Kind::Token, row("c")),
        Change::Put(Kind::Token, replaced.clone()),
        Change::Delete(Kind::Token, "never there".into()),
    ];
    store.apply(&changes).unwrap();
    store.apply(&[]).unwrap();
    drop(store);
    let store = kept.open();
    assert_eq!(store.rows(Kind::Token).unwrap(), [replaced]);
    assert_eq!(store.rows(Kind::Binding).unwrap(), [row("b")]);
}

fn rows_come_by_kind_in_the_order_of_their_bytes<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    let ids = ["a-b", "B", "aB", "ab", "é", "a", "_", "10", "9"];
    for id in ids {
        store.apply(&[Change::Put(Kind::Binding, row(id)), Change::Put(Kind::Token, row(id))]).unwrap();
    }
    store.apply(&[Change::Delete(Kind::Token, "ab".into())]).unwrap();
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    let of = |kind| store.rows(kind).unwrap().into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(of(Kind::Binding), sorted);
    assert_eq!(of(Kind::Token).len(), ids.len() - 1);
    assert!(of(Kind::Identity).is_empty());
}

fn applying_the_same_changes_again_changes_nothing<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    store.apply(&[Change::Put(Kind::Token, row("gone")), Change::Put(Kind::Binding, row("stays"))]).unwrap();
    let changes = [Change::Delete(Kind::Token, "gone".into()), Change::Put(Kind::Closing, row("new"))];
    for _ in 0..3 {
        store.apply(&changes).unwrap();
    }
    assert!(store.rows(Kind::Token).unwrap().is_empty());
    assert_eq!(store.rows(Kind::Closing).unwrap(), [row("new")]);
    assert_eq!(store.rows(Kind::Binding).unwrap(), [row("stays")]);
}

fn the_first_registration_of_an_epoch_stays<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    store.apply(&[Change::PutEpoch(epoch(1, 1))]).unwrap();
    let other = EpochRow { wek_commit: [9; 32], ..epoch(1, 2) };
    // Among other changes, which are made nevertheless.
    store.apply(&[Change::PutEpoch(other), Change::Put(Kind::Token, row("a"))]).unwrap();
    drop(store);
    let store = kept.open();
    assert_eq!(store.epoch(&[1; 16]).unwrap(), Some(epoch(1, 1)));
    assert_eq!(store.epoch(&[2; 16]).unwrap(), None);
    assert_eq!(store.rows(Kind::Token).unwrap(), [row("a")]);
}

fn epochs_are_listed_in_pages_and_by_gateway<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    // 0x80 and more: ids are compared as bytes without a sign.
    for (id, gateway) in [(0x81, 1), (2, 2), (3, 1), (1, 1)] {
        store.apply(&[Change::PutEpoch(epoch(id, gateway))]).unwrap();
    }
    let list = |gateway_id, after, limit| -> Vec<u8> {
        let page = EpochPage { gateway_id, after, limit };
        store.epochs(page).unwrap().iter().map(|e| e.epoch_id[0]).collect()
    };
    assert_eq!(list(None, None, 10), [1, 2, 3, 0x81]);
    assert_eq!(list(Some([1; 16]), None, 2), [1, 3]);
    assert_eq!(list(Some([1; 16]), Some([3; 16]), 2), [0x81]);
    let marks = |after, limit| -> Vec<(u8, Vec<u8>)> {
        store.epoch_marks(after, limit).unwrap().into_iter().map(|m| (m.epoch_id[0], m.mac)).collect()
    };
    assert_eq!(marks(None, 2), [(1, vec![1; 32]), (2, vec![1; 32])]);
    assert_eq!(marks(Some([3; 16]), 9), [(0x81, vec![1; 32])]);
    assert_eq!(store.epoch_count().unwrap(), 4);
}

fn the_first_report_of_an_upload_stays<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    store.finish_upload(&[1; 16], &finished(7)).unwrap();
    store.finish_upload(&[1; 16], &finished(8)).unwrap();
    drop(store);
    let store = kept.open();
    assert_eq!(store.finished_upload(&[1; 16]).unwrap(), Some(finished(7)));
    assert_eq!(store.finished_upload(&[2; 16]).unwrap(), None);
}

fn bytes_and_numbers_of_any_value_come_back<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    let all: Vec<u8> = (0..=255).collect();
    let odd = Row { id: "'\";--\\\n\u{1F511}".into(), body: all.clone(), mac: Vec::new() };
    store.apply(&[Change::Put(Kind::Token, odd.clone())]).unwrap();
    assert_eq!(store.rows(Kind::Token).unwrap(), [odd]);
    let late = EpochRow {
        created_ms: u64::MAX,
        first_seen_ms: 1 << 63,
        record: all.repeat(4096),
        mac: Vec::new(),
        ..epoch(0xff, 0)
    };
    store.apply(&[Change::PutEpoch(late.clone())]).unwrap();
    assert_eq!(store.epoch(&[0xff; 16]).unwrap(), Some(late));
    store.finish_upload(&[0; 16], &FinishedRow { finished_ms: u64::MAX, mac: all.clone() }).unwrap();
    let read = store.finished_upload(&[0; 16]).unwrap().unwrap();
    assert_eq!((read.finished_ms, read.mac), (u64::MAX, all));
}

fn many_threads_may_ask_at_once<K: Kept>() {
    let kept = K::new();
    let store: Arc<dyn Store> = Arc::from(kept.open());
    let threads: Vec<_> = (0..8u8)
        .map(|n| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                for m in 0..8u8 {
                    // Each pair is changed together; the epoch is the same for all threads.
                    let id = format!("{n}-{m}");
                    let pair = [Change::Put(Kind::Token, row(&id)), Change::Put(Kind::Closing, row(&id))];
                    store.apply(&pair).unwrap();
                    store
                        .apply(&[Change::PutEpoch(EpochRow { gateway_id: [n; 16], ..epoch(m, 0) })])
                        .unwrap();
                    store.finish_upload(&[n * 8 + m; 16], &finished(1)).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(store.rows(Kind::Token).unwrap(), store.rows(Kind::Closing).unwrap());
    assert_eq!((store.rows(Kind::Token).unwrap().len(), store.epoch_count().unwrap()), (64, 8));
}

fn all_of(mut snapshot: Snapshot) -> Vec<Item> {
    let mut items = Vec::new();
    while let Some(page) = snapshot.next_page().unwrap() {
        items.extend(page);
    }
    // The random id is of one database.
    items.retain(|item| !matches!(item, Item::Meta { name, .. } if name == "instance"));
    items
}

fn a_snapshot_is_of_one_moment_and_fills_another_store<K: Kept>() {
    let (kept, other) = (K::new(), K::new());
    let store = kept.open();
    store.set_meta("a", b"before").unwrap();
    // More than one page of each.
    let changes: Vec<Change> = (0..1_100u32)
        .flat_map(|n| {
            let mut id = [0xff; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            let kind = if n % 2 == 0 { Kind::Token } else { Kind::Binding };
            let epoch = EpochRow { epoch_id: id, record: vec![1; 10], ..epoch(0, 7) };
            [Change::Put(kind, row(&format!("{n}"))), Change::PutEpoch(epoch)]
        })
        .collect();
    store.apply(&changes).unwrap();
    (0..200u8).for_each(|n| store.finish_upload(&[n; 16], &finished(u64::MAX)).unwrap());
    let snapshot = store.snapshot().unwrap();
    store.set_meta("a", b"after").unwrap();
    store.apply(&[Change::Delete(Kind::Token, "0".into()), Change::Put(Kind::Closing, row("new"))]).unwrap();
    store.apply(&[Change::PutEpoch(epoch(9, 9))]).unwrap();
    store.finish_upload(&[250; 16], &finished(1)).unwrap();
    let items = all_of(snapshot);
    assert_eq!(items.len(), 1 + 1_100 + 1_100 + 200);
    let filled = other.open();
    items.chunks(999).for_each(|items| filled.fill(items).unwrap());
    drop(filled);
    let filled = other.open();
    assert_eq!(filled.meta("a").unwrap(), Some(b"before".to_vec()));
    assert_eq!(
        (filled.rows(Kind::Token).unwrap().len(), filled.rows(Kind::Binding).unwrap().len()),
        (550, 550)
    );
    assert!(filled.rows(Kind::Closing).unwrap().is_empty());
    assert_eq!((filled.epoch_count().unwrap(), filled.epoch(&[9; 16]).unwrap()), (1_100, None));
    assert_eq!(filled.finished_upload(&[199; 16]).unwrap(), Some(finished(u64::MAX)));
    assert_eq!(filled.finished_upload(&[250; 16]).unwrap(), None);
    let key = |item: &Item| format!("{item:?}");
    let (mut before, mut again) = (items, all_of(filled.snapshot().unwrap()));
    before.sort_by_key(key);
    again.sort_by_key(key);
    assert_eq!(before, again);
}

fn a_snapshot_that_nobody_reads_any_more_holds_nothing_up<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    for n in 0..20u8 {
        store.apply(&[Change::PutEpoch(epoch(n, n))]).unwrap();
        drop(store.snapshot().unwrap());
    }
    assert_eq!(store.epoch_count().unwrap(), 20);
    drop(store);
    assert_eq!(all_of(kept.open().snapshot().unwrap()).len(), 20);
}

fn a_new_store_is_empty_and_well<K: Kept>() {
    let kept = K::new();
    let store = kept.open();
    assert_eq!(store.epoch_count().unwrap(), 0);
    assert!(store.epochs(EpochPage { gateway_id: None, after: None, limit: 5 }).unwrap().is_empty());
    store.check_ours().unwrap();
    assert_eq!(store.problem(), None);
}

fn scrubbing_takes_nothing_away<S: Kept>() {
    let kept = S::new();
    let row = |body: &[u8]| Row { id: "a".into(), body: body.to_vec(), mac: vec![1] };
    let store = kept.open();
    for body in [b"before".as_slice(), b"after"] {
        store.apply(&[Change::Put(Kind::Keyset, row(body))]).unwrap();
    }
    store.scrub().unwrap();
    assert_eq!(store.rows(Kind::Keyset).unwrap(), [row(b"after")]);
    drop(store);
    let store = kept.open();
    store.scrub().unwrap();
    assert_eq!(store.rows(Kind::Keyset).unwrap(), [row(b"after")]);
}
