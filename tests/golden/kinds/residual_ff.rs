//! Kind `residual_ff`: pre-norm residual blocks, one after another.

use gradflow::ndarray::{Axis, Ix2, Ix3};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    Float, Layer, Sequence, ZerosLike,
    compose::{PreNormBlock, Stacked},
    layers::{LayerNorm, Nonlinearity},
};

use super::use_cache;
use crate::{Case, Results};

pub fn run<F: Float>(case: &Case) -> Result<Results, String> {
    let nonlinearity = match case.text("activation")? {
        "relu" => Nonlinearity::Relu,
        "tanh" => Nonlinearity::Tanh,
        "sigmoid" => Nonlinearity::Sigmoid,
        "gelu" => Nonlinearity::Gelu,
        "silu" => Nonlinearity::Silu,
        activation => return Err(format!("unknown activation {activation}")),
    };
    let (hidden, features) = case.array::<F, Ix2>("state_dict.0.fc1.weight")?.dim();
    let eps = case.number("norm_eps")?.unwrap_or(1e-5);
    let rng = &mut StdRng::seed_from_u64(0);
    let mut net = Stacked::build(case.size("depth")?, |_| {
        let mut block = PreNormBlock::<F>::new(features, hidden, nonlinearity, rng);
        block.residual.branch.norm = LayerNorm::new(features).eps(eps);
        block
    });
    case.load(&mut net, |name| name)?;

    let x = case.array::<F, Ix2>("input.x")?;
    let dy = case.array::<F, Ix2>("grad_output.y")?.insert_axis(Axis(0));
    let (mut state, mut cache, mut grad) = (net.zero_state(x.nrows()), net.cache(), net.zeros_like());
    use_cache(&net, Ix3(1, x.nrows(), features), &mut cache);
    let pass = net.pass(Sequence::rows(&x), &mut state, &mut cache);

    let mut results = Results::default();
    results.array("output.y", &pass.output().index_axis(Axis(0), 0));
    results.array("grad.x", &pass.backward(&dy, &mut grad).index_axis(Axis(0), 0));
    results.tensors("grad.", &grad, |name| name);
    Ok(results)
}
