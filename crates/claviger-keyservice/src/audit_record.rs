//! What a record says. Every field is public information or a name; never a key.

use claviger_keyapi::{Id16, Identity, KeyServiceError, ReleaseError};
use serde::Serialize;

use crate::ledger::Mark;

/// Longest text that a caller can put into one field, in bytes.
pub(crate) const TEXT_LEN_MAX: usize = 1024;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Keys left the service.
    Released,
    /// Something was changed.
    Done,
    /// Refused.
    Refused,
}

/// One record, JSON in the log. `docs/key-service-api.md` lists the actions.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    v: u8,
    time_ms: u64,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    action: &'static str,
    pub(crate) outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keyset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epoch_id: Option<Id16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object_id: Option<Id16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bucket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bucket_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// Whether bucket and key were proved by the object's own key, or only claimed by the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name_verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dest_bucket_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dest_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) purpose: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_behalf_of: Option<String>,
    /// Whom or what it was done to, where none of the other fields says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<String>,
    /// Of which proposal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proposal: Option<String>,
    /// What it is about, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) what: Option<String>,
    /// Rows of the database that changed with it: `kind/id` and the beginning of the new MAC, `-` if the row is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rows: Vec<String>,
    /// Of the log's first record: how long records are kept, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention_s: Option<u64>,
    /// Of a pruning: records before this moment, Unix milliseconds …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before_ms: Option<u64>,
    /// … and before this index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pruned_before: Option<u64>,
    /// Number of the ledger's state after it (`ledger`).
    #[serde(skip_serializing_if = "Option::is_none")]
    state_seq: Option<u64>,
    /// Digest of that state.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
}

/// What all records of one request share.
#[derive(Debug, Clone)]
pub(crate) struct RequestInfo {
    pub(crate) request_id: String,
    pub(crate) identity: Option<Identity>,
    pub(crate) now_ms: u64,
}

impl RequestInfo {
    pub(crate) fn record(&self, action: &'static str, outcome: Outcome) -> Record {
        Record {
            v: 1,
            time_ms: self.now_ms,
            request_id: self.request_id.clone(),
            identity: self.identity.clone(),
            action,
            outcome,
            reason: None,
            keyset: None,
            epoch_id: None,
            object_id: None,
            bucket: None,
            bucket_id: None,
            key: None,
            name_verified: None,
            dest_bucket_id: None,
            dest_key: None,
            purpose: None,
            on_behalf_of: None,
            subject: None,
            proposal: None,
            what: None,
            rows: Vec::new(),
            retention_s: None,
            before_ms: None,
            pruned_before: None,
            state_seq: None,
            state: None,
        }
    }
}

impl Record {
    /// Another record of the same request.
    pub(crate) fn same_request(&self, action: &'static str, outcome: Outcome) -> Self {
        let info = RequestInfo {
            request_id: self.request_id.clone(),
            identity: self.identity.clone(),
            now_ms: self.time_ms,
        };
        info.record(action, outcome)
    }

    /// Who asked, if it was somebody with a certificate.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// What was asked for.
    pub(crate) fn action(&self) -> &'static str {
        self.action
    }

    /// When it happened, Unix milliseconds.
    pub(crate) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Says which state the ledger is in now.
    pub(crate) fn set_state(&mut self, mark: &Mark) {
        self.state_seq = Some(mark.seq);
        self.state = Some(mark.state.clone());
    }

    /// Marks the record as a refusal of an item.
    pub(crate) fn refused(mut self, error: &ReleaseError) -> Self {
        self.outcome = Outcome::Refused;
        self.reason = Some(bounded(&error.to_string()));
        self
    }

    /// Marks the record as a refusal of a whole call.
    pub(crate) fn refused_call(mut self, error: &KeyServiceError) -> Self {
        self.outcome = Outcome::Refused;
        self.reason = Some(bounded(&error.to_string()));
        self
    }

    /// Says that the record stands for more than itself.
    pub(crate) fn add_unrecorded(&mut self, count: u64, what: &str) {
        if count > 0 {
            let more = format!("{count} more {what} since the last such record");
            self.reason =
                Some(self.reason.take().map_or_else(|| more.clone(), |own| format!("{own}; {more}")));
        }
    }

    /// The record's bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Strings, numbers and enums only: there is nothing that could fail.
        serde_json::to_vec(self).expect("a record of plain fields serialises")
    }
}

/// A text from a caller, cut to what a record may hold.
pub(crate) fn bounded(text: &str) -> String {
    let mut end = text.len().min(TEXT_LEN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = format!("{}é", "a".repeat(TEXT_LEN_MAX - 1));
        assert_eq!(bounded(&text).len(), TEXT_LEN_MAX - 1);
        assert_eq!(bounded("short"), "short");
    }
}
