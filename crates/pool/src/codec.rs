//! Rust values on the wires, through `serde`.
//!
//! | What one side sends as | arrives in Python as | and in Rust as |
//! |---|---|---|
//! | number, `bool`, text, `()`, `Option` | `int`, `float`, `bool`, `str`, `None` | the same |
//! | `i128`, `u128`, [`Integer`] | `int` of any size | the same |
//! | `Vec`, slice, array, tuple | `list` | any sequence |
//! | struct, map with texts as keys | `dict` | the same |
//! | enum | `str`, or `dict` with one key | the same |
//! | bytes: [`Blob`], `serde_bytes` | `bytes` | the same, also `Vec<u8>` |
//! | [`Array`], compatible wires | nested `list` | [`Array`], or nested `Vec` |
//! | [`Array`], second wire | `numpy.ndarray` | [`Array`], or nested `Vec` |
//! | [`Typed`] | the class registered under its name | [`Typed`] |
//!
//! A Rust tuple is a list in Python; [`Typed::tuple`] makes a Python `tuple`, and what Python sends
//! as one can be received as any sequence. A `Vec<u8>` is a list of numbers, as everywhere in
//! `serde`; use [`Blob`] or `serde_bytes` for `bytes`.
//!
//! Values are written byte for byte as the genuine package writes them. The second wire adds these
//! msgpack extensions: 1, a typed value: `[name, data]`; 2, an array: `[dtype, shape, order, buffer
//! or bytes]`; 3, bytes sent separately from the value: the number of their buffer. Each buffer is
//! referred to once.

mod array;
mod blob;
mod hand;
mod integer;
mod read;
mod typed;
mod write;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{self, DeserializeOwned};
use serde::ser;

use crate::limits::MAXIMUM_VALUE_DEPTH;
use crate::message::{Incoming, Payload, Wire};
use crate::msgpack::DocumentError;

pub use array::{Array, ArrayError, Element, ElementOrder};
pub use blob::Blob;
pub use integer::{Integer, IntegerError};
pub use typed::Typed;

/// The msgpack extensions of the second wire.
const TYPED_EXTENSION: i8 = 1;
const ARRAY_EXTENSION: i8 = 2;
const BUFFER_EXTENSION: i8 = 3;
const TABLE_EXTENSION: i8 = 4;

/// A value that cannot be written for a wire, or that arrived and is not what was requested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// What arrived is broken.
    #[error("what arrived is broken: {0}")]
    Malformed(#[from] DocumentError),
    /// What arrived has a different type from what was requested.
    #[error("what arrived is not what was requested, near byte {position}: {text}")]
    Mismatch {
        /// The byte near which it was noticed.
        position: usize,
        /// What was found and what was requested.
        text: String,
    },
    /// The value refused to be written.
    #[error("the value cannot be written: {0}")]
    Refused(String),
    /// A map that its receiver would mistake for something else.
    #[error(
        "a map or struct with both the keys \"type\" and \"data\" would arrive as something else \
         on the compatible wires: rename one, or use Typed if you mean a typed value"
    )]
    Ambiguous,
    /// On the compatible wires, the keys of maps can only be texts.
    #[error("the key of a map is {found}; on the compatible wires, keys must be texts")]
    Key {
        /// What it is.
        found: &'static str,
    },
    /// Too many levels.
    #[error("the value nests lists and maps more than {MAXIMUM_VALUE_DEPTH} levels deep")]
    Depth,
    /// Too much for one msgpack value.
    #[error("{what} has {length} bytes or elements, expected at most 2^32 - 1")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        length: usize,
    },
    /// A `Serialize` that announced a different length from what it wrote.
    #[error("a value announced {announced} elements and wrote {written}")]
    Length {
        /// What it announced.
        announced: usize,
        /// What it wrote.
        written: usize,
    },
    /// An array that is inconsistent, or cannot be written for this wire.
    #[error(transparent)]
    Array(#[from] ArrayError),
}

impl ser::Error for CodecError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::Refused(text.to_string())
    }
}

impl de::Error for CodecError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::Mismatch { position: 0, text: text.to_string() }
    }
}

/// Writes a value for a wire. [`Blob`]s and [`Array`]s of 4 KiB and more are not copied.
pub fn to_payload<T: Serialize + ?Sized>(value: &T, wire: Wire) -> Result<Payload, CodecError> {
    let mut writer = write::Writer::new(wire);
    value.serialize(&mut writer)?;
    Ok(writer.finish())
}

/// Reads what arrived. Bytes received as a [`Blob`] are not copied, nor is the content of an
/// [`Array`] on the second wire.
pub fn from_incoming<T: DeserializeOwned>(incoming: Incoming) -> Result<T, CodecError> {
    let Incoming { wire, value, value_range, buffers, .. } = incoming;
    let value = value.into_bytes();
    if value_range.start > value_range.end || value_range.end > value.len() {
        let found = format!("a value at {value_range:?} of {} bytes", value.len());
        return Err(DocumentError::new(0, found, "the value lies within the body").into());
    }
    let buffers: Vec<Bytes> = buffers.into_iter().map(crate::message::Chunk::into_bytes).collect();
    from_parts(wire, &value.slice(value_range), &buffers)
}

/// Reads a value and its separate buffers.
pub fn from_parts<T: DeserializeOwned>(
    wire: Wire,
    value: &Bytes,
    buffers: &[Bytes],
) -> Result<T, CodecError> {
    read::from_parts(wire, value, buffers)
}

/// Bytes as a payload; not copied if they are 4 KiB or more.
pub fn bytes_to_payload(bytes: Bytes, wire: Wire) -> Result<Payload, CodecError> {
    to_payload(&Blob(bytes), wire)
}

/// The bytes that arrived, without copying.
pub fn bytes_from_incoming(incoming: Incoming) -> Result<Bytes, CodecError> {
    from_incoming::<Blob>(incoming).map(|blob| blob.0)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde::ser::{SerializeMap as _, SerializeSeq as _};
    use serde::{Deserialize, Serializer};

    use super::*;
    use crate::limits::OUT_OF_BAND_BYTES;

    const WIRES: [Wire; 3] = [Wire::Two, Wire::Four, Wire::Five];

    fn joined(payload: &Payload) -> Bytes {
        payload.parts.concat().into()
    }

    fn written<T: Serialize + ?Sized>(value: &T, wire: Wire) -> (Bytes, Vec<Bytes>) {
        let payload = to_payload(value, wire).unwrap();
        (joined(&payload), payload.buffers)
    }

    fn there_and_back<T: Serialize + DeserializeOwned>(value: &T, wire: Wire) -> T {
        let (bytes, buffers) = written(value, wire);
        from_parts(wire, &bytes, &buffers).unwrap()
    }

    fn read<T: DeserializeOwned>(wire: Wire, bytes: &[u8]) -> Result<T, CodecError> {
        from_parts(wire, &Bytes::copy_from_slice(bytes), &[])
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Choice {
        Unit,
        New(i16),
        Tuple(u8, String),
        Struct { a: bool, b: Option<f32> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        signed: i64,
        unsigned: u64,
        large: i128,
        larger: u128,
        float: f32,
        double: f64,
        character: char,
        text: String,
        list: Vec<i32>,
        bytes: Blob,
        other_bytes: serde_bytes::ByteBuf,
        pair: (u8, String),
        map: BTreeMap<String, Choice>,
        option: Option<Box<Everything>>,
        choices: Vec<Choice>,
        integer: Integer,
        array: Array,
        typed: Typed<Vec<Choice>>,
        unit: (),
    }

    fn choice() -> impl Strategy<Value = Choice> {
        prop_oneof![
            Just(Choice::Unit),
            any::<i16>().prop_map(Choice::New),
            (any::<u8>(), ".{0,9}").prop_map(|(number, text)| Choice::Tuple(number, text)),
            (any::<bool>(), proptest::option::of(-1e9_f32..1e9))
                .prop_map(|(a, b)| Choice::Struct { a, b }),
        ]
    }

    fn everything() -> impl Strategy<Value = Everything> {
        let numbers = (any::<i64>(), any::<u64>(), any::<i128>(), any::<u128>());
        let floats = (-1e9_f32..1e9, -1e9_f64..1e9, any::<char>());
        let bytes =
            (vec(any::<u8>(), 0..40), vec(any::<u8>(), 4090..4100), vec(any::<u8>(), 0..40));
        let lists = (vec(any::<i32>(), 0..20), ".{0,40}", vec(choice(), 0..4));
        (numbers, floats, bytes, lists, vec(any::<i64>(), 6)).prop_map(
            |(numbers, floats, bytes, lists, elements)| {
                let map = lists.2.iter().enumerate();
                Everything {
                    signed: numbers.0,
                    unsigned: numbers.1,
                    large: numbers.2,
                    larger: numbers.3,
                    float: floats.0,
                    double: floats.1,
                    character: floats.2,
                    text: lists.1.clone(),
                    list: lists.0,
                    bytes: bytes.1.into(),
                    other_bytes: bytes.0.clone().into(),
                    pair: (7, lists.1),
                    map: map.map(|(key, choice)| (key.to_string(), choice.clone())).collect(),
                    option: None,
                    choices: lists.2.clone(),
                    integer: Integer::from_signed_bytes_le(&bytes.2),
                    array: Array::from_slice(&[2, 3], &elements).unwrap(),
                    typed: Typed::new("Choices", lists.2),
                    unit: (),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn everything_comes_back(inner in everything(), mut outer in everything()) {
            outer.option = Some(Box::new(inner));
            for wire in WIRES {
                prop_assert_eq!(&there_and_back(&outer, wire), &outer);
            }
        }

        #[test]
        fn bytes_of_any_kind(bytes in vec(any::<u8>(), 0..200)) {
            for wire in WIRES {
                let _ = read::<Everything>(wire, &bytes);
                let _ = read::<Array>(wire, &bytes);
                let _ = read::<Vec<Vec<f64>>>(wire, &bytes);
                let _ = read::<de::IgnoredAny>(wire, &bytes);
            }
        }

        #[test]
        fn what_is_broken_is_refused(value in everything(), at in any::<usize>(), byte in any::<u8>()) {
            for wire in WIRES {
                let (bytes, buffers) = written(&value, wire);
                let mut changed = bytes.to_vec();
                let at = at % changed.len();
                changed[at] = byte;
                let _ = from_parts::<Everything>(wire, &changed.into(), &buffers);
                prop_assert!(from_parts::<Everything>(wire, &bytes.slice(..at), &buffers).is_err());
            }
        }

        #[test]
        fn arrays_in_both_orders_and_byte_orders(elements in vec(any::<f64>(), 24)) {
            let array = Array::from_slice(&[2, 3, 4], &elements).unwrap();
            let rows: Vec<Vec<Vec<f64>>> =
                elements.chunks(12).map(|rows| rows.chunks(4).map(<[f64]>::to_vec).collect()).collect();
            let mut data = Vec::new();
            for c in 0..4 {
                for b in 0..3 {
                    for a in 0..2 {
                        data.extend(elements[12 * a + 4 * b + c].to_be_bytes());
                    }
                }
            }
            let other = Array {
                dtype: ">f8".to_owned(),
                shape: vec![2, 3, 4],
                order: ElementOrder::Fortran,
                data: data.into(),
            };
            let bits = |elements: &[f64]| elements.iter().map(|e| e.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&other.to_vec::<f64>().unwrap()), bits(&elements));
            for wire in WIRES {
                prop_assert_eq!(written(&other, Wire::Four), written(&rows, Wire::Four));
                let (bytes, buffers) = written(&other, wire);
                let read: Vec<Vec<Vec<f64>>> = from_parts(wire, &bytes, &buffers).unwrap();
                prop_assert_eq!(bits(&read.concat().concat()), bits(&elements));
                let read: Array = from_parts(wire, &bytes, &buffers).unwrap();
                prop_assert_eq!(&read, if wire == Wire::Two { &other } else { &array });
            }
        }
    }

    #[test]
    fn the_extensions_of_the_second_wire() {
        let hex = |value: &[u8]| hex::encode(value);
        let (value, buffers) = written(&Typed::tuple((1, 2)), Wire::Two);
        assert_eq!(hex(&value), "c70a0192a57475706c65920102");
        assert!(buffers.is_empty());

        let (value, _) = written(&(1_u128 << 64), Wire::Two);
        assert_eq!(hex(&value), "d80192a3696e74c409000000000000000001");

        let (value, buffers) = written(&Blob::from(vec![7; OUT_OF_BAND_BYTES]), Wire::Two);
        assert_eq!((hex(&value).as_str(), buffers.len()), ("d40300", 1));
        let (value, buffers) = written(&Blob::from(vec![7; 3]), Wire::Two);
        assert_eq!((hex(&value).as_str(), buffers.len()), ("c403070707", 0));

        let small = Array::from_slice(&[2], &[1_i16, 2]).unwrap();
        let (value, buffers) = written(&small, Wire::Two);
        assert_eq!(hex(&value), "c70f0294a33c69329102a143c40401000200");
        assert!(buffers.is_empty());
        let large = Array::from_slice(&[512], &[0_i64; 512]).unwrap();
        let (value, buffers) = written(&(0, large), Wire::Two);
        assert_eq!(hex(&value), "9200c70c0294a33c693891cd0200a14300");
        assert_eq!(buffers.len(), 1);
    }

    #[test]
    fn large_bytes_and_arrays_are_not_copied() {
        let bytes = Bytes::from(vec![7; 100_000]);
        let array = Array {
            dtype: "|u1".to_owned(),
            shape: vec![bytes.len()],
            order: ElementOrder::C,
            data: bytes.clone(),
        };
        let value = (Blob(bytes.clone()), vec![Typed::new("x", Blob(bytes.clone()))]);
        for wire in WIRES {
            let payload = to_payload(&value, wire).unwrap();
            let same = payload.parts.iter().chain(&payload.buffers);
            let same = same.filter(|part| part.as_ptr() == bytes.as_ptr()).count();
            assert_eq!(same, 2, "as it lies in memory, on wire {}", wire.number());

            let joined = joined(&payload);
            let read: (Blob, Vec<Typed<Blob>>) =
                from_parts(wire, &joined, &payload.buffers).unwrap();
            assert_eq!(read, value);
            let source = if wire == Wire::Two { &payload.buffers[0] } else { &joined };
            let source = source.as_ptr_range();
            assert!(source.contains(&read.0.as_ptr()), "a view of what arrived");
        }
        let payload = to_payload(&array, Wire::Two).unwrap();
        assert_eq!(payload.buffers[0].as_ptr(), bytes.as_ptr());
        let read: Array = from_parts(Wire::Two, &joined(&payload), &payload.buffers).unwrap();
        assert_eq!(read.data.as_ptr(), bytes.as_ptr());

        let payload = bytes_to_payload(bytes.clone(), Wire::Four).unwrap();
        assert_eq!(payload.parts.len(), 2);
        assert_eq!(payload.parts[1].as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn bytes_without_an_owner_are_copied_once_and_are_right() {
        let plain = serde_bytes::ByteBuf::from(vec![3; 10_000]);
        for wire in WIRES {
            assert_eq!(there_and_back(&plain, wire), plain);
            let numbers: Vec<u8> = {
                let (bytes, buffers) = written(&plain, wire);
                from_parts(wire, &bytes, &buffers).unwrap()
            };
            assert_eq!(numbers, plain.as_ref(), "bytes are also a sequence of numbers");
        }
    }

    #[test]
    fn a_buffer_is_referred_to_once() {
        let buffers = [Bytes::from_static(b"x"), Bytes::from_static(b"y")];
        let read = |value: &'static [u8]| {
            from_parts::<Vec<Blob>>(Wire::Two, &Bytes::from_static(value), &buffers)
        };
        assert!(read(b"\x92\xd4\x03\x01\xd4\x03\x00").is_ok());
        let error = read(b"\x92\xd4\x03\x00\xd4\x03\x00").unwrap_err().to_string();
        assert!(error.contains("buffer 0 once more"), "{error}");
        let error = read(b"\x91\xd4\x03\x02").unwrap_err().to_string();
        assert!(error.contains("buffer 2 where there are 2"), "{error}");
        let twice = b"\x92\xd4\x03\x00\xc7\x0b\x02\x94\xa3|u1\x91\x01\xa1C\x00";
        assert!(
            from_parts::<(Blob, Array)>(Wire::Two, &Bytes::from_static(twice), &buffers).is_err()
        );
    }

    /// Row 26 of the weaknesses: a dict that looks like a typed value.
    #[test]
    fn a_map_with_type_and_data_is_refused_or_arrives_as_it_is() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Ambiguous {
            data: Vec<i32>,
            r#type: String,
        }
        let value = Ambiguous { data: vec![1, 2], r#type: "tuple".to_owned() };
        let map = HashMap::from([("type", "tuple"), ("data", "x"), ("more", "y")]);
        for wire in [Wire::Four, Wire::Five] {
            assert!(matches!(to_payload(&value, wire), Err(CodecError::Ambiguous)));
            assert!(matches!(to_payload(&map, wire), Err(CodecError::Ambiguous)));
            assert!(matches!(to_payload(&vec![Some(&map)], wire), Err(CodecError::Ambiguous)));
        }
        assert_eq!(there_and_back(&value, Wire::Two), value);
        let one = HashMap::from([("type".to_owned(), 1), ("Data".to_owned(), 2)]);
        assert_eq!(there_and_back(&one, Wire::Four), one);
    }

    #[test]
    fn keys_are_texts_on_the_compatible_wires() {
        let map = BTreeMap::from([(1, 2), (300, 4)]);
        assert_eq!(there_and_back(&map, Wire::Two), map);
        assert!(matches!(to_payload(&map, Wire::Four), Err(CodecError::Key { .. })));
        let map = BTreeMap::from([(Blob::from(vec![0xa1; 5_000]).to_vec(), 1)]);
        assert!(to_payload(&map, Wire::Five).is_err());
        let long = BTreeMap::from([("x".repeat(300), 1), ("y".repeat(70_000), 2)]);
        assert_eq!(there_and_back(&long, Wire::Four), long);
    }

    #[test]
    fn lengths_that_are_known_at_the_end() {
        struct List(usize);
        impl Serialize for List {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut list = serializer.serialize_seq(None)?;
                for _ in 0..self.0 {
                    list.serialize_element(&5)?;
                }
                list.end()
            }
        }
        struct Unknown(usize);
        impl Serialize for Unknown {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut outer = serializer.serialize_map(None)?;
                outer.serialize_entry("list", &List(self.0))?;
                outer.serialize_entry("more", &Typed::new("t", List(self.0)))?;
                outer.end()
            }
        }
        for count in [0, 15, 16, 70_000] {
            #[derive(Debug, PartialEq, Serialize, Deserialize)]
            struct Known {
                list: Vec<u8>,
                more: Typed<Vec<u8>>,
            }
            let known = Known { list: vec![5; count], more: Typed::new("t", vec![5; count]) };
            for wire in WIRES {
                assert_eq!(written(&Unknown(count), wire), written(&known, wire), "{count}");
                assert_eq!(there_and_back(&known, wire), known);
            }
        }
    }

    #[test]
    fn a_length_that_is_not_kept() {
        struct Lies(usize);
        impl Serialize for Lies {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut list = serializer.serialize_seq(Some(2))?;
                for number in 0..self.0 {
                    list.serialize_element(&number)?;
                }
                list.end()
            }
        }
        assert!(to_payload(&Lies(2), Wire::Two).is_ok());
        for lie in [1, 3] {
            let error = to_payload(&Lies(lie), Wire::Two).unwrap_err();
            assert!(
                matches!(error, CodecError::Length { announced: 2, written } if written == lie)
            );
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nested(Vec<Nested>);

    fn nested(levels: usize) -> Nested {
        (1..levels).fold(Nested(Vec::new()), |inner, _| Nested(vec![inner]))
    }

    #[test]
    fn depth() {
        for wire in WIRES {
            let deepest = nested(MAXIMUM_VALUE_DEPTH);
            assert_eq!(there_and_back(&deepest, wire), deepest);
            let error = to_payload(&nested(MAXIMUM_VALUE_DEPTH + 1), wire).unwrap_err();
            assert!(matches!(error, CodecError::Depth));

            let lists = |levels: usize| [vec![0x91; levels - 1], vec![0x90]].concat();
            assert!(read::<Nested>(wire, &lists(MAXIMUM_VALUE_DEPTH)).is_ok());
            assert!(read::<Nested>(wire, &lists(MAXIMUM_VALUE_DEPTH + 1)).is_err());
            assert!(read::<Nested>(wire, &lists(1_000_000)).is_err());
        }
        let wide: Vec<Vec<u8>> = vec![Vec::new(); 10_000];
        assert_eq!(there_and_back(&wide, Wire::Four), wide, "side by side is not in one another");
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf(i64),
        Branch { name: String, children: Vec<Tree>, more: BTreeMap<String, Tree> },
    }

    /// The nesting that serde's derived code and a peer's document have in common.
    #[test]
    fn a_peer_that_nests_as_deep_as_it_can_leaves_room_on_the_stack() {
        let read_all = || {
            for wire in WIRES {
                let lists = [vec![0x91; MAXIMUM_VALUE_DEPTH - 1], vec![0x90]].concat();
                assert!(read::<Nested>(wire, &lists).is_ok());
                assert!(read::<serde_json::Value>(wire, &lists).is_ok());
                let mut tree = Tree::Leaf(5);
                for _ in 0..MAXIMUM_VALUE_DEPTH / 3 {
                    let (name, more) = (String::new(), BTreeMap::new());
                    tree = Tree::Branch { name, children: vec![tree], more };
                }
                assert!(there_and_back(&tree, wire) == tree);
                let maps = [b"\x81\xa0".repeat(MAXIMUM_VALUE_DEPTH), vec![0xc0]].concat();
                assert!(read::<serde_json::Value>(wire, &maps).is_ok());
            }
        };
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(read_all).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn typed_values_are_levels_too() {
        let typed = [b"\x82\xa4type\xa5tuple\xa4data\x91".as_slice(); 400].concat();
        let typed = [&typed[..], b"\xc0"].concat();
        assert!(read::<Nested>(Wire::Four, &typed).is_err());
        let mut value = vec![0x90];
        for _ in 0..600 {
            let content = [b"\x92\xa5tuple\x91", &value[..]].concat();
            let length = u32::try_from(content.len()).unwrap().to_be_bytes();
            value = [&b"\xc9"[..], &length, b"\x01", &content].concat();
        }
        assert!(read::<Nested>(Wire::Two, &value).is_err());
    }

    #[test]
    fn errors_say_what_arrived() {
        let error = |result: Result<(), CodecError>| result.unwrap_err().to_string();
        let text = error(read::<Vec<u32>>(Wire::Four, b"\xa5hello").map(drop));
        assert!(text.contains("\"hello\"") && text.contains("a sequence"), "{text}");
        let text = error(read::<u32>(Wire::Four, b"\x05\x06").map(drop));
        assert!(text.contains("more bytes"), "{text}");
        let text = error(read::<(u8, u8)>(Wire::Four, b"\x93\x01\x02\x03").map(drop));
        assert!(text.contains("3 elements, of which 2"), "{text}");
        let text = error(read::<u8>(Wire::Two, b"\xd4\x04\x00").map(drop));
        assert!(text.contains("pandas"), "{text}");
        let text = error(read::<u8>(Wire::Four, b"\xd4\x05\x00").map(drop));
        assert!(text.contains("extension of type 5"), "{text}");
        let text = error(read::<String>(Wire::Four, b"\xa2\xff\xfe").map(drop));
        assert!(text.contains("UTF-8"), "{text}");
    }

    #[test]
    fn arrays_that_contradict_themselves() {
        let array = |dtype: &str, shape: &[usize], bytes: usize| {
            let data = vec![0; bytes].into();
            let array = Array {
                dtype: dtype.to_owned(),
                shape: shape.to_vec(),
                order: ElementOrder::C,
                data,
            };
            to_payload(&array, Wire::Two).map(drop)
        };
        for (dtype, shape, bytes) in [
            ("<f8", &[2, 2][..], 32),
            ("<U5", &[1], 20),
            ("|S3", &[2], 6),
            ("<M8[ns]", &[1], 8),
            ("<c16", &[], 16),
            ("|V7", &[1], 7),
            ("<f8", &[0, usize::MAX >> 4], 0),
        ] {
            assert!(array(dtype, shape, bytes).is_ok(), "{dtype}");
        }
        for dtype in
            ["", "<", "<f", "f8", "=f8", "|f8", "<i3", "<b1x", "|O", "<O8", "<f8[ns]", "<U0"]
        {
            let error = array(dtype, &[1], 8).unwrap_err();
            assert!(matches!(error, CodecError::Array(ArrayError::Dtype { .. })), "{dtype}");
        }
        for (shape, bytes) in
            [(&[2][..], 15), (&[usize::MAX, 2], 16), (&[0, usize::MAX, 2], 0), (&[0], 8), (&[], 0)]
        {
            let error = array("<f8", shape, bytes).unwrap_err();
            assert!(matches!(error, CodecError::Array(ArrayError::Size { .. })), "{shape:?}");
        }
        assert!(array("|u1", &[1; 64], 1).is_ok());
        assert!(array("|u1", &[1; 65], 1).is_err());

        let texts = Array {
            dtype: "<U1".to_owned(),
            shape: vec![1],
            order: ElementOrder::C,
            data: vec![65, 0, 0, 0].into(),
        };
        assert!(to_payload(&texts, Wire::Four).is_err(), "no numbers, no lists");
        assert_eq!(there_and_back(&texts, Wire::Two), texts);
    }

    #[test]
    fn rows_without_elements_cost_a_peer_nothing_and_us_neither() {
        let empty = |rows: usize| Array {
            dtype: "<f8".to_owned(),
            shape: vec![rows, 0],
            order: ElementOrder::C,
            data: Bytes::new(),
        };
        let (bytes, _) = written(&empty(1 << 40), Wire::Two);
        assert!(read::<Array>(Wire::Two, &bytes).is_ok());
        assert!(read::<Vec<Vec<f64>>>(Wire::Two, &bytes).is_err());
        assert!(to_payload(&empty(1 << 40), Wire::Four).is_err());
        let (bytes, _) = written(&empty(3), Wire::Two);
        assert_eq!(read::<Vec<Vec<f64>>>(Wire::Two, &bytes).unwrap(), vec![Vec::<f64>::new(); 3]);
    }

    #[test]
    fn every_half_float() {
        let array = |bits: u16| Array {
            dtype: ">f2".to_owned(),
            shape: vec![1],
            order: ElementOrder::C,
            data: bits.to_be_bytes().to_vec().into(),
        };
        let value = |bits: u16| {
            let (bytes, _) = written(&array(bits), Wire::Four);
            read::<[f32; 1]>(Wire::Four, &bytes).unwrap()[0]
        };
        for (bits, expected) in [
            (0x0000, 0.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(value(bits).to_bits(), f32::to_bits(expected), "{bits:04x}");
        }
        assert!(value(0x7e00).is_nan());
        assert_eq!(value(0x8000).to_bits(), (-0.0_f32).to_bits());
    }

    #[test]
    fn other_formats_understand_our_types() {
        let value = (
            Array::from_slice(&[2], &[1_i16, 2]).unwrap(),
            Typed::new("t", 5),
            Integer::from(7),
            Blob::from(vec![1, 2]),
        );
        let json = serde_json::to_string(&value).unwrap();
        let read: (Array, Typed<i32>, Integer, Blob) = serde_json::from_str(&json).unwrap();
        assert_eq!(read, value);
        let wrong = r#"{"dtype":"<f8","shape":[2],"order":"C","data":[1]}"#;
        assert!(serde_json::from_str::<Array>(wrong).is_err());
    }
}
