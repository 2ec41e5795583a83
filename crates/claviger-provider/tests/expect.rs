//! What happens to a connection when a body that was announced with `Expect: 100-continue` is refused.

use std::sync::Arc;

use claviger_env::SystemClock;
use claviger_provider::{Credentials, Provider};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_refused_expectation_ends_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = Credentials::new("access", "secret");
    let provider = Provider::open(folder.path(), credentials, "us-east-1", Arc::new(SystemClock)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move { provider.serve(listener, async { drop(stopped.await) }).await });

    // The one byte of the body never comes: the next request's first byte would be taken for it.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        b"PUT /bkt/key HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");

    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
