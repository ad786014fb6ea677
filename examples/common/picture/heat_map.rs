//! Numbers over a plane, as lightness.

use std::ops::Range;

use gradflow::ndarray::Array2;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::frame::Frame;
use super::line::Line;
use super::scale::Scale;
use super::{Area, Drawn, Panel, stroke, text, upright, width};

/// How many shades there are.
const SHADES: usize = 16;

/// The colours between which shades are interpolated, from the lowest number to the highest: lightness always falls.
const COLORS: [RGBColor; 4] =
    [RGBColor(250, 250, 245), RGBColor(170, 205, 225), RGBColor(70, 125, 175), RGBColor(15, 35, 80)];

/// A table of numbers as shades, light for low numbers. A surface can have paths on it.
pub struct HeatMap {
    values: Array2<f64>, // [rows, columns]
    axes: Axes,
    title: String,
    names: [String; 3], // of x, y and the values
    log: bool,
    range: Option<Range<f64>>,
    paths: Vec<Line>,
}

enum Axes {
    /// Row 0 is at the bottom.
    Surface(Range<f64>, Range<f64>),
    /// Rows, from the top, and columns.
    Names(Vec<String>, Vec<String>),
}

impl HeatMap {
    /// The map of a function of two numbers: `values`, `[rows, columns]`, taken at the middles of the cells into which the ranges
    /// are divided; row 0 is the lowest y.
    pub fn surface(values: Array2<f64>, x: Range<f64>, y: Range<f64>) -> Self {
        Self::new(values, Axes::Surface(x, y))
    }

    /// The map of a table whose rows, from the top, and columns have names.
    pub fn table(values: Array2<f64>, rows: Vec<String>, columns: Vec<String>) -> Self {
        assert_eq!(values.dim(), (rows.len(), columns.len()), "one name for each row and column");
        Self::new(values, Axes::Names(rows, columns))
    }

    fn new(values: Array2<f64>, axes: Axes) -> Self {
        let names = Default::default();
        HeatMap { values, axes, title: String::new(), names, log: false, range: None, paths: Vec::new() }
    }

    /// With these labels of the axes and of the scale of shades, which include units.
    pub fn names(self, x: impl Into<String>, y: impl Into<String>, values: impl Into<String>) -> Self {
        HeatMap { names: [x.into(), y.into(), values.into()], ..self }
    }

    /// With a title above.
    pub fn title(self, title: impl Into<String>) -> Self {
        HeatMap { title: title.into(), ..self }
    }

    /// With shades by the logarithm; numbers that are not above 0 have the lightest.
    pub fn log(self) -> Self {
        HeatMap { log: true, ..self }
    }

    /// With this range instead of that of the values; numbers outside have the shade of the nearest end.
    pub fn range(self, range: Range<f64>) -> Self {
        HeatMap { range: Some(range), ..self }
    }

    /// With a path over it; if the path has a name, that is shown at the bottom.
    pub fn path(mut self, path: Line) -> Self {
        self.paths.push(path);
        self
    }

    /// Rectangles of one shade each: row and column ranges. Equal neighbours are merged, which keeps a picture small.
    fn rectangles(&self, scale: &Scale) -> Vec<(Range<usize>, Range<usize>, Option<usize>)> {
        let shades = self.values.map(|&value| shade(scale, value));
        let (rows, columns) = shades.dim();
        let mut done = Array2::from_elem((rows, columns), false);
        let mut rectangles = Vec::new();
        for row in 0..rows {
            for column in 0..columns {
                if done[[row, column]] {
                    continue;
                }
                let own = shades[[row, column]];
                let free = |r: usize, c: usize| !done[[r, c]] && shades[[r, c]] == own;
                let right = (column..columns).find(|&c| !free(row, c)).unwrap_or(columns);
                let below = (row..rows).find(|&r| !(column..right).all(|c| free(r, c))).unwrap_or(rows);
                done.slice_mut(gradflow::ndarray::s![row..below, column..right]).fill(true);
                rectangles.push((row..below, column..right, own));
            }
        }
        // Sorted by shade, so that a picture needs to name each shade only once.
        rectangles.sort_by_key(|&(.., shade)| shade);
        rectangles
    }
}

/// The shade of a value; `None` for NaN, which has its own colour.
fn shade(scale: &Scale, value: f64) -> Option<usize> {
    let place = if scale.is_log() && value <= 0.0 { 0.0 } else { scale.place(value) };
    (!place.is_nan()).then(|| ((place.clamp(0.0, 1.0) * SHADES as f64) as usize).min(SHADES - 1))
}

fn color(shade: Option<usize>) -> RGBColor {
    let Some(shade) = shade else { return RGBColor(255, 120, 200) };
    let place = shade as f64 / (SHADES - 1) as f64 * (COLORS.len() - 1) as f64;
    let below = (place as usize).min(COLORS.len() - 2);
    let (RGBColor(r, g, b), RGBColor(s, h, c)) = (COLORS[below], COLORS[below + 1]);
    let mix = |low: u8, high: u8| {
        (f64::from(low) + (place - below as f64) * (f64::from(high) - f64::from(low))).round() as u8
    };
    RGBColor(mix(r, s), mix(g, h), mix(b, c))
}

impl Panel for HeatMap {
    fn draw(&self, area: &Area<'_>) -> Drawn {
        let scale = match &self.range {
            Some(range) => Scale::new(range.clone(), self.log),
            None => Scale::exactly(self.values.iter().copied(), self.log),
        };
        let (area_width, area_height) = area.dim_in_pixel();
        let (x, y, row_width) = match &self.axes {
            Axes::Surface(x, y) => {
                let y = Scale::new(y.clone(), false);
                let labels = y.ticks(8).iter().map(|(_, label)| width(label)).max().unwrap_or(0);
                (Scale::new(x.clone(), false), y, labels)
            }
            Axes::Names(rows, columns) => (
                Scale::new(0.0..columns.len() as f64, false),
                Scale::new(0.0..rows.len() as f64, false),
                rows.iter().map(|name| width(name)).max().unwrap_or(0),
            ),
        };
        let paths = if self.paths.iter().all(|path| path.name().is_empty()) { 0 } else { 24 };
        let bar = 92; // the scale of shades, with its numbers
        let frame = Frame {
            left: 34 + row_width,
            right: area_width as i32 - bar,
            top: if self.title.is_empty() { 14 } else { 36 },
            bottom: area_height as i32 - 52 - paths,
            x,
            y,
        };
        text(area, &self.title, (frame.left, 8), (HPos::Left, VPos::Top), BLACK)?;
        let from_top = matches!(self.axes, Axes::Names(..));
        let (rows, columns) = self.values.dim();
        let across = |column: usize| frame.left + ((frame.right - frame.left) as usize * column / columns) as i32;
        let down = |row: usize| ((frame.bottom - frame.top) as usize * row / rows) as i32;
        for (rows, columns, shade) in self.rectangles(&scale) {
            let (low, high) = (down(rows.start), down(rows.end));
            let (y0, y1) =
                if from_top { (frame.top + low, frame.top + high) } else { (frame.bottom - high, frame.bottom - low) };
            let corners = [(across(columns.start), y0), (across(columns.end), y1)];
            area.draw(&Rectangle::new(corners, color(shade).filled()))?;
        }
        match &self.axes {
            Axes::Surface(..) => frame.draw_over(area)?,
            Axes::Names(rows, columns) => {
                let middle = |start: i32, end: i32| (start + end) / 2;
                for (k, name) in rows.iter().enumerate() {
                    let y = frame.top + middle(down(k), down(k + 1));
                    text(area, name, (frame.left - 6, y), (HPos::Right, VPos::Center), BLACK)?;
                }
                for (k, name) in columns.iter().enumerate() {
                    let x = middle(across(k), across(k + 1));
                    text(area, name, (x, frame.bottom + 9), (HPos::Center, VPos::Top), BLACK)?;
                }
                area.draw(&Rectangle::new(
                    [(frame.left, frame.top), (frame.right, frame.bottom)],
                    BLACK.stroke_width(1),
                ))?;
            }
        }
        let [x_name, y_name, value_name] = &self.names;
        text(area, x_name, ((frame.left + frame.right) / 2, frame.bottom + 30), (HPos::Center, VPos::Top), BLACK)?;
        upright(area, y_name, (10, (frame.top + frame.bottom) / 2))?;

        // The scale of the shades.
        let (left, right) = (frame.right + 14, frame.right + 30);
        let height = |place: f64| frame.bottom - (place * f64::from(frame.bottom - frame.top)).round() as i32;
        for k in 0..SHADES {
            let (low, high) = (height(k as f64 / SHADES as f64), height((k + 1) as f64 / SHADES as f64));
            area.draw(&Rectangle::new([(left, high), (right, low)], color(Some(k)).filled()))?;
        }
        area.draw(&Rectangle::new([(left, frame.top), (right, frame.bottom)], BLACK.stroke_width(1)))?;
        for (place, label) in scale.ticks(8) {
            let y = height(place);
            stroke(area, (right, y), (right + 4, y), BLACK.stroke_width(1))?;
            text(area, &label, (right + 7, y), (HPos::Left, VPos::Center), BLACK)?;
        }
        upright(area, value_name, (area_width as i32 - 10, (frame.top + frame.bottom) / 2))?;

        for path in &self.paths {
            path.draw_halo(area, &frame)?;
        }
        let mut x = frame.left;
        for path in &self.paths {
            path.draw(area, &frame, None)?;
            if path.name().is_empty() {
                continue;
            }
            let y = area_height as i32 - 12;
            path.draw_sample(area, (x, y), (x + 26, y))?;
            text(area, path.name(), (x + 32, y), (HPos::Left, VPos::Center), path.color())?;
            x += 50 + width(path.name());
        }
        Ok(())
    }
}
