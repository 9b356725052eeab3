//! How much memory a msgpack document takes once it is read into Python objects.
//!
//! One byte of a document can become an object of 64 bytes and a place in a list. A receiver asks
//! here before it reads.

use crate::msgpack::{Cursor, DocumentError, Token};

/// What the keys of a document's maps may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Texts, which have smaller tables.
    Texts,
    /// Anything.
    Any,
}

/// Nesting that the reader accepts.
const LEVELS: usize = 1024;

/// Bytes of Python objects without their content, as CPython 3.11 on 64 bits allocates them; later
/// versions take no more.
const LIST: u64 = 64;
const MAP: u64 = 64;
const NUMBER: u64 = 32;
const LARGE_NUMBER: u64 = 48;
const BYTES: u64 = 33;
const TEXT: u64 = 49;
const WIDE_TEXT: u64 = 76;
const ALIGNMENT: u64 = 16;

/// Bytes that the objects of one document take, at most; not those that its extensions make.
///
/// # Errors
/// What is wrong with the document, as far as that can be seen without looking into texts.
pub fn footprint(document: &[u8], keys: Keys) -> Result<u64, DocumentError> {
    let mut cursor = Cursor::new(document);
    let mut outer: Vec<u64> = Vec::new();
    let mut remaining: u64 = 1;
    let mut total: u64 = 0;
    loop {
        while remaining == 0 {
            let Some(count) = outer.pop() else { return Ok(total) };
            remaining = count;
        }
        remaining -= 1;
        let start = cursor.position();
        let token = cursor.token()?;
        total = total.saturating_add(object(&token, &cursor, keys));
        let children = match token {
            Token::List(count) => u64::from(count),
            Token::Map(count) => 2 * u64::from(count),
            _ => continue,
        };
        if outer.len() == LEVELS {
            let required = "at most 1024 lists and maps may be nested";
            return Err(DocumentError::new(start, "another level", required));
        }
        outer.push(remaining);
        remaining = children;
    }
}

fn object(token: &Token, cursor: &Cursor<'_>, keys: Keys) -> u64 {
    match token {
        // Python has these ready.
        Token::Nil | Token::Bool(_) | Token::Unsigned(..=256) | Token::Negative(-5..) => 0,
        Token::Unsigned(number) if *number >= 1 << 60 => LARGE_NUMBER,
        Token::Negative(number) if *number <= -(1 << 60) => LARGE_NUMBER,
        Token::Unsigned(_) | Token::Negative(_) | Token::F32(_) | Token::F64(_) => NUMBER,
        Token::Text(range) => text(cursor.slice(range.clone())),
        Token::Bytes(range) | Token::Extension(_, range) => allocated(BYTES + range.len() as u64),
        Token::List(count) => LIST + allocated(8 * u64::from(*count)),
        Token::Map(count) => MAP + table(u64::from(*count), keys),
    }
}

fn text(bytes: &[u8]) -> u64 {
    if bytes.is_empty() {
        return 0;
    }
    if bytes.is_ascii() {
        return allocated(TEXT + bytes.len() as u64);
    }
    let characters = bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count() as u64;
    let width = bytes.iter().fold(1, |width, byte| match byte {
        0xf0.. => 4,
        0xc4.. => width.max(2),
        _ => width,
    });
    allocated(WIDE_TEXT + width * (characters + 1))
}

/// The table of a dict: a power of two of places, of which two thirds can hold entries. While it
/// grows, the old one is there too.
fn table(entries: u64, keys: Keys) -> u64 {
    if entries == 0 {
        return 0;
    }
    let entry = match keys {
        Keys::Texts => 16,
        Keys::Any => 24,
    };
    let mut places: u64 = 8;
    while places * 2 / 3 < entries {
        places *= 2;
    }
    let index = match places {
        ..=0x80 => 1,
        0x81..=0x8000 => 2,
        _ => 4,
    };
    let size = 32 + places * index + places * 2 / 3 * entry;
    allocated(if places > 8 { size + size / 2 } else { size })
}

fn allocated(size: u64) -> u64 {
    size.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of `sys.getsizeof`, rounded up to what is allocated, and 8 bytes for each place in a
    /// list.
    #[test]
    fn objects_take_what_python_says() {
        for (document, expected) in [
            (&b"\xc0"[..], 0),
            (b"\x7f", 0),
            (b"\xcd\x01\x01", 32),
            (b"\xe0", 32),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 48),
            (b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 48),
            (b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00", 32),
            (b"\x90", 64),
            (b"\x91\x90", 64 + 16 + 64),
            (b"\x80", 64),
            (b"\x81\xa0\xc0", 64 + 128),
            (b"\xa0", 0),
            (b"\xa3abc", 64),
            (b"\xa2\xc3\xa9", 80),
            (b"\xc4\x02ab", 48),
            (b"\xc7\x02\x01ab", 48),
        ] {
            assert_eq!(footprint(document, Keys::Texts), Ok(expected), "{document:02x?}");
        }
        assert_eq!(footprint(b"\x81\xa0\xc0", Keys::Any), Ok(64 + 160));
    }

    #[test]
    fn texts_are_as_wide_as_their_widest_character() {
        assert_eq!(text("a".repeat(100).as_bytes()), 160);
        assert_eq!(text("\u{e9}".repeat(100).as_bytes()), 192);
        assert_eq!(text("\u{20ac}".repeat(100).as_bytes()), 288);
        assert_eq!(text("\u{1f980}".repeat(100).as_bytes()), 480);
    }

    #[test]
    fn tables_of_dicts_grow_as_pythons_do() {
        // sys.getsizeof of dicts with 5, 11 and 43,691 texts as keys is 184, 464 and 1,922,480.
        assert_eq!(MAP + table(5, Keys::Texts), 192);
        assert_eq!(MAP + table(11, Keys::Texts), 64 + 608);
        let (old, new) = (961_140, 1_922_416);
        let expected = new + old..new + old + 1024;
        assert!(expected.contains(&table(43_691, Keys::Texts)), "{}", table(43_691, Keys::Texts));
    }

    #[test]
    fn a_length_is_not_believed() {
        for document in
            [&b"\xdd\xff\xff\xff\xff"[..], b"\xdf\xff\xff\xff\xff\x00", b"\xc6\xff\xff\xff\xff"]
        {
            assert!(footprint(document, Keys::Texts).is_err());
        }
        assert!(footprint(&[0x91; 1026], Keys::Texts).unwrap_err().required.contains("1024"));
        assert!(footprint(&[&[0x91; 1024][..], &[0xc0]].concat(), Keys::Texts).is_ok());
    }
}
