//! What a provider is about to do: derived from the job, on which its parties have agreed, and from what this
//! party demands beside it. A caller can demand more than the job does, never less.

use std::path::PathBuf;
use std::sync::Arc;

use convelo_attest::{Collateral, Policy, QuoteSource};
use convelo_channel::{Expect, Identity};
use convelo_psi::{Job, KeyId, Mode, Outcome, Parties, Verify, reveal};

use crate::error::{Error, Hint, Kind};
use crate::first_pass::check_key_columns;
use crate::spill::Memory;
use crate::table::{Output, Table};

/// A provider's part in a job, ready to [`run`](crate::run): what the services must prove, where they are, what
/// is shown of this party and what it learns all follow from the job.
pub struct Plan {
    pub(crate) dealings: Dealings,
    /// Where matched rows go, where the job gives this party any. It cannot be shared between threads, and the
    /// rest is.
    pub(crate) output: Option<Output<'static>>,
}

/// All of a plan but the place of the rows.
pub(crate) struct Dealings {
    pub(crate) job: Job,
    pub(crate) name: String,
    pub(crate) identity: Identity,
    policies: Vec<Arc<Policy>>,
    /// What every service must prove.
    pub(crate) expect: Expect,
    /// `host:port` of each of the job's services, in their order.
    pub(crate) addresses: Vec<String>,
    /// Where evidence about this party comes from, where the job asks for it.
    pub(crate) source: Option<Arc<dyn QuoteSource>>,
    pub(crate) insecure_ratls_only: bool,
    pub(crate) memory: Memory,
    pub(crate) only_first: bool,
    pub(crate) receipt: Option<PathBuf>,
}

/// A plan on its way: what a party brings to a job, and demands beside the job's terms.
pub struct PlanBuilder {
    job: Job,
    name: String,
    identity: Identity,
    policies: Vec<Policy>,
    collateral: Option<Collateral>,
    address: Option<String>,
    source: Option<Arc<dyn QuoteSource>>,
    insecure_ratls_only: bool,
    memory: Memory,
    output: Option<Output<'static>>,
    only_first: bool,
    receipt: Option<PathBuf>,
}

impl Plan {
    /// Begins the plan of the party that the job lists under `name`. In a job whose parties are not pinned the
    /// name is this party's own choice.
    ///
    /// # Errors
    /// If the job lists no such party, or pins another key for it.
    pub fn builder(
        job: Job,
        name: impl Into<String>,
        identity: Identity,
    ) -> Result<PlanBuilder, Error> {
        let name = name.into();
        check_roster(&job, &name, &KeyId::of_spki(identity.spki()))?;
        Ok(PlanBuilder {
            job,
            name,
            identity,
            policies: Vec::new(),
            collateral: None,
            address: None,
            source: None,
            insecure_ratls_only: false,
            memory: Memory::default(),
            output: None,
            only_first: false,
            receipt: None,
        })
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.dealings.job
    }

    /// The party's name.
    pub fn name(&self) -> &str {
        &self.dealings.name
    }

    /// Where matched rows go; nowhere where the job gives this party none.
    pub fn output(&self) -> Option<&Output<'static>> {
        self.output.as_ref()
    }

    /// What every service's evidence is judged by: the job's policy, then this party's own. None where the
    /// services are known by a pinned key alone.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.dealings.policies.iter().map(|policy| &**policy)
    }

    /// Says whether a table fits the job and its rows can go where they are to go. A run begins with this; a
    /// caller may want to know it earlier.
    ///
    /// # Errors
    /// What is wrong with the table, or with where its rows go.
    pub fn check(&self, table: &Table) -> Result<(), Error> {
        check_key_columns(table, &self.dealings.job)?;
        Ok(self.output.as_ref().map_or(Ok(()), |output| table.check_output(output))?)
    }
}

impl PlanBuilder {
    /// Policies of this party's own, each of which must accept the services' evidence too. A job whose parties
    /// are not pinned may have none itself, and then needs one here.
    #[must_use]
    pub fn policies(mut self, policies: impl IntoIterator<Item = Policy>) -> Self {
        self.policies.extend(policies);
        self
    }

    /// What the services' evidence is verified with. Without it they offer it themselves: signed, and no older
    /// than the policies allow.
    #[must_use]
    pub fn collateral(self, collateral: impl Into<Option<Collateral>>) -> Self {
        Self { collateral: collateral.into(), ..self }
    }

    /// `host:port` at which the job's one service is reached, instead of where the job says.
    #[must_use]
    pub fn address(self, address: impl Into<Option<String>>) -> Self {
        Self { address: address.into(), ..self }
    }

    /// Where evidence about this party comes from. It is shown where the job asks for it, and nowhere else.
    #[must_use]
    pub fn quote_source(self, source: impl Into<Option<Arc<dyn QuoteSource>>>) -> Self {
        Self { source: source.into(), ..self }
    }

    /// Asks the services for no fresh attestation of the connection: plain RA-TLS, as services of other make
    /// speak it. The verdict then rests on a key that an enclave made at some time. It is the one thing that a
    /// party can have less of than the job's parties do by themselves.
    #[must_use]
    pub fn insecure_ratls_only(self, insecure_ratls_only: bool) -> Self {
        Self { insecure_ratls_only, ..self }
    }

    /// How much memory the run may take, and where it puts keys that do not fit.
    #[must_use]
    pub fn memory(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }

    /// Where matched rows go, in the order of the table. Needed where the job gives this party rows, and refused
    /// elsewhere.
    #[must_use]
    pub fn output(self, output: impl Into<Option<Output<'static>>>) -> Self {
        Self { output: output.into(), ..self }
    }

    /// Has only the first of rows with the same key go there, instead of all.
    #[must_use]
    pub fn only_first(self, only_first: bool) -> Self {
        Self { only_first, ..self }
    }

    /// Where the receipt goes; one that several services sign has a number for each.
    #[must_use]
    pub fn receipt(self, path: impl Into<Option<PathBuf>>) -> Self {
        Self { receipt: path.into(), ..self }
    }

    /// The plan, if nothing is missing and nothing is at odds with the job. Nobody is contacted.
    ///
    /// # Errors
    /// What is missing or superfluous, with a [`Hint`] at it.
    pub fn build(self) -> Result<Plan, Error> {
        let addresses = addresses(&self.job, self.address)?;
        let policies = policy_of(&self.job)?.into_iter().chain(self.policies);
        let policies: Vec<_> = policies.map(Arc::new).collect();
        if self.insecure_ratls_only {
            check_collateral(&policies, self.collateral.as_ref())?;
        }
        let expect = expectation(&self.job, policies.clone(), self.collateral)?;
        let Mode::Attested(service) = self.job.mode();
        let source = match (&service.verify, self.source) {
            (Verify::Service { .. }, _) => None,
            (_, Some(source)) => Some(source),
            (_, None) => {
                let text = "the job has the service verify its providers' evidence, and there is \
                            nothing that makes evidence about this party";
                return Err(usage(text, Hint::QuoteSource));
            }
        };
        check_output(&self.job, &self.name, self.output.as_ref())?;
        let dealings = Dealings {
            job: self.job,
            name: self.name,
            identity: self.identity,
            policies,
            expect,
            addresses,
            source,
            insecure_ratls_only: self.insecure_ratls_only,
            memory: self.memory,
            only_first: self.only_first,
            receipt: self.receipt,
        };
        Ok(Plan { dealings, output: self.output })
    }
}

/// The policy that a job holds for its services.
///
/// # Errors
/// If it is none that can be read.
pub fn policy_of(job: &Job) -> Result<Option<Policy>, Error> {
    let Mode::Attested(service) = job.mode();
    let policy = service.policy().map(Policy::from_json).transpose();
    policy.map_err(|error| Error::new(Kind::Usage, format!("[service.policy] of the job: {error}")))
}

/// What every service of a job must prove.
pub(crate) fn expectation(
    job: &Job,
    policies: Vec<Arc<Policy>>,
    collateral: Option<Collateral>,
) -> Result<Expect, Error> {
    let Mode::Attested(service) = job.mode();
    let key = service.key.map(|key| key.0);
    match (policies.is_empty(), &service.verify, key) {
        (false, _, key) => Ok(match collateral {
            Some(collateral) => {
                Expect::Evidence { policies, collateral: Arc::new(collateral), key }
            }
            None => Expect::EvidenceWithOffer { policies, key },
        }),
        (true, Verify::Provider { .. }, Some(key)) => Ok(Expect::Key(key)),
        (true, Verify::Provider { .. }, None) => {
            let text = "only the providers are verified, so that the service has to be known by its key, and \
                        the job pins none";
            Err(usage(text, Hint::ServiceKey))
        }
        (true, ..) => {
            let text = "no policy says which evidence of the service is accepted, the job's or this party's \
                        own";
            Err(usage(text, Hint::Policy))
        }
    }
}

/// Where no fresh attestation is asked for, nobody offers collateral.
pub(crate) fn check_collateral(
    policies: &[Arc<Policy>],
    collateral: Option<&Collateral>,
) -> Result<(), Error> {
    if policies.is_empty() || collateral.is_some() {
        return Ok(());
    }
    let text = "there is no collateral to verify the service's evidence with, and none is offered in a handshake";
    Err(usage(text, Hint::Collateral))
}

/// Where the job's services are reached.
pub(crate) fn addresses(job: &Job, given: Option<String>) -> Result<Vec<String>, Error> {
    let Mode::Attested(service) = job.mode();
    match (given, service.addresses.as_slice()) {
        (None, []) => {
            Err(usage("the job names no address of the service, and none is given", Hint::Address))
        }
        (None, named) => Ok(named.to_vec()),
        (Some(address), [] | [_]) => Ok(vec![address]),
        (Some(address), named) => {
            let text =
                format!("the job names its {} services; {address} would be another", named.len());
            Err(usage(text, Hint::NoAddress))
        }
    }
}

fn usage(text: impl Into<String>, hint: Hint) -> Error {
    Error::new(Kind::Usage, text).with_hint(hint)
}

/// The party must be listed, with the key at hand.
fn check_roster(job: &Job, name: &str, key: &KeyId) -> Result<(), Error> {
    let Parties::Named(parties) = job.parties() else { return Ok(()) };
    let text = match job.party(name) {
        Some(party) if party.key == *key => return Ok(()),
        Some(party) => format!(
            "the key at hand is {key}, and the job pins {} for '{name}': use the key that belongs to the \
             job, or have every party pin this one",
            party.key
        ),
        None => {
            let names: Vec<&str> = parties.iter().map(|party| party.name.as_str()).collect();
            format!("the job lists no party '{name}'; it lists {}", names.join(", "))
        }
    };
    Err(Error::new(Kind::Usage, text))
}

/// Rows have somewhere to go where the job gives this party rows, and only there.
fn check_output(job: &Job, name: &str, output: Option<&Output<'_>>) -> Result<(), Error> {
    let learned = reveal::due(job, name, u64::MAX);
    let rows = learned == Outcome::Intersection(());
    match output {
        None if rows => {
            let text = "the job gives this party the intersection, and nothing says where the matched rows go";
            Err(usage(text, Hint::Output))
        }
        Some(_) if !rows => {
            let learned = if learned == Outcome::Nothing { "nothing" } else { "a count" };
            let text =
                format!("the job gives this party {learned}, so there are no rows to be written");
            Err(usage(text, Hint::NoOutput))
        }
        _ => Ok(()),
    }
}
