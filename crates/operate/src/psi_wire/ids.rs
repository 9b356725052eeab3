//! A client's ids, as they arrive in one message, and the set of their pseudonyms.

use std::io;

use convelo_keys::{Encoded, Normaliser};
use convelo_psi::{
    Bitmap, KeyPart, PseudonymSet, Pseudonymiser, ReceivedSet, SetBuilder, SetReceiver, Step,
};
use convelo_service::Reservation;
use convelo_untrusted::lines;
use convelo_wire::limits::MAXIMUM_CHUNK_BYTES;
use zeroize::{Zeroize as _, Zeroizing};

/// One client's ids, trimmed, without blank ones. Wiped on drop.
pub(crate) struct Ids {
    /// All of them, one after another.
    text: Zeroizing<String>,
    /// Where each ends in `text`.
    ends: Vec<u32>,
    set: PseudonymSet,
    pub(crate) counts: Counts,
    _room: Option<Reservation>,
}

/// What became of one client's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All that arrived, line by line.
    pub(crate) arrived: usize,
    /// Ids without text.
    pub(crate) blank: usize,
    /// Ids that are too long.
    pub(crate) invalid: usize,
    /// Ids equal to an earlier one.
    pub(crate) duplicates: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { arrived, blank, invalid, duplicates } = self;
        write!(f, "{arrived} ids")?;
        for (count, what) in [(blank, "blank"), (invalid, "too long"), (duplicates, "duplicates")] {
            if *count > 0 {
                write!(f, ", {count} {what} left out")?;
            }
        }
        Ok(())
    }
}

impl Ids {
    /// Takes in the ids of a message. Ignores white space and byte order marks around an id: their
    /// Python client strips these, their C++ client does not. What contains line ends is several
    /// ids: their clients end lines only at LF, so that a file with other ends arrives as one id.
    pub(crate) fn new(arrived: Vec<String>, pseudonymiser: &Pseudonymiser) -> io::Result<Self> {
        let part = KeyPart::new("id", vec![Step::Trim]);
        let mut normaliser = Normaliser::new(&[part]);
        let bytes = arrived.iter().map(String::len).sum();
        // A message this large never fits its limit.
        u32::try_from(bytes).map_err(|_| io::Error::other("more than 4 GiB of ids"))?;
        let (mut text, mut ends) = (Zeroizing::new(String::with_capacity(bytes)), Vec::new());
        let (mut builder, mut queue) = (SetBuilder::new(), pseudonymiser.queue());
        let mut pseudonyms = Vec::new();
        let mut counts = Counts { arrived: arrived.len(), blank: 0, invalid: 0, duplicates: 0 };
        for mut id in arrived {
            // Without a line end, nearly always, the id is its only line.
            counts.blank += usize::from(id.is_empty());
            for (number, line) in lines(&id).enumerate() {
                counts.arrived += usize::from(number > 0);
                let plain = line.text.trim();
                match normaliser.encode([plain]) {
                    Encoded::Key(key) => {
                        queue.push(key, &mut pseudonyms);
                        text.push_str(plain);
                        ends.push(u32::try_from(text.len()).map_err(io::Error::other)?);
                    }
                    Encoded::Dropped { why, .. } if why.is_blank() => counts.blank += 1,
                    Encoded::Dropped { .. } => counts.invalid += 1,
                }
            }
            id.zeroize();
        }
        queue.finish(&mut pseudonyms);
        for (row, pseudonym) in (0..).zip(pseudonyms) {
            builder.push(pseudonym, row)?;
        }
        let set = builder.finish()?;
        counts.duplicates = ends.len() - set.len();
        Ok(Self { text, ends, set, counts, _room: None })
    }

    /// How many bytes they take.
    pub(crate) fn memory(&self) -> u64 {
        // Besides the text: where each id ends, and a pseudonym with its row.
        (self.text.capacity() + self.ends.len() * (4 + 24)) as u64
    }

    /// Attaches a reservation for that much, which lives as long as they do.
    pub(crate) fn with_room(self, room: Reservation) -> Self {
        Self { _room: Some(room), ..self }
    }

    /// How many different ids there are.
    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    /// The set in the form the engine takes.
    pub(crate) fn received(&self) -> io::Result<ReceivedSet> {
        let mut receiver = SetReceiver::new(self.set.len() as u64);
        for chunk in self.set.chunks(MAXIMUM_CHUNK_BYTES) {
            receiver.push_chunk(&Zeroizing::new(chunk?)).map_err(io::Error::other)?;
        }
        receiver.finish().map_err(io::Error::other)
    }

    /// The ids in the bitmap, each once, in order of arrival.
    pub(crate) fn matched(&self, bitmap: &Bitmap) -> io::Result<Vec<String>> {
        let rows = u32::try_from(self.ends.len()).map_err(io::Error::other)?;
        let rows = self.set.rows(bitmap, rows, true)?;
        let begin = |row: usize| row.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let matched = (0..self.ends.len()).filter(|row| rows.is_set(*row));
        Ok(matched.map(|row| self.text[begin(row)..self.ends[row] as usize].to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use convelo_psi::engine;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn ids(arrived: &[&str]) -> Ids {
        let arrived = arrived.iter().map(|id| (*id).to_owned()).collect();
        Ids::new(arrived, &Pseudonymiser::new(&[7; 16])).expect("in memory")
    }

    #[test]
    fn white_space_blank_ids_and_duplicates_do_not_count() {
        let ids =
            ids(&["\u{feff}car\r", " train", "", "car", "  ", "\u{feff}dog", "train", "\r\n"]);
        let counts = Counts { arrived: 8, blank: 3, invalid: 0, duplicates: 2 };
        assert_eq!((ids.counts, ids.len()), (counts, 3));
        let mut all = Bitmap::new(3);
        (0..3).for_each(|rank| all.set(rank));
        assert_eq!(ids.matched(&all).expect("in memory"), ["car", "train", "dog"]);
    }

    /// Their C++ client reads a file whose lines end in CR as one line.
    #[test]
    fn an_upload_whose_lines_end_in_cr_is_not_one_id() {
        let ids = ids(&["1\r2\r\r3\r", "\u{feff}4\r\n\u{feff}5"]);
        let counts = Counts { arrived: 6, blank: 1, invalid: 0, duplicates: 0 };
        assert_eq!((ids.counts, ids.len()), (counts, 5));
        let mut all = Bitmap::new(5);
        (0..5).for_each(|rank| all.set(rank));
        assert_eq!(ids.matched(&all).expect("in memory"), ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn an_id_without_end_takes_no_part() {
        let long = "x".repeat(1 << 20);
        let ids = ids(&["car", &long]);
        assert_eq!((ids.counts.invalid, ids.len()), (1, 1));
    }

    #[test]
    fn what_all_have_comes_in_the_order_of_each() {
        let all = [
            ids(&["car", "bicycle", "train", "cat", "dog"]),
            ids(&["train", "car", "e-car", "cat", "computer", "car"]),
        ];
        let sets = all.iter().map(|ids| ids.received().expect("in memory")).collect();
        let bitmaps = engine::intersect(sets).expect("memory");
        let matched = |party: usize| all[party].matched(&bitmaps[party]).expect("in memory");
        assert_eq!(matched(0), ["car", "train", "cat"]);
        assert_eq!(matched(1), ["train", "car", "cat"]);
    }

    proptest! {
        /// As their clients' users expect it: a set of trimmed lines, in which what nobody sees does not
        /// count.
        #[test]
        fn whatever_texts_arrive_the_common_ones_are_found(
            tables in vec(vec("[ab\u{feff}\r é]{0,3}", 0..20), 2..5),
        ) {
            let all: Vec<Ids> = tables
                .iter()
                .map(|table| ids(&table.iter().map(String::as_str).collect::<Vec<_>>()))
                .collect();
            let sets = all.iter().map(|ids| ids.received().expect("in memory")).collect();
            let bitmaps = engine::intersect(sets).expect("memory");
            let seen = |line: &str| line.replace('\u{feff}', "").trim().to_owned();
            let lines = |table: &[String]| {
                let lines = table.iter().flat_map(|id| id.split(['\r', '\n']));
                let lines = lines.map(|line| line.trim_start_matches('\u{feff}').trim().to_owned());
                lines.filter(|line| !seen(line).is_empty()).collect::<Vec<_>>()
            };
            for (table, (ids, bitmap)) in tables.iter().zip(all.iter().zip(&bitmaps)) {
                let mut before = BTreeSet::new();
                let is_in = |line: &str, table: &[String]| {
                    lines(table).iter().any(|other| seen(other) == seen(line))
                };
                let common = |line: &String| tables.iter().all(|table| is_in(line, table));
                let expected = lines(table).into_iter().filter(common);
                let expected: Vec<_> = expected.filter(|line| before.insert(seen(line))).collect();
                prop_assert_eq!(ids.matched(bitmap).expect("in memory"), expected);
            }
        }
    }

    #[test]
    fn nothing_is_a_set_too() {
        let nothing = ids(&[]);
        assert_eq!(nothing.len(), 0);
        assert!(nothing.received().expect("in memory").is_empty());
        assert!(nothing.matched(&Bitmap::new(0)).expect("in memory").is_empty());
    }
}
