//! Memory for arriving bytes: ordinary for small pieces, huge pages for large ones.

use std::any::Any;
use std::future::ready;

use bytes::Bytes;
use memmap2::{Advice, MmapMut};
use tokio::io::ReadBuf;

use crate::limits::HUGE_PAGE_BYTES;
use crate::message::{Allocate, Allocation, Buffer, Chunk};

/// This process's own memory, available immediately.
pub(crate) struct Ordinary;

impl Allocate for Ordinary {
    fn allocate(&self, len: usize) -> Allocation {
        Box::pin(ready(buffer(len)))
    }
}

fn buffer(len: usize) -> Option<Box<dyn Buffer>> {
    if len < HUGE_PAGE_BYTES {
        return Some(Box::new(vec![0; len]));
    }
    let map = MmapMut::map_anon(len).ok()?;
    // Advice only: it also works without huge pages, just slower.
    let _ = map.advise(Advice::HugePage);
    Some(Box::new(map))
}

impl Buffer for Vec<u8> {
    fn read_buf(&mut self, from: usize) -> ReadBuf<'_> {
        ReadBuf::new(self.get_mut(from..).unwrap_or_default())
    }

    fn filled(&self) -> &[u8] {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl Buffer for MmapMut {
    fn read_buf(&mut self, from: usize) -> ReadBuf<'_> {
        ReadBuf::new(self.get_mut(from..).unwrap_or_default())
    }

    fn filled(&self) -> &[u8] {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// A filled buffer as a piece of a message.
pub(crate) fn chunk(buffer: Box<dyn Buffer>, own: bool) -> Chunk {
    if own {
        return Chunk::Foreign(buffer);
    }
    match buffer.into_any().downcast::<Vec<u8>>() {
        Ok(vector) => Chunk::Bytes(Bytes::from(*vector)),
        Err(_) => Chunk::Bytes(Bytes::new()),
    }
}
