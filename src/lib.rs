//! Recurrent and residual neural networks on the CPU: RNN, LSTM and GRU cells, feed-forward layers and residual
//! blocks behind one [`Layer`] trait, every backward pass written by hand and checked against finite differences and
//! PyTorch.
//!
//! # A training loop
//!
//! ```
//! use gradflow::ndarray::{Array2, s};
//! use gradflow::prelude::*;
//! use gradflow::rand::{SeedableRng, rngs::StdRng};
//!
//! # fn main() -> Result<(), gradflow::clip::NonFiniteGradient> {
//! let (vocabulary, steps, batch) = (7, 12, 4);
//! let ids = Array2::from_shape_fn((steps + 1, batch), |(t, b)| t * (b + 1) % 7); // [T + 1, B]
//! let rng = &mut StdRng::seed_from_u64(0);
//! let mut model = (
//!     Embedding::new(vocabulary, 16, rng),
//!     Lstm::<f32>::new(16, 32, rng),
//!     Linear::new(32, vocabulary, rng),
//! );
//! let (mut cross_entropy, mut optimizer) = (SoftmaxCrossEntropy::new(), AdamW::new(1e-2));
//! let (mut cache, mut grad) = (model.cache(), model.zeros_like());
//! let mut state = model.zero_state(batch); // carried on from step to step
//! let mut nats = f64::INFINITY;
//! for _ in 0..100 {
//!     let pass = model.pass(ids.slice(s![..steps, ..]), &mut state, &mut cache);
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
//! The example [`char_lm`](https://docs.rs/crate/gradflow/latest/source/examples/char_lm/main.rs) is this loop on
//! real text; [`guide`] shows other tasks.
//!
//! # Modules
//!
//! | | |
//! | --- | --- |
//! | [`prelude`] | what most programs need, in one line |
//! | [`layers`] | `Linear`, `Embedding`, `Activation`, `LayerNorm`, `Dropout`, `FeedForward`; `CausalConv1d`, `StridedConv1d`; `LastStep`, `Pool`, `Repeat` from many steps to one and back; initial parameters |
//! | [`recurrent`] | `Rnn`, `Lstm`, `Gru`, `Mgu`, `MinGru`, `MinLstm`, `Slstm`, in one or both directions, and their cells |
//! | [`compose`] | layers made of layers: tuples and [`sequential!`], `Stacked`, `BoxLayer`; `Residual`, `Highway`, `DenseConcat` and ready-made blocks, among them `TemporalBlock`; `TiedEmbedding` |
//! | [`wrap`] | a layer run in another way: `Bidirectional`, `LearnedState`, `TruncatedBptt`, `Prepacked`, `WeightNorm`, `WeightDrop`, `Probed` |
//! | [`stream`] | one sequence, step by step, on a real-time thread |
//! | [`attention`] | over an encoder's outputs: dot, bilinear, additive |
//! | [`loss`], [`optim`], [`clip`] | training |
//! | [`metrics`] | accuracy, confusion, perplexity, errors, edit distance, over all batches of a data set |
//! | [`data`] | padded batches, buckets, windows, normalisation, splits |
//! | [`fit`] | the training loop that most programs write: epochs, validation, early stopping, checkpoints |
//! | `io`, [`convert`], `onnx` | files: state dicts, including PyTorch's, and checkpoints; weights of ONNX and Keras; whole models to and from ONNX files; models of audio plug-ins |
//! | [`check`] | gradients against finite differences, and the contract that every layer keeps |
//! | [`author`] | building blocks for your own layers and cells |
//! | [`guide`] | how to classify, forecast, tag, serve …; coming from PyTorch and Keras; gradients through time and depth |
//!
//! At the root are the trait [`Layer`] (and [`Causal`] for layers that run on a stream), its input, a [`Sequence`] in a [`Mode`],
//! and [`Tensors`], the trait of everything that has parameters or other tensors.
//!
//! # Words and shapes
//!
//! `T` counts steps, `B` sequences, `D`, `I`, `O` features, `H` hidden units, `V` classes. Layers map `[T, B, I]` to `[T, B, O]`,
//! time first; [`LastStep`](layers::LastStep), [`Pool`](layers::Pool), [`Repeat`](layers::Repeat) and
//! [`StridedConv1d`](layers::StridedConv1d) change `T`. Parameter names, gate order and optimizer semantics match PyTorch, so its
//! state dicts load unchanged. Everything is generic over `f32` and `f64`; hyper-parameters, losses and norms are `f64`.
//!
//! # What can go wrong
//!
//! A wrong shape, an empty batch or a stale cache is a bug in the program: it panics with one line that names the layer, the
//! argument, and the expected and actual values ([`Layer::output_size`] checks beforehand). Bad lengths and gradients that are
//! not finite come from data, so they are `Result`s. NaN is never masked.
//!
//! With [`Layer::pass`], the compiler rejects a backward pass with another input or other weights than the forward pass had. With
//! `forward` and `backward`, debug builds check all values of both, and release builds some of the input's: see
//! [`Pending`](author::Pending). After a panic in a pass, a backward pass with its cache is refused, and the cache can be used
//! again.
//!
//! # Features
//!
//! - `safetensors`, on by default: the files of `io`. It brings in 16 crates that nothing else needs.
//! - `rayon`: batches, products and operations on many elements run on the threads of rayon's current pool, which stay awake
//!   during a pass and for 200 µs afterwards. The number of threads does not change a single bit of the results.
//! - `onnx`: whole models to and from ONNX files, in the module of that name.
//! - `indicatif`: a progress bar for [`fit`].
//! - `keras`: Keras' own files, [`convert`]'s `KerasFile`.
//! - `pytorch`: files of `torch.save`, `StateDict::open_pytorch`.
//! - `plugin-formats`: models of audio plug-ins, [`convert`]'s `nam` and `keras_json`.
//! - `approx`: models, gradients and states compared up to a tolerance, with the crate of that name.
//!
//! The environment variable `GRADFLOW_ISA` (`scalar`, `avx2`, `avx512`) restricts the kernels to an instruction set.

#![deny(missing_debug_implementations)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "approx")]
pub mod approx;
pub mod attention;
pub mod author;
#[doc(hidden)]
pub mod base;
mod cells;
pub mod check;
pub mod clip;
pub mod compose;
pub mod convert;
pub mod data;
pub mod fit;
pub mod guide;
#[cfg(feature = "safetensors")]
pub mod io;
mod kernels;
#[doc(hidden)]
pub mod layer;
pub mod layers;
pub mod loss;
pub mod metrics;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod optim;
mod parallel;
pub mod prelude;
mod recurrence;
pub mod recurrent;
pub mod stream;
pub mod wrap;

pub use ndarray;
/// The crate `rand`, without generators that take their seed from the system, such as `rand::rng()`: not every target has such a
/// source, and nothing here needs one. [`StdRng`](rand::rngs::StdRng)`::seed_from_u64` makes the generator that all examples use.
/// For different numbers in each run, take the seed from the clock, or depend on `rand` with its default features.
pub use rand;
#[cfg(feature = "plugin-formats")]
pub use serde_json;

pub use base::{Mode, Tensors, TensorsExt, ZerosLike};
pub use kernels::Float;
pub use layer::{Causal, Layer, Sequence};

/// Runs `act` once for each instruction set of this machine, with its name. For the fuzzer: otherwise, the instruction set is
/// chosen once per process.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn for_each_instruction_set(mut act: impl FnMut(&str)) {
    kernels::for_each_isa(|isa| act(&format!("{isa:?}")));
}

/// The README's code, compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
