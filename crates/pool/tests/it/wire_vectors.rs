//! The compatible wires, held to what the genuine package writes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use bytes::Bytes;
use convelo_pool::codec::{self, Array, Blob, ElementOrder, Integer, Typed};
use convelo_pool::{MessageId, Payload, Wire, envelope};
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

struct Entry {
    name: String,
    wire: Wire,
    id: MessageId,
    packed: Vec<u8>,
    unpacked: String,
    /// Whether the genuine package writes these bytes every time.
    stable: bool,
    /// Whether it can read them itself.
    readable: bool,
}

impl Entry {
    fn value(&self) -> Bytes {
        let parsed = envelope::parse(&self.packed, self.wire).unwrap();
        Bytes::copy_from_slice(&self.packed[parsed.value])
    }

    fn decode<T: DeserializeOwned>(&self) -> Result<T, codec::CodecError> {
        codec::from_parts(self.wire, &self.value(), &[])
    }

    /// Reads it as this type, and expects the same bytes when it is written again.
    fn both_ways<T: DeserializeOwned + Serialize>(&self) -> T {
        let value: T = self.decode().unwrap_or_else(|error| panic!("{self}: {error}"));
        assert_eq!(written(&value, self.wire), self.value(), "{self}");
        value
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on wire {}", self.name, self.wire.number())
    }
}

fn entries() -> Vec<Entry> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/pool/tno_wire.json");
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut entries = Vec::new();
    for entry in file["entries"].as_array().unwrap() {
        for packed in ["packed_hex", "packed_hex_old_stack"] {
            let Some(packed_hex) = entry.get(packed).and_then(|hex| hex.as_str()) else { continue };
            entries.push(Entry {
                name: entry["name"].as_str().unwrap().to_owned(),
                wire: match entry["version"].as_str().unwrap() {
                    "4.8.1" => Wire::Four,
                    "5.0.4" => Wire::Five,
                    other => panic!("version {other}"),
                },
                id: match &entry["msg_id"] {
                    serde_json::Value::String(text) => text.as_str().into(),
                    number => number.as_i64().unwrap().into(),
                },
                packed: hex::decode(packed_hex).unwrap(),
                unpacked: entry["unpacked_repr"].as_str().unwrap_or_default().to_owned(),
                stable: packed == "packed_hex" && entry["compare"] == "bytes",
                readable: entry.get("unpack_error").is_none(),
            });
        }
    }
    entries
}

/// The entries of this name on both wires.
fn named(name: &str) -> Vec<Entry> {
    let named: Vec<Entry> =
        entries().into_iter().filter(|entry| entry.stable && entry.name == name).collect();
    assert_eq!(named.len(), 2, "{name}");
    named
}

fn written<T: Serialize + ?Sized>(value: &T, wire: Wire) -> Bytes {
    let Payload { parts, buffers } = codec::to_payload(value, wire).unwrap();
    assert!(buffers.is_empty());
    parts.concat().into()
}

/// Whatever is plain.
#[derive(Clone, Debug)]
enum Plain {
    None,
    Bool(bool),
    Integer(i128),
    F32(f32),
    F64(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Plain>),
    Map(Vec<(Plain, Plain)>),
}

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::Integer(one), Self::Integer(other)) => one == other,
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Bytes(one), Self::Bytes(other)) => one == other,
            (Self::List(one), Self::List(other)) => one == other,
            (Self::Map(one), Self::Map(other)) => one == other,
            _ => match (self.float(), other.float()) {
                (Some(one), Some(other)) => one.to_bits() == other.to_bits(),
                _ => false,
            },
        }
    }
}

impl Plain {
    fn float(&self) -> Option<f64> {
        match self {
            Self::F32(number) => Some((*number).into()),
            Self::F64(number) => Some(*number),
            _ => None,
        }
    }

    /// How many integers in it have no form in msgpack.
    fn large(&self) -> usize {
        match self {
            Self::Integer(number) => {
                usize::from(!(i64::MIN.into()..=u64::MAX.into()).contains(number))
            }
            Self::List(elements) => elements.iter().map(Self::large).sum(),
            Self::Map(entries) => {
                entries.iter().map(|(key, value)| key.large() + value.large()).sum()
            }
            _ => 0,
        }
    }

    fn has_text_keys(&self) -> bool {
        match self {
            Self::List(elements) => elements.iter().all(Self::has_text_keys),
            Self::Map(entries) => entries
                .iter()
                .all(|(key, value)| matches!(key, Self::Text(_)) && value.has_text_keys()),
            _ => true,
        }
    }
}

impl Serialize for Plain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(number) => serializer.serialize_i128(*number),
            Self::F32(number) => serializer.serialize_f32(*number),
            Self::F64(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(elements) => elements.serialize(serializer),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlainVisitor;
        impl<'de> Visitor<'de> for PlainVisitor {
            type Value = Plain;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything plain")
            }
            fn visit_unit<E>(self) -> Result<Plain, E> {
                Ok(Plain::None)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain::Bool(value))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Plain, E> {
                Ok(Plain::Integer(number.into()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Plain, E> {
                Ok(Plain::Integer(number.into()))
            }
            fn visit_i128<E>(self, number: i128) -> Result<Plain, E> {
                Ok(Plain::Integer(number))
            }
            fn visit_f32<E>(self, number: f32) -> Result<Plain, E> {
                Ok(Plain::F32(number))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Plain, E> {
                Ok(Plain::F64(number))
            }
            fn visit_str<E>(self, text: &str) -> Result<Plain, E> {
                Ok(Plain::Text(text.to_owned()))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Plain, E> {
                Ok(Plain::Bytes(bytes.to_vec()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Plain, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Plain::List(elements))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Plain, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Plain::Map(entries))
            }
        }
        deserializer.deserialize_any(PlainVisitor)
    }
}

/// Reads what Python's `repr` writes of plain values; a tuple is a list.
struct Literal<'a>(&'a str);

impl Literal<'_> {
    fn parse(text: &str) -> Option<Plain> {
        let mut literal = Literal(text);
        let value = literal.value()?;
        literal.0.is_empty().then_some(value)
    }

    fn take(&mut self, text: &str) -> bool {
        let rest = self.0.strip_prefix(text);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn value(&mut self) -> Option<Plain> {
        for (word, value) in [
            ("None", Plain::None),
            ("True", Plain::Bool(true)),
            ("False", Plain::Bool(false)),
            ("nan", Plain::F64(f64::NAN)),
            ("inf", Plain::F64(f64::INFINITY)),
            ("-inf", Plain::F64(f64::NEG_INFINITY)),
        ] {
            if self.take(word) {
                return Some(value);
            }
        }
        if self.take("[") {
            return self.elements("]").map(Plain::List);
        }
        if self.take("(") {
            return self.elements(")").map(Plain::List);
        }
        if self.take("{") {
            let mut entries = Vec::new();
            while !self.take("}") {
                let key = self.value()?;
                self.take(": ").then_some(())?;
                entries.push((key, self.value()?));
                self.take(", ");
            }
            return Some(Plain::Map(entries));
        }
        if self.take("b") {
            let codes = self.quoted()?;
            let bytes = codes.into_iter().map(u8::try_from).collect::<Result<_, _>>().ok()?;
            return Some(Plain::Bytes(bytes));
        }
        if self.0.starts_with(['\'', '"']) {
            let codes = self.quoted()?;
            let text = codes.into_iter().map(char::from_u32).collect::<Option<_>>()?;
            return Some(Plain::Text(text));
        }
        let end = self.0.find([',', ']', ')', '}', ':']).unwrap_or(self.0.len());
        let (number, rest) = self.0.split_at(end);
        self.0 = rest;
        if number.contains(['.', 'e']) {
            return number.parse().ok().map(Plain::F64);
        }
        number.parse().ok().map(Plain::Integer)
    }

    fn elements(&mut self, end: &str) -> Option<Vec<Plain>> {
        let mut elements = Vec::new();
        while !self.take(end) {
            elements.push(self.value()?);
            let _ = self.take(", ") || self.take(",");
        }
        Some(elements)
    }

    fn quoted(&mut self) -> Option<Vec<u32>> {
        let mut rest = self.0.chars();
        let quote = rest.next()?;
        let mut codes = Vec::new();
        loop {
            match rest.next()? {
                '\\' => match rest.next()? {
                    'x' => {
                        let digits: String = rest.by_ref().take(2).collect();
                        codes.push(u32::from_str_radix(&digits, 16).ok()?);
                    }
                    'n' => codes.push('\n'.into()),
                    'r' => codes.push('\r'.into()),
                    't' => codes.push('\t'.into()),
                    other => codes.push(other.into()),
                },
                end if end == quote => break,
                other => codes.push(other.into()),
            }
        }
        self.0 = rest.as_str();
        Some(codes)
    }
}

#[test]
fn every_body_is_opened_and_closed_again() {
    let entries = entries();
    assert!(entries.len() > 400);
    for entry in &entries {
        let parsed = envelope::parse(&entry.packed, entry.wire)
            .unwrap_or_else(|error| panic!("{entry}: {error}"));
        assert_eq!(parsed.id, entry.id, "{entry}");
        let value = &entry.packed[parsed.value];
        let (head, tail) = envelope::build(entry.wire, &entry.id, value.len()).unwrap();
        assert_eq!([&head, value, &tail].concat(), entry.packed, "{entry}");
        assert_eq!(envelope::looks_like(&entry.packed), Some(entry.wire), "{entry}");
        for end in 0..entry.packed.len().min(100) {
            assert!(envelope::parse(&entry.packed[..end], entry.wire).is_err());
        }
    }
}

#[test]
fn every_plain_value_is_what_python_makes_of_it() {
    let (mut read, mut same) = (0, 0);
    for entry in entries().into_iter().filter(|entry| entry.readable) {
        let Some(expected) = Literal::parse(&entry.unpacked) else { continue };
        let value: Plain = entry.decode().unwrap_or_else(|error| panic!("{entry}: {error}"));
        assert_eq!(value, expected, "{entry}");
        read += 1;
        let packed = entry.value();
        let as_it_is = entry.stable && envelope::count_wrappers(&packed) == value.large();
        if as_it_is && value.has_text_keys() {
            assert_eq!(written(&value, entry.wire), packed, "{entry}");
            same += 1;
        } else if as_it_is {
            assert!(codec::to_payload(&value, entry.wire).is_err(), "{entry}");
        }
    }
    assert!(read > 280, "{read} values were compared");
    assert!(same > 240, "{same} values were written again");
}

#[test]
fn integers_of_every_size() {
    let entries = entries();
    let integers = entries.iter().filter(|entry| entry.stable && entry.name.starts_with("int_"));
    let mut count = 0;
    for entry in integers {
        let integer: Integer = entry.both_ways();
        if let Ok(number) = entry.unpacked.parse::<i128>() {
            assert_eq!(i128::try_from(&integer), Ok(number), "{entry}");
            assert_eq!(entry.both_ways::<i128>(), number);
        } else {
            assert_eq!(integer.is_negative(), entry.unpacked.starts_with('-'), "{entry}");
            assert!(entry.decode::<i128>().is_err(), "{entry}");
        }
        count += 1;
    }
    assert!(count > 60, "{count} integers");
    let power = Integer::from_unsigned_bytes_le(&[vec![0; 256], vec![1]].concat());
    for entry in named("int_2p2048") {
        assert_eq!(entry.both_ways::<Integer>(), power);
    }
}

#[test]
fn long_texts_and_bytes() {
    for (name, text) in [("str_70000", "c".repeat(70_000)), ("str_256", "b".repeat(256))] {
        for entry in named(name) {
            assert_eq!(entry.both_ways::<String>(), text);
        }
    }
    for entry in named("bytes_70000") {
        assert_eq!(*entry.both_ways::<Blob>(), *vec![b'z'; 70_000]);
        assert_eq!(*entry.both_ways::<serde_bytes::ByteBuf>(), *vec![b'z'; 70_000]);
    }
    for entry in named("list_65536") {
        assert_eq!(entry.both_ways::<Vec<u64>>(), vec![0; 65_536]);
    }
}

#[test]
fn tuples() {
    for entry in named("tuple_empty") {
        assert_eq!(entry.both_ways::<Typed<[u8; 0]>>(), Typed::tuple([]));
    }
    for entry in named("tuple_1") {
        assert_eq!(entry.both_ways::<Typed<(i32,)>>(), Typed::tuple((42,)));
    }
    for entry in named("tuple_mixed") {
        type Mixed = Typed<(i32, f64, String, Vec<u8>, Typed<(i32,)>)>;
        let expected = Typed::tuple((1, 2.0, "3".to_owned(), vec![4], Typed::tuple((5,))));
        assert_eq!(entry.both_ways::<Mixed>(), expected);
        let flat: (i32, f64, String, Vec<u8>, (i32,)) = entry.decode().unwrap();
        assert_eq!(flat, (1, 2.0, "3".to_owned(), vec![4], (5,)));
    }
    for entry in named("list_of_tuple") {
        let expected = vec![Typed::tuple((1, 2)), Typed::tuple((3, 4))];
        assert_eq!(entry.both_ways::<Vec<Typed<(i32, i32)>>>(), expected);
    }
    for entry in named("dict_tuple_val") {
        let expected = BTreeMap::from([("t".to_owned(), Typed::tuple((1, 2)))]);
        assert_eq!(entry.both_ways::<BTreeMap<String, Typed<(i32, i32)>>>(), expected);
    }
}

#[test]
fn classes_by_their_names() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Point {
        x: Option<i32>,
        y: Option<i32>,
    }
    for entry in named("custom_point") {
        let expected = Typed::new("Point", Point { x: Some(1), y: Some(2) });
        assert_eq!(entry.both_ways::<Typed<Point>>(), expected);
        let error = entry.decode::<Point>().unwrap_err().to_string();
        assert!(error.contains("'Point'") && error.contains("Typed"), "{error}");
    }
    for entry in named("custom_empty_dict_data") {
        let expected = Typed::new("Point", Point { x: None, y: None });
        assert_eq!(entry.both_ways::<Typed<Point>>(), expected);
    }
    for entry in named("mpz_m1") {
        let expected = Typed::new("mpz", Blob::from(vec![1, 2, 1]));
        assert_eq!(entry.both_ways::<Typed<Blob>>(), expected);
    }
    for entry in named("bitarray_3") {
        let expected = Typed::new("bitarray", Blob::from(vec![0x15, 0xa0]));
        assert_eq!(entry.both_ways::<Typed<Blob>>(), expected);
    }
}

#[test]
fn arrays_are_written_as_numpy_is() {
    let same = |name: &str, array: &Array| {
        for entry in named(name) {
            assert_eq!(written(array, entry.wire), entry.value(), "{entry}");
        }
    };
    same("np_1d_bool", &Array::from_slice(&[3], &[false, true, true]).unwrap());
    same("np_1d_int8", &Array::from_slice(&[3], &[0_i8, 1, 2]).unwrap());
    same("np_1d_int16", &Array::from_slice(&[3], &[0_i16, 1, 2]).unwrap());
    same("np_1d_int32", &Array::from_slice(&[3], &[0_i32, 1, 2]).unwrap());
    same("np_1d_int64", &Array::from_slice(&[3], &[0_i64, 1, 2]).unwrap());
    same("np_1d_uint8", &Array::from_slice(&[3], &[0_u8, 1, 2]).unwrap());
    same("np_1d_uint16", &Array::from_slice(&[3], &[0_u16, 1, 2]).unwrap());
    same("np_1d_uint32", &Array::from_slice(&[3], &[0_u32, 1, 2]).unwrap());
    same("np_1d_uint64", &Array::from_slice(&[3], &[0_u64, 1, 2]).unwrap());
    same("np_1d_float32", &Array::from_slice(&[3], &[0_f32, 1.0, 2.0]).unwrap());
    same("np_1d_float64", &Array::from_slice(&[3], &[0_f64, 1.0, 2.0]).unwrap());
    let half = Array {
        dtype: "<f2".to_owned(),
        shape: vec![3],
        order: ElementOrder::C,
        data: Bytes::from_static(&[0, 0, 0, 0x3c, 0, 0x40]),
    };
    same("np_1d_float16", &half);
    let six = [0_f64, 1.0, 2.0, 3.0, 4.0, 5.0];
    same("np_2d_f64", &Array::from_slice(&[2, 3], &six).unwrap());
    same("np_3d_i64", &Array::from_slice(&[2, 2, 2], &[0_i64, 1, 2, 3, 4, 5, 6, 7]).unwrap());
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
    same("np_nan_inf", &Array::from_slice(&[4], &special).unwrap());
    same("np_0d_391", &Array::from_slice(&[], &[391_i64]).unwrap());
    same("np_0d_float", &Array::from_slice(&[], &[1.5_f64]).unwrap());
    same("np_empty_0", &Array::from_slice::<f64>(&[0], &[]).unwrap());
    same("np_empty_0x3", &Array::from_slice::<f64>(&[0, 3], &[]).unwrap());
    same("np_empty_3x0", &Array::from_slice::<f64>(&[3, 0], &[]).unwrap());
    let transposed = Array {
        dtype: "<f8".to_owned(),
        shape: vec![2, 3],
        order: ElementOrder::Fortran,
        data: Array::from_slice(&[3, 2], &[0_f64, 3.0, 1.0, 4.0, 2.0, 5.0]).unwrap().data,
    };
    same("np_2d_f64", &transposed);
}

#[test]
fn arrays_of_another_byte_order_keep_their_values() {
    let array = Array {
        dtype: ">i4".to_owned(),
        shape: vec![2],
        order: ElementOrder::C,
        data: Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0, 2]),
    };
    assert_eq!(*written(&array, Wire::Four), [0x92, 1, 2]);
    assert_eq!(array.to_vec::<i32>(), Ok(vec![1, 2]));
}

#[test]
fn lists_and_arrays_of_numpy_are_read() {
    for entry in named("np_2d_f64") {
        let array: Array = entry.decode().unwrap();
        assert_eq!((array.dtype.as_str(), &array.shape[..]), ("<f8", &[2, 3][..]));
        assert_eq!(array.to_vec::<f64>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let rows: Vec<[f64; 3]> = entry.decode().unwrap();
        assert_eq!(rows, [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
    }
    for (name, dtype, shape) in [
        ("np_1d_float32", "<f4", &[3][..]),
        ("np_1d_bool", "|b1", &[3]),
        ("np_3d_i64", "<i8", &[2, 2, 2]),
        ("np_transposed", "<i8", &[3, 2]),
        ("np_fortran", "<i8", &[2, 3]),
        ("np_0d_391", "<i8", &[]),
        ("np_0d_float", "<f8", &[]),
        ("np_empty_3x0", "<f8", &[3, 0]),
        ("np_empty_obj_0x3", "<f8", &[0, 3]),
        ("np_obj_ints", "<i8", &[2]),
    ] {
        for entry in named(name) {
            let array: Array = entry.decode().unwrap_or_else(|error| panic!("{entry}: {error}"));
            assert_eq!((array.dtype.as_str(), &array.shape[..]), (dtype, shape), "{entry}");
        }
    }
    for entry in named("np_transposed") {
        assert_eq!(entry.decode::<Array>().unwrap().to_vec::<i64>().unwrap(), [0, 3, 1, 4, 2, 5]);
        assert_eq!(entry.decode::<Vec<(i64, i64)>>().unwrap(), [(0, 3), (1, 4), (2, 5)]);
    }
    for entry in named("np_0d_391") {
        assert_eq!(entry.decode::<i64>().unwrap(), 391);
    }
    for entry in named("np_1d_str") {
        assert_eq!(entry.decode::<Vec<String>>().unwrap(), ["a", "bc"]);
    }
    for entry in named("np_obj_bigints") {
        let expected = [1_i128 << 100, -(1 << 100)];
        assert_eq!(entry.decode::<Vec<i128>>().unwrap(), expected);
    }
    for name in ["np_1d_str", "np_obj_bigints", "np_obj_mixed", "tuple_1", "str_hello"] {
        for entry in named(name) {
            assert!(entry.decode::<Array>().is_err(), "{entry}");
        }
    }
}
