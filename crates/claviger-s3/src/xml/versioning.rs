//! The versioning state of a bucket.

use bytes::Bytes;

use super::reader::{Document, Limits};
use super::writer::XmlWriter;
use crate::error::{ErrorCode, S3Error};

/// Largest `VersioningConfiguration` document that is read, in bytes.
pub const VERSIONING_LEN_MAX: usize = 64 << 10;

/// `Status` of a `VersioningConfiguration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersioningStatus {
    /// Every write makes a version of its own.
    Enabled,
    /// New writes replace the version `null`; older versions stay.
    Suspended,
}

impl VersioningStatus {
    /// The value of `Status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Suspended => "Suspended",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Enabled, Self::Suspended].into_iter().find(|status| status.as_str() == name)
    }
}

/// `VersioningConfiguration`, as the store answers it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VersioningResult {
    /// `Status`; `None` for a bucket that never had versions.
    pub status: Option<VersioningStatus>,
    /// `MfaDelete`: whether it is said to be `Enabled`; `None` where the store does not speak of it.
    pub mfa_delete: Option<bool>,
}

impl VersioningResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("VersioningConfiguration", None, |w| {
            w.optional("Status", self.status.map(VersioningStatus::as_str));
            w.optional("MfaDelete", self.mfa_delete.map(|on| if on { "Enabled" } else { "Disabled" }));
        })
    }

    /// Reads the store's answer.
    pub fn parse(body: &[u8]) -> Result<Self, super::XmlError> {
        use super::XmlError::Invalid;
        let document = Document::parse(body, "VersioningConfiguration", Limits::UPSTREAM)?;
        let root = document.root();
        let status = root.non_empty("Status")?;
        let status = status.map(|name| VersioningStatus::from_name(&name).ok_or(Invalid("Status")));
        let mfa_delete = match root.non_empty("MfaDelete")?.as_deref() {
            None => None,
            Some("Enabled") => Some(true),
            Some("Disabled") => Some(false),
            Some(_) => return Err(Invalid("MfaDelete")),
        };
        Ok(Self { status: status.transpose()?, mfa_delete })
    }
}

/// Reads a client's `VersioningConfiguration`: `MalformedXML` when broken or with another status,
/// `IllegalVersioningConfigurationException` without one, `NotImplemented` where it asks for MFA delete.
pub fn parse_versioning(body: &[u8]) -> Result<VersioningStatus, S3Error> {
    let limits = Limits { len_max: VERSIONING_LEN_MAX, elements_max: 10 };
    let document = Document::parse(body, "VersioningConfiguration", limits)?;
    let root = document.root();
    if root.children().any(|child| !matches!(child.name(), "Status" | "MfaDelete")) {
        return Err(ErrorCode::MalformedXML.into());
    }
    match root.text_of("MfaDelete")?.as_deref().map(str::trim) {
        None | Some("Disabled") => {}
        Some("Enabled") => return Err(S3Error::not_implemented("MFA delete is not implemented.")),
        Some(_) => return Err(ErrorCode::MalformedXML.into()),
    }
    match root.text_of("Status")?.as_deref().map(str::trim) {
        None => Err(ErrorCode::IllegalVersioningConfigurationException.into()),
        Some(name) => VersioningStatus::from_name(name).ok_or_else(|| ErrorCode::MalformedXML.into()),
    }
}

/// Writes a `VersioningConfiguration` for the store.
pub fn write_versioning(status: VersioningStatus) -> Bytes {
    VersioningResult { status: Some(status), mfa_delete: None }.to_xml()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_bucket_is_read_as_it_was_written() {
        for status in [None, Some(VersioningStatus::Enabled), Some(VersioningStatus::Suspended)] {
            for mfa_delete in [None, Some(true), Some(false)] {
                let result = VersioningResult { status, mfa_delete };
                assert_eq!(VersioningResult::parse(&result.to_xml()).unwrap(), result);
            }
        }
        let odd = b"<VersioningConfiguration><Status>Perhaps</Status></VersioningConfiguration>";
        assert!(VersioningResult::parse(odd).is_err());
    }

    #[test]
    fn a_client_may_switch_versions_on_and_off_and_nothing_else() {
        let read = |inner: &str| {
            parse_versioning(format!("<VersioningConfiguration>{inner}</VersioningConfiguration>").as_bytes())
        };
        assert_eq!(
            parse_versioning(&write_versioning(VersioningStatus::Suspended)).unwrap().as_str(),
            "Suspended"
        );
        let off = read("<MfaDelete>Disabled</MfaDelete><Status>Enabled</Status>");
        assert_eq!(off.unwrap(), VersioningStatus::Enabled);
        for (inner, code) in [
            ("", ErrorCode::IllegalVersioningConfigurationException),
            ("<Status>enabled</Status>", ErrorCode::MalformedXML),
            ("<Status></Status>", ErrorCode::MalformedXML),
            ("<Status>Enabled</Status><Status>Suspended</Status>", ErrorCode::MalformedXML),
            ("<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>", ErrorCode::NotImplemented),
            ("<Status>Enabled</Status><MfaDelete>maybe</MfaDelete>", ErrorCode::MalformedXML),
            ("<Status>Enabled</Status><Odd/>", ErrorCode::MalformedXML),
        ] {
            assert_eq!(read(inner).unwrap_err().code(), code, "{inner}");
        }
    }
}
