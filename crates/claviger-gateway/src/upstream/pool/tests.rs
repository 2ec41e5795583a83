use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::super::tls::client_config;
use super::*;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const LONG_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nok";
const CHUNKED_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";

/// A provider that gives each request the same bytes and closes a connection after so many of them.
struct Provider {
    host: Authority,
    connections: Arc<AtomicUsize>,
    closed: watch::Receiver<usize>,
}

impl Provider {
    async fn start(answer: &'static [u8], requests_per_connection: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = Authority::try_from(listener.local_addr().unwrap().to_string()).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (close, closed) = watch::channel(0);
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let close = close.clone();
                tokio::spawn(async move {
                    serve(stream, answer, requests_per_connection).await;
                    close.send_modify(|closed| *closed += 1);
                });
            }
        });
        Self { host, connections, closed }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many connections have ended, on whichever side.
    async fn until_closed(&mut self, count: usize) {
        let ended = self.closed.wait_for(|closed| *closed >= count);
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap();
    }
}

async fn serve(mut stream: TcpStream, answer: &[u8], requests: usize) {
    let mut received = Vec::new();
    let mut left = requests;
    while left > 0 {
        match stream.read_buf(&mut received).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        while let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            received.drain(..end + 4);
            left -= 1;
            stream.write_all(answer).await.unwrap();
        }
    }
}

fn connections(idle_timeout: Duration, idle_max: usize) -> Arc<Connections> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(client_config(None).unwrap())
        .https_or_http()
        .enable_http1()
        .wrap_connector(ReadAheadConnector::new(http));
    let connector = TimedConnector::new(connector, Duration::from_secs(5));
    Connections::new(connector, Scheme::HTTP, idle_timeout, idle_max)
}

async fn ask(connections: &Arc<Connections>, host: &Authority) -> Response<PooledBody> {
    let mut request = Request::new(UpstreamBody::empty());
    request.headers_mut().insert(http::header::HOST, host.as_str().parse().unwrap());
    connections.request(host, request).await.unwrap()
}

async fn read(response: Response<PooledBody>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_connection_whose_answer_was_read_takes_the_next_request() {
    for answer in [ANSWER, CHUNKED_ANSWER] {
        let provider = Provider::start(answer, usize::MAX).await;
        let connections = connections(LONG, 8);
        for _ in 0..20 {
            assert_eq!(read(ask(&connections, &provider.host).await).await, "ok");
        }
        assert_eq!(provider.connections(), 1);
    }
}

#[tokio::test]
async fn an_answer_without_a_body_leaves_the_connection_free_before_it_is_dropped() {
    let provider = Provider::start(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", usize::MAX).await;
    let connections = connections(LONG, 8);
    let first = ask(&connections, &provider.host).await;
    drop(ask(&connections, &provider.host).await);
    assert_eq!(provider.connections(), 1);
    drop(first);
}

#[tokio::test]
async fn requests_at_once_have_connections_of_their_own_and_so_many_are_kept() {
    let mut provider = Provider::start(ANSWER, usize::MAX).await;
    let per_worker = 2;
    let connections = connections(LONG, per_worker * workers::count_wanted());
    let mut running = Vec::new();
    for _ in 0..5 {
        running.push(ask(&connections, &provider.host).await);
    }
    assert_eq!(provider.connections(), 5);
    for response in running {
        read(response).await;
    }
    provider.until_closed(5 - per_worker).await;
    for _ in 0..3 {
        read(ask(&connections, &provider.host).await).await;
    }
    assert_eq!(provider.connections(), 5);
}

#[tokio::test]
async fn a_request_that_finds_none_idle_takes_the_one_that_comes_back() {
    let provider = Provider::start(ANSWER, usize::MAX).await;
    let connections = connections(LONG, 8);
    read(ask(&connections, &provider.host).await).await;
    let first = ask(&connections, &provider.host).await;
    let (second, third) = (ask(&connections, &provider.host), ask(&connections, &provider.host));
    let in_turn = async {
        tokio::task::yield_now().await;
        read(first).await;
    };
    let ((), second, third) =
        tokio::join!(in_turn, async { read(second.await).await }, async { read(third.await).await });
    assert_eq!((second.as_ref(), third.as_ref()), (&b"ok"[..], &b"ok"[..]));
    assert_eq!(provider.connections(), 1, "one after the other has used it");
}

#[tokio::test]
async fn who_waits_in_vain_makes_a_connection_and_one_that_comes_back_later_is_kept() {
    let provider = Provider::start(ANSWER, usize::MAX).await;
    let connections = connections(LONG, 8 * workers::count_wanted());
    read(ask(&connections, &provider.host).await).await;
    let first = ask(&connections, &provider.host).await;
    // One that gives up while it waits must not take the connection with it.
    assert!(ask(&connections, &provider.host).now_or_never().is_none());
    let second = ask(&connections, &provider.host).await;
    assert_eq!(provider.connections(), 2);
    for response in [first, second] {
        read(response).await;
    }
    let again = [ask(&connections, &provider.host).await, ask(&connections, &provider.host).await];
    assert_eq!(provider.connections(), 2, "both are there again");
    drop(again);
}

#[tokio::test]
async fn a_connection_that_the_provider_closed_costs_no_request() {
    let mut provider = Provider::start(ANSWER, 1).await;
    let connections = connections(LONG, 8);
    for round in 1..=50 {
        assert_eq!(read(ask(&connections, &provider.host).await).await, "ok");
        // Now and then the end is there before the next request, else they meet.
        if round % 2 == 0 {
            provider.until_closed(round).await;
        }
    }
    assert_eq!(provider.connections(), 50);
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_ends_the_connection() {
    let mut provider = Provider::start(LONG_ANSWER, usize::MAX).await;
    let connections = connections(LONG, 8);
    let mut response = ask(&connections, &provider.host).await;
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
    drop(response);
    provider.until_closed(1).await;
    drop(ask(&connections, &provider.host).await);
    assert_eq!(provider.connections(), 2);
}

#[tokio::test]
async fn a_request_that_is_given_up_ends_the_connection() {
    let mut provider = Provider::start(b"", usize::MAX).await;
    let connections = connections(LONG, 8);
    let asked = tokio::time::timeout(Duration::from_millis(100), ask(&connections, &provider.host)).await;
    assert!(asked.is_err(), "there is no answer");
    provider.until_closed(1).await;
}

#[tokio::test]
async fn what_was_idle_for_too_long_is_closed_also_when_nobody_asks_again() {
    let mut provider = Provider::start(ANSWER, usize::MAX).await;
    let connections = connections(Duration::from_millis(20), 8);
    read(ask(&connections, &provider.host).await).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    connections.close_expired();
    provider.until_closed(1).await;
    read(ask(&connections, &provider.host).await).await;
    assert_eq!(provider.connections(), 2);
}

#[tokio::test]
async fn a_host_is_forgotten_with_its_last_connection_also_where_requests_gave_up_waiting() {
    let provider = Provider::start(ANSWER, usize::MAX).await;
    let connections = connections(LONG, 8);
    read(ask(&connections, &provider.host).await).await;
    let first = ask(&connections, &provider.host).await;
    assert!(ask(&connections, &provider.host).now_or_never().is_none());
    assert_eq!(connections.shelf().len(), 1);
    drop(first);
    connections.close_expired();
    assert!(connections.shelf().is_empty());
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_was_taken_is_heard_and_the_connection_not_kept() {
    use super::super::body::{Abandoned, Ciphertext, SealedStream};

    struct Endless;
    impl SealedStream for Endless {
        fn poll_sealed(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
            Poll::Ready(Some(Ok(Ciphertext::sealed(vec![0; 65_536]))))
        }
    }

    let refusal = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
    let mut provider = Provider::start(refusal, 1).await;
    let connections = connections(LONG, 8);
    let mut request = Request::new(UpstreamBody::stream(Box::new(Endless), 1 << 40));
    *request.method_mut() = http::Method::PUT;
    request.headers_mut().insert(http::header::HOST, provider.host.as_str().parse().unwrap());
    // The provider answers after the head and closes; whether the answer or the broken connection is noticed first is the
    // kernel's, and either way it is over at once.
    let asked = connections.request(&provider.host, request);
    let answered = tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap();
    if let Ok(response) = answered {
        assert_eq!(response.status(), 403);
        drop(response.into_body().collect().await);
    }
    provider.until_closed(1).await;
    assert!(connections.take(&provider.host).is_none());
}

/// A connection that was used once and is kept, and the provider's side of it.
async fn kept(connections: &Arc<Connections>, listener: &TcpListener) -> (TcpStream, Authority) {
    let host = Authority::try_from(listener.local_addr().unwrap().to_string()).unwrap();
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        stream.write_all(ANSWER).await.unwrap();
        stream
    };
    let (stream, answer) = tokio::join!(served, async { read(ask(connections, &host).await).await });
    assert_eq!(answer, "ok");
    (stream, host)
}

/// The provider closes; the end is there, and nobody has looked.
async fn closed(stream: TcpStream) {
    drop(stream);
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_request_that_meets_the_end_of_its_connection_comes_back_untouched() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(LONG, 8);
    let (stream, host) = kept(&connections, &listener).await;
    let mut link = connections.shelf().get_mut(host.as_str()).unwrap().idle.pop().unwrap().link;
    closed(stream).await;
    let mut request = Request::new(UpstreamBody::empty());
    request.headers_mut().insert(http::header::HOST, host.as_str().parse().unwrap());
    let asked = tokio::time::timeout(Duration::from_secs(10), link.exchange(request)).await;
    let mut error = asked.expect("an answer, not a wait").unwrap_err();
    assert!(error.take_message().is_some());
}

#[tokio::test]
async fn the_end_of_a_connection_is_seen_also_where_the_task_has_had_its_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = connections(LONG, 8);
    let (stream, host) = kept(&connections, &listener).await;
    closed(stream).await;
    let mut link = connections.shelf().get_mut(host.as_str()).unwrap().idle.pop().unwrap().link;
    while tokio::task::coop::has_budget_remaining() {
        tokio::task::coop::consume_budget().await;
    }
    assert!(!link.is_free());
}

#[tokio::test]
async fn where_none_is_to_be_kept_none_is() {
    let mut provider = Provider::start(ANSWER, usize::MAX).await;
    let connections = connections(LONG, 0);
    for asked in 1..=3 {
        read(ask(&connections, &provider.host).await).await;
        provider.until_closed(asked).await;
        assert_eq!(provider.connections(), asked);
    }
}
