//! The layers of a file: their kinds, and how they are written and read.

use ndarray::{Array1, Array2, ArrayD, ArrayView2};

use super::{FileError, check_finite};
use crate::base::Tensors;
use crate::cells::{BuiltCell, GruCell, LstmCell};
use crate::compose::BoxLayer;
use crate::convert::json::{Members, Value};
use crate::convert::{ConvertError, KerasCell, KerasKind, KerasWeights, check_array, supported};
use crate::kernels::Float;
use crate::layers::{Activation, Linear, Nonlinearity};

const TYPES: &str = "one of lstm, gru, dense, time-distributed-dense, activation";

/// A layer of a file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum KerasJsonLayer<F: Float> {
    /// `lstm`
    Lstm(Box<LstmCell<F>>),
    /// `gru`
    Gru(Box<GruCell<F>>),
    /// `dense`
    Dense(Linear<F>),
    /// `activation`, or that of the preceding `dense`.
    Activation(Activation<F>),
}

impl<F: Float> From<LstmCell<F>> for KerasJsonLayer<F> {
    fn from(cell: LstmCell<F>) -> Self {
        KerasJsonLayer::Lstm(Box::new(cell))
    }
}

impl<F: Float> From<GruCell<F>> for KerasJsonLayer<F> {
    fn from(cell: GruCell<F>) -> Self {
        KerasJsonLayer::Gru(Box::new(cell))
    }
}

impl<F: Float> From<Linear<F>> for KerasJsonLayer<F> {
    fn from(linear: Linear<F>) -> Self {
        KerasJsonLayer::Dense(linear)
    }
}

impl<F: Float> From<Activation<F>> for KerasJsonLayer<F> {
    fn from(activation: Activation<F>) -> Self {
        KerasJsonLayer::Activation(activation)
    }
}

impl<F: Float> KerasJsonLayer<F> {
    pub(super) fn boxed(&self) -> BoxLayer<F> {
        match self.clone() {
            KerasJsonLayer::Lstm(cell) => BoxLayer::new(*cell),
            KerasJsonLayer::Gru(cell) => BoxLayer::new(*cell),
            KerasJsonLayer::Dense(linear) => BoxLayer::new(linear),
            KerasJsonLayer::Activation(activation) => BoxLayer::new(activation),
        }
    }

    /// The number of its inputs; `None` if it takes any number.
    pub(super) fn input(&self) -> Option<usize> {
        match self {
            KerasJsonLayer::Lstm(cell) => Some(cell.weight_ih.ncols()),
            KerasJsonLayer::Gru(cell) => Some(cell.weight_ih.ncols()),
            KerasJsonLayer::Dense(linear) => Some(linear.input_size()),
            KerasJsonLayer::Activation(_) => None,
        }
    }

    /// The number of its outputs; `None` if it is that of its inputs.
    pub(super) fn output(&self) -> Option<usize> {
        match self {
            KerasJsonLayer::Lstm(cell) => Some(cell.weight_hh.ncols()),
            KerasJsonLayer::Gru(cell) => Some(cell.weight_hh.ncols()),
            KerasJsonLayer::Dense(linear) => Some(linear.weight.nrows()),
            KerasJsonLayer::Activation(_) => None,
        }
    }
}

/// A layer in the terms of the file.
pub struct Written<F> {
    pub kind: &'static str,
    pub activation: &'static str,
    pub size: usize,
    pub weights: Vec<ArrayD<F>>,
}

impl<F: Float> Written<F> {
    pub fn of_cell<C: KerasCell + BuiltCell<Elem = F>>(
        at: usize,
        name: &'static str,
        cell: &C,
    ) -> Result<Self, FileError> {
        check_named(at, cell)?;
        let kind = supported(at, cell.kind().and_then(KerasKind::with_its_activations))?;
        if matches!(kind, KerasKind::Gru { reset_after: false, .. }) {
            let option = "a reset gate that acts before the product".into();
            return Err(ConvertError::Unsupported { layer: at, option }.into());
        }
        let KerasWeights { kernel, recurrent_kernel, bias } = KerasWeights::of_cell(cell, kind);
        let bias = bias.unwrap_or_else(|| ArrayD::zeros(kind.bias(kernel.ncols())));
        let weights = vec![kernel.into_dyn(), recurrent_kernel.into_dyn(), bias];
        Ok(Written { kind: name, activation: "tanh", size: 0, weights })
    }

    pub fn of_linear(at: usize, linear: &Linear<F>) -> Result<Self, FileError> {
        check_named(at, linear)?;
        let outputs = linear.weight.nrows();
        let bias = linear.bias.clone().unwrap_or_else(|| Array1::zeros(outputs));
        check_array(at, "bias", &[outputs], bias.shape())?;
        let weights = vec![linear.weight.t().to_owned().into_dyn(), bias.into_dyn()];
        Ok(Written { kind: "dense", activation: "", size: 0, weights })
    }
}

fn check_named<F: Float>(at: usize, tensors: &impl Tensors<F>) -> Result<(), FileError> {
    check_finite(tensors).map_err(|error| match error {
        FileError::NotFinite { tensor } => FileError::NotFinite { tensor: format!("{at}.{tensor}") },
        other => other,
    })
}

pub fn name_of(nonlinearity: Nonlinearity) -> Option<&'static str> {
    match nonlinearity {
        Nonlinearity::Tanh => Some("tanh"),
        Nonlinearity::Relu => Some("relu"),
        Nonlinearity::Sigmoid => Some("sigmoid"),
        _ => None,
    }
}

/// The last number of a shape.
pub fn last_size(shape: &Value<'_>) -> Result<usize, FileError> {
    let sizes = shape.list("a shape, such as [null, null, 1]", 8)?;
    sizes.last().ok_or_else(|| shape.malformed("a shape with a number"))?.whole(1, usize::MAX)
}

/// The layers that an object stands for; the first one takes `size` features.
pub fn read_layer<F: Float>(layer: &Value<'_>, size: &mut usize) -> Result<Vec<KerasJsonLayer<F>>, FileError> {
    let members = layer.members(&["type", "activation", "shape", "weights"])?;
    let (kind, input, output) = (members.required("type")?, *size, last_size(members.required("shape")?)?);
    let read = match &*kind.text()? {
        "lstm" => vec![read_cell::<F, LstmCell<F>>(&members, KerasKind::lstm(), [input, output])?.into()],
        "gru" => {
            vec![read_cell::<F, GruCell<F>>(&members, KerasKind::gru(true), [input, output])?.into()]
        }
        "dense" | "time-distributed-dense" => {
            let weights = weights_of(&members, 1, 2)?;
            let kernel: Array2<F> = weights[0].matrix([input, output])?;
            let bias = weights.get(1).map(|bias| bias.vector(output)).transpose()?;
            let linear = Linear { weight: standard(kernel.t()), bias };
            [Some(KerasJsonLayer::Dense(linear)), activation_of(&members)?].into_iter().flatten().collect()
        }
        "activation" => {
            let shape = members.required("shape")?;
            if output != input {
                return Err(shape.malformed(format!("a shape that ends with {input}")));
            }
            activation_of(&members)?.into_iter().collect()
        }
        _ => return Err(kind.unsupported(TYPES)),
    };
    *size = output;
    Ok(read)
}

/// The elements of `weights`, from `least` to `most` of them.
fn weights_of<'t>(members: &Members<'t>, least: usize, most: usize) -> Result<Vec<Value<'t>>, FileError> {
    let weights = members.required("weights")?;
    let list = weights.list("a list of weights", most)?;
    if list.len() < least { Err(weights.malformed(format!("a list of {least} weights or {most}"))) } else { Ok(list) }
}

fn read_cell<F: Float, C: KerasCell + BuiltCell<Elem = F>>(
    members: &Members<'_>,
    kind: KerasKind,
    [input, hidden]: [usize; 2],
) -> Result<C, FileError> {
    if let Some(activation) = members.optional("activation")
        && !["", "tanh"].contains(&&*activation.text()?)
    {
        return Err(activation.unsupported("\"tanh\""));
    }
    let shape = members.required("shape")?;
    let columns = hidden.checked_mul(kind.gates()).ok_or_else(|| shape.malformed("a size that can be"))?;
    let weights = weights_of(members, 2, 3)?;
    let kernel = weights[0].matrix([input, columns])?;
    let recurrent_kernel = weights[1].matrix([hidden, columns])?;
    let bias = match (weights.get(2), kind) {
        (None, _) => None,
        (Some(bias), KerasKind::Gru { .. }) => Some(bias.matrix([2, columns])?.into_dyn()),
        (Some(bias), _) => Some(bias.vector(columns)?.into_dyn()),
    };
    Ok(KerasWeights { kernel, recurrent_kernel, bias }.cell(kind, 0, Some(input), hidden)?)
}

fn activation_of<F: Float>(members: &Members<'_>) -> Result<Option<KerasJsonLayer<F>>, FileError> {
    let Some(activation) = members.optional("activation") else { return Ok(None) };
    let nonlinearity = match &*activation.text()? {
        "" => return Ok(None),
        "tanh" => Nonlinearity::Tanh,
        "relu" => Nonlinearity::Relu,
        "sigmoid" => Nonlinearity::Sigmoid,
        _ => return Err(activation.unsupported("one of tanh, relu, sigmoid")),
    };
    Ok(Some(KerasJsonLayer::Activation(Activation::new(nonlinearity))))
}

/// The matrix in standard layout.
fn standard<F: Float>(weight: ArrayView2<'_, F>) -> Array2<F> {
    weight.as_standard_layout().into_owned()
}
