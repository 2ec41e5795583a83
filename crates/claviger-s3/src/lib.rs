//! The S3 protocol as data: operations, signatures, chunked bodies, XML, ranges, checksums.
//!
//! Nothing here does I/O: no sockets, no clock, no randomness, no async. A server hands in the head of a request and
//! its bytes as they come; it gets typed inputs, verdicts and response documents back. Times are milliseconds since
//! the Unix epoch, lengths are bytes.
//!
//! The way of one request:
//!
//! 1. [`RequestHead`] borrows what the client sent, unchanged.
//! 2. [`classify`] turns it into one [`Operation`], or an [`S3Error`]. The table is an allow-list: what is not in it is
//!    `NotImplemented` and never falls through to a related operation.
//! 3. [`Scheme`] tells how it says whose it is; [`sigv4::Presented::parse`] and [`sigv4::Presented::verify`] prove it.
//! 4. [`checksum::BodyVerifier`] and [`aws_chunked::Decoder`] check the body as it streams.
//! 5. [`xml`] writes the answer and reads what the upstream store says.

mod authentication;
pub mod aws_chunked;
pub mod checksum;
pub mod conditions;
pub mod cors;
pub mod error;
pub mod etag;
pub mod header;
pub mod lock;
pub mod name;
pub mod operation;
pub mod post_form;
pub mod range;
mod request;
pub mod sigv2;
pub mod sigv4;
pub mod tagging;
pub mod timestamp;
pub mod uri;
pub mod version;
pub mod xml;

pub use authentication::{Authenticated, SKEW_MS_MAX, Scheme};
pub use error::{Blame, ErrorCode, S3Error, UpstreamError};
pub use etag::ETag;
pub use name::{BucketName, ObjectKey};
pub use operation::{Operation, OperationKind, VirtualHosts, classify, host_name};
pub use request::RequestHead;
pub use version::VersionId;
