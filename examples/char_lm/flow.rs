//! How far back a loss reaches: gradient norms over the distance in time, as a table and as a picture.

use gradflow::wrap::LayerFlow;

use crate::common::Failure;
use crate::common::picture::{Chart, Line, picture};
use crate::curve::HEIGHT;

/// The gradient norms of a loss at the last step only, by the distance from that step.
pub struct Flow {
    /// The name of each line, and its norms from distance 0 on.
    lines: Vec<(&'static str, Vec<f64>)>,
}

impl Flow {
    /// The norms of the recurrent cell's states.
    pub fn new(cell: &LayerFlow) -> Self {
        let states = [("dL/dh", &cell.hidden), ("dL/dc", &cell.memory)];
        let lines = states.into_iter().filter(|(_, norms)| !norms.is_empty());
        Flow { lines: lines.map(|(name, norms)| (name, norms.iter().rev().copied().collect())).collect() }
    }

    fn farthest(&self) -> usize {
        self.lines.iter().map(|(_, norms)| norms.len() - 1).max().unwrap_or(0)
    }

    /// The norms at the distances 1, 2, 4 … and the farthest.
    pub fn table(&self) -> String {
        let powers = (0..).map(|power| 1 << power).take_while(|&distance| distance < self.farthest());
        let distances: Vec<usize> = powers.chain([self.farthest()]).collect();
        let row = |name: &str, cells: Vec<String>| {
            cells.iter().fold(format!("  {name:<8}"), |row, cell| row + &format!(" {cell:>8}"))
        };
        let mut rows = vec![row("steps", distances.iter().map(ToString::to_string).collect())];
        for (name, norms) in &self.lines {
            rows.push(row(name, distances.iter().map(|&distance| format!("{:.1e}", norms[distance])).collect()));
        }
        rows.join("\n")
    }

    /// The picture.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn svg(&self, cell: &str) -> Result<String, Failure> {
        let empty = Chart::new("distance from the step of the loss (characters)", "norm of the gradient (nats)")
            .title(format!("How far the gradient of one character's loss reaches back in the {cell}"))
            .log_y();
        let chart = self.lines.iter().enumerate().fold(empty, |chart, (style, (name, norms))| {
            let points = norms.iter().enumerate().map(|(distance, &norm)| (distance as f64, norm));
            chart.line(Line::new(format!("‖{name}‖"), style, points.collect()))
        });
        picture(HEIGHT, &[&[&chart]])
    }
}
