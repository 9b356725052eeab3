//! A connection, plain or under TLS.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use crate::limits::COALESCE_BYTES;

/// What a connection runs over: TCP, or TLS on top of it from either end.
pub(crate) type Carried = Box<dyn Duplex>;

/// Bytes in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Bytes waiting to be written: small pieces joined, large ones as they are.
#[derive(Default)]
pub(crate) struct Out {
    pieces: VecDeque<Bytes>,
    small: BytesMut,
    /// Written, but possibly still inside the TLS session.
    unflushed: bool,
}

impl Out {
    /// The buffer for heads and small bodies.
    pub(crate) fn small(&mut self) -> &mut BytesMut {
        &mut self.small
    }

    pub(crate) fn push(&mut self, piece: &Bytes) {
        if piece.len() < COALESCE_BYTES {
            self.small.extend_from_slice(piece);
        } else {
            self.seal();
            self.pieces.push_back(piece.clone());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.small.is_empty() && !self.unflushed
    }

    /// Whether more requests can be added without delaying those already in it for long.
    pub(crate) fn is_light(&self) -> bool {
        self.pieces.is_empty() && self.small.len() < COALESCE_BYTES
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }

    fn poll_write(&mut self, stream: &mut Carried, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.seal();
        let mut wrote = false;
        while let Some(piece) = self.pieces.front_mut() {
            match Pin::new(&mut *stream).poll_write(cx, piece) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    wrote = true;
                    self.unflushed = true;
                    piece.advance(written);
                    if piece.is_empty() {
                        self.pieces.pop_front();
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return if wrote { Poll::Ready(Ok(true)) } else { Poll::Pending },
            }
        }
        if self.unflushed {
            match Pin::new(stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return if wrote { Poll::Ready(Ok(true)) } else { Poll::Pending },
            }
        }
        Poll::Ready(Ok(wrote))
    }
}

/// What moved on a connection.
pub(crate) enum Moved {
    /// Bytes arrived; 0 at the end.
    Read(usize),
    /// Bytes were written.
    Wrote,
}

/// Waits until something moves in either direction. Dropping the future loses nothing.
pub(crate) async fn exchange(
    stream: &mut Carried,
    out: &mut Out,
    into: &mut BytesMut,
) -> io::Result<Moved> {
    into.reserve(16 << 10);
    poll_fn(|cx| {
        if !out.is_empty() {
            match out.poll_write(stream, cx) {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(Moved::Wrote)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(false)) | Poll::Pending => {}
            }
        }
        poll_read(stream, into, cx).map_ok(Moved::Read)
    })
    .await
}

/// Writes everything.
pub(crate) async fn flush(stream: &mut Carried, out: &mut Out) -> io::Result<()> {
    while !out.is_empty() {
        poll_fn(|cx| out.poll_write(stream, cx)).await?;
    }
    Ok(())
}

/// Reads some bytes after those already there; 0 at the end.
pub(crate) async fn read(stream: &mut Carried, into: &mut BytesMut) -> io::Result<usize> {
    into.reserve(16 << 10);
    poll_fn(|cx| poll_read(stream, into, cx)).await
}

fn poll_read(
    stream: &mut Carried,
    into: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    // The future is stateless: dropping it after one poll loses nothing.
    pin!(stream.read_buf(into)).poll(cx)
}

#[cfg(test)]
impl Out {
    /// What would be written next, up to this many bytes.
    pub(crate) fn drain(&mut self, most: usize) -> BytesMut {
        self.seal();
        let mut drained = BytesMut::new();
        while let Some(piece) = self.pieces.front_mut() {
            let taken = piece.len().min(most - drained.len());
            drained.extend_from_slice(&piece.split_to(taken));
            if !piece.is_empty() {
                break;
            }
            self.pieces.pop_front();
        }
        drained
    }
}
