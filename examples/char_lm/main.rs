//! A character language model: embedding, recurrent cell, linear layer; trained by truncated backpropagation through
//! time with a carried state, and compared with n-grams on text that none of them has seen.
//!
//! ```text
//! cargo run --release --example char_lm -- --help
//! ```

#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod curve;
mod ngram;
mod settings;

use std::f64::consts::{LN_2, PI};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use gradflow::ndarray::{Array3, ArrayView1, Axis, arr2};
use gradflow::rand::distr::{Distribution, weighted::WeightedIndex};
use gradflow::rand::{Rng, SeedableRng, rngs::StdRng};
use gradflow::{
    AdamW, BoxLayer, Causal, Embedding, GruCell, Layer, Linear, LstmCell, Optimizer, RnnCell, Sequence,
    SoftmaxCrossEntropy, TensorsExt, clip_grad_norm, sequential,
};

use common::{Failure, Output, Progress};
use corpus::{Corpus, IGNORED, Readers};
use curve::Curve;
use ngram::Ngram;
use settings::{Cell, Settings, Training};

/// A frozen snapshot of this crate's own text: see `examples/data/make_text.py`.
const SNAPSHOT: &str = include_str!("../data/text.txt");

/// How often the model is validated while it trains.
const VALIDATIONS: usize = 12;

/// How many pieces of the validation text are read side by side.
const LANES: usize = 32;

sequential! {
    /// Logits of the next character.
    #[derive(Clone, Debug)]
    pub struct CharLm: Layer<f32> {
        /// `[V, E]`
        pub embedding: Embedding<f32>,
        /// E features to H
        pub cell: BoxLayer<f32>,
        /// `[V, H]`
        pub head: Linear<f32>,
    }
}

impl CharLm {
    fn new(classes: usize, training: &Training, rng: &mut impl Rng) -> Self {
        let (embedding, hidden) = (training.embedding, training.hidden);
        CharLm {
            embedding: Embedding::new(classes, embedding, rng),
            cell: match training.cell {
                Cell::Rnn => BoxLayer::new(RnnCell::new(embedding, hidden, rng)),
                Cell::Gru => BoxLayer::new(GruCell::new(embedding, hidden, rng)),
                Cell::Lstm => BoxLayer::new(LstmCell::new(embedding, hidden, rng)),
            },
            head: Linear::new(hidden, classes, rng),
        }
    }
}

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let Some(settings) = Settings::from_env()? else {
        print!("{}", settings::HELP);
        return Ok(());
    };
    let Settings { training, temperature, sample, out } = &settings;
    let corpus = read(training.text.as_deref())?;
    let picture = Output::create(out, "char_lm.svg")?;
    let mut stdout = io::stdout();

    let (classes, validation) = (corpus.classes(), corpus.validation());
    writeln!(stdout, "text: {} characters to train on, {} to validate", corpus.train().len(), validation.len())?;
    writeln!(stdout, "      {classes} classes, <unknown> included: {} of the latter", corpus.unknown())?;
    let rng = &mut StdRng::seed_from_u64(training.seed);
    let mut model = CharLm::new(classes, training, rng);
    let (cell, parameters) = (training.cell.name(), model.element_count());
    writeln!(stdout, "model: {cell}, {parameters} parameters; {} updates", training.updates)?;

    let clock = Instant::now();
    let curve = train(&mut model, training, &corpus)?;
    let seconds = clock.elapsed().as_secs_f64();

    let [unigram, trigram] = [1, 3].map(|order| Ngram::fit(corpus.train(), classes, order));
    let [unigram_bits, trigram_bits] = [&unigram, &trigram].map(|ngram| ngram.bits(corpus.ids(), validation.clone()));
    let bits = curve.last_validation();
    if !bits.is_finite() {
        return Err(Failure::Run("training diverged: the validation loss is not finite".into()));
    }
    let path = picture.write(&curve.svg(cell, unigram_bits, trigram_bits)?)?;

    let prompt = &corpus.train()[corpus.train().len() - 100..];
    writeln!(stdout, "\nThe training text, continued at temperature {temperature}:\n")?;
    speak(&model, prompt, *sample, *temperature, rng, |id| {
        write!(stdout, "{}", corpus.character(id))?;
        stdout.flush()
    })?;

    writeln!(stdout, "\n\nbits per character of the {} validation characters:", validation.len())?;
    writeln!(stdout, "  unigram {unigram_bits:>6.3}")?;
    writeln!(stdout, "  trigram {trigram_bits:>6.3}   discounts {:?}", trigram.discounts())?;
    writeln!(stdout, "  {cell:<7} {bits:>6.3}   after {seconds:.0} s")?;
    writeln!(stdout, "picture: {}", path.display())?;

    if bits < trigram_bits {
        Ok(())
    } else if *training != Training::default() {
        Ok(writeln!(stdout, "With these settings the {cell} is not below the trigram.")?)
    } else {
        Err(Failure::Run(format!("the {cell} ends at {bits:.3}, not below the trigram's {trigram_bits:.3}")))
    }
}

/// The corpus of a file; without one, of the snapshot.
fn read(path: Option<&Path>) -> Result<Corpus, Failure> {
    let Some(path) = path else { return Ok(Corpus::new(SNAPSHOT).expect("the snapshot is long enough")) };
    Corpus::new(&common::read_text(path)?).map_err(|error| Failure::Run(format!("{}: {error}", path.display())))
}

/// Trains the model and returns how it went.
fn train(model: &mut CharLm, training: &Training, corpus: &Corpus) -> Result<Curve, Failure> {
    let Training { batch, bptt, updates, learning_rate, clip, .. } = *training;
    let mut curve = Curve::new(batch * bptt);
    let (progress, clock) = (Progress::new(updates), Instant::now());

    let mut readers = Readers::new(corpus.train(), bptt, batch);
    let (mut state, mut cache, mut grad) = (model.zero_state(batch), model.cache(), model.zeros_like());
    let (loss, mut dlogits) = (SoftmaxCrossEntropy::new(), Array3::default((0, 0, 0)));
    let mut optimizer = AdamW::new(learning_rate).weight_decay(0.1);
    for update in 0..updates {
        // The state goes on from batch to batch; the gradient goes back as far as this batch.
        let (ids, targets) = readers.read();
        let pass = model.pass(ids, &mut state, &mut cache);
        let nats = loss.evaluate(&pass.output(), &targets, None, &mut dlogits);
        grad.set_zero();
        pass.backward(&dlogits, &mut grad);
        let norm = clip_grad_norm(&mut grad, clip)?;
        optimizer.set_learning_rate(learning_rate * schedule(update, updates));
        optimizer.step(model, &grad);

        curve.trained(nats / LN_2);
        if update + 1 == updates || (update + 1) % updates.div_ceil(VALIDATIONS) == 0 {
            curve.validated(validate(model, corpus));
        }
        let speed = curve.characters() / clock.elapsed().as_secs_f64();
        progress.step(format!("loss {nats:.3}  {}  |g| {norm:.2}  {speed:.0} chars/s", curve));
    }
    progress.finish();
    Ok(curve)
}

/// The learning rate, as a fraction of the highest: up in a line over the first twentieth, then down along a cosine.
fn schedule(update: usize, updates: usize) -> f64 {
    let done = (update as f64 + 0.5) / updates as f64;
    (done / 0.05).min(0.5 + 0.5 * (PI * done).cos())
}

/// Bits per character of the validation text.
fn validate(model: &CharLm, corpus: &Corpus) -> f64 {
    let (ids, targets) = corpus.lanes(LANES);
    let (mut state, mut cache) = (model.zero_state(LANES), model.cache());
    let (loss, mut dlogits) = (SoftmaxCrossEntropy::new().ignore(IGNORED).sum(), Array3::default((0, 0, 0)));
    let windows = ids.axis_chunks_iter(Axis(0), 64).zip(targets.axis_chunks_iter(Axis(0), 64));
    let nats = windows.map(|(ids, targets)| {
        let logits = model.forward(Sequence::from(ids).infer(), &mut state, &mut cache);
        loss.evaluate(&logits, &targets, None, &mut dlogits)
    });
    nats.sum::<f64>() / corpus.validation().len() as f64 / LN_2
}

/// Reads `prompt`, then says `count` characters, each drawn from what the model expects after those before it.
fn speak(
    model: &CharLm,
    prompt: &[usize],
    count: usize,
    temperature: f64,
    rng: &mut impl Rng,
    mut say: impl FnMut(usize) -> io::Result<()>,
) -> io::Result<()> {
    let (mut state, mut cache) = (model.zero_state(1), model.cache());
    let (&last, before) = prompt.split_last().expect("a prompt");
    for &id in before {
        model.step(&arr2(&[[id]]), &mut state, &mut cache);
    }
    let mut id = last;
    for _ in 0..count {
        let logits = model.step(&arr2(&[[id]]), &mut state, &mut cache);
        id = draw(logits.row(0), temperature, rng);
        say(id)?;
    }
    Ok(())
}

/// A class drawn with the probabilities softmax(logits / temperature).
fn draw(logits: ArrayView1<'_, f32>, temperature: f64, rng: &mut impl Rng) -> usize {
    let largest = logits.fold(f32::NEG_INFINITY, |largest, &z| largest.max(z));
    let weights = logits.iter().map(|&z| (f64::from(z - largest) / temperature).exp());
    WeightedIndex::new(weights).expect("finite logits, of which the largest weighs 1").sample(rng)
}
