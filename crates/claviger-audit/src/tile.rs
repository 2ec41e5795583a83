//! The tree as files (C2SP tlog-tiles): where each tile lies, what is in it, and the tree read back from tiles.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::hash::{HASH_LEN, Hash, node_hash};
use crate::line::decimal;
use crate::tree::Subtrees;

/// Hashes in a full tile.
pub const TILE_WIDTH: u64 = 256;
/// A tile spans this many levels of the tree.
pub(crate) const TILE_HEIGHT: u32 = 8;
/// Highest level of tiles; 2^64 leaves end at level 7, the specification allows more.
const LEVEL_MAX: u8 = 63;
/// Bytes of one entry in a bundle: its length and itself.
pub(crate) const BUNDLED_LEN: usize = 2 + HASH_LEN;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TileKind {
    /// Entries of the log, each after its length (big-endian, 2 bytes).
    Entries,
    /// Hashes; those of level 0 are leaves, each of the others is the root of a full tile one level below.
    Hashes {
        /// 0 to 63.
        level: u8,
    },
}

/// The name of a tile: `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TilePath {
    /// What it holds.
    pub kind: TileKind,
    /// Number within its level.
    pub index: u64,
    /// How many hashes or entries, 1 to 256.
    pub width: u16,
}

impl TilePath {
    /// The full tile at the same place.
    #[must_use]
    pub fn full(self) -> Self {
        Self { width: 256, ..self }
    }

    /// Whether it is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == TILE_WIDTH
    }

    /// The index after that of the last record below it.
    #[must_use]
    pub fn end_index(&self) -> u64 {
        let level = match self.kind {
            TileKind::Entries => 0,
            TileKind::Hashes { level } => u32::from(level),
        };
        let below_one = 1u64.checked_shl(TILE_HEIGHT * level).unwrap_or(u64::MAX);
        let count = self.index.saturating_mul(TILE_WIDTH).saturating_add(u64::from(self.width));
        count.saturating_mul(below_one)
    }

    /// Length of the file, in bytes, in a log whose entries have 32 bytes.
    #[must_use]
    pub fn file_len(&self) -> usize {
        let one = match self.kind {
            TileKind::Entries => BUNDLED_LEN,
            TileKind::Hashes { .. } => HASH_LEN,
        };
        one * usize::from(self.width)
    }

    /// The full tiles of a tree of `size` leaves, entries first.
    pub fn fulls(size: u64) -> impl Iterator<Item = Self> {
        let entries = (TileKind::Entries, size / TILE_WIDTH);
        let hashes = (0..=LEVEL_MAX).map_while(move |level| {
            let count = size.checked_shr(TILE_HEIGHT * (u32::from(level) + 1))?;
            (count > 0).then_some((TileKind::Hashes { level }, count))
        });
        std::iter::once(entries)
            .chain(hashes)
            .flat_map(|(kind, count)| (0..count).map(move |index| Self { kind, index, width: 256 }))
    }

    /// The partial tiles of a tree of `size` leaves, entries first.
    #[must_use]
    pub fn partials(size: u64) -> Vec<Self> {
        let mut paths: Vec<Self> = (0..=LEVEL_MAX)
            .map_while(|level| Some((level, size.checked_shr(TILE_HEIGHT * u32::from(level))?)))
            .filter(|(_, count)| count % TILE_WIDTH != 0)
            .map(|(level, count)| Self {
                kind: TileKind::Hashes { level },
                index: count / TILE_WIDTH,
                width: narrow(count % TILE_WIDTH),
            })
            .collect();
        if let Some(leaves) = paths.first().filter(|path| path.kind == TileKind::Hashes { level: 0 }) {
            paths.insert(0, Self { kind: TileKind::Entries, ..*leaves });
        }
        paths
    }
}

/// At most 256 by what it is called with.
pub(crate) fn narrow(width: u64) -> u16 {
    u16::try_from(width).unwrap_or(u16::MAX)
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Entries => f.write_str("tile/entries")?,
            TileKind::Hashes { level } => write!(f, "tile/{level}")?,
        }
        let digits = format!("{:03}", self.index);
        let digits = format!("{digits:0>0$}", digits.len().next_multiple_of(3));
        for at in (0..digits.len()).step_by(3) {
            let mark = if at + 3 < digits.len() { "x" } else { "" };
            write!(f, "/{mark}{}", &digits[at..at + 3])?;
        }
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// The text is not the path of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a tile")]
pub struct PathError;

impl FromStr for TilePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let parse = || {
            let (kind, rest) = text.strip_prefix("tile/")?.split_once('/')?;
            let kind = match kind {
                "entries" => TileKind::Entries,
                level => TileKind::Hashes { level: u8::try_from(decimal(level)?).ok()? },
            };
            let (index, width) = match rest.split_once(".p/") {
                Some((index, width)) => (index, u16::try_from(decimal(width)?).ok()?),
                None => (rest, 256),
            };
            let digits: String =
                index.split('/').map(|part| part.strip_prefix('x').unwrap_or(part)).collect();
            let index = digits.parse().ok()?;
            Some(Self { kind, index, width })
        };
        let path = parse().ok_or(PathError)?;
        let in_range = match path.kind {
            TileKind::Hashes { level } => level <= LEVEL_MAX,
            TileKind::Entries => true,
        };
        // One text for each path: whatever would be written otherwise is refused.
        if in_range && (1..=256).contains(&path.width) && path.to_string() == text {
            Ok(path)
        } else {
            Err(PathError)
        }
    }
}

/// The hashes in the bytes of a tile, or nothing if the length is wrong.
#[must_use]
pub fn hashes(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_LEN>();
    rest.is_empty().then(|| hashes.iter().map(|hash| Hash(*hash)).collect())
}

/// The root of hashes whose number is a power of two.
pub(crate) fn root_of(hashes: &[Hash]) -> Hash {
    match hashes {
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// Where tiles are read from.
pub trait Tiles {
    /// What can go wrong.
    type Error;

    /// The bytes of a tile, or nothing if there is no such tile.
    ///
    /// # Errors
    /// When it is there and can't be read.
    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, Self::Error>;
}

/// Why a hash can't be had from tiles.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError<E> {
    /// The tile is not there.
    #[error("{0} is missing")]
    Missing(TilePath),
    /// It has another length than its name says.
    #[error("{0} has a wrong length")]
    Length(TilePath),
    /// Its hashes don't lead to the root.
    #[error("{0} is not the tile of these records")]
    Altered(TilePath),
    /// It can't be read.
    #[error("{0}")]
    Read(E),
}

/// The tree of the first `size` leaves, read from tiles. Tiles that were read are kept for as long as this lives.
pub struct TileTree<'a, T> {
    tiles: &'a T,
    size: u64,
    read: RefCell<BTreeMap<TilePath, Vec<Hash>>>,
}

impl<'a, T: Tiles> TileTree<'a, T> {
    /// Nothing is read yet.
    pub fn new(tiles: &'a T, size: u64) -> Self {
        Self { tiles, size, read: RefCell::default() }
    }

    /// The tile that a tree of this size has there; the full one serves as well.
    fn hashes(&self, level: u8, index: u64) -> Result<Vec<Hash>, TileError<T::Error>> {
        let count = self.size.checked_shr(TILE_HEIGHT * u32::from(level)).unwrap_or(0);
        let width = narrow(count.saturating_sub(index.saturating_mul(TILE_WIDTH)).min(TILE_WIDTH));
        let path = TilePath { kind: TileKind::Hashes { level }, index, width };
        if let Some(hashes) = self.read.borrow().get(&path) {
            return Ok(hashes.clone());
        }
        let hashes = match self.stored(path)? {
            Some(hashes) => hashes,
            None if level > 0 => self.compute_from_below(path, level)?,
            None => return Err(TileError::Missing(path)),
        };
        self.read.borrow_mut().insert(path, hashes.clone());
        Ok(hashes)
    }

    fn stored(&self, path: TilePath) -> Result<Option<Vec<Hash>>, TileError<T::Error>> {
        for path in [path, path.full()] {
            if let Some(bytes) = self.tiles.tile(&path).map_err(TileError::Read)? {
                let hashes = hashes(&bytes).filter(|hashes| hashes.len() == usize::from(path.width));
                return hashes.map(Some).ok_or(TileError::Length(path));
            }
        }
        Ok(None)
    }

    /// A log keeps partial tiles only of sizes that it signed; what they would hold follows from the full ones below.
    fn compute_from_below(&self, path: TilePath, level: u8) -> Result<Vec<Hash>, TileError<T::Error>> {
        let first = path.index * TILE_WIDTH;
        (first..first + u64::from(path.width))
            .map(|index| Ok(root_of(&self.hashes(level - 1, index)?)))
            .collect()
    }
}

impl<T: Tiles> Subtrees for TileTree<'_, T> {
    type Error = TileError<T::Error>;

    fn subtree(&self, height: u32, index: u64) -> Result<Hash, Self::Error> {
        let level = u8::try_from(height / TILE_HEIGHT).unwrap_or(u8::MAX);
        let within = height % TILE_HEIGHT;
        let first = index << within;
        let hashes = self.hashes(level, first / TILE_WIDTH)?;
        let begin = usize::from(narrow(first % TILE_WIDTH));
        let missing = || {
            TileError::Missing(TilePath {
                kind: TileKind::Hashes { level },
                index: first / TILE_WIDTH,
                width: 256,
            })
        };
        Ok(root_of(hashes.get(begin..begin + (1 << within)).ok_or_else(missing)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(level: u8, index: u64, width: u16) -> TilePath {
        TilePath { kind: TileKind::Hashes { level }, index, width }
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        let entries = TilePath { kind: TileKind::Entries, index: 1_234_067, width: 8 };
        for (path, text) in [
            (path(0, 1_234_067, 256), "tile/0/x001/x234/067"),
            (path(63, 0, 1), "tile/63/000.p/1"),
            (path(0, 999, 255), "tile/0/999.p/255"),
            (path(2, 1000, 256), "tile/2/x001/000"),
            (path(0, u64::MAX, 256), "tile/0/x018/x446/x744/x073/x709/x551/615"),
            (entries, "tile/entries/x001/x234/067.p/8"),
        ] {
            assert_eq!(path.to_string(), text);
            assert_eq!(text.parse(), Ok(path));
        }
    }

    #[test]
    fn no_other_text_is_a_path() {
        for wrong in [
            "tile/64/000",
            "tile/00/000",
            "tile/0/00",
            "tile/0/0000",
            "tile/0/x000/001",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/001/000",
            "tile/0/x001",
            "tile/0/",
            "tile/entries",
            "tile/0/000/",
            "tile/0/+00",
            "/tile/0/000",
            "tile/0/000.p/",
            "tile/-1/000",
            "tile/0/000.p/5.p/6",
            "tile/0/x999/x999/x999/x999/x999/x999/999",
            "tile/0/../000",
            "",
        ] {
            assert_eq!(wrong.parse::<TilePath>(), Err(PathError), "{wrong}");
        }
    }

    #[test]
    fn partial_tiles_are_those_of_the_specification() {
        let entries = |index, width| TilePath { kind: TileKind::Entries, index, width };
        assert_eq!(
            TilePath::partials(70_000),
            [entries(273, 112), path(0, 273, 112), path(1, 1, 17), path(2, 0, 1)]
        );
        assert_eq!(TilePath::partials(256), [path(1, 0, 1)]);
        assert_eq!(TilePath::partials(0), []);
        assert_eq!(TilePath::partials(u64::MAX).len(), 9);
    }
}
