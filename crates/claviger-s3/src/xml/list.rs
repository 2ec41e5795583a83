//! Listings of objects. Names, tags and owners are borrowed from the document that was read: a page has a thousand of each.

use std::borrow::Cow;

use bytes::Bytes;

use super::element::Element;
use super::field::Field;
use super::is_xml_text;
use super::reader::{Document, Limits, XmlError};
use super::writer::XmlWriter;
use crate::checksum::{ChecksumAlgorithm, ChecksumType};
use crate::operation::EncodingType;
use crate::uri::encode_listing;

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner<'a> {
    /// `ID`
    pub id: Cow<'a, str>,
    /// `DisplayName`
    pub display_name: Option<Cow<'a, str>>,
}

/// One object of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectEntry<'a> {
    /// `Key`, decoded.
    pub key: Cow<'a, str>,
    /// `LastModified`, ms since the epoch.
    pub last_modified_ms: u64,
    /// `ETag` without quotes.
    pub etag: Cow<'a, str>,
    /// What is written behind `etag` within its quotes; nothing in a listing that was read.
    pub etag_suffix: &'static str,
    /// `Size` in bytes.
    pub size: u64,
    /// `StorageClass`
    pub storage_class: Option<Cow<'a, str>>,
    /// `Owner`
    pub owner: Option<Owner<'a>>,
    /// `ChecksumAlgorithm`
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
    /// `ChecksumType`
    pub checksum_type: Option<ChecksumType>,
}

/// `ListBucketResult` of ListObjects (version 1). All names are decoded here and encoded on the wire when
/// `encoding_type` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListObjectsResult<'a> {
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
    pub contents: Vec<ObjectEntry<'a>>,
    /// `CommonPrefixes`
    pub common_prefixes: Vec<Cow<'a, str>>,
}

/// `ListBucketResult` of ListObjectsV2. All names are decoded here and encoded on the wire when `encoding_type` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListObjectsV2Result<'a> {
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
    pub contents: Vec<ObjectEntry<'a>>,
    /// `CommonPrefixes`
    pub common_prefixes: Vec<Cow<'a, str>>,
}

impl Owner<'_> {
    /// The same, borrowed from nothing.
    pub fn into_owned(self) -> Owner<'static> {
        Owner { id: into_owned(self.id), display_name: self.display_name.map(into_owned) }
    }
}

impl<'a> Field<'_, 'a> {
    /// The account in it; `None` when it is not there.
    pub(super) fn owner(&self) -> Result<Option<Owner<'a>>, XmlError> {
        let Some(element) = self.element else { return Ok(None) };
        let [id, display_name] = element.fields(&["ID", "DisplayName"], |_| false)?;
        Ok(Some(Owner { id: id.string(), display_name: display_name.non_empty() }))
    }
}

fn into_owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

impl<'a> ObjectEntry<'a> {
    fn write(&self, w: &mut XmlWriter) {
        w.tags("<Contents><Key>");
        w.bare_name(&self.key);
        w.tags("</Key><LastModified>");
        w.bare_time(self.last_modified_ms);
        w.tags("</LastModified><ETag>&quot;");
        w.bare_text(&self.etag);
        w.bare_text(self.etag_suffix);
        w.tags("&quot;</ETag>");
        w.optional("ChecksumAlgorithm", self.checksum_algorithm.map(ChecksumAlgorithm::as_str));
        w.optional("ChecksumType", self.checksum_type.map(ChecksumType::as_str));
        w.tags("<Size>");
        w.bare_number(self.size);
        w.tags("</Size>");
        if let Some(owner) = &self.owner {
            w.owner("Owner", owner);
        }
        w.optional("StorageClass", self.storage_class.as_deref());
        w.tags("</Contents>");
    }

    /// About as many bytes as [`Self::write`] writes.
    fn written_len(&self) -> usize {
        const TAGS_LEN: usize = 240;
        const OWNER_LEN: usize = 160;
        let owner_len = if self.owner.is_some() { OWNER_LEN } else { 0 };
        TAGS_LEN + self.key.len() + self.etag.len() + owner_len
    }

    fn read(element: Element<'_, 'a>, encoded: bool) -> Result<Self, XmlError> {
        const NAMES: [&str; 7] =
            ["Key", "LastModified", "ETag", "ChecksumType", "Size", "Owner", "StorageClass"];
        // S3 may name several algorithms; the first that we know counts.
        let mut checksum_algorithm = None;
        let is_algorithm = |child: Element<'_, '_>| {
            let is_one = child.name() == "ChecksumAlgorithm";
            if is_one && checksum_algorithm.is_none() {
                checksum_algorithm = ChecksumAlgorithm::from_name(&child.text());
            }
            is_one
        };
        let [key, last_modified, etag, checksum_type, size, owner, storage_class] =
            element.fields(&NAMES, is_algorithm)?;
        Ok(Self {
            key: key.required_name(encoded)?,
            last_modified_ms: last_modified.time()?,
            etag: etag.etag(),
            etag_suffix: "",
            size: size.required_number()?,
            storage_class: storage_class.non_empty(),
            owner: owner.owner()?,
            checksum_algorithm,
            checksum_type: checksum_type.checksum_type(),
        })
    }

    /// The same, borrowed from nothing.
    pub fn into_owned(self) -> ObjectEntry<'static> {
        ObjectEntry {
            key: into_owned(self.key),
            etag: into_owned(self.etag),
            storage_class: self.storage_class.map(into_owned),
            owner: self.owner.map(Owner::into_owned),
            ..self
        }
    }
}

/// About as many bytes as these entries have in the document.
fn written_len(contents: &[ObjectEntry<'_>], common_prefixes: &[Cow<'_, str>]) -> usize {
    const PREFIX_LEN: usize = 60;
    let of_prefixes: usize = common_prefixes.iter().map(|prefix| PREFIX_LEN + prefix.len()).sum();
    contents.iter().map(ObjectEntry::written_len).sum::<usize>() + of_prefixes
}

fn read_contents<'a>(root: Element<'_, 'a>, encoded: bool) -> Result<Vec<ObjectEntry<'a>>, XmlError> {
    let mut contents = Vec::with_capacity(root.all("Contents").count());
    for entry in root.all("Contents") {
        contents.push(ObjectEntry::read(entry, encoded)?);
    }
    Ok(contents)
}

/// Whether this child of a listing is there once for each of what is listed.
pub(super) fn is_listed(child: Element<'_, '_>) -> bool {
    matches!(child.name(), "Contents" | "CommonPrefixes" | "Version" | "DeleteMarker" | "Part" | "Upload")
}

pub(super) fn read_common_prefixes<'a>(
    root: Element<'_, 'a>,
    encoded: bool,
) -> Result<Vec<Cow<'a, str>>, XmlError> {
    let prefixes = root.all("CommonPrefixes").flat_map(|group| group.all("Prefix"));
    let decoded = prefixes.map(|prefix| prefix.as_name(encoded).ok_or(XmlError::Invalid("CommonPrefixes")));
    decoded.collect()
}

pub(super) fn encoding(encoded: bool) -> Option<EncodingType> {
    encoded.then_some(EncodingType::Url)
}

impl<'a> ListObjectsResult<'a> {
    fn written_len(&self) -> usize {
        written_len(&self.contents, &self.common_prefixes)
    }

    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document_of("ListBucketResult", self.encoding_type, self.written_len(), |w| {
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
    pub fn parse(body: &'a [u8]) -> Result<Self, XmlError> {
        const NAMES: [&str; 8] =
            ["Name", "Prefix", "Marker", "MaxKeys", "Delimiter", "EncodingType", "IsTruncated", "NextMarker"];
        let document = Document::parse(body, "ListBucketResult", Limits::UPSTREAM)?;
        let root = document.root();
        let [name, prefix, marker, max_keys, delimiter, encoding_type, is_truncated, next_marker] =
            root.fields(&NAMES, is_listed)?;
        let encoded = encoding_type.is_url_encoding()?;
        let written = prefix.string();
        let prefix = prefix.echo(encoded).unwrap_or_default();
        Ok(Self {
            name: name.string().into_owned(),
            // Only a name that encoding changes tells one from the other.
            prefix_is_plain: encoded && encode_listing(&prefix) != prefix && written == prefix,
            prefix,
            marker: marker.echo(encoded).unwrap_or_default(),
            next_marker: next_marker.non_empty_echo(encoded),
            delimiter: delimiter.non_empty_echo(encoded),
            max_keys: max_keys.number()?.unwrap_or(1000),
            encoding_type: encoding(encoded),
            is_truncated: is_truncated.boolean()?,
            contents: read_contents(root, encoded)?,
            common_prefixes: read_common_prefixes(root, encoded)?,
        })
    }
}

impl<'a> ListObjectsV2Result<'a> {
    fn written_len(&self) -> usize {
        written_len(&self.contents, &self.common_prefixes)
    }

    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::document_of("ListBucketResult", self.encoding_type, self.written_len(), |w| {
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
    pub fn parse(body: &'a [u8]) -> Result<Self, XmlError> {
        const NAMES: [&str; 10] = [
            "Name",
            "Prefix",
            "StartAfter",
            "MaxKeys",
            "Delimiter",
            "EncodingType",
            "IsTruncated",
            "KeyCount",
            "ContinuationToken",
            "NextContinuationToken",
        ];
        let document = Document::parse(body, "ListBucketResult", Limits::UPSTREAM)?;
        let root = document.root();
        let [
            name,
            prefix,
            start_after,
            max_keys,
            delimiter,
            encoding_type,
            is_truncated,
            key_count,
            token,
            next,
        ] = root.fields(&NAMES, is_listed)?;
        let encoded = encoding_type.is_url_encoding()?;
        let contents = read_contents(root, encoded)?;
        let common_prefixes = read_common_prefixes(root, encoded)?;
        let counted = contents.len() + common_prefixes.len();
        Ok(Self {
            name: name.string().into_owned(),
            prefix: prefix.echo(encoded).unwrap_or_default(),
            delimiter: delimiter.non_empty_echo(encoded),
            start_after: start_after.non_empty_echo(encoded),
            continuation_token: token.non_empty().map(Cow::into_owned),
            next_continuation_token: next.non_empty().map(Cow::into_owned),
            key_count: match key_count.number()? {
                Some(count) => count,
                None => u32::try_from(counted).map_err(|_| XmlError::TooLarge)?,
            },
            max_keys: max_keys.number()?.unwrap_or(1000),
            encoding_type: encoding(encoded),
            is_truncated: is_truncated.boolean()?,
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

    fn entry(key: &str) -> ObjectEntry<'_> {
        ObjectEntry {
            key: key.into(),
            last_modified_ms: 1_750_000_000_123,
            etag: "abc-0".into(),
            etag_suffix: "",
            size: u64::MAX,
            storage_class: Some("STANDARD".into()),
            owner: Some(Owner { id: "me".into(), display_name: None }),
            checksum_algorithm: Some(ChecksumAlgorithm::Crc64Nvme),
            checksum_type: Some(ChecksumType::FullObject),
        }
    }

    fn v2(key: &str, encoding_type: Option<EncodingType>) -> ListObjectsV2Result<'_> {
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
            common_prefixes: vec![key.into()],
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
                common_prefixes: vec![HOSTILE_KEY.into(), "x/".into()],
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
        assert_eq!((&*list.contents[0].key, list.key_count), ("a b+c", 1));
        assert_eq!(list.contents[0].etag, "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(list.delimiter.as_deref(), Some("/"));
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
                let document = list.to_xml();
                prop_assert_eq!(ListObjectsV2Result::parse(&document).unwrap(), list);
            }
        }
    }
}
