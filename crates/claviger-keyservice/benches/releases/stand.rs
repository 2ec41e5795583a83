//! A key service on a runtime of its own, and a runtime for whoever asks it.

use std::future::Future;

use claviger_keyservice::store::location::Location;
use claviger_keyservice::{Limits, Unlock};
use tokio::runtime::{Builder, Runtime};

use crate::common::{TestClock, World};

/// What the names of the service's threads begin with, its log's threads included.
pub(crate) const SERVICE_THREADS: [&str; 2] = ["service", "audit"];

pub(crate) struct Stand {
    pub(crate) world: World,
    /// Whoever asks.
    clients: Runtime,
    _service: Runtime,
}

impl Stand {
    /// A service whose policy knows so many gateways, all with every right on one keyset.
    pub(crate) fn new(gateways: usize) -> Self {
        let service = runtime("service");
        let limits = Limits { connections_max: gateways + 64, ..Limits::default() };
        let world = service.block_on(World::at(
            TestClock::running(),
            limits,
            Location::Sqlite,
            &policy(gateways),
            Unlock::PassphraseFile,
        ));
        Self { world, clients: runtime("clients"), _service: service }
    }

    /// Runs something on the side of those who ask.
    pub(crate) fn ask<T>(&self, work: impl Future<Output = T>) -> T {
        self.clients.block_on(work)
    }
}

fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().unwrap()
}

/// The name of a gateway, without its role.
pub(crate) fn name(number: usize) -> String {
    format!("g{number:04}")
}

fn policy(gateways: usize) -> String {
    let operator = |name: &str| {
        format!("[[operator]]\nidentity = \"admin:{name}\"\nverbs = [\"inspect\", \"enrol\", \"policy\"]\n")
    };
    let identities: Vec<String> =
        (0..gateways).map(|number| format!("\"gateway:{}\"", name(number))).collect();
    let verbs = r#"["lease", "write", "read", "head", "copy-source", "continue", "bind"]"#;
    format!(
        "{}{}[[grant]]\nidentities = [{}]\nkeyset = \"default\"\nverbs = {verbs}\n",
        operator("first"),
        operator("second"),
        identities.join(",")
    )
}
