//! A telephone number in the form of ITU-T E.164, by the numbering plans of the world.
//!
//! [`written`] says what digits stand in a text, [`plan`] which number they are in a country.

mod plan;
mod written;

use convelo_psi::Extension;

use self::plan::Plan;
use self::written::Written;
use crate::dropped::Reason;
use crate::surroundings::trim;

/// How one step reads telephone numbers.
pub(crate) struct Phone {
    /// The plan by which a number without a calling code is read.
    home: Option<&'static Plan>,
    extension: Extension,
}

impl Phone {
    /// The step with these arguments. A job names only calling codes that a country has.
    pub(crate) fn new(country: Option<u16>, extension: Extension) -> Self {
        Self { home: country.and_then(Plan::of), extension }
    }

    /// Writes a number in its one form.
    pub(crate) fn normalise(&self, text: &mut String, spare: &mut String) -> Result<(), Reason> {
        trim(text);
        spare.clear();
        let Written { international, extension } = Written::read(text, spare)?;
        if spare.is_empty() {
            text.clear();
            return if international { Err(Reason::NumberingPlan) } else { Ok(()) };
        }
        if extension.is_some() && self.extension == Extension::Refuse {
            return Err(Reason::Extension);
        }
        self.number(international, spare, text)?;
        if let (Some(extension), Extension::Keep) = (extension, self.extension) {
            text.push_str(";ext=");
            text.push_str(&extension);
        }
        Ok(())
    }

    /// Writes the number of these digits to `number`.
    fn number(&self, international: bool, digits: &str, number: &mut String) -> Result<(), Reason> {
        if international {
            return plan::international(digits, number);
        }
        let dialled = match self.home {
            Some(home) => home.dialled(digits, number),
            None => Err(Reason::NoCallingCode),
        };
        match digits.strip_prefix("00") {
            // The prefix that ITU-T E.123 and most countries have. Where it is not dialled, a number
            // that begins with it is of the country only if the plan says so.
            Some(rest) if dialled.is_err() => {
                let found = plan::international(rest, number);
                if self.home.is_some() { found.or(dialled) } else { found }
            }
            _ => dialled,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn found(country: Option<u16>, extension: Extension, text: &str) -> Result<String, Reason> {
        let (mut text, mut spare) = (text.to_owned(), String::new());
        Phone::new(country, extension).normalise(&mut text, &mut spare).map(|()| text)
    }

    fn number(country: u16, text: &str) -> Result<String, Reason> {
        found(Some(country), Extension::Refuse, text)
    }

    /// Country, text, and the number that the genuine library reads, if it is possible.
    fn vectors() -> impl Iterator<Item = (Option<u16>, &'static str, Option<&'static str>)> {
        let lines = include_str!("../../../vectors/telephone/numbers.tsv").lines();
        lines.filter(|line| !line.starts_with('#')).map(|line| {
            let mut fields = line.split('\t');
            let mut field = || fields.next().expect("three fields");
            let (country, text, number) = (field(), field(), field());
            (country.parse().ok(), text, Some(number).filter(|number| !number.is_empty()))
        })
    }

    #[test]
    fn numbers_are_those_of_the_genuine_library() {
        let (mut count, mut two) = (0, 0);
        for (country, text, expected) in vectors() {
            let found = found(country, Extension::Refuse, text);
            count += 1;
            if found == Err(Reason::OwnCallingCode) {
                // The library has one of the two.
                two += 1;
                continue;
            }
            assert_eq!(found.as_deref().ok(), expected, "{country:?} {text}: {found:?}");
        }
        assert!(count > 5000 && two < count / 20, "{count}, {two}");
    }

    #[test]
    fn how_numbers_are_written() {
        for (country, text, expected) in [
            (49, "030 123456", "+4930123456"),
            (49, "(030) 12/34-56", "+4930123456"),
            (49, "[030] 123\u{2013}456", "+4930123456"),
            (49, "030.123456", "+4930123456"),
            (49, "+49 (0)30 123456", "+4930123456"),
            (49, "(+49) 30 123456", "+4930123456"),
            (49, "0049 30 123456", "+4930123456"),
            (49, "tel:+49-30-123456", "+4930123456"),
            (49, "TEL:030123456", "+4930123456"),
            (49, "＋４９ 30 123456", "+4930123456"),
            (49, "'+4930123456", "+4930123456"),
            (49, "=\"030123456\"", "+4930123456"),
            (49, "4930123456.0", "+4930123456"),
            (49, "4930123456", "+4930123456"),
            (1, "1 212 555 2368", "+12125552368"),
            (91, "919876543210", "+919876543210"),
            (91, "9198765432", "+919198765432"),
            (49, "030 123456.", "+4930123456"),
            (33, "01.23.45.67.89", "+33123456789"),
            (7, "8~10 49 30 123456", "+4930123456"),
            (81, "０３．３２２４．５０００", "+81332245000"),
            (81, "０３／３２２４－５０００", "+81332245000"),
            (1, "0049 30 123456", "+4930123456"),
            (39, "06 6982 0001", "+390669820001"),
            (39, "+39 (0)6 6982 0001", "+390669820001"),
            (49, "", ""),
            (49, " - ", ""),
        ] {
            assert_eq!(number(country, text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_invalid() {
        for (country, text, expected) in [
            (49, "115", Reason::NumberingPlan),
            (49, "491701234567", Reason::OwnCallingCode),
            (49, "49 (0)170 1234567", Reason::OwnCallingCode),
            (49, "12", Reason::NumberingPlan),
            (1, "555-2682", Reason::NumberingPlan),
            (49, "+1 000 000 0000", Reason::NumberingPlan),
            (49, "+", Reason::NumberingPlan),
            (49, "+49", Reason::NumberingPlan),
            (49, "+999 123456", Reason::UnknownCallingCode),
            (49, "+0301234567", Reason::UnknownCallingCode),
            (1, "1-800-FLOWERS", Reason::Letters),
            (49, "unknown", Reason::Letters),
            (49, "Fax 030 123456", Reason::Letters),
            (49, "030 123456 or 030 123457", Reason::Letters),
            (49, "4.93012E+11", Reason::Exponent),
            (49, "301234569.5", Reason::Fraction),
            (49, "030 1234,0", Reason::Fraction),
            (49, "030,123456", Reason::Fraction),
            (49, "++4930123456", Reason::Sign),
            (49, "030 123+456", Reason::Sign),
            (49, "030 123456 ext. 4", Reason::Extension),
            (49, "030 123456;isub=4", Reason::Character),
            (49, "030 12³456", Reason::Character),
            (49, "*30123456", Reason::Character),
        ] {
            assert_eq!(number(country, text), Err(expected), "{text}");
        }
        let without = |text| found(None, Extension::Refuse, text);
        assert_eq!(without("030 123456"), Err(Reason::NoCallingCode));
        assert_eq!(without("30123456"), Err(Reason::NoCallingCode));
        assert_eq!(without("0049 30 123456").as_deref(), Ok("+4930123456"));
    }

    #[test]
    fn an_extension_is_refused_dropped_or_kept() {
        for text in [
            "+49 30 123456 ext. 12",
            "+49 30 123456 ext 12",
            "+49 30 123456 EXT.12",
            "+49 30 123456, extension 12",
            "+49 30 123456x12",
            "+49 30 123456 #12",
            "tel:+4930123456;ext=12",
            "+49 30 123456 доб. 12",
        ] {
            assert_eq!(found(None, Extension::Refuse, text), Err(Reason::Extension), "{text}");
            assert_eq!(found(None, Extension::Drop, text).as_deref(), Ok("+4930123456"), "{text}");
            let kept = found(None, Extension::Keep, text);
            assert_eq!(kept.as_deref(), Ok("+4930123456;ext=12"), "{text}");
        }
        for text in ["+49 30 123456 ext.", "+49 30 123456 ext. 1x", "+49 30 123456 x 1 2"] {
            assert_eq!(found(None, Extension::Drop, text), Err(Reason::Letters), "{text}");
        }
    }

    /// What is dialled within a country, and the number that this is, in at least 50 countries.
    fn dialled() -> Vec<(u16, &'static str, &'static str)> {
        let home = vectors().filter_map(|(country, text, expected)| {
            let dialled = text.bytes().all(|byte| byte.is_ascii_digit());
            let country = country?;
            let one = number(country, text) != Err(Reason::OwnCallingCode);
            Some((country, text, expected?)).filter(|_| dialled && one)
        });
        let home: Vec<_> = home.collect();
        let countries: BTreeSet<u16> = home.iter().map(|(country, ..)| *country).collect();
        assert!(countries.len() >= 50, "{}", countries.len());
        home
    }

    /// The possible numbers of at least 50 countries.
    fn numbers() -> Vec<&'static str> {
        let numbers: Vec<_> = vectors().filter_map(|(_, _, number)| number).collect();
        let countries: BTreeMap<&str, usize> =
            numbers.iter().map(|number| (&number[..3], 1)).collect();
        assert!(countries.len() >= 50);
        numbers
    }

    proptest! {
        #[test]
        fn written_forms_of_one_number_meet_and_numbers_are_told_apart(
            a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
            separators in proptest::collection::vec("[ \\-()/\u{a0}\u{2010}\u{2011}]?", 20),
            script in prop::sample::select(vec!['0', '０', '٠', '۰', '०']),
            guard in "'?",
        ) {
            let numbers = numbers();
            let (a, b) = (numbers[a.index(numbers.len())], numbers[b.index(numbers.len())]);
            let written = guard + "+" + &spaced(&a[1..], script, &separators);
            let found = found(None, Extension::Refuse, &written);
            prop_assert_eq!(found.as_deref(), Ok(a), "{}", written);
            prop_assert_eq!(found.as_deref() == Ok(b), a == b);
        }

        #[test]
        fn what_is_dialled_at_home_is_the_number_and_no_other(
            a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
            separators in proptest::collection::vec("[ \\-()/~\u{a0}\u{2010}\u{ff0f}]?", 20),
            script in prop::sample::select(vec!['0', '０', '٠', '۰', '०']),
        ) {
            let dialled = dialled();
            let (country, text, expected) = dialled[a.index(dialled.len())];
            let (_, _, other) = dialled[b.index(dialled.len())];
            let written = spaced(text, script, &separators);
            let found = number(country, &written);
            prop_assert_eq!(found.as_deref(), Ok(expected), "{} {}", country, written);
            prop_assert_eq!(found.as_deref() == Ok(other), expected == other);
        }
    }

    /// Digits in this script, with separators between them.
    fn spaced(digits: &str, zero: char, separators: &[String]) -> String {
        let digits = digits.bytes().zip(separators).map(|(digit, separator)| {
            let digit = u32::from(zero) + u32::from(digit - b'0');
            format!("{}{separator}", char::from_u32(digit).expect("a digit"))
        });
        digits.collect()
    }
}
