//! Documents of the store: no panic; a listing that is accepted survives being written again.
#![no_main]

use claviger_s3::UpstreamError;
use claviger_s3::xml::{
    CompleteMultipartUploadResult, CopyResult, DeleteResult, InitiateMultipartUploadResult,
    ListBucketsResult, ListMultipartUploadsResult, ListObjectsResult, ListObjectsV2Result, ListPartsResult,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(list) = ListObjectsV2Result::parse(body) {
        let written = list.to_xml();
        let again = ListObjectsV2Result::parse(&written).expect("what was written is read");
        assert_eq!(again.contents.len(), list.contents.len());
        assert!(again.contents.iter().zip(&list.contents).all(|(a, b)| a.key == b.key && a.size == b.size));
    }
    let _ = ListObjectsResult::parse(body);
    let _ = ListBucketsResult::parse(body);
    let _ = ListPartsResult::parse(body);
    let _ = ListMultipartUploadsResult::parse(body);
    let _ = InitiateMultipartUploadResult::parse(body);
    let _ = CompleteMultipartUploadResult::parse(body);
    let _ = CopyResult::parse(body);
    let _ = DeleteResult::parse(body);
    let _ = UpstreamError::parse(http::StatusCode::BAD_REQUEST, body);
});
