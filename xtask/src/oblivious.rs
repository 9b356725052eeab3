//! `cargo xtask oblivious`: what the compiler made of the join leaves the same trace, whatever it joins.

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::python;
use crate::test::cargo;

/// Units and sizes of sets that are traced.
const RUNS: [(&str, &[&str]); 3] = [
    ("vector", &["9000", "5000"]),
    ("vector", &["300", "200", "100"]),
    ("general", &["300", "200"]),
];

/// Kinds of content, see `crates/psi/examples/oblivious.rs`; all are compared with kind 0.
const KINDS: [&str; 4] = ["1", "2", "3", "4"];

/// Where a position-independent program ends and the loader begins, under Valgrind.
const PROGRAM: u64 = 0x0400_0000;

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
    let program = built()?;
    for (unit, sizes) in RUNS {
        for kind in KINDS {
            let mut first = Trace::of(&program, unit, "0", sizes)?;
            let mut second = Trace::of(&program, unit, kind, sizes)?;
            let mut events = 0u64;
            loop {
                let (a, b) = (first.next()?, second.next()?);
                if a != b {
                    return Err(format!(
                        "{unit}, sets of {}: content of kind {kind} leaves another trace than kind 0; \
                         event {events} is {a:?} and {b:?}",
                        sizes.join(", ")
                    ));
                }
                if a.is_none() {
                    break;
                }
                events += 1;
            }
            // It has to have been the join that was watched.
            if events < 1_000_000 {
                return Err(format!("only {events} events: the program did not run to its end"));
            }
            println!(
                "{unit}, sets of {}: kind {kind} as kind 0, {events} events",
                sizes.join(", ")
            );
        }
    }
    Ok(())
}

/// Compares traces, then times.
pub(crate) fn traces_and_times() -> Result<String, String> {
    traces()?;
    let out = Command::new(built()?)
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
    Ok("the join leaves the same trace".to_owned())
}

fn built() -> Result<PathBuf, String> {
    let root = python::repository();
    let status = cargo()
        .current_dir(&root)
        .args(["build", "--locked", "--quiet", "--release", "--package", "convelo-psi"])
        .args(["--example", "oblivious"])
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return Err("the program to be watched cannot be built".to_owned());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    Ok(target.join("release/examples/oblivious"))
}

/// Instructions and accesses to memory with their addresses, one by one, from the program's first
/// instruction on: the loader before it reads random bytes that the kernel gives to every process.
struct Trace {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    begun: bool,
}

impl Trace {
    fn of(program: &PathBuf, unit: &str, kind: &str, sizes: &[&str]) -> Result<Self, String> {
        let mut child = Command::new("valgrind")
            .args(["--tool=lackey", "--trace-mem=yes", "--log-fd=1"])
            .arg(program)
            .args(["trace", unit, kind])
            .args(sizes)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("valgrind cannot be started: {error}"))?;
        let out = child.stdout.take().ok_or("valgrind has no output")?;
        Ok(Self { child, lines: BufReader::with_capacity(1 << 20, out).lines(), begun: false })
    }

    fn next(&mut self) -> Result<Option<String>, String> {
        for line in self.lines.by_ref() {
            let line = line.map_err(|error| format!("valgrind's output: {error}"))?;
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
        Ok(None)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
