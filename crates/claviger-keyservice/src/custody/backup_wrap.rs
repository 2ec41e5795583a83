//! What a backup holds in place of the passphrase's wrap: the wrap again, sealed to a keyset's root (docs/decisions/017).
//!
//! Whoever has a backup and the passphrase has nothing; he needs as many recovery shares of one keyset as open it.

use claviger_format::{Random, RootSecret};
use claviger_keyapi::Id16;
use claviger_keyapi::wire::Blob;
use serde::{Deserialize, Serialize};

use super::{expand, open, seal};
use crate::ServiceError;

/// The passphrase's wrap of the master, sealed to one version of one keyset.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealedWrap {
    /// Its name, for people.
    pub(crate) keyset: String,
    pub(crate) keyset_id: Id16,
    pub(crate) version: u32,
    sealed: Blob,
}

impl SealedWrap {
    pub(crate) fn new(
        keyset: &str,
        (keyset_id, version, root): (Id16, u32, &RootSecret),
        wrap: &[u8],
        random: &dyn Random,
    ) -> Result<Self, ServiceError> {
        let sealed = seal(&key(root), &name(keyset_id, version), wrap, random)?;
        Ok(Self { keyset: keyset.to_owned(), keyset_id, version, sealed: Blob(sealed) })
    }

    /// The wrap, if this root is the one.
    pub(crate) fn open(&self, root: &RootSecret) -> Option<Vec<u8>> {
        open(&key(root), &name(self.keyset_id, self.version), &self.sealed.0).map(|wrap| wrap.to_vec())
    }
}

fn key(root: &RootSecret) -> zeroize::Zeroizing<[u8; 32]> {
    expand(root.expose(), b"claviger service backup")
}

fn name(keyset_id: Id16, version: u32) -> String {
    format!("backup/{keyset_id}/{version}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn only_the_root_that_it_was_sealed_to_opens_it_under_its_name() {
        let (root, other) = (RootSecret::draw(&*random()).unwrap(), RootSecret::draw(&*random()).unwrap());
        let sealed = SealedWrap::new("default", (Id16([1; 16]), 1, &root), b"wrap", &*random()).unwrap();
        assert_eq!(sealed.open(&root).unwrap(), b"wrap");
        assert!(sealed.open(&other).is_none());
        let renamed = SealedWrap { version: 2, ..sealed.clone() };
        assert!(renamed.open(&root).is_none());
        for at in 0..sealed.sealed.0.len() {
            let mut altered = sealed.clone();
            altered.sealed.0[at] ^= 1;
            assert!(altered.open(&root).is_none(), "byte {at}");
        }
    }
}
