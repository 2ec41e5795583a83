use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::authz::{ReadObject, WriteObject};

const EXAMPLE: &str = include_str!("../../../../deploy/credentials.toml");
const SECRET: &str = "s3cr3t-of-the-test-0123456789";

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn load(text: &str) -> Result<Arc<CredentialStore>, CredentialsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials.toml");
    write(&path, text);
    CredentialStore::load(&path, vec!["alice".to_owned()])
}

fn key(id: &str) -> String {
    format!("[[key]]\naccess_key_id = \"{id}\"\nsecret_access_key = \"{SECRET}\"\n")
}

fn grant(buckets: &str, actions: &str) -> String {
    format!("[[key.allow]]\nbuckets = {buckets}\nactions = {actions}\n")
}

#[test]
fn the_example_in_deploy_loads_once_its_secrets_are_filled_in() {
    assert!(matches!(load(EXAMPLE), Err(CredentialsError::WeakSecret { .. })), "placeholders are no secrets");
    let filled = EXAMPLE.replace("secret_access_key = \"\"", &format!("secret_access_key = \"{SECRET}\""));
    assert_eq!(load(&filled).unwrap().len(), 2);
}

#[test]
fn several_keys_load_and_an_unknown_one_is_not_found() {
    let text = key("ALICE") + &grant("[\"*\"]", "[\"read\"]") + &key("BOB");
    let store = load(&text).unwrap();
    assert_eq!(store.len(), 2);
    assert_eq!(store.lookup("ALICE").unwrap().access_key_id(), "ALICE");
    assert!(store.lookup("alice").is_none() && store.lookup("").is_none());
}

#[test]
fn a_key_without_grants_may_do_nothing() {
    let bob = load(&key("BOB")).unwrap().lookup("BOB").unwrap();
    assert!(bob.permit::<ReadObject>("bkt", "k").is_err());
    assert!(!bob.may_see_bucket("bkt"));
}

#[test]
fn files_that_promise_what_can_not_be_held_are_refused() {
    let cases = [
        (key("A B"), "3 to 128"),
        (key("A/B"), "3 to 128"),
        (key("AAA") + &key("AAA"), "occurs twice"),
        (key("AAA").replace(SECRET, "short"), "shorter than 16"),
        (key("AAA") + &grant("[]", "[\"read\"]"), "names no bucket"),
        (key("AAA") + &grant("[\"b\"]", "[]"), "allows no action"),
        (key("AAA") + &grant("[\"b\"]", "[\"manage\"]") + "prefix = \"p/\"\n", "whole bucket"),
        (key("AAA") + &grant("[\"b\"]", "[\"fly\"]"), ":6:"),
        (key("AAA") + "colour = 1\n", "colour"),
    ];
    for (text, expected) in cases {
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn no_error_and_no_debug_text_quotes_a_secret() {
    let broken = [
        key("AAA").replace("secret_access_key = ", "secret_access_key = 1\nname = "),
        key("AAA").replace(&format!("\"{SECRET}\""), &format!("[\"{SECRET}\"]")),
        key("AAA").replace(&format!("\"{SECRET}\""), SECRET),
        key("AAA").replace(&format!("\"{SECRET}\""), &format!("\"{SECRET}")),
        key("AAA") + &key("AAA"),
        key("AAA") + &format!("allow = \"{SECRET}\"\n"),
        key("AAA") + &grant("[\"b\"]", &format!("[\"{SECRET}\"]")),
    ];
    for text in broken {
        let error = load(&text).unwrap_err();
        assert!(
            !error.to_string().contains("s3cr3t") && !format!("{error:?}").contains("s3cr3t"),
            "{error:?}"
        );
    }
    let store = load(&key("AAA")).unwrap();
    let identity = store.lookup("AAA").unwrap();
    assert!(!format!("{store:?} {identity:?} {:?}", identity.secret()).contains("s3cr3t"));
}

#[test]
fn a_loose_mode_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials.toml");
    write(&path, &key("AAA"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = CredentialStore::load(&path, vec!["alice".to_owned()]).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_good_change_is_taken_up_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials.toml");
    write(&path, &(key("OLD") + &grant("[\"b\"]", "[\"write\"]")));
    let store = CredentialStore::load(&path, vec!["alice".to_owned()]).unwrap();
    assert_eq!(store.reload(false), Reload::Unchanged);
    let held = store.lookup("OLD").unwrap();

    write(&path, "[[key]]\naccess_key_id = 7\n");
    assert_eq!(store.reload(false), Reload::Refused);
    assert!(store.lookup("OLD").is_some(), "the old keys stay");
    assert_eq!(store.reload(false), Reload::Unchanged, "the same bad file is reported once");

    write(&path, &key("NEWER"));
    assert_eq!(store.reload(false), Reload::Applied);
    assert!(store.lookup("OLD").is_none() && store.lookup("NEWER").is_some());
    assert!(held.permit::<WriteObject>("b", "k").is_ok(), "a request under way keeps its identity");

    std::fs::remove_file(&path).unwrap();
    assert_eq!(store.reload(false), Reload::Refused);
    assert!(store.lookup("NEWER").is_some());
}

#[tokio::test]
async fn the_file_is_followed_without_being_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials.toml");
    write(&path, &key("OLD"));
    let store = CredentialStore::load(&path, vec!["alice".to_owned()]).unwrap();
    let watching = tokio::spawn(Arc::clone(&store).watch());
    write(&path, &key("NEWER"));
    for _ in 0..100 {
        if store.lookup("NEWER").is_some() {
            watching.abort();
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the change was not seen within ten seconds");
}

#[test]
fn upstream_credentials_load_with_and_without_a_session_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("upstream.toml");
    write(&path, &format!("access_key_id = \"AK\"\nsecret_access_key = \"{SECRET}\"\n"));
    let credentials = UpstreamAccounts::load(&path).unwrap().own;
    assert_eq!((credentials.access_key_id(), credentials.session_token()), ("AK", None));
    assert!(!format!("{credentials:?}").contains("s3cr3t"));
    write(&path, "access_key_id = \"AK\"\nsecret_access_key = \"x\"\nsession_token = \"T\"\n");
    assert_eq!(UpstreamAccounts::load(&path).unwrap().own.session_token(), Some("T"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(UpstreamAccounts::load(&path).is_err());
}

#[test]
fn a_key_has_the_account_that_it_names_and_one_that_does_not_exist_is_refused_with_its_line() {
    let text = key("AAA") + "upstream_account = \"alice\"\n" + &key("BBB");
    let store = load(&text).unwrap();
    assert_eq!(*store.lookup("AAA").unwrap().upstream_account(), UpstreamAccount::Named("alice".to_owned()));
    assert_eq!(*store.lookup("BBB").unwrap().upstream_account(), UpstreamAccount::Own);
    let error = load(&(key("AAA") + "upstream_account = \"bob\"\n")).unwrap_err().to_string();
    assert!(error.contains(":4: there is no upstream account \"bob\"; add an [[account]]"), "{error}");
}

#[test]
fn a_session_token_is_taken_and_never_shown() {
    let store = load(&(key("AAA") + "session_token = \"s3cr3t/token+=\"\n")).unwrap();
    let identity = store.lookup("AAA").unwrap();
    assert!(identity.session_token().unwrap().matches("s3cr3t/token+="));
    assert!(!format!("{identity:?} {:?}", identity.session_token()).contains("s3cr3t"));
    assert!(load(&key("AAA")).unwrap().lookup("AAA").unwrap().session_token().is_none());
    for unusable in ["", "a b", "ä"] {
        let error = load(&(key("AAA") + &format!("session_token = \"{unusable}\"\n"))).unwrap_err();
        assert!(matches!(error, CredentialsError::SessionToken { .. }), "{error}");
    }
}

#[test]
fn requests_without_a_signature_are_let_in_by_a_table_of_their_own_only() {
    assert!(load(&key("AAA")).unwrap().anonymous().is_none());
    let grants = "[anonymous]\n[[anonymous.allow]]\nbuckets = [\"public-*\"]\nactions = [\"read\"]\n";
    let store = load(&(key("AAA") + grants)).unwrap();
    let anonymous = store.anonymous().unwrap();
    assert_eq!((anonymous.access_key_id(), store.len()), ("anonymous", 1));
    assert_eq!(*anonymous.upstream_account(), UpstreamAccount::Anonymous);
    assert!(anonymous.secret().is_none() && store.lookup("anonymous").is_none());
    assert!(anonymous.permit::<ReadObject>("public-a", "k").is_ok());
    assert!(anonymous.permit::<ReadObject>("other", "k").is_err());
    assert!(anonymous.permit::<WriteObject>("public-a", "k").is_err());
    assert!(load("[anonymous]\n").unwrap().anonymous().unwrap().permit::<ReadObject>("b", "k").is_err());
    for (text, expected) in [
        (grants.replace("read", "manage"), "buckets belong to accounts"),
        (grants.replace("actions", "deeds"), "unknown field `deeds`"),
        (key("anonymous"), "is no access key"),
    ] {
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn without_a_signature_only_pages_of_listed_origins_are_answered() {
    let page = |origin| {
        let mut headers = http::HeaderMap::new();
        headers.insert("origin", http::HeaderValue::from_static(origin));
        claviger_s3::cors::CrossOrigin::read(&headers).unwrap().unwrap()
    };
    let anonymous = |text: &str| load(&(key("AAA") + text)).unwrap().anonymous().unwrap();
    let (app, evil) = (page("https://app.example"), page("https://evil.example"));
    assert!(!anonymous("[anonymous]\n").may_answer(&app), "none is listed");
    let listed = anonymous("[anonymous]\norigins = [\"https://app.example\"]\n");
    assert!(listed.may_answer(&app) && !listed.may_answer(&evil));
    assert!(anonymous("[anonymous]\norigins = [\"*\"]\n").may_answer(&evil));
    assert!(load(&key("AAA")).unwrap().lookup("AAA").unwrap().may_answer(&evil), "it has the key");
    let error = load("[anonymous]\norigins = [\"*\", \"https://a/\"]\n").unwrap_err().to_string();
    assert!(error.contains("entry 2 of anonymous.origins is no origin"), "{error}");
}

#[test]
fn without_a_signature_further_names_of_the_gateway_have_to_be_listed() {
    let hosts = |text: &str| load(&(key("AAA") + text)).unwrap().anonymous().unwrap().hosts().to_vec();
    assert!(hosts("[anonymous]\n").is_empty());
    assert_eq!(hosts("[anonymous]\nhosts = [\"s3.internal\", \"store\"]\n"), ["s3.internal", "store"]);
    assert_eq!(hosts("[anonymous]\nhosts = [\"*\"]\n"), ["*"]);
    for bad in ["**", "", "http://a", "a:9000", "A", "a/b"] {
        let error = load(&format!("[anonymous]\nhosts = [\"a\", \"{bad}\"]\n")).unwrap_err().to_string();
        assert!(error.contains("entry 2 of anonymous.hosts is no host name"), "{bad}: {error}");
    }
}

#[test]
fn anonymous_access_ends_with_the_table_that_allowed_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials.toml");
    write(&path, &(key("AAA") + "[anonymous]\n"));
    let store = CredentialStore::load(&path, Vec::new()).unwrap();
    assert!(store.anonymous().is_some());
    write(&path, &(key("AAA") + "upstream_account = \"alice\"\n"));
    assert_eq!(store.reload(true), Reload::Refused, "accounts are those of the start");
    assert!(store.anonymous().is_some());
    write(&path, &key("AAA"));
    assert_eq!(store.reload(true), Reload::Applied);
    assert!(store.anonymous().is_none());
}

#[test]
fn further_accounts_have_names_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("upstream.toml");
    let own = format!("access_key_id = \"AK\"\nsecret_access_key = \"{SECRET}\"\n");
    let account = |name: &str| {
        format!(
            "[[account]]\nname = \"{name}\"\naccess_key_id = \"{name}-key\"\nsecret_access_key = \"{SECRET}\"\n"
        )
    };
    write(&path, &(own.clone() + &account("alice") + &account("bob")));
    let accounts = UpstreamAccounts::load(&path).unwrap();
    assert_eq!(accounts.names(), ["alice", "bob"]);
    assert_eq!(accounts.named["bob"].access_key_id(), "bob-key");
    assert!(!format!("{accounts:?}").contains("s3cr3t"));
    for (text, expected) in [
        (own.clone() + &account("alice") + &account("alice"), ":8: the account name \"alice\" occurs twice"),
        (own.clone() + &account(""), "must be 1 to 64"),
        (own.clone() + &account("a b"), "must be 1 to 64"),
        (own.clone() + &account("alice") + "colour = 1\n", "colour"),
        (account("alice"), "missing field"),
    ] {
        write(&path, &text);
        let error = UpstreamAccounts::load(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("s3cr3t"), "{error}");
    }
}
