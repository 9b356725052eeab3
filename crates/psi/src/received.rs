//! Sets of pseudonyms, as the service receives them.

use std::fmt;

use crate::engine::{BLOCK, Blocks, PADDING, halves_of, wipe_stack};
use crate::keys::{PSEUDONYM_BYTES, Pseudonym};

/// Receives a set, in its wire form, whose size the sender has declared.
///
/// Memory is 16 bytes per pseudonym, claimed as it is filled; nothing is moved. The caller of
/// [`SetReceiver::new`] has compared the declared size with the job's cap and its own budget. How a
/// chunk is processed depends only on its length, until all of it has been examined. Wiped when
/// dropped.
pub struct SetReceiver {
    /// Made when they are claimed, or when the first piece arrives.
    blocks: Option<Blocks>,
    received: usize,
    declared: u64,
    hash: Box<blake3::Hasher>,
    broken: bool,
}

/// Why what a party sent is not the set that it declared. Never contains a pseudonym.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A chunk is empty or ends inside a pseudonym.
    #[error(
        "a chunk of {bytes} bytes arrived, expected a multiple of 16 above zero: the sender's \
         encoding is wrong"
    )]
    ChunkLength {
        /// Bytes in the chunk.
        bytes: usize,
    },
    /// More pseudonyms than declared.
    #[error(
        "at least {received} pseudonyms arrived, expected {declared} as declared: the sender must \
         declare the size of its set"
    )]
    TooMany {
        /// What the sender declared.
        declared: u64,
        /// How many there would be with the chunk that was refused.
        received: u64,
    },
    /// Fewer pseudonyms than declared when the sender said it was done.
    #[error(
        "{received} pseudonyms arrived, expected {declared} as declared: the upload is incomplete"
    )]
    TooFew {
        /// What the sender declared.
        declared: u64,
        /// What arrived.
        received: u64,
    },
    /// Not strictly ascending.
    #[error(
        "pseudonyms are not strictly ascending within the first {received}: the sender must \
         sort them and remove repetitions"
    )]
    Unsorted {
        /// How many had arrived by then.
        received: u64,
    },
    /// A pseudonym equals the number that stands for none in the service's memory.
    #[error("the pseudonym ff..ff is reserved: agree on a new job key, that is, run the job again")]
    Reserved,
    /// There is no memory for a set of the declared size.
    #[error("there is no memory for the {declared} pseudonyms that were declared")]
    Memory {
        /// What the sender declared.
        declared: u64,
    },
    /// More of a set arrived after it had been refused.
    #[error("this set was refused already: begin a new upload")]
    Refused,
}

/// Words of stack, 16 KiB, wiped after each piece.
const STACK: usize = 2 << 10;

impl SetReceiver {
    /// Expects a set of exactly `declared` pseudonyms.
    pub fn new(declared: u64) -> Self {
        Self { blocks: None, received: 0, declared, hash: Box::default(), broken: false }
    }

    /// Has the system set memory for the declared set aside, so that none of it is refused later.
    ///
    /// # Errors
    /// [`SetError::Memory`] if it is refused now.
    pub fn claim(&mut self) -> Result<(), SetError> {
        if self.blocks.is_none() && self.declared > 0 {
            let blocks = Blocks::try_new(self.declared);
            self.blocks = Some(blocks.ok_or(SetError::Memory { declared: self.declared })?);
        }
        Ok(())
    }

    /// Takes the next piece of the wire form, which may end after any whole number of pseudonyms.
    ///
    /// # Errors
    /// If the piece does not continue a strictly ascending set of the declared size. The set is
    /// refused from then on, and wiped.
    pub fn push_chunk(&mut self, bytes: &[u8]) -> Result<(), SetError> {
        if self.broken {
            return Err(SetError::Refused);
        }
        let result = self.append(bytes);
        wipe_stack::<STACK>();
        if result.is_err() {
            self.broken = true;
            self.blocks = None;
        }
        result
    }

    /// Number of pseudonyms received so far.
    pub fn received(&self) -> u64 {
        self.received as u64
    }

    /// Number of pseudonyms declared.
    pub fn declared(&self) -> u64 {
        self.declared
    }

    /// BLAKE3 over everything received so far.
    pub fn blake3(&self) -> [u8; 32] {
        self.hash.finalize().into()
    }

    /// The set, complete.
    ///
    /// # Errors
    /// If fewer pseudonyms than declared have arrived or a piece was refused.
    pub fn finish(self) -> Result<ReceivedSet, SetError> {
        if self.broken {
            return Err(SetError::Refused);
        }
        let received = self.received();
        if received < self.declared {
            return Err(SetError::TooFew { declared: self.declared, received });
        }
        let blake3 = self.blake3();
        Ok(ReceivedSet { blocks: self.blocks, len: self.received, blake3 })
    }

    #[inline(never)]
    fn append(&mut self, bytes: &[u8]) -> Result<(), SetError> {
        let (chunk, rest) = bytes.as_chunks::<PSEUDONYM_BYTES>();
        if chunk.is_empty() || !rest.is_empty() {
            return Err(SetError::ChunkLength { bytes: bytes.len() });
        }
        let received = self.received() + chunk.len() as u64;
        if received > self.declared {
            return Err(SetError::TooMany { declared: self.declared, received });
        }
        // Not lazily: what is examined must not depend on what was found before.
        let mut ascending = u8::from(true);
        let mut at = self.received;
        // Not a field: moving this value would leave a copy behind.
        let before = at.checked_sub(1);
        self.claim()?;
        let Some(blocks) = &mut self.blocks else {
            return Err(SetError::TooMany { declared: self.declared, received });
        };
        let mut last = before.map_or(0, |at| blocks.get(at));
        let mut rest = chunk;
        while !rest.is_empty() {
            let [high, low] = blocks.block_mut(at / BLOCK);
            let (now, later) = rest.split_at(rest.len().min(BLOCK - at % BLOCK));
            let room = high[at % BLOCK..].iter_mut().zip(&mut low[at % BLOCK..]);
            for ((high, low), value) in room.zip(now) {
                let value = u128::from_be_bytes(*value);
                ascending &= u8::from(at == 0) | u8::from(last < value);
                last = value;
                [*high, *low] = halves_of(value);
                at += 1;
            }
            rest = later;
        }
        self.received = at;
        if ascending == 0 {
            return Err(SetError::Unsorted { received });
        }
        if last == PADDING {
            return Err(SetError::Reserved);
        }
        self.hash.update(bytes);
        Ok(())
    }
}

impl fmt::Debug for SetReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetReceiver")
            .field("received", &self.received())
            .field("declared", &self.declared)
            .finish_non_exhaustive()
    }
}

/// A strictly ascending sequence of pseudonyms, in the blocks in which it is joined. Wiped when
/// dropped.
pub struct ReceivedSet {
    /// None for an empty set.
    blocks: Option<Blocks>,
    len: usize,
    blake3: [u8; 32],
}

impl ReceivedSet {
    /// Number of pseudonyms.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// BLAKE3 over the wire form.
    pub fn blake3(&self) -> [u8; 32] {
        self.blake3
    }

    /// The pseudonyms in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Pseudonym> + '_ {
        let places =
            self.blocks.iter().flat_map(|blocks| (0..self.len).map(move |at| (blocks, at)));
        places.map(|(blocks, at)| blocks.get(at).into())
    }

    pub(crate) fn into_blocks(self) -> Option<Blocks> {
        self.blocks
    }
}

impl fmt::Debug for ReceivedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedSet").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A set that arrived in one piece.
#[cfg(test)]
pub(crate) fn received(values: impl IntoIterator<Item = u128>) -> ReceivedSet {
    let bytes: Vec<u8> = values.into_iter().flat_map(u128::to_be_bytes).collect();
    let mut receiver = SetReceiver::new((bytes.len() / PSEUDONYM_BYTES) as u64);
    if !bytes.is_empty() {
        receiver.push_chunk(&bytes).expect("ascending");
    }
    receiver.finish().expect("complete")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn receiver_of_an_empty_set() {
        let set = SetReceiver::new(0).finish().expect("empty is ordinary");
        assert!(set.is_empty());
        assert_eq!(set.blake3(), *blake3::hash(b"").as_bytes());
    }

    #[test]
    fn receiver_refuses_odd_and_empty_chunks() {
        for length in [0, 1, 15, 17] {
            let error = SetReceiver::new(9).push_chunk(&vec![1; length]).unwrap_err();
            assert_eq!(error, SetError::ChunkLength { bytes: length });
        }
    }

    #[test]
    fn receiver_refuses_disorder_within_and_across_chunks() {
        let bytes = |value: u128| value.to_be_bytes();
        let mut within = SetReceiver::new(3);
        assert_eq!(
            within.push_chunk(&[bytes(2), bytes(2)].concat()),
            Err(SetError::Unsorted { received: 2 })
        );
        assert_eq!(within.push_chunk(&bytes(7)), Err(SetError::Refused));
        assert_eq!(within.finish().err(), Some(SetError::Refused));

        let mut across = SetReceiver::new(3);
        across.push_chunk(&[bytes(2), bytes(9)].concat()).expect("ascending");
        assert_eq!(across.push_chunk(&bytes(5)), Err(SetError::Unsorted { received: 3 }));
    }

    #[test]
    fn receiver_refuses_more_and_less_than_declared() {
        let mut receiver = SetReceiver::new(1);
        let two = [1u128.to_be_bytes(), 2u128.to_be_bytes()].concat();
        assert_eq!(receiver.push_chunk(&two), Err(SetError::TooMany { declared: 1, received: 2 }));

        let mut receiver = SetReceiver::new(3);
        receiver.push_chunk(&two).expect("ascending");
        assert_eq!(receiver.finish().err(), Some(SetError::TooFew { declared: 3, received: 2 }));
    }

    #[test]
    fn declaring_alone_reserves_nothing() {
        let receiver = SetReceiver::new(u64::MAX);
        assert!(receiver.blocks.is_none());
    }

    #[test]
    fn more_than_there_is() {
        let mut receiver = SetReceiver::new(1 << 50);
        assert_eq!(receiver.claim(), Err(SetError::Memory { declared: 1 << 50 }));
        let error = receiver.push_chunk(&1u128.to_be_bytes()).unwrap_err();
        assert_eq!(error, SetError::Memory { declared: 1 << 50 });
    }

    #[test]
    fn receiver_memory_is_bounded_by_the_declared_size() {
        let mut receiver = SetReceiver::new(1000);
        for value in 0u128..1000 {
            receiver.push_chunk(&value.to_be_bytes()).expect("ascending");
            assert_eq!(receiver.blocks.as_ref().map(Blocks::begun), Some(1));
        }
    }

    #[test]
    fn the_number_that_stands_for_none() {
        let mut receiver = SetReceiver::new(2);
        let last = [u128::MAX - 1, u128::MAX].map(u128::to_be_bytes).concat();
        assert_eq!(receiver.push_chunk(&last), Err(SetError::Reserved));
    }

    #[test]
    fn debug_shows_no_pseudonym() {
        assert_eq!(format!("{:?}", received([0xdead_beef])), "ReceivedSet { len: 1, .. }");
    }

    proptest! {
        #[test]
        fn receiver_takes_any_chunking(
            values in proptest::collection::btree_set(0..u128::MAX, 0..200),
            cuts in proptest::collection::vec(1usize..40, 1..60),
        ) {
            let bytes: Vec<u8> = values.iter().copied().flat_map(u128::to_be_bytes).collect();
            let mut receiver = SetReceiver::new(values.len() as u64);
            let mut rest = &bytes[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let cut = (cuts.next().expect("cycle") * 16).min(rest.len());
                receiver.push_chunk(&rest[..cut]).unwrap();
                rest = &rest[cut..];
            }
            let received = receiver.finish().unwrap();
            prop_assert!(received.iter().map(Pseudonym::to_u128).eq(values));
            prop_assert_eq!(received.blake3(), *blake3::hash(&bytes).as_bytes());
        }
    }
}
