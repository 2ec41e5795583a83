//! A store for unit tests: answers as it is told, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use claviger_env::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::account::Account;
use super::{Upstream, tls};

/// The store, and the way to it.
pub(crate) struct Double {
    /// The way to it.
    pub upstream: Upstream,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Double {
    /// Head and body of each request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Method and path of each request so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |text: &String| text.split(" HTTP/1.1").next().unwrap_or_default().to_owned();
        self.asked().iter().map(line).collect()
    }
}

/// Starts a store of the kind `profile`, which answers a request (head and body) with what `to` makes of it.
pub(crate) async fn store(profile: &str, to: impl Fn(&str) -> String + Send + 'static) -> Double {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config =
        format!("endpoint = \"http://{address}\"\ncredentials_file = \"none\"\nprofile = \"{profile}\"");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let text = whole_request(&mut stream).await;
            let answer = to(&text);
            heard.lock().unwrap().push(text);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let tls = tls::client_config(None).unwrap();
    let config = toml::from_str(&config).unwrap();
    let upstream = Upstream::new(&config, Arc::new(Account::Anonymous), tls, Arc::new(SystemClock)).unwrap();
    Double { upstream, asked }
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

/// The method of a request.
pub(crate) fn method(request: &str) -> &str {
    request.split(' ').next().unwrap_or_default()
}

/// An answer.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{length}{headers}\r\n{body}")
}

/// The head of an object of no bytes, with these headers besides.
pub(crate) fn object(headers: &[(&str, &str)]) -> String {
    let mut all = vec![("etag", "\"abc\""), ("last-modified", "Sun, 22 Nov 2026 00:00:00 GMT")];
    all.extend(headers);
    answer(200, &all, "")
}
