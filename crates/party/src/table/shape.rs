//! What a text looks like, without its value: to tell names of columns from records, and for two
//! partners to compare their keys without showing them.

use convelo_keys::{Normaliser, is_exponent, is_guarded};

/// The kind of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing but white space.
    Blank,
    /// Something like an e-mail address.
    Address,
    /// Digits and signs, no letters: a number, a date, a telephone number.
    Number,
    /// Letters and digits.
    Code,
    /// Letters and signs, no digits.
    Words,
}

impl Kind {
    pub(super) fn of(text: &str) -> Self {
        let text = text.trim();
        let (mut letters, mut digits) = (false, false);
        for c in text.chars() {
            letters |= c.is_alphabetic();
            digits |= c.is_numeric();
        }
        let address = text
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.') && letters);
        match (letters, digits) {
            _ if text.is_empty() => Self::Blank,
            _ if address => Self::Address,
            (false, true) => Self::Number,
            (true, true) => Self::Code,
            _ => Self::Words,
        }
    }
}

/// A text's pattern: runs of digits become `9`, runs of letters `a`, everything else stays.
pub(super) fn pattern(text: &str) -> String {
    let mut pattern = String::new();
    for c in text.trim().chars() {
        let c = match c {
            _ if c.is_numeric() => '9',
            _ if c.is_alphabetic() => 'a',
            other => other,
        };
        if !(matches!(c, '9' | 'a') && pattern.ends_with(c)) {
            pattern.push(c);
        }
    }
    pattern
}

/// How the values in one key column look, in numbers and without any value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Shapes {
    /// How many values were looked at, without blank ones.
    pub values: u64,
    /// Those of nothing but digits.
    pub digits: u64,
    /// Those that begin with 0.
    pub zero_first: u64,
    /// Those that begin with `+`.
    pub plus_first: u64,
    /// Those with letters.
    pub letters: u64,
    /// Those with capital letters.
    pub capitals: u64,
    /// Those with an `@`.
    pub at_signs: u64,
    /// Those with white space at an end.
    pub spaced: u64,
    /// Those with characters other than ASCII.
    pub not_ascii: u64,
    /// Those around which a spreadsheet's guard stands (`="…"`, or an apostrophe before a number) even
    /// after the steps.
    pub guarded: u64,
    /// Those that are numbers in scientific notation even after the steps, as spreadsheets round them.
    pub rounded: u64,
    /// The length of the shortest, in characters.
    pub shortest: u64,
    /// The length of the longest, in characters.
    pub longest: u64,
}

impl Shapes {
    /// Looks at one more value of this part of the key.
    pub(crate) fn add(&mut self, value: &str, part: usize, normaliser: &mut Normaliser) {
        let text = value.trim();
        if text.is_empty() {
            return;
        }
        let first = text.chars().next();
        let count = |count: &mut u64, holds: bool| *count += u64::from(holds);
        count(&mut self.digits, text.bytes().all(|byte| byte.is_ascii_digit()));
        count(&mut self.zero_first, first == Some('0'));
        count(&mut self.plus_first, first == Some('+'));
        count(&mut self.letters, text.chars().any(char::is_alphabetic));
        count(&mut self.capitals, text.chars().any(char::is_uppercase));
        count(&mut self.at_signs, text.contains('@'));
        count(&mut self.spaced, text.len() < value.len());
        count(&mut self.not_ascii, !text.is_ascii());
        if matches!(first, Some('=' | '\'')) || is_exponent(text) {
            let key = normaliser.normalised(part, value).unwrap_or_default();
            count(&mut self.guarded, is_guarded(key));
            count(&mut self.rounded, is_exponent(key));
        }
        let length = text.chars().count() as u64;
        self.shortest = if self.values == 0 { length } else { self.shortest.min(length) };
        self.longest = self.longest.max(length);
        self.values += 1;
    }

    /// Adds what was seen of other values of the same column.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.values == 0 {
            return;
        }
        let shortest =
            if self.values == 0 { other.shortest } else { self.shortest.min(other.shortest) };
        *self = Self {
            values: self.values + other.values,
            digits: self.digits + other.digits,
            zero_first: self.zero_first + other.zero_first,
            plus_first: self.plus_first + other.plus_first,
            letters: self.letters + other.letters,
            capitals: self.capitals + other.capitals,
            at_signs: self.at_signs + other.at_signs,
            spaced: self.spaced + other.spaced,
            not_ascii: self.not_ascii + other.not_ascii,
            guarded: self.guarded + other.guarded,
            rounded: self.rounded + other.rounded,
            shortest,
            longest: self.longest.max(other.longest),
        };
    }
}

#[cfg(test)]
mod tests {
    use convelo_psi::KeyPart;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_and_patterns() {
        for (text, kind, shown) in [
            ("", Kind::Blank, ""),
            (" ", Kind::Blank, ""),
            ("anna@x.org", Kind::Address, "a@a.a"),
            ("e@mail", Kind::Words, "a@a"),
            ("1980-01-02", Kind::Number, "9-9-9"),
            ("+49 (30) 1", Kind::Number, "+9 (9) 9"),
            ("١٢٣", Kind::Number, "9"),
            ("id-0001", Kind::Code, "a-9"),
            ("customer_id", Kind::Words, "a_a"),
            ("-", Kind::Words, "-"),
        ] {
            assert_eq!((Kind::of(text), pattern(text).as_str()), (kind, shown), "{text:?}");
        }
    }

    #[test]
    fn shapes_count_and_hold_no_value() {
        let mut shapes = Shapes::default();
        let mut as_is = Normaliser::new(&[KeyPart::new("id", Vec::new())]);
        for value in
            ["0123", "1234567", " +49 1", "=\"1\"", "'2", "'t", "1E+3", "", "Ann@x.org", "é"]
        {
            shapes.add(value, 0, &mut as_is);
        }
        let expected = Shapes {
            values: 9,
            digits: 2,
            zero_first: 1,
            plus_first: 1,
            letters: 4,
            capitals: 2,
            at_signs: 1,
            spaced: 1,
            not_ascii: 1,
            guarded: 2,
            rounded: 1,
            shortest: 1,
            longest: 9,
        };
        assert_eq!(shapes, expected);
    }

    proptest! {
        #[test]
        fn shapes_of_parts_are_those_of_the_whole(
            values in proptest::collection::vec("[0a=é ]{0,4}", 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let of = |values: &[String]| {
                let mut shapes = Shapes::default();
                let mut as_is = Normaliser::new(&[KeyPart::new("id", Vec::new())]);
                for value in values {
                    shapes.add(value, 0, &mut as_is);
                }
                shapes
            };
            let (first, second) = values.split_at(cut.index(values.len() + 1));
            let mut both = of(first);
            both.merge(&of(second));
            prop_assert_eq!(both, of(&values));
        }
    }
}
