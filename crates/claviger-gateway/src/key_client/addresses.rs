//! Where the key service is: one address or several, each a name with perhaps several IP addresses, or a socket of this machine
//! (`unix:PATH`). It serves at one of them at a time, so one where it does not is no reason to give up, and the one where it did is asked first.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ClientError;

/// Most IP addresses that are tried for one connection.
const TARGETS_MAX: usize = 8;

/// Something to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Over the network.
    Ip(SocketAddr),
    /// A socket in the file system.
    Local(PathBuf),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Local(path) => write!(f, "{LOCAL}{}", path.display()),
        }
    }
}

/// What a socket in the file system begins with.
const LOCAL: &str = "unix:";

pub(super) struct Addresses {
    /// `host:port` or `unix:PATH`, in the order in which they are preferred.
    names: Vec<String>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Where the last connection went.
    good: Option<Target>,
    /// Who said last that another one serves.
    standby: Option<Target>,
}

impl Addresses {
    /// Of a list divided by commas.
    pub(super) fn parse(list: &str) -> Self {
        let names = list.split(',').map(|name| name.trim().to_owned()).collect();
        Self { names, known: Mutex::default() }
    }

    /// All of them, for messages.
    pub(super) fn text(&self) -> String {
        self.names.join(", ")
    }

    /// What to try, best first.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if no name can be resolved.
    pub(super) async fn targets(&self) -> Result<Vec<Target>, ClientError> {
        let mut targets = Vec::new();
        let mut failure = None;
        for name in &self.names {
            if let Some(path) = name.strip_prefix(LOCAL) {
                targets.push(Target::Local(path.into()));
                continue;
            }
            match tokio::net::lookup_host(name).await {
                Ok(found) => targets.extend(found.map(Target::Ip)),
                Err(reason) => failure = Some(ClientError::Connect { address: name.clone(), reason }),
            }
        }
        targets.truncate(TARGETS_MAX);
        if targets.is_empty() {
            return Err(failure.unwrap_or_else(|| self.nowhere()));
        }
        let known = self.known();
        // Stable: beside these two the order stays.
        targets.sort_by_key(|target| match Some(target) {
            target if target == known.standby.as_ref() => 2,
            target if target == known.good.as_ref() => 0,
            _ => 1,
        });
        targets.dedup();
        Ok(targets)
    }

    /// A connection is there.
    pub(super) fn reached(&self, target: Target) {
        self.known().good = Some(target);
    }

    /// This one does not serve now: it is tried after all others.
    pub(super) fn is_standby(&self, target: Target) {
        self.known().standby = Some(target);
    }

    /// How many there may be to try, at least.
    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    pub(super) fn nowhere(&self) -> ClientError {
        let reason = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        ClientError::Connect { address: self.text(), reason }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_served_last_is_tried_first_and_who_stands_by_last() {
        let addresses = Addresses::parse("127.0.0.1:1, 127.0.0.1:2,127.0.0.1:3");
        let port = |port: u16| Target::Ip(SocketAddr::from(([127, 0, 0, 1], port)));
        let number = |target: &Target| match target {
            Target::Ip(address) => address.port(),
            Target::Local(_) => 0,
        };
        let ports = async || addresses.targets().await.unwrap().iter().map(number).collect::<Vec<_>>();
        assert_eq!(ports().await, [1, 2, 3]);
        addresses.reached(port(2));
        assert_eq!(ports().await, [2, 1, 3]);
        addresses.is_standby(port(2));
        assert_eq!(ports().await, [1, 3, 2]);
        addresses.reached(port(3));
        assert_eq!(ports().await, [3, 1, 2]);
    }

    #[tokio::test]
    async fn a_name_that_means_nothing_does_not_hide_the_others() {
        let targets = Addresses::parse("nowhere.invalid:1,127.0.0.1:2").targets().await.unwrap();
        assert_eq!(targets, [Target::Ip(SocketAddr::from(([127, 0, 0, 1], 2)))]);
        let nothing = Addresses::parse("nowhere.invalid:1").targets().await;
        assert!(matches!(nothing, Err(ClientError::Connect { .. })));
    }

    #[tokio::test]
    async fn a_socket_of_this_machine_is_no_name() {
        let targets = Addresses::parse("unix:/run/x/admin.sock,127.0.0.1:2").targets().await.unwrap();
        let texts: Vec<_> = targets.iter().map(Target::to_string).collect();
        assert_eq!(texts, ["unix:/run/x/admin.sock", "127.0.0.1:2"]);
    }
}
