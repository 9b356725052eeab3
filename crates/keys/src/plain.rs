//! One apostrophe and one hyphen for all of their forms.

use icu_properties::props::Dash;
use icu_properties::{CodePointSetData, CodePointSetDataBorrowed};

/// Whether a character is a hyphen or a dash: Unicode's property Dash.
pub(crate) fn is_dash(c: char) -> bool {
    static DASHES: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<Dash>();
    if c.is_ascii() { c == '-' } else { DASHES.contains(c) }
}

/// Whether a character is written for an apostrophe: the typographic ones, single quotation marks, the
/// accents of a keyboard, primes, the letters that stand for a glottal stop, and the full-width form.
pub(crate) fn is_apostrophe(c: char) -> bool {
    matches!(
        c,
        '\'' | '`'
            | '´'
            | '\u{2b9}'..='\u{2bd}'
            | '\u{2c8}'
            | '\u{2ca}'..='\u{2cb}'
            | '\u{2ee}'
            | '\u{55a}'
            | '\u{5f3}'
            | '\u{2018}'..='\u{201b}'
            | '\u{2032}'
            | '\u{2035}'
            | '\u{a78b}'..='\u{a78c}'
            | '\u{ff07}'
            | '\u{ff40}'
    )
}

/// The ASCII form of a full-width dot, comma or slash, as East Asian keyboards write them between digits; any
/// other character as it is.
pub(crate) fn half_width(c: char) -> char {
    match c {
        '．' => '.',
        '，' => ',',
        '／' => '/',
        other => other,
    }
}

/// All apostrophes are `'`, and all hyphens and dashes `-`.
pub(crate) fn plain(text: &mut String, spare: &mut String) {
    let plain = |c: char| match c {
        c if is_apostrophe(c) => '\'',
        c if is_dash(c) => '-',
        c => c,
    };
    if text.chars().all(|c| plain(c) == c) {
        return;
    }
    spare.clear();
    spare.extend(text.chars().map(plain));
    std::mem::swap(text, spare);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apostrophes_and_hyphens() {
        for (text, expected) in [
            ("O’Brien", "O'Brien"),
            ("O´Brien", "O'Brien"),
            ("O`Brien", "O'Brien"),
            ("Oʼahu", "O'ahu"),
            ("Smith\u{2010}Jones", "Smith-Jones"),
            ("Smith\u{2011}Jones", "Smith-Jones"),
            ("Smith\u{2013}Jones", "Smith-Jones"),
            ("Smith\u{2212}Jones", "Smith-Jones"),
            ("a_b", "a_b"),
            ("“a”", "“a”"),
        ] {
            let (mut text, mut spare) = (text.to_owned(), String::new());
            plain(&mut text, &mut spare);
            assert_eq!(text, expected);
        }
    }
}
