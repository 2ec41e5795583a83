//! Bodies on their way through: what the client sends becomes verified plaintext (`client`), plaintext becomes sealed
//! units (`seal`), and what the provider sends becomes authenticated plaintext (`open`). Each is a pure `poll`
//! adapter: no task and no channel, so backpressure reaches from one socket to the other by itself.

pub(crate) mod client;
pub(crate) mod form;
pub(crate) mod form_heads;
pub(crate) mod open;
pub(crate) mod seal;

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::GatewayError;

/// Plaintext that is about to be sealed.
pub(crate) trait PlaintextSource: Send {
    /// The next piece; `None` after the last.
    fn poll_plaintext(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>>;

    /// Called once after the end: whether everything that came was what its sender declared. The commit point
    /// waits for it (docs/format.md §7.4).
    ///
    /// # Errors
    /// `BadDigest` and the like; nothing may be committed then.
    fn verify(&mut self) -> Result<Verified, GatewayError>;
}

/// What the verification of a body leaves for the footer and the answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verified {
    /// The checksums that were computed over a client's body and found right; `None` for a body that did not come
    /// from a client.
    pub client: Option<claviger_s3::checksum::Verified>,
}

impl Verified {
    /// The checksum that the client declared for the body, as the footer keeps it.
    pub(crate) fn footer_checksum(&self) -> Option<claviger_format::checksum::Checksum> {
        let value = self.client.as_ref()?.checksum?;
        Some(crate::ops::checksums::to_format(&claviger_s3::checksum::ObjectChecksum::full(value)))
    }
}
