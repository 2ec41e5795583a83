//! From one unlock method to another, or to new shares of the same: the new wrap is made, its secret goes out, and only when that
//! came back and opened the wrap does it count.
//!
//! The database never holds a moment without a wrap that counts. First both wraps lie there, then the row names the new one (a
//! change of the ledger), then the old one is removed; an unlock after a crash in between finds the one that the row names, and
//! finishes.

use claviger_format::Random;
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::wire::Blob;
use subtle::ConstantTimeEq as _;

use super::hsm::{self, HsmConfig};
use super::{Stored, Wrap, passphrase, quorum, store_wraps};
use crate::ServiceError;
use crate::custody::share::Share;
use crate::store::Store;

/// A wrap that was made and does not count yet.
pub(crate) struct Prepared {
    wrap: Wrap,
}

impl Prepared {
    /// Under a fresh passphrase, which is returned.
    pub(crate) fn passphrase(
        master: &[u8; 32],
        random: &dyn Random,
    ) -> Result<(Self, Vec<SecretText>), ServiceError> {
        let text = passphrase::generate(random)?;
        let wrapped = Blob(passphrase::wrap(master, &text, random)?);
        Ok((Self { wrap: Wrap::Passphrase { wrapped } }, vec![SecretText::new(text.to_string())]))
    }

    /// Under a fresh key, whose shares are returned as lines.
    pub(crate) fn quorum(
        master: &[u8; 32],
        threshold_and_count: (u8, u8),
        random: &dyn Random,
    ) -> Result<(Self, Vec<SecretText>), ServiceError> {
        let (wrap, shares) = quorum::wrap(master, threshold_and_count, random)?;
        let lines = shares.iter().map(|share| SecretText::new(share.to_line().to_string())).collect();
        Ok((Self { wrap: Wrap::Quorum(wrap) }, lines))
    }

    /// Under the HSM's key, proved at once: nothing goes out.
    pub(crate) fn pkcs11(
        master: &[u8; 32],
        config: &HsmConfig,
        random: &dyn Random,
    ) -> Result<Self, ServiceError> {
        let wrap = hsm::wrap(config, master, random)?;
        proved(master, &*hsm::unwrap(config, &wrap)?)?;
        Ok(Self { wrap: Wrap::Pkcs11(wrap) })
    }

    /// Proves the wrap with what was read back: the passphrase, or all shares.
    ///
    /// # Errors
    /// [`ServiceError::Share`], [`ServiceError::WrongPassphrase`] if that does not open it.
    pub(crate) fn prove(&self, master: &[u8; 32], read_back: &[SecretText]) -> Result<(), ServiceError> {
        match (&self.wrap, read_back) {
            (Wrap::Passphrase { wrapped }, [text]) => {
                proved(master, &*passphrase::unwrap(&wrapped.0, text.expose())?)
            }
            (Wrap::Quorum(wrap), texts) => {
                let shares =
                    texts.iter().map(|text| Share::parse(text.expose())).collect::<Result<Vec<_>, _>>()?;
                shares.iter().try_for_each(|share| wrap.check(share))?;
                let mut indexes: Vec<u8> = shares.iter().map(|share| share.index).collect();
                indexes.sort_unstable();
                indexes.dedup();
                if indexes.len() != usize::from(wrap.count) || shares.len() != indexes.len() {
                    return Err(ServiceError::Share("all of them must be read back, each once"));
                }
                let quorum =
                    shares.get(..usize::from(wrap.threshold)).ok_or(ServiceError::Share("too few"))?;
                for together in [shares.as_slice(), quorum] {
                    proved(master, &*wrap.unwrap(together)?)?;
                }
                Ok(())
            }
            _ => Err(ServiceError::WrongPassphrase),
        }
    }

    pub(crate) fn wrap(&self) -> &Wrap {
        &self.wrap
    }

    /// Puts the wrap beside the one that counts. The caller then commits the row, and calls [`settle`].
    pub(crate) fn stage(&self, store: &dyn Store) -> Result<(), ServiceError> {
        let counts = Stored::load(store)?;
        store_wraps(store, &[&counts.wrap, &self.wrap])
    }
}

/// Removes every wrap but the one that counts. Fine if there is no other.
pub(crate) fn settle(store: &dyn Store) -> Result<(), ServiceError> {
    if super::stored_count(store)? > 1 {
        store_wraps(store, &[&Stored::load(store)?.wrap])?;
    }
    Ok(())
}

fn proved(master: &[u8; 32], opened: &[u8; 32]) -> Result<(), ServiceError> {
    if bool::from(master.ct_eq(opened)) { Ok(()) } else { Err(ServiceError::Damaged("wrapped master")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::Master;
    use crate::custody::unlock::{META_MASTER, Unwrapped};
    use crate::ledger::Rows;
    use crate::store::Kind;
    use crate::store::sqlite::SqliteStore;
    use crate::testing::random;
    use zeroize::Zeroizing;

    const MASTER: [u8; 32] = [9; 32];

    /// A service of before there was a choice: a bare wrap, and no row.
    fn old_service(folder: &std::path::Path) -> (SqliteStore, Zeroizing<String>) {
        let store = SqliteStore::open(&folder.join("db")).unwrap();
        let text = passphrase::generate(&*random()).unwrap();
        store.set_meta(META_MASTER, &passphrase::wrap(&MASTER, &text, &*random()).unwrap()).unwrap();
        (store, text)
    }

    fn unlock(store: &dyn Store, texts: &[SecretText]) -> Result<Unwrapped, ServiceError> {
        let stored = Stored::load(store)?;
        let secret = match &stored.wrap {
            Wrap::Passphrase { wrapped } => passphrase::unwrap(&wrapped.0, texts[0].expose())?,
            Wrap::Quorum(wrap) => {
                let shares: Vec<_> = texts.iter().map(|text| Share::parse(text.expose()).unwrap()).collect();
                wrap.unwrap(&shares)?
            }
            Wrap::Pkcs11(_) => unreachable!("no HSM here"),
        };
        let opened = stored.opened(secret);
        opened.verify(&Rows::read(&Master::new(&opened.secret), store, &[Kind::Service])?, store)?;
        Ok(opened)
    }

    #[test]
    fn wherever_a_change_is_cut_short_exactly_one_method_unlocks() {
        let folder = tempfile::tempdir().unwrap();
        let (store, old) = old_service(folder.path());
        let old = [SecretText::new(old.to_string())];
        let (prepared, new) = Prepared::quorum(&MASTER, (2, 3), &*random()).unwrap();
        prepared.prove(&MASTER, &new).unwrap();
        assert!(unlock(&store, &old).is_ok(), "before");
        prepared.stage(&store).unwrap();
        assert!(unlock(&store, &old).is_ok(), "staged, not committed");
        store.apply(&[prepared.wrap().change(&Master::new(&MASTER)).unwrap()]).unwrap();
        assert!(unlock(&store, &new[..2]).is_ok(), "committed, not settled");
        settle(&store).unwrap();
        settle(&store).unwrap();
        assert!(unlock(&store, &new[1..]).is_ok(), "settled");
        let bytes = store.meta(META_MASTER).unwrap().unwrap();
        assert!(!String::from_utf8(bytes).unwrap().contains("passphrase"), "the old wrap is gone");
    }

    #[test]
    fn a_wrap_from_an_older_database_does_not_count_although_it_opens() {
        let folder = tempfile::tempdir().unwrap();
        let (store, old) = old_service(folder.path());
        let before = store.meta(META_MASTER).unwrap().unwrap();
        let (prepared, _) = Prepared::quorum(&MASTER, (2, 2), &*random()).unwrap();
        prepared.stage(&store).unwrap();
        store.apply(&[prepared.wrap().change(&Master::new(&MASTER)).unwrap()]).unwrap();
        settle(&store).unwrap();
        store.set_meta(META_MASTER, &before).unwrap();
        let old = [SecretText::new(old.to_string())];
        assert!(unlock(&store, &old).is_err());
        let list = serde_json::to_vec(&[Wrap::Passphrase { wrapped: Blob(before) }]).unwrap();
        store.set_meta(META_MASTER, &list).unwrap();
        assert!(matches!(unlock(&store, &old), Err(ServiceError::Tampered { kind: "service", .. })));
    }

    #[test]
    fn a_new_secret_counts_only_once_all_of_it_came_back() {
        let (prepared, mut texts) = Prepared::quorum(&MASTER, (2, 3), &*random()).unwrap();
        assert!(prepared.prove(&MASTER, &texts[..2]).unwrap_err().to_string().contains("all of them"));
        let again = SecretText::new(texts[0].expose().to_owned());
        texts[1] = again;
        assert!(prepared.prove(&MASTER, &texts).is_err(), "one of them twice");
        let (prepared, text) = Prepared::passphrase(&MASTER, &*random()).unwrap();
        prepared.prove(&MASTER, &text).unwrap();
        let (_, other) = Prepared::passphrase(&MASTER, &*random()).unwrap();
        assert!(matches!(prepared.prove(&MASTER, &other), Err(ServiceError::WrongPassphrase)));
        assert!(prepared.prove(&MASTER, &[]).is_err());
    }
}
