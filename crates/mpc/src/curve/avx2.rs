//! Four elements with AVX2: ten limbs of 26 and 25 bits in turn, in words of 64.
//!
//! The instruction multiplies 32 bits by 32. Limbs of products are below 2^26 + 2^17 and
//! 2^25 + 2^17, those of factors three times as large, so that 19 times a limb has 32 bits.

use std::arch::x86_64::__m256i;
use std::hint::black_box;

use pulp::x86::V3;
use pulp::{NullaryFnOnce, cast};

use super::Point;
use super::lanes::{Lanes, WIDEST, Work};
use super::portable::{limbs, point};

type Limbs = [__m256i; 10];

const WIDE: i64 = (1 << 26) - 1;
const NARROW: i64 = (1 << 25) - 1;

/// Carries limb `$from` into limb `$to`.
macro_rules! carry {
    ($lanes:ident $masks:ident $limbs:ident $($from:literal $to:literal),*) => {$({
        let over = carry_of::<$from>($lanes, $limbs[$from]);
        $limbs[$from] = low_of::<$from>($lanes, $masks, $limbs[$from]);
        $limbs[$to] = plus($lanes, $limbs[$to], over);
    })*};
}

#[inline(always)]
fn splat(lanes: V3, value: i64) -> __m256i {
    lanes.avx._mm256_set1_epi64x(value)
}

#[inline(always)]
fn plus(lanes: V3, a: __m256i, b: __m256i) -> __m256i {
    lanes.avx2._mm256_add_epi64(a, b)
}

#[inline(always)]
fn times(lanes: V3, a: __m256i, b: __m256i) -> __m256i {
    lanes.avx2._mm256_mul_epu32(a, b)
}

/// 19 times words of more than 32 bits.
#[inline(always)]
fn nineteen_times(lanes: V3, a: __m256i) -> __m256i {
    let sixteen = lanes.avx2._mm256_slli_epi64::<4>(a);
    plus(lanes, plus(lanes, sixteen, plus(lanes, a, a)), a)
}

#[inline(always)]
fn carry_of<const AT: usize>(lanes: V3, limb: __m256i) -> __m256i {
    if AT.is_multiple_of(2) {
        lanes.avx2._mm256_srli_epi64::<26>(limb)
    } else {
        lanes.avx2._mm256_srli_epi64::<25>(limb)
    }
}

#[inline(always)]
fn low_of<const AT: usize>(lanes: V3, masks: [__m256i; 2], limb: __m256i) -> __m256i {
    lanes.avx2._mm256_and_si256(limb, masks[AT % 2])
}

/// The masks of wide and of narrow limbs. The compiler must not know them: it would conclude that
/// factors have no upper half, forget it where the code branches, and multiply all 64 bits.
#[inline(always)]
fn masks(lanes: V3) -> [__m256i; 2] {
    black_box([splat(lanes, WIDE), splat(lanes, NARROW)])
}

/// Two chains of carries side by side.
#[inline(always)]
fn carried(lanes: V3, mut limbs: Limbs) -> Limbs {
    let masks = masks(lanes);
    carry!(lanes masks limbs 0 1, 4 5, 1 2, 5 6, 2 3, 6 7, 3 4, 7 8, 4 5, 8 9);
    let over = carry_of::<9>(lanes, limbs[9]);
    limbs[9] = low_of::<9>(lanes, masks, limbs[9]);
    limbs[0] = plus(lanes, limbs[0], nineteen_times(lanes, over));
    carry!(lanes masks limbs 0 1);
    limbs
}

/// Carries one limb into the next and so on. Returns what is left over.
#[inline(always)]
fn chained(lanes: V3, mut limbs: Limbs) -> (Limbs, __m256i) {
    let masks = masks(lanes);
    carry!(lanes masks limbs 0 1, 1 2, 2 3, 3 4, 4 5, 5 6, 6 7, 7 8, 8 9);
    let over = carry_of::<9>(lanes, limbs[9]);
    limbs[9] = low_of::<9>(lanes, masks, limbs[9]);
    (limbs, over)
}

/// The only form below 2^255 - 19.
#[inline(always)]
fn canonical(lanes: V3, limbs: Limbs) -> Limbs {
    let (mut limbs, over) = chained(lanes, limbs);
    limbs[0] = plus(lanes, limbs[0], nineteen_times(lanes, over));
    let (mut limbs, over) = chained(lanes, limbs);
    limbs[0] = plus(lanes, limbs[0], nineteen_times(lanes, over));
    let mut above = limbs;
    above[0] = plus(lanes, above[0], splat(lanes, 19));
    let (_, over) = chained(lanes, above);
    limbs[0] = plus(lanes, limbs[0], nineteen_times(lanes, over));
    chained(lanes, limbs).0
}

/// The two halves of limbs of 51 bits become two limbs, and back.
const SPLIT: u32 = 26;

/// Adds limb `I` of `a` times each limb of `b`. Two odd limbs count twice, as 25.5 bits twice are
/// 51, and what is 2^255 or more counts 19 times: `twice` is 2 a, `wrapped` is 19 b.
#[inline(always)]
fn add_row<const I: usize>(
    lanes: V3,
    sums: &mut Limbs,
    [a, twice]: [__m256i; 2],
    [b, wrapped]: [&Limbs; 2],
) {
    macro_rules! columns {
        ($($j:literal)*) => {$({
            let a = if I % 2 == 1 && $j % 2 == 1 { twice } else { a };
            let b = if I + $j >= 10 { wrapped[$j] } else { b[$j] };
            sums[(I + $j) % 10] = plus(lanes, sums[(I + $j) % 10], times(lanes, a, b));
        })*};
    }
    columns!(0 1 2 3 4 5 6 7 8 9);
}

/// As [`add_row`] for a square: limb `I` times itself, and twice the limbs after it.
#[inline(always)]
fn add_half_row<const I: usize>(lanes: V3, sums: &mut Limbs, a: &Limbs, wrapped: &Limbs) {
    let once = a[I];
    let twice = plus(lanes, once, once);
    let four_times = plus(lanes, twice, twice);
    macro_rules! columns {
        ($($j:literal)*) => {$(
            if $j >= I {
                let left = match (I == $j, I % 2 == 1 && $j % 2 == 1) {
                    (true, false) => once,
                    (true, true) | (false, false) => twice,
                    (false, true) => four_times,
                };
                let right = if I + $j >= 10 { wrapped[$j] } else { a[$j] };
                sums[(I + $j) % 10] = plus(lanes, sums[(I + $j) % 10], times(lanes, left, right));
            }
        )*};
    }
    columns!(0 1 2 3 4 5 6 7 8 9);
}

#[inline(always)]
fn nineteen_times_each(lanes: V3, limbs: &Limbs) -> Limbs {
    let nineteen = splat(lanes, 19);
    let mut wrapped = *limbs;
    for at in 0..10 {
        wrapped[at] = times(lanes, limbs[at], nineteen);
    }
    wrapped
}

struct On<W>(V3, W);

impl<W: Work> NullaryFnOnce for On<W> {
    type Output = W::Output;

    #[inline(always)]
    fn call(self) -> W::Output {
        self.1.with(self.0)
    }
}

impl Lanes for V3 {
    type Product = Limbs;
    type Factor = Limbs;
    type Mask = __m256i;

    const WIDTH: usize = 4;

    #[inline(always)]
    fn run<W: Work>(self, work: W) -> W::Output {
        self.vectorize(On(self, work))
    }

    #[inline(always)]
    fn load(self, points: &[Point; WIDEST]) -> Limbs {
        let mut columns = [[0; 4]; 10];
        for (lane, point) in points[..4].iter().enumerate() {
            for (pair, limb) in columns.as_chunks_mut::<2>().0.iter_mut().zip(limbs(point)) {
                pair[0][lane] = limb & WIDE.cast_unsigned();
                pair[1][lane] = limb >> SPLIT;
            }
        }
        let mut limbs = [splat(self, 0); 10];
        for (limb, column) in limbs.iter_mut().zip(columns) {
            *limb = cast(column);
        }
        limbs
    }

    #[inline(always)]
    fn store(self, value: Limbs, points: &mut [Point; WIDEST]) {
        let mut columns = [[0u64; 4]; 10];
        for (column, limb) in columns.iter_mut().zip(canonical(self, value)) {
            *column = cast(limb);
        }
        for (lane, out) in points[..4].iter_mut().enumerate() {
            let mut limbs = [0; 5];
            for (limb, pair) in limbs.iter_mut().zip(columns.as_chunks::<2>().0) {
                *limb = pair[0][lane] | pair[1][lane] << SPLIT;
            }
            *out = point(limbs);
        }
    }

    #[inline(always)]
    fn mul(self, a: Limbs, b: Limbs) -> Limbs {
        let wrapped = nineteen_times_each(self, &b);
        let mut sums = [splat(self, 0); 10];
        macro_rules! rows {
            ($($i:literal)*) => {$(
                let twice = plus(self, a[$i], a[$i]);
                add_row::<$i>(self, &mut sums, [a[$i], twice], [&b, &wrapped]);
            )*};
        }
        rows!(0 1 2 3 4 5 6 7 8 9);
        carried(self, sums)
    }

    #[inline(always)]
    fn square(self, a: Limbs) -> Limbs {
        let wrapped = nineteen_times_each(self, &a);
        let mut sums = [splat(self, 0); 10];
        macro_rules! rows {
            ($($i:literal)*) => {$(add_half_row::<$i>(self, &mut sums, &a, &wrapped);)*};
        }
        rows!(0 1 2 3 4 5 6 7 8 9);
        carried(self, sums)
    }

    #[inline(always)]
    fn add(self, a: Limbs, b: Limbs) -> Limbs {
        let mut sums = a;
        for at in 0..10 {
            sums[at] = plus(self, a[at], b[at]);
        }
        sums
    }

    #[inline(always)]
    fn sub(self, a: Limbs, b: Limbs) -> Limbs {
        // Twice the prime keeps every limb from falling below zero.
        const TWICE: [i64; 2] = [2 * WIDE, 2 * NARROW];
        let mut sums = a;
        for at in 0..10 {
            let twice = if at == 0 { TWICE[0] - 36 } else { TWICE[at % 2] };
            let above = plus(self, a[at], splat(self, twice));
            sums[at] = self.avx2._mm256_sub_epi64(above, b[at]);
        }
        sums
    }

    #[inline(always)]
    fn add_scaled(self, a: Limbs, b: Limbs) -> Limbs {
        let scale = splat(self, 121_665);
        let mut sums = a;
        for at in 0..10 {
            sums[at] = plus(self, a[at], times(self, b[at], scale));
        }
        carried(self, sums)
    }

    #[inline(always)]
    fn factor(self, a: Limbs) -> Limbs {
        a
    }

    #[inline(always)]
    fn product(self, a: Limbs) -> Limbs {
        carried(self, a)
    }

    #[inline(always)]
    fn mask(self, bit: u8) -> __m256i {
        // Without the barrier, the compiler would be free to make branches of it.
        splat(self, -i64::from(black_box(bit)))
    }

    #[inline(always)]
    fn zero(self, a: Limbs) -> __m256i {
        let mut any = splat(self, 0);
        for limb in canonical(self, a) {
            any = self.avx2._mm256_or_si256(any, limb);
        }
        self.avx2._mm256_cmpeq_epi64(any, splat(self, 0))
    }

    #[inline(always)]
    fn odd(self, a: Limbs) -> __m256i {
        let one = splat(self, 1);
        let low = self.avx2._mm256_and_si256(canonical(self, a)[0], one);
        self.avx2._mm256_cmpeq_epi64(low, one)
    }

    #[inline(always)]
    fn select(self, mask: __m256i, yes: Limbs, no: Limbs) -> Limbs {
        let mut chosen = no;
        for at in 0..10 {
            chosen[at] = self.avx2._mm256_blendv_epi8(no[at], yes[at], mask);
        }
        chosen
    }

    #[inline(always)]
    fn select_factor(self, mask: __m256i, yes: Limbs, no: Limbs) -> Limbs {
        self.select(mask, yes, no)
    }
}
