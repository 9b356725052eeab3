//! The first pass over a table: from rows to the sorted set of fingerprints.

use convelo_psi::{
    Encoded, FINGERPRINT_BYTES, FingerprintSet, Fingerprinter, Job, Normaliser, SetBuilder,
};

use crate::error::Error;
use crate::event::Counts;
use crate::table::{self, Table};

/// What a first pass found; `scanned` is for the second pass over the same table.
pub(crate) struct FirstPass {
    pub(crate) set: FingerprintSet,
    pub(crate) counts: Counts,
    pub(crate) scanned: table::Counts,
}

/// Reads the keys of a table. `go_on` is asked for every row and ends the pass by an error.
pub(crate) fn first_pass(
    table: &mut Table,
    mut normaliser: Normaliser,
    fingerprinter: &Fingerprinter,
    progress: impl FnMut(u64),
    go_on: impl Fn() -> Result<(), Error>,
) -> Result<FirstPass, Error> {
    let mut builder = SetBuilder::new();
    let mut counts = Counts::default();
    let scanned = table.scan(progress, |fields| {
        go_on()?;
        match normaliser.encode(fields) {
            Encoded::Key(key) => builder.push(fingerprinter.fingerprint(key)),
            Encoded::Blank => counts.blank += 1,
            Encoded::Invalid => counts.invalid += 1,
        }
        Ok::<_, Error>(())
    })?;
    let set = builder.finish();
    counts.rows = scanned.rows;
    counts.keys = set.len() as u64;
    counts.duplicates = counts.rows - counts.blank - counts.invalid - counts.keys;
    Ok(FirstPass { set, counts, scanned })
}

/// Counts what a run of this job would find in a table. Nothing is kept and nobody is contacted.
///
/// # Errors
/// What is wrong with the table.
pub fn count_keys(table: &mut Table, job: &Job) -> Result<Counts, Error> {
    // The fingerprints never leave this function, so their key need not be secret.
    let fingerprinter = Fingerprinter::new(&[0; FINGERPRINT_BYTES]);
    let pass = first_pass(table, Normaliser::new(&job.keys), &fingerprinter, |_| {}, || Ok(()))?;
    Ok(pass.counts)
}
