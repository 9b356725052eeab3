//! The values of a key part that mean "unknown".

use zeroize::Zeroize as _;

use crate::folding::fold;
use crate::surroundings::{drop_invisible, trim};

/// What exports write where they know nothing, for a job to begin with.
#[rustfmt::skip]
pub const UNKNOWN_VALUES: [&str; 39] = [
    "-", "--", ".", "?", "N/A", "n.a.", "NA", "<NA>", "NaN", "NaT", "NIL", "none", "NULL", "(null)", "\\N",
    "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#DIV/0!",
    "###", "####", "#####", "######", "#######", "########", "#########", "##########",
    "empty", "missing", "not available", "undefined", "unknown",
    "none@none.com", "no@email.com", "noemail@noemail.com", "test@test.com",
];

/// Whether a text is blank, or one of [`UNKNOWN_VALUES`] in any letter case.
pub fn is_unknown(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || UNKNOWN_VALUES.iter().any(|value| value.eq_ignore_ascii_case(text))
}

/// The values of one part, as they are compared: after the part's steps, or, where the steps find a
/// value invalid, as it is written; without regard to letter case.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    after: Values,
    written: Values,
    text: String,
    spare: String,
}

impl Ignored {
    /// `normalised` is what the steps make of a value, if they accept it.
    pub(crate) fn new(
        values: &[String],
        mut normalised: impl FnMut(&str) -> Option<String>,
    ) -> Self {
        let mut ignored = Self::default();
        for value in values {
            if let Some(value) = normalised(value) {
                ignored.take(&value);
                ignored.after.insert(&ignored.text);
            }
            ignored.take_written(value);
            ignored.written.insert(&ignored.text);
        }
        ignored
    }

    /// Whether a text that the steps accepted means "unknown".
    #[inline]
    pub(crate) fn has(&mut self, normalised: &str) -> bool {
        if self.after.is_empty() {
            return false;
        }
        if !normalised.is_ascii() {
            self.take(normalised);
            return self.after.contains_ascii(&self.text);
        }
        self.after.contains_ascii(normalised)
    }

    /// Whether a field that the steps refused means "unknown".
    pub(crate) fn has_written(&mut self, field: &str) -> bool {
        if self.written.is_empty() {
            return false;
        }
        self.take_written(field);
        self.written.contains_ascii(&self.text)
    }

    #[cold]
    fn take(&mut self, text: &str) {
        self.text.clear();
        self.text.push_str(text);
        fold(&mut self.text, &mut self.spare);
    }

    fn take_written(&mut self, text: &str) {
        self.text.clear();
        self.text.push_str(text);
        drop_invisible(&mut self.text, &mut self.spare);
        trim(&mut self.text);
        fold(&mut self.text, &mut self.spare);
    }
}

impl Drop for Ignored {
    fn drop(&mut self) {
        self.text.zeroize();
        self.spare.zeroize();
    }
}

/// A few texts, most often compared with a text of another length.
#[derive(Debug, Default)]
struct Values {
    texts: Vec<String>,
    /// Bit `n` is set if a text has `n` bytes, the last one also for any longer text.
    lengths: u64,
}

impl Values {
    fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    fn insert(&mut self, text: &str) {
        self.lengths |= length_bit(text);
        self.texts.push(text.to_owned());
    }

    /// Whether a text is one of them, without regard to the case of ASCII letters.
    #[inline]
    fn contains_ascii(&self, text: &str) -> bool {
        self.lengths & length_bit(text) != 0 && self.compare_ascii(text)
    }

    #[cold]
    fn compare_ascii(&self, text: &str) -> bool {
        self.texts.iter().any(|value| value.eq_ignore_ascii_case(text))
    }
}

#[inline]
fn length_bit(text: &str) -> u64 {
    1 << text.len().min(63)
}
