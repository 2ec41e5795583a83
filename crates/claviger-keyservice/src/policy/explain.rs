//! Why a policy decides as it does, and whether it decides as someone expects.

use std::path::Path;

use claviger_keyapi::{Identity, Role, Verb};
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as ValueError, StrDeserializer};
use toml::Spanned;

use super::{AdminVerb, Grant, Policy, implying, needs_whole_keyset, verb_name};
use crate::ServiceError;
use crate::toml_file::TomlFile;

/// Something that an identity might do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Who.
    pub identity: Identity,
    /// A verb of `[[grant]]`, or for an operator one of `[[operator]]`.
    pub verb: String,
    /// The keyset, by name; not for operators.
    #[serde(default)]
    pub keyset: Option<String>,
    /// The bucket; left out: all of the keyset.
    #[serde(default)]
    pub bucket: Option<String>,
    /// The object's key.
    #[serde(default)]
    pub key: Option<String>,
}

/// What a policy says to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is granted.
    pub allowed: bool,
    /// The grant that decides, or why each grant of the identity does not; with their lines.
    pub because: Vec<String>,
}

/// What came of a file of expectations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestReport {
    /// How many there were.
    pub expectations: usize,
    /// Those that the policy does not meet, in words.
    pub failures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpectations {
    #[serde(default)]
    expect: Vec<Spanned<RawExpectation>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpectation {
    identity: Identity,
    verb: String,
    keyset: Option<String>,
    bucket: Option<String>,
    key: Option<String>,
    allow: bool,
}

impl Policy {
    /// Decides, and says why. Whether the identity is enrolled for the keyset is another matter.
    ///
    /// # Errors
    /// [`ServiceError::Question`] if the question makes no sense: unknown verb, missing keyset.
    pub fn explain(&self, question: &Question) -> Result<Decision, ServiceError> {
        match question.identity.role() {
            Role::Admin => self.explain_operator(question),
            Role::Gateway => self.explain_gateway(question),
        }
    }

    fn explain_operator(&self, question: &Question) -> Result<Decision, ServiceError> {
        let verb: AdminVerb = parse_verb(&question.verb)?;
        let because = match self.operators.get(&question.identity) {
            None => format!("no [[operator]] names {}", question.identity),
            Some(verbs) if verbs.contains(&verb) => {
                format!("an [[operator]] gives {} \"{}\"", question.identity, question.verb)
            }
            Some(_) => format!("no [[operator]] of {} has \"{}\"", question.identity, question.verb),
        };
        let allowed = self.allows_operator(&question.identity, verb);
        Ok(Decision { allowed, because: vec![because] })
    }

    fn explain_gateway(&self, question: &Question) -> Result<Decision, ServiceError> {
        let verb: Verb = parse_verb(&question.verb)?;
        let Some(keyset) = &question.keyset else {
            return Err(ServiceError::Question(
                "a gateway's verbs are granted on a keyset: name one".to_owned(),
            ));
        };
        let bucket = question.bucket.as_deref().filter(|_| !needs_whole_keyset(verb));
        let object = bucket.map(|bucket| (bucket, question.key.as_deref().unwrap_or("")));
        let own = self.gateways.get(&question.identity);
        let mut reasons = Vec::new();
        for grant in own.into_iter().flatten() {
            match grant.refuses(verb, keyset, object) {
                None => {
                    let mut because = vec![format!("line {}: {grant}", grant.line)];
                    because.extend(self.bound_in_words(&question.identity, verb, keyset));
                    because.extend(self.era_in_words(&question.identity, verb, keyset));
                    return Ok(Decision { allowed: true, because });
                }
                Some(reason) => reasons.push(format!("line {}: {grant}: {reason}", grant.line)),
            }
        }
        if reasons.is_empty() {
            reasons.push(format!("no [[grant]] names {}", question.identity));
        }
        Ok(Decision { allowed: false, because: reasons })
    }

    /// How much of what it grants, for verbs that open something.
    fn bound_in_words(&self, identity: &Identity, verb: Verb, keyset: &str) -> Option<String> {
        let budget = self.budget(identity, keyset);
        let (max, what) = match verb {
            Verb::Lease => (budget.and_then(|budget| budget.epochs_max), "epochs"),
            Verb::Read | Verb::Head | Verb::CopySource | Verb::Continue => {
                (budget.and_then(|budget| budget.objects_max), "objects")
            }
            Verb::Write | Verb::Bind | Verb::Names => return None,
        };
        Some(match (budget, max) {
            (Some(budget), Some(max)) => {
                let window_s = budget.window_s;
                format!(
                    "line {}: at most {max} distinct {what} in {window_s} s; with more it is frozen",
                    budget.line
                )
            }
            _ => format!("any number of {what}: no [[budget]] bounds that"),
        })
    }

    /// Holds the policy against `[[expect]]` tables: identity, verb, keyset, bucket, key, `allow`.
    ///
    /// # Errors
    /// [`ServiceError::Config`] with line and remedy for a file with a mistake.
    pub fn test(&self, path: &Path, text: &str) -> Result<TestReport, ServiceError> {
        let file = TomlFile { path, text };
        let remedy = "[[expect]] with identity, verb, keyset, bucket, key (as far as they matter) and allow = true or false";
        let raw: RawExpectations = file.parse(remedy)?;
        let mut report = TestReport { expectations: raw.expect.len(), failures: Vec::new() };
        for expectation in raw.expect {
            let line = file.line(&expectation.span());
            let span = expectation.span();
            let RawExpectation { identity, verb, keyset, bucket, key, allow } = expectation.into_inner();
            let question = Question { identity, verb, keyset, bucket, key };
            let decision = self.explain(&question).map_err(|e| file.wrong(span, &e.to_string(), remedy))?;
            if decision.allowed != allow {
                let is = if decision.allowed { "is granted" } else { "is denied" };
                let what = question.to_string();
                let why = decision.because.join("; ");
                report.failures.push(format!("{}:{line}: {what} {is}: {why}", path.display()));
            }
        }
        Ok(report)
    }

    /// Every grant, budget and keyset in words, a line each, ordered: to compare two policies.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let operators = self.operators.iter().map(|(identity, verbs)| {
            let verbs: Vec<String> = verbs.iter().map(|verb| verb.name().to_owned()).collect();
            format!("{identity} may {}", verbs.join(", "))
        });
        let gateways = self
            .gateways
            .iter()
            .flat_map(|(identity, grants)| grants.iter().map(move |grant| format!("{identity} may {grant}")));
        let budgets = self.budgets.iter().flat_map(|(identity, budgets)| {
            budgets
                .iter()
                .map(move |(keyset, budget)| format!("{identity} has a budget in keyset {keyset}: {budget}"))
        });
        let mut lines: Vec<String> =
            operators.chain(gateways).chain(budgets).chain(self.eras_in_words()).collect();
        lines.sort();
        lines
    }
}

impl Grant {
    /// Why it does not grant this; `None` if it does.
    fn refuses(&self, verb: Verb, keyset: &str, object: Option<(&str, &str)>) -> Option<String> {
        if self.keyset != keyset {
            return Some("another keyset".to_owned());
        }
        if !implying(verb).iter().any(|verb| self.verbs.contains(verb)) {
            return Some(format!("without \"{}\"", verb_name(verb)));
        }
        match object {
            None if self.is_wide() => None,
            None => Some("only for some buckets or a prefix".to_owned()),
            Some((bucket, _)) if !self.covers_bucket(bucket) => Some(format!("not for bucket {bucket}")),
            Some((_, key)) if !key.starts_with(&self.prefix) => {
                Some(format!("only below \"{}\"", self.prefix))
            }
            Some(_) => None,
        }
    }
}

impl std::fmt::Display for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verbs: Vec<&str> = self.verbs.iter().map(|verb| verb_name(*verb)).collect();
        write!(f, "{} on keyset {}", verbs.join(", "), self.keyset)?;
        if let Some(buckets) = &self.buckets {
            let buckets: Vec<&str> = buckets.iter().map(String::as_str).collect();
            write!(f, ", buckets {}", buckets.join(", "))?;
        }
        if !self.prefix.is_empty() {
            write!(f, ", below \"{}\"", self.prefix)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.identity, self.verb)?;
        for (name, value) in [("keyset", &self.keyset), ("bucket", &self.bucket), ("key", &self.key)] {
            if let Some(value) = value {
                write!(f, " {name} {value}")?;
            }
        }
        Ok(())
    }
}

fn parse_verb<T: for<'de> Deserialize<'de>>(name: &str) -> Result<T, ServiceError> {
    let deserializer: StrDeserializer<'_, ValueError> = name.into_deserializer();
    T::deserialize(deserializer).map_err(|error| ServiceError::Question(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
[[operator]]
identity = "admin:first"
verbs = ["inspect"]
[[grant]]
identity = "gateway:edge"
keyset = "default"
verbs = ["read"]
buckets = ["invoices"]
prefix = "2026/"
[[grant]]
identity = "gateway:edge"
keyset = "archive"
verbs = ["write"]
"#;

    fn policy() -> Policy {
        Policy::parse(Path::new("policy.toml"), POLICY).unwrap()
    }

    fn ask(identity: &str, verb: &str, keyset: &str, object: Option<(&str, &str)>) -> Decision {
        let question = Question {
            identity: identity.parse().unwrap(),
            verb: verb.into(),
            keyset: Some(keyset.into()),
            bucket: object.map(|(bucket, _)| bucket.into()),
            key: object.map(|(_, key)| key.into()),
        };
        policy().explain(&question).unwrap()
    }

    #[test]
    fn the_grant_that_decides_is_named_with_its_line() {
        let granted = ask("gateway:edge", "read", "default", Some(("invoices", "2026/a")));
        assert!(
            granted.allowed && granted.because[0].starts_with("line 5: read on keyset default"),
            "{granted:?}"
        );
        assert!(
            ask("gateway:edge", "head", "default", Some(("invoices", "2026/a"))).allowed,
            "read implies it"
        );
    }

    #[test]
    fn the_budget_is_named_beside_the_grant() {
        let because = |text: &str, verb: &str| {
            let question = Question {
                identity: "gateway:edge".parse().unwrap(),
                verb: verb.into(),
                keyset: Some("archive".into()),
                bucket: None,
                key: None,
            };
            Policy::parse_text(text).unwrap().explain(&question).unwrap().because
        };
        let granted = POLICY.replace("[\"write\"]", "[\"write\", \"read\"]");
        let budget =
            "[[budget]]\nidentity = \"gateway:edge\"\nkeyset = \"archive\"\nwindow_s = 60\nobjects_max = 7\n";
        let bounded = format!("{granted}{budget}");
        assert_eq!(
            because(&bounded, "read")[1],
            "line 15: at most 7 distinct objects in 60 s; with more it is frozen"
        );
        assert!(because(&granted, "read")[1].contains("no [[budget]]"));
        assert_eq!(because(&bounded, "write").len(), 1, "it opens nothing");
        let lines = Policy::parse_text(&bounded).unwrap().describe();
        assert!(lines.contains(&"gateway:edge has a budget in keyset archive: 7 objects in 60 s".to_owned()));
    }

    #[test]
    fn a_denial_says_what_each_grant_lacks() {
        let because = |verb, keyset, object| ask("gateway:edge", verb, keyset, object).because;
        assert!(because("read", "default", Some(("other", "2026/a")))[0].contains("not for bucket other"));
        assert!(because("read", "default", Some(("invoices", "2025/a")))[0].contains("only below \"2026/\""));
        assert!(because("bind", "default", None)[0].contains("without \"bind\""));
        assert_eq!(because("read", "default", None).len(), 2);
        assert!(ask("gateway:none", "read", "default", None).because[0].contains("no [[grant]] names"));
        assert!(!ask("admin:first", "policy", "default", None).allowed);
    }

    #[test]
    fn explanations_and_decisions_agree() {
        let policy = policy();
        let identity: Identity = "gateway:edge".parse().unwrap();
        for verb in [Verb::Read, Verb::Write, Verb::Bind, Verb::Lease] {
            for keyset in ["default", "archive"] {
                for object in
                    [None, Some(("invoices", "2026/a")), Some(("invoices", "x")), Some(("b", "2026/a"))]
                {
                    let wide = if needs_whole_keyset(verb) { None } else { object };
                    let explained = ask("gateway:edge", verb_name(verb), keyset, object).allowed;
                    assert_eq!(
                        explained,
                        policy.allows(&identity, verb, keyset, wide),
                        "{verb:?} {keyset} {object:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn expectations_that_are_not_met_are_named_and_odd_ones_refused() {
        let test = |text: &str| policy().test(Path::new("expect.toml"), text);
        let expect = |verb: &str, allow: bool| {
            format!(
                "[[expect]]\nidentity = \"gateway:edge\"\nverb = \"{verb}\"\nkeyset = \"default\"\nbucket = \"invoices\"\n\
                 key = \"2026/a\"\nallow = {allow}\n"
            )
        };
        let report =
            test(&[expect("read", true), expect("bind", false), expect("bind", true)].concat()).unwrap();
        assert_eq!((report.expectations, report.failures.len()), (3, 1));
        assert!(report.failures[0].starts_with("expect.toml:15: gateway:edge bind"), "{report:?}");
        let error = test(&expect("fly", true)).unwrap_err().to_string();
        assert!(error.starts_with("expect.toml:1:") && error.contains("remedy"), "{error}");
    }

    #[test]
    fn two_policies_can_be_compared_in_words() {
        assert_eq!(
            policy().describe(),
            [
                "admin:first may inspect",
                "gateway:edge may read on keyset default, buckets invoices, below \"2026/\"",
                "gateway:edge may write on keyset archive",
            ]
        );
    }
}
