//! Choices made by the bytes of an input.

/// Reads choices from bytes. After the last byte every choice is the first one, so all inputs are valid and shorter inputs are simpler.
pub struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Choices { bytes }
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        byte
    }

    /// A number in `0..count`, at most 256.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) * count / 256
    }

    pub fn yes(&mut self) -> bool {
        self.below(2) == 1
    }

    /// True once in `times` times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    pub fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    /// A text of some of `characters`.
    pub fn text(&mut self, characters: &str) -> String {
        let characters: Vec<char> = characters.chars().collect();
        (0..self.below(8)).map(|_| characters[self.below(characters.len())]).collect()
    }

    /// A usual setting, or an unusual one.
    pub fn float(&mut self) -> f64 {
        let ordinary = [0.0, 1.0, 0.1, 0.5, 0.9, 0.999, 1e-8, 3.0];
        let odd = [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 1e-320, -0.0];
        match self.below(4) {
            0..=2 => self.one_of(&ordinary),
            _ if self.yes() => self.one_of(&odd),
            _ => f64::from_bits(self.number()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
