//! Calls on what the provider keeps beside an object in clear: tags, retention, legal hold; and on the lock settings of
//! buckets.

use bytes::Bytes;
use claviger_s3::lock::{LegalHold, LockConfiguration, Retention};
use claviger_s3::tagging::TagSet;
use claviger_s3::xml::{self, XmlError};
use claviger_s3::{ErrorCode, S3Error, VersionId};
use http::Method;

use super::object::{BYPASS_NAME, control};
use super::passed::Passed;
use super::transport::{StoreRequest, Upstream};
use crate::config::UpstreamProfile;
use crate::error::GatewayError;

/// One version of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// The version; the newest if there is none.
    pub version: Option<&'a VersionId>,
}

/// A sub-resource of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    Tagging,
    Retention,
    LegalHold,
}

impl Setting {
    const fn query(self) -> &'static str {
        match self {
            Self::Tagging => "tagging",
            Self::Retention => "retention",
            Self::LegalHold => "legal-hold",
        }
    }

    /// The operations by which it is read and written.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Tagging => ("GetObjectTagging", "PutObjectTagging"),
            Self::Retention => ("GetObjectRetention", "PutObjectRetention"),
            Self::LegalHold => ("GetObjectLegalHold", "PutObjectLegalHold"),
        }
    }

    const fn root(self) -> &'static str {
        match self {
            Self::Tagging => "<Tagging",
            Self::Retention => "<Retention",
            Self::LegalHold => "<LegalHold",
        }
    }
}

impl<'a> At<'a> {
    fn request(self, method: Method, setting: Setting, name: &'static str) -> StoreRequest<'a> {
        StoreRequest::new(method, self.bucket, Some(self.key))
            .named(name)
            .query(setting.query(), "")
            .maybe_query("versionId", self.version.map(VersionId::as_str))
    }
}

impl Upstream {
    /// The tags of an object.
    ///
    /// # Errors
    /// The provider's error; `NotImplemented` when it knows no tags.
    pub(crate) async fn tags(&self, at: At<'_>) -> Result<(TagSet, Passed), GatewayError> {
        let (document, passed) = self.read_setting(at, Setting::Tagging).await?;
        // Ceph RGW 16 answers nothing at all for an object that came in parts and has no tags.
        if document.is_empty() {
            return Ok((TagSet::default(), passed));
        }
        Ok((xml::parse_store_tagging(&document).map_err(|error| misread(Setting::Tagging, error))?, passed))
    }

    /// Whether the tags of a copy have to be set when it is made.
    pub(crate) fn wants_tags_after_copy(&self) -> bool {
        !self.profile().copy_takes_tags
    }

    /// Replaces the tags of an object.
    ///
    /// # Errors
    /// As [`Self::tags`].
    pub(crate) async fn set_tags(&self, at: At<'_>, tags: &TagSet) -> Result<Passed, GatewayError> {
        self.write_setting(at, Setting::Tagging, xml::write_tagging(tags), false).await
    }

    /// Removes the tags of an object.
    ///
    /// # Errors
    /// As [`Self::tags`].
    pub(crate) async fn remove_tags(&self, at: At<'_>) -> Result<Passed, GatewayError> {
        self.make_sure_of(at, Setting::Tagging).await?;
        let request = at.request(Method::DELETE, Setting::Tagging, "DeleteObjectTagging");
        Ok(Passed::of_answer(self.send(request).await?.headers()))
    }

    /// The retention of an object.
    ///
    /// # Errors
    /// The provider's error, also that there is none; `NotImplemented` when it knows no locks.
    pub(crate) async fn retention(&self, at: At<'_>) -> Result<Option<Retention>, GatewayError> {
        let (document, _) = self.read_setting(at, Setting::Retention).await?;
        xml::parse_retention(&document).map_err(|error| misread(Setting::Retention, error))
    }

    /// Sets or ends the retention of an object.
    ///
    /// # Errors
    /// As [`Self::retention`].
    pub(crate) async fn set_retention(
        &self,
        at: At<'_>,
        retention: Option<&Retention>,
        bypass_governance: bool,
    ) -> Result<Passed, GatewayError> {
        self.write_setting(at, Setting::Retention, xml::write_retention(retention), bypass_governance).await
    }

    /// Whether an object is on legal hold.
    ///
    /// # Errors
    /// As [`Self::retention`].
    pub(crate) async fn legal_hold(&self, at: At<'_>) -> Result<LegalHold, GatewayError> {
        let (document, _) = self.read_setting(at, Setting::LegalHold).await?;
        xml::parse_legal_hold(&document).map_err(|error| misread(Setting::LegalHold, error))
    }

    /// Puts an object on legal hold, or takes it off.
    ///
    /// # Errors
    /// As [`Self::retention`].
    pub(crate) async fn set_legal_hold(&self, at: At<'_>, hold: LegalHold) -> Result<Passed, GatewayError> {
        self.write_setting(at, Setting::LegalHold, xml::write_legal_hold(hold), false).await
    }

    /// How long new objects of a bucket are locked.
    ///
    /// # Errors
    /// The provider's error, also that there is no such configuration; `NotImplemented` when it knows no locks.
    pub(crate) async fn lock_configuration(&self, bucket: &str) -> Result<LockConfiguration, GatewayError> {
        let request = StoreRequest::new(Method::GET, bucket, None)
            .named("GetObjectLockConfiguration")
            .query("object-lock", "");
        let (_, answer) = self.document(request).await?;
        xml::parse_lock_configuration(&answer).map_err(|error| match error {
            XmlError::UnexpectedRoot(_) => unknown("GetObjectLockConfiguration"),
            _ => GatewayError::UpstreamAnswer("GetObjectLockConfiguration"),
        })
    }

    /// Sets how long new objects of a bucket are locked. It is asked first: a store that does not know the sub-resource
    /// may take the request for one on the bucket, which would succeed and lock nothing.
    ///
    /// # Errors
    /// As [`Self::lock_configuration`].
    pub(crate) async fn set_lock_configuration(
        &self,
        bucket: &str,
        configuration: &LockConfiguration,
    ) -> Result<(), GatewayError> {
        match self.lock_configuration(bucket).await {
            Ok(_) => {}
            Err(error) if error.upstream_code() == Some(ErrorCode::ObjectLockConfigurationNotFoundError) => {}
            Err(error) => return Err(error),
        }
        let request = StoreRequest::new(Method::PUT, bucket, None)
            .named("PutObjectLockConfiguration")
            .query("object-lock", "");
        self.send(control(request, xml::write_lock_configuration(configuration))?).await.map(drop)
    }

    async fn read_setting(&self, at: At<'_>, setting: Setting) -> Result<(Bytes, Passed), GatewayError> {
        self.refuse_unknown(setting)?;
        let (parts, document) = self.document(at.request(Method::GET, setting, setting.names().0)).await?;
        Ok((document, Passed::of_answer(&parts.headers)))
    }

    async fn write_setting(
        &self,
        at: At<'_>,
        setting: Setting,
        document: Bytes,
        bypass_governance: bool,
    ) -> Result<Passed, GatewayError> {
        self.make_sure_of(at, setting).await?;
        let mut request = control(at.request(Method::PUT, setting, setting.names().1), document)?;
        if bypass_governance {
            request = request.header(BYPASS_NAME, "true")?;
        }
        Ok(Passed::of_answer(self.send(request).await?.headers()))
    }

    /// Makes sure that the provider knows a sub-resource before it is changed. One that does not would take the request
    /// for one on the object: a PUT would put the document in the object's place, a DELETE would delete the object. Of
    /// a kind of store that is in the table it is known; any other is asked.
    async fn make_sure_of(&self, at: At<'_>, setting: Setting) -> Result<(), GatewayError> {
        self.refuse_unknown(setting)?;
        if self.profile().kind != UpstreamProfile::Generic {
            return Ok(());
        }
        match self.read_setting(at, setting).await {
            Ok((document, _)) if begins_with(&document, setting.root()) => Ok(()),
            Ok(_) => Err(unknown(setting.names().1)),
            // There is none yet; or the bucket has no locks, as the store will say once more.
            Err(error)
                if matches!(
                    error.upstream_code(),
                    Some(
                        ErrorCode::NoSuchTagSet
                            | ErrorCode::NoSuchObjectLockConfiguration
                            | ErrorCode::ObjectLockConfigurationNotFoundError
                            | ErrorCode::InvalidRequest
                    )
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn refuse_unknown(&self, setting: Setting) -> Result<(), GatewayError> {
        let features = &self.profile().features;
        let has = if setting == Setting::Tagging { features.tagging } else { features.object_lock };
        if has { Ok(()) } else { Err(unknown(setting.names().1)) }
    }
}

/// Whether an XML document has this root: a store that does not know the sub-resource answers with the object itself.
fn begins_with(document: &[u8], root: &str) -> bool {
    let text = std::str::from_utf8(document).unwrap_or_default().trim_start();
    let body =
        text.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")).map_or(text, |(_, body)| body);
    body.trim_start().starts_with(root)
}

fn misread(setting: Setting, error: XmlError) -> GatewayError {
    match error {
        XmlError::UnexpectedRoot(_) | XmlError::Malformed => unknown(setting.names().0),
        _ => GatewayError::UpstreamAnswer("a setting of an object that is none"),
    }
}

fn unknown(name: &str) -> GatewayError {
    S3Error::not_implemented(format!("{name} is not implemented by the object store behind this gateway."))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_not_taken_for_its_tags() {
        assert!(begins_with(
            b"<?xml version=\"1.0\"?>\n<Tagging xmlns=\"x\"><TagSet/></Tagging>",
            "<Tagging"
        ));
        assert!(begins_with(b"<Retention/>", "<Retention"));
        for body in [&b"CLVG\x01\x00"[..], b"", b"<html><Tagging>", b"\xff<Tagging>"] {
            assert!(!begins_with(body, "<Tagging"), "{body:?}");
        }
    }
}
