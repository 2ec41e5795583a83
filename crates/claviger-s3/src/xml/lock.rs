//! The documents of Object Lock: `Retention`, `LegalHold`, `ObjectLockConfiguration`.

use bytes::Bytes;

use super::element::Element;
use super::reader::{Document, Limits, XmlError};
use super::writer::XmlWriter;
use crate::lock::{
    DefaultRetention, LegalHold, LockConfiguration, LockMode, LockPeriod, RetainUntil, Retention,
};

/// Largest document that is read, in bytes.
pub const LOCK_LEN_MAX: usize = 64 << 10;

const LIMITS: Limits = Limits { len_max: LOCK_LEN_MAX, elements_max: 20 };

/// Reads `Retention`, of a client or the store; `None` for an empty one, which ends a retention in governance mode.
pub fn parse_retention(body: &[u8]) -> Result<Option<Retention>, XmlError> {
    let document = Document::parse(body, "Retention", LIMITS)?;
    let root = document.root();
    only(&root, &["Mode", "RetainUntilDate"])?;
    if root.children().next().is_none() {
        return Ok(None);
    }
    let until = RetainUntil::parse(&root.required("RetainUntilDate")?);
    Ok(Some(Retention { mode: mode(&root)?, until: until.ok_or(XmlError::Invalid("RetainUntilDate"))? }))
}

/// Writes `Retention`, for the store and for clients.
pub fn write_retention(retention: Option<&Retention>) -> Bytes {
    XmlWriter::document("Retention", None, |w| {
        if let Some(retention) = retention {
            w.text("Mode", retention.mode.as_str());
            w.text("RetainUntilDate", retention.until.as_str());
        }
    })
}

/// Reads `LegalHold`, of a client or the store.
pub fn parse_legal_hold(body: &[u8]) -> Result<LegalHold, XmlError> {
    let document = Document::parse(body, "LegalHold", LIMITS)?;
    let root = document.root();
    only(&root, &["Status"])?;
    LegalHold::from_name(root.required("Status")?.trim()).ok_or(XmlError::Invalid("Status"))
}

/// Writes `LegalHold`, for the store and for clients.
pub fn write_legal_hold(hold: LegalHold) -> Bytes {
    XmlWriter::document("LegalHold", None, |w| w.text("Status", hold.as_str()))
}

/// Reads `ObjectLockConfiguration`, of a client or the store.
pub fn parse_lock_configuration(body: &[u8]) -> Result<LockConfiguration, XmlError> {
    let document = Document::parse(body, "ObjectLockConfiguration", LIMITS)?;
    let root = document.root();
    only(&root, &["ObjectLockEnabled", "Rule"])?;
    if root.required("ObjectLockEnabled")?.trim() != "Enabled" {
        return Err(XmlError::Invalid("ObjectLockEnabled"));
    }
    let Some(rule) = root.child("Rule")? else { return Ok(LockConfiguration::default()) };
    only(&rule, &["DefaultRetention"])?;
    let default = rule.child("DefaultRetention")?.ok_or(XmlError::Missing("DefaultRetention"))?;
    only(&default, &["Mode", "Days", "Years"])?;
    let period = match (whole(&default, "Days")?, whole(&default, "Years")?) {
        (Some(days), None) => LockPeriod::Days(days),
        (None, Some(years)) => LockPeriod::Years(years),
        _ => return Err(XmlError::Invalid("DefaultRetention")),
    };
    Ok(LockConfiguration { default: Some(DefaultRetention { mode: mode(&default)?, period }) })
}

/// Writes `ObjectLockConfiguration`, for the store and for clients.
pub fn write_lock_configuration(configuration: &LockConfiguration) -> Bytes {
    XmlWriter::document("ObjectLockConfiguration", None, |w| {
        w.text("ObjectLockEnabled", "Enabled");
        let Some(default) = &configuration.default else { return };
        w.group("Rule", |w| {
            w.group("DefaultRetention", |w| {
                w.text("Mode", default.mode.as_str());
                match default.period {
                    LockPeriod::Days(days) => w.value("Days", days),
                    LockPeriod::Years(years) => w.value("Years", years),
                }
            });
        });
    })
}

fn mode(element: &Element<'_, '_>) -> Result<LockMode, XmlError> {
    LockMode::from_name(element.required("Mode")?.trim()).ok_or(XmlError::Invalid("Mode"))
}

/// A number with or without a sign.
fn whole(element: &Element<'_, '_>, name: &'static str) -> Result<Option<i64>, XmlError> {
    let text = element.text_of(name)?;
    text.map(|text| text.trim().parse().map_err(|_| XmlError::Invalid(name))).transpose()
}

fn only(element: &Element<'_, '_>, names: &[&str]) -> Result<(), XmlError> {
    let known = |child: &Element<'_, '_>| names.contains(&child.name());
    if element.children().all(|child| known(&child)) { Ok(()) } else { Err(XmlError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_as_they_were_written() {
        let until = RetainUntil::parse("2030-01-01T00:00:00.5Z").unwrap();
        for retention in [None, Some(Retention { mode: LockMode::Compliance, until })] {
            assert_eq!(parse_retention(&write_retention(retention.as_ref())).unwrap(), retention);
        }
        for hold in [LegalHold::On, LegalHold::Off] {
            assert_eq!(parse_legal_hold(&write_legal_hold(hold)).unwrap(), hold);
        }
        for period in [LockPeriod::Days(1), LockPeriod::Years(-1), LockPeriod::Days(0)] {
            let default = Some(DefaultRetention { mode: LockMode::Governance, period });
            for default in [None, default] {
                let configuration = LockConfiguration { default };
                let document = write_lock_configuration(&configuration);
                assert_eq!(parse_lock_configuration(&document).unwrap(), configuration);
            }
        }
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let retention = |inner: &str| parse_retention(format!("<Retention>{inner}</Retention>").as_bytes());
        for inner in [
            "<Mode>GOVERNANCE</Mode>",
            "<RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate>",
            "<Mode>governance</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate>",
            "<Mode>GOVERNANCE</Mode><RetainUntilDate>soon</RetainUntilDate>",
            "<Mode>GOVERNANCE</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate><Note>secret</Note>",
        ] {
            assert!(retention(inner).is_err(), "{inner}");
        }
        assert!(parse_legal_hold(b"<LegalHold><Status>abc</Status></LegalHold>").is_err());
        assert!(parse_legal_hold(b"<LegalHold/>").is_err());
        let configuration = |enabled: &str, retention: &str| {
            let rule = format!("<Rule><DefaultRetention>{retention}</DefaultRetention></Rule>");
            let body = format!(
                "<ObjectLockConfiguration><ObjectLockEnabled>{enabled}</ObjectLockEnabled>{rule}\
                 </ObjectLockConfiguration>"
            );
            parse_lock_configuration(body.as_bytes())
        };
        assert!(configuration("Enabled", "<Mode>GOVERNANCE</Mode><Days>1</Days>").is_ok());
        for (enabled, retention) in [
            ("Disabled", "<Mode>GOVERNANCE</Mode><Days>1</Days>"),
            ("Enabled", "<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>"),
            ("Enabled", "<Mode>GOVERNANCE</Mode>"),
            ("Enabled", "<Mode>governance</Mode><Days>1</Days>"),
            ("Enabled", "<Mode>GOVERNANCE</Mode><Days>many</Days>"),
            ("Enabled", "<Days>1</Days>"),
        ] {
            assert!(configuration(enabled, retention).is_err(), "{enabled} {retention}");
        }
    }
}
