//! gradflow's character language model on several ranks: the loss curve has the same bits for any number of them.
//!
//! ```text
//! cargo build --release --example char_lm
//! mpirun -n 2 target/release/examples/char_lm --help
//! ```
//!
//! An embedding, an LSTM and a linear layer learn gradflow's own text by truncated backpropagation through time. A batch of 32 places
//! of the text is cut into 8 shards, each of which carries its state on. Rank 0 prints, and writes the curve and the checkpoints. Any
//! number of ranks can continue a training.

#[path = "../../examples/char_lm/corpus.rs"]
#[allow(dead_code)] // the other example uses the rest
mod corpus;

use std::f64::consts::LN_2;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use gradflow::io::{Checkpoint, LoadError};
use gradflow::metrics::Perplexity;
use gradflow::ndarray::{Array1, Axis};
use gradflow::optim::Schedule;
use gradflow::prelude::*;
use gradflow::rand::{SeedableRng, rngs::StdRng};
use gradflow_mpi::{Options, RankError, Ranks, Reduction, Wire, run};
use lexopt::prelude::*;

use corpus::{Corpus, IGNORED, Readers};

const TEXT: &str = include_str!("../../examples/data/text.txt");

/// Number of pieces of the validation text that are read side by side.
const LANES: usize = 32;

const HELP: &str = "\
Trains a character LSTM on gradflow's own text, on the ranks that mpirun starts.

  mpirun -n 2 char_lm [flags]

  --steps N         updates (3000)
  --hidden N        units of the LSTM (256)
  --batch N         sequences side by side (32)
  --bptt N          steps that a gradient goes back (64)
  --shards N        parts of a batch, a power of two (8); they decide the bits
  --lr X            highest learning rate (0.007)
  --seed N          of the weights (0)
  --all-reduce      sums by MPI's own all-reduce, which gives no promise of the same bits
  --bf16            gradients travel in 16 bits
  --curve FILE      writes the losses, one update a line, in all their digits
  --save FILE       writes a checkpoint at the end
  --resume FILE     goes on from a checkpoint, saved with the same flags but --steps
  --stop N          ends after update N of the schedule
  --quick           --steps 200 --hidden 64, unless given after it
";

struct Settings {
    updates: usize,
    hidden: usize,
    batch: usize,
    bptt: usize,
    learning_rate: f64,
    seed: u64,
    stop: usize,
    curve: Option<PathBuf>,
    save: Option<PathBuf>,
    resume: Option<PathBuf>,
    options: Options,
}

impl Settings {
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut settings = Settings {
            updates: 3000,
            hidden: 256,
            batch: 32,
            bptt: 64,
            learning_rate: 7e-3,
            seed: 0,
            stop: usize::MAX,
            curve: None,
            save: None,
            resume: None,
            options: Options::new(),
        };
        let parser = &mut lexopt::Parser::from_env();
        while let Some(flag) = parser.next()? {
            match flag {
                Long("steps") => settings.updates = number(parser, 1)?,
                Long("hidden") => settings.hidden = number(parser, 1)?,
                Long("batch") => settings.batch = number(parser, 1)?,
                Long("bptt") => settings.bptt = number(parser, 1)?,
                Long("shards") => {
                    let shards: usize = number(parser, 1)?;
                    if !shards.is_power_of_two() {
                        return Err(format!("--shards: expected a power of two, got {shards}").into());
                    }
                    settings.options = settings.options.shards(shards);
                }
                Long("lr") => settings.learning_rate = parser.value()?.parse()?,
                Long("seed") => settings.seed = number(parser, 0)?,
                Long("all-reduce") => settings.options = settings.options.reduction(Reduction::AllReduce),
                Long("bf16") => settings.options = settings.options.wire(Wire::Bf16),
                Long("curve") => settings.curve = Some(parser.value()?.into()),
                Long("save") => settings.save = Some(parser.value()?.into()),
                Long("resume") => settings.resume = Some(parser.value()?.into()),
                Long("stop") => settings.stop = number(parser, 1)?,
                Long("quick") => (settings.updates, settings.hidden) = (200, 64),
                Long("help") | Short('h') => return Ok(None),
                unexpected => return Err(unexpected.unexpected()),
            }
        }
        Ok(Some(settings))
    }
}

fn number<N: FromStr + PartialOrd>(parser: &mut lexopt::Parser, least: N) -> Result<N, lexopt::Error>
where
    N::Err: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let number: N = parser.value()?.parse()?;
    if number < least { Err("a number is too small".into()) } else { Ok(number) }
}

sequential! {
    /// Logits of the next character.
    #[derive(Clone, Debug)]
    struct CharLm: Layer<f32> {
        embedding: Embedding<f32>,
        lstm: Lstm<f32>,
        head: Linear<f32>,
    }
}

fn main() -> ExitCode {
    match Settings::parse() {
        Ok(Some(settings)) => run(settings.options, |ranks| train(ranks, &settings)),
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error} (--help lists all flags)");
            ExitCode::from(2)
        }
    }
}

fn train(ranks: &Ranks, settings: &Settings) -> Result<(), RankError> {
    let Settings { updates, hidden, batch, bptt, learning_rate, .. } = *settings;
    let corpus = ranks.agree(Corpus::new(TEXT))?;
    let rng = &mut StdRng::seed_from_u64(settings.seed);
    let mut model = CharLm {
        embedding: Embedding::new(corpus.classes(), 48, rng),
        lstm: Lstm::new(48, hidden, rng),
        head: Linear::new(hidden, corpus.classes(), rng),
    };
    let warm_up = (updates as u64 / 20).max(1);
    let schedule = Schedule::cosine(learning_rate, (updates as u64 - warm_up).max(1), 0.0);
    let schedule = schedule.warm_up(warm_up, 0.5 / warm_up as f64);
    let (mut optimizer, mut cross_entropy) = (AdamW::new(learning_rate).weight_decay(0.1), SoftmaxCrossEntropy::new());
    let (mut cache, mut grad) = (model.cache(), model.zeros_like());
    let mut states = ranks.zero_states(&model, batch);
    let mut readers = Readers::new(corpus.train(), bptt, batch);
    let mut losses = Vec::new();
    if let Some(path) = &settings.resume {
        let checkpoint = ranks.open(path)?;
        let loaded = (|| {
            checkpoint.load_training("model", &mut model, &mut optimizer)?;
            let mut whole = model.zero_state(batch);
            checkpoint.load_tensors("state", &mut whole)?;
            for shard in ranks.shards(batch) {
                states[shard.place()] = model.select_state(&whole, &shard.sequences().collect::<Vec<_>>());
            }
            readers.go_to(checkpoint.number("place")? as usize);
            let mut curve = Array1::<f64>::zeros(checkpoint.number("updates")? as usize);
            checkpoint.load_tensors("curve", &mut curve)?;
            losses = curve.to_vec();
            Ok::<_, LoadError>(())
        })();
        ranks.agree(loaded)?;
    } else {
        ranks.broadcast_training(&mut model, &mut optimizer)?;
    }
    if ranks.is_first() {
        let (count, parameters) = (ranks.count(), model.element_count());
        let shards = settings.options.shards_of_a_batch();
        println!(
            "ranks: {count}; {batch} sequences in {shards} shards; LSTM, {parameters} parameters; {updates} updates"
        );
    }

    let mut sum = ranks.tree_sum(&model);
    let (clock, before) = (Instant::now(), losses.len());
    for update in losses.len()..updates.min(settings.stop) {
        let (ids, targets) = readers.read();
        for shard in ranks.shards(batch) {
            let targets = shard.part(&targets);
            let pass = model.pass(shard.of(ids), &mut states[shard.place()], &mut cache);
            let weight = cross_entropy.weight((&pass).into(), &targets);
            let loss = cross_entropy.of(&pass, &targets);
            let nats = loss.value();
            pass.backward_into(loss.gradient(), &mut grad);
            sum.add(&shard, &grad, nats, weight);
        }
        let nats = sum.mean(&mut grad);
        optimizer.set_learning_rate(schedule.learning_rate(update as u64));
        ranks.agree(optimizer.step_clipped(&mut model, &grad, ClipNorm::new(1.0)))?;
        losses.push(nats);
        if losses.len() % updates.div_ceil(12) == 0 || losses.len() == updates {
            let validation = validate(ranks, &model, &corpus);
            if ranks.is_first() {
                let (done, bits) = (losses.len(), nats / LN_2);
                let speed = ((done - before) * batch * bptt) as f64 / clock.elapsed().as_secs_f64();
                println!("update {done:5}: {bits:.3} bits, validation {validation:.3} bits, {speed:.0} chars/s");
            }
        }
    }
    ranks.check_equal(&model)?;

    if let Some(path) = &settings.save {
        let state = ranks.gather_states(&model, batch, &states);
        ranks.save(path, || {
            Checkpoint::new()
                .with_tensors("model", &model)
                .with_tensors("state", &state)
                .with_tensors("curve", &Array1::from_vec(losses.clone()))
                .with_optimizer(&optimizer)
                .with_number("updates", losses.len() as u64)
                .with_number("place", readers.place() as u64)
        })?;
    }
    let written = match &settings.curve {
        Some(path) if ranks.is_first() => {
            let mut text = String::from("update,nats\n");
            losses.iter().enumerate().for_each(|(k, nats)| writeln!(text, "{},{nats}", k + 1).expect("memory"));
            std::fs::write(path, text)
        }
        _ => Ok(()),
    };
    ranks.agree(written)
}

/// Bits per character of the validation text; each rank reads the lanes of its own shards.
fn validate(ranks: &Ranks, model: &CharLm, corpus: &Corpus) -> f64 {
    let (ids, targets) = corpus.lanes(LANES);
    let (mut all, mut cache) = (Perplexity::new().ignore(IGNORED), model.cache());
    let mut sum = ranks.tree_sum(&all);
    for shard in ranks.shards(LANES) {
        let (mut state, mut own) = (model.zero_state(shard.count()), Perplexity::new().ignore(IGNORED));
        for (ids, targets) in ids.axis_chunks_iter(Axis(0), 64).zip(targets.axis_chunks_iter(Axis(0), 64)) {
            let x = shard.of::<f32>(ids).infer();
            own.add(model.forward(x, &mut state, &mut cache), &shard.part(&targets));
        }
        sum.add(&shard, &own, 0.0, 1.0);
    }
    sum.sum(&mut all);
    all.bits()
}
