//! A GRU as ONNX's operator.

use super::GruCell;
use super::options::{GruOptions, GruReset};
use crate::cells::onnx::{OnnxCell, OnnxOperator, common, refuse_common};
use crate::kernels::Float;

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
