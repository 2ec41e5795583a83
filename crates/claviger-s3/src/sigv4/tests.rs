//! Known answers of the S3 API reference, a real request of an SDK, and what must be refused.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use proptest::prelude::*;

use super::*;
use crate::authentication::Authenticated;
use crate::aws_chunked::{Decoder, Framing, Trailers};
use crate::error::{ErrorCode, S3Error};
use crate::request::RequestHead;
use crate::timestamp::parse_amz_date;

const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const DATE: &str = "20130524T000000Z";
const SCOPE: &str = "20130524/us-east-1/s3/aws4_request";

struct Sent {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Sent {
    fn new(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        Self { method: method.parse().unwrap(), uri: uri.parse().unwrap(), headers: headers.collect() }
    }

    /// Adds an `Authorization` with the scope of the published examples.
    fn signed(mut self, names: &str, signature: &str) -> Self {
        let value =
            format!("AWS4-HMAC-SHA256 Credential={ID}/{SCOPE},SignedHeaders={names},Signature={signature}");
        self.headers.insert("authorization", value.parse().unwrap());
        self
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead::new(&self.method, &self.uri, &self.headers)
    }

    fn verify_at(&self, now: &str) -> Result<Authenticated, S3Error> {
        let presented = Presented::parse(&self.head())?;
        let key = Arc::new(presented.signing_key(&SecretAccessKey::new(SECRET)));
        let now_ms = parse_amz_date(now).unwrap();
        presented.verify(&self.head(), &key, &VerifyPolicy::default(), now_ms)
    }

    fn verify(&self) -> Result<Authenticated, S3Error> {
        self.verify_at(DATE)
    }

    fn refused(&self) -> ErrorCode {
        self.verify().unwrap_err().code()
    }
}

const HOST: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
const AMZ_DATE: (&str, &str) = ("x-amz-date", DATE);
const NO_BODY: (&str, &str) = ("x-amz-content-sha256", EMPTY_SHA256);

fn published_get() -> Sent {
    Sent::new("GET", "/test.txt", &[HOST, ("range", "bytes=0-9"), NO_BODY, AMZ_DATE]).signed(
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    )
}

fn presigned_uri(signature: &str) -> String {
    format!(
        "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={ID}%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date={DATE}&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature={signature}"
    )
}

const PRESIGNED: &str = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";

#[test]
fn the_published_get_is_what_signing_gives() {
    let secret = SecretAccessKey::new(SECRET);
    let now_ms = parse_amz_date(DATE).unwrap();
    let signer = Signer {
        access_key_id: ID,
        key: &SigningKey::for_time(&secret, now_ms, "us-east-1"),
        session_token: None,
    };
    let mut sent = Sent::new("GET", "/test.txt", &[HOST, ("range", "bytes=0-9")]);
    sign(&signer, &Method::GET, "/test.txt", "", &mut sent.headers, PayloadHash::Empty, now_ms).unwrap();
    let published = published_get();
    let authorization = |sent: &Sent| sent.headers["authorization"].to_str().unwrap().replace(", ", ",");
    assert_eq!(authorization(&sent), authorization(&published));
    for (name, value) in [NO_BODY, AMZ_DATE] {
        assert_eq!(sent.headers[name], value);
    }
}

#[test]
fn each_payload_has_the_hash_or_the_name_that_s3_knows_it_by() {
    const OF_A: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    for (payload, text) in [
        (PayloadHash::Unsigned, "UNSIGNED-PAYLOAD"),
        (PayloadHash::UnsignedTrailer, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        (PayloadHash::Empty, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (PayloadHash::Body(b"a"), OF_A),
        (PayloadHash::Sha256(unhex32(OF_A).unwrap()), OF_A),
    ] {
        assert_eq!(payload.to_text(), text);
    }
}

#[test]
fn the_published_get_verifies() {
    let verified = published_get().verify().unwrap();
    assert_eq!((verified.access_key_id(), verified.framing().is_none()), (ID, true));
}

#[test]
fn the_published_put_verifies() {
    let hash = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    let sent = Sent::new(
        "PUT",
        "/test$file.text",
        &[
            HOST,
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-content-sha256", hash),
            AMZ_DATE,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ],
    )
    .signed(
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    );
    assert_eq!(sent.verify().unwrap().payload(), PayloadMode::Sha256(unhex32(hash).unwrap()));
}

#[test]
fn the_published_bucket_requests_verify() {
    let cases = [
        ("/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ("/?prefix=J&max-keys=2", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ];
    for (uri, signature) in cases {
        let sent = Sent::new("GET", uri, &[HOST, NO_BODY, AMZ_DATE])
            .signed("host;x-amz-content-sha256;x-amz-date", signature);
        assert!(sent.verify().is_ok(), "{uri}");
    }
}

#[test]
fn the_published_presigned_get_verifies_for_a_day() {
    let sent = Sent::new("GET", &presigned_uri(PRESIGNED), &[HOST]);
    assert_eq!(sent.verify().unwrap().payload(), PayloadMode::Unsigned);
    assert!(sent.verify_at("20130525T000000Z").is_ok());
    let error = sent.verify_at("20130525T000001Z").unwrap_err();
    assert_eq!((error.code(), error.message()), (ErrorCode::AccessDenied, "Request has expired"));
    assert!(sent.verify_at("20130523T235000Z").is_ok());
    let error = sent.verify_at("20130523T234000Z").unwrap_err();
    assert_eq!((error.code(), error.message()), (ErrorCode::AccessDenied, "Request is not valid yet"));
}

/// The published request in three chunks: 64 KiB, 1 KiB and the end.
fn published_chunked() -> Sent {
    Sent::new(
        "PUT",
        "/examplebucket/chunkObject.txt",
        &[
            ("host", "s3.amazonaws.com"),
            AMZ_DATE,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            ("content-length", "66824"),
        ],
    )
    .signed(
        "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
         x-amz-storage-class",
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    )
}

fn chunk(body: &mut Vec<u8>, len: usize, signature: &str) {
    body.extend_from_slice(format!("{len:x};chunk-signature={signature}\r\n").as_bytes());
    if len > 0 {
        body.extend(std::iter::repeat_n(b'a', len));
        body.extend_from_slice(b"\r\n");
    }
}

fn published_chunks() -> Vec<u8> {
    let mut body = Vec::new();
    chunk(&mut body, 65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648");
    chunk(&mut body, 1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497");
    chunk(&mut body, 0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9");
    body.extend_from_slice(b"\r\n");
    assert_eq!(body.len(), 66824);
    body
}

fn decode(
    framing: Framing,
    len: u64,
    name: Option<&'static str>,
    body: &[u8],
    piece: usize,
) -> Result<(usize, Trailers), S3Error> {
    let mut decoder = Decoder::new(framing, len, name);
    let mut payload_len = 0;
    for piece in body.chunks(piece) {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(payload) = decoder.decode(&mut input)? {
            payload_len += payload.len();
        }
    }
    Ok((payload_len, decoder.finish()?))
}

#[test]
fn the_published_chunks_verify_however_they_are_cut() {
    for piece in [1, 83, 84, 85, 1000, 70_000] {
        let framing = published_chunked().verify().unwrap().framing().unwrap();
        assert_eq!(decode(framing, 66560, None, &published_chunks(), piece).unwrap().0, 66560);
    }
}

#[test]
fn a_flipped_or_missing_chunk_does_not_verify() {
    let body = published_chunks();
    for at in [0, 20, 100, 65_000, 65_700, 66_000, 66_780] {
        let mut bad = body.clone();
        bad[at] ^= 1;
        let framing = published_chunked().verify().unwrap().framing().unwrap();
        assert!(decode(framing, 66560, None, &bad, 4096).is_err(), "byte {at}");
    }
    let without_second = [&body[..65536 + 90], &body[body.len() - 88..]].concat();
    let framing = published_chunked().verify().unwrap().framing().unwrap();
    assert!(decode(framing, 65536, None, &without_second, 4096).is_err());
}

#[test]
fn the_published_signed_trailer_verifies() {
    let sent = Sent::new(
        "PUT",
        "/examplebucket/chunkObject.txt",
        &[
            ("host", "s3.amazonaws.com"),
            AMZ_DATE,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            ("x-amz-trailer", "x-amz-checksum-crc32c"),
        ],
    )
    .signed(
        "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;\
         x-amz-trailer",
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    );
    for end in ["\r\n", "\n\r\n"] {
        let mut body = Vec::new();
        chunk(&mut body, 65536, "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2");
        chunk(&mut body, 1024, "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7");
        chunk(&mut body, 0, "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992");
        let trailer = format!(
            "x-amz-checksum-crc32c:sOO8/Q=={end}\
             x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
        );
        body.extend_from_slice(trailer.as_bytes());
        let framing = sent.verify().unwrap().framing().unwrap();
        let (len, trailers) = decode(framing, 66560, Some("x-amz-checksum-crc32c"), &body, 4096).unwrap();
        assert_eq!((len, trailers.get("x-amz-checksum-crc32c")), (66560, Some("sOO8/Q==")));
        let bad = String::from_utf8(body).unwrap().replace("sOO8", "sOO9");
        let framing = sent.verify().unwrap().framing().unwrap();
        let error = decode(framing, 66560, Some("x-amz-checksum-crc32c"), bad.as_bytes(), 4096).unwrap_err();
        assert_eq!(error.code(), ErrorCode::SignatureDoesNotMatch);
    }
}

/// What aws-sdk-s3 1.157.0 sent for 100 times `A`, with the key pair A / B: chunk and trailer signatures follow from
/// the seed.
#[test]
fn a_signed_trailer_of_a_real_sdk_verifies() {
    let key = SigningKey::derive(&SecretAccessKey::new("B"), "20261121", "us-east-1", "s3");
    let seed = unhex32("7d7aa7d4ff4ea1d3404e0c6a1095d7c177a8f6fb1ee2746d9c43c4ea6452d735").unwrap();
    let body = format!(
        "64;chunk-signature=6493c52b06049fa30ebe9ea8ad9a408f8f0b05d4047fb42b469009eeff074f61\r\n{}\r\n\
         0;chunk-signature=81c531c662ca763c4584b5c3e9c37d6c6803c731d14e8fcc9b8b6c7bc586991b\r\n\
         x-amz-checksum-crc32:lZe8jQ==\r\n\
         x-amz-trailer-signature:ee845091a37eeaf931b3bb21034471900bd348be27193f4880b081b42f926d41\r\n\r\n",
        "A".repeat(100)
    );
    assert_eq!(body.len(), 394);
    let key = Arc::new(key);
    for piece in 1..=body.len() {
        let verifier = ChunkVerifier::new(Arc::clone(&key), "20261121T185533Z".to_owned(), seed);
        let framing = Framing::Signed { verifier, trailer: true };
        let (len, trailers) =
            decode(framing, 100, Some("x-amz-checksum-crc32"), body.as_bytes(), piece).unwrap();
        assert_eq!((len, trailers.get("x-amz-checksum-crc32")), (100, Some("lZe8jQ==")));
    }
    let unsigned = body.replace("x-amz-trailer-signature", "x-amz-other");
    let verifier = ChunkVerifier::new(key, "20261121T185533Z".to_owned(), seed);
    let framing = Framing::Signed { verifier, trailer: true };
    assert!(decode(framing, 100, Some("x-amz-checksum-crc32"), unsigned.as_bytes(), 50).is_err());
}

#[test]
fn any_change_to_what_is_signed_is_a_mismatch() {
    let mut sent = published_get();
    sent.headers.insert("range", "bytes=0-8".parse().unwrap());
    assert_eq!(sent.refused(), ErrorCode::SignatureDoesNotMatch);
    let mut sent = published_get();
    sent.headers.insert("host", "other.s3.amazonaws.com".parse().unwrap());
    assert_eq!(sent.refused(), ErrorCode::SignatureDoesNotMatch);
    for uri in ["/Test.txt", "/test.txt?acl", "/test.txt/", "//test.txt"] {
        let mut sent = published_get();
        sent.uri = uri.parse().unwrap();
        assert_eq!(sent.refused(), ErrorCode::SignatureDoesNotMatch, "{uri}");
    }
    let mut sent = published_get();
    sent.method = Method::HEAD;
    assert_eq!(sent.refused(), ErrorCode::SignatureDoesNotMatch);
    let sent = Sent::new("GET", &(presigned_uri(PRESIGNED) + "&versionId=1"), &[HOST]);
    assert_eq!(sent.refused(), ErrorCode::SignatureDoesNotMatch);
}

#[test]
fn another_secret_is_a_mismatch() {
    let sent = published_get();
    let presented = Presented::parse(&sent.head()).unwrap();
    let key = Arc::new(presented.signing_key(&SecretAccessKey::new("wrong")));
    let now_ms = parse_amz_date(DATE).unwrap();
    let error = presented.verify(&sent.head(), &key, &VerifyPolicy::default(), now_ms).unwrap_err();
    assert_eq!(error.code(), ErrorCode::SignatureDoesNotMatch);
}

#[test]
fn clocks_may_differ_by_fifteen_minutes() {
    assert!(published_get().verify_at("20130524T001500Z").is_ok());
    assert!(published_get().verify_at("20130523T234500Z").is_ok());
    for now in ["20130524T001501Z", "20130523T234459Z"] {
        assert_eq!(published_get().verify_at(now).unwrap_err().code(), ErrorCode::RequestTimeTooSkewed);
    }
}

#[test]
fn an_unsigned_amz_header_is_denied() {
    let mut sent = published_get();
    sent.headers.insert("x-amz-meta-a", "1".parse().unwrap());
    assert_eq!(sent.refused(), ErrorCode::AccessDenied);
    let sent = Sent::new("PUT", &presigned_uri(PRESIGNED), &[HOST, ("x-amz-storage-class", "STANDARD")]);
    assert_eq!(sent.refused(), ErrorCode::AccessDenied);
}

#[test]
fn foreign_ways_of_signing_are_refused_by_name() {
    let cases = [
        ("AWS AKID:c2lnbmF0dXJl", ErrorCode::InvalidRequest),
        ("AWS4-ECDSA-P256-SHA256 Credential=a", ErrorCode::UnsupportedSignature),
        ("Basic dTpw", ErrorCode::InvalidArgument),
        ("Bearer x", ErrorCode::InvalidArgument),
        ("", ErrorCode::InvalidArgument),
    ];
    for (value, code) in cases {
        let mut sent = published_get();
        sent.headers.insert("authorization", value.parse().unwrap());
        assert_eq!(sent.refused(), code, "{value}");
    }
    let sent = Sent::new("GET", "/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", &[HOST]);
    assert_eq!(sent.refused(), ErrorCode::InvalidRequest);
    assert_eq!(Sent::new("GET", "/b/k", &[HOST]).refused(), ErrorCode::AccessDenied);
    let mut both = published_get();
    both.uri = presigned_uri(PRESIGNED).parse().unwrap();
    assert_eq!(both.refused(), ErrorCode::InvalidArgument);
}

#[test]
fn broken_authorization_headers_are_malformed() {
    let good = published_get().headers["authorization"].to_str().unwrap().to_owned();
    let cases = [
        ("Credential=", "Credentials="),
        ("/s3/", "/ec2/"),
        ("/aws4_request", "/aws2_request"),
        ("/20130524/", "/2013052/"),
        ("/20130524/", "/20130525/"),
        ("/us-east-1/", "//"),
        (ID, ""),
        ("SignedHeaders=host;", "SignedHeaders="),
        ("SignedHeaders=host;", "SignedHeaders=Host;host;"),
        (",Signature", ",Signature=00,Signature"),
        ("SignedHeaders=", "SignedHeaders=a b;"),
    ];
    for (from, to) in cases {
        let mut sent = published_get();
        assert!(good.contains(from));
        sent.headers.insert("authorization", good.replacen(from, to, 1).parse().unwrap());
        assert_eq!(sent.refused(), ErrorCode::AuthorizationHeaderMalformed, "{from} -> {to}");
    }
}

#[test]
fn broken_presigned_queries_are_named() {
    let good = presigned_uri(PRESIGNED);
    let cases = [
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1", ErrorCode::AuthorizationQueryParametersError),
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256", ErrorCode::UnsupportedSignature),
        ("X-Amz-Expires=86400", "X-Amz-Expires=604801", ErrorCode::AccessDenied),
        ("X-Amz-Expires=86400", "X-Amz-Expires=99999999999999999999", ErrorCode::AccessDenied),
        ("X-Amz-Expires=86400", "X-Amz-Expires=0", ErrorCode::AccessDenied),
        ("X-Amz-Expires=86400", "X-Amz-Expires=-1", ErrorCode::AccessDenied),
        ("X-Amz-Expires=86400", "X-Amz-Expires=-", ErrorCode::AuthorizationQueryParametersError),
        ("X-Amz-Expires=86400", "X-Amz-Expires=1d", ErrorCode::AuthorizationQueryParametersError),
        ("X-Amz-Expires=86400", "X-Amz-Expires=", ErrorCode::AuthorizationQueryParametersError),
        ("&X-Amz-Expires=86400", "", ErrorCode::AuthorizationQueryParametersError),
        ("X-Amz-Date=20130524", "X-Amz-Date=20130525", ErrorCode::AuthorizationQueryParametersError),
        (
            "X-Amz-SignedHeaders=host",
            "X-Amz-SignedHeaders=range",
            ErrorCode::AuthorizationQueryParametersError,
        ),
        ("&X-Amz-Date", "&X-Amz-Security-Token=t&X-Amz-Date", ErrorCode::InvalidToken),
        ("&X-Amz-Date", "&X-Amz-Signature=00&X-Amz-Date", ErrorCode::AuthorizationQueryParametersError),
        ("X-Amz-Signature=a", "X-Amz-Signature=A", ErrorCode::SignatureDoesNotMatch),
        ("X-Amz-Signature=a", "X-Amz-Signature=b", ErrorCode::SignatureDoesNotMatch),
    ];
    for (from, to, code) in cases {
        assert!(good.contains(from));
        let sent = Sent::new("GET", &good.replacen(from, to, 1), &[HOST]);
        assert_eq!(sent.refused(), code, "{from} -> {to}");
    }
}

#[test]
fn payload_modes_are_an_allow_list() {
    let modes = [
        ("UNSIGNED-PAYLOAD", Ok(PayloadMode::Unsigned)),
        ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", Ok(PayloadMode::UnsignedChunksTrailer)),
        ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", Err(ErrorCode::UnsupportedSignature)),
        ("STREAMING-OTHER", Err(ErrorCode::InvalidArgument)),
        ("", Err(ErrorCode::InvalidArgument)),
    ];
    for (value, expected) in modes {
        assert_eq!(PayloadMode::parse(value).map_err(|error| error.code()), expected, "{value}");
    }
    let mut sent = published_get();
    sent.headers.remove("x-amz-content-sha256");
    assert_eq!(sent.refused(), ErrorCode::InvalidRequest);
}

#[test]
fn a_region_can_be_demanded() {
    let sent = published_get();
    let presented = Presented::parse(&sent.head()).unwrap();
    let key = Arc::new(presented.signing_key(&SecretAccessKey::new(SECRET)));
    let policy = VerifyPolicy { region: Some("eu-central-1"), ..VerifyPolicy::default() };
    let error = presented.verify(&sent.head(), &key, &policy, parse_amz_date(DATE).unwrap()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::AuthorizationHeaderMalformed);
    assert!(error.extra().contains(&("Region", "eu-central-1".to_owned())));
}

#[test]
fn a_path_that_was_signed_as_sent_verifies() {
    // curl signs the path as it sends it; here with characters that the documentation would encode.
    let mut headers = HeaderMap::new();
    headers.insert("host", "h".parse().unwrap());
    let (path, query) = ("/b/a(1)+!", "prefix=x(y)");
    let secret = SecretAccessKey::new(SECRET);
    let key = SigningKey::derive(&secret, "20130524", "us-east-1", "s3");
    headers.insert("x-amz-date", DATE.parse().unwrap());
    headers.insert("x-amz-content-sha256", EMPTY_SHA256.parse().unwrap());
    let names = "host;x-amz-content-sha256;x-amz-date";
    let canonical = format!(
        "GET\n{path}\n{query}\nhost:h\nx-amz-content-sha256:{EMPTY_SHA256}\nx-amz-date:{DATE}\n\n{names}\n{EMPTY_SHA256}"
    );
    let to_sign = canonical::string_to_sign(DATE, SCOPE, canonical.as_bytes());
    let signature = hex(&key.sign(to_sign.as_bytes()));
    let uri = format!("{path}?{query}");
    let sent = Sent { method: Method::GET, uri: uri.parse().unwrap(), headers }.signed(names, &signature);
    assert!(sent.verify().is_ok());
}

/// A GET whose headers are signed here, for what no published example covers.
fn signed_get(target: &str, host: &str, extra: &[(&'static str, &str)]) -> Sent {
    let key = SigningKey::derive(&SecretAccessKey::new(SECRET), "20130524", "us-east-1", "s3");
    let mut sent = Sent::new("GET", target, extra);
    let (path, query) = (sent.uri.path().to_owned(), sent.uri.query().unwrap_or("").to_owned());
    sent.headers.insert("host", host.parse().unwrap());
    let signer = Signer { access_key_id: ID, key: &key, session_token: None };
    let now_ms = parse_amz_date(DATE).unwrap();
    sign(&signer, &Method::GET, &path, &query, &mut sent.headers, PayloadHash::Empty, now_ms).unwrap();
    sent
}

fn verify_with(sent: &Sent, policy: &VerifyPolicy<'_>) -> Result<Authenticated, ErrorCode> {
    let verify = || {
        let presented = Presented::parse(&sent.head())?;
        let key = Arc::new(presented.signing_key(&SecretAccessKey::new(SECRET)));
        presented.verify(&sent.head(), &key, policy, parse_amz_date(DATE).unwrap())
    };
    verify().map_err(|error| error.code())
}

#[test]
fn a_session_token_has_to_be_the_one_that_belongs_to_the_key() {
    let token = SessionToken::new("tok/en+=");
    let with = VerifyPolicy { session_token: Some(&token), ..VerifyPolicy::default() };
    let without = VerifyPolicy::default();
    let sent = |token: &str| signed_get("/b/k", "h", &[("x-amz-security-token", token)]);
    assert!(verify_with(&sent("tok/en+="), &with).is_ok());
    for wrong in ["tok/en+", "tok/en+==", "TOK/en+=", "x"] {
        assert_eq!(verify_with(&sent(wrong), &with).unwrap_err(), ErrorCode::InvalidToken, "{wrong}");
    }
    assert_eq!(verify_with(&sent("tok/en+="), &without).unwrap_err(), ErrorCode::InvalidToken);
    let missing = signed_get("/b/k", "h", &[]);
    assert_eq!(verify_with(&missing, &with).unwrap_err(), ErrorCode::InvalidAccessKeyId);
    let mut unsigned = missing;
    unsigned.headers.insert("x-amz-security-token", "tok/en+=".parse().unwrap());
    assert_eq!(verify_with(&unsigned, &with).unwrap_err(), ErrorCode::AccessDenied, "an unsigned token");
    let mut twice = sent("tok/en+=");
    twice.headers.append("x-amz-security-token", "tok/en+=".parse().unwrap());
    assert_eq!(verify_with(&twice, &with).unwrap_err(), ErrorCode::InvalidToken);
    assert_eq!(format!("{token:?}"), "SessionToken(..)");
}

#[test]
fn a_signature_is_verified_against_configured_names_only_and_tells_which() {
    let aliases = ["s3.example.org".to_owned(), "s3.example.org:8443".to_owned()];
    let policy = VerifyPolicy { host_aliases: &aliases, ..VerifyPolicy::default() };
    let as_sent = signed_get("/b/k", "10.0.0.5:9000", &[]);
    assert_eq!(verify_with(&as_sent, &policy).unwrap().host(), None);
    let mut rewritten = signed_get("/b/k", "s3.example.org:8443", &[]);
    rewritten.headers.insert("host", "10.0.0.5:9000".parse().unwrap());
    assert_eq!(verify_with(&rewritten, &policy).unwrap().host(), Some("s3.example.org:8443"));
    assert_eq!(
        verify_with(&rewritten, &VerifyPolicy::default()).unwrap_err(),
        ErrorCode::SignatureDoesNotMatch
    );
    let mut foreign = signed_get("/b/k", "evil.example.org", &[]);
    foreign.headers.insert("host", "10.0.0.5:9000".parse().unwrap());
    foreign.headers.insert("x-forwarded-host", "evil.example.org".parse().unwrap());
    assert_eq!(verify_with(&foreign, &policy).unwrap_err(), ErrorCode::SignatureDoesNotMatch);
}

#[test]
fn secrets_do_not_show() {
    let secret = SecretAccessKey::new(SECRET);
    let key = SigningKey::derive(&secret, "20130524", "us-east-1", "s3");
    assert_eq!(format!("{secret:?}"), "SecretAccessKey(..)");
    assert_eq!(format!("{key:?}"), format!("SigningKey {{ scope: {SCOPE:?}, .. }}"));
}

#[test]
fn a_key_of_another_day_does_not_sign() {
    let secret = SecretAccessKey::new(SECRET);
    let now_ms = parse_amz_date(DATE).unwrap();
    let key = SigningKey::for_time(&secret, now_ms, "us-east-1");
    assert!(key.covers(now_ms) && !key.covers(now_ms + 86_400_000));
    let signer = Signer { access_key_id: ID, key: &key, session_token: None };
    let mut headers = HeaderMap::new();
    headers.insert("host", "h".parse().unwrap());
    let tomorrow = now_ms + 86_400_000;
    let result = sign(&signer, &Method::GET, "/", "", &mut headers, PayloadHash::Empty, tomorrow);
    assert_eq!(result.unwrap_err().code(), ErrorCode::InternalError);
}

proptest! {
    #[test]
    fn what_is_signed_here_verifies_here(
        key_name in "\\PC{1,30}",
        prefix in "\\PC{0,20}",
        value in "[ -~]{0,30}",
        body in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        use crate::uri::{Slash, encode};
        let path = format!("/bkt/{}", encode(key_name.as_bytes(), Slash::Keep));
        let query = format!("list-type=2&prefix={}&x", encode(prefix.as_bytes(), Slash::Encode));
        let now_ms = parse_amz_date(DATE).unwrap();
        let secret = SecretAccessKey::new(SECRET);
        let key = SigningKey::for_time(&secret, now_ms, "eu-1");
        let signer = Signer { access_key_id: ID, key: &key, session_token: None };
        let mut headers = HeaderMap::new();
        headers.insert("host", "h:9000".parse().unwrap());
        headers.insert("x-amz-meta-a", value.parse().unwrap());
        headers.insert("content-length", "7".parse().unwrap());
        sign(&signer, &Method::PUT, &path, &query, &mut headers, PayloadHash::Body(&body), now_ms).unwrap();
        let mut sent = Sent { method: Method::PUT, uri: format!("{path}?{query}").parse().unwrap(), headers };
        prop_assert!(sent.verify().is_ok());
        sent.headers.insert("x-amz-meta-a", format!("{value}.").parse().unwrap());
        prop_assert_eq!(sent.refused(), ErrorCode::SignatureDoesNotMatch);
    }

    #[test]
    fn no_authorization_makes_it_panic(value in "(AWS4-HMAC-SHA256 )?[A-Za-z0-9=/;, -]{0,120}", query in "[A-Za-z0-9=&%-]{0,60}") {
        let mut sent = published_get();
        sent.headers.insert("authorization", value.parse().unwrap());
        sent.uri = format!("/?X-Amz-{query}").parse().unwrap();
        let _ = sent.verify();
        sent.headers.remove("authorization");
        let _ = sent.verify();
    }
}
