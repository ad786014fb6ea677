//! Kind `onnx`: weights of ONNX nodes, converted, run, and converted back.

use gradflow::convert::{ConvertError, OnnxCell, OnnxNode, OnnxOperator};
use gradflow::ndarray::Ix3;
use gradflow::{
    Float, Layer, Sequence,
    recurrent::{GruCell, LstmCell, Recurrent, RnnCell},
};

use super::recurrent::{initial_state, lengths, nonlinearity, parts, rnn_nonlinearity, with_lengths};
use super::use_cache;
use crate::{Case, Results};

pub fn run<F: Float>(case: &Case) -> Result<Results, String> {
    let flag = |key: &str| match case.number(key)? {
        Some(0.0) => Ok(false),
        Some(1.0) => Ok(true),
        value => Err(format!("{key}: unknown value {value:?}")),
    };
    match case.text("module")? {
        "RNN" => in_direction::<F, RnnCell<F>>(case, node(case, OnnxOperator::Rnn)?),
        "LSTM" => in_direction::<F, LstmCell<F>>(
            case,
            node(case, OnnxOperator::Lstm { input_forget: flag("input_forget")? })?,
        ),
        "GRU" => {
            let linear_before_reset = flag("linear_before_reset")?;
            in_direction::<F, GruCell<F>>(case, node(case, OnnxOperator::Gru { linear_before_reset })?)
        }
        module => Err(format!("unknown module {module}")),
    }
}

fn node<F: Float>(case: &Case, operator: OnnxOperator) -> Result<OnnxNode<F>, String> {
    let b = case.given("onnx.B").map(|_| case.array("onnx.B")).transpose()?;
    let p = case.given("onnx.P").map(|_| case.array("onnx.P")).transpose()?;
    if case.flag("peephole")? != p.is_some() {
        return Err(format!("onnx.P is {}, and peephole is not", if p.is_some() { "given" } else { "missing" }));
    }
    let directions = if case.text("direction")? == "bidirectional" { 2 } else { 1 };
    let activations = match (case.list("activations")?, case.text("nonlinearity")?) {
        (Some(all), _) => all.iter().map(nonlinearity).collect::<Result<_, _>>()?,
        (None, "tanh") => Vec::new(),
        (None, f) => vec![rnn_nonlinearity(f)?; directions],
    };
    Ok(OnnxNode {
        operator,
        activations,
        clip: case.number("clip")?,
        w: case.array("onnx.W")?,
        r: case.array("onnx.R")?,
        b,
        p,
    })
}

fn in_direction<F: Float, C: OnnxCell + gradflow::author::BuiltCell<Elem = F>>(
    case: &Case,
    node: OnnxNode<F>,
) -> Result<Results, String> {
    let said = |error: ConvertError| error.to_string();
    let direction = case.text("direction")?;
    match direction {
        "forward" | "reverse" => {
            let model = Recurrent::<C, 1>::from_onnx(std::slice::from_ref(&node)).map_err(said)?;
            same_weights(&node, &model.to_onnx().map_err(said)?[0])?;
            forward(case, model, direction == "reverse", 1)
        }
        "bidirectional" => {
            let model = Recurrent::<C, 2>::from_onnx(std::slice::from_ref(&node)).map_err(said)?;
            same_weights(&node, &model.to_onnx().map_err(said)?[0])?;
            forward(case, model, false, 2)
        }
        direction => Err(format!("unknown direction {direction}")),
    }
}

/// Checks that converted weights convert back to the same bits; with coupled gates, the forget gate's weights, which have no meaning,
/// are zeros.
fn same_weights<F: Float>(node: &OnnxNode<F>, back: &OnnxNode<F>) -> Result<(), String> {
    let mut want = node.clone();
    if node.operator == (OnnxOperator::Lstm { input_forget: true }) {
        let hidden = node.r.dim().2;
        // Gates i, o, f, c; peepholes i, o, f.
        for d in 0..node.w.dim().0 {
            for row in 2 * hidden..3 * hidden {
                want.w.slice_mut(gradflow::ndarray::s![d, row, ..]).fill(F::zero());
                want.r.slice_mut(gradflow::ndarray::s![d, row, ..]).fill(F::zero());
                for b in want.b.iter_mut() {
                    b[[d, row]] = F::zero();
                    b[[d, 4 * hidden + row]] = F::zero();
                }
                for p in want.p.iter_mut() {
                    p[[d, row]] = F::zero();
                }
            }
        }
    }
    let attributes = |node: &OnnxNode<F>| (node.operator, node.activations.clone(), node.clip);
    let same = attributes(back) == attributes(&want) && bits(back) == bits(&want);
    if same { Ok(()) } else { Err("the weights that are converted back are others".into()) }
}

/// Shapes and values of all tensors.
fn bits<F: Float>(OnnxNode { w, r, b, p, .. }: &OnnxNode<F>) -> Vec<Option<(Vec<usize>, Vec<u64>)>> {
    vec![Some(super::bits(w)), Some(super::bits(r)), b.as_ref().map(super::bits), p.as_ref().map(super::bits)]
}

fn forward<L: Layer>(case: &Case, model: L, reversed: bool, directions: usize) -> Result<Results, String> {
    let x = case.array::<L::Elem, Ix3>("input.x")?;
    let lengths = lengths(case)?;
    let sequence = with_lengths(Sequence::from(&x).infer(), &lengths)?;
    let sequence = if reversed { sequence.reversed() } else { sequence };
    let (steps, batch) = sequence.dims();
    let (mut state, mut cache) = (initial_state(case, &model, batch)?, model.cache());
    use_cache(&model, x.raw_dim(), &mut cache);
    let y = model.forward(sequence, &mut state, &mut cache).to_owned();
    let hidden = y.dim().2 / directions;
    // [T, B, D H] to [T, D, B, H]
    let y = y.into_shape_with_order((steps, batch, directions, hidden)).map_err(|error| error.to_string())?;

    let mut results = Results::default();
    results.array("output.y", &y.permuted_axes([0, 2, 1, 3]));
    for (i, part) in parts(&state).iter().enumerate() {
        results.tensor(&format!("output.{part}n"), &[], &state, i);
    }
    Ok(results)
}
