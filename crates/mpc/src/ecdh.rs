//! Intersection of two parties' sets by elliptic curve Diffie-Hellman.
//!
//! The protocol of Meadows (1986) and of Huberman, Franklin and Hogg (1999) on Curve25519, with
//! items hashed to the curve as RFC 9380 says. **Both parties are assumed to follow it**
//! (semi-honest; the assumption is decisional Diffie-Hellman on the curve, in the random oracle
//! model). What is sent is no longer secret once somebody can compute discrete logarithms on the
//! curve, with a quantum computer for example: whoever has recorded it can then test guesses.
//!
//! The receiver has items X and a secret a, the sender items Y and a secret b, both new in every
//! session:
//!
//! 1. The receiver sends a H(x) for its items, in a random order.
//! 2. The sender sends b H(y) for its items, in a random order, and for each point P of the
//!    receiver's the tag of b P: in the received order, or sorted if only the number of matches is
//!    to be learnt.
//! 3. The receiver compares them with the tags of a (b H(y)).
//!
//! | message | from | holds | the other side learns |
//! |---|---|---|---|
//! | blinded | receiver | a H(x) | nothing beside the agreed size |
//! | points | sender | b H(y) | nothing beside the agreed size |
//! | tags | sender | tags of b a H(x) | with the points: which of its items the sender has, or how many |
//! | matches | receiver | one bit for each point, or the number | which of its items the receiver has, or how many |
//!
//! A point is its u-coordinate, and one that is zero, not below the field's order, or of small
//! order is refused. H(x) is taken of the session's identifier and the item, so that nothing of
//! one session means anything in another.

use convelo_psi::{Bitmap, BitmapError};
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::curve::{self, NotCanonical, Point, Scalar, SmallOrder};
use crate::message::{MessageError, Places, chunk, chunks};
use crate::tags::{self, MAXIMUM_ITEMS, TagLength, Tagged};

/// Points of a message: 128 KiB.
const POINTS_EACH: usize = 1 << 12;

/// The domain of H, by RFC 9380 section 3.1.
const DOMAIN: &[u8] = b"CONVELO-ECDH-V01-CS01-with-curve25519_XMD:SHA-512_ELL2_RO_";

const BLINDED: &str = "blinded";
const POINTS: &str = "points";
const TAGS: &str = "tags";
const MATCHES: &str = "matches";

/// What the receiver learns, and the sender if both do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// Which of its own items the other has.
    Intersection,
    /// How many items both have.
    Count,
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
    /// What is learnt.
    pub learn: Learn,
    /// Whether the receiver tells the sender the result.
    pub both_learn: bool,
}

impl Session {
    /// How many messages of points the receiver sends.
    pub fn blinded_messages(&self) -> usize {
        chunks(self.receiver_items, POINTS_EACH)
    }

    /// How many messages of points the sender sends.
    pub fn points_messages(&self) -> usize {
        chunks(self.sender_items, POINTS_EACH)
    }
}

/// What a party learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// Which of its items both have, by index.
    Intersection(Bitmap),
    /// How many items both have.
    Count(u64),
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
    /// A point is not written in its only proper form.
    #[error("message {message}: {source}")]
    NotCanonical {
        /// The number of the message.
        message: usize,
        /// Which of its points.
        source: NotCanonical,
    },
    /// A point is of small order: its product says nothing about the secret, and the same of all items.
    #[error("message {message}: {source}")]
    SmallOrder {
        /// The number of the message.
        message: usize,
        /// Which of its points.
        source: SmallOrder,
    },
    /// Tags that are to be sorted are not.
    #[error("the tags are not strictly ascending, from number {0} on")]
    Order(usize),
    /// What the receiver returns is not one bit for each point.
    #[error(transparent)]
    Matches(#[from] BitmapError),
    /// The receiver returns a count that is larger than a set.
    #[error("a count of {found}, and {most} is possible")]
    Count {
        /// What it returned.
        found: u64,
        /// The most that it can be.
        most: u64,
    },
    /// A message after the last one of its kind.
    #[error("a message after the last one")]
    Complete,
}

/// What the two sides have in common.
struct Side {
    session: Session,
    places: Places,
    secret: Scalar,
    items: Zeroizing<Vec<u128>>,
    /// In which order the items are sent.
    order: Zeroizing<Vec<u32>>,
    key: [u8; 32],
}

impl Side {
    fn new(
        session: Session,
        items: Zeroizing<Vec<u128>>,
        agreed: usize,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, Error> {
        for items in [session.receiver_items, session.sender_items] {
            if items > MAXIMUM_ITEMS {
                return Err(Error::Size(items));
            }
        }
        if items.len() != agreed {
            return Err(Error::Items { found: items.len(), agreed });
        }
        let mut order: Zeroizing<Vec<u32>> = Zeroizing::new((0..).take(items.len()).collect());
        shuffle(&mut order, rng);
        Ok(Self {
            places: Places::new(blake3::derive_key("convelo ecdh-psi messages", &session.sid)),
            key: blake3::derive_key("convelo ecdh-psi tags", &session.sid),
            secret: Scalar::random(rng),
            session,
            items,
            order,
        })
    }

    /// The items of a message, hashed to the curve and multiplied.
    fn hashed(&self, kind: &str, number: usize) -> Option<Vec<u8>> {
        let numbers = chunk(number, self.items.len(), POINTS_EACH);
        if numbers.is_empty() {
            return None;
        }
        let messages: Zeroizing<Vec<[u8; 48]>> = Zeroizing::new(
            self.order[numbers]
                .iter()
                .map(|index| {
                    let mut message = [0; 48];
                    message[..32].copy_from_slice(&self.session.sid);
                    message[32..].copy_from_slice(&self.items[*index as usize].to_le_bytes());
                    message
                })
                .collect(),
        );
        let mut hashed = Zeroizing::new(vec![Point::default(); messages.len()]);
        curve::hash_to_curve(DOMAIN, &messages, &mut hashed);
        let mut points = vec![Point::default(); messages.len()];
        curve::multiply(&self.secret, &hashed, &mut points)
            .expect("an item is hashed to a point of small order with a probability of 2^-250");
        let mut message = self.places.begin(kind, number, 32 * points.len());
        message.extend(points.iter().flatten());
        Some(message)
    }

    /// The hashes of the other side's points, multiplied.
    fn multiplied(
        &self,
        (kind, number): (&str, usize),
        all: usize,
        message: &[u8],
    ) -> Result<Vec<u128>, Error> {
        let numbers = chunk(number, all, POINTS_EACH);
        if numbers.is_empty() {
            return Err(Error::Complete);
        }
        let content = self.places.open(kind, number, 32 * numbers.len(), message)?;
        let points: &[Point] = content.as_chunks().0;
        curve::check_canonical(points)
            .map_err(|source| Error::NotCanonical { message: number, source })?;
        let mut products = Zeroizing::new(vec![Point::default(); points.len()]);
        curve::multiply(&self.secret, points, &mut products)
            .map_err(|source| Error::SmallOrder { message: number, source })?;
        Ok(products.iter().map(|product| self.hash(product)).collect())
    }

    fn hash(&self, product: &Point) -> u128 {
        let hash = blake3::keyed_hash(&self.key, product);
        let (first, _) = hash.as_bytes().split_at(16);
        u128::from_le_bytes(first.try_into().expect("16 bytes"))
    }

    fn tags(&self) -> TagLength {
        TagLength::of(self.session.receiver_items, self.session.sender_items)
    }
}

/// A uniformly random order (Fisher and Yates).
fn shuffle(order: &mut [u32], rng: &mut impl CryptoRng) {
    for last in (1..order.len()).rev() {
        let range = last as u64 + 1;
        // Above this, the remainder would favour small numbers.
        let limit = u64::MAX - u64::MAX % range;
        let random = std::iter::repeat_with(|| rng.next_u64()).find(|random| *random < limit);
        #[expect(clippy::cast_possible_truncation, reason = "it is at most `last`")]
        let other = (random.expect("without end") % range) as usize;
        order.swap(last, other);
    }
}

/// The party that learns the result first.
pub struct Receiver {
    side: Side,
    blinded: usize,
    /// Its own tags, as far as they have come.
    own: Vec<Tagged>,
    tagged: usize,
    /// The tags of the sender's points, as far as they have come.
    theirs: Vec<Tagged>,
    pointed: usize,
}

impl Receiver {
    /// A receiver with these items, all of which are different.
    ///
    /// # Errors
    /// If there are not as many as agreed, or too many.
    pub fn new(
        session: Session,
        items: Zeroizing<Vec<u128>>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, Error> {
        let side = Side::new(session, items, session.receiver_items, rng)?;
        let (own, theirs) = (Vec::new(), Vec::new());
        Ok(Self { side, blinded: 0, own, tagged: 0, theirs, pointed: 0 })
    }

    /// Its next message of points; nothing after the last one.
    pub fn blinded(&mut self) -> Option<Vec<u8>> {
        let message = self.side.hashed(BLINDED, self.blinded)?;
        self.blinded += 1;
        Some(message)
    }

    /// Reads the sender's next message of tags.
    ///
    /// # Errors
    /// If it is refused.
    pub fn tags(&mut self, message: &[u8]) -> Result<(), Error> {
        let numbers = chunk(self.tagged, self.side.items.len(), POINTS_EACH);
        if numbers.is_empty() {
            return Err(Error::Complete);
        }
        let length = self.side.tags();
        let bytes = length.bytes() * numbers.len();
        let content = self.side.places.open(TAGS, self.tagged, bytes, message)?;
        for (number, tag) in numbers.zip(length.read(content)) {
            let tag = match self.side.session.learn {
                Learn::Intersection => tag.with_index(self.side.order[number] as usize),
                Learn::Count => {
                    if self.own.last().is_some_and(|last| last.compare(tag).is_ge()) {
                        return Err(Error::Order(number));
                    }
                    tag
                }
            };
            self.own.push(tag);
        }
        self.tagged += 1;
        Ok(())
    }

    /// Reads the sender's next message of points.
    ///
    /// # Errors
    /// If it is refused.
    pub fn points(&mut self, message: &[u8]) -> Result<(), Error> {
        let all = self.side.session.sender_items;
        let hashes = self.side.multiplied((POINTS, self.pointed), all, message)?;
        let (length, first) = (self.side.tags(), self.theirs.len());
        self.theirs.extend((first..).zip(hashes).map(|(index, hash)| length.tag(hash, index)));
        self.pointed += 1;
        Ok(())
    }

    /// Whether all messages are made and read.
    pub fn is_complete(&self) -> bool {
        let session = &self.side.session;
        let own = chunks(session.receiver_items, POINTS_EACH);
        self.blinded == own
            && self.tagged == own
            && self.pointed == chunks(session.sender_items, POINTS_EACH)
    }

    /// Which of the sender's points match, by their places, once all messages are made and read.
    ///
    /// # Errors
    /// The receiver as it was, if they are not.
    pub(crate) fn matches(mut self) -> Result<Bitmap, Box<Self>> {
        if !self.is_complete() {
            return Err(Box::new(self));
        }
        Ok(self.compare().1)
    }

    /// Which of its own items match and which of the sender's points, once all are there.
    fn compare(&mut self) -> (Bitmap, Bitmap) {
        tags::sort(&mut self.own);
        tags::sort(&mut self.theirs);
        let session = &self.side.session;
        let mut marks = Bitmap::new(session.receiver_items);
        let mut matches = Bitmap::new(session.sender_items);
        let mut own = self.own.iter().peekable();
        for tag in &self.theirs {
            while own.next_if(|own| own.compare(*tag).is_lt()).is_some() {}
            if let Some(own) = own.next_if(|own| own.compare(*tag).is_eq()) {
                matches.set(tag.index());
                marks.set(own.index());
            }
        }
        (marks, matches)
    }

    /// What it learns, and what to tell the sender, if that learns the result, too.
    ///
    /// # Errors
    /// The receiver as it was, if messages are still to be made or read.
    pub fn finish(mut self) -> Result<(Learnt, Option<Vec<u8>>), Box<Self>> {
        if !self.is_complete() {
            return Err(Box::new(self));
        }
        let (marks, matches) = self.compare();
        let session = &self.side.session;
        let count = matches.count_ones();
        let (learnt, told) = match session.learn {
            Learn::Intersection => (Learnt::Intersection(marks), matches.as_bytes().to_vec()),
            Learn::Count => (Learnt::Count(count), count.to_le_bytes().to_vec()),
        };
        let told = session.both_learn.then(|| {
            let mut message = self.side.places.begin(MATCHES, 0, told.len());
            message.extend(told);
            message
        });
        Ok((learnt, told))
    }
}

/// The other party.
pub struct Sender {
    side: Side,
    pointed: usize,
    read: usize,
    /// For a count: the tags of the receiver's points, which are sent once all have come.
    tags: Vec<Tagged>,
    tagged: usize,
}

impl Sender {
    /// A sender with these items, all of which are different.
    ///
    /// # Errors
    /// If there are not as many as agreed, or too many.
    pub fn new(
        session: Session,
        items: Zeroizing<Vec<u128>>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, Error> {
        let side = Side::new(session, items, session.sender_items, rng)?;
        Ok(Self { side, pointed: 0, read: 0, tags: Vec::new(), tagged: 0 })
    }

    /// Its next message of points; nothing after the last one.
    pub fn points(&mut self) -> Option<Vec<u8>> {
        let message = self.side.hashed(POINTS, self.pointed)?;
        self.pointed += 1;
        Some(message)
    }

    /// Reads the receiver's next points. [`Sender::tags`] answers them: at once, or for a count
    /// once all have come.
    ///
    /// # Errors
    /// If the message is refused.
    pub fn blinded(&mut self, message: &[u8]) -> Result<(), Error> {
        let all = self.side.session.receiver_items;
        let hashes = self.side.multiplied((BLINDED, self.read), all, message)?;
        let length = self.side.tags();
        self.tags.extend(hashes.into_iter().map(|hash| length.tag(hash, 0)));
        self.read += 1;
        if self.side.session.learn == Learn::Count && self.read == self.messages() {
            tags::sort(&mut self.tags);
        }
        Ok(())
    }

    /// How many messages the receiver's points make.
    fn messages(&self) -> usize {
        chunks(self.side.session.receiver_items, POINTS_EACH)
    }

    /// The next tags; nothing as long as points are missing for them, and after the last ones.
    pub fn tags(&mut self) -> Option<Vec<u8>> {
        let ready = match self.side.session.learn {
            Learn::Intersection => self.read,
            Learn::Count if self.read == self.messages() => self.read,
            Learn::Count => 0,
        };
        if self.tagged == ready {
            return None;
        }
        let length = self.side.tags();
        let numbers = chunk(self.tagged, self.side.session.receiver_items, POINTS_EACH);
        // Those in order go as they come; those for a count stay until the end.
        let first = match self.side.session.learn {
            Learn::Intersection => 0,
            Learn::Count => numbers.start,
        };
        let bytes = length.bytes() * numbers.len();
        let mut message = self.side.places.begin(TAGS, self.tagged, bytes);
        for tag in &self.tags[first..first + numbers.len()] {
            length.write(*tag, &mut message);
        }
        if self.side.session.learn == Learn::Intersection {
            self.tags.drain(..numbers.len());
        }
        self.tagged += 1;
        Some(message)
    }

    /// Whether all messages but the result are made and read.
    pub fn is_complete(&self) -> bool {
        self.tagged == self.messages()
            && self.pointed == chunks(self.side.session.sender_items, POINTS_EACH)
    }

    /// In which order its points went, once all messages but the result are made and read.
    ///
    /// # Errors
    /// The sender as it was, if they are not.
    pub(crate) fn into_order(self) -> Result<Zeroizing<Vec<u32>>, Box<Self>> {
        if self.is_complete() { Ok(self.side.order) } else { Err(Box::new(self)) }
    }

    /// What it learns from the receiver's last message.
    ///
    /// # Errors
    /// If that is refused.
    pub fn matches(self, message: &[u8]) -> Result<Learnt, Error> {
        let session = &self.side.session;
        if !session.both_learn || !self.is_complete() {
            return Err(Error::Complete);
        }
        match session.learn {
            Learn::Count => {
                let content = self.side.places.open(MATCHES, 0, 8, message)?;
                let found = u64::from_le_bytes(content.try_into().expect("8 bytes"));
                let most = session.receiver_items.min(session.sender_items) as u64;
                if found > most {
                    return Err(Error::Count { found, most });
                }
                Ok(Learnt::Count(found))
            }
            Learn::Intersection => {
                let bytes = session.sender_items.div_ceil(8);
                let content = self.side.places.open(MATCHES, 0, bytes, message)?;
                let matches = Bitmap::from_bytes(session.sender_items, content.to_vec())?;
                let mut marks = Bitmap::new(session.sender_items);
                for (number, index) in self.side.order.iter().enumerate() {
                    if matches.is_set(number) {
                        marks.set(*index as usize);
                    }
                }
                Ok(Learnt::Intersection(marks))
            }
        }
    }
}

#[cfg(test)]
mod tests;
