//! What is measured: names and numbers that results.json and docs/performance.md use.

use crate::load::Work;

/// How clients and stores are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scheme {
    /// Plain HTTP on both sides.
    Http,
    /// TLS on both sides.
    Tls,
}

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) scheme: Scheme,
    pub(crate) work: Work,
    /// Of the connections that were asked for, at most so many.
    pub(crate) connections_max: usize,
    /// Latency at half the load that Claviger can take is looked at too.
    pub(crate) half_load: bool,
}

/// Bytes a second that the store takes where it is the limit: a gigabit and a half, as much as one client of a cloud store
/// gets on a good day.
pub(crate) const STORE_LIMIT: u64 = 192 << 20;

const SCHEMES: [(Scheme, &str); 2] = [(Scheme::Tls, "tls"), (Scheme::Http, "http")];
const SIZES: [(&str, u64); 3] = [("4kib", 4 << 10), ("1mib", 1 << 20), ("64mib", 64 << 20)];
const PART_LEN: u64 = 16 << 20;
const PARTS: u32 = 16;
/// Two uploads at once fill both cores; more would only fill memory.
const UPLOADS: usize = 2;

/// All cases, in the order of the report.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (scheme, ending) in SCHEMES {
        for (size, len) in SIZES {
            for (verb, work) in [("get", Work::Get { len }), ("put", Work::Put { len })] {
                cases.push(Case {
                    name: format!("{verb}-{size}-{ending}"),
                    scheme,
                    work,
                    connections_max: usize::MAX,
                    half_load: len == SIZES[0].1 && scheme == Scheme::Tls,
                });
            }
        }
    }
    for (name, limited) in [("mpu-256mib-tls", false), ("mpu-256mib-tls-store-limited", true)] {
        cases.push(Case {
            name: name.to_owned(),
            scheme: Scheme::Tls,
            work: Work::Multipart { part_len: PART_LEN, parts: PARTS, limited },
            connections_max: UPLOADS,
            half_load: false,
        });
    }
    for (scheme, ending) in SCHEMES {
        cases.push(Case {
            name: format!("list-1000-{ending}"),
            scheme,
            work: Work::List { keys: 1_000 },
            connections_max: 4,
            half_load: false,
        });
    }
    cases
}
