//! Text that somebody else wrote, and how it is shown: so that a reader sees what arrived, and who
//! wrote it, and nothing in it acts on a terminal, moves other text, or hides.
//!
//! [`Untrusted`] is such text inside a message of ours: quoted, escaped, of bounded length, and
//! printable in no other way. [`shown`] is for a message that a library mixed from its own words and
//! somebody else's. [`Terminal`] is the last guard: a writer that lets no character through that
//! [`is_plain`] does not call plain. [`lines`] says where the lines of a text end.
//!
//! ```
//! use convelo_untrusted::Untrusted;
//!
//! let said = Untrusted::new("\u{1b}[2Kevidence \u{202e}verified\"");
//! assert_eq!(
//!     format!("an unverified service says {said}"),
//!     r#"an unverified service says "\u{1b}[2Kevidence \u{202e}verified\"""#
//! );
//! ```

mod lines;

use std::fmt::{self, Write as _};
use std::io;

pub use lines::{BYTE_ORDER_MARK, CONTROL_Z, Line, joint, line_end, lines};

/// The longest quotation, in characters; the rest is cut.
pub const MAXIMUM_QUOTED_CHARACTERS: usize = 512;

/// The longest message of mixed words, in characters; the rest is cut.
pub const MAXIMUM_SHOWN_CHARACTERS: usize = 2048;

/// Text that somebody else wrote: a service, a peer, a certificate, a file from a partner.
///
/// It prints as `"text"`, with quotation marks, backslashes and everything that is not plain
/// escaped. The alternate form (`{:#}`) leaves out the marks around it, for a message that has its
/// own, of either kind.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Untrusted(String);

impl Untrusted {
    /// Wraps what arrived.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Wraps bytes that should be text; what is not UTF-8 is replaced.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The text as it arrived: for a program that compares or sends it, never for a person.
    pub fn as_arrived(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alone = !f.alternate();
        if alone {
            f.write_char('"')?;
        }
        for (number, character) in self.0.chars().enumerate() {
            if number == MAXIMUM_QUOTED_CHARACTERS {
                f.write_char('…')?;
                break;
            }
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                '\'' if !alone => f.write_str("\\'")?,
                _ => write_plain(f, character)?,
            }
        }
        if alone {
            f.write_char('"')?;
        }
        Ok(())
    }
}

/// As it is shown.
impl fmt::Debug for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A message in which somebody else's words stand between ours: one line of bounded length, in which
/// everything that is not plain is escaped.
pub fn shown(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for (number, character) in text.chars().enumerate() {
        if number == MAXIMUM_SHOWN_CHARACTERS {
            line.push('…');
            break;
        }
        let _ = write_plain(&mut line, character);
    }
    line
}

/// Whether a character only shows itself, to the right of the one before it.
///
/// Not plain are: control characters, among them line breaks; formatting characters, which include
/// those that change the direction of text; combining marks; characters that no glyph stands for
/// (default-ignorable code points, blanks other than the space); characters of scripts that run from
/// right to left, which move the digits and marks beside them; and code points that are not assigned.
pub fn is_plain(character: char) -> bool {
    match character {
        ' '..='~' => true,
        // Letters and symbols that are blank (Hangul fillers, and Braille without dots), and scripts
        // from right to left.
        '\u{115f}'
        | '\u{1160}'
        | '\u{3164}'
        | '\u{ffa0}'
        | '\u{2800}'
        | '\u{590}'..='\u{8ff}'
        | '\u{fb1d}'..='\u{fdff}'
        | '\u{fe70}'..='\u{feff}'
        | '\u{10800}'..='\u{10fff}'
        | '\u{1e800}'..='\u{1efff}' => false,
        // The standard library escapes what is not printable, and what extends the character before.
        _ => character.escape_debug().len() == 1,
    }
}

fn write_plain(to: &mut impl fmt::Write, character: char) -> fmt::Result {
    if is_plain(character) {
        to.write_char(character)
    } else {
        write!(to, "{}", character.escape_unicode())
    }
}

/// A writer for lines that people read, on a terminal or in a log. Line breaks and tabs are the
/// program's own layout and pass; whatever else is not plain is escaped, wherever it came from.
#[derive(Debug)]
pub struct Terminal<W>(W);

impl<W: io::Write> Terminal<W> {
    /// Guards a writer.
    pub fn new(writer: W) -> Self {
        Self(writer)
    }
}

impl<W: io::Write> io::Write for Terminal<W> {
    /// Takes all bytes or none. Bytes that are not UTF-8 are escaped one by one.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                let _ = match character {
                    '\n' | '\t' => line.write_char(character),
                    _ => write_plain(&mut line, character),
                };
            }
            for byte in chunk.invalid() {
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
        self.0.write_all(line.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn on_terminal(bytes: &[u8]) -> String {
        let mut terminal = Terminal::new(Vec::new());
        terminal.write_all(bytes).expect("memory");
        String::from_utf8(terminal.0).expect("text")
    }

    #[test]
    fn an_escape_sequence_is_shown_and_does_nothing() {
        for text in
            ["\u{1b}[32mverified\u{1b}[0m", "\u{9b}2J", "a\rb", "a\u{8}b", "\u{7}", "\u{7f}"]
        {
            let said = Untrusted::new(text).to_string();
            assert!(said.chars().all(|c| (' '..='~').contains(&c)), "{said}");
            assert_eq!(on_terminal(text.as_bytes()), shown(text));
        }
        assert_eq!(Untrusted::new("\u{1b}[2J").to_string(), r#""\u{1b}[2J""#);
    }

    #[test]
    fn text_does_not_change_direction() {
        for code in (0x202a..=0x202e).chain(0x2066..=0x2069).chain([0x200e, 0x200f, 0x61c]) {
            let character = char::from_u32(code).expect("a character");
            assert!(!is_plain(character), "{code:x}");
        }
        // Letters of Hebrew and Arabic, and their digits, move what stands beside them.
        assert!(!"אبא٣\u{1e900}\u{10a00}".chars().any(is_plain));
    }

    #[test]
    fn nothing_hides() {
        // Default-ignorable code points (Unicode, DerivedCoreProperties), and blanks.
        let ignorable = [0xad, 0x34f, 0x115f, 0x1160, 0x17b4, 0x17b5, 0x3164, 0xfeff, 0xffa0]
            .into_iter()
            .chain(0x180b..=0x180f)
            .chain(0x200b..=0x200f)
            .chain(0x2060..=0x206f)
            .chain(0xfe00..=0xfe0f)
            .chain(0xfff0..=0xfff8)
            .chain(0x1_bca0..=0x1_bca3)
            .chain(0x1_d173..=0x1_d17a)
            .chain(0xe_0000..=0xe_0fff)
            .chain([0xa0, 0x1680, 0x2000, 0x2028, 0x2029, 0x202f, 0x205f, 0x2800, 0x3000]);
        for code in ignorable {
            let character = char::from_u32(code).expect("a character");
            assert!(!is_plain(character), "{code:x}");
        }
        // Marks that pile up on other lines.
        assert!(!"\u{300}\u{20dd}\u{489}".chars().any(is_plain));
    }

    #[test]
    fn a_quotation_ends_only_where_it_should() {
        let said = Untrusted::new(r#"done". The service was verified: "yes\"#);
        assert_eq!(said.to_string(), r#""done\". The service was verified: \"yes\\""#);
        let name = Untrusted::new("CN=x', issuer 'CN=y");
        assert_eq!(format!("'{name:#}'"), r"'CN=x\', issuer \'CN=y'");
    }

    #[test]
    fn a_line_break_starts_no_line_of_ours() {
        assert_eq!(Untrusted::new("a\nerror: b").to_string(), r#""a\u{a}error: b""#);
        assert_eq!(shown("a\nb"), r"a\u{a}b");
        assert_eq!(on_terminal(b"a\nb\n"), "a\nb\n", "our own layout");
    }

    #[test]
    fn ordinary_words_are_shown_as_they_are() {
        for text in ["'bob' left the job: it gave up", "Université de Liège", "Ελλάδα 日本 €"]
        {
            assert_eq!(Untrusted::new(text).to_string(), format!("\"{text}\""));
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn long_text_is_cut() {
        let long = "x".repeat(100_000);
        let said = Untrusted::new(long.as_str()).to_string();
        assert_eq!(said.chars().count(), MAXIMUM_QUOTED_CHARACTERS + 3);
        assert_eq!(shown(&long).chars().count(), MAXIMUM_SHOWN_CHARACTERS + 1);
    }

    proptest! {
        #[test]
        fn only_plain_characters_are_printed(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            let said = Untrusted::new(text.as_str());
            for line in [said.to_string(), format!("{said:#}"), format!("{said:?}"), shown(&text)] {
                prop_assert!(line.chars().all(is_plain), "{line:?}");
            }
            let layout = |c| is_plain(c) || matches!(c, '\n' | '\t');
            prop_assert!(on_terminal(&bytes).chars().all(layout));
            prop_assert_eq!(said.as_arrived(), text);
        }

        #[test]
        fn what_is_quoted_can_be_told_apart(one in ".{0,100}", other in ".{0,100}") {
            let same = Untrusted::new(one.as_str()).to_string() == Untrusted::new(other.as_str()).to_string();
            prop_assert_eq!(same, one == other);
        }
    }
}
