//! Version ids on their way to the provider. A store without versions ignores them: a read would find another object
//! than was asked for, a DELETE would delete the only copy. So none goes to such a store, but `null`, which is all that
//! it has; and a store of unknown kind is asked before it deletes one.

use claviger_s3::{ErrorCode, S3Error, VersionId};
use http::header::HeaderMap;
use http::{HeaderName, Method};

use super::object::{StoredHead, Which};
use super::passed::VERSION_ID;
use super::transport::{StoreRequest, Upstream};
use crate::config::UpstreamProfile;
use crate::error::GatewayError;

const COPIED_VERSION: HeaderName = HeaderName::from_static("x-amz-copy-source-version-id");

impl Upstream {
    /// Whether a version id other than `null` means something to the store.
    pub(crate) fn has_versions(&self) -> bool {
        self.profile().features.versioning
    }

    /// Refuses a request that names a version to a store without versions.
    ///
    /// # Errors
    /// `NotImplemented` for a DELETE; `NoSuchVersion` for all else.
    pub(super) fn refuse_version(&self, request: &StoreRequest<'_>) -> Result<(), GatewayError> {
        if self.has_versions() || !names_version(request) {
            return Ok(());
        }
        if request.method == Method::DELETE { Err(unknown()) } else { Err(no_such_version()) }
    }

    /// Takes out of an answer what a store without versions calls one: it would not know it again.
    pub(super) fn forget_version(&self, headers: &mut HeaderMap) {
        if self.has_versions() {
            return;
        }
        for name in [VERSION_ID, COPIED_VERSION] {
            if headers.get(&name).is_some_and(|value| value.as_bytes() != b"null") {
                headers.remove(&name);
            }
        }
    }

    /// Makes sure, before a version is deleted, that the store finds just this one under its id. Of a kind of store that
    /// is in the table it is known whether it has versions; any other is asked with a HEAD.
    ///
    /// # Errors
    /// `NoSuchVersion` when there is none, `NotImplemented` when the store shows another object or names no version, the
    /// provider's.
    pub(crate) async fn make_sure_of_version(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&VersionId>,
    ) -> Result<(), GatewayError> {
        let Some(asked) = version.filter(|version| !version.is_null()) else { return Ok(()) };
        if !self.has_versions() {
            return Err(unknown());
        }
        if self.profile().kind != UpstreamProfile::Generic {
            return Ok(());
        }
        let request =
            Which { same_as: None, version }.apply(StoreRequest::new(Method::HEAD, bucket, Some(key)))?;
        let is_asked = |value: &http::HeaderValue| value.as_bytes() == asked.as_str().as_bytes();
        match self.send(request).await {
            Ok(answer) if answer.headers().get(VERSION_ID).is_some_and(is_asked) => Ok(()),
            Ok(_) => Err(unknown()),
            // A delete marker can't be read; its own id is said all the same.
            Err(GatewayError::Upstream(error))
                if error.passed.iter().any(|(name, value)| *name == VERSION_ID && is_asked(value)) =>
            {
                Ok(())
            }
            Err(error) if error.is_upstream_not_found() => Err(no_such_version()),
            Err(error) => Err(error),
        }
    }
}

impl StoredHead {
    /// Takes it for an answer to the question for version `asked`; for the newest if there is none.
    ///
    /// # Errors
    /// When it is about another version, or may be.
    pub(crate) fn check_version(&self, asked: Option<&VersionId>) -> Result<(), GatewayError> {
        match (asked, self.passed.version()) {
            (Some(asked), Some(answered)) if *asked != answered => {
                Err(GatewayError::UpstreamAnswer("another version than was asked for"))
            }
            // A store that ignores the id shows whatever is the newest.
            (Some(asked), None) if !asked.is_null() => {
                Err(GatewayError::UpstreamAnswer("no version to a question for one"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a request is about a version that has an id.
fn names_version(request: &StoreRequest<'_>) -> bool {
    let in_query = request.query.iter().any(|(name, value)| *name == "versionId" && value != "null");
    // Bucket and key are encoded there, so that the mark is no part of them.
    let source = request.headers.get("x-amz-copy-source").and_then(|value| value.to_str().ok());
    let copied = source.and_then(|source| source.split_once("?versionId="));
    in_query || copied.is_some_and(|(_, version)| version != "null")
}

fn no_such_version() -> GatewayError {
    S3Error::new(ErrorCode::NoSuchVersion).into()
}

fn unknown() -> GatewayError {
    S3Error::not_implemented("The object store behind this gateway does not know versions by their ids.")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::double::{self, Double};
    use crate::upstream::object::{CopyFrom, Deletion, StoreAs, Wanted};

    /// A store that does whatever it is asked to and looks at no version id.
    async fn ignorant(profile: &str) -> Double {
        double::store(profile, |request| match double::method(request) {
            "DELETE" => double::answer(204, &[], ""),
            _ => double::object(&[("x-amz-version-id", "its-own")]),
        })
        .await
    }

    fn code(error: &GatewayError) -> ErrorCode {
        error.to_s3("/b/k").code()
    }

    fn deletion(version: &VersionId) -> Deletion<'_> {
        Deletion { version: Some(version), ..Deletion::default() }
    }

    #[tokio::test]
    async fn a_version_id_never_goes_to_a_store_without_versions() {
        let version = VersionId::parse("v1").unwrap();
        let which = Which { same_as: None, version: Some(&version) };
        let etag = claviger_s3::ETag::parse("\"abc\"").unwrap();
        for profile in ["garage", "gcs", "r2", "embedded"] {
            let store = ignorant(profile).await;
            let error = store.upstream.delete_object("b", "k", deletion(&version)).await.unwrap_err();
            assert_eq!(code(&error), ErrorCode::NotImplemented, "{profile}");
            let error = store.upstream.head_object("b", "k", which).await.unwrap_err();
            assert_eq!(code(&error), ErrorCode::NoSuchVersion, "{profile}");
            let error = store.upstream.get_object("b", "k", Wanted::Whole, which).await.err().unwrap();
            assert_eq!(code(&error), ErrorCode::NoSuchVersion, "{profile}");
            let from = CopyFrom { bucket: "b", key: "k", etag: &etag, version: Some(&version) };
            let error = store.upstream.copy_object(from, ("b", "l"), StoreAs::default()).await.err().unwrap();
            assert_eq!(code(&error), ErrorCode::NoSuchVersion, "{profile}");
            assert!(store.asked().is_empty(), "{profile}: {:?}", store.asked());
        }
    }

    #[tokio::test]
    async fn the_null_version_is_what_a_store_without_versions_has() {
        let null = VersionId::parse("null").unwrap();
        let store = ignorant("garage").await;
        store.upstream.delete_object("b", "k", deletion(&null)).await.unwrap();
        assert_eq!(store.lines(), ["DELETE /b/k?versionId=null"]);
    }

    #[tokio::test]
    async fn what_a_store_without_versions_calls_one_is_not_said_and_not_used() {
        let store = ignorant("garage").await;
        let head = store.upstream.head_object("b", "k", Which::default()).await.unwrap();
        assert!(head.passed.version().is_none());
        let store = ignorant("aws").await;
        let head = store.upstream.head_object("b", "k", Which::default()).await.unwrap();
        assert_eq!(head.passed.version().unwrap().as_str(), "its-own");
    }

    #[tokio::test]
    async fn a_store_of_unknown_kind_that_ignores_the_version_is_not_asked_to_delete_it() {
        let version = VersionId::parse("v1").unwrap();
        let unnamed = double::object(&[]);
        let other = double::object(&[("x-amz-version-id", "v2")]);
        let none = double::answer(404, &[], "");
        for (answer, expected) in [
            (unnamed, ErrorCode::NotImplemented),
            (other, ErrorCode::NotImplemented),
            (none, ErrorCode::NoSuchVersion),
        ] {
            let store = double::store("generic", move |_| answer.clone()).await;
            let error = store.upstream.delete_object("b", "k", deletion(&version)).await.unwrap_err();
            assert_eq!(code(&error), expected);
            assert_eq!(store.lines(), ["HEAD /b/k?versionId=v1"]);
        }
    }

    #[tokio::test]
    async fn a_store_of_unknown_kind_deletes_the_version_or_marker_that_it_has_shown() {
        let version = VersionId::parse("v1").unwrap();
        let shown = double::object(&[("x-amz-version-id", "v1")]);
        let marker = double::answer(405, &[("x-amz-version-id", "v1"), ("x-amz-delete-marker", "true")], "");
        for answer in [shown, marker] {
            let store = double::store("generic", move |request| match double::method(request) {
                "DELETE" => double::answer(204, &[("x-amz-version-id", "v1")], ""),
                _ => answer.clone(),
            })
            .await;
            store.upstream.delete_object("b", "k", deletion(&version)).await.unwrap();
            assert_eq!(store.lines(), ["HEAD /b/k?versionId=v1", "DELETE /b/k?versionId=v1"]);
        }
    }
}
