//! The LSTM: how it is trained, and how it forecasts.

use std::ops::RangeInclusive;

use gradflow::ndarray::{Array3, arr3, aview1, s};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::{
    Causal, Layer, Sequence, ZerosLike,
    clip::{ClipNorm, NonFiniteGradient},
    layers::Linear,
    loss::{Loss, MeanSquaredError},
    optim::{Adam, Optimizer},
    recurrent::LstmCell,
    sequential,
};

use crate::series::{Forecasts, HORIZON, Series};

/// Copies of the series in a batch, each with different gaps.
const BATCH: usize = 8;

/// The probability that a gap begins in a year outside of one.
const GAP: f64 = 0.05;

/// The number of first years that do not count, because the state knows too little.
const WARM_UP: usize = 8;

/// The largest norm of a gradient.
const CLIP: f64 = 1.0;

/// The input for a year that is still to come.
const UNKNOWN: [f32; 2] = [0.0, 0.0];

sequential! {
    /// `[T, B, 2]` to `[T, B, 1]`: the next year's value, from this year's value and whether that is known.
    #[derive(Clone, Debug)]
    pub struct Network: Layer<f32> {
        pub lstm: LstmCell<f32>,
        pub head: Linear<f32>,
    }
}

/// How a network is made and trained.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    pub hidden: usize,
    pub learning_rate: f64,
    /// The logarithm of the largest factor by which a copy of the series is made stronger or weaker.
    pub strength: f32,
}

/// A network, and the unit of its numbers: the root mean square of the years of training.
pub struct Lstm {
    network: Network,
    unit: f64,
}

impl Lstm {
    fn scaled(&self, value: f64) -> f32 {
        (value / self.unit) as f32
    }

    /// No year has a number below 0.
    fn unscaled(&self, value: f32) -> f64 {
        f64::from(value).max(0.0) * self.unit
    }

    /// Forecasts from every origin, on one walk through the series.
    ///
    /// The state follows the known years. At an origin, a clone of it continues through unknown years.
    pub fn forecasts(&self, series: &Series, origins: RangeInclusive<usize>) -> Forecasts {
        let (mut state, mut cache) = (self.network.zero_state(1), self.network.cache());
        let mut seen = 0;
        Forecasts::new(series, origins, |origin, row| {
            let mut next = 0.0;
            for &value in &series.values()[seen..=origin] {
                next = self.network.step(&arr3(&[[[self.scaled(value), 1.0]]]), &mut state, &mut cache)[[0, 0]];
            }
            seen = origin + 1;
            row[0] = self.unscaled(next);
            let mut ahead = state.clone();
            for value in &mut row[1..] {
                *value = self.unscaled(self.network.step(&arr3(&[[UNKNOWN]]), &mut ahead, &mut cache)[[0, 0]]);
            }
        })
    }
}

/// A training of an [`Lstm`] on the years up to a given one.
pub struct Training {
    pub lstm: Lstm,
    scaled: Vec<f32>,
    strength: f32,
    optimizer: Adam<f32>,
    rng: StdRng,
}

impl Training {
    pub fn new(values: &[f64], recipe: Recipe, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let Recipe { hidden, learning_rate, strength } = recipe;
        let network = Network { lstm: LstmCell::new(2, hidden, &mut rng), head: Linear::new(hidden, 1, &mut rng) };
        let square = values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64;
        let lstm = Lstm { network, unit: square.sqrt() };
        let scaled = values.iter().map(|&value| lstm.scaled(value)).collect();
        Training { lstm, scaled, strength, optimizer: Adam::new(learning_rate), rng }
    }

    /// Makes a number of updates, each on the whole series.
    ///
    /// Two augmentations make up for the small number of years. A forecast of ten years goes through nine unknown ones, so gaps of
    /// one to nine years are cut into the series. And cycles to come may be stronger than any before, so every copy of the series
    /// is made weaker or stronger as a whole. Both are drawn anew for each update.
    pub fn run(&mut self, updates: usize) -> Result<(), NonFiniteGradient> {
        let Training { lstm: Lstm { network, .. }, scaled, strength, optimizer, rng } = self;
        let steps = scaled.len() - 1;
        let (mut x, mut target) = (Array3::zeros((steps, BATCH, 2)), Array3::zeros((steps, BATCH, 1)));
        let mut squared_error = MeanSquaredError::new().ignore(f64::NAN);
        let (mut cache, mut grad) = (network.cache(), network.zeros_like());
        for _ in 0..updates {
            for b in 0..BATCH {
                let factor = (*strength * rng.random_range(-1.0..1.0)).exp();
                let mut gap = 0;
                for t in 0..steps {
                    if gap == 0 && rng.random_bool(GAP) {
                        gap = rng.random_range(1..HORIZON);
                    }
                    let input = if gap > 0 { UNKNOWN } else { [factor * scaled[t], 1.0] };
                    gap = gap.saturating_sub(1);
                    x.slice_mut(s![t, b, ..]).assign(&aview1(&input));
                    target[[t, b, 0]] = if t < WARM_UP { f32::NAN } else { factor * scaled[t + 1] };
                }
            }
            let mut state = network.zero_state(BATCH);
            let pass = network.pass(Sequence::from(&x).constant(), &mut state, &mut cache);
            let loss = squared_error.of(&pass, &target);
            pass.backward_into(loss.gradient(), &mut grad);
            optimizer.step_clipped(network, &grad, ClipNorm::new(CLIP))?;
        }
        Ok(())
    }
}
