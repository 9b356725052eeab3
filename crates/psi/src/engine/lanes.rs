//! Compare-exchange on vector units, chosen at run time.
//!
//! All of it is free of branches and of addresses that depend on the records.

use std::hint::black_box;
use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

use super::block::Halves;

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

    /// Runs `work` with the vector unit's instructions switched on.
    fn run<W: Work>(self, work: W) -> W::Output;

    fn load(self, words: &[i64]) -> Self::Words;

    fn store(self, words: &mut [i64], value: Self::Words);

    /// Puts the smaller of each pair into `a`. Returns which were exchanged, one bit a lane.
    fn exchange(self, a: &mut Record<Self>, b: &mut Record<Self>) -> u8;

    /// Sorts a bitonic sequence. Returns which were exchanged at each level: the bit of the pair's
    /// lower place.
    fn tile(self, high: &mut [i64; TILE], low: &mut [i64; TILE]) -> [u64; TILE_LEVELS];

    /// Which of a tile's records, high and low halves, are equal to those of another: one bit a place.
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

/// Something to do on any vector unit.
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
    /// Records from these places on, so far apart. No closure: it would be compiled without the
    /// vector unit's instructions.
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
    /// All that this machine has, the widest first.
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
                // Falls, then rises, in steps of two: with every pair of equal high halves.
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
        // Without the barrier the compiler is free to make a branch of it.
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

    use super::{Halves, Lanes, Record, TILE, TILE_LEVELS, Work};

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

    /// `b` in the lanes of the mask, `a` in the others. Not by a blend: the compiler makes masked loads and
    /// stores of a blend and what is around it, and whether those touch memory depends on the mask.
    struct Choice(V4, __m512i);

    impl Choice {
        #[inline(always)]
        fn new(lanes: V4, mask: u8) -> Self {
            Self(lanes, lanes.avx512dq._mm512_movm_epi64(mask))
        }

        #[inline(always)]
        fn of(&self, a: i64x8, b: i64x8) -> i64x8 {
            // Its truth table: the second where the first has a one, the third where it has none.
            const SECOND_OR_THIRD: i32 = 0b1100_1010;
            let (unit, mask) = (self.0.avx512f, self.1);
            cast(unit._mm512_ternarylogic_epi64::<SECOND_OR_THIRD>(mask, cast(b), cast(a)))
        }
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
            const PARTNERS: [i64x8; 3] = [
                i64x8(4, 5, 6, 7, 0, 1, 2, 3),
                i64x8(2, 3, 0, 1, 6, 7, 4, 5),
                i64x8(1, 0, 3, 2, 5, 4, 7, 6),
            ];
            const LOWER: [u8; 3] = [0b0000_1111, 0b0011_0011, 0b0101_0101];
            let mut levels = [0; TILE_LEVELS];
            let mut rows = Record::<Self>::load_rows::<8>(self, high, low, 8);
            for (level, step) in [4, 2, 1].into_iter().enumerate() {
                for at in 0..8 {
                    if at & step == 0 {
                        let (mut a, mut b) = (rows[at], rows[at + step]);
                        levels[level] |= u64::from(self.exchange(&mut a, &mut b)) << (8 * at);
                        (rows[at], rows[at + step]) = (a, b);
                    }
                }
            }
            for (at, row) in rows.iter_mut().enumerate() {
                for (level, (partners, lower)) in PARTNERS.into_iter().zip(LOWER).enumerate() {
                    let (unit, to) = (self.avx512f, cast(partners));
                    let partner = Record {
                        high: cast(unit._mm512_permutexvar_epi64(to, cast(row.high))),
                        low: cast(unit._mm512_permutexvar_epi64(to, cast(row.low))),
                    };
                    let mask =
                        above(self, row, &partner) & lower | above(self, &partner, row) & !lower;
                    let choice = Choice::new(self, mask);
                    row.high = choice.of(row.high, partner.high);
                    row.low = choice.of(row.low, partner.low);
                    levels[3 + level] |= u64::from(mask & lower) << (8 * at);
                }
            }
            Record::store_rows(&rows, self, high, low, 8);
            levels
        }

        /// The compiler makes a comparison under a mask, of memory, of two that are joined by "and"; here
        /// there is one, of what differs.
        #[inline(always)]
        fn equal(self, a: Halves<&[i64; TILE]>, b: Halves<&[i64; TILE]>) -> u64 {
            // Its truth table: the first differs from the second, or the third is there.
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
