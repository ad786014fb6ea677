//! The functions that a unit's gates apply to their sums: σ and tanh, or those that the cell's options choose.
//!
//! The equations are written once, generic over [`Activations`]. σ and tanh are compiled into the loops, for each instruction set.
//! Their derivatives are functions of their values, so a cell keeps the values. For [`Chosen`] functions, the loops are compiled
//! once and call the functions for each unit. Their derivatives need the arguments, so a cell keeps the sums.

use super::options::CellOptions;
use crate::base::{Expect, check_number};
use crate::kernels::Float;
use crate::kernels::derivatives::{d_sigmoid, d_tanh};
use crate::kernels::math::{share_division, sigmoid_fraction, tanh, tanh_fraction};
use crate::layers::Nonlinearity;

/// The functions in a cell's equations.
pub(super) trait Activations<F>: Copy {
    /// A value, or a fraction that is not divided yet.
    type Part: Copy;

    /// A gate, from its sum.
    fn gate(self, a: F) -> Self::Part;

    /// The candidate, from its sum.
    fn candidate(self, a: F) -> Self::Part;

    /// The function of an LSTM's memory that its output gate multiplies.
    fn output(self, u: F) -> Self::Part;

    /// The value of a part.
    fn value(self, part: Self::Part) -> F;

    /// The values of several parts at once.
    fn values<const N: usize>(self, parts: [Self::Part; N]) -> [F; N];

    /// The number that a cell keeps for its backward pass, from a sum and its value.
    fn kept(self, a: F, y: F) -> F;

    /// A gate's value, from the kept number.
    fn gate_value(self, kept: F) -> F;

    /// A gate's value and derivative, from the kept number.
    fn gate_slope(self, kept: F) -> [F; 2];

    /// The candidate's value and derivative, from the kept number.
    fn candidate_slope(self, kept: F) -> [F; 2];

    /// The value and derivative of [`output`](Self::output).
    fn output_slope(self, u: F) -> [F; 2];
}

/// σ for gates, and tanh.
#[derive(Clone, Copy)]
pub(super) struct Standard;

impl<F: Float> Activations<F> for Standard {
    type Part = (F, F);

    #[inline(always)]
    fn gate(self, a: F) -> (F, F) {
        sigmoid_fraction(a)
    }

    #[inline(always)]
    fn candidate(self, a: F) -> (F, F) {
        tanh_fraction(a)
    }

    #[inline(always)]
    fn output(self, u: F) -> (F, F) {
        tanh_fraction(u)
    }

    #[inline(always)]
    fn value(self, (numerator, denominator): (F, F)) -> F {
        numerator / denominator
    }

    #[inline(always)]
    fn values<const N: usize>(self, parts: [(F, F); N]) -> [F; N] {
        share_division(parts)
    }

    #[inline(always)]
    fn kept(self, _: F, y: F) -> F {
        y
    }

    #[inline(always)]
    fn gate_value(self, y: F) -> F {
        y
    }

    #[inline(always)]
    fn gate_slope(self, y: F) -> [F; 2] {
        [y, d_sigmoid(y)]
    }

    #[inline(always)]
    fn candidate_slope(self, y: F) -> [F; 2] {
        [y, d_tanh(y)]
    }

    #[inline(always)]
    fn output_slope(self, u: F) -> [F; 2] {
        let y = tanh(u);
        [y, d_tanh(y)]
    }
}

/// The activations of a cell if they are not σ and tanh, or if sums are clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Chosen {
    pub gate: Nonlinearity,
    pub candidate: Nonlinearity,
    pub output: Nonlinearity,
    pub clip: Option<f64>,
}

/// The activations of a cell by default.
pub(super) const STANDARD: Chosen =
    Chosen { gate: Nonlinearity::Sigmoid, candidate: Nonlinearity::Tanh, output: Nonlinearity::Tanh, clip: None };

impl Chosen {
    /// `None` if they are [`STANDARD`].
    pub fn unless_standard(self) -> Option<Self> {
        (self != STANDARD).then_some(self)
    }

    /// Panics if one of their numbers is invalid in the element type.
    #[track_caller]
    pub fn check<F: Float>(options: &impl CellOptions, cell: &str) {
        for (option, f) in options.activations() {
            for (name, number) in f.numbers() {
                check_number::<F>(cell, &format!("{option}: {name}"), Expect::Finite, number);
            }
        }
        if let Some(clip) = options.clip() {
            check_number::<F>(cell, "clip", Expect::Above0, clip);
        }
    }

    /// f(a) and f'(a) of the clipped a. Not inlined: a cell's loops call it up to ten times in each of their variants.
    #[inline(never)]
    fn clipped<F: Float>(&self, f: Nonlinearity, a: F) -> [F; 2] {
        match self.clip.map(F::of) {
            Some(clip) if a > clip => [f.value_and_slope(clip)[0], F::zero()],
            Some(clip) if a < -clip => [f.value_and_slope(-clip)[0], F::zero()],
            _ => f.value_and_slope(a),
        }
    }
}

impl<F: Float> Activations<F> for &Chosen {
    type Part = F;

    #[inline(always)]
    fn gate(self, a: F) -> F {
        self.clipped(self.gate, a)[0]
    }

    #[inline(always)]
    fn candidate(self, a: F) -> F {
        self.clipped(self.candidate, a)[0]
    }

    // ONNX Runtime clips only the sums of gates and candidate, not the memory.
    #[inline(always)]
    fn output(self, u: F) -> F {
        self.output.value_and_slope(u)[0]
    }

    #[inline(always)]
    fn value(self, y: F) -> F {
        y
    }

    #[inline(always)]
    fn values<const N: usize>(self, parts: [F; N]) -> [F; N] {
        parts
    }

    #[inline(always)]
    fn kept(self, a: F, _: F) -> F {
        a
    }

    #[inline(always)]
    fn gate_value(self, a: F) -> F {
        self.clipped(self.gate, a)[0]
    }

    #[inline(always)]
    fn gate_slope(self, a: F) -> [F; 2] {
        self.clipped(self.gate, a)
    }

    #[inline(always)]
    fn candidate_slope(self, a: F) -> [F; 2] {
        self.clipped(self.candidate, a)
    }

    #[inline(always)]
    fn output_slope(self, u: F) -> [F; 2] {
        self.output.value_and_slope(u)
    }
}

/// Defines loops over the units of a step for σ and tanh, compiled as by [`vectorised!`](crate::kernels::vectorised), and for
/// [`Chosen`] activations, compiled once. The defined function takes `Option<&Chosen>` as its first argument; in the body, `$act`
/// is the [`Activations`], of type `$kind`.
macro_rules! activated {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident<$lifetime:lifetime, $parameter:ident: $bound:path; $act:ident: $kind:ident>(
            $($argument:ident: $type:ty),* $(,)?
        ) $body:block
    )+) => {$(
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name<$lifetime, $parameter: $bound>(
            chosen: Option<&$lifetime $crate::cells::activations::Chosen>,
            $($argument: $type),*
        ) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_lifetimes)]
            fn units<$lifetime, $parameter: $bound, $kind: $crate::cells::activations::Activations<$parameter>>(
                $act: $kind,
                $($argument: $type),*
            ) $body

            $crate::kernels::vectorised! {
                fn standard<$lifetime, $parameter: $bound>($($argument: $type),*) {
                    units::<$parameter, _>($crate::cells::activations::Standard, $($argument),*)
                }
            }
            $crate::kernels::once! {
                fn chosen_ones<$lifetime, $parameter: $bound>(
                    chosen: &$lifetime $crate::cells::activations::Chosen,
                    $($argument: $type),*
                ) {
                    units::<$parameter, _>(chosen, $($argument),*)
                }
            }
            match chosen {
                None => standard::<$parameter>($($argument),*),
                Some(chosen) => chosen_ones::<$parameter>(chosen, $($argument),*),
            }
        }
    )+};
}
pub(super) use activated;
