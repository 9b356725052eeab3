//! `cargo xtask bench`: what we claim of speed, measured beside others. What is measured is what is shipped:
//! `--profile dist`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::python::{self, TEST};
use crate::test::cargo;

/// The genuine package that the goals speak of.
const PEER: &str = "genuine-4.8.1";

/// DuckDB, in an environment of its own.
const JOIN_PEER: &str = "join";

/// SecretFlow's and OpenMined's intersections.
const PSI_PEERS: &str = "psi";

/// gRPC, and what else the scripts of the replaced system and their certificates need.
const REPLACED_PEER: &str = TEST;

/// Prepares both environments and builds what is shipped, and hands over to `bench/pool`.
pub(crate) fn pool(options: &[String]) -> ExitCode {
    match prepared(options) {
        Ok(mut command) => match command.status() {
            Ok(status) if status.success() => ExitCode::SUCCESS,
            Ok(status) => ExitCode::from(exit_code(status.code())),
            Err(error) => python::finish(Err(format!("the benchmark cannot be started: {error}"))),
        },
        Err(problem) => python::finish(Err(problem)),
    }
}

/// Builds and runs `tests/examples/attest_cost.rs`, which prints the table.
pub(crate) fn attest(options: &[String]) -> ExitCode {
    example("attest_cost", options)
}

/// Builds and runs `tests/examples/flood.rs`, which prints the table.
pub(crate) fn flood() -> ExitCode {
    example("flood", &[])
}

fn example(name: &str, options: &[String]) -> ExitCode {
    let mut command = cargo();
    command
        .current_dir(python::repository())
        .args(["run", "--locked", "--quiet", "--profile", "dist", "--package", "convelo-tests"])
        .args(["--example", name, "--"])
        .args(options);
    match command.status() {
        Ok(status) => ExitCode::from(exit_code(status.code())),
        Err(error) => python::finish(Err(format!("the benchmark cannot be started: {error}"))),
    }
}

/// Beside DuckDB.
pub(crate) fn join(options: &[String]) -> ExitCode {
    against_service("join_bench.py", JOIN_PEER, &ANCHORS, options)
}

pub(crate) fn load(options: &[String]) -> ExitCode {
    against_service("load_bench.py", JOIN_PEER, &ANCHORS[..2], options)
}

pub(crate) fn replaced(options: &[String]) -> ExitCode {
    against_service("replaced_bench.py", REPLACED_PEER, &[], options)
}

/// Beside SecretFlow and OpenMined.
pub(crate) fn psi(options: &[String]) -> ExitCode {
    beside_others("bench/psi/psi_bench.py", PSI_PEERS, &[], options)
}

/// A program that a script of `bench/join` measures beside `convelo`: flag, package, example.
type Anchor = (&'static str, &'static str, &'static str);

const ANCHORS: [Anchor; 3] = [
    ("--engine", "convelo-psi", "engine_cost"),
    ("--transfer", "convelo-tests", "transfer_cost"),
    ("--normalise", "convelo-keys", "normalise_cost"),
];

fn against_service(
    script: &str,
    environment: &str,
    anchors: &[Anchor],
    options: &[String],
) -> ExitCode {
    beside_others(&format!("bench/join/{script}"), environment, anchors, options)
}

/// Runs a script in a Python environment with the build that is shipped.
fn beside_others(
    script: &str,
    environment: &str,
    anchors: &[Anchor],
    options: &[String],
) -> ExitCode {
    let prepared = || {
        let root = python::repository();
        python::prepare(environment)?;
        let build = |arguments: &[&str]| {
            let common = ["build", "--locked", "--profile", "dist", "--package"];
            let built = cargo().current_dir(&root).args(common).args(arguments).status();
            let failed = || "what is measured cannot be built".to_owned();
            built.is_ok_and(|status| status.success()).then_some(()).ok_or_else(failed)
        };
        build(&["convelo-cli"])?;
        let target = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
        let mut command = Command::new(root.join(python::program(environment)));
        command.arg(root.join(script));
        command.arg("--convelo").arg(target.join("dist/convelo"));
        for (flag, package, example) in anchors {
            build(&[package, "--example", example])?;
            command.arg(flag).arg(target.join("dist/examples").join(example));
        }
        command.args(options);
        command.status().map_err(|error| format!("the benchmark cannot be started: {error}"))
    };
    match prepared() {
        Ok(status) => ExitCode::from(exit_code(status.code())),
        Err(problem) => python::finish(Err(problem)),
    }
}

fn exit_code(code: Option<i32>) -> u8 {
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn prepared(options: &[String]) -> Result<Command, String> {
    let root = python::repository();
    python::prepare(TEST)?;
    python::prepare(PEER)?;
    let shipped = python::install_shipped()?;
    let built = cargo()
        .current_dir(&root)
        .args(["build", "--locked", "--quiet", "--profile", "dist", "--package", "convelo-pool"])
        .args(["--example", "throughput"])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        return Err("the Rust half of the benchmark cannot be built".to_owned());
    }
    let mut command = Command::new(root.join(python::program(TEST)));
    command.arg(root.join("bench/pool/pool_bench.py"));
    command.arg("--ours-path").arg(shipped);
    command.arg("--peer").arg(root.join(python::program(PEER)));
    command.arg("--rust").arg(root.join(Path::new("target/dist/examples/throughput")));
    command.args(options);
    Ok(command)
}
