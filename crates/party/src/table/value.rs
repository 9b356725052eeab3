//! The one text of a value in a column of batches.

use std::fmt::Write as _;

use arrow_array::Array;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_schema::{DataType, Field, TimeUnit};
use time::{Date, OffsetDateTime};

/// How the values of a column are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// The text, or the digits of a whole number.
    Plain,
    /// Bytes that must be UTF-8.
    Utf8,
    /// 16 bytes in the form 8-4-4-4-12.
    Uuid,
    /// A decimal number of scale 0.
    Decimal,
    /// A number with a fraction, which must be 0, and smaller than this power of two: from there on,
    /// not every whole number can be told from the next.
    Whole(u32),
    /// A date, as in ISO 8601.
    Date,
    /// An instant or a local time, as in RFC 3339, without trailing zeros of a second.
    Timestamp { utc: bool },
    /// A number with a fraction, in the shortest form that says which one it is; never a key.
    Float,
    /// What has a text and is no key: `true`, fractions, times of day.
    Other,
}

/// What a column needs to be one of a key.
pub(super) struct NoKey {
    pub(super) advice: String,
}

impl Text {
    /// How the values of a key column are written.
    pub(super) fn of_key(field: &Field, uuid: bool, int96: bool) -> Result<Self, NoKey> {
        let name = field.name();
        let cast = |to: &str| Err(NoKey { advice: format!("cast it: CAST(\"{name}\" AS {to})") });
        if int96 {
            return cast("TIMESTAMP");
        }
        match Self::of(field, uuid) {
            Some(Self::Other) => match field.data_type() {
                DataType::Decimal32(precision, _)
                | DataType::Decimal64(precision, _)
                | DataType::Decimal128(precision, _)
                | DataType::Decimal256(precision, _) => cast(&format!("DECIMAL({precision}, 0)")),
                _ => cast("VARCHAR"),
            },
            Some(text) => Ok(text),
            None => match field.data_type() {
                DataType::Struct(fields) => {
                    let inner = fields.first().map_or("…", |field| field.name());
                    Err(NoKey { advice: format!("name one of its fields, as in {name}.{inner}") })
                }
                DataType::List(_)
                | DataType::LargeList(_)
                | DataType::FixedSizeList(..)
                | DataType::ListView(_)
                | DataType::LargeListView(_)
                | DataType::Map(..) => {
                    let advice = "write one row for each value, as UNNEST does".to_owned();
                    Err(NoKey { advice })
                }
                _ => cast("VARCHAR"),
            },
        }
    }

    /// How the values of a column are written in CSV, if they can be.
    pub(super) fn of_output(field: &Field, uuid: bool) -> Option<Self> {
        match Self::of(field, uuid)? {
            Self::Whole(_) => Some(Self::Float),
            text => Some(text),
        }
    }

    /// How the values of a column are written, if they have one text.
    fn of(field: &Field, uuid: bool) -> Option<Self> {
        let kind = match field.data_type() {
            DataType::Dictionary(_, values) => values,
            kind => kind,
        };
        Some(match kind {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Plain,
            kind if kind.is_integer() => Self::Plain,
            DataType::FixedSizeBinary(16) if uuid => Self::Uuid,
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Self::Utf8,
            DataType::Decimal32(_, 0)
            | DataType::Decimal64(_, 0)
            | DataType::Decimal128(_, 0)
            | DataType::Decimal256(_, 0) => Self::Decimal,
            DataType::Float32 => Self::Whole(24),
            DataType::Float64 => Self::Whole(53),
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Timestamp(_, zone) => Self::Timestamp { utc: zone.is_some() },
            DataType::Boolean
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
            | DataType::Time32(_)
            | DataType::Time64(_) => Self::Other,
            _ => return None,
        })
    }

    /// Appends the text of a value that is not null. The error says what is wrong with the value.
    #[inline]
    pub(super) fn put(
        self,
        column: &dyn Array,
        row: usize,
        text: &mut String,
    ) -> Result<(), &'static str> {
        match self {
            Self::Plain => plain(column, row, text),
            Self::Utf8 => {
                let bytes = bytes(column, row);
                text.push_str(std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text")?);
            }
            Self::Uuid => {
                for (place, byte) in column.as_fixed_size_binary().value(row).iter().enumerate() {
                    let dash = if [4, 6, 8, 10].contains(&place) { "-" } else { "" };
                    write(text, format_args!("{dash}{byte:02x}"));
                }
            }
            Self::Decimal => decimal(column, row, text),
            Self::Whole(bits) => {
                let value = match column.data_type() {
                    DataType::Float32 => f64::from(column.as_primitive::<Float32Type>().value(row)),
                    _ => column.as_primitive::<Float64Type>().value(row),
                };
                // Programs write NaN where a value is missing.
                if value.is_nan() {
                    return Ok(());
                }
                if value.abs() >= 2_f64.powi(i32::try_from(bits).unwrap_or(i32::MAX)) {
                    return Err("is too large to be an exact whole number");
                }
                if value.fract() != 0.0 {
                    return Err("is a fraction");
                }
                // Without the sign of a zero.
                write(text, format_args!("{}", value + 0.0));
            }
            Self::Float => match column.data_type() {
                DataType::Float32 => {
                    write(
                        text,
                        format_args!("{}", column.as_primitive::<Float32Type>().value(row)),
                    );
                }
                _ => {
                    write(
                        text,
                        format_args!("{}", column.as_primitive::<Float64Type>().value(row)),
                    );
                }
            },
            Self::Date => date(column, row, text).ok_or("is no date from the year 0 to 9999")?,
            Self::Timestamp { utc } => {
                timestamp(column, row, utc, text).ok_or("is no time from the year 0 to 9999")?;
            }
            Self::Other => other(column, row, text).ok_or("is no time of day")?,
        }
        Ok(())
    }
}

fn write(text: &mut String, value: std::fmt::Arguments<'_>) {
    text.write_fmt(value).expect("a text takes everything");
}

fn plain(column: &dyn Array, row: usize, text: &mut String) {
    macro_rules! number {
        ($kind:ty) => {
            write(text, format_args!("{}", column.as_primitive::<$kind>().value(row)))
        };
    }
    match column.data_type() {
        DataType::Utf8 => text.push_str(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text.push_str(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text.push_str(column.as_string_view().value(row)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        _ => unreachable!("the column's type was examined when the table was opened"),
    }
}

fn bytes(column: &dyn Array, row: usize) -> &[u8] {
    match column.data_type() {
        DataType::Binary => column.as_binary::<i32>().value(row),
        DataType::LargeBinary => column.as_binary::<i64>().value(row),
        DataType::BinaryView => column.as_binary_view().value(row),
        _ => column.as_fixed_size_binary().value(row),
    }
}

fn decimal(column: &dyn Array, row: usize, text: &mut String) {
    match column.data_type() {
        DataType::Decimal32(..) => {
            text.push_str(&column.as_primitive::<Decimal32Type>().value_as_string(row));
        }
        DataType::Decimal64(..) => {
            text.push_str(&column.as_primitive::<Decimal64Type>().value_as_string(row));
        }
        DataType::Decimal128(..) => {
            text.push_str(&column.as_primitive::<Decimal128Type>().value_as_string(row));
        }
        _ => text.push_str(&column.as_primitive::<Decimal256Type>().value_as_string(row)),
    }
}

/// The number of 1 January 1970 among Julian days.
const UNIX_EPOCH_DAY: i64 = 2_440_588;

const DAY_MILLISECONDS: i64 = 86_400_000;

fn date(column: &dyn Array, row: usize, text: &mut String) -> Option<()> {
    let days = if column.data_type() == &DataType::Date32 {
        i64::from(column.as_primitive::<Date32Type>().value(row))
    } else {
        let milliseconds = column.as_primitive::<Date64Type>().value(row);
        (milliseconds % DAY_MILLISECONDS == 0).then_some(milliseconds / DAY_MILLISECONDS)?
    };
    let day = i32::try_from(days.checked_add(UNIX_EPOCH_DAY)?).ok()?;
    put_date(Date::from_julian_day(day).ok()?, text)
}

fn put_date(date: Date, text: &mut String) -> Option<()> {
    let (year, month, day) = date.to_calendar_date();
    (0..=9999).contains(&year).then(|| {
        write(text, format_args!("{year:04}-{:02}-{day:02}", u8::from(month)));
    })
}

fn timestamp(column: &dyn Array, row: usize, utc: bool, text: &mut String) -> Option<()> {
    let DataType::Timestamp(unit, _) = column.data_type() else { return None };
    let (value, in_a_second) = match unit {
        TimeUnit::Second => (column.as_primitive::<TimestampSecondType>().value(row), 1),
        TimeUnit::Millisecond => {
            (column.as_primitive::<TimestampMillisecondType>().value(row), 1000)
        }
        TimeUnit::Microsecond => {
            (column.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000)
        }
        TimeUnit::Nanosecond => {
            (column.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000_000)
        }
    };
    let (seconds, rest) = (value.div_euclid(in_a_second), value.rem_euclid(in_a_second));
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    put_date(time.date(), text)?;
    let (hour, minute, second) = time.to_hms();
    write(text, format_args!("T{hour:02}:{minute:02}:{second:02}"));
    fraction(rest, in_a_second, text);
    if utc {
        text.push('Z');
    }
    Some(())
}

/// Appends the part of a second, if there is one.
fn fraction(rest: i64, in_a_second: i64, text: &mut String) {
    if rest > 0 {
        let digits = in_a_second.ilog10() as usize;
        write(text, format_args!(".{rest:0digits$}"));
        text.truncate(text.trim_end_matches('0').len());
    }
}

fn other(column: &dyn Array, row: usize, text: &mut String) -> Option<()> {
    let (value, in_a_second) = match column.data_type() {
        DataType::Boolean => {
            text.push_str(if column.as_boolean().value(row) { "true" } else { "false" });
            return Some(());
        }
        DataType::Time32(TimeUnit::Second) => {
            (i64::from(column.as_primitive::<Time32SecondType>().value(row)), 1)
        }
        DataType::Time32(_) => {
            (i64::from(column.as_primitive::<Time32MillisecondType>().value(row)), 1000)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            (column.as_primitive::<Time64MicrosecondType>().value(row), 1_000_000)
        }
        DataType::Time64(_) => {
            (column.as_primitive::<Time64NanosecondType>().value(row), 1_000_000_000)
        }
        _ => {
            decimal(column, row, text);
            return Some(());
        }
    };
    let seconds = value / in_a_second;
    (0..86_400).contains(&seconds).then(|| {
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write(text, format_args!("{hour:02}:{minute:02}:{second:02}"));
        fraction(value % in_a_second, in_a_second, text);
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, BinaryArray, Date32Array, Date64Array, Decimal128Array, FixedSizeBinaryArray,
        Float32Array, Float64Array, TimestampMicrosecondArray, TimestampMillisecondArray,
        TimestampNanosecondArray, TimestampSecondArray,
    };

    use super::*;

    fn texts(column: &ArrayRef, uuid: bool) -> Vec<Result<String, &'static str>> {
        let field = Field::new("c", column.data_type().clone(), true);
        let text = Text::of_key(&field, uuid, false).map_err(|no| no.advice).unwrap();
        let one = |row| {
            let mut found = String::new();
            text.put(column, row, &mut found).map(|()| found)
        };
        (0..column.len()).map(one).collect()
    }

    fn good(column: impl Array + 'static, expected: &[&str]) {
        let found: Vec<_> =
            texts(&(Arc::new(column) as ArrayRef), false).into_iter().map(Result::unwrap).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn values_have_one_text() {
        let decimals = Decimal128Array::from(vec![1, -2, 10_i128.pow(37)]);
        good(
            decimals.with_precision_and_scale(38, 0).unwrap(),
            &["1", "-2", &format!("1{}", "0".repeat(37))],
        );
        good(
            Float64Array::from(vec![1.0, -0.0, 9_007_199_254_740_991.0, f64::NAN]),
            &["1", "0", "9007199254740991", ""],
        );
        good(Float32Array::from(vec![16_777_215.0]), &["16777215"]);
        good(BinaryArray::from(vec![&b"a"[..], "é".as_bytes(), b""]), &["a", "é", ""]);
        good(
            Date32Array::from(vec![0, 3653, -719_528, 2_932_896]),
            &["1970-01-01", "1980-01-02", "0000-01-01", "9999-12-31"],
        );
        good(Date64Array::from(vec![86_400_000, -86_400_000]), &["1970-01-02", "1969-12-31"]);
        good(
            TimestampSecondArray::from(vec![0]).with_timezone("+02:00"),
            &["1970-01-01T00:00:00Z"],
        );
        good(
            TimestampMillisecondArray::from(vec![1500, -1]),
            &["1970-01-01T00:00:01.5", "1969-12-31T23:59:59.999"],
        );
        good(
            TimestampMicrosecondArray::from(vec![253_402_300_799_000_000]),
            &["9999-12-31T23:59:59"],
        );
        good(
            TimestampNanosecondArray::from(vec![1]).with_timezone("UTC"),
            &["1970-01-01T00:00:00.000000001Z"],
        );
        let uuids = [*b"0123456789abcdef"];
        let uuids = FixedSizeBinaryArray::try_from_iter(uuids.iter()).unwrap();
        assert_eq!(
            texts(&(Arc::new(uuids) as ArrayRef), true),
            [Ok("30313233-3435-3637-3839-616263646566".to_owned())]
        );
    }

    #[test]
    fn values_without_one_text_are_refused() {
        let wrong: Vec<(ArrayRef, &str)> = vec![
            (Arc::new(Float64Array::from(vec![0.5])), "fraction"),
            (Arc::new(Float64Array::from(vec![9_007_199_254_740_992.0])), "too large"),
            (Arc::new(Float64Array::from(vec![f64::INFINITY])), "too large"),
            (Arc::new(Float32Array::from(vec![16_777_216.0])), "too large"),
            (Arc::new(BinaryArray::from(vec![&b"\xff"[..]])), "UTF-8"),
            (Arc::new(Date32Array::from(vec![2_932_897])), "year"),
            (Arc::new(Date64Array::from(vec![1])), "no date"),
            (Arc::new(TimestampSecondArray::from(vec![i64::MAX])), "year"),
        ];
        for (column, why) in wrong {
            let found = texts(&column, false);
            assert!(found[0].as_ref().is_err_and(|found| found.contains(why)), "{found:?}");
        }
    }

    #[test]
    fn the_refusal_of_a_column_names_the_cast() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        let inner = DataType::Struct(vec![Field::new("email", DataType::Utf8, true)].into());
        for (kind, int96, advice) in [
            (DataType::Boolean, false, "CAST(\"c\" AS VARCHAR)"),
            (DataType::Decimal128(10, 2), false, "CAST(\"c\" AS DECIMAL(10, 0))"),
            (DataType::Time64(TimeUnit::Microsecond), false, "CAST(\"c\" AS VARCHAR)"),
            (DataType::Duration(TimeUnit::Second), false, "CAST(\"c\" AS VARCHAR)"),
            (DataType::Timestamp(TimeUnit::Nanosecond, None), true, "CAST(\"c\" AS TIMESTAMP)"),
            (list, false, "UNNEST"),
            (inner, false, "as in c.email"),
        ] {
            let refused = Text::of_key(&Field::new("c", kind, true), false, int96).err().unwrap();
            assert!(refused.advice.contains(advice), "{}", refused.advice);
        }
    }
}
