//! How far back a loss reaches: gradient norms over the distance in time, as a table and as a picture.

use std::error::Error;

use gradflow::LayerFlow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::common::Failure;
use crate::curve::{FONT, HEIGHT, TRAINING, VALIDATION, WIDTH};

/// The gradient norms of a loss that looks at the last step only, by the distance from there.
pub struct Flow {
    /// The name of each line, and its norms from distance 0 on.
    lines: Vec<(&'static str, Vec<f64>)>,
}

impl Flow {
    /// Of the recurrent cell's states.
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
    /// Where it cannot be drawn.
    pub fn svg(&self, cell: &str) -> Result<String, Failure> {
        let mut svg = String::new();
        let drawn = self.draw(&mut svg, cell);
        drawn.map(|()| svg).map_err(|error| Failure::Run(format!("the picture: {error}")))
    }

    fn draw(&self, svg: &mut String, cell: &str) -> Result<(), Box<dyn Error>> {
        // Whole powers of ten around all norms that have a place on a logarithmic axis.
        let powers = self.lines.iter().flat_map(|(_, norms)| norms).filter(|&&norm| drawable(norm)).map(|x| x.log10());
        let (lowest, highest) = powers.fold((0.0_f64, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let (lowest, highest) = (lowest.floor(), highest.ceil().max(lowest.floor() + 1.0));
        let end = self.farthest().max(1) as f64;

        let root = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(14)
            .margin_right(24)
            .x_label_area_size(52)
            .y_label_area_size(76)
            .build_cartesian_2d(0.0..end, lowest..highest)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.08))
            .label_style(FONT)
            .axis_desc_style(FONT)
            .x_desc("distance from the step of the loss (characters)")
            .y_desc("norm of the gradient (nats)")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_labels((highest - lowest).min(9.0) as usize + 1)
            .y_label_formatter(&|power| if power.fract() == 0.0 { format!("1e{power}") } else { String::new() })
            .draw()?;

        for (line, ((name, norms), color)) in self.lines.iter().zip([VALIDATION, TRAINING]).enumerate() {
            let points: Vec<_> = norms.iter().enumerate().map(|(distance, &norm)| (distance as f64, norm)).collect();
            // A norm of 0 has no place: the line is interrupted.
            for run in points.split(|&(_, norm)| !drawable(norm)) {
                let run = run.iter().map(|&(distance, norm)| (distance, norm.log10()));
                chart.draw_series(LineSeries::new(run, color.stroke_width(3)))?;
            }
            let zeros = norms.iter().filter(|&&norm| norm == 0.0).count();
            let zeros = if zeros == 0 { String::new() } else { format!(", 0 at {zeros} of {} distances", norms.len()) };
            // The names are where a gradient that fades is not.
            let style = FONT.into_text_style(&root).color(&color).pos(Pos::new(HPos::Right, VPos::Top));
            let label = Text::new(format!("{cell}, ‖{name}‖{zeros}"), (0, 8 + 24 * line as i32), style);
            chart.draw_series([EmptyElement::at((end, highest)) + label])?;
        }
        root.present()?;
        Ok(())
    }
}

fn drawable(norm: f64) -> bool {
    norm > 0.0 && norm.is_finite()
}
