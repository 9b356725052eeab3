//! What the result must be, computed by other means: Python's csv and unicodedata, and the
//! coreutils' sort and comm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::process::{PATIENCE, Process};

/// One party's table and what the program made of it.
pub struct Checked {
    /// The table.
    pub input: PathBuf,
    /// The matched rows.
    pub output: PathBuf,
    /// The delimiter of both.
    pub delimiter: char,
    /// The key's column, by its name in the header.
    pub column: &'static str,
}

/// What the computation found.
#[derive(Debug, Deserialize)]
pub struct Findings {
    /// Keys that every party has.
    pub common: u64,
    /// What each party's table holds and how much of it matches.
    pub parties: Vec<PartyFindings>,
}

/// See [`Findings`].
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct PartyFindings {
    /// Rows, not counting the header.
    pub rows: u64,
    /// Rows whose key is blank.
    pub blank: u64,
    /// Rows whose key is not an e-mail address.
    pub invalid: u64,
    /// Distinct keys.
    pub keys: u64,
    /// Rows whose key every party has.
    pub matched: u64,
}

/// Computes the intersection of e-mail addresses from the tables and demands that each output is
/// exactly the matching rows: all columns, in input order, under the header.
///
/// # Panics
/// If an output is anything else, or Python cannot be run.
pub fn check(parties: &[Checked], scratch: &Path) -> Findings {
    let script = scratch.join("oracle.py");
    fs::write(&script, include_str!("oracle.py")).expect("a script can be written");
    let mut command = Command::new("python3");
    command.arg(&script).arg(scratch);
    for party in parties {
        command.arg(&party.input).arg(&party.output);
        command.arg(party.delimiter.to_string()).arg(party.column);
    }
    let patience = PATIENCE * (1 + parties.len() as u32);
    let ended = Process::spawn("the oracle", &mut command).wait_within(patience).expect(0);
    serde_json::from_str(&ended.stdout).expect("findings")
}
