//! The bodies of the compatible wires, as `tno.mpc.communication` writes them.
//!
//! The 4.x line sends the map `{"object": value, "id": number or text}`, the 5.x line `{"object":
//! bytes, "id": text}`, where the bytes are the value as a document of its own. The value can be
//! anything msgpack can express; only its structure is examined.

use std::ops::Range;

use bytes::Bytes;
use rmp::encode;

use crate::limits::MAXIMUM_ID_BYTES;
use crate::message::{MessageId, Wire};
use crate::msgpack::{Cursor, Token};

pub use crate::msgpack::{DocumentError as EnvelopeError, count_wrappers};

/// A map with two entries, and its first key.
const OPENING: &[u8] = b"\x82\xa6object";

/// The second key.
const ID_KEY: &[u8] = b"\xa2id";

/// Bytes of the value: the most that one msgpack marker can announce.
pub const MAXIMUM_VALUE_BYTES: usize = u32::MAX as usize;

/// A message that the compatible wires cannot express.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The second wire has frames, not envelopes.
    #[error("the second wire has no envelope")]
    Wire,
    /// Too many bytes for one msgpack value.
    #[error(
        "the value has {length} bytes, expected at most {MAXIMUM_VALUE_BYTES} on the compatible \
         wires: send it in pieces, or let the peer use convelo too"
    )]
    TooLarge {
        /// Its bytes.
        length: usize,
    },
    /// An id with too many bytes.
    #[error("the id has {length} bytes, expected at most {MAXIMUM_ID_BYTES}")]
    IdLength {
        /// Its bytes.
        length: usize,
    },
    /// A number that msgpack cannot express.
    #[error("the id is {number}, expected a number from -2^63 to 2^64 - 1")]
    IdRange {
        /// The number.
        number: i128,
    },
    /// The 5.x line knows only texts.
    #[error("the id {number} is a number; on the 5.x wire ids are texts: use \"{number}\"")]
    IdKind {
        /// The number.
        number: i128,
    },
}

/// The bytes sent before and after a value of `value_len` bytes.
pub fn build(wire: Wire, id: &MessageId, value_len: usize) -> Result<(Bytes, Bytes), BuildError> {
    let Ok(length) = u32::try_from(value_len) else {
        return Err(BuildError::TooLarge { length: value_len });
    };
    let head = match wire {
        Wire::Four => Bytes::from_static(OPENING),
        Wire::Five => {
            let mut head = Vec::with_capacity(OPENING.len() + 5);
            head.extend_from_slice(OPENING);
            encode::write_bin_len(&mut head, length).expect("a vector accepts everything");
            head.into()
        }
        Wire::Two => return Err(BuildError::Wire),
    };
    let mut tail = Vec::with_capacity(ID_KEY.len() + 9);
    tail.extend_from_slice(ID_KEY);
    match id {
        MessageId::Int(number) if wire == Wire::Five => {
            return Err(BuildError::IdKind { number: *number });
        }
        MessageId::Int(number) => {
            write_number(&mut tail, *number).ok_or(BuildError::IdRange { number: *number })?;
        }
        MessageId::Text(text) if text.len() > MAXIMUM_ID_BYTES => {
            return Err(BuildError::IdLength { length: text.len() });
        }
        MessageId::Text(text) => {
            encode::write_str(&mut tail, text).expect("a vector accepts everything");
        }
    }
    Ok((head, tail.into()))
}

/// The content of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The message's id.
    pub id: MessageId,
    /// Where the value is in the body: one whole msgpack document.
    pub value: Range<usize>,
}

/// Opens an envelope. Walks the whole document once, to make sure that the value is one document of
/// at most [`MAXIMUM_DEPTH`](crate::limits::MAXIMUM_DEPTH) levels. Ignores bytes after it, as the
/// genuine packages do. Ignores other keys on the 4.x wire and refuses them on the 5.x wire.
pub fn parse(body: &[u8], wire: Wire) -> Result<Parsed, EnvelopeError> {
    if wire == Wire::Two {
        return Err(EnvelopeError::new(0, "a body of the second wire", "it has no envelope"));
    }
    let mut cursor = Cursor::new(body);
    let count = match cursor.token()? {
        Token::Map(count) => count,
        other => return Err(EnvelopeError::new(0, other.name(), "a message is a map")),
    };
    let mut value = None;
    let mut id = None;
    for _ in 0..count {
        let position = cursor.position();
        let key = match cursor.token()? {
            Token::Text(range) => cursor.slice(range),
            other => return Err(EnvelopeError::new(position, other.name(), "keys are texts")),
        };
        match key {
            b"object" if value.is_none() => value = Some(read_value(&mut cursor, wire)?),
            b"id" if id.is_none() => id = Some(read_id(&mut cursor, wire)?),
            b"object" | b"id" => {
                let found = "a second \"object\" or \"id\"";
                return Err(EnvelopeError::new(position, found, "each occurs once"));
            }
            key if wire == Wire::Five => {
                let found = format!("the key {:?}", String::from_utf8_lossy(clipped(key)));
                let required = "a message of the 5.x wire has only the keys \"object\" and \"id\"";
                return Err(EnvelopeError::new(position, found, required));
            }
            key => {
                if std::str::from_utf8(key).is_err() {
                    return Err(EnvelopeError::new(position, "a key", "texts are UTF-8"));
                }
                cursor.skip(0)?;
            }
        }
    }
    let missing =
        |key: &'static str| EnvelopeError::new(cursor.position(), "the end of the map", key);
    Ok(Parsed {
        value: value.ok_or_else(|| missing("the key \"object\" is missing"))?,
        id: id.ok_or_else(|| missing("the key \"id\" is missing"))?,
    })
}

/// Which compatible wire a body seems to be written for. No more than a hint for messages to
/// people: bytes sent under a text id on the 4.x wire may look like the 5.x wire.
pub fn looks_like(body: &[u8]) -> Option<Wire> {
    if let Ok(parsed) = parse(body, Wire::Five) {
        let whole = parse(body, Wire::Four).is_ok_and(|four| {
            // On the 4.x wire, the bytes' own marker and length are part of the value.
            four.value.end == parsed.value.end
        });
        if whole {
            return Some(Wire::Five);
        }
    }
    parse(body, Wire::Four).is_ok().then_some(Wire::Four)
}

fn read_value(cursor: &mut Cursor<'_>, wire: Wire) -> Result<Range<usize>, EnvelopeError> {
    if wire != Wire::Five {
        return cursor.skip(0);
    }
    let position = cursor.position();
    let bytes = match cursor.token()? {
        Token::Bytes(range) => range,
        other => {
            let required = "on the 5.x wire the object is bytes; the peer may speak the 4.x wire";
            return Err(EnvelopeError::new(position, other.name(), required));
        }
    };
    let rest = cursor.enter(bytes);
    let value = cursor.skip(0)?;
    cursor.enter(rest);
    Ok(value)
}

fn read_id(cursor: &mut Cursor<'_>, wire: Wire) -> Result<MessageId, EnvelopeError> {
    let position = cursor.position();
    let token = cursor.token()?;
    match token {
        Token::Text(range) if range.len() > MAXIMUM_ID_BYTES => {
            let found = format!("an id of {} bytes", range.len());
            Err(EnvelopeError::new(position, found, "an id has at most 1024 bytes"))
        }
        Token::Text(range) => match std::str::from_utf8(cursor.slice(range)) {
            Ok(text) => Ok(MessageId::Text(text.into())),
            Err(_) => Err(EnvelopeError::new(position, "an id of other bytes", "texts are UTF-8")),
        },
        Token::Unsigned(number) if wire == Wire::Four => Ok(MessageId::Int(number.into())),
        Token::Negative(number) if wire == Wire::Four => Ok(MessageId::Int(number.into())),
        other if wire == Wire::Five => {
            let required = "on the 5.x wire an id is a text; the peer may speak the 4.x wire";
            Err(EnvelopeError::new(position, other.name(), required))
        }
        other => Err(EnvelopeError::new(position, other.name(), "an id is a number or a text")),
    }
}

/// Writes a number in its smallest form; `None` if msgpack has none.
pub(crate) fn write_number(to: &mut Vec<u8>, number: i128) -> Option<()> {
    if let Ok(number) = u64::try_from(number) {
        encode::write_uint(to, number).expect("a vector accepts everything");
    } else {
        let number = i64::try_from(number).ok()?;
        encode::write_sint(to, number).expect("a vector accepts everything");
    }
    Some(())
}

fn clipped(key: &[u8]) -> &[u8] {
    key.get(..40).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn join(wire: Wire, id: &MessageId, value: &[u8]) -> Vec<u8> {
        let (head, tail) = build(wire, id, value.len()).unwrap();
        [&head, value, &tail].concat()
    }

    #[test]
    fn as_the_genuine_package_writes_it() {
        assert_eq!(
            join(Wire::Four, &300.into(), b"\xa1x"),
            b"\x82\xa6object\xa1x\xa2id\xcd\x01\x2c"
        );
        assert_eq!(
            join(Wire::Five, &"0".into(), b"\xa1x"),
            b"\x82\xa6object\xc4\x02\xa1x\xa2id\xa10"
        );
    }

    #[test]
    fn ids_in_their_smallest_form() {
        for (number, form) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0xcc, 0x80]),
            (256, &[0xcd, 1, 0]),
            (65_536, &[0xce, 0, 1, 0, 0]),
            (1 << 32, &[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
            (u64::MAX.into(), &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]),
            (-32, &[0xe0]),
            (-33, &[0xd0, 0xdf]),
            (i64::MIN.into(), &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let (_, tail) = build(Wire::Four, &MessageId::Int(number), 0).unwrap();
            assert_eq!(tail[3..], *form, "{number}");
        }
    }

    #[test]
    fn what_cannot_be_written() {
        let longest = "x".repeat(MAXIMUM_ID_BYTES);
        let longer = format!("{longest}x");
        for wire in [Wire::Four, Wire::Five] {
            assert!(build(wire, &longest.as_str().into(), MAXIMUM_VALUE_BYTES).is_ok());
            assert_eq!(
                build(wire, &longer.as_str().into(), 0),
                Err(BuildError::IdLength { length: MAXIMUM_ID_BYTES + 1 })
            );
            let length = MAXIMUM_VALUE_BYTES + 1;
            assert_eq!(build(wire, &"x".into(), length), Err(BuildError::TooLarge { length }));
        }
        for number in [i128::from(u64::MAX) + 1, i128::from(i64::MIN) - 1] {
            let id = MessageId::Int(number);
            assert_eq!(build(Wire::Four, &id, 0), Err(BuildError::IdRange { number }));
        }
        assert_eq!(build(Wire::Five, &1.into(), 0), Err(BuildError::IdKind { number: 1 }));
        assert_eq!(build(Wire::Two, &1.into(), 0), Err(BuildError::Wire));
    }

    #[test]
    fn keys_in_any_order_and_further_ones() {
        let body = b"\x83\xa2id\x05\xa4more\x92\x01\x80\xa6object\x91\x07trailing";
        let parsed = Parsed { id: 5.into(), value: 20..22 };
        assert_eq!(parse(body, Wire::Four), Ok(parsed));

        let body = b"\x82\xa2id\xa15\xa6object\xc4\x02\x07\x08trailing";
        let parsed = Parsed { id: "5".into(), value: 15..16 };
        assert_eq!(parse(body, Wire::Five), Ok(parsed), "bytes after the inner document");

        let body = b"\x83\xa2id\xa15\xa1x\x01\xa6object\xc4\x01\x07";
        assert!(parse(body, Wire::Four).is_ok());
        assert!(parse(body, Wire::Five).unwrap_err().found.contains("\"x\""));
    }

    #[test]
    fn every_refusal() {
        for (body, found) in [
            (&b""[..], "the end"),
            (b"\xc0", "nil"),
            (b"\x92\x01\x02", "a list"),
            (b"\x80", "the end of the map"),
            (b"\x81\xa6object\x01", "the end of the map"),
            (b"\x81\xa2id\x01", "the end of the map"),
            (b"\x82\x01\x02\xa2id\x01", "a number"),
            (b"\x83\xa2id\x01\xa2id\x01\xa6object\x01", "a second \"object\" or \"id\""),
            (b"\x82\xa6object\x01\xa2id\xc3", "a bool"),
            (b"\x82\xa6object\x01\xa2id\x90", "a list"),
            (b"\x82\xa6object\x01\xa2id\xc0", "nil"),
            (b"\x82\xa6object\x01\xa2id\xcb\x00\x00\x00\x00\x00\x00\x00\x00", "a float"),
            (b"\x82\xa6object\x01\xa2id\xa1\xff", "an id of other bytes"),
            (b"\x82\xa6object\xc1\xa2id\x01", "the byte c1"),
            (b"\x83\xa1\xff\x01\xa6object\x01\xa2id\x01", "a key"),
        ] {
            assert_eq!(parse(body, Wire::Four).unwrap_err().found, found, "{body:02x?}");
            assert!(parse(body, Wire::Five).is_err());
        }
        assert_eq!(
            parse(b"\x82\xa6object\xc4\x01\x01\xa2id\x01", Wire::Five).unwrap_err().to_string(),
            "at byte 14: a number; on the 5.x wire an id is a text; the peer may speak the 4.x wire"
        );
        assert!(parse(b"\x82\xa6object\xa1x\xa2id\xa11", Wire::Five).is_err());
        assert!(parse(b"\x82\xa6object\xc4\x00\xa2id\xa11", Wire::Five).is_err());
        assert!(parse(b"\x82\xa6object\xc4\x01\x91\xa2id\xa11", Wire::Five).is_err());

        let long = "x".repeat(MAXIMUM_ID_BYTES + 1);
        let long = [b"\x82\xa6object\x01\xa2id\xda\x04\x01", long.as_bytes()].concat();
        assert_eq!(parse(&long, Wire::Four).unwrap_err().found, "an id of 1025 bytes");
    }

    #[test]
    fn hints() {
        let four = join(Wire::Four, &0.into(), b"\xa1x");
        let five = join(Wire::Five, &"0".into(), b"\xa1x");
        assert_eq!(looks_like(&four), Some(Wire::Four));
        assert_eq!(looks_like(&five), Some(Wire::Five));
        let bytes = join(Wire::Four, &"0".into(), b"\xc4\x03\x01\x02\x03");
        assert_eq!(looks_like(&bytes), Some(Wire::Four), "the bytes are not one document");
        assert_eq!(looks_like(b"hello"), None);
    }

    #[test]
    fn garbage_of_any_depth_is_refused_at_once() {
        let deep = join(Wire::Four, &0.into(), &vec![0x91; 1_000_000]);
        assert!(parse(&deep, Wire::Four).unwrap_err().required.contains("497"));
        assert!(parse(&deep, Wire::Five).is_err());
    }

    fn id() -> impl Strategy<Value = MessageId> {
        prop_oneof![
            any::<i64>().prop_map(MessageId::from),
            any::<u64>().prop_map(|number| MessageId::Int(number.into())),
            ".{0,200}".prop_map(|text| MessageId::from(text.as_str())),
        ]
    }

    proptest! {
        #[test]
        fn opens_what_it_closed(id in id(), bytes in vec(any::<u8>(), 0..300)) {
            let mut value = Vec::new();
            encode::write_bin(&mut value, &bytes).unwrap();
            for wire in [Wire::Four, Wire::Five] {
                if wire == Wire::Five && matches!(id, MessageId::Int(_)) {
                    continue;
                }
                let body = join(wire, &id, &value);
                let parsed = parse(&body, wire).unwrap();
                prop_assert_eq!(&parsed.id, &id);
                prop_assert_eq!(&body[parsed.value], &value);
                for end in 0..body.len() {
                    prop_assert!(parse(&body[..end], wire).is_err());
                }
            }
        }

        #[test]
        fn bytes_of_any_kind(bytes in vec(any::<u8>(), 0..300)) {
            let body = [OPENING, &bytes].concat();
            for wire in [Wire::Four, Wire::Five] {
                if let Ok(parsed) = parse(&body, wire) {
                    let value = &body[parsed.value];
                    prop_assert_eq!(Cursor::new(value).skip(0), Ok(0..value.len()));
                    prop_assert_eq!(parse(&join(wire, &parsed.id, value), wire).unwrap().id, parsed.id);
                }
            }
        }
    }
}
