//! A layer of your own, written outside the crate: exponential smoothing with a learned decay for each feature.
//!
//! ```text
//! cargo run --release --example custom_layer
//! ```
//!
//! ```text
//! a = σ(rate)    y_t = s_t = a ∘ s_{t-1} + (1 - a) ∘ x_t
//! ```
//!
//! It has a state, a parameter and lengths, and its backward pass is derived by hand, from the last step to the first:
//!
//! ```text
//! ds_t = dy_t + a ∘ ds_{t+1}                          the state is the output, and enters the next state
//! dx_t = (1 - a) ∘ ds_t
//! drate = Σ_t ds_t ∘ (s_{t-1} - x_t) ∘ a ∘ (1 - a)    as dσ/drate = a (1 - a)
//! ```

use gradflow::author::{Pending, check_shape, reuse};
use gradflow::check::Contract;
use gradflow::ndarray::{Array1, Array2, Array3, ArrayRef3, ArrayView3};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::{
    Causal, Float, Layer, Sequence, ZerosLike,
    author::{Gradient, Size, SizeError},
    check::GradCheck,
    layers::Linear,
    loss::{Loss, MeanSquaredError},
    optim::{Adam, Optimizer},
    parameters,
};

const NAME: &str = "Smoothing";

/// `[T, B, D]` to `[T, B, D]`.
#[derive(Clone, Debug)]
struct Smoothing<F> {
    /// `[D]`
    rate: Array1<F>,
}
parameters! { impl<F: Float> Tensors<F> for Smoothing<F> { rate } }

impl<F: Float> Smoothing<F> {
    /// Every decay starts at one half.
    fn new(features: usize) -> Self {
        Smoothing { rate: Array1::zeros(features) }
    }

    /// a
    fn decay(&self, feature: usize) -> F {
        F::one() / (F::one() + (-self.rate[feature]).exp())
    }

    /// Panics if a state, or its gradient, is not one of this layer for this batch.
    fn check_state(&self, state: &Array2<F>, x: &Sequence<'_, F>) {
        check_shape(NAME, "state", &[x.state_rows(), self.rate.len()], state.shape());
    }
}

/// Buffers, made once and reused; and the mark that a backward pass may follow.
#[derive(Default)]
struct SmoothingCache<F> {
    pending: Pending,
    before: Array3<F>, // [T, B, D]: s_{t-1}
    y: Array3<F>,      // [T, B, D]
    s: Array1<F>,      // [D]: s_t of one sequence, and ds_t on the way back
    dx: Array3<F>,     // [T, B, D]
}

impl<F: Float> Layer for Smoothing<F> {
    type Elem = F;
    type State = Array2<F>; // [B, D]
    type Cache = SmoothingCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        let features = self.rate.len();
        if input == Size::Features(features) { Ok(features) } else { Err(SizeError::features(NAME, features, input)) }
    }

    fn zero_state(&self, batch: usize) -> Array2<F> {
        Array2::zeros((batch, self.rate.len()))
    }

    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        state: &mut Array2<F>,
        cache: &'c mut SmoothingCache<F>,
    ) -> ArrayView3<'c, F> {
        let mark = cache.pending.begin(self, x);
        let features = x.features(NAME, Some(self.rate.len()));
        self.check_state(state, x);
        let SmoothingCache { before, y, s, .. } = cache;
        reuse(before, features.dim());
        reuse(y, features.dim());
        reuse(s, self.rate.len());
        // A piece is a sequence, or a part of one that starts from its own state.
        for piece in x.pieces() {
            match piece.initial {
                Some(row) => s.assign(&state.row(row)),
                None => s.fill(F::zero()),
            }
            for t in x.steps_of(&piece) {
                for (d, s) in s.iter_mut().enumerate() {
                    let (at, a) = ([t, piece.sequence, d], self.decay(d));
                    before[at] = *s;
                    *s = a * *s + (F::one() - a) * features[at];
                    y[at] = *s;
                }
            }
            if let Some(row) = piece.last {
                state.row_mut(row).assign(s);
            }
        }
        x.zero_padding(y);
        mark.set();
        cache.y.view()
    }

    fn output<'c>(&self, cache: &'c SmoothingCache<F>) -> ArrayView3<'c, F> {
        cache.y.view()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut Array2<F>>,
        cache: &'c mut SmoothingCache<F>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, F> {
        let grad = grad.to_add();
        let features = x.features(NAME, Some(self.rate.len()));
        let SmoothingCache { pending, before, s: ds, dx, .. } = cache;
        pending.take(NAME, self, x, dy, self.rate.len());
        reuse(dx, features.dim());
        let mut dstate = dstate;
        if let Some(dstate) = &dstate {
            self.check_state(dstate, x);
        }
        for piece in x.pieces_backward() {
            match (&dstate, piece.last) {
                (Some(dstate), Some(row)) => ds.assign(&dstate.row(row)),
                _ => ds.fill(F::zero()),
            }
            for t in x.steps_of(&piece).rev() {
                for (d, ds) in ds.iter_mut().enumerate() {
                    let (at, a) = ([t, piece.sequence, d], self.decay(d));
                    *ds += dy[at];
                    dx[at] = (F::one() - a) * *ds;
                    grad.rate[d] += *ds * (before[at] - features[at]) * a * (F::one() - a);
                    *ds = a * *ds;
                }
            }
            if let (Some(dstate), Some(row)) = (&mut dstate, piece.initial) {
                dstate.row_mut(row).assign(ds);
            }
        }
        x.zero_padding(dx);
        dx.view()
    }
}

/// No output needs a later input, so `step` comes for free.
impl<F: Float> Causal for Smoothing<F> {}

fn main() {
    let rng = &mut StdRng::seed_from_u64(0);
    let layer = Smoothing::<f64>::new(2);

    Contract::new(NAME, &layer, 2).check_causal();
    println!("The layer keeps the contract: lengths, chunks, caches, streams, padding.\n");

    let x = Array3::from_shape_simple_fn((5, 3, 2), || rng.random_range(-1.0..1.0));
    let state = Array2::from_shape_simple_fn((3, 2), || rng.random_range(-1.0..1.0));
    let sequences = Sequence::from(&x).with_lengths(&[3, 5, 1]).expect("lengths within the steps");
    let report = GradCheck::new().check(&layer, sequences, &state);
    print!("The gradients, against finite differences:\n{report}");
    assert!(report.passed());

    // In a model like any other layer: it finds the decays and the weights that generated the data.
    let truth = (
        Smoothing { rate: Array1::from_vec(vec![0.9, 0.3]).map(|a: &f64| (a / (1.0 - a)).ln()) },
        Linear { weight: Array2::from_shape_vec((1, 2), vec![2.0, -1.0]).expect("one row of two"), bias: None },
    );
    let mut model = (layer, Linear::builder(2, 1).bias(false).build(rng));
    let (mut cache, mut grad) = (model.cache(), model.zeros_like());
    let (mut squared_error, mut optimizer) = (MeanSquaredError::new(), Adam::new(0.02));
    println!("\nTraining for decays [0.9, 0.3] and weights [2, -1]:");
    for update in 1..=500 {
        let x = Array3::from_shape_simple_fn((50, 8, 2), || rng.random_range(-1.0..1.0));
        let target = truth.forward(&x, &mut truth.zero_state(8), &mut truth.cache()).to_owned();
        let mut state = model.zero_state(8);
        let pass = model.pass(&x, &mut state, &mut cache);
        let loss = squared_error.of(&pass, &target);
        let error = loss.value();
        pass.backward_into(loss.gradient(), &mut grad);
        optimizer.step(&mut model, &grad);
        if update % 100 == 0 {
            let (decays, weights) = ([model.0.decay(0), model.0.decay(1)], model.1.weight.row(0));
            println!("{update:>4}  error {error:.1e}  decays {decays:.3?}  weights {weights:.3}");
        }
    }
}
