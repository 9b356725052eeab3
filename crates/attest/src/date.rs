//! Unix seconds to and from the one date form of Intel's collateral, `2025-06-19T10:56:11Z`.

use std::time::Duration;

use x509_cert::der::DateTime;

pub(crate) const DAY: u64 = 24 * 60 * 60;

/// Parses `YYYY-MM-DDThh:mm:ssZ` into Unix seconds.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let date: DateTime = text.parse().ok()?;
    Some(date.unix_duration().as_secs())
}

/// Formats Unix seconds for a person, as `YYYY-MM-DDThh:mm:ssZ`.
pub(crate) fn show(seconds: u64) -> String {
    DateTime::from_unix_duration(Duration::from_secs(seconds))
        .map_or_else(|_| format!("Unix second {seconds}"), |date| date.to_string())
}

/// Formats a span for a person: seconds below two minutes, then minutes, hours, days.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_shown_in_intels_form() {
        assert_eq!(parse("2025-06-19T10:56:11Z"), Some(1_750_330_571));
        assert_eq!(show(1_750_330_571), "2025-06-19T10:56:11Z");
        for bad in ["2025-06-19T10:56:11+00:00", "2025-06-31T00:00:00Z", "2025-06-19", ""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(span(59), "59 s");
        assert_eq!(span(8 * DAY), "8 days");
    }
}
