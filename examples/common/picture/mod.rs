//! Pictures in SVG, all in one style: 830 px wide, as wide as a README shows them.
//!
//! Lines differ in lightness and dash as well as in colour, so that they can be told apart in a grey print too.

mod chart;
mod frame;
mod heat_map;
mod line;
mod names;
mod scale;

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Failure;

pub use chart::Chart;
pub use heat_map::HeatMap;
pub use line::Line;

/// The width of every picture, in pixels.
pub const WIDTH: u32 = 830;

/// The size of all letters.
const FONT: (&str, u32) = ("sans-serif", 15);

/// About the width of a letter.
const LETTER: f64 = 7.6;

/// The width of a chart's lines; nothing else has this width, so `finished` finds the lines to dash by it.
const STROKE: u32 = 3;

/// How lines look: one colour and dash each, dark and light in turn.
const STYLES: [(RGBColor, &str); 8] = [
    (RGBColor(150, 30, 20), ""),
    (RGBColor(90, 140, 200), ""),
    (RGBColor(20, 90, 60), "10 5"),
    (RGBColor(235, 150, 40), "10 5"),
    (RGBColor(80, 50, 130), "3 4"),
    (RGBColor(70, 175, 165), "3 4"),
    (RGBColor(20, 20, 20), "14 4 3 4"),
    (RGBColor(160, 150, 60), "14 4 3 4"),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// A part of a picture.
pub trait Panel {
    /// Draws it over the whole area.
    fn draw(&self, area: &Area<'_>) -> Drawn;
}

/// A picture of rows of panels, `height` pixels high.
///
/// # Errors
/// If it cannot be drawn.
pub fn picture(height: u32, rows: &[&[&dyn Panel]]) -> Result<String, Failure> {
    let mut svg = String::new();
    let draw = |svg: &mut String| -> Drawn {
        let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        for (row, panels) in root.split_evenly((rows.len(), 1)).iter().zip(rows) {
            for (area, panel) in row.split_evenly((1, panels.len())).iter().zip(*panels) {
                panel.draw(area)?;
            }
        }
        Ok(root.present()?)
    };
    draw(&mut svg).map_err(|error| Failure::Run(format!("the picture: {error}")))?;
    Ok(finished(svg))
}

/// Adds dashes, which the library would draw one by one, and halves the size, since pictures are kept in the repository.
fn finished(mut svg: String) -> String {
    for (color, dash) in STYLES.iter().filter(|(_, dash)| !dash.is_empty()) {
        let RGBColor(r, g, b) = color;
        let stroke = format!("stroke=\"#{r:02X}{g:02X}{b:02X}\" stroke-width=\"{STROKE}\"");
        svg = svg.replace(&format!("{stroke} points"), &format!("{stroke} stroke-dasharray=\"{dash}\" points"));
    }
    let svg = svg.replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", "");
    let mut lines: Vec<String> = Vec::new();
    let mut last_fill = None;
    for line in svg.lines() {
        let (fill, path) = rectangle(line).unzip();
        match (path, lines.last_mut()) {
            (Some(path), Some(last)) if fill == last_fill => last.insert_str(last.len() - 3, &path),
            (Some(path), _) => lines.push(format!("<path fill=\"{}\" d=\"{path}\"/>", fill.unwrap_or(""))),
            (None, _) => lines.push(relative(line).unwrap_or_else(|| line.to_owned())),
        }
        last_fill = fill;
    }
    lines.join("\n") + "\n"
}

/// The colour of a filled rectangle, and its outline for a path: rectangles of one colour become one path.
fn rectangle(line: &str) -> Option<(&str, String)> {
    let attributes: Vec<&str> = line.strip_prefix("<rect ")?.split('"').skip(1).step_by(2).collect();
    let [x, y, width, height, fill] = attributes[..] else { return None };
    Some((fill, format!("M{x},{y}h{width}v{height}h-{width}z")))
}

/// A line with many points as a path in relative coordinates.
fn relative(line: &str) -> Option<String> {
    let (style, points) = line.strip_prefix("<polyline")?.strip_suffix("\"/>")?.split_once(" points=\"")?;
    let point =
        |point: &str| Some((point.split_once(',')?.0.parse::<i32>().ok()?, point.split_once(',')?.1.parse().ok()?));
    let points: Vec<(i32, i32)> = points.split_whitespace().map(point).collect::<Option<_>>()?;
    let (first, rest) = points.split_first()?;
    let steps = points.iter().zip(rest).map(|(from, to)| format!(" {},{}", to.0 - from.0, to.1 - from.1));
    let steps = String::from_iter(steps).replace(" -", "-").replace(",-", "-");
    Some(format!("<path{style} d=\"M{},{}l{}\"/>", first.0, first.1, steps.trim_start()))
}

/// Text at a pixel, anchored there.
fn text(area: &Area<'_>, text: &str, at: (i32, i32), anchor: (HPos, VPos), color: RGBColor) -> Drawn {
    let style = FONT.into_font().color(&color).pos(Pos::new(anchor.0, anchor.1));
    Ok(area.draw(&Text::new(text.to_owned(), at, style))?)
}

/// Text that reads upwards, centred at a pixel.
fn upright(area: &Area<'_>, text: &str, at: (i32, i32)) -> Drawn {
    let font = FONT.into_font().transform(FontTransform::Rotate270);
    let style = font.color(&BLACK).pos(Pos::new(HPos::Center, VPos::Center));
    Ok(area.draw(&Text::new(text.to_owned(), at, style))?)
}

/// A straight line.
fn stroke(area: &Area<'_>, from: (i32, i32), to: (i32, i32), style: impl Into<ShapeStyle>) -> Drawn {
    Ok(area.draw(&PathElement::new([from, to], style))?)
}

/// The approximate width of a text in pixels.
fn width(text: &str) -> i32 {
    (text.chars().count() as f64 * LETTER).ceil() as i32
}
