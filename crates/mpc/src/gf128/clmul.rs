//! Products from the processor's carry-less multiplication.

/// Defines the functions of one unit, from those that the module has for vectors of `$width`
/// elements: `product` gives products in three parts, and `reduced` makes elements of them.
macro_rules! functions {
    ($token:ident, $width:literal) => {
        #[arcane]
        pub(in super::super) fn mul(token: $token, a: Gf128, b: Gf128) -> Gf128 {
            first(reduced(token, product(token, same(token, a), same(token, b))))
        }

        #[arcane]
        pub(in super::super) fn mul_each(token: $token, values: &mut [Gf128], by: Gf128) {
            let by = same(token, by);
            for values in values.chunks_mut($width) {
                let product = reduced(token, product(token, load(token, values), by));
                store(token, values, product);
            }
        }

        #[arcane]
        pub(in super::super) fn add_scaled(
            token: $token,
            out: &mut [Gf128],
            a: &[Gf128],
            by: Gf128,
        ) {
            let by = same(token, by);
            for (out, a) in out.chunks_mut($width).zip(a.chunks($width)) {
                let product = reduced(token, product(token, load(token, a), by));
                store(token, out, xor(token, load(token, out), product));
            }
        }

        #[arcane]
        pub(in super::super) fn add_products(
            token: $token,
            out: &mut [Gf128],
            a: &[Gf128],
            b: &[Gf128],
        ) {
            let factors = a.chunks($width).zip(b.chunks($width));
            for (out, (a, b)) in out.chunks_mut($width).zip(factors) {
                let product = product(token, load(token, a), load(token, b));
                let product = reduced(token, product);
                store(token, out, xor(token, load(token, out), product));
            }
        }

        #[arcane]
        pub(in super::super) fn dot(token: $token, a: &[Gf128], b: &[Gf128]) -> Gf128 {
            // Only the sum is reduced.
            let mut sum = [same(token, Gf128::ZERO); 3];
            for (a, b) in a.chunks($width).zip(b.chunks($width)) {
                let parts = product(token, load(token, a), load(token, b));
                for (sum, part) in sum.iter_mut().zip(parts) {
                    *sum = xor(token, *sum, part);
                }
            }
            let mut elements = [Gf128::ZERO; $width];
            let sum = reduced(token, sum);
            store(token, &mut elements, sum);
            elements.into_iter().fold(Gf128::ZERO, |sum, element| sum + element)
        }
    };
}

/// PCLMULQDQ.
pub(super) mod one {
    use std::arch::x86_64::__m128i;

    use archmage::prelude::*;
    use pulp::cast;

    use super::super::Gf128;

    functions!(X64CryptoToken, 1);

    #[rite]
    fn same(_: X64CryptoToken, element: Gf128) -> __m128i {
        cast(element.0)
    }

    fn first(vector: __m128i) -> Gf128 {
        Gf128(cast(vector))
    }

    #[rite]
    fn load(_: X64CryptoToken, elements: &[Gf128]) -> __m128i {
        cast(elements[0].0)
    }

    #[rite]
    fn store(_: X64CryptoToken, elements: &mut [Gf128], vector: __m128i) {
        elements[0] = Gf128(cast(vector));
    }

    #[rite]
    fn xor(_: X64CryptoToken, a: __m128i, b: __m128i) -> __m128i {
        _mm_xor_si128(a, b)
    }

    /// The coefficients of 1, x^64 and x^128.
    #[rite]
    fn product(_: X64CryptoToken, a: __m128i, b: __m128i) -> [__m128i; 3] {
        let crossed = _mm_clmulepi64_si128::<0x01>(a, b);
        [
            _mm_clmulepi64_si128::<0x00>(a, b),
            _mm_xor_si128(_mm_clmulepi64_si128::<0x10>(a, b), crossed),
            _mm_clmulepi64_si128::<0x11>(a, b),
        ]
    }

    /// Folds the highest word into the middle, then that into the lower half.
    #[rite]
    fn reduced(_: X64CryptoToken, [low, middle, high]: [__m128i; 3]) -> __m128i {
        let modulus = _mm_set_epi64x(0, 0x87);
        let low = _mm_xor_si128(low, _mm_slli_si128::<8>(middle));
        let high = _mm_xor_si128(high, _mm_srli_si128::<8>(middle));
        let fold = _mm_clmulepi64_si128::<0x01>(high, modulus);
        let low = _mm_xor_si128(low, _mm_slli_si128::<8>(fold));
        let high = _mm_xor_si128(high, _mm_srli_si128::<8>(fold));
        _mm_xor_si128(low, _mm_clmulepi64_si128::<0x00>(high, modulus))
    }
}

/// VPCLMULQDQ on vectors of 512 bits.
pub(super) mod four {
    use std::arch::x86_64::__m512i;

    use archmage::prelude::*;
    use pulp::cast;

    use super::super::Gf128;

    functions!(X64V4xToken, 4);

    #[rite]
    fn same(_: X64V4xToken, element: Gf128) -> __m512i {
        cast([element.0; 4])
    }

    fn first(vector: __m512i) -> Gf128 {
        let [first, ..]: [Gf128; 4] = cast(vector);
        first
    }

    /// Up to four elements, filled up with zeros.
    #[rite]
    fn load(_: X64V4xToken, elements: &[Gf128]) -> __m512i {
        if let Ok(elements) = <[Gf128; 4]>::try_from(elements) {
            return cast(elements);
        }
        let mut filled = [Gf128::ZERO; 4];
        filled[..elements.len()].copy_from_slice(elements);
        cast(filled)
    }

    #[rite]
    fn store(_: X64V4xToken, elements: &mut [Gf128], vector: __m512i) {
        let vector: [Gf128; 4] = cast(vector);
        elements.copy_from_slice(&vector[..elements.len()]);
    }

    #[rite]
    fn xor(_: X64V4xToken, a: __m512i, b: __m512i) -> __m512i {
        _mm512_xor_si512(a, b)
    }

    /// The coefficients of 1, x^64 and x^128.
    #[rite]
    fn product(_: X64V4xToken, a: __m512i, b: __m512i) -> [__m512i; 3] {
        let crossed = _mm512_clmulepi64_epi128::<0x01>(a, b);
        [
            _mm512_clmulepi64_epi128::<0x00>(a, b),
            _mm512_xor_si512(_mm512_clmulepi64_epi128::<0x10>(a, b), crossed),
            _mm512_clmulepi64_epi128::<0x11>(a, b),
        ]
    }

    /// Folds the highest word into the middle, then that into the lower half.
    #[rite]
    fn reduced(_: X64V4xToken, [low, middle, high]: [__m512i; 3]) -> __m512i {
        let modulus = _mm512_set_epi64(0, 0x87, 0, 0x87, 0, 0x87, 0, 0x87);
        let low = _mm512_xor_si512(low, _mm512_bslli_epi128::<8>(middle));
        let high = _mm512_xor_si512(high, _mm512_bsrli_epi128::<8>(middle));
        let fold = _mm512_clmulepi64_epi128::<0x01>(high, modulus);
        let low = _mm512_xor_si512(low, _mm512_bslli_epi128::<8>(fold));
        let high = _mm512_xor_si512(high, _mm512_bsrli_epi128::<8>(fold));
        _mm512_xor_si512(low, _mm512_clmulepi64_epi128::<0x00>(high, modulus))
    }
}
