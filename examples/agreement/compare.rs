//! Chooses the best setting of each model for a language, and trains it with all seeds.

use std::ops::Range;

use gradflow::TensorsExt;

use crate::common::{Cell, Progress, in_parallel};
use crate::grammar::{Gap, Language, Sentence};
use crate::model::{LanguageModel, Plan, Recipe, Role, stream};

/// Sentences for the comparison of settings.
const VALIDATED: usize = 500;

/// A kind of model, with the settings that are tried.
pub struct Entry {
    pub name: &'static str,
    pub recipes: Vec<Recipe>,
}

impl Entry {
    /// Every initialisation of the cell with every learning rate.
    pub fn new(name: &'static str, cells: &[Cell], hidden: usize, rates: &[f64]) -> Self {
        let recipes = cells
            .iter()
            .flat_map(|&cell| rates.iter().map(move |&learning_rate| Recipe { cell, hidden, learning_rate }));
        Entry { name, recipes: recipes.collect() }
    }
}

/// The models of a kind that learned a language, one for each seed.
pub struct Learned {
    pub name: &'static str,
    pub language: Language,
    /// The setting with the best validation.
    pub recipe: Recipe,
    /// `None` if a gradient was not finite.
    models: Vec<(u64, Option<LanguageModel>)>,
}

/// A training: its entry, the language, the setting and the seed.
type Job<'a> = (&'a Entry, Plan, Recipe, u64);

fn validation(language: Language, seed: u64) -> Vec<Sentence> {
    let rng = &mut stream(seed, Role::Validation);
    (0..VALIDATED).map(|_| Sentence::draw(language.gap(rng), rng)).collect()
}

/// Trains every entry on every plan's language: each setting with the first `tried` seeds, and the best setting with the others
/// too. Results are ordered by plan, then by entry.
pub fn compare(entries: &[Entry], plans: &[Plan], seeds: Range<u64>, tried: u64) -> Vec<Learned> {
    let first = seeds.start..(seeds.start + tried).min(seeds.end);
    let settings: usize = entries.iter().map(|entry| entry.recipes.len()).sum();
    let later = (seeds.end - first.end) as usize * entries.len();
    let progress = Progress::new(plans.len() * (settings * (first.end - first.start) as usize + later));
    let run = |(entry, plan, recipe, seed): Job<'_>| {
        let model = recipe.train(&plan, seed).ok();
        let sentences = validation(plan.language, seed);
        let accuracy = model.as_ref().map_or(0.0, |model| model.accuracy(&sentences));
        progress.step(format!("{:?}, {}, seed {seed}: {accuracy:.3}", plan.language, entry.name));
        (accuracy, (seed, model))
    };
    let pairs = || plans.iter().flat_map(|&plan| entries.iter().map(move |entry| (plan, entry)));
    let jobs = pairs().flat_map(|(plan, entry)| {
        let first = first.clone();
        entry.recipes.iter().flat_map(move |&recipe| first.clone().map(move |seed| (entry, plan, recipe, seed)))
    });
    let mut trained = in_parallel(jobs.collect(), run).into_iter();
    let mut best = Vec::new();
    for (plan, entry) in pairs() {
        let grid = entry.recipes.iter().map(|&recipe| {
            let (accuracies, models): (Vec<f64>, Vec<_>) =
                trained.by_ref().take((first.end - first.start) as usize).unzip();
            (accuracies.iter().sum::<f64>(), Learned { name: entry.name, language: plan.language, recipe, models })
        });
        let better = |a: (f64, Learned), b: (f64, Learned)| if b.0 > a.0 { b } else { a };
        best.push(grid.reduce(better).expect("a setting").1);
    }
    let jobs = pairs()
        .zip(&best)
        .flat_map(|((plan, entry), best)| (first.end..seeds.end).map(move |seed| (entry, plan, best.recipe, seed)));
    let mut trained = in_parallel(jobs.collect(), run).into_iter();
    for best in &mut best {
        best.models.extend(trained.by_ref().take((seeds.end - first.end) as usize).map(|(_, model)| model));
    }
    progress.finish();
    best
}

impl Learned {
    /// For each seed, the share of `count` new sentences with this gap in which the right verb is the more probable one. All models
    /// of a seed are tested on the same sentences.
    pub fn accuracies(&self, gap: Gap, count: usize) -> Vec<f64> {
        let accuracy = |(seed, model): &(u64, Option<LanguageModel>)| {
            model.as_ref().map_or(0.0, |model| model.accuracy(&test(gap, count, *seed)))
        };
        self.models.iter().map(accuracy).collect()
    }

    /// Its initialisation, learning rate and size.
    pub fn setting(&self) -> String {
        format!("{}; rate {}; {} parameters", self.recipe.cell, self.recipe.learning_rate, self.parameters())
    }

    /// The number of parameters of a model.
    fn parameters(&self) -> usize {
        self.recipe.build(0).element_count()
    }
}

/// Sentences with a gap that neither training nor the choice of a setting has seen.
pub fn test(gap: Gap, count: usize, seed: u64) -> Vec<Sentence> {
    let rng = &mut stream(seed, Role::Test);
    (0..count).map(|_| Sentence::draw(gap, rng)).collect()
}
