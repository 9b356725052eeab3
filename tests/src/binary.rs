//! The programs under test: found next to the running test, and built if they are out of date.

use std::env;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names a finished program, which is then neither built nor checked.
const BINARY_VARIABLE: &str = "CONVELO_TESTS_BINARY";

/// The `convelo` program, from the same build as the running test.
///
/// # Panics
/// If it cannot be built.
pub fn convelo() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os(BINARY_VARIABLE) {
        Some(path) => path.into(),
        None => fresh(),
    })
}

/// The `convelo-service` program, which is measured, from the same build.
///
/// # Panics
/// If it cannot be built, or is missing beside a finished `convelo`.
pub fn measured() -> PathBuf {
    let binary = convelo().with_file_name(format!("convelo-service{}", env::consts::EXE_SUFFIX));
    assert!(binary.exists(), "{} is missing: build convelo-service", binary.display());
    binary
}

/// The measured program with its device elsewhere, which is built with the tests.
///
/// # Panics
/// If it is missing.
pub(crate) fn elsewhere() -> PathBuf {
    let name = format!("convelo-service-elsewhere{}", env::consts::EXE_SUFFIX);
    let binary = profile().join(name);
    assert!(binary.exists(), "{} is missing: build convelo-tests", binary.display());
    binary
}

/// Where the programs of the running test's build are.
fn profile() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    // .../target/PROFILE/deps/test-0123456789abcdef
    test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps").to_owned()
}

fn fresh() -> PathBuf {
    let profile = profile();
    let profile = profile.as_path();
    build_once(profile).expect("the target directory can be written to");
    let binary = profile.join(format!("convelo{}", env::consts::EXE_SUFFIX));
    assert!(binary.exists(), "cargo built no {}", binary.display());
    binary
}

/// Builds once per process and, under cargo-nextest, where each test is a process, once per run:
/// the first test notes the run in a file that the others wait for.
fn build_once(profile: &Path) -> io::Result<()> {
    let Some(run) = env::var_os("NEXTEST_RUN_ID") else {
        build(profile);
        return Ok(());
    };
    let run = run.to_string_lossy().into_owned();
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let mut note = options.open(profile.join("convelo-tests.run"))?;
    note.lock()?;
    let mut noted = String::new();
    note.read_to_string(&mut noted)?;
    if noted != run {
        build(profile);
        note.set_len(0)?;
        note.rewind()?;
        note.write_all(run.as_bytes())?;
    }
    Ok(())
}

fn build(profile: &Path) {
    let name = profile.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--locked", "--quiet", "--package", "convelo-cli"])
        .args(["--package", "convelo-service", "--profile"])
        .arg(if name == "debug" { "dev" } else { name })
        .current_dir(repository());
    // A target directory chosen on the command line is recognised by where this test is; one with a
    // triple (target/TRIPLE/PROFILE) comes with CARGO_BUILD_TARGET.
    let target = profile.parent().unwrap_or(profile);
    let triple = env::var_os("CARGO_BUILD_TARGET");
    let target = match triple {
        Some(triple) if target.ends_with(&triple) => target.parent().unwrap_or(target),
        _ => target,
    };
    command.env("CARGO_TARGET_DIR", target);
    // Build scripts that watch these variables would run again.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let status = command.status().expect("cargo can be started");
    assert!(status.success(), "the program under test cannot be built: {status}");
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a member of the workspace")
}
