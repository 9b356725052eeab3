//! What RA-TLS alone lets through, and the fresh attestation of the connection does not.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use convelo_attest::{QuoteError, QuoteSource, Role};
use convelo_channel::{Dialler, Exchange, Expect, Identity, os_rng};
use convelo_psi::agreement::Opening;
use convelo_psi::{Job, JobDigest};
use convelo_simulator::{CollateralKnobs, Enclave, Platform, policy_toml};
use convelo_tests::{Ended, Hosted, RawConnection, SERVICE_ENCLAVE, Service, World};
use convelo_wire::{Challenge, FromParty, Reason};
use tokio::net::TcpSocket;

/// The exit code for refused evidence.
const REFUSED: i32 = 3;

fn platform(world: &World) -> Arc<Platform> {
    Arc::new(Platform::open(&world.path("platform")).unwrap())
}

/// An attacker's source: a genuine enclave once made the certificate's quote over the attacker's
/// key (which has leaked since). What the attacker can offer afterwards comes from `later`, which
/// is given the report data and that first quote.
struct Leaked<F> {
    enclave: Box<dyn QuoteSource>,
    first: Mutex<Option<Vec<u8>>>,
    later: F,
}

impl<F: Fn(&[u8; 64], &[u8]) -> Vec<u8> + Send + Sync> Leaked<F> {
    fn new(world: &World, later: F) -> Self {
        let enclave = platform(world).enclave(Enclave::named(SERVICE_ENCLAVE));
        Self { enclave: Box::new(enclave), first: Mutex::new(None), later }
    }
}

impl<F: Fn(&[u8; 64], &[u8]) -> Vec<u8> + Send + Sync> QuoteSource for Leaked<F> {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        let mut first = self.first.lock().unwrap();
        // A certificate's report data binds a hash of 32 bytes, a session's one of 64.
        if report_data[32..] == [0; 32] {
            let quote = self.enclave.quote(report_data)?;
            first.get_or_insert_with(|| quote.clone());
            return Ok(quote);
        }
        let recorded = first.as_ref().expect("a certificate comes first");
        Ok((self.later)(report_data, recorded))
    }

    fn describe(&self) -> String {
        "a leaked key".to_owned()
    }
}

/// Runs alice against the attacker and demands that the fresh attestation stops her.
fn refused(world: &World, attacker: &Hosted, policy: Option<String>, code: &str) -> Ended {
    let parties = world.parties(["alice", "bob"]);
    let job = world.job(None, &parties).address(&attacker.address);
    match policy {
        Some(policy) => job.service_policy(&policy).give_to(&parties),
        None => job.give_to(&parties),
    };
    parties[0].lines(&["bicycle"]);
    let ended = world.run(&parties[0], "--input ids.txt --output matched.txt").wait();
    assert!(!parties[0].has_matched());
    ended
        .expect(REFUSED)
        .says("the service was refused and nothing was sent to it but a challenge")
        .says(&format!("[{code}]"))
        .never_says("evidence verified")
        .never_says("bicycle")
}

#[test]
fn replayed_quote_under_a_stolen_key() {
    let world = World::new();
    let attacker = Hosted::new(Leaked::new(&world, |_, first: &[u8]| first.to_vec()));
    refused(&world, &attacker, None, "key-binding");
}

#[test]
fn without_fresh_attestation_a_stolen_key_passes() {
    let world = World::new();
    let source = Leaked::new(&world, |_, first: &[u8]| first.to_vec());
    let attacker = Hosted::insecure_ratls_only(source);
    let parties = world.parties(["alice", "bob"]);
    world.job(None, &parties).address(&attacker.address).give_to(&parties);
    let running = parties.each_ref().map(|party| {
        party.lines(&["bicycle"]);
        world.run(party, "--input ids.txt --output matched.txt --insecure-ratls-only --json")
    });
    for process in running {
        let ended = process.wait().expect(0).says("NOT FRESH");
        assert_eq!(ended.json()["verdict"]["fresh"], false);
    }
}

#[test]
fn quote_of_another_connection() {
    let world = World::new();
    let (service, key) = (world.serve(), Identity::generate());
    let (address, expect) = (service.address.clone(), world.expect());
    // The attacker holds a leaked key and asks a genuine service for a quote, on its own connection.
    let relay = move |_: &[u8; 64], _: &[u8]| {
        let mut connection = RawConnection::open(&address, &key, Expect::clone(&expect));
        connection.attest(JobDigest([5; 32])).1.quote
    };
    let attacker = Hosted::new(Leaked::new(&world, relay));
    refused(&world, &attacker, None, "key-binding");
}

#[test]
fn relay_to_a_second_enclave() {
    let world = World::new();
    let second = Enclave::named("another accepted program");
    let enclaves = [("first", &Enclave::named(SERVICE_ENCLAVE)), ("second", &second)];
    let policy = policy_toml(world.platform(), &enclaves);
    // The second enclave quotes whatever it is given: the worst case, a signing oracle.
    let oracle = platform(&world).enclave(second.clone());
    let relay = move |data: &[u8; 64], _: &[u8]| oracle.quote(data).unwrap();
    let attacker = Hosted::new(Leaked::new(&world, relay));
    refused(&world, &attacker, Some(policy), "another-enclave");
}

/// A service that verifies its parties, and a job that asks for it.
struct Scene {
    world: World,
    service: Service,
    job: Job,
    bob: Identity,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let args = "--listen 127.0.0.1:0 --collateral platform/collateral.json";
        let service = world.serve_with(args);
        let [alice, bob] = world.parties(["alice", "bob"]);
        let job = world.job(Some(&service), [&alice, &bob]).two_way().job();
        Self { world, service, job, bob: bob.identity }
    }

    fn connect(&self) -> RawConnection {
        self.world.connect(&self.service, &self.bob)
    }

    fn hello(&self, connection: &RawConnection, job: &Job) {
        let opening = Opening::new(job, "bob", self.bob.signing_key(), &mut os_rng());
        connection.hello(job, "bob", &opening);
    }

    /// Bob's quote for the exchange on this connection.
    fn quote(&self, connection: &mut RawConnection, role: Role) -> Vec<u8> {
        let (challenge, proof) = connection.attest(self.job.digest());
        let exchange = Exchange {
            party_nonce: challenge.nonce,
            service_nonce: proof.nonce,
            job: challenge.job.0,
        };
        let data = connection.binding.report_data(role, &exchange);
        platform(&self.world).enclave(Enclave::named("convelo-provider")).quote(&data).unwrap()
    }
}

#[test]
fn call_before_attest() {
    let scene = Scene::new();
    let mut connection = scene.connect();
    scene.hello(&connection, &scene.job);
    let failed = connection.failure();
    assert_eq!(failed.reason, Reason::NotAttested, "{failed}");
    assert!(failed.explanation.contains("before a Challenge"), "{failed}");
}

#[test]
fn hello_of_another_job_than_the_challenge() {
    let scene = Scene::new();
    let mut connection = scene.connect();
    connection.attest(JobDigest([5; 32]));
    scene.hello(&connection, &scene.job);
    let failed = connection.failure();
    assert_eq!(failed.reason, Reason::NotAttested, "{failed}");
    assert!(failed.explanation.contains("another job"), "{failed}");
}

#[test]
fn flood_of_quotes_for_one_challenge() {
    let world = World::new();
    let service = world.serve();
    let [alice, bob] = world.parties(["alice", "bob"]);
    // A job in which nobody asks for the parties' evidence.
    let job = world.job(Some(&service), [&alice, &bob]).job();
    let scene = Scene { world, service, job, bob: bob.identity };
    let mut connection = scene.connect();
    let quote = scene.quote(&mut connection, Role::Party);
    scene.hello(&connection, &scene.job);
    for _ in 0..2 {
        connection.send(FromParty::Evidence(quote.clone()));
    }
    let failed = connection.failure();
    assert_eq!(failed.reason, Reason::Protocol, "{failed}");
    assert!(failed.explanation.contains("a second quote"), "{failed}");
}

#[test]
fn reflection_of_the_services_own_quote() {
    let scene = Scene::new();
    let mut connection = scene.connect();
    let (_, proof) = connection.attest(scene.job.digest());
    connection.send(FromParty::Evidence(proof.quote));
    let failed = connection.failure();
    assert_eq!(failed.reason, Reason::Attestation, "{failed}");
    assert!(failed.explanation.contains("[key-binding]"), "{failed}");
}

#[test]
fn swapped_role() {
    let scene = Scene::new();
    let mut connection = scene.connect();
    let quote = scene.quote(&mut connection, Role::Service);
    connection.send(FromParty::Evidence(quote));
    assert_eq!(connection.failure().reason, Reason::Attestation);
}

#[test]
fn replayed_evidence_of_a_party() {
    let scene = Scene::new();
    let mut before = scene.connect();
    let quote = scene.quote(&mut before, Role::Party);
    let mut now = scene.connect();
    now.attest(scene.job.digest());
    now.send(FromParty::Evidence(quote.clone()));
    let failed = now.failure();
    assert_eq!(failed.reason, Reason::Attestation, "{failed}");
    // On its own connection the same quote is accepted as bound; only a certificate with evidence
    // is missing.
    before.send(FromParty::Evidence(quote));
    scene.hello(&before, &scene.job);
    let failed = before.failure();
    assert!(failed.explanation.contains("[no-evidence]"), "{failed}");
}

#[test]
fn two_quotes_for_one_challenge() {
    let scene = Scene::new();
    let mut connection = scene.connect();
    let quote = scene.quote(&mut connection, Role::Party);
    connection.send(FromParty::Evidence(quote.clone()));
    connection.send(FromParty::Evidence(quote));
    assert_eq!(connection.failure().reason, Reason::Protocol);
}

#[test]
fn evidence_without_a_challenge() {
    let scene = Scene::new();
    let mut connection = scene.connect();
    connection.send(FromParty::Evidence(vec![0; 5000]));
    assert_eq!(connection.failure().reason, Reason::Protocol);
}

#[test]
fn reused_nonce() {
    let scene = Scene::new();
    let [(first, one), (second, two)] = [scene.connect(), scene.connect()]
        .map(|mut connection| connection.attest(scene.job.digest()));
    assert_eq!(first, second, "the party's nonce and job are the same");
    assert_ne!(one.nonce, two.nonce, "the service's nonce never is");
    assert_ne!(one.quote[368..432], two.quote[368..432], "nor the report data");
}

#[test]
fn flood_of_challenges_on_one_stream() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    let job = world.job(Some(&service), &parties).job();
    let mut alice = world.raw(&service, &parties[0], &job).seated();
    let mut bob = world.raw(&service, &parties[1], &job);
    bob.assembled();
    let again = Challenge { nonce: [8; 32], job: job.digest() };
    alice.connection.send(FromParty::Challenge(again));
    let failed = alice.connection.failure();
    assert_eq!(failed.reason, Reason::Protocol, "{failed}");
    // The other party is told that she is gone, and the service keeps running.
    assert_eq!(bob.connection.failure().party.as_deref(), Some("alice"));
    let alice = world.raw(&service, &parties[0], &job).seated();
    drop(alice);
}

/// Alice without collateral of her own, against a service that offers this file.
fn offered(collateral: Option<&str>) -> (World, Ended) {
    let world = World::new();
    let service = match collateral {
        Some(text) => {
            world.write("offer.json", text);
            world.serve_with("--listen 127.0.0.1:0 --offer-collateral offer.json")
        }
        None => world.serve_with("--listen 127.0.0.1:0 --offer-collateral nothing.json"),
    };
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    std::fs::remove_file(parties[0].path("collateral.json")).unwrap();
    parties[0].lines(&["bicycle"]);
    let ended = world.run(&parties[0], "--input ids.txt --output matched.txt").wait();
    (world, ended)
}

#[test]
fn collateral_comes_from_the_service_where_there_is_no_other() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    std::fs::remove_file(parties[0].path("collateral.json")).unwrap();
    let running = parties.each_ref().map(|party| {
        party.lines(&["bicycle"]);
        world.run(party, "--input ids.txt --output matched.txt")
    });
    for process in running {
        process.wait().expect(0).says("evidence verified").never_says("NOT FRESH");
    }
    assert_eq!(parties[0].matched(), ["bicycle"]);
    let verify = "receipt verify matched.txt.receipt.json";
    world.start_at(&parties[0], verify).wait().expect(0);
}

#[test]
fn offered_collateral_that_is_none() {
    for offer in [None, Some("{}"), Some("not JSON"), Some("")] {
        let (_, ended) = offered(offer);
        ended.expect(REFUSED).says("[no-collateral]").never_says("bicycle");
    }
}

#[test]
fn offered_collateral_of_another_platform_or_too_old() {
    let elsewhere = Platform::new(1_700_000_000).unwrap();
    let other = elsewhere.collateral(&CollateralKnobs::default()).to_json();
    offered(Some(&other)).1.expect(REFUSED).says("[collateral-expired]");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let other = Platform::new(now).unwrap().collateral(&CollateralKnobs::default()).to_json();
    offered(Some(&other)).1.expect(REFUSED).says("[signature]");
}

/// Alice has seen a newer revocation list of the root, which may revoke a PCK CA. Another service, or the
/// same one later, offers collateral with the older list, which is in force for a year.
#[test]
fn revocation_held_back_by_a_service() {
    let world = World::new();
    let offer = |root_crl_days_ago| {
        let knobs = CollateralKnobs { root_crl_days_ago, ..CollateralKnobs::default() };
        world.write("offer.json", platform(&world).collateral(&knobs).to_json());
        world.serve_with("--listen 127.0.0.1:0 --offer-collateral offer.json")
    };
    let parties = world.parties(["alice", "bob"]);
    for party in &parties {
        party.lines(&["bicycle"]);
    }
    let run = "--input ids.txt --output matched.txt";
    let newer = offer(1);
    world.job(Some(&newer), &parties).give_to(&parties);
    let running = parties.each_ref().map(|party| {
        std::fs::remove_file(party.path("collateral.json")).unwrap();
        world.run(party, run)
    });
    for process in running {
        process.wait().expect(0);
    }
    assert!(parties[0].read("seen-lists.json").contains("\"issued\""));
    // Whoever has seen nothing newer is not helped.
    std::fs::remove_file(parties[1].path("seen-lists.json")).unwrap();

    let older = offer(300);
    let job = world.job(Some(&older), &parties);
    job.give_to(&parties);
    let [alice, bob] = parties.each_ref().map(|party| world.run(party, run));
    let refused = alice.wait().expect(REFUSED);
    refused.says("[list-older-than-seen]").says("root revocation list");
    bob.wait_for("waiting for");
    drop(bob);

    // A check refuses it like a run, and remembers like one.
    for (name, root_crl_days_ago) in [("newer.json", 1), ("older.json", 300)] {
        let knobs = CollateralKnobs { root_crl_days_ago, ..CollateralKnobs::default() };
        let json = platform(&world).collateral(&knobs).to_json();
        parties.iter().for_each(|party| drop(party.write(name, &json)));
    }
    let check = |party: &convelo_tests::Party, collateral: &str| {
        let args = "check job.toml --contact --insecure-simulated --collateral";
        world.start_at(party, &format!("{args} {collateral}")).wait()
    };
    check(&parties[0], "older.json").expect(REFUSED).says("[list-older-than-seen]");
    check(&parties[0], "newer.json").expect(0);
    let _ = std::fs::remove_file(parties[1].path("seen-lists.json"));
    check(&parties[1], "older.json").expect(0);
    check(&parties[1], "newer.json").expect(0);
    check(&parties[1], "older.json").expect(REFUSED).says("[list-older-than-seen]");
    check(&parties[1], "older.json --seen-lists others.json").expect(0);
    assert!(parties[1].read("others.json").contains("\"issued\""));

    parties[0].write("seen-lists.json", "damaged");
    check(&parties[0], "newer.json").expect(2).says("--seen-lists FILE");
    world.run(&parties[0], run).wait().expect(2).says("seen-lists.json").says("--seen-lists FILE");
}

/// A source of invalid quotes, each different.
struct Noise(AtomicUsize);

impl QuoteSource for Noise {
    fn quote(&self, _: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        let count = self.0.fetch_add(1, Ordering::SeqCst);
        Ok(count.to_le_bytes().repeat(500))
    }

    fn describe(&self) -> String {
        "noise".to_owned()
    }
}

#[test]
fn flood_of_distinct_invalid_certificates_while_a_job_runs() {
    const ROWS: usize = 50_000;
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    let ids: Vec<String> = (0..ROWS).map(|id| format!("id {id}")).collect();
    let lines: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let key = service.key.0;
    let flood: Vec<_> = (0..2)
        .map(|_| {
            let (over, sent, address) =
                (Arc::clone(&over), Arc::clone(&sent), service.address.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let noise = Noise(AtomicUsize::new(0));
                while !over.load(Ordering::SeqCst) {
                    let dialler = Dialler::new(Identity::generate().attested(&noise).unwrap());
                    // The dialler accepts the service, so that the service gets a certificate to judge.
                    // From a different address than the parties': too many failures close the door to it.
                    let _ = runtime.block_on(async {
                        let socket = TcpSocket::new_v4().unwrap();
                        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
                        let tcp = socket.connect(address.parse().unwrap()).await.unwrap();
                        dialler.dial_over(tcp, &address, &Expect::Key(key)).await
                    });
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let running = parties.each_ref().map(|party| world.run_lines(party, &lines));
    for process in running {
        process.wait().expect(0);
    }
    over.store(true, Ordering::SeqCst);
    for thread in flood {
        thread.join().unwrap();
    }
    assert!(sent.load(Ordering::SeqCst) > 0);
    service.process.wait_for("a connection was refused");
    assert_eq!(parties[0].matched().len(), ROWS);
}
