//! What sealing and opening cost beside the cipher alone and beside a copy, and what is paid once per object.
//!
//! ```text
//! cargo bench -p claviger-bench --bench format                       # Criterion's report
//! cargo bench -p claviger-bench --bench format -- --check            # only: at least 90 % of the cipher alone?
//! ```
//! The cipher is the gateway's (aws-lc); a body is 8 MiB in pieces of 64 KiB that do not fall on segments, as a network gives them.
#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on should stop where it stands")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
#![allow(clippy::print_stdout, reason = "its report goes to the terminal")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use claviger_format::envelope::TLV_LEN_MAX_S3;
use claviger_format::suite::{SegmentAead as _, TAG_LEN};
use claviger_format::*;
use claviger_gateway::aead::AwsLcAead;
use criterion::{Criterion, Throughput};

const BODY_LEN: usize = 8 << 20;
const PIECE_LEN: usize = 64 << 10;
const SEGMENT_LEN: usize = 64 << 10;
/// The part of the cipher's own speed that sealing and opening have to reach.
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
    fn seal(&self, dek: &Dek, object_id: ObjectId, buffer: &mut Buffer, mut out: impl FnMut(&[u8])) -> Salt {
        buffer.clear();
        let len = BODY_LEN as u64;
        let mut writer =
            BodyWriter::<AwsLcAead>::begin(dek, self.epoch_id, object_id, len, &self.rng).unwrap();
        let salt = writer.salt();
        for piece in self.text.chunks(PIECE_LEN) {
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
}

fn sealed(world: &World) -> Sealed {
    let (object_id, dek) = world.object();
    let mut body = Vec::new();
    let salt = world.seal(&dek, object_id, &mut buffer(), |sealed| body.extend_from_slice(sealed));
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
    Sealed { dek, object_id, body, envelope, opened }
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

fn open(sealed: &Sealed, buffer: &mut Buffer) {
    buffer.clear();
    let mut reader =
        ObjectReader::<AwsLcAead>::single(&sealed.dek, &sealed.opened, sealed.body.len() as u64).unwrap();
    for piece in sealed.body.chunks(PIECE_LEN) {
        reader.push(piece, buffer).unwrap();
        take_full(buffer);
    }
    reader.finish().unwrap();
    black_box(buffer.as_slice());
}

/// The cipher alone, segment by segment, into the room that sealing and opening use and as much of it at once: which memory is
/// written makes a difference of a quarter.
struct Raw {
    aead: AwsLcAead,
    /// Each with its tag behind it.
    segments: Vec<Vec<u8>>,
}

impl Raw {
    fn new(text: &[u8]) -> Self {
        let aead = AwsLcAead::new(&[7; 32]);
        let seal = |(index, segment): (usize, &[u8])| {
            let mut sealed = vec![0; segment.len() + TAG_LEN];
            aead.seal_gather(&nonce(index), &[segment], &mut sealed);
            sealed
        };
        let segments = text.chunks(SEGMENT_LEN).enumerate().map(seal).collect();
        Self { aead, segments }
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
        for (index, segment) in self.segments.iter().enumerate() {
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
    let (raw, sealed) = (Raw::new(&world.text), sealed(world));
    let (mut out, mut room) = (vec![0; SEGMENT_LEN], buffer());
    group.bench_function("copy", |b| {
        b.iter(|| {
            for segment in world.text.chunks(SEGMENT_LEN) {
                out[..segment.len()].copy_from_slice(segment);
                black_box(&out);
            }
        });
    });
    group.bench_function("seal, the cipher alone", |b| b.iter(|| raw.seal(&world.text, &mut room)));
    group.bench_function("seal", |b| b.iter(|| seal_once(world, &mut room)));
    group.bench_function("open, the cipher alone", |b| b.iter(|| raw.open(&mut room)));
    group.bench_function("open", |b| b.iter(|| open(&sealed, &mut room)));
    group.finish();
}

fn seal_once(world: &World, buffer: &mut Buffer) {
    let (object_id, dek) = world.object();
    world.seal(&dek, object_id, buffer, |sealed| {
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

/// Whether sealing and opening reach what they have to: the best of many short turns, taken one after the other, so that
/// what the machine does meanwhile meets both.
fn check(world: &World) -> bool {
    let (raw, sealed, mut room) = (Raw::new(&world.text), sealed(world), buffer());
    let mut best = [Duration::MAX; 4];
    for _ in 0..60 {
        let mut turn = |at: usize, work: &mut dyn FnMut()| {
            let begun = Instant::now();
            work();
            best[at] = best[at].min(begun.elapsed());
        };
        turn(0, &mut || raw.seal(&world.text, &mut room));
        turn(1, &mut || seal_once(world, &mut room));
        turn(2, &mut || raw.open(&mut room));
        turn(3, &mut || open(&sealed, &mut room));
    }
    let reaches = |what: &str, [raw, ours]: [Duration; 2]| {
        let part = raw.as_secs_f64() / ours.as_secs_f64();
        println!(
            "{what}: {:.2} GB/s, {:.1} % of the cipher alone ({:.2} GB/s)",
            speed(ours),
            100.0 * part,
            speed(raw)
        );
        part >= WANTED
    };
    let [raw_seal, seal, raw_open, open] = best;
    reaches("seal", [raw_seal, seal]) & reaches("open", [raw_open, open])
}

/// GB/s of one body in this time.
#[allow(clippy::cast_precision_loss, reason = "a length far below 2^53")]
fn speed(took: Duration) -> f64 {
    BODY_LEN as f64 / took.as_secs_f64() / 1e9
}

fn main() {
    let world = World::new();
    if std::env::args().any(|argument| argument == "--check") {
        assert!(check(&world), "sealing or opening is slower than {WANTED} of the cipher alone");
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    bodies(&mut criterion, &world);
    once_per_object(&mut criterion, &world);
    criterion.final_summary();
}
