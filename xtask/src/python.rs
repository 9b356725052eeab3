//! The Python side: interpreters, environments and the wheel.
//!
//! Every environment lies under `target/python` and belongs to one lock file of
//! `python/requirements`. It is made once and works without a network from then on; a changed lock
//! file or another interpreter makes it anew.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};

use crate::runner::run_and_show;

/// The environment that our own package is tested in.
pub(crate) const TEST: &str = "test";

/// The environment with the lowest versions that our package allows.
pub(crate) const LOWEST: &str = "lowest";

/// The genuine packages that we must work with, each in an environment of its own.
pub(crate) const GENUINE: [&str; 3] = ["genuine-4.8.1", "genuine-4.12.0", "genuine-5.0.4"];

/// The genuine packages whose own test-suites we must pass.
pub(crate) const SUITES: [&str; 2] = ["4.8.1", "5.0.4"];

const NEWEST_FIRST_CHOICE: [&str; 5] =
    ["python3.11", "python3.12", "python3.13", "python3.14", "python3"];

/// What the interpreter is asked: its version, and whether it can make environments.
const QUESTION: &str = "import sys, venv, ensurepip; print('%d.%d.%d' % sys.version_info[:3])";

const OLDEST: (u32, u32) = (3, 11);

/// Which program a Python step runs, relative to the repository.
pub(crate) fn program(environment: &str) -> String {
    format!("target/python/{environment}/bin/python")
}

/// The repository. Python steps run there, so that their commands are the same for everyone.
pub(crate) fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Held while environments are made: two makers of the same one would undo each other's work.
static MAKING: Mutex<()> = Mutex::new(());

/// Makes the environment of a lock file, unless it stands already.
pub(crate) fn prepare(environment: &str) -> Result<(), String> {
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let root = repository();
    let lock = root.join(format!("python/requirements/{environment}.txt"));
    let wanted = fs::read_to_string(&lock)
        .map_err(|error| format!("{} cannot be read: {error}", lock.display()))?;
    let directory = root.join("target/python").join(environment);
    let stamp = directory.join("lock.txt");
    let works = || version(directory.join("bin/python").as_os_str()).is_ok();
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && works() {
        return Ok(());
    }
    let (interpreter, version) = interpreter()?;
    eprintln!("xtask: target/python/{environment} is made with {interpreter}, Python {version}");
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .map_err(|error| format!("{} cannot be removed: {error}", directory.display()))?;
    }
    run(Command::new(&interpreter).args(["-m", "venv"]).arg(&directory))?;
    run(pip(environment)
        // Most of what is installed is never imported.
        .args(["install", "--quiet", "--no-compile", "--require-hashes", "--no-deps"])
        .arg("--requirement")
        .arg(&lock))?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}

/// Makes the environments of the genuine packages and fetches the test-suites.
pub(crate) fn prepare_genuine() -> Result<(), String> {
    GENUINE.iter().try_for_each(|environment| prepare(environment))?;
    SUITES.iter().try_for_each(|version| fetch_suite(version))
}

/// Makes the environments that the tests need.
pub(crate) fn prepare_for_tests(quick: bool) -> Result<(), String> {
    prepare(TEST)?;
    if quick {
        return Ok(());
    }
    prepare(LOWEST)?;
    prepare_genuine()
}

/// Fetches the source distribution of a genuine package; the lock file holds its hash.
fn fetch_suite(version: &str) -> Result<(), String> {
    let root = repository();
    let lock = root.join(format!("python/requirements/suite-{version}.txt"));
    let wanted = fs::read_to_string(&lock)
        .map_err(|error| format!("{} cannot be read: {error}", lock.display()))?;
    let directory = root.join("target/python/genuine").join(version);
    let stamp = directory.join("lock.txt");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .map_err(|error| format!("{} cannot be removed: {error}", directory.display()))?;
    }
    run(pip(TEST)
        .args([
            "download",
            "--quiet",
            "--require-hashes",
            "--no-deps",
            "--no-binary",
            "tno.mpc.communication",
        ])
        .arg("--requirement")
        .arg(&lock)
        .arg("--dest")
        .arg(&directory))?;
    let archive = only_file(&directory, ".tar.gz")?;
    run(Command::new(root.join(program(TEST)))
        .args(["-m", "tarfile", "--extract"])
        .arg(&archive)
        .arg(&directory))?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}

/// Builds the package as the tests use it, and installs it into the test environment.
pub(crate) fn install() -> Result<(), String> {
    let wheel = build("target/python/wheel", "dev")?;
    run(pip(TEST)
        .args(["install", "--quiet", "--no-index", "--no-deps", "--force-reinstall"])
        .arg(wheel))
}

/// Installs the package that [`install`] has built beside the lowest versions that it allows.
pub(crate) fn install_on_lowest() -> Result<(), String> {
    prepare(LOWEST)?;
    let wheel = only_file(&repository().join("target/python/wheel"), ".whl")?;
    run(pip(LOWEST)
        .args(["install", "--quiet", "--no-index", "--no-deps", "--force-reinstall"])
        .arg(wheel))
}

/// Builds the package as users get it, and unpacks it beside the test environment: a program that
/// has `PYTHONPATH` set to the returned directory uses this one.
pub(crate) fn install_shipped() -> Result<PathBuf, String> {
    let wheel = build("target/python/wheel-dist", "dist")?;
    let directory = repository().join("target/python/dist");
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .map_err(|error| format!("{} cannot be removed: {error}", directory.display()))?;
    }
    run(pip(TEST)
        .args(["install", "--quiet", "--no-index", "--no-deps", "--target"])
        .arg(&directory)
        .arg(wheel))?;
    Ok(directory)
}

/// Builds the wheel into a directory, which holds nothing else then.
fn build(into: &str, profile: &str) -> Result<PathBuf, String> {
    let root = repository();
    let directory = root.join(into);
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .map_err(|error| format!("{} cannot be removed: {error}", directory.display()))?;
    }
    run(maturin(profile).arg("--out").arg(&directory))?;
    only_file(&directory, ".whl")
}

fn maturin(profile: &str) -> Command {
    let mut command = Command::new(repository().join(program(TEST)));
    command.args(["-m", "maturin", "build", "--locked", "--quiet", "--profile", profile]);
    command.args(["--manifest-path", "python/Cargo.toml"]);
    command.current_dir(repository());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn pip(environment: &str) -> Command {
    let mut command = Command::new(repository().join(program(environment)));
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    command
}

/// What `cargo xtask python` makes beside the test environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Environments {
    Genuine,
    Lowest,
}

/// `cargo xtask python`: an environment to work in.
pub(crate) fn environment(more: Option<Environments>) -> ExitCode {
    let made = prepare(TEST).and_then(|()| install()).and_then(|()| match more {
        None => Ok(()),
        Some(Environments::Genuine) => prepare_genuine(),
        Some(Environments::Lowest) => install_on_lowest(),
    });
    finish(made.map(|()| "to use it: source target/python/test/bin/activate".to_owned()))
}

/// `cargo xtask wheel`: the wheel as users get it, in `dist`.
pub(crate) fn wheel() -> ExitCode {
    let made = prepare(TEST).and_then(|()| {
        run(maturin("dist").arg("--out").arg(repository().join("dist")))?;
        let wheel = newest_file(&repository().join("dist"), ".whl")?;
        Ok(format!("the wheel is {}", wheel.display()))
    });
    finish(made)
}

pub(crate) fn finish(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => {
            println!("xtask: {text}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = shown(command);
    match run_and_show(command) {
        Ok((status, _)) if status.success() => Ok(()),
        Ok((status, _)) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

fn interpreter() -> Result<(String, String), String> {
    choose(|name| version(name.as_ref()))
}

fn choose(version: impl Fn(&str) -> Result<String, String>) -> Result<(String, String), String> {
    let mut problems = Vec::new();
    for name in NEWEST_FIRST_CHOICE {
        match version(name) {
            Ok(version) if is_new_enough(&version) => return Ok((name.to_owned(), version)),
            Ok(version) => problems.push(format!("{name} is Python {version}")),
            Err(problem) => problems.push(format!("{name}: {problem}")),
        }
    }
    Err(format!(
        "no Python of version {}.{} or newer that has the modules venv and ensurepip; install one \
         (on Debian and Ubuntu: python3 and python3-venv). Found: {}",
        OLDEST.0,
        OLDEST.1,
        problems.join("; ")
    ))
}

fn version(interpreter: &std::ffi::OsStr) -> Result<String, String> {
    let answer = Command::new(interpreter).args(["-c", QUESTION]).output();
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status.success() {
        return Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&answer.stderr);
    Err(said.trim().lines().last().unwrap_or("it failed and said nothing").trim().to_owned())
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST,
        _ => false,
    }
}

fn files(directory: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(directory)
        .map_err(|error| format!("{} cannot be read: {error}", directory.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let ends = |path: &PathBuf| {
        path.file_name().map(OsString::from).is_some_and(|n| n.to_string_lossy().ends_with(ending))
    };
    Ok(paths.filter(ends).collect())
}

fn only_file(directory: &Path, ending: &str) -> Result<PathBuf, String> {
    let mut found = files(directory, ending)?;
    match (found.pop(), found.len()) {
        (Some(file), 0) => Ok(file),
        (None, _) => Err(format!("{} holds no *{ending}", directory.display())),
        (Some(_), more) => {
            Err(format!("{} holds {} *{ending} instead of one", directory.display(), more + 1))
        }
    }
}

fn newest_file(directory: &Path, ending: &str) -> Result<PathBuf, String> {
    let written = |path: &PathBuf| fs::metadata(path).and_then(|about| about.modified()).ok();
    let newest = files(directory, ending)?.into_iter().max_by_key(written);
    newest.ok_or_else(|| format!("{} holds no *{ending}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_interpreter_that_is_new_enough_is_taken() {
        let found = choose(|name| match name {
            "python3.11" => Err("No such file".to_owned()),
            "python3.12" => Ok("3.12.4".to_owned()),
            _ => Ok("3.14.0".to_owned()),
        });
        assert_eq!(found, Ok(("python3.12".to_owned(), "3.12.4".to_owned())));
    }

    #[test]
    fn without_an_interpreter_the_error_names_all_that_was_looked_at() {
        let problem = choose(|name| match name {
            "python3" => Ok("3.9.2".to_owned()),
            "python3.13" => Err("ModuleNotFoundError: No module named 'ensurepip'".to_owned()),
            _ => Err("No such file".to_owned()),
        })
        .unwrap_err();
        for part in [
            "3.11 or newer",
            "python3-venv",
            "python3 is Python 3.9.2",
            "python3.13: ModuleNotFoundError: No module named 'ensurepip'",
            "python3.11: No such file",
        ] {
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, enough) in [
            ("3.11.0", true),
            ("3.9.18", false),
            ("3.100.1", true),
            ("4.0.0", true),
            ("2.7.18", false),
            ("", false),
            ("3", false),
            ("three.eleven", false),
        ] {
            assert_eq!(is_new_enough(version), enough, "{version}");
        }
    }

    #[test]
    fn every_environment_has_a_lock_file_with_hashes_and_without_a_host() {
        let requirements = repository().join("python/requirements");
        let suites = SUITES.map(|version| format!("suite-{version}"));
        let names = GENUINE.into_iter().chain([TEST, LOWEST]).map(str::to_owned).chain(suites);
        for name in names {
            let lock = fs::read_to_string(requirements.join(format!("{name}.txt"))).unwrap();
            let pinned = lock.lines().filter(|line| line.contains("==")).count();
            assert!(pinned > 0, "{name}");
            assert!(lock.matches("--hash=sha256:").count() >= pinned, "{name}");
            assert!(!lock.contains("://"), "{name} names a host");
        }
    }
}
