//! The other providers of a job, whose programs this party verifies itself.
//!
//! Where a job has its providers prove their programs, each shows a quote over its one-time key, and
//! the service passes it on with the roster. Whoever accepts the quote knows that what is sealed to the
//! key can be opened by that program alone. What the service found about the same providers does not
//! matter here: the clock, the collateral and the verdict are this party's.

use std::sync::Arc;

use convelo_attest::{Collateral, Evidence, OneTimeKey, Policy, QuoteSource, Refusal, Verdict};
use convelo_psi::agreement::{KeyOffer, Member};
use convelo_psi::{Job, JobDigest};
use convelo_wire::limits::{MAXIMUM_OFFERED_BYTES, MAXIMUM_TERMS_BYTES};
use convelo_wire::{MemberEvidence, OfferEvidence};
use serde::{Deserialize, Serialize};

use crate::attestation::quote;
use crate::error::Error;
use crate::seen::Seen;

/// What this party demands of the other providers, and shows to them.
#[derive(Clone)]
pub(crate) struct Providers {
    /// The job's policy, then this party's own: every one must accept the evidence.
    pub(crate) policies: Vec<Arc<Policy>>,
    /// This party's own collateral.
    pub(crate) collateral: Option<Arc<Collateral>>,
    /// The newest revocation lists that this party has seen.
    pub(crate) seen: Option<Arc<Seen>>,
    /// Where evidence about this party comes from.
    pub(crate) source: Arc<dyn QuoteSource>,
    /// The collateral for this party's platform, for those who have none.
    pub(crate) offer: Option<Arc<Collateral>>,
}

/// Another provider of a job, whose program this party verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifiedProvider {
    /// Its name.
    pub name: String,
    /// What was found.
    pub verdict: serde_json::Value,
}

impl Providers {
    /// What this party shows about its one-time key. If no collateral is to be offered, its own is,
    /// provided that it is about this platform.
    pub(crate) fn show(
        &self,
        job: &Job,
        (name, identity): (&str, &[u8]),
        offer: &KeyOffer,
    ) -> Result<OfferEvidence, Error> {
        let digest = job.digest();
        let key = one_time_key(&digest, name, identity, offer);
        let quote = quote(&*self.source, &key.report_data())?;
        let fits = |own: &&Arc<Collateral>| {
            key.evidence(&quote).is_ok_and(|evidence| own.fits(&evidence))
                && fits_into_hello(job, own.to_json().len())
        };
        let collateral = self.offer.as_ref().or_else(|| self.collateral.as_ref().filter(fits));
        let collateral = collateral.map(|offered| offered.to_json()).unwrap_or_default();
        Ok(OfferEvidence { quote: quote.into(), collateral: collateral.into() })
    }

    /// Verifies what the other members show about their one-time keys, at `now` (Unix seconds).
    ///
    /// # Errors
    /// The first refusal, with the name of the member that it concerns.
    pub(crate) fn verify(
        &self,
        job: &JobDigest,
        me: &str,
        members: &[Member],
        shown: &MemberEvidence,
        now: u64,
    ) -> Result<Vec<(String, Verdict)>, Error> {
        let others = members.iter().filter(|member| member.name != me);
        let verified = others.map(|member| {
            let verdict = self.verify_member(job, member, shown.get(&member.name), now)?;
            Ok((member.name.clone(), verdict))
        });
        verified.collect()
    }

    fn verify_member(
        &self,
        job: &JobDigest,
        Member { name, spki, offer }: &Member,
        shown: Option<&OfferEvidence>,
        now: u64,
    ) -> Result<Verdict, Error> {
        let refused = |refusal| Error::provider_refused(name, refusal);
        let quote = shown.map(|shown| &shown.quote[..]).unwrap_or_default();
        let offered = shown.map(|shown| &shown.collateral[..]).unwrap_or_default();
        let evidence = one_time_key(job, name, spki, offer).evidence(quote).map_err(refused)?;
        let own = self.collateral.clone();
        let collateral = Collateral::own_or_offered(own, offered, &evidence).map_err(refused)?;
        let verdict = self.verdict(&evidence, &collateral, now).map_err(refused)?;
        if let Some(seen) = &self.seen {
            seen.admit(&collateral, refused)?;
        }
        Ok(verdict)
    }

    fn verdict(
        &self,
        evidence: &Evidence,
        collateral: &Collateral,
        now: u64,
    ) -> Result<Verdict, Refusal> {
        let (first, more) = self.policies.split_first().expect("a plan has a policy for them");
        let verdict = convelo_attest::verify(evidence, collateral, first, now)?;
        more.iter().try_fold(verdict, |verdict, policy| {
            let another = convelo_attest::verify(evidence, collateral, policy, now)?;
            Ok(verdict.confirmed_by(&another))
        })
    }
}

impl VerifiedProvider {
    pub(crate) fn new(name: &str, verdict: &Verdict) -> Self {
        let mut verdict = verdict.to_json();
        if let Some(fields) = verdict.as_object_mut() {
            // The key was made for this run: that it is fresh is not a matter of the quote.
            fields.retain(|field, _| !["checks", "fresh"].contains(&field.as_str()));
        }
        Self { name: name.to_owned(), verdict }
    }
}

/// Whether collateral of this many bytes can travel with the job.
pub(crate) fn fits_into_hello(job: &Job, bytes: usize) -> bool {
    bytes <= MAXIMUM_OFFERED_BYTES && bytes + job.canonical().len() <= MAXIMUM_TERMS_BYTES
}

fn one_time_key<'a>(
    job: &'a JobDigest,
    party: &'a str,
    identity: &'a [u8],
    offer: &'a KeyOffer,
) -> OneTimeKey<'a> {
    OneTimeKey { job: &job.0, party, identity, key: offer.one_time_key.as_slice() }
}
