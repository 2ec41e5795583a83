//! Every operation, and everything that must not become one.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use proptest::prelude::*;

use super::*;
use crate::checksum::{ChecksumAlgorithm, ChecksumType, ChecksumValue, ExpectedChecksum, ObjectChecksum};
use crate::conditions::{EtagCondition, WriteCondition, WriteTag};
use crate::error::{ErrorCode, S3Error};
use crate::range::RangeSpec;
use crate::request::RequestHead;
use crate::sigv4::PayloadMode;

type Headers<'a> = &'a [(&'static str, &'a str)];

fn classify_on(host: &str, method: &str, uri: &str, headers: Headers<'_>) -> Result<Operation, S3Error> {
    let method: Method = method.parse().unwrap();
    let uri: Uri = uri.parse().unwrap();
    let mut map = HeaderMap::new();
    map.insert("host", host.parse().unwrap());
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    classify(&RequestHead::new(&method, &uri, &map), &VirtualHosts::new(["s3.test"]))
}

fn request(method: &str, uri: &str, headers: Headers<'_>) -> Result<Operation, S3Error> {
    classify_on("127.0.0.1:9000", method, uri, headers)
}

fn ok(method: &str, uri: &str, headers: Headers<'_>) -> Operation {
    request(method, uri, headers).unwrap_or_else(|error| panic!("{method} {uri}: {error}"))
}

fn code(method: &str, uri: &str, headers: Headers<'_>) -> ErrorCode {
    match request(method, uri, headers) {
        Ok(operation) => panic!("{method} {uri} became {:?}", operation.kind()),
        Err(error) => error.code(),
    }
}

macro_rules! expect {
    ($variant:ident, $operation:expr) => {
        match $operation {
            Operation::$variant(inputs) => inputs,
            other => panic!("expected {}, got {:?}", stringify!($variant), other.kind()),
        }
    };
}

mod configuration;

const SOURCE: Headers<'static> = &[("x-amz-copy-source", "/src/k")];

const FORM: Headers<'_> = &[("content-type", "multipart/form-data; boundary=b"), ("content-length", "9")];

#[test]
fn every_operation_is_reached_in_path_style_and_by_virtual_host() {
    let part = "partNumber=1&uploadId=u";
    let cases: &[(OperationKind, &str, &str, String, Headers<'_>)] = &[
        (OperationKind::CreateBucket, "PUT", "", String::new(), &[]),
        (OperationKind::HeadBucket, "HEAD", "", String::new(), &[]),
        (OperationKind::DeleteBucket, "DELETE", "", String::new(), &[]),
        (OperationKind::GetBucketLocation, "GET", "", "location".into(), &[]),
        (OperationKind::GetBucketVersioning, "GET", "", "versioning".into(), &[]),
        (OperationKind::PutBucketVersioning, "PUT", "", "versioning".into(), &[]),
        (OperationKind::PutObject, "PUT", "k", String::new(), &[]),
        (OperationKind::PostObject, "POST", "", String::new(), FORM),
        (OperationKind::GetObject, "GET", "k", String::new(), &[]),
        (OperationKind::HeadObject, "HEAD", "k", String::new(), &[]),
        (OperationKind::DeleteObject, "DELETE", "k", String::new(), &[]),
        (OperationKind::DeleteObjects, "POST", "", "delete".into(), &[]),
        (OperationKind::CopyObject, "PUT", "k", String::new(), SOURCE),
        (
            OperationKind::GetObjectAttributes,
            "GET",
            "k",
            "attributes".into(),
            &[("x-amz-object-attributes", "ETag")],
        ),
        (OperationKind::GetObjectTagging, "GET", "k", "tagging".into(), &[]),
        (OperationKind::PutObjectTagging, "PUT", "k", "tagging".into(), &[]),
        (OperationKind::DeleteObjectTagging, "DELETE", "k", "tagging".into(), &[]),
        (OperationKind::GetObjectRetention, "GET", "k", "retention".into(), &[]),
        (OperationKind::PutObjectRetention, "PUT", "k", "retention".into(), &[]),
        (OperationKind::GetObjectLegalHold, "GET", "k", "legal-hold".into(), &[]),
        (OperationKind::PutObjectLegalHold, "PUT", "k", "legal-hold".into(), &[]),
        (OperationKind::GetObjectLockConfiguration, "GET", "", "object-lock".into(), &[]),
        (OperationKind::PutObjectLockConfiguration, "PUT", "", "object-lock".into(), &[]),
        (OperationKind::ListObjects, "GET", "", String::new(), &[]),
        (OperationKind::ListObjectsV2, "GET", "", "list-type=2".into(), &[]),
        (OperationKind::ListObjectVersions, "GET", "", "versions".into(), &[]),
        (OperationKind::CreateMultipartUpload, "POST", "k", "uploads".into(), &[]),
        (OperationKind::UploadPart, "PUT", "k", part.into(), &[]),
        (OperationKind::UploadPartCopy, "PUT", "k", part.into(), SOURCE),
        (OperationKind::CompleteMultipartUpload, "POST", "k", "uploadId=u".into(), &[]),
        (OperationKind::AbortMultipartUpload, "DELETE", "k", "uploadId=u".into(), &[]),
        (OperationKind::ListParts, "GET", "k", "uploadId=u".into(), &[]),
        (OperationKind::ListMultipartUploads, "GET", "", "uploads".into(), &[]),
        (OperationKind::Preflight, "OPTIONS", "", String::new(), &[]),
    ];
    assert_eq!(ok("GET", "/", &[]).kind(), OperationKind::ListBuckets);
    let configurations = SUBRESOURCES.iter().flat_map(|row| row.operations).count();
    assert_eq!(cases.len() + 1 + configurations, OperationKind::ALL.len());
    for (kind, method, key, query, headers) in cases {
        let by_path = ok(method, &format!("/bkt/{key}?{query}&x-id={}", kind.as_str()), headers);
        let by_host = classify_on("bkt.s3.test:9000", method, &format!("/{key}?{query}"), headers).unwrap();
        assert_eq!((by_path.kind(), &by_path), (*kind, &by_host));
        assert_eq!(by_path.bucket().unwrap().as_str(), "bkt");
        assert_eq!(
            by_path.key().map(ToString::to_string),
            Some((*key).to_owned()).filter(|key| !key.is_empty())
        );
        if key.is_empty() {
            assert_eq!(
                ok(method, &format!("/bkt?{query}"), headers),
                by_path,
                "a final slash changes nothing"
            );
        }
    }
}

#[test]
fn a_post_to_a_bucket_has_to_be_a_form_of_known_length() {
    let form = |changed: &[(&'static str, &'static str)]| {
        let mut headers: Vec<_> =
            FORM.iter().filter(|(name, _)| changed.iter().all(|(c, _)| c != name)).copied().collect();
        headers.extend(changed.iter().filter(|(_, value)| !value.is_empty()));
        code("POST", "/bkt", &headers)
    };
    assert_eq!(form(&[("content-type", "text/plain")]), ErrorCode::PreconditionFailed);
    assert_eq!(form(&[("content-type", "")]), ErrorCode::PreconditionFailed);
    assert_eq!(form(&[("content-type", "multipart/form-data")]), ErrorCode::MalformedPOSTRequest);
    assert_eq!(form(&[("content-length", "")]), ErrorCode::MissingContentLength);
    assert_eq!(form(&[("if-none-match", "*")]), ErrorCode::NotImplemented);
    assert_eq!(form(&[("x-amz-meta-a", "1")]), ErrorCode::NotImplemented);
}

#[test]
fn nothing_falls_through_to_an_operation_that_lacks_what_was_asked() {
    let cases: &[(&str, &str, Headers<'_>)] = &[
        ("PUT", "/bkt/k?renameObject", &[]),
        ("DELETE", "/bkt?metadataConfiguration", &[]),
        ("PUT", "/bkt/k?annotation", &[]),
        ("PUT", "/bkt/k?uploadId=u", &[]),
        ("PUT", "/bkt/k?partNumber=1", &[]),
        ("GET", "/bkt?list-type=3", &[]),
        ("GET", "/bkt/k?torrent", &[]),
        ("GET", "/bkt/k?surprise=1", &[]),
        ("GET", "/bkt?surprise", &[]),
        ("GET", "/bkt?uploads&delete", &[]),
        ("POST", "/bkt/k?select&select-type=2", &[]),
        ("POST", "/bkt/k?restore", &[]),
        ("POST", "/bkt/k", &[]),
        ("POST", "/", &[]),
        ("HEAD", "/", &[]),
        ("PATCH", "/bkt/k", &[]),
        ("OPTIONS", "/", &[]),
        ("GET", "/bkt/k?x-amz-meta-a=1", &[]),
        ("PUT", "/bkt/k", &[("x-amz-surprise", "1")]),
        ("PUT", "/bkt/k", &[("x-amz-server-side-encryption", "aws:kms")]),
        ("PUT", "/bkt/k", &[("x-amz-server-side-encryption-customer-key", "k")]),
        ("GET", "/bkt/k", &[("x-amz-server-side-encryption-customer-algorithm", "AES256")]),
        ("PUT", "/bkt/k", &[("x-amz-website-redirect-location", "/")]),
        ("PUT", "/bkt/k", &[("x-amz-write-offset-bytes", "1")]),
        ("PUT", "/bkt/k", &[("x-amz-checksum-sha3", "AA==")]),
        ("PUT", "/bkt/k", &[("content-range", "bytes 0-1/2")]),
        ("PUT", "/bkt/k", &[("if-match", "\"a\", \"b\"")]),
        ("PUT", "/bkt/k", &[("if-match", "\"a\""), ("if-none-match", "*")]),
        ("PUT", "/bkt/k", &[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")]),
        ("DELETE", "/bkt/k", &[("if-none-match", "*")]),
        ("POST", "/bkt/k?uploads", &[("if-none-match", "*")]),
        ("PUT", "/bkt/k?partNumber=1&uploadId=u", &[("if-match", "\"a\"")]),
        ("PUT", "/bkt/k?partNumber=1&uploadId=u", &[("x-amz-meta-a", "1")]),
        ("PUT", "/bkt/k", &[("x-amz-copy-source", "src/k"), ("x-amz-copy-source-range", "bytes=0-1")]),
        ("PUT", "/bkt/k", &[("x-amz-copy-source", "arn:aws:s3:eu-1:1:accesspoint/a/object/k")]),
    ];
    for (method, uri, headers) in cases {
        assert_eq!(code(method, uri, headers), ErrorCode::NotImplemented, "{method} {uri} {headers:?}");
    }
}

#[test]
fn a_refusal_names_what_is_missing() {
    let error = request("GET", "/bkt/k?torrent", &[]).unwrap_err();
    assert_eq!(error.message(), "GetObjectTorrent is not implemented: the store would hand out ciphertext.");
    let error = request("PUT", "/bkt/k", &[("x-amz-write-offset-bytes", "1")]).unwrap_err();
    assert!(error.message().contains("appending is not implemented"), "{}", error.message());
}

#[test]
fn what_clients_send_by_habit_is_accepted() {
    let headers: Headers<'_> = &[
        ("x-amz-acl", "private"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-user-agent", "ua"),
        ("x-amz-api-version", "2006-03-01"),
        ("x-amz-date", "20250615T150640Z"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ("x-amz-request-payer", "requester"),
        ("amz-sdk-request", "attempt=1"),
        ("traceparent", "00-0-0-0"),
        ("x-forwarded-for", "1.2.3.4"),
    ];
    let put = expect!(PutObject, ok("PUT", "/bkt/k?x-id=PutObject", headers));
    assert!(put.headers.sse_s3);
    assert_eq!(put.headers.storage_class.as_ref().map(StorageClass::as_str), Some("STANDARD_IA"));
    assert_eq!(code("PUT", "/bkt/k", &[("x-amz-storage-class", "MINE")]), ErrorCode::InvalidStorageClass);
}

#[test]
fn keys_are_exactly_what_was_written() {
    let cases = [
        ("/bkt/a%20b+c", "a b+c"),
        ("/bkt//a", "/a"),
        ("/bkt/a//b/", "a//b/"),
        ("/bkt/../x", "../x"),
        ("/bkt/.", "."),
        ("/bkt/%C3%BC%25", "ü%"),
        ("/bkt/a%2Fb", "a/b"),
        ("/bkt%2Fa", "a"),
    ];
    for (uri, key) in cases {
        assert_eq!(ok("GET", uri, &[]).key().unwrap().as_str(), key, "{uri}");
    }
    assert_eq!(ok("GET", &format!("/bkt/{}", "k".repeat(1024)), &[]).key().unwrap().as_str().len(), 1024);
    assert_eq!(code("GET", &format!("/bkt/{}", "k".repeat(1025)), &[]), ErrorCode::KeyTooLongError);
    assert_eq!(code("GET", "/bkt/%ff", &[]), ErrorCode::InvalidURI);
    assert_eq!(code("GET", "/bkt/%zz", &[]), ErrorCode::InvalidURI);
    assert_eq!(code("GET", "//k", &[]), ErrorCode::InvalidBucketName);
    assert_eq!(code("GET", "/BKT/k", &[]), ErrorCode::InvalidBucketName);
    let by_host = classify_on("bkt.s3.test", "GET", "//a/../b", &[]).unwrap();
    assert_eq!(by_host.key().unwrap().as_str(), "/a/../b");
}

#[test]
fn put_object_carries_its_headers_typed() {
    let put = expect!(
        PutObject,
        ok(
            "PUT",
            "/bkt/k",
            &[
                ("content-type", "text/plain"),
                ("content-encoding", "aws-chunked,gzip"),
                ("content-disposition", "attachment; filename=\"ü\""),
                ("cache-control", "no-cache"),
                ("content-language", "de"),
                ("expires", "0"),
                ("x-amz-meta-b", "2"),
                ("x-amz-meta-a", "ü"),
                ("x-amz-meta-b", "3"),
                ("if-none-match", "*"),
                ("content-length", "120"),
                ("x-amz-decoded-content-length", "100"),
                ("x-amz-trailer", "X-Amz-Checksum-CRC32"),
                ("x-amz-sdk-checksum-algorithm", "CRC32"),
            ]
        )
    );
    assert_eq!(put.headers.system.content_encoding.as_deref(), Some("gzip"));
    assert_eq!(put.headers.system.iter().count(), 6);
    assert_eq!(put.headers.user_metadata.iter().collect::<Vec<_>>(), [("a", "ü"), ("b", "2,3")]);
    assert_eq!(put.condition, Some(WriteCondition::IfNoneMatch(WriteTag::Any)));
    let trailer = ExpectedChecksum::Trailer(ChecksumAlgorithm::Crc32);
    assert_eq!(put.body.integrity.checksum, Some(trailer));
    assert_eq!(put.body.plaintext_len(&PayloadMode::UnsignedChunksTrailer).unwrap(), 100);
    let error = put.body.plaintext_len(&PayloadMode::Unsigned).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
}

#[test]
fn a_write_is_conditional_by_one_tag_or_by_any() {
    let of = |name, value| expect!(PutObject, ok("PUT", "/bkt/k", &[(name, value)])).condition.unwrap();
    let tag = || WriteTag::Tag(crate::ETag::parse("a").unwrap());
    assert_eq!(of("if-match", "*"), WriteCondition::IfMatch(WriteTag::Any));
    assert_eq!(of("if-match", "\"a\""), WriteCondition::IfMatch(tag()));
    assert_eq!(of("if-none-match", "a"), WriteCondition::IfNoneMatch(tag()));
}

/// The head that aws-sdk-s3 1.157.0 sends over plain HTTP; its body is among the tests of `sigv4`.
#[test]
fn a_real_sdk_upload_with_a_signed_trailer_is_understood() {
    let put = expect!(
        PutObject,
        ok(
            "PUT",
            "/buck/key?x-id=PutObject",
            &[
                ("content-encoding", "aws-chunked"),
                ("content-length", "394"),
                ("content-type", "application/octet-stream"),
                ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
                ("x-amz-date", "20261121T185533Z"),
                ("x-amz-decoded-content-length", "100"),
                ("x-amz-sdk-checksum-algorithm", "CRC32"),
                ("x-amz-trailer", "x-amz-checksum-crc32"),
                ("x-amz-user-agent", "aws-sdk-rust"),
                ("amz-sdk-invocation-id", "1"),
                ("amz-sdk-request", "attempt=1; max=3"),
            ]
        )
    );
    assert_eq!(put.headers.system.content_encoding, None);
    assert_eq!(put.body.integrity.trailer_name(), Some("x-amz-checksum-crc32"));
    let payload = PayloadMode::SignedChunks { trailer: true };
    assert_eq!(put.body.plaintext_len(&payload).unwrap(), 100);
}

#[test]
fn a_body_without_a_length_is_refused() {
    let put = expect!(PutObject, ok("PUT", "/bkt/k", &[]));
    for payload in [PayloadMode::Unsigned, PayloadMode::UnsignedChunksTrailer] {
        assert_eq!(put.body.plaintext_len(&payload).unwrap_err().code(), ErrorCode::MissingContentLength);
    }
}

#[test]
fn checksums_have_to_agree_with_what_the_sdk_says() {
    const CRC: (&str, &str) = ("x-amz-checksum-crc32", "lZe8jQ==");
    let put = expect!(PutObject, ok("PUT", "/bkt/k", &[CRC, ("x-amz-sdk-checksum-algorithm", "crc32")]));
    let value = ChecksumValue::parse(ChecksumAlgorithm::Crc32, "lZe8jQ==").unwrap();
    assert_eq!(put.body.integrity.checksum, Some(ExpectedChecksum::Header(value)));
    let cases: &[Headers<'_>] = &[
        &[CRC, ("x-amz-sdk-checksum-algorithm", "SHA1")],
        &[CRC, ("x-amz-checksum-crc32c", "lZe8jQ==")],
        &[CRC, ("x-amz-trailer", "x-amz-checksum-crc32")],
        &[("x-amz-sdk-checksum-algorithm", "CRC32")],
        &[("x-amz-sdk-checksum-algorithm", "MD4")],
        &[("x-amz-trailer", "x-amz-meta-a")],
        &[("x-amz-trailer", "x-amz-checksum-crc32, x-amz-checksum-sha1")],
        &[("x-amz-checksum-crc32", "")],
        &[("x-amz-checksum-sha256", "lZe8jQ==")],
    ];
    for headers in cases {
        assert_eq!(code("PUT", "/bkt/k", headers), ErrorCode::InvalidRequest, "{headers:?}");
    }
    assert_eq!(code("PUT", "/bkt/k", &[("content-md5", "AA==")]), ErrorCode::InvalidDigest);
    assert_eq!(code("PUT", "/bkt/k", &[("content-md5", "")]), ErrorCode::InvalidDigest);
}

#[test]
fn hoisted_headers_are_the_headers_that_they_are() {
    let presigned = "X-Amz-Algorithm=A&X-Amz-Credential=c&X-Amz-Date=d&X-Amz-Expires=1&X-Amz-SignedHeaders=host\
                     &X-Amz-Signature=s";
    let uri = format!(
        "/bkt/k?{presigned}&Content-Type=text%2Fplain&X-Amz-Meta-A=1%202&x-amz-checksum-crc32=lZe8jQ%3D%3D\
         &x-amz-sdk-checksum-algorithm=CRC32&If-None-Match=%2A&x-id=PutObject"
    );
    let put = expect!(PutObject, ok("PUT", &uri, &[("content-type", "text/plain")]));
    assert_eq!(put.headers.system.content_type.as_deref(), Some("text/plain"));
    assert_eq!(put.headers.user_metadata.iter().collect::<Vec<_>>(), [("a", "1 2")]);
    assert_eq!(put.condition, Some(WriteCondition::IfNoneMatch(WriteTag::Any)));
    assert!(put.body.integrity.checksum.is_some());
    assert_eq!(code("PUT", &uri, &[("content-type", "text/html")]), ErrorCode::InvalidRequest);
    let algorithm_only = format!("/bkt/k?{presigned}&x-amz-sdk-checksum-algorithm=CRC32");
    let put = expect!(PutObject, ok("PUT", &algorithm_only, &[]));
    assert_eq!(put.body.integrity.checksum, None);
    let nothing =
        format!("/bkt/k?{presigned}&x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32");
    let put = expect!(PutObject, ok("PUT", &nothing, &[]));
    assert_eq!(put.body.integrity.checksum, None, "signed before there was a body");
    let put = expect!(PutObject, ok("PUT", "/bkt/k", &[("x-amz-checksum-crc32", "AAAAAA==")]));
    assert!(put.body.integrity.checksum.is_some(), "sent with the body");
    let unknown = format!("/bkt/k?{presigned}&x-amz-surprise=1");
    assert_eq!(code("PUT", &unknown, &[]), ErrorCode::NotImplemented);
    let tagged = format!("/bkt/k?{presigned}&x-amz-tagging=a%3Db");
    let tags = expect!(PutObject, ok("PUT", &tagged, &[])).headers.tags;
    assert_eq!(tags.iter().collect::<Vec<_>>(), [("a", "b")]);
    let refused = format!("/bkt/k?{presigned}&x-amz-write-offset-bytes=1");
    assert_eq!(code("PUT", &refused, &[]), ErrorCode::NotImplemented);
}

#[test]
fn get_object_carries_ranges_conditions_and_overrides() {
    let get = expect!(
        GetObject,
        ok(
            "GET",
            "/bkt/k?response-content-type=text%2Fplain&response-expires=0&versionId=null",
            &[
                ("range", "bytes=0-9"),
                ("if-match", "\"a\", \"b-0\""),
                ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ("if-unmodified-since", "garbage"),
                ("x-amz-checksum-mode", "enabled"),
            ]
        )
    );
    assert_eq!(get.range, Some(RangeSpec::Inclusive { first: 0, last: 9 }));
    assert_eq!(get.conditions.if_match, EtagCondition::parse("a,b-0"));
    assert_eq!(get.conditions.if_modified_since_ms, Some(784_111_777_000));
    assert_eq!(get.conditions.if_unmodified_since_ms, None);
    let overrides: Vec<_> = get.overrides.headers.iter().collect();
    assert_eq!(overrides, [("content-type", "text/plain"), ("expires", "0")]);
    assert!(get.checksum_mode && get.version.is_some_and(|version| version.is_null()));
    assert_eq!(expect!(GetObject, ok("GET", "/bkt/k?partNumber=7", &[])).part_number, Some(7));
    let cases: &[(&str, Headers<'_>, ErrorCode)] = &[
        ("partNumber=0", &[], ErrorCode::InvalidArgument),
        ("partNumber=10001", &[], ErrorCode::InvalidArgument),
        ("partNumber=+1", &[], ErrorCode::InvalidArgument),
        ("partNumber=1&partNumber=1", &[], ErrorCode::InvalidArgument),
        ("partNumber=1", &[("range", "bytes=0-1")], ErrorCode::InvalidRequest),
        ("versionId=", &[], ErrorCode::InvalidArgument),
        ("versionId=a%20b", &[], ErrorCode::InvalidArgument),
        ("response-content-type=a%0d%0aSet-Cookie:x", &[], ErrorCode::InvalidArgument),
        ("", &[("if-match", "\"a")], ErrorCode::InvalidArgument),
        ("", &[("x-amz-checksum-mode", "MAYBE")], ErrorCode::InvalidArgument),
    ];
    for (query, headers, expected) in cases {
        assert_eq!(code("GET", &format!("/bkt/k?{query}"), headers), *expected, "{query} {headers:?}");
    }
}

#[test]
fn an_unreadable_if_range_drops_the_range() {
    let get = |value| expect!(GetObject, ok("GET", "/bkt/k", &[("range", "bytes=0-9"), ("if-range", value)]));
    assert!(get("\"a\"").range.is_some() && get("\"a\"").if_range.is_some());
    assert!(get("\"a").range.is_none());
}

#[test]
fn copies_name_their_source() {
    let source = |text: &str| {
        let headers = [("x-amz-copy-source", text)];
        request("PUT", "/bkt/k", &headers).map(|op| expect!(CopyObject, op).source)
    };
    for (text, bucket, key) in [
        ("/src/a%20b%2Bc", "src", "a b+c"),
        ("src/a+b", "src", "a+b"),
        ("src//a", "src", "/a"),
        ("src%2Fü", "src", "ü"),
        ("src/k?versionId=null", "src", "k"),
        ("src/k?x", "src", "k?x"),
    ] {
        let source = source(text).unwrap();
        assert_eq!((source.bucket.as_str(), source.key.as_str()), (bucket, key), "{text}");
    }
    for text in ["", "src", "src/", "/src", "src/%zz"] {
        assert_eq!(source(text).unwrap_err().code(), ErrorCode::InvalidArgument, "{text}");
    }
    assert_eq!(source("S/k").unwrap_err().code(), ErrorCode::InvalidBucketName);
}

#[test]
fn a_copy_may_put_an_older_version_of_a_key_on_top_again() {
    let copy = |source: &str| request("PUT", "/bkt/k", &[("x-amz-copy-source", source)]);
    let older = expect!(CopyObject, copy("bkt/k?versionId=v%2B1").unwrap());
    assert_eq!(older.source.version.unwrap().as_str(), "v+1");
    assert_eq!(copy("bkt/k").unwrap_err().code(), ErrorCode::InvalidRequest);
    assert_eq!(copy("bkt/k?versionId=").unwrap_err().code(), ErrorCode::InvalidArgument);
}

#[test]
fn a_lock_is_whole_or_refused() {
    const UNTIL: (&str, &str) = ("x-amz-object-lock-retain-until-date", "2030-01-01T00:00:00Z");
    const MODE: (&str, &str) = ("x-amz-object-lock-mode", "GOVERNANCE");
    let hold = |value| ("x-amz-object-lock-legal-hold", value);
    for (method, uri, more) in
        [("PUT", "/bkt/k", &[][..]), ("POST", "/bkt/k?uploads", &[]), ("PUT", "/bkt/k", SOURCE)]
    {
        let headers = [&[UNTIL, MODE, hold("ON")], more].concat();
        let lock = match ok(method, uri, &headers) {
            Operation::PutObject(op) => op.headers.lock,
            Operation::CreateMultipartUpload(op) => op.headers.lock,
            Operation::CopyObject(op) => op.headers.lock,
            other => panic!("{:?}", other.kind()),
        };
        assert_eq!(lock.legal_hold.unwrap().as_str(), "ON");
        assert_eq!(lock.retention.unwrap().until.as_str(), UNTIL.1);
    }
    for headers in [
        &[UNTIL][..],
        &[MODE],
        &[MODE, ("x-amz-object-lock-retain-until-date", "soon")],
        &[UNTIL, ("x-amz-object-lock-mode", "governance")],
        &[hold("on")],
    ] {
        assert_eq!(code("PUT", "/bkt/k", headers), ErrorCode::InvalidArgument, "{headers:?}");
    }
    assert!(
        expect!(CreateBucket, ok("PUT", "/bkt", &[("x-amz-bucket-object-lock-enabled", "true")])).object_lock
    );
    let bypass = ("x-amz-bypass-governance-retention", "TRUE");
    assert!(
        expect!(PutObjectRetention, ok("PUT", "/bkt/k?retention&versionId=v", &[bypass])).bypass_governance
    );
    assert_eq!(code("PUT", "/bkt/k?tagging", &[bypass]), ErrorCode::NotImplemented);
    let odd = ("x-amz-bypass-governance-retention", "1");
    assert_eq!(code("DELETE", "/bkt/k", &[odd]), ErrorCode::InvalidArgument);
}

#[test]
fn tags_that_break_a_rule_are_refused_before_anything_is_stored() {
    assert_eq!(code("PUT", "/bkt/k", &[("x-amz-tagging", "a=1&a=2")]), ErrorCode::InvalidTag);
    assert_eq!(code("PUT", "/bkt/k", &[("x-amz-tagging", "a=%ff")]), ErrorCode::InvalidArgument);
    let none = expect!(PutObject, ok("PUT", "/bkt/k", &[("x-amz-tagging", "")]));
    assert!(none.headers.tags.is_empty());
}

#[test]
fn a_listing_of_versions_goes_on_behind_a_version_of_a_key() {
    let list = expect!(
        ListObjectVersions,
        ok("GET", "/bkt?versions&prefix=a&key-marker=a%2Fb&version-id-marker=v1&max-keys=2000", &[])
    );
    assert_eq!((list.prefix.as_str(), list.key_marker.as_str(), list.max_keys), ("a", "a/b", 1000));
    assert_eq!(list.version_id_marker.unwrap().as_str(), "v1");
    assert_eq!(code("GET", "/bkt?versions&version-id-marker=v1", &[]), ErrorCode::InvalidArgument);
    assert!(request("GET", "/bkt?versions&version-id-marker=&key-marker=", &[]).is_ok());
}

#[test]
fn copies_carry_directives_and_conditions() {
    let copy = expect!(
        CopyObject,
        ok(
            "PUT",
            "/bkt/k",
            &[
                ("x-amz-copy-source", "src/k"),
                ("x-amz-metadata-directive", "REPLACE"),
                ("x-amz-tagging-directive", "REPLACE"),
                ("x-amz-copy-source-if-match", "\"a\""),
                ("x-amz-checksum-algorithm", "SHA256"),
                ("x-amz-meta-a", "1"),
                ("if-match", "\"d\""),
            ]
        )
    );
    assert_eq!(copy.metadata_directive, MetadataDirective::Replace);
    assert_eq!(copy.source.conditions.if_match, EtagCondition::parse("a"));
    assert_eq!(copy.checksum_algorithm, Some(ChecksumAlgorithm::Sha256));
    assert!(
        matches!(copy.condition, Some(WriteCondition::IfMatch(WriteTag::Tag(tag))) if tag.as_str() == "d")
    );
    let onto_itself: Headers<'_> = &[("x-amz-copy-source", "bkt/k")];
    assert_eq!(code("PUT", "/bkt/k", onto_itself), ErrorCode::InvalidRequest);
    let renewed: Headers<'_> = &[("x-amz-copy-source", "bkt/k"), ("x-amz-metadata-directive", "REPLACE")];
    assert_eq!(ok("PUT", "/bkt/k", renewed).copy_source().unwrap().key.as_str(), "k");
    let odd: Headers<'_> = &[("x-amz-copy-source", "src/k"), ("x-amz-metadata-directive", "MERGE")];
    assert_eq!(code("PUT", "/bkt/k", odd), ErrorCode::InvalidArgument);
}

#[test]
fn listings_carry_their_page() {
    let list = expect!(
        ListObjectsV2,
        ok(
            "GET",
            "/bkt?list-type=2&prefix=a%2Fb+c&delimiter=%2F&start-after=x&continuation-token=t&max-keys=0\
             &fetch-owner=true&encoding-type=url",
            &[]
        )
    );
    assert_eq!((list.prefix.as_str(), list.delimiter.as_deref()), ("a/b c", Some("/")));
    assert_eq!((list.max_keys, list.fetch_owner, list.encoding_type), (0, true, Some(EncodingType::Url)));
    let list = expect!(ListObjects, ok("GET", "/bkt?max-keys=5000&delimiter=&marker=m", &[]));
    assert_eq!((list.max_keys, list.delimiter, list.marker.as_str()), (1000, None, "m"));
    let list = expect!(ListObjects, ok("GET", "/bkt?max-keys=&prefix", &[]));
    assert_eq!((list.max_keys, list.prefix.as_str()), (1000, ""));
    for query in [
        "max-keys=-1",
        "max-keys=x",
        "max-keys=2147483648",
        "encoding-type=base64",
        "prefix=a&prefix=b",
        "allow-unordered=true&delimiter=/",
    ] {
        assert_eq!(code("GET", &format!("/bkt?{query}"), &[]), ErrorCode::InvalidArgument, "{query}");
    }
    expect!(ListObjects, ok("GET", "/bkt?allow-unordered=true", &[]));
    let list = expect!(ListObjectsV2, ok("GET", "/bkt?list-type=2&continuation-token=", &[]));
    assert_eq!(list.continuation_token.as_deref(), Some(""));
    let uploads = expect!(ListMultipartUploads, ok("GET", "/bkt?uploads&max-uploads=3&key-marker=k", &[]));
    assert_eq!((uploads.max_uploads, uploads.key_marker.as_str()), (3, "k"));
    let buckets = expect!(ListBuckets, ok("GET", "/?max-buckets=5&prefix=p", &[]));
    assert_eq!((buckets.max_buckets, buckets.prefix.as_str()), (5, "p"));
}

#[test]
fn multipart_inputs_are_checked() {
    let create = |headers| request("POST", "/bkt/k?uploads", headers);
    let full = expect!(
        CreateMultipartUpload,
        create(&[("x-amz-checksum-algorithm", "CRC32"), ("x-amz-checksum-type", "FULL_OBJECT")]).unwrap()
    );
    assert_eq!(full.checksum_type, Some(ChecksumType::FullObject));
    for headers in [
        &[("x-amz-checksum-algorithm", "SHA256"), ("x-amz-checksum-type", "FULL_OBJECT")][..],
        &[("x-amz-checksum-algorithm", "CRC64NVME"), ("x-amz-checksum-type", "COMPOSITE")],
        &[("x-amz-checksum-type", "COMPOSITE")],
        &[("x-amz-checksum-algorithm", "CRC9")],
    ] {
        assert_eq!(create(headers).unwrap_err().code(), ErrorCode::InvalidRequest, "{headers:?}");
    }
    assert_eq!(code("PUT", "/bkt/k?partNumber=0&uploadId=u", &[]), ErrorCode::InvalidArgument);
    assert_eq!(code("PUT", "/bkt/k?partNumber=1&uploadId=", &[]), ErrorCode::NoSuchUpload);
    let complete = expect!(
        CompleteMultipartUpload,
        ok(
            "POST",
            "/bkt/k?uploadId=u",
            &[
                ("x-amz-checksum-crc32", "lZe8jQ==-3"),
                ("x-amz-checksum-type", "COMPOSITE"),
                ("x-amz-mp-object-size", "77"),
                ("if-none-match", "*"),
            ]
        )
    );
    assert_eq!(complete.checksum, ObjectChecksum::parse(ChecksumAlgorithm::Crc32, "lZe8jQ==-3").ok());
    assert_eq!((complete.object_size, complete.body.integrity.checksum), (Some(77), None));
    let part = expect!(
        UploadPartCopy,
        ok(
            "PUT",
            "/bkt/k?partNumber=10000&uploadId=u",
            &[("x-amz-copy-source", "src/k"), ("x-amz-copy-source-range", "bytes=5-9")]
        )
    );
    assert_eq!(part.source_range, Some(RangeSpec::Inclusive { first: 5, last: 9 }));
    let broken: Headers<'_> = &[("x-amz-copy-source", "src/k"), ("x-amz-copy-source-range", "bytes=5-")];
    assert_eq!(code("PUT", "/bkt/k?partNumber=1&uploadId=u", broken), ErrorCode::InvalidArgument);
    let parts = expect!(ListParts, ok("GET", "/bkt/k?uploadId=u&part-number-marker=99999&max-parts=2", &[]));
    assert_eq!((parts.part_number_marker, parts.max_parts), (10_000, 2));
}

#[test]
fn attributes_are_named() {
    let get = expect!(
        GetObjectAttributes,
        ok(
            "GET",
            "/bkt/k?attributes",
            &[
                ("x-amz-object-attributes", "ETag, ObjectSize"),
                ("x-amz-object-attributes", "Checksum"),
                ("x-amz-max-parts", "9999"),
            ]
        )
    );
    let wanted = ObjectAttributes { etag: true, object_size: true, checksum: true, ..Default::default() };
    assert_eq!((get.attributes, get.max_parts), (wanted, 1000));
    assert_eq!(code("GET", "/bkt/k?attributes", &[]), ErrorCode::InvalidRequest);
    let odd: Headers<'_> = &[("x-amz-object-attributes", "Colour")];
    assert_eq!(code("GET", "/bkt/k?attributes", odd), ErrorCode::InvalidArgument);
}

#[test]
fn the_table_tells_every_request_apart() {
    let rows: Vec<_> = table().collect();
    for (index, row) in rows.iter().enumerate() {
        for other in &rows[index + 1..] {
            let same =
                row.method == other.method && row.target == other.target && row.selectors == other.selectors;
            assert!(!same, "{} and {}", row.name, other.name);
        }
        let selectors = row.selectors.iter();
        let headers: Vec<_> = row.headers.iter().flat_map(|group| group.iter()).map(|p| p.name).collect();
        for selector in selectors {
            if let Selector::Header(name) = selector {
                assert!(headers.contains(name), "{} is selected by {name} but does not list it", row.name);
            }
        }
    }
    for &kind in OperationKind::ALL {
        assert_eq!(rows.iter().filter(|row| row.served == Some(kind)).count(), 1, "{}", kind.as_str());
    }
}

#[test]
fn no_refused_header_is_accepted_anywhere() {
    for row in table() {
        for parameter in row.headers.iter().flat_map(|group| group.iter()) {
            let is_refused = REFUSED_HEADERS.iter().any(|refused| refused.covers(parameter.name));
            assert!(!is_refused, "{} of {}", parameter.name, row.name);
        }
    }
}

proptest! {
    #[test]
    fn no_request_makes_it_panic(
        method in "GET|PUT|POST|DELETE|HEAD|OPTIONS|X",
        path in "/[a-z%0-9/.+]{0,30}",
        query in "(list-type=2&|uploads&|uploadId=u&|partNumber=1&|X-Amz-Signature=s&)?[a-zA-Z0-9=&%+-]{0,40}",
        name in "(x-amz-[a-z-]{1,30}|range|origin|access-control-request-[a-z]{1,9}|if-[a-z-]{1,10}|content-[a-z5]{1,8})",
        value in "\\PC{0,30}",
    ) {
        let method: Method = method.parse().unwrap();
        if let Ok(uri) = format!("{path}?{query}").parse::<Uri>() {
            let mut headers = HeaderMap::new();
            headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
            let head = RequestHead::new(&method, &uri, &headers);
            let _ = classify(&head, &VirtualHosts::default());
            let _ = Accompanying::read(&head);
        }
    }

    #[test]
    fn an_unknown_parameter_is_never_ignored(name in "[a-z]{3,12}Q", at in 0usize..5) {
        let (method, uri) = [
            ("GET", "/bkt/k?"), ("PUT", "/bkt/k?"), ("DELETE", "/bkt?"), ("GET", "/bkt?list-type=2&"), ("POST", "/bkt?delete&"),
        ][at];
        prop_assert_eq!(code(method, &format!("{uri}{name}"), &[]), ErrorCode::NotImplemented);
    }
}
