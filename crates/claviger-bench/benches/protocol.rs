//! What the S3 protocol costs a request: signatures, chunked bodies, listings.
//!
//! ```text
//! cargo bench -p claviger-bench --bench protocol
//! ```
#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on should stop where it stands")]
#![allow(missing_docs, reason = "Criterion's macros make functions without any")]

use std::fmt::Write as _;
use std::hint::black_box;

use claviger_s3::sigv4::{PayloadHash, SecretAccessKey, Signer, SigningKey, sign};
use claviger_s3::xml::ListObjectsV2Result;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::Method;
use http::header::{HOST, HeaderMap, HeaderValue};

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

fn signature(criterion: &mut Criterion) {
    let key = SigningKey::for_time(&SecretAccessKey::new("secret-of-a-benchmark"), NOW_MS, "eu-central-1");
    let signer = Signer { access_key_id: "BENCH", key: &key, session_token: None };
    let mut plain = HeaderMap::new();
    plain.insert(HOST, HeaderValue::from_static("s3.eu-central-1.amazonaws.com"));
    criterion.bench_function("a request, signed", |b| {
        b.iter(|| {
            let mut headers = plain.clone();
            let path = black_box("/vault/2026/11/scan-0000001.dcm");
            sign(&signer, &Method::GET, path, "", &mut headers, PayloadHash::Empty, NOW_MS).unwrap();
            headers
        });
    });
}

criterion_group!(benches, listing, signature);
criterion_main!(benches);
