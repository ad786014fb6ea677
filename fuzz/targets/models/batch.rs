//! The input of a model, in a memory layout that a caller may use.

use std::fmt;

use gradflow::ndarray::{Array2, Array3, ArrayView1, ArrayView3, Axis};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::{Float, Sequence};

use super::build::{Input, Spec};
use crate::targets::choices::Choices;
use crate::targets::layout::Layout;
use crate::targets::panic_of;

/// The sizes of a batch. The model is made for them.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub steps: usize,
    pub batch: usize,
    pub features: usize,
    tokens: bool,
}

impl Shape {
    pub fn choose(choices: &mut Choices<'_>) -> Shape {
        let mut size = |small: usize| match choices.below(16) {
            0 => choices.below(71), // any, 0 too
            1..=5 => 1 + choices.below(70),
            6 => 1,
            _ => 1 + choices.below(small),
        };
        Shape { steps: size(9), batch: size(6), features: size(9).max(1), tokens: choices.once_in(6) }
    }

    pub fn input(self) -> Input {
        if self.tokens { Input::Tokens(self.features) } else { Input::Features(self.features) }
    }
}

/// A batch, and how it is passed to a model.
pub struct Batch {
    pub shape: Shape,
    pub layout: Layout,
    pub lengths: Option<Vec<usize>>,
    pub mask: Option<Array2<bool>>,
    pub resets: Option<Array2<bool>>,
    pub reversed: bool,
    /// The seed of a training pass; otherwise it is an evaluation.
    pub train: Option<u64>,
    pub constant: bool,
    pub x: Array3<f64>,
    pub ids: Array2<usize>,
    pub seed: u64,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Batch { shape, layout, lengths, mask, resets, reversed, train, constant, seed, .. } = self;
        write!(f, "{shape:?}, {layout:?}, lengths {lengths:?}, reversed {reversed}, train {train:?}, ")?;
        let rows = |marks: &Option<Array2<bool>>| {
            let row = |row: ArrayView1<'_, bool>| row.iter().map(|&mark| u8::from(mark)).collect::<Vec<_>>();
            marks.as_ref().map(|marks| marks.rows().into_iter().map(row).collect::<Vec<_>>())
        };
        write!(f, "mask {:?}, resets {:?}, ", rows(mask), rows(resets))?;
        write!(f, "constant {constant}, seed {seed}")
    }
}

/// Rough limit for the work of one pass, in multiplications.
const WORK: usize = 1 << 20;

impl Batch {
    pub fn choose(choices: &mut Choices<'_>, mut shape: Shape, spec: &Spec) -> Batch {
        use gradflow::TensorsExt;
        // Large models usually get small batches.
        let work = if choices.once_in(32) { 8 * WORK } else { WORK };
        // Some models that accept no input at all cannot be built either.
        let weights = panic_of(|| spec.build::<f32>().element_count()).unwrap_or(0).max(1);
        while shape.steps * shape.batch * weights > work && shape.steps * shape.batch > 1 {
            let larger = if shape.steps >= shape.batch { &mut shape.steps } else { &mut shape.batch };
            *larger = larger.div_ceil(2);
        }
        let layout = choices.one_of(&Layout::ALL);
        let seed = u64::from(choices.byte());
        let rng = &mut StdRng::seed_from_u64(seed);
        let size = choices.one_of(&[1.0, 1.0, 1.0, 0.01, 10.0]);
        let Shape { steps, batch, features, .. } = shape;
        let mut x = Array3::from_shape_simple_fn((steps, batch, features), || {
            f64::from(rng.random_range(-1.0..1.0_f32)) * size
        });
        x.mapv_inplace(|value| f64::from(value as f32));
        // Makes the values fit a stride of 0.
        for (layout_is, axis) in [(Layout::BroadcastBatch, Axis(1)), (Layout::BroadcastSteps, Axis(0))] {
            if layout == layout_is && x.len_of(axis) > 0 {
                let first = x.index_axis(axis, 0).to_owned();
                x.axis_iter_mut(axis).for_each(|mut row| row.assign(&first));
            }
        }
        let ids = Array2::from_shape_simple_fn((steps, batch), || rng.random_range(0..features));
        let lengths = (choices.yes() && steps > 0)
            .then(|| (0..batch).map(|_| if choices.yes() { steps } else { choices.below(steps + 1) }).collect());
        let mut marks = |one_in: usize, share: f64| {
            choices.once_in(one_in).then(|| Array2::from_shape_simple_fn((steps, batch), || rng.random_bool(share)))
        };
        let (mask, resets) = (marks(4, 0.7), marks(3, 0.3));
        let (mask, resets) = if spec.has_stride() { (None, None) } else { (mask, resets) };
        let train = choices.yes().then(|| u64::from(choices.byte()));
        Batch {
            shape,
            layout,
            lengths,
            mask,
            resets,
            reversed: choices.once_in(4),
            train,
            constant: choices.once_in(8),
            x,
            ids,
            seed,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.shape.steps == 0 || self.shape.batch == 0
    }

    /// The values in another element type.
    pub fn values<F: Float>(&self) -> Array3<F> {
        self.x.mapv(F::of)
    }

    /// The model's input: `x`, which holds the values in any layout, with the settings of the batch.
    pub fn sequence<'a, F: Float>(&'a self, x: ArrayView3<'a, F>, lengths: Option<&'a [usize]>) -> Sequence<'a, F> {
        let mut sequence = if self.shape.tokens { Sequence::from(&self.ids) } else { Sequence::from(x) };
        if let Some(lengths) = lengths {
            sequence = sequence.with_lengths(lengths).expect("lengths that fit");
        }
        if let Some(mask) = &self.mask {
            sequence = sequence.with_mask(mask);
        }
        if let Some(resets) = &self.resets {
            sequence = sequence.with_resets(resets);
        }
        if self.reversed {
            sequence = sequence.reversed();
        }
        if self.constant {
            sequence = sequence.constant();
        }
        match self.train {
            Some(seed) => sequence.train(seed),
            None => sequence.eval(),
        }
    }
}
