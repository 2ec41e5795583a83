//! The two files of secrets that the demonstration's gateway reads: who may ask, and in whose name it asks the store.

use anyhow::Result;
use serde::Serialize;

use super::folder::KeyPair;
use super::upstream_file::Accounts;

const EVERYTHING: &[&str] = &["read", "write", "delete", "list", "manage"];
/// Buckets belong to accounts.
const ANONYMOUS: &[&str] = &["read", "write", "delete", "list"];

/// `credentials.toml` of a gateway.
#[derive(Serialize)]
struct AccessKeys<'a> {
    key: Vec<Key<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anonymous: Option<Anonymous>,
}

#[derive(Serialize)]
struct Key<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_account: Option<String>,
    allow: [Allow; 1],
}

#[derive(Serialize)]
struct Anonymous {
    origins: [&'static str; 1],
    hosts: [&'static str; 1],
    allow: [Allow; 1],
}

#[derive(Serialize)]
struct Allow {
    buckets: [&'static str; 1],
    actions: &'static [&'static str],
}

/// The gateway's file of accounts.
#[derive(Serialize)]
struct UpstreamAccounts<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
    account: Vec<Account<'a>>,
}

#[derive(Serialize)]
struct Account<'a> {
    name: String,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
}

/// The access keys, each of which may do everything: the demonstration's own and, where the store is the user's, the
/// keys of its accounts as they are. So a user changes one URL and nothing else. With `anonymous` requests without a
/// signature are let in too, from pages of any origin that the store's CORS rules allow and under whatever name the demo
/// is called, and the store decides.
///
/// # Errors
/// When TOML can't hold it.
pub(super) fn access_keys(user: &KeyPair, accounts: Option<&Accounts>, anonymous: bool) -> Result<String> {
    let mut key = vec![Key::new(user, None)];
    for (number, account) in accounts.iter().flat_map(|accounts| accounts.numbered()) {
        // One key may stand in several profiles; the first one counts.
        if !key.iter().any(|other| other.access_key_id == account.access_key_id) {
            key.push(Key::new(account, number.map(account_name)));
        }
    }
    let allow = [Allow { buckets: ["*"], actions: ANONYMOUS }];
    let anonymous = anonymous.then_some(Anonymous { origins: ["*"], hosts: ["*"], allow });
    Ok(toml::to_string(&AccessKeys { key, anonymous })?)
}

/// The accounts at the store, for the gateway.
///
/// # Errors
/// When TOML can't hold it.
pub(super) fn upstream_accounts(accounts: &Accounts) -> Result<String> {
    let account = accounts.numbered().filter_map(|(number, pair)| {
        Some(Account {
            name: account_name(number?),
            access_key_id: &pair.access_key_id,
            secret_access_key: &pair.secret_access_key,
            session_token: pair.session_token.as_deref(),
        })
    });
    Ok(toml::to_string(&UpstreamAccounts {
        access_key_id: &accounts.own.access_key_id,
        secret_access_key: &accounts.own.secret_access_key,
        session_token: accounts.own.session_token.as_deref(),
        account: account.collect(),
    })?)
}

/// Names of profiles may hold anything.
fn account_name(number: usize) -> String {
    format!("account-{number}")
}

impl Accounts {
    /// All of them; the gateway's own without a number.
    fn numbered(&self) -> impl Iterator<Item = (Option<usize>, &KeyPair)> {
        let others = self.others.iter().enumerate().map(|(number, pair)| (Some(number), pair));
        std::iter::once((None, &self.own)).chain(others)
    }
}

impl<'a> Key<'a> {
    fn new(pair: &'a KeyPair, upstream_account: Option<String>) -> Self {
        Self {
            access_key_id: &pair.access_key_id,
            secret_access_key: &pair.secret_access_key,
            session_token: pair.session_token.as_deref(),
            upstream_account,
            allow: [Allow { buckets: ["*"], actions: EVERYTHING }],
        }
    }
}

#[cfg(test)]
mod tests {
    use claviger_gateway::credentials::{CredentialStore, UpstreamAccounts};

    use super::super::folder::write_private;
    use super::*;

    fn pair(id: &str, token: Option<&str>) -> KeyPair {
        KeyPair {
            access_key_id: id.to_owned(),
            secret_access_key: "a\"b\\c'd/e+f=0123456789".to_owned(),
            session_token: token.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_written_is_what_a_gateway_reads() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = Accounts {
            own: pair("OWN", Some("t")),
            others: vec![pair("ALICE", Some("u")), pair("OWN", None), pair("BOB", None)],
        };
        let path = folder.path().join("upstream.toml");
        write_private(&path, &upstream_accounts(&accounts).unwrap()).unwrap();
        let read = UpstreamAccounts::load(&path).unwrap();
        assert_eq!((read.own.access_key_id(), read.own.session_token()), ("OWN", Some("t")));
        assert_eq!(read.named["account-0"].session_token(), Some("u"));
        let path = folder.path().join("credentials.toml");
        write_private(&path, &access_keys(&pair("DEMO", None), Some(&accounts), true).unwrap()).unwrap();
        let store = CredentialStore::load(&path, read.names()).unwrap();
        assert_eq!(store.len(), 4);
        for id in ["DEMO", "OWN", "ALICE", "BOB"] {
            assert!(store.lookup(id).unwrap().may_see_bucket("any"), "{id}");
        }
        assert!(store.lookup("ALICE").unwrap().session_token().unwrap().matches("u"));
        assert!(store.lookup("DEMO").unwrap().session_token().is_none());
        assert!(store.anonymous().unwrap().may_see_bucket("any"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("[anonymous]\norigins = [\"*\"]\nhosts = [\"*\"]\n"), "{text}");
    }

    #[test]
    fn nobody_is_let_in_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        write_private(&path, &access_keys(&pair("DEMO", None), None, false).unwrap()).unwrap();
        let store = CredentialStore::load(&path, Vec::new()).unwrap();
        assert!(store.anonymous().is_none() && store.len() == 1);
    }
}
