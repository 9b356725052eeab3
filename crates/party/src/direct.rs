//! The other parties of a job without a service: a set goes in, and marks over its order, or a count,
//! come out.
//!
//! 1. `meeting` finds the others, by the keys that the job pins; `link` carries messages.
//! 2. Each party sends a random nonce, and once its table is read, the size of its set and a commitment
//!    to it: between the receiver and each other party, not among these. All of that which every party
//!    knows makes up, with the job, the identifier to which everything else is bound.
//! 3. `protocol` runs between the parties.
//! 4. Each party signs for the others what it saw (`testimony`).
//!
//! | message | holds | the other party learns |
//! |---|---|---|
//! | nonce | 32 random bytes | nothing |
//! | size | how many keys, padded as the job says; a commitment under a salt that stays here | that number |
//! | those of the protocol | as `convelo_mpc` says | what the job reveals |
//! | testimony | job, session, parties, sizes, commitments; the count, if all learn it; a signature | nothing new |

pub mod frame;
mod link;
mod meeting;
mod protocol;
mod several;
pub mod testimony;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convelo_channel::{Identity, os_rng};
use convelo_psi::{Bitmap, Job, JobDigest, KeyId, Outcome, Protocol, PseudonymSet};
use futures_util::future::{join_all, select_all, try_join_all};
use rand_core::Rng as _;
use tokio::time::Instant;
use zeroize::Zeroizing;

use self::link::Link;
use self::meeting::{Meeting, Tasks};
use self::protocol::{Learnt, Session};
use self::several::{Member, Several};
use self::testimony::{Announced, SignedTestimony, Size, Testimony};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::limits::LAST_MESSAGE_TIMEOUT;
use crate::plan::Conditions;
use crate::receipt::{self, Receipt};
use crate::shards;
use crate::summary::Summary;

/// This party among the others.
pub(crate) struct Direct {
    job: Job,
    protocol: Protocol,
    name: String,
    identity: Identity,
    observer: Arc<dyn Observer>,
    links: Vec<Arc<Link>>,
    _tasks: Tasks,
    nonce: [u8; 32],
    /// The others' nonces, in the order of the links.
    nonces: Vec<[u8; 32]>,
}

/// The other parties as witnesses, by their signed testimonies.
pub(crate) struct Witness {
    job: Job,
    own: Testimony,
    salt: [u8; 32],
    testimonies: Vec<SignedTestimony>,
    links: Vec<Arc<Link>>,
}

impl Direct {
    /// Begins to look for the other parties.
    pub(crate) async fn meet(
        plan: &Conditions,
        protocol: Protocol,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let deadline = Instant::now() + Duration::from_secs(plan.job.deadline_seconds());
        let meeting = Meeting {
            job: plan.job.clone(),
            name: plan.name.clone(),
            identity: plan.identity.clone(),
            listen: plan.listen.clone(),
            others: plan.others.clone(),
        };
        let (links, tasks) = meeting.begin(deadline, observer).await?;
        Ok(Self {
            job: plan.job.clone(),
            protocol,
            name: plan.name.clone(),
            identity: plan.identity.clone(),
            observer: Arc::clone(observer),
            links: links.into_iter().map(Arc::new).collect(),
            _tasks: tasks,
            nonce: random(),
            nonces: Vec::new(),
        })
    }

    /// The names of all parties.
    pub(crate) fn parties(&self) -> Vec<String> {
        self.job.parties().named().iter().map(|party| party.name.clone()).collect()
    }

    /// Waits for the other parties. The job says what is made of keys.
    pub(crate) async fn agree(&mut self) -> Result<JobDigest, Error> {
        let nonce = self.nonce;
        let meeting = self.links.iter().map(async |link| {
            link.send(nonce.to_vec()).await?;
            let theirs = link.receive().await?;
            theirs.as_ref().try_into().map_err(|_| {
                link.refused(format!("a nonce of {} bytes, expected 32", theirs.len()))
            })
        });
        self.nonces = try_join_all(meeting).await?;
        let names = self.job.parties().named().iter().map(|party| party.name.as_str());
        self.observer.on(Event::Assembled { names: names.collect(), pinned: true });
        Ok(self.job.digest())
    }

    /// Waits for the job to fail while nothing is asked of the others; returns why.
    pub(crate) async fn interrupted(&self) -> Error {
        select_all(self.links.iter().map(|link| Box::pin(link.interrupted()))).await.0
    }

    /// Has the set intersected with the other parties' sets. Returns what this party learns, and the
    /// witnesses to it.
    pub(crate) async fn intersect(
        &self,
        set: &Arc<PseudonymSet>,
    ) -> Result<(Outcome<Bitmap>, Witness), Error> {
        let salt = random();
        let set = Arc::clone(set);
        let (items, commitment) = tokio::task::spawn_blocking(move || items(&set, &salt)).await??;
        let own = Size { keys: items.len() as u64, commitment };
        let parties = self.announce(own).await?;
        let sid = self.sid(&parties);
        let all_learn = self.job.parties().named().iter().all(|it| self.job.learns(&it.name));
        let learnt = match self.links.as_slice() {
            [link] => {
                let session = Session {
                    protocol: self.protocol,
                    sid,
                    receives: self.receives(&self.name),
                    what: self.job.reveal().what,
                    both_learn: all_learn,
                    items: [self.name.as_str(), link.peer()].map(|name| items_of(&parties, name)),
                };
                let (link, observer) = (Arc::clone(link), Arc::clone(&self.observer));
                computed(async move || session.run(&link, items, &observer).await).await?
            }
            _ => self.among_several(sid, &parties, items).await?,
        };
        let outcome = match learnt {
            Learnt::Marks(marks) => Outcome::Intersection(marks),
            Learnt::Count(count) => Outcome::Count(count),
            Learnt::Nothing => Outcome::Nothing,
        };
        let count = match &outcome {
            _ if !all_learn => None,
            Outcome::Intersection(marks) => Some(marks.count_ones()),
            Outcome::Count(count) => Some(*count),
            Outcome::Withheld | Outcome::Nothing => None,
        };
        let own = Testimony {
            job: self.job.digest(),
            sid,
            protocol: self.protocol,
            witness: self.name.clone(),
            parties,
            count,
            finished_at: unix_now(),
        };
        let testimonies = self.testify(&own).await?;
        let (job, links) = (self.job.clone(), self.links.clone());
        Ok((outcome, Witness { job, own, salt, testimonies, links }))
    }

    /// Tells the others that this party gives up, and why. True if one of them has heard it.
    pub(crate) async fn leave(self, error: &Error) -> bool {
        join_all(self.links.iter().map(|link| link.leave(error.told()))).await.contains(&true)
    }

    /// The protocol of three parties or more.
    async fn among_several(
        &self,
        sid: [u8; 32],
        parties: &[Announced],
        items: Zeroizing<Vec<u128>>,
    ) -> Result<Learnt, Error> {
        let leader = self.job.receiver().map(|party| party.name.clone()).unwrap_or_default();
        let members = parties.iter().filter(|party| party.name != leader);
        let members = members.map(|party| Member {
            name: party.name.clone(),
            told: self.job.learns(&party.name),
            items: items_of(parties, &party.name),
        });
        let members: Vec<_> = members.collect();
        let number = members.iter().position(|member| member.name == self.name);
        let several = Several { sid, members, leader_items: items_of(parties, &leader) };
        let links = self.links.clone();
        let Some(number) = number else {
            return computed(async move || several.lead(&links, items).await).await;
        };
        let leader = links.iter().find(|link| link.peer() == leader).cloned();
        let leader = leader.ok_or_else(protocol::unfinished)?;
        computed(async move || several.join(number, &leader, &links, items).await).await
    }

    /// Whether this is the party that learns the result first.
    fn receives(&self, name: &str) -> bool {
        self.job.receiver().is_some_and(|receiver| receiver.name == name)
    }

    /// Whether two parties tell each other the sizes of their sets: one of them is the receiver.
    fn know_sizes(&self, one: &str, other: &str) -> bool {
        self.receives(one) || self.receives(other)
    }

    /// Tells the others about this party's set, and hears about theirs.
    async fn announce(&self, own: Size) -> Result<Vec<Announced>, Error> {
        let known = |link: &&Arc<Link>| self.know_sizes(&self.name, link.peer());
        let announcing = self.links.iter().filter(known).map(async |link| {
            link.send([&own.keys.to_be_bytes()[..], &own.commitment].concat()).await?;
            let theirs = link.receive().await?;
            let read = theirs.split_first_chunk().and_then(|(keys, commitment)| {
                let keys = u64::from_be_bytes(*keys);
                Some(Size { keys, commitment: commitment.try_into().ok()? })
            });
            let Some(size) = read else {
                let why = format!("a size of {} bytes, expected 40", theirs.len());
                return Err(link.refused(why));
            };
            let most = self.job.most_keys_of(link.peer());
            if size.keys > most || self.job.padded(size.keys) != size.keys {
                let why = format!(
                    "it announces {} keys, and the job has it send at most {most}, padded as the job says",
                    size.keys
                );
                return Err(link.refused(why));
            }
            Ok((link.peer(), size))
        });
        let sizes = try_join_all(announcing).await?;
        let others = sizes.iter().map(|(name, size)| (*name, size.keys)).collect();
        self.observer.on(Event::SizesKnown { own: own.keys, others });
        let announced = self.job.parties().named().iter().map(|party| {
            let known = sizes.iter().find(|(name, _)| *name == party.name);
            let own = (party.name == self.name).then_some(own);
            let set = own.or(known.map(|(_, size)| *size));
            Announced { name: party.name.clone(), key: party.key, set }
        });
        Ok(announced.collect())
    }

    /// What this run is bound to: the job, the protocol, and what all parties know of each other.
    fn sid(&self, parties: &[Announced]) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_derive_key("convelo 2026-12 run without a service");
        hash.update(&self.job.digest().0);
        hash.update(self.protocol.as_str().as_bytes());
        for party in parties {
            let of_link = self.links.iter().position(|link| link.peer() == party.name);
            let nonce = of_link.map_or(&self.nonce, |link| &self.nonces[link]);
            hash.update(&(party.name.len() as u64).to_be_bytes());
            hash.update(party.name.as_bytes());
            hash.update(&party.key.0);
            hash.update(nonce);
            let known = parties.len() == 2 || self.receives(&party.name);
            if let Some(set) = party.set.filter(|_| known) {
                hash.update(&set.keys.to_be_bytes());
                hash.update(&set.commitment);
            }
        }
        *hash.finalize().as_bytes()
    }

    /// Signs what this party saw, and has the others sign what they saw.
    async fn testify(&self, own: &Testimony) -> Result<Vec<SignedTestimony>, Error> {
        let exchanging = self.links.iter().map(async |link| {
            let seen = self.of_both(own, link.peer());
            link.send(SignedTestimony::by(&self.identity, &seen).to_message()).await?;
            let theirs = SignedTestimony::from_message(&link.receive().await?);
            let theirs = theirs.map_err(|error| link.refused(error))?;
            let key = self.job.party(link.peer()).map_or(KeyId([0; 32]), |party| party.key);
            let said = theirs.verify(key).map_err(|error| link.refused(error))?;
            let expected = Testimony {
                witness: link.peer().to_owned(),
                finished_at: said.finished_at,
                ..seen
            };
            if said == expected {
                return Ok(theirs);
            }
            let what = if said.count == own.count {
                "it signs another run than this party saw"
            } else {
                "it signs another number of keys in common than it told this party"
            };
            Err(link.refused(what))
        });
        try_join_all(exchanging).await
    }

    /// What this party and another have both seen.
    fn of_both(&self, own: &Testimony, other: &str) -> Testimony {
        let mut seen = own.clone();
        let known = self.know_sizes(&self.name, other);
        for party in &mut seen.parties {
            let of_both = party.name == self.name || party.name == other;
            party.set = party.set.filter(|_| known && of_both);
        }
        seen
    }
}

fn items_of(parties: &[Announced], name: &str) -> usize {
    let announced = parties.iter().find(|party| party.name == name);
    let keys = announced.and_then(|party| party.set).map_or(0, |set| set.keys);
    usize::try_from(keys).unwrap_or(usize::MAX)
}

/// Runs what takes a processor on a thread of its own.
async fn computed<F>(run: impl FnOnce() -> F + Send + 'static) -> Result<Learnt, Error>
where
    F: Future<Output = Result<Learnt, Error>>,
{
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(run())).await?
}

impl Witness {
    /// Writes the receipt; returns its path.
    pub(crate) fn write_receipts(
        &self,
        path: &Path,
        summary: &Summary,
        times: (u64, u64),
    ) -> Result<Vec<PathBuf>, Error> {
        let parties =
            receipt::Parties { own: &self.own, salt: self.salt, testimonies: &self.testimonies };
        let receipt = Receipt::of_parties(&self.job, summary, &parties, times);
        Ok(vec![receipt.write(path, shards::unused_names(path), None)?])
    }

    /// Waits until the others have taken this party's testimony.
    pub(crate) async fn heard(self) {
        join_all(self.links.iter().map(|link| link.close(LAST_MESSAGE_TIMEOUT))).await;
    }
}

/// The items of a set in its order, and the commitment to them.
fn items(set: &PseudonymSet, salt: &[u8; 32]) -> Result<(Zeroizing<Vec<u128>>, [u8; 32]), Error> {
    let commitment = blake3::keyed_hash(salt, &set.blake3().map_err(Error::spill)?);
    let pseudonyms = Zeroizing::new(set.pseudonyms().map_err(Error::spill)?);
    let items = Zeroizing::new(pseudonyms.iter().map(|item| item.to_u128()).collect());
    Ok((items, *commitment.as_bytes()))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    os_rng().fill_bytes(&mut bytes);
    bytes
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
