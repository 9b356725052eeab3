//! `cargo xtask test`: everything that must hold, step by step.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::runner::{Tally, run_and_show};

/// Runs the steps up to the first that fails.
pub(crate) fn run(quick: bool) -> ExitCode {
    let steps = steps(quick, nextest_is_installed());
    let began = Instant::now();
    let mut tally = Tally::default();
    for (index, step) in steps.iter().enumerate() {
        let label = format!("xtask: [{}/{}] {}", index + 1, steps.len(), step.name);
        eprintln!("{label}: {}", step.shown());
        let step_began = Instant::now();
        let mut command = step.command();
        if let Some(program) = program_of_the_build() {
            command.env(PROGRAM_VARIABLE, program);
        }
        let result = run_and_show(&mut command);
        let took = seconds(step_began.elapsed());
        let problem = match result {
            Ok((status, counted)) => {
                tally.add(counted);
                (!status.success()).then(|| status.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            eprintln!("{label}: failed after {took}: {problem}");
            eprintln!("xtask: to run this step alone: {}", step.shown());
            println!("xtask: {} failed; tests: {tally}", step.name);
            return ExitCode::FAILURE;
        }
        eprintln!("{label}: ok, {took}");
    }
    let took = seconds(began.elapsed());
    println!("xtask: {} steps ok in {took}; tests: {tally}", steps.len());
    ExitCode::SUCCESS
}

/// Tells the end-to-end tests which program to run, so that they need not build it themselves with
/// other features of its dependencies.
const PROGRAM_VARIABLE: &str = "CONVELO_TESTS_BINARY";

/// The program that the build step has built: beside this one, if this one is of the same profile.
fn program_of_the_build() -> Option<PathBuf> {
    let program = env::current_exe().ok()?.with_file_name("convelo");
    (program.parent()?.ends_with("debug") && program.exists()).then_some(program)
}

struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

impl Step {
    fn command(&self) -> Command {
        let mut command = cargo();
        command.args(self.arguments).envs(self.environment.iter().copied());
        command
    }

    /// The step as a person types it.
    fn shown(&self) -> String {
        let variables = self.environment.iter().map(|(name, value)| format!("{name}='{value}' "));
        variables.collect::<String>() + "cargo " + &self.arguments.join(" ")
    }
}

const fn step(name: &'static str, arguments: &'static [&'static str]) -> Step {
    Step { name, arguments, environment: &[] }
}

fn steps(quick: bool, nextest: bool) -> Vec<Step> {
    let mut steps = vec![
        step("format", &["fmt", "--all", "--check"]),
        step(
            "clippy",
            &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"],
        ),
        step("build", &["build", "--locked", "--workspace", "--all-targets"]),
        if nextest {
            step("tests", &["nextest", "run", "--locked", "--workspace", "--no-fail-fast"])
        } else {
            step(
                "tests",
                &[
                    "test",
                    "--locked",
                    "--workspace",
                    "--lib",
                    "--bins",
                    "--tests",
                    "--no-fail-fast",
                ],
            )
        },
        step("doctests", &["test", "--locked", "--workspace", "--doc"]),
    ];
    if !quick {
        steps.push(Step {
            name: "docs",
            arguments: &["doc", "--locked", "--workspace", "--no-deps"],
            environment: &[("RUSTDOCFLAGS", "-D warnings")],
        });
    }
    steps
}

/// Cargo as the person at the terminal would call it.
///
/// `cargo run` tells this process about its own package. Passed on, that would make build scripts
/// of dependencies run again that watch such variables.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn nextest_is_installed() -> bool {
    let mut command = cargo();
    command.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_but_the_format_is_locked() {
        for (quick, nextest) in [(false, false), (false, true), (true, false), (true, true)] {
            let steps = steps(quick, nextest);
            assert_eq!(steps.len(), if quick { 5 } else { 6 });
            for step in steps.iter().skip(1) {
                assert!(step.shown().contains(" --locked"), "{}", step.shown());
            }
        }
    }

    #[test]
    fn a_step_is_shown_as_it_can_be_typed() {
        let steps = steps(false, true);
        assert_eq!(
            steps[5].shown(),
            "RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps"
        );
    }
}
