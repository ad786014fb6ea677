//! Keras' layers SimpleRNN, LSTM and GRU.

use ndarray::{Array2, ArrayD, ArrayView2, IxDyn};

use super::{ConvertError, Elem, check_array, check_numbers, read, supported};
use crate::cells::onnx::{common, refuse, refuse_common, rows, tensor, written};
use crate::cells::{BuiltCell, GruCell, GruOptions, GruReset, LstmCell, LstmOptions, Model, RnnCell, RnnOptions};
use crate::kernels::Float;
use crate::layers::Nonlinearity;
use crate::recurrent::Recurrent;
use crate::wrap::{Bidirectional, Merge};

/// The kind of a Keras layer, with the options that change what it computes.
///
/// ```
/// use gradflow::{convert::KerasKind, recurrent::Nonlinearity};
///
/// // keras.layers.LSTM(n, recurrent_activation="hard_sigmoid")
/// let (activation, recurrent_activation) = (Nonlinearity::Tanh, Nonlinearity::HARD_SIGMOID);
/// assert_ne!(KerasKind::Lstm { activation, recurrent_activation }, KerasKind::lstm());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KerasKind {
    /// `SimpleRNN`.
    SimpleRnn {
        /// tanh by default.
        activation: Nonlinearity,
    },
    /// `LSTM`.
    Lstm {
        /// Of the candidate, and of the memory when it is read; tanh by default.
        activation: Nonlinearity,
        /// Of the gates; the sigmoid by default.
        recurrent_activation: Nonlinearity,
    },
    /// `GRU`.
    Gru {
        /// Whether the reset gate acts after the product; true by default.
        reset_after: bool,
        /// Of the candidate; tanh by default.
        activation: Nonlinearity,
        /// Of the gates; the sigmoid by default.
        recurrent_activation: Nonlinearity,
    },
}

impl KerasKind {
    /// A `SimpleRNN` with Keras' default, tanh.
    pub fn simple_rnn() -> Self {
        KerasKind::SimpleRnn { activation: Nonlinearity::Tanh }
    }

    /// An `LSTM` with Keras' activations, tanh and the sigmoid.
    pub fn lstm() -> Self {
        KerasKind::Lstm { activation: Nonlinearity::Tanh, recurrent_activation: Nonlinearity::Sigmoid }
    }

    /// A `GRU` with Keras' activations, tanh and the sigmoid.
    pub fn gru(reset_after: bool) -> Self {
        let (activation, recurrent_activation) = (Nonlinearity::Tanh, Nonlinearity::Sigmoid);
        KerasKind::Gru { reset_after, activation, recurrent_activation }
    }

    /// Returns an error if it has activations other than Keras' defaults, which are all that plug-ins compute, whatever a file
    /// says.
    #[cfg(feature = "plugin-formats")]
    pub(super) fn with_its_activations(self) -> Result<Self, &'static str> {
        let defaults = match self {
            KerasKind::SimpleRnn { .. } => KerasKind::simple_rnn(),
            KerasKind::Lstm { .. } => KerasKind::lstm(),
            KerasKind::Gru { reset_after, .. } => KerasKind::gru(reset_after),
        };
        refuse([("an activation of a recurrent layer that is not tanh or the sigmoid", self != defaults)])?;
        Ok(self)
    }

    fn activations(self) -> Vec<Nonlinearity> {
        match self {
            KerasKind::SimpleRnn { activation } => vec![activation],
            KerasKind::Lstm { activation, recurrent_activation }
            | KerasKind::Gru { reset_after: _, activation, recurrent_activation } => {
                vec![activation, recurrent_activation]
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            KerasKind::SimpleRnn { .. } => "SimpleRNN",
            KerasKind::Lstm { .. } => "LSTM",
            KerasKind::Gru { .. } => "GRU",
        }
    }

    pub(super) fn gates(self) -> usize {
        match self {
            KerasKind::SimpleRnn { .. } => 1,
            KerasKind::Lstm { .. } => 4,
            KerasKind::Gru { .. } => 3,
        }
    }

    /// The shape of a bias.
    pub(super) fn bias(self, columns: usize) -> Vec<usize> {
        if matches!(self, KerasKind::Gru { reset_after: true, .. }) { vec![2, columns] } else { vec![columns] }
    }
}

/// The weights of one direction, as `layer.get_weights()` returns them.
#[derive(Clone, Debug, PartialEq)]
pub struct KerasWeights<F> {
    /// `[I, G H]`: of x
    pub kernel: Array2<F>,
    /// `[H, G H]`: of h
    pub recurrent_kernel: Array2<F>,
    /// `[G H]`; of a GRU with `reset_after` `[2, G H]`: of x, of h; `None` without `use_bias`
    pub bias: Option<ArrayD<F>>,
}

/// One recurrent layer of Keras, or a `Bidirectional` of two.
///
/// ```
/// use gradflow::convert::{ConvertError, KerasKind, KerasLayer, KerasWeights};
/// use gradflow::{ndarray::{Array2, ArrayD}, recurrent::Gru, wrap::Merge};
///
/// let weights = KerasWeights::<f32> {
///     kernel: Array2::from_elem((3, 3 * 5), 0.1),           // I = 3, H = 5
///     recurrent_kernel: Array2::from_elem((5, 3 * 5), 0.2),
///     bias: Some(ArrayD::zeros(vec![2, 3 * 5])),
/// };
/// let layer = KerasLayer { kind: KerasKind::gru(true), forward: weights, backward: None, merge: Merge::Concat };
/// let gru = Gru::from_keras(&[layer.clone()])?;
/// assert_eq!(gru.cell(0, 0).weight_ih.dim(), (3 * 5, 3));
/// assert_eq!(gru.to_keras()?, [layer]);
///
/// let lstm = gradflow::recurrent::Lstm::<f32>::builder(3, 5).peepholes().zeros();
/// assert_eq!(lstm.to_keras().unwrap_err(), ConvertError::Unsupported { layer: 0, option: "peephole".into() });
/// # Ok::<(), ConvertError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct KerasLayer<F> {
    /// The kind of the layer, in each direction.
    pub kind: KerasKind,
    /// The layer, or `Bidirectional`'s `forward_layer`.
    pub forward: KerasWeights<F>,
    /// `Bidirectional`'s `backward_layer`, if it is one.
    pub backward: Option<KerasWeights<F>>,
    /// `Bidirectional`'s `merge_mode`; it has no meaning for a layer in one direction.
    pub merge: Merge,
}

/// A cell that Keras has as a layer, too; sealed.
pub trait KerasCell: BuiltCell {
    /// Zeros for the weights of a layer; `None` if it is of another kind.
    #[doc(hidden)]
    fn of_kind(kind: KerasKind, sizes: [usize; 2], bias: bool) -> Option<Self>;

    /// Keras's layer for the cell, or an option that Keras does not have.
    #[doc(hidden)]
    fn kind(&self) -> Result<KerasKind, &'static str>;

    /// The name of the Keras layer.
    #[doc(hidden)]
    const NAME: &str;

    /// The index of each of its gates in Keras' order.
    #[doc(hidden)]
    const PLACES: &[usize];
}

impl<F: Float> KerasCell for RnnCell<F> {
    fn of_kind(kind: KerasKind, [input, hidden]: [usize; 2], bias: bool) -> Option<Self> {
        let KerasKind::SimpleRnn { activation: nonlinearity } = kind else { return None };
        let options = RnnOptions { nonlinearity, clip: None, recurrent_dropout: 0.0, heads: 1, common: common(bias) };
        Some(RnnCell::builder(input, hidden).options(options).zeros())
    }
    fn kind(&self) -> Result<KerasKind, &'static str> {
        let RnnOptions { nonlinearity: activation, clip, recurrent_dropout: _, heads, common } = self.options();
        refuse([("heads", heads != 1), ("clip", clip.is_some())])?;
        refuse_common(common)?;
        kept_by_keras(KerasKind::SimpleRnn { activation })
    }
    const NAME: &str = "SimpleRNN";
    const PLACES: &[usize] = &[0];
}

impl<F: Float> KerasCell for LstmCell<F> {
    fn of_kind(kind: KerasKind, [input, hidden]: [usize; 2], bias: bool) -> Option<Self> {
        let KerasKind::Lstm { activation, recurrent_activation } = kind else { return None };
        let options = LstmOptions {
            peepholes: false,
            coupled: false,
            projection: None,
            recurrent_dropout: 0.0,
            heads: 1,
            zoneout_c: 0.0,
            gate_activation: recurrent_activation,
            candidate_activation: activation,
            output_activation: activation,
            clip: None,
            common: common(bias),
        };
        Some(LstmCell::builder(input, hidden).options(options).zeros())
    }
    fn kind(&self) -> Result<KerasKind, &'static str> {
        let LstmOptions {
            peepholes,
            coupled,
            projection,
            recurrent_dropout: _,
            heads,
            zoneout_c,
            gate_activation: recurrent_activation,
            candidate_activation: activation,
            output_activation,
            clip,
            common,
        } = self.options();
        refuse([("heads", heads != 1), ("weight_hr", projection.is_some()), ("peephole", peepholes)])?;
        refuse([("coupled", coupled), ("zoneout", zoneout_c != 0.0)])?;
        refuse([("clip", clip.is_some()), ("an output_activation of its own", output_activation != activation)])?;
        refuse_common(common)?;
        kept_by_keras(KerasKind::Lstm { activation, recurrent_activation })
    }
    const NAME: &str = "LSTM";
    const PLACES: &[usize] = &[0, 1, 2, 3]; // i, f, g, o among i, f, c, o
}

impl<F: Float> KerasCell for GruCell<F> {
    fn of_kind(kind: KerasKind, [input, hidden]: [usize; 2], bias: bool) -> Option<Self> {
        let KerasKind::Gru { reset_after, activation, recurrent_activation } = kind else { return None };
        let reset = if reset_after { GruReset::AfterProduct } else { GruReset::BeforeProduct };
        let options = GruOptions {
            reset,
            recurrent_dropout: 0.0,
            heads: 1,
            gate_activation: recurrent_activation,
            candidate_activation: activation,
            clip: None,
            common: common(bias),
        };
        Some(GruCell::builder(input, hidden).options(options).zeros())
    }
    fn kind(&self) -> Result<KerasKind, &'static str> {
        let GruOptions {
            reset,
            recurrent_dropout: _,
            heads,
            gate_activation: recurrent_activation,
            candidate_activation: activation,
            clip,
            common,
        } = self.options();
        refuse([("heads", heads != 1), ("clip", clip.is_some())])?;
        refuse_common(common)?;
        let reset_after = reset == GruReset::AfterProduct;
        kept_by_keras(KerasKind::Gru { reset_after, activation, recurrent_activation })
    }
    const NAME: &str = "GRU";
    const PLACES: &[usize] = &[1, 0, 2]; // r, z, n among z, r, h
}

/// The kind, if Keras has its activations by name; otherwise, an activation that Keras does not have.
fn kept_by_keras(kind: KerasKind) -> Result<KerasKind, &'static str> {
    for f in kind.activations() {
        refuse([
            ("activation Affine", matches!(f, Nonlinearity::Affine { .. })),
            ("activation ScaledTanh", matches!(f, Nonlinearity::ScaledTanh { .. })),
            ("activation ThresholdedRelu", matches!(f, Nonlinearity::ThresholdedRelu { .. })),
            (
                "activation HardSigmoid",
                matches!(f, Nonlinearity::HardSigmoid { .. })
                    && ![Nonlinearity::HARD_SIGMOID, Nonlinearity::HARD_SIGMOID_ONNX].contains(&f),
            ),
        ])?;
    }
    Ok(kind)
}

impl<F: Float> KerasWeights<F> {
    /// The cell of layer `layer`, of kind `kind` and with H = `hidden`. It must take `input` features, if their number is known
    /// already.
    pub(super) fn cell<C: KerasCell + BuiltCell<Elem = F>>(
        &self,
        kind: KerasKind,
        layer: usize,
        input: Option<usize>,
        hidden: usize,
    ) -> Result<C, ConvertError> {
        let KerasWeights { kernel, recurrent_kernel, bias } = self;
        let (gates, input) = (kind.gates(), input.unwrap_or(kernel.nrows()));
        check_array(layer, "recurrent_kernel", &[hidden, gates * hidden], recurrent_kernel.shape())?;
        check_array(layer, "kernel", &[input, gates * hidden], kernel.shape())?;
        if let Some(bias) = bias {
            check_array(layer, "bias", &kind.bias(gates * hidden), bias.shape())?;
        }
        check_numbers::<F>(layer, &kind.activations(), None)?;
        let other = ConvertError::Kind { layer, expected: C::NAME, got: kind.name() };
        let mut cell = C::of_kind(kind, [input, hidden], bias.is_some()).ok_or(other)?;
        for (name, weight) in [("weight_ih", kernel), ("weight_hh", recurrent_kernel)] {
            let weight = transposed(weight.view());
            read(&mut cell, name, rows(weight.as_slice().expect("standard layout"), gates), C::PLACES);
        }
        if let Some(bias) = bias {
            // A single bias is that of x; the other one stays zero.
            let values: Vec<_> = bias.iter().copied().collect();
            for (name, values) in ["bias_ih", "bias_hh"].into_iter().zip(values.chunks_exact(gates * hidden)) {
                read(&mut cell, name, rows(values, gates), C::PLACES);
            }
        }
        Ok(cell)
    }

    pub(super) fn of_cell<C: KerasCell + BuiltCell<Elem = F>>(cell: &C, kind: KerasKind) -> Self {
        let gates = kind.gates();
        let written = |name: &str| Some(written(tensor(cell, gates, name)?, C::PLACES, gates));
        let weight = |name: &str| {
            let weight = written(name).expect("every cell has it");
            let rows = gates * cell.sizes().output;
            let columns = weight.len() / rows;
            transposed(weight.into_shape_with_order((rows, columns)).expect("whole rows").view())
        };
        let bias = written("bias_ih").zip(written("bias_hh")).map(|(of_x, of_h)| {
            let columns = of_x.len();
            let values: Vec<_> = if kind.bias(columns).len() == 2 {
                of_x.iter().chain(&of_h).copied().collect()
            } else {
                (of_x + of_h).into_iter().collect()
            };
            ArrayD::from_shape_vec(IxDyn(&kind.bias(columns)), values).expect("whole gates")
        });
        KerasWeights { kernel: weight("weight_ih"), recurrent_kernel: weight("weight_hh"), bias }
    }
}

/// The transposed matrix, in standard layout.
fn transposed<F: Float>(weight: ArrayView2<'_, F>) -> Array2<F> {
    weight.t().as_standard_layout().into_owned()
}

impl<C: KerasCell, const DIRECTIONS: usize> Recurrent<C, DIRECTIONS> {
    /// A model from the weights of consecutive Keras layers: see [`convert`](crate::convert).
    ///
    /// # Errors
    /// Returns an error if there are none, or one is of another kind or does not fit the others.
    pub fn from_keras(layers: &[KerasLayer<Elem<C>>]) -> Result<Self, ConvertError> {
        let hidden = layers.first().ok_or(ConvertError::NoLayers)?.forward.recurrent_kernel.nrows();
        let (mut cells, mut input) = (Vec::new(), None);
        for (layer, KerasLayer { kind, forward, backward, merge }) in layers.iter().enumerate() {
            let got = 1 + usize::from(backward.is_some());
            if got != DIRECTIONS {
                return Err(ConvertError::Directions { layer, expected: DIRECTIONS, got });
            }
            if DIRECTIONS == 2 && *merge != Merge::Concat {
                let option = format!("merge_mode {merge:?}, which a `Bidirectional` layer has,");
                return Err(ConvertError::Unsupported { layer, option });
            }
            for weights in std::iter::once(forward).chain(backward) {
                // Both directions see the same x.
                let input = input.unwrap_or(forward.kernel.nrows());
                cells.push(weights.cell(*kind, layer, Some(input), hidden)?);
            }
            input = Some(DIRECTIONS * hidden);
        }
        Ok(Model::of_cells(cells, Vec::new()))
    }

    /// The weights as those of consecutive Keras layers: see [`convert`](crate::convert).
    ///
    /// # Errors
    /// Returns an error if the model has an option that Keras does not have: peepholes, coupled gates, a projection, layer
    /// normalisation, zoneout, `clip`, an `output_activation` that is not that of the candidate, or an activation that Keras does
    /// not have by name.
    pub fn to_keras(&self) -> Result<Vec<KerasLayer<Elem<C>>>, ConvertError> {
        let layer = |(layer, cells): (usize, &[C])| {
            let kinds = cells.iter().map(|cell| supported(layer, cell.kind())).collect::<Result<Vec<_>, _>>()?;
            let kind = kinds[0];
            if let Some(other) = kinds.iter().find(|&&other| other != kind) {
                let option = format!("a direction that is {kind:?}, another {other:?}");
                return Err(ConvertError::Unsupported { layer, option });
            }
            let mut directions = cells.iter().map(|cell| KerasWeights::of_cell(cell, kind));
            let forward = directions.next().expect("a direction");
            Ok(KerasLayer { kind, forward, backward: directions.next(), merge: Merge::Concat })
        };
        self.layers().enumerate().map(layer).collect()
    }
}

impl<C: KerasCell> Bidirectional<Recurrent<C>> {
    /// A model from the weights of a `Bidirectional` layer of Keras, with its `merge_mode`: see [`convert`](crate::convert). A
    /// layer that concatenates is a `Recurrent` model of two directions, too.
    ///
    /// ```
    /// use gradflow::convert::{KerasKind, KerasLayer, KerasWeights};
    /// use gradflow::{Layer, ndarray::Array2, recurrent::Rnn, wrap::{Bidirectional, Merge}};
    ///
    /// let weights = || KerasWeights::<f32> {
    ///     kernel: Array2::from_elem((3, 5), 0.1),
    ///     recurrent_kernel: Array2::from_elem((5, 5), 0.2),
    ///     bias: None,
    /// };
    /// // keras.layers.Bidirectional(keras.layers.SimpleRNN(5, use_bias=False, return_sequences=True), merge_mode="ave")
    /// let (kind, merge) = (KerasKind::simple_rnn(), Merge::Average);
    /// let layer = KerasLayer { kind, forward: weights(), backward: Some(weights()), merge };
    /// let both = Bidirectional::<Rnn<f32>>::from_keras(&layer)?;
    /// assert_eq!(both.output_size(3.into()), Ok(5));
    /// assert_eq!(both.to_keras()?, layer);
    /// # Ok::<(), gradflow::convert::ConvertError>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the layer has one direction, is of another kind, or its arrays do not fit.
    pub fn from_keras(layer: &KerasLayer<Elem<C>>) -> Result<Self, ConvertError> {
        let KerasLayer { kind, forward, backward, merge } = layer;
        let Some(backward) = backward else {
            return Err(ConvertError::Directions { layer: 0, expected: 2, got: 1 });
        };
        let (input, hidden) = (forward.kernel.nrows(), forward.recurrent_kernel.nrows());
        let direction = |weights: &KerasWeights<Elem<C>>| {
            Ok(Model::of_cells(vec![weights.cell(*kind, 0, Some(input), hidden)?], Vec::new()))
        };
        Ok(Bidirectional { forward: direction(forward)?, reverse: direction(backward)?, merge: *merge })
    }

    /// The weights as those of a `Bidirectional` layer of Keras, with its `merge_mode`: see [`convert`](crate::convert).
    ///
    /// # Errors
    /// Returns an error if a direction has several layers, both are of different kinds, or one has an option that Keras does not
    /// have: see [`Recurrent::to_keras`].
    pub fn to_keras(&self) -> Result<KerasLayer<Elem<C>>, ConvertError> {
        let one = |direction: &Recurrent<C>| {
            let mut layers = direction.to_keras()?;
            match layers.pop() {
                Some(layer) if layers.is_empty() => Ok(layer),
                _ => Err(ConvertError::Unsupported { layer: 1, option: "a direction of several layers".into() }),
            }
        };
        let (forward, reverse) = (one(&self.forward)?, one(&self.reverse)?);
        if forward.kind != reverse.kind {
            let option = format!("a direction that is {:?}, another {:?}", forward.kind, reverse.kind);
            return Err(ConvertError::Unsupported { layer: 0, option });
        }
        Ok(KerasLayer { backward: Some(reverse.forward), merge: self.merge, ..forward })
    }
}
