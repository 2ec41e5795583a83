//! Documents of multipart uploads.

use std::borrow::Cow;

use bytes::Bytes;

use super::element::Element;
use super::list::{Owner, encoding, is_listed, read_common_prefixes};
use super::reader::{Document, Limits, XmlError};
use super::result::{Reply, read_reply};
use super::writer::XmlWriter;
use crate::checksum::{ChecksumAlgorithm, ChecksumType, ObjectChecksum};
use crate::operation::EncodingType;

/// `InitiateMultipartUploadResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InitiateMultipartUploadResult {
    /// `Bucket`
    pub bucket: String,
    /// `Key`
    pub key: String,
    /// `UploadId`
    pub upload_id: String,
}

/// `CompleteMultipartUploadResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompleteMultipartUploadResult {
    /// `Location`
    pub location: String,
    /// `Bucket`
    pub bucket: String,
    /// `Key`
    pub key: String,
    /// `ETag` without quotes; empty when the store sent none (Ceph RGW does that once).
    pub etag: String,
    /// `Checksum…` and `ChecksumType`
    pub checksum: Option<ObjectChecksum>,
}

/// One part of [`ListPartsResult`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartEntry {
    /// `PartNumber`
    pub part_number: u16,
    /// `LastModified`, ms since the epoch.
    pub last_modified_ms: u64,
    /// `ETag` without quotes.
    pub etag: String,
    /// `Size` in bytes.
    pub size: u64,
    /// `Checksum…`
    pub checksum: Option<ObjectChecksum>,
}

/// `ListPartsResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPartsResult {
    /// `Bucket`
    pub bucket: String,
    /// `Key`
    pub key: String,
    /// `UploadId`
    pub upload_id: String,
    /// `Initiator`
    pub initiator: Owner<'static>,
    /// `Owner`
    pub owner: Owner<'static>,
    /// `StorageClass`
    pub storage_class: Option<String>,
    /// `PartNumberMarker`
    pub part_number_marker: u16,
    /// `NextPartNumberMarker`
    pub next_part_number_marker: Option<u16>,
    /// `MaxParts`
    pub max_parts: u32,
    /// `EncodingType`
    pub encoding_type: Option<EncodingType>,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Part`
    pub parts: Vec<PartEntry>,
    /// `ChecksumAlgorithm`
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
    /// `ChecksumType`
    pub checksum_type: Option<ChecksumType>,
}

/// One upload of [`ListMultipartUploadsResult`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadEntry {
    /// `Key`, decoded.
    pub key: String,
    /// `UploadId`
    pub upload_id: String,
    /// `Initiated`, ms since the epoch.
    pub initiated_ms: u64,
    /// `StorageClass`
    pub storage_class: Option<String>,
    /// `Initiator`
    pub initiator: Owner<'static>,
    /// `Owner`
    pub owner: Owner<'static>,
    /// `ChecksumAlgorithm`
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
    /// `ChecksumType`
    pub checksum_type: Option<ChecksumType>,
}

/// `ListMultipartUploadsResult`. All names are decoded here and encoded on the wire when `encoding_type` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListMultipartUploadsResult {
    /// `Bucket`
    pub bucket: String,
    /// `KeyMarker`
    pub key_marker: String,
    /// `UploadIdMarker`
    pub upload_id_marker: String,
    /// `NextKeyMarker`
    pub next_key_marker: Option<String>,
    /// `NextUploadIdMarker`
    pub next_upload_id_marker: Option<String>,
    /// `Prefix`
    pub prefix: String,
    /// `Delimiter`
    pub delimiter: Option<String>,
    /// `MaxUploads`
    pub max_uploads: u32,
    /// `EncodingType`
    pub encoding_type: Option<EncodingType>,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Upload`
    pub uploads: Vec<UploadEntry>,
    /// `CommonPrefixes`
    pub common_prefixes: Vec<String>,
}

impl InitiateMultipartUploadResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("InitiateMultipartUploadResult", None, |w| {
            w.text("Bucket", &self.bucket);
            w.text("Key", &self.key);
            w.text("UploadId", &self.upload_id);
        })
    }

    /// Reads the store's answer; the upload id has to be there.
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> {
        let document = Document::parse(body, "InitiateMultipartUploadResult", Limits::UPSTREAM)?;
        let root = document.root();
        Ok(Self {
            bucket: root.string("Bucket")?,
            key: root.string("Key")?,
            upload_id: root.non_empty("UploadId")?.ok_or(XmlError::Missing("UploadId"))?,
        })
    }
}

impl CompleteMultipartUploadResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("CompleteMultipartUploadResult", None, |w| {
            w.text("Location", &self.location);
            w.text("Bucket", &self.bucket);
            w.text("Key", &self.key);
            w.etag(&self.etag);
            w.checksum(self.checksum.as_ref());
            w.optional("ChecksumType", self.checksum.as_ref().map(|sum| sum.checksum_type().as_str()));
        })
    }

    /// Reads the store's answer to a Complete with status 200, which may still be an error.
    pub fn parse(body: &[u8]) -> Result<Reply<Self>, XmlError> {
        read_reply(body, "CompleteMultipartUploadResult", |root| {
            Ok(Self {
                location: root.string("Location")?,
                bucket: root.string("Bucket")?,
                key: root.string("Key")?,
                etag: root.etag()?,
                checksum: root.checksum().unwrap_or(None),
            })
        })
    }
}

impl PartEntry {
    fn write(&self, w: &mut XmlWriter) {
        w.group("Part", |w| {
            w.value("PartNumber", self.part_number);
            w.time("LastModified", self.last_modified_ms);
            w.etag(&self.etag);
            w.value("Size", self.size);
            w.checksum(self.checksum.as_ref());
        });
    }

    fn read(element: Element<'_, '_>) -> Result<Self, XmlError> {
        let [part_number, last_modified, etag, size] =
            element.fields(&["PartNumber", "LastModified", "ETag", "Size"], |_| false)?;
        Ok(Self {
            part_number: part_number.required_number()?,
            last_modified_ms: last_modified.time()?,
            etag: etag.etag().into_owned(),
            size: size.required_number()?,
            checksum: element.checksum().unwrap_or(None),
        })
    }
}

impl ListPartsResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("ListPartsResult", self.encoding_type, |w| {
            w.text("Bucket", &self.bucket);
            w.name("Key", &self.key);
            w.text("UploadId", &self.upload_id);
            w.owner("Initiator", &self.initiator);
            w.owner("Owner", &self.owner);
            w.optional("StorageClass", self.storage_class.as_deref());
            w.value("PartNumberMarker", self.part_number_marker);
            if let Some(marker) = self.next_part_number_marker {
                w.value("NextPartNumberMarker", marker);
            }
            w.value("MaxParts", self.max_parts);
            w.encoding_type();
            w.value("IsTruncated", self.is_truncated);
            w.optional("ChecksumAlgorithm", self.checksum_algorithm.map(ChecksumAlgorithm::as_str));
            w.optional("ChecksumType", self.checksum_type.map(ChecksumType::as_str));
            self.parts.iter().for_each(|part| part.write(w));
        })
    }

    /// Reads the store's answer.
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> {
        const NAMES: [&str; 13] = [
            "Bucket",
            "Key",
            "UploadId",
            "Initiator",
            "Owner",
            "StorageClass",
            "PartNumberMarker",
            "NextPartNumberMarker",
            "MaxParts",
            "EncodingType",
            "IsTruncated",
            "ChecksumAlgorithm",
            "ChecksumType",
        ];
        let document = Document::parse(body, "ListPartsResult", Limits::UPSTREAM)?;
        let root = document.root();
        let [
            bucket,
            key,
            upload_id,
            initiator,
            owner,
            storage_class,
            marker,
            next,
            max_parts,
            encoding_type,
            is_truncated,
            algorithm,
            checksum_type,
        ] = root.fields(&NAMES, is_listed)?;
        let encoded = encoding_type.is_url_encoding()?;
        Ok(Self {
            bucket: bucket.string().into_owned(),
            key: key.listed_name(encoded)?.unwrap_or_default().into_owned(),
            upload_id: upload_id.string().into_owned(),
            initiator: initiator.owner()?.unwrap_or_default().into_owned(),
            owner: owner.owner()?.unwrap_or_default().into_owned(),
            storage_class: storage_class.non_empty().map(Cow::into_owned),
            part_number_marker: marker.number()?.unwrap_or(0),
            next_part_number_marker: next.number()?,
            max_parts: max_parts.number()?.unwrap_or(1000),
            encoding_type: encoding(encoded),
            is_truncated: is_truncated.boolean()?,
            parts: root.all("Part").map(PartEntry::read).collect::<Result<_, _>>()?,
            checksum_algorithm: algorithm.checksum_algorithm(),
            checksum_type: checksum_type.checksum_type(),
        })
    }
}

impl UploadEntry {
    fn write(&self, w: &mut XmlWriter) {
        w.group("Upload", |w| {
            w.name("Key", &self.key);
            w.text("UploadId", &self.upload_id);
            w.owner("Initiator", &self.initiator);
            w.owner("Owner", &self.owner);
            w.optional("StorageClass", self.storage_class.as_deref());
            w.time("Initiated", self.initiated_ms);
            w.optional("ChecksumAlgorithm", self.checksum_algorithm.map(ChecksumAlgorithm::as_str));
            w.optional("ChecksumType", self.checksum_type.map(ChecksumType::as_str));
        });
    }

    fn read(element: Element<'_, '_>, encoded: bool) -> Result<Self, XmlError> {
        const NAMES: [&str; 8] = [
            "Key",
            "UploadId",
            "Initiator",
            "Owner",
            "StorageClass",
            "Initiated",
            "ChecksumAlgorithm",
            "ChecksumType",
        ];
        let [key, upload_id, initiator, owner, storage_class, initiated, algorithm, checksum_type] =
            element.fields(&NAMES, |_| false)?;
        Ok(Self {
            key: key.required_name(encoded)?.into_owned(),
            upload_id: upload_id.non_empty().ok_or(XmlError::Missing("UploadId"))?.into_owned(),
            initiated_ms: initiated.time()?,
            storage_class: storage_class.non_empty().map(Cow::into_owned),
            initiator: initiator.owner()?.unwrap_or_default().into_owned(),
            owner: owner.owner()?.unwrap_or_default().into_owned(),
            checksum_algorithm: algorithm.checksum_algorithm(),
            checksum_type: checksum_type.checksum_type(),
        })
    }
}

impl ListMultipartUploadsResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("ListMultipartUploadsResult", self.encoding_type, |w| {
            w.text("Bucket", &self.bucket);
            w.name("KeyMarker", &self.key_marker);
            w.text("UploadIdMarker", &self.upload_id_marker);
            w.optional_name("NextKeyMarker", self.next_key_marker.as_deref());
            w.optional("NextUploadIdMarker", self.next_upload_id_marker.as_deref());
            w.name("Prefix", &self.prefix);
            w.optional_name("Delimiter", self.delimiter.as_deref());
            w.value("MaxUploads", self.max_uploads);
            w.encoding_type();
            w.value("IsTruncated", self.is_truncated);
            self.uploads.iter().for_each(|upload| upload.write(w));
            w.common_prefixes(&self.common_prefixes);
        })
    }

    /// Reads the store's answer; names are decoded if it says `EncodingType` url.
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> {
        const NAMES: [&str; 10] = [
            "Bucket",
            "KeyMarker",
            "UploadIdMarker",
            "NextKeyMarker",
            "NextUploadIdMarker",
            "Prefix",
            "Delimiter",
            "MaxUploads",
            "EncodingType",
            "IsTruncated",
        ];
        let document = Document::parse(body, "ListMultipartUploadsResult", Limits::UPSTREAM)?;
        let root = document.root();
        let [
            bucket,
            key_marker,
            upload_id_marker,
            next_key,
            next_upload_id,
            prefix,
            delimiter,
            max_uploads,
            encoding_type,
            is_truncated,
        ] = root.fields(&NAMES, is_listed)?;
        let encoded = encoding_type.is_url_encoding()?;
        let next_key = next_key.listed_name(encoded)?.filter(|marker| !marker.is_empty());
        let uploads = root.all("Upload").map(|upload| UploadEntry::read(upload, encoded));
        let prefixes = read_common_prefixes(root, encoded)?;
        Ok(Self {
            bucket: bucket.string().into_owned(),
            key_marker: key_marker.echo(encoded).unwrap_or_default(),
            upload_id_marker: upload_id_marker.string().into_owned(),
            next_key_marker: next_key.map(Cow::into_owned),
            next_upload_id_marker: next_upload_id.non_empty().map(Cow::into_owned),
            prefix: prefix.echo(encoded).unwrap_or_default(),
            delimiter: delimiter.non_empty_echo(encoded),
            max_uploads: max_uploads.number()?.unwrap_or(1000),
            encoding_type: encoding(encoded),
            is_truncated: is_truncated.boolean()?,
            uploads: uploads.collect::<Result<_, _>>()?,
            common_prefixes: prefixes.into_iter().map(Cow::into_owned).collect(),
        })
    }
}

#[cfg(test)]
mod tests;
