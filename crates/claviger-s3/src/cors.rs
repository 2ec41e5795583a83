//! Cross-origin requests of browsers (Fetch standard, "HTTP extensions"; S3 user guide, "Using cross-origin resource
//! sharing"). The store keeps the rules and judges by them; here is what of a request it has to know for that, and what of
//! its judgement goes back.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue,
    ORIGIN, VARY,
};

use crate::error::{ErrorCode, S3Error};

/// Longest origin, in bytes: a scheme, a host name and a port.
const ORIGIN_LEN_MAX: usize = 512;
const METHOD_LEN_MAX: usize = 32;
/// Longest list of header names, in a request or an answer, in bytes.
const LIST_LEN_MAX: usize = 8192;

/// What a browser says when a page of another origin sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossOrigin {
    origin: HeaderValue,
    method: Option<HeaderValue>,
    headers: Option<HeaderValue>,
}

impl CrossOrigin {
    /// Reads the headers of a request; `None` without `Origin`. `InvalidRequest` for values that no browser sends.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, S3Error> {
        let Some(origin) = one(headers, &ORIGIN, ORIGIN_LEN_MAX, is_visible)? else { return Ok(None) };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_list = |byte: u8| is_name(byte) || matches!(byte, b',' | b' ');
        Ok(Some(Self {
            origin,
            method: one(headers, &ACCESS_CONTROL_REQUEST_METHOD, METHOD_LEN_MAX, is_name)?,
            headers: one(headers, &ACCESS_CONTROL_REQUEST_HEADERS, LIST_LEN_MAX, is_list)?,
        }))
    }

    /// What a preflight has to say: `BadRequest`, in S3's words, without `Origin` or the method that is asked about.
    pub fn check_preflight(said: Option<&Self>) -> Result<(), S3Error> {
        let text = match said {
            None => "Insufficient information. Origin request header needed.",
            Some(Self { method: None, .. }) => "Invalid Access-Control-Request-Method: null",
            Some(_) => return Ok(()),
        };
        Err(S3Error::new(ErrorCode::BadRequest).with_message(text))
    }

    /// The headers that tell it to the store. `method` is that of the client's request where the one to the store has
    /// another: stores judge by the method that is asked about, if one is.
    pub fn apply(&self, method: Option<&http::Method>, to: &mut HeaderMap) {
        to.insert(ORIGIN, self.origin.clone());
        let asked_about = self.method.clone().or_else(|| HeaderValue::from_str(method?.as_str()).ok());
        if let Some(method) = asked_about {
            to.insert(ACCESS_CONTROL_REQUEST_METHOD, method);
        }
        if let Some(headers) = &self.headers {
            to.insert(ACCESS_CONTROL_REQUEST_HEADERS, headers.clone());
        }
    }

    /// What of a store's answer tells the browser what the page may do. An answer that allows another origin than the one
    /// that asked allows none.
    pub fn judgement(&self, answer: &HeaderMap) -> HeaderMap {
        let mut out = HeaderMap::new();
        let text = |byte: u8| byte == b' ' || is_visible(byte);
        if let Ok(Some(vary)) = one(answer, &VARY, LIST_LEN_MAX, text) {
            out.insert(VARY, vary);
        }
        let allowed = one(answer, &ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN_LEN_MAX, is_visible).ok().flatten();
        let Some(allowed) = allowed.filter(|allowed| *allowed == "*" || *allowed == self.origin) else {
            return out;
        };
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        for name in
            [ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_EXPOSE_HEADERS]
        {
            if let Ok(Some(value)) = one(answer, &name, LIST_LEN_MAX, text) {
                out.insert(name, value);
            }
        }
        if let Ok(Some(age)) = one(answer, &ACCESS_CONTROL_MAX_AGE, 10, |byte| byte.is_ascii_digit()) {
            out.insert(ACCESS_CONTROL_MAX_AGE, age);
        }
        if answer.get(ACCESS_CONTROL_ALLOW_CREDENTIALS).is_some_and(|value| value == "true") {
            out.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        out
    }
}

fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

/// The only value of a header, if it is made of what `allowed` allows; `InvalidRequest` else.
fn one(
    headers: &HeaderMap,
    name: &HeaderName,
    len_max: usize,
    allowed: impl Fn(u8) -> bool,
) -> Result<Option<HeaderValue>, S3Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let is_good = values.next().is_none()
        && value.len() <= len_max
        && value.as_bytes().iter().all(|byte| allowed(*byte));
    if is_good && !value.is_empty() {
        return Ok(Some(value.clone()));
    }
    if is_good {
        return Ok(None);
    }
    Err(S3Error::new(ErrorCode::InvalidRequest).with_message(format!("The header {name} is not valid.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn asked(pairs: &[(&'static str, &str)]) -> CrossOrigin {
        CrossOrigin::read(&map(pairs)).unwrap().unwrap()
    }

    #[test]
    fn without_an_origin_nothing_is_told() {
        let without = map(&[("access-control-request-method", "GET"), ("cookie", "a=b")]);
        assert_eq!(CrossOrigin::read(&without).unwrap(), None);
        assert_eq!(CrossOrigin::read(&map(&[("origin", "")])).unwrap(), None);
    }

    #[test]
    fn only_the_three_headers_of_a_preflight_are_told() {
        let all = [
            ("origin", "https://a.example:8443"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "content-type, x-amz-date"),
            ("referer", "https://a.example/secret"),
        ];
        let mut told = HeaderMap::new();
        asked(&all).apply(Some(&http::Method::HEAD), &mut told);
        assert_eq!(told, map(&all[..3]));
        let mut told = HeaderMap::new();
        asked(&all[..1]).apply(Some(&http::Method::GET), &mut told);
        assert_eq!(told.get("access-control-request-method").unwrap(), "GET");
    }

    #[test]
    fn a_preflight_names_its_origin_and_a_method() {
        assert_eq!(CrossOrigin::check_preflight(None).unwrap_err().code(), ErrorCode::BadRequest);
        let origin = ("origin", "https://a");
        assert!(CrossOrigin::check_preflight(Some(&asked(&[origin]))).is_err());
        let whole = asked(&[origin, ("access-control-request-method", "GET")]);
        assert_eq!(CrossOrigin::check_preflight(Some(&whole)), Ok(()));
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for (name, value) in [
            ("origin", "https://a b"),
            ("access-control-request-method", "GET PUT"),
            ("access-control-request-headers", "a: b"),
        ] {
            let mut headers = map(&[(name, value)]);
            headers.entry("origin").or_insert(HeaderValue::from_static("null"));
            assert_eq!(
                CrossOrigin::read(&headers).unwrap_err().code(),
                ErrorCode::InvalidRequest,
                "{name}: {value}"
            );
        }
        let twice = map(&[("origin", "https://a"), ("origin", "https://b")]);
        assert!(CrossOrigin::read(&twice).is_err());
    }

    #[test]
    fn only_an_answer_about_the_origin_that_asked_is_passed_on() {
        let page = asked(&[("origin", "https://a")]);
        let good = [
            ("access-control-allow-origin", "https://a"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-expose-headers", "etag"),
            ("access-control-max-age", "60"),
            ("access-control-allow-credentials", "true"),
            ("vary", "Origin"),
        ];
        let mut answer = map(&good);
        answer.insert("set-cookie", HeaderValue::from_static("a=b"));
        assert_eq!(page.judgement(&answer), map(&good));
        let other =
            map(&[("access-control-allow-origin", "https://b"), ("access-control-allow-methods", "GET")]);
        assert!(page.judgement(&other).is_empty());
        let anyone =
            page.judgement(&map(&[("access-control-allow-origin", "*"), ("access-control-max-age", "x")]));
        assert_eq!(anyone, map(&[("access-control-allow-origin", "*")]));
    }
}
