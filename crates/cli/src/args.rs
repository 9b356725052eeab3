//! What the user may type.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use convelo_psi::{KeyId, Protocol};

use crate::{clock, exit};

/// Organisations compute together without showing each other their data.
///
/// Two to sixty-four data providers learn what their tables have in common, and nothing else,
/// through a service that each of them verifies by remote attestation before sending anything.
#[derive(Parser)]
#[command(
    name = "convelo",
    version,
    after_help = exit::HELP,
    propagate_version = true,
    color = clap::ColorChoice::Never
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the main job on this machine: a service and providers as processes, on a simulated
    /// platform
    Demo(Demo),
    /// Write a commented job file to start from
    Init(Init),
    /// Make a party's key and print the fingerprint that others pin
    Keygen(Keygen),
    /// Show the fingerprint of a key
    #[command(subcommand)]
    Key(Key),
    /// Validate a job file and print the plan: who learns what
    Check(Check),
    /// Run the service that joins the sets
    Serve(Serve),
    /// Take part in a job as a provider
    Run(Run),
    /// Take part without a job file, with the flags of Intel's "PSI with SGX"
    Join(Join),
    /// Inspect, verify or make evidence of an enclave
    #[command(subcommand)]
    Attest(Attest),
    /// Write or check a policy: what is accepted as evidence
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Fetch, verify or show collateral: the signed facts needed to verify evidence
    #[command(subcommand)]
    Collateral(CollateralCommand),
    /// Verify the receipt of a finished job, offline
    #[command(subcommand)]
    Receipt(Receipt),
    /// Make and renew a simulated platform, for tests without SGX
    #[command(subcommand)]
    Simulator(Simulator),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How much is said, and how.
#[derive(Args, Clone, Copy)]
pub(crate) struct Voice {
    /// Print nothing on stderr but errors and what takes protection away (SIMULATED, NOT ATTESTED,
    /// NOT FRESH)
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Print a summary in JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogArg {
    Text,
    Json,
}

#[derive(Args)]
pub(crate) struct Demo {
    /// How the tables are intersected: by a simulated service, or by the providers alone
    #[arg(long, value_enum, default_value_t = ModeArg::Attested)]
    pub(crate) mode: ModeArg,
    /// Number of providers, 2 to 64 [default: 3, and 2 without a service]
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=64))]
    pub(crate) parties: Option<u8>,
    /// Generate tables of this many rows each, half of them in common, instead of the small example
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) rows: Option<u64>,
    /// Keep every file in this new directory, with the commands to rerun the steps by hand
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// How sets are intersected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// By a service inside an enclave, which sees only pseudonyms
    Attested,
    /// By up to sixteen parties alone, with VOLE-PSI
    Vole,
    /// By two parties alone, with elliptic curve Diffie-Hellman
    Ecdh,
}

impl ModeArg {
    /// The protocol between the parties, if they do without a service.
    pub(crate) fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Attested => None,
            Self::Vole => Some(Protocol::Vole),
            Self::Ecdh => Some(Protocol::Ecdh),
        }
    }
}

#[derive(Args)]
pub(crate) struct Init {
    /// The name of the job, 1 to 64 of A-Z a-z 0-9 . _ -
    #[arg(long, default_value = "my-job")]
    pub(crate) name: String,
    /// The file to write; an existing one is not overwritten
    #[arg(default_value = "job.toml")]
    pub(crate) file: PathBuf,
    /// How the sets are intersected: by an attested service, or by the parties alone
    #[arg(long, value_enum, default_value_t = ModeArg::Attested)]
    pub(crate) mode: ModeArg,
    /// Take the service's policy from this file instead of a placeholder
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// The service's address [default: psi.example.org:7443]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) service: Option<String>,
    /// A party and the fingerprint of its key, as printed by `convelo keygen`; repeat for each
    /// party
    #[arg(long = "party", value_name = "NAME=sha256:…")]
    pub(crate) parties: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Keygen {
    /// The party's name; the key goes to NAME.key
    pub(crate) name: String,
    /// Write the key to this file instead; an existing one is not overwritten
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also write a certificate for a pool to NAME.crt, signed by the key itself
    #[arg(long)]
    pub(crate) certificate: bool,
    /// Have the certificate issued by the authority in DIR (ca.key and ca.crt), which is created if
    /// it does not exist; the key and certificate go to DIR as well. For tests: anyone who has DIR
    /// has the keys of all parties
    #[arg(long, value_name = "DIR", conflicts_with_all = ["certificate", "output"])]
    pub(crate) authority: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Key {
    /// Print the fingerprint of a key that you have, which others pin
    Show {
        /// The key file, as 'convelo keygen' writes it
        file: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct Check {
    /// The job file
    pub(crate) job: PathBuf,
    /// Check this party's side too: its key, its table
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// This party's key file [default: NAME.key next to the job file]
    #[arg(long, value_name = "FILE", requires = "name")]
    pub(crate) identity: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) table: OptionalTable,
    #[command(flatten)]
    pub(crate) dropping: Dropping,
    /// Replace the list of dropped rows if it exists
    #[arg(long, requires = "list_dropped")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) memory: Memory,
    /// Contact the service and verify its evidence; sends nothing about the job
    #[arg(long)]
    pub(crate) contact: bool,
    /// Reach the service here instead of at the job's address
    #[arg(long, value_name = "HOST:PORT", requires = "contact")]
    pub(crate) service: Option<String>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// Print the plan in JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 picks a free one
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        visible_alias = "host",
        default_value = "0.0.0.0:7443"
    )]
    pub(crate) listen: String,
    #[command(flatten)]
    pub(crate) platform: Platform,
    /// Keep the key of the service's certificate in this file, for parties that pin it [default: a
    /// new key]
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Accept parties that ask for no fresh attestation (plain RA-TLS)
    #[arg(long)]
    pub(crate) insecure_ratls_only: bool,
    /// Verify every provider's evidence against this policy (TOML or dynamic_config.json)
    #[arg(long, value_name = "FILE", visible_alias = "config")]
    pub(crate) policy: Option<PathBuf>,
    /// Collateral to verify providers' evidence with, where it is about their platform; elsewhere, what
    /// they offer is used
    #[arg(long, value_name = "FILE")]
    pub(crate) collateral: Option<PathBuf>,
    /// Offer this platform's own collateral to providers that have none; read again each time
    /// [default: the simulated platform's]
    #[arg(long, value_name = "FILE")]
    pub(crate) offer_collateral: Option<PathBuf>,
    /// Accept evidence of the simulated platform with this root, in addition to --policy; implies
    /// --insecure-simulated
    #[arg(long, value_name = "PEM", requires = "policy")]
    pub(crate) insecure_simulated_root: Option<PathBuf>,
    /// Serve only those whose keys are in this file: on each line a fingerprint, as 'convelo keygen'
    /// prints it, and its owner's name; read again when it changes [default: anyone who proves a
    /// key]
    #[arg(long, value_name = "FILE")]
    pub(crate) admit: Option<PathBuf>,
    /// Take a connection's source from the PROXY protocol header (version 2) of a balancer; then
    /// nothing but the balancer may reach the port
    #[arg(long)]
    pub(crate) behind_balancer: bool,
    /// Accept providers' evidence of a simulated platform, if --policy or a job names its root:
    /// SIMULATED, for tests; implied by --simulated
    #[arg(long)]
    pub(crate) insecure_simulated: bool,
    /// Memory for the joins of all jobs together, 18.5 to 31 bytes per key (K, M, G)
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = bytes)]
    pub(crate) memory: u64,
    /// How long a running job waits for a party whose connection broke (s, m, h); 0 ends it at once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = seconds)]
    pub(crate) reconnect_within: u64,
    /// Answer health checks (/livez, /readyz, gRPC health) and Prometheus (/metrics) here, in plain
    /// HTTP: counts and coarse times, nothing about a set or a result [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) status: Option<String>,
    /// Push the same figures to the OpenTelemetry collector at this address (OTLP over HTTP, JSON):
    /// http://HOST:4318
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<String>,
    /// How often to push figures (s, m, h)
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = seconds, requires = "otlp")]
    pub(crate) otlp_every: u64,
    /// How to write the log, on stderr: lines for people, or one JSON object a line
    #[arg(long, value_enum, value_name = "FORM", default_value_t = LogArg::Text)]
    pub(crate) log: LogArg,
    #[command(flatten)]
    pub(crate) voice: Voice,
    /// The clients of Intel's "PSI with SGX".
    #[command(flatten, next_help_heading = "Serve the clients of Intel's \"PSI with SGX\" too")]
    pub(crate) psi: PsiWireArgs,
    /// Where the files of --offer-collateral and --collateral are refreshed from.
    #[command(flatten, next_help_heading = "Keep the collateral files fresh")]
    pub(crate) refresh: Pcs,
}

/// The wire of Intel's "PSI with SGX".
#[derive(Args)]
pub(crate) struct PsiWireArgs {
    /// Serve psi.PSI here, with RA-TLS; the service sees the clients' ids in the clear [default:
    /// nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) psi_listen: Option<String>,
    /// Use ordinary mutual TLS with this certificate (chain) instead of RA-TLS: NOT ATTESTED. Where
    /// there is no source of evidence, nothing but psi.PSI is served
    #[arg(long, value_name = "PEM", requires_all = ["psi_listen", "psi_key"])]
    pub(crate) insecure_psi_certificate: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "PEM", requires = "insecure_psi_certificate")]
    pub(crate) psi_key: Option<PathBuf>,
    /// Accept clients whose certificates were issued by these authorities
    #[arg(long, value_name = "PEM", requires = "insecure_psi_certificate")]
    pub(crate) psi_client_ca: Option<PathBuf>,
    /// Accept the client with this key; repeat for each [default with neither: nobody]
    #[arg(long, value_name = "sha256:…", requires = "insecure_psi_certificate")]
    pub(crate) psi_client: Vec<KeyId>,
    /// The longest message of ids; reading it takes six times as much of --memory
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    pub(crate) psi_message: u64,
    /// The longest result; their clients receive no more than 4M unless they are told to
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = bytes)]
    pub(crate) psi_result: u64,
    /// How long a client waits for the others, and then the job for their ids (s, m, h)
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = seconds)]
    pub(crate) psi_deadline: u64,
}

/// Where this program's own evidence comes from.
#[derive(Args)]
pub(crate) struct Platform {
    /// Where Gramine's attestation files are; a provider uses them if the job asks for its evidence
    #[arg(long, value_name = "DIR", default_value = "/dev/attestation")]
    pub(crate) attestation: PathBuf,
    /// Make evidence of a TDX guest instead, using the kernel's report directory
    #[arg(
        long,
        value_name = "DIR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "/sys/kernel/config/tsm/report",
        conflicts_with_all = ["attestation", "simulated"]
    )]
    pub(crate) tdx: Option<PathBuf>,
    /// Make evidence on the simulated platform in this directory instead: SIMULATED, for tests
    #[arg(long, value_name = "DIR", conflicts_with = "attestation")]
    pub(crate) simulated: Option<PathBuf>,
}

/// How the service's evidence is judged.
#[derive(Args)]
pub(crate) struct Trust {
    /// Collateral to verify evidence with [default: collateral.json next to the job file or policy;
    /// if there is none, what the service offers, if it is signed and no older than the policy
    /// allows]
    #[arg(long, value_name = "FILE")]
    pub(crate) collateral: Option<PathBuf>,
    /// Remember here the newest revocation lists seen, and refuse older ones [default:
    /// seen-lists.json next to the job file or policy]
    #[arg(long, value_name = "FILE")]
    pub(crate) seen_lists: Option<PathBuf>,
    /// Ask for no fresh attestation (plain RA-TLS): trust a key that an enclave once made
    #[arg(long)]
    pub(crate) insecure_ratls_only: bool,
}

/// What this party accepts although it takes protection away from it. A job file cannot decide that.
#[derive(Args, Clone, Copy)]
pub(crate) struct Consent {
    /// Accept evidence of a simulated platform, for tests: SIMULATED, nothing is protected
    #[arg(long)]
    pub(crate) insecure_simulated: bool,
    /// Accept that nobody verifies the service, if the job says verify = "provider": NOT ATTESTED,
    /// its operator sees what it sees and can answer anything
    #[arg(long)]
    pub(crate) insecure_unattested: bool,
}

impl From<Consent> for convelo_party::Consent {
    fn from(consent: Consent) -> Self {
        let Consent { insecure_simulated, insecure_unattested } = consent;
        Self { insecure_simulated, insecure_unattested }
    }
}

#[derive(Args)]
pub(crate) struct Run {
    /// The job file, identical at every party
    pub(crate) job: PathBuf,
    /// The name the job lists this party under
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) table: TableArgs,
    #[command(flatten)]
    pub(crate) dropping: Dropping,
    /// Where matched rows go, compressed if it ends in .gz; "-" is standard output [required if the
    /// job gives this party the intersection]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output, and the list of dropped rows, if they exist
    #[arg(long)]
    pub(crate) force: bool,
    /// Write the rows of the answer that an earlier run kept in this file because it could not write
    /// them; contacts nobody
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
    /// Write only these columns of matched rows, by name or number (#3), in this order [default:
    /// all]
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub(crate) select: Vec<String>,
    /// This party's key file [default: NAME.key next to the job file]
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Reach the service here instead of at the job's address
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) service: Option<String>,
    #[command(flatten)]
    pub(crate) meeting: Meeting,
    /// This party's own policy, which must accept the service's evidence too
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) others: Others,
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// Where the receipt goes; an existing one is kept, and the new one numbered [default:
    /// OUTPUT.receipt.json, else JOB-NAME.receipt.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) memory: Memory,
    #[command(flatten)]
    pub(crate) platform: Platform,
    #[command(flatten)]
    pub(crate) voice: Voice,
}

/// How parties find each other in a job without a service: one of each two must listen.
#[derive(Args)]
pub(crate) struct Meeting {
    /// In a job without a service, listen for the other parties here [default: the port of this
    /// party's address in the job, if it has one]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// In a job without a service, reach another party here instead of at the job's address;
    /// repeat for each
    #[arg(long = "peer", value_name = "NAME=HOST:PORT")]
    pub(crate) peers: Vec<String>,
}

/// The other providers, in a job whose providers prove their programs to each other.
#[derive(Args)]
pub(crate) struct Others {
    /// This party's own policy for the other providers, which must accept their evidence too
    #[arg(long, value_name = "FILE")]
    pub(crate) provider_policy: Option<PathBuf>,
    /// Collateral for this party's own platform, for those who verify its evidence [default: that of
    /// --collateral, if it is about this platform]
    #[arg(long, value_name = "FILE")]
    pub(crate) offer_collateral: Option<PathBuf>,
}

/// The table of a run.
#[derive(Args)]
pub(crate) struct TableArgs {
    /// The table: CSV, or a text file with one id per line (either plain, .gz or .zst), or Parquet;
    /// "-" is standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) layout: Layout,
}

/// The table of a check.
#[derive(Args)]
pub(crate) struct OptionalTable {
    /// Read this table as a run would, and count its keys
    #[arg(long, short, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) layout: Layout,
}

/// How much memory a provider uses.
#[derive(Args, Clone)]
pub(crate) struct Memory {
    /// Memory to stay within: 48M plus 20 bytes per row (K, M, G); keys that do not fit go through
    /// an encrypted temporary file
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = bytes)]
    pub(crate) memory: u64,
    /// Directory for that file, and for the one that buffers standard input [default: the system's
    /// directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) temporary: Option<PathBuf>,
}

impl From<Memory> for convelo_party::Memory {
    fn from(memory: Memory) -> Self {
        let directory = memory.temporary.unwrap_or_else(std::env::temp_dir);
        Self { bytes: memory.memory, directory }
    }
}

/// How a table is read.
#[derive(Args)]
pub(crate) struct Layout {
    /// Key column, by name or number (#3); repeat for each key part of the job, in the job's order
    #[arg(long = "key", short, value_name = "COLUMN")]
    pub(crate) key: Vec<String>,
    /// Format of the table [default: by its first bytes and its name]
    #[arg(long, value_enum)]
    pub(crate) format: Option<FormatArg>,
    /// Delimiter of a CSV table: one character, or "tab" [default: the one of , ; tab and | that gives
    /// all of the first records the same number of fields]
    #[arg(long, value_name = "CHARACTER")]
    pub(crate) delimiter: Option<String>,
    /// Character that takes the meaning from the one after it in a CSV table, as MySQL and Hadoop write
    /// it: '\' [default: none; quotes are doubled]
    #[arg(long, value_name = "CHARACTER")]
    pub(crate) escape: Option<String>,
    /// The first record of the CSV table is a header, whatever it looks like [default: it is, and
    /// refused if it looks like data]
    #[arg(long, conflicts_with = "no_header")]
    pub(crate) header: bool,
    /// The table has no header: the first record is data, and columns are named #1, #2, …; or the first
    /// line is an id
    #[arg(long)]
    pub(crate) no_header: bool,
}

/// What becomes of rows without a key.
#[derive(Args)]
pub(crate) struct Dropping {
    /// List the rows without a key in this file: number and line of each, key part and reason, no
    /// values
    #[arg(long, value_name = "FILE")]
    pub(crate) list_dropped: Option<PathBuf>,
    /// Go on if no row, or hardly any, has a key
    #[arg(long)]
    pub(crate) allow_empty: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// Columns between delimiters, quoted where needed
    Csv,
    /// One id per line
    Lines,
    /// A Parquet file; recognised by its first bytes
    Parquet,
}

#[derive(Args)]
pub(crate) struct Join {
    /// The service
    #[arg(
        long,
        value_name = "HOST:PORT",
        visible_alias = "host",
        default_value = "localhost:50051"
    )]
    pub(crate) service: String,
    /// What to accept as the service's evidence: dynamic_config.json, or a policy in TOML
    #[arg(
        long,
        value_name = "FILE",
        visible_aliases = ["config", "cfg"],
        default_value = "dynamic_config.json"
    )]
    pub(crate) policy: PathBuf,
    /// This party's name, unique among the parties
    #[arg(long, value_name = "NAME", visible_aliases = ["client_name", "client-name"])]
    pub(crate) name: String,
    /// Number of parties, 2 to 64; the same at every party
    #[arg(
        long,
        visible_aliases = ["client_num", "client-num"],
        value_parser = clap::value_parser!(u8).range(2..=64)
    )]
    pub(crate) parties: u8,
    /// The data file: one id per line
    #[arg(long, value_name = "FILE", visible_aliases = ["data_dir", "data-dir"])]
    pub(crate) data: PathBuf,
    /// The first line is an id, although it looks like the name of a column
    #[arg(long)]
    pub(crate) no_header: bool,
    #[command(flatten)]
    pub(crate) dropping: Dropping,
    /// Accepted for compatibility, without effect: a job needs no chief
    #[arg(long, value_name = "BOOL", visible_aliases = ["is_chief", "is-chief"])]
    pub(crate) chief: Option<String>,
    /// Distinguishes jobs that run on one service at the same time; the same at every party
    #[arg(long, value_name = "NAME", default_value = "join")]
    pub(crate) job: String,
    /// How long to wait for the others and the result (s, m, h)
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = seconds)]
    pub(crate) deadline: u64,
    /// Cap on every party's number of distinct ids; the same at every party
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub(crate) maximum_keys: u64,
    /// Whose evidence is verified; the same at every party
    #[arg(long, value_enum, default_value_t = VerifyArg::Service)]
    pub(crate) verify: VerifyArg,
    /// The service's key, its only identification with --verify provider
    #[arg(long, value_name = "sha256:…")]
    pub(crate) service_key: Option<String>,
    /// This party's key file [default: a new key for this run]
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) others: Others,
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// Accept evidence of the simulated platform with this root, in addition to --policy; implies
    /// --insecure-simulated
    #[arg(long, value_name = "PEM")]
    pub(crate) insecure_simulated_root: Option<PathBuf>,
    /// Write the result to this file instead of stdout
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output, and the list of dropped rows, if they exist
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the result that an earlier run kept in this file because it could not; contacts nobody
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
    /// Where the receipt goes; an existing one is kept, and the new one numbered [default:
    /// DATA.receipt.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) memory: Memory,
    #[command(flatten)]
    pub(crate) platform: Platform,
    #[command(flatten)]
    pub(crate) voice: Voice,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyArg {
    /// The service's and the providers'
    TwoWay,
    /// The service's (called "server" by the replaced system)
    #[value(alias = "server")]
    Service,
    /// The providers' (called "client" by the replaced system)
    #[value(alias = "client")]
    Provider,
}

#[derive(Subcommand)]
pub(crate) enum Attest {
    /// Print what evidence says about itself; proves nothing
    Inspect {
        /// A certificate (PEM or DER), a bare quote, or the address of a service, to which nothing
        /// is sent
        #[arg(value_name = "FILE|HOST:PORT")]
        from: String,
        /// Print JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Verify the evidence of a certificate, or a bare quote, check by check
    Verify {
        /// A certificate (PEM or DER), a bare quote, or the address of a service, to which nothing is
        /// sent
        #[arg(value_name = "FILE|HOST:PORT")]
        from: String,
        /// What to accept: a policy in TOML, or dynamic_config.json
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        #[command(flatten)]
        collateral: CollateralFile,
        /// Accept evidence of the simulated platform with this root, in addition to --policy
        #[arg(long, value_name = "PEM")]
        insecure_simulated_root: Option<PathBuf>,
        /// What a bare quote must be over: up to 64 bytes, in hexadecimal digits or in a file, which
        /// zeros follow
        #[arg(long, value_name = "HEX|FILE")]
        report_data: Option<String>,
        /// Verify as of this time: 2026-10-08T01:09:46Z, 2026-10-08 for midnight UTC, or Unix seconds
        /// [default: now]
        #[arg(long, value_name = "TIME", value_parser = clock::parse)]
        at: Option<u64>,
        /// Print JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Make evidence here: a certificate with a new key, which a peer could verify
    Evidence {
        #[command(flatten)]
        platform: Platform,
        /// Write the certificate (PEM) to this file instead of stdout
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// How evidence is verified.
#[derive(Args)]
pub(crate) struct CollateralFile {
    /// Collateral to verify evidence with [default: collateral.json next to the policy]
    #[arg(long, value_name = "FILE")]
    pub(crate) collateral: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Validate a policy and say what it accepts; errors name line and column
    Check {
        /// The policy: TOML, or dynamic_config.json
        file: PathBuf,
        /// Print JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Convert the dynamic_config.json of Intel's "PSI with SGX"
    FromDynamicConfig {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        output: PolicyOutput,
    },
    /// Convert the RA_TLS_* settings of Gramine's verifier
    FromRaTlsEnv {
        /// A file of NAME=VALUE lines [default: this process's environment]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        name: EnclaveName,
        #[command(flatten)]
        output: PolicyOutput,
    },
    /// Accept the enclave described by a SIGSTRUCT, the .sig file that gramine-sgx-sign writes
    FromSigstruct {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        name: EnclaveName,
        #[command(flatten)]
        output: PolicyOutput,
    },
    /// Accept the enclaves of a release, as the public log of releases names them
    FromRelease {
        /// The version, such as 1.2.3
        // The name "version" is that of clap's own flag.
        #[arg(value_name = "VERSION")]
        release: String,
        /// Take a newer deploy/measurements.toml than the one that this program was built with
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Accept it although it was withdrawn; the log says why it was
        #[arg(long)]
        insecure_withdrawn: bool,
        #[command(flatten)]
        output: PolicyOutput,
    },
    /// Accept an enclave by its measurement
    FromMeasurement {
        /// The measurement of its code and initial data, 64 hexadecimal digits
        #[arg(long, value_name = "HEX")]
        mr_enclave: String,
        /// SHA-256 of the key that signed it, 64 hexadecimal digits
        #[arg(long, value_name = "HEX")]
        mr_signer: Option<String>,
        /// The signer's product number [default: any]
        #[arg(long, value_name = "N")]
        isv_prod_id: Option<u16>,
        /// The lowest accepted security version
        #[arg(long, value_name = "N", default_value_t = 0)]
        minimum_isv_svn: u16,
        #[command(flatten)]
        name: EnclaveName,
        #[command(flatten)]
        output: PolicyOutput,
    },
}

/// The name of an enclave.
#[derive(Args)]
pub(crate) struct EnclaveName {
    /// What people call the enclave, such as "convelo-service 0.1.0"
    #[arg(long, default_value = "enclave")]
    pub(crate) name: String,
}

/// Where a policy goes.
#[derive(Args)]
pub(crate) struct PolicyOutput {
    /// Write the policy to this new file instead of stdout
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum CollateralCommand {
    /// Print the parts of a bundle, their dates, and how long they remain valid
    Show {
        /// The bundle
        file: PathBuf,
        /// Print JSON on stdout
        #[arg(long)]
        json: bool,
    },
    /// Fetch a platform's collateral from Intel or a cache (PCCS), verify it, and write it
    Export {
        /// Whose platform: a certificate, a quote, or the address of a service, to which nothing is
        /// sent
        #[arg(long = "for", value_name = "FILE|HOST:PORT")]
        whose: String,
        #[command(flatten)]
        from: Pcs,
        #[command(flatten)]
        into: Into,
    },
    /// Verify a bundle that somebody gave you, and store it unless a newer one is there
    Import {
        /// The bundle
        file: PathBuf,
        #[command(flatten)]
        into: Into,
    },
}

/// Where to fetch collateral from.
#[derive(Args)]
pub(crate) struct Pcs {
    /// A collateral service, such as `https://pccs.example.org:8081`; if there are several, they
    /// are tried in order. "intel" is Intel's own, which learns which platform you ask about
    #[arg(long, value_name = "URL")]
    pub(crate) pccs: Vec<String>,
    /// Take addresses and retries from this sgx_default_qcnl.conf
    #[arg(long, value_name = "FILE", conflicts_with = "pccs")]
    pub(crate) qcnl: Option<PathBuf>,
    /// Accept any TLS certificate from a collateral service: it can hold back newer collateral, but
    /// cannot forge any
    #[arg(long)]
    pub(crate) insecure_any_certificate: bool,
}

/// Where a bundle goes, and whose signature it needs.
#[derive(Args)]
pub(crate) struct Into {
    /// Write it here, unless a newer bundle is already there
    #[arg(long, short, value_name = "FILE", default_value = "collateral.json")]
    pub(crate) output: PathBuf,
    /// Verify it under the root of this policy instead of Intel's
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Receipt {
    /// Verify a receipt: job, evidence, signature, and that they belong together
    Verify {
        /// The receipt
        file: PathBuf,
        /// The job file that it must be about: without it, the receipt says what the job was
        #[arg(long, value_name = "FILE")]
        job: Option<PathBuf>,
        /// A policy of your own, which must accept the evidence too
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Print JSON on stdout
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum Simulator {
    /// Make a platform: root.pem, collateral.json, policy.toml, platform.json (its private keys)
    New {
        /// The directory; an existing platform is not overwritten
        dir: PathBuf,
        /// Run programs as TDX trust domains instead of SGX enclaves
        #[arg(long)]
        tdx: bool,
    },
    /// Run a collateral service (PCCS) for the platform, to try out fetching
    Pccs {
        /// The platform's directory
        dir: PathBuf,
        /// Where to listen
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8081")]
        listen: String,
    },
    /// Issue fresh collateral, which policies accept for seven days
    Collateral {
        /// The platform's directory
        dir: PathBuf,
    },
}

/// Reads a time such as 90s, 30m, 2h, 1d.
fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        Some(b'd') => (&text[..text.len() - 1], 86400),
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| format!("'{text}' is not a time such as 90s, 30m or 2h"))
}

/// Reads a number of bytes with an optional K, M or G (powers of 1024).
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("'{text}' is not a number of bytes such as 512M or 4G"))
}
