//! The null store, as a process of its own: what it uses is nobody's.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::Process;

/// Starts it; gives its addresses over HTTP and HTTPS.
pub(super) fn start(dir: &Path, keep_dir: Option<&Path>, limit: u64) -> Result<(Process, String, String)> {
    let ready = dir.join("store.ready");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("store").arg("--tls").arg(dir).arg("--ready-file").arg(&ready);
    command.args(["--limit", &limit.to_string()]);
    command.arg("--keep-dir").arg(keep_dir.unwrap_or(dir));
    let mut process = Process::start("store", dir, &mut command)?;
    process.wait_until(|| ready.exists())?;
    let text = std::fs::read_to_string(&ready)?;
    let (http, https) = text.trim().split_once('\n').context("the store wrote no two addresses")?;
    Ok((process, format!("http://{http}"), format!("https://{https}")))
}
