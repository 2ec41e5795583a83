//! The S3 gateway: seals what goes to the provider and opens what comes back

pub mod admin;
pub mod aead;
pub mod authz;
pub mod config;
pub mod credentials;
pub mod metrics;
pub mod secret_file;
pub mod server;
