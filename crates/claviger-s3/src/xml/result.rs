//! Documents of single objects: copy, delete, attributes, location, error.

use bytes::Bytes;

use http::StatusCode;

use super::element::Element;
use super::multipart::PartEntry;
use super::reader::{Document, Limits, XmlError};
use super::writer::XmlWriter;
use crate::checksum::ObjectChecksum;
use crate::error::{S3Error, UpstreamError};

/// The answer to Complete and Copy, which may carry an error in spite of its status 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<T> {
    /// It is done.
    Done(T),
    /// It has failed.
    Failed(UpstreamError),
}

impl<T> Reply<T> {
    /// The result, or the store's error.
    pub fn into_result(self) -> Result<T, UpstreamError> {
        match self {
            Self::Done(result) => Ok(result),
            Self::Failed(error) => Err(error),
        }
    }
}

/// `CopyObjectResult`, and `CopyPartResult` of UploadPartCopy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyResult {
    /// `ETag` without quotes.
    pub etag: String,
    /// `LastModified`, ms since the epoch.
    pub last_modified_ms: u64,
    /// `Checksum…`
    pub checksum: Option<ObjectChecksum>,
}

/// One key of `Deleted`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeletedEntry {
    /// `Key`
    pub key: String,
    /// `VersionId`
    pub version_id: Option<String>,
    /// `DeleteMarker`
    pub delete_marker: bool,
    /// `DeleteMarkerVersionId`
    pub delete_marker_version_id: Option<String>,
}

/// One key of `Error` in a `DeleteResult`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteErrorEntry {
    /// `Key`
    pub key: String,
    /// `VersionId`
    pub version_id: Option<String>,
    /// `Code`
    pub code: String,
    /// `Message`
    pub message: String,
}

/// `DeleteResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteResult {
    /// `Deleted`; left empty by quiet requests.
    pub deleted: Vec<DeletedEntry>,
    /// `Error`
    pub errors: Vec<DeleteErrorEntry>,
}

/// `ObjectParts` of [`GetObjectAttributesResult`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectPartsResult {
    /// `PartsCount` (on the wire; the SDKs call it TotalPartsCount).
    pub total_parts_count: u32,
    /// `PartNumberMarker`
    pub part_number_marker: u16,
    /// `NextPartNumberMarker`
    pub next_part_number_marker: Option<u16>,
    /// `MaxParts`
    pub max_parts: u32,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Part`: number, size and checksum count; S3 lists them only for objects with a checksum per part.
    pub parts: Vec<PartEntry>,
}

/// `GetObjectAttributesResponse`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GetObjectAttributesResult {
    /// `ETag`, written without quotes as S3 does here.
    pub etag: Option<String>,
    /// `Checksum`
    pub checksum: Option<ObjectChecksum>,
    /// `ObjectParts`
    pub object_parts: Option<ObjectPartsResult>,
    /// `StorageClass`
    pub storage_class: Option<String>,
    /// `ObjectSize` in bytes
    pub object_size: Option<u64>,
}

impl CopyResult {
    /// `CopyObjectResult`
    pub fn to_object_xml(&self) -> Bytes {
        self.to_xml("CopyObjectResult")
    }

    /// `CopyPartResult`
    pub fn to_part_xml(&self) -> Bytes {
        self.to_xml("CopyPartResult")
    }

    fn to_xml(&self, root: &'static str) -> Bytes {
        XmlWriter::document(root, None, |w| {
            w.time("LastModified", self.last_modified_ms);
            w.etag(&self.etag);
            w.checksum(self.checksum.as_ref());
            w.optional("ChecksumType", self.checksum.as_ref().map(|sum| sum.checksum_type().as_str()));
        })
    }

    /// Reads the store's answer to CopyObject with status 200, which may still be an error.
    pub fn parse(body: &[u8]) -> Result<Reply<Self>, XmlError> {
        read_reply(body, "CopyObjectResult", |root| {
            Ok(Self {
                etag: root.etag()?,
                last_modified_ms: root.time("LastModified")?,
                checksum: root.checksum().unwrap_or(None),
            })
        })
    }
}

impl DeleteResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("DeleteResult", None, |w| {
            for entry in &self.deleted {
                w.group("Deleted", |w| {
                    w.text("Key", &entry.key);
                    w.optional("VersionId", entry.version_id.as_deref());
                    if entry.delete_marker {
                        w.value("DeleteMarker", true);
                    }
                    w.optional("DeleteMarkerVersionId", entry.delete_marker_version_id.as_deref());
                });
            }
            for entry in &self.errors {
                w.group("Error", |w| {
                    w.text("Key", &entry.key);
                    w.optional("VersionId", entry.version_id.as_deref());
                    w.text("Code", &entry.code);
                    w.text("Message", &entry.message);
                });
            }
        })
    }

    /// Reads the store's answer.
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> {
        let document = Document::parse(body, "DeleteResult", Limits::UPSTREAM)?;
        let root = document.root();
        let deleted = root.all("Deleted").map(|entry| {
            Ok(DeletedEntry {
                key: entry.required("Key")?.into_owned(),
                version_id: entry.non_empty("VersionId")?,
                delete_marker: entry.boolean("DeleteMarker")?,
                delete_marker_version_id: entry.non_empty("DeleteMarkerVersionId")?,
            })
        });
        let errors = root.all("Error").map(|entry| {
            Ok(DeleteErrorEntry {
                key: entry.required("Key")?.into_owned(),
                version_id: entry.non_empty("VersionId")?,
                code: entry.string("Code")?,
                message: entry.string("Message")?,
            })
        });
        Ok(Self { deleted: deleted.collect::<Result<_, _>>()?, errors: errors.collect::<Result<_, _>>()? })
    }
}

impl GetObjectAttributesResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("GetObjectAttributesResponse", None, |w| {
            w.optional("ETag", self.etag.as_deref());
            if let Some(checksum) = &self.checksum {
                w.group("Checksum", |w| {
                    w.checksum(Some(checksum));
                    w.text("ChecksumType", checksum.checksum_type().as_str());
                });
            }
            if let Some(parts) = &self.object_parts {
                parts.write(w);
            }
            w.optional("StorageClass", self.storage_class.as_deref());
            if let Some(size) = self.object_size {
                w.value("ObjectSize", size);
            }
        })
    }
}

impl ObjectPartsResult {
    fn write(&self, w: &mut XmlWriter) {
        w.group("ObjectParts", |w| {
            w.value("PartsCount", self.total_parts_count);
            w.value("PartNumberMarker", self.part_number_marker);
            if let Some(marker) = self.next_part_number_marker {
                w.value("NextPartNumberMarker", marker);
            }
            w.value("MaxParts", self.max_parts);
            w.value("IsTruncated", self.is_truncated);
            for part in &self.parts {
                w.group("Part", |w| {
                    w.value("PartNumber", part.part_number);
                    w.value("Size", part.size);
                    w.checksum(part.checksum.as_ref());
                });
            }
        });
    }
}

/// `LocationConstraint`; empty for `us-east-1`, as S3 answers it.
pub fn location_constraint(region: &str) -> Bytes {
    let region = if region == "us-east-1" { "" } else { region };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<LocationConstraint xmlns=\"{}\">{}</LocationConstraint>",
        super::NAMESPACE,
        quick_xml::escape::escape(region)
    );
    body.into()
}

/// Reads the store's `LocationConstraint`; empty for its first region.
///
/// # Errors
/// When it is another document, or names no region.
pub fn parse_location_constraint(body: &[u8]) -> Result<String, XmlError> {
    let document = Document::parse(body, "LocationConstraint", Limits::UPSTREAM)?;
    let root = document.root();
    let is_region = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':' | b'.');
    let region = root.text();
    if region.len() > 64 || !region.bytes().all(is_region) {
        return Err(XmlError::Invalid("LocationConstraint"));
    }
    Ok(region.into_owned())
}

pub(crate) fn write_error(error: &S3Error, request_id: &str, host_id: &str) -> Bytes {
    XmlWriter::plain_document("Error", |w| {
        w.text("Code", error.code().as_str());
        w.text("Message", error.message());
        for (element, value) in error.extra() {
            w.text(element, value);
        }
        w.optional("Resource", error.resource());
        w.text("RequestId", request_id);
        w.text("HostId", host_id);
    })
}

/// Code and message of an `<Error>` document.
pub(crate) fn parse_error(body: &[u8]) -> Option<(String, String)> {
    let limits = Limits { len_max: 64 << 10, elements_max: 200 };
    let document = Document::parse(body.trim_ascii_start(), "Error", limits).ok()?;
    let root = document.root();
    code_and_message(&root).ok()
}

fn code_and_message(root: &Element<'_, '_>) -> Result<(String, String), XmlError> {
    Ok((root.string("Code")?, root.string("Message")?))
}

/// Reads an answer with status 200 that is either the expected document or an error. Leading white space, by which S3
/// keeps the connection alive, is skipped.
pub(super) fn read_reply<T>(
    body: &[u8],
    root: &'static str,
    read: impl FnOnce(&Element<'_, '_>) -> Result<T, XmlError>,
) -> Result<Reply<T>, XmlError> {
    let body = body.trim_ascii_start();
    let document = Document::parse_any(body, Limits::UPSTREAM)?;
    let element = document.root();
    match element.name() {
        name if name == root => read(&element).map(Reply::Done),
        "Error" => Ok(Reply::Failed(UpstreamError::parse(StatusCode::OK, body))),
        _ => Err(XmlError::UnexpectedRoot(root)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn a_copy_is_read_as_it_was_written_and_may_fail_with_status_200() {
        let result = CopyResult { etag: "e-0".to_owned(), last_modified_ms: 1000, checksum: None };
        assert_eq!(CopyResult::parse(&result.to_object_xml()).unwrap(), Reply::Done(result.clone()));
        assert_eq!(
            CopyResult::parse(&result.to_part_xml()),
            Err(XmlError::UnexpectedRoot("CopyObjectResult"))
        );
        let failed = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>";
        match CopyResult::parse(failed).unwrap() {
            Reply::Failed(error) => {
                assert_eq!(error.code, Some(ErrorCode::SlowDown));
                assert!(error.is_retryable());
            }
            Reply::Done(_) => panic!("an error is no success"),
        }
    }

    #[test]
    fn deletions_are_read_as_they_were_written() {
        let result = DeleteResult {
            deleted: vec![DeletedEntry {
                key: "a<\u{1}".to_owned(),
                delete_marker: true,
                ..Default::default()
            }],
            errors: vec![DeleteErrorEntry {
                key: "b".to_owned(),
                version_id: Some("null".to_owned()),
                code: "AccessDenied".to_owned(),
                message: "no".to_owned(),
            }],
        };
        assert_eq!(DeleteResult::parse(&result.to_xml()).unwrap(), result);
    }

    #[test]
    fn small_documents_have_the_form_that_s3_gives_them() {
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
        let ns = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
        assert_eq!(
            text(location_constraint("us-east-1")),
            format!("{head}<LocationConstraint {ns}></LocationConstraint>")
        );
        assert_eq!(
            text(location_constraint("eu-<1")),
            format!("{head}<LocationConstraint {ns}>eu-&lt;1</LocationConstraint>")
        );
        let attributes = GetObjectAttributesResult {
            etag: Some("e-0".to_owned()),
            object_parts: Some(ObjectPartsResult {
                total_parts_count: 2,
                max_parts: 1000,
                ..Default::default()
            }),
            object_size: Some(5),
            ..Default::default()
        };
        assert_eq!(
            text(attributes.to_xml()),
            format!(
                "{head}<GetObjectAttributesResponse {ns}><ETag>e-0</ETag><ObjectParts><PartsCount>2</PartsCount>\
                 <PartNumberMarker>0</PartNumberMarker><MaxParts>1000</MaxParts><IsTruncated>false</IsTruncated>\
                 </ObjectParts><ObjectSize>5</ObjectSize></GetObjectAttributesResponse>"
            )
        );
    }
}
