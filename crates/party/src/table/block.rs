use convelo_untrusted::{BYTE_ORDER_MARK, CONTROL_Z, Line, lines};

use super::error::Fault;
use super::format::Format;
use super::record::Span;

/// The key fields of one row, in the order in which the key's columns were named.
///
/// Fields are exactly as in the table, without quotes; the job normalises them. There is no
/// `Debug`: fields are records.
#[derive(Clone)]
pub struct KeyFields<'r> {
    fields: &'r Fields<'r>,
    columns: std::slice::Iter<'r, usize>,
}

/// A row, and which of its fields are the key's.
#[derive(Clone, Copy)]
pub(crate) struct KeyRow<'r> {
    pub(super) fields: &'r Fields<'r>,
    pub(super) columns: &'r [usize],
}

impl<'r> KeyRow<'r> {
    /// The key fields.
    #[inline]
    pub(crate) fn key(&self) -> KeyFields<'r> {
        KeyFields { fields: self.fields, columns: self.columns.iter() }
    }
}

impl<'r> Iterator for KeyFields<'r> {
    type Item = &'r str;

    #[expect(clippy::inline_always, reason = "a call for each row costs 1 % of reading a table")]
    #[inline(always)]
    fn next(&mut self) -> Option<&'r str> {
        self.columns.next().map(|column| self.fields.get(*column))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.columns.size_hint()
    }
}

impl ExactSizeIterator for KeyFields<'_> {}

/// Some whole rows as read, on their way to whatever examines their fields.
#[derive(Default)]
pub(crate) struct Block {
    /// The number of the first row among all of the file's records and lines, from 0.
    pub(super) first: u64,
    /// Where the rows begin in the file's text.
    pub(super) offset: u64,
    /// The line where they begin, from 1; 0 for batches.
    pub(super) line: u64,
    /// How many rows there are.
    pub(super) count: u64,
    pub(super) text: String,
    pub(super) form: Form,
    /// For [`Form::Packed`], where each field ends in `text`.
    pub(super) ends: Vec<usize>,
    /// For [`Form::Records`], all fields.
    pub(super) spans: Vec<Span>,
    /// For [`Form::Records`], where each record ends in `text`, and its first line.
    pub(super) records: Vec<(usize, u64)>,
}

/// What a block's text consists of. Decided once for each block, so that nearly all lines of nearly
/// all files are taken as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// The file's own lines, which end in LF or CRLF, without quotes and without marks.
    #[default]
    Plain,
    /// The file's own lines; some end in CR alone or begin with what files leave where they meet.
    Odd,
    /// The file's own records, and then the values that are written in another way than they read.
    Records,
    /// Fields one after another.
    Packed,
}

impl Block {
    /// The number of rows in this block.
    pub(crate) fn rows(&self) -> u64 {
        self.count
    }

    /// The number of its first row among all of the file's rows.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }
}

/// A row that differs from the others in shape, and where it begins in the file's text.
pub(crate) struct Misfit {
    pub(super) offset: u64,
    pub(super) fault: Fault,
}

impl Misfit {
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.offset < other.offset
    }
}

/// One row of a block.
#[derive(Clone, Copy)]
pub(super) struct Row<'r> {
    /// Its number among all of the file's records and lines, from 0.
    pub(super) number: u64,
    /// The line where it begins, from 1; 0 for batches.
    pub(super) line: u64,
    /// The row as it stands in the file, with its line end.
    pub(super) whole: &'r [u8],
    pub(super) fields: Fields<'r>,
}

/// What it takes to find a table's fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    format: Format,
    /// The number of fields in every row; `None` until the first row has been seen.
    width: Option<usize>,
}

impl Layout {
    pub(super) fn new(format: Format, width: Option<usize>) -> Self {
        Self { format, width: if format == Format::Lines { Some(1) } else { width } }
    }

    /// The form of a text that consists of whole lines without quotes, how many lines it has, and how
    /// many of them are rows.
    pub(super) fn examine(self, text: &str) -> (Form, u64, u64) {
        let bytes = text.as_bytes();
        let mark = BYTE_ORDER_MARK.as_bytes();
        let (mut odd, mut returns) = (false, false);
        for at in memchr::memchr3_iter(b'\r', CONTROL_Z as u8, mark[0], bytes) {
            match bytes[at] {
                b'\r' => {
                    returns = true;
                    odd |= bytes.get(at + 1) != Some(&b'\n');
                }
                byte => odd |= byte != mark[0] || bytes[at..].starts_with(mark),
            }
            if odd {
                let rows = lines(text).filter(|line| self.is_row(line.text)).count() as u64;
                return (Form::Odd, lines(text).count() as u64, rows);
            }
        }
        let ends = memchr::memchr_iter(b'\n', bytes).count() as u64;
        let lines = ends + u64::from(!text.is_empty() && !text.ends_with('\n'));
        let blank = text.starts_with(['\n', '\r'])
            || memchr::memmem::find(bytes, b"\n\n").is_some()
            || (returns && memchr::memmem::find(bytes, b"\n\r").is_some());
        let rows = if blank && !self.is_lines() {
            plain_lines(text).filter(|line| self.is_row(line.text)).count() as u64
        } else {
            lines
        };
        (Form::Plain, lines, rows)
    }

    /// The first row seen determines how many fields every row has.
    pub(super) fn learn(&mut self, fields: usize) {
        self.width.get_or_insert(fields);
    }

    /// Whether every line is a row, a blank one too.
    pub(super) fn is_lines(self) -> bool {
        self.format == Format::Lines
    }

    /// Whether a line without its end is a row.
    fn is_row(self, line: &str) -> bool {
        self.is_lines() || !line.is_empty()
    }

    /// Visits every row, by reference: copying it would load in one piece what has just been stored in
    /// two, for which a processor waits.
    #[inline]
    pub(super) fn visit<E>(
        self,
        block: &Block,
        refuse: impl FnOnce(Misfit) -> E,
        mut visit: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (text, mut number, mut line) = (&*block.text, block.first, block.line);
        let delimiter = match (block.form, self.format) {
            (Form::Packed, _) => {
                let mut begin = 0;
                for ends in block.ends.chunks(self.width.unwrap_or(block.ends.len()).max(1)) {
                    visit(&Row {
                        number,
                        line,
                        whole: b"",
                        fields: Fields::packed(text, ends, begin),
                    })?;
                    begin = ends.last().copied().unwrap_or(begin);
                    number += 1;
                }
                return Ok(());
            }
            (Form::Records, _) => {
                let (mut begin, mut spans) = (0, &*block.spans);
                for (end, line) in &block.records {
                    let (own, rest) = spans.split_at(self.width.unwrap_or(spans.len()));
                    let whole = &text.as_bytes()[begin..*end];
                    visit(&Row {
                        number,
                        line: *line,
                        whole,
                        fields: Fields { text, places: Places::Spans(own) },
                    })?;
                    (begin, spans, number) = (*end, rest, number + 1);
                }
                return Ok(());
            }
            (Form::Odd, Format::Csv { delimiter, .. }) => {
                return self.visit_odd(block, delimiter, refuse, visit);
            }
            (_, Format::Csv { delimiter, .. }) => delimiter,
            (Form::Odd, _) => {
                for own in lines(text) {
                    let (whole, ends) = (own.without_marks().as_bytes(), [own.text.len()]);
                    visit(&Row { number, line, whole, fields: Fields::lines(own.text, &ends) })?;
                    (number, line) = (number + 1, line + 1);
                }
                return Ok(());
            }
            _ => {
                for Line { whole, text, .. } in plain_lines(text) {
                    visit(&Row {
                        number,
                        line,
                        whole: whole.as_bytes(),
                        fields: Fields::lines(text, &[text.len()]),
                    })?;
                    (number, line) = (number + 1, line + 1);
                }
                return Ok(());
            }
        };
        let (mut begin, mut ends) = (0, Vec::new());
        let marks = memchr::memchr2_iter(b'\n', delimiter, text.as_bytes());
        let unfinished = (!text.ends_with('\n')).then_some(text.len());
        for at in marks.chain(unfinished) {
            if text.as_bytes().get(at) == Some(&delimiter) {
                ends.push(at - begin);
                continue;
            }
            let own = &text[begin..at];
            let own = own.strip_suffix('\r').unwrap_or(own);
            if !own.is_empty() {
                ends.push(own.len());
                if let Err(fault) = self.check(ends.len()) {
                    return Err(refuse(Misfit { offset: block.offset + begin as u64, fault }));
                }
                let whole = &text.as_bytes()[begin..text.len().min(at + 1)];
                visit(&Row { number, line, whole, fields: Fields::lines(own, &ends) })?;
                number += 1;
                ends.clear();
            }
            line += 1;
            begin = at + 1;
        }
        Ok(())
    }

    fn visit_odd<E>(
        self,
        block: &Block,
        delimiter: u8,
        refuse: impl FnOnce(Misfit) -> E,
        mut visit: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut number, mut ends) = (block.first, Vec::new());
        for (line, own) in (block.line..).zip(lines(&block.text)) {
            let Line { at, text, .. } = own;
            if text.is_empty() {
                continue;
            }
            ends.clear();
            ends.extend(memchr::memchr_iter(delimiter, text.as_bytes()));
            ends.push(text.len());
            if let Err(fault) = self.check(ends.len()) {
                return Err(refuse(Misfit { offset: block.offset + at as u64, fault }));
            }
            let fields = Fields::lines(text, &ends);
            visit(&Row { number, line, whole: own.without_marks().as_bytes(), fields })?;
            number += 1;
        }
        Ok(())
    }

    /// The fields of a block's first row, if there is one, each with its column number from 1.
    pub(super) fn first(self, block: &Block, each: impl Fn(usize, &str) -> String) -> Vec<String> {
        let mut columns = Vec::new();
        let only_first = |row: &Row<'_>| {
            let fields = (1..).zip(row.fields.all());
            columns = fields.map(|(number, field)| each(number, field)).collect();
            Err(())
        };
        // After the first row it returns an error, which is expected.
        let _ = self.visit(block, |_| (), only_first);
        columns
    }

    /// Writes the rows that `keep` selects by number; with their fields if those are wanted.
    pub(super) fn write_kept<E>(
        self,
        block: &Block,
        fields: bool,
        refuse: impl FnOnce(Misfit) -> E,
        mut keep: impl FnMut(u64) -> Result<bool, E>,
        mut write: impl FnMut(Whole<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if block.form != Form::Plain || fields {
            return self.visit(block, refuse, |row| {
                if keep(row.number)? { write(Whole::Row(row)) } else { Ok(()) }
            });
        }
        let (text, mut begin, mut number) = (block.text.as_bytes(), 0, block.first);
        let ends = memchr::memchr_iter(b'\n', text).map(|end| end + 1);
        let unfinished = (!text.ends_with(b"\n")).then_some(text.len());
        // No branch on whether a line is kept: it is unpredictable.
        let (mut kept, mut count) = ([&b""[..]; 64], 0);
        for end in ends.chain(unfinished) {
            let line = &text[begin..end];
            begin = end;
            if matches!(line, b"") || (matches!(line, b"\n" | b"\r\n" | b"\r") && !self.is_lines())
            {
                continue;
            }
            kept[count] = line;
            count += usize::from(keep(number)?);
            number += 1;
            if count == kept.len() {
                kept.iter().try_for_each(|line| write(Whole::Line(line)))?;
                count = 0;
            }
        }
        kept[..count].iter().try_for_each(|line| write(Whole::Line(line)))
    }

    /// Checks that a row may have this many fields.
    pub(super) fn check(self, found: usize) -> Result<(), Fault> {
        match self.width {
            Some(expected) if found != expected => Err(Fault::Ragged { found, expected }),
            _ => Ok(()),
        }
    }
}

/// The lines of a text in [`Form::Plain`].
fn plain_lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut begin = 0;
    let ends = memchr::memchr_iter(b'\n', text.as_bytes());
    let unfinished = (!text.is_empty() && !text.ends_with('\n')).then_some(text.len());
    ends.chain(unfinished).map(move |end| {
        let at = begin;
        begin = text.len().min(end + 1);
        let line = &text[at..end];
        Line { at, whole: &text[at..begin], text: line.strip_suffix('\r').unwrap_or(line) }
    })
}

/// A row as it will be written.
pub(super) enum Whole<'r> {
    /// Only as it stands in the file, with its line end.
    Line(&'r [u8]),
    Row(&'r Row<'r>),
}

/// The fields of one row.
#[derive(Clone, Copy)]
pub(super) struct Fields<'r> {
    text: &'r str,
    places: Places<'r>,
}

#[derive(Clone, Copy)]
enum Places<'r> {
    /// Where each field ends, where the first begins, and how far each begins behind the one before.
    Ends(&'r [usize], usize, usize),
    Spans(&'r [Span]),
}

impl<'r> Fields<'r> {
    fn lines(text: &'r str, ends: &'r [usize]) -> Self {
        Self { text, places: Places::Ends(ends, 0, 1) }
    }

    fn packed(text: &'r str, ends: &'r [usize], begin: usize) -> Self {
        Self { text, places: Places::Ends(ends, begin, 0) }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &'r str> + use<'r, '_> {
        let count = match self.places {
            Places::Ends(ends, ..) => ends.len(),
            Places::Spans(spans) => spans.len(),
        };
        (0..count).map(move |column| self.get(column))
    }

    /// The value of a field.
    #[expect(clippy::inline_always, reason = "a call for each row costs 2 % of reading a table")]
    #[inline(always)]
    pub(super) fn get(&self, column: usize) -> &'r str {
        let (begin, end) = match self.places {
            Places::Ends(ends, begin, gap) => field(ends, begin, gap, column),
            Places::Spans(spans) => spans[column].value,
        };
        &self.text[begin..end]
    }

    /// A field as it is written, with its quotes.
    #[inline]
    pub(super) fn raw(&self, column: usize) -> &'r str {
        let (begin, end) = match self.places {
            Places::Ends(ends, begin, gap) => field(ends, begin, gap, column),
            Places::Spans(spans) => spans[column].raw,
        };
        &self.text[begin..end]
    }
}

/// Where a field is: each ends where `ends` says, and begins a gap behind the one before.
#[inline]
fn field(ends: &[usize], first: usize, gap: usize, column: usize) -> (usize, usize) {
    (column.checked_sub(1).map_or(first, |before| ends[before] + gap), ends[column])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_counted_as_they_are_visited(
            text in proptest::collection::vec(
                prop_oneof![
                    12 => Just("a"), 6 => Just("\n"), 2 => Just("\r\n"), 2 => Just(";"),
                    1 => Just("\r"), 1 => Just("\u{feff}"), 1 => Just("\u{1a}"),
                ], 0..600),
            all_lines: bool,
            plain: bool,
            unfinished: bool,
        ) {
            let format = if all_lines { Format::Lines } else { Format::csv(b';', false) };
            let text = text.concat() + if unfinished { "a" } else { "\n" };
            let text = if plain { text.replace(['\r', '\u{feff}', '\u{1a}'], "\r\n") } else { text };
            let layout = Layout::new(format, None);
            let (form, lined, counted) = layout.examine(&text);
            prop_assert!(!plain || form == Form::Plain);
            let rows: Vec<_> = (1..)
                .zip(lines(&text))
                .filter(|(_, line)| all_lines || !line.text.is_empty())
                .map(|(number, line)| (number, line.text.to_owned()))
                .collect();
            prop_assert_eq!((lined, counted), (lines(&text).count() as u64, rows.len() as u64));
            let block = Block { text: text.clone(), form, line: 1, ..Block::default() };
            let (mut visited, mut wholes) = (Vec::new(), Vec::new());
            let refuse = |_| unreachable!("any number of fields will do");
            let visit = |row: &Row<'_>| {
                assert_eq!(row.number, visited.len() as u64);
                let fields = row.fields.all().collect::<Vec<_>>().join(";");
                let whole = std::str::from_utf8(row.whole).expect("cut where lines end");
                assert!(whole.starts_with(&fields) && text.contains(whole));
                wholes.push(whole.to_owned());
                visited.push((row.line, fields));
                Ok::<_, ()>(())
            };
            layout.visit(&block, refuse, visit).expect("visited");
            prop_assert_eq!(visited, rows);
            // Every third row, as it stands there.
            let mut written = Vec::new();
            let write = |whole: Whole<'_>| {
                let bytes = match whole {
                    Whole::Line(line) => line,
                    Whole::Row(row) => row.whole,
                };
                written.push(String::from_utf8(bytes.to_vec()).expect("cut where lines end"));
                Ok::<_, ()>(())
            };
            let keep = |row: u64| Ok(row.is_multiple_of(3));
            layout.write_kept(&block, false, refuse, keep, write).expect("written");
            let expected: Vec<_> = wholes.into_iter().step_by(3).collect();
            prop_assert_eq!(written, expected);
        }
    }
}
