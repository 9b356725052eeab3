use std::fmt;
use std::str::FromStr;

use convelo_keys::is_invisible;

use super::error::{ColumnList, Fault};

/// A key column as the user names it.
///
/// `#3` is the third column, in every table. Anything else is a name from the header; in a table
/// without a header, a plain number is also a column number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// A name from the header, compared exactly, or else by what one sees of it.
    Name(String),
    /// A column's number, from 1.
    Number(usize),
}

impl FromStr for Column {
    type Err = ColumnNameError;

    fn from_str(text: &str) -> Result<Self, ColumnNameError> {
        match text.strip_prefix('#') {
            _ if text.is_empty() => Err(ColumnNameError::Empty),
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                match digits.parse() {
                    Ok(0) => Err(ColumnNameError::Zero),
                    Ok(number) => Ok(Self::Number(number)),
                    Err(_) => Err(ColumnNameError::TooLarge),
                }
            }
            _ => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "#{number}"),
        }
    }
}

/// Why a text does not name a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ColumnNameError {
    /// The text is empty.
    #[error("a column's name is empty: give a name from the header or a number such as #1")]
    Empty,
    /// `#0`.
    #[error("columns are counted from #1; there is no #0")]
    Zero,
    /// A number larger than any table has columns.
    #[error("the column's number is too large")]
    TooLarge,
}

/// The index from 0 of `column` in a table with these columns; `columns` lists them for an error.
pub(super) fn resolve(
    column: &Column,
    names: &[String],
    header: bool,
    columns: impl Fn() -> ColumnList,
) -> Result<usize, Fault> {
    let number = match column {
        Column::Number(number) => *number,
        Column::Name(name) if header => return resolve_name(name, names, columns),
        Column::Name(name) => name
            .parse()
            .map_err(|_| Fault::NameWithoutHeader { name: name.clone(), columns: columns() })?,
    };
    match number.checked_sub(1) {
        Some(index) if index < names.len() => Ok(index),
        _ => Err(Fault::NoSuchNumber { number, columns: columns() }),
    }
}

fn resolve_name(
    name: &str,
    names: &[String],
    columns: impl Fn() -> ColumnList,
) -> Result<usize, Fault> {
    let exact = names.iter().any(|other| other == name);
    let is_it = |other: &str| if exact { other == name } else { look_alike(other, name) };
    let mut found = names.iter().enumerate().filter(|(_, other)| is_it(other)).map(|(i, _)| i);
    match (found.next(), found.next()) {
        (Some(index), None) => Ok(index),
        (Some(first), Some(second)) => {
            let numbers = [first, second].into_iter().chain(found).map(|index| index + 1);
            Err(Fault::AmbiguousColumn { name: name.to_owned(), numbers: numbers.collect() })
        }
        (None, _) => Err(Fault::NoSuchColumn { name: name.to_owned(), columns: columns() }),
    }
}

/// Whether two names are the same but for characters that show nothing, such as byte order marks
/// and soft hyphens.
pub(super) fn look_alike(one: &str, other: &str) -> bool {
    let shown = |name: &str| name.chars().filter(|c| !is_invisible(*c)).collect::<String>();
    one == other || ((!one.is_ascii() || !other.is_ascii()) && shown(one) == shown(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["id", "email", "3", "email"].map(str::to_owned).to_vec()
    }

    fn index(text: &str, header: bool) -> Result<usize, String> {
        let column = text.parse::<Column>().map_err(|error| error.to_string())?;
        let columns = || ColumnList::new(&names(), header);
        resolve(&column, &names(), header, columns).map_err(|fault| fault.to_string())
    }

    #[test]
    fn by_name_and_by_number() {
        assert_eq!(index("id", true), Ok(0));
        assert_eq!(index("#2", true), Ok(1));
        assert_eq!(index("3", true), Ok(2), "with a header, 3 is a name");
        assert_eq!(index("4", false), Ok(3));
        assert_eq!(index("#4", false), Ok(3));
    }

    #[test]
    fn what_nobody_sees_does_not_count_in_names() {
        let found = |text: &str, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let column = Column::Name(text.to_owned());
            resolve(&column, &names, true, || ColumnList::new(&names, true)).ok()
        };
        for (text, names, expected) in [
            ("id", &["\u{200b}id", "x"][..], Some(0)),
            ("id", &["x", "i\u{ad}d"], Some(1)),
            ("id", &["x", "\u{202a}id\u{202c}"], Some(1)),
            ("\u{feff}id", &["x", "id"], Some(1)),
            ("i\u{200d}d", &["x", "\u{200b}id"], Some(1)),
            ("id", &["\u{200b}id", "id"], Some(1)),
            ("id", &["\u{200b}id", "\u{ad}id"], None),
            ("id", &["íd", "ID", " id"], None),
        ] {
            assert_eq!(found(text, names), expected, "{text:?} among {names:?}");
        }
    }

    #[test]
    fn refusals_say_what_there_is() {
        assert_eq!(
            index("mail", true),
            Err(r#"no column is called "mail"; the columns are #1 "id", #2 "email", #3 "3", #4 "email""#
                .to_owned())
        );
        assert_eq!(
            index("email", true),
            Err(r#"2 columns are called "email": choose one by its number, #2 or #4"#.to_owned())
        );
        assert_eq!(
            index("#5", false),
            Err("there is no column #5; the table has 4 columns, #1 to #4".to_owned())
        );
        assert_eq!(
            index("0", false),
            Err("there is no column #0; the table has 4 columns, #1 to #4".to_owned())
        );
        assert!(index("id", false).unwrap_err().contains("no header"));
    }

    #[test]
    fn texts() {
        assert_eq!("".parse::<Column>(), Err(ColumnNameError::Empty));
        assert_eq!("#0".parse::<Column>(), Err(ColumnNameError::Zero));
        assert_eq!("#99999999999999999999999".parse::<Column>(), Err(ColumnNameError::TooLarge));
        assert_eq!("#".parse(), Ok(Column::Name("#".to_owned())));
        assert_eq!("#a".parse(), Ok(Column::Name("#a".to_owned())));
        assert_eq!("#12".parse::<Column>().map(|column| column.to_string()), Ok("#12".to_owned()));
    }
}
