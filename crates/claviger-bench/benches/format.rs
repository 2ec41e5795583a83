//! What sealing and opening cost beside the cipher alone and beside a copy, and what is paid once per object.
//!
//! ```text
//! cargo bench -p claviger-bench --bench format                       # Criterion's report
//! cargo bench -p claviger-bench --bench format -- --check            # only: at least 90 % of what can't be left out?
//! ```
//! The cipher is the gateway's (aws-lc); a body is 8 MiB. It comes in pieces that are segments, or in pieces of 64,000 bytes that end
//! anywhere, as a network gives them: then a segment has to be put together, which is a copy.
#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on should stop where it stands")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
#![allow(clippy::print_stdout, reason = "its report goes to the terminal")]

use std::hint::black_box;
use std::time::Instant;

use claviger_format::envelope::TLV_LEN_MAX_S3;
use claviger_format::suite::{SegmentAead as _, TAG_LEN};
use claviger_format::unit::HEADER_LEN;
use claviger_format::*;
use claviger_gateway::aead::AwsLcAead;
use criterion::{Criterion, Throughput};

const BODY_LEN: usize = 8 << 20;
const SEGMENT_LEN: usize = 64 << 10;
/// Pieces that end anywhere.
const ANYWHERE_LEN: usize = 64_000;
/// The part of the speed of what they can't do without (cipher, CRC, copy) that sealing and opening have to reach.
const WANTED: f64 = 0.9;
const CREATED_MS: u64 = 1_750_000_000_000;

/// Different at every call, the same in every run; nothing sealed with it is kept.
struct Counting(std::sync::atomic::AtomicU64);

impl Random for Counting {
    fn fill(&self, out: &mut [u8]) -> std::result::Result<(), RandomError> {
        for chunk in out.chunks_mut(8) {
            let next = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, std::sync::atomic::Ordering::Relaxed);
            chunk.copy_from_slice(&next.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    fn hedge(&self) -> Hedge {
        let counter = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Hedge { boot_nonce: [7; 32], counter, time_ns: CREATED_MS * 1_000_000 }
    }
}

struct World {
    rng: Counting,
    epoch_id: EpochId,
    wek: Wek,
    text: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let rng = Counting(std::sync::atomic::AtomicU64::new(1));
        let wek = Wek::generate(&rng, &[9; 32]).unwrap();
        let epoch_id = EpochId::draw(&rng).unwrap();
        let text = (0..=250_u8).cycle().take(BODY_LEN).collect();
        Self { rng, epoch_id, wek, text }
    }

    fn object(&self) -> (ObjectId, Dek) {
        let object_id = ObjectId::draw(&self.rng).unwrap();
        (object_id, self.wek.dek(self.epoch_id, object_id))
    }

    /// Seals the text as the gateway does: what is full goes out, and the buffer is used again, for the next object too.
    fn seal(
        &self,
        dek: &Dek,
        object_id: ObjectId,
        piece_len: usize,
        buffer: &mut Buffer,
        mut out: impl FnMut(&[u8]),
    ) -> Salt {
        buffer.clear();
        let len = BODY_LEN as u64;
        let mut writer =
            BodyWriter::<AwsLcAead>::begin(dek, self.epoch_id, object_id, len, &self.rng).unwrap();
        let salt = writer.salt();
        for piece in self.text.chunks(piece_len) {
            writer.push(piece, buffer).unwrap();
            if buffer.as_slice().len() >= 2 * SEGMENT_LEN {
                out(buffer.as_slice());
                buffer.clear();
            }
        }
        writer.finish(CREATED_MS, None, buffer).unwrap();
        out(buffer.as_slice());
        salt
    }
}

fn name() -> ObjectName {
    ObjectName::new(BucketId::new("vault#000102030405060708090a0b0c0d0e0f").unwrap(), "2026/11/scan.dcm")
        .unwrap()
}

fn metadata() -> Metadata {
    Metadata {
        system: vec![(SystemHeader::ContentType, b"application/dicom".to_vec())],
        user: vec![("patient".to_owned(), b"4711".to_vec())],
        created_ms: Some(CREATED_MS),
        checksum: None,
    }
}

/// A body, sealed, and what opens it.
struct Sealed {
    dek: Dek,
    object_id: ObjectId,
    body: Vec<u8>,
    envelope: String,
    opened: OpenedEnvelope,
    manifest: Manifest,
}

impl Sealed {
    /// Header, segments and footer, each a piece.
    fn items(&self) -> Vec<&[u8]> {
        let (header, rest) = self.body.split_at(HEADER_LEN);
        let (segments, footer) = rest.split_at(BODY_LEN / SEGMENT_LEN * (SEGMENT_LEN + TAG_LEN));
        let segments = segments.chunks(SEGMENT_LEN + TAG_LEN);
        std::iter::once(header).chain(segments).chain([footer]).collect()
    }
}

fn sealed(world: &World) -> Sealed {
    let (object_id, dek) = world.object();
    let mut body = body_room();
    let salt =
        world.seal(&dek, object_id, SEGMENT_LEN, &mut buffer(), |sealed| body.extend_from_slice(sealed));
    let size = body.len() as u64;
    let FooterRead::Verified(manifest) = footer::open(&dek, world.epoch_id, object_id, &body, size).unwrap()
    else {
        panic!("the whole body was given");
    };
    let layout = Layout::Single { salt, length: BODY_LEN as u64 };
    let envelope = envelope::seal(
        &dek,
        world.epoch_id,
        object_id,
        &name(),
        &layout,
        &metadata(),
        TLV_LEN_MAX_S3,
        &world.rng,
    )
    .unwrap();
    let opened = Envelope::parse(&envelope).unwrap().open(&dek, &name()).unwrap();
    Sealed { dek, object_id, body, envelope, opened, manifest }
}

/// Made at once, so that bodies lie alike.
fn body_room() -> Vec<u8> {
    Vec::with_capacity(BODY_LEN + BODY_LEN / 1024)
}

fn buffer() -> Buffer {
    Buffer::with_capacity(3 * (SEGMENT_LEN + TAG_LEN))
}

/// Two segments go out at once.
fn take_full(buffer: &mut Buffer) {
    if buffer.as_slice().len() >= 2 * SEGMENT_LEN {
        black_box(buffer.as_slice());
        buffer.clear();
    }
}

/// Opens the whole object, whose CRC is verified too.
fn open(sealed: &Sealed, pieces: &[&[u8]], buffer: &mut Buffer) {
    let size = sealed.body.len() as u64;
    read(ObjectReader::single(&sealed.dek, &sealed.opened, size).unwrap(), pieces, buffer);
}

/// Opens all segments as a range: of a range there is no CRC.
fn open_range(sealed: &Sealed, segments: &[&[u8]], buffer: &mut Buffer) {
    let all = PlainRange::new(0, BODY_LEN as u64 - 1).unwrap();
    let reader = ObjectReader::single_range(&sealed.dek, &sealed.opened, &sealed.manifest, all);
    read(reader.unwrap(), segments, buffer);
}

fn read(mut reader: ObjectReader<AwsLcAead>, pieces: &[&[u8]], buffer: &mut Buffer) {
    buffer.clear();
    for piece in pieces {
        reader.push(piece, buffer).unwrap();
        take_full(buffer);
    }
    reader.finish().unwrap();
    black_box(buffer.as_slice());
}

/// The cipher alone, segment by segment, into the room that sealing and opening use and as much of it at once.
struct Raw {
    aead: AwsLcAead,
    /// Where a body has its header there is nothing, so that the segments lie as they do there.
    body: Vec<u8>,
}

impl Raw {
    fn new(text: &[u8]) -> Self {
        let aead = AwsLcAead::new(&[7; 32]);
        let mut body = body_room();
        body.resize(HEADER_LEN, 0);
        for (index, segment) in text.chunks(SEGMENT_LEN).enumerate() {
            aead.seal_gather(&nonce(index), &[segment], body.grow(segment.len() + TAG_LEN));
        }
        Self { aead, body }
    }

    fn seal(&self, text: &[u8], buffer: &mut Buffer) {
        buffer.clear();
        for (index, segment) in text.chunks(SEGMENT_LEN).enumerate() {
            self.aead.seal_gather(&nonce(index), &[segment], buffer.grow(segment.len() + TAG_LEN));
            take_full(buffer);
        }
    }

    fn open(&self, buffer: &mut Buffer) {
        buffer.clear();
        for (index, segment) in self.body[HEADER_LEN..].chunks(SEGMENT_LEN + TAG_LEN).enumerate() {
            let out = buffer.grow(segment.len() - TAG_LEN);
            self.aead.open_gather(&nonce(index), &[segment], out).unwrap();
            take_full(buffer);
        }
    }
}

fn nonce(index: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&(index as u64).to_be_bytes());
    nonce
}

fn bodies(criterion: &mut Criterion, world: &World) {
    let mut group = criterion.benchmark_group("body of 8 MiB");
    group.throughput(Throughput::Bytes(BODY_LEN as u64)).sample_size(20);
    let (raw, sealed, mut room) = (Raw::new(&world.text), sealed(world), buffer());
    for mut turn in turns(world, &raw, &sealed) {
        group.bench_function(turn.what, |b| b.iter(|| (turn.work)(&mut room)));
    }
    group.finish();
}

fn seal_once(world: &World, piece_len: usize, buffer: &mut Buffer) {
    let (object_id, dek) = world.object();
    world.seal(&dek, object_id, piece_len, buffer, |sealed| {
        black_box(sealed);
    });
}

fn once_per_object(criterion: &mut Criterion, world: &World) {
    let mut group = criterion.benchmark_group("once per object");
    let sealed = sealed(world);
    group.bench_function("envelope, sealed", |b| {
        let layout = Layout::Single { salt: Salt::draw(&world.rng).unwrap(), length: 4096 };
        b.iter(|| {
            envelope::seal(
                &sealed.dek,
                world.epoch_id,
                sealed.object_id,
                &name(),
                &layout,
                &metadata(),
                TLV_LEN_MAX_S3,
                &world.rng,
            )
            .unwrap()
        });
    });
    group.bench_function("envelope, parsed and opened", |b| {
        b.iter(|| Envelope::parse(&sealed.envelope).unwrap().open(&sealed.dek, &name()).unwrap());
    });
    // Keys are derived each time, and the whole footer is there at once, its pad included.
    for (parts, what) in [(1, "footer of one part"), (10_000, "footer of 10,000 parts")] {
        let (object_id, dek) = world.object();
        let (entries, info) = parts_of(world, parts);
        let seal = || footer::seal(&dek, world.epoch_id, object_id, &entries, &info, &world.rng).unwrap();
        group.bench_function(format!("{what}, sealed"), |b| b.iter(seal));
        let (sealed, size) = (seal(), layout::g(entries.iter().map(|entry| entry.length).sum()).unwrap());
        group.bench_function(format!("{what}, opened"), |b| {
            b.iter(|| footer::open(&dek, world.epoch_id, object_id, &sealed, size).unwrap());
        });
    }
    group.bench_function("an object of 4 KiB, sealed", |b| {
        b.iter(|| {
            let (object_id, dek) = world.object();
            let mut out = Vec::with_capacity(8 << 10);
            let mut writer =
                BodyWriter::<AwsLcAead>::begin(&dek, world.epoch_id, object_id, 4096, &world.rng).unwrap();
            writer.push(&world.text[..4096], &mut out).unwrap();
            writer.finish(CREATED_MS, None, &mut out).unwrap();
            out
        });
    });
    group.finish();
}

/// Parts of 5 MiB, and what their footer says besides.
fn parts_of(world: &World, parts: u16) -> (Vec<Entry>, FooterInfo) {
    let part = |number| {
        let salt = Some(Salt::draw(&world.rng).unwrap());
        Entry { number, length: 5 << 20, salt, crc64: Some(number.into()) }
    };
    let info = FooterInfo { created_ms: CREATED_MS, crc64: Some(7), checksum: None };
    ((1..=parts).map(part).collect(), info)
}

/// One thing that is measured.
struct Turn<'a> {
    what: &'static str,
    /// The turns that are the parts this one can't do without: their times together are what it is held against.
    needs: &'static [usize],
    work: Box<dyn FnMut(&mut Buffer) + 'a>,
}

impl<'a> Turn<'a> {
    fn new(what: &'static str, needs: &'static [usize], work: impl FnMut(&mut Buffer) + 'a) -> Self {
        Self { what, needs, work: Box::new(work) }
    }
}

const SEAL_ALONE: usize = 0;
const OPEN_ALONE: usize = 1;
const CRC_ALONE: usize = 2;
const COPY_ALONE: usize = 3;

/// Everything that is done to a body of 8 MiB, the parts first. All write into one room, of two segments: which
/// memory it is makes a difference of a quarter.
fn turns<'a>(world: &'a World, raw: &'a Raw, sealed: &'a Sealed) -> Vec<Turn<'a>> {
    let text = &world.text;
    let items = sealed.items();
    let segments = items[1..items.len() - 1].to_vec();
    let pieces: Vec<_> = sealed.body.chunks(ANYWHERE_LEN).collect();
    vec![
        Turn::new("cipher, sealing", &[], |room| raw.seal(text, room)),
        Turn::new("cipher, opening", &[], |room| raw.open(room)),
        Turn::new("CRC, in the cache", &[], |_| {
            for _ in 0..BODY_LEN / SEGMENT_LEN {
                black_box(crc64::crc64(black_box(&text[..SEGMENT_LEN])));
            }
        }),
        Turn::new("copy", &[], |room| {
            for segment in text.chunks(SEGMENT_LEN) {
                room.clear();
                room.append(segment);
                black_box(room.as_slice());
            }
        }),
        Turn::new("a body sealed", &[SEAL_ALONE, CRC_ALONE], |room| seal_once(world, SEGMENT_LEN, room)),
        Turn::new("a body opened", &[OPEN_ALONE, CRC_ALONE], move |room| open(sealed, &items, room)),
        Turn::new("a range opened", &[OPEN_ALONE], move |room| open_range(sealed, &segments, room)),
        Turn::new("a body sealed, cut anywhere", &[SEAL_ALONE, CRC_ALONE, COPY_ALONE], |room| {
            seal_once(world, ANYWHERE_LEN, room);
        }),
        Turn::new("a body opened, cut anywhere", &[OPEN_ALONE, CRC_ALONE, COPY_ALONE], move |room| {
            open(sealed, &pieces, room);
        }),
    ]
}

/// Whether sealing and opening reach what they have to: the best of many short turns, taken one after the other, so that
/// what the machine does meanwhile meets all of them.
fn check(world: &World) -> bool {
    let (raw, sealed) = (Raw::new(&world.text), sealed(world));
    let mut turns = turns(world, &raw, &sealed);
    let (mut room, mut best) = (buffer(), vec![f64::INFINITY; turns.len()]);
    for _ in 0..60 {
        for (turn, best) in turns.iter_mut().zip(&mut best) {
            let begun = Instant::now();
            (turn.work)(&mut room);
            *best = best.min(begun.elapsed().as_secs_f64());
        }
    }
    let mut good = true;
    for (turn, took) in turns.iter().zip(&best) {
        print!("{}: {:.2} GB/s", turn.what, speed(*took));
        if let Some(cipher) = turn.needs.first() {
            let needs: f64 = turn.needs.iter().map(|at| best[*at]).sum();
            let names: Vec<_> = turn.needs.iter().map(|at| turns[*at].what).collect();
            print!("; {:.1} % of {}", 100.0 * best[*cipher] / took, names[0]);
            if names.len() > 1 {
                print!(", {:.1} % of {}", 100.0 * needs / took, names.join(" + "));
            }
            good &= needs / took >= WANTED;
        }
        println!();
    }
    good
}

/// GB/s of one body in so many seconds.
#[allow(clippy::cast_precision_loss, reason = "a length far below 2^53")]
fn speed(took: f64) -> f64 {
    BODY_LEN as f64 / took / 1e9
}

fn main() {
    let world = World::new();
    if std::env::args().any(|argument| argument == "--check") {
        assert!(check(&world), "sealing or opening takes more than its parts / {WANTED}");
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    bodies(&mut criterion, &world);
    once_per_object(&mut criterion, &world);
    criterion.final_summary();
}
