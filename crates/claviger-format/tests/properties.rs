//! Properties over random inputs (docs/format.md §10.3).
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use claviger_format::layout::{
    CLIENT_PART_LEN_MAX, OBJECT_LEN_MAX, PART_LEN_MIN, SEGMENT_LEN, SINGLE_PUT_LEN_MAX, UNIT_LEN_MAX, g,
    g_inverse, h, h_inverse,
};
use claviger_format::token::object_etag;
use claviger_format::*;
use common::*;
use proptest::prelude::*;
use std::sync::{Arc, OnceLock};

const GIB5: u64 = 5 << 30;

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

#[test]
fn g_is_strictly_increasing_and_inverted_exactly_around_every_kind_of_kink() {
    let kinks = (0..40).flat_map(|i| [i * SEGMENT_LEN, i * PART_LEN_MIN]);
    let far = [9_998, 9_999, 10_000, 10_001, 20_000].map(|i| i * PART_LEN_MIN);
    let powers = (16..53).map(|bit| 1_u64 << bit);
    for kink in kinks.chain(far).chain(powers) {
        let first = kink.saturating_sub(40);
        let mut size = g(first).unwrap();
        assert_eq!(g_inverse(size), Some(first));
        for n in first + 1..=(kink + 40).min(OBJECT_LEN_MAX) {
            let next = g(n).unwrap();
            assert!(next > size, "strictly increasing at {n}");
            for gap in size + 1..next.min(size + 400) {
                assert_eq!(g_inverse(gap), None, "{gap} lies between sizes");
            }
            assert_eq!(g_inverse(next), Some(n));
            size = next;
        }
    }
    for n in 0..200_000 {
        assert_eq!(g_inverse(g(n).unwrap()), Some(n));
    }
}

#[test]
fn sizes_beyond_the_format_have_no_image() {
    assert_eq!(g(OBJECT_LEN_MAX + 1), None);
    assert_eq!(g(u64::MAX), None);
    assert_eq!(g_inverse(u64::MAX), None);
    assert_eq!(g_inverse(g(OBJECT_LEN_MAX).unwrap()), Some(OBJECT_LEN_MAX));
    assert_eq!(h(UNIT_LEN_MAX + 1), None);
    assert_eq!(h_inverse(u64::MAX), None);
}

#[test]
fn the_upstream_limits_are_the_largest_that_fit() {
    assert!(h(CLIENT_PART_LEN_MAX).unwrap() <= GIB5);
    assert!(h(CLIENT_PART_LEN_MAX + 1).unwrap() > GIB5);
    assert!(g(SINGLE_PUT_LEN_MAX).unwrap() <= GIB5);
    assert!(g(SINGLE_PUT_LEN_MAX + 1).unwrap() > GIB5);
}

#[test]
fn published_overheads_hold() {
    let tib = 1_u64 << 40;
    let table =
        [(1 << 20, 600), (5 << 20, 1_776), (100 << 20, 28_984), (1 << 30, 293_496), (GIB5, 1_466_712)];
    for (n, overhead) in table.into_iter().chain([(tib, 269_955_648), (5 * tib, 1_343_697_472)]) {
        assert_eq!(g(n).unwrap() - n, overhead);
    }
}

fn entries(lengths: &[u64], gaps: &[u16]) -> Vec<Entry> {
    let mut number = 0;
    lengths
        .iter()
        .zip(gaps.iter().chain(std::iter::repeat(&1)))
        .map(|(length, gap)| {
            number += gap;
            Entry { number, length: *length, salt: Some(Salt::new([1; 16])), crc64: None }
        })
        .collect()
}

prop_compose! {
    /// Lengths that multipart allows, with a liking for the edges.
    fn part_lengths(count_max: usize)(
        parts in prop::collection::vec(
            prop_oneof![Just(PART_LEN_MIN), PART_LEN_MIN..PART_LEN_MIN + 70_000, PART_LEN_MIN..CLIENT_PART_LEN_MAX],
            0..count_max,
        ),
        last in prop_oneof![0..3_u64, 0..200_000_u64, 0..CLIENT_PART_LEN_MAX],
    ) -> Vec<u64> {
        [parts, vec![last]].concat()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_part_mix_comes_to_g_of_the_sum(lengths in part_lengths(60), gaps in prop::collection::vec(1..100_u16, 0..60)) {
        let list = entries(&lengths, &gaps);
        let body: u64 = lengths.iter().map(|length| h(*length).unwrap()).sum();
        let footer = footer::footer_len(&list).unwrap();
        prop_assert!(footer >= 208 + 40 * list.len() as u64);
        prop_assert!(footer <= 1_530_000);
        prop_assert_eq!(body + footer, g(lengths.iter().sum()).unwrap());
    }

    #[test]
    fn g_and_its_inverse_agree_for_random_sizes(n in 0..=OBJECT_LEN_MAX, size in any::<u64>()) {
        prop_assert_eq!(g_inverse(g(n).unwrap()), Some(n));
        if let Some(n) = g_inverse(size) {
            prop_assert_eq!(g(n), Some(size));
        }
        let p = n % (UNIT_LEN_MAX + 1);
        prop_assert_eq!(h_inverse(h(p).unwrap()), Some(p));
        if let Some(p) = h_inverse(size % (2 * UNIT_LEN_MAX)) {
            prop_assert_eq!(h(p), Some(size % (2 * UNIT_LEN_MAX)));
        }
    }

    #[test]
    fn object_etags_are_marked_reversibly(etag in "[0-9a-f]{1,40}(-[1-9][0-9]{0,4})?") {
        let marked = object_etag::mark(&etag);
        prop_assert!(marked.contains('-'));
        prop_assert_eq!(object_etag::unmark(&marked), etag);
    }

    #[test]
    fn part_etags_round_trip(
        etag in "[!#-~]{1,60}", number in 1..=10_000_u16, length in 0..=UNIT_LEN_MAX, salt: [u8; 16], crc64: u64,
        held: bool, checksum in prop::option::of(any::<[u8; 32]>()),
    ) {
        let key = EtagKey::from_slice(&[3; 32]).unwrap();
        let part = PartState { number, length, salt: Salt::new(salt), crc64 };
        let state = PartTagState { held, part, checksum: checksum.map(|value| (Algo::Sha256, value.to_vec())) };
        let text = PartTag::issue(&key, &etag, state.clone()).unwrap().to_text();
        let parsed = PartTag::parse(&text).unwrap();
        prop_assert_eq!(parsed.upstream_etag(), &etag);
        prop_assert_eq!(parsed.to_text(), text);
        prop_assert_eq!(parsed.verify(&key).unwrap(), Some(&state));
        let bare = PartTag::parse(&PartTag::bare(&etag).unwrap().to_text()).unwrap();
        prop_assert_eq!(bare.upstream_etag(), &etag);
        prop_assert_eq!(bare.verify(&key).unwrap(), None);
    }

    #[test]
    fn upload_tokens_round_trip(id in "[!#-~]{1,200}", expires_ms: u64, algo in 0..=10_u8, ty in 0..=2_u8, key in "\\PC{1,80}") {
        let upload_key = UploadKey::from_slice(&[3; 32]).unwrap();
        let checksum = Algo::from_code(algo).ok().map(|algo| (algo, ChecksumType::from_code(ty).ok()));
        let (epoch_id, object_id) = (EpochId::new([1; 16]), ObjectId::new([2; 16]));
        let fields = UploadFields { epoch_id, object_id, expires_ms, checksum, upstream_upload_id: id };
        let token = UploadToken::issue(&upload_key, fields, &name(&key)).unwrap();
        let parsed = UploadToken::parse(&token.to_text()).unwrap();
        prop_assert_eq!(&parsed, &token);
        prop_assert_eq!(parsed.verify(&upload_key, &name(&key)), Ok(()));
    }

    #[test]
    fn sealed_names_round_trip_and_keep_their_slashes(key in "[a-c/é]{1,20}|\\PC{1,40}") {
        let name_key = NameKey::from_slice(&[3; 64]).unwrap();
        let bucket = BucketId::new("vault").unwrap();
        let sealed = name::seal_key(&name_key, &bucket, &key).unwrap();
        prop_assert_eq!(sealed.matches('/').count(), key.matches('/').count());
        prop_assert_eq!(name::open_key(&name_key, &bucket, &sealed).unwrap(), key);
    }

    #[test]
    fn envelopes_round_trip(
        key in "\\PC{1,80}", user in prop::collection::vec(("[a-z-]{1,20}", prop::collection::vec(any::<u8>(), 0..60)), 0..8),
        headers in prop::collection::btree_map(0..7_usize, prop::collection::vec(any::<u8>(), 0..40), 0..7),
        created_ms: Option<u64>, crc: Option<[u8; 4]>, single: Option<([u8; 16], u32)>,
    ) {
        let world = World::new(1);
        let (object_id, dek) = world.object_id();
        let metadata = Metadata {
            system: headers.into_iter().map(|(i, value)| (SystemHeader::ALL[i], value)).collect(),
            user,
            created_ms,
            checksum: crc.map(|value| Checksum::full_object(Algo::Crc32, value).unwrap()),
        };
        let single = single.map(|(salt, length)| Layout::Single { salt: Salt::new(salt), length: length.into() });
        let layout = single.unwrap_or(Layout::Multipart);
        let (name, max) = (name(&key), envelope::TLV_LEN_MAX_S3);
        let text =
            envelope::seal(&dek, world.epoch_id, object_id, &name, &layout, &metadata, max, &world.rng).unwrap();
        let envelope = Envelope::parse(&text).unwrap();
        prop_assert_eq!(envelope.to_text(), &text[..]);
        let opened = envelope.open(&dek, &name).unwrap();
        prop_assert_eq!((opened.layout, opened.metadata), (layout, metadata));
        prop_assert!(text.len() + 8 <= 2_048);
    }
}

#[test]
fn metadata_of_exactly_the_budget_fits_and_one_byte_more_does_not() {
    let world = World::new(2);
    let (object_id, dek) = world.object_id();
    let seal = |len: usize| {
        let metadata = Metadata { user: vec![("a".to_owned(), vec![b'x'; len])], ..Metadata::default() };
        let (layout, max) = (Layout::Multipart, envelope::TLV_LEN_MAX_S3);
        envelope::seal(&dek, world.epoch_id, object_id, &name("k"), &layout, &metadata, max, &world.rng)
    };
    let fits = envelope::TLV_LEN_MAX_S3 - 3 - 5;
    assert_eq!(seal(fits).unwrap().len() + "claviger".len(), 2_048);
    let error = Error::MetadataTooLarge { len: 1_419, len_max: 1_418 };
    assert_eq!(seal(fits + 1), Err(error));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn writers_emit_the_same_bytes_however_the_plaintext_is_cut(
        len in prop_oneof![0..5_usize, 0..300_000_usize, Just(65_536), Just(131_072)],
        cuts in prop::collection::vec(0..90_000_usize, 0..12), gather in 1..4_usize,
    ) {
        let text = plaintext(len, 7);
        let whole = World::new(3).put("k", text.clone()).body;
        let world = World::new(3);
        let (object_id, dek) = world.object_id();
        let mut writer =
            BodyWriter::<Aead>::begin(&dek, world.epoch_id, object_id, len as u64, &world.rng).unwrap();
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < len).chain([len]).collect();
        cuts.sort_unstable();
        let (mut out, mut from) = (Vec::new(), 0);
        for cut in cuts {
            let piece = &text[from..cut];
            let pieces: Vec<&[u8]> = piece.chunks(piece.len().div_ceil(gather).max(1)).collect();
            let emits = writer.emits(piece.len() as u64);
            let before = out.len();
            writer.push_pieces(&pieces, &mut out).unwrap();
            prop_assert_eq!((out.len() - before) as u64, emits);
            from = cut;
        }
        prop_assert_eq!(writer.until_segment(), 0);
        prop_assert_eq!(writer.crc64(), crc64::crc64(&text));
        prop_assert_eq!(out.len() as u64, h(len as u64).unwrap() - if len == 0 && out.is_empty() { 96 } else { 0 });
        let sealed_len = writer.sealed_len();
        writer.finish(1_750_000_000_000, None, &mut out).unwrap();
        prop_assert_eq!(out.len() as u64, sealed_len);
        prop_assert!(out == whole);
    }

    #[test]
    fn a_part_writer_keeps_its_last_segment_until_the_end(len in prop_oneof![0..5_u64, 0..300_000_u64, Just(65_536), Just(131_072)]) {
        let world = World::new(4);
        let (object_id, dek) = world.object_id();
        let mut writer = PartWriter::<Aead>::begin(&dek, world.epoch_id, object_id, 3, len, &world.rng).unwrap();
        let mut out = Vec::new();
        for piece in plaintext(at(len), 1).chunks(50_000) {
            writer.push(piece, &mut out).unwrap();
        }
        let last = layout::segment_len(len, layout::segment_count(len).saturating_sub(1));
        let held = if len == 0 { 96 } else { last + 16 };
        prop_assert_eq!(out.len() as u64 + held, writer.sealed_len());
        writer.finish(&mut out).unwrap();
        prop_assert_eq!(out.len() as u64, h(len).unwrap());
    }

    #[test]
    fn single_objects_read_back_whole_and_in_ranges(
        len in 1..400_000_usize, a: prop::sample::Index, b: prop::sample::Index, piece in 1..100_000_usize,
    ) {
        let stored = World::new(5).put("k", plaintext(len, 9));
        stored.assert_reads(&stored.body);
        let envelope = stored.open_envelope().unwrap();
        let manifest = stored.manifest_of(&stored.body).unwrap();
        let (a, b) = (a.index(len), b.index(len));
        let range = PlainRange::new(a.min(b) as u64, a.max(b) as u64).unwrap();
        let reader = ObjectReader::<Aead>::single_range(&stored.dek, &envelope, &manifest, range).unwrap();
        let covering = layout::covering_single(len as u64, range).unwrap();
        prop_assert_eq!(reader.cipher_range(), covering);
        prop_assert!(read(reader, &stored.body, piece) == stored.plaintext[a.min(b)..=a.max(b)]);
    }

    #[test]
    fn multipart_objects_read_back_in_ranges(
        a: prop::sample::Index, b: prop::sample::Index, near: bool, span in 0..200_000_usize, piece in 1..2_000_000_usize,
    ) {
        let (stored, manifest) = multipart_fixture();
        let len = stored.plaintext.len();
        let a = a.index(len);
        let b = if near { (a + span).min(len - 1) } else { b.index(len) };
        let range = PlainRange::new(a.min(b) as u64, a.max(b) as u64).unwrap();
        let covering = manifest.covering(range).unwrap();
        let header = covering.first_header.map(|range| &stored.body[at(range.first)..=at(range.last)]);
        let reader = ObjectReader::<Aead>::multipart_range(&stored.dek, manifest, range, header).unwrap();
        prop_assert_eq!(reader.cipher_range(), covering.data);
        prop_assert!(read(reader, &stored.body, piece) == stored.plaintext[a.min(b)..=a.max(b)]);
    }
}

fn read(mut reader: ObjectReader<Aead>, body: &[u8], piece_len: usize) -> Vec<u8> {
    let range = reader.cipher_range();
    let mut out = Vec::new();
    for piece in body[at(range.first)..=at(range.last)].chunks(piece_len) {
        reader.push(piece, &mut out).unwrap();
    }
    assert_eq!(reader.released(), reader.plain_len());
    reader.finish().unwrap();
    out
}

/// Four parts with gaps in their numbers, the second and the last unbound.
fn multipart_fixture() -> (&'static Stored, &'static Arc<Manifest>) {
    static FIXTURE: OnceLock<(Stored, Arc<Manifest>)> = OnceLock::new();
    let (stored, manifest) = FIXTURE.get_or_init(|| {
        let part = |number: u16, len, bound| (number, plaintext(at(len), number.into()), bound);
        let parts = [
            part(2, PART_LEN_MIN, true),
            part(5, PART_LEN_MIN + 65_537, false),
            part(6, PART_LEN_MIN + 1, true),
            part(9_999, 130_000, false),
        ];
        let stored = World::new(6).multipart("k", &parts);
        stored.assert_reads(&stored.body);
        let manifest = stored.manifest_of(&stored.body).unwrap();
        (stored, manifest)
    });
    (stored, manifest)
}

#[test]
fn objects_with_one_part_an_empty_part_or_an_empty_last_part_read_back() {
    let world = World::new(7);
    let big = plaintext(at(PART_LEN_MIN), 1);
    for parts in [
        vec![(1, vec![], true)],
        vec![(9, vec![], false)],
        vec![(1, plaintext(70_000, 1), true)],
        vec![(10_000, plaintext(70_000, 1), false)],
        vec![(1, big.clone(), true), (2, vec![], true)],
        vec![(3, big, false), (4, vec![], false)],
    ] {
        let stored = world.multipart("k", &parts);
        assert_eq!(g_inverse(stored.body.len() as u64), Some(stored.plaintext.len() as u64));
        stored.assert_reads(&stored.body);
    }
    let empty = world.put("k", vec![]);
    assert_eq!(empty.body.len(), 344);
    empty.assert_reads(&empty.body);
}

#[test]
fn a_manifest_of_ten_thousand_parts_is_read_in_two_steps_and_maps_ranges() {
    let world = World::new(8);
    let (object_id, dek) = world.object_id();
    let number = 7_777;
    let text = plaintext(at(PART_LEN_MIN), 3);
    let (unit, state) = world.part(&dek, object_id, number, &text);
    let mut list = entries(&vec![PART_LEN_MIN; 10_000], &[]);
    list[usize::from(number) - 1] = state.entry();
    let info = FooterInfo { created_ms: 1, crc64: None, checksum: None };
    let footer = footer::seal(&dek, world.epoch_id, object_id, &list, &info, &world.rng).unwrap();
    let size = g(10_000 * PART_LEN_MIN).unwrap();
    let open = |len: usize| {
        footer::open(&dek, world.epoch_id, object_id, &footer[footer.len() - len..], size).unwrap()
    };
    let FooterRead::NeedMore { suffix_len } = open(65_536) else { panic!("64 KiB are too few") };
    assert_eq!(suffix_len, 208 + 40 * 10_000);
    assert!(matches!(open(at(suffix_len) - 1), FooterRead::NeedMore { .. }));
    let FooterRead::Verified(manifest) = open(at(suffix_len)) else { panic!("that is enough") };
    let start = u64::from(number - 1) * PART_LEN_MIN;
    let range = PlainRange::new(start + 100_000, start + 200_000).unwrap();
    let covering = manifest.covering(range).unwrap();
    let unit_at = u64::from(number - 1) * h(PART_LEN_MIN).unwrap();
    let manifest = Arc::new(manifest);
    let mut reader = ObjectReader::<Aead>::multipart_range(&dek, &manifest, range, None).unwrap();
    let mut out = Vec::new();
    reader
        .push(&unit[at(covering.data.first - unit_at)..=at(covering.data.last - unit_at)], &mut out)
        .unwrap();
    reader.finish().unwrap();
    assert!(out == text[100_000..=200_000]);
}

#[test]
fn part_lists_that_no_object_may_have_are_refused() {
    let lists: [(&[u64], &[u16]); 5] = [
        (&[], &[]),
        (&[PART_LEN_MIN - 1, 5], &[]),
        (&[PART_LEN_MIN, PART_LEN_MIN, 5], &[1, 0, 1]),
        (&[5], &[0]),
        (&[UNIT_LEN_MAX + 1], &[]),
    ];
    for (lengths, gaps) in lists {
        assert!(footer::footer_len(&entries(lengths, gaps)).is_err());
    }
    assert!(footer::footer_len(&entries(&[5], &[10_001])).is_err());
    assert!(footer::footer_len(&entries(&vec![PART_LEN_MIN; 10_001], &[])).is_err());
    assert_eq!(footer::footer_len(&entries(&[7, 5], &[])), Err(Error::PartTooSmall(1)));
}

#[test]
fn checksums_of_the_footer_come_back() {
    let world = World::new(9);
    let (object_id, dek) = world.object_id();
    let composite = Checksum::composite(Algo::Sha256, vec![5; 32], 7).unwrap();
    let full = Checksum::full_object(Algo::Sha512, vec![6; 64]).unwrap();
    for checksum in [None, Some(composite), Some(full)] {
        let info = FooterInfo { created_ms: u64::MAX, crc64: Some(3), checksum };
        let list = entries(&[9], &[]);
        let footer = footer::seal(&dek, world.epoch_id, object_id, &list, &info, &world.rng).unwrap();
        let size = g(9).unwrap();
        let read = footer::open(&dek, world.epoch_id, object_id, &footer, size).unwrap();
        let FooterRead::Verified(manifest) = read else { panic!("whole footer") };
        assert_eq!((manifest.info(), manifest.entries()), (&info, &list[..]));
    }
    assert!(Checksum::full_object(Algo::Crc32, vec![1; 5]).is_err());
}

#[test]
fn short_and_excess_input_fails_and_seals_no_footer() {
    let world = World::new(10);
    let (object_id, dek) = world.object_id();
    let begin =
        |length| BodyWriter::<Aead>::begin(&dek, world.epoch_id, object_id, length, &world.rng).unwrap();
    let mut out = Vec::new();
    let mut writer = begin(10);
    writer.push(b"123456789", &mut out).unwrap();
    let before = out.len();
    let short = writer.finish(0, None, &mut out).unwrap_err();
    assert_eq!((short, out.len()), (Error::LengthMismatch { expected: 10, got: 9 }, before));
    let mut writer = begin(10);
    assert_eq!(writer.push(b"12345678901", &mut out), Err(Error::LengthMismatch { expected: 10, got: 11 }));
    assert_eq!(writer.push(b"1", &mut out), Err(Error::Poisoned));
    assert_eq!(writer.finish(0, None, &mut out), Err(Error::Poisoned));
    let part = PartWriter::<Aead>::begin(&dek, world.epoch_id, object_id, 1, 1, &world.rng).unwrap();
    assert!(part.finish(&mut out).is_err());
    assert!(
        BodyWriter::<Aead>::begin(&dek, world.epoch_id, object_id, UNIT_LEN_MAX + 1, &world.rng).is_err()
    );
    assert!(PartWriter::<Aead>::begin(&dek, world.epoch_id, object_id, 0, 1, &world.rng).is_err());
    assert!(PartWriter::<Aead>::begin(&dek, world.epoch_id, object_id, 10_001, 1, &world.rng).is_err());
}

#[test]
fn crcs_combine() {
    let text = plaintext(100_003, 1);
    for cut in [0, 1, 50_000, 100_003] {
        let (a, b) = text.split_at(cut);
        assert_eq!(crc64::combine(crc64::crc64(a), crc64::crc64(b), b.len() as u64), crc64::crc64(&text));
    }
}

#[test]
fn granted_keys_seal_what_they_were_granted_for_and_nothing_else() {
    let world = World::new(11);
    let (object_id, dek) = world.object_id();
    let request = UnitRequest::part(world.epoch_id, object_id, 5, 70_000);
    let grant = UnitGrant::draw(&dek, &request, &world.rng).unwrap();
    let over_the_wire =
        UnitGrant::new(*grant.context(), UnitKeys::from_slice(grant.keys().expose()).unwrap()).unwrap();
    let mut writer = PartWriter::<Aead>::begin_granted(over_the_wire).unwrap();
    let mut unit = Vec::new();
    writer.push(&plaintext(70_000, 1), &mut unit).unwrap();
    let state = writer.finish(&mut unit).unwrap();
    assert_eq!((state.number, state.length, state.salt), (5, 70_000, grant.context().salt));
    let info = FooterInfo { created_ms: 1, crc64: Some(state.crc64), checksum: None };
    let footer_grant = |parts, length| {
        UnitGrant::draw(&dek, &UnitRequest::footer(world.epoch_id, object_id, parts, length), &world.rng)
            .unwrap()
    };
    assert!(footer::seal_granted(footer_grant(1, 69_999), &[state.entry()], &info).is_err());
    assert!(footer::seal_granted(footer_grant(2, 70_000), &[state.entry()], &info).is_err());
    assert!(footer::seal_granted(grant, &[state.entry()], &info).is_err(), "a part's grant is no footer's");
    assert!(PartWriter::<Aead>::begin_granted(footer_grant(1, 70_000)).is_err());
    let footer = footer::seal_granted(footer_grant(1, 70_000), &[state.entry()], &info).unwrap();
    let body = [unit, footer].concat();
    let name = name("k");
    let tlv_len = envelope::tlv_len(&Layout::Multipart, &metadata()).unwrap() as u64;
    let grant = |len| {
        let request = UnitRequest::envelope(world.epoch_id, object_id, &name, len);
        UnitGrant::draw(&dek, &request, &world.rng).unwrap()
    };
    assert!(envelope::seal_granted(grant(tlv_len + 1), &Layout::Multipart, &metadata()).is_err());
    let envelope = envelope::seal_granted(grant(tlv_len), &Layout::Multipart, &metadata()).unwrap();
    let (epoch_id, plaintext) = (world.epoch_id, plaintext(70_000, 1));
    let stored = Stored { dek, epoch_id, object_id, body, envelope, plaintext, name, boundaries: vec![] };
    stored.assert_reads(&stored.body);
}

#[test]
fn secrets_show_nothing_in_debug() {
    let text = format!(
        "{:?} {:?} {:?}",
        Wek::from_slice(&[0xab; 32]).unwrap(),
        NameKey::from_slice(&[0xab; 64]).unwrap(),
        metadata()
    );
    for trace in ["ab", "171", "blue", "text/plain"] {
        assert!(!text.contains(trace), "{text}");
    }
    assert!(Wek::from_slice(&[0; 31]).is_err());
}

#[test]
fn writers_and_readers_move_between_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<BodyWriter<Aead>>();
    check::<PartWriter<Aead>>();
    check::<ObjectReader<Aead>>();
    check::<Wek>();
    check::<Root>();
}
