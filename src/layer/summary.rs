//! The layers of a model as a table.

use std::fmt;

use crate::base::Tensors;

/// A line for each layer of a model with its name, its type, its number of parameters and their shapes; and the total.
///
/// [`Layer::summary`](super::Layer::summary) makes it; the layers of this crate print as their summaries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    lines: Vec<Line>,
    depth: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Line {
    name: String,
    layer: String,
    parameters: usize,
    shapes: String,
}

impl Summary {
    /// Adds a line for a layer called `name`, with its own tensors.
    #[doc(hidden)]
    pub fn add<F>(&mut self, name: &str, layer: &str, tensors: &impl Tensors<F>) {
        let shapes = (0..tensors.count()).map(|i| format!("{} {:?}", tensors.name(i), tensors.tensor(i).0));
        self.lines.push(Line {
            name: format!("{:1$}{name}", "", 2 * self.depth),
            layer: short(layer),
            parameters: (0..tensors.count()).map(|i| tensors.tensor(i).1.len()).sum(),
            shapes: shapes.map(|shape| shape.trim_start().to_owned()).collect::<Vec<_>>().join(", "),
        });
    }

    /// Adds lines for the layers inside the layer of the last line.
    #[doc(hidden)]
    pub fn inside(&mut self, describe: impl FnOnce(&mut Summary)) {
        self.depth += 1;
        describe(self);
        self.depth -= 1;
    }

    /// The number of parameters of all layers together.
    pub fn parameters(&self) -> usize {
        self.lines.iter().map(|line| line.parameters).sum()
    }
}

/// A type's name without the paths in it.
pub(super) fn short(type_name: &str) -> String {
    let mut short = String::new();
    for part in type_name.split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        short.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    short
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&Line) -> usize, least: usize| self.lines.iter().map(of).max().unwrap_or(0).max(least);
        let name = width(|line| line.name.chars().count(), 5);
        let layer = width(|line| line.layer.chars().count(), 5);
        writeln!(f, "{:name$}  {:layer$}  {:>10}  shapes", "name", "layer", "parameters")?;
        for Line { name: called, layer: kind, parameters, shapes } in &self.lines {
            writeln!(f, "{}", format!("{called:name$}  {kind:layer$}  {parameters:>10}  {shapes}").trim_end())?;
        }
        write!(f, "{:name$}  {:layer$}  {:>10}", "total", "", self.parameters())
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn names_of_types_lose_their_paths() {
        assert_eq!(short("a::b::Outer<c::Inner<f32>, 1>"), "Outer<Inner<f32>, 1>");
        assert_eq!(short("f64"), "f64");
    }
}
