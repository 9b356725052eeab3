//! Values that carry the name of their type.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hand;

const FIELDS: &[&str] = &["type", "data"];

/// A value with the name of its type. In Python it becomes whatever is registered under that name:
/// `data` is what the class's `serialize` returned. `"mpz"` and `"bitarray"`, for example, are
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Typed<T> {
    /// The name.
    pub name: String,
    /// The content.
    pub data: T,
}

impl<T> Typed<T> {
    /// A value of the class `name`.
    pub fn new(name: impl Into<String>, data: T) -> Self {
        Self { name: name.into(), data }
    }

    /// A sequence that arrives in Python as a `tuple`.
    pub fn tuple(elements: T) -> Self {
        Self::new("tuple", elements)
    }
}

impl<T: Serialize> Serialize for Typed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Form<'a, T>(&'a Typed<T>);
        impl<T: Serialize> Serialize for Form<'_, T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut form = serializer.serialize_struct(hand::TYPED, FIELDS.len())?;
                form.serialize_field("type", &self.0.name)?;
                form.serialize_field("data", &self.0.data)?;
                form.end()
            }
        }
        serializer.serialize_newtype_struct(hand::TYPED, &Form(self))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Typed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(hand::TYPED, TypedVisitor(PhantomData))
    }
}

struct TypedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TypedVisitor<T> {
    type Value = Typed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with the name of its type")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_struct(hand::TYPED, FIELDS, self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let name = parts.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let data = parts.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
        Ok(Typed { name, data })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let (mut name, mut data) = (None, None);
        while let Some(key) = fields.next_key::<String>()? {
            match key.as_str() {
                "type" => name = Some(fields.next_value()?),
                "data" => data = Some(fields.next_value()?),
                _ => {
                    fields.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        let name = name.ok_or_else(|| de::Error::missing_field("type"))?;
        let data = data.ok_or_else(|| de::Error::missing_field("data"))?;
        Ok(Typed { name, data })
    }
}
