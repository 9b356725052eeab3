//! `convelo keygen` and `convelo key`: a party's key, and certificates for pools.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use convelo_channel::{Authority, AuthorityError, Identity, self_signed};

use crate::args::{Key, Keygen};
use crate::exit::Failure;
use crate::{files, output};

/// How many days a certificate for a pool is valid.
const CERTIFICATE_DAYS: u32 = 365;

pub(crate) fn keygen(args: &Keygen) -> Result<ExitCode, Failure> {
    files::check_name("the party's name", &args.name)?;
    if let Some(directory) = &args.authority {
        return issue(&args.name, directory);
    }
    let path = match &args.output {
        Some(path) => path.clone(),
        None => PathBuf::from(format!("{}.key", args.name)),
    };
    let identity = Identity::generate();
    if path.exists() {
        return Err(Failure::usage(format!(
            "{path} already exists and was not overwritten; 'convelo key show {path}' prints its fingerprint",
            path = path.display()
        )));
    }
    files::create(&path, identity.to_pem().as_bytes(), 0o600)?;
    if args.certificate {
        let certificate =
            self_signed(&identity, &args.name, CERTIFICATE_DAYS).map_err(|error| failed(&error))?;
        let path = path.with_extension("crt");
        files::create(&path, certificate.as_bytes(), 0o644)?;
        output::say(format_args!("wrote {}: for your own pool", path.display()));
    }
    output::say(format_args!(
        "wrote {}: keep it secret. Every party puts these lines into its job file:",
        path.display()
    ));
    output::data(format_args!(
        "[[party]]\nname = \"{}\"\nkey = \"{}\"",
        args.name,
        files::key_id(&identity)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Shows what others pin of a key that is there already.
pub(crate) fn key(args: &Key) -> Result<ExitCode, Failure> {
    let Key::Show { file } = args;
    output::data(files::key_id(&files::read_identity(file)?));
    Ok(ExitCode::SUCCESS)
}

/// A key and a certificate for one party of a pool whose parties trust one authority.
fn issue(name: &str, directory: &Path) -> Result<ExitCode, Failure> {
    let (authority_key, authority_certificate) =
        (directory.join("ca.key"), directory.join("ca.crt"));
    let authority = if authority_key.exists() {
        let certificate = files::text(&authority_certificate, "the authority's certificate")?;
        files::secret(&authority_key, "the authority's key", |key| {
            let key = std::str::from_utf8(key).unwrap_or_default();
            Authority::from_pem(key, &certificate).map_err(|error| failed(&error))
        })?
    } else {
        std::fs::create_dir_all(directory).map_err(|error| {
            Failure::usage(format!("cannot make the directory {}: {error}", directory.display()))
        })?;
        let authority = Authority::generate("convelo pool", CERTIFICATE_DAYS)
            .map_err(|error| failed(&error))?;
        files::create(&authority_key, authority.key_pem().as_bytes(), 0o600)?;
        files::create(&authority_certificate, authority.certificate_pem().as_bytes(), 0o644)?;
        output::say(format_args!(
            "wrote {}: every party trusts it",
            authority_certificate.display()
        ));
        authority
    };
    let hosts = ["localhost", "127.0.0.1"];
    let issued = authority.issue(name, &hosts, CERTIFICATE_DAYS).map_err(|error| failed(&error))?;
    let path = directory.join(format!("{name}.key"));
    files::create(&path, issued.key_pem.as_bytes(), 0o600)?;
    let certificate = directory.join(format!("{name}.crt"));
    files::create(&certificate, issued.certificate_pem.as_bytes(), 0o644)?;
    output::say(format_args!(
        "wrote {} (only for {name}) and {} (for every party)",
        path.display(),
        certificate.display()
    ));
    let identity =
        Identity::from_pem(&issued.key_pem).map_err(|error| Failure::usage(error.to_string()))?;
    output::data(format_args!("name = \"{name}\"\nkey = \"{}\"", files::key_id(&identity)));
    Ok(ExitCode::SUCCESS)
}

fn failed(error: &AuthorityError) -> Failure {
    Failure::usage(error.to_string())
}
