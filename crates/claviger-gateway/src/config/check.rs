//! The judgement of a configuration: its values, and the files that it names.

use std::path::Path;

use super::problem::line_of;
use super::{Config, Problem, Severity, UpstreamConfig};
use crate::credentials::{CredentialStore, CredentialsError, UpstreamAccounts};
use crate::profile::Profile;
use crate::server;

/// Collects problems, looking up the line of each setting.
struct Findings<'a> {
    text: &'a str,
    file: &'a Path,
    problems: Vec<Problem>,
}

impl Findings<'_> {
    fn add(&mut self, severity: Severity, (section, key): (&str, &str), what: String, remedy: &str) {
        self.problems.push(Problem {
            severity,
            file: self.file.to_path_buf(),
            line: line_of(self.text, section, key),
            what,
            remedy: remedy.to_owned(),
        });
    }

    fn error(&mut self, at: (&str, &str), what: String, remedy: &str) {
        self.add(Severity::Error, at, what, remedy);
    }

    fn warning(&mut self, at: (&str, &str), what: String, remedy: &str) {
        self.add(Severity::Warning, at, what, remedy);
    }
}

/// Judges the values alone.
pub(super) fn values(config: &Config, text: &str, file: &Path) -> Vec<Problem> {
    let mut findings = Findings { text, file, problems: Vec::new() };
    front(config, &mut findings);
    upstream(config, &mut findings);
    key_service(config, &mut findings);
    tags(config, &mut findings);
    limits(config, &mut findings);
    findings.problems
}

fn tags(config: &Config, findings: &mut Findings<'_>) {
    if config.tags.iter().any(|entry| entry.buckets.iter().all(String::is_empty)) {
        findings.error(
            ("tags", "buckets"),
            "a [[tags]] entry names no bucket".to_owned(),
            "list names of buckets, or \"*\" for all",
        );
    }
}

fn front(config: &Config, findings: &mut Findings<'_>) {
    if config.tls.is_none() && !config.listen.ip().is_loopback() {
        findings.warning(
            ("", "listen"),
            format!("clients' data crosses the network in the clear to {}", config.listen),
            "add a [tls] section, or listen on 127.0.0.1 beside the application",
        );
    }
    for host in &config.virtual_hosts {
        if !is_host(host) {
            findings.error(
                ("", "virtual_hosts"),
                format!("virtual_hosts holds {host:?}, which is not a host name"),
                "give bare domains in lower case, without scheme, port or a leading dot: \"s3.example.org\"",
            );
        }
    }
    for alias in &config.host_aliases {
        let (host, port) = alias.rsplit_once(':').unwrap_or((alias, "443"));
        if !is_host(host) || port.parse::<u16>().is_err() {
            findings.error(
                ("", "host_aliases"),
                format!("host_aliases holds {alias:?}, which is not a host name"),
                "give names as clients write them, in lower case, with the port if they write one: \"s3.example.org:8443\"",
            );
        }
    }
    if let Some(region) = &config.region
        && !is_region(region)
    {
        findings.error(
            ("", "region"),
            format!("region {region:?} is not one that a signature can name"),
            "use letters, digits and dashes, for example \"us-east-1\"",
        );
    }
    if let Some(admin) = &config.admin
        && admin.listen == config.listen
        && admin.listen.port() != 0
    {
        findings.error(
            ("admin", "listen"),
            format!("admin and S3 can't share the address {}", admin.listen),
            "give the admin listener a port of its own",
        );
    }
}

fn upstream(config: &Config, findings: &mut Findings<'_>) {
    let upstream = &config.upstream;
    endpoint(("upstream", "endpoint"), &upstream.endpoint, &["https", "http"], findings);
    if !is_region(&upstream.region) {
        findings.error(
            ("upstream", "region"),
            format!("region {:?} is not one that a signature can name", upstream.region),
            "use the store's own region name, for example \"eu-central-1\"",
        );
    }
    if upstream.ca_file.is_some() && upstream.endpoint.starts_with("http://") {
        findings.error(
            ("upstream", "ca_file"),
            "ca_file is given, but the endpoint is plain http".to_owned(),
            "use an https:// endpoint, or remove ca_file",
        );
    }
    if !(2048..=65_536).contains(&upstream.metadata_bytes_max) {
        findings.error(
            ("upstream", "metadata_bytes_max"),
            format!("metadata_bytes_max is {}, outside 2048 to 65536", upstream.metadata_bytes_max),
            "leave it at 2048 unless the store documents more",
        );
    }
    against_profile(upstream, findings);
    for (key, seconds) in [
        ("connect_timeout_s", upstream.connect_timeout_s),
        ("response_timeout_s", upstream.response_timeout_s),
        ("body_idle_timeout_s", upstream.body_idle_timeout_s),
    ] {
        seconds_at_least_one(("upstream", key), seconds, findings);
    }
    if claviger_s3::BucketName::parse(&config.system_area.bucket).is_err() {
        findings.error(
            ("system_area", "bucket"),
            format!("{:?} is not a bucket name", config.system_area.bucket),
            "use 3 to 63 lower-case letters, digits, dots and dashes",
        );
    }
}

/// What the store's kind does not go along with.
fn against_profile(upstream: &UpstreamConfig, findings: &mut Findings<'_>) {
    let profile = Profile::of(upstream.profile);
    if upstream.metadata_bytes_max > profile.metadata_bytes_max {
        findings.error(
            ("upstream", "metadata_bytes_max"),
            format!(
                "metadata_bytes_max is {}, but {} takes {}",
                upstream.metadata_bytes_max, profile.store, profile.metadata_bytes_max
            ),
            &format!("give at most {}", profile.metadata_bytes_max),
        );
    }
    if !profile.regions.is_empty() && !profile.regions.contains(&upstream.region.as_str()) {
        findings.error(
            ("upstream", "region"),
            format!("{} has no region {:?}", profile.store, upstream.region),
            &format!("use one of {}", profile.regions.join(", ")),
        );
    }
}

/// Each costs a gateway up to 4 s before it tries the next.
const KEY_SERVICE_ENDPOINTS_MAX: usize = 8;

fn key_service(config: &Config, findings: &mut Findings<'_>) {
    let at = ("key_service", "endpoint");
    let endpoints = config.key_service.endpoint.all();
    if endpoints.is_empty() || endpoints.len() > KEY_SERVICE_ENDPOINTS_MAX {
        let what = format!("endpoint lists {} addresses", endpoints.len());
        findings.error(
            at,
            what,
            &format!("list 1 to {KEY_SERVICE_ENDPOINTS_MAX} addresses of the key service"),
        );
    }
    endpoints.iter().for_each(|text| endpoint(at, text, &["https"], findings));
}

fn limits(config: &Config, findings: &mut Findings<'_>) {
    let limits = &config.limits;
    for (key, value, least, most) in [
        ("concurrent_requests_max", limits.concurrent_requests_max, 1, 1 << 20),
        ("concurrent_connections_max", limits.concurrent_connections_max, 1, 1 << 20),
        ("buffered_bytes_max", limits.buffered_bytes_max, 16 << 20, 1 << 40),
        ("header_bytes_max", limits.header_bytes_max, 8192, 256 << 10),
    ] {
        if !(least..=most).contains(&value) {
            findings.error(("limits", key), format!("{key} is {value}"), &format!("give {least} to {most}"));
        }
    }
    seconds_at_least_one(("limits", "header_read_timeout_s"), limits.header_read_timeout_s, findings);
    seconds_at_least_one(("limits", "body_idle_timeout_s"), limits.body_idle_timeout_s, findings);
}

fn seconds_at_least_one(at: (&str, &str), seconds: u64, findings: &mut Findings<'_>) {
    if seconds == 0 {
        findings.error(
            at,
            format!("{} is 0, which would end every transfer at once", at.1),
            "give seconds, at least 1",
        );
    }
}

/// `scheme://host[:port]`, and nothing after it.
fn endpoint(at: (&str, &str), text: &str, schemes: &[&str], findings: &mut Findings<'_>) {
    let remedy = format!("write {}://host or {}://host:port, without a path", schemes[0], schemes[0]);
    let Ok(uri) = text.parse::<http::Uri>() else {
        return findings.error(at, format!("endpoint {text:?} is not a URL"), &remedy);
    };
    let bare = uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if uri.host().is_none() || !bare || has_user {
        return findings.error(at, format!("endpoint {text:?} is not just scheme, host and port"), &remedy);
    }
    if !uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme)) {
        findings.error(
            at,
            format!("endpoint {text:?} does not start with {}://", schemes.join(":// or ")),
            &remedy,
        );
    }
}

/// Whether a text is a bare host name in lower case.
pub(crate) fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

fn is_region(region: &str) -> bool {
    (1..=64).contains(&region.len())
        && region.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Opens the files that the configuration names.
pub(super) fn files(config: &Config, text: &str) -> Vec<Problem> {
    let mut findings = Findings { text, file: &config.source, problems: Vec::new() };
    let accounts = UpstreamAccounts::load(&config.upstream.credentials_file);
    let names = accounts.as_ref().map(UpstreamAccounts::names).unwrap_or_default();
    match CredentialStore::load(&config.credentials_file, names) {
        // Without the file of accounts, every account that a key names would be missing: one mistake, one message.
        Err(CredentialsError::UnknownAccount { .. }) if accounts.is_err() => {}
        Err(error) => findings.error(("", "credentials_file"), error.to_string(), ""),
        Ok(store) if store.is_empty() && store.anonymous().is_none() => findings.warning(
            ("", "credentials_file"),
            "there is no access key, so every request will be refused".to_owned(),
            "add a [[key]]; deploy/credentials.toml is an example",
        ),
        Ok(_) => {}
    }
    if let Err(error) = accounts {
        findings.error(("upstream", "credentials_file"), error.to_string(), "");
    }
    if let Some(tls) = &config.tls
        && let Err(error) = server::tls_config(tls)
    {
        findings.error(("tls", "certificate_file"), error.to_string(), "");
    }
    if let Some(file) = &config.upstream.ca_file
        && let Err(error) = server::read_certificates(file)
    {
        findings.error(("upstream", "ca_file"), error.to_string(), "");
    }
    if !config.key_service.state_dir.is_dir() {
        findings.error(
            ("key_service", "state_dir"),
            format!("{} is not a folder", config.key_service.state_dir.display()),
            "enrol this gateway first: claviger gateway enrol --help",
        );
    }
    findings.problems
}
