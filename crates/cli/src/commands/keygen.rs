//! `convelo keygen`: a party's key.

use std::path::PathBuf;
use std::process::ExitCode;

use convelo_channel::Identity;

use crate::args::Keygen;
use crate::exit::Failure;
use crate::{files, output};

pub(crate) fn keygen(args: &Keygen) -> Result<ExitCode, Failure> {
    let path = match &args.output {
        Some(path) => path.clone(),
        None => PathBuf::from(format!("{}.key", args.name)),
    };
    let identity = Identity::generate();
    files::create(&path, identity.to_pem().as_bytes(), 0o600)?;
    output::say(format_args!(
        "wrote {}: keep it to yourself. Every party puts these lines into its job file:",
        path.display()
    ));
    output::data(format_args!(
        "[[party]]\nname = \"{}\"\nkey = \"{}\"",
        args.name,
        files::key_id(&identity)
    ));
    Ok(ExitCode::SUCCESS)
}
