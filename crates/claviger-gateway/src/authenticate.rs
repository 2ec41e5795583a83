//! Who asks: the signature is verified before anything else about a request is looked at.

use std::sync::Arc;

use claviger_s3::cors::CrossOrigin;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::sigv4::{Presented, VerifyPolicy};
use claviger_s3::{Authenticated, RequestHead, Scheme, sigv2};
use http::Method;
use http::header::ACCESS_CONTROL_REQUEST_METHOD;

use crate::credentials::{ANONYMOUS, Identity, UpstreamAccount};
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::own_hosts::OwnHosts;
use crate::upstream::account::Account;

impl Gateway {
    /// The identity that a request is one of, and how its body is covered.
    ///
    /// # Errors
    /// `AccessDenied` for a request without a signature where none is let in; what is wrong with the signature.
    pub(crate) fn authenticate(
        &self,
        head: &RequestHead<'_>,
    ) -> Result<(Arc<Identity>, Authenticated), GatewayError> {
        match Scheme::of(head)? {
            Scheme::Anonymous => self.anonymous(head),
            Scheme::SigV2 if self.upstream.profile().signature_v2 => self.by_sigv2(head),
            // What is presented of another scheme is refused by name there.
            Scheme::SigV2 | Scheme::SigV4 => self.by_sigv4(head),
        }
    }

    fn by_sigv4(&self, head: &RequestHead<'_>) -> Result<(Arc<Identity>, Authenticated), GatewayError> {
        let presented = Presented::parse(head)?;
        let unknown = || S3Error::new(ErrorCode::InvalidAccessKeyId);
        let identity = self.credentials.lookup(presented.access_key_id()).ok_or_else(unknown)?;
        let secret = identity.secret().ok_or_else(unknown)?;
        let known = identity.known_signing_key(presented.date(), presented.region());
        let signing_key = known.clone().unwrap_or_else(|| Arc::new(presented.signing_key(secret)));
        let policy = VerifyPolicy {
            // Any region: it is part of what is signed, and tools are configured with many.
            region: None,
            session_token: identity.session_token(),
            host_aliases: &self.config.host_aliases,
        };
        let authenticated = presented.verify(head, &signing_key, &policy, self.clock.now_ms())?;
        if known.is_none() {
            identity.keep_signing_key(signing_key);
        }
        Ok((identity, authenticated))
    }

    fn by_sigv2(&self, head: &RequestHead<'_>) -> Result<(Arc<Identity>, Authenticated), GatewayError> {
        let presented = sigv2::Presented::parse(head)?;
        let unknown = || S3Error::new(ErrorCode::InvalidAccessKeyId);
        let identity = self.credentials.lookup(presented.access_key_id()).ok_or_else(unknown)?;
        let secret = identity.secret().ok_or_else(unknown)?;
        let policy = sigv2::VerifyPolicy { hosts: &self.hosts, session_token: identity.session_token() };
        let authenticated = presented.verify(head, secret, &policy, self.clock.now_ms())?;
        Ok((identity, authenticated))
    }

    fn anonymous(&self, head: &RequestHead<'_>) -> Result<(Arc<Identity>, Authenticated), GatewayError> {
        let identity = self.anonymous_identity(head.host)?;
        let authenticated = Authenticated::without_payload_signature(ANONYMOUS.to_owned(), head)?;
        Ok((identity, authenticated))
    }

    /// The identity of those who don't sign, for a request to `host`.
    ///
    /// # Errors
    /// `AccessDenied` where none is let in, or not under this name.
    pub(crate) fn anonymous_identity(&self, host: Option<&str>) -> Result<Arc<Identity>, GatewayError> {
        let denied = |text| S3Error::new(ErrorCode::AccessDenied).with_message(text);
        let identity =
            self.credentials.anonymous().ok_or_else(|| denied("Anonymous access is not allowed."))?;
        let aliases = &self.config.host_aliases;
        let own = OwnHosts { domains: &self.hosts, aliases, listed: identity.hosts() };
        if !own.include(host) {
            let text = "Anonymous access is not allowed under this host name: it is none of this gateway's, which its \
                        operator lists as hosts of [anonymous].";
            return Err(denied(text).into());
        }
        Ok(identity)
    }

    /// The account at the store that an identity's requests are made with.
    ///
    /// # Errors
    /// Never in practice: access keys are only taken up with accounts that exist.
    pub(crate) fn account_of(&self, identity: &Identity) -> Result<Arc<Account>, GatewayError> {
        match identity.upstream_account() {
            UpstreamAccount::Own => Ok(self.upstream.account().clone()),
            UpstreamAccount::Anonymous => Ok(Arc::new(Account::Anonymous)),
            UpstreamAccount::Named(name) => {
                let account = self.accounts.get(name).cloned();
                account.ok_or(GatewayError::Internal("an access key of an account that does not exist"))
            }
        }
    }

    /// Who signed the URL that a preflight is about; `None` if nobody did, or not rightly.
    pub(crate) fn preflight_signer(&self, head: &RequestHead<'_>) -> Option<Arc<Identity>> {
        let intended = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let method = Method::from_bytes(intended.as_bytes()).ok()?;
        // The signature in the URL is that of the request to come.
        let to_come = RequestHead { method: &method, ..*head };
        let (identity, _) = self.authenticate(&to_come).ok()?;
        Some(identity).filter(|identity| identity.secret().is_some())
    }

    /// In whose name a preflight goes to the store: nobody's, unless the URL is one of a key with an account of its own.
    /// Some stores keep each account's buckets apart, and know of none of that name for nobody.
    pub(crate) fn preflight_account(&self, signer: Option<&Identity>) -> Arc<Account> {
        let named =
            signer.filter(|identity| matches!(identity.upstream_account(), UpstreamAccount::Named(_)));
        let account = named.and_then(|identity| self.account_of(identity).ok());
        account.unwrap_or_else(|| Arc::new(Account::Anonymous))
    }

    /// Refuses the preflight of a page whose request, should it come without a signature, would be served and must not be
    /// answered to this page. A browser keeps a yes by URL: one that carries a signature can't be used without. Where the
    /// request is going to have a signature in a header, the yes must hold for that one request: gives whether it is so.
    ///
    /// # Errors
    /// `AccessForbidden`, as where no rule of a bucket fits.
    pub(crate) fn check_page(
        &self,
        head: &RequestHead<'_>,
        page: Option<&CrossOrigin>,
    ) -> Result<bool, GatewayError> {
        let is_signed = matches!(Scheme::of(head), Ok(Scheme::SigV2 | Scheme::SigV4));
        let (Some(page), false) = (page, is_signed) else { return Ok(false) };
        let nobody = self.credentials.anonymous();
        let is_listed = nobody.is_none_or(|identity| identity.may_answer(page));
        match is_listed || page.is_going_to_sign() {
            true => Ok(!is_listed),
            false => Err(S3Error::new(ErrorCode::AccessForbidden).into()),
        }
    }

    /// All accounts at the store that this gateway has keys of.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        std::iter::once(self.upstream.account()).chain(self.accounts.values())
    }
}
