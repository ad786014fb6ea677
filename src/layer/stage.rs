//! The parts of a [`Stream`](crate::stream::Stream): each does the steps of one layer, for one sequence.

use crate::base::Tensors;
use crate::kernels::Float;

/// A layer as a part of a stream: its weights in the order of its kernel, its state and its buffers.
pub trait Stage<F>: Send {
    /// O, the number of output features.
    fn output(&self) -> usize;

    /// Computes `y`, `[T, O]`, from the next T steps `x`, `[T, I]`. T is given, because a division takes as long as some layers.
    fn run(&mut self, steps: usize, x: &[F], y: &mut [F]);

    /// The number of tensors that it has in the model's state.
    fn tensors(&self) -> usize {
        0
    }

    /// Takes its state from the model's.
    fn load(&mut self, _state: &dyn Tensors<F>, _at: Place) {}

    /// Writes its state to the model's.
    fn store(&self, _state: &mut dyn Tensors<F>, _at: Place) {}

    /// Appends `y = W y + b` with `rows` `[O, I + 1]` of W and b, for a few outputs; returns `false` if it cannot.
    fn add_linear(&mut self, _rows: &[F], _output: usize) -> bool {
        false
    }

    /// A copy.
    fn boxed(&self) -> Box<dyn Stage<F>>;
}

/// The place of a stage's state in the model's, for one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The index of its first tensor.
    pub first: usize,
    /// The index of the cell, if each tensor holds the values of several cells, one after another.
    pub cell: usize,
}

impl Place {
    /// The front, for a single cell.
    pub const FRONT: Self = Place { first: 0, cell: 0 };

    /// Copies `to.len()` values of the `i`th tensor.
    pub fn read<F: Copy>(self, state: &dyn Tensors<F>, i: usize, to: &mut [F]) {
        let values = state.tensor(self.first + i).1;
        to.copy_from_slice(&values[self.cell * to.len()..][..to.len()]);
    }

    /// Copies `from` to the `i`th tensor.
    pub fn write<F: Copy>(self, state: &mut dyn Tensors<F>, i: usize, from: &[F]) {
        let values = state.tensor_mut(self.first + i);
        values[self.cell * from.len()..][..from.len()].copy_from_slice(from);
    }
}

/// The stages of a model, first to last, as they are put together.
pub struct Stages<F> {
    features: usize,
    list: Vec<Box<dyn Stage<F>>>,
}

impl<F> std::fmt::Debug for Stages<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages").field("features", &self.features).field("count", &self.list.len()).finish()
    }
}

impl<F> Stages<F> {
    /// No stages yet, for `input` features.
    pub fn new(input: usize) -> Self {
        Stages { features: input, list: Vec::new() }
    }

    /// The number of features that the next stage is given.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Appends a stage.
    pub fn push(&mut self, stage: Box<dyn Stage<F>>) {
        self.features = stage.output();
        self.list.push(stage);
    }

    /// Appends an [affine map](Stage::add_linear) to the last stage; returns `false` if that cannot be done.
    pub fn add_linear(&mut self, rows: &[F], output: usize) -> bool {
        let added = self.list.last_mut().is_some_and(|last| last.add_linear(rows, output));
        if added {
            self.features = output;
        }
        added
    }
}

/// The maximum number of steps that one stage does before the next.
pub(crate) const BLOCK: usize = 64;

/// Stages one after another, with the memory between them.
pub(crate) struct Chain<F> {
    stages: Vec<Box<dyn Stage<F>>>,
    /// The outputs of all stages but the last, `[BLOCK, O]` each.
    between: Vec<Vec<F>>,
}

impl<F: Float> Chain<F> {
    /// A chain of `stages`; the identity if there are none.
    pub fn new(stages: Stages<F>) -> Self {
        let stages = stages.list;
        let but_last = stages.iter().take(stages.len().saturating_sub(1));
        let between = but_last.map(|stage| vec![F::zero(); BLOCK * stage.output()]).collect();
        Chain { stages, between }
    }

    /// Computes `y`, `[T, O]`, from the next T steps `x`, `[T, I]`, at most [`BLOCK`].
    #[inline]
    pub fn run(&mut self, steps: usize, x: &[F], y: &mut [F]) {
        let Some((last, stages)) = self.stages.split_last_mut() else { return y.copy_from_slice(x) };
        let mut x = x;
        for (stage, to) in stages.iter_mut().zip(&mut self.between) {
            let to = &mut to[..steps * stage.output()];
            stage.run(steps, x, to);
            x = to;
        }
        last.run(steps, x, y);
    }

    /// The number of tensors that the stages have in the model's state.
    pub fn tensors(&self) -> usize {
        self.stages.iter().map(|stage| stage.tensors()).sum()
    }

    /// Takes the stages' states from the model's.
    pub fn load(&mut self, state: &dyn Tensors<F>, at: Place) {
        let Place { mut first, cell } = at;
        for stage in &mut self.stages {
            stage.load(state, Place { first, cell });
            first += stage.tensors();
        }
    }

    /// Writes the stages' states to the model's.
    pub fn store(&self, state: &mut dyn Tensors<F>, at: Place) {
        let Place { mut first, cell } = at;
        for stage in &self.stages {
            stage.store(state, Place { first, cell });
            first += stage.tensors();
        }
    }
}

impl<F: Float> Clone for Chain<F> {
    fn clone(&self) -> Self {
        Chain { stages: self.stages.iter().map(|stage| stage.boxed()).collect(), between: self.between.clone() }
    }
}

/// One of several cells whose states are stacked, tensor by tensor.
pub(crate) struct StackedStage<F> {
    pub stage: Box<dyn Stage<F>>,
    pub cell: usize,
    pub is_last: bool,
}

impl<F: 'static> Stage<F> for StackedStage<F> {
    fn output(&self) -> usize {
        self.stage.output()
    }

    fn run(&mut self, steps: usize, x: &[F], y: &mut [F]) {
        self.stage.run(steps, x, y);
    }

    /// The tensors are counted once, by the last cell.
    fn tensors(&self) -> usize {
        if self.is_last { self.stage.tensors() } else { 0 }
    }

    fn load(&mut self, state: &dyn Tensors<F>, at: Place) {
        self.stage.load(state, Place { cell: self.cell, ..at });
    }

    fn store(&self, state: &mut dyn Tensors<F>, at: Place) {
        self.stage.store(state, Place { cell: self.cell, ..at });
    }

    fn add_linear(&mut self, rows: &[F], output: usize) -> bool {
        self.stage.add_linear(rows, output)
    }

    fn boxed(&self) -> Box<dyn Stage<F>> {
        Box::new(StackedStage { stage: self.stage.boxed(), ..*self })
    }
}
