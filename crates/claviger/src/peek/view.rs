//! What one side sees of an object, in lines.

use claviger_format::unit::{Kind, UnitHeader};
use http::HeaderMap;

use super::picture::{Line, Style};
use crate::s3_client::Reply;

/// Headers of HTTP and of the request itself, which say nothing about the object.
const NOT_SHOWN: [&str; 10] = [
    "date",
    "server",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "x-amz-request-id",
    "x-amz-id-2",
    "accept-ranges",
    "vary",
    "x-rgw-object-type",
];
/// Bytes of a unit's header (docs/format.md §3.1).
const UNIT_HEADER_LEN: usize = 96;

/// One side's picture.
pub(super) struct View {
    pub(super) title: String,
    pub(super) accent: Style,
    request: String,
    status: String,
    headers: Vec<(String, String)>,
    bytes: Vec<u8>,
    header_len: usize,
    notes: Vec<String>,
}

impl View {
    /// As the gateway answers.
    pub(super) fn of_user(reply: &Reply, bucket: &str, key: &str) -> Self {
        let mut view = Self::of(reply, bucket, key, "You see", Style::Yours);
        if !reply.status.is_success() {
            view.show_as_text();
        } else if view.bytes.is_empty() {
            view.notes.push("The object is empty.".to_owned());
        }
        view
    }

    /// As the store answers.
    pub(super) fn of_provider(reply: &Reply, bucket: &str, key: &str) -> Self {
        let mut view = Self::of(reply, bucket, key, "The provider has", Style::Theirs);
        match UnitHeader::parse(reply.body.get(..UNIT_HEADER_LEN).unwrap_or_default()) {
            Ok(header) if reply.status.is_success() => {
                view.header_len = UNIT_HEADER_LEN;
                view.notes = sealed_notes(&header);
            }
            _ if reply.status.is_success() => {
                view.notes.push("No sealed object begins like this.".to_owned())
            }
            _ => view.show_as_text(),
        }
        view
    }

    /// An error document is for reading.
    fn show_as_text(&mut self) {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
        self.notes.push(printable(&text));
    }

    fn of(reply: &Reply, bucket: &str, key: &str, title: &str, accent: Style) -> Self {
        Self {
            title: title.to_owned(),
            accent,
            request: format!("GET /{}/{}", printable(bucket), printable(key)),
            status: reply.status.to_string(),
            headers: shown_headers(&reply.headers),
            bytes: reply.body.clone(),
            header_len: 0,
            notes: Vec::new(),
        }
    }

    /// The view in lines of at most `width` columns.
    pub(super) fn lines(&self, width: usize) -> Vec<Line> {
        let mut lines = wrapped(&self.request, width, 2, Style::Plain);
        lines.push(Line::new(Style::Dim, &self.status));
        lines.push(Line::empty());
        let name_width = self.headers.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(22);
        for (name, value) in &self.headers {
            lines.extend(header_lines(name, value, name_width, width, self.accent));
        }
        lines.push(Line::empty());
        lines.extend(self.hex_lines(width));
        if !self.notes.is_empty() {
            lines.push(Line::empty());
        }
        for note in &self.notes {
            lines.extend(wrapped(note, width, 0, Style::Dim));
        }
        lines
    }

    fn hex_lines(&self, width: usize) -> Vec<Line> {
        let per_row = if width >= hex_width(16) { 16 } else { 8 };
        let rows = self.bytes.chunks(per_row).enumerate();
        rows.map(|(row, bytes)| self.hex_line(row * per_row, bytes, per_row)).collect()
    }

    fn hex_line(&self, offset: usize, bytes: &[u8], per_row: usize) -> Line {
        let style = if offset < self.header_len { Style::Structure } else { self.accent };
        let mut hex = String::new();
        for index in 0..per_row {
            if index == 8 {
                hex.push(' ');
            }
            match bytes.get(index) {
                Some(byte) => hex.push_str(&format!("{byte:02x} ")),
                None => hex.push_str("   "),
            }
        }
        let text: String =
            bytes.iter().map(|&b| if (0x20..0x7F).contains(&b) { char::from(b) } else { '·' }).collect();
        let mut line = Line::new(Style::Dim, &format!("{offset:04x}  "));
        line.add(style, &hex);
        line.add(style, &format!(" {text}"));
        line
    }
}

/// Columns of a row of the dump with `per_row` bytes.
pub(super) const fn hex_width(per_row: usize) -> usize {
    6 + 3 * per_row + (per_row > 8) as usize + 1 + per_row
}

fn sealed_notes(header: &UnitHeader) -> Vec<String> {
    let context = &header.context;
    let what = match context.kind {
        Kind::Single => format!("one body of {} plaintext bytes", context.length),
        Kind::Part => format!("part {} with {} plaintext bytes", context.number, context.length),
        Kind::Footer | Kind::Envelope => "no body".to_owned(),
    };
    vec![
        format!(
            "Bytes 0 to 5f: the header. It says: {what}, which epoch's key, and a commitment to the key."
        ),
        "From 60 on: AES-256-GCM under a key that the provider never had.".to_owned(),
        "x-amz-meta-claviger: your headers and metadata, sealed under this object's name.".to_owned(),
    ]
}

fn shown_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let shown = headers.iter().filter(|(name, _)| !NOT_SHOWN.contains(&name.as_str()));
    let mut shown: Vec<_> = shown
        .map(|(name, value)| {
            (name.as_str().to_owned(), printable(&String::from_utf8_lossy(value.as_bytes())))
        })
        .collect();
    // What every object has first, metadata last.
    shown.sort_by_key(|(name, _)| (name.starts_with("x-amz-meta-"), name.starts_with("x-"), name.clone()));
    shown
}

fn header_lines(name: &str, value: &str, name_width: usize, width: usize, accent: Style) -> Vec<Line> {
    let indent = name_width + 2;
    let room = width.saturating_sub(indent).max(8);
    let mut pieces = pieces(value, room).into_iter();
    let mut first = Line::new(Style::Dim, &format!("{name:<name_width$}  "));
    // A name that is too long for its column gets a line of its own.
    let name_alone = name.chars().count() > name_width;
    let style = if name.starts_with("x-amz-meta-") { accent } else { Style::Plain };
    if !name_alone {
        first.add(style, &pieces.next().unwrap_or_default());
    }
    let mut lines = vec![first];
    for piece in pieces {
        let mut line = Line::new(Style::Plain, &" ".repeat(indent));
        line.add(style, &piece);
        lines.push(line);
    }
    lines
}

/// Cut at spaces where there are some, else anywhere.
fn wrapped(text: &str, width: usize, indent: usize, style: Style) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ').flat_map(|word| pieces(word, width.saturating_sub(indent).max(8))) {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(Line::new(style, &line));
            line = " ".repeat(indent);
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(Line::new(style, &line));
    lines
}

/// At most `len` characters each; one empty piece for an empty text.
fn pieces(text: &str, len: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    if characters.is_empty() {
        return vec![String::new()];
    }
    characters.chunks(len).map(|piece| piece.iter().collect()).collect()
}

/// Control characters of a stored name or value must not reach the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;

    fn reply(body: &[u8], headers: &[(&'static str, &str)]) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        Reply { status: StatusCode::OK, headers: map, body: body.to_vec() }
    }

    fn text(view: &View, width: usize) -> String {
        view.lines(width).iter().map(|line| line.plain() + "\n").collect()
    }

    #[test]
    fn the_dump_shows_offset_hex_and_text() {
        let view = View::of_user(&reply(b"Hello from here.!\n", &[]), "bkt", "k");
        let text = text(&view, 80);
        assert!(
            text.contains("0000  48 65 6c 6c 6f 20 66 72  6f 6d 20 68 65 72 65 2e  Hello from here."),
            "{text}"
        );
        assert!(text.contains("0010  21 0a "), "{text}");
        assert!(text.contains(" !·"), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_asked_for() {
        let long = "a".repeat(700);
        let headers = [("x-amz-meta-claviger", long.as_str()), ("content-type", "text/plain")];
        let view = View::of_provider(&reply(&[0xAB; 192], &headers), "bkt", &"key".repeat(200));
        for width in [44, 60, 77, 120] {
            for line in view.lines(width) {
                assert!(line.width() <= width, "{} at {width}", line.plain());
            }
        }
    }

    #[test]
    fn noise_is_left_out_and_metadata_comes_last() {
        let headers = [("x-amz-meta-a", "1"), ("server", "x"), ("etag", "\"e\""), ("x-amz-version-id", "v")];
        let text = text(&View::of_user(&reply(b"x", &headers), "b", "k"), 80);
        assert!(!text.contains("server"), "{text}");
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("etag") < at("x-amz-version-id") && at("x-amz-version-id") < at("x-amz-meta-a"), "{text}");
    }

    #[test]
    fn what_was_stored_can_not_send_commands_to_the_terminal() {
        let view = View::of_user(&reply(b"\x1b[2J", &[]), "b", "\u{1b}[31mred");
        assert!(!text(&view, 80).contains('\u{1b}'));
    }
}
