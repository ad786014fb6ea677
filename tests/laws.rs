//! Gradients whose exact value is known: powers that vanish or explode, connections that carry them undiminished.

use gradflow::ndarray::{Array1, Array2, Array3, s};
use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
use gradflow::{
    ClipNorm, GruCell, Init, Layer, LstmCell, Nonlinearity, Optimizer, PreNormBlock, Residual, RnnCell, Sequence, Sgd,
    Stacked, Tensors, TensorsExt, grad_norm,
};

fn assert_near(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() <= 1e-10 * want.abs().max(1e-300), "{what}: {got:e} for {want:e}");
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn norm(values: &Array2<f64>) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// dL/d(initial state), for L whose gradient by the final state is `dstate`, at zero input over `steps` steps.
fn carried<L: Layer<Elem = f64>>(layer: &L, mut state: L::State, mut dstate: L::State, steps: usize) -> L::State {
    let x = Array3::zeros((steps, 1, 1));
    let mut cache = layer.cache();
    let y = layer.forward((&x).into(), &mut state, &mut cache).raw_dim();
    layer.backward((&x).into(), &Array3::zeros(y), Some(&mut dstate), &mut cache, &mut layer.zeros_like());
    dstate
}

#[test]
fn a_tanh_rnn_with_gain_times_orthogonal_shrinks_the_gradient_by_the_gain_a_step() {
    let hidden = 16;
    for gain in [0.5, 0.9, 1.0, 1.1, 1.5] {
        let cell = RnnCell::<f64>::builder(1, hidden)
            .weight_hh(Init::Orthogonal { gain })
            .build(&mut StdRng::seed_from_u64(1));
        let dh = Array2::from_shape_fn((1, hidden), |(_, k)| (k as f64 + 1.0).sin());
        for steps in [1, 2, 10, 50, 200] {
            let got = carried(&cell, cell.zero_state(1), dh.clone(), steps);
            assert_near(norm(&got) / norm(&dh), gain.powi(steps as i32), &format!("gain {gain}, {steps} steps"));
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
            // From c = 0 the output gate reads a memory that stays 0; its gradient is not zero, but h's is here.
            let got = carried(&cell, cell.zero_state(1), dstate, steps as usize);
            for (&got, &want) in got.c.iter().zip(&want) {
                assert_near(got, want, &format!("forget bias {bias}, {steps} steps"));
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
                assert_near(got, sigmoid(bias).powi(steps), &format!("update bias {bias}, {steps} steps"));
            }
        }
    }
}

#[test]
fn a_zero_initialised_residual_stack_carries_the_gradient_unchanged() {
    let rng = &mut StdRng::seed_from_u64(2);
    let x = Array2::from_shape_simple_fn((4, 6), || rng.random_range(-2.0..2.0));
    let dy = Array3::from_shape_simple_fn((1, 4, 6), || rng.random_range(-2.0..2.0));
    fn check(net: &impl Layer<Elem = f64>, x: &Array2<f64>, dy: &Array3<f64>) {
        let (mut cache, mut grad) = (net.cache(), net.zeros_like());
        let y = net.forward(Sequence::rows(x), &mut net.zero_state(4), &mut cache).to_owned();
        assert_eq!(y.index_axis(gradflow::ndarray::Axis(0), 0), x, "the stack starts as the identity");
        let dx = net.backward(Sequence::rows(x), dy, None, &mut cache, &mut grad).to_owned();
        assert_eq!(&dx, dy, "and its gradient is exactly 1");
    }
    check(&Stacked::build(100, |_| PreNormBlock::pre_norm(6, 9, Nonlinearity::Gelu, rng).zero_init()), &x, &dy);
    check(&Stacked::build(100, |_| PreNormBlock::pre_norm(6, 9, Nonlinearity::Relu, rng).rezero()), &x, &dy);
    check(&Stacked::build(20, |_| Residual::new(LstmCell::new(6, 6, rng)).rezero()), &x, &dy);
}

fn draw(rng: &mut StdRng, scale: f64) -> (Array1<f64>, Array2<f64>) {
    (
        Array1::from_shape_simple_fn(7, || scale * rng.random_range(-1.0..1.0)),
        Array2::from_shape_simple_fn((3, 5), || scale * rng.random_range(-1.0..1.0)),
    )
}

#[test]
fn a_clipped_gradient_has_the_limits_norm_and_its_own_direction() {
    let rng = &mut StdRng::seed_from_u64(3);
    for p in [1.0, 2.0, 3.5, f64::INFINITY] {
        for scale in [1e-3, 1.0, 1e3] {
            for limit in [0.0, 0.01, 1.0, 100.0] {
                let before = draw(rng, scale);
                let mut after = before.clone();
                let norm = ClipNorm::new(limit).p(p).eps(0.0).clip(&mut after).unwrap();
                assert_near(norm, grad_norm(&before, p), "the norm before clipping");
                assert_near(grad_norm(&after, p), norm.min(limit), "the norm after clipping");
                let factor = (limit / norm).min(1.0);
                for i in 0..before.count() {
                    for (&before, &after) in before.values(i).iter().zip(after.values(i)) {
                        assert_near(after, before * factor, "the direction");
                    }
                }
            }
        }
    }
}

#[test]
fn a_clipped_sgd_step_is_never_longer_than_learning_rate_times_limit() {
    let rng = &mut StdRng::seed_from_u64(4);
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
