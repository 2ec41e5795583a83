//! Times for people.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment as RFC 3339 writes it, UTC, to the second.
pub(crate) fn moment(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    moment
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{unix_ms} ms after 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_and_one_that_no_calendar_has_as_a_number() {
        assert_eq!(moment(1_780_000_000_999), "2026-05-28T20:26:40Z");
        assert_eq!(moment(u64::MAX), "18446744073709551615 ms after 1970");
    }
}
