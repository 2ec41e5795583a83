//! Who signed a form: the policy, as it stands in its field, is the string that is signed.

use super::fields::Form;
use super::missing_field;
use crate::authentication::{Authenticated, check_token};
use crate::error::S3Error;
use crate::sigv2;
use crate::sigv4::{FormClaims, SecretAccessKey, SessionToken};

/// The signature of a form as presented: parsed, not yet verified.
#[derive(Debug)]
pub enum Presented {
    /// Signature Version 4: `x-amz-algorithm`, `x-amz-credential`, `x-amz-date`, `x-amz-signature`.
    V4(FormClaims),
    /// Version 2: `AWSAccessKeyId` and `signature`.
    V2(V2),
}

/// The fields of a version 2 signature.
#[derive(Debug)]
pub struct V2 {
    access_key_id: String,
    signature: String,
}

impl Presented {
    /// Reads the signature of a form that is not [`Form::is_anonymous`].
    ///
    /// # Errors
    /// `InvalidArgument` for a field that is missing or broken; `InvalidRequest` for version 2 unless `accept_v2`.
    pub fn of_form(form: &Form, accept_v2: bool) -> Result<Self, S3Error> {
        form.get("policy").ok_or_else(|| missing_field("policy"))?;
        let field = |name: &'static str| form.get(name).ok_or_else(|| missing_field(name));
        let is_v2 = form.get("awsaccesskeyid").is_some() && form.get("x-amz-signature").is_none();
        if !is_v2 {
            let claims = FormClaims::parse(
                form.get("x-amz-algorithm").unwrap_or_default(),
                field("x-amz-credential")?,
                field("x-amz-date")?,
                field("x-amz-signature")?,
            )?;
            return Ok(Self::V4(claims));
        }
        if !accept_v2 {
            return Err(crate::sigv4::sigv2_refused());
        }
        let (access_key_id, signature) = (field("awsaccesskeyid")?, field("signature")?);
        Ok(Self::V2(V2 { access_key_id: access_key_id.to_owned(), signature: signature.to_owned() }))
    }

    /// Whose key it claims to be.
    pub fn access_key_id(&self) -> &str {
        match self {
            Self::V4(claims) => claims.access_key_id(),
            Self::V2(v2) => &v2.access_key_id,
        }
    }

    /// Verifies the signature over the field `policy` of `form`, and that the field `x-amz-security-token` is the token
    /// that goes with the key. (That the policy covers it is [`super::Policy`]'s to check.)
    ///
    /// # Errors
    /// `SignatureDoesNotMatch`; `InvalidToken` and `InvalidAccessKeyId` for a token that is wrong or missing. Compared in
    /// constant time.
    pub fn verify(
        self,
        form: &Form,
        secret: &SecretAccessKey,
        session_token: Option<&SessionToken>,
    ) -> Result<Authenticated, S3Error> {
        let policy = form.get("policy").unwrap_or_default();
        check_token(session_token, form.get("x-amz-security-token"), || match &self {
            Self::V4(claims) => claims.verify(policy.as_bytes(), secret),
            Self::V2(v2) => sigv2::verify_policy(secret, policy, &v2.signature),
        })?;
        Ok(Authenticated::of_form(self.access_key_id().to_owned()))
    }
}
