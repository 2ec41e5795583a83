//! A real PostgreSQL for tests: one server for all tests of a process, a database of its own for each. The server ends with
//! the process, however that ends, because it lives no longer than the pipe to it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use claviger_keyservice::store::postgres::{PostgresConfig, Server as Reached, Timing};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(crate) struct Info {
    pub(crate) socket: PathBuf,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) ca_file: PathBuf,
}

pub(crate) struct Server {
    pub(crate) info: Info,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    _child: Child,
}

impl Server {
    /// One that a test stops or reconfigures; nobody else uses it.
    pub(crate) fn start() -> Arc<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/stores/postgres.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(["serve", "--install"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let info = serde_json::from_str(&line).expect("tests/stores/postgres.py says above what is missing");
        Arc::new(Self { info, pipes: Mutex::new((stdin, stdout)), _child: child })
    }

    /// The one that the tests of this process share.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Server>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(Self::start))
    }

    fn ask(&self, what: &str) {
        let mut pipes = self.pipes.lock().unwrap();
        writeln!(pipes.0, "{what}").unwrap();
        let mut line = String::new();
        pipes.1.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    /// `kill -9` to every process of it.
    pub(crate) fn kill(&self) {
        self.ask("kill");
    }

    /// Starts it after [`Self::kill`], over the same data.
    pub(crate) fn again(&self) {
        self.ask("again");
    }

    /// Runs SQL as the superuser; rows come back as lines, columns divided by `|`.
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        let done = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", text])
            .arg("-h")
            .arg(&self.info.socket)
            .args(["-p", &self.info.port.to_string()])
            .output()
            .unwrap();
        assert!(done.status.success(), "{text}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim_end().to_owned()
    }
}

/// A fresh database.
pub(crate) struct Database {
    pub(crate) server: Arc<Server>,
    pub(crate) name: String,
}

impl Database {
    pub(crate) fn new(server: &Arc<Server>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
        Self { server: Arc::clone(server), name }
    }

    /// Over the socket, as the superuser.
    pub(crate) fn config(&self) -> PostgresConfig {
        PostgresConfig {
            server: Reached::Socket(self.server.info.socket.clone()),
            port: self.server.info.port,
            database: self.name.clone(),
            user: self.server.info.user.clone(),
            password_file: None,
            timing: Timing::default(),
        }
    }

    pub(crate) fn sql(&self, text: &str) -> String {
        self.server.sql(&self.name, text)
    }

    /// Ends the service's session, as a server does that is shut down.
    pub(crate) fn break_sessions(&self) {
        let others = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert_ne!(self.sql(others), "0", "there is a session to end");
    }
}
