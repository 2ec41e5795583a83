//! A disk that is full: a file system in memory of a few MiB, on which a part of the service's files lies. Mounting it takes root
//! (or sudo without a password).

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use claviger_keyapi::{KeyService as _, UnavailableReason};

use super::{
    bind, bound, freeze, frozen, is_unavailable, lease, mends, recorded_leases, shown, shows,
    stops_with_a_log_that_verifies, until_refused, working_world,
};

/// Mounted for as long as it lives.
pub(crate) struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn new() -> Self {
        Self::of_mib(8)
    }

    pub(crate) fn of_mib(mib: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A database server runs as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let metadata = folder.path().metadata().unwrap();
        let options = format!("size={mib}m,mode=0755,uid={},gid={}", metadata.uid(), metadata.gid());
        let mounted =
            as_root("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        let mounted = mounted.unwrap();
        assert!(
            mounted.status.success(),
            "this drill needs a file system of its own, which takes root: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    /// Leaves not a byte, except what is left in the last blocks of files.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.ballast()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    /// Moves a file or folder of a service that is stopped here, and leaves a link.
    fn takes(&self, path: &Path) {
        let here = self.folder.path().join(path.file_name().unwrap());
        let copied = Command::new("cp").arg("-a").arg(path).arg(&here).output().unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        symlink(here, path).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is still open keeps it alive for a moment; nobody finds it any more.
        let unmounted = as_root("umount").arg("--lazy").arg(self.folder.path()).status();
        assert!(unmounted.unwrap().success() || std::thread::panicking());
    }
}

fn as_root(program: &str) -> Command {
    let is_root = tempfile::tempdir().unwrap().path().metadata().unwrap().uid() == 0;
    if is_root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

#[tokio::test]
async fn while_the_logs_disk_is_full_no_key_leaves_and_all_goes_on_when_there_is_room() {
    let disk = SmallDisk::new();
    let (mut world, full, epoch) = working_world().await;
    world.stop().await;
    disk.takes(&world.config.state_dir.join("audit"));
    world.start().await.unwrap();
    lease(&full, &epoch).await.unwrap();
    disk.fill();
    let (more, refused) = until_refused(199, async |_| lease(&full, &epoch).await).await;
    let released = 1 + more as usize;
    assert!(is_unavailable(&refused, UnavailableReason::Audit), "{refused}");
    shows(world.service(), "audit_log_full", "the audit log's disk is full");
    let record = full.seal_epoch().record;
    let refused = full.keys.register_epoch(&record).await.unwrap_err();
    assert!(is_unavailable(&refused, UnavailableReason::Audit), "{refused}");
    assert!(freeze(&world, 1).await.is_err());

    disk.make_room();
    mends(world.service()).await;
    lease(&full, &epoch).await.unwrap();
    full.keys.register_epoch(&record).await.unwrap();
    freeze(&world, 1).await.unwrap();
    // Every key that was released is in the log, and none that was refused.
    assert_eq!(recorded_leases(&world), released + 1);
    assert!(world.audit().iter().any(|record| record["action"] == "log-full"));
    stops_with_a_log_that_verifies(&mut world).await;
    world.start().await.unwrap();
    assert_eq!(frozen(&world).await, 1);
    world.stop().await;
}

#[tokio::test]
async fn a_service_that_is_locked_while_its_disk_is_full_is_locked() {
    let disk = SmallDisk::new();
    let (mut world, full, epoch) = working_world().await;
    world.stop().await;
    disk.takes(&world.config.state_dir.join("audit"));
    world.start().await.unwrap();
    disk.fill();
    for _ in 0..200 {
        if lease(&full, &epoch).await.is_err() {
            break;
        }
    }
    let service = world.service().clone();
    // A short record may still find room; then the record can't be written, and that is said. The secrets are gone all the same.
    let locked = move || (0..20).any(|_| service.lock().is_err());
    assert!(tokio::task::spawn_blocking(locked).await.unwrap());
    assert!(lease(&full, &epoch).await.is_err());
    let (problems, kinds) = shown(world.service());
    assert_eq!(kinds, ["audit_log_full", "locked"], "{problems:?}");
    disk.make_room();
    for _ in 0..100 {
        if shown(world.service()).1 == ["locked"] {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // Written by a locked service; the next unlock takes it for one that it may have written.
    assert!(world.audit().iter().any(|record| record["action"] == "log-full"));
    let service = world.service().clone();
    let passphrase = fs::read_to_string(world.path("passphrase")).unwrap();
    tokio::task::spawn_blocking(move || service.unlock(passphrase.trim())).await.unwrap().unwrap();
    mends(world.service()).await;
    lease(&full, &epoch).await.unwrap();
    stops_with_a_log_that_verifies(&mut world).await;
}

#[tokio::test]
async fn while_the_databases_disk_is_full_nothing_is_changed_and_all_goes_on_when_there_is_room() {
    let disk = SmallDisk::new();
    let (mut world, full, epoch) = working_world().await;
    world.stop().await;
    disk.takes(&world.config.state_dir.join("keyservice.db"));
    world.start().await.unwrap();
    disk.fill();
    let (done, refused) = until_refused(200, async |number| bind(&world, &full, number).await).await;
    assert!(is_unavailable(&refused, UnavailableReason::Store), "{refused}");
    let (problems, kinds) = shown(world.service());
    assert!(kinds.contains(&"database".to_owned()), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.contains("full")), "{problems:?}");
    // What needs no row goes on.
    lease(&full, &epoch).await.unwrap();

    disk.make_room();
    mends(world.service()).await;
    bind(&world, &full, done).await.unwrap();
    assert_eq!(bound(&world).await, u64::from(done) + 1);
    let probes =
        world.database().query_row("SELECT count(*) FROM row WHERE kind = 'probe'", [], |row| row.get(0));
    assert_eq!(probes, Ok(0));
    stops_with_a_log_that_verifies(&mut world).await;
    world.start().await.unwrap();
    assert_eq!(bound(&world).await, u64::from(done) + 1);
    world.stop().await;
}

#[tokio::test]
async fn a_log_that_is_deleted_under_the_service_releases_nothing_more() {
    let (mut world, full, epoch) = working_world().await;
    let log = world.config.state_dir.join("audit/00000000000000000000.jsonl");
    let copy = world.path("copy");
    fs::copy(&log, &copy).unwrap();
    fs::remove_file(&log).unwrap();
    let refused = lease(&full, &epoch).await.unwrap_err();
    assert!(is_unavailable(&refused, UnavailableReason::Audit), "{refused}");
    shows(world.service(), "audit_log", "the audit log can't be written");
    world.stop().await;
    fs::rename(&copy, &log).unwrap();
    world.start().await.unwrap();
    lease(&full, &epoch).await.unwrap();
    stops_with_a_log_that_verifies(&mut world).await;
}

#[tokio::test]
async fn a_database_that_is_deleted_under_the_service_acknowledges_and_releases_nothing_more() {
    for name in ["keyservice.db", "keyservice.db-wal"] {
        let (mut world, full, epoch) = working_world().await;
        let file = world.config.state_dir.join(name);
        let aside = world.path("aside");
        fs::rename(&file, &aside).unwrap();
        let refused = lease(&full, &epoch).await.unwrap_err();
        assert!(is_unavailable(&refused, UnavailableReason::Store), "{name}: {refused}");
        assert!(full.keys.register_epoch(&full.seal_epoch().record).await.is_err());
        let (problems, kinds) = shown(world.service());
        assert!(kinds.contains(&"database".to_owned()), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.contains("was deleted or replaced")), "{problems:?}");
        // Put back, it is the one that the service works with.
        fs::rename(&aside, &file).unwrap();
        mends(world.service()).await;
        lease(&full, &epoch).await.unwrap();
        stops_with_a_log_that_verifies(&mut world).await;
        world.start().await.unwrap();
        lease(&full, &epoch).await.unwrap();
        world.stop().await;
    }
}

#[tokio::test]
async fn a_service_whose_disk_is_full_does_not_start_and_does_when_there_is_room() {
    let disk = SmallDisk::new();
    let (mut world, full, epoch) = working_world().await;
    freeze(&world, 1).await.unwrap();
    world.stop().await;
    disk.takes(&world.config.state_dir.join("audit"));
    disk.fill();
    // The last block of the file has room for some records.
    let mut refused = None;
    for _ in 0..20 {
        match world.open() {
            Ok(service) => drop(service),
            Err(error) => refused = Some(error.to_string()),
        }
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("the disk is not full");
    assert!(refused.contains("full") || refused.contains("No space left"), "{refused}");
    disk.make_room();
    world.start().await.unwrap();
    lease(&full, &epoch).await.unwrap();
    assert_eq!(frozen(&world).await, 1);
    stops_with_a_log_that_verifies(&mut world).await;
}
