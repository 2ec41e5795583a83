//! ACLs in headers: the canned ones and the grants. They say who may do what at the store, in words that the client
//! chooses from a list; what they protect there is ciphertext.

use super::classify::shortened;
use super::fields::Fields;
use crate::error::{ErrorCode, S3Error};

/// The canned ACLs of S3 (S3 user guide, "Access control list overview", canned ACL).
const CANNED: &[&str] = &[
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
    "log-delivery-write",
];

const GRANTS: &[&str] = &[
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
];

/// Longest list of grantees in one header, in bytes: S3 takes 100 grants, each with an id of 64 digits.
const GRANTEES_LEN_MAX: usize = 8192;

/// `x-amz-acl` and `x-amz-grant-*`, checked; passed on to the store (declared leakage).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AclHeaders(Vec<(&'static str, String)>);

impl AclHeaders {
    /// The headers that were sent: lower-case name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Whether none was sent.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the headers: `InvalidArgument` for a canned ACL that S3 does not know and for a grantee that is none,
    /// `InvalidRequest` for both kinds in one request.
    pub(super) fn read(f: &Fields<'_>) -> Result<Self, S3Error> {
        const NAME: &str = "x-amz-acl";
        let mut headers = Vec::new();
        if let Some(value) = f.header_non_empty(NAME)? {
            if !CANNED.contains(&value.as_str()) {
                return Err(S3Error::invalid_argument(
                    NAME,
                    &shortened(&value),
                    "The canned ACL is not valid.",
                ));
            }
            headers.push((NAME, value));
        }
        for name in GRANTS {
            let Some(value) = f.header_non_empty(name)? else { continue };
            if headers.iter().any(|(other, _)| *other == NAME) {
                return Err(S3Error::new(ErrorCode::InvalidRequest)
                    .with_message("Specifying both Canned ACLs and Header Grants is not allowed"));
            }
            if value.len() > GRANTEES_LEN_MAX || !value.split(',').all(is_grantee) {
                return Err(S3Error::invalid_argument(
                    name,
                    &shortened(&value),
                    "The grantees have to be a list of id=…, uri=… or emailAddress=…",
                ));
            }
            headers.push((name, value));
        }
        Ok(Self(headers))
    }
}

/// `id="…"`, `uri="…"` or `emailAddress="…"`, with or without quotes.
fn is_grantee(text: &str) -> bool {
    let Some((kind, value)) = text.trim().split_once('=') else { return false };
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    ["id", "uri", "emailaddress"].contains(&kind.to_ascii_lowercase().as_str())
        && !bare.is_empty()
        && bare.bytes().all(|byte| (byte == b' ' || byte.is_ascii_graphic()) && byte != b'"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grantees_are_of_one_of_three_kinds() {
        for good in [
            "id=abc",
            " id=\"a b\"",
            "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\"",
            "emailAddress=a@b",
        ] {
            assert!(is_grantee(good), "{good}");
        }
        for bad in ["", "id", "id=", "id=\"\"", "name=x", "id=ü", "id=a\"b", "id=a\nb"] {
            assert!(!is_grantee(bad), "{bad}");
        }
    }
}
