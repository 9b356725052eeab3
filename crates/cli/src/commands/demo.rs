//! `convelo demo`: the main job with real processes and sockets on this machine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use convelo_attest::Tee;
use convelo_channel::Identity;
use convelo_psi::Protocol;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::args::Demo;
use crate::exit::{Code, Failure};
use crate::job_file::Engine;
use crate::{files, job_file, output, platform, stop};

/// The example tables of the system that convelo replaces.
const EXAMPLE: [&str; 3] = [
    "car\nbicycle\ntrain\ncat\ndog\n",
    "train\ncar\ne-car\ncat\ncomputer\n",
    "car\nbicycle\ntrain\ncat\ndog\ncomputer\n",
];

/// The result every provider should get, however many there are.
const EXAMPLE_RESULT: [&str; 3] = ["car", "cat", "train"];

/// The first providers have names, the others numbers.
const NAMES: [&str; 8] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];

/// The delay between the starts of two providers, so that the early ones are seen waiting.
const STAGGER: Duration = Duration::from_millis(150);

/// How long the service may take to listen, and to stop.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) async fn demo(args: Demo) -> Result<ExitCode, Failure> {
    tokio::select! {
        result = show(&args) => result,
        () = stop::requested() => Err(Failure::new(Code::Stopped, "stopped")),
    }
}

async fn show(args: &Demo) -> Result<ExitCode, Failure> {
    let direct = args.mode.protocol();
    let parties = match (args.parties, direct) {
        (Some(parties), Some(Protocol::Ecdh)) if parties > 2 => {
            let text = "by ecdh there are two providers: leave out --parties, or take --mode vole";
            return Err(Failure::usage(text));
        }
        (Some(parties), Some(Protocol::Vole)) if parties > 16 => {
            let text = "without a service there are 16 providers at most";
            return Err(Failure::usage(text));
        }
        (Some(parties), _) => parties,
        (None, Some(_)) => 2,
        (None, None) => 3,
    };
    let parties: Vec<String> = (0..usize::from(parties)).map(name).collect();
    if let Some(protocol) = direct {
        return show_direct(args, protocol, &parties).await;
    }
    output::say(format_args!(
        "{} data providers want to know what their tables have in common, without showing each other \
         anything else.\nSIMULATED platform: the evidence has its genuine form and goes through the \
         genuine verification,\nunder a test root. Nothing here is protected by hardware, and each \
         provider accepts that with --insecure-simulated.\n",
        parties.len()
    ));
    let (_temporary, dir) = directory(args)?;
    platform::simulate(&dir.join("platform"), Tee::Sgx)?;
    let mut width = "service".len();
    width = parties.iter().map(String::len).max().unwrap_or(0).max(width);
    let (mut service, _stdout, address) = start_service(&dir, width).await?;
    let keys = keys(&dir, &parties)?;
    let policy = files::text(&dir.join("platform/policy.toml"), "the policy")?;
    let engine = Engine::Service { address: &address, policy: Some(&policy) };
    let job = job_file::write("demo", engine, &keys);
    let collateral = files::text(&dir.join("platform/collateral.json"), "the collateral")?;
    tables(args, &job, &dir, &parties)?;
    for party in &parties {
        let path = dir.join(party).join("collateral.json");
        files::create(&path, collateral.as_bytes(), 0o644)?;
    }
    let runs = run_parties(args, &dir, &parties, width).await?;
    stop_service(&mut service).await;
    let program = std::env::current_exe().map_err(Failure::job)?;
    let readme = by_hand(args, &program.display().to_string(), &address, &parties);
    end(args, &dir, &parties, runs, &readme)
}

/// The same without a service: the providers reach each other.
async fn show_direct(
    args: &Demo,
    protocol: Protocol,
    parties: &[String],
) -> Result<ExitCode, Failure> {
    output::say(format_args!(
        "{} data providers want to know what their tables have in common, without showing each other \
         anything else.\nThere is no service: each runs one process, and these compute among themselves \
         (mode = \"{}\").\n",
        parties.len(),
        protocol.as_str()
    ));
    let (_temporary, dir) = directory(args)?;
    let keys = keys(&dir, parties)?;
    let mut job = job_file::write("demo", Engine::Parties(protocol), &keys)
        .replace("# address = \"alice.example.org:7444\"\n", "");
    // All but the last one listen, so that of every two, one does.
    let ports = free_ports(keys.len() - 1).map_err(Failure::job)?;
    for ((_, key), port) in keys.iter().zip(ports) {
        let line = format!("key = \"{key}\"");
        job = job.replace(&line, &format!("{line}\naddress = \"127.0.0.1:{port}\""));
    }
    tables(args, &job, &dir, parties)?;
    let width = parties.iter().map(String::len).max().unwrap_or(0);
    let runs = run_parties(args, &dir, parties, width).await?;
    let program = std::env::current_exe().map_err(Failure::job)?;
    let readme = by_hand_direct(args, &program.display().to_string(), parties);
    end(args, &dir, parties, runs, &readme)
}

/// Ports that nobody listens on just now.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    // All are held until the last one is found.
    let listeners = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0"));
    let listeners: Vec<_> = listeners.collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// A directory with a key for each party; returns the fingerprints.
fn keys(dir: &Path, parties: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut keys = Vec::new();
    for party in parties {
        let identity = Identity::generate();
        std::fs::create_dir(dir.join(party)).map_err(Failure::job)?;
        let path = dir.join(party).join(format!("{party}.key"));
        files::create(&path, identity.to_pem().as_bytes(), 0o600)?;
        keys.push((party.clone(), files::key_id(&identity).to_string()));
    }
    Ok(keys)
}

/// The job and a table for each party.
fn tables(args: &Demo, job: &str, dir: &Path, parties: &[String]) -> Result<(), Failure> {
    let job = match args.rows {
        // As many as are generated, if that is more than the template says.
        Some(rows) => job.replace(
            "maximum_keys = 10000000",
            &format!("maximum_keys = {}", rows.max(10_000_000)),
        ),
        None => job
            .replace("name = \"email\"", "name = \"id\"")
            .replace("normalise = [\"email\"]", "normalise = [\"trim\"]"),
    };
    for (index, party) in parties.iter().enumerate() {
        let home = dir.join(party);
        files::create(&home.join("job.toml"), job.as_bytes(), 0o644)?;
        match args.rows {
            None => {
                let table = EXAMPLE[index % EXAMPLE.len()];
                let path = home.join(format!("data{}.txt", index + 1));
                files::create(&path, table.as_bytes(), 0o644)?;
            }
            Some(rows) => {
                output::say(format_args!("generating {rows} rows for {party}"));
                generate(&home.join("customers.csv"), party, index, parties.len(), rows)?;
            }
        }
    }
    Ok(())
}

/// Reports what the providers got, and keeps the files if that is asked for.
fn end(
    args: &Demo,
    dir: &Path,
    parties: &[String],
    runs: bool,
    readme: &str,
) -> Result<ExitCode, Failure> {
    if !runs {
        return Err(Failure::job("a provider ended without a result; it says above why"));
    }
    let check = conclude(args, dir, parties)?;
    if args.keep.is_some() {
        files::create(&dir.join("README.md"), readme.as_bytes(), 0o644)?;
        let line =
            format!("\nEverything is in {}; README.md there says how to rerun it.", dir.display());
        output::say(line);
    }
    if check {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::job("the demo did not end as it should; this is a bug, please report it"))
}

fn name(index: usize) -> String {
    NAMES.get(index).map_or_else(|| format!("party{}", index + 1), ToString::to_string)
}

/// Where the files go: a directory to keep, or one that is removed when the first value is dropped.
fn directory(args: &Demo) -> Result<(Option<tempfile::TempDir>, PathBuf), Failure> {
    let Some(keep) = &args.keep else {
        let dir = tempfile::tempdir().map_err(Failure::job)?;
        let path = dir.path().to_owned();
        return Ok((Some(dir), path));
    };
    let failed =
        |error: std::io::Error| Failure::usage(format!("cannot use {}: {error}", keep.display()));
    std::fs::create_dir_all(keep).map_err(failed)?;
    if std::fs::read_dir(keep).map_err(failed)?.next().is_some() {
        let text = format!("{} is not empty; name a new directory", keep.display());
        return Err(Failure::usage(text));
    }
    Ok((None, keep.canonicalize().map_err(failed)?))
}

type ServiceOutput = Lines<BufReader<ChildStdout>>;

/// Starts the service on a free port and waits until it reports which.
async fn start_service(
    dir: &Path,
    width: usize,
) -> Result<(Child, ServiceOutput, String), Failure> {
    let mut child = program()?
        .args(["serve", "--listen", "127.0.0.1:0", "--json", "--simulated", "platform"])
        .env("CONVELO_LOG", "warn")
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Failure::job)?;
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(prefix(stderr, "service".to_owned(), width));
    }
    let stdout = child.stdout.take().ok_or_else(|| Failure::job("no pipe from the service"))?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(SERVICE_TIMEOUT, lines.next_line()).await;
    let address = line.ok().and_then(Result::ok).flatten().and_then(|line| {
        let line: serde_json::Value = serde_json::from_str(&line).ok()?;
        Some(line["listening"].as_str()?.to_owned())
    });
    let address = address.ok_or_else(|| Failure::job("the service did not start"))?;
    Ok((child, lines, address))
}

async fn stop_service(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok())
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let _ = tokio::time::timeout(SERVICE_TIMEOUT, child.wait()).await;
}

/// Runs all providers to their end; returns whether all of them succeeded.
async fn run_parties(
    args: &Demo,
    dir: &Path,
    parties: &[String],
    width: usize,
) -> Result<bool, Failure> {
    let mut running = JoinSet::new();
    for (index, party) in parties.iter().enumerate() {
        let mut child = program()?
            .args(arguments(args, index, party))
            .current_dir(dir.join(party))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Failure::job)?;
        let stderr = child.stderr.take();
        let label = party.clone();
        running.spawn(async move {
            if let Some(stderr) = stderr {
                prefix(stderr, label, width).await;
            }
            child.wait().await.is_ok_and(|status| status.success())
        });
        tokio::time::sleep(STAGGER).await;
    }
    let mut well = true;
    while let Some(run) = running.join_next().await {
        well &= run.unwrap_or(false);
    }
    Ok(well)
}

/// The arguments for a provider, which runs in its own directory.
fn arguments(args: &Demo, index: usize, party: &str) -> Vec<String> {
    let consent = if args.mode.protocol().is_none() { " --insecure-simulated" } else { "" };
    let line = match args.rows {
        None => {
            format!(
                "run job.toml --as {party}{consent} --input data{}.txt --output matched.txt",
                index + 1
            )
        }
        Some(_) => format!(
            "run job.toml --as {party}{consent} --input customers.csv --key email --output matched.csv"
        ),
    };
    line.split(' ').map(str::to_owned).collect()
}

/// This same program, as another process that ends together with this one.
fn program() -> Result<Command, Failure> {
    let path = std::env::current_exe().map_err(Failure::job)?;
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Shows a process's output, each line prefixed with its name.
async fn prefix(stream: impl AsyncRead + Unpin, name: String, width: usize) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        output::say(format_args!("{name:>width$} | {line}"));
    }
}

/// Compares what every provider wrote with what it should be, and reports it.
fn conclude(args: &Demo, dir: &Path, parties: &[String]) -> Result<bool, Failure> {
    let mut well = true;
    output::say("");
    for party in parties {
        let read = |name: &str| {
            let path = dir.join(party).join(name);
            let failed = |error| Failure::job(format!("{}: {error}", path.display()));
            std::fs::read_to_string(&path).map_err(failed)
        };
        match args.rows {
            None => {
                let text = read("matched.txt")?;
                let mut result: Vec<&str> = text.lines().collect();
                result.sort_unstable();
                well &= result == EXAMPLE_RESULT;
                output::data(format_args!("{party} gets {{{}}}", result.join(", ")));
            }
            Some(rows) => {
                let matched = read("matched.csv")?.lines().count().saturating_sub(1) as u64;
                let (keys, expected) = common(rows);
                well &= matched == expected;
                output::data(format_args!(
                    "{party} gets {matched} of its {rows} rows; {expected} rows with {keys} \
                     keys were generated in common"
                ));
            }
        }
    }
    Ok(well)
}

/// Row `row` of a generated table repeats the row before it.
fn repeats(row: u64) -> bool {
    row % 100 == 99
}

/// The number of keys that all generated tables have in common, and of the rows that contain them.
fn common(rows: u64) -> (u64, u64) {
    let keys = rows.div_ceil(2);
    (keys, keys + (rows / 100))
}

/// Writes a table in which every other row is the same person in all tables. Each table starts at a
/// different place, writes some addresses in capitals and repeats one row in a hundred.
fn generate(
    path: &Path,
    party: &str,
    index: usize,
    parties: usize,
    rows: u64,
) -> Result<(), Failure> {
    use std::io::Write as _;
    let failed = |error: std::io::Error| Failure::job(format!("{}: {error}", path.display()));
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(failed)?);
    writeln!(file, "number,email,city").map_err(failed)?;
    let offset = rows / parties as u64 * index as u64;
    for number in 0..rows {
        let row = (number + offset) % rows;
        let person = if repeats(row) { row - 1 } else { row };
        let capital = if number % 10 == index as u64 % 10 { 'U' } else { 'u' };
        let whose = if person % 2 == 0 { "" } else { party };
        writeln!(file, "{number},{capital}ser{person}{whose}@example.com,\"Delft, NL\"")
            .map_err(failed)?;
    }
    file.flush().map_err(failed)
}

/// The steps of the demo as commands for a reader.
fn by_hand(args: &Demo, convelo: &str, address: &str, parties: &[String]) -> String {
    let mut text = format!(
        "# The steps of this demo, by hand\n\n\
         SIMULATED: this platform protects nothing; it shows how the parts work together.\n\n\
         `platform/` is the simulated platform: `policy.toml` accepts the service on it,\n\
         `collateral.json` is for verifying its evidence (valid for seven days; after that, run\n\
         `{convelo} simulator collateral platform` and copy it to every provider). Each provider has\n\
         a directory with its key, its table, the job file (the same everywhere) and, after a run,\n\
         its matched rows and its receipt.\n\n\
         The service, in this directory, in a terminal of its own:\n\n    \
         {convelo} serve --listen {address} --simulated platform\n\n\
         What the job says, without contacting anybody:\n\n    \
         {convelo} check {first}/job.toml\n\n\
         Each provider in a terminal of its own, in any order:\n\n",
        first = parties[0],
    );
    for (index, party) in parties.iter().enumerate() {
        let line = arguments(args, index, party).join(" ") + " --force";
        let _ = writeln!(text, "    (cd {party} && {convelo} {line})");
    }
    text
}

/// The same without a service.
fn by_hand_direct(args: &Demo, convelo: &str, parties: &[String]) -> String {
    let mut text = format!(
        "# The steps of this demo, by hand\n\n\
         Each provider has a directory with its key, its table, the job file (the same everywhere) and, \
         after a run,\nits matched rows and its receipt. The job says where all but the last one listen; \
         others dial.\n\n\
         What the job says, without contacting anybody:\n\n    \
         {convelo} check {first}/job.toml\n\n\
         Each provider in a terminal of its own, in any order:\n\n",
        first = parties[0],
    );
    for (index, party) in parties.iter().enumerate() {
        let line = arguments(args, index, party).join(" ") + " --force";
        let _ = writeln!(text, "    (cd {party} && {convelo} {line})");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn generated_tables_have_in_common_what_the_demo_says() {
        let dir = tempfile::tempdir().unwrap();
        for rows in [1, 2, 99, 100, 101, 1000] {
            let mut tables = Vec::new();
            for index in 0..3 {
                let path = dir.path().join("t");
                generate(&path, &name(index), index, 3, rows).unwrap();
                let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
                let mut table = BTreeMap::<String, u64>::new();
                for line in text.lines().skip(1) {
                    *table.entry(line.split(',').nth(1).unwrap().to_owned()).or_default() += 1;
                }
                assert_eq!(table.values().sum::<u64>(), rows);
                tables.push(table);
            }
            let keys: BTreeSet<_> = tables[0]
                .keys()
                .filter(|key| tables.iter().all(|table| table.contains_key(*key)))
                .collect();
            for table in &tables {
                let matched: u64 = keys.iter().map(|key| table[*key]).sum();
                assert_eq!((keys.len() as u64, matched), common(rows), "{rows} rows");
            }
        }
    }
}
