//! Dates as S3 writes and reads them. All times are milliseconds since the Unix epoch.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

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
    let mut text = String::with_capacity(ISO_LEN);
    push_iso8601(&mut text, ms);
    text
}

/// Appends what [`iso8601`] gives. A page of a listing has a thousand of them, so it is written by hand.
pub(crate) fn push_iso8601(out: &mut String, ms: u64) {
    let date = date_of(ms);
    let (year, month, day) = date.to_calendar_date();
    push_digits(out, year.unsigned_abs(), 4);
    let (hour, minute, second, millisecond) = date.as_hms_milli();
    for (before, value, width) in [
        ('-', u32::from(u8::from(month)), 2),
        ('-', u32::from(day), 2),
        ('T', u32::from(hour), 2),
        (':', u32::from(minute), 2),
        (':', u32::from(second), 2),
        ('.', u32::from(millisecond), 3),
    ] {
        out.push(before);
        push_digits(out, value, width);
    }
    out.push('Z');
}

fn push_digits(out: &mut String, value: u32, width: u32) {
    for place in (0..width).rev() {
        let digit = value / 10_u32.pow(place) % 10;
        out.push(char::from_digit(digit, 10).unwrap_or('0'));
    }
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
    let text = text.trim();
    if let Some(date) = parse_iso8601_as_s3_writes_it(text) {
        return to_ms(date.assume_utc());
    }
    to_ms(OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?)
}

/// `2025-06-15T15:06:40.123Z`, with or without milliseconds; other forms of the same time are for the full parser.
fn parse_iso8601_as_s3_writes_it(text: &str) -> Option<PrimitiveDateTime> {
    let bytes = text.as_bytes();
    let is_at = |at: usize, wanted: u8| bytes.get(at) == Some(&wanted);
    let number = |from: usize, len: usize| {
        let digits = bytes.get(from..from + len)?;
        digits.iter().try_fold(0_u16, |sum, &byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
            sum.checked_mul(10)?.checked_add(u16::from(digit))
        })
    };
    let small = |from: usize| number(from, 2).and_then(|value| u8::try_from(value).ok());
    let is_laid_out =
        is_at(4, b'-') && is_at(7, b'-') && is_at(10, b'T') && is_at(13, b':') && is_at(16, b':');
    let milliseconds = match bytes.len() {
        20 if is_at(19, b'Z') => 0,
        ISO_LEN if is_at(19, b'.') && is_at(23, b'Z') => number(20, 3)?,
        _ => return None,
    };
    if !is_laid_out {
        return None;
    }
    let month = Month::try_from(small(5)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(0, 4)?), month, small(8)?).ok()?;
    let time = Time::from_hms_milli(small(11)?, small(14)?, small(17)?, milliseconds).ok()?;
    Some(PrimitiveDateTime::new(date, time))
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
    let seconds = u64::try_from(date.unix_timestamp()).ok()?;
    Some(seconds * 1000 + u64::from(date.millisecond()))
}

/// Bytes of `2025-06-15T15:06:40.000Z`.
const ISO_LEN: usize = 24;

fn date_of(ms: u64) -> PrimitiveDateTime {
    const MS_MAX: u64 = 253_402_300_799_999;
    let ms = ms.min(MS_MAX);
    let seconds = i64::try_from(ms / 1000).unwrap_or(0);
    let date = OffsetDateTime::from_unix_timestamp(seconds).expect("years 1970 to 9999 are in range");
    let date = PrimitiveDateTime::new(date.date(), date.time());
    let millisecond = u16::try_from(ms % 1000).unwrap_or(0);
    date.replace_millisecond(millisecond).expect("less than 1,000")
}

/// Times beyond the year 9999 do not occur; they are shown as the last one that the formats can express.
fn format(ms: u64, form: &[BorrowedFormatItem<'_>]) -> String {
    date_of(ms).format(form).expect("every component of the form exists in a full date")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn what_is_written_by_hand_is_what_the_full_parser_reads(ms in 0..253_402_300_800_000_u64) {
            let text = iso8601(ms);
            let full = OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc3339).unwrap();
            prop_assert_eq!(to_ms(full), Some(ms));
            prop_assert_eq!(parse_iso8601(&text), Some(ms));
        }

        #[test]
        fn what_is_read_by_hand_the_full_parser_reads_too(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{3})?Z") {
            let full = OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc3339);
            if let Some(date) = parse_iso8601_as_s3_writes_it(&text) {
                prop_assert_eq!(Ok(date.assume_utc()), full);
            }
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
