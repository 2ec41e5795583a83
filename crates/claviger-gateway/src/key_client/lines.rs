//! An answer that comes line by line.

use claviger_keyapi::watch::WATCH_LINE_LEN_MAX;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::ClientError;
use super::transport::broken;

/// The lines of an answer, without their line feeds.
pub(super) struct Lines {
    body: Incoming,
    /// What came after the last whole line.
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, rest: Vec::new() }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if the answer breaks off, ends in the middle of a line, or a line is longer than
    /// [`WATCH_LINE_LEN_MAX`].
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let after = self.rest.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.rest, after);
                line.pop();
                return Ok(Some(line));
            }
            if self.rest.len() >= WATCH_LINE_LEN_MAX {
                return Err(broken("a line is too long"));
            }
            match self.body.frame().await {
                Some(frame) => self.rest.extend(frame.map_err(broken)?.into_data().iter().flatten()),
                None if self.rest.is_empty() => return Ok(None),
                None => return Err(broken("the last line is not whole")),
            }
        }
    }
}
