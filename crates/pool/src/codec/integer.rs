//! Integers of any size.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hand::{self, Handed};

/// An integer of any size, as bytes: `int` in Python. It does no arithmetic; it carries integers
/// between Python and any library that does.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Integer(Vec<u8>);

/// An integer too large for a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an integer of {bytes} bytes does not fit; receive it as convelo_pool::Integer")]
pub struct IntegerError {
    /// Its bytes.
    pub bytes: usize,
}

impl Integer {
    /// The integer in these bytes: two's complement, little-endian. No bytes mean 0.
    pub fn from_signed_bytes_le(bytes: &[u8]) -> Self {
        let mut bytes = bytes.to_vec();
        while let [.., next, last] = bytes[..]
            && last == sign(next)
        {
            bytes.pop();
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
        Self(bytes)
    }

    /// The unsigned integer in these bytes, little-endian.
    pub fn from_unsigned_bytes_le(bytes: &[u8]) -> Self {
        Self::from_signed_bytes_le(&[bytes, &[0]].concat())
    }

    /// Two's complement, little-endian: at least one byte, and no more than necessary.
    pub fn signed_bytes_le(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.0.last().is_some_and(|last| *last >= 0x80)
    }

    fn to_i128(&self) -> Option<i128> {
        let mut bytes = [self.0.last().map_or(0, |last| sign(*last)); size_of::<i128>()];
        bytes.get_mut(..self.0.len())?.copy_from_slice(&self.0);
        Some(i128::from_le_bytes(bytes))
    }

    fn to_u128(&self) -> Option<u128> {
        match self.0.as_slice() {
            // The seventeenth byte holds only the sign.
            [bytes @ .., 0] if bytes.len() == size_of::<u128>() => {
                Some(u128::from_le_bytes(*bytes.first_chunk()?))
            }
            _ => u128::try_from(self.to_i128()?).ok(),
        }
    }

    /// As the genuine package writes it: with room for a sign in addition to the bits of the
    /// magnitude.
    pub(super) fn wire_bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        if let [rest @ .., 0x80] = bytes.as_slice()
            && rest.iter().all(|byte| *byte == 0)
        {
            bytes.push(0xff);
        }
        bytes
    }

    pub(super) fn visit<'de, V: Visitor<'de>, E: de::Error>(
        &self,
        visitor: V,
    ) -> Result<V::Value, E> {
        if let Some(number) = self.to_i128() {
            match (u64::try_from(number), i64::try_from(number)) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => visitor.visit_i128(number),
            }
        } else if let Some(number) = self.to_u128() {
            visitor.visit_u128(number)
        } else {
            Err(E::custom(IntegerError { bytes: self.0.len() }))
        }
    }
}

/// The sign extension of a highest byte.
fn sign(byte: u8) -> u8 {
    if byte < 0x80 { 0 } else { 0xff }
}

impl fmt::Debug for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_i128() {
            Some(number) => write!(f, "Integer({number})"),
            None => write!(f, "Integer({} bytes)", self.0.len()),
        }
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl From<$number> for Integer {
            fn from(number: $number) -> Self {
                // The extra byte keeps an unsigned number's highest bit from looking like a sign.
                #[allow(unused_comparisons, reason = "a macro for signed and unsigned numbers")]
                let above = if number < 0 { 0xff } else { 0 };
                Self::from_signed_bytes_le(&[&number.to_le_bytes()[..], &[above]].concat())
            }
        }
    )*};
}

numbers!(i8, i16, i32, i64, i128, u8, u16, u32, u64, u128);

impl TryFrom<&Integer> for i128 {
    type Error = IntegerError;

    fn try_from(integer: &Integer) -> Result<Self, IntegerError> {
        integer.to_i128().ok_or(IntegerError { bytes: integer.0.len() })
    }
}

impl TryFrom<&Integer> for u128 {
    type Error = IntegerError;

    fn try_from(integer: &Integer) -> Result<Self, IntegerError> {
        integer.to_u128().ok_or(IntegerError { bytes: integer.0.len() })
    }
}

impl Serialize for Integer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Form<'a>(&'a [u8]);
        impl Serialize for Form<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(self.0)
            }
        }
        if let Some(number) = self.to_i128() {
            return match (u64::try_from(number), i64::try_from(number)) {
                (Ok(number), _) => serializer.serialize_u64(number),
                (_, Ok(number)) => serializer.serialize_i64(number),
                _ => serializer.serialize_i128(number),
            };
        }
        hand::with(Handed::Integer(self.clone()), || {
            serializer.serialize_newtype_struct(hand::INTEGER, &Form(&self.0))
        })
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(hand::INTEGER, IntegerVisitor)
    }
}

struct IntegerVisitor;

impl<'de> Visitor<'de> for IntegerVisitor {
    type Value = Integer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Integer, E> {
        match hand::take() {
            Some(Handed::Integer(integer)) => Ok(integer),
            _ => Err(E::invalid_type(de::Unexpected::Unit, &self)),
        }
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Integer, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Integer, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Integer, E> {
        Ok(number.into())
    }

    fn visit_u128<E>(self, number: u128) -> Result<Integer, E> {
        Ok(number.into())
    }

    fn visit_i128<E>(self, number: i128) -> Result<Integer, E> {
        Ok(number.into())
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Integer, E> {
        Ok(Integer::from_signed_bytes_le(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_shortest_form() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[127]),
            (128, &[128, 0]),
            (255, &[255, 0]),
            (-1, &[255]),
            (-128, &[128]),
            (-129, &[127, 255]),
        ] {
            assert_eq!(Integer::from(number).signed_bytes_le(), bytes, "{number}");
            let longer = [bytes, &[sign(bytes[bytes.len() - 1]); 5]].concat();
            assert_eq!(Integer::from_signed_bytes_le(&longer), Integer::from(number));
        }
        assert_eq!(Integer::from_signed_bytes_le(&[]), Integer::from(0));
        assert_eq!(Integer::from_unsigned_bytes_le(&[0xff, 0, 0]), Integer::from(255));
    }

    #[test]
    fn room_for_the_sign_of_a_power_of_two() {
        assert_eq!(Integer::from(i128::MIN).signed_bytes_le().len(), 16);
        assert_eq!(Integer::from(i128::MIN).wire_bytes().len(), 17);
        assert_eq!(Integer::from(i128::MIN + 1).wire_bytes().len(), 16);
        assert_eq!(Integer::from(-256).wire_bytes(), [0, 0xff]);
    }

    proptest! {
        #[test]
        fn there_and_back(signed in any::<i128>(), unsigned in any::<u128>()) {
            prop_assert_eq!(i128::try_from(&Integer::from(signed)), Ok(signed));
            prop_assert_eq!(u128::try_from(&Integer::from(unsigned)), Ok(unsigned));
            prop_assert_eq!(u128::try_from(&Integer::from(signed)).ok(), u128::try_from(signed).ok());
            prop_assert_eq!(i128::try_from(&Integer::from(unsigned)).ok(), i128::try_from(unsigned).ok());
            prop_assert_eq!(Integer::from(signed).is_negative(), signed < 0);
        }
    }
}
