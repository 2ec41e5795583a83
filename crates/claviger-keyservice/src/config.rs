//! `keyservice.toml`: typed at the edge, unknown keys refused. deploy/keyservice.toml is the commented example.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::ServiceError;
use crate::custody::unlock::hsm::HsmConfig;
use crate::store::location::Location;
use crate::store::postgres::RawPostgres;
use crate::toml_file::TomlFile;

/// Longest lease (docs/format.md §2.7).
pub const LEASE_TTL_S_MAX: u32 = 900;

/// How the service gets at its master secret after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unlock {
    /// From `passphrase_file`, by itself.
    PassphraseFile,
    /// From an operator, by `claviger keys unlock`.
    Operator,
    /// From the holders of unlock shares, by `claviger keys unlock --share`.
    Quorum,
    /// From an HSM, by itself.
    Pkcs11,
}

/// Everything the service is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Database, audit log, and the key it shows while locked.
    pub state_dir: PathBuf,
    /// Where gateways and operators connect.
    pub listen: SocketAddr,
    /// `host:port` that stands in enrolment tokens.
    pub advertise: String,
    /// Health and metrics; loopback only.
    pub admin_listen: Option<SocketAddr>,
    /// A socket in the file system, for operators on this machine: nobody in the network can hold it.
    pub admin_socket: Option<PathBuf>,
    /// The policy file that a state folder of a release before is taken over with. Otherwise the policy lies in the database.
    pub policy: Option<PathBuf>,
    /// How it is unlocked.
    pub unlock: Unlock,
    /// For [`Unlock::PassphraseFile`].
    pub passphrase_file: Option<PathBuf>,
    /// Where the service keeps the newest checkpoint of its audit log, apart from `state_dir` and its backups: at unlock it shows
    /// whether these were put back to an earlier day.
    pub checkpoint_file: PathBuf,
    /// Where the database is.
    pub store: Location,
    /// For [`Unlock::Pkcs11`].
    pub pkcs11: Option<HsmConfig>,
    /// Lifetimes and bounds.
    pub limits: Limits,
}

/// Lifetimes and bounds; each has a default.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Life of a leased WEK, 1 to 900 s.
    pub lease_ttl_s: u32,
    /// How long gateways may use a bucket binding; also how long a deleted bucket's name stays closed, 1 to 300 s.
    pub binding_ttl_s: u32,
    /// How long a DEK may be cached, 1 to 900 s.
    pub derive_ttl_s: u32,
    /// How often gateways ask for their session, 30 to 3,600 s.
    pub session_ttl_s: u32,
    /// Connections at once.
    pub connections_max: usize,
    /// Time for one request, 1 to 300 s.
    pub request_timeout_s: u32,
    /// Size at which the audit log begins a new file, in bytes.
    pub audit_file_len_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease_ttl_s: 300,
            binding_ttl_s: 30,
            derive_ttl_s: 60,
            session_ttl_s: 600,
            connections_max: 1024,
            request_timeout_s: 30,
            audit_file_len_max: 256 << 20,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    state_dir: PathBuf,
    listen: SocketAddr,
    advertise: Option<Spanned<String>>,
    admin_listen: Option<Spanned<SocketAddr>>,
    admin_socket: Option<PathBuf>,
    policy: Option<PathBuf>,
    unlock: Spanned<Unlock>,
    passphrase_file: Option<PathBuf>,
    checkpoint_file: Option<Spanned<PathBuf>>,
    store: Option<Spanned<RawStore>>,
    pkcs11: Option<HsmConfig>,
    limits: Option<Spanned<Limits>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStore {
    postgres: RawPostgres,
}

impl Config {
    /// Where the audit log lies.
    #[must_use]
    pub fn audit_folder(&self) -> PathBuf {
        self.state_dir.join("audit")
    }

    /// Reads and checks a file; relative paths in it count from the file's folder.
    ///
    /// # Errors
    /// [`ServiceError::Config`] with line and remedy; [`ServiceError::Io`].
    pub fn load(path: &Path) -> Result<Self, ServiceError> {
        let text = std::fs::read_to_string(path).map_err(|e| ServiceError::io(path, e))?;
        Self::parse(path, &text)
    }

    /// The same from text that was read already; `path` is for messages and relative paths.
    ///
    /// # Errors
    /// [`ServiceError::Config`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ServiceError> {
        let file = TomlFile { path, text };
        let raw: Raw = file.parse("see deploy/keyservice.toml for every key with its meaning")?;
        check(&file, &raw)?;
        let folder = crate::files::parent(path);
        let store = location(&file, raw.store, folder)?;
        let state_dir = folder.join(raw.state_dir);
        let checkpoint_file = checkpoint_file(&file, raw.checkpoint_file, folder, &state_dir)?;
        Ok(Self {
            state_dir,
            listen: raw.listen,
            advertise: raw.advertise.map_or_else(|| raw.listen.to_string(), Spanned::into_inner),
            admin_listen: raw.admin_listen.map(Spanned::into_inner),
            admin_socket: raw.admin_socket.map(|p| folder.join(p)),
            policy: raw.policy.map(|p| folder.join(p)),
            unlock: raw.unlock.into_inner(),
            passphrase_file: raw.passphrase_file.map(|p| folder.join(p)),
            checkpoint_file,
            store,
            pkcs11: raw.pkcs11.map(|hsm| HsmConfig {
                module: folder.join(hsm.module),
                pin_file: folder.join(hsm.pin_file),
                ..hsm
            }),
            limits: raw.limits.map(Spanned::into_inner).unwrap_or_default(),
        })
    }
}

/// Beside the state folder, unless said otherwise; never in it.
fn checkpoint_file(
    file: &TomlFile<'_>,
    chosen: Option<Spanned<PathBuf>>,
    folder: &Path,
    state_dir: &Path,
) -> Result<PathBuf, ServiceError> {
    let Some(chosen) = chosen else {
        let mut name = state_dir.components().as_path().as_os_str().to_owned();
        name.push(".checkpoint");
        return Ok(name.into());
    };
    let span = chosen.span();
    let path = folder.join(chosen.into_inner());
    if path.starts_with(state_dir) {
        let text =
            "checkpoint_file lies in state_dir: whoever puts that back to an earlier day puts it back too";
        return Err(file.wrong(span, text, "a file elsewhere, best on another disk or machine"));
    }
    Ok(path)
}

fn location(
    file: &TomlFile<'_>,
    store: Option<Spanned<RawStore>>,
    folder: &Path,
) -> Result<Location, ServiceError> {
    let Some(store) = store else { return Ok(Location::Sqlite) };
    let span = store.span();
    let checked = store.into_inner().postgres.check(folder);
    checked.map(Location::Postgres).map_err(|(text, remedy)| file.wrong(span, text, remedy))
}

fn check(file: &TomlFile<'_>, raw: &Raw) -> Result<(), ServiceError> {
    if *raw.unlock.get_ref() == Unlock::PassphraseFile && raw.passphrase_file.is_none() {
        return Err(file.wrong(
            raw.unlock.span(),
            "unlock = \"passphrase-file\" without passphrase_file",
            "add passphrase_file = \"…\", or unlock = \"operator\" and `claviger keys unlock` after each start",
        ));
    }
    if *raw.unlock.get_ref() == Unlock::Pkcs11 && raw.pkcs11.is_none() {
        return Err(file.wrong(
            raw.unlock.span(),
            "unlock = \"pkcs11\" without a table [pkcs11]",
            "add [pkcs11] with module, token, key and pin_file, as in deploy/keyservice.toml",
        ));
    }
    if let Some(admin) = &raw.admin_listen
        && !admin.get_ref().ip().is_loopback()
    {
        return Err(file.wrong(
            admin.span(),
            "admin_listen is not a loopback address; health and metrics are served without authentication",
            "use 127.0.0.1:PORT and let a local agent collect them",
        ));
    }
    if let Some(advertise) = &raw.advertise
        && !advertise
            .get_ref()
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    {
        return Err(file.wrong(
            advertise.span(),
            "advertise is not host:port",
            "for example \"keys.example.net:7443\"",
        ));
    }
    if advertised_is_nowhere(raw) {
        return Err(file.wrong(
            0..0,
            "listen is a wildcard address and advertise is missing: enrolment tokens would carry no usable address",
            "add advertise = \"HOST:PORT\"",
        ));
    }
    raw.limits.as_ref().map_or(Ok(()), |limits| check_limits(file, limits))
}

fn advertised_is_nowhere(raw: &Raw) -> bool {
    raw.advertise.is_none() && raw.listen.ip().is_unspecified()
}

fn check_limits(file: &TomlFile<'_>, limits: &Spanned<Limits>) -> Result<(), ServiceError> {
    let values = limits.get_ref();
    let ranges = [
        ("lease_ttl_s", values.lease_ttl_s, 1..=LEASE_TTL_S_MAX),
        ("binding_ttl_s", values.binding_ttl_s, 1..=300),
        ("derive_ttl_s", values.derive_ttl_s, 1..=LEASE_TTL_S_MAX),
        ("session_ttl_s", values.session_ttl_s, 30..=3_600),
        ("request_timeout_s", values.request_timeout_s, 1..=300),
    ];
    for (name, value, range) in ranges {
        if !range.contains(&value) {
            let remedy = format!("a number from {} to {}", range.start(), range.end());
            return Err(file.wrong(limits.span(), &format!("limits.{name} = {value}"), &remedy));
        }
    }
    if values.connections_max == 0 || values.audit_file_len_max < 1 << 20 {
        return Err(file.wrong(
            limits.span(),
            "connections_max is 0 or audit_file_len_max below 1 MiB",
            "leave both out for the defaults",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "state_dir = \"state\"\nlisten = \"127.0.0.1:7443\"\npolicy = \"policy.toml\"\nunlock = \"operator\"\n";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/claviger/keyservice.toml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn relative_paths_count_from_the_file() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.state_dir, Path::new("/etc/claviger/state"));
        assert_eq!(config.checkpoint_file, Path::new("/etc/claviger/state.checkpoint"));
        assert_eq!(config.advertise, "127.0.0.1:7443");
        assert_eq!(config.limits.binding_ttl_s, 30);
    }

    #[test]
    fn mistakes_name_their_line_and_a_remedy() {
        let cases = [
            (format!("{GOOD}colour = 1\n"), ":5: unknown field"),
            (GOOD.replace("operator", "passphrase-file"), ":4: unlock = \"passphrase-file\" without"),
            (GOOD.replace("operator", "pkcs11"), ":4: unlock = \"pkcs11\" without"),
            (format!("{GOOD}admin_listen = \"0.0.0.0:1\"\n"), ":5: admin_listen is not a loopback"),
            (format!("{GOOD}advertise = \"nowhere\"\n"), ":5: advertise is not host:port"),
            (format!("{GOOD}[limits]\nlease_ttl_s = 901\n"), ": limits.lease_ttl_s = 901"),
            (GOOD.replace("127.0.0.1", "0.0.0.0"), "advertise is missing"),
            (GOOD.replace("listen", "listens"), "listens"),
            (format!("{GOOD}checkpoint_file = \"state/c\"\n"), ":5: checkpoint_file lies in state_dir"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected) && error.contains("remedy: "), "{error}");
        }
    }

    #[test]
    fn the_shipped_example_is_valid() {
        let example = include_str!("../../../deploy/keyservice.toml");
        Config::parse(Path::new("/etc/claviger/keyservice.toml"), example).unwrap();
    }
}
