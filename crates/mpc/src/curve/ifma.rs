//! Eight elements with AVX-512 IFMA: five limbs of 51 bits.
//!
//! The instructions multiply 52 bits by 52 and add the lower or the upper 52 bits of the result.
//! Limbs of factors are below 2^51 + 2^17, of products below 2^61: products are added first and
//! carried then.

use std::arch::x86_64::__m512i;
use std::hint::black_box;

use pulp::{NullaryFnOnce, cast};

use super::Point;
use super::lanes::{Lanes, WIDEST, Work};
use super::portable::{limbs, point};

pulp::simd_type! {
    /// A machine that has the instructions.
    pub(super) struct Ifma {
        avx2: "avx2",
        avx512f: "avx512f",
        avx512ifma: "avx512ifma",
    }
}

type Limbs = [__m512i; 5];

const BITS: u32 = 51;
const LOW: i64 = (1 << BITS) - 1;

/// Adds the lower halves of the products of these limbs to sums, each to that of its weight.
macro_rules! add_lower {
    ($lanes:ident $sums:ident $a:ident $b:ident: $($i:literal $j:literal),*) => {
        $($sums[$i + $j] = $lanes.lower($sums[$i + $j], $a[$i], $b[$j]);)*
    };
}

/// Adds the upper halves, which weigh twice as much as the sums say: 2^52 where limbs have 51 bits.
macro_rules! add_upper {
    ($lanes:ident $sums:ident $a:ident $b:ident: $($i:literal $j:literal),*) => {
        $($sums[$i + $j + 1] = $lanes.upper($sums[$i + $j + 1], $a[$i], $b[$j]);)*
    };
}

/// Doubles these sums.
macro_rules! doubled {
    ($lanes:ident $sums:ident $($at:literal)*) => {
        $($sums[$at] = $lanes.double($sums[$at]);)*
    };
}

impl Ifma {
    #[inline(always)]
    fn splat(self, value: i64) -> __m512i {
        self.avx512f._mm512_set1_epi64(value)
    }

    #[inline(always)]
    fn plus(self, a: __m512i, b: __m512i) -> __m512i {
        self.avx512f._mm512_add_epi64(a, b)
    }

    #[inline(always)]
    fn double(self, a: __m512i) -> __m512i {
        self.plus(a, a)
    }

    /// sum + the lower 52 bits of a b.
    #[inline(always)]
    fn lower(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        self.avx512ifma._mm512_madd52lo_epu64(sum, a, b)
    }

    /// sum + the upper 52 bits of a b.
    #[inline(always)]
    fn upper(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        self.avx512ifma._mm512_madd52hi_epu64(sum, a, b)
    }

    #[inline(always)]
    fn low(self, a: __m512i) -> __m512i {
        self.avx512f._mm512_and_si512(a, self.splat(LOW))
    }

    #[inline(always)]
    fn carry(self, a: __m512i) -> __m512i {
        self.avx512f._mm512_srli_epi64::<BITS>(a)
    }

    /// Carries each limb into the next, all at the same time.
    #[inline(always)]
    fn carried(self, [a, b, c, d, e]: Limbs) -> Limbs {
        [
            self.lower(self.low(a), self.carry(e), self.splat(19)),
            self.plus(self.low(b), self.carry(a)),
            self.plus(self.low(c), self.carry(b)),
            self.plus(self.low(d), self.carry(c)),
            self.plus(self.low(e), self.carry(d)),
        ]
    }

    /// Carries one limb into the next and so on; `first` is added to the first.
    #[inline(always)]
    fn chained(self, [a, b, c, d, e]: Limbs, first: __m512i) -> (Limbs, __m512i) {
        let a = self.plus(a, first);
        let b = self.plus(b, self.carry(a));
        let c = self.plus(c, self.carry(b));
        let d = self.plus(d, self.carry(c));
        let e = self.plus(e, self.carry(d));
        let limbs = [self.low(a), self.low(b), self.low(c), self.low(d), self.low(e)];
        (limbs, self.carry(e))
    }

    /// The only form below 2^255 - 19.
    #[inline(always)]
    fn canonical(self, limbs: &Limbs) -> Limbs {
        let (zero, nineteen) = (self.splat(0), self.splat(19));
        // Afterwards it is below 2^255 + 2^15, then below 2^255 + 19, and limbs are small.
        let (limbs, over) = self.chained(*limbs, zero);
        let (limbs, over) = self.chained(limbs, self.lower(zero, over, nineteen));
        let [a, b, c, d, e] = limbs;
        let limbs = [self.lower(a, over, nineteen), b, c, d, e];
        let (_, over) = self.chained(limbs, nineteen);
        let (limbs, _) = self.chained(limbs, self.lower(zero, over, nineteen));
        limbs
    }

    /// Adds what weighs 2^255 or more, 19 times, to what weighs less; of the latter there are upper
    /// halves only, which weigh 2^52 where limbs have 51 bits, so they count twice.
    #[inline(always)]
    fn fold(self, sums: &mut [__m512i; 10]) {
        // 2 (sum + 9 over) + over.
        macro_rules! fold {
            ($($at:literal)*) => {$({
                let over = sums[$at + 5];
                let eight = self.avx512f._mm512_slli_epi64::<3>(over);
                let twice = self.double(self.plus(sums[$at], self.plus(eight, over)));
                sums[$at] = self.plus(twice, over);
            })*};
        }
        fold!(0 1 2 3 4);
    }
}

struct On<W>(Ifma, W);

impl<W: Work> NullaryFnOnce for On<W> {
    type Output = W::Output;

    #[inline(always)]
    fn call(self) -> W::Output {
        self.1.with(self.0)
    }
}

impl Lanes for Ifma {
    type Product = Limbs;
    type Factor = Limbs;
    type Mask = u8;

    const WIDTH: usize = 8;

    #[inline(always)]
    fn run<W: Work>(self, work: W) -> W::Output {
        self.vectorize(On(self, work))
    }

    #[inline(always)]
    fn load(self, points: &[Point; WIDEST]) -> Limbs {
        let mut columns = [[0; WIDEST]; 5];
        for (lane, point) in points.iter().enumerate() {
            for (column, limb) in columns.iter_mut().zip(limbs(point)) {
                column[lane] = limb;
            }
        }
        let [a, b, c, d, e] = columns;
        [cast(a), cast(b), cast(c), cast(d), cast(e)]
    }

    #[inline(always)]
    fn store(self, value: Limbs, points: &mut [Point; WIDEST]) {
        let [a, b, c, d, e] = self.canonical(&value);
        let columns: [[u64; WIDEST]; 5] = [cast(a), cast(b), cast(c), cast(d), cast(e)];
        let [a, b, c, d, e] = &columns;
        for (lane, out) in points.iter_mut().enumerate() {
            *out = point([a[lane], b[lane], c[lane], d[lane], e[lane]]);
        }
    }

    #[inline(always)]
    fn mul(self, a: Limbs, b: Limbs) -> Limbs {
        let mut sums = [self.splat(0); 10];
        add_upper!(self sums a b: 0 0, 0 1, 0 2, 0 3, 0 4, 1 0, 1 1, 1 2, 1 3, 1 4);
        add_upper!(self sums a b: 2 0, 2 1, 2 2, 2 3, 2 4, 3 0, 3 1, 3 2, 3 3, 3 4);
        add_upper!(self sums a b: 4 0, 4 1, 4 2, 4 3, 4 4);
        doubled!(self sums 5 6 7 8 9);
        add_lower!(self sums a b: 1 4, 2 3, 3 2, 4 1, 2 4, 3 3, 4 2, 3 4, 4 3, 4 4);
        self.fold(&mut sums);
        add_lower!(self sums a b: 0 0, 0 1, 1 0, 0 2, 1 1, 2 0, 0 3, 1 2, 2 1, 3 0);
        add_lower!(self sums a b: 0 4, 1 3, 2 2, 3 1, 4 0);
        let [a, b, c, d, e, ..] = sums;
        [a, b, c, d, e]
    }

    #[inline(always)]
    fn square(self, a: Limbs) -> Limbs {
        // Two different limbs are multiplied once and count twice.
        let mut sums = [self.splat(0); 10];
        add_upper!(self sums a a: 0 1, 0 2, 0 3, 0 4, 1 2, 1 3, 1 4, 2 3, 2 4, 3 4);
        doubled!(self sums 2 3 4 5 6 7 8);
        add_upper!(self sums a a: 0 0, 1 1, 2 2, 3 3, 4 4);
        // Here and in `fold`, what is doubled are upper halves and different limbs' lower halves.
        add_lower!(self sums a a: 0 1, 0 2, 0 3, 0 4, 1 2, 1 3, 1 4, 2 3, 2 4, 3 4);
        doubled!(self sums 5 6 7 8 9);
        add_lower!(self sums a a: 3 3, 4 4);
        self.fold(&mut sums);
        add_lower!(self sums a a: 0 0, 1 1, 2 2);
        let [a, b, c, d, e, ..] = sums;
        [a, b, c, d, e]
    }

    #[inline(always)]
    fn add(self, a: Limbs, b: Limbs) -> Limbs {
        let mut sums = a;
        for at in 0..5 {
            sums[at] = self.plus(a[at], b[at]);
        }
        self.carried(sums)
    }

    #[inline(always)]
    fn sub(self, a: Limbs, b: Limbs) -> Limbs {
        // A multiple of the prime, with limbs of about 2^61, keeps every limb from falling below
        // zero.
        const MULTIPLE: [i64; 5] = [(LOW - 18) << 10, LOW << 10, LOW << 10, LOW << 10, LOW << 10];
        let mut sums = a;
        for at in 0..5 {
            let above = self.plus(a[at], self.splat(MULTIPLE[at]));
            sums[at] = self.avx512f._mm512_sub_epi64(above, b[at]);
        }
        self.carried(sums)
    }

    #[inline(always)]
    fn add_scaled(self, a: Limbs, b: Limbs) -> Limbs {
        let scale = self.splat(121_665);
        let mut upper = a;
        let mut sums = a;
        for at in 0..5 {
            upper[at] = self.double(self.upper(self.splat(0), b[at], scale));
        }
        let [u0, u1, u2, u3, u4] = upper;
        let shifted = [self.lower(self.splat(0), u4, self.splat(19)), u0, u1, u2, u3];
        for at in 0..5 {
            sums[at] = self.lower(self.plus(sums[at], shifted[at]), b[at], scale);
        }
        self.carried(sums)
    }

    #[inline(always)]
    fn factor(self, a: Limbs) -> Limbs {
        self.carried(a)
    }

    #[inline(always)]
    fn product(self, a: Limbs) -> Limbs {
        a
    }

    #[inline(always)]
    fn mask(self, bit: u8) -> u8 {
        // Without the barrier, the compiler would be free to make branches of it.
        black_box(0u8.wrapping_sub(bit))
    }

    #[inline(always)]
    fn zero(self, a: Limbs) -> u8 {
        let [a, b, c, d, e] = self.canonical(&a);
        let unit = self.avx512f;
        let (ab, cd) = (unit._mm512_or_si512(a, b), unit._mm512_or_si512(c, d));
        let any = unit._mm512_or_si512(unit._mm512_or_si512(ab, cd), e);
        unit._mm512_cmpeq_epi64_mask(any, self.splat(0))
    }

    #[inline(always)]
    fn odd(self, a: Limbs) -> u8 {
        self.avx512f._mm512_test_epi64_mask(self.canonical(&a)[0], self.splat(1))
    }

    #[inline(always)]
    fn select(self, mask: u8, yes: Limbs, no: Limbs) -> Limbs {
        let mut chosen = no;
        for at in 0..5 {
            chosen[at] = self.avx512f._mm512_mask_blend_epi64(mask, no[at], yes[at]);
        }
        chosen
    }

    #[inline(always)]
    fn select_factor(self, mask: u8, yes: Limbs, no: Limbs) -> Limbs {
        self.select(mask, yes, no)
    }
}
