//! What keeps the process's memory to itself: no core dump, nobody of the same user who looks in, no page in swap.
//!
//! The unit files in deploy/systemd do more of it from outside. This here holds however the program is started.

use std::io;

use anyhow::anyhow;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::exit::Exit;

/// Whether pages can be swapped out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Every page, now and from now on, stays in memory.
    Locked,
    /// Why not, and what to do.
    NotLocked(String),
}

impl Memory {
    /// Why it is not locked.
    pub(crate) fn problem(&self) -> Option<&str> {
        match self {
            Self::Locked => None,
            Self::NotLocked(why) => Some(why),
        }
    }
}

/// No core dumps, whatever limits it was started with, and no other process of the same user may read the memory or attach to
/// it (`PR_SET_DUMPABLE`). Only who has CAP_SYS_PTRACE still can.
///
/// # Errors
/// The system's; then no secret should come into this process.
pub(crate) fn close_to_others() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Locks all of the process's memory, each page when it is used first. Where the limit is finite nothing is locked: the first
/// allocation beyond it would fail, at any later moment.
pub(crate) fn lock_memory() -> Memory {
    let limit = getrlimit(Resource::Memlock);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.maximum.is_some() && !has_no_limit() {
        return Memory::NotLocked(text("RLIMIT_MEMLOCK is finite"));
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match setrlimit(Resource::Memlock, raised).and_then(|()| mlockall(flags)) {
        Ok(()) => Memory::Locked,
        Err(error) => Memory::NotLocked(text(&error.to_string())),
    }
}

/// What a service does about it: it says so, or does not start if it was told to.
///
/// # Errors
/// Exit code 2.
pub(crate) fn refuse_unlocked(memory: &Memory, is_required: bool) -> Result<(), Exit> {
    match memory.problem() {
        None => Ok(()),
        Some(why) if is_required => Err(Exit::usage(anyhow!("--require-locked-memory: {why}"))),
        Some(why) => {
            tracing::warn!("{why}");
            Ok(())
        }
    }
}

fn text(why: &str) -> String {
    format!(
        "keys in memory can be swapped out: {why}; give the service LimitMEMLOCK=infinity (systemd) or --ulimit memlock=-1 \
         (containers), or turn swap off"
    )
}

/// Whoever has this capability locks as much as he likes.
fn has_no_limit() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}
