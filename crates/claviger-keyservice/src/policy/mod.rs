//! Who may do what: TOML, deny by default. deploy/policy.toml is the commented example. The policy in force is a row of the
//! ledger; another takes its place when two operators want it (`proposals`).
//!
//! A gateway's grant is identity × keyset × verbs, optionally narrowed to buckets and a key prefix. What a WEK or a name
//! key can do covers a whole keyset, so narrower grants of `lease`, `write` and `names` are refused here, when the file is
//! loaded (docs/format.md §2.7).

mod budget;
mod era;
mod explain;
mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use claviger_keyapi::{Identity, Role, Verb};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use toml::Spanned;

use crate::ServiceError;
use crate::toml_file::TomlFile;
use crate::watch::{Rights, Scope};
pub(crate) use budget::{Budget, Table};
use era::Rules;
pub use explain::{Decision, Question, TestReport};
pub(crate) use row::PolicyRow;

/// Longest policy, in bytes: it travels in a request and stands in a proposal.
const TEXT_LEN_MAX: usize = 48 << 10;

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminVerb {
    /// See status, keysets, identities, epochs and the audit log.
    Inspect,
    /// Unlock and lock.
    Unlock,
    /// Create keysets.
    Keyset,
    /// Propose and approve enrolments and the end of a quarantine; revoke.
    Enrol,
    /// Propose and approve policies.
    Policy,
    /// Freeze; propose and approve unfreezing.
    Freeze,
    /// Take backups.
    Backup,
    /// Propose and approve that the key of one object is handed out.
    Disclose,
}

impl AdminVerb {
    /// The verb as it stands in policy files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Unlock => "unlock",
            Self::Keyset => "keyset",
            Self::Enrol => "enrol",
            Self::Policy => "policy",
            Self::Freeze => "freeze",
            Self::Backup => "backup",
            Self::Disclose => "disclose",
        }
    }
}

/// The policy in force.
#[derive(Debug)]
pub struct Policy {
    sha256: String,
    gateways: BTreeMap<Identity, Vec<Grant>>,
    operators: BTreeMap<Identity, BTreeSet<AdminVerb>>,
    budgets: Table,
    keysets: Rules,
    grants: usize,
}

#[derive(Debug, Clone)]
struct Grant {
    /// Where it stands, counted from 1.
    line: usize,
    keyset: String,
    verbs: BTreeSet<Verb>,
    /// `None`: every bucket of the keyset.
    buckets: Option<BTreeSet<String>>,
    prefix: String,
}

impl Grant {
    fn scope(&self) -> Scope {
        Scope {
            keyset: self.keyset.clone(),
            verbs: self.verbs.clone(),
            buckets: self.buckets.clone(),
            prefix: self.prefix.clone(),
        }
    }

    fn is_wide(&self) -> bool {
        self.buckets.is_none() && self.prefix.is_empty()
    }

    fn covers_bucket(&self, bucket: &str) -> bool {
        self.buckets.as_ref().is_none_or(|buckets| buckets.contains(bucket))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    grant: Vec<Spanned<RawGrant>>,
    #[serde(default)]
    operator: Vec<Spanned<RawOperator>>,
    #[serde(default)]
    budget: Vec<Spanned<budget::RawBudget>>,
    #[serde(default)]
    keyset: Vec<Spanned<era::RawKeyset>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    identity: Option<Identity>,
    #[serde(default)]
    identities: BTreeSet<Identity>,
    keyset: String,
    verbs: BTreeSet<Verb>,
    buckets: Option<BTreeSet<String>>,
    #[serde(default)]
    prefix: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOperator {
    identity: Identity,
    verbs: BTreeSet<AdminVerb>,
}

impl Policy {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ServiceError::Config`] with line and remedy; [`ServiceError::WritableByOthers`]; [`ServiceError::Io`].
    pub fn load(path: &Path) -> Result<Self, ServiceError> {
        let text = crate::files::read_owned(path)?;
        Self::parse(path, &text)
    }

    /// The same from text that no file is known of.
    ///
    /// # Errors
    /// [`ServiceError::Config`].
    pub fn parse_text(text: &str) -> Result<Self, ServiceError> {
        Self::parse(Path::new("policy.toml"), text)
    }

    /// The same from text that was read already; `path` is for messages.
    ///
    /// # Errors
    /// [`ServiceError::Config`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ServiceError> {
        let file = TomlFile { path, text };
        if text.len() > TEXT_LEN_MAX {
            return Err(file.wrong(
                0..0,
                "the policy is longer than 48 KiB",
                "name gateways with the same rights in one grant's \"identities\", or use prefixes",
            ));
        }
        let raw: Raw = file.parse("see deploy/policy.toml for every verb with its meaning")?;
        let mut policy = Self {
            sha256: Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect(),
            gateways: BTreeMap::new(),
            operators: BTreeMap::new(),
            budgets: Table::new(),
            keysets: Rules::new(),
            grants: raw.grant.len() + raw.operator.len(),
        };
        for grant in raw.grant {
            policy.add_grant(&file, grant)?;
        }
        for operator in raw.operator {
            policy.add_operator(&file, operator)?;
        }
        policy.check_leases(&file)?;
        for budget in raw.budget {
            policy.add_budget(&file, budget)?;
        }
        for keyset in raw.keyset {
            policy.add_keyset(&file, keyset)?;
        }
        Ok(policy)
    }

    fn add_grant(&mut self, file: &TomlFile<'_>, raw: Spanned<RawGrant>) -> Result<(), ServiceError> {
        let span = raw.span();
        let RawGrant { identity, mut identities, keyset, verbs, buckets, prefix } = raw.into_inner();
        match (identity, identities.is_empty()) {
            (Some(identity), true) => drop(identities.insert(identity)),
            (None, false) => {}
            _ => {
                return Err(file.wrong(
                    span,
                    "a [[grant]] says whose it is with either \"identity\" or \"identities\"",
                    "write identity = \"gateway:…\", or identities = [\"gateway:…\", …] for several with the same rights",
                ));
            }
        }
        if identities.iter().any(|identity| identity.role() != Role::Gateway) {
            return Err(file.wrong(
                span,
                "[[grant]] is for gateways",
                "write [[operator]] for an admin: identity",
            ));
        }
        let grant = Grant { line: file.line(&span), keyset, verbs, buckets, prefix };
        if !grant.is_wide()
            && let Some(verb) = grant.verbs.iter().find(|v| needs_whole_keyset(**v))
        {
            let name = verb_name(*verb);
            return Err(file.wrong(
                span,
                &format!("\"{name}\" reaches every object of keyset \"{}\" and can't be limited to buckets or a prefix", grant.keyset),
                &format!("drop buckets and prefix, or give these buckets a keyset of their own, or grant read/head instead of {name}"),
            ));
        }
        for identity in identities {
            self.gateways.entry(identity).or_default().push(grant.clone());
        }
        Ok(())
    }

    fn add_operator(&mut self, file: &TomlFile<'_>, raw: Spanned<RawOperator>) -> Result<(), ServiceError> {
        let span = raw.span();
        let RawOperator { identity, verbs } = raw.into_inner();
        if identity.role() != Role::Admin {
            return Err(file.wrong(
                span,
                "[[operator]] is for operators",
                "write [[grant]] for a gateway: identity",
            ));
        }
        self.operators.entry(identity).or_default().extend(verbs);
        Ok(())
    }

    /// A lease opens what `read` opens, and more of it: without `read` on the whole keyset it would get round it.
    fn check_leases(&self, file: &TomlFile<'_>) -> Result<(), ServiceError> {
        for (identity, grants) in &self.gateways {
            for grant in grants.iter().filter(|g| g.verbs.contains(&Verb::Lease)) {
                if !self.allows(identity, Verb::Read, &grant.keyset, None) {
                    return Err(file.wrong(
                        0..0,
                        &format!(
                            "{identity} has \"lease\" on keyset \"{}\" without \"read\" on all of it",
                            grant.keyset
                        ),
                        "add \"read\" to the same verbs, or take \"lease\" away",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether the identity may do this in the keyset: to one object (`Some((bucket, key))`) or to all of it (`None`).
    #[must_use]
    pub fn allows(
        &self,
        identity: &Identity,
        verb: Verb,
        keyset: &str,
        object: Option<(&str, &str)>,
    ) -> bool {
        self.grants_of(identity, keyset).filter(|grant| grant.verbs.contains(&verb)).any(|grant| match object
        {
            None => grant.is_wide(),
            Some((bucket, key)) => grant.covers_bucket(bucket) && key.starts_with(&grant.prefix),
        })
    }

    /// Whether the identity may do anything at all in this bucket.
    #[must_use]
    pub fn sees_bucket(&self, identity: &Identity, keyset: &str, bucket: &str) -> bool {
        self.grants_of(identity, keyset).any(|grant| !grant.verbs.is_empty() && grant.covers_bucket(bucket))
    }

    /// Verbs on the whole keyset, and verbs on parts of it only.
    #[must_use]
    pub fn verbs(&self, identity: &Identity, keyset: &str) -> (Vec<Verb>, Vec<Verb>) {
        let all: BTreeSet<Verb> =
            self.grants_of(identity, keyset).flat_map(|g| g.verbs.iter().copied()).collect();
        all.into_iter().partition(|verb| self.allows(identity, *verb, keyset, None))
    }

    /// Everything that is granted to the identity in these keysets.
    pub(crate) fn rights(&self, identity: &Identity, keysets: &[String]) -> Rights {
        let grants = self.gateways.get(identity).into_iter().flatten();
        Rights::new(grants.filter(|grant| keysets.contains(&grant.keyset)).map(Grant::scope))
    }

    /// Whether the operator may do this.
    #[must_use]
    pub fn allows_operator(&self, identity: &Identity, verb: AdminVerb) -> bool {
        self.operators.get(identity).is_some_and(|verbs| verbs.contains(&verb))
    }

    /// Whether `maker` holds every verb that policy gives to `subject`.
    #[must_use]
    pub fn operator_covers(&self, maker: &Identity, subject: &Identity) -> bool {
        let Some(wanted) = self.operators.get(subject) else { return true };
        self.operators.get(maker).is_some_and(|held| wanted.is_subset(held))
    }

    /// Two of these operators hold the verb `policy`, or nobody could ever change it again.
    ///
    /// # Errors
    /// [`ServiceError::Question`], with the remedy.
    pub fn check_changeable(&self, operators: &[Identity]) -> Result<(), ServiceError> {
        let holders = operators.iter().filter(|operator| self.allows_operator(operator, AdminVerb::Policy));
        if holders.count() >= 2 {
            return Ok(());
        }
        let names: Vec<String> = operators.iter().map(ToString::to_string).collect();
        Err(ServiceError::Question(format!(
            "with this policy fewer than two enrolled operators hold the verb \"policy\": nobody could change it again\n  \
             remedy: give it to two of {}",
            names.join(", ")
        )))
    }

    /// What looks like a mistake but may be right a moment later.
    #[must_use]
    pub fn warnings(&self, keysets: &BTreeSet<String>) -> Vec<String> {
        let mut unknown: Vec<String> = self
            .gateways
            .iter()
            .flat_map(|(identity, grants)| grants.iter().map(move |grant| (identity, grant)))
            .filter(|(_, grant)| !keysets.contains(&grant.keyset))
            .map(|(identity, grant)| {
                format!("{identity} is granted something on keyset \"{}\", which doesn't exist", grant.keyset)
            })
            .collect();
        unknown.dedup();
        unknown.extend(self.era_warnings(keysets));
        unknown.extend(self.unbounded());
        unknown
    }

    fn grants_of<'a>(&'a self, identity: &Identity, keyset: &'a str) -> impl Iterator<Item = &'a Grant> {
        self.gateways.get(identity).into_iter().flatten().filter(move |grant| grant.keyset == keyset)
    }

    /// SHA-256 of the file, hex.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Number of grants in it.
    #[must_use]
    pub fn grants(&self) -> usize {
        self.grants
    }
}

/// The verbs that grant this one: `head` and `copy-source` are implied by `read`.
pub(crate) fn implying(verb: Verb) -> &'static [Verb] {
    match verb {
        Verb::Head => &[Verb::Head, Verb::Read],
        Verb::CopySource => &[Verb::CopySource, Verb::Read],
        Verb::Lease => &[Verb::Lease],
        Verb::Write => &[Verb::Write],
        Verb::Read => &[Verb::Read],
        Verb::Continue => &[Verb::Continue],
        Verb::Bind => &[Verb::Bind],
        Verb::Names => &[Verb::Names],
    }
}

fn needs_whole_keyset(verb: Verb) -> bool {
    matches!(verb, Verb::Lease | Verb::Write | Verb::Names)
}

/// The verb as it stands in policy files and the audit log.
#[must_use]
pub fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Lease => "lease",
        Verb::Write => "write",
        Verb::Read => "read",
        Verb::Head => "head",
        Verb::CopySource => "copy-source",
        Verb::Continue => "continue",
        Verb::Bind => "bind",
        Verb::Names => "names",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Policy, String> {
        Policy::parse(Path::new("policy.toml"), text).map_err(|e| e.to_string())
    }

    fn edge() -> Identity {
        "gateway:edge".parse().unwrap()
    }

    const READER: &str = r#"
[[grant]]
identity = "gateway:edge"
keyset = "default"
verbs = ["read", "head"]
buckets = ["invoices"]
prefix = "2026/"
"#;

    #[test]
    fn what_is_not_granted_is_denied() {
        let policy = parse(READER).unwrap();
        let allows = |verb, keyset, object| policy.allows(&edge(), verb, keyset, object);
        assert!(allows(Verb::Read, "default", Some(("invoices", "2026/a"))));
        assert!(!allows(Verb::Read, "default", Some(("invoices", "2025/a"))));
        assert!(!allows(Verb::Read, "default", Some(("other", "2026/a"))));
        assert!(!allows(Verb::Read, "secret", Some(("invoices", "2026/a"))));
        assert!(!allows(Verb::CopySource, "default", Some(("invoices", "2026/a"))));
        assert!(!allows(Verb::Read, "default", None));
        assert!(!policy.allows(
            &"gateway:other".parse().unwrap(),
            Verb::Read,
            "default",
            Some(("invoices", "2026/a"))
        ));
        assert_eq!(policy.verbs(&edge(), "default"), (vec![], vec![Verb::Read, Verb::Head]));
        assert!(policy.sees_bucket(&edge(), "default", "invoices"));
        assert!(!policy.sees_bucket(&edge(), "default", "other"));
    }

    #[test]
    fn an_empty_policy_grants_nothing() {
        let policy = parse("").unwrap();
        assert!(!policy.allows(&edge(), Verb::Write, "default", None));
        assert!(!policy.allows_operator(&"admin:first".parse().unwrap(), AdminVerb::Inspect));
    }

    #[test]
    fn narrow_grants_of_what_covers_a_keyset_are_refused_with_line_and_remedy() {
        for verb in ["lease", "write", "names"] {
            let text = READER.replace("\"head\"", &format!("\"{verb}\""));
            let error = parse(&text).unwrap_err();
            assert!(
                error.starts_with("policy.toml:2:") && error.contains(verb) && error.contains("remedy"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_lease_without_read_is_refused() {
        let text = "[[grant]]\nidentity = \"gateway:edge\"\nkeyset = \"default\"\nverbs = [\"lease\"]\n";
        assert!(parse(text).unwrap_err().contains("without \"read\""));
        assert!(parse(&text.replace("[\"lease\"]", "[\"lease\", \"read\"]")).is_ok());
    }

    #[test]
    fn unknown_keys_verbs_and_mixed_up_roles_are_refused() {
        for (from, to) in [("prefix", "prefixes"), ("\"head\"", "\"fly\""), ("gateway:edge", "admin:edge")] {
            let error = parse(&READER.replace(from, to)).unwrap_err();
            assert!(error.contains("remedy: "), "{error}");
        }
        let operator = "[[operator]]\nidentity = \"gateway:edge\"\nverbs = [\"inspect\"]\n";
        assert!(parse(operator).unwrap_err().starts_with("policy.toml:1:"));
    }

    #[test]
    fn a_grant_for_several_gateways_is_each_ones_own_and_a_thousand_fit() {
        let names: Vec<String> = (0..1_000).map(|n| format!("\"gateway:branch-{n:04}\"")).collect();
        let identities = format!("identities = [{}]", names.join(","));
        let policy = parse(&READER.replace("identity = \"gateway:edge\"", &identities)).unwrap();
        let last = "gateway:branch-0999".parse().unwrap();
        assert!(policy.allows(&last, Verb::Read, "default", Some(("invoices", "2026/a"))));
        assert!(!policy.allows(&edge(), Verb::Read, "default", Some(("invoices", "2026/a"))));
        for wrong in ["", "identities = []", "identity = \"gateway:edge\"\nidentities = [\"gateway:edge\"]"] {
            let error = parse(&READER.replace("identity = \"gateway:edge\"", wrong)).unwrap_err();
            assert!(error.starts_with("policy.toml:2:") && error.contains("either"), "{error}");
        }
        assert!(
            parse(&READER.replace("identity = \"gateway:edge\"", "identities = [\"admin:edge\"]")).is_err()
        );
    }

    #[test]
    fn the_shipped_example_is_valid() {
        parse(include_str!("../../../../deploy/policy.toml")).unwrap();
    }
}
