//! Latin letters in ASCII.
//!
//! A letter with marks (Unicode's canonical decompositions) is its base letter. The letters that have
//! no base letter, and with [`Letters::Passport`] also ä, ö, ü, å and ø, are written as the machine
//! readable zone of a passport writes them (ICAO Doc 9303, part 3, section 6, the first form that it
//! lists). Letters of other scripts stay as they are.

use convelo_psi::Letters;
use icu_normalizer::properties::{
    CanonicalDecomposition, CanonicalDecompositionBorrowed, Decomposed,
};

use crate::folding::nfc;

/// Writes Latin letters in ASCII.
pub(crate) fn ascii(text: &mut String, spare: &mut String, letters: Letters) {
    if text.is_ascii() {
        return;
    }
    nfc(text, spare);
    spare.clear();
    for c in text.chars() {
        if is_mark(c) && spare.ends_with(|before: char| before.is_ascii_alphabetic()) {
            continue;
        }
        match latin(c, letters) {
            Some(Latin::Letter(letter)) => spare.push(letter),
            Some(Latin::Letters(letters)) => spare.push_str(letters),
            None => spare.push(c),
        }
    }
    std::mem::swap(text, spare);
}

enum Latin {
    Letter(char),
    Letters(&'static str),
}

/// What stands for a Latin letter; none for anything else.
fn latin(c: char, letters: Letters) -> Option<Latin> {
    const PARTS: CanonicalDecompositionBorrowed<'static> = CanonicalDecomposition::new();
    let mut c = c;
    loop {
        if c.is_ascii() {
            return Some(Latin::Letter(c));
        }
        if let Some(spelling) = spelling(c, letters) {
            return Some(Latin::Letters(spelling));
        }
        match PARTS.decompose(c) {
            Decomposed::Expansion(base, mark) if is_mark(mark) => c = base,
            _ => return None,
        }
    }
}

/// The letters that are not written as their base letter.
fn spelling(c: char, letters: Letters) -> Option<&'static str> {
    let spelling = match (c, letters) {
        ('Ä', Letters::Passport) | ('Æ', _) => "AE",
        ('ä', Letters::Passport) | ('æ', _) => "ae",
        ('Å', Letters::Passport) => "AA",
        ('å', Letters::Passport) => "aa",
        ('Ö' | 'Ø', Letters::Passport) | ('Œ', _) => "OE",
        ('ö' | 'ø', Letters::Passport) | ('œ', _) => "oe",
        ('Ü', Letters::Passport) => "UE",
        ('ü', Letters::Passport) => "ue",
        ('Ø', Letters::Base) => "O",
        ('ø', Letters::Base) => "o",
        ('Ĳ', _) => "IJ",
        ('ĳ', _) => "ij",
        ('ẞ', _) => "SS",
        ('ß', _) => "ss",
        ('Þ', _) => "TH",
        ('þ', _) => "th",
        ('Ð' | 'Đ', _) => "D",
        ('ð' | 'đ', _) => "d",
        ('Ħ', _) => "H",
        ('ħ', _) => "h",
        ('ı', _) => "i",
        ('ĸ', _) => "q",
        ('Ł' | 'Ŀ', _) => "L",
        ('ł' | 'ŀ', _) => "l",
        ('Ŋ', _) => "N",
        ('ŋ' | 'ŉ', _) => "n",
        ('ſ', _) => "s",
        ('Ŧ', _) => "T",
        ('ŧ', _) => "t",
        _ => return None,
    };
    Some(spelling)
}

/// Whether a character is a mark on the letter before it: Unicode's blocks of combining marks that are
/// of no single script.
fn is_mark(c: char) -> bool {
    matches!(
        c,
        '\u{300}'..='\u{36f}'
            | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}'
            | '\u{fe20}'..='\u{fe2f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_passports_write_it_or_by_base_letter() {
        for (text, passport, base) in [
            ("müller", "mueller", "muller"),
            ("mu\u{308}ller", "mueller", "muller"),
            ("Ägypten", "AEgypten", "Agypten"),
            ("josé", "jose", "jose"),
            ("i\u{307}stanbul", "istanbul", "istanbul"),
            ("İstanbul", "Istanbul", "Istanbul"),
            ("ışık", "isik", "isik"),
            ("łódź", "lodz", "lodz"),
            ("søren ærø åse", "soeren aeroe aase", "soren aero ase"),
            ("straße", "strasse", "strasse"),
            ("nguyễn", "nguyen", "nguyen"),
            ("þórr", "thorr", "thorr"),
            ("cœur", "coeur", "coeur"),
            ("dvořák", "dvorak", "dvorak"),
            ("ǟ", "ae", "a"),
            ("Йосип", "Йосип", "Йосип"),
            ("и\u{306}", "й", "й"),
            ("ἀθήνα", "ἀθήνα", "ἀθήνα"),
            ("नमस्ते", "नमस्ते", "नमस्ते"),
            ("李", "李", "李"),
            ("plain", "plain", "plain"),
        ] {
            for (letters, expected) in [(Letters::Passport, passport), (Letters::Base, base)] {
                let (mut found, mut spare) = (text.to_owned(), String::new());
                ascii(&mut found, &mut spare, letters);
                assert_eq!(found, expected, "{text} {letters:?}");
            }
        }
    }
}
