//! RFC 5424.

use claviger_audit::Line;
use time::OffsetDateTime;

use super::super::select::{self, Fields};

/// RFC 5424 §6.2.1: facility 13, "log audit".
const FACILITY: u32 = 13;
const WARNING: u32 = 4;
const INFORMATIONAL: u32 = 6;

/// `<PRI>1 TIME HOST claviger - ACTION - TEXT` (RFC 5424 §6). A text that is not ASCII begins with a byte order mark, as
/// §6.4 demands.
pub(super) fn message(line: &Line<'_>, fields: &Fields, hostname: &str) -> String {
    let severity = if fields.outcome == "refused" { WARNING } else { INFORMATIONAL };
    let priority = 8 * FACILITY + severity;
    let text = select::text(line);
    let mark = if text.is_ascii() { "" } else { "\u{feff}" };
    let action = message_id(&fields.action);
    format!("<{priority}>1 {} {hostname} claviger - {action} - {mark}{text}", timestamp(fields.time_ms))
}

/// RFC 5424 §6.2.3; `-` for a time that can't be written.
fn timestamp(unix_ms: u64) -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .ok()
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_else(|| "-".to_owned())
}

/// MSGID: up to 32 printable ASCII characters.
fn message_id(action: &str) -> &str {
    let is_id =
        !action.is_empty() && action.len() <= 32 && action.bytes().all(|byte| byte.is_ascii_graphic());
    if is_id { action } else { "-" }
}

/// HOSTNAME: up to 255 printable ASCII characters.
pub(super) fn hostname(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err("up to 255 characters of ASCII without spaces".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(record: &str) -> String {
        let line = Line { index: 7, salt: [0; 16], record };
        message(&line, &serde_json::from_str(record).unwrap(), "keys.example")
    }

    #[test]
    fn messages_have_the_form_of_rfc_5424() {
        let record = r#"{"time_ms":1750000000042,"action":"derive","outcome":"released"}"#;
        let salt = "0".repeat(32);
        assert_eq!(
            of(record),
            format!(
                "<110>1 2025-06-15T15:06:40.042Z keys.example claviger - derive - \
                 {{\"index\":7,\"salt\":\"{salt}\",\"record\":{record}}}"
            )
        );
    }

    #[test]
    fn refusals_are_warnings_and_a_text_in_utf_8_says_so() {
        let refused = of(r#"{"time_ms":1,"action":"lease","outcome":"refused","key":"ä"}"#);
        assert!(refused.starts_with("<108>1 1970-01-01T00:00:00.001Z "), "{refused}");
        assert!(refused.contains(" - \u{feff}{\"index\""), "{refused}");
    }

    #[test]
    fn what_can_not_stand_in_a_header_does_not() {
        let odd = of(r#"{"time_ms":18446744073709551615,"action":"with space","outcome":"done"}"#);
        assert!(odd.starts_with("<110>1 - keys.example claviger - - - {"), "{odd}");
        assert!(hostname("two words").is_err() && hostname("").is_err());
    }
}
