//! Words and their pronunciations, from the CMU Pronouncing Dictionary.

use std::collections::BTreeMap;

use gradflow::ndarray::Array2;

use crate::common::Failure;

const DATA: &str = include_str!("../data/pronounce.txt");

/// The number of letters.
pub const LETTERS: usize = 26;

/// The number of steps for each letter: some letters have two phonemes, such as x.
pub const STEPS: usize = 2;

/// A word: its letters, 0 to 25, and its phonemes, from 1 on; 0 is the blank.
pub struct Word {
    pub letters: Vec<u8>,
    pub phonemes: Vec<usize>,
}

impl Word {
    pub fn text(&self) -> String {
        self.letters.iter().map(|&letter| char::from(b'a' + letter)).collect()
    }
}

/// All words, and the names of the phonemes.
pub struct Words {
    pub train: Vec<Word>,
    /// For the picture.
    pub validation: Vec<Word>,
    pub test: Vec<Word>,
    names: Vec<&'static str>,
}

impl Words {
    /// Loads the words, at most `train` of them for training.
    ///
    /// # Errors
    /// If a line of the file cannot be read.
    pub fn load(train: usize) -> Result<Words, Failure> {
        let names = DATA.lines().flat_map(|line| line.split(' ').skip(1)).map(|name| (name, 0));
        let mut ids: BTreeMap<&str, usize> = names.collect();
        ids.values_mut().zip(1..).for_each(|(id, number)| *id = number);
        let mut words = Vec::new();
        for line in DATA.lines() {
            let mut fields = line.split(' ');
            let letters = fields.next().unwrap_or_default().bytes().map(|byte| byte.wrapping_sub(b'a'));
            let (letters, phonemes) = (letters.collect::<Vec<_>>(), fields.map(|name| ids[name]).collect::<Vec<_>>());
            if letters.is_empty() || phonemes.is_empty() || letters.iter().any(|&letter| letter >= LETTERS as u8) {
                return Err(Failure::Run(format!("pronounce.txt: {line:?}: not a word and its phonemes")));
            }
            words.push(Word { letters, phonemes });
        }
        // The lines are in random order.
        let test = words.split_off(18_000);
        let validation = words.split_off(17_000);
        words.truncate(train);
        let names = std::iter::once("").chain(ids.into_keys()).collect();
        Ok(Words { train: words, validation, test, names })
    }

    /// The number of phonemes and the blank.
    pub fn classes(&self) -> usize {
        self.names.len()
    }

    /// The names of phonemes.
    pub fn spoken(&self, phonemes: &[usize]) -> String {
        phonemes.iter().map(|&phoneme| self.names[phoneme]).collect::<Vec<_>>().join(" ")
    }
}

/// Words as a batch: ids of letters, `[2 n, B]`, each letter twice, the second time with another id; and the lengths.
pub fn batch(words: &[&Word]) -> (Array2<u8>, Vec<usize>) {
    let lengths: Vec<usize> = words.iter().map(|word| STEPS * word.letters.len()).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let ids = Array2::from_shape_fn((longest, words.len()), |(t, b)| {
        words[b].letters.get(t / STEPS).map_or(0, |&letter| letter + (t % STEPS * LETTERS) as u8)
    });
    (ids, lengths)
}
