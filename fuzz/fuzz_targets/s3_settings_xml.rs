//! Documents that say what is to become of an object or a bucket: no panic; what is accepted survives being written again.
#![no_main]

use claviger_s3::tagging::TagSet;
use claviger_s3::xml::{
    ListVersionsResult, VersioningResult, parse_legal_hold, parse_lock_configuration, parse_retention,
    parse_store_tagging, parse_tagging, parse_versioning, write_legal_hold, write_lock_configuration,
    write_retention, write_tagging, write_versioning,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(retention) = parse_retention(body) {
        assert_eq!(parse_retention(&write_retention(retention.as_ref())).as_ref(), Ok(&retention));
    }
    if let Ok(hold) = parse_legal_hold(body) {
        assert_eq!(parse_legal_hold(&write_legal_hold(hold)).as_ref(), Ok(&hold));
    }
    if let Ok(configuration) = parse_lock_configuration(body) {
        let again = parse_lock_configuration(&write_lock_configuration(&configuration));
        assert_eq!(again.as_ref(), Ok(&configuration));
    }
    if let Ok(status) = parse_versioning(body) {
        assert_eq!(parse_versioning(&write_versioning(status)).as_ref(), Ok(&status));
    }
    if let Ok(result) = VersioningResult::parse(body) {
        assert_eq!(VersioningResult::parse(&result.to_xml()).as_ref(), Ok(&result));
    }
    if let Ok(tags) = parse_tagging(body) {
        assert_eq!(parse_store_tagging(&write_tagging(&tags)).as_ref(), Ok(&tags));
        assert_eq!(TagSet::parse_header(&tags.to_header()).as_ref(), Ok(&tags));
    }
    let _ = parse_store_tagging(body);
    if let Ok(list) = ListVersionsResult::parse(body) {
        let written = list.to_xml();
        let again = ListVersionsResult::parse(&written).expect("what was written is read");
        assert!(
            again.entries.iter().zip(&list.entries).all(|(a, b)| a.key == b.key && a.version == b.version)
        );
        assert_eq!(again.entries.len(), list.entries.len());
    }
});
