//! The baseline: a lookup table of the most frequent pronunciation of each letter between its neighbours.

use std::collections::HashMap;

use crate::words::{LETTERS, Word};

/// The pronunciation of a letter: up to two phonemes; 0 is none.
type Chunk = [usize; 2];

/// Rounds of the alignment of letters and phonemes.
const ROUNDS: usize = 10;

/// The neighbour before the first and after the last letter.
const END: u8 = LETTERS as u8;

/// The most frequent pronunciation of each letter between up to `width` neighbours on each side.
pub struct Lookup {
    /// The tables, by the number of neighbours on each side.
    tables: Vec<HashMap<Vec<u8>, Chunk>>,
}

/// Counts of each letter's pronunciations.
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

    /// -ln p(chunk | letter), with a tenth of an occurrence added, for chunks that were never seen.
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
    /// Learns the table from `words`. Letters and phonemes are aligned in rounds: each word by the pronunciations of the round
    /// before, at first evenly.
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
        // Of equally frequent ones the first by number, so that runs are reproducible.
        let most = |chunks: HashMap<Chunk, usize>| {
            chunks.into_iter().max_by_key(|&(chunk, count)| (count, std::cmp::Reverse(chunk))).expect("seen").0
        };
        let table = |seen: HashMap<_, _>| seen.into_iter().map(|(context, chunks)| (context, most(chunks))).collect();
        Lookup { tables: seen.into_iter().map(table).collect() }
    }

    /// The phonemes of a word: each letter is looked up with as many neighbours, up to `width`, as were seen with it.
    pub fn speak(&self, letters: &[u8], width: usize) -> Vec<usize> {
        let chunk = |at: usize| {
            let known = |width: usize| self.tables[width].get(&context(letters, at, width)).copied();
            (0..=width).rev().find_map(known).unwrap_or_default()
        };
        (0..letters.len()).flat_map(chunk).filter(|&phoneme| phoneme != 0).collect()
    }
}
