//! Content headers and user metadata between the words of S3 and the sealed envelope (docs/format.md §5.1).

use claviger_format::metadata::{Metadata, SystemHeader};
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::header::{SystemHeaders, encode_metadata_value};
use claviger_s3::operation::{ObjectHeaders, ResponseOverrides};
use http::header::{HeaderMap, HeaderName};

use super::reply;
use crate::config::UpstreamConfig;
use crate::error::GatewayError;

/// What S3 answers for an object that was stored without a type.
const CONTENT_TYPE_DEFAULT: &str = "binary/octet-stream";

/// Seals what a write says beside its bytes.
pub(crate) fn of_request(headers: &ObjectHeaders, created_ms: u64) -> Metadata {
    let system = headers
        .system
        .iter()
        .filter_map(|(name, value)| Some((system_header(name)?, value.as_bytes().to_vec())))
        .collect();
    let user = headers
        .user_metadata
        .iter()
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .collect();
    Metadata { system, user, created_ms: Some(created_ms), checksum: None }
}

/// The longest TLV list whose envelope still fits the provider's limit on user metadata: the header name and the
/// base64 of header, tag and list (docs/format.md §5.2).
pub(crate) fn tlv_len_max(upstream: &UpstreamConfig) -> usize {
    const NAME_LEN: usize = "claviger".len();
    const SEALED_OVERHEAD: usize = 96 + 16;
    let raw_len = upstream.metadata_bytes_max.saturating_sub(NAME_LEN) / 4 * 3;
    raw_len.saturating_sub(SEALED_OVERHEAD)
}

/// A failure to seal an envelope in the words of S3.
pub(crate) fn seal_error(error: claviger_format::Error) -> GatewayError {
    match error {
        claviger_format::Error::MetadataTooLarge { len, len_max } => {
            S3Error::new(ErrorCode::MetadataTooLarge)
                .with_extra("Size", len.to_string())
                .with_extra("MaxSizeAllowed", len_max.to_string())
                .into()
        }
        source => GatewayError::Integrity { context: "sealing an envelope", source },
    }
}

/// Sets the content headers and user metadata of an answer.
pub(crate) fn set_headers(
    headers: &mut HeaderMap,
    metadata: &Metadata,
    overrides: Option<&ResponseOverrides>,
) {
    for header in SystemHeader::ALL {
        let name = HeaderName::from_static(header.http_name());
        let stored = metadata.system_header(header).and_then(|value| std::str::from_utf8(value).ok());
        let replaced = overrides.and_then(|overrides| find(&overrides.headers, header.http_name()));
        if let Some(value) = replaced.or(stored) {
            reply::set(headers, name, value);
        } else if header == SystemHeader::ContentType {
            reply::set(headers, name, CONTENT_TYPE_DEFAULT);
        }
    }
    for (name, value) in &metadata.user {
        let Ok(name) = HeaderName::try_from(format!("x-amz-meta-{name}")) else { continue };
        let value = String::from_utf8_lossy(value);
        reply::set(headers, name, &encode_metadata_value(&value));
    }
}

fn find<'a>(headers: &'a SystemHeaders, name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
}

fn system_header(name: &str) -> Option<SystemHeader> {
    SystemHeader::ALL.into_iter().find(|header| header.http_name() == name)
}
