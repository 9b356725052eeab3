//! Files that are no text, or no table, recognised by how they begin.

use super::error::Fault;

/// What somebody can do who has such a file.
const UNPACK: &str = "unpack it, or pack the table with gzip or Zstandard";
const EXPORT_CSV: &str = "export the table as CSV in UTF-8";
const EXPORT_PARQUET: &str = "export the table as Parquet, or as CSV in UTF-8";
const SAVE_SHEET: &str = "save the sheet as CSV in UTF-8";
const SAVE_UTF8: &str = "save or export the table as UTF-8";

/// The beginnings of files that are no text.
const BINARY: &[(&[u8], &str, &str)] = &[
    (b"\xff\xfe\0\0", "UTF-32 text (little-endian)", SAVE_UTF8),
    (b"\0\0\xfe\xff", "UTF-32 text (big-endian)", SAVE_UTF8),
    (b"\xff\xfe", "UTF-16 text (little-endian)", SAVE_UTF8),
    (b"\xfe\xff", "UTF-16 text (big-endian)", SAVE_UTF8),
    (b"\xd0\xcf\x11\xe0", "an old workbook (.xls)", SAVE_SHEET),
    (b"\x1f\x8b", "a gzip archive in another archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive in another archive", UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", UNPACK),
    (b"\x5d\0\0", "an LZMA archive", UNPACK),
    (b"BZh", "a bzip2 archive", UNPACK),
    (b"\x04\x22\x4d\x18", "an LZ4 archive", UNPACK),
    (b"\xff\x06\0\0sNaPpY", "a Snappy archive", UNPACK),
    (b"\x1f\x9d", "a compress archive (.Z)", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"%PDF", "a PDF document", EXPORT_CSV),
    (b"{\\rtf", "an RTF document", EXPORT_CSV),
    (b"ORC", "an ORC file", EXPORT_PARQUET),
    (b"Obj\x01", "an Avro file", EXPORT_PARQUET),
    (b"ARROW1", "an Arrow file", EXPORT_PARQUET),
    (b"\xff\xff\xff\xff", "an Arrow stream", EXPORT_PARQUET),
    (b"FEA1", "a Feather file", EXPORT_PARQUET),
    (b"PAR1", "a Parquet file", "do not have it read as text"),
    (b"PARE", "an encrypted Parquet file", "write it anew without encryption"),
    (b"SQLite format 3\0", "an SQLite database", EXPORT_CSV),
    (b"PGDMP", "a PostgreSQL dump", EXPORT_CSV),
    (b"\0\x01\0\0Standard ", "an Access database", EXPORT_CSV),
    (b"\x89HDF", "an HDF5 file", EXPORT_PARQUET),
    (b"$FL2", "an SPSS file", EXPORT_CSV),
    (b"<stata_dta>", "a Stata file", EXPORT_CSV),
    (b"RDX", "an R data file", EXPORT_CSV),
    (b"\x89PNG", "an image", EXPORT_CSV),
    (b"\x93NUMPY", "a NumPy array", EXPORT_PARQUET),
    (b"\xff\xd8\xff", "an image", EXPORT_CSV),
    (b"\x80\x02", "a pickled Python object", EXPORT_PARQUET),
    (b"\x80\x03", "a pickled Python object", EXPORT_PARQUET),
    (b"\x80\x04", "a pickled Python object", EXPORT_PARQUET),
    (b"\x80\x05", "a pickled Python object", EXPORT_PARQUET),
];

/// The beginnings of text that is no table, in lower case, without white space before and within.
const TEXT: &[(&str, &str, &str)] = &[
    ("<!doctypehtml", "an HTML page", EXPORT_CSV),
    ("<html", "an HTML page", EXPORT_CSV),
    ("<table", "an HTML page", EXPORT_CSV),
    ("<?xml", "XML", EXPORT_CSV),
    ("{\"", "JSON", EXPORT_CSV),
    ("[{", "JSON", EXPORT_CSV),
    ("[[", "JSON", EXPORT_CSV),
    ("[\"", "JSON", EXPORT_CSV),
    ("{}", "JSON", EXPORT_CSV),
    ("createtable", "an SQL script", EXPORT_CSV),
    ("insertinto", "an SQL script", EXPORT_CSV),
    ("--mysqldump", "an SQL script", EXPORT_CSV),
    ("-----beginpgpmes", "an encrypted message", "decrypt it"),
];

/// How many first bytes are enough to recognise a file.
pub(super) const SIGNATURE_BYTES: u64 = 512;

/// What a file is that is no text.
pub(super) fn binary(head: &[u8]) -> Option<Fault> {
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        let has = |part: &[u8]| memchr::memmem::find(head, part).is_some();
        let workbook =
            has(b"[Content_Types]") || has(b"xl/") || has(b"opendocument") || has(b"_rels/");
        if workbook {
            return Some(self::workbook());
        }
        let found = "a ZIP archive or a workbook (.xlsx, .ods)";
        let advice = "unpack the archive, or save the sheet as CSV in UTF-8";
        return Some(Fault::NotText { found, advice });
    }
    let inside = match (head.get(8..12), head.get(257..262)) {
        (Some(b"DUCK"), _) => Some(("a DuckDB database", EXPORT_PARQUET)),
        (_, Some(b"ustar")) => Some(("a tar archive", UNPACK)),
        _ => None,
    };
    let known = BINARY.iter().find(|(begin, ..)| head.starts_with(begin));
    let (found, advice) = inside.or(known.map(|(_, found, advice)| (*found, *advice)))?;
    Some(Fault::NotText { found, advice })
}

/// A workbook.
pub(super) fn workbook() -> Fault {
    Fault::NotText { found: "a workbook (.xlsx, .ods)", advice: SAVE_SHEET }
}

/// The kind of file that has names with this ending, if it is one that nothing here writes.
pub(super) fn unwritten(ending: &str) -> Option<&'static str> {
    Some(match ending {
        "xlsx" | "xlsm" | "xlsb" | "xls" | "ods" | "numbers" => "a workbook",
        "json" | "jsonl" | "ndjson" => "JSON",
        "xml" => "XML",
        "html" | "htm" => "an HTML page",
        "pdf" => "a PDF document",
        "doc" | "docx" | "odt" | "rtf" => "a document",
        "zip" | "7z" | "rar" | "tar" | "tgz" => "an archive",
        "bz2" | "xz" | "lz4" | "lzma" | "z" | "br" => "a packed file other than .gz",
        "avro" => "an Avro file",
        "orc" => "an ORC file",
        "arrow" | "arrows" | "feather" | "ipc" => "an Arrow file",
        "sqlite" | "sqlite3" | "db" | "duckdb" | "mdb" | "accdb" => "a database",
        "sql" => "an SQL script",
        "dta" | "sav" | "sas7bdat" | "rds" | "rdata" | "h5" | "hdf5" => {
            "a statistics program's file"
        }
        "npy" | "npz" | "pkl" | "pickle" => "a Python object",
        _ => return None,
    })
}

/// What a text is that is no table.
pub(super) fn text(head: &[u8]) -> Option<Fault> {
    let begin: String = String::from_utf8_lossy(head)
        .trim_start_matches('\u{feff}')
        .chars()
        .filter(|c| !c.is_whitespace())
        .take(16)
        .flat_map(char::to_lowercase)
        .collect();
    let (_, found, advice) = TEXT.iter().find(|(known, ..)| begin.starts_with(known))?;
    Some(Fault::NotText { found, advice })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(head: &[u8]) -> String {
        binary(head).or_else(|| text(head)).map(|fault| fault.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_not_read_is_called_by_its_name() {
        for (head, name) in [
            (&b"PK\x03\x04\x14\0\x06\0xl/worksheets"[..], "a workbook"),
            (b"PK\x03\x04\x14\0\0\0mimetypeapplication/vnd.oasis.opendocument", "a workbook"),
            (b"PK\x03\x04\x14\0\0\0table.csv", "a ZIP archive"),
            (b"BZh91AY&SY", "a bzip2 archive"),
            (b"\xfd7zXZ\0\0", "an xz archive"),
            (b"%PDF-1.7", "a PDF"),
            (b"ORCx", "an ORC file"),
            (b"Obj\x01\x04", "an Avro file"),
            (b"ARROW1\0\0", "an Arrow file"),
            (b"\xff\xff\xff\xff\x10\0", "an Arrow stream"),
            (b"SQLite format 3\0", "an SQLite database"),
            (b"\0\0\0\0\0\0\0\0DUCK", "a DuckDB database"),
            (b"\xff\xfei\0", "UTF-16"),
            (b"\xef\xbb\xbf <!DOCTYPE html>", "an HTML page"),
            (b"<?xml version=\"1.0\"?>", "XML"),
            (b"{\"id\": 1}\n{\"id\": 2}\n", "JSON"),
            (b"[\n  {\n    \"id\": 1", "JSON"),
            (b"INSERT INTO t VALUES (1)", "an SQL script"),
            (b"\x93NUMPY\x01\0", "a NumPy array"),
            (b"-----BEGIN PGP MESSAGE-----\n", "an encrypted message"),
        ] {
            assert!(named(head).starts_with(name), "{}", named(head));
        }
        let mut tar = b"table.csv".to_vec();
        tar.resize(257, 0);
        tar.extend(b"ustar\x0000");
        assert!(named(&tar).starts_with("a tar archive"), "{}", named(&tar));
    }

    #[test]
    fn tables_are_not_called_anything_else() {
        for head in [
            "id,email\n",
            "",
            "{3F2504E0-4F89}\n",
            "[1]\n",
            "ora,b\n",
            "Obj,x\n",
            "PK,x\n",
            "<none>\n",
        ] {
            assert_eq!(named(head.as_bytes()), "", "{head:?}");
        }
    }
}
