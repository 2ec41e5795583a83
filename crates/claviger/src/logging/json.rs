//! One JSON object per event, all fields at the top: written straight into the line, since under load a request's line is
//! written as often as the request itself.

use std::cell::Cell;
use std::fmt::{self, Write as _};

use claviger_env::{Clock as _, SystemClock};
use claviger_s3::timestamp::iso8601;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

thread_local! {
    /// Where a thread's lines are put together, piece by piece, before each goes on as a whole.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

/// Formats events as `{"timestamp":…,"level":…,"message":…,FIELDS,"target":…}`.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // What records an event may log itself (a panic's hook does): it gets a line of its own then.
        let mut line = LINE.take();
        line.clear();
        let written = write_line(&mut line, event).and_then(|()| writer.write_str(&line));
        LINE.set(line);
        written
    }
}

fn write_line(line: &mut String, event: &Event<'_>) -> fmt::Result {
    let metadata = event.metadata();
    line.push_str("{\"timestamp\":\"");
    line.push_str(&iso8601(SystemClock.now_ms()));
    line.push_str("\",\"level\":\"");
    line.push_str(metadata.level().as_str());
    line.push('"');
    let mut fields = Fields { out: line, result: Ok(()) };
    event.record(&mut fields);
    fields.result?;
    line.push_str(",\"target\":\"");
    Escaped(line).write_str(metadata.target())?;
    line.push_str("\"}\n");
    Ok(())
}

/// Writes fields, each with a comma before it. The first failure ends it.
struct Fields<'a> {
    out: &'a mut String,
    result: fmt::Result,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl FnOnce(&mut String) -> fmt::Result) {
        if self.result.is_ok() {
            self.out.push_str(",\"");
            // A raw identifier's mark is no part of its name.
            self.out.push_str(field.name().strip_prefix("r#").unwrap_or(field.name()));
            self.out.push_str("\":");
            self.result = value(self.out);
        }
    }

    fn put_integer(&mut self, field: &Field, value: impl itoa::Integer) {
        self.put(field, |out| out.write_str(itoa::Buffer::new().format(value)));
    }

    fn put_text(&mut self, field: &Field, text: fmt::Arguments<'_>) {
        self.put(field, |out| {
            out.write_char('"')?;
            Escaped(out).write_fmt(text)?;
            out.write_char('"')
        });
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, |out| {
            out.write_char('"')?;
            Escaped(out).write_str(value)?;
            out.write_char('"')
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put_text(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put_integer(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put_integer(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put_integer(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put_integer(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities and nothing that is no number.
        self.put(field, |out| if value.is_finite() { write!(out, "{value}") } else { out.write_str("null") });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, |out| out.write_str(if value { "true" } else { "false" }));
    }
}

/// Writes text as the inside of a JSON string (RFC 8259 §7).
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
            self.0.write_str(&rest[..at])?;
            match rest.as_bytes()[at] {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                b'\r' => self.0.write_str("\\r")?,
                b'\t' => self.0.write_str("\\t")?,
                control => write!(self.0, "\\u{control:04x}")?,
            }
            rest = &rest[at + 1..];
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(log: impl FnOnce()) -> serde_json::Value {
        let sink = Sink::default();
        let written = sink.clone();
        let layer =
            tracing_subscriber::fmt::layer().event_format(JsonLines).with_writer(move || sink.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn every_kind_of_value_is_itself() {
        let error = io::Error::other("broken \"here\"");
        let line = line(|| {
            tracing::warn!(
                target: "claviger::access",
                count = 7_u64, below = -3_i64, share = 0.5, endless = f64::INFINITY, yes = true, r#type = "raw",
                some = Some("there"), none = Option::<&str>::None, shown = %"a", said = ?"b", %error, "a message"
            );
        });
        let expected = serde_json::json!({
            "timestamp": line["timestamp"], "level": "WARN", "target": "claviger::access", "message": "a message",
            "count": 7, "below": -3, "share": 0.5, "endless": null, "yes": true, "type": "raw", "some": "there",
            "shown": "a", "said": "\"b\"", "error": "broken \"here\"",
        });
        assert_eq!(line, expected);
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(claviger_s3::timestamp::parse_iso8601(timestamp).is_some(), "{timestamp}");
    }

    #[test]
    fn no_text_gets_out_of_its_string() {
        let all: String =
            (0..0x300).filter_map(char::from_u32).chain("\u{2028}\u{10ffff}\"}\\".chars()).collect();
        let line = line(|| tracing::info!(path = %all, again = all.as_str(), "{all}"));
        for name in ["path", "again", "message"] {
            assert_eq!(line[name], all, "{name}");
        }
    }
}
