//! The id of one version of an object.

use std::fmt;

use crate::error::S3Error;

/// Longest version id, in bytes (S3 user guide, "Working with version IDs").
pub const VERSION_ID_LEN_MAX: usize = 1024;

/// Which version of an object is meant: `null`, or what the store made up for it.
///
/// 1 to 1,024 printable ASCII characters without spaces. Only the store knows what it means; it goes there as the client
/// wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId(String);

impl VersionId {
    /// Takes the decoded value of `versionId`; anything else is `InvalidArgument`, as S3 words it.
    pub fn parse(text: &str) -> Result<Self, S3Error> {
        if text.is_empty() {
            return Err(S3Error::invalid_argument("versionId", "", "Version id cannot be the empty string"));
        }
        if text.len() > VERSION_ID_LEN_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let shown: String = text.chars().filter(|character| !character.is_control()).take(100).collect();
            return Err(S3Error::invalid_argument("versionId", &shown, "Invalid version id specified"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `null`: the version of a bucket without versions, or of one whose versioning is suspended. It is
    /// the only id under which a later write can put another object.
    pub fn is_null(&self) -> bool {
        self.0 == "null"
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<VersionId> for String {
    fn from(version: VersionId) -> Self {
        version.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn ids_are_printable_and_of_a_length_that_s3_knows() {
        for good in ["null", "3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo", ".a_-~"] {
            assert_eq!(VersionId::parse(good).unwrap().as_str(), good);
        }
        assert!(VersionId::parse(&"v".repeat(1024)).is_ok());
        let long = "v".repeat(1025);
        for bad in ["", " ", "a b", "a\n", "ü", long.as_str()] {
            assert_eq!(VersionId::parse(bad).unwrap_err().code(), ErrorCode::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn only_null_can_be_written_again() {
        assert!(VersionId::parse("null").unwrap().is_null());
        assert!(!VersionId::parse("nullx").unwrap().is_null());
    }
}
