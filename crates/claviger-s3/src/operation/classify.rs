//! From a request head to an [`Operation`].

use http::{HeaderMap, Method};

use super::build;
use super::fields::Fields;
use super::headers::{COMMON_HEADERS, REFUSED_HEADERS};
use super::table::{OperationRow, Selector, Target, table};
use super::{BucketOnly, Operation, OperationKind, PutObject, VirtualHosts};
use crate::error::{ErrorCode, S3Error};
use crate::name::{BucketName, ObjectKey};
use crate::request::RequestHead;
use crate::uri::decode_path;

/// Bucket and key of a request, decoded and checked.
pub(super) struct Names {
    pub(super) bucket: Option<BucketName>,
    pub(super) key: Option<ObjectKey>,
}

impl Names {
    fn target(&self) -> Target {
        match (&self.bucket, &self.key) {
            (None, _) => Target::Service,
            (Some(_), None) => Target::Bucket,
            (Some(_), Some(_)) => Target::Object,
        }
    }
}

/// Turns the head of a request into one operation with its typed inputs.
///
/// What is not in [`table`], and every `x-amz-*` header or query parameter that is not listed there for the operation,
/// is `NotImplemented` (501): a request never falls through to an operation that lacks what it asks for. Values that
/// can't be are `InvalidArgument`, `InvalidRequest` and their kin; names `InvalidBucketName`, `KeyTooLongError`,
/// `InvalidURI`.
pub fn classify(head: &RequestHead<'_>, hosts: &VirtualHosts) -> Result<Operation, S3Error> {
    let names = names(head, hosts)?;
    if *head.method == http::Method::OPTIONS
        && let Some(bucket) = names.bucket
    {
        // A browser asks about the URL of the request that it is going to send, with all that will be in its query.
        return Ok(Operation::Preflight(BucketOnly { bucket }));
    }
    let fields = Fields::read(head)?;
    let row = find_row(head.method.as_str(), names.target(), &fields)?;
    let Some(kind) = row.served else {
        let reason = if row.note.is_empty() { String::new() } else { format!(": {}", row.note) };
        return Err(S3Error::not_implemented(format!("{} is not implemented{reason}.", row.name)));
    };
    check_parameters(row, &fields)?;
    check_headers(row, &fields)?;
    build::operation(kind, names, &fields)
}

/// PutObject as a form asks for it, with `headers` made of its fields; judged as the headers of a request are.
pub(crate) fn put_object_of_headers(
    bucket: BucketName,
    key: ObjectKey,
    headers: &HeaderMap,
) -> Result<PutObject, S3Error> {
    let head = RequestHead { method: &Method::PUT, raw_path: "/", raw_query: "", host: None, headers };
    let fields = Fields::read(&head)?;
    let row = find_row(Method::PUT.as_str(), Target::Object, &fields)?;
    if row.served != Some(OperationKind::PutObject) {
        return Err(S3Error::not_implemented(format!("{} can't be asked for by a form.", row.name)));
    }
    check_headers(row, &fields)?;
    build::put_object(bucket, key, &fields)
}

/// Bucket and key from host and path. The path is decoded before it is split, since the signature does not tell `%2F`
/// from `/`.
fn names(head: &RequestHead<'_>, hosts: &VirtualHosts) -> Result<Names, S3Error> {
    let path = decode_path(head.raw_path)?;
    let path = path.strip_prefix('/').ok_or_else(|| S3Error::new(ErrorCode::InvalidURI))?;
    if let Some(bucket) = head.host.and_then(|host| hosts.bucket_of(host)) {
        return Ok(Names { bucket: Some(BucketName::parse(&bucket)?), key: key(path)? });
    }
    if path.is_empty() {
        return Ok(Names { bucket: None, key: None });
    }
    let (bucket, rest) = path.split_once('/').unwrap_or((path, ""));
    Ok(Names { bucket: Some(BucketName::parse(bucket)?), key: key(rest)? })
}

fn key(text: &str) -> Result<Option<ObjectKey>, S3Error> {
    if text.is_empty() { Ok(None) } else { ObjectKey::parse(text.to_owned()).map(Some) }
}

/// The row with the most selectors among those that match.
fn find_row(method: &str, target: Target, fields: &Fields<'_>) -> Result<&'static OperationRow, S3Error> {
    table()
        .filter(|row| row.target == target && row.method == method)
        .filter(|row| row.selectors.iter().all(|selector| is_met(*selector, fields)))
        .max_by_key(|row| row.selectors.len())
        .ok_or_else(|| S3Error::not_implemented("This method is not implemented for this resource."))
}

fn is_met(selector: Selector, fields: &Fields<'_>) -> bool {
    match selector {
        Selector::Query(name) => fields.query(name).is_some(),
        Selector::QueryValue(name, value) => fields.query(name) == Some(value),
        Selector::Header(name) => fields.has_header(name),
    }
}

fn check_parameters(row: &OperationRow, fields: &Fields<'_>) -> Result<(), S3Error> {
    let is_selector = |name: &str| {
        row.selectors.iter().any(|selector| match selector {
            Selector::Query(selector) | Selector::QueryValue(selector, _) => *selector == name,
            Selector::Header(_) => false,
        })
    };
    match fields.query_names().find(|name| !is_selector(name) && !row.parameters.contains(name)) {
        None => Ok(()),
        Some(name) => Err(S3Error::not_implemented(format!(
            "The query parameter {} is not implemented for {}.",
            shortened(name),
            row.name
        ))),
    }
}

fn check_headers(row: &OperationRow, fields: &Fields<'_>) -> Result<(), S3Error> {
    let is_listed = |name: &str| {
        let mut groups = row.headers.iter().copied().chain([COMMON_HEADERS]);
        groups.any(|group| group.iter().any(|parameter| parameter.covers(name)))
    };
    let Some(name) = fields.amz_names().find(|name| !is_listed(name)) else { return Ok(()) };
    let reason =
        REFUSED_HEADERS.iter().find(|parameter| parameter.covers(name)).map(|parameter| parameter.note);
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    Err(S3Error::not_implemented(format!(
        "The header {} is not implemented for {}{reason}.",
        shortened(name),
        row.name
    )))
}

/// A client's text, short enough for a message.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}
