use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

async fn get(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_pages_tell_life_readiness_with_reasons_and_metrics() {
    let readiness = Readiness::new();
    let store = readiness.register("store");
    let keys = readiness.register("key_service");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pages = AdminPages {
        readiness: readiness.clone(),
        render_metrics: Box::new(|| "some_metric 1\n".to_owned()),
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve_admin(listener, Arc::new(pages), async move { drop(stopped.await) }));

    assert!(get(address, "GET /health/live").await.ends_with("{\"live\":true}\n"));
    store.ready();
    keys.not_ready("connection refused");
    let answer = get(address, "GET /health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("\"key_service\":\"connection refused\"") && answer.contains("\"store\":null"),
        "{answer}"
    );
    keys.ready();
    let answer = get(address, "GET /health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"ready\":true"), "{answer}");
    let stream = readiness.warning("key_service_stream");
    stream.raise("nobody answers");
    let answer = get(address, "GET /health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "a warning takes nobody out of service: {answer}");
    assert!(answer.contains("\"key_service_stream\":\"nobody answers\""), "{answer}");
    stream.clear();
    assert!(get(address, "GET /health/ready").await.contains("\"key_service_stream\":null"));
    assert!(get(address, "GET /metrics").await.contains("some_metric 1"));
    assert!(get(address, "GET /else").await.starts_with("HTTP/1.1 404 "));
    assert!(get(address, "POST /metrics").await.starts_with("HTTP/1.1 405 "));

    stop.send(()).unwrap();
    serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[test]
fn nothing_is_ready_before_every_component_said_so_nor_after_one_stopped() {
    let readiness = Readiness::new();
    assert!(!readiness.is_ready(), "an empty registry is not ready");
    let store = readiness.register("store");
    assert!(!readiness.is_ready());
    store.ready();
    assert!(readiness.is_ready());
    drop(store);
    assert_eq!(readiness.snapshot()["store"].as_deref(), Some("stopped"));
}
