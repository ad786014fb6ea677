//! Kind `recurrence`: cells that PyTorch has not, over a sequence.

use gradflow::{
    Float,
    recurrent::{MguCell, MinGruCell},
};

use super::recurrent::pass;
use super::{Case, Results};

/// Cells of one layer in one direction; options that a case has not are off.
pub fn run<F: Float>(case: &Case) -> Result<Results, String> {
    let (input, hidden, bias) = (case.size("input_size")?, case.size("hidden_size")?, case.flag("bias")?);
    let zoneout = case.number("zoneout_h")?.ok_or("zoneout_h is missing")?;
    let norm_eps = if case.flag("layer_norm")? { case.number("norm_eps")? } else { None };
    macro_rules! run {
        ($cell:ident) => {{
            let builder = $cell::<F>::builder(input, hidden).bias(bias).zoneout(zoneout);
            let builder = match norm_eps {
                Some(eps) => builder.layer_norm_eps(eps),
                None => builder,
            };
            pass(case, builder.zeros())
        }};
    }
    match case.text("cell")? {
        "MGU" => run!(MguCell),
        "minGRU" => run!(MinGruCell),
        cell => Err(format!("unknown cell {cell}")),
    }
}
