use std::io::{self, Read};

use csv_core::ReadRecordResult;
use memchr::{memchr2_iter, memrchr};

use super::block::{Block, Layout};
use super::error::{Fault, TableError};
use super::format::Format;
use super::input::Input;
use super::source::{END_MARK, Source, line_at};
use crate::limits::{MAXIMUM_COLUMNS, RECORDS_IN_A_ROW_BYTES};

/// Reads a table in blocks of whole rows.
///
/// Lines without a quote, which means nearly all lines of nearly every file, are cut from the
/// buffer as they are. At a quote, or at a carriage return that is not part of a line end,
/// `csv_core` takes over for some records.
pub(super) struct Reader<'f> {
    input: &'f Input,
    source: Source<'f>,
    layout: Layout,
    /// `None` for lines.
    delimiter: Option<u8>,
    /// Made for the first record that needs it.
    csv: Option<Box<csv_core::Reader>>,
    at_once: usize,
    /// What has been read and not yet consumed lies between `start` and `end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes before `start`, counted from the beginning of the text.
    consumed: u64,
    row: u64,
}

impl<'f> Reader<'f> {
    /// Starts a pass at byte `start` of the text, reading this many bytes `at_once`.
    pub(super) fn new(
        input: &'f Input,
        start: u64,
        format: Format,
        width: Option<usize>,
        at_once: usize,
    ) -> Result<Self, TableError> {
        let (delimiter, end_mark) = match format {
            Format::Csv { delimiter, .. } => (Some(delimiter), END_MARK),
            _ => (None, &[][..]),
        };
        let source = Source::new(input, start, end_mark).map_err(|error| input.error(error))?;
        let layout = Layout::new(format, width);
        let (buffer, start, end, consumed, row) = (Vec::new(), 0, 0, 0, 0);
        let csv = None;
        Ok(Self {
            input,
            source,
            layout,
            delimiter,
            csv,
            at_once,
            buffer,
            start,
            end,
            consumed,
            row,
        })
    }

    /// The layout of the rows read so far.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Reads the next rows into `block`; false at the end of the file.
    pub(super) fn next(&mut self, block: &mut Block) -> Result<bool, TableError> {
        self.read(block).map_err(|error| self.locate(error))
    }

    fn read(&mut self, block: &mut Block) -> Result<bool, ReadError> {
        let text = std::mem::take(&mut block.text).into_bytes();
        block.ends.clear();
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
            if self.fill()? == 0 {
                let rest = self.unread().len();
                let unended = self.layout.is_lines() && rest > 0;
                return if unended { self.take_lines(rest, text, block) } else { Ok(false) };
            }
        }
    }

    /// How many leading bytes are whole lines without quotes.
    fn find_lines(&self) -> Found {
        let unread = self.unread();
        let mut found = Found { lines: 0, special: false };
        let mut plain = unread;
        if self.delimiter.is_some() {
            for at in memchr2_iter(b'"', b'\r', unread) {
                match (unread[at], unread.get(at + 1)) {
                    (b'\r', Some(b'\n')) => continue,
                    (b'\r', None) => {}
                    _ => found.special = true,
                }
                plain = &unread[..at];
                break;
            }
        }
        found.lines = memrchr(b'\n', plain).map_or(0, |at| at + 1);
        found
    }

    fn take_lines(
        &mut self,
        length: usize,
        mut text: Vec<u8>,
        block: &mut Block,
    ) -> Result<bool, ReadError> {
        block.offset = self.consumed;
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
        self.number(block, self.layout.count(&block.text));
        Ok(true)
    }

    fn take_records(&mut self, mut text: Vec<u8>, block: &mut Block) -> Result<bool, ReadError> {
        let begin = self.consumed;
        block.offset = begin;
        let (mut used, mut rows) = (0, 0);
        while self.consumed - begin < RECORDS_IN_A_ROW_BYTES {
            self.source.begin_record(self.consumed);
            let (before, fields_before) = (used, block.ends.len());
            let fields = self.record(&mut text, &mut used, &mut block.ends)?;
            if text[before..used].last() == Some(&0) {
                if (used - before, fields) != (1, 1) {
                    return Err(ReadError::Refused(Fault::UnclosedQuote));
                }
                used = before;
                block.ends.truncate(fields_before);
                break;
            }
            self.layout.check(fields).map_err(ReadError::Refused)?;
            if fields > MAXIMUM_COLUMNS {
                return Err(ReadError::Refused(Fault::TooManyColumns { found: fields }));
            }
            self.layout.learn(fields);
            rows += 1;
        }
        text.truncate(used);
        block.text = utf8(text)?;
        self.number(block, rows);
        Ok(rows > 0)
    }

    /// Assembles one record after the first `used` bytes of `text`; returns the number of its
    /// fields.
    fn record(
        &mut self,
        text: &mut Vec<u8>,
        used: &mut usize,
        ends: &mut Vec<usize>,
    ) -> Result<usize, ReadError> {
        let (before, mut fields) = (*used, 0);
        let mut places = [0; 64];
        loop {
            if self.unread().is_empty() {
                self.fill()?;
            }
            text.resize((*used + 1024).max(text.len()), 0);
            let delimiter = self.delimiter.expect("only a CSV file has records");
            let csv = self.csv.get_or_insert_with(|| csv_reader(delimiter));
            let unread = &self.buffer[self.start..self.end];
            let (result, read, written, ended) =
                csv.read_record(unread, &mut text[*used..], &mut places);
            self.consume(read);
            *used += written;
            ends.extend(places[..ended].iter().map(|end| before + end));
            fields += ended;
            if let ReadRecordResult::Record | ReadRecordResult::End = result {
                return Ok(fields);
            }
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

    /// Reads more; returns the number of bytes.
    fn fill(&mut self) -> Result<usize, ReadError> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let full = self.end + self.at_once;
        if self.buffer.len() < full {
            self.buffer.resize(full, 0);
        }
        let room = &mut self.buffer[self.end..full];
        let read = self.source.read(room).map_err(ReadError::Io)?;
        self.end += read;
        Ok(read)
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
        let cr_alone = self.delimiter.is_some();
        TableError::at(self.input.path(), line_at(self.input, offset, cr_alone).ok(), fault)
    }
}

fn csv_reader(delimiter: u8) -> Box<csv_core::Reader> {
    let mut csv = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
    // Otherwise it would take the first bytes it sees for a byte order mark.
    csv.read_record(b"\n", &mut [], &mut []);
    Box::new(csv)
}

struct Found {
    lines: usize,
    /// Whether what follows the lines is not a line.
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
