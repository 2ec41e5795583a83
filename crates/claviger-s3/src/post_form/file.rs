//! The file of a form: its bytes end where the delimiter begins, and nowhere else.

use bytes::{Buf as _, Bytes, BytesMut};

use super::malformed;
use super::start::{Part, find};
use crate::error::{ErrorCode, S3Error};

/// What may follow the file's last byte: the closing delimiter and fields that S3 ignores.
pub const FORM_TAIL_LEN_MAX: usize = 20 << 10;

/// Takes the file out of the rest of a form's body.
#[derive(Debug)]
pub struct FileReader {
    delimiter: Vec<u8>,
    /// The end of what came, as long as it may be the beginning of a delimiter.
    held: BytesMut,
    /// What follows the delimiter that ended the file.
    tail: Option<BytesMut>,
}

impl FileReader {
    pub(super) fn new(delimiter: Vec<u8>) -> Self {
        Self { delimiter, held: BytesMut::new(), tail: None }
    }

    /// Takes bytes from `input`, all of it in the end, and gives the file's next piece; `None` when more is needed or the
    /// file is over. To be called again while it gives a piece.
    ///
    /// # Errors
    /// `MalformedPOSTRequest` when more than [`FORM_TAIL_LEN_MAX`] bytes follow the file.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, S3Error> {
        if self.tail.is_none()
            && let Some(piece) = self.next_piece(input)
        {
            return Ok(Some(piece));
        }
        if let Some(tail) = &mut self.tail {
            tail.extend_from_slice(input);
            input.advance(input.len());
            if tail.len() + self.delimiter.len() > FORM_TAIL_LEN_MAX {
                return Err(S3Error::new(ErrorCode::MalformedPOSTRequest)
                    .with_message("More than 20 KiB follow the file of the form."));
            }
        }
        Ok(None)
    }

    /// Whether the file's last byte has been given.
    pub fn is_over(&self) -> bool {
        self.tail.is_some()
    }

    /// The body is over: `MalformedPOSTRequest` unless the file and the form were ended by their delimiters;
    /// `InvalidArgument` for a second file.
    ///
    /// # Errors
    /// As said. What was read of the file may not be kept then.
    pub fn finish(self) -> Result<(), S3Error> {
        let tail = self.tail.ok_or_else(malformed)?;
        let mut rest = &tail[..];
        loop {
            if let Some(epilogue) = rest.strip_prefix(b"--") {
                return if epilogue.iter().all(u8::is_ascii_whitespace) { Ok(()) } else { Err(malformed()) };
            }
            // What only looks like the delimiter may be a line of the file.
            let line = &rest[..find(rest, b"\r\n").ok_or_else(malformed)?];
            if !line.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
                return Err(malformed());
            }
            let next = find(rest, &self.delimiter).ok_or_else(malformed)?;
            let headers_len = find(&rest[..next], b"\r\n\r\n").ok_or_else(malformed)?;
            if Part::parse(&rest[..headers_len], 0)?.is_file() {
                return Err(S3Error::invalid_argument(
                    "file",
                    "2",
                    "POST requires exactly one file upload per request.",
                ));
            }
            rest = &rest[next + self.delimiter.len()..];
        }
    }

    /// The next piece of the file, or the state set to its end.
    fn next_piece(&mut self, input: &mut Bytes) -> Option<Bytes> {
        if !self.held.is_empty() {
            return self.next_held(input);
        }
        if let Some(at) = find(input, &self.delimiter) {
            let piece = input.split_to(at);
            input.advance(self.delimiter.len());
            self.tail = Some(BytesMut::new());
            return some(piece);
        }
        let piece = input.split_to(input.len() - open_end(input, &self.delimiter));
        self.held.extend_from_slice(input);
        input.advance(input.len());
        some(piece)
    }

    /// What was held back turns out to be the delimiter, or part of the file.
    fn next_held(&mut self, input: &mut Bytes) -> Option<Bytes> {
        let wanted = (self.delimiter.len() - self.held.len()).min(input.len());
        self.held.extend_from_slice(&input.split_to(wanted));
        if self.held[..] == self.delimiter[..] {
            self.held.clear();
            self.tail = Some(BytesMut::new());
            return None;
        }
        if self.delimiter.starts_with(&self.held) {
            return None;
        }
        // No delimiter begins where it seemed to; one may begin behind that.
        let open = open_end(&self.held, &self.delimiter);
        let piece = self.held.split_to(self.held.len() - open).freeze();
        some(piece)
    }
}

fn some(piece: Bytes) -> Option<Bytes> {
    (!piece.is_empty()).then_some(piece)
}

/// How many bytes at the end of `data` may be the beginning of the delimiter, which holds one CR only, its first byte.
fn open_end(data: &[u8], delimiter: &[u8]) -> usize {
    let window = data.len().saturating_sub(delimiter.len() - 1);
    match memchr::memrchr(b'\r', &data[window..]) {
        Some(at) if delimiter.starts_with(&data[window + at..]) => data.len() - window - at,
        _ => 0,
    }
}
