//! What a first pass finds in a table besides its keys. No value of the table is in it.

use std::collections::BTreeMap;

use convelo_psi::{KeyPart, Pseudonym};
use serde::Serialize;
use zeroize::Zeroize;

use crate::error::{Error, Hint, Kind};
use crate::event::Counts;
use crate::limits::{MAXIMUM_EXAMPLES, SAMPLED_KEYS, SHAPED_ROWS};
use crate::table::{Description, Shapes, TextNotes};

/// What a first pass found in a table besides its keys.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Survey {
    /// What the table was taken for.
    pub taken_for: Description,
    /// The rows without a key, by part and reason.
    pub dropped: Vec<DroppedRows>,
    /// The key that stands in more rows than any other, if in many.
    pub commonest: Option<Commonest>,
    /// How the values in the columns of the key look, part by part.
    pub shapes: Vec<PartShapes>,
    /// Records that repeat the header.
    pub repeated_headers: u64,
    /// What was noticed in a text.
    pub notes: TextNotes,
}

impl Survey {
    /// A table must have rows, and most of them a key, unless this party allows it to be otherwise.
    ///
    /// # Errors
    /// If there is no row, or no row has a key, or the keys of most cannot be normalised.
    pub fn check_keys(&self, counts: Counts, allow_empty: bool) -> Result<(), Error> {
        let Counts { rows, keys, invalid, .. } = counts;
        if allow_empty || (keys > 0 && invalid <= rows / 2) {
            return Ok(());
        }
        if rows == 0 {
            let what = if self.taken_for.columns == 0 { "it is empty" } else { "it has no row" };
            let text = format!("the table has no key: {what}; nothing was sent");
            return Err(Error::new(Kind::Usage, text).with_hint(Hint::AllowEmpty));
        }
        let reasons: Vec<String> = self.dropped.iter().map(DroppedRows::in_words).collect();
        let few = if keys == 0 { "no row has a key" } else { "most rows have no key" };
        let text = format!(
            "{few}, of {rows} rows: {}; look whether the key's columns are the right ones; nothing was sent",
            reasons.join("; ")
        );
        Err(Error::new(Kind::Usage, text).with_hint(Hint::AllowEmpty))
    }
}

impl DroppedRows {
    /// How many rows, why, and where to look.
    pub fn in_words(&self) -> String {
        let Self { part, why, rows, examples, lines, .. } = self;
        let examples: Vec<String> = examples.iter().map(u64::to_string).collect();
        let place = if *lines { "line" } else { "row" };
        let plural = if examples.len() == 1 { "" } else { "s" };
        let more = if *rows > examples.len() as u64 { ", …" } else { "" };
        format!("{rows} by {part}: {why} ({place}{plural} {}{more})", examples.join(", "))
    }
}

/// Rows that have no key for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DroppedRows {
    /// The part of the key.
    pub part: String,
    /// Why, in a word that holds no value.
    pub reason: &'static str,
    /// Why.
    #[serde(skip)]
    pub why: convelo_keys::Dropped,
    /// How many rows.
    pub rows: u64,
    /// The first of them: their lines in a text, or else their numbers, both from 1.
    pub examples: Vec<u64>,
    /// Whether the examples are lines.
    pub lines: bool,
}

/// How often the commonest key occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Commonest {
    /// How many rows have it.
    pub rows: u64,
    /// Of how many.
    pub of: u64,
    /// Whether those are all rows of the table, and not a sample.
    pub all: bool,
}

/// How the values of one key part look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PartShapes {
    /// The part.
    pub part: String,
    /// How its values look, as they stand in the table.
    #[serde(flatten)]
    pub shapes: Shapes,
}

/// A row without a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropped {
    /// From 0, without the header.
    pub(crate) row: u64,
    /// From 1; 0 in batches.
    pub(crate) line: u64,
    /// The number of the key's part.
    pub(crate) part: usize,
    pub(crate) why: convelo_keys::Dropped,
}

impl Dropped {
    /// How a person finds the row.
    fn example(&self) -> u64 {
        if self.line > 0 { self.line } else { self.row + 1 }
    }
}

/// The rows without a key, counted.
#[derive(Default)]
pub(crate) struct Reasons(BTreeMap<(usize, convelo_keys::Dropped), (u64, Vec<u64>)>);

impl Reasons {
    pub(crate) fn count(&mut self, dropped: &Dropped) {
        let (rows, examples) = self.0.entry((dropped.part, dropped.why)).or_default();
        *rows += 1;
        if examples.len() < MAXIMUM_EXAMPLES {
            examples.push(dropped.example());
        }
    }

    pub(crate) fn by_part(self, parts: &[KeyPart], lines: bool) -> Vec<DroppedRows> {
        let rows = self.0.into_iter().map(|((part, why), (rows, examples))| DroppedRows {
            part: parts.get(part).map(|part| part.name.clone()).unwrap_or_default(),
            reason: why.word(),
            why,
            rows,
            examples,
            lines,
        });
        rows.collect()
    }
}

/// Whether the values of a row are looked at: all at first, and then one row in 1024.
pub(crate) fn is_shaped(row: u64) -> bool {
    row < SHAPED_ROWS || row.is_multiple_of(1024)
}

/// Some of the keys, chosen by the numbers of their rows: all of them as long as there are few.
pub(crate) struct Sampled {
    keys: Vec<(u32, Pseudonym)>,
    /// A row is chosen if its hash is not above this.
    limit: u32,
}

impl Default for Sampled {
    fn default() -> Self {
        Self { keys: Vec::new(), limit: u32::MAX }
    }
}

impl Sampled {
    #[inline]
    pub(crate) fn offer(&mut self, key: Pseudonym, row: u32) {
        if hash(row) <= self.limit {
            self.take(key, row);
        }
    }

    fn take(&mut self, key: Pseudonym, row: u32) {
        if self.keys.len() == SAMPLED_KEYS {
            self.limit /= 2;
            let limit = self.limit;
            self.keys.retain(|(row, _)| hash(*row) <= limit);
            return self.offer(key, row);
        }
        self.keys.push((row, key));
    }

    /// The commonest of the keys, if it is in many of all these rows.
    pub(crate) fn commonest(mut self, rows: u64) -> Option<Commonest> {
        self.keys.sort_unstable_by_key(|(_, key)| *key);
        let runs =
            self.keys.chunk_by(|(_, one), (_, next)| one == next).map(|run| run.len() as u64);
        let most = runs.max()?;
        let all = self.limit == u32::MAX;
        let of = if all { rows } else { self.keys.len() as u64 };
        let many = (most >= 10 && most * 100 >= of) || (most >= 3 && most * 4 >= of);
        many.then_some(Commonest { rows: most, of, all })
    }
}

impl Drop for Sampled {
    fn drop(&mut self) {
        self.keys.iter_mut().for_each(|(_, key)| key.zeroize());
    }
}

fn hash(row: u32) -> u32 {
    row.wrapping_mul(0x9e37_79b1)
}

#[cfg(test)]
mod tests {
    use convelo_psi::Pseudonymiser;

    use super::*;

    fn commonest(rows: u32, key: impl Fn(u32) -> u32) -> Option<Commonest> {
        let (maker, mut sampled) = (Pseudonymiser::new(&[1; 16]), Sampled::default());
        for row in 0..rows {
            let mut made = Vec::new();
            let mut queue = maker.queue();
            queue.push(key(row).to_be_bytes()[..].into(), &mut made);
            queue.finish(&mut made);
            sampled.offer(made[0], row);
        }
        assert!(sampled.keys.len() <= SAMPLED_KEYS);
        sampled.commonest(rows.into())
    }

    #[test]
    fn a_key_in_many_rows_is_counted() {
        let three = Commonest { rows: 3, of: 4, all: true };
        assert_eq!(commonest(4, |row| row.saturating_sub(2)), Some(three));
        assert_eq!(commonest(0, |row| row), None);
        assert_eq!(commonest(1, |row| row), None);
        assert_eq!(commonest(1000, |row| row / 2), None);
        let some = commonest(1000, |row| if row % 50 == 0 { 0 } else { row });
        assert_eq!(some, Some(Commonest { rows: 20, of: 1000, all: true }));
    }

    #[test]
    fn in_a_large_table_the_share_is_an_estimate() {
        let rows = 4 * u32::try_from(SAMPLED_KEYS).unwrap();
        assert_eq!(commonest(rows, |row| row), None);
        let found = commonest(rows, |row| if row % 10 == 0 { 0 } else { row }).expect("a tenth");
        assert!(!found.all && (found.rows * 10).abs_diff(found.of) < found.of / 10, "{found:?}");
    }
}
