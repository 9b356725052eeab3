//! Sets of pseudonyms as a party builds them, and the rows that they came from.
//!
//! A set is strictly ascending. Its wire form is the pseudonyms in that order, 16 bytes big-endian
//! each, so that the order of the numbers is the order of the bytes. The position of a pseudonym in
//! its set is its rank; results travel as a [`Bitmap`] over ranks, and the set knows which rows of
//! the table each rank stands for.
//!
//! Pseudonyms are as good as random, so entries are distributed by their first bits while a table
//! is read, and each bucket is small enough to be sorted within a processor's cache. Few buckets
//! are enough for few entries and leave less memory unused; once there are many entries, they are
//! distributed again. Shares that outgrow the memory they may use go to a [`Spill`] and come back
//! one at a time.

mod bucket;

use std::fmt;
use std::io;
use std::ops::Range;

use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

use self::bucket::{Bucket, Entries, FEW_BITS, MANY_BITS, PAGE, PAGE_BYTES, Page, bucket_of};
use crate::bitmap::Bitmap;
use crate::keys::{PSEUDONYM_BYTES, Pseudonym};

/// Where entries go that outgrow the memory of a [`SetBuilder`]: an append-only store of secrets.
/// An implementation ensures that others can neither read nor change what leaves this process's
/// memory.
pub trait Spill: Send + Sync {
    /// Stores `bytes`, and leaves no trace of them in the vector.
    ///
    /// # Errors
    /// If there is no room.
    fn write(&mut self, bytes: &mut Vec<u8>) -> io::Result<Segment>;

    /// Reads back what was stored.
    ///
    /// # Errors
    /// If it cannot be read, or is not what was written.
    fn read(&self, segment: Segment) -> io::Result<Zeroizing<Vec<u8>>>;
}

/// One piece in a [`Spill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where the store has it.
    pub offset: u64,
    /// How many bytes were given to [`Spill::write`].
    pub length: usize,
}

/// Collects pseudonyms in any order, with repetitions, into a [`PseudonymSet`].
///
/// Memory: 20 bytes for each row, and at most 5 KiB for each of 64 buckets, or of 1024 from about
/// 262,000 rows up. Wiped when dropped.
pub struct SetBuilder {
    /// How many of a pseudonym's first bits select its bucket.
    bits: u32,
    buckets: Vec<Bucket>,
    /// The page of each bucket that has room, and how many entries it holds: all that most rows
    /// need.
    open: Vec<Option<Box<Page>>>,
    held: Vec<u16>,
    /// How many pages there are, including the open ones.
    pages: usize,
    spare: bucket::Pages,
    spill: Option<Spilling>,
}

struct Spilling {
    pages: usize,
    store: Box<dyn Spill>,
}

/// The number of entries in a page that is full, or does not exist.
const FULL: u16 = PAGE;

/// At this many pages in few buckets, the entries are redistributed over many buckets.
const FEW_PAGES: usize = 1 << MANY_BITS;

/// How much of a set is hashed at once, in bytes.
const HASHED_AT_ONCE: usize = 64 << 10;

/// The row of a pseudonym that stands for no record; no table has that many rows.
const NO_ROW: u32 = u32::MAX;

impl SetBuilder {
    /// An empty builder that holds everything in memory.
    pub fn new() -> Self {
        Self::of(FEW_BITS, None)
    }

    fn of(bits: u32, spill: Option<Spilling>) -> Self {
        Self::on(std::iter::repeat_with(Bucket::default).take(1 << bits).collect(), spill)
    }

    /// A builder that adds to these buckets.
    fn on(mut buckets: Vec<Bucket>, spill: Option<Spilling>) -> Self {
        let pages = buckets.iter().map(Bucket::pages).sum();
        let opened = buckets.iter_mut().map(|bucket| match bucket.take_open() {
            Some((page, held)) => (Some(page), u16::try_from(held).expect("a page is short")),
            // The first entry asks for room.
            None => (None, FULL),
        });
        let (open, held) = opened.unzip();
        let bits = buckets.len().ilog2();
        Self { bits, buckets, open, held, pages, spare: Vec::new(), spill }
    }

    /// An empty builder that holds about `bytes` bytes in memory, never less than 5 MiB, and gives
    /// the rest to `store`.
    pub fn spilling(bytes: usize, store: Box<dyn Spill>) -> Self {
        let pages = (bytes / PAGE_BYTES).max(1 << MANY_BITS);
        Self::of(FEW_BITS, Some(Spilling { pages, store }))
    }

    /// Adds the pseudonym of a row. Several rows may have the same pseudonym.
    ///
    /// # Errors
    /// Those of the [`Spill`]; none without one.
    // A call for each row costs a hundredth of a job.
    #[expect(clippy::inline_always, reason = "measured with `cargo xtask bench join`")]
    #[inline(always)]
    pub fn push(&mut self, pseudonym: Pseudonym, row: u32) -> io::Result<()> {
        let mut bucket = bucket_of(pseudonym, self.bits);
        if self.held[bucket] == FULL {
            bucket = self.make_room(pseudonym)?;
        }
        if let Some(page) = &mut self.open[bucket] {
            page.put(self.held[bucket].into(), pseudonym, row);
            self.held[bucket] += 1;
        }
        Ok(())
    }

    /// The set of everything that was pushed.
    ///
    /// # Errors
    /// Those of the [`Spill`]; none without one.
    pub fn finish(mut self) -> io::Result<PseudonymSet> {
        self.close_all();
        let (bits, mut buckets) = (self.bits, std::mem::take(&mut self.buckets));
        let mut spill = self.spill.take();
        let lengths: Vec<usize> = match &mut spill {
            Some(Spilling { store, .. }) if buckets.iter().any(Bucket::is_spilled) => {
                let mut entries = Entries::default();
                let sorted = buckets.iter_mut();
                let sorted =
                    sorted.map(|bucket| bucket.sort_spilled(bits, &mut entries, &mut **store));
                sorted.collect::<io::Result<_>>()?
            }
            // Starting threads would take as long.
            _ if bits == FEW_BITS => {
                let mut entries = Entries::default();
                buckets.iter_mut().map(|bucket| bucket.sort(bits, &mut entries)).collect()
            }
            _ => {
                let sorted = buckets.par_iter_mut();
                let sort = |entries: &mut Entries, bucket: &mut Bucket| bucket.sort(bits, entries);
                sorted.map_init(Entries::default, sort).collect()
            }
        };
        Ok(PseudonymSet { buckets, spill, lengths })
    }

    /// Makes room for this pseudonym. Returns its bucket.
    #[cold]
    fn make_room(&mut self, pseudonym: Pseudonym) -> io::Result<usize> {
        if self.bits == FEW_BITS && self.pages >= self.few_pages() {
            self.deal_out_anew()?;
        }
        let bucket = bucket_of(pseudonym, self.bits);
        if self.held[bucket] < FULL {
            return Ok(bucket);
        }
        if let Some(spilling) = &self.spill
            && self.pages >= spilling.pages
        {
            self.close_all();
            if let Some(spilling) = &mut self.spill {
                for bucket in &mut self.buckets {
                    bucket.spill(&mut *spilling.store, &mut self.spare)?;
                }
            }
            self.pages = 0;
        }
        self.close(bucket);
        self.open[bucket] = Some(self.spare.pop().unwrap_or_default());
        self.held[bucket] = 0;
        self.pages += 1;
        Ok(bucket)
    }

    /// Few enough to fit even when each is half empty.
    fn few_pages(&self) -> usize {
        self.spill.as_ref().map_or(FEW_PAGES, |spilling| FEW_PAGES.min(spilling.pages / 4))
    }

    fn deal_out_anew(&mut self) -> io::Result<()> {
        self.close_all();
        let few = std::mem::take(&mut self.buckets);
        *self = Self::of(MANY_BITS, self.spill.take());
        for mut bucket in few {
            while let Some((page, held)) = bucket.take_last() {
                for entry in page.entries(held) {
                    self.push(entry.pseudonym, entry.row)?;
                }
                self.spare.push(page);
            }
        }
        Ok(())
    }

    fn close_all(&mut self) {
        (0..self.buckets.len()).for_each(|bucket| self.close(bucket));
    }

    /// Gives a bucket its open page, if there is one.
    fn close(&mut self, bucket: usize) {
        let held = std::mem::replace(&mut self.held[bucket], FULL);
        if let Some(page) = self.open[bucket].take() {
            self.buckets[bucket].add(page, held.into());
        }
    }
}

impl Default for SetBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetBuilder").finish_non_exhaustive()
    }
}

/// A strictly ascending sequence of pseudonyms, with the rows of each. Wiped when dropped.
pub struct PseudonymSet {
    buckets: Vec<Bucket>,
    spill: Option<Spilling>,
    /// How many pseudonyms each bucket has.
    lengths: Vec<usize>,
}

impl PseudonymSet {
    /// The set with these additional pseudonyms, which stand for no row.
    ///
    /// # Errors
    /// Those of the [`Spill`]; none without one.
    pub fn padded(self, with: impl IntoIterator<Item = Pseudonym>) -> io::Result<Self> {
        let mut builder = SetBuilder::on(self.buckets, self.spill);
        with.into_iter().try_for_each(|pseudonym| builder.push(pseudonym, NO_ROW))?;
        builder.finish()
    }

    /// The set with a few more pseudonyms, which stand for no row. They are held in memory even if
    /// the others are in a [`Spill`]. None of them may be in the set already (they are drawn at random).
    #[must_use]
    pub fn filled(mut self, with: impl IntoIterator<Item = Pseudonym>) -> Self {
        let bits = self.buckets.len().ilog2();
        let mut fillers = vec![Vec::new(); self.buckets.len()];
        with.into_iter().for_each(|pseudonym| fillers[bucket_of(pseudonym, bits)].push(pseudonym));
        let buckets = self.buckets.iter_mut().zip(&mut self.lengths).zip(&fillers);
        for ((bucket, length), filler) in buckets {
            *length += filler.len();
            bucket.fill(filler);
        }
        fillers.zeroize();
        self
    }

    fn store(&self) -> Option<&dyn Spill> {
        self.spill.as_ref().map(|spilling| &*spilling.store)
    }

    /// Number of pseudonyms.
    pub fn len(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Whether it is in memory and has at most 262,144 pseudonyms, so that converting it to its
    /// wire form, or hashing it, takes a millisecond.
    pub fn is_small(&self) -> bool {
        self.len() <= FEW_PAGES * usize::from(PAGE) && !self.buckets.iter().any(Bucket::is_spilled)
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many pseudonyms go to each of `services` services, 1 or another power of two up to 64.
    /// The first bits of a pseudonym say which service it goes to.
    ///
    /// # Panics
    /// If the number of services is any other.
    pub fn in_shards(&self, services: usize) -> Vec<usize> {
        let buckets = self.lengths.len();
        assert!(services.is_power_of_two() && services <= buckets, "{services} services");
        self.lengths.chunks(buckets / services).map(|lengths| lengths.iter().sum()).collect()
    }

    /// BLAKE3 over the wire form.
    ///
    /// # Errors
    /// Those of the [`Spill`]; none without one.
    pub fn blake3(&self) -> io::Result<[u8; 32]> {
        self.blake3_of(0..self.len())
    }

    /// BLAKE3 over the wire form of the pseudonyms of these ranks.
    ///
    /// # Errors
    /// Those of the [`Spill`]; none without one.
    ///
    /// # Panics
    /// If the set has fewer.
    pub fn blake3_of(&self, ranks: Range<usize>) -> io::Result<[u8; 32]> {
        let (mut hash, mut piece) = (blake3::Hasher::new(), Zeroizing::new(Vec::new()));
        let mut chunks = self.chunks_of(ranks, HASHED_AT_ONCE);
        while chunks.left > 0 {
            chunks.piece(&mut piece)?;
            hash.update(&piece);
        }
        Ok(hash.finalize().into())
    }

    /// The wire form in pieces of at most `max_bytes` (but at least one pseudonym), each a whole
    /// number of pseudonyms. The empty set has no pieces.
    pub fn chunks(&self, max_bytes: usize) -> Chunks<'_> {
        self.chunks_of(0..self.len(), max_bytes)
    }

    /// Like [`PseudonymSet::chunks`], for the pseudonyms of these ranks.
    ///
    /// # Panics
    /// If the set has fewer.
    pub fn chunks_of(&self, ranks: Range<usize>, max_bytes: usize) -> Chunks<'_> {
        assert!(ranks.end <= self.len(), "ranks beyond the set");
        let (mut bucket, mut skipped) = (0, ranks.start);
        while self.lengths.get(bucket).is_some_and(|length| *length <= skipped) {
            skipped -= self.lengths[bucket];
            bucket += 1;
        }
        let per_chunk = (max_bytes / PSEUDONYM_BYTES).max(1);
        let entries = Entries::default();
        Chunks { set: self, per_chunk, left: ranks.len(), bucket, skipped, entries }
    }

    /// The pseudonyms in ascending order, all at once.
    ///
    /// # Errors
    /// Those of the [`Spill`]; none without one.
    pub fn pseudonyms(&self) -> io::Result<Vec<Pseudonym>> {
        let mut pseudonyms = Vec::with_capacity(self.len());
        let mut entries = Entries::default();
        for bucket in &self.buckets {
            bucket.load(&mut entries, self.store())?;
            pseudonyms.extend(entries.distinct());
        }
        Ok(pseudonyms)
    }

    /// The ranks of these pseudonyms, which must be ascending and in the set.
    ///
    /// # Errors
    /// Those of the [`Spill`]; none without one.
    ///
    /// # Panics
    /// If one is not in the set, or they are not ascending.
    pub fn ranks_of(&self, these: impl IntoIterator<Item = Pseudonym>) -> io::Result<Vec<usize>> {
        let bits = self.buckets.len().ilog2();
        let mut these = these.into_iter().peekable();
        let (mut ranks, mut before) = (Vec::new(), 0);
        let mut entries = Entries::default();
        for (number, (bucket, distinct)) in self.buckets.iter().zip(&self.lengths).enumerate() {
            if these.peek().is_some_and(|next| bucket_of(*next, bits) == number) {
                bucket.load(&mut entries, self.store())?;
                for (rank, pseudonym) in (before..).zip(entries.distinct()) {
                    if these.next_if_eq(&pseudonym).is_some() {
                        ranks.push(rank);
                    }
                }
            }
            before += distinct;
        }
        assert!(these.next().is_none(), "not all of them are in the set");
        Ok(ranks)
    }

    /// The rows, out of `rows`, whose pseudonyms have their rank in `ranks`; if several rows have
    /// the same pseudonym, `only_first` takes the one with the smallest number.
    ///
    /// # Errors
    /// Those of the [`Spill`]; none without one.
    ///
    /// # Panics
    /// If `ranks` is over another number of pseudonyms, or a row that was pushed is not below `rows`.
    pub fn rows(&self, ranks: &Bitmap, rows: u32, only_first: bool) -> io::Result<Bitmap> {
        assert_eq!(ranks.len(), self.len(), "a bitmap over another set");
        let mut found = Bitmap::new(rows as usize);
        let (mut rank, mut entries) = (0, Entries::default());
        for (bucket, distinct) in self.buckets.iter().zip(&self.lengths) {
            if let Some(pieces) = bucket.in_place(*distinct, 0) {
                for row in pieces.flat_map(|(_, rows)| rows) {
                    if *row != NO_ROW {
                        found.set_if(*row as usize, ranks.is_set(rank));
                    }
                    rank += 1;
                }
                continue;
            }
            bucket.load(&mut entries, self.store())?;
            for same in entries.runs() {
                if ranks.is_set(rank) {
                    let taken = if only_first { &same[..1] } else { same };
                    for entry in taken.iter().filter(|entry| entry.row != NO_ROW) {
                        found.set(entry.row as usize);
                    }
                }
                rank += 1;
            }
        }
        Ok(found)
    }
}

impl fmt::Debug for PseudonymSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PseudonymSet").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The wire form of a [`PseudonymSet`], piece by piece. If the [`Spill`] fails, that piece is an
/// error and the last.
pub struct Chunks<'a> {
    set: &'a PseudonymSet,
    per_chunk: usize,
    left: usize,
    bucket: usize,
    /// How many pseudonyms of that bucket precede the next.
    skipped: usize,
    entries: Entries,
}

impl Chunks<'_> {
    /// Puts the next piece into `bytes`, replacing its contents.
    fn piece(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let count = self.per_chunk.min(self.left);
        bytes.clear();
        bytes.reserve(count * PSEUDONYM_BYTES);
        while bytes.len() < count * PSEUDONYM_BYTES {
            let missing = count - bytes.len() / PSEUDONYM_BYTES;
            self.entries
                .take_distinct(missing, |value| bytes.extend_from_slice(&value.to_be_bytes()));
            if self.entries.is_empty() && self.bucket < self.set.buckets.len() {
                self.go_on(count, bytes)?;
            }
        }
        self.left -= count;
        Ok(())
    }

    /// Takes from the bucket what is missing to `count` pseudonyms, or reads the bucket.
    fn go_on(&mut self, count: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        let (bucket, length) = (&self.set.buckets[self.bucket], self.set.lengths[self.bucket]);
        let Some(pieces) = bucket.in_place(length, self.skipped) else {
            bucket.load(&mut self.entries, self.set.store())?;
            self.bucket += 1;
            self.entries.take_distinct(std::mem::take(&mut self.skipped), drop);
            return Ok(());
        };
        for (pseudonyms, _) in pieces {
            let begin = bytes.len();
            let taken = pseudonyms.len().min(count - begin / PSEUDONYM_BYTES);
            bytes.resize(begin + taken * PSEUDONYM_BYTES, 0);
            let places = bytes[begin..].as_chunks_mut::<PSEUDONYM_BYTES>().0;
            for (place, pseudonym) in places.iter_mut().zip(pseudonyms) {
                *place = pseudonym.to_be_bytes();
            }
            self.skipped += taken;
            if taken < pseudonyms.len() {
                return Ok(());
            }
        }
        if self.skipped == length {
            (self.bucket, self.skipped) = (self.bucket + 1, 0);
        }
        Ok(())
    }
}

impl Iterator for Chunks<'_> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let mut bytes = Vec::new();
        let piece = self.piece(&mut bytes);
        if piece.is_err() {
            self.left = 0;
        }
        Some(piece.map(|()| bytes))
    }
}

impl fmt::Debug for Chunks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").field("left", &self.left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// A store in memory, in the clear.
    #[derive(Default)]
    struct Shelf {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Spill for Shelf {
        fn write(&mut self, bytes: &mut Vec<u8>) -> io::Result<Segment> {
            if self.bytes.len() + bytes.len() > self.room {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let offset = self.bytes.len() as u64;
            let length = bytes.len();
            self.bytes.append(bytes);
            Ok(Segment { offset, length })
        }

        fn read(&self, segment: Segment) -> io::Result<Zeroizing<Vec<u8>>> {
            let offset = usize::try_from(segment.offset).expect("it is in memory");
            Ok(self.bytes[offset..offset + segment.length].to_vec().into())
        }
    }

    fn set(values: impl IntoIterator<Item = u128>) -> PseudonymSet {
        let mut builder = SetBuilder::new();
        for (row, value) in (0..).zip(values) {
            builder.push(value.into(), row).expect("in memory");
        }
        builder.finish().expect("in memory")
    }

    fn chunks(set: &PseudonymSet, bytes: usize) -> Vec<Vec<u8>> {
        set.chunks(bytes).collect::<Result<_, _>>().expect("readable")
    }

    /// Numbers from the whole range, each seven times.
    fn scattered(count: u64) -> impl Iterator<Item = u128> + Clone {
        (0..count)
            .map(|i| u128::from(i / 7).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    #[test]
    fn wire_form_is_big_endian_and_chunks_hold_whole_pseudonyms() {
        let set = set([u128::MAX, 1, 0x0102]);
        let chunks_of_40 = chunks(&set, 40);
        assert_eq!(chunks_of_40.iter().map(Vec::len).collect::<Vec<_>>(), [32, 16]);
        assert_eq!(chunks_of_40[0][14..], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(chunks_of_40[1], [0xff; 16]);
        assert_eq!(chunks(&set, 0).len(), 3);
        assert!(chunks(&self::set([]), 1024).is_empty());
    }

    #[test]
    fn debug_shows_no_pseudonym() {
        let set = set([0xdead_beef]);
        assert_eq!(format!("{set:?}"), "PseudonymSet { len: 1, .. }");
    }

    #[test]
    fn rows_of_ranks() {
        let set = set([9, 5, 9, 7, 5]);
        let mut ranks = Bitmap::new(3);
        ranks.set(0);
        ranks.set(2);
        assert_eq!(set.rows(&ranks, 5, false).unwrap().as_bytes(), [0b1_0111]);
        assert_eq!(set.rows(&ranks, 5, true).unwrap().as_bytes(), [0b0_0011]);
    }

    #[test]
    fn a_set_that_was_spilled_is_the_same_set() {
        let values = scattered(700_000);
        let mut builder =
            SetBuilder::spilling(0, Box::new(Shelf { room: 1 << 30, ..Shelf::default() }));
        let held = (1024, 1024 * 256);
        for (row, value) in (0..).zip(values.clone()) {
            builder.push(value.into(), row).expect("there is room");
            assert!(builder.pages <= held.0);
        }
        let spilled = builder.finish().expect("there is room");
        assert!(spilled.buckets.iter().all(Bucket::is_spilled) && spilled.len() > held.1 / 7);
        let whole = set(values);
        assert_eq!(spilled.len(), whole.len());
        assert_eq!(spilled.blake3().unwrap(), whole.blake3().unwrap());
        assert!(chunks(&spilled, 100_000) == chunks(&whole, 100_000));
        let mut ranks = Bitmap::new(whole.len());
        (0..whole.len()).step_by(3).for_each(|rank| ranks.set(rank));
        for only_first in [false, true] {
            let rows = |set: &PseudonymSet| set.rows(&ranks, 700_000, only_first).unwrap();
            assert!(rows(&spilled) == rows(&whole));
        }
    }

    #[test]
    fn many_entries_are_dealt_out_anew_and_filled_up_in_order() {
        let scatter = |number: u32| {
            u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        };
        let (rows, all) = (300_000, 310_000);
        let set = set((0..rows).map(scatter));
        assert_eq!(set.buckets.len(), 1 << MANY_BITS);
        let set = set.filled((rows..all).map(|number| scatter(number).into()));
        let mut expected: Vec<(u128, u32)> = (0..all).map(|row| (scatter(row), row)).collect();
        expected.sort_unstable();
        let wire: Vec<u8> = expected.iter().flat_map(|(value, _)| value.to_be_bytes()).collect();
        assert!(chunks(&set, 100_000).concat() == wire);
        assert!(
            set.chunks_of(77_777..310_000, 4000)
                .flat_map(|piece| piece.unwrap())
                .eq(wire[77_777 * PSEUDONYM_BYTES..].iter().copied())
        );
        let (mut ranks, mut marked) = (Bitmap::new(set.len()), Bitmap::new(rows as usize));
        for (rank, (_, row)) in expected.iter().enumerate().filter(|(rank, _)| rank % 3 == 0) {
            ranks.set(rank);
            if *row < rows {
                marked.set(*row as usize);
            }
        }
        assert!(set.rows(&ranks, rows, false).unwrap() == marked);
    }

    #[test]
    fn padding_stands_for_no_row() {
        let held =
            || SetBuilder::spilling(0, Box::new(Shelf { room: 1 << 30, ..Shelf::default() }));
        for (mut builder, rows) in [(SetBuilder::new(), 50), (held(), 50), (held(), 400_000)] {
            for (row, value) in (0..rows).zip(scattered(rows.into())) {
                builder.push(value.into(), row).expect("there is room");
            }
            let set = builder.finish().expect("there is room");
            let mut expected: Vec<_> = set.pseudonyms().unwrap();
            let padding: Vec<_> = (1..1000).map(|i| Pseudonym::from(i << 115 | 1)).collect();
            let set = set.padded(padding.iter().copied()).expect("there is room");
            expected.extend(&padding);
            expected.sort_unstable();
            assert!(set.pseudonyms().unwrap() == expected);
            assert_eq!(set.len(), expected.len());
            let mut all = Bitmap::new(set.len());
            (0..set.len()).for_each(|rank| all.set(rank));
            assert_eq!(set.rows(&all, rows, false).unwrap().count_ones(), u64::from(rows));
        }
    }

    #[test]
    fn a_store_without_room_is_an_error() {
        let mut builder = SetBuilder::spilling(0, Box::new(Shelf::default()));
        let mut pushed = (0..).zip(scattered(700_000));
        let refused = pushed.find_map(|(row, value)| builder.push(value.into(), row).err());
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }

    proptest! {
        #[test]
        fn equals_an_ordered_map(
            values in proptest::collection::vec(
                prop_oneof![any::<u128>(), 0u128..50, Just(u128::MAX)], 0..600),
            marked in proptest::collection::vec(any::<bool>(), 600),
            chunk in 16usize..2000,
        ) {
            let mut expected: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
            for (row, value) in values.iter().enumerate() {
                expected.entry(*value).or_default().push(row);
            }
            let built = set(values.iter().copied());
            prop_assert_eq!(built.len(), expected.len());
            let wire: Vec<u8> = expected.keys().flat_map(|value| value.to_be_bytes()).collect();
            prop_assert!(chunks(&built, chunk).concat() == wire);
            prop_assert_eq!(built.blake3().unwrap(), *blake3::hash(&wire).as_bytes());
            let pseudonyms = built.pseudonyms().unwrap();
            prop_assert!(pseudonyms.iter().map(|f| f.to_u128()).eq(expected.keys().copied()));

            // The result is the same for any ranks, and with other pseudonyms filled in.
            let half = built.len() / 2;
            let parts = [0..half, half..built.len()].map(|ranks| {
                built.chunks_of(ranks, chunk).flat_map(|piece| piece.unwrap()).collect::<Vec<u8>>()
            });
            prop_assert!(parts.concat() == wire);
            let others: Vec<u128> =
                (1..100).map(|n| n << 120 | 0x4d).filter(|n| !expected.contains_key(n)).collect();
            let more: BTreeSet<u128> = expected.keys().copied().chain(others.clone()).collect();
            let built = built.filled(others.iter().map(|value| (*value).into()));
            let wire: Vec<u8> = more.iter().flat_map(|value| value.to_be_bytes()).collect();
            prop_assert!(chunks(&built, chunk).concat() == wire);
            prop_assert_eq!(built.len(), more.len());
            for services in [1, 2, 16] {
                let shard = |value: u128| usize::try_from(value >> 120).unwrap() * services / 256;
                let mut counts = vec![0; services];
                for value in &more {
                    counts[shard(*value)] += 1;
                }
                prop_assert_eq!(built.in_shards(services), counts);
            }
            let mut ranks = Bitmap::new(built.len());
            let none = built.rows(&ranks, u32::try_from(values.len()).unwrap(), false).unwrap();
            prop_assert_eq!(none.count_ones(), 0);
            let rank = |value: &u128| more.range(..value).count();
            for value in &others {
                ranks.set(rank(value));
            }
            let none = built.rows(&ranks, u32::try_from(values.len()).unwrap(), false).unwrap();
            prop_assert_eq!(none.count_ones(), 0);

            let built = set(values.iter().copied());
            let mut ranks = Bitmap::new(built.len());
            let (mut all, mut first) = (Bitmap::new(values.len()), Bitmap::new(values.len()));
            for ((rank, rows), marked) in expected.values().enumerate().zip(marked) {
                if marked {
                    ranks.set(rank);
                    for row in rows {
                        all.set(*row);
                    }
                    first.set(rows[0]);
                }
            }
            let count = u32::try_from(values.len()).unwrap();
            prop_assert!(built.rows(&ranks, count, false).unwrap() == all);
            prop_assert!(built.rows(&ranks, count, true).unwrap() == first);
        }
    }
}
