//! Small files that a command reads or writes: jobs, keys, policies, collateral.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use convelo_attest::{Collateral, Policy, certificate_to_pem};
use convelo_channel::Identity;
use convelo_party::limits::MAXIMUM_FILE_BYTES;
use convelo_psi::{Job, KeyId, is_name};
use convelo_untrusted::Untrusted;
use zeroize::Zeroizing;

use crate::args::Others;
use crate::contents::{Contents, Kind};
use crate::exit::Failure;

/// The name of a collateral file next to a job file or a policy.
const COLLATERAL: &str = "collateral.json";
const SEEN_LISTS: &str = "seen-lists.json";

/// Reads a text file of bounded size.
pub(crate) fn text(path: &Path, what: &str) -> Result<String, Failure> {
    String::from_utf8(bytes(path, what)?)
        .map_err(|error| Failure::usage(format!("{what} {}: {error}", path.display())))
}

/// Reads a file of bounded size.
pub(crate) fn bytes(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    Ok(read(path, what)?.0)
}

/// Reads a file with a private key and makes something of it.
///
/// # Errors
/// If `parse` fails, or if anybody but whoever runs this program can read it: then the key is not this
/// party's alone.
pub(crate) fn secret<T>(
    path: &Path,
    what: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (bytes, file) = read(path, what)?;
    let parsed = parse(&Zeroizing::new(bytes))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let metadata = file.metadata().map_err(Failure::usage)?;
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            return Err(Failure::usage(format!(
                "{what} {path}: it belongs to user {owner}, who can read it, and this program runs as user \
                 {user}: run 'chown {user} {path}'; if somebody else may have read it, make a new key",
                path = path.display()
            )));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Failure::usage(format!(
                "{what} {path}: others than its owner can use this file (mode {mode:04o}), expected \
                 0600: run 'chmod 600 {path}'; if somebody may have read it, make a new key",
                path = path.display()
            )));
        }
    }
    Ok(parsed)
}

/// A file of bounded size, and its content.
fn read(path: &Path, what: &str) -> Result<(Vec<u8>, fs::File), Failure> {
    let failed = |error: String| Failure::usage(format!("{what} {}: {error}", path.display()));
    let file = fs::File::open(path).map_err(|error| failed(unreadable(&error)))?;
    let mut bytes = Vec::new();
    let mut reader = (&file).take(MAXIMUM_FILE_BYTES + 1);
    reader.read_to_end(&mut bytes).map_err(|error| failed(unreadable(&error)))?;
    if bytes.len() as u64 > MAXIMUM_FILE_BYTES {
        let limit = MAXIMUM_FILE_BYTES >> 20;
        return Err(failed(format!("larger than {limit} MiB; is this the right file?")));
    }
    Ok((bytes, file))
}

/// Why a file cannot be read, and what to do.
fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file; check the path".to_owned(),
        ErrorKind::IsADirectory => "this is a directory; give a file".to_owned(),
        ErrorKind::PermissionDenied => "this user may not read it; check its owner and its \
                                        permissions"
            .to_owned(),
        _ => error.to_string(),
    }
}

/// The addresses of other parties, NAME=HOST:PORT each.
pub(crate) fn peers(given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let peers = given.iter().map(|peer| match peer.split_once('=') {
        Some((name, address)) => Ok((name.to_owned(), address.to_owned())),
        None => Err(Failure::usage(format!(
            "--peer takes NAME=HOST:PORT, as in bob=bob.example.org:7444, and '{peer}' has no '='"
        ))),
    });
    peers.collect()
}

/// Reads and validates a job file.
pub(crate) fn job(path: &Path) -> Result<Job, Failure> {
    Job::from_toml(&text(path, "the job file")?)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// Reads a policy: TOML, or dynamic_config.json if it starts like JSON.
pub(crate) fn policy(path: &Path, simulated_root: Option<&Path>) -> Result<Policy, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("the policy {}: {error}", path.display()))
    };
    let bytes = bytes(path, "the policy")?;
    let contents = Contents::of(&bytes);
    let dynamic = match contents.kind {
        Kind::Policy | Kind::Text => false,
        Kind::DynamicConfig | Kind::OtherJson => true,
        _ => return Err(contents.mistaken(path, "the policy", "a policy (TOML)")),
    };
    let text = String::from_utf8_lossy(&contents.bytes);
    let policy =
        if dynamic { Policy::from_dynamic_config(&text) } else { Policy::from_toml(&text) }
            .map_err(|error| failed(&error))?;
    match simulated_root {
        Some(root) => {
            const WHAT: &str = "the simulated root";
            let bytes = self::bytes(root, WHAT)?;
            let contents = Contents::of(&bytes);
            if contents.kind != Kind::Certificate {
                return Err(contents.mistaken(root, WHAT, "one certificate"));
            }
            let pem = certificate_to_pem(&contents.bytes);
            policy.with_insecure_simulated_root(&pem).map_err(|error| failed(&error))
        }
        None => Ok(policy),
    }
}

/// Reads a party's own policy for the other providers.
pub(crate) fn provider_policy(
    others: &Others,
    simulated_root: Option<&Path>,
) -> Result<Option<Policy>, Failure> {
    others.provider_policy.as_deref().map(|path| policy(path, simulated_root)).transpose()
}

/// Reads the collateral that a party offers for its own platform.
pub(crate) fn offered(others: &Others) -> Result<Option<Collateral>, Failure> {
    others.offer_collateral.as_deref().map(|path| collateral(Some(path), path)).transpose()
}

/// Reads collateral from the file the flag names, or from next to another file.
pub(crate) fn collateral(flag: Option<&Path>, beside: &Path) -> Result<Collateral, Failure> {
    collateral_if_any(flag, beside)?.ok_or_else(|| {
        Failure::usage(format!(
            "no collateral: verifying evidence takes signed facts about the platform (TCB info, QE \
             identity, revocation lists); give them with --collateral FILE, or put them at {}",
            sibling(beside, COLLATERAL).display()
        ))
    })
}

/// Like [`collateral`]; returns nothing if no file is named and none is there.
pub(crate) fn collateral_if_any(
    flag: Option<&Path>,
    beside: &Path,
) -> Result<Option<Collateral>, Failure> {
    let path = collateral_path(flag, beside);
    if flag.is_none() && !path.exists() {
        return Ok(None);
    }
    Ok(Some(bundle(&path)?.0))
}

/// Reads the collateral in a file, and says which of its fields were ignored.
pub(crate) fn bundle(path: &Path) -> Result<(Collateral, Vec<Untrusted>), Failure> {
    const WHAT: &str = "the collateral";
    let bytes = bytes(path, WHAT)?;
    let contents = Contents::of(&bytes);
    if !matches!(contents.kind, Kind::Collateral | Kind::OtherJson) {
        let expected = "a collateral bundle (JSON), as 'convelo collateral export' writes it";
        return Err(contents.mistaken(path, WHAT, expected));
    }
    let text = String::from_utf8_lossy(&contents.bytes);
    Collateral::from_json(&text)
        .map(|bundle| (bundle, Collateral::ignored_fields(&text)))
        .map_err(|error| Failure::usage(format!("{WHAT} {}: {error}", path.display())))
}

/// The file that remembers revocation lists: the one that the flag names, or next to another file.
pub(crate) fn seen_lists(flag: Option<PathBuf>, beside: &Path) -> PathBuf {
    flag.unwrap_or_else(|| sibling(beside, SEEN_LISTS))
}

/// A party's key file: the one that the flag names, or `NAME.key` next to another file.
pub(crate) fn identity_path(flag: Option<&Path>, beside: &Path, name: &str) -> PathBuf {
    flag.map_or_else(|| sibling(beside, &format!("{name}.key")), Path::to_owned)
}

/// The collateral's file: the one that the flag names, or next to another file.
pub(crate) fn collateral_path(flag: Option<&Path>, beside: &Path) -> PathBuf {
    flag.map_or_else(|| sibling(beside, COLLATERAL), Path::to_owned)
}

/// Reads a party's key from the file the flag names, or from `NAME.key` next to another file.
pub(crate) fn identity(
    flag: Option<&Path>,
    beside: &Path,
    name: &str,
) -> Result<Identity, Failure> {
    let path = identity_path(flag, beside, name);
    if flag.is_none() && !path.exists() {
        return Err(Failure::usage(format!(
            "no key: give this party's key file with --identity FILE, or put it at {}; \
             'convelo keygen {name}' makes one",
            path.display()
        )));
    }
    read_identity(&path)
}

/// Reads a key file, which nobody but its owner may be able to read.
pub(crate) fn read_identity(path: &Path) -> Result<Identity, Failure> {
    secret(path, "the key", |pem| {
        let pem = std::str::from_utf8(pem).unwrap_or_default();
        Identity::from_pem(pem).map_err(|error| {
            Failure::usage(format!("{}: {error}; make one with 'convelo keygen'", path.display()))
        })
    })
}

/// Refuses a name that no job accepts.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Failure> {
    if is_name(name) {
        return Ok(());
    }
    let name = Untrusted::new(name);
    let text = format!("{what} is {name}, expected 1 to 64 of A-Z a-z 0-9 . _ -");
    Err(Failure::usage(text))
}

/// The fingerprint that others pin.
pub(crate) fn key_id(identity: &Identity) -> KeyId {
    KeyId::of_spki(identity.spki())
}

/// Refuses the name that stands for standard output, where only a file will do.
pub(crate) fn check_file(path: &Path) -> Result<(), Failure> {
    if path != Path::new("-") {
        return Ok(());
    }
    let text = "this is not written to standard output; give a file, or './-' for one of that name";
    Err(Failure::usage(text))
}

/// Writes a new file; leaves an existing one alone.
pub(crate) fn create(path: &Path, contents: &[u8], mode: u32) -> Result<(), Failure> {
    check_file(path)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(mode);
    }
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path).and_then(|mut file| file.write_all(contents)).map_err(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            let text = format!("{} already exists; it was not overwritten", path.display());
            return Failure::usage(text);
        }
        Failure::usage(format!("cannot write {}: {error}", path.display()))
    })
}

/// Refuses a file that would replace another one, unless that is wanted.
pub(crate) fn check_new(flag: &str, path: Option<&Path>, force: bool) -> Result<(), Failure> {
    match path.filter(|path| !force && path.is_file()) {
        None => Ok(()),
        Some(path) => Err(Failure::usage(format!(
            "{} already exists; replace it with --force, or give another {flag}",
            path.display()
        ))),
    }
}

/// A file in the same directory as another one.
pub(crate) fn sibling(path: &Path, name: &str) -> PathBuf {
    path.parent().unwrap_or_else(|| Path::new("")).join(name)
}

/// A path with something appended to its name.
pub(crate) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
