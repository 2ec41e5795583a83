//! What POST Object reads and answers.

use bytes::Bytes;

use super::reader::{Element, Limits};
use super::writer::XmlWriter;
use crate::error::{ErrorCode, S3Error};
use crate::uri::{Slash, encode};

/// The document of a form that asked for status 201.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostResponse {
    /// Where the object can be read.
    pub location: String,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The entity tag, without quotes.
    pub etag: String,
}

impl PostResponse {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        XmlWriter::plain_document("PostResponse", |w| {
            w.text("Location", &self.location);
            w.text("Bucket", &self.bucket);
            w.text("Key", &self.key);
            w.etag(&self.etag);
        })
    }
}

/// Reads the field `tagging` of a form, a `Tagging` document, and writes it as the header `x-amz-tagging` has it:
/// `key=value&…`, percent-encoded.
///
/// # Errors
/// `MalformedXML`; `InvalidTag` is for the operation to find.
pub fn parse_form_tags(body: &[u8]) -> Result<String, S3Error> {
    let limits = Limits { len_max: crate::post_form::FORM_HEAD_LEN_MAX, elements_max: 400 };
    let root = Element::parse(body, "Tagging", limits)?;
    let set = root.child("TagSet")?.ok_or_else(|| S3Error::new(ErrorCode::MalformedXML))?;
    let pair = |tag: &Element| {
        let (key, value) = (tag.required("Key")?, tag.text_of("Value")?.unwrap_or_default());
        Ok::<_, S3Error>(format!(
            "{}={}",
            encode(key.as_bytes(), Slash::Encode),
            encode(value.as_bytes(), Slash::Encode)
        ))
    };
    Ok(set.all("Tag").map(pair).collect::<Result<Vec<_>, _>>()?.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_a_form_become_those_of_a_header() {
        let xml = "<Tagging><TagSet><Tag><Key>a b</Key><Value>1&amp;2</Value></Tag><Tag><Key>0</Key><Value/></Tag></TagSet></Tagging>";
        assert_eq!(parse_form_tags(xml.as_bytes()).unwrap(), "a%20b=1%262&0=");
        assert_eq!(parse_form_tags(b"<Tagging><TagSet/></Tagging>").unwrap(), "");
        for bad in
            ["", "<Tagging/>", "a=b", "<Tagging><TagSet><Tag><Value>1</Value></Tag></TagSet></Tagging>"]
        {
            assert_eq!(parse_form_tags(bad.as_bytes()).unwrap_err().code(), ErrorCode::MalformedXML, "{bad}");
        }
    }

    #[test]
    fn the_document_of_a_created_object_names_it() {
        let response = PostResponse {
            location: "http://h/b/k%20".to_owned(),
            bucket: "b".to_owned(),
            key: "k <".to_owned(),
            etag: "e-0".to_owned(),
        };
        let text = String::from_utf8(response.to_xml().to_vec()).unwrap();
        assert!(
            text.ends_with(
                "<PostResponse><Location>http://h/b/k%20</Location><Bucket>b</Bucket><Key>k &lt;</Key>\
             <ETag>&quot;e-0&quot;</ETag></PostResponse>"
            ),
            "{text}"
        );
    }
}
