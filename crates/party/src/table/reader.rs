use std::io::{self, Read};

use convelo_untrusted::{BYTE_ORDER_MARK, CONTROL_Z};
use memchr::{memchr, memchr2, memrchr2};

use super::block::{Block, Form, Layout};
use super::error::{Fault, TableError};
use super::format::Format;
use super::input::Input;
use super::noticed::TextNotes;
use super::recognise::Start;
use super::record::{Dialect, Scanned, scan};
use super::source::{Source, line_at};
use crate::limits::{MAXIMUM_COLUMNS, RECORDS_IN_A_ROW_BYTES};

/// Reads a table in blocks of whole rows.
///
/// Lines without a quote, which means nearly all lines of nearly every file, are cut from the
/// buffer as they are. At a quote, or at an escape character, records are taken one by one for a
/// while.
pub(super) struct Reader<'f> {
    input: &'f Input,
    source: Source<'f>,
    layout: Layout,
    /// `None` for lines.
    dialect: Option<Dialect>,
    at_once: usize,
    /// What has been read and not yet consumed lies between `start` and `end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether nothing follows what is in the buffer.
    complete: bool,
    /// Bytes before `start`, counted from the beginning of the text.
    consumed: u64,
    /// The line at `start`, from 1.
    line: u64,
    row: u64,
    notes: TextNotes,
}

impl<'f> Reader<'f> {
    /// Starts a pass where the rows begin, reading this many bytes `at_once`.
    pub(super) fn new(
        input: &'f Input,
        start: Start,
        format: Format,
        width: Option<usize>,
        at_once: usize,
    ) -> Result<Self, TableError> {
        let dialect = format.dialect();
        let delimiter = dialect.map(|dialect| dialect.delimiter);
        let source =
            Source::new(input, start.offset, delimiter).map_err(|error| input.error(error))?;
        Ok(Self {
            input,
            source,
            layout: Layout::new(format, width),
            dialect,
            at_once,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            complete: false,
            consumed: 0,
            line: start.line,
            row: 0,
            notes: TextNotes::default(),
        })
    }

    /// The layout of the rows read so far.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// What was noticed in the rows read so far; complete at the end of the file.
    pub(super) fn notes(&self) -> TextNotes {
        TextNotes { ending: self.source.ending(), ..self.notes }
    }

    /// Reads the next rows into `block`; false at the end of the file.
    pub(super) fn next(&mut self, block: &mut Block) -> Result<bool, TableError> {
        self.read(block).map_err(|error| self.locate(error))
    }

    fn read(&mut self, block: &mut Block) -> Result<bool, ReadError> {
        let text = std::mem::take(&mut block.text).into_bytes();
        block.ends.clear();
        block.spans.clear();
        block.records.clear();
        loop {
            let found = self.find_lines();
            if found.lines > 0 {
                return self.take_lines(found.lines, text, block);
            }
            if found.special {
                return self.take_records(text, block);
            }
            // The buffer holds no whole line.
            self.source.begin_record(self.consumed);
            if self.complete {
                return Ok(false);
            }
            self.fill()?;
        }
    }

    /// How many leading bytes are whole lines without quotes.
    fn find_lines(&self) -> Found {
        let unread = self.unread();
        let mut plain = unread;
        if let Some(dialect) = self.dialect {
            let special = match dialect.escape {
                Some(escape) => memchr2(b'"', escape, unread),
                None => memchr(b'"', unread),
            };
            plain = &unread[..special.unwrap_or(unread.len())];
        }
        let special = plain.len() < unread.len();
        if self.complete && !special {
            return Found { lines: plain.len(), special };
        }
        // A CR that comes last may be half of a line end.
        let whole = if special { plain } else { plain.strip_suffix(b"\r").unwrap_or(plain) };
        let lines = memrchr2(b'\n', b'\r', whole).map_or(0, |at| at + 1);
        Found { lines, special }
    }

    fn take_lines(
        &mut self,
        length: usize,
        mut text: Vec<u8>,
        block: &mut Block,
    ) -> Result<bool, ReadError> {
        (block.offset, block.line) = (self.consumed, self.line);
        let rest = self.end - self.start - length;
        if self.start == 0 && rest < length {
            // Moves the shorter part.
            text.resize(text.len().max(rest), 0);
            text[..rest].copy_from_slice(&self.buffer[length..self.end]);
            std::mem::swap(&mut text, &mut self.buffer);
            text.truncate(length);
            (self.end, self.consumed) = (rest, self.consumed + length as u64);
        } else {
            text.clear();
            text.extend_from_slice(&self.unread()[..length]);
            self.consume(length);
        }
        block.text = utf8(text)?;
        let (form, lines, rows) = self.layout.examine(&block.text);
        block.form = form;
        if form == Form::Odd {
            self.notes.note_marks(&block.text);
        }
        self.line += lines;
        self.number(block, rows);
        Ok(true)
    }

    fn take_records(&mut self, mut text: Vec<u8>, block: &mut Block) -> Result<bool, ReadError> {
        let dialect = self.dialect.expect("only a CSV file has records");
        (block.offset, block.line, block.form) = (self.consumed, self.line, Form::Records);
        text.clear();
        let (begin, mut cooked) = (self.consumed, Vec::new());
        while self.consumed - begin < RECORDS_IN_A_ROW_BYTES {
            self.source.begin_record(self.consumed);
            self.skip_marks()?;
            let (spans, made) = (block.spans.len(), cooked.len());
            let scanned = loop {
                if self.complete && self.unread().is_empty() {
                    break None;
                }
                let unread = &self.buffer[self.start..self.end];
                let scanned = scan(unread, self.complete, dialect, &mut block.spans, &mut cooked);
                match scanned.map_err(ReadError::Refused)? {
                    Scanned::More => {
                        block.spans.truncate(spans);
                        cooked.truncate(made);
                        self.fill()?;
                    }
                    scanned => break Some(scanned),
                }
            };
            let (length, spaced) = match scanned {
                None => break,
                Some(Scanned::Record { length, spaced }) => (length, spaced),
                Some(Scanned::Blank(length)) => {
                    self.consume(length);
                    self.line += 1;
                    continue;
                }
                Some(Scanned::More) => unreachable!("the loop goes on"),
            };
            let fields = block.spans.len() - spans;
            self.layout.check(fields).map_err(|fault| {
                ReadError::Refused(if spaced { Fault::SpaceBeforeQuote } else { fault })
            })?;
            if fields > MAXIMUM_COLUMNS {
                return Err(ReadError::Refused(Fault::TooManyColumns { found: fields }));
            }
            self.layout.learn(fields);
            let at = text.len();
            text.extend_from_slice(&self.buffer[self.start..self.start + length]);
            self.consume(length);
            let record = &text[at..];
            let own = &mut block.spans[spans..];
            let lines = self.notes.note_record(record, own.iter().map(|span| span.raw), self.line);
            for span in own {
                span.raw = (span.raw.0 + at, span.raw.1 + at);
                if !span.cooked {
                    span.value = (span.value.0 + at, span.value.1 + at);
                }
            }
            block.records.push((text.len(), self.line));
            self.line += lines;
        }
        let records = text.len();
        text.append(&mut cooked);
        for span in block.spans.iter_mut().filter(|span| span.cooked) {
            span.value = (span.value.0 + records, span.value.1 + records);
        }
        block.text = utf8(text)?;
        let rows = block.records.len() as u64;
        self.number(block, rows);
        // Blank lines may be all that there was for now.
        Ok(rows > 0 || !self.unread().is_empty() || !self.complete)
    }

    /// Skips what files leave where they meet, at the beginning of a record.
    fn skip_marks(&mut self) -> Result<(), ReadError> {
        loop {
            let unread = self.unread();
            let mark = match unread.first() {
                Some(byte) if *byte == CONTROL_Z as u8 => 1,
                Some(byte) if *byte == BYTE_ORDER_MARK.as_bytes()[0] => BYTE_ORDER_MARK.len(),
                None if !self.complete => {
                    self.fill()?;
                    continue;
                }
                _ => return Ok(()),
            };
            if unread.len() < mark && !self.complete {
                self.fill()?;
                continue;
            }
            if mark > 1 && !unread.starts_with(BYTE_ORDER_MARK.as_bytes()) {
                return Ok(());
            }
            self.consume(mark);
            self.notes.marks += 1;
        }
    }

    /// Numbers this many rows, the next ones, in a block.
    fn number(&mut self, block: &mut Block, rows: u64) {
        (block.first, block.count) = (self.row, rows);
        self.row += rows;
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.consumed += count as u64;
    }

    /// Reads more, or finds that there is no more.
    fn fill(&mut self) -> Result<(), ReadError> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let full = self.end + self.at_once;
        if self.buffer.len() < full {
            self.buffer.resize(full, 0);
        }
        let room = &mut self.buffer[self.end..full];
        let read = self.source.read(room).map_err(ReadError::Io)?;
        self.end += read;
        self.complete = read == 0;
        Ok(())
    }

    fn locate(&mut self, error: ReadError) -> TableError {
        let record = self.source.record_position();
        let (offset, fault) = match error {
            ReadError::Refused(fault) => (record, fault),
            ReadError::Io(error) => match self.source.take_fault() {
                Some(located) => (located.offset, located.fault),
                None => return self.input.error(error),
            },
        };
        TableError::at(self.input.path(), line_at(self.input, offset).ok(), fault)
    }
}

struct Found {
    lines: usize,
    /// Whether a quote or an escape character follows the lines.
    special: bool,
}

enum ReadError {
    Io(io::Error),
    Refused(Fault),
}

fn utf8(bytes: Vec<u8>) -> Result<String, ReadError> {
    // The source yields UTF-8, and it is cut only at ASCII characters.
    String::from_utf8(bytes).map_err(|_| ReadError::Refused(Fault::NotUtf8))
}
