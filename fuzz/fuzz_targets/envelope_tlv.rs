//! An authentic envelope with any content is refused, or says something that seals again to the same.
#![no_main]

use claviger_format::{Envelope, UnitRequest, envelope};
use claviger_fuzz::{Counting, EPOCH_ID, OBJECT_ID, base64url, dek, name, seal_message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|tlvs: &[u8]| {
    let name = name();
    let request = UnitRequest::envelope(EPOCH_ID, OBJECT_ID, &name, tlvs.len() as u64);
    let Some((header, sealed)) = seal_message(&request, tlvs) else { return };
    let text = base64url(&[header, sealed].concat());
    let Ok(opened) = Envelope::parse(&text).expect("well formed").open(&dek(), &name) else { return };
    let len_max = envelope::TLV_LEN_LIMIT;
    let (layout, metadata) = (opened.layout, opened.metadata);
    let again =
        envelope::seal(&dek(), EPOCH_ID, OBJECT_ID, &name, &layout, &metadata, len_max, &Counting::new());
    // Content headers given twice are read and not written.
    if let Ok(again) = again {
        let reopened = Envelope::parse(&again).expect("our own").open(&dek(), &name).expect("our own");
        assert_eq!(reopened.layout, layout);
        let mut system = metadata.system.clone();
        system.sort_by_key(|(header, _)| *header);
        assert_eq!(reopened.metadata.system, system);
        assert_eq!(reopened.metadata.user, metadata.user);
        assert_eq!(reopened.metadata.created_ms, metadata.created_ms);
        assert_eq!(reopened.metadata.checksum, metadata.checksum);
    }
});
