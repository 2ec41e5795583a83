//! Cross-origin requests of browsers (Fetch standard, "HTTP extensions"; S3 user guide, "Using cross-origin resource
//! sharing"). The store keeps the rules and judges by them; here is what of a request it has to know for that, and what of
//! its judgement goes back.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};

use crate::error::{ErrorCode, S3Error};

/// Longest origin, in bytes: a scheme, a host name and a port.
const ORIGIN_LEN_MAX: usize = 512;
const METHOD_LEN_MAX: usize = 32;
/// Longest list of header names, in a request or an answer, in bytes.
const LIST_LEN_MAX: usize = 8192;
/// What a judgement is made of: caches must not give an answer to another page.
const VARY_NAMES: [&str; 3] = ["Origin", "Access-Control-Request-Headers", "Access-Control-Request-Method"];

/// What a browser says when a page of another origin sends a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

    /// Whether a preflight is about a request with an `Authorization` header.
    pub fn is_going_to_sign(&self) -> bool {
        let names = self.headers.as_ref().and_then(|names| names.to_str().ok()).unwrap_or_default();
        names.split(',').any(|name| name.trim().eq_ignore_ascii_case("authorization"))
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

    /// How many bytes of headers it is.
    pub fn bytes_len(&self) -> usize {
        let optional = [&self.method, &self.headers].into_iter().flatten().map(HeaderValue::len);
        self.origin.len() + optional.sum::<usize>()
    }

    /// What of a store's answer tells the browser what the page may do. An answer that allows another origin than the one
    /// that asked allows none. `Access-Control-Allow-Credentials` never does: clients of S3 sign, and what a proxy in
    /// front takes from cookies is none of the store's business. Where a page is allowed, `Vary` says what that hangs on.
    pub fn judgement(&self, answer: &HeaderMap) -> HeaderMap {
        let mut out = HeaderMap::new();
        let allowed = one(answer, &ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN_LEN_MAX, is_visible).ok().flatten();
        let allowed = allowed.filter(|allowed| *allowed == "*" || *allowed == self.origin);
        if let Some(vary) = vary(answer, allowed.is_some()) {
            out.insert(VARY, vary);
        }
        let Some(allowed) = allowed else { return out };
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        for name in
            [ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_EXPOSE_HEADERS]
        {
            if let Ok(Some(value)) = one(answer, &name, LIST_LEN_MAX, is_text) {
                out.insert(name, value);
            }
        }
        if let Ok(Some(age)) = one(answer, &ACCESS_CONTROL_MAX_AGE, 10, |byte| byte.is_ascii_digit()) {
            out.insert(ACCESS_CONTROL_MAX_AGE, age);
        }
        out
    }
}

/// Origins whose pages may be told what the store says of them where nobody signs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedOrigins {
    any: bool,
    named: Vec<String>,
}

impl AllowedOrigins {
    /// Reads a list: `*` for all origins, else origins as browsers write them, `scheme://host` and `:port` where it is
    /// not the scheme's own. The error is the number of the first entry that is neither, from 1.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, usize> {
        let mut list = Self::default();
        for (index, entry) in entries.into_iter().enumerate() {
            match entry {
                "*" => list.any = true,
                entry if is_origin(entry) => list.named.push(entry.to_owned()),
                _ => return Err(index + 1),
            }
        }
        Ok(list)
    }

    /// Whether the origin of this page is one of them.
    pub fn include(&self, page: &CrossOrigin) -> bool {
        self.any || self.named.iter().any(|named| page.origin == *named.as_str())
    }
}

/// Whether a browser could write an origin so (HTML standard, "ASCII serialization of an origin").
fn is_origin(text: &str) -> bool {
    let is_small = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| is_small(byte) || b"+-.".contains(&byte))
    };
    let is_host =
        |host: &str| !host.is_empty() && host.bytes().all(|byte| is_small(byte) || b"-._:[]".contains(&byte));
    text.len() <= ORIGIN_LEN_MAX
        && text.split_once("://").is_some_and(|(scheme, host)| is_scheme(scheme) && is_host(host))
}

/// All that an answer varies by: what a judgement hangs on, and what the store says, as far as it is a list of names.
fn vary(answer: &HeaderMap, is_judged: bool) -> Option<HeaderValue> {
    let said = answer.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    let said = said.flat_map(|value| value.split(',')).map(str::trim);
    let said = said.filter(|name| !name.is_empty() && name.bytes().all(is_visible));
    let mut all = String::new();
    for name in VARY_NAMES.into_iter().filter(|_| is_judged).chain(said) {
        let is_new = !all.split(", ").any(|other| other.eq_ignore_ascii_case(name));
        if is_new && all.len() + name.len() <= LIST_LEN_MAX {
            all.push_str(if all.is_empty() { "" } else { ", " });
            all.push_str(name);
        }
    }
    if all.is_empty() { None } else { HeaderValue::from_str(&all).ok() }
}

fn is_text(byte: u8) -> bool {
    byte == b' ' || is_visible(byte)
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
    fn a_preflight_says_whether_the_request_to_come_has_a_signature_in_a_header() {
        let names = |names| {
            let both = [("origin", "https://a"), ("access-control-request-headers", names)];
            asked(&both).is_going_to_sign()
        };
        assert!(names("authorization") && names("content-type, Authorization,x-amz-date"));
        assert!(!names("x-authorization,content-type") && !names("proxy-authorization"));
        assert!(!asked(&[("origin", "https://a")]).is_going_to_sign());
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
            ("vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"),
        ];
        let mut answer = map(&good);
        answer.insert("set-cookie", HeaderValue::from_static("a=b"));
        assert_eq!(page.judgement(&answer), map(&good));
        let other =
            map(&[("access-control-allow-origin", "https://b"), ("access-control-allow-methods", "GET")]);
        assert!(page.judgement(&other).is_empty());
        let anyone =
            page.judgement(&map(&[("access-control-allow-origin", "*"), ("access-control-max-age", "x")]));
        assert_eq!(anyone.get("access-control-allow-origin").unwrap(), "*");
        assert_eq!(anyone.len(), 2, "and Vary: {anyone:?}");
    }

    #[test]
    fn credentials_are_never_allowed() {
        let answer = map(&[
            ("access-control-allow-origin", "https://a"),
            ("access-control-allow-credentials", "true"),
        ]);
        let told = asked(&[("origin", "https://a")]).judgement(&answer);
        assert!(told.contains_key("access-control-allow-origin"));
        assert!(!told.contains_key("access-control-allow-credentials"), "{told:?}");
    }

    #[test]
    fn an_answer_for_one_page_varies_by_what_it_was_judged_by_whatever_the_store_says() {
        const JUDGED: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";
        let page = asked(&[("origin", "https://a")]);
        let vary = |pairs: &[(&'static str, &str)]| {
            let told = page.judgement(&map(pairs));
            told.get("vary").map(|vary| vary.to_str().unwrap().to_owned())
        };
        let allowed = ("access-control-allow-origin", "https://a");
        assert_eq!(vary(&[allowed]).unwrap(), JUDGED);
        let twice = vary(&[allowed, ("vary", "origin"), ("vary", "Accept-Encoding, origin")]);
        assert_eq!(twice.unwrap(), format!("{JUDGED}, Accept-Encoding"));
        assert_eq!(vary(&[allowed, ("vary", &"x".repeat(LIST_LEN_MAX))]).unwrap(), JUDGED);
        assert_eq!(vary(&[("vary", "Origin"), ("vary", "a,,b c")]).unwrap(), "Origin, a");
        assert_eq!(vary(&[]), None);
    }

    #[test]
    fn a_list_of_origins_holds_for_those_alone() {
        let page = |origin| asked(&[("origin", origin)]);
        let list = AllowedOrigins::parse(["https://app.example", "http://localhost:8080"]).unwrap();
        assert!(list.include(&page("https://app.example")) && list.include(&page("http://localhost:8080")));
        for other in
            ["https://app.example:444", "http://app.example", "https://app.example.evil", "null", "*"]
        {
            assert!(!list.include(&page(other)), "{other}");
        }
        assert!(AllowedOrigins::parse(["*"]).unwrap().include(&page("null")));
        assert!(!AllowedOrigins::default().include(&page("https://app.example")));
    }

    #[test]
    fn what_is_no_origin_is_not_taken_for_one() {
        for bad in
            ["", "null", "app.example", "https://", "https://a/", "https://*.a", "https://A", "://a", "1://a"]
        {
            assert_eq!(AllowedOrigins::parse(["https://a", bad]), Err(2), "{bad}");
        }
        assert!(AllowedOrigins::parse(["https://[::1]:80", "app-1://x_y"]).is_ok());
    }
}
