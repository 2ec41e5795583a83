//! The S3 gateway: seals what goes to the provider and opens what comes back.
//!
//! A stateless reverse proxy (docs/architecture.md). The way of one request: `server` accepts it, `dispatch` verifies
//! the signature and classifies, `authz` yields a permit, `ops` does it with keys from `keys`, bodies through `body`,
//! and `upstream` signs what goes to the provider.

pub mod admin;
pub mod aead;
mod authenticate;
pub mod authz;
mod bindings;
mod body;
mod boxed;
mod bucket_locks;
pub mod config;
pub mod credentials;
mod dispatch;
mod errands;
pub mod error;
mod fingerprint;
mod gateway;
pub mod key_client;
mod keys;
mod memory_budget;
pub mod metrics;
mod ops;
mod own_hosts;
mod per_second;
mod random;
mod read_ahead;
pub mod secret_file;
pub mod server;
pub mod store_reader;
mod strangers;
mod system_area;
mod upstream;
pub use error::GatewayError;
pub use gateway::{Gateway, StartError};
pub use upstream::profile;
