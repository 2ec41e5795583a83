//! Claviger as an operator sets it up: a key service, two operators, enrolled gateways. Processor time and memory are the
//! gateway's; the key service is a machine of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{CLAVIGER, Contender, Side, Stand, accepts, free_port};
use crate::process::{Process, run, write_private};

/// The gateway over plain HTTP.
const PLAIN: &str = "plain";
/// The gateway over TLS.
pub(super) const SECURE: &str = "secure";

const POLICY: &str = r#"
[[operator]]
identity = "admin:first"
verbs = ["inspect", "unlock", "keyset", "enrol", "policy", "freeze"]
[[operator]]
identity = "admin:second"
verbs = ["inspect", "unlock", "keyset", "enrol", "policy", "freeze"]
[[grant]]
identities = ["gateway:plain", "gateway:secure", "gateway:writer-0", "gateway:writer-1", "gateway:writer-2", "gateway:writer-3"]
keyset = "default"
verbs = ["lease", "write", "read", "head", "copy-source", "continue", "bind"]
"#;

/// More than are ever asked at once: none is refused, here as at nginx.
const REQUESTS_MAX: usize = 4096;

/// Where its parts lie.
pub(super) struct Setup {
    /// The contender's.
    name: String,
    program: PathBuf,
    dir: PathBuf,
    key_service_port: u16,
}

/// Starts a build of it under this name.
pub(super) fn start(stand: &Stand, name: &str, program: &Path) -> Result<(Contender, Setup)> {
    let program = program.canonicalize().with_context(|| format!("{} is not built", program.display()))?;
    let dir = stand.dir.join(name);
    std::fs::create_dir_all(&dir)?;
    let setup = Setup { name: name.to_owned(), program, dir, key_service_port: free_port()? };
    setup.write_accounts(stand)?;
    let key_service = setup.key_service()?;
    let mut startup = None;
    let mut side = |name: &str, store: &Option<String>| -> Result<Option<Side>> {
        let Some(store) = store else { return Ok(None) };
        setup.enrol(name)?;
        let (side, took) = setup.start_gateway(stand, name, store, &setup.owner(name))?;
        startup = Some(took);
        Ok(Some(side))
    };
    let http = side(PLAIN, &stand.http)?;
    let tls = side(SECURE, &stand.https)?;
    let contender = Contender { name: name.to_owned(), http, tls, startup, _helpers: vec![key_service] };
    Ok((contender, setup))
}

impl Setup {
    /// In front of the names of a gateway's objects.
    pub(super) fn owner(&self, gateway: &str) -> String {
        format!("{}-{gateway}", self.name)
    }

    /// A bucket for something: other builds have their own, bound at their own key service.
    fn bucket(&self, stand: &Stand, what: &str) -> String {
        if self.name == CLAVIGER {
            format!("{}-{what}", stand.bucket)
        } else {
            format!("{}-{what}-{}", stand.bucket, self.name)
        }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words.split_ascii_whitespace()).current_dir(&self.dir);
        command.env("CLAVIGER_OPERATOR", self.dir.join("operator"));
        command
    }

    fn key_service(&self) -> Result<Process> {
        write_private(&self.dir.join("policy.toml"), POLICY)?;
        let config = format!(
            "state_dir = \"keyservice\"\nlisten = \"127.0.0.1:{}\"\nunlock = \"passphrase-file\"\npassphrase_file = \"passphrase\"\n",
            self.key_service_port
        );
        write_private(&self.dir.join("keyservice.toml"), &config)?;
        run(&mut self.command(
            "keys init --config keyservice.toml --policy policy.toml --recovery recovery --operator first=operator --operator \
             second=second-operator",
        ))?;
        let mut process = Process::start(
            "keyservice",
            &self.dir,
            &mut self.command("keyservice --config keyservice.toml"),
        )?;
        process.wait_until(|| {
            run(&mut self.command("keys status")).is_ok_and(|status| status.contains("Unlocked"))
        })?;
        Ok(process)
    }

    /// A gateway before the store; how long it took to answer after it was started.
    pub(super) fn start_gateway(
        &self,
        stand: &Stand,
        name: &str,
        store: &str,
        owner: &str,
    ) -> Result<(Side, Duration)> {
        let (port, health) = (free_port()?, free_port()?);
        self.write_config(stand, name, store, port, health)?;
        let begun = Instant::now();
        let words = format!("--log-format json gateway --config {name}.toml");
        let mut process = Process::start(name, &self.dir, &mut self.command(&words))?;
        process.wait_until(|| accepts(port) && is_ready(health))?;
        let took = begun.elapsed();
        let scheme = if store.starts_with("https") { "https" } else { "http" };
        let endpoint = format!("{scheme}://127.0.0.1:{port}");
        let bucket = self.bucket(stand, "sealed");
        let target = stand.target(&endpoint, &bucket, owner)?;
        Ok((Side { target, process: Some(Arc::new(process)) }, took))
    }

    /// What all gateways use: the account at the store, and the same one for clients.
    fn write_accounts(&self, stand: &Stand) -> Result<()> {
        let account = &stand.account;
        let keys = format!(
            "access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
            account.access_key_id, account.secret
        );
        write_private(&self.dir.join("upstream.toml"), &keys)?;
        let everything = "[[key.allow]]\nbuckets = [\"*\"]\nactions = [\"read\", \"write\", \"delete\", \"list\", \"manage\"]\n";
        write_private(&self.dir.join("credentials.toml"), &format!("[[key]]\n{keys}{everything}"))
    }

    pub(super) fn enrol(&self, name: &str) -> Result<()> {
        let proposed = run(&mut self.command(&format!("keys gateway enrol {name} --keyset default")))?;
        let Some(id) = proposed.split_ascii_whitespace().nth(2) else { bail!("no proposal: {proposed}") };
        let id = id.trim_end_matches(',');
        run(&mut self.command(&format!("keys approve {id} --identity second-operator")))?;
        run(&mut self.command(&format!("keys collect {id} --token-file {name}.token")))?;
        run(&mut self.command(&format!("gateway enrol --token-file {name}.token --state-dir {name}")))?;
        Ok(())
    }

    fn write_config(&self, stand: &Stand, name: &str, store: &str, port: u16, health: u16) -> Result<()> {
        let files = stand.dir.display();
        let is_tls = store.starts_with("https");
        let tls = if is_tls {
            format!("[tls]\ncertificate_file = \"{files}/server.pem\"\nkey_file = \"{files}/server.key\"\n")
        } else {
            String::new()
        };
        let trust = match &stand.store_ca {
            Some(ca) if is_tls => format!("ca_file = \"{}\"\n", ca.display()),
            _ => String::new(),
        };
        let config = format!(
            "listen = \"127.0.0.1:{port}\"\ncredentials_file = \"credentials.toml\"\nregion = \"{region}\"\n{tls}[upstream]\n\
             endpoint = \"{store}\"\nregion = \"{region}\"\ncredentials_file = \"upstream.toml\"\n{trust}[key_service]\n\
             endpoint = \"https://127.0.0.1:{keys}\"\nstate_dir = \"{name}\"\n[system_area]\nbucket = \"{system}\"\n\
             [admin]\nlisten = \"127.0.0.1:{health}\"\n[limits]\nconcurrent_requests_max = {REQUESTS_MAX}\n",
            region = stand.account.region,
            keys = self.key_service_port,
            system = self.bucket(stand, "system"),
        );
        write_private(&self.dir.join(format!("{name}.toml")), &config)
    }
}

fn is_ready(port: u16) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return false };
    let asked = stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}
