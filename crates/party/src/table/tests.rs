use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tempfile::TempDir;

use super::*;
use crate::limits::{MAXIMUM_COLUMNS, MAXIMUM_RECORD_BYTES, TABLE_BUFFER_BYTES};

const COMMA: Format = Format::csv(b',', true);
const NO_HEADER: Format = Format::csv(b',', false);

struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn with(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn names(&self) -> BTreeSet<String> {
        std::fs::read_dir(&self.directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

fn open(path: &Path, format: Format, key: &[&str]) -> Result<Table, TableError> {
    select(path, format, key, &[])
}

fn select(path: &Path, format: Format, key: &[&str], select: &[&str]) -> Result<Table, TableError> {
    let columns = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let (key, select) = (columns(key), columns(select));
    Table::open(Input::open(path, &std::env::temp_dir())?, &TableOptions { format, key, select })
}

fn keys_of(table: &mut Table) -> Result<Vec<Vec<String>>, TableError> {
    let mut keys = Vec::new();
    let counts = table.scan(
        |_| {},
        |fields| {
            keys.push(fields.map(str::to_owned).collect());
            Ok::<_, TableError>(())
        },
    )?;
    assert_eq!(counts.rows, keys.len() as u64);
    Ok(keys)
}

fn keys(
    bytes: impl AsRef<[u8]>,
    format: Format,
    key: &[&str],
) -> Result<Vec<Vec<String>>, TableError> {
    let files = Files::new();
    keys_of(&mut open(&files.with("t", bytes), format, key)?)
}

fn one_column(rows: &[Vec<String>]) -> Vec<&str> {
    rows.iter().map(|row| row[0].as_str()).collect()
}

fn refusal(bytes: impl AsRef<[u8]>, format: Format, key: &[&str]) -> TableError {
    keys(bytes, format, key).expect_err("the table is refused")
}

fn nothing() -> impl FnMut(KeyFields<'_>) -> Result<(), TableError> {
    |_| Ok(())
}

#[test]
fn keys_of_one_and_several_columns() {
    let text = "id,name,\"e,mail\"\n1,\"Ann \"\"A\"\"\",a@x.org\n2,,\"b\n@x.org\"\n";
    assert_eq!(keys(text, COMMA, &["id"]).unwrap(), [["1"], ["2"]]);
    assert_eq!(
        keys(text, COMMA, &["e,mail", "#2"]).unwrap(),
        [["a@x.org", "Ann \"A\""], ["b\n@x.org", ""]]
    );
    assert_eq!(keys("1;2\n3;4\n", Format::csv(b';', false), &["2"]).unwrap(), [["2"], ["4"]]);
    assert_eq!(keys("1\t2", Format::csv(b'\t', false), &["#1"]).unwrap(), [["1"]]);
}

#[test]
fn line_ends_and_blank_lines() {
    for text in [
        "id,x\na,1\nb,2\n",
        "id,x\r\na,1\r\nb,2",
        "id,x\ra,1\rb,2\r",
        "\n\nid,x\n\na,1\r\n\r\nb,2\n\n",
    ] {
        assert_eq!(one_column(&keys(text, COMMA, &["id"]).unwrap()), ["a", "b"], "{text:?}");
    }
    let lines = "\u{feff} car\r\n\r\n\r\r\ntr\rain \nlast";
    assert_eq!(
        one_column(&keys(lines, Format::Lines, &[]).unwrap()),
        [" car", "", "", "", "tr", "ain ", "last"]
    );
    assert_eq!(one_column(&keys("1\r2\r3\r", Format::Lines, &[]).unwrap()), ["1", "2", "3"]);
    assert_eq!(one_column(&keys("1\r\r2\r", Format::Lines, &[]).unwrap()), ["1", "", "2"]);
    assert_eq!(one_column(&keys("a\n", Format::Lines, &[]).unwrap()), ["a"]);
    assert_eq!(one_column(&keys("\n", Format::Lines, &[]).unwrap()), [""]);
}

/// The keys of the first column, and what was noticed.
fn noticed(text: &str, format: Format) -> (Vec<String>, Counts) {
    let files = Files::new();
    let key = if format == Format::Lines { &[][..] } else { &["#1"] };
    let mut table = open(&files.with("t", text), format, key).unwrap();
    let mut keys = Vec::new();
    let counts = table.scan::<TableError>(
        |_| {},
        |mut fields| {
            keys.extend(fields.next().map(str::to_owned));
            Ok(())
        },
    );
    (keys, counts.unwrap())
}

#[test]
fn files_that_were_put_one_behind_the_other() {
    let again = "id,x\n1,a\n\u{feff}id,x\n2,b\n";
    for text in [
        again.to_owned(),
        again.replace('\n', "\r\n"),
        again.replace('\n', "\r"),
        again.replace("id,x\n2", "id,x\r\n2"),
        again.replace("id,x\n2", "\"id\",x\n2"),
        again.replace("1,a", "1,\"a\""),
        again.replace("1,a", "1,\"a\nb\""),
    ] {
        let (keys, counts) = noticed(&text, COMMA);
        assert_eq!((&*keys, counts.rows), (&["1".to_owned(), "2".to_owned()][..], 2), "{text:?}");
        assert_eq!((counts.repeated_headers, counts.notes.marks), (1, 1), "{text:?}");
        let files = Files::new();
        let mut table = open(&files.with("t", &text), COMMA, &["id"]).unwrap();
        let mut written = Vec::new();
        let rows = write_all(&mut table, Output::Writer(Box::new(&mut written))).unwrap().rows;
        let expected = text.split('\u{feff}').collect::<Vec<_>>();
        let body = expected[1].split_once(['2']).unwrap().1;
        assert_eq!(
            (rows, String::from_utf8(written).unwrap()),
            (2, format!("{}2{body}", expected[0]))
        );
    }
    let (keys, counts) = noticed("a\r\u{feff}b\n\x1ac\n\u{feff}\n", Format::Lines);
    assert_eq!((keys.concat(), counts.rows, counts.notes.marks), ("abc".to_owned(), 3, 2));
    // A row that only has the header's name as its key is a row.
    assert_eq!(noticed("id,x\nid,y\n", COMMA).0, ["id"]);
}

#[test]
fn what_programs_write_with_a_header_is_no_row() {
    for (text, format, left_out) in [
        ("id,x\n--,----\n1,a\n2,b\n", COMMA, 1),
        ("id\n---------\n1\n2\n", COMMA, 1),
        ("id\n1\n(1 rows affected)\nid\n--\n2\n", COMMA, 3),
        ("id;x\n1;a\nsep=;\nid;x\n2;b\n", Format::csv(b';', true), 2),
        ("id\n1\nSEP=;\nid\n2\n", COMMA, 2),
        ("id,x\n1,a\n\"--\",\"--\"\n2,b\n", COMMA, 1),
    ] {
        let (keys, counts) = noticed(text, format);
        assert_eq!((keys, counts.rows), (vec!["1".to_owned(), "2".to_owned()], 2), "{text:?}");
        assert_eq!(counts.repeated_headers, left_out, "{text:?}");
    }
    // Rows that only begin like that are rows, and so is everything where there is no header.
    for (text, format, key) in [
        ("id,x\n--,a\n", COMMA, "--"),
        ("id\n--1\n", COMMA, "--1"),
        ("id,x\nsep=1,a\n", COMMA, "sep=1"),
        ("id\nsep=;;\n", COMMA, "sep=;;"),
        ("id\n(2 cats)\n", COMMA, "(2 cats)"),
        ("id,x\n(2 rows),a\n", COMMA, "(2 rows)"),
        ("--\n", Format::Lines, "--"),
    ] {
        assert_eq!(noticed(text, format).0, [key], "{text:?}");
    }
}

#[test]
fn what_stands_after_the_last_row_is_no_row() {
    for (end, footers, blank_lines, control_z) in [
        ("", 0, 0, false),
        ("   ", 0, 1, false),
        ("   \r\n", 0, 1, false),
        ("\x1a", 0, 0, true),
        ("\n(2 rows affected)\n", 1, 0, false),
        ("2 rows selected.\n \n\x1a", 1, 1, true),
    ] {
        for (text, format) in
            [("id,x\n1,a\n2,b\n", COMMA), ("id\n1\n2\n", COMMA), ("1\n2\n", Format::Lines)]
        {
            let (keys, counts) = noticed(&format!("{text}{end}"), format);
            let ending = counts.notes.ending;
            assert_eq!((keys, counts.rows), (vec!["1".to_owned(), "2".to_owned()], 2), "{end:?}");
            let found = (ending.footers, ending.blank_lines, ending.control_z);
            assert_eq!(found, (footers, blank_lines, control_z), "{end:?}");
        }
    }
}

#[test]
fn quotes_that_lose_no_rows() {
    let text = "id,note\n1,\"see\n2,ok\n3,him\"\n4,\"a\nb\"\n5,\"c\"\n";
    let (keys, counts) = noticed(text, COMMA);
    assert_eq!(keys, ["1", "4", "5"]);
    let TextNotes { spanning_fields, longest_field_lines, longest_field_at, .. } = counts.notes;
    assert_eq!((spanning_fields, longest_field_lines, longest_field_at), (2, 3, 2));
    let error = refusal("id,x\n1,\"Big\" Joe\n2,b\n", COMMA, &["id"]);
    assert!(matches!(error.fault(), Fault::TextAfterQuote) && error.line() == Some(2), "{error}");
    for text in ["id,x\n0,z\n1, \"a, b\"\n", "id,x\n0,z\n1, \"a\"\n"] {
        let error = refusal(text, COMMA, &["id"]);
        assert!(matches!(error.fault(), Fault::SpaceBeforeQuote), "{error}");
        assert_eq!(error.line(), Some(3));
    }
    let escaped = Format::Csv { delimiter: b',', header: true, escape: Some(b'\\') };
    let text = "id,x\n1,\"Big \\\"Joe\\\"\"\n2\\,3,\\N\n";
    let rows = super::tests::keys(text, escaped, &["id", "x"]).unwrap();
    assert_eq!(rows, [["1", "Big \"Joe\""], ["2,3", ""]]);
}

#[test]
fn rows_are_written_byte_for_byte() {
    let rows = ["\"1\",'a'\r\n", "2,\"b\"\"\n\"\r", "3, c \n", "\"4\",\"\"\n", "5,"];
    let text = format!("\"id\", x \r\n{}", rows.concat());
    let files = Files::new();
    let input = files.with("t", &text);
    for row in 0..rows.len() as u64 {
        let mut table = open(&input, COMMA, &["id"]).unwrap();
        let counts = table.scan(|_| {}, nothing()).unwrap();
        let mut written = Vec::new();
        let output = Output::Writer(Box::new(&mut written));
        table
            .write_matched::<TableError>(&counts, output, |_| {}, |found| Ok(found == row))
            .unwrap();
        let end = if row == 4 { "\n" } else { "" };
        let expected = format!("\"id\", x \r\n{}{end}", rows[usize::try_from(row).unwrap()]);
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }
    let mut table = select(&input, COMMA, &["id"], &["#2", "#1"]).unwrap();
    let mut written = Vec::new();
    write_all(&mut table, Output::Writer(Box::new(&mut written))).unwrap();
    let expected = " x ,\"id\"\r\n'a',\"1\"\r\n\"b\"\"\n\",2\r c ,3\n\"\",\"4\"\n,5\n";
    assert_eq!(String::from_utf8(written).unwrap(), expected);
}

#[test]
fn the_line_that_tells_excel_the_delimiter_is_no_row() {
    let files = Files::new();
    let path = files.with("t.csv", "\u{feff}sep=;\r\nid;x\r\n1;a\r\n2;b;c\r\n");
    let input = Input::open(&path, files.directory.path()).unwrap();
    let key = ["id".parse().unwrap()];
    let mut table = Table::recognise(input, &Hints::default(), &key, &[]).unwrap();
    assert_eq!(
        (table.columns(), table.describe().delimiter),
        (&["id", "x"].map(str::to_owned)[..], Some(';'))
    );
    let error = keys_of(&mut table).unwrap_err();
    assert_eq!(error.line(), Some(4), "{error}");
}

fn recognised(
    text: &str,
    name: &str,
    header: Option<bool>,
    key: &[&str],
) -> Result<Table, TableError> {
    let files = Files::new();
    let input = Input::open(&files.with(name, text), files.directory.path())?;
    let key: Vec<Column> = key.iter().map(|name| name.parse().unwrap()).collect();
    Table::recognise(input, &Hints { header, ..Hints::default() }, &key, &[])
}

#[test]
fn a_header_that_is_not_known_to_be_one_is_refused() {
    let secret = "anna.secret@example.org,Anna,1980-01-02\nbert@example.org,Bert,1981-02-03\n";
    for (text, name, header, key, refused) in [
        ("1,a\n2,b\n", "t.csv", None, &["#1"][..], "looks like data"),
        (secret, "t.csv", None, &["id"], "looks like data"),
        ("Anna,Delft\nBert,Gouda\n", "t.csv", None, &["#1"], "may be a header or data"),
        ("email\na@x.org\nb@x.org\n", "t.txt", None, &[], "line 1 looks like the name"),
        ("email\na@x.org\n", "t.txt", Some(true), &[], "has no header"),
        ("1,x;y\n2,z;w\n", "t.csv", None, &["#1"], "could be the delimiter"),
    ] {
        let error = recognised(text, name, header, key).err().unwrap().to_string();
        assert!(error.contains(refused), "{text:?}: {error}");
        assert!(!error.contains("secret") && !error.contains("Anna"), "{error}");
    }
    for (text, name, header, key) in [
        ("1,a\n2,b\n", "t.csv", Some(true), &["#1"][..]),
        ("1,a\n2,b\n", "t.csv", Some(false), &["#1"]),
        ("id,x\n2,b\n", "t.csv", None, &["#1"]),
        ("wer,wo\nAnna,Delft\n", "t.csv", None, &["wer"]),
        ("email\na@x.org\n", "t.txt", Some(false), &[]),
        ("car\ntrain\n", "t.txt", None, &[]),
    ] {
        recognised(text, name, header, key).unwrap();
    }
}

/// Nobody knows that these are names.
#[test]
fn an_error_shows_no_record() {
    for text in
        ["Anna,Secret,Delft\nBert,Known,Gouda\n", "anna.secret@x.org,1\nb@x.org,2\n", "Secret\n"]
    {
        for key in [&["id"][..], &["#9"], &[]] {
            for header in [None, Some(true), Some(false)] {
                let error = recognised(text, "t.csv", header, key).err().unwrap().to_string();
                assert!(!error.to_lowercase().contains("secret"), "{error}");
            }
        }
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_field() {
    assert_eq!(one_column(&keys("\u{feff}id,x\na,1\n", COMMA, &["id"]).unwrap()), ["a"]);
    assert_eq!(one_column(&keys("\u{feff}\"id\",x\na,1\n", COMMA, &["id"]).unwrap()), ["a"]);
    assert_eq!(one_column(&keys("\u{feff}a,1\n", NO_HEADER, &["1"]).unwrap()), ["a"]);
    assert_eq!(one_column(&keys("\u{feff}a\n", Format::Lines, &[]).unwrap()), ["a"]);
    assert_eq!(one_column(&keys("x\n\u{feff}a\n", Format::Lines, &[]).unwrap()), ["x", "a"]);
}

#[test]
fn empty_tables() {
    for text in ["", "\u{feff}", "\n\r\n"] {
        assert!(keys(text, COMMA, &[]).unwrap().is_empty());
        for (format, column) in [(COMMA, "email"), (NO_HEADER, "#7")] {
            let error = keys(text, format, &[column]).unwrap_err();
            assert!(matches!(error.fault(), Fault::NoColumns), "{error}");
        }
    }
    assert!(keys("", Format::Lines, &[]).unwrap().is_empty());
    assert!(keys("id,email", COMMA, &["email"]).unwrap().is_empty());
    let files = Files::new();
    let named = &["email"][..];
    for (text, key, written) in [("", &[][..], ""), ("id,email\r\n", named, "id,email\r\n")] {
        let mut table = open(&files.with("in.csv", text), COMMA, key).unwrap();
        let counts = table.scan(|_| {}, nothing()).unwrap();
        let out = files.path("out.csv");
        let result = table
            .write_matched::<TableError>(&counts, Output::File(out.clone()), |_| {}, |_| Ok(true))
            .unwrap();
        assert_eq!(result, Written { rows: 0, bytes: written.len() as u64 });
        assert_eq!(std::fs::read_to_string(out).unwrap(), written);
    }
}

#[test]
fn columns_that_are_not_there() {
    let error = refusal("id,email\n1,2\n", COMMA, &["phone"]).to_string();
    assert!(error.ends_with(r#"no column is called "phone"; the columns are #1 "id", #2 "email""#));
    let error = refusal("id,email\n1,2\n", COMMA, &[]).to_string();
    assert!(error.ends_with(r#"no key column was named; the columns are #1 "id", #2 "email""#));
    let error = refusal("secret,2\n", NO_HEADER, &["id"]).to_string();
    assert!(error.contains("no header") && !error.contains("secret"), "{error}");
    let fault = refusal("a\n", Format::Lines, &["id"]);
    assert!(matches!(fault.fault(), Fault::ColumnsOfLines));
    let wide = ",".repeat(MAXIMUM_COLUMNS);
    let fault = refusal(wide, NO_HEADER, &["#1"]);
    assert!(
        matches!(fault.fault(), Fault::TooManyColumns { found } if *found == MAXIMUM_COLUMNS + 1)
    );
}

#[test]
fn delimiters_that_separate_nothing() {
    for delimiter in [b'"', b'\n', b'\r', 0, 0xe9] {
        let error = refusal("a,b\n", Format::csv(delimiter, true), &["a"]);
        assert!(matches!(error.fault(), Fault::Delimiter { found } if *found == delimiter));
    }
}

#[test]
fn invalid_utf8_is_refused_with_its_line_and_without_its_content() {
    for rows in [1, 7, 100_000] {
        let mut csv = b"id,name\r\n".to_vec();
        for row in 0..rows {
            csv.extend_from_slice(format!("{row},\"two\nlines\"\r\n").as_bytes());
        }
        let lines = 1 + 2 * rows;
        csv.extend_from_slice(b"secret,M\xfcller\r\n1,2\r\n");
        let error = refusal(&csv, COMMA, &["id"]);
        assert_eq!(error.line(), Some(lines + 1));
        assert!(matches!(error.fault(), Fault::NotUtf8));
        let text = format!("{error} {error:?}");
        assert!(!text.contains("secret") && !text.contains("ller"), "{text}");
    }
    let error = refusal(b"a\nb\nGr\xfc\xdfe\n", Format::Lines, &[]);
    assert_eq!(error.line(), Some(3));
    let error = refusal(b"a\nb\n\xc3", Format::Lines, &[]);
    assert_eq!(error.line(), Some(3));
    assert!(matches!(error.fault(), Fault::NotUtf8));
}

#[test]
fn a_character_cut_by_a_delimiter_is_not_put_together_again() {
    let error = refusal(b"id,x\n\xc3,\xa9\n", COMMA, &["id"]);
    assert_eq!(error.line(), Some(2));
    assert!(matches!(error.fault(), Fault::NotUtf8));
}

#[test]
fn invalid_utf8_at_the_end_of_a_buffer_is_on_its_own_line() {
    for shift in 0..4 {
        let mut text = vec![b'a'; TABLE_BUFFER_BYTES - 3 + shift];
        text[10] = b'\n';
        text.extend_from_slice(b"\xe2\n\nrest\n");
        assert_eq!(refusal(&text, Format::Lines, &[]).line(), Some(2));
        assert_eq!(refusal(&text, NO_HEADER, &["1"]).line(), Some(2));
    }
}

#[test]
fn other_encodings_are_named() {
    let utf16 = |text: &str, mark: &[u8]| {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        mark.iter().copied().chain(units).collect::<Vec<u8>>()
    };
    for (bytes, name) in [
        (utf16("id\n", b"\xff\xfe"), "UTF-16 text (little-endian)"),
        (b"\xfe\xff\0i\0d".to_vec(), "UTF-16 text (big-endian)"),
        (b"\xff\xfe\0\0i\0\0\0".to_vec(), "UTF-32 text (little-endian)"),
        (b"\0\0\xfe\xff\0\0\0i".to_vec(), "UTF-32 text (big-endian)"),
        (b"PK\x03\x04".to_vec(), "workbook"),
    ] {
        for (format, key) in [(COMMA, &["id"][..]), (Format::Lines, &[])] {
            let error = refusal(&bytes, format, key);
            assert!(matches!(error.fault(), Fault::NotText { .. }));
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    let error = refusal(utf16("id\n1\n", b""), COMMA, &["id"]);
    assert!(matches!(error.fault(), Fault::Nul));
    assert_eq!(error.line(), Some(1));
    let error = refusal("a\nb\nc\0d\n", Format::Lines, &[]);
    assert!(matches!(error.fault(), Fault::Nul));
    assert_eq!(error.line(), Some(3));
    let error = refusal("id\nb\n\0", COMMA, &["id"]);
    assert!(matches!(error.fault(), Fault::Nul));
    assert_eq!(error.line(), Some(3));
    let error = refusal(b"id\n\xff\0", COMMA, &["id"]);
    assert!(matches!(error.fault(), Fault::NotUtf8), "what comes first is what is told");
}

#[test]
fn ragged_rows() {
    let error = refusal("id,x\r\na,1\r\n\r\nsecret,2,3\r\n", COMMA, &["id"]);
    assert_eq!(error.line(), Some(4));
    assert!(matches!(error.fault(), Fault::Ragged { found: 3, expected: 2 }));
    assert!(!error.to_string().contains("secret"));
    let error = refusal("a,1\n\"b\nb\",2\nc\n", NO_HEADER, &["1"]);
    assert_eq!(error.line(), Some(4));
    assert!(matches!(error.fault(), Fault::Ragged { found: 1, expected: 2 }));
}

#[test]
fn an_unclosed_quote_swallows_no_rows() {
    for text in
        ["id,x\na,1\nb,\"2\nc,3\n", "id,x\na,1\nb,\"2\"\"", "id,x\na,1\nb,\"", "id,x\na,1\n\"b"]
    {
        let error = refusal(text, COMMA, &["id"]);
        assert!(matches!(error.fault(), Fault::UnclosedQuote), "{error}");
        assert_eq!(error.line(), Some(3));
    }
    let error = refusal("\"", NO_HEADER, &["1"]);
    assert!(matches!(error.fault(), Fault::UnclosedQuote));
    assert_eq!(one_column(&keys("\"\"", NO_HEADER, &["1"]).unwrap()), [""]);
    assert_eq!(one_column(&keys("id\n\"a\"", COMMA, &["id"]).unwrap()), ["a"]);
}

#[test]
fn a_huge_record_is_refused_where_it_begins() {
    let limit = usize::try_from(MAXIMUM_RECORD_BYTES).unwrap();
    let mut csv = b"id,x\na,1\n\nb,\"".to_vec();
    csv.resize(limit + 3 * TABLE_BUFFER_BYTES, b'\n');
    let error = refusal(&csv, COMMA, &["id"]);
    assert!(matches!(error.fault(), Fault::TooLong));
    assert_eq!(error.line(), Some(4));
    let mut lines = b"a\nb\n".to_vec();
    lines.resize(limit + 3 * TABLE_BUFFER_BYTES, b'x');
    let error = refusal(&lines, Format::Lines, &[]);
    assert!(matches!(error.fault(), Fault::TooLong));
    assert_eq!(error.line(), Some(3));
    let mut fits = b"id\n".to_vec();
    fits.resize(limit, b'x');
    assert_eq!(keys(&fits, COMMA, &["id"]).unwrap()[0][0].len(), limit - 3);
}

#[test]
fn what_cannot_be_read_twice_is_refused() {
    let files = Files::new();
    let error = open(files.directory.path(), Format::Lines, &[]).err().unwrap();
    assert!(error.to_string().contains("an empty directory, expected a regular file"), "{error}");
    let error = open(&files.path("missing"), Format::Lines, &[]).err().unwrap();
    assert!(matches!(error.fault(), Fault::Open(error) if error.kind() == io::ErrorKind::NotFound));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_without_waiting_for_its_writer() {
    let files = Files::new();
    let pipe = files.path("pipe.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = open(&pipe, COMMA, &["id"]).err().unwrap();
    assert!(error.to_string().contains("a pipe, expected a regular file"), "{error}");
    let input = files.with("in.txt", "a\n");
    let table = open(&input, Format::Lines, &[]).unwrap();
    let error = table.check_output(&Output::File(pipe.clone())).unwrap_err();
    assert!(matches!(error.fault(), Fault::OutputNotRegular { found: "a pipe" }));
}

fn lines(rows: u32, line: impl Fn(u32) -> String) -> String {
    (0..rows).flat_map(|row| [line(row), "\n".to_owned()]).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text).unwrap();
    packed.finish().unwrap()
}

fn zstandard(text: &[u8]) -> Vec<u8> {
    compress_to_vec(text, CompressionLevel::Fastest)
}

/// A skippable frame: it says how many bytes to skip, RFC 8878 section 3.1.2.
const SKIPPABLE: [u8; 11] = [0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'"', b'"', b'"'];

#[test]
fn packed_tables_are_read_as_if_they_were_not() {
    let lines = lines(200_000, |row| format!("{row},\"x\n{row}\""));
    let text = format!("\u{feff}id,x\n{lines}");
    let (first, second) = text.as_bytes().split_at(777_777);
    let files = Files::new();
    let plain = keys_of(&mut open(&files.with("t", &text), COMMA, &["x"]).unwrap()).unwrap();
    for packed in [
        gzip(text.as_bytes()),
        [gzip(first), gzip(second)].concat(),
        zstandard(text.as_bytes()),
        [zstandard(first), SKIPPABLE.to_vec(), zstandard(second), SKIPPABLE.to_vec()].concat(),
    ] {
        let mut table = open(&files.with("t", &packed), COMMA, &["x"]).unwrap();
        assert!(keys_of(&mut table).unwrap() == plain);
        let (mut written, mut seen) = (Vec::new(), 0);
        let counts = table.scan(|done| seen = done, nothing()).unwrap();
        assert_eq!((counts.rows, seen), (200_000, packed.len() as u64));
        let output = Output::Writer(Box::new(&mut written));
        table.write_matched::<TableError>(&counts, output, |_| {}, |_| Ok(true)).unwrap();
        assert!(written == text.as_bytes()[3..]);
    }
}

/// What libzstd 1.5.7 makes, at level 3 and with a checksum, of the numbers 0 to 299, one per line.
const GENUINE_FRAME: &str = "\
    28b52ffd644203850f0086bc6409b0eb24498870529875600061006000875d9b36d8575b5d35d5534b1d75\
    6bd6501f6d74d1440f2d74d0a549037db3cd35d33cb3cc3177e60cf3c926974cf2c822875c9932c8175b5c\
    31c5134b1c7163c6105fb75e9dfa74e9d1dbd9a11f375e9cf870e1c1cbc981df764dcf72dc390440fc86db\
    f01a4ec367780cef700e87e127dc849770123ec2457885533808bfe016bc8253f0092ec123388343f02bb7\
    f22aa7f22997f2286f39941f39f90137e0059c800f70011ec00b9cc001f8dd76d74df7dc72c7dd9b37dc67\
    9b5d36d9638b05d127ba448fe88c0ed1af9ddadb8dbdd8897dd8853dd8cb4ef6836ed00b3a411fe8023da0\
    173aa1c3f13a4ec7e7b81c8fe33dcee370fc8c9b71323ec6c57818af711a07e357dc8a57f1292ec5a3788b\
    b338143fe246bc881371211ec44b9cc403df75bb5ed7e9fa5c97eb71bdd7791dae9f75b34ed6c7ba580feb\
    b54eeb60fdaa5bf5aa3ed5a57a546f755687ea47dda81775a23ed4857a502f755207ea37dda6d7749a3ed3\
    637aa7733a4c3fe926bda493f4912ed2437aa5533a48bfe816bda2531e00582ea250a245040555c4e94fc4\
    731311b689a06c22009b08704dc4541307d48481a709736025ac0609b31024ac208b300d18c2340e886978\
    af69d4ae6930aee9b135115adba035035a8b9f35f059839e35c0b3362ce9b46b0a82d00e1d";

#[test]
fn a_genuine_zstandard_frame_is_read_and_its_checksum_compared() {
    let mut frame = hex::decode(GENUINE_FRAME).unwrap();
    let rows = keys(&frame, Format::Lines, &[]).unwrap();
    assert!(rows.into_iter().flatten().eq((0..300).map(|row| row.to_string())));
    *frame.last_mut().unwrap() ^= 1;
    let error = refusal(&frame, Format::Lines, &[]);
    assert!(error.to_string().contains("the checksum of a frame does not match"), "{error}");
}

#[test]
fn damaged_packed_tables_are_refused() {
    let text = lines(20_000, |row| row.to_string());
    for (name, packed) in
        [("gzip", gzip(text.as_bytes())), ("Zstandard", zstandard(text.as_bytes()))]
    {
        let middle = packed.len() / 2;
        let mut flipped = packed.clone();
        flipped[middle] ^= 0x10;
        for damaged in [&packed[..middle], &packed[..packed.len() - 1], &flipped] {
            let error = refusal(damaged, Format::Lines, &[]).to_string();
            // A flipped bit may first make the text invalid.
            let text = error.contains("UTF-8") || error.contains("NUL");
            assert!(text || error.contains(&format!("cannot be unpacked as {name}")), "{error}");
        }
        let error = refusal([&*packed, b"more"].concat(), Format::Lines, &[]);
        assert!(matches!(error.fault(), Fault::Unpack { .. }), "{error}");
    }
    let twice = refusal(gzip(&gzip(b"id\n")), Format::Lines, &[]);
    assert!(twice.to_string().contains("gzip archive in another"), "{twice}");
}

#[test]
fn standard_input_is_kept_for_the_second_pass() {
    let files = Files::new();
    let text = lines(400_000, |row| format!("customer-{row}"));
    for (bytes, rows) in [
        (text.as_bytes().to_vec(), 400_000),
        (gzip(text.as_bytes()), 400_000),
        (Vec::new(), 0),
        (b"one".to_vec(), 1),
    ] {
        let input = Input::kept(&*bytes, files.directory.path()).unwrap();
        assert_eq!(input.path(), Path::new("standard input"));
        assert!(files.names().is_empty(), "the temporary file has no name");
        let options = TableOptions { format: Format::Lines, key: Vec::new(), select: Vec::new() };
        let mut table = Table::open(input, &options).unwrap();
        assert_eq!(table.size_bytes(), bytes.len() as u64);
        let mut written = Vec::new();
        assert_eq!(
            write_all(&mut table, Output::Writer(Box::new(&mut written))).unwrap().rows,
            rows
        );
        if rows > 1 {
            assert!(written == text.as_bytes());
        }
    }
    let error = Input::kept(text.as_bytes(), Path::new("/nonexistent/place")).err().unwrap();
    assert!(error.to_string().contains("/nonexistent/place"), "{error}");
    assert_eq!(crate::Error::from(error).hint(), Some(crate::Hint::TemporaryDirectory));
}

#[test]
fn selected_columns_are_written_in_their_order() {
    let files = Files::new();
    let written = |text: &str, columns: &[&str]| {
        let mut table = select(&files.with("t", text), COMMA, &["id"], columns).unwrap();
        let mut written = Vec::new();
        write_all(&mut table, Output::Writer(Box::new(&mut written))).unwrap();
        String::from_utf8(written).unwrap()
    };
    let plain = "id,name,town\n1,Ann,\n2,,Delft\n";
    assert_eq!(written(plain, &["town", "id"]), "town,id\n,1\nDelft,2\n");
    assert_eq!(written(plain, &["#1", "id"]), "id,id\n1,1\n2,2\n");
    // A row of one empty field must not become a line that is no row.
    assert_eq!(written(plain, &["town"]), "town\n\"\"\nDelft\n");
    let quoted = "id,\"na,me\",town\n1,\"Ann \"\"A\"\"\",\n2,\"x\ny\",Delft\n";
    assert_eq!(written(quoted, &["na,me"]), "\"na,me\"\n\"Ann \"\"A\"\"\"\n\"x\ny\"\n");
    let error = select(&files.with("t", plain), COMMA, &["id"], &["city"]).err().unwrap();
    assert!(error.to_string().contains("no column is called \"city\""), "{error}");
    let error = select(&files.with("t", plain), Format::Lines, &[], &["#1"]).err().unwrap();
    assert!(matches!(error.fault(), Fault::ColumnsOfLines));
}

#[test]
fn an_output_that_ends_in_gz_is_packed() {
    let files = Files::new();
    let (packed, text) = (files.path("out.csv.gz"), "id,x\n1,a\n2,b\n");
    let mut table = open(&files.with("t", text), COMMA, &["id"]).unwrap();
    write_all(&mut table, Output::File(packed.clone())).unwrap();
    assert!(std::fs::read(&packed).unwrap().starts_with(&[0x1f, 0x8b]));
    let mut again = open(&packed, COMMA, &["x"]).unwrap();
    assert_eq!(keys_of(&mut again).unwrap(), [["a"], ["b"]]);
    let error = table.check_output(&Output::File(files.path("out.csv.zst"))).unwrap_err();
    assert!(matches!(error.fault(), Fault::OutputPacking));
}

fn write_all(table: &mut Table, output: Output<'_>) -> Result<Written, TableError> {
    let counts = table.scan(|_| {}, nothing())?;
    table.write_matched(&counts, output, |_| {}, |_| Ok(true))
}

#[test]
fn the_output_replaces_a_file_only_when_it_is_complete() {
    let files = Files::new();
    let input = files.with("in.csv", "\u{feff}id;x\r\nb;\"1\"\r\n\r\na;\"2;\"\r\nc;3");
    let out = files.with("out.csv", "old");
    let semicolon = Format::csv(b';', true);
    let mut table = open(&input, semicolon, &["id"]).unwrap();
    let counts = table.scan(|_| {}, nothing()).unwrap();
    let stop = || TableError::new(Path::new("stop"), Fault::Changed);
    let mut seen = 0;
    let stopped = table.write_matched(
        &counts,
        Output::File(out.clone()),
        |_| {},
        |_| {
            seen += 1;
            if seen == 2 { Err(stop()) } else { Ok(true) }
        },
    );
    assert_eq!(stopped.unwrap_err().path(), Path::new("stop"));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "old");
    assert_eq!(files.names(), BTreeSet::from(["in.csv", "out.csv"].map(str::to_owned)));
    let written = table
        .write_matched::<TableError>(&counts, Output::File(out.clone()), |_| {}, |row| Ok(row != 0))
        .unwrap();
    let expected = "id;x\r\na;\"2;\"\r\nc;3\n";
    assert_eq!(std::fs::read_to_string(&out).unwrap(), expected);
    assert_eq!(written, Written { rows: 2, bytes: expected.len() as u64 });
    assert_eq!(files.names(), BTreeSet::from(["in.csv", "out.csv"].map(str::to_owned)));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn lines_go_to_a_stream() {
    let files = Files::new();
    let mut table = open(&files.with("in.txt", "car\r\n\r\ncat"), Format::Lines, &[]).unwrap();
    let mut stream = Vec::new();
    let written = write_all(&mut table, Output::Writer(Box::new(&mut stream))).unwrap();
    assert_eq!(stream, b"car\r\n\r\ncat\n");
    assert_eq!(written, Written { rows: 3, bytes: 11 });
}

#[test]
fn a_stream_that_breaks_keeps_its_cause() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let files = Files::new();
    let text = files.with("in", "a,b\n");
    for (format, key) in [(NO_HEADER, &["1"][..]), (Format::Lines, &[])] {
        let mut table = open(&text, format, key).unwrap();
        let error = write_all(&mut table, Output::Writer(Box::new(Broken))).unwrap_err();
        assert!(
            matches!(error.fault(), Fault::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
        );
    }
}

#[test]
fn the_input_is_never_the_output() {
    let files = Files::new();
    let input = files.with("in.csv", "id\na\n");
    let mut table = open(&input, COMMA, &["id"]).unwrap();
    let mut outputs = vec![input.clone(), files.path(".").join("in.csv")];
    #[cfg(unix)]
    {
        let link = files.path("link.csv");
        std::os::unix::fs::symlink(&input, &link).unwrap();
        let hard = files.path("hard.csv");
        std::fs::hard_link(&input, &hard).unwrap();
        outputs.extend([link, hard]);
    }
    for output in outputs {
        let error = table.check_output(&Output::File(output.clone())).unwrap_err();
        assert!(matches!(error.fault(), Fault::OutputIsInput));
        let error = write_all(&mut table, Output::File(output.clone())).unwrap_err();
        assert!(matches!(error.fault(), Fault::OutputIsInput));
    }
    assert_eq!(std::fs::read_to_string(&input).unwrap(), "id\na\n");
}

#[test]
fn an_output_that_cannot_be_made_is_refused_beforehand() {
    let files = Files::new();
    let table = open(&files.with("in.csv", "id\na\n"), COMMA, &["id"]).unwrap();
    table.check_output(&Output::File(files.path("new.csv"))).unwrap();
    assert_eq!(files.names(), BTreeSet::from(["in.csv".to_owned()]), "nothing is left");
    let error = table.check_output(&Output::File(files.path("missing/new.csv"))).unwrap_err();
    assert!(matches!(error.fault(), Fault::NoDirectory(missing) if missing.ends_with("missing")));
    assert!(!error.to_string().contains(".convelo"), "{error}");
    let error = table.check_output(&Output::File(files.directory.path().to_owned())).unwrap_err();
    assert!(matches!(error.fault(), Fault::OutputNotRegular { found: "a directory" }));
}

#[test]
fn a_file_that_changes_between_the_passes_is_refused() {
    let files = Files::new();
    let input = files.with("in.txt", "a\nb\n");
    let out = files.path("out.txt");
    let mut table = open(&input, Format::Lines, &[]).unwrap();
    let counts = table.scan(|_| {}, nothing()).unwrap();
    let mut appended = std::fs::OpenOptions::new().append(true).open(&input).unwrap();
    appended.write_all(b"c\n").unwrap();
    let refused =
        table.write_matched::<TableError>(&counts, Output::File(out.clone()), |_| {}, |_| Ok(true));
    assert!(matches!(refused.unwrap_err().fault(), Fault::Changed));
    assert!(!out.exists());
}

#[test]
fn a_file_that_changes_during_a_pass_is_refused() {
    let files = Files::new();
    let input = files.with("in.txt", "a\nb\n");
    let mut table = open(&input, Format::Lines, &[]).unwrap();
    let refused = table.scan(
        |_| {},
        |_| {
            std::fs::OpenOptions::new().write(true).open(&input).unwrap().set_len(1).unwrap();
            Ok::<_, TableError>(())
        },
    );
    assert!(matches!(refused.unwrap_err().fault(), Fault::Changed));
}

#[test]
fn a_rewritten_file_of_the_same_size_is_refused() {
    let files = Files::new();
    let input = files.with("in.txt", "a\nb\n");
    let mut table = open(&input, Format::Lines, &[]).unwrap();
    let counts = table.scan(|_| {}, nothing()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&input).unwrap();
    file.set_modified(SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
    let mut sink = Vec::new();
    let refused = table.write_matched::<TableError>(
        &counts,
        Output::Writer(Box::new(&mut sink)),
        |_| {},
        |_| Ok(true),
    );
    assert!(matches!(refused.unwrap_err().fault(), Fault::Changed));
}

#[test]
fn another_number_of_rows_is_refused() {
    let files = Files::new();
    let mut table = open(&files.with("in.txt", "a\nb\n"), Format::Lines, &[]).unwrap();
    let out = files.path("out.txt");
    let refused = table.write_matched::<TableError>(
        &Counts { rows: 3, ..Counts::default() },
        Output::File(out.clone()),
        |_| {},
        |_| Ok(true),
    );
    assert!(matches!(refused.unwrap_err().fault(), Fault::Changed));
    assert!(!out.exists());
}

#[test]
fn a_file_that_is_replaced_is_read_to_its_end_as_it_was() {
    let files = Files::new();
    let input = files.with("in.txt", "a\nb\n");
    let mut table = open(&input, Format::Lines, &[]).unwrap();
    let counts = table.scan(|_| {}, nothing()).unwrap();
    std::fs::rename(files.with("other", "x\n"), &input).unwrap();
    let mut stream = Vec::new();
    table
        .write_matched::<TableError>(
            &counts,
            Output::Writer(Box::new(&mut stream)),
            |_| {},
            |_| Ok(true),
        )
        .unwrap();
    assert_eq!(stream, b"a\nb\n");
}

#[test]
fn progress_grows_to_the_size_of_the_file() {
    let files = Files::new();
    let text = format!("\u{feff}id\n{}", "0123456789\n".repeat(100_000));
    let input = files.with("in.csv", &text);
    for (format, key) in [(COMMA, &["id"][..]), (Format::Lines, &[])] {
        let mut table = open(&input, format, key).unwrap();
        let mut steps = Vec::new();
        table.scan(|bytes| steps.push(bytes), nothing()).unwrap();
        assert!(steps.is_sorted());
        assert!(steps.len() >= text.len() / TABLE_BUFFER_BYTES);
        assert_eq!(steps.last(), Some(&table.size_bytes()));
        assert_eq!(table.size_bytes(), text.len() as u64);
    }
}

#[test]
fn a_pass_stops_at_the_first_error_of_its_visitor() {
    #[derive(Debug, PartialEq)]
    enum Stop {
        Here,
        Table,
    }
    impl From<TableError> for Stop {
        fn from(_: TableError) -> Self {
            Self::Table
        }
    }
    let files = Files::new();
    let mut table = open(&files.with("in.txt", "a\nb\nc\n"), Format::Lines, &[]).unwrap();
    let mut seen = 0;
    let stopped = table.scan(
        |_| {},
        |_| {
            seen += 1;
            if seen == 2 { Err(Stop::Here) } else { Ok(()) }
        },
    );
    assert_eq!((stopped, seen), (Err(Stop::Here), 2));
    std::fs::write(table.path(), "a\n").unwrap();
    assert_eq!(table.scan(|_| {}, |_| Ok(())), Err(Stop::Table));
}

/// Text with everything that CSV must quote, and UTF-8 characters of every length.
fn field() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("\"".to_owned()),
        Just(",".to_owned()),
        Just(";".to_owned()),
        Just("\t".to_owned()),
        Just("\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("\r".to_owned()),
        Just("é€𐍈".to_owned()),
        "[a-z0-9 '#]{0,6}",
        any::<char>()
            .prop_filter("NUL, byte order marks and Ctrl-Z are not text", |c| ![
                '\0', '\u{feff}', '\u{1a}'
            ]
            .contains(c))
            .prop_map(String::from),
    ];
    proptest::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

fn rows() -> impl Strategy<Value = Vec<Vec<String>>> {
    (1_usize..5).prop_flat_map(|width| {
        proptest::collection::vec(proptest::collection::vec(field(), width), 1..30)
    })
}

fn quote(field: &str, always: bool, delimiter: char) -> String {
    let special = |c| matches!(c, '"' | '\r' | '\n') || c == delimiter;
    if always || field.trim().is_empty() || field.contains(special) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

fn csv_text(rows: &[Vec<String>], end: &str, always: bool, delimiter: char) -> String {
    let line = |row: &Vec<String>| {
        let fields: Vec<_> = row.iter().map(|field| quote(field, always, delimiter)).collect();
        fields.join(&delimiter.to_string()) + end
    };
    rows.iter().map(line).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_what_was_kept(
        rows in rows(),
        header: bool,
        always: bool,
        bom: bool,
        end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        delimiter in prop_oneof![Just(','), Just(';'), Just('\t'), Just('|'), Just('x')],
        kept in proptest::collection::vec(any::<bool>(), 30),
    ) {
        // A record that repeats the header is no row.
        prop_assume!(!header || rows[1..].iter().all(|row| *row != rows[0]));
        let files = Files::new();
        let mark = if bom { "\u{feff}" } else { "" };
        let input = files.with("in", format!("{mark}{}", csv_text(&rows, end, always, delimiter)));
        let format = Format::csv(u8::try_from(delimiter).unwrap(), header);
        let width = rows[0].len();
        let last = format!("#{width}");
        let key = [last.as_str(), "#1"];
        let mut table = open(&input, format, &key).unwrap();
        let body = &rows[usize::from(header)..];
        let found = keys_of(&mut table).unwrap();
        let expected: Vec<_> =
            body.iter().map(|row| vec![row[width - 1].clone(), row[0].clone()]).collect();
        prop_assert_eq!(found, expected);

        let counts = table.scan(|_| {}, nothing()).unwrap();
        let output = files.path("out");
        let mut wanted = kept.iter();
        let written = table.write_matched::<TableError>(
            &counts, Output::File(output.clone()), |_| {}, |_| Ok(*wanted.next().unwrap()),
        ).unwrap();
        let survivors: Vec<_> =
            body.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(row, _)| row.clone()).collect();
        prop_assert_eq!(written.rows, survivors.len() as u64);
        prop_assert_eq!(written.bytes, std::fs::metadata(&output).unwrap().len());
        // What is empty has no columns to name.
        prop_assume!(written.bytes > 0);

        let all: Vec<String> = (1..=width).map(|number| format!("#{number}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut again = open(&output, format, &all).unwrap();
        if header {
            prop_assert_eq!(again.columns(), &rows[0]);
        }
        prop_assert_eq!(keys_of(&mut again).unwrap(), survivors);
    }

    #[test]
    fn lines_are_written_as_they_were(
        mut lines in proptest::collection::vec("[^\0\n\r\u{feff}\u{1a}]{0,12}", 0..40),
        end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        kept in proptest::collection::vec(any::<bool>(), 41),
    ) {
        let files = Files::new();
        // White space at the end would be no row.
        lines.push("last".to_owned());
        let text = lines.iter().map(|line| line.clone() + end).collect::<String>();
        let mut table = open(&files.with("in", text), Format::Lines, &[]).unwrap();
        let counts = table.scan(|_| {}, nothing()).unwrap();
        let mut output = Vec::new();
        let mut wanted = kept.iter();
        table.write_matched::<TableError>(
            &counts, Output::Writer(Box::new(&mut output)), |_| {}, |_| Ok(*wanted.next().unwrap()),
        ).unwrap();
        let survivors: String = lines
            .iter()
            .zip(&kept)
            .filter(|(_, kept)| **kept)
            .map(|(line, _)| line.clone() + end)
            .collect();
        prop_assert_eq!(String::from_utf8(output).unwrap(), survivors);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(b'"'), Just(b','), Just(b'\n'), Just(b'\r')], 0..200),
        header: bool,
    ) {
        let format = Format::csv(b',', header);
        match keys(&bytes, format, &["#1"]) {
            Ok(_) => prop_assert!(std::str::from_utf8(&bytes).is_ok() && !bytes.contains(&0)),
            Err(error) => {
                let named = matches!(error.fault(), Fault::NotText { .. } | Fault::NoColumns);
                prop_assert!(named || error.line().is_some(), "{error}");
            }
        }
    }
}

/// A Parquet file with columns of various types; `rows` rows in groups of 1000.
fn parquet_of(rows: usize) -> Vec<u8> {
    use arrow_array::{
        ArrayRef, DictionaryArray, Float64Array, Int64Array, LargeStringArray, RecordBatch,
        StringArray, UInt8Array, types::Int32Type,
    };
    let id = |row: usize| (!row.is_multiple_of(10)).then(|| format!("id-{row}"));
    let number = |row: usize| i64::try_from(row).unwrap();
    let words: DictionaryArray<Int32Type> =
        (0..rows).map(|row| ["red", "green", "blue"][row % 3]).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new((0..rows).map(id).collect::<StringArray>())),
        (
            "large",
            Arc::new((0..rows).map(|row| Some(row.to_string())).collect::<LargeStringArray>()),
        ),
        ("number", Arc::new((0..rows).map(|row| -number(row)).collect::<Int64Array>())),
        (
            "small",
            Arc::new((0..rows).map(|row| u8::try_from(row % 200).unwrap()).collect::<UInt8Array>()),
        ),
        ("words", Arc::new(words)),
        (
            "price",
            Arc::new(
                (0..rows)
                    .map(|row| f64::from(u32::try_from(row).unwrap()) / 2.0)
                    .collect::<Float64Array>(),
            ),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = ::parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(1000))
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))
            .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn batches_of(path: &Path) -> arrow_array::RecordBatch {
    let file = std::fs::File::open(path).unwrap();
    let builder =
        ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<_> =
        builder.with_batch_size(1 << 20).build().unwrap().map(Result::unwrap).collect();
    arrow_select::concat::concat_batches(&schema, &batches).unwrap()
}

#[test]
fn parquet_keys_are_text_and_whole_numbers() {
    let files = Files::new();
    let path = files.with("table.parquet", parquet_of(20_001));
    let input = Input::open(&path, &std::env::temp_dir()).unwrap();
    // Its first bytes decide, whatever the caller says.
    assert_eq!(
        Format::guess(&input, &Hints { delimiter: Some(b';'), ..Hints::default() }).unwrap(),
        Format::Parquet
    );
    let named = ["number", "id", "small", "large", "words"];
    let mut table = open(&path, Format::Parquet, &named).unwrap();
    assert_eq!(table.columns(), ["id", "large", "number", "small", "words", "price"]);
    let keys = keys_of(&mut table).unwrap();
    assert_eq!(keys.len(), 20_001);
    for (row, key) in keys.iter().enumerate() {
        let id = if row.is_multiple_of(10) { String::new() } else { format!("id-{row}") };
        let number = (-i64::try_from(row).unwrap()).to_string();
        let (small, word) = ((row % 200).to_string(), ["red", "green", "blue"][row % 3]);
        assert_eq!(*key, [number, id, small, row.to_string(), word.to_owned()]);
    }
}

#[test]
fn parquet_rows_are_written_with_their_types() {
    let files = Files::new();
    let path = files.with("table.parquet", parquet_of(20_001));
    let whole = batches_of(&path);
    for (selected, columns) in
        [(&[][..], vec![0, 1, 2, 3, 4, 5]), (&["words", "#1", "words"], vec![4, 0, 4])]
    {
        let mut table = select(&path, Format::Parquet, &["id"], selected).unwrap();
        let counts = table.scan(|_| {}, |_| Ok::<_, TableError>(())).unwrap();
        assert_eq!(counts.rows, 20_001);
        let output = files.path("matched.parquet");
        let mut last = 0;
        let written = table.write_matched::<TableError>(
            &counts,
            Output::File(output.clone()),
            |done| last = done,
            |row| Ok(row % 7 == 3),
        );
        assert_eq!(written.unwrap().rows, 2857);
        assert_eq!(last, std::fs::metadata(&path).unwrap().len());
        let wanted: arrow_array::BooleanArray = (0..20_001).map(|row| Some(row % 7 == 3)).collect();
        let expected = arrow_select::filter::filter_record_batch(&whole, &wanted).unwrap();
        assert_eq!(batches_of(&output), expected.project(&columns).unwrap());
    }
    // The same table as a stream gives the same result.
    let mut table = open(&path, Format::Parquet, &["id"]).unwrap();
    let counts = table.scan(|_| {}, |_| Ok::<_, TableError>(())).unwrap();
    let mut stream = Vec::new();
    table
        .write_matched::<TableError>(
            &counts,
            Output::Writer(Box::new(&mut stream)),
            |_| {},
            |_| Ok(false),
        )
        .unwrap();
    assert_eq!(batches_of(&files.with("stream.parquet", stream)).num_rows(), 0);
}

#[test]
fn rows_of_parquet_become_csv_and_back_by_the_names_of_outputs() {
    let files = Files::new();
    let path = files.with("table.parquet", parquet_of(12));
    let mut table = open(&path, Format::Parquet, &["id"]).unwrap();
    let csv = files.path("matched.csv");
    table.check_output(&Output::File(csv.clone())).unwrap();
    let counts = table.scan(|_| {}, nothing()).unwrap();
    let output = Output::File(csv.clone());
    let written = table.write_matched::<TableError>(&counts, output, |_| {}, |row| Ok(row > 9));
    assert_eq!(written.unwrap().rows, 2);
    let text = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(
        text,
        "id,large,number,small,words,price\n,10,-10,10,green,5\nid-11,11,-11,11,blue,5.5\n"
    );
    let mut table = open(&csv, COMMA, &["id"]).unwrap();
    let again = files.path("again.parquet");
    table.check_output(&Output::File(again.clone())).unwrap();
    assert_eq!(write_all(&mut table, Output::File(again.clone())).unwrap().rows, 2);
    let mut table = open(&again, Format::Parquet, &["price", "id"]).unwrap();
    assert_eq!(table.columns(), ["id", "large", "number", "small", "words", "price"]);
    assert_eq!(keys_of(&mut table).unwrap(), [["5", ""], ["5.5", "id-11"]]);
}

#[test]
fn parquet_that_cannot_be_used_is_refused_with_the_reason() {
    let files = Files::new();
    let bytes = parquet_of(2000);
    let path = files.with("table.parquet", &bytes);
    let says = |error: TableError, text: &str| {
        let error = error.to_string();
        assert!(error.contains(text), "{error}");
    };
    let refused = |key: &[&str], text| says(open(&path, Format::Parquet, key).err().unwrap(), text);
    let price = keys_of(&mut open(&path, Format::Parquet, &["price"]).unwrap()).unwrap_err();
    says(price, "row 2: the value of the key column \"price\" is a fraction");
    refused(&["nothing"], "no column is called \"nothing\"");
    refused(&[], "no key column was named");
    let cut = files.with("cut.parquet", &bytes[..bytes.len() - 100]);
    says(open(&cut, Format::Parquet, &["id"]).err().unwrap(), "cannot be read as Parquet");
    let text = files.with("text.parquet", "id\n1\n");
    says(open(&text, Format::Parquet, &["id"]).err().unwrap(), "cannot be read as Parquet");
    let kept = Input::kept(&bytes[..], &std::env::temp_dir()).unwrap();
    assert_eq!(Format::guess(&kept, &Hints::default()).unwrap(), Format::Parquet);
    let options = TableOptions { format: Format::Parquet, key: Vec::new(), select: Vec::new() };
    says(Table::open(kept, &options).err().unwrap(), "cannot come on standard input");
    // The output's name must match the format.
    let table = open(&path, Format::Parquet, &["id"]).unwrap();
    says(
        table.check_output(&Output::File(files.path("matched.txt"))).unwrap_err(),
        "that ends in .parquet, .csv or .tsv",
    );
    table.check_output(&Output::File(files.path("matched.parquet"))).unwrap();
    let lines = files.with("ids.txt", "1\n");
    let lines = open(&lines, Format::Lines, &[]).unwrap();
    says(
        lines.check_output(&Output::File(files.path("m.parquet"))).unwrap_err(),
        "does not end in .parquet",
    );
    // The file changes between the passes.
    let mut table = open(&path, Format::Parquet, &["id"]).unwrap();
    let counts = table.scan(|_| {}, |_| Ok::<_, TableError>(())).unwrap();
    std::fs::write(&path, parquet_of(2001)).unwrap();
    let mut stream = Vec::new();
    let written = table.write_matched::<TableError>(
        &counts,
        Output::Writer(Box::new(&mut stream)),
        |_| {},
        |_| Ok(true),
    );
    says(written.unwrap_err(), "changed");
}

proptest! {
    /// A damaged file is refused or read, and nothing else.
    #[test]
    fn damaged_parquet_does_no_harm(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let files = Files::new();
        let mut bytes = parquet_of(50);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let path = files.with("table.parquet", bytes);
        if let Ok(mut table) = open(&path, Format::Parquet, &["id"]) {
            let _ = keys_of(&mut table);
        }
    }
}
