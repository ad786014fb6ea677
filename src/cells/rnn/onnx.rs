//! An RNN as ONNX's operator.

use super::RnnCell;
use super::options::RnnOptions;
use crate::cells::onnx::{OnnxCell, OnnxOperator, common, refuse_common};
use crate::kernels::Float;

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
