//! What any request may say besides its operation, for the store to judge.

use super::classify::shortened;
use super::fields::Fields;
use crate::cors::CrossOrigin;
use crate::error::S3Error;
use crate::request::RequestHead;

/// Longest account id, in bytes. AWS has 12 digits, other stores names.
const ACCOUNT_LEN_MAX: usize = 128;

/// What goes to the store with each request that is made for one of a client's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accompanying {
    /// The page that asks, if a browser says that it is one of another origin.
    pub cross_origin: Option<CrossOrigin>,
    /// `x-amz-expected-bucket-owner`: the account that the bucket has to belong to.
    pub expected_owner: Option<String>,
    /// `x-amz-source-expected-bucket-owner`: the same of a copy's source.
    pub source_expected_owner: Option<String>,
    /// `x-amz-request-payer: requester`
    pub requester_pays: bool,
}

impl Accompanying {
    /// Reads the head of a request: `InvalidArgument` and `InvalidRequest` for values that can't be.
    pub fn read(head: &RequestHead<'_>) -> Result<Self, S3Error> {
        const PAYER: &str = "x-amz-request-payer";
        let fields = Fields::read(head)?;
        let requester_pays = match fields.header_non_empty(PAYER)?.as_deref() {
            None => false,
            Some("requester") => true,
            Some(other) => {
                let text = "The payer has to be requester.";
                return Err(S3Error::invalid_argument(PAYER, &shortened(other), text));
            }
        };
        Ok(Self {
            cross_origin: CrossOrigin::read(head.headers)?,
            expected_owner: account(&fields, "x-amz-expected-bucket-owner")?,
            source_expected_owner: account(&fields, "x-amz-source-expected-bucket-owner")?,
            requester_pays,
        })
    }
}

fn account(f: &Fields<'_>, name: &str) -> Result<Option<String>, S3Error> {
    let Some(id) = f.header_non_empty(name)? else { return Ok(None) };
    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'$' | b'@');
    if id.len() <= ACCOUNT_LEN_MAX && id.bytes().all(is_id) {
        return Ok(Some(id));
    }
    Err(S3Error::invalid_argument(name, &shortened(&id), "The value is not the id of an account."))
}
