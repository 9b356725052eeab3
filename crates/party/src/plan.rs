//! What a provider is about to do: derived from the job that its parties have agreed on, and from
//! what this party demands in addition. A caller can demand more than the job does, never less.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use convelo_attest::{Collateral, Policy, QuoteSource};
use convelo_channel::{Expect, Identity};
use convelo_psi::{
    Job, KeyId, OutcomeKind, Parties, Party, Service, Shard, Verify, is_address, reveal,
};
use convelo_wire::limits::{MAXIMUM_OFFERED_BYTES, MAXIMUM_TERMS_BYTES};

use crate::error::{Error, Hint, Kind};
use crate::first_pass::check_key_columns;
use crate::providers::{Providers, fits_into_hello};
use crate::seen::Seen;
use crate::shards;
use crate::spill::Memory;
use crate::table::{Output, Table};

/// A provider's part in a job, ready to [`run`](crate::run). What the services must prove, where
/// they are, what this party reveals and what it learns all follow from the job.
pub struct Plan {
    pub(crate) conditions: Conditions,
    /// Where matched rows go, if the job entitles this party to any. Kept apart because threads can
    /// share everything but this.
    pub(crate) output: Option<Output<'static>>,
}

/// Everything in a plan except where the rows go.
#[expect(clippy::struct_excessive_bools, reason = "each stands for a choice of the caller")]
pub(crate) struct Conditions {
    pub(crate) job: Job,
    pub(crate) name: String,
    pub(crate) identity: Identity,
    policies: Vec<Arc<Policy>>,
    /// What every service must prove; without a service, nothing.
    pub(crate) expect: Expect,
    /// `host:port` of each of the job's services, in their order.
    pub(crate) addresses: Vec<String>,
    /// Without a service: where this party listens for the others.
    pub(crate) listen: Option<String>,
    /// Without a service: the others, with where they listen, if that is known.
    pub(crate) others: Vec<(Party, Option<String>)>,
    /// Where evidence about this party comes from, if the job asks for it.
    pub(crate) source: Option<Arc<dyn QuoteSource>>,
    /// The other providers, if the job asks for their evidence.
    pub(crate) providers: Option<Providers>,
    pub(crate) insecure_ratls_only: bool,
    /// The newest revocation lists that this party has seen.
    pub(crate) seen: Option<Arc<Seen>>,
    pub(crate) memory: Memory,
    pub(crate) only_first: bool,
    pub(crate) receipt: Option<PathBuf>,
    pub(crate) list_dropped: Option<PathBuf>,
    pub(crate) allow_empty: bool,
    pub(crate) allow_no_rows: bool,
    pub(crate) keep_answer: Option<PathBuf>,
}

/// What a party accepts although it takes protection away from that party: by default, nothing. The
/// author of a job cannot decide it for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// A policy that accepts a simulated platform, for the services or for the other providers: such
    /// evidence proves nothing.
    pub insecure_simulated: bool,
    /// A service that nobody verifies, in a job with `verify = "provider"`: its operator sees what the
    /// service sees, and can answer anything.
    pub insecure_unattested: bool,
}

/// A plan in the making: what a party brings to a job, and what it demands beyond the job's terms.
#[expect(clippy::struct_excessive_bools, reason = "each stands for a choice of the caller")]
pub struct PlanBuilder {
    job: Job,
    name: String,
    identity: Identity,
    policies: Vec<Policy>,
    provider_policies: Vec<Policy>,
    collateral: Option<Collateral>,
    offer: Option<Collateral>,
    address: Option<String>,
    listen: Option<String>,
    peers: Vec<(String, String)>,
    source: Option<Arc<dyn QuoteSource>>,
    consent: Consent,
    insecure_ratls_only: bool,
    seen_lists: Option<PathBuf>,
    memory: Memory,
    output: Option<Output<'static>>,
    only_first: bool,
    receipt: Option<PathBuf>,
    list_dropped: Option<PathBuf>,
    allow_empty: bool,
    allow_no_rows: bool,
    keep_answer: Option<PathBuf>,
}

impl Plan {
    /// Starts the plan of the party that the job lists under `name`. In a job without pinned
    /// parties, the party chooses its own name.
    ///
    /// # Errors
    /// If the job lists no such party, or pins another key for it, or is of a recipe that this program
    /// does not apply.
    pub fn builder(
        job: Job,
        name: impl Into<String>,
        identity: Identity,
    ) -> Result<PlanBuilder, Error> {
        let name = name.into();
        check_roster(&job, &name, &KeyId::of_spki(identity.spki()))?;
        job.check_recipe().map_err(|error| Error::new(Kind::Usage, error.to_string()))?;
        Ok(PlanBuilder {
            job,
            name,
            identity,
            policies: Vec::new(),
            provider_policies: Vec::new(),
            collateral: None,
            offer: None,
            address: None,
            listen: None,
            peers: Vec::new(),
            source: None,
            consent: Consent::default(),
            insecure_ratls_only: false,
            seen_lists: None,
            memory: Memory::default(),
            output: None,
            only_first: false,
            receipt: None,
            list_dropped: None,
            allow_empty: false,
            allow_no_rows: false,
            keep_answer: None,
        })
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.conditions.job
    }

    /// The party's name.
    pub fn name(&self) -> &str {
        &self.conditions.name
    }

    /// Where matched rows go; `None` if the job entitles this party to none.
    pub fn output(&self) -> Option<&Output<'static>> {
        self.output.as_ref()
    }

    /// In a job without a service: where this party listens for the others.
    pub fn listen(&self) -> Option<&str> {
        self.conditions.listen.as_deref()
    }

    /// The policies that every service's evidence must meet: the job's first, then this party's
    /// own. Empty if the services are known only by a pinned key.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.conditions.policies.iter().map(|policy| &**policy)
    }

    /// The policies that the other providers' evidence must meet: the job's first, then this party's
    /// own. Empty if the job asks for none.
    pub fn provider_policies(&self) -> impl Iterator<Item = &Policy> {
        let policies = self.conditions.providers.iter().flat_map(|others| &others.policies);
        policies.map(|policy| &**policy)
    }

    /// Whether the services need not attest the connections afresh.
    pub fn insecure_ratls_only(&self) -> bool {
        self.conditions.insecure_ratls_only
    }

    /// Where the receipts would go, one for each service: the names that were asked for, and those that
    /// are free if there already is something.
    pub fn receipts(&self) -> Vec<PathBuf> {
        let Some(path) = &self.conditions.receipt else { return Vec::new() };
        let services = self.conditions.job.services();
        let mut paths = Vec::new();
        let free = shards::unused(path);
        for base in std::iter::once(path.clone()).chain((free != *path).then_some(free)) {
            let shards = (0..services).map(|number| (services > 1).then_some(Shard { number }));
            paths.extend(shards.map(|shard| shards::numbered(&base, shard)));
        }
        paths
    }

    /// Where the rows without a key are listed.
    pub fn list_dropped(&self) -> Option<&Path> {
        self.conditions.list_dropped.as_deref()
    }

    /// Checks that a table fits the job and that all can be written: its rows, the receipt and the list
    /// of rows without a key. A run starts with this; a caller may want to know earlier.
    ///
    /// # Errors
    /// What is wrong with the table, or with a file to be written.
    pub fn check(&self, table: &Table) -> Result<(), Error> {
        self.check_table(table)?;
        check_place("the receipt", self.conditions.receipt.as_deref())?;
        check_place("the list of dropped rows", self.list_dropped())
    }

    pub(crate) fn check_table(&self, table: &Table) -> Result<(), Error> {
        check_key_columns(table, &self.conditions.job)?;
        Ok(self.output.as_ref().map_or(Ok(()), |output| table.check_output(output))?)
    }
}

impl PlanBuilder {
    /// This party's own policies; each must accept the services' evidence as well. A job without
    /// pinned parties may have no policy of its own, and then needs one here.
    #[must_use]
    pub fn policies(mut self, policies: impl IntoIterator<Item = Policy>) -> Self {
        self.policies.extend(policies);
        self
    }

    /// This party's own policies for the other providers; each must accept their evidence as well. A
    /// job without pinned parties may have no policy for them, and then needs one here if they prove
    /// their programs.
    #[must_use]
    pub fn provider_policies(mut self, policies: impl IntoIterator<Item = Policy>) -> Self {
        self.provider_policies.extend(policies);
        self
    }

    /// The collateral to verify the services' evidence with, and that of other providers on the same
    /// kind of platform. Without it, they offer their own: signed, and no older than the policies allow.
    #[must_use]
    pub fn collateral(self, collateral: impl Into<Option<Collateral>>) -> Self {
        Self { collateral: collateral.into(), ..self }
    }

    /// The collateral for this party's platform, which is passed on to those who verify its evidence.
    /// Without it, [`collateral`](Self::collateral) is, if it is about this platform.
    #[must_use]
    pub fn offer_collateral(self, offer: impl Into<Option<Collateral>>) -> Self {
        Self { offer: offer.into(), ..self }
    }

    /// The `host:port` of the job's one service, overriding the address in the job.
    #[must_use]
    pub fn address(self, address: impl Into<Option<String>>) -> Self {
        Self { address: address.into(), ..self }
    }

    /// Where evidence about this party comes from. It is shown only if the job asks for it.
    #[must_use]
    pub fn quote_source(self, source: impl Into<Option<Arc<dyn QuoteSource>>>) -> Self {
        Self { source: source.into(), ..self }
    }

    /// In a job without a service: listens for the others here, `host:port`. If it is not given, and the
    /// job names an address of this party, it listens on that port.
    #[must_use]
    pub fn listen(self, address: impl Into<Option<String>>) -> Self {
        Self { listen: address.into(), ..self }
    }

    /// In a job without a service: where another party listens, by its name, instead of the address that
    /// the job names.
    #[must_use]
    pub fn peers(mut self, peers: impl IntoIterator<Item = (String, String)>) -> Self {
        self.peers.extend(peers);
        self
    }

    /// Accepts evidence of a simulated platform, if the job or this party's own policy names its root:
    /// nothing is protected by hardware then. Without it, such a plan is refused.
    #[must_use]
    pub fn insecure_simulated(self, insecure_simulated: bool) -> Self {
        Self { consent: Consent { insecure_simulated, ..self.consent }, ..self }
    }

    /// Accepts that nobody verifies the service, if the job says `verify = "provider"`. Without it,
    /// such a plan is refused.
    #[must_use]
    pub fn insecure_unattested(self, insecure_unattested: bool) -> Self {
        Self { consent: Consent { insecure_unattested, ..self.consent }, ..self }
    }

    /// Skips the fresh attestation of the connection: plain RA-TLS, as other implementations of the
    /// service speak it. The verdict then rests on a key that an enclave made at some point. This
    /// is the only way in which a party can demand less than the job's parties do by default.
    #[must_use]
    pub fn insecure_ratls_only(self, insecure_ratls_only: bool) -> Self {
        Self { insecure_ratls_only, ..self }
    }

    /// A file that remembers the newest revocation lists that this party has seen, of any service:
    /// a service whose collateral has older ones is refused. Without it, a service can hold back a
    /// revocation for as long as an older list is in force.
    #[must_use]
    pub fn seen_lists(self, path: impl Into<Option<PathBuf>>) -> Self {
        Self { seen_lists: path.into(), ..self }
    }

    /// How much memory the run may use, and where it stores keys that do not fit.
    #[must_use]
    pub fn memory(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }

    /// Where matched rows go, in table order. Required if the job entitles this party to rows, and
    /// refused otherwise.
    #[must_use]
    pub fn output(self, output: impl Into<Option<Output<'static>>>) -> Self {
        Self { output: output.into(), ..self }
    }

    /// Writes only the first of several rows with the same key, instead of all of them.
    #[must_use]
    pub fn only_first(self, only_first: bool) -> Self {
        Self { only_first, ..self }
    }

    /// Where the receipt goes. If several services sign one each, their file names are numbered; and so
    /// is the name if there already is a receipt, which is never overwritten.
    #[must_use]
    pub fn receipt(self, path: impl Into<Option<PathBuf>>) -> Self {
        Self { receipt: path.into(), ..self }
    }

    /// A file for a list of the rows without a key: their numbers, the part of the key, and why.
    #[must_use]
    pub fn list_dropped(self, path: impl Into<Option<PathBuf>>) -> Self {
        Self { list_dropped: path.into(), ..self }
    }

    /// Accepts a table without rows, or in which no row, or hardly any, has a key. Without it, the run ends before
    /// anything is sent: the columns are most likely the wrong ones.
    #[must_use]
    pub fn allow_empty(self, allow_empty: bool) -> Self {
        Self { allow_empty, ..self }
    }

    /// Accepts a table without rows, and is as strict as before with one that has some.
    #[must_use]
    pub fn allow_no_rows(self, allow_no_rows: bool) -> Self {
        Self { allow_no_rows, ..self }
    }

    /// Where the answer is kept if the rows cannot be written, so that [`resume`](crate::resume) can
    /// write them later; if there is no room either, in the directory for temporary files.
    #[must_use]
    pub fn keep_answer(self, path: impl Into<Option<PathBuf>>) -> Self {
        Self { keep_answer: path.into(), ..self }
    }

    /// Builds the plan, if nothing is missing and nothing conflicts with the job. Contacts nobody.
    ///
    /// # Errors
    /// What is missing or superfluous, with a [`Hint`].
    pub fn build(self) -> Result<Plan, Error> {
        let (addresses, listen, others) = if self.job.service().is_some() {
            check_no_meeting(self.listen.as_deref(), &self.peers)?;
            (addresses(&self.job, self.address)?, None, Vec::new())
        } else {
            check_no_service(self.address.as_deref(), !self.policies.is_empty())?;
            let others = others(&self.job, &self.name, &self.peers)?;
            let listen = listens(&self.job, &self.name, self.listen, &others)?;
            (Vec::new(), listen, others)
        };
        let policies = policy_of(&self.job)?.into_iter().chain(self.policies);
        let policies: Vec<_> = policies.map(Arc::new).collect();
        check_consent(&self.job, &policies, &self.provider_policies, self.consent)?;
        if self.insecure_ratls_only {
            check_collateral(&policies, self.collateral.as_ref())?;
        }
        let collateral = self.collateral.map(Arc::new);
        let expect = match self.job.service() {
            Some(_) => expectation(&self.job, policies.clone(), collateral.clone())?,
            None => Expect::Key([0; 32]),
        };
        let seen = self.seen_lists.map(Seen::open).transpose()?.map(Arc::new);
        let verifies = self.job.service().is_some_and(Service::verifies_providers);
        let source = match (verifies, self.source) {
            (false, _) => None,
            (true, Some(source)) => Some(source),
            (true, None) => {
                let text = "the job has its providers' evidence verified, but nothing here can produce \
                            evidence about this party";
                return Err(usage(text, Hint::QuoteSource));
            }
        };
        let of_providers = provider_policies(&self.job, self.provider_policies)?;
        let offer = self.offer.map(Arc::new);
        check_offer(&self.job, offer.as_deref())?;
        let providers = source.clone().map(|source| Providers {
            policies: of_providers,
            collateral,
            seen: seen.clone(),
            source,
            offer,
        });
        check_output(&self.job, &self.name, self.output.as_ref())?;
        let conditions = Conditions {
            job: self.job,
            name: self.name,
            identity: self.identity,
            policies,
            expect,
            addresses,
            listen,
            others,
            source,
            providers,
            insecure_ratls_only: self.insecure_ratls_only,
            seen,
            memory: self.memory,
            only_first: self.only_first,
            receipt: self.receipt,
            list_dropped: self.list_dropped,
            allow_empty: self.allow_empty,
            allow_no_rows: self.allow_no_rows,
            keep_answer: self.keep_answer,
        };
        Ok(Plan { conditions, output: self.output })
    }
}

/// The policy that a job contains for its services.
///
/// # Errors
/// If it cannot be read.
pub fn policy_of(job: &Job) -> Result<Option<Policy>, Error> {
    let policy = job.service().and_then(Service::policy);
    let policy = policy.map(|policy| Policy::from_json(&policy.read())).transpose();
    policy.map_err(|error| Error::new(Kind::Usage, format!("[service.policy] of the job: {error}")))
}

/// The policy that a job contains for its providers.
///
/// # Errors
/// If it cannot be read.
pub fn provider_policy_of(job: &Job) -> Result<Option<Policy>, Error> {
    let policy = job.service().and_then(Service::provider_policy);
    let policy = policy.map(|policy| Policy::from_json(&policy.read()));
    let policy = policy.transpose();
    policy
        .map_err(|error| Error::new(Kind::Usage, format!("[provider.policy] of the job: {error}")))
}

/// Everything that the other providers' evidence must meet: nothing, if the job asks for none.
fn provider_policies(job: &Job, own: Vec<Policy>) -> Result<Vec<Arc<Policy>>, Error> {
    if !job.service().is_some_and(Service::verifies_providers) {
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let text = "a policy for the other providers was given, but in this job they prove nothing \
                    (verify = \"service\"): leave it out, or change the job";
        return Err(Error::new(Kind::Usage, text));
    }
    let policies: Vec<_> = provider_policy_of(job)?.into_iter().chain(own).map(Arc::new).collect();
    if policies.is_empty() {
        let text = "no policy says which evidence to accept from the other providers, neither the job's \
                    nor this party's own";
        return Err(usage(text, Hint::ProviderPolicy));
    }
    Ok(policies)
}

/// What is offered travels together with the job.
fn check_offer(job: &Job, offer: Option<&Collateral>) -> Result<(), Error> {
    let Some(bytes) = offer.map(|offer| offer.to_json().len()) else { return Ok(()) };
    let jobs = job.shards();
    match jobs.iter().find(|job| !fits_into_hello(job, bytes)) {
        None => Ok(()),
        Some(job) => {
            let text = format!(
                "the collateral to be offered has {bytes} bytes and the job {}, expected at most {} KiB, and \
                 {} KiB together: offer none, and have those who verify this party get it themselves",
                job.canonical().len(),
                MAXIMUM_OFFERED_BYTES >> 10,
                MAXIMUM_TERMS_BYTES >> 10
            );
            Err(Error::new(Kind::Usage, text))
        }
    }
}

/// Nobody else decides that this party does without protection.
pub(crate) fn check_consent(
    job: &Job,
    policies: &[Arc<Policy>],
    of_providers: &[Policy],
    consent: Consent,
) -> Result<(), Error> {
    let unattested =
        job.service().is_some_and(|service| matches!(service.verify, Verify::Provider { .. }));
    if unattested && !consent.insecure_unattested {
        let text = "nobody verifies the service in this job (verify = \"provider\"): its operator sees \
                    pseudonyms and sizes, and can answer anything; nothing was sent";
        return Err(usage(text, Hint::Unattested));
    }
    let providers = provider_policy_of(job)?;
    let simulated = |whose: &str| {
        let text = format!(
            "the policy for {whose} accepts a simulated platform, whose evidence proves nothing; \
             nothing was sent"
        );
        Err(usage(text, Hint::Simulated))
    };
    if consent.insecure_simulated {
        return Ok(());
    }
    if policies.iter().any(|policy| policy.is_simulated()) {
        return simulated("the service");
    }
    if providers.iter().chain(of_providers).any(Policy::is_simulated) {
        return simulated("the providers");
    }
    Ok(())
}

/// What every service of a job must prove.
pub(crate) fn expectation(
    job: &Job,
    policies: Vec<Arc<Policy>>,
    collateral: Option<Arc<Collateral>>,
) -> Result<Expect, Error> {
    let Some(service) = job.service() else {
        return Err(usage("the job has no service to verify", Hint::NoService));
    };
    let key = service.key.map(|key| key.0);
    match (policies.is_empty(), &service.verify, key) {
        (false, _, key) => Ok(match collateral {
            Some(collateral) => Expect::Evidence { policies, collateral, key },
            None => Expect::EvidenceWithOffer { policies, key },
        }),
        (true, Verify::Provider { .. }, Some(key)) => Ok(Expect::Key(key)),
        (true, Verify::Provider { .. }, None) => {
            let text = "only the providers are verified, so the service must be known by its key, \
                        but the job pins none";
            Err(usage(text, Hint::ServiceKey))
        }
        (true, ..) => {
            let text = "no policy says which evidence to accept from the service, neither the \
                        job's nor this party's own";
            Err(usage(text, Hint::Policy))
        }
    }
}

/// Without fresh attestation, nobody offers collateral.
pub(crate) fn check_collateral(
    policies: &[Arc<Policy>],
    collateral: Option<&Collateral>,
) -> Result<(), Error> {
    if policies.is_empty() || collateral.is_some() {
        return Ok(());
    }
    let text = "there is no collateral to verify the service's evidence with, and none is offered in \
                a handshake";
    Err(usage(text, Hint::Collateral))
}

/// Where to reach the job's services.
pub(crate) fn addresses(job: &Job, given: Option<String>) -> Result<Vec<String>, Error> {
    let named = job.service().map_or(&[][..], |service| service.addresses.as_slice());
    match (given, named) {
        (None, []) => {
            Err(usage("the job names no address of the service, and none was given", Hint::Address))
        }
        (None, named) => Ok(named.to_vec()),
        (Some(address), [] | [_]) => {
            if !is_address(&address) {
                let text = format!(
                    "the address of the service is '{address}', expected HOST:PORT, without https:// and without a user"
                );
                return Err(usage(text, Hint::Address));
            }
            Ok(vec![address])
        }
        (Some(address), named) => {
            let text = format!(
                "the job already names its {} services; {address} would be another one",
                named.len()
            );
            Err(usage(text, Hint::NoAddress))
        }
    }
}

/// The other parties of a job without a service, with where each listens: as given, or as the job says.
fn others(
    job: &Job,
    name: &str,
    given: &[(String, String)],
) -> Result<Vec<(Party, Option<String>)>, Error> {
    let others = job.parties().named().iter().filter(|party| party.name != name);
    let names: Vec<_> = others.clone().map(|party| party.name.as_str()).collect();
    for (index, (peer, address)) in given.iter().enumerate() {
        if !names.contains(&peer.as_str()) {
            let text = format!(
                "an address is given for '{peer}', expected another party of the job: {}",
                names.join(", ")
            );
            return Err(usage(text, Hint::PeerAddress));
        }
        if given[..index].iter().any(|(earlier, _)| earlier == peer) {
            return Err(usage(format!("two addresses are given for '{peer}'"), Hint::PeerAddress));
        }
        if !is_address(address) {
            let text = format!("the address of '{peer}' is '{address}', expected HOST:PORT");
            return Err(usage(text, Hint::PeerAddress));
        }
    }
    let address = |party: &Party| {
        let given = given.iter().find(|(peer, _)| *peer == party.name);
        given.map(|(_, address)| address.clone()).or_else(|| party.address.clone())
    };
    Ok(others.map(|party| (party.clone(), address(party))).collect())
}

/// Where this party listens: as given, or not at all. One of each two parties must listen.
fn listens(
    job: &Job,
    name: &str,
    given: Option<String>,
    others: &[(Party, Option<String>)],
) -> Result<Option<String>, Error> {
    if let Some(address) = &given
        && !is_listening_address(address)
    {
        let text = format!(
            "the address to listen on is '{address}', expected HOST:PORT of this machine, as in \
             0.0.0.0:7444; port 0 takes a free one"
        );
        return Err(usage(text, Hint::Listen));
    }
    if given.is_some() {
        return Ok(given);
    }
    // The job names this party's address for the others; its port is where it listens.
    let own = job.party(name).and_then(|party| party.address.as_deref());
    if let Some((_, port)) = own.and_then(|own| own.rsplit_once(':')) {
        return Ok(Some(format!("[::]:{port}")));
    }
    let unreachable: Vec<_> = others
        .iter()
        .filter(|(_, address)| address.is_none())
        .map(|(party, _)| format!("'{}'", party.name))
        .collect();
    if unreachable.is_empty() {
        return Ok(None);
    }
    let text = format!(
        "this party neither listens nor knows where {} listens, so they cannot meet",
        unreachable.join(" and ")
    );
    Err(usage(text, Hint::Meet))
}

fn is_listening_address(address: &str) -> bool {
    let any_port = address.strip_suffix(":0").map(|host| format!("{host}:1"));
    is_address(any_port.as_deref().unwrap_or(address))
}

/// What belongs to a job without a service.
fn check_no_meeting(listen: Option<&str>, peers: &[(String, String)]) -> Result<(), Error> {
    if listen.is_none() && peers.is_empty() {
        return Ok(());
    }
    let text = "the job's parties meet at its service (mode = \"attested\"): they neither listen nor dial each \
                other";
    Err(usage(text, Hint::NoMeeting))
}

/// What belongs to a job with a service.
fn check_no_service(address: Option<&str>, policies: bool) -> Result<(), Error> {
    let given = match (address, policies) {
        (None, false) => return Ok(()),
        (Some(_), _) => "the address of a service",
        (None, true) => "a policy for a service",
    };
    Err(usage(format!("{given} is given, but the job has no service"), Hint::NoService))
}

fn usage(text: impl Into<String>, hint: Hint) -> Error {
    Error::new(Kind::Usage, text).with_hint(hint)
}

/// A file can be made in the directory of `path`.
fn check_place(what: &str, path: Option<&Path>) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // The library's error names its own file.
    tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map(drop).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "its directory does not exist".to_owned(),
            kind => kind.to_string(),
        };
        let text = format!("{what} {} cannot be written: {why}; nothing was sent", path.display());
        Error::new(Kind::Usage, text)
    })
}

/// The job must list the party, with the same key.
fn check_roster(job: &Job, name: &str, key: &KeyId) -> Result<(), Error> {
    let Parties::Named(parties) = job.parties() else { return Ok(()) };
    let text = match job.party(name) {
        Some(party) if party.key == *key => return Ok(()),
        Some(party) => format!(
            "this party's key is {key}, but the job pins {} for '{name}': use the key \
             that belongs to the job, or have every party pin this one",
            party.key
        ),
        None => {
            let names: Vec<&str> = parties.iter().map(|party| party.name.as_str()).collect();
            format!("the job lists no party '{name}'; it lists {}", names.join(", "))
        }
    };
    Err(Error::new(Kind::Usage, text))
}

/// Rows need a destination if, and only if, the job entitles this party to rows.
fn check_output(job: &Job, name: &str, output: Option<&Output<'_>>) -> Result<(), Error> {
    let learned = reveal::due(job, name, u64::MAX);
    let rows = learned == OutcomeKind::INTERSECTION;
    match output {
        None if rows => {
            let text = "the job gives this party the intersection, but nothing says where the \
                        matched rows go";
            Err(usage(text, Hint::Output))
        }
        Some(_) if !rows => {
            let learned = if learned == OutcomeKind::NOTHING { "nothing" } else { "a count" };
            let text = format!("the job gives this party {learned}, so there are no rows to write");
            Err(usage(text, Hint::NoOutput))
        }
        _ => Ok(()),
    }
}
