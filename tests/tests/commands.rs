//! What a person sees of the program, compared with the fixtures in `tests/fixtures`. After an
//! intended change, `UPDATE_FIXTURES=1 cargo test -p convelo-tests --test it commands` rewrites
//! them; read the difference before you commit it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use convelo_tests::convelo;

fn run(dir: &Path, line: &str) -> Output {
    let mut command = Command::new(convelo());
    command.args(line.split_whitespace()).current_dir(dir).stdin(Stdio::null());
    command.env_remove("CONVELO_LOG").output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("what the program prints is UTF-8")
}

fn fixture(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&path, found).expect("the fixture can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{name} differs from what was found:\n{found}");
}

/// Replaces every run of at least `length` hexadecimal digits (digests) by `<hex>`, and the port of
/// an address by `<port>`.
fn anonymous(line: &str) -> String {
    let mut out = String::new();
    let mut digits = String::new();
    for character in line.chars().chain(std::iter::once('\n')) {
        if character.is_ascii_hexdigit() {
            digits.push(character);
            continue;
        }
        out += if digits.len() >= 64 { "<hex>" } else { &digits };
        digits.clear();
        out.push(character);
    }
    out.pop();
    let mut parts = out.split("127.0.0.1:");
    let mut line = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        line += "127.0.0.1:<port>";
        line += part.trim_start_matches(|character: char| character.is_ascii_digit());
    }
    line
}

/// A demo's transcript without what depends on chance: each process's lines stay in order, the
/// processes follow one another, and who waits for whom is left out.
fn transcript(stderr: &str) -> String {
    let mut processes = BTreeMap::<String, Vec<String>>::new();
    for line in stderr.lines() {
        let (process, line) = line.split_once(" | ").unwrap_or(("", line));
        if !line.starts_with("waiting for ") {
            processes.entry(process.trim().to_owned()).or_default().push(anonymous(line));
        }
    }
    let mut out = String::new();
    for (process, lines) in processes {
        for line in lines {
            out += &if process.is_empty() { line } else { format!("{process} | {line}") };
            out.push('\n');
        }
    }
    out
}

#[test]
fn the_demo() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), "demo");
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let result = ["alice", "bob", "carol"].map(|name| format!("{name} gets {{car, cat, train}}\n"));
    assert_eq!(text(&output.stdout), result.concat());
    fixture("demo.txt", &transcript(&stderr));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn the_demo_with_two_parties_and_generated_tables() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), "demo --parties 2 --rows 1000");
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let result = ["alice", "bob"].map(|name| {
        let common = "510 rows with 500 keys were generated in common";
        format!("{name} gets 510 of its 1000 rows; {common}\n")
    });
    assert_eq!(text(&output.stdout), result.concat());
    fixture("demo-rows.txt", &transcript(&stderr));
}

/// The demo keeps what its README reruns later: every command there is run exactly as written.
#[test]
fn the_kept_demo_can_be_rerun_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), "demo --keep kept");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let kept = dir.path().join("kept");
    let readme = fs::read_to_string(kept.join("README.md")).unwrap();
    let commands: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert_eq!(commands.len(), 5, "{readme}");
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {line}")]).current_dir(&kept);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut service = shell(commands[0]).spawn().unwrap();
    assert!(shell(commands[1]).status().unwrap().success(), "{}", commands[1]);
    let parties: Vec<_> = commands[2..]
        .iter()
        .map(|line| {
            let line = format!("sh -c '{line}'");
            (shell(&line).spawn().unwrap(), line)
        })
        .collect();
    for (mut party, line) in parties {
        assert!(party.wait().unwrap().success(), "{line}");
    }
    service.kill().unwrap();
    service.wait().unwrap();
    for party in ["alice", "bob", "carol"] {
        let matched = fs::read_to_string(kept.join(party).join("matched.txt")).unwrap();
        let mut ids: Vec<&str> = matched.lines().collect();
        ids.sort_unstable();
        assert_eq!(ids, ["car", "cat", "train"]);
        assert!(kept.join(party).join("matched.txt.receipt-2.json").exists());
    }
    let again = run(dir.path(), "demo --keep kept");
    assert_eq!(again.status.code(), Some(2), "a directory that is not empty is left alone");
}

#[test]
fn help() {
    let dir = tempfile::tempdir().unwrap();
    let mut found = String::new();
    for command in [
        "",
        "demo",
        "init",
        "keygen",
        "key",
        "key show",
        "check",
        "serve",
        "run",
        "join",
        "attest",
        "attest inspect",
        "attest verify",
        "attest evidence",
        "policy",
        "policy check",
        "policy from-dynamic-config",
        "policy from-ra-tls-env",
        "policy from-sigstruct",
        "policy from-release",
        "policy from-measurement",
        "collateral",
        "collateral show",
        "collateral export",
        "collateral import",
        "receipt",
        "receipt verify",
        "simulator",
        "simulator new",
        "simulator pccs",
        "simulator collateral",
        "completions",
    ] {
        let output = run(dir.path(), &format!("{command} --help"));
        assert!(output.status.success());
        found += &format!("$ convelo {command} --help\n{}\n", text(&output.stdout));
    }
    fixture("help.txt", &found);
}

#[test]
fn the_template_of_a_job() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), "init").status.success());
    fixture("job.toml", &fs::read_to_string(dir.path().join("job.toml")).unwrap());
    let again = run(dir.path(), "init");
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("not overwritten"));
}

/// From nothing to a checked job, as the guide says.
#[test]
fn keys_template_and_check_as_in_the_guide() {
    let dir = tempfile::tempdir().unwrap();
    let go = |line: &str| {
        let output = run(dir.path(), line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    go("simulator new platform");
    let mut parties = String::new();
    for name in ["alice", "bob"] {
        let lines = go(&format!("keygen {name}"));
        let key = lines.lines().last().unwrap().trim_start_matches("key = ").trim_matches('"');
        parties += &format!(" --party {name}={key}");
    }
    go(&format!("init --policy platform/policy.toml{parties}"));
    fs::write(dir.path().join("c.csv"), "id;email\n1;A@x.org\n2;\n3;a@x.org \n4;nowhere\n")
        .unwrap();
    let plan = go("check job.toml --as alice --input c.csv --key email");
    fixture("check.txt", &plan.lines().map(|line| anonymous(line) + "\n").collect::<String>());
    let json: serde_json::Value =
        serde_json::from_str(&go("check job.toml --as alice --input c.csv --key email --json"))
            .unwrap();
    assert_eq!(json["input"]["keys"], 1);
    assert_eq!(json["input"]["duplicates"], 1);
    assert_eq!(json["input"]["blank"], 1);
    assert_eq!(json["input"]["invalid"], 1);
}

/// A pool accepts what `convelo keygen` makes for a pool.
#[test]
fn keygen_makes_certificates_for_a_pool() {
    use convelo_channel::{Credential, Expect, Roots};
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    for name in ["alice", "bob"] {
        let output = run(dir.path(), &format!("keygen {name} --authority parties"));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let key = read(&format!("parties/{name}.key"));
        let certificate = read(&format!("parties/{name}.crt"));
        Credential::from_pem(&key, &certificate).unwrap();
        Expect::certificate(&certificate).unwrap();
    }
    Roots::from_pem(&read("parties/ca.crt")).unwrap();
    let again = run(dir.path(), "keygen bob --authority parties");
    assert_eq!(again.status.code(), Some(2), "a key is never overwritten");
    assert!(run(dir.path(), "keygen carol --certificate").status.success());
    Credential::from_pem(&read("carol.key"), &read("carol.crt")).unwrap();
}

/// Every completion script is generated without an error.
#[test]
fn completions() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(dir.path(), &format!("completions {shell}"));
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("convelo"));
    }
}

/// The replaced system's flags begin with one dash, and -h is ours.
#[test]
fn flags_of_the_replaced_system_never_ask_for_help() {
    let dir = tempfile::tempdir().unwrap();
    for (line, says) in [
        (
            "serve -host nowhere -config absent.json",
            "the policy absent.json: there is no such file",
        ),
        ("run job.toml -host localhost:1", "unexpected argument '--host'"),
        (
            "join data_provider1.py -host localhost:1 -config absent.json -is_chief True -client_num 2 \
             data_dir=data1.txt",
            "the policy absent.json: there is no such file",
        ),
        (
            "join -host=localhost:1 -config=absent.json -is_chief=true -client_num=2 data_dir=data1.txt \
             client_name=data_provider1",
            "the policy absent.json: there is no such file",
        ),
    ] {
        let output = run(dir.path(), line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(text(&output.stderr).contains(says), "{line}: {}", text(&output.stderr));
    }
}

#[test]
fn mistakes_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let demo = run(dir.path(), "demo --parties 2 --keep k");
    assert!(demo.status.success());
    let alice = dir.path().join("k/alice");
    let job = fs::read_to_string(alice.join("job.toml")).unwrap();
    fs::write(alice.join("typo.toml"), job.replace("minimum = 0", "minimun = 0")).unwrap();
    fs::write(alice.join("latin.csv"), b"id\ncar\ncaf\xe9\n").unwrap();
    fs::copy(dir.path().join("k/bob/bob.key"), alice.join("other.key")).unwrap();
    let mut found = String::new();
    for line in [
        "run absent.toml --as alice --input data1.txt --output m.txt",
        "run typo.toml --as alice --input data1.txt --output m.txt",
        "run job.toml --as mallory --insecure-simulated --identity alice.key --input data1.txt --output m.txt",
        "run job.toml --as alice --insecure-simulated --identity other.key --input data1.txt --output m.txt",
        "run job.toml --as alice --insecure-simulated --identity data1.txt --input data1.txt --output m.txt",
        "run job.toml --as alice --insecure-simulated --input absent.txt --output m.txt",
        "run job.toml --as alice --insecure-simulated --input latin.csv --output m.csv",
        "check job.toml --input latin.csv --key id",
        "check job.toml --input latin.csv --key email",
        "run job.toml --as alice --insecure-simulated --input data1.txt",
        "run job.toml --as alice --insecure-simulated --input data1.txt --output data1.txt",
        "run job.toml --as alice --insecure-simulated --input data1.txt --output m.txt --collateral absent.json",
        "run job.toml --as alice --insecure-simulated --input data1.txt --output m.txt --collateral job.toml",
        "join --name a --parties 1 --data data1.txt",
        "join --name a --parties 2 --data data1.txt --policy absent.json",
        "serve --listen 127.0.0.1:0 --simulated absent",
        "serve --listen nonsense --simulated ../platform",
        "simulator new ../platform",
    ] {
        let output = run(&alice, line);
        assert_eq!(output.status.code(), Some(2), "{line}: {}", text(&output.stderr));
        let errors: String =
            text(&output.stderr).lines().map(|line| anonymous(line) + "\n").collect();
        found += &format!("$ convelo {line}\n{errors}\n");
    }
    fixture("mistakes.txt", &found);
}
