//! The verifier of a whole log: every record, every tile, every checkpoint. It needs the log's folder, the log's public key
//! and, against a log that was cut or replaced as a whole, checkpoints that somebody kept elsewhere.
//!
//! The caller reads: files in order of their names ([`Verifier::file`]), their lines ([`Verifier::line`]), then
//! [`Verifier::finish`]. Memory is a few hundred hashes and the list of tiles, however large the log is.

use std::collections::{BTreeSet, VecDeque};

use crate::builder::{LogTree, Tile};
use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::hash::{HASH_LEN, empty_root};
use crate::line::LineError;
use crate::pruned::LogLine;
use crate::pruning::Pruning;
use crate::tile::{BUNDLED_LEN, TILE_WIDTH, TileKind, TilePath, Tiles};

/// A checkpoint that the log has to agree with, and what to call it in messages.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// A file's name, say.
    pub name: String,
    /// Verified with the log's key.
    pub checkpoint: SignedCheckpoint,
}

/// What a log that verified holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Records.
    pub records: u64,
    /// How many of them were pruned.
    pub pruned: u64,
    /// How many of them, from the first, the log's own checkpoint covers. Those after it were written since.
    pub signed: u64,
    /// Tiles that were compared.
    pub tiles: u64,
}

/// Why a log does not verify. The first thing that is wrong ends the verification.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault<E> {
    /// Between two files something is missing, or twice.
    #[error(
        "a file is named after record {found}, and the ones before it end with record {expected} to come: files were removed, \
         renamed or added"
    )]
    File {
        /// Index in the file's name.
        found: u64,
        /// Index of the next record.
        expected: u64,
    },
    /// A line that the service did not write.
    #[error("the line of record {index} is {error}: it was edited")]
    Line {
        /// Where it stands.
        index: u64,
        /// What is wrong with it.
        error: LineError,
    },
    /// A record at the wrong place.
    #[error(
        "where record {expected} should stand, record {found} does: records were removed, added or moved"
    )]
    Index {
        /// The index in the line.
        found: u64,
        /// The one it should have.
        expected: u64,
    },
    /// A record that is not the one in the tree.
    #[error("record {index} is not the one that {path} was made from: one of the two was edited")]
    Record {
        /// Its index.
        index: u64,
        /// The tile that holds its entry or leaf.
        path: TilePath,
    },
    /// A tile of a higher level that does not fit the ones below it, or has a wrong length.
    #[error("{0} is not the tile of these records: it was edited or is damaged")]
    Tile(TilePath),
    /// A tile that the log's checkpoint needs.
    #[error("{0} is missing")]
    Missing(TilePath),
    /// A tile for which there are no records.
    #[error("{0} is there, and its records are not: the log was cut off")]
    Surplus(TilePath),
    /// A checkpoint of other records.
    #[error(
        "the first {size} records are not the ones that {name} was signed for: at least one was edited, removed, added or moved, \
         or the whole log was replaced by another"
    )]
    Head {
        /// Which checkpoint.
        name: String,
        /// Its size.
        size: u64,
    },
    /// Fewer records than a checkpoint was signed for.
    #[error("{name} was signed for {size} records, and there are {records}: the log was cut off")]
    CutOff {
        /// Which checkpoint.
        name: String,
        /// Its size.
        size: u64,
        /// How many there are.
        records: u64,
    },
    /// A record was removed, and the log does not say that it might.
    #[error(
        "record {0} was removed, and no signed record `prune` allows it: it is too young, or somebody removed it on his own"
    )]
    Pruned(u64),
    /// A tile can't be read.
    #[error("{0}")]
    Read(E),
}

/// A verification under way.
pub struct Verifier<'a, T> {
    tiles: &'a T,
    /// Tiles that lie there and were not compared yet.
    listed: BTreeSet<TilePath>,
    listed_count: u64,
    tree: LogTree,
    own_size: u64,
    /// Checkpoints that were not reached yet, smallest first.
    heads: VecDeque<(String, Checkpoint)>,
    pruning: Pruning,
}

impl<'a, T: Tiles> Verifier<'a, T> {
    /// Begins. `listed` are all tiles that lie in the log's folder, `own` is the checkpoint there.
    ///
    /// # Errors
    /// [`Fault::Head`] for a checkpoint of no records with a root.
    pub fn new(
        tiles: &'a T,
        listed: BTreeSet<TilePath>,
        own: Remembered,
        remembered: Vec<Remembered>,
    ) -> Result<Self, Fault<T::Error>> {
        let own_size = own.checkpoint.checkpoint().size;
        let all = std::iter::once(own).chain(remembered);
        let mut heads: Vec<_> = all.map(|r| (r.name, r.checkpoint.checkpoint().clone())).collect();
        heads.sort_by_key(|(_, head)| head.size);
        let listed_count = listed.len() as u64;
        let mut verifier = Self {
            tiles,
            listed,
            listed_count,
            tree: LogTree::new(),
            own_size,
            heads: heads.into(),
            pruning: Pruning::new(),
        };
        verifier.check_heads()?;
        Ok(verifier)
    }

    /// The index of the next record.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.tree.size()
    }

    /// Begins a file, whose name gives the index of its first record.
    ///
    /// # Errors
    /// [`Fault::File`].
    pub fn file(&mut self, first_index: u64) -> Result<(), Fault<T::Error>> {
        let expected = self.next_index();
        if first_index == expected { Ok(()) } else { Err(Fault::File { found: first_index, expected }) }
    }

    /// Takes a line, without its end.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn line<'l>(&mut self, line: &'l [u8]) -> Result<LogLine<'l>, Fault<T::Error>> {
        let expected = self.next_index();
        let line = LogLine::parse(line).map_err(|error| Fault::Line { index: expected, error })?;
        if line.index() != expected {
            return Err(Fault::Index { found: line.index(), expected });
        }
        self.pruning.take(&line, self.own_size);
        let mut full = Vec::new();
        self.tree.push(&line.entry(), &mut full);
        for tile in &full {
            self.compare(tile)?;
        }
        self.check_heads()?;
        Ok(line)
    }

    /// Ends after the last line of the last file.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn finish(mut self) -> Result<Report, Fault<T::Error>> {
        for tile in self.tree.partials() {
            self.compare(&tile)?;
        }
        if let Some(path) = self.listed.first() {
            return Err(Fault::Surplus(*path));
        }
        let records = self.tree.size();
        if let Some((name, head)) = self.heads.pop_back() {
            return Err(Fault::CutOff { name, size: head.size, records });
        }
        if let Some(index) = self.pruning.not_allowed() {
            return Err(Fault::Pruned(index));
        }
        let pruned = self.pruning.count();
        Ok(Report { records, pruned, signed: self.own_size, tiles: self.listed_count })
    }

    /// All tiles that lie at the place of this one have to be it, as far as they go.
    fn compare(&mut self, (path, bytes): &Tile) -> Result<(), Fault<T::Error>> {
        let narrowest = TilePath { width: 1, ..*path };
        let here: Vec<_> = self.listed.range(narrowest..=*path).copied().collect();
        if path.is_full() && path.end_index() <= self.own_size && here.last() != Some(path) {
            return Err(Fault::Missing(*path));
        }
        for path in here {
            let found = self.tiles.tile(&path).map_err(Fault::Read)?.ok_or(Fault::Missing(path))?;
            let expected = &bytes[..path.file_len()];
            if found != expected {
                return Err(difference(path, expected, &found));
            }
            self.listed.remove(&path);
        }
        Ok(())
    }

    /// Checkpoints of the size that is reached now.
    fn check_heads(&mut self) -> Result<(), Fault<T::Error>> {
        let size = self.tree.size();
        if size == self.own_size {
            self.check_partials()?;
        }
        while let Some((name, head)) = self.heads.pop_front_if(|(_, head)| head.size == size) {
            let root = if size == 0 { empty_root() } else { self.tree.root() };
            if head.root != root {
                return Err(Fault::Head { name, size });
            }
        }
        Ok(())
    }

    /// At the size of the log's own checkpoint its partial tiles have to be there, or what they became.
    fn check_partials(&mut self) -> Result<(), Fault<T::Error>> {
        for tile in self.tree.partials() {
            let (path, _) = tile;
            if !self.listed.contains(&path) && !self.listed.contains(&path.full()) {
                return Err(Fault::Missing(path));
            }
            self.compare(&tile)?;
        }
        Ok(())
    }
}

/// Names the record, if the tile is one of those that hold something for each.
fn difference<E>(path: TilePath, expected: &[u8], found: &[u8]) -> Fault<E> {
    let one = match path.kind {
        TileKind::Entries => BUNDLED_LEN,
        TileKind::Hashes { level: 0 } => HASH_LEN,
        TileKind::Hashes { .. } => return Fault::Tile(path),
    };
    if expected.len() != found.len() {
        return Fault::Tile(path);
    }
    let at = expected.chunks(one).zip(found.chunks(one)).take_while(|(known, found)| known == found).count();
    Fault::Record { index: path.index * TILE_WIDTH + at as u64, path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::testing::Shelf;
    use crate::line::Line;
    use crate::note::{KeyKind, SigningKey};
    use crate::pruned::Pruned;

    /// A log as it lies in a folder.
    #[derive(Clone)]
    struct Log {
        lines: Vec<Vec<u8>>,
        shelf: Shelf,
        own: SignedCheckpoint,
    }

    fn line(index: u64, text: &str) -> Vec<u8> {
        let mut line = Vec::new();
        Line { index, salt: [7; 16], record: &format!("{{\"n\":\"{text}\"}}") }.write(&mut line);
        line.pop();
        line
    }

    fn sign(tree: &LogTree) -> SignedCheckpoint {
        let key = SigningKey::from_seed("log.example/1", KeyKind::Log, &[1; 32]).unwrap();
        SignedCheckpoint::sign(tree.size(), tree.root(), &key).unwrap()
    }

    /// `count` records; the checkpoint covers `signed` of them.
    fn log(texts: impl Fn(u64) -> String, count: u64, signed: u64) -> Log {
        let (mut tree, mut full) = (LogTree::new(), Vec::new());
        let lines: Vec<_> = (0..count).map(|n| line(n, &texts(n))).collect();
        let mut own = sign(&tree);
        let mut partials = Vec::new();
        for line in &lines {
            tree.push(&Line::parse(line).unwrap().entry(), &mut full);
            if tree.size() == signed {
                (own, partials) = (sign(&tree), tree.partials());
            }
        }
        Log { lines, shelf: Shelf(full.into_iter().chain(partials).collect()), own }
    }

    fn good() -> Log {
        log(|n| format!("record {n}"), 700, 650)
    }

    fn check_with(
        log: &Log,
        remembered: &[&SignedCheckpoint],
    ) -> Result<Report, Fault<std::convert::Infallible>> {
        let named = |name: &str, checkpoint: &SignedCheckpoint| Remembered {
            name: name.into(),
            checkpoint: checkpoint.clone(),
        };
        let listed = log.shelf.0.keys().copied().collect();
        let remembered = remembered.iter().map(|checkpoint| named("kept", checkpoint)).collect();
        let mut verifier = Verifier::new(&log.shelf, listed, named("checkpoint", &log.own), remembered)?;
        verifier.file(0)?;
        for line in &log.lines {
            verifier.line(line)?;
        }
        verifier.finish()
    }

    fn check(log: &Log) -> Result<Report, Fault<std::convert::Infallible>> {
        check_with(log, &[])
    }

    #[test]
    fn a_good_log_verifies_and_so_does_what_came_after_its_checkpoint() {
        // Two full and one partial tile of level 0 and of entries, one partial of level 1.
        assert_eq!(check(&good()), Ok(Report { records: 700, pruned: 0, signed: 650, tiles: 7 }));
        assert_eq!(check(&log(|n| n.to_string(), 3, 0)).unwrap().signed, 0);
    }

    #[test]
    fn every_edited_record_is_found_and_named() {
        for index in [0, 255, 256, 500, 649] {
            let mut log = good();
            log.lines[index] = line(index as u64, "something else");
            let Err(Fault::Record { index: found, .. }) = check(&log) else { panic!("{index}") };
            assert_eq!(found, index as u64);
        }
    }

    /// A log whose first record fixes a retention of 100 s, with a record each second, a `prune` record at `prune_at`, and the
    /// lines of `pruned` removed.
    fn with_pruned(
        prune_at: u64,
        prune: &str,
        pruned: std::ops::Range<u64>,
        signed: u64,
    ) -> Result<Report, Fault<std::convert::Infallible>> {
        let end = format!(",\"proposal\":\"1\",\"seal\":\"{}\"", "0f".repeat(16));
        with_prune_record(prune_at, &format!("{prune}{end}"), pruned, signed)
    }

    fn with_unsealed_prune(
        prune_at: u64,
        prune: &str,
        pruned: std::ops::Range<u64>,
    ) -> Result<Report, Fault<std::convert::Infallible>> {
        with_prune_record(prune_at, &format!("{prune},\"proposal\":\"1\""), pruned, 300)
    }

    fn with_prune_record(
        prune_at: u64,
        prune: &str,
        pruned: std::ops::Range<u64>,
        signed: u64,
    ) -> Result<Report, Fault<std::convert::Infallible>> {
        let record = |n: u64| match n {
            0 => "{\"action\":\"init\",\"time_ms\":0,\"retention_s\":100}".to_owned(),
            n if n == prune_at => format!("{{\"action\":\"prune\",\"time_ms\":{},{prune}}}", n * 1000),
            n => format!("{{\"action\":\"lease\",\"time_ms\":{}}}", n * 1000),
        };
        let (mut tree, mut full) = (LogTree::new(), Vec::new());
        let (mut own, mut partials, mut lines) = (sign(&tree), Vec::new(), Vec::new());
        for n in 0..300 {
            let (mut text, record) = (Vec::new(), record(n));
            let line = Line { index: n, salt: [7; 16], record: &record };
            tree.push(&line.entry(), &mut full);
            if pruned.contains(&n) {
                Pruned { index: n, entry: line.entry() }.write(&mut text);
            } else {
                line.write(&mut text);
            }
            text.pop();
            lines.push(text);
            if tree.size() == signed {
                (own, partials) = (sign(&tree), tree.partials());
            }
        }
        check(&Log { lines, shelf: Shelf(full.into_iter().chain(partials).collect()), own })
    }

    #[test]
    fn records_may_be_missing_only_where_a_signed_record_allows_it_after_the_retention() {
        let prune = "\"outcome\":\"done\",\"before_ms\":150000,\"pruned_before\":150";
        let report = with_pruned(250, prune, 1..150, 300).unwrap();
        assert_eq!((report.records, report.pruned), (300, 149));
        assert_eq!(with_pruned(260, prune, 20..30, 300).unwrap().pruned, 10);
        for (what, outcome) in [
            ("one too many", with_pruned(250, prune, 1..151, 300)),
            ("too young", with_pruned(249, prune, 1..150, 300)),
            ("not signed yet", with_pruned(250, prune, 1..150, 250)),
            ("no such record", with_pruned(999, prune, 1..150, 300)),
            ("a later one", with_pruned(250, prune, 251..260, 300)),
            ("the first record", with_pruned(250, prune, 0..150, 300)),
            (
                "more than is old",
                with_pruned(
                    250,
                    "\"outcome\":\"done\",\"before_ms\":150000,\"pruned_before\":200",
                    160..200,
                    300,
                ),
            ),
            (
                "itself",
                with_pruned(250, "\"outcome\":\"done\",\"before_ms\":1,\"pruned_before\":300", 251..252, 300),
            ),
            ("refused", with_pruned(250, &prune.replace("done", "refused"), 1..150, 300)),
            ("by nobody", with_pruned(250, &prune.replace("\"outcome\"", "\"proposed\""), 1..150, 300)),
            // What whoever can write the folder adds while the service is down has no seal, and is signed at the next unlock.
            ("not sealed", with_unsealed_prune(250, prune, 1..150)),
        ] {
            assert!(matches!(outcome, Err(Fault::Pruned(_))), "{what}: {outcome:?}");
        }
    }

    #[test]
    fn an_edit_is_found_by_the_checkpoint_when_the_tiles_were_edited_too() {
        let edited = log(|n| if n == 300 { "other".into() } else { format!("record {n}") }, 700, 650);
        let forged = Log { own: good().own, ..edited };
        assert_eq!(check(&forged), Err(Fault::Head { name: "checkpoint".into(), size: 650 }));
    }

    #[test]
    fn removed_added_and_moved_records_are_found() {
        let mut removed = good();
        removed.lines.remove(300);
        assert_eq!(check(&removed), Err(Fault::Index { found: 301, expected: 300 }));
        let mut twice = good();
        twice.lines.insert(300, twice.lines[300].clone());
        assert_eq!(check(&twice), Err(Fault::Index { found: 300, expected: 301 }));
        let mut swapped = good();
        swapped.lines.swap(10, 11);
        assert_eq!(check(&swapped), Err(Fault::Index { found: 11, expected: 10 }));
        let mut renumbered = good();
        renumbered.lines[10] = line(10, "record 11");
        renumbered.lines[11] = line(11, "record 10");
        assert!(matches!(check(&renumbered), Err(Fault::Record { index: 10, .. })));
        let mut garbage = good();
        garbage.lines[5].push(b' ');
        assert_eq!(check(&garbage), Err(Fault::Line { index: 5, error: LineError::Frame }));
    }

    #[test]
    fn a_log_that_was_cut_off_is_found_by_its_checkpoint_and_by_its_tiles() {
        let mut cut = good();
        cut.lines.truncate(640);
        assert!(check(&cut).is_err());
        cut.shelf.0.retain(|path, _| path.is_full());
        let cut_off = Fault::CutOff { name: "checkpoint".into(), size: 650, records: 640 };
        assert_eq!(check(&cut), Err(cut_off));
        // With the checkpoint of then, only what somebody kept elsewhere tells.
        let older = log(|n| format!("record {n}"), 640, 640);
        assert!(check(&older).is_ok());
        let kept = good().own;
        assert_eq!(
            check_with(&older, &[&kept]),
            Err(Fault::CutOff { name: "kept".into(), size: 650, records: 640 })
        );
    }

    #[test]
    fn a_log_that_was_replaced_is_found_by_what_somebody_kept() {
        let fork = log(|n| if n >= 600 { "other".into() } else { format!("record {n}") }, 900, 900);
        assert!(check(&fork).is_ok());
        let kept = good().own;
        assert_eq!(check_with(&fork, &[&kept]), Err(Fault::Head { name: "kept".into(), size: 650 }));
        let before = log(|n| format!("record {n}"), 600, 600).own;
        assert!(check_with(&fork, &[&before]).is_ok(), "the fork began later");
    }

    #[test]
    fn every_edited_missing_or_surplus_tile_is_found() {
        let paths: Vec<_> = good().shelf.0.keys().copied().collect();
        for path in paths {
            for bit in [0, 8 * path.file_len() - 1] {
                let mut log = good();
                log.shelf.0.get_mut(&path).unwrap()[bit / 8] ^= 1 << (bit % 8);
                assert!(check(&log).is_err(), "{path}, bit {bit}");
            }
            let mut log = good();
            log.shelf.0.get_mut(&path).unwrap().pop();
            assert_eq!(check(&log), Err(Fault::Tile(path)));
            log.shelf.0.remove(&path);
            assert_eq!(check(&log), Err(Fault::Missing(path)));
        }
        let surplus: TilePath = "tile/0/003".parse().unwrap();
        let mut log = good();
        log.shelf.0.insert(surplus, vec![0; 8192]);
        assert_eq!(check(&log), Err(Fault::Surplus(surplus)));
    }

    #[test]
    fn files_that_do_not_follow_one_another_are_found() {
        let log = good();
        let own = Remembered { name: "checkpoint".into(), checkpoint: log.own };
        let listed = log.shelf.0.keys().copied().collect();
        let mut verifier = Verifier::new(&log.shelf, listed, own, Vec::new()).unwrap();
        assert_eq!(verifier.file(1), Err(Fault::File { found: 1, expected: 0 }));
        verifier.file(0).unwrap();
        verifier.line(&log.lines[0]).unwrap();
        assert_eq!(verifier.file(2), Err(Fault::File { found: 2, expected: 1 }));
    }
}
