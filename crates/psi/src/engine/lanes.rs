//! Compare-exchange on vector units, chosen at run time.
//!
//! None of it branches on records or uses addresses that depend on them.

#![expect(clippy::many_single_char_names, reason = "eight of a kind")]

use std::hint::black_box;
use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

/// The high and the low halves of records.
type Halves<T> = (T, T);

/// Records that [`Lanes::tile`] sorts at once.
pub(super) const TILE: usize = 64;

/// Levels of [`Lanes::tile`]: distances 32, 16, 8, 4, 2, 1.
pub(super) const TILE_LEVELS: usize = TILE.trailing_zeros() as usize;

/// `WIDTH` records side by side.
pub(super) trait Lanes: Copy + Send + Sync {
    /// The high or low halves of `WIDTH` records.
    type Words: Copy;

    /// A divisor of 8.
    const WIDTH: usize;

    /// Runs `work` with the vector unit's instructions enabled.
    fn run<W: Work>(self, work: W) -> W::Output;

    fn load(self, words: &[i64]) -> Self::Words;

    fn store(self, words: &mut [i64], value: Self::Words);

    /// Puts the smaller of each pair into `a`. Returns which were exchanged, one bit per lane.
    fn exchange(self, a: &mut Record<Self>, b: &mut Record<Self>) -> u8;

    /// Sorts a bitonic sequence. Returns which were exchanged at each level, as the bit of the
    /// pair's lower place.
    fn tile(self, high: &mut [i64; TILE], low: &mut [i64; TILE]) -> [u64; TILE_LEVELS];

    /// Which of a tile's records, high and low halves, are equal to those of another: one bit per
    /// place.
    #[inline(always)]
    fn equal(self, a: Halves<&[i64; TILE]>, b: Halves<&[i64; TILE]>) -> u64 {
        let mut bits = 0;
        for at in 0..TILE {
            let differ = (a.0[at] ^ b.0[at]) | (a.1[at] ^ b.1[at]);
            let any = (differ | differ.wrapping_neg()).cast_unsigned() >> 63;
            bits |= (any ^ 1) << at;
        }
        bits
    }
}

/// Something that any vector unit can do.
pub(super) trait Work {
    type Output;

    fn with<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// `WIDTH` records.
#[derive(Clone, Copy)]
pub(super) struct Record<L: Lanes> {
    pub(super) high: L::Words,
    pub(super) low: L::Words,
}

impl<L: Lanes> Record<L> {
    /// Records from these places on, this far apart. Not a closure: it would be compiled without
    /// the vector unit's instructions.
    #[inline(always)]
    fn load_rows<const ROWS: usize>(
        lanes: L,
        high: &[i64],
        low: &[i64],
        apart: usize,
    ) -> [Self; ROWS] {
        let mut rows = [Self::load(lanes, high, low); ROWS];
        for (row, record) in rows.iter_mut().enumerate().skip(1) {
            *record = Self::load(lanes, &high[row * apart..], &low[row * apart..]);
        }
        rows
    }

    #[inline(always)]
    fn store_rows(rows: &[Self], lanes: L, high: &mut [i64], low: &mut [i64], apart: usize) {
        for (row, record) in rows.iter().enumerate() {
            record.store(lanes, &mut high[row * apart..], &mut low[row * apart..]);
        }
    }

    #[inline(always)]
    pub(super) fn load(lanes: L, high: &[i64], low: &[i64]) -> Self {
        Self { high: lanes.load(high), low: lanes.load(low) }
    }

    #[inline(always)]
    pub(super) fn store(self, lanes: L, high: &mut [i64], low: &mut [i64]) {
        lanes.store(high, self.high);
        lanes.store(low, self.low);
    }
}

/// Comparators among eight members.
pub(super) const COMPARATORS: usize = 12;

/// Compares the first `MEMBERS` records with one another, at the distances 4, 2 and 1, in this
/// order. Returns for each comparator one bit per lane.
#[inline(always)]
fn exchange_eight<L: Lanes, const MEMBERS: usize>(
    lanes: L,
    records: &mut [Record<L>; 8],
) -> [u8; COMPARATORS] {
    let mut exchanged = [0; COMPARATORS];
    let mut comparator = 0;
    // Written out: given loops, the compiler would emit loops, with the records in memory.
    let [a, b, c, d, e, f, g, h] = records;
    macro_rules! compare {
        ($($lower:ident $upper:ident $place:literal,)*) => {$(
            if $place < MEMBERS {
                exchanged[comparator] = lanes.exchange($lower, $upper);
                comparator += 1;
            }
        )*};
    }
    compare!(a e 4, b f 5, c g 6, d h 7,);
    compare!(a c 2, b d 3, e g 6, f h 7,);
    compare!(a b 1, c d 3, e f 5, g h 7,);
    debug_assert!(comparator <= COMPARATORS, "no more than eight records");
    exchanged
}

/// Compares up to eight tiles, high and low halves of each, with one another, record by record, as
/// [`exchange_eight`] does. Returns for each comparator one bit per record.
#[inline(always)]
pub(super) fn exchange_among<L: Lanes, const MEMBERS: usize>(
    lanes: L,
    mut tiles: [[&mut [i64; TILE]; 2]; MEMBERS],
) -> [u64; COMPARATORS] {
    let mut words = [[0; TILE / 8]; COMPARATORS];
    for at in 0..TILE / 8 {
        for part in 0..8 / L::WIDTH {
            let from = 8 * at + part * L::WIDTH;
            // If there are fewer members, the last one stands in for the others; nothing is done
            // with them.
            macro_rules! load {
                ($($member:literal)*) => {[$({
                    let [high, low] = &tiles[$member.min(MEMBERS - 1)];
                    Record::load(lanes, &high[from..], &low[from..])
                }),*]};
            }
            let mut records = load!(0 1 2 3 4 5 6 7);
            let exchanged = exchange_eight::<L, MEMBERS>(lanes, &mut records);
            for (word, bits) in words.iter_mut().zip(exchanged) {
                word[at] |= bits << (part * L::WIDTH);
            }
            for (record, [high, low]) in records.into_iter().zip(&mut tiles) {
                record.store(lanes, &mut high[from..], &mut low[from..]);
            }
        }
    }
    words.map(u64::from_le_bytes)
}

/// A vector unit that this machine has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    #[cfg(target_arch = "x86_64")]
    Avx512(V4),
    #[cfg(target_arch = "x86_64")]
    Avx2(V3),
    Portable,
}

impl Unit {
    /// All that this machine has, widest first.
    pub(super) fn all() -> Vec<Self> {
        let mut units = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            units.extend(V4::try_new().map(Self::Avx512));
            units.extend(V3::try_new().map(Self::Avx2));
        }
        units.push(Self::Portable);
        units
    }

    /// The widest that this machine has and that sorts as the portable code does.
    pub(super) fn widest() -> Self {
        static WIDEST: LazyLock<Unit> = LazyLock::new(|| {
            let expected = Unit::Portable.probe();
            let right = |unit: &Unit| unit.probe() == expected;
            Unit::all().into_iter().find(right).unwrap_or(Unit::Portable)
        });
        *WIDEST
    }

    /// Does it on this unit.
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(lanes) => lanes.run(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(lanes) => lanes.run(work),
            Self::Portable => Portable.run(work),
        }
    }

    /// What it makes of a fixed tile.
    fn probe(self) -> (Vec<i64>, Vec<i64>, [u64; TILE_LEVELS]) {
        struct Probe;
        impl Work for Probe {
            type Output = (Vec<i64>, Vec<i64>, [u64; TILE_LEVELS]);

            #[inline(always)]
            fn with<L: Lanes>(self, lanes: L) -> Self::Output {
                // Falls, then rises, in steps of two: every pair has equal high halves.
                let mut high = [0; TILE];
                let mut low = [0; TILE];
                for (at, (high, low)) in (0..).zip(high.iter_mut().zip(&mut low)) {
                    let from_the_bottom: i64 = at - 21;
                    *high = (from_the_bottom.abs() / 2 - 9) << 32;
                    *low = (from_the_bottom.abs() - 18) << 32 | at;
                }
                let levels = lanes.tile(&mut high, &mut low);
                (high.to_vec(), low.to_vec(), levels)
            }
        }
        self.run(Probe)
    }
}

/// One record after the other, in general registers.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Lanes for Portable {
    type Words = i64;

    const WIDTH: usize = 1;

    #[inline(always)]
    fn run<W: Work>(self, work: W) -> W::Output {
        work.with(self)
    }

    #[inline(always)]
    fn load(self, words: &[i64]) -> i64 {
        words[0]
    }

    #[inline(always)]
    fn store(self, words: &mut [i64], value: i64) {
        words[0] = value;
    }

    #[inline(always)]
    fn exchange(self, a: &mut Record<Self>, b: &mut Record<Self>) -> u8 {
        let above = u8::from(a.high > b.high);
        let level = u8::from(a.high == b.high);
        // Without the barrier, the compiler would be free to turn it into a branch.
        let exchanged = black_box(above | level & u8::from(a.low > b.low));
        let mask = -i64::from(exchanged);
        let high = (a.high ^ b.high) & mask;
        let low = (a.low ^ b.low) & mask;
        (a.high, b.high) = (a.high ^ high, b.high ^ high);
        (a.low, b.low) = (a.low ^ low, b.low ^ low);
        exchanged
    }

    #[inline(always)]
    fn tile(self, high: &mut [i64; TILE], low: &mut [i64; TILE]) -> [u64; TILE_LEVELS] {
        let mut levels = [0; TILE_LEVELS];
        for (level, exchanged) in levels.iter_mut().enumerate() {
            let distance = TILE >> (level + 1);
            for at in (0..TILE).filter(|at| at & distance == 0) {
                let other = at + distance;
                let mut a = Record { high: high[at], low: low[at] };
                let mut b = Record { high: high[other], low: low[other] };
                *exchanged |= u64::from(self.exchange(&mut a, &mut b)) << at;
                (high[at], low[at], high[other], low[other]) = (a.high, a.low, b.high, b.low);
            }
        }
        levels
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use pulp::x86::V3;
    use pulp::{NullaryFnOnce, cast, i64x4};

    use super::{Lanes, Record, TILE, TILE_LEVELS, Work};

    struct On<W>(V3, W);

    impl<W: Work> NullaryFnOnce for On<W> {
        type Output = W::Output;

        #[inline(always)]
        fn call(self) -> W::Output {
            self.1.with(self.0)
        }
    }

    impl Lanes for V3 {
        type Words = i64x4;

        const WIDTH: usize = 4;

        #[inline(always)]
        fn run<W: Work>(self, work: W) -> W::Output {
            self.vectorize(On(self, work))
        }

        #[inline(always)]
        fn load(self, words: &[i64]) -> i64x4 {
            let words: [i64; 4] = *words.first_chunk().expect("callers load whole vectors");
            cast(words)
        }

        #[inline(always)]
        fn store(self, words: &mut [i64], value: i64x4) {
            let value: [i64; 4] = cast(value);
            words[..4].copy_from_slice(&value);
        }

        #[inline(always)]
        fn exchange(self, a: &mut Record<Self>, b: &mut Record<Self>) -> u8 {
            let above = self.cmp_gt_i64x4(a.high, b.high);
            let level = self.cmp_eq_u64x4(cast(a.high), cast(b.high));
            let below = self.cmp_gt_i64x4(a.low, b.low);
            let mask = self.or_m64x4(above, self.and_m64x4(level, below));
            let (ah, bh, al, bl) = (a.high, b.high, a.low, b.low);
            a.high = self.select_i64x4(mask, bh, ah);
            b.high = self.select_i64x4(mask, ah, bh);
            a.low = self.select_i64x4(mask, bl, al);
            b.low = self.select_i64x4(mask, al, bl);
            #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "4 bits")]
            let bits = self.avx._mm256_movemask_pd(cast(mask)) as u8;
            bits
        }

        #[inline(always)]
        fn tile(self, high: &mut [i64; TILE], low: &mut [i64; TILE]) -> [u64; TILE_LEVELS] {
            let mut levels = [0; TILE_LEVELS];
            for at in (0..16).step_by(4) {
                let mut rows = Record::load_rows(self, &high[at..], &low[at..], 16);
                let [a, b, c, d] = &mut rows;
                levels[0] |= u64::from(self.exchange(a, c)) << at;
                levels[0] |= u64::from(self.exchange(b, d)) << (at + 16);
                levels[1] |= u64::from(self.exchange(a, b)) << at;
                levels[1] |= u64::from(self.exchange(c, d)) << (at + 32);
                Record::store_rows(&rows, self, &mut high[at..], &mut low[at..], 16);
            }
            for from in (0..TILE).step_by(16) {
                let mut rows = Record::load_rows(self, &high[from..], &low[from..], 4);
                let [a, b, c, d] = &mut rows;
                levels[2] |= u64::from(self.exchange(a, c)) << from;
                levels[2] |= u64::from(self.exchange(b, d)) << (from + 4);
                levels[3] |= u64::from(self.exchange(a, b)) << from;
                levels[3] |= u64::from(self.exchange(c, d)) << (from + 8);
                // Four rows of four become four columns, and back.
                let mut columns = transposed(self, &rows);
                let [a, b, c, d] = &mut columns;
                levels[4] |= every_fourth(self.exchange(a, c)) << from;
                levels[4] |= every_fourth(self.exchange(b, d)) << (from + 1);
                levels[5] |= every_fourth(self.exchange(a, b)) << from;
                levels[5] |= every_fourth(self.exchange(c, d)) << (from + 2);
                let rows = transposed(self, &columns);
                Record::store_rows(&rows, self, &mut high[from..], &mut low[from..], 4);
            }
            levels
        }
    }

    /// Bit r goes to bit 4 r.
    #[inline(always)]
    fn every_fourth(bits: u8) -> u64 {
        let bits = u64::from(bits);
        (bits | bits << 3 | bits << 6 | bits << 9) & 0x1111
    }

    #[inline(always)]
    fn transposed(lanes: V3, rows: &[Record<V3>; 4]) -> [Record<V3>; 4] {
        let [a, b, c, d] = *rows;
        let [ah, bh, ch, dh] = transposed_words(lanes, [a.high, b.high, c.high, d.high]);
        let [al, bl, cl, dl] = transposed_words(lanes, [a.low, b.low, c.low, d.low]);
        [
            Record { high: ah, low: al },
            Record { high: bh, low: bl },
            Record { high: ch, low: cl },
            Record { high: dh, low: dl },
        ]
    }

    #[inline(always)]
    fn transposed_words(lanes: V3, [a, b, c, d]: [i64x4; 4]) -> [i64x4; 4] {
        let unit = lanes.avx2;
        let (a, b, c, d) = (cast(a), cast(b), cast(c), cast(d));
        let (low_ab, low_cd) = (unit._mm256_unpacklo_epi64(a, b), unit._mm256_unpacklo_epi64(c, d));
        let (high_ab, high_cd) =
            (unit._mm256_unpackhi_epi64(a, b), unit._mm256_unpackhi_epi64(c, d));
        [
            cast(unit._mm256_permute2x128_si256::<0x20>(low_ab, low_cd)),
            cast(unit._mm256_permute2x128_si256::<0x20>(high_ab, high_cd)),
            cast(unit._mm256_permute2x128_si256::<0x31>(low_ab, low_cd)),
            cast(unit._mm256_permute2x128_si256::<0x31>(high_ab, high_cd)),
        ]
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::__m512i;

    use pulp::x86::V4;
    use pulp::{NullaryFnOnce, cast, i64x8};

    use super::{COMPARATORS, Halves, Lanes, Record, TILE, TILE_LEVELS, Work, exchange_eight};

    struct On<W>(V4, W);

    impl<W: Work> NullaryFnOnce for On<W> {
        type Output = W::Output;

        #[inline(always)]
        fn call(self) -> W::Output {
            self.1.with(self.0)
        }
    }

    /// Lanes in which `a` is above `b`.
    #[inline(always)]
    fn above(lanes: V4, a: &Record<V4>, b: &Record<V4>) -> u8 {
        let unit = lanes.avx512f;
        let (ah, al, bh, bl) = (cast(a.high), cast(a.low), cast(b.high), cast(b.low));
        let above = unit._mm512_cmpgt_epi64_mask(ah, bh);
        let level = unit._mm512_cmpeq_epi64_mask(ah, bh);
        above | level & unit._mm512_cmpgt_epi64_mask(al, bl)
    }

    /// `b` in the lanes of the mask, `a` in the others. Not by a blend: the compiler turns a blend
    /// and its surroundings into masked loads and stores, and whether those touch memory depends on
    /// the mask.
    struct Choice(V4, __m512i);

    impl Choice {
        #[inline(always)]
        fn new(lanes: V4, mask: u8) -> Self {
            Self(lanes, lanes.avx512dq._mm512_movm_epi64(mask))
        }

        #[inline(always)]
        fn of(&self, a: i64x8, b: i64x8) -> i64x8 {
            // Its truth table: the second where the first has a one, the third where it has a zero.
            const SECOND_OR_THIRD: i32 = 0b1100_1010;
            let (unit, mask) = (self.0.avx512f, self.1);
            cast(unit._mm512_ternarylogic_epi64::<SECOND_OR_THIRD>(mask, cast(b), cast(a)))
        }
    }

    /// What [`exchange_eight`] returns for eight rows of eight, as one word per level: the bit of
    /// the pair's lower place.
    #[inline(always)]
    fn by_level(exchanged: [u8; COMPARATORS]) -> [u64; 3] {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = exchanged;
        [[a, b, c, d, 0, 0, 0, 0], [e, f, 0, 0, g, h, 0, 0], [i, 0, j, 0, k, 0, l, 0]]
            .map(u64::from_le_bytes)
    }

    /// Bit 8 r + c goes to bit 8 c + r.
    #[inline(always)]
    fn transposed_bits(mut word: u64) -> u64 {
        for (distance, mask) in
            [(7, 0x00AA_00AA_00AA_00AA), (14, 0x0000_CCCC_0000_CCCC), (28, 0x0000_0000_F0F0_F0F0)]
        {
            let moved = (word ^ word >> distance) & mask;
            word ^= moved | moved << distance;
        }
        word
    }

    #[inline(always)]
    fn transposed(lanes: V4, rows: &[Record<V4>; 8]) -> [Record<V4>; 8] {
        let [a, b, c, d, e, f, g, h] = *rows;
        let high = [a.high, b.high, c.high, d.high, e.high, f.high, g.high, h.high];
        let low = [a.low, b.low, c.low, d.low, e.low, f.low, g.low, h.low];
        let [ah, bh, ch, dh, eh, fh, gh, hh] = transposed_words(lanes, high);
        let [al, bl, cl, dl, el, fl, gl, hl] = transposed_words(lanes, low);
        [
            Record { high: ah, low: al },
            Record { high: bh, low: bl },
            Record { high: ch, low: cl },
            Record { high: dh, low: dl },
            Record { high: eh, low: el },
            Record { high: fh, low: fl },
            Record { high: gh, low: gl },
            Record { high: hh, low: hl },
        ]
    }

    #[inline(always)]
    fn transposed_words(lanes: V4, [a, b, c, d, e, f, g, h]: [i64x8; 8]) -> [i64x8; 8] {
        // Of four pairs of rows, what is in the same column, and in the column four further on.
        const FIRST_AND_THIRD: i32 = 0x88;
        const SECOND_AND_FOURTH: i32 = 0xdd;
        let unit = lanes.avx512f;
        macro_rules! columns {
            ($pair:ident) => {{
                let (ab, cd) = (unit.$pair(cast(a), cast(b)), unit.$pair(cast(c), cast(d)));
                let (ef, gh) = (unit.$pair(cast(e), cast(f)), unit.$pair(cast(g), cast(h)));
                let upper = unit._mm512_shuffle_i64x2::<FIRST_AND_THIRD>(ab, cd);
                let lower = unit._mm512_shuffle_i64x2::<FIRST_AND_THIRD>(ef, gh);
                let first = unit._mm512_shuffle_i64x2::<FIRST_AND_THIRD>(upper, lower);
                let fifth = unit._mm512_shuffle_i64x2::<SECOND_AND_FOURTH>(upper, lower);
                let upper = unit._mm512_shuffle_i64x2::<SECOND_AND_FOURTH>(ab, cd);
                let lower = unit._mm512_shuffle_i64x2::<SECOND_AND_FOURTH>(ef, gh);
                let third = unit._mm512_shuffle_i64x2::<FIRST_AND_THIRD>(upper, lower);
                let seventh = unit._mm512_shuffle_i64x2::<SECOND_AND_FOURTH>(upper, lower);
                (cast(first), cast(third), cast(fifth), cast(seventh))
            }};
        }
        let (first, third, fifth, seventh) = columns!(_mm512_unpacklo_epi64);
        let (second, fourth, sixth, eighth) = columns!(_mm512_unpackhi_epi64);
        [first, second, third, fourth, fifth, sixth, seventh, eighth]
    }

    impl Lanes for V4 {
        type Words = i64x8;

        const WIDTH: usize = 8;

        #[inline(always)]
        fn run<W: Work>(self, work: W) -> W::Output {
            self.vectorize(On(self, work))
        }

        #[inline(always)]
        fn load(self, words: &[i64]) -> i64x8 {
            let words: [i64; 8] = *words.first_chunk().expect("callers load whole vectors");
            cast(words)
        }

        #[inline(always)]
        fn store(self, words: &mut [i64], value: i64x8) {
            let value: [i64; 8] = cast(value);
            words[..8].copy_from_slice(&value);
        }

        #[inline(always)]
        fn exchange(self, a: &mut Record<Self>, b: &mut Record<Self>) -> u8 {
            let mask = above(self, a, b);
            let choice = Choice::new(self, mask);
            let (ah, bh, al, bl) = (a.high, b.high, a.low, b.low);
            (a.high, b.high) = (choice.of(ah, bh), choice.of(bh, ah));
            (a.low, b.low) = (choice.of(al, bl), choice.of(bl, al));
            mask
        }

        #[inline(always)]
        fn tile(self, high: &mut [i64; TILE], low: &mut [i64; TILE]) -> [u64; TILE_LEVELS] {
            macro_rules! rows {
                ($($row:literal)*) => {
                    [$(Record::load(self, &high[8 * $row..], &low[8 * $row..])),*]
                };
            }
            let mut rows = rows!(0 1 2 3 4 5 6 7);
            let [wide, middle, near] = by_level(exchange_eight::<Self, 8>(self, &mut rows));
            // Eight rows of eight become eight columns, and back.
            let mut columns = transposed(self, &rows);
            let exchanged = exchange_eight::<Self, 8>(self, &mut columns);
            let rows = transposed(self, &columns);
            for (row, record) in rows.into_iter().enumerate() {
                record.store(self, &mut high[8 * row..], &mut low[8 * row..]);
            }
            let [four, two, one] = by_level(exchanged).map(transposed_bits);
            [wide, middle, near, four, two, one]
        }

        /// The compiler turns two comparisons joined by "and" into one under a mask, of memory;
        /// here there is a single comparison, of the differences.
        #[inline(always)]
        fn equal(self, a: Halves<&[i64; TILE]>, b: Halves<&[i64; TILE]>) -> u64 {
            // Its truth table: the first differs from the second, or the third is set.
            const DIFFER_OR_THIRD: i32 = 0b1011_1110;
            let unit = self.avx512f;
            let mut bits = 0;
            for at in (0..TILE).step_by(8) {
                let a = Record::load(self, &a.0[at..], &a.1[at..]);
                let b = Record::load(self, &b.0[at..], &b.1[at..]);
                let low = unit._mm512_xor_si512(cast(a.low), cast(b.low));
                let (high, other) = (cast(a.high), cast(b.high));
                let differ = unit._mm512_ternarylogic_epi64::<DIFFER_OR_THIRD>(high, other, low);
                let equal = unit._mm512_cmpeq_epi64_mask(differ, unit._mm512_setzero_si512());
                bits |= u64::from(equal) << at;
            }
            bits
        }
    }
}
