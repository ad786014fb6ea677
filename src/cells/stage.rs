//! Cells in a stream: one sequence, one step after another.
//!
//! ```text
//! v = [x; h]
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

/// The number of units in each of the last groups, whose gates are side by side.
pub(super) const FEW: usize = 4;

/// The part of a cell that a stream needs: its equations, for several units at once.
pub(super) trait Units<F>: 'static {
    /// The number of sums of a unit, at most four; those with a part of h come first.
    const SUMS: usize;
    /// The number of sums that have a part of h.
    const FROM_H: usize;
    /// Whether there is a memory beside h.
    const MEMORY: bool;

    /// h and c of sixteen units, from their sums: those with a part of h, and those without.
    fn many(from_h: &[[F; LANES]], from_x: &[[F; LANES]], h: &mut [F; LANES], c: &mut [F; LANES]);

    /// h and c of four units. `sums` holds their sums, gate by gate.
    fn few(sums: &[F; LANES], h: &mut [F; FEW], c: &mut [F; FEW]);
}

/// The terms of a unit's sum, `bias + W_ih x + W_hh h`; a sum without x or h has no weights for it.
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
    /// The logistic function of each sum if its `times` is 1, the tanh if it is 2.
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

/// How units are grouped, and where their sums are among the columns of a product.
///
/// ```text
/// [many][sums][16], then [few][16], of which a group's sums take 4 each
/// ```
struct Groups {
    many: usize, // groups of sixteen units
    few: usize,  // groups of four
}

impl Groups {
    /// The groups of `hidden` units. Nine to fifteen units are fastest as sixteen.
    fn of(hidden: usize) -> Self {
        match (hidden / LANES, hidden % LANES) {
            (many, rest) if rest > 2 * FEW => Groups { many: many + 1, few: 0 },
            (many, rest) => Groups { many, few: rest.div_ceil(FEW) },
        }
    }

    /// The number of units in whole groups.
    fn units(&self) -> usize {
        self.many * LANES + self.few * FEW
    }

    /// A column's sum and unit, if groups of sixteen have `sums` sums.
    fn place(&self, column: usize, sums: usize) -> (usize, usize) {
        let group = sums * LANES;
        match column.checked_sub(self.many * group) {
            None => (column % group / LANES, column / group * LANES + column % LANES),
            Some(rest) => (rest % LANES / FEW, self.many * LANES + rest / LANES * FEW + rest % FEW),
        }
    }
}

/// A cell in a stream.
pub(super) struct CellStage<F, U> {
    vectors: Vectors,
    input: usize,
    hidden: usize,
    many: usize,                  // groups of sixteen units
    products: [RowWeights<F>; 2], // of x and h, and of x alone
    sums: [Aligned<F>; 2],
    x_and_h: Aligned<F>, // x, at the end of whole vectors, then h, padded to whole groups
    c: Aligned<F>,       // padded to whole groups
    head: Option<Head<F>>,
    backward: bool,
    units: PhantomData<fn() -> U>,
}

impl<F: Float, U: Units<F>> CellStage<F, U> {
    /// A cell of `hidden` units; `sum(s, u)` is the `s`th sum of unit u.
    pub(super) fn boxed<'a>(
        input: usize,
        hidden: usize,
        sum: &dyn Fn(usize, usize) -> UnitSum<'a, F>,
    ) -> Box<dyn Stage<F>> {
        let (vectors, groups) = (Vectors::best(), Groups::of(hidden));
        // 0 past the cell's last sum or last unit.
        let value = |(s, u): (usize, usize), of: &dyn Fn(UnitSum<'a, F>) -> Option<F>| {
            if s < U::SUMS && u < hidden { of(sum(s, u)).unwrap_or(F::zero()) } else { F::zero() }
        };
        let bias = |place| value(place, &|sum| Some(sum.bias));
        let weight_ih = |i: usize, place| value(place, &|sum| sum.weight_ih.map(|row| row[i]));
        let weight_hh = |k: usize, place| value(place, &|sum| sum.weight_hh.map(|row| row[k]));

        let place = |column| groups.place(column, U::FROM_H);
        let both = RowWeights::new(
            vectors,
            [input + hidden, (groups.many * U::FROM_H + groups.few) * LANES],
            &|column| bias(place(column)),
            &|k, column| match k.checked_sub(input) {
                None => weight_ih(k, place(column)),
                Some(k) => weight_hh(k, place(column)),
            },
        );
        let place = |column| {
            let (s, u) = groups.place(column, U::SUMS - U::FROM_H);
            (U::FROM_H + s, u)
        };
        let x_alone = RowWeights::new(
            vectors,
            [input, groups.many * (U::SUMS - U::FROM_H) * LANES],
            &|column| bias(place(column)),
            &|i, column| weight_ih(i, place(column)),
        );
        let units = groups.units();
        Box::new(CellStage::<F, U> {
            vectors,
            input,
            hidden,
            many: groups.many,
            sums: [&both, &x_alone].map(|product| Aligned::zeros(product.columns())),
            products: [both, x_alone],
            x_and_h: Aligned::zeros(input.next_multiple_of(LANES) + units),
            c: Aligned::zeros(units),
            head: None,
            backward: false,
            units: PhantomData,
        })
    }
}

impl<F, U> CellStage<F, U> {
    /// Where h begins in `x_and_h`.
    #[inline(always)]
    fn first_of_h(&self) -> usize {
        self.input.next_multiple_of(LANES)
    }
}

impl<F: Float, U: Units<F>> Stage<F> for CellStage<F, U> {
    fn output(&self) -> usize {
        self.head.as_ref().map_or(self.hidden, |head| head.bias.len())
    }

    fn run(&mut self, steps: usize, x: &[F], y: &mut [F]) {
        self.vectors.run(Steps { stage: self, steps, x, y });
    }

    fn tensors(&self) -> usize {
        1 + usize::from(U::MEMORY)
    }

    fn load(&mut self, state: &dyn Tensors<F>, at: Place) {
        let first = self.first_of_h();
        at.read(state, 0, &mut self.x_and_h.values_mut()[first..][..self.hidden]);
        if U::MEMORY {
            at.read(state, 1, &mut self.c.values_mut()[..self.hidden]);
        }
    }

    fn store(&self, state: &mut dyn Tensors<F>, at: Place) {
        at.write(state, 0, &self.x_and_h.values()[self.first_of_h()..][..self.hidden]);
        if U::MEMORY {
            at.write(state, 1, &self.c.values()[..self.hidden]);
        }
    }

    fn add_linear(&mut self, rows: &[F], output: usize) -> bool {
        if self.head.is_some() {
            return false;
        }
        let units = self.c.values().len();
        let mut head = Head { weight: Aligned::zeros(output * units), bias: Vec::new() };
        for (row, to) in rows.chunks_exact(self.hidden + 1).zip(head.weight.values_mut().chunks_exact_mut(units)) {
            to[..self.hidden].copy_from_slice(&row[..self.hidden]);
            head.bias.push(row[self.hidden]);
        }
        self.head = Some(head);
        true
    }

    fn boxed(&self) -> Box<dyn Stage<F>> {
        let CellStage { products, sums, x_and_h, c, head, .. } = self;
        let (products, sums, x_and_h, c) = (products.clone(), sums.clone(), x_and_h.clone(), c.clone());
        Box::new(CellStage::<F, U> { products, sums, x_and_h, c, head: head.clone(), ..*self })
    }
}

/// `y = W h + b`, for a few outputs.
#[derive(Clone)]
struct Head<F> {
    weight: Aligned<F>, // [O, H padded to whole groups]
    bias: Vec<F>,       // [O]
}

impl<F: Float> Head<F> {
    #[inline(always)]
    fn apply(&self, h: &[F], y: &mut [F]) {
        let weight = self.weight.values();
        for (o, (y, &bias)) in y.iter_mut().zip(&self.bias).enumerate() {
            let row = &weight[o * h.len()..][..h.len()];
            let ((h, few_h), (w, few_w)) = (h.as_chunks::<LANES>(), row.as_chunks::<LANES>());
            let mut sums = [F::zero(); LANES];
            for (h, w) in h.iter().zip(w) {
                for lane in 0..LANES {
                    sums[lane] = h[lane].mul_add(w[lane], sums[lane]);
                }
            }
            let fours = sums.as_chunks::<FEW>().0;
            let mut sums: [F; FEW] =
                std::array::from_fn(|lane| (fours[0][lane] + fours[1][lane]) + (fours[2][lane] + fours[3][lane]));
            for (h, w) in few_h.as_chunks::<FEW>().0.iter().zip(few_w.as_chunks::<FEW>().0) {
                for lane in 0..FEW {
                    sums[lane] = h[lane].mul_add(w[lane], sums[lane]);
                }
            }
            *y = (sums[0] + sums[1]) + (sums[2] + sums[3]) + bias;
        }
    }
}

/// Copies as many values of `h` as `y` has room for.
#[inline(always)]
fn copy<F: Float>(h: &[F], y: &mut [F]) {
    let (chunks, rest) = y.as_chunks_mut::<FEW>();
    let (h, h_rest) = h[..chunks.len() * FEW + rest.len()].as_chunks::<FEW>();
    chunks.iter_mut().zip(h).for_each(|(y, h)| *y = *h);
    rest.iter_mut().zip(h_rest).for_each(|(y, &h)| *y = h);
}

/// The steps `x`, `[T, I]`, to `y`, `[T, O]`.
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
        let (output, first) = (stage.output(), stage.first_of_h());
        let CellStage {
            input,
            hidden,
            many,
            products: [product, x_product],
            sums: [sums, x_sums],
            x_and_h,
            c,
            head,
            backward,
            ..
        } = stage;
        let (x_and_h, sums, x_sums, c) = (x_and_h.values_mut(), sums.values_mut(), x_sums.values_mut(), c.values_mut());
        let (input, many, x_width) = (*input, *many, U::SUMS - U::FROM_H);
        let (many_c, few_c) = c.split_at_mut(many * LANES);
        let (many_c, few_c) = (many_c.as_chunks_mut().0, few_c.as_chunks_mut().0);
        for t in 0..steps {
            let (x, y) = (&x[t * input..][..input], &mut y[t * output..][..output]);
            // Not a call to memcpy, which takes longer than copying one or two values.
            x_and_h[first - input..].iter_mut().zip(x).for_each(|(to, &x)| *to = x);
            product.multiply(simd, &x_and_h[first - input..first + *hidden], sums, *backward);
            if x_width > 0 && many > 0 {
                x_product.multiply(simd, x, x_sums, false);
            }
            *backward = !*backward;

            let h = &mut x_and_h[first..];
            let (many_h, few_h) = h.split_at_mut(many * LANES);
            let (mut from_h, mut from_x) = (sums.as_chunks().0, x_sums.as_chunks().0);
            for (h, c) in many_h.as_chunks_mut().0.iter_mut().zip(&mut *many_c) {
                let (own, own_x);
                (own, from_h) = from_h.split_at(U::FROM_H);
                (own_x, from_x) = from_x.split_at(x_width);
                U::many(own, own_x, h, c);
            }
            for ((h, c), sums) in few_h.as_chunks_mut().0.iter_mut().zip(&mut *few_c).zip(from_h) {
                U::few(sums, h, c);
            }
            match head {
                Some(head) => head.apply(h, y),
                None => copy(h, y),
            }
        }
    }
}
