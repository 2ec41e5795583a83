//! What is wrong with a configuration, said so that the reader can put it right.

use std::fmt;
use std::path::{Path, PathBuf};

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The gateway doesn't start.
    Error,
    /// It starts, and someone should look.
    Warning,
}

/// One thing that is wrong: where, what, and what to do about it.
#[derive(Debug, Clone)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file that it is about.
    pub file: PathBuf,
    /// The line in `file`, from 1, where known.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, ": {severity}: {}", self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  remedy: {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Why a configuration can't be used: at least one problem.
#[derive(Debug, Clone)]
pub struct ConfigError {
    /// All problems found, in the order of the file's sections.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    pub(crate) fn one(file: &Path, line: Option<usize>, what: String, remedy: &str) -> Self {
        Self {
            problems: vec![Problem {
                severity: Severity::Error,
                file: file.to_path_buf(),
                line,
                what,
                remedy: remedy.to_owned(),
            }],
        }
    }

    pub(crate) fn unreadable(file: &Path, error: &std::io::Error) -> Self {
        let remedy = "give the path of a readable file; deploy/gateway.toml is an example to start from";
        Self::one(file, None, format!("can't be read: {error}"), remedy)
    }

    /// A TOML error. `toml`'s message may quote a value, so only its first line (never the excerpt of the file)
    /// is kept.
    pub(crate) fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| line_at(text, span.start));
        let message = error.message().lines().next().unwrap_or("not valid TOML").to_owned();
        let remedy = remedy_for(&message);
        Self::one(file, line, message, remedy)
    }
}

fn remedy_for(message: &str) -> &'static str {
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        "check the spelling against the names listed; a setting that doesn't exist is never ignored"
    } else if message.starts_with("missing field") {
        "add it; the commented examples in deploy/ show every setting"
    } else if message.starts_with("invalid type") || message.starts_with("invalid value") {
        "give a value of the type that the commented example in deploy/ shows"
    } else {
        "correct the TOML syntax at this place"
    }
}

/// The line (from 1) of byte `offset` of `text`.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

/// The line (from 1) where `key` is set in `[section]` (or before any section, for the empty name).
pub(crate) fn line_of(text: &str, section: &str, key: &str) -> Option<usize> {
    let mut current = "";
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) =
            line.strip_prefix('[').and_then(|rest| rest.trim_start_matches('[').split(']').next())
        {
            current = name.trim();
        } else if current == section && line.split('=').next().map(str::trim) == Some(key) {
            return Some(index + 1);
        }
    }
    None
}
