//! The key service: it holds the root keys on the customer's premises, decides who may open what, and writes down every key
//! that it releases before the key leaves.
//!
//! Reading order: [`custody`] (what wraps what), [`policy`] (who may do what), `identity` (the service's own CA), `vault`
//! (what is in memory while unlocked), `ledger` (what the database must hold), `registry` and `bindings`, `release` (lease, derive, continue), `proposals` (what
//! takes two operators), `outside` (who vouches for the log at an unlock), `freeze`, `budgets` and `quarantine` (the brakes), [`audit_log`],
//! [`store`], then [`service`] and `server`, which put them behind HTTP/2 over mutual TLS.
//!
//! `docs/key-service-api.md` describes the interface.

pub mod admin_listener;
pub mod audit_log;
pub mod backup;
pub mod config;
mod cosigning;
pub mod custody;
pub mod error;
pub mod files;
pub mod init;
pub mod join;
pub mod leases;
pub mod policy;
pub mod service;
pub mod store;

mod admin;
mod admission;
mod attempts;
mod audit_record;
mod binding_changes;
mod bindings;
mod budgets;
mod destruction;
mod enrolment;
mod freeze;
mod gateway_api;
mod identity;
mod keyset;
mod ledger;
mod log_key;
mod metrics;
mod outside;
mod proposals;
mod pruning;
mod quarantine;
mod recovery;
mod refusals;
mod registry;
mod release;
mod reseal;
mod server;
mod shred_plan;
mod toml_file;
mod vault;
mod watch;
mod wording;

#[cfg(test)]
mod testing;

pub use config::{Config, Limits, Unlock};
pub use error::ServiceError;
pub use init::{InitOptions, InitReport, NewOperator, init};
pub use service::KeyService;
