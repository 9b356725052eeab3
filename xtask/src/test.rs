//! `cargo xtask test`: everything that must hold, step by step.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::python;
use crate::runner::{Tally, run_and_show};

/// Runs the steps up to the first that fails. Python's environments are made meanwhile: the network is
/// what that waits for. What goes wrong there is said by the step that needs the environment and tries again.
pub(crate) fn run(quick: bool) -> ExitCode {
    thread::scope(|scope| {
        scope.spawn(|| python::prepare_for_tests(quick));
        run_steps(quick)
    })
}

fn run_steps(quick: bool) -> ExitCode {
    let mut steps = steps(quick, is_installed("nextest"));
    if !quick && is_installed("deny") {
        steps.push(step("advisories", &["deny", "check", "advisories"]));
    }
    let began = Spent::until_now();
    let mut tally = Tally::default();
    for (index, step) in steps.iter().enumerate() {
        let label = format!("xtask: [{}/{}] {}", index + 1, steps.len(), step.name);
        eprintln!("{label}: {}", step.shown());
        let step_began = Spent::until_now();
        let problem = step.run(&mut tally);
        let took = step_began.since();
        if let Some(problem) = problem {
            eprintln!("{label}: failed after {took}: {problem}");
            eprintln!("xtask: to run this step alone: {}", step.shown());
            println!("xtask: {} failed; tests: {tally}", step.name);
            return ExitCode::FAILURE;
        }
        eprintln!("{label}: ok, {took}");
    }
    let took = began.since();
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
    work: Work,
    environment: &'static [(&'static str, &'static str)],
}

enum Work {
    Cargo(Vec<String>),
    /// Arguments of the Python of an environment, in the repository.
    Python(&'static str, Vec<String>),
    /// Something of ours, and the command that does it.
    Own(fn() -> Result<(), String>, &'static str),
}

impl Step {
    /// Runs the step to its end; the problem is why it failed.
    fn run(&self, tally: &mut Tally) -> Option<String> {
        let mut command = match &self.work {
            Work::Cargo(arguments) => {
                let mut command = cargo();
                command.args(arguments);
                command
            }
            Work::Python(environment, arguments) => {
                let program = python::repository().join(python::program(environment));
                let mut command = Command::new(program);
                command.args(arguments).current_dir(python::repository());
                command
            }
            Work::Own(work, _) => return work().err(),
        };
        command.envs(self.environment.iter().copied());
        if let Some(program) = program_of_the_build() {
            command.env(PROGRAM_VARIABLE, program);
        }
        match run_and_show(&mut command) {
            Ok((status, counted)) => {
                tally.add(counted);
                (!status.success()).then(|| status.to_string())
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// The step as a person types it.
    fn shown(&self) -> String {
        let variables = self.environment.iter().map(|(name, value)| format!("{name}='{value}' "));
        let command = match &self.work {
            Work::Cargo(arguments) => format!("cargo {}", arguments.join(" ")),
            Work::Python(environment, arguments) => {
                let quoted = arguments.iter().map(|argument| {
                    if argument.contains(' ') { format!("'{argument}'") } else { argument.clone() }
                });
                let program = python::program(environment);
                format!("{program} {}", quoted.collect::<Vec<_>>().join(" "))
            }
            Work::Own(_, command) => (*command).to_owned(),
        };
        variables.collect::<String>() + &command
    }
}

fn step(name: &'static str, arguments: &[&str]) -> Step {
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Step { name, work: Work::Cargo(arguments), environment: &[] }
}

fn python_step(name: &'static str, arguments: &[&str]) -> Step {
    step_in(python::TEST, name, arguments)
}

fn step_in(environment: &'static str, name: &'static str, arguments: &[&str]) -> Step {
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Step { name, work: Work::Python(environment, arguments), environment: &[] }
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
            // Some tests only wait: with one more at a time, the cores always have work.
            let at_once = thread::available_parallelism().map_or(2, |cores| cores.get() + 1);
            let run = ["nextest", "run", "--locked", "--workspace", "--no-fail-fast"];
            step("tests", &[&run[..], &["--test-threads", &at_once.to_string()]].concat())
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
        let mut docs = step("docs", &["doc", "--locked", "--workspace", "--no-deps"]);
        docs.environment = &[("RUSTDOCFLAGS", "-D warnings")];
        steps.push(docs);
    }
    steps.extend(python_steps(quick));
    steps
}

/// Makes the interoperation tests fail, not skip, where a genuine package is missing.
const GENUINE_IS_HERE: &[(&str, &str)] = &[("CONVELO_GENUINE", "target/python")];

/// The tests of what is read from peers, which is where versions of libraries matter.
const OF_WHAT_PEERS_SEND: &[&str] = &[
    "python/tests/test_decoding_memory.py",
    "python/tests/test_peer_bytes.py",
    "python/tests/test_second_wire.py",
    "python/tests/test_serialization_plugins.py",
    "python/tests/test_vectors.py",
];

/// A process for each core.
const PYTEST: [&str; 4] = ["-m", "pytest", "-n", "auto"];

fn python_steps(quick: bool) -> Vec<Step> {
    let own = |name, work, command| Step { name, work: Work::Own(work, command), environment: &[] };
    let pytest = |arguments: &[&'static str]| [&PYTEST[..], arguments].concat();
    let tests =
        pytest(&["python/tests", "--ignore=python/tests/genuine", "--ignore=python/tests/interop"]);
    let mut steps = vec![
        own(
            "python environment",
            (|| python::prepare(python::TEST)) as fn() -> Result<(), String>,
            "cargo xtask python",
        ),
        own("python module", python::install, "cargo xtask python"),
        python_step(
            "python types",
            &["-m", "mypy", "--strict", "--config-file=python/pyproject.toml", "python/convelo"],
        ),
        python_step(
            "python stubs",
            &[
                "-m",
                "mypy.stubtest",
                "--mypy-config-file=python/pyproject.toml",
                "convelo._convelo",
            ],
        ),
    ];
    if quick {
        let quick_tests = [&tests[..], &["-m", "not slow"]].concat();
        steps.push(python_step("python tests", &quick_tests));
        return steps;
    }
    steps.push(python_step("python tests", &tests));
    let lowest = "cargo xtask python --lowest";
    steps.push(own("lowest versions", python::install_on_lowest, lowest));
    steps.push(step_in(python::LOWEST, "python tests on them", &pytest(OF_WHAT_PEERS_SEND)));
    let peers = pytest(&["tests/peers", "--config-file=python/pyproject.toml"]);
    steps.push(python_step("genuine peers", &peers));
    let deployment = pytest(&["tests/deploy", "--config-file=python/pyproject.toml"]);
    steps.push(python_step("deployment", &deployment));
    // Not at the same time as each other: all share one set of images.
    let containers = ["-m", "pytest", "tests/containers", "--config-file=python/pyproject.toml"];
    steps.push(python_step("containers", &containers));
    let documentation = pytest(&["tests/docs", "--config-file=python/pyproject.toml"]);
    steps.push(python_step("documentation", &documentation));
    let genuine = "cargo xtask python --genuine";
    steps.push(own("genuine packages", python::prepare_genuine, genuine));
    steps.extend(python::SUITES.map(|version| {
        let sources = format!("target/python/genuine/{version}");
        let arguments = ["python/tests/genuine/run.py", version, &sources];
        let mut step = python_step("genuine test-suite", &arguments);
        step.environment = GENUINE_IS_HERE;
        step
    }));
    let mut interop = python_step("interoperation", &pytest(&["python/tests/interop"]));
    interop.environment = GENUINE_IS_HERE;
    steps.push(interop);
    steps
}

/// Cargo as the person at the terminal would call it.
///
/// `cargo run` tells this process about its own package. Passed on, that would make build scripts
/// of dependencies run again that watch such variables.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn is_installed(subcommand: &str) -> bool {
    let mut command = cargo();
    command.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What has been spent up to a moment.
struct Spent {
    at: Instant,
    cpu: Option<Duration>,
}

impl Spent {
    fn until_now() -> Self {
        let cpu = fs::read_to_string("/proc/self/stat").ok();
        Self { at: Instant::now(), cpu: cpu.and_then(|stat| cpu_of_children(&stat)) }
    }

    /// What has been spent since, in words.
    fn since(&self) -> String {
        let took = self.at.elapsed().as_secs_f64();
        match (self.cpu, Self::until_now().cpu) {
            (Some(before), Some(now)) => {
                format!("{took:.1} s, {:.1} s of CPU", now.saturating_sub(before).as_secs_f64())
            }
            _ => format!("{took:.1} s"),
        }
    }
}

/// The CPU time of all children that have ended, and of theirs, as Linux counts it.
fn cpu_of_children(stat: &str) -> Option<Duration> {
    // Fields 16 and 17, in hundredths of a second; the second is a name that may hold spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(13).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    Some(Duration::from_millis(10 * ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cargo_step_but_the_format_is_locked() {
        for (quick, nextest) in [(false, false), (false, true), (true, false), (true, true)] {
            let steps = steps(quick, nextest);
            let cargo = steps.iter().filter(|step| matches!(step.work, Work::Cargo(_)));
            let locked: Vec<String> = cargo.map(Step::shown).skip(1).collect();
            assert_eq!(locked.len(), if quick { 4 } else { 5 });
            for command in locked {
                assert!(command.contains(" --locked"), "{command}");
            }
        }
    }

    #[test]
    fn cpu_time_is_that_of_children() {
        let stat =
            "12 (a) b) S 1 12 12 0 -1 4194560 900 80000 0 3 5 7 1100 34 20 0 1 0 99 8192 300";
        assert_eq!(cpu_of_children(stat), Some(Duration::from_millis(11_340)));
        assert_eq!(cpu_of_children("12 (a) S 1"), None);
    }

    #[test]
    fn quick_leaves_out_what_needs_the_genuine_packages() {
        let names = |quick| steps(quick, true).iter().map(|step| step.name).collect::<Vec<_>>();
        let (all, quick) = (names(false), names(true));
        for slow in [
            "docs",
            "lowest versions",
            "python tests on them",
            "genuine peers",
            "deployment",
            "containers",
            "documentation",
            "genuine packages",
            "genuine test-suite",
            "interoperation",
        ] {
            assert!(all.contains(&slow) && !quick.contains(&slow), "{slow}");
        }
        assert!(all.starts_with(&["format", "clippy", "build", "tests", "doctests", "docs"]));
        assert!(quick.ends_with(&["python stubs", "python tests"]));
    }

    #[test]
    fn a_step_is_shown_as_it_can_be_typed() {
        let shown = |quick, name: &str| {
            let steps = steps(quick, true);
            steps.iter().find(|step| step.name == name).unwrap().shown()
        };
        assert_eq!(
            shown(false, "docs"),
            "RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps"
        );
        assert_eq!(shown(false, "python module"), "cargo xtask python");
        assert_eq!(
            shown(true, "python tests"),
            "target/python/test/bin/python -m pytest -n auto python/tests \
             --ignore=python/tests/genuine --ignore=python/tests/interop -m 'not slow'"
        );
        assert_eq!(
            shown(false, "interoperation"),
            "CONVELO_GENUINE='target/python' target/python/test/bin/python -m pytest -n auto \
             python/tests/interop"
        );
    }
}
