//! An answer whose rows could not be written: kept in a file, so that they can be written later
//! without anybody else.
//!
//! The file says which rows of the table are in the intersection. It belongs to one table, of which it
//! has the SHA-256, and is as confidential as the rows.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use convelo_psi::{Bitmap, JobDigest};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};
use crate::event::{Event, Observer};
use crate::limits::MAXIMUM_KEPT_BYTES;
use crate::plan::Plan;
use crate::second_pass::MatchedRows;
use crate::shards;
use crate::table::Table;

const FORMAT: &str = "convelo answer 1";

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: String,
    job_digest: JobDigest,
    party: String,
    /// Of what the table is read from, unpacked.
    table_sha256: String,
    /// How many rows are numbered.
    rows: usize,
    /// A bit for each, in hexadecimal digits.
    matched: String,
}

/// Whose answer it is, and where it is kept if its rows cannot be written.
pub(crate) struct Keeper {
    pub(crate) job_digest: JobDigest,
    pub(crate) party: String,
    pub(crate) path: PathBuf,
    /// Where else, if there is no room at `path` either.
    pub(crate) temporary: PathBuf,
}

impl Keeper {
    /// Keeps the answer; returns where.
    pub(crate) fn keep(&self, matched: &MatchedRows) -> Option<PathBuf> {
        let kept = Kept {
            format: FORMAT.to_owned(),
            job_digest: self.job_digest,
            party: self.party.clone(),
            table_sha256: matched.table().sha256().ok()?,
            rows: matched.rows().len(),
            matched: hex::encode(matched.rows().as_bytes()),
        };
        let text = serde_json::to_string_pretty(&kept).ok()?;
        let elsewhere = self.temporary.join(self.path.file_name()?);
        [&self.path, &elsewhere].into_iter().find_map(|path| write(path, &text))
    }
}

/// Writes a file that only its owner can read, whole or not at all, at the first free name.
fn write(path: &Path, text: &str) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).ok()?;
    file.write_all(text.as_bytes()).ok()?;
    file.as_file().sync_all().ok()?;
    shards::put(file, shards::unused_names(path), None).ok()
}

/// Writes the rows of an answer that an earlier run has kept, from the same table; contacts nobody.
/// Returns how many there are. The file stays.
///
/// # Errors
/// If the answer is of another job, party or table, or the rows cannot be written.
pub fn resume(
    plan: Plan,
    table: Table,
    kept: &Path,
    observer: &Arc<dyn Observer>,
) -> Result<u64, Error> {
    plan.check_table(&table)?;
    let refuse = |text: String| {
        Error::new(Kind::Usage, format!("the kept answer {}: {text}", kept.display()))
    };
    let Kept { format, job_digest, party, table_sha256, rows, matched } = read(kept, &refuse)?;
    if format != FORMAT {
        return Err(refuse(format!("its format is not '{FORMAT}'; was another version's kept?")));
    }
    let (job, name) = (plan.job().digest(), plan.name().to_owned());
    if (job_digest, &party) != (job, &name) {
        let text = format!(
            "it is the answer to '{party}' in the job {job_digest}, and this run is '{name}' in the job \
             {job}; give the same job file and name"
        );
        return Err(refuse(text));
    }
    if table.sha256()? != table_sha256 {
        let text =
            "it belongs to another table than this input, or the input has changed since; give \
                    the very same table"
                .to_owned();
        return Err(refuse(text));
    }
    let Some(output) = plan.output else {
        return Err(refuse("the job gives this party no rows".to_owned()));
    };
    let bits = hex::decode(&matched)
        .map_err(|_| refuse("its field 'matched' is not hexadecimal".to_owned()))?;
    let rows = Bitmap::from_bytes(rows, bits).map_err(|error| refuse(error.to_string()))?;
    let matched = MatchedRows::kept(table, rows)?;
    let total = matched.size_bytes();
    let count = matched.count();
    matched
        .write(output, |done| observer.on(Event::Writing { done, total }), || Ok(()))
        .map_err(|failed| failed.0.since_answered())?;
    Ok(count)
}

fn read(path: &Path, refuse: &impl Fn(String) -> Error) -> Result<Kept, Error> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(MAXIMUM_KEPT_BYTES).read_to_string(&mut text));
    read.map_err(|error| refuse(format!("it cannot be read: {error}")))?;
    // The library's message would repeat what stands there: an answer, or another file's secret.
    serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        refuse(format!("it is no answer that a run has kept (line {line}, column {column})"))
    })
}
