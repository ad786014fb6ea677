//! An RNN as ONNX's operator.

use super::RnnCell;
use super::options::RnnOptions;
use crate::cells::onnx::{OnnxCell, OnnxOperator, common, refuse, refuse_common};
use crate::kernels::Float;
use crate::layers::Nonlinearity;

impl<F: Float> OnnxCell for RnnCell<F> {
    fn of_operator(
        operator: OnnxOperator,
        activations: &[Nonlinearity],
        clip: Option<f64>,
        [input, hidden]: [usize; 2],
        bias: bool,
        _: bool,
    ) -> Option<Self> {
        let (OnnxOperator::Rnn, &[nonlinearity]) = (operator, activations) else { return None };
        let options = RnnOptions { nonlinearity, clip, recurrent_dropout: 0.0, heads: 1, common: common(bias) };
        Some(RnnCell::builder(input, hidden).options(options).zeros())
    }
    fn operator(&self) -> Result<OnnxOperator, &'static str> {
        let RnnOptions { nonlinearity: _, clip: _, recurrent_dropout: _, heads, common } = self.options();
        refuse([("heads", heads != 1)])?;
        refuse_common(common)?;
        Ok(OnnxOperator::Rnn)
    }
    fn activations(&self) -> (Vec<Nonlinearity>, Option<f64>) {
        let RnnOptions { nonlinearity, clip, .. } = self.options();
        (vec![nonlinearity], clip)
    }
    const NAME: &str = "RNN";
    fn places(&self) -> &'static [usize] {
        &[0]
    }
}
