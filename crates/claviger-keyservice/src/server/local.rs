//! The socket of this machine: where operators get in whatever happens in the network. What they show and may do there is the same
//! as everywhere else.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use crate::ServiceError;

/// How long somebody else who listens there may take to say so.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// A socket in the file system; its file goes with it.
pub(super) struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Listens there. Only the service's own user, and root, can connect.
    ///
    /// # Errors
    /// [`ServiceError::Io`]: somebody else listens there, something else lies there, the folder can't be written.
    pub(super) async fn bind(path: &Path) -> Result<Self, ServiceError> {
        make_way(path).await.map_err(|error| ServiceError::io(path, error))?;
        let listener = UnixListener::bind(path).map_err(|error| ServiceError::io(path, error))?;
        let socket = Self { listener, path: path.to_owned() };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| ServiceError::io(path, error))?;
        Ok(socket)
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket of this machine was not removed");
        }
    }
}

/// Takes away what a service that was killed left there.
async fn make_way(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something lies there that is no socket",
            ));
        }
    }
    match tokio::time::timeout(ASK_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there already"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_left_makes_way_and_what_is_in_use_or_something_else_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        // Its file stays when a process is killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = LocalSocket::bind(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = LocalSocket::bind(&path).await.err().unwrap().to_string();
        assert!(refused.contains("another process listens there"), "{refused}");
        drop(socket);
        assert!(!path.exists());
        std::fs::write(&path, "a text").unwrap();
        let refused = LocalSocket::bind(&path).await.err().unwrap().to_string();
        assert!(refused.contains("no socket"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a text");
    }
}
