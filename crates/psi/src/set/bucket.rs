//! Entries whose pseudonyms begin with the same bits.

use std::io;

use zeroize::{DefaultIsZeroes, Zeroize, Zeroizing};

use super::{NO_ROW, Segment, Spill};
use crate::keys::{PSEUDONYM_BYTES, Pseudonym};
use crate::limits::MAXIMUM_SERVICES;

/// How many first bits select the bucket in a set with few entries; at least as many as select the
/// service that a pseudonym goes to.
pub(super) const FEW_BITS: u32 = 6;

/// How many first bits select the bucket in a set with many entries. 10,000,000 make buckets of 300
/// KiB, which fit into a core's own cache; each bucket is written to while a table is read, and a
/// core's address translation covers more pages of memory than there are buckets.
pub(super) const MANY_BITS: u32 = 10;

const _: () = assert!(1 << FEW_BITS >= MAXIMUM_SERVICES);

/// Long enough to be read as fast as memory allows.
pub(super) const PAGE: u16 = 256;
const ROOM: usize = PAGE as usize;
pub(super) const PAGE_BYTES: usize = size_of::<Page>();
const ENTRY_BYTES: usize = PSEUDONYM_BYTES + 4;

/// The first bits of a pseudonym.
#[inline]
pub(super) fn bucket_of(pseudonym: Pseudonym, bits: u32) -> usize {
    let first = u64::try_from(pseudonym.to_u128() >> 64).expect("half of it");
    usize::try_from(first >> (64 - bits)).expect("few bits")
}

/// A row and its pseudonym.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) pseudonym: Pseudonym,
    pub(super) row: u32,
}

impl DefaultIsZeroes for Entry {}

/// Room for entries, in two arrays because an [`Entry`] is padded.
pub(super) struct Page {
    pseudonyms: [Pseudonym; ROOM],
    rows: [u32; ROOM],
}

/// Pages stay where they are: a copy left behind by a move would not be wiped.
pub(super) type Pages = Vec<Box<Page>>;

impl Default for Box<Page> {
    fn default() -> Self {
        Self::new(Page { pseudonyms: [Pseudonym::default(); ROOM], rows: [0; ROOM] })
    }
}

impl Page {
    /// Puts an entry into a place below [`PAGE`].
    #[inline]
    pub(super) fn put(&mut self, place: usize, pseudonym: Pseudonym, row: u32) {
        self.pseudonyms[place] = pseudonym;
        self.rows[place] = row;
    }

    /// The first entries.
    pub(super) fn entries(&self, count: usize) -> impl Iterator<Item = Entry> + '_ {
        let entries = self.pseudonyms[..count].iter().zip(&self.rows[..count]);
        entries.map(|(pseudonym, row)| Entry { pseudonym: *pseudonym, row: *row })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.pseudonyms.zeroize();
        self.rows.zeroize();
    }
}

/// Entries in any order while a table is read; after [`Bucket::sort`] or [`Bucket::sort_spilled`]
/// in ascending order, in memory or in one segment.
#[derive(Default)]
pub(super) struct Bucket {
    pages: Pages,
    length: usize,
    segments: Vec<Segment>,
    /// Pseudonyms that stand for no row and equal none of the others, ascending; they are kept
    /// apart.
    filler: Zeroizing<Vec<Pseudonym>>,
    /// The sorted entry in memory before which each of them belongs.
    places: Vec<usize>,
}

impl Bucket {
    /// Adds a page with `held` entries after full ones.
    pub(super) fn add(&mut self, page: Box<Page>, held: usize) {
        self.pages.push(page);
        self.length += held;
    }

    /// Takes back the last page, and how many entries it holds.
    pub(super) fn take_last(&mut self) -> Option<(Box<Page>, usize)> {
        let page = self.pages.pop()?;
        let held = self.length - self.pages.len() * ROOM;
        self.length -= held;
        Some((page, held))
    }

    /// Like [`Bucket::take_last`], if that page has room.
    pub(super) fn take_open(&mut self) -> Option<(Box<Page>, usize)> {
        if self.length.is_multiple_of(ROOM) { None } else { self.take_last() }
    }

    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn is_spilled(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Moves what is in memory to the store, and the freed pages to `spare`.
    pub(super) fn spill(&mut self, store: &mut dyn Spill, spare: &mut Pages) -> io::Result<()> {
        if self.length > 0 {
            self.segments.push(store.write(&mut bytes_of(self.length, self.in_memory()))?);
        }
        self.length = 0;
        spare.append(&mut self.pages);
        Ok(())
    }

    /// Sorts what is in memory in place; returns how many different pseudonyms there are. All begin
    /// with the same `bits`.
    pub(super) fn sort(&mut self, bits: u32, entries: &mut Entries) -> usize {
        entries.sort(bits, self.length, || self.in_memory());
        self.put_back(entries);
        entries.runs().count()
    }

    /// Puts sorted entries back where they came from.
    fn put_back(&mut self, entries: &Entries) {
        for (page, sorted) in self.pages.iter_mut().zip(entries.sorted.chunks(ROOM)) {
            let room = page.pseudonyms.iter_mut().zip(&mut page.rows);
            for ((pseudonym, row), entry) in room.zip(sorted) {
                (*pseudonym, *row) = (entry.pseudonym, entry.row);
            }
        }
    }

    /// Sorts what is in memory and in the store into one segment; returns how many different
    /// pseudonyms there are.
    pub(super) fn sort_spilled(
        &mut self,
        bits: u32,
        entries: &mut Entries,
        store: &mut dyn Spill,
    ) -> io::Result<usize> {
        let pieces = self.segments.iter().map(|segment| store.read(*segment));
        let pieces = pieces.collect::<io::Result<Vec<_>>>()?;
        let spilled: usize = pieces.iter().map(|piece| piece.len() / ENTRY_BYTES).sum();
        entries.sort(bits, self.length + spilled, || {
            let stored = pieces.iter().flat_map(|piece| entries_in(piece));
            stored.chain(self.in_memory())
        });
        drop(pieces);
        (self.length, self.pages) = (0, Vec::new());
        let sorted = entries.sorted.iter().copied();
        self.segments = vec![store.write(&mut bytes_of(entries.sorted.len(), sorted))?];
        Ok(entries.runs().count())
    }

    /// Adds pseudonyms that stand for no row to a sorted bucket.
    pub(super) fn fill(&mut self, with: &[Pseudonym]) {
        self.filler.reserve_exact(with.len());
        self.filler.extend_from_slice(with);
        self.filler.sort_unstable();
        if !self.is_spilled() {
            self.places = self.filler.iter().map(|filler| self.place_of(*filler)).collect();
        }
    }

    /// How many of the sorted entries in memory are smaller.
    fn place_of(&self, pseudonym: Pseudonym) -> usize {
        let (mut begin, mut end) = (0, self.length);
        while begin < end {
            let middle = usize::midpoint(begin, end);
            if self.pages[middle / ROOM].pseudonyms[middle % ROOM] < pseudonym {
                begin = middle + 1;
            } else {
                end = middle;
            }
        }
        begin
    }

    /// Pseudonyms and rows of a sorted bucket as they are in memory, from this one on; none if they
    /// must be read or put together first. `distinct` is the number of its pseudonyms.
    pub(super) fn in_place(&self, distinct: usize, from: usize) -> Option<InPlace<'_>> {
        let readable = !self.is_spilled() && distinct == self.length + self.filler.len();
        readable.then_some(InPlace { bucket: self, entry: 0, filler: 0, skip: from })
    }

    /// Reads a sorted bucket.
    pub(super) fn load(&self, entries: &mut Entries, store: Option<&dyn Spill>) -> io::Result<()> {
        match store.filter(|_| self.is_spilled()) {
            None => {
                entries.make_room(self.length + self.filler.len());
                self.pieces().for_each(|piece| entries.sorted.extend(piece));
            }
            Some(store) => {
                for segment in &self.segments {
                    let piece = store.read(*segment)?;
                    entries.make_room(piece.len() / ENTRY_BYTES + self.filler.len());
                    entries.sorted.extend(entries_in(&piece));
                }
            }
        }
        entries.merge(&self.filler);
        Ok(())
    }

    fn in_memory(&self) -> impl Iterator<Item = Entry> + '_ {
        self.pieces().flatten()
    }

    /// The contents of each page.
    fn pieces(&self) -> impl Iterator<Item = impl Iterator<Item = Entry> + '_> + '_ {
        self.pages
            .iter()
            .enumerate()
            .map(|(index, page)| page.entries(ROOM.min(self.length.saturating_sub(index * ROOM))))
    }
}

/// See [`Bucket::in_place`].
pub(super) struct InPlace<'s> {
    bucket: &'s Bucket,
    entry: usize,
    filler: usize,
    skip: usize,
}

impl<'s> Iterator for InPlace<'s> {
    type Item = (&'s [Pseudonym], &'s [u32]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let end = self.bucket.places.get(self.filler).copied().unwrap_or(self.bucket.length);
            let (pseudonyms, rows): Self::Item = if self.entry < end {
                let page = &self.bucket.pages[self.entry / ROOM];
                let begin = self.entry % ROOM;
                let count = (end - self.entry).min(ROOM - begin);
                self.entry += count;
                (&page.pseudonyms[begin..begin + count], &page.rows[begin..begin + count])
            } else {
                let filler = self.bucket.filler.get(self.filler..=self.filler)?;
                self.filler += 1;
                (filler, &[NO_ROW])
            };
            let skipped = self.skip.min(pseudonyms.len());
            self.skip -= skipped;
            if skipped < pseudonyms.len() {
                return Some((&pseudonyms[skipped..], &rows[skipped..]));
            }
        }
    }
}

/// The sorted entries of one bucket, in memory that is reused for one bucket after another.
#[derive(Default)]
pub(super) struct Entries {
    sorted: Vec<Entry>,
    taken: usize,
    places: Vec<u32>,
}

impl Entries {
    /// Entries that have not been taken.
    pub(super) fn len(&self) -> usize {
        self.sorted.len() - self.taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pseudonyms, each once.
    pub(super) fn distinct(&self) -> impl Iterator<Item = Pseudonym> + '_ {
        self.runs().map(|same| same[0].pseudonym)
    }

    /// The entries of each pseudonym, in ascending order of rows.
    pub(super) fn runs(&self) -> impl Iterator<Item = &[Entry]> {
        self.sorted[self.taken..].chunk_by(|a, b| a.pseudonym == b.pseudonym)
    }

    /// Takes the next `count` distinct pseudonyms, or as many as there are.
    pub(super) fn take_distinct(&mut self, count: usize, mut each: impl FnMut(Pseudonym)) {
        let mut taken = 0;
        for same in self.runs().take(count) {
            each(same[0].pseudonym);
            taken += same.len();
        }
        self.taken += taken;
    }

    /// Sorts `count` entries: distributes them once more, by the bits after those that they share,
    /// over more places than there are entries. Which of them must wait for a comparison is hard to
    /// predict, so having few places costs the processor more time than looking at empty ones.
    fn sort<I: Iterator<Item = Entry>>(
        &mut self,
        shared: u32,
        count: usize,
        entries: impl Fn() -> I,
    ) {
        self.make_room(count);
        self.sorted.resize(count, Entry::default());
        let bits = (2 * count).max(2).ilog2().min(16);
        let place = |entry: &Entry| {
            let first = u64::try_from(entry.pseudonym.to_u128() >> 64).expect("half of it");
            usize::try_from(first << shared >> (64 - bits)).expect("sixteen bits at most")
        };
        self.places.clear();
        self.places.resize((1 << bits) + 1, 0);
        entries().for_each(|entry| self.places[place(&entry) + 1] += 1);
        let mut before = 0;
        for end in &mut self.places {
            before += *end;
            *end = before;
        }
        entries().for_each(|entry| {
            let next = &mut self.places[place(&entry)];
            self.sorted[*next as usize] = entry;
            *next += 1;
        });
        // Every place is now where its successor began.
        let mut begin = 0;
        for end in &self.places[..1 << bits] {
            match &mut self.sorted[begin..*end as usize] {
                [] | [_] => {}
                [first, second] => {
                    if first > second {
                        std::mem::swap(first, second);
                    }
                }
                few if few.len() <= FEW => insertion_sort(few),
                many => many.sort_unstable(),
            }
            begin = *end as usize;
        }
    }

    /// Puts ascending pseudonyms that stand for no row in their places. There must be room for
    /// them.
    fn merge(&mut self, filler: &[Pseudonym]) {
        let mut read = self.sorted.len();
        let mut write = read + filler.len();
        self.sorted.resize(write, Entry::default());
        for pseudonym in filler.iter().rev() {
            while read > 0 && self.sorted[read - 1].pseudonym > *pseudonym {
                (read, write) = (read - 1, write - 1);
                self.sorted[write] = self.sorted[read];
            }
            write -= 1;
            self.sorted[write] = Entry { pseudonym: *pseudonym, row: NO_ROW };
        }
    }

    /// Empties it and makes sure that `count` entries fit without being moved.
    fn make_room(&mut self, count: usize) {
        self.taken = 0;
        if self.sorted.capacity() < count {
            self.sorted.zeroize();
            self.sorted = Vec::with_capacity(count);
        }
        self.sorted.clear();
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        // Anything longer from before is wiped as well.
        self.sorted.zeroize();
    }
}

/// Nearly always the most that share a place; the library's sort takes longer to start.
const FEW: usize = 8;

#[inline]
fn insertion_sort(entries: &mut [Entry]) {
    for at in 1..entries.len() {
        let entry = entries[at];
        let mut place = at;
        while place > 0 && entries[place - 1] > entry {
            entries[place] = entries[place - 1];
            place -= 1;
        }
        entries[place] = entry;
    }
}

fn bytes_of(count: usize, entries: impl Iterator<Item = Entry>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count * ENTRY_BYTES);
    entries.for_each(|entry| {
        bytes.extend_from_slice(&entry.pseudonym.to_be_bytes());
        bytes.extend_from_slice(&entry.row.to_be_bytes());
    });
    bytes
}

fn entries_in(bytes: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    bytes.as_chunks::<ENTRY_BYTES>().0.iter().map(|bytes| {
        let (pseudonym, row) = bytes.split_at(PSEUDONYM_BYTES);
        let pseudonym = pseudonym.try_into().expect("16 bytes");
        Entry {
            pseudonym: Pseudonym::from_be_bytes(pseudonym),
            row: u32::from_be_bytes(row.try_into().expect("4 bytes")),
        }
    })
}
