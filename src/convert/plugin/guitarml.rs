//! Files of GuitarML's trainer: a description of the model, and PyTorch's tensors in lists.

use super::keras_layers::KerasJsonLayer;
use super::{FileError, MAX_LAYERS};
use crate::cells::{BuiltCell, CellBuilder, GruCell, LstmCell};
use crate::convert::json::{Members, Value};
use crate::kernels::Float;
use crate::layers::Linear;

/// The layers of a file, and whether its first input is added to the output.
pub fn read<F: Float>(file: &Value<'_>) -> Result<(Vec<KerasJsonLayer<F>>, bool), FileError> {
    let members = file.members(&["model_data", "state_dict"])?;
    let keys = ["model", "unit_type", "input_size", "hidden_size", "output_size", "num_layers", "skip", "bias_fl"];
    let data = members.required("model_data")?.members(&keys)?;
    let model = data.required("model")?;
    if model.text()? != "SimpleRNN" {
        return Err(model.unsupported("\"SimpleRNN\""));
    }
    let size = |key: &str| data.required(key)?.whole(1, usize::MAX / 4);
    let [input, hidden, output] = [size("input_size")?, size("hidden_size")?, size("output_size")?];
    let layers = data.optional("num_layers").map_or(Ok(1), |layers| layers.whole(1, MAX_LAYERS))?;
    let bias = data.optional("bias_fl").is_none_or(|bias| !["false", "0"].contains(&bias.raw()));

    let of_cell = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"];
    let mut names: Vec<_> = (0..layers).flat_map(|layer| of_cell.map(|name| format!("rec.{name}_l{layer}"))).collect();
    names.push("lin.weight".into());
    if bias {
        names.push("lin.bias".into());
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let tensors = members.required("state_dict")?.members_alone(&names)?;

    let mut all: Vec<KerasJsonLayer<F>> = Vec::new();
    for layer in 0..layers {
        let sizes = [if layer == 0 { input } else { hidden }, hidden];
        let unit = data.required("unit_type")?;
        all.push(match &*unit.text()? {
            "LSTM" => read_cell(&tensors, layer, sizes, 4, LstmCell::builder)?.into(),
            "GRU" => read_cell(&tensors, layer, sizes, 3, GruCell::builder)?.into(),
            _ => return Err(unit.unsupported("\"LSTM\" or \"GRU\"")),
        });
    }
    let weight = tensors.required("lin.weight")?.matrix([output, hidden])?;
    let bias = if bias { Some(tensors.required("lin.bias")?.vector(output)?) } else { None };
    all.push(Linear { weight, bias }.into());
    let Some(skip) = data.optional("skip") else { return Ok((all, false)) };
    let skipped = skip.whole(0, 1)? == 1;
    if skipped && output != 1 {
        return Err(skip.unsupported(format!("0 in a model of {output} outputs")));
    }
    Ok((all, skipped))
}

/// The cell of a layer. Its tensors have the same names, shapes and gates as here, and are read before anything of their size is
/// allocated.
fn read_cell<F: Float, C: BuiltCell<Elem = F>>(
    tensors: &Members<'_>,
    layer: usize,
    [input, hidden]: [usize; 2],
    gates: usize,
    builder: impl FnOnce(usize, usize) -> CellBuilder<C>,
) -> Result<C, FileError> {
    let rows = gates * hidden;
    let tensor = |name: &str| tensors.required(&format!("rec.{name}_l{layer}"));
    let mut read = Vec::new();
    for (name, columns) in [("weight_ih", input), ("weight_hh", hidden)] {
        read.push((name, tensor(name)?.matrix::<F>([rows, columns])?.into_raw_vec_and_offset().0));
    }
    for name in ["bias_ih", "bias_hh"] {
        read.push((name, tensor(name)?.vector::<F>(rows)?.into_raw_vec_and_offset().0));
    }
    let mut cell = builder(input, hidden).zeros();
    for (name, values) in read {
        let i = (0..cell.count()).find(|&i| cell.name(i) == name).expect("a parameter of the cell");
        cell.tensor_mut(i).copy_from_slice(&values);
    }
    Ok(cell)
}
