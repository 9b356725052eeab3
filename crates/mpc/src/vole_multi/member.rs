//! A member: keys with the other members, then its link with the leader.

use convelo_psi::Bitmap;
use rand_core::CryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    BINS_EACH, COUNT_BYTES, Error, FOUND, KEY, Link, SHARES, Sum, TAGS, TAGS_EACH, add, check, cut,
    shares_of, tagged,
};
use crate::message::{Places, chunk, chunks};
use crate::okvs::{self, Filler, Parameters, Rows, Value as _};
use crate::tags::{self, Tagged};
use crate::vole_oprf::{self as oprf, Hash, Seeds};

/// Bytes of half a key.
const HALF_BYTES: usize = 32;

/// The exchange of keys between the members, the first messages of all.
pub struct Exchange {
    link: Link,
    places: Places,
    /// This member's half for each of the others; one more, for itself.
    mine: Vec<Zeroizing<[u8; HALF_BYTES]>>,
    theirs: Vec<Option<Zeroizing<[u8; HALF_BYTES]>>>,
}

/// The keys that a member shares with all others.
pub struct Keys {
    link: Link,
    keys: Vec<Hash>,
}

/// A member, which waits for the answer to its choice.
pub struct MemberStart {
    keys: Keys,
    shape: Parameters,
    oprf: oprf::SenderStart,
}

/// A member, which sends trees and reads the leader's masked table.
pub struct Member {
    keys: Keys,
    shape: Parameters,
    oprf: oprf::Sender,
    /// Of each item, what its table is to hold.
    values: Zeroizing<Vec<Sum>>,
}

/// A member, which sends its table.
pub struct MemberShares {
    link: Link,
    items: Zeroizing<Vec<u128>>,
    seeds: Seeds,
    seed: okvs::Seed,
    rows: Rows,
    values: Zeroizing<Vec<Sum>>,
    filler: Filler,
    number: usize,
}

/// A member, which has sent its table, and waits for the result.
pub struct MemberWaits {
    link: Link,
    items: Zeroizing<Vec<u128>>,
    seeds: Seeds,
}

/// A member, which reads the result.
pub struct MemberFound {
    link: Link,
    own: Vec<Tagged>,
    found: usize,
    number: usize,
    /// The last tag, of which the next one must be larger.
    last: Option<Tagged>,
    /// The first of its own tags that is not smaller.
    at: usize,
    marks: Bitmap,
}

impl Exchange {
    /// Chooses this member's halves of all keys.
    ///
    /// # Errors
    /// If there is no such member, there are not as many parties as there can be, or too many
    /// items.
    pub fn new(link: Link, rng: &mut impl CryptoRng) -> Result<Self, Error> {
        link.parameters()?;
        let half = || {
            let mut half = Zeroizing::new([0; HALF_BYTES]);
            rng.fill_bytes(&mut *half);
            half
        };
        Ok(Self {
            places: Places::new(blake3::derive_key("convelo vole-multi keys", &link.session.sid)),
            mine: std::iter::repeat_with(half).take(link.session.members).collect(),
            theirs: vec![None; link.session.members],
            link,
        })
    }

    /// The message for one of the other members. Nobody else may see it, the leader above all.
    ///
    /// # Errors
    /// If there is no such member.
    pub fn key(&self, to: usize) -> Result<Vec<u8>, Error> {
        self.check(to)?;
        let mut message = self.places.begin(KEY, self.number(self.link.member, to), HALF_BYTES);
        message.extend(*self.mine[to]);
        Ok(message)
    }

    /// Reads the message of one of the other members.
    ///
    /// # Errors
    /// If it is refused, there is no such member, or its message has come before.
    pub fn read(&mut self, from: usize, message: &[u8]) -> Result<(), Error> {
        self.check(from)?;
        if self.theirs[from].is_some() {
            return Err(Error::Again(from));
        }
        let number = self.number(from, self.link.member);
        let half = self.places.open(KEY, number, HALF_BYTES, message)?;
        let half = half.try_into().expect("as many bytes as were opened");
        self.theirs[from] = Some(Zeroizing::new(half));
        Ok(())
    }

    /// How many members' messages are still to be read.
    pub fn remaining(&self) -> usize {
        self.theirs.iter().filter(|theirs| theirs.is_none()).count() - 1
    }

    /// The keys, once all messages are read.
    ///
    /// # Errors
    /// The exchange as it was, if they are not.
    pub fn finish(self) -> Result<Keys, Box<Self>> {
        if self.remaining() > 0 {
            return Err(Box::new(self));
        }
        let sid = blake3::derive_key("convelo vole-multi zero sharing", &self.link.session.sid);
        let halves = self.mine.iter().zip(&self.theirs).enumerate();
        let keys = halves.filter_map(|(other, (mine, theirs))| {
            let (this, theirs) = (self.link.member, theirs.as_ref()?);
            let (lower, upper) = if this < other { (mine, theirs) } else { (theirs, mine) };
            let mut hasher = blake3::Hasher::new_keyed(&sid);
            let pair = self.number(this.min(other), this.max(other)) as u64;
            hasher.update(&pair.to_le_bytes()).update(&**lower).update(&**upper);
            let mut key = Zeroizing::new([0; 16]);
            hasher.finalize_xof().fill(&mut *key);
            hasher.zeroize();
            Some(Hash::new(&key))
        });
        Ok(Keys { keys: keys.collect(), link: self.link })
    }

    fn check(&self, other: usize) -> Result<(), Error> {
        let members = self.link.session.members;
        if other >= members || other == self.link.member {
            return Err(Error::Member { found: other, members });
        }
        Ok(())
    }

    /// That of the message from one member to another.
    fn number(&self, from: usize, to: usize) -> usize {
        from * self.link.session.members + to
    }
}

impl Keys {
    /// Adds S(x) of each item.
    pub(super) fn add_shares(&self, items: &[u128], values: &mut [Sum]) {
        const BATCH: usize = 1 << 10;
        let mut hashed = Zeroizing::new([0; BATCH]);
        for (items, values) in items.chunks(BATCH).zip(values.chunks_mut(BATCH)) {
            for key in &self.keys {
                let hashed = &mut hashed[..items.len()];
                hashed.copy_from_slice(items);
                key.each(hashed);
                for (value, share) in values.iter_mut().zip(&*hashed) {
                    *value = value.xor(cut(*share));
                }
            }
        }
    }
}

impl MemberStart {
    /// A member with these items, all of which are different, and its first message to the leader.
    ///
    /// # Errors
    /// If there are not as many as agreed.
    pub fn new(
        keys: Keys,
        items: Zeroizing<Vec<u128>>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<u8>), Error> {
        let [of_leader, shape] = keys.link.parameters()?;
        check(&items, keys.link.items)?;
        let setting = keys.link.setting(of_leader);
        let (oprf, choice) = oprf::SenderStart::new(setting, items, rng)?;
        Ok((Self { keys, shape, oprf }, choice))
    }

    /// Reads the leader's answer.
    ///
    /// # Errors
    /// If it is refused.
    pub fn answer(self, answer: &[u8]) -> Result<Member, Error> {
        let Self { keys, shape, oprf } = self;
        let values = Zeroizing::new(vec![Sum::default(); keys.link.items]);
        Ok(Member { keys, shape, oprf: oprf.answer(answer)?, values })
    }
}

impl Member {
    /// The next trees; nothing after the last ones. Each call keeps memory until the part of the
    /// leader's table that belongs to it has come.
    pub fn trees(&mut self, rng: &mut impl CryptoRng) -> Option<Vec<u8>> {
        self.oprf.trees(rng)
    }

    /// How many parts of the leader's table are still to be read.
    pub fn remaining(&self) -> usize {
        self.oprf.remaining()
    }

    /// Reads the next part of the leader's table.
    ///
    /// # Errors
    /// If it is refused, or its trees have not been made.
    pub fn masked(&mut self, message: &[u8]) -> Result<(), Error> {
        self.oprf.masked(message, |outputs, items| add(&mut self.values, outputs, items))?;
        Ok(())
    }

    /// Goes on to the member's own table, once the leader's has been read.
    ///
    /// # Errors
    /// The member as it was, if it has not.
    pub fn unmasked(self, rng: &mut impl CryptoRng) -> Result<MemberShares, Box<Self>> {
        let Self { keys, shape, oprf, mut values } = self;
        let (items, seeds) = match oprf.finish() {
            Ok(done) => done,
            Err(oprf) => return Err(Box::new(Self { keys, shape, oprf: *oprf, values })),
        };
        keys.add_shares(&items, &mut values);
        let mut seed = okvs::Seed::default();
        rng.fill_bytes(&mut seed);
        let rows = Rows::new(&shape, &seed, &items).expect("no more items than agreed");
        let filler = Filler::new(rng);
        Ok(MemberShares { link: keys.link, items, seeds, seed, rows, values, filler, number: 0 })
    }
}

impl MemberShares {
    /// The next part of its table; nothing after the last one.
    ///
    /// # Errors
    /// If the items cannot be encoded.
    pub fn shares(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let parameters = self.rows.parameters();
        let (seed, bins) = shares_of(self.number, parameters);
        if bins.is_empty() {
            return Ok(None);
        }
        let mut table = vec![Sum::default(); parameters.entries(&bins).len()];
        self.rows.encode_bins(bins, &self.values, &self.filler, &mut table)?;
        let table: &[u8] = bytemuck::cast_slice(&table);
        let mut message = self.link.places().begin(SHARES, self.number, seed + table.len());
        message.extend(&self.seed[..seed]);
        message.extend(table);
        self.number += 1;
        Ok(Some(message))
    }

    /// How many parts of its table are still to be made.
    pub fn remaining(&self) -> usize {
        chunks(self.rows.parameters().bins(), BINS_EACH) - self.number
    }

    /// Goes on to the result, once the table is sent; nothing if this member is not told.
    ///
    /// # Errors
    /// The member as it was, if parts are still to be made.
    pub fn sent(self) -> Result<Option<MemberWaits>, Box<Self>> {
        if self.remaining() > 0 {
            return Err(Box::new(self));
        }
        let Self { link, items, seeds, .. } = self;
        Ok(link.told.then_some(MemberWaits { link, items, seeds }))
    }
}

impl MemberWaits {
    /// Reads how many items all have.
    ///
    /// # Errors
    /// If the message is refused, or there are more than the leader or the member has.
    pub fn found(self, message: &[u8]) -> Result<MemberFound, Error> {
        let Self { link, items, seeds } = self;
        let content = link.places().open(FOUND, 0, COUNT_BYTES, message)?;
        let count = u64::from_le_bytes(content.try_into().expect("8 bytes"));
        let most = link.items.min(link.session.leader_items);
        let found = usize::try_from(count).ok().filter(|found| *found <= most);
        let found = found.ok_or(Error::Count { found: count, most: most as u64 })?;
        let mut hashed = items;
        link.hash_of_tags(&seeds).each(&mut hashed);
        let mut own = tagged(&link, &hashed);
        tags::sort(&mut own);
        let marks = Bitmap::new(link.items);
        Ok(MemberFound { link, own, found, number: 0, last: None, at: 0, marks })
    }
}

impl MemberFound {
    /// How many messages with tags are still to be read.
    pub fn remaining(&self) -> usize {
        chunks(self.found, TAGS_EACH) - self.number
    }

    /// Reads the leader's next tags.
    ///
    /// # Errors
    /// If the message is refused, the tags are not in order, or one is of no item of this member.
    pub fn tags(&mut self, message: &[u8]) -> Result<(), Error> {
        if self.remaining() == 0 {
            return Err(Error::Complete);
        }
        let length = self.link.tags();
        let numbers = chunk(self.number, self.found, TAGS_EACH);
        let bytes = length.bytes() * numbers.len();
        let content = self.link.places().open(TAGS, self.number, bytes, message)?;
        for (number, tag) in numbers.zip(length.read(content)) {
            if self.last.is_some_and(|last| last.compare(tag).is_ge()) {
                return Err(Error::Order(number));
            }
            self.last = Some(tag);
            while self.own.get(self.at).is_some_and(|own| own.compare(tag).is_lt()) {
                self.at += 1;
            }
            let own = self.own.get(self.at).filter(|own| own.compare(tag).is_eq());
            self.marks.set(own.ok_or(Error::Foreign(number))?.index());
        }
        self.number += 1;
        Ok(())
    }

    /// Which of the member's items all have, by index.
    ///
    /// # Errors
    /// The member as it was, if tags are still to be read.
    pub fn finish(self) -> Result<Bitmap, Box<Self>> {
        if self.remaining() > 0 {
            return Err(Box::new(self));
        }
        Ok(self.marks)
    }
}
