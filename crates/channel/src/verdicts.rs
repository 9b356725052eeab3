//! Verdicts, cached. Verification is a pure function, so the same question has the same answer
//! until it expires; a peer that connects again costs only a look-up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use convelo_attest::{Collateral, Evidence, Matter, Policy, Refusal, Stage, Verdict};
use sha2::{Digest as _, Sha256};

use crate::limits::{CACHED_VERDICT_SECONDS, MAXIMUM_CACHED_VERDICTS};

/// Everything that the answer depends on except the time: the certificate, the policies in order,
/// and the collateral. A new policy or new collateral makes a new question.
type Question = [u8; 32];

/// An answer, computed or under way; anyone who asks in the meantime waits for it instead of
/// computing it again.
type Answer = Arc<OnceLock<Option<Verdict>>>;

/// The verdicts that one side of connections has given.
#[derive(Default)]
pub(crate) struct Verdicts(Mutex<HashMap<Question, Answer>>);

impl Verdicts {
    /// Like [`verify_evidence`], for a certificate, but only once for the same question.
    ///
    /// An answer is kept for at most ten minutes and never beyond its own expiry. Refusals are not
    /// kept: their cause may be fixed at any moment, and a flood of them must not push out
    /// verdicts.
    pub(crate) fn verdict(
        &self,
        certificate: &[u8],
        evidence: &Evidence,
        policies: &[Arc<Policy>],
        collateral: &Collateral,
        now: u64,
    ) -> Result<Verdict, Refusal> {
        let question = question(certificate, policies, collateral);
        let answer = Arc::clone(self.answers().entry(question).or_default());
        let mut refusal = None;
        let kept = answer.get_or_init(|| {
            verify_evidence(evidence, policies, collateral, now)
                .map_err(|refused| refusal = Some(refused))
                .ok()
        });
        if let Some(verdict) = kept
            && holds(verdict, now)
        {
            self.make_room(now);
            return Ok(verdict.clone());
        }
        self.forget(&question, &answer);
        match refusal {
            Some(refusal) => Err(refusal),
            // An expired answer, or somebody else's refusal: ask again.
            None => verify_evidence(evidence, policies, collateral, now),
        }
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<Question, Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, question: &Question, answer: &Answer) {
        let mut answers = self.answers();
        if answers.get(question).is_some_and(|kept| Arc::ptr_eq(kept, answer)) {
            answers.remove(question);
        }
    }

    /// At the limit, drops expired answers, and if that is not enough, all of them: they come back.
    fn make_room(&self, now: u64) {
        let mut answers = self.answers();
        if answers.len() <= MAXIMUM_CACHED_VERDICTS {
            return;
        }
        answers.retain(|_, answer| {
            answer.get().is_none_or(|kept| kept.as_ref().is_some_and(|v| holds(v, now)))
        });
        if answers.len() > MAXIMUM_CACHED_VERDICTS {
            answers.clear();
        }
    }
}

/// The verdict under the first policy, provided that every policy accepts the evidence.
pub(crate) fn verify_evidence(
    evidence: &Evidence,
    policies: &[Arc<Policy>],
    collateral: &Collateral,
    now: u64,
) -> Result<Verdict, Refusal> {
    let mut first: Option<Verdict> = None;
    for policy in policies {
        let verdict = convelo_attest::verify(evidence, collateral, policy, now)?;
        first = Some(match first {
            Some(first) => first.confirmed_by(&verdict),
            None => verdict,
        });
    }
    first.ok_or_else(no_policy)
}

fn no_policy() -> Refusal {
    Refusal::new(Stage::Measurement, "no-policy", Matter::Policy)
        .found("no policy")
        .expected("at least one policy that says which evidence is accepted")
        .advice("name a policy in the job file or on the command line")
}

fn holds(verdict: &Verdict, now: u64) -> bool {
    let until = verdict.expires().min(verdict.verified_at() + CACHED_VERDICT_SECONDS);
    (verdict.verified_at()..=until).contains(&now)
}

fn question(certificate: &[u8], policies: &[Arc<Policy>], collateral: &Collateral) -> Question {
    let mut hash = Sha256::new();
    hash.update(Sha256::digest(certificate));
    hash.update(collateral.digest());
    for policy in policies {
        hash.update(policy.digest());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use convelo_simulator::{CollateralKnobs, Enclave, Platform, policy_toml};

    use super::*;
    use crate::Identity;

    struct Scene {
        verdicts: Verdicts,
        certificate: Vec<u8>,
        policies: Vec<Arc<Policy>>,
        collateral: Collateral,
        now: u64,
    }

    impl Scene {
        fn new(accepted: &str) -> Self {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = now.expect("after 1970").as_secs();
            let platform = Arc::new(Platform::new(now).expect("a platform"));
            let policy = policy_toml(&platform, &[("x", &Enclave::named(accepted))]);
            let source = platform.enclave(Enclave::named("service"));
            let credential = Identity::generate().attested(&source).expect("a certificate");
            Self {
                verdicts: Verdicts::default(),
                certificate: credential.certificate().to_vec(),
                policies: vec![Arc::new(Policy::from_toml(&policy).expect("a policy"))],
                collateral: platform.collateral(&CollateralKnobs::default()),
                now,
            }
        }

        fn ask(&self, now: u64) -> Result<Verdict, Refusal> {
            let evidence = Evidence::from_certificate(&self.certificate, self.now)?;
            let evidence = evidence.expect("evidence");
            let (policies, collateral) = (&self.policies, &self.collateral);
            self.verdicts.verdict(&self.certificate, &evidence, policies, collateral, now)
        }

        fn kept(&self) -> bool {
            let question = question(&self.certificate, &self.policies, &self.collateral);
            self.verdicts.answers().contains_key(&question)
        }
    }

    #[test]
    fn the_same_question_is_answered_once() {
        let scene = Scene::new("service");
        let first = scene.ask(scene.now).expect("accepted");
        assert!(scene.kept());
        let second = scene.ask(scene.now + 100).expect("accepted");
        assert_eq!(second.verified_at(), first.verified_at(), "it was not verified again");
    }

    #[test]
    fn an_answer_ends_after_ten_minutes_and_with_a_clock_that_goes_back() {
        let scene = Scene::new("service");
        scene.ask(scene.now).expect("accepted");
        let later = scene.now + CACHED_VERDICT_SECONDS + 1;
        assert_eq!(scene.ask(later).expect("accepted").verified_at(), later);
        scene.ask(scene.now).expect("accepted");
        assert_eq!(scene.ask(scene.now - 1).expect("accepted").verified_at(), scene.now - 1);
    }

    #[test]
    fn an_answer_does_not_outlive_the_evidence() {
        let scene = Scene::new("service");
        let verdict = scene.ask(scene.now).expect("accepted");
        assert_eq!(scene.ask(verdict.expires() + 1).unwrap_err().code, "certificate-expired");
        assert!(!scene.kept());
    }

    #[test]
    fn a_new_policy_and_new_collateral_are_new_questions() {
        let mut scene = Scene::new("service");
        scene.ask(scene.now).expect("accepted");
        let policies = std::mem::take(&mut scene.policies);
        assert_eq!(scene.ask(scene.now).unwrap_err().code, "no-policy");
        scene.policies = policies;
        let other = Scene::new("service");
        scene.collateral = other.collateral;
        scene.ask(scene.now).unwrap_err();
    }

    #[test]
    fn refusals_are_not_kept() {
        let scene = Scene::new("something else");
        for _ in 0..3 {
            assert_eq!(scene.ask(scene.now).unwrap_err().code, "measurement");
            assert!(!scene.kept());
        }
    }

    #[test]
    fn flood_of_distinct_questions_is_bounded() {
        let scene = Scene::new("service");
        for _ in 0..3 {
            for _ in 0..MAXIMUM_CACHED_VERDICTS {
                let mut random = [0; 32];
                rand_core::Rng::fill_bytes(&mut crate::os_rng(), &mut random);
                scene.verdicts.answers().entry(random).or_default();
            }
            scene.ask(scene.now).expect("accepted");
            assert!(scene.verdicts.answers().len() <= 2 * MAXIMUM_CACHED_VERDICTS);
        }
    }
}
