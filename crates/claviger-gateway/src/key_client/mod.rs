//! The key service's client: HTTP/2 over mutual TLS, one connection that is made again when it breaks.
//!
//! * [`enrol`] turns a one-time token into an identity: a private key that never leaves this machine, and a certificate.
//! * [`KeyClient`] implements [`claviger_keyapi::KeyService`] with it, and renews it at half its life.
//! * [`Witness`] stands before it and uses the service only as long as its audit log continues what is remembered of it.
//! * [`Transport`] is the bare channel; `claviger keys` speaks the operators' routes over it.

mod addresses;
mod client;
mod durable;
mod enrolment;
mod error;
mod identity;
mod lines;
mod log_shelf;
mod transport;
mod witness;

pub use client::KeyClient;
pub use enrolment::{Recovery, enrol, enrol_as, new_request, recover};
pub use error::ClientError;
pub use identity::{StoredIdentity, UnsignedIdentity};
pub use transport::Transport;
pub use witness::{Sight, Witness};
