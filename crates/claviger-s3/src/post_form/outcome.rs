//! What a browser gets when its form was a success.

use http::{StatusCode, Uri};

use crate::uri::{Slash, encode};

/// The answer that a form asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Success {
    /// `success_action_redirect`: 303 to this address, with bucket, key and entity tag in its query.
    Redirect(String),
    /// `success_action_status`: 200, 201 (with a document) or 204.
    Status(StatusCode),
}

impl Success {
    /// An address that can't be one counts as not given, a status that can't be asked for as 204; both as in S3.
    pub(super) fn asked(redirect: Option<&str>, status: Option<&str>) -> Self {
        if let Some(url) = redirect.filter(|url| is_url(url)) {
            return Self::Redirect(url.to_owned());
        }
        Self::Status(match status {
            Some("200") => StatusCode::OK,
            Some("201") => StatusCode::CREATED,
            _ => StatusCode::NO_CONTENT,
        })
    }

    /// `Location` of the redirect to `url`; `etag` without quotes.
    pub fn location(url: &str, bucket: &str, key: &str, etag: &str) -> String {
        let value = |text: &str| encode(text.as_bytes(), Slash::Encode);
        let (bucket, key, etag) = (value(bucket), value(key), value(etag));
        let (address, fragment) = url.split_once('#').map_or((url, None), |(url, rest)| (url, Some(rest)));
        let joint = if address.contains('?') { '&' } else { '?' };
        let mut out = format!("{address}{joint}bucket={bucket}&key={key}&etag=%22{etag}%22");
        if let Some(fragment) = fragment {
            out.push('#');
            out.push_str(fragment);
        }
        out
    }
}

fn is_url(text: &str) -> bool {
    let uri: Option<Uri> = text.split('#').next().and_then(|address| address.parse().ok());
    let is_http = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    });
    is_http && text.bytes().all(|byte| matches!(byte, 0x21..=0x7e))
}
