//! Every kind of net at every depth: the choice of a setting, then all seeds.

use std::ops::Range;

use gradflow::rand::{SeedableRng, rngs::StdRng};

use crate::common::picture::Line;
use crate::common::{Progress, in_parallel};
use crate::digits::Digits;
use crate::net::{Block, Net};
use crate::training::{Outcome, Setting, train};

/// A training loss, in nats, below which a net counts as trained.
pub const TRAINED: f64 = 0.05;

/// A kind of net: the blocks among which one is chosen for each depth.
pub struct Kind {
    pub name: &'static str,
    pub blocks: &'static [Block],
}

/// One kind at one depth.
pub struct Runs {
    pub setting: Setting,
    /// One for each seed.
    pub outcomes: Vec<Outcome>,
    /// The loss of the first seed with each setting.
    pub grid: Vec<(Setting, f64)>,
}

/// The extent of a sweep.
pub struct Plan {
    pub depths: &'static [usize],
    pub rates: &'static [f64],
    pub epochs: usize,
    pub seeds: Range<u64>,
}

/// Trains every kind at every depth with every setting and the first seed; the setting with the lowest training loss is trained
/// with the other seeds too. Results are ordered by kind, then by depth.
pub fn sweep(digits: &Digits, kinds: &[Kind], plan: &Plan) -> Vec<Vec<Runs>> {
    let places: Vec<(&Kind, usize)> =
        kinds.iter().flat_map(|kind| plan.depths.iter().map(move |&depth| (kind, depth))).collect();
    let grids: Vec<Vec<Setting>> = places.iter().map(|&(kind, depth)| settings(kind, depth, plan.rates)).collect();
    let later = plan.seeds.start + 1..plan.seeds.end;
    let progress = Progress::new(grids.iter().map(Vec::len).sum::<usize>() + places.len() * later.clone().count());
    let run = |(setting, seed): (Setting, u64)| {
        let outcome = train(digits, setting, plan.epochs, seed);
        progress.step(format!("{} layers, {}, seed {seed}: loss {:.4}", setting.depth, setting.block, outcome.loss));
        outcome
    };
    let jobs = grids.iter().flatten().map(|&setting| (setting, plan.seeds.start));
    let mut tried = longest_first(jobs.collect(), run).into_iter();
    let mut found = Vec::new();
    for grid in grids {
        let outcomes: Vec<Outcome> = tried.by_ref().take(grid.len()).collect();
        let losses: Vec<(Setting, f64)> = grid.into_iter().zip(outcomes.iter().map(|outcome| outcome.loss)).collect();
        let order = |&a: &usize, &b: &usize| losses[a].1.total_cmp(&losses[b].1);
        let best = (0..losses.len()).min_by(order).expect("a setting");
        found.push(Runs { setting: losses[best].0, outcomes: vec![outcomes[best].clone()], grid: losses });
    }
    let jobs = found.iter().flat_map(|runs| later.clone().map(|seed| (runs.setting, seed)));
    let mut rest = longest_first(jobs.collect(), run).into_iter();
    for runs in &mut found {
        runs.outcomes.extend(rest.by_ref().take(later.clone().count()));
    }
    progress.finish();
    let mut found = found.into_iter();
    kinds.iter().map(|_| found.by_ref().take(plan.depths.len()).collect()).collect()
}

fn settings(kind: &Kind, depth: usize, rates: &[f64]) -> Vec<Setting> {
    let of = |&block: &Block| rates.iter().map(move |&learning_rate| Setting { block, depth, learning_rate });
    kind.blocks.iter().flat_map(of).collect()
}

/// Runs the deepest nets first, since a long job at the end keeps one thread waiting. The results are in the jobs' order.
fn longest_first(jobs: Vec<(Setting, u64)>, run: impl Fn((Setting, u64)) -> Outcome + Sync) -> Vec<Outcome> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&job| std::cmp::Reverse(jobs[job].0.depth));
    let outcomes = in_parallel(order.iter().map(|&job| jobs[job]).collect(), run);
    let mut placed: Vec<_> = order.into_iter().zip(outcomes).collect();
    placed.sort_by_key(|&(job, _)| job);
    placed.into_iter().map(|(_, outcome)| outcome).collect()
}

impl Runs {
    /// The mean number of parameters of a block.
    pub fn parameters(&self) -> f64 {
        Net::new(self.setting.block, self.setting.depth, &mut StdRng::seed_from_u64(0)).parameters_per_block()
    }

    /// How many trainings came below [`TRAINED`].
    pub fn trained(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.loss < TRAINED).count()
    }

    /// The success rate, as text.
    pub fn rate(&self) -> String {
        format!("{} of {}", self.trained(), self.outcomes.len())
    }

    /// Lowest, median and highest of a figure over the seeds.
    pub fn spread(&self, of: impl Fn(&Outcome) -> f64) -> [f64; 3] {
        let mut values: Vec<f64> = self.outcomes.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        [values[0], values[values.len() / 2], values[values.len() - 1]]
    }

    /// The median training loss.
    pub fn loss(&self) -> f64 {
        self.spread(|outcome| outcome.loss)[1]
    }
}

/// A figure over the depth: the median of the seeds, and a band from the lowest to the highest.
pub fn over_depth(name: &str, style: usize, runs: &[Runs], of: impl Fn(&Outcome) -> f64) -> Line {
    let spreads: Vec<(f64, [f64; 3])> = runs.iter().map(|runs| (runs.setting.depth as f64, runs.spread(&of))).collect();
    let median = spreads.iter().map(|&(depth, [_, median, _])| (depth, median)).collect();
    let band = spreads.iter().map(|&(depth, [low, _, high])| (depth, low, high)).collect();
    Line::new(name, style, median).band(band).markers()
}

/// The loss over the epochs: the median of the seeds, and a band.
pub fn over_epochs(name: &str, style: usize, runs: &Runs) -> Line {
    let shortest = runs.outcomes.iter().map(|outcome| outcome.curve.len()).min().unwrap_or(0);
    let spread = |epoch: usize| (epoch as f64 + 1.0, runs.spread(|outcome| outcome.curve[epoch]));
    let spreads: Vec<(f64, [f64; 3])> = (0..shortest).map(spread).collect();
    let median = spreads.iter().map(|&(epoch, [_, median, _])| (epoch, median)).collect();
    let band = spreads.iter().map(|&(epoch, [low, _, high])| (epoch, low, high)).collect();
    Line::new(name, style, median).band(band)
}
