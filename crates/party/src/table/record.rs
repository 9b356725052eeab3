//! One record of a CSV text, found in its bytes: RFC 4180 without leniency where that loses rows.

use convelo_untrusted::line_end;
use memchr::{memchr, memchr2, memchr3};

use super::error::Fault;
use crate::limits::MAXIMUM_COLUMNS;

/// How fields are separated and quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    /// What takes the meaning from the character after it, as MySQL and Hadoop write it.
    pub(super) escape: Option<u8>,
}

/// One field: where it stands, and where its value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The field as it is written, with its quotes.
    pub(super) raw: (usize, usize),
    /// Its value: in the same text or, if `cooked`, in the text made for values that are written
    /// in another way than they read.
    pub(super) value: (usize, usize),
    pub(super) cooked: bool,
}

/// What the bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// It takes more bytes to tell.
    More,
    /// An empty line of this length.
    Blank(usize),
    /// A record of this length, with its line end.
    Record {
        length: usize,
        /// Whether white space stands before the opening quote of a field, which is then no quote.
        spaced: bool,
    },
}

/// Scans the record or empty line at the beginning of `bytes`. `complete` says that no bytes follow
/// these. The spans and cooked values are appended, and mean nothing if there is no record.
pub(super) fn scan(
    bytes: &[u8],
    complete: bool,
    dialect: Dialect,
    spans: &mut Vec<Span>,
    cooked: &mut Vec<u8>,
) -> Result<Scanned, Fault> {
    let end_at = |at: usize| {
        let cut = !complete && bytes[at..] == *b"\r";
        if cut { None } else { Some(line_end(&bytes[at..])) }
    };
    match end_at(0) {
        None => return Ok(Scanned::More),
        Some(0) => {}
        Some(length) => return Ok(Scanned::Blank(length)),
    }
    let (first, mut at, mut spaced) = (spans.len(), 0, false);
    loop {
        let (begin, found) = (at, spans.len() - first);
        if found > MAXIMUM_COLUMNS {
            return Err(Fault::TooManyColumns { found });
        }
        let Some((value, end)) = (if bytes.get(at) == Some(&b'"') {
            quoted(bytes, at, complete, dialect, cooked)?
        } else {
            let found = plain(bytes, at, complete, dialect, cooked)?;
            if let Some((_, end)) = found {
                spaced |= leading_quote(&bytes[begin..end])?;
            }
            found
        }) else {
            return Ok(Scanned::More);
        };
        let (value, is_cooked) = value;
        spans.push(Span { raw: (begin, end), value, cooked: is_cooked });
        at = end;
        if at == bytes.len() {
            return Ok(if complete {
                Scanned::Record { length: at, spaced }
            } else {
                Scanned::More
            });
        }
        if bytes[at] == dialect.delimiter {
            at += 1;
            continue;
        }
        return match end_at(at) {
            None => Ok(Scanned::More),
            // A plain field ends nowhere else.
            Some(0) => Err(Fault::TextAfterQuote),
            Some(length) => Ok(Scanned::Record { length: at + length, spaced }),
        };
    }
}

/// Where a value is, and whether it is cooked; and where its field ends.
type Found = Option<(((usize, usize), bool), usize)>;

/// A quoted field that begins at `at`.
fn quoted(
    bytes: &[u8],
    at: usize,
    complete: bool,
    dialect: Dialect,
    cooked: &mut Vec<u8>,
) -> Result<Found, Fault> {
    let more = || if complete { Err(Fault::UnclosedQuote) } else { Ok(None) };
    let (begin, cooked_from) = (at + 1, cooked.len());
    let (mut from, mut is_cooked) = (begin, false);
    loop {
        let rest = &bytes[from..];
        let next = match dialect.escape {
            Some(escape) => memchr2(b'"', escape, rest),
            None => memchr(b'"', rest),
        };
        let Some(next) = next.map(|next| from + next) else { return more() };
        let after = bytes.get(next + 1).copied();
        if bytes[next] == b'"' && after != Some(b'"') {
            if after.is_none() && !complete {
                return Ok(None);
            }
            let value = if is_cooked {
                cooked.extend_from_slice(&bytes[from..next]);
                (cooked_from, cooked.len())
            } else {
                (begin, next)
            };
            return Ok(Some(((value, is_cooked), next + 1)));
        }
        let Some(after) = after else { return more() };
        cooked.extend_from_slice(&bytes[from..next]);
        cooked.push(if bytes[next] == b'"' { b'"' } else { unescaped(after) });
        (from, is_cooked) = (next + 2, true);
    }
}

/// A field without quotes that begins at `at`.
fn plain(
    bytes: &[u8],
    at: usize,
    complete: bool,
    dialect: Dialect,
    cooked: &mut Vec<u8>,
) -> Result<Found, Fault> {
    let Some(escape) = dialect.escape else {
        let end = memchr3(dialect.delimiter, b'\n', b'\r', &bytes[at..]);
        let end = end.map(|end| at + end).or(complete.then_some(bytes.len()));
        return Ok(end.map(|end| (((at, end), false), end)));
    };
    let cooked_from = cooked.len();
    let (mut from, mut is_cooked) = (at, false);
    let ends = |byte: &u8| [dialect.delimiter, b'\n', b'\r', escape].contains(byte);
    loop {
        let end = bytes[from..].iter().position(ends).map(|end| from + end);
        let Some(end) = end.or(complete.then_some(bytes.len())) else { return Ok(None) };
        if bytes.get(end) == Some(&escape) {
            match bytes.get(end + 1) {
                Some(after) => {
                    cooked.extend_from_slice(&bytes[from..end]);
                    cooked.push(unescaped(*after));
                    (from, is_cooked) = (end + 2, true);
                    continue;
                }
                None if !complete => return Ok(None),
                None => return Err(Fault::UnfinishedEscape),
            }
        }
        // The whole of a field that has no value.
        let null = bytes[at..end] == [escape, b'N'];
        let value = match (null, is_cooked) {
            (true, _) => (at, at),
            (false, false) => (at, end),
            (false, true) => {
                cooked.extend_from_slice(&bytes[from..end]);
                (cooked_from, cooked.len())
            }
        };
        return Ok(Some(((value, is_cooked && !null), end)));
    }
}

/// What a character means after the escape character.
fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        other => other,
    }
}

/// Whether a plain field begins with white space and a quote. One that also ends with a quote was
/// meant to be quoted.
fn leading_quote(field: &[u8]) -> Result<bool, Fault> {
    let text = field.trim_ascii();
    if text.first() != Some(&b'"') {
        return Ok(false);
    }
    if text.len() > 1 && text.ends_with(b"\"") { Err(Fault::SpaceBeforeQuote) } else { Ok(true) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMA: Dialect = Dialect { delimiter: b',', escape: None };
    const ESCAPED: Dialect = Dialect { delimiter: b',', escape: Some(b'\\') };

    type Found<'t> = (Vec<String>, Vec<&'t str>);

    /// The values of the first record, and what stands there; none if there is no record.
    fn values(text: &str, dialect: Dialect) -> Result<Option<Found<'_>>, String> {
        let (mut spans, mut cooked) = (Vec::new(), Vec::new());
        let scanned = scan(text.as_bytes(), true, dialect, &mut spans, &mut cooked);
        let Scanned::Record { .. } = scanned.map_err(|fault| fault.to_string())? else {
            return Ok(None);
        };
        let value = |span: &Span| {
            let bytes = if span.cooked { &cooked } else { text.as_bytes() };
            String::from_utf8(bytes[span.value.0..span.value.1].to_vec()).expect("UTF-8")
        };
        let raw = spans.iter().map(|span| &text[span.raw.0..span.raw.1]).collect();
        Ok(Some((spans.iter().map(value).collect(), raw)))
    }

    #[test]
    fn quotes_are_read_as_rfc_4180_says() {
        for (text, expected) in [
            ("a,b\n", &["a", "b"][..]),
            ("a,\n", &["a", ""]),
            (",", &["", ""]),
            ("\"a\",\"b,\"\"c\"\"\nd\"\r\n", &["a", "b,\"c\"\nd"]),
            ("\"\"", &[""]),
            ("\"\"\"\"", &["\""]),
            ("5\" disk,a\"b\"\n", &["5\" disk", "a\"b\""]),
            ("a\\,b\n", &["a\\", "b"]),
        ] {
            let (found, raw) = values(text, COMMA).unwrap().unwrap();
            assert_eq!(found, expected, "{text:?}");
            assert_eq!(raw.join(","), text.trim_end_matches(['\r', '\n']), "{text:?}");
        }
        for text in ["\n", "\r\n", "\r"] {
            assert_eq!(values(text, COMMA), Ok(None));
        }
    }

    #[test]
    fn text_after_a_closing_quote_is_refused() {
        for text in ["1,\"Big\" Joe\n", "\"a\"b", "\"a\" ,b\n", "\"a\"\"\"\"\" x\n"] {
            let error = values(text, COMMA).unwrap_err();
            assert!(error.contains("after a closing quote"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_space_before_a_quote_is_named() {
        for text in ["1, \"a\"\n", "\t\"a\" \n", "1,  \"a\",2\n"] {
            let error = values(text, COMMA).unwrap_err();
            assert!(error.contains("space stands before a quote"), "{text:?}: {error}");
        }
        // Quotes within a text are text.
        let (found, _) = values("1, \"so\" he said\n", COMMA).unwrap().unwrap();
        assert_eq!(found, ["1", " \"so\" he said"]);
    }

    #[test]
    fn an_escape_character_protects_what_follows() {
        for (text, expected) in [
            ("\"Big \\\"Joe\\\"\",\\N\n", &["Big \"Joe\"", ""][..]),
            ("a\\,b,c\\\nd\n", &["a,b", "c\nd"]),
            ("\"a\\\\\",\"\\N\"\n", &["a\\", "N"]),
            ("\"a\"\"b\",x\\n\n", &["a\"b", "x\n"]),
            ("\\é,\"\\é\"\n", &["é", "é"]),
        ] {
            let (found, _) = values(text, ESCAPED).unwrap().unwrap();
            assert_eq!(found, expected, "{text:?}");
        }
        for text in ["a\\", "a\\,b,\\"] {
            let error = values(text, ESCAPED).unwrap_err();
            assert!(error.contains("nothing follows"), "{error}");
        }
    }

    proptest! {
        /// Wherever the bytes are cut, more are asked for until the same record is there.
        #[test]
        fn a_record_in_pieces_is_the_same_record(text in "[a\", \r\n\\\\é]{0,24}", escaped: bool) {
            let dialect = if escaped { ESCAPED } else { COMMA };
            let (mut spans, mut cooked) = (Vec::new(), Vec::new());
            let whole = scan(text.as_bytes(), true, dialect, &mut spans, &mut cooked);
            for cut in 0..text.len() {
                let (mut some, mut made) = (Vec::new(), Vec::new());
                let part = &text.as_bytes()[..cut];
                match (scan(part, false, dialect, &mut some, &mut made), &whole) {
                    (Ok(Scanned::More), _) => {}
                    (Ok(scanned), Ok(whole)) => {
                        prop_assert_eq!((scanned, some, made), (*whole, spans.clone(), cooked.clone()));
                    }
                    (Err(fault), Err(whole)) => {
                        prop_assert_eq!(fault.to_string(), whole.to_string());
                    }
                    (found, _) => prop_assert!(false, "{found:?} and {whole:?}"),
                }
            }
        }
    }
}
