//! Whole models to and from ONNX files (feature `onnx`), for ONNX Runtime and other programs.
//!
//! ```
//! use gradflow::onnx::{ExportOptions, export};
//! use gradflow::{layers::{LastStep, Linear}, rand::{SeedableRng, rngs::StdRng}, recurrent::Lstm};
//!
//! let rng = &mut StdRng::seed_from_u64(0);
//! let model = (Lstm::<f32>::new(3, 16, rng), LastStep::new(), Linear::new(16, 2, rng));
//! let bytes = export(&model, 3, &ExportOptions::new().lengths(true))?;
//! std::fs::write(std::env::temp_dir().join("model.onnx"), bytes).unwrap();
//! # Ok::<(), gradflow::onnx::ExportError>(())
//! ```
//!
//! In Python, `onnxruntime.InferenceSession("model.onnx").run(None, {"x": x, "lengths": lengths})` returns `[y]`. Outputs agree
//! with gradflow's up to rounding.
//!
//! # Inputs and outputs
//!
//! | | elements | shape | |
//! | --- | --- | --- | --- |
//! | `x` | the model's | `[T, B, I]` | T and B are dynamic; `[B, T, I]` with [`batch_first`](ExportOptions::batch_first) |
//! | `x`, token ids | int64 | `[T, B]` | ids below V; a negative id counts from the end |
//! | `lengths` | int32 | `[B]` | with [`lengths`](ExportOptions::lengths): each from 1 to T |
//! | `state.0.h`, … | the model's | as in gradflow | with [`states`](ExportOptions::states): zeros for a new sequence |
//! | `y` | the model's | `[T, B, O]` | zero past the lengths |
//! | `next.0.h`, … | the model's | as `state.0.h` | with `states`: after the last valid step |
//!
//! The state's names are those of [`zero_state`](crate::Layer::zero_state)'s tensors after `state.` and `next.`; a tensor without
//! a name, such as the state of a single GRU, is `state` and `next`. To continue a stream, pass each `next` as the `state` of the
//! next call.
//!
//! Files have [operator set 17](OPERATOR_SET) and [IR version 8](IR_VERSION). Constants have the names of the model's parameters,
//! except for those of recurrent nodes, which are ONNX's `W`, `R`, `B` and `P`.
//!
//! # Layers
//!
//! | layer | operators |
//! | --- | --- |
//! | RNN, LSTM, GRU, as cells and as [`Recurrent`](crate::recurrent::Recurrent) models | `RNN`, `LSTM`, `GRU`, a node for each layer; with peepholes, coupled gates, both resets, `clip`, and `activations` with their alpha and beta |
//! | two directions | `direction="bidirectional"`, `Transpose`, `Reshape` |
//! | [`Linear`](crate::layers::Linear) | `MatMul`, `Add` |
//! | [`Activation`](crate::layers::Activation) | `Tanh`, `Sigmoid`, `Relu`, `LeakyRelu`, `HardSigmoid`, `ThresholdedRelu`, `Elu`, `Softsign`, `Softplus`; GELU from `Erf`; SiLU as x `Sigmoid`(x); affine functions and scaled tanh from `Mul`, `Add` and `Tanh` |
//! | [`FeedForward`](crate::layers::FeedForward) | those of its parts |
//! | [`LayerNorm`](crate::layers::LayerNorm) | `LayerNormalization` |
//! | [`Embedding`](crate::layers::Embedding) | `Gather` |
//! | [`TiedEmbedding`](crate::compose::TiedEmbedding) | `Gather` and, of the same constant, `Transpose`; `MatMul`, `Add` |
//! | [`CausalConv1d`](crate::layers::CausalConv1d) | `Conv` with padding on the left, or `Concat` of the state; `Transpose`; reversed with `Slice` or `ReverseSequence` |
//! | [`LastStep`](crate::layers::LastStep) | `Slice`; with lengths `GatherElements` |
//! | [`Pool`](crate::layers::Pool) | `ReduceMean`, `ReduceMax`; with lengths `Where`, `ReduceSum`, `Div` |
//! | [`Repeat`](crate::layers::Repeat) | `Expand` |
//! | [`Residual`](crate::compose::Residual), [`Highway`](crate::compose::Highway), [`DenseConcat`](crate::compose::DenseConcat) and the blocks | `Add`, `Mul`, `Sub`, `Sigmoid`, `Concat` around the branch |
//! | [`Bidirectional`](crate::wrap::Bidirectional) | its parts, one with `direction="reverse"`, and `Concat`, `Add`, `Add` and `Mul`, or `Mul` |
//! | [`LearnedState`](crate::wrap::LearnedState) | `Expand`; with states `Mul` and `Add` |
//! | tuples, [`sequential!`](crate::sequential), [`Stacked`](crate::compose::Stacked), [`BoxLayer`](crate::compose::BoxLayer) | their layers |
//! | `Identity`, `Dropout`, `StochasticDepth`, `TruncatedBptt`, `Probed`, `Prepacked`, `WeightDrop` | none, or those of the layer inside |
//! | [`WeightNorm`](crate::wrap::WeightNorm) | the layer inside, with g v / \|v\| as its weight: it is not taken apart when the file is read |
//!
//! Everything else is [refused](ExportError::Unsupported): MGU and minGRU, for which ONNX has no operator; cells with a
//! projection, layer normalisation, zoneout or the activation GELU or SiLU, which ONNX's operators do not have; and convolutions
//! with a stride. Training-only options, such as recurrent dropout, are left out.
//!
//! A model of f64 becomes a graph of doubles. ONNX allows that for all operators, but ONNX Runtime has some of them for floats
//! only, among them `LSTM` and `GRU`. The statistics of layer normalisation, `clip` and the numbers of activations, such as the
//! slope of a leaky ReLU, have 32 bits either way.
//!
//! # Reading files
//!
//! [`load_into`] reads the weights of a file into a model that the program declares. It compares what the file computes with what the
//! model computes, from the output back to the input: operators, attributes, connections and shapes. If anything differs, the model
//! stays as it is and the error lists the differences, each with the names of the node and of the layer.
//!
//! ```
//! use gradflow::onnx::{LoadOptions, load_from};
//! # use gradflow::onnx::{ExportOptions, export};
//! use gradflow::{layers::Linear, rand::{SeedableRng, rngs::StdRng}, recurrent::{Gru, Lstm}};
//!
//! let rng = &mut StdRng::seed_from_u64(0);
//! let trained = (Lstm::<f32>::new(3, 16, rng), Linear::new(16, 2, rng));
//! # let file = export(&trained, 3, &ExportOptions::new())?;
//! let mut model = (Gru::<f32>::new(3, 16, rng), Linear::new(16, 2, rng));
//! let error = load_from(&mut model, &file[..], &LoadOptions::new()).unwrap_err();
//! assert_eq!(error.to_string(), "the file does not fit the model
//!   expected GRU `0.l0.GRU` of 3 features and 16 units, got LSTM `0.l0.LSTM` of 3 features and 16 units");
//! # Ok::<(), gradflow::onnx::ExportError>(())
//! ```
//!
//! Files written here are read here, to the bit. These files of other programs are tested:
//!
//! | from | what |
//! | --- | --- |
//! | `torch.onnx.export`, both `dynamo=False` and `dynamo=True` | `nn.LSTM`, `nn.GRU` with `nn.Linear`, `nn.Embedding`, `nn.LayerNorm`, activations, skip connections, `h[-1]`, `y[:, -1]`, `mean` |
//! | `dynamo=False` | `nn.RNN`; with `dynamo=True` it is written out step by step, which is refused |
//! | tf2onnx, and Keras' `Model.export(format="onnx")` | `LSTM`, `Bidirectional`, `Dense`, `Embedding`, `LayerNormalization`; `GRU`, `SimpleRNN` and other activations are loops there, which are refused |
//!
//! - Time and batch may have fixed sizes and come in either order, and data may be moved by `Transpose`, `Reshape`, `Squeeze`,
//!   `Slice`, `Gather`, `Split` and `Concat`: only the final positions of time, batch and features matter. Time is assumed to be
//!   the first axis of `x`, unless the recurrent nodes say otherwise.
//! - `Gemm` counts as `MatMul` and `Add`; `Gelu` and `LayerNormalization` are also recognised in parts. `Cast`, `Dropout` and
//!   `Identity` have no effect.
//! - Constants may be computed from others by the nodes above. Their values are in any of the file's fields, or in a second file
//!   beside it.
//! - The initial state may be zero, an input, or a [learned one](crate::wrap::LearnedState). Biases `B` that are left out are zero.
//! - `clip` and `activations` are those of the cells, with ONNX' defaults for alphas and betas that are left out; `Affine` and `ScaledTanh`
//!   have none. The spec does not say whether an LSTM's memory is clipped before its tanh; here and in ONNX Runtime it is not.
//! - `layout=1`, and every attribute that differs from the model's, is refused.
//!
//! Weights have the layouts of [ONNX's operators](https://onnx.ai/onnx/operators/onnx__LSTM.html): gates are in the order i, o, f, c in an
//! `LSTM` and z, r, h in a `GRU`, `B` has the biases of x before those of h, and `P` the peepholes i, o, f. See [`convert`](crate::convert) for
//! the equations, and for arrays without a file.
//!
//! Files need not be trusted: sizes are checked before memory is allocated, and reading takes a few times as much memory as the
//! file and the model.
//!
//! # Layers of your own
//!
//! A layer describes itself in operators by [`Layer::add_to_graph`](crate::Layer::add_to_graph), a
//! [`RowLayer`](crate::author::RowLayer) by [`add_rows_to_graph`](crate::author::RowLayer::add_rows_to_graph) and a cell by
//! [`Cell::add_cells_to_graph`](crate::author::Cell::add_cells_to_graph). [`Graph`](crate::author::Graph) has the methods for it.
//!
//! ```
//! use gradflow::author::{Gradient, Graph, RowGradients, RowLayer, Rows, Signal, Unsupported};
//! use gradflow::ndarray::{ArrayViewMut2, Zip};
//! use gradflow::{Float, layers::Linear, onnx::{ExportOptions, export}, parameters, row_layer};
//! use std::marker::PhantomData;
//!
//! /// y = x² / 2
//! #[derive(Clone)]
//! struct HalfSquare<F> { elem: PhantomData<F> }
//! parameters! { impl<F: Float> Tensors<F> for HalfSquare<F> { ; skip elem } }
//!
//! impl<F: Float> RowLayer for HalfSquare<F> {
//!     type Elem = F;
//!     type Kept = ();
//!     const NAME: &'static str = "HalfSquare";
//!
//!     fn forward_rows(&self, rows: Rows<'_, F>, mut y: ArrayViewMut2<'_, F>, _: &mut ()) {
//!         Zip::from(&mut y).and(&rows.x).for_each(|y, &x| *y = x * x * F::of(0.5));
//!     }
//!     fn backward_rows(&self, rows: Rows<'_, F>, d: RowGradients<'_, F>, _: &mut (), _: Gradient<'_, Self>) {
//!         if let Some(mut dx) = d.dx {
//!             Zip::from(&mut dx).and(&rows.x).and(&d.dy).for_each(|dx, &x, &dy| *dx = x * dy);
//!         }
//!     }
//!     fn add_rows_to_graph(&self, graph: &mut Graph<F>, x: Signal) -> Result<Signal, Unsupported> {
//!         let half = graph.scalar(0.5);
//!         let square = graph.node("Mul", &[x.value, x.value], &[]);
//!         Ok(x.with(graph.node("Mul", &[square, half], &[]), x.features(Self::NAME)?))
//!     }
//! }
//! row_layer! { impl<F: Float> Layer for HalfSquare<F> }
//!
//! let model = (Linear::<f32>::zeros(3, 4), HalfSquare { elem: PhantomData });
//! export(&model, 3, &ExportOptions::new())?;
//! # Ok::<(), gradflow::onnx::ExportError>(())
//! ```

mod export;
mod load;
#[doc(hidden)]
pub mod messages;

pub use export::{ExportError, ExportOptions, IR_VERSION, OPERATOR_SET, export, export_to_file};
pub use load::{LoadError, LoadOptions, Misfit, load_from, load_into, load_with};
