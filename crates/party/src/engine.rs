//! What intersects the sets of a job: attested services, or the parties among themselves.
//!
//! This is the seam of [`run`](crate::run). A table becomes a sorted set of 128-bit values, and marks
//! over its order, or a count, come back; nothing else of a run knows which engine it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use convelo_attest::Verdict;
use convelo_psi::{Bitmap, Mode, Outcome, PseudonymSet, RankedCanaries};

use crate::direct::{self, Direct};
use crate::error::Error;
use crate::event::Observer;
use crate::key_hash::KeyHash;
use crate::plan::Conditions;
use crate::providers::VerifiedProvider;
use crate::services::{self, Services};
use crate::summary::Summary;

/// An engine, and this party's part in the job there.
pub(crate) enum Engine {
    Services(Box<Services>),
    Direct(Box<Direct>),
}

/// Who vouches for an answer.
pub(crate) enum Witness {
    Services(services::Witness),
    Direct(Box<direct::Witness>),
}

impl Engine {
    /// Contacts the services, or begins to look for the other parties.
    pub(crate) async fn meet(
        plan: &Conditions,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        Ok(match plan.job.mode() {
            Mode::Attested(_) => Self::Services(Box::new(Services::meet(plan, observer).await?)),
            Mode::Direct(protocol) => {
                Self::Direct(Box::new(Direct::meet(plan, *protocol, observer).await?))
            }
        })
    }

    /// Waits for the other parties, and agrees with them on what is made of keys.
    pub(crate) async fn agree(&mut self) -> Result<KeyHash, Error> {
        match self {
            Self::Services(services) => {
                Ok(KeyHash::Pseudonyms(services.agree().await?.pseudonymiser()))
            }
            Self::Direct(direct) => Ok(KeyHash::Items(direct.agree().await?)),
        }
    }

    /// Waits for the job to fail while nothing is asked of the engine; returns why.
    pub(crate) async fn interrupted(&mut self) -> Error {
        match self {
            Self::Services(services) => services.interrupted().await,
            Self::Direct(direct) => direct.interrupted().await,
        }
    }

    /// Has the set intersected with the other parties' sets. Returns what this party learns, and the
    /// witness to it.
    pub(crate) async fn intersect(
        &mut self,
        set: &Arc<PseudonymSet>,
        canaries: &RankedCanaries,
    ) -> Result<(Outcome<Bitmap>, Witness), Error> {
        match self {
            Self::Services(services) => {
                let (outcome, witness) = services.intersect(set, canaries).await?;
                Ok((outcome, Witness::Services(witness)))
            }
            Self::Direct(direct) => {
                let (outcome, witness) = direct.intersect(set).await?;
                Ok((outcome, Witness::Direct(Box::new(witness))))
            }
        }
    }

    /// The names of all parties.
    pub(crate) fn parties(&self) -> Vec<String> {
        match self {
            Self::Services(services) => services.parties(),
            Self::Direct(direct) => direct.parties(),
        }
    }

    /// The other providers whose programs this party verified.
    pub(crate) fn providers(&self) -> &[VerifiedProvider] {
        match self {
            Self::Services(services) => services.providers(),
            Self::Direct(_) => &[],
        }
    }

    /// Tells the other sides that this party gives up, and why. True if one has heard it that tells
    /// the others, or is one.
    pub(crate) async fn leave(self, error: &Error) -> bool {
        match self {
            Self::Services(services) => services.leave(error).await,
            Self::Direct(direct) => direct.leave(error).await,
        }
    }
}

impl Witness {
    /// The verdict on the first service that showed evidence.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.services().and_then(services::Witness::verdict)
    }

    /// Whether there are services, and every one showed evidence.
    pub(crate) fn attested(&self) -> bool {
        self.services().is_some_and(services::Witness::attested)
    }

    /// Whether every one showed it on the connection itself.
    pub(crate) fn fresh(&self) -> bool {
        self.services().is_some_and(services::Witness::fresh)
    }

    /// Whether any evidence came from a simulated platform.
    pub(crate) fn simulated(&self) -> bool {
        self.services().is_some_and(services::Witness::simulated)
    }

    /// Writes the receipts; returns their paths.
    pub(crate) fn write_receipts(
        &self,
        path: &Path,
        summary: &Summary,
        times: (u64, u64),
    ) -> Result<Vec<PathBuf>, Error> {
        match self {
            Self::Services(witness) => witness.write_receipts(path, summary, times),
            Self::Direct(witness) => witness.write_receipts(path, summary, times),
        }
    }

    /// Waits until the other sides know that this party is done.
    pub(crate) async fn heard(self) {
        match self {
            Self::Services(witness) => witness.heard().await,
            Self::Direct(witness) => witness.heard().await,
        }
    }

    fn services(&self) -> Option<&services::Witness> {
        match self {
            Self::Services(witness) => Some(witness),
            Self::Direct(_) => None,
        }
    }
}
