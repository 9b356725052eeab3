//! What a plan takes from the job, and what no caller can take away from it.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "../examples/matching.rs"]
#[expect(dead_code, reason = "its main function")]
mod matching;

use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use convelo_attest::{Collateral, Policy, QuoteSource};
use convelo_channel::{Identity, Listener, PeerStream};
use convelo_party::table::{Format, Input, Output, Table, TableOptions};
use convelo_party::{Error, Hint, Kind, Plan, PlanBuilder};
use convelo_psi::{Job, KeyId, terms};
use convelo_simulator::{CollateralKnobs, Platform};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// What alice is about to do, and the platform that the service runs on.
struct Scene {
    platform: Arc<Platform>,
    alice: Identity,
    bob: Identity,
    directory: TempDir,
    runtime: Runtime,
}

/// A listener that shows evidence, and the peers whose handshake it has completed.
struct Listening {
    address: String,
    key: KeyId,
    accepted: mpsc::Receiver<io::Result<PeerStream>>,
}

impl Scene {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ids.txt"), "bicycle\n").unwrap();
        Self {
            platform: Arc::new(Platform::new(now).unwrap()),
            alice: Identity::generate(),
            bob: Identity::generate(),
            directory,
            runtime: Runtime::new().unwrap(),
        }
    }

    /// A job file of alice and bob, with these lines under `[service]` and whatever follows them.
    fn job(&self, service: &str) -> Job {
        let key = |identity: &Identity| KeyId::of_spki(identity.spki());
        let text = format!(
            "version = 1\nname = \"j\"\nmode = \"attested\"\ndeadline = \"1m\"\nmaximum_keys = 1000\n\
             [[key]]\nname = \"id\"\nnormalise = []\n\
             [[party]]\nname = \"alice\"\nkey = \"{}\"\n[[party]]\nname = \"bob\"\nkey = \"{}\"\n\
             [service]\n{service}",
            key(&self.alice),
            key(&self.bob)
        );
        let reveal =
            if text.contains("[reveal]") { "" } else { "[reveal]\nwhat = \"intersection\"\n" };
        Job::from_toml(&(text + reveal)).unwrap()
    }

    /// The policy that accepts only this program, as a table of the job or on its own.
    fn policy_text(&self, table: &str, program: &str) -> String {
        let policy = self.platform.program_policy(program);
        format!("[{table}]\n{}", policy.replace("\n[[", &format!("\n[[{table}.")))
    }

    fn policy(&self, program: &str) -> Policy {
        Policy::from_toml(&self.platform.program_policy(program)).unwrap()
    }

    fn collateral(&self) -> Collateral {
        self.platform.collateral(&CollateralKnobs::default())
    }

    /// Listens as the program with this name.
    fn listen(&self, program: &str) -> Listening {
        let identity = Identity::generate();
        let key = KeyId::of_spki(identity.spki());
        let listener = Listener::bind("127.0.0.1:0", identity, self.platform.program(program));
        let listener = self.runtime.block_on(listener).unwrap();
        let address = listener.address().unwrap().to_string();
        let (sender, accepted) = mpsc::channel(1);
        self.runtime.spawn(listener.accept(sender));
        Listening { address, key, accepted }
    }

    fn builder(&self, job: Job) -> PlanBuilder {
        let output = Output::File(self.path("matched.txt"));
        let builder = Plan::builder(job, "alice", self.alice.clone()).unwrap().output(output);
        builder.insecure_simulated(true).insecure_unattested(true)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn table(&self) -> Table {
        let input = Input::open(&self.path("ids.txt"), self.directory.path()).unwrap();
        let options = TableOptions { format: Format::Lines, key: Vec::new(), select: Vec::new() };
        Table::open(input, &options).unwrap()
    }

    fn run(&self, plan: Plan) -> Error {
        let run = convelo_party::run(plan, self.table(), Arc::new(()), pending());
        self.runtime.block_on(run).unwrap_err()
    }

    /// Demands that alice refuses the listener in the handshake, because of this check.
    fn refuses(&self, plan: Plan, mut listening: Listening, code: &str) {
        let error = self.run(plan);
        assert_eq!(error.kind(), Kind::Attestation, "{error}");
        assert_eq!(error.refusal().unwrap().code, code, "{error}");
        assert!(listening.accepted.try_recv().is_err(), "no handshake was completed");
        assert!(!self.path("matched.txt").exists());
    }

    /// Demands that there is no plan, for a reason on the caller's side with these words.
    fn usage(&self, built: Result<Plan, Error>, hint: Option<Hint>, words: &str) {
        let error = built.err().expect("no plan");
        assert_eq!((error.kind(), error.hint()), (Kind::Usage, hint), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("--"), "a flag: {error}");
        assert!(!self.path("matched.txt").exists());
    }

    /// A job whose service is at `h:1`.
    fn ordinary(&self) -> Job {
        self.job(&format!("address = \"h:1\"\n{}", self.policy_text("service.policy", "service")))
    }

    fn revealing(&self, reveal: &str) -> Job {
        let policy = self.policy_text("service.policy", "service");
        self.job(&format!("address = \"h:1\"\n{policy}\n[reveal]\n{reveal}"))
    }
}

#[test]
fn the_example() {
    let (alice, bob) = Runtime::new().unwrap().block_on(matching::matching()).unwrap();
    assert_eq!(alice, "email,city\nAnn@x.org,Delft\n");
    let id = Arc::new(Int64Array::from(vec![2])) as ArrayRef;
    let email = Arc::new(StringArray::from(vec!["ann@x.org"])) as ArrayRef;
    assert_eq!(bob, RecordBatch::try_from_iter([("id", id), ("email", email)]).unwrap());
}

/// The job demands a measurement, and the caller does not mention it.
#[test]
fn caller_that_never_mentions_the_policy() {
    let scene = Scene::new();
    let impostor = scene.listen("another program");
    let policy = scene.policy_text("service.policy", "service");
    let job = scene.job(&format!("address = \"{}\"\n{policy}", impostor.address));
    let plan = scene.builder(job).collateral(scene.collateral()).build().unwrap();
    scene.refuses(plan, impostor, "measurement");
}

#[test]
fn lax_policy_of_the_caller_beside_the_jobs() {
    let scene = Scene::new();
    let impostor = scene.listen("another program");
    let policy = scene.policy_text("service.policy", "service");
    let job = scene.job(&format!("address = \"{}\"\n{policy}", impostor.address));
    let lax = scene.policy("another program");
    let plan = scene.builder(job).policies([lax]).collateral(scene.collateral()).build().unwrap();
    assert_eq!(plan.policies().count(), 2);
    scene.refuses(plan, impostor, "measurement");
}

#[test]
fn strict_policy_of_the_caller_beside_the_jobs() {
    let scene = Scene::new();
    let service = scene.listen("service");
    let policy = scene.policy_text("service.policy", "service");
    let job = scene.job(&format!("address = \"{}\"\n{policy}", service.address));
    let strict = scene.policy("a newer service");
    let plan =
        scene.builder(job).policies([strict]).collateral(scene.collateral()).build().unwrap();
    scene.refuses(plan, service, "measurement");
}

/// An address other than the job's is no way around its policy.
#[test]
fn address_of_an_impostor() {
    let scene = Scene::new();
    let impostor = scene.listen("another program");
    let plan = scene.builder(scene.ordinary()).address(impostor.address.clone());
    let plan = plan.collateral(scene.collateral()).build().unwrap();
    scene.refuses(plan, impostor, "measurement");
}

#[test]
fn without_fresh_attestation_the_policy_still_holds() {
    let scene = Scene::new();
    let impostor = scene.listen("another program");
    let plan = scene.builder(scene.ordinary()).address(impostor.address.clone());
    let plan = plan.insecure_ratls_only(true).collateral(scene.collateral()).build().unwrap();
    scene.refuses(plan, impostor, "measurement");
}

fn pinning(scene: &Scene, listening: &Listening, key: KeyId) -> Job {
    let policy = scene.policy_text("provider.policy", "provider");
    let Listening { address, .. } = listening;
    scene.job(&format!("address = \"{address}\"\nverify = \"provider\"\nkey = \"{key}\"\n{policy}"))
}

#[test]
fn another_key_than_the_pinned_one() {
    let scene = Scene::new();
    let service = scene.listen("service");
    let job = pinning(&scene, &service, KeyId([7; 32]));
    let plan = scene.builder(job).quote_source(scene.platform.program("provider")).build();
    scene.refuses(plan.unwrap(), service, "pinned-key");
}

/// If the job verifies no service, a party can do so anyway.
#[test]
fn policy_of_the_caller_where_the_job_has_none() {
    let scene = Scene::new();
    let service = scene.listen("service");
    let job = pinning(&scene, &service, service.key);
    let plan = scene.builder(job).policies([scene.policy("a newer service")]);
    let plan = plan.quote_source(scene.platform.program("provider"));
    scene.refuses(plan.collateral(scene.collateral()).build().unwrap(), service, "measurement");
}

/// The author of a job decides neither that this party trusts a simulated platform nor that it trusts
/// a service that nobody verifies.
#[test]
fn protection_is_taken_away_without_consent() {
    let scene = Scene::new();
    let policies =
        ["service", "provider"].map(|whose| scene.policy_text(&format!("{whose}.policy"), whose));
    let genuine = format!("[service.policy]\n{}", genuine_policy());
    let genuine = genuine.replace("\n[[", "\n[[service.policy.");
    let provider = &policies[1];
    let key = KeyId([7; 32]);
    for (service, own, hint) in [
        (policies[0].clone(), None, Hint::Simulated),
        (format!("verify = \"two-way\"\n{genuine}\n{provider}"), None, Hint::Simulated),
        (genuine.clone(), Some(scene.policy("service")), Hint::Simulated),
        (format!("verify = \"provider\"\nkey = \"{key}\"\n{provider}"), None, Hint::Unattested),
    ] {
        let job = scene.job(&format!("address = \"h:1\"\n{service}"));
        let source = scene.platform.program("provider") as Arc<dyn QuoteSource>;
        let builder =
            || scene.builder(job.clone()).policies(own.clone()).quote_source(source.clone());
        assert!(builder().build().is_ok(), "{hint:?}");
        let built = match hint {
            Hint::Simulated => builder().insecure_simulated(false),
            _ => builder().insecure_unattested(false),
        };
        scene.usage(built.build(), Some(hint), "nothing was sent");
    }
    let job = scene.job(&format!("address = \"h:1\"\n{genuine}"));
    let without = scene.builder(job).insecure_simulated(false).insecure_unattested(false);
    assert!(without.build().is_ok(), "a job that takes nothing away needs no consent");
}

fn genuine_policy() -> String {
    let measurement = "ab".repeat(32);
    format!("version = 1\n[[enclave]]\nname = \"service\"\nmr_enclave = \"{measurement}\"\n")
}

#[test]
fn name_that_the_job_does_not_list() {
    let scene = Scene::new();
    let built = Plan::builder(scene.ordinary(), "mallory", scene.alice.clone());
    scene.usage(built.and_then(PlanBuilder::build), None, "no party 'mallory'");
}

#[test]
fn key_of_another_party() {
    let scene = Scene::new();
    let built = Plan::builder(scene.ordinary(), "alice", scene.bob.clone());
    scene.usage(built.and_then(PlanBuilder::build), None, "pins sha256:");
}

#[test]
fn address_missing_or_superfluous() {
    let scene = Scene::new();
    let policy = scene.policy_text("service.policy", "service");
    let nowhere = scene.builder(scene.job(&policy)).build();
    scene.usage(nowhere, Some(Hint::Address), "names no address");
    assert!(scene.builder(scene.job(&policy)).address("h:1".to_owned()).build().is_ok());
    let several = scene.job(&format!("addresses = [\"h:1\", \"h:2\"]\n{policy}"));
    let another = scene.builder(several.clone()).address("h:3".to_owned()).build();
    scene.usage(another, Some(Hint::NoAddress), "its 2 services");
    assert!(scene.builder(several).build().is_ok());
}

#[test]
fn output_where_the_job_gives_no_rows() {
    let scene = Scene::new();
    for (reveal, words) in [
        ("what = \"intersection\"\nto = [\"bob\"]\n", "gives this party nothing"),
        ("what = \"count\"\n", "gives this party a count"),
    ] {
        let job = scene.revealing(reveal);
        scene.usage(scene.builder(job.clone()).build(), Some(Hint::NoOutput), words);
        assert!(scene.builder(job).output(None).build().is_ok());
    }
}

#[test]
fn no_output_where_the_job_gives_rows() {
    let scene = Scene::new();
    let built = scene.builder(scene.ordinary()).output(None).build();
    scene.usage(built, Some(Hint::Output), "gives this party the intersection");
}

#[test]
fn no_evidence_where_the_job_asks_for_it() {
    let scene = Scene::new();
    let policies =
        ["service", "provider"].map(|whose| scene.policy_text(&format!("{whose}.policy"), whose));
    let job = scene.job(&format!("address = \"h:1\"\nverify = \"two-way\"\n{}", policies.concat()));
    let built = scene.builder(job.clone()).build();
    scene.usage(built, Some(Hint::QuoteSource), "evidence about this party");
    let source = scene.platform.program("provider") as Arc<dyn QuoteSource>;
    assert!(scene.builder(job).quote_source(source).build().is_ok());
}

#[test]
fn no_collateral_where_none_can_be_offered() {
    let scene = Scene::new();
    let built = scene.builder(scene.ordinary()).insecure_ratls_only(true).build();
    scene.usage(built, Some(Hint::Collateral), "no collateral");
}

#[test]
fn job_without_pinned_parties_needs_a_policy_of_the_caller() {
    let scene = Scene::new();
    let job = Job::unpinned("j", 2, 10, 60, terms::Service::default()).unwrap();
    let begin = || {
        let output = Output::File(scene.path("matched.txt"));
        let builder = Plan::builder(job.clone(), "whoever", Identity::generate()).unwrap();
        builder.output(output).address("h:1".to_owned()).insecure_simulated(true)
    };
    scene.usage(begin().build(), Some(Hint::Policy), "no policy");
    assert!(begin().policies([scene.policy("service")]).build().is_ok());
}

#[test]
fn table_whose_key_has_another_number_of_columns() {
    let scene = Scene::new();
    let path = scene.path("t.csv");
    std::fs::write(&path, "id,year\na,1\n").unwrap();
    let input = Input::open(&path, scene.directory.path()).unwrap();
    let format = Format::csv(b',', true);
    let key = vec!["id".parse().unwrap(), "year".parse().unwrap()];
    let table = Table::open(input, &TableOptions { format, key, select: Vec::new() }).unwrap();
    let plan = scene.builder(scene.ordinary()).build().unwrap();
    let run = convelo_party::run(plan, table, Arc::new(()), pending());
    let error = scene.runtime.block_on(run).unwrap_err();
    assert_eq!((error.kind(), error.hint()), (Kind::Usage, Some(Hint::KeyColumns)), "{error}");
}

#[test]
fn output_over_the_table() {
    let scene = Scene::new();
    let plan = scene.builder(scene.ordinary()).output(Output::File(scene.path("ids.txt")));
    let error = scene.run(plan.build().unwrap());
    assert_eq!(error.kind(), Kind::Usage, "{error}");
    assert_eq!(std::fs::read_to_string(scene.path("ids.txt")).unwrap(), "bicycle\n");
}

/// Without a policy, a party would believe whatever the service passes on.
#[test]
fn providers_that_no_policy_is_for() {
    let scene = Scene::new();
    for (verify, key) in
        [(terms::Verify::TwoWay, None), (terms::Verify::Provider, Some(KeyId([7; 32])))]
    {
        let service = terms::Service { verify, key, ..terms::Service::default() };
        let job = Job::unpinned("j", 2, 10, 60, service).unwrap();
        let begin = || {
            let builder = Plan::builder(job.clone(), "whoever", Identity::generate()).unwrap();
            let builder = builder.output(Output::File(scene.path("matched.txt")));
            let source = scene.platform.program("provider") as Arc<dyn QuoteSource>;
            let builder = builder.address("h:1".to_owned()).quote_source(source);
            let builder = builder.insecure_simulated(true).insecure_unattested(true);
            builder.policies([scene.policy("service")])
        };
        scene.usage(begin().build(), Some(Hint::ProviderPolicy), "from the other providers");
        let own = || begin().provider_policies([scene.policy("provider")]);
        assert_eq!(own().build().unwrap().provider_policies().count(), 1);
        // This party's own policy takes protection away like any other.
        let without = own().insecure_simulated(false).build();
        scene.usage(without, Some(Hint::Simulated), "nothing was sent");
    }
    let superfluous = scene.builder(scene.ordinary());
    let superfluous = superfluous.provider_policies([scene.policy("provider")]).build();
    scene.usage(superfluous, None, "they prove nothing");
}
