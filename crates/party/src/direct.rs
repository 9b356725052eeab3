//! The other parties of a job without a service: a set goes in, and marks over its order, or a count,
//! come out.
//!
//! 1. `meeting` finds the others, by the keys that the job pins; `link` carries messages.
//! 2. Each party sends a random nonce, and once its table is read, the size of its set and a commitment
//!    to it. All of that and the job make up the identifier to which everything else is bound.
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
use self::testimony::{Announced, SignedTestimony, Testimony};
use crate::error::{Error, Kind};
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
        let parties = self.announce(items.len() as u64, commitment).await?;
        let sid = self.sid(&parties);
        let keys = |name: &str| {
            let announced = parties.iter().find(|party| party.name == name);
            announced.map_or(0, |party| usize::try_from(party.keys).unwrap_or(usize::MAX))
        };
        let [link] = self.links.as_slice() else {
            let text = "this version has no protocol for so many parties";
            return Err(Error::new(Kind::Job, text));
        };
        let both_learn = self.job.parties().named().iter().all(|it| self.job.learns(&it.name));
        let session = Session {
            protocol: self.protocol,
            sid,
            receives: self.job.receiver().is_some_and(|receiver| receiver.name == self.name),
            what: self.job.reveal().what,
            both_learn,
            items: [keys(&self.name), keys(link.peer())],
        };
        let learnt = self.computed(session, link, items).await?;
        let outcome = match learnt {
            Learnt::Marks(marks) => Outcome::Intersection(marks),
            Learnt::Count(count) => Outcome::Count(count),
            Learnt::Nothing => Outcome::Nothing,
        };
        let count = match &outcome {
            _ if !both_learn => None,
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

    /// Tells the others the size of this party's set, and hears theirs.
    async fn announce(&self, own: u64, commitment: [u8; 32]) -> Result<Vec<Announced>, Error> {
        let announcing = self.links.iter().map(async |link| {
            link.send([&own.to_be_bytes()[..], &commitment].concat()).await?;
            let theirs = link.receive().await?;
            let read = theirs.split_first_chunk().and_then(|(keys, commitment)| {
                Some((u64::from_be_bytes(*keys), <[u8; 32]>::try_from(commitment).ok()?))
            });
            let Some((keys, commitment)) = read else {
                let why = format!("a size of {} bytes, expected 40", theirs.len());
                return Err(link.refused(why));
            };
            let most = self.job.most_keys_of(link.peer());
            if keys > most || self.job.padded(keys) != keys {
                let why = format!(
                    "it announces {keys} keys, and the job has it send at most {most}, padded as the job \
                     says"
                );
                return Err(link.refused(why));
            }
            Ok(self.announced(link.peer(), keys, commitment))
        });
        let mut parties = try_join_all(announcing).await?;
        let others = parties.iter().map(|party| (party.name.as_str(), party.keys)).collect();
        self.observer.on(Event::SizesKnown { own, others });
        parties.push(self.announced(&self.name, own, commitment));
        parties.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(parties)
    }

    fn announced(&self, name: &str, keys: u64, commitment: [u8; 32]) -> Announced {
        let key = self.job.party(name).map_or(KeyId([0; 32]), |party| party.key);
        Announced { name: name.to_owned(), key, keys, commitment }
    }

    /// What this run is bound to: the job, the protocol, and what each party has sent so far.
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
            hash.update(&party.keys.to_be_bytes());
            hash.update(&party.commitment);
        }
        *hash.finalize().as_bytes()
    }

    async fn computed(
        &self,
        session: Session,
        link: &Arc<Link>,
        items: Zeroizing<Vec<u128>>,
    ) -> Result<Learnt, Error> {
        let (link, observer) = (Arc::clone(link), Arc::clone(&self.observer));
        let runtime = tokio::runtime::Handle::current();
        let computing = move || runtime.block_on(session.run(&link, items, &observer));
        tokio::task::spawn_blocking(computing).await?
    }

    /// Signs what this party saw, and has the others sign what they saw.
    async fn testify(&self, own: &Testimony) -> Result<Vec<SignedTestimony>, Error> {
        let message = SignedTestimony::by(&self.identity, own).to_message();
        let exchanging = self.links.iter().map(async |link| {
            link.send(message.clone()).await?;
            let theirs = SignedTestimony::from_message(&link.receive().await?);
            let theirs = theirs.map_err(|error| link.refused(error))?;
            let key = self.job.party(link.peer()).map_or(KeyId([0; 32]), |party| party.key);
            let said = theirs.verify(key).map_err(|error| link.refused(error))?;
            let expected = Testimony {
                witness: link.peer().to_owned(),
                finished_at: said.finished_at,
                ..own.clone()
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
    let pseudonyms = Zeroizing::new(set.pseudonyms().map_err(Error::spill)?);
    let mut commitment = blake3::Hasher::new_keyed(salt);
    for item in &*pseudonyms {
        commitment.update(&item.to_be_bytes());
    }
    let items = Zeroizing::new(pseudonyms.iter().map(|item| item.to_u128()).collect());
    Ok((items, *commitment.finalize().as_bytes()))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    os_rng().fill_bytes(&mut bytes);
    bytes
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
