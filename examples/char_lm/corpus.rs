//! A text as ids of characters, split in two.

use std::collections::BTreeSet;
use std::ops::Range;

use gradflow::ndarray::{Array2, ArrayView2, s};

/// The fewest characters of a text.
const SHORTEST: usize = 1000;

/// The number of preceding characters that each lane of the validation text reads first.
const WARM_UP: usize = 64;

/// The target of a step that does not count.
pub const IGNORED: usize = usize::MAX;

/// A text as ids: the characters up to a split, for training, and those after it, for validation.
///
/// The vocabulary is that of the training text. All other characters are one class, `<unknown>`, which counts the same for every
/// model that is compared.
pub struct Corpus {
    characters: Vec<char>,
    ids: Vec<usize>,
    split: usize,
}

impl Corpus {
    /// Splits `text` at about nine tenths, after the end of a line if there is one nearby.
    ///
    /// # Errors
    /// If the text is too short.
    pub fn new(text: &str) -> Result<Self, String> {
        let text: Vec<char> = text.chars().collect();
        if text.len() < SHORTEST {
            return Err(format!("{} characters are too few: {SHORTEST} are needed", text.len()));
        }
        let target = text.len() * 9 / 10;
        let near = &text[target..target + text.len() / 50];
        let split = target + near.iter().position(|&c| c == '\n').map_or(0, |newline| newline + 1);

        let characters: Vec<char> = BTreeSet::from_iter(text[..split].iter().copied()).into_iter().collect();
        let id = |c| characters.binary_search(c).unwrap_or(characters.len());
        let ids = text.iter().map(id).collect();
        Ok(Corpus { characters, ids, split })
    }

    /// The number of classes: the training text's characters and `<unknown>`.
    pub fn classes(&self) -> usize {
        self.characters.len() + 1
    }

    /// The whole text.
    pub fn ids(&self) -> &[usize] {
        &self.ids
    }

    /// The characters that are known, in order.
    pub fn vocabulary(&self) -> String {
        self.characters.iter().collect()
    }

    /// A hash that another text is unlikely to have (FNV-1a of the ids).
    pub fn fingerprint(&self) -> u64 {
        let step = |hash: u64, &id: &usize| (hash ^ id as u64).wrapping_mul(0x0100_0000_01b3);
        self.ids.iter().fold(0xcbf2_9ce4_8422_2325, step)
    }

    /// The training text.
    pub fn train(&self) -> &[usize] {
        &self.ids[..self.split]
    }

    /// The range of the validation text.
    pub fn validation(&self) -> Range<usize> {
        self.split..self.ids.len()
    }

    /// How many characters of the validation text are `<unknown>`.
    pub fn unknown(&self) -> usize {
        self.ids[self.split..].iter().filter(|&&id| id == self.characters.len()).count()
    }

    /// The character of an id.
    pub fn character(&self, id: usize) -> char {
        self.characters.get(id).copied().unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    /// The validation text cut into `lanes` that are read in parallel: inputs and targets, `[T, lanes]`.
    ///
    /// Every character of it is a target once. Each lane first reads the end of the text before it, with targets that are
    /// [`IGNORED`], as in one pass over the whole text.
    pub fn lanes(&self, lanes: usize) -> (Array2<usize>, Array2<usize>) {
        let Range { start, end } = self.validation();
        let length = (end - start).div_ceil(lanes);
        let position = |t: usize, lane: usize| start + lane * length + t - WARM_UP;
        let shape = (WARM_UP + length, lanes);
        let ids = Array2::from_shape_fn(shape, |(t, lane)| self.ids[(position(t, lane) - 1).min(end - 1)]);
        let targets = Array2::from_shape_fn(shape, |(t, lane)| {
            let counts = t >= WARM_UP && position(t, lane) < end;
            if counts { self.ids[position(t, lane)] } else { IGNORED }
        });
        (ids, targets)
    }
}

/// Reads a text, as a ring, from several places at once, without end.
///
/// Each call continues where the last one stopped, so that a recurrent state can be carried from batch to batch.
pub struct Readers<'a> {
    ring: &'a [usize],
    places: Vec<usize>,
    window: Array2<usize>, // [T + 1, B]
}

impl<'a> Readers<'a> {
    /// `batch` readers, evenly spaced, that read `steps` characters at a time.
    pub fn new(ring: &'a [usize], steps: usize, batch: usize) -> Self {
        let places = (0..batch).map(|b| b * ring.len() / batch).collect();
        Readers { ring, places, window: Array2::zeros((steps + 1, batch)) }
    }

    /// The place at which the first reader continues; the others keep their distances from it.
    pub fn place(&self) -> usize {
        self.places[0]
    }

    /// Moves all readers so that [`place`](Readers::place) is `place`.
    pub fn go_to(&mut self, place: usize) {
        let (length, way) = (self.ring.len(), place % self.ring.len() + self.ring.len() - self.places[0]);
        self.places.iter_mut().for_each(|place| *place = (*place + way) % length);
    }

    /// The next characters and, as targets, those that follow each: `[T, B]` both.
    pub fn read(&mut self) -> (ArrayView2<'_, usize>, ArrayView2<'_, usize>) {
        let steps = self.window.nrows() - 1;
        for (mut column, place) in self.window.columns_mut().into_iter().zip(&mut self.places) {
            for (t, id) in column.iter_mut().enumerate() {
                *id = self.ring[(*place + t) % self.ring.len()];
            }
            *place = (*place + steps) % self.ring.len();
        }
        (self.window.slice(s![..steps, ..]), self.window.slice(s![1.., ..]))
    }
}
