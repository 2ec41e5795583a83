//! Which kind of store answers at an endpoint. The gateway never guesses: its configuration says. The demo asks when
//! it was not told, and `gateway --check` asks to see whether the configuration is right.

use std::time::Duration;

use bytes::Bytes;
use claviger_gateway::config::UpstreamProfile;
use http::header::{HeaderMap, SERVER};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};

use crate::s3_client;

/// For one answer to one small request.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of the answer only the beginning is looked at.
const BODY_LEN_MAX: usize = 16 << 10;

/// Host names (their ends) that belong to one provider.
const HOSTS: &[(&str, UpstreamProfile)] = &[
    (".amazonaws.com", UpstreamProfile::Aws),
    (".amazonaws.com.cn", UpstreamProfile::Aws),
    ("storage.googleapis.com", UpstreamProfile::Gcs),
    (".cloud.ovh.net", UpstreamProfile::Ovhcloud),
    (".cloud.ovh.us", UpstreamProfile::Ovhcloud),
    (".r2.cloudflarestorage.com", UpstreamProfile::R2),
    (".backblazeb2.com", UpstreamProfile::B2),
    (".wasabisys.com", UpstreamProfile::Wasabi),
];

/// Beginnings of `Server` headers that belong to one kind of store.
const SERVERS: &[(&str, UpstreamProfile)] = &[
    ("AmazonS3", UpstreamProfile::Aws),
    ("MinIO", UpstreamProfile::Minio),
    ("WasabiS3", UpstreamProfile::Wasabi),
    ("Garage", UpstreamProfile::Garage),
];

/// Asks the store at `endpoint` (an unsigned `GET /`) and tells what it is by its name and its answer; `None` when it
/// looks like nothing that is known, or does not answer in time.
pub(crate) async fn ask(endpoint: &str) -> Option<UpstreamProfile> {
    let uri: Uri = format!("{}/", endpoint.trim_end_matches('/')).parse().ok()?;
    if let Some(kind) = by_host(uri.host()?) {
        return Some(kind);
    }
    let exchange = async {
        let request = Request::builder().uri(uri).body(Empty::<Bytes>::new()).ok()?;
        let response = s3_client::client().ok()?.request(request).await.ok()?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_LEN_MAX).collect().await;
        by_answer(&head.headers, &body.map(|body| body.to_bytes()).unwrap_or_default())
    };
    tokio::time::timeout(PATIENCE, exchange).await.ok().flatten()
}

fn by_host(host: &str) -> Option<UpstreamProfile> {
    let host = host.to_ascii_lowercase();
    HOSTS.iter().find(|(end, _)| host.ends_with(end)).map(|(_, kind)| *kind)
}

fn by_answer(headers: &HeaderMap, body: &[u8]) -> Option<UpstreamProfile> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let server = text(SERVER.as_str());
    if let Some((_, kind)) = SERVERS.iter().find(|(beginning, _)| server.starts_with(beginning)) {
        return Some(*kind);
    }
    if is_rgw_request_id(text("x-amz-request-id")) {
        return Some(UpstreamProfile::CephRgw);
    }
    // Garage names itself only in the text of its errors.
    String::from_utf8_lossy(body).contains("Garage does not support").then_some(UpstreamProfile::Garage)
}

/// RGW's request ids: `tx` and hexadecimal digits, two hexadecimal numbers, and the zone, with dashes between.
fn is_rgw_request_id(id: &str) -> bool {
    let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut parts = id.splitn(4, '-');
    let transaction = parts.next().and_then(|part| part.strip_prefix("tx"));
    transaction.is_some_and(is_hex)
        && parts.next().is_some_and(is_hex)
        && parts.next().is_some_and(is_hex)
        && parts.next().is_some_and(|zone| !zone.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &'static str, value: &'static str, body: &str) -> Option<UpstreamProfile> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        by_answer(&headers, body.as_bytes())
    }

    #[test]
    fn rgw_is_known_by_its_request_ids() {
        let id = "tx000009624e18a46157716-006b022339-1008-default";
        assert_eq!(answer("x-amz-request-id", id, ""), Some(UpstreamProfile::CephRgw));
        for other in ["tx-1-2-zone", "tx1-2-3", "1A2B3C4D5E6F7A8B", "txg-1-2-z", "tx1-2-x-z", "tx1-2-3-"] {
            assert!(!is_rgw_request_id(other), "{other}");
        }
    }

    #[test]
    fn others_are_known_by_their_server_header_or_their_words() {
        assert_eq!(answer("server", "MinIO", ""), Some(UpstreamProfile::Minio));
        assert_eq!(answer("server", "AmazonS3", ""), Some(UpstreamProfile::Aws));
        assert_eq!(answer("server", "WasabiS3/7.2", ""), Some(UpstreamProfile::Wasabi));
        let words = "<Message>Forbidden: Garage does not support anonymous access yet</Message>";
        assert_eq!(answer("content-type", "application/xml", words), Some(UpstreamProfile::Garage));
        assert_eq!(answer("server", "nginx", "<Error/>"), None);
    }

    #[test]
    fn providers_are_known_by_the_names_of_their_endpoints() {
        for (host, kind) in [
            ("s3.eu-central-1.amazonaws.com", UpstreamProfile::Aws),
            ("storage.googleapis.com", UpstreamProfile::Gcs),
            ("s3.gra.io.cloud.ovh.net", UpstreamProfile::Ovhcloud),
            ("0123abcd.r2.cloudflarestorage.com", UpstreamProfile::R2),
            ("S3.us-west-004.backblazeb2.com", UpstreamProfile::B2),
            ("s3.eu-central-1.wasabisys.com", UpstreamProfile::Wasabi),
        ] {
            assert_eq!(by_host(host), Some(kind), "{host}");
        }
        assert_eq!(by_host("amazonaws.com.example.org"), None);
        assert_eq!(by_host("127.0.0.1"), None);
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_is_no_kind() {
        assert_eq!(ask("http://127.0.0.1:1").await, None);
        assert_eq!(ask("no url").await, None);
    }
}
