use super::error::Fault;
use super::format::Format;

/// The key fields of one row, in the order in which the key's columns were named.
///
/// Fields are exactly as in the table, without quotes; the job normalises them. There is no
/// `Debug`: fields are records.
#[derive(Clone)]
pub struct KeyFields<'r> {
    fields: Fields<'r>,
    columns: std::slice::Iter<'r, usize>,
}

impl<'r> Iterator for KeyFields<'r> {
    type Item = &'r str;

    #[inline]
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
    /// How many rows there are.
    pub(super) count: u64,
    pub(super) text: String,
    /// Where each field ends in `text`, if it holds records reassembled from quoted text, without
    /// delimiters; empty if `text` consists of the file's own lines.
    pub(super) ends: Vec<usize>,
}

impl Block {
    /// The number of rows in this block.
    pub(crate) fn rows(&self) -> u64 {
        self.count
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

    /// The lines of a text that are rows, with their positions.
    pub(super) fn lines(self, text: &str) -> impl Iterator<Item = (usize, &str)> {
        let mut begin = 0;
        let ends = memchr::memchr_iter(b'\n', text.as_bytes());
        let unfinished = (!text.ends_with('\n')).then_some(text.len());
        ends.chain(unfinished).filter_map(move |end| {
            let (at, mut line) = (begin, &text[begin..end]);
            begin = end + 1;
            if self.format == Format::Lines {
                return Some((at, line.trim_end_matches('\r')));
            }
            line = line.strip_suffix('\r').unwrap_or(line);
            (!line.is_empty()).then_some((at, line))
        })
    }

    /// Counts the lines of a text that are rows.
    pub(super) fn count(self, text: &str) -> u64 {
        let bytes = text.as_bytes();
        let ends = memchr::memchr_iter(b'\n', bytes).count() as u64;
        let unfinished = u64::from(!text.ends_with('\n'));
        if self.format == Format::Lines {
            return ends + unfinished;
        }
        let blank = text.starts_with('\n') || memchr::memmem::find(bytes, b"\n\n").is_some();
        if blank || memchr::memchr(b'\r', bytes).is_some() {
            return self.lines(text).count() as u64;
        }
        ends + if text.is_empty() { 0 } else { unfinished }
    }

    /// The first row seen determines how many fields every row has.
    pub(super) fn learn(&mut self, fields: usize) {
        self.width.get_or_insert(fields);
    }

    /// Whether text without a final line end still counts as a row.
    pub(super) fn is_lines(self) -> bool {
        self.format == Format::Lines
    }

    /// Visits the fields of every row, with the number of the row.
    #[inline]
    pub(super) fn visit<E>(
        self,
        block: &Block,
        refuse: impl FnOnce(Misfit) -> E,
        mut visit: impl FnMut(u64, Fields<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut row = block.first;
        if !block.ends.is_empty() {
            let mut begin = 0;
            for ends in block.ends.chunks(self.width.unwrap_or(block.ends.len())) {
                visit(row, Fields { text: &block.text, ends, begin, gap: 0 })?;
                begin = ends.last().copied().unwrap_or(begin);
                row += 1;
            }
            return Ok(());
        }
        let Format::Csv { delimiter, .. } = self.format else {
            return (row..).zip(self.lines(&block.text)).try_for_each(|(row, (_, line))| {
                visit(row, Fields { text: line, ends: &[line.len()], begin: 0, gap: 1 })
            });
        };
        let text = &*block.text;
        let (mut begin, mut ends) = (0, Vec::new());
        let marks = memchr::memchr2_iter(b'\n', delimiter, text.as_bytes());
        let unfinished = (!text.ends_with('\n')).then_some(text.len());
        for at in marks.chain(unfinished) {
            if text.as_bytes().get(at) == Some(&delimiter) {
                ends.push(at - begin);
                continue;
            }
            let line = &text[begin..at];
            let line = line.strip_suffix('\r').unwrap_or(line);
            if !line.is_empty() {
                ends.push(line.len());
                if let Err(fault) = self.check(ends.len()) {
                    return Err(refuse(Misfit { offset: block.offset + begin as u64, fault }));
                }
                visit(row, Fields { text: line, ends: &ends, begin: 0, gap: 1 })?;
                row += 1;
                ends.clear();
            }
            begin = at + 1;
        }
        Ok(())
    }

    /// The fields of a block's first row, if there is one, each with its column number from 1.
    pub(super) fn first(self, block: &Block, each: impl Fn(usize, &str) -> String) -> Vec<String> {
        let mut columns = Vec::new();
        let only_first = |_, fields: Fields<'_>| {
            columns = (1..).zip(fields.all()).map(|(number, field)| each(number, field)).collect();
            Err(())
        };
        // After the first row it returns an error, which is expected.
        let _ = self.visit(block, |_| (), only_first);
        columns
    }

    /// Writes the rows that `keep` selects by number; field by field if `fields` are wanted or the
    /// fields need quotes.
    pub(super) fn write_kept<E>(
        self,
        block: &Block,
        fields: bool,
        refuse: impl FnOnce(Misfit) -> E,
        mut keep: impl FnMut(u64) -> Result<bool, E>,
        mut write: impl FnMut(Whole<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !block.ends.is_empty() || fields {
            return self.visit(block, refuse, |row, fields| {
                if keep(row)? { write(Whole::Record(fields)) } else { Ok(()) }
            });
        }
        let mut lines = (block.first..).zip(self.lines(&block.text)).peekable();
        // No branch on whether a line is kept: it is unpredictable.
        let mut kept = [""; 64];
        while lines.peek().is_some() {
            let mut count = 0;
            for (row, (_, line)) in lines.by_ref().take(kept.len()) {
                kept[count] = line;
                count += usize::from(keep(row)?);
            }
            kept[..count].iter().try_for_each(|line| write(Whole::Line(line)))?;
        }
        Ok(())
    }

    /// Checks that a row may have this many fields.
    pub(super) fn check(self, found: usize) -> Result<(), Fault> {
        match self.width {
            Some(expected) if found != expected => Err(Fault::Ragged { found, expected }),
            _ => Ok(()),
        }
    }
}

/// A row as it will be written.
pub(super) enum Whole<'r> {
    /// None of its fields needs quotes.
    Line(&'r str),
    Record(Fields<'r>),
}

/// The fields of one row.
#[derive(Clone, Copy)]
pub(super) struct Fields<'r> {
    text: &'r str,
    ends: &'r [usize],
    begin: usize,
    gap: usize,
}

impl<'r> Fields<'r> {
    /// The fields in these columns, counted from 0.
    pub(super) fn key(self, columns: &'r [usize]) -> KeyFields<'r> {
        KeyFields { fields: self, columns: columns.iter() }
    }

    pub(super) fn all(self) -> impl Iterator<Item = &'r str> {
        (0..self.ends.len()).map(move |column| self.get(column))
    }

    #[inline]
    pub(super) fn get(self, column: usize) -> &'r str {
        let begin = column.checked_sub(1).map_or(self.begin, |before| self.ends[before] + self.gap);
        &self.text[begin..self.ends[column]]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_counted_as_they_are_visited(
            text in proptest::collection::vec(
                prop_oneof![6 => Just("a"), 3 => Just("\n"), 1 => Just("\r\n"), 1 => Just(";")], 0..600),
            lines: bool,
            unfinished: bool,
        ) {
            let format = if lines { Format::Lines } else { Format::Csv { delimiter: b';', header: false } };
            let text = text.concat() + if unfinished { "a" } else { "\n" };
            let layout = Layout::new(format, None);
            let whole: Vec<_> = layout.lines(&text).map(|(_, line)| line).collect();
            prop_assert_eq!(layout.count(&text), whole.len() as u64);
            let (block, mut visited) = (Block { text: text.clone(), ..Block::default() }, Vec::new());
            let refuse = |_| unreachable!("any number of fields will do");
            let visit = |row, fields: Fields<'_>| {
                visited.push((row, fields.all().collect::<Vec<_>>().join(";")));
                Ok::<_, ()>(())
            };
            layout.visit(&block, refuse, visit).expect("visited");
            prop_assert!(visited.iter().map(|(row, line)| (*row, &**line)).eq((0..).zip(whole)));
        }
    }
}
