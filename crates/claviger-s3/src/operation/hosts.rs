//! Virtual-host style addressing: which part of the host name is a bucket.

/// The domains below which the first labels of the host name are a bucket.
#[derive(Debug, Clone, Default)]
pub struct VirtualHosts {
    suffixes: Vec<String>,
}

impl VirtualHosts {
    /// Takes base domains such as `s3.example.org` (no port, no leading dot; case does not matter).
    pub fn new<S: AsRef<str>>(base_domains: impl IntoIterator<Item = S>) -> Self {
        let suffix = |domain: S| format!(".{}", domain.as_ref().trim_matches('.').to_ascii_lowercase());
        let mut suffixes: Vec<String> = base_domains.into_iter().map(suffix).collect();
        suffixes.sort_by_key(|suffix| std::cmp::Reverse(suffix.len()));
        Self { suffixes }
    }

    /// The bucket in a host name with or without port; `None` when the request is in path style. The longest base
    /// domain wins.
    pub fn bucket_of(&self, host: &str) -> Option<String> {
        let name = host_name(host);
        if self.suffixes.iter().any(|suffix| suffix[1..] == name) {
            return None;
        }
        let bucket = self.suffixes.iter().find_map(|suffix| name.strip_suffix(suffix.as_str()))?;
        (!bucket.is_empty()).then(|| bucket.to_owned())
    }

    /// Whether a host name, with or without port, is a base domain or lies below one.
    pub fn include(&self, host: &str) -> bool {
        let name = host_name(host);
        self.suffixes.iter().any(|suffix| name == suffix[1..] || name.ends_with(suffix.as_str()))
    }
}

/// The name in a `Host`: without port and final dot, in lower case.
pub fn host_name(host: &str) -> String {
    without_port(host).trim_end_matches('.').to_ascii_lowercase()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_what_precedes_the_longest_base_domain() {
        let hosts = VirtualHosts::new(["s3.example.org", "eu.s3.example.org."]);
        assert_eq!(hosts.bucket_of("b.s3.example.org").as_deref(), Some("b"));
        assert_eq!(hosts.bucket_of("B.S3.Example.Org:9000").as_deref(), Some("b"));
        assert_eq!(hosts.bucket_of("a.b.eu.s3.example.org").as_deref(), Some("a.b"));
        for host in ["s3.example.org", "example.org", "xs3.example.org", "127.0.0.1:9000", "[::1]:9000", ""] {
            assert_eq!(hosts.bucket_of(host), None, "{host}");
        }
        assert_eq!(VirtualHosts::default().bucket_of("b.s3.example.org"), None);
    }

    #[test]
    fn base_domains_include_themselves_and_what_is_below() {
        let hosts = VirtualHosts::new(["s3.example.org"]);
        for host in ["s3.example.org", "S3.Example.Org:9000", "b.s3.example.org.", "a.b.s3.example.org:1"] {
            assert!(hosts.include(host), "{host}");
        }
        for host in ["xs3.example.org", "example.org", "s3.example.org.evil", "127.0.0.1", ""] {
            assert!(!hosts.include(host), "{host}");
        }
        assert!(!VirtualHosts::default().include(""));
    }

    #[test]
    fn a_base_domain_is_itself_no_bucket_of_a_shorter_one() {
        let hosts = VirtualHosts::new(["s3.example.org", "eu.s3.example.org"]);
        assert_eq!(hosts.bucket_of("eu.s3.example.org:443"), None);
    }
}
