//! The gradient probe: its norms against norms computed by hand, and that it changes nothing.

use gradflow::ndarray::{Array1, Array2, Array3, ArrayView2, Axis, concatenate, s};
use gradflow::rand::{RngExt, rngs::StdRng};
use gradflow::{
    Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    author::RecordsState,
    compose::{BoxLayer, PreNormBlock, Residual, Stacked},
    layers::{Activation, Dropout, Init, Linear, Nonlinearity},
    recurrent::{GruCell, LstmCell, LstmState, RnnCell},
    wrap::{GradientProbe, LayerFlow, Probed},
};

use crate::common::{Within, allocations, assert_all_near, rng};

const NEAR: Within = Within { epsilon: 1e-15, max_relative: 1e-12 };

const STEPS: usize = 7;
const BATCH: usize = 3;
const LENGTHS: [usize; BATCH] = [5, 7, 2];

fn draw(rng: &mut StdRng, shape: (usize, usize, usize)) -> Array3<f64> {
    Array3::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
}

/// dL/d(state after step t), the part that comes through step t + 1 and later, from one backward pass per step; the last one is that of
/// the final state.
fn states_by_hand<L: Layer<Elem = f64>>(
    cell: &L,
    x: &Array3<f64>,
    dy: &Array3<f64>,
    dstate: &L::State,
) -> Vec<L::State> {
    let part = |t: usize| x.slice(s![t..t + 1, .., ..]);
    let (mut state, mut dstate) = (cell.zero_state(x.dim().1), dstate.clone());
    let mut caches: Vec<L::Cache> = (0..x.dim().0).map(|_| cell.cache()).collect();
    for (t, cache) in caches.iter_mut().enumerate() {
        cell.forward(part(t), &mut state, cache);
    }
    let mut all = vec![];
    for (t, cache) in caches.iter_mut().enumerate().rev() {
        all.insert(0, dstate.clone());
        let dy = dy.slice(s![t..t + 1, .., ..]);
        cell.backward(part(t), &dy, Some(&mut dstate), cache, &mut cell.zeros_like());
    }
    all
}

/// The norms of rows `[B, H]` of every step, over the batch.
fn norms(rows: impl IntoIterator<Item = Array2<f64>>) -> Vec<f64> {
    rows.into_iter().map(|rows| rows.iter().map(|value| value * value).sum::<f64>().sqrt()).collect()
}

/// The records of one backward pass of `cell`.
fn flow<L: Layer<Elem = f64, Cache: RecordsState>>(
    cell: &L,
    x: Sequence<'_, f64>,
    dy: &Array3<f64>,
    dstate: &L::State,
) -> LayerFlow {
    let probe = GradientProbe::new();
    let probed = Probed::recurrent("cell", cell.clone(), &probe);
    probe.record(true);
    let mut cache = probed.cache();
    probed.forward(x, &mut probed.zero_state(BATCH), &mut cache);
    probed.backward(x, dy, Some(&mut dstate.clone()), &mut cache, &mut probed.zeros_like());
    probe.flow().get("cell").unwrap().clone()
}

fn random_state<S: Tensors<f64>>(mut state: S, rng: &mut StdRng) -> S {
    for i in 0..state.count() {
        state.tensor_mut(i).iter_mut().for_each(|value| *value = rng.random_range(-1.0..1.0));
    }
    state
}

/// Checks a cell whose state is h alone.
fn check_hidden<L>(cell: &L, rng: &mut StdRng)
where
    L: Layer<Elem = f64, State = Array2<f64>, Cache: RecordsState>,
{
    let (x, dy) = (draw(rng, (STEPS, BATCH, 3)), draw(rng, (STEPS, BATCH, 4)));
    let dstate = random_state(cell.zero_state(BATCH), rng);
    let got = flow(cell, (&x).into(), &dy, &dstate);
    let by_hand = states_by_hand(cell, &x, &dy, &dstate);
    let total = by_hand.iter().zip(dy.outer_iter()).map(|(dh, dy)| dh + &dy);
    assert_all_near(&got.hidden, &norms(total), NEAR, "dL/dh");
    assert_all_near(&got.output, &norms(dy.outer_iter().map(|dy| dy.to_owned())), NEAR, "dL/dy");
    assert!(got.memory.is_empty());

    // With lengths, each sequence alone, up to its own end.
    let mut squares = Array1::<f64>::zeros(STEPS);
    for (b, length) in LENGTHS.into_iter().enumerate() {
        let one = s![..length, b..b + 1, ..];
        let (x, dy) = (x.slice(one).to_owned(), dy.slice(one).to_owned());
        let dstate = dstate.slice(s![b..b + 1, ..]).to_owned();
        for (t, (dh, dy)) in states_by_hand(cell, &x, &dy, &dstate).iter().zip(dy.outer_iter()).enumerate() {
            squares[t] += (dh + &dy).iter().map(|value| value * value).sum::<f64>();
        }
    }
    let mut junk = (x.clone(), dy.clone());
    for (b, length) in LENGTHS.into_iter().enumerate() {
        junk.0.slice_mut(s![length.., b, ..]).fill(f64::NAN);
        junk.1.slice_mut(s![length.., b, ..]).fill(f64::NAN);
    }
    let got = flow(cell, Sequence::from(&junk.0).with_lengths(&LENGTHS).unwrap(), &junk.1, &dstate);
    assert_all_near(&got.hidden, &squares.mapv(f64::sqrt).to_vec(), NEAR, "dL/dh with lengths");
    assert!(got.output.iter().all(|norm| norm.is_finite()), "padding counts");
}

#[test]
fn norms_of_the_hidden_state_are_those_of_single_step_backward_passes() {
    let rng = &mut rng(1);
    check_hidden(&RnnCell::builder(3, 4).pytorch().build(rng), rng);
    check_hidden(&GruCell::builder(3, 4).pytorch().build(rng), rng);
}

/// o_t of an LSTM, from its equation.
fn output_gates(cell: &LstmCell<f64>, x: &Array3<f64>, h: &Array3<f64>) -> Vec<Array2<f64>> {
    let hidden = cell.hidden_size();
    let rows = s![3 * hidden.., ..];
    let bias = cell.bias_ih.as_ref().unwrap() + cell.bias_hh.as_ref().unwrap();
    let gate = |x: ArrayView2<'_, f64>, h: ArrayView2<'_, f64>| {
        let a = x.dot(&cell.weight_ih.slice(rows).t()) + h.dot(&cell.weight_hh.slice(rows).t());
        (a + bias.slice(s![3 * hidden..])).mapv(|a| 1.0 / (1.0 + (-a).exp()))
    };
    x.outer_iter().zip(h.outer_iter()).map(|(x, h)| gate(x, h)).collect()
}

#[test]
fn norms_of_an_lstms_states_are_those_of_single_step_backward_passes() {
    let rng = &mut rng(2);
    for projection in [None, Some(2)] {
        let builder = LstmCell::<f64>::builder(3, 4).pytorch();
        let cell = match projection {
            Some(size) => builder.projection(size).build(rng),
            None => builder.build(rng),
        };
        let output = projection.unwrap_or(4);
        let (x, dy) = (draw(rng, (STEPS, BATCH, 3)), draw(rng, (STEPS, BATCH, output)));
        let dstate = random_state(cell.zero_state(BATCH), rng);
        let got = flow(&cell, (&x).into(), &dy, &dstate);
        let by_hand = states_by_hand(&cell, &x, &dy, &dstate);
        let dh: Vec<Array2<f64>> = by_hand.iter().zip(dy.outer_iter()).map(|(state, dy)| &state.h + &dy).collect();

        // c_t and h_t of every step, computed step by step.
        let mut state: LstmState<f64> = cell.zero_state(BATCH);
        let (mut h, mut c) = (vec![state.h.clone()], vec![]);
        for step in x.axis_chunks_iter(Axis(0), 1) {
            cell.forward(step, &mut state, &mut cell.cache());
            h.push(state.h.clone());
            c.push(state.c.clone());
        }
        let h: Vec<_> = h[..STEPS].iter().map(|h| h.view().insert_axis(Axis(0))).collect();
        let o = output_gates(&cell, &x, &concatenate(Axis(0), &h).unwrap());
        let dc = (0..STEPS).map(|t| {
            let dm = match &cell.weight_hr {
                Some(weight_hr) => dh[t].dot(weight_hr),
                None => dh[t].clone(),
            };
            &by_hand[t].c + &(&dm * &o[t] * c[t].mapv(|c| 1.0 - c.tanh().powi(2)))
        });
        assert_all_near(&got.memory, &norms(dc), NEAR, "dL/dc");
        assert_all_near(&got.hidden, &norms(dh), NEAR, "dL/dh");
    }
}

/// y, dL/dx and all parameters' gradients of one pass.
fn bits(model: &impl Layer<Elem = f64>, x: Sequence<'_, f64>) -> Vec<u64> {
    let (mut cache, mut grad) = (model.cache(), model.zeros_like());
    let y = model.forward(x, &mut model.zero_state(BATCH), &mut cache).to_owned();
    let dx = model.backward(x, &y.mapv(f64::sin), None, &mut cache, &mut grad).to_owned();
    let parameters = (0..grad.count()).flat_map(|i| grad.values(i));
    y.iter().chain(&dx).chain(parameters).map(|value| value.to_bits()).collect()
}

#[test]
fn probed_or_not_recorded_or_not_the_bits_are_the_same() {
    let rng = &mut rng(3);
    let (lstm, gru, head) = (LstmCell::new(3, 4, rng), GruCell::new(4, 4, rng), Linear::<f64>::new(4, 2, rng));
    let plain = (lstm.clone(), gru.clone(), head.clone());
    let probe = GradientProbe::new();
    let probed = (
        Probed::recurrent("lstm", lstm, &probe),
        Probed::recurrent("gru", gru, &probe),
        Probed::new("head", head, &probe),
    );
    assert_eq!(plain.names(), probed.names());
    let x = draw(rng, (STEPS, BATCH, 3));
    for x in [Sequence::from(&x), Sequence::from(&x).with_lengths(&LENGTHS).unwrap()] {
        let want = bits(&plain, x);
        probe.record(false);
        let before = probe.flow();
        assert_eq!(bits(&probed, x), want);
        assert_eq!(probe.flow(), before, "switched off, nothing is stored");
        probe.record(true);
        assert_eq!(bits(&probed, x), want);
        assert!(probe.flow().layers.iter().all(|layer| layer.output.len() == STEPS && layer.total() > 0.0));
    }
}

#[test]
fn neither_way_allocates_after_the_first_pass() {
    let rng = &mut rng(4);
    let probe = GradientProbe::new();
    let model = (
        Probed::recurrent("lstm", LstmCell::<f32>::new(3, 4, rng), &probe),
        Probed::new("head", Linear::new(4, 2, rng), &probe),
    );
    let (x, dy) = (Array3::ones((STEPS, BATCH, 3)), Array3::ones((STEPS, BATCH, 2)));
    let (mut state, mut cache, mut grad) = (model.zero_state(BATCH), model.cache(), model.zeros_like());
    let mut pass = || {
        model.pass(&x, &mut state, &mut cache).backward(&dy, &mut grad);
    };
    for on in [false, true, false, true] {
        probe.record(on);
        pass();
        assert_eq!(allocations(&mut pass), 0, "recording: {on}");
    }
}

#[test]
fn a_stack_of_residual_blocks_is_listed_by_name() {
    let rng = &mut rng(5);
    let probe = GradientProbe::new();
    let depth = 6;
    let net = Stacked::build(depth, |k| {
        Probed::new(format!("block {k}"), PreNormBlock::new(4, 6, Nonlinearity::Gelu, rng), &probe)
    });
    let x = draw(rng, (1, BATCH, 4));
    let dy = draw(rng, (1, BATCH, 4));
    probe.record(true);
    let (mut state, mut cache, mut grad) = (net.zero_state(BATCH), net.cache(), net.zeros_like());
    net.pass(&x, &mut state, &mut cache).backward(&dy, &mut grad);
    let flow = probe.flow();
    // Block k receives dL/dx of the blocks after it.
    let blocks: Vec<_> = net.layers().iter().map(|block| block.layer.clone()).collect();
    let mut inputs = vec![x];
    for block in &blocks {
        let y = block.forward(inputs.last().unwrap(), &mut block.zero_state(BATCH), &mut block.cache()).to_owned();
        inputs.push(y);
    }
    let mut d = dy;
    for (k, block) in blocks.iter().enumerate().rev() {
        let want = norms(d.outer_iter().map(|d| d.to_owned()));
        let name = format!("block {k}");
        assert_eq!(flow.layers[k].name, name, "in the order they were made");
        assert_all_near(&flow.get(&name).unwrap().output, &want, NEAR, &name);
        assert!((flow.layers[k].total() - want[0]).abs() < 1e-12);
        let mut cache = block.cache();
        block.forward(&inputs[k], &mut block.zero_state(BATCH), &mut cache);
        d = block.backward(&inputs[k], &d, None, &mut cache, &mut block.zeros_like()).to_owned();
    }
    assert_eq!(flow.layers.len(), depth);
    assert!(flow.get("block 6").is_none());
}

#[test]
fn it_reaches_into_boxes_and_branches_and_forgets_the_pass_before() {
    let rng = &mut rng(6);
    let probe = GradientProbe::new();
    let net = Stacked::new(vec![
        BoxLayer::new(Residual::new((
            Probed::recurrent("gru", GruCell::<f64>::new(3, 3, rng), &probe),
            Dropout::new(0.5, rng),
        ))),
        BoxLayer::new(Probed::new("tanh", Activation::tanh(), &probe)),
    ]);
    probe.record(true);
    for steps in [STEPS, 2] {
        let x = draw(rng, (steps, BATCH, 3));
        let (mut state, mut cache, mut grad) = (net.zero_state(BATCH), net.cache(), net.zeros_like());
        net.pass(Sequence::from(&x).train(1), &mut state, &mut cache).backward(&x, &mut grad);
        let flow = probe.flow();
        assert_eq!(flow.get("gru").unwrap().hidden.len(), steps);
        assert_all_near(&flow.get("tanh").unwrap().output, &norms(x.outer_iter().map(|x| x.to_owned())), NEAR, "tanh");
        assert!(flow.get("tanh").unwrap().hidden.is_empty());
    }
}

#[test]
fn the_table_shows_a_vanishing_gradient() {
    let rng = &mut rng(7);
    let (probe, gain) = (GradientProbe::new(), 1e-4);
    let cell = RnnCell::<f64>::builder(1, 4).weight_hh(Init::Orthogonal { gain }).bias(false).build(rng);
    let cell = Probed::recurrent("rnn", cell, &probe);
    assert_eq!(probe.flow().to_string().lines().count(), 2, "a head and no rows");
    probe.record(true);
    let (x, mut dy) = (Array3::zeros((101, 1, 1)), Array3::zeros((101, 1, 4)));
    dy[[100, 0, 2]] = -2.0;
    let (mut state, mut cache, mut grad) = (cell.zero_state(1), cell.cache(), cell.zeros_like());
    cell.pass(&x, &mut state, &mut cache).backward(&dy, &mut grad);
    let flow = probe.flow();
    // 1e-4 to the power of the distance, far beyond the point at which a square underflows.
    for (distance, norm) in flow.layers[0].hidden.iter().rev().enumerate().take(75) {
        let want = 2.0 * 1e-4_f64.powi(distance as i32);
        assert!((norm / want - 1.0).abs() < 1e-10, "distance {distance}: {norm:e} for {want:e}");
    }
    let table = flow.to_string();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "4", "8", "16", "32", "64", "100"]);
    let hidden: Vec<&str> = lines[3].split_whitespace().collect();
    assert_eq!(hidden[..7], ["rnn", "dL/dh", "2.00e0", "2.00e0", "2.00e-4", "2.00e-8", "2.00e-16"], "{table}");
    assert_eq!(lines.len(), 4, "{table}");
}

#[test]
fn nan_and_infinite_gradients_show() {
    let probe = GradientProbe::new();
    let layer = Probed::new("tanh", Activation::<f64>::tanh(), &probe);
    probe.record(true);
    let x = Array3::zeros((5, 1, 2));
    let big = 1e300;
    let dy = Array3::from_shape_vec(
        (5, 1, 2),
        vec![f64::NAN, 1.0, f64::INFINITY, 1.0, 1.0, f64::NEG_INFINITY, 3.0 * big, -4.0 * big, 0.0, 0.0],
    );
    let mut cache = layer.cache();
    layer.pass(&x, &mut (), &mut cache).backward(&dy.unwrap(), &mut layer.zeros_like());
    let norms = &probe.flow().layers[0].output;
    assert!(norms[0].is_nan());
    assert_eq!(norms[1..3], [f64::INFINITY; 2]);
    assert!((norms[3] / (5.0 * big) - 1.0).abs() < 1e-15);
    assert_eq!(norms[4], 0.0);
}

#[test]
#[should_panic(expected = "Probed: name: expected a name that the probe does not have yet, got \"a\" again")]
fn a_name_stands_for_one_layer() {
    let probe = GradientProbe::new();
    Probed::new("a", Activation::<f32>::tanh(), &probe);
    Probed::new("a", Activation::<f32>::relu(), &probe);
}
