//! Known answers of the S3 API reference, and what must be refused.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::*;
use crate::authentication::Authenticated;
use crate::operation::{Selector, VirtualHosts, table};
use crate::request::RequestHead;
use crate::sigv4::{PayloadMode, SessionToken};
use crate::timestamp::parse_http_date;

const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

struct Sent {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Sent {
    fn new(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        Self { method: method.parse().unwrap(), uri: uri.parse().unwrap(), headers: map }
    }

    fn signed(mut self, signature: &str) -> Self {
        self.headers.insert("authorization", format!("AWS {ID}:{signature}").parse().unwrap());
        self
    }

    fn verify(&self, now: &str, token: Option<&SessionToken>) -> Result<Authenticated, ErrorCode> {
        let hosts = VirtualHosts::new(["s3.amazonaws.com"]);
        let policy = VerifyPolicy { hosts: &hosts, session_token: token };
        let head = RequestHead::new(&self.method, &self.uri, &self.headers);
        let verified = Presented::parse(&head).and_then(|presented| {
            assert_eq!(presented.access_key_id(), ID);
            presented.verify(&head, &SecretAccessKey::new(SECRET), &policy, parse_http_date(now).unwrap())
        });
        verified.map_err(|error| error.code())
    }
}

const JOHNSMITH: (&str, &str) = ("host", "johnsmith.s3.amazonaws.com");
/// A few minutes from the examples' dates.
const NOW: &str = "Tue, 27 Mar 2007 19:40:00 GMT";

fn published_get() -> Sent {
    Sent::new("GET", "/photos/puppy.jpg", &[JOHNSMITH, ("date", "Tue, 27 Mar 2007 19:36:42 +0000")])
        .signed("bWq2s1WEIj+Ydj0vQ697zp+IXMU=")
}

#[test]
fn the_published_requests_verify() {
    let jpeg = ("content-type", "image/jpeg");
    let upload = Sent::new(
        "PUT",
        // In path style here: the bucket of a name that is the host's alias in the example.
        "/static.johnsmith.net/db-backup.dat.gz",
        &[
            ("host", "s3.amazonaws.com"),
            ("date", "Tue, 27 Mar 2007 21:06:08 +0000"),
            ("x-amz-acl", "public-read"),
            ("content-type", "application/x-download"),
            ("content-md5", "4gJE4saaMU4BqNR0kLY+lw=="),
            ("x-amz-meta-reviewedby", "joe@johnsmith.net"),
            ("x-amz-meta-reviewedby", "jane@johnsmith.net"),
            ("x-amz-meta-filechecksum", "0x02661779"),
            ("x-amz-meta-checksumalgorithm", "crc32"),
            ("content-length", "5913339"),
        ],
    );
    let service = ("host", "s3.amazonaws.com");
    let cases = [
        (published_get(), NOW),
        (
            Sent::new(
                "PUT",
                "/photos/puppy.jpg",
                &[JOHNSMITH, jpeg, ("date", "Tue, 27 Mar 2007 21:15:45 +0000")],
            )
            .signed("MyyxeRY7whkBe+bq8fHCL/2kKUg="),
            "Tue, 27 Mar 2007 21:15:45 GMT",
        ),
        (
            Sent::new(
                "GET",
                "/?prefix=photos&max-keys=50&marker=puppy",
                &[JOHNSMITH, ("date", "Tue, 27 Mar 2007 19:42:41 +0000")],
            )
            .signed("htDYFYduRNen8P9ZfE/s9SuKy0U="),
            NOW,
        ),
        (
            Sent::new("GET", "/?acl", &[JOHNSMITH, ("date", "Tue, 27 Mar 2007 19:44:46 +0000")])
                .signed("c2WLPFtWHVgbEmeEG93a4cG37dM="),
            NOW,
        ),
        (
            // In path style, with x-amz-date in place of Date.
            Sent::new(
                "DELETE",
                "/johnsmith/photos/puppy.jpg",
                &[
                    service,
                    ("date", "Tue, 27 Mar 2007 21:20:27 +0000"),
                    ("x-amz-date", "Tue, 27 Mar 2007 21:20:26 +0000"),
                ],
            )
            .signed("R4dJ53KECjStyBO5iTBJZ4XVOaI="),
            "Tue, 27 Mar 2007 21:20:27 GMT",
        ),
        (upload.signed("ilyl83RwaSoYIEdixDQcA4OnAnc="), "Tue, 27 Mar 2007 21:06:08 GMT"),
        (
            Sent::new("GET", "/", &[service, ("date", "Wed, 28 Mar 2007 01:29:59 +0000")])
                .signed("qGdzdERIC03wnaRNKh6OqZehG9s="),
            "Wed, 28 Mar 2007 01:29:59 GMT",
        ),
        (
            Sent::new(
                "GET",
                "/dictionary/fran%C3%A7ais/pr%c3%a9f%c3%a8re",
                &[service, ("date", "Wed, 28 Mar 2007 01:49:49 +0000")],
            )
            .signed("DNEZGsoieTZ92F3bUfSPQcbGmlM="),
            "Wed, 28 Mar 2007 01:49:49 GMT",
        ),
    ];
    for (sent, now) in &cases {
        assert!(sent.verify(now, None).is_ok(), "{} {}", sent.method, sent.uri);
    }
}

/// Of the example; good until 1175139620, which is Thu, 29 Mar 2007 03:40:20 GMT.
const PRESIGNED: &str = "/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D\
                         &Expires=1175139620";

#[test]
fn the_published_query_verifies_until_it_expires() {
    let sent = Sent::new("GET", PRESIGNED, &[JOHNSMITH]);
    assert!(sent.verify(NOW, None).is_ok());
    assert!(sent.verify("Thu, 29 Mar 2007 03:40:20 GMT", None).is_ok());
    assert_eq!(sent.verify("Thu, 29 Mar 2007 03:40:21 GMT", None).unwrap_err(), ErrorCode::AccessDenied);
    for (from, to, code) in [
        ("1175139620", "1175139621", ErrorCode::SignatureDoesNotMatch),
        ("1175139620", "x", ErrorCode::AccessDenied),
        ("1175139620", "-1", ErrorCode::AccessDenied),
        ("1175139620", "", ErrorCode::AccessDenied),
        ("&Expires=1175139620", "", ErrorCode::AccessDenied),
        ("&Expires", "&Expires=1&Expires", ErrorCode::AccessDenied),
        ("Signature=N", "Signature=n", ErrorCode::SignatureDoesNotMatch),
        ("Signature=N", "Signature=%2A", ErrorCode::SignatureDoesNotMatch),
        ("puppy", "kitty", ErrorCode::SignatureDoesNotMatch),
        ("&Signature", "&x-amz-acl=public-read&Signature", ErrorCode::SignatureDoesNotMatch),
    ] {
        let sent = Sent::new("GET", &PRESIGNED.replacen(from, to, 1), &[JOHNSMITH]);
        assert_eq!(sent.verify(NOW, None).unwrap_err(), code, "{from} -> {to}");
    }
    let other_method = Sent::new("PUT", PRESIGNED, &[JOHNSMITH]);
    assert_eq!(other_method.verify(NOW, None).unwrap_err(), ErrorCode::SignatureDoesNotMatch);
}

#[test]
fn whatever_makes_another_operation_of_a_request_is_signed() {
    for name in table().flat_map(|row| row.selectors).filter_map(|selector| match selector {
        Selector::Query(name) => Some(*name),
        // Which version of a listing, and which of several configurations: not signed in Version 2.
        Selector::QueryValue(..) | Selector::Header(_) => None,
    }) {
        assert!(SUB_RESOURCES.contains(&name) || name == "id", "{name}");
        if name != "id" {
            let escaped: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
            for name in [name, &escaped] {
                let sent = Sent::new("GET", &format!("{PRESIGNED}&{name}"), &[JOHNSMITH]);
                assert_eq!(sent.verify(NOW, None).unwrap_err(), ErrorCode::SignatureDoesNotMatch, "{name}");
            }
        }
    }
}

#[test]
fn any_change_to_what_is_signed_is_a_mismatch() {
    let with = |name: &'static str, value: &str| {
        let mut sent = published_get();
        sent.headers.insert(name, value.parse().unwrap());
        sent.verify(NOW, None).unwrap_err()
    };
    for (name, value) in [
        ("x-amz-meta-a", "1"),
        ("content-type", "text/plain"),
        ("content-md5", "4gJE4saaMU4BqNR0kLY+lw=="),
        ("date", "Tue, 27 Mar 2007 19:36:43 +0000"),
        ("host", "jane.s3.amazonaws.com"),
    ] {
        assert_eq!(with(name, value), ErrorCode::SignatureDoesNotMatch, "{name}");
    }
}

#[test]
fn a_bucket_in_path_style_is_the_same_with_and_without_a_slash() {
    let date = "Tue, 27 Mar 2007 19:36:42 GMT";
    let signed_as = |resource: &str, sent: &str| {
        let to_sign = format!("GET\n\n\n{date}\n{resource}");
        let signature = SecretAccessKey::new(SECRET).hmac_sha1(to_sign.as_bytes());
        let sent = Sent::new("GET", sent, &[("host", "h"), ("date", date)]);
        sent.signed(&BASE64.encode(signature)).verify(NOW, None).is_ok()
    };
    assert!(
        signed_as("/b?acl", "/b?acl") && signed_as("/b/?acl", "/b?acl") && signed_as("/b/?acl", "/b/?acl")
    );
    assert!(!signed_as("/b/k/", "/b/k") && !signed_as("//", "/"));
}

/// A presigned request: the signature of `to_sign`, and `more` in the query.
fn presigned(method: &str, path: &str, to_sign: &str, more: &str) -> Sent {
    let signature = BASE64.encode(SecretAccessKey::new(SECRET).hmac_sha1(to_sign.as_bytes()));
    let signature = crate::uri::encode(signature.as_bytes(), crate::uri::Slash::Encode);
    let uri = format!("{path}?AWSAccessKeyId={ID}&Signature={signature}&Expires=1175139620{more}");
    Sent::new(method, &uri, &[("host", "h")])
}

#[test]
fn a_line_break_in_the_query_turns_no_signed_request_into_another() {
    let disposition = "attachment; filename=\"x\"\n/b/secret";
    let to_sign = format!(
        "GET\n\n\n1175139620\nx-amz-user-agent:user\n/b/pub?response-content-disposition={disposition}"
    );
    let encoded = |text: &str| crate::uri::encode(text.as_bytes(), crate::uri::Slash::Encode);
    let signed = format!("&x-amz-user-agent=user&response-content-disposition={}", encoded(disposition));
    let agent =
        format!("user\n/b/pub?response-content-disposition={}", disposition.trim_end_matches("\n/b/secret"));
    let shifted = format!("&x-amz-user-agent={}", encoded(&agent));
    for (path, more) in [("/b/pub", &signed), ("/b/secret", &shifted)] {
        let refused = presigned("GET", path, &to_sign, more).verify(NOW, None).unwrap_err();
        assert_eq!(refused, ErrorCode::SignatureDoesNotMatch, "{path}");
    }
    for (name, to_sign) in [
        ("content-md5", "GET\na\rb\n\n1175139620\n/b/k"),
        ("Content-Type", "GET\n\na\rb\n1175139620\n/b/k"),
        ("X-Amz-Meta-A", "GET\n\n\n1175139620\nx-amz-meta-a:a\rb\n/b/k"),
        ("versionId", "GET\n\n\n1175139620\n/b/k?versionId=a\rb"),
    ] {
        let sent = presigned("GET", "/b/k", to_sign, &format!("&{name}=a%0Db"));
        assert_eq!(sent.verify(NOW, None).unwrap_err(), ErrorCode::SignatureDoesNotMatch, "{name}");
    }
    // What is not signed may have any.
    assert!(presigned("GET", "/b/", "GET\n\n\n1175139620\n/b/", "&prefix=a%0Ab").verify(NOW, None).is_ok());
}

#[test]
fn an_ampersand_in_a_value_shifts_no_parameter_of_a_presigned_request() {
    let verifies = |covered: &str, more: &str| {
        let to_sign = format!("GET\n\n\n1175139620\n/b/k?{covered}");
        presigned("GET", "/b/k", &to_sign, &format!("&{more}")).verify(NOW, None).is_ok()
    };
    const BARE: &str = "response-content-disposition=attachment; filename=a&response-content-type=text/html";
    const QUOTED: &str =
        "response-content-disposition=attachment; filename=\"a&response-content-type=text/html\"";
    const VERSION: &str = "response-content-disposition=attachment; filename=a&versionId=1";
    // What was signed as one value, as one and as two.
    for (covered, one, two) in [
        (
            BARE,
            "filename%3Da%26response-content-type%3Dtext/html",
            "filename%3Da&response-content-type=text/html",
        ),
        (
            QUOTED,
            "filename%3D%22a%26response-content-type%3Dtext/html%22",
            "filename=%22a&response-content-type=text/html%22",
        ),
        (
            VERSION,
            "filename%3Da%26versionId%3D1",
            "versionId=1&response-content-disposition=attachment;+filename%3Da",
        ),
    ] {
        for sent in [one, two] {
            let whole = match sent.contains("disposition") {
                true => sent.to_owned(),
                false => format!("response-content-disposition=attachment;+{sent}"),
            };
            assert!(!verifies(covered, &whole), "{whole}");
        }
    }
    // What a stranger chose as the name of a file ends the disposition wherever he likes, also in escaped quotes.
    for name in [
        "a&response-content-type=text/html",
        "x;y&response-content-type=text/html",
        "a\"\"&response-content-type=text/html",
        "a*=&response-content-type=text/html",
        "\"a\\\"&response-content-type=text/html;x=\\\"\"",
    ] {
        let covered = format!("response-content-disposition=inline; filename={name}");
        let (shown, behind) = covered.split_once('&').unwrap();
        let encode = |text: &str| {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            encoded
        };
        let shifted = [shown, behind].map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            format!("{name}={}", encode(value))
        });
        assert!(!verifies(&covered, &shifted.join("&")), "{name}");
    }
    // What can be meant in one way only.
    for (covered, sent) in [
        (
            "response-content-disposition=attachment; filename=\"a & b\"&response-content-type=text/x",
            "response-content-disposition=attachment;+filename=%22a+%26+b%22&response-content-type=text/x",
        ),
        (
            "response-content-disposition=attachment; filename*=UTF-8''a%26b&response-content-type=text/x",
            "response-content-disposition=attachment;+filename*=UTF-8''a%2526b&response-content-type=text/x",
        ),
        (
            "response-content-disposition=inline&versionId=1",
            "response-content-disposition=inline&versionId=1",
        ),
        (
            "response-content-disposition=attachment; filename=a&b",
            "response-content-disposition=attachment;+filename=a%26b",
        ),
        ("partNumber=1&uploadId=u", "partNumber=1&uploadId=u"),
    ] {
        assert!(verifies(covered, sent), "{sent}");
    }
}

#[test]
fn a_presigned_hash_of_the_body_binds_in_the_query_as_in_the_header() {
    const HASH: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let to_sign = format!("PUT\n\n\n1175139620\nx-amz-content-sha256:{HASH}\n/b/k");
    let of = |more: &str| presigned("PUT", "/b/k", &to_sign, more);
    let mut in_header = of("");
    in_header.headers.insert("x-amz-content-sha256", HASH.parse().unwrap());
    let by_header = in_header.verify(NOW, None).unwrap().payload();
    assert!(matches!(by_header, PayloadMode::Sha256(_)));
    for name in ["X-Amz-Content-Sha256", "x-amz-content-sha256", "X-AMZ-content%2DSHA256"] {
        let sent = of(&format!("&{name}={HASH}"));
        assert_eq!(sent.verify(NOW, None).unwrap().payload(), by_header, "{name}");
        let mut both = sent;
        both.headers.insert("x-amz-content-sha256", HASH.parse().unwrap());
        assert_eq!(both.verify(NOW, None).unwrap_err(), ErrorCode::InvalidRequest, "{name}");
    }
    let twice = of(&format!("&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD&x-amz-content-sha256={HASH}"));
    assert_eq!(twice.verify(NOW, None).unwrap_err(), ErrorCode::InvalidRequest);
}

#[test]
fn dates_have_to_be_there_and_near() {
    let at = |date: Option<&str>, amz_date: Option<&str>| {
        let mut sent =
            Sent::new("GET", "/photos/puppy.jpg", &[JOHNSMITH]).signed("bWq2s1WEIj+Ydj0vQ697zp+IXMU=");
        for (name, value) in [("date", date), ("x-amz-date", amz_date)] {
            if let Some(value) = value {
                sent.headers.insert(name, value.parse().unwrap());
            }
        }
        sent.verify(NOW, None).unwrap_err()
    };
    assert_eq!(at(None, None), ErrorCode::AccessDenied);
    let date = "Tue, 27 Mar 2007 19:36:42 +0000";
    for bad in ["", "Bad Date", "Tue, 07 Jul 1950 21:53:04 GMT"] {
        assert_eq!(at(Some(bad), None), ErrorCode::AccessDenied, "{bad}");
        assert_eq!(at(Some(date), Some(bad)), ErrorCode::AccessDenied, "{bad}");
    }
    for far in ["Tue, 07 Jul 2010 21:53:04 GMT", "Tue, 07 Jul 9999 21:53:04 GMT", "20100707T215304Z"] {
        assert_eq!(at(Some(date), Some(far)), ErrorCode::RequestTimeTooSkewed, "{far}");
    }
}

#[test]
fn other_forms_of_the_header_are_refused() {
    for value in ["AWS HAHAHA", "AWS :c2ln", "AWS "] {
        let mut sent = published_get();
        sent.headers.insert("authorization", value.parse().unwrap());
        assert_eq!(sent.verify(NOW, None).unwrap_err(), ErrorCode::InvalidArgument, "{value}");
    }
    for signature in ["", "x", "c2lnbmF0dXJl", "bWq2s1WEIj+Ydj0vQ697zp+IXMU"] {
        let sent = published_get().signed(signature);
        assert_eq!(sent.verify(NOW, None).unwrap_err(), ErrorCode::SignatureDoesNotMatch, "{signature}");
    }
}

#[test]
fn a_session_token_is_demanded_and_signed() {
    let token = SessionToken::new("token");
    let secret = SecretAccessKey::new(SECRET);
    let date = "Tue, 27 Mar 2007 19:36:42 GMT";
    let signed = |to_sign: &str| BASE64.encode(secret.hmac_sha1(to_sign.as_bytes()));
    let to_sign = format!("GET\n\n\n{date}\nx-amz-security-token:token\n/b/k");
    let sent = |value: &str| {
        Sent::new("GET", "/b/k", &[("host", "h"), ("date", date), ("x-amz-security-token", value)])
            .signed(&signed(&to_sign))
    };
    assert!(sent("token").verify(NOW, Some(&token)).is_ok());
    assert_eq!(sent("other").verify(NOW, Some(&token)).unwrap_err(), ErrorCode::SignatureDoesNotMatch);
    assert_eq!(sent("token").verify(NOW, None).unwrap_err(), ErrorCode::InvalidToken);
    assert_eq!(published_get().verify(NOW, Some(&token)).unwrap_err(), ErrorCode::InvalidAccessKeyId);
    // SDKs put it into the query of a presigned request, and sign it as the header that it is.
    let to_sign = "GET\n\n\n1175139620\nx-amz-security-token:token\n/b/k";
    let signature = crate::uri::encode(signed(to_sign).as_bytes(), crate::uri::Slash::Encode);
    let uri = format!(
        "/b/k?AWSAccessKeyId={ID}&Signature={signature}&Expires=1175139620&x-amz-security-token=token"
    );
    assert!(Sent::new("GET", &uri, &[("host", "h")]).verify(NOW, Some(&token)).is_ok());
}

#[test]
fn the_policy_of_a_form_is_signed_in_base64() {
    let secret = SecretAccessKey::new(SECRET);
    let policy = BASE64.encode("{\"expiration\": \"2007-12-01T12:00:00.000Z\", \"conditions\": []}");
    let signature = BASE64.encode(secret.hmac_sha1(policy.as_bytes()));
    assert!(verify_policy(&secret, &policy, &signature).is_ok());
    assert!(verify_policy(&SecretAccessKey::new("x"), &policy, &signature).is_err());
    assert!(verify_policy(&secret, &policy[4..], &signature).is_err());
    assert!(verify_policy(&secret, &policy, "").is_err());
}
