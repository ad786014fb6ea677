//! Floating-point formats of 16 bits: every value is also an `f32`, and every `f32` rounds to a nearest value.

/// The value of an IEEE 754 half, `F16`: a sign, 5 bits of exponent, 10 of fraction.
pub fn from_f16(bits: u16) -> f32 {
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => (fraction as f32 / 16_777_216.0).to_bits(), // zero and subnormals, in steps of 2⁻²⁴
        0x1f => 0x7f80_0000 | fraction << 13,            // infinity, and NaN with its payload
        _ => (exponent + 127 - 15) << 23 | fraction << 13,
    };
    f32::from_bits(u32::from(bits & 0x8000) << 16 | magnitude)
}

/// The value of a bfloat16, `BF16`: the upper half of an `f32`.
#[inline(always)]
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bfloat16, with ties rounded to the one whose last bit is 0.
///
/// The relative error is at most 2⁻⁸, except below 2⁻¹²⁶, where the numbers lie 2⁻¹³³ apart. From 3.396 · 10³⁸ on, the result
/// is infinite. NaN stays NaN.
///
/// ```
/// use gradflow::author::{from_bf16, to_bf16};
///
/// assert_eq!(from_bf16(to_bf16(0.1)), 0.100_097_656_25);
/// assert_eq!(to_bf16(1.0 + 1.0 / 256.0), 0x3f80); // halfway from 1 to 1 + 1/128: to the even one
/// assert_eq!(to_bf16(1.0 + 3.0 / 256.0), 0x3f82);
/// ```
#[inline(always)]
pub fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // A NaN whose payload lies in the lower half would become infinite, or overflow.
    let quiet = bits >> 16 | 0x40;
    (if x.is_nan() { quiet } else { rounded }) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_the_value_that_its_fields_say() {
        for bits in 0..=u16::MAX {
            let (sign, exponent, fraction) =
                (if bits < 0x8000 { 1.0 } else { -1.0 }, i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
            let got = from_f16(bits);
            let expected = match exponent {
                0 => sign * fraction * 2_f64.powi(-24),
                31 if fraction == 0.0 => sign * f64::INFINITY,
                31 => {
                    assert!(got.is_nan(), "{bits:04x}");
                    continue;
                }
                _ => sign * (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
            };
            assert_eq!(f64::from(got).to_bits(), expected.to_bits(), "{bits:04x}");
        }
        assert_eq!([0x3c00, 0xc000, 0x7bff, 0x0001].map(from_f16), [1.0, -2.0, 65504.0, 5.960_464_5e-8]);
        assert_eq!([0x3f80, 0xc000, 0x7f7f, 0x0001].map(from_bf16), [1.0, -2.0, 3.389_531_4e38, 9.183_55e-41]);
        assert!(from_bf16(0x7fc0).is_nan() && from_bf16(0xff80) == f32::NEG_INFINITY);
    }

    #[test]
    fn the_nearest_bfloat16_is_nearer_than_its_neighbours() {
        for bits in 0..=u16::MAX {
            let exact = from_bf16(bits);
            assert!(to_bf16(exact) == bits || exact.is_nan() && from_bf16(to_bf16(exact)).is_nan(), "{bits:04x}");
            // The point halfway to the next number, and its two neighbours.
            let next = from_bf16(bits.wrapping_add(1));
            if !exact.is_finite() || !next.is_finite() || bits == 0x7fff {
                continue;
            }
            let middle = f32::from_bits(u32::from(bits) << 16 | 0x8000);
            assert_eq!(f64::from(middle), (f64::from(exact) + f64::from(next)) / 2.0);
            let even = if bits & 1 == 0 { bits } else { bits + 1 };
            assert_eq!(to_bf16(middle), even, "{bits:04x}");
            assert_eq!(to_bf16(f32::from_bits(middle.to_bits() - 1)), bits, "{bits:04x}");
            assert_eq!(to_bf16(f32::from_bits(middle.to_bits() + 1)), bits + 1, "{bits:04x}");
        }
        assert_eq!([f32::MAX, f32::INFINITY, f32::MIN].map(to_bf16), [0x7f80, 0x7f80, 0xff80]);
        for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
            assert!(from_bf16(to_bf16(nan)).is_nan(), "{nan:?}");
        }
    }
}
