//! The entries whose fingerprints begin with the same bits.

use std::io;

use zeroize::{DefaultIsZeroes, Zeroize, Zeroizing};

use super::{NO_ROW, Segment, Spill};
use crate::keys::{FINGERPRINT_BYTES, Fingerprint};
use crate::limits::MAXIMUM_SERVICES;

/// How many first bits say which bucket of a set with few entries; no fewer than say to which service a
/// fingerprint goes.
pub(super) const FEW_BITS: u32 = 6;

/// How many first bits say which bucket of a set with many entries. 10,000,000 make buckets of 300 KiB, which
/// a core's own cache holds; each bucket is written to while a table is read, and the address translation of
/// a core covers more pages of memory than there are buckets.
pub(super) const MANY_BITS: u32 = 10;

const _: () = assert!(1 << FEW_BITS >= MAXIMUM_SERVICES);

/// Long enough to be read as fast as memory gives it.
pub(super) const PAGE: u16 = 256;
const ROOM: usize = PAGE as usize;
pub(super) const PAGE_BYTES: usize = size_of::<Page>();
const ENTRY_BYTES: usize = FINGERPRINT_BYTES + 4;

/// The first bits of a fingerprint.
#[inline]
pub(super) fn bucket_of(fingerprint: Fingerprint, bits: u32) -> usize {
    let first = u64::try_from(fingerprint.to_u128() >> 64).expect("half of it");
    usize::try_from(first >> (64 - bits)).expect("few bits")
}

/// A row and its fingerprint.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) fingerprint: Fingerprint,
    pub(super) row: u32,
}

impl DefaultIsZeroes for Entry {}

/// Room for entries, in two arrays because an [`Entry`] is padded.
pub(super) struct Page {
    fingerprints: [Fingerprint; ROOM],
    rows: [u32; ROOM],
}

/// Pages stay where they are: what one leaves behind when it is moved would not be wiped.
pub(super) type Pages = Vec<Box<Page>>;

impl Default for Box<Page> {
    fn default() -> Self {
        Self::new(Page { fingerprints: [Fingerprint::default(); ROOM], rows: [0; ROOM] })
    }
}

impl Page {
    /// Puts an entry into a place below [`PAGE`].
    #[inline]
    pub(super) fn put(&mut self, place: usize, fingerprint: Fingerprint, row: u32) {
        self.fingerprints[place] = fingerprint;
        self.rows[place] = row;
    }

    /// The first entries.
    pub(super) fn entries(&self, count: usize) -> impl Iterator<Item = Entry> + '_ {
        let entries = self.fingerprints[..count].iter().zip(&self.rows[..count]);
        entries.map(|(fingerprint, row)| Entry { fingerprint: *fingerprint, row: *row })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.fingerprints.zeroize();
        self.rows.zeroize();
    }
}

/// Entries in any order while a table is read; after [`Bucket::sort`] or [`Bucket::sort_spilled`] in
/// ascending order, in memory or in one segment.
#[derive(Default)]
pub(super) struct Bucket {
    pages: Pages,
    length: usize,
    segments: Vec<Segment>,
    /// Fingerprints of no row that are not among the others, ascending; they are not put between them.
    filler: Zeroizing<Vec<Fingerprint>>,
    /// Before which of the sorted entries in memory each of them belongs.
    places: Vec<usize>,
}

impl Bucket {
    /// Adds a page that holds `held` entries, behind full ones.
    pub(super) fn add(&mut self, page: Box<Page>, held: usize) {
        self.pages.push(page);
        self.length += held;
    }

    /// Takes the last page back, and how many entries it holds.
    pub(super) fn take_last(&mut self) -> Option<(Box<Page>, usize)> {
        let page = self.pages.pop()?;
        let held = self.length - self.pages.len() * ROOM;
        self.length -= held;
        Some((page, held))
    }

    /// As [`Bucket::take_last`], if that one has room.
    pub(super) fn take_open(&mut self) -> Option<(Box<Page>, usize)> {
        if self.length.is_multiple_of(ROOM) { None } else { self.take_last() }
    }

    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn is_spilled(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Moves what is in memory to the store, and the room for it to `spare`.
    pub(super) fn spill(&mut self, store: &mut dyn Spill, spare: &mut Pages) -> io::Result<()> {
        if self.length > 0 {
            self.segments.push(store.write(&mut bytes_of(self.length, self.in_memory()))?);
        }
        self.length = 0;
        spare.append(&mut self.pages);
        Ok(())
    }

    /// Sorts what is in memory where it is; how many different fingerprints that are. All begin with the
    /// same `bits`.
    pub(super) fn sort(&mut self, bits: u32, entries: &mut Entries) -> usize {
        entries.sort(bits, self.length, || self.in_memory());
        self.put_back(entries);
        entries.runs().count()
    }

    /// Puts sorted entries where they came from.
    fn put_back(&mut self, entries: &Entries) {
        for (page, sorted) in self.pages.iter_mut().zip(entries.sorted.chunks(ROOM)) {
            let room = page.fingerprints.iter_mut().zip(&mut page.rows);
            for ((fingerprint, row), entry) in room.zip(sorted) {
                (*fingerprint, *row) = (entry.fingerprint, entry.row);
            }
        }
    }

    /// Sorts what is in memory and in the store into one segment; how many different fingerprints that
    /// are.
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

    /// Adds fingerprints of no row to a sorted bucket.
    pub(super) fn fill(&mut self, with: &[Fingerprint]) {
        self.filler.reserve_exact(with.len());
        self.filler.extend_from_slice(with);
        self.filler.sort_unstable();
        if !self.is_spilled() {
            self.places = self.filler.iter().map(|filler| self.place_of(*filler)).collect();
        }
    }

    /// How many of the sorted entries in memory are smaller.
    fn place_of(&self, fingerprint: Fingerprint) -> usize {
        let (mut begin, mut end) = (0, self.length);
        while begin < end {
            let middle = usize::midpoint(begin, end);
            if self.pages[middle / ROOM].fingerprints[middle % ROOM] < fingerprint {
                begin = middle + 1;
            } else {
                end = middle;
            }
        }
        begin
    }

    /// Fingerprints and rows of a sorted bucket as they stand in memory, from this one on; nothing when they
    /// have to be read or put together first. `distinct` is how many fingerprints it has.
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

    /// What each page holds.
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
    type Item = (&'s [Fingerprint], &'s [u32]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let end = self.bucket.places.get(self.filler).copied().unwrap_or(self.bucket.length);
            let (fingerprints, rows): Self::Item = if self.entry < end {
                let page = &self.bucket.pages[self.entry / ROOM];
                let begin = self.entry % ROOM;
                let count = (end - self.entry).min(ROOM - begin);
                self.entry += count;
                (&page.fingerprints[begin..begin + count], &page.rows[begin..begin + count])
            } else {
                let filler = self.bucket.filler.get(self.filler..=self.filler)?;
                self.filler += 1;
                (filler, &[NO_ROW])
            };
            let skipped = self.skip.min(fingerprints.len());
            self.skip -= skipped;
            if skipped < fingerprints.len() {
                return Some((&fingerprints[skipped..], &rows[skipped..]));
            }
        }
    }
}

/// The entries of one bucket, sorted, in memory that serves for one bucket after the other.
#[derive(Default)]
pub(super) struct Entries {
    sorted: Vec<Entry>,
    taken: usize,
    places: Vec<u32>,
}

impl Entries {
    /// Entries that were not taken.
    pub(super) fn len(&self) -> usize {
        self.sorted.len() - self.taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The fingerprints, each once.
    pub(super) fn distinct(&self) -> impl Iterator<Item = Fingerprint> + '_ {
        self.runs().map(|same| same[0].fingerprint)
    }

    /// The entries of each fingerprint, by rising row.
    pub(super) fn runs(&self) -> impl Iterator<Item = &[Entry]> {
        self.sorted[self.taken..].chunk_by(|a, b| a.fingerprint == b.fingerprint)
    }

    /// Takes the next `count` distinct fingerprints, or as many as there are.
    pub(super) fn take_distinct(&mut self, count: usize, mut each: impl FnMut(Fingerprint)) {
        let mut taken = 0;
        for same in self.runs().take(count) {
            each(same[0].fingerprint);
            taken += same.len();
        }
        self.taken += taken;
    }

    /// Sorts `count` entries: dealt out once more, by the bits behind those that they have in common, into more places
    /// than there are entries. Which of them have to wait for a comparison is hard to foresee, so that the
    /// processor loses more time by few places than by looking at empty ones.
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
            let first = u64::try_from(entry.fingerprint.to_u128() >> 64).expect("half of it");
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
        // Every place now is where its successor began.
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

    /// Puts ascending fingerprints of no row in their places. There is room for them.
    fn merge(&mut self, filler: &[Fingerprint]) {
        let mut read = self.sorted.len();
        let mut write = read + filler.len();
        self.sorted.resize(write, Entry::default());
        for fingerprint in filler.iter().rev() {
            while read > 0 && self.sorted[read - 1].fingerprint > *fingerprint {
                (read, write) = (read - 1, write - 1);
                self.sorted[write] = self.sorted[read];
            }
            write -= 1;
            self.sorted[write] = Entry { fingerprint: *fingerprint, row: NO_ROW };
        }
    }

    /// Empties it and sees to it that `count` entries find room without being moved.
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
        // What was longer before is wiped as well.
        self.sorted.zeroize();
    }
}

/// As many as nearly always stand together at most; the library's sort takes longer to begin.
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
        bytes.extend_from_slice(&entry.fingerprint.to_be_bytes());
        bytes.extend_from_slice(&entry.row.to_be_bytes());
    });
    bytes
}

fn entries_in(bytes: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    bytes.as_chunks::<ENTRY_BYTES>().0.iter().map(|bytes| {
        let (fingerprint, row) = bytes.split_at(FINGERPRINT_BYTES);
        let fingerprint = fingerprint.try_into().expect("16 bytes");
        Entry {
            fingerprint: Fingerprint::from_be_bytes(fingerprint),
            row: u32::from_be_bytes(row.try_into().expect("4 bytes")),
        }
    })
}
