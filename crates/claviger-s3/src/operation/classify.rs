//! From a request head to an [`Operation`].

use super::{Operation, VirtualHosts};
use crate::error::S3Error;
use crate::request::RequestHead;

/// Turns the head of a request into one operation with its typed inputs.
///
/// What is not in [`super::table`], and every `x-amz-*` header or query parameter that is not listed there for the
/// operation, is `NotImplemented` (501).
pub fn classify(head: &RequestHead<'_>, hosts: &VirtualHosts) -> Result<Operation, S3Error> {
    let _ = (head, hosts);
    todo!()
}
