//! One object: whose it is, whether that is true, and its content (docs/format.md §3.6, §8.1).

use std::io::Write;
use std::sync::Arc;

use claviger_format::crc64::Crc64;
use claviger_format::layout::HEADER_LEN;
use claviger_format::{
    BucketId, Dek, Envelope, Error, FooterRead, Kind, Layout, Manifest, Metadata, ObjectId, ObjectName,
    ObjectReader, OpenedEnvelope, Structure, UnitHeader, footer, name,
};
use claviger_gateway::aead::AwsLcAead;

use super::entry::{ClientChecksum, Entry, Proof, Sealed, headers, user_metadata};
use super::failure::Failure;
use super::keyring::{Epoch, Keyring, Origin};
use super::source::{Body, Found, Item, Source};

/// Of a footer's end this much is asked for at first: enough for some 1,600 parts.
const FOOTER_LEN_GUESS: u64 = 65_536;
/// The footer of a single object, without its pad: header, info, one entry, tag.
const SINGLE_FOOTER_LEN: usize = 96 + 96 + 40 + 16;

/// An object whose key is at hand.
pub(super) struct Known {
    epoch: Origin,
    dek: Dek,
    object_id: ObjectId,
    form: Form,
    /// The key as clients wrote it: that of the store, or what it opens to.
    key: String,
    bucket_id: Option<BucketId>,
    metadata: Metadata,
}

enum Form {
    /// With an envelope, in one piece.
    Single(OpenedEnvelope),
    /// With an envelope, in parts.
    Multipart,
    /// Without an envelope.
    Unnamed(Kind),
}

/// Content that has verified.
pub(super) struct Content {
    /// Its bytes.
    pub(super) len: u64,
    /// Its CRC64NVME.
    pub(super) crc64: u64,
    manifest: Arc<Manifest>,
}

/// Finds the key of an object, and verifies its name where an envelope is there. `bucket` is the name that clients knew.
///
/// # Errors
/// What is wrong with it.
pub(super) async fn identify(
    keyring: &Keyring,
    source: &Source,
    item: &Item,
    bucket: &str,
    found: &Found,
) -> Result<Known, Failure> {
    match &found.envelope {
        Some(envelope) => named(keyring, bucket, &item.key, envelope),
        None => unnamed(keyring, source, item).await,
    }
}

fn named(keyring: &Keyring, bucket: &str, key: &str, envelope: &str) -> Result<Known, Failure> {
    let envelope = Envelope::parse(envelope)?;
    let (epoch, dek) = keyring.dek(envelope.epoch_id(), envelope.object_id())?;
    let (name, opened) = verified_name(keyring, epoch, &dek, bucket, key, &envelope)?;
    Ok(Known::named(epoch.origin, dek, &name, opened))
}

/// An object of which no more than its own key is at hand. Its envelope has to be the one of this key and name.
///
/// # Errors
/// That it is another one's.
pub(super) fn with_its_key(
    epoch: Origin,
    (object_id, dek): (ObjectId, Dek),
    name: &ObjectName,
    envelope: &str,
) -> Result<Known, Failure> {
    let envelope = Envelope::parse(envelope)?;
    if (envelope.epoch_id(), envelope.object_id()) != (epoch.epoch_id, object_id) {
        return Err(Failure::OtherObject);
    }
    let opened = envelope.open(&dek, name).map_err(|error| match error {
        Error::BindingMismatch => Failure::OtherName,
        error => error.into(),
    })?;
    Ok(Known::named(epoch, dek, name, opened))
}

/// The name under which the envelope was sealed: this key in a bucket of this name, as it is or as a sealed name.
fn verified_name(
    keyring: &Keyring,
    epoch: &Epoch,
    dek: &Dek,
    bucket: &str,
    key: &str,
    envelope: &Envelope,
) -> Result<(ObjectName, OpenedEnvelope), Failure> {
    let (bucket_ids, name_key) = keyring.bindings(epoch);
    let is_this = |id: &&BucketId| id.as_str().rsplit_once('#').is_some_and(|(name, _)| name == bucket);
    let plain = |id: &BucketId| ObjectName::new(id.clone(), key);
    let sealed = |id: &BucketId| {
        let opened = name_key.and_then(|name_key| name::open_key(name_key, id, key).ok())?;
        ObjectName::new(id.clone(), opened).ok()
    };
    for id in bucket_ids.iter().filter(is_this) {
        for name in [plain(id).ok(), sealed(id)].into_iter().flatten() {
            match envelope.open(dek, &name) {
                Ok(opened) => return Ok((name, opened)),
                Err(Error::BindingMismatch) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let others = bucket_ids.iter().filter(|id| !is_this(id));
    let is_of = |id: &&BucketId| plain(id).is_ok_and(|name| envelope.open(dek, &name).is_ok());
    match others.clone().find(is_of) {
        Some(other) => Err(Failure::OtherBucket(other.to_string())),
        None if others.count() == bucket_ids.len() => Err(Failure::NoBucket(bucket.to_owned())),
        None => Err(Failure::OtherName),
    }
}

async fn unnamed(keyring: &Keyring, source: &Source, item: &Item) -> Result<Known, Failure> {
    let beginning = source.beginning(item, usize::try_from(HEADER_LEN).unwrap_or(usize::MAX)).await?;
    let context = UnitHeader::parse(&beginning).map_err(|_| Failure::NotOurs)?.context;
    if !matches!(context.kind, Kind::Single | Kind::Part) {
        return Err(Failure::NotOurs);
    }
    let (epoch, dek) = keyring.dek(context.epoch_id, context.object_id)?;
    Ok(Known {
        epoch: epoch.origin,
        dek,
        object_id: context.object_id,
        form: Form::Unnamed(context.kind),
        key: item.key.clone(),
        bucket_id: None,
        metadata: Metadata::default(),
    })
}

impl Known {
    fn named(epoch: Origin, dek: Dek, name: &ObjectName, opened: OpenedEnvelope) -> Self {
        Self {
            epoch,
            dek,
            object_id: opened.object_id,
            key: name.key().to_owned(),
            bucket_id: Some(name.bucket_id().clone()),
            metadata: opened.metadata.clone(),
            form: match opened.layout {
                Layout::Single { .. } => Form::Single(opened),
                Layout::Multipart => Form::Multipart,
            },
        }
    }

    /// What is proved of the name.
    pub(super) fn proof(&self) -> Proof {
        if self.bucket_id.is_some() { Proof::Verified } else { Proof::Unverified }
    }

    /// The epoch that it was sealed in.
    pub(super) fn epoch(&self) -> &Origin {
        &self.epoch
    }

    /// The key as clients wrote it.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Verifies that the object was committed, by its footer, and gives its length. Its content is not read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) async fn committed_len(
        &self,
        source: &Source,
        item: &Item,
        found: &Found,
    ) -> Result<u64, Failure> {
        let manifest = self.manifest(source, item, found).await?;
        match &self.form {
            Form::Single(OpenedEnvelope { layout: Layout::Single { length, .. }, .. })
                if *length != manifest.length() =>
            {
                Err(Error::Inconsistent(Structure::Footer).into())
            }
            _ => Ok(manifest.length()),
        }
    }

    /// Reads and verifies everything; what has verified goes into `part`.
    ///
    /// # Errors
    /// What is wrong with the object; what was written is none then.
    pub(super) async fn read(
        &self,
        source: &Source,
        item: &Item,
        found: &Found,
        mut body: Body,
        part: &mut impl Write,
    ) -> Result<Content, Failure> {
        let (mut reader, manifest) = match &self.form {
            Form::Single(envelope) => {
                (ObjectReader::<AwsLcAead>::single(&self.dek, envelope, found.stored_len)?, None)
            }
            Form::Multipart => {
                let manifest = self.manifest(source, item, found).await?;
                (ObjectReader::multipart(&self.dek, &manifest)?, Some(manifest))
            }
            Form::Unnamed(kind) => {
                let manifest = self.manifest(source, item, found).await?;
                (ObjectReader::unnamed(&self.dek, *kind, &manifest)?, Some(manifest))
            }
        };
        let (mut crc64, mut plain, mut end) = (Crc64::new(), Vec::new(), Vec::new());
        while let Some(piece) = body.next().await? {
            reader.push(&piece, &mut plain)?;
            crc64.update(&plain);
            part.write_all(&plain).map_err(Failure::Output)?;
            plain.clear();
            keep_end(&mut end, &piece);
        }
        let len = reader.released();
        reader.finish()?;
        let manifest = match manifest {
            Some(manifest) => manifest,
            None => self.footer(&end, found.stored_len)?.ok_or(Error::Inconsistent(Structure::Footer))?,
        };
        Ok(Content { len, crc64: crc64.value(), manifest })
    }

    async fn manifest(&self, source: &Source, item: &Item, found: &Found) -> Result<Arc<Manifest>, Failure> {
        let mut len = FOOTER_LEN_GUESS.min(found.stored_len);
        loop {
            let end = source.end(item, found, len).await?;
            match footer::open(&self.dek, self.epoch.epoch_id, self.object_id, &end, found.stored_len)? {
                FooterRead::Verified(manifest) => return Ok(Arc::new(manifest)),
                FooterRead::NeedMore { suffix_len } if suffix_len > len && suffix_len <= found.stored_len => {
                    len = suffix_len;
                }
                FooterRead::NeedMore { .. } => return Err(Error::Inconsistent(Structure::Footer).into()),
            }
        }
    }

    fn footer(&self, end: &[u8], stored_len: u64) -> Result<Option<Arc<Manifest>>, Error> {
        match footer::open(&self.dek, self.epoch.epoch_id, self.object_id, end, stored_len)? {
            FooterRead::Verified(manifest) => Ok(Some(Arc::new(manifest))),
            FooterRead::NeedMore { .. } => Ok(None),
        }
    }

    /// The line that the index gets, but for the file.
    pub(super) fn entry(&self, bucket: &str, item: &Item, content: &Content) -> Entry {
        let info = content.manifest.info();
        let checksum = info.checksum.as_ref().or(self.metadata.checksum.as_ref());
        Entry {
            bucket: bucket.to_owned(),
            key: self.key.clone(),
            version: item.version.as_ref().map(|version| version.id.to_string()),
            is_older: item.older().is_some(),
            file: String::new(),
            name: self.proof(),
            size: content.len,
            crc64nvme: format!("{:016x}", content.crc64),
            headers: headers(&self.metadata),
            metadata: user_metadata(&self.metadata),
            checksum: checksum.map(ClientChecksum::of),
            created_ms: info.created_ms,
            sealed: Sealed {
                gateway_id: self.epoch.gateway_id.to_string(),
                epoch_id: self.epoch.epoch_id.to_string(),
                keyset_id: self.epoch.keyset_id.to_string(),
                object_id: self.object_id.to_string(),
                bucket_id: self.bucket_id.as_ref().map(BucketId::to_string),
            },
            store: item.mark.clone(),
        }
    }
}

/// Keeps the last bytes of a stream, as many as a single object's footer has.
fn keep_end(end: &mut Vec<u8>, piece: &[u8]) {
    let piece = &piece[piece.len().saturating_sub(SINGLE_FOOTER_LEN)..];
    let surplus = (end.len() + piece.len()).saturating_sub(SINGLE_FOOTER_LEN);
    end.drain(..surplus.min(end.len()));
    end.extend_from_slice(piece);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_stream_is_kept_however_it_is_cut() {
        let stream: Vec<u8> = (0..2_000u32).map(|n| n.to_le_bytes()[0]).collect();
        for len in [1, 7, 247, 248, 249, 600, 2_000] {
            let mut end = Vec::new();
            stream.chunks(len).for_each(|piece| keep_end(&mut end, piece));
            assert_eq!(end, stream[stream.len() - SINGLE_FOOTER_LEN..], "pieces of {len}");
        }
        let mut end = Vec::new();
        keep_end(&mut end, b"short");
        assert_eq!(end, b"short");
    }
}
