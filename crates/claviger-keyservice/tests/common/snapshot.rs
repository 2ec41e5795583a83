//! A service's machine as it is now, and as it was then.

use std::fs;
use std::path::Path;

use super::World;

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// State folder with database, and the file that vouches for them. To be taken and put back while the service is stopped.
pub(crate) struct Snapshot(tempfile::TempDir);

impl Snapshot {
    pub(crate) fn take(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&world.config.state_dir, &folder.path().join("state"));
        fs::copy(&world.config.checkpoint_file, folder.path().join("checkpoint")).unwrap();
        Self(folder)
    }

    /// State folder and database alone.
    pub(crate) fn put_back(&self, world: &World) {
        fs::remove_dir_all(&world.config.state_dir).unwrap();
        copy(&self.0.path().join("state"), &world.config.state_dir);
    }

    /// Everything on the machine.
    pub(crate) fn put_all_back(&self, world: &World) {
        self.put_back(world);
        fs::copy(self.checkpoint(), &world.config.checkpoint_file).unwrap();
    }

    /// What vouched then.
    pub(crate) fn checkpoint(&self) -> std::path::PathBuf {
        self.0.path().join("checkpoint")
    }
}
