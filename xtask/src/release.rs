//! `cargo xtask release --service`: builds the measured program twice, in different directories, and says
//! what went into it.

mod elf;

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::manifest::Sizes;
use crate::python::repository;

use elf::Forbidden;

const PACKAGE: &str = "convelo-service";
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "dist";

/// Where everything goes, in the repository.
const DIRECTORY: &str = "target/release-service";

/// All that a build gets of the environment: a flag set here or there gives another program.
const VARIABLES: [&str; 17] = [
    "ALL_PROXY",
    "CARGO_HOME",
    "CARGO_HTTP_CAINFO",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "PATH",
    "RUSTUP_AUTO_INSTALL",
    "RUSTUP_HOME",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// Where it is built: one directory, or two.
    directories: Option<(PathBuf, PathBuf)>,
    once: bool,
    sizes: Sizes,
    json: Option<PathBuf>,
}

/// Reads the arguments behind `release`.
pub(crate) fn parse(arguments: &[&str]) -> Result<Release, String> {
    let ["--service", options @ ..] = arguments else {
        return Err("release needs what to build: --service".to_owned());
    };
    let (mut directories, mut once, mut json) = (None, false, None);
    let (mut memory, mut workers) = ("1G", "4");
    let mut options = options.iter().copied();
    while let Some(option) = options.next() {
        let mut value = || options.next().ok_or_else(|| format!("{option} needs a value"));
        match option {
            "--once" => once = true,
            "--twice" => directories = Some((PathBuf::from(value()?), PathBuf::from(value()?))),
            "--memory" => memory = value()?,
            "--workers" => workers = value()?,
            "--json" => json = Some(PathBuf::from(value()?)),
            other => return Err(format!("release does not know {other:?}")),
        }
    }
    if once && directories.is_some() {
        return Err("release builds --once or --twice, not both".to_owned());
    }
    Ok(Release { directories, once, sizes: Sizes::new(memory, workers)?, json })
}

/// Builds, compares, checks and tells.
pub(crate) fn run(release: &Release) -> ExitCode {
    match release.carry_out() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

impl Release {
    fn carry_out(&self) -> Result<(), String> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err("the measured program is built on x86-64 Linux".to_owned());
        }
        let root = repository();
        let commit = said(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(&root))?;
        let changed =
            Command::new("git").args(["status", "--porcelain"]).current_dir(&root).output();
        if changed.is_ok_and(|output| !output.stdout.is_empty()) {
            eprintln!("xtask: WARNING: what is built is {commit}; files here differ from it");
        }
        let place = root.join(DIRECTORY);
        let (first, second) = match &self.directories {
            Some((first, second)) => (absolute(first)?, absolute(second)?),
            None => (place.join("first"), place.join("elsewhere/and/deeper/second")),
        };
        if first.starts_with(&second) || second.starts_with(&first) {
            return Err("the two directories must lie apart".to_owned());
        }
        let mut builds = vec![Build::make(&root, &commit, first)?];
        if !self.once {
            builds.push(Build::make(&root, &commit, second)?);
        }
        compare(&builds)?;
        for build in &builds {
            build.check()?;
        }
        let program = place.join(PACKAGE);
        fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
        fs::write(&program, &builds[0].bytes)
            .map_err(|error| format!("{}: {error}", program.display()))?;
        make_executable(&program)?;
        let made = Made::of(self, &root, &commit, &builds, &program)?;
        println!("{}", made.words());
        if let Some(path) = &self.json {
            let text = format!("{:#}\n", made.json());
            fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

/// The program, built in one place.
struct Build {
    directory: PathBuf,
    bytes: Vec<u8>,
    sha256: String,
}

impl Build {
    /// Builds a commit in a directory of its own, from nothing.
    fn make(root: &Path, commit: &str, directory: PathBuf) -> Result<Self, String> {
        let source = directory.join("source");
        let target = directory.join("target");
        for old in [&source, &target].into_iter().filter(|old| old.exists()) {
            if !directory.starts_with(root.join(DIRECTORY)) {
                return Err(format!("{} is there already: name new directories", old.display()));
            }
            fs::remove_dir_all(old).map_err(|error| format!("{}: {error}", old.display()))?;
        }
        fs::create_dir_all(&source).map_err(|error| format!("{}: {error}", source.display()))?;
        let archive = directory.join("source.tar");
        let mut git = Command::new("git");
        git.args(["archive", "--format=tar", "--output"])
            .arg(&archive)
            .arg(commit)
            .current_dir(root);
        done(&mut git)?;
        done(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&source))?;
        fs::remove_file(&archive).map_err(|error| format!("{}: {error}", archive.display()))?;
        // Packages have to be there before their directories can be named.
        done(clean("cargo", &source).args(["fetch", "--locked", "--target", TARGET]))?;
        let sysroot = said(clean("rustc", &source).args(["--print", "sysroot"]))?;
        let prefixes = prefixes(&sysroot, &source, &target)?;
        let mut command = clean("cargo", &source);
        command
            .args(["build", "--locked", "--profile", PROFILE, "--target", TARGET])
            .args(["--package", PACKAGE, "--bin", PACKAGE])
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&prefixes).join("\u{1f}"))
            .env("CFLAGS", c_flags(&prefixes)?.join(" "))
            .env("CXXFLAGS", c_flags(&prefixes)?.join(" "));
        eprintln!("xtask: {PACKAGE} is built in {}", directory.display());
        done(&mut command)?;
        let program = target.join(TARGET).join(PROFILE).join(PACKAGE);
        let bytes =
            fs::read(&program).map_err(|error| format!("{}: {error}", program.display()))?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Ok(Self { directory, bytes, sha256 })
    }

    fn check(&self) -> Result<(), String> {
        let mut directories: Vec<_> =
            [&Some(self.directory.clone()), &cargo_home(), &home("RUSTUP_HOME", ".rustup")]
                .into_iter()
                .flatten()
                .map(|path| path.display().to_string())
                .collect();
        directories
            .extend(env::var("HOME").ok().filter(|home| home.len() > 1).map(|home| home + "/"));
        let problems = elf::problems(&self.bytes, &Forbidden { directories });
        if problems.is_empty() {
            return Ok(());
        }
        let place = self.directory.display();
        Err(format!("the program built in {place} does not hold: {}", problems.join("; ")))
    }
}

/// A program with nothing of the environment that could change what it builds, in a directory: for cargo and
/// rustc, its `.cargo/config.toml` and `rust-toolchain.toml` count.
fn clean(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir(directory);
    command.envs(VARIABLES.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command.env("LC_ALL", "C").env("CARGO_INCREMENTAL", "0").env("CARGO_TERM_COLOR", "never");
    // Also in .cargo/config.toml, which counts only where cargo is started below it.
    command.env("AWS_LC_SYS_NO_JITTER_ENTROPY", "1");
    command
}

/// The flags that make the program static, and keep out where it was built.
fn rust_flags(prefixes: &[Prefix]) -> Vec<String> {
    let mut flags = ["-C", "target-feature=+crt-static", "--cfg"].map(str::to_owned).to_vec();
    flags.push("getrandom_backend=\"linux_getrandom\"".to_owned());
    let flag = |(from, to): &Prefix| format!("--remap-path-prefix={}={to}", from.display());
    flags.extend(prefixes.iter().map(flag));
    flags
}

fn c_flags(prefixes: &[Prefix]) -> Result<Vec<String>, String> {
    if let Some((odd, _)) = prefixes.iter().find(|(from, _)| from.to_string_lossy().contains(' ')) {
        return Err(format!(
            "{}: the C compiler's flags take no directory with a space",
            odd.display()
        ));
    }
    let flag = |(from, to): &Prefix| format!("-ffile-prefix-map={}={to}", from.display());
    Ok(prefixes.iter().map(flag).collect())
}

/// A directory, and what it is called in the program.
type Prefix = (PathBuf, &'static str);

/// What directories are called in the program. The last one that fits counts, for both compilers.
fn prefixes(sysroot: &str, source: &Path, target: &Path) -> Result<Vec<Prefix>, String> {
    let cargo = cargo_home().ok_or("neither CARGO_HOME nor HOME is set")?;
    let mut prefixes = vec![(PathBuf::from(sysroot), "/rustc-sysroot"), (cargo.clone(), "/cargo")];
    // The directory has the name of the registry, or of a copy of it.
    let registries = cargo.join("registry/src");
    if let Ok(entries) = fs::read_dir(&registries) {
        let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        found.sort();
        prefixes.extend(found.into_iter().map(|path| (path, "/cargo/registry")));
    }
    prefixes.extend([(target.to_owned(), "/target"), (source.to_owned(), "/convelo")]);
    Ok(prefixes)
}

fn cargo_home() -> Option<PathBuf> {
    home("CARGO_HOME", ".cargo")
}

fn home(variable: &str, name: &str) -> Option<PathBuf> {
    let given = env::var_os(variable).map(PathBuf::from);
    given.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(name)))
}

fn compare(builds: &[Build]) -> Result<(), String> {
    let [first, others @ ..] = builds else { return Ok(()) };
    let Some(other) = others.iter().find(|build| build.bytes != first.bytes) else { return Ok(()) };
    let at = first.bytes.iter().zip(&other.bytes).position(|(one, two)| one != two);
    let at = at.unwrap_or(first.bytes.len().min(other.bytes.len()));
    Err(format!(
        "the two builds differ from byte {at} on: {} ({} bytes) in {}, and {} ({} bytes) in {}",
        first.sha256,
        first.bytes.len(),
        first.directory.display(),
        other.sha256,
        other.bytes.len(),
        other.directory.display()
    ))
}

/// All that is told about a build.
struct Made {
    version: String,
    commit: String,
    date: String,
    program: PathBuf,
    bytes: usize,
    sha256: String,
    builds: usize,
    inputs: Vec<(&'static str, String)>,
    sizes: Sizes,
    /// What Gramine's signer said; if it is not here, why.
    enclave: Result<Measurement, String>,
}

/// What `build.sh` measured.
struct Measurement {
    gramine: String,
    libpal: String,
    libsysdb: String,
    mr_enclave: String,
    isv_prod_id: String,
    isv_svn: String,
}

impl Made {
    fn of(
        release: &Release,
        root: &Path,
        commit: &str,
        builds: &[Build],
        program: &Path,
    ) -> Result<Self, String> {
        let first = &builds[0];
        let git = |arguments: &[&str]| said(Command::new("git").args(arguments).current_dir(root));
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit.to_owned(),
            date: git(&["show", "--no-patch", "--format=%cs", commit])?,
            program: program.to_owned(),
            bytes: first.bytes.len(),
            sha256: first.sha256.clone(),
            builds: builds.len(),
            inputs: inputs(&first.directory.join("source"))?,
            sizes: release.sizes.clone(),
            enclave: Measurement::measure(root, program, &release.sizes),
        })
    }

    fn words(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<14} {value}");
        };
        line("program", &self.program.display().to_string());
        line("version", &format!("{}, commit {}", self.version, self.commit));
        line("size", &format!("{} bytes", self.bytes));
        line("sha256", &self.sha256);
        let times = if self.builds == 1 {
            "built once: nothing to compare"
        } else {
            "two builds are equal"
        };
        line("builds", times);
        line(
            "form",
            "static-pie, no interpreter, no TEXTREL, no executable stack, no simulator, no paths",
        );
        for (name, value) in &self.inputs {
            line(name, value);
        }
        match &self.enclave {
            Ok(enclave) => {
                line("gramine", &enclave.gramine);
                line("libpal.so", &enclave.libpal);
                line("libsysdb.so", &enclave.libsysdb);
                line("MRENCLAVE", &enclave.mr_enclave);
                let entries = [self.policy_entry(enclave), self.log_entry(enclave)].join("\n");
                let _ =
                    write!(text, "\nFor a policy, and for deploy/measurements.toml:\n\n{entries}");
            }
            Err(why) => line("MRENCLAVE", why),
        }
        text.trim_end().to_owned()
    }

    fn json(&self) -> Value {
        let inputs: serde_json::Map<_, _> =
            self.inputs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let enclave = self.enclave.as_ref().ok().map(|enclave| {
            json!({
                "gramine": enclave.gramine,
                "gramine_libpal_sha256": enclave.libpal,
                "gramine_libsysdb_sha256": enclave.libsysdb,
                "mr_enclave": enclave.mr_enclave,
                "isv_prod_id": enclave.isv_prod_id.parse::<u16>().ok(),
                "isv_svn": enclave.isv_svn.parse::<u16>().ok(),
                "memory": self.sizes.memory(),
                "workers": self.sizes.workers(),
                "policy_entry": self.policy_entry(enclave),
                "log_entry": self.log_entry(enclave),
            })
        });
        json!({
            "version": self.version,
            "commit": self.commit,
            "program": self.program,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "builds": self.builds,
            "inputs": inputs,
            "enclave": enclave,
        })
    }

    /// What a policy says to accept this enclave.
    fn policy_entry(&self, enclave: &Measurement) -> String {
        format!(
            "[[enclave]]\nname = \"convelo-service {}\"\nmr_enclave = \"{}\"\nisv_prod_id = {}\n\
             minimum_isv_svn = {}\n",
            self.version, enclave.mr_enclave, enclave.isv_prod_id, enclave.isv_svn
        )
    }

    /// What the public log says about it.
    fn log_entry(&self, enclave: &Measurement) -> String {
        format!(
            "[[release]]\nversion = \"{}\"\ndate = \"{}\"\nprogram_sha256 = \"{}\"\nmemory = \"{}\"\n\
             workers = {}\ngramine = \"{}\"\ngramine_libpal_sha256 = \"{}\"\n\
             gramine_libsysdb_sha256 = \"{}\"\nmr_enclave = \"{}\"\nisv_prod_id = {}\nisv_svn = {}\n",
            self.version,
            self.date,
            self.sha256,
            self.sizes.memory(),
            self.sizes.workers(),
            enclave.gramine,
            enclave.libpal,
            enclave.libsysdb,
            enclave.mr_enclave,
            enclave.isv_prod_id,
            enclave.isv_svn
        )
    }
}

impl Measurement {
    /// What Gramine's signer makes of the program, under a key that is thrown away: the measurement does not
    /// depend on it.
    fn measure(root: &Path, program: &Path, sizes: &Sizes) -> Result<Self, String> {
        let signer = "gramine-sgx-sign";
        if !is_installed(signer) {
            return Err(format!("not computed: {signer} is not installed here"));
        }
        let mut command = Command::new(root.join("deploy/gramine/build.sh"));
        command.arg("--measure").arg("--program").arg(program);
        command.args(["--memory", sizes.memory(), "--workers", &sizes.workers().to_string()]);
        command.arg("--output").arg(root.join(DIRECTORY).join("gramine"));
        Self::read(&said(&mut command)?)
    }

    /// Reads the lines that `build.sh` ends with.
    fn read(lines: &str) -> Result<Self, String> {
        let field = |name: &str| {
            let mut values =
                lines.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            values.next().map(str::to_owned).ok_or_else(|| format!("build.sh said no {name}"))
        };
        Ok(Self {
            gramine: field("gramine")?,
            libpal: field("libpal.so sha256")?,
            libsysdb: field("libsysdb.so sha256")?,
            mr_enclave: field("mr_enclave")?,
            isv_prod_id: field("isv_prod_id")?,
            isv_svn: field("isv_svn")?,
        })
    }
}

/// The versions of all that goes into the program and is not in the repository.
fn inputs(source: &Path) -> Result<Vec<(&'static str, String)>, String> {
    let first = |program: &str, arguments: &[&str]| {
        let text = said(clean(program, source).args(arguments))?;
        Ok::<_, String>(text.lines().next().unwrap_or_default().to_owned())
    };
    let lock =
        fs::read(source.join("Cargo.lock")).map_err(|error| format!("Cargo.lock: {error}"))?;
    let libc = first("cc", &["-print-file-name=libc.a"])?;
    let archive = fs::read(&libc).map_err(|error| format!("{libc}: {error}"))?;
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    Ok(vec![
        ("Cargo.lock", hex::encode(Sha256::digest(lock))),
        ("rustc", first("rustc", &["--version"])?),
        ("cargo", first("cargo", &["--version"])?),
        ("cc", first("cc", &["--version"])?),
        ("ld", first("ld", &["--version"])?),
        ("libc", first("ldd", &["--version"])?),
        ("libc.a", hex::encode(Sha256::digest(archive))),
        ("system", system.unwrap_or("unknown").trim_matches('"').to_owned()),
    ])
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> Result<(), String> {
    Ok(())
}

/// Runs a command that must succeed.
fn done(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} failed: {status}", shown(command))),
        Err(error) => Err(format!("{} cannot be started: {error}", shown(command))),
    }
}

/// What a command that must succeed writes, without the line's end.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{} cannot be started: {error}", shown(command)))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} failed: {}", shown(command), errors.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn shown(command: &Command) -> String {
    let words: Vec<OsString> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsString::from)
        .collect();
    words.join(" ".as_ref()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(directory: &str, bytes: &[u8]) -> Build {
        let sha256 = hex::encode(Sha256::digest(bytes));
        Build { directory: directory.into(), bytes: bytes.to_vec(), sha256 }
    }

    #[test]
    fn builds_that_differ_are_told_apart() {
        assert_eq!(compare(&[build("/a", b"same")]), Ok(()));
        assert_eq!(compare(&[build("/a", b"same"), build("/b", b"same")]), Ok(()));
        let said = compare(&[build("/a", b"same"), build("/b", b"sane")]).unwrap_err();
        assert!(said.starts_with("the two builds differ from byte 2 on: "), "{said}");
        let said = compare(&[build("/a", b"same"), build("/b", b"same, and more")]).unwrap_err();
        assert!(said.starts_with("the two builds differ from byte 4 on: "), "{said}");
    }

    #[test]
    fn the_command_line() {
        let release =
            |directories: Option<(&str, &str)>, once, memory, workers, json: Option<&str>| {
                Ok(Release {
                    directories: directories.map(|(one, two)| (one.into(), two.into())),
                    once,
                    sizes: Sizes::new(memory, workers).unwrap(),
                    json: json.map(PathBuf::from),
                })
            };
        assert_eq!(parse(&["--service"]), release(None, false, "1G", "4", None));
        assert_eq!(
            parse(&["--service", "--twice", "/a", "/b", "--json", "out.json"]),
            release(Some(("/a", "/b")), false, "1G", "4", Some("out.json"))
        );
        assert_eq!(
            parse(&["--service", "--once", "--memory", "3G", "--workers", "8"]),
            release(None, true, "3G", "8", None)
        );
        for wrong in [
            &[][..],
            &["--once"],
            &["--service", "--twice", "/a"],
            &["--service", "--once", "--twice", "/a", "/b"],
            &["--service", "--memory", "much"],
            &["--service", "--quickly"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    /// The last prefix that fits counts: a package is in cargo's directory, and so is the registry.
    #[test]
    fn what_is_more_exact_comes_later() {
        let prefixes =
            prefixes("/rust", Path::new("/build/source"), Path::new("/build/target")).unwrap();
        let place = |wanted: &str| prefixes.iter().position(|(_, name)| *name == wanted);
        assert!(place("/cargo").unwrap() < place("/target").unwrap());
        assert!(place("/target").unwrap() < place("/convelo").unwrap());
        if let Some(registry) = place("/cargo/registry") {
            assert!(place("/cargo").unwrap() < registry);
        }
        let wanted = "--remap-path-prefix=/build/source=/convelo";
        assert!(rust_flags(&prefixes).iter().any(|flag| flag == wanted));
        let wanted = "-ffile-prefix-map=/build/source=/convelo";
        assert!(c_flags(&prefixes).unwrap().iter().any(|flag| flag == wanted));
        assert!(c_flags(&[("/a b/source".into(), "/convelo")]).is_err());
    }

    /// What is printed for the log is what the log holds: the first entry of the tests' log, which the tests
    /// of `convelo policy from-release` read.
    #[test]
    fn an_entry_of_the_log_is_as_the_command_line_reads_it() {
        let said = "gramine: 1.9-1\nlibpal.so sha256: 1f\nlibsysdb.so sha256: 2e\nmr_enclave: 3d\n\
                    isv_prod_id: 1\nisv_svn: 2";
        let mut enclave = Measurement::read(said).unwrap();
        assert!(Measurement::read("gramine: 1.9-1").is_err());
        enclave.libpal = "1f".repeat(32);
        enclave.libsysdb = "2e".repeat(32);
        enclave.mr_enclave = "3d".repeat(32);
        let made = Made {
            version: "0.2.0".to_owned(),
            commit: String::new(),
            date: "2027-01-15".to_owned(),
            program: PathBuf::new(),
            bytes: 3,
            sha256: "4c".repeat(32),
            builds: 2,
            inputs: Vec::new(),
            sizes: Sizes::new("3G", "4").unwrap(),
            enclave: Err("not computed".to_owned()),
        };
        let log =
            fs::read_to_string(repository().join("tests/fixtures/measurements.toml")).unwrap();
        let entry = made.log_entry(&enclave);
        assert!(log.contains(&format!("\n{entry}")), "{entry}");
        let policy = made.policy_entry(&enclave);
        assert!(policy.contains(&format!("mr_enclave = \"{}\"", enclave.mr_enclave)), "{policy}");
        assert!(made.words().contains("MRENCLAVE      not computed"), "{}", made.words());
        assert_eq!(made.json()["enclave"], Value::Null);
        let told = Made { enclave: Ok(enclave), ..made };
        assert!(told.words().contains(entry.trim_end()), "{}", told.words());
        assert_eq!(told.json()["enclave"]["isv_svn"], 2);
    }
}
