//! Tables as described by their flags.

use std::io::IsTerminal as _;
use std::path::Path;

use convelo_party::Memory;
use convelo_party::table::{Column, Format, Input, STANDARD_INPUT, Table, TableOptions};

use crate::args::{FormatArg, Layout};
use crate::exit::Failure;
use crate::output;

/// Opens a table and selects these columns.
pub(crate) fn open(
    path: &Path,
    layout: &Layout,
    select: &[String],
    memory: &Memory,
) -> Result<Table, Failure> {
    if path == Path::new(STANDARD_INPUT) && std::io::stdin().is_terminal() {
        output::say("reading the table from standard input, until it ends (Ctrl-D)");
    }
    let input = Input::open(path, &memory.directory)?;
    let delimiter = layout.delimiter.as_deref().map(delimiter).transpose()?;
    let header = !layout.no_header;
    let format = match layout.format {
        Some(FormatArg::Lines) => Format::Lines,
        Some(FormatArg::Parquet) => Format::Parquet,
        Some(FormatArg::Csv) => match delimiter {
            Some(delimiter) => Format::Csv { delimiter, header },
            None => Format::guess_csv(&input, header)?,
        },
        None => Format::guess(&input, delimiter, header)?,
    };
    let (key, select) = (columns(&layout.key)?, columns(select)?);
    Ok(Table::open(input, &TableOptions { format, key, select })?)
}

fn columns(named: &[String]) -> Result<Vec<Column>, Failure> {
    named.iter().map(|column| column.parse().map_err(Failure::usage)).collect()
}

fn delimiter(text: &str) -> Result<u8, Failure> {
    match text.as_bytes() {
        [one] => Ok(*one),
        _ if matches!(text, "tab" | "\\t") => Ok(b'\t'),
        _ => Err(Failure::usage(format!(
            "--delimiter takes one ASCII character or \"tab\", found {} bytes",
            text.len()
        ))),
    }
}
