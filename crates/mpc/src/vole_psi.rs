//! Intersection of two parties' sets from vector oblivious linear evaluation (VOLE-PSI).
//!
//! The protocol of Raghuraman and Rindal, "Blazing Fast PSI from Improved OKVS and Subfield VOLE"
//! (CCS 2022, eprint 2022/320), section 5, on [`crate::vole`] and [`crate::okvs`]. **Both parties
//! are assumed to follow it** (semi-honest). The receiver has items X, the sender items Y:
//!
//! 1. By an oblivious pseudorandom function F (`vole_oprf`), the receiver has F(x) for each of its
//!    items, and the sender F(y) for each of its own. For any other item F is random to the receiver.
//! 2. The sender sends the tags F(y), sorted.
//! 3. The receiver compares the tags with F(x) of its own items. If the sender learns the result
//!    too, the receiver returns one bit for each of the sender's tags.
//!
//! | message | from | holds | the other side learns |
//! |---|---|---|---|
//! | choice, answer, trees | both | those of [`crate::vole`] | nothing |
//! | masked | receiver | two seeds; P + A, part by part | nothing beside the agreed size |
//! | tags | sender | the sender's tags, sorted | which of its items the sender has |
//! | matches | receiver | one bit for each tag | which of its items the receiver has |
//!
//! F(v) hashes the sum of what v decodes to and HB(v) Delta. Both hashes are AES_k(v) + v under keys
//! that follow from the session and the receiver's seeds; they are modelled as random functions, in
//! the ideal cipher model. `vole_oprf` says how F is made, and why the seeds are chosen late.

use std::sync::Arc;

use convelo_psi::{Bitmap, BitmapError};
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::message::{MessageError, Places, chunk, chunks};
use crate::okvs::{EncodeError, Parameters, TooMany};
use crate::tags::{self, MAXIMUM_ITEMS, TagLength, Tagged};
use crate::vole::{self, Hybrid};
use crate::vole_oprf::{self as oprf, Encoded, Setting};

/// Tags of a message.
const TAGS_EACH: usize = 1 << 16;

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

impl From<oprf::Error> for Error {
    fn from(error: oprf::Error) -> Self {
        match error {
            oprf::Error::Message(error) => Self::Message(error),
            oprf::Error::Complete => Self::Complete,
        }
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

    fn setting(&self, parameters: Parameters) -> Setting {
        let sid = blake3::derive_key("convelo vole-psi correlation", &self.sid);
        Setting {
            parameters,
            places: self.places(),
            vole: vole::Session { sid, outputs: parameters.size(), hybrid: self.hybrid },
            items: self.sid,
            outputs: self.sid,
        }
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

/// Appends the tags of outputs.
fn append_tags(outputs: &[u128], items: &[u32], length: TagLength, tags: &mut Vec<Tagged>) {
    tags.extend(
        outputs.iter().zip(items).map(|(output, item)| length.tag(*output, *item as usize)),
    );
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
    oprf: oprf::Receiver,
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
        let setting = session.setting(parameters);
        let (vole, answer) = vole::Receiver::new(setting.vole, choice, rng)?;
        let encoded = Encoded::new(&parameters, &setting.items, items, rng)?;
        let oprf = oprf::Receiver::new(setting, vole, Arc::new(encoded));
        let tags = Vec::with_capacity(session.receiver_items);
        Ok((Receiver { session, oprf, tags }, answer))
    }
}

impl Receiver {
    /// How many messages with trees are still to be read.
    pub fn remaining(&self) -> usize {
        self.oprf.remaining()
    }

    /// Reads the sender's next trees, and makes the next part of the masked table.
    ///
    /// # Errors
    /// If the message is refused.
    pub fn trees(&mut self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let length = self.session.tags();
        let masked = self.oprf.trees(message, |outputs, items| {
            append_tags(outputs, items, length, &mut self.tags);
        })?;
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
    oprf: oprf::SenderStart,
}

/// The sender, which sends trees and reads the masked table.
pub struct Sender {
    session: Session,
    oprf: oprf::Sender,
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
        let (oprf, choice) = oprf::SenderStart::new(session.setting(parameters), items, rng)?;
        Ok((Self { session, oprf }, choice))
    }

    /// Reads the receiver's answer.
    ///
    /// # Errors
    /// If it is refused.
    pub fn answer(self, answer: &[u8]) -> Result<Sender, Error> {
        let Self { session, oprf } = self;
        let tags = Vec::with_capacity(session.sender_items);
        Ok(Sender { session, oprf: oprf.answer(answer)?, tags })
    }
}

impl Sender {
    /// The next trees; nothing after the last ones. Each call keeps memory until the part of the
    /// table that belongs to it has come.
    pub fn trees(&mut self, rng: &mut impl CryptoRng) -> Option<Vec<u8>> {
        self.oprf.trees(rng)
    }

    /// How many parts of the masked table are still to be read.
    pub fn remaining(&self) -> usize {
        self.oprf.remaining()
    }

    /// Reads the next part of the masked table.
    ///
    /// # Errors
    /// If it is refused, or its trees have not been made.
    pub fn masked(&mut self, message: &[u8]) -> Result<(), Error> {
        let length = self.session.tags();
        self.oprf.masked(message, |outputs, items| {
            append_tags(outputs, items, length, &mut self.tags);
        })?;
        Ok(())
    }

    /// Goes on to the tags, once the whole table has been read.
    ///
    /// # Errors
    /// The sender as it was, if it has not.
    pub fn unmasked(self) -> Result<SenderTags, Box<Self>> {
        let Self { session, oprf, mut tags } = self;
        match oprf.finish() {
            Ok(_) => {
                tags::sort(&mut tags);
                Ok(SenderTags { session, tags, number: 0 })
            }
            Err(oprf) => Err(Box::new(Self { session, oprf: *oprf, tags })),
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
