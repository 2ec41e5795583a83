//! The demonstration's key service: a real one, in its own folder, reached over mutual TLS on loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use claviger_env::Clock;
use claviger_format::random::Random;
use claviger_gateway::key_client::{self, ClientError, KeyClient, StoredIdentity, UnsignedIdentity};
use claviger_keyapi::proposals::{
    self, Action, ApproveAnswer, Collected, ProposalInfo, ProposalRequest, ProposeRequest,
};
use claviger_keyapi::{Identity, KeyService as KeyServiceApi, Role};
use claviger_keyservice::custody::paper::Form;
use claviger_keyservice::custody::shamir::Share;
use claviger_keyservice::custody::unlock::establish::Method;
use claviger_keyservice::files::read_secret;
use claviger_keyservice::store::location::Location;
use claviger_keyservice::{Config, InitOptions, KeyService, Limits, NewOperator, ServiceError, Unlock, init};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::folder::Folder;
use crate::serving;

const KEYSET: &str = "default";
const SHARES: u8 = 5;
const SHARES_THRESHOLD: u8 = 3;
const TOKEN_TTL_S: u32 = 60;
/// A certificate with less life than this is not worth starting with.
const EXPIRY_MARGIN_MS: u64 = 60_000;
/// The operators of the demonstration's key service: what matters takes two.
const OPERATOR_NAMES: [&str; 2] = ["first", "second"];

/// A key service that is unlocked and serves, and the gateway's client of it.
pub(super) struct Keys {
    client: Arc<KeyClient>,
    renewal: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServiceError>>,
}

impl Keys {
    /// What the gateway asks for keys.
    pub(super) fn client(&self) -> Arc<dyn KeyServiceApi> {
        Arc::clone(&self.client) as Arc<dyn KeyServiceApi>
    }

    /// Ends the service once its requests are done.
    pub(super) async fn stop(self) {
        self.renewal.abort();
        drop(self.client);
        drop(self.stop);
        match self.serving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the key service ended badly"),
            Err(error) => tracing::warn!(%error, "the key service ended badly"),
        }
    }
}

/// Makes the service at the first start; opens, unlocks and serves it; enrols the gateway if it has no identity yet.
///
/// # Errors
/// When the service's files are damaged, or the two can't agree on an identity.
pub(super) async fn start(
    folder: &Folder,
    gateway: &str,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<Keys> {
    let listener = serving::bind(([127, 0, 0, 1], 0).into(), "the key service").await?;
    let address = listener.local_addr()?;
    let gateway = Identity::new(Role::Gateway, gateway)?;
    let config = config(folder, address);
    write_policy(&policy_file(folder), &gateway)?;
    let service = open(folder, config, clock, random).await.context("the key service can't be opened")?;
    let (stop, serving) = serve(service.clone(), listener);
    let desk = Desk { folder, service: &service, address, clock };
    let client = desk.gateway(gateway).await?;
    let renewal = tokio::spawn(Arc::clone(&client).renewal());
    Ok(Keys { client, renewal, stop, serving })
}

fn config(folder: &Folder, address: SocketAddr) -> Config {
    let keyservice = folder.join("keyservice");
    Config {
        state_dir: keyservice.join("state"),
        listen: address,
        advertise: address.to_string(),
        admin_listen: None,
        admin_socket: None,
        // Read when the service is made, and when a folder of a release before is taken over.
        policy: None,
        unlock: Unlock::PassphraseFile,
        passphrase_file: Some(keyservice.join("passphrase")),
        checkpoint_file: keyservice.join("state.checkpoint"),
        store: Location::Sqlite,
        pkcs11: None,
        limits: Limits::default(),
    }
}

fn policy_file(folder: &Folder) -> PathBuf {
    folder.join("keyservice/policy.toml")
}

/// The gateway may do everything with the one keyset, the operators everything that operators can.
fn write_policy(path: &Path, gateway: &Identity) -> Result<()> {
    let operators: String = OPERATOR_NAMES
        .iter()
        .map(|name| {
            format!(
                "[[operator]]\n\
                 identity = \"admin:{name}\"\n\
                 verbs = [\"inspect\", \"unlock\", \"keyset\", \"enrol\", \"policy\", \"freeze\"]\n\n"
            )
        })
        .collect();
    let policy = format!(
        "# Written by `claviger demo`, read when its key service is made. deploy/policy.toml explains a real one.\n\
         {operators}\
         [[grant]]\n\
         identity = \"{gateway}\"\n\
         keyset = \"{KEYSET}\"\n\
         verbs = [\"lease\", \"write\", \"read\", \"head\", \"copy-source\", \"continue\", \"bind\"]\n"
    );
    fs::write(path, policy).with_context(|| format!("can't write {}", path.display()))
}

async fn open(
    folder: &Folder,
    config: Config,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<KeyService> {
    let make = Made {
        recovery: folder.join("recovery"),
        policy: policy_file(folder),
        operators: OPERATOR_NAMES.map(|name| (name, operator_folder(folder, name))),
    };
    let (clock, random) = (Arc::clone(clock), Arc::clone(random));
    let open = move || match KeyService::open(config.clone(), Arc::clone(&clock), Arc::clone(&random)) {
        Err(ServiceError::NotInitialised(_)) => {
            make.make(&config, &clock, &random)?;
            Ok(KeyService::open(config, clock, random)?)
        }
        // A folder of the release before has its policy in the file.
        Err(ServiceError::Question(_)) => {
            let config = Config { policy: Some(make.policy), ..config };
            Ok(KeyService::open(config, clock, random)?)
        }
        opened => Ok(opened?),
    };
    tokio::task::spawn_blocking(open).await?
}

fn operator_folder(folder: &Folder, name: &str) -> PathBuf {
    folder.join(&format!("operators/{name}"))
}

/// What making a service writes and reads.
struct Made {
    recovery: PathBuf,
    policy: PathBuf,
    operators: [(&'static str, PathBuf); 2],
}

impl Made {
    /// Makes a new service. What a start that was interrupted before this point left behind belongs to no service and goes
    /// first.
    fn make(&self, config: &Config, clock: &Arc<dyn Clock>, random: &Arc<dyn Random>) -> Result<()> {
        let passphrase_file = config.passphrase_file.clone().context("the configuration above names one")?;
        remove(fs::remove_file(&passphrase_file))?;
        remove(fs::remove_dir_all(&config.state_dir))?;
        remove(fs::remove_file(&config.checkpoint_file))?;
        remove(fs::remove_dir_all(&self.recovery))?;
        let mut unsigned = Vec::new();
        let mut operators = Vec::new();
        for (name, folder) in &self.operators {
            remove(fs::remove_dir_all(folder))?;
            let request = UnsignedIdentity::generate()?;
            let identity = Identity::new(Role::Admin, name)?;
            operators.push(NewOperator { identity: identity.clone(), csr: request.csr().to_vec() });
            unsigned.push((request, identity, folder));
        }
        let options = InitOptions {
            keyset: KEYSET.to_owned(),
            shares: SHARES,
            threshold: SHARES_THRESHOLD,
            shares_dir: self.recovery.clone(),
            share_forms: vec![Form::Text],
            unlock: Method::Passphrase { file: passphrase_file },
            policy: self.policy.clone(),
            retention_days: 3650,
            operators,
        };
        let report = init(config, &options, clock, random)?;
        for ((request, identity, folder), certificate) in unsigned.into_iter().zip(report.operators) {
            request.signed(config.advertise.clone(), identity, certificate).save(folder)?;
        }
        Ok(())
    }
}

fn remove(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn serve(
    service: KeyService,
    listener: TcpListener,
) -> (oneshot::Sender<()>, JoinHandle<Result<(), ServiceError>>) {
    let (stop, stopped) = oneshot::channel::<()>();
    // A dropped sender means the same as a sent message: end.
    let serving =
        tokio::spawn(async move { service.serve(listener, async move { drop(stopped.await) }).await });
    (stop, serving)
}

/// Where the demonstration's two operators sit.
struct Desk<'a> {
    folder: &'a Folder,
    service: &'a KeyService,
    address: SocketAddr,
    clock: &'a Arc<dyn Clock>,
}

impl Desk<'_> {
    /// The gateway's client. An identity that is missing, or whose certificate ran out while the demonstration was off, is
    /// enrolled (anew) with a one-time token, as two operators would do it.
    async fn gateway(&self, identity: Identity) -> Result<Arc<KeyClient>> {
        let state_dir = self.folder.join("gateway/identity");
        match StoredIdentity::load(&state_dir) {
            Ok(stored) if self.is_good(&stored) => {}
            Ok(_) | Err(ClientError::NotEnrolled(_)) => self.enrol(identity, &state_dir).await?,
            Err(error) => return Err(error).context("the gateway's identity can't be read"),
        }
        Ok(KeyClient::open(&self.address.to_string(), &state_dir, Arc::clone(self.clock))?)
    }

    fn is_good(&self, stored: &StoredIdentity) -> bool {
        stored.certificate.not_after_ms > self.clock.now_ms() + EXPIRY_MARGIN_MS
    }

    async fn enrol(&self, identity: Identity, state_dir: &Path) -> Result<()> {
        let [first, second] = OPERATOR_NAMES;
        let (first, second) = (self.operator(first).await?, self.operator(second).await?);
        // An earlier start may have enrolled it and been interrupted before the identity was on disk.
        let action =
            Action::Enrol { identity, keysets: vec![KEYSET.to_owned()], ttl_s: TOKEN_TTL_S, replace: true };
        let request = ProposeRequest { action, ttl_s: None };
        let proposal: ProposalInfo = first.transport().call(proposals::PROPOSE, &request).await?.value;
        let request = ProposalRequest { id: proposal.id };
        second.transport().call::<_, ApproveAnswer>(proposals::APPROVE, &request).await?;
        let collected = first.transport().call(proposals::COLLECT, &request).await?.value;
        let Collected::EnrolToken(token) = collected else { anyhow::bail!("the key service gave no token") };
        for operator in [first, second] {
            operator.renew_if_due().await?;
        }
        remove(fs::remove_dir_all(state_dir))?;
        key_client::enrol(token.token.expose(), state_dir, Arc::clone(self.clock))
            .await
            .context("the gateway can't be enrolled")?;
        Ok(())
    }

    /// An operator's client. If his identity is gone, or ran out while the demonstration was off, the recovery shares make
    /// another.
    async fn operator(&self, name: &str) -> Result<Arc<KeyClient>> {
        let folder = operator_folder(self.folder, name);
        match StoredIdentity::load(&folder) {
            Ok(stored) if self.is_good(&stored) => {}
            Ok(_) | Err(ClientError::NotEnrolled(_)) => self.recover(name, &folder).await?,
            Err(error) => return Err(error).context("an operator's identity can't be read"),
        }
        Ok(KeyClient::open_operator(&self.address.to_string(), &folder, Arc::clone(self.clock))?)
    }

    async fn recover(&self, name: &str, folder: &Path) -> Result<()> {
        let identity = Identity::new(Role::Admin, name)?;
        let unsigned = UnsignedIdentity::generate()?;
        let (service, recovery) = (self.service.clone(), self.folder.join("recovery"));
        let (who, csr) = (identity.clone(), unsigned.csr().to_vec());
        let certificate = tokio::task::spawn_blocking(move || {
            let shares = (1..=SHARES_THRESHOLD)
                .map(|n| Share::parse(&read_secret(&recovery.join(format!("{KEYSET}-v1-share-{n}.txt")))?))
                .collect::<Result<Vec<_>, ServiceError>>()?;
            service.recover_operator(&who, csr, &shares)
        });
        let certificate = certificate.await?.context("the recovery shares make no operator")?;
        remove(fs::remove_dir_all(folder))?;
        unsigned.signed(self.address.to_string(), identity, certificate).save(folder)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use claviger_env::{OsRandom, SystemClock};

    use super::*;

    /// The system's clock, put forward.
    struct LaterClock(AtomicU64);

    impl Clock for LaterClock {
        fn now_ms(&self) -> u64 {
            SystemClock.now_ms() + self.0.load(Ordering::Relaxed)
        }

        fn boot_ms(&self) -> u64 {
            SystemClock.boot_ms() + self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_demo_that_was_off_for_a_week_or_longer_than_any_certificate_finds_its_keys_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::open(folder.path()).unwrap();
        let later = Arc::new(LaterClock(AtomicU64::new(0)));
        let clock: Arc<dyn Clock> = later.clone();
        let random: Arc<dyn Random> = Arc::new(OsRandom::new(clock.clone()).unwrap());
        let keys = start(&folder, "demo", &clock, &random).await.unwrap();
        let bound = keys.client().bind_bucket("demo", None).await.unwrap().value;
        keys.stop().await;

        // The gateway's certificate is over after a day, the operators' after 90.
        for days in [7, 200] {
            later.0.store(days * 86_400_000, Ordering::Relaxed);
            let keys = start(&folder, "demo", &clock, &random).await.unwrap();
            let binding = keys.client().binding("demo").await.unwrap().value.unwrap();
            assert_eq!(binding.bucket_id, bound.bucket_id);
            keys.stop().await;
        }
    }
}
