//! A directory with a simulated platform, and everyone who lives there.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use convelo_attest::Tee;
use convelo_attest::{Collateral, Policy};
use convelo_channel::{Expect, Identity};
use convelo_psi::{Job, KeyId};
use convelo_simulator::{CollateralKnobs, Enclave, Platform};
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::convelo;
use crate::client::{RawConnection, RawParty};
use crate::process::Process;
use crate::tables::Random;

/// The name under which the simulated platform impersonates the measured service.
pub const SERVICE_ENCLAVE: &str = "convelo-service";

/// The name under which the simulated platform impersonates a provider's program.
const PROVIDER_ENCLAVE: &str = "convelo-provider";

/// A temporary directory with a simulated platform in `platform/`.
pub struct World {
    directory: TempDir,
    platform: Platform,
    log: Option<&'static str>,
}

/// A service, running as a separate process.
pub struct Service {
    /// Its process.
    pub process: Process,
    /// `127.0.0.1:port`.
    pub address: String,
    /// The key of its certificate.
    pub key: KeyId,
    /// All that it says about itself when it starts.
    pub said: Value,
}

/// A party: its key and its directory, where its job file, tables and results are.
pub struct Party {
    /// Its name.
    pub name: String,
    /// Its key.
    pub identity: Identity,
    home: PathBuf,
}

impl World {
    /// Makes the directory and the platform.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn new() -> Self {
        Self::of(Tee::Sgx)
    }

    /// Makes the directory and a platform of this technology.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn of(tee: Tee) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let platform = Platform::create(&directory.path().join("platform"), unix_now(), tee)
            .expect("a simulated platform");
        Self { directory, platform, log: None }
    }

    /// Has every process log at this level, as in `CONVELO_LOG=debug`.
    #[must_use]
    pub fn logging(mut self, level: &'static str) -> Self {
        self.log = Some(level);
        self
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into the directory.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).expect("the directory can be written to");
        path
    }

    /// The simulated platform.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The policy that accepts the service, TOML.
    pub fn service_policy(&self) -> String {
        self.platform.program_policy(SERVICE_ENCLAVE)
    }

    /// The policy that accepts a provider, TOML.
    pub fn provider_policy(&self) -> String {
        self.platform.program_policy(PROVIDER_ENCLAVE)
    }

    /// The program, in this directory or a given one: `args` are separated by blanks.
    pub fn command(&self, directory: &Path, args: &str) -> Command {
        let mut command = Command::new(convelo());
        command.args(args.split_whitespace()).current_dir(directory).env_remove("CONVELO_LOG");
        if let Some(level) = self.log {
            command.env("CONVELO_LOG", level);
        }
        command
    }

    /// Starts the program in this directory.
    pub fn start(&self, args: &str) -> Process {
        Process::spawn(args, &mut self.command(self.directory.path(), args))
    }

    /// Starts a service on a free port.
    pub fn serve(&self) -> Service {
        self.serve_with("--listen 127.0.0.1:0")
    }

    /// Starts a service with these arguments and waits until it listens.
    ///
    /// # Panics
    /// If it does not.
    pub fn serve_with(&self, args: &str) -> Service {
        // Parties that these tests kill do not come back.
        let waits = if args.contains("--reconnect-within") { "" } else { "--reconnect-within 1s" };
        let process = self.start(&format!("serve --json --simulated platform {waits} {args}"));
        let line: Value = serde_json::from_str(&process.first_line()).expect("a line of JSON");
        let address = line["listening"].as_str().expect("an address").to_owned();
        let key = line["key"].as_str().and_then(|key| key.parse().ok()).expect("a key");
        Service { process, address, key, said: line }
    }

    /// Makes a party with a fresh key.
    ///
    /// # Panics
    /// If there already is one with this name, or the machine does not permit it.
    pub fn party(&self, name: &str) -> Party {
        let home = self.path(name);
        fs::create_dir(&home).expect("a party of a new name");
        let identity = Identity::generate();
        let party = Party { name: name.to_owned(), identity, home };
        let key = party.write(&format!("{name}.key"), party.identity.to_pem().as_bytes());
        private(&key);
        party.write("collateral.json", self.collateral().to_json());
        party
    }

    /// Makes a party for each name.
    pub fn parties<const N: usize>(&self, names: [&str; N]) -> [Party; N] {
        names.map(|name| self.party(name))
    }

    /// A job of these parties: the intersection of one id, for everybody.
    pub fn job<'p>(
        &self,
        service: Option<&Service>,
        parties: impl IntoIterator<Item = &'p Party>,
    ) -> JobBuilder {
        JobBuilder {
            name: "test".to_owned(),
            mode: "attested",
            reached: Vec::new(),
            deadline: "10m".to_owned(),
            maximum_keys: 10_000_000,
            pad_keys_to: None,
            canaries: None,
            key_exchange: None,
            addresses: Vec::new(),
            address: service.map(|service| service.address.clone()),
            verify: "service",
            service_key: None,
            service_policy: Some(self.service_policy()),
            provider_policy: None,
            keys: vec![("id".to_owned(), "\"trim\"".to_owned())],
            ignore: String::new(),
            what: "intersection",
            to: Vec::new(),
            minimum: 0,
            parties: parties
                .into_iter()
                .map(|party| (party.name.clone(), party.key_id(), None))
                .collect(),
            accept_providers: self.provider_policy(),
        }
    }

    /// Starts the program in the directory of a party.
    pub fn start_at(&self, party: &Party, args: &str) -> Process {
        Process::spawn(&party.name, &mut self.command(&party.home, args))
    }

    /// Starts `convelo run` as a party, with its job file `job.toml` and these arguments. The party
    /// accepts the simulated platform, and replaces what it wrote in an earlier run.
    pub fn run(&self, party: &Party, args: &str) -> Process {
        let run = format!("run job.toml --as {} --insecure-simulated --force {args}", party.name);
        self.start_at(party, &run)
    }

    /// Starts `convelo run` as a party whose table is these lines; the result goes to
    /// `matched.txt`, the summary to standard output.
    pub fn run_lines(&self, party: &Party, lines: &[&str]) -> Process {
        party.lines(lines);
        let empty = if lines.is_empty() { " --allow-empty" } else { "" };
        self.run(party, &format!("{LINES_RUN}{empty}"))
    }

    /// Starts `convelo run` as a party whose table is `ids.txt` as it is.
    pub fn run_ids(&self, party: &Party) -> Process {
        self.run(party, LINES_RUN)
    }

    /// Starts `convelo join` as a party whose table is `ids.txt`, with `dynamic_config.json` and
    /// these arguments.
    pub fn join(&self, service: &Service, party: &Party, args: &str) -> Process {
        // Only once: a party that has already been started may be reading it.
        if !self.path("dynamic_config.json").exists() {
            self.write("dynamic_config.json", self.dynamic_config());
        }
        let args = format!(
            "join --service {} --policy ../dynamic_config.json --collateral collateral.json \
             --insecure-simulated-root ../platform/root.pem --name {} --data ids.txt {args}",
            service.address, party.name
        );
        self.start_at(party, &args)
    }

    /// The replaced system's configuration file that accepts the service.
    pub fn dynamic_config(&self) -> String {
        let enclave = Enclave::named(SERVICE_ENCLAVE);
        serde_json::json!({
            "verify_mr_enclave": "on",
            "verify_mr_signer": "on",
            "verify_isv_prod_id": "on",
            "verify_isv_svn": "on",
            "sgx_mrs": [{
                "mr_enclave": hex::encode(enclave.mr_enclave),
                "mr_signer": hex::encode(enclave.mr_signer),
                "isv_prod_id": enclave.isv_prod_id.to_string(),
                "isv_svn": enclave.isv_svn.to_string(),
            }],
        })
        .to_string()
    }

    /// What a client of one of this world's services expects of it.
    ///
    /// # Panics
    /// If the world's own policy is invalid.
    pub fn expect(&self) -> Expect {
        let policy = Policy::from_toml(&self.service_policy()).expect("a policy");
        Expect::Evidence {
            policies: vec![Arc::new(policy)],
            collateral: Arc::new(self.collateral()),
            key: None,
        }
    }

    /// Connects by hand, with any key.
    pub fn connect(&self, service: &Service, identity: &Identity) -> RawConnection {
        RawConnection::open(&service.address, identity, self.expect())
    }

    /// A party that is driven by hand, after its Hello.
    pub fn raw(&self, service: &Service, party: &Party, job: &Job) -> RawParty {
        RawParty::enter(self.connect(service, &party.identity), job, &party.name, &party.identity)
    }

    fn collateral(&self) -> Collateral {
        let tee = self.platform.tee();
        self.platform.collateral(&CollateralKnobs { tee, ..CollateralKnobs::default() })
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

const LINES_RUN: &str = "--input ids.txt --output matched.txt --json";

impl Party {
    /// Its key in the form that job files pin.
    pub fn key_id(&self) -> KeyId {
        KeyId::of_spki(self.identity.spki())
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Writes a file into its directory.
    ///
    /// # Panics
    /// If the machine does not permit it.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).expect("a party's directory can be written to");
        path
    }

    /// Writes its table `ids.txt`: these lines.
    pub fn lines(&self, lines: &[&str]) {
        let text: String = lines.iter().flat_map(|line| [*line, "\n"]).collect();
        self.write("ids.txt", text);
    }

    /// Reads a file of its directory.
    ///
    /// # Panics
    /// If there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name))
            .unwrap_or_else(|error| panic!("{}/{name}: {error}", self.name))
    }

    /// The lines of `matched.txt`.
    pub fn matched(&self) -> Vec<String> {
        self.read("matched.txt").lines().map(str::to_owned).collect()
    }

    /// Whether `matched.txt` exists.
    pub fn has_matched(&self) -> bool {
        self.path("matched.txt").exists()
    }

    /// Removes what a run wrote.
    pub fn forget(&self) {
        for name in ["matched.txt", "matched.txt.receipt.json"] {
            let _ = fs::remove_file(self.path(name));
        }
    }
}

/// A job file in the making.
#[derive(Clone)]
pub struct JobBuilder {
    name: String,
    mode: &'static str,
    /// The parties that others reach at an address of the job.
    reached: Vec<(String, String)>,
    deadline: String,
    maximum_keys: u64,
    pad_keys_to: Option<u64>,
    canaries: Option<u64>,
    key_exchange: Option<String>,
    address: Option<String>,
    addresses: Vec<String>,
    verify: &'static str,
    service_key: Option<KeyId>,
    service_policy: Option<String>,
    provider_policy: Option<String>,
    keys: Vec<(String, String)>,
    ignore: String,
    what: &'static str,
    to: Vec<String>,
    minimum: u64,
    parties: Vec<(String, KeyId, Option<u64>)>,
    accept_providers: String,
}

impl JobBuilder {
    /// Another name than `test`.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Without a service: by this protocol between the parties.
    #[must_use]
    pub fn direct(mut self, mode: &'static str) -> Self {
        self.mode = mode;
        self
    }

    /// Without a service: where the others reach this party.
    #[must_use]
    pub fn reached_at(mut self, party: &Party, address: &str) -> Self {
        self.reached.push((party.name.clone(), address.to_owned()));
        self
    }

    /// Another deadline than `10m`.
    #[must_use]
    pub fn deadline(mut self, deadline: &str) -> Self {
        deadline.clone_into(&mut self.deadline);
        self
    }

    /// The cap on every party's keys.
    #[must_use]
    pub fn maximum_keys(mut self, keys: u64) -> Self {
        self.maximum_keys = keys;
        self
    }

    /// The number of which every set's size is a multiple.
    #[must_use]
    pub fn pad_keys_to(mut self, keys: u64) -> Self {
        self.pad_keys_to = Some(keys);
        self
    }

    /// How many canaries there are of each pattern.
    #[must_use]
    pub fn canaries(mut self, canaries: u64) -> Self {
        self.canaries = Some(canaries);
        self
    }

    /// The key exchange that TLS must use.
    #[must_use]
    pub fn key_exchange(mut self, name: &str) -> Self {
        self.key_exchange = Some(name.to_owned());
        self
    }

    /// The cap on one party's keys.
    ///
    /// # Panics
    /// If the job has no such party.
    #[must_use]
    pub fn maximum_keys_of(mut self, party: &Party, keys: u64) -> Self {
        let entry = self.parties.iter_mut().find(|(name, ..)| *name == party.name);
        entry.expect("a party of the job").2 = Some(keys);
        self
    }

    /// Where the service is.
    #[must_use]
    pub fn address(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
        self
    }

    /// Where the services are, if there are several.
    #[must_use]
    pub fn addresses(mut self, addresses: &[&str]) -> Self {
        self.address = None;
        self.addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        self
    }

    /// The parts of the key, each with its steps.
    #[must_use]
    pub fn key(mut self, parts: &[(&str, &[&str])]) -> Self {
        self.keys = parts.iter().map(|(name, steps)| ((*name).to_owned(), quoted(steps))).collect();
        self
    }

    /// The values that mean "unknown", in every part of the key.
    #[must_use]
    pub fn ignore(mut self, values: &[&str]) -> Self {
        self.ignore = quoted(values);
        self
    }

    /// Counts only.
    #[must_use]
    pub fn count(mut self) -> Self {
        self.what = "count";
        self
    }

    /// Who learns the result.
    #[must_use]
    pub fn to(mut self, parties: &[&Party]) -> Self {
        self.to = parties.iter().map(|party| party.name.clone()).collect();
        self
    }

    /// Withholds smaller results.
    #[must_use]
    pub fn minimum(mut self, keys: u64) -> Self {
        self.minimum = keys;
        self
    }

    /// The service verifies the providers too.
    #[must_use]
    pub fn two_way(mut self) -> Self {
        self.verify = "two-way";
        self.provider_policy = Some(self.accept_providers.clone());
        self
    }

    /// Only the providers are verified; the service is known by its key.
    #[must_use]
    pub fn provider_only(mut self, service: KeyId) -> Self {
        self.verify = "provider";
        self.provider_policy = Some(self.accept_providers.clone());
        self.service_policy = None;
        self.service_key = Some(service);
        self
    }

    /// Another policy for the service's evidence, TOML.
    #[must_use]
    pub fn service_policy(mut self, policy: &str) -> Self {
        self.service_policy = Some(policy.to_owned());
        self
    }

    /// The job file.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "version = 1\nname = \"{}\"\nmode = \"{}\"\ndeadline = \"{}\"\nmaximum_keys = {}\n{}{}\n",
            self.name,
            self.mode,
            self.deadline,
            self.maximum_keys,
            self.pad_keys_to.map(|keys| format!("pad_keys_to = {keys}\n")).unwrap_or_default(),
            self.canaries.map(|count| format!("canaries = {count}\n")).unwrap_or_default(),
        );
        if self.mode == "attested" {
            text += &self.service();
        }
        for (name, steps) in &self.keys {
            text += &format!("\n[[key]]\nname = \"{name}\"\nnormalise = [{steps}]\n");
            if !self.ignore.is_empty() {
                text += &format!("ignore = [{}]\n", self.ignore);
            }
        }
        text += &format!("\n[reveal]\nwhat = \"{}\"\nminimum = {}\n", self.what, self.minimum);
        if !self.to.is_empty() {
            text += &format!("to = [\"{}\"]\n", self.to.join("\", \""));
        }
        for (name, key, cap) in &self.parties {
            text += &format!("\n[[party]]\nname = \"{name}\"\nkey = \"{key}\"\n");
            if let Some(cap) = cap {
                text += &format!("maximum_keys = {cap}\n");
            }
            let reached = self.reached.iter().find(|(party, _)| party == name);
            if let Some((_, address)) = reached {
                text += &format!("address = \"{address}\"\n");
            }
        }
        text
    }

    fn service(&self) -> String {
        let mut text = format!("[service]\nverify = \"{}\"\n", self.verify);
        if let Some(address) = &self.address {
            text += &format!("address = \"{address}\"\n");
        }
        if !self.addresses.is_empty() {
            text += &format!("addresses = [\"{}\"]\n", self.addresses.join("\", \""));
        }
        if let Some(name) = &self.key_exchange {
            text += &format!("key_exchange = \"{name}\"\n");
        }
        if let Some(key) = &self.service_key {
            text += &format!("key = \"{key}\"\n");
        }
        for (table, policy) in
            [("service.policy", &self.service_policy), ("provider.policy", &self.provider_policy)]
        {
            if let Some(policy) = policy {
                // The policy's tables become subtables of this one.
                text +=
                    &format!("\n[{table}]\n{}", policy.replace("\n[[", &format!("\n[[{table}.")));
            }
        }
        text
    }

    /// Writes the job file into the directory of each party, as `job.toml`.
    pub fn give_to<'p>(&self, parties: impl IntoIterator<Item = &'p Party>) -> &Self {
        for party in parties {
            party.write("job.toml", self.to_toml());
        }
        self
    }

    /// The job itself.
    ///
    /// # Panics
    /// If it is not valid.
    pub fn job(&self) -> Job {
        Job::from_toml(&self.to_toml()).unwrap_or_else(|error| panic!("the job file: {error}"))
    }
}

/// The elements of a list in TOML.
fn quoted(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(", ")
}

/// A port that nobody listens on, for a service that starts later than its parties. It is below the
/// range from which the system assigns ports, so no other socket gets it meanwhile.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.subsec_nanos());
    let process = u64::from(std::process::id()) << 40;
    let call = CALLS.fetch_add(1, Ordering::Relaxed) << 32;
    let mut random = Random::new(process ^ call ^ u64::from(nanos));
    let mut ports = (0..1000).map(|_| 20_000 + (random.next() % 12_000) as u16);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

#[cfg(unix)]
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
}
