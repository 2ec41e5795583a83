//! TOML that a person wrote: mistakes are reported with their line and a remedy.

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::ServiceError;

/// A file's text with its path, for error messages.
pub(crate) struct TomlFile<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

impl TomlFile<'_> {
    pub(crate) fn parse<T: DeserializeOwned>(&self, remedy: &str) -> Result<T, ServiceError> {
        toml::from_str(self.text).map_err(|e| self.wrong(e.span().unwrap_or(0..0), e.message(), remedy))
    }

    /// Line of a place, counted from 1.
    pub(crate) fn line(&self, at: &Range<usize>) -> usize {
        self.text.get(..at.start).unwrap_or_default().matches('\n').count() + 1
    }

    pub(crate) fn wrong(&self, at: Range<usize>, text: &str, remedy: &str) -> ServiceError {
        ServiceError::Config {
            path: self.path.to_owned(),
            line: self.line(&at),
            text: text.trim().replace('\n', " "),
            remedy: remedy.to_owned(),
        }
    }
}
