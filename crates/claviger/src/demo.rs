//! `claviger demo`: key service, gateway and a provider in one process, to see the whole at work.
//!
//! Nothing in it is simulated: the gateway reaches the key service over mutual TLS and the provider over HTTP, both on
//! loopback sockets, and enrols with a one-time token at the first start. Only the process is one.

#![allow(clippy::print_stdout, reason = "the demonstration talks to a person")]

mod access;
pub(crate) mod folder;
mod keys;
mod screen;
mod store;
mod upstream_file;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use claviger_env::{Clock, OsRandom, SystemClock};
use claviger_format::random::Random;
use claviger_gateway::Gateway;
use claviger_gateway::config::{
    AdminConfig, Config, Endpoints, KeyServiceConfig, LimitsConfig, SystemAreaConfig, TagMode, TagsConfig,
    UpstreamProfile,
};
use claviger_gateway::metrics;
use claviger_gateway::profile::{PROFILES, Profile};

use crate::exit::Exit;
use crate::{serving, signals};
use folder::{Folder, State, write_private};
use store::Store;

/// Where the demonstration keeps its state unless told otherwise.
pub(crate) const DIR_DEFAULT: &str = "claviger-demo";
/// The gateway's name at the key service.
const GATEWAY_NAME: &str = "demo";
/// Seconds for running requests at the end.
const DRAIN_TIMEOUT_S: u64 = 5;
/// Until everything must be ready after a start.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// See it work: key service, gateway and a provider in one process, on this machine only
///
/// Prints an S3 endpoint and the lines to use it with aws-cli and boto3. What you store there
/// arrives sealed at the provider, whose plain files you can look at. State lies in one folder and
/// survives a restart; Ctrl-C ends it.
///
/// To put the same before a real store:
///   claviger demo --upstream https://s3.eu-central-1.amazonaws.com \
///       --upstream-region eu-central-1 --upstream-credentials ~/.aws/credentials
///
/// Clients then go on with the keys and profiles that they have; only the endpoint changes.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Where S3 clients connect (port 0: a free one)
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Folder for all state
    #[arg(long, default_value = DIR_DEFAULT, value_name = "DIR")]
    dir: PathBuf,

    /// File to write the endpoint into once requests are served; removed at the end
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,

    /// A real S3 store in place of the embedded provider
    #[arg(long, value_name = "URL", requires = "upstream_credentials")]
    upstream: Option<String>,

    /// The real store's region
    #[arg(long, value_name = "REGION", default_value = "us-east-1")]
    upstream_region: String,

    /// What kind of store that is: generic, aws, ceph-rgw, garage, minio, gcs, ovhcloud, r2, b2, wasabi. Default: it is
    /// asked
    #[arg(long, value_name = "NAME", requires = "upstream", value_parser = profile_named)]
    upstream_profile: Option<UpstreamProfile>,

    /// Accounts at the real store, mode 0600: TOML (access_key_id, secret_access_key; more as `account` tables), an AWS
    /// shared credentials file with its profiles, or AWS_…= lines. Their keys work for clients as they are
    #[arg(long, value_name = "FILE", requires = "upstream")]
    upstream_credentials: Option<PathBuf>,

    /// Let requests without a signature through, unsigned: the store decides what everybody may do, and pages of which
    /// origins may read it (origins = ["*"])
    #[arg(long)]
    anonymous: bool,

    /// Let objects have tags: they go to the store in clear
    #[arg(long)]
    plain_tags: bool,

    /// Where health and metrics are shown: /health/live, /health/ready, /metrics. No authentication
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

fn profile_named(name: &str) -> Result<UpstreamProfile, String> {
    let known = || PROFILES.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ");
    Profile::named(name).map(|profile| profile.kind).ok_or_else(|| format!("known are {}", known()))
}

/// Runs the demonstration until it is asked to end.
///
/// # Errors
/// Exit code 2 for what the user can mend (address taken, wrong credentials file), 1 otherwise.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Exit> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(OsRandom::new(Arc::clone(&clock)).map_err(Exit::failed)?);
    let shutdown = signals::listen()?;
    if arguments.admin.is_some() {
        // Before anything is counted: what is recorded earlier is lost.
        metrics::install().map_err(Exit::failed)?;
    }
    let folder = Folder::open(&arguments.dir).map_err(Exit::usage)?;
    let mut state = folder.state(&*random)?;
    let listener = serving::bind(arguments.listen, "S3 clients").await.map_err(Exit::usage)?;
    let endpoint = endpoint_of(listener.local_addr().map_err(Exit::failed)?);

    let store = Store::open(&arguments, &folder, &state, &clock).await?;
    let keys = keys::start(&folder, GATEWAY_NAME, &clock, &random).await?;
    let config =
        gateway_config(&arguments, &folder, &state, &store, listener.local_addr().map_err(Exit::failed)?)?;
    let gateway = Gateway::start(config.clone(), keys.client(), Arc::clone(&clock), Arc::clone(&random))
        .await
        .map_err(Exit::failed)?;
    let readiness = gateway.readiness();
    let serving = serving::serve_gateway(gateway, &config, listener, clock, &*random, shutdown.clone());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = &mut serving => { ended?; }
        ready = until_ready(&readiness) => {
            ready?;
            state.run = Some(store.run(endpoint.clone()));
            folder.save(&state)?;
            announce(&folder, &state, &arguments)?;
            serving.await?;
        }
    }
    if let Some(path) = &arguments.ready_file {
        // It may be gone already; nothing depends on it any more.
        drop(std::fs::remove_file(path));
    }
    keys.stop().await;
    store.stop().await;
    println!("\nStopped. The state in {} is there for the next start.", arguments.dir.display());
    Ok(())
}

/// Where a client on this machine reaches a listener; "every address" is none that one can connect to everywhere.
fn endpoint_of(mut address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("http://{address}")
}

async fn until_ready(readiness: &claviger_gateway::admin::Readiness) -> anyhow::Result<()> {
    let ready = async {
        while !readiness.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(READY_TIMEOUT, ready).await.map_err(|_| {
        let reasons: Vec<String> = readiness
            .snapshot()
            .into_iter()
            .filter_map(|(name, reason)| Some(format!("{name}: {}", reason?)))
            .collect();
        anyhow!("not ready after {} s: {}", READY_TIMEOUT.as_secs(), reasons.join("; "))
    })
}

/// The gateway's configuration, and the two files of secrets that it names.
fn gateway_config(
    arguments: &Arguments,
    folder: &Folder,
    state: &State,
    store: &Store,
    listen: SocketAddr,
) -> anyhow::Result<Config> {
    let credentials_file = folder.join("gateway/credentials.toml");
    let keys = access::access_keys(&state.user, store.accounts(), arguments.anonymous)?;
    write_private(&credentials_file, &keys)?;
    let upstream_file = folder.join("gateway/upstream.toml");
    write_private(&upstream_file, &store.upstream_accounts()?)?;
    Ok(Config {
        listen,
        tls: None,
        virtual_hosts: vec!["localhost".to_owned()],
        host_aliases: Vec::new(),
        region: Some(store.client_region().to_owned()),
        credentials_file,
        upstream: store.upstream_config(upstream_file),
        key_service: KeyServiceConfig {
            endpoint: Endpoints::Several(Vec::new()),
            state_dir: folder.join("gateway/identity"),
        },
        system_area: SystemAreaConfig::default(),
        tags: if arguments.plain_tags { vec![plain_tags()] } else { Vec::new() },
        limits: LimitsConfig { drain_timeout_s: DRAIN_TIMEOUT_S, ..LimitsConfig::default() },
        admin: arguments.admin.map(|listen| AdminConfig { listen }),
        source: PathBuf::new(),
    })
}

/// Tags in clear, in every bucket.
fn plain_tags() -> TagsConfig {
    TagsConfig { buckets: vec!["*".to_owned()], mode: TagMode::Plain }
}

/// Everything works: tell the shell, the waiting script and the person.
fn announce(folder: &Folder, state: &State, arguments: &Arguments) -> anyhow::Result<()> {
    let Some(run) = &state.run else { return Ok(()) };
    write_private(&folder.join("credentials.env"), &screen::environment(&state.user, run))?;
    print!("{}", screen::welcome(&arguments.dir, run));
    if let Some(path) = &arguments.ready_file {
        let write = || -> std::io::Result<()> {
            let mut temporary = path.as_os_str().to_owned();
            temporary.push(".new");
            std::fs::write(&temporary, format!("{}\n", run.endpoint))?;
            std::fs::rename(&temporary, path)
        };
        write().with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_one_that_a_client_can_connect_to() {
        let endpoint = |address: &str| endpoint_of(address.parse().unwrap());
        assert_eq!(endpoint("127.0.0.1:9000"), "http://127.0.0.1:9000");
        assert_eq!(endpoint("0.0.0.0:9000"), "http://127.0.0.1:9000");
        assert_eq!(endpoint("[::]:9000"), "http://[::1]:9000");
        assert_eq!(endpoint("192.0.2.1:9000"), "http://192.0.2.1:9000");
    }
}
