//! The crate borders of docs/architecture.md: who may use whom, and what the pure crates may not pull in.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::command::{cargo, output};

/// Which of our crates each of our crates may use in production code. `claviger` may use all; nobody may use it.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("claviger-format", &[]),
    ("claviger-s3", &[]),
    ("claviger-audit", &[]),
    ("claviger-env", &["claviger-format"]),
    ("claviger-keyapi", &["claviger-format", "claviger-env"]),
    ("claviger-provider", &["claviger-env"]),
    (
        "claviger-gateway",
        &["claviger-env", "claviger-format", "claviger-s3", "claviger-keyapi", "claviger-audit"],
    ),
    ("claviger-keyservice", &["claviger-env", "claviger-format", "claviger-keyapi", "claviger-audit"]),
    ("claviger-testkit", &["*"]),
    // It measures the program from outside, as any client would.
    ("claviger-bench", &["claviger-s3", "claviger-env"]),
    ("claviger", &["*"]),
];

/// Bytes in, bytes out: no operating system below them.
const PURE: [&str; 3] = ["claviger-format", "claviger-s3", "claviger-audit"];

/// Crates that do I/O, drive async code, or ask the system for time or randomness. A trailing `*` is any ending.
const IMPURE: [&str; 22] = [
    "tokio*",
    "async-*",
    "futures*",
    "smol*",
    "mio",
    "socket2",
    "rustix",
    "nix",
    "hyper*",
    "h2",
    "reqwest*",
    "ureq*",
    "tower*",
    "rustls*",
    "native-tls",
    "openssl*",
    "getrandom",
    "rand",
    "rand_chacha",
    "chrono",
    "tracing*",
    "log",
];

/// What the format crate may not use although the S3 crate may: it knows of no protocol.
const NOT_IN_FORMAT: [&str; 5] = ["http", "http-body*", "serde*", "bytes", "time"];

/// Asserts all borders.
///
/// # Errors
/// Every arrow that should not be, in one message.
pub(crate) fn check() -> Result<()> {
    let metadata = output(cargo().args(["metadata", "--locked", "--no-deps", "--format-version", "1"]))?;
    let uses = uses(&serde_json::from_str(&metadata)?)?;
    let mut wrong = wrong_arrows(&uses);
    for name in PURE.iter().filter(|name| uses.contains_key(**name)) {
        let tree = tree(name)?;
        wrong.extend(matching(&tree, &IMPURE).map(|found| format!("{name} is pure, but pulls in {found}")));
        if *name == "claviger-format" {
            let found = matching(&tree, &NOT_IN_FORMAT);
            wrong.extend(found.map(|found| format!("{name} knows of no protocol, but pulls in {found}")));
        }
    }
    for (name, apart) in
        [("claviger-gateway", "claviger-keyservice"), ("claviger-keyservice", "claviger-gateway")]
    {
        if tree(name)?.contains(apart) {
            wrong.push(format!("{name} links {apart}"));
        }
    }
    if wrong.is_empty() {
        println!("borders: {} crates, all arrows as they should be", uses.len());
        return Ok(());
    }
    bail!("crate borders are crossed:\n  {}", wrong.join("\n  "))
}

/// For each crate of the workspace, those of ours that its production code uses.
fn uses(metadata: &Value) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let Some(packages) = metadata["packages"].as_array() else { bail!("cargo metadata lists no packages") };
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut uses = BTreeMap::new();
    for package in packages {
        let Some(name) = package["name"].as_str() else { bail!("a package without a name") };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let production = dependencies.filter(|dependency| dependency["kind"].as_str() != Some("dev"));
        let names = production.filter_map(|dependency| dependency["name"].as_str());
        uses.insert(name.to_owned(), names.filter(|name| ours.contains(name)).map(str::to_owned).collect());
    }
    Ok(uses)
}

fn wrong_arrows(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, used) in uses.iter().filter(|(name, _)| *name != "xtask") {
        let Some((_, allowed)) = MAY_USE.iter().find(|(row, _)| row == name) else {
            wrong.push(format!("{name} is not in the table of borders (xtask/src/borders.rs)"));
            continue;
        };
        for used in used {
            if used == "claviger" || !(allowed.contains(&"*") || allowed.contains(&used.as_str())) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    wrong
}

/// The names of all crates that the production code of `name` is built from, itself excluded.
fn tree(name: &str) -> Result<BTreeSet<String>> {
    let mut command = cargo();
    command.args([
        "tree",
        "--locked",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--package",
        name,
    ]);
    let names = output(&mut command)?;
    let names = names.lines().filter_map(|line| line.split(' ').next()).filter(|found| *found != name);
    Ok(names.map(str::to_owned).collect())
}

fn matching<'a>(tree: &'a BTreeSet<String>, patterns: &'a [&str]) -> impl Iterator<Item = &'a String> {
    let fits = |name: &str, pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    tree.iter().filter(move |name| patterns.iter().any(|pattern| fits(name, pattern)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows(arrows: &[(&str, &str)]) -> Vec<String> {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in arrows {
            uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        wrong_arrows(&uses)
    }

    #[test]
    fn forbidden_arrows_are_found_and_allowed_ones_are_not() {
        assert!(
            arrows(&[("claviger-gateway", "claviger-format"), ("claviger", "claviger-keyservice")])
                .is_empty()
        );
        assert_eq!(arrows(&[("claviger-gateway", "claviger-keyservice")]).len(), 1);
        assert_eq!(arrows(&[("claviger-format", "claviger-s3")]).len(), 1);
        assert_eq!(arrows(&[("claviger-testkit", "claviger")]).len(), 1, "nobody uses the binary");
        assert_eq!(arrows(&[("claviger-new", "claviger-format")]).len(), 1, "a new crate needs a row");
    }

    #[test]
    fn names_match_as_patterns_say() {
        let tree = ["tokio-util", "mio", "miow", "getrandom"].map(str::to_owned).into();
        assert_eq!(matching(&tree, &["tokio*", "mio"]).collect::<Vec<_>>(), ["mio", "tokio-util"]);
    }
}
