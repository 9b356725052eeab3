//! Arrays of numbers, as in numpy.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, forward_to_deserialize_any};

use super::hand::{self, Handed};
use super::{Blob, CodecError};
use crate::limits::{MAXIMUM_DIMENSIONS, MAXIMUM_EMPTY_ROWS};

/// An array: `numpy.ndarray` in Python, with its dtype, shape and byte order, if both sides speak
/// the second wire. On the compatible wires it travels like numpy's arrays, as nested lists: if
/// received as an [`Array`], it has type `<f8`, `<f4`, `<i8`, `<u8` or `|b1`, in C order.
///
/// Sending checks the fields; those of a received array have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// The type of an element, as in numpy's `dtype.str`: `<f8`, `>i4`, `|b1`, `<U5`. Objects and
    /// records cannot be sent.
    pub dtype: String,
    /// Elements along each axis; no axes for a single element.
    pub shape: Vec<usize>,
    /// Which axis changes fastest in `data`.
    pub order: ElementOrder,
    /// The elements in sequence, without gaps.
    pub data: Bytes,
}

/// Which axis changes fastest from one element to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ElementOrder {
    /// The last axis.
    C,
    /// The first axis, as in Fortran.
    #[serde(rename = "F")]
    Fortran,
}

impl ElementOrder {
    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Fortran => "F",
        }
    }
}

/// An array that contradicts itself, or cannot be written where it should go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayError {
    /// A dtype that cannot be sent.
    #[error(
        "an array of dtype '{dtype}' cannot be sent: it must be a numpy dtype.str of bool, \
         numbers, texts, bytes or times, with its byte order"
    )]
    Dtype {
        /// The dtype.
        dtype: String,
    },
    /// A dtype whose elements are not plain numbers.
    #[error("the elements have dtype '{dtype}', expected numbers of {required}")]
    Elements {
        /// The dtype.
        dtype: String,
        /// What they should be.
        required: &'static str,
    },
    /// Too many axes.
    #[error("an array has {found} axes, expected at most {MAXIMUM_DIMENSIONS}")]
    Axes {
        /// How many.
        found: usize,
    },
    /// Shape, dtype and data do not match.
    #[error("an array of dtype '{dtype}' and shape {shape:?} cannot have {bytes} bytes")]
    Size {
        /// The dtype.
        dtype: String,
        /// The shape.
        shape: Vec<usize>,
        /// Bytes in the data.
        bytes: usize,
    },
    /// Rows without elements.
    #[error(
        "an array of shape {shape:?} has no elements but more than {MAXIMUM_EMPTY_ROWS} rows: it \
         cannot be written as lists"
    )]
    EmptyRows {
        /// The shape.
        shape: Vec<usize>,
    },
    /// Nested lists that do not form an array.
    #[error("the lists that arrived do not form an array: {found}")]
    Lists {
        /// Why.
        found: &'static str,
    },
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that can be an element of an [`Array`].
pub trait Element: Copy + sealed::Sealed {
    /// Its dtype in little-endian order.
    const DTYPE: &'static str;
    /// Writes it in little-endian order.
    #[doc(hidden)]
    fn write(self, to: &mut Vec<u8>);
    /// Reads it from a number of exactly this type.
    #[doc(hidden)]
    fn from_bytes(bytes: &[u8], big_endian: bool) -> Option<Self>;
}

macro_rules! elements {
    ($($number:ty: $dtype:literal),*) => {$(
        impl sealed::Sealed for $number {}
        impl Element for $number {
            const DTYPE: &'static str = $dtype;
            fn write(self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
            fn from_bytes(bytes: &[u8], big_endian: bool) -> Option<Self> {
                let bytes = *bytes.first_chunk()?;
                Some(if big_endian { Self::from_be_bytes(bytes) } else { Self::from_le_bytes(bytes) })
            }
        }
    )*};
}

elements!(
    i8: "|i1", i16: "<i2", i32: "<i4", i64: "<i8",
    u8: "|u1", u16: "<u2", u32: "<u4", u64: "<u8",
    f32: "<f4", f64: "<f8"
);

impl sealed::Sealed for bool {}
impl Element for bool {
    const DTYPE: &'static str = "|b1";
    fn write(self, to: &mut Vec<u8>) {
        to.push(self.into());
    }
    fn from_bytes(bytes: &[u8], _: bool) -> Option<Self> {
        bytes.first().map(|byte| *byte != 0)
    }
}

impl Array {
    /// An array in C order.
    pub fn from_slice<T: Element>(shape: &[usize], elements: &[T]) -> Result<Self, ArrayError> {
        let mut data = Vec::with_capacity(size_of_val(elements));
        for element in elements {
            element.write(&mut data);
        }
        let array = Self {
            dtype: T::DTYPE.to_owned(),
            shape: shape.to_vec(),
            order: ElementOrder::C,
            data: data.into(),
        };
        array.check()?;
        Ok(array)
    }

    /// The elements in C order, whatever byte and axis order they arrived in. Their type must match
    /// the array's.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, ArrayError> {
        let dtype = self.check()?;
        let required = Dtype::parse(T::DTYPE);
        if required
            .is_none_or(|required| (required.kind, required.bytes) != (dtype.kind, dtype.bytes))
        {
            return Err(ArrayError::Elements { dtype: self.dtype.clone(), required: T::DTYPE });
        }
        let layout = Layout::new(self, dtype);
        let mut elements = Vec::with_capacity(self.data.len() / dtype.bytes);
        if !self.data.is_empty() {
            layout.view().each(&mut |bytes| {
                elements.extend(T::from_bytes(bytes, dtype.big_endian));
            });
        }
        Ok(elements)
    }

    /// Checks that the fields are consistent.
    pub(super) fn check(&self) -> Result<Dtype, ArrayError> {
        let dtype = Dtype::parse(&self.dtype)
            .ok_or_else(|| ArrayError::Dtype { dtype: self.dtype.chars().take(64).collect() })?;
        if self.shape.len() > MAXIMUM_DIMENSIONS {
            return Err(ArrayError::Axes { found: self.shape.len() });
        }
        // Even without elements, the axes must be possible for an array.
        let mut lengths = self.shape.iter().filter(|length| **length != 0);
        let possible = lengths
            .try_fold(dtype.bytes, |product, length| product.checked_mul(*length))
            .filter(|bytes| isize::try_from(*bytes).is_ok());
        let bytes = if self.shape.contains(&0) { possible.map(|_| 0) } else { possible };
        if bytes != Some(self.data.len()) {
            return Err(ArrayError::Size {
                dtype: self.dtype.clone(),
                shape: self.shape.clone(),
                bytes: self.data.len(),
            });
        }
        Ok(dtype)
    }

    /// Gives access to the elements as numbers.
    pub(super) fn layout(&self) -> Result<Layout<'_>, ArrayError> {
        let dtype = self.check()?;
        if !dtype.is_number() {
            let required = "1, 2, 4 or 8 bytes";
            return Err(ArrayError::Elements { dtype: self.dtype.clone(), required });
        }
        let rows = self.shape.iter().take_while(|length| **length != 0);
        if self.data.is_empty() && rows.product::<usize>() > MAXIMUM_EMPTY_ROWS {
            return Err(ArrayError::EmptyRows { shape: self.shape.clone() });
        }
        Ok(Layout::new(self, dtype))
    }
}

/// The meaning of a `dtype.str`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dtype {
    kind: u8,
    bytes: usize,
    big_endian: bool,
}

impl Dtype {
    fn parse(text: &str) -> Option<Self> {
        let [order, kind, size @ ..] = text.as_bytes() else { return None };
        let (size, unit) = match size.iter().position(|byte| *byte == b'[') {
            Some(at) => size.split_at(at),
            None => (size, &b""[..]),
        };
        if size.is_empty() || size.len() > 9 || !size.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number: usize = std::str::from_utf8(size).ok()?.parse().ok()?;
        let bytes = match (kind, number) {
            (b'b', 1)
            | (b'i' | b'u', 1 | 2 | 4 | 8)
            | (b'f', 2 | 4 | 8 | 12 | 16)
            | (b'c', 8 | 16 | 24 | 32)
            | (b'm' | b'M', 8)
            | (b'S' | b'V', 1..) => number,
            (b'U', 1..) => 4 * number,
            _ => return None,
        };
        let unit_fits = match unit {
            [] => true,
            [b'[', inner @ .., b']'] => {
                matches!(kind, b'm' | b'M')
                    && (1..16).contains(&inner.len())
                    && inner.iter().all(u8::is_ascii_alphanumeric)
            }
            _ => false,
        };
        let ordered = number > 1 && !matches!(kind, b'S' | b'V') || *kind == b'U';
        let big_endian = match order {
            b'<' => false,
            b'>' => true,
            b'|' if !ordered => false,
            _ => return None,
        };
        unit_fits.then_some(Self { kind: *kind, bytes, big_endian })
    }

    fn is_number(self) -> bool {
        matches!(self.kind, b'b' | b'i' | b'u') || self.kind == b'f' && self.bytes <= 8
    }
}

/// A number of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    F32(f32),
    F64(f64),
}

impl Number {
    fn signed(number: i64) -> Self {
        u64::try_from(number).map_or(Self::Negative(number), Self::Unsigned)
    }

    fn visit<'de, V: Visitor<'de>, E: de::Error>(self, visitor: V) -> Result<V::Value, E> {
        match self {
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Unsigned(number) => visitor.visit_u64(number),
            Self::Negative(number) => visitor.visit_i64(number),
            Self::F32(number) => visitor.visit_f32(number),
            Self::F64(number) => visitor.visit_f64(number),
        }
    }
}

/// An array with accessible elements.
pub(super) struct Layout<'a> {
    data: &'a [u8],
    shape: &'a [usize],
    /// Bytes from one element to the next along each axis.
    strides: Vec<usize>,
    dtype: Dtype,
}

impl<'a> Layout<'a> {
    fn new(array: &'a Array, dtype: Dtype) -> Self {
        let mut strides = vec![0; array.shape.len()];
        let mut stride = dtype.bytes;
        let mut fill = |axis: usize| {
            strides[axis] = stride;
            stride = stride.saturating_mul(array.shape[axis]);
        };
        match array.order {
            ElementOrder::C => (0..array.shape.len()).rev().for_each(&mut fill),
            ElementOrder::Fortran => (0..array.shape.len()).for_each(&mut fill),
        }
        Self { data: &array.data, shape: &array.shape, strides, dtype }
    }

    pub(super) fn view(&self) -> View<'_> {
        View { layout: self, axis: 0, offset: 0 }
    }
}

/// Part of an array: what remains when the first `axis` indices are fixed.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    layout: &'a Layout<'a>,
    axis: usize,
    offset: usize,
}

impl View<'_> {
    /// The number of its parts; `None` if it is an element.
    pub(super) fn rows(&self) -> Option<usize> {
        self.layout.shape.get(self.axis).copied()
    }

    pub(super) fn row(self, index: usize) -> Self {
        let stride = self.layout.strides.get(self.axis).copied().unwrap_or_default();
        Self { axis: self.axis + 1, offset: self.offset + index * stride, ..self }
    }

    fn bytes(&self) -> &[u8] {
        let end = self.offset + self.layout.dtype.bytes;
        self.layout.data.get(self.offset..end).unwrap_or_default()
    }

    fn each(self, visit: &mut impl FnMut(&[u8])) {
        match self.rows() {
            None => visit(self.bytes()),
            Some(rows) => (0..rows).for_each(|index| self.row(index).each(visit)),
        }
    }

    /// The element.
    pub(super) fn number(&self) -> Number {
        let Dtype { kind, bytes: size, big_endian } = self.layout.dtype;
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(self.bytes()) {
            *to = *from;
        }
        if big_endian {
            bytes[..size.min(8)].reverse();
        }
        let unused = 64 - 8 * u32::try_from(size.min(8)).unwrap_or(8);
        let bits = u64::from_le_bytes(bytes);
        match (kind, size) {
            (b'b', _) => Number::Bool(bits != 0),
            (b'u', _) => Number::Unsigned(bits),
            (b'i', _) => Number::signed((bits << unused).cast_signed() >> unused),
            (_, 2) => Number::F32(half(bytes)),
            (_, 4) => {
                let [b0, b1, b2, b3, ..] = bytes;
                Number::F32(f32::from_le_bytes([b0, b1, b2, b3]))
            }
            _ => Number::F64(f64::from_bits(bits)),
        }
    }
}

/// A float of 16 bits, exactly.
fn half([low, high, ..]: [u8; 8]) -> f32 {
    let bits = u32::from(u16::from_le_bytes([low, high]));
    let sign = (bits & 0x8000) << 16;
    let exponent = bits >> 10 & 0x1f;
    let fraction = bits & 0x3ff;
    let magnitude = match exponent {
        0 => {
            // 2^-24, the smallest positive number, this many times.
            let smallest = f32::from_bits(0x3380_0000);
            let [f0, f1, ..] = fraction.to_le_bytes();
            (f32::from(u16::from_le_bytes([f0, f1])) * smallest).to_bits()
        }
        0x1f => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// Which kinds of numbers occur in nested lists.
#[derive(Debug, Default)]
pub(super) struct Census(u8);

const BOOLS: u8 = 1;
const INTEGERS: u8 = 2;
const NEGATIVE: u8 = 4;
const BEYOND_SIGNED: u8 = 8;
const SINGLES: u8 = 16;
const DOUBLES: u8 = 32;

type WriteNumber = fn(Number, &mut Vec<u8>);

impl Census {
    pub(super) fn count(&mut self, number: Number) {
        self.0 |= match number {
            Number::Bool(_) => BOOLS,
            Number::Unsigned(number) if i64::try_from(number).is_err() => INTEGERS | BEYOND_SIGNED,
            Number::Unsigned(_) => INTEGERS,
            Number::Negative(_) => INTEGERS | NEGATIVE,
            Number::F32(_) => SINGLES,
            Number::F64(_) => DOUBLES,
        };
    }

    fn has(&self, kinds: u8) -> bool {
        self.0 & kinds != 0
    }

    /// The dtype that fits all elements, and how to write one.
    pub(super) fn dtype(&self) -> Result<(&'static str, WriteNumber), ArrayError> {
        if self.has(BOOLS) && self.has(INTEGERS | SINGLES | DOUBLES) {
            return Err(ArrayError::Lists { found: "bools and numbers are mixed" });
        }
        if self.has(BOOLS) {
            return Ok((bool::DTYPE, |number, to| (number == Number::Bool(true)).write(to)));
        }
        if self.has(SINGLES) && !self.has(DOUBLES | INTEGERS) {
            return Ok((f32::DTYPE, |number, to| {
                if let Number::F32(number) = number {
                    number.write(to);
                }
            }));
        }
        if !self.has(INTEGERS) || self.has(SINGLES | DOUBLES) {
            return Ok((f64::DTYPE, |number, to| float(number).write(to)));
        }
        match (self.has(NEGATIVE), self.has(BEYOND_SIGNED)) {
            (true, true) => {
                Err(ArrayError::Lists { found: "numbers below zero and above 2^63 - 1 are mixed" })
            }
            (false, true) => Ok((u64::DTYPE, |number, to| {
                if let Number::Unsigned(number) = number {
                    number.write(to);
                }
            })),
            (_, false) => Ok((i64::DTYPE, |number, to| match number {
                Number::Unsigned(number) => number.write(to),
                Number::Negative(number) => number.write(to),
                _ => {}
            })),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "as numpy does where floats and integers meet")]
fn float(number: Number) -> f64 {
    match number {
        Number::Bool(value) => value.into(),
        Number::Unsigned(number) => number as f64,
        Number::Negative(number) => number as f64,
        Number::F32(number) => number.into(),
        Number::F64(number) => number,
    }
}

#[derive(Serialize, Deserialize)]
struct Fields {
    dtype: String,
    shape: Vec<usize>,
    order: ElementOrder,
    data: Blob,
}

impl Serialize for Array {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Form<'a>(&'a Array);
        impl Serialize for Form<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let Array { dtype, shape, order, data } = self.0.clone();
                Fields { dtype, shape, order, data: Blob(data) }.serialize(serializer)
            }
        }
        hand::with(Handed::Array(self.clone()), || {
            serializer.serialize_newtype_struct(hand::ARRAY, &Form(self))
        })
    }
}

impl<'de> Deserialize<'de> for Array {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(hand::ARRAY, ArrayVisitor)
    }
}

struct ArrayVisitor;

impl<'de> Visitor<'de> for ArrayVisitor {
    type Value = Array;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Array, E> {
        match hand::take() {
            Some(Handed::Array(array)) => Ok(array),
            _ => Err(E::invalid_type(de::Unexpected::Unit, &self)),
        }
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Array, D::Error> {
        let Fields { dtype, shape, order, data } = Fields::deserialize(deserializer)?;
        let array = Array { dtype, shape, order, data: data.0 };
        array.check().map_err(de::Error::custom)?;
        Ok(array)
    }
}

/// Reads an array when nested sequences are requested.
pub(super) struct ViewReader<'a>(pub(super) View<'a>);

impl<'de> de::Deserializer<'de> for ViewReader<'_> {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let Some(rows) = self.0.rows() else { return self.0.number().visit(visitor) };
        let mut access = Rows { view: self.0, next: 0, count: rows };
        let value = visitor.visit_seq(&mut access)?;
        if access.next < rows {
            let text = format!("an array of {rows} rows, of which {} were requested", access.next);
            return Err(de::Error::custom(text));
        }
        Ok(value)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Rows<'a> {
    view: View<'a>,
    next: usize,
    count: usize,
}

impl<'de> SeqAccess<'de> for &mut Rows<'_> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CodecError> {
        if self.next == self.count {
            return Ok(None);
        }
        self.next += 1;
        seed.deserialize(ViewReader(self.view.row(self.next - 1))).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.count - self.next)
    }
}

impl Layout<'_> {
    /// Shows a visitor the whole array as nested sequences.
    pub(super) fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, CodecError> {
        ViewReader(self.view()).deserialize_any(visitor)
    }
}
