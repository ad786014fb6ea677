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
mod flow;
mod ngram;
mod run;
mod settings;

use std::f64::consts::LN_2;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use gradflow::ndarray::{ArrayView1, Axis, arr2, s};
use gradflow::rand::distr::{Distribution, weighted::WeightedIndex};
use gradflow::rand::{Rng, SeedableRng, rngs::StdRng};
use gradflow::{
    Causal, Layer, Sequence, TensorsExt, ZerosLike,
    clip::ClipNorm,
    compose::BoxLayer,
    layers::{Embedding, Linear},
    loss::{Loss, SoftmaxCrossEntropy},
    metrics::Perplexity,
    optim::Optimizer,
    recurrent::{GruCell, LstmCell, RnnCell},
    sequential,
    wrap::{GradientProbe, Prepacked, Probed, WeightPrecision},
};

use common::{Failure, Interrupt, Output, Progress};
use corpus::{Corpus, IGNORED};
use flow::Flow;
use ngram::Ngram;
use run::Run;
use settings::{Cell, Settings, Start, Training};

/// A frozen snapshot of this crate's own text: see `examples/data/make_text.py`.
const SNAPSHOT: &str = include_str!("../data/text.txt");

/// How often the model is validated while it trains.
const VALIDATIONS: usize = 12;

/// The number of pieces of the validation text that are read in parallel.
const LANES: usize = 32;

/// Weights in fewer bits, and by how much each may change the bits per character.
const REDUCED: [(WeightPrecision, f64); 3] =
    [(WeightPrecision::Bf16, 0.001), (WeightPrecision::Int8, 0.01), (WeightPrecision::Int8Dynamic, 0.01)];

/// How many steps a gradient is followed back at the end: at most those before the validation text's lanes.
const FLOW_STEPS: usize = 64;

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
    fn new(classes: usize, training: &Training, probe: &GradientProbe, rng: &mut impl Rng) -> Self {
        let (embedding, hidden) = (training.embedding, training.hidden);
        CharLm {
            embedding: Embedding::new(classes, embedding, rng),
            cell: match training.cell {
                Cell::Rnn => BoxLayer::new(Probed::recurrent("cell", RnnCell::new(embedding, hidden, rng), probe)),
                Cell::Gru => BoxLayer::new(Probed::recurrent("cell", GruCell::new(embedding, hidden, rng), probe)),
                Cell::Lstm => BoxLayer::new(Probed::recurrent("cell", LstmCell::new(embedding, hidden, rng), probe)),
            },
            head: Linear::new(hidden, classes, rng),
        }
    }
}

fn main() -> ExitCode {
    common::finish(run())
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let Some(mut settings) = Settings::parse(arguments.clone())? else {
        print!("{}", settings::HELP);
        return Ok(());
    };
    let checkpoint = match settings.start.clone() {
        Start::Fresh => None,
        Start::Resume(path) | Start::SampleOnly(path) => {
            let (checkpoint, saved) = run::open(&path)?;
            settings = continued(&saved, arguments, &path)?;
            Some((checkpoint, path))
        }
    };
    let Settings { training, temperature, sample, out, save, start, .. } = &settings;
    let corpus = read(training.text.as_deref())?;
    let mut stdout = io::stdout();

    let (classes, validation) = (corpus.classes(), corpus.validation());
    writeln!(stdout, "text: {} characters to train on, {} to validate", corpus.train().len(), validation.len())?;
    writeln!(stdout, "      {classes} classes, <unknown> included: {} of the latter", corpus.unknown())?;
    let rng = &mut StdRng::seed_from_u64(training.seed);
    let probe = GradientProbe::new();
    let mut run = Run::new(&corpus, training, &probe, rng);
    let (cell, parameters) = (training.cell.name(), run.model.element_count());
    if let Some((checkpoint, path)) = &checkpoint {
        let loaded = match start {
            Start::SampleOnly(_) => run.load_model(checkpoint),
            _ => run.resume(checkpoint),
        };
        loaded.map_err(|misfit| misfit.of(path))?;
    }
    let prompt = &corpus.train()[corpus.train().len() - 100..];
    let mut sample = |model: &CharLm| {
        writeln!(io::stdout(), "\nThe training text, continued at temperature {temperature}:\n")?;
        speak(model, prompt, *sample, *temperature, rng, |id| {
            write!(io::stdout(), "{}", corpus.character(id))?;
            io::stdout().flush()
        })?;
        writeln!(io::stdout())
    };
    if let Start::SampleOnly(_) = start {
        writeln!(stdout, "model: {cell}, {parameters} parameters")?;
        return Ok(sample(&run.model)?);
    }
    let picture = Output::create(out, "char_lm.svg")?;
    let flow_picture = Output::create(out, "char_lm_flow.svg")?;
    save.as_deref().map_or(Ok(()), run::check_writable)?;
    let before = match run.updates() {
        0 => String::new(),
        done => format!(", {done} of them done"),
    };
    writeln!(stdout, "model: {cell}, {parameters} parameters; {} updates{before}", training.updates)?;

    let clock = Instant::now();
    train(&mut run, &settings)?;
    let Run { model, curve, .. } = &run;
    let seconds = clock.elapsed().as_secs_f64();

    let [unigram, trigram] = [1, 3].map(|order| Ngram::fit(corpus.train(), classes, order));
    let [unigram_bits, trigram_bits] = [&unigram, &trigram].map(|ngram| ngram.bits(corpus.ids(), validation.clone()));
    let bits = curve.last_validation();
    if !bits.is_finite() {
        return Err(Failure::Run("training diverged: the validation loss is not finite".into()));
    }
    let path = picture.write(&curve.svg(cell, unigram_bits, trigram_bits)?)?;
    let flow = gradient_flow(model, &corpus, &probe);
    let flow_path = flow_picture.write(&flow.svg(cell)?)?;

    sample(model)?;
    writeln!(stdout, "\nbits per character of the {} validation characters:", validation.len())?;
    writeln!(stdout, "  unigram {unigram_bits:>6.3}")?;
    writeln!(stdout, "  trigram {trigram_bits:>6.3}   discounts {:?}", trigram.discounts())?;
    writeln!(stdout, "  {cell:<7} {bits:>6.3}   after {seconds:.0} s")?;
    let mut worse = Vec::new();
    for (precision, most) in REDUCED {
        let change = validate(&Prepacked::with_precision(model.clone(), precision), &corpus) - bits;
        writeln!(stdout, "  {change:>+14.5}   with weights in {precision:?}, at most {most}")?;
        if change.is_nan() || change.abs() > most {
            worse.push(format!("{precision:?} changes the bits per character by {change:+.5}, more than {most}"));
        }
    }
    writeln!(stdout, "norm of the gradient of the last step's loss, in nats, by the distance from there in steps:")?;
    writeln!(stdout, "{}", flow.table())?;
    writeln!(stdout, "pictures: {}, {}", path.display(), flow_path.display())?;

    if !worse.is_empty() {
        return Err(Failure::Run(worse.join("; ")));
    }
    if bits < trigram_bits {
        Ok(())
    } else if *training != (Training { seed: training.seed, ..Training::default() }) {
        Ok(writeln!(stdout, "With these settings the {cell} is not below the trigram.")?)
    } else {
        Err(Failure::Run(format!("the {cell} ends at {bits:.3}, not below the trigram's {trigram_bits:.3}")))
    }
}

/// The settings of a checkpoint, with flags that may repeat them but not change them. If only a sample is written, the seed may
/// differ.
fn continued(saved: &str, arguments: Vec<OsString>, path: &Path) -> Result<Settings, Failure> {
    let saved: Vec<OsString> = saved.lines().map(Into::into).collect();
    let (Some(before), Some(now)) = (Settings::parse(saved.clone())?, Settings::parse([saved, arguments].concat())?)
    else {
        unreachable!("neither asks for help")
    };
    let mut compared = now.training.clone();
    if let Start::SampleOnly(_) = now.start {
        compared.seed = before.training.seed;
    }
    match compared.difference(&before.training) {
        Some(difference) => Err(Failure::Run(format!("{}: {difference}", path.display()))),
        None => Ok(now),
    }
}

/// The corpus of a file, or of the snapshot if there is no path.
fn read(path: Option<&Path>) -> Result<Corpus, Failure> {
    let Some(path) = path else { return Ok(Corpus::new(SNAPSHOT).expect("the snapshot is long enough")) };
    Corpus::new(&common::read_text(path)?).map_err(|error| Failure::Run(format!("{}: {error}", path.display())))
}

/// Trains the model to the end of its schedule, or to Ctrl-C.
fn train(run: &mut Run<'_>, settings: &Settings) -> Result<(), Failure> {
    let Settings { training: Training { updates, clip, .. }, save, save_every, .. } = settings;
    let (updates, interrupt) = (*updates, Interrupt::listen()?);
    let (progress, clock) = (Progress::new(updates).resumed(run.updates()), Instant::now());
    let seen = run.curve.characters();

    let (mut cache, mut grad) = (run.model.cache(), run.model.zeros_like());
    let mut cross_entropy = SoftmaxCrossEntropy::new();
    for update in run.updates()..updates {
        // The state is carried from batch to batch; the gradient goes back to the start of this batch.
        let (ids, targets) = run.readers.read();
        let pass = run.model.pass(ids, &mut run.state, &mut cache);
        let loss = cross_entropy.of(&pass, &targets);
        let nats = loss.value();
        pass.backward_into(loss.gradient(), &mut grad);
        run.optimizer.set_learning_rate(run.schedule.learning_rate(update as u64));
        let norm = run.optimizer.step_clipped(&mut run.model, &grad, ClipNorm::new(*clip))?.norm;

        run.curve.trained(nats / LN_2);
        let (done, interrupted) = (update + 1, interrupt.came());
        if done == updates || done % updates.div_ceil(VALIDATIONS) == 0 {
            run.curve.validated(validate(&run.model, run.corpus));
        }
        let speed = (run.curve.characters() - seen) / clock.elapsed().as_secs_f64();
        progress.step(format!("loss {nats:.3}  {}  |g| {norm:.2}  {speed:.0} chars/s", run.curve));
        if let Some(path) = save.as_deref().filter(|_| interrupted || done == updates || done % save_every == 0) {
            run.save(path)?;
        }
        if interrupted {
            progress.finish();
            let kept = match save {
                Some(path) => format!("saved to {}", path.display()),
                None => "nothing was saved, for want of --save".into(),
            };
            return Err(Failure::Interrupted(format!("interrupted after update {done} of {updates}: {kept}")));
        }
    }
    progress.finish();
    Ok(())
}

/// Bits per character of the validation text.
fn validate(model: &impl Layer<Elem = f32>, corpus: &Corpus) -> f64 {
    let (ids, targets) = corpus.lanes(LANES);
    let (mut state, mut cache) = (model.zero_state(LANES), model.cache());
    let mut perplexity = Perplexity::new().ignore(IGNORED);
    for (ids, targets) in ids.axis_chunks_iter(Axis(0), 64).zip(targets.axis_chunks_iter(Axis(0), 64)) {
        perplexity.add(model.forward(Sequence::from(ids).infer(), &mut state, &mut cache), &targets);
    }
    perplexity.bits()
}

/// How the gradient of one step's loss, at the end of a piece of the validation text, fades on its way back.
fn gradient_flow(model: &CharLm, corpus: &Corpus, probe: &GradientProbe) -> Flow {
    let (ids, mut targets) = corpus.lanes(LANES);
    let (before, piece) = ids.view().split_at(Axis(0), ids.nrows() - FLOW_STEPS);
    let (mut state, mut cache, mut grad) = (model.zero_state(LANES), model.cache(), model.zeros_like());
    if !before.is_empty() {
        model.forward(Sequence::from(before).infer(), &mut state, &mut cache);
    }

    let mut cross_entropy = SoftmaxCrossEntropy::new().ignore(IGNORED);
    let mut targets = targets.slice_mut(s![-(FLOW_STEPS as isize).., ..]);
    targets.slice_mut(s![..-1, ..]).fill(IGNORED);
    let pass = model.pass(piece, &mut state, &mut cache);
    let loss = cross_entropy.of(&pass, &targets);
    probe.record(true);
    pass.backward(loss.gradient(), &mut grad);
    probe.record(false);
    Flow::new(probe.flow().get("cell").expect("the model's cell is probed"))
}

/// Reads `prompt`, then says `count` characters, each drawn from the model's prediction after those before it.
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
