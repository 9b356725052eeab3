//! Matching as a library: two providers and the service that joins their tables, in one process.
//!
//! The platform is simulated: its evidence has the genuine form and goes through the genuine verification,
//! under a test root, and nothing is protected by hardware. Elsewhere the service is the program
//! `convelo-service` in an enclave, and each provider has a process of its own.
//!
//! `cargo run -p convelo-party --example matching`

use std::error::Error;
use std::future::pending;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convelo_channel::Identity;
use convelo_party::table::{Format, Input, Table, TableOptions};
use convelo_party::{Destination, Plan, run};
use convelo_psi::{Job, KeyId};
use convelo_service::{Config, Service};
use convelo_simulator::{CollateralKnobs, Platform};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    for (name, rows) in ["alice", "bob"].iter().zip(runtime.block_on(matching())?) {
        write!(std::io::stdout(), "{name} has, in common with the other:\n{rows}\n")?;
    }
    Ok(())
}

/// The matched rows of either provider.
pub(crate) async fn matching() -> Outcome<[String; 2]> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let platform = Arc::new(Platform::new(now)?);
    let service = Service::bind(Config {
        listen: "127.0.0.1:0".to_owned(),
        identity: Identity::generate(),
        source: platform.program("the service"),
        collateral: None,
        offer: None,
        provider_policy: None,
        memory: 1 << 26,
        reconnect_within: Duration::from_secs(30),
        insecure_ratls_only: false,
    })
    .await?;
    let address = service.address().to_string();
    let serving = tokio::spawn(service.run(pending()));

    // The parties agree on one job file. It says what the service must prove and who learns what, and it pins
    // their keys.
    let (alice, bob) = (Identity::generate(), Identity::generate());
    let policy = platform.program_policy("the service").replace("[[", "[[service.policy.");
    let [alice_key, bob_key] = [&alice, &bob].map(|identity| KeyId::of_spki(identity.spki()));
    let job = Job::from_toml(&format!(
        "version = 1\nname = \"customers\"\nmode = \"attested\"\ndeadline = \"1m\"\nmaximum_keys = 1000\n\
         [service]\naddress = \"{address}\"\n[service.policy]\n{policy}\n\
         [[key]]\nname = \"email\"\nnormalise = [\"email\"]\n\
         [reveal]\nwhat = \"intersection\"\n\
         [[party]]\nname = \"alice\"\nkey = \"{alice_key}\"\n\
         [[party]]\nname = \"bob\"\nkey = \"{bob_key}\"\n"
    ))?;

    let directory = tempfile::tempdir()?;
    let table = |name: &str, rows: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, rows).map(|()| path)
    };
    let customers = table("alice.csv", "email,city\nAnn@x.org,Delft\nben@x.org,Oss\n")?;
    let patients = table("bob.csv", "id,email\n1,cleo@x.org\n2,ann@x.org\n")?;
    let (first, second) = tokio::join!(
        provide(&job, "alice", alice, &platform, &customers),
        provide(&job, "bob", bob, &platform, &patients),
    );
    serving.abort();
    Ok([first?, second?])
}

/// A provider's part: its rows that the other has, too.
async fn provide(
    job: &Job,
    name: &str,
    identity: Identity,
    platform: &Platform,
    table: &Path,
) -> Outcome<String> {
    let matched = table.with_extension("matched.csv");
    let plan = Plan::builder(job.clone(), name, identity)?
        .collateral(platform.collateral(&CollateralKnobs::default()))
        .output(Destination::File(matched.clone()))
        .receipt(table.with_extension("receipt.json"))
        .build()?;
    let options = TableOptions {
        format: Format::Csv { delimiter: b',', header: true },
        key: vec!["email".parse()?],
        select: Vec::new(),
    };
    let table = Table::open(Input::open(table, &std::env::temp_dir())?, &options)?;
    run(plan, table, Arc::new(()), pending()).await?;
    Ok(std::fs::read_to_string(matched)?)
}
