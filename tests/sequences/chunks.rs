//! Chunks of any size equal the whole sequence, and truncated BPTT equals a loop over chunks.

use gradflow::ndarray::{Array3, ArrayView3, Axis, concatenate, s};
use gradflow::{
    Causal, Float, Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    compose::{Highway, Residual, Stacked},
    layers::{Dropout, Linear},
    recurrent::{Gru, GruReset, Lstm, LstmCell, Rnn, RnnCell},
    wrap::{LearnedState, TruncatedBptt},
};

use crate::common::{allocations, bits, rng, wave};

const STEPS: usize = 11;
const BATCH: usize = 4;
const INPUT: usize = 5;
/// Unsorted; one is full, and one ends in the first chunk for all but the smallest sizes.
const LENGTHS: [usize; BATCH] = [7, 11, 1, 4];

fn fill<F: Float, T: Tensors<F>>(mut tensors: T, phase: f64) -> T {
    for i in 0..tensors.count() {
        let values = tensors.tensor_mut(i).iter_mut().enumerate();
        values.for_each(|(k, value)| *value = F::of(0.4 * (1.7 * k as f64 + phase).cos()));
    }
    tensors
}

/// All results of one pass.
struct Outcome<L: Layer> {
    y: Array3<L::Elem>,
    state: L::State,
    dx: Array3<L::Elem>,
    dstate: L::State,
    grad: L,
}

impl<L: Layer> Outcome<L> {
    fn of(layer: &L, x: Sequence<'_, L::Elem>) -> Self {
        let mut state = fill(layer.zero_state(x.dims().1), 0.3);
        let mut cache = layer.cache();
        let y = layer.forward(x, &mut state, &mut cache).to_owned();
        let (dy, mut dstate, mut grad) = (wave(y.dim(), 0.6), fill(state.clone(), 0.8), layer.zeros_like());
        let dx = layer.backward(x, &dy, Some(&mut dstate), &mut cache, &mut grad).to_owned();
        Outcome { y, state, dx, dstate, grad }
    }

    /// By hand: forward over chunks with a cache for each, and backward with the gradient passed on.
    fn by_chunks(layer: &L, x: Sequence<'_, L::Elem>, steps: usize) -> Self {
        let mut state = fill(layer.zero_state(x.dims().1), 0.3);
        let mut caches: Vec<_> = x.chunks(steps).map(|_| layer.cache()).collect();
        let parts = x.chunks(steps).zip(&mut caches);
        let parts: Vec<_> = parts.map(|(chunk, cache)| layer.forward(chunk, &mut state, cache).to_owned()).collect();
        let y = joined(&parts);
        let (dy, mut dstate, mut grad) = (wave::<L::Elem>(y.dim(), 0.6), fill(state.clone(), 0.8), layer.zeros_like());
        let mut dx: Vec<_> = x
            .chunks(steps)
            .zip(dy.axis_chunks_iter(Axis(0), steps))
            .zip(&mut caches)
            .rev()
            .map(|((chunk, dy), cache)| layer.backward(chunk, &dy, Some(&mut dstate), cache, &mut grad).to_owned())
            .collect();
        dx.reverse();
        Outcome { y, state, dx: joined(&dx), dstate, grad }
    }

    /// Outputs and states must agree to the bit if the model is recurrent throughout. Feed-forward parts choose the fastest product for
    /// the number of rows.
    #[track_caller]
    fn assert_equals<M: Layer<Elem = L::Elem>>(&self, whole: &Outcome<M>, recurrent: bool, what: &str) {
        if recurrent {
            assert!(bits(&self.y) == bits(&whole.y), "{what}: y");
            assert!(bits(&self.state) == bits(&whole.state), "{what}: state");
        }
        let near = |name: &str, got: &[L::Elem], want: &[L::Elem]| {
            let size = want.iter().fold(1.0, |size: f64, value| size.max(value.widen().abs()));
            let tolerance = 100.0 * epsilon::<L::Elem>() * size;
            assert_eq!(got.len(), want.len(), "{what}: {name}");
            for (got, want) in got.iter().zip(want) {
                assert!((got.widen() - want.widen()).abs() <= tolerance, "{what}: {name}: {got} and {want}");
            }
        };
        near("y", self.y.as_slice().unwrap(), whole.y.as_slice().unwrap());
        near("dx", self.dx.as_slice().unwrap(), whole.dx.as_slice().unwrap());
        for i in 0..self.dstate.count() {
            near(&self.dstate.name(i), self.dstate.values(i), whole.dstate.values(i));
        }
        for i in 0..self.grad.count() {
            near(&self.grad.name(i), self.grad.values(i), whole.grad.values(i));
        }
    }
}

/// The rounding of an element type.
fn epsilon<F: Float>() -> f64 {
    if size_of::<F>() == size_of::<f64>() { f64::EPSILON } else { f32::EPSILON.into() }
}

fn joined<F: Float>(parts: &[Array3<F>]) -> Array3<F> {
    concatenate(Axis(0), &parts.iter().map(|part| part.view()).collect::<Vec<_>>()).unwrap()
}

/// In training, without and with lengths, forward and reversed, by hand and with [`TruncatedBptt`].
fn check<L: Causal>(name: &str, recurrent: bool, layer: L) {
    let x = wave::<L::Elem>((STEPS, BATCH, INPUT), 0.1);
    let x = Sequence::from(&x).train(5);
    for (kind, x) in [("", x), (", lengths", x.with_lengths(&LENGTHS).unwrap())] {
        let (whole, turned) = (Outcome::of(&layer, x), Outcome::of(&layer, x.reversed()));
        for steps in [1, 2, 3, 4, 5, 10, 11, 12] {
            let what = format!("{name} {}{kind}, chunks of {steps}", std::any::type_name::<L::Elem>());
            Outcome::by_chunks(&layer, x, steps).assert_equals(&whole, recurrent, &what);
            let chunked = TruncatedBptt::new(layer.clone(), steps).pass_gradients();
            let kept = Outcome::of(&chunked, x);
            kept.assert_equals(&whole, recurrent, &what);
            let recomputed = Outcome::of(&chunked.clone().recompute(), x);
            assert_eq!(bits(&recomputed.grad), bits(&kept.grad), "{what}: recomputed");
            assert_eq!(bits(&recomputed.dx), bits(&kept.dx), "{what}: recomputed");
            Outcome::of(&chunked, x.reversed()).assert_equals(&turned, recurrent, &format!("{what}, reversed"));
        }
    }
}

#[test]
fn chunks_of_any_size_equal_the_whole() {
    fn models<F: Float>() {
        let rng = &mut rng(2);
        check("RNN", true, Rnn::<F>::builder(INPUT, 6).num_layers(2).build(rng));
        check("LSTM", true, Lstm::<F>::builder(INPUT, 19).num_layers(3).build(rng));
        check("LSTM of all variants", true, {
            let builder = Lstm::<F>::builder(INPUT, 6).num_layers(2).peepholes().coupled().layer_norm().projection(4);
            builder.recurrent_dropout(0.3).zoneout(0.2, 0.3).dropout(0.25).build(rng)
        });
        check("GRU", true, Gru::<F>::builder(INPUT, 17).num_layers(2).zoneout(0.2).build(rng));
        check(
            "GRU, reset before",
            true,
            Gru::<F>::builder(INPUT, 6).reset(GruReset::BeforeProduct).layer_norm().build(rng),
        );
        // The sums have more terms than one block of a product.
        check("wide RNN", true, RnnCell::<F>::new(INPUT, 530, rng));
        check("learned state", true, fill(LearnedState::new(LstmCell::<F>::new(INPUT, 6, rng)), 0.2));
        check("residual LSTMs", true, {
            let lstm = |_| Residual::new((LstmCell::<F>::new(INPUT, INPUT, rng), Dropout::new(0.2, rng)));
            Stacked::build(3, lstm)
        });
        check("highway RNN", false, Highway::new(RnnCell::<F>::new(INPUT, INPUT, rng), INPUT, rng));
    }
    models::<f64>();
    models::<f32>();
}

/// Two chunks, as in a plain loop: both passes are kept, and the state's gradient is passed on.
#[test]
fn two_passes_with_the_gradient_passed_on_are_one() {
    let layer = Lstm::<f64>::builder(INPUT, 6).num_layers(2).build(&mut rng(0));
    let (x, dy) = (wave((STEPS, BATCH, INPUT), 0.1), wave((STEPS, BATCH, 6), 0.6));
    let (mut whole, mut state) = (layer.zeros_like(), layer.zero_state(BATCH));
    layer.pass(&x, &mut state, &mut layer.cache()).backward(&dy, &mut whole);

    let (mut grad, mut carried, mut dstate) = (layer.zeros_like(), layer.zero_state(BATCH), layer.zero_state(BATCH));
    let (mut first_cache, mut second_cache) = (layer.cache(), layer.cache());
    let [first, second] = [x.slice(s![..4, .., ..]), x.slice(s![4.., .., ..])];
    let first = layer.pass(first, &mut carried, &mut first_cache);
    let second = layer.pass(second, &mut carried, &mut second_cache);
    second.with_state_gradient(&mut dstate).backward(&dy.slice(s![4.., .., ..]), &mut grad);
    first.with_state_gradient(&mut dstate).backward(&dy.slice(s![..4, .., ..]), &mut grad);
    assert_eq!(carried, state);
    for i in 0..grad.count() {
        assert!(grad.values(i).iter().zip(whole.values(i)).all(|(got, want)| (got - want).abs() < 1e-13));
    }
}

/// A loop over chunks that detaches the state.
fn cut_by_hand<L: Layer>(layer: &L, x: Sequence<'_, L::Elem>, steps: usize) -> (Array3<L::Elem>, L) {
    let (mut state, mut grad) = (fill(layer.zero_state(x.dims().1), 0.3), layer.zeros_like());
    let (mut dx, mut cache) = (Vec::new(), layer.cache());
    let mut start = 0;
    for chunk in x.chunks(steps) {
        let pass = layer.pass(chunk, &mut state, &mut cache);
        let dy = wave::<L::Elem>((x.dims().0, BATCH, pass.output().dim().2), 0.6);
        let own = dy.slice(s![start..start + chunk.dims().0, .., ..]);
        dx.push(pass.backward(&own, &mut grad).to_owned());
        start += chunk.dims().0;
    }
    (joined(&dx), grad)
}

#[test]
fn cut_gradients_are_those_of_a_loop_over_chunks() {
    let rng = &mut rng(1);
    let layer = (Lstm::<f64>::builder(INPUT, 6).num_layers(2).build(rng), Linear::new(6, 3, rng));
    let x = wave((STEPS, BATCH, INPUT), 0.1);
    let x = Sequence::from(&x);
    for x in [x, x.with_lengths(&LENGTHS).unwrap()] {
        for steps in [1, 3, 4, 11] {
            let (dx, grad) = cut_by_hand(&layer, x, steps);
            for chunked in
                [TruncatedBptt::new(layer.clone(), steps), TruncatedBptt::new(layer.clone(), steps).recompute()]
            {
                let (mut state, mut own) = (fill(layer.zero_state(BATCH), 0.3), chunked.zeros_like());
                let mut cache = chunked.cache();
                let pass = chunked.pass(x, &mut state, &mut cache);
                let own_dx = pass.backward(&wave((STEPS, BATCH, 3), 0.6), &mut own).to_owned();
                assert_eq!(own_dx, dx, "chunks of {steps}");
                for i in 0..grad.count() {
                    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-13;
                    assert!(own.values(i).iter().zip(grad.values(i)).all(near), "chunks of {steps}");
                }
            }
        }
    }
}

#[test]
fn a_cut_gradient_reaches_the_start_of_its_chunk_and_no_further() {
    let layer = LstmCell::<f64>::new(INPUT, 6, &mut rng(3));
    let x = wave((STEPS, BATCH, INPUT), 0.1);
    let mut dy = Array3::zeros((STEPS, BATCH, 6));
    dy.slice_mut(s![STEPS - 1, .., ..]).fill(1.0);
    let dx = |layer: TruncatedBptt<LstmCell<f64>>| {
        let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
        let mut dstate = layer.zero_state(BATCH);
        let pass = layer.pass(&x, &mut layer.zero_state(BATCH), &mut cache).with_state_gradient(&mut dstate);
        (pass.backward(&dy, &mut grad).to_owned(), dstate)
    };
    let reached =
        |dx: ArrayView3<'_, f64>| dx.outer_iter().map(|step| step.iter().any(|&d| d != 0.0)).collect::<Vec<_>>();
    let (cut, dinitial) = dx(TruncatedBptt::new(layer.clone(), 4));
    assert_eq!(reached(cut.view()), [vec![false; 8], vec![true; 3]].concat());
    assert!(dinitial.h.iter().chain(&dinitial.c).all(|&d| d == 0.0));
    let (passed, dinitial) = dx(TruncatedBptt::new(layer, 4).pass_gradients());
    assert_eq!(reached(passed.view()), [true; STEPS]);
    assert!(dinitial.h.iter().chain(&dinitial.c).all(|&d| d != 0.0));
}

/// With lengths, the gradient of a sequence's final state reaches the chunk in which the sequence ends, as for the sequence alone.
#[test]
fn cut_gradients_do_not_depend_on_the_rest_of_the_batch() {
    fn check<L: Causal<Elem = f64>>(layer: L) {
        let x = wave((STEPS, BATCH, INPUT), 0.1);
        let all = Sequence::from(&x).with_lengths(&LENGTHS).unwrap();
        let run = |x: Sequence<'_, f64>, dy: &Array3<f64>, dfinal: f64, grad: &mut TruncatedBptt<L>| {
            let layer = TruncatedBptt::new(layer.clone(), 3);
            let (mut cache, mut dstate) = (layer.cache(), layer.zero_state(x.dims().1));
            (0..dstate.count()).for_each(|i| dstate.tensor_mut(i).fill(dfinal));
            layer
                .pass(x, &mut layer.zero_state(x.dims().1), &mut cache)
                .with_state_gradient(&mut dstate)
                .backward(dy, grad)
                .to_owned()
        };
        let output = layer.output_size(INPUT.into()).unwrap();
        let dy = wave((STEPS, BATCH, output), 0.6);
        let chunked = TruncatedBptt::new(layer.clone(), 3);
        let (mut grad, mut sum) = (chunked.zeros_like(), chunked.zeros_like());
        let dx = run(all, &dy, 0.7, &mut grad);
        for (b, &length) in LENGTHS.iter().enumerate() {
            let x = x.slice(s![..length, b..b + 1, ..]);
            let alone = run((&x).into(), &dy.slice(s![..length, b..b + 1, ..]).to_owned(), 0.7, &mut sum);
            let within = dx.slice(s![..length, b..b + 1, ..]);
            assert!(alone.iter().zip(&within).all(|(a, b)| (a - b).abs() < 1e-13), "sequence {b}");
        }
        for i in 0..grad.count() {
            assert!(grad.values(i).iter().zip(sum.values(i)).all(|(a, b)| (a - b).abs() < 1e-13), "{}", grad.name(i));
        }
    }
    let rng = &mut rng(4);
    check(Gru::builder(INPUT, 6).num_layers(2).build(rng));
    check((LstmCell::new(INPUT, 4, rng), RnnCell::new(4, 3, rng)));
}

#[test]
fn nothing_is_allocated_from_the_second_pass_on() {
    let rng = &mut rng(5);
    let model = (Lstm::<f32>::builder(INPUT, 20).num_layers(2).dropout(0.1).build(rng), Linear::new(20, 3, rng));
    let x = wave((STEPS, BATCH, INPUT), 0.1);
    let dy = wave((STEPS, BATCH, 3), 0.6);
    let cut = TruncatedBptt::new(model, 4);
    for (what, layer) in [
        ("cut", cut.clone()),
        ("cut, recomputed", cut.clone().recompute()),
        ("passed", cut.clone().pass_gradients()),
        ("passed, recomputed", cut.pass_gradients().recompute()),
    ] {
        for lengths in [None, Some(&LENGTHS[..])] {
            let mut x = Sequence::from(&x).train(3);
            if let Some(lengths) = lengths {
                x = x.with_lengths(lengths).unwrap();
            }
            let (mut state, mut dstate) = (layer.zero_state(BATCH), layer.zero_state(BATCH));
            let (mut cache, mut grad) = (layer.cache(), layer.zeros_like());
            let mut step = |with_state: bool| {
                let pass = layer.pass(x, &mut state, &mut cache);
                let pass = if with_state { pass.with_state_gradient(&mut dstate) } else { pass };
                pass.backward(&dy, &mut grad);
            };
            let first = allocations(|| step(true));
            let more = allocations(|| (0..5).for_each(|k| step(k % 2 == 0)));
            assert!(first > 0 && more == 0, "{what}: {more} allocations");
        }
    }
}

/// A chunk knows its place: dropout draws the same mask as at that place of the whole sequence.
#[test]
fn no_two_chunks_are_dropped_alike() {
    let dropout = Dropout::<f64>::new(0.5, &mut rng(6));
    let x = Array3::ones((8, 2, 16));
    let x = Sequence::from(&x).train(1);
    let whole = dropout.forward(x, &mut (), &mut dropout.cache()).to_owned();
    let parts: Vec<_> =
        x.chunks(4).map(|chunk| dropout.forward(chunk, &mut (), &mut dropout.cache()).to_owned()).collect();
    assert_eq!(joined(&parts), whole);
    assert_ne!(parts[0], parts[1]);
}
