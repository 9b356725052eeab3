//! Intersection of the sets of two to sixteen parties, from VOLE and zero-sharing.
//!
//! The star of Kolesnikov, Matania, Pinkas, Rosulek and Trieu, "Practical Multi-party Private Set
//! Intersection from Symmetric-Key Techniques" (CCS 2017), in its form for the augmented
//! semi-honest model, on the oblivious pseudorandom function of [`crate::vole_psi`]. **All parties
//! are assumed to follow it.** One party is the leader, the others are members, numbered from 0.
//! The leader learns which of its items all members have; members that are entitled to it are told
//! which of their items are among these.
//!
//! 1. Every two members i, j agree on a secret key k_ij, which the leader does not know. S_i(x) is
//!    the sum (exclusive or) of F(k_ij, x) over all other members j; so all S_i(x) add up to zero.
//! 2. The leader has its items evaluated by each member's own pseudorandom function G_i: it gets
//!    G_i(x) for its items x and nothing else; the member evaluates its own items.
//! 3. Member i encodes its items: T_i is a table in which each y has the value S_i(y) + G_i(y). It
//!    sends T_i, with the seed of its rows.
//! 4. For each of its items the leader adds T_i(x) + G_i(x) over all members, where T_i(x) is what x
//!    decodes to. If all members have x, the sum is zero. If any does not, the sum is random.
//! 5. The leader sends each member that is told the tags of the items found, sorted. The member
//!    marks its own, and refuses a tag that is of none.
//!
//! | message | from | holds | the other side learns |
//! |---|---|---|---|
//! | key | each member, to each other | half of their key | nothing |
//! | choice, answer, trees | member and leader | those of [`crate::vole`] | nothing |
//! | masked | leader, to each member | two seeds; its masked table | nothing beside the agreed size |
//! | shares | member, to the leader | a seed; T_i, part by part | nothing alone; all together, the intersection |
//! | found | leader, to a member that is told | how many items all have | that number |
//! | tags | leader, to a member that is told | their tags, sorted | which items all have |
//!
//! # What the leader sees
//! All tables are uniformly random to it, but for one relation: that for items which all have, the
//! values add up to zero. An item of a member's that the leader does not have is masked by G_i(y). One
//! that it has, and that not all have, is masked by S_i(y): of the members that have it, each lacks
//! at least the term of one that has not, whose key the leader does not know. Free entries of T_i
//! are random, too. So for x that not all have, the values T_i(x) + G_i(x) are random and
//! independent, whoever has x: neither which members have it nor how many shows.
//!
//! Each member has its own G_i, of its own VOLE and its own hash. With one function for all,
//! T_i(y) + T_j(y) would be S_i(y) + S_j(y), which among two members is zero: the leader could test
//! any y for being in both sets. The leader's own table may be the same for all; its masks differ.
//!
//! The leader has no part in the zero-sharing. Whatever key it had with a member, that would be
//! known to the only party to which S_i goes.
//!
//! # Coalitions
//! - *Members without the leader* see only masked tables, random to all of them together. They learn
//!   nothing beside the leader's number of items, and what they are told.
//! - *The leader and some members* learn which of the leader's items all other members have: as if
//!   the members of the coalition had every item of the leader's. They can compute their own S_i(x)
//!   for any x, so what these members lack no longer hides it. That is why the paper's model is
//!   *augmented* semi-honest: a corrupted party may choose another input. They learn nothing about
//!   fewer than all of the others. If a single member is left, that is its intersection with the
//!   leader's set, the result between two parties.
//!
//! # Parameters
//! Values of T_i have 80 bits, so that for one of n items the sum is zero by chance with a
//! probability of 2^-80, for any of them n 2^-80: at most 2^-52. Tags have 40 bits more than the
//! logarithms of both sets' sizes together; different items get the same tag with a probability of
//! at most 2^-40. Tables fail to encode with a probability below 2^-40 each, which is an error. A
//! member's seed is chosen after its items are fixed and after the leader's table has come.
//!
//! F(k, x) and the tags are AES_k(x) + x. Under a secret key it is a pseudorandom function (for 2^28
//! items and 80 of 128 bits, as good as AES); under one that all know it is modelled as random.
//!
//! # What it does not do
//! It gives the intersection of all, and nothing else. A count alone needs that the leader does not
//! know which item a sum is of, hence somebody else who shuffles; here it knows. "In at least t of n
//! sets" is no property of a sum that is either zero or random: shares of a polynomial make it one,
//! but then the leader must try every choice of t members for every item, and it learns which
//! members they are. Any such result is also more than the intersection: it says something about
//! parties that do not have the item.
//!
//! The set sizes are agreed on: each member's is known to the leader, the leader's to all. How many
//! items are found shows to whoever sees the length of what a member is told.
//!
//! **A leader that cheats** may encode more items than it announced, up to the size of its table,
//! and tell wrong results; if it names a tag that it has guessed, the member's refusal says that
//! the item is not in its set. **A member that cheats** may make the leader find nothing, or, for
//! items it chooses, pretend to have them. Neither is prevented.

use thiserror::Error;

use crate::message::{MessageError, Places, chunk};
use crate::okvs::{self, EncodeError, Parameters, TooMany, Value as _};
use crate::tags::{MAXIMUM_ITEMS, TagLength, Tagged};
use crate::vole::{self, Hybrid};
use crate::vole_oprf::{self as oprf, Hash, Seeds, Setting};

mod leader;
mod member;
#[cfg(test)]
mod tests;

pub use leader::{Found, Leader, LeaderLink, LeaderShares, LeaderStart, Share, Telling};
pub use member::{Exchange, Keys, Member, MemberFound, MemberShares, MemberStart, MemberWaits};

/// The most parties, with the leader.
pub const MAXIMUM_PARTIES: usize = 16;

/// What a table holds: 80 bits of a sum.
type Sum = [u8; 10];

/// Bins of a member's table that a message holds.
const BINS_EACH: usize = 8;

/// Tags of a message.
const TAGS_EACH: usize = 1 << 16;

/// Bytes of a number of items.
const COUNT_BYTES: usize = 8;

const KEY: &str = "key";
const SHARES: &str = "shares";
const FOUND: &str = "found";
const TAGS: &str = "tags";

/// What all parties must agree on before the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Hashed from all that the session is bound to; never used twice.
    pub sid: [u8; 32],
    /// How many members there are beside the leader.
    pub members: usize,
    /// How many items the leader has, which all members learn.
    pub leader_items: usize,
    /// How the base transfers are protected.
    pub hybrid: Hybrid,
}

/// What the leader and one member must agree on besides. Other members need not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// That of all parties.
    pub session: Session,
    /// Which member it is, from 0.
    pub member: usize,
    /// How many items it has, which the leader learns.
    pub items: usize,
    /// Whether the leader tells it which of its items are in the intersection.
    pub told: bool,
}

/// Why a run cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// There are more items than the protocol is made for.
    #[error("a set of {0} items: there can be {MAXIMUM_ITEMS}")]
    Size(usize),
    /// There are not two to sixteen parties.
    #[error("{0} members beside the leader: there can be 1 to {most}", most = MAXIMUM_PARTIES - 1)]
    Members(usize),
    /// There is no such member, or it is the one who asks.
    #[error("there is no other member {found}: they are numbered from 0, and there are {members}")]
    Member {
        /// Which was named.
        found: usize,
        /// How many there are.
        members: usize,
    },
    /// There are not as many items as agreed.
    #[error("{found} items, and {agreed} were agreed on")]
    Items {
        /// How many there are.
        found: usize,
        /// How many there should be.
        agreed: usize,
    },
    /// A link or its share is of another session than the leader's.
    #[error("this link with member {0} is of another session")]
    Session(usize),
    /// A member's key or share has come before.
    #[error("member {0} has already been taken account of")]
    Again(usize),
    /// A message was refused.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message of the VOLE was refused.
    #[error(transparent)]
    Vole(#[from] vole::Error),
    /// A party's own items could not be encoded.
    #[error("the items cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// The leader found more items than it or the member has.
    #[error("{found} items found, and {most} are possible")]
    Count {
        /// How many it says that it found.
        found: u64,
        /// The most that there can be.
        most: u64,
    },
    /// The leader's tags are not in order, or there are equal ones.
    #[error("the tags are not strictly ascending, from number {0} on")]
    Order(usize),
    /// A tag is of none of the member's items.
    #[error("tag number {0} is of no item of this member")]
    Foreign(usize),
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
    /// The shape of the leader's table.
    fn parameters(&self) -> Result<Parameters, Error> {
        if !(1..MAXIMUM_PARTIES).contains(&self.members) {
            return Err(Error::Members(self.members));
        }
        parameters(self.leader_items)
    }

    /// What HB is bound to.
    fn of_items(&self) -> [u8; 32] {
        blake3::derive_key("convelo vole-multi items", &self.sid)
    }
}

impl Link {
    /// The shapes of the leader's table and of the member's.
    fn parameters(&self) -> Result<[Parameters; 2], Error> {
        let of_leader = self.session.parameters()?;
        let (found, members) = (self.member, self.session.members);
        if found >= members {
            return Err(Error::Member { found, members });
        }
        Ok([of_leader, parameters(self.items)?])
    }

    /// A session identifier for some purpose of this link alone.
    fn sid(&self, context: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.session.sid).update(&(self.member as u64).to_le_bytes());
        hasher.finalize().into()
    }

    fn places(&self) -> Places {
        Places::new(self.sid("convelo vole-multi messages"))
    }

    fn setting(&self, of_leader: Parameters) -> Setting {
        Setting {
            parameters: of_leader,
            places: self.places(),
            vole: vole::Session {
                sid: self.sid("convelo vole-multi correlation"),
                outputs: of_leader.size(),
                hybrid: self.session.hybrid,
            },
            items: self.session.of_items(),
            outputs: self.sid("convelo vole-multi outputs"),
        }
    }

    fn tags(&self) -> TagLength {
        TagLength::of(self.session.leader_items, self.items)
    }

    /// The hash by which found items are named.
    fn hash_of_tags(&self, seeds: &Seeds) -> Hash {
        seeds.hash(&self.sid("convelo vole-multi tags"), "found")
    }
}

fn parameters(items: usize) -> Result<Parameters, Error> {
    if items > MAXIMUM_ITEMS {
        return Err(Error::Size(items));
    }
    Ok(Parameters::for_items(items)?)
}

fn check(items: &[u128], agreed: usize) -> Result<(), Error> {
    if items.len() == agreed {
        return Ok(());
    }
    Err(Error::Items { found: items.len(), agreed })
}

/// The seed and the bins of a member's table that the message with this number holds.
fn shares_of(number: usize, parameters: &Parameters) -> (usize, std::ops::Range<usize>) {
    let seed = if number == 0 { size_of::<okvs::Seed>() } else { 0 };
    (seed, chunk(number, parameters.bins(), BINS_EACH))
}

/// The part of a pseudorandom value that counts.
fn cut(value: u128) -> Sum {
    *value.to_le_bytes().first_chunk().expect("ten of sixteen")
}

/// Adds values to the sums of the items they are of.
fn add(sums: &mut [Sum], values: &[u128], items: &[u32]) {
    for (value, item) in values.iter().zip(items) {
        let sum = &mut sums[*item as usize];
        *sum = sum.xor(cut(*value));
    }
}

/// The tags of hashed items.
fn tagged(link: &Link, hashed: &[u128]) -> Vec<Tagged> {
    let length = link.tags();
    hashed.iter().enumerate().map(|(index, hash)| length.tag(*hash, index)).collect()
}
