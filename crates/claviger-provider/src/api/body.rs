//! Bodies in and out, a piece at a time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, StatusCode};
use md5::{Digest as _, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};
use std::collections::BTreeMap;
use std::path::Path;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::{internal, signed};

/// Bytes read from a file at a time.
const PIECE_LEN: usize = 256 * 1024;
/// Most bytes in one PutObject or UploadPart: 5 GiB.
const PUT_LEN_MAX: i64 = 5 * 1024 * 1024 * 1024;
/// The checksum headers that this provider verifies.
const CHECKSUMS: [&str; 5] = [
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
];

/// What a body was announced to be, and what it must turn out to be.
pub(super) struct Announced {
    pub(super) content_length: Option<i64>,
    pub(super) content_md5: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) trailers: Option<TrailingHeaders>,
}

impl Announced {
    /// The object's length: an aws-chunked body may come without Content-Length, but not without its decoded length.
    fn len(&self) -> Option<i64> {
        let decoded = self.headers.get("x-amz-decoded-content-length").and_then(|value| value.to_str().ok());
        self.content_length.or_else(|| decoded?.parse().ok())
    }
}

/// A body that was received whole and matched its announcement.
pub(super) struct Received {
    pub(super) size: u64,
    /// Hex.
    pub(super) md5: String,
    /// The checksums that the client sent: header name to base64 value.
    pub(super) checksums: BTreeMap<String, String>,
}

/// Writes a body to the file at `path` and verifies length, Content-MD5 and checksums.
pub(super) async fn receive(
    body: Option<StreamingBlob>,
    announced: Announced,
    path: &Path,
) -> S3Result<Received> {
    let len = announced.len().ok_or_else(|| s3_error!(MissingContentLength))?;
    if len > PUT_LEN_MAX {
        return Err(s3_error!(EntityTooLarge));
    }
    let mut hasher = hasher_for(&announced.headers);
    let mut md5 = Md5::new();
    let mut size = 0_u64;
    let mut file = File::options().write(true).open(path).await.map_err(internal)?;
    let mut body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(body_failure)?;
        md5.update(&piece);
        hasher.update(&piece);
        size += piece.len() as u64;
        file.write_all(&piece).await.map_err(internal)?;
    }
    file.flush().await.map_err(internal)?;
    if signed(size) != len {
        return Err(s3_error!(IncompleteBody, "{size} bytes came; {len} were announced."));
    }
    let md5 = md5.finalize();
    check_md5(announced.content_md5.as_deref(), &md5)?;
    let sent = sent_checksums(&announced.headers, announced.trailers.as_ref());
    check_checksums(&sent, &hasher.finalize())?;
    Ok(Received { size, md5: crate::store::hex(&md5), checksums: sent })
}

/// The bytes `start .. start + len` of a file as a body. A file that ends early breaks the connection.
pub(super) async fn send(file: std::fs::File, start: u64, len: u64) -> S3Result<StreamingBlob> {
    let mut file = File::from_std(file);
    file.seek(std::io::SeekFrom::Start(start)).await.map_err(internal)?;
    Ok(StreamingBlob::wrap(pieces(file, len)))
}

fn pieces(file: File, len: u64) -> impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static {
    stream::try_unfold((file, len), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_LEN);
        let mut piece = BytesMut::zeroed(want);
        file.read_exact(&mut piece).await?;
        Ok(Some((piece.freeze(), (file, left - want as u64))))
    })
}

/// A hasher with the algorithms that the request names in its headers or announces as trailers.
fn hasher_for(headers: &HeaderMap) -> ChecksumHasher {
    let trailers: Vec<String> = headers
        .get_all("x-amz-trailer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let named = |name: &str| headers.contains_key(name) || trailers.iter().any(|trailer| trailer == name);
    ChecksumHasher {
        crc32: named(CHECKSUMS[0]).then(Default::default),
        crc32c: named(CHECKSUMS[1]).then(Default::default),
        crc64nvme: named(CHECKSUMS[2]).then(Default::default),
        sha1: named(CHECKSUMS[3]).then(Default::default),
        sha256: named(CHECKSUMS[4]).then(Default::default),
    }
}

fn sent_checksums(headers: &HeaderMap, trailers: Option<&TrailingHeaders>) -> BTreeMap<String, String> {
    let mut sent = BTreeMap::new();
    let mut take = |source: &HeaderMap| {
        for name in CHECKSUMS {
            if let Some(value) = source.get(name).and_then(|value| value.to_str().ok()) {
                sent.insert(name.to_owned(), value.to_owned());
            }
        }
    };
    take(headers);
    if let Some(trailers) = trailers {
        trailers.read(take);
    }
    sent
}

fn check_checksums(sent: &BTreeMap<String, String>, computed: &Checksum) -> S3Result<()> {
    for (name, value) in sent {
        let computed = match name.as_str() {
            "x-amz-checksum-crc32" => &computed.checksum_crc32,
            "x-amz-checksum-crc32c" => &computed.checksum_crc32c,
            "x-amz-checksum-crc64nvme" => &computed.checksum_crc64nvme,
            "x-amz-checksum-sha1" => &computed.checksum_sha1,
            _ => &computed.checksum_sha256,
        };
        if computed.as_ref() != Some(value) {
            return Err(s3_error!(BadDigest, "{name} does not match the body."));
        }
    }
    Ok(())
}

fn check_md5(announced: Option<&str>, computed: &[u8]) -> S3Result<()> {
    let Some(announced) = announced else { return Ok(()) };
    match STANDARD.decode(announced) {
        Ok(announced) if announced == computed => Ok(()),
        Ok(announced) if announced.len() == computed.len() => Err(s3_error!(BadDigest)),
        _ => Err(s3_error!(InvalidDigest)),
    }
}

/// The framework keeps the error types of its body streams to itself; their texts name the cause.
fn body_failure(error: s3s::StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        super::unlisted("XAmzContentSHA256Mismatch", StatusCode::BAD_REQUEST)
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch)
    } else {
        s3_error!(IncompleteBody, "the body broke off: {text}")
    }
}
