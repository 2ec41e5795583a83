//! What goes to the provider with each request of one call, so that it can judge the call as it would without a gateway
//! in between.

use claviger_s3::operation::{Accompanying, Operation};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{HeaderName as Name, Method};

use crate::credentials::Identity;
use crate::error::GatewayError;

const EXPECTED_OWNER: HeaderName = Name::from_static("x-amz-expected-bucket-owner");
const SOURCE_EXPECTED_OWNER: HeaderName = Name::from_static("x-amz-source-expected-bucket-owner");
const COPY_SOURCE: HeaderName = Name::from_static("x-amz-copy-source");
const PAYER: HeaderName = Name::from_static("x-amz-request-payer");

/// What a client's request says besides its operation, and which buckets it is about.
#[derive(Debug)]
pub(crate) struct Along {
    method: Method,
    bucket: Option<String>,
    source_bucket: Option<String>,
    said: Accompanying,
}

impl Along {
    /// Of a request that was classified.
    pub(crate) fn of(method: &Method, operation: &Operation, said: Accompanying) -> Self {
        Self {
            method: method.clone(),
            bucket: operation.bucket().map(|bucket| bucket.as_str().to_owned()),
            source_bucket: operation.copy_source().map(|source| source.bucket.as_str().to_owned()),
            said,
        }
    }

    /// As far as `identity` may hear of it: to a page of an origin that may not, nothing is said, and nothing of it.
    pub(crate) fn told_to(mut self, identity: &Identity) -> Self {
        self.said.cross_origin = self.said.cross_origin.filter(|page| identity.may_answer(page));
        self
    }

    /// Adds what goes with a request of `method` on `bucket`. Only the buckets that the client named are told.
    ///
    /// # Errors
    /// When a value can't stand in a header, which its reader has excluded.
    pub(super) fn apply(
        &self,
        method: &Method,
        bucket: Option<&str>,
        headers: &mut HeaderMap,
    ) -> Result<(), GatewayError> {
        let is = |named: &Option<String>| bucket.is_some() && named.as_deref() == bucket;
        let (is_target, is_source) = (is(&self.bucket), is(&self.source_bucket));
        if !is_target && !is_source {
            return Ok(());
        }
        let copies = headers.contains_key(COPY_SOURCE);
        // A copy's source is read in requests of their own; of one bucket that is both, only reads are about the source.
        let reads_source = is_source && !copies && matches!(*method, Method::GET | Method::HEAD);
        let owner = if reads_source { &self.said.source_expected_owner } else { &self.said.expected_owner };
        let source_owner = self.said.source_expected_owner.as_ref().filter(|_| copies);
        for (name, value) in [(EXPECTED_OWNER, owner.as_ref()), (SOURCE_EXPECTED_OWNER, source_owner)] {
            if let Some(value) = value {
                let value = HeaderValue::from_str(value);
                headers
                    .insert(name, value.map_err(|_| GatewayError::Internal("an account id is no header"))?);
            }
        }
        if self.said.requester_pays {
            headers.insert(PAYER, HeaderValue::from_static("requester"));
        }
        if let Some(page) = self.said.cross_origin.as_ref().filter(|_| is_target) {
            page.apply(Some(&self.method).filter(|asked| *asked != method), headers);
        }
        Ok(())
    }

    /// What of an answer about `bucket` tells a browser what the page may do; `None` where it was not asked.
    pub(super) fn judgement(&self, bucket: Option<&str>, answer: &HeaderMap) -> Option<HeaderMap> {
        let page = self.said.cross_origin.as_ref()?;
        (bucket.is_some() && self.bucket.as_deref() == bucket).then(|| page.judgement(answer))
    }
}

#[cfg(test)]
mod tests {
    use claviger_s3::cors::{AllowedOrigins, CrossOrigin};
    use claviger_s3::{RequestHead, VirtualHosts, classify};

    use super::*;

    fn along(source: Option<&str>) -> Along {
        let mut headers = HeaderMap::new();
        if let Some(source) = source {
            headers.insert("x-amz-copy-source", HeaderValue::from_str(source).unwrap());
        }
        let uri = "/target/key".parse().unwrap();
        let operation = classify(&RequestHead::new(&Method::PUT, &uri, &headers), &VirtualHosts::default());
        headers.insert("origin", HeaderValue::from_static("https://a"));
        let said = Accompanying {
            cross_origin: CrossOrigin::read(&headers).unwrap(),
            expected_owner: Some("1".to_owned()),
            source_expected_owner: Some("2".to_owned()),
            requester_pays: true,
        };
        Along::of(&Method::PUT, &operation.unwrap(), said)
    }

    fn sent(along: &Along, method: Method, bucket: &str, copies: bool) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        if copies {
            headers.insert(COPY_SOURCE, HeaderValue::from_static("x"));
        }
        along.apply(&method, Some(bucket), &mut headers).unwrap();
        headers.remove(COPY_SOURCE);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let mut all: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        all.sort();
        all
    }

    fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
        wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_target_hears_of_the_page_and_its_owner() {
        let wanted = pairs(&[
            ("origin", "https://a"),
            ("x-amz-expected-bucket-owner", "1"),
            ("x-amz-request-payer", "requester"),
        ]);
        assert_eq!(sent(&along(None), Method::PUT, "target", false), wanted);
        let looked_at = sent(&along(None), Method::HEAD, "target", false);
        assert!(looked_at.contains(&("access-control-request-method".to_owned(), "PUT".to_owned())));
    }

    #[test]
    fn the_source_of_a_copy_hears_of_its_own_owner_and_of_no_page() {
        let wanted = pairs(&[("x-amz-expected-bucket-owner", "2"), ("x-amz-request-payer", "requester")]);
        assert_eq!(sent(&along(Some("source/k")), Method::HEAD, "source", false), wanted);
        let copy = sent(&along(Some("source/k")), Method::PUT, "target", true);
        assert!(
            copy.contains(&("x-amz-source-expected-bucket-owner".to_owned(), "2".to_owned())),
            "{copy:?}"
        );
        assert!(copy.contains(&("x-amz-expected-bucket-owner".to_owned(), "1".to_owned())), "{copy:?}");
    }

    #[test]
    fn without_a_signature_pages_of_origins_that_are_not_listed_are_neither_told_nor_answered() {
        let answer: HeaderMap =
            [(Name::from_static("access-control-allow-origin"), HeaderValue::from_static("*"))]
                .into_iter()
                .collect();
        for (listed, is_answered) in [("https://a", true), ("https://b", false)] {
            let nobody =
                Identity::anonymous(Vec::new(), AllowedOrigins::parse([listed]).unwrap(), Vec::new());
            let along = along(None).told_to(&nobody);
            let names: Vec<_> =
                sent(&along, Method::PUT, "target", false).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names.contains(&"origin".to_owned()), is_answered, "{listed}: {names:?}");
            assert_eq!(along.judgement(Some("target"), &answer).is_some(), is_answered, "{listed}");
        }
    }

    #[test]
    fn buckets_that_the_client_did_not_name_hear_nothing() {
        assert_eq!(sent(&along(None), Method::PUT, "system", false), []);
        assert!(along(None).judgement(Some("system"), &HeaderMap::new()).is_none());
    }
}
