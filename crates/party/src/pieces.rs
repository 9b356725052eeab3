//! A set in the pieces that are sent; the next are made while others are on their way.

use std::ops::Range;
use std::sync::Arc;

use convelo_psi::{PSEUDONYM_BYTES, PseudonymSet};
use convelo_wire::Bytes;
use convelo_wire::limits::MAXIMUM_CHUNK_BYTES;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::limits::CHUNKS_IN_FLIGHT;

/// Keys in a piece; the last one may have fewer.
pub(crate) const PIECE_KEYS: usize = MAXIMUM_CHUNK_BYTES / PSEUDONYM_BYTES;

/// The pieces of the pseudonyms of these ranks.
pub(crate) struct Pieces {
    set: Arc<PseudonymSet>,
    ranks: Range<usize>,
    number: u64,
    present: Option<Bytes>,
    /// None for a small set: its pieces are made when they are due, sooner than a thread could have
    /// been woken.
    made: Option<mpsc::Receiver<std::io::Result<Vec<u8>>>>,
}

impl Pieces {
    pub(crate) fn of(set: &Arc<PseudonymSet>, ranks: Range<usize>) -> Self {
        let made = (!set.is_small()).then(|| chunks(set, ranks.clone(), 0));
        Self { set: Arc::clone(set), ranks, number: 0, present: None, made }
    }

    /// The piece with this number; nothing after the last.
    pub(crate) async fn number(&mut self, number: u64) -> Result<Option<Bytes>, Error> {
        if number == self.number + 1 && self.present.is_some() {
            (self.number, self.present) = (number, None);
        } else if number != self.number {
            (self.number, self.present) = (number, None);
            if let Some(made) = &mut self.made {
                *made = chunks(&self.set, self.ranks.clone(), number);
            }
        }
        if self.present.is_none() {
            let made = if let Some(made) = &mut self.made {
                made.recv().await
            } else {
                let ranks = from_piece(&self.ranks, number);
                self.set.chunks_of(ranks, MAXIMUM_CHUNK_BYTES).next()
            };
            let made = made.transpose();
            self.present = made.map_err(Error::spill)?.map(Bytes::from);
        }
        Ok(self.present.clone())
    }
}

/// The digest of what will be sent, computed where it holds nobody up.
pub(crate) async fn blake3(
    set: &Arc<PseudonymSet>,
    ranks: Range<usize>,
) -> Result<[u8; 32], Error> {
    if set.is_small() {
        return set.blake3_of(ranks).map_err(Error::spill);
    }
    let set = Arc::clone(set);
    let hashed = tokio::task::spawn_blocking(move || set.blake3_of(ranks)).await?;
    hashed.map_err(Error::spill)
}

/// Makes the pieces of the pseudonyms of these ranks, starting at one. Nobody waits for the thread
/// that does this: it ends when nobody takes its pieces.
fn chunks(
    set: &Arc<PseudonymSet>,
    ranks: Range<usize>,
    from: u64,
) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (made, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let (set, ranks) = (Arc::clone(set), from_piece(&ranks, from));
    tokio::task::spawn_blocking(move || {
        for chunk in set.chunks_of(ranks, MAXIMUM_CHUNK_BYTES) {
            if made.blocking_send(chunk).is_err() {
                break;
            }
        }
    });
    chunks
}

/// The part of these ranks that is in the piece with this number or after it. Pieces are as large
/// as a message may be; whatever precedes the first is not even read.
fn from_piece(ranks: &Range<usize>, number: u64) -> Range<usize> {
    let skipped = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(PIECE_KEYS);
    ranks.start.saturating_add(skipped).min(ranks.end)..ranks.end
}
