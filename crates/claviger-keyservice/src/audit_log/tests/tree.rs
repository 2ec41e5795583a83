//! The tree over the records: signed, mended after a crash, refused after an edit, and checked offline.

use std::path::PathBuf;

use claviger_audit::note::KeyKind;
use claviger_audit::verify::{Fault, Remembered};
use claviger_keyapi::routes::LogHead;

use super::super::offline::{OfflineError, Verified, check_proof};
use super::*;
use crate::outside::Evidence;

/// A boot-time clock that the test moves.
struct Standing(AtomicU64);

impl Clock for Standing {
    fn now_ms(&self) -> u64 {
        self.boot_ms()
    }
    fn boot_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn key() -> SigningKey {
    SigningKey::from_seed("log.example/1", KeyKind::Log, &[1; 32]).unwrap()
}

/// A log of so many records in small files, signed, as it lies on the disk; the last ten came after the key was wiped.
fn signed_log(count: u32) -> (tempfile::TempDir, AuditFolder) {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit");
    let (log, _) = AuditLog::open(&audit, 30_000, random(), clock()).unwrap();
    log.sign_with(key()).unwrap();
    for first in (0..count - 10).step_by(50) {
        log.append_blocking((first..(first + 50).min(count - 10)).map(record).collect()).unwrap();
    }
    log.stop_signing();
    log.append_blocking((count - 10..count).map(record).collect()).unwrap();
    (folder, AuditFolder::new(&audit))
}

fn reopen(folder: &AuditFolder) -> Result<AuditLog, ServiceError> {
    AuditLog::open(folder.path(), 30_000, random(), clock()).map(|(log, _)| log)
}

fn verify(folder: &AuditFolder) -> Result<Verified, OfflineError> {
    folder.verify(key().verifier(), Vec::new())
}

/// Opens it as after a crash, signs again, and checks that the whole log verifies with all that was in it.
fn goes_on(folder: &AuditFolder, records: u64) {
    let log = reopen(folder).unwrap();
    assert_eq!(log.records(), records);
    log.check_found(key().verifier()).unwrap();
    log.sign_with(key()).unwrap();
    log.append_blocking(vec![record(9)]).unwrap();
    drop(log);
    let verified = verify(folder).unwrap();
    assert_eq!((verified.report.records, verified.report.signed), (records + 1, records + 1));
}

#[test]
fn what_was_written_while_there_was_no_key_is_covered_by_the_next_checkpoint() {
    let (_home, folder) = signed_log(700);
    let verified = verify(&folder).unwrap();
    assert_eq!((verified.report.records, verified.report.signed), (700, 690));
    goes_on(&folder, 700);
    goes_on(&folder, 701);
}

#[test]
fn the_checkpoint_in_memory_follows_every_group_and_the_one_in_the_file_once_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let standing = Arc::new(Standing(AtomicU64::new(1)));
    let audit = AuditFolder::new(&folder.path().join("audit"));
    let (log, _) = AuditLog::open(audit.path(), 1 << 20, random(), standing.clone()).unwrap();
    log.sign_with(key()).unwrap();
    let in_file = || {
        let bytes = audit.checkpoint().unwrap()?;
        Some(SignedCheckpoint::open(&bytes, key().verifier()).unwrap().checkpoint().size)
    };
    let wait_for = |size: u64| {
        while log.checkpoint().is_none_or(|signed| signed.checkpoint().size < size) {
            std::thread::yield_now();
        }
    };
    log.append_blocking(vec![record(0)]).unwrap();
    wait_for(1);
    standing.0.fetch_add(1_000, Ordering::Relaxed);
    log.append_blocking(vec![record(1)]).unwrap();
    while in_file() < Some(2) {
        std::thread::yield_now();
    }
    log.append_blocking(vec![record(2), record(3)]).unwrap();
    wait_for(4);
    log.append_blocking(vec![record(4)]).unwrap();
    log.stop_signing();
    assert_eq!(in_file(), Some(5), "the last one is written at once");
    log.append_blocking(vec![record(5)]).unwrap();
    drop(log);
    assert_eq!(in_file(), Some(5), "nothing is signed without a key");
}

#[test]
fn every_torn_or_missing_tile_is_made_again() {
    let (_home, folder) = signed_log(700);
    for path in folder.tiles().unwrap() {
        let file = folder.tile_path(&path);
        let whole = fs::read(&file).unwrap();
        for len in [0, whole.len() / 2, whole.len() - 1] {
            fs::write(&file, &whole[..len]).unwrap();
            drop(reopen(&folder).unwrap());
            assert!(fs::read(&file).unwrap() == whole, "{path}");
        }
        fs::remove_file(&file).unwrap();
        drop(reopen(&folder).unwrap());
        // Of partial tiles only those of the checkpoint are needed.
        assert!(verify(&folder).is_ok() && (!path.is_full() || fs::read(&file).unwrap() == whole), "{path}");
    }
    goes_on(&folder, 700);
}

#[test]
fn without_tiles_or_checkpoint_the_records_are_enough() {
    let (_home, folder) = signed_log(700);
    fs::remove_dir_all(folder.path().join("tile")).unwrap();
    drop(reopen(&folder).unwrap());
    assert!(verify(&folder).is_ok(), "with nothing but a start");
    goes_on(&folder, 700);
    fs::remove_file(folder.checkpoint_path()).unwrap();
    goes_on(&folder, 701);
    fs::remove_dir_all(folder.path().join("tile")).unwrap();
    fs::remove_file(folder.checkpoint_path()).unwrap();
    goes_on(&folder, 702);
}

#[test]
fn tiles_that_were_damaged_where_a_start_does_not_look_are_found_by_the_checkpoint_and_made_again() {
    let (_home, folder) = signed_log(1500);
    let path = "tile/0/000".parse().unwrap();
    let mut bytes = fs::read(folder.tile_path(&path)).unwrap();
    let last = AuditFolder::files(&folder).unwrap().pop().unwrap();
    assert!(last.first_index >= 512, "the first tile is not among the last file's");
    bytes[100] ^= 1;
    fs::write(folder.tile_path(&path), &bytes).unwrap();
    goes_on(&folder, 1500);
}

#[test]
fn a_partial_tile_that_the_checkpoint_covers_is_made_again_whatever_is_in_it() {
    let (_home, folder) = signed_log(300);
    for path in ["tile/0/001.p/34", "tile/entries/001.p/34", "tile/1/000.p/1"] {
        let file = folder.tile_path(&path.parse().unwrap());
        let whole = fs::read(&file).unwrap();
        let mut altered = whole.clone();
        altered[7] ^= 1;
        fs::write(&file, altered).unwrap();
        drop(reopen(&folder).unwrap());
        assert!(fs::read(&file).unwrap() == whole, "{path}");
    }
    goes_on(&folder, 300);
}

/// Asks until it is answered; what was wrong is mended meanwhile.
fn head_at_last(log: &AuditLog, from: u64) -> LogHead {
    for _ in 0..2_000 {
        match log.head(from, Vec::new()) {
            Ok(head) => return head,
            Err(ServiceError::Audit(_)) => std::thread::sleep(std::time::Duration::from_millis(5)),
            Err(other) => panic!("{other}"),
        }
    }
    panic!("it was not mended in ten seconds");
}

fn shown(folder: &AuditFolder) -> Vec<Evidence> {
    let bytes = folder.checkpoint().unwrap().unwrap();
    let checkpoint = SignedCheckpoint::open(&bytes, key().verifier()).unwrap();
    vec![Evidence { whose: "mine".into(), checkpoint }]
}

#[test]
fn the_log_is_shown_from_memory_whoever_removes_its_files() {
    let (_home, folder) = signed_log(1_500);
    let remembered = shown(&folder);
    let log = reopen(&folder).unwrap();
    assert!(log.head(0, Vec::new()).is_err(), "nothing is shown before there is a key");
    log.sign_with(key()).unwrap();
    fs::remove_file(folder.checkpoint_path()).unwrap();
    let head = log.head(1_490, Vec::new()).unwrap();
    let note = SignedCheckpoint::open(head.checkpoint.as_bytes(), key().verifier()).unwrap();
    assert_eq!((note.checkpoint().size, head.proof.is_empty()), (1_500, false));
    assert_eq!(log.contradicts(&remembered).unwrap(), None);
    log.stop_signing();
    assert!(log.head(0, Vec::new()).is_err());
}

#[test]
fn tiles_that_are_damaged_or_gone_accuse_nobody_and_are_made_again() {
    for signs in [true, false] {
        let (_home, folder) = signed_log(1_500);
        let remembered: Vec<_> = shown(&folder).into_iter().chain([seen_at(&folder, 100)]).collect();
        let file = folder.tile_path(&"tile/0/000".parse().unwrap());
        let whole = fs::read(&file).unwrap();
        // The first damage lies where a start does not look, since the tiles above it lead to the root.
        let log = reopen(&folder).unwrap();
        if signs {
            log.sign_with(key()).unwrap();
        }
        let mut altered = whole.clone();
        altered[100] ^= 1;
        for damage in [Some(altered), Some(whole[..77].to_vec()), None] {
            match &damage {
                Some(bytes) => fs::write(&file, bytes).unwrap(),
                None => fs::remove_dir_all(folder.path().join("tile")).unwrap(),
            }
            if signs {
                head_at_last(&log, 100);
            }
            assert_eq!(log.contradicts(&remembered).unwrap(), None, "{signs} {}", damage.is_some());
            assert!(fs::read(&file).unwrap() == whole);
        }
        assert!(!log.has_failed());
    }
}

/// What somebody remembers who looked when there were so many records.
fn seen_at(folder: &AuditFolder, size: u64) -> Evidence {
    let root = claviger_audit::tree::root(&claviger_audit::TileTree::new(folder, 1_490), size).unwrap();
    let checkpoint = SignedCheckpoint::sign(size, root, &key()).unwrap();
    Evidence { whose: "early".into(), checkpoint }
}

#[test]
fn records_that_were_altered_under_a_log_that_is_open_stop_it() {
    let (_home, folder) = signed_log(300);
    let log = reopen(&folder).unwrap();
    log.sign_with(key()).unwrap();
    let path = folder.files().unwrap()[0].path.clone();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("{\"n\":20}", "{\"n\":21}", 1)).unwrap();
    fs::remove_dir_all(folder.path().join("tile")).unwrap();
    assert!(log.head(100, Vec::new()).is_err());
    for _ in 0..2_000 {
        if log.has_failed() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("it went on");
}

fn refused(folder: &AuditFolder, what: &str) {
    let before = verify(folder).map(drop).map_err(|e| e.to_string());
    match reopen(folder).map(drop) {
        Err(ServiceError::Audit(text)) => assert!(text.contains(what), "{text}"),
        other => panic!("{what}: {other:?}"),
    }
    assert_eq!(verify(folder).map(drop).map_err(|e| e.to_string()), before, "nothing is mended then");
    assert!(before.is_err(), "{what}");
}

fn last_file(folder: &AuditFolder) -> PathBuf {
    folder.files().unwrap().pop().unwrap().path
}

#[test]
fn an_edited_record_keeps_the_log_closed() {
    let (_home, folder) = signed_log(300);
    let path = last_file(&folder);
    let text = fs::read_to_string(&path).unwrap();
    let edited = text.replacen("{\"n\":28", "{\"n\":92", 1);
    assert_ne!(edited, text);
    fs::write(&path, edited).unwrap();
    refused(&folder, "not the ones that its checkpoint was signed for");
    fs::remove_dir_all(folder.path().join("tile")).unwrap();
    refused(&folder, "not the ones that its checkpoint was signed for");
    assert!(!folder.path().join("tile").exists());
}

#[test]
fn an_edited_record_that_no_checkpoint_covers_yet_keeps_the_log_closed_if_it_is_in_a_tile() {
    let (_home, folder) = signed_log(300);
    let log = reopen(&folder).unwrap();
    log.append_blocking((300..600).map(record).collect()).unwrap();
    drop(log);
    let path = last_file(&folder);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("{\"n\":400}", "{\"n\":401}", 1)).unwrap();
    refused(&folder, "it is not the tile of the records that lie there");
    fs::write(&path, text).unwrap();
    goes_on(&folder, 600);
}

#[test]
fn a_log_that_was_cut_off_stays_closed() {
    let (_home, folder) = signed_log(300);
    let path = last_file(&folder);
    let text = fs::read_to_string(&path).unwrap();
    let cut: String = text.split_inclusive('\n').take(text.lines().count() - 20).collect();
    fs::write(&path, cut).unwrap();
    refused(&folder, "the checkpoint was signed for 290, and there are 280 records");
}

#[test]
fn a_removed_file_keeps_the_log_closed() {
    let (_home, folder) = signed_log(1500);
    let files = folder.files().unwrap();
    assert!(files.len() > 2);
    fs::remove_file(&files[0].path).unwrap();
    assert!(verify(&folder).is_err());
    fs::remove_dir_all(folder.path().join("tile")).unwrap();
    refused(&folder, "record 0 should follow the files before it");
}

#[test]
fn a_tile_of_records_that_are_gone_keeps_the_log_closed() {
    let (_home, folder) = signed_log(700);
    fs::remove_file(folder.checkpoint_path()).unwrap();
    fs::write(folder.tile_path(&"tile/0/002".parse().unwrap()), vec![0; 8192]).unwrap();
    refused(&folder, "the log was cut off");
}

#[test]
fn a_checkpoint_of_another_log_is_refused_before_anything_is_signed() {
    let (_home, folder) = signed_log(300);
    let bytes = folder.checkpoint().unwrap().unwrap();
    let own = SignedCheckpoint::open(&bytes, key().verifier()).unwrap();
    let other = SigningKey::from_seed("log.example/1", KeyKind::Log, &[2; 32]).unwrap();
    let forged = SignedCheckpoint::sign(own.checkpoint().size, own.checkpoint().root, &other).unwrap();
    fs::write(folder.checkpoint_path(), forged.note().to_string()).unwrap();
    let log = reopen(&folder).unwrap();
    assert!(matches!(log.check_found(key().verifier()), Err(ServiceError::Audit(_))));
    drop(log);
    fs::write(folder.checkpoint_path(), "garbage").unwrap();
    refused(&folder, "this is no checkpoint");
}

#[test]
fn a_tree_that_can_not_be_written_stops_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).0;
    fs::write(folder.path().join("audit/tile"), "in the way").unwrap();
    log.append_blocking((0..300).map(record).collect()).unwrap();
    while !log.has_failed() {
        std::thread::yield_now();
    }
    assert!(log.append_blocking(vec![record(0)]).is_err());
}

#[test]
fn a_tree_that_finds_no_room_when_the_log_is_opened_says_so_and_goes_on_when_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path());
    log.append_blocking(vec![record(0)]).unwrap();
    let fresh = folder.path().join("audit/tile.new");
    std::os::unix::fs::symlink("/dev/full", &fresh).unwrap();
    for _ in 0..20 {
        let refused = log.contradicts(&[]).unwrap_err().to_string();
        assert!(refused.contains("its disk is full"), "{refused}");
    }
    std::fs::remove_file(fresh).unwrap();
    assert_eq!(log.contradicts(&[]).unwrap(), None);
    assert!(!log.has_failed());
}

#[test]
fn every_record_under_the_checkpoint_is_proved_to_whoever_has_the_key() {
    let (_home, folder) = signed_log(600);
    for index in [0, 255, 256, 589] {
        let proof = folder.prove(index).unwrap().to_string();
        let proof = claviger_audit::LogProof::parse(proof.as_bytes()).unwrap();
        let (record, checkpoint) = check_proof(&proof, key().verifier()).unwrap();
        assert_eq!((record, checkpoint.checkpoint().size), (format!("{{\"n\":{index}}}"), 590));
        let mut other = proof.clone();
        other.extra = Some(String::from_utf8(proof.extra.unwrap()).unwrap().replace("\"n\"", "\"m\"").into());
        assert!(check_proof(&other, key().verifier()).is_err());
    }
    assert!(matches!(folder.prove(590), Err(OfflineError::NotThere(_))));
    let path = last_file(&folder);
    let edited = fs::read_to_string(&path).unwrap().replacen("{\"n\":58", "{\"n\":95", 1);
    fs::write(&path, edited).unwrap();
    assert!(matches!(folder.prove(580), Err(OfflineError::Checkpoint(_))));
}

#[test]
fn offline_every_changed_byte_of_the_folder_is_found() {
    let (_home, folder) = signed_log(280);
    let mut files: Vec<PathBuf> = folder.files().unwrap().into_iter().map(|file| file.path).collect();
    files.extend(folder.tiles().unwrap().iter().map(|path| folder.tile_path(path)));
    files.push(folder.checkpoint_path());
    let signed_len = fs::read_to_string(last_file(&folder)).unwrap();
    let signed_len: usize = signed_len.split_inclusive('\n').rev().skip(10).map(str::len).sum();
    let mut tried = 0;
    for path in files {
        let whole = fs::read(&path).unwrap();
        // What no checkpoint covers yet can be edited: `verify` says how much that is.
        let len = if path == last_file(&folder) { signed_len } else { whole.len() };
        for at in (0..len).step_by(len / 40 + 1) {
            let mut altered = whole.clone();
            altered[at] ^= 1 << (at % 8);
            fs::write(&path, &altered).unwrap();
            assert!(verify(&folder).is_err(), "{}, byte {at}", path.display());
            tried += 1;
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(verify(&folder).is_ok() && tried > 200, "{tried}");
}

#[test]
fn offline_a_remembered_checkpoint_finds_what_the_folder_alone_does_not_tell() {
    let (_home, folder) = signed_log(300);
    let remembered = |folder: &AuditFolder| {
        let checkpoint = SignedCheckpoint::open(&folder.checkpoint().unwrap().unwrap(), key().verifier());
        vec![Remembered { name: "mine".into(), checkpoint: checkpoint.unwrap() }]
    };
    let kept = remembered(&folder);
    assert!(folder.verify(key().verifier(), kept.clone()).is_ok());
    // A log of its own, signed with the same key: what whoever holds the service could make.
    let (_other, fork) = signed_log(300);
    assert!(verify(&fork).is_ok());
    let Err(OfflineError::Fault(Fault::Head { size: 290, .. })) = fork.verify(key().verifier(), kept.clone())
    else {
        panic!("a fork");
    };
    let (_shorter, shorter) = signed_log(200);
    let Err(OfflineError::Fault(Fault::CutOff { size: 290, .. })) = shorter.verify(key().verifier(), kept)
    else {
        panic!("cut off");
    };
}

#[test]
fn offline_a_record_that_is_being_written_is_told_apart_from_one_that_was_damaged() {
    let (_home, folder) = signed_log(300);
    let path = last_file(&folder);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], b"{\"index\":300,"].concat()).unwrap();
    let verified = verify(&folder).unwrap();
    assert_eq!((verified.unfinished_len, verified.report.records), (13, 300));
    fs::write(folder.file_path(300), "").unwrap();
    assert!(verify(&folder).is_err(), "not in the middle of a log");
}
