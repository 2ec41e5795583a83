//! `Content-Type: multipart/form-data; boundary=…`

use http::Method;

use crate::error::{ErrorCode, S3Error};
use crate::request::RequestHead;

/// RFC 2046 §5.1.1 allows no longer one.
const BOUNDARY_LEN_MAX: usize = 70;

/// What the parts of a form are separated by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary(String);

/// Whether the request can only be a form, which brings its signature along: a POST without a query and without
/// `Authorization`. Whether its body is one is [`Boundary::of`]'s to say.
pub fn is_form(head: &RequestHead<'_>) -> bool {
    head.method == Method::POST
        && head.raw_query.is_empty()
        && !head.headers.contains_key(http::header::AUTHORIZATION)
}

impl Boundary {
    /// Reads the boundary of a form.
    ///
    /// # Errors
    /// `PreconditionFailed` for another content type, as S3 answers; `MalformedPOSTRequest` without a usable boundary.
    pub fn of(head: &RequestHead<'_>) -> Result<Self, S3Error> {
        let (kind, parameters) = content_type(head).unwrap_or_default();
        if !kind.eq_ignore_ascii_case("multipart/form-data") {
            return Err(S3Error::new(ErrorCode::PreconditionFailed)
                .with_extra("Condition", "Bucket POST must be of the enclosure-type multipart/form-data"));
        }
        let boundary = parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
        });
        boundary.and_then(Self::parse).ok_or_else(super::malformed)
    }

    /// Takes the text of a boundary; `None` when it is none by RFC 2046 §5.1.1 (a trailing space is not).
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
        let is_boundary =
            (1..=BOUNDARY_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed) && !text.ends_with(' ');
        is_boundary.then(|| Self(text.to_owned()))
    }

    /// What stands before each part but the first, and before the end: CRLF, two dashes, the boundary.
    pub(super) fn delimiter(&self) -> Vec<u8> {
        format!("\r\n--{}", self.0).into_bytes()
    }
}

fn content_type<'a>(head: &RequestHead<'a>) -> Option<(&'a str, &'a str)> {
    let text = head.headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    Some((kind.trim(), parameters))
}
