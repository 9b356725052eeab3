//! The keys of a table, row by row.

use std::fmt;

use convelo_psi::{EncodedKey, KeyEncoder, KeyPart, Step};
use zeroize::Zeroize;

use crate::ascii::ascii;
use crate::date::date;
use crate::digits::digits;
use crate::dropped::{Dropped, Reason};
use crate::email::email;
use crate::folding::{fold, lowercase, nfkc};
use crate::ignored::Ignored;
use crate::integer::integer;
use crate::phone::Phone;
use crate::plain::plain;
use crate::surroundings::{drop_invisible, spaces, trim, trimmed};

/// What became of one row's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Encoded<'a> {
    /// The encoded key: what is pseudonymised.
    Key(EncodedKey<'a>),
    /// The row has no key.
    Dropped {
        /// The number of the first part that is at fault, from 0.
        part: usize,
        /// Why.
        why: Dropped,
    },
}

/// Normalises and encodes the keys of a table, row by row, without allocating once its buffers
/// have grown to the longest key, except for letters that are not ASCII. The buffers are wiped when
/// it is dropped.
pub struct Normaliser {
    parts: Vec<Part>,
    text: String,
    spare: String,
    encoder: KeyEncoder,
}

impl Normaliser {
    /// A normaliser for keys of these parts, in this order.
    pub fn new(parts: &[KeyPart]) -> Self {
        Self {
            parts: parts.iter().map(Part::new).collect(),
            text: String::with_capacity(512),
            spare: String::with_capacity(512),
            encoder: KeyEncoder::new(parts.len()),
        }
    }

    /// Normalises and encodes one key from one field per part, in the job's order. A missing field
    /// counts as blank; fields after the last part are not read. The first part that is blank or
    /// invalid decides.
    #[inline]
    pub fn encode<'k>(&'k mut self, fields: impl IntoIterator<Item = &'k str>) -> Encoded<'k> {
        let mut fields = fields.into_iter();
        if let [part] = &mut *self.parts {
            let field = fields.next().unwrap_or_default();
            if let Some(only) = part.only(field) {
                return match only {
                    Ok(key) => Encoded::Key(key),
                    Err(why) => Encoded::Dropped { part: 0, why },
                };
            }
            return self.encode_parts(std::iter::once(field));
        }
        self.encode_parts(fields)
    }

    fn encode_parts<'b>(&mut self, mut fields: impl Iterator<Item = &'b str>) -> Encoded<'_> {
        self.encoder.clear();
        for (number, part) in self.parts.iter_mut().enumerate() {
            let field = fields.next().unwrap_or_default();
            let pushed = if part.simple && field.is_ascii() {
                // Most texts of most tables: nothing has to be copied elsewhere to be changed.
                part.push_simple(field, &mut self.encoder)
            } else {
                self.text.clear();
                self.text.push_str(field);
                part.push(field, &mut self.text, &mut self.spare, &mut self.encoder)
            };
            if let Err(why) = pushed {
                return Encoded::Dropped { part: number, why };
            }
        }
        Encoded::Key(self.encoder.key())
    }

    /// The text of one part of a key after its steps; nothing if it is blank or invalid then.
    pub fn normalised(&mut self, part: usize, field: &str) -> Option<&str> {
        let part = self.parts.get_mut(part)?;
        self.text.clear();
        self.text.push_str(field);
        part.apply(&mut self.text, &mut self.spare).ok()?;
        let known = !self.text.is_empty() && !part.ignored.has(&self.text);
        known.then_some(&*self.text)
    }
}

impl Drop for Normaliser {
    fn drop(&mut self) {
        self.text.zeroize();
        self.spare.zeroize();
    }
}

impl fmt::Debug for Normaliser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.parts.iter().map(|part| &part.steps);
        f.debug_list().entries(steps).finish()
    }
}

/// The steps of one part, and what they amount to for ASCII text.
struct Part {
    steps: Vec<Step>,
    /// Whether there are no steps but those that change nothing of ASCII text except for its ends and
    /// the case of its letters; their order does not matter then.
    simple: bool,
    trims: bool,
    lowers: bool,
    ignored: Ignored,
    /// For the steps that read telephone numbers, one each.
    phones: Vec<Phone>,
}

impl Part {
    fn new(part: &KeyPart) -> Self {
        let steps = part.normalise.clone();
        let simple = |step: &Step| {
            matches!(step, Step::Trim | Step::Nfkc | Step::Lowercase | Step::Fold | Step::Ascii(_))
        };
        let phone = |step: &Step| match *step {
            Step::Phone { country, extension } => Some(Phone::new(country, extension)),
            _ => None,
        };
        let mut part_of = Self {
            simple: steps.iter().all(simple),
            trims: steps.contains(&Step::Trim),
            lowers: steps.iter().any(|step| matches!(step, Step::Lowercase | Step::Fold)),
            phones: steps.iter().filter_map(phone).collect(),
            steps,
            ignored: Ignored::default(),
        };
        let (mut text, mut spare) = (String::new(), String::new());
        part_of.ignored = Ignored::new(&part.ignore, |value| {
            text.clear();
            text.push_str(value);
            part_of.apply(&mut text, &mut spare).ok().map(|()| text.clone())
        });
        part_of
    }

    /// The key that has this part alone, if the field has its text as it has to be; nothing if it has to
    /// be changed first.
    #[inline]
    fn only<'f>(&mut self, field: &'f str) -> Option<Result<EncodedKey<'f>, Dropped>> {
        if !self.simple || !field.is_ascii() {
            return None;
        }
        let text = match self.simple_text(field) {
            Ok(text) => text,
            Err(why) => return Some(Err(why)),
        };
        let capital = |found, byte: u8| found | byte.is_ascii_uppercase();
        if self.lowers && text.bytes().fold(false, capital) {
            return None;
        }
        Some(EncodedKey::of_only_part(text).ok_or(Dropped::Invalid(Reason::TooLong)))
    }

    /// Appends an ASCII field to the key, if all steps are simple.
    #[inline]
    fn push_simple(&mut self, field: &str, key: &mut KeyEncoder) -> Result<(), Dropped> {
        let text = self.simple_text(field)?;
        let pushed = key.push(text).ok_or(Dropped::Invalid(Reason::TooLong))?;
        if self.lowers {
            pushed.make_ascii_lowercase();
        }
        Ok(())
    }

    /// What simple steps make of an ASCII field, but for the case of its letters.
    #[expect(clippy::inline_always, reason = "a call for each row costs 2 % of reading a table")]
    #[inline(always)]
    fn simple_text<'f>(&mut self, field: &'f str) -> Result<&'f str, Dropped> {
        let text = if self.trims { trimmed(field) } else { field };
        if text.is_empty() {
            return Err(Dropped::Blank);
        }
        if self.ignored.has(text) {
            return Err(Dropped::Ignored);
        }
        Ok(text)
    }

    /// Appends a field to the key; `text` holds a copy of it.
    fn push(
        &mut self,
        field: &str,
        text: &mut String,
        spare: &mut String,
        key: &mut KeyEncoder,
    ) -> Result<(), Dropped> {
        if let Err(reason) = self.apply(text, spare) {
            let ignored = self.ignored.has_written(field);
            return Err(if ignored { Dropped::Ignored } else { Dropped::Invalid(reason) });
        }
        if text.is_empty() {
            return Err(Dropped::Blank);
        }
        if self.ignored.has(text) {
            return Err(Dropped::Ignored);
        }
        key.push(text).map(drop).ok_or(Dropped::Invalid(Reason::TooLong))
    }

    /// Applies the steps to `text` in place. If they refuse it, it is meaningless then. A text that
    /// has become empty is blank.
    fn apply(&self, text: &mut String, spare: &mut String) -> Result<(), Reason> {
        if !self.steps.is_empty() {
            drop_invisible(text, spare);
        }
        let mut phones = self.phones.iter();
        for step in &self.steps {
            match *step {
                Step::Trim => trim(text),
                Step::Nfkc => nfkc(text, spare),
                Step::Lowercase => lowercase(text, spare),
                Step::Fold => fold(text, spare),
                Step::Spaces => spaces(text, spare),
                Step::Plain => plain(text, spare),
                Step::Ascii(letters) => ascii(text, spare, letters),
                Step::Digits => digits(text, spare)?,
                Step::Integer(grouping) => integer(text, spare, grouping)?,
                Step::Date(order) => date(text, spare, order)?,
                Step::Email(profile) => email(text, spare, profile)?,
                Step::Phone { .. } => {
                    let phone = phones.next().expect("one for each such step");
                    phone.normalise(text, spare)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
