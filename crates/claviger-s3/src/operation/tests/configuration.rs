//! Sub-resources with configuration documents, and ACLs in headers.

use super::*;
use crate::version::VersionId;

fn configuration(method: &str, uri: &str, headers: Headers<'_>) -> Box<Configuration> {
    expect!(Configuration, ok(method, uri, headers))
}

#[test]
fn every_row_is_reached_by_its_verbs_and_by_no_others() {
    for row in SUBRESOURCES {
        let query: Vec<String> = row
            .selectors
            .iter()
            .map(|selector| match selector {
                Selector::Query("id") => "id=one".to_owned(),
                Selector::Query(name) => (*name).to_owned(),
                other => panic!("{other:?} selects a sub-resource"),
            })
            .collect();
        let path = if row.target == Target::Object { "/bkt/k" } else { "/bkt" };
        let uri = format!("{path}?{}", query.join("&"));
        for verb in [Verb::Get, Verb::Put, Verb::Delete] {
            let expected = row.operations.iter().find(|(other, _)| *other == verb).map(|(_, kind)| *kind);
            let by_path = request(verb.method().as_str(), &uri, &[]);
            match (expected, by_path) {
                (Some(kind), Ok(operation)) => {
                    assert_eq!((operation.kind(), operation.bucket().unwrap().as_str()), (kind, "bkt"));
                    assert_eq!(operation.key().is_some(), row.target == Target::Object);
                    let by_host =
                        uri.strip_prefix("/bkt").map(|rest| format!("/{}", rest.trim_start_matches('/')));
                    let by_host = classify_on("bkt.s3.test", verb.method().as_str(), &by_host.unwrap(), &[]);
                    assert_eq!(by_host.unwrap(), operation);
                }
                (None, Err(error)) => assert_eq!(error.code(), ErrorCode::NotImplemented, "{verb:?} {uri}"),
                (expected, got) => panic!("{verb:?} {uri}: expected {expected:?}, got {got:?}"),
            }
        }
    }
}

#[test]
fn what_would_make_the_store_write_or_serve_is_refused_with_the_reason() {
    for (query, reason) in [
        ("website", "serve ciphertext"),
        ("inventory&id=a", "reports"),
        ("analytics&id=a", "reports"),
        ("logging", "logs"),
    ] {
        let error = request("PUT", &format!("/bkt?{query}"), &[]).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotImplemented);
        assert!(error.message().contains(reason), "{}", error.message());
    }
    let error = request("POST", "/bkt/k?select&select-type=2", &[]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotImplemented);
}

#[test]
fn a_configuration_carries_its_parameters_typed() {
    let acl = configuration("PUT", "/bkt/k?acl&versionId=v1", &[("x-amz-acl", "public-read")]);
    assert_eq!(acl.version.as_ref().map(VersionId::as_str), Some("v1"));
    assert_eq!(acl.acl.iter().collect::<Vec<_>>(), [("x-amz-acl", "public-read")]);
    let metrics = configuration("GET", "/bkt?metrics&id=a.b-1", &[]);
    assert_eq!(metrics.parameters, [("id", "a.b-1".to_owned())]);
    assert_eq!(metrics.kind, OperationKind::GetBucketMetricsConfiguration);
    let listing = configuration("GET", "/bkt?metrics&continuation-token=t%2B", &[]);
    assert_eq!(listing.parameters, [("continuation-token", "t+".to_owned())]);
    let policy = configuration("PUT", "/bkt?policy", &[("x-amz-confirm-remove-self-bucket-access", "true")]);
    assert_eq!(policy.choice, Some(("x-amz-confirm-remove-self-bucket-access", "true")));
    for uri in ["/bkt?metrics&id=", "/bkt?metrics&id=a%20b", "/bkt/k?acl&versionId="] {
        assert_eq!(code("GET", uri, &[]), ErrorCode::InvalidArgument, "{uri}");
    }
    for (method, uri, name) in [
        ("PUT", "/bkt?policy", "x-amz-skip-destination-validation"),
        ("GET", "/bkt?policy", "x-amz-confirm-remove-self-bucket-access"),
        ("PUT", "/bkt?cors", "x-amz-acl"),
        ("GET", "/bkt?acl", "x-amz-acl"),
    ] {
        assert_eq!(code(method, uri, &[(name, "true")]), ErrorCode::NotImplemented, "{method} {uri} {name}");
    }
    let odd: Headers<'_> = &[("x-amz-confirm-remove-self-bucket-access", "some secret")];
    assert_eq!(code("PUT", "/bkt?policy", odd), ErrorCode::InvalidArgument);
    assert_eq!(code("GET", "/bkt?cors&versionId=v", &[]), ErrorCode::NotImplemented);
}

#[test]
fn acls_in_headers_come_from_lists() {
    let grants: Headers<'_> = &[
        ("x-amz-grant-read", "id=\"abc\", emailAddress=\"a@b.example\""),
        ("x-amz-grant-full-control", "uri=http://acs.amazonaws.com/groups/global/AllUsers"),
    ];
    let put = expect!(PutObject, ok("PUT", "/bkt/k", grants));
    assert_eq!(put.headers.acl.iter().count(), 2);
    let create = expect!(
        CreateBucket,
        ok("PUT", "/bkt", &[("x-amz-acl", "public-read-write"), ("x-amz-object-ownership", "ObjectWriter")])
    );
    assert_eq!(create.acl.iter().next(), Some(("x-amz-acl", "public-read-write")));
    assert_eq!(create.object_ownership, Some("ObjectWriter"));
    for headers in [
        [("x-amz-acl", "public-ready")],
        [("x-amz-acl", "my secret")],
        [("x-amz-grant-read", "abc")],
        [("x-amz-grant-write", "secret=abc")],
    ] {
        assert_eq!(code("PUT", "/bkt/k", &headers), ErrorCode::InvalidArgument, "{headers:?}");
    }
    assert_eq!(code("PUT", "/bkt", &[("x-amz-object-ownership", "Mine")]), ErrorCode::InvalidArgument);
    assert_eq!(code("PUT", "/bkt/k", &[("x-amz-grant-sing", "id=a")]), ErrorCode::NotImplemented);
    let both: Headers<'_> = &[("x-amz-acl", "private"), ("x-amz-grant-read", "id=a")];
    assert_eq!(code("PUT", "/bkt/k", both), ErrorCode::InvalidRequest);
    let part: Headers<'_> = &[("x-amz-acl", "public-read")];
    assert_eq!(code("PUT", "/bkt/k?partNumber=1&uploadId=u", part), ErrorCode::NotImplemented);
}

#[test]
fn a_preflight_is_about_the_bucket_whatever_the_url_of_the_request_to_come() {
    let long = format!("/bkt/{}?X-Amz-Signature=s&partNumber=1&uploadId=u&a&a&surprise", "k".repeat(1000));
    for uri in ["/bkt", "/bkt/k?list-type=2", &long] {
        let preflight = expect!(Preflight, ok("OPTIONS", uri, &[("x-amz-surprise", "1")]));
        assert_eq!(preflight.bucket.as_str(), "bkt");
    }
    let by_host = classify_on("bkt.s3.test", "OPTIONS", "/k", &[]).unwrap();
    assert_eq!((by_host.kind(), by_host.key()), (OperationKind::Preflight, None));
}

fn accompanying(uri: &str, headers: Headers<'_>) -> Result<Accompanying, S3Error> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    Accompanying::read(&RequestHead::new(&Method::GET, &uri.parse().unwrap(), &map))
}

#[test]
fn owners_and_payers_are_read_from_headers_and_presigned_queries() {
    let owners: Headers<'_> = &[
        ("x-amz-expected-bucket-owner", "123456789012"),
        ("x-amz-source-expected-bucket-owner", "tenant$user"),
    ];
    let read = accompanying("/bkt/k", owners).unwrap();
    assert_eq!(read.expected_owner.as_deref(), Some("123456789012"));
    assert_eq!(read.source_expected_owner.as_deref(), Some("tenant$user"));
    let query = "/bkt/k?X-Amz-Signature=s&x-amz-expected-bucket-owner=1&x-amz-request-payer=requester";
    let read = accompanying(query, &[]).unwrap();
    assert_eq!((read.expected_owner.as_deref(), read.requester_pays), (Some("1"), true));
    assert_eq!(accompanying("/bkt/k", &[]).unwrap(), Accompanying::default());
    for headers in [[("x-amz-expected-bucket-owner", "some secret")], [("x-amz-request-payer", "owner")]] {
        assert_eq!(
            accompanying("/bkt/k", &headers).unwrap_err().code(),
            ErrorCode::InvalidArgument,
            "{headers:?}"
        );
    }
}
