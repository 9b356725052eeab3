//! What was noticed in a text that is not in its rows.

use convelo_untrusted::{line_end, lines};
use memchr::memchr2;

use super::ending::Ending;

/// What a pass over a text noticed besides rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct TextNotes {
    /// Lines that began with a byte order mark or Ctrl-Z: files were put one behind the other.
    pub marks: u64,
    /// What was left out at the end.
    #[serde(flatten)]
    pub ending: Ending,
    /// Fields that contain line ends.
    pub spanning_fields: u64,
    /// How many lines the longest of them has.
    pub longest_field_lines: u64,
    /// The line where its record begins, from 1.
    pub longest_field_at: u64,
}

impl TextNotes {
    /// Counts the marks in a text of whole lines.
    pub(super) fn note_marks(&mut self, text: &str) {
        let marked = lines(text).filter(|line| line.without_marks().len() < line.whole.len());
        self.marks += marked.count() as u64;
    }

    /// Notes the fields of a record that span lines; returns how many line ends the record has.
    pub(super) fn note_record(
        &mut self,
        record: &[u8],
        fields: impl Iterator<Item = (usize, usize)>,
        line: u64,
    ) -> u64 {
        let ends = line_ends(record);
        if ends > 1 {
            for (begin, end) in fields {
                let lines = line_ends(&record[begin..end]) + 1;
                if lines == 1 {
                    continue;
                }
                self.spanning_fields += 1;
                if lines > self.longest_field_lines {
                    (self.longest_field_lines, self.longest_field_at) = (lines, line);
                }
            }
        }
        ends
    }
}

/// How many line ends there are in `bytes`.
fn line_ends(mut bytes: &[u8]) -> u64 {
    let mut ends = 0;
    while let Some(at) = memchr2(b'\n', b'\r', bytes) {
        bytes = &bytes[at + line_end(&bytes[at..])..];
        ends += 1;
    }
    ends
}
