//! Before a store that answers as it is told, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use claviger_env::SystemClock;
use claviger_s3::error::ErrorCode;
use claviger_s3::operation::Operation;
use claviger_s3::{RequestHead, VirtualHosts, classify};
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::upstream::account::Account;
use crate::upstream::tls;

const LISTING: (u16, &str) = (200, "<ListBucketResult><Name>bkt</Name></ListBucketResult>");
const NONE: (u16, &str) = (404, "<Error><Code>OwnershipControlsNotFoundError</Code></Error>");
const NO_BUCKET: (u16, &str) = (404, "<Error><Code>NoSuchBucket</Code></Error>");
const SOME: (u16, &str) = (200, "<OwnershipControls><Rule/></OwnershipControls>");

/// A store that gives every GET this answer and every other request 204.
struct Store {
    upstream: Upstream,
    asked: Arc<Mutex<Vec<String>>>,
}

async fn store(to_get: (u16, &'static str)) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config =
        format!("endpoint = \"http://{}\"\ncredentials_file = \"none\"", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let text = whole_request(&mut stream).await;
            let (status, body) = if text.starts_with("GET") { to_get } else { (204, "") };
            heard.lock().unwrap().push(text);
            let head =
                format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    let tls = tls::client_config(None).unwrap();
    let config = toml::from_str(&config).unwrap();
    let upstream = Upstream::new(&config, Arc::new(Account::Anonymous), tls, Arc::new(SystemClock)).unwrap();
    Store { upstream, asked }
}

/// A request's head and body; everything here fits a few reads.
async fn whole_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request breaks off");
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= len.map_or(0, |len| len.parse().unwrap()) {
            return text.into_owned();
        }
    }
}

impl Store {
    fn methods(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|text| text.split(' ').next().unwrap().to_owned()).collect()
    }
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
        assert_eq!(store.methods(), ["GET"], "{answer:?}");
    }
}

#[tokio::test]
async fn a_store_that_knows_the_sub_resource_is_asked_whether_it_has_a_document_or_not() {
    let asked = configuration(Method::DELETE, "/bkt?ownershipControls");
    for answer in [NONE, SOME] {
        let store = store(answer).await;
        let status = store.upstream.delete_configuration(at(&asked)).await.unwrap();
        assert_eq!(status, StatusCode::NO_CONTENT);
        assert_eq!(store.methods(), ["GET", "DELETE"], "{answer:?}");
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
    let sent = store.asked.lock().unwrap().pop().unwrap();
    assert!(sent.starts_with("PUT /bkt?cors= HTTP/1.1\r\n"), "{sent}");
    assert!(sent.ends_with(&format!("\r\n\r\n{written}")), "{sent}");
    assert!(sent.contains(&format!("content-md5: {}", content_md5(written.as_bytes()))), "{sent}");
}

#[tokio::test]
async fn a_configuration_of_several_is_named_by_its_id() {
    let asked = configuration(Method::GET, "/bkt?id=a.b&metrics");
    let store = store((200, "<MetricsConfiguration/>")).await;
    store.upstream.get_configuration(at(&asked)).await.unwrap();
    let sent = store.asked.lock().unwrap().pop().unwrap();
    assert!(sent.starts_with("GET /bkt?metrics=&id=a.b HTTP/1.1\r\n"), "{sent}");
}
