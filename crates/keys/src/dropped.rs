//! Why a row has no key.

use std::fmt;

/// Why a row has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dropped {
    /// The part is missing, or empty after its steps.
    Blank,
    /// The job says that this value means "unknown".
    Ignored,
    /// The part is not what its steps expect.
    Invalid(Reason),
}

/// Why a text is not what a step expects. Says nothing about the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The key as a whole is too long.
    TooLong,
    /// Letters among digits.
    Letters,
    /// A character that has no place here.
    Character,
    /// A plus or minus sign where a number has none.
    Sign,
    /// A fraction, or what may be one.
    Fraction,
    /// A number that was rounded, in scientific notation.
    Exponent,
    /// Thousands that are not separated as the step says.
    Grouping,
    /// A date among identifiers.
    LooksLikeDate,
    /// Not three numbers in the order that the step says.
    DateOrder,
    /// A year of two digits.
    ShortYear,
    /// A day that is in no calendar.
    NoSuchDay,
    /// A date with a time that is not midnight.
    TimeOfDay,
    /// Two readings that name different days.
    Ambiguous,
    /// No @, or more than one address.
    NotOneAddress,
    /// What stands before the @.
    LocalPart,
    /// What stands after the @.
    Domain,
    /// A telephone number without a calling code.
    NoCallingCode,
    /// A telephone number with a calling code that nobody has.
    UnknownCallingCode,
    /// A telephone number that is impossible in its country.
    NumberingPlan,
    /// A telephone number with an extension.
    Extension,
    /// A telephone number that begins with the country's own calling code, or is a national one.
    OwnCallingCode,
    /// Three zeros behind a dot or comma, which are a fraction or thousands.
    FractionOrThousands,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::TooLong,
        Self::Letters,
        Self::Character,
        Self::Sign,
        Self::Fraction,
        Self::Exponent,
        Self::Grouping,
        Self::LooksLikeDate,
        Self::DateOrder,
        Self::ShortYear,
        Self::NoSuchDay,
        Self::TimeOfDay,
        Self::Ambiguous,
        Self::NotOneAddress,
        Self::LocalPart,
        Self::Domain,
        Self::NoCallingCode,
        Self::UnknownCallingCode,
        Self::NumberingPlan,
        Self::Extension,
        Self::OwnCallingCode,
        Self::FractionOrThousands,
    ];

    /// A word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Letters => "letters",
            Self::Character => "character",
            Self::Sign => "sign",
            Self::Fraction => "fraction",
            Self::Exponent => "exponent",
            Self::Grouping => "grouping",
            Self::LooksLikeDate => "looks-like-date",
            Self::DateOrder => "date-order",
            Self::ShortYear => "short-year",
            Self::NoSuchDay => "no-such-day",
            Self::TimeOfDay => "time-of-day",
            Self::Ambiguous => "ambiguous",
            Self::NotOneAddress => "not-one-address",
            Self::LocalPart => "local-part",
            Self::Domain => "domain",
            Self::NoCallingCode => "no-calling-code",
            Self::UnknownCallingCode => "unknown-calling-code",
            Self::NumberingPlan => "numbering-plan",
            Self::Extension => "extension",
            Self::OwnCallingCode => "own-calling-code",
            Self::FractionOrThousands => "fraction-or-thousands",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the key is longer than 4 KiB",
            Self::Letters => "there are letters in it",
            Self::Character => "there is a character in it that does not belong there",
            Self::Sign => "it has a sign, and an identifier has none",
            Self::Fraction => "it is a fraction, or may be one",
            Self::Exponent => "a spreadsheet has rounded it: export the column as text",
            Self::Grouping => "its thousands are not separated as the step says",
            Self::LooksLikeDate => "it looks like a date, for which the step is date:dmy",
            Self::DateOrder => "it is not a date in the order that the step says",
            Self::ShortYear => "its year has two digits",
            Self::NoSuchDay => "there is no such day",
            Self::TimeOfDay => "it has a time of day, so the day depends on the time zone",
            Self::Ambiguous => "it can be read in two ways",
            Self::NotOneAddress => "it is not one mail address",
            Self::LocalPart => "what stands before the @ is not part of a mail address",
            Self::Domain => "what stands after the @ is not a domain",
            Self::NoCallingCode => {
                "it has no calling code, and the step names no country: phone:49"
            }
            Self::UnknownCallingCode => "nobody has its calling code",
            Self::NumberingPlan => "no number in its country is like this",
            Self::Extension => "it has an extension: say phone:drop-extension or keep-extension",
            Self::OwnCallingCode => {
                "it may begin with its country's calling code or be a national number: write it with +, \
                 or as it is dialled in the country"
            }
            Self::FractionOrThousands => {
                "the three zeros behind its dot or comma may be a fraction or thousands: say \
                 integer:dot or integer:comma"
            }
        })
    }
}

impl Dropped {
    /// Whether the row counts as one without a key, and not as one with an invalid key.
    pub fn is_blank(self) -> bool {
        matches!(self, Self::Blank | Self::Ignored)
    }

    /// A word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Ignored => "ignored",
            Self::Invalid(reason) => reason.word(),
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("it is blank"),
            Self::Ignored => f.write_str("the job ignores its value"),
            Self::Invalid(reason) => reason.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_words() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "ALL is in the order of the variants");
            for other in &Reason::ALL[..index] {
                assert_ne!(reason.word(), other.word());
                assert_ne!(reason.to_string(), other.to_string());
            }
        }
    }
}
