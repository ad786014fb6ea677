//! The encoder-decoder.

use gradflow::ndarray::{Array2, Array3, ArrayRef3, Axis, concatenate, s};
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow::{
    Causal, Layer, Sequence, TensorsExt,
    attention::Attention,
    author::{AttentionCache, Gradient},
    data,
    layers::{Activation, Embedding, Linear},
    loss::{Loss, SoftmaxCrossEntropy},
    metrics::argmax,
    parameters,
    recurrent::LstmCell,
};

use crate::data::Batch;
use crate::words::{DIGITS, END, SYMBOLS, VOCABULARY};

/// Features of a word or digit.
const EMBEDDING: usize = 16;

/// An embedding and an LSTM.
type Reader = (Embedding<f32>, LstmCell<f32>);

/// The architecture of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Units of the LSTMs.
    pub hidden: usize,
    /// Whether the decoder looks at all of the encoder's outputs.
    pub attention: bool,
    /// Whether the words are read from the last to the first.
    pub backwards: bool,
    /// The initial forget bias of both LSTMs.
    pub forget_bias: f64,
}

impl Shape {
    /// Widens a model without attention until it has at least the parameters of one with it.
    pub fn of_equal_size(self) -> Self {
        if self.attention {
            return self;
        }
        let parameters = |shape: Shape| Translator::new(shape, &mut StdRng::seed_from_u64(0)).element_count();
        let goal = parameters(Shape { attention: true, ..self });
        let mut wider = (self.hidden..).map(|hidden| Shape { hidden, ..self });
        wider.find(|&shape| parameters(shape) >= goal).expect("a wider one has more")
    }
}

/// Two LSTMs: the decoder starts from the encoder's last state, and writes a digit at a time.
///
/// ```text
/// m, state = encoder(words)       h = decoder(digits before, state)
/// c_t = Σ_s α_ts m_s              α_ts = softmax_s(h_tᵀ W m_s), with attention
/// logits_t = V tanh(U [h_t, c_t] + b) + d
/// ```
#[derive(Clone, Debug)]
pub struct Translator {
    shape: Shape,
    encoder: Reader,
    decoder: Reader,
    attention: Option<Attention<f32>>,
    head: (Linear<f32>, Activation<f32>, Linear<f32>),
}
parameters! { impl Tensors<f32> for Translator { encoder, decoder, attention, head; skip shape } }

/// Buffers of a [`Translator`].
#[derive(Default)]
pub struct Cache {
    encoder: <Reader as Layer>::Cache,
    decoder: <Reader as Layer>::Cache,
    attention: AttentionCache<f32>,
    head: <(Linear<f32>, Activation<f32>, Linear<f32>) as Layer>::Cache,
    cross_entropy: SoftmaxCrossEntropy<f32>,
}

/// A written answer.
pub struct Answer {
    /// The digits, without the end.
    pub digits: Vec<usize>,
    /// The attention weights, `[digits and end, words]`; without attention, no columns.
    pub looked_at: Array2<f32>,
}

impl Translator {
    pub fn new(shape: Shape, rng: &mut StdRng) -> Self {
        let Shape { hidden, attention, forget_bias, .. } = shape;
        let mut reader = |vocabulary: usize| {
            let cell = LstmCell::builder(EMBEDDING, hidden).forget_bias(forget_bias);
            (Embedding::new(vocabulary, EMBEDDING, rng), cell.build(rng))
        };
        let (encoder, decoder) = (reader(VOCABULARY), reader(SYMBOLS));
        let seen = if attention { 2 * hidden } else { hidden };
        Translator {
            shape,
            encoder,
            decoder,
            attention: attention.then(|| Attention::bilinear(hidden, hidden, rng)),
            head: (Linear::new(seen, hidden, rng), Activation::tanh(), Linear::new(hidden, SYMBOLS, rng)),
        }
    }

    /// A model whose parameters will be loaded.
    pub fn zeros(shape: Shape) -> Self {
        Self::new(shape, &mut StdRng::seed_from_u64(0)).zeros_like()
    }

    /// A gradient of zeros.
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.set_zero();
        zeros
    }

    fn source<'a>(&self, words: &'a data::Batch<f32, ()>) -> Sequence<'a, f32> {
        if self.shape.backwards { words.sequence().reversed() } else { words.sequence() }
    }

    /// The mean cross-entropy of the digits in nats, each predicted from the right ones before it; `grad` becomes its gradient.
    pub fn learn(&self, batch: &Batch, cache: &mut Cache, grad: &mut Self) -> f64 {
        let Cache { encoder, decoder, attention, head, cross_entropy } = cache;
        let (words, given) = (self.source(&batch.source), batch.answers.sequence());
        // The decoder starts from the encoder's last state.
        let mut state = self.encoder.zero_state(batch.source.count());
        let memory = self.encoder.forward(words, &mut state, encoder).to_owned();
        let memory_sequence = words.with(memory.view());
        let h = self.decoder.forward(given, &mut state, decoder).to_owned();
        let query = given.with(h.view());
        let seen = match &self.attention {
            Some(layer) => beside(&h, &layer.forward(query, memory_sequence, attention)),
            None => h.clone(),
        };
        let pass = self.head.pass(given.with(seen.view()), &mut ((), (), ()), head);
        let loss = cross_entropy.of(&pass, &batch.answers.targets);

        let dseen = pass.backward_into(loss.gradient(), &mut grad.head);
        let mut dh = dseen.slice(s![.., .., ..self.shape.hidden]).to_owned();
        let dmemory = match (&self.attention, &mut grad.attention) {
            (Some(layer), Some(grad)) => {
                let dcontext = dseen.slice(s![.., .., self.shape.hidden..]);
                let (dquery, dmemory) =
                    layer.backward(query, memory_sequence, &dcontext, attention, Gradient::overwrite(grad));
                dh += &dquery;
                dmemory.to_owned()
            }
            _ => Array3::zeros(memory.raw_dim()),
        };
        // The gradient of the decoder's first state is that of the encoder's last.
        let mut dstate = self.decoder.zero_state(batch.source.count());
        self.decoder.backward(given, &dh, Some(&mut dstate), decoder, Gradient::overwrite(&mut grad.decoder));
        self.encoder.backward(words, &dmemory, Some(&mut dstate), encoder, Gradient::overwrite(&mut grad.encoder));
        loss.value()
    }

    /// Writes the answers, each digit from those written before it.
    pub fn translate(&self, phrases: &data::Batch<f32, ()>) -> Vec<Answer> {
        let (mut cache, count) = (Cache::default(), phrases.count());
        let (words, mut state) = (self.source(phrases).infer(), self.encoder.zero_state(count));
        let memory = self.encoder.forward(words, &mut state, &mut cache.encoder).to_owned();
        let memory = words.with(memory.view());
        if let Some(layer) = &self.attention {
            layer.memorize(memory, &mut cache.attention);
        }
        let mut answers: Vec<(Vec<usize>, Vec<f32>)> = vec![Default::default(); count];
        let (mut symbols, mut ended) = (Array2::from_elem((1, count), END), vec![false; count]);
        for _ in 0..=DIGITS {
            let h = self.decoder.step(&symbols, &mut state, &mut cache.decoder).insert_axis(Axis(0)).to_owned();
            let seen = match &self.attention {
                Some(layer) => beside(&h, &layer.attend(Sequence::from(&h).infer(), memory, &mut cache.attention)),
                None => h,
            };
            let logits = self.head.step(&seen, &mut ((), (), ()), &mut cache.head);
            for (b, &best) in argmax(&logits).iter().enumerate() {
                if ended[b] {
                    continue;
                }
                symbols[[0, b]] = best;
                if self.attention.is_some() {
                    answers[b].1.extend(cache.attention.weights().slice(s![0, b, ..words.length(b)]));
                }
                ended[b] = best == END;
                if !ended[b] {
                    answers[b].0.push(best);
                }
            }
        }
        let answer = |(b, (digits, weights)): (usize, (Vec<usize>, Vec<f32>))| {
            let columns = if self.attention.is_some() { words.length(b) } else { 0 };
            let rows = weights.len().checked_div(columns).unwrap_or(0);
            let looked_at = Array2::from_shape_vec((rows, columns), weights).expect("a weight for every word");
            Answer { digits, looked_at }
        };
        answers.into_iter().enumerate().map(answer).collect()
    }
}

/// `[h, c]`
fn beside(h: &ArrayRef3<f32>, c: &ArrayRef3<f32>) -> Array3<f32> {
    concatenate(Axis(2), &[h.view(), c.view()]).expect("as many steps and sequences")
}
