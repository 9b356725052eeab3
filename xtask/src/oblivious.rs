//! `cargo xtask oblivious`: what the compiler made of the join, and of a job's last step, leaves the
//! same trace, whatever is joined and whether or not the result is withheld.
//!
//! Two tools watch it: Valgrind, which knows no AVX-512, so that the program takes AVX2 there; and
//! `tests/examples/single_step.rs`, which has this machine's processor do one instruction at a time.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::python;
use crate::test::cargo;

/// Who watches which program, units or results, and sizes of sets; what takes longest comes last.
const RUNS: [(Watcher, Watched, &str, &[&str]); 8] = [
    (Watcher::SingleStep, Watched::LastStep, "intersection", &["200", "100"]),
    (Watcher::SingleStep, Watched::LastStep, "count", &["200", "100"]),
    (Watcher::SingleStep, Watched::Join, "vector", &["200", "100"]),
    (Watcher::Valgrind, Watched::LastStep, "intersection", &["300", "200", "100"]),
    (Watcher::Valgrind, Watched::LastStep, "count", &["300", "200"]),
    (Watcher::Valgrind, Watched::Join, "vector", &["300", "200", "100"]),
    (Watcher::Valgrind, Watched::Join, "general", &["300", "200"]),
    (Watcher::Valgrind, Watched::Join, "vector", &["41000", "35000"]),
];

/// Kinds of content, see `crates/psi/examples/oblivious.rs` and `crates/service/examples/last_step.rs`;
/// all are compared with kind 0.
const KINDS: [&str; 4] = ["1", "2", "3", "4"];

/// Where a position-independent program ends and the loader begins, under Valgrind.
const PROGRAM: u64 = 0x0400_0000;

/// Where a position-independent program begins on x86-64 Linux whose address space is not randomised.
const UNRANDOMISED: u64 = 0x5555_5555_4000;

/// The functions that may access memory under a mask: their masks are of counters and lengths.
const MASKED: &str = "blake3_";

/// |t| beyond which two distributions of times are taken to differ (Reparaz, Balasch, Verbauwhede,
/// "Dude, is my code constant time?", DATE 2017).
const TIMING_LIMIT: f64 = 4.5;

/// Whether Valgrind can be run.
fn is_possible() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn traces() -> Result<(), String> {
    if !is_possible() {
        return Err("valgrind is not installed: install it, it watches the program".to_owned());
    }
    let stepper = built("convelo-tests", "single_step", &[])?;
    let join = built("convelo-psi", "oblivious", &[])?;
    let last_step = built("convelo-service", "last_step", &["--features", "oblivious"])?;
    for (watcher, watched, unit, sizes) in RUNS {
        let program = match watched {
            Watched::Join => &join,
            Watched::LastStep => &last_step,
        };
        let symbols = symbols(program)?;
        let run = format!("{watcher:?}, {watched:?}, {unit}, sets of {}", sizes.join(", "));
        for kind in KINDS {
            let mut first = Trace::of(watcher, &stepper, program, unit, "0", sizes)?;
            let mut second = Trace::of(watcher, &stepper, program, unit, kind, sizes)?;
            let mut events = 0u64;
            let mut instruction = String::new();
            loop {
                let (a, b) = (first.next()?, second.next()?);
                if a != b {
                    return Err(format!(
                        "{run}: content of kind {kind} leaves another trace than kind 0; event {events} is \
                         {a:?} and {b:?}"
                    ));
                }
                let Some(event) = a else { break };
                if event.starts_with("I  ") {
                    instruction = event;
                } else if event.starts_with(" P ") {
                    let function = function_at(&symbols, &instruction);
                    if !function.trim_start_matches('_').starts_with(MASKED) {
                        return Err(format!(
                            "{run}: {function} accesses memory under a mask; which of it may depend on data"
                        ));
                    }
                }
                events += 1;
            }
            // It has to have been the program that was watched, to its end.
            if events < watcher.events(watched) {
                return Err(format!("only {events} events: the program did not run to its end"));
            }
            println!("{run}: kind {kind} as kind 0, {events} events");
        }
    }
    Ok(())
}

/// The program's functions with the place of their first instruction, in ascending order.
fn symbols(program: &Path) -> Result<Vec<(u64, String)>, String> {
    let problem = |what: &dyn Display| format!("nm, which comes with a C compiler: {what}");
    let out = Command::new("nm")
        .args(["--defined-only", "--numeric-sort"])
        .arg(program)
        .output()
        .map_err(|error| problem(&error))?;
    if !out.status.success() {
        return Err(problem(&String::from_utf8_lossy(&out.stderr)));
    }
    let lines = String::from_utf8_lossy(&out.stdout);
    let symbol = |line: &str| {
        let mut words = line.split_whitespace();
        let at = u64::from_str_radix(words.next()?, 16).ok()?;
        Some((at, words.nth(1)?.to_owned()))
    };
    Ok(lines.lines().filter_map(symbol).collect())
}

/// The function in which an instruction is.
fn function_at<'a>(symbols: &'a [(u64, String)], instruction: &str) -> &'a str {
    let at = instruction.trim_start_matches("I  ");
    let at = u64::from_str_radix(at, 16).unwrap_or(0).wrapping_sub(UNRANDOMISED);
    let behind = symbols.partition_point(|(begin, _)| *begin <= at);
    behind.checked_sub(1).map_or("code without a name", |before| &symbols[before].1)
}

/// Compares traces, then times.
pub(crate) fn traces_and_times() -> Result<String, String> {
    traces()?;
    let out = Command::new(built("convelo-psi", "oblivious", &[])?)
        .arg("timing")
        .output()
        .map_err(|error| format!("the program cannot be started: {error}"))?;
    let t: f64 = String::from_utf8_lossy(&out.stdout)
        .trim()
        .parse()
        .map_err(|_| "the program printed no number".to_owned())?;
    println!("times of equal sets and of sets with nothing in common: Welch's t = {t:.2}");
    if t.abs() > TIMING_LIMIT {
        return Err(format!("the times differ: |t| is above {TIMING_LIMIT}"));
    }
    Ok("the join and a job's last step leave the same trace".to_owned())
}

fn built(package: &str, example: &str, more: &[&str]) -> Result<PathBuf, String> {
    let root = python::repository();
    let status = cargo()
        .current_dir(&root)
        .args(["build", "--locked", "--quiet", "--profile", "dist", "--package", package])
        .args(["--example", example])
        .args(more)
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(format!("{example} cannot be built"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    Ok(target.join("dist/examples").join(example))
}

/// What watches the program.
#[derive(Clone, Copy, Debug)]
enum Watcher {
    Valgrind,
    SingleStep,
}

/// What is watched.
#[derive(Clone, Copy, Debug)]
enum Watched {
    Join,
    LastStep,
}

impl Watcher {
    /// Fewer events than there are in any of its runs.
    fn events(self, watched: Watched) -> u64 {
        match (self, watched) {
            (Self::Valgrind, Watched::Join) => 1_000_000,
            (Self::SingleStep, Watched::Join) => 200_000,
            (_, Watched::LastStep) => 100_000,
        }
    }

    fn command(self, stepper: &Path) -> Command {
        match self {
            Self::Valgrind => {
                let mut command = Command::new("valgrind");
                command.args(["--tool=lackey", "--trace-mem=yes", "--log-fd=1"]);
                command
            }
            Self::SingleStep => Command::new(stepper),
        }
    }
}

/// Instructions and accesses to memory with their addresses, one by one, from the program's first
/// instruction on: the loader before it reads random bytes that the kernel gives to every process.
struct Trace {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    begun: bool,
}

impl Trace {
    fn of(
        watcher: Watcher,
        stepper: &Path,
        program: &Path,
        unit: &str,
        kind: &str,
        sizes: &[&str],
    ) -> Result<Self, String> {
        let mut child = watcher
            .command(stepper)
            .arg(program)
            .args(["trace", unit, kind])
            .args(sizes)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{watcher:?} cannot be started: {error}"))?;
        let out = child.stdout.take().ok_or("the watcher has no output")?;
        let begun = matches!(watcher, Watcher::SingleStep);
        Ok(Self { child, lines: BufReader::with_capacity(1 << 20, out).lines(), begun })
    }

    fn next(&mut self) -> Result<Option<String>, String> {
        for line in self.lines.by_ref() {
            let line = line.map_err(|error| format!("the watcher's output: {error}"))?;
            if line.starts_with("==") {
                continue;
            }
            self.begun |= line.strip_prefix("I  ").is_some_and(|event| {
                let address = event.split(',').next().unwrap_or_default();
                u64::from_str_radix(address, 16).is_ok_and(|address| address < PROGRAM)
            });
            if self.begun {
                return Ok(Some(line));
            }
        }
        // Two that break off at the same place would look alike.
        let ended = self.child.wait().map_err(|error| format!("the watcher: {error}"))?;
        if !ended.success() {
            return Err(format!("the watcher did not watch to the end: {ended}"));
        }
        Ok(None)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
