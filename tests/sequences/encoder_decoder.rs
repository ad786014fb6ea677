//! Encoder and decoder: the final states of one model are the initial states of another, and their gradient flows back.

use gradflow::ndarray::{Array2, Array3, s};
use gradflow::rand::Rng;
use gradflow::{
    Layer, Sequence, Tensors, TensorsExt, ZerosLike,
    attention::{Attention, AttentionScore},
    layers::{Embedding, Linear},
    loss::SoftmaxCrossEntropy,
    parameters,
    recurrent::{BiLstm, Gru, Lstm, LstmState, Rnn},
};

use crate::common::{evaluate, rng, wave};

const BATCH: usize = 3;
const SOURCE: usize = 5;
const TARGET: usize = 4;
const SOURCE_LENGTHS: [usize; BATCH] = [3, 5, 1];
const TARGET_LENGTHS: [usize; BATCH] = [4, 2, 3];

/// Checks `grad` against central differences of `loss` for every element of `tensors`.
fn check<T: Tensors<f64> + Clone>(what: &str, tensors: &T, grad: &impl Tensors<f64>, loss: impl Fn(&T) -> f64) {
    let (mut worst, mut moved) = (0.0f64, tensors.clone());
    for i in 0..tensors.count() {
        let size = grad.values(i).iter().fold(1e-3, |size: f64, value| size.max(value.abs()));
        for k in 0..tensors.values(i).len() {
            const STEP: f64 = 1e-5;
            let value = tensors.values(i)[k];
            let mut at = |value| {
                moved.tensor_mut(i)[k] = value;
                loss(&moved)
            };
            let numeric = (at(value + STEP) - at(value - STEP)) / (2.0 * STEP);
            moved.tensor_mut(i)[k] = value;
            let error = (numeric - grad.values(i)[k]).abs() / size;
            assert!(error <= 1e-6, "{what}: {}[{k}]: {} and {numeric}", tensors.name(i), grad.values(i)[k]);
            worst = worst.max(error);
        }
    }
    println!("{what:<44} worst error {worst:.1e}");
}

/// A model that reads, and one that continues from the final state of the first.
#[derive(Clone)]
struct Pair<E, D> {
    encoder: E,
    decoder: D,
}
parameters! { impl<E: Layer<Elem = f64>, D: Layer<Elem = f64>> Tensors<f64> for Pair<E, D> { encoder, decoder } }

/// The inputs of both models.
struct Task {
    source: Array3<f64>,
    target: Array3<f64>,
    lengths: bool,
}

impl Task {
    fn sequences(&self) -> (Sequence<'_, f64>, Sequence<'_, f64>) {
        let (source, target) = (Sequence::from(&self.source).eval(), Sequence::from(&self.target).eval());
        match self.lengths {
            true => (source.with_lengths(&SOURCE_LENGTHS).unwrap(), target.with_lengths(&TARGET_LENGTHS).unwrap()),
            false => (source, target),
        }
    }
}

impl<S: gradflow::author::State<f64>, E: Layer<Elem = f64, State = S>, D: Layer<Elem = f64, State = S>> Pair<E, D> {
    /// `Σ w ∘ y` of the decoder, and its gradients: for the parameters, `dL/dsource` and `dL/d(initial state)`.
    fn gradients(&self, task: &Task, initial: &S) -> (f64, Self, Array3<f64>, S) {
        let (source, target) = task.sequences();
        let mut state = initial.clone();
        let (mut encoder, mut decoder) = (self.encoder.cache(), self.decoder.cache());
        let mut grad = Pair { encoder: self.encoder.zeros_like(), decoder: self.decoder.zeros_like() };
        let dread = self.encoder.forward(source, &mut state, &mut encoder).mapv(|_| 0.0); // its outputs are not used
        let y = self.decoder.forward(target, &mut state.clone(), &mut decoder).to_owned();
        let dy = wave(y.dim(), 0.4);
        let loss = (&y * &dy).sum();
        let mut dstate = state.clone();
        dstate.set_zero();
        self.decoder.backward(target, &dy, Some(&mut dstate), &mut decoder, &mut grad.decoder);
        let dx = self.encoder.backward(source, &dread, Some(&mut dstate), &mut encoder, &mut grad.encoder).to_owned();
        (loss, grad, dx, dstate)
    }
}

fn check_pair<S, E, D>(name: &str, pair: &Pair<E, D>)
where
    S: gradflow::author::State<f64>,
    E: Layer<Elem = f64, State = S>,
    D: Layer<Elem = f64, State = S>,
{
    for lengths in [false, true] {
        let task = Task { source: wave((SOURCE, BATCH, 3), 0.1), target: wave((TARGET, BATCH, 2), 0.7), lengths };
        let mut initial = pair.encoder.zero_state(BATCH);
        for i in 0..initial.count() {
            initial.tensor_mut(i).iter_mut().enumerate().for_each(|(k, value)| *value = 0.3 * (1.9 * k as f64).cos());
        }
        let (_, grad, dx, dinitial) = pair.gradients(&task, &initial);
        let what = |part: &str| format!("{name}{}: {part}", if lengths { ", lengths" } else { "" });
        check(&what("parameters"), pair, &grad, |pair| pair.gradients(&task, &initial).0);
        check(&what("source"), &task.source, &dx, |source| {
            let task = Task { source: source.clone(), target: task.target.clone(), ..task };
            pair.gradients(&task, &initial).0
        });
        check(&what("initial state"), &initial, &dinitial, |initial| pair.gradients(&task, initial).0);
        let encoder = (0..grad.encoder.count()).flat_map(|i| grad.encoder.values(i));
        assert!(encoder.fold(0.0, |sum, d| sum + d * d) > 0.0, "{name}: nothing flows back into the encoder");
    }
}

#[test]
fn the_gradient_of_the_decoders_start_flows_into_the_encoder() {
    let rng = &mut rng(1);
    let layers = 2;
    check_pair(
        "RNN",
        &Pair {
            encoder: Rnn::builder(3, 4).num_layers(layers).build(rng),
            decoder: Rnn::builder(2, 4).num_layers(layers).build(rng),
        },
    );
    check_pair(
        "LSTM",
        &Pair {
            encoder: Lstm::builder(3, 4).num_layers(layers).build(rng),
            decoder: Lstm::builder(2, 4).num_layers(layers).build(rng),
        },
    );
    check_pair(
        "GRU",
        &Pair {
            encoder: Gru::builder(3, 4).num_layers(layers).build(rng),
            decoder: Gru::builder(2, 4).num_layers(layers).build(rng),
        },
    );
    check_pair(
        "LSTM of all variants",
        &Pair {
            encoder: Lstm::builder(3, 4).peepholes().coupled().layer_norm().projection(3).zoneout(0.2, 0.1).build(rng),
            decoder: Lstm::builder(2, 4).peepholes().coupled().layer_norm().projection(3).zoneout(0.2, 0.1).build(rng),
        },
    );
    check_pair(
        "LSTM in both directions",
        &Pair {
            encoder: Lstm::builder(3, 4).bidirectional().build(rng),
            decoder: Lstm::builder(2, 4).bidirectional().build(rng),
        },
    );
}

/// With lengths, the decoder starts from the state after each source sequence's last valid step.
#[test]
fn padding_of_the_source_does_not_reach_the_decoder() {
    let rng = &mut rng(2);
    let pair = Pair { encoder: Lstm::builder(3, 4).build(rng), decoder: Lstm::builder(2, 4).build(rng) };
    let task = |junk: f64| {
        let mut task =
            Task { source: wave((SOURCE, BATCH, 3), 0.1), target: wave((TARGET, BATCH, 2), 0.7), lengths: true };
        for (b, &length) in SOURCE_LENGTHS.iter().enumerate() {
            task.source.slice_mut(s![length.., b, ..]).fill(junk);
        }
        task
    };
    let initial = pair.encoder.zero_state(BATCH);
    let (want, got) = (pair.gradients(&task(0.0), &initial), pair.gradients(&task(f64::NAN), &initial));
    assert_eq!(got.0.to_bits(), want.0.to_bits());
    assert_eq!(got.2, want.2);
    for i in 0..pair.count() {
        assert_eq!(got.1.values(i), want.1.values(i));
    }
}

/// A bidirectional encoder, whose reverse direction starts the decoder, with attention over its outputs, a head and a loss. Every
/// gradient is computed by hand and compared with the loss itself.
#[derive(Clone)]
struct Translator {
    embedding: Embedding<f64>,
    encoder: BiLstm<f64>,
    decoder: Lstm<f64>,
    attention: Attention<f64>,
    head: Linear<f64>,
}
parameters! { impl Tensors<f64> for Translator { embedding, encoder, decoder, attention, head } }

const WORDS: usize = 6;
const HIDDEN: usize = 3;

impl Translator {
    fn new(rng: &mut impl Rng) -> Self {
        let embedding = Embedding::new(WORDS, 2, rng);
        let encoder = Lstm::builder(2, HIDDEN).bidirectional().build(rng);
        let decoder = Lstm::builder(2, HIDDEN).build(rng);
        let attention = Attention::bilinear(HIDDEN, 2 * HIDDEN, rng);
        Translator { embedding, encoder, decoder, attention, head: Linear::new(3 * HIDDEN, WORDS, rng) }
    }

    fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.set_zero();
        zeros
    }

    fn gradients(&self, source: &Array2<usize>, target: &Array2<usize>) -> (f64, Self) {
        let source = Sequence::<f64>::from(source).with_lengths(&SOURCE_LENGTHS).unwrap();
        let inputs = target.slice(s![..TARGET, ..]);
        let input = Sequence::<f64>::from(inputs).with_lengths(&TARGET_LENGTHS).unwrap();
        let mut grad = self.zeros_like();
        let (mut embedded, mut inward) = (self.embedding.cache(), self.embedding.cache());
        let (mut encoder, mut decoder, mut attention, mut head) =
            (self.encoder.cache(), self.decoder.cache(), self.attention.cache(), self.head.cache());

        let read = source.with(self.embedding.forward(source, &mut (), &mut embedded));
        let mut final_state = self.encoder.zero_state(BATCH);
        let memory = source.with(self.encoder.forward(read, &mut final_state, &mut encoder));
        let part = |state: &Array3<f64>| state.slice(s![1.., .., ..]).to_owned(); // of the reverse direction
        let mut state = LstmState { h: part(&final_state.h), c: part(&final_state.c) };
        let spoken = input.with(self.embedding.forward(input, &mut (), &mut inward));
        let query = input.with(self.decoder.forward(spoken, &mut state, &mut decoder));
        let context = self.attention.forward(query, memory, &mut attention);
        let joined =
            gradflow::ndarray::concatenate![gradflow::ndarray::Axis(2), query.features("query", None), context];
        let joined = input.with(joined.view());
        let logits = self.head.forward(joined, &mut (), &mut head);
        let mut dlogits = Array3::zeros((0, 0, 0));
        let targets = target.slice(s![1.., ..]);
        let loss = evaluate(&SoftmaxCrossEntropy::new(), &logits, &targets, Some(&TARGET_LENGTHS), &mut dlogits);

        let djoined = self.head.backward(joined, &dlogits, None, &mut head, &mut grad.head).to_owned();
        let (dquery, dcontext) = djoined.view().split_at(gradflow::ndarray::Axis(2), HIDDEN);
        let (through, dmemory) = self.attention.backward(query, memory, &dcontext, &mut attention, &mut grad.attention);
        let (dquery, dmemory) = (&dquery + &through, dmemory.to_owned());
        let mut dstate = self.decoder.zero_state(BATCH);
        let dspoken =
            self.decoder.backward(spoken, &dquery, Some(&mut dstate), &mut decoder, &mut grad.decoder).to_owned();
        let mut dfinal = self.encoder.zero_state(BATCH);
        dfinal.h.slice_mut(s![1.., .., ..]).assign(&dstate.h);
        dfinal.c.slice_mut(s![1.., .., ..]).assign(&dstate.c);
        let dread =
            self.encoder.backward(read, &dmemory, Some(&mut dfinal), &mut encoder, &mut grad.encoder).to_owned();
        // One embedding serves both languages, so its gradients add up.
        self.embedding.backward(input, &dspoken, None, &mut inward, &mut grad.embedding);
        self.embedding.backward(source, &dread, None, &mut embedded, &mut grad.embedding);
        (loss, grad)
    }
}

#[test]
fn a_translator_with_attention_has_the_gradients_of_its_loss() {
    let translator = Translator::new(&mut rng(3));
    assert!(matches!(translator.attention.score, AttentionScore::Bilinear(_)));
    let source = Array2::from_shape_fn((SOURCE, BATCH), |(t, b)| (2 * t + b + 1) % WORDS);
    let target = Array2::from_shape_fn((TARGET + 1, BATCH), |(t, b)| (t + 3 * b) % WORDS);
    let (_, grad) = translator.gradients(&source, &target);
    check("encoder, attention, decoder, head", &translator, &grad, |translator| {
        translator.gradients(&source, &target).0
    });
}
