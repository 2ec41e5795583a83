//! Configuration documents: what a client gives the store to keep in clear, and what the store gives back. They are
//! checked for being what they claim to be, and passed on as they were written.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::reader::{Document, Limits, XmlError};
use crate::error::{ErrorCode, S3Error};

/// Most elements of a configuration document: 1,000 lifecycle rules with all that they may hold.
const ELEMENTS_MAX: usize = 50_000;

/// The form of a configuration document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentForm {
    /// XML with one of these roots. The first is S3's; further ones are what some stores write instead.
    Xml(&'static [&'static str]),
    /// A JSON object.
    Json,
}

impl DocumentForm {
    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Xml(_) => super::CONTENT_TYPE,
            Self::Json => "application/json",
        }
    }

    fn check(self, body: &[u8], len_max: usize) -> Result<(), XmlError> {
        if body.len() > len_max {
            return Err(XmlError::TooLarge);
        }
        match self {
            Self::Xml(roots) => {
                let document =
                    Document::parse_to_pass_on(body, Limits { len_max, elements_max: ELEMENTS_MAX })?;
                let root = document.root();
                let is_expected = roots.contains(&root.name());
                if is_expected { Ok(()) } else { Err(XmlError::UnexpectedRoot(roots.first().unwrap_or(&""))) }
            }
            Self::Json => {
                let object = serde_json::from_slice::<Map<String, Value>>(body);
                object.map(drop).map_err(|_| XmlError::Malformed)
            }
        }
    }
}

/// A document that was checked: of its form, with the right root, without a DTD or processing instructions, within its limits.
/// Its bytes are as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationDocument(Bytes);

impl ConfigurationDocument {
    /// Checks a document of a client, of at most `len_max` bytes; `malformed` is the code of one that is none.
    pub fn of_client(
        body: Bytes,
        form: DocumentForm,
        len_max: usize,
        malformed: ErrorCode,
    ) -> Result<Self, S3Error> {
        match form.check(&body, len_max) {
            Ok(()) => Ok(Self(body)),
            Err(_) => Err(malformed.into()),
        }
    }

    /// Checks a document of the store, of at most `len_max` bytes. [`XmlError::UnexpectedRoot`] is what stores give that
    /// don't know a sub-resource and answer as if it had not been asked for.
    pub fn of_store(body: Bytes, form: DocumentForm, len_max: usize) -> Result<Self, XmlError> {
        form.check(&body, len_max)?;
        Ok(Self(body))
    }

    /// The document as it was written.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACL: DocumentForm = DocumentForm::Xml(&["AccessControlPolicy"]);

    fn check(body: &'static str, form: DocumentForm) -> Result<(), XmlError> {
        ConfigurationDocument::of_store(Bytes::from_static(body.as_bytes()), form, 100).map(drop)
    }

    #[test]
    fn a_document_passes_as_it_was_written() {
        let body =
            "<!-- c -->\n<s3:AccessControlPolicy xmlns:s3=\"x\"> <a>&lt;</a>\n</s3:AccessControlPolicy>\n";
        let document =
            ConfigurationDocument::of_client(body.into(), ACL, 100, ErrorCode::MalformedACLError).unwrap();
        assert_eq!(document.into_bytes(), body);
    }

    #[test]
    fn another_root_a_dtd_or_too_much_is_refused() {
        assert_eq!(check("<ListBucketResult/>", ACL), Err(XmlError::UnexpectedRoot("AccessControlPolicy")));
        assert_eq!(check("<!DOCTYPE a><AccessControlPolicy/>", ACL), Err(XmlError::Malformed));
        assert_eq!(check("", ACL), Err(XmlError::Malformed));
        assert_eq!(check("{}", ACL), Err(XmlError::Malformed));
        let long = format!("<AccessControlPolicy>{}</AccessControlPolicy>", "x".repeat(100));
        assert_eq!(ConfigurationDocument::of_store(long.into(), ACL, 100), Err(XmlError::TooLarge));
    }

    #[test]
    fn processing_instructions_are_refused_and_a_declaration_is_none() {
        let declared = "<?xml version=\"1.0\"?><AccessControlPolicy/>";
        assert_eq!(check(declared, ACL), Ok(()));
        for bad in [
            "<?xml-stylesheet type=\"text/xsl\" href=\"x\"?><AccessControlPolicy/>",
            "<?xml version=\"1.0\"?><?a?><AccessControlPolicy/>",
            "<AccessControlPolicy><?XML a?></AccessControlPolicy>",
            "<AccessControlPolicy/><?a b?>",
        ] {
            assert_eq!(check(bad, ACL), Err(XmlError::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_policy_is_a_json_object_and_nothing_behind_it() {
        assert_eq!(check(" {\"Version\": \"2012-10-17\"}\n", DocumentForm::Json), Ok(()));
        for bad in ["", "[]", "\"x\"", "{", "{}{}", "{a:1}", "<x/>"] {
            assert_eq!(check(bad, DocumentForm::Json), Err(XmlError::Malformed), "{bad}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let deep = ConfigurationDocument::of_client(
            deep.into(),
            DocumentForm::Json,
            1 << 20,
            ErrorCode::MalformedPolicy,
        );
        assert_eq!(deep.unwrap_err().code(), ErrorCode::MalformedPolicy);
    }
}
