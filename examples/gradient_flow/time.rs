//! Back through time: recurrent cells.

use gradflow::ndarray::{Array3, Axis};
use gradflow::{
    Layer, Sequence, ZerosLike,
    author::RecordsState,
    layers::Init,
    recurrent::{GruCell, LstmCell, RnnCell},
    wrap::{GradientProbe, LayerFlow, Probed},
};

use crate::common::picture::{Chart, picture};
use crate::common::{Claims, Failure, Settings, in_parallel};
use crate::flow::Flow;
use crate::theory::{sigmoid, tanh_rnn};
use crate::{Role, normal, rng, unit};

/// Features of the input.
const INPUT: usize = 16;

/// Sequences of the batch.
const BATCH: usize = 8;

/// Gated cells' weights are uniform in ± this: so small that the gates are set by their biases.
const SMALL: f64 = 0.02;

/// The usual bound of weights (Sutskever, Vinyals and Le 2014), for comparison.
const USUAL: f64 = 0.08;

/// Distances below this are left out of the slope: a random gradient first turns into the directions that last.
const SETTLED: usize = 20;

/// The distances drawn: every third, the last of 100 among them.
const SPARSE: usize = 3;

/// A cell and its initialisation.
#[derive(Clone, Copy)]
enum Cell {
    /// Recurrent weights by `init`, whose gain is `gain`, and input of standard deviation `input` before the tanh.
    Rnn { init: Init, gain: f64, input: f64 },
    /// Weights uniform in ± `bound`, and a forget bias.
    Lstm { bound: f64, forget: f64 },
    /// Weights uniform in ± `bound`, and an update bias.
    Gru { bound: f64, update: f64 },
}

/// One line of the picture.
struct Case {
    name: &'static str,
    published: &'static str,
    cell: Cell,
}

fn cases(hidden: usize) -> Vec<Case> {
    let case = |name, published, cell| Case { name, published, cell };
    let bound = 1.0 / (hidden as f64).sqrt();
    let uniform = |input| Cell::Rnn { init: Init::Uniform { bound }, gain: 3f64.sqrt().recip(), input };
    let orthogonal = |gain, input| Cell::Rnn { init: Init::Orthogonal { gain }, gain, input };
    let lstm = |forget| Cell::Lstm { bound: SMALL, forget };
    let gru = |update| Cell::Gru { bound: SMALL, update };
    vec![
        case("RNN, uniform ±1/√H", "vanishes (Bengio 1994)", uniform(0.1)),
        case("RNN, orthogonal", "never grows (Saxe 2014)", orthogonal(1.0, 0.1)),
        case("RNN, orthogonal × 1.5, no input", "explodes, ln 1.5 (Pascanu 2013)", orthogonal(1.5, 0.0)),
        case("RNN, orthogonal × 1.5", "explodes (Pascanu 2013)", orthogonal(1.5, 0.1)),
        case("RNN, orthogonal × 1.5, saturated", "vanishes (Bengio 1994)", orthogonal(1.5, 3.0)),
        case("LSTM, forget bias 0", "ln σ(0) (Gers 2000)", lstm(0.0)),
        case("LSTM, forget bias 1", "ln σ(1) (Gers 2000)", lstm(1.0)),
        case("LSTM, forget bias 2", "ln σ(2) (Gers 2000)", lstm(2.0)),
        case("LSTM, forget bias 3", "ln σ(3) (Gers 2000)", lstm(3.0)),
        case("LSTM, forget bias 5", "ln σ(5) (Gers 2000)", lstm(5.0)),
        case("LSTM, forget bias 1, weights ±0.08", "", Cell::Lstm { bound: USUAL, forget: 1.0 }),
        case("GRU, update bias 0", "ln σ(0) (Cho 2014)", gru(0.0)),
        case("GRU, update bias 3", "ln σ(3) (Cho 2014)", gru(3.0)),
    ]
}

/// The lowest and the highest slope that theory gives.
fn theory(cell: Cell, hidden: usize) -> (f64, f64) {
    // The largest eigenvalue of a random matrix with weights uniform in ±bound: the circular law.
    let radius = |bound: f64| bound * (hidden as f64 / 3.0).sqrt();
    match cell {
        Cell::Rnn { gain, input, .. } => {
            let slope = tanh_rnn(gain, input);
            (slope, slope)
        }
        // About c = 0, dc_{t-1} = (f + i o W_g)ᵀ dc_t with i = o = 1/2: besides the memory's own path, one through h.
        Cell::Lstm { bound, forget } => (sigmoid(forget).ln(), (sigmoid(forget) + radius(bound) / 4.0).ln()),
        // About h = 0, dh_{t-1} = (z + (1 - z) r W_n)ᵀ dh_t with r = 1/2.
        Cell::Gru { bound, update } => {
            let keep = sigmoid(update);
            (keep.ln(), (keep + (1.0 - keep) * radius(bound) / 2.0).ln())
        }
    }
}

/// The norms of one seed, by distance: of dL/dh and, for an LSTM, of dL/dc.
fn measure(cell: Cell, hidden: usize, steps: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
    let rng = &mut rng(seed, Role::Weights);
    let flow = match cell {
        Cell::Rnn { init, input, .. } => {
            let weight_ih = Init::Normal { std: input / (INPUT as f64).sqrt() };
            pass(RnnCell::builder(INPUT, hidden).weight_ih(weight_ih).weight_hh(init).build(rng), steps, seed)
        }
        Cell::Lstm { bound, forget } => {
            let weight = Init::Uniform { bound };
            let cell = LstmCell::builder(INPUT, hidden).weight_ih(weight).weight_hh(weight).forget_bias(forget);
            pass(cell.build(rng), steps, seed)
        }
        Cell::Gru { bound, update } => {
            let weight = Init::Uniform { bound };
            let cell = GruCell::builder(INPUT, hidden).weight_ih(weight).weight_hh(weight).update_bias(update);
            pass(cell.build(rng), steps, seed)
        }
    };
    let by_distance = |norms: Vec<f64>| norms.into_iter().rev().collect();
    (by_distance(flow.hidden), by_distance(flow.memory))
}

/// A forward and a backward pass over `steps` steps, after as many steps in which the state settles. The gradient enters at the
/// last step alone, with norm 1.
fn pass<L: Layer<Elem = f64>>(cell: L, steps: usize, seed: u64) -> LayerFlow
where
    L::Cache: RecordsState,
{
    let probe = GradientProbe::new();
    let model = Probed::recurrent("cell", cell, &probe);
    let (mut state, mut cache, mut grad) = (model.zero_state(BATCH), model.cache(), model.zeros_like());
    let data = &mut rng(seed, Role::Input);
    let [before, x] = [(), ()].map(|()| normal((steps, BATCH, INPUT), data));
    let features = model.forward(Sequence::from(&before).infer(), &mut state, &mut cache).dim().2;

    let mut dy = Array3::zeros((steps, BATCH, features));
    dy.slice_axis_mut(Axis(0), (steps - 1..).into()).assign(&unit((1, BATCH, features), seed));
    probe.record(true);
    model.pass(&x, &mut state, &mut cache).backward(&dy, &mut grad);
    probe.flow().layers.remove(0)
}

/// Measures all cells, adds the claims about them, and draws the picture.
///
/// # Errors
/// If the picture cannot be drawn.
pub fn run(settings: &Settings, claims: &mut Claims) -> Result<String, Failure> {
    let hidden = 128;
    let (steps, seeds) = if settings.quick { (60, 2) } else { (100, 5) };
    let cases = cases(hidden);
    let jobs = cases.iter().flat_map(|case| settings.seeds(seeds).map(|seed| (case.cell, seed))).collect();
    let norms = in_parallel(jobs, |(cell, seed)| measure(cell, hidden, steps, seed));

    let (mut rnn, mut memory, mut gated) = (Vec::new(), Vec::new(), Vec::new());
    for (case, norms) in cases.iter().zip(norms.chunks(seeds as usize)) {
        let (h, c): (Vec<_>, Vec<_>) = norms.iter().cloned().unzip();
        let [h, c] = [h, c].map(|norms| Flow { name: case.name.into(), norms });
        match case.cell {
            Cell::Rnn { .. } => {
                judge(case, "dL/dh", &h, hidden, claims);
                rnn.push(h.named(case.name.trim_start_matches("RNN, ")));
            }
            Cell::Lstm { bound, .. } => {
                judge(case, "dL/dc", &c, hidden, claims);
                memory.push(c.named(case.name.trim_start_matches("LSTM, ")));
                // The hidden state's gradient follows the memory's: weights of another size would only crowd the chart.
                if bound == SMALL {
                    gated.push(h);
                }
            }
            Cell::Gru { .. } => {
                judge(case, "dL/dh", &h, hidden, claims);
                gated.push(h);
            }
        }
    }
    let chart = |of: &str, title: &str, flows: Vec<Flow>| {
        let chart = Chart::new("distance from the loss (steps)", of).title(title).log_y();
        flows.iter().enumerate().fold(chart, |chart, (k, flow)| chart.line(flow.line(k, SPARSE)))
    };
    picture(
        1020,
        &[
            &[&chart("‖dL/dh‖ (1 at the loss)", "Plain recurrent cells: the hidden state's gradient", rnn)],
            &[&chart("‖dL/dc‖", "LSTM: the memory's gradient, about σ(forget bias) a step", memory)],
            &[&chart("‖dL/dh‖ (1 at the loss)", "LSTM and GRU: the hidden state's gradient", gated)],
        ],
    )
}

fn judge(case: &Case, of: &str, flow: &Flow, hidden: usize, claims: &mut Claims) {
    // A plain cell's theory holds for infinitely many units: a drawn matrix may have an eigenvalue far outside the circle.
    let tolerance = match case.cell {
        Cell::Rnn { input: 0.0, .. } => 1e-9,
        Cell::Rnn { init: Init::Uniform { .. }, .. } => 0.1,
        Cell::Rnn { .. } => 0.05,
        Cell::Lstm { .. } | Cell::Gru { .. } => 0.01,
    };
    flow.judge(&format!("{}: {of}", case.name), case.published, SETTLED, theory(case.cell, hidden), tolerance, claims);
}
