//! Cells in a stream: one sequence, one step after another.
//!
//! ```text
//! v = [h; x]
//! sums = b + v W            one product for all gates
//! h, c = units(sums, c)     sixteen units at a time, then four at a time
//! ```
//!
//! Sixteen units of a gate fill the widest vector. Fewer are taken four at a time, with their gates side by side in one vector: a cell of
//! four units needs no more operations for all its gates than for one.

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use crate::base::Tensors;
use crate::kernels::Float;
use crate::kernels::math::Fraction;
use crate::kernels::row_product::{Aligned, LANES, RowWeights};
use crate::kernels::simd::dispatch::Vectors;
use crate::layer::Stage;
use crate::layer::stage::Place;

/// Units of the last groups, whose gates are side by side.
pub(super) const FEW: usize = 4;

/// What a stream needs of a cell: its equations, for some units at once.
pub(super) trait Units<F>: 'static {
    /// The number of sums of a unit, at most four: first those with a part of h.
    const SUMS: usize;
    /// How many of them have a part of h.
    const FROM_H: usize;
    /// Whether there is a memory beside h.
    const MEMORY: bool;

    /// h and c of sixteen units, from their sums: those with a part of h, and those without.
    fn many(from_h: &[[F; LANES]], from_x: &[[F; LANES]], h: &mut [F; LANES], c: &mut [F; LANES]);

    /// h and c of four units. `sums` holds their sums, gate by gate.
    fn few(sums: &[F; LANES], h: &mut [F; FEW], c: &mut [F; FEW]);
}

/// What a sum of a unit is made of: `bias + W_ih x + W_hh h`; without x or h, no weights.
pub(super) struct UnitSum<'a, F> {
    pub bias: F,
    pub weight_ih: Option<&'a [F]>, // [I]
    pub weight_hh: Option<&'a [F]>, // [H]
}

/// The gates of four units, one after another in a vector.
pub(super) struct Gates<F> {
    numerators: [F; LANES],
    denominators: [F; LANES],
}

impl<F: Float> Gates<F> {
    /// The logistic function of `sums` where `times` is 1, the tanh where it is 2.
    #[inline(always)]
    pub(super) fn new(sums: &[F; LANES], times: [F; LANES]) -> Self {
        let mut gates = Gates { numerators: [F::zero(); LANES], denominators: [F::zero(); LANES] };
        for (lane, (&sum, times)) in sums.iter().zip(times).enumerate() {
            let Fraction { numerator, denominator } = Fraction::sigmoid_or_tanh(sum, times);
            (gates.numerators[lane], gates.denominators[lane]) = (numerator, denominator);
        }
        gates
    }

    /// A gate of a unit.
    #[inline(always)]
    pub(super) fn of(&self, gate: usize, unit: usize) -> Fraction<F> {
        let lane = gate * FEW + unit;
        Fraction { numerator: self.numerators[lane], denominator: self.denominators[lane] }
    }
}

/// A cell in a stream.
pub(super) struct CellStage<F, U> {
    vectors: Vectors,
    hidden: usize,
    many: usize,                  // groups of sixteen units
    products: [RowWeights<F>; 2], // of h and x, and of x alone
    sums: [Aligned<F>; 2],
    h_and_x: Aligned<F>, // h, to whole groups, then x
    c: Aligned<F>,       // to whole groups
    backward: bool,
    units: PhantomData<fn() -> U>,
}

impl<F: Float, U: Units<F>> CellStage<F, U> {
    /// A cell of `hidden` units; `sum(s, u)` is the `s`th sum of unit u.
    pub(super) fn boxed<'a>(
        input: usize,
        hidden: usize,
        sum: impl Fn(usize, usize) -> UnitSum<'a, F>,
    ) -> Box<dyn Stage<F>> {
        let (vectors, many) = (Vectors::best(), hidden / LANES);
        let few = (hidden % LANES).div_ceil(FEW);
        let units = many * LANES + few * FEW;
        // A column's sum and unit; past the last unit there is nothing.
        let of_many = |column: usize, sums: usize, first: usize| {
            let (group, rest) = (column / (sums * LANES), column % (sums * LANES));
            (first + rest / LANES, group * LANES + rest % LANES)
        };
        let of_column = |column: usize| match column.checked_sub(many * U::FROM_H * LANES) {
            None => of_many(column, U::FROM_H, 0),
            Some(rest) => (rest % LANES / FEW, many * LANES + rest / LANES * FEW + rest % FEW),
        };
        let value = |(s, u): (usize, usize), of: &dyn Fn(UnitSum<'a, F>) -> Option<F>| {
            if s < U::SUMS && u < hidden { of(sum(s, u)).unwrap_or(F::zero()) } else { F::zero() }
        };
        let x_weight = |i: usize, at| value(at, &|sum| sum.weight_ih.map(|row| row[i]));
        let both = RowWeights::new(
            vectors,
            [units + input, (many * U::FROM_H + few) * LANES],
            |column| value(of_column(column), &|sum| Some(sum.bias)),
            |k, column| match k.checked_sub(units) {
                Some(i) => x_weight(i, of_column(column)),
                None if k < hidden => value(of_column(column), &|sum| sum.weight_hh.map(|row| row[k])),
                None => F::zero(),
            },
        );
        let of_column = |column| of_many(column, U::SUMS - U::FROM_H, U::FROM_H);
        let x_alone = RowWeights::new(
            vectors,
            [input, many * (U::SUMS - U::FROM_H) * LANES],
            |column| value(of_column(column), &|sum| Some(sum.bias)),
            |i, column| x_weight(i, of_column(column)),
        );
        Box::new(CellStage::<F, U> {
            vectors,
            hidden,
            many,
            sums: [&both, &x_alone].map(|product| Aligned::zeros(product.columns())),
            products: [both, x_alone],
            h_and_x: Aligned::zeros(units + input),
            c: Aligned::zeros(units),
            backward: false,
            units: PhantomData,
        })
    }
}

impl<F: Float, U: Units<F>> Stage<F> for CellStage<F, U> {
    fn output(&self) -> usize {
        self.hidden
    }

    fn run(&mut self, steps: usize, x: &[F], y: &mut [F]) {
        self.vectors.run(Steps { stage: self, steps, x, y });
    }

    fn tensors(&self) -> usize {
        1 + usize::from(U::MEMORY)
    }

    fn load(&mut self, state: &dyn Tensors<F>, at: Place) {
        at.read(state, 0, &mut self.h_and_x.values_mut()[..self.hidden]);
        if U::MEMORY {
            at.read(state, 1, &mut self.c.values_mut()[..self.hidden]);
        }
    }

    fn store(&self, state: &mut dyn Tensors<F>, at: Place) {
        at.write(state, 0, &self.h_and_x.values()[..self.hidden]);
        if U::MEMORY {
            at.write(state, 1, &self.c.values()[..self.hidden]);
        }
    }

    fn boxed(&self) -> Box<dyn Stage<F>> {
        let CellStage { products, sums, h_and_x, c, .. } = self;
        let (products, sums, h_and_x, c) = (products.clone(), sums.clone(), h_and_x.clone(), c.clone());
        Box::new(CellStage::<F, U> { products, sums, h_and_x, c, ..*self })
    }
}

/// The steps `x`, `[T, I]`, to `y`, `[T, H]`.
struct Steps<'a, F, U> {
    stage: &'a mut CellStage<F, U>,
    steps: usize,
    x: &'a [F],
    y: &'a mut [F],
}

impl<F: Float, U: Units<F>> WithSimd for Steps<'_, F, U> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Steps { stage, steps, x, y } = self;
        let CellStage {
            hidden, many, products: [product, x_product], sums: [sums, x_sums], h_and_x, c, backward, ..
        } = stage;
        let (h_and_x, sums, x_sums, c) = (h_and_x.values_mut(), sums.values_mut(), x_sums.values_mut(), c.values_mut());
        let (units, many, x_width) = (c.len(), *many, U::SUMS - U::FROM_H);
        let input = h_and_x.len() - units;
        let (many_c, few_c) = c.split_at_mut(many * LANES);
        let (many_c, few_c) = (many_c.as_chunks_mut().0, few_c.as_chunks_mut().0);
        for t in 0..steps {
            let (x, y) = (&x[t * input..][..input], &mut y[t * *hidden..][..*hidden]);
            // Not as a copy of memory, whose call takes longer than one value or two.
            h_and_x[units..].iter_mut().zip(x).for_each(|(to, &x)| *to = x);
            product.multiply(simd, h_and_x, sums, *backward);
            if x_width > 0 && many > 0 {
                x_product.multiply(simd, x, x_sums, false);
            }
            *backward = !*backward;

            let (many_h, few_h) = h_and_x[..units].split_at_mut(many * LANES);
            let (many_h, few_h) = (many_h.as_chunks_mut().0, few_h.as_chunks_mut().0);
            let (many_y, few_y) = y.split_at_mut(many * LANES);
            let (mut from_h, mut from_x) = (sums.as_chunks().0, x_sums.as_chunks().0);
            let mut own;
            for ((h, c), y) in many_h.iter_mut().zip(&mut *many_c).zip(many_y.as_chunks_mut().0) {
                (own, from_h) = from_h.split_at(U::FROM_H);
                let own_x;
                (own_x, from_x) = from_x.split_at(x_width);
                U::many(own, own_x, h, c);
                *y = *h;
            }
            for (q, ((h, c), sums)) in few_h.iter_mut().zip(&mut *few_c).zip(from_h).enumerate() {
                U::few(sums, h, c);
                let y = &mut few_y[q * FEW..];
                match y.first_chunk_mut() {
                    Some(y) => *y = *h,
                    None => y.iter_mut().zip(h).for_each(|(y, &mut h)| *y = h),
                }
            }
        }
    }
}
