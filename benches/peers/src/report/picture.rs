//! The results as a picture: a row per peer and cell, a dot per point, on a logarithmic scale.

use std::fmt::Write;

use driver::digits;
use protocol::{Cell, Dtype, Mode};

use super::Row;
use super::summary::{Summary, summaries};
use crate::{args, title};

/// The width at which a README shows it, so that no letter is smaller than stated here.
const WIDTH: f64 = 830.0;
const ROW: f64 = 19.0;
const HEADING: f64 = 26.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = 42.0;
/// The widths in each half of the columns of peers' names and of geometric means.
const NAMES: f64 = 84.0;
const MEANS: f64 = 46.0;
const GAP: f64 = 14.0;

const FASTER: &str = "#2a6fbb";
const SLOWER: &str = "#d0342c";

const TICKS: [f64; 13] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// A logarithmic axis.
struct Axis {
    left: f64,
    width: f64,
    low: f64,
    high: f64,
}

impl Axis {
    fn x(&self, ratio: f64) -> f64 {
        let place = (ratio / self.low).ln() / (self.high / self.low).ln();
        self.left + self.width * place.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        TICKS.into_iter().filter(|tick| (self.low..=self.high).contains(tick))
    }
}

/// Draws the `f32` results of one thread; if there are none, those of the first settings.
pub fn draw(rows: &[Row]) -> String {
    let settings = |row: &Row| (row.threads, row.isa.clone(), row.point.dtype);
    let usual = (1, String::from("native"), Dtype::F32);
    let Some(first) = rows.iter().find(|row| settings(row) == usual).or(rows.first()) else {
        return String::from("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1\" height=\"1\"/>\n");
    };
    let drawn = settings(first);
    let rows: Vec<Row> = rows.iter().filter(|row| settings(row) == drawn && !row.is_product()).cloned().collect();
    let lines: Vec<Summary> =
        summaries(&rows).into_iter().filter(|line| rows.iter().any(|row| row.peer == line.group.peer)).collect();

    let heights = Mode::ALL.map(|mode| {
        let of_mode = || lines.iter().filter(|line| line.group.mode == mode);
        let cells = Cell::ALL.into_iter().filter(|&cell| of_mode().any(|line| line.group.cell == cell)).count();
        ROW * of_mode().count() as f64 + HEADING * cells as f64
    });
    let height = TOP + heights[0].max(heights[1]) + BOTTOM;
    let ratios = || rows.iter().map(Row::ratio);
    let low = TICKS.into_iter().rev().find(|&tick| ratios().all(|ratio| tick <= ratio)).unwrap_or(TICKS[0]).min(0.5);
    let high = TICKS.into_iter().find(|&tick| ratios().all(|ratio| tick >= ratio)).unwrap_or(TICKS[12]).max(2.0);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let (threads, isa, dtype) = &drawn;
    let instructions = if isa == "native" { String::new() } else { format!(", {isa}") };
    let heading = format!(
        "Time of a peer divided by gradflow's, {}, {}{instructions} (dot: one size; bar: geometric mean)",
        args::plural(*threads, "thread"),
        dtype.name()
    );
    text(&mut svg, WIDTH / 2.0, 22.0, "middle", "font-size=\"14\" font-weight=\"600\"", &heading);
    for (k, mode) in Mode::ALL.into_iter().enumerate() {
        let half = (WIDTH - GAP) / 2.0;
        let start = k as f64 * (half + GAP);
        let axis = Axis { left: start + NAMES, width: half - NAMES - MEANS, low, high };
        panel(&mut svg, mode, start, &axis, height, &lines, &rows);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, mode: Mode, start: f64, axis: &Axis, height: f64, lines: &[Summary], rows: &[Row]) {
    let end = height - BOTTOM + 4.0;
    let one = axis.x(1.0);
    let name = if mode == Mode::Train { "Training" } else { "Inference" };
    text(svg, axis.left + axis.width / 2.0, 44.0, "middle", "font-size=\"14\" font-weight=\"600\"", name);
    text(svg, one - 6.0, TOP - 10.0, "end", &format!("font-size=\"12\" fill=\"{SLOWER}\""), "peer faster");
    text(svg, one + 6.0, TOP - 10.0, "start", &format!("font-size=\"12\" fill=\"{FASTER}\""), "gradflow faster");
    let (left, shaded) = (axis.left, one - axis.left);
    writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{TOP}\" width=\"{shaded:.1}\" height=\"{:.1}\" fill=\"#fbeceb\"/>",
        end - TOP
    )
    .expect("a string");
    for tick in axis.ticks() {
        let (x, colour, width) = (axis.x(tick), if tick == 1.0 { "#222" } else { "#ddd" }, 1.0);
        vertical(svg, x, TOP, end, colour, width);
        text(svg, x, end + 15.0, "middle", "font-size=\"12\" fill=\"#555\"", &format!("{tick}"));
    }

    let mut y = TOP;
    for cell in Cell::ALL {
        let of_cell = |line: &&Summary| (line.group.mode, line.group.cell) == (mode, cell);
        let mut lines = lines.iter().filter(of_cell).peekable();
        if lines.peek().is_some() {
            y += HEADING;
            text(svg, start + 8.0, y - 6.0, "start", "font-weight=\"600\"", title(cell));
        }
        for Summary { group, geometric_mean, .. } in lines {
            let middle = y + ROW / 2.0;
            text(svg, axis.left - 8.0, middle + 4.0, "end", "", &group.peer);
            let of_line =
                |row: &&Row| (row.point.mode, row.point.cell, row.peer.as_str()) == (mode, cell, group.peer.as_str());
            for row in rows.iter().filter(of_line) {
                let colour = if row.ratio() < 1.0 { SLOWER } else { FASTER };
                writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"3.5\" fill=\"{colour}\" fill-opacity=\"0.55\">\
                     <title>{} {}: {}</title></circle>",
                    axis.x(row.ratio()),
                    row.peer,
                    row.point,
                    digits(row.ratio())
                )
                .expect("a string");
            }
            vertical(svg, axis.x(*geometric_mean), y + 2.0, y + ROW - 2.0, "#111", 2.5);
            let mean = format!("{}×", digits(*geometric_mean));
            text(svg, axis.left + axis.width + MEANS - 4.0, middle + 4.0, "end", "", &mean);
            y += ROW;
        }
    }
}

fn vertical(svg: &mut String, x: f64, top: f64, bottom: f64, colour: &str, width: f64) {
    writeln!(
        svg,
        "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    )
    .expect("a string");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, attributes: &str, text: &str) {
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {attributes}>{text}</text>")
        .expect("a string");
}
