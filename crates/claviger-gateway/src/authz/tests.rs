use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::*;
use crate::credentials::CredentialStore;

/// The identity with these grants, made the only way there is: from a file.
fn identity(grants: &str) -> Arc<Identity> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text =
        format!("[[key]]\naccess_key_id = \"AAA\"\nsecret_access_key = \"0123456789abcdef\"\n{grants}");
    std::fs::write(file.path(), text).unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    CredentialStore::load(file.path(), Vec::new()).unwrap().lookup("AAA").unwrap()
}

fn one(buckets: &str, prefix: &str, actions: &str) -> Arc<Identity> {
    identity(&format!("[[key.allow]]\nbuckets = {buckets}\nprefix = \"{prefix}\"\nactions = {actions}\n"))
}

#[test]
fn each_action_needs_its_own_verb() {
    let allowed = |verb: &str| {
        let who = one("[\"b\"]", "", &format!("[\"{verb}\"]"));
        [
            who.permit::<ReadObject>("b", "k").is_ok(),
            who.permit::<WriteObject>("b", "k").is_ok(),
            who.permit::<DeleteObject>("b", "k").is_ok(),
            who.permit::<ListObjects>("b", "").is_ok(),
            who.permit::<ManageBucket>("b", "").is_ok(),
            who.permit::<ReadBucket>("b", "").is_ok(),
        ]
    };
    assert_eq!(allowed("read"), [true, false, false, false, false, true]);
    assert_eq!(allowed("write"), [false, true, false, false, false, true]);
    assert_eq!(allowed("delete"), [false, false, true, false, false, true]);
    assert_eq!(allowed("list"), [false, false, false, true, false, true]);
    assert_eq!(allowed("manage"), [false, false, false, false, true, true]);
}

#[test]
fn a_prefix_bounds_objects_and_listings() {
    let who = one("[\"b\"]", "db/", "[\"read\", \"list\"]");
    assert!(who.permit::<ReadObject>("b", "db/x").is_ok());
    for key in ["db", "d", "other/db/x", "", "DB/x"] {
        assert!(who.permit::<ReadObject>("b", key).is_err(), "{key}");
    }
    assert!(who.permit::<ListObjects>("b", "db/").is_ok());
    assert!(who.permit::<ListObjects>("b", "db/2026/").is_ok());
    for prefix in ["", "d", "db", "other"] {
        assert!(who.permit::<ListObjects>("b", prefix).is_err(), "a listing of {prefix:?} would show more");
    }
}

#[test]
fn grants_are_not_mixed_with_each_other() {
    let who = identity(
        "[[key.allow]]\nbuckets = [\"a\"]\nactions = [\"read\"]\n\
         [[key.allow]]\nbuckets = [\"b-*\"]\nprefix = \"p/\"\nactions = [\"write\"]\n",
    );
    assert!(who.permit::<ReadObject>("a", "p/x").is_ok());
    assert!(who.permit::<WriteObject>("b-1", "p/x").is_ok());
    assert!(who.permit::<WriteObject>("a", "p/x").is_err());
    assert!(who.permit::<ReadObject>("b-1", "p/x").is_err());
    assert!(who.permit::<WriteObject>("b-1", "x").is_err());
    assert!(who.may_see_bucket("a") && who.may_see_bucket("b-9") && !who.may_see_bucket("c"));
}

#[test]
fn a_permit_is_for_the_name_it_was_asked_for() {
    let who = one("[\"*\"]", "", "[\"read\", \"list\"]");
    let read = who.permit::<ReadObject>("bkt", "a/b").unwrap();
    assert_eq!((read.bucket(), read.key()), ("bkt", "a/b"));
    let list = who.permit::<ListObjects>("bkt", "a/").unwrap();
    assert_eq!((list.bucket(), list.prefix()), ("bkt", "a/"));
}

#[test]
fn a_denial_says_who_what_and_where_and_becomes_access_denied() {
    let denied = one("[\"b\"]", "", "[\"read\"]").permit::<WriteObject>("b", "dir/k").unwrap_err();
    let error = S3Error::from(denied);
    assert_eq!(error.code(), ErrorCode::AccessDenied);
    assert_eq!(error.message(), "Access Denied: access key AAA has no grant to write /b/dir/k.");
}
