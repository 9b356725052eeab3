//! The body of the second wire: one value and the buffers that it refers to.
//!
//! All integers are big endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `CVP2` |
//! | 1 | version: 1 |
//! | 1 | kind of the id: 0 a number, 1 a text |
//! | 2 | bytes of the text, at most [`MAXIMUM_ID_BYTES`]; 0 for a number |
//! | 4 | number of buffers, at most [`MAXIMUM_BUFFERS`] |
//! | 8 | bytes of the value |
//! | 16, or as said | the id: a number as 128 bits in two's complement, -2^63 to 2^64 - 1; a text in UTF-8 |
//! | 8 each | bytes of each buffer |
//! | as said | the value, then the buffers |
//!
//! The first 20 bytes are the prefix; prefix, id and lengths are the head. Nothing after the head
//! is examined here. The lengths add up exactly to the body's length, so everything is known to be
//! within the limit for messages before any memory is spent on it.

use bytes::Bytes;

use crate::limits::{MAXIMUM_BUFFERS, MAXIMUM_ID_BYTES};
use crate::message::MessageId;

/// Bytes of the prefix.
pub const PREFIX_BYTES: usize = 20;

const MAGIC: [u8; 4] = *b"CVP2";
const VERSION: u8 = 1;
const NUMBER: u8 = 0;
const TEXT: u8 = 1;
const NUMBER_BYTES: usize = size_of::<i128>();
const LENGTH_BYTES: usize = size_of::<u64>();

/// Why a body of the second wire cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It begins with something else.
    #[error(
        "the body begins with {found:02x?}, expected \"CVP2\": it does not belong to the second \
         wire"
    )]
    Magic {
        /// The first bytes.
        found: [u8; 4],
    },
    /// An unknown version.
    #[error("the body has version {found} of the second wire, expected version 1")]
    Version {
        /// The version.
        found: u8,
    },
    /// An id of an unknown kind, or a number with a length.
    #[error("the id is of kind {kind} with {length} bytes, expected kind 0 with 0 bytes or kind 1")]
    IdKind {
        /// The kind.
        kind: u8,
        /// The length that came with it.
        length: u16,
    },
    /// An id with too many bytes.
    #[error("the id has {length} bytes, expected at most {MAXIMUM_ID_BYTES}")]
    IdLength {
        /// Its bytes.
        length: usize,
    },
    /// A number outside -2^63 to 2^64 - 1, or text that is not UTF-8.
    #[error("the id is {found}")]
    Id {
        /// What is there.
        found: &'static str,
    },
    /// Too many buffers.
    #[error("the message has {count} buffers, expected at most {MAXIMUM_BUFFERS}")]
    Buffers {
        /// How many.
        count: usize,
    },
    /// The body ended inside its head.
    #[error("the body ends after {found} bytes, in the middle of its head of {required} bytes")]
    Short {
        /// Bytes that have arrived.
        found: u64,
        /// Bytes in the head, as far as known.
        required: u64,
    },
    /// The lengths do not add up.
    #[error("head, value and buffers have {announced} bytes together, the body has {total}")]
    Total {
        /// The sum announced by the head; `u64::MAX` if it is 2^64 or more.
        announced: u64,
        /// The length of the body.
        total: u64,
    },
}

/// The first bytes of a body, checked: they say how long the head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    text: bool,
    id_len: usize,
    buffers: usize,
    value_len: u64,
}

impl Prefix {
    /// Reads the prefix of a body of `total` bytes. Looks only at the first [`PREFIX_BYTES`] of
    /// `bytes`.
    pub fn parse(bytes: &[u8], total: u64) -> Result<Self, FrameError> {
        let Some(bytes) = bytes.first_chunk::<PREFIX_BYTES>() else {
            return Err(FrameError::Short {
                found: bytes.len() as u64,
                required: PREFIX_BYTES as u64,
            });
        };
        let [m0, m1, m2, m3, version, kind, l0, l1, c0, c1, c2, c3, value_len @ ..] = *bytes;
        let found = [m0, m1, m2, m3];
        if found != MAGIC {
            return Err(FrameError::Magic { found });
        }
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        let length = u16::from_be_bytes([l0, l1]);
        let (text, id_len) = match (kind, length) {
            (NUMBER, 0) => (false, NUMBER_BYTES),
            (TEXT, length) => (true, usize::from(length)),
            _ => return Err(FrameError::IdKind { kind, length }),
        };
        if id_len > MAXIMUM_ID_BYTES {
            return Err(FrameError::IdLength { length: id_len });
        }
        let count = u32::from_be_bytes([c0, c1, c2, c3]);
        let buffers = usize::try_from(count).unwrap_or(usize::MAX);
        if buffers > MAXIMUM_BUFFERS {
            return Err(FrameError::Buffers { count: buffers });
        }
        let prefix = Self { text, id_len, buffers, value_len: u64::from_be_bytes(value_len) };
        let announced = (prefix.head_len() as u64).saturating_add(prefix.value_len);
        if announced > total {
            return Err(FrameError::Total { announced, total });
        }
        Ok(prefix)
    }

    /// Bytes of the head, including the prefix: at most [`PREFIX_BYTES`], [`MAXIMUM_ID_BYTES`] and
    /// 8 for each of [`MAXIMUM_BUFFERS`].
    pub fn head_len(&self) -> usize {
        PREFIX_BYTES + self.id_len + self.buffers * LENGTH_BYTES
    }
}

/// The beginning of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The message's id.
    pub id: MessageId,
    /// Bytes of the value.
    pub value_len: u64,
    /// Bytes of each buffer.
    pub buffer_lens: Vec<u64>,
}

impl Head {
    /// Reads the head of a body of `total` bytes. `bytes` is the body from its beginning, at least
    /// [`Prefix::head_len`] bytes of it.
    pub fn parse(bytes: &[u8], total: u64) -> Result<Self, FrameError> {
        let prefix = Prefix::parse(bytes, total)?;
        let Some(head) = bytes.get(..prefix.head_len()) else {
            let required = prefix.head_len() as u64;
            return Err(FrameError::Short { found: bytes.len() as u64, required });
        };
        let (id, lengths) = head[PREFIX_BYTES..].split_at(prefix.id_len);
        let id = if prefix.text {
            let text = std::str::from_utf8(id).map_err(|_| FrameError::Id { found: "no UTF-8" })?;
            MessageId::Text(text.into())
        } else {
            let bytes = id.first_chunk().expect("the prefix gave a number 16 bytes");
            MessageId::Int(check_number(i128::from_be_bytes(*bytes))?)
        };
        let (lengths, _) = lengths.as_chunks::<LENGTH_BYTES>();
        let buffer_lens: Vec<u64> = lengths.iter().map(|len| u64::from_be_bytes(*len)).collect();
        let announced = total_len(head.len(), prefix.value_len, &buffer_lens);
        if announced != total {
            return Err(FrameError::Total { announced, total });
        }
        Ok(Self { id, value_len: prefix.value_len, buffer_lens })
    }
}

/// Writes the head that precedes the value and the buffers.
pub fn encode(id: &MessageId, value_len: u64, buffer_lens: &[u64]) -> Result<Bytes, FrameError> {
    let (kind, length, id_len) = match id {
        MessageId::Int(number) => {
            check_number(*number)?;
            (NUMBER, 0, NUMBER_BYTES)
        }
        MessageId::Text(text) => match u16::try_from(text.len()) {
            Ok(length) if text.len() <= MAXIMUM_ID_BYTES => (TEXT, length, text.len()),
            _ => return Err(FrameError::IdLength { length: text.len() }),
        },
    };
    let count = match u32::try_from(buffer_lens.len()) {
        Ok(count) if buffer_lens.len() <= MAXIMUM_BUFFERS => count,
        _ => return Err(FrameError::Buffers { count: buffer_lens.len() }),
    };
    let head_len = PREFIX_BYTES + id_len + buffer_lens.len() * LENGTH_BYTES;
    let announced = total_len(head_len, value_len, buffer_lens);
    if announced == u64::MAX {
        return Err(FrameError::Total { announced, total: u64::MAX });
    }
    let mut head = Vec::with_capacity(head_len);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&[VERSION, kind]);
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(&count.to_be_bytes());
    head.extend_from_slice(&value_len.to_be_bytes());
    match id {
        MessageId::Int(number) => head.extend_from_slice(&number.to_be_bytes()),
        MessageId::Text(text) => head.extend_from_slice(text.as_bytes()),
    }
    for len in buffer_lens {
        head.extend_from_slice(&len.to_be_bytes());
    }
    Ok(head.into())
}

/// The length of a body; `u64::MAX` if it does not fit.
fn total_len(head: usize, value: u64, buffers: &[u64]) -> u64 {
    buffers.iter().fold((head as u64).saturating_add(value), |sum, len| sum.saturating_add(*len))
}

fn check_number(number: i128) -> Result<i128, FrameError> {
    if (i64::MIN.into()..=u64::MAX.into()).contains(&number) {
        Ok(number)
    } else {
        Err(FrameError::Id { found: "a number outside -2^63 to 2^64 - 1" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = MessageId> {
        prop_oneof![
            any::<i64>().prop_map(MessageId::from),
            any::<u64>().prop_map(|number| MessageId::Int(number.into())),
            ".{0,200}".prop_map(|text| MessageId::from(text.as_str())),
        ]
    }

    fn example() -> Vec<u8> {
        encode(&"ab".into(), 3, &[5, 7]).unwrap().to_vec()
    }

    #[test]
    fn layout() {
        let text: &[u8] = b"CVP2\x01\x01\x00\x02\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03ab\
            \x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x07";
        assert_eq!(example(), text);
        let mut number =
            b"CVP2\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec();
        number.extend([0xff; 16]);
        assert_eq!(encode(&(-1).into(), 0, &[]).unwrap(), number);
    }

    #[test]
    fn every_refusal() {
        let total = 38 + 3 + 5 + 7;
        assert!(Head::parse(&example(), total).is_ok());
        let changed = |at: usize, byte: u8| {
            let mut bytes = example();
            bytes[at] = byte;
            Head::parse(&bytes, total).unwrap_err()
        };
        assert_eq!(changed(3, b'3'), FrameError::Magic { found: *b"CVP3" });
        assert_eq!(changed(4, 2), FrameError::Version { found: 2 });
        assert_eq!(changed(5, 2), FrameError::IdKind { kind: 2, length: 2 });
        assert_eq!(changed(5, 0), FrameError::IdKind { kind: 0, length: 2 });
        assert_eq!(changed(6, 4), FrameError::IdLength { length: 1026 });
        assert_eq!(changed(8, 1), FrameError::Buffers { count: (1 << 24) + 2 });
        assert!(matches!(changed(12, 0xff), FrameError::Total { .. }));
        assert!(matches!(changed(19, 4), FrameError::Total { announced: 54, total: 53 }));
        assert_eq!(changed(20, 0xff), FrameError::Id { found: "no UTF-8" });
        assert_eq!(
            changed(22, 0xff),
            FrameError::Total { announced: (0xff << 56) + 53, total: 53 }
        );

        assert_eq!(
            Head::parse(&example()[..19], total),
            Err(FrameError::Short { found: 19, required: 20 })
        );
        assert_eq!(
            Head::parse(&example()[..37], total),
            Err(FrameError::Short { found: 37, required: 38 })
        );
        for other in [0, 37, 52, 54, u64::MAX] {
            assert!(matches!(Head::parse(&example(), other), Err(FrameError::Total { .. })));
        }
    }

    #[test]
    fn sums_beyond_any_length_are_refused() {
        let mut bytes = example();
        bytes[22..38].fill(0xff);
        for total in [53, u64::MAX - 1] {
            let announced = u64::MAX;
            assert_eq!(Head::parse(&bytes, total), Err(FrameError::Total { announced, total }));
        }
        assert!(encode(&0.into(), u64::MAX, &[]).is_err());
        assert!(encode(&0.into(), u64::MAX / 2, &[u64::MAX / 2, 2]).is_err());
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused() {
        for number in [i128::from(i64::MIN) - 1, i128::from(u64::MAX) + 1] {
            assert!(encode(&MessageId::Int(number), 0, &[]).is_err());
            let mut bytes = encode(&0.into(), 0, &[]).unwrap().to_vec();
            bytes[20..36].copy_from_slice(&number.to_be_bytes());
            assert!(matches!(Head::parse(&bytes, 36), Err(FrameError::Id { .. })));
        }
    }

    #[test]
    fn what_is_written_within_the_limits_can_be_read() {
        let longest = "x".repeat(MAXIMUM_ID_BYTES);
        let lens = vec![1; MAXIMUM_BUFFERS];
        let head = encode(&longest.as_str().into(), 0, &lens).unwrap();
        let total = head.len() as u64 + lens.len() as u64;
        assert_eq!(Head::parse(&head, total).unwrap().buffer_lens, lens);

        let longer = format!("{longest}x");
        assert_eq!(
            encode(&longer.as_str().into(), 0, &[]),
            Err(FrameError::IdLength { length: MAXIMUM_ID_BYTES + 1 })
        );
        let more = vec![1; MAXIMUM_BUFFERS + 1];
        assert_eq!(
            encode(&0.into(), 0, &more),
            Err(FrameError::Buffers { count: MAXIMUM_BUFFERS + 1 })
        );
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(
            id in id(),
            value_len in 0..1u64 << 40,
            buffer_lens in vec(0..1u64 << 40, 0..50),
        ) {
            let head = encode(&id, value_len, &buffer_lens).unwrap();
            let total = head.len() as u64 + value_len + buffer_lens.iter().sum::<u64>();
            let prefix = Prefix::parse(&head, total).unwrap();
            prop_assert_eq!(prefix.head_len(), head.len());
            prop_assert_eq!(
                Head::parse(&head, total).unwrap(),
                Head { id, value_len, buffer_lens }
            );
            prop_assert!(Head::parse(&head, total + 1).is_err());
        }

        #[test]
        fn what_is_read_is_written_the_same(mut bytes in vec(any::<u8>(), 0..100)) {
            for (to, from) in bytes.iter_mut().zip(example()).take(8) {
                *to = from;
            }
            let total = bytes.len() as u64;
            if let Ok(head) = Head::parse(&bytes, total) {
                let written = encode(&head.id, head.value_len, &head.buffer_lens).unwrap();
                prop_assert!(bytes.starts_with(&written));
            }
        }
    }
}
