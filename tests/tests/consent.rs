//! What takes protection away from a party needs that party's consent, and is never silent.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use convelo_attest::{Policy, QuoteSource};
use convelo_channel::Identity;
use convelo_service::{Config, Limits, Service};
use convelo_simulator::Platform;
use convelo_tests::{Ended, Party, World};

/// The exit code for a job, file or flag that is wrong.
const USAGE: i32 = 2;

/// An address at which nobody may be contacted.
struct Untouched(TcpListener);

impl Untouched {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    fn demand_silence(&self) {
        assert!(self.0.accept().is_err(), "somebody was contacted");
    }
}

fn genuine_policy() -> String {
    let measurement = "ab".repeat(32);
    format!("version = 1\n\n[[enclave]]\nname = \"service\"\nmr_enclave = \"{measurement}\"\n")
}

fn start(world: &World, party: &Party, args: &str) -> Ended {
    party.lines(&["bicycle"]);
    world.start_at(party, args).wait()
}

const RUN: &str = "run job.toml --as alice --input ids.txt --output matched.txt \
                   --simulated ../platform";

#[test]
fn simulated_root_of_the_jobs_author() {
    let (world, nobody) = (World::new(), Untouched::new());
    let parties = world.parties(["alice", "bob"]);
    let job = || world.job(None, &parties).address(&nobody.address());
    for job in [job(), job().two_way(), job().service_policy(&genuine_policy()).two_way()] {
        job.give_to(&parties);
        for quiet in ["", "--quiet", "--insecure-unattested"] {
            start(&world, &parties[0], &format!("{RUN} {quiet}"))
                .expect(USAGE)
                .says("simulated platform")
                .says("nothing was sent")
                .says("--insecure-simulated");
        }
        start(&world, &parties[0], "check job.toml --as alice --contact")
            .expect(USAGE)
            .says("--insecure-simulated");
    }
    nobody.demand_silence();
}

#[test]
fn simulated_root_in_a_policy_of_ones_own() {
    let (world, nobody) = (World::new(), Untouched::new());
    let parties = world.parties(["alice", "bob"]);
    let job = world.job(None, &parties).address(&nobody.address());
    job.service_policy(&genuine_policy()).give_to(&parties);
    parties[0].write("own.toml", world.service_policy());
    start(&world, &parties[0], &format!("{RUN} --policy own.toml"))
        .expect(USAGE)
        .says("--insecure-simulated");
    let join = format!(
        "join --service {} --policy own.toml --name alice --parties 2 --data ids.txt",
        nobody.address()
    );
    start(&world, &parties[0], &join).expect(USAGE).says("--insecure-simulated");
    nobody.demand_silence();
}

#[test]
fn service_that_nobody_verifies() {
    let (world, nobody) = (World::new(), Untouched::new());
    let parties = world.parties(["alice", "bob"]);
    let key = parties[0].key_id();
    world.job(None, &parties).address(&nobody.address()).provider_only(key).give_to(&parties);
    for args in [
        format!("{RUN} --insecure-simulated --quiet"),
        "check job.toml --contact --insecure-simulated".to_owned(),
        format!(
            "join --service {} --name alice --parties 2 --data ids.txt --verify provider \
             --service-key {key} --simulated ../platform --insecure-simulated",
            nobody.address()
        ),
    ] {
        start(&world, &parties[0], &args).expect(USAGE).says("--insecure-unattested");
    }
    nobody.demand_silence();
}

/// Runs both parties of a job quietly to their end.
fn quiet(world: &World, parties: &[Party; 2], args: &str) -> Ended {
    let args = format!(
        "--input ids.txt --output matched.txt --simulated ../platform --quiet --json {args}"
    );
    let running = parties.each_ref().map(|party| {
        party.lines(&["bicycle"]);
        world.run(party, &args)
    });
    let [alice, bob] = running.map(|process| process.wait().expect(0));
    assert_eq!(alice.stderr, bob.stderr);
    alice
}

#[test]
fn quiet_hides_what_takes_protection_away() {
    let world = World::new();
    let service = world.serve_with(
        "--listen 127.0.0.1:0 --insecure-ratls-only --collateral platform/collateral.json --quiet",
    );
    let parties = world.parties(["alice", "bob"]);
    let job = || world.job(Some(&service), &parties);
    for (job, args, notices, fields) in [
        (job(), "", &["SIMULATED"][..], [true, true, true]),
        (job(), "--insecure-ratls-only", &["SIMULATED", "NOT FRESH"], [true, true, false]),
        (
            job().provider_only(service.key),
            "--insecure-unattested",
            &["SIMULATED", "NOT ATTESTED"],
            [false, false, false],
        ),
    ] {
        job.give_to(&parties);
        let ended = quiet(&world, &parties, args);
        let json = ended.json();
        let shown = ended.stderr.lines().collect::<Vec<_>>();
        let noted: Vec<_> =
            json["notices"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
        assert_eq!(shown, noted);
        assert_eq!(shown.len(), notices.len(), "{shown:?}");
        for (line, notice) in shown.iter().zip(notices) {
            assert!(line.starts_with(&format!("{notice}: ")), "{line}");
        }
        assert_eq!(["simulated", "attested", "fresh"].map(|field| json[field] == true), fields);
    }
    let said = service.process.stderr();
    assert!(said.contains("SIMULATED: ") && said.contains("NOT FRESH: "), "{said}");
    assert_eq!(service.said["notices"].as_array().unwrap().len(), 2, "{}", service.said);
}

/// The policy for the others matters as much as the one for the service.
#[test]
fn check_shows_one_of_two_policies() {
    let world = World::new();
    let parties = world.parties(["alice", "bob"]);
    let job = world.job(None, &parties).address("localhost:1").service_policy(&genuine_policy());
    job.two_way().give_to(&parties);
    let ended = start(&world, &parties[0], "check job.toml --as alice").expect(0);
    let plan: Vec<_> = ended.stdout.lines().collect();
    let at = |line: &str| {
        let found = plan.iter().position(|shown| *shown == line);
        found.unwrap_or_else(|| panic!("no '{line}' in {plan:#?}"))
    };
    let service = at("what is accepted as evidence of the service:");
    let providers = at("what is accepted as evidence of the parties:");
    assert!(plan[service + 1].starts_with("  root: Intel SGX Root CA"), "{plan:#?}");
    assert!(plan[providers + 1].starts_with("  SIMULATED: "), "{plan:#?}");
    ended.says("SIMULATED: ");
    let json = start(&world, &parties[0], "check job.toml --as alice --json").expect(0).json();
    assert_eq!(json["notices"].as_array().unwrap().len(), 1);
}

/// The service, too, accepts simulated providers only if its operator does.
#[test]
fn simulated_providers_at_a_service_that_does_not_accept_them() {
    let world = World::new();
    world.write("providers.toml", world.provider_policy());
    let serve = "serve --listen 127.0.0.1:0 --policy providers.toml --collateral \
                 platform/collateral.json --attestation nowhere";
    world.start(serve).wait().expect(USAGE).says("--insecure-simulated");

    let platform = Arc::new(Platform::open(&world.path("platform")).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        listen: "127.0.0.1:0".to_owned(),
        identity: Identity::generate(),
        source: Arc::clone(&platform).program(convelo_tests::SERVICE_ENCLAVE)
            as Arc<dyn QuoteSource>,
        collateral: None,
        offer: None,
        provider_policy: None::<Policy>,
        admit: None,
        behind_balancer: false,
        insecure_simulated: false,
        memory: 1 << 20,
        limits: Limits::default(),
        reconnect_within: Duration::ZERO,
        insecure_ratls_only: false,
    };
    let service = runtime.block_on(Service::bind(config)).unwrap();
    let address = service.address().to_string();
    runtime.spawn(service.run(std::future::pending()));
    let parties = world.parties(["alice", "bob"]);
    world.job(None, &parties).address(&address).two_way().give_to(&parties);
    start(&world, &parties[0], &format!("{RUN} --insecure-simulated"))
        .says("the service says \"the policy for the providers accepts a simulated platform")
        .expect(USAGE);
}
