//! The time, and how it is shown.

use std::time::{SystemTime, UNIX_EPOCH};

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Seconds since 1970, for people.
pub(crate) fn date(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("Unix second {seconds}"))
}

/// Reads a time in the form of RFC 3339, a date for its first second in UTC, or seconds since 1970.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "'{text}' is not a time such as 2026-10-08T01:09:46Z, 2026-10-08T03:09:46+02:00, \
             2026-10-08 (midnight UTC) or 1791421786 (Unix seconds)"
        )
    };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| wrong());
    }
    let date = match Date::parse(text, format_description!("[year]-[month]-[day]")) {
        Ok(date) => date.midnight().assume_utc(),
        // RFC 3339 lets a blank stand for the T.
        Err(_) => OffsetDateTime::parse(&text.replacen(' ', "T", 1), &Rfc3339).map_err(|_| {
            let zoned =
                OffsetDateTime::parse(&format!("{}Z", text.replacen(' ', "T", 1)), &Rfc3339);
            match zoned {
                Ok(_) => format!("'{text}' names no time zone: add Z, or an offset such as +02:00"),
                Err(_) => wrong(),
            }
        })?,
    };
    u64::try_from(date.unix_timestamp()).map_err(|_| format!("'{text}' is before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_the_forms_that_people_have() {
        for (text, seconds) in [
            ("2026-10-08T01:09:46Z", 1_791_421_786),
            ("2026-10-08t01:09:46z", 1_791_421_786),
            ("2026-10-08T03:09:46+02:00", 1_791_421_786),
            ("2026-10-07 20:09:46-05:00", 1_791_421_786),
            ("2026-10-08T01:09:46.999Z", 1_791_421_786),
            ("1791421786", 1_791_421_786),
            ("2026-10-08", 1_791_417_600),
            ("0", 0),
            ("1970-01-01", 0),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
        for (text, says) in [
            ("2026-10-08T01:09:46", "names no time zone"),
            ("2026-10-08 01:09:46", "names no time zone"),
            ("2026-02-30", "is not a time such as"),
            ("2026-10-08T25:00:00Z", "is not a time such as"),
            ("08.10.2026", "is not a time such as"),
            ("99999999999999999999", "is not a time such as"),
            ("-1", "is not a time such as"),
            ("", "is not a time such as"),
            ("1969-12-31T23:59:59Z", "before 1970"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert_eq!(date(parse("2026-10-08").unwrap()), "2026-10-08T00:00:00Z");
    }
}
