//! Enrolment: one-time tokens, first certificates, renewal, revocation.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_keyapi::admin::EnrolTokenAnswer;
use claviger_keyapi::enrol::{Certificate, EnrolRequest, EnrolToken, RenewRequest, TOKEN_TTL_MS_MAX};
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::tls::SpkiHash;
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{Id16, Identity, KeyServiceError, Role};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::ServiceError;
use crate::admin::keysets::check_keyset_name;
use crate::admission::busy;
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::identity::Issued;
use crate::service::{Caller, Core, Work};
use crate::store::{Change, Kind};
use crate::vault::{IdentityRow, TokenRow, Vault};

/// What was ordered.
pub(crate) struct TokenOrder {
    pub(crate) identity: Identity,
    pub(crate) keysets: Vec<String>,
    pub(crate) ttl_s: u32,
    pub(crate) replace: bool,
    pub(crate) ordered_by: Option<Identity>,
    pub(crate) approved_by: Option<Identity>,
}

/// Most keysets of one gateway.
const KEYSETS_MAX: usize = 16;

/// A token, ready to be committed.
pub(crate) struct PreparedToken {
    pub(crate) changes: Vec<Change>,
    id: String,
    row: TokenRow,
    expired: BTreeSet<String>,
    answer: EnrolTokenAnswer,
}

impl PreparedToken {
    /// Memory follows what was committed.
    pub(crate) fn remember(self, vault: &Vault) -> EnrolTokenAnswer {
        let mut tokens = vault.tokens();
        tokens.retain(|id, _| !self.expired.contains(id));
        tokens.insert(self.id, self.row);
        self.answer
    }
}

/// What a record of failed attempts stands for besides itself.
pub(crate) const UNKNOWN_TOKENS: &str = "failed with unknown tokens";

impl Core {
    /// A token for someone to enrol with. The order has been checked.
    pub(crate) fn prepare_token(
        &self,
        vault: &Vault,
        info: &RequestInfo,
        order: TokenOrder,
    ) -> Result<PreparedToken, ServiceError> {
        let mut secret = Zeroizing::new([0u8; 32]);
        self.random.fill(&mut secret[..])?;
        let secret = SecretText::new(URL_SAFE_NO_PAD.encode(&secret[..]));
        let expires_ms = info.now_ms.saturating_add((u64::from(order.ttl_s) * 1000).min(TOKEN_TTL_MS_MAX));
        let row = TokenRow {
            identity: order.identity.clone(),
            keysets: order.keysets.clone(),
            expires_ms,
            replace: order.replace,
            ordered_by: order.ordered_by,
            approved_by: order.approved_by,
        };
        let id = token_id(secret.expose());
        let expired = tokens_where(vault, |token| token.expires_ms <= info.now_ms);
        let mut changes = vec![Change::Put(Kind::Token, vault.row(Kind::Token, &id, &row))];
        changes.extend(expired.iter().map(|id| Change::Delete(Kind::Token, id.clone())));
        let ca_spki_sha256 =
            SpkiHash::of_certificate(vault.ca()).ok_or(ServiceError::Damaged("CA certificate"))?;
        let token = EnrolToken {
            address: self.config.advertise.clone(),
            ca_spki_sha256,
            identity: order.identity,
            keysets: order.keysets,
            expires_ms,
            secret,
        };
        let answer = EnrolTokenAnswer { token: token.to_text(), expires_ms };
        Ok(PreparedToken { changes, id, row, expired, answer })
    }

    /// Whether an order makes sense, and whether these operators may give it: whoever makes an operator must himself hold every
    /// verb that policy gives to him. A token is as good as the identity it is for.
    pub(crate) fn check_order(
        &self,
        vault: &Vault,
        order: &TokenOrder,
        operators: &[&Identity],
    ) -> Result<(), KeyServiceError> {
        check_order(vault, order)?;
        let policy = self.policy.load();
        for maker in operators {
            if order.identity.role() == Role::Admin && !policy.operator_covers(maker, &order.identity) {
                let text = format!("policy gives {} verbs that {maker} does not hold", order.identity);
                return Err(KeyServiceError::Denied { text });
            }
        }
        Ok(())
    }

    /// The one route that takes no certificate.
    pub(crate) fn enrol(
        &self,
        info: &RequestInfo,
        source: IpAddr,
        request: &EnrolRequest,
    ) -> Work<Certificate> {
        if !self.attempts.admits(source, info.now_ms) {
            return Work::silent(Err(busy().into()));
        }
        let vault = match self.vault() {
            Ok(vault) => vault,
            Err(locked) => return Work::silent(Err(locked.into())),
        };
        let known = vault.tokens().contains_key(&token_id(request.secret.expose()));
        let mut record = info.record("enrol", Outcome::Done);
        record.subject = Some(request.identity.to_string());
        let mut work = Work::changing(record, |record| self.try_enrol(&vault, info, request, record));
        if work.result.is_err() {
            self.attempts.failed(source, info.now_ms);
        }
        if !known {
            match self.attempts.to_record(info.now_ms) {
                None => work.records.clear(),
                Some(before) => {
                    work.records.iter_mut().for_each(|record| record.add_unrecorded(before, UNKNOWN_TOKENS))
                }
            }
        }
        work
    }

    /// The record of failed attempts that got none when they came.
    pub(crate) fn unrecorded_attempts(&self) -> Option<Record> {
        let count = self.attempts.left_over(self.clock.now_ms())?;
        let mut record = self.local_info().ok()?.record("enrol", Outcome::Refused);
        record.add_unrecorded(count, UNKNOWN_TOKENS);
        Some(record)
    }

    fn try_enrol(
        &self,
        vault: &Arc<Vault>,
        info: &RequestInfo,
        request: &EnrolRequest,
        record: &Record,
    ) -> Result<Certificate, ServiceError> {
        let turn = self.change(vault)?;
        let id = token_id(request.secret.expose());
        let wrong = || KeyServiceError::Unauthenticated {
            text: "the enrolment token is unknown, used, expired or for someone else".to_owned(),
        };
        let token = vault.tokens().get(&id).cloned().ok_or_else(wrong)?;
        if token.identity != request.identity || token.expires_ms <= info.now_ms {
            return Err(wrong().into());
        }
        let old = vault.active(&token.identity);
        if old.is_some() && !token.replace {
            return Err(enrolled_already(&token.identity).into());
        }
        let issued = self.issue(vault, &request.csr, &token.identity, info.now_ms)?;
        let row = IdentityRow::new(token.identity, token.keysets, &issued, info.now_ms, &*self.random)?;
        let replaced = old.map(|old| IdentityRow { revoked_ms: Some(info.now_ms), ..(*old).clone() });
        // Token, old and new identity in one transaction: a token is good once, whatever happens in between.
        let mut changes = vec![Change::Delete(Kind::Token, id.clone()), put_identity(vault, &row)];
        changes.extend(replaced.iter().map(|old| put_identity(vault, old)));
        self.commit(&turn, changes, std::slice::from_ref(record))?;
        vault.tokens().remove(&id);
        let answer = certificate(vault, &row, &issued);
        replaced.into_iter().chain([row]).for_each(|row| vault.put_identity(row));
        Ok(answer)
    }

    /// A new certificate for a new key. The key before stays good until the next renewal. Also for who is frozen: he has to be there
    /// when two operators thaw him. One a minute: everybody else waits for each, and each is a record.
    pub(crate) fn renew(&self, caller: &Caller, request: &RenewRequest) -> Work<Certificate> {
        if let Err(busy) = self.admission.renewals.take(caller.row.uid, self.clock.boot_ms()) {
            return Work::silent(Err(busy.into()));
        }
        let record = caller.info.record("renew", Outcome::Done);
        Work::changing(record, |record| self.try_renew(caller, request, record))
    }

    fn try_renew(
        &self,
        caller: &Caller,
        request: &RenewRequest,
        record: &Record,
    ) -> Result<Certificate, ServiceError> {
        let turn = self.change_as(caller)?;
        let current = caller.vault.identity(caller.row.uid).ok_or(ServiceError::Damaged("identity"))?;
        let issued = self.issue(&caller.vault, &request.csr, &current.identity, caller.info.now_ms)?;
        let row = IdentityRow {
            spki: issued.spki,
            // The key that asked, not the newest: if answers get lost the caller still has this one.
            previous_spki: Some(caller.spki),
            certificate_until_ms: issued.not_after_ms,
            ..(*current).clone()
        };
        self.commit(&turn, vec![put_identity(&caller.vault, &row)], std::slice::from_ref(record))?;
        let answer = certificate(&caller.vault, &row, &issued);
        caller.vault.put_identity(row);
        Ok(answer)
    }

    /// From now on the identity's certificates open nothing, and its epochs that were not registered are refused.
    pub(crate) fn revoke(&self, caller: &Caller, identity: &Identity) -> Work<()> {
        let mut record = caller.info.record("revoke", Outcome::Done);
        record.subject = Some(identity.to_string());
        Work::changing(record, |record| self.try_revoke(caller, identity, record))
    }

    fn try_revoke(&self, caller: &Caller, identity: &Identity, record: &Record) -> Result<(), ServiceError> {
        let turn = self.change_as(caller)?;
        let row = caller
            .vault
            .active(identity)
            .ok_or_else(|| KeyServiceError::Conflict { text: format!("{identity} is not enrolled") })?;
        let last_operator = identity.role() == Role::Admin
            && !caller.vault.identities().iter().any(|other| {
                other.identity.role() == Role::Admin && other.revoked_ms.is_none() && other.uid != row.uid
            });
        if last_operator {
            return Err(KeyServiceError::Conflict { text: format!("{identity} is the last operator") }.into());
        }
        let row = IdentityRow { revoked_ms: Some(caller.info.now_ms), ..(*row).clone() };
        // Tokens for him would let him in again, tokens and proposals by him whomever or whatever he chose.
        let tokens = tokens_where(&caller.vault, |token| {
            let involved = [Some(&token.identity), token.ordered_by.as_ref(), token.approved_by.as_ref()];
            involved.contains(&Some(identity))
        });
        let proposals: Vec<String> = {
            let proposals = caller.vault.proposals();
            proposals.values().filter(|proposal| proposal.involves(row.uid)).map(|p| p.id.clone()).collect()
        };
        let mut changes = vec![put_identity(&caller.vault, &row)];
        changes.extend(tokens.iter().map(|id| Change::Delete(Kind::Token, id.clone())));
        changes.extend(proposals.iter().map(|id| Change::Delete(Kind::Proposal, id.clone())));
        self.commit(&turn, changes, std::slice::from_ref(record))?;
        caller.vault.put_identity(row);
        caller.vault.tokens().retain(|id, _| !tokens.contains(id));
        caller.vault.proposals().retain(|id, _| !proposals.contains(id));
        Ok(())
    }

    pub(crate) fn issue(
        &self,
        vault: &Vault,
        csr: &Blob,
        identity: &Identity,
        now_ms: u64,
    ) -> Result<Issued, ServiceError> {
        let malformed = |_| KeyServiceError::Malformed { text: "the certificate request".to_owned() };
        Ok(vault.authority.issue_client(&csr.0, identity, now_ms, &*self.random).map_err(malformed)?)
    }
}

pub(crate) fn certificate(vault: &Vault, row: &IdentityRow, issued: &Issued) -> Certificate {
    Certificate {
        certificate: Blob(issued.certificate.to_vec()),
        ca: Blob(vault.ca().to_vec()),
        gateway_id: if row.identity.role() == Role::Gateway { row.uid } else { Id16([0; 16]) },
        not_before_ms: issued.not_before_ms,
        not_after_ms: issued.not_after_ms,
    }
}

fn tokens_where(vault: &Vault, is_meant: impl Fn(&TokenRow) -> bool) -> BTreeSet<String> {
    vault.tokens().iter().filter(|(_, token)| is_meant(token)).map(|(id, _)| id.clone()).collect()
}

impl<T> Work<T> {
    /// If the work failed, its records tell of a refusal.
    pub(crate) fn refused_if_failed(self) -> Self {
        match &self.result {
            Ok(_) => self,
            Err(error) => {
                let refusal = error.outward();
                let records =
                    self.records.into_iter().map(|record: Record| record.refused_call(&refusal)).collect();
                Self::new(self.result, records)
            }
        }
    }
}

pub(crate) fn put_identity(vault: &Vault, row: &IdentityRow) -> Change {
    Change::Put(Kind::Identity, vault.row(Kind::Identity, &row.uid.to_string(), row))
}

fn check_order(vault: &Vault, order: &TokenOrder) -> Result<(), KeyServiceError> {
    // First what bounds the texts: the names go into the audit log and into the refusal.
    if order.keysets.len() > KEYSETS_MAX {
        return Err(KeyServiceError::Malformed { text: format!("more than {KEYSETS_MAX} keysets") });
    }
    order.keysets.iter().try_for_each(|name| check_keyset_name(name))?;
    if order.ttl_s == 0 || u64::from(order.ttl_s) * 1000 > TOKEN_TTL_MS_MAX {
        return Err(KeyServiceError::Malformed { text: "a token lives 1 to 3600 seconds".to_owned() });
    }
    let is_gateway = order.identity.role() == Role::Gateway;
    if is_gateway == order.keysets.is_empty() {
        let text = "a gateway is enrolled for at least one keyset, an operator for none".to_owned();
        return Err(KeyServiceError::Keyset { text });
    }
    if let Some(unknown) = order.keysets.iter().find(|name| vault.keyset(name).is_none_or(|k| !k.is_proved()))
    {
        return Err(KeyServiceError::Keyset { text: format!("there is no active keyset \"{unknown}\"") });
    }
    if vault.active(&order.identity).is_some() && !order.replace {
        return Err(enrolled_already(&order.identity));
    }
    Ok(())
}

fn enrolled_already(identity: &Identity) -> KeyServiceError {
    KeyServiceError::Conflict {
        text: format!("{identity} is enrolled already; revoke it first, or make the proposal with --replace"),
    }
}

/// Only the hash of a token's secret is kept; finding it by hash compares nothing secret byte by byte.
fn token_id(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}
