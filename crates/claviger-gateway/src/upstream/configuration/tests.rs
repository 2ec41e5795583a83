//! Before a store that answers as it is told, and remembers what it was asked.

use claviger_s3::error::ErrorCode;
use claviger_s3::operation::Operation;
use claviger_s3::{RequestHead, VirtualHosts, classify};
use http::{HeaderMap, Method};

use super::*;
use crate::upstream::double::{self, Double};

const LISTING: (u16, &str) = (200, "<ListBucketResult><Name>bkt</Name></ListBucketResult>");
const NONE: (u16, &str) = (404, "<Error><Code>OwnershipControlsNotFoundError</Code></Error>");
const NO_BUCKET: (u16, &str) = (404, "<Error><Code>NoSuchBucket</Code></Error>");
const SOME: (u16, &str) = (200, "<OwnershipControls><Rule/></OwnershipControls>");

/// A store that gives every GET this answer and every other request 204.
async fn store((status, body): (u16, &'static str)) -> Double {
    double::store("generic", move |request| match double::method(request) {
        "GET" => double::answer(status, &[], body),
        _ => double::answer(204, &[], ""),
    })
    .await
}

fn methods(store: &Double) -> Vec<String> {
    store.asked().iter().map(|request| double::method(request).to_owned()).collect()
}

fn configuration(method: Method, uri: &str) -> Box<Configuration> {
    let (uri, headers) = (uri.parse().unwrap(), HeaderMap::new());
    match classify(&RequestHead::new(&method, &uri, &headers), &VirtualHosts::default()).unwrap() {
        Operation::Configuration(op) => op,
        other => panic!("{:?}", other.kind()),
    }
}

fn at(asked: &Configuration) -> StoreConfiguration<'_> {
    StoreConfiguration { bucket: "bkt", key: None, asked }
}

fn code(error: &GatewayError) -> ErrorCode {
    error.to_s3("/bkt").code()
}

#[tokio::test]
async fn a_store_that_takes_the_request_for_one_on_the_bucket_is_not_asked_to_delete() {
    let asked = configuration(Method::DELETE, "/bkt?ownershipControls");
    for (answer, expected) in [
        (LISTING, ErrorCode::NotImplemented),
        (NO_BUCKET, ErrorCode::NoSuchBucket),
        ((200, "{}"), ErrorCode::InternalError),
    ] {
        let store = store(answer).await;
        let error = store.upstream.delete_configuration(at(&asked)).await.unwrap_err();
        assert_eq!(code(&error), expected, "{answer:?}");
        assert_eq!(methods(&store), ["GET"], "{answer:?}");
    }
}

#[tokio::test]
async fn a_store_that_knows_the_sub_resource_is_asked_whether_it_has_a_document_or_not() {
    let asked = configuration(Method::DELETE, "/bkt?ownershipControls");
    for answer in [NONE, SOME] {
        let store = store(answer).await;
        let status = store.upstream.delete_configuration(at(&asked)).await.unwrap();
        assert_eq!(status, StatusCode::NO_CONTENT);
        assert_eq!(methods(&store), ["GET", "DELETE"], "{answer:?}");
    }
}

#[tokio::test]
async fn a_document_goes_out_as_it_was_written_with_its_digest() {
    let asked = configuration(Method::PUT, "/bkt?cors");
    let written = "<!-- mine -->\n<CORSConfiguration> </CORSConfiguration>";
    let row = asked.subresource;
    let document =
        ConfigurationDocument::of_client(written.into(), row.form, row.len_max, row.malformed).unwrap();
    let store = store(LISTING).await;
    store.upstream.put_configuration(at(&asked), Some(document)).await.unwrap();
    let sent = store.asked().pop().unwrap();
    assert!(sent.starts_with("PUT /bkt?cors= HTTP/1.1\r\n"), "{sent}");
    assert!(sent.ends_with(&format!("\r\n\r\n{written}")), "{sent}");
    assert!(sent.contains(&format!("content-md5: {}", content_md5(written.as_bytes()))), "{sent}");
}

#[tokio::test]
async fn a_configuration_of_several_is_named_by_its_id() {
    let asked = configuration(Method::GET, "/bkt?id=a.b&metrics");
    let store = store((200, "<MetricsConfiguration/>")).await;
    store.upstream.get_configuration(at(&asked)).await.unwrap();
    let sent = store.asked().pop().unwrap();
    assert!(sent.starts_with("GET /bkt?metrics=&id=a.b HTTP/1.1\r\n"), "{sent}");
}
