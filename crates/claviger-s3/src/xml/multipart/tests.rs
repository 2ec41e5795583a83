use super::*;
use crate::checksum::ChecksumValue;
use crate::error::ErrorCode;

fn checksum() -> ObjectChecksum {
    ObjectChecksum {
        value: ChecksumValue::from_crc(ChecksumAlgorithm::Crc32, 7).unwrap(),
        part_count: Some(2),
    }
}

fn owner() -> Owner<'static> {
    Owner { id: "id".into(), display_name: Some("name".into()) }
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
    let body = b"   \n <?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>m</Message></Error>";
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
