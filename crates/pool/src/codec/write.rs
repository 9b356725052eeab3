//! Writes values as msgpack, the way the genuine package does.

use std::mem;

use bytes::Bytes;
use rmp::encode;
use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::array::{Array, Number, View};
use super::hand::{self, Handed};
use super::{ARRAY_EXTENSION, BUFFER_EXTENSION, CodecError, Integer, TYPED_EXTENSION};
use crate::limits::{MAXIMUM_BUFFERS, MAXIMUM_VALUE_DEPTH, OUT_OF_BAND_BYTES};
use crate::message::{Payload, Wire};

const NO_ERROR: &str = "a vector accepts everything";

/// Writes one value.
pub(super) struct Writer {
    wire: Wire,
    /// Parts that are full; `out` comes after them.
    parts: Vec<Bytes>,
    out: Vec<u8>,
    buffers: Vec<Bytes>,
    depth: usize,
}

impl Writer {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, parts: Vec::new(), out: Vec::new(), buffers: Vec::new(), depth: 0 }
    }

    pub(super) fn finish(mut self) -> Payload {
        self.flush();
        Payload { parts: self.parts, buffers: self.buffers }
    }

    fn flush(&mut self) {
        if !self.out.is_empty() {
            self.parts.push(mem::take(&mut self.out).into());
        }
    }

    fn deeper(&mut self) -> Result<(), CodecError> {
        self.depth += 1;
        if self.depth > MAXIMUM_VALUE_DEPTH { Err(CodecError::Depth) } else { Ok(()) }
    }

    fn list_head(&mut self, count: usize) -> Result<(), CodecError> {
        encode::write_array_len(&mut self.out, checked("a list", count)?).expect(NO_ERROR);
        Ok(())
    }

    fn map_head(&mut self, count: usize) -> Result<(), CodecError> {
        encode::write_map_len(&mut self.out, checked("a map", count)?).expect(NO_ERROR);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), CodecError> {
        checked("a text", text.len())?;
        encode::write_str(&mut self.out, text).expect(NO_ERROR);
        Ok(())
    }

    /// Writes bytes in place.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        let length = checked("bytes", bytes.len())?;
        encode::write_bin_len(&mut self.out, length).expect(NO_ERROR);
        if bytes.len() < OUT_OF_BAND_BYTES {
            self.out.extend_from_slice(bytes);
        } else {
            self.flush();
            self.parts.push(hand::owner(bytes));
        }
        Ok(())
    }

    fn has_room_beside(&self, length: usize) -> bool {
        self.wire == Wire::Two
            && length >= OUT_OF_BAND_BYTES
            && self.buffers.len() < MAXIMUM_BUFFERS
    }

    /// Sends bytes separately from the value and writes their number.
    fn buffer(&mut self, bytes: Bytes) {
        encode::write_uint(&mut self.out, self.buffers.len() as u64).expect(NO_ERROR);
        self.buffers.push(bytes);
    }

    /// Writes an extension around what `content` writes.
    fn extension(
        &mut self,
        kind: i8,
        content: impl FnOnce(&mut Self) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        let before = mem::take(&mut self.out);
        let mark = self.parts.len();
        content(self)?;
        self.flush();
        let length = self.parts[mark..].iter().map(Bytes::len).sum();
        self.out = before;
        let length = checked("a typed value", length)?;
        encode::write_ext_meta(&mut self.out, length, kind).expect(NO_ERROR);
        let content = self.parts.split_off(mark);
        for part in content {
            if part.len() < OUT_OF_BAND_BYTES {
                self.out.extend_from_slice(&part);
            } else {
                self.flush();
                self.parts.push(part);
            }
        }
        Ok(())
    }

    /// An integer that msgpack cannot express.
    fn large(&mut self, integer: &Integer) -> Result<(), CodecError> {
        let bytes = integer.wire_bytes();
        if self.wire == Wire::Two {
            return self.extension(TYPED_EXTENSION, |writer| {
                writer.list_head(2)?;
                writer.text("int")?;
                writer.bytes(&bytes)
            });
        }
        self.map_head(2)?;
        self.text("type")?;
        self.text("int")?;
        self.text("data")?;
        self.bytes(&bytes)
    }

    fn array(&mut self, array: &Array) -> Result<(), CodecError> {
        array.check()?;
        if self.wire == Wire::Two {
            return self.extension(ARRAY_EXTENSION, |writer| {
                writer.list_head(4)?;
                writer.text(&array.dtype)?;
                writer.list_head(array.shape.len())?;
                for length in &array.shape {
                    encode::write_uint(&mut writer.out, *length as u64).expect(NO_ERROR);
                }
                writer.text(array.order.letter())?;
                if writer.has_room_beside(array.data.len()) {
                    writer.buffer(array.data.clone());
                    Ok(())
                } else {
                    hand::with(Handed::Bytes(array.data.clone()), || writer.bytes(&array.data))
                }
            });
        }
        let layout = array.layout()?;
        if !array.shape.is_empty() {
            return self.rows(layout.view());
        }
        // Written like a zero-dimensional numpy array.
        self.map_head(2)?;
        self.text("type")?;
        self.text("ndarray")?;
        self.text("data")?;
        self.map_head(2)?;
        self.text("values")?;
        self.rows(layout.view())?;
        self.text("shape")?;
        self.map_head(2)?;
        self.text("type")?;
        self.text("tuple")?;
        self.text("data")?;
        self.list_head(0)
    }

    fn rows(&mut self, view: View<'_>) -> Result<(), CodecError> {
        match view.rows() {
            None => {
                let out = &mut self.out;
                match view.number() {
                    Number::Bool(value) => encode::write_bool(out, value).expect(NO_ERROR),
                    Number::Unsigned(number) => {
                        encode::write_uint(out, number).expect(NO_ERROR);
                    }
                    Number::Negative(number) => {
                        encode::write_sint(out, number).expect(NO_ERROR);
                    }
                    Number::F32(number) => encode::write_f32(out, number).expect(NO_ERROR),
                    Number::F64(number) => encode::write_f64(out, number).expect(NO_ERROR),
                }
                Ok(())
            }
            Some(rows) => {
                self.deeper()?;
                self.list_head(rows)?;
                for row in 0..rows {
                    self.rows(view.row(row))?;
                }
                self.depth -= 1;
                Ok(())
            }
        }
    }

    /// A list or map whose length may not be known yet.
    fn open(&mut self, form: Form, count: Option<usize>) -> Result<Open<'_>, CodecError> {
        self.deeper()?;
        let mark = if let Some(count) = count {
            match form {
                Form::List => self.list_head(count)?,
                Form::Map | Form::Typed => self.map_head(count)?,
            }
            None
        } else {
            self.flush();
            Some(self.parts.len())
        };
        Ok(Open { writer: self, form, announced: count, written: 0, mark, levels: 1, keys: 0 })
    }

    /// A map with one key, around a variant's content.
    fn variant(&mut self, name: &str) -> Result<(), CodecError> {
        self.deeper()?;
        self.map_head(1)?;
        self.text(name)
    }
}

fn checked(what: &'static str, length: usize) -> Result<u32, CodecError> {
    u32::try_from(length).map_err(|_| CodecError::TooLarge { what, length })
}

impl<'w> Serializer for &'w mut Writer {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Open<'w>;
    type SerializeTuple = Open<'w>;
    type SerializeTupleStruct = Open<'w>;
    type SerializeTupleVariant = Open<'w>;
    type SerializeMap = Open<'w>;
    type SerializeStruct = Open<'w>;
    type SerializeStructVariant = Open<'w>;

    fn serialize_bool(self, value: bool) -> Result<(), CodecError> {
        encode::write_bool(&mut self.out, value).expect(NO_ERROR);
        Ok(())
    }

    fn serialize_i8(self, number: i8) -> Result<(), CodecError> {
        self.serialize_i64(number.into())
    }

    fn serialize_i16(self, number: i16) -> Result<(), CodecError> {
        self.serialize_i64(number.into())
    }

    fn serialize_i32(self, number: i32) -> Result<(), CodecError> {
        self.serialize_i64(number.into())
    }

    fn serialize_i64(self, number: i64) -> Result<(), CodecError> {
        encode::write_sint(&mut self.out, number).expect(NO_ERROR);
        Ok(())
    }

    fn serialize_i128(self, number: i128) -> Result<(), CodecError> {
        match crate::envelope::write_number(&mut self.out, number) {
            Some(()) => Ok(()),
            None => self.large(&number.into()),
        }
    }

    fn serialize_u8(self, number: u8) -> Result<(), CodecError> {
        self.serialize_u64(number.into())
    }

    fn serialize_u16(self, number: u16) -> Result<(), CodecError> {
        self.serialize_u64(number.into())
    }

    fn serialize_u32(self, number: u32) -> Result<(), CodecError> {
        self.serialize_u64(number.into())
    }

    fn serialize_u64(self, number: u64) -> Result<(), CodecError> {
        encode::write_uint(&mut self.out, number).expect(NO_ERROR);
        Ok(())
    }

    fn serialize_u128(self, number: u128) -> Result<(), CodecError> {
        match u64::try_from(number) {
            Ok(number) => self.serialize_u64(number),
            Err(_) => self.large(&number.into()),
        }
    }

    fn serialize_f32(self, number: f32) -> Result<(), CodecError> {
        encode::write_f32(&mut self.out, number).expect(NO_ERROR);
        Ok(())
    }

    fn serialize_f64(self, number: f64) -> Result<(), CodecError> {
        encode::write_f64(&mut self.out, number).expect(NO_ERROR);
        Ok(())
    }

    fn serialize_char(self, character: char) -> Result<(), CodecError> {
        self.text(character.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), CodecError> {
        self.text(text)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), CodecError> {
        if !self.has_room_beside(bytes.len()) {
            return self.bytes(bytes);
        }
        let owner = hand::owner(bytes);
        self.extension(BUFFER_EXTENSION, |writer| {
            writer.buffer(owner);
            Ok(())
        })
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        encode::write_nil(&mut self.out).expect(NO_ERROR);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), CodecError> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        match name {
            hand::ARRAY => match hand::take() {
                Some(Handed::Array(array)) => self.array(&array),
                _ => value.serialize(self),
            },
            hand::INTEGER => match hand::take() {
                Some(Handed::Integer(integer)) => self.large(&integer),
                _ => value.serialize(self),
            },
            hand::TYPED if self.wire == Wire::Two => {
                self.extension(TYPED_EXTENSION, |writer| value.serialize(&mut *writer))
            }
            _ => value.serialize(self),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.depth -= 1;
        Ok(())
    }

    fn serialize_seq(self, count: Option<usize>) -> Result<Open<'w>, CodecError> {
        self.open(Form::List, count)
    }

    fn serialize_tuple(self, count: usize) -> Result<Open<'w>, CodecError> {
        self.open(Form::List, Some(count))
    }

    fn serialize_tuple_struct(self, _: &'static str, count: usize) -> Result<Open<'w>, CodecError> {
        self.open(Form::List, Some(count))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Open<'w>, CodecError> {
        self.variant(variant)?;
        let open = self.open(Form::List, Some(count))?;
        Ok(Open { levels: 2, ..open })
    }

    fn serialize_map(self, count: Option<usize>) -> Result<Open<'w>, CodecError> {
        self.open(Form::Map, count)
    }

    fn serialize_struct(self, name: &'static str, count: usize) -> Result<Open<'w>, CodecError> {
        let form = match self.wire {
            _ if name != hand::TYPED => Form::Map,
            Wire::Two => Form::List,
            Wire::Four | Wire::Five => Form::Typed,
        };
        self.open(form, Some(count))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Open<'w>, CodecError> {
        self.variant(variant)?;
        let open = self.open(Form::Map, Some(count))?;
        Ok(Open { levels: 2, ..open })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    List,
    Map,
    /// A map that deliberately has the keys "type" and "data".
    Typed,
}

const TYPE_KEY: u8 = 1;
const DATA_KEY: u8 = 2;

/// A list or map being written.
pub(super) struct Open<'w> {
    writer: &'w mut Writer,
    form: Form,
    announced: Option<usize>,
    written: usize,
    /// The part that comes after the head, if the head can only be written at the end.
    mark: Option<usize>,
    levels: usize,
    keys: u8,
}

impl Open<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.written += 1;
        value.serialize(&mut *self.writer)
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), CodecError> {
        if self.form != Form::List {
            self.note(key.as_bytes())?;
            self.writer.text(key)?;
        }
        self.element(value)
    }

    fn note(&mut self, key: &[u8]) -> Result<(), CodecError> {
        match key {
            b"type" => self.keys |= TYPE_KEY,
            b"data" => self.keys |= DATA_KEY,
            _ => return Ok(()),
        }
        let both = self.keys == TYPE_KEY | DATA_KEY;
        if both && self.form == Form::Map && self.writer.wire != Wire::Two {
            return Err(CodecError::Ambiguous);
        }
        Ok(())
    }

    /// Writes a key; its kind shows in what was written.
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        let mark = self.writer.parts.len();
        let start = self.writer.out.len();
        key.serialize(&mut *self.writer)?;
        let written = match self.writer.parts.get(mark) {
            None => self.writer.out.get(start..).unwrap_or_default(),
            // A key this large began in what has been flushed.
            Some(part) => part.get(start..).unwrap_or_default(),
        };
        let text = match written {
            [0xa0..=0xbf, text @ ..] | [0xd9, _, text @ ..] => Some(text),
            [0xda, _, _, ..] | [0xdb, ..] => Some(&[][..]),
            _ => None,
        };
        match text {
            Some(text) => {
                let text = text.get(..5).unwrap_or(text).to_vec();
                self.note(&text)
            }
            None if self.writer.wire == Wire::Two => Ok(()),
            None => Err(CodecError::Key { found: "not a text" }),
        }
    }

    fn close(self) -> Result<(), CodecError> {
        let Self { writer, form, announced, written, mark, levels, .. } = self;
        writer.depth -= levels;
        if let Some(mark) = mark {
            writer.flush();
            match form {
                Form::List => writer.list_head(written)?,
                _ => writer.map_head(written)?,
            }
            let head = mem::take(&mut writer.out);
            writer.parts.insert(mark, head.into());
        }
        match announced {
            Some(announced) if announced != written => {
                Err(CodecError::Length { announced, written })
            }
            _ => Ok(()),
        }
    }
}

impl SerializeSeq for Open<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.element(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.close()
    }
}

impl SerializeTuple for Open<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.element(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.close()
    }
}

impl SerializeTupleStruct for Open<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.element(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.close()
    }
}

impl SerializeTupleVariant for Open<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.element(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.close()
    }
}

impl SerializeMap for Open<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.element(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.close()
    }
}

impl SerializeStruct for Open<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.field(key, value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.close()
    }
}

impl SerializeStructVariant for Open<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.field(key, value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.close()
    }
}
