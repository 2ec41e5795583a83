//! The Merkle tree of RFC 6962 §2.1 over leaves that are known only through the hashes of their perfect subtrees.

use crate::hash::{Hash, empty_root, node_hash};

/// Gives the hashes of perfect subtrees.
pub trait Subtrees {
    /// What can go wrong.
    type Error;

    /// The hash over the leaves `index * 2^height .. (index + 1) * 2^height`. Asked only for leaves that are there.
    ///
    /// # Errors
    /// When the hash can't be had.
    fn subtree(&self, height: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
/// Those of `tree`.
pub fn root<S: Subtrees>(tree: &S, size: u64) -> Result<Hash, S::Error> {
    if size == 0 { Ok(empty_root()) } else { range(tree, 0, size) }
}

/// MTH(D\[begin:end\]) for a range that occurs in a tree: `begin` is a multiple of a power of two that is at least the length.
///
/// # Errors
/// Those of `tree`.
pub(crate) fn range<S: Subtrees>(tree: &S, begin: u64, end: u64) -> Result<Hash, S::Error> {
    let len = end - begin;
    if len.is_power_of_two() {
        return tree.subtree(len.trailing_zeros(), begin >> len.trailing_zeros());
    }
    let middle = begin + split(len);
    Ok(node_hash(&range(tree, begin, middle)?, &range(tree, middle, end)?))
}

/// Where a tree of `len` ≥ 2 leaves divides: the largest power of two below `len`.
pub(crate) fn split(len: u64) -> u64 {
    1 << (len - 1).ilog2()
}

/// A tree that only grows, as the roots of its perfect subtrees, largest first: enough for its root at every size.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The frontier of the first `size` leaves.
    ///
    /// # Errors
    /// Those of `tree`.
    pub fn of<S: Subtrees>(tree: &S, size: u64) -> Result<Self, S::Error> {
        let mut peaks = Vec::new();
        let mut begin = 0;
        for height in (0..u64::BITS).rev().filter(|height| size >> height & 1 == 1) {
            peaks.push(tree.subtree(height, begin >> height)?);
            begin += 1 << height;
        }
        Ok(Self { size, peaks })
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            // As many peaks as ones: `size` has a peak for each bit.
            if let Some(left) = self.peaks.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root at this size.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Leaves in memory, for tests of this crate.
#[cfg(test)]
pub(crate) mod testing {
    use std::convert::Infallible;

    use super::{Hash, Subtrees, node_hash};
    use crate::hash::leaf_hash;

    /// For each height the hashes of its perfect subtrees.
    pub(crate) struct Leaves(Vec<Vec<Hash>>);

    impl Leaves {
        pub(crate) fn new(count: u64) -> Self {
            Self::of((0..count).map(|n| leaf_hash(&entry(n))).collect())
        }

        pub(crate) fn of(leaves: Vec<Hash>) -> Self {
            let mut heights = vec![leaves];
            while let Some(below) = heights.last().filter(|below| below.len() > 1) {
                let above =
                    below.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
                heights.push(above);
            }
            Self(heights)
        }

        pub(crate) fn leaf(&self, index: u64) -> Hash {
            self.0[0][usize::try_from(index).unwrap()]
        }

        pub(crate) fn len(&self) -> u64 {
            self.0[0].len() as u64
        }
    }

    /// Some entry, another for each number.
    pub(crate) fn entry(n: u64) -> [u8; 32] {
        crate::hash::leaf_hash(&n.to_be_bytes()).0
    }

    impl Subtrees for Leaves {
        type Error = Infallible;
        fn subtree(&self, height: u32, index: u64) -> Result<Hash, Infallible> {
            Ok(self.0[height as usize][usize::try_from(index).unwrap()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Leaves;
    use super::*;
    use crate::hash::leaf_hash;

    /// The leaves and roots of the reference implementation of RFC 6962 (certificate-transparency, merkle_tree_test).
    const REFERENCE: [(&str, &str); 8] = [
        ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
        ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
        ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
        ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        (
            "606162636465666768696a6b6c6d6e6f",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ),
    ];

    #[test]
    fn roots_are_those_of_the_reference_implementation() {
        let unhex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let leaves = Leaves::of(REFERENCE.iter().map(|(entry, _)| leaf_hash(&unhex(entry))).collect());
        let mut frontier = Frontier::default();
        for (size, (_, known)) in (1..).zip(REFERENCE) {
            let Ok(found) = root(&leaves, size);
            assert_eq!(format!("{found:?}"), known, "size {size}");
            frontier.push(leaves.leaf(size - 1));
            assert_eq!(frontier.root(), found, "size {size}");
        }
    }

    #[test]
    fn a_frontier_has_the_root_of_every_size_however_it_was_made() {
        let leaves = Leaves::new(600);
        let mut grown = Frontier::default();
        for size in 0..=600 {
            let Ok(expected) = root(&leaves, size);
            let Ok(read) = Frontier::of(&leaves, size);
            assert_eq!((grown.size(), grown.root()), (size, expected));
            assert_eq!((read.size(), read.root()), (size, expected));
            if size < 600 {
                grown.push(leaves.leaf(size));
            }
        }
    }
}
