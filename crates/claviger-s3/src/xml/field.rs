//! A child that its parent has at most once.

use std::borrow::Cow;

use super::element::Element;
use super::reader::XmlError;
use crate::checksum::{ChecksumAlgorithm, ChecksumType};
use crate::timestamp;

/// The only child of a name, there or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'d, 'a> {
    pub(super) name: &'static str,
    pub(super) element: Option<Element<'d, 'a>>,
}

impl<'a> Field<'_, 'a> {
    /// Its text.
    pub(super) fn text(&self) -> Option<Cow<'a, str>> {
        self.element.map(|element| element.text())
    }

    /// Its text; it has to be there.
    pub(super) fn required(&self) -> Result<Cow<'a, str>, XmlError> {
        self.text().ok_or(XmlError::Missing(self.name))
    }

    /// Its text; empty when it is not there.
    pub(super) fn string(&self) -> Cow<'a, str> {
        self.text().unwrap_or_default()
    }

    /// Its text; `None` when it is missing or empty.
    pub(super) fn non_empty(&self) -> Option<Cow<'a, str>> {
        self.text().filter(|text| !text.is_empty())
    }

    /// The number in it; `None` when it is missing or empty.
    pub(super) fn number<T: std::str::FromStr>(&self) -> Result<Option<T>, XmlError> {
        match self.text().as_deref().map(str::trim) {
            None | Some("") => Ok(None),
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map(Some).map_err(|_| XmlError::Invalid(self.name))
            }
            Some(_) => Err(XmlError::Invalid(self.name)),
        }
    }

    /// The number in it; it has to be there.
    pub(super) fn required_number<T: std::str::FromStr>(&self) -> Result<T, XmlError> {
        self.number()?.ok_or(XmlError::Missing(self.name))
    }

    /// The boolean in it; `false` when it is missing or empty.
    pub(super) fn boolean(&self) -> Result<bool, XmlError> {
        match self.text().as_deref().map(str::trim) {
            None | Some("" | "false" | "False" | "0") => Ok(false),
            Some("true" | "True" | "1") => Ok(true),
            Some(_) => Err(XmlError::Invalid(self.name)),
        }
    }

    /// The ISO 8601 time in it, which has to be there, in ms since the epoch.
    pub(super) fn time(&self) -> Result<u64, XmlError> {
        timestamp::parse_iso8601(&self.required()?).ok_or(XmlError::Invalid(self.name))
    }

    /// The entity tag in it, without quotes; empty when it is not there.
    pub(super) fn etag(&self) -> Cow<'a, str> {
        self.element.map(|element| element.as_etag()).unwrap_or_default()
    }

    /// The algorithm that it names; `None` for one that we don't know.
    pub(super) fn checksum_algorithm(&self) -> Option<ChecksumAlgorithm> {
        self.text().and_then(|name| ChecksumAlgorithm::from_name(&name))
    }

    /// The checksum type that it names; `None` for one that we don't know.
    pub(super) fn checksum_type(&self) -> Option<ChecksumType> {
        self.text().and_then(|name| ChecksumType::from_name(&name))
    }

    /// A name from a listing, decoded if the document says `EncodingType` url.
    pub(super) fn listed_name(&self, encoded: bool) -> Result<Option<Cow<'a, str>>, XmlError> {
        let name = |element: Element<'_, 'a>| element.as_name(encoded).ok_or(XmlError::Invalid(self.name));
        self.element.map(name).transpose()
    }

    /// The name in it, as by [`Self::listed_name`]; it has to be there.
    pub(super) fn required_name(&self, encoded: bool) -> Result<Cow<'a, str>, XmlError> {
        self.listed_name(encoded)?.ok_or(XmlError::Missing(self.name))
    }

    /// The text of a field that repeats what was asked for. Stores differ in whether they encode it, so one that can't be
    /// decoded is taken as missing; the caller knows what it asked for.
    pub(super) fn echo(&self, encoded: bool) -> Option<String> {
        self.element.and_then(|element| element.as_name(encoded)).map(Cow::into_owned)
    }

    /// [`Self::echo`]; `None` also when it is empty.
    pub(super) fn non_empty_echo(&self, encoded: bool) -> Option<String> {
        self.echo(encoded).filter(|text| !text.is_empty())
    }

    /// Whether this `EncodingType` says that names in the listing are percent-encoded.
    pub(super) fn is_url_encoding(&self) -> Result<bool, XmlError> {
        match self.text().as_deref() {
            None | Some("") => Ok(false),
            Some("url") => Ok(true),
            Some(_) => Err(XmlError::Invalid(self.name)),
        }
    }
}
