//! The models to beat: characters counted in their context.

use std::collections::HashMap;
use std::ops::Range;

/// How often a context was seen, and before how many different characters.
#[derive(Clone, Copy, Default)]
struct Seen {
    times: u32,
    followers: u32,
}

/// A character model of contexts up to a length, with interpolated absolute discounting (Ney, Essen and Kneser 1994):
///
/// ```text
/// p(c | h) = (max(n(h c) - d, 0) + d · followers(h) · p(c | h without its first)) / n(h)
/// ```
///
/// The probability that the discount d takes from each character seen after h goes to the shorter context's distribution, and from
/// the empty context to the uniform one, so no character has probability 0. A context never seen is shortened.
///
/// There is one discount for each length of context. It is chosen, from the shortest up, as the one that is best on the
/// last tenth of the training text with counts from the rest; counts are then taken from all of it.
pub struct Ngram {
    classes: usize,
    discounts: Vec<f64>,
    contexts: HashMap<Vec<usize>, Seen>,
    counts: HashMap<Vec<usize>, u32>,
}

impl Ngram {
    /// The model of runs of `order` characters: 1 is a unigram, 3 a trigram.
    pub fn fit(train: &[usize], classes: usize, order: usize) -> Self {
        let held_out = train.len() * 9 / 10;
        let mut model = Self::count(&train[..held_out], classes, order);
        for _ in 0..order {
            model.discounts.push(0.0);
            let bits = |model: &mut Self, discount: f64| {
                *model.discounts.last_mut().expect("one was pushed") = discount;
                model.bits(train, held_out..train.len())
            };
            let candidates = (1..20).map(|k| f64::from(k) / 20.0);
            let scored = candidates.map(|discount| (bits(&mut model, discount), discount));
            let best = scored.min_by(|a, b| a.0.total_cmp(&b.0)).expect("there are candidates");
            bits(&mut model, best.1);
        }
        Ngram { discounts: model.discounts, ..Self::count(train, classes, order) }
    }

    /// The counts, without discounts yet.
    fn count(text: &[usize], classes: usize, order: usize) -> Self {
        let mut model = Ngram { classes, discounts: Vec::new(), contexts: HashMap::new(), counts: HashMap::new() };
        for gram in (1..=order).flat_map(|length| text.windows(length)) {
            let count = model.counts.entry(gram.to_vec()).or_default();
            let context = model.contexts.entry(gram[..gram.len() - 1].to_vec()).or_default();
            context.followers += u32::from(*count == 0);
            context.times += 1;
            *count += 1;
        }
        model
    }

    /// The discounts, from the shortest context's to the longest one's.
    pub fn discounts(&self) -> &[f64] {
        &self.discounts
    }

    /// The probability of the last character of `gram` after the others.
    fn probability(&self, gram: &[usize]) -> f64 {
        let Some(shorter) = gram.len().checked_sub(1) else { return 1.0 / self.classes as f64 };
        let backed_off = self.probability(&gram[1..]);
        let Some(seen) = self.contexts.get(&gram[..shorter]) else { return backed_off };
        let discount = self.discounts[shorter];
        let count = self.counts.get(gram).map_or(0.0, |&count| f64::from(count) - discount);
        (count + discount * f64::from(seen.followers) * backed_off) / f64::from(seen.times)
    }

    /// Bits per character of `text[range]`, each character after those before it.
    pub fn bits(&self, text: &[usize], range: Range<usize>) -> f64 {
        let order = self.discounts.len();
        let count = range.len() as f64;
        let bits = range.map(|i| -self.probability(&text[(i + 1).saturating_sub(order)..=i]).log2());
        bits.sum::<f64>() / count
    }
}
