//! The states that the paths of one sequence go through.

/// `l'`: the labels with blanks around them.
#[derive(Debug, Default)]
pub struct Path {
    /// The class of each state, `[2 S + 1]`.
    pub classes: Vec<usize>,
    blank: usize,
}

impl Path {
    pub fn set(&mut self, blank: usize, labels: impl Iterator<Item = usize>) {
        self.blank = blank;
        self.classes.clear();
        self.classes.push(blank);
        labels.for_each(|label| self.classes.extend([label, blank]));
    }

    /// Whether a path may go from `s - 2` to `s`, skipping the blank between two labels that differ.
    #[inline]
    pub fn skips(&self, s: usize) -> bool {
        s >= 2 && self.classes[s] != self.blank && self.classes[s] != self.classes[s - 2]
    }
}
