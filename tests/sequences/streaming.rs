//! Streams: one step at a time, a state that belongs to the caller, and one model for many streams.

use std::thread;

use allocation_counter::measure;
use gradflow::ndarray::{Array3, Axis, s};
use gradflow::{
    Causal, Layer, Tensors, TensorsExt,
    compose::{Highway, Residual, Stacked, TemporalBlock},
    layers::{CausalConv1d, Embedding, LayerNorm, Linear},
    recurrent::{Gru, GruCell, Lstm, LstmCell, Rnn},
    wrap::LearnedState,
};

use crate::common::{allocations, bits, rng, wave};

const STEPS: usize = 12;
const INPUT: usize = 5;

/// The outputs of the steps `x`, `[T, B, I]`, starting from `state`.
fn stream<L: Causal<Elem = f32>>(model: &L, x: &Array3<f32>, state: &mut L::State) -> Array3<f32> {
    let mut cache = model.cache();
    let steps = x.axis_chunks_iter(Axis(0), 1).map(|step| model.step(step, state, &mut cache).to_owned());
    let steps: Vec<_> = steps.collect();
    Array3::from_shape_fn((steps.len(), steps[0].nrows(), steps[0].ncols()), |(t, b, k)| steps[t][[b, k]])
}

fn model() -> (LayerNorm<f32>, Lstm<f32>, Residual<GruCell<f32>>, Linear<f32>) {
    let rng = &mut rng(7);
    let lstm = Lstm::builder(INPUT, 9).num_layers(2).dropout(0.3).zoneout(0.2, 0.1).build(rng);
    (LayerNorm::new(INPUT), lstm, Residual::new(GruCell::new(9, 9, rng)), Linear::new(9, 3, rng))
}

#[test]
fn step_by_step_equals_the_whole_sequence() {
    fn check<L: Causal<Elem = f32>>(model: L) {
        for batch in [1, 2, 7] {
            let x = wave((STEPS, batch, INPUT), 0.0);
            let (mut state, mut stepped) = (model.zero_state(batch), model.zero_state(batch));
            let sequence = gradflow::Sequence::from(&x).eval();
            let y = model.forward(sequence, &mut state, &mut model.cache()).to_owned();
            let steps = stream(&model, &x, &mut stepped);
            assert!(y.iter().zip(&steps).all(|(y, step)| (y - step).abs() < 1e-5));
            for i in 0..state.count() {
                assert!(state.values(i).iter().zip(stepped.values(i)).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }
    let rng = &mut rng(7);
    check(model());
    check(Rnn::builder(INPUT, 6).num_layers(3).build(rng));
    check(Lstm::builder(INPUT, 21).projection(4).peepholes().layer_norm().build(rng));
    check(Gru::builder(INPUT, 17).num_layers(2).build(rng));
    check(LearnedState::new(LstmCell::new(INPUT, 6, rng)));
    check(CausalConv1d::builder(INPUT, 6, 3).dilation(4).build(rng));
    check(Stacked::build(3, |k| TemporalBlock::weight_norm(INPUT, INPUT, 2, 1 << k, 0.3, rng)));
    check(Stacked::build(2, |_| Highway::new(GruCell::new(INPUT, INPUT, rng), INPUT, rng)));
}

/// To try several continuations, a state is cloned; each clone continues independently, and the original stays.
#[test]
fn a_cloned_state_goes_on_alone() {
    let model = model();
    let (past, [one, other]) = (wave((STEPS, 2, INPUT), 0.0), [1.0, 2.0].map(|phase| wave((4, 2, INPUT), phase)));
    let mut state = model.zero_state(2);
    stream(&model, &past, &mut state);
    let before = bits(&state);
    let (mut first, mut second, mut again) = (state.clone(), state.clone(), state.clone());
    let y = stream(&model, &one, &mut first);
    assert_ne!(stream(&model, &other, &mut second), y);
    assert_eq!(stream(&model, &one, &mut again), y);
    assert_eq!(bits(&again), bits(&first));
    assert_eq!(bits(&state), before);
}

#[cfg(feature = "safetensors")]
#[test]
fn a_saved_state_goes_on_to_the_bit() {
    use gradflow::io::StateDict;

    let model =
        (Lstm::<f32>::builder(INPUT, 9).num_layers(2).build(&mut rng(7)), LearnedState::new(LstmCell::zeros(9, 4)));
    let (past, future) = (wave((STEPS, 2, INPUT), 0.0), wave((4, 2, INPUT), 1.0));
    let mut state = model.zero_state(2);
    stream(&model, &past, &mut state);
    let mut file = Vec::new();
    StateDict::of(&state).save_to(&mut file).unwrap();
    let dict = StateDict::read_from(&file[..]).unwrap();
    assert_eq!(dict.names().collect::<Vec<_>>(), ["0.c", "0.h", "1.c", "1.h", "1.started"]);

    let mut loaded = model.zero_state(2);
    dict.load(&mut loaded).unwrap();
    assert_eq!(bits(&loaded), bits(&state));
    assert_eq!(stream(&model, &future, &mut loaded), stream(&model, &future, &mut state));
    // A state of another batch size is refused, and nothing changes.
    assert!(dict.load(&mut model.zero_state(3)).unwrap_err().to_string().contains("0.h"));
}

#[test]
fn a_step_allocates_nothing() {
    fn check<L: Causal<Elem = f32>>(model: L, batch: usize) {
        let x = wave((STEPS, batch, INPUT), 0.0);
        let (mut state, mut cache) = (model.zero_state(batch), model.cache());
        model.step(x.slice(s![..1, .., ..]), &mut state, &mut cache);
        let more = measure(|| {
            for step in x.axis_chunks_iter(Axis(0), 1) {
                model.step(step, &mut state, &mut cache);
            }
        });
        assert_eq!(more.count_total, 0);
        // A state is cloned into existing memory.
        let mut kept = state.clone();
        assert_eq!(allocations(|| kept.copy_from(&state)), 0);
    }
    for batch in [1, 3, 16] {
        let rng = &mut rng(7);
        check(model(), batch);
        check(Lstm::builder(INPUT, 40).num_layers(2).peepholes().layer_norm().projection(9).build(rng), batch);
        check(Gru::builder(INPUT, 40).reset(gradflow::recurrent::GruReset::BeforeProduct).build(rng), batch);
        check(Rnn::builder(INPUT, 40).build(rng), batch);
    }
}

/// Each stream has its own state and cache, and the model is shared; no thread's results depend on another thread.
#[test]
#[cfg_attr(target_family = "wasm", ignore = "starts threads")]
fn many_streams_share_one_model_on_several_threads() {
    const STREAMS: usize = 12;
    let model = model();
    let input = |k: usize| wave((STEPS + k, 1, INPUT), k as f64);
    let alone: Vec<_> = (0..STREAMS).map(|k| stream(&model, &input(k), &mut model.zero_state(1))).collect();
    let together: Vec<_> = thread::scope(|scope| {
        let model = &model;
        let streams = (0..STREAMS).map(|k| scope.spawn(move || stream(model, &input(k), &mut model.zero_state(1))));
        streams.collect::<Vec<_>>().into_iter().map(|stream| stream.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

/// A stream may end while others in its batch continue, and another may take its place: its rows of the state are set to zero.
#[test]
fn a_stream_is_replaced_in_its_batch() {
    let model = GruCell::<f32>::new(INPUT, 17, &mut rng(7));
    let (x, new) = (wave((STEPS, 3, INPUT), 0.0), wave((STEPS, 1, INPUT), 9.0));
    let mut state = model.zero_state(3);
    stream(&model, &x, &mut state);
    state.row_mut(1).fill(0.0);
    let mut next = wave((STEPS, 3, INPUT), 4.0);
    next.slice_mut(s![.., 1..2, ..]).assign(&new);
    let y = stream(&model, &next, &mut state);
    let alone = stream(&model, &new, &mut model.zero_state(1));
    assert!(y.slice(s![.., 1..2, ..]).iter().zip(&alone).all(|(y, alone)| (y - alone).abs() < 1e-5));
}

#[test]
fn token_streams_need_no_array_of_features() {
    let rng = &mut rng(7);
    let model = (Embedding::<f32>::new(7, INPUT, rng), GruCell::new(INPUT, 9, rng), Linear::new(9, 7, rng));
    let (mut state, mut cache) = (model.zero_state(2), model.cache());
    let ids = gradflow::ndarray::arr2(&[[3, 6]]);
    assert_eq!(model.step(&ids, &mut state, &mut cache).dim(), (2, 7));
}
