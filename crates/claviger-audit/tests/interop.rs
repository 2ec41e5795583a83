//! Against independent implementations: the crates `tlog_tiles` and `signed_note`, translated from Go's by others. What ours
//! write, they read and believe; what they make, ours read; what was tampered with, neither believes.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

use std::collections::BTreeMap;

use claviger_audit::cosignature::cosign;
use claviger_audit::note::KeyKind;
use claviger_audit::proof::{prove_consistency, prove_inclusion, verify_consistency, verify_inclusion};
use claviger_audit::tree::root;
use claviger_audit::{
    Checkpoint, Hash, LogTree, Note, SignedCheckpoint, SigningKey, TilePath, TileTree, Tiles, VerifierKey,
};
use signed_note::{StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::{TileHashReader, TileReader, check_record, check_tree, prove_record, prove_tree};

const ORIGIN: &str = "claviger.invalid/log/000102030405060708090a0b0c0d0e0f";
const SIZES: [u64; 9] = [1, 2, 3, 255, 256, 257, 512, 70_000, 65_536];

fn entry(n: u64) -> [u8; 32] {
    claviger_audit::leaf_hash(&n.to_be_bytes()).0
}

/// Tiles by their paths, read by either side.
#[derive(Clone)]
struct Shelf(BTreeMap<String, Vec<u8>>);

impl Shelf {
    fn of(size: u64) -> (LogTree, Self) {
        let (mut tree, mut tiles) = (LogTree::new(), Vec::new());
        (0..size).for_each(|n| tree.push(&entry(n), &mut tiles));
        tiles.extend(tree.partials());
        (tree, Self(tiles.into_iter().map(|(path, bytes)| (path.to_string(), bytes)).collect()))
    }
}

impl Tiles for Shelf {
    type Error = std::convert::Infallible;
    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(self.0.get(&path.to_string()).cloned())
    }
}

impl TileReader for Shelf {
    fn height(&self) -> u8 {
        8
    }
    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        // Theirs name the height, which tlog-tiles fixed at 8 and left out.
        let path = |tile: &tlog_tiles::Tile| tile.path().replacen("tile/8/", "tile/", 1);
        Ok(tiles.iter().map(|tile| self.0[&path(tile)].clone()).collect())
    }
    fn save_tiles(&self, _tiles: &[tlog_tiles::Tile], _data: &[Vec<u8>]) {}
}

fn theirs(hash: Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(hash.0)
}

fn ours(hashes: &[tlog_tiles::Hash]) -> Vec<Hash> {
    hashes.iter().map(|hash| Hash(hash.0)).collect()
}

#[test]
fn they_read_our_tiles_and_make_the_same_proofs_from_them() {
    for size in SIZES {
        let (tree, shelf) = Shelf::of(size);
        let reader = TileHashReader::new(size, theirs(tree.root()), &shelf);
        let tiles = TileTree::new(&shelf, size);
        for index in [0, size / 3, size / 2, size - 1] {
            let proof = prove_record(size, index, &reader).unwrap();
            assert_eq!(ours(&proof), prove_inclusion(&tiles, index, size).unwrap(), "{index} in {size}");
            let leaf = claviger_audit::leaf_hash(&entry(index));
            assert!(check_record(&proof, size, theirs(tree.root()), index, theirs(leaf)).is_ok());
            assert!(verify_inclusion(&leaf, index, size, &tree.root(), &ours(&proof)).is_ok());
        }
        for smaller in [1, size / 3, size / 2, size - 1, size].into_iter().filter(|smaller| *smaller > 0) {
            let proof = prove_tree(size, smaller, &reader).unwrap();
            assert_eq!(
                ours(&proof),
                prove_consistency(&tiles, smaller, size).unwrap(),
                "{smaller} in {size}"
            );
            let before = root(&tiles, smaller).unwrap();
            assert!(check_tree(&proof, size, theirs(tree.root()), smaller, theirs(before)).is_ok());
            assert!(verify_consistency(smaller, &before, size, &tree.root(), &ours(&proof)).is_ok());
        }
    }
}

#[test]
fn neither_side_believes_tiles_of_which_a_byte_was_changed() {
    let (tree, mut shelf) = Shelf::of(700);
    shelf.0.get_mut("tile/0/001").unwrap()[5000] ^= 1;
    let reader = TileHashReader::new(700, theirs(tree.root()), &shelf);
    let leaf = claviger_audit::leaf_hash(&entry(300));
    // They look at the tiles that the root is made of, and at some others; at the latest the proof from them is wrong.
    let refused = prove_record(700, 300, &reader)
        .map_or(true, |proof| check_record(&proof, 700, theirs(tree.root()), 300, theirs(leaf)).is_err());
    assert!(refused);
    let ours = prove_inclusion(&TileTree::new(&shelf, 700), 300, 700).unwrap();
    assert!(verify_inclusion(&leaf, 300, 700, &tree.root(), &ours).is_err());
}

#[test]
fn our_tiles_have_the_places_that_they_give_them() {
    for size in SIZES {
        let (_, shelf) = Shelf::of(size);
        let mut named: Vec<_> = tlog_tiles::Tile::new_tiles(8, 0, size)
            .iter()
            .map(|tile| tile.path().replacen("tile/8/", "tile/", 1))
            .collect();
        named.sort();
        let hashes: Vec<_> =
            shelf.0.keys().filter(|path| !path.starts_with("tile/entries/")).cloned().collect();
        assert_eq!(hashes, named, "{size}");
    }
}

fn key() -> SigningKey {
    SigningKey::from_seed(ORIGIN, KeyKind::Log, &[9; 32]).unwrap()
}

fn list(key: &VerifierKey) -> VerifierList {
    VerifierList::new(vec![Box::new(StandardVerifier::new(&key.to_string()).unwrap())])
}

#[test]
fn they_read_our_checkpoint_and_believe_it_with_our_key_alone() {
    let (tree, _) = Shelf::of(700);
    let signed = SignedCheckpoint::sign(700, tree.root(), &key()).unwrap();
    let witness = SigningKey::from_seed("witness.example/1", KeyKind::Witness, &[3; 32]).unwrap();
    for text in [signed.note().to_string(), cosign(&signed, &witness, 1_700_000_000).unwrap().to_string()] {
        let note = signed_note::Note::from_bytes(text.as_bytes()).unwrap();
        assert_eq!(note.verify(&list(key().verifier())).unwrap().0.len(), 1);
        let checkpoint = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
        assert_eq!((checkpoint.origin(), checkpoint.size()), (ORIGIN, 700));
        assert_eq!(*checkpoint.hash(), theirs(tree.root()));
        let stranger = SigningKey::from_seed(ORIGIN, KeyKind::Log, &[8; 32]).unwrap();
        assert!(note.verify(&list(stranger.verifier())).is_err());
        let forged = text.replacen("\n700\n", "\n701\n", 1);
        let forged = signed_note::Note::from_bytes(forged.as_bytes()).unwrap();
        assert!(forged.verify(&list(key().verifier())).is_err());
    }
}

#[test]
fn we_read_their_checkpoint_and_believe_it_with_their_key_alone() {
    use base64::Engine as _;
    let public = key().verifier().to_string();
    let id = public.split('+').nth(1).unwrap().to_owned();
    let seed = base64::engine::general_purpose::STANDARD.encode([&[1u8][..], &[9; 32]].concat());
    let signer = StandardSigner::new(&format!("PRIVATE+KEY+{ORIGIN}+{id}+{seed}")).unwrap();
    let checkpoint =
        tlog_tiles::Checkpoint::new(ORIGIN, 3, theirs(claviger_audit::empty_root()), "").unwrap();
    let mut note = signed_note::Note::new(&checkpoint.to_bytes(), &[]).unwrap();
    note.add_sigs(&[&signer]).unwrap();
    let read = SignedCheckpoint::open(&note.to_bytes(), key().verifier()).unwrap();
    assert_eq!(
        *read.checkpoint(),
        Checkpoint { origin: ORIGIN.into(), size: 3, root: claviger_audit::empty_root() }
    );
    // Ed25519 has one signature for a key and a text: the notes are the same byte for byte.
    let own = SignedCheckpoint::sign(3, claviger_audit::empty_root(), &key()).unwrap();
    assert_eq!(own.note().to_string().as_bytes(), note.to_bytes());
    let stranger: VerifierKey =
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
    assert!(Note::parse(&note.to_bytes()).unwrap().verify(&stranger).is_err());
}
