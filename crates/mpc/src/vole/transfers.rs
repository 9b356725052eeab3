//! Sums over chosen vectors of integers, from one correlated transfer for each.
//!
//! The sender has a vector v_j of integers for each j, the receiver a bit c_j. They get totals whose
//! difference is the sum of the v_j with c_j = 1, and each total alone is uniformly random. **Both
//! parties are assumed to follow the protocol** (semi-honest).
//!
//! By [`super::base_ot`] and [`super::ot_extension`] the receiver has a word v and the sender
//! q = v + c Delta for each j, and Delta. With H_i a hash for each column i, the sender's share of
//! the column is s = H_i(q), and it sends u = s + value - H_i(q + Delta). The receiver's share is
//! H_i(v) if c = 0, and u + H_i(v) = s + value if c = 1. In either case one of the two hashes is of a
//! word that the receiver lacks, so u is uniformly random to it (correlated transfers: Asharov,
//! Lindell, Schneider and Zohner, CCS 2013, eprint 2013/552).
//!
//! | message | from | holds | the other side learns |
//! |---|---|---|---|
//! | choice | sender | public keys of the 128 base transfers, chosen by the bits of Delta | nothing |
//! | answer | receiver | their answer, seeds | nothing |
//! | choices | receiver | sixteen masked bits for each transfer | nothing |
//! | values | sender | u for each transfer and column | nothing |
//!
//! Integers are added modulo 2^96, which is more than 2^28 times 2^64: the sum is exact.

use std::collections::VecDeque;

use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::base_ot::{self, Chooser, Hybrid};
use super::ot_extension::{self, Doubling, Folded, GROUPS, SEEDS_LEN};
use super::prg::{self, Permutation};
use super::{Error, noisy};
use crate::message::{Places, chunk, chunks};

/// Bytes of an integer.
pub(crate) const INTEGER_BYTES: usize = 12;

/// Transfers of a message.
const TRANSFERS_EACH: usize = 1 << 14;

const CHOICE: &str = "choice";
const ANSWER: &str = "answer";
const CHOICES: &str = "choices";
const VALUES: &str = "values";

/// What both parties must agree on before the first message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    /// Hashed from all that the session is bound to; never used twice.
    pub(crate) sid: [u8; 32],
    /// How many vectors there are.
    pub(crate) transfers: usize,
    /// How many integers a vector has.
    pub(crate) columns: usize,
    /// How the base transfers are protected.
    pub(crate) hybrid: Hybrid,
}

/// One total for each column.
pub(crate) type Totals = Zeroizing<Vec<u128>>;

/// An integer modulo 2^96.
pub(crate) fn reduced(integer: u128) -> u128 {
    integer & ((1 << (8 * INTEGER_BYTES)) - 1)
}

/// Appends an integer, lowest byte first.
pub(crate) fn write(integer: u128, message: &mut Vec<u8>) {
    message.extend(&integer.to_le_bytes()[..INTEGER_BYTES]);
}

/// The integers in these bytes.
pub(crate) fn read(bytes: &[u8]) -> impl ExactSizeIterator<Item = u128> + '_ {
    bytes.as_chunks::<INTEGER_BYTES>().0.iter().map(|bytes| {
        let mut integer = [0; 16];
        integer[..INTEGER_BYTES].copy_from_slice(bytes);
        u128::from_le_bytes(integer)
    })
}

/// What the two sides have in common.
struct Side {
    session: Session,
    sid: [u8; 32],
    places: Places,
    columns: Vec<Permutation>,
}

impl Side {
    fn new(session: Session) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("convelo transfers session");
        hasher.update(&session.sid);
        for number in
            [session.transfers, session.columns, usize::from(session.hybrid == Hybrid::Yes)]
        {
            hasher.update(&(number as u64).to_le_bytes());
        }
        let sid = *hasher.finalize().as_bytes();
        let mut keys = blake3::Hasher::new_derive_key("convelo transfers columns");
        let mut keys = keys.update(&sid).finalize_xof();
        let columns = (0..session.columns).map(|_| {
            let mut key = [0; 16];
            keys.fill(&mut key);
            Permutation::new(u128::from_le_bytes(key))
        });
        Self { session, sid, places: Places::new(sid), columns: columns.collect() }
    }

    fn doubling(&self) -> Doubling {
        Doubling::new(&self.sid)
    }

    fn chunk(&self, number: usize) -> std::ops::Range<usize> {
        chunk(number, self.session.transfers, TRANSFERS_EACH)
    }

    fn messages(&self) -> usize {
        chunks(self.session.transfers, TRANSFERS_EACH)
    }

    fn totals(&self) -> Totals {
        Zeroizing::new(vec![0; self.session.columns])
    }
}

/// The streams of a message, with so many words each, added up. A seed that is zero has none.
fn folded(groups: &[Zeroizing<Vec<u128>>], number: usize, words: usize) -> Vec<Folded> {
    let of = |seeds: &Zeroizing<Vec<u128>>| {
        let seeds = seeds.iter().map(|seed| {
            let mut word = [number as u128];
            prg::encrypt(&prg::aes(*seed), &mut word);
            word[0] & !prg::equal(0, (seed | seed >> 64) as usize)
        });
        let seeds: Zeroizing<Vec<u128>> = Zeroizing::new(seeds.collect());
        ot_extension::fold(&seeds, words)
    };
    groups.iter().map(of).collect()
}

/// The words of a message's transfers.
fn rows(groups: &[Folded], transfers: usize) -> Zeroizing<Vec<u128>> {
    let columns: Vec<_> = groups.iter().flat_map(|group| &group.bits).collect();
    let mut rows = Zeroizing::new(ot_extension::transpose(&columns));
    rows.truncate(transfers);
    rows
}

/// The sender that waits for the answer to its choice.
pub(crate) struct SenderStart {
    side: Side,
    delta: Zeroizing<u128>,
    chooser: Chooser,
}

/// The sender, which answers choices with values.
pub(crate) struct Sender {
    side: Side,
    delta: Zeroizing<u128>,
    groups: Vec<Zeroizing<Vec<u128>>>,
    number: usize,
    totals: Totals,
}

impl SenderStart {
    /// Draws Delta, and makes the choice.
    pub(crate) fn new(session: Session, rng: &mut impl CryptoRng) -> (Self, Vec<u8>) {
        let side = Side::new(session);
        let mut bytes = Zeroizing::new([0; 16]);
        rng.fill_bytes(&mut *bytes);
        let delta = Zeroizing::new(u128::from_le_bytes(*bytes));
        let mut message = side.places.begin(CHOICE, 0, session.hybrid.choice_len());
        let chooser = Chooser::new(&side.sid, *delta, session.hybrid, &mut message, rng);
        (Self { side, delta, chooser }, message)
    }

    /// Reads the answer.
    pub(crate) fn answer(self, answer: &[u8]) -> Result<Sender, Error> {
        let Self { side, delta, chooser } = self;
        let base_len = side.session.hybrid.answer_len();
        let content = side.places.open(ANSWER, 0, base_len + SEEDS_LEN, answer)?;
        let (base, seeds) = content.split_at(base_len);
        let keys = chooser.finish(base)?;
        let groups = side.doubling().all_but(*delta, &keys, seeds);
        let totals = side.totals();
        Ok(Sender { side, delta, groups, number: 0, totals })
    }
}

impl Sender {
    /// How many messages with choices are still to be read.
    pub(crate) fn remaining(&self) -> usize {
        self.side.messages() - self.number
    }

    /// Reads the next choices, and makes the values for them. `value` gives the integer of a
    /// transfer and a column. After an error nothing has changed.
    pub(crate) fn choices(
        &mut self,
        message: &[u8],
        value: impl Fn(usize, usize) -> u64,
    ) -> Result<Vec<u8>, Error> {
        let numbers = self.side.chunk(self.number);
        if numbers.is_empty() {
            return Err(Error::Complete);
        }
        let words = numbers.len().div_ceil(128);
        let content = self.side.places.open(CHOICES, self.number, 16 * GROUPS * words, message)?;
        let mut groups = folded(&self.groups, self.number, words);
        let sums = content.as_chunks().0.chunks(words);
        for (number, (group, sums)) in groups.iter_mut().zip(sums).enumerate() {
            let sums = sums.iter().map(|bytes| u128::from_le_bytes(*bytes));
            noisy::correct(group, number, *self.delta, 0, sums);
        }
        let own = rows(&groups, numbers.len());
        let other: Zeroizing<Vec<u128>> =
            Zeroizing::new(own.iter().map(|word| word ^ *self.delta).collect());
        let mut masks = [(); 2].map(|()| Zeroizing::new(vec![0; own.len()]));
        let bytes = INTEGER_BYTES * own.len() * self.side.session.columns;
        let mut answer = self.side.places.begin(VALUES, self.number, bytes);
        for (column, hash) in self.side.columns.iter().enumerate() {
            let [shares, unknown] = &mut masks;
            hash.hash(&own, shares);
            hash.hash(&other, unknown);
            let total = &mut self.totals[column];
            for (number, (share, unknown)) in numbers.clone().zip(shares.iter().zip(&**unknown)) {
                let value = u128::from(value(number, column));
                write(share.wrapping_add(value).wrapping_sub(*unknown), &mut answer);
                *total = total.wrapping_add(*share);
            }
        }
        self.number += 1;
        Ok(answer)
    }

    /// The sums of its shares, once all choices are read.
    pub(crate) fn totals(mut self) -> Result<Totals, Box<Self>> {
        if self.remaining() > 0 {
            return Err(Box::new(self));
        }
        Ok(finished(&mut self.totals))
    }
}

/// The receiver's words of a message, and its choices, packed.
#[derive(ZeroizeOnDrop)]
struct Chosen {
    rows: Zeroizing<Vec<u128>>,
    choices: Zeroizing<Vec<u128>>,
}

/// The receiver, which chooses and reads values.
pub(crate) struct Receiver {
    side: Side,
    groups: Vec<Zeroizing<Vec<u128>>>,
    chosen: usize,
    /// What was chosen and has no values yet.
    waiting: VecDeque<Chosen>,
    number: usize,
    totals: Totals,
}

impl Receiver {
    /// Reads the sender's choice, and makes the answer.
    pub(crate) fn new(
        session: Session,
        choice: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<u8>), Error> {
        let side = Side::new(session);
        let choice = side.places.open(CHOICE, 0, session.hybrid.choice_len(), choice)?;
        let bytes = session.hybrid.answer_len() + SEEDS_LEN;
        let mut message = side.places.begin(ANSWER, 0, bytes);
        let keys = base_ot::answer(&side.sid, session.hybrid, choice, &mut message, rng)?;
        let mut roots = Zeroizing::new([0; GROUPS]);
        rng.fill_bytes(bytemuck::cast_slice_mut(&mut *roots));
        let (groups, seeds) = side.doubling().all(&roots, &keys);
        message.extend(seeds);
        let totals = side.totals();
        let waiting = VecDeque::new();
        Ok((Self { side, groups, chosen: 0, waiting, number: 0, totals }, message))
    }

    /// The next choices; nothing after the last ones. `choose` says whether a transfer's vector
    /// counts. Each call keeps memory until the values for it are read.
    pub(crate) fn choices(&mut self, choose: impl Fn(usize) -> bool) -> Option<Vec<u8>> {
        let numbers = self.side.chunk(self.chosen);
        if numbers.is_empty() {
            return None;
        }
        let words = numbers.len().div_ceil(128);
        let mut choices = Zeroizing::new(vec![0; words]);
        for (at, number) in numbers.clone().enumerate() {
            choices[at / 128] |= u128::from(choose(number)) << (at % 128);
        }
        let groups = folded(&self.groups, self.chosen, words);
        let mut message = self.side.places.begin(CHOICES, self.chosen, 16 * GROUPS * words);
        for group in &groups {
            let masked = group.all.iter().zip(&*choices);
            message.extend(masked.flat_map(|(all, choice)| (all ^ choice).to_le_bytes()));
        }
        self.waiting.push_back(Chosen { rows: rows(&groups, numbers.len()), choices });
        self.chosen += 1;
        Some(message)
    }

    /// How many messages with values are still to be read.
    pub(crate) fn remaining(&self) -> usize {
        self.side.messages() - self.number
    }

    /// Reads the values for its oldest choices. After an error nothing has changed.
    pub(crate) fn values(&mut self, message: &[u8]) -> Result<(), Error> {
        let Chosen { rows, choices } = self.waiting.front().ok_or(Error::Complete)?;
        let each = INTEGER_BYTES * rows.len();
        let bytes = each * self.side.session.columns;
        let content = self.side.places.open(VALUES, self.number, bytes, message)?;
        let mut masks = Zeroizing::new(vec![0; rows.len()]);
        let columns = self.side.columns.iter().zip(content.chunks(each));
        for ((hash, values), total) in columns.zip(self.totals.iter_mut()) {
            hash.hash(rows, &mut masks);
            for (at, (mask, value)) in masks.iter().zip(read(values)).enumerate() {
                let chosen = prg::spread(choices[at / 128], at % 128);
                *total = total.wrapping_add(*mask).wrapping_add(value & chosen);
            }
        }
        self.waiting.pop_front();
        self.number += 1;
        Ok(())
    }

    /// The sums of its shares, once all values are read.
    pub(crate) fn totals(mut self) -> Result<Totals, Box<Self>> {
        if self.remaining() > 0 {
            return Err(Box::new(self));
        }
        Ok(finished(&mut self.totals))
    }
}

fn finished(totals: &mut Totals) -> Totals {
    let reduced = Zeroizing::new(totals.iter().map(|total| reduced(*total)).collect());
    totals.zeroize();
    reduced
}

#[cfg(test)]
mod tests;
