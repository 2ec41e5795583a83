//! Two operators give a keyset a new version. Its root is drawn when it is collected and kept in memory only; it becomes a
//! version once all of its recovery shares came back, gave the root and opened a test epoch.

use std::sync::Arc;

use claviger_format::{Root, RootSecret};
use claviger_keyapi::admin::KeysetShares;
use claviger_keyapi::proposals::Collected;
use claviger_keyapi::secret::SecretText;

use super::conflict;
use super::custody::{What, check_handed_out, unknown};
use crate::ServiceError;
use crate::admin::keysets::{check_shares, fingerprint_text};
use crate::audit_record::{Outcome, Record};
use crate::custody::shamir::{self, Share};
use crate::keyset::{Keyset, VERSIONS_MAX, VersionRow, keyset_change};
use crate::ledger::Turn;
use crate::service::Core;

impl Core {
    /// A root of its own, never derived from another, and its shares.
    pub(super) fn new_version(
        &self,
        turn: &Turn<'_>,
        keyset: &str,
        (threshold, count): (u8, u8),
    ) -> Result<(What, Collected), ServiceError> {
        let (keyset, number) = next_version(turn, keyset)?;
        let root = Root::new(RootSecret::draw(&*self.random)?, keyset.id, number);
        let shares = shamir::split(root.secret(), keyset.id, number, threshold, count, &*self.random)?;
        let set = shares.first().map(Share::set_text).unwrap_or_default();
        let lines = shares.iter().map(|share| SecretText::new(share.to_line().to_string())).collect();
        let collected = Collected::Shares(KeysetShares { keyset_id: keyset.public_id(), shares: lines });
        Ok((What::Version { root, set }, collected))
    }

    /// The shares came back: the version becomes active, those before it are retired.
    pub(super) fn add_version(
        &self,
        turn: &Turn<'_>,
        (root, set): (&Root, &str),
        (threshold, count): (u8, u8),
        secrets: &[SecretText],
        record: &Record,
    ) -> Result<(), ServiceError> {
        let vault = &turn.vault;
        let keyset = vault.keyset_by_id(root.keyset_id().into());
        let keyset = keyset.ok_or_else(|| unknown("there is no such keyset"))?;
        let shares = secrets.iter().map(|text| Share::parse(text.expose())).collect::<Result<Vec<_>, _>>()?;
        check_handed_out(&shares, set, threshold)?;
        check_shares(root, count, &shares, &*self.random)?;
        let mut row = self.stored_keyset(vault, &keyset)?;
        if next_number(&keyset)? != root.version() {
            return Err(conflict("the keyset was given another new version meanwhile; propose it again"));
        }
        let retired = row.retire(record.time_ms());
        let mut rotated = record.same_request("rotate", Outcome::Done);
        rotated.keyset = Some(keyset.name.clone());
        rotated.what = Some(format!(
            "version {}, root {}, any {threshold} of the {count} shares of set {}; retired: {retired:?}",
            root.version(),
            fingerprint_text(&root.public_key()?),
            set
        ));
        let version = VersionRow::new(&vault.master, root, (threshold, count), &*self.random)?;
        row.versions.push(VersionRow { is_proved: true, set: Some(set.to_owned()), ..version });
        self.commit(turn, vec![keyset_change(&vault.master, &row)], &[record.clone(), rotated])?;
        vault.put_keyset(row)
    }
}

/// The keyset and the number that its next version would have.
pub(super) fn next_version(turn: &Turn<'_>, keyset: &str) -> Result<(Arc<Keyset>, u32), ServiceError> {
    let keyset = turn.vault.keyset(keyset).ok_or_else(|| unknown("there is no such keyset"))?;
    if !keyset.is_proved() {
        return Err(conflict("the keyset's first recovery shares never came back; create it again"));
    }
    if keyset.versions.len() >= VERSIONS_MAX {
        return Err(conflict(&format!("a keyset has at most {VERSIONS_MAX} versions")));
    }
    let number = next_number(&keyset)?;
    Ok((keyset, number))
}

fn next_number(keyset: &Keyset) -> Result<u32, ServiceError> {
    let last = keyset.versions.last().ok_or(ServiceError::Damaged("keyset"))?;
    last.number.checked_add(1).ok_or(ServiceError::Damaged("keyset"))
}
