use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// A clock that goes on by one millisecond each time it is read.
#[derive(Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now_ms(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn boot_ms(&self) -> u64 {
        self.now_ms()
    }
}

fn open(folder: &Path) -> Store {
    Store::open(folder, Arc::new(Ticks::default())).unwrap()
}

fn fresh() -> (tempfile::TempDir, Store, Arc<Bucket>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_bucket("bkt").unwrap();
    let bucket = store.bucket("bkt").unwrap();
    (folder, store, bucket)
}

fn staged(store: &Store, bytes: &[u8]) -> Staged {
    let staged = store.stage().unwrap();
    fs::write(staged.path(), bytes).unwrap();
    staged
}

fn draft(key: &str, bytes: &[u8], etag: &str) -> Sidecar {
    Sidecar {
        key: key.to_owned(),
        data: String::new(),
        size: bytes.len() as u64,
        etag: etag.to_owned(),
        last_modified_ms: 0,
        attributes: Attributes::default(),
        checksums: BTreeMap::new(),
        part_sizes: Vec::new(),
    }
}

fn put(
    store: &Store,
    bucket: &Bucket,
    key: &str,
    bytes: &[u8],
    conditions: &[Condition],
) -> Result<Sidecar, Error> {
    bucket.commit(staged(store, bytes), draft(key, bytes, &hex(bytes)), conditions)
}

fn get(bucket: &Bucket, key: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    bucket.read(key).unwrap().file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn keys(bucket: &Bucket) -> Vec<String> {
    bucket.listed(|index| index.keys().cloned().collect()).unwrap()
}

fn reply<T>(result: Result<T, Error>) -> Reply {
    match result {
        Err(Error::S3(reply)) => reply,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it went through"),
    }
}

/// All files under a folder, relative to it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn keys_that_are_prefixes_of_each_other_live_side_by_side() {
    let (folder, store, bucket) = fresh();
    let names = ["a", "a/", "a//", "a//b", "a/b", "a/b/c", "/", "//", "..", "../..", ".", "a/../b"];
    for name in names {
        put(&store, &bucket, name, name.as_bytes(), &[]).unwrap();
    }
    drop((bucket, store));
    let store = open(folder.path());
    let bucket = store.bucket("bkt").unwrap();
    for name in names {
        assert_eq!(get(&bucket, name), name.as_bytes());
    }
    for name in names {
        bucket.delete(name, &[]).unwrap();
        assert_eq!(reply(bucket.read(name)), Reply::NoSuchKey);
    }
    assert_eq!(files(&folder.path().join("bkt/objects")), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(folder.path().join("bkt/objects")).unwrap().count(), 0);
}

#[test]
fn an_object_is_one_plain_file_with_exactly_its_bytes() {
    let (_folder, store, bucket) = fresh();
    let stored = put(&store, &bucket, "dir/file.bin", b"plain bytes", &[]).unwrap();
    let data = bucket.sidecar_path("dir/file.bin").with_file_name(stored.data);
    assert_eq!(fs::read(data).unwrap(), b"plain bytes");
}

#[test]
fn replacing_an_object_leaves_no_file_of_the_old_one() {
    let (folder, store, bucket) = fresh();
    put(&store, &bucket, "k", b"one", &[]).unwrap();
    put(&store, &bucket, "k", b"two", &[]).unwrap();
    assert_eq!(get(&bucket, "k"), b"two");
    assert_eq!(files(&folder.path().join("bkt/objects")).len(), 2);
}

#[test]
fn a_reader_that_has_opened_an_object_keeps_it_while_it_is_replaced() {
    let (_folder, store, bucket) = fresh();
    put(&store, &bucket, "k", b"one", &[]).unwrap();
    let mut opened = bucket.read("k").unwrap();
    put(&store, &bucket, "k", b"two", &[]).unwrap();
    let mut bytes = String::new();
    opened.file.read_to_string(&mut bytes).unwrap();
    assert_eq!(bytes, "one");
}

#[test]
fn what_a_crash_leaves_without_a_sidecar_is_gone_at_the_next_start() {
    let (folder, store, bucket) = fresh();
    let stored = put(&store, &bucket, "k", b"kept", &[]).unwrap();
    let orphan = bucket.sidecar_path("k").with_file_name("k@0-dead");
    fs::write(&orphan, b"never named").unwrap();
    fs::write(folder.path().join(".staging/half"), b"half").unwrap();
    drop((bucket, store));
    let store = open(folder.path());
    let bucket = store.bucket("bkt").unwrap();
    assert!(!orphan.exists());
    assert!(!folder.path().join(".staging/half").exists());
    assert_eq!(get(&bucket, "k"), b"kept");
    assert_eq!(bucket.read("k").unwrap().sidecar, stored);
}

#[test]
fn conditions_decide_at_the_moment_of_the_commit() {
    let (_folder, store, bucket) = fresh();
    assert_eq!(reply(put(&store, &bucket, "k", b"1", &[Condition::Present])), Reply::NoSuchKey);
    put(&store, &bucket, "k", b"1", &[Condition::Absent]).unwrap();
    assert_eq!(reply(put(&store, &bucket, "k", b"2", &[Condition::Absent])), Reply::PreconditionFailed);
    assert_eq!(
        reply(put(&store, &bucket, "k", b"2", &[Condition::Is("no".to_owned())])),
        Reply::PreconditionFailed
    );
    put(&store, &bucket, "k", b"2", &[Condition::Is(hex(b"1"))]).unwrap();
    assert_eq!(get(&bucket, "k"), b"2");
}

#[test]
fn of_many_creators_exactly_one_wins() {
    let (_folder, store, bucket) = fresh();
    let wins = std::thread::scope(|scope| {
        let racer = |n: u8| {
            let (store, bucket) = (&store, &bucket);
            scope.spawn(move || put(store, bucket, "k", &[n], &[Condition::Absent]).is_ok())
        };
        let racers: Vec<_> = (0..16).map(racer).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(wins, 1);
}

#[test]
fn readers_never_see_the_bytes_of_one_write_under_the_etag_of_another() {
    let (_folder, store, bucket) = fresh();
    put(&store, &bucket, "k", &[0], &[]).unwrap();
    std::thread::scope(|scope| {
        let (store, bucket) = (&store, &bucket);
        scope.spawn(move || {
            (0..300_u32).for_each(|n| drop(put(store, bucket, "k", &n.to_be_bytes(), &[]).unwrap()))
        });
        for _ in 0..600 {
            let mut opened = bucket.read("k").unwrap();
            let mut bytes = Vec::new();
            opened.file.read_to_end(&mut bytes).unwrap();
            assert_eq!(hex(&bytes), opened.sidecar.etag);
        }
    });
}

#[test]
fn a_bucket_is_deleted_only_when_it_holds_no_object() {
    let (folder, store, bucket) = fresh();
    put(&store, &bucket, "k", b"1", &[]).unwrap();
    assert_eq!(reply(store.delete_bucket("bkt")), Reply::BucketNotEmpty);
    bucket.delete("k", &[]).unwrap();
    bucket.create_upload("k", Attributes::default()).unwrap();
    store.delete_bucket("bkt").unwrap();
    assert_eq!(reply(put(&store, &bucket, "k", b"1", &[])), Reply::NoSuchBucket);
    assert!(!folder.path().join("bkt").exists());
    assert_eq!(reply(store.bucket("bkt").map(drop)), Reply::NoSuchBucket);
}

fn part(store: &Store, bucket: &Bucket, id: &str, number: u16, bytes: &[u8]) -> CompletedPart {
    let md5 = hex(&<md5::Md5 as md5::Digest>::digest(bytes));
    let facts = (number, bytes.len() as u64, md5.clone());
    bucket.commit_part(id, "k", staged(store, bytes), facts).unwrap();
    CompletedPart { number, etag: md5 }
}

fn complete(store: &Store, bucket: &Bucket, id: &str, wanted: &[&CompletedPart]) -> Result<Sidecar, Error> {
    let wanted = wanted.iter().map(|part| (*part).clone()).collect();
    let completion = Completion { wanted, announced_size: None, conditions: Vec::new() };
    bucket.complete(id, "k", store.stage().unwrap(), &completion)
}

#[test]
fn an_upload_survives_a_restart_with_parts_out_of_order_and_replaced() {
    let (folder, store, bucket) = fresh();
    let big = vec![7; 5 * 1024 * 1024];
    let id = bucket.create_upload("k", Attributes::default()).unwrap();
    let last = part(&store, &bucket, &id, 9, b"end");
    part(&store, &bucket, &id, 2, b"replaced");
    drop((bucket, store));
    let store = open(folder.path());
    let bucket = store.bucket("bkt").unwrap();
    assert_eq!(bucket.uploads().unwrap().len(), 1);
    let first = part(&store, &bucket, &id, 2, &big);
    let object = complete(&store, &bucket, &id, &[&first, &last]).unwrap();
    let bytes = get(&bucket, "k");
    assert_eq!(bytes.len(), big.len() + 3);
    assert!(bytes.ends_with(b"end"));
    assert_eq!(object.part_sizes, [big.len() as u64, 3]);
    // md5(md5(part 2) ‖ md5(part 9)), worked out with Python's hashlib.
    assert_eq!(object.etag, "6ed53a032abd3d6e7d9c650d3a0121e0-2");
    assert!(bucket.uploads().unwrap().is_empty());
    assert_eq!(reply(complete(&store, &bucket, &id, &[&first, &last])), Reply::NoSuchUpload);
}

#[test]
fn a_completion_that_does_not_fit_the_parts_is_refused_and_the_upload_stays() {
    let (_folder, store, bucket) = fresh();
    let id = bucket.create_upload("k", Attributes::default()).unwrap();
    let one = part(&store, &bucket, &id, 1, b"small");
    let two = part(&store, &bucket, &id, 2, b"small too");
    let unknown = CompletedPart { number: 3, etag: one.etag.clone() };
    let stale = CompletedPart { number: 1, etag: two.etag.clone() };
    assert_eq!(reply(complete(&store, &bucket, &id, &[])), Reply::MalformedXml);
    assert_eq!(reply(complete(&store, &bucket, &id, &[&two, &one])), Reply::InvalidPartOrder);
    assert_eq!(reply(complete(&store, &bucket, &id, &[&one, &one])), Reply::InvalidPartOrder);
    assert_eq!(reply(complete(&store, &bucket, &id, &[&unknown])), Reply::InvalidPart);
    assert_eq!(reply(complete(&store, &bucket, &id, &[&stale])), Reply::InvalidPart);
    assert_eq!(reply(complete(&store, &bucket, &id, &[&one, &two])), Reply::EntityTooSmall);
    assert_eq!(reply(bucket.upload(&id, "another")), Reply::NoSuchUpload);
    assert_eq!(reply(bucket.upload("../../bkt", "k")), Reply::NoSuchUpload);
    assert!(keys(&bucket).is_empty());
    complete(&store, &bucket, &id, &[&two]).unwrap();
    assert_eq!(get(&bucket, "k"), b"small too");
}

#[test]
fn after_an_abort_no_part_is_taken() {
    let (folder, store, bucket) = fresh();
    let id = bucket.create_upload("k", Attributes::default()).unwrap();
    part(&store, &bucket, &id, 1, b"x");
    bucket.abort(&id, "k").unwrap();
    let late = bucket.commit_part(&id, "k", staged(&store, b"y"), (1, 1, "e".to_owned()));
    assert_eq!(reply(late), Reply::NoSuchUpload);
    assert_eq!(reply(bucket.abort(&id, "k")), Reply::NoSuchUpload);
    assert!(files(&folder.path().join("bkt/uploads")).is_empty());
}
