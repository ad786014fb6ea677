//! The baseline: what each letter is mostly spoken as between its neighbours, looked up.

use std::collections::HashMap;

use crate::words::{LETTERS, Word};

/// What a letter is spoken as: up to two phonemes; 0 is none.
type Chunk = [usize; 2];

/// Rounds of finding which phonemes belong to which letter.
const ROUNDS: usize = 10;

/// What stands beside the first and the last letter.
const END: u8 = LETTERS as u8;

/// For each letter between up to `width` neighbours on both sides, what it is mostly spoken as.
pub struct Lookup {
    /// By the number of neighbours on each side.
    tables: Vec<HashMap<Vec<u8>, Chunk>>,
}

/// How often each letter is spoken as each chunk.
#[derive(Default)]
struct Counts {
    pairs: HashMap<(u8, Chunk), f64>,
    letters: HashMap<u8, f64>,
}

impl Counts {
    fn add(&mut self, letter: u8, chunk: Chunk) {
        *self.pairs.entry((letter, chunk)).or_default() += 1.0;
        *self.letters.entry(letter).or_default() += 1.0;
    }

    /// -ln p(chunk | letter), with a tenth of an occurrence for what was never seen.
    fn cost(&self, letter: u8, chunk: Chunk) -> f64 {
        let of = self.letters.get(&letter).copied().unwrap_or(0.0);
        -((self.pairs.get(&(letter, chunk)).copied().unwrap_or(0.0) + 0.1) / (of + 100.0)).ln()
    }

    /// The chunks of a word's letters that are likeliest together.
    fn align(&self, word: &Word) -> Vec<Chunk> {
        let (letters, phonemes) = (&word.letters, &word.phonemes);
        // best[i][j]: the cost of the first i letters as the first j phonemes, and how many the last of them has.
        let mut best = vec![vec![(f64::INFINITY, 0); phonemes.len() + 1]; letters.len() + 1];
        best[0][0].0 = 0.0;
        for (i, &letter) in letters.iter().enumerate() {
            for j in 0..=phonemes.len() {
                for count in 0..=(phonemes.len() - j).min(2) {
                    let cost = best[i][j].0 + self.cost(letter, chunk(&phonemes[j..j + count]));
                    if cost < best[i + 1][j + count].0 {
                        best[i + 1][j + count] = (cost, count);
                    }
                }
            }
        }
        let mut end = phonemes.len();
        let mut chunks: Vec<Chunk> = (1..=letters.len())
            .rev()
            .map(|i| {
                let count = best[i][end].1;
                end -= count;
                chunk(&phonemes[end..end + count])
            })
            .collect();
        chunks.reverse();
        chunks
    }
}

fn chunk(phonemes: &[usize]) -> Chunk {
    [phonemes.first().copied().unwrap_or(0), phonemes.get(1).copied().unwrap_or(0)]
}

/// A letter and `width` neighbours on each side.
fn context(letters: &[u8], at: usize, width: usize) -> Vec<u8> {
    let letter = |k: usize| (k.checked_sub(width)).and_then(|k| letters.get(k)).copied().unwrap_or(END);
    (at..=at + 2 * width).map(letter).collect()
}

impl Lookup {
    /// Learned from `words`. Which phonemes belong to which letter is found in rounds: each word is aligned by what the letters
    /// were spoken as in the round before, at first evenly.
    pub fn learn(words: &[Word], width: usize) -> Lookup {
        let mut counts = Counts::default();
        for word in words {
            let (n, m) = (word.letters.len(), word.phonemes.len());
            for (i, &letter) in word.letters.iter().enumerate() {
                counts.add(letter, chunk(&word.phonemes[i * m / n..(i + 1) * m / n]));
            }
        }
        for _ in 0..ROUNDS {
            let mut next = Counts::default();
            for word in words {
                word.letters.iter().zip(counts.align(word)).for_each(|(&letter, chunk)| next.add(letter, chunk));
            }
            counts = next;
        }
        let mut seen = vec![HashMap::<Vec<u8>, HashMap<Chunk, usize>>::new(); width + 1];
        for word in words {
            for (at, chunk) in counts.align(word).into_iter().enumerate() {
                for (width, seen) in seen.iter_mut().enumerate() {
                    *seen.entry(context(&word.letters, at, width)).or_default().entry(chunk).or_default() += 1;
                }
            }
        }
        // Of equally frequent ones the first by number, so that a run is like the next.
        let most = |chunks: HashMap<Chunk, usize>| {
            chunks.into_iter().max_by_key(|&(chunk, count)| (count, std::cmp::Reverse(chunk))).expect("seen").0
        };
        let table = |seen: HashMap<_, _>| seen.into_iter().map(|(context, chunks)| (context, most(chunks))).collect();
        Lookup { tables: seen.into_iter().map(table).collect() }
    }

    /// The phonemes of a word: of each letter by as many neighbours, up to `width`, as were seen with it.
    pub fn speak(&self, letters: &[u8], width: usize) -> Vec<usize> {
        let chunk = |at: usize| {
            let known = |width: usize| self.tables[width].get(&context(letters, at, width)).copied();
            (0..=width).rev().find_map(known).unwrap_or_default()
        };
        (0..letters.len()).flat_map(chunk).filter(|&phoneme| phoneme != 0).collect()
    }
}
