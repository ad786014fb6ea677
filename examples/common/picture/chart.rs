//! Lines over axes.

use std::cmp::Reverse;
use std::ops::Range;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::frame::Frame;
use super::line::Line;
use super::names::{self, Block};
use super::scale::Scale;
use super::{Area, Drawn, Panel, stroke, text, width};

/// The height of the strip in which a logarithmic axis shows exact zeros.
const ZERO_STRIP: i32 = 34;

/// The grey of a rule.
const RULE: RGBColor = RGBColor(110, 110, 110);

/// Lines over two axes, each linear or logarithmic, with the lines' names at their ends.
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
    /// A chart with these axis labels, which include units.
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

    /// With a title above.
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

    /// With this range instead of that of the points.
    pub fn x_range(self, range: Range<f64>) -> Self {
        Chart { x_range: Some(range), ..self }
    }

    /// With this range instead of one around the points; lines are cut off at its ends.
    pub fn y_range(self, range: Range<f64>) -> Self {
        Chart { y_range: Some(range), ..self }
    }

    /// With another line.
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

    /// Draws the lines' names: to the right of the plot if a line reaches its right edge, otherwise beside the line's end, which
    /// gets a mark.
    fn names(&self, area: &Area<'_>, frame: &Frame, zero: Option<i32>) -> Drawn {
        let bottom = frame.bottom + if zero.is_some() { ZERO_STRIP } else { 0 };
        let runs: Vec<_> = self.lines.iter().flat_map(|line| frame.runs(line.points(), zero)).collect();
        let ends = self.lines.iter().filter_map(|line| Some((*frame.runs(line.points(), zero).last()?.last()?, line)));
        let (mut through, mut short): (Vec<_>, Vec<_>) = ends.partition(|(end, _)| end.0 >= frame.right - 1);
        through.sort_by_key(|(end, _)| end.1);
        short.sort_by_key(|(end, _)| Reverse(end.1));

        let mut taken: Vec<Block> = self.rules.iter().map(|(y, name)| rule_block(frame, *y, name)).collect();
        let heights: Vec<i32> = through.iter().map(|(end, _)| end.1).collect();
        for ((_, line), y) in through.iter().zip(names::apart(&heights, frame.top, bottom)) {
            let x = frame.right + 12;
            taken.push(names::block(x, y, width(line.name())));
            text(area, line.name(), (x, y), (HPos::Left, VPos::Center), line.color())?;
        }
        for (end, line) in short {
            line.mark(area, end, 4)?;
            let within = (frame.left, frame.top, frame.right, bottom);
            let at = names::beside(end, width(line.name()), within, &runs, &taken);
            taken.push(names::block(at.0, at.1, width(line.name())));
            text(area, line.name(), at, (HPos::Left, VPos::Center), line.color())?;
        }
        Ok(())
    }
}

/// The rectangle of the name of a rule at the height `y`.
fn rule_block(frame: &Frame, y: f64, name: &str) -> Block {
    let (_, y) = frame.held(frame.pixel(0.0, y));
    (frame.right - 6 - width(name), y - 17, frame.right - 6, y)
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
