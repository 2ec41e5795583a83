use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use claviger_env::SystemClock;
use futures_util::FutureExt;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::*;

/// Answers by path; `/wait` holds its answer back until `release` is notified.
#[derive(Default)]
struct Paths {
    release: Notify,
    waiting: Notify,
    dropped: Arc<Mutex<usize>>,
}

struct CountDrop(Arc<Mutex<usize>>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

/// Frames, then a pause in which they go out, then an error.
struct Broken {
    frames: VecDeque<&'static str>,
    pause: Pin<Box<tokio::time::Sleep>>,
}

fn broken() -> ResponseBody {
    let pause = Box::pin(tokio::time::sleep(Duration::from_millis(100)));
    Broken { frames: ["first", "second"].into(), pause }.boxed_unsync()
}

impl Body for Broken {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(text) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))));
        }
        self.pause.as_mut().poll(cx).map(|()| Some(Err(BodyError::new("integrity check failed"))))
    }
}

fn text(text: &'static str) -> Response<ResponseBody> {
    Response::new(reply::full(Bytes::from_static(text.as_bytes())))
}

impl Handler for Paths {
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        meta: RequestMeta,
    ) -> BoxFuture<'static, Response<ResponseBody>> {
        async move {
            match request.uri().path() {
                "/id" => Response::new(reply::full(meta.request_id.to_string().into())),
                "/echo" => {
                    match IdleTimeout::new(request.into_body(), Duration::from_millis(300)).collect().await {
                        Ok(body) => Response::new(reply::full(body.to_bytes())),
                        Err(RequestBodyError::Idle(_)) => text("idle"),
                        Err(RequestBodyError::Broken(_)) => text("broken"),
                    }
                }
                "/panic" => panic!("a bug"),
                "/refuse" => {
                    let mut response = text("refused");
                    response.headers_mut().insert("connection", "close".parse().unwrap());
                    response
                }
                "/broken" => Response::new(broken()),
                "/broken-with-length" => {
                    let mut response = Response::new(broken());
                    response.headers_mut().insert("content-length", 100.into());
                    response
                }
                "/huge" => Response::new(reply::full(vec![7; 64 << 20].into())),
                "/wait" => {
                    let _counted = CountDrop(Arc::clone(&self.dropped));
                    self.waiting.notify_one();
                    self.release.notified().await;
                    text("released")
                }
                "/polls" => {
                    let mut polls = 0;
                    let mut work = Box::pin(async {
                        drop(request.into_body().collect().await);
                        self.waiting.notify_one();
                        self.release.notified().await;
                    });
                    std::future::poll_fn(|cx| {
                        polls += 1;
                        work.as_mut().poll(cx)
                    })
                    .await;
                    Response::new(reply::full(polls.to_string().into()))
                }
                _ => text("hello"),
            }
        }
        .boxed()
    }
}

struct Running {
    address: SocketAddr,
    handler: Arc<Paths>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<ServeReport>,
}

async fn start(limits: LimitsConfig, tls: Option<Arc<rustls::ServerConfig>>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Arc::new(Paths::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let options = ServerOptions {
        limits,
        clock: Arc::new(SystemClock),
        instance: 42,
        workers: Some(Arc::new(Workers::start().unwrap())),
    };
    let serving =
        tokio::spawn(serve(listener, handler.clone(), options, tls, async move { drop(stopped.await) }));
    Running { address, handler, stop: Some(stop), serving }
}

async fn start_default() -> Running {
    start(LimitsConfig::default(), None).await
}

impl Running {
    /// Sends bytes as they are and reads to the end of the connection.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.raw(&get(path)).await
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    // A reset ends the answer as well as a close does.
    drop(tokio::time::timeout(Duration::from_secs(20), reading).await.expect("the server never hangs"));
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn every_answer_has_its_own_request_id_host_id_and_server_name() {
    let server = start_default().await;
    let (first, second) = (server.get("/id").await, server.get("/id").await);
    let id = |answer: &str| {
        let header =
            answer.lines().find_map(|line| line.strip_prefix("x-amz-request-id: ")).unwrap().to_owned();
        assert_eq!(header.len(), 16);
        assert!(header.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)), "{header}");
        assert!(answer.ends_with(&header), "the handler knows the same id");
        header
    };
    assert_ne!(id(&first), id(&second));
    for part in ["x-amz-id-2: ", "server: Claviger\r\n", "date: "] {
        assert!(first.contains(part), "{first}");
    }
}

#[tokio::test]
async fn malformed_requests_are_answered_400_and_oversize_headers_431() {
    let server = start_default().await;
    for request in ["nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n"] {
        let answer = server.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
    }
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(70_000));
    assert!(server.raw(&long).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-a: b\r\n".repeat(200));
    assert!(server.raw(&many).await.starts_with("HTTP/1.1 431 "));
    assert!(server.get("/").await.ends_with("hello"), "the server goes on");
}

#[tokio::test]
async fn conflicting_lengths_are_refused() {
    let server = start_default().await;
    let two = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde";
    assert!(server.raw(two).await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_panicking_handler_is_a_500_and_the_end_of_its_connection_only() {
    let server = start_default().await;
    let answer = server.raw("GET /panic HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("<Code>InternalError</Code>") && !answer.contains("a bug"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(server.get("/").await.ends_with("hello"));
}

#[tokio::test]
async fn a_failing_body_is_never_ended_cleanly() {
    let server = start_default().await;
    let chunked = server.get("/broken").await;
    assert!(chunked.contains("transfer-encoding: chunked"), "{chunked}");
    assert!(chunked.ends_with("second\r\n"), "the last chunk would make it look whole: {chunked}");
    let with_length = server.get("/broken-with-length").await;
    let (_, body) = with_length.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "firstsecond", "the announced 100 bytes never come");
}

#[tokio::test]
async fn requests_above_the_limit_get_503_slow_down_with_retry_after() {
    let limits = LimitsConfig { concurrent_requests_max: 1, ..LimitsConfig::default() };
    let server = start(limits, None).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(get("/wait").as_bytes()).await.unwrap();
    server.handler.waiting.notified().await;
    let refused = server.get("/").await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("<Code>SlowDown</Code>") && refused.contains("retry-after: "), "{refused}");
    server.handler.release.notify_one();
    assert!(read_all(&mut first).await.ends_with("released"));
    assert!(server.get("/").await.ends_with("hello"), "the place is free again");
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_their_turn() {
    let limits = LimitsConfig { concurrent_connections_max: 1, ..LimitsConfig::default() };
    let server = start(limits, None).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(get("/wait").as_bytes()).await.unwrap();
    server.handler.waiting.notified().await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(get("/").as_bytes()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(early.is_err(), "the second connection is not served yet");
    server.handler.release.notify_one();
    read_all(&mut first).await;
    assert!(read_all(&mut second).await.ends_with("hello"));
}

#[tokio::test]
async fn a_client_that_half_closes_still_gets_its_answer() {
    let server = start_default().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("body"));
}

#[tokio::test]
async fn a_body_that_stops_coming_or_breaks_off_is_an_error_for_the_handler() {
    let server = start_default().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbo";
    stream.write_all(head).await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("idle"));

    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("broken"));
}

/// Sends a request with a body of `len` bytes to its end before looking for the answer, as simple clients do.
async fn send_all_then_read(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    len: usize,
) -> std::io::Result<String> {
    let head = format!("PUT /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    // The answer is on its way, and the server would be done with the connection.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let piece = vec![0; 256 << 10];
    for _ in 0..len / piece.len() {
        stream.write_all(&piece).await?;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn a_client_that_sends_its_whole_body_first_still_reads_an_early_answer() {
    let server = start_default().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let answer = send_all_then_read(&mut stream, 12 << 20).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("refused"), "{answer}");
}

#[tokio::test]
async fn a_client_that_goes_on_for_ever_after_an_early_answer_is_cut_off() {
    let server = start_default().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let sending = send_all_then_read(&mut stream, 4 << 30);
    let sent = tokio::time::timeout(Duration::from_secs(20), sending).await.expect("cut off in time");
    assert!(sent.is_err(), "4 GiB are not taken");
}

#[tokio::test]
async fn a_client_that_stops_sending_after_an_early_answer_is_let_go_in_seconds() {
    let mut server = start_default().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PUT /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nab").await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("refused"));
    server.stop.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(4), server.serving).await;
    assert_eq!(ended.expect("the client does not hold up the stop").unwrap().connections_aborted, 0);
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_a_stop() {
    let mut server = start_default().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /id HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
    server.stop.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_millis(500), server.serving).await;
    assert_eq!(ended.expect("at once").unwrap().connections_aborted, 0);
}

#[tokio::test]
async fn an_upload_above_the_limit_of_requests_reads_slow_down() {
    let limits = LimitsConfig { concurrent_requests_max: 1, ..LimitsConfig::default() };
    let server = start(limits, None).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(get("/wait").as_bytes()).await.unwrap();
    server.handler.waiting.notified().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let answer = send_all_then_read(&mut stream, 8 << 20).await.unwrap();
    assert!(answer.contains("<Code>SlowDown</Code>") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn headers_that_never_end_are_given_up() {
    let limits = LimitsConfig { header_read_timeout_s: 1, ..LimitsConfig::default() };
    let server = start(limits, None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    assert!(!read_all(&mut stream).await.contains("200 OK"), "the connection is closed without an answer");
}

#[tokio::test]
async fn a_client_that_takes_no_data_is_given_up() {
    let limits = LimitsConfig { body_idle_timeout_s: 1, ..LimitsConfig::default() };
    let server = start(limits, None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(get("/huge").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut answer = Vec::new();
    drop(tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap());
    assert!(answer.len() < 64 << 20, "the transfer was broken off");
}

#[tokio::test]
async fn a_stop_takes_no_new_connections_and_lets_running_requests_finish() {
    let mut server = start_default().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(get("/wait").as_bytes()).await.unwrap();
    server.handler.waiting.notified().await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(server.address).await.is_err());
    server.handler.release.notify_one();
    assert!(read_all(&mut stream).await.ends_with("released"));
    assert_eq!(server.serving.await.unwrap(), ServeReport { connections_aborted: 0 });
    drop(idle);
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_time_is_broken_off_and_its_work_dropped() {
    let limits = LimitsConfig { drain_timeout_s: 1, ..LimitsConfig::default() };
    let mut server = start(limits, None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(get("/wait").as_bytes()).await.unwrap();
    server.handler.waiting.notified().await;
    server.stop.take().unwrap().send(()).unwrap();
    assert_eq!(server.serving.await.unwrap(), ServeReport { connections_aborted: 1 });
    assert_eq!(*server.handler.dropped.lock().unwrap(), 1);
    assert_eq!(read_all(&mut stream).await, "");
}

#[tokio::test]
async fn keep_alive_serves_requests_one_after_the_other() {
    let server = start_default().await;
    let pipelined = format!("GET /id HTTP/1.1\r\nhost: x\r\n\r\n{}", get("/"));
    let answer = server.raw(&pipelined).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
}

/// By what it did itself, the connection would poll it a third time.
#[tokio::test]
async fn a_handler_is_polled_when_it_begins_and_when_it_is_woken() {
    let server = start_default().await;
    let request = "PUT /polls HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    let release = async {
        server.handler.waiting.notified().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.handler.release.notify_one();
    };
    let (answer, ()) = tokio::join!(server.raw(request), release);
    assert!(answer.ends_with("\r\n\r\n2"), "{answer}");
}

#[tokio::test]
async fn answers_whose_body_nobody_wants_leave_the_connection_to_the_next_request() {
    let server = start_default().await;
    let expecting =
        "PUT /polls HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello";
    let head = |path| format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let requests = [head("/broken-with-length"), expecting.into(), head("/huge"), get("/wait")].concat();
    let release = async {
        for _ in 0..2 {
            server.handler.waiting.notified().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            server.handler.release.notify_one();
        }
    };
    let (answer, ()) = tokio::join!(server.raw(&requests), release);
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 4, "{answer}");
    assert!(answer.ends_with("\r\n\r\nreleased"), "{answer}");
}

mod with_tls {
    use std::os::unix::fs::PermissionsExt;

    use rustls::NamedGroup;
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::config::TlsConfig;

    struct Files {
        _folder: tempfile::TempDir,
        config: TlsConfig,
        certificate: rcgen::Certificate,
    }

    fn files() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let config = TlsConfig {
            certificate_file: folder.path().join("c.pem"),
            key_file: folder.path().join("k.pem"),
        };
        std::fs::write(&config.certificate_file, made.cert.pem()).unwrap();
        std::fs::write(&config.key_file, made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&config.key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
        Files { _folder: folder, config, certificate: made.cert }
    }

    #[tokio::test]
    async fn tls_clients_are_served_over_the_hybrid_group() {
        let files = files();
        let server = start(LimitsConfig::default(), Some(tls_config(&files.config).unwrap())).await;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(files.certificate.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, tcp).await.unwrap();
        let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        stream.write_all(get("/").as_bytes()).await.unwrap();
        assert!(read_all(&mut stream).await.ends_with("hello"));
    }

    /// Connects as a client that trusts `trusted`, and gives the certificate that the server showed.
    async fn shown_certificate(
        server: &Running,
        trusted: &rcgen::Certificate,
    ) -> Result<Vec<u8>, std::io::Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, tcp).await?;
        Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_without_a_restart_and_half_a_renewal_changes_nothing() {
        let (old, new) = (files(), files());
        let server = start(LimitsConfig::default(), Some(tls_config(&old.config).unwrap())).await;
        assert_eq!(
            shown_certificate(&server, &old.certificate).await.unwrap(),
            old.certificate.der().to_vec()
        );
        std::fs::copy(&new.config.certificate_file, &old.config.certificate_file).unwrap();
        assert_eq!(
            shown_certificate(&server, &old.certificate).await.unwrap(),
            old.certificate.der().to_vec()
        );
        std::fs::copy(&new.config.key_file, &old.config.key_file).unwrap();
        assert_eq!(
            shown_certificate(&server, &new.certificate).await.unwrap(),
            new.certificate.der().to_vec()
        );
        assert!(shown_certificate(&server, &old.certificate).await.is_err());
    }

    #[tokio::test]
    async fn plain_http_on_the_tls_port_gets_nothing() {
        let server = start(LimitsConfig::default(), Some(tls_config(&files().config).unwrap())).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(get("/").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        assert!(!answer.starts_with(b"HTTP"));
    }

    #[test]
    fn a_readable_key_a_missing_key_and_a_foreign_key_are_refused() {
        let (mine, other) = (files(), files());
        let foreign = TlsConfig { key_file: other.config.key_file.clone(), ..mine.config.clone() };
        assert!(matches!(tls_config(&foreign), Err(TlsConfigError::Mismatch { .. })));
        std::fs::set_permissions(&mine.config.key_file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(tls_config(&mine.config), Err(TlsConfigError::KeyFile(_))));
        let swapped = TlsConfig { certificate_file: other.config.key_file.clone(), ..other.config.clone() };
        assert!(matches!(tls_config(&swapped), Err(TlsConfigError::NoCertificate { .. })));
    }
}

#[test]
fn request_ids_never_repeat_in_a_run() {
    let ids: std::collections::HashSet<u64> =
        (0..100_000_u64).map(|n| scramble(7_u64.wrapping_add(n))).collect();
    assert_eq!(ids.len(), 100_000);
    assert_eq!(RequestId::from_number(0xFED).as_str(), "0000000000000FED");
}
