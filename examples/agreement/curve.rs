//! The models' accuracies over the gap or the number of attractors.

use std::fmt;

use crate::common::picture::Line;
use crate::compare::Learned;
use crate::grammar::{Between, Gap, Language};

/// A model breaks at the first point at which the median accuracy of its seeds is below this.
pub const BROKEN: f64 = 0.9;

/// New sentences of each test.
pub const TESTED: usize = 500;

/// A gap in which all nouns are attractors.
pub fn gap(nouns: usize, words: usize) -> Gap {
    Gap { nouns, words, between: Between::Other }
}

/// The lowest, the median and the highest.
fn spread(numbers: &[f64]) -> [f64; 3] {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    [sorted[0], (sorted[last / 2] + sorted[sorted.len() / 2]) / 2.0, sorted[last]]
}

/// A model's accuracies over the gap or the number of attractors.
pub struct Curve {
    pub name: &'static str,
    settings: Vec<String>,
    /// The gap or the number of attractors, and the accuracy of each seed.
    points: Vec<(usize, Vec<f64>)>,
}

impl Curve {
    /// The median of the seeds at each point.
    pub fn medians(&self) -> impl Iterator<Item = (usize, f64)> {
        self.points.iter().map(|(at, accuracies)| (*at, spread(accuracies)[1]))
    }

    /// The first point at which the model breaks.
    pub fn breaks(&self) -> Option<usize> {
        self.medians().find(|&(_, accuracy)| accuracy < BROKEN).map(|(at, _)| at)
    }

    /// The mean of all seeds over the points `at`.
    pub fn mean(&self, at: &[usize]) -> f64 {
        let accuracies = || self.points.iter().filter(|(point, _)| at.contains(point)).flat_map(|(_, each)| each);
        accuracies().sum::<f64>() / accuracies().count() as f64
    }

    /// The number of words that the models reach across, over the seeds: the area under 2 · accuracy - 1 over the gap. A model that
    /// gets all verbs right up to this gap and guesses beyond it has the same area. Gaps shorter than the first one count as that
    /// one.
    pub fn reach(&self) -> Reach {
        let skill = |accuracy: f64| (2.0 * accuracy - 1.0).max(0.0);
        let reach = |seed: usize| {
            let (first, accuracies) = &self.points[0];
            let pieces = self.points.windows(2).map(|pair| {
                let width = (pair[1].0 - pair[0].0) as f64;
                width * (skill(pair[0].1[seed]) + skill(pair[1].1[seed])) / 2.0
            });
            *first as f64 * skill(accuracies[seed]) + pieces.sum::<f64>()
        };
        let words: Vec<f64> = (0..self.points[0].1.len()).map(reach).collect();
        let [low, _, high] = spread(&words);
        Reach { mean: words.iter().sum::<f64>() / words.len() as f64, low, high }
    }

    /// Medians, and a band from the lowest to the highest.
    pub fn line(&self, style: usize) -> Line {
        let percent = |accuracy: f64| 100.0 * accuracy;
        let band = self.points.iter().map(|(at, accuracies)| {
            let [low, _, high] = spread(accuracies);
            (*at as f64, percent(low), percent(high))
        });
        let medians = self.medians().map(|(at, accuracy)| (at as f64, percent(accuracy)));
        Line::new(self.name, style, medians.collect()).band(band.collect()).markers()
    }
}

/// The number of words that a model reaches across, over the seeds.
#[derive(Clone, Copy)]
pub struct Reach {
    mean: f64,
    low: f64,
    high: f64,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ({:.1} to {:.1})", self.mean, self.low, self.high)
    }
}

/// A curve for each model, over the gap that all sentences of its language have.
pub fn by_learned_gap(learned: &[Learned], models: usize) -> Vec<Curve> {
    let curve = |model: usize| {
        let learned: Vec<&Learned> = learned.iter().skip(model).step_by(models).collect();
        let point = |learned: &&Learned| match learned.language {
            Language::Only { words } => (words, learned.accuracies(gap(1, words), TESTED)),
            Language::Mixed { .. } => unreachable!("languages with one gap"),
        };
        let settings = learned.iter().map(|learned| learned.setting()).collect();
        Curve { name: learned[0].name, settings, points: learned.iter().map(point).collect() }
    };
    (0..models).map(curve).collect()
}

/// A curve for each model, over the points `at`.
pub fn tests(learned: &[Learned], at: &[usize], gap: impl Fn(usize) -> Gap) -> Vec<Curve> {
    let curve = |learned: &Learned| Curve {
        name: learned.name,
        settings: vec![learned.setting()],
        points: at.iter().map(|&at| (at, learned.accuracies(gap(at), TESTED))).collect(),
    };
    learned.iter().map(curve).collect()
}

/// Medians over the seeds, the lowest below them, and the settings that were chosen.
pub fn print(title: &str, curves: &[Curve]) {
    println!("{title}: right verbs in percent, median (lowest) of the seeds");
    let row = |cells: Vec<String>| cells.iter().map(|cell| format!(" {cell:>11}")).collect::<String>();
    println!("  {:6}{}", "", row(curves[0].points.iter().map(|(at, _)| at.to_string()).collect()));
    for Curve { name, points, .. } in curves {
        let cell = |(_, accuracies): &(usize, Vec<f64>)| {
            let [low, median, _] = spread(accuracies);
            format!("{:.0} ({:.0})", 100.0 * median, 100.0 * low)
        };
        println!("  {name:6}{}", row(points.iter().map(cell).collect()));
    }
    for Curve { name, settings, .. } in curves {
        println!("  {name}: {}", settings.join(" | "));
    }
    println!();
}
