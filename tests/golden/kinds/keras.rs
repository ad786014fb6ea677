//! Kind `keras`: weights of Keras' layers, converted, run, and converted back.

use gradflow::convert::{ConvertError, KerasCell, KerasKind, KerasLayer, KerasWeights};
use gradflow::ndarray::{Axis, Ix3, s};
use gradflow::wrap::Merge;
use gradflow::{
    Float, Layer, Sequence,
    recurrent::{GruCell, LstmCell, Nonlinearity, Recurrent, RnnCell},
};

use super::recurrent::{initial_state, optional_nonlinearity, parts, rnn_nonlinearity};
use super::use_cache;
use crate::{Case, Results};

pub fn run<F: Float>(case: &Case) -> Result<Results, String> {
    let activation = rnn_nonlinearity(case.text("nonlinearity")?)?;
    let recurrent = optional_nonlinearity(case, "recurrent_activation")?;
    let recurrent_activation = recurrent.unwrap_or(Nonlinearity::Sigmoid);
    match case.text("module")? {
        "SimpleRNN" => in_directions::<F, RnnCell<F>>(case, KerasKind::SimpleRnn { activation }),
        "LSTM" => in_directions::<F, LstmCell<F>>(case, KerasKind::Lstm { activation, recurrent_activation }),
        "GRU" => {
            let reset_after = case.flag("reset_after")?;
            let kind = KerasKind::Gru { reset_after, activation, recurrent_activation };
            in_directions::<F, GruCell<F>>(case, kind)
        }
        module => Err(format!("unknown module {module}")),
    }
}

fn weights<F: Float>(case: &Case, prefix: &str) -> Result<KerasWeights<F>, String> {
    let bias = case.flag("use_bias")?.then(|| case.array(&format!("{prefix}bias"))).transpose()?;
    let recurrent_kernel = case.array(&format!("{prefix}recurrent_kernel"))?;
    Ok(KerasWeights { kernel: case.array(&format!("{prefix}kernel"))?, recurrent_kernel, bias })
}

fn in_directions<F: Float, C: KerasCell + gradflow::author::BuiltCell<Elem = F>>(
    case: &Case,
    kind: KerasKind,
) -> Result<Results, String> {
    let said = |error: ConvertError| error.to_string();
    let same = |layer: &KerasLayer<F>, back: Vec<KerasLayer<F>>| match &back[..] {
        [back] if back.kind == layer.kind && bits(back) == bits(layer) => Ok(()),
        _ => Err("the weights that are converted back are others".to_owned()),
    };
    if case.flag("bidirectional")? {
        let (forward, backward) = (weights(case, "keras.forward.")?, weights(case, "keras.backward.")?);
        let layer = KerasLayer { kind, forward, backward: Some(backward), merge: Merge::Concat };
        let model = Recurrent::<C, 2>::from_keras(std::slice::from_ref(&layer)).map_err(said)?;
        same(&layer, model.to_keras().map_err(said)?)?;
        run_layer(case, model)
    } else {
        let layer = KerasLayer { kind, forward: weights(case, "keras.")?, backward: None, merge: Merge::Concat };
        let model = Recurrent::<C, 1>::from_keras(std::slice::from_ref(&layer)).map_err(said)?;
        same(&layer, model.to_keras().map_err(said)?)?;
        run_layer(case, model)
    }
}

/// Shapes and values of all tensors.
fn bits<F: Float>(layer: &KerasLayer<F>) -> Vec<(Vec<usize>, Vec<u64>)> {
    let of_direction = |weights: &KerasWeights<F>| {
        let KerasWeights { kernel, recurrent_kernel, bias } = weights;
        [kernel, recurrent_kernel].into_iter().map(super::bits).chain(bias.iter().map(super::bits)).collect::<Vec<_>>()
    };
    std::iter::once(&layer.forward).chain(&layer.backward).flat_map(of_direction).collect()
}

fn run_layer<L: Layer>(case: &Case, model: L) -> Result<Results, String> {
    let x = case.array::<L::Elem, Ix3>("input.x")?;
    let backwards = case.flag("go_backwards")?;
    let sequence = Sequence::from(&x).infer();
    let sequence = if backwards { sequence.reversed() } else { sequence };
    let (mut state, mut cache) = (initial_state(case, &model, sequence.dims().1)?, model.cache());
    use_cache(&model, x.raw_dim(), &mut cache);
    let y = model.forward(sequence, &mut state, &mut cache).to_owned();

    let mut results = Results::default();
    if case.flag("return_sequences")? {
        // Keras returns the steps in the order in which they were processed.
        results.array("output.y", &if backwards { y.slice(s![..;-1, .., ..]) } else { y.view() });
    } else {
        // Each direction's last output: for a bidirectional model, that of the reverse direction is at the first step.
        let (steps, _, width) = y.dim();
        let mut last = y.index_axis(Axis(0), if backwards { 0 } else { steps - 1 }).to_owned();
        if case.flag("bidirectional")? {
            last.slice_mut(s![.., width / 2..]).assign(&y.slice(s![0, .., width / 2..]));
        }
        results.array("output.y", &last);
    }
    if case.flag("return_state")? {
        for (i, part) in parts(&state).iter().enumerate() {
            results.tensor(&format!("output.{part}n"), &[], &state, i);
        }
    }
    Ok(results)
}
