//! An incoming body: read once, into its final place, and resumable after a break.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncRead as _;

use crate::envelope;
use crate::frame;
use crate::limits::OWN_BUFFER_BYTES;
use crate::memory;
use crate::message::{Allocate, Buffer, Chunk, Incoming, MessageId, Order, Wire};
use crate::quota::Charge;
use crate::stream::{self, Carried};

/// A body that cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the connection ended in the middle of a body: {0}")]
    Connection(#[from] io::Error),
    #[error("{0}")]
    Malformed(String),
    #[error("not enough memory for {0} bytes")]
    Memory(u64),
}

/// The part of a body that has arrived.
pub(crate) struct Assembly {
    wire: Wire,
    total: u64,
    received: u64,
    stage: Stage,
    charge: Option<Charge>,
}

enum Stage {
    /// The head of a frame is being read; it grows once its prefix states its length.
    Head { bytes: Vec<u8>, needed: usize },
    /// The value and the buffers.
    Pieces(Pieces),
}

struct Pieces {
    id: Option<MessageId>,
    lengths: VecDeque<u64>,
    current: Option<Piece>,
    done: Vec<Piece>,
}

struct Piece {
    buffer: Box<dyn Buffer>,
    len: usize,
    filled: usize,
    /// From the [`Allocate`], to be handed on as it is.
    own: bool,
}

impl Assembly {
    pub(crate) fn new(wire: Wire, total: u64) -> Self {
        let stage = match wire {
            Wire::Two => Stage::Head { bytes: Vec::new(), needed: frame::PREFIX_BYTES },
            _ => Stage::Pieces(Pieces::new(None, VecDeque::from([total]))),
        };
        Self { wire, total, received: 0, stage, charge: None }
    }

    /// Adds the message's share of the quota.
    pub(crate) fn charged(mut self, charge: Charge) -> Self {
        self.charge = Some(charge);
        self
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whether a body of `total` bytes resumes here.
    pub(crate) fn is_continued(&self, offset: u64, total: u64) -> bool {
        (self.received, self.total) == (offset, total)
    }

    /// Reads on until the body is complete. May be dropped and called again.
    pub(crate) async fn fill(
        &mut self,
        stream: &mut Carried,
        buffered: &mut BytesMut,
        memory: &dyn Allocate,
    ) -> Result<(), BodyError> {
        loop {
            match &mut self.stage {
                Stage::Head { bytes, needed } => {
                    if buffered.is_empty() && stream::read(stream, buffered).await? == 0 {
                        return Err(ended());
                    }
                    let taken = buffered.len().min(*needed - bytes.len());
                    bytes.extend_from_slice(&buffered.split_to(taken));
                    self.received += taken as u64;
                    if bytes.len() == *needed {
                        self.stage = head_read(bytes, self.total)?;
                    }
                }
                Stage::Pieces(pieces) => {
                    let Some(piece) = pieces.reach(memory).await? else { break };
                    let room = piece.len - piece.filled;
                    let mut space = piece.buffer.read_buf(piece.filled);
                    let read = if buffered.is_empty() {
                        let mut space = space.take(room);
                        poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut space)).await?;
                        space.filled().len()
                    } else {
                        let read = buffered.len().min(room);
                        space.put_slice(&buffered[..read]);
                        buffered.advance(read);
                        read
                    };
                    if read == 0 {
                        return Err(ended());
                    }
                    piece.filled += read;
                    self.received += read as u64;
                }
            }
        }
        if self.received == self.total {
            return Ok(());
        }
        Err(BodyError::Malformed("the lengths in the body do not add up to its length".to_owned()))
    }

    /// The message; call it after everything has been read.
    pub(crate) fn finish(self) -> Result<Incoming, BodyError> {
        let incomplete = || BodyError::Malformed("the body is not complete".to_owned());
        let Stage::Pieces(pieces) = self.stage else { return Err(incomplete()) };
        let mut chunks =
            pieces.done.into_iter().map(|piece| memory::chunk(piece.buffer, piece.own));
        let value = chunks.next().ok_or_else(incomplete)?;
        let incoming = match pieces.id {
            Some(id) => second(id, value, chunks.collect()),
            None => compatible(self.wire, value)?,
        };
        Ok(Incoming { charge: self.charge, ..incoming })
    }
}

fn ended() -> BodyError {
    BodyError::Connection(io::ErrorKind::UnexpectedEof.into())
}

/// What to do once this much of a frame's head has arrived.
fn head_read(bytes: &mut Vec<u8>, total: u64) -> Result<Stage, BodyError> {
    let malformed = |error: frame::FrameError| BodyError::Malformed(error.to_string());
    if bytes.len() == frame::PREFIX_BYTES {
        let needed = frame::Prefix::parse(bytes, total).map_err(malformed)?.head_len();
        if needed > bytes.len() {
            return Ok(Stage::Head { bytes: std::mem::take(bytes), needed });
        }
    }
    let head = frame::Head::parse(bytes, total).map_err(malformed)?;
    let lengths = std::iter::once(head.value_len).chain(head.buffer_lens).collect();
    Ok(Stage::Pieces(Pieces::new(Some(head.id), lengths)))
}

impl Pieces {
    fn new(id: Option<MessageId>, lengths: VecDeque<u64>) -> Self {
        Self { id, lengths, current: None, done: Vec::new() }
    }

    /// The piece with room left; `None` if all are full.
    async fn reach(&mut self, memory: &dyn Allocate) -> Result<Option<&mut Piece>, BodyError> {
        loop {
            self.done.extend(self.current.take_if(|piece| piece.filled == piece.len));
            if self.current.is_some() {
                return Ok(self.current.as_mut());
            }
            let Some(len) = self.lengths.front() else { return Ok(None) };
            let len = usize::try_from(*len).map_err(|_| BodyError::Memory(*len))?;
            let own = len >= OWN_BUFFER_BYTES;
            let buffer: Box<dyn Buffer> = if own {
                memory.allocate(len).await.ok_or(BodyError::Memory(len as u64))?
            } else {
                Box::new(vec![0; len])
            };
            self.lengths.pop_front();
            self.current = Some(Piece { buffer, len, filled: 0, own });
        }
    }
}

/// A whole body that is already in memory.
pub(crate) fn parse(wire: Wire, body: Bytes) -> Result<Incoming, BodyError> {
    if wire != Wire::Two {
        return compatible(wire, Chunk::Bytes(body));
    }
    let malformed = |error: frame::FrameError| BodyError::Malformed(error.to_string());
    let total = body.len() as u64;
    let prefix = body.get(..frame::PREFIX_BYTES).unwrap_or(&body);
    let head_len = frame::Prefix::parse(prefix, total).map_err(malformed)?.head_len();
    let head =
        frame::Head::parse(body.get(..head_len).unwrap_or(&body), total).map_err(malformed)?;
    // The head's parser has checked that the lengths add up to that of the body.
    let mut rest = body.slice(head_len..);
    let mut piece = |len: u64| {
        let len = usize::try_from(len).map_or(rest.len(), |len| len.min(rest.len()));
        Chunk::Bytes(rest.split_to(len))
    };
    let value = piece(head.value_len);
    let buffers = head.buffer_lens.iter().map(|len| piece(*len)).collect();
    Ok(second(head.id, value, buffers))
}

fn second(id: MessageId, value: Chunk, buffers: Vec<Chunk>) -> Incoming {
    let value_range = 0..value.as_slice().len();
    Incoming {
        wire: Wire::Two,
        id,
        value,
        value_range,
        buffers,
        charge: None,
        order: Order::default(),
    }
}

fn compatible(wire: Wire, value: Chunk) -> Result<Incoming, BodyError> {
    let parsed = envelope::parse(value.as_slice(), wire)
        .map_err(|error| BodyError::Malformed(error.to_string()))?;
    let (id, value_range) = (parsed.id, parsed.value);
    let order = Order::default();
    Ok(Incoming { wire, id, value, value_range, buffers: Vec::new(), charge: None, order })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::memory::Ordinary;

    /// The result of a future that does not wait.
    pub(crate) fn complete<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    /// Delivers some bytes; returns whether the body is complete.
    pub(crate) fn feed(assembly: &mut Assembly, bytes: &[u8]) -> bool {
        let mut nothing: Carried = Box::new(tokio::io::empty());
        let mut buffered = BytesMut::from(bytes);
        match complete(assembly.fill(&mut nothing, &mut buffered, &Ordinary)) {
            Some(Ok(())) => true,
            Some(Err(BodyError::Connection(_))) => false,
            other => panic!("{other:?}"),
        }
    }
}
