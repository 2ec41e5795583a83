//! What gateways and the key service say to each other: the wire types, the trait that both sides implement,
//! and the rules of the channel between them.
//!
//! * [`KeyService`] is the object-safe trait; the gateway's client, the service itself (in process, for the demo)
//!   and the doubles of the tests implement it.
//! * [`wire`] and [`secret`] give the encodings: JSON, identifiers as lower-case hex, other bytes as standard base64,
//!   secrets in newtypes that are wiped on drop and never printed.
//! * [`error`] has one error for a whole call and one for an item of a batch.
//! * [`enrol`], [`admin`] and [`proposals`] are the bodies of the routes for enrolment and for operators; [`disclosure`] is the key
//!   of one object that two operators hand out.
//! * [`watch`] is what the service says by itself, on a stream that the gateway holds open.
//! * [`tls`] builds both ends of the channel: TLS 1.3 with X25519MLKEM768 and nothing else.
//!
//! `docs/key-service-api.md` describes the same interface for people.

pub mod admin;
pub mod disclosure;
pub mod enrol;
pub mod error;
pub mod identity;
pub mod lifecycle;
pub mod proposals;
pub mod routes;
pub mod secret;
pub mod tls;
pub mod types;
pub mod watch;
pub mod wiping;
pub mod wire;

mod service;

pub use error::{Blame, KeyServiceError, ReleaseError, UnavailableReason};
pub use identity::{Identity, IdentityError, Role};
pub use secret::{
    DekBytes, EtagKeyBytes, NameKeyBytes, PskBytes, Seed32, UnitOutput, UploadKeyBytes, WekBytes,
};
pub use service::{Answer, Answered, BATCH_ITEMS_MAX, KeyFuture, KeyService, Line, LogView};
pub use types::{
    Binding, ContinueItem, ContinueUnit, Continued, DeriveItem, DerivePurpose, Derived, FinishedUpload,
    Lease, LeaseItem, NewUnit, ServiceState, ServiceStatus, SessionInfo, SessionKeyset, Verb,
};
pub use watch::{Watch, WatchEvent};
pub use wire::{Blob, EnvelopeHeader, Id16, PublicKey};
