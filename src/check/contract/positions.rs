//! The contract of padding anywhere and of resets: the same numbers as those of the parts, each run alone.

use ndarray::{Array2, Array3, ArrayRef2, Axis, arr2, concatenate, s};

use super::batch::Batch;
use super::values::{BATCH, EMPTY, LENGTHS, MASK, RESETS, STEPS, all_near, output_gradient};
use super::{Contract, InMode, Outcome};
use crate::base::{TensorsExt, ZerosLike};
use crate::layer::{Causal, Layer, Sequence, Steps};

impl<L: Layer> Contract<'_, L> {
    /// A layer with an output for one of every few steps takes no mask and no resets.
    pub(super) fn takes_marks(&self) -> bool {
        !matches!(self.layer.output_steps(), Steps::Every(_))
    }

    /// With a mask, or a length of 0, each sequence gives the same as its valid steps alone, one after the other.
    pub(super) fn valid_steps_are_all(&self) {
        let (batch, mut mask) = (self.batch(STEPS, BATCH), arr2(&MASK));
        let changes_steps = self.layer.output_steps() != Steps::Same;
        if !self.takes_marks() {
            return;
        }
        if changes_steps {
            // After a change of steps, all sequences have outputs; that of a sequence without steps depends on the layers after
            // it.
            mask[[0, 2]] = true;
        }
        let masked = batch.with_junk(&mask);
        self.compare_with_valid_steps("with a mask", &batch, masked.sequence().with_mask(&mask), &mask);
        if changes_steps {
            return;
        }
        let within = Array2::from_shape_fn((STEPS, BATCH), |(t, b)| t < EMPTY[b]);
        let padded = batch.with_junk(&within);
        let x = padded.sequence().with_lengths(&EMPTY).expect("lengths that fit");
        self.compare_with_valid_steps("with a length of 0", &batch, x, &within);
    }

    fn compare_with_valid_steps(
        &self,
        what: &str,
        batch: &Batch<L::Elem>,
        x: Sequence<'_, L::Elem>,
        valid: &ArrayRef2<bool>,
    ) {
        let (x, changes_steps) = (x.eval(), self.layer.output_steps() != Steps::Same);
        let (mut state, mut cache) = (self.state(BATCH), self.layer.cache());
        let y = self.layer.forward(x, &mut state, &mut cache).to_owned();
        let dy = output_gradient(y.dim());
        let steps_of = |b: usize| (0..STEPS).filter(|&t| valid[[t, b]]).collect::<Vec<_>>();
        let all = self.backward(x, y, &dy, state, &mut cache);
        let mut sum = self.layer.zeros_like();
        for b in 0..BATCH {
            let steps = steps_of(b);
            let of_output = |values: &Array3<L::Elem>| match changes_steps {
                true => values.slice(s![.., b..b + 1, ..]).to_owned(),
                false => select(values, &steps, b),
            };
            let mut state = self.layer.select_state(&self.state(BATCH), &[b]);
            let mut dstate = self.layer.select_state(&self.seed_gradient(&all.state), &[b]);
            if !steps.is_empty() {
                let (one, mut cache) = (batch.select(&steps, b), self.layer.cache());
                let one = one.sequence().eval();
                let y = self.layer.forward(one, &mut state, &mut cache).to_owned();
                let dx = self.layer.backward(one, &of_output(&dy), Some(&mut dstate), &mut cache, &mut sum).to_owned();
                self.assert(all_near(&y, &of_output(&all.y)), &format!("{what}, y is not that of the valid steps"));
                let dx_fits = self.input_is_tokens() || all_near(&dx, &select(&all.dx, &steps, b));
                self.assert(dx_fits, &format!("{what}, dL/dx is not that of the valid steps"));
            }
            let expected = self.layer.select_state(&all.state, &[b]);
            let what_of_state = format!("{what}, the final state is not that of the valid steps");
            self.assert(all_near(&state, &expected), &what_of_state);
            let expected = self.layer.select_state(&all.dstate, &[b]);
            self.assert(all_near(&dstate, &expected), &format!("{what}, the initial state has another gradient"));
            let is_zero = |values: &Array3<L::Elem>| {
                (0..STEPS)
                    .filter(|&t| !valid[[t, b]])
                    .all(|t| values.slice(s![t, b, ..]).iter().all(num_traits::Zero::is_zero))
            };
            self.assert(changes_steps || is_zero(&all.y), &format!("{what}, y is not zero in the padding"));
            self.assert(
                self.input_is_tokens() || is_zero(&all.dx),
                &format!("{what}, dL/dx is not zero in the padding"),
            );
        }
        self.assert(all_near(&sum, &all.grad), &format!("{what}, the gradient is not that of the valid steps"));
    }

    /// With resets, each piece gives the same as alone. If `carried`, the given states go to the first pieces and come from the
    /// last ones; otherwise they are those of a start.
    pub(super) fn pieces_are_apart(&self, mode: InMode<L::Elem>, carried: bool) {
        if self.layer.output_steps() != Steps::Same {
            return;
        }
        let (batch, resets) = (self.batch(STEPS, BATCH), arr2(&RESETS));
        let x = mode(batch.sequence()).with_resets(&resets);
        let given = || if carried { self.state(BATCH) } else { self.layer.zero_state(BATCH) };
        let seed = |state: &L::State| {
            let mut seed = self.seed_gradient(state);
            if !carried {
                seed.set_zero();
            }
            seed
        };
        let (mut state, mut cache, mut grad) = (given(), self.layer.cache(), self.layer.zeros_like());
        let y = self.layer.forward(x, &mut state, &mut cache).to_owned();
        let (dy, mut dstate) = (output_gradient(y.dim()), seed(&state));
        let dx = self.layer.backward(x, &dy, Some(&mut dstate), &mut cache, &mut grad).to_owned();
        let all = Outcome { y, state, dx, dstate, grad };

        let mut sum = self.layer.zeros_like();
        for piece in x.pieces() {
            let (b, steps) = (piece.sequence, piece.steps);
            let mut state = match piece.initial {
                Some(b) => self.layer.select_state(&given(), &[b]),
                None => self.layer.zero_state(1),
            };
            let mut dstate = self.layer.zero_state(1);
            dstate.set_zero();
            if let Some(b) = piece.last {
                dstate = self.layer.select_state(&seed(&all.state), &[b]);
            }
            if !steps.is_empty() {
                let one = mode(batch.sequence()).steps(steps.clone()).sequences(b..b + 1);
                let mut cache = self.layer.cache();
                let part = |values: &Array3<L::Elem>| values.slice(s![steps.clone(), b..b + 1, ..]).to_owned();
                let y = self.layer.forward(one, &mut state, &mut cache).to_owned();
                let dx = self.layer.backward(one, &part(&dy), Some(&mut dstate), &mut cache, &mut sum).to_owned();
                self.assert(all_near(&y, &part(&all.y)), "with resets, a piece gives another y than alone");
                let dx_fits = self.input_is_tokens() || all_near(&dx, &part(&all.dx));
                self.assert(dx_fits, "with resets, a piece gives another dL/dx than alone");
            }
            if let (true, Some(b)) = (carried, piece.last) {
                let expected = self.layer.select_state(&all.state, &[b]);
                self.assert(all_near(&state, &expected), "with resets, the final state is not that of the last piece");
            }
            if let (true, Some(b)) = (carried, piece.initial) {
                let expected = self.layer.select_state(&all.dstate, &[b]);
                self.assert(all_near(&dstate, &expected), "with resets, the gradient of the initial state is another");
            }
        }
        self.assert(all_near(&sum, &all.grad), "with resets, the gradient is not the sum of those of the pieces");
    }
}

impl<L: Causal> Contract<'_, L> {
    /// Padding and resets are the same in chunks.
    pub(super) fn chunks_keep_positions(&self) {
        let (batch, mask, resets) = (self.batch(STEPS, BATCH), arr2(&MASK), arr2(&RESETS));
        let x = batch.sequence().eval().with_resets(&resets);
        let lengths = x.with_lengths(&LENGTHS).expect("lengths that fit");
        for x in [x, lengths, lengths.with_mask(&mask)] {
            let whole = self.pass(x, self.state(BATCH), &mut self.layer.cache());
            let chunks: Vec<_> = x.chunks(STEPS / 2).collect();
            let mut caches = [self.layer.cache(), self.layer.cache()];
            let mut state = self.state(BATCH);
            let mut ys = Vec::new();
            for (&chunk, cache) in chunks.iter().zip(&mut caches) {
                ys.push(self.layer.forward(chunk, &mut state, cache).to_owned());
            }
            let y = concatenate![Axis(0), ys[0], ys[1]];
            self.assert(all_near(&y, &whole.y), "with resets, two chunks give another y than the whole");
            self.assert(all_near(&state, &whole.state), "with resets, two chunks end in another state than the whole");
            let (dy, mut dstate) = (output_gradient::<L::Elem>(y.dim()), self.seed_gradient(&state));
            let mut grad = self.layer.zeros_like();
            for (k, chunk) in chunks.into_iter().enumerate().rev() {
                let dy = dy.slice(s![k * STEPS / 2..(k + 1) * STEPS / 2, .., ..]);
                self.layer.backward(chunk, &dy, Some(&mut dstate), &mut caches[k], &mut grad);
            }
            let what = "with resets, two chunks give another gradient";
            self.assert(all_near(&dstate, &whole.dstate), &format!("{what} of the initial state"));
            self.assert(all_near(&grad, &whole.grad), what);
        }
    }
}

/// Some steps of a sequence, `[steps, 1, D]`.
fn select<F: Clone>(values: &Array3<F>, steps: &[usize], b: usize) -> Array3<F> {
    values.slice(s![.., b..b + 1, ..]).select(Axis(0), steps)
}
