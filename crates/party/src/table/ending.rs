//! What programs leave at the end of a text after its last row.

use convelo_untrusted::{CONTROL_Z, joint};

use crate::limits::ENDING_BYTES;

/// How much was left out at the end of a text, which is no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Ending {
    /// Lines of white space.
    pub blank_lines: u64,
    /// Whether the text ended with Ctrl-Z.
    pub control_z: bool,
    /// Lines in which a program tells how many rows it wrote, or how long that took.
    pub footers: u64,
}

/// The length of `tail` without what is no row, and what that was.
///
/// `tail` is the end of a text, `whole` says whether it is all of it. Only lines that are in it as a
/// whole are examined. White space that separates fields is not left out.
pub(super) fn trimmed(tail: &[u8], whole: bool, delimiter: Option<u8>) -> (usize, Ending) {
    let mut ending = Ending::default();
    let mut length = tail.len();
    loop {
        let rest = &tail[..length];
        let lines = rest.len() - rest.iter().rev().take_while(|byte| is_end(**byte)).count();
        let begin = rest[..lines].iter().rposition(|byte| is_end(*byte)).map_or(0, |at| at + 1);
        let Ok(line) = std::str::from_utf8(&rest[begin..lines]) else { break };
        if line.is_empty() || (begin == 0 && !whole) {
            break;
        }
        let text = line.trim_end_matches(CONTROL_Z);
        let blank = |c: char| {
            (c.is_whitespace() && Some(c as u32) != delimiter.map(u32::from)) || c == '\u{feff}'
        };
        if text.chars().all(|c| blank(c) || c == CONTROL_Z) {
            ending.control_z |= line.contains(CONTROL_Z);
            ending.blank_lines += u64::from(!line.contains(CONTROL_Z));
            length = begin;
        } else if text.len() < line.len() {
            ending.control_z = true;
            length = begin + text.len();
        } else if is_footer(joint(text).trim()) {
            ending.footers += 1;
            // The empty lines before it belong to it.
            let above = &tail[..begin];
            let rows = above.len() - above.iter().rev().take_while(|byte| is_end(**byte)).count();
            length = rows + convelo_untrusted::line_end(&above[rows..]);
        } else {
            break;
        }
    }
    (length, ending)
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Whether a line tells how many rows a query gave, as the command lines of databases do:
/// `(2 rows affected)`, `2 rows selected.`, `Time taken: 0.1 seconds, Fetched: 2 row(s)`.
pub(super) fn is_footer(line: &str) -> bool {
    let lower = line.to_lowercase();
    let inner = lower.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    if let Some(inner) = inner {
        let (number, words) = number(inner);
        return number && ROWS.iter().any(|row| words.trim_start().starts_with(row));
    }
    let timing = ["completion time: ", "time taken: ", "time: ", "elapsed: ", "query ok, "];
    if let Some(rest) = timing.iter().find_map(|timing| lower.strip_prefix(timing)) {
        return number(rest.trim_start()).0;
    }
    let totals =
        ["total rows: ", "total: ", "row count: ", "rows: ", "records: ", "total records: "];
    if let Some(rest) = totals.iter().find_map(|total| lower.strip_prefix(total)) {
        return number(rest) == (true, "");
    }
    let (number, words) = number(&lower);
    let Some(words) = number.then(|| words.trim_start()) else { return false };
    let counted = ["row(s)", "rows", "row", "record(s)", "records", "record"];
    let Some(rest) = counted.iter().find_map(|counted| words.strip_prefix(counted)) else {
        return false;
    };
    let verbs = [
        "selected",
        "affected",
        "returned",
        "in set",
        "fetched",
        "retrieved",
        "exported",
        "produced",
        "found",
        "written",
        "unloaded",
        "processed",
    ];
    let rest = rest.trim_start();
    verbs.iter().any(|verb| rest.starts_with(verb)) || (words.contains("(s)") && rest.len() < 2)
}

/// How the word for rows begins in the languages in which psql and sqlcmd say `(2 rows)`.
const ROWS: [&str; 22] = [
    "row",
    "record",
    "zeile",
    "ligne",
    "fila",
    "riga",
    "righe",
    "linha",
    "rij",
    "строк",
    "рядк",
    "行",
    "件",
    "wiersz",
    "satır",
    "rader",
    "række",
    "rivi",
    "sor",
    "řád",
    "행",
    "개",
];

/// Whether a text begins with a number, and what follows it.
fn number(text: &str) -> (bool, &str) {
    let rest = text.trim_start_matches(|c: char| {
        c.is_numeric() || matches!(c, ',' | '.' | '\'' | '-' | ':' | '\u{a0}' | '\u{202f}')
    });
    (text.starts_with(char::is_numeric), rest)
}

/// Holds back the end of a text until it is known to be the end.
#[derive(Default)]
pub(super) struct HeldBack {
    held: Vec<u8>,
    /// Whether something before `held` has been let go.
    cut: bool,
    pub(super) ending: Ending,
}

impl HeldBack {
    /// Puts what was held back before the `count` bytes that have been read behind it, at
    /// `buffer[self.len()..]`, and holds back the end of both; returns how many bytes may go.
    pub(super) fn pass(&mut self, buffer: &mut [u8], count: usize) -> usize {
        let length = self.held.len() + count;
        buffer[..self.held.len()].copy_from_slice(&self.held);
        let go = length.saturating_sub(ENDING_BYTES);
        self.held.clear();
        self.held.extend_from_slice(&buffer[go..length]);
        self.cut |= go > 0;
        go
    }

    /// How many bytes are held back.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// At the end of the text, lets go what is text; returns how many bytes.
    pub(super) fn finish(&mut self, buffer: &mut [u8], delimiter: Option<u8>) -> usize {
        if self.held.is_empty() {
            return 0;
        }
        let (length, ending) = trimmed(&self.held, !self.cut, delimiter);
        self.ending = ending;
        buffer[..length].copy_from_slice(&self.held[..length]);
        self.held.clear();
        length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A text without what is no row, and what that was.
    fn rows(text: &str, delimiter: Option<u8>) -> (&str, Ending) {
        let (length, ending) = trimmed(text.as_bytes(), true, delimiter);
        (&text[..length], ending)
    }

    #[test]
    fn a_last_line_of_white_space_is_no_row() {
        for text in ["1\n2\n   ", "1\n2\n \t\n", "1\n2\n\u{3000}\r\n", "1\n2\n \n  \n\n"] {
            let (left, ending) = rows(text, Some(b','));
            assert_eq!(left.trim_end_matches('\n'), "1\n2", "{text:?}");
            assert!(ending.blank_lines > 0 && ending.footers == 0 && !ending.control_z);
        }
        for (text, delimiter) in [("1\t2\n\t\n", b'\t'), ("1 2\n \n", b' '), ("1\n2\n\n", b',')] {
            assert_eq!(rows(text, Some(delimiter)), (text, Ending::default()));
        }
        assert_eq!(rows(" ", None).0, "");
    }

    #[test]
    fn control_z_ends_a_text() {
        for (text, left) in [
            ("1\n2\n\u{1a}", "1\n2\n"),
            ("1\n2\n\u{1a}\r\n", "1\n2\n"),
            ("1\n2\u{1a}", "1\n2"),
            ("1\n2\u{1a}\u{1a}\n", "1\n2"),
            ("1\n2\n \u{1a} \n", "1\n2\n"),
            ("\u{1a}", ""),
        ] {
            let (found, ending) = rows(text, None);
            assert_eq!((found, ending.control_z), (left, true), "{text:?}");
        }
    }

    #[test]
    fn what_a_database_says_of_its_rows_is_no_row() {
        for footer in [
            "(2 rows affected)",
            "\u{1a}(2 rows affected)",
            "\u{feff}(2 rows)",
            "(2 rows)",
            "(1 row)",
            "(2 Zeilen betroffen)",
            "(2 行受影响)",
            "(1,234 rows affected)",
            "2 rows selected.",
            "  2 record(s) selected.",
            "2 rows in set (0.00 sec)",
            "2 Row(s) produced. Time Elapsed: 0.123s",
            "Time taken: 0.123 seconds, Fetched: 2 row(s)",
            "Elapsed: 00:00:00.01",
            "Time: 1.234 ms",
            "Total rows: 2",
            "2 row(s)",
        ] {
            for around in ["", "\n", "\r\n\r\n"] {
                let text = format!("id\n1\n2\n{around}{footer}{around}");
                let (left, ending) = rows(&text, None);
                assert_eq!((left, ending.footers), ("id\n1\n2\n", 1), "{text:?}");
            }
        }
        let both = "1\n\n(2 rows affected)\n\nCompletion time: 2024-05-06T12:00:00.1+02:00\n";
        let (left, ending) = rows(both, None);
        assert_eq!((left, ending.footers), ("1\n", 2));
    }

    #[test]
    fn what_may_be_a_record_is_one() {
        for last in [
            "2 rows",
            "(030) 1234",
            "(2)",
            "(2 a@x.org)",
            "(12 Monkeys)",
            "12 Records",
            "3 Row Lane",
            "total",
            "+49 30 12",
            "rows: many",
            "(x rows)",
            "time: noon",
        ] {
            let text = format!("1\n{last}\n");
            assert_eq!(rows(&text, None), (&*text, Ending::default()), "{last:?}");
        }
    }

    proptest! {
        /// In whatever pieces it comes, the same is left out.
        #[test]
        fn pieces_make_no_difference(
            lines in proptest::collection::vec("[a-z]{0,9}", 0..2000),
            end in prop_oneof![Just(""), Just("(2 rows)\n"), Just("  \n"), Just("\u{1a}")],
            sizes in proptest::collection::vec(1_usize..3000, 1..9),
        ) {
            let text = lines.concat() + "\n" + &lines.join("\n") + "\nlast\n" + end;
            let (mut held, mut left, mut buffer) = (HeldBack::default(), Vec::new(), vec![0; 10_000]);
            let (mut rest, mut sizes) = (text.as_bytes(), sizes.iter().cycle());
            while !rest.is_empty() {
                let size = (*sizes.next().expect("endless")).min(rest.len());
                let at = held.len();
                buffer[at..at + size].copy_from_slice(&rest[..size]);
                rest = &rest[size..];
                let go = held.pass(&mut buffer, size);
                left.extend_from_slice(&buffer[..go]);
            }
            let go = held.finish(&mut buffer, None);
            left.extend_from_slice(&buffer[..go]);
            let whole = text.strip_suffix(end).expect("it is there");
            prop_assert_eq!(String::from_utf8(left).expect("UTF-8"), whole);
        }
    }
}
