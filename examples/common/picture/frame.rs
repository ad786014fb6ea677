//! The rectangle of a plot, with its axes.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::scale::Scale;
use super::{Area, Drawn, FONT, stroke, text, upright};

/// The grey of a grid.
const GRID: RGBColor = RGBColor(225, 225, 225);

/// A rectangle of pixels with a scale along each side.
pub struct Frame {
    pub left: i32,
    pub right: i32,
    pub top: i32,
    pub bottom: i32,
    pub x: Scale,
    pub y: Scale,
}

impl Frame {
    /// Draws grid, axes, numbers and labels; `below` pixels at the bottom are kept for zeros.
    pub fn draw(&self, area: &Area<'_>, x_name: &str, y_name: &str, below: i32) -> Drawn {
        let (left, right, top, bottom) = (self.left, self.right, self.top, self.bottom + below);
        for (place, label) in self.y.ticks(((self.bottom - top) / 45).max(2) as usize) {
            let y = self.bottom - (place * f64::from(self.bottom - top)).round() as i32;
            stroke(area, (left, y), (right, y), GRID.stroke_width(1))?;
            text(area, &label, (left - 6, y), (HPos::Right, VPos::Center), BLACK)?;
        }
        if below > 0 {
            text(area, "0", (left - 6, bottom - below / 2 + 2), (HPos::Right, VPos::Center), BLACK)?;
        }
        for (place, label) in self.x.ticks(((right - left) / 70).max(2) as usize) {
            let x = left + (place * f64::from(right - left)).round() as i32;
            stroke(area, (x, bottom), (x, bottom + 5), BLACK.stroke_width(1))?;
            text(area, &label, (x, bottom + 9), (HPos::Center, VPos::Top), BLACK)?;
        }
        stroke(area, (left, top), (left, bottom), BLACK.stroke_width(1))?;
        stroke(area, (left, bottom), (right, bottom), BLACK.stroke_width(1))?;
        text(area, x_name, ((left + right) / 2, bottom + 30), (HPos::Center, VPos::Top), BLACK)?;
        upright(area, y_name, (FONT.1 as i32 * 2 / 3, (top + bottom) / 2))
    }

    /// Draws axes and numbers around a surface, without a grid.
    pub fn draw_over(&self, area: &Area<'_>) -> Drawn {
        let Frame { left, right, top, bottom, .. } = *self;
        for (place, label) in self.y.ticks(8) {
            let y = bottom - (place * f64::from(bottom - top)).round() as i32;
            stroke(area, (left - 4, y), (left, y), BLACK.stroke_width(1))?;
            text(area, &label, (left - 6, y), (HPos::Right, VPos::Center), BLACK)?;
        }
        for (place, label) in self.x.ticks(((right - left) / 70).max(2) as usize) {
            let x = left + (place * f64::from(right - left)).round() as i32;
            stroke(area, (x, bottom), (x, bottom + 4), BLACK.stroke_width(1))?;
            text(area, &label, (x, bottom + 9), (HPos::Center, VPos::Top), BLACK)?;
        }
        area.draw(&Rectangle::new([(left, top), (right, bottom)], BLACK.stroke_width(1)))?;
        Ok(())
    }

    /// The place of a point, in pixels; not finite if it has none.
    pub fn pixel(&self, x: f64, y: f64) -> (f64, f64) {
        let (width, height) = (f64::from(self.right - self.left), f64::from(self.bottom - self.top));
        (f64::from(self.left) + self.x.place(x) * width, f64::from(self.bottom) - self.y.place(y) * height)
    }

    /// The nearest pixel within the frame.
    pub fn held(&self, (x, y): (f64, f64)) -> (i32, i32) {
        let x = x.clamp(f64::from(self.left), f64::from(self.right));
        (x.round() as i32, y.clamp(f64::from(self.top), f64::from(self.bottom)).round() as i32)
    }

    /// The pixel of a point, if that is within the frame.
    pub fn inside(&self, x: f64, y: f64, zero: Option<i32>) -> Option<(i32, i32)> {
        let (px, py) = self.pixel(x, y);
        let x_inside = (f64::from(self.left) - 0.5..=f64::from(self.right) + 0.5).contains(&px);
        match zero {
            Some(zero) if y == 0.0 => x_inside.then_some((px.round() as i32, zero)),
            _ => {
                let inside = x_inside && (f64::from(self.top) - 0.5..=f64::from(self.bottom) + 0.5).contains(&py);
                inside.then(|| (px.round() as i32, py.round() as i32))
            }
        }
    }

    /// A line's visible pieces, in pixels. On a logarithmic axis zeros are pieces of their own, at the height `zero`.
    pub fn runs(&self, points: &[(f64, f64)], zero: Option<i32>) -> Vec<Vec<(i32, i32)>> {
        let mut runs: Vec<Vec<(i32, i32)>> = Vec::new();
        let mut add = |from: (i32, i32), to: (i32, i32)| match runs.last_mut() {
            Some(run) if run.last() == Some(&from) => {
                if from != to {
                    run.push(to);
                }
            }
            _ => runs.push(vec![from, to]),
        };
        for pair in points.windows(2) {
            let [from, to] = [pair[0], pair[1]];
            match zero {
                Some(zero) if from.1 == 0.0 && to.1 == 0.0 => {
                    let [from, to] = [from, to].map(|(x, _)| (self.held((self.pixel(x, 1.0).0, 0.0)).0, zero));
                    add(from, to);
                }
                _ => {
                    if let Some((from, to)) = self.cut(self.pixel(from.0, from.1), self.pixel(to.0, to.1)) {
                        add(from, to);
                    }
                }
            }
        }
        runs.into_iter().map(|run| sparse(&run)).collect()
    }

    /// The part of a segment that is within the frame (Liang and Barsky 1984).
    fn cut(&self, from: (f64, f64), to: (f64, f64)) -> Option<((i32, i32), (i32, i32))> {
        if ![from.0, from.1, to.0, to.1].iter().all(|value| value.is_finite()) {
            return None;
        }
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let (mut start, mut end) = (0.0_f64, 1.0_f64);
        for (direction, room) in [
            (-dx, from.0 - f64::from(self.left)),
            (dx, f64::from(self.right) - from.0),
            (-dy, from.1 - f64::from(self.top)),
            (dy, f64::from(self.bottom) - from.1),
        ] {
            if direction == 0.0 && room < -0.5 {
                return None;
            } else if direction < 0.0 {
                start = start.max(room / direction);
            } else if direction > 0.0 {
                end = end.min(room / direction);
            }
        }
        let at = |part: f64| self.held((from.0 + part * dx, from.1 + part * dy));
        (start <= end).then(|| (at(start), at(end)))
    }
}

/// Drops points that are less than two pixels from the one before: a path has thousands of them, which would be invisible.
fn sparse(run: &[(i32, i32)]) -> Vec<(i32, i32)> {
    let mut kept: Vec<(i32, i32)> = Vec::new();
    for (k, &(x, y)) in run.iter().enumerate() {
        let far = kept.last().is_none_or(|before| (x - before.0).abs() > 1 || (y - before.1).abs() > 1);
        if far || k + 1 == run.len() {
            kept.push((x, y));
        }
    }
    kept
}
