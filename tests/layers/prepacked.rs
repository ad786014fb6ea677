//! A prepacked model computes what the model computes, whatever happens to its weights.

use allocation_counter::measure;
use gradflow::ndarray::{Array2, Array3, ArrayRef3, ArrayView3, Axis};
use gradflow::rand::RngExt;
use gradflow::{
    Causal, Float, Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    author::{Gradient, Size, SizeError},
    compose::{BoxLayer, PreNormBlock, Stacked},
    layers::{Linear, Nonlinearity},
    optim::{Adam, Optimizer},
    recurrent::{Gru, GruCell, Lstm, LstmCell, RnnCell},
    wrap::Prepacked,
};

use crate::common::{Within, allocations, assert_all_near, rng};

const INPUT: usize = 33;

fn batch<F: Float>(steps: usize, sequences: usize) -> Array3<F> {
    let rng = &mut rng(3);
    Array3::from_shape_simple_fn((steps, sequences, INPUT), || F::of(rng.random_range(-1.0..1.0)))
}

fn infer<L: Layer>(model: &L, x: &Array3<L::Elem>, lengths: Option<&[usize]>) -> Array3<L::Elem> {
    let mut x = Sequence::from(x).infer();
    if let Some(lengths) = lengths {
        x = x.with_lengths(lengths).unwrap();
    }
    model.forward(x, &mut model.zero_state(x.dims().1), &mut model.cache()).to_owned()
}

#[track_caller]
fn assert_same<F: Float>(found: &Array3<F>, expected: &Array3<F>, context: &str) {
    assert_eq!(found.dim(), expected.dim(), "{context}");
    let within = Within::absolute(200.0 * F::epsilon().widen());
    assert_all_near(found.values(0), expected.values(0), within, context);
}

/// Checks batches of all shapes: one step, few and many, also with lengths.
fn check<L: Layer>(name: &str, model: &L) {
    let prepacked = Prepacked::new(model.clone());
    for (steps, sequences) in [(1, 1), (1, 2), (1, 40), (7, 1), (7, 5), (40, 17)] {
        let x = batch(steps, sequences);
        let lengths: Vec<_> = (0..sequences).map(|b| 1 + b * 3 % steps).collect();
        for lengths in [None, Some(&lengths[..])] {
            let context = format!("{name}, {steps} steps of {sequences}, {lengths:?}");
            let expected = infer(model, &x, lengths);
            let first = infer(&prepacked, &x, lengths);
            assert_same(&first, &expected, &context);
            assert_eq!(infer(&prepacked, &x, lengths), first, "{context}, again");
        }
    }
}

/// Takes `name: model;` and checks, in f32 and f64, that the prepacked model computes the same.
macro_rules! models {
    ($($name:ident: |$rng:ident| $model:expr;)+) => {$(
        #[test]
        fn $name() {
            {
                type F = f32;
                let $rng = &mut rng(3);
                check(stringify!($name), &$model);
            }
            {
                type F = f64;
                let $rng = &mut rng(3);
                check(stringify!($name), &$model);
            }
        }
    )+};
}

models! {
    linear: |rng| Linear::<F>::new(INPUT, 20, rng);
    rnn: |rng| RnnCell::<F>::new(INPUT, 40, rng);
    gru: |rng| GruCell::<F>::new(INPUT, 40, rng);
    lstm: |rng| LstmCell::<F>::new(INPUT, 40, rng);
    lstm_with_options: |rng| LstmCell::<F>::builder(INPUT, 40).peepholes().layer_norm().projection(9).build(rng);
    lstm_of_three_layers: |rng| Lstm::<F>::builder(INPUT, 40).num_layers(3).build(rng);
    gru_in_both_directions: |rng| Gru::<F>::builder(INPUT, 40).bidirectional().build(rng);
    blocks: |rng| Stacked::build(3, |_| PreNormBlock::<F>::new(INPUT, 70, Nonlinearity::Gelu, rng));
    boxed: |rng| BoxLayer::new(Linear::<F>::new(INPUT, 20, rng));
}

#[test]
fn whoever_touches_the_weights_is_noticed() {
    let mut model = LstmCell::<f64>::new(INPUT, 12, &mut rng(3));
    let mut prepacked = Prepacked::new(model.clone());
    let x = batch(3, 4);
    let same = |prepacked: &Prepacked<LstmCell<f64>>, model: &LstmCell<f64>, what: &str| {
        assert_same(&infer(prepacked, &x, None), &infer(model, &x, None), what);
    };
    same(&prepacked, &model, "new");

    let mut grad = model.zeros_like();
    model.pass(&x, &mut model.zero_state(4), &mut model.cache()).backward(&Array3::ones((3, 4, 12)), &mut grad);
    let mut prepacked_grad = prepacked.zeros_like();
    let mut cache = prepacked.cache();
    let pass = prepacked.pass(&x, &mut prepacked.zero_state(4), &mut cache);
    pass.backward(&Array3::ones((3, 4, 12)), &mut prepacked_grad);
    assert_eq!(prepacked_grad.get_ref().weight_ih, grad.weight_ih);

    let before = infer(&prepacked, &x, None);
    Adam::new(0.1).step(&mut model, &grad);
    Adam::new(0.1).step(&mut prepacked, &prepacked_grad);
    assert_ne!(infer(&prepacked, &x, None), before);
    same(&prepacked, &model, "after a step of an optimizer");

    model.weight_hh *= 2.0;
    prepacked.get_mut().weight_hh *= 2.0;
    same(&prepacked, &model, "after get_mut");

    model.weight_ih = Array2::ones((48, INPUT));
    prepacked.get_mut().weight_ih = Array2::ones((48, INPUT));
    same(&prepacked, &model, "with another array");

    let clone = prepacked.clone();
    prepacked.set_zero();
    assert_eq!(infer(&prepacked, &x, None), Array3::<f64>::zeros((3, 4, 12)));
    same(&clone, &model, "a clone");
    assert_eq!(clone.into_inner().weight_ih, model.weight_ih);
}

#[test]
fn a_cache_goes_from_model_to_model() {
    let model = |seed| Prepacked::new(LstmCell::<f64>::new(INPUT, 12, &mut rng(seed)));
    let mut prepacked = [3, 4].map(model);
    let (x, mut cache) = (batch(3, 2), prepacked[0].cache());
    for _ in 0..2 {
        for prepacked in &mut prepacked {
            for changes in 0..2 {
                let mut state = prepacked.zero_state(2);
                let y = prepacked.forward(Sequence::from(&x).infer(), &mut state, &mut cache).to_owned();
                assert_same(&y, &infer(prepacked.get_ref(), &x, None), &format!("after {changes} changes"));
                prepacked.get_mut().weight_hh *= 0.5;
            }
        }
    }
}

#[test]
fn single_steps_have_the_bits_of_the_whole() {
    let model = Prepacked::new(LstmCell::<f32>::new(INPUT, 40, &mut rng(3)));
    for sequences in [1, 5] {
        let x = batch(7, sequences);
        let (mut state, mut cache) = (model.zero_state(sequences), model.cache());
        for (step, whole) in Sequence::from(&x).infer().chunks(1).zip(infer(&model, &x, None).outer_iter()) {
            assert_eq!(model.forward(step, &mut state, &mut cache).index_axis(Axis(0), 0), whole);
        }
    }
}

/// A layer that recomputes its weight from its input in each pass: at the same address, but another matrix.
#[derive(Clone, Debug)]
struct Hyper {
    scale: Array2<f64>, // [1, 1]
}
impl Tensors<f64> for Hyper {
    fn count(&self) -> usize {
        1
    }
    fn name(&self, _: usize) -> String {
        "scale".into()
    }
    fn tensor(&self, _: usize) -> (&[usize], &[f64]) {
        self.scale.tensor(0)
    }
    fn tensor_mut(&mut self, _: usize) -> &mut [f64] {
        self.scale.tensor_mut(0)
    }
}

impl Layer for Hyper {
    type Elem = f64;
    type State = ();
    type Cache = (Option<Linear<f64>>, <Linear<f64> as Layer>::Cache);

    fn output_size(&self, _: Size) -> Result<usize, SizeError> {
        Ok(INPUT)
    }
    fn zero_state(&self, _: usize) {}
    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, f64>,
        _: &mut (),
        (linear, cache): &'c mut Self::Cache,
    ) -> ArrayView3<'c, f64> {
        let linear = linear.get_or_insert_with(|| Linear::zeros(INPUT, INPUT));
        linear.weight.fill(self.scale[[0, 0]] * x.features("Hyper", None)[[0, 0, 0]]);
        linear.forward(x, &mut (), cache)
    }
    fn output<'c>(&self, (_, cache): &'c Self::Cache) -> ArrayView3<'c, f64> {
        Linear::zeros(INPUT, INPUT).output(cache)
    }
    fn backward_pass<'c>(
        &self,
        _: &Sequence<'_, f64>,
        _: &ArrayRef3<f64>,
        _: Option<&mut ()>,
        _: &'c mut Self::Cache,
        _: Gradient<'_, Self>,
    ) -> ArrayView3<'c, f64> {
        panic!("Hyper is run for inference alone")
    }
}

#[test]
fn what_is_not_a_parameter_is_not_kept() {
    let model = Prepacked::new(Hyper { scale: Array2::ones((1, 1)) });
    let mut cache = model.cache();
    for first in [1.0, 2.0, 3.0] {
        let mut x = Array3::zeros((1, 4, INPUT));
        x[[0, 0, 0]] = first;
        let y = model.forward(Sequence::from(&x).infer(), &mut (), &mut cache);
        assert_eq!(y[[0, 0, 5]], first * first);
    }
}

#[test]
fn packed_once_for_all_caches() {
    let model = Prepacked::new(LstmCell::<f32>::new(INPUT, 64, &mut rng(3)));
    let x = batch(1, 8);
    let pass = |cache: &mut _, state: &mut _| {
        assert_eq!(model.step(&x, state, cache).dim(), (8, 64));
    };
    let (mut state, mut cache) = (model.zero_state(8), model.cache());
    let weights = (model.element_count() * size_of::<f32>()) as u64;
    assert!(measure(|| pass(&mut cache, &mut state)).bytes_total > weights, "the first pass packs");
    assert_eq!(allocations(|| pass(&mut cache, &mut state)), 0);
    let mut another = model.cache();
    assert!(measure(|| pass(&mut another, &mut state)).bytes_total < weights / 4, "the next cache finds them packed");
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "starts threads")]
fn packed_once_for_all_threads() {
    let model = Prepacked::new(LstmCell::<f32>::new(INPUT, 64, &mut rng(3)));
    let x = batch(1, 8);
    let pass = |cache: &mut _, state: &mut _| {
        assert_eq!(model.step(&x, state, cache).dim(), (8, 64));
    };
    let weights = (model.element_count() * size_of::<f32>()) as u64;
    pass(&mut model.cache(), &mut model.zero_state(8));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let bytes = measure(|| pass(&mut model.cache(), &mut model.zero_state(8))).bytes_total;
                assert!(bytes < weights / 4, "{bytes} bytes on another thread");
            });
        }
    });
}

#[test]
fn only_inference_packs() {
    let model = Prepacked::new(Linear::<f32>::new(INPUT, 64, &mut rng(3)));
    let x = batch(1, 8);
    let bytes = |mode: fn(Sequence<'_, f32>) -> Sequence<'_, f32>| {
        let mut cache = model.cache();
        measure(|| assert!(!model.forward(mode((&x).into()), &mut (), &mut cache).is_empty())).bytes_max
    };
    bytes(|x| x.eval()); // allocations made once per process, such as the instruction set's name
    let (eval, train, infer) = (bytes(|x| x.eval()), bytes(|x| x.train(0)), bytes(|x| x.infer()));
    assert!(eval == train && infer >= eval + (INPUT * 64 * 4) as u64, "{eval}, {train}, {infer} bytes");
}
