//! How training went, as numbers and as a picture.

use std::error::Error;
use std::fmt;

use gradflow::io::{Checkpoint, LoadError};
use gradflow::ndarray::{Array1, Array2};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::common::Failure;

pub const WIDTH: u32 = 830;
pub const HEIGHT: u32 = 470;
pub const FONT: (&str, u32) = ("sans-serif", 17);

/// The weight that one update's loss has in the smoothed loss.
const SMOOTHING: f64 = 0.02;

/// The most points that the training curve is drawn with.
const POINTS: usize = 300;

/// A colour of the picture, told from the others by its lightness too.
pub const TRAINING: RGBColor = RGBColor(90, 140, 200);
pub const VALIDATION: RGBColor = RGBColor(150, 30, 20);

/// Bits per character over characters seen.
pub struct Curve {
    /// Characters of one update.
    stride: usize,
    /// Smoothed training loss after each update.
    training: Vec<f64>,
    /// Validation loss: after how many updates, and what it was.
    validation: Vec<(usize, f64)>,
}

impl Curve {
    /// For updates of `stride` characters each.
    pub fn new(stride: usize) -> Self {
        Curve { stride, training: Vec::new(), validation: Vec::new() }
    }

    /// An update's training loss.
    pub fn trained(&mut self, bits: f64) {
        // A plain mean at first: the average must not start at a single batch and stay near it.
        let weight = SMOOTHING.max(1.0 / (self.training.len() + 1) as f64);
        let before = self.training.last().copied().unwrap_or(bits);
        self.training.push(before + weight * (bits - before));
    }

    /// The validation loss, now.
    pub fn validated(&mut self, bits: f64) {
        self.validation.push((self.training.len(), bits));
    }

    /// The last validation loss.
    pub fn last_validation(&self) -> f64 {
        self.validation.last().map_or(f64::NAN, |&(_, bits)| bits)
    }

    /// How many updates there were.
    pub fn updates(&self) -> usize {
        self.training.len()
    }

    /// The checkpoint, with this curve.
    pub fn saved(&self, checkpoint: Checkpoint) -> Checkpoint {
        let validation: Vec<_> = self.validation.iter().map(|&(update, bits)| [update as f64, bits]).collect();
        let checkpoint = checkpoint.with_tensors("training_curve", &Array1::from_vec(self.training.clone()));
        checkpoint.with_tensors("validation_curve", &Array2::from(validation))
    }

    /// The curve that a checkpoint of `updates` updates was saved with.
    ///
    /// # Errors
    /// Where it has none.
    pub fn load(&mut self, checkpoint: &Checkpoint, updates: usize) -> Result<(), LoadError> {
        let validations = checkpoint.state_dict().shape("validation_curve").map_or(0, |shape| shape[0]);
        let (mut training, mut validation) = (Array1::<f64>::zeros(updates), Array2::<f64>::zeros((validations, 2)));
        checkpoint.load_tensors("training_curve", &mut training)?;
        checkpoint.load_tensors("validation_curve", &mut validation)?;
        self.training = training.to_vec();
        self.validation = validation.rows().into_iter().map(|row| (row[0] as usize, row[1])).collect();
        Ok(())
    }

    /// How many characters were seen.
    pub fn characters(&self) -> f64 {
        (self.training.len() * self.stride) as f64
    }

    fn millions(&self, updates: usize) -> f64 {
        (updates * self.stride) as f64 / 1e6
    }

    /// The picture.
    ///
    /// # Errors
    /// Where it cannot be drawn.
    pub fn svg(&self, cell: &str, unigram: f64, trigram: f64) -> Result<String, Failure> {
        let mut svg = String::new();
        let drawn = self.draw(&mut svg, cell, unigram, trigram);
        drawn.map(|()| svg).map_err(|error| Failure::Run(format!("the picture: {error}")))
    }

    fn draw(&self, svg: &mut String, cell: &str, unigram: f64, trigram: f64) -> Result<(), Box<dyn Error>> {
        // A few hundred points, the last one among them: more would only draw stairs.
        let sparse = self.training.len().div_ceil(POINTS);
        let points = (1..).map(|update| self.millions(update)).zip(self.training.iter().copied());
        let training: Vec<_> = points.skip((self.training.len() - 1) % sparse).step_by(sparse).collect();
        let validation: Vec<_> = self.validation.iter().map(|&(update, bits)| (self.millions(update), bits)).collect();
        let end = self.millions(self.training.len());
        let highest = training.iter().chain(&validation).fold(unigram, |highest, &(_, bits)| bits.max(highest));

        let root = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(14)
            .margin_right(24)
            .x_label_area_size(52)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..end, 0.0..(highest + 0.2).ceil())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.08))
            .label_style(FONT)
            .axis_desc_style(FONT)
            .x_desc("characters seen (millions)")
            .y_desc("bits per character")
            .x_label_formatter(&|x| if end < 0.5 { format!("{x:.2}") } else { format!("{x:.1}") })
            .draw()?;

        // Each line has its name at its end, a little above or below it.
        let label = |text: String, y: f64, vertical: VPos, color| {
            let style = FONT.into_text_style(&root).color(color).pos(Pos::new(HPos::Right, vertical));
            let gap = if matches!(vertical, VPos::Top) { 7 } else { -7 };
            EmptyElement::at((end, y)) + Text::new(text, (0, gap), style)
        };
        for (name, bits, dash) in [("unigram", unigram, 2), ("trigram", trigram, 9)] {
            let line = [(0.0, bits), (end, bits)];
            chart.draw_series(DashedLineSeries::new(line, dash, 5, BLACK.stroke_width(2)))?;
            let free = if self.last_validation() < bits { VPos::Bottom } else { VPos::Top };
            chart.draw_series([label(format!("{name} {bits:.2}"), bits, free, &BLACK)])?;
        }
        let (trained, validated) = (self.training.last().copied().unwrap_or(highest), self.last_validation());
        chart.draw_series(LineSeries::new(training, TRAINING.stroke_width(2)))?;
        chart.draw_series([label(format!("{cell}, training (smoothed)"), trained, VPos::Top, &TRAINING)])?;
        chart.draw_series(LineSeries::new(validation.iter().copied(), VALIDATION.stroke_width(3)))?;
        chart.draw_series(validation.iter().map(|&point| Circle::new(point, 4, VALIDATION.filled())))?;
        let name = format!("{cell}, validation {validated:.2}");
        chart.draw_series([label(name, validated, VPos::Bottom, &VALIDATION)])?;
        root.present()?;
        Ok(())
    }
}

/// The losses of now, for a line of progress.
impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} bits/char", self.training.last().copied().unwrap_or(f64::NAN))?;
        match self.validation.last() {
            Some((_, bits)) => write!(f, ", {bits:.3} validation"),
            None => Ok(()),
        }
    }
}
