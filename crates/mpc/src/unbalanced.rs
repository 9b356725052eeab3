//! Which of a client's items a party with many items has, from a set that is prepared once.
//!
//! A provider with a long-lived key k prepares its items once: the sorted tags of F_k(y), where F is
//! the oblivious pseudorandom function of [`crate::oprf`]. A client fetches them once, and then asks
//! for its own items: it learns F_k(x) for them and looks the tags up. What a question costs depends
//! on the client's items alone. This is the protocol of Jarecki and Liu, "Fast Secure Computation of
//! Set Intersection" (SCN 2010), with the function of RFC 9497.
//!
//! | message | from | holds | the other side learns |
//! |---|---|---|---|
//! | prepared set | provider | a header; the tags of its items, sorted | nothing beside its size, and what stands below |
//! | blinded | client | r H(x), with a new r for each item | nothing beside the agreed number |
//! | evaluated | provider | k r H(x); in mode VOPRF a proof about all elements of the message | which of its items the provider has |
//!
//! # Model
//!
//! The client's items are hidden unconditionally, and the provider never learns a result. A client
//! learns the function for as many items as it asks, whatever it sends (the one-more gap
//! Diffie-Hellman assumption, in the random oracle model); what it asks need not be what it
//! has, so **a client can test guesses, and only the number of questions limits that**. Whoever
//! serves must count them over all sessions of a client. Answers also help to find the key, which
//! then takes 2^(126 - log2(Q) / 2) steps after Q questions (RFC 9497, section 7.2.3): no danger with
//! 2^28 of them, and one more reason for a new key after many sessions.
//!
//! A provider chooses what it prepares, as in any intersection, and can prepare tags of no items. In
//! mode VOPRF it cannot use another key for some items or some clients: all elements must have been
//! multiplied by the key of the public key in the header, and the session names the header. In mode
//! OPRF a provider that cheats can make any of a client's items match nothing.
//!
//! # What can be linked
//!
//! An item has the same tag in every set that is prepared with the same key, and the same output in
//! every session:
//!
//! - Who has two sets of the same key sees how many items came and went between them, and knows it
//!   of each item for which it has asked once.
//! - A client that keeps its outputs looks its items up in every later set without asking.
//! - Clients that put their outputs together know them for all their items.
//! - Once the key is known, every item can be guessed from a set that was kept.
//!
//! A new key ends all of that, and every client must then fetch the set and ask again. Two
//! preparations whose items mean different things should not share a key either.
//!
//! # Tags
//!
//! A tag has 40 bits more than the logarithms of the numbers of items and of questions together, so
//! that among so many questions the probability of any wrong match is at most 2^-40. The questions are
//! those of all clients and sessions that are to share that bound; a session with more is refused.

use std::cmp::Ordering;
use std::collections::VecDeque;

use convelo_psi::Bitmap;
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::message::{MessageError, Places, chunk, chunks};
use crate::oprf::{
    self, Blinds, ELEMENT_BYTES, Element, Evaluated, Mode, Output, PROOF_BYTES, Proof, PublicKey,
    SecretKey,
};
use crate::tags::{self, MAXIMUM_ITEMS, TagLength, Tagged};

/// Items of a message: 128 KiB.
const ITEMS_EACH: usize = 1 << 12;

/// Bytes of a piece in which a set is written.
const PIECE_BYTES: usize = 1 << 20;

/// What a prepared set begins with: a name, the version, the suite (1: ristretto255-SHA512).
const BEGINNING: [u8; 10] = *b"psi-tags\x01\x01";

/// Bytes of the header of a prepared set.
pub const HEADER_BYTES: usize = BEGINNING.len() + 1 + 2 * 8 + ELEMENT_BYTES + 32;

const BLINDED: &str = "blinded";
const EVALUATED: &str = "evaluated";

/// Why a prepared set, a session or a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// There are more items or questions than the protocol or the caller allows.
    #[error("{items} items or questions: there can be {most}")]
    Size {
        /// How many there are.
        items: u64,
        /// How many there can be.
        most: u64,
    },
    /// There are not as many items as agreed or announced.
    #[error("{found} items, and {agreed} were agreed on")]
    Items {
        /// How many there are.
        found: usize,
        /// How many there should be.
        agreed: usize,
    },
    /// Two items of a set have the same tag: they are the same.
    #[error("an item stands twice in the set")]
    Duplicate,
    /// Bytes are not the header of a prepared set, or of one that this version does not know.
    #[error("this is not a prepared set of version 1 and suite ristretto255-SHA512")]
    Header,
    /// The public key of a header is refused.
    #[error("the public key of the set: {0}")]
    PublicKey(oprf::Error),
    /// The tags have another length than the header gives them.
    #[error("the tags have {found} bytes, expected {expected}")]
    Length {
        /// Bytes that they have.
        found: usize,
        /// Bytes that they should have.
        expected: usize,
    },
    /// The tags are not in order, or there are equal ones.
    #[error("the tags are not strictly ascending, from number {0} on")]
    Order(usize),
    /// The tags are not those of the header.
    #[error("the tags do not have the hash that the header gives them")]
    Hash,
    /// The secret key does not belong to the public key of the set.
    #[error("the key is not the one under which the set was prepared")]
    Key,
    /// The session is about another set.
    #[error("the session is about another prepared set")]
    Set,
    /// A message was refused.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// What stands in a message was refused.
    #[error("message {message}: {source}")]
    Content {
        /// The number of the message.
        message: usize,
        /// Why.
        source: oprf::Error,
    },
    /// A message after the last one, or an answer to what was not asked.
    #[error("a message after the last one")]
    Complete,
}

/// What a prepared set is: its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    mode: Mode,
    items: usize,
    questions: usize,
    public: PublicKey,
    /// Of the tags.
    hash: [u8; 32],
}

impl Header {
    /// Reads a header, of a set of at most `most` items.
    ///
    /// # Errors
    /// If it is none, or there are more.
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES], most: usize) -> Result<Self, Error> {
        let (beginning, rest) = bytes.split_at(BEGINNING.len());
        let (mode, rest) = rest.split_at(1);
        let (numbers, rest) = rest.split_at(16);
        let (public, hash) = rest.split_at(ELEMENT_BYTES);
        if beginning != BEGINNING {
            return Err(Error::Header);
        }
        let mode = match mode {
            [0] => Mode::Oprf,
            [1] => Mode::Voprf,
            _ => return Err(Error::Header),
        };
        let [items, questions] = numbers.as_chunks().0 else { unreachable!("16 bytes") };
        let public = public.try_into().expect("as many bytes");
        Ok(Self {
            mode,
            items: size(u64::from_le_bytes(*items), most.min(MAXIMUM_ITEMS))?,
            questions: size(u64::from_le_bytes(*questions), MAXIMUM_ITEMS)?,
            public: PublicKey::from_bytes(public).map_err(Error::PublicKey)?,
            hash: hash.try_into().expect("the last 32 bytes"),
        })
    }

    /// The bytes of it.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mode = match self.mode {
            Mode::Oprf => [0],
            Mode::Voprf => [1],
        };
        let [items, questions] = [self.items, self.questions].map(|of| (of as u64).to_le_bytes());
        let public = self.public.to_bytes();
        let parts: [&[u8]; 6] = [&BEGINNING, &mode, &items, &questions, &public, &self.hash];
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = bytes.as_mut_slice();
        for part in parts {
            let (place, after) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = after;
        }
        bytes
    }

    /// Whether the provider proves which key it uses.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How many items the set has.
    pub fn items(&self) -> usize {
        self.items
    }

    /// For how many questions the tags are long enough.
    pub fn questions(&self) -> usize {
        self.questions
    }

    /// The key under which the set was prepared.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// How many bytes of tags follow.
    pub fn following(&self) -> usize {
        self.length().bytes() * self.items
    }

    fn length(&self) -> TagLength {
        TagLength::of(self.questions, self.items)
    }
}

fn size(items: u64, most: usize) -> Result<usize, Error> {
    let refused = Error::Size { items, most: most as u64 };
    usize::try_from(items).ok().filter(|items| *items <= most).ok_or(refused)
}

/// A set in preparation, to which items are added.
pub struct Preparation<'k> {
    key: &'k SecretKey,
    mode: Mode,
    items: usize,
    questions: usize,
    tags: Vec<Tagged>,
}

impl<'k> Preparation<'k> {
    /// Begins a set of so many items, with tags for so many questions.
    ///
    /// # Errors
    /// If either is more than [`MAXIMUM_ITEMS`].
    pub fn new(
        key: &'k SecretKey,
        mode: Mode,
        items: usize,
        questions: usize,
    ) -> Result<Self, Error> {
        for of in [items, questions] {
            size(of as u64, MAXIMUM_ITEMS)?;
        }
        Ok(Self { key, mode, items, questions, tags: Vec::with_capacity(items) })
    }

    /// Adds items.
    ///
    /// # Errors
    /// If there are more than announced.
    pub fn add(&mut self, items: &[u128]) -> Result<(), Error> {
        let found = self.tags.len() + items.len();
        if found > self.items {
            return Err(Error::Items { found, agreed: self.items });
        }
        let length = TagLength::of(self.questions, self.items);
        for items in items.chunks(ITEMS_EACH) {
            let outputs = self.key.evaluate(self.mode, &inputs(items));
            let outputs = outputs.expect("16 bytes, hashed to the identity at 2^-252");
            self.tags.extend(outputs.iter().map(|output| length.tag(hash(output), 0)));
        }
        Ok(())
    }

    /// The set, once all items are added.
    ///
    /// # Errors
    /// If there are fewer items than announced, or two are the same.
    pub fn finish(mut self) -> Result<PreparedSet, Error> {
        if self.tags.len() != self.items {
            return Err(Error::Items { found: self.tags.len(), agreed: self.items });
        }
        tags::sort(&mut self.tags);
        let length = TagLength::of(self.questions, self.items);
        let mut tags = Vec::with_capacity(length.bytes() * self.items);
        let mut last: Option<Tagged> = None;
        for tag in &self.tags {
            if last.is_some_and(|last| last.compare(*tag).is_eq()) {
                return Err(Error::Duplicate);
            }
            last = Some(*tag);
            length.write(*tag, &mut tags);
        }
        let header = Header {
            mode: self.mode,
            items: self.items,
            questions: self.questions,
            public: *self.key.public(),
            hash: *begin_hash().update(&tags).finalize().as_bytes(),
        };
        Ok(PreparedSet { header, tags })
    }
}

/// The tags of a provider's items, in the order of the tags, which says nothing about the items.
#[derive(Clone, PartialEq, Eq)]
pub struct PreparedSet {
    header: Header,
    tags: Vec<u8>,
}

impl PreparedSet {
    /// What it is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its bytes, in pieces: first the header, then tags.
    pub fn pieces(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let header = std::iter::once(self.header.to_bytes().to_vec());
        header.chain(self.tags.chunks(PIECE_BYTES).map(<[u8]>::to_vec))
    }

    fn contains(&self, hash: u128) -> bool {
        let length = self.header.length();
        let wanted = length.tag(hash, 0);
        let (mut from, mut to) = (0, self.header.items);
        while from < to {
            let middle = from.midpoint(to);
            let bytes = &self.tags[length.bytes() * middle..][..length.bytes()];
            let tag = length.read(bytes).next().expect("one tag");
            match tag.compare(wanted) {
                Ordering::Equal => return true,
                Ordering::Less => from = middle + 1,
                Ordering::Greater => to = middle,
            }
        }
        false
    }
}

/// Reads the tags that follow a header, in pieces of any length.
pub struct Reader {
    header: Header,
    tags: Vec<u8>,
    hasher: blake3::Hasher,
    /// How many tags are known to be in order.
    ordered: usize,
}

impl Reader {
    /// Begins to read the set that has this header.
    pub fn new(header: Header) -> Self {
        Self { header, tags: Vec::new(), hasher: begin_hash(), ordered: 0 }
    }

    /// How many bytes are still to be read.
    pub fn remaining(&self) -> usize {
        self.header.following() - self.tags.len()
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// If there are more bytes than the header says, or the tags are not in order.
    pub fn read(&mut self, piece: &[u8]) -> Result<(), Error> {
        if piece.len() > self.remaining() {
            let found = self.tags.len() + piece.len();
            return Err(Error::Length { found, expected: self.header.following() });
        }
        self.tags.extend_from_slice(piece);
        self.hasher.update(piece);
        let length = self.header.length();
        let from = self.ordered.saturating_sub(1);
        let mut last: Option<Tagged> = None;
        for (number, tag) in (from..).zip(length.read(&self.tags[length.bytes() * from..])) {
            if last.is_some_and(|last| last.compare(tag).is_ge()) {
                return Err(Error::Order(number));
            }
            (last, self.ordered) = (Some(tag), number + 1);
        }
        Ok(())
    }

    /// The set, once it is read.
    ///
    /// # Errors
    /// If there are fewer bytes than the header says, or others.
    pub fn finish(self) -> Result<PreparedSet, Error> {
        let Self { header, tags, hasher, .. } = self;
        if tags.len() != header.following() {
            return Err(Error::Length { found: tags.len(), expected: header.following() });
        }
        if hasher.finalize() != header.hash {
            return Err(Error::Hash);
        }
        Ok(PreparedSet { header, tags })
    }
}

/// What both parties must agree on before the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Hashed from all that the session is bound to; never used twice.
    pub sid: [u8; 32],
    /// The set about which the client asks, and so the key that the provider must use.
    pub set: Header,
    /// For how many items the client asks, which the provider learns.
    pub asked: usize,
}

impl Session {
    fn places(&self) -> Result<Places, Error> {
        size(self.asked as u64, self.set.questions)?;
        let mut hasher = blake3::Hasher::new_derive_key("convelo unbalanced messages");
        hasher.update(&self.sid).update(&self.set.to_bytes());
        hasher.update(&(self.asked as u64).to_le_bytes());
        Ok(Places::new(*hasher.finalize().as_bytes()))
    }

    fn proof_bytes(&self) -> usize {
        match self.set.mode {
            Mode::Oprf => 0,
            Mode::Voprf => PROOF_BYTES,
        }
    }
}

/// The party that asks.
pub struct Client {
    session: Session,
    places: Places,
    items: Zeroizing<Vec<u128>>,
    asked: usize,
    /// What was asked and is not answered.
    waiting: VecDeque<Blinds>,
    answered: usize,
    hashes: Zeroizing<Vec<u128>>,
}

impl Client {
    /// A client that asks for these items.
    ///
    /// # Errors
    /// If there are not as many as agreed, or more than the set has tags for.
    pub fn new(session: Session, items: Zeroizing<Vec<u128>>) -> Result<Self, Error> {
        let places = session.places()?;
        if items.len() != session.asked {
            return Err(Error::Items { found: items.len(), agreed: session.asked });
        }
        let hashes = Zeroizing::new(Vec::with_capacity(items.len()));
        let waiting = VecDeque::new();
        Ok(Self { session, places, items, asked: 0, waiting, answered: 0, hashes })
    }

    /// Its next question; nothing after the last one. Each question keeps memory until it is
    /// answered.
    pub fn ask(&mut self, rng: &mut impl CryptoRng) -> Option<Vec<u8>> {
        let numbers = chunk(self.asked, self.items.len(), ITEMS_EACH);
        if numbers.is_empty() {
            return None;
        }
        let inputs = inputs(&self.items[numbers]);
        let blinds = oprf::blind(self.session.set.mode, &inputs, rng)
            .expect("16 bytes, hashed to the identity at 2^-252");
        let elements = blinds.elements().as_flattened();
        let mut message = self.places.begin(BLINDED, self.asked, elements.len());
        message.extend(elements);
        self.waiting.push_back(blinds);
        self.asked += 1;
        Some(message)
    }

    /// Reads the answer to its oldest question. After an error nothing has changed.
    ///
    /// # Errors
    /// If the message is refused, or nothing was asked.
    pub fn answer(&mut self, message: &[u8]) -> Result<(), Error> {
        let blinds = self.waiting.front().ok_or(Error::Complete)?;
        let numbers = chunk(self.answered, self.items.len(), ITEMS_EACH);
        let bytes = ELEMENT_BYTES * numbers.len() + self.session.proof_bytes();
        let content = self.places.open(EVALUATED, self.answered, bytes, message)?;
        let (elements, proof) = content.split_at(ELEMENT_BYTES * numbers.len());
        let refused = |source| Error::Content { message: self.answered, source };
        let proof = match self.session.set.mode {
            Mode::Oprf => None,
            Mode::Voprf => {
                let proof = proof.try_into().expect("as many bytes");
                Some(Proof::from_bytes(proof).map_err(refused)?)
            }
        };
        let elements: &[Element] = elements.as_chunks().0;
        let evaluated = Evaluated { elements: elements.to_vec(), proof };
        let inputs = inputs(&self.items[numbers]);
        let outputs =
            blinds.finalize(&inputs, self.session.set.public(), &evaluated).map_err(refused)?;
        self.hashes.extend(outputs.iter().map(hash));
        self.waiting.pop_front();
        self.answered += 1;
        Ok(())
    }

    /// How many answers are still to be read.
    pub fn remaining(&self) -> usize {
        chunks(self.items.len(), ITEMS_EACH) - self.answered
    }

    /// Goes on to the comparison, once all answers are read.
    ///
    /// # Errors
    /// The client as it was, if they are not.
    pub fn answered(self) -> Result<Answered, Box<Self>> {
        if self.remaining() > 0 {
            return Err(Box::new(self));
        }
        Ok(Answered { set: self.session.set, hashes: self.hashes })
    }
}

/// What a client has learnt of its items.
pub struct Answered {
    set: Header,
    hashes: Zeroizing<Vec<u128>>,
}

impl Answered {
    /// Which of its items are in the set, by index.
    ///
    /// # Errors
    /// If it is not the set that the session was about.
    pub fn compare(&self, set: &PreparedSet) -> Result<Bitmap, Error> {
        if set.header != self.set {
            return Err(Error::Set);
        }
        let mut marks = Bitmap::new(self.hashes.len());
        for (index, hash) in self.hashes.iter().enumerate() {
            if set.contains(*hash) {
                marks.set(index);
            }
        }
        Ok(marks)
    }
}

/// The provider, which answers a client.
pub struct Server<'k> {
    session: Session,
    places: Places,
    key: &'k SecretKey,
    number: usize,
}

impl<'k> Server<'k> {
    /// A provider with the key under which the set was prepared. It does not need the tags.
    ///
    /// # Errors
    /// If it is another key, or more is asked than the set has tags for.
    pub fn new(session: Session, key: &'k SecretKey) -> Result<Self, Error> {
        let places = session.places()?;
        if key.public() != session.set.public() {
            return Err(Error::Key);
        }
        Ok(Self { session, places, key, number: 0 })
    }

    /// Answers the client's next question.
    ///
    /// # Errors
    /// If the message is refused.
    pub fn answer(&mut self, message: &[u8], rng: &mut impl CryptoRng) -> Result<Vec<u8>, Error> {
        let numbers = chunk(self.number, self.session.asked, ITEMS_EACH);
        if numbers.is_empty() {
            return Err(Error::Complete);
        }
        let bytes = ELEMENT_BYTES * numbers.len();
        let content = self.places.open(BLINDED, self.number, bytes, message)?;
        let Evaluated { elements, proof } = self
            .key
            .blind_evaluate(self.session.set.mode, content.as_chunks().0, rng)
            .map_err(|source| Error::Content { message: self.number, source })?;
        let bytes = bytes + self.session.proof_bytes();
        let mut answer = self.places.begin(EVALUATED, self.number, bytes);
        answer.extend(elements.as_flattened());
        answer.extend(proof.iter().flat_map(Proof::to_bytes));
        self.number += 1;
        Ok(answer)
    }

    /// How many questions are still to be answered.
    pub fn remaining(&self) -> usize {
        chunks(self.session.asked, ITEMS_EACH) - self.number
    }
}

/// Items as inputs of the function.
fn inputs(items: &[u128]) -> Zeroizing<Vec<[u8; 16]>> {
    Zeroizing::new(items.iter().map(|item| item.to_le_bytes()).collect())
}

/// What a tag is made of.
fn hash(output: &Output) -> u128 {
    let (first, _) = output.split_at(16);
    u128::from_be_bytes(first.try_into().expect("16 bytes"))
}

fn begin_hash() -> blake3::Hasher {
    blake3::Hasher::new_derive_key("convelo prepared set tags")
}

#[cfg(test)]
mod tests;
