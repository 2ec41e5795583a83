//! Dates as S3 writes and reads them. All times are milliseconds since the Unix epoch.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const ISO_MS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const AMZ_DATE: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");
const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
const RFC_850: &[BorrowedFormatItem<'_>] =
    format_description!("[day]-[month repr:short]-[year] [hour]:[minute]:[second] GMT");
const ASCTIME: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]"
);

/// `2025-06-15T15:06:40.000Z`, as XML bodies carry it.
pub fn iso8601(ms: u64) -> String {
    format(ms, ISO_MS)
}

/// `Sun, 15 Jun 2025 15:06:40 GMT`, as headers carry it (RFC 9110 §5.6.7); milliseconds are cut.
pub fn http_date(ms: u64) -> String {
    format(ms, HTTP_DATE)
}

/// `20250615T150640Z`, as Signature Version 4 carries it; milliseconds are cut.
pub fn amz_date(ms: u64) -> String {
    format(ms, AMZ_DATE)
}

/// Reads an ISO 8601 / RFC 3339 time in UTC with or without fractions; `None` when malformed or before 1970.
pub fn parse_iso8601(text: &str) -> Option<u64> {
    let date = OffsetDateTime::parse(text.trim(), &time::format_description::well_known::Rfc3339).ok()?;
    to_ms(date)
}

/// Reads the three date forms of RFC 9110 §5.6.7; a date before 1970 reads as 0. `None` when malformed.
pub fn parse_http_date(text: &str) -> Option<u64> {
    let text = text.trim();
    let date = PrimitiveDateTime::parse(text, HTTP_DATE)
        .or_else(|_| PrimitiveDateTime::parse(text, ASCTIME))
        .ok()
        .or_else(|| parse_rfc_850(text))?;
    Some(to_ms(date.assume_utc()).unwrap_or(0))
}

/// Reads `20250615T150640Z`; `None` when malformed or before 1970.
pub fn parse_amz_date(text: &str) -> Option<u64> {
    to_ms(PrimitiveDateTime::parse(text, AMZ_DATE).ok()?.assume_utc())
}

/// The obsolete form `Sunday, 06-Nov-94 08:49:37 GMT`: its two year digits mean 1970 to 2069.
fn parse_rfc_850(text: &str) -> Option<PrimitiveDateTime> {
    let (_weekday, rest) = text.split_once(", ")?;
    let (day_month, year_time) = rest.get(..7).zip(rest.get(7..))?;
    let century = if year_time.get(..2)? < "70" { "20" } else { "19" };
    PrimitiveDateTime::parse(&format!("{day_month}{century}{year_time}"), RFC_850).ok()
}

fn to_ms(date: OffsetDateTime) -> Option<u64> {
    u64::try_from(date.unix_timestamp_nanos() / 1_000_000).ok()
}

/// Times beyond the year 9999 do not occur; they are shown as the last one that the formats can express.
fn format(ms: u64, form: &[BorrowedFormatItem<'_>]) -> String {
    const MS_MAX: u64 = 253_402_300_799_999;
    let nanos = i128::from(ms.min(MS_MAX)) * 1_000_000;
    let date = OffsetDateTime::from_unix_timestamp_nanos(nanos).expect("years 1970 to 9999 are in range");
    date.format(form).expect("every component of the form exists in a full date")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_750_000_000_123;

    #[test]
    fn the_three_forms_are_written_as_s3_writes_them() {
        assert_eq!(iso8601(MS), "2025-06-15T15:06:40.123Z");
        assert_eq!(http_date(MS), "Sun, 15 Jun 2025 15:06:40 GMT");
        assert_eq!(amz_date(MS), "20250615T150640Z");
        assert_eq!(iso8601(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn all_three_http_dates_are_read() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse_http_date(text), Some(784_111_777_000), "{text}");
        }
        assert_eq!(parse_http_date("Thu, 01 Jan 1960 00:00:00 GMT"), Some(0));
        for text in ["", "now", "Sun, 32 Nov 1994 08:49:37 GMT", "Sunday, é", "1994-11-06T08:49:37Z"] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn iso_dates_are_read_with_and_without_fractions() {
        assert_eq!(parse_iso8601("2025-06-15T15:06:40.123Z"), Some(MS));
        assert_eq!(parse_iso8601("2025-06-15T15:06:40Z"), Some(MS - 123));
        assert_eq!(parse_iso8601("2025-06-15T15:06:40.123456789Z"), Some(MS));
        assert_eq!(parse_iso8601("2025-06-15"), None);
        assert_eq!(parse_amz_date("20250615T150640Z"), Some(MS - 123));
        assert_eq!(parse_amz_date("20250615T150640"), None);
        assert_eq!(parse_amz_date("19600615T150640Z"), None);
    }
}
