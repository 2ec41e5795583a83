//! What the fuzz target of requests leaves out is found here, without running it.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

use std::collections::BTreeSet;
use std::path::Path;

/// Names of all types of requests of the interface.
fn request_types() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut types = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        // Some are made by a macro that takes the name alone.
        let named =
            |line: &str| line.trim().trim_start_matches("pub struct ").strip_suffix(" {").map(str::to_owned);
        types.extend(text.lines().filter_map(named).filter(|name| is_request(name)));
    }
    types
}

fn is_request(name: &str) -> bool {
    name.ends_with("Request") && name.chars().all(char::is_alphanumeric)
}

#[test]
fn every_type_of_request_is_fuzzed_and_every_arm_of_the_target_is_reached() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets/keyapi_requests.rs");
    let target = std::fs::read_to_string(target).unwrap();
    let types = request_types();
    assert!(types.len() > 25 && types.contains("LeaseRequest"), "{types:?}");
    let missing: Vec<_> =
        types.iter().filter(|name| !target.contains(&format!("body::<{name}>(data)"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let arms =
        target.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit())).count();
    let modulus =
        target.split("match which % ").nth(1).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
    // The last arm, `_`, is one more.
    assert_eq!(modulus, arms + 1);
}
