//! Listings of buckets.

use bytes::Bytes;

use super::list::Owner;
use super::reader::{Document, Limits, XmlError};
use super::writer::XmlWriter;

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
    pub owner: Owner<'static>,
    /// `Buckets`
    pub buckets: Vec<BucketEntry>,
    /// `Prefix`
    pub prefix: Option<String>,
    /// `ContinuationToken`: where the next page begins.
    pub continuation_token: Option<String>,
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
        let document = Document::parse(body, "ListAllMyBucketsResult", Limits::UPSTREAM)?;
        let root = document.root();
        let mut buckets = Vec::new();
        if let Some(list) = root.child("Buckets")? {
            for bucket in list.all("Bucket") {
                let name = bucket.required("Name")?.into_owned();
                buckets.push(BucketEntry { name, creation_ms: bucket.time("CreationDate")? });
            }
        }
        Ok(Self {
            owner: root.field("Owner")?.owner()?.unwrap_or_default().into_owned(),
            buckets,
            prefix: root.non_empty("Prefix")?,
            continuation_token: root.non_empty("ContinuationToken")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_read_as_they_were_written() {
        let list = ListBucketsResult {
            owner: Owner { id: "id".into(), display_name: Some("n".into()) },
            buckets: vec![BucketEntry { name: "b".to_owned(), creation_ms: 1_750_000_000_000 }],
            prefix: None,
            continuation_token: Some("t".to_owned()),
        };
        assert_eq!(ListBucketsResult::parse(&list.to_xml()).unwrap(), list);
    }
}
