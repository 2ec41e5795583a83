//! Objects whose envelopes are lost (docs/format.md §8.1): their footers say what they are.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use claviger_format::{Error, Kind, Manifest, ObjectReader, Structure};
use common::{Aead, Stored, World, plaintext};

fn read(stored: &Stored, kind: Kind, body: &[u8]) -> Result<Vec<u8>, Error> {
    let manifest: Arc<Manifest> = stored.manifest_of(&stored.body)?;
    let mut reader = ObjectReader::<Aead>::unnamed(&stored.dek, kind, &manifest)?;
    let mut out = Vec::new();
    for piece in body.chunks(70_001) {
        reader.push(piece, &mut out)?;
    }
    reader.finish()?;
    Ok(out)
}

#[test]
fn an_object_without_its_envelope_reads_back_as_what_it_was() {
    let world = World::new(81);
    for len in [0, 5, 65_536, 200_001] {
        let stored = world.put("k", plaintext(len, 3));
        assert_eq!(read(&stored, Kind::Single, &stored.body).unwrap(), stored.plaintext, "{len} bytes");
    }
    let parts = [(2, plaintext(5 << 20, 1), true), (7, plaintext(70_000, 2), false)];
    let stored = world.multipart("k", &parts);
    assert_eq!(read(&stored, Kind::Part, &stored.body).unwrap(), stored.plaintext);
}

#[test]
fn an_object_without_its_envelope_opens_as_no_other_kind() {
    let world = World::new(82);
    let single = world.put("k", plaintext(100, 3));
    assert!(read(&single, Kind::Part, &single.body).is_err());
    let bound = world.multipart("k", &[(1, plaintext(100, 1), true)]);
    assert!(read(&bound, Kind::Single, &bound.body).is_err());
    for parts in [vec![(1, plaintext(100, 1), false)], vec![(4, plaintext(100, 1), true)]] {
        let stored = world.multipart("k", &parts);
        let refused = Err(Error::Inconsistent(Structure::Footer));
        assert_eq!(read(&stored, Kind::Single, &stored.body), refused);
        assert_eq!(read(&stored, Kind::Footer, &stored.body), refused);
    }
}

#[test]
fn a_flipped_bit_is_noticed_without_an_envelope_too() {
    let world = World::new(83);
    let stored = world.put("k", plaintext(200_000, 3));
    let end = stored.body.len();
    for at in [5, 20, 40, 70, 96, 70_000, 199_000, end - 300, end - 200, end - 50, end - 1] {
        let mut body = stored.body.clone();
        body[at] ^= 4;
        assert!(read(&stored, Kind::Single, &body).is_err(), "byte {at}");
    }
}
