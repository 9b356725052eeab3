//! Matching as a library: two providers and the service that joins their tables, in one process.
//!
//! The platform is simulated: its evidence has the genuine form and passes the genuine
//! verification, under a test root, and no hardware protects anything. In production the service is
//! the program `convelo-service` in an enclave, and each provider has its own process.
//!
//! `cargo run -p convelo-party --example matching`

use std::error::Error;
use std::future::pending;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, RecordBatchIterator, RecordBatchReader, StringArray,
};
use convelo_channel::Identity;
use convelo_party::table::{Format, Input, Output, Table, TableOptions};
use convelo_party::{Observer, Plan, Summary, run};
use convelo_psi::{Job, KeyId};
use convelo_service::{Config, Limits, Service};
use convelo_simulator::{CollateralKnobs, Platform};
use tokio::task::JoinHandle;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let (alice, bob) = tokio::runtime::Runtime::new()?.block_on(matching())?;
    let mut stdout = std::io::stdout();
    write!(
        stdout,
        "alice has, in common with bob:\n{alice}\nbob has, in common with alice:\n{bob:?}\n"
    )?;
    Ok(())
}

/// The matched rows of both providers: alice's table and rows are files, bob's are Arrow batches.
pub(crate) async fn matching() -> Outcome<(String, RecordBatch)> {
    let meeting = Meeting::open().await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("alice.csv");
    std::fs::write(&file, "email,city\nAnn@x.org,Delft\nben@x.org,Oss\n")?;
    let matched = directory.path().join("alice.matched.csv");

    let id = Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
    let email = Arc::new(StringArray::from(vec!["cleo@x.org", "ann@x.org"])) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("id", id), ("email", email)])?;
    let (schema, (sender, receiver)) = (batch.schema(), mpsc::sync_channel(1));
    let take = move |batch| sender.send(batch).map_err(io::Error::other);

    tokio::try_join!(
        meeting.provide("alice", csv(&file)?, Output::File(matched.clone()), Arc::new(())),
        meeting.provide(
            "bob",
            batches(RecordBatchIterator::new([Ok(batch)], schema))?,
            Output::Batches(Box::new(take)),
            Arc::new(())
        ),
    )?;
    Ok((std::fs::read_to_string(matched)?, receiver.recv()?))
}

/// A table of batches, such as pyarrow, DuckDB and ADBC produce; its key is the column `email`.
pub(crate) fn batches(batches: impl RecordBatchReader) -> Outcome<Table> {
    let options =
        TableOptions { format: Format::Arrow, key: vec!["email".parse()?], select: Vec::new() };
    Ok(Table::open(Input::batches(batches, &std::env::temp_dir())?, &options)?)
}

/// A table whose key is the column `email`.
pub(crate) fn csv(path: &Path) -> Outcome<Table> {
    let options = TableOptions {
        format: Format::csv(b',', true),
        key: vec!["email".parse()?],
        select: Vec::new(),
    };
    Ok(Table::open(Input::open(path, &std::env::temp_dir())?, &options)?)
}

/// A service, and a job that alice and bob have agreed on.
pub(crate) struct Meeting {
    platform: Arc<Platform>,
    job: Job,
    parties: [(&'static str, Identity); 2],
    serving: JoinHandle<()>,
}

impl Meeting {
    pub(crate) async fn open() -> Outcome<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let platform = Arc::new(Platform::new(now)?);
        let service = Service::bind(Config {
            listen: "127.0.0.1:0".to_owned(),
            identity: Identity::generate(),
            source: platform.program("the service"),
            collateral: None,
            offer: None,
            provider_policy: None,
            admit: None,
            behind_balancer: false,
            insecure_simulated: true,
            memory: 1 << 26,
            limits: Limits::default(),
            reconnect_within: Duration::from_secs(30),
            insecure_ratls_only: false,
        })
        .await?;
        let address = service.address().to_string();
        let serving = tokio::spawn(async {
            let _ = service.run(pending()).await;
        });

        // The parties agree on one job file. It says what the service must prove and who learns
        // what, and pins the parties' keys.
        let parties = ["alice", "bob"].map(|name| (name, Identity::generate()));
        let policy = platform.program_policy("the service").replace("[[", "[[service.policy.");
        let pinned = parties.each_ref().map(|(name, identity)| {
            let key = KeyId::of_spki(identity.spki());
            format!("[[party]]\nname = \"{name}\"\nkey = \"{key}\"\n")
        });
        let job = Job::from_toml(&format!(
            "version = 1\nname = \"customers\"\nmode = \"attested\"\ndeadline = \"1m\"\n\
             maximum_keys = 1000000\n[service]\naddress = \"{address}\"\n[service.policy]\n{policy}\n\
             [[key]]\nname = \"email\"\nnormalise = [\"email\"]\n\
             [reveal]\nwhat = \"intersection\"\n{}",
            pinned.concat()
        ))?;
        Ok(Self { platform, job, parties, serving })
    }

    /// A provider's part; returns those of its rows that the other provider also has.
    pub(crate) async fn provide(
        &self,
        name: &str,
        table: Table,
        output: Output<'static>,
        observer: Arc<dyn Observer>,
    ) -> Outcome<Summary> {
        let [alice, bob] = &self.parties;
        let (_, identity) = if name == alice.0 { alice } else { bob };
        let plan = Plan::builder(self.job.clone(), name, identity.clone())?
            .collateral(self.platform.collateral(&CollateralKnobs::default()))
            .insecure_simulated(true)
            .output(output)
            .build()?;
        Ok(run(plan, table, observer, pending()).await?)
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
