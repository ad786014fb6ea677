//! Elementary functions without branches, so that loops over them vectorise.
//!
//! All rest on `e^r - 1` for `|r| <= ln 2 / 2`: `x = n ln 2 + r` with an integer `n` (Cody and Waite's reduction,
//! `ln 2` in two parts of which the first has few bits, so that `x - n hi` is exact), and
//! `e^r - 1 = r + r^2 q(r)`, where the polynomial `q` minimises the greatest error of `r^2 q(r)` (Remez exchange).
//! A NaN argument gives NaN: it fails every comparison, so no clamp masks it.

use super::Simd;

/// `e^x`: correct in the subnormal range, 0 below it, infinite above the finite range.
///
/// Error at most 1.05 ULP (f32, all arguments; f64, a grid).
#[inline(always)]
pub(crate) fn exp<F: Simd>(x: F) -> F {
    x.exponential()
}

/// The hyperbolic tangent, as `-m / (m + 2)` with `m = e^(-2|x|) - 1`, which keeps its relative accuracy near 0.
///
/// Error at most 2.5 ULP (f32, all arguments; f64, a grid).
#[inline(always)]
pub(crate) fn tanh<F: Simd>(x: F) -> F {
    x.hyperbolic_tangent()
}

/// The logistic function `1 / (1 + e^-x)`, as `e^min(x, 0) / (1 + e^-|x|)`: where `e^-x` would overflow, it is tiny
/// as it should be.
///
/// Error at most 2.5 ULP (f32, all arguments; f64, a grid).
#[inline(always)]
pub(crate) fn sigmoid<F: Simd>(x: F) -> F {
    x.logistic()
}

/// [`tanh`], as a fraction whose denominator is between 1 and 2: several of them can share one division.
#[inline(always)]
pub(crate) fn tanh_fraction<F: Simd>(x: F) -> (F, F) {
    x.hyperbolic_tangent_fraction()
}

/// [`sigmoid`], as a fraction whose denominator is between 1 and 2.
#[inline(always)]
pub(crate) fn sigmoid_fraction<F: Simd>(x: F) -> (F, F) {
    x.logistic_fraction()
}

/// Two quotients of such fractions for one division, which takes as long as a dozen products.
///
/// Error of the division at most 3 ULP. A NaN in one makes both NaN.
#[inline(always)]
pub(crate) fn quotients2<F: num_traits::Float>([(n0, d0), (n1, d1)]: [(F, F); 2]) -> [F; 2] {
    let inverse = (d0 * d1).recip();
    [n0 * (d1 * inverse), n1 * (d0 * inverse)]
}

/// Three quotients of such fractions for one division.
///
/// Error of the division at most 4 ULP. A NaN in one makes all NaN.
#[inline(always)]
pub(crate) fn quotients3<F: num_traits::Float>([(n0, d0), (n1, d1), (n2, d2)]: [(F, F); 3]) -> [F; 3] {
    let d01 = d0 * d1;
    let inverse = (d01 * d2).recip();
    let inverse01 = d2 * inverse;
    [n0 * (d1 * inverse01), n1 * (d0 * inverse01), n2 * (d01 * inverse)]
}

/// The error function `2/sqrt(π) ∫ e^(-t²) dt` from 0 to x. Near 0 as `x + x p(x²)`, elsewhere as `1 - e^(-|x| - |x| s(|x|))`,
/// with the sign of x, where `|x| + |x| s(|x|)` is `-ln erfc(|x|)`: no division. The polynomials `p` and `s` minimise the
/// greatest relative error of the result (Remez exchange, in 40 digits, with the weights `x / erf(x)` and
/// `erfc(x) / erf(x)`). The form is that of N. Juffa's `erff`.
///
/// Error at most 1.1 ULP (f32, every 9973rd argument; `within_bounds_all_f32` tries all), 0.8 ULP (f64, a grid).
#[inline(always)]
pub(crate) fn erf<F: Simd>(x: F) -> F {
    x.error_function()
}

/// Σ f(k) for all k below `count`, in partial sums that the compiler may keep in vectors: enough of them for the sums
/// not to wait for each other.
#[inline(always)]
pub(crate) fn sum<T: Copy + num_traits::Zero + std::ops::AddAssign>(count: usize, f: impl Fn(usize) -> T) -> T {
    const WIDE: usize = 32;
    const NARROW: usize = 8;
    let whole = (count - count % WIDE, count - count % NARROW);
    let mut sums = [T::zero(); WIDE];
    for start in (0..whole.0).step_by(WIDE) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    let (narrow, wide) = sums.split_at_mut(NARROW);
    for more in wide.chunks_exact(NARROW) {
        for (sum, &more) in narrow.iter_mut().zip(more) {
            *sum += more;
        }
    }
    for start in (whole.0..whole.1).step_by(NARROW) {
        for (lane, sum) in narrow.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    let mut total = T::zero();
    (whole.1..count).for_each(|k| total += f(k));
    narrow.iter().for_each(|&sum| total += sum);
    total
}

/// Σ f of the elements at each place of slices as long as the first, added up in the order of [`sum`]: the compiler sees that
/// the places are within them, and uses vectors however many there are.
#[inline(always)]
pub(crate) fn sum_over<T, const N: usize>(slices: [&[T]; N], f: impl Fn([T; N]) -> T) -> T
where
    T: Copy + num_traits::Zero + std::ops::AddAssign,
{
    const WIDE: usize = 32;
    const NARROW: usize = 8;
    let count = slices[0].len();
    let whole = (count - count % WIDE, count - count % NARROW);
    let mut sums = [T::zero(); WIDE];
    for start in (0..whole.0).step_by(WIDE) {
        let parts = slices.map(|slice| slice[start..].first_chunk::<WIDE>().expect("slices of one length"));
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(parts.map(|part| part[lane]));
        }
    }
    let (narrow, wide) = sums.split_at_mut(NARROW);
    for more in wide.chunks_exact(NARROW) {
        for (sum, &more) in narrow.iter_mut().zip(more) {
            *sum += more;
        }
    }
    for start in (whole.0..whole.1).step_by(NARROW) {
        let parts = slices.map(|slice| slice[start..].first_chunk::<NARROW>().expect("slices of one length"));
        for (lane, sum) in narrow.iter_mut().enumerate() {
            *sum += f(parts.map(|part| part[lane]));
        }
    }
    let mut total = T::zero();
    (whole.1..count).for_each(|k| total += f(slices.map(|slice| slice[k])));
    narrow.iter().for_each(|&sum| total += sum);
    total
}

/// `a b + c`, rounded once on architectures that mostly have an instruction for it; elsewhere that would be a slow
/// call.
macro_rules! fused {
    ($a:expr, $b:expr, $c:expr) => {
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { $a.mul_add($b, $c) } else { $a * $b + $c }
    };
}

macro_rules! elementary {
    (
        $float:ident, $int:ident, $uint:ident,
        ln2: $ln2_high:literal + $ln2_low:literal,
        exp: $exp_zero:literal .. $exp_infinite:literal,
        tanh: .. $tanh_one:literal,
        q: [$($q:literal),+ $(,)?],
        erf: .. $erf_far:literal .. $erf_one:literal,
        near: [$($near:literal),+ $(,)?],
        far: [$($far:literal),+ $(,)?],
    ) => {
        pub(super) mod $float {
            const LOG2_E: $float = std::$float::consts::LOG2_E;
            const LN2_HIGH: $float = $ln2_high;
            const LN2_LOW: $float = $ln2_low;
            const MANTISSA_BITS: u32 = $float::MANTISSA_DIGITS - 1;
            const EXPONENT_BIAS: $int = $float::MAX_EXP as $int - 1;

            /// Adding it rounds to an integer, found in the low bits of the sum.
            const ROUND: $float = (3_u64 << (MANTISSA_BITS - 1)) as $float;

            /// The coefficients of `q`, ascending.
            const Q: [$float; [$($q),+].len()] = [$($q),+];

            /// The coefficients of `p` and `-s`, ascending.
            const ERF_NEAR: [$float; [$($near),+].len()] = [$($near),+];
            const ERF_FAR: [$float; [$($far),+].len()] = [$($far),+];

            /// `Σ c_k x^k`
            #[inline(always)]
            fn polynomial<const N: usize>(coefficients: [$float; N], x: $float) -> $float {
                let mut sum = coefficients[N - 1];
                for &coefficient in coefficients.iter().rev().skip(1) {
                    sum = fused!(sum, x, coefficient);
                }
                sum
            }

            /// The integer `n` and `r` with `x = n ln 2 + r`, `|r| <= ln 2 / 2`.
            #[inline(always)]
            fn reduce(x: $float) -> ($int, $float) {
                let rounded = fused!(x, LOG2_E, ROUND);
                let n = (rounded.to_bits() as $int).wrapping_sub(ROUND.to_bits() as $int);
                let whole = rounded - ROUND;
                let r = fused!(-whole, LN2_HIGH, x);
                (n, fused!(-whole, LN2_LOW, r))
            }

            /// `e^r - 1` for `|r| <= ln 2 / 2`.
            #[inline(always)]
            fn exp_m1_reduced(r: $float) -> $float {
                fused!(polynomial(Q, r), r * r, r)
            }

            /// `2^n`, for the exponents of normal numbers.
            #[inline(always)]
            fn power_of_two(n: $int) -> $float {
                $float::from_bits((n.wrapping_add(EXPONENT_BIAS) as $uint) << MANTISSA_BITS)
            }

            #[inline(always)]
            pub(in crate::kernels) fn exp(x: $float) -> $float {
                let x = if x > $exp_infinite { $exp_infinite } else { x };
                let x = if x < $exp_zero { $exp_zero } else { x };
                let (n, r) = reduce(x);
                // In two steps, since 2^n itself may be infinite or subnormal; only the last product can round.
                let half = n >> 1;
                (1.0 + exp_m1_reduced(r)) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
            }

            #[inline(always)]
            pub(in crate::kernels) fn tanh(x: $float) -> $float {
                let (numerator, denominator) = tanh_fraction(x);
                numerator / denominator
            }

            #[inline(always)]
            pub(in crate::kernels) fn tanh_fraction(x: $float) -> ($float, $float) {
                let magnitude = x.abs();
                let magnitude = if magnitude > $tanh_one { $tanh_one } else { magnitude };
                let (n, r) = reduce(-2.0 * magnitude);
                let scale = power_of_two(n);
                let m = fused!(scale, exp_m1_reduced(r), scale - 1.0);
                ((-m).copysign(x), m + 2.0)
            }

            #[inline(always)]
            pub(in crate::kernels) fn sigmoid(x: $float) -> $float {
                let (numerator, denominator) = sigmoid_fraction(x);
                numerator / denominator
            }

            #[inline(always)]
            pub(in crate::kernels) fn sigmoid_fraction(x: $float) -> ($float, $float) {
                let decay = exp(-x.abs());
                let numerator = if x < 0.0 { decay } else { 1.0 };
                (numerator, 1.0 + decay)
            }

            #[inline(always)]
            pub(in crate::kernels) fn erf(x: $float) -> $float {
                let near = fused!(polynomial(ERF_NEAR, x * x), x, x);
                let magnitude = x.abs();
                let magnitude = if magnitude > $erf_one { $erf_one } else { magnitude };
                let (n, r) = reduce(fused!(polynomial(ERF_FAR, magnitude), magnitude, -magnitude));
                let scale = power_of_two(n);
                let far = (1.0 - fused!(scale, exp_m1_reduced(r), scale)).copysign(x);
                if magnitude < $erf_far { near } else { far }
            }
        }
    };
}

elementary! {
    f32, i32, u32,
    ln2: 0.693_145_75 + 1.428_606_8e-6,
    exp: -104.0 .. 89.0,
    tanh: .. 10.0,
    q: [0.5, 0.166_665_18, 0.041_666_206, 0.008_368_89, 0.001_395_049_4],
    erf: .. 0.9375 .. 4.0,
    near: [
        0.128_379_15,
        -0.376_124_68,
        0.112_815_53,
        -0.026_757_045,
        0.004_979_135,
        -5.919_413e-4,
    ],
    far: [
        -0.128_658_49,
        -0.635_110_9,
        -0.106_303_44,
        0.023_819_173,
        -0.003_669_363_2,
        3.293_988_4e-4,
        -1.188_822_2e-5,
    ],
}

elementary! {
    f64, i64, u64,
    ln2: 0.693_147_180_559_890_3 + 5.497_923_018_708_371e-14,
    exp: -746.0 .. 710.0,
    tanh: .. 20.0,
    q: [
        0.500_000_000_000_001_2,
        0.166_666_666_666_667,
        0.041_666_666_666_515_51,
        0.008_333_333_333_307_113,
        0.001_388_888_894_699_35,
        0.000_198_412_699_176_299_37,
        2.480_148_996_381_258_6e-5,
        2.755_721_605_421_798_3e-6,
        2.763_127_336_219_52e-7,
        2.511_794_471_357_418e-8,
    ],
    erf: .. 1.0 .. 6.0,
    near: [
        0.128_379_167_095_512_56,
        -0.376_126_389_031_835_2,
        0.112_837_916_709_442,
        -0.026_866_170_643_113_415,
        0.005_223_977_606_130_842,
        -8.548_325_929_766_244e-4,
        1.205_529_358_693_695e-4,
        -1.492_471_243_953_481_4e-5,
        1.644_713_269_978_662_1e-6,
        -1.620_631_875_296_920_8e-7,
        1.371_098_870_419_052_3e-8,
        -7.779_462_971_761_597e-10,
    ],
    far: [
        -0.128_379_217_591_701_12,
        -0.636_619_196_435_605_4,
        -0.102_775_701_329_715_97,
        0.019_138_900_214_108_443,
        1.843_770_248_447_661_4e-4,
        -0.001_652_135_103_800_817_9,
        5.294_075_353_260_756e-4,
        4.050_945_326_182_263_5e-5,
        -1.228_561_826_546_232_1e-4,
        7.117_240_286_345_707e-5,
        -2.705_596_093_179_606_3e-5,
        7.762_056_807_528_025e-6,
        -1.748_534_022_050_710_2e-6,
        3.118_507_565_003_941_6e-7,
        -4.368_179_870_749_402_5e-8,
        4.704_109_428_548_12e-9,
        -3.751_956_921_641_355e-10,
        2.080_017_524_703_933_4e-11,
        -7.115_849_590_088_356e-13,
        1.122_194_100_042_505_3e-14,
    ],
}
