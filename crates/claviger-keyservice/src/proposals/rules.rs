//! The table of what takes two operators, and how it is told to people.

use claviger_format::UnitHeader;
use claviger_keyapi::EnvelopeHeader;
use claviger_keyapi::proposals::{Action, UnlockTo};
use sha2::{Digest as _, Sha256};

use super::unbind::unbound;
use crate::log_key::keys_of;
use crate::policy::{AdminVerb, Policy};
use crate::vault::Vault;

/// What an action asks of those who propose and approve it.
pub(crate) struct Rule {
    /// The verb that both need.
    pub(crate) verb: AdminVerb,
    /// Its maker takes a result afterwards; else it is done when it is approved.
    pub(crate) is_collected: bool,
}

/// The table. One operator suffices for everything that is not in it: for the brakes lock, freeze, revoke and withdraw, for
/// unlocking, for a new keyset, and for looking.
pub(crate) fn rule(action: &Action) -> Rule {
    let (verb, is_collected) = match action {
        Action::Enrol { .. } => (AdminVerb::Enrol, true),
        Action::Policy { .. } => (AdminVerb::Policy, false),
        Action::Prune { .. } => (AdminVerb::Policy, false),
        Action::Unfreeze { .. } => (AdminVerb::Freeze, false),
        Action::AcceptEpochs { .. } => (AdminVerb::Enrol, false),
        Action::ChangeUnlock { to: UnlockTo::Pkcs11 } => (AdminVerb::Unlock, false),
        Action::ChangeUnlock { .. } => (AdminVerb::Unlock, true),
        Action::Reshare { .. } | Action::Rotate { .. } => (AdminVerb::Keyset, true),
        Action::Destroy { .. } | Action::Reseal { .. } | Action::Unbind { .. } => (AdminVerb::Keyset, false),
        Action::AddReplica { .. } | Action::RemoveReplica { .. } => (AdminVerb::Enrol, false),
        Action::Disclose { .. } => (AdminVerb::Disclose, true),
    };
    Rule { verb, is_collected }
}

/// One line, for the audit log.
pub(crate) fn headline(action: &Action) -> String {
    match action {
        Action::Enrol { identity, keysets, replace, .. } => {
            let replacing = if *replace { ", replacing who has the name" } else { "" };
            let place =
                if keysets.is_empty() { String::new() } else { format!(" for {}", keysets.join(", ")) };
            format!("enrol {identity}{place}{replacing}")
        }
        Action::Policy { text } => format!("policy with SHA-256 {}", sha256(text)),
        Action::Prune { before_ms } => format!("prune records of releases before {before_ms} ms"),
        Action::Unfreeze { target } => format!("unfreeze {target}"),
        Action::AcceptEpochs { gateway_id, epochs } if epochs.is_empty() => {
            format!("accept every quarantined epoch of gateway {gateway_id}")
        }
        Action::AcceptEpochs { gateway_id, epochs } => {
            format!("accept {} quarantined epochs of gateway {gateway_id}", epochs.len())
        }
        Action::ChangeUnlock { to: UnlockTo::Passphrase } => "unlock by a new passphrase".to_owned(),
        Action::ChangeUnlock { to: UnlockTo::Quorum { shares, threshold } } => {
            format!("unlock by any {threshold} of {shares} new shares")
        }
        Action::ChangeUnlock { to: UnlockTo::Pkcs11 } => "unlock by the HSM of the configuration".to_owned(),
        Action::Reshare { keyset, version, shares, threshold } => {
            format!("new recovery shares of keyset {keyset}, version {version}: any {threshold} of {shares}")
        }
        Action::AddReplica { request } => format!("replica {} with log {}", request.name, request.log_id),
        Action::RemoveReplica { log_id } => format!("the replica with log {log_id} is removed"),
        Action::Rotate { keyset, shares, threshold } => {
            format!(
                "a new version of keyset {keyset}, with recovery shares of its own: any {threshold} of {shares}"
            )
        }
        Action::Destroy { keyset, version, wait_s } => {
            format!("destroy version {version} of keyset {keyset}, {} after it is approved", days(*wait_s))
        }
        Action::Unbind { buckets } => match buckets.as_slice() {
            [one] => format!("unbind bucket {}", one.bucket),
            several => format!("unbind {} buckets", several.len()),
        },
        Action::Disclose { reason, .. } => format!("hand out the key of one object: {reason}"),
        Action::Reseal { keyset, version } => {
            format!("seal the epochs of version {version} of keyset {keyset} to its newest version as well")
        }
    }
}

/// The whole of it, for the one who is to approve: what it would do now.
pub(crate) fn words(policy: &Policy, vault: &Vault, action: &Action) -> Vec<String> {
    let mut words = vec![headline(action)];
    match action {
        Action::Enrol { identity, .. } => {
            let rights = policy.describe().into_iter().filter(|line| {
                line.strip_prefix(&identity.to_string()).is_some_and(|rest| rest.starts_with(' '))
            });
            words.extend(rights.map(|line| format!("policy: {line}")));
            if words.len() == 1 {
                words.push(format!("policy gives {identity} nothing yet"));
            }
            if vault.active(identity).is_some() {
                words.push(format!("{identity} is enrolled now"));
            }
        }
        Action::Policy { text } => words.extend(differences(policy, text)),
        Action::Prune { .. } => {
            words.push(
                "what was released to whom until then can't be found out from this log any more".to_owned(),
            );
        }
        Action::Unfreeze { target } => {
            words.extend(vault.freezes.get(target).map(|row| {
                format!(
                    "frozen by {}: {}",
                    row.by.as_ref().map_or_else(|| "the service".to_owned(), ToString::to_string),
                    if row.reason.is_empty() { "no reason given" } else { &row.reason }
                )
            }));
        }
        Action::ChangeUnlock { .. } => {
            words.push(
                "what unlocks it now opens the database no more, but still every older copy of it".to_owned(),
            );
        }
        Action::Reshare { keyset, version, .. } => {
            let keyset = vault.keyset(keyset);
            let found = keyset.iter().flat_map(|keyset| &keyset.versions).find(|v| v.number == *version);
            words.extend(found.map(|version| {
                format!(
                    "any {} of the {} shares that are out now (set {}) open the root as before, until they are destroyed",
                    version.threshold,
                    version.shares,
                    version.set.as_deref().unwrap_or("unknown")
                )
            }));
        }
        Action::Rotate { keyset, .. } => {
            let old = vault.keyset(keyset).and_then(|keyset| keyset.newest().map(|version| version.number));
            words.extend(old.map(|number| {
                format!("version {number} is retired: it opens what it sealed, and seals nothing new")
            }));
            words.push(
                "no object is touched: what a thief of an older root can open stays open to him".to_owned(),
            );
        }
        Action::Destroy { keyset, version, .. } => words.extend(destroyed(keyset, *version)),
        Action::Reseal { keyset, version } => {
            words.push("what was sealed under it is then not forgotten when it is destroyed".to_owned());
            words.push(RESEAL_IS_HYGIENE.to_owned());
            words.push(format!(
                "then, by one operator: claviger keys keyset reseal {keyset} --version {version} --run"
            ));
        }
        Action::Unbind { buckets } => words.extend(unbound(vault, buckets)),
        Action::Disclose { bucket, key, header, .. } => words.extend(disclosed(vault, bucket, key, header)),
        Action::AddReplica { request } => {
            // They were checked when it was proposed.
            words.extend(keys_of(request).iter().flatten().zip(["log key", "witness key"]).map(
                |(key, what)| format!("its {what}, to be compared with what `join` printed there: {key}"),
            ));
            words.push("whoever runs it holds this service's master, and can release every key".to_owned());
        }
        Action::RemoveReplica { .. } => {
            words.push("it takes over no more; what it knows it keeps: see to it that it is gone".to_owned());
        }
        Action::AcceptEpochs { gateway_id, .. } => {
            if let Some(row) = vault.identity(*gateway_id) {
                words.push(format!("{} was revoked: what it could have forged will be opened", row.identity));
            }
        }
    }
    words
}

/// Which object that is, and what it means to hand out its key.
fn disclosed(vault: &Vault, bucket: &str, key: &str, header: &EnvelopeHeader) -> Vec<String> {
    let mut words = vec![format!("object {}", format!("{bucket}/{key}").escape_debug())];
    let keyset = vault.bindings.get(bucket).and_then(|binding| vault.keyset_by_id(binding.keyset_id));
    if let (Some(keyset), Ok(header)) = (keyset, UnitHeader::parse(header.as_bytes())) {
        let (epoch_id, object_id) = (header.context.epoch_id, header.context.object_id);
        words.push(format!("of keyset {}, epoch {epoch_id}, object id {object_id}", keyset.name));
    }
    words.push(DISCLOSED_FOR_EVER.to_owned());
    words
}

const DISCLOSED_FOR_EVER: &str = "what is handed out stays handed out: nothing takes the key back, and it opens copies that were made of this object \
     within the store as well; who can write to the store can replace all of them with it";

const RESEAL_IS_HYGIENE: &str = "it takes nothing back: who has the old root and a copy of the old records opens what he could open before";

/// What the end of a version means.
fn destroyed(keyset: &str, version: u32) -> [String; 4] {
    [
        "at once nothing opens what was sealed under this version alone; until it is destroyed one operator can take that back"
            .to_owned(),
        "then its root is erased here, and what it alone opens is lost for good: every object, noncurrent version and locked copy of \
         that time, and copies that were made of them within the store since"
            .to_owned(),
        format!("what that is: claviger keys shred plan {keyset} --version {version}"),
        "its recovery shares and older backups open it as before, until they are destroyed too".to_owned(),
    ]
}

/// A time in whole days, or hours.
fn days(seconds: u32) -> String {
    let hours = seconds / 3600;
    if hours.is_multiple_of(24) { format!("{} days", hours / 24) } else { format!("{hours} hours") }
}

/// What a policy adds to the one in force and what it takes away.
fn differences(now: &Policy, text: &str) -> Vec<String> {
    let Ok(then) = Policy::parse_text(text) else { return vec!["it can't be read".to_owned()] };
    let (now, then) = (now.describe(), then.describe());
    let added = then.iter().filter(|line| !now.contains(line)).map(|line| format!("+ {line}"));
    let taken = now.iter().filter(|line| !then.contains(line)).map(|line| format!("- {line}"));
    let mut lines: Vec<String> = taken.chain(added).collect();
    if lines.is_empty() {
        lines.push("it grants what the one in force grants".to_owned());
    }
    lines
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
