//! Providers that prove their programs to each other: each verifies the others itself, whatever the
//! service makes of them.

use std::fs;
use std::sync::{Arc, Mutex};

use convelo_attest::{OneTimeKey, QuoteSource, Role, Session};
use convelo_channel::{Exchange, Identity, os_rng};
use convelo_psi::Job;
use convelo_psi::agreement::{Assembled, KeyOffer, Member, Opening};
use convelo_simulator::{CollateralKnobs, Enclave, Platform};
use convelo_tests::proxy::{Counted, breaking};
use convelo_tests::{
    Ended, Guest, Impostor, Measured, Party, RawConnection, Received, SERVICE_ENCLAVE, Service,
    World, prove,
};
use convelo_wire::limits::{MAXIMUM_COLLATERAL_BYTES, MAXIMUM_OFFERED_BYTES};
use convelo_wire::{Failed, FromParty, Hello, MemberEvidence, OfferEvidence, Reason, ToParty};
use tonic::Status;

/// The exit codes for a job that failed, for a mistake in what was given, and for refused evidence.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

const PROVIDER: &str = "convelo-provider";
const RUN: &str = "--input ids.txt --output matched.txt --simulated ../platform";

fn program(world: &World, name: &str) -> Arc<dyn QuoteSource> {
    let platform = Arc::new(Platform::open(&world.path("platform")).unwrap());
    Arc::new(platform.enclave(Enclave::named(name)))
}

fn collateral(world: &World, knobs: &CollateralKnobs) -> String {
    world.platform().collateral(knobs).to_json()
}

/// What a program shows about a one-time key, with this collateral.
fn shown(source: &dyn QuoteSource, key: OneTimeKey<'_>, collateral: &str) -> OfferEvidence {
    let quote = source.quote(&key.report_data()).unwrap();
    OfferEvidence { quote: quote.into(), collateral: collateral.to_owned().into() }
}

/// Bob, as a dishonest service can show him: it has everything of his, and may even be him.
struct Bob {
    identity: Identity,
    program: Arc<dyn QuoteSource>,
    another_program: Arc<dyn QuoteSource>,
    job: Job,
    offer: KeyOffer,
    collateral: String,
    expired: String,
    /// What alice showed about herself.
    alice: OfferEvidence,
}

impl Bob {
    fn key<'a>(&'a self, job: &'a [u8; 32], offer: &'a KeyOffer) -> OneTimeKey<'a> {
        let key = offer.one_time_key.as_slice();
        OneTimeKey { job, party: "bob", identity: self.identity.spki(), key }
    }

    fn honest(&self) -> OfferEvidence {
        shown(&*self.program, self.key(&self.job.digest().0, &self.offer), &self.collateral)
    }

    fn another_offer(&self) -> KeyOffer {
        Opening::new(&self.job, "bob", self.identity.signing_key(), &mut os_rng()).offer()
    }
}

/// Runs alice at a service that is genuine and seats bob with this evidence. Returns how she ends,
/// and what the service saw.
fn seated(
    alice_has_collateral: bool,
    evidence: impl Fn(&Bob) -> Option<OfferEvidence> + Send + Sync + 'static,
) -> (Ended, Vec<Guest>) {
    let world = World::new();
    let parties = world.parties(["alice", "bob"]);
    let service = program(&world, SERVICE_ENCLAVE);
    let quotes = Arc::clone(&service);
    let [program, another_program] =
        [PROVIDER, "another program"].map(|name| program(&world, name));
    let identity = parties[1].identity.clone();
    let good = collateral(&world, &CollateralKnobs::default());
    let expired =
        CollateralKnobs { issued_days_ago: 40, valid_days: 30, ..CollateralKnobs::default() };
    let expired = collateral(&world, &expired);
    let impostor = Impostor::new(service, move |peer, message| match message {
        FromParty::Challenge(challenge) => vec![Ok(prove(&*quotes, peer, challenge, &good))],
        FromParty::Hello(hello) => {
            let job = Job::from_canonical(&hello.job).unwrap();
            let opening = Opening::new(&job, "bob", identity.signing_key(), &mut os_rng());
            let bob = Bob {
                identity: identity.clone(),
                program: Arc::clone(&program),
                another_program: Arc::clone(&another_program),
                job,
                offer: opening.offer(),
                collateral: good.clone(),
                expired: expired.clone(),
                alice: hello.evidence.expect("alice shows which program she runs"),
            };
            let alice = Member { name: hello.party, spki: peer.spki.to_vec(), offer: hello.offer };
            let mut shown = MemberEvidence::from([(alice.name.clone(), bob.alice.clone())]);
            shown.extend(evidence(&bob).map(|evidence| ("bob".to_owned(), evidence)));
            let spki = bob.identity.spki().to_vec();
            let bob = Member { name: "bob".to_owned(), spki, offer: bob.offer };
            let assembled = Assembled { run: [7; 32], members: vec![alice, bob] };
            vec![Ok(ToParty::Assembled(assembled, shown).into())]
        }
        FromParty::Shares(_) => {
            let failed = Failed::new(Reason::Shutdown, "that is enough");
            vec![Ok(ToParty::Failed(failed).into())]
        }
        FromParty::Leave(_) => vec![Err(Status::ok("heard"))],
        _ => Vec::new(),
    });
    world.job(None, &parties).address(&impostor.address).two_way().give_to(&parties);
    parties[0].lines(&["bicycle"]);
    if !alice_has_collateral {
        fs::remove_file(parties[0].path("collateral.json")).unwrap();
    }
    let ended = world.run(&parties[0], RUN).wait();
    (ended, impostor.guests())
}

/// Alice refuses bob at this check, seals nothing to him, and says why she leaves.
#[track_caller]
fn refused((ended, guests): (Ended, Vec<Guest>), code: &str) -> Ended {
    let sent = &guests.last().expect("alice came").sent;
    assert!(!sent.contains(&"shares"), "{sent:?}");
    assert_eq!(sent.last(), Some(&"leave: attestation"), "{sent:?}");
    ended
        .expect(REFUSED)
        .says("the evidence of 'bob', another provider, was refused here")
        .says(&format!("[{code}]"))
        .never_says("evidence of bob verified")
}

#[test]
fn a_provider_whose_evidence_holds_is_sealed_to() {
    for alice_has_collateral in [true, false] {
        let (ended, guests) = seated(alice_has_collateral, |bob| Some(bob.honest()));
        ended.expect(FAILED).says("evidence of bob verified: ").says("that is enough");
        assert!(guests.last().unwrap().sent.contains(&"shares"), "{guests:?}");
    }
}

#[test]
fn provider_without_evidence() {
    refused(seated(true, |_| None), "no-key-evidence");
}

#[test]
fn evidence_of_another_member() {
    // Alice's own is reflected; another member's would be no other case.
    refused(seated(true, |bob| Some(bob.alice.clone())), "key-binding");
    let carols = |bob: &Bob| {
        let digest = bob.job.digest().0;
        let carol = Identity::generate();
        let key =
            OneTimeKey { party: "carol", identity: carol.spki(), ..bob.key(&digest, &bob.offer) };
        Some(shown(&*bob.program, key, &bob.collateral))
    };
    refused(seated(true, carols), "key-binding");
}

#[test]
fn evidence_under_another_name_or_identity() {
    refused(
        seated(true, |bob| {
            let digest = bob.job.digest().0;
            let key = OneTimeKey { party: "alice", ..bob.key(&digest, &bob.offer) };
            Some(shown(&*bob.program, key, &bob.collateral))
        }),
        "key-binding",
    );
    refused(
        seated(true, |bob| {
            let (digest, other) = (bob.job.digest().0, Identity::generate());
            let key = OneTimeKey { identity: other.spki(), ..bob.key(&digest, &bob.offer) };
            Some(shown(&*bob.program, key, &bob.collateral))
        }),
        "key-binding",
    );
}

/// The service keeps what the genuine program showed, and offers a key of its own.
#[test]
fn evidence_over_another_one_time_key() {
    let another = |bob: &Bob| {
        let (digest, genuine) = (bob.job.digest().0, bob.another_offer());
        Some(shown(&*bob.program, bob.key(&digest, &genuine), &bob.collateral))
    };
    refused(seated(true, another), "key-binding");
}

/// What bob showed in a run of the same job, beside the key that he offers in this one.
#[test]
fn evidence_of_an_earlier_run() {
    let earlier = Mutex::new(None);
    let replayed = move |bob: &Bob| {
        let mut earlier = earlier.lock().unwrap();
        let first = earlier.get_or_insert_with(|| {
            let (digest, offer) = (bob.job.digest().0, bob.another_offer());
            shown(&*bob.program, bob.key(&digest, &offer), &bob.collateral)
        });
        Some(first.clone())
    };
    refused(seated(true, replayed), "key-binding");
}

#[test]
fn evidence_for_another_job() {
    refused(
        seated(true, |bob| {
            Some(shown(&*bob.program, bob.key(&[5; 32], &bob.offer), &bob.collateral))
        }),
        "key-binding",
    );
}

#[test]
fn evidence_of_another_program() {
    let ended = refused(
        seated(true, |bob| {
            let digest = bob.job.digest().0;
            Some(shown(&*bob.another_program, bob.key(&digest, &bob.offer), &bob.collateral))
        }),
        "measurement",
    );
    ended.says(&hex::encode(Enclave::named("another program").mr_enclave));
}

/// A quote over a connection, in which every field is bob's.
#[test]
fn quote_over_a_connection_in_place_of_one_over_the_key() {
    for role in [Role::Party, Role::Service] {
        refused(
            seated(true, move |bob| {
                let digest = bob.job.digest().0;
                let session = Session {
                    exporter: &[1; 32],
                    party_nonce: &[2; 32],
                    service_nonce: &[3; 32],
                    party_spki: bob.identity.spki(),
                    service_spki: bob.offer.one_time_key.as_slice(),
                    job: &digest,
                };
                let quote = bob.program.quote(&session.report_data(role)).unwrap();
                Some(OfferEvidence { quote: quote.into(), ..bob.honest() })
            }),
            "key-binding",
        );
    }
}

/// The host's clock may be slow: what it accepts is judged again by the party's.
#[test]
fn collateral_expired_by_the_partys_clock() {
    let expired =
        |bob: &Bob| Some(OfferEvidence { collateral: bob.expired.clone().into(), ..bob.honest() });
    refused(seated(false, expired), "collateral-expired");
    // Where the party has its own, whatever is passed on does not matter.
    let (ended, _) = seated(true, expired);
    ended.expect(FAILED).says("evidence of bob verified: ");
}

#[test]
fn garbage_collateral_of_a_provider() {
    for garbage in ["", "{}", "not JSON", "\u{1b}[32mevidence of bob verified"] {
        let garbage =
            |bob: &Bob| Some(OfferEvidence { collateral: garbage.into(), ..bob.honest() });
        refused(seated(false, garbage), "no-collateral");
    }
}

/// Runs both parties of a job, each with its own arguments, to their ends.
fn both(world: &World, parties: &[Party; 2], args: [&str; 2]) -> [Ended; 2] {
    for (party, lines) in parties.iter().zip([["a", "b"], ["b", "c"]]) {
        party.lines(&lines);
    }
    let run = |at: usize| world.run(&parties[at], &format!("{RUN} {}", args[at]));
    [run(0), run(1)].map(convelo_tests::Process::wait)
}

/// Nobody at the service has collateral for anyone: what the parties offer serves it, and each other.
#[test]
fn a_service_without_collateral_verifies_providers() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).two_way().give_to(&parties);
    let others = ["bob", "alice"];
    for (ended, other) in both(&world, &parties, ["--json"; 2]).into_iter().zip(others) {
        let ended = ended.expect(0).says(&format!("evidence of {other} verified: "));
        let ended = ended.says(&format!("this party verified the evidence of {other}"));
        let json = ended.json();
        let [found] = &json["providers"].as_array().unwrap()[..] else { panic!() };
        assert_eq!(found["name"], *other);
        let measured = hex::encode(Enclave::named(PROVIDER).mr_enclave);
        assert_eq!(found["verdict"]["mr_enclave"], measured);
        assert_eq!(found["verdict"]["simulated"], true);
    }
    assert_eq!(parties[0].matched(), ["b"]);
    let verify = "receipt verify matched.txt.receipt.json";
    let receipt = world.start_at(&parties[0], verify).wait().expect(0).stdout;
    let unsigned = receipt.lines().find(|line| line.starts_with("UNSIGNED")).unwrap();
    assert!(unsigned.contains("it verified the evidence of \"bob\""), "{unsigned}");
    let check = world.start_at(&parties[0], "check job.toml").wait().expect(0).stdout;
    assert!(check.contains("the parties verify the service and each other"), "{check}");
}

/// The program that is measured, as it is started in an enclave: it has no collateral to verify
/// anybody with, and offers its own to parties that have none.
#[test]
fn the_measured_program_serves_two_way_jobs() {
    let world = World::new();
    let service =
        Measured::start(&world, "--offer-collateral platform/collateral.json --insecure-simulated");
    let parties = world.parties(["alice", "bob"]);
    world.job(None, &parties).address(&service.address).two_way().give_to(&parties);
    fs::remove_file(parties[0].path("collateral.json")).unwrap();
    let offered = "--offer-collateral ../platform/collateral.json";
    for ended in both(&world, &parties, [offered, ""]) {
        ended.expect(0).says("evidence verified: ").says("this party verified the evidence of ");
    }
    assert_eq!(parties[1].matched(), ["b"]);

    // A file that gets lost is still offered; one that gets older or damaged is not taken.
    fs::write(world.path("platform/collateral.json"), "{").unwrap();
    let [alice, _] = both(&world, &parties, ["--offer-collateral ../bob/collateral.json", ""]);
    alice.expect(0).says("evidence verified: ");
}

#[test]
fn the_measured_program_refuses_simulated_providers() {
    let world = World::new();
    let service = Measured::start(&world, "");
    let parties = world.parties(["alice", "bob"]);
    world.job(None, &parties).address(&service.address).two_way().give_to(&parties);
    parties[0].lines(&["a"]);
    let ended = world.run(&parties[0], RUN).wait().expect(USAGE);
    ended.says("was not started with --insecure-simulated");
}

/// Whom the service accepts, a party may still refuse; the others hear of it in a word.
#[test]
fn a_party_that_demands_more_of_the_others_than_the_job_does() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).two_way().give_to(&parties);
    parties[0].write("strict.toml", world.service_policy());
    let [alice, bob] = both(&world, &parties, ["--provider-policy strict.toml", ""]);
    alice.expect(REFUSED).says("the evidence of 'bob', another provider, was refused here");
    bob.expect(REFUSED)
        .says(
            "'alice' left the job: it refused the evidence it was shown of another party's program",
        )
        .says("evidence of alice verified");
    assert!(!parties[0].has_matched() && !parties[1].has_matched());
}

#[test]
fn a_job_over_several_services_has_evidence_for_each() {
    let world = World::new();
    let services = [world.serve(), world.serve()];
    let parties = world.parties(["alice", "bob"]);
    let addresses = services.each_ref().map(|service| service.address.as_str());
    world.job(None, &parties).addresses(&addresses).two_way().give_to(&parties);
    for ended in both(&world, &parties, [""; 2]) {
        ended.expect(0).says("this party verified the evidence of ");
    }
    assert_eq!(parties[0].matched(), ["b"]);
}

/// Wherever the connection breaks, the evidence is not lost on the way.
#[test]
fn a_two_way_job_survives_broken_connections() {
    let world = World::new();
    let service = world.serve_with("--listen 127.0.0.1:0 --reconnect-within 30s");
    let parties = world.parties(["alice", "bob"]);
    let after = [9_000, 15_000, 21_000, 27_000, 33_000, 39_000, 45_000];
    let route = breaking(&service.address, Counted::Down, after);
    world.job(Some(&service), &parties).two_way().give_to(&parties);
    let [alice, bob] = both(&world, &parties, [&format!("--service {route}"), ""]);
    alice.expect(0).says("reconnected").says("this party verified the evidence of bob");
    bob.expect(0);
    assert_eq!(parties[0].matched(), ["b"]);
}

/// Without pinned parties, nobody but the party itself says which programs it accepts.
#[test]
fn join_demands_a_policy_for_the_other_providers() {
    let world = World::new();
    world.write("providers.toml", world.provider_policy());
    let collateral = "--collateral platform/collateral.json";
    let service =
        world.serve_with(&format!("--listen 127.0.0.1:0 --policy providers.toml {collateral}"));
    let parties = world.parties(["alice", "bob"]);
    let flags = "--parties 2 --verify two-way --simulated ../platform --output matched.txt";
    for party in &parties {
        party.lines(&["a", &party.name]);
    }
    let refused = world.join(&service, &parties[0], flags).wait().expect(USAGE);
    refused.says("from the other providers").says("--provider-policy FILE");
    let flags = format!("{flags} --provider-policy ../providers.toml");
    for process in parties.each_ref().map(|party| world.join(&service, party, &flags)) {
        process.wait().expect(0).says("this party verified the evidence of ");
    }
    assert_eq!(parties[0].matched(), ["a"]);
}

#[test]
fn provider_policy_in_a_job_without_evidence_of_providers() {
    let world = World::new();
    let parties = world.parties(["alice", "bob"]);
    world.job(None, &parties).address("localhost:1").give_to(&parties);
    parties[0].write("own.toml", world.provider_policy());
    parties[0].lines(&["a"]);
    let ended = world.run(&parties[0], &format!("{RUN} --provider-policy own.toml")).wait();
    ended.expect(USAGE).says("they prove nothing");
}

/// A party that speaks by hand up to its Hello, at a service that has no collateral.
struct Scene {
    world: World,
    service: Service,
    parties: [Party; 2],
    job: Job,
}

impl Scene {
    fn new(serve: &str) -> Self {
        let world = World::new();
        let service = world.serve_with(&format!("--listen 127.0.0.1:0 {serve}"));
        let parties = world.parties(["alice", "bob"]);
        let job = world.job(Some(&service), &parties).two_way().job();
        Self { world, service, parties, job }
    }

    /// What bob's program shows about his key, and a Hello with what `change` makes of it.
    fn hello(&self, change: impl FnOnce(OfferEvidence) -> Option<OfferEvidence>) -> Failed {
        let bob = &self.parties[1].identity;
        let program = program(&self.world, PROVIDER);
        let credential = bob.attested(&*program).unwrap();
        let expect = self.world.expect();
        let mut connection =
            RawConnection::open_attested(&self.service.address, credential, expect);
        let (challenge, proof) = connection.attest(self.job.digest());
        let exchange = Exchange {
            party_nonce: challenge.nonce,
            service_nonce: proof.nonce,
            job: challenge.job.0,
        };
        let data = connection.binding.report_data(Role::Party, &exchange);
        connection.send(FromParty::Evidence(program.quote(&data).unwrap()));
        let offer = Opening::new(&self.job, "bob", bob.signing_key(), &mut os_rng()).offer();
        let key = OneTimeKey {
            job: &self.job.digest().0,
            party: "bob",
            identity: bob.spki(),
            key: offer.one_time_key.as_slice(),
        };
        let good = collateral(&self.world, &CollateralKnobs::default());
        connection.send(FromParty::Hello(Hello {
            job: self.job.canonical().to_owned().into(),
            party: "bob".to_owned(),
            evidence: change(shown(&*program, key, &good)),
            offer,
            software: "a test".to_owned(),
            received: None,
        }));
        match connection.receive() {
            Received::Message(ToParty::Failed(failed)) => failed,
            Received::Message(ToParty::Waiting(_)) => Failed::new(Reason::Stopped, "seated"),
            Received::Message(_) => panic!("another message"),
            Received::End => Failed::new(Reason::ConnectionLost, "cut off"),
        }
    }
}

#[test]
fn what_the_service_refuses_gets_no_seat() {
    let scene = Scene::new("");
    assert_eq!(scene.hello(Some).explanation, "seated");
    let refused = |change: fn(OfferEvidence) -> Option<OfferEvidence>, code: &str| {
        let failed = scene.hello(change);
        assert_eq!(failed.reason, Reason::Attestation, "{failed}");
        assert!(failed.explanation.contains(&format!("[{code}]")), "{failed}");
    };
    refused(|_| None, "no-key-evidence");
    refused(|shown| Some(OfferEvidence { collateral: "{}".into(), ..shown }), "no-collateral");
    refused(|shown| Some(OfferEvidence { collateral: "".into(), ..shown }), "no-collateral");
    refused(
        |shown| {
            let mut quote = shown.quote.to_vec();
            quote[368] ^= 1;
            Some(OfferEvidence { quote: quote.into(), ..shown })
        },
        "key-binding",
    );
    let service = scene.service.process.stderr();
    assert!(!service.contains("panicked"), "{service}");
}

/// With collateral of its own, a service need not take what is offered, good or bad.
#[test]
fn the_operators_collateral_wins() {
    let scene = Scene::new("--collateral platform/collateral.json");
    let garbage = |shown| Some(OfferEvidence { collateral: "garbage".into(), ..shown });
    assert_eq!(scene.hello(garbage).explanation, "seated");
}

#[test]
fn more_collateral_than_a_stranger_may_send() {
    let scene = Scene::new("");
    for bytes in [MAXIMUM_OFFERED_BYTES + 1, MAXIMUM_COLLATERAL_BYTES] {
        let long = |shown| Some(OfferEvidence { collateral: vec![b' '; bytes].into(), ..shown });
        let ended = scene.hello(long);
        // The longer one is cut off as it comes in, before anybody reads it.
        assert!(ended.reason == Reason::Protocol || bytes > MAXIMUM_OFFERED_BYTES + 1, "{ended}");
        assert_ne!(ended.explanation, "seated", "{bytes}");
    }
    // The service goes on.
    assert_eq!(scene.hello(Some).explanation, "seated");
}

/// What is passed on takes memory: once here, and once for each party.
#[test]
fn evidence_that_nobody_has_room_for() {
    let scene = Scene::new("--memory 64K");
    let failed = scene.hello(Some);
    assert_eq!(failed.reason, Reason::NoRoom, "{failed}");
    assert!(failed.explanation.contains("no room to pass this party's evidence on"), "{failed}");
}

/// The party that reads it is the one whose evidence was refused.
#[test]
fn a_provider_is_told_of_its_own_evidence() {
    let world = World::new();
    world.write("providers.toml", world.provider_policy());
    let service = world.serve_with("--listen 127.0.0.1:0 --policy providers.toml");
    let alice = world.party("alice");
    alice.lines(&["a"]);
    let ended = world.join(&service, &alice, "--parties 2").wait().expect(REFUSED);
    ended
        .says("concerns your software")
        .says("this service's operator demands every provider's evidence")
        .never_says("the peer");
}
