//! An LSTM as ONNX's operator.

use super::LstmCell;
use super::options::LstmOptions;
use crate::cells::onnx::{OnnxCell, OnnxOperator, common, refuse, refuse_common};
use crate::kernels::Float;
use crate::layers::Nonlinearity;

impl<F: Float> OnnxCell for LstmCell<F> {
    fn of_operator(
        operator: OnnxOperator,
        activations: &[Nonlinearity],
        clip: Option<f64>,
        [input, hidden]: [usize; 2],
        bias: bool,
        peepholes: bool,
    ) -> Option<Self> {
        let OnnxOperator::Lstm { input_forget } = operator else { return None };
        let &[gate_activation, candidate_activation, output_activation] = activations else { return None };
        let options = LstmOptions {
            peepholes,
            coupled: input_forget,
            projection: None,
            recurrent_dropout: 0.0,
            heads: 1,
            zoneout_c: 0.0,
            gate_activation,
            candidate_activation,
            output_activation,
            clip,
            common: common(bias),
        };
        Some(LstmCell::builder(input, hidden).options(options).zeros())
    }
    fn operator(&self) -> Result<OnnxOperator, &'static str> {
        let LstmOptions {
            peepholes: _,
            coupled,
            projection,
            recurrent_dropout: _,
            heads,
            zoneout_c,
            gate_activation: _,
            candidate_activation: _,
            output_activation: _,
            clip: _,
            common,
        } = self.options();
        refuse([("heads", heads != 1), ("weight_hr", projection.is_some()), ("zoneout", zoneout_c != 0.0)])?;
        refuse_common(common)?;
        Ok(OnnxOperator::Lstm { input_forget: coupled })
    }
    fn activations(&self) -> (Vec<Nonlinearity>, Option<f64>) {
        let LstmOptions { gate_activation, candidate_activation, output_activation, clip, .. } = self.options();
        (vec![gate_activation, candidate_activation, output_activation], clip)
    }
    const NAME: &str = "LSTM";
    fn places(&self) -> &'static [usize] {
        // i, f, g, o, or coupled i, g, o, in ONNX's order i, o, f, c
        if self.options().coupled { &[0, 3, 1] } else { &[0, 2, 3, 1] }
    }
    fn peephole_places(&self) -> &'static [usize] {
        // i, f, o, or coupled i, o, in ONNX's order i, o, f
        if self.options().coupled { &[0, 1] } else { &[0, 2, 1] }
    }
}
