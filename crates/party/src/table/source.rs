use std::io::{self, BufRead, BufReader, Read};
use std::str::from_utf8;

use convelo_untrusted::BYTE_ORDER_MARK;

use super::ending::{Ending, HeldBack};
use super::error::Fault;
use super::input::Input;
use crate::limits::{MAXIMUM_RECORD_BYTES, TABLE_BUFFER_BYTES};

/// Where the text begins: after the byte order mark, if there is one.
pub(super) fn text_start(head: &[u8]) -> usize {
    if head.starts_with(BYTE_ORDER_MARK.as_bytes()) { BYTE_ORDER_MARK.len() } else { 0 }
}

/// A table's text on its way to a parser: UTF-8 without NUL, no record longer than the limit, and
/// without what programs leave after its last row.
pub(super) struct Source<'f> {
    text: Box<dyn Read + 'f>,
    start: u64,
    delivered: u64,
    record_start: u64,
    delimiter: Option<u8>,
    held: HeldBack,
    utf8: Utf8,
    located: Option<Located>,
}

/// A fault and the offset of the byte it is at, from the beginning of the text.
pub(super) struct Located {
    pub(super) offset: u64,
    pub(super) fault: Fault,
}

impl<'f> Source<'f> {
    /// Starts a pass at byte `start`, after the byte order mark if there is one.
    pub(super) fn new(input: &'f Input, start: u64, delimiter: Option<u8>) -> io::Result<Self> {
        let mut text = input.read()?;
        io::copy(&mut text.by_ref().take(start), &mut io::sink())?;
        Ok(Self {
            text,
            start,
            delivered: 0,
            record_start: 0,
            delimiter,
            held: HeldBack::default(),
            utf8: Utf8::default(),
            located: None,
        })
    }

    /// Sets where the next record begins, counted from `start`.
    pub(super) fn begin_record(&mut self, offset: u64) {
        self.record_start = offset;
    }

    /// The offset in the text where the current record begins.
    pub(super) fn record_position(&self) -> u64 {
        self.start + self.record_start
    }

    /// What was left out at the end, once the end has been read.
    pub(super) fn ending(&self) -> Ending {
        self.held.ending
    }

    /// Why `read` failed, if the operating system is not to blame.
    pub(super) fn take_fault(&mut self) -> Option<Located> {
        self.located.take()
    }

    fn refuse(&mut self, offset: u64, fault: Fault) -> io::Error {
        self.located = Some(Located { offset: self.start + offset, fault });
        io::Error::other("refused")
    }
}

impl Read for Source<'_> {
    /// `buffer` must have room for more than [`ENDING_BYTES`](crate::limits::ENDING_BYTES).
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.delivered.saturating_sub(self.record_start) > MAXIMUM_RECORD_BYTES {
                return Err(self.refuse(self.record_start, Fault::TooLong));
            }
            let room = &mut buffer[self.held.len()..];
            let count = self.text.read(room)?;
            let chunk = &room[..count];
            if chunk.is_empty() {
                return match self.utf8.incomplete() {
                    Some(offset) => Err(self.refuse(offset, Fault::NotUtf8)),
                    None => Ok(self.held.finish(buffer, self.delimiter)),
                };
            }
            let invalid = self.utf8.check(chunk);
            if let Some(nul) = memchr::memchr(0, chunk) {
                let nul = self.delivered + (self.held.len() + nul) as u64;
                if invalid.is_none_or(|invalid| nul < invalid) {
                    return Err(self.refuse(nul, Fault::Nul));
                }
            }
            if let Some(offset) = invalid {
                return Err(self.refuse(offset, Fault::NotUtf8));
            }
            let go = self.held.pass(buffer, count);
            self.delivered += go as u64;
            if go > 0 {
                return Ok(go);
            }
        }
    }
}

/// The line, from 1, of the first byte at or after `offset` that is not part of a line end.
///
/// Reads the text again from its beginning: blocks that wait to be examined do not know their lines.
pub(super) fn line_at(input: &Input, offset: u64) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(TABLE_BUFFER_BYTES, input.read()?);
    let (mut line, mut position, mut previous_cr) = (1, 0, false);
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(line);
        }
        for &byte in buffer {
            if position >= offset && !matches!(byte, b'\r' | b'\n') {
                return Ok(line);
            }
            match byte {
                b'\r' => line += 1,
                b'\n' if !previous_cr => line += 1,
                _ => {}
            }
            previous_cr = byte == b'\r';
            position += 1;
        }
        let length = buffer.len();
        reader.consume(length);
    }
}

/// Checks that consecutive chunks are UTF-8; a character may span several of them.
#[derive(Default)]
struct Utf8 {
    partial: [u8; 4],
    length: usize,
    checked: u64,
}

impl Utf8 {
    /// The offset, from the beginning of the first chunk, of the first sequence that is not UTF-8.
    fn check(&mut self, chunk: &[u8]) -> Option<u64> {
        let mut rest = chunk;
        while self.length > 0 {
            let (&byte, tail) = rest.split_first()?;
            self.partial[self.length] = byte;
            match from_utf8(&self.partial[..=self.length]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_none() => self.length += 1,
                Err(_) => return self.incomplete(),
            }
            self.checked += 1;
            rest = tail;
        }
        let Err(error) = from_utf8(rest) else {
            self.checked += rest.len() as u64;
            return None;
        };
        let (valid, partial) = rest.split_at(error.valid_up_to());
        if error.error_len().is_some() {
            return Some(self.checked + valid.len() as u64);
        }
        self.partial[..partial.len()].copy_from_slice(partial);
        self.length = partial.len();
        self.checked += rest.len() as u64;
        None
    }

    /// The offset of a character whose bytes have not all arrived.
    fn incomplete(&self) -> Option<u64> {
        (self.length > 0).then(|| self.checked - self.length as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_in_chunks(bytes: &[u8], size: usize) -> bool {
        let mut utf8 = Utf8::default();
        bytes.chunks(size).all(|chunk| utf8.check(chunk).is_none()) && utf8.incomplete().is_none()
    }

    proptest! {
        #[test]
        fn chunks_are_utf8_when_the_whole_is(text: String, size in 1_usize..9) {
            prop_assert!(check_in_chunks(text.as_bytes(), size));
        }

        #[test]
        fn chunks_agree_with_the_whole(
            mut bytes in proptest::collection::vec(
                prop_oneof![0_u8..=255, Just(0xe2), Just(0x82), Just(0xac), Just(0xf0)], 0..40),
            text: String,
            size in 1_usize..9,
        ) {
            bytes.extend_from_slice(text.as_bytes());
            prop_assert_eq!(check_in_chunks(&bytes, size), from_utf8(&bytes).is_ok());
        }
    }

    #[test]
    fn a_fault_is_where_its_character_began() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.check(b"abc\xe2\x82"), None);
        assert_eq!(utf8.check(b"\xac!"), None);
        assert_eq!(utf8.check(b"abc\xe2"), None);
        assert_eq!(utf8.check(b"\x82"), None);
        assert_eq!(utf8.incomplete(), Some(10));
        assert_eq!(utf8.check(b"\nx"), Some(10));
        assert_eq!(Utf8::default().check(b"ab\xffc"), Some(2));
    }

    #[test]
    fn lines_are_counted_as_editors_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        std::fs::write(&path, "a\r\n\r\nb\nc\rd").unwrap();
        let input = Input::open(&path, directory.path()).unwrap();
        let line = |offset| line_at(&input, offset).unwrap();
        assert_eq!(line(0), 1);
        assert_eq!(line(1), 3, "blank lines before a record belong to what is before it");
        assert_eq!(line(5), 3);
        assert_eq!(line(7), 4);
        assert_eq!(line(9), 5);
    }
}
