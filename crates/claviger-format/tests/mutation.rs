//! Whatever the provider does to stored bytes is rejected, and nothing but a true prefix comes out (docs/format.md
//! §3.10, §10.4).
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use claviger_format::*;
use common::*;

const MIB5: usize = 5 * 1024 * 1024;

fn flips(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        (bit, flipped)
    })
}

fn two_parts(world: &World, bound: bool) -> Stored {
    world.multipart("a/b", &[(1, plaintext(MIB5, 1), true), (7, plaintext(70_000, 2), bound)])
}

#[test]
fn every_flipped_bit_of_a_small_single_object_is_rejected() {
    let world = World::new(1);
    for len in [0, 1, 5, 300] {
        let stored = world.put("a/b", plaintext(len, 3));
        stored.assert_reads(&stored.body);
        for (bit, body) in flips(&stored.body) {
            stored.assert_rejected(&body, &format!("bit {bit} of an object of {len} bytes"));
        }
    }
}

#[test]
fn flipped_bits_in_header_segments_and_footer_of_a_larger_single_object_are_rejected() {
    let world = World::new(2);
    let stored = world.put("a/b", plaintext(200_000, 3));
    let body_end = stored.boundaries[2];
    let sampled = (96..body_end).step_by(4_001);
    for byte in (0..96).chain(sampled).chain(body_end..stored.body.len()) {
        let mut body = stored.body.clone();
        body[byte] ^= 0x10;
        stored.assert_rejected(&body, &format!("byte {byte}"));
    }
}

#[test]
fn every_flipped_bit_of_a_multipart_footer_is_rejected() {
    let world = World::new(3);
    for bound in [true, false] {
        let stored = two_parts(&world, bound);
        let footer_at = stored.body.len() - 208 - 80;
        let suffix = stored.body[footer_at..].to_vec();
        let open = |suffix: &[u8]| {
            let size = stored.body.len() as u64;
            footer::open(&stored.dek, stored.epoch_id, stored.object_id, suffix, size)
        };
        assert!(matches!(open(&suffix), Ok(FooterRead::Verified(_))));
        for (bit, suffix) in flips(&suffix) {
            assert!(open(&suffix).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn every_flipped_bit_of_part_headers_and_pad_is_rejected() {
    let world = World::new(4);
    let stored = two_parts(&world, true);
    stored.assert_reads(&stored.body);
    let (second, pad) = (stored.boundaries[2], stored.boundaries[4]);
    let pad_end = stored.boundaries[5];
    assert!(pad_end > pad, "there is a pad to flip");
    let mut body = stored.body.clone();
    let bits = (0..96 * 8).chain(second * 8..(second + 96) * 8).chain(pad * 8..pad_end * 8);
    for bit in bits {
        body[bit / 8] ^= 1 << (bit % 8);
        stored.assert_rejected(&body, &format!("bit {bit}"));
        body[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn every_flipped_bit_of_an_unbound_part_header_is_rejected() {
    let world = World::new(5);
    let stored = two_parts(&world, false);
    let manifest = stored.manifest_of(&stored.body).unwrap();
    let start = u64::try_from(MIB5).unwrap();
    for first in [start, start + 65_536] {
        let range = PlainRange::new(first, first + 9).unwrap();
        let covering = manifest.covering(range).unwrap();
        let header_at = usize::try_from(manifest.part_cipher_range(1).unwrap().first).unwrap();
        let data =
            usize::try_from(covering.data.first).unwrap()..=usize::try_from(covering.data.last).unwrap();
        let read = |body: &[u8]| -> Result<Vec<u8>> {
            let header = covering.first_header.map(|_| &body[header_at..header_at + 96]);
            let mut reader = ObjectReader::<Aead>::multipart_range(&stored.dek, &manifest, range, header)?;
            let mut out = Vec::new();
            reader.push(&body[data.clone()], &mut out)?;
            reader.finish().map(|()| out)
        };
        let truth = &stored.plaintext[usize::try_from(first).unwrap()..][..10];
        assert_eq!(read(&stored.body).unwrap(), truth);
        let mut body = stored.body.clone();
        for bit in header_at * 8..(header_at + 96) * 8 {
            body[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&body).is_err(), "bit {bit} of the unbound header");
            body[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_range_of_an_unbound_part_is_refused_without_its_header() {
    let world = World::new(6);
    let stored = two_parts(&world, false);
    let manifest = stored.manifest_of(&stored.body).unwrap();
    let first = MIB5 as u64 + 65_536;
    let range = PlainRange::new(first, first).unwrap();
    assert!(manifest.covering(range).unwrap().first_header.is_some());
    assert!(ObjectReader::<Aead>::multipart_range(&stored.dek, &manifest, range, None).is_err());
}

#[test]
fn every_truncation_at_a_boundary_and_one_beside_it_is_rejected() {
    let world = World::new(7);
    let single = world.put("a/b", plaintext(150_000, 3));
    let multipart = two_parts(&world, true);
    for stored in [&single, &multipart] {
        let size = stored.body.len();
        let segments = (0..3).map(|i| 96 + i * 65_552);
        let cuts: Vec<usize> = stored.boundaries.iter().copied().chain(segments).collect();
        for cut in cuts.iter().flat_map(|cut| [cut.saturating_sub(1), *cut, cut + 1]) {
            if cut < size {
                stored.assert_rejected(&stored.body[..cut], &format!("cut at {cut} of {size}"));
                stored.assert_rejected(&stored.body[size - cut..], &format!("prefix cut to {cut} of {size}"));
            }
        }
    }
}

#[test]
fn truncation_repaired_to_a_valid_size_is_rejected() {
    let world = World::new(8);
    let stored = world.put("a/b", plaintext(150_000, 3));
    for kept in [0, 65_536, 131_072] {
        let footer = &stored.body[stored.body.len() - 248..];
        let mut body = stored.body[..usize::try_from(layout::h(kept).unwrap()).unwrap()].to_vec();
        body.extend_from_slice(footer);
        assert_eq!(layout::g_inverse(body.len() as u64), Some(kept), "the size is one that an object has");
        stored.assert_rejected(&body, "shorter with its own footer");
    }
}

#[test]
fn appended_bytes_are_rejected() {
    let world = World::new(9);
    for stored in [world.put("a/b", plaintext(70_000, 3)), two_parts(&world, true)] {
        for extra in [1, 16, 96, 65_552] {
            let body = [&stored.body[..], &vec![0; extra]].concat();
            stored.assert_rejected(&body, "appended zeros");
            let body = [&stored.body[..], &stored.body[..extra]].concat();
            stored.assert_rejected(&body, "appended old bytes");
        }
    }
}

#[test]
fn surplus_bytes_after_a_complete_object_are_rejected() {
    let world = World::new(10);
    let stored = world.put("a/b", plaintext(10, 3));
    let envelope = stored.open_envelope().unwrap();
    let mut reader = ObjectReader::<Aead>::single(&stored.dek, &envelope, stored.body.len() as u64).unwrap();
    let mut out = Vec::new();
    reader.push(&stored.body, &mut out).unwrap();
    assert!(reader.complete());
    assert!(matches!(reader.push(&[0], &mut out), Err(Error::LengthMismatch { .. })));
    assert!(reader.finish().is_err());
}

#[test]
fn swapped_segments_are_rejected() {
    let world = World::new(11);
    let stored = world.put("a/b", plaintext(4 * 65_536, 3));
    let segment = |i: usize| 96 + i * 65_552..96 + (i + 1) * 65_552;
    for (a, b) in [(0, 1), (1, 3), (0, 3)] {
        let mut body = stored.body.clone();
        body[segment(a)].copy_from_slice(&stored.body[segment(b)]);
        body[segment(b)].copy_from_slice(&stored.body[segment(a)]);
        stored.assert_rejected(&body, "two segments swapped");
        let mut body = stored.body.clone();
        body[segment(a)].copy_from_slice(&stored.body[segment(b)]);
        stored.assert_rejected(&body, "a segment repeated");
    }
}

#[test]
fn swapped_and_repeated_parts_are_rejected_even_with_equal_content() {
    let world = World::new(12);
    let same = plaintext(MIB5, 1);
    let stored = world.multipart("a/b", &[(1, same.clone(), true), (2, same, true), (3, vec![1], false)]);
    stored.assert_reads(&stored.body);
    let (first, second, third) = (stored.boundaries[0], stored.boundaries[2], stored.boundaries[4]);
    let (a, b, rest) = (&stored.body[first..second], &stored.body[second..third], &stored.body[third..]);
    stored.assert_rejected(&[b, a, rest].concat(), "parts swapped");
    stored.assert_rejected(&[a, a, rest].concat(), "part repeated");
    stored.assert_rejected(&[b, b, rest].concat(), "second part repeated");
}

#[test]
fn an_omitted_part_is_rejected_even_if_the_size_is_repaired_by_pad() {
    let world = World::new(13);
    let part = |seed| plaintext(MIB5, seed);
    let stored = world
        .multipart("a/b", &[(1, plaintext(2 * MIB5, 1), true), (2, part(2), true), (3, vec![4; 9], true)]);
    let (second, third) = (stored.boundaries[2], stored.boundaries[4]);
    let omitted = [&stored.body[..second], &stored.body[third..]].concat();
    stored.assert_rejected(&omitted, "part omitted");
    let zeros = vec![0; third - second];
    let footer_at = stored.boundaries[7];
    let padded = [&stored.body[..second], &stored.body[third..footer_at], &zeros, &stored.body[footer_at..]];
    let padded = padded.concat();
    assert_eq!(padded.len(), stored.body.len());
    stored.assert_rejected(&padded, "part omitted, pad longer");
    let shorter = layout::g(2 * MIB5 as u64 + 9).unwrap();
    let bare = 208 + 120;
    let parts = [&stored.body[..second], &stored.body[third..stored.boundaries[6]]].concat();
    let pad = vec![0; usize::try_from(shorter).unwrap() - parts.len() - bare];
    let sized = [&parts[..], &pad, &stored.body[stored.body.len() - bare..]].concat();
    assert_eq!(layout::g_inverse(sized.len() as u64), Some(2 * MIB5 as u64 + 9));
    stored.assert_rejected(&sized, "part omitted, size valid for the shorter object");
}

#[test]
fn another_attempt_of_a_bound_part_is_rejected() {
    let world = World::new(14);
    let (object_id, dek) = world.object_id();
    let (first, second) = (plaintext(MIB5, 1), plaintext(1_000, 2));
    let (unit1, state1) = world.part(&dek, object_id, 1, &first);
    let (unit2, state2) = world.part(&dek, object_id, 2, &second);
    let (other_attempt, _) = world.part(&dek, object_id, 2, &plaintext(1_000, 9));
    let (same_content, _) = world.part(&dek, object_id, 2, &second);
    let info = FooterInfo { created_ms: 1, crc64: None, checksum: None };
    let entries = [state1.entry(), state2.entry()];
    let footer = footer::seal(&dek, world.epoch_id, object_id, &entries, &info, &world.rng).unwrap();
    let name = name("k");
    let envelope = world.seal_envelope(&dek, object_id, &name, Layout::Multipart);
    let plaintext = [&first[..], &second].concat();
    let body = [&unit1[..], &unit2, &footer].concat();
    let epoch_id = world.epoch_id;
    let stored = Stored { dek, epoch_id, object_id, body, envelope, plaintext, name, boundaries: vec![] };
    stored.assert_reads(&stored.body);
    stored.assert_rejected(&[&unit1[..], &other_attempt, &footer].concat(), "other attempt");
    stored.assert_rejected(&[&unit1[..], &same_content, &footer].concat(), "other attempt, same content");
}

#[test]
fn parts_bodies_footers_and_envelopes_of_other_uploads_are_rejected() {
    let world = World::new(15);
    let (a, b) = (two_parts(&world, true), two_parts(&world, true));
    let (second, pad) = (a.boundaries[2], a.boundaries[4]);
    a.assert_rejected(&b.body, "body of another object");
    a.assert_rejected(&[&b.body[..second], &a.body[second..]].concat(), "first part of another upload");
    a.assert_rejected(&[&a.body[..second], &b.body[second..pad], &a.body[pad..]].concat(), "second part");
    a.assert_rejected(&[&a.body[..pad], &b.body[pad..]].concat(), "footer of another upload");
    let (a, b) = (world.put("x", plaintext(500, 1)), world.put("x", plaintext(500, 2)));
    a.assert_rejected(&b.body, "single body of another object");
    let end = a.body.len() - 96;
    a.assert_rejected(&[&a.body[..end], &b.body[end..]].concat(), "footer header of another object");
    let mixed = Stored { envelope: b.envelope.clone(), ..a };
    assert_eq!(mixed.open_envelope(), Err(Error::BindingMismatch));
}

#[test]
fn an_aborted_upload_is_no_object() {
    let world = World::new(16);
    let stored = two_parts(&world, true);
    let parts_only = &stored.body[..stored.boundaries[4]];
    stored.assert_rejected(parts_only, "parts without a footer");
    let padded = [parts_only, &vec![0; stored.body.len() - parts_only.len()]].concat();
    stored.assert_rejected(&padded, "parts and zeros");
}

#[test]
fn every_flipped_bit_and_every_truncation_of_an_envelope_is_rejected() {
    let world = World::new(17);
    let stored = world.put("a/b", plaintext(5, 1));
    let bytes = decode(&stored.envelope);
    for (bit, bytes) in flips(&bytes) {
        let opened = Envelope::parse(&encode(&bytes)).and_then(|e| e.open(&stored.dek, &stored.name));
        assert!(opened.is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(Envelope::parse(&encode(&bytes[..cut])).is_err(), "cut at {cut}");
    }
    assert!(Envelope::parse(&encode(&[&bytes[..], &[0]].concat())).is_err());
    for text in [format!("{}=", stored.envelope), format!("{} ", stored.envelope), String::new()] {
        assert!(Envelope::parse(&text).is_err());
    }
}

#[test]
fn non_canonical_base64_of_an_envelope_is_rejected() {
    let world = World::new(18);
    let stored = (1..4)
        .map(|key_len| {
            let (object_id, dek) = world.object_id();
            let name = name("k");
            let metadata = Metadata { user: vec![("a".repeat(key_len), vec![])], ..Metadata::default() };
            let layout = Layout::Multipart;
            envelope::seal(&dek, world.epoch_id, object_id, &name, &layout, &metadata, 999, &world.rng)
                .unwrap()
        })
        .find(|text| text.len() % 4 != 0)
        .expect("some length leaves trailing bits");
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = stored.chars().last().unwrap();
    let next = alphabet.chars().cycle().skip_while(|c| *c != last).nth(1).unwrap();
    assert!(Envelope::parse(&format!("{}{next}", &stored[..stored.len() - 1])).is_err());
}

#[test]
fn an_envelope_of_the_old_name_is_rejected_under_the_new_one_and_the_other_way_round() {
    let world = World::new(19);
    let stored = world.put("old", plaintext(5, 1));
    let old = Envelope::parse(&stored.envelope).unwrap();
    let opened = old.open(&stored.dek, &stored.name).unwrap();
    let copy = name("new");
    let text = world.seal_envelope(&stored.dek, stored.object_id, &copy, opened.layout);
    let new = Envelope::parse(&text).unwrap();
    assert_eq!(new.open(&stored.dek, &copy).unwrap().layout, opened.layout);
    assert_eq!(new.open(&stored.dek, &stored.name), Err(Error::BindingMismatch));
    assert_eq!(old.open(&stored.dek, &copy), Err(Error::BindingMismatch));
    let bucket = BucketId::new("vault#ffffffffffffffffffffffffffffffff").unwrap();
    let successor = ObjectName::new(bucket, "old").unwrap();
    assert_eq!(old.open(&stored.dek, &successor), Err(Error::BindingMismatch));
}

#[test]
fn names_that_concatenate_alike_are_told_apart() {
    let world = World::new(20);
    let (object_id, dek) = world.object_id();
    let name = |bucket: &str, key: &str| ObjectName::new(BucketId::new(bucket).unwrap(), key).unwrap();
    let text = world.seal_envelope(&dek, object_id, &name("ab", "c"), Layout::Multipart);
    let envelope = Envelope::parse(&text).unwrap();
    assert!(envelope.open(&dek, &name("ab", "c")).is_ok());
    assert_eq!(envelope.open(&dek, &name("a", "bc")), Err(Error::BindingMismatch));
}

#[test]
fn derive_refuses_every_header_that_is_not_an_envelope() {
    let world = World::new(21);
    let stored = world.put("k", plaintext(5, 1));
    let multipart = two_parts(&world, true);
    let envelope = Envelope::parse(&stored.envelope).unwrap();
    assert!(envelope::verify_binding(&envelope.header_bytes(), &stored.dek, &stored.name).is_ok());
    let footer = &stored.body[stored.body.len() - 96..];
    for header in [&stored.body[..96], footer, &multipart.body[..96], &[]] {
        assert!(envelope::verify_binding(header, &stored.dek, &stored.name).is_err());
    }
    let wrong = envelope::verify_binding(&envelope.header_bytes(), &stored.dek, &name("other")).err();
    assert_eq!(wrong, Some(Error::BindingMismatch));
}

#[test]
fn the_unit_keys_of_head_open_the_envelope_and_nothing_else() {
    let world = World::new(22);
    let (a, b) = (world.put("k", plaintext(5, 1)), world.put("k", plaintext(5, 1)));
    let envelope = Envelope::parse(&a.envelope).unwrap();
    let keys = envelope::verify_binding(&envelope.header_bytes(), &a.dek, &a.name).unwrap();
    assert_eq!(envelope.open_with_unit_keys(&keys), a.open_envelope());
    assert!(Envelope::parse(&b.envelope).unwrap().open_with_unit_keys(&keys).is_err());
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

struct Keyset {
    root: Root,
    gateway: SealerId,
    header: EpochHeader,
    wek: Wek,
    record: EpochRecord,
}

fn keyset(rng: &SeededRandom) -> Keyset {
    let keyset_id = KeysetId::draw(rng).unwrap();
    let root = Root::new(RootSecret::draw(rng).unwrap(), keyset_id, 1);
    let gateway = SealerId::draw(rng).unwrap();
    let header =
        EpochHeader { created_ms: 5, epoch_id: EpochId::draw(rng).unwrap(), gateway_id: gateway, keyset_id };
    let wek = Wek::generate(rng, &[0; 32]).unwrap();
    let (public_key, psk) = (root.public_key().unwrap(), root.psk(gateway));
    let to = SealTo { version: 1, public_key: &public_key, sealer_id: gateway, psk: &psk };
    let record = EpochRecord::seal(&header, &wek, &to, rng).unwrap();
    Keyset { root, gateway, header, wek, record }
}

#[test]
fn every_flipped_bit_and_every_truncation_of_an_epoch_record_is_rejected() {
    let rng = SeededRandom::new(23);
    let Keyset { root, wek, record, .. } = keyset(&rng);
    let bytes = record.to_bytes();
    assert_eq!(bytes.len(), 1293);
    assert_eq!(EpochRecord::parse(&bytes).unwrap().open(&root).unwrap().expose(), wek.expose());
    for (bit, bytes) in flips(&bytes) {
        assert!(EpochRecord::parse(&bytes).and_then(|record| record.open(&root)).is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(EpochRecord::parse(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(EpochRecord::parse(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn an_epoch_record_opens_under_its_own_keyset_version_gateway_and_psk_only() {
    let rng = SeededRandom::new(24);
    let Keyset { root, gateway, header, wek, record } = keyset(&rng);
    let other = keyset(&rng);
    assert!(record.open(&other.root).is_err(), "other keyset");
    let secret = || RootSecret::from_slice(root.secret().expose()).unwrap();
    assert!(record.open(&Root::new(secret(), root.keyset_id(), 2)).is_err(), "other version");
    let same_id = Root::new(RootSecret::draw(&rng).unwrap(), root.keyset_id(), 1);
    assert!(record.open(&same_id).is_err(), "other root under the same ids");
    let public_key = root.public_key().unwrap();
    let forged_psk = root.psk(other.gateway);
    let to = SealTo { version: 1, public_key: &public_key, sealer_id: gateway, psk: &forged_psk };
    let forged = EpochRecord::seal(&header, &wek, &to, &rng).unwrap();
    assert_eq!(forged.open(&root).err(), Some(Error::Authentication), "psk of another gateway");
    let to = SealTo { version: 1, public_key: &public_key, sealer_id: other.gateway, psk: &forged_psk };
    assert!(EpochRecord::seal(&header, &wek, &to, &rng).is_err(), "sealed as another gateway");
    let renamed = EpochHeader { gateway_id: other.gateway, ..header };
    let mut bytes = record.to_bytes();
    bytes[32..48].copy_from_slice(renamed.gateway_id.as_bytes());
    assert!(EpochRecord::parse(&bytes).is_err(), "attributed to another gateway");
}

#[test]
fn a_re_sealed_epoch_record_opens_under_both_versions_until_one_is_dropped() {
    let rng = SeededRandom::new(25);
    let Keyset { root, wek, mut record, .. } = keyset(&rng);
    let second = Root::new(RootSecret::draw(&rng).unwrap(), root.keyset_id(), 2);
    let (public_key, psk) = (second.public_key().unwrap(), second.psk(SealerId::KEY_SERVICE));
    let to = SealTo { version: 2, public_key: &public_key, sealer_id: SealerId::KEY_SERVICE, psk: &psk };
    let wrong = Wek::generate(&rng, &[0; 32]).unwrap();
    assert_eq!(record.add_recipient(&wrong, &to, &rng), Err(Error::Authentication));
    record.add_recipient(&wek, &to, &rng).unwrap();
    let mut record = EpochRecord::parse(&record.to_bytes()).unwrap();
    assert_eq!(record.open(&root).unwrap().expose(), wek.expose());
    assert_eq!(record.open(&second).unwrap().expose(), wek.expose());
    record.drop_recipients(1).unwrap();
    assert!(record.open(&root).is_err());
    assert_eq!(record.open(&second).unwrap().expose(), wek.expose());
    assert!(record.drop_recipients(2).is_err(), "the last one stays");
}

#[test]
fn recipients_that_hold_another_key_are_rejected_by_the_commitment() {
    let rng = SeededRandom::new(26);
    let Keyset { root, gateway, header, wek, record } = keyset(&rng);
    let (public_key, psk) = (root.public_key().unwrap(), root.psk(gateway));
    let to = SealTo { version: 1, public_key: &public_key, sealer_id: gateway, psk: &psk };
    let other_wek = Wek::generate(&rng, &[1; 32]).unwrap();
    let other = EpochRecord::seal(&header, &other_wek, &to, &rng).unwrap();
    let (a, b) = (record.to_bytes(), other.to_bytes());
    let mixed = [&a[..97], &b[97..]].concat();
    assert!(EpochRecord::parse(&mixed).unwrap().open(&root).is_err());
    assert_eq!(record.open(&root).unwrap().expose(), wek.expose());
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_keyset_record_is_rejected() {
    let rng = SeededRandom::new(27);
    let keyset_id = KeysetId::draw(&rng).unwrap();
    let root = Root::new(RootSecret::draw(&rng).unwrap(), keyset_id, 3);
    let versions = vec![KeyVersion {
        version: 3,
        state: KeyVersionState::Active,
        public_key: root.public_key().unwrap(),
    }];
    let buckets = vec![BucketId::draw("photos", &rng).unwrap()];
    let name_key = NameKey::draw(&rng).unwrap();
    let record = KeysetRecord::seal(keyset_id, versions, buckets.clone(), &name_key, &[&root], &rng).unwrap();
    let bytes = record.to_bytes().unwrap();
    let parsed = KeysetRecord::parse(&bytes).unwrap();
    assert_eq!(parsed.bucket_ids(), buckets);
    assert_eq!(parsed.open(&root).unwrap().expose(), name_key.expose());
    let recipient_at = bytes.len() - (28 + 2 + 1120 + 2 + 80);
    for (bit, flipped) in flips(&bytes).filter(|(bit, _)| sampled(*bit / 8, recipient_at)) {
        assert!(KeysetRecord::parse(&flipped).and_then(|record| record.open(&root)).is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(KeysetRecord::parse(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(KeysetRecord::parse(&[&bytes[..], &[0]].concat()).is_err());
}

/// All of the clear fields and the recipient, every 16th byte of the public key.
fn sampled(byte: usize, recipient_at: usize) -> bool {
    byte < 60 || byte >= recipient_at - 60 || byte.is_multiple_of(16)
}

#[test]
fn every_flipped_bit_of_an_upload_token_is_rejected() {
    let world = World::new(28);
    let (object_id, dek) = world.object_id();
    let fields = UploadFields {
        epoch_id: world.epoch_id,
        object_id,
        expires_ms: 1_000,
        checksum: Some((Algo::Crc32c, Some(ChecksumType::FullObject))),
        upstream_upload_id: "2~abcDEF.upload-id_1".to_owned(),
    };
    let token = UploadToken::issue(&dek.upload_key(), fields, &name("k")).unwrap();
    let verify = |text: &str, key: &str| {
        UploadToken::parse(text).and_then(|token| token.verify(&dek.upload_key(), &name(key)))
    };
    assert_eq!(verify(&token.to_text(), "k"), Ok(()));
    assert_eq!(verify(&token.to_text(), "l"), Err(Error::Authentication));
    assert!(!token.expired(999));
    assert!(token.expired(1_000));
    let bytes = decode(&token.to_text());
    for (bit, bytes) in flips(&bytes) {
        assert!(verify(&encode(&bytes), "k").is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(verify(&encode(&bytes[..cut]), "k").is_err(), "cut at {cut}");
    }
    let (_, other) = world.object_id();
    assert!(token.verify(&other.upload_key(), &name("k")).is_err());
}

#[test]
fn every_flipped_bit_of_a_part_etag_is_rejected() {
    let world = World::new(29);
    let (object_id, dek) = world.object_id();
    let (_, part) = world.part(&dek, object_id, 4, b"text");
    let state = PartTagState { held: true, part, checksum: Some((Algo::Crc32, vec![1, 2, 3, 4])) };
    let etag = "9b2cf535f27731c974343645a3985328";
    let tag = PartTag::issue(&dek.etag_key(), etag, state.clone()).unwrap();
    let text = tag.to_text();
    assert_eq!(text.matches('-').count(), 1, "one dash in the whole ETag");
    assert_eq!(PartTag::parse(&text).unwrap().verify(&dek.etag_key()).unwrap(), Some(&state));
    let sealed = decode(&text[33..].replace('.', "-"));
    for (bit, bytes) in flips(&sealed) {
        let text = format!("{etag}-{}", encode(&bytes).replace('-', "."));
        let verified = PartTag::parse(&text).and_then(|tag| tag.verify(&dek.etag_key()).map(|s| s.cloned()));
        assert!(verified.is_err(), "bit {bit}");
    }
    let moved = text.replace("9b2c", "9b2d");
    assert!(PartTag::parse(&moved).unwrap().verify(&dek.etag_key()).is_err(), "another upstream ETag");
    let (_, other) = world.object_id();
    assert!(PartTag::parse(&text).unwrap().verify(&other.etag_key()).is_err(), "another upload");
    for bad in ["", "abc", "-0", "a\"b-0", "abc-", "abc-AAAA", "abc-00"] {
        assert!(PartTag::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn sealed_names_open_at_their_own_place_only() {
    let rng = SeededRandom::new(30);
    let name_key = NameKey::draw(&rng).unwrap();
    let bucket = BucketId::new("vault").unwrap();
    let sealed = name::seal_key(&name_key, &bucket, "dir/file").unwrap();
    assert_eq!(name::open_key(&name_key, &bucket, &sealed).unwrap(), "dir/file");
    let (dir, file) = sealed.split_once('/').unwrap();
    let other = name::seal_key(&name_key, &bucket, "rid/file").unwrap();
    let (other_dir, other_file) = other.split_once('/').unwrap();
    assert_ne!(file, other_file, "equal names in different directories differ");
    let wrong = [
        format!("{other_dir}/{file}"),
        file.to_owned(),
        dir.to_owned(),
        format!("{file}/{dir}"),
        format!("{dir}/{file}/"),
    ];
    for wrong in wrong {
        assert!(name::open_key(&name_key, &bucket, &wrong).is_err(), "{wrong}");
    }
    assert!(name::open_key(&name_key, &BucketId::new("other").unwrap(), &sealed).is_err());
    assert!(name::open_key(&NameKey::draw(&rng).unwrap(), &bucket, &sealed).is_err());
    for (bit, bytes) in flips(&decode(file)) {
        assert!(
            name::open_key(&name_key, &bucket, &format!("{dir}/{}", encode(&bytes))).is_err(),
            "bit {bit}"
        );
    }
    assert!(name::seal_key(&name_key, &bucket, &"x".repeat(751)).is_ok());
    assert_eq!(name::seal_key(&name_key, &bucket, &"x".repeat(752)), Err(Error::NameTooLong));
}

#[test]
fn unknown_versions_suites_kinds_and_reserved_bits_are_refused_before_cryptography() {
    let world = World::new(31);
    let stored = world.put("k", plaintext(5, 1));
    let header = &stored.body[..96];
    let with = |at: usize, value: u8| {
        let mut header = header.to_vec();
        header[at] = value;
        UnitHeader::parse(&header)
    };
    let unsupported = Err(Error::Unsupported(Structure::UnitHeader));
    assert_eq!(with(3, 2), unsupported, "format version 2");
    for suite in [0, 2, 3, 255] {
        assert_eq!(with(4, suite), unsupported, "suite {suite}");
    }
    for kind in [0, 5, 255] {
        assert_eq!(with(5, kind), unsupported, "kind {kind}");
    }
    assert!(with(7, 2).is_err(), "a single body is number 1");
    assert!(with(8, 1).is_err(), "2^56 bytes");
    assert!(with(0, b'X').is_err());
    assert!(UnitHeader::parse(&[header, &[0]].concat()).is_err());
}

#[test]
fn a_broken_random_source_seals_nothing() {
    let world = World::new(32);
    let (object_id, dek) = world.object_id();
    let failed = Error::Random(RandomError);
    let begin = BodyWriter::<Aead>::begin(&dek, world.epoch_id, object_id, 5, &BrokenRandom);
    assert_eq!(begin.err(), Some(failed.clone()));
    let begin = PartWriter::<Aead>::begin(&dek, world.epoch_id, object_id, 1, 5, &BrokenRandom);
    assert_eq!(begin.err(), Some(failed.clone()));
    assert!(Wek::generate(&BrokenRandom, &[0; 32]).is_err());
    let Keyset { root, gateway, header, wek, .. } = keyset(&world.rng);
    let (public_key, psk) = (root.public_key().unwrap(), root.psk(gateway));
    let to = SealTo { version: 1, public_key: &public_key, sealer_id: gateway, psk: &psk };
    assert_eq!(EpochRecord::seal(&header, &wek, &to, &BrokenRandom).err(), Some(failed));
}

#[test]
fn an_authentic_footer_with_another_crc_is_rejected_at_the_end() {
    let world = World::new(33);
    let stored = world.multipart("k", &[(1, plaintext(100_000, 1), true)]);
    let manifest = stored.manifest_of(&stored.body).unwrap();
    let info = FooterInfo { crc64: Some(manifest.info().crc64.unwrap() ^ 1), ..manifest.info().clone() };
    let (epoch_id, object_id) = (stored.epoch_id, stored.object_id);
    let footer =
        footer::seal(&stored.dek, epoch_id, object_id, manifest.entries(), &info, &world.rng).unwrap();
    let body = [&stored.body[..stored.body.len() - footer.len()], &footer].concat();
    let (out, result) = stored.read_body(&body);
    assert_eq!(result, Err(Error::Inconsistent(Structure::Body)));
    assert!(stored.plaintext.starts_with(&out));
}

#[test]
fn a_single_footer_that_lists_another_unit_is_rejected() {
    let world = World::new(34);
    let stored = world.put("k", plaintext(100, 1));
    let entry = Entry { number: 1, length: 100, salt: Some(Salt::new([9; 16])), crc64: None };
    for entry in [entry, Entry { salt: None, ..entry }, Entry { number: 2, ..entry }] {
        let info = FooterInfo { created_ms: 1, crc64: None, checksum: None };
        let (epoch_id, object_id) = (stored.epoch_id, stored.object_id);
        let footer = footer::seal(&stored.dek, epoch_id, object_id, &[entry], &info, &world.rng).unwrap();
        let body = [&stored.body[..stored.body.len() - footer.len()], &footer].concat();
        stored.assert_rejected(&body, "footer of another unit");
        let (envelope, manifest) = (stored.open_envelope().unwrap(), stored.manifest_of(&body).unwrap());
        let range = PlainRange::new(0, 1).unwrap();
        assert!(ObjectReader::<Aead>::single_range(&stored.dek, &envelope, &manifest, range).is_err());
    }
}

#[test]
fn a_footer_that_changes_between_check_and_read_is_rejected() {
    let world = World::new(35);
    let stored = world.multipart("k", &[(1, plaintext(100_000, 1), true)]);
    let manifest = stored.manifest_of(&stored.body).unwrap();
    let info = FooterInfo { created_ms: 6, ..manifest.info().clone() };
    let (epoch_id, object_id) = (stored.epoch_id, stored.object_id);
    let footer =
        footer::seal(&stored.dek, epoch_id, object_id, manifest.entries(), &info, &world.rng).unwrap();
    let body = [&stored.body[..stored.body.len() - footer.len()], &footer].concat();
    let mut reader = ObjectReader::<Aead>::multipart(&stored.dek, &manifest).unwrap();
    assert_eq!(reader.push(&body, &mut Vec::new()), Err(Error::Inconsistent(Structure::Footer)));
}

#[test]
fn tampering_with_any_segment_releases_only_what_came_before_it() {
    let world = World::new(36);
    let single = world.put("k", plaintext(5 * 65_536 - 7, 1));
    let multipart = world.multipart("k", &[(4, plaintext(5 * 65_536 - 7, 1), true)]);
    for stored in [&single, &multipart] {
        for segment in 0..5 {
            let mut body = stored.body.clone();
            body[96 + segment * 65_552 + 100] ^= 4;
            let (out, result) = stored.read_body_in(&body, 1_000);
            assert_eq!(result, Err(Error::Authentication));
            assert!(out == stored.plaintext[..segment * 65_536], "segment {segment}");
        }
    }
}

#[test]
fn a_reader_that_failed_stays_dead() {
    let world = World::new(37);
    let stored = world.put("k", plaintext(100, 1));
    let envelope = stored.open_envelope().unwrap();
    let mut reader = ObjectReader::<Aead>::single(&stored.dek, &envelope, stored.body.len() as u64).unwrap();
    let (mut out, mut bad) = (vec![1, 2], stored.body.clone());
    bad[0] ^= 1;
    assert!(reader.push(&bad, &mut out).is_err());
    assert_eq!(out, [1, 2], "what the caller had stays");
    assert_eq!(reader.push(&stored.body, &mut out), Err(Error::Poisoned));
    assert_eq!(reader.finish(), Err(Error::Poisoned));
    let reader = ObjectReader::<Aead>::single(&stored.dek, &envelope, stored.body.len() as u64).unwrap();
    assert!(reader.finish().is_err(), "nothing came");
}
