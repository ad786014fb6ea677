//! Trainings on a task that generates its sequences as they are needed: how many must a model see until it makes no mistake?
//!
//! Shared by `adding_problem` and `temporal_order`, after Hochreiter and Schmidhuber 1997, and `copy_memory`. All models of a seed see the
//! same sequences in the same order, with the same clipping and the same budget. Training ends when a check is passed
//! or the budget is used up; whether it succeeded is decided once, by sequences that neither training nor any check has
//! seen.

use std::ops::{Deref, Range};

use gradflow::ndarray::{Array3, ArrayView3};
use gradflow::rand::{Rng, SeedableRng, rngs::StdRng};
use gradflow::{
    Layer, Sequence, TensorsExt, ZerosLike,
    clip::ClipNorm,
    compose::BoxLayer,
    layers::Linear,
    loss::Loss,
    optim::{Adam, Optimizer},
};

use crate::common::picture::Line;
use crate::common::{Cell, Progress, in_parallel};

/// A batch of sequences with targets at their ends: one of each sequence, or the last ten in `copy_memory`.
pub struct Batch<T> {
    /// `[T, B, I]`
    pub x: Array3<f32>,
    /// `[B]`, the longest first: at every step, the sequences that have not ended are adjacent.
    pub lengths: Vec<usize>,
    /// What stands at the sequences' ends; elsewhere, what the loss ignores.
    pub targets: T,
}

impl<T> Batch<T> {
    /// The input of a model.
    pub fn sequence(&self) -> Sequence<'_, f32> {
        let x = Sequence::from(&self.x).constant();
        x.with_lengths(&self.lengths).expect("one length within the steps for every sequence")
    }
}

/// A task to learn.
pub trait Task: Copy + Send + Sync {
    /// The targets of a batch.
    type Targets: Deref<Target = <Self::Loss as Loss<f32>>::Targets>;

    /// The error that training minimises.
    type Loss: Loss<f32>;

    /// The number of features of a step.
    const INPUTS: usize;

    /// The name of the task.
    fn name(&self) -> String;

    /// The number of outputs of a model.
    fn outputs(&self) -> usize;

    /// `count` sequences that were never seen before.
    fn draw(&self, count: usize, rng: &mut impl Rng) -> Batch<Self::Targets>;

    /// The mean error of the outputs at the sequences' ends.
    fn loss(&self) -> Self::Loss;

    /// How many of the sequences have an output that is off by more than `share` of the tolerance.
    fn wrong(&self, y: &ArrayView3<'_, f32>, batch: &Batch<Self::Targets>, share: f32) -> usize;
}

/// A recurrent layer of `hidden` units and a linear one, trained by Adam.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    pub cell: Cell,
    pub hidden: usize,
    pub learning_rate: f64,
}

type Net = (BoxLayer<f32>, Linear<f32>);

impl Model {
    /// The same cell with several learning rates.
    pub fn grid(cell: Cell, hidden: usize, learning_rates: &[f64]) -> Vec<Model> {
        learning_rates.iter().map(|&learning_rate| Model { cell, hidden, learning_rate }).collect()
    }

    fn build<T: Task>(&self, task: &T, rng: &mut impl Rng) -> Net {
        let cell = self.cell.build(T::INPUTS, self.hidden, rng);
        (cell, Linear::new(self.hidden, task.outputs(), rng))
    }

    /// Its initialisation and learning rate.
    fn setting(&self) -> String {
        format!("{}; rate {}", self.cell, self.learning_rate)
    }
}

/// The settings that all trainings of a comparison have in common.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Sequences of an update.
    pub batch: usize,
    /// Sequences between two checks.
    pub check_every: usize,
    /// Sequences after which a training is given up.
    pub budget: usize,
    /// The largest norm of a gradient.
    pub clip: f64,
}

/// The new sequences that must all be right for a check to pass; the paper stops after as many training sequences in a row.
pub const CHECKED: usize = 2000;

/// The share of the tolerance that a check allows, so that the test after it does not depend on luck.
const STRICTNESS: f32 = 0.75;

/// The number of sequences on which a trained model is tested.
pub const TESTED: usize = 2560;

/// How many of these test sequences may be wrong, as in the paper.
pub const ALLOWED: usize = 3;

/// The number of sequences that go through a model together if none is trained.
const CHUNK: usize = 250;

/// How a training went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The sequences seen until each check, and the mean error then.
    pub curve: Vec<(usize, f64)>,
    /// The sequences seen until a check was passed or the budget was used up.
    seen: usize,
    /// How many test sequences are wrong; `None` if a gradient was not finite and nothing was left to test.
    pub wrong: Option<usize>,
    /// The mean error of the test sequences; NaN if there was no test.
    pub error: f64,
}

impl Outcome {
    /// The sequences that were needed, if the training succeeded.
    pub fn needed(&self) -> Option<usize> {
        self.wrong.is_some_and(|wrong| wrong <= ALLOWED).then_some(self.seen)
    }
}

/// The use of random numbers: each role of a seed has its own stream.
#[derive(Clone, Copy)]
enum Role {
    Weights,
    Training,
    Checks,
    Test,
}

fn stream(seed: u64, role: Role) -> StdRng {
    StdRng::seed_from_u64(4 * seed + role as u64)
}

/// Trains until a check is passed or the budget is used up, then tests.
pub fn train<T: Task>(task: &T, model: &Model, plan: &Plan, seed: u64) -> Outcome {
    let mut net = model.build(task, &mut stream(seed, Role::Weights));
    let mut training = stream(seed, Role::Training);
    let mut checks = Judge::new(task, STRICTNESS, stream(seed, Role::Checks));
    let (mut cache, mut grad, mut loss) = (net.cache(), net.zeros_like(), task.loss());
    let mut optimizer = Adam::new(model.learning_rate);
    let mut outcome = Outcome { curve: Vec::new(), seen: 0, wrong: None, error: f64::NAN };
    loop {
        let (error, passed) = checks.check(&net);
        outcome.curve.push((outcome.seen, error));
        if passed || outcome.seen >= plan.budget {
            break;
        }
        for _ in 0..plan.check_every / plan.batch {
            let batch = task.draw(plan.batch, &mut training);
            let mut state = net.zero_state(plan.batch);
            let pass = net.pass(batch.sequence().train(outcome.seen as u64), &mut state, &mut cache);
            let error = loss.of(&pass, &batch.targets);
            pass.backward_into(error.gradient(), &mut grad);
            if optimizer.step_clipped(&mut net, &grad, ClipNorm::new(plan.clip)).is_err() {
                return outcome; // diverged
            }
            outcome.seen += plan.batch;
        }
    }
    let (error, wrong) = Judge::new(task, 1.0, stream(seed, Role::Test)).test(&net);
    Outcome { wrong: Some(wrong), error, ..outcome }
}

/// Evaluates a model on new sequences from its own random stream.
struct Judge<'a, T: Task> {
    task: &'a T,
    rng: StdRng,
    share: f32,
    cache: Option<<Net as Layer>::Cache>,
    loss: T::Loss,
}

impl<'a, T: Task> Judge<'a, T> {
    /// A judge for which a sequence is right if its error is within `share` of the tolerance.
    fn new(task: &'a T, share: f32, rng: StdRng) -> Self {
        Judge { task, rng, share, cache: None, loss: task.loss() }
    }

    /// The mean error of `count` new sequences, and how many are wrong.
    fn evaluate(&mut self, net: &Net, count: usize) -> (f64, usize) {
        let batch = self.task.draw(count, &mut self.rng);
        let cache = self.cache.get_or_insert_with(|| net.cache());
        let y = net.forward(batch.sequence().infer(), &mut net.zero_state(count), cache);
        let error = self.loss.value(batch.sequence().with(y), &batch.targets);
        (error, self.task.wrong(&y, &batch, self.share))
    }

    /// The error of the first chunk, and whether all of [`CHECKED`] sequences are right; after a wrong one, no further
    /// chunk is drawn.
    fn check(&mut self, net: &Net) -> (f64, bool) {
        let (error, wrong) = self.evaluate(net, CHUNK);
        (error, wrong == 0 && (1..CHECKED / CHUNK).all(|_| self.evaluate(net, CHUNK).1 == 0))
    }

    /// The mean error of [`TESTED`] sequences, and how many are wrong.
    fn test(&mut self, net: &Net) -> (f64, usize) {
        let sizes = std::iter::repeat_n(CHUNK, TESTED / CHUNK).chain([TESTED % CHUNK]);
        let (mut sum, mut wrong) = (0.0, 0);
        for size in sizes.filter(|&size| size > 0) {
            let (chunk_error, chunk_wrong) = self.evaluate(net, size);
            sum += chunk_error * size as f64;
            wrong += chunk_wrong;
        }
        (sum / TESTED as f64, wrong)
    }
}

/// A model that takes part in a comparison.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    pub task: T,
    pub name: &'static str,
    /// If there are several settings, the best one with the first seeds is trained with all of them.
    pub settings: Vec<Model>,
    pub plan: Plan,
}

/// Settings, and the outcomes of each with the first seeds.
type Grid = Vec<(Model, Vec<Outcome>)>;

/// The results of an [`Entry`].
pub struct Runs<T> {
    pub task: T,
    pub name: &'static str,
    /// The only setting, or the best.
    pub model: Model,
    pub parameters: usize,
    /// One for each seed.
    pub outcomes: Vec<Outcome>,
    /// If there are several settings: the outcomes of each with the first seeds.
    grid: Grid,
}

/// Trains every entry with all seeds. If an entry has several settings, each of them is trained with the first `grid_seeds` seeds,
/// and the best one with the others too.
pub fn compare<T: Task>(entries: Vec<Entry<T>>, seeds: Range<u64>, grid_seeds: u64) -> Vec<Runs<T>> {
    let tried = |entry: &Entry<T>| match entry.settings.len() {
        1 => seeds.clone(),
        _ => seeds.start..(seeds.start + grid_seeds).min(seeds.end),
    };
    let mut first = Vec::new();
    for entry in &entries {
        for &model in &entry.settings {
            first.extend(tried(entry).map(|seed| (entry, model, seed)));
        }
    }
    let later: u64 = entries.iter().map(|entry| seeds.end - tried(entry).end).sum();
    let progress = Progress::new(first.len() + later as usize);
    let run = |(entry, model, seed): (&Entry<T>, Model, u64)| {
        let outcome = train(&entry.task, &model, &entry.plan, seed);
        let end = match outcome.needed() {
            Some(needed) => format!("solved after {}", thousands(needed)),
            None => format!("not solved, error {:.4}", outcome.error),
        };
        progress.step(format!("{}, {}, seed {seed}: {end}", entry.task.name(), entry.name));
        outcome
    };
    let mut outcomes = in_parallel(first, run).into_iter();
    let mut grids: Vec<Grid> = Vec::new();
    for entry in &entries {
        let mut of = |&model: &Model| (model, outcomes.by_ref().take(tried(entry).count()).collect());
        grids.push(entry.settings.iter().map(&mut of).collect());
    }
    let best: Vec<usize> = grids.iter().map(|grid| best(grid)).collect();
    let mut second = Vec::new();
    for (entry, &best) in entries.iter().zip(&best) {
        second.extend((tried(entry).end..seeds.end).map(|seed| (entry, entry.settings[best], seed)));
    }
    let mut outcomes = in_parallel(second, run).into_iter();
    progress.finish();
    let runs = |((entry, grid), best): ((&Entry<T>, Grid), usize)| {
        let (model, first) = grid[best].clone();
        let rest = outcomes.by_ref().take((seeds.end - tried(entry).end) as usize);
        Runs {
            task: entry.task,
            name: entry.name,
            model,
            parameters: model.build(&entry.task, &mut stream(0, Role::Weights)).element_count(),
            outcomes: first.into_iter().chain(rest).collect(),
            grid: if grid.len() > 1 { grid } else { Vec::new() },
        }
    };
    entries.iter().zip(grids).zip(best).map(runs).collect()
}

/// The setting with the most successes. Ties are decided by the fewest sequences needed, or, if there was no success, by the lowest
/// error. NaN is the highest.
fn best(grid: &[(Model, Vec<Outcome>)]) -> usize {
    let merit = |outcomes: &[Outcome]| {
        let needed: Vec<usize> = outcomes.iter().filter_map(Outcome::needed).collect();
        let error: f64 = outcomes.iter().map(|outcome| outcome.error).sum();
        (outcomes.len() - needed.len(), needed.iter().sum::<usize>(), error)
    };
    let order = |&a: &usize, &b: &usize| {
        let (a, b) = (merit(&grid[a].1), merit(&grid[b].1));
        a.0.cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.total_cmp(&b.2))
    };
    (0..grid.len()).min_by(order).expect("a setting")
}

impl<T: Task> Runs<T> {
    /// The sequences that the successful trainings needed.
    pub fn needed(&self) -> Vec<usize> {
        self.outcomes.iter().filter_map(Outcome::needed).collect()
    }

    /// The mean of the sequences needed; NaN if no training was successful.
    pub fn mean_needed(&self) -> f64 {
        let needed = self.needed();
        needed.iter().sum::<usize>() as f64 / needed.len() as f64
    }

    /// The name of the task.
    pub fn task_name(&self) -> String {
        self.task.name()
    }

    /// The median of the test errors; NaN is the highest.
    pub fn median_error(&self) -> f64 {
        let mut errors: Vec<f64> = self.outcomes.iter().map(|outcome| outcome.error).collect();
        errors.sort_by(f64::total_cmp);
        errors[errors.len() / 2]
    }

    /// How many trainings were successful.
    pub fn rate(&self) -> String {
        format!("{} of {}", self.needed().len(), self.outcomes.len())
    }

    /// The mean of the sequences needed, and the range.
    pub fn needed_text(&self) -> String {
        match (self.needed().iter().min(), self.needed().iter().max()) {
            (Some(&least), Some(&most)) => {
                let mean = self.mean_needed().round() as usize;
                format!("{} ({} to {})", thousands(mean), thousands(least), thousands(most))
            }
            _ => "-".into(),
        }
    }

    /// The error in the checks over the sequences seen, in thousands: the median of the seeds, and a band from the lowest
    /// to the highest. A training that has ended stays at its last error.
    pub fn line(&self, style: usize) -> Line {
        let longest = self.outcomes.iter().map(|outcome| &outcome.curve).max_by_key(|curve| curve.len());
        let longest = longest.expect("a training");
        let last = longest.len() - 1;
        let stride = longest.len().div_ceil(POINTS);
        let (mut median, mut band) = (Vec::new(), Vec::new());
        for i in (0..=last).filter(|i| i % stride == 0 || *i == last) {
            let at =
                |outcome: &Outcome| outcome.curve.get(i).or(outcome.curve.last()).map_or(f64::NAN, |&(_, error)| error);
            let mut errors: Vec<f64> = self.outcomes.iter().map(at).collect();
            errors.sort_by(f64::total_cmp);
            let (x, half) = (longest[i].0 as f64 / 1000.0, errors.len() / 2);
            let middle = if errors.len() % 2 == 1 { errors[half] } else { (errors[half - 1] + errors[half]) / 2.0 };
            median.push((x, middle));
            band.push((x, errors[0], errors[errors.len() - 1]));
        }
        Line::new(self.name, style, median).band(band)
    }
}

/// The most points that a curve is drawn with.
const POINTS: usize = 64;

/// Prints the results of the entries of a task, and the whole grid if there was one.
pub fn print<T: Task>(runs: &[&Runs<T>]) {
    let Some(first) = runs.first() else { return };
    println!("\n{}", first.task.name());
    println!("  model               parameters  solved  sequences needed            error    setting");
    for run in runs {
        let Runs { name, parameters, model, .. } = run;
        let (rate, needed, error) = (run.rate(), run.needed_text(), run.median_error());
        println!("  {name:<18}  {parameters:>10}  {rate:<6}  {needed:<26}  {error:<7.5}  {}", model.setting());
    }
    for run in runs.iter().filter(|run| !run.grid.is_empty()) {
        println!("  {}, all settings, with the first seeds:", run.name);
        for (model, outcomes) in &run.grid {
            let solved = outcomes.iter().filter(|outcome| outcome.needed().is_some()).count();
            let errors: Vec<String> = outcomes.iter().map(|outcome| format!("{:.5}", outcome.error)).collect();
            println!("    {:<39}  {solved} of {}  errors {}", model.setting(), outcomes.len(), errors.join(" "));
        }
    }
}

/// A number with commas: 74,000.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
