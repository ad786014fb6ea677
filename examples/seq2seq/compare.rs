//! The four models: the choice of a setting, then all seeds.

use std::ops::Range;

use gradflow::TensorsExt;

use crate::common::picture::Line;
use crate::common::{Progress, in_parallel};
use crate::model::Shape;
use crate::training::{Outcome, Setting, train};
use crate::words::DIGITS;

/// The share of the test's numbers that a model must get right to have learned the task.
pub const LEARNED: f64 = 0.95;

/// The fewest digits of a point of a line: there are too few numbers with one and two.
const FEWEST_DIGITS: usize = 3;

/// The models that are compared: with attention or not, and the order in which the words are read.
pub const MODELS: [(&str, bool, bool); 4] = [
    ("attention, forwards", true, false),
    ("attention, backwards", true, true),
    ("no attention, forwards", false, false),
    ("no attention, backwards", false, true),
];

/// The extent of a comparison.
pub struct Plan {
    /// Units of a model with attention.
    pub hidden: usize,
    pub rates: &'static [f64],
    pub forget_biases: &'static [f64],
    pub updates: usize,
    pub seeds: Range<u64>,
}

/// The results of a model.
pub struct Runs {
    pub name: &'static str,
    pub setting: Setting,
    /// One for each seed.
    pub outcomes: Vec<Outcome>,
    /// The first seed's share of right validation numbers with each setting.
    pub grid: Vec<(Setting, f64)>,
}

/// Trains every model with every setting and the first seed; the setting that is best on the validation numbers is trained with the
/// other seeds too.
pub fn compare(plan: &Plan) -> Vec<Runs> {
    let grids = MODELS.map(|(_, attention, backwards)| {
        let shape =
            |&forget_bias: &f64| Shape { hidden: plan.hidden, attention, backwards, forget_bias }.of_equal_size();
        let of = |shape: Shape| plan.rates.iter().map(move |&learning_rate| Setting { shape, learning_rate });
        plan.forget_biases.iter().map(shape).flat_map(of).collect::<Vec<_>>()
    });
    let later = plan.seeds.start + 1..plan.seeds.end;
    let later_count = later.clone().count();
    let progress = Progress::new(grids.iter().map(Vec::len).sum::<usize>() + MODELS.len() * later_count);
    let run = |(name, setting, seed): (&str, Setting, u64)| {
        let outcome = train(setting, plan.updates, seed);
        let (bias, rate) = (setting.shape.forget_bias, setting.learning_rate);
        let right = 100.0 * outcome.validated();
        progress.step(format!("{name}, forget bias {bias}, rate {rate}, seed {seed}: {right:.1} % right"));
        outcome
    };
    let named = || MODELS.iter().map(|model| model.0).zip(&grids);
    let jobs = named().flat_map(|(name, grid)| grid.iter().map(move |&setting| (name, setting, plan.seeds.start)));
    let mut tried = in_parallel(jobs.collect(), run).into_iter();
    let mut found = Vec::new();
    for (name, grid) in named() {
        let outcomes: Vec<Outcome> = tried.by_ref().take(grid.len()).collect();
        let shares: Vec<(Setting, f64)> = grid.iter().copied().zip(outcomes.iter().map(Outcome::validated)).collect();
        // Of equals, the first.
        let best = (0..grid.len()).rev().max_by(|&a, &b| shares[a].1.total_cmp(&shares[b].1)).expect("a setting");
        found.push(Runs { name, setting: grid[best], outcomes: vec![outcomes[best].clone()], grid: shares });
    }
    let jobs = found.iter().flat_map(|runs| later.clone().map(|seed| (runs.name, runs.setting, seed)));
    let mut rest = in_parallel(jobs.collect(), run).into_iter();
    for runs in &mut found {
        runs.outcomes.extend(rest.by_ref().take(later_count));
    }
    progress.finish();
    found
}

impl Runs {
    pub fn parameters(&self) -> usize {
        self.outcomes[0].model.element_count()
    }

    /// Lowest, mean and highest of a share over the seeds, in per cent.
    pub fn spread(&self, of: impl Fn(&Outcome) -> f64) -> [f64; 3] {
        let shares: Vec<f64> = self.outcomes.iter().map(|outcome| 100.0 * of(outcome)).collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        [shares.iter().copied().fold(f64::INFINITY, f64::min), mean, shares.iter().copied().fold(0.0, f64::max)]
    }

    /// The share of all the test's numbers.
    pub fn total(&self) -> [f64; 3] {
        self.spread(Outcome::total)
    }

    /// How many seeds have [`LEARNED`] the task, as text.
    pub fn learned(&self) -> String {
        let learned = self.outcomes.iter().filter(|outcome| outcome.total() >= LEARNED).count();
        format!("{learned} of {}", self.outcomes.len())
    }

    /// The test's share over the number of digits: the seeds' mean, and a band from the lowest to the highest.
    pub fn by_digits(&self, style: usize) -> Line {
        let share = |digits: usize| self.spread(|outcome| outcome.accuracy(digits..=digits));
        self.line(style, (FEWEST_DIGITS..=DIGITS).map(|digits| (digits as f64, share(digits)))).markers()
    }

    /// The validation share over the numbers seen, in thousands.
    pub fn by_numbers(&self, style: usize) -> Line {
        let looks = self.outcomes.iter().map(|outcome| outcome.curve.len()).min().unwrap_or(0);
        let seen = |look: usize| self.outcomes[0].curve[look].0 as f64 / 1000.0;
        self.line(style, (0..looks).map(|look| (seen(look), self.spread(|outcome| outcome.curve[look].1))))
    }

    fn line(&self, style: usize, points: impl Iterator<Item = (f64, [f64; 3])>) -> Line {
        let points: Vec<_> = points.collect();
        let mean = points.iter().map(|&(x, [_, mean, _])| (x, mean)).collect();
        let band = points.iter().map(|&(x, [low, _, high])| (x, low, high)).collect();
        Line::new(self.name, style, mean).band(band)
    }
}
