//! Kinds `rnn` and `cell`: a recurrent layer over sequences, or for one step.

use gradflow::ndarray::{Array3, Axis, Ix1, Ix2, Ix3};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{Float, GruCell, Layer, LstmCell, RnnCell, RnnNonlinearity, Sequence, Tensors};

use super::{Case, Results, use_cache};

/// How PyTorch's names and shapes differ from the cells' own.
struct Spelling {
    /// What follows a parameter's name.
    suffix: &'static str,
    /// The axes before a state's `[B, H]`.
    leading: &'static [usize],
}

pub fn run_sequence<F: Float>(case: &Case) -> Result<Results, String> {
    case.only("num_layers", 1)?;
    case.only("bidirectional", false)?;
    let x = case.array::<F, Ix3>("input.x")?;
    let dy = case.array::<F, Ix3>("grad_output.y")?;
    let projection = Some(case.size("proj_size")?).filter(|&size| size > 0);
    run(case, case.text("module")?, projection, &Spelling { suffix: "_l0", leading: &[1] }, &x, Some(&dy))
}

pub fn run_cell<F: Float>(case: &Case) -> Result<Results, String> {
    let module = case.text("module")?;
    let module = module.strip_suffix("Cell").ok_or(format!("unknown module {module}"))?;
    let x = case.array::<F, Ix2>("input.x")?.insert_axis(Axis(0));
    run(case, module, None, &Spelling { suffix: "", leading: &[] }, &x, None)
}

fn run<F: Float>(
    case: &Case,
    module: &str,
    projection: Option<usize>,
    spelling: &Spelling,
    x: &Array3<F>,
    dy: Option<&Array3<F>>,
) -> Result<Results, String> {
    let input = x.dim().2;
    let weight_hh = case.array::<F, Ix2>(&format!("state_dict.weight_hh{}", spelling.suffix))?;
    let gates = match module {
        "LSTM" => 4,
        "GRU" => 3,
        _ => 1,
    };
    let (hidden, bias) = (weight_hh.nrows() / gates, case.flag("bias")?);
    // All parameters are set from the case; were one not, its random start would show.
    let rng = &mut StdRng::seed_from_u64(0);
    match (module, case.text("nonlinearity")?) {
        ("LSTM", "tanh") => {
            let builder = LstmCell::builder(input, hidden).bias(bias);
            let builder = if let Some(size) = projection { builder.projection(size) } else { builder };
            pass(case, builder.build(rng), spelling, x, dy)
        }
        (module, _) if projection.is_some() => Err(format!("a projection of {module} is not supported")),
        ("RNN", nonlinearity) => {
            let builder = RnnCell::builder(input, hidden).bias(bias).nonlinearity(rnn_nonlinearity(nonlinearity)?);
            pass(case, builder.build(rng), spelling, x, dy)
        }
        ("GRU", "tanh") => pass(case, GruCell::builder(input, hidden).bias(bias).build(rng), spelling, x, dy),
        (module, nonlinearity) => Err(format!("unknown module {module} with {nonlinearity}")),
    }
}

fn rnn_nonlinearity(name: &str) -> Result<RnnNonlinearity, String> {
    match name {
        "tanh" => Ok(RnnNonlinearity::Tanh),
        "relu" => Ok(RnnNonlinearity::Relu),
        name => Err(format!("unknown nonlinearity {name}")),
    }
}

/// Forward and backward; without `dy`, only the final state has a gradient and only it comes out.
fn pass<L: Layer>(
    case: &Case,
    mut layer: L,
    &Spelling { suffix, leading }: &Spelling,
    x: &Array3<L::Elem>,
    dy: Option<&Array3<L::Elem>>,
) -> Result<Results, String> {
    let file_name = |name| format!("{name}{suffix}");
    case.load(&mut layer, file_name)?;
    let lengths = case.given("input.lengths").map(|_| case.integers::<Ix1>("input.lengths")).transpose()?;
    let mut sequence = Sequence::from(x);
    if let Some(lengths) = &lengths {
        sequence = sequence.with_lengths(lengths.as_slice().expect("one axis")).map_err(|error| error.to_string())?;
    }

    // The state's tensors: h and, for an LSTM, c.
    let (_, batch) = sequence.dims();
    let (mut state, mut dstate) = (layer.zero_state(batch), layer.zero_state(batch));
    let parts = &["h", "c"][..state.count()];
    let is_given = |part: &str| case.given(&format!("input.{part}0")).is_some();
    for (i, part) in parts.iter().enumerate() {
        if is_given(part) {
            case.fill(&format!("input.{part}0"), leading, &mut state, i)?;
        }
        case.fill(&format!("grad_output.{part}n"), leading, &mut dstate, i)?;
    }

    let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
    use_cache(&layer, x.raw_dim(), &mut cache);
    let pass = layer.pass(sequence, &mut state, &mut cache).with_state_gradient(&mut dstate);
    let y = pass.output().to_owned();
    let dx = pass.backward(dy.unwrap_or(&Array3::zeros(y.raw_dim())), &mut grad);

    let mut results = Results::default();
    if dy.is_some() {
        results.array("output.y", &y);
        results.array("grad.x", &dx);
    } else {
        results.array("grad.x", &dx.index_axis(Axis(0), 0));
    }
    for (i, part) in parts.iter().enumerate() {
        results.tensor(&format!("output.{part}n"), leading, &state, i);
        if is_given(part) {
            results.tensor(&format!("grad.{part}0"), leading, &dstate, i);
        }
    }
    results.tensors("grad.", &grad, file_name);
    Ok(results)
}
