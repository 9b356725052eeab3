//! Intersection of two parties' sets from vector oblivious linear evaluation (VOLE-PSI).
//!
//! The protocol of Raghuraman and Rindal, "Blazing Fast PSI from Improved OKVS and Subfield VOLE"
//! (CCS 2022, eprint 2022/320), section 5, on [`crate::vole`] and [`crate::okvs`]. **Both parties
//! are assumed to follow it** (semi-honest). The receiver has items X, the sender items Y:
//!
//! 1. By VOLE, the receiver has vectors A and C, the sender Delta and B, with C = A Delta + B.
//! 2. The receiver encodes its items: P is a table in which each x has the value HB(x). It sends
//!    P + A, which is uniformly random to the sender.
//! 3. The sender has B' = B + (P + A) Delta = C + P Delta. For each of its items it makes the tag
//!    HO(B'(y) + HB(y) Delta), where B'(y) is what y decodes to, and sends all tags, sorted. For an
//!    item of the receiver's that is HO(C(y)); for any other it is a hash of something that is
//!    uniformly random to the receiver, because Delta is.
//! 4. The receiver compares the tags with HO(C(x)) of its own items. If the sender learns the
//!    result too, the receiver returns one bit for each of the sender's tags.
//!
//! | message | from | holds | the other side learns |
//! |---|---|---|---|
//! | choice, answer, trees | both | those of [`crate::vole`] | nothing |
//! | masked | receiver | two seeds; P + A, part by part | nothing beside the agreed size |
//! | tags | sender | the sender's tags, sorted | which of its items the sender has |
//! | matches | receiver | one bit for each tag | which of its items the receiver has |
//!
//! HB(x) and HO(v) are AES_k(x) + x under two keys that follow from the session and the receiver's
//! second seed (Matyas, Meyer and Oseas); they are modelled as random functions, in the ideal cipher
//! model. Both seeds are chosen after the items are fixed: a peer that knew them before could choose
//! items whose encoding fails, and tell from a failure whether others have them.

use std::collections::VecDeque;
use std::ops::Range;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use convelo_psi::{Bitmap, BitmapError};
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::gf128::{self, Gf128};
use crate::message::{MessageError, Places, chunk, chunks};
use crate::okvs::{self, DecodeError, EncodeError, Parameters, Rows, TooMany};
use crate::tags::{self, MAXIMUM_ITEMS, TagLength, Tagged};
use crate::vole::{self, Hybrid};

/// Bytes of the receiver's two seeds.
const SEED_BYTES: usize = 32;

/// Tags of a message.
const TAGS_EACH: usize = 1 << 16;

/// Values that are hashed at once.
const BATCH: usize = 64;

const MASKED: &str = "masked";
const TAGS: &str = "tags";
const MATCHES: &str = "matches";

/// What both parties must agree on before the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Hashed from all that the session is bound to; never used twice.
    pub sid: [u8; 32],
    /// How many items the receiver has, which the sender learns.
    pub receiver_items: usize,
    /// How many items the sender has, which the receiver learns.
    pub sender_items: usize,
    /// How the base transfers are protected.
    pub hybrid: Hybrid,
    /// Whether the receiver tells the sender which of its items are in the intersection.
    pub both_learn: bool,
}

/// Why a run cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// There are more items than the protocol is made for.
    #[error("a set of {0} items: there can be {MAXIMUM_ITEMS}")]
    Size(usize),
    /// There are not as many items as agreed.
    #[error("{found} items, and {agreed} were agreed on")]
    Items {
        /// How many there are.
        found: usize,
        /// How many there should be.
        agreed: usize,
    },
    /// A message was refused.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message of the VOLE was refused.
    #[error(transparent)]
    Vole(#[from] vole::Error),
    /// The receiver's items could not be encoded.
    #[error("the items cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// The sender's tags are not in order, or there are equal ones.
    #[error("the tags are not strictly ascending, from number {0} on")]
    Order(usize),
    /// What the receiver returns is not one bit for each tag.
    #[error(transparent)]
    Matches(#[from] BitmapError),
    /// A message after the last one.
    #[error("a message after the last one")]
    Complete,
}

impl From<TooMany> for Error {
    fn from(error: TooMany) -> Self {
        Self::Size(error.items)
    }
}

impl Session {
    fn places(&self) -> Places {
        Places::new(blake3::derive_key("convelo vole-psi messages", &self.sid))
    }

    fn parameters(&self) -> Result<Parameters, Error> {
        for items in [self.receiver_items, self.sender_items] {
            if items > MAXIMUM_ITEMS {
                return Err(Error::Size(items));
            }
        }
        Ok(Parameters::for_items(self.receiver_items)?)
    }

    fn vole(&self, parameters: &Parameters) -> vole::Session {
        let sid = blake3::derive_key("convelo vole-psi correlation", &self.sid);
        vole::Session { sid, outputs: parameters.size(), hybrid: self.hybrid }
    }

    fn tags(&self) -> TagLength {
        TagLength::of(self.receiver_items, self.sender_items)
    }

    fn check(items: &[u128], agreed: usize) -> Result<(), Error> {
        if items.len() == agreed {
            return Ok(());
        }
        Err(Error::Items { found: items.len(), agreed })
    }
}

/// HB and HO.
struct Hashes {
    items: Aes128,
    tags: Aes128,
}

impl Hashes {
    fn new(sid: &[u8; 32], seed: &[u8]) -> Self {
        let key = |what: &str| {
            let mut hasher = blake3::Hasher::new_keyed(sid);
            hasher.update(seed).update(what.as_bytes());
            let mut key = [0; 16];
            hasher.finalize_xof().fill(&mut key);
            Aes128::new(&key.into())
        };
        Self { items: key("items"), tags: key("tags") }
    }
}

/// AES_k(v) + v of each value, in its place.
fn hash_each(aes: &Aes128, values: &mut [u128]) {
    let mut blocks = [[0; 16]; BATCH];
    for values in values.chunks_mut(BATCH) {
        let blocks = &mut blocks[..values.len()];
        for (block, value) in blocks.iter_mut().zip(&*values) {
            *block = value.to_le_bytes();
        }
        aes.encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
        for (value, block) in values.iter_mut().zip(&*blocks) {
            *value ^= u128::from_le_bytes(*block);
        }
    }
}

/// A vector of which parts arrive in order, and leave bin by bin.
struct Bins {
    parameters: Parameters,
    /// What has arrived and does not make a bin.
    entries: Zeroizing<Vec<Gf128>>,
    /// The first bin of them.
    next: usize,
}

impl Bins {
    fn new(parameters: Parameters) -> Self {
        Self { parameters, entries: Zeroizing::default(), next: 0 }
    }

    /// Takes the next part, and appends to `decoded` the rows of all bins that are complete. Returns
    /// the range of these rows.
    fn take(
        &mut self,
        part: &[Gf128],
        rows: &Rows,
        decoded: &mut Vec<Gf128>,
    ) -> Result<Range<usize>, DecodeError> {
        self.entries.extend_from_slice(part);
        let complete = self.entries.len() / self.parameters.bin_size();
        let bins = self.next..self.next + complete;
        let range = rows.range(&bins);
        let entries = complete * self.parameters.bin_size();
        decoded.resize(range.len(), Gf128::ZERO);
        rows.decode_bins(bins, &self.entries[..entries], decoded)?;
        self.entries.drain(..entries);
        self.next += complete;
        Ok(range)
    }
}

/// Appends the tags of decoded values, in the order of rows.
fn append_tags(
    values: &mut [Gf128],
    items: &[u32],
    hashes: &Hashes,
    length: TagLength,
    tags: &mut Vec<Tagged>,
) {
    let values = bytemuck::cast_slice_mut::<_, u128>(values);
    hash_each(&hashes.tags, values);
    tags.extend(values.iter().zip(items).map(|(hash, item)| length.tag(*hash, *item as usize)));
}

/// The receiver, which waits for the sender's choice.
pub struct ReceiverStart {
    session: Session,
    parameters: Parameters,
    items: Zeroizing<Vec<u128>>,
}

/// The receiver, which reads trees and masks its table.
pub struct Receiver {
    session: Session,
    vole: vole::Receiver,
    rows: Rows,
    hashes: Hashes,
    seeds: [u8; SEED_BYTES],
    table: Zeroizing<Vec<Gf128>>,
    masked: usize,
    number: usize,
    bins: Bins,
    tags: Vec<Tagged>,
}

/// The receiver, which has masked its table and reads tags.
pub struct ReceiverTags {
    session: Session,
    own: Vec<Tagged>,
    number: usize,
    /// The last tag, of which the next one must be larger.
    last: Option<Tagged>,
    /// The first of its own tags that is not smaller.
    at: usize,
    marks: Bitmap,
    /// Of the sender's tags.
    matches: Bitmap,
}

impl ReceiverStart {
    /// A receiver with these items, all of which are different.
    ///
    /// # Errors
    /// If there are not as many as agreed, or too many.
    pub fn new(session: Session, items: Zeroizing<Vec<u128>>) -> Result<Self, Error> {
        let parameters = session.parameters()?;
        Session::check(&items, session.receiver_items)?;
        Ok(Self { session, parameters, items })
    }

    /// Reads the sender's choice, and makes the answer.
    ///
    /// # Errors
    /// If the choice is refused, or the items cannot be encoded.
    pub fn choice(
        self,
        choice: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Receiver, Vec<u8>), Error> {
        let Self { session, parameters, items } = self;
        let (vole, answer) = vole::Receiver::new(session.vole(&parameters), choice, rng)?;
        let mut seeds = [0; SEED_BYTES];
        rng.fill_bytes(&mut seeds);
        let (seed, of_hashes) = seeds.split_at(SEED_BYTES / 2);
        let hashes = Hashes::new(&session.sid, of_hashes);
        let seed: okvs::Seed = seed.try_into().expect("half of them");
        let rows = Rows::new(&parameters, &seed, &items)?;
        let mut values = items;
        hash_each(&hashes.items, &mut values);
        let table = rows.encode(bytemuck::cast_slice::<_, Gf128>(&values), rng)?;
        drop(values);
        let receiver = Receiver {
            session,
            vole,
            hashes,
            seeds,
            table: Zeroizing::new(table),
            masked: 0,
            number: 0,
            bins: Bins::new(parameters),
            tags: Vec::with_capacity(rows.len()),
            rows,
        };
        Ok((receiver, answer))
    }
}

impl Receiver {
    /// How many messages with trees are still to be read.
    pub fn remaining(&self) -> usize {
        self.vole.remaining()
    }

    /// Reads the sender's next trees, and makes the next part of the masked table.
    ///
    /// # Errors
    /// If the message is refused.
    pub fn trees(&mut self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let vole::Part { mut a, mut c } = self.vole.read(message)?;
        let places = self.session.places();
        let mut masked = places.begin(MASKED, self.number, SEED_BYTES + 16 * a.len());
        if self.number == 0 {
            masked.extend(self.seeds);
        }
        let table = &self.table[self.masked..][..a.len()];
        for (a, entry) in a.iter_mut().zip(table) {
            *a += *entry;
        }
        masked.extend_from_slice(bytemuck::cast_slice(&a));
        self.number += 1;
        self.masked += a.len();
        let range = self.bins.take(&c, &self.rows, &mut a).expect("bins of this table");
        append_tags(
            &mut a,
            &self.rows.items()[range],
            &self.hashes,
            self.session.tags(),
            &mut self.tags,
        );
        a.zeroize();
        c.zeroize();
        Ok(masked)
    }

    /// Goes on to the tags, once all trees are read.
    ///
    /// # Errors
    /// The receiver as it was, if they are not.
    pub fn masked(self) -> Result<ReceiverTags, Box<Self>> {
        if self.remaining() > 0 {
            return Err(Box::new(self));
        }
        let Self { session, mut tags, .. } = self;
        tags::sort(&mut tags);
        Ok(ReceiverTags {
            marks: Bitmap::new(session.receiver_items),
            matches: Bitmap::new(session.sender_items),
            session,
            own: tags,
            number: 0,
            last: None,
            at: 0,
        })
    }
}

impl ReceiverTags {
    /// How many messages with tags are still to be read.
    pub fn remaining(&self) -> usize {
        chunks(self.session.sender_items, TAGS_EACH) - self.number
    }

    /// Reads the sender's next tags.
    ///
    /// # Errors
    /// If the message is refused, or the tags are not in order.
    pub fn tags(&mut self, message: &[u8]) -> Result<(), Error> {
        if self.remaining() == 0 {
            return Err(Error::Complete);
        }
        let (length, all) = (self.session.tags(), self.session.sender_items);
        let numbers = chunk(self.number, all, TAGS_EACH);
        let bytes = length.bytes() * numbers.len();
        let content = self.session.places().open(TAGS, self.number, bytes, message)?;
        for (number, tag) in numbers.zip(length.read(content)) {
            if self.last.is_some_and(|last| last.compare(tag).is_ge()) {
                return Err(Error::Order(number));
            }
            self.last = Some(tag);
            while self.own.get(self.at).is_some_and(|own| own.compare(tag).is_lt()) {
                self.at += 1;
            }
            if let Some(own) = self.own.get(self.at).filter(|own| own.compare(tag).is_eq()) {
                self.marks.set(own.index());
                self.matches.set(number);
            }
        }
        self.number += 1;
        Ok(())
    }

    /// Which of the receiver's items both have, by index, and what to tell the sender, if it learns
    /// the result.
    ///
    /// # Errors
    /// The receiver as it was, if tags are still to be read.
    pub fn finish(self) -> Result<(Bitmap, Option<Vec<u8>>), Box<Self>> {
        if self.remaining() > 0 {
            return Err(Box::new(self));
        }
        let told = self.session.both_learn.then(|| {
            let matches = self.matches.as_bytes();
            let mut told = self.session.places().begin(MATCHES, 0, matches.len());
            told.extend(matches);
            told
        });
        Ok((self.marks, told))
    }
}

/// The sender, which waits for the answer to its choice.
pub struct SenderStart {
    session: Session,
    parameters: Parameters,
    items: Zeroizing<Vec<u128>>,
    delta: Zeroizing<[u8; 16]>,
    vole: vole::SenderStart,
}

/// The sender, which sends trees and reads the masked table.
pub struct Sender {
    session: Session,
    parameters: Parameters,
    items: Zeroizing<Vec<u128>>,
    delta: Zeroizing<[u8; 16]>,
    vole: vole::Sender,
    /// Its part of the correlation, as far as trees were made and no part of the table has come.
    shares: VecDeque<Zeroizing<Vec<Gf128>>>,
    number: usize,
    unmasking: Option<Unmasking>,
}

/// What the sender has once it knows the seeds.
struct Unmasking {
    rows: Rows,
    hashes: Hashes,
    bins: Bins,
    tags: Vec<Tagged>,
}

/// The sender, which sends its tags.
pub struct SenderTags {
    session: Session,
    tags: Vec<Tagged>,
    number: usize,
}

/// The sender, which has sent its tags, and waits for the result if it learns it.
pub struct SenderWaits {
    session: Session,
    tags: Vec<Tagged>,
}

impl SenderStart {
    /// A sender with these items, all of which are different, and its first message.
    ///
    /// # Errors
    /// If there are not as many as agreed, or too many.
    pub fn new(
        session: Session,
        items: Zeroizing<Vec<u128>>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<u8>), Error> {
        let parameters = session.parameters()?;
        Session::check(&items, session.sender_items)?;
        let mut delta = Zeroizing::new([0; 16]);
        rng.fill_bytes(&mut *delta);
        let of_vole = Gf128::from_le_bytes(*delta);
        let (vole, choice) = vole::Sender::new(session.vole(&parameters), of_vole, rng)?;
        Ok((Self { session, parameters, items, delta, vole }, choice))
    }

    /// Reads the receiver's answer.
    ///
    /// # Errors
    /// If it is refused.
    pub fn answer(self, answer: &[u8]) -> Result<Sender, Error> {
        let Self { session, parameters, items, delta, vole } = self;
        let vole = vole.read(answer)?;
        let (shares, number, unmasking) = (VecDeque::new(), 0, None);
        Ok(Sender { session, parameters, items, delta, vole, shares, number, unmasking })
    }
}

impl Sender {
    /// The next trees; nothing after the last ones. Each call keeps memory until the part of the
    /// table that belongs to it has come.
    pub fn trees(&mut self, rng: &mut impl CryptoRng) -> Option<Vec<u8>> {
        let (message, share) = self.vole.next(rng)?;
        self.shares.push_back(Zeroizing::new(share));
        Some(message)
    }

    /// How many parts of the masked table are still to be read.
    pub fn remaining(&self) -> usize {
        self.shares.len() + self.vole.remaining()
    }

    /// Reads the next part of the masked table.
    ///
    /// # Errors
    /// If it is refused, or its trees have not been made.
    pub fn masked(&mut self, message: &[u8]) -> Result<(), Error> {
        let share = self.shares.front().ok_or(Error::Complete)?;
        let seeds = if self.number == 0 { SEED_BYTES } else { 0 };
        let bytes = seeds + 16 * share.len();
        let content = self.session.places().open(MASKED, self.number, bytes, message)?;
        let (seeds, content) = content.split_at(seeds);
        let unmasking = match &mut self.unmasking {
            Some(unmasking) => unmasking,
            none => {
                let (seed, of_hashes) = seeds.split_at(SEED_BYTES / 2);
                let seed: okvs::Seed = seed.try_into().expect("half of them");
                let rows = Rows::new(&self.parameters, &seed, &self.items)?;
                none.insert(Unmasking {
                    hashes: Hashes::new(&self.session.sid, of_hashes),
                    bins: Bins::new(self.parameters),
                    tags: Vec::with_capacity(rows.len()),
                    rows,
                })
            }
        };
        let mut share = self.shares.pop_front().expect("looked at above");
        self.number += 1;
        let delta = Gf128::from_le_bytes(*self.delta);
        let masked: Vec<Gf128> = bytemuck::pod_collect_to_vec(content);
        gf128::add_scaled(&mut share, &masked, delta);
        let Unmasking { rows, hashes, bins, tags } = unmasking;
        let mut values = Zeroizing::new(masked);
        let range = bins.take(&share, rows, &mut values).expect("bins of this table");
        let items = &rows.items()[range];
        let mut hashed: Zeroizing<Vec<u128>> =
            Zeroizing::new(items.iter().map(|item| self.items[*item as usize]).collect());
        hash_each(&hashes.items, &mut hashed);
        gf128::add_scaled(&mut values, bytemuck::cast_slice(&hashed), delta);
        append_tags(&mut values, items, hashes, self.session.tags(), tags);
        Ok(())
    }

    /// Goes on to the tags, once the whole table has been read.
    ///
    /// # Errors
    /// The sender as it was, if it has not.
    pub fn unmasked(self) -> Result<SenderTags, Box<Self>> {
        match self {
            Self {
                unmasking: Some(Unmasking { mut tags, .. }),
                session,
                ref shares,
                ref vole,
                ..
            } if shares.is_empty() && vole.remaining() == 0 => {
                tags::sort(&mut tags);
                Ok(SenderTags { session, tags, number: 0 })
            }
            unfinished => Err(Box::new(unfinished)),
        }
    }
}

impl SenderTags {
    /// The next tags; nothing after the last ones.
    pub fn tags(&mut self) -> Option<Vec<u8>> {
        let numbers = chunk(self.number, self.tags.len(), TAGS_EACH);
        if numbers.is_empty() {
            return None;
        }
        let length = self.session.tags();
        let bytes = length.bytes() * numbers.len();
        let mut message = self.session.places().begin(TAGS, self.number, bytes);
        for tag in &self.tags[numbers] {
            length.write(*tag, &mut message);
        }
        self.number += 1;
        Some(message)
    }

    /// Goes on to the result, once all tags are sent; nothing if the sender does not learn it.
    pub fn sent(self) -> Option<SenderWaits> {
        let Self { session, tags, .. } = self;
        session.both_learn.then_some(SenderWaits { session, tags })
    }
}

impl SenderWaits {
    /// Which of the sender's items both have, by index.
    ///
    /// # Errors
    /// If the message is refused.
    pub fn matches(self, message: &[u8]) -> Result<Bitmap, Error> {
        let bytes = self.tags.len().div_ceil(8);
        let content = self.session.places().open(MATCHES, 0, bytes, message)?;
        let matches = Bitmap::from_bytes(self.tags.len(), content.to_vec())?;
        let mut marks = Bitmap::new(self.tags.len());
        for (number, tag) in self.tags.iter().enumerate() {
            if matches.is_set(number) {
                marks.set(tag.index());
            }
        }
        Ok(marks)
    }
}

#[cfg(test)]
mod tests;
