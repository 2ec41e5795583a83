//! When operators are lost. Whoever brings enough recovery shares of a root can open everything that was sealed under it
//! anyway; so that is what it takes to enrol an operator where no two operators are left to do it.

use std::net::IpAddr;
use std::sync::Arc;

use claviger_keyapi::enrol::{Certificate, RecoverRequest};
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{Identity, KeyServiceError, Role};
use subtle::ConstantTimeEq as _;

use crate::admission::busy;
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::custody::shamir::ShareOf;
use crate::custody::shamir::{self, Share};
use crate::enrolment::{UNKNOWN_TOKENS, certificate, put_identity};
use crate::keyset::{Keyset, Version};
use crate::service::{Core, Work};
use crate::vault::{IdentityRow, Vault};
use crate::{KeyService, ServiceError};

impl KeyService {
    /// Enrols an operator on the strength of recovery shares, in place of one of the same name. Policy decides as ever what he
    /// may do. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] if locked or if it is no operator's name; [`ServiceError::Share`] if the shares don't give the
    /// root of a version that opens of a keyset.
    pub fn recover_operator(
        &self,
        identity: &Identity,
        csr: Vec<u8>,
        shares: &[Share],
    ) -> Result<Certificate, ServiceError> {
        let info = self.core.local_info()?;
        let work = self.core.recover_operator(&info, identity, &Blob(csr), shares);
        self.core.settle_blocking(work)
    }
}

impl Core {
    /// The same over the network; beside enrolment the one route that takes no certificate.
    pub(crate) fn recover(
        &self,
        info: &RequestInfo,
        source: IpAddr,
        request: &RecoverRequest,
    ) -> Work<Certificate> {
        if !self.attempts.admits(source, info.now_ms) {
            return Work::silent(Err(busy().into()));
        }
        let shares =
            request.shares.iter().map(|text| Share::parse(text.expose())).collect::<Result<Vec<_>, _>>();
        let mut work = match shares {
            Ok(shares) => self.recover_operator(info, &request.identity, &request.csr, &shares),
            Err(error) => Work::silent(Err(error)),
        };
        if work.result.is_err() {
            self.attempts.failed(source, info.now_ms);
            // Strangers fill no log: one record a minute tells how many failed.
            match self.attempts.to_record(info.now_ms) {
                None => work.records.clear(),
                Some(before) => {
                    work.records.iter_mut().for_each(|record| record.add_unrecorded(before, UNKNOWN_TOKENS))
                }
            }
        }
        work
    }

    pub(crate) fn recover_operator(
        &self,
        info: &RequestInfo,
        identity: &Identity,
        csr: &Blob,
        shares: &[Share],
    ) -> Work<Certificate> {
        let mut record = info.record("recover-operator", Outcome::Done);
        record.subject = Some(identity.to_string());
        Work::changing(record, |record| self.try_recover_operator(info, identity, csr, shares, record))
    }

    fn try_recover_operator(
        &self,
        info: &RequestInfo,
        identity: &Identity,
        csr: &Blob,
        shares: &[Share],
        record: &mut Record,
    ) -> Result<Certificate, ServiceError> {
        let vault = self.vault()?;
        if identity.role() != Role::Admin {
            let text = "recovery shares enrol operators; these enrol gateways".to_owned();
            return Err(KeyServiceError::Malformed { text }.into());
        }
        let keyset = check_root(&vault, shares)?;
        record.keyset = Some(keyset.name.clone());
        record.what = Some(format!("by {} recovery shares", shares.len()));
        let turn = self.change(&vault)?;
        let issued = self.issue(&vault, csr, identity, info.now_ms)?;
        let row = IdentityRow::new(identity.clone(), Vec::new(), &issued, info.now_ms, &*self.random)?;
        let replaced =
            vault.active(identity).map(|old| IdentityRow { revoked_ms: Some(info.now_ms), ..(*old).clone() });
        let mut changes = vec![put_identity(&vault, &row)];
        changes.extend(replaced.iter().map(|old| put_identity(&vault, old)));
        self.commit(&turn, changes, std::slice::from_ref(record))?;
        let answer = certificate(&vault, &row, &issued);
        replaced.into_iter().chain([row]).for_each(|row| vault.put_identity(row));
        Ok(answer)
    }
}

/// The shares must give the root that the keyset seals under, or, of one that is only read, the newest that still opens: whoever got
/// hold of shares before a rotation must not make himself an operator with them. Gives whose keyset that is.
fn check_root(vault: &Vault, shares: &[Share]) -> Result<Arc<Keyset>, ServiceError> {
    let first = shares.first().ok_or(ServiceError::Share("none were given"))?;
    let ShareOf::Root { keyset_id, version } = first.of else {
        return Err(ServiceError::Share("these unlock the service; recovery shares are meant"));
    };
    let combined = shamir::combine(shares)?;
    let keyset =
        vault.keyset_by_id(keyset_id.into()).ok_or(ServiceError::Share("of no keyset of this service"))?;
    let counting = keyset.newest().or_else(|| keyset.newest_open().map(|(version, _)| version));
    let root = counting.filter(|counting| counting.number == version).and_then(Version::opens);
    match root {
        Some(root) if bool::from(combined.expose().ct_eq(root.secret().expose())) => Ok(Arc::clone(&keyset)),
        _ => Err(ServiceError::Share("they give no root that a keyset of this service seals under now")),
    }
}
