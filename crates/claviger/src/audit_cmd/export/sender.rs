//! Where records go.

use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::Format;
use crate::s3_client::connector;

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_LEN_MAX: usize = 1 << 20;

/// Where to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Stdout,
    Udp(String),
    Tcp(String),
    Unix(PathBuf),
    Otlp(Uri),
}

/// Why something was not sent.
pub(super) enum Trouble {
    /// The receiver is away or busy.
    MayPass(anyhow::Error),
    /// It will not take this.
    Final(anyhow::Error),
}

impl Destination {
    /// Reads `--to`.
    ///
    /// # Errors
    /// For what is none, or does not go with the format.
    pub(super) fn parse(to: Option<&str>, format: Format) -> Result<Self> {
        let Some(to) = to else { return Ok(Self::Stdout) };
        let (scheme, rest) = to.split_once("://").context("--to is no URL")?;
        match (scheme, format) {
            ("udp" | "tcp", Format::Syslog) => {
                let has_port = rest
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
                if !has_port {
                    bail!("--to {to}: HOST:PORT is missing, for example {scheme}://127.0.0.1:514");
                }
                Ok(if scheme == "udp" { Self::Udp(rest.to_owned()) } else { Self::Tcp(rest.to_owned()) })
            }
            ("unix", Format::Syslog) if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            ("http" | "https", Format::Otlp) => {
                let uri: Uri = to.parse().with_context(|| format!("--to {to}"))?;
                if uri.path() == "/" {
                    return Ok(Self::Otlp(format!("{}/v1/logs", to.trim_end_matches('/')).parse()?));
                }
                Ok(Self::Otlp(uri))
            }
            ("udp" | "tcp" | "unix", _) => bail!("--to {to} takes --format syslog"),
            ("http" | "https", _) => bail!("--to {to} takes --format otlp"),
            _ => bail!("--to {to}: udp, tcp, unix, http or https"),
        }
    }
}

/// What sends.
pub(super) struct Sender {
    way: Way,
}

enum Way {
    Stdout,
    Udp(UdpSocket, String),
    Tcp(Option<TcpStream>, String),
    Unix(PathBuf),
    Otlp(Box<Client<HttpsConnector<HttpConnector>, Full<Bytes>>>, Uri),
}

impl Sender {
    /// Connects when something is sent.
    ///
    /// # Errors
    /// When there is no socket to be had, or the system's authorities can't be read.
    pub(super) fn new(destination: Destination) -> Result<Self> {
        let way = match destination {
            Destination::Stdout => Way::Stdout,
            // Of either family: the receiver's name decides.
            Destination::Udp(to) => {
                Way::Udp(UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?, to)
            }
            Destination::Tcp(to) => Way::Tcp(None, to),
            Destination::Unix(path) => Way::Unix(path),
            Destination::Otlp(uri) => Way::Otlp(Box::new(crate::s3_client::client_for(connector()?)), uri),
        };
        Ok(Self { way })
    }

    /// Sends messages, all or in doubt none: after an error all are to be sent again.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) async fn send(&mut self, messages: &[String]) -> Result<(), Trouble> {
        match &mut self.way {
            Way::Stdout => to_stdout(messages).map_err(Trouble::Final),
            Way::Udp(socket, to) => to_udp(socket, to, messages),
            Way::Unix(path) => to_unix(path, messages),
            Way::Tcp(stream, to) => {
                let sent = tokio::time::timeout(TIMEOUT, to_tcp(stream, to, messages)).await;
                let sent = sent.unwrap_or_else(|_| Err(anyhow!("{to} takes nothing")));
                if sent.is_err() {
                    *stream = None;
                }
                sent.map_err(Trouble::MayPass)
            }
            Way::Otlp(client, uri) => {
                for message in messages {
                    let posted = tokio::time::timeout(TIMEOUT, post(client, uri, message)).await;
                    posted.unwrap_or_else(|_| Err(Trouble::MayPass(anyhow!("{uri} does not answer"))))?;
                }
                Ok(())
            }
        }
    }
}

fn to_stdout(messages: &[String]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for message in messages {
        writeln!(out, "{message}").context("standard output")?;
    }
    out.flush().context("standard output")
}

/// A datagram holds one message (RFC 5426); one that is too long for it would be lost, so it is not sent at all.
fn to_udp(socket: &UdpSocket, to: &str, messages: &[String]) -> Result<(), Trouble> {
    use std::net::ToSocketAddrs as _;
    let address = to.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let mut address = address.ok_or_else(|| Trouble::MayPass(anyhow!("{to}: no such host")))?;
    if let (std::net::SocketAddr::V4(v4), Ok(true)) = (address, socket.local_addr().map(|own| own.is_ipv6()))
    {
        address = (v4.ip().to_ipv6_mapped(), v4.port()).into();
    }
    messages.iter().try_for_each(|message| datagram(socket.send_to(message.as_bytes(), address), to, message))
}

fn to_unix(path: &Path, messages: &[String]) -> Result<(), Trouble> {
    let to = path.display().to_string();
    let socket = UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
    let socket = socket.with_context(|| to.clone()).map_err(Trouble::MayPass)?;
    messages.iter().try_for_each(|message| datagram(socket.send(message.as_bytes()), &to, message))
}

fn datagram(sent: std::io::Result<usize>, to: &str, message: &str) -> Result<(), Trouble> {
    /// EMSGSIZE on Linux.
    const MESSAGE_TOO_LONG: i32 = 90;
    match sent {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(MESSAGE_TOO_LONG) => Err(Trouble::Final(anyhow!(
            "a record of {} bytes is too long for a datagram to {to}; use tcp://",
            message.len()
        ))),
        Err(error) => Err(Trouble::MayPass(anyhow!("{to}: {error}"))),
    }
}

/// With octet counting (RFC 6587 §3.4.1): a message may hold line ends.
async fn to_tcp(stream: &mut Option<TcpStream>, to: &str, messages: &[String]) -> Result<()> {
    if let Some(open) = &*stream
        && matches!(open.try_read(&mut [0]), Ok(0))
    {
        // Closed by the receiver: what is written now would vanish without an error.
        *stream = None;
    }
    if stream.is_none() {
        *stream = Some(TcpStream::connect(to).await.with_context(|| to.to_owned())?);
    }
    let Some(open) = stream else { return Ok(()) };
    let mut bytes = Vec::new();
    for message in messages {
        bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
        bytes.extend_from_slice(message.as_bytes());
    }
    open.write_all(&bytes).await.with_context(|| to.to_owned())?;
    open.flush().await.with_context(|| to.to_owned())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    partial_success: Option<PartialSuccess>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialSuccess {
    /// A 64-bit number, as a text or, from some, as a number.
    #[serde(default)]
    rejected_log_records: serde_json::Value,
    #[serde(default)]
    error_message: String,
}

async fn post(
    client: &Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: &Uri,
    message: &str,
) -> Result<(), Trouble> {
    let request =
        Request::builder().method(Method::POST).uri(uri).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(Bytes::from(message.to_owned())));
    let request = request.map_err(|error| Trouble::Final(error.into()))?;
    let answer = client.request(request).await.with_context(|| format!("no answer from {uri}"));
    let answer = answer.map_err(Trouble::MayPass)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect().await;
    let body = body.map_err(|error| Trouble::MayPass(anyhow!("{uri}: {error}")))?.to_bytes();
    match status.as_u16() {
        200 => check_partial(uri, &body),
        // The codes that the specification calls retryable.
        429 | 502 | 503 | 504 => Err(Trouble::MayPass(anyhow!("{uri} answers {status}"))),
        _ => Err(Trouble::Final(anyhow!("{uri} answers {status}: {}", String::from_utf8_lossy(&body)))),
    }
}

/// A collector may take some of a request and refuse the rest for good: nothing is lost without being told.
fn check_partial(uri: &Uri, body: &[u8]) -> Result<(), Trouble> {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return Ok(()) };
    let Some(partial) = answer.partial_success else { return Ok(()) };
    let rejected = match &partial.rejected_log_records {
        serde_json::Value::String(text) => text.parse().unwrap_or(0),
        number => number.as_u64().unwrap_or(0),
    };
    if rejected == 0 {
        return Ok(());
    }
    let message = &partial.error_message;
    Err(Trouble::Final(anyhow!("{uri} refuses {rejected} records: {message}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_goes_with_its_format_alone() {
        let parse = |to, format| Destination::parse(Some(to), format);
        assert_eq!(parse("udp://[::1]:514", Format::Syslog).unwrap(), Destination::Udp("[::1]:514".into()));
        assert_eq!(parse("unix:///dev/log", Format::Syslog).unwrap(), Destination::Unix("/dev/log".into()));
        let Destination::Otlp(uri) = parse("http://127.0.0.1:4318/", Format::Otlp).unwrap() else { panic!() };
        assert_eq!(uri.to_string(), "http://127.0.0.1:4318/v1/logs");
        let Destination::Otlp(uri) = parse("https://c.example/x/v1/logs", Format::Otlp).unwrap() else {
            panic!()
        };
        assert_eq!(uri.path(), "/x/v1/logs");
        for (to, format) in [
            ("udp://host", Format::Syslog),
            ("udp://:514", Format::Syslog),
            ("tcp://host:514", Format::Otlp),
            ("unix://dev/log", Format::Syslog),
            ("http://host", Format::Jsonl),
            ("ftp://host:1", Format::Syslog),
            ("host:514", Format::Syslog),
        ] {
            assert!(parse(to, format).is_err(), "{to}");
        }
    }

    #[test]
    fn what_a_collector_refuses_is_told() {
        let uri = Uri::from_static("http://c.example/v1/logs");
        for fine in
            ["", "{}", "{\"partialSuccess\":{}}", "{\"partialSuccess\":{\"rejectedLogRecords\":\"0\"}}"]
        {
            assert!(check_partial(&uri, fine.as_bytes()).is_ok(), "{fine}");
        }
        for refused in [
            "{\"partialSuccess\":{\"rejectedLogRecords\":\"2\"}}",
            "{\"partialSuccess\":{\"rejectedLogRecords\":2}}",
        ] {
            assert!(matches!(check_partial(&uri, refused.as_bytes()), Err(Trouble::Final(_))), "{refused}");
        }
    }
}
