use super::error::Fault;
use super::record::Dialect;

/// How a table is laid out in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Fields between delimiters, quoted with `"` where needed (RFC 4180).
    Csv {
        /// One ASCII character: any but a quote, CR, LF or NUL.
        delimiter: u8,
        /// Whether the first record names the columns.
        header: bool,
        /// A character that takes the meaning from the one after it, in quotes and outside, as MySQL
        /// and Hadoop write it: `\`.
        escape: Option<u8>,
    },
    /// One id per line; the table has one column.
    Lines,
    /// Columns with types and names, in a file that begins and ends with `PAR1`.
    Parquet,
    /// A sequence of batches of columns with types and names, taken by
    /// [`Input::batches`](super::Input::batches). Their rows are written as Parquet, or handed over as
    /// batches.
    Arrow,
}

impl Format {
    /// CSV without an escape character.
    pub const fn csv(delimiter: u8, header: bool) -> Self {
        Self::Csv { delimiter, header, escape: None }
    }

    pub(super) fn check(self) -> Result<(), Fault> {
        let Self::Csv { delimiter, escape, .. } = self else { return Ok(()) };
        let separates = |byte: u8| byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n' | 0);
        if !separates(delimiter) {
            return Err(Fault::Delimiter { found: delimiter });
        }
        match escape.filter(|escape| !separates(*escape) || *escape == delimiter) {
            Some(found) => Err(Fault::Escape { found }),
            None => Ok(()),
        }
    }

    /// How records are written; `None` for lines.
    pub(super) fn dialect(self) -> Option<Dialect> {
        match self {
            Self::Csv { delimiter, escape, .. } => Some(Dialect { delimiter, escape }),
            _ => None,
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
    pub fn is_text(self) -> bool {
        matches!(self, Self::Csv { .. } | Self::Lines)
    }
}
