//! The second pass over a table: writes the rows whose keys are in the intersection.

use std::sync::Arc;

use convelo_psi::{Bitmap, PseudonymSet, RankedCanaries};

use crate::error::{Error, Kind};
use crate::event::Counts;
use crate::survey::Survey;
use crate::table::{self, Output, Table};

/// A table after its first pass, and the set of its keys.
pub(crate) struct Scanned {
    pub(crate) table: Table,
    pub(crate) rows: table::Counts,
    pub(crate) set: Arc<PseudonymSet>,
    pub(crate) canaries: RankedCanaries,
    pub(crate) counts: Counts,
    pub(crate) survey: Survey,
}

/// A table and which of its rows are to be written.
pub(crate) struct MatchedRows {
    table: Table,
    scanned: table::Counts,
    rows: Bitmap,
}

impl MatchedRows {
    /// The rows of the marked keys, or only the first row of each.
    pub(crate) fn of(scanned: Scanned, marks: &Bitmap, only_first: bool) -> Result<Self, Error> {
        let Scanned { table, rows: scanned, set, .. } = scanned;
        let rows = u32::try_from(scanned.numbered()).expect("rows are counted in 32 bits");
        let rows = set.rows(marks, rows, only_first).map_err(Error::spill)?;
        Ok(Self { table, scanned, rows })
    }

    /// The rows that an earlier run has kept, of the same table.
    pub(crate) fn kept(mut table: Table, rows: Bitmap) -> Result<Self, Error> {
        let scanned = table.scan(|_| {}, |_| Ok::<_, Error>(()))?;
        if scanned.numbered() != rows.len() as u64 {
            let text = format!(
                "the table is read as {} rows now, and had {} when the answer was kept; give the same \
                 options for how it is read",
                scanned.numbered(),
                rows.len()
            );
            return Err(Error::new(Kind::Usage, text));
        }
        Ok(Self { table, scanned, rows })
    }

    /// The table.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Which of its rows.
    pub(crate) fn rows(&self) -> &Bitmap {
        &self.rows
    }

    /// How many rows there are.
    pub(crate) fn count(&self) -> u64 {
        self.rows.count_ones()
    }

    /// The size of the table.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.table.size_bytes()
    }

    /// Writes them. `go_on` is called for every row of the table and can end the pass with an error.
    /// With an error, they come back.
    pub(crate) fn write(
        mut self,
        output: Output<'_>,
        progress: impl FnMut(u64),
        go_on: impl Fn() -> Result<(), Error>,
    ) -> Result<(), Box<(Error, Self)>> {
        let rows = &self.rows;
        let written = self.table.write_matched(&self.scanned, output, progress, |row| {
            go_on()?;
            Ok::<_, Error>(usize::try_from(row).is_ok_and(|row| rows.is_set(row)))
        });
        match written {
            Ok(_) => Ok(()),
            Err(error) => Err(Box::new((error, self))),
        }
    }
}
