//! Writes an audit log as the key service does, for the second verifier (`tests/decoder/test_audit.py`).
//!
//! ```text
//! audit_folder DIR RECORDS UNSIGNED
//! ```
//! DIR/audit is the log; the last UNSIGNED records come after its last checkpoint. DIR/N.tlog-proof are proofs of some records. The
//! log keeps records for 100 s, there is one for each second, and the last signed one allows to prune the first 500. The one before that is what somebody could add who wants more to go. Its key, always the same, goes to standard output. With every call the records' salts are others.

#![allow(clippy::print_stdout, reason = "the key is the result")]

use std::path::PathBuf;
use std::sync::Arc;

use claviger_audit::SigningKey;
use claviger_audit::note::KeyKind;
use claviger_env::{OsRandom, SystemClock};
use claviger_keyservice::audit_log::{AuditFolder, AuditLog};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: audit_folder DIR RECORDS UNSIGNED");
    let dir = PathBuf::from(next()?);
    let (records, unsigned): (u64, u64) = (next()?.parse()?, next()?.parse()?);
    let signed = records.checked_sub(unsigned).ok_or("more records without a checkpoint than records")?;
    let key = SigningKey::from_seed("claviger.invalid/log/example", KeyKind::Log, &[7; 32])?;
    println!("{}", key.verifier());
    let folder = AuditFolder::new(&dir.join("audit"));
    let (clock, random) = (Arc::new(SystemClock), Arc::new(OsRandom::new(Arc::new(SystemClock))?));
    let (log, _) = AuditLog::open(folder.path(), 100_000, random, clock)?;
    log.sign_with(key)?;
    let record = |n: u64| {
        let more = match n {
            0 => ",\"retention_s\":100",
            n if n + 2 == signed => {
                ",\"action\":\"prune\",\"outcome\":\"refused\",\"before_ms\":600000,\"pruned_before\":600"
            }
            n if n + 1 == signed => {
                ",\"action\":\"prune\",\"outcome\":\"done\",\"proposal\":\"1\",\"before_ms\":500000,\"pruned_before\":500,\
                 \"seal\":\"00112233445566778899aabbccddeeff\""
            }
            _ => "",
        };
        let time_ms = n * 1000;
        format!("{{\"v\":1,\"time_ms\":{time_ms},\"n\":{n},\"key\":\"a/ä \\\"{n}\\\".txt\"{more}}}")
            .into_bytes()
    };
    for first in (0..signed).step_by(100) {
        log.append_blocking((first..signed.min(first + 100)).map(record).collect())?;
    }
    log.stop_signing();
    log.append_blocking((signed..records).map(record).collect())?;
    drop(log);
    for index in [0, 255, 256, signed - 1] {
        std::fs::write(dir.join(format!("{index}.tlog-proof")), folder.prove(index)?.to_string())?;
    }
    Ok(())
}
