//! The lines of a text: one rule for where they end, whoever wrote the text.

use memchr::memchr2;

/// The byte order mark, U+FEFF.
pub const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The end of a file in CP/M and DOS, U+001A, which some programs still append.
pub const CONTROL_Z: char = '\u{1a}';

/// One line of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'t> {
    /// Where it begins in the text.
    pub at: usize,
    /// The line as it stands there, with what ends it.
    pub whole: &'t str,
    /// What it says: without its end, and without byte order marks and Ctrl-Z at its start, which
    /// remain where files were put one behind the other.
    pub text: &'t str,
}

impl<'t> Line<'t> {
    /// The line with its end, and without the marks at its start.
    #[inline]
    pub fn without_marks(self) -> &'t str {
        let end =
            line_end(&self.whole.as_bytes()[self.whole.trim_end_matches(['\r', '\n']).len()..]);
        &self.whole[self.whole.len() - end - self.text.len()..]
    }
}

/// The lines of a text, which end in LF, CRLF or CR. The last one needs no end; an empty text has no
/// line.
pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let end = memchr2(b'\n', b'\r', rest.as_bytes()).unwrap_or(rest.len());
        let line = Line {
            at,
            whole: &rest[..end + line_end(&rest.as_bytes()[end..])],
            text: joint(&rest[..end]),
        };
        at += line.whole.len();
        Some(line)
    })
}

/// How many bytes end a line at the beginning of `bytes`: none if no line ends here.
#[inline]
pub fn line_end(bytes: &[u8]) -> usize {
    match bytes {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    }
}

/// A line without the marks at its start.
#[inline]
pub fn joint(line: &str) -> &str {
    line.trim_start_matches(['\u{feff}', CONTROL_Z])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        lines(text).map(|line| line.text).collect()
    }

    #[test]
    fn every_line_end_ends_a_line() {
        for (text, expected) in [
            ("", &[][..]),
            ("\n", &[""]),
            ("1\n2\n3\n", &["1", "2", "3"]),
            ("1\r2\r3\r", &["1", "2", "3"]),
            ("1\r\n2\r\n3", &["1", "2", "3"]),
            ("1\r\r2\r", &["1", "", "2"]),
            ("1\n\r2", &["1", "", "2"]),
            ("1\r\r\n2", &["1", "", "2"]),
            ("1\u{85}2\u{2028}3\x0b4\x0c5", &["1\u{85}2\u{2028}3\x0b4\x0c5"]),
        ] {
            assert_eq!(texts(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_files_leave_where_they_meet_is_no_text() {
        let met = "\u{feff}a\n\u{feff}b\r\x1a\u{feff}\u{feff}c\u{feff}\n\u{feff}\n";
        assert_eq!(texts(met), ["a", "b", "c\u{feff}", ""]);
    }

    proptest! {
        #[test]
        fn the_whole_lines_are_the_text(text in "[ab\r\n\u{feff}\u{1a}é]{0,40}") {
            let mut at = 0;
            for line in lines(&text) {
                prop_assert_eq!((line.at, line.whole), (at, &text[at..at + line.whole.len()]));
                prop_assert!(!line.text.contains(['\r', '\n']));
                let end = line.without_marks().strip_prefix(line.text).expect("the text comes first");
                prop_assert!(["", "\n", "\r\n", "\r"].contains(&end) && line.whole.ends_with(end));
                at += line.whole.len();
            }
            prop_assert_eq!(at, text.len());
            let ended = text.replace("\r\n", "\n").replace('\r', "\n");
            let expected: Vec<_> = ended.split_terminator('\n').map(joint).collect();
            prop_assert_eq!(texts(&text), expected);
        }
    }
}
