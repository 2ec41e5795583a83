//! The policy of a form: JSON in base64, in force until its expiration, with a condition for each field.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::fields::{Form, is_ignored, shortened};
use crate::error::{ErrorCode, S3Error};
use crate::timestamp::parse_iso8601;

/// Fields that need no condition: they are what is signed, or sign.
const EXEMPT: &[&str] = &["policy", "file", "x-amz-signature", "signature", "awsaccesskeyid"];

/// How long the file may be, both ends included, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthRange {
    min: u64,
    max: u64,
}

/// A policy document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    expires_ms: u64,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Eq { field: String, value: String },
    StartsWith { field: String, prefix: String },
    Length(LengthRange),
}

impl Policy {
    /// Reads the field `policy`. Names of fields and operators are read without regard to case, the two names of the
    /// document (`expiration`, `conditions`) with it.
    ///
    /// # Errors
    /// `InvalidPolicyDocument`.
    pub fn parse(base64: &str) -> Result<Self, S3Error> {
        let compact: String = base64.chars().filter(|char| !char.is_ascii_whitespace()).collect();
        let bytes = BASE64.decode(compact).map_err(|_| invalid("Invalid Base64."))?;
        let text = String::from_utf8(bytes).map_err(|_| invalid("Invalid UTF-8."))?;
        let document: Value =
            serde_json::from_str(&without_own_escapes(&text)).map_err(|_| invalid("Invalid JSON."))?;
        let document = document.as_object().ok_or_else(|| invalid("Invalid JSON."))?;
        if let Some(name) =
            document.keys().find(|name| !["expiration", "conditions"].contains(&name.as_str()))
        {
            return Err(invalid(format!("Unexpected: '{}'.", shortened(name))));
        }
        let expiration = document.get("expiration").ok_or_else(|| invalid("Policy missing expiration."))?;
        let expires_ms = expiration.as_str().and_then(expiration_ms).ok_or_else(|| {
            invalid(format!("Invalid 'expiration' value: '{}'", shortened(&plain(expiration))))
        })?;
        let conditions = document.get("conditions").ok_or_else(|| invalid("Policy missing conditions."))?;
        let conditions = conditions.as_array().ok_or_else(|| invalid("Invalid 'conditions' value."))?;
        let conditions = conditions.iter().map(Condition::parse).collect::<Result<_, _>>()?;
        Ok(Self { expires_ms, conditions })
    }

    /// Whether the policy is in force at `now_ms`, its conditions hold for `form` in `bucket`, and every field has one.
    /// What the length of the file has to be is the caller's to check, once it is known.
    ///
    /// # Errors
    /// `AccessDenied` with the reason in the words of S3.
    pub fn check(&self, form: &Form, bucket: &str, now_ms: u64) -> Result<LengthRange, S3Error> {
        if now_ms >= self.expires_ms {
            return Err(denied("Policy expired."));
        }
        let key = form.key()?;
        let value_of = |field: &str| match field {
            "bucket" => Some(bucket),
            "key" => Some(key.as_str()),
            other => form.get(other),
        };
        let mut length = LengthRange { min: 0, max: u64::MAX };
        let mut covered = HashSet::new();
        for condition in &self.conditions {
            let (field, holds) = match condition {
                Condition::Length(range) => {
                    length = LengthRange { min: length.min.max(range.min), max: length.max.min(range.max) };
                    continue;
                }
                Condition::Eq { field, value } => (field, value_of(field) == Some(value)),
                Condition::StartsWith { field, prefix } => {
                    (field, value_of(field).is_some_and(|value| starts_with(field, value, prefix)))
                }
            };
            if !holds {
                return Err(denied(format!("Policy Condition failed: {}", condition.to_json())));
            }
            covered.insert(field.as_str());
        }
        let fields = form.iter().map(|(name, _)| name).chain(["bucket", "key"]);
        let mut extra = fields.filter(|name| !EXEMPT.contains(name) && !is_ignored(name));
        match extra.find(|name| !covered.contains(name)) {
            Some(name) => Err(denied(format!("Extra input fields: {}", shortened(name)))),
            None => Ok(length),
        }
    }
}

impl LengthRange {
    /// No bounds: a form without a policy.
    pub const ANY: Self = Self { min: 0, max: u64::MAX };

    /// `EntityTooSmall` or `EntityTooLarge` when a file of `len` bytes is outside.
    ///
    /// # Errors
    /// As said, with the figures.
    pub fn check(&self, len: u64) -> Result<(), S3Error> {
        self.check_at_least(len)?;
        if len < self.min {
            return Err(S3Error::new(ErrorCode::EntityTooSmall)
                .with_extra("ProposedSize", len.to_string())
                .with_extra("MinSizeAllowed", self.min.to_string()));
        }
        Ok(())
    }

    /// `EntityTooLarge` when already `len` bytes are too many, while more may come.
    ///
    /// # Errors
    /// As said.
    pub fn check_at_least(&self, len: u64) -> Result<(), S3Error> {
        if len <= self.max {
            return Ok(());
        }
        Err(S3Error::new(ErrorCode::EntityTooLarge)
            .with_extra("ProposedSize", len.to_string())
            .with_extra("MaxSizeAllowed", self.max.to_string()))
    }
}

impl Condition {
    /// `{"field": "value"}` or `["operator", first, second]`.
    fn parse(value: &Value) -> Result<Self, S3Error> {
        match value {
            Value::Object(object) => {
                let mut pairs = object.iter();
                let (Some((name, value)), None) = (pairs.next(), pairs.next()) else {
                    return Err(invalid(
                        "Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.",
                    ));
                };
                let text = "Invalid Simple-Condition: value must be a string.";
                let value = value.as_str().ok_or_else(|| invalid(text))?;
                Ok(Self::Eq { field: name.to_ascii_lowercase(), value: value.to_owned() })
            }
            Value::Array(list) => Self::parse_list(list),
            _ => Err(invalid("Invalid condition: neither object nor list.")),
        }
    }

    fn parse_list(list: &[Value]) -> Result<Self, S3Error> {
        let [operator, first, second] = list else {
            return Err(invalid("Invalid condition: an operator takes two values."));
        };
        let operator = operator.as_str().unwrap_or_default().to_ascii_lowercase();
        if operator == "content-length-range" {
            let number = |value| length(value).ok_or_else(|| invalid("Invalid content-length-range."));
            return Ok(Self::Length(LengthRange { min: number(first)?, max: number(second)? }));
        }
        let field = first.as_str().and_then(|name| name.strip_prefix('$'));
        let (Some(field), Some(value)) = (field, second.as_str()) else {
            return Err(invalid(
                "Invalid condition: a field's name begins with $, and its value is a string.",
            ));
        };
        let (field, value) = (field.to_ascii_lowercase(), value.to_owned());
        match operator.as_str() {
            "eq" => Ok(Self::Eq { field, value }),
            "starts-with" => Ok(Self::StartsWith { field, prefix: value }),
            _ => Err(invalid("Invalid condition: unknown operator.")),
        }
    }

    fn to_json(&self) -> String {
        let list = match self {
            Self::Eq { field, value } => ["eq".to_owned(), format!("${field}"), value.clone()],
            Self::StartsWith { field, prefix } => {
                ["starts-with".to_owned(), format!("${field}"), prefix.clone()]
            }
            Self::Length(range) => {
                ["content-length-range".to_owned(), range.min.to_string(), range.max.to_string()]
            }
        };
        format!("[{}]", list.map(|text| Value::from(shortened(&text)).to_string()).join(", "))
    }
}

/// A Content-Type with commas is a list, of which each member has to begin so (S3: "Condition Matching").
fn starts_with(field: &str, value: &str, prefix: &str) -> bool {
    if field == "content-type" && value.contains(',') {
        return value.split(',').all(|kind| kind.trim().starts_with(prefix));
    }
    value.starts_with(prefix)
}

/// A number of bytes, as a JSON number or in a string.
fn length(value: &Value) -> Option<u64> {
    let digits = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    value.as_u64().or_else(|| value.as_str().filter(digits)?.parse().ok())
}

/// `2007-12-01T12:00:00.000Z`, in UTC only.
fn expiration_ms(text: &str) -> Option<u64> {
    let has_form = text.as_bytes().get(10) == Some(&b'T') && text.ends_with('Z');
    parse_iso8601(text).filter(|_| has_form)
}

/// S3's escapes of a policy that JSON does not have: `\$` is a dollar sign, `\v` a vertical tab.
fn without_own_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match chars.next() {
            Some('$') => out.push('$'),
            Some('v') => out.push_str("\\u000b"),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn invalid(reason: impl AsRef<str>) -> S3Error {
    S3Error::new(ErrorCode::InvalidPolicyDocument)
        .with_message(format!("Invalid Policy: {}", reason.as_ref()))
}

fn denied(reason: impl AsRef<str>) -> S3Error {
    let text = format!("Invalid according to Policy: {}", reason.as_ref());
    S3Error::new(ErrorCode::AccessDenied).with_message(text)
}
