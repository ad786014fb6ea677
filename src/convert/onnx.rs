//! The ONNX operators RNN, LSTM and GRU.

use ndarray::Axis;

use super::{ConvertError, Elem, check_array, check_numbers, read, supported};
use crate::cells::onnx::{OnnxCell, OnnxNode, OnnxOperator, refuse_activations, rows};
use crate::cells::{BuiltCell, Model};
use crate::kernels::Float;
use crate::recurrent::Recurrent;

impl<F: Float> OnnxNode<F> {
    /// Checks that the node is layer `layer` of a model. If there is a layer before it, that one has `before` features per
    /// direction.
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
        if !self.activations.is_empty() {
            let expected = directions * self.operator.activations().len();
            check_array(layer, "activations", &[expected], &[self.activations.len()])?;
        }
        match (&self.p, self.operator) {
            (None, _) => Ok(()),
            (Some(p), OnnxOperator::Lstm { .. }) => check_array(layer, "P", &[directions, 3 * hidden], p.shape()),
            (Some(_), _) => Err(ConvertError::Unexpected { layer, tensor: "P" }),
        }
    }

    /// The cell of one direction.
    fn cell<C: OnnxCell + BuiltCell<Elem = F>>(&self, layer: usize, direction: usize) -> Result<C, ConvertError> {
        let OnnxNode { operator, activations, clip, w, r, b, p } = self;
        let sizes = [w.dim().2, r.dim().2];
        let defaults = operator.activations();
        let activations = activations.chunks(defaults.len()).nth(direction).unwrap_or(defaults);
        check_numbers::<F>(layer, activations, *clip)?;
        let cell = C::of_operator(*operator, activations, *clip, sizes, b.is_some(), p.is_some());
        let other = ConvertError::Kind { layer, expected: C::NAME, got: operator.name() };
        let mut cell: C = cell.ok_or(other)?;
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
}

impl<C: OnnxCell, const DIRECTIONS: usize> Recurrent<C, DIRECTIONS> {
    /// A model from the weights of consecutive ONNX nodes, one per layer: see [`convert`](crate::convert).
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

    /// The weights as those of consecutive ONNX nodes, one per layer: see [`convert`](crate::convert).
    ///
    /// # Errors
    /// Returns an error if the model has an option that ONNX does not have: a projection, layer normalisation, zoneout, GELU or SiLU
    /// as an activation.
    pub fn to_onnx(&self) -> Result<Vec<OnnxNode<Elem<C>>>, ConvertError> {
        let node = |(layer, cells): (usize, &[C])| {
            for cell in cells {
                supported(layer, refuse_activations(&cell.activations().0))?;
            }
            supported(layer, OnnxNode::of_cells(cells))
        };
        self.layers().enumerate().map(node).collect()
    }
}
