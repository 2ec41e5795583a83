//! What POST Object answers.

use bytes::Bytes;

use super::writer::XmlWriter;

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

#[cfg(test)]
mod tests {
    use super::*;

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
