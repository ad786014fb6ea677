//! Checks of the numbers and sizes that a user sets, made once, when they are set, in the element type that they are used in.

use super::error::mismatch;
use crate::kernels::Float;

/// A requirement on a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Finite,
    AtLeast0,
    Above0,
    /// In `[0, 1)`.
    Fraction,
    /// In `[0, 1)`, by another name.
    Probability,
}

impl Expect {
    fn holds(self, x: f64) -> bool {
        match self {
            Expect::Finite => x.is_finite(),
            Expect::AtLeast0 => x.is_finite() && x >= 0.0,
            Expect::Above0 => x.is_finite() && x > 0.0,
            Expect::Fraction | Expect::Probability => (0.0..1.0).contains(&x),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Expect::Finite => "a finite number",
            Expect::AtLeast0 => "a finite number, at least 0",
            Expect::Above0 => "a finite number above 0",
            Expect::Fraction => "a number in 0..1",
            Expect::Probability => "a probability in 0..1",
        }
    }
}

/// Returns `value`; panics unless it meets the requirement, both as it is and rounded to the element type.
#[track_caller]
pub(crate) fn check_number<F: Float>(who: &str, what: &str, expect: Expect, value: f64) -> f64 {
    let rounded = F::of(value);
    if !expect.holds(value) {
        mismatch(who, what, &expect.words(), &format_args!("{value:?}"))
    }
    if !expect.holds(rounded.widen()) {
        let got = format_args!("{value:?}, which is {rounded} in {}", std::any::type_name::<F>());
        mismatch(who, what, &expect.words(), &got)
    }
    value
}

/// Panics unless all sizes, given with their names, are above 0 and memory can hold an array of each shape with elements of
/// type `F`.
#[track_caller]
pub(crate) fn check_sizes<F: Float, const N: usize>(who: &str, sizes: [(&str, usize); N], shapes: &[&[usize]]) {
    let list = || sizes.map(|(name, size)| format!("{name} {size}")).join(", ");
    assert!(sizes.iter().all(|&(_, size)| size > 0), "{who}: sizes must not be 0, got {}", list());
    let fits = |shape: &[usize]| {
        let elements = shape.iter().try_fold(size_of::<F>(), |product, &size| product.checked_mul(size));
        elements.is_some_and(|bytes| isize::try_from(bytes).is_ok())
    };
    assert!(shapes.iter().all(|shape| fits(shape)), "{who}: sizes are too large for any memory, got {}", list());
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn refusal<F: Float>(expect: Expect, value: f64) -> Option<String> {
        let refusal = catch_unwind(|| check_number::<F>("Adam", "eps", expect, value)).err()?;
        Some(*refusal.downcast::<String>().expect("a message"))
    }

    #[test]
    fn numbers_are_checked_in_their_type() {
        use Expect::*;
        assert_eq!(check_number::<f32>("Adam", "eps", Above0, 1e-8), 1e-8);
        for (expect, bad) in [
            (Finite, f64::NAN),
            (Finite, f64::INFINITY),
            (AtLeast0, -1e-300),
            (Above0, 0.0),
            (Above0, f64::NAN),
            (Fraction, 1.0),
            (Probability, -0.1),
            (Probability, f64::NAN),
        ] {
            let message = refusal::<f64>(expect, bad).expect("a refusal");
            assert_eq!(message, format!("Adam: eps: expected {}, got {bad:?}", expect.words()));
        }
        for (expect, value, rounded) in [
            (Above0, 1e-46, "1e-46, which is 0 in f32"),
            (AtLeast0, 1e39, "1e39, which is inf in f32"),
            (Finite, -1e39, "-1e39, which is -inf in f32"),
            (Fraction, 0.999_999_999, "0.999999999, which is 1 in f32"),
        ] {
            assert!(refusal::<f32>(expect, value).expect("a refusal").ends_with(rounded), "{value}");
            assert_eq!(refusal::<f64>(expect, value), None);
        }
    }

    #[test]
    fn sizes_fit_into_memory() {
        let refusal = |sizes: [(&'static str, usize); 2]| {
            let [(_, a), (_, b)] = sizes;
            let refusal = catch_unwind(|| check_sizes::<f32, 2>("Linear", sizes, &[&[a, b], &[b]])).err()?;
            Some(*refusal.downcast::<String>().expect("a message"))
        };
        assert_eq!(refusal([("input", 3), ("output", 5)]), None);
        assert_eq!(
            refusal([("input", 0), ("output", 5)]).unwrap(),
            "Linear: sizes must not be 0, got input 0, output 5"
        );
        let most = isize::MAX as usize / 4;
        assert_eq!(refusal([("input", 1), ("output", most)]), None);
        for (input, output) in [(1, most + 1), (2, most), (usize::MAX, usize::MAX), (1 << (usize::BITS / 2), most)] {
            let message = refusal([("input", input), ("output", output)]).expect("a refusal");
            let want = format!("Linear: sizes are too large for any memory, got input {input}, output {output}");
            assert_eq!(message, want);
        }
    }
}
