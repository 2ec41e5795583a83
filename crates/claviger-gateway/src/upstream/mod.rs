//! The way out to the provider: requests are signed anew with an account's own credentials, and carry nothing but
//! names, numbers and what a sealer made (`body`). `transport` speaks HTTP, `object`, `list` and `multipart` are the
//! calls of the S3 API that the gateway makes.

pub(crate) mod account;
pub(crate) mod along;
pub(crate) mod body;
mod condition;
pub(crate) mod configuration;
mod connector;
#[cfg(test)]
pub(crate) mod double;
pub(crate) mod list;
pub(crate) mod mark;
pub(crate) mod multipart;
pub(crate) mod object;
pub(crate) mod object_settings;
pub(crate) mod observed;
pub(crate) mod passed;
mod pool;
pub mod profile;
pub(crate) mod tls;
mod trailer;
pub(crate) mod transport;
mod version_id;
mod versioning;

pub(crate) use transport::Upstream;

/// The one metadata header that objects carry at the provider (docs/format.md §5.1).
pub(crate) const ENVELOPE_HEADER: &str = "x-amz-meta-claviger";
