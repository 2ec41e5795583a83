//! A relay before the server's Unix socket that loses what a test wants to be lost.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use claviger_keyservice::store::postgres::{PostgresConfig, Server as Reached};

/// What happens to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    Nothing,
    /// The next commit never reaches the server; the connection breaks.
    CommitOnce,
    /// The next commit reaches the server; its answer never comes back, and the connection breaks.
    AnswerOfCommitOnce,
    /// The same, and no new connection is let through until the test says so.
    AnswerOfCommitAndAllAfter,
    /// New connections break at once.
    Everything,
    /// Connections that exist fall silent for ever, without being closed. New ones work.
    SilenceOfTheOld,
    /// Connections that exist fall silent, and new ones break.
    Partition,
}

pub(crate) struct Relay {
    folder: tempfile::TempDir,
    loss: Arc<Mutex<(Loss, u64)>>,
}

impl Relay {
    /// Stands before the server of `config`.
    pub(crate) fn before(config: &PostgresConfig) -> (Self, PostgresConfig) {
        let Reached::Socket(to) = &config.server else { panic!("by socket only") };
        let name = format!(".s.PGSQL.{}", config.port);
        let to = to.join(&name);
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(&name)).unwrap();
        let loss = Arc::new(Mutex::new((Loss::Nothing, 0)));
        let shared = Arc::clone(&loss);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, to, shared) = (client.unwrap(), to.clone(), Arc::clone(&shared));
                thread::spawn(move || carry(client, to, &shared));
            }
        });
        let relay = Self { folder, loss };
        let config =
            PostgresConfig { server: Reached::Socket(relay.folder.path().to_owned()), ..config.clone() };
        (relay, config)
    }

    pub(crate) fn lose(&self, what: Loss) {
        let mut loss = self.loss.lock().unwrap();
        *loss = (what, loss.1 + 1);
    }
}

fn carry(mut client: UnixStream, to: PathBuf, loss: &Arc<Mutex<(Loss, u64)>>) {
    let (now, age) = *loss.lock().unwrap();
    if matches!(now, Loss::Everything | Loss::Partition) {
        return;
    }
    let Ok(mut server) = UnixStream::connect(to) else { return };
    let answers = (server.try_clone().unwrap(), client.try_clone().unwrap(), Arc::clone(loss));
    thread::spawn(move || {
        let (mut server, mut client, loss) = answers;
        pump(&mut server, &mut client, || silent(&loss, age));
    });
    let mut bytes = vec![0; 1 << 16];
    while let Ok(len @ 1..) = client.read(&mut bytes) {
        if silent(loss, age) {
            continue;
        }
        let is_commit = bytes[..len].windows(6).any(|window| window == b"COMMIT");
        let mut what = loss.lock().unwrap();
        let met = is_commit.then_some(what.0);
        match met {
            Some(Loss::CommitOnce) => {
                *what = (Loss::Nothing, what.1 + 1);
                break;
            }
            Some(Loss::AnswerOfCommitOnce | Loss::AnswerOfCommitAndAllAfter) => {
                let after = if what.0 == Loss::AnswerOfCommitOnce { Loss::Nothing } else { Loss::Everything };
                // Nothing more goes back: the client's half is shut before the server hears of it.
                let _ = client.shutdown(std::net::Shutdown::Both);
                server.write_all(&bytes[..len]).unwrap();
                *what = (after, what.1 + 1);
                drop(what);
                // The server closes when it has ended: by then the commit is done.
                let _ = server.shutdown(std::net::Shutdown::Write);
                let _ = server.read_to_end(&mut Vec::new());
                return;
            }
            _ => {}
        }
        drop(what);
        if server.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
    let _ = client.shutdown(std::net::Shutdown::Both);
}

fn silent(loss: &Mutex<(Loss, u64)>, age: u64) -> bool {
    let (now, count) = *loss.lock().unwrap();
    matches!(now, Loss::SilenceOfTheOld | Loss::Partition) && count > age
}

fn pump(from: &mut UnixStream, to: &mut UnixStream, swallow: impl Fn() -> bool) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if !swallow() && to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
