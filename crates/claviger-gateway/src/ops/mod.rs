//! The operations, one file for each or for a few that belong together. Every function that touches an object takes
//! a [`crate::authz::Permit`] or asks [`crate::dispatch::Call::permit`] for one first.

pub(crate) mod anonymous;
pub(crate) mod attributes;
pub(crate) mod bucket;
mod bucket_accounts;
pub(crate) mod checksums;
pub(crate) mod configuration;
pub(crate) mod copy_object;
pub(crate) mod delete;
pub(crate) mod get_object;
pub(crate) mod head_object;
pub(crate) mod list;
pub(crate) mod list_versions;
pub(crate) mod manifests;
pub(crate) mod metadata;
pub(crate) mod multipart;
pub(crate) mod object_headers;
pub(crate) mod object_lock;
pub(crate) mod post_object;
pub(crate) mod preflight;
pub(crate) mod put_object;
pub(crate) mod reply;
pub(crate) mod source;
pub(crate) mod tagging;
pub(crate) mod versioning;
