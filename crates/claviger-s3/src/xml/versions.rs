//! ListObjectVersions.

use std::borrow::Cow;

use bytes::Bytes;

use super::element::Element;
use super::list::{Owner, encoding, is_listed, read_common_prefixes};
use super::reader::{Document, Limits, XmlError};
use super::writer::XmlWriter;
use crate::operation::EncodingType;
use crate::version::VersionId;

/// One version of a listing, in the order of the document: keys ascend, versions of a key go back in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionEntry<'a> {
    /// `Key`, decoded.
    pub key: Cow<'a, str>,
    /// `VersionId`
    pub version: VersionId,
    /// `IsLatest`: what a GET without a version id finds.
    pub is_latest: bool,
    /// `LastModified`, ms since the epoch.
    pub last_modified_ms: u64,
    /// `Owner`
    pub owner: Option<Owner<'a>>,
    /// What lies under this id.
    pub what: ListedVersion<'a>,
}

/// What lies under a version id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedVersion<'a> {
    /// `Version`: an object.
    Object {
        /// `ETag` without quotes.
        etag: Cow<'a, str>,
        /// What is written behind `etag` within its quotes; nothing in a listing that was read.
        etag_suffix: &'static str,
        /// `Size` in bytes.
        size: u64,
        /// `StorageClass`
        storage_class: Option<Cow<'a, str>>,
    },
    /// `DeleteMarker`: the object was deleted at this time.
    DeleteMarker,
}

/// `ListVersionsResult`. All names are decoded here and encoded on the wire when `encoding_type` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListVersionsResult<'a> {
    /// `Name` of the bucket.
    pub name: String,
    /// `Prefix`
    pub prefix: String,
    /// `KeyMarker`
    pub key_marker: String,
    /// `VersionIdMarker`
    pub version_id_marker: String,
    /// `NextKeyMarker`; there when the listing is truncated.
    pub next_key_marker: Option<String>,
    /// `NextVersionIdMarker`
    pub next_version_id_marker: Option<String>,
    /// `Delimiter`
    pub delimiter: Option<String>,
    /// `MaxKeys`
    pub max_keys: u32,
    /// `EncodingType`
    pub encoding_type: Option<EncodingType>,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Version` and `DeleteMarker`
    pub entries: Vec<VersionEntry<'a>>,
    /// `CommonPrefixes`
    pub common_prefixes: Vec<Cow<'a, str>>,
}

impl<'a> VersionEntry<'a> {
    fn write(&self, w: &mut XmlWriter) {
        let element = match &self.what {
            ListedVersion::Object { .. } => "Version",
            ListedVersion::DeleteMarker => "DeleteMarker",
        };
        w.group(element, |w| {
            w.name("Key", &self.key);
            w.text("VersionId", self.version.as_str());
            w.value("IsLatest", self.is_latest);
            w.time("LastModified", self.last_modified_ms);
            if let ListedVersion::Object { etag, etag_suffix, size, storage_class } = &self.what {
                w.tags("<ETag>&quot;");
                w.bare_text(etag);
                w.bare_text(etag_suffix);
                w.tags("&quot;</ETag><Size>");
                w.bare_number(*size);
                w.tags("</Size>");
                w.optional("StorageClass", storage_class.as_deref());
            }
            if let Some(owner) = &self.owner {
                w.owner("Owner", owner);
            }
        });
    }

    fn read(element: Element<'_, 'a>, encoded: bool) -> Result<Self, XmlError> {
        const NAMES: [&str; 8] =
            ["Key", "VersionId", "IsLatest", "LastModified", "ETag", "Size", "StorageClass", "Owner"];
        let [key, version, is_latest, last_modified, etag, size, storage_class, owner] =
            element.fields(&NAMES, |_| false)?;
        let what = if element.name() == "DeleteMarker" {
            ListedVersion::DeleteMarker
        } else {
            ListedVersion::Object {
                etag: etag.etag(),
                etag_suffix: "",
                size: size.required_number()?,
                storage_class: storage_class.non_empty(),
            }
        };
        Ok(Self {
            key: key.required_name(encoded)?,
            version: VersionId::parse(&version.required()?).map_err(|_| XmlError::Invalid("VersionId"))?,
            is_latest: is_latest.boolean()?,
            last_modified_ms: last_modified.time()?,
            owner: owner.owner()?,
            what,
        })
    }
}

impl<'a> ListVersionsResult<'a> {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("ListVersionsResult", self.encoding_type, |w| {
            w.text("Name", &self.name);
            w.name("Prefix", &self.prefix);
            w.name("KeyMarker", &self.key_marker);
            w.text("VersionIdMarker", &self.version_id_marker);
            w.optional_name("NextKeyMarker", self.next_key_marker.as_deref());
            w.optional("NextVersionIdMarker", self.next_version_id_marker.as_deref());
            w.value("MaxKeys", self.max_keys);
            w.optional_name("Delimiter", self.delimiter.as_deref());
            w.encoding_type();
            w.value("IsTruncated", self.is_truncated);
            self.entries.iter().for_each(|entry| entry.write(w));
            w.common_prefixes(&self.common_prefixes);
        })
    }

    /// Reads the store's answer; names are decoded if it says `EncodingType` url.
    pub fn parse(body: &'a [u8]) -> Result<Self, XmlError> {
        const NAMES: [&str; 10] = [
            "Name",
            "Prefix",
            "KeyMarker",
            "VersionIdMarker",
            "MaxKeys",
            "Delimiter",
            "EncodingType",
            "IsTruncated",
            "NextKeyMarker",
            "NextVersionIdMarker",
        ];
        let document = Document::parse(body, "ListVersionsResult", Limits::UPSTREAM)?;
        let root = document.root();
        let [
            name,
            prefix,
            key_marker,
            version_id_marker,
            max_keys,
            delimiter,
            encoding_type,
            is_truncated,
            next_key,
            next_version,
        ] = root.fields(&NAMES, is_listed)?;
        let encoded = encoding_type.is_url_encoding()?;
        let is_entry = |child: &Element<'_, '_>| matches!(child.name(), "Version" | "DeleteMarker");
        let entries = root.children().filter(is_entry).map(|entry| VersionEntry::read(entry, encoded));
        Ok(Self {
            name: name.string().into_owned(),
            prefix: prefix.echo(encoded).unwrap_or_default(),
            key_marker: key_marker.echo(encoded).unwrap_or_default(),
            version_id_marker: version_id_marker.string().into_owned(),
            next_key_marker: next_key.non_empty_echo(encoded),
            next_version_id_marker: next_version.non_empty().map(Cow::into_owned),
            delimiter: delimiter.non_empty_echo(encoded),
            max_keys: max_keys.number()?.unwrap_or(1000),
            encoding_type: encoding(encoded),
            is_truncated: is_truncated.boolean()?,
            entries: entries.collect::<Result<_, _>>()?,
            common_prefixes: read_common_prefixes(root, encoded)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry<'a>(key: &'a str, version: &str, what: ListedVersion<'a>) -> VersionEntry<'a> {
        VersionEntry {
            key: key.into(),
            version: VersionId::parse(version).unwrap(),
            is_latest: true,
            last_modified_ms: 1_750_000_000_123,
            owner: Some(Owner { id: "me".into(), display_name: None }),
            what,
        }
    }

    fn object(size: u64) -> ListedVersion<'static> {
        ListedVersion::Object {
            etag: "abc-0".into(),
            etag_suffix: "",
            size,
            storage_class: Some("STANDARD".into()),
        }
    }

    fn page(key: &str, encoding_type: Option<EncodingType>) -> ListVersionsResult<'_> {
        ListVersionsResult {
            name: "bkt".to_owned(),
            prefix: key.to_owned(),
            key_marker: key.to_owned(),
            version_id_marker: "v0".to_owned(),
            next_key_marker: Some(key.to_owned()),
            next_version_id_marker: Some("null".to_owned()),
            delimiter: Some(key.to_owned()),
            max_keys: 3,
            encoding_type,
            is_truncated: true,
            entries: vec![
                entry(key, "v1", ListedVersion::DeleteMarker),
                entry(key, "v2", object(u64::MAX)),
                entry(key, "null", ListedVersion::DeleteMarker),
            ],
            common_prefixes: vec![key.into()],
        }
    }

    #[test]
    fn versions_and_markers_keep_their_order() {
        for encoding_type in [None, Some(EncodingType::Url)] {
            let page = page("a b+c%&<\u{1}\r\n>\"ü//../", encoding_type);
            assert_eq!(ListVersionsResult::parse(&page.to_xml()).unwrap(), page);
        }
    }

    #[test]
    fn a_listing_by_ceph_is_read() {
        let body = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListVersionsResult \
            xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix></Prefix><KeyMarker></KeyMarker>\
            <VersionIdMarker></VersionIdMarker><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated><Version>\
            <Key>k</Key><VersionId>i8u.V-7</VersionId><IsLatest>true</IsLatest>\
            <LastModified>2026-11-21T19:44:15.000Z</LastModified><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;\
            </ETag><Size>344</Size><StorageClass>STANDARD</StorageClass><Owner><ID>u</ID><DisplayName>U</DisplayName>\
            </Owner><Type>Normal</Type></Version></ListVersionsResult>";
        let list = ListVersionsResult::parse(body).unwrap();
        assert_eq!(list.entries.len(), 1);
        assert_eq!(list.entries[0].version.as_str(), "i8u.V-7");
        assert_eq!((list.next_key_marker, list.next_version_id_marker), (None, None));
    }

    #[test]
    fn a_version_without_an_id_or_a_size_is_refused() {
        let good = String::from_utf8(page("k", None).to_xml().to_vec()).unwrap();
        let size = format!("<Size>{}</Size>", u64::MAX);
        for (from, to) in [
            (size.as_str(), ""),
            ("<VersionId>v1</VersionId>", ""),
            ("<VersionId>v1</VersionId>", "<VersionId></VersionId>"),
            ("<VersionId>v1</VersionId>", "<VersionId>a b</VersionId>"),
            ("<Key>k</Key>", ""),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(ListVersionsResult::parse(good.replace(from, to).as_bytes()).is_err(), "{from} -> {to}");
        }
    }

    proptest! {
        #[test]
        fn any_key_survives_a_listing_of_versions(key in "\\PC{1,40}|[\u{1}-\u{ffff}]{1,20}") {
            for encoding_type in [None, Some(EncodingType::Url)] {
                let page = page(&key, encoding_type);
                let document = page.to_xml();
                prop_assert_eq!(ListVersionsResult::parse(&document).unwrap(), page);
            }
        }
    }
}
