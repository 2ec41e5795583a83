//! Dates as S3 writes and reads them. All times are milliseconds since the Unix epoch.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

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

/// Appends what [`iso8601`] gives. A page of a listing has a thousand of them, and every request has some times in its
/// headers and its signature, so the forms that S3 writes are written and read by hand.
pub(crate) fn push_iso8601(out: &mut String, ms: u64) {
    let date = date_of(ms);
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second, millisecond) = date.as_hms_milli();
    let (century, year) = (year.unsigned_abs() / 100, year.unsigned_abs() % 100);
    let [c1, c0] = two_digits(century);
    let [y1, y0] = two_digits(year);
    let [mo1, mo0] = two_digits(u8::from(month).into());
    let [d1, d0] = two_digits(day.into());
    let [h1, h0] = two_digits(hour.into());
    let [mi1, mi0] = two_digits(minute.into());
    let [s1, s0] = two_digits(second.into());
    let [ms2, ms1] = two_digits(u32::from(millisecond) / 10);
    let [_, ms0] = two_digits(u32::from(millisecond) % 10);
    let text: [u8; ISO_LEN] = [
        c1, c0, y1, y0, b'-', mo1, mo0, b'-', d1, d0, b'T', h1, h0, b':', mi1, mi0, b':', s1, s0, b'.', ms2,
        ms1, ms0, b'Z',
    ];
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
}

/// A number below 100 in decimal.
fn two_digits(value: u32) -> [u8; 2] {
    let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or(0);
    [digit(value / 10), digit(value)]
}

fn push_after(out: &mut String, before: char, value: u8) {
    out.push(before);
    push_digits(out, u32::from(value), 2);
}

fn push_digits(out: &mut String, value: u32, width: u32) {
    for place in (0..width).rev() {
        let digit = value / 10_u32.pow(place) % 10;
        out.push(char::from_digit(digit, 10).unwrap_or('0'));
    }
}

/// `Sun, 15 Jun 2025 15:06:40 GMT`, as headers carry it (RFC 9110 §5.6.7); milliseconds are cut.
pub fn http_date(ms: u64) -> String {
    let date = date_of(ms);
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second) = date.as_hms();
    let mut text = String::with_capacity(HTTP_LEN);
    text.push_str(WEEKDAYS[usize::from(date.weekday().number_days_from_sunday())]);
    text.push(',');
    push_after(&mut text, ' ', day);
    text.push(' ');
    text.push_str(MONTHS[usize::from(u8::from(month)) - 1]);
    text.push(' ');
    push_digits(&mut text, year.unsigned_abs(), 4);
    push_after(&mut text, ' ', hour);
    push_after(&mut text, ':', minute);
    push_after(&mut text, ':', second);
    text.push_str(" GMT");
    text
}

/// `20250615T150640Z`, as Signature Version 4 carries it; milliseconds are cut.
pub fn amz_date(ms: u64) -> String {
    let date = date_of(ms);
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second) = date.as_hms();
    let mut text = String::with_capacity(AMZ_LEN);
    push_digits(&mut text, year.unsigned_abs(), 4);
    push_digits(&mut text, u32::from(u8::from(month)), 2);
    push_digits(&mut text, u32::from(day), 2);
    push_after(&mut text, 'T', hour);
    push_digits(&mut text, u32::from(minute), 2);
    push_digits(&mut text, u32::from(second), 2);
    text.push('Z');
    text
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
    let small = |from| small_number(bytes, from);
    let is_laid_out =
        is_at(4, b'-') && is_at(7, b'-') && is_at(10, b'T') && is_at(13, b':') && is_at(16, b':');
    let milliseconds = match bytes.len() {
        20 if is_at(19, b'Z') => 0,
        ISO_LEN if is_at(19, b'.') && is_at(23, b'Z') => number(bytes, 20, 3)?,
        _ => return None,
    };
    if !is_laid_out {
        return None;
    }
    let month = Month::try_from(small(5)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(bytes, 0, 4)?), month, small(8)?).ok()?;
    let time = Time::from_hms_milli(small(11)?, small(14)?, small(17)?, milliseconds).ok()?;
    Some(PrimitiveDateTime::new(date, time))
}

/// The digits that stand there, up to four.
fn number(bytes: &[u8], from: usize, len: usize) -> Option<u16> {
    bytes.get(from..from + len)?.iter().try_fold(0_u16, |sum, &byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u16::from(digit))
    })
}

fn small_number(bytes: &[u8], from: usize) -> Option<u8> {
    number(bytes, from, 2).and_then(|value| u8::try_from(value).ok())
}

/// Reads the three date forms of RFC 9110 §5.6.7; a date before 1970 reads as 0. `None` when malformed.
pub fn parse_http_date(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(date) = parse_fixed_http_date(text.as_bytes()) {
        return Some(to_ms(date.assume_utc()).unwrap_or(0));
    }
    let date = PrimitiveDateTime::parse(text, HTTP_DATE)
        .or_else(|_| PrimitiveDateTime::parse(text, ASCTIME))
        .ok()
        .or_else(|| parse_rfc_850(text))?;
    Some(to_ms(date.assume_utc()).unwrap_or(0))
}

/// The preferred form, as all servers write it; other readings are for the full parser.
fn parse_fixed_http_date(text: &[u8]) -> Option<PrimitiveDateTime> {
    let (weekday, rest) = text.split_at_checked(3)?;
    let is_laid_out = text.len() == HTTP_LEN
        && rest.starts_with(b", ")
        && [(7, b' '), (11, b' '), (16, b' '), (19, b':'), (22, b':')]
            .iter()
            .all(|&(at, byte)| text[at] == byte)
        && text.ends_with(b" GMT");
    if !is_laid_out {
        return None;
    }
    let month = MONTHS.iter().position(|name| name.as_bytes() == &text[8..11])?;
    let month = Month::try_from(u8::try_from(month + 1).ok()?).ok()?;
    let date =
        Date::from_calendar_date(i32::from(number(text, 12, 4)?), month, small_number(text, 5)?).ok()?;
    let named = WEEKDAYS[usize::from(date.weekday().number_days_from_sunday())];
    let small = |from| small_number(text, from);
    let time = Time::from_hms(small(17)?, small(20)?, small(23)?).ok()?;
    (named.as_bytes() == weekday).then(|| PrimitiveDateTime::new(date, time))
}

/// Reads `20250615T150640Z`; `None` when malformed or before 1970.
pub fn parse_amz_date(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != AMZ_LEN || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let small = |from| small_number(bytes, from);
    let month = Month::try_from(small(4)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(bytes, 0, 4)?), month, small(6)?).ok()?;
    let time = Time::from_hms(small(9)?, small(11)?, small(13)?).ok()?;
    to_ms(PrimitiveDateTime::new(date, time).assume_utc())
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
/// Bytes of `20250615T150640Z`.
const AMZ_LEN: usize = 16;
/// Bytes of `Sun, 15 Jun 2025 15:06:40 GMT`.
const HTTP_LEN: usize = 29;

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Times beyond the year 9999 do not occur; they are shown as the last one that the formats can express.
fn date_of(ms: u64) -> PrimitiveDateTime {
    const MS_MAX: u64 = 253_402_300_799_999;
    let ms = ms.min(MS_MAX);
    let seconds = i64::try_from(ms / 1000).unwrap_or(0);
    let date = OffsetDateTime::from_unix_timestamp(seconds).expect("years 1970 to 9999 are in range");
    let date = PrimitiveDateTime::new(date.date(), date.time());
    let millisecond = u16::try_from(ms % 1000).unwrap_or(0);
    date.replace_millisecond(millisecond).expect("less than 1,000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_750_000_000_123;
    const AMZ_DATE: &[BorrowedFormatItem<'_>] =
        format_description!("[year][month][day]T[hour][minute][second]Z");

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
            let whole_s = ms / 1000 * 1000;
            for (text, form) in [(amz_date(ms), AMZ_DATE), (http_date(ms), HTTP_DATE)] {
                prop_assert_eq!(&date_of(ms).format(form).unwrap(), &text);
                prop_assert_eq!(to_ms(PrimitiveDateTime::parse(&text, form).unwrap().assume_utc()), Some(whole_s));
            }
            prop_assert_eq!(parse_amz_date(&amz_date(ms)), Some(whole_s));
            prop_assert_eq!(parse_fixed_http_date(http_date(ms).as_bytes()).map(PrimitiveDateTime::assume_utc).and_then(to_ms), Some(whole_s));
        }

        #[test]
        fn what_is_read_by_hand_the_full_parser_reads_too(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{3})?Z") {
            let full = OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc3339);
            if let Some(date) = parse_iso8601_as_s3_writes_it(&text) {
                prop_assert_eq!(Ok(date.assume_utc()), full);
            }
        }

        #[test]
        fn headers_are_read_by_hand_as_the_full_parser_reads_them(
            amz in "[0-9]{4}[01][0-9][0-3][0-9]T[0-2][0-9][0-6][0-9][0-6][0-9]Z",
            http in "(Mon|Sun|Tue|Xyz), [0-3][0-9] (Jan|Feb|Dec|dec) (19|20)[0-9]{2} [0-2][0-9]:[0-6][0-9]:[0-6][0-9] (GMT|UTC)",
        ) {
            let full = PrimitiveDateTime::parse(&amz, AMZ_DATE).ok().map(PrimitiveDateTime::assume_utc);
            prop_assert_eq!(parse_amz_date(&amz), full.and_then(to_ms));
            if let Some(date) = parse_fixed_http_date(http.as_bytes()) {
                prop_assert_eq!(PrimitiveDateTime::parse(&http, HTTP_DATE), Ok(date));
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
