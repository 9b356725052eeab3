//! Enforces the arrows of the architecture: which crate may use which, and what the two pure crates
//! may not touch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::metadata::{cargo_metadata, packages, repository, text, tree};

/// Which of our crates each crate may depend on directly. A crate that is not listed fails the
/// test.
const ARROWS: &[(&str, &[&str])] = &[
    ("convelo-untrusted", &[]),
    ("convelo-psi", &["convelo-untrusted"]),
    ("convelo-keys", &["convelo-psi"]),
    ("convelo-attest", &["convelo-untrusted"]),
    ("convelo-heap", &[]),
    ("convelo-mpc", &["convelo-psi"]),
    ("convelo-simulator", &["convelo-attest"]),
    ("convelo-wire", &["convelo-psi"]),
    ("convelo-channel", &["convelo-attest", "convelo-untrusted"]),
    ("convelo-pool", &["convelo-attest", "convelo-channel", "convelo-untrusted"]),
    ("convelo-python", &["convelo-channel", "convelo-pool"]),
    (
        "convelo-service",
        &[
            "convelo-attest",
            "convelo-channel",
            "convelo-heap",
            "convelo-psi",
            "convelo-untrusted",
            "convelo-wire",
        ],
    ),
    (
        "convelo-operate",
        &[
            "convelo-attest",
            "convelo-channel",
            "convelo-keys",
            "convelo-psi",
            "convelo-service",
            "convelo-untrusted",
            "convelo-wire",
        ],
    ),
    (
        "convelo-party",
        &[
            "convelo-attest",
            "convelo-channel",
            "convelo-keys",
            "convelo-mpc",
            "convelo-psi",
            "convelo-untrusted",
            "convelo-wire",
        ],
    ),
    (
        "convelo-cli",
        &[
            "convelo-attest",
            "convelo-channel",
            "convelo-heap",
            "convelo-operate",
            "convelo-party",
            "convelo-psi",
            "convelo-service",
            "convelo-simulator",
            "convelo-untrusted",
        ],
    ),
    (
        "convelo-tests",
        &[
            "convelo-attest",
            "convelo-channel",
            "convelo-keys",
            "convelo-operate",
            "convelo-party",
            "convelo-psi",
            "convelo-service",
            "convelo-simulator",
            "convelo-untrusted",
            "convelo-wire",
        ],
    ),
    (
        "convelo-fuzz",
        &[
            "convelo-attest",
            "convelo-channel",
            "convelo-keys",
            "convelo-operate",
            "convelo-mpc",
            "convelo-party",
            "convelo-pool",
            "convelo-psi",
            "convelo-simulator",
            "convelo-wire",
        ],
    ),
    ("xtask", &[]),
];

/// What a crate may not reach, however indirectly. `x-*` is every package whose name begins with
/// `x-`.
const OUT_OF_REACH: &[(&str, &[&str])] = &[
    ("convelo-psi", PURE),
    ("convelo-keys", PURE),
    ("convelo-attest", PURE),
    ("convelo-mpc", PURE),
    ("convelo-untrusted", PURE),
    ("convelo-wire", &["convelo-attest", "rustls", "arrow", "arrow-*", "parquet", "clap", "pyo3"]),
    ("convelo-channel", &["convelo-psi", "tonic", "arrow", "arrow-*", "parquet", "clap", "pyo3"]),
    (
        "convelo-service",
        &[
            "convelo-keys",
            "convelo-mpc",
            "arrow",
            "arrow-*",
            "parquet",
            "clap",
            "indicatif",
            "pyo3",
            "convelo-operate",
            "convelo-party",
            "convelo-simulator",
        ],
    ),
    (
        "convelo-operate",
        &["arrow", "arrow-*", "parquet", "clap", "pyo3", "convelo-party", "convelo-simulator"],
    ),
    (
        "convelo-pool",
        &["convelo-psi", "convelo-wire", "tonic", "arrow", "arrow-*", "parquet", "clap", "pyo3"],
    ),
    ("convelo-python", &["convelo-simulator", "convelo-service", "clap", "indicatif"]),
    ("convelo-party", &["clap", "indicatif", "pyo3", "convelo-simulator", "convelo-service"]),
    ("convelo-cli", &["pyo3"]),
    ("xtask", &["convelo-*"]),
];

const PURE: &[&str] =
    &["tokio", "tokio-*", "tonic", "tonic-*", "hyper", "rustls", "arrow", "arrow-*", "parquet"];

/// What the sources of the pure crates may not name: time, environment, randomness, network,
/// threads and processes come in as arguments.
const IMPURE: &[&str] = &[
    "SystemTime",
    "Instant",
    "UNIX_EPOCH",
    "env::",
    "thread_rng",
    "SysRng",
    "OsRng",
    "std::env",
    "std::net",
    "std::process",
    "std::thread",
];

const FILE_ACCESS: &[&str] = &["std::fs", "fs::", "File::open", "File::create", "OpenOptions"];

#[test]
fn every_member_keeps_to_its_arrows() {
    let metadata = cargo_metadata();
    let graph = Graph::from_metadata(&metadata);
    let members = metadata["workspace_members"].as_array().unwrap();
    let members: BTreeSet<&str> =
        members.iter().map(|id| graph.names[id.as_str().unwrap()].as_str()).collect();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for member in &members {
        let allowed = arrows
            .get(member)
            .unwrap_or_else(|| panic!("{member} has no arrows: add it to this test"));
        for dependency in graph.direct(member) {
            assert!(
                !members.contains(dependency) || allowed.contains(&dependency),
                "{member} -> {dependency}: the architecture has no such arrow"
            );
        }
    }
    for name in arrows.keys() {
        assert!(members.contains(name), "{name} has arrows here but is not a member");
    }
}

#[test]
fn nothing_is_reached_that_must_not_be() {
    let graph = Graph::from_metadata(&cargo_metadata());
    for (from, forbidden) in OUT_OF_REACH {
        for pattern in *forbidden {
            if let Some(path) = graph.path(from, pattern) {
                panic!("{from} must not reach {pattern}: {}", path.join(" -> "));
            }
        }
    }
}

/// Whatever is in the measured program can read every record. The list is what a reader of the
/// policy trusts: it changes only when a person changes it.
#[test]
fn the_measured_program_is_made_of_these_packages_and_no_others() {
    let list = repository().join("tests/fixtures/measured.txt");
    let agreed = fs::read_to_string(&list).unwrap();
    let agreed: BTreeSet<String> = agreed.lines().map(str::to_owned).collect();
    let found = tree("convelo-service");
    let new: Vec<_> = found.difference(&agreed).collect();
    let gone: Vec<_> = agreed.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "convelo-service, the program that is measured, is made of other packages than {} says.\n\
         New: {new:?}. Each can read every record, so do without it if that can be done \
         (`cargo tree -p convelo-service -e normal -i NAME` says who brings it); otherwise read it, add its line, \
         and say why in the commit.\n\
         Gone: {gone:?}. Delete these lines.",
        list.display()
    );
}

#[test]
fn what_must_be_reached_is_reached() {
    let graph = Graph::from_metadata(&cargo_metadata());
    for (from, to) in [
        ("convelo-channel", "rustls"),
        ("convelo-service", "tonic"),
        ("convelo-party", "parquet"),
        ("convelo-cli", "clap"),
        ("convelo-cli", "convelo-psi"),
        ("convelo-attest", "dcap-qvl"),
    ] {
        assert!(graph.path(from, to).is_some(), "{from} does not reach {to}: is the walker blind?");
    }
}

#[test]
fn no_crate_is_a_drawer() {
    let metadata = cargo_metadata();
    let graph = Graph::from_metadata(&metadata);
    for member in metadata["workspace_members"].as_array().unwrap() {
        let name = &graph.names[member.as_str().unwrap()];
        let last = name.rsplit('-').next().unwrap();
        assert!(
            !["common", "util", "utils", "helpers", "misc", "shared"].contains(&last),
            "{name}: name a crate after what it does"
        );
    }
}

#[test]
fn rustls_has_one_provider() {
    let metadata = cargo_metadata();
    let graph = Graph::from_metadata(&metadata);
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let rustls: Vec<&Value> =
        nodes.iter().filter(|node| graph.names[text(node, "id")] == "rustls").collect();
    assert!(!rustls.is_empty(), "no rustls in the tree");
    for node in rustls {
        let features = node["features"].as_array().unwrap();
        let on = |names: &[&str]| {
            features.iter().any(|feature| names.contains(&feature.as_str().unwrap()))
        };
        let providers = [on(&["ring"]), on(&["aws_lc_rs", "aws-lc-rs"])];
        assert_eq!(
            providers,
            [false, true],
            "{}: the provider is aws-lc-rs alone; with two the process-wide default panics",
            text(node, "id")
        );
    }
}

#[test]
fn pure_sources_take_the_world_as_arguments() {
    for name in ["psi", "keys", "attest", "untrusted"] {
        for (path, code) in sources(&repository().join("crates").join(name).join("src")) {
            let reads_devices = path.to_string_lossy().contains("attest/src/source");
            let file_access = if reads_devices { &[] } else { FILE_ACCESS };
            let waits = |word: &&&str| reads_devices && **word == "std::thread";
            for word in IMPURE.iter().filter(|word| !waits(word)).chain(file_access) {
                if let Some(line) = code.lines().position(|line| names(line, word)) {
                    panic!("{}:{}: {word} in a pure crate", path.display(), line + 1);
                }
            }
        }
    }
}

#[test]
fn nobody_waits_by_sleeping_in_a_thread() {
    for name in ["channel", "service", "wire"] {
        for (path, code) in sources(&repository().join("crates").join(name).join("src")) {
            for word in ["thread::sleep", "yield_now", "spin_loop"] {
                if let Some(line) = code.lines().position(|line| names(line, word)) {
                    panic!("{}:{}: {word}: wait for the event", path.display(), line + 1);
                }
            }
        }
    }
}

/// What two commands share has its own module.
#[test]
fn commands_do_not_know_each_other() {
    for (path, code) in sources(&repository().join("crates/cli/src/commands")) {
        if let Some(line) = code.lines().position(|line| line.contains("commands::")) {
            panic!("{}:{}: another command", path.display(), line + 1);
        }
    }
}

/// Packages and their ordinary dependencies, without those of tests and build scripts.
struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn from_metadata(metadata: &Value) -> Self {
        let name =
            |package: &Value| (text(package, "id").to_owned(), text(package, "name").to_owned());
        let ordinary = |dependency: &&Value| {
            dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null())
        };
        let edges = |node: &Value| {
            let dependencies = node["deps"].as_array().unwrap().iter().filter(ordinary);
            let ids = dependencies.map(|dependency| text(dependency, "pkg").to_owned());
            (text(node, "id").to_owned(), ids.collect())
        };
        Self {
            names: packages(metadata).iter().map(name).collect(),
            edges: metadata["resolve"]["nodes"].as_array().unwrap().iter().map(edges).collect(),
        }
    }

    fn id(&self, name: &str) -> &str {
        let mut ids = self.names.iter().filter(|(_, other)| *other == name).map(|(id, _)| id);
        ids.next().unwrap_or_else(|| panic!("no package is called {name}"))
    }

    fn direct(&self, from: &str) -> impl Iterator<Item = &str> {
        self.edges[self.id(from)].iter().map(|id| self.names[id].as_str())
    }

    /// The shortest path from a package to one whose name matches, as names; the start itself does
    /// not match.
    fn path(&self, from: &str, pattern: &str) -> Option<Vec<&str>> {
        let fits = |name: &str| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        let start = self.id(from);
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(id) = queue.pop_front() {
            for next in &self.edges[id] {
                if next == start || came_from.contains_key(next.as_str()) {
                    continue;
                }
                came_from.insert(next, id);
                if fits(&self.names[next]) {
                    let mut path = vec![self.names[next].as_str()];
                    let mut at = next.as_str();
                    while let Some(before) = came_from.get(at) {
                        at = before;
                        path.push(&self.names[at]);
                    }
                    path.reverse();
                    return Some(path);
                }
                queue.push_back(next);
            }
        }
        None
    }
}

/// Every Rust file below `directory` with comments and everything under `#[cfg(test)]` blanked.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "{} has no sources", directory.display());
    let mut tests = Vec::new();
    let mut sources = Vec::new();
    for path in files {
        let (code, modules) = without_tests(&fs::read_to_string(&path).unwrap());
        let beside = path.parent().unwrap();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let home = match stem {
            "mod" | "lib" | "main" => beside.to_owned(),
            _ => beside.join(stem),
        };
        for module in modules {
            tests.push(home.join(&module));
            tests.push(home.join(module + ".rs"));
        }
        sources.push((path, code));
    }
    sources.retain(|(path, _)| !tests.iter().any(|test| path.starts_with(test)));
    sources.sort();
    sources
}

/// The code outside `#[cfg(test)]`, line by line as it was, and the test modules in their own
/// files. It relies on rustfmt's layout: an item ends where its indentation returns.
fn without_tests(source: &str) -> (String, Vec<String>) {
    let (mut code, mut modules) = (String::new(), Vec::new());
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("#[cfg(test)]") {
            let indent = &line[..line.len() - trimmed.len()];
            code.push('\n');
            for line in lines.by_ref() {
                code.push('\n');
                let item = line.strip_prefix(indent).unwrap_or(line).trim_end();
                if let Some(name) = item.strip_prefix("mod ").and_then(|m| m.strip_suffix(';')) {
                    modules.push(name.to_owned());
                }
                let inner = item.is_empty() || item.starts_with([' ', '#']);
                if !inner && (item.starts_with('}') || item.ends_with(['}', ';'])) {
                    break;
                }
            }
        } else {
            code.push_str(line.split("//").next().unwrap_or(line));
            code.push('\n');
        }
    }
    (code, modules)
}

/// Whether a line names `word` as a whole: `Instant` is not in `Instantly`. A word that ends in
/// `::` stands for everything after it.
fn names(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let after = &line[start + word.len()..];
        !line[..start].ends_with(part_of_word)
            && (word.ends_with("::") || !after.starts_with(part_of_word))
    })
}

/// A package and what it depends on: the name and kind of each dependency.
type MadeUp<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);

fn made_up(packages: &[MadeUp<'_>]) -> Graph {
    let metadata = serde_json::json!({
        "packages": packages.iter().map(|(name, _)| serde_json::json!({
            "id": format!("id of {name}"),
            "name": name,
        })).collect::<Vec<_>>(),
        "resolve": { "nodes": packages.iter().map(|(name, dependencies)| serde_json::json!({
            "id": format!("id of {name}"),
            "deps": dependencies.iter().map(|(name, kind)| serde_json::json!({
                "pkg": format!("id of {name}"),
                "dep_kinds": [{ "kind": kind, "target": null }],
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>() },
    });
    Graph::from_metadata(&metadata)
}

#[test]
fn the_walker_finds_the_shortest_path_along_ordinary_dependencies() {
    let graph = made_up(&[
        ("pure", &[("a", None), ("tester", Some("dev")), ("maker", Some("build"))]),
        ("a", &[("b", None)]),
        ("b", &[("tokio-util", None), ("pure", None)]),
        ("c", &[("tokio-util", None)]),
        ("tokio-util", &[("tokio", None)]),
        ("tokio", &[]),
        ("tester", &[("clap", None)]),
        ("maker", &[("clap", None)]),
        ("clap", &[]),
        ("late", &[("a", None), ("c", None)]),
    ]);
    assert_eq!(graph.path("pure", "tokio"), Some(vec!["pure", "a", "b", "tokio-util", "tokio"]));
    assert_eq!(graph.path("pure", "tokio-*"), Some(vec!["pure", "a", "b", "tokio-util"]));
    assert_eq!(graph.path("late", "tokio-*"), Some(vec!["late", "c", "tokio-util"]));
    assert_eq!(graph.path("pure", "clap"), None, "tests and build scripts do not count");
    assert_eq!(graph.path("pure", "tok"), None);
    assert_eq!(graph.path("pure", "pure"), None, "a cycle is not a dependency on itself");
    assert_eq!(graph.direct("pure").collect::<Vec<_>>(), ["a"]);
}

#[test]
fn the_scan_sees_code_and_neither_comments_nor_tests() {
    let source = "\
use std::time::SystemTime; // SystemTime::now
// std::env
fn now() {}
#[cfg(test)]
use std::env;
#[cfg(test)]
#[derive(Debug)]
struct Made {
    at: Instant,
}
#[cfg(test)]
mod vectors;
impl A {
    #[cfg(test)]
    fn b() {
        SysRng
    }
    fn c() { OsRng }
}
#[cfg(test)]
mod tests {
    use std::env;
}
";
    let (code, modules) = without_tests(source);
    let found = |word: &str| {
        let lines = code.lines().enumerate();
        lines.filter(|(_, line)| names(line, word)).map(|(index, _)| index + 1).collect::<Vec<_>>()
    };
    assert_eq!(found("SystemTime"), [1]);
    assert_eq!(found("OsRng"), [18]);
    for word in ["std::env", "SysRng", "Instant"] {
        assert!(found(word).is_empty(), "{word}");
    }
    assert_eq!(modules, ["vectors"]);
    assert!(names("let t = Instant::now();", "Instant"));
    assert!(!names("Instantly", "Instant") && !names("my_Instant", "Instant"));
    assert!(names("fs::read_dir(x)", "fs::") && !names("offs::read_dir(x)", "fs::"));
}
