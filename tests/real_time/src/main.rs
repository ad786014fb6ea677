//! Runs streams of all kinds of layers in a real-time context, which `rtsan-standalone` watches if the program is built with
//! `RTSAN_ENABLE=1`: an allocation, a lock or a system call ends the program with an error. `.ci/real_time` runs it.
//!
//!     real_time <steps>       streams of all kinds
//!     real_time violate       a step that allocates: the sanitizer must see it

use std::env::args;
use std::hint::black_box;

use gradflow::{
    Causal,
    compose::{BoxLayer, DenseConcat, Highway, PostNormBlock, PreNormBlock, Residual, Stacked},
    layers::{Activation, Dropout, FeedForward, LayerNorm, Linear, Nonlinearity},
    rand::{SeedableRng, rngs::StdRng},
    recurrent::{Gru, GruCell, GruReset, Lstm, LstmCell, MguCell, MinGruCell, MinLstmCell, Rnn, SlstmCell},
    stream::Stream,
    wrap::{LearnedState, Prepacked},
};
use rtsan_standalone::nonblocking;

/// Runs a stream's steps, one at a time and in a block, from a reset and from a given state.
#[nonblocking]
fn run<M: Causal<Elem = f32>>(stream: &mut Stream<M>, state: &M::State, x: &[f32], y: &mut [f32], steps: usize) {
    for _ in 0..steps {
        stream.push(&x[..stream.input_size()]);
        stream.process(x, y);
    }
    stream.reset();
    stream.set_state(state);
}

fn check<M: Causal<Elem = f32>>(name: &str, model: M, steps: usize) {
    const BLOCK: usize = 100;
    let input = (1..100).find(|&input| model.output_size(input.into()).is_ok()).expect("a size that the model takes");
    let mut stream = Stream::new(&model, input).expect("a size that fits");
    let x: Vec<f32> = (0..BLOCK * input).map(|i| (0.05 * i as f32).sin()).collect();
    let mut y = vec![0.0; BLOCK * stream.output_size()];
    run(&mut stream, &model.zero_state(1), &x, &mut y, steps);
    println!("{name}: {steps} blocks, the last output {}", black_box(y[y.len() - 1]));
}

#[nonblocking]
fn violate() {
    black_box(vec![1_u8; 100]);
}

fn main() {
    rtsan_standalone::ensure_initialized();
    let argument = args().nth(1).unwrap_or_else(|| "10".into());
    if argument == "violate" {
        return violate();
    }
    let steps = argument.parse().expect("a number of steps");
    let rng = &mut StdRng::seed_from_u64(0);
    for hidden in [4, 8, 15, 16, 40] {
        check("LSTM", (LstmCell::new(1, hidden, rng), Linear::new(hidden, 1, rng)), steps);
        check("GRU", (GruCell::new(1, hidden, rng), Linear::new(hidden, 1, rng)), steps);
    }
    check("Rnn, two layers", Rnn::builder(2, 12).num_layers(2).build(rng), steps);
    check("Lstm, two layers", Lstm::builder(2, 20).num_layers(2).dropout(0.1).build(rng), steps);
    check(
        "wide head",
        (GruCell::new(3, 20, rng), Dropout::new(0.1, rng), Linear::new(20, 30, rng), Activation::gelu()),
        steps,
    );
    check("FeedForward", FeedForward::new(6, 9, Nonlinearity::Silu, rng), steps);
    // Layers without kernels for single steps.
    check("LSTM with options", LstmCell::builder(3, 12).peepholes().layer_norm().projection(5).build(rng), steps);
    check("GRU, reset before", GruCell::builder(3, 12).reset(GruReset::BeforeProduct).build(rng), steps);
    check("Gru with layer normalisation", Gru::builder(3, 12).num_layers(2).layer_norm().build(rng), steps);
    check("MGU", MguCell::new(3, 12, rng), steps);
    check("minGRU", MinGruCell::new(3, 12, rng), steps);
    check("minLSTM", MinLstmCell::new(3, 12, rng), steps);
    check("sLSTM", SlstmCell::builder(3, 12).heads(3).build(rng), steps);
    check("LSTM with heads", LstmCell::builder(3, 12).heads(3).build(rng), steps);
    check("LayerNorm", (LayerNorm::new(5), Linear::new(5, 5, rng)), steps);
    check("Residual", Residual::new(LstmCell::new(8, 8, rng)), steps);
    check("Highway", Highway::new(Linear::new(8, 8, rng), 8, rng), steps);
    check("DenseConcat", DenseConcat::new(Linear::new(4, 4, rng)), steps);
    check(
        "blocks",
        (PreNormBlock::new(8, 16, Nonlinearity::Gelu, rng), PostNormBlock::new(8, 16, Nonlinearity::Gelu, rng)),
        steps,
    );
    check(
        "boxes",
        Stacked::new(vec![BoxLayer::new(LstmCell::new(3, 4, rng)), BoxLayer::new(Linear::new(4, 2, rng))]),
        steps,
    );
    check("LearnedState", LearnedState::new(LstmCell::new(3, 4, rng)), steps);
    check("Prepacked", Prepacked::new(GruCell::new(3, 4, rng)), steps);
}
