use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::limits::{MAXIMUM_COLUMNS, MAXIMUM_COLUMNS_SHOWN, MAXIMUM_NAME_SHOWN, MAXIMUM_PARTS};
use crate::limits::{MAXIMUM_RECORD_BYTES, MEBIBYTE};

/// Why a table cannot be read or written, and where.
///
/// Neither this type nor anything in it holds a field's value. Names of columns are not
/// records and may be shown.
#[derive(Debug)]
pub struct TableError {
    path: PathBuf,
    line: Option<u64>,
    fault: Fault,
}

impl TableError {
    pub(super) fn new(path: &Path, fault: Fault) -> Self {
        Self { path: path.to_owned(), line: None, fault }
    }

    pub(super) fn at(path: &Path, line: Option<u64>, fault: Fault) -> Self {
        Self { path: path.to_owned(), line, fault }
    }

    /// The file that the error concerns: the input or the output.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line, counted from 1 as in a text editor. For a record over several lines, the line
    /// where the record begins.
    pub fn line(&self) -> Option<u64> {
        self.line
    }

    /// What is wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl std::error::Error for TableError {}

/// What is wrong with a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file cannot be opened. Usual causes: a wrong path, missing permission.
    #[error("cannot be opened: {0}")]
    Open(io::Error),
    /// The operating system failed while reading the file.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// A compressed file that is damaged, cut off, or needs more than 100 MiB to unpack.
    #[error("cannot be unpacked as {packing}: {error}")]
    Unpack {
        /// "gzip" or "Zstandard".
        packing: &'static str,
        /// What is wrong.
        error: io::Error,
    },
    /// A one-time input, such as standard input, could not be kept for the second pass.
    #[error("cannot be kept for the second pass: {0}")]
    Keep(io::Error),
    /// The path leads to a pipe, directory or device.
    #[error(
        "{found}, expected a regular file: a table is read twice, so save it to a file first, or \
         pass it on standard input"
    )]
    NotRegular {
        /// What is at the path.
        found: &'static str,
    },
    /// A directory with something other than the Parquet files of one table.
    #[error(
        "a directory in which {} is no Parquet file; expected a file, or a directory of the Parquet files of \
         one table (those whose names begin with _ or . do not count)",
        other.display()
    )]
    Directory {
        /// What is in it.
        other: PathBuf,
    },
    /// A directory with more than [`MAXIMUM_PARTS`] files.
    #[error("a directory of more than {MAXIMUM_PARTS} files: write the table in fewer")]
    TooManyParts,
    /// A file in a directory has other columns than the first.
    #[error("its columns are not those of the first file in its directory: write the table anew")]
    OtherColumns,
    /// The first bytes belong to another encoding or another kind of file.
    #[error("{found}, expected UTF-8 text or Parquet: {advice}")]
    NotText {
        /// What the first bytes indicate.
        found: &'static str,
        /// What to do with such a file.
        advice: &'static str,
    },
    /// A byte sequence that is not UTF-8. Usual cause: Latin-1, Windows-1252 or GBK text.
    #[error("not UTF-8 text: convert the file to UTF-8, for example with iconv")]
    NotUtf8,
    /// A NUL byte. Usual causes: a binary file, or UTF-16 without a byte order mark.
    #[error(
        "a NUL byte, expected UTF-8 text: the file is binary, damaged, or UTF-16 without a byte \
         order mark; save it as UTF-8"
    )]
    Nul,
    /// A record longer than [`MAXIMUM_RECORD_BYTES`]. Usual cause: a quote that is never closed.
    #[error(
        "the record that begins here is longer than {} MiB: look for a quote that is not closed",
        MAXIMUM_RECORD_BYTES / MEBIBYTE
    )]
    TooLong,
    /// More columns than [`MAXIMUM_COLUMNS`].
    #[error("the first record has {found} columns, expected at most {MAXIMUM_COLUMNS}")]
    TooManyColumns {
        /// Columns in the first record.
        found: usize,
    },
    /// The file ends inside a quoted field.
    #[error(
        "the record that begins here opens a quote that is never closed: close the quote, or \
         double it if it is part of the text"
    )]
    UnclosedQuote,
    /// Text between a closing quote and the next delimiter.
    #[error(
        "text stands after a closing quote in the record that begins here: double the quotes that are \
         part of the text, or say which character protects them"
    )]
    TextAfterQuote,
    /// The escape character as the last of the text.
    #[error(
        "nothing follows the escape character at the end of the record that begins here: the file is cut \
         off, or this is not its escape character"
    )]
    UnfinishedEscape,
    /// White space before the opening quote of a field.
    #[error(
        "a space stands before a quote in the record that begins here, so that the quote is text: remove \
         the space"
    )]
    SpaceBeforeQuote,
    /// A row whose number of fields differs from the first record's.
    #[error(
        "{found} fields, expected {expected}: correct the row, or name the right delimiter if \
         every row is like this"
    )]
    Ragged {
        /// Fields in this row.
        found: usize,
        /// Fields in the first record.
        expected: usize,
    },
    /// A Parquet file or Arrow stream that is damaged, or uses something unsupported.
    #[error("cannot be read as {format}: {error}")]
    Batches {
        /// "Parquet" or "Arrow".
        format: &'static str,
        /// What is wrong.
        error: String,
    },
    /// Parquet on a stream.
    #[error("Parquet is read from its end and cannot come on standard input: give the file's name")]
    ParquetStream,
    /// Batches requested in another format, or something else requested as batches.
    #[error("batches, and nothing else, are read as Arrow: choose the format that the table has")]
    NotBatches,
    /// A key column whose values cannot be keys.
    #[error(
        "the key column {} has type {found}, whose values have no one text: {}",
        shown(column),
        convelo_untrusted::shown(advice)
    )]
    KeyType {
        /// The column's name.
        column: String,
        /// Its type.
        found: String,
        /// What to do.
        advice: String,
    },
    /// A value of a key column that cannot be a key.
    #[error(
        "row {row}: the value of the key column {} {found}, so it has no one text: cast the column",
        shown(column)
    )]
    KeyValue {
        /// The column's name.
        column: String,
        /// The row's number, from 1.
        row: u64,
        /// What is wrong with the value.
        found: &'static str,
    },
    /// A value that cannot be written.
    #[error("row {row}: the value of the column {} {found}: cast the column", shown(column))]
    Value {
        /// The column's name.
        column: String,
        /// The row's number, from 1.
        row: u64,
        /// What is wrong with the value.
        found: &'static str,
    },
    /// The output's name belongs to another format.
    #[error("rows of this table are written as {format}: choose an output name that {name}")]
    OutputFormat {
        /// What is written.
        format: &'static str,
        /// What is asked of the name.
        name: &'static str,
    },
    /// Columns of types that Parquet does not have.
    #[error("its rows cannot be written: {error}; select other columns, or cast this one")]
    OutputColumns {
        /// Which, and of which type.
        error: String,
    },
    /// The file's name does not say what it is.
    #[error(
        "neither Parquet nor a name that ends in .csv, .tsv or .txt (also before .gz or .zst): say \
         whether it is CSV or one id per line"
    )]
    UnknownFormat,
    /// Several characters separate the first records into equally many fields each.
    #[error("each of {} could be the delimiter: say which one is", delimiters(found))]
    Delimiters {
        /// The characters.
        found: String,
    },
    /// Nobody has said that the first record is a header, and it looks like data.
    #[error(
        "the first record looks like data, not like the names of {columns} columns: say whether it is a \
         header"
    )]
    HeaderIsRecord {
        /// How many columns there are.
        columns: usize,
    },
    /// Nobody has said that the first record is a header, and it may be one or not.
    #[error(
        "the first record may be a header or data, or has a field without a name, and nobody named a column \
         by its name: say which it is"
    )]
    HeaderUnknown,
    /// The first line of an id list looks like a header.
    #[error(
        "line 1 looks like the name of the column, not like an id: say whether it is an id, or have the \
         file read as CSV"
    )]
    LineIsHeader,
    /// A header for a text file with one id per line.
    #[error("a text file with one id per line has no header, unless read as CSV")]
    HeaderOfLines,
    /// A delimiter that cannot separate fields.
    #[error(
        "byte 0x{found:02x} cannot be the delimiter: give one ASCII character other than a quote \
         or a line end"
    )]
    Delimiter {
        /// The given byte.
        found: u8,
    },
    /// A character that cannot protect others.
    #[error(
        "byte 0x{found:02x} cannot be the escape character: give one ASCII character other than a \
         quote, the delimiter or a line end, such as \\"
    )]
    Escape {
        /// The given byte.
        found: u8,
    },
    /// No key column was named for a CSV table.
    #[error("no key column was named; {columns}")]
    NoKey {
        /// The existing columns.
        columns: ColumnList,
    },
    /// Columns were named for a text file with one id per line.
    #[error("a text file with one id per line has no columns to choose from, unless read as CSV")]
    ColumnsOfLines,
    /// The header has no column of this name.
    #[error("no column is called {}; {columns}{}", shown(name), elsewhere(columns))]
    NoSuchColumn {
        /// The requested name.
        name: String,
        /// The existing columns.
        columns: ColumnList,
    },
    /// A column was requested by name, but the table has no header.
    #[error(
        "column {} was requested by name, but the table has no header: give its number; {columns}",
        shown(name)
    )]
    NameWithoutHeader {
        /// The requested name.
        name: String,
        /// The existing columns.
        columns: ColumnList,
    },
    /// A column number above the number of columns.
    #[error("there is no column #{number}; {columns}")]
    NoSuchNumber {
        /// The requested number, from 1.
        number: usize,
        /// The existing columns.
        columns: ColumnList,
    },
    /// Several columns have the requested name.
    #[error(
        "{} columns are called {}: choose one by its number, {}",
        numbers.len(), shown(name), numbers_shown(numbers)
    )]
    AmbiguousColumn {
        /// The requested name.
        name: String,
        /// The numbers of the columns with this name, from 1.
        numbers: Vec<usize>,
    },
    /// The file is not the one that was opened: its size, modification time or number of rows
    /// differs.
    #[error("the file changed while it was being read: run again when nobody is writing to it")]
    Changed,
    /// The output is the input.
    #[error("the output is the input file: choose another name for the output")]
    OutputIsInput,
    /// The output's name belongs to a kind of file that is not written.
    #[error("the name is that of {found}, which is not written: choose one that ends in {endings}")]
    OutputName {
        /// What such a file is.
        found: &'static str,
        /// Which names are right.
        endings: &'static str,
    },
    /// Columns were named for a table that has none.
    #[error(
        "it is empty and has no columns, not even a header: look whether it is the right file; where an \
         empty table is right, name no column"
    )]
    NoColumns,
    /// The output's name asks for compression that cannot be written.
    #[error("rows are written plain, or as gzip if the name ends in .gz: choose another name")]
    OutputPacking,
    /// The output exists and is not a regular file.
    #[error("{found}, expected a regular file or a new name for the output")]
    OutputNotRegular {
        /// What is at the path.
        found: &'static str,
    },
    /// The directory of the output is not there.
    #[error("the directory {} does not exist: make it, or choose another place", .0.display())]
    NoDirectory(PathBuf),
    /// There is hardly any room for an output.
    #[error("only {free} bytes are free there; make room, or give another file")]
    NoRoom {
        /// How many bytes are free.
        free: u64,
    },
    /// The output cannot be written.
    #[error("{}", unwritable(.0))]
    Write(io::Error),
}

/// The columns of a table as an error shows them: number and name, cut to a readable length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnList {
    names: Option<Vec<String>>,
    count: usize,
}

impl ColumnList {
    pub(super) fn new(columns: &[String], header: bool) -> Self {
        let names = || columns.iter().take(MAXIMUM_COLUMNS_SHOWN).map(|name| shown(name)).collect();
        Self { names: header.then(names), count: columns.len() }
    }
}

impl fmt::Display for ColumnList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(names) = &self.names else {
            return match self.count {
                1 => write!(f, "the table has one column, #1"),
                n => write!(f, "the table has {n} columns, #1 to #{n}"),
            };
        };
        write!(f, "the columns are ")?;
        for (index, name) in names.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}#{} {name}", index + 1)?;
        }
        match self.count - names.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Where the names may be, if not in the first record.
fn elsewhere(columns: &ColumnList) -> &'static str {
    if columns.names.is_none() || columns.count == 1 {
        "; perhaps a title stands above the header, or the delimiter is another one"
    } else {
        ""
    }
}

/// A column's name in quotes, without control characters, cut to [`MAXIMUM_NAME_SHOWN`].
fn shown(name: &str) -> String {
    let cut: String = name.chars().take(MAXIMUM_NAME_SHOWN).collect();
    let dots = if cut.len() < name.len() { "…" } else { "" };
    format!("\"{}{dots}\"", cut.escape_debug())
}

/// Why nothing can be written.
fn unwritable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe => {
            "was closed by whoever reads it, before all rows were written".to_owned()
        }
        _ => format!("cannot be written: {error}"),
    }
}

/// Delimiters in words.
fn delimiters(found: &str) -> String {
    let named = found.chars().map(|c| if c == '\t' { "tab".to_owned() } else { format!("'{c}'") });
    named.collect::<Vec<_>>().join(" and ")
}

fn numbers_shown(numbers: &[usize]) -> String {
    let numbers: Vec<String> =
        numbers.iter().take(MAXIMUM_COLUMNS_SHOWN).map(|number| format!("#{number}")).collect();
    numbers.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_cut_and_without_control_characters() {
        let long = "x".repeat(MAXIMUM_NAME_SHOWN + 1);
        let names = vec!["id".to_owned(), "a\u{1b}[2J\n".to_owned(), long];
        let list = ColumnList::new(&names, true).to_string();
        assert!(list.starts_with(r#"the columns are #1 "id", #2 "a\u{1b}[2J\n", #3 "xx"#));
        assert!(list.ends_with("x…\""));
        assert!(!list.contains('\u{1b}'));
    }

    #[test]
    fn a_wide_header_is_cut() {
        let names: Vec<String> = (0..1000).map(|n| format!("c{n}")).collect();
        let list = ColumnList::new(&names, true).to_string();
        assert!(list.ends_with(&format!("and {} more", 1000 - MAXIMUM_COLUMNS_SHOWN)));
        assert_eq!(
            ColumnList::new(&names, false).to_string(),
            "the table has 1000 columns, #1 to #1000"
        );
    }
}
