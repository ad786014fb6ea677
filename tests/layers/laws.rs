//! Gradients whose exact value is known: powers that vanish or explode, and connections that carry them undiminished.

use gradflow::ndarray::{Array1, Array2, Array3, s};
use gradflow::rand::{RngExt, rngs::StdRng};
use gradflow::{
    Float, Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    clip::{ClipNorm, grad_norm},
    compose::{Highway, PreNormBlock, Residual, Stacked, StochasticDepth},
    layers::{Dropout, Init, LayerNorm, Linear, Nonlinearity},
    optim::{Optimizer, Sgd},
    recurrent::{GruCell, GruReset, LstmCell, MguCell, MinGruCell, MinLstmCell, RnnCell, SlstmCell, SlstmState},
    wrap::LearnedState,
};

use crate::common::{Within, assert_near, rng};

const EXACT: Within = Within::relative(1e-10);

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn norm(values: &Array2<f64>) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// dL/d(initial state) at zero input over `steps` steps, for a loss L whose gradient at the final state is `dstate`.
fn carried<L: Layer<Elem = f64>>(layer: &L, mut state: L::State, mut dstate: L::State, steps: usize) -> L::State {
    let x = Array3::zeros((steps, 1, 1));
    let mut cache = layer.cache();
    let y = layer.forward(&x, &mut state, &mut cache).raw_dim();
    layer.backward(&x, &Array3::zeros(y), Some(&mut dstate), &mut cache, &mut layer.zeros_like());
    dstate
}

#[test]
fn a_tanh_rnn_with_gain_times_orthogonal_shrinks_the_gradient_by_the_gain_a_step() {
    let hidden = 16;
    for gain in [0.5, 0.9, 1.0, 1.1, 1.5] {
        let cell = RnnCell::<f64>::builder(1, hidden).weight_hh(Init::Orthogonal { gain }).build(&mut rng(1));
        let dh = Array2::from_shape_fn((1, hidden), |(_, k)| (k as f64 + 1.0).sin());
        for steps in [1, 2, 10, 50, 200] {
            let got = carried(&cell, cell.zero_state(1), dh.clone(), steps);
            assert_near(norm(&got) / norm(&dh), gain.powi(steps as i32), EXACT, &format!("gain {gain}, {steps} steps"));
        }
    }
}

#[test]
fn an_lstm_with_only_a_forget_bias_keeps_the_memorys_gradient_by_its_sigmoid() {
    let hidden = 3;
    for bias in [-2.0, 0.0, 1.0, 2.0, 5.0] {
        let mut cell = LstmCell::<f64>::zeros(1, hidden);
        cell.bias_ih.as_mut().unwrap().slice_mut(s![hidden..2 * hidden]).fill(bias);
        for steps in [1, 7, 100] {
            let mut dstate = cell.zero_state(1);
            dstate.c.assign(&Array2::from_shape_fn((1, hidden), |(_, k)| k as f64 - 1.5));
            let want = &dstate.c * sigmoid(bias).powi(steps);
            // From c = 0 the output gate reads a memory that stays 0. Its gradient is not zero, but that of h is zero here.
            let got = carried(&cell, cell.zero_state(1), dstate, steps as usize);
            for (&got, &want) in got.c.iter().zip(&want) {
                assert_near(got, want, EXACT, &format!("forget bias {bias}, {steps} steps"));
            }
        }
    }
}

#[test]
fn a_gru_with_only_an_update_bias_keeps_the_gradient_by_its_sigmoid() {
    let hidden = 3;
    for bias in [-1.0, 0.0, 3.0] {
        let mut cell = GruCell::<f64>::zeros(1, hidden);
        cell.bias_ih.as_mut().unwrap().slice_mut(s![hidden..2 * hidden]).fill(bias);
        for steps in [1, 7, 100] {
            let got = carried(&cell, cell.zero_state(1), Array2::ones((1, hidden)), steps as usize);
            for &got in &got {
                assert_near(got, sigmoid(bias).powi(steps), EXACT, &format!("update bias {bias}, {steps} steps"));
            }
        }
    }
}

#[test]
fn a_zero_initialised_residual_stack_carries_the_gradient_unchanged() {
    let rng = &mut rng(2);
    let x = Array2::from_shape_simple_fn((4, 6), || rng.random_range(-2.0..2.0));
    let dy = Array3::from_shape_simple_fn((1, 4, 6), || rng.random_range(-2.0..2.0));
    fn check(net: &impl Layer<Elem = f64>, x: &Array2<f64>, dy: &Array3<f64>) {
        let (mut cache, mut grad) = (net.cache(), net.zeros_like());
        let y = net.forward(Sequence::rows(x), &mut net.zero_state(4), &mut cache).to_owned();
        assert_eq!(y.index_axis(gradflow::ndarray::Axis(0), 0), x, "the stack starts as the identity");
        let dx = net.backward(Sequence::rows(x), dy, None, &mut cache, &mut grad).to_owned();
        assert_eq!(&dx, dy, "and its gradient is exactly 1");
    }
    check(&Stacked::build(100, |_| PreNormBlock::new(6, 9, Nonlinearity::Gelu, rng).zero_init()), &x, &dy);
    check(&Stacked::build(100, |_| PreNormBlock::new(6, 9, Nonlinearity::Relu, rng).residual.rezero()), &x, &dy);
    check(&Stacked::build(20, |_| Residual::new(LstmCell::new(6, 6, rng)).rezero()), &x, &dy);
}

#[test]
fn a_highway_stack_with_zero_weights_keeps_the_gradient_by_what_its_gates_let_pass() {
    let rng = &mut rng(5);
    let x = Array2::from_shape_simple_fn((4, 6), || rng.random_range(-2.0..2.0));
    let dy = Array3::from_shape_simple_fn((1, 4, 6), || rng.random_range(-2.0..2.0));
    for bias in [-4.0, -2.0, 0.0, 1.5] {
        for depth in [1, 10, 100] {
            let block = Highway::builder(Linear::zeros(6, 6), 6).gate_weight(0.0).gate_bias(bias).build(rng);
            let net = Stacked::build(depth, |_| block.clone());
            let (mut state, mut cache, mut grad) = (net.zero_state(4), net.cache(), net.zeros_like());
            let dx = net.pass(Sequence::rows(&x), &mut state, &mut cache).backward(&dy, &mut grad);
            let ratio = (1.0 - sigmoid(bias)).powi(depth as i32);
            for (&dx, &dy) in dx.iter().zip(&dy) {
                assert_near(dx / dy, ratio, EXACT, &format!("gate bias {bias}, {depth} blocks"));
            }
        }
    }
    let new = Highway::new(Linear::<f64>::new(6, 6, rng), 6, rng);
    assert!(new.gate.bias.unwrap().iter().all(|&bias| bias == -2.0));
}

/// The factor that each element of `shape` is multiplied by.
fn factors(layer: &impl Layer<Elem = f64>, shape: (usize, usize, usize), seed: u64) -> Array3<f64> {
    let x = Array3::ones(shape);
    let mut cache = layer.cache();
    let y = layer.forward(Sequence::from(&x).train(seed), &mut layer.zero_state(shape.1), &mut cache).to_owned();
    let dx = layer.backward(Sequence::from(&x).train(seed), &x, None, &mut cache, &mut layer.zeros_like());
    assert_eq!(dx, y, "the gradient has the output's mask");
    y
}

#[test]
fn dropout_drops_its_share_and_keeps_the_mean() {
    let rng = &mut rng(6);
    for p in [0.0, 0.1, 0.5, 0.9] {
        let dropout = Dropout::<f64>::new(p, rng);
        let (shape, seeds) = ((7, 5, 11), 400_u32);
        let count = f64::from(seeds) * (7 * 5 * 11) as f64;
        let masks: Vec<_> = (0..seeds).map(|seed| factors(&dropout, shape, seed.into())).collect();
        assert!(masks.iter().flatten().all(|&m| m == 0.0 || m == 1.0 / (1.0 - p)), "kept or not");
        // Five standard deviations: for the share p, and for each element's mean.
        let deviation = (p * (1.0 - p)).sqrt();
        let dropped = masks.iter().flatten().filter(|&&m| m == 0.0).count() as f64;
        assert!((dropped / count - p).abs() <= 5.0 * deviation / count.sqrt(), "p {p}: {}", dropped / count);
        let sum = masks.iter().fold(Array3::<f64>::zeros(shape), |sum, mask| sum + mask);
        for mean in sum / f64::from(seeds) {
            let bound = 5.0 * deviation / (1.0 - p) / f64::from(seeds).sqrt();
            assert!((mean - 1.0).abs() <= bound, "p {p}: {mean}");
        }
        // Neighbours in any direction are independent: the mean of their product is 1 too.
        for axis in [0, 1, 2] {
            let axis = gradflow::ndarray::Axis(axis);
            let products: Vec<f64> = masks
                .iter()
                .flat_map(|mask| {
                    let (a, b) = (mask.slice_axis(axis, (1..).into()), mask.slice_axis(axis, (..-1).into()));
                    (&a * &b).into_iter()
                })
                .collect();
            let mean = products.iter().sum::<f64>() / products.len() as f64;
            let bound = 10.0 * deviation / (1.0 - p).powi(2) / (products.len() as f64).sqrt();
            assert!((mean - 1.0).abs() <= bound, "p {p}: neighbours' product {mean}");
        }
    }
}

#[test]
fn a_mask_follows_from_seed_id_and_position_alone() {
    let rng = &mut rng(7);
    let (one, other) = (Dropout::<f64>::new(0.5, rng), Dropout::new(0.5, rng));
    let (large, small) = ((6, 5, 9), (4, 3, 9));
    let mask = factors(&one, large, 1);
    assert_eq!(mask, factors(&one, large, 1), "the same seed, the same mask");
    assert_eq!(mask, factors(&one.clone(), large, 1), "a clone keeps the id");
    assert_eq!(mask.slice(s![..4, ..3, ..]), factors(&one, small, 1), "in a batch of any size");
    for another in [factors(&one, large, 2), factors(&other, large, 1)] {
        let same = mask.iter().zip(&another).filter(|(a, b)| a == b).count();
        // Like 270 fair coins: 135 ± 5 standard deviations.
        assert!((94..=176).contains(&same), "{same} of 270 elements are the same");
    }
    let net = Stacked::build(2, |_| Residual::new(Dropout::<f64>::new(0.5, rng)));
    assert!(factors(&net, large, 1).iter().any(|&factor| factor == 3.0), "two of one model differ");
}

#[test]
fn stochastic_depth_leaves_out_whole_sequences() {
    let rng = &mut rng(8);
    for p in [0.2, 0.5] {
        let layer = StochasticDepth::new(gradflow::layers::Identity::<f64>::new(), p, rng);
        let (batch, seeds) = (8, 500);
        let (mut dropped, mut all_alike) = (0, 0);
        for seed in 0..seeds {
            let kept = factors(&layer, (3, batch, 2), seed);
            let whole = factors(&layer.clone().whole_batch(), (3, batch, 2), seed);
            for b in 0..batch {
                let first = kept[[0, b, 0]];
                assert!(kept.slice(s![.., b, ..]).iter().all(|&m| m == first), "a sequence is one");
                assert!(first == 0.0 || first == 1.0 / (1.0 - p));
                dropped += usize::from(first == 0.0);
            }
            assert!(whole.iter().all(|&m| m == whole[[0, 0, 0]]), "a batch is one");
            all_alike += usize::from(kept.iter().all(|&m| m == kept[[0, 0, 0]]));
        }
        let count = (seeds as usize * batch) as f64;
        assert!((dropped as f64 / count - p).abs() <= 5.0 * (p * (1.0 - p) / count).sqrt(), "p {p}: {dropped}");
        assert!(all_alike < 150, "sequences have chances of their own: {all_alike} of {seeds} batches are alike");
    }
}

#[test]
fn a_left_out_recurrent_branch_still_moves_its_state() {
    let rng = &mut rng(9);
    let cell = LstmCell::<f64>::new(4, 4, rng);
    let block = StochasticDepth::new(cell.clone(), 0.9, rng);
    let x = Array3::from_shape_simple_fn((5, 1, 4), || rng.random_range(-1.0..1.0));
    let seed = (0..).find(|&seed| {
        block
            .forward(Sequence::from(&x).train(seed), &mut block.zero_state(1), &mut block.cache())
            .iter()
            .all(|&y| y == 0.0)
    });
    let (mut state, mut want) = (block.zero_state(1), cell.zero_state(1));
    block.forward(Sequence::from(&x).train(seed.unwrap()), &mut state, &mut block.cache());
    cell.forward(&x, &mut want, &mut cell.cache());
    assert_eq!(state, want);
}

fn draw(rng: &mut StdRng, scale: f64) -> (Array1<f64>, Array2<f64>) {
    (
        Array1::from_shape_simple_fn(7, || scale * rng.random_range(-1.0..1.0)),
        Array2::from_shape_simple_fn((3, 5), || scale * rng.random_range(-1.0..1.0)),
    )
}

#[test]
fn a_clipped_gradient_has_the_limits_norm_and_its_own_direction() {
    let rng = &mut rng(3);
    for p in [1.0, 2.0, 3.5, f64::INFINITY] {
        for scale in [1e-3, 1.0, 1e3] {
            for limit in [0.0, 0.01, 1.0, 100.0] {
                let before = draw(rng, scale);
                let mut after = before.clone();
                let norm = ClipNorm::new(limit).norm_type(p).eps(0.0).clip(&mut after).unwrap();
                assert_near(norm, grad_norm(&before, p), EXACT, "the norm before clipping");
                assert_near(grad_norm(&after, p), norm.min(limit), EXACT, "the norm after clipping");
                let factor = (limit / norm).min(1.0);
                for i in 0..before.count() {
                    for (&before, &after) in before.values(i).iter().zip(after.values(i)) {
                        assert_near(after, before * factor, EXACT, "the direction");
                    }
                }
            }
        }
    }
}

#[test]
fn a_clipped_sgd_step_is_never_longer_than_learning_rate_times_limit() {
    let rng = &mut rng(4);
    for scale in [1e-3, 1.0, 1e6] {
        let (learning_rate, limit) = (0.3, 0.25);
        let (before, mut gradient) = (draw(rng, 1.0), draw(rng, scale));
        let mut after = before.clone();
        let norm = ClipNorm::new(limit).eps(0.0).clip(&mut gradient).unwrap();
        Sgd::new(learning_rate).step(&mut after, &gradient);
        let (mut moved, minus) = (after.clone(), -1.0);
        let mut start = before.clone();
        start.scale(minus);
        moved.add_assign(&start);
        let length = grad_norm(&moved, 2.0);
        assert!((length - learning_rate * norm.min(limit)).abs() < 1e-10, "{length}");
        assert!(length <= learning_rate * limit + 1e-10);
    }
}

/// The norms of the gradients of `Σ y` over 24 steps, for the parameters and for the initial state.
fn gradient_after<L: Layer<State: ZerosLike<L::Elem>>>(layer: &L, silent: usize, silence: f64) -> [f64; 2]
where
    L::Elem: Float,
{
    let x = Array3::from_shape_fn((24, 2, 8), |(t, b, k)| {
        L::Elem::of(if t < silent { silence } else { 1.0 } * ((3 * t + b + k) as f64).sin())
    });
    let (mut state, mut cache, mut grad) = (layer.zero_state(2), layer.cache(), layer.zeros_like());
    let mut dstate = state.zeros_like();
    let dy = layer.forward(&x, &mut state, &mut cache).mapv(|_| L::Elem::of(1.0));
    layer.backward(&x, &dy, Some(&mut dstate), &mut cache, &mut grad);
    [grad_norm(&grad, 2.0), grad_norm(&dstate, 2.0)]
}

fn trains_after_silence<L: Layer<State: ZerosLike<L::Elem>>>(name: &str, layer: &L)
where
    L::Elem: Float,
{
    let [usual, _] = gradient_after(layer, 0, 0.0);
    for silent in [1, 2, 4, 10, 20, 23] {
        let [parameters, state] = gradient_after(layer, silent, 0.0);
        assert!(
            parameters < 30.0 * usual && state < 1e4,
            "{name}, {silent} zeros: {parameters:e} for {usual:e}, {state:e}"
        );
        // Inputs that are lost beside eps: the gradient grows from the step at which the input counts, not over all the steps before.
        let [parameters, state] = gradient_after(layer, silent, 1e-30);
        assert!(
            parameters < 1e13 * usual && state < 1e13,
            "{name}, {silent} whispers: {parameters:e} for {usual:e}, {state:e}"
        );
    }
}

#[test]
fn layer_norm_cells_train_on_sequences_that_start_with_zeros() {
    fn check<F: Float>() {
        let rng = &mut rng(3);
        trains_after_silence("RNN", &RnnCell::<F>::builder(8, 16).layer_norm().build(rng));
        trains_after_silence("LSTM", &LstmCell::<F>::builder(8, 16).layer_norm().build(rng));
        let lstm = LstmCell::<F>::builder(8, 16).peepholes().coupled().projection(9).layer_norm();
        trains_after_silence("LSTM with all options", &lstm.build(rng));
        trains_after_silence("GRU", &GruCell::<F>::builder(8, 16).layer_norm().build(rng));
        let gru = GruCell::<F>::builder(8, 16).reset(GruReset::BeforeProduct).layer_norm();
        trains_after_silence("GRU, reset before", &gru.build(rng));
        trains_after_silence("MGU", &MguCell::<F>::builder(8, 16).layer_norm().build(rng));
        trains_after_silence("minGRU", &MinGruCell::<F>::builder(8, 16).layer_norm().build(rng));
        trains_after_silence("minLSTM", &MinLstmCell::<F>::builder(8, 16).layer_norm().build(rng));
        trains_after_silence("sLSTM", &SlstmCell::<F>::builder(8, 16).layer_norm().build(rng));
        trains_after_silence("heads", &GruCell::<F>::builder(8, 16).heads(4).layer_norm().build(rng));
        let deep = gradflow::recurrent::Lstm::<F>::builder(8, 16).num_layers(3).layer_norm().bidirectional();
        trains_after_silence("LSTM of three layers in both directions", &deep.build(rng));
    }
    check::<f32>();
    check::<f64>();
}

/// A learned state starts at 0, where the recurrent product has no variance; it must get a gradient nevertheless.
#[test]
fn a_state_of_zeros_before_a_layer_norm_cell_is_learned() {
    let layer = LearnedState::new(RnnCell::<f32>::builder(3, 8).layer_norm().build(&mut rng(0)));
    let (x, mut cache, mut grad) = (Array3::ones((5, 2, 3)), layer.cache(), layer.zeros_like());
    let dy = layer.forward(&x, &mut layer.zero_state(2), &mut cache).mapv(|_| 1.0);
    layer.backward(&x, &dy, None, &mut cache, &mut grad);
    let learned = (0..grad.count()).find(|&i| grad.name(i).contains("initial")).expect("a learned state");
    let norm = grad.values(learned).iter().map(|g| g * g).sum::<f32>().sqrt();
    assert!(norm > 1e-3 && norm < 1e2, "{}: {norm}", grad.name(learned));
}

/// Zeros stay zeros in blocks whose biases are 0: each normalisation sees a row without variance.
#[test]
fn zeros_through_a_deep_stack_of_norms_keep_a_finite_gradient() {
    let (depth, width, rng) = (40, 16, &mut rng(5));
    let mut net = Stacked::build(depth, |_| PreNormBlock::<f32>::new(width, 32, Nonlinearity::Tanh, rng));
    for i in 0..net.count() {
        if net.name(i).ends_with("bias") {
            net.tensor_mut(i).fill(0.0);
        }
    }
    let x = Array3::<f32>::zeros((1, 1, width));
    let (mut cache, mut grad) = (net.cache(), net.zeros_like());
    let dy = Array3::from_shape_fn((1, 1, width), |(_, _, k)| (k as f32).sin());
    net.forward(&x, &mut net.zero_state(1), &mut cache);
    let dx = net.backward(&x, &dy, None, &mut cache, &mut grad).to_owned();
    let growth = (dx.mapv(|d| d * d).sum() / dy.mapv(|d| d * d).sum()).sqrt();
    assert!(growth < 1e4, "{growth:e} through {depth} blocks");

    // A layer of zeros before a norm, as used for an identity at the start, still learns.
    let net = (Linear::<f32>::zeros(3, 4), LayerNorm::new(4));
    let (x, mut cache, mut grad) = (Array3::ones((1, 1, 3)), net.cache(), net.zeros_like());
    net.forward(&x, &mut net.zero_state(1), &mut cache);
    net.backward(&x, &Array3::from_shape_fn((1, 1, 4), |(.., k)| k as f32), None, &mut cache, &mut grad);
    assert_eq!(grad.0.weight.column(0).to_vec(), [-1.5, -0.5, 0.5, 1.5]);
}

/// One unit of a cell whose sums are its inputs.
fn reads_its_input<L: Layer>(mut cell: L) -> L {
    let i = (0..cell.count()).find(|&i| cell.name(i) == "weight_ih").expect("input weights");
    let columns = cell.shape(i)[1];
    let weight = cell.tensor_mut(i);
    for k in 0..columns {
        weight[k * columns + k] = L::Elem::of(1.0);
    }
    cell
}

/// Even if both gates underflow to 0, their quotient and its gradient exist.
#[test]
fn a_min_lstm_shares_out_what_two_closed_gates_let_through() {
    fn check<F: Float>() {
        let cell = reads_its_input(MinLstmCell::<F>::zeros(3, 1));
        for (a_f, a_i, kept) in [
            (-2000.0, -2000.0, 0.5),
            (-2000.0, -2001.0, sigmoid(1.0)),
            (-90.0, -93.0, sigmoid(3.0)),
            (2000.0, 2000.0, 0.5),
            (3000.0, -1.0, 1.0 / (1.0 + sigmoid(-1.0))),
            (3000.0, -3000.0, 1.0),
        ] {
            let x = Array3::from_shape_vec((1, 1, 3), [a_f, a_i, 3.0].map(F::of).to_vec()).unwrap();
            let (mut state, mut cache) = (Array2::from_elem((1, 1), F::of(7.0)), cell.cache());
            let pass = cell.pass(&x, &mut state, &mut cache);
            let h = pass.output()[[0, 0, 0]];
            let dx = pass.backward(&Array3::ones((1, 1, 1)), &mut cell.clone()).to_owned();
            let within = Within::relative(4.0 * F::epsilon().to_f64().unwrap());
            assert_near(h.to_f64().unwrap(), 7.0 * kept + 3.0 * (1.0 - kept), within, &format!("{a_f} and {a_i}"));
            // d(7 f' + 3 i')/da_f = 4 f' i' (1 - σ(a_f))
            let slope = 4.0 * kept * (1.0 - kept) * if a_f > 0.0 { 0.0 } else { sigmoid(-a_f) };
            let got = dx[[0, 0, 0]].to_f64().unwrap();
            assert!((got - slope).abs() <= 1e-6 * slope.abs() + 1e-12, "{a_f} and {a_i}: {got} for {slope}");
        }
    }
    check::<f32>();
    check::<f64>();
}

/// Exponential gates neither overflow nor vanish, and the stabiliser's scale has no effect on the output.
#[test]
fn an_slstm_is_a_weighted_mean_whatever_its_gates() {
    fn check<F: Float>(exponential: bool) {
        let builder = SlstmCell::<F>::builder(4, 1);
        let cell = reads_its_input(if exponential { builder.exponential_forget() } else { builder }.zeros());
        let of = |rows: &[[f64; 4]]| {
            let values = rows.iter().flatten().map(|&a| F::of(a)).collect();
            Array3::from_shape_vec((rows.len(), 1, 4), values).unwrap()
        };
        // The only value that was written is read, however small its weight: z = 1, o = 1.
        for a_i in [-3000.0, -100.0, 0.0, 80.0, 3000.0] {
            for a_f in [-3000.0, 0.0, 3000.0] {
                let x = of(&[[a_i, a_f, 30.0, 50.0], [-1e4, 0.0, 0.0, 50.0]]);
                let (mut state, mut cache) = (cell.zero_state(1), cell.cache());
                let pass = cell.pass(&x, &mut state, &mut cache);
                let y = pass.output().to_owned();
                let dx = pass.backward(&y, &mut cell.clone()).to_owned();
                let name = format!("a_i {a_i}, a_f {a_f}, exponential {exponential}");
                assert!(y.iter().all(|y| (y.to_f64().unwrap() - 1.0).abs() < 1e-6), "{name}: {y}");
                assert!(dx.iter().all(|dx| dx.is_finite()), "{name}: {dx}");
            }
        }
        // The same memory on another scale.
        let x = of(&[[0.5, 0.3, -0.7, 0.2], [-1.0, 0.8, 0.4, -0.1], [2.0, -0.4, 0.1, 0.9]]);
        let outputs = [0.0, 3.0].map(|scale: f64| {
            let at = |value: f64| Array2::from_elem((1, 1), F::of(value));
            let weight = (-scale).exp();
            let mut state = SlstmState { h: at(0.0), c: at(0.8 * weight), n: at(1.3 * weight), m: at(scale) };
            cell.forward(&x, &mut state, &mut cell.cache()).mapv(|y| y.to_f64().unwrap())
        });
        for (a, b) in outputs[0].iter().zip(&outputs[1]) {
            assert_near(*a, *b, Within::relative(20.0 * F::epsilon().to_f64().unwrap()), "another scale");
        }
    }
    for exponential in [false, true] {
        check::<f32>(exponential);
        check::<f64>(exponential);
    }
}

/// Each head is a cell of its own units: without the other heads, its output has the same bits.
#[test]
fn heads_do_not_see_each_other() {
    let rng = &mut rng(5);
    let cell = LstmCell::<f64>::builder(3, 6).heads(2).build(rng);
    let x = Array3::from_shape_fn((9, 2, 3), |_| rng.random::<f64>() - 0.5);
    let whole = cell.forward(&x, &mut cell.zero_state(2), &mut cell.cache()).to_owned();
    for head in 0..2 {
        let units = |gate: usize| 6 * gate + 3 * head..6 * gate + 3 * head + 3;
        let mut own = LstmCell::<f64>::zeros(3, 3);
        for gate in 0..4 {
            let to = 3 * gate..3 * gate + 3;
            own.weight_ih.slice_mut(s![to.clone(), ..]).assign(&cell.weight_ih.slice(s![units(gate), ..]));
            own.weight_hh.slice_mut(s![to.clone(), ..]).assign(&cell.weight_hh.slice(s![units(gate), ..]));
            let bias = cell.bias_ih.as_ref().unwrap().slice(s![units(gate)]).to_owned();
            own.bias_ih.as_mut().unwrap().slice_mut(s![to]).assign(&bias);
        }
        let y = own.forward(&x, &mut own.zero_state(2), &mut own.cache()).to_owned();
        let seen = whole.slice(s![.., .., 3 * head..3 * head + 3]);
        assert!(y.iter().zip(&seen).all(|(a, b)| (a - b).abs() < 1e-14), "head {head}");
    }
}
