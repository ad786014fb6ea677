//! Recurrent and residual neural networks on the CPU: RNN, LSTM and GRU cells, feed-forward layers and residual
//! blocks behind one [`Layer`] trait, every backward pass written by hand and checked against finite differences and
//! PyTorch.
//!
//! # A training loop
//!
//! ```
//! use gradflow::ndarray::{Array2, s};
//! use gradflow::rand::{SeedableRng, rngs::StdRng};
//! use gradflow::{
//!     AdamW, ClipNorm, Embedding, Layer, Linear, Loss, LstmCell, Optimizer, SoftmaxCrossEntropy, ZerosLike,
//! };
//!
//! # fn main() -> Result<(), gradflow::NonFiniteGradient> {
//! let (vocabulary, steps, batch) = (7, 12, 4);
//! let ids = Array2::from_shape_fn((steps + 1, batch), |(t, b)| t * (b + 1) % vocabulary); // [T + 1, B]
//! let rng = &mut StdRng::seed_from_u64(0);
//! let mut model =
//!     (Embedding::new(vocabulary, 16, rng), LstmCell::<f32>::new(16, 32, rng), Linear::new(32, vocabulary, rng));
//! let (mut cross_entropy, mut optimizer) = (SoftmaxCrossEntropy::new(), AdamW::new(1e-2));
//! let (mut state, mut cache, mut grad) = (model.zero_state(batch), model.cache(), model.zeros_like());
//! let mut nats = f64::INFINITY;
//! for _ in 0..100 {
//!     let pass = model.pass(ids.slice(s![..steps, ..]), &mut state, &mut cache); // the state is carried on
//!     let loss = cross_entropy.of(&pass, &ids.slice(s![1.., ..]));
//!     nats = loss.value();
//!     pass.backward_into(loss.gradient(), &mut grad);
//!     optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0))?;
//! }
//! assert!(nats < 0.1, "{nats}");
//! # Ok(())
//! # }
//! ```
//!
//! `examples/char_lm` is this loop on real text.
//!
//! # What stands where
//!
//! | | |
//! | --- | --- |
//! | The trait | [`Layer`], [`Causal`] (runs on a stream), [`Pass`], [`Sequence`] (the input: `[T, B, D]` or token ids `[T, B]`, lengths, mode), [`Tensors`] |
//! | Recurrence | [`Rnn`], [`Lstm`], [`Gru`] and [`BiRnn`], [`BiLstm`], [`BiGru`]: layers of cells in one or both directions; the cells [`RnnCell`], [`LstmCell`], [`GruCell`], all made by [`CellBuilder`]; [`Cell`] for your own, [`Recurrent`] to stack it; [`Bidirectional`], [`LearnedState`], [`TruncatedBptt`] |
//! | Layers | [`Linear`], [`Activation`], [`LayerNorm`], [`Embedding`], [`Dropout`], [`Identity`] |
//! | Blocks | [`Residual`], [`PreNormBlock`], [`PostNormBlock`], [`FeedForward`], [`Highway`], [`DenseConcat`], [`StochasticDepth`] |
//! | Attention | [`Attention`] over an encoder's outputs: dot, bilinear, additive |
//! | Models | tuples up to eight, [`sequential!`], [`Stacked`], [`BoxLayer`]; [`Prepacked`] for inference |
//! | Training | [`Loss`]: [`SoftmaxCrossEntropy`], [`BinaryCrossEntropy`], [`MeanSquaredError`], [`Huber`], [`Sgd`], [`Adam`], [`AdamW`], [`RmsProp`], [`Adagrad`], [`ParameterGroups`], [`Schedule`], [`GradAccumulator`], [`ClipNorm`], [`ClipAdaptive`], [`NormSummary`], [`clip_grad_norm`], [`clip_grad_value`], [`Init`] |
//! | Texts | [`guide`]: gradients through time and depth, the recurrent family, how the kernels work |
//! | Files | `io`: state dicts, PyTorch's included, and checkpoints; [`convert`]: weights of ONNX and Keras, to and fro |
//! | Insight | [`GradientProbe`], [`Probed`], [`GradientFlow`] |
//! | Proof | [`gradcheck`](fn@gradcheck), [`GradCheck`], [`contract`] |
//!
//! # Words and shapes
//!
//! `T` counts steps, `B` sequences, `D`, `I`, `O` features, `H` hidden units, `V` classes. Every layer maps
//! `[T, B, I]` to `[T, B, O]`, time first. Names of parameters, orders of gates and semantics of optimizers are
//! PyTorch's, so its state dicts fit. Everything is generic over `f32` and `f64`; hyper-parameters, losses and norms
//! are `f64`.
//!
//! # What can go wrong
//!
//! A wrong shape, an empty batch or a stale cache is a mistake in the program: it panics with one line that names the
//! layer, the argument, what was expected and what came ([`Layer::output_size`] asks beforehand). Lengths and
//! gradients that are not finite come from data: they are `Result`s. NaN is never masked.
//!
//! # Features
//!
//! - `safetensors`, on by default: the files of `io`, with which come 16 crates that nothing else needs.
//! - `rayon`: batches, products and what goes over many elements on the threads of rayon's current pool, which stay awake while
//!   a pass runs and 200 µs longer. The number of threads changes no bit.
//!
//! The environment variable `GRADFLOW_ISA` (`scalar`, `avx2`, `avx512`) holds the kernels to an instruction set.

#[doc(hidden)]
pub mod base;
#[doc(hidden)]
pub mod layer;

mod attention;
mod cells;
mod check;
mod clip;
mod compose;
pub mod convert;
pub mod guide;
#[cfg(feature = "safetensors")]
pub mod io;
mod kernels;
mod layers;
mod loss;
mod optim;
mod parallel;
mod recurrence;
mod recurrent;
mod wrap;

pub use ndarray;
pub use rand;

pub use attention::{AdditiveScore, Attention, AttentionCache, AttentionScore, BilinearScore};
pub use base::{
    GradientFlow, GradientProbe, Init, LayerFlow, LengthsError, Mode, NamedTensors, RecordsState, Size, SizeError,
    StateRecorder, Tensors, TensorsExt, ZerosLike, tensors,
};
pub use cells::*;
pub use check::{GradCheck, GradReport, TensorCheck, contract, gradcheck};
pub use clip::{
    ClipAdaptive, ClipNorm, ClipReport, NonFinite, NonFiniteGradient, NormSummary, clip_grad_norm, clip_grad_value,
    grad_norm,
};
pub use compose::*;
pub use kernels::Float;
pub use layer::{Causal, Layer, Pass, Sequence, State, kit as cache};
pub use layers::*;
pub use loss::{BinaryCrossEntropy, Evaluated, Huber, Loss, MeanSquaredError, SoftmaxCrossEntropy};
pub use optim::{
    Adagrad, Adam, AdamW, GradAccumulator, Group, Optimizer, OptimizerState, OptimizerStateError, ParameterGroups,
    RmsProp, Schedule, ScheduleError, Select, Sgd,
};
pub use recurrence::*;
pub use recurrent::*;
pub use wrap::*;

/// The README's code, compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
