//! What listings look like to those who read them.

use claviger_s3::xml::ListObjectsV2Result;
use http::Method;
use http_body_util::BodyExt as _;

use super::names::Names;
use super::*;

fn store() -> Store {
    Store {
        buckets: Buckets::default(),
        limit: Limit::new(0),
        keep_dir: PathBuf::new(),
        requests: AtomicU64::new(0),
    }
}

/// The names of a page and the token of the next one: as the gateway asks and reads.
async fn page(store: &Store, token: &str) -> (Vec<String>, Option<String>) {
    let token = claviger_s3::uri::encode(token.as_bytes(), claviger_s3::uri::Slash::Encode);
    let query = format!("continuation-token={token}&encoding-type=url&list-type=2&max-keys=1000");
    let answer = operations::on_bucket(store, "names-2500", &Method::GET, &operations::Query::parse(&query));
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    let page = ListObjectsV2Result::parse(&text).unwrap();
    assert!(page.contents.iter().all(|entry| entry.size == names::STORED_LEN));
    assert_eq!(page.is_truncated, page.next_continuation_token.is_some());
    let keys = page.contents.iter().map(|entry| entry.key.to_string()).collect();
    (keys, page.next_continuation_token)
}

#[tokio::test]
async fn the_token_of_a_page_leads_to_the_next_one() {
    let store = store();
    store.buckets.create("names-2500");
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let (keys, next) = page(&store, &token).await;
        found.extend(keys);
        let Some(next) = next else { break };
        token = next;
    }
    assert_eq!(found, (0..2500).map(Names::name).collect::<Vec<_>>());
}
