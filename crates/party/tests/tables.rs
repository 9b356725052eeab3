//! Where tables come from and where matched rows go: files, writers and batches, in a whole job and
//! on their own.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "../examples/matching.rs"]
#[expect(dead_code, reason = "its main function")]
mod matching;

use std::collections::HashMap;
use std::future::pending;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, LargeStringArray, NullArray, RecordBatch, RecordBatchIterator,
    StringArray, StringViewArray, UInt8Array, new_null_array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, UnionMode};
use arrow_select::concat::concat_batches;
use convelo_party::table::{Counts, Format, Input, Output, Table, TableError, TableOptions};
use convelo_party::{Error, Event, Hint, Kind, Observer, Plan, run};
use matching::{Meeting, batches, csv};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const CSV: Format = Format::csv(b',', true);

fn table(input: Input, format: Format, key: &[&str], select: &[&str]) -> Result<Table, TableError> {
    let columns = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    Table::open(input, &TableOptions { format, key: columns(key), select: columns(select) })
}

fn file(path: &Path, format: Format, key: &[&str]) -> Result<Table, TableError> {
    table(Input::open(path, &std::env::temp_dir())?, format, key, &[])
}

/// The input made from a stream of these batches.
fn kept(batches: Vec<RecordBatch>) -> Input {
    let schema = batches[0].schema();
    let batches = RecordBatchIterator::new(batches.into_iter().map(Ok), schema);
    Input::batches(batches, &std::env::temp_dir()).unwrap()
}

fn stream(batch: RecordBatch, key: &[&str]) -> Result<Table, TableError> {
    table(kept(vec![batch]), Format::Arrow, key, &[])
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap()
}

fn keys(table: &mut Table) -> (Vec<Vec<String>>, Counts) {
    let mut keys = Vec::new();
    let counts = table.scan::<TableError>(
        |_| {},
        |fields| {
            keys.push(fields.map(str::to_owned).collect());
            Ok(())
        },
    );
    (keys, counts.unwrap())
}

/// The kept rows in one batch, and the number of batches they came in.
fn matched(table: &mut Table, keep: impl Fn(u64) -> bool) -> (RecordBatch, usize) {
    let (_, counts) = keys(table);
    let mut given = Vec::new();
    let take = |batch| {
        given.push(batch);
        Ok(())
    };
    let output = Output::Batches(Box::new(take));
    let written = table.write_matched::<TableError>(&counts, output, |_| {}, |row| Ok(keep(row)));
    let whole = concat_batches(&given[0].schema(), &given).unwrap();
    assert_eq!(written.unwrap().rows, whole.num_rows() as u64);
    (whole, given.len())
}

fn parquet(path: &Path, batch: &RecordBatch) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn read_parquet(path: &Path) -> Vec<RecordBatch> {
    let file = std::fs::File::open(path).unwrap();
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file);
    builder.unwrap().build().unwrap().map(Result::unwrap).collect()
}

/// Makes another thread print while rows are being written.
struct Printing(mpsc::SyncSender<bool>);

impl Observer for Printing {
    fn on(&self, event: Event<'_>) {
        if matches!(event, Event::Writing { .. }) {
            let (sender, printed) = mpsc::sync_channel(1);
            thread::spawn(move || {
                let mut stdout = io::stdout();
                writeln!(stdout, "a line of somebody else").unwrap();
                let _ = sender.send(());
            });
            let _ = self.0.send(printed.recv_timeout(Duration::from_secs(10)).is_ok());
        }
    }
}

#[test]
fn others_can_print_while_rows_go_to_standard_output() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.csv");
    std::fs::write(&path, "email\nann@x.org\n").unwrap();
    let (sender, printed) = mpsc::sync_channel(8);
    Runtime::new().unwrap().block_on(async {
        let meeting = Meeting::open().await.unwrap();
        let to_stdout = Output::Writer(Box::new(io::stdout()));
        let to_file = Output::File(directory.path().join("matched.csv"));
        tokio::try_join!(
            meeting.provide("alice", csv(&path).unwrap(), to_stdout, Arc::new(Printing(sender))),
            meeting.provide("bob", csv(&path).unwrap(), to_file, Arc::new(())),
        )
        .unwrap();
    });
    let printed: Vec<bool> = printed.try_iter().collect();
    assert!(!printed.is_empty() && printed.iter().all(|printed| *printed), "{printed:?}");
}

#[test]
fn a_run_can_move_between_threads() {
    fn is_send(_: &impl Send) {}
    let _ = |plan: Plan, table: Table| is_send(&run(plan, table, Arc::new(()), pending()));
}

#[test]
fn batches_are_matched_in_a_job_and_written_as_parquet() {
    let directory = tempfile::tempdir().unwrap();
    let people = |first: i64, last: i64| {
        let ids: Vec<i64> = (first..last).collect();
        let emails = ids.iter().map(|id| Some(format!("p{id}@x.org")));
        let emails = Arc::new(emails.collect::<StringViewArray>()) as ArrayRef;
        batch(vec![("id", Arc::new(Int64Array::from(ids))), ("email", emails)])
    };
    let of = |batch: RecordBatch| {
        let schema = batch.schema();
        batches(RecordBatchIterator::new([Ok(batch)], schema)).unwrap()
    };
    let path = directory.path().join("matched.parquet");
    let (sender, receiver) = mpsc::sync_channel(64);
    let take = move |batch| sender.send(batch).map_err(io::Error::other);
    let (alice, bob) = Runtime::new().unwrap().block_on(async {
        let meeting = Meeting::open().await.unwrap();
        let (to_batches, to_file) = (Output::Batches(Box::new(take)), Output::File(path.clone()));
        tokio::try_join!(
            meeting.provide("alice", of(people(0, 50_000)), to_batches, Arc::new(())),
            meeting.provide("bob", of(people(30_000, 90_000)), to_file, Arc::new(())),
        )
        .unwrap()
    });
    assert_eq!((alice.output, bob.output.as_deref()), (None, Some(&*path)));
    let expected = people(30_000, 50_000);
    let given: Vec<_> = receiver.try_iter().collect();
    assert_eq!(concat_batches(&expected.schema(), &given).unwrap(), expected);
    assert_eq!(concat_batches(&expected.schema(), &read_parquet(&path)).unwrap(), expected);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn who_takes_batches_and_fails_ends_the_run() {
    let one = batch(vec![("email", Arc::new(StringArray::from(vec!["a@x.org"])))]);
    let ended = Runtime::new().unwrap().block_on(async {
        let meeting = Meeting::open().await.unwrap();
        let of = |batch: RecordBatch| {
            let schema = batch.schema();
            batches(RecordBatchIterator::new([Ok(batch)], schema)).unwrap()
        };
        let full = Output::Batches(Box::new(|_| Err(io::Error::other("no room for a batch"))));
        let nowhere = Output::Writer(Box::new(io::sink()));
        let (alice, _) = tokio::join!(
            meeting.provide("alice", of(one.clone()), full, Arc::new(())),
            meeting.provide("bob", of(one.clone()), nowhere, Arc::new(())),
        );
        alice.unwrap_err().to_string()
    });
    assert_eq!(ended, "the output: cannot be written: no room for a batch");
}

/// An output that does not fit the table is refused before anybody is contacted.
#[test]
fn an_output_that_cannot_have_the_rows_of_batches_is_refused_beforehand() {
    let directory = tempfile::tempdir().unwrap();
    let email = || Arc::new(StringArray::from(vec!["a@x.org"])) as ArrayRef;
    let spans = Arc::new(IntervalMonthDayNanoArray::from(vec![None])) as ArrayRef;
    let to = |name: &str| Output::File(directory.path().join(name));
    let plain = stream(batch(vec![("email", email())]), &["email"]).unwrap();
    let choice = [(0, Arc::new(Field::new("number", DataType::Int32, true)))].into_iter().collect();
    let choice = new_null_array(&DataType::Union(choice, UnionMode::Sparse), 1);
    let odd = batch(vec![("email", email()), ("span", spans)]);
    let union = batch(vec![("email", email()), ("choice", choice)]);
    plain.check_output(&to("matched.parquet")).unwrap();
    let error = plain.check_output(&to("matched.txt")).unwrap_err().to_string();
    assert!(
        error.contains("written as Parquet or CSV: choose an output name that ends"),
        "{error}"
    );
    for (odd, output) in
        [(&odd, to("matched.parquet")), (&union, Output::Writer(Box::new(io::sink())))]
    {
        let table = stream(odd.clone(), &["email"]).unwrap();
        let error = table.check_output(&output).unwrap_err().to_string();
        assert!(error.contains("its rows cannot be written"), "{error}");
        let table = self::table(kept(vec![odd.clone()]), Format::Arrow, &["email"], &["email"]);
        table.unwrap().check_output(&output).unwrap();
        assert_eq!(matched(&mut stream(odd.clone(), &["email"]).unwrap(), |_| true).0, *odd);
    }
    stream(odd.clone(), &["email"])
        .unwrap()
        .check_output(&Output::Batches(Box::new(|_| Ok(()))))
        .unwrap();
    let error = Runtime::new().unwrap().block_on(async {
        let meeting = Meeting::open().await.unwrap();
        let table = stream(odd, &["email"]).unwrap();
        let alone = meeting.provide("alice", table, to("matched.parquet"), Arc::new(()));
        alone.await.unwrap_err().downcast::<Error>().unwrap()
    });
    assert_eq!(error.kind(), Kind::Usage, "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn keys_of_batches_are_those_of_parquet_and_refused_in_the_same_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.parquet");
    let columns = batch(vec![
        ("text", Arc::new(StringArray::from(vec![Some("a"), None, Some("")]))),
        ("large", Arc::new(LargeStringArray::from(vec!["b", "c", "d"]))),
        ("number", Arc::new(Int64Array::from(vec![Some(-1), None, Some(i64::MAX)]))),
        ("small", Arc::new(UInt8Array::from(vec![0, 7, 255]))),
        ("price", Arc::new(Float64Array::from(vec![0.5; 3]))),
        ("nothing", Arc::new(NullArray::new(3))),
    ]);
    parquet(&path, &columns);
    for key in [&["text"][..], &["large", "text"], &["number", "small"]] {
        let mut from_file = file(&path, Format::Parquet, key).unwrap();
        let mut from_stream = stream(columns.clone(), key).unwrap();
        assert_eq!(keys(&mut from_stream), keys(&mut from_file), "{key:?}");
    }
    for key in [&["nothing"][..], &["text", "nothing"], &["city"], &[]] {
        let words = |refused: Result<Table, TableError>| refused.err().unwrap().fault().to_string();
        let from_file = words(file(&path, Format::Parquet, key));
        assert_eq!(words(stream(columns.clone(), key)), from_file, "{key:?}");
    }
    let prices = DictionaryArray::<Int32Type>::new(
        Int32Array::from(vec![0]),
        Arc::new(Float64Array::from(vec![0.5])),
    );
    let mut table = stream(batch(vec![("price", Arc::new(prices))]), &["price"]).unwrap();
    let error = table.scan::<TableError>(|_| {}, |_| Ok(())).unwrap_err();
    assert!(
        error.to_string().contains("row 1: the value of the key column \"price\" is a fraction"),
        "{error}"
    );
}

#[test]
fn dictionaries_are_what_they_stand_for() {
    // Nulls occur among both values and keys, and every batch has its own dictionary.
    let column = |values: Vec<Option<&str>>, keys: Vec<Option<i8>>| {
        let values = Arc::new(StringArray::from(values));
        let column = DictionaryArray::<Int8Type>::new(keys.into(), values);
        batch(vec![("word", Arc::new(column)), ("row", Arc::new(Int64Array::from(vec![0; 3])))])
    };
    let batches = vec![
        column(vec![Some("red"), None], vec![Some(0), Some(1), None]),
        column(vec![Some("blue"), Some("red")], vec![Some(1), Some(0), Some(1)]).slice(1, 2),
    ];
    let mut table = table(kept(batches), Format::Arrow, &["word"], &[]).unwrap();
    assert_eq!(keys(&mut table).0.concat(), ["red", "", "", "blue", "red"]);
    let (rows, _) = matched(&mut table, |row| row != 1);
    assert_eq!(
        rows.column(0).data_type(),
        &DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into())
    );
    let words = rows.column(0).as_dictionary::<Int8Type>();
    let words = words.downcast_dict::<StringArray>().unwrap();
    let words: Vec<_> = words.into_iter().collect();
    assert_eq!(words, [Some("red"), None, Some("blue"), Some("red")]);
}

#[test]
fn rows_without_a_match_are_one_batch_without_rows() {
    let columns = batch(vec![("email", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef)]);
    let none = matched(&mut stream(columns.clone(), &["email"]).unwrap(), |_| false);
    assert_eq!(none, (RecordBatch::new_empty(columns.schema()), 1));
    let empty = RecordBatchIterator::new([], columns.schema());
    let input = Input::batches(empty, &std::env::temp_dir()).unwrap();
    let mut table = table(input, Format::Arrow, &["email"], &[]).unwrap();
    assert_eq!(matched(&mut table, |_| true), none);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.csv");
    std::fs::write(&path, "email,city\n").unwrap();
    let (rows, given) = matched(&mut file(&path, CSV, &["email"]).unwrap(), |_| true);
    assert_eq!((rows.num_rows(), rows.num_columns(), given), (0, 2, 1));
}

/// Unpickling a column's metadata would run what somebody else wrote.
#[test]
fn extension_types_are_handed_on_and_not_executed() {
    let metadata = [
        ("ARROW:extension:name", "arrow.py_extension_type"),
        ("ARROW:extension:metadata", "cos\nsystem\n(S'false'\ntR."),
    ];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let field = Field::new("email", DataType::Utf8, true).with_metadata(HashMap::from(metadata));
    let schema = Schema::new_with_metadata(
        vec![field],
        HashMap::from([("pandas".to_owned(), "{}".to_owned())]),
    );
    let emails = Arc::new(StringArray::from(vec!["a", "b"]));
    let columns = RecordBatch::try_new(Arc::new(schema), vec![emails]).unwrap();
    let mut table = stream(columns.clone(), &["email"]).unwrap();
    assert_eq!(keys(&mut table).0.concat(), ["a", "b"]);
    assert_eq!(matched(&mut table, |_| true).0, columns);
}

#[test]
fn batches_that_cannot_be_taken_or_kept() {
    let columns = batch(vec![("email", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef)]);
    let kept_in = |end: Result<RecordBatch, ArrowError>, directory: &Path| {
        let batches = RecordBatchIterator::new([Ok(columns.clone()), end], columns.schema());
        Input::batches(batches, directory).err().unwrap()
    };
    let broken = ArrowError::ComputeError("the cursor was closed".to_owned());
    let error = kept_in(Err(broken), &std::env::temp_dir()).to_string();
    assert!(error.starts_with("the stream of batches: cannot be read: "), "{error}");
    assert!(error.contains("the cursor was closed"), "{error}");
    let error = Error::from(kept_in(Ok(columns.clone()), Path::new("/nonexistent/place")));
    assert_eq!(error.hint(), Some(Hint::TemporaryDirectory), "{error}");
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let error = stream(nothing, &["email"]).err().unwrap();
    assert!(error.to_string().contains("no column is called \"email\""), "{error}");
    let path = std::env::current_exe().unwrap();
    for refused in [
        table(kept(vec![columns.clone()]), CSV, &["email"], &[]),
        file(&path, Format::Arrow, &["email"]),
    ] {
        let error = refused.err().unwrap().to_string();
        assert!(error.ends_with("choose the format that the table has"), "{error}");
    }
}

/// A large batch is kept and read in small pieces, none of which keeps all of it alive.
#[test]
fn a_large_batch_is_cut() {
    let emails: StringViewArray =
        (0..100_000).map(|row| Some(format!("somebody-with-a-name-{row}@example.org"))).collect();
    let columns = batch(vec![("email", Arc::new(emails))]);
    let mut table = stream(columns.clone(), &["email"]).unwrap();
    let size = table.size_bytes();
    assert!(size < 2 * columns.get_array_memory_size() as u64, "{size} bytes are kept");
    let mut steps = Vec::new();
    table.scan::<TableError>(|done| steps.push(done), |_| Ok(())).unwrap();
    assert!(steps.len() > 10 && steps.is_sorted() && steps.last() == Some(&size), "{steps:?}");
    let (rows, given) = matched(&mut table, |row| row.is_multiple_of(8192));
    assert_eq!((rows.num_rows(), given), (13, 13));
    assert!(rows.get_array_memory_size() < 64 * 1024, "{}", rows.get_array_memory_size());
}

#[test]
fn text_becomes_columns_of_text() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.csv");
    let rows = (0..20_000).map(|row| format!("{row},\"a\n{row}\",\n"));
    let text: String = std::iter::once("id,name,name\n".to_owned()).chain(rows).collect();
    std::fs::write(&path, text).unwrap();
    let mut table = self::table(
        Input::open(&path, directory.path()).unwrap(),
        CSV,
        &["id"],
        &["#2", "id", "#3", "#2"],
    )
    .unwrap();
    let (rows, given) = matched(&mut table, |row| row % 2 == 1);
    let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["name", "id", "name", "name"]);
    assert_eq!((rows.num_rows(), given), (10_000, 2));
    assert_eq!(rows.column(0).as_string::<i32>().value(1), "a\n3");
    assert_eq!(rows.column(2).as_string::<i32>().value(1), "");
    assert_eq!(rows.column(3), rows.column(0));
    std::fs::write(&path, "a\n\nb").unwrap();
    let (rows, _) = matched(&mut file(&path, Format::Lines, &[]).unwrap(), |row| row > 0);
    assert_eq!(rows.schema().field(0).name(), "#1");
    let lines: Vec<_> = rows.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(lines, ["", "b"]);
}

/// The same content in every format; the files are in the directory.
struct Forms(TempDir, Vec<Table>);

impl Forms {
    fn of(rows: &[[Option<String>; 2]], cut: usize, key: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let column = |number: usize| rows.iter().map(move |row| row[number].as_deref());
        let quoted = |field: &Option<String>| {
            format!("\"{}\"", field.as_deref().unwrap_or_default().replace('"', "\"\""))
        };
        let lines = rows.iter().map(|row| row.each_ref().map(quoted).join(",") + "\n");
        let text = directory.path().join("t.csv");
        std::fs::write(&text, format!("a,b\n{}", lines.collect::<String>())).unwrap();
        let utf8 = |number| Arc::new(column(number).collect::<StringArray>()) as ArrayRef;
        let large = Arc::new(column(0).collect::<LargeStringArray>()) as ArrayRef;
        let view = Arc::new(column(1).collect::<StringViewArray>()) as ArrayRef;
        let words = Arc::new(column(0).collect::<DictionaryArray<Int32Type>>()) as ArrayRef;
        let forms = [[utf8(0), utf8(1)], [large, view.clone()], [words, view]]
            .map(|[a, b]| batch(vec![("a", a), ("b", b)]));
        let packed = directory.path().join("t.parquet");
        parquet(&packed, &forms[0]);
        let mut tables =
            vec![file(&text, CSV, key).unwrap(), file(&packed, Format::Parquet, key).unwrap()];
        for form in forms {
            let pieces = [form.slice(0, cut), form.slice(cut, rows.len() - cut)];
            tables.push(table(kept(pieces.into()), Format::Arrow, key, &[]).unwrap());
        }
        Self(directory, tables)
    }
}

/// A text column of any type, with nulls as `None`.
fn texts(column: &ArrayRef) -> Vec<String> {
    let column = match column.as_any_dictionary_opt() {
        Some(words) => arrow_select::take::take(words.values(), words.keys(), None).unwrap(),
        None => Arc::clone(column),
    };
    let texts: Vec<Option<&str>> = match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().collect(),
        DataType::LargeUtf8 => column.as_string::<i64>().iter().collect(),
        _ => column.as_string_view().iter().collect(),
    };
    texts.into_iter().map(|text| text.unwrap_or_default().to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_table_in_every_form_has_the_same_keys_and_rows(
        rows in proptest::collection::vec(
            [0, 1].map(|_| proptest::option::of("[a-c\"\n,é€ ]{0,14}")), 1..40),
        kept in proptest::collection::vec(any::<bool>(), 40),
        cut in any::<prop::sample::Index>(),
        key in prop_oneof![Just(&["a"][..]), Just(&["b", "a"][..])],
    ) {
        // A record that repeats the header is no row.
        prop_assume!(rows.iter().all(|row| *row != ["a", "b"].map(|name| Some(name.to_owned()))));
        let Forms(_directory, tables) = Forms::of(&rows, cut.index(rows.len() + 1), key);
        let chosen = |name: &str, row: &[Option<String>; 2]| {
            row[usize::from(name == "b")].clone().unwrap_or_default()
        };
        let expected: Vec<Vec<String>> =
            rows.iter().map(|row| key.iter().map(|name| chosen(name, row)).collect()).collect();
        for mut table in tables {
            prop_assert_eq!(&keys(&mut table).0, &expected, "{:?}", table.format());
            let (found, _) = matched(&mut table, |row| kept[usize::try_from(row).unwrap()]);
            for (number, name) in ["a", "b"].into_iter().enumerate() {
                let survivors = rows.iter().zip(&kept).filter(|(_, kept)| **kept);
                let survivors: Vec<_> = survivors.map(|(row, _)| chosen(name, row)).collect();
                prop_assert_eq!(texts(found.column(number)), survivors, "{:?}", table.format());
            }
        }
    }
}
