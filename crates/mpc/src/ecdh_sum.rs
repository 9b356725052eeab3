//! Sums of values over the intersection of two parties' sets.
//!
//! The receiver has items X, the sender items Y and up to [`MAXIMUM_COLUMNS`] columns of values of
//! them. Both learn how many items X and Y have in common; one of them, whom the session names,
//! learns the sum of each column over these items. Nobody learns which items they are. This is
//! private intersection-sum with cardinality as defined by Ion, Kreuter, Nergiz, Patel, Raykova,
//! Saxena, Seth, Shanahan and Yung (eprint 2019/723); the items are found as in their protocol from
//! decisional Diffie-Hellman. They add the values up under homomorphic encryption; here there is an
//! oblivious transfer for each of the sender's items instead. **Both parties are assumed to follow
//! the protocol** (semi-honest).
//!
//! 1. As in [`crate::ecdh`] when only a number is to be learnt: the receiver sends a H(x), the sender
//!    b H(y) in a random order, and the sorted tags of b a H(x). So the receiver knows which
//!    *places* of the sender's order match, but not which items of either party.
//! 2. The receiver tells how many do. If they are fewer than the session's minimum, it says that
//!    alone, and both stop.
//! 3. For each place j there is a correlated transfer of integers modulo 2^96
//!    ([SoftSpokenOT](crate::vole) on the same base transfers as for VOLE): the receiver chooses by
//!    whether the place matches; it gets s_j, or s_j + v_j if it does, where v_j is the item's vector
//!    of values and s_j a random vector that the sender gets.
//! 4. Whoever is not named sends its total, the sum of s_j or of what it got. The difference of both is
//!    the sum of the v_j that match.
//!
//! | message | from | holds | the other side learns |
//! |---|---|---|---|
//! | blinded | receiver | a H(x) | nothing beside the agreed size |
//! | points | sender | b H(y) | nothing beside the agreed size |
//! | tags | sender | tags of b a H(x), sorted | with the points: how many items match, and at which places of a random order |
//! | choice | sender | its part of the base transfers | nothing |
//! | count | receiver | how many items match, or that they are too few | that |
//! | answer, choices | receiver | its part of the transfers | nothing |
//! | values | sender | masked values, for each of its items | nothing |
//! | total | whoever is not named | one integer for each column | the sums |
//!
//! # Security
//!
//! What the receiver sees of the sender's items up to step 2 follows from the sizes and the number of
//! matches, under decisional Diffie-Hellman in the random oracle model: both points and tags of what
//! does not match are random to it, and the matching places are a random subset. With ideal
//! transfers in step 3, each party's shares are uniformly random and independent of the other's
//! inputs, and the receiver's choices stay hidden. The last total is then its own reader's total and
//! the sums together, so each view can be made from that party's input and what it is to learn.
//!
//! The receiver knows the number of matches before anybody: also one below the minimum. The sums
//! are exact integers below 2^92, so a sum that does not fit into 64 bits is seen **by the party
//! that is named**, which gets an error and no sum of any column; but its computer has held that sum,
//! and the other party is not told. A party that does not keep to the protocol can choose which places
//! to add up (the receiver: it sees which match), or send any values and totals.
//!
//! A recording of step 1 and a later break of the curve let guesses of items be tested, as for
//! [`crate::ecdh`]; the values stay hidden while the base transfers hold, with ML-KEM-768 under
//! [`Hybrid::Yes`].

use convelo_psi::Bitmap;
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::ecdh::{self, Learn};
use crate::message::{MessageError, Places};
use crate::vole::transfers::{self, INTEGER_BYTES, Totals};
use crate::vole::{self, Hybrid};

/// The most columns of values.
pub const MAXIMUM_COLUMNS: usize = 16;

const COUNT: &str = "count";
const TOTAL: &str = "total";

/// What stands for a count that is below the minimum.
const WITHHELD: u64 = u64::MAX;

/// A party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The one without values.
    Receiver,
    /// The one with values.
    Sender,
}

/// What both parties must agree on before the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Hashed from all that the session is bound to; never used twice.
    pub sid: [u8; 32],
    /// How many items the receiver has, which the sender learns.
    pub receiver_items: usize,
    /// How many items the sender has, which the receiver learns.
    pub sender_items: usize,
    /// How many values an item of the sender's has.
    pub columns: usize,
    /// The fewest items in common of which sums are learnt.
    pub minimum: u64,
    /// Who learns the sums.
    pub learns: Party,
    /// How the base transfers are protected.
    pub hybrid: Hybrid,
}

/// Why a run cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// There are no columns, or too many.
    #[error("values have 1 to {MAXIMUM_COLUMNS} columns, not {0}")]
    Columns(usize),
    /// There are not as many values as items and columns say.
    #[error("{found} values, and items and columns make {expected}")]
    Values {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// The intersection was refused.
    #[error(transparent)]
    Intersection(#[from] ecdh::Error),
    /// A message of the transfers was refused.
    #[error(transparent)]
    Transfers(#[from] vole::Error),
    /// A message was refused.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The receiver tells a count that is larger than a set.
    #[error("a count of {found}, and {most} is possible")]
    Count {
        /// What it told.
        found: u64,
        /// The most that it can be.
        most: u64,
    },
    /// The receiver tells a count of which nothing may be opened.
    #[error("a count of {found}, and sums are withheld below {minimum}")]
    Minimum {
        /// What it told.
        found: u64,
        /// The fewest of which sums are learnt.
        minimum: u64,
    },
    /// A sum does not fit into 64 bits. No sum is told.
    #[error("the sum of column {column} does not fit into 64 bits")]
    Overflow {
        /// Which column.
        column: usize,
    },
    /// A sum is larger than so many values can make it: the other party's total is wrong.
    #[error("the other party's total of column {column} is wrong")]
    Total {
        /// Which column.
        column: usize,
    },
}

/// What a party learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// How many items both have.
    pub count: u64,
    /// The sums of the columns over these items, if it is the party that learns them.
    pub sums: Option<Vec<u64>>,
}

/// The end of a run, once all values are transferred.
pub enum End<W> {
    /// It tells its total to the other party, and is done.
    Tells(Learnt, Vec<u8>),
    /// It waits for the other party's total.
    Waits(W),
}

impl Session {
    fn check(&self) -> Result<(), Error> {
        if (1..=MAXIMUM_COLUMNS).contains(&self.columns) {
            return Ok(());
        }
        Err(Error::Columns(self.columns))
    }

    /// A key that follows from all that is agreed.
    fn key(&self, context: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.sid);
        for number in [self.receiver_items, self.sender_items, self.columns] {
            hasher.update(&(number as u64).to_le_bytes());
        }
        hasher.update(&self.minimum.to_le_bytes());
        let flags = [self.learns == Party::Receiver, self.hybrid == Hybrid::Yes];
        *hasher.update(&flags.map(u8::from)).finalize().as_bytes()
    }

    fn places(&self) -> Places {
        Places::new(self.key("convelo ecdh-sum messages"))
    }

    fn intersection(&self) -> ecdh::Session {
        ecdh::Session {
            sid: self.key("convelo ecdh-sum intersection"),
            receiver_items: self.receiver_items,
            sender_items: self.sender_items,
            learn: Learn::Count,
            both_learn: false,
        }
    }

    fn transfers(&self) -> transfers::Session {
        transfers::Session {
            sid: self.key("convelo ecdh-sum transfers"),
            transfers: self.sender_items,
            columns: self.columns,
            hybrid: self.hybrid,
        }
    }

    /// The message with this total.
    fn tell(&self, totals: &Totals) -> Vec<u8> {
        let mut message = self.places().begin(TOTAL, 0, INTEGER_BYTES * self.columns);
        for total in &**totals {
            transfers::write(*total, &mut message);
        }
        message
    }

    /// The totals in a message.
    fn told(&self, message: &[u8]) -> Result<Totals, Error> {
        let content = self.places().open(TOTAL, 0, INTEGER_BYTES * self.columns, message)?;
        Ok(Zeroizing::new(transfers::read(content).collect()))
    }
}

/// The sums, from both parties' totals.
fn sums(count: u64, receiver: &Totals, sender: &Totals) -> Result<Learnt, Error> {
    let most = u128::from(count) * u128::from(u64::MAX);
    let differences = receiver.iter().zip(&**sender);
    let sums: Zeroizing<Vec<u128>> = Zeroizing::new(
        differences.map(|(all, masks)| transfers::reduced(all.wrapping_sub(*masks))).collect(),
    );
    if let Some(column) = sums.iter().position(|sum| *sum > most) {
        return Err(Error::Total { column });
    }
    let fitting = sums
        .iter()
        .enumerate()
        .map(|(column, sum)| u64::try_from(*sum).map_err(|_too_large| Error::Overflow { column }));
    Ok(Learnt { count, sums: Some(fitting.collect::<Result<_, _>>()?) })
}

/// The receiver, while the intersection is found.
pub struct Receiver {
    session: Session,
    intersection: ecdh::Receiver,
}

/// What the receiver knows once the intersection is found.
pub enum Compared {
    /// There are fewer items in common than the minimum, this many. It is done.
    Withheld(u64),
    /// There are enough.
    Enough(ReceiverStart),
}

/// The receiver, which waits for the sender's choice.
pub struct ReceiverStart {
    session: Session,
    matches: Bitmap,
}

/// The receiver, which chooses what is added up.
pub struct ReceiverTransfers {
    session: Session,
    matches: Bitmap,
    transfers: transfers::Receiver,
}

/// The receiver, which waits for the sender's total.
pub struct ReceiverWaits {
    session: Session,
    count: u64,
    totals: Totals,
}

impl Receiver {
    /// A receiver with these items, all of which are different.
    ///
    /// # Errors
    /// If there are not as many as agreed, or too many, or the session has no possible number of
    /// columns.
    pub fn new(
        session: Session,
        items: Zeroizing<Vec<u128>>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, Error> {
        session.check()?;
        let intersection = ecdh::Receiver::new(session.intersection(), items, rng)?;
        Ok(Self { session, intersection })
    }

    /// Its next message of points; nothing after the last one.
    pub fn blinded(&mut self) -> Option<Vec<u8>> {
        self.intersection.blinded()
    }

    /// Reads the sender's next message of points.
    ///
    /// # Errors
    /// If it is refused.
    pub fn points(&mut self, message: &[u8]) -> Result<(), Error> {
        Ok(self.intersection.points(message)?)
    }

    /// Reads the sender's next message of tags.
    ///
    /// # Errors
    /// If it is refused.
    pub fn tags(&mut self, message: &[u8]) -> Result<(), Error> {
        Ok(self.intersection.tags(message)?)
    }

    /// Whether all messages are made and read, so that the count is known.
    pub fn is_complete(&self) -> bool {
        self.intersection.is_complete()
    }

    /// Finds how many items both have, and makes the message that tells the sender.
    ///
    /// # Errors
    /// The receiver as it was, if messages are still to be made or read.
    pub fn compare(self) -> Result<(Compared, Vec<u8>), Box<Self>> {
        let Self { session, intersection } = self;
        let matches = intersection
            .matches()
            .map_err(|intersection| Box::new(Self { session, intersection: *intersection }))?;
        let count = matches.count_ones();
        let enough = count >= session.minimum;
        let mut message = session.places().begin(COUNT, 0, 8);
        message.extend(if enough { count } else { WITHHELD }.to_le_bytes());
        let compared = if enough {
            Compared::Enough(ReceiverStart { session, matches })
        } else {
            Compared::Withheld(count)
        };
        Ok((compared, message))
    }
}

impl ReceiverStart {
    /// How many items both have.
    pub fn count(&self) -> u64 {
        self.matches.count_ones()
    }

    /// Reads the sender's choice, and makes the answer.
    ///
    /// # Errors
    /// If the choice is refused.
    pub fn choice(
        self,
        choice: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(ReceiverTransfers, Vec<u8>), Error> {
        let Self { session, matches } = self;
        let (transfers, answer) = transfers::Receiver::new(session.transfers(), choice, rng)?;
        Ok((ReceiverTransfers { session, matches, transfers }, answer))
    }
}

impl ReceiverTransfers {
    /// Its next message of choices; nothing after the last one. Each keeps memory until the values
    /// for it are read.
    pub fn choices(&mut self) -> Option<Vec<u8>> {
        self.transfers.choices(|place| self.matches.is_set(place))
    }

    /// How many messages with values are still to be read.
    pub fn remaining(&self) -> usize {
        self.transfers.remaining()
    }

    /// Reads the sender's next message of values.
    ///
    /// # Errors
    /// If it is refused.
    pub fn values(&mut self, message: &[u8]) -> Result<(), Error> {
        Ok(self.transfers.values(message)?)
    }

    /// Ends the transfers, once all values are read.
    ///
    /// # Errors
    /// The receiver as it was, if they are not.
    pub fn finish(self) -> Result<End<ReceiverWaits>, Box<Self>> {
        let Self { session, matches, transfers } = self;
        let count = matches.count_ones();
        match transfers.totals() {
            Err(transfers) => Err(Box::new(Self { session, matches, transfers: *transfers })),
            Ok(totals) => Ok(match session.learns {
                Party::Receiver => End::Waits(ReceiverWaits { session, count, totals }),
                Party::Sender => End::Tells(Learnt { count, sums: None }, session.tell(&totals)),
            }),
        }
    }
}

impl ReceiverWaits {
    /// Reads the sender's total, and so learns the sums.
    ///
    /// # Errors
    /// If it is refused, or a sum does not fit into 64 bits.
    pub fn total(self, message: &[u8]) -> Result<Learnt, Error> {
        let sender = self.session.told(message)?;
        sums(self.count, &self.totals, &sender)
    }
}

/// The sender, while the intersection is found.
pub struct Sender {
    session: Session,
    intersection: ecdh::Sender,
    values: Zeroizing<Vec<u64>>,
}

/// The sender, which waits for the count.
pub struct SenderStart {
    session: Session,
    values: Zeroizing<Vec<u64>>,
    order: Zeroizing<Vec<u32>>,
    transfers: transfers::SenderStart,
}

/// What the sender is told of the count.
pub enum Counted {
    /// There are fewer items in common than the minimum. It is done.
    Withheld,
    /// There are enough.
    Enough(Box<SenderAnswered>),
}

/// The sender, which waits for the answer to its choice.
pub struct SenderAnswered {
    start: SenderStart,
    count: u64,
}

/// The sender, which answers choices with values.
pub struct SenderTransfers {
    session: Session,
    values: Zeroizing<Vec<u64>>,
    order: Zeroizing<Vec<u32>>,
    transfers: transfers::Sender,
    count: u64,
}

/// The sender, which waits for the receiver's total.
pub struct SenderWaits {
    session: Session,
    count: u64,
    totals: Totals,
}

impl Sender {
    /// A sender with these items, all of which are different, and their values: all of the first
    /// item, then all of the second, and so on.
    ///
    /// # Errors
    /// If there are not as many as agreed, or too many, or the session has no possible number of
    /// columns.
    pub fn new(
        session: Session,
        items: Zeroizing<Vec<u128>>,
        values: Zeroizing<Vec<u64>>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, Error> {
        session.check()?;
        let expected = session.columns * items.len();
        if values.len() != expected {
            return Err(Error::Values { found: values.len(), expected });
        }
        let intersection = ecdh::Sender::new(session.intersection(), items, rng)?;
        Ok(Self { session, intersection, values })
    }

    /// Its next message of points; nothing after the last one.
    pub fn points(&mut self) -> Option<Vec<u8>> {
        self.intersection.points()
    }

    /// Reads the receiver's next points.
    ///
    /// # Errors
    /// If the message is refused.
    pub fn blinded(&mut self, message: &[u8]) -> Result<(), Error> {
        Ok(self.intersection.blinded(message)?)
    }

    /// The next tags; nothing until all of the receiver's points have come, and after the last ones.
    pub fn tags(&mut self) -> Option<Vec<u8>> {
        self.intersection.tags()
    }

    /// Whether all messages of the intersection are made and read.
    pub fn is_complete(&self) -> bool {
        self.intersection.is_complete()
    }

    /// Goes on to the count, and makes its choice.
    ///
    /// # Errors
    /// The sender as it was, if messages are still to be made or read.
    pub fn choice(self, rng: &mut impl CryptoRng) -> Result<(SenderStart, Vec<u8>), Box<Self>> {
        let Self { session, intersection, values } = self;
        match intersection.into_order() {
            Err(intersection) => {
                Err(Box::new(Self { session, intersection: *intersection, values }))
            }
            Ok(order) => {
                let (transfers, choice) = transfers::SenderStart::new(session.transfers(), rng);
                Ok((SenderStart { session, values, order, transfers }, choice))
            }
        }
    }
}

impl SenderStart {
    /// Reads the count.
    ///
    /// # Errors
    /// If the message is refused, or the count is not possible.
    pub fn count(self, message: &[u8]) -> Result<Counted, Error> {
        let session = &self.session;
        let content = session.places().open(COUNT, 0, 8, message)?;
        let count = u64::from_le_bytes(content.try_into().expect("8 bytes"));
        if count == WITHHELD {
            return Ok(Counted::Withheld);
        }
        let most = session.receiver_items.min(session.sender_items) as u64;
        if count > most {
            return Err(Error::Count { found: count, most });
        }
        if count < session.minimum {
            return Err(Error::Minimum { found: count, minimum: session.minimum });
        }
        Ok(Counted::Enough(Box::new(SenderAnswered { start: self, count })))
    }
}

impl SenderAnswered {
    /// Reads the answer to its choice.
    ///
    /// # Errors
    /// If it is refused.
    pub fn answer(self, answer: &[u8]) -> Result<SenderTransfers, Error> {
        let Self { start: SenderStart { session, values, order, transfers }, count } = self;
        let transfers = transfers.answer(answer)?;
        Ok(SenderTransfers { session, values, order, transfers, count })
    }
}

impl SenderTransfers {
    /// How many messages with choices are still to be read.
    pub fn remaining(&self) -> usize {
        self.transfers.remaining()
    }

    /// Reads the receiver's next choices, and makes the values for them.
    ///
    /// # Errors
    /// If the message is refused.
    pub fn choices(&mut self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let columns = self.session.columns;
        let (values, order) = (&self.values, &self.order);
        let value = |place: usize, column| values[columns * order[place] as usize + column];
        Ok(self.transfers.choices(message, value)?)
    }

    /// Ends the transfers, once all choices are read.
    ///
    /// # Errors
    /// The sender as it was, if they are not.
    pub fn finish(self) -> Result<End<SenderWaits>, Box<Self>> {
        let Self { session, values, order, transfers, count } = self;
        match transfers.totals() {
            Err(transfers) => {
                Err(Box::new(Self { session, values, order, transfers: *transfers, count }))
            }
            Ok(totals) => Ok(match session.learns {
                Party::Sender => End::Waits(SenderWaits { session, count, totals }),
                Party::Receiver => End::Tells(Learnt { count, sums: None }, session.tell(&totals)),
            }),
        }
    }
}

impl SenderWaits {
    /// Reads the receiver's total, and so learns the sums.
    ///
    /// # Errors
    /// If it is refused, or a sum does not fit into 64 bits.
    pub fn total(self, message: &[u8]) -> Result<Learnt, Error> {
        let receiver = self.session.told(message)?;
        sums(self.count, &receiver, &self.totals)
    }
}

#[cfg(test)]
mod tests;
