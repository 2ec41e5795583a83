//! Inclusion and consistency proofs: made after RFC 6962 §2.1.1 and §2.1.2, verified after RFC 9162 §2.1.3.2 and §2.1.4.2.

use crate::hash::{Hash, empty_root, node_hash};
use crate::tree::{Subtrees, range, split};

/// Most hashes that a proof can have: a tree has at most 2^64 leaves, and a consistency proof one hash more than levels.
pub const PROOF_LEN_MAX: usize = 65;

/// The proof does not show what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Index or sizes that no tree has.
    #[error("the proof is for an index or a size that can't be")]
    Range,
    /// Too many hashes, too few, or others.
    #[error("the proof does not lead to the root")]
    Mismatch,
}

/// The hashes beside the way from leaf `index` to the root of the first `size` leaves, lowest first.
///
/// # Errors
/// Those of `tree`.
///
/// # Panics
/// If `index` is not below `size`.
pub fn prove_inclusion<S: Subtrees>(tree: &S, index: u64, size: u64) -> Result<Vec<Hash>, S::Error> {
    assert!(index < size, "a proof for a leaf that is not there");
    let mut proof = Vec::new();
    let (mut begin, mut end) = (0, size);
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            proof.push(range(tree, middle, end)?);
            end = middle;
        } else {
            proof.push(range(tree, begin, middle)?);
            begin = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `leaf` is leaf `index` of the tree of `size` leaves with this root.
///
/// # Errors
/// [`ProofError`] if the proof does not show it.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Range);
    }
    let (mut at, mut last, mut node) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Mismatch);
        }
        if at & 1 == 1 || at == last {
            node = node_hash(sibling, &node);
            // A node that has no sibling on its level is its parent, too.
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(&node, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last == 0 && node == *root { Ok(()) } else { Err(ProofError::Mismatch) }
}

/// The hashes from which both the root of the first `from` and that of the first `to` leaves follow. Empty for `from` 0, which
/// everything continues, and for equal sizes.
///
/// # Errors
/// Those of `tree`.
///
/// # Panics
/// If `from` is larger than `to`.
pub fn prove_consistency<S: Subtrees>(tree: &S, from: u64, to: u64) -> Result<Vec<Hash>, S::Error> {
    assert!(from <= to, "a proof backwards");
    let mut proof = Vec::new();
    if from == 0 || from == to {
        return Ok(proof);
    }
    let (mut begin, mut end) = (0, to);
    while from != end {
        let middle = begin + split(end - begin);
        if from <= middle {
            proof.push(range(tree, middle, end)?);
            end = middle;
        } else {
            proof.push(range(tree, begin, middle)?);
            begin = middle;
        }
    }
    if begin != 0 {
        proof.push(range(tree, begin, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether the tree of `to` leaves with root `to_root` continues the one of `from` leaves with root `from_root`: the first
/// `from` leaves of both are the same.
///
/// # Errors
/// [`ProofError`] if the proof does not show it.
pub fn verify_consistency(
    from: u64,
    from_root: &Hash,
    to: u64,
    to_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    let holds = |holds: bool| if holds { Ok(()) } else { Err(ProofError::Mismatch) };
    if from > to {
        return Err(ProofError::Range);
    }
    if from == to {
        return holds(proof.is_empty() && from_root == to_root);
    }
    if from == 0 {
        return holds(proof.is_empty() && *from_root == empty_root());
    }
    let mut hashes = proof.iter();
    // The old tree as a whole is a node of the new one if it is perfect: then nobody needs to be told its hash.
    let first = if from.is_power_of_two() { Some(from_root) } else { hashes.next() };
    let Some(first) = first else { return Err(ProofError::Mismatch) };
    let shift = (from - 1).trailing_ones();
    let (mut at, mut last) = ((from - 1) >> shift, (to - 1) >> shift);
    let (mut old, mut new) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return Err(ProofError::Mismatch);
        }
        if at & 1 == 1 || at == last {
            old = node_hash(hash, &old);
            new = node_hash(hash, &new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    holds(last == 0 && old == *from_root && new == *to_root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{root, testing::Leaves};
    use proptest::prelude::*;

    const SIZE_MAX: u64 = 130;

    fn roots(leaves: &Leaves) -> Vec<Hash> {
        (0..=leaves.len()).map(|size| root(leaves, size).unwrap_or_else(|e| match e {})).collect()
    }

    #[test]
    fn every_leaf_of_every_tree_is_proved_and_under_no_other_index_size_or_root() {
        let leaves = Leaves::new(SIZE_MAX);
        let roots = roots(&leaves);
        for size in 1..=SIZE_MAX {
            let root = &roots[usize::try_from(size).unwrap()];
            for index in 0..size {
                let leaf = leaves.leaf(index);
                let Ok(proof) = prove_inclusion(&leaves, index, size);
                assert_eq!(verify_inclusion(&leaf, index, size, root, &proof), Ok(()));
                assert!(verify_inclusion(&leaf, index ^ 1, size, root, &proof).is_err());
                assert!(verify_inclusion(&leaf, size, size, root, &proof).is_err());
                assert!(verify_inclusion(&leaf, index, size, &leaf, &proof).is_err() || size == 1);
                let mut longer = proof.clone();
                longer.push(leaf);
                assert!(verify_inclusion(&leaf, index, size, root, &longer).is_err());
                if let [_, rest @ ..] = &proof[..] {
                    assert!(verify_inclusion(&leaf, index, size, root, rest).is_err());
                }
            }
        }
    }

    #[test]
    fn every_tree_continues_every_smaller_one_and_no_other() {
        let leaves = Leaves::new(SIZE_MAX);
        let roots = roots(&leaves);
        let at = |size: u64| &roots[usize::try_from(size).unwrap()];
        let other = crate::hash::leaf_hash(b"another tree");
        for to in 0..=SIZE_MAX {
            for from in 0..=to {
                let Ok(proof) = prove_consistency(&leaves, from, to);
                assert_eq!(verify_consistency(from, at(from), to, at(to), &proof), Ok(()), "{from} {to}");
                assert!(verify_consistency(from, &other, to, at(to), &proof).is_err(), "{from} {to}");
                if from > 0 {
                    assert!(verify_consistency(from, at(from), to, &other, &proof).is_err(), "{from} {to}");
                }
                let mut longer = proof.clone();
                longer.push(other);
                assert!(verify_consistency(from, at(from), to, at(to), &longer).is_err(), "{from} {to}");
                for cut in 0..proof.len() {
                    assert!(verify_consistency(from, at(from), to, at(to), &proof[..cut]).is_err());
                }
                assert!(from == to || verify_consistency(to, at(to), from, at(from), &proof).is_err());
            }
        }
    }

    /// RFC 6962 §2.1.3 draws this tree of seven leaves and lists these proofs.
    #[test]
    fn the_examples_of_rfc_6962_come_out_as_there() {
        let leaves = Leaves::new(7);
        let node = |height, index| leaves.subtree(height, index).unwrap_or_else(|e| match e {});
        let (a, b, c, d, f, j) = (node(0, 0), node(0, 1), node(0, 2), node(0, 3), node(0, 5), node(0, 6));
        let (g, h, i, k) = (node(1, 0), node(1, 1), node(1, 2), node(2, 0));
        let l = node_hash(&i, &j);
        assert_eq!(prove_inclusion(&leaves, 0, 7), Ok(vec![b, h, l]));
        assert_eq!(prove_inclusion(&leaves, 3, 7), Ok(vec![c, g, l]));
        assert_eq!(prove_inclusion(&leaves, 4, 7), Ok(vec![f, j, k]));
        assert_eq!(prove_inclusion(&leaves, 6, 7), Ok(vec![i, k]));
        assert_eq!(prove_consistency(&leaves, 3, 7), Ok(vec![c, d, g, l]));
        assert_eq!(prove_consistency(&leaves, 4, 7), Ok(vec![l]));
        assert_eq!(prove_consistency(&leaves, 6, 7), Ok(vec![i, j, k]));
        assert_ne!(a, b);
    }

    proptest! {
        #[test]
        fn a_proof_with_any_bit_changed_is_refused(
            size in 2u64..600, at in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>(), from in 1u64..600
        ) {
            let leaves = Leaves::new(size);
            let Ok(to_root) = root(&leaves, size);
            let index = at.index(usize::try_from(size).unwrap()) as u64;
            let leaf = leaves.leaf(index);
            let Ok(mut proof) = prove_inclusion(&leaves, index, size);
            flip(&mut proof, bit);
            prop_assert!(verify_inclusion(&leaf, index, size, &to_root, &proof).is_err());
            let from = from.min(size - 1);
            let Ok(from_root) = root(&leaves, from);
            let Ok(mut proof) = prove_consistency(&leaves, from, size);
            prop_assert!(proof.len() <= PROOF_LEN_MAX);
            flip(&mut proof, bit);
            prop_assert!(verify_consistency(from, &from_root, size, &to_root, &proof).is_err());
        }
    }

    fn flip(proof: &mut [Hash], bit: prop::sample::Index) {
        let bit = bit.index(proof.len() * 256);
        proof[bit / 256].0[bit / 8 % 32] ^= 1 << (bit % 8);
    }
}
