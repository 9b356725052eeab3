//! Oblivious pseudorandom function from vector oblivious linear evaluation.
//!
//! What [`crate::vole_psi`] and [`crate::vole_multi`] have in common: the part of Raghuraman and
//! Rindal, "Blazing Fast PSI from Improved OKVS and Subfield VOLE" (CCS 2022, eprint 2022/320),
//! section 5, up to the outputs. The receiver gets F(x) for each of its items x; the sender gets F
//! itself, of which it evaluates its own items. Both are assumed to follow the protocol.
//!
//! 1. By VOLE, the receiver has vectors A and C, the sender Delta and B, with C = A Delta + B.
//! 2. The receiver encodes its items: P is a table in which each x has the value HB(x). It sends
//!    P + A, which is uniformly random to the sender.
//! 3. F(x) = HO(B'(x) + HB(x) Delta), where B' = B + (P + A) Delta = C + P Delta, and B'(x) is what
//!    x decodes to. For an item of the receiver's that is HO(C(x)), which it computes; for any other
//!    it is a hash of something that is uniformly random to the receiver, because Delta is.
//!
//! | message | from | holds | the other side learns |
//! |---|---|---|---|
//! | choice, answer, trees | both | those of [`crate::vole`] | nothing |
//! | masked | receiver | two seeds; P + A, part by part | nothing beside the agreed size |
//!
//! HB(x) and HO(v) are AES_k(x) + x under keys that follow from a session and the receiver's second
//! seed (Matyas, Meyer and Oseas); they are modelled as random functions, in the ideal cipher
//! model. Both seeds are chosen after the receiver's items are fixed: a peer that knew them before
//! could choose items whose encoding fails, and tell from a failure whether others have them.
//!
//! A receiver may have one table evaluated by several senders: each mask A is its own, so what
//! several senders see together is as random as what one sees. Their functions are independent,
//! since each has its own VOLE and its own HO.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use rand_core::CryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

use crate::gf128::{self, Gf128};
use crate::message::{MessageError, Places};
use crate::okvs::{self, DecodeError, EncodeError, Parameters, Rows};
use crate::vole;

/// Bytes of the receiver's two seeds.
const SEED_BYTES: usize = 32;

/// Values that are hashed at once.
const BATCH: usize = 64;

const MASKED: &str = "masked";

/// What both sides of an evaluation agree on.
pub(crate) struct Setting {
    /// Of the receiver's table.
    pub(crate) parameters: Parameters,
    /// Of the messages with the masked table.
    pub(crate) places: Places,
    /// Whose outputs are as many as the table's entries.
    pub(crate) vole: vole::Session,
    /// What HB is bound to: that of the receiver's table.
    pub(crate) items: [u8; 32],
    /// What HO is bound to: that of this evaluation.
    pub(crate) outputs: [u8; 32],
}

/// Why a message was refused.
#[derive(Debug)]
pub(crate) enum Error {
    /// It is not the masked table's next part.
    Message(MessageError),
    /// It comes after the last one, or before what it answers.
    Complete,
}

impl From<MessageError> for Error {
    fn from(error: MessageError) -> Self {
        Self::Message(error)
    }
}

/// The receiver's two seeds.
#[derive(Clone, Copy)]
pub(crate) struct Seeds([u8; SEED_BYTES]);

impl Seeds {
    fn random(rng: &mut impl CryptoRng) -> Self {
        let mut seeds = [0; SEED_BYTES];
        rng.fill_bytes(&mut seeds);
        Self(seeds)
    }

    /// That of rows.
    fn of_rows(&self) -> okvs::Seed {
        *self.0.first_chunk().expect("half of them")
    }

    /// A hash that is bound to a session and the second seed.
    pub(crate) fn hash(&self, sid: &[u8; 32], what: &str) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(sid);
        hasher.update(&self.0[SEED_BYTES / 2..]).update(what.as_bytes());
        let mut key = Zeroizing::new([0; 16]);
        hasher.finalize_xof().fill(&mut *key);
        Hash::new(&key)
    }
}

/// AES_k(v) + v: a hash under a key that all know, a pseudorandom function under a secret one.
pub(crate) struct Hash(Aes128);

impl Hash {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self(Aes128::new(key.into()))
    }

    /// Hashes each value, in its place.
    pub(crate) fn each(&self, values: &mut [u128]) {
        let mut blocks = [[0; 16]; BATCH];
        for values in values.chunks_mut(BATCH) {
            let blocks = &mut blocks[..values.len()];
            for (block, value) in blocks.iter_mut().zip(&*values) {
                *block = value.to_le_bytes();
            }
            self.0.encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
            for (value, block) in values.iter_mut().zip(&*blocks) {
                *value ^= u128::from_le_bytes(*block);
            }
        }
    }
}

fn hash_of_items(setting: &Setting, seeds: &Seeds) -> Hash {
    seeds.hash(&setting.items, "items")
}

fn hash_of_outputs(setting: &Setting, seeds: &Seeds) -> Hash {
    seeds.hash(&setting.outputs, "tags")
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

    /// Takes the next part, and puts into `decoded` the rows of all bins that are complete. Returns
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

/// The receiver's items, encoded.
pub(crate) struct Encoded {
    rows: Rows,
    seeds: Seeds,
    table: Zeroizing<Vec<Gf128>>,
}

impl Encoded {
    /// Encodes items, under HB bound to `sid`, with seeds that are chosen now.
    pub(crate) fn new(
        parameters: &Parameters,
        sid: &[u8; 32],
        items: Zeroizing<Vec<u128>>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, EncodeError> {
        let seeds = Seeds::random(rng);
        let rows = Rows::new(parameters, &seeds.of_rows(), &items)?;
        let mut values = items;
        seeds.hash(sid, "items").each(&mut values);
        let table = rows.encode(bytemuck::cast_slice::<_, Gf128>(&values), rng)?;
        Ok(Self { rows, seeds, table: Zeroizing::new(table) })
    }

    pub(crate) fn seeds(&self) -> Seeds {
        self.seeds
    }
}

/// The receiver, which reads trees and masks its table.
pub(crate) struct Receiver {
    setting: Setting,
    vole: vole::Receiver,
    encoded: Arc<Encoded>,
    outputs: Hash,
    masked: usize,
    number: usize,
    bins: Bins,
}

impl Receiver {
    /// A receiver that has read the sender's choice, as `vole`.
    pub(crate) fn new(setting: Setting, vole: vole::Receiver, encoded: Arc<Encoded>) -> Self {
        let outputs = hash_of_outputs(&setting, &encoded.seeds);
        let bins = Bins::new(setting.parameters);
        Self { setting, vole, encoded, outputs, masked: 0, number: 0, bins }
    }

    /// How many messages with trees are still to be read.
    pub(crate) fn remaining(&self) -> usize {
        self.vole.remaining()
    }

    /// Reads the sender's next trees, and makes the next part of the masked table. `outputs` gets
    /// outputs and the indices of their items.
    pub(crate) fn trees(
        &mut self,
        message: &[u8],
        outputs: impl FnOnce(&[u128], &[u32]),
    ) -> Result<Vec<u8>, vole::Error> {
        let vole::Part { mut a, mut c } = self.vole.read(message)?;
        let Encoded { rows, seeds, table } = &*self.encoded;
        let places = &self.setting.places;
        let mut masked = places.begin(MASKED, self.number, SEED_BYTES + 16 * a.len());
        if self.number == 0 {
            masked.extend(seeds.0);
        }
        let table = &table[self.masked..][..a.len()];
        for (a, entry) in a.iter_mut().zip(table) {
            *a += *entry;
        }
        masked.extend_from_slice(bytemuck::cast_slice(&a));
        self.number += 1;
        self.masked += a.len();
        let range = self.bins.take(&c, rows, &mut a).expect("bins of this table");
        let values = bytemuck::cast_slice_mut::<_, u128>(&mut a);
        self.outputs.each(values);
        outputs(values, &rows.items()[range]);
        a.zeroize();
        c.zeroize();
        Ok(masked)
    }
}

/// The sender, which waits for the answer to its choice.
pub(crate) struct SenderStart {
    setting: Setting,
    items: Zeroizing<Vec<u128>>,
    delta: Zeroizing<[u8; 16]>,
    vole: vole::SenderStart,
}

/// The sender, which sends trees and reads the masked table.
pub(crate) struct Sender {
    setting: Setting,
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
    seeds: Seeds,
    rows: Rows,
    of_items: Hash,
    of_outputs: Hash,
    bins: Bins,
}

impl SenderStart {
    /// A sender that evaluates these items, at most [`Parameters::MOST_ITEMS`], and its choice.
    pub(crate) fn new(
        setting: Setting,
        items: Zeroizing<Vec<u128>>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<u8>), vole::Error> {
        let mut delta = Zeroizing::new([0; 16]);
        rng.fill_bytes(&mut *delta);
        let of_vole = Gf128::from_le_bytes(*delta);
        let (vole, choice) = vole::Sender::new(setting.vole, of_vole, rng)?;
        Ok((Self { setting, items, delta, vole }, choice))
    }

    /// Reads the receiver's answer.
    pub(crate) fn answer(self, answer: &[u8]) -> Result<Sender, vole::Error> {
        let Self { setting, items, delta, vole } = self;
        let vole = vole.read(answer)?;
        let (shares, number, unmasking) = (VecDeque::new(), 0, None);
        Ok(Sender { setting, items, delta, vole, shares, number, unmasking })
    }
}

impl Sender {
    /// The next trees; nothing after the last ones.
    pub(crate) fn trees(&mut self, rng: &mut impl CryptoRng) -> Option<Vec<u8>> {
        let (message, share) = self.vole.next(rng)?;
        self.shares.push_back(Zeroizing::new(share));
        Some(message)
    }

    /// How many parts of the masked table are still to be read.
    pub(crate) fn remaining(&self) -> usize {
        self.shares.len() + self.vole.remaining()
    }

    /// Reads the next part of the masked table. `outputs` gets outputs and the indices of their
    /// items.
    pub(crate) fn masked(
        &mut self,
        message: &[u8],
        outputs: impl FnOnce(&[u128], &[u32]),
    ) -> Result<(), Error> {
        let share = self.shares.front().ok_or(Error::Complete)?;
        let seeds = if self.number == 0 { SEED_BYTES } else { 0 };
        let bytes = seeds + 16 * share.len();
        let content = self.setting.places.open(MASKED, self.number, bytes, message)?;
        let (seeds, content) = content.split_at(seeds);
        let unmasking = match &mut self.unmasking {
            Some(unmasking) => unmasking,
            none => {
                let seeds = Seeds(seeds.try_into().expect("as many as were opened"));
                let parameters = &self.setting.parameters;
                none.insert(Unmasking {
                    rows: Rows::new(parameters, &seeds.of_rows(), &self.items)
                        .expect("no more items than a table can have"),
                    of_items: hash_of_items(&self.setting, &seeds),
                    of_outputs: hash_of_outputs(&self.setting, &seeds),
                    bins: Bins::new(*parameters),
                    seeds,
                })
            }
        };
        let mut share = self.shares.pop_front().expect("looked at above");
        self.number += 1;
        let delta = Gf128::from_le_bytes(*self.delta);
        let masked: Vec<Gf128> = bytemuck::pod_collect_to_vec(content);
        gf128::add_scaled(&mut share, &masked, delta);
        let Unmasking { rows, of_items, of_outputs, bins, .. } = unmasking;
        let mut values = Zeroizing::new(masked);
        let range = bins.take(&share, rows, &mut values).expect("bins of this table");
        let indices = &rows.items()[range];
        let mut hashed: Zeroizing<Vec<u128>> =
            Zeroizing::new(indices.iter().map(|item| self.items[*item as usize]).collect());
        of_items.each(&mut hashed);
        gf128::add_scaled(&mut values, bytemuck::cast_slice(&hashed), delta);
        let values = bytemuck::cast_slice_mut::<_, u128>(&mut values);
        of_outputs.each(values);
        outputs(values, indices);
        Ok(())
    }

    /// Its items and the receiver's seeds, once the whole table has been read.
    pub(crate) fn finish(self) -> Result<(Zeroizing<Vec<u128>>, Seeds), Box<Self>> {
        match &self.unmasking {
            Some(unmasking) if self.remaining() == 0 => {
                let seeds = unmasking.seeds;
                Ok((self.items, seeds))
            }
            _ => Err(Box::new(self)),
        }
    }
}
