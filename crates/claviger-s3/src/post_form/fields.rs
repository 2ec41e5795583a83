//! The fields of a form and what they mean.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::outcome::Success;
use super::{malformed, missing_field};
use crate::error::{ErrorCode, S3Error};
use crate::name::{BucketName, ObjectKey};
use crate::operation::{PutObject, put_object_of_headers};
use crate::xml::parse_tagging;

/// Fields that stand for a header of PutObject, besides those that begin with `x-amz-`.
const HEADERS: &[&str] = &[
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
    "if-match",
    "if-none-match",
];

/// Fields that say who signs, which have been dealt with.
const SIGNATURE: &[&str] =
    &["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-security-token", "x-amz-signature"];

/// What a request says about itself and its body in headers, and no form in its fields.
const NOT_IN_FORMS: &[&str] = &[
    "x-amz-content-sha256",
    "x-amz-decoded-content-length",
    "x-amz-expected-bucket-owner",
    "x-amz-request-payer",
    "x-amz-source-expected-bucket-owner",
    "x-amz-trailer",
];

/// The fields of a form before its file: names in lower case, since S3 does not tell cases apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    fields: Vec<(String, String)>,
    filename: String,
}

impl Form {
    /// Adds a field; one that is there already is `InvalidArgument`, unless it is to be ignored.
    pub(super) fn add(&mut self, name: &str, value: String) -> Result<(), S3Error> {
        let name = name.to_ascii_lowercase();
        if !is_ignored(&name) && self.get(&name).is_some() {
            return Err(S3Error::invalid_argument(
                &shortened(&name),
                "",
                "A field of the form was given twice.",
            ));
        }
        self.fields.push((name, value));
        Ok(())
    }

    /// Sets the name of the file, of which only what follows the last slash or backslash counts.
    pub(super) fn set_filename(&mut self, path: String) {
        self.filename = path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    }

    /// The value of a field by its lower-case name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The fields in the order of the form, names in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether nobody claims to have signed the form: it has neither a policy nor a field of a signature.
    pub fn is_anonymous(&self) -> bool {
        const SIGNED: &[&str] =
            &["policy", "signature", "awsaccesskeyid", "x-amz-signature", "x-amz-credential"];
        SIGNED.iter().all(|name| self.get(name).is_none())
    }

    /// The object key: the field `key`, in which `${filename}` stands for the file's name.
    ///
    /// # Errors
    /// `InvalidArgument` when it is missing or empty, `KeyTooLongError`.
    pub fn key(&self) -> Result<ObjectKey, S3Error> {
        let key = self.get("key").ok_or_else(|| missing_field("key"))?;
        let key = key.replace("${filename}", &self.filename);
        if key.is_empty() {
            let text = "User key must have a length greater than 0.";
            return Err(S3Error::invalid_argument("key", "", text));
        }
        ObjectKey::parse(key)
    }

    /// What the client gets when the object is stored.
    pub fn success(&self) -> Success {
        let redirect = self.get("success_action_redirect").or_else(|| self.get("redirect"));
        Success::asked(redirect, self.get("success_action_status"))
    }

    /// The PutObject that the form stands for. Its fields are judged as that operation's headers are: what begins with
    /// `x-amz-` and is not known is `NotImplemented`, other names mean nothing.
    ///
    /// # Errors
    /// As [`crate::classify`]; `InvalidArgument` for a bucket in the form that is not the request's, and for values that
    /// no header could have.
    pub fn put_object(&self, bucket: BucketName) -> Result<PutObject, S3Error> {
        if let Some(other) = self.get("bucket").filter(|name| *name != bucket.as_str()) {
            let text = "The bucket of the form is not the one that the request is for.";
            return Err(S3Error::invalid_argument("bucket", &shortened(other), text));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in self.iter() {
            let Some((header, value)) = as_header(name, value)? else { continue };
            if NOT_IN_FORMS.contains(&header.as_str()) {
                return Err(S3Error::not_implemented(format!("{header} is not a field of a form.")));
            }
            if headers.insert(header, value).is_some() {
                return Err(S3Error::invalid_argument(name, "", "A field of the form was given twice."));
            }
        }
        put_object_of_headers(bucket, self.key()?, &headers)
    }
}

/// The header that a field stands for.
fn as_header(name: &str, value: &str) -> Result<Option<(HeaderName, HeaderValue)>, S3Error> {
    let (name, value) = match name {
        "acl" => ("x-amz-acl", value.to_owned()),
        "tagging" => ("x-amz-tagging", parse_tagging(value.as_bytes())?.to_header()),
        _ if SIGNATURE.contains(&name) => return Ok(None),
        _ if HEADERS.contains(&name) || name.starts_with("x-amz-") => (name, value.to_owned()),
        _ => return Ok(None),
    };
    let header = HeaderName::try_from(name).map_err(|_| malformed())?;
    let value = HeaderValue::try_from(value).map_err(|_| {
        S3Error::new(ErrorCode::InvalidArgument)
            .with_message(format!("The value of the field {} can't be that of a header.", shortened(name)))
    })?;
    Ok(Some((header, value)))
}

/// `x-ignore-…`: for the page that made the form, never for S3.
pub(super) fn is_ignored(name: &str) -> bool {
    name.starts_with("x-ignore-")
}

/// A client's text, short enough for a message.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}
