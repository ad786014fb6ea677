//! Gradient norms step by step and layer by layer, taken from an ordinary backward pass.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kernels::Float;

/// Collects the gradient norms of one model's [`Probed`](crate::wrap::Probed) layers, to show where gradients vanish and explode.
///
/// A probe starts switched off: a [`Probed`](crate::wrap::Probed) layer then only checks a flag, and nothing is computed or stored. While
/// it [records](GradientProbe::record), every backward pass replaces the norms of the pass before, and
/// [`flow`](GradientProbe::flow) reads them. Neither changes a bit of the gradients. Clones of a probe share the norms, as
/// do a model's clones. Several threads may use one model at once; each layer then shows its last pass.
///
/// ```
/// use gradflow::ndarray::Array3;
/// use gradflow::rand::{SeedableRng, rngs::StdRng};
/// use gradflow::{Layer, ZerosLike, layers::{Init, Linear}, recurrent::RnnCell, wrap::{GradientProbe, Probed}};
///
/// let (rng, probe) = (&mut StdRng::seed_from_u64(0), GradientProbe::new());
/// let cell = RnnCell::<f64>::builder(3, 8).weight_hh(Init::Orthogonal { gain: 0.5 }).build(rng);
/// let model = (Probed::recurrent("rnn", cell, &probe), Probed::new("head", Linear::new(8, 1, rng), &probe));
///
/// probe.record(true);
/// let (x, mut dy) = (Array3::ones((20, 2, 3)), Array3::zeros((20, 2, 1)));
/// dy[[19, 0, 0]] = 1.0; // the loss looks at the last step only
/// let (mut state, mut cache, mut grad) = (model.zero_state(2), model.cache(), model.zeros_like());
/// model.pass(&x, &mut state, &mut cache).backward(&dy, &mut grad);
///
/// let flow = probe.flow();
/// println!("{flow}");
/// let hidden = &flow.get("rnn").unwrap().hidden; // ‖dL/dh_t‖, t = 0, 1 …
/// assert!(hidden[0] < 1e-5 * hidden[19]); // vanished: at least halved with every step
/// assert_eq!(flow.get("head").unwrap().output[19], 1.0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct GradientProbe(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    recording: AtomicBool,
    layers: Mutex<Vec<LayerFlow>>,
}

impl GradientProbe {
    /// A probe that is switched off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Switches it on or off; the norms stay until the next backward pass that is recorded.
    pub fn record(&self, on: bool) {
        self.0.recording.store(on, Ordering::Relaxed);
    }

    /// Whether it is switched on.
    pub fn is_recording(&self) -> bool {
        self.0.recording.load(Ordering::Relaxed)
    }

    /// The norms of each layer's last recorded backward pass.
    pub fn flow(&self) -> GradientFlow {
        GradientFlow { layers: self.layers().clone() }
    }

    pub(crate) fn layers(&self) -> MutexGuard<'_, Vec<LayerFlow>> {
        self.0.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The norms that a [`GradientProbe`] has collected; printed as a table of norms by the distance from the last step.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GradientFlow {
    /// One entry per [`Probed`](crate::wrap::Probed) layer, in the order in which they were made.
    pub layers: Vec<LayerFlow>,
}

/// The gradient norms (Euclidean, over the batch and the features together) of one layer's backward pass, step by step.
///
/// With lengths, the norm of a step is taken over the sequences that reach it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LayerFlow {
    /// The layer's name.
    pub name: String,
    /// `‖dL/dy_t‖`, `[T]`: the gradient that arrives at the layer's output. Empty before the first recorded pass.
    pub output: Vec<f64>,
    /// `‖dL/dh_t‖`, `[T]`: the sum of `dL/dy_t` and the gradient that comes back through time. Empty except for
    /// [recurrent](crate::wrap::Probed::recurrent) layers.
    pub hidden: Vec<f64>,
    /// `‖dL/dc_t‖`, `[T]`: the gradient that comes back through `h_t` and, past it, through `c_{t+1}`. Empty except for an LSTM.
    pub memory: Vec<f64>,
}

impl LayerFlow {
    /// `‖dL/dy‖`, of all steps together.
    pub fn total(&self) -> f64 {
        norm(&self.output)
    }
}

impl GradientFlow {
    /// The entry of the layer named `name`.
    pub fn get(&self, name: &str) -> Option<&LayerFlow> {
        self.layers.iter().find(|layer| layer.name == name)
    }
}

impl fmt::Display for GradientFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.layers.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0).max(5);
        let steps = self.layers.iter().map(|layer| layer.output.len()).max().unwrap_or(0);
        // 0, 1, 2, 4 … and that of the first step.
        let mut distances: Vec<usize> = std::iter::once(0)
            .chain((0..usize::BITS).map(|power| 1 << power))
            .take_while(|&distance| distance + 1 < steps)
            .collect();
        distances.extend(steps.checked_sub(1));
        writeln!(f, "{:width$}  {:<5}  {:>9}  by distance from the last step", "layer", "of", "total")?;
        write!(f, "{:width$}  {:<5}  {:>9}", "", "", "")?;
        for distance in &distances {
            write!(f, " {distance:>9}")?;
        }
        writeln!(f)?;
        for LayerFlow { name, output, hidden, memory } in &self.layers {
            for (of, norms) in [("dL/dy", output), ("dL/dh", hidden), ("dL/dc", memory)] {
                if norms.is_empty() {
                    continue;
                }
                write!(f, "{name:width$}  {of:<5}  {:>9.2e}", norm(norms))?;
                for distance in distances.iter().filter(|&&distance| distance < norms.len()) {
                    write!(f, " {:>9.2e}", norms[norms.len() - 1 - distance])?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// A sum of squares as `scale² · sum`, which neither overflows nor underflows: gradients do both.
#[derive(Clone, Copy, Debug, Default)]
struct Squares {
    scale: f64,
    sum: f64,
}

impl Squares {
    fn add(&mut self, value: f64) {
        let size = value.abs();
        if size == self.scale {
            self.sum += f64::from(size != 0.0);
        } else if size > self.scale {
            *self = Squares { scale: size, sum: 1.0 + self.sum * (self.scale / size).powi(2) };
        } else {
            self.sum += (value / self.scale).powi(2);
        }
    }

    fn norm(self) -> f64 {
        self.scale * self.sum.sqrt()
    }
}

pub(crate) fn norm<'a, F: Float>(values: impl IntoIterator<Item = &'a F>) -> f64 {
    let mut squares = Squares::default();
    values.into_iter().for_each(|value| squares.add(value.widen()));
    squares.norm()
}

/// Records the norms of a recurrent cell's state gradient in its cache, for a [`Probed::recurrent`](crate::wrap::Probed::recurrent) layer.
///
/// A backward pass calls [`start`](StateRecorder::start), then [`hidden`](StateRecorder::hidden) and, if there is a
/// memory, [`memory`](StateRecorder::memory) for the valid rows of each step, and [`finish`](StateRecorder::finish).
/// If it is switched off, they do nothing and do not run the iterators.
#[derive(Clone, Debug, Default)]
pub struct StateRecorder {
    to: Option<(GradientProbe, usize)>,
    hidden: Vec<Squares>, // [T]
    memory: Vec<Squares>, // [T], or empty
}

impl StateRecorder {
    /// Sets where the norms go: a probe, and the layer's index in it.
    pub(crate) fn record_to(&mut self, to: Option<(GradientProbe, usize)>) {
        self.to = to;
    }

    /// Begins a backward pass over `steps` steps.
    pub fn start(&mut self, steps: usize) {
        if self.to.is_some() {
            self.hidden.clear();
            self.hidden.resize(steps, Squares::default());
            self.memory.clear();
        }
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.to.is_some()
    }

    /// Adds some elements of `dL/dh_t`, which includes the gradient of `y_t`.
    pub fn hidden<F: Float>(&mut self, t: usize, gradient: impl IntoIterator<Item = F>) {
        if self.to.is_some() {
            gradient.into_iter().for_each(|value| self.hidden[t].add(value.widen()));
        }
    }

    /// Adds some elements of `dL/dc_t`, which includes the gradient through `h_t`.
    pub fn memory<F: Float>(&mut self, t: usize, gradient: impl IntoIterator<Item = F>) {
        if self.to.is_some() {
            self.memory.resize(self.hidden.len(), Squares::default());
            gradient.into_iter().for_each(|value| self.memory[t].add(value.widen()));
        }
    }

    /// Makes this the recorder of a part of the pass that `whole` records.
    #[cfg(feature = "rayon")]
    pub(crate) fn follow(&mut self, whole: &StateRecorder) {
        self.to.clone_from(&whole.to);
    }

    /// Adds the norms that were recorded for a part.
    #[cfg(feature = "rayon")]
    pub(crate) fn join(&mut self, part: &StateRecorder) {
        if self.to.is_some() {
            self.memory.resize(part.memory.len().max(self.memory.len()), Squares::default());
            for (own, parts) in [(&mut self.hidden, &part.hidden), (&mut self.memory, &part.memory)] {
                own.iter_mut().zip(parts).for_each(|(own, part)| own.add(part.norm()));
            }
        }
    }

    /// Ends the backward pass, after its last step.
    pub fn finish(&mut self) {
        if let Some((probe, at)) = &self.to {
            let layer = &mut probe.layers()[*at];
            for (norms, squares) in [(&mut layer.hidden, &self.hidden), (&mut layer.memory, &self.memory)] {
                norms.clear();
                norms.extend(squares.iter().map(|squares| squares.norm()));
            }
        }
    }
}

/// The cache of a recurrent cell that can be [probed](crate::wrap::Probed::recurrent).
pub trait RecordsState {
    /// Its recorder.
    fn recorder(&mut self) -> &mut StateRecorder;
}
