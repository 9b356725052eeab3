//! What a text table is, as far as nobody has said: its delimiter, and whether its first record names
//! the columns. Decided by its first records; refused where they admit two answers.

use convelo_keys::is_unknown;
use convelo_untrusted::{line_end, lines};

use super::ending::trimmed;
use super::error::{Fault, TableError};
use super::format::Format;
use super::input::{Input, ending};
use super::record::{Dialect, Scanned, scan};
use super::shape::{Kind, pattern};
use super::signature::{self, SIGNATURE_BYTES};
use super::source::text_start;
use crate::limits::{SAMPLE_BYTES, SAMPLE_RECORDS};

/// What a caller says of a table; the rest is found out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// The kind of file.
    pub kind: Option<FileKind>,
    /// The delimiter; a file with one is CSV.
    pub delimiter: Option<u8>,
    /// The escape character of a CSV file.
    pub escape: Option<u8>,
    /// Whether the first record names the columns.
    pub header: Option<bool>,
}

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Fields between delimiters.
    Csv,
    /// One id per line.
    Lines,
    /// Parquet.
    Parquet,
}

const PARQUET: &[u8] = b"PAR1";

impl Format {
    /// The format of a file: as the caller says, or else by its first bytes and its name, without a
    /// trailing `.gz` or `.zst`.
    ///
    /// `.csv` is CSV, `.tsv` and `.tab` are CSV with tabs, and `.txt` is one id per line; a given
    /// delimiter makes any file CSV. If none is given, it is the one of `,` `;` tab and `|` that gives
    /// all of the first records the same number of fields, or the one that Excel's line `sep=;` names.
    ///
    /// # Errors
    /// If the name does not help, two delimiters are equally good, the file is none that is read, or
    /// it cannot be read at all.
    pub fn guess(input: &Input, hints: &Hints) -> Result<Self, TableError> {
        let refuse = |fault| TableError::new(input.path(), fault);
        let head = input.head(SIGNATURE_BYTES)?;
        let mut kind = hints.kind;
        if kind.is_none() && head.starts_with(PARQUET) {
            kind = Some(FileKind::Parquet);
        }
        if kind == Some(FileKind::Parquet) {
            return Ok(Self::Parquet);
        }
        let other = signature::binary(&head);
        let other =
            other.or_else(|| (kind != Some(FileKind::Lines)).then(|| signature::text(&head))?);
        let ending = ending(input.path());
        if let Some(fault) = other {
            let workbook = matches!(ending.as_deref(), Some("xlsx" | "xlsm" | "xlsb" | "ods"));
            return Err(refuse(if workbook { signature::workbook() } else { fault }));
        }
        let tabs = matches!(ending.as_deref(), Some("tsv" | "tab")).then_some(b'\t');
        let csv = hints.delimiter.is_some() || tabs.is_some() || ending.as_deref() == Some("csv");
        match kind {
            Some(FileKind::Lines) => return Ok(Self::Lines),
            None if !csv && ending.as_deref() == Some("txt") => return Ok(Self::Lines),
            None if !csv => return Err(refuse(Fault::UnknownFormat)),
            _ => {}
        }
        let (header, escape) = (hints.header.unwrap_or(true), hints.escape);
        let given = hints.delimiter.or(if kind.is_none() { tabs } else { None });
        let delimiter = match given {
            Some(delimiter) => delimiter,
            None => Sample::of(input)?.delimiter(escape).map_err(refuse)?,
        };
        Ok(Self::Csv { delimiter, header, escape })
    }
}

/// Where the rows of a text begin, and in which line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) offset: u64,
    pub(super) line: u64,
}

impl Start {
    /// Behind the byte order mark and, in CSV, the line that tells Excel the delimiter.
    pub(super) fn of(head: &[u8], format: Format) -> Self {
        let mark = text_start(head);
        let told = match format {
            Format::Csv { .. } => told_delimiter(&head[mark..]),
            _ => None,
        };
        let (length, line) = told.map_or((0, 1), |(_, length)| (length, 2));
        Self { offset: (mark + length) as u64, line }
    }
}

/// The delimiter that a first line names for Excel, as in `sep=;`, and the length of that line.
fn told_delimiter(text: &[u8]) -> Option<(u8, usize)> {
    let quoted = text.starts_with(b"\"");
    let rest = text.get(usize::from(quoted)..)?;
    let told = rest.get(..4).filter(|told| told.eq_ignore_ascii_case(b"sep=")).and(rest.get(4))?;
    let end = usize::from(quoted) + 5;
    let end = end + usize::from(quoted && text.get(end) == Some(&b'"'));
    let length = line_end(text.get(end..)?);
    (length > 0 && told.is_ascii()).then_some((*told, end + length))
}

/// The first records of a text.
pub(super) struct Sample {
    head: Vec<u8>,
    /// Whether that is all of it.
    whole: bool,
}

impl Sample {
    pub(super) fn of(input: &Input) -> Result<Self, TableError> {
        let mut head = input.head(SAMPLE_BYTES)?;
        let whole = (head.len() as u64) < SAMPLE_BYTES;
        head.drain(..text_start(&head));
        Ok(Self { head, whole })
    }

    /// The records as they stand with this dialect, passed on with their bytes' places, as long as
    /// `each` wants more. Returns false if one is not well-formed.
    fn each_record(&self, dialect: Dialect, mut each: impl FnMut(Record<'_>) -> bool) -> bool {
        let told = told_delimiter(&self.head).map_or(0, |(_, length)| length);
        let mut rest = &self.head[told..];
        if self.whole {
            rest = &rest[..trimmed(rest, true, Some(dialect.delimiter)).0];
        }
        let (mut spans, mut cooked) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            rest = rest.strip_prefix("\u{feff}".as_bytes()).unwrap_or(rest);
            spans.clear();
            cooked.clear();
            match scan(rest, self.whole, dialect, &mut spans, &mut cooked) {
                Ok(Scanned::More) => return true,
                Ok(Scanned::Blank(length)) => rest = &rest[length..],
                Ok(Scanned::Record { length, .. }) => {
                    if !each(Record { bytes: rest, spans: &spans, cooked: &cooked }) {
                        return true;
                    }
                    rest = &rest[length..];
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// The delimiter that gives every record the same number of fields.
    fn delimiter(&self, escape: Option<u8>) -> Result<u8, Fault> {
        if let Some((delimiter, _)) = told_delimiter(&self.head) {
            return Ok(delimiter);
        }
        let candidates = *b",;\t|";
        let tried = candidates.map(|delimiter| self.tried(Dialect { delimiter, escape }));
        let among = |wanted: &dyn Fn(&&Tried) -> bool| -> Vec<&Tried> {
            tried.iter().filter(wanted).collect()
        };
        let mut good = among(&|tried| tried.consistent() && tried.well_formed);
        if good.is_empty() {
            good = among(&|tried| tried.consistent());
        }
        if good.len() > 1 && good.iter().any(|tried| !tried.prose) {
            good.retain(|tried| !tried.prose);
        }
        if good.is_empty() {
            good = among(&|tried| tried.first > 1);
        }
        if good.is_empty() && !tried.iter().any(Tried::has_title) {
            // One column, if a comma would separate nothing: what else stands in it is text.
            good = among(&|tried| tried.delimiter == b',' && tried.split == 0);
        }
        match good[..] {
            [one] => Ok(one.delimiter),
            // The row where it splits something will be refused by its line.
            [] => {
                let most = tried.iter().rev().max_by_key(|tried| tried.split);
                Ok(most.map_or(b',', |tried| tried.delimiter))
            }
            _ => {
                let found = good.iter().map(|tried| char::from(tried.delimiter)).collect();
                Err(Fault::Delimiters { found })
            }
        }
    }

    /// What the records look like with this delimiter.
    fn tried(&self, dialect: Dialect) -> Tried {
        let mut tried = Tried { delimiter: dialect.delimiter, prose: true, ..Tried::default() };
        tried.well_formed = self.each_record(dialect, |record| {
            let width = record.spans.len();
            match tried.records {
                0 => tried.first = width,
                1 => tried.second = width,
                _ => tried.others_differ |= width != tried.second,
            }
            tried.records += 1;
            tried.split += usize::from(width > 1);
            tried.differing |= width != tried.first;
            tried.prose &= record.spans.windows(2).all(|pair| {
                let at = pair[0].raw.1;
                let around =
                    [at.checked_sub(1), Some(at + 1)].map(|at| record.bytes.get(at?).copied());
                let digits = around.iter().flatten().filter(|byte| byte.is_ascii_digit()).count();
                around[1] == Some(b' ') || (dialect.delimiter == b',' && digits == 2)
            });
            true
        });
        tried
    }

    /// The fields of the first records.
    pub(super) fn records(&self, dialect: Dialect) -> Vec<Vec<String>> {
        let mut records = Vec::new();
        self.each_record(dialect, |record| {
            records.push(record.values());
            records.len() < SAMPLE_RECORDS
        });
        records
    }

    /// The first lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut head = &self.head[..];
        if self.whole {
            head = &head[..trimmed(head, true, None).0];
        }
        let text = String::from_utf8_lossy(head);
        let mut found: Vec<String> =
            lines(&text).take(SAMPLE_RECORDS + 1).map(|line| line.text.to_owned()).collect();
        if !self.whole || found.len() > SAMPLE_RECORDS {
            found.pop();
        }
        found
    }
}

/// A record of a sample: what begins with its bytes.
struct Record<'r> {
    bytes: &'r [u8],
    spans: &'r [super::record::Span],
    cooked: &'r [u8],
}

impl Record<'_> {
    fn values(&self) -> Vec<String> {
        let value = |span: &super::record::Span| {
            let text = if span.cooked { self.cooked } else { self.bytes };
            String::from_utf8_lossy(&text[span.value.0..span.value.1]).into_owned()
        };
        self.spans.iter().map(value).collect()
    }
}

/// How the first records come out with one delimiter.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "findings that do not depend on each other")]
struct Tried {
    delimiter: u8,
    records: usize,
    /// Fields in the first record, and in the second.
    first: usize,
    second: usize,
    /// Records with more than one field.
    split: usize,
    differing: bool,
    /// Whether the records behind the first differ.
    others_differ: bool,
    well_formed: bool,
    /// Whether it always stands as in prose and in numbers: before a space or, for the comma, between
    /// digits.
    prose: bool,
}

impl Tried {
    fn consistent(&self) -> bool {
        self.records > 0 && self.first > 1 && !self.differing
    }

    /// Whether all records look like a table, but for a first line that could be its title.
    fn has_title(&self) -> bool {
        self.records > 2 && self.first == 1 && self.second > 1 && !self.others_differ
    }
}

/// What a first record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// It names the columns.
    Header,
    /// It is a record like the others.
    Record,
    /// It may be either.
    Unknown,
}

impl First {
    /// Judges the first record of a CSV text by those after it. `key` is the columns of the key, as far
    /// as they are known.
    pub(super) fn of(first: &[String], others: &[Vec<String>], key: &[usize]) -> Self {
        let columns: Vec<Column<'_>> = (0..first.len())
            .map(|number| {
                Column::of(&first[number], others.iter().filter_map(|record| record.get(number)))
            })
            .collect();
        let mut named = columns.iter().filter(|column| column.first != Kind::Blank);
        let all = named.clone().count() > 0 && named.all(Column::is_value);
        let in_key = key.iter().any(|key| columns.get(*key).is_some_and(Column::is_value));
        if all || in_key || columns.iter().any(Column::is_surely_value) {
            return Self::Record;
        }
        let known = first.iter().any(|name| is_known(name));
        // Where a name should be, there is none.
        let unnamed = first.iter().any(|name| is_unknown(name));
        let evident = !unnamed && (known || columns.iter().any(Column::differs));
        if evident && !columns.iter().any(Column::is_value) { Self::Header } else { Self::Unknown }
    }

    /// Judges the first line of an id list by those after it.
    pub(super) fn of_lines(lines: &[String]) -> Self {
        let Some((first, others)) = lines.split_first() else { return Self::Unknown };
        let column = Column::of(first, others.iter());
        if column.is_value() {
            return Self::Record;
        }
        // A line of a CSV file that is called a list may hold several names.
        let known = first.split([',', ';', '\t', '|']).any(is_known);
        let surely = match column.most {
            Some(Kind::Address | Kind::Number) => true,
            Some(Kind::Code) => known || column.values >= FEW,
            _ => known && column.values > 0,
        };
        let name = matches!(column.first, Kind::Words | Kind::Code) && (column.differs() || known);
        if surely && name { Self::Header } else { Self::Unknown }
    }
}

/// So many ids say what an id looks like.
const FEW: usize = 20;

/// The first text of a column, and those below it.
struct Column<'c> {
    text: &'c str,
    first: Kind,
    /// The kind of nine in ten of the values that are not blank.
    most: Option<Kind>,
    /// How many values that are not blank there are.
    values: usize,
    /// Whether nine in ten of them have the first text's pattern.
    alike: bool,
}

impl<'c> Column<'c> {
    fn of<'v>(text: &'c str, values: impl Iterator<Item = &'v String>) -> Self {
        let own = pattern(text);
        let (mut count, mut alike, mut kinds) = (0, 0, Vec::<(Kind, usize)>::new());
        for value in values {
            let kind = Kind::of(value);
            if kind == Kind::Blank {
                continue;
            }
            count += 1;
            alike += usize::from(pattern(value) == own);
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((kind, 1)),
            }
        }
        let most = |part: usize| part * 10 >= count * 9 && count > 0;
        Self {
            text,
            first: Kind::of(text),
            most: kinds.iter().find(|(_, part)| most(*part)).map(|(kind, _)| *kind),
            values: count,
            alike: most(alike),
        }
    }

    /// Whether the first text looks like a value, which names seldom do.
    fn is_value(&self) -> bool {
        match self.first {
            Kind::Address | Kind::Number => true,
            Kind::Code => self.alike && self.values > 1,
            Kind::Blank | Kind::Words => false,
        }
    }

    /// Whether the first text looks like a value and never like a name.
    fn is_surely_value(&self) -> bool {
        let signs = || pattern(self.text).len() > 1;
        self.first == Kind::Address
            || (self.first == Kind::Number && signs() && (self.alike || self.values == 0))
    }

    /// Whether the values are of another kind than the first text.
    fn differs(&self) -> bool {
        self.most.is_some_and(|most| most != self.first)
    }
}

/// Whether a text is a name that people give to columns, and no value.
fn is_known(name: &str) -> bool {
    const KNOWN: [&str; 44] = [
        "id",
        "ids",
        "uid",
        "uuid",
        "guid",
        "key",
        "keys",
        "pk",
        "email",
        "emails",
        "mail",
        "phone",
        "telephone",
        "tel",
        "mobile",
        "msisdn",
        "name",
        "firstname",
        "lastname",
        "surname",
        "forename",
        "givenname",
        "familyname",
        "dob",
        "birthdate",
        "birthday",
        "dateofbirth",
        "address",
        "street",
        "city",
        "zip",
        "zipcode",
        "postcode",
        "country",
        "iban",
        "ssn",
        "bsn",
        "hash",
        "customer",
        "customerid",
        "userid",
        "customerno",
        "number",
        "value",
    ];
    let plain: String =
        name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    KNOWN.contains(&plain.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str) -> Sample {
        Sample { head: text.as_bytes()[text_start(text.as_bytes())..].to_vec(), whole: true }
    }

    fn delimiter(text: &str) -> Result<char, String> {
        let found = sample(text).delimiter(None);
        found.map(char::from).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_delimiter_gives_every_record_as_many_fields() {
        for (text, expected) in [
            ("id,name;x,y\n1,a;b,c\n2,d,e\n", ','),
            ("id\tname\n1\ta,b\n", '\t'),
            ("a|b|\"c,,,,,\"\r\n", '|'),
            ("\"a,b\nc,d\";x\n1;2", ';'),
            ("id\n", ','),
            ("", ','),
            ("1;Smith, Jo\n2;Doe, Al\n", ';'),
            ("1;Smith, Jo, Dr\n2;Doe, Al, Dr\n", ';'),
            ("1;1,50;2,50;3,50\n2;2,50;3,50;4,50\n", ';'),
            ("id;name, first\n1;Smith, Jo\n", ';'),
            ("id;name (last, first, middle)\n1;x\n", ';'),
            ("id, name\n1, Jo\n", ','),
            ("a,b\r1,2\r", ','),
            ("\u{feff}a;b\n\u{feff}1;2,\n", ';'),
            ("id;x\n1;a\n\n(1 row affected)\n", ';'),
            ("id;x\n1;a\n   \n", ';'),
            // The row that has too many is refused later, by its line.
            ("id,x\na,1\nb,2,3\n", ','),
            ("title\nid;x\n1;a\n", ';'),
            // One column, in whose values the others stand.
            ("name\nAnna\tLou\n", ','),
            ("name\nSmith; Jo\nDoe\n", ','),
            ("id\na|b\nc\nd|e|f\n", ','),
            ("name\nSmith, Jo\nDoe\n", ','),
            ("name\n\"Smith, Jo\"\n", ','),
            ("id;x\n1;\"Big\" Joe\n", ';'),
            ("sep=;\nid;x,y\n1;a,b\n", ';'),
            ("\"sep=|\"\r\nid|x\n", '|'),
            ("sep=\t\na\tb\n", '\t'),
        ] {
            assert_eq!(delimiter(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn two_good_delimiters_are_one_too_many() {
        for text in ["1,x;y\n2,z;w\n", "a|b\tc\n1|2\t3\n", "id;x,y\n1;2\n3,4\n"] {
            let error = delimiter(text).unwrap_err();
            assert!(error.contains("could be the delimiter"), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_line_for_excel_is_no_record() {
        let csv = Format::csv(b';', true);
        for (text, start) in [
            ("sep=;\r\nid;x\n", Start { offset: 7, line: 2 }),
            ("\u{feff}SEP=;\nid;x\n", Start { offset: 9, line: 2 }),
            ("\"sep=;\"\nid;x\n", Start { offset: 8, line: 2 }),
            ("sep=ab\n", Start { offset: 0, line: 1 }),
            ("sep=;", Start { offset: 0, line: 1 }),
            ("sepal;x\n", Start { offset: 0, line: 1 }),
            ("\u{feff}id\n", Start { offset: 3, line: 1 }),
        ] {
            assert_eq!(Start::of(text.as_bytes(), csv), start, "{text:?}");
        }
        assert_eq!(Start::of(b"sep=;\n1\n", Format::Lines), Start { offset: 0, line: 1 });
    }

    fn first(text: &str, key: &[usize]) -> First {
        let records = sample(text).records(Dialect { delimiter: b',', escape: None });
        First::of(&records[0], &records[1..], key)
    }

    #[test]
    fn a_first_record_is_told_from_a_header() {
        for (text, key, expected) in [
            ("id,email\n1,a@x.org\n", &[0][..], First::Header),
            ("number,email,city\n0,u@x.org,\"Delft, NL\"\n", &[1], First::Header),
            ("kunde,umsatz\nK-1,7\n", &[0], First::Header),
            ("id,2019,2020\n7,1,2\n", &[0], First::Unknown),
            ("name,city\nAnna,Delft\n", &[], First::Header),
            ("id,x\n", &[0], First::Header),
            ("wer,wo\nAnna,Delft\n", &[0], First::Unknown),
            ("Anna,Delft\nBert,Gouda\n", &[0], First::Unknown),
            ("1,a\n2,b\n", &[0], First::Record),
            ("1,a\n2,b\n", &[1], First::Unknown),
            ("1\n2\n", &[], First::Record),
            ("anna@x.org,Anna,1980-01-02\nbert@x.org,Bert,1981-02-03\n", &[], First::Record),
            ("Anna,Smith,1980-01-02\nBert,Jones,1981-02-03\n", &[], First::Record),
            ("Anna,1980-01-02\n", &[], First::Record),
            ("NULL,Smith\n1,Jones\n2,Kim\n3,Lee\n", &[1], First::Unknown),
            (",Smith\n1,Jones\n", &[1], First::Unknown),
            ("Smith,unknown\nJones,1980-01-11\n", &[0], First::Unknown),
            ("n/a,a\n1,b\n", &[1], First::Unknown),
            ("\\N,id\n1,b\n", &[1], First::Unknown),
            ("id-01,x\nid-02,y\nid-03,z\n", &[0], First::Record),
            ("sha256,email2\n9f86d081884c,a@x.org\n2c26b46b68ff,b@x.org\n", &[0], First::Header),
            ("+49 30 1,a\n+49 30 2,b\n", &[1], First::Record),
        ] {
            assert_eq!(first(text, key), expected, "{text:?} by {key:?}");
        }
    }

    #[test]
    fn a_first_line_is_told_from_a_header() {
        let many = (0..FEW).map(|row| format!("K{row}")).collect::<Vec<_>>().join("\n") + "\n";
        for (text, expected) in [
            ("email\na@x.org\nb@x.org\n", First::Header),
            ("customer_id\n1001\n1002\n", First::Header),
            ("ID\nid-1\nid-2\n", First::Header),
            ("Kundennummer\nK1\nK2\n", First::Unknown),
            (&format!("Kundennummer\n{many}"), First::Header),
            ("name\nanna\nbert\n", First::Header),
            ("id,name\n1,a\n2,b\n", First::Header),
            ("city;e-mail\nDelft;a@x.org\n", First::Header),
            ("car\ntrain\ncat\n", First::Unknown),
            ("a\nid-1\n", First::Unknown),
            ("a@x.org\nb@x.org\n", First::Record),
            ("email\n", First::Unknown),
            ("", First::Unknown),
        ] {
            assert_eq!(First::of_lines(&sample(text).lines()), expected, "{text:?}");
        }
    }

    #[test]
    fn names_of_files() {
        let directory = tempfile::tempdir().unwrap();
        let guess = |name: &str, delimiter| {
            let path = directory.path().join(name);
            std::fs::write(&path, "a;b;c\n").unwrap();
            let hints = Hints { delimiter, ..Hints::default() };
            Format::guess(&Input::open(&path, directory.path()).unwrap(), &hints).ok()
        };
        let csv_with = |delimiter| Some(Format::csv(delimiter, true));
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
