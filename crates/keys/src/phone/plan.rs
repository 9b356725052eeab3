//! The numbering plans of the world, and which number a row of digits is in them.
//!
//! The rules are those by which libphonenumber parses, on its metadata: a plan has a pattern of all its
//! numbers, their possible lengths, a pattern of what is dialled before an international number, and
//! one of what may be dialled before a national one, with a rule that may rewrite it.

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

use regex::Regex;

use crate::dropped::Reason;

/// The plans in the order of their calling codes.
static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let lines = include_str!("plans.tsv").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| Plan::read(line).expect("the table is whole: a test reads it")).collect()
});

/// The numbering plan of a calling code: of the main country, if several share it.
pub(super) struct Plan {
    code: u16,
    /// The calling code as text.
    digits: &'static str,
    /// All numbers of the plan.
    numbers: Pattern,
    /// Bit `n` is set if a number can have `n` digits.
    lengths: u32,
    /// Bit `n` is set if `n` digits can be dialled within a part of the country only.
    local_lengths: u32,
    international_prefix: Option<Pattern>,
    national_prefix: Option<Pattern>,
    /// What stands in place of the national prefix, if the last group of its pattern took part.
    rewritten: Option<&'static str>,
}

/// A pattern of the beginning of a text. It is compiled when it is first needed: most tables have numbers
/// of few countries.
struct Pattern {
    text: String,
    compiled: OnceLock<Regex>,
}

impl Pattern {
    fn of(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self { text: format!("^(?:{text})"), compiled: OnceLock::new() })
    }

    fn get(&self) -> &Regex {
        self.compiled.get_or_init(|| Regex::new(&self.text).expect("a test compiles all patterns"))
    }
}

#[derive(PartialEq, Eq)]
enum Length {
    Possible,
    TooShort,
    TooLong,
    /// Only within a part of the country, or between the possible ones.
    Impossible,
}

/// Writes the number whose digits begin with a calling code.
pub(super) fn international(digits: &str, number: &mut String) -> Result<(), Reason> {
    let unknown = Reason::UnknownCallingCode;
    // No calling code begins another one.
    let found = (1..=3).find_map(|length| {
        let (code, national) = digits.split_at_checked(length)?;
        Plan::of(code.parse().ok()?).map(|plan| (plan, national))
    });
    let (plan, national) = found.filter(|_| !digits.starts_with('0')).ok_or(unknown)?;
    plan.write(national, number)
}

impl Plan {
    /// The plan of a calling code.
    pub(super) fn of(code: u16) -> Option<&'static Self> {
        let index = PLANS.binary_search_by_key(&code, |plan| plan.code).ok()?;
        PLANS.get(index)
    }

    /// Reads a line of the table.
    fn read(line: &'static str) -> Option<Self> {
        let mut fields = line.split('\t');
        let mut field = || fields.next();
        let lengths = |text: &str| {
            let lengths = text.split(',').filter(|length| !length.is_empty());
            lengths.map(|length| Some(1 << length.parse::<u32>().ok()?)).sum::<Option<u32>>()
        };
        let digits = field()?;
        Some(Self {
            code: digits.parse().ok()?,
            digits,
            lengths: lengths(field()?)?,
            local_lengths: lengths(field()?)?,
            international_prefix: Pattern::of(field()?),
            national_prefix: Pattern::of(field()?),
            rewritten: field().filter(|text| !text.is_empty()),
            numbers: Pattern::of(&format!("(?:{})$", field()?))?,
        })
    }

    /// Writes the number that these digits dial in the country.
    pub(super) fn dialled(&self, digits: &str, number: &mut String) -> Result<(), Reason> {
        if let Some(rest) = self.after_international_prefix(digits) {
            return international(rest, number);
        }
        let Some(behind_code) = self.after_own_code(digits) else {
            return self.write(digits, number);
        };
        let mut other = String::new();
        match (self.write(digits, number), self.write(&behind_code, &mut other)) {
            (Ok(()), Ok(())) if *number != other => Err(Reason::OwnCallingCode),
            (Ok(()), _) => Ok(()),
            (Err(_), Ok(())) => {
                *number = other;
                Ok(())
            }
            (Err(reason), Err(_)) => Err(reason),
        }
    }

    /// The digits after what is dialled before an international number. No calling code begins with 0.
    fn after_international_prefix<'d>(&self, digits: &'d str) -> Option<&'d str> {
        let rest = &digits[self.international_prefix.as_ref()?.get().find(digits)?.end()..];
        (!rest.is_empty() && !rest.starts_with('0')).then_some(rest)
    }

    /// The national digits, if the digits begin with the country's calling code. They may also be a national
    /// number as they are.
    fn after_own_code<'d>(&self, digits: &'d str) -> Option<Cow<'d, str>> {
        let rest = digits.strip_prefix(self.digits)?;
        Some(self.without_national_prefix(rest).unwrap_or(Cow::Borrowed(rest)))
    }

    /// Writes a number, from its national digits, which may begin with the national prefix.
    fn write(&self, national: &str, number: &mut String) -> Result<(), Reason> {
        let stripped = self
            .without_national_prefix(national)
            .filter(|stripped| matches!(self.length(stripped), Length::Possible | Length::TooLong));
        let national = stripped.as_deref().unwrap_or(national);
        if self.length(national) != Length::Possible || !self.has(national) {
            return Err(Reason::NumberingPlan);
        }
        number.clear();
        number.push('+');
        number.push_str(self.digits);
        number.push_str(national);
        Ok(())
    }

    /// The digits without what is dialled before a national number, unless only the digits with it are a
    /// number of the plan.
    fn without_national_prefix<'d>(&self, digits: &'d str) -> Option<Cow<'d, str>> {
        let pattern = self.national_prefix.as_ref()?.get();
        let rest = &digits[pattern.find(digits)?.end()..];
        let rewritten = self.rewritten.and_then(|rewritten| {
            let groups = pattern.captures(digits)?;
            groups.get(groups.len() - 1)?;
            let mut text = String::new();
            groups.expand(rewritten, &mut text);
            Some(Cow::Owned(text + rest))
        });
        let national = rewritten.unwrap_or(Cow::Borrowed(rest));
        (self.has(&national) || !self.has(digits)).then_some(national)
    }

    fn has(&self, national: &str) -> bool {
        self.numbers.get().is_match(national)
    }

    fn length(&self, national: &str) -> Length {
        let bit = 1u32.checked_shl(u32::try_from(national.len()).unwrap_or(u32::MAX)).unwrap_or(0);
        if bit == 0 || bit > self.lengths {
            Length::TooLong
        } else if bit & self.lengths != 0 {
            Length::Possible
        } else if bit & self.local_lengths == 0 && bit < self.lengths & self.lengths.wrapping_neg()
        {
            Length::TooShort
        } else {
            Length::Impossible
        }
    }
}

#[cfg(test)]
mod tests {
    use convelo_psi::{CALLING_CODES, TELEPHONE_VERSION};

    use super::*;

    #[test]
    fn the_table_is_whole_and_of_the_recipes_version() {
        const OF_NO_COUNTRY: [u16; 9] = [800, 808, 870, 878, 881, 882, 883, 888, 979];
        let codes = PLANS.iter().map(|plan| plan.code);
        let codes: Vec<u16> = codes.filter(|code| !OF_NO_COUNTRY.contains(code)).collect();
        assert_eq!(codes, CALLING_CODES, "the calling codes that a job may name");
        for plan in &*PLANS {
            let prefixes = [&plan.international_prefix, &plan.national_prefix];
            let patterns = prefixes.into_iter().flatten().chain([&plan.numbers]);
            assert!(patterns.map(Pattern::get).all(|pattern| pattern.as_str().len() > 4));
            assert!(plan.lengths.count_ones() > 0, "{}", plan.code);
        }
        let first = include_str!("plans.tsv").lines().next().expect("a line");
        assert!(first.starts_with(&format!("# libphonenumber {TELEPHONE_VERSION}:")), "{first}");
    }
}
