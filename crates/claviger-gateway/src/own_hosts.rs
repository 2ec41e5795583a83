//! Under which names a gateway answers requests without a signature.
//!
//! A page of any site can have its own name point to the gateway's address (DNS rebinding): for the browser of somebody who
//! reaches the gateway the two are one origin then, and no rule about origins is asked. But the browser says the page's name in
//! `Host`. So nobody is answered without a signature under a name that is not the gateway's. An address is no name, and
//! `localhost` is nobody else's (RFC 6761 §6.3). A signature covers the host by itself.

use std::net::{IpAddr, Ipv6Addr};

use claviger_s3::{VirtualHosts, host_name};

/// The names that are the gateway's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnHosts<'a> {
    /// Its domains: they and all below them.
    pub domains: &'a VirtualHosts,
    /// What a load balancer in front is called, with or without a port.
    pub aliases: &'a [String],
    /// Others that the operator lists; `*` stands for every name.
    pub listed: &'a [String],
}

impl OwnHosts<'_> {
    /// Whether this `Host` is one of them; ports don't matter.
    pub(crate) fn include(&self, host: Option<&str>) -> bool {
        let Some(host) = host else { return false };
        let name = host_name(host);
        let is_listed = || self.aliases.iter().chain(self.listed).any(|own| host_name(own) == name);
        let is_any = || self.listed.iter().any(|own| own == "*");
        name == "localhost" || is_address(&name) || self.domains.include(host) || is_listed() || is_any()
    }
}

fn is_address(name: &str) -> bool {
    let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match in_brackets {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<IpAddr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_the_gateways_is_not_taken_for_one() {
        let domains = VirtualHosts::new(["s3.example.org"]);
        let aliases = ["balancer.example.org:8443".to_owned()];
        let listed = ["minio.internal".to_owned()];
        let own = OwnHosts { domains: &domains, aliases: &aliases, listed: &listed };
        for host in [
            "127.0.0.1",
            "10.0.0.7:9000",
            "[::1]:9000",
            "[fd00::7]",
            "localhost",
            "LocalHost:9000",
            "s3.example.org",
            "bucket.s3.example.org:9000",
            "balancer.example.org",
            "balancer.example.org:8443",
            "minio.internal:9000",
            "Minio.Internal.",
        ] {
            assert!(own.include(Some(host)), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "xs3.example.org",
            "[::1].evil.example",
            "127.1",
            "",
            ":9000",
        ] {
            assert!(!own.include(Some(host)), "{host}");
        }
        assert!(!own.include(None));
        let any = ["*".to_owned()];
        let own = OwnHosts { listed: &any, ..own };
        assert!(own.include(Some("evil.example")) && !own.include(None));
    }
}
