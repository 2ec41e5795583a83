//! What a gateway may do, as a value that can be compared.

use std::collections::BTreeSet;

use claviger_keyapi::Verb;
use serde::Serialize;

/// One grant: these verbs in one keyset, perhaps in some of its buckets or under a prefix only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Scope {
    pub(crate) keyset: String,
    pub(crate) verbs: BTreeSet<Verb>,
    /// `None`: every bucket of the keyset.
    pub(crate) buckets: Option<BTreeSet<String>>,
    pub(crate) prefix: String,
}

/// Everything that policy grants to one identity in the keysets that it is enrolled for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Rights(BTreeSet<Scope>);

impl Rights {
    pub(crate) fn new(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(scopes.into_iter().collect())
    }

    /// Whether nothing that `before` allowed is missing. In doubt it is: a verb that two narrower grants cover together, or
    /// that another verb implies, counts as taken away.
    pub(crate) fn keep_all_of(&self, before: &Self) -> bool {
        before
            .0
            .iter()
            .all(|old| old.verbs.iter().all(|verb| self.0.iter().any(|new| new.covers(old, *verb))))
    }
}

impl Scope {
    fn covers(&self, old: &Self, verb: Verb) -> bool {
        let buckets = match (&self.buckets, &old.buckets) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(new), Some(old)) => new.is_superset(old),
        };
        self.keyset == old.keyset
            && self.verbs.contains(&verb)
            && buckets
            && old.prefix.starts_with(&self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(verbs: &[Verb], buckets: Option<&[&str]>, prefix: &str) -> Scope {
        Scope {
            keyset: "default".into(),
            verbs: verbs.iter().copied().collect(),
            buckets: buckets.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            prefix: prefix.into(),
        }
    }

    #[test]
    fn more_verbs_buckets_or_a_shorter_prefix_take_nothing_away() {
        let before = Rights::new([scope(&[Verb::Read], Some(&["a"]), "2026/")]);
        let same = before.clone();
        let more = Rights::new([scope(&[Verb::Read, Verb::Write], Some(&["a", "b"]), "20")]);
        let all = Rights::new([scope(&[Verb::Read], None, "")]);
        for after in [&same, &more, &all] {
            assert!(after.keep_all_of(&before), "{after:?}");
        }
        assert!(before.keep_all_of(&Rights::new([])), "from nothing, everything is more");
    }

    #[test]
    fn a_verb_bucket_keyset_or_prefix_less_takes_something_away() {
        let before = Rights::new([scope(&[Verb::Read, Verb::Head], Some(&["a", "b"]), "2026/")]);
        let elsewhere = Scope { keyset: "other".into(), ..scope(&[Verb::Read, Verb::Head], None, "") };
        for after in [
            Rights::new([]),
            Rights::new([scope(&[Verb::Read], None, "")]),
            Rights::new([scope(&[Verb::Read, Verb::Head], Some(&["a"]), "")]),
            Rights::new([scope(&[Verb::Read, Verb::Head], None, "2026/01/")]),
            Rights::new([elsewhere]),
        ] {
            assert!(!after.keep_all_of(&before), "{after:?}");
        }
        let wide = Rights::new([scope(&[Verb::Read], None, "")]);
        assert!(!Rights::new([scope(&[Verb::Read], Some(&["a"]), "")]).keep_all_of(&wide));
    }
}
