//! What a manifest of the measured program may say: a list of keys, each with its allowed values. Whatever
//! is not on it is refused.

use toml::{Table, Value};

use super::sizes::{Sizes, bytes};

/// Where the program is inside the enclave, and at the same place on the host: the path is measured.
pub(crate) const PROGRAM: &str = "/opt/convelo/convelo-service";

const PROGRAM_URI: &str = "file:/opt/convelo/convelo-service";

/// Which of both a manifest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// What we write, with the placeholders filled in.
    Template,
    /// What `gramine-manifest` makes of it, and `gramine-sgx-sign` signs.
    Rendered,
}

/// When a key is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// Always.
    Always,
    /// `gramine-manifest` writes it; not in a template, always in what is rendered.
    WhenRendered,
    /// `gramine-manifest` of some versions writes it; not in a template.
    PerhapsWhenRendered,
}

/// What its value may be.
#[derive(Clone, Copy)]
enum Allowed {
    Text(&'static str),
    Flag(bool),
    Number(i64),
    /// Any number that a product or a security version can have.
    Version,
    /// SHA-256, in hexadecimal digits.
    Hash,
    /// Gramine's LibOS, where a package of Gramine has installed it.
    LibOs,
    Arguments,
    Mounts,
    TrustedFiles,
    EnclaveSize,
    Threads,
}

struct Rule {
    key: &'static str,
    needed: Needed,
    allowed: Allowed,
}

const fn always(key: &'static str, allowed: Allowed) -> Rule {
    Rule { key, needed: Needed::Always, allowed }
}

const fn rendered(key: &'static str, allowed: Allowed) -> Rule {
    Rule { key, needed: Needed::WhenRendered, allowed }
}

const fn perhaps(key: &'static str, allowed: Allowed) -> Rule {
    Rule { key, needed: Needed::PerhapsWhenRendered, allowed }
}

const RULES: &[Rule] = &[
    always("libos.entrypoint", Allowed::Text(PROGRAM)),
    always("loader.argv", Allowed::Arguments),
    rendered("loader.entrypoint.sha256", Allowed::Hash),
    rendered("loader.entrypoint.uri", Allowed::LibOs),
    always("loader.log_level", Allowed::Text("error")),
    always("fs.mounts", Allowed::Mounts),
    always("fs.root.type", Allowed::Text("tmpfs")),
    always("sys.brk.max_size", Allowed::Text("64M")),
    always("sys.disallow_subprocesses", Allowed::Flag(true)),
    always("sys.enable_sigterm_injection", Allowed::Flag(true)),
    always("sys.fds.limit", Allowed::Number(1200)),
    always("sys.stack.size", Allowed::Text("1M")),
    perhaps("sgx.cpu_features.amx", Allowed::Text("unspecified")),
    always("sgx.cpu_features.avx", Allowed::Text("required")),
    perhaps("sgx.cpu_features.avx512", Allowed::Text("unspecified")),
    perhaps("sgx.cpu_features.mpx", Allowed::Text("disabled")),
    perhaps("sgx.cpu_features.pkru", Allowed::Text("disabled")),
    always("sgx.debug", Allowed::Flag(false)),
    always("sgx.edmm_enable", Allowed::Flag(false)),
    perhaps("sgx.enable_stats", Allowed::Flag(false)),
    always("sgx.enclave_size", Allowed::EnclaveSize),
    always("sgx.isvprodid", Allowed::Version),
    always("sgx.isvsvn", Allowed::Version),
    always("sgx.max_threads", Allowed::Threads),
    always("sgx.remote_attestation", Allowed::Text("dcap")),
    always("sgx.trusted_files", Allowed::TrustedFiles),
    perhaps("sgx.use_exinfo", Allowed::Flag(false)),
];

/// What other keys would do, by how they begin. What is not named here is refused all the same.
const REASONS: &[(&str, &str)] = &[
    ("fs.insecure__keys", "a key in the manifest is everybody's"),
    ("fs.root.uri", "the root would be a directory of the host's"),
    ("fs.start_dir", "the program needs no directory"),
    ("libos.check_invalid_pointers", "a wrong pointer would be followed"),
    ("loader.argv_src_file", "arguments are in the manifest"),
    ("loader.env", "the program needs no variable, and the host must set none"),
    ("loader.insecure__disable_aslr", "addresses could be foretold"),
    ("loader.insecure__use_cmdline_argv", "the host would choose the arguments"),
    ("loader.insecure__use_host_env", "the host would choose the environment"),
    ("loader.log_file", "what happens inside would be written into a file of the host's"),
    ("sgx.allowed_files", "the host could change these files unnoticed"),
    ("sgx.allowed_ioctls", "the program would talk to devices of the host's"),
    ("sgx.enable_stats", "it is for debugging"),
    ("sgx.file_check_policy", "files that are not trusted would be read"),
    ("sgx.insecure__", "Gramine itself calls it insecure"),
    ("sgx.ioctl_structs", "the program would talk to devices of the host's"),
    ("sgx.profile", "it is for debugging"),
    ("sgx.protected_", "the program keeps no files"),
    ("sgx.ra_client", "it belongs to EPID, which has ended"),
    ("sgx.seal_key", "the program seals nothing"),
    ("sgx.vtune_profile", "it is for debugging"),
    ("sys.debug__", "system calls would be made up, random numbers among them"),
    ("sys.enable_extra_runtime_domain_names_conf", "the program resolves no names"),
    ("sys.experimental__", "it is not known what it does"),
    ("sys.insecure__", "Gramine itself calls it insecure"),
    ("sys.allowed_ioctls", "the program would talk to devices of the host's"),
    ("sys.ioctl_structs", "the program would talk to devices of the host's"),
];

/// All that is wrong with a manifest, or the sizes in its arguments.
pub(crate) fn check(table: &Table, stage: Stage) -> Result<Sizes, Vec<String>> {
    let mut leaves = Vec::new();
    flatten("", table, &mut leaves);
    let sizes = match leaves.iter().find(|(key, _)| key == "loader.argv") {
        Some((_, value)) => sizes_of(value).map_err(|problem| format!("loader.argv: {problem}")),
        None => Err(missing("loader.argv")),
    };
    let mut problems: Vec<_> = sizes.as_ref().err().cloned().into_iter().collect();
    for (key, value) in &leaves {
        let rule = RULES.iter().find(|rule| rule.key == key);
        let problem = match rule {
            Some(Rule { allowed: Allowed::Arguments, .. }) => continue,
            Some(rule) if stage == Stage::Template && rule.needed != Needed::Always => {
                Some("gramine-manifest writes it: leave it out of a template".to_owned())
            }
            Some(rule) => rule.allowed.refuses(value, stage, sizes.as_ref().ok()),
            None => Some(unknown(key)),
        };
        problems.extend(problem.map(|problem| format!("{key}: {problem}")));
    }
    for rule in RULES.iter().filter(|rule| !matches!(rule.allowed, Allowed::Arguments)) {
        let needed = match rule.needed {
            Needed::Always => true,
            Needed::WhenRendered => stage == Stage::Rendered,
            Needed::PerhapsWhenRendered => false,
        };
        if needed && !leaves.iter().any(|(key, _)| key == rule.key) {
            problems.push(missing(rule.key));
        }
    }
    match sizes {
        Ok(sizes) if problems.is_empty() => Ok(sizes),
        _ => Err(problems),
    }
}

fn missing(key: &str) -> String {
    format!("{key}: it is missing, and Gramine's default for it is not allowed")
}

fn unknown(key: &str) -> String {
    let prefix = |rule: &&Rule| rule.key.starts_with(&format!("{key}."));
    if let Some(rule) = RULES.iter().find(prefix) {
        return format!("it is a table, with {}", rule.key);
    }
    match REASONS.iter().find(|(start, _)| key.starts_with(start)) {
        Some((_, reason)) => format!("it is not allowed: {reason}"),
        None => "it is not on the list of allowed keys".to_owned(),
    }
}

/// Every value that is no table, with its key in dots. An empty table is a value, too: no table that we
/// know is empty.
fn flatten(prefix: &str, table: &Table, leaves: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        // A name with a dot in it is not two names.
        let name = if name.contains('.') { format!("{name:?}") } else { name.clone() };
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(&key, inner, leaves),
            value => leaves.push((key, value.clone())),
        }
    }
}

/// The sizes in the arguments, which have but this form.
fn sizes_of(value: &Value) -> Result<Sizes, String> {
    let texts = value.as_array().map(|items| items.iter().map(Value::as_str).collect::<Vec<_>>());
    if let Some(
        [
            Some("convelo-service"),
            Some("0.0.0.0:7443"),
            Some("--memory"),
            Some(memory),
            Some("--workers"),
            Some(workers),
            Some("--ready"),
            Some("0.0.0.0:7480"),
        ],
    ) = texts.as_deref()
    {
        return Sizes::new(memory, workers);
    }
    Err(format!(
        "the arguments must be [\"convelo-service\", \"0.0.0.0:7443\", \"--memory\", SIZE, \"--workers\", N, \
         \"--ready\", \"0.0.0.0:7480\"], and not {value}"
    ))
}

impl Allowed {
    /// Why a value is refused, if it is.
    fn refuses(self, value: &Value, stage: Stage, sizes: Option<&Sizes>) -> Option<String> {
        let must = |wanted: &str| Some(format!("it must be {wanted}, and not {value}"));
        match self {
            Self::Text(text) if value.as_str() != Some(text) => must(&format!("\"{text}\"")),
            Self::Flag(flag) if value.as_bool() != Some(flag) => must(&flag.to_string()),
            Self::Number(number) if value.as_integer() != Some(number) => must(&number.to_string()),
            Self::Version if value.as_integer().is_none_or(|n| u16::try_from(n).is_err()) => {
                must("a number from 0 to 65535")
            }
            Self::Hash if !value.as_str().is_some_and(is_hash) => must("64 hexadecimal digits"),
            Self::LibOs if !value.as_str().is_some_and(is_libos) => {
                must("where Gramine's package has installed libsysdb.so")
            }
            Self::Mounts if !is_only_mount(value) => must(&format!(
                "[{{ path = \"{PROGRAM}\", uri = \"{PROGRAM_URI}\" }}] alone: what else is mounted, the \
                 host supplies"
            )),
            Self::TrustedFiles => trusted_files(value, stage),
            Self::EnclaveSize => enclave_size(value, sizes?),
            Self::Threads => {
                let threads = sizes?.threads();
                (value.as_integer() != Some(i64::from(threads))).then(|| {
                    format!(
                        "{} workers take {threads} threads, Gramine's 3 among them, and not {value}",
                        sizes.map_or(0, Sizes::workers)
                    )
                })
            }
            _ => None,
        }
    }
}

fn is_hash(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(digit) && text.bytes().any(|byte| byte != b'0')
}

fn is_libos(text: &str) -> bool {
    let path =
        text.strip_prefix("file:/usr/").and_then(|path| path.strip_suffix("/gramine/libsysdb.so"));
    // Debian's and Fedora's directories: others may be anybody's to write.
    matches!(path, Some("lib" | "lib64" | "lib/x86_64-linux-gnu"))
}

fn is_only_mount(value: &Value) -> bool {
    let Some([mount]) = value.as_array().map(Vec::as_slice) else { return false };
    let field = |name| mount.get(name).and_then(Value::as_str);
    mount.as_table().is_some_and(|mount| mount.len() == 2)
        && field("path") == Some(PROGRAM)
        && field("uri") == Some(PROGRAM_URI)
}

fn trusted_files(value: &Value, stage: Stage) -> Option<String> {
    let Some([file]) = value.as_array().map(Vec::as_slice) else {
        return Some(format!("the program is the one trusted file, and not {value}"));
    };
    match stage {
        Stage::Template if file.as_str() == Some(PROGRAM_URI) => None,
        Stage::Template => {
            Some(format!("the one trusted file must be \"{PROGRAM_URI}\", and not {file}"))
        }
        Stage::Rendered => {
            let field = |name| file.get(name).and_then(Value::as_str);
            if field("uri") != Some(PROGRAM_URI) {
                return Some(format!(
                    "the one trusted file must be {{ uri = \"{PROGRAM_URI}\", sha256 = … }}, and not {file}"
                ));
            }
            let only = file.as_table().is_some_and(|file| file.len() == 2);
            (!only || !field("sha256").is_some_and(is_hash)).then(|| {
                format!("the program's sha256 must be 64 hexadecimal digits, and nothing else there: {file}")
            })
        }
    }
}

fn enclave_size(value: &Value, sizes: &Sizes) -> Option<String> {
    let wanted = sizes.enclave();
    if value.as_str() == Some(&wanted) {
        return None;
    }
    let Some(size) = value.as_str().and_then(|text| bytes(text).ok()) else {
        return Some(format!("it must be \"{wanted}\", and not {value}"));
    };
    let why = if !size.is_power_of_two() {
        "the processor takes powers of two only"
    } else if size < sizes.needed() {
        "memory, Gramine and the threads do not fit"
    } else {
        "the same parameters must give everybody the same measurement"
    };
    Some(format!(
        "memory {} with {} workers takes an enclave of \"{wanted}\", and not {value}: {why}",
        sizes.memory(),
        sizes.workers()
    ))
}
