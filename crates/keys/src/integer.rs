//! A whole number, however it is written: without leading zeros, without a fraction of zeros, without
//! the thousands' separator that the job names.

use convelo_psi::Grouping;

use crate::decimal;
use crate::digits::{intruder, is_exponent};
use crate::dropped::Reason;
use crate::plain::{half_width, is_apostrophe, is_dash};
use crate::surroundings::trim;

/// Writes a whole number in its one form: a minus sign if it is below zero, and digits that do not
/// begin with 0, except for 0 itself.
pub(crate) fn integer(
    text: &mut String,
    spare: &mut String,
    grouping: Grouping,
) -> Result<(), Reason> {
    trim(text);
    if text.is_empty() {
        return Ok(());
    }
    one_form(text, spare, grouping).map_err(|reason| match reason {
        // Which part of the number is looked at first does not matter to a reader.
        _ if is_exponent(text) => Reason::Exponent,
        reason => reason,
    })?;
    std::mem::swap(text, spare);
    Ok(())
}

/// Writes the number in its one form to `found`.
fn one_form(text: &str, found: &mut String, grouping: Grouping) -> Result<(), Reason> {
    let (negative, number) = match text.chars().next() {
        Some('+' | '＋') => (false, without_first(text)),
        Some(c) if is_dash(c) => (true, without_first(text)),
        _ => (false, text),
    };
    let (whole, fraction) = split(number, grouping)?;
    found.clear();
    if negative {
        found.push('-');
    }
    let sign = found.len();
    read(whole, grouping, found)?;
    if let Some(fraction) = fraction {
        check_fraction(fraction, found.len() - sign, grouping)?;
    }
    let digits = &found[sign..];
    let zeros = digits.len() - digits.trim_start_matches('0').len();
    if zeros == digits.len() {
        // There is one zero, and it has no sign.
        found.clear();
        found.push('0');
    } else {
        found.drain(sign..sign + zeros);
    }
    Ok(())
}

fn without_first(text: &str) -> &str {
    let mut chars = text.chars();
    chars.next();
    chars.as_str()
}

/// Splits a number at its decimal sign.
fn split(number: &str, grouping: Grouping) -> Result<(&str, Option<&str>), Reason> {
    let is_point = |c: char| match grouping {
        Grouping::Comma => half_width(c) == '.',
        Grouping::Dot => half_width(c) == ',',
        Grouping::None | Grouping::Space | Grouping::Apostrophe => is_dot_or_comma(c),
    };
    match number.split_once(is_point) {
        None => Ok((number, None)),
        Some((_, fraction)) if fraction.contains(is_dot_or_comma) => Err(Reason::Grouping),
        Some((whole, fraction)) => Ok((whole, Some(fraction))),
    }
}

fn is_dot_or_comma(c: char) -> bool {
    matches!(half_width(c), '.' | ',')
}

/// Appends the digits of a number whose thousands may be separated.
fn read(whole: &str, grouping: Grouping, digits: &mut String) -> Result<(), Reason> {
    let is_separator = |c: char| match grouping {
        Grouping::None => false,
        Grouping::Comma => half_width(c) == ',',
        Grouping::Dot => half_width(c) == '.',
        Grouping::Space => c.is_whitespace(),
        Grouping::Apostrophe => is_apostrophe(c),
    };
    let (mut groups, mut in_group) = (0, 0);
    for c in whole.chars() {
        if decimal::value(c).is_some() {
            digits.push(decimal::in_ascii(c));
            in_group += 1;
        } else if is_separator(c) {
            let fits = if groups == 0 { (1..=3).contains(&in_group) } else { in_group == 3 };
            if !fits {
                return Err(Reason::Grouping);
            }
            (groups, in_group) = (groups + 1, 0);
        } else {
            return Err(match c {
                _ if is_dot_or_comma(c) => Reason::Grouping,
                _ if c.is_whitespace() || is_apostrophe(c) => Reason::Grouping,
                _ if is_dash(c) => Reason::Sign,
                _ => intruder(c, whole),
            });
        }
    }
    match (groups, in_group) {
        (0, 0) => Err(Reason::Character),
        (0, _) | (_, 3) => Ok(()),
        _ => Err(Reason::Grouping),
    }
}

/// A fraction must be zero. Without a word about separators, three zeros behind three digits or fewer
/// may be the thousands.
fn check_fraction(fraction: &str, digits: usize, grouping: Grouping) -> Result<(), Reason> {
    for c in fraction.chars() {
        match decimal::value(c) {
            Some(0) => (),
            Some(_) => return Err(Reason::Fraction),
            None => return Err(intruder(c, fraction)),
        }
    }
    let stated = matches!(grouping, Grouping::Comma | Grouping::Dot);
    if !stated && fraction.chars().count() == 3 && digits <= 3 {
        return Err(Reason::FractionOrThousands);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, grouping: Grouping) -> Result<String, Reason> {
        let (mut text, mut spare) = (text.to_owned(), String::new());
        integer(&mut text, &mut spare, grouping).map(|()| text)
    }

    #[test]
    fn one_form_of_a_whole_number() {
        for (text, expected) in [
            ("123", "123"),
            ("00123", "123"),
            ("123.0", "123"),
            ("123,00", "123"),
            ("1234.000", "1234"),
            ("123.", "123"),
            ("+125", "125"),
            ("-125", "-125"),
            ("\u{2212}125", "-125"),
            ("0", "0"),
            ("-0", "0"),
            ("-000.0", "0"),
            ("100", "100"),
            ("-100", "-100"),
            ("٠١٢٣", "123"),
            ("１２３．０", "123"),
            ("=\"00123\"", "123"),
            ("'-5", "-5"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("", ""),
        ] {
            assert_eq!(found(text, Grouping::None).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn thousands_as_the_job_says() {
        for (text, grouping, expected) in [
            ("1,234,567", Grouping::Comma, "1234567"),
            ("1,234,567.00", Grouping::Comma, "1234567"),
            ("1.000", Grouping::Comma, "1"),
            ("1.234.567", Grouping::Dot, "1234567"),
            ("1.000", Grouping::Dot, "1000"),
            ("1.234.567,0", Grouping::Dot, "1234567"),
            ("１，２３４", Grouping::Comma, "1234"),
            ("1 234 567", Grouping::Space, "1234567"),
            ("1\u{202f}234\u{a0}567,0", Grouping::Space, "1234567"),
            ("1'234’567", Grouping::Apostrophe, "1234567"),
            ("1234567", Grouping::Comma, "1234567"),
        ] {
            assert_eq!(found(text, grouping).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_is_invalid() {
        for (text, grouping, expected) in [
            ("1,25", Grouping::None, Reason::Fraction),
            ("1.5", Grouping::None, Reason::Fraction),
            ("1.000", Grouping::None, Reason::FractionOrThousands),
            ("1,000", Grouping::None, Reason::FractionOrThousands),
            ("123.000", Grouping::Space, Reason::FractionOrThousands),
            ("１．０００", Grouping::None, Reason::FractionOrThousands),
            ("12,345,678", Grouping::None, Reason::Grouping),
            ("1 234", Grouping::None, Reason::Grouping),
            ("12,34", Grouping::Comma, Reason::Grouping),
            ("1234,567", Grouping::Comma, Reason::Grouping),
            (",123", Grouping::Comma, Reason::Grouping),
            ("1,234.5", Grouping::Comma, Reason::Fraction),
            ("1.234,5", Grouping::Comma, Reason::Grouping),
            ("1.2E+3", Grouping::None, Reason::Exponent),
            ("1.0E+03", Grouping::None, Reason::Exponent),
            ("12E3", Grouping::None, Reason::Exponent),
            ("1½", Grouping::None, Reason::Fraction),
            ("½", Grouping::None, Reason::Fraction),
            ("12a", Grouping::None, Reason::Letters),
            ("ten", Grouping::None, Reason::Letters),
            ("5-", Grouping::None, Reason::Sign),
            ("--5", Grouping::None, Reason::Sign),
            ("(5)", Grouping::None, Reason::Character),
            ("-", Grouping::None, Reason::Character),
            (".0", Grouping::None, Reason::Character),
            ("12²", Grouping::None, Reason::Character),
        ] {
            assert_eq!(found(text, grouping), Err(expected), "{text} {grouping:?}");
        }
    }
}
