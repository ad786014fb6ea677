//! Activations of cells, and clipped sums.

use gradflow::{
    Float, Layer, Sequence, TensorsExt, ZerosLike,
    layers::{Activation, Nonlinearity},
    ndarray::{Array2, Array3, Axis},
    recurrent::{GruCell, GruReset, LstmCell, RnnCell},
};

use crate::common::{Within, assert_all_near, lively, rng, wave};

type Formula = (Nonlinearity, fn(f64) -> f64);

/// Each activation with its formula in f64.
fn formulas() -> Vec<Formula> {
    vec![
        (Nonlinearity::Identity, |x| x),
        (Nonlinearity::Affine { slope: -0.5, offset: 0.1 }, |x| -0.5 * x + 0.1),
        (Nonlinearity::HARD_SIGMOID, |x| (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        (Nonlinearity::HARD_SIGMOID_ONNX, |x| (0.2 * x + 0.5).clamp(0.0, 1.0)),
        (Nonlinearity::ScaledTanh { scale: 1.7, slope: 0.6 }, |x| 1.7 * (0.6 * x).tanh()),
        (Nonlinearity::ThresholdedRelu { threshold: 0.4 }, |x| if x > 0.4 { x } else { 0.0 }),
        (Nonlinearity::Elu { alpha: 0.7 }, |x| if x > 0.0 { x } else { 0.7 * x.exp_m1() }),
        (Nonlinearity::Softsign, |x| x / (1.0 + x.abs())),
        (Nonlinearity::Softplus, |x| if x > 30.0 { x + (-x).exp() } else { x.exp().ln_1p() }),
    ]
}

#[test]
fn values_are_those_of_the_formulas() {
    fn check<F: Float>(tolerance: f64) {
        let points = (-200..=200).map(|k| f64::from(k) * 0.21 + 0.003).chain([-1e-9, 1e-9, 88.0, -88.0, 1e4, -1e4]);
        let x = Array3::from_shape_vec((1, 1, 407), points.map(F::of).collect()).unwrap();
        for (f, formula) in formulas() {
            let layer = Activation::<F>::new(f);
            let y = layer.forward(&x, &mut (), &mut layer.cache()).to_owned();
            for (&x, &y) in x.iter().zip(&y) {
                let want = formula(x.widen());
                assert!((y.widen() - want).abs() <= tolerance * want.abs().max(0.1), "{f:?} of {x}: {y}, not {want}");
            }
        }
    }
    check::<f64>(2e-15);
    check::<f32>(1e-6);
}

/// Outputs, states and gradients of a cell: all numbers of a pass with lengths.
fn numbers<L: Layer<Elem = f64>>(cell: &L) -> Vec<f64> {
    let x = wave::<f64>((5, 3, 3), 1.5);
    let x = Sequence::from(&x).train(3).with_lengths(&[5, 2, 4]).unwrap();
    let (mut state, mut cache, mut grad) = (cell.zero_state(3), cell.cache(), cell.zeros_like());
    let mut dstate = cell.zero_state(3);
    let pass = cell.pass(x, &mut state, &mut cache).with_state_gradient(&mut dstate);
    let y = pass.output().to_owned();
    let dx = pass.backward(&wave(y.dim(), 1.0), &mut grad).to_owned();
    let tensors = |tensors: &dyn gradflow::Tensors<f64>| -> Vec<f64> {
        (0..tensors.count()).flat_map(|i| tensors.tensor(i).1.to_vec()).collect()
    };
    [y.into_iter().collect(), dx.into_iter().collect(), tensors(&state), tensors(&dstate), tensors(&grad)].concat()
}

/// A cell stays the same if its function has another name, or if no sum reaches the limit.
#[test]
fn what_is_sigmoid_and_tanh_by_other_names_is_the_same_cell() {
    const TANH: Nonlinearity = Nonlinearity::ScaledTanh { scale: 1.0, slope: 1.0 };
    macro_rules! same {
        ($($cell:ident: |$builder:ident| $plain:expr, $other:expr;)+) => {$({
            let $builder = || $cell::<f64>::builder(3, 4).pytorch();
            let (plain, other) = (lively($plain.build(&mut rng(3)), &mut rng(4)), lively($other.build(&mut rng(3)), &mut rng(4)));
            assert_ne!(plain, other);
            let (plain, other) = (numbers(&plain), numbers(&other));
            assert!(plain.iter().any(|number| number.abs() > 0.1));
            assert_all_near(&other, &plain, Within::either(1e-13), stringify!($other));
        })+};
    }
    same! {
        LstmCell: |b| b(), b().candidate_activation(TANH);
        LstmCell: |b| b(), b().output_activation(TANH);
        LstmCell: |b| b(), b().clip(1e3);
        LstmCell: |b| b().peepholes().layer_norm(), b().peepholes().layer_norm().clip(1e3);
        LstmCell: |b| b().peepholes().coupled().projection(2).zoneout(0.2, 0.3),
            b().peepholes().coupled().projection(2).zoneout(0.2, 0.3).candidate_activation(TANH).output_activation(TANH);
        GruCell: |b| b(), b().candidate_activation(TANH);
        GruCell: |b| b().layer_norm().recurrent_dropout(0.3), b().layer_norm().recurrent_dropout(0.3).clip(1e3);
        GruCell: |b| b().reset(GruReset::BeforeProduct), b().reset(GruReset::BeforeProduct).candidate_activation(TANH);
        RnnCell: |b| b(), b().nonlinearity(TANH);
        RnnCell: |b| b().nonlinearity(Nonlinearity::Relu), b().nonlinearity(Nonlinearity::LeakyRelu { slope: 0.0 });
        RnnCell: |b| b().nonlinearity(Nonlinearity::Relu), b().nonlinearity(Nonlinearity::Relu).clip(1e3);
    }
}

#[test]
fn options_say_which_they_are() {
    let lstm = LstmCell::<f32>::builder(2, 3).gate_activation(Nonlinearity::Softsign).clip(2.0).zeros();
    let options = lstm.options();
    assert_eq!((options.gate_activation, options.clip), (Nonlinearity::Softsign, Some(2.0)));
    assert_eq!(options.output_activation, Nonlinearity::Tanh);
    assert_eq!(LstmCell::builder(2, 3).options(options).zeros(), lstm);
    for f in [Nonlinearity::Tanh, Nonlinearity::Relu, Nonlinearity::Silu] {
        for clip in [None, Some(3.0)] {
            let builder = RnnCell::<f32>::builder(2, 3).nonlinearity(f);
            let options = if let Some(clip) = clip { builder.clip(clip) } else { builder }.zeros().options();
            assert_eq!((options.nonlinearity, options.clip), (f, clip));
        }
    }
}

/// A sum beyond the limit becomes the limit, and its terms get no gradient; a sum within the limit is unaffected.
#[test]
fn a_clipped_sum_is_the_limit_and_has_no_gradient() {
    let mut cell = RnnCell::<f64>::builder(1, 3).nonlinearity(Nonlinearity::Identity).clip(2.0).zeros();
    cell.weight_ih = Array2::from_shape_vec((3, 1), vec![1.0, 5.0, -5.0]).unwrap();
    let x = Array3::from_elem((1, 1, 1), 1.5);
    let (mut state, mut cache, mut grad) = (cell.zero_state(1), cell.cache(), cell.zeros_like());
    let pass = cell.pass(&x, &mut state, &mut cache);
    assert_eq!(pass.output().iter().copied().collect::<Vec<_>>(), [1.5, 2.0, -2.0]);
    pass.backward(&Array3::ones((1, 1, 3)), &mut grad);
    assert_eq!(grad.weight_ih.index_axis(Axis(1), 0).to_vec(), [1.5, 0.0, 0.0]);
    assert!(grad.values(1).iter().all(|&gradient| gradient == 0.0));
}

/// An LSTM's memory may grow beyond the limit of the sums.
#[test]
fn a_memory_is_not_clipped() {
    let builder = LstmCell::<f64>::builder(1, 1).gate_activation(Nonlinearity::Affine { slope: 0.0, offset: 1.0 });
    let identity = Nonlinearity::Identity;
    let mut cell = builder.candidate_activation(identity).output_activation(identity).clip(1.0).zeros();
    cell.bias_ih.as_mut().unwrap()[2] = 7.0;
    let mut state = cell.zero_state(1);
    let y = cell.forward(&Array3::zeros((4, 1, 1)), &mut state, &mut cell.cache()).to_owned();
    // Each step adds the 7, clipped, to the whole memory before it.
    assert_eq!(y.iter().copied().collect::<Vec<_>>(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(state.c[[0, 0]], 4.0);
}
