//! Walks through msgpack documents that a peer wrote, without recursion, checking every length
//! against what is there.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;
use rmp::Marker;

use crate::limits::MAXIMUM_DEPTH;

/// A document that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {position}: {found}; {required}")]
pub struct DocumentError {
    /// The byte where it was noticed.
    pub position: usize,
    /// What was found.
    pub found: Cow<'static, str>,
    /// What was expected.
    pub required: &'static str,
}

impl DocumentError {
    pub(crate) fn new(
        position: usize,
        found: impl Into<Cow<'static, str>>,
        required: &'static str,
    ) -> Self {
        Self { position, found: found.into(), required }
    }
}

/// One step of a document. Ranges are positions in the whole document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Nil,
    Bool(bool),
    /// Zero and above.
    Unsigned(u64),
    /// Below zero.
    Negative(i64),
    F32(f32),
    F64(f64),
    Text(Range<usize>),
    Bytes(Range<usize>),
    /// This many elements follow.
    List(u32),
    /// This many keys, each with its value, follow.
    Map(u32),
    Extension(i8, Range<usize>),
}

impl Token {
    /// For messages to people.
    pub(crate) fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a bool",
            Self::Unsigned(_) | Self::Negative(_) => "a number",
            Self::F32(_) | Self::F64(_) => "a float",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Extension(kind, _) => return format!("an extension of type {kind}").into(),
        })
    }

    /// How many of the documents that follow belong to this one.
    fn children(&self) -> u64 {
        match self {
            Self::List(count) => u64::from(*count),
            Self::Map(count) => 2 * u64::from(*count),
            _ => 0,
        }
    }

    fn is_container(&self) -> bool {
        matches!(self, Self::List(_) | Self::Map(_))
    }
}

/// A position in a document.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, end: bytes.len() }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Moves to `range`. Both of its ends must be positions that a token returned.
    pub(crate) fn enter(&mut self, range: Range<usize>) -> Range<usize> {
        let rest = self.position..self.end;
        self.position = range.start;
        self.end = range.end;
        rest
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.position == self.end
    }

    pub(crate) fn slice(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// The next token, without advancing.
    pub(crate) fn peek(&self) -> Result<Token, DocumentError> {
        self.clone().token()
    }

    pub(crate) fn token(&mut self) -> Result<Token, DocumentError> {
        let start = self.position;
        let marker = Marker::from_u8(self.byte()?);
        Ok(match marker {
            Marker::Null => Token::Nil,
            Marker::False => Token::Bool(false),
            Marker::True => Token::Bool(true),
            Marker::FixPos(number) => Token::Unsigned(number.into()),
            Marker::U8 => Token::Unsigned(self.byte()?.into()),
            Marker::U16 => Token::Unsigned(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Token::Unsigned(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Token::Unsigned(u64::from_be_bytes(self.array()?)),
            Marker::FixNeg(number) => signed(number),
            Marker::I8 => signed(i8::from_be_bytes(self.array()?)),
            Marker::I16 => signed(i16::from_be_bytes(self.array()?)),
            Marker::I32 => signed(i32::from_be_bytes(self.array()?)),
            Marker::I64 => signed(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Token::F32(f32::from_be_bytes(self.array()?)),
            Marker::F64 => Token::F64(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(len) => Token::Text(self.range(start, len.into())?),
            Marker::Str8 => self.byte().and_then(|len| self.text(start, len.into()))?,
            Marker::Str16 => {
                let len = u16::from_be_bytes(self.array()?);
                self.text(start, len.into())?
            }
            Marker::Str32 => {
                let len = u32::from_be_bytes(self.array()?);
                self.text(start, len)?
            }
            Marker::Bin8 => {
                let len = self.byte()?;
                Token::Bytes(self.range(start, len.into())?)
            }
            Marker::Bin16 => {
                let len = u16::from_be_bytes(self.array()?);
                Token::Bytes(self.range(start, len.into())?)
            }
            Marker::Bin32 => {
                let len = u32::from_be_bytes(self.array()?);
                Token::Bytes(self.range(start, len)?)
            }
            Marker::FixArray(count) => self.container(start, Token::List(count.into()))?,
            Marker::Array16 => {
                let count = u16::from_be_bytes(self.array()?);
                self.container(start, Token::List(count.into()))?
            }
            Marker::Array32 => {
                let count = u32::from_be_bytes(self.array()?);
                self.container(start, Token::List(count))?
            }
            Marker::FixMap(count) => self.container(start, Token::Map(count.into()))?,
            Marker::Map16 => {
                let count = u16::from_be_bytes(self.array()?);
                self.container(start, Token::Map(count.into()))?
            }
            Marker::Map32 => {
                let count = u32::from_be_bytes(self.array()?);
                self.container(start, Token::Map(count))?
            }
            Marker::FixExt1 => self.extension(start, 1)?,
            Marker::FixExt2 => self.extension(start, 2)?,
            Marker::FixExt4 => self.extension(start, 4)?,
            Marker::FixExt8 => self.extension(start, 8)?,
            Marker::FixExt16 => self.extension(start, 16)?,
            Marker::Ext8 => {
                let len = self.byte()?;
                self.extension(start, len.into())?
            }
            Marker::Ext16 => {
                let len = u16::from_be_bytes(self.array()?);
                self.extension(start, len.into())?
            }
            Marker::Ext32 => {
                let len = u32::from_be_bytes(self.array()?);
                self.extension(start, len)?
            }
            Marker::Reserved => {
                return Err(DocumentError::new(start, "the byte c1", "msgpack does not use it"));
            }
        })
    }

    /// Skips one document, however large, and returns where it was. `depth` is how many containers
    /// it is in.
    pub(crate) fn skip(&mut self, depth: usize) -> Result<Range<usize>, DocumentError> {
        let start = self.position;
        // Only nesting costs memory: one number per level, up to the limit.
        let mut outer: Vec<u64> = Vec::new();
        let mut remaining: u64 = 1;
        let mut levels = depth;
        loop {
            while remaining == 0 {
                let Some(count) = outer.pop() else { return Ok(start..self.position) };
                levels -= 1;
                remaining = count;
            }
            remaining -= 1;
            let at = self.position;
            let token = self.token()?;
            if token.is_container() {
                levels += 1;
                if levels > MAXIMUM_DEPTH {
                    return Err(too_deep(at));
                }
                outer.push(remaining);
                remaining = token.children();
            }
        }
    }

    fn byte(&mut self) -> Result<u8, DocumentError> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DocumentError> {
        let rest = self.bytes.get(self.position..self.end).unwrap_or_default();
        let Some(bytes) = rest.first_chunk::<N>() else {
            return Err(DocumentError::new(self.end, "the end", "the document is incomplete"));
        };
        self.position += N;
        Ok(*bytes)
    }

    fn range(&mut self, start: usize, len: u32) -> Result<Range<usize>, DocumentError> {
        let there = self.end - self.position;
        match usize::try_from(len) {
            Ok(len) if len <= there => {
                self.position += len;
                Ok(self.position - len..self.position)
            }
            _ => {
                let found = format!("a length of {len} with {there} bytes left");
                Err(DocumentError::new(start, found, "all bytes of a value must be there"))
            }
        }
    }

    fn text(&mut self, start: usize, len: u32) -> Result<Token, DocumentError> {
        Ok(Token::Text(self.range(start, len)?))
    }

    fn extension(&mut self, start: usize, len: u32) -> Result<Token, DocumentError> {
        let [kind] = self.array()?;
        Ok(Token::Extension(i8::from_be_bytes([kind]), self.range(start, len)?))
    }

    /// Every element has at least one byte.
    fn container(&self, start: usize, token: Token) -> Result<Token, DocumentError> {
        let there = (self.end - self.position) as u64;
        if token.children() <= there {
            return Ok(token);
        }
        let found = format!("{} of {} with {there} bytes left", token.name(), token.children());
        Err(DocumentError::new(start, found, "an element has at least one byte"))
    }
}

/// A map with both keys "type" and "data": a typed value on the compatible wires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrapper {
    /// Where the map is, including its marker.
    pub(crate) range: Range<usize>,
    /// Where the last value of each key is.
    pub(crate) kind: Range<usize>,
    pub(crate) data: Range<usize>,
}

/// Finds all wrappers of one document, ordered by where they begin. Does not look into extensions,
/// or at anything after the document.
pub(crate) fn wrappers(bytes: &[u8]) -> Result<Vec<Wrapper>, DocumentError> {
    let mut found = Vec::new();
    // A wrapper names its keys, which are ordinary text wherever they occur.
    if memmem::find(bytes, b"type").is_none() || memmem::find(bytes, b"data").is_none() {
        return Ok(found);
    }
    walk_maps(bytes, |wrapper| found.push(wrapper))?;
    found.sort_unstable_by_key(|wrapper| wrapper.range.start);
    Ok(found)
}

/// Calls `visit` for every wrapper, the inner ones first.
fn walk_maps(bytes: &[u8], mut visit: impl FnMut(Wrapper)) -> Result<(), DocumentError> {
    let mut cursor = Cursor::new(bytes);
    let mut open: Vec<Container> = Vec::new();
    loop {
        let start = cursor.position();
        let token = cursor.token()?;
        if token.is_container() {
            if open.len() == MAXIMUM_DEPTH {
                return Err(too_deep(start));
            }
            open.push(Container::new(start, &token));
        } else if let Some(parent) = open.last_mut() {
            let text = match &token {
                Token::Text(range) => cursor.slice(range.clone()),
                _ => &[],
            };
            parent.child(start..cursor.position(), text);
        }
        while let Some(full) = open.pop_if(|container| container.remaining == 0) {
            let range = full.start..cursor.position();
            if let (Some(kind), Some(data)) = (full.kind, full.data) {
                visit(Wrapper { range: range.clone(), kind, data });
            }
            if let Some(parent) = open.last_mut() {
                parent.child(range, &[]);
            }
        }
        if open.is_empty() {
            return Ok(());
        }
    }
}

struct Container {
    start: usize,
    map: bool,
    remaining: u64,
    key: Key,
    kind: Option<Range<usize>>,
    data: Option<Range<usize>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Key {
    Type,
    Data,
    Other,
}

impl Container {
    fn new(start: usize, token: &Token) -> Self {
        Self {
            start,
            map: matches!(token, Token::Map(_)),
            remaining: token.children(),
            key: Key::Other,
            kind: None,
            data: None,
        }
    }

    /// A key, a value or an element has ended.
    fn child(&mut self, range: Range<usize>, text: &[u8]) {
        self.remaining -= 1;
        if !self.map {
            return;
        }
        // Before a key an even number of children remains, after it an odd one.
        if self.remaining % 2 == 1 {
            self.key = match text {
                b"type" => Key::Type,
                b"data" => Key::Data,
                _ => Key::Other,
            };
            return;
        }
        match self.key {
            Key::Type => self.kind = Some(range),
            Key::Data => self.data = Some(range),
            Key::Other => {}
        }
    }
}

/// How many maps in one msgpack document have both keys "type" and "data": on the compatible wires,
/// their receiver takes each of them for a typed value. In a document that is broken or too deep,
/// only those that end before the fault count.
pub fn count_wrappers(packed: &[u8]) -> usize {
    let mut count = 0;
    if memmem::find(packed, b"type").is_some() && memmem::find(packed, b"data").is_some() {
        let _ = walk_maps(packed, |_| count += 1);
    }
    count
}

pub(crate) fn too_deep(position: usize) -> DocumentError {
    DocumentError::new(position, "another level", "at most 497 lists and maps may be nested")
}

fn signed(number: impl Into<i64>) -> Token {
    let number = number.into();
    u64::try_from(number).map_or(Token::Negative(number), Token::Unsigned)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_of_each_kind() {
        let examples: [(&[u8], Token); 26] = [
            (&[0xc0], Token::Nil),
            (&[0xc2], Token::Bool(false)),
            (&[0xc3], Token::Bool(true)),
            (&[0x7f], Token::Unsigned(127)),
            (&[0xcc, 200], Token::Unsigned(200)),
            (&[0xcd, 1, 0], Token::Unsigned(256)),
            (&[0xce, 1, 0, 0, 0], Token::Unsigned(1 << 24)),
            (&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255], Token::Unsigned(u64::MAX)),
            (&[0xe0], Token::Negative(-32)),
            (&[0xd0, 0x80], Token::Negative(-128)),
            (&[0xd0, 0x01], Token::Unsigned(1)),
            (&[0xd1, 0x80, 0], Token::Negative(-32768)),
            (&[0xd2, 0x80, 0, 0, 0], Token::Negative(i32::MIN.into())),
            (&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], Token::Negative(i64::MIN)),
            (&[0xca, 0x3f, 0x80, 0, 0], Token::F32(1.0)),
            (&[0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], Token::F64(1.0)),
            (&[0xa1, b'x'], Token::Text(1..2)),
            (&[0xd9, 1, b'x'], Token::Text(2..3)),
            (&[0xda, 0, 1, b'x'], Token::Text(3..4)),
            (&[0xdb, 0, 0, 0, 1, b'x'], Token::Text(5..6)),
            (&[0xc4, 1, 0], Token::Bytes(2..3)),
            (&[0xc5, 0, 1, 0], Token::Bytes(3..4)),
            (&[0xc6, 0, 0, 0, 1, 0], Token::Bytes(5..6)),
            (&[0xd4, 5, 0], Token::Extension(5, 2..3)),
            (&[0xc7, 3, 0xff, 0, 0, 0], Token::Extension(-1, 3..6)),
            (&[0xc8, 0, 1, 7, 0], Token::Extension(7, 4..5)),
        ];
        for (bytes, token) in examples {
            let mut cursor = Cursor::new(bytes);
            assert_eq!(cursor.token(), Ok(token));
            assert!(cursor.is_at_end());
            for end in 0..bytes.len() {
                assert!(Cursor::new(&bytes[..end]).token().is_err(), "{bytes:02x?} up to {end}");
            }
        }
    }

    #[test]
    fn containers_of_every_width() {
        for (head, token) in [
            (&[0x92][..], Token::List(2)),
            (&[0xdc, 0, 2], Token::List(2)),
            (&[0xdd, 0, 0, 0, 2], Token::List(2)),
            (&[0x81], Token::Map(1)),
            (&[0xde, 0, 1], Token::Map(1)),
            (&[0xdf, 0, 0, 0, 1], Token::Map(1)),
        ] {
            let bytes = [head, &[0x01, 0x02, 0x03]].concat();
            assert_eq!(Cursor::new(&bytes).token(), Ok(token));
            assert_eq!(Cursor::new(&bytes).skip(0), Ok(0..head.len() + 2), "what follows stays");
            assert!(Cursor::new(&bytes[..=head.len()]).token().is_err());
        }
    }

    #[test]
    fn announced_lengths_cost_nothing() {
        for bytes in [
            &[0xc6, 0xff, 0xff, 0xff, 0xff][..],
            &[0xdb, 0xff, 0xff, 0xff, 0xff],
            &[0xc9, 0xff, 0xff, 0xff, 0xff, 0],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xdf, 0xff, 0xff, 0xff, 0xff, 1, 2],
        ] {
            assert!(Cursor::new(bytes).skip(0).is_err());
            assert!(wrappers(&[bytes, b"typedata"].concat()).is_err());
        }
    }

    #[test]
    fn depth_is_limited_without_recursion() {
        let nested = |levels: usize| [vec![0x91; levels], vec![0xc0]].concat();
        assert!(Cursor::new(&nested(MAXIMUM_DEPTH)).skip(0).is_ok());
        assert!(Cursor::new(&nested(MAXIMUM_DEPTH + 1)).skip(0).is_err());
        assert!(Cursor::new(&nested(MAXIMUM_DEPTH)).skip(1).is_err());
        assert!(Cursor::new(&nested(1_000_000)).skip(0).is_err());
        // Next to each other is not nested.
        let wide = [vec![0xdc, 0x10, 0x00], vec![0x90; 4096]].concat();
        assert_eq!(Cursor::new(&wide).skip(0), Ok(0..wide.len()));
    }

    fn text(text: &str) -> Vec<u8> {
        [&[0xa0 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    fn map(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0x80 | u8::try_from(entries.len()).unwrap()];
        for (key, value) in entries {
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    #[test]
    fn wrappers_are_maps_with_both_keys() {
        let inner =
            map(&[(text("data"), vec![1]), (text("x"), vec![2]), (text("type"), text("t"))]);
        let outer = map(&[(text("type"), text("tuple")), (text("data"), inner.clone())]);
        assert_eq!(count_wrappers(&inner), 1);
        assert_eq!(count_wrappers(&outer), 2);
        let found = wrappers(&outer).unwrap();
        assert_eq!(found[0], Wrapper { range: 0..outer.len(), kind: 6..12, data: 17..outer.len() });
        assert_eq!(found[1].range, 17..outer.len());

        let nearly = [
            map(&[(text("type"), vec![1])]),
            map(&[(text("data"), vec![1]), (text("Type"), vec![1])]),
            map(&[(text("x"), text("type")), (text("y"), text("data"))]),
            map(&[(vec![0x91, 0xa4, b't', b'y', b'p', b'e'], vec![1]), (text("data"), vec![1])]),
            [vec![0x92], text("type"), text("data")].concat(),
            [vec![0xc4, 20], map(&[(text("type"), vec![1]), (text("data"), vec![1])])].concat(),
        ];
        for bytes in nearly {
            assert_eq!(count_wrappers(&bytes), 0, "{bytes:02x?}");
        }
        // Two halves, one inside the other, do not make a wrapper.
        let halves = map(&[(text("type"), map(&[(text("data"), vec![1])]))]);
        assert_eq!(count_wrappers(&halves), 0);
    }

    #[test]
    fn of_a_key_that_stands_twice_the_last_counts() {
        let twice =
            map(&[(text("type"), text("a")), (text("data"), vec![1]), (text("type"), text("b"))]);
        let found = wrappers(&twice).unwrap();
        assert_eq!(&twice[found[0].kind.clone()], text("b"));
        assert_eq!(count_wrappers(&twice), 1);
    }

    #[test]
    fn broken_documents_end_the_count() {
        let whole = map(&[(text("type"), text("t")), (text("data"), vec![1])]);
        let pair = [vec![0x92], whole.clone(), whole.clone()].concat();
        assert_eq!(count_wrappers(&pair), 2);
        assert_eq!(count_wrappers(&pair[..pair.len() - 1]), 1);
        assert_eq!(count_wrappers(&[]), 0);
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind(bytes in vec(any::<u8>(), 0..300)) {
            let mut cursor = Cursor::new(&bytes);
            let skipped = cursor.skip(0);
            if let Ok(range) = &skipped {
                prop_assert!(range.end <= bytes.len());
                prop_assert_eq!(range.end, cursor.position());
            }
            // Both walks agree on what is a document.
            let walked = walk_maps(&bytes, |wrapper| assert!(wrapper.range.end <= bytes.len()));
            prop_assert_eq!(skipped.is_ok(), walked.is_ok());
        }
    }
}
