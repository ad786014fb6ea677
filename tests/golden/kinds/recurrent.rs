//! Kinds `rnn`, `cell` and `variant`: recurrent models over sequences, and cells for one step or with more options.

use gradflow::ndarray::{Array2, Array3, ArrayView3, Axis, Ix1, Ix2, s};
use gradflow::{
    Float, Layer, Sequence, Tensors, ZerosLike,
    author::Cell,
    recurrent::{CellBuilder, Gru, GruCell, GruReset, Lstm, LstmCell, Nonlinearity, Recurrent, Rnn, RnnCell},
};

use serde_json::Value;

use super::use_cache;
use crate::{Case, Results};

/// PyTorch's modules, under their own names: layers, directions, projections.
pub fn run_sequence<F: Float>(case: &Case) -> Result<Results, String> {
    let (input, hidden, bias) = (case.size("input_size")?, case.size("hidden_size")?, case.flag("bias")?);
    let (layers, projection) = (case.size("num_layers")?, case.size("proj_size")?);
    if layers == 0 {
        return Err("num_layers = 0".into());
    }
    match (case.text("module")?, case.text("nonlinearity")?) {
        ("LSTM", "tanh") => {
            let builder = Lstm::<F>::builder(input, hidden).bias(bias).num_layers(layers);
            in_directions(case, if projection > 0 { builder.projection(projection) } else { builder })
        }
        (module, _) if projection > 0 => Err(format!("a projection of {module} is not supported")),
        ("GRU", "tanh") => in_directions(case, Gru::<F>::builder(input, hidden).bias(bias).num_layers(layers)),
        ("RNN", f) => {
            let builder = Rnn::<F>::builder(input, hidden).bias(bias).num_layers(layers);
            in_directions(case, builder.nonlinearity(rnn_nonlinearity(f)?))
        }
        (module, nonlinearity) => Err(format!("unknown module {module} with {nonlinearity}")),
    }
}

/// Runs the model that [`in_directions`] builds, in one direction or in both.
trait Directions<F: Float> {
    fn run(self, case: &Case, both: bool) -> Result<Results, String>;
}

macro_rules! directions {
    ($cell:ident) => {
        impl<F: Float> Directions<F> for CellBuilder<Recurrent<$cell<F>>> {
            fn run(self, case: &Case, both: bool) -> Result<Results, String> {
                if both { pass(case, self.bidirectional().zeros()) } else { pass(case, self.zeros()) }
            }
        }
    };
}
directions!(RnnCell);
directions!(LstmCell);
directions!(GruCell);

fn in_directions<F: Float>(case: &Case, builder: impl Directions<F>) -> Result<Results, String> {
    builder.run(case, case.flag("bidirectional")?)
}

/// PyTorch's cells: one step, without an axis for it.
pub fn run_cell<F: Float>(case: &Case) -> Result<Results, String> {
    let (input, hidden, bias) = (case.size("input_size")?, case.size("hidden_size")?, case.flag("bias")?);
    match (case.text("module")?, case.text("nonlinearity")?) {
        ("LSTMCell", "tanh") => pass_step(case, LstmCell::<F>::builder(input, hidden).bias(bias).zeros()),
        ("GRUCell", "tanh") => pass_step(case, GruCell::<F>::builder(input, hidden).bias(bias).zeros()),
        ("RNNCell", f) => {
            let builder = RnnCell::<F>::builder(input, hidden).bias(bias);
            pass_step(case, builder.nonlinearity(rnn_nonlinearity(f)?).zeros())
        }
        (module, nonlinearity) => Err(format!("unknown module {module} with {nonlinearity}")),
    }
}

/// Cells with options that PyTorch lacks.
pub fn run_variant<F: Float>(case: &Case) -> Result<Results, String> {
    let (input, hidden, bias) = (case.size("input_size")?, case.size("hidden_size")?, case.flag("bias")?);
    let norm = case.flag("layer_norm")?;
    if norm && case.number("norm_eps")? != Some(1e-5) {
        return Err("norm_eps is not 1e-5".into());
    }
    let zoneout = |key: &str| case.number(key)?.ok_or(format!("{key} is missing"));
    let gate = optional_nonlinearity(case, "gate_activation")?;
    let candidate = optional_nonlinearity(case, "candidate_activation")?;
    let output = optional_nonlinearity(case, "output_activation")?;
    let clip = case.number("clip")?;
    macro_rules! chosen {
        ($builder:ident given { $($given:ident = $value:expr;)* } $($option:ident $(($argument:expr))? if $when:expr;)*) => {{
            let mut builder = $builder;
            $(if $when {
                builder = builder.$option($($argument)?);
            })*
            $(if let Some(value) = $value {
                builder = builder.$given(value);
            })*
            pass(case, builder.zeros())
        }};
    }
    match case.text("cell")? {
        "LSTM" => {
            let projection = case.size("projection")?;
            let (h, c) = (zoneout("zoneout_h")?, zoneout("zoneout_c")?);
            let builder = LstmCell::<F>::builder(input, hidden).bias(bias).zoneout(h, c);
            chosen! { builder
                given {
                    gate_activation = gate;
                    candidate_activation = candidate;
                    output_activation = output;
                    clip = clip;
                }
                layer_norm if norm;
                peepholes if case.flag("peephole")?;
                coupled if case.flag("coupled")?;
                projection(projection) if projection > 0;
            }
        }
        "GRU" => {
            let reset = match case.text("reset")? {
                "after" => GruReset::AfterProduct,
                "before" => GruReset::BeforeProduct,
                reset => return Err(format!("unknown reset {reset}")),
            };
            let builder = GruCell::<F>::builder(input, hidden).bias(bias).reset(reset);
            let builder = builder.zoneout(zoneout("zoneout_h")?);
            chosen! { builder
                given { gate_activation = gate; candidate_activation = candidate; clip = clip; }
                layer_norm if norm;
            }
        }
        "RNN" => {
            let builder = RnnCell::<F>::builder(input, hidden).bias(bias).zoneout(zoneout("zoneout_h")?);
            let f = optional_nonlinearity(case, "nonlinearity")?.ok_or("nonlinearity is missing")?;
            let builder = builder.nonlinearity(f);
            chosen! { builder given { clip = clip; } layer_norm if norm; }
        }
        cell => Err(format!("unknown cell {cell}")),
    }
}

pub fn rnn_nonlinearity(name: &str) -> Result<Nonlinearity, String> {
    nonlinearity(&name.into())
}

/// An activation: a name, or a list of a name and its numbers.
pub fn nonlinearity(value: &Value) -> Result<Nonlinearity, String> {
    let alone = std::slice::from_ref(value);
    let (name, numbers) = value.as_array().map_or(alone, Vec::as_slice).split_first().ok_or("an empty nonlinearity")?;
    let numbers: Option<Vec<f64>> = numbers.iter().map(Value::as_f64).collect();
    let unknown = || format!("unknown nonlinearity {value}");
    Ok(match (name.as_str().ok_or_else(unknown)?, &numbers.ok_or_else(unknown)?[..]) {
        ("tanh", []) => Nonlinearity::Tanh,
        ("relu", []) => Nonlinearity::Relu,
        ("sigmoid", []) => Nonlinearity::Sigmoid,
        ("gelu", []) => Nonlinearity::Gelu,
        ("silu", []) => Nonlinearity::Silu,
        ("identity" | "linear", []) => Nonlinearity::Identity,
        ("softsign", []) => Nonlinearity::Softsign,
        ("softplus", []) => Nonlinearity::Softplus,
        ("hard_sigmoid", []) => Nonlinearity::HARD_SIGMOID,
        ("hard_sigmoid", &[slope, offset]) => Nonlinearity::HardSigmoid { slope, offset },
        ("affine", &[slope, offset]) => Nonlinearity::Affine { slope, offset },
        ("scaled_tanh", &[scale, slope]) => Nonlinearity::ScaledTanh { scale, slope },
        ("leaky_relu", []) => Nonlinearity::LeakyRelu { slope: 0.2 }, // Keras'
        ("leaky_relu", &[slope]) => Nonlinearity::LeakyRelu { slope },
        ("elu", []) => Nonlinearity::Elu { alpha: 1.0 },
        ("elu", &[alpha]) => Nonlinearity::Elu { alpha },
        ("thresholded_relu", &[threshold]) => Nonlinearity::ThresholdedRelu { threshold },
        _ => return Err(unknown()),
    })
}

/// An activation that a case may have.
pub fn optional_nonlinearity(case: &Case, key: &str) -> Result<Option<Nonlinearity>, String> {
    case.value(key).map(nonlinearity).transpose()
}

/// The lengths of a case, or `None`.
pub fn lengths(case: &Case) -> Result<Option<Vec<usize>>, String> {
    let lengths = case.given("input.lengths").map(|_| case.integers::<Ix1>("input.lengths")).transpose()?;
    Ok(lengths.map(|lengths| lengths.to_vec()))
}

/// A mask or resets of a case, or `None`.
fn marks(case: &Case, name: &str) -> Result<Option<Array2<bool>>, String> {
    let marks = case.given(name).map(|_| case.integers::<Ix2>(name)).transpose()?;
    Ok(marks.map(|marks| marks.mapv(|mark| mark != 0)))
}

pub fn with_lengths<'a, F: Float>(
    x: Sequence<'a, F>,
    lengths: &'a Option<Vec<usize>>,
) -> Result<Sequence<'a, F>, String> {
    match lengths {
        Some(lengths) => x.with_lengths(lengths).map_err(|error| error.to_string()),
        None => Ok(x),
    }
}

/// The parts of a state: h; for an LSTM also c; for an sLSTM also c, n and m.
pub fn parts<F: Float>(state: &impl Tensors<F>) -> &'static [&'static str] {
    &["h", "c", "n", "m"][..state.count()]
}

/// The initial state; parts that are not given are zero.
pub fn initial_state<L: Layer>(case: &Case, layer: &L, batch: usize) -> Result<L::State, String> {
    let mut state = layer.zero_state(batch);
    for (i, part) in parts(&state).iter().enumerate() {
        let name = format!("input.{part}0");
        if case.given(&name).is_some() {
            case.fill(&name, &[], &mut state, i)?;
        }
    }
    Ok(state)
}

/// A given sequence, in the case's memory layout.
fn sequence<F: Float>(case: &Case, name: &str) -> Result<Array3<F>, String> {
    laid_out(case.array(name)?, case.optional_text("memory_layout")?)
}

/// The same values in another order in memory, or with NaN between them.
fn laid_out<F: Float>(values: Array3<F>, layout: Option<&str>) -> Result<Array3<F>, String> {
    let packed = |view: ArrayView3<'_, F>| view.as_standard_layout().into_owned();
    Ok(match layout {
        None => values,
        Some("batch_first") => packed(values.view().permuted_axes([1, 0, 2])).permuted_axes([1, 0, 2]),
        Some("features_first") => packed(values.view().reversed_axes()).reversed_axes(),
        Some("reversed") => packed(values.slice(s![..;-1, ..;-1, ..;-1])).slice_move(s![..;-1, ..;-1, ..;-1]),
        Some("every_second") => {
            let (steps, batch, features) = values.dim();
            let mut memory = Array3::from_elem((2 * steps, batch, 2 * features + 1), F::of(f64::NAN));
            memory.slice_mut(s![..;2, .., 1..;2]).assign(&values);
            memory.slice_move(s![..;2, .., 1..;2])
        }
        Some(layout) => return Err(format!("unknown memory_layout {layout}")),
    })
}

/// Forward and backward over a sequence; all parameters are set from the case.
pub fn pass<L: Layer>(case: &Case, layer: L) -> Result<Results, String> {
    let (x, dy) = (sequence(case, "input.x")?, sequence(case, "grad_output.y")?);
    let (y, dx, mut results) = backward(case, layer, &x, Some(&dy))?;
    results.array("output.y", &y);
    results.array("grad.x", &dx);
    Ok(results)
}

/// Forward and backward for one step: only the final state has a gradient, and only the final state is a result.
fn pass_step<C: Cell>(case: &Case, cell: C) -> Result<Results, String> {
    let x = case.array::<C::Elem, Ix2>("input.x")?.insert_axis(Axis(0));
    let x = laid_out(x, case.optional_text("memory_layout")?)?;
    let (_, dx, mut results) = backward(case, cell, &x, None)?;
    results.array("grad.x", &dx.index_axis(Axis(0), 0));
    Ok(results)
}

type Pass<F> = (Array3<F>, Array3<F>, Results);

fn backward<L: Layer>(
    case: &Case,
    mut layer: L,
    x: &Array3<L::Elem>,
    dy: Option<&Array3<L::Elem>>,
) -> Result<Pass<L::Elem>, String> {
    case.load(&mut layer, |name| name)?;
    let (lengths, mask, resets) = (lengths(case)?, marks(case, "input.mask")?, marks(case, "input.resets")?);
    let mut sequence = with_lengths(Sequence::from(x).eval(), &lengths)?;
    if let Some(mask) = &mask {
        sequence = sequence.with_mask(mask);
    }
    if let Some(resets) = &resets {
        sequence = sequence.with_resets(resets);
    }
    let (_, batch) = sequence.dims();
    let (mut state, mut dstate) = (initial_state(case, &layer, batch)?, layer.zero_state(batch));
    for (i, part) in parts(&dstate).iter().enumerate() {
        case.fill(&format!("grad_output.{part}n"), &[], &mut dstate, i)?;
    }

    let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
    use_cache(&layer, x.raw_dim(), &mut cache);
    let pass = layer.pass(sequence, &mut state, &mut cache).with_state_gradient(&mut dstate);
    let y = pass.output().to_owned();
    let dx = pass.backward(dy.unwrap_or(&Array3::zeros(y.raw_dim())), &mut grad).to_owned();

    let mut results = Results::default();
    for (i, part) in parts(&state).iter().enumerate() {
        results.tensor(&format!("output.{part}n"), &[], &state, i);
        if case.given(&format!("input.{part}0")).is_some() {
            results.tensor(&format!("grad.{part}0"), &[], &dstate, i);
        }
    }
    results.tensors("grad.", &grad, |name| name);
    Ok((y, dx, results))
}
