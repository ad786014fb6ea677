//! Recurrent and residual neural networks on the CPU: RNN, LSTM and GRU cells, feed-forward layers and residual
//! blocks behind one [`Layer`] trait, every backward pass written by hand and checked against finite differences and
//! PyTorch.
//!
//! # A training loop
//!
//! ```
//! use gradflow::ndarray::{Array2, Array3, s};
//! use gradflow::rand::{SeedableRng, rngs::StdRng};
//! use gradflow::{
//!     AdamW, ClipNorm, Embedding, Layer, Linear, LstmCell, Optimizer, Sequence, SoftmaxCrossEntropy,
//! };
//!
//! # fn main() -> Result<(), gradflow::NonFiniteGradient> {
//! let (vocabulary, steps, batch) = (7, 12, 4);
//! let ids = Array2::from_shape_fn((steps + 1, batch), |(t, b)| t * (b + 1) % vocabulary); // [T + 1, B]
//! let rng = &mut StdRng::seed_from_u64(0);
//! let mut model =
//!     (Embedding::new(vocabulary, 16, rng), LstmCell::<f32>::new(16, 32, rng), Linear::new(32, vocabulary, rng));
//! let (loss, mut optimizer) = (SoftmaxCrossEntropy::new(), AdamW::new(1e-2));
//! let (mut state, mut cache) = (model.zero_state(batch), model.cache());
//! let (mut grad, mut dlogits) = (model.zeros_like(), Array3::default((0, 0, 0)));
//! let mut nats = f64::INFINITY;
//! for _ in 0..100 {
//!     let pass = model.pass(ids.slice(s![..steps, ..]), &mut state, &mut cache); // the state is carried on
//!     nats = loss.evaluate(&pass.output(), &ids.slice(s![1.., ..]), None, &mut dlogits);
//!     pass.backward_into(&dlogits, &mut grad);
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
//! | Training | [`SoftmaxCrossEntropy`], [`BinaryCrossEntropy`], [`MeanSquaredError`], [`Huber`], [`Sgd`], [`Adam`], [`AdamW`], [`RmsProp`], [`Adagrad`], [`ParameterGroups`], [`Schedule`], [`GradAccumulator`], [`ClipNorm`], [`ClipAdaptive`], [`NormSummary`], [`clip_grad_norm`], [`clip_grad_value`], [`Init`] |
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

#[cfg(feature = "approx")]
pub mod approx;
pub mod cache;
pub mod contract;
pub mod convert;
pub mod guide;
#[cfg(feature = "safetensors")]
pub mod io;
pub mod tensors;

mod affine;
mod attention;
mod blocks;
mod cells;
mod clip;
mod error;
mod float;
mod gradcheck;
mod init;
mod kernels;
mod layer;
mod layers;
mod loss;
mod optim;
mod parallel;
mod prepacked;
mod probe;
mod recurrent;
mod sequence;
mod stack;

pub use ndarray;
pub use rand;

pub use attention::{AdditiveScore, Attention, AttentionCache, AttentionScore, BilinearScore};
pub use blocks::*;
pub use cells::*;
pub use clip::{
    ClipAdaptive, ClipNorm, ClipReport, NonFinite, NonFiniteGradient, NormSummary, clip_grad_norm, clip_grad_value,
    grad_norm,
};
pub use error::{LengthsError, SizeError};
pub use float::Float;
pub use gradcheck::{GradCheck, GradReport, TensorCheck, gradcheck};
pub use init::Init;
pub use layer::{Causal, Layer, Pass, State};
pub use layers::*;
pub use loss::{BinaryCrossEntropy, Huber, MeanSquaredError, Reduction, SoftmaxCrossEntropy};
pub use optim::{
    Adagrad, Adam, AdamW, GradAccumulator, Group, Optimizer, OptimizerState, OptimizerStateError, ParameterGroups,
    RmsProp, Schedule, ScheduleError, Select, Sgd,
};
pub use prepacked::Prepacked;
pub use probe::{GradientFlow, GradientProbe, LayerFlow, Probed, RecordsState, StateRecorder};
pub use recurrent::*;
pub use sequence::{Mode, Sequence, Size};
pub use stack::*;
pub use tensors::{NamedTensors, Tensors, TensorsExt};

/// The README's code, compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
