//! The liar tells what it says it tells, and nothing else.
#![allow(clippy::unwrap_used, reason = "the lint knows only functions marked as tests, not their helpers")]

use bytes::Bytes;
use claviger_env::{Clock as _, SystemClock};
use claviger_s3::sigv4::{PayloadHash, SecretAccessKey, Signer, SigningKey, sign};
use claviger_testkit::canary;
use claviger_testkit::liar::{
    ACCESS_KEY_ID, Lie, LyingProvider, READ_LIES, REGION, SECRET_ACCESS_KEY, Script, Subject, WRITE_FAULTS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Sends one signed request; `None` if the connection broke off before the answer was whole.
async fn ask(
    endpoint: &str,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Response<Bytes>> {
    let authority = endpoint.strip_prefix("http://").unwrap();
    let mut map = HeaderMap::new();
    map.insert("host", authority.parse().unwrap());
    for (name, value) in headers {
        map.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let now_ms = SystemClock.now_ms();
    let key = SigningKey::for_time(&SecretAccessKey::new(SECRET_ACCESS_KEY), now_ms, REGION);
    let signer = Signer { access_key_id: ACCESS_KEY_ID, key: &key, session_token: None };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    sign(&signer, &method, path, query, &mut map, PayloadHash::Body(body), now_ms).unwrap();
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
    *request.method_mut() = method;
    *request.uri_mut() = format!("{endpoint}{target}").parse().unwrap();
    *request.headers_mut() = map;
    // A client of its own for each request: no request is sent twice because a connection ended.
    let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
    let (parts, body) = client.request(request).await.ok()?.into_parts();
    Some(Response::from_parts(parts, body.collect().await.ok()?.to_bytes()))
}

async fn put(liar: &LyingProvider, key: &str, body: &[u8], envelope: &str) -> Option<Response<Bytes>> {
    let headers = [("x-amz-meta-claviger", envelope)];
    ask(&liar.endpoint(), Method::PUT, &format!("/bkt/{key}"), &headers, body).await
}

async fn get(liar: &LyingProvider, key: &str, range: Option<&str>) -> Option<Response<Bytes>> {
    let headers: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
    ask(&liar.endpoint(), Method::GET, &format!("/bkt/{key}"), &headers, b"").await
}

/// A liar with two objects, of which `k` was written twice.
async fn prepared() -> LyingProvider {
    let liar = LyingProvider::start().await.unwrap();
    assert_eq!(ask(&liar.endpoint(), Method::PUT, "/bkt", &[], b"").await.unwrap().status(), StatusCode::OK);
    put(&liar, "other", &canary::data(3, 300_000), "envelope-of-other").await.unwrap();
    put(&liar, "k", &canary::data(1, 300_000), "envelope-of-k-1").await.unwrap();
    put(&liar, "k", &canary::data(2, 300_000), "envelope-of-k-2").await.unwrap();
    liar
}

fn same(a: &Response<Bytes>, b: &Response<Bytes>) -> bool {
    let compared = ["etag", "x-amz-meta-claviger", "content-range", "content-length"];
    a.status() == b.status()
        && a.body() == b.body()
        && compared.iter().all(|name| a.headers().get(*name) == b.headers().get(*name))
}

#[tokio::test]
async fn an_honest_liar_changes_nothing() {
    let liar = prepared().await;
    let answer = get(&liar, "k", None).await.unwrap();
    assert_eq!(answer.body(), &canary::data(2, 300_000));
    assert_eq!(answer.headers()["x-amz-meta-claviger"], "envelope-of-k-2");
    let part = get(&liar, "k", Some("bytes=100-199")).await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.body(), &canary::data(2, 300_000)[100..200]);
    assert!(liar.told().is_empty());
    liar.stop().await;
}

#[tokio::test]
async fn every_lie_about_a_read_changes_the_answer_and_is_noted() {
    let liar = prepared().await;
    let range = Some("bytes=70000-150000");
    let (whole, part) = (get(&liar, "k", None).await.unwrap(), get(&liar, "k", range).await.unwrap());
    for lie in READ_LIES {
        let before = liar.told().len();
        liar.tell(Script::Always(lie, "/bkt/k".to_owned()));
        let (lied, lied_part) = (get(&liar, "k", None).await, get(&liar, "k", range).await);
        liar.tell(Script::Honest);
        let told = liar.told().len() - before;
        let changed = [(&lied, &whole), (&lied_part, &part)]
            .iter()
            .filter(|(got, truth)| got.as_ref().is_none_or(|got| !same(got, truth)))
            .count();
        assert_eq!(told, changed, "{lie:?} was told {told} times and changed {changed} answers");
        assert!(told > 0, "{lie:?} was never told");
        assert!(same(&get(&liar, "k", None).await.unwrap(), &whole), "{lie:?} changed what is stored");
    }
    liar.stop().await;
}

#[tokio::test]
async fn an_old_envelope_comes_with_the_present_body_and_the_other_way_round() {
    let liar = prepared().await;
    liar.tell(Script::Always(Lie::OldEnvelope, "/bkt/k".to_owned()));
    let answer = get(&liar, "k", None).await.unwrap();
    assert_eq!(answer.headers()["x-amz-meta-claviger"], "envelope-of-k-1");
    assert_eq!(answer.body(), &canary::data(2, 300_000));
    liar.tell(Script::Always(Lie::OldBody, "/bkt/k".to_owned()));
    let answer = get(&liar, "k", Some("bytes=10-19")).await.unwrap();
    assert_eq!(answer.headers()["x-amz-meta-claviger"], "envelope-of-k-2");
    assert_eq!(answer.body(), &canary::data(1, 300_000)[10..20]);
    liar.tell(Script::Always(Lie::OtherEnvelope, "/bkt/k".to_owned()));
    let head = ask(&liar.endpoint(), Method::HEAD, "/bkt/k", &[], b"").await.unwrap();
    assert_eq!(head.headers()["x-amz-meta-claviger"], "envelope-of-other");
    assert_eq!(head.headers()["content-length"], "300000");
    liar.stop().await;
}

#[tokio::test]
async fn faults_come_in_pairs_done_and_not_done() {
    let liar = prepared().await;
    for (n, fault) in
        (0_u8..).zip([Lie::FailedNotDone, Lie::FailedButDone, Lie::ResetNotDone, Lie::ResetButDone])
    {
        let key = format!("fault-{n}");
        liar.tell(Script::Once { lie: fault, path: key.clone(), after: 0 });
        let answer = put(&liar, &key, b"body", "envelope").await;
        match fault {
            Lie::FailedNotDone | Lie::FailedButDone => {
                assert_eq!(answer.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR)
            }
            _ => assert!(answer.is_none(), "{fault:?} was answered"),
        }
        let done = matches!(fault, Lie::FailedButDone | Lie::ResetButDone);
        assert_eq!(liar.provider().object_files("bkt", &key).is_ok(), done, "{fault:?}");
    }
    assert!(WRITE_FAULTS.iter().all(|fault| !fault.is_about(Subject::Get)));
    liar.stop().await;
}

#[tokio::test]
async fn listings_are_reversed_and_resized() {
    let liar = prepared().await;
    let truth =
        ask(&liar.honest_endpoint(), Method::GET, "/bkt?list-type=2&prefix=", &[], b"").await.unwrap();
    let lied = |lie| {
        liar.tell(Script::Always(lie, String::new()));
        async { ask(&liar.endpoint(), Method::GET, "/bkt?list-type=2&prefix=", &[], b"").await.unwrap() }
    };
    let reversed = lied(Lie::ReversedList).await;
    let at =
        |answer: &Response<Bytes>, text: &str| String::from_utf8_lossy(answer.body()).find(text).unwrap();
    assert!(at(&truth, "<Key>k<") < at(&truth, "<Key>other<"));
    assert!(at(&reversed, "<Key>k<") > at(&reversed, "<Key>other<"));
    assert!(String::from_utf8_lossy(lied(Lie::ListedSizes).await.body()).contains("<Size>3000007</Size>"));
    liar.stop().await;
}

#[tokio::test]
async fn what_arrives_is_kept_for_a_search() {
    let liar = prepared().await;
    assert!(canary::is_in(&liar.received()));
    assert!(
        liar.arrived()
            .iter()
            .any(|request| request.method == Method::PUT && request.target.ends_with("/bkt/other"))
    );
    liar.stop().await;
}
