//! An authentic manifest with any content is refused or consistent, and seals to the same bytes again.
#![no_main]

use claviger_format::layout::{g, h};
use claviger_format::{FooterRead, UnitGrant, UnitHeader, UnitKeys, UnitRequest, footer};
use claviger_fuzz::{EPOCH_ID, OBJECT_ID, dek, seal_message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (length, message) = input;
    let parts = message.len().saturating_sub(96) / 40;
    let Ok(parts) = u16::try_from(parts) else { return };
    let request = UnitRequest::footer(EPOCH_ID, OBJECT_ID, parts, length);
    let Some((header, sealed)) = seal_message(&request, message) else { return };
    let Some(size) = g(length) else { return };
    let suffix = [&sealed[..], &header].concat();
    let Ok(FooterRead::Verified(manifest)) = footer::open(&dek(), EPOCH_ID, OBJECT_ID, &suffix, size) else {
        return;
    };
    let body: u64 = manifest.entries().iter().map(|entry| h(entry.length).expect("a checked length")).sum();
    assert_eq!(body + manifest.footer_len(), manifest.total_size());
    assert_eq!(manifest.length(), length);
    let context = UnitHeader::parse(&header).expect("our own header").context;
    let grant = UnitGrant::draw(&dek(), &request, &claviger_fuzz::Counting::new()).expect("as before");
    let keys = UnitKeys::from_slice(grant.keys().expose()).expect("76 bytes");
    let again = UnitGrant::new(context, keys).expect("a checked context");
    if manifest.footer_len() < 2_000_000 {
        let again =
            footer::seal_granted(again, manifest.entries(), manifest.info()).expect("a checked manifest");
        assert!(again.ends_with(&suffix), "canonical");
    }
});
