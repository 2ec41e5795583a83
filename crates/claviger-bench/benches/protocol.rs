//! What the S3 protocol costs a request: signatures, chunked bodies, listings.
//!
//! ```text
//! cargo bench -p claviger-bench --bench protocol
//! ```
#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on should stop where it stands")]
#![allow(missing_docs, reason = "Criterion's macros make functions without any")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use claviger_s3::aws_chunked::{Decoder, Framing};
use claviger_s3::sigv4::{PayloadHash, Presented, SecretAccessKey, Signer, SigningKey, VerifyPolicy, sign};
use claviger_s3::timestamp::parse_amz_date;
use claviger_s3::xml::ListObjectsV2Result;
use claviger_s3::{Authenticated, RequestHead};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};

const NOW_MS: u64 = 1_750_000_000_000;

/// A page with this between the parts of its names.
fn page(slash: &str) -> String {
    let mut page = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>vault</Name><Prefix/><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>\
         <IsTruncated>false</IsTruncated><KeyCount>1000</KeyCount>",
    );
    for number in 0..1000 {
        write!(
            page,
            "<Contents><Key>2026{slash}11{slash}scan-{number:07}.dcm</Key><LastModified>2026-11-22T10:00:00.000Z</LastModified>\
             <ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><Size>{}</Size>\
             <StorageClass>STANDARD</StorageClass></Contents>",
            1024 + 360
        )
        .unwrap();
    }
    page.push_str("</ListBucketResult>");
    page
}

fn listing(criterion: &mut Criterion) {
    let (plain, escaped) = (page("/"), page("%2F"));
    let parsed = ListObjectsV2Result::parse(plain.as_bytes()).unwrap();
    let mut group = criterion.benchmark_group("a page of 1,000 names");
    group.throughput(Throughput::Elements(1000));
    for (name, page) in [("read", &plain), ("read, with escapes", &escaped)] {
        group.bench_function(name, |b| {
            b.iter(|| ListObjectsV2Result::parse(black_box(page.as_bytes())).unwrap());
        });
    }
    group.bench_function("written", |b| b.iter(|| black_box(&parsed).to_xml()));
    group.finish();
}

fn signatures(criterion: &mut Criterion) {
    let secret = SecretAccessKey::new("secret-of-a-benchmark");
    let key = Arc::new(SigningKey::for_time(&secret, NOW_MS, "eu-central-1"));
    let signer = Signer { access_key_id: "BENCH", key: &key, session_token: None };
    let mut plain = HeaderMap::new();
    plain.insert(HOST, HeaderValue::from_static("s3.eu-central-1.amazonaws.com"));
    let path = "/vault/2026/11/scan-0000001.dcm";
    let signed = || {
        let mut headers = plain.clone();
        let path = black_box(path);
        sign(&signer, &Method::GET, path, "", &mut headers, PayloadHash::Empty, NOW_MS).unwrap();
        headers
    };
    criterion.bench_function("a request, signed", |b| b.iter(signed));
    let (uri, headers) = (Uri::from_static(path), signed());
    criterion.bench_function("a signature, read and verified", |b| {
        b.iter(|| verify(&RequestHead::new(&Method::GET, &uri, black_box(&headers)), &key, NOW_MS));
    });
}

/// With a key that was derived before: the gateway keeps it for a day.
fn verify(head: &RequestHead<'_>, key: &Arc<SigningKey>, now_ms: u64) -> Authenticated {
    Presented::parse(head).unwrap().verify(head, key, &VerifyPolicy::default(), now_ms).unwrap()
}

/// As much as a connection gives at once.
const PIECE_LEN: usize = 16 << 10;

/// The pieces of a body.
fn pieces(body: Vec<u8>) -> Vec<Bytes> {
    let mut body = Bytes::from(body);
    let mut pieces = Vec::new();
    while !body.is_empty() {
        pieces.push(body.split_to(PIECE_LEN.min(body.len())));
    }
    pieces
}

/// Bytes of payload in a body.
fn payload_len(mut decoder: Decoder, pieces: &[Bytes]) -> u64 {
    let mut len = 0;
    for piece in pieces {
        let mut input = piece.clone();
        while let Some(payload) = decoder.decode(&mut input).unwrap() {
            len += payload.len() as u64;
        }
    }
    decoder.finish().unwrap();
    len
}

fn chunked(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aws-chunked");
    let (trailed, trailed_len) = unsigned_with_trailer();
    // Payload is handed on as it lies there, and not looked at: the time is that of the framing.
    group.throughput(Throughput::Elements(CHUNKS));
    group.bench_function("unsigned, with a trailer, a chunk of 64 KiB", |b| {
        b.iter_batched(
            || Decoder::new(Framing::UnsignedTrailer, trailed_len, Some(TRAILER)),
            |decoder| assert_eq!(payload_len(decoder, black_box(&trailed)), trailed_len),
            BatchSize::SmallInput,
        );
    });
    let (request, signed) = (published_request(), pieces(published_chunks()));
    group.throughput(Throughput::Bytes(PUBLISHED_LEN));
    group.bench_function("signed, the example of the API reference", |b| {
        b.iter_batched(
            || Decoder::new(request.framing().unwrap(), PUBLISHED_LEN, None),
            |decoder| assert_eq!(payload_len(decoder, black_box(&signed)), PUBLISHED_LEN),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

const TRAILER: &str = "x-amz-checksum-crc32";
const CHUNKS: u64 = 16;

/// A body of 1 MiB as SDKs send it by default, and the bytes of its payload. Whether the checksum is right, the decoder does not say.
fn unsigned_with_trailer() -> (Vec<Bytes>, u64) {
    let chunk = vec![b'a'; 64 << 10];
    let mut body = Vec::new();
    for _ in 0..CHUNKS {
        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(&chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("0\r\n{TRAILER}:AAAAAA==\r\n\r\n").as_bytes());
    (pieces(body), CHUNKS * chunk.len() as u64)
}

/// Payload of the chunked upload that the S3 API reference gives as its example ("Signature calculations … transferring payload in
/// multiple chunks"): a chunk of 64 KiB, one of 1 KiB, and the end.
const PUBLISHED_LEN: u64 = 66_560;

fn published_request() -> Authenticated {
    let names = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
                 x-amz-storage-class";
    let signature = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    let scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={scope},SignedHeaders={names},Signature={signature}");
    let date = "20130524T000000Z";
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (HOST, "s3.amazonaws.com"),
        (HeaderName::from_static("x-amz-date"), date),
        (HeaderName::from_static("x-amz-storage-class"), "REDUCED_REDUNDANCY"),
        (HeaderName::from_static("x-amz-content-sha256"), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        (HeaderName::from_static("content-encoding"), "aws-chunked"),
        (HeaderName::from_static("x-amz-decoded-content-length"), "66560"),
        (HeaderName::from_static("content-length"), "66824"),
        (AUTHORIZATION, authorization.as_str()),
    ] {
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    let uri = Uri::from_static("/examplebucket/chunkObject.txt");
    let secret = SecretAccessKey::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    let now_ms = parse_amz_date(date).unwrap();
    let key = Arc::new(SigningKey::for_time(&secret, now_ms, "us-east-1"));
    verify(&RequestHead::new(&Method::PUT, &uri, &headers), &key, now_ms)
}

fn published_chunks() -> Vec<u8> {
    let mut body = Vec::new();
    for (len, signature) in [
        (65_536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        (1_024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ] {
        body.extend_from_slice(format!("{len:x};chunk-signature={signature}\r\n").as_bytes());
        body.extend(std::iter::repeat_n(b'a', len));
        body.extend_from_slice(b"\r\n");
    }
    body
}

criterion_group!(benches, listing, signatures, chunked);
criterion_main!(benches);
