//! How each lie changes a true answer.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use claviger_provider::Provider;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;

use super::memory::{ENVELOPE, Memory, Stored};
use super::{Body, Lie, broken, whole};

/// Bytes of a sealed segment: 65,536 and a tag.
const SEGMENT: usize = 65_552;

/// An answer, held whole.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// What became of a lie.
pub(super) enum Told {
    /// It does not fit here.
    Nothing,
    Answer(Answer),
    /// This answer, broken off after so many bytes.
    Broken(Answer, usize),
}

/// What a lie can draw on.
pub(super) struct Scene<'a> {
    pub(super) provider: &'a Provider,
    pub(super) memory: &'a Memory,
    pub(super) path: &'a str,
    pub(super) asked: &'a HeaderMap,
}

impl Answer {
    pub(super) async fn collect(response: Response<Body>) -> io::Result<Self> {
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { status: parts.status, headers: parts.headers, body })
    }

    pub(super) fn error(status: StatusCode, code: &str) -> Self {
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>a lie</Message></Error>"
        );
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        Self { status, headers, body: xml.into() }
    }

    /// To a HEAD the length is said and nothing sent.
    pub(super) fn into_response(self, to_head: bool) -> Response<Body> {
        let mut response = Response::new(whole(if to_head { Bytes::new() } else { self.body.clone() }));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if !to_head && self.status != StatusCode::NOT_MODIFIED {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        response
    }

    pub(super) fn into_broken_response(self, at: usize) -> Response<Body> {
        let mut response = Response::new(broken(&self.body, at));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        response
    }

    /// First byte and total size of a partial answer.
    fn range(&self) -> Option<(usize, usize)> {
        let text = self.headers.get(CONTENT_RANGE)?.to_str().ok()?;
        let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        Some((span.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
    }

    fn with_body(&self, body: impl Into<Bytes>) -> Told {
        Told::Answer(Self { body: body.into(), ..self.clone() })
    }

    fn with_header(&self, name: HeaderName, value: Option<String>) -> Told {
        let mut headers = self.headers.clone();
        headers.remove(&name);
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
        Told::Answer(Self { headers, ..self.clone() })
    }

    fn envelope(&self) -> Option<&str> {
        self.headers.get(ENVELOPE)?.to_str().ok()
    }
}

/// Tells a lie instead of the truth, if it fits.
pub(super) fn tell(lie: Lie, truth: &Answer, scene: &Scene<'_>) -> Told {
    if !truth.status.is_success() {
        return Told::Nothing;
    }
    let told = match lie {
        Lie::ReversedList => reversed(truth),
        Lie::ListedSizes => listed_sizes(truth),
        Lie::NotModified => Some(Told::Answer(Answer {
            status: StatusCode::NOT_MODIFIED,
            body: Bytes::new(),
            ..truth.clone()
        })),
        Lie::Hidden => Some(Told::Answer(Answer::error(StatusCode::NOT_FOUND, "NoSuchKey"))),
        Lie::BreakOff => (truth.body.len() > 1).then(|| Told::Broken(truth.clone(), truth.body.len() / 2)),
        Lie::OtherObject | Lie::OtherBody | Lie::OtherEnvelope | Lie::OldEnvelope | Lie::OldBody => {
            swap(lie, truth, scene)
        }
        Lie::NoEnvelope | Lie::FlipEnvelope | Lie::OtherSize | Lie::OtherEtag => headers(lie, truth),
        Lie::OtherRange | Lie::ShorterRange | Lie::WholeObject => ranges(lie, truth, scene),
        _ => body(lie, &truth.body).map(|body| truth.with_body(body)),
    };
    told.unwrap_or(Told::Nothing)
}

/// Lies about bytes alone. `None` where there are too few of them, or nothing would change.
fn body(lie: Lie, truth: &Bytes) -> Option<Vec<u8>> {
    let mut body = truth.to_vec();
    let len = body.len();
    match lie {
        Lie::FlipBit => *body.get_mut(len / 2)? ^= 0x10,
        Lie::FlipBitAtStart => *body.get_mut(len.min(96) / 2)? ^= 0x01,
        Lie::FlipBitAtEnd => *body.get_mut(len.checked_sub(1 + len.min(200) / 2)?)? ^= 0x80,
        Lie::Truncate => body.truncate(len.checked_sub(1 + len / 3)?),
        Lie::CutSegment if len > 2 * SEGMENT => drop(body.drain(SEGMENT..2 * SEGMENT)),
        Lie::CutSegment => body.truncate(if len > 1 { len / 2 } else { return None }),
        Lie::Extend => body.extend_from_slice(&[0xa5; 16]),
        Lie::SwapSegments if len > 2 * SEGMENT + 96 => {
            let (first, second) = body[96..].split_at_mut(SEGMENT);
            first.swap_with_slice(&mut second[..SEGMENT]);
        }
        Lie::SwapSegments => body.rotate_left(len / 2),
        Lie::Zeros => body.fill(0),
        _ => return None,
    }
    (body != *truth).then_some(body)
}

fn headers(lie: Lie, truth: &Answer) -> Option<Told> {
    let envelope_name = HeaderName::from_static(ENVELOPE);
    match lie {
        Lie::NoEnvelope => {
            truth.envelope()?;
            Some(truth.with_header(envelope_name, None))
        }
        Lie::FlipEnvelope => {
            let mut envelope = truth.envelope()?.to_owned().into_bytes();
            let middle = envelope.len() / 2;
            let byte = envelope.get_mut(middle)?;
            *byte = if *byte == b'A' { b'B' } else { b'A' };
            Some(truth.with_header(envelope_name, String::from_utf8(envelope).ok()))
        }
        Lie::OtherEtag => {
            Some(truth.with_header(ETAG, Some("\"00000000000000000000000000000000\"".to_owned())))
        }
        Lie::OtherSize => match truth.range() {
            Some((first, total)) => {
                let last = first + truth.body.len().checked_sub(1)?;
                Some(truth.with_header(CONTENT_RANGE, Some(format!("bytes {first}-{last}/{}", total + 16))))
            }
            // To a HEAD, or to a GET of the whole, where the length has to agree with the body.
            None if truth.body.is_empty() => {
                let len: u64 = truth.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
                Some(truth.with_header(CONTENT_LENGTH, Some((len + 16).to_string())))
            }
            None => Some(truth.with_body([&truth.body[..], &[0; 16]].concat())),
        },
        _ => None,
    }
}

/// Lies that serve something else that is, or was, in the store.
fn swap(lie: Lie, truth: &Answer, scene: &Scene<'_>) -> Option<Told> {
    let source = match lie {
        Lie::OldEnvelope | Lie::OldBody => scene.memory.before(scene.path, truth.envelope())?.clone(),
        _ => Stored::other(scene.provider, scene.path)?,
    };
    let mut headers = truth.headers.clone();
    if matches!(lie, Lie::OtherObject | Lie::OtherEnvelope | Lie::OldEnvelope) {
        headers.insert(ENVELOPE, HeaderValue::try_from(source.envelope?).ok()?);
    }
    if matches!(lie, Lie::OtherEnvelope | Lie::OldEnvelope) {
        return Some(Told::Answer(Answer { headers, ..truth.clone() }));
    }
    if lie == Lie::OtherObject {
        headers.insert(ETAG, HeaderValue::try_from(format!("\"{}\"", source.etag)).ok()?);
    }
    let Some((first, _)) = truth.range() else {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(source.body.len()));
        return Some(Told::Answer(Answer { status: truth.status, headers, body: source.body }));
    };
    let span = clip(first..first + truth.body.len(), source.body.len())?;
    let total = source.body.len();
    let value = format!("bytes {}-{}/{total}", span.start, span.end - 1);
    headers.insert(CONTENT_RANGE, HeaderValue::try_from(value).ok()?);
    Some(Told::Answer(Answer { status: truth.status, headers, body: source.body.slice(span) }))
}

/// Lies about which bytes of the object these are.
fn ranges(lie: Lie, truth: &Answer, scene: &Scene<'_>) -> Option<Told> {
    scene.asked.get(RANGE)?;
    let (first, total) = truth.range()?;
    let (bucket, key) = super::memory::split(scene.path)?;
    let object = Stored::read(scene.provider, &bucket, &key)?.body;
    let len = truth.body.len();
    match lie {
        Lie::OtherRange => {
            // One segment on, or back where there is none: said to be the range that was asked for.
            let from = if first + SEGMENT + len <= object.len() {
                first + SEGMENT
            } else {
                first.checked_sub(SEGMENT.min(first.max(1)))?
            };
            let body = object.slice(clip(from..from + len, object.len())?);
            (body != truth.body).then(|| truth.with_body(body))
        }
        Lie::ShorterRange => {
            let body = truth.body.slice(..len.checked_sub(1 + len / 2)?);
            let last = first + body.len().checked_sub(1)?;
            let value = HeaderValue::try_from(format!("bytes {first}-{last}/{total}")).ok()?;
            let mut headers = truth.headers.clone();
            headers.insert(CONTENT_RANGE, value);
            Some(Told::Answer(Answer { headers, body, ..truth.clone() }))
        }
        _ => {
            let mut headers = truth.headers.clone();
            headers.remove(CONTENT_RANGE);
            Some(Told::Answer(Answer { status: StatusCode::OK, headers, body: object }))
        }
    }
}

fn clip(span: Range<usize>, len: usize) -> Option<Range<usize>> {
    let end = span.end.min(len);
    (span.start < end).then_some(span.start..end)
}

fn reversed(truth: &Answer) -> Option<Told> {
    let text = std::str::from_utf8(&truth.body).ok()?;
    let (start, rest) = text.split_once("<Contents>")?;
    let (entries, end) = rest.rsplit_once("</Contents>")?;
    let mut entries: Vec<&str> = entries.split("</Contents><Contents>").collect();
    entries.reverse();
    let body = format!("{start}<Contents>{}</Contents>{end}", entries.join("</Contents><Contents>"));
    (body != text).then(|| truth.with_body(body))
}

fn listed_sizes(truth: &Answer) -> Option<Told> {
    let text = std::str::from_utf8(&truth.body).ok()?;
    let body = text.replace("</Size>", "7</Size>");
    (body != text).then(|| truth.with_body(body))
}
