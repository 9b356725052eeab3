//! The second pass over a table: writes the rows whose keys are in the intersection.

use std::sync::Arc;

use convelo_psi::{Bitmap, PseudonymSet, RankedCanaries};

use crate::error::Error;
use crate::event::Counts;
use crate::table::{self, Output, Table};

/// A table after its first pass, and the set of its keys.
pub(crate) struct Scanned {
    pub(crate) table: Table,
    pub(crate) rows: table::Counts,
    pub(crate) set: Arc<PseudonymSet>,
    pub(crate) canaries: RankedCanaries,
    pub(crate) counts: Counts,
}

/// Writes the rows of the marked keys, or only the first row of each; returns how many. `go_on` is
/// called for every row and can end the pass with an error.
pub(crate) fn second_pass(
    scanned: Scanned,
    marks: Bitmap,
    only_first: bool,
    output: Output<'_>,
    progress: impl FnMut(u64),
    go_on: impl Fn() -> Result<(), Error>,
) -> Result<u64, Error> {
    let Scanned { mut table, rows: scanned, set, .. } = scanned;
    let rows = u32::try_from(scanned.rows).expect("rows are counted in 32 bits");
    let matched = set.rows(&marks, rows, only_first).map_err(Error::spill)?;
    drop((set, marks));
    let written = table.write_matched(&scanned, output, progress, |row| {
        go_on()?;
        Ok::<_, Error>(usize::try_from(row).is_ok_and(|row| matched.is_set(row)))
    })?;
    Ok(written.rows)
}
