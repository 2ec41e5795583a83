//! Calls on sub-resources that hold configuration documents. They leave as the client wrote them: declared leakage.

use bytes::Bytes;
use claviger_s3::error::S3Error;
use claviger_s3::operation::{Configuration, Selector, Verb};
use claviger_s3::xml::{ConfigurationDocument, XmlError};
use http::StatusCode;

use super::body::UpstreamBody;
use super::object::content_md5;
use super::transport::{StoreRequest, Upstream};
use crate::error::GatewayError;

/// Longest document that a store is believed to keep, in bytes: a listing of 1,000 configurations.
const ANSWER_LEN_MAX: usize = 8 << 20;

/// A sub-resource at the provider.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreConfiguration<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key, for an object's.
    pub key: Option<&'a str>,
    /// Which of its sub-resources, and what the request says of it.
    pub asked: &'a Configuration,
}

impl<'a> StoreConfiguration<'a> {
    fn request(self, verb: Verb) -> StoreRequest<'a> {
        let asked = self.asked;
        let is_named = |name: &str| asked.parameters.iter().any(|(other, _)| *other == name);
        let selectors = asked.subresource.selectors.iter().filter_map(|selector| match selector {
            Selector::Query(name) if !is_named(name) => Some(*name),
            _ => None,
        });
        let mut request = StoreRequest::new(verb.method(), self.bucket, self.key).named(asked.kind.as_str());
        for name in selectors {
            request = request.query(name, "");
        }
        for (name, value) in &asked.parameters {
            request = request.query(name, value);
        }
        request.maybe_query("versionId", asked.version.as_ref().map(|version| version.as_str()))
    }
}

impl Upstream {
    /// Reads the document.
    ///
    /// # Errors
    /// The provider's error, also that there is none; `NotImplemented` when it answered something else, as stores do
    /// that don't know the sub-resource.
    pub(crate) async fn get_configuration(&self, at: StoreConfiguration<'_>) -> Result<Bytes, GatewayError> {
        let (_, answer) = self.document(at.request(Verb::Get)).await?;
        match ConfigurationDocument::of_store(answer, at.asked.subresource.form, ANSWER_LEN_MAX) {
            Ok(document) => Ok(document.into_bytes()),
            Err(XmlError::UnexpectedRoot(_)) => Err(unknown(at.asked)),
            Err(_) => Err(GatewayError::UpstreamAnswer("a configuration document that is none")),
        }
    }

    /// Writes the document, or the ACL in headers.
    ///
    /// # Errors
    /// The provider's error; `NotImplemented` when it does not know the sub-resource.
    pub(crate) async fn put_configuration(
        &self,
        at: StoreConfiguration<'_>,
        document: Option<ConfigurationDocument>,
    ) -> Result<StatusCode, GatewayError> {
        self.ask_first(at).await?;
        let mut request = at.request(Verb::Put);
        for (name, value) in at.asked.acl.iter().chain(at.asked.choice) {
            request = request.header(name, value)?;
        }
        if let Some(document) = document {
            let content_type = at.asked.subresource.form.content_type();
            let body = UpstreamBody::configuration(document);
            let digest = content_md5(body.in_memory().unwrap_or_default());
            request =
                request.header("content-type", content_type)?.header("content-md5", &digest)?.body(body);
        }
        Ok(self.send(request).await?.status())
    }

    /// Removes the document.
    ///
    /// # Errors
    /// The provider's error; `NotImplemented` when it does not know the sub-resource.
    pub(crate) async fn delete_configuration(
        &self,
        at: StoreConfiguration<'_>,
    ) -> Result<StatusCode, GatewayError> {
        self.ask_first(at).await?;
        Ok(self.send(at.request(Verb::Delete)).await?.status())
    }

    /// Makes sure that the provider knows a sub-resource before it is changed. Some take a request on one that they don't
    /// know for one on the bucket: a PUT would succeed and do nothing, a DELETE would remove the bucket.
    async fn ask_first(&self, at: StoreConfiguration<'_>) -> Result<(), GatewayError> {
        if !at.asked.subresource.is_asked_first {
            return Ok(());
        }
        match self.get_configuration(at).await {
            Ok(_) => Ok(()),
            Err(error)
                if error.upstream_code().is_some_and(|code| Some(code) == at.asked.subresource.absent) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn unknown(asked: &Configuration) -> GatewayError {
    let name = asked.kind.as_str();
    let text = format!("{name} is not implemented by the object store behind this gateway.");
    S3Error::not_implemented(text).into()
}

#[cfg(test)]
mod tests;
