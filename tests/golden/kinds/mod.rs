//! Computes a case's results with the library. A module per kind of case.

mod attention;
mod conv;
mod keras;
mod onnx;
mod recurrences;
mod recurrent;
mod residual_ff;
mod train;

use gradflow::ndarray::{Array, Array3, Dimension, Ix3};
use gradflow::{Float, Layer, Sequence, ZerosLike};

use crate::{Case, Results};

/// The library's results for a case.
pub fn run(case: &Case) -> Result<Results, String> {
    match case.dtype()? {
        "F32" => run_in::<f32>(case),
        "F64" => run_in::<f64>(case),
        dtype => Err(format!("unknown dtype {dtype}")),
    }
}

fn run_in<F: Float>(case: &Case) -> Result<Results, String> {
    match case.kind()? {
        "rnn" => recurrent::run_sequence::<F>(case),
        "cell" => recurrent::run_cell::<F>(case),
        "residual_ff" => residual_ff::run::<F>(case),
        "train" => train::run::<F>(case),
        "variant" => recurrent::run_variant::<F>(case),
        "recurrence" => recurrences::run::<F>(case),
        "onnx" => onnx::run::<F>(case),
        "keras" => keras::run::<F>(case),
        "attention" => attention::run::<F>(case),
        "conv" => conv::run::<F>(case),
        kind => Err(format!("unknown kind {kind}")),
    }
}

/// Fills `cache` with the numbers of an earlier pass: a case that reads any of them, or leaves any in the padding, gives wrong results.
fn use_cache<L: Layer>(layer: &L, shape: Ix3, cache: &mut L::Cache) {
    let x = Array3::ones(shape);
    let pass = layer.pass(Sequence::from(&x).eval(), &mut layer.zero_state(shape[1]), cache);
    let dy = Array3::ones(pass.output().raw_dim());
    pass.backward(&dy, &mut layer.zeros_like());
}

/// Shape and values of an array, to the bit.
fn bits<F: Float, D: Dimension>(array: &Array<F, D>) -> (Vec<usize>, Vec<u64>) {
    (array.shape().to_vec(), array.iter().map(|value| value.bits()).collect())
}
