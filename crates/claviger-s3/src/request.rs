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
    /// Borrows the head of an HTTP request. Of a target in absolute form (`GET http://host/path`) the authority is the
    /// host, and a `Host` header is ignored (RFC 9112 §3.2.2).
    pub fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        Self {
            method,
            raw_path: if uri.path().is_empty() { "/" } else { uri.path() },
            raw_query: uri.query().unwrap_or(""),
            host: uri.authority().map(|authority| authority.as_str()).or(host),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_names_the_host_where_it_is_in_absolute_form() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "h:1".parse().unwrap());
        let host = |target: &str, headers: &HeaderMap| {
            let uri: Uri = target.parse().unwrap();
            let head = RequestHead::new(&Method::GET, &uri, headers);
            (head.host.map(str::to_owned), head.raw_path.to_owned())
        };
        assert_eq!(host("/b/k", &headers), (Some("h:1".to_owned()), "/b/k".to_owned()));
        assert_eq!(host("http://other:2/b/k", &headers), (Some("other:2".to_owned()), "/b/k".to_owned()));
        assert_eq!(host("http://other:2", &headers), (Some("other:2".to_owned()), "/".to_owned()));
        assert_eq!(
            host("http://other/b?acl", &HeaderMap::new()),
            (Some("other".to_owned()), "/b".to_owned())
        );
        assert_eq!(host("/b/k", &HeaderMap::new()).0, None);
    }
}
