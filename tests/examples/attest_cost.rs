//! What attestation costs: `cargo xtask bench attest` runs this.
//!
//! CPU of this whole process, the smallest of several rounds. Verification stands beside the
//! verifying library alone; a handshake with evidence beside one of the same kind without.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use convelo_attest::{Evidence, Policy, QuoteError, QuoteSource, verify};
use convelo_channel::{Dialler, Expect, Identity, Listener};
use convelo_simulator::{CollateralKnobs, Enclave, Platform, policy_toml};
use convelo_tests::{Party, Service as Hosting, World};
use dcap_qvl::QuotePolicy;
use dcap_qvl::verify::QuoteVerifier;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::sync::mpsc;

const ROUNDS: usize = 15;
const TIMES: u32 = 40;

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Row {
    name: &'static str,
    ours: f64,
    peer: f64,
    /// At most so many times the peer.
    goal: Option<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let json = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => None,
        [flag, file] if flag == "--json" => Some(PathBuf::from(file)),
        _ => return Err("usage: attest_cost [--json FILE]".into()),
    };
    let scene = Scene::new()?;
    let (ours, library) = scene.verification()?;
    let cold = scene.handshake(Peers::Cold).await?;
    let warm = scene.handshake(Peers::Warm).await?;
    let pinned = scene.handshake(Peers::Pinned).await?;
    let rows = [
        Row { name: "verify a quote", ours, peer: library, goal: Some(1.5) },
        Row { name: "handshake, service verified", ours: cold, peer: pinned, goal: None },
        Row { name: "handshake, verdict kept", ours: warm, peer: pinned, goal: Some(1.5) },
    ];
    say(&format!(
        "{:<30} {:>8} {:>8} {:>6} {:>6}  goal",
        "ms of CPU, both ends", "ours", "peer", "ratio", "holds"
    ));
    let mut list = Vec::new();
    let mut all = true;
    for row in rows {
        let ratio = row.ours / row.peer;
        let holds = row.goal.map(|goal| ratio <= goal);
        all &= holds.unwrap_or(true);
        say(&format!(
            "{:<30} {:>8.3} {:>8.3} {:>6.2} {:>6}  {}",
            row.name,
            row.ours,
            row.peer,
            ratio,
            holds.map_or("", |holds| if holds { "yes" } else { "NO" }),
            row.goal.map(|goal| format!("at most {goal} x")).unwrap_or_default(),
        ));
        list.push(json!({
            "name": row.name, "ours": row.ours, "peer": row.peer, "unit": "ms CPU",
            "ratio": ratio, "goal": row.goal, "holds": holds,
        }));
    }
    say("peer: dcap-qvl alone; a handshake with a pinned key and no evidence");
    let (calm, flooded, rate) = flood()?;
    let (ratio, holds) = (flooded / calm, flooded / calm <= FLOOD_GOAL);
    all &= holds;
    say(&format!(
        "\n{FLOOD:<30} {flooded:>8.3} {calm:>8.3} {ratio:>6.2} {:>6}  at most {FLOOD_GOAL} x",
        if holds { "yes" } else { "NO" }
    ));
    say(&format!(
        "seconds of a join of two times {FLOOD_ROWS} rows on this machine, while {rate:.0} invalid \
         certificates a second come from another address; peer: the same join in peace"
    ));
    list.push(json!({
        "name": FLOOD, "ours": flooded, "peer": calm, "unit": "s",
        "ratio": ratio, "goal": FLOOD_GOAL, "holds": holds,
    }));
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&list)?)?;
    }
    if all { Ok(()) } else { Err("a goal was missed".into()) }
}

const FLOOD: &str = "join under flood";
const FLOOD_GOAL: f64 = 1.2;
const FLOOD_ROWS: usize = 2_000_000;
const FLOOD_ROUNDS: usize = 5;
const FLOOD_RATE: u32 = 1000;

/// Seconds of a join in peace and under a flood of invalid certificates (the least of several
/// rounds each, taken in turn), and how many of these came a second.
fn flood() -> Outcome<(f64, f64, f64)> {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    for (index, party) in parties.iter().enumerate() {
        let from = index * FLOOD_ROWS / 2;
        let lines: Vec<String> = (from..from + FLOOD_ROWS).map(|id| format!("{id:016}")).collect();
        party.write("ids.txt", lines.join("\n"));
    }
    let strangers: Vec<Dialler> = (0..256)
        .map(|number: usize| Identity::generate().attested(&Noise(number)).map(Dialler::new))
        .collect::<Result<_, _>>()?;
    let strangers = Arc::new(strangers);
    let (mut calm, mut flooded, mut rate) = (f64::MAX, f64::MAX, 0.0_f64);
    for round in 0..FLOOD_ROUNDS {
        let name = format!("round-{round}");
        calm = calm.min(join(&world, &service, &parties, &format!("{name}-calm")));
        let over = Arc::new(AtomicBool::new(false));
        let flooding = std::thread::spawn({
            let (over, strangers) = (Arc::clone(&over), Arc::clone(&strangers));
            let (address, key) = (service.address.clone(), service.key.0);
            move || pour(&address, key, &strangers, &over)
        });
        // The service has seen enough of it when the join begins.
        std::thread::sleep(Duration::from_millis(500));
        flooded = flooded.min(join(&world, &service, &parties, &format!("{name}-flooded")));
        over.store(true, Ordering::SeqCst);
        rate = rate.max(flooding.join().map_err(|_| "the flood failed")?);
    }
    Ok((calm, flooded, rate))
}

/// One job under a name of its own; seconds.
fn join(world: &World, service: &Hosting, parties: &[Party; 2], name: &str) -> f64 {
    world.job(Some(service), parties).name(name).give_to(parties);
    let begin = Instant::now();
    let running = parties.each_ref().map(|party| world.run_ids(party));
    for process in running {
        process.wait().expect(0);
    }
    begin.elapsed().as_secs_f64()
}

/// Shows the service one invalid certificate after the other, at the flood's rate, from another
/// address of this machine than the parties have; how many it were a second.
fn pour(address: &str, key: [u8; 32], strangers: &[Dialler], over: &AtomicBool) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (begin, mut sent) = (Instant::now(), 0_u32);
    runtime.block_on(async {
        while !over.load(Ordering::SeqCst) {
            let dialler = strangers[sent as usize % strangers.len()].clone();
            let address = address.to_owned();
            tokio::spawn(async move {
                let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
                socket.bind(([127, 0, 0, 2], 0).into()).expect("an address of this machine");
                let tcp = socket.connect(address.parse().expect("an address")).await;
                if let Ok(tcp) = tcp {
                    let _ = dialler.dial_over(tcp, &address, &Expect::Key(key)).await;
                }
            });
            sent += 1;
            tokio::time::sleep_until((begin + sent * Duration::from_secs(1) / FLOOD_RATE).into())
                .await;
        }
    });
    f64::from(sent) / begin.elapsed().as_secs_f64()
}

/// A source of quotes that are none.
struct Noise(usize);

impl QuoteSource for Noise {
    fn quote(&self, _: &[u8; 64]) -> Result<Vec<u8>, QuoteError> {
        Ok(self.0.to_le_bytes().repeat(500))
    }

    fn describe(&self) -> String {
        "noise".to_owned()
    }
}

enum Peers {
    /// Each handshake sees a certificate that was never verified.
    Cold,
    /// One certificate, verified before.
    Warm,
    /// A pinned key, no evidence asked for.
    Pinned,
}

struct Scene {
    platform: Arc<Platform>,
    policy: Arc<Policy>,
    now: u64,
}

impl Scene {
    fn new() -> Outcome<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let platform = Arc::new(Platform::new(now)?);
        let policy = policy_toml(&platform, &[("service", &Enclave::named("service"))]);
        Ok(Self { platform, policy: Arc::new(Policy::from_toml(&policy)?), now })
    }

    fn source(&self) -> Arc<dyn QuoteSource> {
        Arc::new(self.platform.enclave(Enclave::named("service")))
    }

    /// Milliseconds of CPU for one verification: ours, and the library's share of it.
    fn verification(&self) -> Outcome<(f64, f64)> {
        let collateral = self.platform.collateral(&CollateralKnobs::default());
        let bundle: dcap_qvl::QuoteCollateralV3 = serde_json::from_str(&collateral.to_json())?;
        let certificate = Identity::generate().attested(&*self.source())?;
        let root =
            convelo_attest::certificate_from_pem(self.platform.root_pem()).ok_or("no root")?;
        let (mut ours, mut library) = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            let before = cpu();
            for _ in 0..TIMES {
                let evidence = Evidence::from_certificate(certificate.certificate(), self.now)?;
                verify(&evidence.ok_or("no evidence")?, &collateral, &self.policy, self.now)?;
            }
            ours = ours.min(milliseconds(before) / f64::from(TIMES));
            let quote = Evidence::from_certificate(certificate.certificate(), self.now)?;
            let quote = quote.ok_or("no evidence")?;
            let before = cpu();
            for _ in 0..TIMES {
                QuoteVerifier::new(root.clone()).verify_with_policy(
                    quote.quote(),
                    &bundle,
                    self.now,
                    &QuotePolicy::claims_only(self.now),
                )?;
            }
            library = library.min(milliseconds(before) / f64::from(TIMES));
        }
        Ok((ours, library))
    }

    /// Milliseconds of CPU for one handshake over loopback, both ends together.
    async fn handshake(&self, peers: Peers) -> Outcome<f64> {
        let client = Dialler::new(Identity::generate().plain()?);
        let collateral = Arc::new(self.platform.collateral(&CollateralKnobs::default()));
        let mut least = f64::MAX;
        for _ in 0..ROUNDS {
            let mut spent = Duration::ZERO;
            let mut service = Service::start(self.source()).await?;
            for _ in 0..TIMES {
                if matches!(peers, Peers::Cold) {
                    service = Service::start(self.source()).await?;
                }
                let expect = match peers {
                    Peers::Pinned => Expect::Key(service.key),
                    Peers::Cold | Peers::Warm => Expect::Evidence {
                        policies: vec![Arc::clone(&self.policy)],
                        collateral: Arc::clone(&collateral),
                        key: None,
                    },
                };
                if matches!(peers, Peers::Warm) {
                    service.meet(&client, &expect).await?;
                }
                let before = cpu();
                service.meet(&client, &expect).await?;
                spent += cpu().saturating_sub(before);
            }
            least = least.min(spent.as_secs_f64() * 1e3 / f64::from(TIMES));
        }
        Ok(least)
    }
}

struct Service {
    address: String,
    key: [u8; 32],
    accepted: mpsc::Receiver<std::io::Result<convelo_channel::PeerStream>>,
}

impl Service {
    async fn start(source: Arc<dyn QuoteSource>) -> Outcome<Self> {
        let identity = Identity::generate();
        let key = convelo_psi::KeyId::of_spki(identity.spki()).0;
        let listener = Listener::bind("127.0.0.1:0", identity, source).await?;
        let address = listener.address()?.to_string();
        let (sender, accepted) = mpsc::channel(1);
        tokio::spawn(listener.accept(sender));
        Ok(Self { address, key, accepted })
    }

    async fn meet(&mut self, client: &Dialler, expect: &Expect) -> Outcome<()> {
        let (dialled, accepted) =
            tokio::join!(client.dial(&self.address, expect), self.accepted.recv());
        let _ = (dialled?, accepted.ok_or("nobody was accepted")??);
        Ok(())
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn milliseconds(before: Duration) -> f64 {
    cpu().saturating_sub(before).as_secs_f64() * 1e3
}

#[expect(clippy::print_stdout, reason = "a benchmark talks to a terminal")]
fn say(text: &str) {
    println!("{text}");
}
