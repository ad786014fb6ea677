//! From the second step on, training does not allocate: forward, loss, backward, clipping and optimizer together.

use allocation_counter::measure;
use gradflow::ndarray::{Array2, Array3};
use gradflow::{
    Causal, Float, Layer, Sequence, ZerosLike,
    author::Cell,
    clip::{ClipNorm, clip_grad_norm, clip_grad_value},
    compose::{PreNormBlock, Stacked},
    layers::{Embedding, Linear, Nonlinearity},
    loss::{Loss, SoftmaxCrossEntropy},
    optim::{Adam, AdamW, Optimizer, Sgd},
    recurrent::{GruCell, GruReset, LstmCell, RnnCell},
};

use crate::common::{allocations, rng};

// Sizes that reach the packed products and their edges.
const STEPS: usize = 9;
const BATCH: usize = 5;
const VOCABULARY: usize = 37;
const HIDDEN: usize = 50;

/// The number of allocations in the first step, and in twenty more.
fn count<L: Layer>(model: &mut L, optimizer: &mut dyn Optimizer<L::Elem>, lengths: Option<&[usize]>) -> (u64, u64) {
    let ids = Array2::from_shape_fn((STEPS + 1, BATCH), |(t, b)| (5 * t + 3 * b) % VOCABULARY);
    let (x, targets) = (ids.slice(gradflow::ndarray::s![..STEPS, ..]), ids.slice(gradflow::ndarray::s![1.., ..]));
    let mut x = Sequence::from(x).train(0);
    if let Some(lengths) = lengths {
        x = x.with_lengths(lengths).unwrap();
    }
    let mut loss = SoftmaxCrossEntropy::new();
    let (mut state, mut cache, mut grad) = (model.zero_state(BATCH), model.cache(), model.zeros_like());
    let mut step = || {
        let pass = model.pass(x, &mut state, &mut cache);
        let nats = loss.of(&pass, &targets);
        pass.backward_into(nats.gradient(), &mut grad);
        clip_grad_norm(&mut grad, 1.0).unwrap();
        clip_grad_value(&mut grad, 0.5).unwrap();
        optimizer.step(model, &grad);
        optimizer.step_clipped(model, &grad, ClipNorm::new(0.1)).unwrap();
        optimizer.step_clipped(model, &grad, ClipNorm::new(0.1).per_tensor()).unwrap();
        assert!(nats.value().is_finite());
        let validation = model.forward(x, &mut state, &mut cache);
        assert!(loss.value(x.with(validation), &targets).is_finite());
    };
    let first = allocations(&mut step);
    let more = allocations(|| (0..20).for_each(|_| step()));
    (first, more)
}

fn check<M: Layer>(name: &str, mut model: M, optimizer: &mut dyn Optimizer<M::Elem>, lengths: Option<&[usize]>) {
    let (first, more) = count(&mut model, optimizer, lengths);
    println!("{name:<20} {}  first step {first:>4}, twenty more {more}", std::any::type_name::<M::Elem>());
    assert!(first > 0, "{name}: the counter counts nothing");
    assert_eq!(more, 0, "{name}: allocations after the first step");
}

/// Takes `name: body, optimizer, lengths;`, where the body stands between an embedding of 20 features and a head of `features`: a test
/// for each, in f32 and f64.
macro_rules! training_allocates_nothing {
    ($($name:ident: |$rng:ident| $body:expr, $features:expr, $optimizer:expr, $lengths:expr;)+) => {$(
        #[test]
        fn $name() {
            fn check_in<F: Float>() {
                let $rng = &mut rng(0);
                let embedding = Embedding::<F>::new(VOCABULARY, 20, $rng);
                let model = (embedding, $body, Linear::new($features, VOCABULARY, $rng));
                check(stringify!($name), model, &mut $optimizer, $lengths);
            }
            check_in::<f32>();
            check_in::<f64>();
        }
    )+};
}

/// After the first training step.
mod training_allocates_nothing {
    use super::*;

    training_allocates_nothing! {
        lstm: |rng| LstmCell::new(20, HIDDEN, rng), HIDDEN, AdamW::new(1e-3), None;
        lstm_with_lengths: |rng| LstmCell::new(20, HIDDEN, rng), HIDDEN, AdamW::new(1e-3), Some(&[3, 9, 1, 8, 4]);
        gru: |rng| GruCell::new(20, HIDDEN, rng), HIDDEN, Adam::new(1e-3), None;
        rnn: |rng| RnnCell::new(20, HIDDEN, rng), HIDDEN, Sgd::new(1e-2).momentum(0.9), None;
        residual: |rng| Stacked::build(3, |_| PreNormBlock::new(20, HIDDEN, Nonlinearity::Gelu, rng)), 20,
            Sgd::new(1e-2), None;
    }
}

#[test]
fn streaming_allocates_nothing_after_the_first_step() {
    let rng = &mut rng(0);
    let model = (
        Embedding::<f32>::new(VOCABULARY, 20, rng),
        LstmCell::new(20, HIDDEN, rng),
        Linear::new(HIDDEN, VOCABULARY, rng),
    );
    let (mut state, mut cache) = (model.zero_state(1), model.cache());
    let mut ids = Array2::zeros((1, 1));
    let mut step = || {
        let logits = model.step(Sequence::from(&ids), &mut state, &mut cache);
        let next = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        ids[[0, 0]] = next;
    };
    step();
    assert_eq!(allocations(|| (0..20).for_each(|_| step())), 0);
}

/// A shorter last batch, and the long one after it, reuse the existing memory.
#[test]
fn a_smaller_batch_in_between_costs_nothing() {
    let cell = LstmCell::<f32>::new(8, HIDDEN, &mut rng(0));
    let (long, short) = (Array3::ones((STEPS, BATCH, 8)), Array3::ones((STEPS - 2, BATCH - 1, 8)));
    let (dy_long, dy_short) = (Array3::ones((STEPS, BATCH, HIDDEN)), Array3::ones((STEPS - 2, BATCH - 1, HIDDEN)));
    let (mut state_long, mut state_short) = (cell.zero_state(BATCH), cell.zero_state(BATCH - 1));
    let (mut cache, mut grad) = (cell.cache(), cell.zeros_like());
    let mut round = || {
        cell.pass(&long, &mut state_long, &mut cache).backward(&dy_long, &mut grad);
        cell.pass(&short, &mut state_short, &mut cache).backward(&dy_short, &mut grad);
    };
    round();
    assert_eq!(allocations(&mut round), 0);
}

/// Runs the check on one thread: allocations of other threads are not counted, and calling them allocates.
fn on_one_thread(check: impl FnOnce() + Send) {
    #[cfg(feature = "rayon")]
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(check);
    #[cfg(not(feature = "rayon"))]
    check();
}

/// The bytes that a new cache holds after a pass over `steps` steps.
fn cache_bytes<C: Cell<Elem = f32>>(cell: &C, steps: usize, input: usize, train: bool) -> u64 {
    let x = Array3::ones((steps, BATCH, input));
    let dy = Array3::ones((steps, BATCH, cell.sizes().output));
    let (mut state, mut grad, mut cache) = (cell.zero_state(BATCH), cell.zeros_like(), cell.cache());
    let held = measure(|| {
        if train {
            cell.pass(Sequence::from(&x).train(0), &mut state, &mut cache).backward(&dy, &mut grad);
        } else {
            cell.forward(Sequence::from(&x).infer(), &mut state, &mut cache);
        }
    });
    held.bytes_current.try_into().expect("a cache only grows")
}

/// Elements of the cache for each step and sequence, as in `docs/kernels.md`.
#[test]
fn a_cache_holds_what_its_formula_says() {
    const I: usize = 20;
    const H: usize = HIDDEN;
    const P: usize = 12;
    fn check<C: Cell<Elem = f32>>(name: &str, cell: C, train: usize, infer: usize) {
        for (mode, expected) in [(true, train), (false, infer)] {
            // Enough steps that the rows of inference are projected in parts.
            let (few, many) = (100, 150);
            // The blocks of products belong to the thread and stay allocated.
            for steps in [few, many] {
                cache_bytes(&cell, steps, I, mode);
            }
            let more = cache_bytes(&cell, many, I, mode) - cache_bytes(&cell, few, I, mode);
            let elements = more as f64 / ((many - few) * BATCH * size_of::<f32>()) as f64;
            println!("{name:<28} train {mode:<5}  {elements} elements a step and sequence");
            assert_eq!(elements, expected as f64, "{name}, train {mode}");
        }
    }
    on_one_thread(|| {
        let rng = &mut rng(0);
        let (lstm, gru, rnn) = (LstmCell::builder(I, H), GruCell::builder(I, H), RnnCell::builder(I, H));
        check("RNN", rnn.clone().build(rng), 2 * H + I, H);
        check("GRU", gru.clone().build(rng), 5 * H + I, H);
        check("GRU, reset before", gru.clone().reset(GruReset::BeforeProduct).build(rng), 5 * H + I, H);
        check("LSTM", lstm.clone().build(rng), 6 * H + I, H);
        check("LSTM, peepholes", lstm.clone().peepholes().build(rng), 6 * H + I, H);
        check("LSTM, coupled", lstm.clone().coupled().build(rng), 5 * H + I, H);
        check("LSTM, projection", lstm.clone().projection(P).build(rng), 6 * H + 2 * P + I, P);
        check("RNN, layer norm", rnn.layer_norm().build(rng), 2 * H + I + 2 * H + 4, H);
        check("GRU, layer norm", gru.clone().layer_norm().build(rng), 5 * H + I + 6 * H + 6, H);
        check("LSTM, layer norm", lstm.clone().layer_norm().build(rng), 6 * H + I + 10 * H + 6, H);
        check("GRU, recurrent dropout", gru.recurrent_dropout(0.1).build(rng), 5 * H + I + 2 * H, H);
        check("LSTM, recurrent dropout", lstm.clone().recurrent_dropout(0.1).build(rng), 6 * H + I + H, H);
        check("LSTM, zoneout", lstm.zoneout(0.1, 0.1).build(rng), 6 * H + I + 2 * H, H + 2 * H);
    });
}
