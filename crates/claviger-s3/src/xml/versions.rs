//! ListObjectVersions.

use bytes::Bytes;

use super::list::{Owner, encoding, read_common_prefixes};
use super::reader::{Element, Limits, XmlError};
use super::writer::XmlWriter;
use crate::operation::EncodingType;
use crate::version::VersionId;

/// One version of a listing, in the order of the document: keys ascend, versions of a key go back in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionEntry {
    /// `Key`, decoded.
    pub key: String,
    /// `VersionId`
    pub version: VersionId,
    /// `IsLatest`: what a GET without a version id finds.
    pub is_latest: bool,
    /// `LastModified`, ms since the epoch.
    pub last_modified_ms: u64,
    /// `Owner`
    pub owner: Option<Owner>,
    /// What lies under this id.
    pub what: ListedVersion,
}

/// What lies under a version id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedVersion {
    /// `Version`: an object.
    Object {
        /// `ETag` without quotes.
        etag: String,
        /// `Size` in bytes.
        size: u64,
        /// `StorageClass`
        storage_class: Option<String>,
    },
    /// `DeleteMarker`: the object was deleted at this time.
    DeleteMarker,
}

/// `ListVersionsResult`. All names are decoded here and encoded on the wire when `encoding_type` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListVersionsResult {
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
    pub entries: Vec<VersionEntry>,
    /// `CommonPrefixes`
    pub common_prefixes: Vec<String>,
}

impl VersionEntry {
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
            if let ListedVersion::Object { etag, size, storage_class } = &self.what {
                w.etag(etag);
                w.value("Size", size);
                w.optional("StorageClass", storage_class.as_deref());
            }
            if let Some(owner) = &self.owner {
                w.owner("Owner", owner);
            }
        });
    }

    fn read(element: &Element<'_>, encoded: bool) -> Result<Option<Self>, XmlError> {
        let what = match element.name() {
            "Version" => ListedVersion::Object {
                etag: element.etag()?,
                size: element.number("Size")?.ok_or(XmlError::Missing("Size"))?,
                storage_class: element.non_empty("StorageClass")?,
            },
            "DeleteMarker" => ListedVersion::DeleteMarker,
            _ => return Ok(None),
        };
        let version = element.required("VersionId")?;
        Ok(Some(Self {
            key: element.name_of("Key", encoded)?.ok_or(XmlError::Missing("Key"))?,
            version: VersionId::parse(version).map_err(|_| XmlError::Invalid("VersionId"))?,
            is_latest: element.boolean("IsLatest")?,
            last_modified_ms: element.time("LastModified")?,
            owner: Owner::read(element, "Owner")?,
            what,
        }))
    }
}

impl ListVersionsResult {
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
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> {
        let root = Element::parse(body, "ListVersionsResult", Limits::UPSTREAM)?;
        let encoded = root.is_url_encoded()?;
        let entries = root.children().iter().map(|child| VersionEntry::read(child, encoded));
        let entries: Result<Vec<_>, _> = entries.filter_map(Result::transpose).collect();
        Ok(Self {
            name: root.string("Name")?,
            prefix: root.echo_of("Prefix", encoded)?.unwrap_or_default(),
            key_marker: root.echo_of("KeyMarker", encoded)?.unwrap_or_default(),
            version_id_marker: root.string("VersionIdMarker")?,
            next_key_marker: root.echo_of("NextKeyMarker", encoded)?.filter(|marker| !marker.is_empty()),
            next_version_id_marker: root.non_empty("NextVersionIdMarker")?,
            delimiter: root.echo_of("Delimiter", encoded)?.filter(|delimiter| !delimiter.is_empty()),
            max_keys: root.number("MaxKeys")?.unwrap_or(1000),
            encoding_type: encoding(encoded),
            is_truncated: root.boolean("IsTruncated")?,
            entries: entries?,
            common_prefixes: read_common_prefixes(&root, encoded)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(key: &str, version: &str, what: ListedVersion) -> VersionEntry {
        VersionEntry {
            key: key.to_owned(),
            version: VersionId::parse(version).unwrap(),
            is_latest: true,
            last_modified_ms: 1_750_000_000_123,
            owner: Some(Owner { id: "me".to_owned(), display_name: None }),
            what,
        }
    }

    fn object(size: u64) -> ListedVersion {
        ListedVersion::Object { etag: "abc-0".to_owned(), size, storage_class: Some("STANDARD".to_owned()) }
    }

    fn page(key: &str, encoding_type: Option<EncodingType>) -> ListVersionsResult {
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
            common_prefixes: vec![key.to_owned()],
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
                prop_assert_eq!(ListVersionsResult::parse(&page.to_xml()).unwrap(), page);
            }
        }
    }
}
