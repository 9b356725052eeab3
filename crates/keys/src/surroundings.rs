//! What stands around and in between a value and is no part of it: what nobody sees, white space, and
//! what spreadsheets put around a text so that it stays one.

use icu_properties::props::DefaultIgnorableCodePoint;
use icu_properties::{CodePointSetData, CodePointSetDataBorrowed};

/// Whether a character shows nothing: Unicode's Default_Ignorable_Code_Point, which contains the byte
/// order mark, zero-width and soft-hyphen characters, and all controls of writing direction.
pub fn is_invisible(c: char) -> bool {
    static INVISIBLE: CodePointSetDataBorrowed<'static> =
        CodePointSetData::new::<DefaultIgnorableCodePoint>();
    !c.is_ascii() && INVISIBLE.contains(c)
}

/// Drops what nobody sees.
pub(crate) fn drop_invisible(text: &mut String, spare: &mut String) {
    if text.chars().any(is_invisible) {
        spare.clear();
        spare.extend(text.chars().filter(|c| !is_invisible(*c)));
        std::mem::swap(text, spare);
    }
}

/// Without white space at both ends, and without what a spreadsheet puts around a text: `="…"` is a
/// formula whose value is the text, and an apostrophe keeps what follows from becoming a number or a
/// formula.
#[inline]
pub(crate) fn trimmed(text: &str) -> &str {
    // Most texts have nothing around them.
    match text.as_bytes() {
        [first, .., last]
            if first.is_ascii_graphic()
                && last.is_ascii_graphic()
                && !matches!(first, b'=' | b'\'') =>
        {
            text
        }
        _ => without_surroundings(text),
    }
}

fn without_surroundings(text: &str) -> &str {
    let mut text = text;
    loop {
        let trimmed = text.trim();
        let bare = match trimmed.as_bytes() {
            [b'=', b'"', .., b'"'] if trimmed.len() > 2 => &trimmed[2..trimmed.len() - 1],
            [b'\'', b'0'..=b'9' | b'+' | b'-' | b'=' | b'@', ..] => &trimmed[1..],
            _ => return trimmed,
        };
        text = bare;
    }
}

/// Whether a spreadsheet's guard stands around a text, which the step `trim` would drop.
pub fn is_guarded(text: &str) -> bool {
    trimmed(text).len() < text.trim().len()
}

/// Applies [`trimmed`].
pub(crate) fn trim(text: &mut String) {
    let kept = trimmed(text);
    let (begin, length) = (kept.as_ptr() as usize - text.as_ptr() as usize, kept.len());
    text.truncate(begin + length);
    text.drain(..begin);
}

/// Makes one space of any white space, and none at both ends.
pub(crate) fn spaces(text: &mut String, spare: &mut String) {
    trim(text);
    let single = |text: &str| {
        let mut before = ' ';
        text.chars().all(|c| {
            let single = !c.is_whitespace() || (c == ' ' && before != ' ');
            before = c;
            single
        })
    };
    if single(text) {
        return;
    }
    spare.clear();
    for word in text.split_whitespace() {
        if !spare.is_empty() {
            spare.push(' ');
        }
        spare.push_str(word);
    }
    std::mem::swap(text, spare);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed_by_step(text: &str) -> String {
        let mut text = text.to_owned();
        trim(&mut text);
        text
    }

    #[test]
    fn white_space_and_the_guards_of_spreadsheets() {
        for (text, expected) in [
            (" \t a b\u{a0}\r\n", "a b"),
            ("   ", ""),
            ("", ""),
            ("x", "x"),
            ("=\"00123\"", "00123"),
            (" =\" 00123 \" ", "00123"),
            ("=\"\"", ""),
            ("=\"", "=\""),
            ("=\"a\"b", "=\"a\"b"),
            ("\"a\"", "\"a\""),
            ("=1+1", "=1+1"),
            ("'00126", "00126"),
            ("'+49 30", "+49 30"),
            ("'=\"7\"", "7"),
            ("'t Hooft", "'t Hooft"),
            ("'", "'"),
            ("''7", "''7"),
        ] {
            assert_eq!(trimmed_by_step(text), expected, "{text:?}");
        }
    }

    #[test]
    fn one_space_between_words() {
        for (text, expected) in [
            ("Anna\tLou", "Anna Lou"),
            ("Anna\r\nLiv", "Anna Liv"),
            (" Anna \u{2003}\u{a0} Lou ", "Anna Lou"),
            ("Anna Lou", "Anna Lou"),
            ("\u{3000}", ""),
            ("", ""),
        ] {
            let (mut text, mut spare) = (text.to_owned(), String::new());
            spaces(&mut text, &mut spare);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_nobody_sees() {
        for c in
            "\u{ad}\u{34f}\u{61c}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{202a}\u{202c}\u{202e}\
                  \u{2060}\u{2066}\u{2068}\u{2069}\u{3164}\u{fe0f}\u{feff}\u{e0001}"
                .chars()
        {
            assert!(is_invisible(c), "{:x}", u32::from(c));
        }
        for c in " a\u{a0}\u{301}\u{3000}\0\u{1a}\u{fffd}".chars() {
            assert!(!is_invisible(c), "{:x}", u32::from(c));
        }
        let (mut text, mut spare) = ("\u{feff}a\u{ad}b\u{200b}".to_owned(), String::new());
        drop_invisible(&mut text, &mut spare);
        assert_eq!(text, "ab");
    }
}
