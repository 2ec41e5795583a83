//! Documents of multipart uploads.

use bytes::Bytes;

use super::list::{Owner, encoding, read_common_prefixes};
use super::reader::{Element, Limits, XmlError};
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
    pub initiator: Owner,
    /// `Owner`
    pub owner: Owner,
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
    pub initiator: Owner,
    /// `Owner`
    pub owner: Owner,
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
        let root = Element::parse(body, "InitiateMultipartUploadResult", Limits::UPSTREAM)?;
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

    fn read(element: &Element<'_>) -> Result<Self, XmlError> {
        Ok(Self {
            part_number: element.number("PartNumber")?.ok_or(XmlError::Missing("PartNumber"))?,
            last_modified_ms: element.time("LastModified")?,
            etag: element.etag()?,
            size: element.number("Size")?.ok_or(XmlError::Missing("Size"))?,
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
        let root = Element::parse(body, "ListPartsResult", Limits::UPSTREAM)?;
        let encoded = root.is_url_encoded()?;
        let parts: Result<Vec<_>, _> = root.all("Part").map(PartEntry::read).collect();
        Ok(Self {
            bucket: root.string("Bucket")?,
            key: root.name_of("Key", encoded)?.unwrap_or_default(),
            upload_id: root.string("UploadId")?,
            initiator: Owner::read(&root, "Initiator")?.unwrap_or_default(),
            owner: Owner::read(&root, "Owner")?.unwrap_or_default(),
            storage_class: root.non_empty("StorageClass")?,
            part_number_marker: root.number("PartNumberMarker")?.unwrap_or(0),
            next_part_number_marker: root.number("NextPartNumberMarker")?,
            max_parts: root.number("MaxParts")?.unwrap_or(1000),
            encoding_type: encoding(encoded),
            is_truncated: root.boolean("IsTruncated")?,
            parts: parts?,
            checksum_algorithm: root.text_of("ChecksumAlgorithm")?.and_then(ChecksumAlgorithm::from_name),
            checksum_type: root.text_of("ChecksumType")?.and_then(ChecksumType::from_name),
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

    fn read(element: &Element<'_>, encoded: bool) -> Result<Self, XmlError> {
        Ok(Self {
            key: element.name_of("Key", encoded)?.ok_or(XmlError::Missing("Key"))?,
            upload_id: element.non_empty("UploadId")?.ok_or(XmlError::Missing("UploadId"))?,
            initiated_ms: element.time("Initiated")?,
            storage_class: element.non_empty("StorageClass")?,
            initiator: Owner::read(element, "Initiator")?.unwrap_or_default(),
            owner: Owner::read(element, "Owner")?.unwrap_or_default(),
            checksum_algorithm: element.text_of("ChecksumAlgorithm")?.and_then(ChecksumAlgorithm::from_name),
            checksum_type: element.text_of("ChecksumType")?.and_then(ChecksumType::from_name),
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
        let root = Element::parse(body, "ListMultipartUploadsResult", Limits::UPSTREAM)?;
        let encoded = root.is_url_encoded()?;
        let uploads: Result<Vec<_>, _> = root.all("Upload").map(|e| UploadEntry::read(e, encoded)).collect();
        Ok(Self {
            bucket: root.string("Bucket")?,
            key_marker: root.echo_of("KeyMarker", encoded)?.unwrap_or_default(),
            upload_id_marker: root.string("UploadIdMarker")?,
            next_key_marker: root.name_of("NextKeyMarker", encoded)?.filter(|marker| !marker.is_empty()),
            next_upload_id_marker: root.non_empty("NextUploadIdMarker")?,
            prefix: root.echo_of("Prefix", encoded)?.unwrap_or_default(),
            delimiter: root.echo_of("Delimiter", encoded)?.filter(|delimiter| !delimiter.is_empty()),
            max_uploads: root.number("MaxUploads")?.unwrap_or(1000),
            encoding_type: encoding(encoded),
            is_truncated: root.boolean("IsTruncated")?,
            uploads: uploads?,
            common_prefixes: read_common_prefixes(&root, encoded)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::ChecksumValue;
    use crate::error::ErrorCode;

    fn checksum() -> ObjectChecksum {
        ObjectChecksum {
            value: ChecksumValue::from_crc(ChecksumAlgorithm::Crc32, 7).unwrap(),
            part_count: Some(2),
        }
    }

    fn owner() -> Owner {
        Owner { id: "id".to_owned(), display_name: Some("name".to_owned()) }
    }

    #[test]
    fn initiation_is_read_as_it_was_written_and_needs_an_id() {
        let result = InitiateMultipartUploadResult {
            bucket: "b".to_owned(),
            key: "k&<".to_owned(),
            upload_id: "u".to_owned(),
        };
        assert_eq!(InitiateMultipartUploadResult::parse(&result.to_xml()).unwrap(), result);
        let missing = b"<InitiateMultipartUploadResult><UploadId/></InitiateMultipartUploadResult>";
        assert_eq!(InitiateMultipartUploadResult::parse(missing), Err(XmlError::Missing("UploadId")));
    }

    #[test]
    fn completion_is_read_as_it_was_written() {
        let result = CompleteMultipartUploadResult {
            location: "http://h/b/k".to_owned(),
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            etag: "abc-2".to_owned(),
            checksum: Some(checksum()),
        };
        assert_eq!(CompleteMultipartUploadResult::parse(&result.to_xml()).unwrap(), Reply::Done(result));
    }

    #[test]
    fn completion_with_an_error_in_its_body_has_failed() {
        let body =
            b"   \n <?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>m</Message></Error>";
        let trimmed = body.trim_ascii_start();
        for body in [&body[..], trimmed] {
            match CompleteMultipartUploadResult::parse(body).unwrap() {
                Reply::Failed(error) => assert_eq!(error.code, Some(ErrorCode::InternalError)),
                Reply::Done(_) => panic!("an error is no success"),
            }
        }
        assert!(CompleteMultipartUploadResult::parse(b"").is_err());
        assert!(CompleteMultipartUploadResult::parse(b"<html></html>").is_err());
    }

    #[test]
    fn parts_are_read_as_they_were_written() {
        let result = ListPartsResult {
            bucket: "b".to_owned(),
            key: "k k".to_owned(),
            upload_id: "u".to_owned(),
            initiator: owner(),
            owner: owner(),
            storage_class: Some("STANDARD".to_owned()),
            part_number_marker: 1,
            next_part_number_marker: Some(3),
            max_parts: 2,
            encoding_type: Some(EncodingType::Url),
            is_truncated: true,
            parts: vec![PartEntry {
                part_number: 3,
                last_modified_ms: 1000,
                etag: "e-x".to_owned(),
                size: 5,
                checksum: Some(checksum()),
            }],
            checksum_algorithm: Some(ChecksumAlgorithm::Crc32),
            checksum_type: Some(ChecksumType::Composite),
        };
        assert_eq!(ListPartsResult::parse(&result.to_xml()).unwrap(), result);
    }

    #[test]
    fn uploads_are_read_as_they_were_written() {
        for encoding_type in [None, Some(EncodingType::Url)] {
            let result = ListMultipartUploadsResult {
                bucket: "b".to_owned(),
                key_marker: "a+b".to_owned(),
                upload_id_marker: "m".to_owned(),
                next_key_marker: Some("c d".to_owned()),
                next_upload_id_marker: Some("n".to_owned()),
                prefix: "p/".to_owned(),
                delimiter: Some("/".to_owned()),
                max_uploads: 1,
                encoding_type,
                is_truncated: true,
                uploads: vec![UploadEntry {
                    key: "k\u{2}".to_owned(),
                    upload_id: "u".to_owned(),
                    initiated_ms: 1000,
                    storage_class: None,
                    initiator: owner(),
                    owner: owner(),
                    checksum_algorithm: None,
                    checksum_type: None,
                }],
                common_prefixes: vec!["p/q/".to_owned()],
            };
            assert_eq!(ListMultipartUploadsResult::parse(&result.to_xml()).unwrap(), result);
        }
    }
}
