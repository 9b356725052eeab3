//! A day of the Gregorian calendar, as ISO 8601 writes it: 1980-01-11.

use convelo_psi::DateOrder;

use crate::decimal;
use crate::digits::intruder;
use crate::dropped::Reason;
use crate::plain::{half_width, is_dash};
use crate::surroundings::trim;

/// Writes a date that has its parts in this order, or begins with a year of four digits, as ISO 8601.
pub(crate) fn date(text: &mut String, spare: &mut String, order: DateOrder) -> Result<(), Reason> {
    trim(text);
    if text.is_empty() {
        return Ok(());
    }
    spare.clear();
    spare.extend(text.chars().map(plain));
    let written = without_midnight(spare.trim_end())?;
    let (year, month, day) = read(written, order)?;
    text.clear();
    std::fmt::Write::write_fmt(text, format_args!("{year:04}-{month:02}-{day:02}"))
        .expect("a String takes any text");
    Ok(())
}

/// Digits in ASCII, one hyphen, one space.
fn plain(c: char) -> char {
    match c {
        _ if is_dash(c) => '-',
        _ if c.is_whitespace() => ' ',
        _ => half_width(decimal::in_ascii(c)),
    }
}

/// A date without the time that exports append to it: midnight, in any time zone. Any other time
/// says that the day depends on where one is.
fn without_midnight(text: &str) -> Result<&str, Reason> {
    let is_digit = |c: char| c.is_ascii_digit();
    let separated = text.split_once(['T', 't']).filter(|(date, _)| date.ends_with(is_digit));
    let (date, time) = match (separated, text.find(':')) {
        (Some((date, time)), _) => (date, time),
        // The time begins behind the last space before its first colon.
        (None, Some(colon)) => text[..colon]
            .rfind(' ')
            .map_or((text, ""), |space| (&text[..space], &text[space + 1..])),
        (None, None) => return Ok(text),
    };
    if !date.starts_with(is_digit) {
        return Ok(text);
    }
    let (time, zone) = time.split_at(time.find(['Z', 'z', '+', '-']).unwrap_or(time.len()));
    let zone = zone.trim_start_matches(['Z', 'z', '+', '-']);
    if !zone.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') {
        return Err(Reason::TimeOfDay);
    }
    let lower = time.trim().to_ascii_lowercase();
    let (clock, twelve) = match lower.strip_suffix("am") {
        Some(clock) => (clock.trim_end(), true),
        None => (lower.as_str(), false),
    };
    let clock = match clock.strip_prefix("12") {
        Some(rest) if twelve => rest,
        _ => clock,
    };
    let midnight = clock.bytes().all(|byte| matches!(byte, b'0' | b':' | b'.' | b','));
    if midnight && !time.is_empty() { Ok(date.trim_end()) } else { Err(Reason::TimeOfDay) }
}

/// Reads a date in one of its forms.
fn read(text: &str, order: DateOrder) -> Result<(u32, u32, u32), Reason> {
    if let Some(c) = text.chars().find(|c| !matches!(c, '0'..='9' | '-' | '.' | '/' | ' ')) {
        return Err(intruder(c, text));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return compact(text, order);
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let separator = match text.find(['-', '.', '/']) {
        Some(at) => char::from(text.as_bytes()[at]),
        None => ' ',
    };
    let mut parts =
        text.split(separator).map(str::trim).filter(|part| separator != ' ' || !part.is_empty());
    let (Some(first), Some(second), Some(third), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Reason::DateOrder);
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if ![first, second, third].into_iter().all(digits) {
        return Err(Reason::DateOrder);
    }
    let order = if first.len() == 4 { DateOrder::Ymd } else { order };
    let (year, month, day) = match order {
        DateOrder::Dmy => (third, second, first),
        DateOrder::Mdy => (third, first, second),
        DateOrder::Ymd => (first, second, third),
    };
    match (year.len(), month.len(), day.len()) {
        (4, 1..=2, 1..=2) => day_of(year, month, day),
        (2, 1..=2, 1..=2) => Err(Reason::ShortYear),
        _ => Err(Reason::DateOrder),
    }
}

/// Eight digits in a row. Behind each other, the parts of another order may be a date too.
fn compact(text: &str, order: DateOrder) -> Result<(u32, u32, u32), Reason> {
    match text.len() {
        8 => (),
        6 => return Err(Reason::ShortYear),
        _ => return Err(Reason::DateOrder),
    }
    let year_first = day_of(&text[..4], &text[4..6], &text[6..]);
    let stated = match order {
        DateOrder::Dmy => day_of(&text[4..], &text[2..4], &text[..2]),
        DateOrder::Mdy => day_of(&text[4..], &text[..2], &text[2..4]),
        DateOrder::Ymd => return year_first,
    };
    match (stated, year_first) {
        (Ok(stated), Ok(other)) if stated != other => Err(Reason::Ambiguous),
        (stated, _) => stated,
    }
}

/// A day that is in the calendar, in a year of four digits that does not begin with 0.
fn day_of(year: &str, month: &str, day: &str) -> Result<(u32, u32, u32), Reason> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| Reason::DateOrder);
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    if year >= 1000 && (1..=days).contains(&day) {
        Ok((year, month, day))
    } else {
        Err(Reason::NoSuchDay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, order: DateOrder) -> Result<String, Reason> {
        let (mut text, mut spare) = (text.to_owned(), String::new());
        date(&mut text, &mut spare, order).map(|()| text)
    }

    #[test]
    fn a_day_as_iso_8601_writes_it() {
        use DateOrder::{Dmy, Mdy, Ymd};
        for (text, order, expected) in [
            ("11.1.1980", Dmy, "1980-01-11"),
            ("11. 1. 1980", Dmy, "1980-01-11"),
            ("11/01/1980", Dmy, "1980-01-11"),
            ("11-1-1980", Dmy, "1980-01-11"),
            ("11 01 1980", Dmy, "1980-01-11"),
            ("11011980", Dmy, "1980-01-11"),
            ("1/11/1980", Mdy, "1980-01-11"),
            ("1980-1-11", Ymd, "1980-01-11"),
            ("1980-11-1", Ymd, "1980-11-01"),
            ("1980.01.11.", Ymd, "1980-01-11"),
            ("19800111", Ymd, "1980-01-11"),
            ("1980-01-11", Dmy, "1980-01-11"),
            ("1980-01-11", Mdy, "1980-01-11"),
            ("1980–01–11", Ymd, "1980-01-11"),
            ("١٩٨٠/١/١١", Ymd, "1980-01-11"),
            ("１９８０／１／１１", Ymd, "1980-01-11"),
            ("１１．１．１９８０", Dmy, "1980-01-11"),
            ("1980-01-11 00:00:00", Ymd, "1980-01-11"),
            ("1980-01-11T00:00:00.000Z", Ymd, "1980-01-11"),
            ("1980-01-11T00:00:00+02:00", Ymd, "1980-01-11"),
            ("11.1.1980 00:00", Dmy, "1980-01-11"),
            ("1/11/1980 12:00:00 AM", Mdy, "1980-01-11"),
            ("29.2.2000", Dmy, "2000-02-29"),
            ("31.12.9999", Dmy, "9999-12-31"),
            ("=\"1980-01-11\"", Ymd, "1980-01-11"),
            ("", Dmy, ""),
        ] {
            assert_eq!(found(text, order).as_deref(), Ok(expected), "{text} {order:?}");
        }
    }

    #[test]
    fn what_names_no_day_is_invalid() {
        use DateOrder::{Dmy, Mdy, Ymd};
        for (text, order, expected) in [
            ("30.2.1980", Dmy, Reason::NoSuchDay),
            ("29.2.1900", Dmy, Reason::NoSuchDay),
            ("13/13/1980", Mdy, Reason::NoSuchDay),
            ("0000-00-00", Ymd, Reason::NoSuchDay),
            ("0099-01-01", Ymd, Reason::NoSuchDay),
            ("13.1.1980", Mdy, Reason::NoSuchDay),
            ("1.11.80", Dmy, Reason::ShortYear),
            ("110180", Dmy, Reason::ShortYear),
            ("11.1.1980", Ymd, Reason::DateOrder),
            ("1.1980", Dmy, Reason::DateOrder),
            ("29231", Ymd, Reason::DateOrder),
            ("1980-01-11-2", Ymd, Reason::DateOrder),
            ("1.1-1980", Dmy, Reason::DateOrder),
            ("001.1.1980", Dmy, Reason::DateOrder),
            ("20101120", Dmy, Reason::Ambiguous),
            ("11 Jan 1980", Dmy, Reason::Letters),
            ("today", Dmy, Reason::Letters),
            ("1980-01-11T23:00:00Z", Ymd, Reason::TimeOfDay),
            ("1980-01-11 12:00:00", Ymd, Reason::TimeOfDay),
            ("1980-01-11 12:00:00 PM", Ymd, Reason::TimeOfDay),
            ("1980-01-11T", Ymd, Reason::TimeOfDay),
            ("11.1.1980?", Dmy, Reason::Character),
            ("-", Dmy, Reason::DateOrder),
        ] {
            assert_eq!(found(text, order), Err(expected), "{text} {order:?}");
        }
    }
}
