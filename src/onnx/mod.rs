//! Whole models as ONNX files (feature `onnx`), for ONNX Runtime and whatever else reads them.
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
//! In Python, `onnxruntime.InferenceSession("model.onnx").run(None, {"x": x, "lengths": lengths})` gives `[y]`. Outputs agree with
//! gradflow's to rounding.
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
//! The state's names are those of [`zero_state`](crate::Layer::zero_state)'s tensors after `state.` and `next.`; a tensor without a
//! name, as the state of a single GRU, is `state` and `next`. A stream is continued by giving each `next` as the `state` of the
//! next call.
//!
//! Files have [operator set 17](OPERATOR_SET) and [IR version 8](IR_VERSION). Constants have the names of the model's parameters,
//! but for those of recurrent nodes, which are ONNX's `W`, `R`, `B` and `P`.
//!
//! # Layers
//!
//! | layer | operators |
//! | --- | --- |
//! | RNN, LSTM, GRU, as cells and as [`Recurrent`](crate::recurrent::Recurrent) models | `RNN`, `LSTM`, `GRU`, a node for each layer; with peepholes, coupled gates and both resets |
//! | two directions | `direction="bidirectional"`, `Transpose`, `Reshape` |
//! | [`Linear`](crate::layers::Linear) | `MatMul`, `Add` |
//! | [`Activation`](crate::layers::Activation) | `Tanh`, `Sigmoid`, `Relu`, `LeakyRelu`; GELU from `Erf`; SiLU as x `Sigmoid`(x) |
//! | [`FeedForward`](crate::layers::FeedForward) | those of its parts |
//! | [`LayerNorm`](crate::layers::LayerNorm) | `LayerNormalization` |
//! | [`Embedding`](crate::layers::Embedding) | `Gather` |
//! | [`LastStep`](crate::layers::LastStep) | `Slice`; with lengths `GatherElements` |
//! | [`Pool`](crate::layers::Pool) | `ReduceMean`, `ReduceMax`; with lengths `Where`, `ReduceSum`, `Div` |
//! | [`Repeat`](crate::layers::Repeat) | `Expand` |
//! | [`Residual`](crate::compose::Residual), [`Highway`](crate::compose::Highway), [`DenseConcat`](crate::compose::DenseConcat) and the blocks | `Add`, `Mul`, `Sub`, `Sigmoid`, `Concat` around the branch |
//! | [`Bidirectional`](crate::wrap::Bidirectional) | its parts, one with `direction="reverse"`, and `Concat` |
//! | [`LearnedState`](crate::wrap::LearnedState) | `Expand`; with states `Mul` and `Add` |
//! | tuples, [`sequential!`](crate::sequential), [`Stacked`](crate::compose::Stacked), [`BoxLayer`](crate::compose::BoxLayer) | their layers |
//! | `Identity`, `Dropout`, `StochasticDepth`, `TruncatedBptt`, `Probed`, `Prepacked` | nothing, or the layer inside |
//!
//! Everything else is [refused](ExportError::Unsupported): MGU and minGRU, for which ONNX has no operator, and cells with a projection,
//! layer normalisation or zoneout, which its operators do not have. Training-only options, such as recurrent dropout, are left out.
//!
//! A model of f64 becomes a graph of doubles. ONNX allows that for all operators, but ONNX Runtime has some of them for floats only,
//! among them `LSTM` and `GRU`. The statistics of layer normalisation and the slope of a leaky ReLU have 32 bits either way.
//!
//! # Layers of your own
//!
//! A layer says what it is in operators by [`Layer::add_to_graph`], a
//! [`RowLayer`](crate::author::RowLayer) by [`add_rows_to_graph`](crate::author::RowLayer::add_rows_to_graph) and a cell by
//! [`Cell::add_cells_to_graph`](crate::author::Cell::add_cells_to_graph). [`Graph`] has what they need.
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

#[doc(hidden)]
pub mod messages;

use std::fmt;
use std::io::{self, Write};
use std::mem::size_of;
use std::path::Path;

use prost::Message;

use crate::base::{Size, SizeError, file};
use crate::kernels::Float;
use crate::layer::graph::{Attribute, Axis, Constant, Data, Elements, Interface, Node, Parts, Port};
use crate::layer::{Graph, Layer, Unsupported};

/// The version of ONNX's operators that files use.
pub const OPERATOR_SET: i64 = 17;

/// The version of ONNX's file format.
pub const IR_VERSION: i64 = 8;

/// The most bytes that a protobuf message, and so a file, may have.
const MAX_BYTES: usize = i32::MAX as usize;

/// What an exported model has besides `x` and `y`, and the order of their axes.
///
/// ```
/// use gradflow::onnx::ExportOptions;
///
/// let options = ExportOptions::new().lengths(true).states(true).batch_first(true);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing before they are given to `export`"]
pub struct ExportOptions {
    interface: Interface,
}

impl ExportOptions {
    /// An input `x`, `[T, B, I]`, and an output `y`, `[T, B, O]`, and no more.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the model takes `lengths`, int32 `[B]`.
    pub fn lengths(mut self, lengths: bool) -> Self {
        self.interface.lengths = lengths;
        self
    }

    /// Whether the model takes the state before the first step and gives that after the last one. If not, each call starts from
    /// zero, or from the [learned state](crate::wrap::LearnedState).
    pub fn states(mut self, states: bool) -> Self {
        self.interface.states = states;
        self
    }

    /// Whether the batch is the first axis of `x` and `y` and time the second. States keep their axes.
    pub fn batch_first(mut self, batch_first: bool) -> Self {
        self.interface.batch_first = batch_first;
        self
    }
}

/// Why a model could not be exported.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExportError {
    /// The model does not take an input of that size.
    Size(SizeError),
    /// A layer, named by its place, that ONNX's operators cannot express.
    Unsupported(Unsupported),
    /// The file would have more than 2 GiB, which ONNX files cannot have.
    TooLarge {
        /// The size of the file.
        bytes: usize,
    },
    /// The file could not be written.
    Io(io::Error),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExportError::Size(error) => error.fmt(f),
            ExportError::Unsupported(error) => error.fmt(f),
            ExportError::TooLarge { bytes } => {
                write!(f, "an ONNX file has at most 2 GiB, this one would have {bytes} bytes")
            }
            ExportError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ExportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ExportError::Size(error) => Some(error),
            ExportError::Unsupported(error) => Some(error),
            ExportError::TooLarge { .. } => None,
            ExportError::Io(error) => Some(error),
        }
    }
}

impl From<SizeError> for ExportError {
    fn from(error: SizeError) -> Self {
        ExportError::Size(error)
    }
}

impl From<Unsupported> for ExportError {
    fn from(error: Unsupported) -> Self {
        ExportError::Unsupported(error)
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        ExportError::Io(error)
    }
}

/// The model as the bytes of an ONNX file, for an input of so many features, or of [token ids](Size::Tokens).
///
/// # Errors
/// If the model does not take that input, or ONNX cannot express one of its layers.
pub fn export<M: Layer>(model: &M, input: impl Into<Size>, options: &ExportOptions) -> Result<Vec<u8>, ExportError> {
    let message = message_of(model, input.into(), options)?;
    let bytes = message.encoded_len();
    if bytes > MAX_BYTES {
        return Err(ExportError::TooLarge { bytes });
    }
    Ok(message.encode_to_vec())
}

/// [`export`] to a file, which is replaced only when the new one is complete: a crash leaves the old file or the new one.
///
/// ```
/// use gradflow::onnx::{ExportOptions, export_to_file};
/// use gradflow::{layers::{Activation, Linear}, rand::{SeedableRng, rngs::StdRng}};
///
/// # let path = std::env::temp_dir().join(format!("gradflow-doc-{}.onnx", std::process::id()));
/// let rng = &mut StdRng::seed_from_u64(0);
/// let model = (Linear::<f32>::new(3, 8, rng), Activation::gelu(), Linear::new(8, 1, rng));
/// export_to_file(&path, &model, 3, &ExportOptions::new())?;
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), gradflow::onnx::ExportError>(())
/// ```
///
/// # Errors
/// As [`export`], and if the file cannot be written.
pub fn export_to_file<M: Layer>(
    path: impl AsRef<Path>,
    model: &M,
    input: impl Into<Size>,
    options: &ExportOptions,
) -> Result<(), ExportError> {
    let bytes = export(model, input, options)?;
    Ok(file::replace(path.as_ref(), |writer| writer.write_all(&bytes))?)
}

fn message_of<M: Layer>(model: &M, input: Size, options: &ExportOptions) -> Result<messages::Model, ExportError> {
    model.output_size(input)?;
    let (one, two) = (model.zero_state(1), model.zero_state(2));
    let (mut graph, x) = Graph::new(input, options.interface, [&one, &two]);
    let y = model.add_to_graph(&mut graph, x)?;
    Ok(messages::Model {
        ir_version: IR_VERSION,
        producer_name: "gradflow".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph_message(graph.finish(y)?)),
        opset_import: vec![messages::OperatorSet { domain: String::new(), version: OPERATOR_SET }],
    })
}

fn graph_message<F: Float>(mut parts: Parts<F>) -> messages::Graph {
    // Each constant's values are given back before the next one's are copied.
    let constants = std::mem::take(&mut parts.constants);
    let initializer = constants.into_iter().map(|constant| tensor_message(&parts, constant)).collect();
    messages::Graph {
        node: parts.nodes.iter().map(|node| node_message(&parts, node)).collect(),
        name: "model".into(),
        initializer,
        input: parts.inputs.iter().map(|port| port_message(&parts, port)).collect(),
        output: parts.outputs.iter().map(|port| port_message(&parts, port)).collect(),
    }
}

fn node_message<F>(parts: &Parts<F>, node: &Node) -> messages::Node {
    let name = |value: &Option<_>| value.map_or(String::new(), |value| parts.name(value).to_owned());
    messages::Node {
        input: node.inputs.iter().map(name).collect(),
        output: node.outputs.iter().map(|&value| parts.name(value).to_owned()).collect(),
        name: node.name.clone(),
        op_type: node.operator.clone(),
        attribute: node.attributes.iter().map(|(name, value)| attribute_message(name, value)).collect(),
    }
}

fn attribute_message(name: &str, value: &Attribute) -> messages::Attribute {
    let mut message = messages::Attribute { name: name.into(), ..messages::Attribute::default() };
    let kind = match value {
        Attribute::Int(number) => {
            message.i = Some(*number);
            messages::AttributeType::Int
        }
        Attribute::Float(number) => {
            message.f = Some(*number);
            messages::AttributeType::Float
        }
        Attribute::Text(text) => {
            message.s = Some(text.clone().into_bytes());
            messages::AttributeType::String
        }
        Attribute::Ints(numbers) => {
            message.ints.clone_from(numbers);
            messages::AttributeType::Ints
        }
        Attribute::Texts(texts) => {
            message.strings = texts.iter().map(|text| text.clone().into_bytes()).collect();
            messages::AttributeType::Strings
        }
    };
    message.set_type(kind);
    message
}

/// The element type of a model.
fn elements_of<F>() -> messages::Elements {
    if size_of::<F>() == 4 { messages::Elements::Float } else { messages::Elements::Double }
}

fn tensor_message<F: Float>(parts: &Parts<F>, constant: Constant<F>) -> messages::Tensor {
    let (elements, raw_data) = match constant.data {
        Data::Floats(values) => {
            let bytes = |value: &F| value.bits().to_le_bytes().into_iter().take(size_of::<F>());
            (elements_of::<F>(), values.iter().flat_map(bytes).collect())
        }
        Data::Integers(values) => {
            (messages::Elements::Int64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
    };
    messages::Tensor {
        dims: constant.shape.iter().map(|&size| size as i64).collect(),
        data_type: elements as i32,
        name: parts.name(constant.value).to_owned(),
        raw_data,
    }
}

fn port_message<F: Float>(parts: &Parts<F>, port: &Port) -> messages::ValueInfo {
    let elements = match port.elements {
        Elements::Floats => elements_of::<F>(),
        Elements::Int64 => messages::Elements::Int64,
        Elements::Int32 => messages::Elements::Int32,
    };
    let dim = port.shape.iter().map(|axis| messages::Dimension {
        value: Some(match axis {
            Axis::Time => messages::Length::DimParam("time".into()),
            Axis::Batch => messages::Length::DimParam("batch".into()),
            Axis::Fixed(size) => messages::Length::DimValue(*size as i64),
        }),
    });
    let shape = messages::Shape { dim: dim.collect() };
    let tensor = messages::TensorType { elem_type: elements as i32, shape: Some(shape) };
    messages::ValueInfo {
        name: parts.name(port.value).to_owned(),
        r#type: Some(messages::Type { tensor_type: Some(tensor) }),
    }
}
