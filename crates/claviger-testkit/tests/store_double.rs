//! The doubles refuse what they say they refuse, and go on with the rest.
#![allow(clippy::unwrap_used, reason = "the lint knows only functions marked as tests, not their helpers")]

use bytes::Bytes;
use claviger_env::{Clock as _, SystemClock};
use claviger_s3::sigv4::{PayloadHash, SecretAccessKey, Signer, SigningKey, sign};
use claviger_testkit::store_double::{ACCESS_KEY_ID, RULES, Rules, SECRET_ACCESS_KEY, StoreDouble, named};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

const PART_LEN: usize = 5 << 20;

struct Asker {
    double: StoreDouble,
    rules: &'static Rules,
}

impl Asker {
    async fn start(name: &str) -> Self {
        let rules = named(name).unwrap();
        Self { double: StoreDouble::start(rules).await.unwrap(), rules }
    }

    async fn with_bucket(name: &str) -> Self {
        let asker = Self::start(name).await;
        let location = format!(
            "<CreateBucketConfiguration><LocationConstraint>{}</LocationConstraint></CreateBucketConfiguration>",
            asker.rules.region
        );
        let body = if asker.rules.wants_location { location } else { String::new() };
        assert_eq!(asker.ask(Method::PUT, "/bkt", &[], body.as_bytes()).await.status(), StatusCode::OK);
        asker
    }

    /// Sends one signed request.
    async fn ask(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Bytes> {
        let endpoint = self.double.endpoint();
        let mut map = HeaderMap::new();
        map.insert("host", endpoint.strip_prefix("http://").unwrap().parse().unwrap());
        for (name, value) in headers {
            map.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let now_ms = SystemClock.now_ms();
        let key = SigningKey::for_time(&SecretAccessKey::new(SECRET_ACCESS_KEY), now_ms, self.rules.region);
        let signer = Signer { access_key_id: ACCESS_KEY_ID, key: &key, session_token: None };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        sign(&signer, &method, path, query, &mut map, PayloadHash::Body(body), now_ms).unwrap();
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{endpoint}{target}").parse().unwrap();
        *request.headers_mut() = map;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (parts, body) = client.request(request).await.unwrap().into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    async fn put(&self, headers: &[(&str, &str)]) -> Response<Bytes> {
        self.ask(Method::PUT, "/bkt/key", headers, b"content").await
    }

    /// Completes an upload of parts of these sizes.
    async fn multipart(&self, sizes: &[usize]) -> Response<Bytes> {
        let begun = self.ask(Method::POST, "/bkt/mp?uploads=", &[], b"").await;
        let upload = between(begun.body(), "<UploadId>").to_owned();
        let mut list = String::new();
        for (number, size) in (1..).zip(sizes) {
            let target = format!("/bkt/mp?partNumber={number}&uploadId={upload}");
            let stored = self.ask(Method::PUT, &target, &[], &vec![0; *size]).await;
            let etag = stored.headers()["etag"].to_str().unwrap().to_owned();
            list += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        let document = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        self.ask(Method::POST, &format!("/bkt/mp?uploadId={upload}"), &[], document.as_bytes()).await
    }
}

fn between<'a>(body: &'a Bytes, tag: &str) -> &'a str {
    std::str::from_utf8(body).unwrap().split(tag).nth(1).unwrap().split('<').next().unwrap()
}

fn is_refused(answer: &Response<Bytes>, code: &str) -> bool {
    !answer.status().is_success() && between(answer.body(), "<Code>") == code
}

#[tokio::test]
async fn every_double_marks_itself_and_stores_what_breaks_no_rule() {
    for rules in RULES {
        let asker = Asker::with_bucket(rules.name).await;
        let stored =
            asker.put(&[("x-amz-meta-claviger", "envelope"), ("x-amz-storage-class", "STANDARD")]).await;
        assert_eq!(stored.status(), StatusCode::OK, "{}: {:?}", rules.name, stored.body());
        assert_eq!(stored.headers()["server"], *format!("claviger-store-double/{}", rules.name));
        let got = asker.ask(Method::GET, "/bkt/key", &[], b"").await;
        assert_eq!(
            (got.body().as_ref(), &got.headers()["x-amz-meta-claviger"]),
            (&b"content"[..], &HeaderValue::from_static("envelope"))
        );
    }
}

#[tokio::test]
async fn a_signature_for_another_region_is_refused() {
    let mut asker = Asker::with_bucket("r2").await;
    asker.rules = named("b2").unwrap();
    assert!(!asker.put(&[]).await.status().is_success());
}

#[tokio::test]
async fn a_region_that_wants_to_be_named_is() {
    let asker = Asker::start("aws").await;
    let refused = asker.ask(Method::PUT, "/bkt", &[], b"").await;
    assert!(is_refused(&refused, "IllegalLocationConstraintException"), "{refused:?}");
}

#[tokio::test]
async fn metadata_and_headers_have_their_limits() {
    let asker = Asker::with_bucket("aws").await;
    let (fits, beyond) = ("x".repeat(2047), "x".repeat(2048));
    assert_eq!(asker.put(&[("x-amz-meta-n", &fits)]).await.status(), StatusCode::OK);
    assert!(is_refused(&asker.put(&[("x-amz-meta-n", &beyond)]).await, "MetadataTooLarge"));
    let long = asker.put(&[("x-other", &"x".repeat(8192))]).await;
    assert!(is_refused(&long, "RequestHeaderSectionTooLarge"), "{long:?}");
}

#[tokio::test]
async fn r2_refuses_uneven_parts_and_others_take_them() {
    let even = [PART_LEN, PART_LEN, 1000];
    let uneven = [PART_LEN, PART_LEN + 1, 1000];
    for (name, takes_uneven) in [("r2", false), ("aws", true)] {
        let asker = Asker::with_bucket(name).await;
        assert_eq!(asker.multipart(&even).await.status(), StatusCode::OK, "{name}");
        let answer = asker.multipart(&uneven).await;
        assert_eq!(answer.status().is_success(), takes_uneven, "{name}");
        assert!(takes_uneven || is_refused(&answer, "InvalidPart"));
    }
}

#[tokio::test]
async fn conditions_are_kept_or_refused_by_the_rules() {
    for (name, code) in [("aws", "PreconditionFailed"), ("b2", "NotImplemented"), ("gcs", "InvalidArgument")]
    {
        let asker = Asker::with_bucket(name).await;
        asker.put(&[]).await;
        let answer = asker.put(&[("if-none-match", "*")]).await;
        assert!(is_refused(&answer, code), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn what_a_provider_does_not_have_is_not_implemented() {
    let delete = b"<Delete><Object><Key>key</Key></Object></Delete>";
    let gcs = Asker::with_bucket("gcs").await;
    assert!(is_refused(&gcs.ask(Method::POST, "/bkt?delete=", &[], delete).await, "NotImplemented"));
    assert!(is_refused(&gcs.put(&[("x-amz-tagging", "a=b")]).await, "NotImplemented"));
    let r2 = Asker::with_bucket("r2").await;
    assert!(is_refused(&r2.put(&[("x-amz-tagging-directive", "COPY")]).await, "NotImplemented"));
    assert!(is_refused(&r2.put(&[("x-amz-acl", "private")]).await, "NotImplemented"));
    assert!(is_refused(&r2.put(&[("x-amz-storage-class", "GLACIER")]).await, "InvalidStorageClass"));
    let b2 = Asker::with_bucket("b2").await;
    assert!(is_refused(&b2.put(&[("x-amz-acl", "authenticated-read")]).await, "NotImplemented"));
    assert_eq!(b2.put(&[("x-amz-acl", "private")]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_locked_write_needs_a_digest_at_amazon() {
    let lock = [
        ("x-amz-object-lock-mode", "GOVERNANCE"),
        ("x-amz-object-lock-retain-until-date", "2030-01-01T00:00:00Z"),
    ];
    let asker = Asker::with_bucket("aws").await;
    assert!(is_refused(&asker.put(&lock).await, "InvalidRequest"));
    let digest = [("content-md5", "mgNkuembtIDdJeHwKEyFVQ==")];
    assert_eq!(asker.put(&[&lock[..], &digest[..]].concat()).await.status(), StatusCode::OK);
    assert_eq!(Asker::with_bucket("minio").await.put(&lock).await.status(), StatusCode::OK);
}
