//! The tree while it grows: its root at every size, and its tiles as soon as they are full.

use crate::hash::{HASH_LEN, Hash, leaf_hash};
use crate::tile::{BUNDLED_LEN, TILE_HEIGHT, TILE_WIDTH, TileKind, TilePath, narrow, root_of};
use crate::tree::{Frontier, Subtrees};

/// A tile and its bytes.
pub type Tile = (TilePath, Vec<u8>);

/// A log's tree, growing at its end. Holds a few hundred hashes, however large the log is.
#[derive(Debug, Clone, Default)]
pub struct LogTree {
    frontier: Frontier,
    /// The bundle of the last entries.
    bundle: Vec<u8>,
    /// For each level the hashes of its last tile; never a full one.
    levels: Vec<Vec<Hash>>,
}

impl LogTree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree of the first `size` leaves, a multiple of 256: only full tiles are asked for.
    ///
    /// # Errors
    /// Those of `tree`.
    ///
    /// # Panics
    /// If `size` is not a multiple of 256.
    pub fn resume<S: Subtrees>(tree: &S, size: u64) -> Result<Self, S::Error> {
        assert!(size.is_multiple_of(TILE_WIDTH), "a tree is resumed between two tiles");
        let mut levels = Vec::new();
        for height in (0..u64::BITS).step_by(8).take_while(|height| size >> height > 0) {
            let count = size >> height;
            let first = count - count % TILE_WIDTH;
            levels.push((first..count).map(|at| tree.subtree(height, at)).collect::<Result<_, _>>()?);
        }
        Ok(Self { frontier: Frontier::of(tree, size)?, bundle: Vec::new(), levels })
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root at this size.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Appends an entry; tiles that it fills go to `full`, lower ones first.
    pub fn push(&mut self, entry: &[u8; HASH_LEN], full: &mut Vec<Tile>) {
        let index = self.size() / TILE_WIDTH;
        self.bundle.extend_from_slice(&narrow(HASH_LEN as u64).to_be_bytes());
        self.bundle.extend_from_slice(entry);
        if self.bundle.len() == BUNDLED_LEN * usize::from(narrow(TILE_WIDTH)) {
            let path = TilePath { kind: TileKind::Entries, index, width: narrow(TILE_WIDTH) };
            full.push((path, std::mem::take(&mut self.bundle)));
        }
        let mut hash = leaf_hash(entry);
        self.frontier.push(hash);
        for level in 0.. {
            if self.levels.len() == usize::from(level) {
                self.levels.push(Vec::new());
            }
            let tile = &mut self.levels[usize::from(level)];
            tile.push(hash);
            if tile.len() as u64 != TILE_WIDTH {
                return;
            }
            let index = (self.frontier.size() - 1) >> (TILE_HEIGHT * (u32::from(level) + 1));
            let path = TilePath { kind: TileKind::Hashes { level }, index, width: narrow(TILE_WIDTH) };
            full.push((path, bytes(tile)));
            hash = root_of(tile);
            tile.clear();
        }
    }

    /// The hashes of a level's last tile, which is not full.
    pub(crate) fn last_tile(&self, level: u8) -> &[Hash] {
        self.levels.get(usize::from(level)).map_or(&[], Vec::as_slice)
    }

    /// The tiles that are not full: with the full ones they are the tree at this size.
    #[must_use]
    pub fn partials(&self) -> Vec<Tile> {
        let content = |path: &TilePath| match path.kind {
            TileKind::Entries => self.bundle.clone(),
            TileKind::Hashes { level } => bytes(self.last_tile(level)),
        };
        TilePath::partials(self.size()).into_iter().map(|path| (path, content(&path))).collect()
    }
}

fn bytes(tile: &[Hash]) -> Vec<u8> {
    tile.iter().flat_map(|hash| hash.0).collect()
}

#[cfg(test)]
pub(crate) mod testing {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;
    use crate::tile::Tiles;
    use crate::tree::testing::entry;

    /// Tiles in memory.
    #[derive(Default, Clone)]
    pub(crate) struct Shelf(pub(crate) BTreeMap<TilePath, Vec<u8>>);

    impl Tiles for Shelf {
        type Error = Infallible;
        fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, Infallible> {
            Ok(self.0.get(path).cloned())
        }
    }

    /// A log of so many entries and all its tiles.
    pub(crate) fn grown(size: u64) -> (LogTree, Shelf) {
        let (mut tree, mut full) = (LogTree::new(), Vec::new());
        (0..size).for_each(|n| tree.push(&entry(n), &mut full));
        full.extend(tree.partials());
        (tree, Shelf(full.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Shelf, grown};
    use super::*;
    use crate::tile::{TileError, TileTree};
    use crate::tree::root;
    use crate::tree::testing::{Leaves, entry};

    const SIZES: [u64; 12] = [0, 1, 2, 255, 256, 257, 511, 512, 700, 65_535, 65_536, 66_000];

    #[test]
    fn root_and_proofs_from_tiles_are_those_from_leaves() {
        for size in SIZES.into_iter().filter(|size| *size < 1000) {
            let (tree, shelf) = grown(size);
            let leaves = Leaves::new(size);
            let Ok(expected) = root(&leaves, size);
            assert_eq!((tree.size(), tree.root()), (size, expected));
            for smaller in (0..=size).step_by(37) {
                let tiles = TileTree::new(&shelf, size);
                let Ok(known) = root(&leaves, smaller);
                assert_eq!(root(&tiles, smaller), Ok(known), "{smaller} of {size}");
                let Ok(proof) = crate::proof::prove_consistency(&leaves, smaller, size);
                assert_eq!(crate::proof::prove_consistency(&tiles, smaller, size), Ok(proof));
            }
        }
    }

    #[test]
    fn a_tree_has_exactly_the_tiles_that_the_specification_lists() {
        let (_, shelf) = grown(66_000);
        let count = |kind| shelf.0.keys().filter(|path| path.kind == kind).count();
        assert_eq!(count(TileKind::Entries), 258);
        assert_eq!(count(TileKind::Hashes { level: 0 }), 258);
        assert_eq!(count(TileKind::Hashes { level: 1 }), 2);
        assert_eq!(count(TileKind::Hashes { level: 2 }), 1);
        assert_eq!(shelf.0.len(), 519);
        let listed = TilePath::fulls(66_000).chain(TilePath::partials(66_000));
        assert_eq!(listed.collect::<std::collections::BTreeSet<_>>(), shelf.0.keys().copied().collect());
        assert!(shelf.0.iter().all(|(path, bytes)| bytes.len() == path.file_len()));
    }

    #[test]
    fn a_tree_goes_on_from_its_full_tiles() {
        for size in SIZES {
            let (mut whole, shelf) = grown(size);
            let between = size - size % TILE_WIDTH;
            let full = Shelf(shelf.0.into_iter().filter(|(path, _)| path.is_full()).collect());
            let mut resumed = LogTree::resume(&TileTree::new(&full, between), between).unwrap();
            (between..size).for_each(|n| resumed.push(&entry(n), &mut Vec::new()));
            assert_eq!(resumed.partials(), whole.partials(), "{size}");
            for n in size..size + 300 {
                let (mut here, mut there) = (Vec::new(), Vec::new());
                resumed.push(&entry(n), &mut here);
                whole.push(&entry(n), &mut there);
                assert_eq!((resumed.root(), here), (whole.root(), there), "{n}");
            }
        }
    }

    #[test]
    fn missing_and_short_tiles_are_named() {
        let (_, mut shelf) = grown(700);
        let path: TilePath = "tile/0/001".parse().unwrap();
        shelf.0.get_mut(&path).unwrap().pop();
        assert_eq!(root(&TileTree::new(&shelf, 300), 300), Err(TileError::Length(path)));
        shelf.0.remove(&path);
        let partial = TilePath { width: 44, ..path };
        assert_eq!(root(&TileTree::new(&shelf, 300), 300), Err(TileError::Missing(partial)));
    }
}
