//! The leader: one link with each member, in any order or side by side, and their sum.

use std::sync::Arc;

use convelo_psi::Bitmap;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{
    BINS_EACH, COUNT_BYTES, Error, FOUND, Link, SHARES, Session, Sum, TAGS, TAGS_EACH, add, check,
    shares_of, tagged,
};
use crate::message::{chunk, chunks};
use crate::okvs::{Parameters, Rows, Value as _};
use crate::tags::{self, Tagged};
use crate::vole;
use crate::vole_oprf::{self as oprf, Encoded, Seeds};

/// The party that learns which of its items all have.
pub struct Leader {
    session: Session,
    own: Arc<Own>,
    /// Of each item, what has been added.
    sums: Zeroizing<Vec<Sum>>,
    /// The links of which shares have been added.
    links: Vec<Option<Link>>,
}

/// What all links use.
struct Own {
    items: Zeroizing<Vec<u128>>,
    encoded: Arc<Encoded>,
}

/// A link, which waits for the member's choice.
pub struct LeaderStart {
    link: Link,
    parameters: [Parameters; 2],
    own: Arc<Own>,
}

/// A link, which reads trees and masks the leader's table.
pub struct LeaderLink {
    link: Link,
    of_member: Parameters,
    own: Arc<Own>,
    oprf: oprf::Receiver,
    sums: Zeroizing<Vec<Sum>>,
}

/// A link, which has masked the leader's table and reads the member's.
pub struct LeaderShares {
    link: Link,
    of_member: Parameters,
    own: Arc<Own>,
    sums: Zeroizing<Vec<Sum>>,
    /// The leader's items as rows of the member's table.
    rows: Option<Rows>,
    number: usize,
}

/// What one member adds.
pub struct Share {
    link: Link,
    pub(super) sums: Zeroizing<Vec<Sum>>,
}

/// Which items all have.
pub struct Found {
    marks: Bitmap,
    items: Zeroizing<Vec<u128>>,
    seeds: Seeds,
    links: Vec<Link>,
}

/// What one member is told.
pub struct Telling {
    link: Link,
    tags: Vec<Tagged>,
    /// Messages made: how many were found, then their tags.
    number: usize,
}

impl Leader {
    /// A leader with these items, all of which are different. It encodes them, once for all links.
    ///
    /// # Errors
    /// If there are not as many as agreed, too many, or they cannot be encoded; or if there are not
    /// as many parties as there can be.
    pub fn new(
        session: Session,
        items: Zeroizing<Vec<u128>>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, Error> {
        let parameters = session.parameters()?;
        check(&items, session.leader_items)?;
        let encoded = Encoded::new(&parameters, &session.of_items(), items.clone(), rng)?;
        Ok(Self {
            session,
            sums: Zeroizing::new(vec![Sum::default(); items.len()]),
            own: Arc::new(Own { items, encoded: Arc::new(encoded) }),
            links: vec![None; session.members],
        })
    }

    /// The link with one member. All links may be used side by side.
    ///
    /// # Errors
    /// If it is of another session, there is no such member, or it has too many items.
    pub fn link(&self, link: Link) -> Result<LeaderStart, Error> {
        if link.session != self.session {
            return Err(Error::Session(link.member));
        }
        Ok(LeaderStart { link, parameters: link.parameters()?, own: Arc::clone(&self.own) })
    }

    /// Adds what has come over one link.
    ///
    /// # Errors
    /// If that member's share has been added before, or is of another session or leader.
    pub fn add(&mut self, share: Share) -> Result<(), Error> {
        let Share { link, sums } = share;
        if link.session != self.session {
            return Err(Error::Session(link.member));
        }
        let place = &mut self.links[link.member];
        if place.is_some() {
            return Err(Error::Again(link.member));
        }
        *place = Some(link);
        for (sum, share) in self.sums.iter_mut().zip(&*sums) {
            *sum = sum.xor(*share);
        }
        Ok(())
    }

    /// How many members' shares are still to be added.
    pub fn remaining(&self) -> usize {
        self.links.iter().filter(|link| link.is_none()).count()
    }

    /// Goes on to the result, once all shares have been added.
    ///
    /// # Errors
    /// The leader as it was, if they have not.
    pub fn finish(self) -> Result<Found, Box<Self>> {
        let Some(links) = self.links.iter().copied().collect() else {
            return Err(Box::new(self));
        };
        let mut marks = Bitmap::new(self.sums.len());
        let mut items = Zeroizing::new(Vec::new());
        for (at, sum) in self.sums.iter().enumerate() {
            if sum.ct_eq(&Sum::default()).into() {
                marks.set(at);
                items.push(self.own.items[at]);
            }
        }
        Ok(Found { marks, items, seeds: self.own.encoded.seeds(), links })
    }
}

impl LeaderStart {
    /// Reads the member's choice, and makes the answer.
    ///
    /// # Errors
    /// If the choice is refused.
    pub fn choice(
        self,
        choice: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(LeaderLink, Vec<u8>), Error> {
        let Self { link, parameters: [of_leader, of_member], own } = self;
        let setting = link.setting(of_leader);
        let (vole, answer) = vole::Receiver::new(setting.vole, choice, rng)?;
        let oprf = oprf::Receiver::new(setting, vole, Arc::clone(&own.encoded));
        let sums = Zeroizing::new(vec![Sum::default(); own.items.len()]);
        Ok((LeaderLink { link, of_member, own, oprf, sums }, answer))
    }
}

impl LeaderLink {
    /// How many messages with trees are still to be read.
    pub fn remaining(&self) -> usize {
        self.oprf.remaining()
    }

    /// Reads the member's next trees, and makes the next part of the masked table.
    ///
    /// # Errors
    /// If the message is refused.
    pub fn trees(&mut self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.oprf.trees(message, |outputs, items| add(&mut self.sums, outputs, items))?)
    }

    /// Goes on to the member's table, once all trees are read.
    ///
    /// # Errors
    /// The link as it was, if they are not.
    pub fn masked(self) -> Result<LeaderShares, Box<Self>> {
        if self.remaining() > 0 {
            return Err(Box::new(self));
        }
        let Self { link, of_member, own, sums, .. } = self;
        Ok(LeaderShares { link, of_member, own, sums, rows: None, number: 0 })
    }
}

impl LeaderShares {
    /// How many messages with parts of the table are still to be read.
    pub fn remaining(&self) -> usize {
        chunks(self.of_member.bins(), BINS_EACH) - self.number
    }

    /// Reads the next part of the member's table.
    ///
    /// # Errors
    /// If the message is refused.
    pub fn shares(&mut self, message: &[u8]) -> Result<(), Error> {
        if self.remaining() == 0 {
            return Err(Error::Complete);
        }
        let (seed, bins) = shares_of(self.number, &self.of_member);
        let bytes = seed + size_of::<Sum>() * self.of_member.entries(&bins).len();
        let content = self.link.places().open(SHARES, self.number, bytes, message)?;
        let (seed, content) = content.split_at(seed);
        let rows = match &mut self.rows {
            Some(rows) => rows,
            none => {
                let seed = seed.try_into().expect("as many bytes as were opened");
                none.insert(Rows::new(&self.of_member, &seed, &self.own.items)?)
            }
        };
        let range = rows.range(&bins);
        let mut values = Zeroizing::new(vec![Sum::default(); range.len()]);
        rows.decode_bins(bins, bytemuck::cast_slice::<_, Sum>(content), &mut values)
            .expect("bins of this table");
        for (value, item) in values.iter().zip(&rows.items()[range]) {
            let sum = &mut self.sums[*item as usize];
            *sum = sum.xor(*value);
        }
        self.number += 1;
        Ok(())
    }

    /// What to add, once the whole table has been read.
    ///
    /// # Errors
    /// The link as it was, if it has not.
    pub fn finish(self) -> Result<Share, Box<Self>> {
        if self.remaining() > 0 {
            return Err(Box::new(self));
        }
        Ok(Share { link: self.link, sums: self.sums })
    }
}

impl Share {
    /// The link over which it has come.
    pub fn link(&self) -> Link {
        self.link
    }
}

impl Found {
    /// Which of the leader's items all have, by index.
    pub fn marks(&self) -> &Bitmap {
        &self.marks
    }

    /// What to tell one member; nothing if it is not told.
    pub fn tell(&self, member: usize) -> Option<Telling> {
        let link = *self.links.get(member).filter(|link| link.told)?;
        let mut hashed = self.items.clone();
        link.hash_of_tags(&self.seeds).each(&mut hashed);
        let mut tags = tagged(&link, &hashed);
        tags::sort(&mut tags);
        Some(Telling { link, tags, number: 0 })
    }
}

impl Telling {
    /// The next message; nothing after the last one.
    pub fn message(&mut self) -> Option<Vec<u8>> {
        let places = self.link.places();
        let Some(number) = self.number.checked_sub(1) else {
            self.number = 1;
            let mut message = places.begin(FOUND, 0, COUNT_BYTES);
            message.extend((self.tags.len() as u64).to_le_bytes());
            return Some(message);
        };
        let numbers = chunk(number, self.tags.len(), TAGS_EACH);
        if numbers.is_empty() {
            return None;
        }
        let length = self.link.tags();
        let mut message = places.begin(TAGS, number, length.bytes() * numbers.len());
        for tag in &self.tags[numbers] {
            length.write(*tag, &mut message);
        }
        self.number += 1;
        Some(message)
    }
}
