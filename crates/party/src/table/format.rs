use std::path::Path;

use super::error::{Fault, TableError};
use super::input::{Input, extension};
use crate::limits::DELIMITER_SAMPLE_BYTES;

/// How a table is laid out in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Fields between delimiters, quoted with `"` where needed (RFC 4180).
    Csv {
        /// One ASCII character: any but a quote, CR, LF or NUL.
        delimiter: u8,
        /// Whether the first record names the columns.
        header: bool,
    },
    /// One id per line; the table has one column.
    Lines,
    /// Columns with types and names, in a file that begins and ends with `PAR1`.
    Parquet,
    /// A sequence of batches of columns with types and names, taken by [`Input::batches`]. Their
    /// rows are written as Parquet, or handed over as batches.
    Arrow,
}

const PARQUET: &[u8] = b"PAR1";

impl Format {
    /// Guesses the format from the file's first bytes and its name, as far as the caller leaves it
    /// open. Ignores a trailing `.gz` or `.zst`.
    ///
    /// `.csv` is CSV, `.tsv` and `.tab` are CSV with tabs, and `.txt` is one id per line; a given
    /// delimiter makes any file CSV. If no delimiter is given for a `.csv` file, it is the most
    /// frequent of `,` `;` tab and `|` outside quotes in the first line; the comma if there is
    /// none.
    ///
    /// # Errors
    /// If the name does not help and no delimiter was given, or if the file cannot be read.
    pub fn guess(input: &Input, delimiter: Option<u8>, header: bool) -> Result<Self, TableError> {
        if input.head(4)? == PARQUET {
            return Ok(Self::Parquet);
        }
        if let Some(delimiter) = delimiter {
            return Ok(Self::Csv { delimiter, header });
        }
        let mut name = input.path();
        if let Some("gz" | "zst") = extension(name).as_deref() {
            name = name.file_stem().map_or(name, Path::new);
        }
        match extension(name).as_deref() {
            Some("csv") => Self::guess_csv(input, header),
            Some("tsv" | "tab") => Ok(Self::Csv { delimiter: b'\t', header }),
            Some("txt") => Ok(Self::Lines),
            _ => Err(TableError::new(input.path(), Fault::UnknownFormat)),
        }
    }

    /// CSV with the most frequent delimiter of the first line.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn guess_csv(input: &Input, header: bool) -> Result<Self, TableError> {
        let sample = input.head(DELIMITER_SAMPLE_BYTES)?;
        Ok(Self::Csv { delimiter: most_frequent_delimiter(&sample), header })
    }

    pub(super) fn check(self) -> Result<(), Fault> {
        match self {
            Self::Csv { delimiter: b'"' | b'\r' | b'\n' | 0, .. } => self.refuse_delimiter(),
            Self::Csv { delimiter, .. } if !delimiter.is_ascii() => self.refuse_delimiter(),
            _ => Ok(()),
        }
    }

    pub(super) fn has_header(self) -> bool {
        matches!(self, Self::Csv { header: true, .. })
    }

    /// Whether columns have names.
    pub(super) fn has_names(self) -> bool {
        self.has_header() || !self.is_text()
    }

    /// Whether it is text, as opposed to batches of columns.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Csv { .. } | Self::Lines)
    }

    fn refuse_delimiter(self) -> Result<(), Fault> {
        match self {
            Self::Csv { delimiter, .. } => Err(Fault::Delimiter { found: delimiter }),
            _ => Ok(()),
        }
    }
}

fn most_frequent_delimiter(sample: &[u8]) -> u8 {
    const CANDIDATES: [u8; 4] = *b",;\t|";
    let mut counts = [0_u32; CANDIDATES.len()];
    let mut quoted = false;
    for byte in sample {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            _ if quoted => {}
            _ => {
                if let Some(candidate) = CANDIDATES.iter().position(|c| c == byte) {
                    counts[candidate] += 1;
                }
            }
        }
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    let winner = counts.iter().position(|count| *count == most).unwrap_or(0);
    CANDIDATES[winner]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_of_a_first_line() {
        for (line, delimiter) in [
            ("id,name;x,y\n", b','),
            ("id;name;last, first\n1,2,3,4,5", b';'),
            ("id\tname", b'\t'),
            ("a|b|\"c,,,,,\"\r\n", b'|'),
            ("\"a,b\nc,d\";x\n,,,,", b';'),
            ("id\n", b','),
            ("", b','),
        ] {
            assert_eq!(most_frequent_delimiter(line.as_bytes()), delimiter, "{line:?}");
        }
    }

    #[test]
    fn names_of_files() {
        let directory = tempfile::tempdir().unwrap();
        let guess = |name: &str, delimiter| {
            let path = directory.path().join(name);
            std::fs::write(&path, "a;b;c\n").unwrap();
            Format::guess(&Input::open(&path, directory.path()).unwrap(), delimiter, true).ok()
        };
        let csv_with = |delimiter| Some(Format::Csv { delimiter, header: true });
        assert_eq!(guess("A.CSV", None), csv_with(b';'));
        assert_eq!(guess("A.CSV", Some(b',')), csv_with(b','));
        assert_eq!(guess("a.tsv", None), csv_with(b'\t'));
        assert_eq!(guess("a.txt", None), Some(Format::Lines));
        assert_eq!(guess("a.txt", Some(b'|')), csv_with(b'|'));
        assert_eq!(guess("a", Some(b'|')), csv_with(b'|'));
        assert_eq!(guess("a", None), None);
        assert_eq!(guess("a.gz", None), None);
        assert_eq!(guess("a.csv.GZ", None), csv_with(b';'));
        assert_eq!(guess("a.tsv.zst", None), csv_with(b'\t'));
        assert_eq!(guess("a.csv.gz.gz", None), None);
    }
}
