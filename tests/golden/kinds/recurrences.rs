//! Kind `recurrence`: cells and options that PyTorch lacks, over a sequence.

use gradflow::{
    Float,
    recurrent::{GruCell, LstmCell, MguCell, MinGruCell, MinLstmCell, RnnCell, SlstmCell},
};

use super::recurrent::pass;
use super::{Case, Results};

/// Cells of one layer in one direction; options that a case does not have are off.
pub fn run<F: Float>(case: &Case) -> Result<Results, String> {
    let (input, hidden, bias) = (case.size("input_size")?, case.size("hidden_size")?, case.flag("bias")?);
    let zoneout = case.number("zoneout_h")?.ok_or("zoneout_h is missing")?;
    let norm_eps = if case.flag("layer_norm")? { case.number("norm_eps")? } else { None };
    let heads = case.size("heads")?;
    macro_rules! run {
        ($builder:expr) => {{
            let builder = $builder.bias(bias);
            let builder = match norm_eps {
                Some(eps) => builder.layer_norm_eps(eps),
                None => builder,
            };
            pass(case, builder.zeros())
        }};
    }
    match case.text("cell")? {
        "RNN" => run!(RnnCell::<F>::builder(input, hidden).heads(heads).zoneout(zoneout)),
        "LSTM" => run!(LstmCell::<F>::builder(input, hidden).heads(heads).zoneout(zoneout, 0.0)),
        "GRU" => run!(GruCell::<F>::builder(input, hidden).heads(heads).zoneout(zoneout)),
        "MGU" => run!(MguCell::<F>::builder(input, hidden).heads(heads).zoneout(zoneout)),
        "minGRU" => run!(MinGruCell::<F>::builder(input, hidden).zoneout(zoneout)),
        "minLSTM" => run!(MinLstmCell::<F>::builder(input, hidden).zoneout(zoneout)),
        "sLSTM" => {
            let builder = SlstmCell::<F>::builder(input, hidden).heads(heads).zoneout(zoneout);
            run!(if case.flag("exponential_forget")? { builder.exponential_forget() } else { builder })
        }
        cell => Err(format!("unknown cell {cell}")),
    }
}
