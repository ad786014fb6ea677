use crate::kernels::math::{Fraction, exp, log_sigmoid, normal_cdf, sigmoid, tanh};
use crate::kernels::{Float, for_each_isa, vectorised};

#[derive(Debug, Clone, Copy)]
enum Function {
    Exp,
    Tanh,
    Sigmoid,
    NormalCdf,
    LogSigmoid,
    /// As in a stream, where both are lanes of one vector.
    StreamTanh,
    StreamSigmoid,
}

use Function::{Exp, LogSigmoid, NormalCdf, Sigmoid, StreamSigmoid, StreamTanh, Tanh};

impl Function {
    /// The minimum exponent of the numbers in whose last place errors are measured; `normal` is that of the least normal number.
    fn least_exponent(self, normal: i32) -> i32 {
        if matches!(self, NormalCdf) { -1 } else { normal }
    }
}

vectorised! {
    /// y <- f(x)
    fn map<'a, F: Float>(function: Function, x: &'a [F], y: &'a mut [F]) {
        match function {
            Exp => {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = exp(x);
                }
            }
            Tanh => {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = tanh(x);
                }
            }
            Sigmoid => {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = sigmoid(x);
                }
            }
            NormalCdf => {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = normal_cdf(x);
                }
            }
            LogSigmoid => {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = log_sigmoid(x);
                }
            }
            StreamTanh | StreamSigmoid => {
                let times = F::of(if matches!(function, StreamTanh) { 2.0 } else { 1.0 });
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = Fraction::sigmoid_or_tanh(x, times).value();
                }
            }
        }
    }
}

/// `(high + low) 2^exponent`, with about 100 bits: a reference for f64.
#[derive(Debug, Clone, Copy)]
struct Precise {
    high: f64,
    low: f64,
    exponent: i32,
}

impl Precise {
    const ONE: Self = Self::new(1.0, 0.0);

    const fn new(high: f64, low: f64) -> Self {
        Self { high, low, exponent: 0 }
    }

    /// The sum of two numbers, the first the greater one.
    fn normal(high: f64, low: f64) -> Self {
        let sum = high + low;
        Self::new(sum, low - (sum - high))
    }

    /// As `high + low` alone.
    fn scaled(self) -> Self {
        let scale = 2.0_f64.powi(self.exponent.max(-1000));
        Self::new(self.high * scale, self.low * scale)
    }

    fn plus(self, other: Self) -> Self {
        let sum = self.high + other.high;
        let part = sum - self.high;
        let rest = (self.high - (sum - part)) + (other.high - part);
        Self::normal(sum, rest + (self.low + other.low))
    }

    fn times(self, other: Self) -> Self {
        let product = self.high * other.high;
        let rest = self.high.mul_add(other.high, -product);
        Self::normal(product, rest + (self.high * other.low + self.low * other.high))
    }

    fn over(self, other: Self) -> Self {
        let mut quotient = Self::new(0.0, 0.0);
        let mut rest = self;
        for _ in 0..3 {
            let digit = Self::new(rest.high / other.high, 0.0);
            quotient = quotient.plus(digit);
            rest = rest.plus(digit.times(other).times(Self::new(-1.0, 0.0)));
        }
        quotient
    }

    /// `n` and `e^r - 1` for `x = n ln 2 + r`, by the series.
    fn reduced_exp_m1(x: f64) -> (i32, Self) {
        let n = (x / std::f64::consts::LN_2).round();
        let r = Self::new(x, 0.0)
            .plus(Self::new(-n * LN_2[0], 0.0))
            .plus(Self::new(-n * LN_2[1], 0.0))
            .plus(Self::new(-n, 0.0).times(Self::new(LN_2[2], LN_2[3])));
        let mut sum = Self::ONE;
        for k in (2..28).rev() {
            sum = Self::ONE.plus(sum.times(r).over(Self::new(f64::from(k), 0.0)));
        }
        (n as i32, sum.times(r))
    }

    fn exp(x: f64) -> Self {
        let (n, m) = Self::reduced_exp_m1(x);
        Self { exponent: n, ..Self::ONE.plus(m) }
    }

    fn tanh(x: f64) -> Self {
        let (n, m) = Self::reduced_exp_m1(-2.0 * x.abs().min(40.0));
        let scale = 2.0_f64.powi(n);
        let m = m.times(Self::new(scale, 0.0)).plus(Self::new(scale - 1.0, 0.0));
        m.over(m.plus(Self::new(2.0, 0.0))).times(Self::new(-1.0_f64.copysign(x), 0.0))
    }

    fn sigmoid(x: f64) -> Self {
        let decay = Self::exp(-x.abs().min(1000.0));
        let sum = Self::ONE.plus(decay.scaled());
        if x < 0.0 { Self { exponent: decay.exponent, ..decay.over(sum) } } else { Self::ONE.over(sum) }
    }

    /// `min(x, 0) - ln(1 + u)` with `u = e^-|x|`: the logarithm by a step of Newton's method, for a small u by its series.
    fn log_sigmoid(x: f64) -> Self {
        let decay = Self::exp(-x.abs().min(1000.0));
        let minus = |p: Self| Self { high: -p.high, low: -p.low, ..p };
        if x > 45.0 {
            return minus(decay); // u² is less than a rounding error of u
        }
        let u = decay.scaled();
        let log = if u.high < 1e-6 {
            let terms = (2..8).rev().map(|k| Self::ONE.over(Self::new(f64::from(k), 0.0)));
            let sum = terms.fold(Self::new(0.0, 0.0), |sum, term| term.plus(minus(sum.times(u))));
            u.plus(minus(sum.times(u).times(u)))
        } else {
            let near = u.high.ln_1p();
            let power = Self::exp(near).scaled();
            Self::ONE.plus(u).plus(minus(power)).over(power).plus(Self::new(near, 0.0))
        };
        if x < 0.0 { Self::new(x, 0.0).plus(minus(log)) } else { minus(log) }
    }

    /// `1/2 + e^(-x²/2) / sqrt(2π) Σ x^(2n+1) / (1 · 3 · 5 ⋯ (2n+1))`, a series without cancellation before the last sum.
    fn normal_cdf(x: f64) -> Self {
        if x.abs() > 9.0 {
            return Self::new(if x < 0.0 { 0.0 } else { 1.0 }, 0.0);
        }
        // The square of a tiny number would lose its low part.
        let square = if x.abs() < 1e-100 { Self::new(0.0, 0.0) } else { Self::new(x, 0.0).times(Self::new(x, 0.0)) };
        let (mut term, mut sum) = (Self::ONE, Self::ONE);
        for k in 1..300 {
            term = term.times(square).over(Self::new(f64::from(2 * k + 1), 0.0));
            sum = sum.plus(term);
            if term.high < sum.high * 1e-34 {
                break;
            }
        }
        let decay = Self::exp(-square.high / 2.0).scaled().times(Self::new(1.0, -square.low / 2.0));
        let density = decay.times(Self::new(ONE_OVER_ROOT_TWO_PI[0], ONE_OVER_ROOT_TWO_PI[1]));
        Self::new(0.5, 0.0).plus(sum.times(density).times(Self::new(x, 0.0)))
    }

    fn of(function: Function, x: f64) -> Self {
        match function {
            Exp => Self::exp(x),
            Tanh | StreamTanh => Self::tanh(x),
            Sigmoid => Self::sigmoid(x),
            // The stream's does not go below its value for -300.
            StreamSigmoid => Self::sigmoid(x.max(-300.0)),
            NormalCdf => Self::normal_cdf(x),
            LogSigmoid => Self::log_sigmoid(x),
        }
    }

    /// The distance of `y`, in units in the last place of a type with this number of bits.
    fn ulps(self, y: f64, digits: i32, least_exponent: i32) -> f64 {
        let half = -self.exponent / 2;
        let y = y * 2.0_f64.powi(half) * 2.0_f64.powi(-self.exponent - half);
        let exponent = ((self.high.to_bits() >> 52 & 0x7ff) as i32 - 1023) + 1 - digits;
        let exponent = exponent.max(least_exponent - self.exponent);
        // In two steps, since 2^-exponent may be infinite.
        let unit = 2.0_f64.powi(exponent / 2) * 2.0_f64.powi(exponent - exponent / 2);
        ((y - self.high) - self.low).abs() / unit
    }
}

/// The parts of ln 2; the first two have few bits, so that their products with exponents are exact.
const LN_2: [f64; 4] =
    [0.693_147_180_485_539_1, 7.440_617_109_972_386e-11, 4.001_085_347_614_719_4e-22, -2.193_143_648_751_616e-39];

const ONE_OVER_ROOT_TWO_PI: [f64; 2] = [0.398_942_280_401_432_7, -2.492_327_202_277_73e-17];

/// The largest error, in units in the last place, and its argument.
fn worst(function: Function, x: &[f64]) -> (f64, f64) {
    let mut y = vec![0.0; x.len()];
    map(function, x, &mut y);
    let errors =
        x.iter().zip(&y).map(|(&x, &y)| (Precise::of(function, x).ulps(y, 53, function.least_exponent(-1022) - 52), x));
    errors.fold((0.0, 0.0), |worst, error| if error.0 <= worst.0 { worst } else { error })
}

/// The distance of `y` from the correct value by f64 functions, in units in the last place.
fn ulps_f32(function: Function, x: f32, y: f32) -> f64 {
    let x = f64::from(x);
    let correct = match function {
        Exp => x.exp(),
        Tanh | StreamTanh => x.tanh(),
        // The stream's does not go below its value for -40.
        StreamSigmoid if x < -40.0 => (-40f64).exp(),
        Sigmoid | StreamSigmoid if x < 0.0 => x.exp() / (1.0 + x.exp()),
        Sigmoid | StreamSigmoid => 1.0 / (1.0 + (-x).exp()),
        // This is itself within 4 units in the last place of 1/2 in f64: see `within_bounds_f64`.
        NormalCdf => normal_cdf(x),
        LogSigmoid => x.min(0.0) - (-x.abs()).exp().ln_1p(),
    };
    if y.is_infinite() && y == correct as f32 {
        return 0.0;
    }
    let exponent = (correct.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    (f64::from(y) - correct).abs() / 2.0_f64.powi(exponent.max(function.least_exponent(-126)) - 23)
}

fn worst_f32(function: Function, bits: impl Iterator<Item = u32>) -> (f64, f32) {
    let mut bits = bits.map(f32::from_bits);
    let mut worst = (0.0, 0.0);
    let (mut x, mut y) = (Vec::new(), vec![0.0; 4096]);
    loop {
        x.clear();
        x.extend(bits.by_ref().take(4096));
        if x.is_empty() {
            return worst;
        }
        map(function, &x, &mut y);
        for (&x, &y) in x.iter().zip(&y) {
            if x.is_nan() {
                assert!(y.is_nan(), "{function:?} of NaN is {y}");
                continue;
            }
            let error = ulps_f32(function, x, y);
            if error > worst.0 {
                worst = (error, x);
            }
        }
    }
}

/// The bounds of the errors in units in the last place, for f32 and for f64.
const BOUNDS: [(Function, f64, f64); 7] = [
    (Exp, 1.1, 1.1),
    (Tanh, 2.5, 2.5),
    (Sigmoid, 2.5, 2.5),
    (NormalCdf, 1.5, 3.2),
    (LogSigmoid, 4.0, 4.0),
    (StreamTanh, 2.5, 2.5),
    (StreamSigmoid, 2.5, 2.5),
];

#[test]
fn within_bounds_f64() {
    // Evenly spaced in the interesting range, and through all exponents.
    let even = (0..20_000).map(|i| f64::from(i).mul_add(0.15, -1500.0) / 2.0);
    let close = (0..20_000).map(|i| f64::from(i).mul_add(0.004_001, -40.0));
    let exponents = (0..40_000_u64).map(|i| f64::from_bits(i.wrapping_mul(0x0001_9e37_79b9_7f4b)));
    let x: Vec<f64> = even.chain(close).chain(exponents).filter(|x| x.abs() < 745.2).collect();
    for_each_isa(|isa| {
        for (function, _, bound) in BOUNDS {
            let x: Vec<f64> = x.iter().copied().filter(|&x| !matches!(function, Exp) || x < 709.7).collect();
            let worst = worst(function, &x);
            println!("{isa:?} {function:?} {worst:?}");
            assert!(worst.0 <= bound, "{isa:?} {function:?}: {worst:?}");
        }
    });
}

#[test]
fn within_bounds_f32() {
    for_each_isa(|isa| {
        for (function, bound, _) in BOUNDS {
            let worst = worst_f32(function, (0..=u32::MAX).step_by(9973));
            println!("{isa:?} {function:?} {worst:?}");
            assert!(worst.0 <= bound, "{isa:?} {function:?}: {worst:?}");
        }
    });
}

#[test]
#[ignore = "takes minutes: all f32"]
fn within_bounds_all_f32() {
    for (function, bound, _) in BOUNDS {
        let worst = worst_f32(function, 0..=u32::MAX);
        println!("{function:?} {worst:?}");
        assert!(worst.0 <= bound, "{function:?}: {worst:?}");
    }
}

/// Checks arguments for which the functions have exact values, or none.
fn check_special_values<F: Float>() {
    let inf = F::infinity();
    let least = F::min_positive_value() * F::epsilon();
    let of = |function, x: F| {
        let mut y = [F::zero(); 3];
        map(function, &[x; 3], &mut y);
        y[0].bits()
    };
    for_each_isa(|_| {
        for function in BOUNDS.map(|(function, ..)| function) {
            for nan in [F::nan(), -F::nan()] {
                let mut y = [F::zero(); 40];
                map(function, &[nan; 40], &mut y);
                assert!(y.iter().all(|y| y.is_nan()), "{function:?}");
            }
        }
        for zero in [F::zero(), -F::zero()] {
            assert_eq!(of(Exp, zero), F::one().bits());
            assert_eq!(of(Tanh, zero), zero.bits());
            assert_eq!(of(StreamTanh, zero), zero.bits());
            assert_eq!(of(Sigmoid, zero), F::of(0.5).bits());
            assert_eq!(of(StreamSigmoid, zero), F::of(0.5).bits());
            assert_eq!(of(NormalCdf, zero), F::of(0.5).bits());
        }
        for tiny in [least, -least, F::min_positive_value(), least * F::of(12345.0)] {
            assert_eq!(of(Tanh, tiny), tiny.bits());
            assert_eq!(of(StreamTanh, tiny), tiny.bits());
            assert_eq!(of(Exp, tiny), F::one().bits());
        }
        for huge in [inf, F::max_value(), F::of(800.0)] {
            assert_eq!(of(Exp, huge), inf.bits());
            assert_eq!(of(Exp, -huge), F::zero().bits());
            assert_eq!(of(Tanh, huge), F::one().bits());
            assert_eq!(of(Tanh, -huge), (-F::one()).bits());
            assert_eq!(of(StreamTanh, huge), F::one().bits());
            assert_eq!(of(StreamTanh, -huge), (-F::one()).bits());
            assert_eq!(of(StreamSigmoid, huge), F::one().bits());
            assert_eq!(of(Sigmoid, huge), F::one().bits());
            assert_eq!(of(Sigmoid, -huge), F::zero().bits());
            assert_eq!(of(NormalCdf, huge), F::one().bits());
            assert_eq!(of(NormalCdf, -huge), F::zero().bits());
            assert_eq!(of(LogSigmoid, huge), F::zero().bits());
            assert_eq!(of(LogSigmoid, -huge), (-huge).bits());
        }
    });
}

#[test]
fn special_values() {
    check_special_values::<f32>();
    check_special_values::<f64>();
}

/// Values by mpmath 1.3, `nstr(ncdf(x), 19)`, to check the reference above independently.
const NORMAL_CDF: [(f64, f64); 8] = [
    (-8.0, 6.220_960_574_271_784e-16),
    (-5.0, 2.866_515_718_791_939e-7),
    (-2.5, 0.006_209_665_325_776_135),
    (-1.0, 0.158_655_253_931_457_05),
    (-0.1, 0.460_172_162_722_971),
    (0.5, 0.691_462_461_274_013_1),
    (1.0, 0.841_344_746_068_542_9),
    (3.0, 0.998_650_101_968_369_9),
];

#[test]
fn the_reference_of_the_normal_distribution_is_right() {
    for (x, y) in NORMAL_CDF {
        let found = Precise::normal_cdf(x);
        assert!((found.high + found.low - y).abs() <= y * f64::EPSILON, "{x}: {found:?} for {y}");
    }
}

/// A tiny tail is still accurate to some digits: rounding x alone changes it by as much.
#[test]
fn the_tail_of_the_normal_distribution_has_digits() {
    for_each_isa(|isa| {
        for (x, y) in NORMAL_CDF.into_iter().filter(|(x, _)| *x > -6.0) {
            let mut found = [0.0_f32; 3];
            map(NormalCdf, &[x as f32; 3], &mut found);
            let error = (f64::from(found[0]) - y).abs() / y / f64::from(f32::EPSILON);
            assert!(error <= 2.0 + 2.0 * x * x, "{isa:?} {x}: {error} units");
        }
    });
}
