//! How a telephone number is written: which digits, whether with a country's calling code, and with
//! which extension.

use crate::decimal;
use crate::digits::{intruder, is_exponent};
use crate::dropped::Reason;
use crate::plain::{half_width, is_dash};

/// Longest extension (RFC 3966 has no limit, libphonenumber reads 20 digits).
const LONGEST_EXTENSION: usize = 20;

/// Words that stand before an extension, as in libphonenumber.
const EXTENSION_WORDS: [&str; 11] =
    ["x", "ext", "extn", "extension", "extensión", "xt", "xtn", "int", "anexo", "доб", "доп"];

/// What a text says besides its digits.
pub(super) struct Written {
    /// Whether it begins with a plus sign: then its digits begin with a calling code.
    pub(super) international: bool,
    pub(super) extension: Option<String>,
}

impl Written {
    /// Reads a trimmed text and appends its digits, in ASCII.
    pub(super) fn read(text: &str, digits: &mut String) -> Result<Self, Reason> {
        let (number, extension) = without_extension(without_scheme(text))?;
        let mut international = false;
        let number = number.trim_end_matches(['.', ',', '．', '，']);
        let (mut dots, mut commas, mut others, mut fraction) = (0, 0, 0, 0);
        for c in number.chars() {
            if decimal::value(c).is_some() {
                digits.push(decimal::in_ascii(c));
                continue;
            }
            match half_width(c) {
                '+' | '＋' if digits.is_empty() && !international => {
                    international = true;
                }
                '.' => (dots, fraction) = (dots + 1, digits.len()),
                ',' => (commas, fraction) = (commas + 1, digits.len()),
                _ if is_separator(c) => others += 1,
                _ if is_exponent(number) => return Err(Reason::Exponent),
                _ => return Err(intruder(c, number)),
            }
        }
        if commas + dots == 1 && digits.len() - fraction <= 2 {
            // A number for a spreadsheet, with its fraction.
            if others > 0 || digits[fraction..].contains(|c| c != '0') {
                return Err(Reason::Fraction);
            }
            digits.truncate(fraction);
        } else if commas > 0 {
            return Err(Reason::Fraction);
        }
        Ok(Self { international, extension })
    }
}

/// White space, dashes, brackets, and what else stands between groups of digits.
fn is_separator(c: char) -> bool {
    matches!(
        c,
        '(' | ')' | '[' | ']' | '/' | '~' | '（' | '）' | '［' | '］' | '～' | '∼' | '·' | 'ー'
    ) || c.is_whitespace()
        || is_dash(c)
}

/// Without `tel:` (RFC 3966).
fn without_scheme(text: &str) -> &str {
    match text.split_at_checked("tel:".len()) {
        Some((scheme, number)) if scheme.eq_ignore_ascii_case("tel:") => number,
        _ => text,
    }
}

/// Splits off an extension: `;ext=12` (RFC 3966), `ext. 12`, `x12`, `#12`.
fn without_extension(text: &str) -> Result<(&str, Option<String>), Reason> {
    let begins = |c: char| c.is_alphabetic() && c != 'ー' || matches!(c, ';' | '#');
    let Some(at) = text.find(begins) else { return Ok((text, None)) };
    let (number, marked) = text.split_at(at);
    let rest = match marked.strip_prefix('#') {
        Some(rest) => rest,
        None => {
            if let Some(parameter) = marked.strip_prefix(';') {
                let prefix = parameter.get(..4).filter(|name| name.eq_ignore_ascii_case("ext="));
                prefix.map(|_| &parameter[4..]).ok_or(Reason::Character)?
            } else {
                let end = marked.find(|c: char| !c.is_alphabetic()).unwrap_or(marked.len());
                let word = marked[..end].to_lowercase();
                if !EXTENSION_WORDS.contains(&word.as_str()) {
                    return Ok((text, None));
                }
                &marked[end..]
            }
        }
    };
    let rest = rest.trim_start_matches(['.', ':']);
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || is_dash(c));
    let rest = rest.strip_suffix('#').unwrap_or(rest);
    let extension: Option<String> =
        rest.chars().map(|c| decimal::value(c).map(|_| decimal::in_ascii(c))).collect();
    match extension {
        Some(extension) if (1..=LONGEST_EXTENSION).contains(&extension.len()) => {
            // A comma or a dash may stand before the word.
            Ok((number.trim_end_matches(|c: char| c == ',' || c.is_whitespace()), Some(extension)))
        }
        _ if is_exponent(text) => Err(Reason::Exponent),
        _ => Err(Reason::Letters),
    }
}
