//! The models' accuracies over what is varied.

use crate::common::picture::Line;
use crate::compare::Learned;
use crate::grammar::{Between, Gap, Language};

/// A model has broken where the median of the seeds has fewer right.
pub const BROKEN: f64 = 0.9;

/// New sentences of each test.
pub const TESTED: usize = 500;

/// A gap in which all nouns are attractors.
pub fn gap(nouns: usize, words: usize) -> Gap {
    Gap { nouns, words, between: Between::Other }
}

/// Of numbers in order.
fn median(numbers: &[f64]) -> f64 {
    (numbers[(numbers.len() - 1) / 2] + numbers[numbers.len() / 2]) / 2.0
}

/// A model's accuracies over what is varied.
pub struct Curve {
    pub name: &'static str,
    settings: Vec<String>,
    /// What is varied, and the accuracy of each seed, the lowest first.
    points: Vec<(usize, Vec<f64>)>,
}

impl Curve {
    /// Of the seeds, where it was tested.
    pub fn medians(&self) -> impl Iterator<Item = (usize, f64)> {
        self.points.iter().map(|(at, accuracies)| (*at, median(accuracies)))
    }

    /// Where it first breaks.
    pub fn breaks(&self) -> Option<usize> {
        self.medians().find(|&(_, accuracy)| accuracy < BROKEN).map(|(at, _)| at)
    }

    /// Medians, and a band from the lowest to the highest.
    pub fn line(&self, style: usize) -> Line {
        let percent = |accuracy: f64| 100.0 * accuracy;
        let band = self.points.iter().map(|(at, a)| (*at as f64, percent(a[0]), percent(a[a.len() - 1])));
        let medians = self.medians().map(|(at, accuracy)| (at as f64, percent(accuracy)));
        Line::new(self.name, style, medians.collect()).band(band.collect()).markers()
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

/// A curve for each model, over tests of it.
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
        let cell = |(_, a): &(usize, Vec<f64>)| format!("{:.0} ({:.0})", 100.0 * median(a), 100.0 * a[0]);
        println!("  {name:6}{}", row(points.iter().map(cell).collect()));
    }
    for Curve { name, settings, .. } in curves {
        println!("  {name}: {}", settings.join(" | "));
    }
    println!();
}
