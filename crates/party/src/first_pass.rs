//! The first pass over a table: from rows to the sorted set of pseudonyms.
//!
//! One thread reads blocks of rows, others make pseudonyms of their keys, and the caller's thread
//! collects these; queues of a few blocks keep all of them busy and limit the memory. A small table
//! has been read, and its pseudonyms made, before threads would have started.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use convelo_keys::{Encoded, Normaliser};
use convelo_psi::{
    Job, KeyPart, PSEUDONYM_BYTES, Pseudonym, PseudonymSet, Pseudonymiser, SetBuilder,
};
use zeroize::Zeroize;

use crate::dropped::DroppedList;
use crate::error::{Error, Hint, Kind};
use crate::event::Counts;
use crate::key_hash::KeyHash;
use crate::limits::{
    BLOCKS_IN_FLIGHT, MAXIMUM_PSEUDONYMING_THREADS, MAXIMUM_ROWS, SMALL_TABLE_BYTES,
};
use crate::spill::Memory;
use crate::survey::{Dropped, PartShapes, Reasons, Sampled, Survey, is_shaped};
use crate::table::{self, Block, Entry, KeyRow, Keys, Misfit, Pass, Shapes, Stop, Table};

/// What a first pass found; `scanned` is needed for the second pass over the same table.
pub(crate) struct FirstPass {
    pub(crate) set: PseudonymSet,
    pub(crate) counts: Counts,
    pub(crate) scanned: table::Counts,
    pub(crate) survey: Survey,
}

/// Reads the keys of a table. `go_on` is asked before each block; its error ends the pass.
pub(crate) fn first_pass(
    table: &Table,
    parts: &[KeyPart],
    hash: &KeyHash,
    memory: &Memory,
    list: Option<DroppedList>,
    progress: impl FnMut(u64) + Send,
    go_on: impl Fn() -> Result<(), Error> + Sync,
) -> Result<FirstPass, Error> {
    let mut collection = Collection { builder: memory.builder(), list, ..Collection::default() };
    let maker = Maker { keys: table.keys(), parts, hash };
    let scanned = if table.size_bytes() <= SMALL_TABLE_BYTES {
        alone(table, &maker, &mut collection, progress, go_on)
    } else {
        together(table, &maker, &mut collection, progress, go_on)
    };
    collection.finish(scanned, table, parts)
}

/// How to make pseudonyms of the keys in a block.
struct Maker<'m> {
    keys: Keys,
    parts: &'m [KeyPart],
    hash: &'m KeyHash,
}

impl Maker<'_> {
    fn normaliser(&self) -> Normaliser {
        Normaliser::new(self.parts)
    }
}

/// Stops the reading of a table once it is known that the pass will fail.
fn cut_short() -> Error {
    Error::new(Kind::Job, "the pass was cut short")
}

fn alone(
    table: &Table,
    maker: &Maker<'_>,
    collection: &mut Collection,
    progress: impl FnMut(u64),
    go_on: impl Fn() -> Result<(), Error>,
) -> Result<Pass, Error> {
    let (mut normaliser, mut spare) = (maker.normaliser(), Batch::default());
    table.read(progress, |block| {
        go_on()?;
        let batch = std::mem::take(&mut spare).of(block, maker, &mut normaliser);
        spare = collection.take(batch, table).map_err(|()| cut_short())?;
        Ok(())
    })
}

fn together(
    table: &Table,
    maker: &Maker<'_>,
    collection: &mut Collection,
    progress: impl FnMut(u64) + Send,
    go_on: impl Fn() -> Result<(), Error> + Sync,
) -> Result<Pass, Error> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (blocks, queue) = sync_channel::<Block>(BLOCKS_IN_FLIGHT);
    let (results, found) = sync_channel(BLOCKS_IN_FLIGHT);
    // The last thread that takes blocks drops the queue, so the reader does not wait for it.
    let queue = Arc::new(Mutex::new(queue));
    let enough = AtomicBool::new(false);
    let (spare_blocks, spare_batches) = (Spares::default(), Spares::default());
    thread::scope(|scope| {
        for _ in 0..threads.min(MAXIMUM_PSEUDONYMING_THREADS) {
            let (queue, results) = (Arc::clone(&queue), results.clone());
            let (blocks, batches) = (&spare_blocks, &spare_batches);
            scope.spawn(move || {
                let mut normaliser = maker.normaliser();
                while let Some(block) = next(&queue) {
                    let batch: Batch = batches.take();
                    let batch = batch.of(&block, maker, &mut normaliser);
                    blocks.give(block);
                    if results.send(batch).is_err() {
                        break;
                    }
                }
            });
        }
        drop((queue, results));
        let reader = scope.spawn(|| {
            let blocks = blocks;
            table.read(progress, |block| {
                go_on()?;
                let block = std::mem::replace(block, spare_blocks.take());
                let taken = !enough.load(Ordering::Relaxed) && blocks.send(block).is_ok();
                taken.then_some(()).ok_or_else(cut_short)
            })
        });
        for batch in found {
            match collection.take(batch, table) {
                Ok(batch) => spare_batches.give(batch),
                Err(()) => enough.store(true, Ordering::Relaxed),
            }
        }
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn next(queue: &Mutex<Receiver<Block>>) -> Option<Block> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Used buffers, for reuse: fresh memory costs more than the work done in it.
struct Spares<T>(Mutex<Vec<T>>);

impl<T: Default> Spares<T> {
    fn take(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give(&self, spare: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(spare);
    }
}

impl<T> Default for Spares<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// The pseudonyms of one block.
#[derive(Default)]
struct Batch {
    pseudonyms: Vec<Pseudonym>,
    rows: Vec<u32>,
    blank: u64,
    invalid: u64,
    repeated_headers: u64,
    dropped: Vec<Dropped>,
    shapes: Vec<Shapes>,
    /// The number of the block's first row, and how many it has.
    block: (u64, u64),
}

/// Why a batch could not be made.
enum Refused {
    Misfit(Misfit),
    Rows,
}

impl Batch {
    /// The batch of a block, in the memory of one used before.
    fn of(
        mut self,
        block: &Block,
        maker: &Maker<'_>,
        normaliser: &mut Normaliser,
    ) -> Result<Self, Refused> {
        let rows = usize::try_from(block.rows()).unwrap_or(0);
        self.make_room(rows, maker.parts.len());
        self.block = (block.first(), block.rows());
        let batch = &mut self;
        let mut queue = maker.hash.queue();
        let visited = maker.keys.visit(block, |place, entry| {
            let Entry::Row(found) = entry else {
                batch.repeated_headers += 1;
                return Ok(());
            };
            if is_shaped(place.row) {
                batch.look_at(found, normaliser);
            }
            match normaliser.encode(found.key()) {
                Encoded::Key(key) => {
                    queue.push(key, &mut batch.pseudonyms);
                    batch.rows.push(number(place.row).ok_or(Stop::Visitor(()))?);
                }
                Encoded::Dropped { part, why } => {
                    let (row, line) = (place.row, place.line);
                    batch.drop_row(Dropped { row, line, part, why });
                }
            }
            Ok(())
        });
        queue.finish(&mut batch.pseudonyms);
        match visited {
            Ok(()) => Ok(self),
            Err(Stop::Misfit(misfit)) => Err(Refused::Misfit(misfit)),
            Err(Stop::Visitor(())) => Err(Refused::Rows),
        }
    }
}

impl Batch {
    // Rare cases are kept out of the loop over all rows.
    #[cold]
    fn look_at(&mut self, row: &KeyRow<'_>, normaliser: &mut Normaliser) {
        let shapes = self.shapes.iter_mut().zip(row.key()).enumerate();
        shapes.for_each(|(part, (shapes, field))| shapes.add(field, part, normaliser));
    }

    #[cold]
    fn drop_row(&mut self, dropped: Dropped) {
        *if dropped.why.is_blank() { &mut self.blank } else { &mut self.invalid } += 1;
        self.dropped.push(dropped);
    }

    /// Empties it and makes sure that this many pseudonyms fit without being moved.
    fn make_room(&mut self, rows: usize, parts: usize) {
        if self.pseudonyms.capacity() < rows {
            self.pseudonyms.zeroize();
            self.pseudonyms = Vec::with_capacity(rows);
        }
        self.pseudonyms.clear();
        self.rows.clear();
        self.dropped.clear();
        self.shapes.clear();
        self.shapes.resize(parts, Shapes::default());
        (self.blank, self.invalid, self.repeated_headers) = (0, 0, 0);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.pseudonyms.zeroize();
    }
}

/// The result of all blocks.
#[derive(Default)]
struct Collection {
    builder: SetBuilder,
    counts: Counts,
    repeated_headers: u64,
    reasons: Reasons,
    list: Option<DroppedList>,
    shapes: Vec<Shapes>,
    sampled: Sampled,
    /// The first row in the table that has this problem.
    misfit: Option<Misfit>,
    failed: Option<Error>,
}

impl Collection {
    /// Takes a batch; an error says that no more are needed.
    fn take(&mut self, batch: Result<Batch, Refused>, table: &Table) -> Result<Batch, ()> {
        let mut spare = Batch::default();
        match batch {
            Ok(batch) => {
                self.counts.blank += batch.blank;
                self.counts.invalid += batch.invalid;
                let pushed = batch.pseudonyms.iter().zip(&batch.rows);
                let mut pushed = pushed.map(|(value, row)| {
                    self.sampled.offer(*value, *row);
                    self.builder.push(*value, *row)
                });
                if let Some(error) = pushed.find_map(Result::err) {
                    self.failed = Some(Error::spill(error));
                }
                self.failed = self.failed.take().or_else(|| self.survey(&batch).err());
                spare = batch;
            }
            Err(Refused::Rows) => self.failed = Some(too_many_rows(table)),
            // Blocks may overtake one another.
            Err(Refused::Misfit(misfit)) => match &self.misfit {
                Some(first) if !misfit.is_before(first) => {}
                _ => self.misfit = Some(misfit),
            },
        }
        if self.failed.is_some() || self.misfit.is_some() { Err(()) } else { Ok(spare) }
    }

    /// Takes what a batch says of its rows besides their keys.
    fn survey(&mut self, batch: &Batch) -> Result<(), Error> {
        self.repeated_headers += batch.repeated_headers;
        self.shapes.resize(batch.shapes.len(), Shapes::default());
        self.shapes.iter_mut().zip(&batch.shapes).for_each(|(all, more)| all.merge(more));
        batch.dropped.iter().for_each(|dropped| self.reasons.count(dropped));
        let (first, rows) = batch.block;
        self.list.as_mut().map_or(Ok(()), |list| list.take(first, rows, &batch.dropped))
    }

    fn finish(
        self,
        scanned: Result<Pass, Error>,
        table: &Table,
        parts: &[KeyPart],
    ) -> Result<FirstPass, Error> {
        // Whatever the reader finds comes after every row that it has handed out.
        if let Some(misfit) = self.misfit {
            return Err(table.refuse(misfit).into());
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (pass, mut counts) = (scanned?, self.counts);
        if pass.rows > MAXIMUM_ROWS {
            return Err(too_many_rows(table));
        }
        let scanned = pass.counts(self.repeated_headers);
        self.list.map_or(Ok(()), DroppedList::complete)?;
        let set = self.builder.finish().map_err(Error::spill)?;
        counts.rows = scanned.rows;
        counts.keys = set.len() as u64;
        counts.duplicates = counts.rows - counts.blank - counts.invalid - counts.keys;
        let shapes = parts.iter().zip(self.shapes);
        let survey = Survey {
            taken_for: table.describe(),
            dropped: self.reasons.by_part(parts, table.format().is_text()),
            commonest: self.sampled.commonest(counts.rows),
            shapes: shapes
                .map(|(part, shapes)| PartShapes { part: part.name.clone(), shapes })
                .collect(),
            repeated_headers: scanned.repeated_headers,
            notes: scanned.notes,
        };
        Ok(FirstPass { set, counts, scanned, survey })
    }
}

/// The number of a row, if it is small enough to store.
fn number(row: u64) -> Option<u32> {
    u32::try_from(row).ok().filter(|row| u64::from(*row) < MAXIMUM_ROWS)
}

fn too_many_rows(table: &Table) -> Error {
    let path = table.path().display();
    Error::new(Kind::Usage, format!("{path} has more than {MAXIMUM_ROWS} rows: split it"))
}

/// Counts what a run of this job would find in a table, and lists the rows without a key in a file if
/// one is named. Nothing else is kept and nobody is contacted.
///
/// # Errors
/// What is wrong with the table, or with the list.
pub fn count_keys(
    table: &Table,
    job: &Job,
    memory: &Memory,
    list: Option<&Path>,
) -> Result<(Counts, Survey), Error> {
    check_key_columns(table, job)?;
    // The pseudonyms never leave this function, so their key need not be secret.
    let hash = KeyHash::Pseudonyms(Pseudonymiser::new(&[0; PSEUDONYM_BYTES]));
    let list = list.map(|path| DroppedList::new(path, job.keys())).transpose()?;
    let pass = first_pass(table, job.keys(), &hash, memory, list, |_| {}, || Ok(()))?;
    Ok((pass.counts, pass.survey))
}

/// A table must have a column for each part of the job's key.
pub(crate) fn check_key_columns(table: &Table, job: &Job) -> Result<(), Error> {
    let found = table.key_columns();
    if found.is_none_or(|found| found == job.keys().len()) {
        return Ok(());
    }
    let names: Vec<&str> = job.keys().iter().map(|part| part.name.as_str()).collect();
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let text = format!(
        "the job's key has {} ({}), and the table's has {}",
        counted(names.len(), "part"),
        names.join(", "),
        counted(found.unwrap_or(0), "column")
    );
    Err(Error::new(Kind::Usage, text).with_hint(Hint::KeyColumns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Hint;
    use crate::table::{Format, Input, TableOptions};

    fn csv(rows: u32, line: impl Fn(u32) -> String) -> String {
        let lines = (0..rows).map(line);
        std::iter::once("id,x".to_owned())
            .chain(lines)
            .flat_map(|line| [line, "\n".into()])
            .collect()
    }

    fn pass(bytes: &[u8], memory: &Memory) -> Result<FirstPass, Error> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("t.csv");
        std::fs::write(&path, bytes).expect("a file");
        let format = Format::csv(b',', true);
        let key = vec!["id".parse().expect("a column")];
        let input = Input::open(&path, directory.path()).expect("a file");
        let options = TableOptions { format, key, select: Vec::new() };
        let table = Table::open(input, &options).expect("a table");
        let parts = [KeyPart::new("id", Vec::new())];
        first_pass(
            &table,
            &parts,
            &KeyHash::Pseudonyms(Pseudonymiser::new(&[7; 16])),
            memory,
            None,
            |_| {},
            || Ok(()),
        )
    }

    #[test]
    fn the_first_row_that_does_not_fit_is_named_whoever_finds_it() {
        // Rows 50,000 and up are ragged, and the file ends in an unclosed quote.
        let end = |row| if row < 50_000 { "" } else { "," };
        let text = csv(200_000, |row| format!("{row},x{}", end(row))) + "\"";
        for _ in 0..10 {
            let error = pass(text.as_bytes(), &Memory::default()).err().expect("it is ragged");
            assert!(error.to_string().contains("line 50002: 3 fields"), "{error}");
        }
    }

    #[test]
    fn spilled_or_not_the_pass_finds_the_same() {
        let text = csv(400_000, |row| format!("{},\"x\n{row}\"", row % 300_000));
        let directory = tempfile::tempdir().expect("a directory");
        let small = Memory { bytes: 1, directory: directory.path().to_owned() };
        let whole = pass(text.as_bytes(), &Memory::default()).expect("a table");
        let spilled = pass(text.as_bytes(), &small).expect("a table");
        assert_eq!(spilled.counts, whole.counts);
        assert_eq!((whole.counts.keys, whole.counts.duplicates), (300_000, 100_000));
        assert_eq!(spilled.set.blake3().unwrap(), whole.set.blake3().unwrap());
        let names = std::fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(names, 0, "the temporary file has no name");
    }

    #[test]
    fn a_place_for_what_does_not_fit_that_is_not_there() {
        let text = csv(400_000, |row| format!("{row},"));
        let nowhere = Memory { bytes: 1, directory: "/nonexistent/place".into() };
        let error = pass(text.as_bytes(), &nowhere).err().expect("no place");
        assert!(error.to_string().contains("/nonexistent/place"), "{error}");
        assert_eq!(error.hint(), Some(Hint::MoreMemory));
    }
}
