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

    pub(crate) fn wrong(&self, at: Range<usize>, text: &str, remedy: &str) -> ServiceError {
        let before = self.text.get(..at.start).unwrap_or_default();
        ServiceError::Config {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            text: text.trim().replace('\n', " "),
            remedy: remedy.to_owned(),
        }
    }
}
