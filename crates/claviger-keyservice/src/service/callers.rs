//! Who asks: known by his certificate, checked against the identities, and asked about again before keys go out.

use std::sync::{Arc, Weak};

use claviger_keyapi::tls::SpkiHash;
use claviger_keyapi::{Id16, Identity, KeyServiceError, Role};

use super::standing::Age;
use super::{Core, tell};
use crate::audit_record::RequestInfo;
use crate::identity::Peer;
use crate::policy::AdminVerb;
use crate::vault::{IdentityRow, Vault};

/// A caller whose certificate was checked against the identities, while the service is unlocked. There is no other way to
/// one of these than [`Core::caller`], and every route but enrolment and status takes one.
pub(crate) struct Caller {
    pub(crate) row: Arc<IdentityRow>,
    /// The key that this connection showed.
    pub(crate) spki: SpkiHash,
    pub(crate) vault: Arc<Vault>,
    pub(crate) info: RequestInfo,
}

/// Whom an answer with keys is for. Asked again when the answer is ready: he may have been revoked, or the service locked,
/// while it was prepared and written down.
pub(crate) struct Addressee {
    vault: Weak<Vault>,
    uid: Id16,
    identity: Identity,
    /// How often something had been frozen, or otherwise stopped, when he asked.
    freezes: u64,
}

impl Caller {
    pub(crate) fn addressee(&self) -> Addressee {
        Addressee {
            vault: Arc::downgrade(&self.vault),
            uid: self.row.uid,
            identity: self.row.identity.clone(),
            freezes: self.vault.freezes.generation(),
        }
    }
}

impl Core {
    /// Whether he has used up a budget, and that is not written down yet.
    pub(crate) fn has_tripped(&self, addressee: &Addressee) -> bool {
        self.vault().is_ok_and(|vault| vault.freezes.is_tripped(&addressee.identity))
    }

    /// Whether an answer with keys may still go out: the service is unlocked as it was, he is not revoked, and nothing was frozen or
    /// came into quarantine.
    pub(crate) fn may_have(&self, addressee: &Addressee) -> Result<(), KeyServiceError> {
        self.store.check_ours().map_err(|error| tell(&error))?;
        let vault = self.still_counts(addressee)?;
        if vault.freezes.generation() != addressee.freezes {
            // Something was stopped meanwhile: he, or perhaps the keyset or an epoch that this answer is about. Asked again, it is decided again.
            return Err(match vault.freezes.stops(&addressee.identity, None) {
                Some(text) => KeyServiceError::Frozen { text },
                None => crate::admission::busy(),
            });
        }
        Ok(())
    }

    /// Whether the service is unlocked as it was when he asked, and he is not revoked. For what is handed out once this is all that is
    /// left to ask when it was committed: what is frozen was asked in the turn of the change, and a freeze, being one itself, came
    /// before it or after it.
    pub(crate) fn still_counts(&self, addressee: &Addressee) -> Result<Arc<Vault>, KeyServiceError> {
        let vault = self.vault()?;
        if !std::ptr::eq(Arc::as_ptr(&vault), addressee.vault.as_ptr()) {
            return Err(KeyServiceError::Locked);
        }
        check_unrevoked(&vault, addressee.uid)?;
        Ok(vault)
    }

    /// Whether it is certain that no other replica serves gateways: one that does may have revoked, frozen and bound since.
    ///
    /// # Errors
    /// [`KeyServiceError::Unavailable`]: a gateway has to ask elsewhere.
    pub(crate) fn check_serves(&self) -> Result<(), KeyServiceError> {
        self.store.check_ours().map_err(|error| error.outward())
    }

    /// The only way to a [`Caller`]: the certificate's key must be the enrolled one, the identity unrevoked, the date good.
    /// The date is checked again here because a connection can outlive its certificate. For a gateway there is none, on no route and no
    /// stream, unless this is for certain [the one that serves](Self::check_serves).
    pub(crate) fn caller(
        &self,
        peer: Option<&Peer>,
        role: Role,
        mut info: RequestInfo,
    ) -> Result<Caller, KeyServiceError> {
        let vault = self.vault()?;
        let rows = vault.identities();
        let row = self.authenticate(peer, role, info.now_ms, rows.iter().map(Arc::as_ref))?;
        let row = vault.identity(row.uid).ok_or(KeyServiceError::Internal)?;
        if role == Role::Gateway {
            self.check_serves()?;
        }
        let spki = peer.map_or(row.spki, |peer| peer.spki);
        info.identity = Some(row.identity.clone());
        Ok(Caller { row, spki, vault, info })
    }

    /// Someone who is enrolled in this role, while the service is locked: enough for an operator to ask for the status and to unlock,
    /// and to show a checkpoint. The rows' MACs can't be checked yet; unlocking checks them.
    pub(crate) async fn enrolled_of_locked(
        self: &Arc<Self>,
        peer: Option<&Peer>,
        role: Role,
        now_ms: u64,
        age: Age,
    ) -> Result<Identity, KeyServiceError> {
        let rows = self.roll_for(role, age).await?;
        Ok(self.authenticate(peer, role, now_ms, rows.iter().map(Arc::as_ref))?.identity.clone())
    }

    fn authenticate<'a>(
        &self,
        peer: Option<&Peer>,
        role: Role,
        now_ms: u64,
        rows: impl Iterator<Item = &'a IdentityRow>,
    ) -> Result<&'a IdentityRow, KeyServiceError> {
        let refuse = |text: &str| KeyServiceError::Unauthenticated { text: text.to_owned() };
        let peer = peer.ok_or_else(|| refuse("no client certificate"))?;
        if peer.not_after_ms <= now_ms {
            return Err(refuse("the certificate has expired"));
        }
        let row = rows
            .filter(|row| {
                row.identity == peer.identity
                    && (row.spki == peer.spki || row.previous_spki == Some(peer.spki))
            })
            // Should one key ever stand in two rows, the one that is not revoked counts.
            .min_by_key(|row| row.revoked_ms.is_some())
            .ok_or_else(|| refuse("the certificate's key is not the enrolled one"))?;
        if row.revoked_ms.is_some() {
            return Err(refuse("the identity is revoked"));
        }
        if row.identity.role() != role {
            return Err(KeyServiceError::Denied {
                text: format!("{} is of the wrong kind for this route", row.identity),
            });
        }
        Ok(row)
    }

    /// Whether policy grants this to the operator.
    pub(crate) fn permit_operator(
        &self,
        identity: &Identity,
        verb: AdminVerb,
    ) -> Result<(), KeyServiceError> {
        if self.policy.load().allows_operator(identity, verb) {
            return Ok(());
        }
        Err(KeyServiceError::Denied { text: format!("{identity} lacks the operator verb {verb:?}") })
    }
}

pub(super) fn check_unrevoked(vault: &Vault, uid: Id16) -> Result<(), KeyServiceError> {
    if vault.identity(uid).is_some_and(|row| row.revoked_ms.is_none()) {
        return Ok(());
    }
    Err(KeyServiceError::Unauthenticated { text: "the identity is revoked".to_owned() })
}
