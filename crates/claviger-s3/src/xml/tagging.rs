//! `Tagging`: the tags of an object.

use bytes::Bytes;

use super::element::Element;
use super::reader::{Document, Limits, XmlError};
use super::writer::XmlWriter;
use crate::error::{ErrorCode, S3Error};
use crate::tagging::TagSet;

/// Largest `Tagging` document that is read, in bytes.
pub const TAGGING_LEN_MAX: usize = 128 << 10;

/// Reads a client's document: `MalformedXML` when broken, `InvalidTag` as [`TagSet::from_pairs`].
pub fn parse_tagging(body: &[u8]) -> Result<TagSet, S3Error> {
    // More than may be, so that an excess is told from a broken document.
    let limits = Limits { len_max: TAGGING_LEN_MAX, elements_max: 1000 };
    let document = Document::parse(body, "Tagging", limits)?;
    let root = document.root();
    let only = |element: &Element<'_, '_>, name: &str| element.children().all(|child| child.name() == name);
    let set = root.child("TagSet")?.filter(|set| only(&root, "TagSet") && only(set, "Tag"));
    let set = set.ok_or(ErrorCode::MalformedXML)?;
    TagSet::from_pairs(pairs(set)?)
}

/// Reads the store's answer; its own rules count.
pub fn parse_store_tagging(body: &[u8]) -> Result<TagSet, XmlError> {
    let document = Document::parse(body, "Tagging", Limits::UPSTREAM)?;
    let root = document.root();
    let pairs = root.child("TagSet")?.map(pairs).transpose()?;
    Ok(TagSet::of_store(pairs.unwrap_or_default()))
}

fn pairs(set: Element<'_, '_>) -> Result<Vec<(String, String)>, XmlError> {
    let pair =
        |tag: Element<'_, '_>| Ok((tag.required("Key")?.into_owned(), tag.required("Value")?.into_owned()));
    set.all("Tag").map(pair).collect()
}

/// Writes the document, for the store and for clients.
pub fn write_tagging(tags: &TagSet) -> Bytes {
    XmlWriter::document("Tagging", None, |w| {
        w.group("TagSet", |w| {
            for (key, value) in tags.iter() {
                w.group("Tag", |w| {
                    w.text("Key", key);
                    w.text("Value", value);
                });
            }
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_they_were_written() {
        let tags = TagSet::parse_header("b=2&a=&c%20%3C%26=%C3%BC").unwrap();
        let document = write_tagging(&tags);
        assert_eq!(parse_tagging(&document).unwrap(), tags);
        assert_eq!(parse_store_tagging(&document).unwrap(), tags);
        let none = write_tagging(&TagSet::default());
        assert_eq!(parse_tagging(&none).unwrap(), TagSet::default());
        assert!(none.ends_with(b"<TagSet></TagSet></Tagging>"), "{none:?}");
    }

    #[test]
    fn documents_that_are_none_are_told_from_tags_that_break_a_rule() {
        let tag = |key: &str| format!("<Tag><Key>{key}</Key><Value>v</Value></Tag>");
        let code = |inner: &str| {
            let body = format!("<Tagging>{inner}</Tagging>");
            parse_tagging(body.as_bytes()).unwrap_err().code()
        };
        for broken in
            ["", "<TagSet><Tag><Key>k</Key></Tag></TagSet>", "<TagSet><Odd/></TagSet>", "<TagSet/><Odd/>"]
        {
            assert_eq!(code(broken), ErrorCode::MalformedXML, "{broken}");
        }
        let many: String = (0..11).map(|n| tag(&format!("k{n}"))).collect();
        assert_eq!(code(&format!("<TagSet>{many}</TagSet>")), ErrorCode::InvalidTag);
        assert_eq!(code(&format!("<TagSet>{0}{0}</TagSet>", tag("k"))), ErrorCode::InvalidTag);
    }
}
