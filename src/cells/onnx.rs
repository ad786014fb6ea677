//! Cells as the ONNX operators RNN, LSTM and GRU.

use ndarray::{Array2, Array3, ArrayView2, Axis, s};

use super::builder::BuiltCell;
use super::options::CommonOptions;
use crate::base::Tensors;
use crate::kernels::Float;
use crate::layer::{Attribute, Graph, Signal, Unsupported, Value};
use crate::layers::Nonlinearity;

/// The operator of a node, with the attributes that only this operator has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnnxOperator {
    /// `RNN`.
    Rnn,
    /// `LSTM`.
    Lstm {
        /// Whether f = 1 - i.
        input_forget: bool,
    },
    /// `GRU`.
    Gru {
        /// Whether the reset gate acts after the product.
        linear_before_reset: bool,
    },
}

impl OnnxOperator {
    pub(crate) fn name(self) -> &'static str {
        match self {
            OnnxOperator::Rnn => "RNN",
            OnnxOperator::Lstm { .. } => "LSTM",
            OnnxOperator::Gru { .. } => "GRU",
        }
    }

    /// The number of gates for which a node has weights.
    pub(crate) fn gates(self) -> usize {
        match self {
            OnnxOperator::Rnn => 1,
            OnnxOperator::Lstm { .. } => 4,
            OnnxOperator::Gru { .. } => 3,
        }
    }

    /// The default activations of a direction: f, g, h.
    pub(crate) fn activations(self) -> &'static [Nonlinearity] {
        match self {
            OnnxOperator::Rnn => &[Nonlinearity::Tanh],
            OnnxOperator::Lstm { .. } => &[Nonlinearity::Sigmoid, Nonlinearity::Tanh, Nonlinearity::Tanh],
            OnnxOperator::Gru { .. } => &[Nonlinearity::Sigmoid, Nonlinearity::Tanh],
        }
    }
}

/// The weights of one ONNX node RNN, LSTM or GRU: a layer in D directions.
///
/// ```
/// use gradflow::convert::{ConvertError, OnnxNode, OnnxOperator};
/// use gradflow::{TensorsExt, ndarray::{Array2, Array3}, recurrent::{BiLstm, Lstm}};
///
/// // Two directions, I = 3, H = 5.
/// let node = OnnxNode::<f32> {
///     operator: OnnxOperator::Lstm { input_forget: false },
///     activations: Vec::new(), // Sigmoid, Tanh, Tanh
///     clip: None,
///     w: Array3::from_elem((2, 4 * 5, 3), 0.1),
///     r: Array3::from_elem((2, 4 * 5, 5), 0.2),
///     b: Some(Array2::zeros((2, 2 * 4 * 5))),
///     p: None,
/// };
/// let lstm = BiLstm::from_onnx(&[node.clone()])?;
/// assert_eq!(lstm.names()[..2], ["weight_ih_l0", "weight_hh_l0"]);
/// assert_eq!(lstm.to_onnx()?, [node.clone()]);
/// assert_eq!(Lstm::from_onnx(&[node]).unwrap_err(), ConvertError::Directions { layer: 0, expected: 1, got: 2 });
/// # Ok::<(), ConvertError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxNode<F> {
    /// The operator of the node.
    pub operator: OnnxOperator,
    /// `activations`, with their `activation_alpha` and `activation_beta`: f, g and h, direction by direction. If empty, they are
    /// the operator's defaults: Sigmoid for gates, else Tanh.
    pub activations: Vec<Nonlinearity>,
    /// `clip`
    pub clip: Option<f64>,
    /// `[D, G H, I]`: weights of x
    pub w: Array3<F>,
    /// `[D, G H, H]`: weights of h
    pub r: Array3<F>,
    /// `[D, 2 G H]`: biases, first those of x, then those of h
    pub b: Option<Array2<F>>,
    /// `[D, 3 H]`: peepholes of an LSTM
    pub p: Option<Array2<F>>,
}

/// A cell that is also an ONNX operator; sealed.
pub trait OnnxCell: BuiltCell {
    /// A cell of zeros for the weights of a node; `None` if the node is another operator.
    #[doc(hidden)]
    fn of_operator(
        operator: OnnxOperator,
        activations: &[Nonlinearity],
        clip: Option<f64>,
        sizes: [usize; 2],
        bias: bool,
        peepholes: bool,
    ) -> Option<Self>;

    /// The operator of the cell, or an option that ONNX does not have.
    #[doc(hidden)]
    fn operator(&self) -> Result<OnnxOperator, &'static str>;

    /// The cell's activations, and the limit to which sums are clipped.
    #[doc(hidden)]
    fn activations(&self) -> (Vec<Nonlinearity>, Option<f64>);

    /// The operator's name in messages.
    #[doc(hidden)]
    const NAME: &str;

    /// The place of each of the cell's gates in ONNX's order.
    #[doc(hidden)]
    fn places(&self) -> &'static [usize];

    /// The place of each of the cell's peepholes in ONNX's order.
    #[doc(hidden)]
    fn peephole_places(&self) -> &'static [usize] {
        &[]
    }
}

type Elem<C> = <C as BuiltCell>::Elem;

impl<F: Float> OnnxNode<F> {
    /// The node for the cells of a layer, one per direction.
    pub(crate) fn of_cells<C: OnnxCell + BuiltCell<Elem = F>>(cells: &[C]) -> Result<Self, String> {
        let operators = cells.iter().map(OnnxCell::operator).collect::<Result<Vec<_>, _>>()?;
        let (operator, places, directions) = (operators[0], cells[0].places(), cells.len());
        // One node has one set of attributes, and B and P for all directions or for none.
        if let Some(other) = operators.iter().find(|&&other| other != operator) {
            return Err(format!("a direction that is {operator:?}, another {other:?}"));
        }
        let (all_activations, clips): (Vec<_>, Vec<_>) = cells.iter().map(OnnxCell::activations).unzip();
        if let Some(other) = clips.iter().find(|&other| *other != clips[0]) {
            return Err(format!("a direction with clip {:?}, another {other:?}", clips[0]));
        }
        let is_default = all_activations.iter().all(|own| own == operator.activations());
        let activations = if is_default { Vec::new() } else { all_activations.concat() };
        let names = |cell: &C| (0..cell.count()).map(|i| cell.name(i)).collect::<Vec<_>>();
        let first = names(&cells[0]);
        for other in cells.iter().map(names) {
            let (more, less) = if other.len() > first.len() { (&other, &first) } else { (&first, &other) };
            if let Some(name) = more.iter().find(|name| !less.contains(name)) {
                return Err(format!("a direction with {name}, another without"));
            }
        }
        let gates = operator.gates();
        // A tensor of all cells in ONNX's order, `[D, values of one cell]`.
        let all = |name: &str, places: &'static [usize], count: usize| -> Option<Array2<F>> {
            let mut values = Vec::new();
            for cell in cells {
                values.extend(written(tensor(cell, places.len(), name)?, places, count));
            }
            Some(Array2::from_shape_vec((directions, values.len() / directions), values).expect("cells alike"))
        };
        let weight = |name: &str| {
            let weight = all(name, places, gates).expect("every cell has it");
            let rows = gates * cells[0].sizes().output;
            let columns = weight.ncols() / rows;
            weight.into_shape_with_order((directions, rows, columns)).expect("whole rows")
        };
        let b = all("bias_ih", places, gates).zip(all("bias_hh", places, gates)).map(|(of_x, of_h)| {
            let mut b = Array2::zeros((directions, 2 * of_x.ncols()));
            b.slice_mut(s![.., ..of_x.ncols()]).assign(&of_x);
            b.slice_mut(s![.., of_x.ncols()..]).assign(&of_h);
            b
        });
        let peepholes = cells[0].peephole_places();
        let p = if peepholes.is_empty() { None } else { all("peephole", peepholes, 3) };
        Ok(OnnxNode { operator, activations, clip: clips[0], w: weight("weight_ih"), r: weight("weight_hh"), b, p })
    }
}

/// Fails with the name of the first of these options that is in use, or of the parameter that it adds.
pub(crate) fn refuse<const N: usize>(options: [(&'static str, bool); N]) -> Result<(), &'static str> {
    match options.into_iter().find(|&(_, in_use)| in_use) {
        Some((option, _)) => Err(option),
        None => Ok(()),
    }
}

/// Refuses the common options that neither ONNX nor Keras has.
pub(crate) fn refuse_common(options: CommonOptions) -> Result<(), &'static str> {
    let CommonOptions { bias: _, layer_norm, zoneout } = options;
    refuse([("norm_ih", layer_norm.is_some()), ("zoneout", zoneout != 0.0)])
}

/// An activation in ONNX's terms.
struct InOnnx {
    name: &'static str,
    alpha: Option<f64>,
    beta: Option<f64>,
}

impl InOnnx {
    /// The activation `f`, or an error if ONNX does not have it.
    fn of(f: Nonlinearity) -> Result<Self, &'static str> {
        let (name, alpha, beta) = match f {
            Nonlinearity::Tanh => ("Tanh", None, None),
            Nonlinearity::Sigmoid => ("Sigmoid", None, None),
            Nonlinearity::Relu => ("Relu", None, None),
            Nonlinearity::LeakyRelu { slope } => ("LeakyRelu", Some(slope), None),
            Nonlinearity::Gelu => return Err("activation GELU"),
            Nonlinearity::Silu => return Err("activation SiLU"),
            Nonlinearity::Identity => ("Affine", Some(1.0), Some(0.0)),
            Nonlinearity::Affine { slope, offset } => ("Affine", Some(slope), Some(offset)),
            Nonlinearity::HardSigmoid { slope, offset } => ("HardSigmoid", Some(slope), Some(offset)),
            Nonlinearity::ScaledTanh { scale, slope } => ("ScaledTanh", Some(scale), Some(slope)),
            Nonlinearity::ThresholdedRelu { threshold } => ("ThresholdedRelu", Some(threshold), None),
            Nonlinearity::Elu { alpha } => ("Elu", Some(alpha), None),
            Nonlinearity::Softsign => ("Softsign", None, None),
            Nonlinearity::Softplus => ("Softplus", None, None),
        };
        Ok(InOnnx { name, alpha, beta })
    }
}

/// Fails with the name of the first activation that ONNX's operators do not have.
pub(crate) fn refuse_activations(activations: &[Nonlinearity]) -> Result<(), &'static str> {
    activations.iter().try_for_each(|&f| InOnnx::of(f).map(drop))
}

/// The common options of a cell that is read from ONNX or Keras.
pub(crate) fn common(bias: bool) -> CommonOptions {
    CommonOptions { bias, layer_norm: None, zoneout: 0.0 }
}

/// Tensor `name` of a cell, with a row for each gate: `[gates, values of a gate]`.
pub(crate) fn tensor<'a, F: Float>(cell: &'a impl Tensors<F>, gates: usize, name: &str) -> Option<ArrayView2<'a, F>> {
    let (_, values) = (0..cell.count()).find(|&i| cell.name(i) == name).map(|i| cell.tensor(i))?;
    Some(rows(values, gates))
}

/// `values` as `count` rows or blocks of rows.
pub(crate) fn rows<F>(values: &[F], count: usize) -> ArrayView2<'_, F> {
    ArrayView2::from_shape((count, values.len() / count), values).expect("whole gates")
}

/// `count` gates, of which the `places[k]`th is the cell's `k`th, and the remaining ones are zero.
pub(crate) fn written<F: Float>(own: ArrayView2<'_, F>, places: &[usize], count: usize) -> Array2<F> {
    let mut gates = Array2::zeros((count, own.ncols()));
    for (own, &place) in own.axis_iter(Axis(0)).zip(places) {
        gates.slice_mut(s![place, ..]).assign(&own);
    }
    gates
}

/// [`Cell::add_cells_to_graph`](crate::recurrence::Cell::add_cells_to_graph) for cells that are an operator.
pub(super) fn add_cells<C: OnnxCell>(
    cells: &[C],
    graph: &mut Graph<Elem<C>>,
    x: Signal,
    initial: &[Option<Value>],
) -> Result<(Signal, Vec<Value>), Unsupported> {
    let (name, directions, hidden) = (C::NAME, cells.len(), cells[0].sizes().output);
    for cell in cells {
        let operator = cell.operator().and_then(|_| refuse_activations(&cell.activations().0));
        operator.map_err(|option| graph.refuse(format!("ONNX's {name} has no {}", in_words(option))))?;
    }
    let node = OnnxNode::of_cells(cells);
    let OnnxNode { operator, activations, clip, w, r, b, p } = node.map_err(|option| {
        graph.refuse(format!("ONNX's {name} has the same options in both directions, not {option}"))
    })?;
    let direction = match (directions, x.is_reversed) {
        (1, false) => "forward",
        (1, true) => "reverse",
        // The directions are swapped, so weights and states would have to be swapped, too.
        (_, true) => return Err(graph.refuse(format!("{name} in both directions of a reversed sequence"))),
        _ => "bidirectional",
    };
    let mut attributes = vec![("hidden_size", (hidden as i64).into()), ("direction", direction.into())];
    if !activations.is_empty() {
        let all: Vec<_> = activations.iter().filter_map(|&f| InOnnx::of(f).ok()).collect();
        attributes.push(("activations", Attribute::Texts(all.iter().map(|f| f.name.into()).collect())));
        let alphas: Vec<_> = all.iter().filter_map(|f| f.alpha).collect();
        let betas: Vec<_> = all.iter().filter_map(|f| f.beta).collect();
        for (name, numbers) in [("activation_alpha", alphas), ("activation_beta", betas)] {
            if !numbers.is_empty() {
                attributes.push((name, Attribute::Floats(numbers.iter().map(|&number| number as f32).collect())));
            }
        }
    }
    if let Some(clip) = clip {
        attributes.push(("clip", Attribute::Float(clip as f32)));
    }
    match operator {
        OnnxOperator::Rnn => {}
        OnnxOperator::Lstm { input_forget } => attributes.push(("input_forget", i64::from(input_forget).into())),
        OnnxOperator::Gru { linear_before_reset } => {
            attributes.push(("linear_before_reset", i64::from(linear_before_reset).into()));
        }
    }
    let w = graph.parameter("W", w.shape(), w.iter().copied().collect());
    let r = graph.parameter("R", r.shape(), r.iter().copied().collect());
    let b = b.map(|b| graph.parameter("B", b.shape(), b.iter().copied().collect()));
    let p = p.map(|p| graph.parameter("P", p.shape(), p.iter().copied().collect()));
    let mut inputs = vec![Some(x.value), Some(w), Some(r), b, graph.lengths(x)];
    inputs.extend(initial);
    if p.is_some() {
        inputs.push(p);
    }
    let mut outputs = graph.node_of(operator.name(), &inputs, &attributes, 1 + initial.len());
    let finals = outputs.split_off(1);
    // [T, D, B, H] to [T, B, D H]
    let y = if directions == 1 {
        let axis = graph.integers(&[1]);
        graph.node("Squeeze", &[outputs[0], axis], &[])
    } else {
        let y = graph.node("Transpose", &[outputs[0]], &[("perm", vec![0, 2, 1, 3].into())]);
        let shape = graph.integers(&[0, 0, (directions * hidden) as i64]);
        graph.node("Reshape", &[y, shape], &[])
    };
    Ok((x.with(y, directions * hidden), finals))
}

/// An option of a cell, from the parameter that it adds.
fn in_words(option: &str) -> &str {
    match option {
        "weight_hr" => "projection",
        "norm_ih" => "layer normalisation",
        option => option,
    }
}

/// [`add_cells_to_graph`](crate::recurrence::Cell::add_cells_to_graph) for a cell of this crate that is an operator.
macro_rules! operator_cell {
    () => {
        fn add_cells_to_graph(
            cells: &[Self],
            graph: &mut $crate::layer::Graph<F>,
            x: $crate::layer::Signal,
            initial: &[Option<$crate::layer::Value>],
        ) -> Result<($crate::layer::Signal, Vec<$crate::layer::Value>), $crate::layer::Unsupported> {
            // Spares the compile time of users without the feature.
            if cfg!(not(feature = "onnx")) {
                unreachable!("graphs are made by the feature `onnx`")
            }
            $crate::cells::onnx::add_cells(cells, graph, x, initial)
        }
    };
}
pub(super) use operator_cell;
