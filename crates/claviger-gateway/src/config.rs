//! The gateway's configuration: one TOML file, typed at the edge.
//!
//! Every field has its default written beside it; `deploy/gateway.toml` shows them all, and a test loads that
//! file. Unknown fields are refused, relative paths count from the folder of the configuration file, and a path
//! may start with `$CREDENTIALS_DIRECTORY/` (systemd's credential directory). No field turns a protection off.
//!
//! [`Config::load`] reads and judges the file alone. [`Config::check`] also opens what it names (certificates,
//! credentials) and says everything that is wrong at once, for `claviger gateway --check`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::authz::Glob;

mod check;
mod problem;

pub(crate) use check::is_host;
pub(crate) use problem::line_at;
pub use problem::{ConfigError, Problem, Severity};

/// The whole configuration of a gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address that S3 clients connect to, for example `127.0.0.1:9000`. Port 0 takes a free one.
    pub listen: SocketAddr,

    /// Certificate for clients' connections. Without it clients speak plain HTTP, which belongs on loopback only.
    pub tls: Option<TlsConfig>,

    /// Base domains for virtual-host addressing: with `s3.example.org` here, a request for the host
    /// `bkt.s3.example.org` is one for the bucket `bkt`. Default: none, path style only.
    #[serde(default)]
    pub virtual_hosts: Vec<String>,

    /// Names (`host` or `host:port`) under which clients know this endpoint where a load balancer puts another `Host`
    /// into the requests that it passes on: a signature may cover one of these in place of the name that arrives. No
    /// other header is ever taken for the host. Default: none.
    #[serde(default)]
    pub host_aliases: Vec<String>,

    /// Region that clients sign for and that GetBucketLocation tells. Default: the upstream's region.
    pub region: Option<String>,

    /// Clients' access keys and what each may do (see [`crate::credentials`]); mode 0600, re-read when it changes.
    pub credentials_file: PathBuf,

    /// The store that keeps the ciphertext.
    pub upstream: UpstreamConfig,

    /// The service that holds the keys.
    pub key_service: KeyServiceConfig,

    /// Where epoch records and upload tokens lie (docs/format.md §2.5).
    #[serde(default)]
    pub system_area: SystemAreaConfig,

    /// Which buckets' objects may have tags; the first entry that names a bucket counts. Default: none, tags are refused.
    #[serde(default)]
    pub tags: Vec<TagsConfig>,

    /// Bounds on connections, requests, memory and waiting.
    #[serde(default)]
    pub limits: LimitsConfig,

    /// Listener for health and metrics. Default: none.
    pub admin: Option<AdminConfig>,

    /// Where this configuration was read from; empty for one built in code.
    #[serde(skip)]
    pub source: PathBuf,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The chain, leaf first.
    pub certificate_file: PathBuf,
    /// The private key (PKCS#8, PKCS#1 or SEC 1); mode 0600.
    pub key_file: PathBuf,
}

/// How to reach and sign for the store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// `https://host[:port]` or `http://host[:port]`, without a path.
    pub endpoint: String,

    /// Region that requests to the store are signed for. Default: `us-east-1`.
    #[serde(default = "default_region")]
    pub region: String,

    /// Whether the bucket goes into the path or into the host name. Default: `path`.
    #[serde(default)]
    pub addressing: Addressing,

    /// TOML file with `access_key_id` and `secret_access_key` (optional `session_token`) of the gateway's account at the
    /// store, and of further ones that access keys can be mapped to (`[[account]]`); mode 0600, read at start.
    pub credentials_file: PathBuf,

    /// PEM file of the authorities that sign the store's certificate. Default: the system's own.
    pub ca_file: Option<PathBuf>,

    /// What kind of store it is ([`crate::profile`]). Default: `generic`.
    #[serde(default)]
    pub profile: UpstreamProfile,

    /// Bytes of user metadata (names and values) that the store takes; docs/format.md §5.2. Default: 2048.
    #[serde(default = "default_metadata_bytes_max")]
    pub metadata_bytes_max: usize,

    /// Seconds for TCP and TLS to the store. Default: 10.
    #[serde(default = "default_connect_timeout_s")]
    pub connect_timeout_s: u64,

    /// Seconds from the end of a request's body to the first byte of the store's answer. Default: 120.
    #[serde(default = "default_response_timeout_s")]
    pub response_timeout_s: u64,

    /// Seconds without one byte in either direction before a transfer with the store is given up. Default: 60.
    #[serde(default = "default_upstream_body_idle_timeout_s")]
    pub body_idle_timeout_s: u64,

    /// Seconds that an unused connection is kept. Default: 30 (stores close theirs after 60 and more).
    #[serde(default = "default_pool_idle_timeout_s")]
    pub pool_idle_timeout_s: u64,

    /// Unused connections kept at most. Default: 1024, twice `limits.concurrent_requests_max`: with fewer than there are requests at
    /// once, the rest make a connection each time.
    #[serde(default = "default_pool_idle_max")]
    pub pool_idle_max: usize,
}

/// Where the bucket's name goes in a request to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressing {
    /// `https://host/bucket/key`.
    #[default]
    Path,
    /// `https://bucket.host/key`.
    Virtual,
}

/// Kinds of stores whose behaviour differs where it matters; [`crate::profile`] says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamProfile {
    /// Only what every S3 store understands.
    #[default]
    Generic,
    /// Amazon S3.
    Aws,
    /// Ceph RADOS Gateway.
    #[serde(alias = "ceph")]
    CephRgw,
    /// Garage.
    Garage,
    /// MinIO and compatible.
    Minio,
    /// Google Cloud Storage, its XML API with HMAC keys.
    Gcs,
    /// OVHcloud Object Storage.
    Ovhcloud,
    /// Cloudflare R2.
    R2,
    /// Backblaze B2, its S3-compatible API.
    B2,
    /// Wasabi.
    Wasabi,
    /// The provider embedded in `claviger demo`.
    Embedded,
}

impl UpstreamProfile {
    /// How many there are.
    pub const COUNT: usize = Self::Embedded as usize + 1;
}

/// How to reach the key service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyServiceConfig {
    /// `https://host:port` of the key service; a list where it can be reached at several, one at a time. A name with several
    /// addresses counts as all of them.
    pub endpoint: Endpoints,

    /// Folder of this gateway's identity (its private key, certificate and the service's CA), written by
    /// `claviger gateway enrol`; mode 0700.
    pub state_dir: PathBuf,
}

/// One URL or a list of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Endpoints {
    /// One.
    One(String),
    /// Several, tried in this order.
    Several(Vec<String>),
}

impl Endpoints {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(list) => list,
        }
    }
}

impl KeyServiceConfig {
    /// `host:port` of each endpoint, divided by commas; the port is 443 where none is written.
    #[must_use]
    pub fn address(&self) -> String {
        let addresses = self.endpoint.all().iter().map(|endpoint| {
            let authority = endpoint.trim_start_matches("https://").trim_end_matches('/');
            let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            if has_port { authority.to_owned() } else { format!("{authority}:443") }
        });
        addresses.collect::<Vec<_>>().join(",")
    }
}

/// Where Claviger keeps its own objects at the store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemAreaConfig {
    /// A bucket of its own at the store, hidden from clients. Default: `claviger-system`.
    #[serde(default = "default_system_bucket")]
    pub bucket: String,
}

/// Whether the objects of some buckets may have tags.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagsConfig {
    /// Names of buckets; `*` stands for any run of characters, `?` for one.
    pub buckets: Vec<String>,
    /// What becomes of tags.
    pub mode: TagMode,
}

/// What becomes of the tags of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TagMode {
    /// A request that brings any is refused; reading them answers none.
    Refused,
    /// They go to the store in clear, so that its rules by tags work: declared leakage.
    Plain,
}

/// Bounds on connections, requests, memory and waiting.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Requests in flight; the next is answered 503 SlowDown. An eighth of them, at least one, may be without a signature,
    /// and another eighth forms whose fields are still coming. Default: 512.
    pub concurrent_requests_max: usize,
    /// Open client connections; the next waits in the kernel's queue. Default: 4096.
    pub concurrent_connections_max: usize,
    /// Bytes of object data and documents held in memory by all requests together; who finds none free for 10 seconds is
    /// answered 503 SlowDown. Default: 536870912 (512 MiB).
    pub buffered_bytes_max: usize,
    /// Bytes of a request's line and headers. Default: 65536, at least 8192.
    pub header_bytes_max: usize,
    /// Seconds for a client to send its headers; the fields of a form, which say who signed it (10 at most); a body that is
    /// held in memory, of a client that did not sign; and for an idle connection to send the next request. Default: 60.
    pub header_read_timeout_s: u64,
    /// Seconds without one byte before a client's transfer is given up; a slow transfer that moves is never
    /// ended. Default: 60.
    pub body_idle_timeout_s: u64,
    /// Seconds that running requests get to finish when the gateway is told to stop. Default: 30.
    pub drain_timeout_s: u64,
}

/// The listener for operators: `/health/live`, `/health/ready`, `/metrics`. It has no authentication.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Its address, for example `127.0.0.1:9001`.
    pub listen: SocketAddr,
}

impl Config {
    /// Reads and judges the file at `path`; nothing that it names is opened.
    ///
    /// # Errors
    /// Everything that is wrong with the file, each with its line and the remedy.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError::unreadable(path, &e))?;
        Self::parse(&text, path)
    }

    /// [`Config::load`] for text in hand; `path` is where it came from.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Config = toml::from_str(text).map_err(|e| ConfigError::syntax(path, text, &e))?;
        config.source = path.to_path_buf();
        let errors: Vec<Problem> = check::values(&config, text, path)
            .into_iter()
            .filter(|problem| problem.severity == Severity::Error)
            .collect();
        if !errors.is_empty() {
            return Err(ConfigError { problems: errors });
        }
        config.resolve_paths(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Opens everything that the configuration names and lists what is wrong or doubtful; empty means all well.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        let text = std::fs::read_to_string(&self.source).unwrap_or_default();
        let mut problems = check::values(self, &text, &self.source);
        problems.extend(check::files(self, &text));
        problems
    }

    /// What becomes of the tags of a bucket's objects.
    #[must_use]
    pub fn tag_mode(&self, bucket: &str) -> TagMode {
        let names = |entry: &&TagsConfig| entry.buckets.iter().any(|glob| Glob::new(glob).matches(bucket));
        self.tags.iter().find(names).map_or(TagMode::Refused, |entry| entry.mode)
    }

    /// The region that clients see.
    #[must_use]
    pub fn region(&self) -> &str {
        self.region.as_deref().unwrap_or(&self.upstream.region)
    }

    fn resolve_paths(&mut self, folder: &Path) {
        let mut paths = vec![
            &mut self.credentials_file,
            &mut self.upstream.credentials_file,
            &mut self.key_service.state_dir,
        ];
        paths.extend(self.upstream.ca_file.as_mut());
        if let Some(tls) = &mut self.tls {
            paths.extend([&mut tls.certificate_file, &mut tls.key_file]);
        }
        for path in paths {
            *path = resolve(path, folder);
        }
    }
}

/// `$CREDENTIALS_DIRECTORY/x` becomes the file in systemd's credential directory, a relative path one in `folder`.
pub(crate) fn resolve(path: &Path, folder: &Path) -> PathBuf {
    if let Ok(rest) = path.strip_prefix("$CREDENTIALS_DIRECTORY")
        && let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY")
    {
        return Path::new(&directory).join(rest);
    }
    folder.join(path)
}

impl Default for SystemAreaConfig {
    fn default() -> Self {
        Self { bucket: default_system_bucket() }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            concurrent_requests_max: 512,
            concurrent_connections_max: 4096,
            buffered_bytes_max: 512 << 20,
            header_bytes_max: 64 << 10,
            header_read_timeout_s: 60,
            body_idle_timeout_s: 60,
            drain_timeout_s: 30,
        }
    }
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_system_bucket() -> String {
    "claviger-system".to_owned()
}

const fn default_metadata_bytes_max() -> usize {
    2048
}

const fn default_connect_timeout_s() -> u64 {
    10
}

const fn default_response_timeout_s() -> u64 {
    120
}

const fn default_upstream_body_idle_timeout_s() -> u64 {
    60
}

const fn default_pool_idle_timeout_s() -> u64 {
    30
}

const fn default_pool_idle_max() -> usize {
    1024
}

impl UpstreamConfig {
    /// An upstream with every default, for configurations built in code.
    #[must_use]
    pub fn new(endpoint: String, credentials_file: PathBuf) -> Self {
        Self {
            endpoint,
            region: default_region(),
            addressing: Addressing::default(),
            credentials_file,
            ca_file: None,
            profile: UpstreamProfile::default(),
            metadata_bytes_max: default_metadata_bytes_max(),
            connect_timeout_s: default_connect_timeout_s(),
            response_timeout_s: default_response_timeout_s(),
            body_idle_timeout_s: default_upstream_body_idle_timeout_s(),
            pool_idle_timeout_s: default_pool_idle_timeout_s(),
            pool_idle_max: default_pool_idle_max(),
        }
    }
}

#[cfg(test)]
mod tests;
