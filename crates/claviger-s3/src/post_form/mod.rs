//! POST Object: an upload by an HTML form, authenticated by a signed policy among its fields.
//!
//! Source: "POST Object", "POST Policy" and "Authenticating Requests: Browser-Based Uploads Using POST" in the S3 API
//! reference; RFC 7578 for the body. The way of one form:
//!
//! 1. [`FormStart::read`] takes the body's first bytes until the file begins: a [`Form`], and a [`FileReader`].
//! 2. [`Presented::of_form`] and its `verify` prove who signed the policy.
//! 3. [`Policy::parse`] and [`Policy::check`] prove that the policy is in force and covers every field.
//! 4. [`Form::put_object`] turns the fields into the PutObject that they stand for; [`FileReader`] gives its bytes.

mod boundary;
mod fields;
mod file;
mod outcome;
mod policy;
mod signature;
mod start;
#[cfg(test)]
mod tests;

pub use boundary::{Boundary, is_form};
pub use fields::Form;
pub use file::{FORM_TAIL_LEN_MAX, FileReader};
pub use outcome::Success;
pub use policy::{LengthRange, Policy};
pub use signature::Presented;
pub use start::{FORM_HEAD_LEN_MAX, FormStart, Started};

use crate::error::{ErrorCode, S3Error};

/// The body is not multipart/form-data as it should be.
fn malformed() -> S3Error {
    S3Error::new(ErrorCode::MalformedPOSTRequest)
}

/// `InvalidArgument` for a field that has to be there, in the words of S3.
fn missing_field(name: &str) -> S3Error {
    let text = format!(
        "Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields."
    );
    S3Error::invalid_argument(name, "", text)
}
