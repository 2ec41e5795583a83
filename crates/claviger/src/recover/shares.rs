//! From shares to roots.

use std::path::PathBuf;

use anyhow::anyhow;
use claviger_format::Root;
use claviger_keyservice::custody::shamir::{Share, ShareOf, Verdict, combine, verify};

use crate::exit::Exit;
use crate::keys_cmd::share;

/// Reads the shares and puts them together, each set by itself. Nothing of them leaves this process.
///
/// # Errors
/// Exit code 2: a share that is none, or a set that is wrong or not whole, with what is missing.
pub(super) fn roots(files: &[PathBuf]) -> Result<Vec<Root>, Exit> {
    let mut sets: Vec<Vec<Share>> = Vec::new();
    for file in files {
        let share = share::read(file).map_err(Exit::into_usage)?;
        match sets.iter_mut().find(|set| set[0].belongs_with(&share)) {
            Some(set) => set.push(share),
            None => sets.push(vec![share]),
        }
    }
    let mut roots: Vec<Root> = Vec::new();
    let mut wrong = Vec::new();
    for set in &sets {
        match root_of(set) {
            // Two sets of one root: it was shared anew at some time, and both open it.
            Ok(root) if roots.iter().any(|known| is_same(known, &root)) => {}
            Ok(root) => roots.push(root),
            Err(text) => wrong.push(format!("  {}: {text}", describe(&set[0]))),
        }
    }
    if wrong.is_empty() {
        return Ok(roots);
    }
    Err(Exit::usage(anyhow!(
        "the shares don't open what they are for; nothing was done\n{}\n  `claviger keys share check` looks at shares one by one",
        wrong.join("\n")
    )))
}

fn root_of(set: &[Share]) -> Result<Root, String> {
    let ShareOf::Root { keyset_id, version } = set[0].of else {
        return Err("these unlock a key service; recovery shares begin with clv-share-1".to_owned());
    };
    let verdict = verify(set).map_err(|error| error.to_string())?;
    if let Verdict::TooFew { missing } = verdict {
        let (given, needed) = (set.len(), set[0].threshold);
        return Err(format!("{given} given, {needed} are needed: bring {missing} more of this set"));
    }
    let secret = combine(set).map_err(|error| error.to_string())?;
    Ok(Root::new(secret, keyset_id, version))
}

fn is_same(one: &Root, other: &Root) -> bool {
    // The fingerprints were compared when each was put together: one version of a keyset has one root.
    (one.keyset_id(), one.version()) == (other.keyset_id(), other.version())
}

fn describe(share: &Share) -> String {
    match share.of {
        ShareOf::Root { keyset_id, version } => {
            format!("keyset {keyset_id} version {version}, set {}", share.set_text())
        }
        ShareOf::Unlock => format!("unlock shares, set {}", share.set_text()),
    }
}
