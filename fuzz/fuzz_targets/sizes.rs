//! The size functions and their inverses agree everywhere.
#![no_main]

use claviger_format::layout::{OBJECT_LEN_MAX, UNIT_LEN_MAX, g, g_inverse, h, h_inverse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|x: u64| {
    for x in [x, x % (1 << 54), x % (1 << 41), x % (1 << 24)] {
        assert_eq!(g(x).is_some(), x <= OBJECT_LEN_MAX);
        assert_eq!(h(x).is_some(), x <= UNIT_LEN_MAX);
        assert!(g(x).is_none_or(|size| g_inverse(size) == Some(x)));
        assert!(h(x).is_none_or(|size| h_inverse(size) == Some(x)));
        assert!(g_inverse(x).is_none_or(|n| g(n) == Some(x)));
        assert!(h_inverse(x).is_none_or(|p| h(p) == Some(x)));
    }
});
