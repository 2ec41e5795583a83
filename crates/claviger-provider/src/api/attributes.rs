//! Content headers and user metadata: from a request into a sidecar and back.

use std::collections::BTreeMap;

use s3s::dto::{Metadata, StorageClass, Timestamp, TimestampFormat};
use s3s::{S3Result, s3_error};

use crate::store::Attributes;

/// What S3 allows for names and values of user metadata together, in bytes.
const USER_METADATA_LEN_MAX: usize = 2048;

/// The fields that PutObject, CreateMultipartUpload and CopyObject have in common.
macro_rules! attributes_of {
    ($input:expr) => {
        $crate::api::attributes::collect(
            [
                ("cache-control", $input.cache_control.take()),
                ("content-disposition", $input.content_disposition.take()),
                ("content-encoding", $input.content_encoding.take()),
                ("content-language", $input.content_language.take()),
                ("content-type", $input.content_type.take()),
                ("x-amz-website-redirect-location", $input.website_redirect_location.take()),
            ],
            $input.expires.take(),
            $input.metadata.take(),
            $input.storage_class.take(),
        )
    };
}
pub(crate) use attributes_of;

/// The fields that GetObject and HeadObject answer with in common.
macro_rules! answer_with_attributes {
    ($output:expr, $attributes:expr) => {
        let attributes = $attributes;
        let header = |name: &str| attributes.headers.get(name).cloned();
        $output.cache_control = header("cache-control");
        $output.content_disposition = header("content-disposition");
        $output.content_encoding = header("content-encoding");
        $output.content_language = header("content-language");
        $output.content_type = header("content-type").or_else(|| Some("binary/octet-stream".to_owned()));
        $output.website_redirect_location = header("x-amz-website-redirect-location");
        $output.expires = $crate::api::attributes::expires(attributes);
        $output.metadata = $crate::api::attributes::metadata(attributes);
        $output.storage_class = attributes.storage_class.clone().map(s3s::dto::StorageClass::from);
    };
}
pub(crate) use answer_with_attributes;

/// Gathers an object's attributes; 400 MetadataTooLarge above S3's 2 KB.
pub(crate) fn collect(
    headers: [(&str, Option<String>); 6],
    expires: Option<Timestamp>,
    metadata: Option<Metadata>,
    storage_class: Option<StorageClass>,
) -> S3Result<Attributes> {
    let mut kept: BTreeMap<String, String> =
        headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    if let Some(expires) = expires {
        let mut text = Vec::new();
        expires
            .format(TimestampFormat::HttpDate, &mut text)
            .map_err(|_| s3_error!(InvalidArgument, "Expires"))?;
        kept.insert("expires".to_owned(), String::from_utf8_lossy(&text).into_owned());
    }
    if let Some(encoding) = kept.remove("content-encoding").map(|encoding| without_aws_chunked(&encoding))
        && !encoding.is_empty()
    {
        kept.insert("content-encoding".to_owned(), encoding);
    }
    let user_metadata: BTreeMap<String, String> = metadata.unwrap_or_default().into_iter().collect();
    let len: usize = user_metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if len > USER_METADATA_LEN_MAX {
        return Err(s3_error!(MetadataTooLarge, "User metadata has {len} bytes; 2048 are allowed."));
    }
    Ok(Attributes {
        headers: kept,
        user_metadata,
        storage_class: storage_class.map(|class| class.as_str().to_owned()),
    })
}

/// The Expires header as the framework wants it.
pub(crate) fn expires(attributes: &Attributes) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, attributes.headers.get("expires")?).ok()
}

/// User metadata as the framework wants it.
pub(crate) fn metadata(attributes: &Attributes) -> Option<Metadata> {
    if attributes.user_metadata.is_empty() {
        return None;
    }
    Some(attributes.user_metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// `aws-chunked` is how the body travelled, not what the object is.
fn without_aws_chunked(encoding: &str) -> String {
    let kept = encoding.split(',').map(str::trim).filter(|token| !token.eq_ignore_ascii_case("aws-chunked"));
    kept.collect::<Vec<_>>().join(",")
}
