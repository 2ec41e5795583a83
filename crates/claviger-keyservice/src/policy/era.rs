//! What holds for a keyset whoever uses it: `[[keyset]]` of a policy.

use std::collections::BTreeMap;

use claviger_keyapi::{Identity, Verb};
use serde::Deserialize;
use toml::Spanned;

use super::Policy;
use crate::ServiceError;
use crate::toml_file::TomlFile;

/// What is said of a keyset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Where it stands, counted from 1.
    line: usize,
    era_shred: bool,
}

/// What is said of keysets, by name.
pub(super) type Rules = BTreeMap<String, Rule>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKeyset {
    name: String,
    /// Versions of it are destroyed one after the other while it is in use: copies of what lies under an older one are encrypted anew
    /// (docs/format.md §2.1).
    era_shred: bool,
}

impl Policy {
    pub(super) fn add_keyset(
        &mut self,
        file: &TomlFile<'_>,
        raw: Spanned<RawKeyset>,
    ) -> Result<(), ServiceError> {
        let span = raw.span();
        let line = file.line(&span);
        let RawKeyset { name, era_shred } = raw.into_inner();
        if let Some(Rule { line: other, .. }) = self.keysets.insert(name.clone(), Rule { line, era_shred }) {
            let text = format!("keyset \"{name}\" has a [[keyset]] already, in line {other}");
            return Err(file.wrong(span, &text, "keep one of them"));
        }
        Ok(())
    }

    /// Whether copies within the keyset have to lie under its newest version.
    pub(crate) fn is_shredded_by_era(&self, keyset: &str) -> bool {
        self.keysets.get(keyset).is_some_and(|rule| rule.era_shred)
    }

    /// Keysets that are shredded by era.
    fn eras(&self) -> impl Iterator<Item = &String> {
        self.keysets.iter().filter(|(_, rule)| rule.era_shred).map(|(name, _)| name)
    }

    /// What that means for a verb, in words.
    pub(super) fn era_in_words(&self, identity: &Identity, verb: Verb, keyset: &str) -> Option<String> {
        let Rule { line, era_shred } = self.keysets.get(keyset)?;
        if !era_shred || verb != Verb::CopySource {
            return None;
        }
        let lacks_read = self.grants_of(identity, keyset).all(|grant| !grant.verbs.contains(&Verb::Read));
        let but = if lacks_read { ", and it has none" } else { "" };
        Some(format!(
            "line {line}: only what lies under the newest version: the keyset is shredded by era, and copies of what is older are \
             encrypted anew, which takes \"read\"{but}"
        ))
    }

    /// A line for each keyset of which something is said.
    pub(super) fn eras_in_words(&self) -> impl Iterator<Item = String> {
        self.eras().map(|keyset| {
            format!("keyset {keyset} is shredded by era: copies of what lies under an older version are encrypted anew")
        })
    }

    /// Keysets that policy says something of and that there are not, and gateways that will not be able to copy what is older.
    pub(super) fn era_warnings(&self, keysets: &std::collections::BTreeSet<String>) -> Vec<String> {
        let unknown = self.keysets.keys().filter(|keyset| !keysets.contains(*keyset));
        let mut warnings: Vec<String> =
            unknown.map(|keyset| format!("a [[keyset]] names \"{keyset}\", which doesn't exist")).collect();
        for identity in self.gateways.keys() {
            for keyset in self.eras() {
                let has = |verb| self.grants_of(identity, keyset).any(|grant| grant.verbs.contains(&verb));
                if has(Verb::CopySource) && !has(Verb::Read) {
                    warnings.push(format!(
                        "{identity} has \"copy-source\" without \"read\" in keyset \"{keyset}\", which is shredded by era: it copies \
                         nothing that lies under an older version"
                    ));
                }
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPIER: &str =
        "[[grant]]\nidentity = \"gateway:edge\"\nkeyset = \"yearly\"\nverbs = [\"copy-source\", \"write\"]\n";
    const ERA: &str = "[[keyset]]\nname = \"yearly\"\nera_shred = true\n";

    fn parse(text: &str) -> Policy {
        Policy::parse_text(text).unwrap()
    }

    #[test]
    fn a_keyset_is_shredded_by_era_where_policy_says_so_and_nowhere_else() {
        let policy = parse(&format!("{COPIER}{ERA}"));
        assert!(policy.is_shredded_by_era("yearly") && !policy.is_shredded_by_era("default"));
        assert!(!parse(&format!("{COPIER}{}", ERA.replace("true", "false"))).is_shredded_by_era("yearly"));
        assert!(!parse(COPIER).is_shredded_by_era("yearly"));
    }

    #[test]
    fn that_can_be_seen_when_policies_are_compared_and_explained() {
        let policy = parse(&format!("{COPIER}{ERA}"));
        assert!(policy.describe().iter().any(|line| line.starts_with("keyset yearly is shredded by era")));
        let because = |text: &str, verb: &str| {
            let question = crate::policy::Question {
                identity: "gateway:edge".parse().unwrap(),
                verb: verb.into(),
                keyset: Some("yearly".into()),
                bucket: None,
                key: None,
            };
            parse(text).explain(&question).unwrap().because.join("; ")
        };
        let told = because(&format!("{COPIER}{ERA}"), "copy-source");
        assert!(
            told.contains("line 5: only what lies under the newest") && told.contains("it has none"),
            "{told}"
        );
        let reads = COPIER.replace("\"write\"", "\"read\"");
        assert!(!because(&format!("{reads}{ERA}"), "copy-source").contains("it has none"));
        assert!(!because(&format!("{COPIER}{ERA}"), "write").contains("era"));
        assert!(!because(COPIER, "copy-source").contains("era"));
    }

    #[test]
    fn who_could_copy_nothing_that_is_older_is_a_warning_and_so_is_a_keyset_that_is_not_there() {
        let there = std::collections::BTreeSet::from(["yearly".to_owned()]);
        let warnings = parse(&format!("{COPIER}{ERA}")).era_warnings(&there);
        assert!(warnings.len() == 1 && warnings[0].contains("without \"read\""), "{warnings:?}");
        let reads = COPIER.replace("\"write\"", "\"read\"");
        assert!(parse(&format!("{reads}{ERA}")).era_warnings(&there).is_empty());
        let gone = parse(ERA).warnings(&std::collections::BTreeSet::new());
        assert!(gone[0].contains("doesn't exist"), "{gone:?}");
    }

    #[test]
    fn a_keyset_that_is_named_twice_or_says_nothing_is_refused_with_line_and_remedy() {
        for (text, why) in [
            (format!("{ERA}{ERA}"), "already, in line 1"),
            (format!("{ERA}{}", ERA.replace("true", "false")), "already, in line 1"),
            ("[[keyset]]\nname = \"yearly\"\n".to_owned(), "era_shred"),
            (ERA.replace("era_shred", "era_shredded"), "unknown field"),
        ] {
            let error = Policy::parse_text(&text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("remedy: "), "{error}");
        }
    }
}
