//! Refused evidence, end to end: the provider is a separate process, and sends nothing.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use convelo_attest::{QuoteError, QuoteSource, Tee, report_data};
use convelo_channel::Identity;
use convelo_psi::KeyId;
use convelo_simulator::{CollateralKnobs, Enclave, Platform, policy_toml};
use convelo_tests::{Ended, Hosted, PATIENCE, Party, SERVICE_ENCLAVE, World};

/// The exit code for refused evidence.
const REFUSED: i32 = 3;

/// What the service logs when it opens a job.
const OPENED: &str = "a job is opened";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Forwards connections to a service, and keeps what each client sent until it hung up.
struct Proxy {
    address: String,
    connections: Arc<AtomicUsize>,
    recordings: Receiver<Vec<u8>>,
}

impl Proxy {
    fn to(service: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let (recorder, recordings) = sync_channel(16);
        let (service, counter) = (service.to_owned(), Arc::clone(&connections));
        thread::spawn(move || {
            for client in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                let (service, recorder) = (service.clone(), recorder.clone());
                thread::spawn(move || recorder.send(record(client.unwrap(), &service)));
            }
        });
        Self { address, connections, recordings }
    }

    /// What the next client to hang up had sent.
    fn recording(&self) -> Vec<u8> {
        self.recordings.recv_timeout(PATIENCE).expect("a connection that has ended")
    }

    /// Demands that there was one connection since the last time, and that its client sent a
    /// ClientHello and hung up with nothing but an alert: two bytes, their type, and the cipher's
    /// tag. (The alert is lost if the client hangs up before it has read everything that was sent
    /// to it.)
    fn demand_silence(&self) {
        const CHANGE_CIPHER_SPEC: u8 = 20;
        const HANDSHAKE: u8 = 22;
        const ENCRYPTED: u8 = 23;
        let mut records = records(&self.recording());
        assert_eq!(self.connections.swap(0, Ordering::SeqCst), 1, "a refusal is final");
        assert_eq!(records.remove(0).0, HANDSHAKE);
        records.retain(|(kind, _)| *kind != CHANGE_CIPHER_SPEC);
        let alert = [(ENCRYPTED, 2 + 1 + 16)];
        assert!(records.is_empty() || records == alert, "more than an alert: {records:?}");
    }
}

fn record(mut client: TcpStream, service: &str) -> Vec<u8> {
    let mut upstream = TcpStream::connect(service).unwrap();
    let (mut from_service, mut to_client) =
        (upstream.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_service, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Write);
    });
    let (mut sent, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        sent.extend_from_slice(&buffer[..read]);
        let _ = upstream.write_all(&buffer[..read]);
    }
    let _ = upstream.shutdown(Shutdown::Write);
    sent
}

/// The outer type and length of every TLS record.
fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        records.push((*kind, length));
        bytes = rest.get(length..).expect("whole records");
    }
    assert!(bytes.is_empty(), "whole records");
    records
}

fn service_enclave() -> Enclave {
    Enclave::named(SERVICE_ENCLAVE)
}

/// The world's platform, for enclaves of our own.
fn platform(world: &World) -> Arc<Platform> {
    Arc::new(Platform::open(&world.path("platform")).unwrap())
}

/// A policy that accepts this enclave of the world's platform.
fn accepting(world: &World, enclave: &Enclave) -> String {
    policy_toml(world.platform(), &[("expected", enclave)])
}

/// Runs alice, whose table holds this one id, and demands that this check refuses.
fn refused(world: &World, party: &Party, args: &str, code: &str) -> Ended {
    party.lines(&["bicycle"]);
    let args = format!("--input ids.txt --output matched.txt {args}");
    let ended = world.run(party, &args).wait().expect(REFUSED);
    assert!(!party.has_matched() && !party.path("matched.txt.receipt.json").exists());
    ended.says("attestation refused").says(&format!("[{code}]")).never_says("bicycle")
}

/// The service of a world, behind a proxy, and a party with a job that has this policy.
struct Scene {
    world: World,
    service: convelo_tests::Service,
    proxy: Proxy,
    parties: [Party; 2],
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let service = world.serve();
        let proxy = Proxy::to(&service.address);
        let parties = world.parties(["alice", "bob"]);
        let scene = Self { world, service, proxy, parties };
        scene.policy(&scene.world.service_policy());
        scene
    }

    fn alice(&self) -> &Party {
        &self.parties[0]
    }

    /// Writes the job file, with this policy for the service.
    fn policy(&self, policy: &str) {
        self.job(policy, |text| text);
    }

    fn job(&self, policy: &str, change: impl Fn(String) -> String) {
        let job = self.world.job(None, &self.parties).address(&self.proxy.address);
        let text = change(job.service_policy(policy).to_toml());
        for party in &self.parties {
            party.write("job.toml", &text);
        }
    }

    /// Demands that alice refuses the service, and sends nothing.
    fn refuses(&self, args: &str, code: &str) -> Ended {
        let ended = refused(&self.world, self.alice(), args, code);
        self.proxy.demand_silence();
        let log = self.service.process.stderr();
        assert!(!log.contains(OPENED), "{log}");
        ended.says("the service was refused and nothing was sent to it")
    }
}

#[test]
fn accepted_evidence_passes_the_same_proxy() {
    let scene = Scene::new();
    let [alice, bob] = &scene.parties;
    let running = [alice, bob].map(|party| scene.world.run_lines(party, &["bicycle"]));
    for process in running {
        process.wait().expect(0);
    }
    assert_eq!(alice.matched(), ["bicycle"]);
    scene.service.process.wait_for(OPENED);
    for _ in [alice, bob] {
        assert!(records(&scene.proxy.recording()).len() > 5);
    }
}

#[test]
fn wrong_measurement() {
    let scene = Scene::new();
    let other = Enclave::named("another program");
    scene.policy(&accepting(&scene.world, &other));
    scene
        .refuses("", "measurement")
        .says(&format!("found: mr_enclave {}", hex::encode(service_enclave().mr_enclave)))
        .says(&format!("expected: {}", hex::encode(other.mr_enclave)));
}

#[test]
fn wrong_signer() {
    let scene = Scene::new();
    let other = Enclave { mr_signer: [9; 32], ..service_enclave() };
    scene.policy(&accepting(&scene.world, &other));
    scene
        .refuses("", "signer")
        .says(&format!("found: mr_signer {}", hex::encode(service_enclave().mr_signer)))
        .says(&format!("expected: {}", hex::encode(other.mr_signer)));
}

#[test]
fn wrong_measurement_under_a_policy_of_the_party_itself() {
    let scene = Scene::new();
    let own = accepting(&scene.world, &Enclave::named("another program"));
    scene.alice().write("own.toml", own);
    scene.refuses("--policy own.toml", "measurement");
}

#[test]
fn expired_collateral() {
    let scene = Scene::new();
    let knobs = CollateralKnobs { issued_days_ago: 5, valid_days: 4, ..CollateralKnobs::default() };
    let expired = scene.world.platform().collateral(&knobs);
    scene.alice().write("collateral.json", expired.to_json());
    scene
        .refuses("", "collateral-expired")
        .says("found: TCB info that expired at 20")
        .says("expected: one in force now, at 20")
        .says("fetch new collateral");
}

#[test]
fn stale_collateral() {
    let scene = Scene::new();
    let knobs = CollateralKnobs { issued_days_ago: 8, ..CollateralKnobs::default() };
    let stale = scene.world.platform().collateral(&knobs);
    scene.alice().write("collateral.json", stale.to_json());
    scene
        .refuses("", "collateral-stale")
        .says("found: collateral issued at 20")
        .says("expected: issued at most 7 days before now");
}

#[test]
fn collateral_older_than_the_policy_allows() {
    let scene = Scene::new();
    let knobs = CollateralKnobs { issued_days_ago: 4, ..CollateralKnobs::default() };
    let four_days_old = scene.world.platform().collateral(&knobs);
    scene.alice().write("collateral.json", four_days_old.to_json());
    let days = |days| format!("maximum_collateral_age_days = {days}");
    scene.policy(&scene.world.service_policy().replace(&days(7), &days(3)));
    scene.refuses("", "collateral-stale").says("expected: issued at most 3 days before now");
}

#[test]
fn simulated_evidence_against_a_policy_that_does_not_name_its_root() {
    let scene = Scene::new();
    let policy = scene.world.service_policy();
    let (before, rest) = policy.split_once("insecure_simulated_root").unwrap();
    let (_, after) = rest.split_once("-----END CERTIFICATE-----\n\"\"\"\n").unwrap();
    scene.policy(&format!("{before}{after}"));
    scene
        .refuses("", "unknown-root")
        .says("found: evidence signed under another root, 'C=XX,O=SIMULATED - NOT INTEL")
        .says("expected: evidence signed under Intel SGX Root CA")
        .says("insecure_simulated_root");
}

#[test]
fn simulated_evidence_of_another_platform() {
    let scene = Scene::new();
    let other = Platform::new(now()).unwrap();
    scene.policy(&policy_toml(&other, &[("expected", &service_enclave())]));
    let refused = scene
        .refuses("", "unknown-root")
        .says("expected: evidence signed under C=XX,O=SIMULATED")
        .says("each is made with a root of its own");
    let roots: HashSet<&str> =
        refused.stderr.split("(SHA-256 ").skip(1).map(|at| &at[..64]).collect();
    assert_eq!(roots.len(), 2, "{}", refused.stderr);
}

#[test]
fn another_key_than_the_pinned_one_beside_evidence() {
    let scene = Scene::new();
    let pinned = KeyId([7; 32]);
    let verify = "verify = \"service\"\n";
    scene.job(&scene.world.service_policy(), |text| {
        text.replace(verify, &format!("{verify}key = \"{pinned}\"\n"))
    });
    scene
        .refuses("", "pinned-key")
        .says(&format!("found: the key {}", scene.service.key))
        .says(&format!("expected: the key {pinned}"));
}

#[test]
fn another_key_than_the_pinned_one_in_place_of_evidence() {
    let scene = Scene::new();
    let pinned = KeyId([7; 32]);
    let job = scene.world.job(None, &scene.parties).address(&scene.proxy.address);
    job.provider_only(pinned).give_to(&scene.parties);
    scene
        .refuses("--simulated ../platform --insecure-unattested", "pinned-key")
        .says(&format!("found: the key {}", scene.service.key))
        .says(&format!("expected: the key {pinned}"));
}

/// A service inside this test, refused by a provider that is a process.
fn refuses_hosted(source: impl FnOnce(Arc<Platform>) -> Box<dyn QuoteSource>, code: &str) -> Ended {
    let world = World::new();
    let service = Hosted::new(Boxed(source(platform(&world))));
    let proxy = Proxy::to(&service.address);
    let parties = world.parties(["alice", "bob"]);
    world.job(None, &parties).address(&proxy.address).give_to(&parties);
    let ended = refused(&world, &parties[0], "", code);
    proxy.demand_silence();
    ended.says("the service was refused and nothing was sent to it")
}

struct Boxed(Box<dyn QuoteSource>);

impl QuoteSource for Boxed {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        self.0.quote(report_data)
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

#[test]
fn debug_enclave() {
    let debug = Enclave { debug: true, ..service_enclave() };
    refuses_hosted(|platform| Box::new(platform.enclave(debug)), "debug-enclave")
        .says("found: an enclave with DEBUG set")
        .says("expected: DEBUG clear");
}

/// Gives anyone who asks the quote that an enclave once made over its own key.
struct Stolen {
    quote: Vec<u8>,
}

impl QuoteSource for Stolen {
    fn quote(&self, _: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        Ok(self.quote.clone())
    }

    fn describe(&self) -> String {
        "stolen evidence".to_owned()
    }
}

#[test]
fn evidence_of_another_key() {
    let steal = |platform: Arc<Platform>| {
        let owner = Identity::generate();
        let quote = platform.enclave(service_enclave()).quote(&report_data(owner.spki())).unwrap();
        Box::new(Stolen { quote }) as Box<dyn QuoteSource>
    };
    refuses_hosted(steal, "key-binding")
        .says("found: a quote whose report data does not match this key")
        .says("expected: a quote whose report data binds the peer's key");
}

const CHECK: &str = "check job.toml --as alice --contact --insecure-simulated";

#[test]
fn a_check_that_contacts_the_service_refuses_it_too() {
    let scene = Scene::new();
    scene.policy(&accepting(&scene.world, &Enclave::named("another program")));
    let check = scene.world.start_at(scene.alice(), CHECK);
    check.wait().expect(REFUSED).says("[measurement]");
    scene.proxy.demand_silence();
}

#[test]
fn without_a_job_file_the_same_checks_hold() {
    let scene = Scene::new();
    let alice = scene.alice();
    alice.lines(&["bicycle"]);
    let config = scene.world.dynamic_config();
    scene.world.write("dynamic_config.json", &config);
    let join = format!(
        "join --service {} --policy ../dynamic_config.json --name alice --parties 2 \
         --data ids.txt --collateral collateral.json",
        scene.proxy.address
    );
    let ended = scene.world.start_at(alice, &join).wait().expect(REFUSED);
    ended.says("[unknown-root]").never_says("bicycle");
    scene.proxy.demand_silence();

    let (found, expected) = (hex::encode(service_enclave().mr_enclave), "5".repeat(64));
    scene.world.write("dynamic_config.json", config.replace(&found, &expected));
    let join = format!("{join} --insecure-simulated-root ../platform/root.pem");
    let ended = scene.world.start_at(alice, &join).wait().expect(REFUSED);
    ended
        .says("[measurement]")
        .says(&format!("found: mr_enclave {found}"))
        .says(&format!("expected: {expected}"))
        .never_says("bicycle");
    scene.proxy.demand_silence();
}

/// A service that verifies providers, whose evidence is made as `args` say; demands that it refuses
/// alice.
fn refused_by_the_service(
    serve: &str,
    job: impl Fn(convelo_tests::JobBuilder) -> String,
    prepare: impl Fn(&World),
    args: &str,
    code: &str,
) -> Ended {
    let world = World::new();
    world.write("provider-policy.toml", world.provider_policy());
    prepare(&world);
    let collateral = "--collateral platform/collateral.json";
    let service = world.serve_with(&format!("--listen 127.0.0.1:0 {collateral} {serve}"));
    let parties = world.parties(["alice", "bob"]);
    let text = job(world.job(Some(&service), &parties));
    for party in &parties {
        party.write("job.toml", &text);
    }
    let ended = refused(&world, &parties[0], args, code);
    service.process.wait_for("a party was refused");
    let log = service.process.stderr();
    assert!(!log.contains(OPENED), "{log}");
    ended.says("the evidence of 'alice' was refused")
}

#[test]
fn wrong_measurement_of_a_provider() {
    let provider = hex::encode(Enclave::named("convelo-provider").mr_enclave);
    let other = "5".repeat(64);
    refused_by_the_service(
        "",
        |job| job.two_way().to_toml().replace(&provider, &other),
        |_| {},
        "--simulated ../platform",
        "measurement",
    )
    .says(&format!("found mr_enclave {provider}"))
    .says(&format!("expected {other}"));
}

#[test]
fn missing_evidence_of_a_provider() {
    refused_by_the_service(
        "--policy provider-policy.toml",
        |job| job.to_toml(),
        |_| {},
        "",
        "no-evidence",
    )
    .says("found a certificate without an evidence extension")
    .says("expected one DICE evidence extension");
}

#[test]
fn evidence_of_a_provider_on_another_platform() {
    refused_by_the_service(
        "",
        |job| job.two_way().to_toml(),
        |world| drop(Platform::create(&world.path("elsewhere"), now(), Tee::Sgx).unwrap()),
        "--simulated ../elsewhere",
        "unknown-root",
    );
}

#[test]
fn a_provider_that_the_operator_refuses_although_the_job_accepts_it() {
    let strict = Enclave::named("another program");
    refused_by_the_service(
        "--policy strict.toml",
        |job| job.two_way().to_toml(),
        |world| drop(world.write("strict.toml", accepting(world, &strict))),
        "--simulated ../platform",
        "measurement",
    );
}
