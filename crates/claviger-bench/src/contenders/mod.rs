//! Who is measured: the store itself, nginx before it, Claviger before it, and whom the user names.

mod claviger;
mod nginx;
mod null_store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cases::Scheme;
use crate::load::target::{Account, Place, Target};
use crate::options::{Place as UserPlace, Who};
use crate::process::Process;
use crate::{cases, tls};

/// The name of the store without anything before it.
pub(crate) const DIRECT: &str = "direct";
/// The plain proxy.
pub(crate) const NGINX: &str = "nginx";
/// The one that the report is about.
pub(crate) const CLAVIGER: &str = "claviger";

/// One of them.
pub(crate) struct Contender {
    pub(crate) name: String,
    http: Option<Side>,
    tls: Option<Side>,
    /// From the start of the process to the first answer.
    pub(crate) startup: Option<Duration>,
    /// What it needs besides what is measured.
    _helpers: Vec<Process>,
}

/// The contenders, and the store that they stand before.
pub(crate) struct Field {
    pub(crate) contenders: Vec<Contender>,
    claviger: claviger::Setup,
    stand: Stand,
}

/// Starts the store and everybody before it.
pub(crate) fn start(who: &Who, place: &UserPlace, dir: &Path) -> Result<Field> {
    let stand = Stand::new(who, place, dir)?;
    let mut contenders = vec![stand.direct()?];
    if !who.without_nginx {
        contenders.push(nginx::start(&stand)?);
    }
    let (contender, claviger) = claviger::start(&stand, CLAVIGER, &who.claviger)?;
    contenders.push(contender);
    for named in &who.beside {
        let (name, program) = named.split_once('=').context("--beside wants NAME=FILE")?;
        contenders.push(claviger::start(&stand, name, Path::new(program))?.0);
    }
    for named in &place.also {
        contenders.push(stand.also(named)?);
    }
    Ok(Field { contenders, claviger, stand })
}

impl Field {
    /// The contender of this name over TLS on both sides.
    pub(crate) fn secure(&self, name: &str) -> Option<&Side> {
        self.contenders.iter().find(|contender| contender.name == name)?.side(Scheme::Tls)
    }

    /// Enrols one of [`WRITERS`] further gateways.
    pub(crate) fn enrol_writer(&self, number: usize) -> Result<()> {
        self.claviger.enrol(&writer(number))
    }

    /// Starts it; it writes where [`CLAVIGER`] reads, and ends when it is dropped.
    pub(crate) fn start_writer(&self, number: usize) -> Result<Side> {
        let store = self.stand.https.as_deref().context("no store over TLS")?;
        let (name, owner) = (writer(number), self.claviger.owner(claviger::SECURE));
        Ok(self.claviger.start_gateway(&self.stand, &name, store, &owner)?.0)
    }
}

/// Gateways that only begin epochs.
pub(crate) const WRITERS: usize = 4;

fn writer(number: usize) -> String {
    format!("writer-{number}")
}

/// A contender over one scheme.
pub(crate) struct Side {
    pub(crate) target: Arc<Target>,
    /// None for what runs elsewhere.
    pub(crate) process: Option<Arc<Process>>,
}

impl Contender {
    pub(crate) fn side(&self, scheme: Scheme) -> Option<&Side> {
        match scheme {
            Scheme::Http => self.http.as_ref(),
            Scheme::Tls => self.tls.as_ref(),
        }
    }
}

/// The store and its two addresses, and the folder of everything.
struct Stand {
    dir: PathBuf,
    http: Option<String>,
    https: Option<String>,
    account: Account,
    bucket: String,
    prefix: String,
    client_tls: Arc<rustls::ClientConfig>,
    store_ca: Option<PathBuf>,
    _store: Option<Process>,
}

impl Stand {
    /// Starts the null store, or takes the user's.
    fn new(who: &Who, place: &UserPlace, dir: &Path) -> Result<Self> {
        tls::make(dir)?;
        let client_tls = tls::client(&dir.join("ca.pem"))?;
        let Some(url) = &place.store else {
            let (store, http, https) = null_store::start(dir, who.keep_dir.as_deref(), cases::STORE_LIMIT)?;
            return Ok(Self {
                dir: dir.to_owned(),
                http: Some(http),
                https: Some(https),
                account: Account {
                    access_key_id: "BENCH".to_owned(),
                    secret: "secret-of-the-null-store-0123456789ab".to_owned(),
                    region: "us-east-1".to_owned(),
                },
                bucket: "bench".to_owned(),
                prefix: String::new(),
                client_tls,
                store_ca: Some(dir.join("ca.pem")),
                _store: Some(store),
            });
        };
        let is_tls = url.starts_with("https://");
        Ok(Self {
            dir: dir.to_owned(),
            http: (!is_tls).then(|| url.clone()),
            https: is_tls.then(|| url.clone()),
            account: account(place)?,
            bucket: place.bucket.clone(),
            prefix: "claviger-bench/".to_owned(),
            client_tls,
            store_ca: None,
            _store: None,
        })
    }

    fn target(&self, endpoint: &str, bucket: &str, owner: &str) -> Result<Arc<Target>> {
        let place = Place { bucket: bucket.to_owned(), owner: owner.to_owned(), prefix: self.prefix.clone() };
        Ok(Arc::new(Target::new(endpoint, &self.client_tls, &self.account, place)?))
    }

    /// The store itself.
    fn direct(&self) -> Result<Contender> {
        let side = |endpoint: &Option<String>| -> Result<Option<Side>> {
            let Some(endpoint) = endpoint else { return Ok(None) };
            Ok(Some(Side { target: self.target(endpoint, &self.bucket, DIRECT)?, process: None }))
        };
        Ok(Contender {
            name: DIRECT.to_owned(),
            http: side(&self.http)?,
            tls: side(&self.https)?,
            startup: None,
            _helpers: Vec::new(),
        })
    }

    /// Another endpoint before the same store, `NAME=URL`.
    fn also(&self, named: &str) -> Result<Contender> {
        let (name, url) = named.split_once('=').context("--also wants NAME=URL")?;
        let side = Side { target: self.target(url, &self.bucket, name)?, process: None };
        let (http, tls) = if url.starts_with("https://") { (None, Some(side)) } else { (Some(side), None) };
        Ok(Contender { name: name.to_owned(), http, tls, startup: None, _helpers: Vec::new() })
    }
}

fn account(place: &UserPlace) -> Result<Account> {
    let given = place.credentials.as_deref().context("--store wants --credentials")?;
    let text = match std::fs::read_to_string(given) {
        Ok(text) => text,
        Err(_) => given.to_owned(),
    };
    let Some((access_key_id, secret)) = text.trim().split_once(':') else {
        bail!("--credentials wants ID:SECRET, or a file that holds it");
    };
    let region = place.region.clone();
    Ok(Account { access_key_id: access_key_id.to_owned(), secret: secret.to_owned(), region })
}

/// A port of loopback that is free, and stays so: below those that systems take for outgoing connections, of which a load makes many,
/// and another one at each call, until all have had their turn.
fn free_port() -> Result<u16> {
    const COUNT: u16 = 12_000;
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let next = |_| 20_000 + CALLS.fetch_add(1, Ordering::Relaxed) % COUNT;
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..COUNT).map(next).find(is_free).context("all ports from 20000 to 32000 are in use")
}

fn accepts(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_given_twice_nor_those_of_outgoing_connections_nor_ones_in_use() {
        let next = free_port().unwrap() + 1;
        let taken = std::net::TcpListener::bind(("127.0.0.1", next));
        let given: Vec<u16> = (0..100).map(|_| free_port().unwrap()).collect();
        assert!(given.windows(2).all(|two| two[0] < two[1]), "{given:?}");
        assert!(given.iter().all(|port| (20_000..32_000).contains(port)));
        assert!(!given.contains(&next), "{taken:?}");
    }
}
