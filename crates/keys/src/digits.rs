//! The digits of an identifier, without the separators between them.
//!
//! A separator is dropped only where it cannot mean anything: a decimal point, a fraction, a sign, or
//! the parts of a date make the value invalid.

use crate::decimal;
use crate::dropped::Reason;
use crate::plain::{half_width, is_apostrophe, is_dash};
use crate::surroundings::trim;

/// Keeps the digits, in ASCII.
pub(crate) fn digits(text: &mut String, spare: &mut String) -> Result<(), Reason> {
    trim(text);
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    let shape = Shape::of(text, spare)?;
    if !spare.is_empty() {
        shape.check(text)?;
    }
    std::mem::swap(text, spare);
    Ok(())
}

/// Where the separators are.
#[derive(Default)]
struct Shape {
    /// How many digits are in each of the first three groups, and in the one that is being read.
    first: [usize; 3],
    current: usize,
    groups: usize,
    /// How many digits the shortest group has.
    shortest: usize,
    /// Whether every group but the first has three digits, and whether those behind a dot or comma have.
    by_threes: bool,
    ranked_by_threes: bool,
    behind_dot: bool,
    dots: usize,
    commas: usize,
    slashes: usize,
    dashes: usize,
}

impl Shape {
    /// Takes the digits of `text`.
    fn of(text: &str, digits: &mut String) -> Result<Self, Reason> {
        digits.clear();
        let mut shape = Self {
            shortest: usize::MAX,
            by_threes: true,
            ranked_by_threes: true,
            ..Self::default()
        };
        for c in text.chars() {
            if decimal::value(c).is_some() {
                digits.push(decimal::in_ascii(c));
                shape.current += 1;
                continue;
            }
            match half_width(c) {
                '.' => shape.dots += 1,
                ',' => shape.commas += 1,
                '/' => shape.slashes += 1,
                _ if is_dash(c) => shape.dashes += 1,
                '_' | '·' => (),
                _ if c.is_whitespace() || is_apostrophe(c) => (),
                _ => return Err(intruder(c, text)),
            }
            shape.end_group();
            shape.behind_dot = matches!(half_width(c), '.' | ',');
        }
        shape.end_group();
        Ok(shape)
    }

    fn end_group(&mut self) {
        if self.current == 0 {
            return;
        }
        if self.groups > 0 && self.current != 3 {
            self.by_threes = false;
            self.ranked_by_threes &= !self.behind_dot;
        }
        if let Some(first) = self.first.get_mut(self.groups) {
            *first = self.current;
        }
        self.groups += 1;
        self.shortest = self.shortest.min(self.current);
        self.current = 0;
    }

    /// Whether the separators of these digits mean nothing.
    fn check(&self, text: &str) -> Result<(), Reason> {
        if text.starts_with(is_dash) || text.ends_with(is_dash) {
            return Err(Reason::Sign);
        }
        let inner = text.trim_end_matches(['.', ',', '．', '，']);
        let single =
            |separator, count| count == 1 && inner.chars().any(|c| half_width(c) == separator);
        if single('.', self.dots) || single(',', self.commas) || single('/', self.slashes) {
            return Err(Reason::Fraction);
        }
        if self.groups == 3
            && self.shortest == 1
            && self.dots + self.slashes + self.dashes >= 2
            && let [4, 1..=2, 1..=2] | [1..=2, 1..=2, 2 | 4] = self.first
        {
            return Err(Reason::LooksLikeDate);
        }
        // Groups of other lengths could be other numbers, as in 1.23.45.67 and 12.34.56.7.
        let begins_thousands = self.first[0] <= 3;
        let ranked = self.dots + self.commas >= 2 && !(self.ranked_by_threes && begins_thousands);
        let short = self.first.iter().sum::<usize>() < 5 && !(self.by_threes && begins_thousands);
        let loose = ranked || self.slashes >= 2;
        if self.groups > 1 && (short || (loose && self.shortest == 1)) {
            return Err(Reason::Ambiguous);
        }
        Ok(())
    }
}

/// Why a character has no place among digits.
pub(crate) fn intruder(c: char, text: &str) -> Reason {
    match c {
        '+' => Reason::Sign,
        '¼'..='¾' | '\u{2044}' | '\u{2150}'..='\u{215e}' | '\u{2189}' | '\u{66b}' => {
            Reason::Fraction
        }
        'e' | 'E' if is_exponent(text) => Reason::Exponent,
        _ if c.is_alphabetic() => Reason::Letters,
        _ => Reason::Character,
    }
}

/// Whether a text is a number in scientific notation, such as 1.2E+3.
pub fn is_exponent(text: &str) -> bool {
    let Some((number, exponent)) = text.trim().split_once(['e', 'E']) else { return false };
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let number = number.strip_prefix(['+', '-']).unwrap_or(number);
    let digits = |text: &str, also: &[char]| {
        text.chars().any(|c| decimal::value(c).is_some())
            && text.chars().all(|c| decimal::value(c).is_some() || also.contains(&c))
    };
    digits(number, &['.', ',']) && digits(exponent, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Result<String, Reason> {
        let (mut text, mut spare) = (text.to_owned(), String::new());
        digits(&mut text, &mut spare).map(|()| text)
    }

    #[test]
    fn separators_are_dropped() {
        for (text, expected) in [
            ("00123", "00123"),
            ("1234 5678 9012", "123456789012"),
            ("123-45-6789", "123456789"),
            ("123.456.789-09", "12345678909"),
            ("756.1234.5678.97", "7561234567897"),
            ("978-3-16-148410-0", "9783161484100"),
            ("21/815/08150", "2181508150"),
            ("12-345", "12345"),
            ("12345-6", "123456"),
            ("1 234", "1234"),
            ("1'234'567", "1234567"),
            ("1.234.567", "1234567"),
            ("7.654.321-5", "76543215"),
            ("123.", "123"),
            ("1980-01-11", "19800111"),
            ("١٢٣٤٥", "12345"),
            ("１２３ ４５６", "123456"),
            ("１．２３４．５６７", "1234567"),
            ("=\"00123\"", "00123"),
            ("'00123", "00123"),
            ("", ""),
            (" - ", ""),
            ("--", ""),
        ] {
            assert_eq!(found(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_means_something_is_not_dropped() {
        for (text, expected) in [
            ("1001.0", Reason::Fraction),
            ("1001,0", Reason::Fraction),
            ("１００１．０", Reason::Fraction),
            ("１００１，０", Reason::Fraction),
            ("１／２", Reason::Fraction),
            ("１９８０．１．１１", Reason::LooksLikeDate),
            ("1.234", Reason::Fraction),
            (".5", Reason::Fraction),
            ("1.234.567,8", Reason::Fraction),
            ("1,234,567.8", Reason::Fraction),
            ("1/2", Reason::Fraction),
            ("1 1/2", Reason::Fraction),
            ("1½", Reason::Fraction),
            ("١٫٥", Reason::Fraction),
            ("+125", Reason::Sign),
            ("-125", Reason::Sign),
            ("−125", Reason::Sign),
            ("125-", Reason::Sign),
            ("1.2E+3", Reason::Exponent),
            ("12e5", Reason::Exponent),
            ("DE 12-34", Reason::Letters),
            ("12a", Reason::Letters),
            ("abc", Reason::Letters),
            ("12³", Reason::Character),
            ("①", Reason::Character),
            ("#12", Reason::Character),
            ("12:30", Reason::Character),
            ("(125)", Reason::Character),
            ("1980-1-11", Reason::LooksLikeDate),
            ("1980-11-1", Reason::LooksLikeDate),
            ("1.11.1980", Reason::LooksLikeDate),
            ("11/1/80", Reason::LooksLikeDate),
            ("10.1.11.1", Reason::Ambiguous),
            ("10.11.1.1", Reason::Ambiguous),
            ("1-23", Reason::Ambiguous),
            ("12-3", Reason::Ambiguous),
        ] {
            assert_eq!(found(text), Err(expected), "{text}");
        }
    }
}
