//! The ONNX operators RNN, LSTM and GRU.

use ndarray::{Array2, Array3, Axis, s};

use super::{ConvertError, Elem, check_array, common, read, refuse, refuse_common, rows, supported, tensor, written};
use crate::cells::{
    BuiltCell, GruCell, GruOptions, GruReset, LstmCell, LstmOptions, Model, RnnCell, RnnNonlinearity, RnnOptions,
};
use crate::kernels::Float;
use crate::recurrent::Recurrent;

/// Which operator a node is, with its attributes; activations are the operator's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnnxOperator {
    /// `RNN`, with `activations` Tanh or Relu.
    Rnn(RnnNonlinearity),
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
    fn name(self) -> &'static str {
        match self {
            OnnxOperator::Rnn(_) => "RNN",
            OnnxOperator::Lstm { .. } => "LSTM",
            OnnxOperator::Gru { .. } => "GRU",
        }
    }

    /// The gates for which a node has weights.
    fn gates(self) -> usize {
        match self {
            OnnxOperator::Rnn(_) => 1,
            OnnxOperator::Lstm { .. } => 4,
            OnnxOperator::Gru { .. } => 3,
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
    /// What the node is.
    pub operator: OnnxOperator,
    /// `[D, G H, I]`: of x
    pub w: Array3<F>,
    /// `[D, G H, H]`: of h
    pub r: Array3<F>,
    /// `[D, 2 G H]`: biases, those of x before those of h
    pub b: Option<Array2<F>>,
    /// `[D, 3 H]`: peepholes of an LSTM
    pub p: Option<Array2<F>>,
}

/// A cell that is an ONNX operator too; sealed.
pub trait OnnxCell: BuiltCell {
    /// Zeros for the weights of a node; nothing if it is another operator.
    #[doc(hidden)]
    fn of_operator(operator: OnnxOperator, sizes: [usize; 2], bias: bool, peepholes: bool) -> Option<Self>;

    /// The operator for the cell, or an option that ONNX does not have.
    #[doc(hidden)]
    fn operator(&self) -> Result<OnnxOperator, &'static str>;

    /// The cell with any options.
    #[doc(hidden)]
    const NAME: &str;

    /// The place of each of its gates in ONNX' order.
    #[doc(hidden)]
    fn places(&self) -> &'static [usize];

    /// The place of each of its peepholes in ONNX' order.
    #[doc(hidden)]
    fn peephole_places(&self) -> &'static [usize] {
        &[]
    }
}

impl<F: Float> OnnxCell for RnnCell<F> {
    fn of_operator(operator: OnnxOperator, [input, hidden]: [usize; 2], bias: bool, _: bool) -> Option<Self> {
        let OnnxOperator::Rnn(nonlinearity) = operator else { return None };
        let options = RnnOptions { nonlinearity, recurrent_dropout: 0.0, common: common(bias) };
        Some(RnnCell::builder(input, hidden).options(options).zeros())
    }
    fn operator(&self) -> Result<OnnxOperator, &'static str> {
        let RnnOptions { nonlinearity, recurrent_dropout: _, common } = self.options();
        refuse_common(common)?;
        Ok(OnnxOperator::Rnn(nonlinearity))
    }
    const NAME: &str = "RNN";
    fn places(&self) -> &'static [usize] {
        &[0]
    }
}

impl<F: Float> OnnxCell for LstmCell<F> {
    fn of_operator(operator: OnnxOperator, [input, hidden]: [usize; 2], bias: bool, peepholes: bool) -> Option<Self> {
        let OnnxOperator::Lstm { input_forget } = operator else { return None };
        let options = LstmOptions {
            peepholes,
            coupled: input_forget,
            projection: None,
            recurrent_dropout: 0.0,
            zoneout_c: 0.0,
            common: common(bias),
        };
        Some(LstmCell::builder(input, hidden).options(options).zeros())
    }
    fn operator(&self) -> Result<OnnxOperator, &'static str> {
        let LstmOptions { peepholes: _, coupled, projection, recurrent_dropout: _, zoneout_c, common } = self.options();
        refuse([("weight_hr", projection.is_some()), ("zoneout", zoneout_c != 0.0)])?;
        refuse_common(common)?;
        Ok(OnnxOperator::Lstm { input_forget: coupled })
    }
    const NAME: &str = "LSTM";
    fn places(&self) -> &'static [usize] {
        // i, f, g, o, coupled i, g, o, among i, o, f, c
        if self.options().coupled { &[0, 3, 1] } else { &[0, 2, 3, 1] }
    }
    fn peephole_places(&self) -> &'static [usize] {
        // i, f, o, coupled i, o, among i, o, f
        if self.options().coupled { &[0, 1] } else { &[0, 2, 1] }
    }
}

impl<F: Float> OnnxCell for GruCell<F> {
    fn of_operator(operator: OnnxOperator, [input, hidden]: [usize; 2], bias: bool, _: bool) -> Option<Self> {
        let OnnxOperator::Gru { linear_before_reset } = operator else { return None };
        let reset = if linear_before_reset { GruReset::AfterProduct } else { GruReset::BeforeProduct };
        let options = GruOptions { reset, recurrent_dropout: 0.0, common: common(bias) };
        Some(GruCell::builder(input, hidden).options(options).zeros())
    }
    fn operator(&self) -> Result<OnnxOperator, &'static str> {
        let GruOptions { reset, recurrent_dropout: _, common } = self.options();
        refuse_common(common)?;
        Ok(OnnxOperator::Gru { linear_before_reset: reset == GruReset::AfterProduct })
    }
    const NAME: &str = "GRU";
    fn places(&self) -> &'static [usize] {
        // r, z, n among z, r, h
        &[1, 0, 2]
    }
}

impl<F: Float> OnnxNode<F> {
    /// Checks that the node is layer `layer` of a model whose layer before has `before` features a direction, if there is
    /// one.
    fn check(&self, layer: usize, directions: usize, before: Option<usize>) -> Result<(), ConvertError> {
        let got = self.w.dim().0;
        if got != directions {
            return Err(ConvertError::Directions { layer, expected: directions, got });
        }
        let hidden = before.unwrap_or(self.r.dim().2);
        let input = before.map_or(self.w.dim().2, |before| directions * before);
        let rows = self.operator.gates() * hidden;
        check_array(layer, "R", &[directions, rows, hidden], self.r.shape())?;
        check_array(layer, "W", &[directions, rows, input], self.w.shape())?;
        if let Some(b) = &self.b {
            check_array(layer, "B", &[directions, 2 * rows], b.shape())?;
        }
        match (&self.p, self.operator) {
            (None, _) => Ok(()),
            (Some(p), OnnxOperator::Lstm { .. }) => check_array(layer, "P", &[directions, 3 * hidden], p.shape()),
            (Some(_), _) => Err(ConvertError::Unexpected { layer, tensor: "P" }),
        }
    }

    /// The cell of one direction.
    fn cell<C: OnnxCell + BuiltCell<Elem = F>>(&self, layer: usize, direction: usize) -> Result<C, ConvertError> {
        let OnnxNode { operator, w, r, b, p } = self;
        let sizes = [w.dim().2, r.dim().2];
        let mut cell: C = C::of_operator(*operator, sizes, b.is_some(), p.is_some()).ok_or(ConvertError::Kind {
            layer,
            expected: C::NAME,
            got: operator.name(),
        })?;
        let (gates, places, peepholes) = (operator.gates(), cell.places(), cell.peephole_places());
        for (name, weight) in [("weight_ih", w), ("weight_hh", r)] {
            let weight = weight.index_axis(Axis(0), direction).as_standard_layout().into_owned();
            read(&mut cell, name, rows(weight.as_slice().expect("standard layout"), gates), places);
        }
        if let Some(b) = b {
            let both = b.row(direction).to_vec();
            let (of_x, of_h) = both.split_at(both.len() / 2);
            read(&mut cell, "bias_ih", rows(of_x, gates), places);
            read(&mut cell, "bias_hh", rows(of_h, gates), places);
        }
        if let Some(p) = p {
            read(&mut cell, "peephole", rows(&p.row(direction).to_vec(), 3), peepholes);
        }
        Ok(cell)
    }

    /// The cells of a layer, one a direction.
    fn of_cells<C: OnnxCell + BuiltCell<Elem = F>>(layer: usize, cells: &[C]) -> Result<Self, ConvertError> {
        let operators = cells.iter().map(|cell| supported(layer, cell.operator())).collect::<Result<Vec<_>, _>>()?;
        let (operator, places, directions) = (operators[0], cells[0].places(), cells.len());
        // One node has one set of attributes, and B and P for all directions or for none.
        if let Some(other) = operators.iter().find(|&&other| other != operator) {
            let option = format!("a direction that is {operator:?}, another {other:?}");
            return Err(ConvertError::Unsupported { layer, option });
        }
        let names = |cell: &C| (0..cell.count()).map(|i| cell.name(i)).collect::<Vec<_>>();
        let first = names(&cells[0]);
        for other in cells.iter().map(names) {
            let (more, less) = if other.len() > first.len() { (&other, &first) } else { (&first, &other) };
            if let Some(name) = more.iter().find(|name| !less.contains(name)) {
                let option = format!("a direction with {name}, another without");
                return Err(ConvertError::Unsupported { layer, option });
            }
        }
        let gates = operator.gates();
        // A tensor of all cells in ONNX' order, `[D, all of one cell's]`.
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
        Ok(OnnxNode { operator, w: weight("weight_ih"), r: weight("weight_hh"), b, p })
    }
}

impl<C: OnnxCell, const DIRECTIONS: usize> Recurrent<C, DIRECTIONS> {
    /// From the weights of ONNX nodes in a row, one a layer: see [`convert`](crate::convert).
    ///
    /// # Errors
    /// Returns an error if there are none, or one is another operator or does not fit the others.
    pub fn from_onnx(nodes: &[OnnxNode<Elem<C>>]) -> Result<Self, ConvertError> {
        let hidden = nodes.first().ok_or(ConvertError::NoLayers)?.r.dim().2;
        let mut cells = Vec::new();
        for (layer, node) in nodes.iter().enumerate() {
            node.check(layer, DIRECTIONS, (layer > 0).then_some(hidden))?;
            for direction in 0..DIRECTIONS {
                cells.push(node.cell(layer, direction)?);
            }
        }
        Ok(Model::of_cells(cells, Vec::new()))
    }

    /// As the weights of ONNX nodes in a row, one a layer: see [`convert`](crate::convert).
    ///
    /// # Errors
    /// Returns an error if the model has an option that ONNX does not have: a projection, layer normalisation, zoneout.
    pub fn to_onnx(&self) -> Result<Vec<OnnxNode<Elem<C>>>, ConvertError> {
        self.layers().enumerate().map(|(layer, cells)| OnnxNode::of_cells(layer, cells)).collect()
    }
}
