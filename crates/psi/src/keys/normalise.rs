//! The normalisation recipe and the unambiguous encoding of a key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};
use zeroize::Zeroize;

use crate::keys::KeyPart;
use crate::limits::MAXIMUM_ENCODED_KEY_BYTES;

/// The version of everything in this file that decides which texts are the same key. It begins
/// every encoded key, so that builds with different recipes match nothing rather than something
/// wrong.
pub const RECIPE_VERSION: u32 = 1;

/// The version of Unicode whose NFKC this build applies. Normalisation of assigned characters is
/// stable across Unicode versions (UAX #15); characters that are assigned later may compare
/// differently under another version.
pub const UNICODE_VERSION: (u8, u8, u8) = unicode_normalization::UNICODE_VERSION;

/// One step of a recipe. Every step is idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Step {
    /// `trim`: white space (Unicode White_Space) at both ends is removed.
    Trim,
    /// `nfkc`: Unicode normalisation form NFKC: full-width letters, ligatures and composed accents
    /// are reduced to one form.
    Nfkc,
    /// `lowercase`: full Unicode lower case, independent of any language.
    Lowercase,
    /// `digits`: NFKC, then everything but `0` to `9` is removed.
    Digits,
    /// `email`: NFKC, trim, lower case as a whole, NFKC again; then exactly one `@`, something
    /// before it, after it a domain of at least two labels, none of them empty, and no white space
    /// or control character. Everything else is invalid. The domain is not converted to its ASCII
    /// form (IDNA), and no provider's rules about dots or `+` are applied.
    Email,
    /// `phone` or `phone:49`: a number in the form of ITU-T E.164, `+` and 8 to 15 digits that do
    /// not begin with 0. NFKC; white space, `.`, `-`, `(`, `)`, `/` and dashes are removed; a
    /// leading `00` becomes `+`. With a country code, a number without `+` is national: one leading
    /// 0 is removed and the code put in front. Without a country code, such a number is invalid. A
    /// zero in parentheses after a country code, as in `+49 (0)30`, is kept as a digit.
    Phone {
        /// The country code, 1 to 3 digits without `+`, not beginning with 0.
        country: Option<String>,
    },
}

/// A text that is not a step of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no normalisation step \"{found}\": write one of {ALL_STEPS}")]
pub struct StepError {
    found: String,
}

const ALL_STEPS: &str = "\"trim\", \"nfkc\", \"lowercase\", \"digits\", \"email\", \"phone\" or \
                         \"phone:49\" (country code of national numbers, without +)";

impl FromStr for Step {
    type Err = StepError;

    fn from_str(text: &str) -> Result<Self, StepError> {
        let step = match text {
            "trim" => Self::Trim,
            "nfkc" => Self::Nfkc,
            "lowercase" => Self::Lowercase,
            "digits" => Self::Digits,
            "email" => Self::Email,
            "phone" => Self::Phone { country: None },
            _ => {
                let country = text.strip_prefix("phone:").filter(|code| is_country(code));
                let country = country.ok_or_else(|| StepError { found: text.to_owned() })?;
                Self::Phone { country: Some(country.to_owned()) }
            }
        };
        Ok(step)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trim => f.write_str("trim"),
            Self::Nfkc => f.write_str("nfkc"),
            Self::Lowercase => f.write_str("lowercase"),
            Self::Digits => f.write_str("digits"),
            Self::Email => f.write_str("email"),
            Self::Phone { country: None } => f.write_str("phone"),
            Self::Phone { country: Some(country) } => write!(f, "phone:{country}"),
        }
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

/// Whether `code` is a country code that [`Step::Phone`] accepts.
pub(crate) fn is_country(code: &str) -> bool {
    (1..=3).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_digit())
        && !code.starts_with('0')
}

/// What became of one row's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Encoded<'a> {
    /// The encoded key: what is pseudonymised.
    Key(&'a [u8]),
    /// A part is missing, or empty after normalisation.
    Blank,
    /// A part is not what its recipe says (an e-mail address, a phone number), or the encoded key
    /// is longer than [`MAXIMUM_ENCODED_KEY_BYTES`].
    Invalid,
}

/// Normalises and encodes the keys of a table, row by row, without allocating once its buffers
/// have grown to the longest key. The buffers are wiped when it is dropped.
pub struct Normaliser {
    parts: Vec<Part>,
    text: String,
    spare: String,
    encoded: Vec<u8>,
}

impl Normaliser {
    /// A normaliser for keys of these parts, in this order.
    pub fn new(parts: &[KeyPart]) -> Self {
        let mut encoded = Vec::with_capacity(512);
        begin(&mut encoded, parts.len());
        Self {
            parts: parts.iter().map(|part| Part::new(&part.normalise)).collect(),
            text: String::with_capacity(512),
            spare: String::with_capacity(512),
            encoded,
        }
    }

    /// Normalises and encodes one key from one field per part, in the job's order. A missing field
    /// counts as blank; fields after the last part are not read. The first part that is blank or
    /// invalid decides.
    ///
    /// The encoding is the recipe version, the number of parts, and for each part its length in
    /// bytes and the bytes of its UTF-8 form; numbers are 32-bit big-endian. No encoded key is a
    /// prefix of another, and two keys have the same encoding only if all their normalised parts
    /// are equal.
    pub fn encode<'b>(&mut self, fields: impl IntoIterator<Item = &'b str>) -> Encoded<'_> {
        let mut fields = fields.into_iter();
        // The start that all keys share is already there.
        self.encoded.truncate(BEGINNING);
        for part in &self.parts {
            let Some(field) = fields.next() else { return Encoded::Blank };
            if part.plain && field.is_ascii() {
                // Most texts of most tables: nothing has to be copied elsewhere to be changed.
                let text = if part.trims { trimmed(field) } else { field };
                if text.is_empty() {
                    return Encoded::Blank;
                }
                if self.encoded.len() + 4 + text.len() > MAXIMUM_ENCODED_KEY_BYTES {
                    return Encoded::Invalid;
                }
                append(&mut self.encoded, text);
                if part.lowers {
                    let begin = self.encoded.len() - text.len();
                    self.encoded[begin..].make_ascii_lowercase();
                }
                continue;
            }
            self.text.clear();
            self.text.push_str(field);
            for step in &part.steps {
                if !apply(step, &mut self.text, &mut self.spare) {
                    return Encoded::Invalid;
                }
            }
            if self.text.is_empty() {
                return Encoded::Blank;
            }
            if self.encoded.len() + 4 + self.text.len() > MAXIMUM_ENCODED_KEY_BYTES {
                return Encoded::Invalid;
            }
            append(&mut self.encoded, &self.text);
        }
        Encoded::Key(&self.encoded)
    }
}

/// Like [`str::trim`] for ASCII text, which most often has nothing to trim.
#[inline]
fn trimmed(text: &str) -> &str {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    if ends.into_iter().flatten().any(|byte| byte <= b' ') { text.trim() } else { text }
}

/// The steps of one part, and what they amount to for ASCII text.
#[derive(Debug)]
struct Part {
    steps: Vec<Step>,
    /// Whether there are no steps but `trim`, `nfkc` and `lowercase`. In ASCII the second does
    /// nothing, and the order of the others does not matter.
    plain: bool,
    trims: bool,
    lowers: bool,
}

impl Part {
    fn new(steps: &[Step]) -> Self {
        let plain = |step: &Step| matches!(step, Step::Trim | Step::Nfkc | Step::Lowercase);
        Self {
            plain: steps.iter().all(plain),
            trims: steps.contains(&Step::Trim),
            lowers: steps.contains(&Step::Lowercase),
            steps: steps.to_vec(),
        }
    }
}

impl Drop for Normaliser {
    fn drop(&mut self) {
        self.text.zeroize();
        self.spare.zeroize();
        self.encoded.zeroize();
    }
}

impl fmt::Debug for Normaliser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Normaliser").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// The encoding of [`Normaliser::encode`] for parts that are already normalised.
pub fn encode_parts(parts: &[&str]) -> Vec<u8> {
    let mut encoded = Vec::new();
    begin(&mut encoded, parts.len());
    for part in parts {
        append(&mut encoded, part);
    }
    encoded
}

/// Bytes before the first part.
const BEGINNING: usize = 8;

fn begin(encoded: &mut Vec<u8>, parts: usize) {
    encoded.extend_from_slice(&RECIPE_VERSION.to_be_bytes());
    encoded.extend_from_slice(&length(parts));
}

fn append(encoded: &mut Vec<u8>, part: &str) {
    encoded.extend_from_slice(&length(part.len()));
    encoded.extend_from_slice(part.as_bytes());
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("parts and fields are below 4 GiB").to_be_bytes()
}

/// Applies a step to `text` in place. Returns whether the step accepts the text; if not, the text
/// is meaningless. An empty text passes: the caller judges it.
fn apply(step: &Step, text: &mut String, spare: &mut String) -> bool {
    match step {
        Step::Trim => trim(text),
        Step::Nfkc => nfkc(text, spare),
        Step::Lowercase => lowercase(text, spare),
        Step::Digits => {
            nfkc(text, spare);
            text.retain(|c| c.is_ascii_digit());
        }
        Step::Email => return email(text, spare),
        Step::Phone { country } => return phone(text, spare, country.as_deref()),
    }
    true
}

fn trim(text: &mut String) {
    text.truncate(text.trim_end().len());
    let leading = text.len() - text.trim_start().len();
    if leading > 0 {
        text.drain(..leading);
    }
}

fn nfkc(text: &mut String, spare: &mut String) {
    if text.is_ascii() || is_nfkc_quick(text.chars()) == IsNormalized::Yes {
        return;
    }
    spare.clear();
    spare.extend(text.nfkc());
    std::mem::swap(text, spare);
}

/// `str::to_lowercase`, without its allocation except when it looks at a final sigma's context.
fn lowercase(text: &mut String, spare: &mut String) {
    if text.is_ascii() {
        text.make_ascii_lowercase();
        return;
    }
    if text.contains('Σ') {
        let mut lower = text.to_lowercase();
        std::mem::swap(text, &mut lower);
        lower.zeroize();
        return;
    }
    spare.clear();
    spare.extend(text.chars().flat_map(char::to_lowercase));
    std::mem::swap(text, spare);
}

fn email(text: &mut String, spare: &mut String) -> bool {
    let ascii = text.is_ascii();
    if !ascii {
        nfkc(text, spare);
    }
    trim(text);
    lowercase(text, spare);
    if !ascii {
        nfkc(text, spare);
    }
    if text.is_empty() {
        return true;
    }
    let spaced = if ascii {
        text.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
    } else {
        text.chars().any(|c| c.is_whitespace() || c.is_control())
    };
    let Some((local, domain)) = text.split_once('@') else { return false };
    !spaced
        && !local.is_empty()
        && !domain.contains('@')
        && domain.contains('.')
        && !domain.starts_with('.')
        && !domain.ends_with('.')
        && !domain.contains("..")
}

fn phone(text: &mut String, spare: &mut String, country: Option<&str>) -> bool {
    nfkc(text, spare);
    text.retain(|c| !is_phone_punctuation(c));
    if text.is_empty() {
        return true;
    }
    spare.clear();
    spare.push('+');
    if let Some(digits) = text.strip_prefix('+').or_else(|| text.strip_prefix("00")) {
        spare.push_str(digits);
    } else if let Some(country) = country {
        spare.push_str(country);
        spare.push_str(text.strip_prefix('0').unwrap_or(text));
    } else {
        return false;
    }
    std::mem::swap(text, spare);
    let digits = &text[1..];
    (8..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

/// White space, the separators people write, and the hyphens and dashes U+2010 to U+2015, U+2212.
fn is_phone_punctuation(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '.' | '-' | '(' | ')' | '/' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::Pseudonymiser;

    fn part(steps: &[&str]) -> KeyPart {
        KeyPart {
            name: "part".to_owned(),
            normalise: steps.iter().map(|step| step.parse().expect("step")).collect(),
        }
    }

    /// The normalised text of a one-part key; `None` for invalid, empty for blank.
    fn normalised(steps: &[&str], text: &str) -> Option<String> {
        match Normaliser::new(&[part(steps)]).encode([text]) {
            Encoded::Key(bytes) => Some(String::from_utf8(bytes[12..].to_vec()).expect("UTF-8")),
            Encoded::Blank => Some(String::new()),
            Encoded::Invalid => None,
        }
    }

    fn check(step: &str, cases: &[(&str, Option<&str>)]) {
        for (text, expected) in cases {
            assert_eq!(normalised(&[step], text).as_deref(), *expected, "{step} of {text:?}");
        }
    }

    #[test]
    fn trim_nfkc_lowercase_digits() {
        check("trim", &[(" \t a b\u{a0}\r\n", Some("a b")), ("   ", Some("")), ("x", Some("x"))]);
        check("nfkc", &[("ﬁ", Some("fi")), ("e\u{301}", Some("é")), ("Ａ１", Some("A1"))]);
        check(
            "lowercase",
            &[("AbC", Some("abc")), ("ÄΣ", Some("äς")), ("İ", Some("i\u{307}")), ("ß", Some("ß"))],
        );
        check("digits", &[("DE 12-34", Some("1234")), ("１２³", Some("123")), ("abc", Some(""))]);
    }

    #[test]
    fn email_addresses() {
        check(
            "email",
            &[
                (" Ada.Lovelace@Example.ORG ", Some("ada.lovelace@example.org")),
                ("ada＠example.org", Some("ada@example.org")),
                ("MÜLLER@BÜCHER.example", Some("müller@bücher.example")),
                ("H\u{331}@example.org", Some("\u{1e96}@example.org")),
                ("a+b@example.org", Some("a+b@example.org")),
                ("", Some("")),
                ("  ", Some("")),
                ("n/a", None),
                ("@example.org", None),
                ("ada@", None),
                ("ada@localhost", None),
                ("ada@.org", None),
                ("ada@example.", None),
                ("ada@a..b", None),
                ("ada@home@example.org", None),
                ("ada lovelace@example.org", None),
                ("ada@exam\u{0}ple.org", None),
            ],
        );
    }

    #[test]
    fn phone_numbers_without_a_country() {
        check(
            "phone",
            &[
                ("+49 30 123456", Some("+4930123456")),
                ("0049 (30) 12/34-56", Some("+4930123456")),
                ("＋４９ 30.123\u{a0}456", Some("+4930123456")),
                ("+49 30 123\u{2013}456", Some("+4930123456")),
                ("030 123456", None),
                ("30123456", None),
                ("+49", None),
                ("+1234567", None),
                ("+12345678", Some("+12345678")),
                ("+123456789012345", Some("+123456789012345")),
                ("+1234567890123456", None),
                ("+0301234567", None),
                ("+49 30 12 ext 4", None),
                ("++4930123456", None),
                ("", Some("")),
                (" - ", Some("")),
            ],
        );
    }

    #[test]
    fn phone_numbers_with_a_country() {
        check(
            "phone:49",
            &[
                ("030 123456", Some("+4930123456")),
                ("30 123456", Some("+4930123456")),
                ("+33 1 23 45 67 89", Some("+33123456789")),
                ("0033 1 23 45 67 89", Some("+33123456789")),
                ("12", None),
                ("unknown", None),
            ],
        );
    }

    #[test]
    fn step_texts() {
        for text in ["trim", "nfkc", "lowercase", "digits", "email", "phone", "phone:49"] {
            let step: Step = text.parse().expect("step");
            assert_eq!(step.to_string(), text);
            assert_eq!(serde_json::to_string(&step).expect("JSON"), format!("\"{text}\""));
        }
        for text in ["", "Trim", "phone:", "phone:+49", "phone:049", "phone:1234", "upper"] {
            let error = text.parse::<Step>().unwrap_err().to_string();
            assert!(error.contains(&format!("\"{text}\"")), "{error}");
            assert!(error.contains("write one of \"trim\""), "{error}");
        }
    }

    #[test]
    fn every_assigned_character_is_normalised_idempotently() {
        // Planes 4 to 13 are unassigned, 15 and 16 are for private use.
        let assigned = ('\0'..='\u{3ffff}').chain('\u{e0000}'..='\u{e0fff}');
        let steps = ["trim", "nfkc", "lowercase", "digits", "email", "phone:49"];
        for step in steps {
            let mut once = Normaliser::new(&[part(&[step])]);
            let mut twice = Normaliser::new(&[part(&[step, step])]);
            for c in assigned.clone() {
                for text in [format!("{c}"), format!("H{c}\u{331}@x{c}.org"), format!("{c}Σ")] {
                    assert!(
                        once.encode([text.as_str()]) == twice.encode([text.as_str()]),
                        "{step} of {text:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn any_blank_part_makes_the_key_blank() {
        let parts = [part(&["trim"]), part(&["email"])];
        let mut normaliser = Normaliser::new(&parts);
        assert!(normaliser.encode(["ada", "ada@example.org"]) != Encoded::Blank);
        assert!(normaliser.encode([" ", "ada@example.org"]) == Encoded::Blank);
        assert!(normaliser.encode(["ada", ""]) == Encoded::Blank);
        assert!(normaliser.encode(["ada"]) == Encoded::Blank);
        assert!(normaliser.encode(["ada", "ada"]) == Encoded::Invalid);
        assert!(normaliser.encode(["", "ada"]) == Encoded::Blank);
    }

    #[test]
    fn key_longer_than_the_limit_is_invalid() {
        let parts = [part(&[])];
        let mut normaliser = Normaliser::new(&parts);
        let longest = "x".repeat(MAXIMUM_ENCODED_KEY_BYTES - 12);
        assert!(matches!(normaliser.encode([longest.as_str()]), Encoded::Key(key)
            if key.len() == MAXIMUM_ENCODED_KEY_BYTES));
        let longer = longest + "x";
        assert!(normaliser.encode([longer.as_str()]) == Encoded::Invalid);
    }

    #[test]
    fn encoding_vector() {
        let parts = [part(&["email"]), part(&["phone:49"])];
        let mut normaliser = Normaliser::new(&parts);
        let Encoded::Key(key) = normaliser.encode(["Ada@Example.org", "030 123456"]) else {
            panic!("a key");
        };
        assert_eq!(
            hex::encode(key),
            "00000001000000020000000f616461406578616d706c652e6f72670000000b2b3439333031323334\
             3536"
        );
        let pseudonym = Pseudonymiser::new(b"convelo test key").pseudonym(key);
        assert_eq!(hex::encode(pseudonym.to_be_bytes()), "535407d6e2bffff5c36d81b39a3045c7");
    }

    proptest! {
        #[test]
        fn steps_are_idempotent(text in any::<String>(), step in 0usize..6) {
            let step = ["trim", "nfkc", "lowercase", "digits", "email", "phone:49"][step];
            if let Some(once) = normalised(&[step], &text) {
                prop_assert_eq!(normalised(&[step], &once), Some(once.clone()));
            }
        }

        #[test]
        fn lowercase_is_the_standard_librarys(text in any::<String>()) {
            prop_assert_eq!(normalised(&["lowercase"], &text), Some(text.to_lowercase()));
        }

        #[test]
        fn plain_steps_on_ascii_are_what_they_are_on_any_text(
            text in "[ -~\t\u{b}\u{c}\r\n]{0,20}",
            steps in proptest::sample::subsequence(vec!["nfkc", "lowercase", "trim", "nfkc"], 0..4),
        ) {
            // A letter that every step leaves alone forces the other path.
            let other = normalised(&steps, &format!("é{text}é")).map(|text| {
                text.trim_start_matches('é').trim_end_matches('é').to_owned()
            });
            let expected = if steps.contains(&"trim") {
                other.map(|text| text.trim().to_owned())
            } else {
                other
            };
            prop_assert_eq!(normalised(&steps, &text), expected);
        }

        #[test]
        fn valid_phone_numbers_are_kept(number in "\\+[1-9][0-9]{7,14}") {
            prop_assert_eq!(normalised(&["phone"], &number), Some(number.clone()));
            prop_assert_eq!(normalised(&["phone:1"], &number), Some(number));
        }

        #[test]
        fn encoding_is_injective_and_prefix_free(
            a in proptest::collection::vec("[ab]{0,3}", 1..4),
            b in proptest::collection::vec("[ab]{0,3}", 1..4),
        ) {
            let texts = |parts: &[String]| {
                encode_parts(&parts.iter().map(String::as_str).collect::<Vec<_>>())
            };
            prop_assert_eq!(a == b, texts(&a) == texts(&b));
            prop_assert_eq!(a == b, texts(&a).starts_with(&texts(&b)));
        }

        #[test]
        fn rows_do_not_influence_each_other(
            rows in proptest::collection::vec((any::<String>(), any::<String>()), 1..20),
        ) {
            let parts = [part(&["nfkc", "trim", "lowercase"]), part(&["email"])];
            let mut reused = Normaliser::new(&parts);
            for (a, b) in &rows {
                let mut fresh = Normaliser::new(&parts);
                let fields = [a.as_str(), b.as_str()];
                prop_assert!(reused.encode(fields) == fresh.encode(fields));
            }
        }
    }
}
