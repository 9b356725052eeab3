//! The steps that a job can name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::CALLING_CODES;

/// One step of a recipe. Every step is idempotent, drops what nobody sees (Unicode's
/// Default_Ignorable_Code_Point), and leaves an empty text empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Step {
    /// `trim`: white space at both ends is removed, and what a spreadsheet puts around a text.
    Trim,
    /// `nfkc`: Unicode normalisation form NFKC: full-width letters, ligatures and composed accents
    /// are reduced to one form.
    Nfkc,
    /// `lowercase`: full Unicode lower case, independent of any language.
    Lowercase,
    /// `fold`: Unicode's NFKC_Casefold, which makes equal what differs in letter case or in
    /// compatible forms only.
    Fold,
    /// `spaces`: white space is removed at both ends, and any of it in between is one space.
    Spaces,
    /// `plain`: all apostrophes are `'`, and all hyphens and dashes are `-`.
    Plain,
    /// `ascii`: Latin letters that are not ASCII are written in ASCII.
    Ascii(Letters),
    /// `digits`: the digits of an identifier, without the separators between them.
    Digits,
    /// `integer`: a whole number, however it is written.
    Integer(Grouping),
    /// `date:dmy` and so on: a day of the Gregorian calendar, as in ISO 8601.
    Date(DateOrder),
    /// `email`: an address of electronic mail.
    Email(Profile),
    /// `phone`: a telephone number, as in ITU-T E.164.
    Phone {
        /// The calling code of the country in which a number without one is dialled.
        country: Option<u16>,
        /// What becomes of a number with an extension.
        extension: Extension,
    },
}

/// What `ascii` makes of a letter with marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// As passports write it: ü is ue, å is aa.
    Passport,
    /// Its base letter: ü is u, å is a.
    Base,
}

/// What may stand between the thousands of an `integer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// Nothing.
    None,
    /// 1,234,567.
    Comma,
    /// 1.234.567.
    Dot,
    /// 1 234 567.
    Space,
    /// 1'234'567.
    Apostrophe,
}

/// The order in which the parts of a date are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateOrder {
    /// Day, month, year.
    Dmy,
    /// Month, day, year.
    Mdy,
    /// Year, month, day.
    Ymd,
}

/// Whose rules about equal mail addresses apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// No provider's.
    Plain,
    /// Those of Unified ID 2.0.
    Uid2,
    /// Those of Google's customer match and enhanced conversions.
    Google,
}

/// What becomes of a telephone number with an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// It is invalid.
    Refuse,
    /// It is the number without the extension.
    Drop,
    /// The extension is part of the number.
    Keep,
}

/// Every spelling of a step. 49 stands for any calling code.
pub const STEPS: [&str; 25] = [
    "trim",
    "nfkc",
    "lowercase",
    "fold",
    "spaces",
    "plain",
    "ascii",
    "ascii:base",
    "digits",
    "integer",
    "integer:comma",
    "integer:dot",
    "integer:space",
    "integer:apostrophe",
    "date:dmy",
    "date:mdy",
    "date:ymd",
    "email",
    "email:uid2",
    "email:google",
    "phone",
    "phone:49",
    "phone:drop-extension",
    "phone:49:drop-extension",
    "phone:49:keep-extension",
];

impl Step {
    /// Whether numbering plans decide what it does.
    pub(crate) fn reads_telephone_numbers(self) -> bool {
        matches!(self, Self::Phone { .. })
    }

    /// The calling code that it names, if no country has it.
    pub(crate) fn unassigned_country(self) -> Option<u16> {
        match self {
            Self::Phone { country, .. } => {
                country.filter(|code| CALLING_CODES.binary_search(code).is_err())
            }
            _ => None,
        }
    }
}

impl FromStr for Step {
    type Err = StepError;

    fn from_str(text: &str) -> Result<Self, StepError> {
        let step = match text {
            "trim" => Self::Trim,
            "nfkc" => Self::Nfkc,
            "lowercase" => Self::Lowercase,
            "fold" => Self::Fold,
            "spaces" => Self::Spaces,
            "plain" => Self::Plain,
            "ascii" => Self::Ascii(Letters::Passport),
            "ascii:base" => Self::Ascii(Letters::Base),
            "digits" => Self::Digits,
            "integer" => Self::Integer(Grouping::None),
            "integer:comma" => Self::Integer(Grouping::Comma),
            "integer:dot" => Self::Integer(Grouping::Dot),
            "integer:space" => Self::Integer(Grouping::Space),
            "integer:apostrophe" => Self::Integer(Grouping::Apostrophe),
            "date:dmy" => Self::Date(DateOrder::Dmy),
            "date:mdy" => Self::Date(DateOrder::Mdy),
            "date:ymd" => Self::Date(DateOrder::Ymd),
            "email" => Self::Email(Profile::Plain),
            "email:uid2" => Self::Email(Profile::Uid2),
            "email:google" => Self::Email(Profile::Google),
            _ => return phone(text).ok_or_else(|| StepError { found: text.to_owned() }),
        };
        Ok(step)
    }
}

/// `phone`, and then at most a calling code and at most a choice about extensions.
fn phone(text: &str) -> Option<Step> {
    let rest = text.strip_prefix("phone")?;
    let (rest, extension) = if let Some(rest) = rest.strip_suffix(":drop-extension") {
        (rest, Extension::Drop)
    } else if let Some(rest) = rest.strip_suffix(":keep-extension") {
        (rest, Extension::Keep)
    } else {
        (rest, Extension::Refuse)
    };
    if rest.is_empty() {
        return Some(Step::Phone { country: None, extension });
    }
    let code = rest.strip_prefix(':')?;
    let written = (1..=3).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_digit())
        && !code.starts_with('0');
    Some(Step::Phone { country: Some(code.parse().ok().filter(|_| written)?), extension })
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Trim => "trim",
            Self::Nfkc => "nfkc",
            Self::Lowercase => "lowercase",
            Self::Fold => "fold",
            Self::Spaces => "spaces",
            Self::Plain => "plain",
            Self::Ascii(Letters::Passport) => "ascii",
            Self::Ascii(Letters::Base) => "ascii:base",
            Self::Digits => "digits",
            Self::Integer(Grouping::None) => "integer",
            Self::Integer(Grouping::Comma) => "integer:comma",
            Self::Integer(Grouping::Dot) => "integer:dot",
            Self::Integer(Grouping::Space) => "integer:space",
            Self::Integer(Grouping::Apostrophe) => "integer:apostrophe",
            Self::Date(DateOrder::Dmy) => "date:dmy",
            Self::Date(DateOrder::Mdy) => "date:mdy",
            Self::Date(DateOrder::Ymd) => "date:ymd",
            Self::Email(Profile::Plain) => "email",
            Self::Email(Profile::Uid2) => "email:uid2",
            Self::Email(Profile::Google) => "email:google",
            Self::Phone { country, extension } => {
                f.write_str("phone")?;
                if let Some(country) = country {
                    write!(f, ":{country}")?;
                }
                match extension {
                    Extension::Refuse => "",
                    Extension::Drop => ":drop-extension",
                    Extension::Keep => ":keep-extension",
                }
            }
        };
        f.write_str(text)
    }
}

impl TryFrom<String> for Step {
    type Error = StepError;

    fn try_from(text: String) -> Result<Self, StepError> {
        text.parse()
    }
}

impl From<Step> for String {
    fn from(step: Step) -> Self {
        step.to_string()
    }
}

/// A text that is not a step of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    found: String,
}

impl std::error::Error for StepError {}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no normalisation step \"{}\"", self.found.escape_debug())?;
        let name = self.found.split(':').next().unwrap_or_default();
        match name {
            "date" => f.write_str(
                ": say in which order the column has day, month and year, as in \"date:dmy\"",
            )?,
            "phone" => {
                f.write_str(": a country is its calling code without + or 0, as in \"phone:49\"")?;
            }
            _ => {
                let distance = |step: &&str| edits(&self.found, step);
                let nearest = STEPS.iter().copied().min_by_key(distance).unwrap_or_default();
                if distance(&nearest) <= 1 + nearest.len() / 3 {
                    write!(f, ", did you mean \"{nearest}\"?")?;
                }
            }
        }
        f.write_str("; the steps are ")?;
        for (index, step) in STEPS.iter().enumerate() {
            write!(f, "{}\"{step}\"", if index == 0 { "" } else { ", " })?;
        }
        f.write_str(" (49 stands for any calling code)")
    }
}

/// How many letters must be put in, left out or changed to make `wanted` of `found`, of which the first
/// 32 characters count.
fn edits(found: &str, wanted: &str) -> usize {
    let found: Vec<char> = found.chars().take(32).collect();
    let mut row: Vec<usize> = (0..=found.len()).collect();
    for (line, wanted) in wanted.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, found) in found.iter().enumerate() {
            let changed = diagonal + usize::from(*found != wanted);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[found.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_one_text() {
        for text in STEPS.into_iter().chain(["phone:keep-extension", "phone:7"]) {
            let step: Step = text.parse().expect("a step");
            assert_eq!(step.to_string(), text);
            assert_eq!(serde_json::to_string(&step).expect("JSON"), format!("\"{text}\""));
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_steps_that_there_are() {
        for (text, expected) in [
            ("", "; the steps are \"trim\", \"nfkc\""),
            ("Trim", ", did you mean \"trim\"?; the steps are"),
            ("lower", ", did you mean \"lowercase\"?"),
            ("lower-case", ", did you mean \"lowercase\"?"),
            ("emial", ", did you mean \"email\"?"),
            ("email:gmail", ", did you mean \"email:google\"?"),
            ("integer:commas", ", did you mean \"integer:comma\"?"),
            ("date", ": say in which order the column has day, month and year"),
            ("date:iso", ": say in which order"),
            ("phone:", ": a country is its calling code"),
            ("phone:+49", ": a country is its calling code"),
            ("phone:DE", ": a country is its calling code"),
            ("phone:049", ": a country is its calling code"),
            ("phone:1234", ": a country is its calling code"),
            ("phone:49:ext", ": a country is its calling code"),
            ("phone:drop-extension:49", ": a country is its calling code"),
            ("upside-down", "; the steps are"),
        ] {
            let error = text.parse::<Step>().unwrap_err().to_string();
            let expected = format!("there is no normalisation step \"{text}\"{expected}");
            assert!(error.starts_with(&expected), "\nfound:    {error}\nexpected: {expected}");
        }
    }

    #[test]
    fn edits_between_words() {
        for (found, wanted, expected) in
            [("trim", "trim", 0), ("", "trim", 4), ("tirm", "trim", 2), ("trims", "trim", 1)]
        {
            assert_eq!(edits(found, wanted), expected, "{found} {wanted}");
        }
    }
}
