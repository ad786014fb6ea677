//! Weights that are dropped at random: compared with PyTorch under the same masks, the mask itself, and when it stays the same.

use std::convert::Infallible;
use std::path::Path;

use gradflow::author::Gradient;
use gradflow::ndarray::{Array3, s};
use gradflow::rand::TryRng;
use gradflow::recurrent::{Gru, GruCell, Lstm, LstmCell, MinGru, Rnn};
use gradflow::stream::Stream;
use gradflow::{Layer, Sequence, Tensors, TensorsExt, ZerosLike, layers::Linear, wrap::WeightDrop};
use serde_json::Value;

use crate::common::{Within, allocations, assert_all_near, assert_says, bits, panic_of, rng, wave};

/// Returns the id of `tests/layers/data/weight_drop.py`.
struct Id;

impl TryRng for Id {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0x89ab_cdef)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0x0123_4567_89ab_cdef)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(0);
        Ok(())
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The `wave` of the script.
fn script_wave(len: usize, phase: f64) -> Vec<f64> {
    (0..len).map(|k| 0.8 * (1.3 * k as f64 + phase).sin()).collect()
}

fn check_case<L: Layer<Elem = f64>>(case: &Value, mut layer: L) {
    for i in 0..layer.count() {
        let len = layer.values(i).len();
        layer.tensor_mut(i).copy_from_slice(&script_wave(len, i as f64));
    }
    let layer = WeightDrop::new(layer, case["p"].as_f64().unwrap(), &mut Id);
    let x = Array3::from_shape_vec((5, 2, 2), script_wave(20, 0.5)).unwrap();
    let x = Sequence::from(&x).train(case["seed"].as_u64().unwrap());
    let (mut cache, within, what) = (layer.cache(), Within::either(1e-12), case["kind"].as_str().unwrap());
    for how in ["overwritten", "added"] {
        let y = layer.forward(x, &mut layer.zero_state(2), &mut cache).to_owned();
        assert_all_near(y.as_slice().unwrap(), &numbers(&case["y"]), within, what);
        let dy = Array3::from_shape_vec(y.raw_dim(), script_wave(y.len(), 0.25)).unwrap();
        let mut grad = layer.zeros_like();
        let how = if how == "added" { Gradient::add(&mut grad) } else { Gradient::overwrite(&mut grad) };
        let dx = layer.backward(x, &dy, None, &mut cache, how);
        assert_all_near(dx.to_slice().unwrap(), &numbers(&case["dx"]), within, what);
        let mut zeros = 0;
        for i in 0..grad.count() {
            let name = grad.name(i);
            assert_all_near(grad.values(i), &numbers(&case["gradients"][&name]), within, &name);
            if name.starts_with("weight_hh") {
                zeros += grad.values(i).iter().filter(|&&d| d == 0.0).count();
            }
        }
        assert_eq!(zeros as u64, case["zeros"].as_u64().unwrap(), "what is dropped has no gradient");
    }
}

#[test]
fn it_is_pytorchs_with_the_same_masks() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layers/data/weight_drop.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 4);
    for case in &cases {
        let layers = case["layers"].as_u64().unwrap() as usize;
        match case["kind"].as_str().unwrap() {
            "LSTM" => check_case(case, Lstm::builder(2, 3).num_layers(layers).zeros()),
            "RNN" => check_case(case, Rnn::builder(2, 3).num_layers(layers).zeros()),
            _ => check_case(case, Gru::builder(2, 3).num_layers(layers).bidirectional().zeros()),
        }
    }
}

#[test]
fn a_mask_is_that_of_the_seed_and_of_one_weight() {
    let rng = &mut rng(0);
    let layer = WeightDrop::new(Lstm::<f64>::builder(3, 40).num_layers(2).build(rng), 0.3, rng);
    let kept = |seed: u64| -> Vec<f64> {
        let (dropped, whole) = (layer.dropped(seed), &layer.layer);
        let mut factors = Vec::new();
        for i in 0..whole.count() {
            if !whole.name(i).starts_with("weight_hh") {
                assert_eq!(dropped.values(i), whole.values(i));
                continue;
            }
            for (dropped, whole) in dropped.values(i).iter().zip(whole.values(i)) {
                assert!(*dropped == 0.0 || (dropped / whole - 1.0 / 0.7).abs() < 1e-12);
                factors.push(f64::from(u8::from(*dropped == 0.0)));
            }
        }
        factors
    };
    let (one, other) = (kept(5), kept(6));
    assert_eq!(one, kept(5));
    let half = one.len() / 2;
    let share = |mask: &[f64]| mask.iter().sum::<f64>() / mask.len() as f64;
    // A share of 12800 elements, with a standard deviation of 0.004.
    assert!((share(&one) - 0.3).abs() < 0.02 && (share(&other) - 0.3).abs() < 0.02);
    let both = |a: &[f64], b: &[f64]| share(&a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>());
    for (a, b) in [(&one[..], &other[..]), (&one[..half], &one[half..]), (&one[1..], &one[..one.len() - 1])] {
        assert!((both(a, b) - 0.09).abs() < 0.02, "seeds, layers and neighbours are independent");
    }
    // Another wrapper has other masks; a clone has the same ones.
    let again = WeightDrop::new(layer.layer.clone(), 0.3, rng);
    assert_ne!(bits(&again.dropped(5)), bits(&layer.dropped(5)));
    assert_eq!(bits(&layer.clone().dropped(5)), bits(&layer.dropped(5)));
    assert_eq!((layer.p(), layer.names()), (0.3, layer.layer.names()));
}

#[test]
fn chunks_and_parts_of_a_batch_have_the_mask_of_the_whole() {
    let rng = &mut rng(1);
    let layer = WeightDrop::new(GruCell::<f64>::new(3, 7, rng), 0.5, rng);
    let x = wave((6, 4, 3), 0.1);
    let x = Sequence::from(&x).train(11);
    let (mut cache, mut state) = (layer.cache(), layer.zero_state(4));
    let whole = layer.forward(x, &mut state, &mut cache).to_owned();
    let mut chunked = layer.zero_state(4);
    for t in [0..2, 2..3, 3..6] {
        let y = layer.forward(x.steps(t.clone()), &mut chunked, &mut cache);
        assert_eq!(y, whole.slice(s![t, .., ..]));
    }
    assert_eq!(chunked, state);
    for b in 0..4 {
        let y = layer.forward(x.sequences(b..b + 1), &mut layer.zero_state(1), &mut cache);
        assert_eq!(y, whole.slice(s![.., b..b + 1, ..]));
    }
}

#[test]
fn nothing_is_dropped_in_evaluation() {
    let rng = &mut rng(2);
    let plain = Lstm::<f32>::builder(3, 5).build(rng);
    let layer = WeightDrop::new(plain.clone(), 0.9, rng);
    let x = wave((4, 2, 3), 0.0);
    for x in [Sequence::from(&x).eval(), Sequence::from(&x).infer()] {
        let y = layer.forward(x, &mut layer.zero_state(2), &mut layer.cache()).to_owned();
        assert_eq!(plain.forward(x, &mut plain.zero_state(2), &mut plain.cache()), y);
    }
    let none = WeightDrop::new(plain.clone(), 0.0, rng);
    let trained = |layer: &WeightDrop<Lstm<f32>>, seed| {
        layer.forward(Sequence::from(&x).train(seed), &mut layer.zero_state(2), &mut layer.cache()).to_owned()
    };
    assert_eq!(trained(&none, 1), plain.forward(&x, &mut plain.zero_state(2), &mut plain.cache()));
    assert_ne!(trained(&layer, 1), trained(&layer, 2));
    let mut streams = [Stream::new(&layer, 3).unwrap().push(&[0.1, 0.2, 0.3]).to_vec(), vec![]];
    streams[1] = Stream::new(&plain, 3).unwrap().push(&[0.1, 0.2, 0.3]).to_vec();
    assert_eq!(streams[0], streams[1]);
    assert_eq!(layer.into_inner(), plain);
}

#[test]
fn a_second_step_allocates_nothing() {
    let rng = &mut rng(3);
    let layer = WeightDrop::new(LstmCell::<f32>::new(3, 5, rng), 0.5, rng);
    let (x, dy) = (wave((4, 2, 3), 0.0), wave((4, 2, 5), 1.0));
    let (mut cache, mut grad, mut state) = (layer.cache(), layer.zeros_like(), layer.zero_state(2));
    for added in [false, true] {
        let mut step = |seed: u64| {
            let x = Sequence::from(&x).train(seed);
            let pass = layer.pass(x, &mut state, &mut cache);
            if added {
                pass.backward(&dy, &mut grad)
            } else {
                pass.backward_into(&dy, &mut grad)
            };
        };
        step(0);
        assert_eq!(allocations(|| step(1)), 0, "added: {added}");
    }
}

#[test]
fn what_cannot_be_dropped_is_refused() {
    let rng = &mut rng(4);
    let cell = || LstmCell::<f32>::zeros(3, 5);
    for p in [-0.1, 1.0, f64::NAN, 1.0 - 1e-12] {
        let message = panic_of(|| WeightDrop::new(cell(), p, &mut *rng));
        assert_says(&message, &["WeightDrop: p: expected a probability in 0..1", &format!("{p:?}")]);
    }
    let message = panic_of(|| WeightDrop::new(MinGru::<f32>::new(3, 5, &mut *rng), 0.5, &mut Id));
    let expected = "WeightDrop: layer: expected one with a weight_hh; `WeightDrop::of` drops others";
    assert_says(&message, &[expected, "a layer of weight_ih_l0, bias_ih_l0"]);
    let message = panic_of(|| WeightDrop::of(cell(), &["weight_hh", "weight"], 0.5, &mut *rng));
    assert_says(&message, &["WeightDrop: names: expected some of weight_ih, weight_hh, bias_ih, bias_hh, got weight"]);
    assert_says(&panic_of(|| WeightDrop::of(cell(), &[], 0.5, &mut *rng)), &["names: expected at least one, got none"]);
    let layer = WeightDrop::of(Linear::<f64>::new(3, 4, rng), &["weight", "weight"], 0.5, rng);
    let x = wave((4, 2, 3), 0.0);
    let forward = |x: Sequence<'_, f64>| layer.forward(x, &mut (), &mut layer.cache()).to_owned();
    assert_says(&panic_of(|| forward((&x).into())), &["WeightDrop: x: expected a mode: say x.train(seed)"]);
    assert_ne!(forward(Sequence::from(&x).train(1)), forward(Sequence::from(&x).eval()));
    // The same units in a hundred steps are refused.
    let message = panic_of(|| {
        let mut cache = layer.cache();
        for k in 0..100 {
            let x = wave((4, 2, 3), f64::from(k));
            let pass = layer.pass(Sequence::from(&x).train(1), &mut (), &mut cache);
            pass.backward_into(&wave((4, 2, 4), 0.0), &mut layer.zeros_like());
        }
    });
    assert_says(&message, &["WeightDrop: x", "another seed in each training step"]);
    // NaN stays NaN even if it is dropped.
    let mut broken = LstmCell::<f64>::new(3, 5, rng);
    broken.weight_hh.fill(f64::NAN);
    let dropped = WeightDrop::new(broken, 0.9, rng).dropped(0);
    assert!(dropped.weight_hh.iter().all(|w| w.is_nan()));
}
