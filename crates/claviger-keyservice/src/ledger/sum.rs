//! A digest of a set that costs the same however large the set is.
//!
//! Each member adds a pseudorandom 256-bit number that only the holder of the master can compute; what is written down is a
//! MAC of the sum, so that sums, and the differences between them, stay unknown to everybody else. Addition and not
//! exclusive-or: a row that stands twice in a table that was tampered with must not cancel itself out.

use crate::custody::Master;
use crate::store::Kind;

/// Sum over the rows of the ledger.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum([u64; 4]);

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sum(redacted)")
    }
}

impl Sum {
    /// Counts a row in.
    pub(super) fn add(&mut self, master: &Master, kind: Kind, id: &str, mac: &[u8]) {
        self.each(master, kind, id, mac, u64::wrapping_add);
    }

    /// Counts a row out.
    pub(super) fn remove(&mut self, master: &Master, kind: Kind, id: &str, mac: &[u8]) {
        self.each(master, kind, id, mac, u64::wrapping_sub);
    }

    fn each(&mut self, master: &Master, kind: Kind, id: &str, mac: &[u8], step: fn(u64, u64) -> u64) {
        let term = master.ledger_term(kind.name(), id, mac);
        for (lane, bytes) in self.0.iter_mut().zip(term.as_chunks::<8>().0) {
            *lane = step(*lane, u64::from_be_bytes(*bytes));
        }
    }

    /// What stands for this state in database and log: 64 hex digits.
    pub(super) fn digest(&self, master: &Master, seq: u64) -> String {
        let lanes: Vec<u8> = self.0.iter().flat_map(|lane| lane.to_be_bytes()).collect();
        master.ledger_state(seq, &lanes).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_depends_on_the_members_and_not_on_their_order() {
        let master = Master::new(&[1; 32]);
        let sum = |members: &[(&str, u8)]| {
            let mut sum = Sum::default();
            members.iter().for_each(|(id, mac)| sum.add(&master, Kind::Binding, id, &[*mac; 32]));
            sum
        };
        let both = sum(&[("a", 1), ("b", 2)]);
        assert_eq!(both, sum(&[("b", 2), ("a", 1)]));
        for other in
            [&[("a", 1)][..], &[("a", 1), ("b", 3)], &[("a", 2), ("b", 1)], &[("a", 1), ("b", 2), ("b", 2)]]
        {
            assert_ne!(both, sum(other), "{other:?}");
        }
        let mut less = both;
        less.remove(&master, Kind::Binding, "b", &[2; 32]);
        assert_eq!(less, sum(&[("a", 1)]));
        let mut of_another_kind = less;
        of_another_kind.add(&master, Kind::Token, "b", &[2; 32]);
        assert_ne!(both, of_another_kind);
    }

    #[test]
    fn nobody_without_the_master_can_tell_the_digest() {
        let (one, other) = (Master::new(&[1; 32]), Master::new(&[2; 32]));
        let sum = Sum::default();
        assert_ne!(sum.digest(&one, 1), sum.digest(&other, 1));
        assert_ne!(sum.digest(&one, 1), sum.digest(&one, 2), "the number of the state counts too");
    }
}
