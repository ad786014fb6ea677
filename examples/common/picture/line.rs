//! A line of a chart, or a path over a surface.

use plotters::prelude::*;

use super::frame::Frame;
use super::{Area, Drawn, STROKE, STYLES, stroke};

/// A line of a [`Chart`](super::Chart).
#[derive(Clone)]
pub struct Line {
    name: String,
    style: usize,
    points: Vec<(f64, f64)>,
    band: Vec<(f64, f64, f64)>, // x, lowest, highest
    markers: bool,
    ends: bool,
    width: u32,
}

impl Line {
    /// Through `points`, named beside its last one; `style` is 0 to 7.
    pub fn new(name: impl Into<String>, style: usize, points: Vec<(f64, f64)>) -> Self {
        let (name, style, band) = (name.into(), style % STYLES.len(), Vec::new());
        Line { name, style, points, band, markers: false, ends: false, width: STROKE }
    }

    /// With a light band behind it: x, lowest and highest.
    pub fn band(self, band: Vec<(f64, f64, f64)>) -> Self {
        Line { band, ..self }
    }

    /// With a mark at every point, shaped by its style.
    pub fn markers(self) -> Self {
        Line { markers: true, ..self }
    }

    /// With an open mark at its first point and a filled one at its last, for a path.
    pub fn ends(self) -> Self {
        Line { ends: true, ..self }
    }

    /// Thinner and without dashes: for a path that turns so often that dashes would be lost.
    pub fn thin(self) -> Self {
        Line { width: STROKE - 1, ..self }
    }

    /// Its points.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// All y values of the line and its band.
    pub fn heights(&self) -> impl Iterator<Item = f64> {
        let band = self.band.iter().flat_map(|&(_, low, high)| [low, high]);
        self.points.iter().map(|&(_, y)| y).chain(band)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its colour.
    pub fn color(&self) -> RGBColor {
        STYLES[self.style].0
    }

    /// Draws a white outline around it, so that it stands out from shades.
    pub fn draw_halo(&self, area: &Area<'_>, frame: &Frame) -> Drawn {
        for run in frame.runs(&self.points, None) {
            area.draw(&PathElement::new(run, WHITE.stroke_width(self.width + 2)))?;
        }
        Ok(())
    }

    /// Draws a short piece of it, for a legend.
    pub fn draw_sample(&self, area: &Area<'_>, from: (i32, i32), to: (i32, i32)) -> Drawn {
        stroke(area, from, to, self.color().stroke_width(self.width))
    }

    /// Draws it within `frame`.
    pub fn draw(&self, area: &Area<'_>, frame: &Frame, zero: Option<i32>) -> Drawn {
        let color = self.color();
        let band: Vec<_> = self.band.iter().filter(|(_, low, high)| low.is_finite() && high.is_finite()).collect();
        if band.len() > 1 {
            let edge = |x: f64, y: f64| frame.held(frame.pixel(x, y));
            let lower = band.iter().map(|&&(x, low, _)| edge(x, low));
            let upper = band.iter().rev().map(|&&(x, _, high)| edge(x, high));
            area.draw(&Polygon::new(lower.chain(upper).collect::<Vec<_>>(), color.mix(0.15)))?;
        }
        let runs = frame.runs(&self.points, zero);
        for run in runs {
            area.draw(&PathElement::new(run, color.stroke_width(self.width)))?;
        }
        let inside = |&(x, y): &(f64, f64)| frame.inside(x, y, zero);
        if self.markers {
            for at in self.points.iter().filter_map(inside) {
                self.mark(area, at, 4)?;
            }
        }
        if self.ends {
            if let Some(at) = self.points.first().and_then(inside) {
                area.draw(&Circle::new(at, 6, WHITE.filled()))?;
                area.draw(&Circle::new(at, 6, color.stroke_width(2)))?;
            }
            if let Some(at) = self.points.last().and_then(inside) {
                self.mark(area, at, 6)?;
            }
        }
        Ok(())
    }

    /// Draws a mark in the line's colour, shaped by its style.
    pub fn mark(&self, area: &Area<'_>, (x, y): (i32, i32), r: i32) -> Drawn {
        let color = self.color();
        let corners = match self.style % 4 {
            0 => return Ok(area.draw(&Circle::new((x, y), r, color.filled()))?),
            1 => vec![(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)],
            2 => vec![(x, y - r - 1), (x + r + 1, y + r), (x - r - 1, y + r)],
            _ => vec![(x, y - r - 2), (x + r + 2, y), (x, y + r + 2), (x - r - 2, y)],
        };
        Ok(area.draw(&Polygon::new(corners, color.filled()))?)
    }
}
