//! Models written as ONNX files.

use std::fmt;
use std::io;
use std::mem::size_of;
use std::path::Path;

use prost::Message;

use super::messages;
use crate::base::{Size, SizeError, file};
use crate::kernels::Float;
use crate::layer::graph::{Attribute, Axis, Constant, Data, Elements, Interface, Node, Parts, Port};
use crate::layer::{Graph, Layer, Unsupported};

/// The version of ONNX's operators that files use.
pub const OPERATOR_SET: i64 = 17;

/// The version of ONNX's file format.
pub const IR_VERSION: i64 = 8;

/// The maximum size in bytes of a protobuf message, and so of a file.
const MAX_BYTES: usize = i32::MAX as usize;

/// The inputs and outputs of an exported model besides `x` and `y`, and the order of their axes.
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
    /// Only an input `x`, `[T, B, I]`, and an output `y`, `[T, B, O]`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the model takes `lengths`, int32 `[B]`.
    pub fn lengths(mut self, lengths: bool) -> Self {
        self.interface.lengths = lengths;
        self
    }

    /// Whether the model takes the state before the first step and returns the state after the last one. If not, each call starts
    /// from zero, or from the [learned state](crate::wrap::LearnedState).
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

/// The model as the bytes of an ONNX file, for an input of this many features, or of [token ids](Size::Tokens).
///
/// # Errors
/// Returns an error if the model does not take that input, or ONNX cannot express one of its layers.
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
/// Returns an error as [`export`] does, and if the file cannot be written.
pub fn export_to_file<M: Layer>(
    path: impl AsRef<Path>,
    model: &M,
    input: impl Into<Size>,
    options: &ExportOptions,
) -> Result<(), ExportError> {
    let bytes = export(model, input, options)?;
    Ok(file::replace(path.as_ref(), &mut |writer| writer.write_all(&bytes))?)
}

fn message_of<M: Layer>(model: &M, input: Size, options: &ExportOptions) -> Result<messages::Model, ExportError> {
    Ok(messages::Model {
        ir_version: IR_VERSION,
        producer_name: "gradflow".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph_of(model, input, options.interface)?),
        opset_import: vec![messages::OperatorSet { domain: String::new(), version: OPERATOR_SET }],
    })
}

/// The graph of a model.
pub(super) fn graph_of<M: Layer>(model: &M, input: Size, interface: Interface) -> Result<messages::Graph, ExportError> {
    model.output_size(input)?;
    let (one, two) = (model.zero_state(1), model.zero_state(2));
    let (mut graph, x) = Graph::new(input, interface, [&one, &two]);
    let y = model.add_to_graph(&mut graph, x)?;
    Ok(graph_message(graph.finish(y)?))
}

fn graph_message<F: Float>(mut parts: Parts<F>) -> messages::Graph {
    // Each constant's values are freed before the next one's are copied.
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
        domain: String::new(),
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
        Attribute::Floats(numbers) => {
            message.floats.clone_from(numbers);
            messages::AttributeType::Floats
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
        ..messages::Tensor::default()
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
