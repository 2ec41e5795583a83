//! The body of a form up to the first byte of the file.

use bytes::{Bytes, BytesMut};

use super::boundary::Boundary;
use super::fields::Form;
use super::file::FileReader;
use super::malformed;
use crate::error::{ErrorCode, S3Error};

/// Everything before the file's first byte: fields, their headers, boundaries. S3's own limit.
pub const FORM_HEAD_LEN_MAX: usize = 20 << 10;

/// Reads fields until the file begins. At most [`FORM_HEAD_LEN_MAX`] bytes and the last piece given are held.
#[derive(Debug)]
pub struct FormStart {
    delimiter: Vec<u8>,
    /// What came, from the end of the last part on.
    buffer: BytesMut,
    /// Bytes that were taken off `buffer`.
    consumed_len: usize,
    form: Form,
    /// Whether the first part is behind us: its delimiter may lack the CRLF.
    begun: bool,
}

/// The file begins.
#[derive(Debug)]
pub struct Started {
    /// The fields before the file.
    pub form: Form,
    /// Reads the file.
    pub file: FileReader,
    /// What came of the file already, and maybe of what follows it; to be given to `file` first.
    pub rest: Bytes,
    /// Bytes of the body before the file's first byte.
    pub head_len: u64,
}

impl FormStart {
    /// Begins at the body's first byte.
    pub fn new(boundary: &Boundary) -> Self {
        Self {
            delimiter: boundary.delimiter(),
            buffer: BytesMut::new(),
            consumed_len: 0,
            form: Form::default(),
            begun: false,
        }
    }

    /// Takes the next bytes of the body; gives the form once the file begins, and is not to be called after that.
    ///
    /// # Errors
    /// `MalformedPOSTRequest`; `MaxPostPreDataLengthExceeded`; `InvalidArgument` for a field that is there twice, and for
    /// a form that ends without a file.
    pub fn read(&mut self, input: &[u8]) -> Result<Option<Started>, S3Error> {
        self.buffer.extend_from_slice(input);
        loop {
            let Some(part) = self.next_part()? else {
                if self.consumed_len + self.buffer.len() > FORM_HEAD_LEN_MAX {
                    return Err(ErrorCode::MaxPostPreDataLengthExceeded.into());
                }
                return Ok(None);
            };
            if self.consumed_len + part.data_at > FORM_HEAD_LEN_MAX {
                return Err(ErrorCode::MaxPostPreDataLengthExceeded.into());
            }
            if part.is_file() {
                self.take(part.data_at);
                let mut form = std::mem::take(&mut self.form);
                form.set_filename(part.filename.unwrap_or_default());
                return Ok(Some(Started {
                    form,
                    file: FileReader::new(std::mem::take(&mut self.delimiter)),
                    rest: std::mem::take(&mut self.buffer).freeze(),
                    head_len: self.consumed_len as u64,
                }));
            }
            let Some(len) = find(&self.buffer[part.data_at..], &self.delimiter) else {
                if self.consumed_len + self.buffer.len() > FORM_HEAD_LEN_MAX {
                    return Err(ErrorCode::MaxPostPreDataLengthExceeded.into());
                }
                return Ok(None);
            };
            let value = &self.buffer[part.data_at..part.data_at + len];
            let value = std::str::from_utf8(value).map_err(|_| malformed())?.to_owned();
            self.form.add(&part.name, value)?;
            self.take(part.data_at + len);
            self.begun = true;
        }
    }

    /// The body ended before the file began.
    pub fn ended(&self) -> S3Error {
        malformed()
    }

    fn take(&mut self, len: usize) {
        let _ = self.buffer.split_to(len);
        self.consumed_len += len;
    }

    /// The part that begins at the buffer's start; `None` while its headers are not all there.
    fn next_part(&mut self) -> Result<Option<Part>, S3Error> {
        // The first delimiter stands at the very beginning, where it needs no CRLF.
        while !self.begun && self.buffer.starts_with(b"\r\n") {
            self.take(2);
        }
        let delimiter = if self.begun { &self.delimiter[..] } else { &self.delimiter[2..] };
        if !self.buffer.starts_with(delimiter) {
            let may_become_one = self.buffer.len() < delimiter.len()
                && (delimiter.starts_with(&self.buffer) || (!self.begun && self.buffer[..] == b"\r"[..]));
            return if may_become_one { Ok(None) } else { Err(malformed()) };
        }
        let at = delimiter.len();
        if self.buffer[at..].starts_with(b"--") {
            return Err(no_file());
        }
        let Some(line_len) = find(&self.buffer[at..], b"\r\n") else {
            return if self.buffer[at..].iter().all(|byte| b" \t-\r".contains(byte)) {
                Ok(None)
            } else {
                Err(malformed())
            };
        };
        if !self.buffer[at..at + line_len].iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(malformed());
        }
        let headers_at = at + line_len;
        let Some(headers_len) = find(&self.buffer[headers_at..], b"\r\n\r\n") else { return Ok(None) };
        let headers = &self.buffer[headers_at..headers_at + headers_len];
        Part::parse(headers, headers_at + headers_len + 4).map(Some)
    }
}

/// The headers of one part.
pub(super) struct Part {
    name: String,
    filename: Option<String>,
    /// Where the data begins in the buffer.
    data_at: usize,
}

impl Part {
    /// Reads the lines of `headers`, which have to say what the part is.
    pub(super) fn parse(headers: &[u8], data_at: usize) -> Result<Self, S3Error> {
        let text = std::str::from_utf8(headers).map_err(|_| malformed())?;
        let disposition = text.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then(|| value.trim())
        });
        let (kind, parameters) = disposition.and_then(|value| value.split_once(';')).ok_or_else(malformed)?;
        if !kind.trim().eq_ignore_ascii_case("form-data") {
            return Err(malformed());
        }
        let mut part = Self { name: String::new(), filename: None, data_at };
        for (name, value) in disposition_parameters(parameters)? {
            match name.as_str() {
                "name" => part.name = value,
                "filename" => part.filename = part.filename.or(Some(value)),
                // RFC 5987; wins over the plain form.
                "filename*" => part.filename = extended_value(&value).or(part.filename),
                _ => {}
            }
        }
        if part.name.is_empty() { Err(malformed()) } else { Ok(part) }
    }

    pub(super) fn is_file(&self) -> bool {
        self.name.eq_ignore_ascii_case("file")
    }
}

/// `name="a"; filename="b"` as pairs, names in lower case. In quotes only `\"` and `\\` are escapes: browsers send
/// paths with single backslashes.
fn disposition_parameters(text: &str) -> Result<Vec<(String, String)>, S3Error> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, tail) = rest.split_once('=').ok_or_else(malformed)?;
        let name = name.trim().to_ascii_lowercase();
        let tail = tail.trim_start();
        let (value, after) = match tail.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted).ok_or_else(malformed)?,
            None => {
                let end = tail.find(';').unwrap_or(tail.len());
                (tail[..end].trim().to_owned(), &tail[end..])
            }
        };
        pairs.push((name, value));
        rest = match after.trim_start() {
            "" => "",
            after => after.strip_prefix(';').ok_or_else(malformed)?.trim_start(),
        };
    }
    Ok(pairs)
}

/// The string up to its closing quote, and what follows that.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, next)) => value.push(next),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    None
}

/// `UTF-8''na%C3%AFve.txt`
fn extended_value(text: &str) -> Option<String> {
    let (charset, rest) = text.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    percent_encoding::percent_decode_str(encoded).decode_utf8().ok().map(|name| name.into_owned())
}

fn no_file() -> S3Error {
    S3Error::invalid_argument("file", "0", "POST requires exactly one file upload per request.")
}

/// Where `needle` begins in `haystack`.
pub(super) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}
