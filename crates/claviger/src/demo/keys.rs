//! The demonstration's key service: a real one, in its own folder, reached over mutual TLS on loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use claviger_env::Clock;
use claviger_format::random::Random;
use claviger_gateway::key_client::{self, ClientError, KeyClient, StoredIdentity, UnsignedIdentity};
use claviger_keyapi::{Identity, KeyService as KeyServiceApi, Role};
use claviger_keyservice::custody::paper::Form;
use claviger_keyservice::custody::unlock::establish::Method;
use claviger_keyservice::store::location::Location;
use claviger_keyservice::{Config, InitOptions, KeyService, Limits, ServiceError, Unlock, init};
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
/// The operator of the demonstration's key service.
const OPERATOR_NAME: &str = "first";

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
    write_policy(&config.policy, &gateway)?;
    let service = open(folder, config, clock, random).await.context("the key service can't be opened")?;
    let (stop, serving) = serve(service.clone(), listener);
    let state_dir = folder.join("gateway/identity");
    let client = client(&service, gateway, address, &state_dir, clock).await?;
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
        policy: keyservice.join("policy.toml"),
        unlock: Unlock::PassphraseFile,
        passphrase_file: Some(keyservice.join("passphrase")),
        store: Location::Sqlite,
        pkcs11: None,
        limits: Limits::default(),
    }
}

/// The gateway may do everything with the one keyset; the operator may look.
fn write_policy(path: &Path, gateway: &Identity) -> Result<()> {
    let policy = format!(
        "# Written by `claviger demo` at every start. deploy/policy.toml explains a real one.\n\
         [[operator]]\n\
         identity = \"admin:{OPERATOR_NAME}\"\n\
         verbs = [\"inspect\", \"unlock\", \"keyset\", \"enrol\", \"policy\"]\n\n\
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
    let recovery = folder.join("recovery");
    let (clock, random) = (Arc::clone(clock), Arc::clone(random));
    let open = move || match KeyService::open(config.clone(), Arc::clone(&clock), Arc::clone(&random)) {
        Err(ServiceError::NotInitialised(_)) => {
            make(&config, &recovery, &clock, &random)?;
            Ok(KeyService::open(config, clock, random)?)
        }
        opened => Ok(opened?),
    };
    tokio::task::spawn_blocking(open).await?
}

/// Makes a new service. What a start that was interrupted before this point left behind belongs to no service and goes
/// first.
fn make(config: &Config, recovery: &Path, clock: &Arc<dyn Clock>, random: &Arc<dyn Random>) -> Result<()> {
    let passphrase_file = config.passphrase_file.clone().context("the configuration above names one")?;
    remove(fs::remove_file(&passphrase_file))?;
    remove(fs::remove_dir_all(&config.state_dir))?;
    remove(fs::remove_dir_all(recovery))?;
    let options = InitOptions {
        keyset: KEYSET.to_owned(),
        shares: SHARES,
        threshold: SHARES_THRESHOLD,
        shares_dir: recovery.to_path_buf(),
        share_forms: vec![Form::Text],
        unlock: Method::Passphrase { file: passphrase_file },
        operator: Identity::new(Role::Admin, OPERATOR_NAME)?,
        operator_csr: operator_request()?,
    };
    init(config, &options, clock, random)?;
    Ok(())
}

fn remove(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A certificate request for the operator whom a service must have. The demonstration needs none: the key is dropped.
fn operator_request() -> Result<Vec<u8>> {
    Ok(UnsignedIdentity::generate()?.csr().to_vec())
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

/// The gateway's client. An identity that is missing, or whose certificate ran out while the demonstration was off, is
/// enrolled (anew) with a one-time token, as an operator would do it.
async fn client(
    service: &KeyService,
    gateway: Identity,
    address: SocketAddr,
    state_dir: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<KeyClient>> {
    match StoredIdentity::load(state_dir) {
        Ok(identity) if identity.certificate.not_after_ms > clock.now_ms() + EXPIRY_MARGIN_MS => {}
        Ok(_) | Err(ClientError::NotEnrolled(_)) => enrol(service, gateway, state_dir, clock).await?,
        Err(error) => return Err(error).context("the gateway's identity can't be read"),
    }
    Ok(KeyClient::open(&address.to_string(), state_dir, Arc::clone(clock))?)
}

async fn enrol(
    service: &KeyService,
    gateway: Identity,
    state_dir: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<()> {
    let service = service.clone();
    // An earlier start may have enrolled it and been interrupted before the identity was on disk.
    let replace = true;
    let token = move || service.enrolment_token(gateway, vec![KEYSET.to_owned()], TOKEN_TTL_S, replace);
    let token = tokio::task::spawn_blocking(token).await?.context("the gateway gets no enrolment token")?;
    remove(fs::remove_dir_all(state_dir))?;
    key_client::enrol(token.expose(), state_dir, Arc::clone(clock))
        .await
        .context("the gateway can't be enrolled")?;
    Ok(())
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
    async fn a_demo_that_was_off_for_a_week_finds_its_keys_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::open(folder.path()).unwrap();
        let later = Arc::new(LaterClock(AtomicU64::new(0)));
        let clock: Arc<dyn Clock> = later.clone();
        let random: Arc<dyn Random> = Arc::new(OsRandom::new(clock.clone()).unwrap());
        let keys = start(&folder, "demo", &clock, &random).await.unwrap();
        let bound = keys.client().bind_bucket("demo", None).await.unwrap().value;
        keys.stop().await;

        later.0.store(7 * 86_400_000, Ordering::Relaxed);
        let keys = start(&folder, "demo", &clock, &random).await.unwrap();
        let binding = keys.client().binding("demo").await.unwrap().value.unwrap();
        assert_eq!(binding.bucket_id, bound.bucket_id);
        keys.stop().await;
    }
}
