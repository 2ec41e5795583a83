//! The documents of S3: written for clients, read from clients and from the upstream store.
//!
//! Reading is hardened: no DTD, no entities but the five of XML and character references, at most
//! [`DEPTH_MAX`] levels, byte and element limits per document.

mod buckets;
mod configuration;
mod element;
mod field;
mod form;
mod full;
mod list;
mod lock;
mod multipart;
mod plain;
mod reader;
mod request;
mod result;
mod tagging;
mod text;
mod versioning;
mod versions;
mod writer;

pub use buckets::*;
pub use configuration::{ConfigurationDocument, DocumentForm};
pub use form::*;
pub use list::*;
pub use lock::*;
pub use multipart::*;
pub use reader::{DEPTH_MAX, UPSTREAM_LEN_MAX, XmlError};
pub use request::*;
pub use result::*;
pub use tagging::*;
pub use versioning::*;
pub use versions::*;

pub(crate) use result::{parse_error, write_error};

/// `application/xml`, the type of every document here.
pub const CONTENT_TYPE: &str = "application/xml";

/// The namespace of S3's documents.
pub const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
