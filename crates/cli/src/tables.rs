//! Tables as described by their flags.

use std::io::IsTerminal as _;
use std::path::Path;

use convelo_party::Memory;
use convelo_party::table::{Column, FileKind, Hints, Input, STANDARD_INPUT, Table};

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
    let hints = Hints {
        kind: layout.format.map(|format| match format {
            FormatArg::Csv => FileKind::Csv,
            FormatArg::Lines => FileKind::Lines,
            FormatArg::Parquet => FileKind::Parquet,
        }),
        delimiter: layout.delimiter.as_deref().map(delimiter).transpose()?,
        escape: layout.escape.as_deref().map(escape).transpose()?,
        header: match (layout.header, layout.no_header) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
    };
    Ok(Table::recognise(input, &hints, &columns(&layout.key)?, &columns(select)?)?)
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

fn escape(text: &str) -> Result<u8, Failure> {
    match text.as_bytes() {
        [one] => Ok(*one),
        _ => Err(Failure::usage(format!(
            "--escape takes one ASCII character, such as '\\', found {} bytes",
            text.len()
        ))),
    }
}
