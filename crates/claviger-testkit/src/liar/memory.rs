//! What the liar remembers: objects as they were before they were replaced or deleted.

use std::collections::HashMap;
use std::fs;

use bytes::Bytes;
use claviger_provider::Provider;

/// The header that carries the envelope.
pub(super) const ENVELOPE: &str = "x-amz-meta-claviger";

/// An object as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) body: Bytes,
    pub(super) envelope: Option<String>,
    pub(super) etag: String,
}

/// Earlier versions by path, oldest first.
#[derive(Debug, Default)]
pub(super) struct Memory {
    earlier: HashMap<String, Vec<Stored>>,
}

impl Memory {
    /// Keeps what is at the path now, if anything is.
    pub(super) fn remember(&mut self, provider: &Provider, path: &str) {
        let Some((bucket, key)) = split(path) else { return };
        let Some(stored) = Stored::read(provider, &bucket, &key) else { return };
        let earlier = self.earlier.entry(path.to_owned()).or_default();
        if earlier.last() != Some(&stored) {
            earlier.push(stored);
        }
    }

    /// The newest earlier version whose envelope is not `envelope`.
    pub(super) fn before(&self, path: &str, envelope: Option<&str>) -> Option<&Stored> {
        self.earlier.get(path)?.iter().rev().find(|stored| stored.envelope.as_deref() != envelope)
    }
}

impl Stored {
    /// What the provider's files say of an object.
    pub(super) fn read(provider: &Provider, bucket: &str, key: &str) -> Option<Self> {
        let files = provider.object_files(bucket, key).ok()?;
        let body = fs::read(files.data).ok()?;
        let sidecar = provider.description(bucket, key).ok()?;
        Some(Self {
            body: body.into(),
            envelope: sidecar.user_metadata.get("claviger").cloned(),
            etag: sidecar.etag,
        })
    }

    /// Another object of the bucket: one of the same size if there is one, else the first.
    pub(super) fn other(provider: &Provider, path: &str) -> Option<Self> {
        let (bucket, key) = split(path)?;
        let len = Self::read(provider, &bucket, &key).map_or(0, |stored| stored.body.len());
        let keys = provider.keys(&bucket).ok()?;
        let others = keys
            .iter()
            .filter(|other| **other != key)
            .filter_map(|other| Self::read(provider, &bucket, other));
        let others: Vec<Self> = others.collect();
        others.iter().find(|other| other.body.len() == len).or_else(|| others.first()).cloned()
    }
}

/// Bucket and key of a percent-encoded path.
pub(super) fn split(path: &str) -> Option<(String, String)> {
    let (bucket, key) = path.strip_prefix('/')?.split_once('/')?;
    let key = percent_encoding::percent_decode_str(key).decode_utf8().ok()?;
    Some((bucket.to_owned(), key.into_owned()))
}
