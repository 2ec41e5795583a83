//! Every range of every part list maps to ciphertext inside of the object that holds it, and no more than needed.
#![no_main]

use claviger_format::layout::{PART_LEN_MIN, SEALED_SEGMENT_LEN, covering_single, g, h};
use claviger_format::{Entry, FooterInfo, FooterRead, PlainRange, Salt, footer};
use claviger_fuzz::{Counting, EPOCH_ID, OBJECT_ID, dek};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<(u32, bool)>, u32, u64, u64)| {
    let (parts, last, a, b) = input;
    let salt = |bound: bool| bound.then_some(Salt::new([7; 16]));
    let mut entries: Vec<Entry> = parts
        .iter()
        .take(200)
        .zip(1..)
        .map(|((extra, bound), number)| Entry {
            number,
            length: PART_LEN_MIN + u64::from(*extra),
            salt: salt(*bound),
            crc64: None,
        })
        .collect();
    entries.push(Entry { number: 9_999, length: last.into(), salt: salt(a % 2 == 0), crc64: None });
    let info = FooterInfo { created_ms: 0, crc64: None, checksum: None };
    let n: u64 = entries.iter().map(|entry| entry.length).sum();
    let size = g(n).expect("far below the limit");
    let footer =
        footer::seal(&dek(), EPOCH_ID, OBJECT_ID, &entries, &info, &Counting::new()).expect("a legal list");
    let read = footer::open(&dek(), EPOCH_ID, OBJECT_ID, &footer, size).expect("our own");
    let FooterRead::Verified(manifest) = read else { panic!("a whole footer") };
    if n == 0 {
        return;
    }
    let (first, last) = ((a % n).min(b % n), (a % n).max(b % n));
    let range = PlainRange::new(first, last).expect("in order");
    let covering = manifest.covering(range).expect("inside");
    let slack = 2 * SEALED_SEGMENT_LEN + entries.len() as u64 * 112 + range.len() / 65_536 * 16 + 16;
    assert!(covering.data.last < size - manifest.footer_len());
    assert!(covering.data.len() > range.len() && covering.data.len() <= range.len() + slack);
    if let Some(header) = covering.first_header {
        assert!(header.len() == 96 && header.last < covering.data.first);
    }
    let single = covering_single(n, range).expect("inside");
    assert!(single.first >= 96 && single.last < h(n).expect("far below the limit"));
    assert!(single.len() > range.len() && single.len() <= range.len() + range.len() / 65_536 * 16 + slack);
});
