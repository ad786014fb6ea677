//! Lines over axes.

use std::ops::Range;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::frame::Frame;
use super::line::Line;
use super::scale::Scale;
use super::{Area, Drawn, Panel, stroke, text, width};

/// How high the strip is in which a logarithmic axis shows exact zeros.
const ZERO_STRIP: i32 = 34;

/// The distance from one line's name to the next.
const LABEL_GAP: i32 = 18;

/// The grey of a rule.
const RULE: RGBColor = RGBColor(110, 110, 110);

/// Lines over two axes, each linear or logarithmic, with their names at their right ends.
///
/// On a logarithmic y axis exact zeros have a strip of their own below the powers of ten. A number that is not finite
/// interrupts its line.
pub struct Chart {
    x: String,
    y: String,
    title: String,
    log: (bool, bool),
    x_range: Option<Range<f64>>,
    y_range: Option<Range<f64>>,
    lines: Vec<Line>,
    rules: Vec<(f64, String)>,
    labelled: bool,
}

impl Chart {
    /// With what stands at the axes, units included.
    pub fn new(x: impl Into<String>, y: impl Into<String>) -> Self {
        Chart {
            x: x.into(),
            y: y.into(),
            title: String::new(),
            log: (false, false),
            x_range: None,
            y_range: None,
            lines: Vec::new(),
            rules: Vec::new(),
            labelled: true,
        }
    }

    /// With a line of text above.
    pub fn title(self, title: impl Into<String>) -> Self {
        Chart { title: title.into(), ..self }
    }

    /// With a logarithmic x axis.
    pub fn log_x(self) -> Self {
        Chart { log: (true, self.log.1), ..self }
    }

    /// With a logarithmic y axis.
    pub fn log_y(self) -> Self {
        Chart { log: (self.log.0, true), ..self }
    }

    /// Instead of the range of the points.
    pub fn x_range(self, range: Range<f64>) -> Self {
        Chart { x_range: Some(range), ..self }
    }

    /// Instead of a range around the points; lines are cut off at its ends.
    pub fn y_range(self, range: Range<f64>) -> Self {
        Chart { y_range: Some(range), ..self }
    }

    /// With a line more.
    pub fn line(mut self, line: Line) -> Self {
        self.lines.push(line);
        self
    }

    /// With a thin grey line at a height, named above its right end.
    pub fn rule(mut self, y: f64, name: impl Into<String>) -> Self {
        self.rules.push((y, name.into()));
        self
    }

    /// Without the lines' names, beside a chart that has them.
    pub fn unlabelled(self) -> Self {
        Chart { labelled: false, ..self }
    }

    /// The lines' names beside their ends, moved apart, each with a thin line from its end.
    fn names(&self, area: &Area<'_>, frame: &Frame, zero: Option<i32>) -> Drawn {
        let mut names: Vec<(i32, (i32, i32), &Line)> = Vec::new();
        for line in &self.lines {
            let runs = frame.runs(line.points(), zero);
            let Some(&end) = runs.last().and_then(|run| run.last()) else { continue };
            names.push((end.1, end, line));
        }
        names.sort_by_key(|&(y, ..)| y);
        // Down from the top, then up from the bottom, where they went over it.
        let (top, bottom) = (frame.top, frame.bottom + if zero.is_some() { ZERO_STRIP } else { 0 });
        let mut free = top;
        for (y, ..) in &mut names {
            *y = (*y).max(free);
            free = *y + LABEL_GAP;
        }
        let mut free = bottom;
        for (y, ..) in names.iter_mut().rev() {
            *y = (*y).min(free);
            free = *y - LABEL_GAP;
        }
        for (y, end, line) in names {
            let x = frame.right + 16;
            if end.0 < frame.right || (end.1 - y).abs() > 2 {
                let elbow = (frame.right + 2, if end.0 < frame.right { y } else { end.1 });
                stroke(area, end, elbow, line.color().mix(0.5).stroke_width(1))?;
                stroke(area, elbow, (x - 2, y), line.color().mix(0.5).stroke_width(1))?;
            }
            text(area, line.name(), (x, y), (HPos::Left, VPos::Center), line.color())?;
        }
        Ok(())
    }
}

impl Panel for Chart {
    fn draw(&self, area: &Area<'_>) -> Drawn {
        let points = || self.lines.iter().flat_map(Line::points);
        let (log_x, log_y) = self.log;
        let x = match &self.x_range {
            Some(range) => Scale::new(range.clone(), log_x),
            None => Scale::exactly(points().map(|&(x, _)| x), log_x),
        };
        let y = match &self.y_range {
            Some(range) => Scale::new(range.clone(), log_y),
            None => Scale::around(self.lines.iter().flat_map(Line::heights), log_y),
        };
        let zeros = log_y && points().any(|&(_, y)| y == 0.0);
        let (area_width, area_height) = area.dim_in_pixel();
        let widest = self.lines.iter().map(|line| width(line.name())).max().unwrap_or(0);
        let labels = y.ticks((area_height / 45) as usize).iter().map(|(_, label)| width(label)).max().unwrap_or(0);
        let frame = Frame {
            left: 34 + labels,
            right: area_width as i32 - if self.labelled { 22 + widest } else { 20 },
            top: if self.title.is_empty() { 14 } else { 36 },
            bottom: area_height as i32 - 52 - if zeros { ZERO_STRIP } else { 0 },
            x,
            y,
        };
        frame.draw(area, &self.x, &self.y, if zeros { ZERO_STRIP } else { 0 })?;
        text(area, &self.title, (frame.left, 8), (HPos::Left, VPos::Top), BLACK)?;
        for (y, name) in &self.rules {
            let (_, y) = frame.held(frame.pixel(0.0, *y));
            stroke(area, (frame.left, y), (frame.right, y), RULE.stroke_width(1))?;
            text(area, name, (frame.right - 6, y - 3), (HPos::Right, VPos::Bottom), RULE)?;
        }
        let zero = zeros.then_some(frame.bottom + ZERO_STRIP / 2 + 2);
        for line in &self.lines {
            line.draw(area, &frame, zero)?;
        }
        if self.labelled { self.names(area, &frame, zero) } else { Ok(()) }
    }
}
