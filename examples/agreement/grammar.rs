//! A small grammar in which a verb agrees with a noun far before it.
//!
//! ```text
//! sentence = [ preposition "the" noun "," ]  "the" subject  { preposition "the" noun }  verb "."
//! ```
//!
//! with fillers after any of the nouns that stand between the subject and its verb, and after the subject. Half of the
//! sentences begin with the phrase in brackets, so that the subject is not always the first noun.

use gradflow::data::{Batch, Samples};
use gradflow::ndarray::Array2;
use gradflow::rand::{Rng, RngExt};

/// Each with its singular and its plural.
const NOUNS: [[&str; 2]; 8] = [
    ["key", "keys"],
    ["cabinet", "cabinets"],
    ["author", "authors"],
    ["book", "books"],
    ["dog", "dogs"],
    ["tree", "trees"],
    ["house", "houses"],
    ["road", "roads"],
];
const VERBS: [[&str; 2]; 4] = [["is", "are"], ["was", "were"], ["has", "have"], ["stands", "stand"]];
const PREPOSITIONS: [&str; 4] = ["of", "near", "behind", "with"];
const FILLERS: [&str; 8] = ["again", "indeed", "perhaps", "often", "really", "there", "today", "still"];
const OTHERS: [&str; 3] = ["the", ",", "."];

/// The first id of each kind of word.
const NOUN: usize = 0;
const VERB: usize = NOUN + 2 * NOUNS.len();
const PREPOSITION: usize = VERB + 2 * VERBS.len();
const FILLER: usize = PREPOSITION + PREPOSITIONS.len();
const THE: usize = FILLER + FILLERS.len();
const COMMA: usize = THE + 1;
const END: usize = THE + 2;

/// The number of words.
pub const WORDS: usize = THE + OTHERS.len();

/// A preposition, an article and a noun.
const PHRASE: usize = 3;

/// The grammatical numbers of the nouns between the subject and the verb.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Between {
    /// Each noun is singular or plural at random: for training.
    Any,
    /// All nouns have the number that the subject does not have, so each attracts the verb: for the tests.
    Other,
}

/// The words between subject and verb.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// The number of nouns.
    pub nouns: usize,
    /// The number of words.
    pub words: usize,
    /// The nouns' numbers.
    pub between: Between,
}

/// The sentences that models learn from. In half of them there is no noun between subject and verb, in a quarter one, and
/// so on up to four.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Language {
    /// Gaps up to 32, most of them short, as in a natural language: at most this number of fillers, small numbers more often.
    Mixed { fillers: usize },
    /// The number of words between subject and verb, the same in all sentences.
    Only { words: usize },
}

impl Language {
    /// The gap of a sentence.
    pub fn gap(self, rng: &mut impl Rng) -> Gap {
        let nouns = (0..4).take_while(|_| rng.random_bool(0.5)).count();
        let between = Between::Any;
        match self {
            Language::Mixed { fillers } => {
                let most = rng.random_range(0..=fillers);
                Gap { nouns, words: PHRASE * nouns + rng.random_range(0..=most), between }
            }
            Language::Only { words } => Gap { nouns: nouns.min(words / PHRASE), words, between },
        }
    }
}

/// Words, and the index of the verb.
pub struct Sentence {
    pub words: Vec<usize>,
    pub verb: usize,
}

impl Sentence {
    /// A sentence with a given gap; everything else is random.
    ///
    /// # Panics
    /// Panics if the gap does not have enough words for its nouns.
    pub fn draw(gap: Gap, rng: &mut impl Rng) -> Self {
        let mut words = Vec::new();
        if rng.random_bool(0.5) {
            phrase(rng.random_range(0..2), &mut words, rng);
            words.push(COMMA);
        }
        let number = rng.random_range(0..2);
        words.push(THE);
        words.push(noun(number, rng));
        // Each filler goes after one of the nouns.
        let mut fillers = vec![0; gap.nouns + 1];
        for _ in 0..gap.words - PHRASE * gap.nouns {
            fillers[rng.random_range(0..=gap.nouns)] += 1;
        }
        for (k, count) in fillers.into_iter().enumerate() {
            if k > 0 {
                let own = if gap.between == Between::Any { rng.random_range(0..2) } else { 1 - number };
                phrase(own, &mut words, rng);
            }
            words.extend((0..count).map(|_| FILLER + rng.random_range(0..FILLERS.len())));
        }
        let verb = words.len();
        words.push(VERB + 2 * rng.random_range(0..VERBS.len()) + number);
        words.push(END);
        Sentence { words, verb }
    }

    /// The verb, and the same verb in the wrong number.
    pub fn forms(&self) -> [usize; 2] {
        let verb = self.words[self.verb];
        [verb, VERB + ((verb - VERB) ^ 1)]
    }

    /// Whether the verb has the number of the nearest noun before it.
    pub fn agrees_with_nearest(&self) -> bool {
        let nearest = self.words[..self.verb].iter().rfind(|&&word| word < VERB);
        nearest.is_some_and(|noun| noun % 2 == self.words[self.verb] % 2)
    }

    /// The sentence as text.
    pub fn text(&self) -> String {
        self.words.iter().map(|&word| spelling(word)).collect::<Vec<_>>().join(" ")
    }
}

/// A preposition, an article and a noun of the given number.
fn phrase(number: usize, words: &mut Vec<usize>, rng: &mut impl Rng) {
    words.extend([PREPOSITION + rng.random_range(0..PREPOSITIONS.len()), THE, noun(number, rng)]);
}

fn noun(number: usize, rng: &mut impl Rng) -> usize {
    NOUN + 2 * rng.random_range(0..NOUNS.len()) + number
}

fn spelling(word: usize) -> &'static str {
    match word {
        NOUN..VERB => NOUNS[(word - NOUN) / 2][word % 2],
        VERB..PREPOSITION => VERBS[(word - VERB) / 2][word % 2],
        PREPOSITION..FILLER => PREPOSITIONS[word - PREPOSITION],
        FILLER..THE => FILLERS[word - FILLER],
        _ => OTHERS[word - THE],
    }
}

/// A batch of sentences for a language model: `[T, B]` words, and as targets the words after them.
pub fn batch(sentences: &[Sentence]) -> Batch<f32, Array2<usize>> {
    let words = sentences.iter().map(|sentence| &sentence.words[..sentence.words.len() - 1]);
    let next = sentences.iter().map(|sentence| &sentence.words[1..]);
    Samples::ids(words).with_tags(next).all()
}
