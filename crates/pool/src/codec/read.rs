//! Reads values from msgpack.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserializer;
use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::array::{Array, ArrayError, Census, ElementOrder, Number};
use super::hand::{self, Handed};
use super::{
    ARRAY_EXTENSION, BUFFER_EXTENSION, CodecError, Integer, TABLE_EXTENSION, TYPED_EXTENSION,
};
use crate::limits::{MAXIMUM_DIMENSIONS, MAXIMUM_VALUE_DEPTH, OUT_OF_BAND_BYTES};
use crate::message::Wire;
use crate::msgpack::{self, Cursor, DocumentError, Token, Wrapper};

pub(super) fn from_parts<T: DeserializeOwned>(
    wire: Wire,
    value: &Bytes,
    buffers: &[Bytes],
) -> Result<T, CodecError> {
    let wrappers = match wire {
        Wire::Two => Vec::new(),
        Wire::Four | Wire::Five => msgpack::wrappers(value)?,
    };
    let mut reader = Reader {
        wire,
        value,
        cursor: Cursor::new(value),
        wrappers,
        buffers,
        used: vec![false; buffers.len()],
        depth: 0,
    };
    match T::deserialize(&mut reader) {
        Ok(_) if !reader.cursor.is_at_end() => {
            Err(reader.broken("more bytes", "a value is one document").into())
        }
        Err(CodecError::Mismatch { position: 0, text }) => {
            Err(CodecError::Mismatch { position: reader.cursor.position(), text })
        }
        other => other,
    }
}

struct Reader<'de> {
    wire: Wire,
    value: &'de Bytes,
    cursor: Cursor<'de>,
    wrappers: Vec<Wrapper>,
    buffers: &'de [Bytes],
    used: Vec<bool>,
    depth: usize,
}

/// What comes next.
enum Item<'de> {
    Plain(Token),
    /// A typed value. The cursor is at its content; [`Reader::leave`] continues after it.
    Typed(&'de str, Range<usize>),
}

/// Bytes and their owner.
struct Owned<'de> {
    owner: &'de Bytes,
    range: Range<usize>,
}

impl<'de> Owned<'de> {
    fn slice(&self) -> &'de [u8] {
        self.owner.get(self.range.clone()).unwrap_or_default()
    }

    fn visit<V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, CodecError> {
        let bytes = self.slice();
        if bytes.len() < OUT_OF_BAND_BYTES {
            return visitor.visit_borrowed_bytes(bytes);
        }
        hand::with(Handed::Bytes(self.bytes()), || visitor.visit_borrowed_bytes(bytes))
    }

    fn bytes(&self) -> Bytes {
        self.owner.slice(self.range.clone())
    }
}

impl<'de> Reader<'de> {
    fn broken(
        &self,
        found: impl Into<std::borrow::Cow<'static, str>>,
        required: &'static str,
    ) -> DocumentError {
        DocumentError::new(self.cursor.position(), found, required)
    }

    fn mismatch(&self, text: impl Into<String>) -> CodecError {
        CodecError::Mismatch { position: self.cursor.position(), text: text.into() }
    }

    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        if self.depth == MAXIMUM_VALUE_DEPTH {
            return Err(self
                .broken("another level", "at most 254 lists, maps and typed values may be nested")
                .into());
        }
        self.depth += 1;
        let result = read(self)?;
        self.depth -= 1;
        Ok(result)
    }

    fn next(&mut self) -> Result<Item<'de>, CodecError> {
        let start = self.cursor.position();
        let token = self.cursor.token()?;
        match token {
            Token::Map(_) if !self.wrappers.is_empty() => {
                let found = self.wrappers.binary_search_by_key(&start, |found| found.range.start);
                let Some(wrapper) = found.ok().and_then(|index| self.wrappers.get(index)) else {
                    return Ok(Item::Plain(token));
                };
                let (kind, data) = (wrapper.kind.clone(), wrapper.data.clone());
                let rest = self.cursor.enter(kind);
                let behind = wrapper.range.end..rest.end;
                let name = self.name()?;
                self.cursor.enter(data);
                Ok(Item::Typed(name, behind))
            }
            Token::Extension(TYPED_EXTENSION, content) if self.wire == Wire::Two => {
                let behind = self.cursor.enter(content);
                if self.cursor.token()? != Token::List(2) {
                    return Err(self.broken("something else", "a typed value is a pair").into());
                }
                let name = self.name()?;
                Ok(Item::Typed(name, behind))
            }
            token => Ok(Item::Plain(token)),
        }
    }

    fn leave(&mut self, behind: Range<usize>) -> Result<(), CodecError> {
        if !self.cursor.is_at_end() {
            return Err(self.broken("more bytes", "a typed value is one document").into());
        }
        self.cursor.enter(behind);
        Ok(())
    }

    fn name(&mut self) -> Result<&'de str, CodecError> {
        match self.cursor.token()? {
            Token::Text(range) => self.text(range),
            other => Err(self.broken(other.name(), "the name of a value's type is a text").into()),
        }
    }

    fn text(&self, range: Range<usize>) -> Result<&'de str, CodecError> {
        std::str::from_utf8(self.cursor.slice(range))
            .map_err(|_| self.broken("other bytes", "texts are UTF-8").into())
    }

    fn in_place(&self, range: Range<usize>) -> Owned<'de> {
        Owned { owner: self.value, range }
    }

    /// The buffer with this number, once: a number costs a peer next to nothing.
    fn buffer(&mut self, number: u64) -> Result<Owned<'de>, CodecError> {
        let used = usize::try_from(number).ok().and_then(|number| self.used.get_mut(number));
        match (used, usize::try_from(number).ok().and_then(|number| self.buffers.get(number))) {
            (Some(used), Some(_)) if *used => {
                let found = format!("buffer {number} once more");
                Err(self.broken(found, "a buffer is referred to once").into())
            }
            (Some(used), Some(owner)) => {
                *used = true;
                Ok(Owned { owner, range: 0..owner.len() })
            }
            _ => {
                let found = format!("buffer {number} where there are {}", self.buffers.len());
                Err(self.broken(found, "a buffer must be there").into())
            }
        }
    }

    /// The buffer that an extension's content refers to.
    fn buffer_extension(&mut self, content: Range<usize>) -> Result<Owned<'de>, CodecError> {
        let behind = self.cursor.enter(content);
        let Token::Unsigned(number) = self.cursor.token()? else {
            return Err(self.broken("something else", "buffers have numbers").into());
        };
        self.leave(behind)?;
        self.buffer(number)
    }

    fn array_extension(&mut self, content: Range<usize>) -> Result<Array, CodecError> {
        let wrong = "an array is dtype, shape, order and elements";
        let behind = self.cursor.enter(content);
        if self.cursor.token()? != Token::List(4) {
            return Err(self.broken("something else", wrong).into());
        }
        let dtype = self.name()?.to_owned();
        let shape = self.shape()?;
        let order = match self.name()? {
            "C" => ElementOrder::C,
            "F" => ElementOrder::Fortran,
            _ => return Err(self.broken("another order", "orders are C and F").into()),
        };
        let data = match self.cursor.token()? {
            Token::Unsigned(number) => self.buffer(number)?.bytes(),
            Token::Bytes(range) => self.in_place(range).bytes(),
            other => return Err(self.broken(other.name(), wrong).into()),
        };
        self.leave(behind)?;
        let array = Array { dtype, shape, order, data };
        array.check()?;
        Ok(array)
    }

    fn shape(&mut self) -> Result<Vec<usize>, CodecError> {
        let wrong = "a shape is a list of numbers, one for each axis";
        let count = match self.cursor.token()? {
            Token::List(count) => count as usize,
            other => return Err(self.broken(other.name(), wrong).into()),
        };
        if count > MAXIMUM_DIMENSIONS {
            return Err(ArrayError::Axes { found: count }.into());
        }
        (0..count)
            .map(|_| match self.cursor.token()? {
                Token::Unsigned(length) => {
                    usize::try_from(length).map_err(|_| self.broken("a length", wrong).into())
                }
                other => Err(self.broken(other.name(), wrong).into()),
            })
            .collect()
    }

    fn array(&mut self) -> Result<Array, CodecError> {
        let start = self.cursor.clone();
        match self.next()? {
            Item::Plain(Token::Extension(ARRAY_EXTENSION, content)) if self.wire == Wire::Two => {
                self.array_extension(content)
            }
            Item::Plain(Token::List(_)) => {
                self.cursor = start;
                self.lists()
            }
            Item::Plain(token) => {
                Err(self.mismatch(format!("{} where an array was requested", token.name())))
            }
            Item::Typed("ndarray", behind) if self.wire != Wire::Two => {
                let array = self.wrapped_array()?;
                self.leave(behind)?;
                Ok(array)
            }
            Item::Typed(name, _) => {
                Err(self.mismatch(format!("a value of the type '{name}' is not an array")))
            }
        }
    }

    /// Nested lists of numbers, all of the same length on each level.
    fn lists(&mut self) -> Result<Array, CodecError> {
        let mut shape = Vec::new();
        let mut first = self.cursor.clone();
        while let Token::List(count) = first.peek()? {
            first.token()?;
            shape.push(count as usize);
            if shape.len() > MAXIMUM_DIMENSIONS {
                return Err(ArrayError::Axes { found: shape.len() }.into());
            }
            if count == 0 {
                break;
            }
        }
        let start = self.cursor.clone();
        let mut census = Census::default();
        let mut elements: usize = 0;
        rows(&mut self.cursor, &shape, &mut |number| {
            elements += 1;
            census.count(number);
        })?;
        let (dtype, write) = census.dtype()?;
        let mut data = Vec::with_capacity(elements * if dtype.ends_with('1') { 1 } else { 8 });
        rows(&mut start.clone(), &shape, &mut |number| write(number, &mut data))?;
        let array =
            Array { dtype: dtype.to_owned(), shape, order: ElementOrder::C, data: data.into() };
        array.check()?;
        Ok(array)
    }

    /// `{"values": lists or one element, "shape": tuple}`, the form of arrays that are not plain.
    /// Returns where the two are.
    fn wrapped(&mut self) -> Result<(Range<usize>, Range<usize>), CodecError> {
        let wrong = "the type 'ndarray' has the keys \"values\" and \"shape\"";
        let (mut values, mut shape) = (None, None);
        let Token::Map(count) = self.cursor.token()? else {
            return Err(self.broken("something else", wrong).into());
        };
        for _ in 0..count {
            let key = self.name()?;
            let range = self.cursor.skip(self.depth)?;
            match key {
                "values" => values = Some(range),
                "shape" => shape = Some(range),
                _ => {}
            }
        }
        values.zip(shape).ok_or_else(|| self.broken("something else", wrong).into())
    }

    fn wrapped_array(&mut self) -> Result<Array, CodecError> {
        let (values, shape) = self.wrapped()?;
        let behind = self.cursor.enter(shape);
        let Item::Typed("tuple", rest) = self.next()? else {
            return Err(self.broken("something else", "a shape is a tuple").into());
        };
        let shape = self.shape()?;
        self.leave(rest)?;
        self.leave(values)?;
        let mut array = self.lists()?;
        self.leave(behind)?;
        let without = array.data.is_empty() && shape.contains(&0);
        if array.shape != shape && !without {
            return Err(
                ArrayError::Lists { found: "their shape differs from the announced one" }.into()
            );
        }
        array.shape = shape;
        array.check()?;
        Ok(array)
    }

    /// The number in a typed value "int".
    fn large(&mut self) -> Result<Integer, CodecError> {
        match self.cursor.token()? {
            Token::Bytes(range) => Ok(Integer::from_signed_bytes_le(self.cursor.slice(range))),
            Token::Extension(BUFFER_EXTENSION, content) if self.wire == Wire::Two => {
                let owned = self.buffer_extension(content)?;
                Ok(Integer::from_signed_bytes_le(owned.slice()))
            }
            other => Err(self.broken(other.name(), "the type 'int' has bytes").into()),
        }
    }

    fn integer(&mut self) -> Result<Integer, CodecError> {
        match self.next()? {
            Item::Plain(Token::Unsigned(number)) => Ok(number.into()),
            Item::Plain(Token::Negative(number)) => Ok(number.into()),
            Item::Typed("int", behind) => {
                let integer = self.large()?;
                self.leave(behind)?;
                Ok(integer)
            }
            Item::Plain(token) => {
                Err(self.mismatch(format!("{} where an integer was requested", token.name())))
            }
            Item::Typed(name, _) => {
                Err(self.mismatch(format!("a value of the type '{name}' is not an integer")))
            }
        }
    }

    fn list<V: Visitor<'de>>(&mut self, count: u32, visitor: V) -> Result<V::Value, CodecError> {
        self.deeper(|reader| {
            let mut access = Children { reader, remaining: count };
            let value = visitor.visit_seq(&mut access)?;
            access.end(count)?;
            Ok(value)
        })
    }

    fn visit<V: Visitor<'de>>(
        &mut self,
        item: Item<'de>,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let (name, behind) = match item {
            Item::Plain(token) => return self.visit_token(token, visitor),
            Item::Typed(name, behind) => (name, behind),
        };
        let value = self.deeper(|reader| match name {
            "tuple" => match reader.cursor.token()? {
                Token::List(count) => reader.list(count, visitor),
                other => Err(reader.broken(other.name(), "the type 'tuple' has a list").into()),
            },
            "int" => reader.large()?.visit(visitor),
            "ndarray" if reader.wire != Wire::Two => {
                let (values, _) = reader.wrapped()?;
                let behind = reader.cursor.enter(values);
                let item = reader.next()?;
                let value = reader.visit(item, visitor)?;
                reader.leave(behind)?;
                Ok(value)
            }
            _ => Err(reader.mismatch(format!(
                "a value of the type '{name}'; receive it as convelo_pool::Typed"
            ))),
        })?;
        self.leave(behind)?;
        Ok(value)
    }

    fn visit_token<V: Visitor<'de>>(
        &mut self,
        token: Token,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        match token {
            Token::Nil => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Unsigned(number) => visitor.visit_u64(number),
            Token::Negative(number) => visitor.visit_i64(number),
            Token::F32(number) => visitor.visit_f32(number),
            Token::F64(number) => visitor.visit_f64(number),
            Token::Text(range) => visitor.visit_borrowed_str(self.text(range)?),
            Token::Bytes(range) => self.in_place(range).visit(visitor),
            Token::List(count) => self.list(count, visitor),
            Token::Map(count) => self.deeper(|reader| {
                let mut access = Children { reader, remaining: count };
                let value = visitor.visit_map(&mut access)?;
                access.end(count)?;
                Ok(value)
            }),
            Token::Extension(BUFFER_EXTENSION, content) if self.wire == Wire::Two => {
                self.buffer_extension(content)?.visit(visitor)
            }
            Token::Extension(ARRAY_EXTENSION, content) if self.wire == Wire::Two => {
                let array = self.array_extension(content)?;
                array.layout()?.visit(visitor)
            }
            Token::Extension(TABLE_EXTENSION, _) if self.wire == Wire::Two => {
                Err(self.mismatch("a pandas table, which only Python can receive"))
            }
            token @ Token::Extension(..) => {
                Err(self.mismatch(format!("{}, which is unknown here", token.name())))
            }
        }
    }
}

/// Reads lists with exactly this shape.
fn rows(
    cursor: &mut Cursor<'_>,
    shape: &[usize],
    visit: &mut impl FnMut(Number),
) -> Result<(), CodecError> {
    let [rows_here, inner @ ..] = shape else {
        visit(match cursor.token()? {
            Token::Bool(value) => Number::Bool(value),
            Token::Unsigned(number) => Number::Unsigned(number),
            Token::Negative(number) => Number::Negative(number),
            Token::F32(number) => Number::F32(number),
            Token::F64(number) => Number::F64(number),
            Token::List(_) => {
                return Err(ArrayError::Lists { found: "their levels differ" }.into());
            }
            _ => return Err(ArrayError::Lists { found: "they hold more than numbers" }.into()),
        });
        return Ok(());
    };
    match cursor.token()? {
        Token::List(count) if count as usize == *rows_here => {
            (0..count).try_for_each(|_| rows(cursor, inner, visit))
        }
        Token::List(_) => Err(ArrayError::Lists { found: "their lengths differ" }.into()),
        _ => Err(ArrayError::Lists { found: "their levels differ" }.into()),
    }
}

macro_rules! any {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            self.deserialize_any(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = CodecError;

    any! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_map
        deserialize_identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let item = self.next()?;
        self.visit(item, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if self.cursor.peek()? == Token::Nil {
            self.cursor.token()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        match name {
            hand::ARRAY => {
                let array = self.array()?;
                hand::with(Handed::Array(array), || visitor.visit_unit())
            }
            hand::INTEGER => {
                let integer = self.integer()?;
                hand::with(Handed::Integer(integer), || visitor.visit_unit())
            }
            hand::TYPED => match self.next()? {
                Item::Typed(name, behind) => {
                    let value = self.deeper(|reader| {
                        visitor.visit_seq(Pair { reader, name: Some(name), data: true })
                    })?;
                    self.leave(behind)?;
                    Ok(value)
                }
                Item::Plain(token) => Err(self.mismatch(format!(
                    "{} where a value with the name of its type was requested",
                    token.name()
                ))),
            },
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.next()? {
            Item::Plain(Token::Bytes(range)) => {
                let bytes = self.in_place(range).slice();
                visitor.visit_seq(de::value::SeqDeserializer::new(bytes.iter().copied()))
            }
            Item::Plain(Token::Extension(BUFFER_EXTENSION, content)) if self.wire == Wire::Two => {
                let bytes = self.buffer_extension(content)?.slice();
                visitor.visit_seq(de::value::SeqDeserializer::new(bytes.iter().copied()))
            }
            item => self.visit(item, visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        match self.next()? {
            Item::Plain(Token::Text(range)) => {
                visitor.visit_enum(BorrowedStrDeserializer::new(self.text(range)?))
            }
            Item::Plain(Token::Map(1)) => self.deeper(|reader| visitor.visit_enum(reader)),
            Item::Plain(token) => Err(self.mismatch(format!(
                "{} where the name of a variant, or a map with that one key, was requested",
                token.name()
            ))),
            Item::Typed(name, _) => {
                Err(self.mismatch(format!("a value of the type '{name}' is not a variant")))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.cursor.skip(self.depth)?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a list, or the keys and values of a map.
struct Children<'r, 'de> {
    reader: &'r mut Reader<'de>,
    remaining: u32,
}

impl Children<'_, '_> {
    fn end(self, count: u32) -> Result<(), CodecError> {
        if self.remaining == 0 {
            return Ok(());
        }
        let asked = count - self.remaining;
        Err(self.reader.mismatch(format!("{count} elements, of which {asked} were requested")))
    }
}

impl<'de> SeqAccess<'de> for &mut Children<'_, 'de> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CodecError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        self.remaining -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.remaining as usize)
    }
}

impl<'de> MapAccess<'de> for &mut Children<'_, 'de> {
    type Error = CodecError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, CodecError> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, CodecError> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.remaining as usize)
    }
}

/// The name and content of a typed value.
struct Pair<'r, 'de> {
    reader: &'r mut Reader<'de>,
    name: Option<&'de str>,
    data: bool,
}

impl<'de> SeqAccess<'de> for Pair<'_, 'de> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CodecError> {
        if let Some(name) = self.name.take() {
            return seed.deserialize(StrDeserializer::new(name)).map(Some);
        }
        if !std::mem::take(&mut self.data) {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

impl<'de> EnumAccess<'de> for &mut Reader<'de> {
    type Error = CodecError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), CodecError> {
        let name = seed.deserialize(&mut *self)?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Reader<'de> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        de::Deserialize::deserialize(self)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, CodecError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_tuple(count, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_struct("", fields, visitor)
    }
}
