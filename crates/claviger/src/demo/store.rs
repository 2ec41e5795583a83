//! The store behind the demonstration: the embedded provider, or a real one.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use claviger_env::Clock;
use claviger_gateway::config::{UpstreamConfig, UpstreamProfile};
use claviger_gateway::profile::Profile;
use claviger_provider::{Credentials, Provider};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::folder::{Folder, KeyPair, Run, State};
use super::upstream_file::Accounts;
use super::{Arguments, access, upstream_file};
use crate::exit::Exit;
use crate::{serving, store_kind};

const FIRST_REGION: &str = "us-east-1";
const EMBEDDED_REGION: &str = FIRST_REGION;
/// What clients are told in its place.
const CLIENT_REGION: &str = "eu-central-1";

/// A store that answers.
pub(super) struct Store {
    endpoint: String,
    region: String,
    accounts: Accounts,
    profile: UpstreamProfile,
    embedded: Option<Embedded>,
}

struct Embedded {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), claviger_provider::Error>>,
}

impl Store {
    /// The real store of `arguments`, or the embedded one, which is started.
    ///
    /// # Errors
    /// A wrong credentials file, or files of the provider that can't be read.
    pub(super) async fn open(
        arguments: &Arguments,
        folder: &Folder,
        state: &State,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Exit> {
        if let (Some(endpoint), Some(file)) = (&arguments.upstream, &arguments.upstream_credentials) {
            let accounts = upstream_file::load(file).map_err(Exit::usage)?;
            let region = arguments.upstream_region.clone();
            let profile = match arguments.upstream_profile {
                Some(profile) => profile,
                None => recognised(endpoint).await,
            };
            return Ok(Self { endpoint: endpoint.clone(), region, accounts, profile, embedded: None });
        }
        Ok(Self::start_embedded(folder, &state.provider, clock).await?)
    }

    async fn start_embedded(folder: &Folder, key: &KeyPair, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let path = folder.join("provider");
        let credentials = Credentials::new(key.access_key_id.as_str(), key.secret_access_key.as_str());
        let clock = Arc::clone(clock);
        let opened =
            tokio::task::spawn_blocking(move || Provider::open(&path, credentials, EMBEDDED_REGION, clock));
        let provider = opened.await?.context("the provider's files can't be opened")?;
        let listener = serving::bind(([127, 0, 0, 1], 0).into(), "the embedded provider").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel();
        // A dropped sender means the same as a sent message: end.
        let serving =
            tokio::spawn(async move { provider.serve(listener, async move { drop(stopped.await) }).await });
        Ok(Self {
            endpoint,
            region: EMBEDDED_REGION.to_owned(),
            accounts: Accounts { own: key.clone(), others: Vec::new() },
            profile: UpstreamProfile::Embedded,
            embedded: Some(Embedded { stop, serving }),
        })
    }

    /// The accounts whose keys clients have; nobody has the embedded provider's.
    pub(super) fn accounts(&self) -> Option<&Accounts> {
        self.embedded.is_none().then_some(&self.accounts)
    }

    /// The gateway's file of accounts.
    ///
    /// # Errors
    /// When TOML can't hold it.
    pub(super) fn upstream_accounts(&self) -> anyhow::Result<String> {
        access::upstream_accounts(&self.accounts)
    }

    /// How the gateway reaches it.
    pub(super) fn upstream_config(&self, credentials_file: PathBuf) -> UpstreamConfig {
        let mut config = UpstreamConfig::new(self.endpoint.clone(), credentials_file);
        config.region.clone_from(&self.region);
        config.profile = self.profile;
        config
    }

    /// The region that clients are told. In S3's first region, aws-cli and boto3 still presign with version 2 of the
    /// signature, which nobody should take any more; in every later one with version 4. The gateway takes any.
    pub(super) fn client_region(&self) -> &str {
        if self.region == FIRST_REGION { CLIENT_REGION } else { &self.region }
    }

    /// What `peek` has to know.
    pub(super) fn run(&self, endpoint: String) -> Run {
        Run {
            endpoint,
            upstream: self.endpoint.clone(),
            region: self.client_region().to_owned(),
            upstream_region: self.region.clone(),
            upstream_key: self.accounts.own.clone(),
            embedded: self.embedded.is_some(),
        }
    }

    /// Ends the embedded provider once its requests are done.
    pub(super) async fn stop(self) {
        let Some(embedded) = self.embedded else { return };
        drop(embedded.stop);
        let ended = embedded.serving.await.map_err(|error| anyhow!(error)).and_then(|ended| Ok(ended?));
        if let Err(error) = ended {
            tracing::warn!(%error, "the embedded provider ended badly");
        }
    }
}

/// Asks the store what it is, and says what was taken.
async fn recognised(endpoint: &str) -> UpstreamProfile {
    let kind = store_kind::ask(endpoint).await;
    let profile = Profile::of(kind.unwrap_or_default());
    let how = if kind.is_some() { "looks like" } else { "is not recognised; taken for" };
    println!(
        "The store at {endpoint} {how} {}: profile {} (--upstream-profile)",
        profile.store, profile.name
    );
    profile.kind
}
