//! Entries that were read from a log's files, held against its tree as somebody has it in memory: whoever can exchange the files
//! can't exchange the tree.
//!
//! A block of 256 entries is checked at a time, whatever was read before it. The tree holds the hashes at its right edge; of what lies
//! further to the left it needs full tiles of a level above the leaves, which may lie with anybody, because each is held
//! against the hash above it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::builder::LogTree;
use crate::hash::{HASH_LEN, Hash, leaf_hash};
use crate::tile::{TILE_HEIGHT, TILE_WIDTH, TileError, TileKind, TilePath, Tiles, hashes, root_of};

/// Entries that are checked at once.
pub const BLOCK_LEN: u64 = TILE_WIDTH;

/// A tree that is believed.
#[derive(Debug)]
pub struct Anchor {
    tree: LogTree,
    /// Full tiles that were read and lead to the root.
    read: RefCell<BTreeMap<(u8, u64), Vec<Hash>>>,
}

impl Anchor {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(tree: LogTree) -> Self {
        Self { tree, read: RefCell::default() }
    }

    /// Number of entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The root over them.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// Whether these are all entries of a block, in order: those from `block * 256` on, 256 of them or what there is.
    ///
    /// # Errors
    /// [`TileError`] if a tile that it takes to tell is not there or not the one.
    pub fn holds<T: Tiles>(
        &self,
        tiles: &T,
        block: u64,
        entries: &[[u8; HASH_LEN]],
    ) -> Result<bool, TileError<T::Error>> {
        let first = block.saturating_mul(BLOCK_LEN);
        let count = self.size().saturating_sub(first).min(BLOCK_LEN);
        if count == 0 || entries.len() as u64 != count {
            return Ok(false);
        }
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        if count < BLOCK_LEN {
            return Ok(self.tree.last_tile(0) == leaves);
        }
        Ok(self.hash(tiles, 1, block)? == root_of(&leaves))
    }

    /// The root of the full tile of this number on the level below.
    fn hash<T: Tiles>(&self, tiles: &T, level: u8, index: u64) -> Result<Hash, TileError<T::Error>> {
        let count = self.size() >> (TILE_HEIGHT * u32::from(level));
        let (tile, within) = (index / TILE_WIDTH, index % TILE_WIDTH);
        let path = TilePath { kind: TileKind::Hashes { level }, index: tile, width: 256 };
        let at = |hashes: &[Hash]| {
            let place = usize::try_from(within).ok();
            place.and_then(|place| hashes.get(place).copied()).ok_or(TileError::Missing(path))
        };
        if tile == count / TILE_WIDTH {
            return at(self.tree.last_tile(level));
        }
        if let Some(hashes) = self.read.borrow().get(&(level, tile)) {
            return at(hashes);
        }
        let bytes = tiles.tile(&path).map_err(TileError::Read)?.ok_or(TileError::Missing(path))?;
        let found = hashes(&bytes).filter(|hashes| hashes.len() as u64 == TILE_WIDTH);
        let found = found.ok_or(TileError::Length(path))?;
        if root_of(&found) != self.hash(tiles, level + 1, tile)? {
            return Err(TileError::Altered(path));
        }
        let hash = at(&found);
        self.read.borrow_mut().insert((level, tile), found);
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::testing::{Shelf, grown};
    use crate::tree::testing::entry;

    fn entries(range: std::ops::Range<u64>) -> Vec<[u8; HASH_LEN]> {
        range.map(entry).collect()
    }

    #[test]
    fn every_block_is_known_at_every_size_and_no_other_entry_passes() {
        for size in [1, 2, 255, 256, 257, 512, 700] {
            let (tree, _) = grown(size);
            let anchor = Anchor::new(tree);
            // None of it needs a tile.
            let none = Shelf::default();
            for first in (0..size).step_by(256) {
                let good = entries(first..size.min(first + 256));
                let holds = |entries: &[_]| anchor.holds(&none, first / 256, entries).unwrap();
                assert!(holds(&good), "{first} of {size}");
                for at in 0..good.len() {
                    let mut other = good.clone();
                    other[at][31] ^= 1;
                    assert!(!holds(&other), "{first} of {size}, {at}");
                }
                assert!(!holds(&good[1..]) && !holds(&good[..good.len() - 1]), "{first} of {size}");
                let mut longer = good.clone();
                longer.push(entry(first + good.len() as u64));
                assert!(!holds(&longer), "{first} of {size}");
            }
            assert!(!anchor.holds(&none, size.div_ceil(256), &[]).unwrap());
            assert!(!anchor.holds(&none, u64::MAX, &entries(0..256)).unwrap());
        }
    }

    #[test]
    fn far_back_it_takes_tiles_and_one_that_somebody_altered_is_named() {
        let (tree, shelf) = grown(66_000);
        let anchor = || Anchor::new(tree.clone());
        for block in [0, 1, 100, 255, 256] {
            let good = entries(block * 256..block * 256 + 256);
            assert_eq!(anchor().holds(&shelf, block, &good), Ok(true), "{block}");
            assert_eq!(anchor().holds(&shelf, block ^ 1, &good), Ok(false), "{block}");
        }
        assert_eq!(anchor().holds(&shelf, 257, &entries(257 * 256..66_000)), Ok(true));
        let path: TilePath = "tile/1/000".parse().unwrap();
        let first = entries(0..256);
        for (change, error) in [
            (None, TileError::Missing(path)),
            (Some(vec![0; 32]), TileError::Length(path)),
            (Some(vec![0; 8192]), TileError::Altered(path)),
        ] {
            let mut other = shelf.clone();
            match change {
                Some(bytes) => other.0.insert(path, bytes),
                None => other.0.remove(&path),
            };
            assert_eq!(anchor().holds(&other, 0, &first), Err(error));
            // What it does not concern is known all the same.
            assert_eq!(anchor().holds(&other, 256, &entries(65_536..65_792)), Ok(true));
        }
        // The tile fits the other entries, and not the root.
        let mut forged = first.clone();
        forged[7] = entry(70_000);
        let mut hashes: Vec<u8> = shelf.0[&path].clone();
        let leaves: Vec<Hash> = forged.iter().map(|entry| leaf_hash(entry)).collect();
        hashes[..HASH_LEN].copy_from_slice(&root_of(&leaves).0);
        let mut other = shelf.clone();
        other.0.insert(path, hashes);
        assert_eq!(anchor().holds(&other, 0, &forged), Err(TileError::Altered(path)));
    }
}
