//! Object Lock: retention and legal hold, as values (S3 user guide, "Locking objects with Object Lock").

use crate::timestamp::parse_iso8601;

/// How firmly an object is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Whoever has a right of his own may delete it before its time.
    Governance,
    /// Nobody may.
    Compliance,
}

impl LockMode {
    /// The name in headers and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }

    /// The mode of this name; case matters.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Governance, Self::Compliance].into_iter().find(|mode| mode.as_str() == name)
    }
}

/// Until when an object is kept: a time in ISO 8601, to the digit that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainUntil(String);

impl RetainUntil {
    /// Longest text: a date, a time, nine digits of a second, an offset.
    const LEN_MAX: usize = 40;

    /// Takes a time; `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_time = text.len() <= Self::LEN_MAX && parse_iso8601(text).is_some();
        is_time.then(|| Self(text.to_owned()))
    }

    /// The time as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How firmly and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// `Mode`
    pub mode: LockMode,
    /// `RetainUntilDate`
    pub until: RetainUntil,
}

/// Whether an object is kept until somebody says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegalHold {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl LegalHold {
    /// The value in headers and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "ON",
            Self::Off => "OFF",
        }
    }

    /// The state of this name; case matters.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::On, Self::Off].into_iter().find(|hold| hold.as_str() == name)
    }
}

/// How long new objects of a bucket are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockPeriod {
    /// `Days`; whether the number can be is the store's to say.
    Days(i64),
    /// `Years`; likewise.
    Years(i64),
}

/// How new objects of a bucket are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRetention {
    /// `Mode`
    pub mode: LockMode,
    /// `Days` or `Years`
    pub period: LockPeriod,
}

/// What a bucket's `ObjectLockConfiguration` says; it says `Enabled` in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LockConfiguration {
    /// `DefaultRetention` of its only `Rule`.
    pub default: Option<DefaultRetention>,
}

/// What the request that makes an object says of its lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockHeaders {
    /// `x-amz-object-lock-mode` and `x-amz-object-lock-retain-until-date`
    pub retention: Option<Retention>,
    /// `x-amz-object-lock-legal-hold`
    pub legal_hold: Option<LegalHold>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_its_digits() {
        for good in ["2030-01-01T00:00:00Z", "2030-01-01T00:00:00.123456789Z", "2030-01-01T00:00:00+01:00"] {
            assert_eq!(RetainUntil::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "tomorrow", "2030-01-01", "1893456000", "2030-13-01T00:00:00Z"] {
            assert_eq!(RetainUntil::parse(bad), None, "{bad}");
        }
    }
}
