//! A GRU as ONNX's operator.

use super::GruCell;
use super::options::{GruOptions, GruReset};
use crate::cells::onnx::{OnnxCell, OnnxOperator, common, refuse, refuse_common};
use crate::kernels::Float;
use crate::layers::Nonlinearity;

impl<F: Float> OnnxCell for GruCell<F> {
    fn of_operator(
        operator: OnnxOperator,
        activations: &[Nonlinearity],
        clip: Option<f64>,
        [input, hidden]: [usize; 2],
        bias: bool,
        _: bool,
    ) -> Option<Self> {
        let (OnnxOperator::Gru { linear_before_reset }, &[gate_activation, candidate_activation]) =
            (operator, activations)
        else {
            return None;
        };
        let reset = if linear_before_reset { GruReset::AfterProduct } else { GruReset::BeforeProduct };
        let common = common(bias);
        let (recurrent_dropout, heads) = (0.0, 1);
        let options =
            GruOptions { reset, recurrent_dropout, heads, gate_activation, candidate_activation, clip, common };
        Some(GruCell::builder(input, hidden).options(options).zeros())
    }
    fn operator(&self) -> Result<OnnxOperator, &'static str> {
        let GruOptions {
            reset,
            recurrent_dropout: _,
            heads,
            gate_activation: _,
            candidate_activation: _,
            clip: _,
            common,
        } = self.options();
        refuse([("heads", heads != 1)])?;
        refuse_common(common)?;
        Ok(OnnxOperator::Gru { linear_before_reset: reset == GruReset::AfterProduct })
    }
    fn activations(&self) -> (Vec<Nonlinearity>, Option<f64>) {
        let GruOptions { gate_activation, candidate_activation, clip, .. } = self.options();
        (vec![gate_activation, candidate_activation], clip)
    }
    const NAME: &str = "GRU";
    fn places(&self) -> &'static [usize] {
        // r, z, n in ONNX's order z, r, h
        &[1, 0, 2]
    }
}
