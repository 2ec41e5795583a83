//! The head of a request, exactly as the client sent it.

use http::{HeaderMap, Method, Uri, header};

use crate::error::S3Error;
use crate::uri::decode_query_component;

/// The head of a request, borrowed unchanged: what classification reads and what the signature covers.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as it came, still percent-encoded, beginning with `/`.
    pub raw_path: &'a str,
    /// The query as it came, without `?`; empty when there is none.
    pub raw_query: &'a str,
    /// `Host` as the client wrote it (HTTP/2: the authority), with the port if one was written.
    pub host: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestHead<'a> {
    /// Borrows the head of an HTTP request. The `Host` header wins over the authority of the target.
    pub fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        Self {
            method,
            raw_path: if uri.path().is_empty() { "/" } else { uri.path() },
            raw_query: uri.query().unwrap_or(""),
            host: host.or_else(|| uri.authority().map(|authority| authority.as_str())),
            headers,
        }
    }

    /// Borrows the head from the parts of an [`http::Request`].
    pub fn from_parts(parts: &'a http::request::Parts) -> Self {
        Self::new(&parts.method, &parts.uri, &parts.headers)
    }

    /// The pairs of the query as written, not yet decoded; a name without `=` has an empty value.
    pub(crate) fn raw_pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let pairs = self.raw_query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The pairs of the query, decoded; `InvalidURI` for broken escapes.
    pub(crate) fn pairs(&self) -> Result<Vec<(String, String)>, S3Error> {
        self.raw_pairs()
            .map(|(name, value)| Ok((decode_query_component(name)?, decode_query_component(value)?)))
            .collect()
    }
}
