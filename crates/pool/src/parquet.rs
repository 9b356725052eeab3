//! What a Parquet file from a peer claims, read from the file itself before any library reads it.
//!
//! A file's metadata and the heads of its pages say how many values there are, how large a page is
//! once it is decompressed, and how a value is encoded; readers reserve memory by it. A few bytes
//! can stand for billions of values, so [`claims`] adds up what the reader will reserve.
//!
//! Metadata and heads are in Thrift's compact protocol.

use std::ops::Range;

/// A file that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {position}: {required}")]
pub struct ParquetError {
    /// The byte where it was noticed.
    pub position: usize,
    /// What was expected.
    pub required: &'static str,
}

/// What a file claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The most rows that any part of the metadata names.
    pub rows: u64,
    /// Bytes of memory that readers of the metadata need, at most.
    pub metadata: u64,
    /// The columns of plain values, in the order of the schema.
    pub leaves: Vec<Leaf>,
    /// Where the entries of the file's own key-value metadata are.
    pub entries: Vec<Entry>,
}

/// Where a key and its value are.
pub type Entry = (Range<usize>, Range<usize>);

/// A column of plain values, in all row groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// Bytes of one value, without the content of those of variable length.
    pub width: u64,
    /// Whether values are bytes of variable length.
    pub is_bytes: bool,
    /// Values, nulls among them.
    pub values: u64,
    /// Values that refer to a dictionary.
    pub referring: u64,
    /// Bytes of the largest dictionary, by the length of its page and by how many values it claims.
    pub dictionary: u64,
    /// Bytes of all pages, decompressed.
    pub pages: u64,
}

const MAGIC: &[u8] = b"PAR1";

/// Bytes of the smallest page, its head included.
const SMALLEST_PAGE: usize = 8;

/// Nesting of a file's metadata; Parquet's own takes 7 levels.
const LEVELS: usize = 16;

/// Bytes that readers need for one structure of the metadata, its parts included: the generated
/// type, what the schema is turned into, and a reader for each column.
const ELEMENT_OF_SCHEMA: u64 = 3 << 10;
const CHUNK: u64 = 3 << 10;
const ROW_GROUP: u64 = 1 << 10;
const STRUCTURE: u64 = 256;
const ITEM: u64 = 32;

/// Encodings that Arrow's writer chooses by itself: plain, two for a dictionary, run length, bits.
/// Others let a value repeat a part of the one before.
const ENCODINGS: [i64; 5] = [0, 2, 3, 4, 8];
const DICTIONARIES: [i64; 2] = [2, 8];

const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;
const DATA_PAGE_2: i64 = 3;

/// Reads the metadata of `file` and the head of every page.
///
/// # Errors
/// What is wrong with the file, or not accepted from a peer: encryption, columns in other files,
/// encodings that Arrow does not choose by itself.
pub fn claims(file: &[u8]) -> Result<Claims, ParquetError> {
    let end = file.len();
    let refused = |required| ParquetError { position: end, required };
    let body = end.checked_sub(8).filter(|_| file.starts_with(MAGIC) && file.ends_with(MAGIC));
    let body = body.ok_or(refused("expected a file that begins and ends with PAR1"))?;
    let length = file
        .get(body..)
        .and_then(|tail| tail.first_chunk::<4>())
        .map_or(0, |length| usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX));
    let start = body.checked_sub(length).ok_or(refused("expected metadata inside the file"))?;
    let mut metadata = Metadata::default();
    let mut reader = Reader { bytes: file, position: start, end: body, cost: 0 };
    metadata.read(&mut reader)?;
    let mut claims = Claims {
        rows: metadata.rows,
        metadata: reader.cost,
        leaves: metadata.leaves,
        entries: metadata.entries,
    };
    // Chunks that point at the same pages must not cost time again and again.
    let mut pages = start / SMALLEST_PAGE;
    for group in metadata.groups {
        if group.len() != claims.leaves.len() {
            return Err(refused("expected a chunk for each column in every row group"));
        }
        for (leaf, chunk) in claims.leaves.iter_mut().zip(group) {
            chunk.add_to(leaf, file, start, &mut pages)?;
        }
    }
    Ok(claims)
}

#[derive(Default)]
struct Metadata {
    rows: u64,
    leaves: Vec<Leaf>,
    groups: Vec<Vec<Chunk>>,
    entries: Vec<Entry>,
}

impl Metadata {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), ParquetError> {
        let mut in_groups: u64 = 0;
        reader.structure(|reader, id, kind| match id {
            2 => reader.list(kind, |reader| {
                reader.cost += ELEMENT_OF_SCHEMA;
                self.leaves.extend(element(reader)?);
                Ok(())
            }),
            3 => {
                self.rows = reader.size(kind, I64)?;
                Ok(())
            }
            4 => reader.list(kind, |reader| {
                reader.cost += ROW_GROUP;
                let (rows, chunks) = row_group(reader)?;
                in_groups = in_groups.saturating_add(rows);
                self.groups.push(chunks);
                Ok(())
            }),
            5 => reader.list(kind, |reader| {
                self.entries.extend(entry(reader)?);
                Ok(())
            }),
            8 | 9 => Err(reader.refused("expected a file that is not encrypted")),
            _ => reader.skip(kind, 0),
        })?;
        self.rows = self.rows.max(in_groups);
        Ok(())
    }
}

/// An element of the schema, if it is a column of plain values.
fn element(reader: &mut Reader<'_>) -> Result<Option<Leaf>, ParquetError> {
    let (mut physical, mut length, mut children) = (None, 0, 0);
    reader.structure(|reader, id, kind| {
        match id {
            1 => physical = Some(reader.number(kind, I32)?),
            2 => length = reader.size(kind, I32)?,
            5 => children = reader.size(kind, I32)?,
            _ => reader.skip(kind, 0)?,
        }
        Ok(())
    })?;
    if children > 0 {
        return Ok(None);
    }
    let (width, is_bytes) = match physical {
        Some(0) => (1, false),
        Some(1 | 4) => (4, false),
        Some(2 | 5) => (8, false),
        Some(3) => (12, false),
        Some(6) => (16, true),
        Some(7) => (length, false),
        // The root of a file without columns.
        None => return Ok(None),
        Some(_) => return Err(reader.refused("expected a physical type from 0 to 7")),
    };
    Ok(Some(Leaf { width, is_bytes, ..Leaf::default() }))
}

fn row_group(reader: &mut Reader<'_>) -> Result<(u64, Vec<Chunk>), ParquetError> {
    let (mut rows, mut chunks) = (0, Vec::new());
    reader.structure(|reader, id, kind| match id {
        1 => reader.list(kind, |reader| {
            reader.cost += CHUNK;
            chunks.push(Chunk::read(reader)?);
            Ok(())
        }),
        3 => {
            rows = reader.size(kind, I64)?;
            Ok(())
        }
        _ => reader.skip(kind, 0),
    })?;
    Ok((rows, chunks))
}

fn entry(reader: &mut Reader<'_>) -> Result<Option<Entry>, ParquetError> {
    let (mut key, mut value) = (None, None);
    reader.structure(|reader, id, kind| {
        match id {
            1 => key = Some(reader.binary(kind)?),
            2 => value = Some(reader.binary(kind)?),
            _ => reader.skip(kind, 0)?,
        }
        Ok(())
    })?;
    Ok(key.zip(value))
}

/// The values of a column in a row group.
#[derive(Default)]
struct Chunk {
    values: u64,
    first_page: Option<u64>,
    dictionary: Option<u64>,
}

impl Chunk {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ParquetError> {
        let mut chunk = None;
        reader.structure(|reader, id, kind| match id {
            1 => Err(reader.refused("expected a column in this file")),
            3 if kind == STRUCT => {
                chunk = Some(Self::metadata(reader)?);
                Ok(())
            }
            8 | 9 => Err(reader.refused("expected a column that is not encrypted")),
            _ => reader.skip(kind, 0),
        })?;
        chunk.ok_or_else(|| reader.refused("expected metadata for each column"))
    }

    fn metadata(reader: &mut Reader<'_>) -> Result<Self, ParquetError> {
        let mut chunk = Self::default();
        reader.structure(|reader, id, kind| {
            match id {
                5 => chunk.values = reader.size(kind, I64)?,
                9 => chunk.first_page = Some(reader.size(kind, I64)?),
                11 => chunk.dictionary = Some(reader.size(kind, I64)?),
                _ => reader.skip(kind, 0)?,
            }
            Ok(())
        })?;
        Ok(chunk)
    }

    /// Adds what the chunk and its pages claim. Readers end with the chunk's length too, so this
    /// sees every page that they see.
    fn add_to(
        &self,
        leaf: &mut Leaf,
        file: &[u8],
        end: usize,
        pages: &mut usize,
    ) -> Result<(), ParquetError> {
        leaf.values = leaf.values.saturating_add(self.values);
        if self.values == 0 {
            return Ok(());
        }
        let first = self.first_page.unwrap_or(0);
        let start = self.dictionary.filter(|&start| start > 0 && start < first).unwrap_or(first);
        let position = usize::try_from(start).unwrap_or(usize::MAX);
        let mut reader = Reader { bytes: file, position, end, cost: 0 };
        let mut seen: u64 = 0;
        while seen < self.values {
            *pages =
                pages.checked_sub(1).ok_or_else(|| reader.refused("expected each page once"))?;
            let page = Page::read(&mut reader)?;
            reader.advance(page.compressed)?;
            leaf.pages = leaf.pages.saturating_add(page.decompressed);
            if page.is_dictionary {
                let entries = page.values.saturating_mul(leaf.width);
                leaf.dictionary = leaf.dictionary.max(page.decompressed.saturating_add(entries));
                continue;
            }
            seen = seen.saturating_add(page.values);
            if page.refers {
                leaf.referring = leaf.referring.saturating_add(page.values);
            }
        }
        leaf.values = leaf.values.saturating_add(seen - self.values);
        Ok(())
    }
}

/// What stands before the content of a page.
#[derive(Default)]
struct Page {
    decompressed: u64,
    compressed: u64,
    values: u64,
    is_dictionary: bool,
    refers: bool,
}

impl Page {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ParquetError> {
        let mut page = Self::default();
        let mut kind_of_page = None;
        let mut head = None;
        let before = reader.position;
        reader.structure(|reader, id, kind| {
            match (id, kind) {
                (1, _) => kind_of_page = Some(reader.number(kind, I32)?),
                (2, _) => page.decompressed = reader.size(kind, I32)?,
                (3, _) => page.compressed = reader.size(kind, I32)?,
                (5, STRUCT) => head = Some((DATA_PAGE, values_and_encoding(reader, 2)?)),
                (7, STRUCT) => head = Some((DICTIONARY_PAGE, values_and_encoding(reader, 2)?)),
                (8, STRUCT) => head = Some((DATA_PAGE_2, values_and_encoding(reader, 4)?)),
                _ => reader.skip(kind, 0)?,
            }
            Ok(())
        })?;
        let Some((of, (values, encoding))) = head.filter(|head| Some(head.0) == kind_of_page)
        else {
            return Err(ParquetError {
                position: before,
                required: "expected the head of a page with data or a dictionary",
            });
        };
        if !ENCODINGS.contains(&encoding) {
            return Err(ParquetError {
                position: before,
                required: "expected an encoding that Arrow chooses by itself",
            });
        }
        page.values = values;
        page.is_dictionary = of == DICTIONARY_PAGE;
        page.refers = !page.is_dictionary && DICTIONARIES.contains(&encoding);
        Ok(page)
    }
}

fn values_and_encoding(
    reader: &mut Reader<'_>,
    encoding_id: i64,
) -> Result<(u64, i64), ParquetError> {
    let (mut values, mut encoding) = (0, None);
    reader.structure(|reader, id, kind| {
        if id == 1 {
            values = reader.size(kind, I32)?;
        } else if id == encoding_id {
            encoding = Some(reader.number(kind, I32)?);
        } else {
            reader.skip(kind, 0)?;
        }
        Ok(())
    })?;
    let encoding = encoding.ok_or_else(|| reader.refused("expected the encoding of a page"))?;
    Ok((values, encoding))
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

/// Reads Thrift's compact protocol.
struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    end: usize,
    /// Bytes of memory for what was read so far.
    cost: u64,
}

impl Reader<'_> {
    fn refused(&self, required: &'static str) -> ParquetError {
        ParquetError { position: self.position, required }
    }

    fn byte(&mut self) -> Result<u8, ParquetError> {
        let byte = self.bytes.get(..self.end).and_then(|bytes| bytes.get(self.position)).copied();
        let byte = byte.ok_or_else(|| self.refused("expected more bytes"))?;
        self.position += 1;
        Ok(byte)
    }

    fn advance(&mut self, length: u64) -> Result<(), ParquetError> {
        let there = self.end.saturating_sub(self.position);
        match usize::try_from(length) {
            Ok(length) if length <= there => {
                self.position += length;
                Ok(())
            }
            _ => Err(self.refused("expected more bytes")),
        }
    }

    fn varint(&mut self) -> Result<u64, ParquetError> {
        let mut number: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.refused("expected a number of at most 64 bits"))
    }

    fn zigzag(&mut self) -> Result<i64, ParquetError> {
        let number = self.varint()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// A number of the field's own type: readers skip a field of another type.
    fn number(&mut self, kind: u8, own: u8) -> Result<i64, ParquetError> {
        if kind != own {
            return Err(self.refused("expected a number of another type"));
        }
        let number = self.zigzag()?;
        if own == I32 && i32::try_from(number).is_err() {
            return Err(self.refused("expected a number of at most 32 bits"));
        }
        Ok(number)
    }

    fn size(&mut self, kind: u8, own: u8) -> Result<u64, ParquetError> {
        let number = self.number(kind, own)?;
        u64::try_from(number).map_err(|_| self.refused("expected a size of at least 0"))
    }

    fn binary(&mut self, kind: u8) -> Result<Range<usize>, ParquetError> {
        if kind != BINARY {
            return Err(self.refused("expected bytes"));
        }
        let length = self.varint()?;
        let start = self.position;
        self.advance(length)?;
        self.cost = self.cost.saturating_add(ITEM + 2 * length);
        Ok(start..self.position)
    }

    /// Calls `field` with each field's number and type. Numbers go up, as writers write them, so
    /// that none comes twice and replaces the first.
    fn structure(
        &mut self,
        mut field: impl FnMut(&mut Self, i64, u8) -> Result<(), ParquetError>,
    ) -> Result<(), ParquetError> {
        self.cost = self.cost.saturating_add(STRUCTURE);
        let mut last: i64 = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            let id = match head >> 4 {
                0 => self.zigzag()?,
                delta => last + i64::from(delta),
            };
            if id <= last || id > i64::from(i16::MAX) {
                return Err(self.refused("expected fields in ascending order"));
            }
            last = id;
            field(self, id, head & 0x0f)?;
        }
    }

    /// Calls `item` for each element of a list of structures.
    fn list(
        &mut self,
        kind: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), ParquetError>,
    ) -> Result<(), ParquetError> {
        if kind != LIST {
            return Err(self.refused("expected a list"));
        }
        let (count, of) = self.list_head()?;
        if of != STRUCT && count > 0 {
            return Err(self.refused("expected a list of structures"));
        }
        (0..count).try_for_each(|_| item(self))
    }

    fn list_head(&mut self) -> Result<(u64, u8), ParquetError> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        let there = self.end.saturating_sub(self.position) as u64;
        if count > there {
            return Err(self.refused("expected all elements of a list"));
        }
        self.cost = self.cost.saturating_add(count * ITEM);
        Ok((count, head & 0x0f))
    }

    /// Skips a value. In a list, a boolean takes a byte.
    fn skip(&mut self, kind: u8, level: usize) -> Result<(), ParquetError> {
        if level > LEVELS {
            return Err(self.refused("expected less nesting"));
        }
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.advance(1),
            I16..=I64 => self.varint().map(drop),
            DOUBLE => self.advance(8),
            BINARY => self.binary(kind).map(drop),
            LIST | SET => {
                let (count, of) = self.list_head()?;
                (0..count).try_for_each(|_| self.skip_item(of, level + 1))
            }
            MAP => {
                let count = self.varint()?;
                if count == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                self.cost = self.cost.saturating_add(count.saturating_mul(2 * ITEM));
                (0..count).try_for_each(|_| {
                    self.skip_item(kinds >> 4, level + 1)?;
                    self.skip_item(kinds & 0x0f, level + 1)
                })
            }
            STRUCT => self.structure(|reader, _, kind| reader.skip(kind, level + 1)),
            _ => Err(self.refused("expected a type of Thrift's compact protocol")),
        }
    }

    fn skip_item(&mut self, kind: u8, level: usize) -> Result<(), ParquetError> {
        if kind == TRUE || kind == FALSE { self.advance(1) } else { self.skip(kind, level) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS_AND_TEXTS: &[u8] =
        include_bytes!("../../../fuzz/seeds/pool_parquet/numbers_and_texts");

    /// A field's head and its number, in Thrift's compact protocol.
    fn field(id: u8, kind: u8, number: u64) -> Vec<u8> {
        let mut bytes = vec![kind, 2 * id];
        let mut rest = number << 1;
        while rest > 0x7f {
            bytes.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        bytes.push(rest.to_le_bytes()[0]);
        bytes
    }

    /// A file with one column of 64-bit numbers, whose chunk claims `values` values and has `pages`.
    fn file(values: u64, pages: &[u8]) -> Vec<u8> {
        let root = [&field(5, I32, 1)[..], &[0]].concat();
        let column = [&field(1, I32, 2)[..], &[0]].concat();
        let chunk = [&field(5, I64, values)[..], &field(9, I64, 4), &[0]].concat();
        let group =
            [&[LIST, 2, 0x1c, STRUCT, 6][..], &chunk, &[0], &field(3, I64, values), &[0]].concat();
        let metadata = [
            &[LIST, 4, 0x2c][..],
            &root,
            &column,
            &field(3, I64, values),
            &[LIST, 8, 0x1c],
            &group,
            &[0],
        ]
        .concat();
        let length = u32::try_from(metadata.len()).unwrap().to_le_bytes();
        [MAGIC, pages, &metadata, &length, MAGIC].concat()
    }

    fn page(values: u64, encoding: u64, decompressed: u64, content: &[u8]) -> Vec<u8> {
        [
            &field(1, I32, 0)[..],
            &field(2, I32, decompressed),
            &field(3, I32, content.len() as u64),
            &[STRUCT, 10],
            &field(1, I32, values),
            &field(2, I32, encoding),
            &[0, 0],
            content,
        ]
        .concat()
    }

    #[test]
    fn a_file_of_pyarrow() {
        let claims = claims(NUMBERS_AND_TEXTS).unwrap();
        assert_eq!(claims.rows, 3);
        let [numbers, texts] = &claims.leaves[..] else { panic!("{claims:?}") };
        assert_eq!((numbers.width, numbers.is_bytes, numbers.values), (8, false, 3));
        assert_eq!((texts.is_bytes, texts.values, texts.referring), (true, 3, 3));
        assert!(texts.dictionary > 0 && texts.pages > 0);
        assert!(claims.metadata > 2 * (ELEMENT_OF_SCHEMA + CHUNK));
    }

    #[test]
    fn what_pages_claim_counts() {
        let pages = [page(10, 0, 1 << 30, b"abc"), page(1 << 30, 8, 7, b"")].concat();
        let claims = claims(&file(1000, &pages)).unwrap();
        let leaf = &claims.leaves[0];
        assert_eq!(leaf.values, 10 + (1 << 30));
        assert_eq!(leaf.referring, 1 << 30);
        assert_eq!(leaf.pages, (1 << 30) + 7);
    }

    #[test]
    fn a_dictionary_that_claims_many_values() {
        let mut dictionary = [
            &field(1, I32, 2)[..],
            &field(2, I32, 8),
            &field(3, I32, 8),
            &[STRUCT, 14],
            &field(1, I32, 1 << 30),
            &field(2, I32, 0),
            &[0, 0],
            &[0; 8],
        ]
        .concat();
        dictionary.extend(page(10, 8, 3, b"abc"));
        let claims = claims(&file(10, &dictionary)).unwrap();
        assert_eq!(claims.leaves[0].dictionary, 8 + (8 << 30));
    }

    #[test]
    fn values_that_repeat_the_one_before() {
        for encoding in [5, 6, 7, 9] {
            let error = claims(&file(10, &page(10, encoding, 10, b"abc"))).unwrap_err();
            assert!(error.required.contains("encoding"), "{error}");
        }
    }

    /// A reader would skip such a field, or cut the number off, and then see other pages than we do.
    #[test]
    fn numbers_of_another_type_than_readers_expect() {
        let as_64_bits = page(10, 0, 10, b"abc").into_iter().enumerate();
        let as_64_bits: Vec<u8> =
            as_64_bits.map(|(at, byte)| if at == 0 && byte == I32 { I64 } else { byte }).collect();
        assert!(claims(&file(10, &as_64_bits)).is_err());
        assert!(claims(&file(10, &page((1 << 32) + 10, 0, 10, b"abc"))).is_err());
        assert!(claims(&file(10, &page(10, 0, 10, b"abc"))).is_ok());
    }

    #[test]
    fn chunks_that_point_at_the_same_pages_cost_no_time() {
        let empty = page(0, 0, 0, b"").repeat(1000);
        let error = claims(&file(10, &empty)).unwrap_err();
        assert!(error.required.contains("each page once") || error.required.contains("bytes"));
    }

    #[test]
    fn damaged_files_are_errors_or_claims() {
        for at in 0..NUMBERS_AND_TEXTS.len() {
            for byte in [0x00, 0x19, 0x7f, 0xff] {
                let mut damaged = NUMBERS_AND_TEXTS.to_vec();
                damaged[at] = byte;
                let _ = claims(&damaged);
            }
            assert!(claims(&NUMBERS_AND_TEXTS[at + 1..]).is_err());
        }
    }
}
