//! What every message begins with, so that none counts in another place.

use thiserror::Error;

/// Bytes that say which session, kind and number a message is of.
pub(crate) const PLACE_BYTES: usize = 16;

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It has another length than its place in the session gives it.
    #[error("the message has {found} bytes, expected {expected}")]
    Length {
        /// Bytes that it has.
        found: usize,
        /// Bytes that it should have.
        expected: usize,
    },
    /// It is of another session, another kind or another number.
    #[error("the message belongs to another session, or to another place in this one")]
    Place,
}

/// The places of a session's messages.
#[derive(Clone)]
pub(crate) struct Places {
    sid: [u8; 32],
}

impl Places {
    /// Those of the session with this identifier, which is never used twice.
    pub(crate) fn new(sid: [u8; 32]) -> Self {
        Self { sid }
    }

    /// The beginning of a message, with room for so many bytes more.
    pub(crate) fn begin(&self, kind: &str, number: usize, bytes: usize) -> Vec<u8> {
        let mut message = Vec::with_capacity(PLACE_BYTES + bytes);
        message.extend(self.place(kind, number));
        message
    }

    /// What stands behind the beginning of a message that has its place and length.
    pub(crate) fn open<'m>(
        &self,
        kind: &str,
        number: usize,
        bytes: usize,
        message: &'m [u8],
    ) -> Result<&'m [u8], MessageError> {
        let expected = PLACE_BYTES + bytes;
        if message.len() != expected {
            return Err(MessageError::Length { found: message.len(), expected });
        }
        let (place, content) = message.split_at(PLACE_BYTES);
        if place == self.place(kind, number) { Ok(content) } else { Err(MessageError::Place) }
    }

    fn place(&self, kind: &str, number: usize) -> [u8; PLACE_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.sid);
        hasher.update(&(number as u64).to_le_bytes()).update(kind.as_bytes());
        let mut place = [0; PLACE_BYTES];
        hasher.finalize_xof().fill(&mut place);
        place
    }
}

/// How many numbered messages carry so many things, if each carries so many at most.
pub(crate) fn chunks(things: usize, each: usize) -> usize {
    things.div_ceil(each)
}

/// Which things the message with this number carries.
pub(crate) fn chunk(number: usize, things: usize, each: usize) -> std::ops::Range<usize> {
    number * each..((number + 1) * each).min(things)
}
