//! How much an identity may open in a while: `[[budget]]` of a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use claviger_keyapi::{Identity, Role, Verb};
use serde::Deserialize;
use toml::Spanned;

use super::Policy;
use crate::ServiceError;
use crate::toml_file::TomlFile;

/// Longest window, in seconds: 31 days. The log is read as far back as the longest of a policy, at each unlock and change of budgets.
const WINDOW_S_MAX: u32 = 31 * 24 * 3600;
/// Shortest window, in seconds: under that it is a limit on speed, and a burst would freeze its gateway.
const WINDOW_S_MIN: u32 = 60;
/// All maxima of a policy together. What is counted lies in memory, up to 200 bytes each.
const COUNTED_MAX: u64 = 1_000_000;

/// Most distinct epochs and objects of one keyset whose keys one identity gets within a window that moves on with the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Where it stands, counted from 1.
    pub(super) line: usize,
    pub(crate) window_s: u32,
    /// Epochs by `lease`; `None`: not limited.
    pub(crate) epochs_max: Option<u32>,
    /// Objects by `derive` and `continue`; `None`: not limited.
    pub(crate) objects_max: Option<u32>,
}

/// Budgets by identity and keyset.
pub(crate) type Table = BTreeMap<Identity, BTreeMap<String, Budget>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBudget {
    identity: Option<Identity>,
    /// Each of them gets one of its own.
    #[serde(default)]
    identities: BTreeSet<Identity>,
    keyset: String,
    window_s: u32,
    epochs_max: Option<u32>,
    objects_max: Option<u32>,
}

impl Budget {
    pub(crate) fn window_ms(&self) -> i64 {
        i64::from(self.window_s) * 1000
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [(self.epochs_max, "epochs"), (self.objects_max, "objects")];
        let parts: Vec<String> =
            parts.iter().filter_map(|(max, what)| Some(format!("{} {what}", (*max)?))).collect();
        write!(f, "{} in {} s", parts.join(" and "), self.window_s)
    }
}

impl Policy {
    pub(super) fn add_budget(
        &mut self,
        file: &TomlFile<'_>,
        raw: Spanned<RawBudget>,
    ) -> Result<(), ServiceError> {
        let span = raw.span();
        let RawBudget { identity, mut identities, keyset, window_s, epochs_max, objects_max } =
            raw.into_inner();
        let wrong = |text: &str, remedy: &str| Err(file.wrong(span.clone(), text, remedy));
        match (identity, identities.is_empty()) {
            (Some(identity), true) => drop(identities.insert(identity)),
            (None, false) => {}
            _ => {
                let text = "a [[budget]] says whose it is with either \"identity\" or \"identities\"";
                return wrong(
                    text,
                    "write identity = \"gateway:…\", or identities = [\"gateway:…\", …]: each gets one of its own",
                );
            }
        }
        if !(WINDOW_S_MIN..=WINDOW_S_MAX).contains(&window_s) {
            let text = format!("window_s = {window_s} is not from {WINDOW_S_MIN} to {WINDOW_S_MAX}");
            return wrong(&text, "take an hour (3600) or a day (86400)");
        }
        let maxima = [epochs_max, objects_max];
        if maxima == [None, None] || maxima.contains(&Some(0)) {
            let remedy = "set epochs_max (for \"lease\") or objects_max (for the other verbs), or both; to stop an identity, \
                          drop its grant or freeze it";
            return wrong("a budget needs a maximum of at least 1", remedy);
        }
        let budget = Budget { line: file.line(&span), window_s, epochs_max, objects_max };
        for identity in identities {
            self.add_budget_of(file, &span, identity, &keyset, budget.clone())?;
        }
        if self.counted_max() > COUNTED_MAX {
            let text = format!("the maxima of all budgets add up to more than {COUNTED_MAX}");
            return wrong(&text, "lower them, with a shorter window_s: what is counted is kept in memory");
        }
        Ok(())
    }

    fn add_budget_of(
        &mut self,
        file: &TomlFile<'_>,
        span: &Range<usize>,
        identity: Identity,
        keyset: &str,
        budget: Budget,
    ) -> Result<(), ServiceError> {
        let wrong = |text: &str, remedy: &str| Err(file.wrong(span.clone(), text, remedy));
        if identity.role() != Role::Gateway {
            return wrong("[[budget]] is for gateways", "name a gateway: identity; operators open nothing");
        }
        if self.grants_of(&identity, keyset).next().is_none() {
            let text =
                format!("{identity} is granted nothing in keyset \"{keyset}\", so this bounds nothing");
            return wrong(&text, "use identity and keyset of a [[grant]]");
        }
        let budgets = self.budgets.entry(identity.clone()).or_default();
        if let Some(other) = budgets.insert(keyset.to_owned(), budget) {
            let text =
                format!("{identity} has a budget in keyset \"{keyset}\" already, in line {}", other.line);
            return wrong(&text, "keep one of them");
        }
        Ok(())
    }

    fn counted_max(&self) -> u64 {
        let all = self.budgets.values().flat_map(BTreeMap::values);
        all.flat_map(|budget| [budget.epochs_max, budget.objects_max]).flatten().map(u64::from).sum()
    }

    /// What bounds the identity in the keyset.
    pub(crate) fn budget(&self, identity: &Identity, keyset: &str) -> Option<&Budget> {
        self.budgets.get(identity)?.get(keyset)
    }

    /// Every budget.
    pub(crate) fn budgets(&self) -> &Table {
        &self.budgets
    }

    /// What a thief of a gateway could open all of.
    pub(super) fn unbounded(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (identity, grants) in &self.gateways {
            for grant in grants {
                let budget = self.budget(identity, &grant.keyset);
                let has = |verb| grant.verbs.contains(&verb);
                let lacks = |max: fn(&Budget) -> Option<u32>| budget.and_then(max).is_none();
                let lacking = [
                    (has(Verb::Lease) && lacks(|b| b.epochs_max), "epochs (epochs_max)"),
                    (
                        (has(Verb::Read) || has(Verb::Head)) && lacks(|b| b.objects_max),
                        "objects (objects_max)",
                    ),
                ];
                warnings.extend(lacking.into_iter().filter(|(is_lacking, _)| *is_lacking).map(|(_, what)| {
                    format!(
                        "{identity} has no [[budget]] of {what} in keyset \"{}\": whoever steals it opens as many as it likes",
                        grant.keyset
                    )
                }));
            }
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: &str =
        "[[grant]]\nidentity = \"gateway:edge\"\nkeyset = \"default\"\nverbs = [\"lease\", \"read\"]\n";

    fn with(budget: &str) -> Result<Policy, String> {
        let who = "identity = \"gateway:edge\"\nkeyset = \"default\"\n";
        Policy::parse_text(&format!("{GRANT}[[budget]]\n{who}{budget}")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_budget_is_found_by_identity_and_keyset() {
        let policy = with("window_s = 3600\nepochs_max = 5\nobjects_max = 9\n").unwrap();
        let edge: Identity = "gateway:edge".parse().unwrap();
        let budget = policy.budget(&edge, "default").unwrap();
        assert_eq!(budget.to_string(), "5 epochs and 9 objects in 3600 s");
        assert!(policy.budget(&edge, "archive").is_none());
        assert!(policy.budget(&"gateway:other".parse().unwrap(), "default").is_none());
    }

    #[test]
    fn budgets_that_bound_nothing_or_too_much_are_refused_with_line_and_remedy() {
        let wrong = [
            ("window_s = 3600\n", "a maximum"),
            ("window_s = 3600\nepochs_max = 0\n", "a maximum"),
            ("window_s = 59\nepochs_max = 1\n", "not from 60"),
            ("window_s = 2678401\nepochs_max = 1\n", "not from 60"),
            ("window_s = 3600\nobjects_max = 1000001\n", "add up"),
            ("window_s = 3600\nobjects = 5\n", "unknown field"),
        ];
        for (budget, why) in wrong {
            let error = with(budget).unwrap_err();
            assert!(error.contains(why) && error.contains("remedy: "), "{error}");
        }
        let once = "window_s = 60\nepochs_max = 1\n";
        let twice = format!("{once}[[budget]]\nidentity = \"gateway:edge\"\nkeyset = \"default\"\n{once}");
        assert!(with(&twice).unwrap_err().contains("already, in line 5"));
        for (from, to) in
            [("gateway:edge", "gateway:egde"), ("default", "archive"), ("gateway:edge", "admin:edge")]
        {
            let budget = format!("[[budget]]\nidentity = \"gateway:edge\"\nkeyset = \"default\"\n{once}");
            let error = Policy::parse_text(&format!("{GRANT}{}", budget.replace(from, to))).unwrap_err();
            assert!(error.to_string().starts_with("policy.toml:5:"), "{error}");
        }
    }

    #[test]
    fn a_budget_of_several_is_one_for_each() {
        let both = "identities = [\"gateway:edge\", \"gateway:other\"]\nkeyset = \"default\"\n";
        let grant = GRANT.replace("identity = \"gateway:edge\"\nkeyset = \"default\"\n", both);
        let budget = "[[budget]]\nwindow_s = 60\nepochs_max = 600000\n";
        let policy = Policy::parse_text(&format!("{grant}{budget}{both}").replace("600000", "5")).unwrap();
        for name in ["gateway:edge", "gateway:other"] {
            assert_eq!(policy.budget(&name.parse().unwrap(), "default").unwrap().epochs_max, Some(5));
        }
        let error = Policy::parse_text(&format!("{grant}{budget}{both}")).unwrap_err().to_string();
        assert!(error.contains("add up"), "{error}");
        let whose =
            Policy::parse_text(&format!("{grant}{budget}keyset = \"default\"\n")).unwrap_err().to_string();
        assert!(whose.contains("either \"identity\" or \"identities\""), "{whose}");
    }

    #[test]
    fn what_a_thief_could_open_all_of_is_a_warning() {
        let warnings = |text: &str| Policy::parse_text(text).unwrap().unbounded();
        assert_eq!(warnings(GRANT).len(), 2, "epochs and objects");
        let with_epochs = format!(
            "{GRANT}[[budget]]\nidentity = \"gateway:edge\"\nkeyset = \"default\"\nwindow_s = 60\nepochs_max = 1\n"
        );
        assert!(warnings(&with_epochs)[0].contains("objects_max"));
        assert!(warnings(&format!("{with_epochs}objects_max = 1\n")).is_empty());
        assert!(warnings(&GRANT.replace("\"lease\", \"read\"", "\"write\", \"bind\"")).is_empty());
    }
}
