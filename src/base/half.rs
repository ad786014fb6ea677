//! Numbers of 16 bits, widened: every one of them is an `f32`.

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
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
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
}
