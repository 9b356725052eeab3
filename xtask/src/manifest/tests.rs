use std::collections::BTreeSet;

use proptest::prelude::*;
use toml::{Table, Value};

use super::rules::PROGRAM;
use super::*;
use crate::python::repository;

fn directory(name: &str) -> PathBuf {
    repository().join("deploy/gramine").join(name)
}

fn template() -> String {
    fs::read_to_string(directory("convelo-service.manifest.template")).unwrap()
}

fn rendered() -> Table {
    fs::read_to_string(directory("accepted/rendered.manifest")).unwrap().parse().unwrap()
}

/// What the lint says of a manifest. All of these can be read: that is not what is wrong with them.
fn problems(manifest: &Value) -> Vec<String> {
    let text = toml::to_string(manifest).unwrap();
    assert_eq!(text.parse::<Table>().map(Value::Table).as_ref(), Ok(manifest));
    file::check_rendered(&text).err().unwrap_or_default()
}

#[test]
fn the_template_and_what_is_made_of_it_hold() {
    assert_eq!(file::check_template(&template()), Ok(()));
    let path = directory("accepted/rendered.manifest");
    let said = lint(&path, None).unwrap();
    assert!(said.starts_with("memory 3G, workers 4, max_threads 26, an enclave of 4G; "), "{said}");
}

/// What we write and what Gramine made of it say the same, but for what `gramine-manifest` adds.
#[test]
fn the_rendered_example_is_that_of_the_template() {
    let sizes = Sizes::new("3G", "4").unwrap();
    let mut ours: Table = file::render(&template(), &sizes, "1", "1").parse().unwrap();
    let mut theirs = rendered();
    for (key, added) in [
        ("loader", &["entrypoint"][..]),
        ("sgx", &["enable_stats", "use_exinfo", "trusted_files", "cpu_features"]),
    ] {
        for name in added {
            theirs[key].as_table_mut().unwrap().remove(*name);
            ours[key].as_table_mut().unwrap().remove(*name);
        }
    }
    assert_eq!(ours, theirs);
}

/// Each file begins with the words that the lint must say, and is wrong in this one way.
#[test]
fn every_refused_sample_is_refused_for_its_reason() {
    let mut samples = 0;
    for entry in fs::read_dir(directory("refused")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let words = first.strip_prefix("# refused: ").expect("the words come first");
        let said = lint(&path, None).expect_err(&name);
        assert_eq!(said.len(), 1, "{name}: {said:?}");
        assert!(said[0].contains(words), "{name}: {said:?}");
        samples += 1;
    }
    assert!(samples >= 90, "{samples}");
}

/// What is written into a problem from a manifest reaches a terminal.
#[test]
fn a_manifest_that_paints() {
    let text = fs::read_to_string(directory("accepted/rendered.manifest")).unwrap();
    for paint in ["\\u001b[2K", "\\u202e", "\\r", "\\n", "\\u0085", "\u{5d0}"] {
        let painted = format!("{text}\n[\"paint{paint}\"]\nkey = 1\n");
        let problems = file::check_rendered(&painted).err().unwrap();
        let said: String = problems.iter().map(|problem| shown(problem)).collect();
        assert!(said.contains("paint") && said.is_ascii(), "{said}");
        assert!(said.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{said:?}");
    }
}

#[test]
fn a_byte_order_mark() {
    let marked = format!("\u{feff}{}", template());
    assert!(file::check_template(&marked).unwrap_err()[0].contains("byte order mark"));
    let marked = fs::read_to_string(directory("accepted/rendered.manifest")).unwrap();
    let problems = file::check_rendered(&format!("\u{feff}{marked}")).err().unwrap();
    assert!(problems[0].contains("byte order mark"), "{problems:?}");
}

/// Each version of a template follows from its own argument.
#[test]
fn versions_that_follow_from_something_else() {
    let text = template();
    for (key, name) in [("isvprodid", "prodid"), ("isvsvn", "svn")] {
        let right = format!("sgx.{key} = {{{{ {name} }}}}");
        assert!(text.contains(&right), "{right}");
        for wrong in ["{{ workers }}", "{{ prodid }}", "{{ svn }}", "{{ threads }}", "7", "0"] {
            let changed = text.replace(&right, &format!("sgx.{key} = {wrong}"));
            if changed == text {
                continue;
            }
            let problems = file::check_template(&changed).expect_err(wrong);
            assert!(problems[0].contains(&format!("sgx.{key}")), "{wrong}: {problems:?}");
        }
    }
}

/// A sample of which the first line is all that is wrong would be refused for nothing.
#[test]
fn every_refused_sample_differs_from_what_holds() {
    let mut seen = BTreeSet::from([template(), toml::to_string(&rendered()).unwrap()]);
    for entry in fs::read_dir(directory("refused")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        let table = rest.parse::<Table>().ok().and_then(|table| toml::to_string(&table).ok());
        assert!(seen.insert(table.unwrap_or_else(|| rest.to_owned())), "{}", path.display());
    }
}

/// The table for people is what the formula says.
#[test]
fn the_table_of_sizes() {
    let text = fs::read_to_string(directory("README.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split(" | ").collect()).collect();
    let sizes: Vec<_> = rows.iter().filter(|row| row.len() == 4 && row[0] != "--memory`").collect();
    assert!(sizes.len() >= 6, "{rows:?}");
    for row in sizes {
        let sizes = Sizes::new(row[0].trim_matches('`'), row[1]).unwrap();
        assert_eq!((row[2], row[3]), (&*sizes.threads().to_string(), &*sizes.enclave()), "{row:?}");
    }
}

#[test]
fn a_template_says_nothing_twice() {
    let fixed = template().replace("{{ memory }}", "3G").replace("{{ workers }}", "4");
    let fixed = fixed.replace("{{ enclave }}", "4G").replace("{{ threads }}", "26");
    let said = file::check_template(&fixed).unwrap_err();
    assert!(said[0].contains("its arguments are not these"), "{said:?}");
}

#[test]
fn the_program_below_the_root_is_the_trusted_one() {
    let root = tempfile::tempdir().unwrap();
    let program = root.path().join(PROGRAM.trim_start_matches('/'));
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::write(&program, b"abc").unwrap();
    // FIPS 180-2, appendix B.1.
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let mut table = rendered();
    table["sgx"]["trusted_files"][0]["sha256"] = hash.into();
    let path = root.path().join("service.manifest");
    fs::write(&path, toml::to_string(&table).unwrap()).unwrap();
    let said = lint(&path, Some(root.path())).unwrap();
    assert!(said.contains(hash), "{said}");
    fs::write(&program, b"abd").unwrap();
    let said = lint(&path, Some(root.path())).unwrap_err();
    assert!(said[0].contains("the manifest trusts ba7816bf"), "{said:?}");
    fs::remove_file(&program).unwrap();
    let said = lint(&path, Some(root.path())).unwrap_err();
    assert!(said[0].contains("cannot be read"), "{said:?}");
}

#[test]
fn the_command_line() {
    let sizes = |memory, workers| Ok(Manifest::Sizes(Sizes::new(memory, workers).unwrap()));
    assert_eq!(parse(&["sizes"]), sizes("1G", "4"));
    assert_eq!(parse(&["sizes", "--memory", "100m"]), sizes("100m", "4"));
    assert_eq!(parse(&["sizes", "--memory", "340M", "--workers", "64"]), sizes("340M", "64"));
    assert_eq!(parse(&["sizes", "--workers", "8", "--memory", "3G"]), sizes("3G", "8"));
    let lint = |root: Option<&str>, files: &[&str]| {
        let files = files.iter().map(PathBuf::from).collect();
        Ok(Manifest::Lint { root: root.map(PathBuf::from), files })
    };
    assert_eq!(parse(&["lint", "a", "b"]), lint(None, &["a", "b"]));
    assert_eq!(parse(&["lint", "--root", "/r", "a"]), lint(Some("/r"), &["a"]));
    for wrong in [
        &[][..],
        &["lint"],
        &["lint", "--root"],
        &["lint", "--root", "/r"],
        &["lint", "--all", "a"],
        &["sizes", "--memory"],
        &["sizes", "--memory", "much"],
        &["sizes", "--memory", "99M"],
        &["sizes", "--memory", "339M", "--workers", "64"],
        &["sizes", "--memory=3G"],
        &["sizes", "--threads", "4"],
        &["render"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
}

/// Names that Gramine knows, and others.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "allowed_files",
            "argv",
            "argv_src_file",
            "brk",
            "check_invalid_pointers",
            "cpu_features",
            "debug",
            "debug__mock_syscalls",
            "edmm_enable",
            "enable_stats",
            "enclave_size",
            "entrypoint",
            "env",
            "fds",
            "file_check_policy",
            "fs",
            "gid",
            "insecure__allow_eventfd",
            "insecure__disable_aslr",
            "insecure__keys",
            "insecure__rpc_thread_num",
            "insecure__use_cmdline_argv",
            "insecure__use_host_env",
            "ioctl_structs",
            "libos",
            "limit",
            "loader",
            "log_file",
            "log_level",
            "max_size",
            "max_threads",
            "mounts",
            "passthrough",
            "preheat_enclave",
            "profile",
            "remote_attestation",
            "root",
            "seal_key",
            "sgx",
            "sha256",
            "sigfile",
            "stack",
            "start_dir",
            "sys",
            "trusted_files",
            "type",
            "uid",
            "uri",
            "value",
            "vtune_profile",
        ])
        .prop_map(str::to_owned),
        "[a-z][a-z_0-9.]{0,12}",
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-2_i64..1300).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        proptest::sample::select(vec![
            "",
            "error",
            "dcap",
            "tmpfs",
            "none",
            "4G",
            "64M",
            "1M",
            "unspecified",
            "disabled",
            "required",
            "all",
            "file:/",
            "file:/opt/convelo/convelo-service",
        ])
        .prop_map(Value::from),
        "[ -~]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{1,8}", inner, 0..3)
                .prop_map(|map| Value::Table(map.into_iter().collect())),
        ]
    })
}

/// The paths of everything that the manifest says, down into its lists.
fn paths(value: &Value, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Table(table) => table.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (name, value) in inner {
        let path = [prefix, &[name]].concat();
        found.push(path.clone());
        paths(value, &path, found);
    }
}

fn at<'v>(value: &'v mut Value, path: &[String]) -> &'v mut Value {
    path.iter().fold(value, |value, name| match value {
        Value::Table(table) => &mut table[name],
        Value::Array(items) => &mut items[name.parse::<usize>().unwrap()],
        _ => panic!("{name} is in nothing"),
    })
}

/// What differs between builds and must be right only in its form: two hashes, where Gramine is, and the
/// versions of the product.
fn is_free(path: &str, value: &Value) -> bool {
    match path {
        "loader.entrypoint.sha256" | "sgx.trusted_files.0.sha256" | "loader.entrypoint.uri" => {
            value.is_str()
        }
        "sgx.isvprodid" | "sgx.isvsvn" => value.is_integer(),
        _ => false,
    }
}

/// `gramine-manifest` of some versions does not write these.
const OPTIONAL: [&str; 6] = [
    "sgx.enable_stats",
    "sgx.use_exinfo",
    "sgx.cpu_features.amx",
    "sgx.cpu_features.avx512",
    "sgx.cpu_features.mpx",
    "sgx.cpu_features.pkru",
];

fn all_paths() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    paths(&Value::Table(rendered()), &[], &mut found);
    found
}

#[test]
fn whatever_is_left_out_is_missed() {
    for path in all_paths() {
        let mut manifest = Value::Table(rendered());
        let (name, parents) = path.split_last().unwrap();
        match at(&mut manifest, parents) {
            Value::Table(table) => drop(table.remove(name)),
            Value::Array(items) => drop(items.remove(name.parse().unwrap())),
            _ => unreachable!(),
        }
        let said = problems(&manifest);
        assert_eq!(
            said.is_empty(),
            OPTIONAL.contains(&path.join(".").as_str()),
            "{path:?}: {said:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any key more, in any table, is refused, and named.
    #[test]
    fn a_key_more_is_refused(
        table in proptest::sample::select(vec![
            "", "libos", "loader", "loader.entrypoint", "fs", "fs.root", "sys", "sys.fds", "sys.brk",
            "sys.stack", "sgx", "sgx.cpu_features", "fs.mounts.0", "sgx.trusted_files.0",
        ]),
        name in names(),
        value in values(),
    ) {
        let mut manifest = Value::Table(rendered());
        let path: Vec<String> = table.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let inner = at(&mut manifest, &path).as_table_mut().unwrap();
        prop_assume!(!inner.contains_key(&name));
        inner.insert(name.clone(), value);
        let said = problems(&manifest);
        prop_assert!(!said.is_empty());
        prop_assert!(said.iter().any(|problem| problem.contains(&name)), "{said:?}");
    }

    /// Any one value that is changed is refused, unless only its form is fixed.
    #[test]
    fn a_value_changed_is_refused(
        path in proptest::sample::select(all_paths()),
        value in values(),
    ) {
        let mut manifest = Value::Table(rendered());
        let place = at(&mut manifest, &path);
        prop_assume!(*place != value && !is_free(&path.join("."), &value));
        *place = value;
        prop_assert!(!problems(&manifest).is_empty(), "{path:?}");
    }

    /// One more item in a list is refused.
    #[test]
    fn an_item_more_is_refused(
        path in proptest::sample::select(vec!["loader.argv", "fs.mounts", "sgx.trusted_files"]),
        value in values(),
        first in any::<bool>(),
    ) {
        let mut manifest = Value::Table(rendered());
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let items = at(&mut manifest, &path).as_array_mut().unwrap();
        items.insert(if first { 0 } else { items.len() }, value);
        prop_assert!(!problems(&manifest).is_empty());
    }
}
