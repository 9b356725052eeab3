//! What matching is: jobs, keys and pseudonyms, sets, the join, and who learns what.
//!
//! Everything here is a function of its arguments: time, randomness and bytes come in, bytes and
//! decisions go out. A record's walk through this crate: [`EncodedKey`] holds the key that `convelo-keys`
//! made of its columns, [`Pseudonymiser`] makes a pseudonym of the key under the job key from [`agreement`], [`SetBuilder`] a
//! sorted set of the pseudonyms; the service receives the set with [`SetReceiver`], joins sets with
//! [`engine::intersect`], and [`reveal::answers`] decides who learns what. [`ideal`] says in a few
//! lines what all of this computes.
//!
//! A job is what the parties agree on before anything else; its digest is its identity:
//!
//! ```
//! use convelo_psi::{Job, What};
//!
//! let job = Job::from_toml(
//!     r#"
//!     version = 1
//!     name = "spring-campaign"
//!     mode = "attested"
//!     deadline = "30m"
//!     maximum_keys = 1000
//!     unpinned_parties = 2
//!     [[key]]
//!     name = "email"
//!     normalise = ["email"]
//!     [reveal]
//!     what = "intersection"
//!     "#,
//! )?;
//! assert_eq!(job.reveal().what, What::Intersection);
//! // What travels is the canonical form; anyone who reads it gets the same job.
//! let read = Job::from_canonical(job.canonical().as_bytes())?;
//! assert_eq!(read.digest(), job.digest());
//! // Other terms make another job.
//! let mut terms = job.terms();
//! terms.maximum_keys = 2000;
//! let larger = Job::try_from(terms)?;
//! assert_eq!(job.differences(&larger), ["maximum_keys: 1000 here, 2000 there"]);
//! # Ok::<_, convelo_psi::JobError>(())
//! ```
//!
//! Two parties' records, from the normalised key to the result. In a real run the job key comes from
//! [`agreement`], and the sets travel in chunks:
//!
//! ```
//! use convelo_psi::{
//!     Job, Outcome, Pseudonymiser, SetBuilder, SetReceiver, encode_parts, engine, reveal, terms,
//! };
//!
//! let job = Job::unpinned("toys", 2, 1000, 60, terms::Service::default())?;
//! let pseudonymiser = Pseudonymiser::new(b"an agreed secret");
//! let tables = [["ball", "doll", "kite"], ["kite", "drum", "ball"]];
//! let mut received = Vec::new();
//! for table in tables {
//!     let mut set = SetBuilder::new();
//!     for (row, toy) in (0..).zip(table) {
//!         set.push(pseudonymiser.pseudonym(&encode_parts(&[toy])), row)?;
//!     }
//!     let set = set.finish()?;
//!     let mut receiver = SetReceiver::new(set.len() as u64);
//!     for chunk in set.chunks(1024) {
//!         receiver.push_chunk(&chunk?)?;
//!     }
//!     received.push((set, receiver.finish()?));
//! }
//! let (sets, received): (Vec<_>, Vec<_>) = received.into_iter().unzip();
//! let names = ["alice", "bob"].map(str::to_owned);
//! let answers = reveal::answers(&job, &names, engine::intersect(received)?);
//! for ((set, table), answer) in sets.iter().zip(tables).zip(answers) {
//!     let Outcome::Intersection(ranks) = answer.outcome() else { panic!("everybody learns it") };
//!     let rows = set.rows(&ranks, 3, false)?;
//!     let matched: Vec<_> = (0..3).filter(|row| rows.is_set(*row)).map(|row| table[row]).collect();
//!     assert!(matched == ["ball", "kite"] || matched == ["kite", "ball"]);
//! }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

pub mod agreement;
mod bitmap;
mod canaries;
pub mod engine;
pub mod ideal;
mod job;
mod keys;
pub mod limits;
mod outcome;
mod received;
pub mod reveal;
mod set;
pub mod statement;

pub use bitmap::{Bitmap, BitmapError};
pub use canaries::{Canaries, CanaryCounts, CanaryError, RankedCanaries};
pub use job::{
    JOB_VERSION, Job, JobDigest, JobDigestError, JobError, JobPolicy, KeyId, KeyIdError, Mode,
    Parties, Party, Position, Protocol, Reveal, Service, Shard, Terms, Verify, What, is_address,
    is_name, terms,
};
pub use keys::{
    CALLING_CODES, DateOrder, EncodedKey, Extension, Grouping, KeyEncoder, KeyPart, Letters,
    PSEUDONYM_BYTES, Profile, Pseudonym, PseudonymQueue, Pseudonymiser, RECIPE_VERSION, Recipe,
    RecipeError, STEPS, Step, StepError, TELEPHONE_VERSION, UNICODE_VERSION, encode_parts,
};
pub use outcome::{Outcome, OutcomeKind};
pub use received::{ReceivedSet, SetError, SetReceiver};
pub use set::{Chunks, PseudonymSet, Segment, SetBuilder, Spill};
pub use statement::{SignedStatement, Statement};
