//! The allocator as the program is built with it, in a process of its own: memory that nothing else asks for.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]
#![allow(clippy::disallowed_methods, reason = "what is freed goes back after a time of the real clock")]

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mm::{MlockAllFlags, mlockall};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<usize>().unwrap() << 10
}

#[test]
fn what_is_freed_goes_back_to_the_system_though_memory_is_locked() {
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .expect("root may lock memory, and whoever has no RLIMIT_MEMLOCK");
    const BLOCK: usize = 16 << 10;
    const TAKEN: usize = 256 << 20;
    let before = resident();
    let blocks: Vec<Vec<u8>> = (0..TAKEN / BLOCK).map(|_| vec![1; BLOCK]).collect();
    assert!(resident() > before + TAKEN / 10 * 9);
    drop(blocks);
    let begun = Instant::now();
    while resident() > before + TAKEN / 10 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} bytes in place of {before}", resident());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_program_is_built_with_the_settings_that_this_needs() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    let shown = command.arg("--version").env("_RJEM_MALLOC_CONF", "stats_print:true").output().unwrap();
    let text = String::from_utf8_lossy(&shown.stderr);
    for setting in [
        "opt.abort_conf: true",
        "opt.retain: false",
        "opt.background_thread: true",
        "opt.dirty_decay_ms: 5000",
        "opt.muzzy_decay_ms: 0",
    ] {
        assert!(text.lines().any(|line| line.trim().starts_with(setting)), "{setting}: {text}");
    }
}
