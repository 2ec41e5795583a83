//! Documents that clients send (and, for Delete and Complete, that go to the store).

use bytes::Bytes;

use super::element::Element;
use super::reader::{Document, Limits, XmlError};
use super::writer::XmlWriter;
use crate::checksum::{ChecksumAlgorithm, ObjectChecksum};
use crate::error::{ErrorCode, S3Error};
use crate::name::KEY_LEN_MAX;

/// Largest `CompleteMultipartUpload` document that is read, in bytes.
pub const COMPLETE_LEN_MAX: usize = 4 << 20;
/// Largest `Delete` document that is read, in bytes.
pub const DELETE_LEN_MAX: usize = 2 << 20;
/// Largest `CreateBucketConfiguration` document that is read, in bytes.
pub const CREATE_BUCKET_LEN_MAX: usize = 64 << 10;

/// Most parts of an upload.
pub const PARTS_MAX: usize = 10_000;
/// Most keys of a `Delete` document.
pub const DELETE_KEYS_MAX: usize = 1000;

/// One part that a client names in Complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    /// `PartNumber`, 1 to 10,000; ascending in the document.
    pub part_number: u16,
    /// `ETag` without quotes.
    pub etag: String,
    /// `Checksum…`
    pub checksum: Option<ObjectChecksum>,
}

/// One key of a `Delete` document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteEntry {
    /// `Key`, 1 to 1,024 bytes.
    pub key: String,
    /// `VersionId`
    pub version_id: Option<String>,
    /// `ETag` without quotes: delete only if it is this one.
    pub etag: Option<String>,
}

/// `Delete`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteRequest {
    /// `Object`, 1 to 1,000
    pub objects: Vec<DeleteEntry>,
    /// `Quiet`: answer errors only.
    pub quiet: bool,
}

/// Reads a `CompleteMultipartUpload` document: `MalformedXML` when broken, empty or above 10,000 parts,
/// `InvalidPartOrder` when the numbers descend (a part that was uploaded twice may be named twice), `InvalidArgument` for a number outside 1 to 10,000.
pub fn parse_complete(body: &[u8]) -> Result<Vec<CompletedPart>, S3Error> {
    let limits = Limits { len_max: COMPLETE_LEN_MAX, elements_max: 1 + PARTS_MAX * 4 };
    let document = Document::parse(body, "CompleteMultipartUpload", limits)?;
    let root = document.root();
    let mut parts: Vec<CompletedPart> = Vec::new();
    for child in root.children() {
        if child.name() != "Part" || parts.len() == PARTS_MAX {
            return Err(ErrorCode::MalformedXML.into());
        }
        let part = read_part(child)?;
        if parts.last().is_some_and(|last| last.part_number > part.part_number) {
            return Err(ErrorCode::InvalidPartOrder.into());
        }
        parts.push(part);
    }
    if parts.is_empty() { Err(ErrorCode::MalformedXML.into()) } else { Ok(parts) }
}

fn read_part(element: Element<'_, '_>) -> Result<CompletedPart, S3Error> {
    let is_known = |child: Element<'_, '_>| {
        matches!(child.name(), "PartNumber" | "ETag")
            || ChecksumAlgorithm::ALL.iter().any(|algorithm| algorithm.element_name() == child.name())
    };
    if !element.children().all(is_known) {
        return Err(ErrorCode::MalformedXML.into());
    }
    let number: u64 = element.number("PartNumber")?.ok_or(XmlError::Missing("PartNumber"))?;
    let part_number = u16::try_from(number).ok().filter(|number| (1..=10_000).contains(number));
    let part_number = part_number.ok_or_else(|| {
        S3Error::invalid_argument(
            "PartNumber",
            &number.to_string(),
            "Part number must be an integer between 1 and 10000, inclusive",
        )
    })?;
    let etag = element.etag()?;
    if etag.is_empty() {
        return Err(XmlError::Missing("ETag").into());
    }
    Ok(CompletedPart { part_number, etag, checksum: element.checksum()? })
}

/// Writes a `CompleteMultipartUpload` document for the store.
pub fn write_complete(parts: &[CompletedPart]) -> Bytes {
    XmlWriter::document("CompleteMultipartUpload", None, |w| {
        for part in parts {
            w.group("Part", |w| {
                w.value("PartNumber", part.part_number);
                w.etag(&part.etag);
                w.checksum(part.checksum.as_ref());
            });
        }
    })
}

/// Reads a `Delete` document: `MalformedXML` when broken, empty or above 1,000 keys, `KeyTooLongError` for a key above
/// 1,024 bytes, `NotImplemented` for conditions on time or size, which must not be ignored.
pub fn parse_delete(body: &[u8]) -> Result<DeleteRequest, S3Error> {
    let limits = Limits { len_max: DELETE_LEN_MAX, elements_max: 2 + DELETE_KEYS_MAX * 4 };
    let document = Document::parse(body, "Delete", limits)?;
    let root = document.root();
    let quiet = root.boolean("Quiet")?;
    let mut objects = Vec::new();
    for child in root.children() {
        match child.name() {
            "Quiet" => {}
            "Object" if objects.len() < DELETE_KEYS_MAX => objects.push(read_delete_entry(child)?),
            _ => return Err(ErrorCode::MalformedXML.into()),
        }
    }
    if objects.is_empty() {
        Err(ErrorCode::MalformedXML.into())
    } else {
        Ok(DeleteRequest { objects, quiet })
    }
}

fn read_delete_entry(element: Element<'_, '_>) -> Result<DeleteEntry, S3Error> {
    for child in element.children() {
        match child.name() {
            "Key" | "VersionId" | "ETag" => {}
            "LastModifiedTime" | "Size" => {
                return Err(S3Error::not_implemented(
                    "Deleting under a condition on the object's time or size is not implemented.",
                ));
            }
            _ => return Err(ErrorCode::MalformedXML.into()),
        }
    }
    let key = element.required("Key")?;
    if key.is_empty() {
        return Err(ErrorCode::MalformedXML.into());
    }
    if key.len() > KEY_LEN_MAX {
        return Err(ErrorCode::KeyTooLongError.into());
    }
    let etag = Some(element.etag()?).filter(|etag| !etag.is_empty());
    Ok(DeleteEntry { key: key.into_owned(), version_id: element.non_empty("VersionId")?, etag })
}

/// Whether every character of a key may stand in an XML 1.0 document. Stores may refuse a [`write_delete`] document with
/// others, even as character references: such keys are better deleted one by one.
pub fn is_xml_text(key: &str) -> bool {
    key.chars().all(|character| match character {
        '\t' | '\n' | '\r' => true,
        '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => false,
        _ => true,
    })
}

/// Writes a `Delete` document for the store.
pub fn write_delete(request: &DeleteRequest) -> Bytes {
    XmlWriter::document("Delete", None, |w| {
        for entry in &request.objects {
            w.group("Object", |w| {
                w.text("Key", &entry.key);
                w.optional("VersionId", entry.version_id.as_deref());
                if let Some(etag) = &entry.etag {
                    w.etag(etag);
                }
            });
        }
        w.value("Quiet", request.quiet);
    })
}

/// Reads a `CreateBucketConfiguration` and gives its location constraint; an empty body has none. Anything but a
/// location is `NotImplemented`.
pub fn parse_create_bucket(body: &[u8]) -> Result<Option<String>, S3Error> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let limits = Limits { len_max: CREATE_BUCKET_LEN_MAX, elements_max: 100 };
    let document = Document::parse(body, "CreateBucketConfiguration", limits)?;
    let root = document.root();
    if let Some(other) = root.children().find(|child| child.name() != "LocationConstraint") {
        let name: String = other.name().chars().take(50).collect();
        return Err(S3Error::not_implemented(format!("{name} of a new bucket is not implemented.")));
    }
    let location = root.non_empty("LocationConstraint")?;
    let is_plausible = |text: &String| {
        text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':' | b'.'))
    };
    match location {
        Some(text) if !is_plausible(&text) => Err(ErrorCode::InvalidLocationConstraint.into()),
        other => Ok(other),
    }
}

/// Writes a `CreateBucketConfiguration` for the store.
pub fn write_create_bucket(location: &str) -> Bytes {
    XmlWriter::document("CreateBucketConfiguration", None, |w| w.text("LocationConstraint", location))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::ChecksumValue;

    fn part(part_number: u16, etag: &str) -> CompletedPart {
        CompletedPart { part_number, etag: etag.to_owned(), checksum: None }
    }

    #[test]
    fn a_completion_is_read_as_it_was_written() {
        let sum = ChecksumValue::from_bytes(ChecksumAlgorithm::Sha256, &[7; 32]).map(ObjectChecksum::full);
        let parts = [CompletedPart { checksum: sum, ..part(1, "a-x") }, part(10_000, "b")];
        assert_eq!(parse_complete(&write_complete(&parts)).unwrap(), parts);
    }

    #[test]
    fn ten_thousand_parts_with_long_tags_fit() {
        let parts: Vec<CompletedPart> = (1..=10_000).map(|number| part(number, &"e".repeat(220))).collect();
        let body = write_complete(&parts);
        assert!(body.len() > 2_800_000, "{}", body.len());
        assert_eq!(parse_complete(&body).unwrap().len(), 10_000);
        let mut more = String::from_utf8(body.to_vec()).unwrap();
        more = more
            .replace("</CompleteMultipartUpload>", "<Part><PartNumber>1</PartNumber><ETag>x</ETag></Part>");
        more.push_str("</CompleteMultipartUpload>");
        assert_eq!(parse_complete(more.as_bytes()).unwrap_err().code(), ErrorCode::MalformedXML);
    }

    #[test]
    fn parts_have_to_ascend() {
        let body = write_complete(&[2, 1].map(|number| part(number, "e")));
        assert_eq!(parse_complete(&body).unwrap_err().code(), ErrorCode::InvalidPartOrder);
        let body = write_complete(&[1, 1].map(|number| part(number, "e")));
        assert_eq!(parse_complete(&body).unwrap().len(), 2);
    }

    #[test]
    fn broken_completions_are_refused() {
        let wrap = |inner: &str| format!("<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>");
        let cases = [
            ("", ErrorCode::MalformedXML),
            ("<Part><PartNumber>1</PartNumber></Part>", ErrorCode::MalformedXML),
            ("<Part><ETag>e</ETag></Part>", ErrorCode::MalformedXML),
            ("<Part><PartNumber>x</PartNumber><ETag>e</ETag></Part>", ErrorCode::MalformedXML),
            ("<Part><PartNumber>0</PartNumber><ETag>e</ETag></Part>", ErrorCode::InvalidArgument),
            ("<Part><PartNumber>10001</PartNumber><ETag>e</ETag></Part>", ErrorCode::InvalidArgument),
            ("<Part><PartNumber>1</PartNumber><ETag>e</ETag><ETag>f</ETag></Part>", ErrorCode::MalformedXML),
            (
                "<Part><PartNumber>1</PartNumber><ETag>e</ETag><ChecksumXXHASH64>AA==</ChecksumXXHASH64></Part>",
                ErrorCode::MalformedXML,
            ),
            ("<Other/>", ErrorCode::MalformedXML),
        ];
        for (inner, code) in cases {
            assert_eq!(parse_complete(wrap(inner).as_bytes()).unwrap_err().code(), code, "{inner}");
        }
        assert_eq!(parse_complete(b"").unwrap_err().code(), ErrorCode::MalformedXML);
        let huge = vec![b' '; COMPLETE_LEN_MAX + 1];
        assert_eq!(parse_complete(&huge).unwrap_err().code(), ErrorCode::MalformedXML);
    }

    #[test]
    fn a_deletion_is_read_as_it_was_written() {
        let entry = DeleteEntry {
            key: " a&\r\n\u{3} ".to_owned(),
            version_id: Some("null".to_owned()),
            etag: Some("e-0".to_owned()),
        };
        let request = DeleteRequest { objects: vec![entry], quiet: true };
        assert_eq!(parse_delete(&write_delete(&request)).unwrap(), request);
    }

    #[test]
    fn a_deletion_names_at_most_a_thousand_keys() {
        let entry = |n: usize| DeleteEntry { key: format!("k{n}"), version_id: None, etag: None };
        let mut request = DeleteRequest { objects: (0..1000).map(entry).collect(), quiet: false };
        assert_eq!(parse_delete(&write_delete(&request)).unwrap().objects.len(), 1000);
        request.objects.push(entry(1000));
        assert_eq!(parse_delete(&write_delete(&request)).unwrap_err().code(), ErrorCode::MalformedXML);
    }

    #[test]
    fn broken_deletions_are_refused() {
        let cases = [
            ("", ErrorCode::MalformedXML),
            ("<Object></Object>", ErrorCode::MalformedXML),
            ("<Object><Key></Key></Object>", ErrorCode::MalformedXML),
            ("<Object><Key>a</Key><Size>1</Size></Object>", ErrorCode::NotImplemented),
            ("<Object><Key>a</Key><Odd>1</Odd></Object>", ErrorCode::MalformedXML),
            ("<Object><Key>a</Key></Object><Odd/>", ErrorCode::MalformedXML),
            ("<Quiet>true</Quiet><Quiet>false</Quiet><Object><Key>a</Key></Object>", ErrorCode::MalformedXML),
        ];
        for (inner, code) in cases {
            let body = format!("<Delete>{inner}</Delete>");
            assert_eq!(parse_delete(body.as_bytes()).unwrap_err().code(), code, "{inner}");
        }
        let long = format!("<Delete><Object><Key>{}</Key></Object></Delete>", "k".repeat(1025));
        assert_eq!(parse_delete(long.as_bytes()).unwrap_err().code(), ErrorCode::KeyTooLongError);
    }

    #[test]
    fn keys_with_control_characters_are_no_xml_text() {
        assert!(is_xml_text("a\r\n\t<&>ü\u{7f}"));
        for key in ["a\u{1}", "\u{1f}", "\u{ffff}", "\0"] {
            assert!(!is_xml_text(key), "{key:?}");
        }
    }

    #[test]
    fn a_new_bucket_may_name_its_location_only() {
        assert_eq!(parse_create_bucket(b"").unwrap(), None);
        assert_eq!(parse_create_bucket(&write_create_bucket("eu-1")).unwrap().as_deref(), Some("eu-1"));
        let tagged = b"<CreateBucketConfiguration><Tags/></CreateBucketConfiguration>";
        assert_eq!(parse_create_bucket(tagged).unwrap_err().code(), ErrorCode::NotImplemented);
        let odd = parse_create_bucket(&write_create_bucket("a b")).unwrap_err();
        assert_eq!(odd.code(), ErrorCode::InvalidLocationConstraint);
    }
}
