//! Decoding: labels from the outputs of a model trained with CTC.

use std::collections::HashMap;
use std::fmt;

use crate::base::error::mismatch;
use crate::base::{Expect, check_number};
use crate::kernels::Float;
use crate::layer::Sequence;

use super::lattice::{log_sum, normaliser};

/// The labels of the likeliest path of each sequence: the likeliest class of each step, with runs of one class merged and blanks
/// removed.
///
/// Other paths may give the same labels, so other labels may be likelier: see [`BeamSearch`]. Of equal logits, the first class
/// wins.
///
/// ```
/// use gradflow::{loss::ctc, ndarray::Array3};
///
/// let path = [1, 1, 0, 1, 2]; // 0 is the blank
/// let logits = Array3::from_shape_fn((5, 1, 3), |(t, _, k)| if path[t] == k { 1.0_f32 } else { 0.0 });
/// assert_eq!(ctc::greedy(&logits, 0), [[1, 1, 2]]);
/// ```
///
/// # Panics
/// Panics if `y` has no features.
#[must_use]
#[track_caller]
pub fn greedy<'y, F: Float>(y: impl Into<Sequence<'y, F>>, blank: usize) -> Vec<Vec<usize>> {
    let y = y.into();
    let logits = y.features("greedy", None); // [T, B, V]
    let decoded = |b: usize| {
        let (mut labels, mut last) = (Vec::new(), blank);
        for t in y.valid_steps(b) {
            let mut best = (0, F::neg_infinity());
            for k in 0..logits.dim().2 {
                if logits[[t, b, k]] > best.1 {
                    best = (k, logits[[t, b, k]]);
                }
            }
            if best.0 != last && best.0 != blank {
                labels.push(best.0);
            }
            last = best.0;
        }
        labels
    };
    (0..logits.dim().1).map(decoded).collect()
}

/// Labels that a [`BeamSearch`] found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Decoded {
    /// The labels.
    pub labels: Vec<usize>,
    /// The logarithm of their probability over all paths that the search kept, plus the scores of the language model.
    pub score: f64,
}

/// A search for the likeliest labels, over all their paths, that keeps the best prefixes at each step (Graves 2012; Hannun, Maas,
/// Jurafsky and Ng 2014).
///
/// ```text
/// p_blank(l, t), p_label(l, t)     probability of the paths of t steps that read l and end with a blank, with its last label
///
/// p_blank(l, t)     = p_tblank (p_blank(l, t-1) + p_label(l, t-1))
/// p_label(l, t)     = p_tk p_label(l, t-1)                                with k the last label of l
/// p_label(l + k, t) = p_tk (p_blank(l, t-1) + p_label(l, t-1))            without p_label where k is the last label of l
/// ```
///
/// ```
/// use gradflow::{loss::ctc::{self, BeamSearch}, ndarray::Array3};
///
/// // The likeliest path is two blanks, 0.36; but three paths read 1: 0.16 + 2 · 0.24.
/// let logits = Array3::from_shape_fn((2, 1, 2), |(_, _, k)| if k == 0 { 0.6_f64.ln() } else { 0.4_f64.ln() });
/// assert!(ctc::greedy(&logits, 0)[0].is_empty());
/// let best = &BeamSearch::new(8).decode(&logits)[0][0];
/// assert_eq!(best.labels, [1]);
/// assert!((best.score - 0.64_f64.ln()).abs() < 1e-12);
/// ```
pub struct BeamSearch<'a> {
    width: usize,
    classes: usize,
    blank: usize,
    language_model: Option<Box<LanguageModel<'a>>>,
}

type LanguageModel<'a> = dyn Fn(&[usize], usize) -> f64 + 'a;

impl fmt::Debug for BeamSearch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BeamSearch { width, classes, blank, language_model } = self;
        let mut debug = f.debug_struct("BeamSearch");
        debug.field("width", width).field("classes", classes).field("blank", blank);
        debug.field("language_model", &language_model.is_some()).finish()
    }
}

impl<'a> BeamSearch<'a> {
    /// A search that keeps `width` prefixes after each step, with class 0 as the blank.
    ///
    /// # Panics
    /// Panics if `width` is 0.
    #[track_caller]
    #[must_use]
    pub fn new(width: usize) -> Self {
        if width == 0 {
            mismatch("BeamSearch", "width", &"at least 1", &width)
        }
        BeamSearch { width, classes: usize::MAX, blank: 0, language_model: None }
    }

    /// Makes another class the blank.
    #[must_use]
    pub fn blank(self, blank: usize) -> Self {
        BeamSearch { blank, ..self }
    }

    /// At each step, extends prefixes only by the likeliest `classes` labels. This saves time with many classes.
    #[must_use]
    pub fn best_classes(self, classes: usize) -> Self {
        BeamSearch { classes: classes.max(1), ..self }
    }

    /// Adds `score(labels, next)` to the logarithm of the probability whenever `next` is appended to `labels`: a language model's
    /// `weight · log p(next | labels)`, and a bonus for each label, which offsets the model's preference for fewer labels.
    ///
    /// It is called once for each prefix and label that the search meets, and may return -∞ to forbid the label.
    #[must_use]
    pub fn language_model(self, score: impl Fn(&[usize], usize) -> f64 + 'a) -> Self {
        BeamSearch { language_model: Some(Box::new(score)), ..self }
    }

    /// The labels of each sequence, best first, at most `width` of them. `y` are logits, `[T, B, V]`.
    ///
    /// # Panics
    /// Panics if `y` has no features, the blank is not one of its classes, or the language model gives NaN or +∞.
    #[must_use]
    #[track_caller]
    pub fn decode<'y, F: Float>(&self, y: impl Into<Sequence<'y, F>>) -> Vec<Vec<Decoded>> {
        let y = y.into();
        let logits = y.features("BeamSearch", None); // [T, B, V]
        let classes = logits.dim().2;
        if self.blank >= classes {
            mismatch("BeamSearch", "blank", &format_args!("a class below {classes}"), &self.blank)
        }
        let decoded = |b: usize| {
            let mut beam = Beam::new();
            for t in y.valid_steps(b) {
                let z: Vec<F> = (0..classes).map(|k| logits[[t, b, k]]).collect();
                let normaliser = normaliser(&z);
                let log_p: Vec<f64> = z.iter().map(|z| z.widen() - normaliser).collect();
                beam = self.step(beam, &log_p);
            }
            beam.results()
        };
        (0..logits.dim().1).map(decoded).collect()
    }

    #[track_caller]
    fn step(&self, mut beam: Beam, log_p: &[f64]) -> Beam {
        let mut added: Vec<usize> = (0..log_p.len()).filter(|&k| k != self.blank).collect();
        if added.len() > self.classes {
            added.select_nth_unstable_by(self.classes, |&a, &b| log_p[b].total_cmp(&log_p[a]));
            added.truncate(self.classes);
        }
        let mut next: HashMap<usize, Paths> = HashMap::new();
        for (node, paths) in std::mem::take(&mut beam.kept) {
            let last = beam.nodes[node].label;
            let all = paths.total();
            let stays = next.entry(node).or_insert(Paths { added: paths.added, ..Paths::NONE });
            stays.blank = log_sum(stays.blank, log_p[self.blank] + all, NONE);
            if let Some(last) = last {
                stays.label = log_sum(stays.label, log_p[last] + paths.label, NONE);
            }
            for &k in &added {
                // A repeated label is a new one only after a blank.
                let from = if last == Some(k) { paths.blank } else { all };
                if from == NONE || log_p[k] == NONE {
                    continue;
                }
                let child = beam.child(node, k);
                let score = match beam.nodes[child].score {
                    Some(score) => score,
                    None => {
                        let score = self.language_model.as_ref().map_or(0.0, |model| model(&beam.labels(node), k));
                        if score != NONE {
                            check_number::<f64>("BeamSearch", "language model", Expect::Finite, score);
                        }
                        beam.nodes[child].score = Some(score);
                        score
                    }
                };
                if score == NONE {
                    continue;
                }
                let grown = next.entry(child).or_insert(Paths { added: paths.added + score, ..Paths::NONE });
                grown.label = log_sum(grown.label, log_p[k] + from, NONE);
            }
        }
        beam.kept = next.into_iter().collect();
        // Ties go to the prefix that was met first, so that runs do not differ.
        beam.kept.sort_unstable_by(|(a, one), (b, other)| other.score().total_cmp(&one.score()).then(a.cmp(b)));
        beam.kept.truncate(self.width);
        beam
    }
}

const NONE: f64 = f64::NEG_INFINITY;

/// The log-probabilities of a prefix, summed over its paths.
#[derive(Clone, Copy)]
struct Paths {
    /// Over the paths that end with a blank.
    blank: f64,
    /// Over the paths that end with its last label.
    label: f64,
    /// The sum of the language model's scores.
    added: f64,
}

impl Paths {
    const NONE: Paths = Paths { blank: NONE, label: NONE, added: 0.0 };

    fn total(&self) -> f64 {
        log_sum(self.blank, self.label, NONE)
    }

    fn score(&self) -> f64 {
        self.total() + self.added
    }
}

/// A prefix: its parent and one more label.
struct Node {
    parent: usize,
    label: Option<usize>,
    /// The language model's score of the last label.
    score: Option<f64>,
}

/// The tree of prefixes, and those that are kept.
struct Beam {
    nodes: Vec<Node>,
    children: HashMap<(usize, usize), usize>,
    kept: Vec<(usize, Paths)>,
}

impl Beam {
    /// Starts with the empty prefix.
    fn new() -> Self {
        let root = Node { parent: 0, label: None, score: Some(0.0) };
        Beam { nodes: vec![root], children: HashMap::new(), kept: vec![(0, Paths { blank: 0.0, ..Paths::NONE })] }
    }

    fn child(&mut self, node: usize, label: usize) -> usize {
        *self.children.entry((node, label)).or_insert_with(|| {
            self.nodes.push(Node { parent: node, label: Some(label), score: None });
            self.nodes.len() - 1
        })
    }

    fn labels(&self, mut node: usize) -> Vec<usize> {
        let mut labels = Vec::new();
        while let Some(label) = self.nodes[node].label {
            labels.push(label);
            node = self.nodes[node].parent;
        }
        labels.reverse();
        labels
    }

    fn results(&self) -> Vec<Decoded> {
        let result = |&(node, paths): &(usize, Paths)| Decoded { labels: self.labels(node), score: paths.score() };
        self.kept.iter().map(result).collect()
    }
}
