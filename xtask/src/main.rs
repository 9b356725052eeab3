//! The tasks of this repository: `cargo xtask help`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task talks to a terminal")]

mod bench;
mod manifest;
mod oblivious;
mod python;
mod release;
mod runner;
mod sbom;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
The tasks of this repository.

Usage: cargo xtask COMMAND

Commands:
  test [--quick]  Runs everything that must hold, one step after the other: the format, clippy
                  without warnings, the build, all tests (the layer test among them), the examples
                  in the documentation, the documentation without warnings; then the Python package:
                  its types, its stubs against the compiled module, its tests, those of what peers
                  send on the lowest versions that it allows, the commands of the documentation,
                  jobs between containers where a container engine answers, the test-suites of the
                  genuine packages, and messages to and from the genuine packages. It stops at the
                  first step that fails and prints the command that reruns it.
                  Tests run under cargo-nextest where it is installed, else under cargo test.
                  Python 3.11 or newer is needed; the first run fetches pinned packages.
      --quick     Leaves out the documentation, the Python tests that are marked slow, and all that
                  needs the genuine packages or a container engine.
  bench pool [OPTIONS]
                  Runs our Python package and tno.mpc.communication 4.8.1 in turn, and our Rust Pool
                  and bare TCP, and compares them. Fails if a goal is missed.
      --json FILE     Also writes the table as JSON.
      --only ROWS     Measures only these scenarios, comma-separated: --only seq,conc,b100m
      --scale F       Multiplies the number of messages.
      --rounds N      How often each side runs, in turn (2).
      --plain, --tls  Measures only without, or only with mutual TLS.
  bench attest [--json FILE]
                  Measures verification and handshakes with evidence, beside the verifying library
                  alone and handshakes without evidence. Fails if a goal is missed.
  bench join [--keys N[,N...]] [--rounds N] [--json FILE]
                  Joins two CSV files of N ids (10,000,000) by a service and two providers, beside
                  DuckDB in the clear; then over several services, with little memory, and the
                  upload and the join alone, beside what they cost at the least. With several N,
                  how time grows with the number of ids. Fails if a goal is missed. Needs Linux.
  bench load [--json FILE]
                  One service under 64 parties, under 200 jobs at once, and idle. Fails if a goal
                  is missed. Needs Linux.
  bench flood     A customer's job while a stranger at another address floods the service, beside the
                  same job alone. Fails if the goal is missed. Needs Linux.
  bench replaced --scripts DIR [--keys N] [--rounds N] [--json FILE]
                  Joins two sets of N ids (100,000) beside the genuine scripts of Intel's \"PSI with
                  SGX\", which DIR holds (server.py, data_provider1.py, data_provider2.py). Fails if
                  a goal is missed. Needs Linux.
  bench psi [--items N[,N...]] [--rounds N] [--only SIDE[,SIDE...]] [--json FILE]
                  Intersects two CSV files of N ids (65,536 and 1,048,576) without a service, beside
                  SecretFlow's spu and openmined.psi: CPU, bytes, memory. SIDE is \"convelo vole\",
                  \"convelo ecdh\", rr22, rr22_low, kkrt, ecdh, ecdh_ell2 or openmined; the last two take
                  minutes and are left out unless named. Fails if a goal is missed. Needs Linux on
                  x86-64, and Python 3.11 exactly.
  bench --help    Prints the benchmarks alone.
  oblivious       Watches the join under Valgrind, which has to be installed, and in single steps on
                  this processor (10 minutes on some machines), and compares its instructions and
                  addresses for sets of equal sizes and different content; then its times. Fails if
                  they differ, or if memory is accessed under a mask. Needs x86-64 Linux.
  manifest lint [--root DIR] FILE...
                  Says whether manifests of convelo-service for Gramine hold: templates (*.template)
                  and rendered ones. Everything but a list of keys with their allowed values is
                  refused. With --root, the program below DIR must be the one that they trust.
  manifest sizes [--memory SIZE] [--workers N]
                  Prints the threads and the size of an enclave whose program gets so much memory
                  (1G) and so many workers (4).
  release --service [--once | --twice DIR DIR] [--memory SIZE] [--workers N] [--json FILE]
                  Builds convelo-service as it is measured, from the last commit, in two directories
                  (of target/release-service), compares them, and checks what an enclave demands of
                  a program. Prints its hash and the versions of all that went into it; where
                  Gramine's signer is installed, also MRENCLAVE for so much memory (1G) and so many
                  workers (4), and the entries for policies and deploy/measurements.toml. Needs
                  x86-64 Linux. About 6 minutes of CPU for each build.
      --once          Builds it once.
      --json FILE     Also writes all this as JSON.
  wheel           Builds the wheel that is shipped into dist.
  python [--genuine | --lowest]
                  Makes target/python/test: the package and all that its tests need.
      --genuine   Also the environments and test-suites of the genuine packages.
      --lowest    Also target/python/lowest: the package with the lowest versions that it allows.
  sbom --package PACKAGE --output FILE
                  Writes what a program is made of, crate by crate, as CycloneDX in JSON.
  help            Prints this text.

Exit codes: 0 everything holds, 1 a step failed or a goal is missed, 2 the command line is wrong.
Progress goes to stderr; the summary, \"N passed, N failed\", is the last line on stdout.
";

const USAGE_ERROR: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(&arguments) {
        Ok(Task::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Task::BenchHelp(which)) => {
            print!("{}", bench_help(&which));
            ExitCode::SUCCESS
        }
        Ok(Task::Test { quick }) => test::run(quick),
        Ok(Task::BenchJoin(options)) => bench::join(&options),
        Ok(Task::BenchFlood) => bench::flood(),
        Ok(Task::BenchLoad(options)) => bench::load(&options),
        Ok(Task::BenchReplaced(options)) => bench::replaced(&options),
        Ok(Task::BenchPsi(options)) => bench::psi(&options),
        Ok(Task::Oblivious) => python::finish(oblivious::traces_and_times()),
        Ok(Task::Manifest(what)) => manifest::run(&what),
        Ok(Task::Release(what)) => release::run(&what),
        Ok(Task::Wheel) => python::wheel(),
        Ok(Task::Python(more)) => python::environment(more),
        Ok(Task::Sbom { package, output }) => python::finish(sbom::write(&package, &output)),
        Ok(Task::BenchPool(options)) => bench::pool(&options),
        Ok(Task::BenchAttest(options)) => bench::attest(&options),
        Err(problem) => {
            eprintln!("xtask: {problem}; cargo xtask help lists the commands");
            ExitCode::from(USAGE_ERROR)
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    /// Of all benchmarks, or of the one that is named.
    BenchHelp(String),
    Test {
        quick: bool,
    },
    Oblivious,
    Manifest(manifest::Manifest),
    Release(release::Release),
    Wheel,
    Python(Option<python::Environments>),
    Sbom {
        package: String,
        output: String,
    },
    BenchPool(Vec<String>),
    BenchAttest(Vec<String>),
    BenchJoin(Vec<String>),
    BenchLoad(Vec<String>),
    BenchFlood,
    BenchReplaced(Vec<String>),
    BenchPsi(Vec<String>),
}

fn parse(arguments: &[String]) -> Result<Task, String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["help" | "--help" | "-h"] | ["test", "--help" | "-h"] => Ok(Task::Help),
        ["test"] => Ok(Task::Test { quick: false }),
        ["test", "--quick"] => Ok(Task::Test { quick: true }),
        ["oblivious"] => Ok(Task::Oblivious),
        ["release", ref arguments @ ..] => Ok(Task::Release(release::parse(arguments)?)),
        ["manifest", ref arguments @ ..] => Ok(Task::Manifest(manifest::parse(arguments)?)),
        ["wheel"] => Ok(Task::Wheel),
        ["python"] => Ok(Task::Python(None)),
        ["python", "--genuine"] => Ok(Task::Python(Some(python::Environments::Genuine))),
        ["python", "--lowest"] => Ok(Task::Python(Some(python::Environments::Lowest))),
        ["sbom", "--package", package, "--output", output] => {
            Ok(Task::Sbom { package: package.to_owned(), output: output.to_owned() })
        }
        ["sbom", ..] => Err("sbom needs --package PACKAGE --output FILE".to_owned()),
        ["bench", "--help" | "-h"] => Ok(Task::BenchHelp("bench".to_owned())),
        ["bench", which, ref options @ ..]
            if BENCHMARKS.contains(&which)
                && options.iter().any(|option| matches!(*option, "--help" | "-h")) =>
        {
            Ok(Task::BenchHelp(format!("bench {which}")))
        }
        ["bench", "pool", ref options @ ..] => {
            check_bench_options(options)?;
            Ok(Task::BenchPool(options.iter().map(|&option| option.to_owned()).collect()))
        }
        ["bench", "attest"] => Ok(Task::BenchAttest(Vec::new())),
        ["bench", "attest", "--json", file] => {
            Ok(Task::BenchAttest(vec!["--json".to_owned(), file.to_owned()]))
        }
        ["bench", "flood"] => Ok(Task::BenchFlood),
        ["bench", "load"] => Ok(Task::BenchLoad(Vec::new())),
        ["bench", "load", "--json", file] => {
            Ok(Task::BenchLoad(vec!["--json".to_owned(), file.to_owned()]))
        }
        ["bench", "join", ref options @ ..] => {
            check_join_options("bench join", options)?;
            Ok(Task::BenchJoin(options.iter().map(|&option| option.to_owned()).collect()))
        }
        ["bench", "replaced", ref options @ ..] => {
            check_join_options("bench replaced", options)?;
            if !options.iter().step_by(2).any(|option| *option == "--scripts") {
                return Err(
                    "bench replaced needs --scripts, the folder of the genuine scripts".to_owned()
                );
            }
            Ok(Task::BenchReplaced(options.iter().map(|&option| option.to_owned()).collect()))
        }
        ["bench", "psi", ref options @ ..] => {
            check_psi_options(options)?;
            Ok(Task::BenchPsi(options.iter().map(|&option| option.to_owned()).collect()))
        }
        ["bench"] => Err(format!("bench needs what to measure: {}", BENCHMARKS.join(", "))),
        [] => Err("no command was given".to_owned()),
        ["test", other, ..] => Err(format!("test does not know {other:?}")),
        [command @ ("oblivious" | "wheel" | "python" | "bench"), other, ..] => {
            Err(format!("{command} does not know {other:?}"))
        }
        ["help" | "--help" | "-h", other, ..] => Err(format!("help does not know {other:?}")),
        [other, ..] => Err(format!("there is no command {other:?}")),
    }
}

const BENCHMARKS: [&str; 7] = ["pool", "attest", "join", "load", "flood", "replaced", "psi"];

/// The help of the commands that begin so.
fn bench_help(which: &str) -> String {
    let command = |line: &str| line.starts_with("  ") && !line.starts_with("   ");
    let mut text = format!("Usage: cargo xtask {which} ...\n\n");
    let mut wanted = false;
    for line in HELP.lines().filter(|line| line.starts_with("  ")) {
        if command(line) {
            wanted = line.starts_with(&format!("  {which}"));
        }
        if wanted {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Finds a mistake before minutes go into the build.
fn check_bench_options(options: &[&str]) -> Result<(), String> {
    let mut options = options.iter();
    while let Some(&option) = options.next() {
        match option {
            "--plain" | "--tls" => {}
            "--json" | "--only" | "--scale" | "--rounds" => {
                let value = options.next().ok_or_else(|| format!("{option} needs a value"))?;
                let number = matches!(option, "--scale" | "--rounds");
                if number && !value.parse::<f64>().is_ok_and(|number| number > 0.0) {
                    return Err(format!("{option} needs a number above 0, not {value:?}"));
                }
            }
            other => return Err(format!("bench pool does not know {other:?}")),
        }
    }
    Ok(())
}

fn check_psi_options(options: &[&str]) -> Result<(), String> {
    let mut options = options.iter();
    while let Some(&option) = options.next() {
        let value = options.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option {
            "--json" | "--only" => {}
            "--items" if value.split(',').all(is_above_one) => {}
            "--rounds" if value.parse::<u32>().is_ok_and(|rounds| rounds > 0) => {}
            "--items" | "--rounds" => {
                return Err(format!("{option} needs a number above 1, not {value:?}"));
            }
            other => return Err(format!("bench psi does not know {other:?}")),
        }
    }
    Ok(())
}

fn check_join_options(command: &str, options: &[&str]) -> Result<(), String> {
    let mut options = options.iter();
    while let Some(&option) = options.next() {
        let value = options.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option {
            "--json" => {}
            "--scripts" if command == "bench replaced" => {}
            "--keys" if command == "bench join" && value.split(',').all(is_above_one) => {}
            "--keys" | "--rounds" if is_above_one(value) => {}
            "--keys" | "--rounds" => {
                return Err(format!("{option} needs a number above 1, not {value:?}"));
            }
            other => return Err(format!("{command} does not know {other:?}")),
        }
    }
    Ok(())
}

fn is_above_one(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|number| number > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_of_a_benchmark_is_its_own() {
        let join = bench_help("bench join");
        assert!(join.contains("--keys N[,N...]") && !join.contains("bench load"), "{join}");
        let all = bench_help("bench");
        for which in BENCHMARKS {
            assert!(all.contains(&format!("  bench {which} ")), "{all}");
        }
        assert!(!all.contains("oblivious") && !all.contains("Exit codes"), "{all}");
    }

    fn parsed(line: &str) -> Result<Task, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn commands() {
        assert_eq!(parsed("help"), Ok(Task::Help));
        assert_eq!(parsed("test"), Ok(Task::Test { quick: false }));
        assert_eq!(parsed("test --quick"), Ok(Task::Test { quick: true }));
        assert_eq!(parsed("oblivious"), Ok(Task::Oblivious));
        assert_eq!(parsed("wheel"), Ok(Task::Wheel));
        assert_eq!(
            parsed("sbom --package convelo-cli --output out.json"),
            Ok(Task::Sbom { package: "convelo-cli".to_owned(), output: "out.json".to_owned() })
        );
        for (option, more) in [
            ("--genuine", python::Environments::Genuine),
            ("--lowest", python::Environments::Lowest),
        ] {
            assert_eq!(parsed(&format!("python {option}")), Ok(Task::Python(Some(more))));
        }
        let options = ["--json", "out.json", "--only", "seq,conc", "--scale", "0.1", "--tls"];
        assert_eq!(
            parsed("bench pool --json out.json --only seq,conc --scale 0.1 --tls"),
            Ok(Task::BenchPool(options.map(str::to_owned).to_vec()))
        );
        assert_eq!(parsed("bench attest"), Ok(Task::BenchAttest(Vec::new())));
        assert_eq!(parsed("bench load"), Ok(Task::BenchLoad(Vec::new())));
        assert_eq!(
            parsed("bench join --keys 1000"),
            Ok(Task::BenchJoin(vec!["--keys".to_owned(), "1000".to_owned()]))
        );
        let options = ["--items", "1000,2000", "--rounds", "1", "--only", "rr22"];
        assert_eq!(
            parsed("bench psi --items 1000,2000 --rounds 1 --only rr22"),
            Ok(Task::BenchPsi(options.map(str::to_owned).to_vec()))
        );
        for (line, which) in [
            ("bench --help", "bench"),
            ("bench join --help", "bench join"),
            ("bench pool --scale 2 -h", "bench pool"),
        ] {
            assert_eq!(parsed(line), Ok(Task::BenchHelp(which.to_owned())), "{line}");
        }
        let keys = ["--keys", "1000,20000"].map(str::to_owned).to_vec();
        assert_eq!(parsed("bench join --keys 1000,20000"), Ok(Task::BenchJoin(keys)));
        for wrong in [
            "bench",
            "bench other --help",
            "bench join --keys 1000,",
            "bench replaced --scripts there --keys 10,20",
            "bench join --keys few",
            "bench join fast",
            "bench attest --json",
            "bench load --json",
            "bench replaced",
            "bench replaced --keys 1000",
            "bench join --scripts there",
            "bench psi fast",
            "bench psi --items 1",
            "bench psi --rounds 0",
            "bench psi --json",
            "bench pool --json",
            "bench pool --scale many",
            "bench pool --scale 0",
            "bench pool fast",
            "oblivious now",
            "wheel now",
            "sbom --package convelo-cli",
            "python --all",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "tset", "test quick", "test --quick --quick", "help me"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parsed("tset"), Err("there is no command \"tset\"".to_owned()));
    }
}
