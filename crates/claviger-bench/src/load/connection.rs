//! One connection of a client, and the requests it sends one after the other.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use claviger_s3::xml::{InitiateMultipartUploadResult, ListObjectsV2Result};
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Work;
use super::content::Content;
use super::target::Target;

type Body = http_body_util::Either<Content, http_body_util::Full<Bytes>>;

/// Bytes of an object that is only listed.
const LISTED_LEN: u64 = 1024;

pub(super) struct Connection {
    pub(super) target: Arc<Target>,
    sender: SendRequest<Body>,
    /// Of the worker; it writes under a name of its own.
    pub(super) number: usize,
    /// So many were done of those that differ.
    pub(super) turns: u64,
}

fn content(len: u64) -> Body {
    Body::Left(Content::new(len))
}

pub(super) fn content_part(offset: u64, len: u64) -> Body {
    Body::Left(Content::part(offset, len))
}

pub(super) fn document(text: impl Into<Bytes>) -> Body {
    Body::Right(http_body_util::Full::new(text.into()))
}

impl Connection {
    pub(super) async fn open(target: Arc<Target>, number: usize) -> Result<Self> {
        let stream = TcpStream::connect(&target.authority)
            .await
            .with_context(|| format!("{} can't be reached", target.authority))?;
        stream.set_nodelay(true)?;
        let sender = match &target.tls {
            None => {
                let (sender, connection) = builder().handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
            Some(tls) => {
                let name = ServerName::try_from(target.host.clone())?;
                let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
                let (sender, connection) = builder().handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        Ok(Self { target, sender, number, turns: 0 })
    }

    /// One turn.
    pub(super) async fn turn(&mut self, work: &Work) -> Result<()> {
        match work {
            Work::Get { len } => self.get(*len, false).await,
            Work::Put { len } => {
                let key = self.target.key("put", format_args!("{len}-{}", self.number));
                self.send(Method::PUT, &key, "", content(*len)).await.map(drop)
            }
            Work::Multipart { part_len, parts, limited } => self.multipart(*part_len, *parts, *limited).await,
            Work::List { keys } => self.list(*keys).await,
            Work::Download { len } => self.download(*len).await,
            Work::Upload { len } => self.upload(*len).await,
            Work::Range { len } => self.range(*len).await,
            Work::Page { after } => self.page_behind(after).await,
            Work::Walk { names } => self.walk(*names).await,
            Work::Epochs { epochs } => self.read_of_next_epoch(*epochs).await,
        }
    }

    async fn get(&mut self, len: u64, compares: bool) -> Result<()> {
        let key = self.target.key("get", len);
        let mut body = self.send_raw(Method::GET, &key, "", document(Bytes::new())).await?.into_body();
        let mut at = 0;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                ensure!(!compares || Content::is_at(at, &data), "{key} came back with other content");
                at += data.len() as u64;
            }
        }
        ensure!(at == len, "{key} came back with {at} bytes, not {len}");
        Ok(())
    }

    pub(super) async fn write_and_compare(&mut self, len: u64) -> Result<()> {
        let key = self.target.key("get", len);
        self.send(Method::PUT, &key, "", content(len)).await?;
        self.get(len, true).await
    }

    pub(super) async fn write_listed(&mut self, number: usize) -> Result<()> {
        let key = self.target.key("list", format_args!("2026/11/scan-{number:07}.dcm"));
        self.send(Method::PUT, &key, "", content(LISTED_LEN)).await.map(drop)
    }

    async fn multipart(&mut self, part_len: u64, parts: u32, limited: bool) -> Result<()> {
        let key =
            self.target.key(if limited { "limited" } else { "put" }, format_args!("parts-{}", self.number));
        let begun = self.send(Method::POST, &key, "uploads=", document(Bytes::new())).await?;
        let id = InitiateMultipartUploadResult::parse(begun.1.as_bytes())?.upload_id;
        let mut list = String::new();
        for number in 1..=parts {
            let query = format!("partNumber={number}&uploadId={id}");
            let (headers, _) = self.send(Method::PUT, &key, &query, content(part_len)).await?;
            let etag =
                headers.get(http::header::ETAG).and_then(|etag| etag.to_str().ok()).context("no ETag")?;
            list.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
        }
        let list = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let done = self.send(Method::POST, &key, &format!("uploadId={id}"), document(list)).await?;
        ensure!(done.1.contains("<ETag>"), "{key} was not completed: {}", done.1);
        Ok(())
    }

    async fn list(&mut self, keys: usize) -> Result<()> {
        let prefix = encode(&self.target.key("list", ""));
        let (_, page) = self.page(&format!("list-type=2&max-keys={keys}&prefix={prefix}")).await?;
        let found = page.matches("<Key>").count();
        ensure!(found == keys, "{found} names in a listing, not {keys}");
        // Sizes are those of what was written, whatever lies at the store.
        ensure!(page.contains(&format!("<Size>{LISTED_LEN}</Size>")), "a listing tells other sizes: {page}");
        Ok(())
    }

    pub(super) async fn page(&mut self, query: &str) -> Result<(HeaderMap, String)> {
        self.send(Method::GET, "", query, document(Bytes::new())).await
    }

    pub(super) async fn make_bucket(&mut self) -> Result<()> {
        let head = self.exchange(Method::HEAD, "", "", document(Bytes::new())).await?;
        let status = head.status();
        head.into_body().collect().await?;
        if status == StatusCode::OK {
            return Ok(());
        }
        self.send(Method::PUT, "", "", document(Bytes::new())).await.map(drop)
    }

    pub(super) async fn clean(&mut self) -> Result<()> {
        for area in ["get", "put", "limited", "list"] {
            let prefix = encode(&self.target.key(area, ""));
            loop {
                let (_, page) = self.page(&format!("encoding-type=url&list-type=2&prefix={prefix}")).await?;
                let entries = ListObjectsV2Result::parse(page.as_bytes())?.contents;
                if entries.is_empty() {
                    break;
                }
                for key in entries.into_iter().map(|entry| entry.key) {
                    self.send(Method::DELETE, &key, "", document(Bytes::new())).await?;
                }
            }
        }
        Ok(())
    }

    /// Sends a request and reads the answer as text.
    pub(super) async fn send(
        &mut self,
        method: Method,
        key: &str,
        query: &str,
        body: Body,
    ) -> Result<(HeaderMap, String)> {
        let (head, body) = self.send_raw(method, key, query, body).await?.into_parts();
        let text = body.collect().await?.to_bytes();
        Ok((head.headers, String::from_utf8_lossy(&text).into_owned()))
    }

    pub(super) async fn send_raw(
        &mut self,
        method: Method,
        key: &str,
        query: &str,
        body: Body,
    ) -> Result<Response<Incoming>> {
        let shown = method.clone();
        let response = self.exchange(method, key, query, body).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        bail!("{shown} {key}?{query}: {status} {}", String::from_utf8_lossy(&text))
    }

    async fn exchange(
        &mut self,
        method: Method,
        key: &str,
        query: &str,
        body: Body,
    ) -> Result<Response<Incoming>> {
        self.exchange_with(method, key, query, body, None).await
    }

    /// The same with a header, which is signed.
    pub(super) async fn exchange_with(
        &mut self,
        method: Method,
        key: &str,
        query: &str,
        body: Body,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Response<Incoming>> {
        let bucket = &self.target.bucket;
        let path = if key.is_empty() { format!("/{bucket}") } else { format!("/{bucket}/{key}") };
        self.exchange_at(method, path, query, body, header).await
    }

    /// A request that names no bucket.
    pub(super) async fn send_to_service(
        &mut self,
        method: Method,
        query: &str,
        body: Body,
    ) -> Result<String> {
        let answer = self.exchange_at(method, "/".to_owned(), query, body, None).await?;
        let text = answer.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn exchange_at(
        &mut self,
        method: Method,
        path: String,
        query: &str,
        body: Body,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Response<Incoming>> {
        let target = &self.target;
        let mut headers: HeaderMap = header.into_iter().collect();
        headers.insert(HOST, HeaderValue::from_str(&target.authority)?);
        target.sign(&method, &path, query, &mut headers)?;
        let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
        let mut request = Request::builder().method(method).uri(uri).body(body)?;
        *request.headers_mut() = headers;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(1 << 20);
    builder
}

pub(super) fn encode(text: &str) -> String {
    claviger_s3::uri::encode(text.as_bytes(), claviger_s3::uri::Slash::Encode)
}
