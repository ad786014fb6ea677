//! Kind `conv`: causal convolutions over a sequence.

use gradflow::ndarray::{Array3, Ix1, Ix3};
use gradflow::{Float, Layer, Sequence, ZerosLike, layers::CausalConv1d, wrap::WeightNorm};

use super::use_cache;
use crate::{Case, Results};

pub fn run<F: Float>(case: &Case) -> Result<Results, String> {
    let (input, output, kernel) = (case.size("input_size")?, case.size("output_size")?, case.size("kernel")?);
    let builder = CausalConv1d::<F>::builder(input, output, kernel).dilation(case.size("dilation")?);
    let conv = builder.groups(case.size("groups")?).bias(case.flag("bias")?).zeros();
    match (case.size("stride")?, case.flag("weight_norm")?) {
        (1, false) => pass(case, conv),
        (1, true) => pass(case, WeightNorm::new(conv)),
        (stride, false) => pass(case, conv.strided(stride)),
        (stride, true) => pass(case, WeightNorm::new(conv.strided(stride))),
    }
}

fn pass<F: Float>(case: &Case, mut layer: impl Layer<Elem = F, State = Array3<F>>) -> Result<Results, String> {
    case.load(&mut layer, |name| name)?;
    let x = case.array::<F, Ix3>("input.x")?;
    let batch = x.dim().1;
    let mut state = layer.zero_state(batch);
    if case.given("input.state").is_some() {
        state = case.array("input.state")?;
    }
    let lengths = case.given("input.lengths").map(|_| case.integers::<Ix1>("input.lengths")).transpose()?;
    let lengths = lengths.map(|lengths| lengths.to_vec());
    let mut sequence = Sequence::from(&x);
    if let Some(lengths) = &lengths {
        sequence = sequence.with_lengths(lengths).map_err(|error| error.to_string())?;
    }
    let (mut cache, mut grad, mut dstate) = (layer.cache(), layer.zeros_like(), layer.zero_state(batch));
    use_cache(&layer, Ix3(x.dim().0 + 3, batch, x.dim().2), &mut cache);

    let mut results = Results::default();
    results.array("output.y", &layer.forward(sequence, &mut state, &mut cache));
    if !state.is_empty() {
        results.array("output.state", &state);
        dstate = case.array("grad_output.state")?;
    }
    let dy = case.array::<F, Ix3>("grad_output.y")?;
    results.array("grad.x", &layer.backward(sequence, &dy, Some(&mut dstate), &mut cache, &mut grad));
    if case.given("input.state").is_some() {
        results.array("grad.state", &dstate);
    }
    results.tensors("grad.", &grad, |name| name);
    Ok(results)
}
