use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::name::BucketName;
use crate::sigv4::{SecretAccessKey, SessionToken};
use crate::timestamp::parse_iso8601;

const BOUNDARY: &str = "----x7MA4YWx";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn boundary() -> Boundary {
    Boundary::parse(BOUNDARY).unwrap()
}

fn part(name: &str, value: &str) -> String {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

/// A body with these fields and this file, ended properly.
fn body(fields: &[(&str, &str)], file: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = fields.iter().flat_map(|(name, value)| part(name, value).into_bytes()).collect();
    out.extend(
        format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\
             Content-Type: text/plain\r\n\r\n"
        )
        .bytes(),
    );
    out.extend(file);
    out.extend(format!("\r\n--{BOUNDARY}--\r\n").bytes());
    out
}

/// Reads a body in pieces of `piece_len` bytes: the form, the file, and how many bytes came before that.
fn read(body: &[u8], piece_len: usize) -> Result<(Form, Vec<u8>, u64), S3Error> {
    let mut start = FormStart::new(&boundary());
    let mut pieces = body.chunks(piece_len.max(1));
    let started = loop {
        let Some(piece) = pieces.next() else { return Err(malformed()) };
        if let Some(started) = start.read(piece)? {
            break started;
        }
    };
    let Started { form, file: mut reader, rest, head_len } = started;
    let mut file = Vec::new();
    let mut input = rest;
    loop {
        while let Some(piece) = reader.decode(&mut input)? {
            file.extend_from_slice(&piece);
        }
        assert!(input.is_empty());
        match pieces.next() {
            Some(piece) => input = Bytes::copy_from_slice(piece),
            None => break,
        }
    }
    reader.finish()?;
    Ok((form, file, head_len))
}

fn form(fields: &[(&str, &str)]) -> Form {
    read(&body(fields, b"x"), usize::MAX).unwrap().0
}

fn code_of(body: &[u8]) -> ErrorCode {
    read(body, usize::MAX).unwrap_err().code()
}

#[test]
fn a_form_is_read_whatever_pieces_it_comes_in() {
    let file = b"one\r\ntwo\r\n--\r\n----x7MA4YW\r\n\r\n-----x7MA4YWx has a dash too few";
    let whole = body(&[("key", "k"), ("X-Amz-Meta-A", "1\r\n2"), ("empty", "")], file);
    for piece_len in 1..whole.len() + 1 {
        let (form, read_file, head_len) = read(&whole, piece_len).unwrap();
        assert_eq!(read_file, file, "{piece_len}");
        let fields: Vec<_> = form.iter().collect();
        assert_eq!(fields, [("key", "k"), ("x-amz-meta-a", "1\r\n2"), ("empty", "")]);
        assert_eq!(whole[usize::try_from(head_len).unwrap()..][..3], *b"one");
    }
}

#[test]
fn what_follows_the_file_is_ignored_up_to_a_bound() {
    let mut whole = body(&[("key", "k")], b"data");
    whole.truncate(whole.len() - 4);
    let end = whole.clone();
    whole.extend(
        format!("\r\nContent-Disposition: form-data; name=\"submit\"\r\n\r\nUpload\r\n--{BOUNDARY}--")
            .bytes(),
    );
    assert_eq!(read(&whole, 7).unwrap().1, b"data");
    let mut long = end.clone();
    long.extend(
        format!(
            "\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{}\r\n--{BOUNDARY}--",
            "a".repeat(FORM_TAIL_LEN_MAX)
        )
        .bytes(),
    );
    assert_eq!(code_of(&long), ErrorCode::MalformedPOSTRequest);
    let mut twice = end;
    twice.extend(
        format!("\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--{BOUNDARY}--").bytes(),
    );
    assert_eq!(code_of(&twice), ErrorCode::InvalidArgument);
}

#[test]
fn a_file_that_holds_its_own_delimiter_is_refused_and_not_cut_short() {
    for inner in ["", " x", "--x", "-", "\r\nno part"] {
        let file = format!("data\r\n--{BOUNDARY}{inner}\r\nmore");
        assert_eq!(
            code_of(&body(&[("key", "k")], file.as_bytes())),
            ErrorCode::MalformedPOSTRequest,
            "{inner:?}"
        );
    }
}

#[test]
fn a_body_that_breaks_off_anywhere_is_no_form() {
    let whole = body(&[("key", "k")], b"data");
    for len in 0..whole.len() - 2 {
        assert_eq!(code_of(&whole[..len]), ErrorCode::MalformedPOSTRequest, "{len}");
    }
    assert!(read(&whole[..whole.len() - 2], 1).is_ok(), "the last line break may be missing");
}

#[test]
fn the_fields_before_the_file_are_bounded() {
    let value = "v".repeat(FORM_HEAD_LEN_MAX - 300);
    assert!(read(&body(&[("key", &value)], &[b'x'; 100_000]), usize::MAX).is_ok());
    let value = "v".repeat(FORM_HEAD_LEN_MAX);
    for piece_len in [1000, usize::MAX] {
        let error = read(&body(&[("key", &value)], b"x"), piece_len).unwrap_err();
        assert_eq!(error.code(), ErrorCode::MaxPostPreDataLengthExceeded);
    }
}

#[test]
fn what_is_no_form_is_named() {
    let no_file = format!("{}--{BOUNDARY}--\r\n", part("key", "k"));
    assert_eq!(code_of(no_file.as_bytes()), ErrorCode::InvalidArgument);
    let twice = body(&[("key", "k"), ("KEY", "l")], b"x");
    assert_eq!(code_of(&twice), ErrorCode::InvalidArgument);
    for bad in [
        "preamble".to_owned(),
        format!("--{BOUNDARY}x\r\n"),
        format!("--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nx\r\n--{BOUNDARY}--"),
        format!("--{BOUNDARY}\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nx\r\n--{BOUNDARY}--"),
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--{BOUNDARY}--"),
    ] {
        assert_eq!(code_of(bad.as_bytes()), ErrorCode::MalformedPOSTRequest, "{bad}");
    }
}

#[test]
fn the_file_name_is_what_follows_the_last_slash() {
    for (sent, expected) in [
        ("filename=\"C:\\Program Files\\a\\b.txt\"", "up/b.txt"),
        ("filename=\"/home/x/b \\\"q\\\".txt\"", "up/b \"q\".txt"),
        ("filename=b.txt", "up/b.txt"),
        ("filename=\"x\"; filename*=UTF-8''na%C3%AFve%2Fb.txt", "up/b.txt"),
        ("", "up/"),
    ] {
        let head = part("key", "up/${filename}");
        let file = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; {sent}\r\n\r\n\r\n--{BOUNDARY}--"
        );
        let (form, bytes, _) = read(format!("{head}{file}").as_bytes(), 3).unwrap();
        assert_eq!((form.key().unwrap().as_str(), bytes.len()), (expected, 0), "{sent}");
    }
}

fn boundary_of(content_type: &str) -> Result<Boundary, ErrorCode> {
    let mut headers = http::HeaderMap::new();
    headers.insert("content-type", content_type.parse().unwrap());
    let uri = http::Uri::from_static("/b");
    Boundary::of(&crate::RequestHead::new(&http::Method::POST, &uri, &headers)).map_err(|error| error.code())
}

#[test]
fn the_boundary_is_read_from_the_content_type() {
    let expected = Boundary::parse("a b=c").unwrap();
    assert_eq!(boundary_of("Multipart/Form-Data; charset=x; Boundary=\"a b=c\""), Ok(expected));
    for bad in
        ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=a\"b\"c"]
    {
        assert_eq!(boundary_of(bad), Err(ErrorCode::MalformedPOSTRequest), "{bad}");
    }
    let long = format!("multipart/form-data; boundary={}", "b".repeat(71));
    assert_eq!(boundary_of(&long), Err(ErrorCode::MalformedPOSTRequest));
    assert_eq!(boundary_of("application/x-www-form-urlencoded"), Err(ErrorCode::PreconditionFailed));
}

/// The policy of the S3 API reference ("Example: Browser-Based Upload using HTTP POST"), with the line breaks it has there.
fn example_policy() -> String {
    let text = r#"{ "expiration": "2015-12-30T12:00:00.000Z",
  "conditions": [
    {"bucket": "sigv4examplebucket"},
    ["starts-with", "$key", "user/user1/"],
    {"acl": "public-read"},
    {"success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"},
    ["starts-with", "$Content-Type", "image/"],
    {"x-amz-meta-uuid": "14365123651274"},
    {"x-amz-server-side-encryption": "AES256"},
    ["starts-with", "$x-amz-meta-tag", ""],

    {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"},
    {"x-amz-algorithm": "AWS4-HMAC-SHA256"},
    {"x-amz-date": "20151229T000000Z" }
  ]
}"#;
    BASE64.encode(text.replace('\n', "\r\n"))
}

const EXAMPLE_SIGNATURE: &str = "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e";

fn example_form(changed: &[(&str, &str)]) -> Form {
    let policy = example_policy();
    let mut fields = vec![
        ("key", "user/user1/${filename}"),
        ("acl", "public-read"),
        ("success_action_redirect", "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"),
        ("Content-Type", "image/jpeg"),
        ("x-amz-meta-uuid", "14365123651274"),
        ("x-amz-server-side-encryption", "AES256"),
        ("X-Amz-Credential", "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"),
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Date", "20151229T000000Z"),
        ("x-amz-meta-tag", ""),
        ("Policy", policy.as_str()),
        ("X-Amz-Signature", EXAMPLE_SIGNATURE),
    ];
    for (name, value) in changed {
        fields.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        if *value != "(none)" {
            fields.push((name, value));
        }
    }
    form(&fields)
}

fn verified(form: &Form) -> Result<String, ErrorCode> {
    let presented = Presented::of_form(form, false).map_err(|error| error.code())?;
    let authenticated =
        presented.verify(form, &SecretAccessKey::new(SECRET), None).map_err(|error| error.code())?;
    Ok(authenticated.access_key_id().to_owned())
}

#[test]
fn the_example_of_the_reference_verifies() {
    let form = example_form(&[]);
    assert_eq!(verified(&form).as_deref(), Ok("AKIAIOSFODNN7EXAMPLE"));
    let policy = Policy::parse(form.get("policy").unwrap()).unwrap();
    let now_ms = parse_iso8601("2015-12-29T00:00:00Z").unwrap();
    assert_eq!(policy.check(&form, "sigv4examplebucket", now_ms), Ok(LengthRange::ANY));
    assert_eq!(form.key().unwrap().as_str(), "user/user1/a.txt");
}

#[test]
fn a_signature_over_anything_else_does_not() {
    for (changed, code) in [
        (("x-amz-signature", "00"), ErrorCode::SignatureDoesNotMatch),
        (
            ("x-amz-signature", "9afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e"),
            ErrorCode::SignatureDoesNotMatch,
        ),
        (("policy", "e30="), ErrorCode::SignatureDoesNotMatch),
        (
            ("x-amz-credential", "AKIAIOSFODNN7EXAMPLE/20151229/eu-east-1/s3/aws4_request"),
            ErrorCode::SignatureDoesNotMatch,
        ),
        (("x-amz-credential", "AKIAIOSFODNN7EXAMPLE"), ErrorCode::InvalidArgument),
        (("x-amz-date", "20151230T000000Z"), ErrorCode::InvalidArgument),
        (("x-amz-algorithm", "AWS4-ECDSA-P256-SHA256"), ErrorCode::InvalidArgument),
        (("x-amz-signature", "(none)"), ErrorCode::InvalidArgument),
        (("policy", "(none)"), ErrorCode::InvalidArgument),
    ] {
        assert_eq!(verified(&example_form(&[changed])), Err(code), "{changed:?}");
    }
    assert!(form(&[("key", "k")]).is_anonymous());
    assert!(!example_form(&[("x-amz-signature", "(none)")]).is_anonymous());
}

#[test]
fn version_2_is_taken_only_where_it_is_wanted() {
    let fields = [
        ("AWSAccessKeyId", "AKIAIOSFODNN7EXAMPLE"),
        ("policy", "eyAiZXhwIjogMSB9"),
        // Made with Python's hmac: HMAC-SHA-1 of the policy's text under SECRET.
        ("signature", "rimbHbZbrJgoeCCir/1iBnovHWM="),
    ];
    let right = form(&fields);
    let secret = SecretAccessKey::new(SECRET);
    assert_eq!(Presented::of_form(&right, false).unwrap_err().code(), ErrorCode::InvalidRequest);
    let presented = Presented::of_form(&right, true).unwrap();
    assert_eq!(presented.access_key_id(), "AKIAIOSFODNN7EXAMPLE");
    assert!(presented.verify(&right, &secret, None).is_ok());
    for signature in ["", "simbHbZbrJgoeCCir/1iBnovHWM=", "AA==", "not base64"] {
        let wrong = form(&[fields[0], fields[1], ("signature", signature)]);
        let error = Presented::of_form(&wrong, true).unwrap().verify(&wrong, &secret, None).unwrap_err();
        assert_eq!(error.code(), ErrorCode::SignatureDoesNotMatch, "{signature}");
    }
    let none = form(&fields[..2]);
    assert_eq!(Presented::of_form(&none, true).unwrap_err().code(), ErrorCode::InvalidArgument);
}

#[test]
fn a_session_token_has_to_come_with_the_key_that_has_one() {
    let token = SessionToken::new("the token");
    let verdict = |changed: &[(&str, &str)], token: Option<&SessionToken>| {
        let form = example_form(changed);
        let presented = Presented::of_form(&form, false).unwrap();
        presented.verify(&form, &SecretAccessKey::new(SECRET), token).map(drop).map_err(|error| error.code())
    };
    assert_eq!(verdict(&[("X-Amz-Security-Token", "the token")], Some(&token)), Ok(()));
    assert_eq!(verdict(&[], Some(&token)), Err(ErrorCode::InvalidAccessKeyId));
    for (name, token) in [("another", Some(&token)), ("the token", None)] {
        assert_eq!(verdict(&[("x-amz-security-token", name)], token), Err(ErrorCode::InvalidToken), "{name}");
    }
}

/// Checks a form against conditions in bucket `b`, in 1970.
fn check(conditions: &str, fields: &[(&str, &str)]) -> Result<LengthRange, (ErrorCode, String)> {
    let text = format!("{{\"expiration\": \"2007-12-01T12:00:00.000Z\", \"conditions\": {conditions}}}");
    let verdict = Policy::parse(&BASE64.encode(text)).and_then(|policy| policy.check(&form(fields), "b", 0));
    verdict.map_err(|error| (error.code(), error.message().to_owned()))
}

#[test]
fn each_kind_of_condition_holds_or_not() {
    const NAMES: &str = r#"{"bucket": "b"}, ["starts-with", "$key", "foo"]"#;
    for (conditions, fields, holds) in [
        ("", &[("key", "foo.txt")][..], true),
        ("", &[("key", "bar")], false),
        (r#", {"acl": "private"}"#, &[("key", "foo"), ("acl", "private")], true),
        (r#", {"acl": "private"}"#, &[("key", "foo"), ("acl", "public-read")], false),
        (r#", {"acl": "private"}"#, &[("key", "foo")], false),
        (r#", {"AcL": "private"}"#, &[("key", "foo"), ("aCl", "private")], true),
        (r#", ["EQ", "$Expires", "x"]"#, &[("key", "foo"), ("expires", "x")], true),
        (
            r#", ["StArTs-WiTh", "$CoNtEnT-TyPe", "text/"]"#,
            &[("key", "foo"), ("Content-Type", "text/a")],
            true,
        ),
        (
            r#", ["starts-with", "$Content-Type", "image/"]"#,
            &[("key", "foo"), ("Content-Type", "image/a, image/b")],
            true,
        ),
        (
            r#", ["starts-with", "$Content-Type", "image/"]"#,
            &[("key", "foo"), ("Content-Type", "image/a,text/b")],
            false,
        ),
        (r#", ["starts-with", "$x-amz-meta-a", ""]"#, &[("key", "foo"), ("x-amz-meta-a", "anything")], true),
        (r#", ["starts-with", "$x-amz-meta-a", ""]"#, &[("key", "foo")], false),
        (r#", ["eq", "$x-amz-meta-a", ""]"#, &[("key", "foo"), ("x-amz-meta-a", "anything")], false),
        ("", &[("key", "foo"), ("x-ignore-a", "1"), ("x-ignore-a", "2")], true),
        ("", &[("key", "foo"), ("policy", ""), ("x-amz-signature", "")], true),
        ("", &[("key", "foo"), ("submit", "go")], false),
        ("", &[("key", "foo"), ("x-amz-checksum-crc32", "AAAAAA==")], false),
    ] {
        let verdict = check(&format!("[{NAMES}{conditions}]"), fields);
        match verdict {
            Ok(_) => assert!(holds, "{conditions} {fields:?}"),
            Err((code, text)) => {
                assert!(!holds && code == ErrorCode::AccessDenied, "{conditions} {fields:?}: {text}");
                assert!(text.starts_with("Invalid according to Policy: "), "{text}");
            }
        }
    }
    assert!(
        check(r#"[["starts-with", "$key", ""]]"#, &[("key", "k")]).is_err(),
        "the bucket needs a condition too"
    );
    assert!(check(r#"[{"bucket": "c"}, ["starts-with", "$key", ""]]"#, &[("key", "k")]).is_err());
    assert!(check(r#"[{"bucket": "b"}]"#, &[("key", "k")]).is_err(), "the key needs one");
}

#[test]
fn the_length_of_the_file_is_bounded_by_all_ranges_together() {
    const NAMES: &str = r#"[{"bucket": "b"}, {"key": "k"}, "#;
    let range = |text: &str| check(&format!("{NAMES}{text}]"), &[("key", "k")]);
    let both = range(r#"["content-length-range", 2, 10], ["Content-Length-Range", "1", "5"]"#).unwrap();
    assert_eq!(both.check(1).unwrap_err().code(), ErrorCode::EntityTooSmall);
    assert!(both.check(2).is_ok() && both.check(5).is_ok() && both.check_at_least(5).is_ok());
    assert_eq!(both.check(6).unwrap_err().code(), ErrorCode::EntityTooLarge);
    assert_eq!(both.check_at_least(6).unwrap_err().code(), ErrorCode::EntityTooLarge);
    for bad in [
        r#"["content-length-range", 0]"#,
        r#"["content-length-range", -1, 0]"#,
        r#"["content-length-range", "x", 1.5]"#,
    ] {
        assert_eq!(range(bad).unwrap_err().0, ErrorCode::InvalidPolicyDocument, "{bad}");
    }
}

#[test]
fn a_document_that_is_no_policy_is_invalid() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"expiration": "2007-12-01T12:00:00Z"}"#,
        r#"{"conditions": []}"#,
        r#"{"EXPIRATION": "2007-12-01T12:00:00Z", "conditions": []}"#,
        r#"{"expiration": "2007-12-01T12:00:00Z", "CONDITIONS": []}"#,
        r#"{"expiration": "2007-12-01 12:00:00+00:00", "conditions": []}"#,
        r#"{"expiration": "2007-12-01T12:00:00+01:00", "conditions": []}"#,
        r#"{"expiration": 1, "conditions": []}"#,
        r#"{"expiration": "2007-12-01T12:00:00Z", "conditions": {}}"#,
        r#"{"expiration": "2007-12-01T12:00:00Z", "conditions": [{}]}"#,
        r#"{"expiration": "2007-12-01T12:00:00Z", "conditions": [{"a": "b", "c": "d"}]}"#,
        r#"{"expiration": "2007-12-01T12:00:00Z", "conditions": [{"a": 1}]}"#,
        r#"{"expiration": "2007-12-01T12:00:00Z", "conditions": ["a"]}"#,
        r#"{"expiration": "2007-12-01T12:00:00Z", "conditions": [["eq", "key", "k"]]}"#,
        r#"{"expiration": "2007-12-01T12:00:00Z", "conditions": [["is", "$key", "k"]]}"#,
    ] {
        assert_eq!(
            Policy::parse(&BASE64.encode(text)).unwrap_err().code(),
            ErrorCode::InvalidPolicyDocument,
            "{text}"
        );
    }
    for base64 in ["*", "/w==", "e30"] {
        assert_eq!(Policy::parse(base64).unwrap_err().code(), ErrorCode::InvalidPolicyDocument, "{base64}");
    }
}

#[test]
fn a_policy_ends_at_its_expiration() {
    let text = r#"{"expiration": "2007-12-01T12:00:00.000Z", "conditions": [{"bucket": "b"}, {"key": "k"}]}"#;
    let policy = Policy::parse(&BASE64.encode(text)).unwrap();
    let end_ms = parse_iso8601("2007-12-01T12:00:00Z").unwrap();
    let form = form(&[("key", "k")]);
    assert!(policy.check(&form, "b", end_ms - 1).is_ok());
    let error = policy.check(&form, "b", end_ms).unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (ErrorCode::AccessDenied, "Invalid according to Policy: Policy expired.")
    );
}

#[test]
fn escapes_that_only_policies_have_are_understood() {
    let conditions = r#"[{"bucket": "b"}, ["starts-with", "$key", "\$f\u0041\\$"]]"#;
    assert!(check(conditions, &[("key", "$fA\\$x")]).is_ok());
    assert!(check(r#"[{"bucket": "b"}, {"key": "a\vb"}]"#, &[("key", "a\u{b}b")]).is_ok());
}

#[test]
fn fields_become_the_headers_that_they_stand_for() {
    let form = form(&[
        ("Key", "a/${filename}"),
        ("content-TYPE", "text/x"),
        ("X-Amz-Meta-Note", "n"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("acl", "private"),
        ("tagging", "<Tagging><TagSet><Tag><Key>a b</Key><Value>1&amp;2</Value></Tag></TagSet></Tagging>"),
        ("x-amz-checksum-crc32", "y/Q5Jg=="),
        ("x-amz-credential", "whatever"),
        ("submit", "go"),
    ]);
    let put = form.put_object(BucketName::parse("bucket").unwrap()).unwrap();
    assert_eq!((put.bucket.as_str(), put.key.as_str()), ("bucket", "a/a.txt"));
    assert_eq!(put.headers.system.content_type.as_deref(), Some("text/x"));
    assert_eq!(put.headers.user_metadata.iter().collect::<Vec<_>>(), [("note", "n")]);
    assert_eq!(put.headers.storage_class.as_ref().map(|class| class.as_str()), Some("STANDARD_IA"));
    assert!(put.body.integrity.checksum.is_some());
}

#[test]
fn fields_that_no_header_could_be_are_refused() {
    let bucket = || BucketName::parse("bucket").unwrap();
    for (field, code) in [
        (("x-amz-unheard-of", "1"), ErrorCode::NotImplemented),
        (("x-amz-copy-source", "/b/k"), ErrorCode::NotImplemented),
        (("x-amz-trailer", "x-amz-checksum-crc32"), ErrorCode::NotImplemented),
        (("x-amz-expected-bucket-owner", "1"), ErrorCode::NotImplemented),
        (("x-amz-server-side-encryption-customer-key", "k"), ErrorCode::NotImplemented),
        (("x-amz-meta-a", "1\n2"), ErrorCode::InvalidArgument),
        (("x-amz-checksum-sha256", "sailorjerry"), ErrorCode::InvalidRequest),
        (("content-md5", "x"), ErrorCode::InvalidDigest),
        (("bucket", "another"), ErrorCode::InvalidArgument),
        (("tagging", "no document"), ErrorCode::MalformedXML),
    ] {
        let error = form(&[("key", "k"), field]).put_object(bucket()).unwrap_err();
        assert_eq!(error.code(), code, "{field:?}");
    }
    for fields in [&[][..], &[("key", "")], &[("key", "${filename}x")]] {
        let result = form(fields).put_object(bucket());
        assert_eq!(result.is_ok(), fields.first().is_some_and(|(_, key)| key.ends_with('x')), "{fields:?}");
    }
    let long = "k".repeat(1025);
    assert_eq!(form(&[("key", &long)]).key().unwrap_err().code(), ErrorCode::KeyTooLongError);
}

#[test]
fn the_answer_is_the_one_that_the_form_asks_for() {
    let success = |fields: &[(&str, &str)]| form(fields).success();
    assert_eq!(success(&[]), Success::Status(StatusCode::NO_CONTENT));
    assert_eq!(success(&[("success_action_status", "200")]), Success::Status(StatusCode::OK));
    assert_eq!(success(&[("success_action_status", "201")]), Success::Status(StatusCode::CREATED));
    assert_eq!(success(&[("success_action_status", "404")]), Success::Status(StatusCode::NO_CONTENT));
    let url = "https://e.org/a?b=c#d";
    for name in ["success_action_redirect", "redirect"] {
        let asked = success(&[(name, url), ("success_action_status", "201")]);
        assert_eq!(asked, Success::Redirect(url.to_owned()));
    }
    for bad in ["", "/a", "javascript:alert(1)", "ftp://e.org/", "http://e.org/ä", "http://"] {
        assert_eq!(
            success(&[("success_action_redirect", bad)]),
            Success::Status(StatusCode::NO_CONTENT),
            "{bad}"
        );
    }
    let location = Success::location(url, "b", "k /ü", "e-0");
    assert_eq!(location, "https://e.org/a?b=c&bucket=b&key=k%20%2F%C3%BC&etag=%22e-0%22#d");
    assert_eq!(Success::location("http://h", "b", "k", "e"), "http://h?bucket=b&key=k&etag=%22e%22");
}

proptest! {
    #[test]
    fn any_file_comes_out_as_it_went_in_or_not_at_all(
        file in prop::collection::vec(prop::sample::select(b"\r\n-x7MA4YW".to_vec()), 0..200),
        piece_len in 1usize..40,
    ) {
        let whole = body(&[("key", "k")], &file);
        match read(&whole, piece_len) {
            Ok((_, out, _)) => prop_assert_eq!(out, file),
            Err(_) => {
                let delimiter = format!("\r\n--{BOUNDARY}");
                prop_assert!(file.windows(delimiter.len()).any(|window| window == delimiter.as_bytes()));
            }
        }
    }
}
