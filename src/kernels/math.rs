//! Elementary functions without branches, so that loops over them vectorise.
//!
//! All are based on `e^r - 1` for `|r| <= ln 2 / 2`: `x = n ln 2 + r` with an integer `n` (Cody and Waite's reduction,
//! with `ln 2` in two parts, the first of which has few bits, so that `x - n hi` is exact), and
//! `e^r - 1 = r + r^2 q(r)`, where the polynomial `q` minimises the maximum error of `r^2 q(r)` (Remez exchange).
//! A NaN argument gives NaN: it fails every comparison, so no clamp masks it.

/// The elementary functions of an element type.
#[doc(hidden)]
pub trait Elementary: Copy {
    /// See [`exp`].
    fn exponential(self) -> Self;

    /// See [`tanh`].
    fn hyperbolic_tangent(self) -> Self;

    /// See [`sigmoid`].
    fn logistic(self) -> Self;

    /// See [`tanh_fraction`].
    fn hyperbolic_tangent_fraction(self) -> (Self, Self);

    /// See [`sigmoid_fraction`].
    fn logistic_fraction(self) -> (Self, Self);

    /// See [`Fraction::sigmoid_or_tanh`].
    fn gate_fraction(self, times: Self) -> (Self, Self);

    /// See [`normal_cdf`].
    fn normal_distribution(self) -> Self;

    /// See [`log_sigmoid`].
    fn logarithm_of_logistic(self) -> Self;
}

/// `e^x`: correct in the subnormal range, 0 below it, infinite above the finite range.
///
/// Error at most 1.05 ULP (f32, all arguments; f64, a grid).
#[inline(always)]
pub(crate) fn exp<F: Elementary>(x: F) -> F {
    x.exponential()
}

/// The hyperbolic tangent, as `-m / (m + 2)` with `m = e^(-2|x|) - 1`, which keeps its relative accuracy near 0.
///
/// Error at most 2.5 ULP (f32, all arguments; f64, a grid).
#[inline(always)]
pub(crate) fn tanh<F: Elementary>(x: F) -> F {
    x.hyperbolic_tangent()
}

/// The logistic function `1 / (1 + e^-x)`, as `e^min(x, 0) / (1 + e^-|x|)`: if `e^-x` would overflow, the result is tiny,
/// as it should be.
///
/// Error at most 2.5 ULP (f32, all arguments; f64, a grid).
#[inline(always)]
pub(crate) fn sigmoid<F: Elementary>(x: F) -> F {
    x.logistic()
}

/// The logarithm of the logistic function, `ln σ(x) = min(x, 0) - ln(1 + u)` with `u = e^-|x|`. `ln(1 + u)` is `2 artanh(s)`
/// with `s = u / (2 + u)`, which is at most 1/3: the series is short, and a small u keeps its relative accuracy.
///
/// Error at most 4 ULP (f32, all arguments; f64, a grid).
#[inline(always)]
pub(crate) fn log_sigmoid<F: Elementary>(x: F) -> F {
    x.logarithm_of_logistic()
}

/// `max(x, 0)`, without `max`, which would turn NaN into 0.
#[inline(always)]
pub(crate) fn relu<F: num_traits::Float>(x: F) -> F {
    if x < F::zero() { F::zero() } else { x }
}

/// [`tanh`], as a fraction whose denominator is between 1 and 2: several of them can share one division.
#[inline(always)]
pub(crate) fn tanh_fraction<F: Elementary>(x: F) -> (F, F) {
    x.hyperbolic_tangent_fraction()
}

/// [`sigmoid`], as a fraction whose denominator is between 1 and 2.
#[inline(always)]
pub(crate) fn sigmoid_fraction<F: Elementary>(x: F) -> (F, F) {
    x.logistic_fraction()
}

/// The quotients of fractions whose denominators are between 1 and 2, with a single division, which takes as long as a dozen
/// products: each is its numerator times the other denominators, divided by the product of all denominators.
///
/// Error of the division at most 3 ULP for two fractions, 4 for three. A NaN in one makes all NaN.
#[inline(always)]
pub(crate) fn share_division<F: num_traits::Float, const N: usize>(fractions: [(F, F); N]) -> [F; N] {
    let mut before = [F::one(); N]; // the product of the denominators before each
    for j in 1..N {
        before[j] = before[j - 1] * fractions[j - 1].1;
    }
    let mut inverse = (before[N - 1] * fractions[N - 1].1).recip(); // of the denominators up to each
    let mut quotients = [F::zero(); N];
    for j in (0..N).rev() {
        let (numerator, denominator) = fractions[j];
        quotients[j] = numerator * (before[j] * inverse);
        inverse = denominator * inverse;
    }
    quotients
}

/// A quotient that is not computed yet, so that products of fractions need only one division at the end.
#[derive(Clone, Copy)]
pub(crate) struct Fraction<F> {
    pub numerator: F,
    pub denominator: F,
}

impl<F: Elementary + num_traits::Float> Fraction<F> {
    /// [`sigmoid`], with a denominator between 1 and 2.
    #[inline(always)]
    pub(crate) fn sigmoid(x: F) -> Self {
        Self::sigmoid_or_tanh(x, F::one())
    }

    /// [`tanh`], with a denominator between 1 and 2.
    #[inline(always)]
    pub(crate) fn tanh(x: F) -> Self {
        Self::sigmoid_or_tanh(x, F::one() + F::one())
    }

    /// The logistic function if `times` is 1, the hyperbolic tangent if it is 2: lanes of one vector can differ.
    ///
    /// Both are computed from `e^-y` with `y = times |x|`. The chain of dependent operations is as short as possible, because a
    /// step of a single sequence takes as long as its latency. It differs from [`sigmoid_fraction`] in the order of the
    /// polynomial's last sums, and in the low part of `ln 2`, which is multiplied into `2^n` in parallel.
    ///
    /// Values of the logistic function below `e^-40` (f64: `e^-300`) become `e^-40`, so that products of gates are normal numbers,
    /// with which the machine is fast. Elsewhere the error of the value is at most 2.5 ULP (f32, all arguments; f64, a grid).
    #[inline(always)]
    pub(crate) fn sigmoid_or_tanh(x: F, times: F) -> Self {
        let (numerator, denominator) = x.gate_fraction(times);
        Fraction { numerator, denominator }
    }

    /// The quotient.
    #[inline(always)]
    pub(crate) fn value(self) -> F {
        self.numerator / self.denominator
    }
}

impl<F: num_traits::Float> std::ops::Mul for Fraction<F> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Fraction { numerator: self.numerator * other.numerator, denominator: self.denominator * other.denominator }
    }
}

impl<F: num_traits::Float> std::ops::Add for Fraction<F> {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let numerator = self.numerator * other.denominator + other.numerator * self.denominator;
        Fraction { numerator, denominator: self.denominator * other.denominator }
    }
}

impl<F: num_traits::Float> std::ops::Mul<F> for Fraction<F> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, factor: F) -> Self {
        Fraction { numerator: self.numerator * factor, denominator: self.denominator }
    }
}

/// The normal distribution `Φ(x) = 1/sqrt(2π) ∫ e^(-t²/2) dt` from -∞ to x, from its tail `Φ(-|x|) = 2^(-1 - |x| p(|x|))`: one
/// polynomial and one power, no division. The polynomial `p` minimises the maximum error of `Φ` (Remez exchange, in 40
/// digits; in f32 with the weight `1 / (1 + x²)`, which keeps the tail's relative accuracy down to x = -6). The tail is 0 if 2 to
/// that power is not a normal number.
///
/// Error at most 1.5 units in the last place of 1/2 (f32, all arguments), 3.2 (f64, a grid).
#[inline(always)]
pub(crate) fn normal_cdf<F: Elementary>(x: F) -> F {
    x.normal_distribution()
}

/// The numbers of partial sums in [`sum`]: for most elements, and for the last ones.
const WIDE: usize = 32;
const NARROW: usize = 8;

/// Adds partial sums up to as many as the last elements need. They are passed by value, because sums whose reference is taken do
/// not stay in registers.
#[inline(always)]
fn fold<S: Copy + num_traits::Zero>(wide: [S; WIDE]) -> [S; NARROW] {
    let mut narrow = [S::zero(); NARROW];
    for (lane, sum) in narrow.iter_mut().enumerate() {
        *sum = wide[lane] + wide[lane + NARROW] + wide[lane + 2 * NARROW] + wide[lane + 3 * NARROW];
    }
    narrow
}

/// A chunk of each slice from `start` on. The loop compiles to much less code than `array::map`, which would have hundreds of
/// instances.
#[inline(always)]
fn chunks<'a, T, const N: usize, const LEN: usize>(slices: &[&'a [T]; N], start: usize) -> [&'a [T; LEN]; N] {
    let chunk = |slice: &'a [T]| slice[start..].first_chunk::<LEN>().expect("slices of one length");
    let mut chunks = [chunk(slices[0]); N];
    for i in 1..N {
        chunks[i] = chunk(slices[i]);
    }
    chunks
}

/// The element of each chunk in lane `lane`.
#[inline(always)]
fn elements<T: Copy, const N: usize, const LEN: usize>(chunks: &[&[T; LEN]; N], lane: usize) -> [T; N] {
    let mut elements = [chunks[0][lane]; N];
    for i in 1..N {
        elements[i] = chunks[i][lane];
    }
    elements
}

/// The sum of `f` of the elements at each index of `slices`, which are as long as the first one. There are enough partial sums
/// for them not to wait for each other, and the compiler keeps them in vectors, because it sees that the indices are in bounds.
#[inline(always)]
pub(crate) fn sum<T: Copy, S, const N: usize>(slices: [&[T]; N], f: impl Fn([T; N]) -> S) -> S
where
    S: Copy + num_traits::Zero + std::ops::AddAssign,
{
    let count = slices[0].len();
    let whole = (count - count % WIDE, count - count % NARROW);
    let mut sums = [S::zero(); WIDE];
    for start in (0..whole.0).step_by(WIDE) {
        let parts = chunks(&slices, start);
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(elements::<T, N, WIDE>(&parts, lane));
        }
    }
    let mut narrow = fold(sums);
    for start in (whole.0..whole.1).step_by(NARROW) {
        let parts = chunks(&slices, start);
        for (lane, sum) in narrow.iter_mut().enumerate() {
            *sum += f(elements::<T, N, NARROW>(&parts, lane));
        }
    }
    let mut total = S::zero();
    (whole.1..count).for_each(|k| total += f(elements::<T, N, 1>(&chunks(&slices, k), 0)));
    narrow.iter().for_each(|&sum| total += sum);
    total
}

/// [`sum`] of two functions at once. (The compiler would not keep an array of any number of sums in vectors.)
#[inline(always)]
pub(crate) fn sum_pairs<T: Copy, S, const N: usize>(slices: [&[T]; N], f: impl Fn([T; N]) -> (S, S)) -> (S, S)
where
    S: Copy + num_traits::Zero + std::ops::AddAssign,
{
    let count = slices[0].len();
    let whole = (count - count % WIDE, count - count % NARROW);
    let (mut first, mut second) = ([S::zero(); WIDE], [S::zero(); WIDE]);
    for start in (0..whole.0).step_by(WIDE) {
        let parts = chunks(&slices, start);
        for (lane, (first, second)) in first.iter_mut().zip(&mut second).enumerate() {
            let terms = f(elements::<T, N, WIDE>(&parts, lane));
            *first += terms.0;
            *second += terms.1;
        }
    }
    let (mut first, mut second) = (fold(first), fold(second));
    for start in (whole.0..whole.1).step_by(NARROW) {
        let parts = chunks(&slices, start);
        for (lane, (first, second)) in first.iter_mut().zip(&mut second).enumerate() {
            let terms = f(elements::<T, N, NARROW>(&parts, lane));
            *first += terms.0;
            *second += terms.1;
        }
    }
    let mut totals = (S::zero(), S::zero());
    for k in whole.1..count {
        let terms = f(elements::<T, N, 1>(&chunks(&slices, k), 0));
        totals.0 += terms.0;
        totals.1 += terms.1;
    }
    first.iter().for_each(|&sum| totals.0 += sum);
    second.iter().for_each(|&sum| totals.1 += sum);
    totals
}

/// Whether most processors of the architecture have an instruction for `a b + c`, rounded once.
pub(crate) const FUSES: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// `a b + c`, rounded once on architectures where most processors have an instruction for it; elsewhere that would be a slow
/// call.
macro_rules! fused {
    ($a:expr, $b:expr, $c:expr) => {
        if $crate::kernels::math::FUSES { $a.mul_add($b, $c) } else { $a * $b + $c }
    };
}
pub(crate) use fused;

macro_rules! elementary {
    (
        $float:ident, $int:ident, $uint:ident,
        ln2: $ln2_high:literal + $ln2_low:literal,
        ln2 beyond its nearest number: $ln2_rest:literal,
        least decay: e^ - $decayed:literal,
        exp: $exp_zero:literal .. $exp_infinite:literal,
        tanh: .. $tanh_one:literal,
        q: [$($q:literal),+ $(,)?],
        terms of artanh: $artanh:literal,
        normal_cdf: .. $normal_zero:literal,
        tail: [$($tail:literal),+ $(,)?],
    ) => {
        mod $float {
            const LOG2_E: $float = std::$float::consts::LOG2_E;
            const LN2_HIGH: $float = $ln2_high;
            const LN2_LOW: $float = $ln2_low;
            const MANTISSA_BITS: u32 = $float::MANTISSA_DIGITS - 1;
            const EXPONENT_BIAS: $int = $float::MAX_EXP as $int - 1;

            /// Adding it rounds to an integer, which is in the low bits of the sum.
            const ROUND: $float = (3_u64 << (MANTISSA_BITS - 1)) as $float;

            /// Adding it rounds to an integer n, and the low bits of the sum are the exponent of 2^n.
            const ROUND_BIASED: $float = ROUND + EXPONENT_BIAS as $float;

            /// `e^x` times 2 to this power is a normal number for all x that do not give 0.
            const RAISE: $int = MANTISSA_BITS as $int + 2;

            /// The coefficients of `q`, ascending.
            const Q: [$float; [$($q),+].len()] = [$($q),+];

            /// The coefficients of `p`, ascending.
            const NORMAL_TAIL: [$float; [$($tail),+].len()] = [$($tail),+];

            /// The coefficients of `artanh(s) / s` in s², ascending.
            const ARTANH: [$float; $artanh] = {
                let (mut terms, mut k) = ([1.0; $artanh], 0);
                while k < $artanh {
                    terms[k] /= (2 * k + 1) as $float;
                    k += 1;
                }
                terms
            };

            /// `Σ c_k x^k`
            #[inline(always)]
            fn polynomial<const N: usize>(coefficients: [$float; N], x: $float) -> $float {
                let mut sum = coefficients[N - 1];
                for &coefficient in coefficients.iter().rev().skip(1) {
                    sum = fused!(sum, x, coefficient);
                }
                sum
            }

            /// `round + n` for an integer `n`, and `r` with `x = n ln 2 + r`, `|r| <= ln 2 / 2`.
            #[inline(always)]
            fn reduce(x: $float, round: $float) -> ($float, $float) {
                let rounded = fused!(x, LOG2_E, round);
                let n = rounded - round;
                let r = fused!(-n, LN2_HIGH, x);
                (rounded, fused!(-n, LN2_LOW, r))
            }

            /// `q` without its first term, `(q(r) - q_0) / r`. With powers of r², its sums wait for each other half as often.
            #[inline(always)]
            fn rest_of_q(r: $float, square: $float) -> $float {
                let mut pairs = Q[1..].chunks(2).rev().map(|pair| match *pair {
                    [even, odd] => fused!(odd, r, even),
                    _ => pair[0],
                });
                let last = pairs.next().expect("coefficients");
                pairs.fold(last, |sum, pair| fused!(sum, square, pair))
            }

            /// `e^r - 1` for `|r| <= ln 2 / 2`.
            #[inline(always)]
            fn exp_m1_reduced(r: $float) -> $float {
                let square = r * r;
                fused!(fused!(rest_of_q(r, square), r, Q[0]), square, r)
            }

            /// The power of 2 whose exponent bits are the low bits of `rounded`.
            #[inline(always)]
            fn power_with_exponent(rounded: $float) -> $float {
                $float::from_bits(rounded.to_bits() << MANTISSA_BITS)
            }

            /// `2^n`, for the exponents of normal numbers.
            #[inline(always)]
            fn power_of_two(n: $int) -> $float {
                $float::from_bits((n.wrapping_add(EXPONENT_BIAS) as $uint) << MANTISSA_BITS)
            }

            #[inline(always)]
            fn exp(x: $float) -> $float {
                let x = if x > $exp_infinite { $exp_infinite } else { x };
                let x = if x < $exp_zero { $exp_zero } else { x };
                let (rounded, r) = reduce(x, ROUND);
                let n = (rounded.to_bits() as $int).wrapping_sub(ROUND.to_bits() as $int);
                // In two steps, since 2^n itself may be infinite or subnormal; only the last product can round.
                let half = n >> 1;
                (1.0 + exp_m1_reduced(r)) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
            }

            /// `e^-|x|`. One power of 2 is enough for it: it cannot be infinite, and raised by [`RAISE`] it is a normal number.
            #[inline(always)]
            fn decay(x: $float) -> $float {
                let x = -x.abs();
                let x = if x < $exp_zero { $exp_zero } else { x };
                let (rounded, r) = reduce(x, ROUND_BIASED + RAISE as $float);
                let raised = power_with_exponent(rounded);
                fused!(raised, exp_m1_reduced(r), raised) * power_of_two(-RAISE)
            }

            #[inline(always)]
            fn tanh(x: $float) -> $float {
                let (numerator, denominator) = tanh_fraction(x);
                numerator / denominator
            }

            #[inline(always)]
            fn tanh_fraction(x: $float) -> ($float, $float) {
                let magnitude = x.abs();
                let magnitude = if magnitude > $tanh_one { $tanh_one } else { magnitude };
                let (rounded, r) = reduce(-2.0 * magnitude, ROUND_BIASED);
                let scale = power_with_exponent(rounded);
                let m = fused!(scale, exp_m1_reduced(r), scale - 1.0);
                ((-m).copysign(x), m + 2.0)
            }

            #[inline(always)]
            fn sigmoid(x: $float) -> $float {
                let (numerator, denominator) = sigmoid_fraction(x);
                numerator / denominator
            }

            #[inline(always)]
            fn sigmoid_fraction(x: $float) -> ($float, $float) {
                let decay = decay(x);
                let numerator = if x < 0.0 { decay } else { 1.0 };
                (numerator, 1.0 + decay)
            }

            #[inline(always)]
            fn gate_fraction(x: $float, times: $float) -> ($float, $float) {
                const LN2: $float = std::$float::consts::LN_2;
                let is_tanh = times > 1.0;
                let limit = if is_tanh { $decayed / 2.0 } else { $decayed };
                let y = x.abs();
                let y = if y > limit { limit } else { y };
                // e^(-times y) = 2^n e^r = s (1 + p)
                let (s, r) = if super::FUSES {
                    let rounded = fused!(y, times * -LOG2_E, ROUND_BIASED);
                    let n = rounded - ROUND_BIASED;
                    let s = power_with_exponent(rounded);
                    (fused!(s, n * -$ln2_rest, s), fused!(n, -LN2, -(times * y)))
                } else {
                    // Products that are rounded need a high part of ln 2 with so few bits that they are exact.
                    let (rounded, r) = reduce(-(times * y), ROUND_BIASED);
                    (power_with_exponent(rounded), r)
                };
                let square = r * r;
                let p = fused!(square * r, rest_of_q(r, square), fused!(square, Q[0], r));

                let decay = fused!(s, p, s);
                let sigmoid = if x < 0.0 { decay } else { 1.0 };
                let tanh = fused!(s, -p, 1.0 - s).copysign(x);
                (if is_tanh { tanh } else { sigmoid }, fused!(s, p, s + 1.0))
            }

            #[inline(always)]
            fn log_sigmoid(x: $float) -> $float {
                let u = decay(x);
                let s = u / (2.0 + u);
                let linear = if x < 0.0 { x } else { 0.0 };
                fused!(-2.0 * s, polynomial(ARTANH, s * s), linear)
            }

            #[inline(always)]
            fn normal_cdf(x: $float) -> $float {
                let magnitude = x.abs();
                let halvings = polynomial(NORMAL_TAIL, magnitude) * magnitude;
                let halvings = if halvings > $normal_zero { $normal_zero } else { halvings };
                const ROUND_HALVED: $float = ROUND_BIASED - 1.0;
                let rounded = ROUND_HALVED - halvings;
                let r = (ROUND_HALVED - rounded) - halvings;
                let scale = power_with_exponent(rounded);
                let tail = fused!(scale, exp_m1_reduced(r * std::$float::consts::LN_2), scale);
                if x < 0.0 { tail } else { 1.0 - tail }
            }

            impl super::Elementary for $float {
                #[inline(always)]
                fn exponential(self) -> Self {
                    exp(self)
                }

                #[inline(always)]
                fn hyperbolic_tangent(self) -> Self {
                    tanh(self)
                }

                #[inline(always)]
                fn logistic(self) -> Self {
                    sigmoid(self)
                }

                #[inline(always)]
                fn hyperbolic_tangent_fraction(self) -> (Self, Self) {
                    tanh_fraction(self)
                }

                #[inline(always)]
                fn logistic_fraction(self) -> (Self, Self) {
                    sigmoid_fraction(self)
                }

                #[inline(always)]
                fn gate_fraction(self, times: Self) -> (Self, Self) {
                    gate_fraction(self, times)
                }

                #[inline(always)]
                fn normal_distribution(self) -> Self {
                    normal_cdf(self)
                }

                #[inline(always)]
                fn logarithm_of_logistic(self) -> Self {
                    log_sigmoid(self)
                }
            }
        }
    };
}

elementary! {
    f32, i32, u32,
    ln2: 0.693_145_75 + 1.428_606_8e-6,
    ln2 beyond its nearest number: -1.904_654_3e-9,
    least decay: e^ - 40.0,
    exp: -104.0 .. 89.0,
    tanh: .. 10.0,
    q: [0.5, 0.166_665_18, 0.041_666_206, 0.008_368_89, 0.001_395_049_4],
    terms of artanh: 8,
    normal_cdf: .. 126.0,
    tail: [
        1.151_107_2,
        0.459_190_34,
        0.052_541_88,
        -0.007_102_867,
        0.000_131_322_32,
        0.000_215_231_06,
        -5.755_526_6e-5,
        7.707_565e-6,
        -5.544_650_3e-7,
        1.697_468_3e-8,
    ],
}

elementary! {
    f64, i64, u64,
    ln2: 0.693_147_180_559_890_3 + 5.497_923_018_708_371e-14,
    ln2 beyond its nearest number: 2.319_046_813_846_299_6e-17,
    least decay: e^ - 300.0,
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
    terms of artanh: 17,
    normal_cdf: .. 1022.0,
    tail: [
        1.151_104_099_072_23,
        0.459_224_094_261_660_4,
        0.052_421_193_335_131_976,
        -0.006_899_128_813_191_461,
        -5.335_309_960_262_438e-5,
        0.000_305_894_551_646_872_63,
        -7.527_007_660_850_738e-5,
        2.373_711_096_681_067e-6,
        4.049_224_950_341_745e-6,
        -1.266_523_580_568_157_8e-6,
        4.185_214_423_485_971e-8,
        1.116_567_446_060_504e-7,
        -5.501_187_634_964_588_7e-8,
        1.631_702_869_410_298e-8,
        -3.567_818_149_732_042_7e-9,
        6.083_347_572_505_058e-10,
        -8.233_493_592_192_605e-11,
        8.853_396_576_222_83e-12,
        -7.486_463_481_494_158e-13,
        4.874_835_211_729_677_6e-14,
        -2.359_142_854_747_588_4e-15,
        7.988_828_150_986_102e-17,
        -1.688_675_564_368_503_5e-18,
        1.676_310_920_975_189e-20,
    ],
}
