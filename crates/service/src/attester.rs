//! Makes the quotes that parties ask for, and verifies those they send.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use convelo_attest::{Collateral, Evidence, QuoteSource, Refusal, Role};
use convelo_channel::{Acquaintance, Exchange, Holder, Peer, os_rng};
use convelo_psi::agreement::AGREEMENT_VERSION;
use convelo_wire::limits::MAXIMUM_COLLATERAL_BYTES;
use convelo_wire::{Bytes, Challenge, Failed, Proof, Reason};
use rand_core::Rng as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::collateral::CollateralSource;
use crate::device::Device;
use crate::limits::{
    ATTEST_TIMEOUT, DEVICE_RETRY, QUOTES_AT_ONCE, TURNS_EACH, VERIFICATIONS_AT_ONCE,
};
use crate::policies::Policies;

/// What was proved on a stream, and when.
pub(crate) struct Session {
    pub(crate) exchange: Exchange,
    pub(crate) since: Instant,
    evidence: Option<Arc<Evidence>>,
}

impl Session {
    pub(crate) fn new(exchange: Exchange) -> Self {
        Self { exchange, since: Instant::now(), evidence: None }
    }

    /// The job that the exchange was for.
    pub(crate) fn job(&self) -> &[u8; 32] {
        &self.exchange.job
    }

    /// The party's fresh evidence, not yet verified.
    pub(crate) fn evidence(&self) -> Result<Arc<Evidence>, Refusal> {
        self.evidence.clone().ok_or_else(Refusal::missing_fresh_evidence)
    }

    pub(crate) fn take(&mut self, peer: &Peer, quote: &[u8]) -> Result<(), Failed> {
        if self.evidence.is_some() {
            let text = "a second quote arrived for one challenge";
            return Err(Failed::new(Reason::Protocol, text));
        }
        let evidence = peer.binding.evidence(Role::Party, &self.exchange, quote);
        let evidence = evidence.map_err(|refusal| {
            let text = format!("this party's quote was refused: {}", refusal.to_its_subject());
            Failed::new(Reason::Attestation, text)
        })?;
        self.evidence = Some(Arc::new(evidence));
        Ok(())
    }
}

/// Proves what this service is.
pub(crate) struct Attester {
    device: Arc<Device>,
    offer: Option<Arc<dyn CollateralSource>>,
    quotes: Gates,
}

/// Judges what parties prove.
pub(crate) struct Verifier {
    collateral: Option<Arc<dyn CollateralSource>>,
    verifications: Gates,
}

/// What a party proves, and the collateral that it offers for its platform; empty for none.
pub(crate) struct Claim {
    pub(crate) evidence: Vec<Arc<Evidence>>,
    pub(crate) collateral: Bytes,
}

/// Who is waiting for a turn. Each queue has turns of its own: a crowd of strangers must not keep a
/// running job from attesting its connections again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Queue {
    /// Those without a seat.
    Strangers,
    /// Parties of a job.
    Seated,
}

impl Queue {
    pub(crate) fn of(acquaintance: Acquaintance) -> Self {
        match acquaintance {
            Acquaintance::Stranger => Self::Strangers,
            Acquaintance::Seated | Acquaintance::Admitted => Self::Seated,
        }
    }
}

/// Turns for those without a seat, and for parties of a job.
struct Gates {
    strangers: Gate,
    seated: Gate,
}

impl Gates {
    fn new(at_once: usize) -> Self {
        Self { strangers: Gate::new(at_once), seated: Gate::new(at_once) }
    }

    fn of(&self, queue: Queue) -> &Gate {
        match queue {
            Queue::Strangers => &self.strangers,
            Queue::Seated => &self.seated,
        }
    }
}

/// Turns for slow work. The queue for them holds few from each source, so that a crowd from one
/// address waits for itself.
struct Gate {
    turns: Arc<Semaphore>,
    sources: Mutex<HashMap<Holder, Weak<Semaphore>>>,
}

/// The right to do the work.
struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_the_source: OwnedSemaphorePermit,
}

impl Gate {
    fn new(at_once: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once)), sources: Mutex::default() }
    }

    async fn turn(&self, source: IpAddr) -> Turn {
        let own = self.of(Holder::source(source));
        let of_the_source = own.acquire_owned().await.expect("the semaphore is never closed");
        let all = Arc::clone(&self.turns).acquire_owned().await;
        let of_all = all.expect("the semaphore is never closed");
        Turn { _of_all: of_all, _of_the_source: of_the_source }
    }

    fn of(&self, source: Holder) -> Arc<Semaphore> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = sources.get(&source).and_then(Weak::upgrade) {
            return own;
        }
        sources.retain(|_, waiting| waiting.strong_count() > 0);
        let own = Arc::new(Semaphore::new(TURNS_EACH));
        sources.insert(source, Arc::downgrade(&own));
        own
    }

    /// Runs slow work away from the jobs, a bounded number at once: those who flood the service
    /// with evidence wait for each other, and no running job waits for them. A turn lasts until the
    /// work is done, even if nobody is waiting for it any more: a device that hangs must not pile
    /// up threads.
    async fn apart<T: Send + 'static>(
        &self,
        source: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let busy =
            || Failed::new(Reason::NoRoom, "the service is busy with attestation; try later");
        let turn = timeout(ATTEST_TIMEOUT, self.turn(source)).await.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match timeout(ATTEST_TIMEOUT, done).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => {
                Err(Failed::new(Reason::Internal, "attestation failed inside the service"))
            }
            Err(_) => Err(busy()),
        }
    }
}

impl Attester {
    pub(crate) fn new(device: Arc<Device>, offer: Option<Arc<dyn CollateralSource>>) -> Self {
        Self { device, offer, quotes: Gates::new(QUOTES_AT_ONCE) }
    }

    /// Whether the device answers, as far as anybody has noticed.
    pub(crate) fn answers(&self) -> bool {
        self.device.answers()
    }

    /// Asks a device that has failed again and again, so that it is noticed when it answers: nobody
    /// else may ask, because an orchestrator sends no party to a service that is not ready.
    pub(crate) async fn recover(&self) -> Infallible {
        loop {
            sleep(DEVICE_RETRY).await;
            if self.device.failing() {
                let device = Arc::clone(&self.device);
                let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                let gate = self.quotes.of(Queue::Seated);
                let _ = gate.apart(nobody, move || device.quote(&[0; 64])).await;
            }
        }
    }

    /// Answers a challenge with a quote over it.
    ///
    /// # Errors
    /// Why there was no quote in time.
    pub(crate) async fn answer(
        &self,
        queue: Queue,
        peer: &Peer,
        challenge: Challenge,
    ) -> Result<(Exchange, Proof), Failed> {
        let mut nonce = [0; 32];
        os_rng().fill_bytes(&mut nonce);
        let exchange =
            Exchange { party_nonce: challenge.nonce, service_nonce: nonce, job: challenge.job.0 };
        let report_data = peer.binding.report_data(Role::Service, &exchange);
        let device = Arc::clone(&self.device);
        let offer = self.offer.clone();
        let made = self.quotes.of(queue).apart(peer.address.ip(), move || {
            let offered = offer.and_then(|offer| offer.current());
            let offered = offered.map(|offered| offered.to_json().into_bytes());
            let offered = offered.filter(|offered| offered.len() <= MAXIMUM_COLLATERAL_BYTES);
            device.quote(&report_data).map(|quote| (quote, offered.unwrap_or_default()))
        });
        let none = || {
            let text = "the service could not make a quote; its log says why";
            Failed::new(Reason::Internal, text)
        };
        let made = made.await.map_err(|busy| {
            if self.answers() {
                return busy;
            }
            if !self.device.failing() {
                self.device.is_late();
            }
            none()
        })?;
        let (quote, collateral) = made.map_err(|_| none())?;
        Ok((exchange, Proof { nonce, quote, collateral, agreement: AGREEMENT_VERSION }))
    }
}

impl Verifier {
    pub(crate) fn new(collateral: Option<Arc<dyn CollateralSource>>) -> Self {
        Self { collateral, verifications: Gates::new(VERIFICATIONS_AT_ONCE) }
    }

    /// Verifies a party's evidence against every policy: with our own collateral, if it is about the
    /// party's platform, and otherwise with what the party offers.
    ///
    /// # Errors
    /// The refusal, in words.
    pub(crate) async fn judge(
        &self,
        queue: Queue,
        source: IpAddr,
        name: &str,
        claim: Result<Claim, Refusal>,
        policies: &Policies,
    ) -> Result<(), Failed> {
        if policies.are_none() {
            return Ok(());
        }
        let refused = |refusal: Refusal| {
            // A stranger alone hears this; of a seated party, the others hear it too.
            let refusal = match queue {
                Queue::Strangers => refusal.to_its_subject(),
                Queue::Seated => refusal.to_string(),
            };
            let text = format!("the evidence of '{name}' was refused: {refusal}");
            Failed::of_party(Reason::Attestation, name, text)
        };
        let Claim { evidence, collateral: offered } = claim.map_err(refused)?;
        let (own, policies) = (self.collateral.clone(), policies.clone());
        let verified = self.verifications.of(queue).apart(source, move || {
            let policies = policies.read()?;
            let own = own.and_then(|own| own.current());
            Ok(evidence.iter().try_for_each(|evidence| {
                let collateral = Collateral::own_or_offered(own.clone(), &offered, evidence)?;
                policies.iter().try_for_each(|policy| {
                    convelo_attest::verify(evidence, &collateral, policy, unix_now()).map(drop)
                })
            }))
        });
        verified.await??.map_err(refused)
    }
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::{LazyLock, mpsc};

    use convelo_attest::Policy;
    use convelo_simulator::{CollateralKnobs, Platform};

    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[tokio::test(start_paused = true)]
    async fn a_device_that_hangs_keeps_its_turn() {
        let gate = Arc::new(Gate::new(1));
        let (release, hang) = mpsc::sync_channel::<()>(1);
        let first = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.apart(SOURCE, move || hang.recv().is_ok()).await }
        });
        while gate.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(ATTEST_TIMEOUT * 2).await;
        assert_eq!(first.await.expect("no panic").unwrap_err().reason, Reason::NoRoom);
        assert_eq!(gate.turns.available_permits(), 0, "the work still runs");
        release.send(()).expect("the work still runs");
        drop(gate.turn(SOURCE).await);
        assert!(gate.apart(SOURCE, || true).await.expect("done"));
    }

    #[tokio::test]
    async fn a_crowd_of_strangers_does_not_keep_a_party_from_its_turn() {
        let attester = Attester::new(Device::new(Arc::new(Echo)), None);
        let crowd = &attester.quotes.of(Queue::Strangers).turns;
        let _turns = crowd.acquire_many(4).await.expect("all turns");
        assert_eq!(QUOTES_AT_ONCE, 4);
        assert_eq!(crowd.available_permits(), 0);
        let gate = attester.quotes.of(Queue::Seated);
        assert!(gate.apart(SOURCE, || true).await.expect("a turn"));
    }

    /// Everyone in the crowd has been waiting for longer than the newcomer from elsewhere.
    #[tokio::test]
    async fn a_crowd_from_one_address_waits_for_itself() {
        let gate = Arc::new(Gate::new(1));
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = gate.turn(SOURCE).await;
        let crowd = std::iter::repeat_n(SOURCE, 100).chain([OTHER]);
        let waiting: Vec<_> = crowd
            .map(|source| {
                let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
                tokio::spawn(async move {
                    let _turn = gate.turn(source).await;
                    order.lock().expect("no panic").push(source);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(first);
        for turn in waiting {
            turn.await.expect("its turn");
        }
        let order = order.lock().expect("no panic");
        let place = order.iter().position(|source| *source == OTHER);
        assert!(place.is_some_and(|place| place < TURNS_EACH), "{place:?} of {}", order.len());
    }

    /// A platform whose collateral begins now: `judge` has the system's clock.
    fn platform() -> Arc<Platform> {
        static PLATFORM: LazyLock<Arc<Platform>> =
            LazyLock::new(|| Arc::new(Platform::new(unix_now()).expect("a platform")));
        Arc::clone(&PLATFORM)
    }

    /// The platform's collateral; of another one, with this FMSPC.
    fn collateral(fmspc: Option<[u8; 6]>) -> Collateral {
        let default = CollateralKnobs::default();
        platform().collateral(&CollateralKnobs { fmspc: fmspc.unwrap_or(default.fmspc), ..default })
    }

    struct Own(Arc<Collateral>);

    impl CollateralSource for Own {
        fn current(&self) -> Option<Arc<Collateral>> {
            Some(Arc::clone(&self.0))
        }
    }

    /// The verdict on a party that attests its connection again and has offered this in its Hello.
    async fn renewed(own: Option<Collateral>, offered: impl Into<Bytes>) -> Result<(), Failed> {
        let own = own.map(|own| Arc::new(Own(Arc::new(own))) as Arc<dyn CollateralSource>);
        let quote = platform().program("provider").quote(&[7; 64]).expect("a quote");
        let evidence = Evidence::from_quote(&quote, &[7; 64], b"key").expect("evidence");
        let policy = Policy::from_toml(&platform().program_policy("provider")).expect("a policy");
        let claim = Claim { evidence: vec![Arc::new(evidence)], collateral: offered.into() };
        let verifier = Verifier::new(own);
        let policies = Policies::of_the_operator([policy].into());
        verifier.judge(Queue::Seated, SOURCE, "alice", Ok(claim), &policies).await
    }

    /// What a party is told that was refused for its collateral.
    async fn refused(own: Option<Collateral>, offered: impl Into<Bytes>) -> String {
        let failed = renewed(own, offered).await.expect_err("it has to be refused");
        assert_eq!((failed.reason, failed.party.as_deref()), (Reason::Attestation, Some("alice")));
        let text = failed.explanation;
        assert!(text.starts_with("the evidence of 'alice' was refused: "), "{text}");
        text
    }

    const ELSEWHERE: Option<[u8; 6]> = Some([9; 6]);

    #[tokio::test]
    async fn a_party_is_judged_by_what_it_offered_where_we_have_nothing_about_its_platform() {
        let offered = collateral(None).to_json();
        renewed(None, offered.clone()).await.expect("accepted");
        renewed(Some(collateral(ELSEWHERE)), offered).await.expect("accepted");
    }

    #[tokio::test]
    async fn our_own_collateral_wins_if_it_is_about_the_platform() {
        renewed(Some(collateral(None)), "").await.expect("accepted");
        renewed(Some(collateral(None)), "garbage").await.expect("not even read");
        let revoked = CollateralKnobs { revoke_pck: true, ..CollateralKnobs::default() };
        let text = refused(Some(platform().collateral(&revoked)), collateral(None).to_json()).await;
        assert!(text.contains("revoked"), "{text}");
    }

    #[tokio::test]
    async fn nothing_offered_and_nothing_here() {
        let text = refused(None, "").await;
        assert!(text.contains("none here, and none was offered"), "{text}");
    }

    #[tokio::test]
    async fn offer_about_another_platform() {
        let text = refused(None, collateral(ELSEWHERE).to_json()).await;
        assert!(text.contains("FMSPC 090909090909"), "{text}");
    }

    #[tokio::test]
    async fn offer_of_garbage() {
        for offered in [&b"\xff\xff"[..], b"secret words", b"{\"secret words\": 1}"] {
            let text = refused(None, offered).await;
            assert!(text.contains("none here, and an offer that is not"), "{text}");
            assert!(!text.contains("secret words"), "{text}");
        }
    }

    #[tokio::test]
    async fn offer_that_is_too_long() {
        let mut offered = collateral(None).to_json().into_bytes();
        offered.resize(convelo_attest::MAXIMUM_COLLATERAL_BYTES + 1, b' ');
        let text = refused(None, offered).await;
        assert!(text.contains("1048577 bytes, which is too long"), "{text}");
    }

    struct Echo;

    impl QuoteSource for Echo {
        fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, convelo_attest::QuoteError> {
            Ok(report_data.to_vec())
        }

        fn describe(&self) -> String {
            "an echo".to_owned()
        }
    }
}
