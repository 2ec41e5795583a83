//! Names of those who call: `gateway:edge-1`, `admin:first`. In a certificate: the URI SAN `urn:claviger:gateway:edge-1`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest name after the role, in bytes.
pub const NAME_LEN_MAX: usize = 63;

const URI_PREFIX: &str = "urn:claviger:";

/// What kind of caller an identity is. A gateway never has an operator's rights, nor the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A gateway: leases, derives, binds buckets.
    Gateway,
    /// An operator: unlocks, enrols, reads the registry.
    Admin,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Admin => "admin",
        }
    }
}

/// A namespaced identity; JSON and text form is `role:name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    role: Role,
    name: String,
}

/// The text is not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an identity is `gateway:NAME` or `admin:NAME`; NAME is 1 to 63 of a-z, 0-9, `-`, `.`, starting with a letter or digit"
)]
pub struct IdentityError;

impl Identity {
    /// Checks and builds an identity from its role and the bare name.
    ///
    /// # Errors
    /// [`IdentityError`] if the name is empty, too long, or has other characters than `a-z`, `0-9`, `-`, `.`.
    pub fn new(role: Role, name: &str) -> Result<Self, IdentityError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        let first = name.as_bytes().first().ok_or(IdentityError)?;
        if !first.is_ascii_alphanumeric() || name.len() > NAME_LEN_MAX || !name.bytes().all(allowed) {
            return Err(IdentityError);
        }
        Ok(Self { role, name: name.to_owned() })
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The bare name, without the role.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URI that stands in the certificate's subject alternative name.
    #[must_use]
    pub fn to_uri(&self) -> String {
        format!("{URI_PREFIX}{self}")
    }

    /// Reads the URI of a certificate's subject alternative name.
    ///
    /// # Errors
    /// [`IdentityError`] if it is not one of ours.
    pub fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        uri.strip_prefix(URI_PREFIX).ok_or(IdentityError)?.parse()
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (role, name) = text.split_once(':').ok_or(IdentityError)?;
        let role = match role {
            "gateway" => Role::Gateway,
            "admin" => Role::Admin,
            _ => return Err(IdentityError),
        };
        Self::new(role, name)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.role.as_str(), self.name)
    }
}

impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_text_and_uri() {
        let id: Identity = "gateway:edge-1.fra".parse().unwrap();
        assert_eq!(id.role(), Role::Gateway);
        assert_eq!(Identity::from_uri(&id.to_uri()).unwrap(), id);
        assert_eq!(id.to_string(), "gateway:edge-1.fra");
    }

    #[test]
    fn odd_names_are_refused() {
        for bad in [
            "gateway:",
            "gateway",
            "root:x",
            "gateway:A",
            "gateway:a:b",
            "admin:-x",
            "admin:a/b",
            "gateway: x",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
        assert!(format!("admin:{}", "a".repeat(64)).parse::<Identity>().is_err());
    }
}
