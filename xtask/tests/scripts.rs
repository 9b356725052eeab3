//! The scripts of `deploy/gramine`, with doubles of Gramine's tools: what they ask of these, and what they say where
//! these are missing. The tools themselves are not here, so this shows the scripts and nothing of Gramine.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository").to_owned()
}

fn scripts() -> PathBuf {
    repository().join("deploy/gramine")
}

/// A directory of programs that stands before all others.
struct Tools(TempDir);

/// Fills in a template as Gramine's does, and adds what Gramine's adds.
const MANIFEST: &str = r#"#!/usr/bin/env python3
import hashlib, re, sys
arguments, values, chroot = [], {}, None
rest = iter(sys.argv[1:])
for argument in rest:
    if argument == "--chroot":
        chroot = next(rest)
    elif argument.startswith("-D"):
        name, value = argument[2:].split("=", 1)
        values[name] = value
    else:
        arguments.append(argument)
source, target = arguments
text = re.sub(r"\{\{ (\w+) \}\}", lambda found: values[found[1]], open(source).read())
program = "file:/opt/convelo/convelo-service"
digest = hashlib.sha256(open(chroot + "/opt/convelo/convelo-service", "rb").read()).hexdigest()
text = text.replace(f'  "{program}",\n', f'  {{ uri = "{program}", sha256 = "{digest}" }},\n')
text += f'[loader.entrypoint]\nuri = "file:LIBS/gramine/libsysdb.so"\nsha256 = "{"5d" * 32}"\n'
open(target, "w").write(text)
"#;

/// Signs nothing: the file that it writes says what it was given.
const SIGN: &str = r#"#!/usr/bin/env python3
import re, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert options.pop("--date") == "0000-00-00"
manifest = open(options.pop("--manifest")).read()
open(options.pop("--output"), "w").write(manifest)
versions = [re.search(rf"{name} = (\d+)", manifest)[1] for name in ("isvprodid", "isvsvn")]
with open(options.pop("--sigfile"), "w") as signature:
    signature.write(open(options.pop("--key")).readline())
    signature.write("\nisv_prod_id = {}\nisv_svn = {}\n".format(*versions))
assert not options, options
"#;

const VIEW: &str = "#!/bin/sh\n[ -s \"$1\" ] || exit 1\ncat <<'END'\nmr_signer = \"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d\"\n\
                    mr_enclave = \"81a675e9a408818b430be4b259f3e11e6f8cacdb4c971c3114ee79fe53076893\"\n\
                    debug_enclave = false\nEND\ngrep ^isv_ \"$1\"\n";

impl Tools {
    fn new() -> Self {
        let tools = Self(tempfile::tempdir().expect("a directory"));
        // `cargo xtask` is this build's, but for what the program is made of, which takes seconds.
        let xtask = env!("CARGO_BIN_EXE_xtask");
        let text = "#!/bin/sh\n[ \"$1\" = xtask ] || exit 9\nshift\n\
                    [ \"$1\" != sbom ] || exec cp /dev/null \"$5\"\nexec XTASK \"$@\"\n";
        tools.add("cargo", &text.replace("XTASK", xtask));
        tools
    }

    fn add(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    }

    /// Those of Gramine, too. `libs` stands for the directory of its libraries.
    fn of_gramine(libs: &str) -> Self {
        let tools = Self::new();
        tools.add("gramine-manifest", &MANIFEST.replace("LIBS", libs));
        tools.add("gramine-sgx-sign", SIGN);
        tools.add("gramine-sgx-sigstruct-view", VIEW);
        // The double's library is at the path that the lint allows, so its hash is a double's, too.
        tools.add("sha256sum", "#!/bin/sh\ncase \"$1\" in\n*/libpal.so) echo \"aa  $1\" ;;\n\
                                */libsysdb.so) echo \"bb  $1\" ;;\n*) exec /usr/bin/sha256sum \"$1\" ;;\nesac\n");
        tools.add("dpkg-query", "#!/bin/sh\nprintf 1.9-1\n");
        tools
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        let path = std::env::var("PATH").expect("a path");
        let path = format!("{}:{path}", self.0.path().display());
        let mut command = Command::new(scripts().join(script));
        command.args(arguments).env("PATH", path).env_remove("CONVELO_TESTS_BINARY");
        command.output().expect("bash runs")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Whether Gramine is installed: then the scripts find the genuine tools.
fn gramine_is_here() -> bool {
    Command::new("gramine-manifest").arg("--help").output().is_ok()
}

#[expect(clippy::print_stderr, reason = "what is left out is to be seen")]
fn skip(why: &str) {
    eprintln!("not tested: {why}");
}

#[test]
fn scripts_are_clean() {
    let files = fs::read_dir(scripts()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|ext| ext == "sh")).collect();
    assert!(files.len() >= 2, "{files:?}");
    match Command::new("shellcheck").arg("--external-sources").args(&files).output() {
        Ok(output) => assert!(output.status.success(), "{}", text(&output.stdout)),
        Err(_) => skip("shellcheck is not installed"),
    }
}

#[test]
fn every_script_has_help_and_takes_no_other_option() {
    let tools = Tools::new();
    for script in ["build.sh", "smoke.sh"] {
        let output = tools.run(script, &["--help"]);
        assert!(output.status.success(), "{script}");
        assert!(text(&output.stdout).contains(&format!("Usage: deploy/gramine/{script}")));
        let output = tools.run(script, &["--hel"]);
        assert_eq!(output.status.code(), Some(2), "{script}");
        assert!(text(&output.stderr).contains("there is no option '--hel'"));
    }
}

#[test]
fn without_gramine_nothing_is_built_and_nothing_was_tested() {
    if gramine_is_here() {
        return skip("Gramine is installed");
    }
    let tools = Tools::new();
    let output = tools.run("build.sh", &["--measure"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        text(&output.stderr).contains("gramine-manifest is missing"),
        "{}",
        text(&output.stderr)
    );
    let output = tools.run("smoke.sh", &[]);
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stderr);
    assert!(
        said.contains("NOT RUN: Gramine is missing here") && said.contains("nothing was tested")
    );
}

#[test]
fn wrong_arguments_of_the_build() {
    let tools = Tools::new();
    for (arguments, words) in [
        (&[][..], "--key FILE or --measure is needed"),
        (&["--key"], "--key needs a value"),
        (&["--key", "/no/such/key"], "the key /no/such/key cannot be read"),
        (&["--measure", "--key", "/dev/null"], "--measure takes no key"),
        (&["--measure", "--program", "/no/program"], "there is no program /no/program"),
    ] {
        let output = tools.run("build.sh", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}

/// A program that has been built, and the directory that everything goes to.
fn program() -> (TempDir, String, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("built");
    fs::write(&program, b"a program").expect("a file");
    let output = directory.path().join("enclave");
    let shown = |path: &Path| path.to_str().expect("text").to_owned();
    let paths = (shown(&program), shown(&output));
    (directory, paths.0, paths.1)
}

#[test]
fn a_measurement_is_printed_with_what_goes_into_it() {
    let tools = Tools::of_gramine("/usr/lib/x86_64-linux-gnu");
    let (_directory, program, output) = program();
    let arguments = ["--measure", "--program", &program, "--output", &output, "--memory", "3G"];
    let built = tools.run("build.sh", &[&arguments[..], &["--svn", "7"]].concat());
    assert!(built.status.success(), "{}", text(&built.stderr));
    let said = text(&built.stdout);
    let hash = hex::encode(Sha256::digest(b"a program"));
    for line in [
        &format!("program sha256: {hash}"),
        "gramine: 1.9-1",
        "libpal.so sha256: aa",
        "libsysdb.so sha256: bb",
        "mr_enclave: 81a675e9a408818b430be4b259f3e11e6f8cacdb4c971c3114ee79fe53076893",
        "isv_svn: 7",
        "minimum_isv_svn = 7",
        "name = \"convelo-service, 3G, 4 workers\"",
    ] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
    let files = fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
    files.sort();
    // No key and nothing that is signed with it.
    assert_eq!(
        files,
        [
            "convelo-service",
            "convelo-service.cdx.json",
            "convelo-service.manifest",
            "convelo-service.manifest.sgx"
        ]
    );
    let manifest = fs::read_to_string(Path::new(&output).join("convelo-service.manifest")).unwrap();
    assert!(manifest.contains("sgx.enclave_size = \"4G\"") && manifest.contains("sgx.isvsvn = 7"));
}

#[test]
fn an_enclave_is_signed_with_the_key_from_outside() {
    let tools = Tools::of_gramine("/usr/lib64");
    let (directory, program, output) = program();
    let key = directory.path().join("key.pem");
    fs::write(&key, "the key\nand more of it\n").unwrap();
    let arguments = ["--key", key.to_str().unwrap(), "--program", &program, "--output", &output];
    let built = tools.run("build.sh", &arguments);
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert!(text(&built.stdout).contains(&format!("mr_signer: {}\n", "0d".repeat(32))));
    let signed = Path::new(&output).join("convelo-service.sig");
    assert!(fs::read_to_string(signed).unwrap().starts_with("the key\n"));
    assert_eq!(fs::read(Path::new(&output).join("convelo-service")).unwrap(), b"a program");
}

/// What is printed for a policy is what the signature says.
#[test]
fn a_signature_of_other_versions() {
    let tools = Tools::of_gramine("/usr/lib64");
    tools.add("gramine-sgx-sign", &SIGN.replace("for name in", "[::-1] for name in"));
    let (_directory, program, output) = program();
    let arguments = ["--measure", "--program", &program, "--output", &output, "--svn", "12"];
    let built = tools.run("build.sh", &arguments);
    assert_eq!((built.status.code(), text(&built.stdout).as_str()), (Some(1), ""));
    let words = "isv_svn was to be 12, and the signature has '21'";
    assert!(text(&built.stderr).contains(words), "{}", text(&built.stderr));
}

/// What would go on into the policy that is printed, or says something else than the signature.
#[test]
fn values_that_are_not_one_value() {
    let tools = Tools::of_gramine("/usr/lib64");
    let (_directory, program, output) = program();
    let base = ["--measure", "--program", &program, "--output", &output];
    for (option, value) in [
        ("--svn", "1\n[[enclave]]"),
        ("--prodid", "1\nsgx.use_exinfo = false"),
        ("--svn", "65536"),
        ("--svn", "01"),
        ("--svn", "-1"),
        ("--output", ""),
        ("--program", ""),
    ] {
        let built = tools.run("build.sh", &[&base[..], &[option, value]].concat());
        let (code, said) = (built.status.code(), text(&built.stdout));
        assert_eq!((code, said.as_str()), (Some(2), ""), "{option} {value}");
    }
    for (from, to) in [
        ("mr_signer = \"0d0d", "mr_signer = \"zz0d"),
        ("debug_enclave = false", "debug_enclave = true"),
        ("debug_enclave = false", "debug_enclave = False\nisv_svn = 9"),
        ("mr_signer", "mr_enclave = \"{}\"\nmr_signer"),
    ] {
        let to = to.replace("{}", &"ab".repeat(32));
        assert!(VIEW.contains(from), "{from}");
        tools.add("gramine-sgx-sigstruct-view", &VIEW.replacen(from, &to, 1));
        let built = tools.run("build.sh", &base);
        let (code, said) = (built.status.code(), text(&built.stdout));
        assert_eq!((code, said.as_str()), (Some(1), ""), "{to}: {}", text(&built.stderr));
    }
}

/// Gramine's tools accept it; the lint does not.
#[test]
fn what_does_not_hold_is_not_signed() {
    let tools = Tools::of_gramine("/srv");
    let (_directory, program, output) = program();
    let built = tools.run("build.sh", &["--measure", "--program", &program, "--output", &output]);
    assert_eq!(built.status.code(), Some(1));
    assert!(text(&built.stderr).contains("loader.entrypoint.uri"), "{}", text(&built.stderr));
    assert!(!Path::new(&output).join("convelo-service.manifest.sgx").exists());
}

/// The quote that a program reads is one over the report data that it has written, every time.
#[test]
fn the_device_shows_no_quote_of_the_time_before() {
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("device");
    let mut command = Command::new("python3");
    command.arg(scripts().join("device.py")).arg(&device).args(["sh", "-c", "printf quote:; cat"]);
    let said = directory.path().join("said");
    command
        .stdout(fs::File::create(&said).unwrap())
        .stderr(fs::File::create(directory.path().join("errors")).unwrap());
    let mut process = command.spawn().unwrap();
    for _ in 0..100 {
        if fs::read_to_string(&said).unwrap() == "ready\n" || process.try_wait().unwrap().is_some()
        {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    if process.try_wait().unwrap().is_some() {
        let errors = fs::read_to_string(directory.path().join("errors")).unwrap();
        assert!(errors.contains("it takes root"), "{errors}");
        return skip("fanotify takes root");
    }
    // A process of its own reads: this one could not be killed while it waits for leave.
    let quote = |report_data: &[u8]| {
        fs::write(device.join("user_report_data"), report_data).unwrap();
        Command::new("timeout").args(["10", "cat"]).arg(device.join("quote")).output().unwrap()
    };
    for byte in [1, 2, 3] {
        let found = quote(&[byte; 64]);
        assert_eq!(found.stdout, [b"quote:", &[byte; 64][..]].concat());
    }
    let refused = quote(b"short");
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty());
}
