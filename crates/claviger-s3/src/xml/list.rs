//! Listings of buckets and objects.

use bytes::Bytes;

use super::is_xml_text;
use super::reader::{Element, Limits, XmlError};
use super::writer::XmlWriter;
use crate::checksum::{ChecksumAlgorithm, ChecksumType};
use crate::operation::EncodingType;
use crate::uri::encode_listing;

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// `ID`
    pub id: String,
    /// `DisplayName`
    pub display_name: Option<String>,
}

/// One bucket of [`ListBucketsResult`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketEntry {
    /// `Name`
    pub name: String,
    /// `CreationDate`, ms since the epoch.
    pub creation_ms: u64,
}

/// `ListAllMyBucketsResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListBucketsResult {
    /// `Owner`
    pub owner: Owner,
    /// `Buckets`
    pub buckets: Vec<BucketEntry>,
    /// `Prefix`
    pub prefix: Option<String>,
    /// `ContinuationToken`: where the next page begins.
    pub continuation_token: Option<String>,
}

/// One object of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectEntry {
    /// `Key`, decoded.
    pub key: String,
    /// `LastModified`, ms since the epoch.
    pub last_modified_ms: u64,
    /// `ETag` without quotes.
    pub etag: String,
    /// `Size` in bytes.
    pub size: u64,
    /// `StorageClass`
    pub storage_class: Option<String>,
    /// `Owner`
    pub owner: Option<Owner>,
    /// `ChecksumAlgorithm`
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
    /// `ChecksumType`
    pub checksum_type: Option<ChecksumType>,
}

/// `ListBucketResult` of ListObjects (version 1). All names are decoded here and encoded on the wire when
/// `encoding_type` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListObjectsResult {
    /// `Name` of the bucket.
    pub name: String,
    /// `Prefix`
    pub prefix: String,
    /// Whether `Prefix` stands in the document as it is, also where names are encoded: Ceph answers so, and botocore
    /// does not decode it.
    pub prefix_is_plain: bool,
    /// `Marker`
    pub marker: String,
    /// `NextMarker`: S3 sends it only for truncated listings with a delimiter.
    pub next_marker: Option<String>,
    /// `Delimiter`
    pub delimiter: Option<String>,
    /// `MaxKeys`
    pub max_keys: u32,
    /// `EncodingType`
    pub encoding_type: Option<EncodingType>,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Contents`
    pub contents: Vec<ObjectEntry>,
    /// `CommonPrefixes`
    pub common_prefixes: Vec<String>,
}

/// `ListBucketResult` of ListObjectsV2. All names are decoded here and encoded on the wire when `encoding_type` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListObjectsV2Result {
    /// `Name` of the bucket.
    pub name: String,
    /// `Prefix`
    pub prefix: String,
    /// `Delimiter`
    pub delimiter: Option<String>,
    /// `StartAfter`
    pub start_after: Option<String>,
    /// `ContinuationToken` of the request.
    pub continuation_token: Option<String>,
    /// `NextContinuationToken`
    pub next_continuation_token: Option<String>,
    /// `KeyCount`: objects and common prefixes together.
    pub key_count: u32,
    /// `MaxKeys`
    pub max_keys: u32,
    /// `EncodingType`
    pub encoding_type: Option<EncodingType>,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Contents`
    pub contents: Vec<ObjectEntry>,
    /// `CommonPrefixes`
    pub common_prefixes: Vec<String>,
}

impl Owner {
    pub(super) fn read(parent: &Element<'_>, name: &'static str) -> Result<Option<Self>, XmlError> {
        let Some(owner) = parent.child(name)? else { return Ok(None) };
        Ok(Some(Self { id: owner.string("ID")?, display_name: owner.non_empty("DisplayName")? }))
    }
}

impl ListBucketsResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("ListAllMyBucketsResult", None, |w| {
            w.owner("Owner", &self.owner);
            w.group("Buckets", |w| {
                for bucket in &self.buckets {
                    w.group("Bucket", |w| {
                        w.text("Name", &bucket.name);
                        w.time("CreationDate", bucket.creation_ms);
                    });
                }
            });
            w.optional("Prefix", self.prefix.as_deref());
            w.optional("ContinuationToken", self.continuation_token.as_deref());
        })
    }

    /// Reads the store's answer.
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> {
        let root = Element::parse(body, "ListAllMyBucketsResult", Limits::UPSTREAM)?;
        let mut buckets = Vec::new();
        if let Some(list) = root.child("Buckets")? {
            for bucket in list.all("Bucket") {
                let name = bucket.required("Name")?.to_owned();
                buckets.push(BucketEntry { name, creation_ms: bucket.time("CreationDate")? });
            }
        }
        Ok(Self {
            owner: Owner::read(&root, "Owner")?.unwrap_or_default(),
            buckets,
            prefix: root.non_empty("Prefix")?,
            continuation_token: root.non_empty("ContinuationToken")?,
        })
    }
}

impl ObjectEntry {
    fn write(&self, w: &mut XmlWriter) {
        w.group("Contents", |w| {
            w.name("Key", &self.key);
            w.time("LastModified", self.last_modified_ms);
            w.etag(&self.etag);
            w.optional("ChecksumAlgorithm", self.checksum_algorithm.map(ChecksumAlgorithm::as_str));
            w.optional("ChecksumType", self.checksum_type.map(ChecksumType::as_str));
            w.value("Size", self.size);
            if let Some(owner) = &self.owner {
                w.owner("Owner", owner);
            }
            w.optional("StorageClass", self.storage_class.as_deref());
        });
    }

    fn read(element: &Element<'_>, encoded: bool) -> Result<Self, XmlError> {
        Ok(Self {
            key: element.name_of("Key", encoded)?.ok_or(XmlError::Missing("Key"))?,
            last_modified_ms: element.time("LastModified")?,
            etag: element.etag()?,
            size: element.number("Size")?.ok_or(XmlError::Missing("Size"))?,
            storage_class: element.non_empty("StorageClass")?,
            owner: Owner::read(element, "Owner")?,
            checksum_algorithm: first_algorithm(element),
            checksum_type: element.text_of("ChecksumType")?.and_then(ChecksumType::from_name),
        })
    }
}

/// S3 may name several algorithms; the first that we know counts.
fn first_algorithm(element: &Element<'_>) -> Option<ChecksumAlgorithm> {
    element.all("ChecksumAlgorithm").find_map(|child| ChecksumAlgorithm::from_name(child.text()))
}

pub(super) fn read_common_prefixes(root: &Element<'_>, encoded: bool) -> Result<Vec<String>, XmlError> {
    let prefixes = root.all("CommonPrefixes").flat_map(|group| group.all("Prefix"));
    let decoded = prefixes.map(|prefix| prefix.own_name(encoded).ok_or(XmlError::Invalid("CommonPrefixes")));
    decoded.collect()
}

pub(super) fn encoding(encoded: bool) -> Option<EncodingType> {
    encoded.then_some(EncodingType::Url)
}

impl ListObjectsResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("ListBucketResult", self.encoding_type, |w| {
            w.text("Name", &self.name);
            if self.prefix_is_plain && is_xml_text(&self.prefix) {
                w.text("Prefix", &self.prefix);
            } else {
                w.name("Prefix", &self.prefix);
            }
            w.name("Marker", &self.marker);
            w.optional_name("NextMarker", self.next_marker.as_deref());
            w.value("MaxKeys", self.max_keys);
            w.optional_name("Delimiter", self.delimiter.as_deref());
            w.encoding_type();
            w.value("IsTruncated", self.is_truncated);
            self.contents.iter().for_each(|entry| entry.write(w));
            w.common_prefixes(&self.common_prefixes);
        })
    }

    /// Reads the store's answer; names are decoded if it says `EncodingType` url.
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> {
        let root = Element::parse(body, "ListBucketResult", Limits::UPSTREAM)?;
        let encoded = root.is_url_encoded()?;
        let contents: Result<Vec<_>, _> =
            root.all("Contents").map(|e| ObjectEntry::read(e, encoded)).collect();
        let prefix = root.echo_of("Prefix", encoded)?.unwrap_or_default();
        let written = root.text_of("Prefix")?.unwrap_or_default();
        Ok(Self {
            name: root.string("Name")?,
            // Only a name that encoding changes tells one from the other.
            prefix_is_plain: encoded && encode_listing(&prefix) != prefix && written == prefix,
            prefix,
            marker: root.echo_of("Marker", encoded)?.unwrap_or_default(),
            next_marker: root.echo_of("NextMarker", encoded)?.filter(|marker| !marker.is_empty()),
            delimiter: root.echo_of("Delimiter", encoded)?.filter(|delimiter| !delimiter.is_empty()),
            max_keys: root.number("MaxKeys")?.unwrap_or(1000),
            encoding_type: encoding(encoded),
            is_truncated: root.boolean("IsTruncated")?,
            contents: contents?,
            common_prefixes: read_common_prefixes(&root, encoded)?,
        })
    }
}

impl ListObjectsV2Result {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document("ListBucketResult", self.encoding_type, |w| {
            w.text("Name", &self.name);
            w.name("Prefix", &self.prefix);
            w.optional("ContinuationToken", self.continuation_token.as_deref());
            w.optional("NextContinuationToken", self.next_continuation_token.as_deref());
            w.optional_name("StartAfter", self.start_after.as_deref());
            w.value("KeyCount", self.key_count);
            w.value("MaxKeys", self.max_keys);
            w.optional_name("Delimiter", self.delimiter.as_deref());
            w.encoding_type();
            w.value("IsTruncated", self.is_truncated);
            self.contents.iter().for_each(|entry| entry.write(w));
            w.common_prefixes(&self.common_prefixes);
        })
    }

    /// Reads the store's answer; names are decoded if it says `EncodingType` url. A missing `KeyCount` is counted.
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> {
        let root = Element::parse(body, "ListBucketResult", Limits::UPSTREAM)?;
        let encoded = root.is_url_encoded()?;
        let contents: Result<Vec<_>, _> =
            root.all("Contents").map(|e| ObjectEntry::read(e, encoded)).collect();
        let contents = contents?;
        let common_prefixes = read_common_prefixes(&root, encoded)?;
        let counted = contents.len() + common_prefixes.len();
        Ok(Self {
            name: root.string("Name")?,
            prefix: root.echo_of("Prefix", encoded)?.unwrap_or_default(),
            delimiter: root.echo_of("Delimiter", encoded)?.filter(|delimiter| !delimiter.is_empty()),
            start_after: root.echo_of("StartAfter", encoded)?.filter(|key| !key.is_empty()),
            continuation_token: root.non_empty("ContinuationToken")?,
            next_continuation_token: root.non_empty("NextContinuationToken")?,
            key_count: match root.number("KeyCount")? {
                Some(count) => count,
                None => u32::try_from(counted).map_err(|_| XmlError::TooLarge)?,
            },
            max_keys: root.number("MaxKeys")?.unwrap_or(1000),
            encoding_type: encoding(encoded),
            is_truncated: root.boolean("IsTruncated")?,
            contents,
            common_prefixes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOSTILE_KEY: &str = "a b+c%&<\u{1}\r\n>\"ü//../";

    fn entry(key: &str) -> ObjectEntry {
        ObjectEntry {
            key: key.to_owned(),
            last_modified_ms: 1_750_000_000_123,
            etag: "abc-0".to_owned(),
            size: u64::MAX,
            storage_class: Some("STANDARD".to_owned()),
            owner: Some(Owner { id: "me".to_owned(), display_name: None }),
            checksum_algorithm: Some(ChecksumAlgorithm::Crc64Nvme),
            checksum_type: Some(ChecksumType::FullObject),
        }
    }

    fn v2(key: &str, encoding_type: Option<EncodingType>) -> ListObjectsV2Result {
        ListObjectsV2Result {
            name: "bkt".to_owned(),
            prefix: key.to_owned(),
            delimiter: Some(key.to_owned()),
            start_after: Some(key.to_owned()),
            continuation_token: Some("t+1".to_owned()),
            next_continuation_token: Some("t+2".to_owned()),
            key_count: 2,
            max_keys: 2,
            encoding_type,
            is_truncated: true,
            contents: vec![entry(key)],
            common_prefixes: vec![key.to_owned()],
        }
    }

    #[test]
    fn a_listing_is_read_as_it_was_written() {
        for encoding_type in [None, Some(EncodingType::Url)] {
            let list = v2(HOSTILE_KEY, encoding_type);
            assert_eq!(ListObjectsV2Result::parse(&list.to_xml()).unwrap(), list);
        }
    }

    #[test]
    fn a_listing_of_version_1_is_read_as_it_was_written() {
        for encoding_type in [None, Some(EncodingType::Url)] {
            let list = ListObjectsResult {
                prefix_is_plain: false,
                name: "bkt".to_owned(),
                prefix: HOSTILE_KEY.to_owned(),
                marker: HOSTILE_KEY.to_owned(),
                next_marker: Some(HOSTILE_KEY.to_owned()),
                delimiter: Some("/".to_owned()),
                max_keys: 1,
                encoding_type,
                is_truncated: true,
                contents: vec![entry(HOSTILE_KEY)],
                common_prefixes: vec![HOSTILE_KEY.to_owned(), "x/".to_owned()],
            };
            assert_eq!(ListObjectsResult::parse(&list.to_xml()).unwrap(), list);
        }
    }

    #[test]
    fn a_prefix_that_the_store_leaves_as_it_is_stays_so() {
        for (written, is_plain) in [("a b/", true), ("a%20b/", false)] {
            let body = format!(
                "<ListBucketResult><Name>bkt</Name><Prefix>{written}</Prefix><EncodingType>url</EncodingType>\
                 <IsTruncated>false</IsTruncated></ListBucketResult>"
            );
            let list = ListObjectsResult::parse(body.as_bytes()).unwrap();
            assert_eq!((list.prefix.as_str(), list.prefix_is_plain), ("a b/", is_plain));
            let again = String::from_utf8(list.to_xml().to_vec()).unwrap();
            assert!(again.contains(&format!("<Prefix>{written}</Prefix>")), "{again}");
        }
    }

    #[test]
    fn an_empty_listing_says_so() {
        let list = ListObjectsV2Result { name: "bkt".to_owned(), max_keys: 1000, ..Default::default() };
        let xml = list.to_xml();
        let text = std::str::from_utf8(&xml).unwrap();
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
             xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bkt</Name><Prefix></Prefix><KeyCount>0</KeyCount>\
             <MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
        );
    }

    #[test]
    fn a_listing_by_ceph_is_read() {
        let body = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult \
            xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix></Prefix><MaxKeys>1000</MaxKeys>\
            <Delimiter>%2F</Delimiter><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated><Contents>\
            <Key>a%20b%2Bc</Key><LastModified>2026-11-21T19:44:15.000Z</LastModified>\
            <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>0</Size><StorageClass>STANDARD</StorageClass>\
            <Owner><ID>u</ID><DisplayName>U</DisplayName></Owner><Type>Normal</Type></Contents></ListBucketResult>";
        let list = ListObjectsV2Result::parse(body).unwrap();
        assert_eq!((list.contents[0].key.as_str(), list.key_count), ("a b+c", 1));
        assert_eq!(list.contents[0].etag, "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(list.delimiter.as_deref(), Some("/"));
    }

    #[test]
    fn buckets_are_read_as_they_were_written() {
        let list = ListBucketsResult {
            owner: Owner { id: "id".to_owned(), display_name: Some("n".to_owned()) },
            buckets: vec![BucketEntry { name: "b".to_owned(), creation_ms: 1_750_000_000_000 }],
            prefix: None,
            continuation_token: Some("t".to_owned()),
        };
        assert_eq!(ListBucketsResult::parse(&list.to_xml()).unwrap(), list);
    }

    #[test]
    fn a_listing_with_an_impossible_value_is_refused() {
        let good = String::from_utf8(v2("k", None).to_xml().to_vec()).unwrap();
        let size = format!("<Size>{}</Size>", u64::MAX);
        for (from, to) in [
            (size.as_str(), "<Size>-1</Size>"),
            (size.as_str(), ""),
            ("<Key>k</Key>", ""),
            ("<IsTruncated>true</IsTruncated>", "<IsTruncated>perhaps</IsTruncated>"),
            ("<LastModified>2025-", "<LastModified>yesterday-"),
            ("<Name>", "<EncodingType>rot13</EncodingType><Name>"),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(ListObjectsV2Result::parse(good.replace(from, to).as_bytes()).is_err(), "{from} -> {to}");
        }
    }

    proptest! {
        #[test]
        fn any_key_survives_a_listing(key in "\\PC{1,40}|[\u{1}-\u{ffff}]{1,20}") {
            for encoding_type in [None, Some(EncodingType::Url)] {
                let list = v2(&key, encoding_type);
                prop_assert_eq!(ListObjectsV2Result::parse(&list.to_xml()).unwrap(), list);
            }
        }
    }
}
