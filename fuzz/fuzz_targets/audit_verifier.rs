//! A log's folder in which bytes were changed, files cut, removed or added never verifies as more than what was signed: whatever
//! verifies has the records that were there, as far as the checkpoint reaches.
#![no_main]

use std::collections::BTreeMap;
use std::convert::Infallible;

use claviger_audit::note::KeyKind;
use claviger_audit::verify::Remembered;
use claviger_audit::{Line, LogTree, SignedCheckpoint, SigningKey, TilePath, Tiles, Verifier};
use libfuzzer_sys::fuzz_target;

const RECORDS: u64 = 300;

struct Shelf(BTreeMap<TilePath, Vec<u8>>);

impl Tiles for Shelf {
    type Error = Infallible;
    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(path).cloned())
    }
}

fn good() -> (Vec<Vec<u8>>, Shelf, SignedCheckpoint) {
    let (mut tree, mut tiles, mut lines) = (LogTree::new(), Vec::new(), Vec::new());
    for index in 0..RECORDS {
        let mut line = Vec::new();
        Line { index, salt: [7; 16], record: &format!("{{\"n\":{index}}}") }.write(&mut line);
        line.pop();
        tree.push(&Line::parse(&line).expect("a line").entry(), &mut tiles);
        lines.push(line);
    }
    tiles.extend(tree.partials());
    let key = SigningKey::from_seed("log.example/1", KeyKind::Log, &[1; 32]).expect("a name");
    let signed = SignedCheckpoint::sign(RECORDS, tree.root(), &key).expect("a log's key");
    (lines, Shelf(tiles.into_iter().collect()), signed)
}

/// Three bytes for each change: what, where, to what.
fn spoil(lines: &mut Vec<Vec<u8>>, shelf: &mut Shelf, changes: &[u8]) {
    for change in changes.as_chunks::<3>().0.iter().take(8) {
        let [what, at, value] = *change;
        let line = usize::from(at) * 2 % lines.len().max(1);
        let other = usize::from(value) % lines.len().max(1);
        let path = shelf.0.keys().nth(usize::from(at) % shelf.0.len().max(1)).copied();
        match (what % 6, path) {
            (0, _) if !lines.is_empty() => drop(lines.remove(line)),
            (1, _) if !lines.is_empty() => lines.swap(line, other),
            (2, _) if !lines.is_empty() && !lines[line].is_empty() => {
                let byte = usize::from(value) % lines[line].len();
                lines[line][byte] ^= 1 << (what >> 5);
            }
            (3, _) => lines.insert(line, vec![value; usize::from(at)]),
            (4, Some(path)) => drop(shelf.0.remove(&path)),
            (5, Some(path)) => {
                let tile = shelf.0.get_mut(&path).expect("it is listed");
                let len = tile.len();
                tile[usize::from(value) % len] ^= 1 << (what >> 5);
            }
            _ => {}
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (written, mut shelf, signed) = good();
    let mut lines = written.clone();
    spoil(&mut lines, &mut shelf, data);
    let own = Remembered { name: "own".to_owned(), checkpoint: signed };
    let listed = shelf.0.keys().copied().collect();
    let verify = || {
        let mut verifier = Verifier::new(&shelf, listed, own, Vec::new()).ok()?;
        verifier.file(0).ok()?;
        lines.iter().try_for_each(|line| verifier.line(line).map(drop)).ok()?;
        verifier.finish().ok()
    };
    if verify().is_some() {
        assert_eq!(lines[..written.len()], written[..], "an edit was not found");
    }
});
