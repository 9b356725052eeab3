//! What travels: a message has an id, a value, and on the second wire separate buffers.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::ReadBuf;

use crate::quota::Charge;

/// A message's name between two parties. `1` and `"1"` are different ids, as in the 4.x line of the
/// replaced package.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageId {
    /// A number, -2^63 to 2^64 - 1 on the compatible wires.
    Int(i128),
    /// A text.
    Text(Arc<str>),
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "'{text}'"),
        }
    }
}

impl From<i64> for MessageId {
    fn from(number: i64) -> Self {
        Self::Int(number.into())
    }
}

impl From<&str> for MessageId {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for MessageId {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// How a message is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// As in the 4.x line of `tno.mpc.communication`: one msgpack map.
    Four,
    /// As in the 5.x line: a msgpack map around a msgpack document.
    Five,
    /// Between our own pools: value and raw buffers, exactly once.
    Two,
}

impl Wire {
    /// The number that the Python side and the header `x-pool-wire` use.
    pub fn number(self) -> u8 {
        match self {
            Self::Two => 2,
            Self::Four => 4,
            Self::Five => 5,
        }
    }
}

/// A message to send: the value as the wire's codec wrote it, in one or more consecutive pieces,
/// and the separate buffers. None of it is copied; it must not change until the message is
/// acknowledged.
#[derive(Clone, Default)]
pub struct Payload {
    /// The pieces of the value.
    pub parts: Vec<Bytes>,
    /// The buffers that the value refers to; only on the second wire.
    pub buffers: Vec<Bytes>,
}

impl Payload {
    /// A value of one piece, without buffers.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { parts: vec![value.into()], buffers: Vec::new() }
    }

    /// Bytes of the value.
    pub fn value_len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Bytes of value and buffers.
    pub fn len(&self) -> usize {
        self.value_len() + self.buffers.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether it is completely empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// Memory that arriving bytes are read into, once, in order.
pub trait Buffer: Send + Sync {
    /// The unfilled part: everything from `from` on. `from` is the number of bytes filled so far.
    fn read_buf(&mut self, from: usize) -> ReadBuf<'_>;

    /// All of it. Called only after all of it has been filled.
    fn filled(&self) -> &[u8];

    /// The owner, for callers that know its type.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// A buffer that may take a while to allocate; `None` if there is none.
pub type Allocation = Pin<Box<dyn Future<Output = Option<Box<dyn Buffer>>> + Send>>;

/// Where large buffers come from. A binding for another language hands out its own objects, so that
/// arriving bytes are read straight into them.
pub trait Allocate: Send + Sync {
    /// A buffer of exactly `len` bytes.
    fn allocate(&self, len: usize) -> Allocation;
}

/// A piece of an arrived message.
pub enum Chunk {
    /// Ordinary memory.
    Bytes(Bytes),
    /// Memory from an [`Allocate`].
    Foreign(Box<dyn Buffer>),
}

impl Chunk {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Foreign(buffer) => buffer.filled(),
        }
    }

    /// The bytes as shared memory, without copying.
    pub fn into_bytes(self) -> Bytes {
        struct Owner(Box<dyn Buffer>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                self.0.filled()
            }
        }
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Foreign(buffer) => Bytes::from_owner(Owner(buffer)),
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.as_slice().len())
    }
}

/// A message that has arrived. It counts against its peer's quota for as long as it lives.
pub struct Incoming {
    /// How it was written.
    pub wire: Wire,
    /// Its id.
    pub id: MessageId,
    /// What holds the value.
    pub value: Chunk,
    /// Where the value is in it.
    pub value_range: Range<usize>,
    /// The separate buffers.
    pub buffers: Vec<Chunk>,
    pub(crate) charge: Option<Charge>,
    pub(crate) order: Order,
}

impl Incoming {
    /// The value as the wire's codec wrote it.
    pub fn value(&self) -> &[u8] {
        self.value.as_slice().get(self.value_range.clone()).unwrap_or_default()
    }

    /// Stops counting it against its peer's quota; its memory is now the caller's business.
    pub fn release(&mut self) {
        self.charge = None;
    }
}

/// A message's place among everything delivered to a mailbox. The default stands for a message
/// that has not been delivered yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(pub(crate) u64);

/// A message that remembers the place it was given.
pub trait Ordered {
    /// Where the place is stored. Only the mailbox writes to it.
    fn order(&mut self) -> &mut Order;
}

impl Ordered for Incoming {
    fn order(&mut self) -> &mut Order {
        &mut self.order
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({}, {} bytes)", self.id, self.value_range.len())
    }
}
