//! The models and sizes.

use protocol::{Cell, Dtype, Mode, Point};

use crate::args::Args;

/// V, T, B, H and layers of the language models; the embedding has H features. The last has the sizes of the small model
/// of Zaremba, Sutskever and Vinyals (2014), over 35 steps.
const LANGUAGE: [(Cell, usize, usize, usize, usize, usize); 6] = [
    (Cell::Lstm, 96, 64, 16, 128, 1),
    (Cell::Lstm, 96, 64, 64, 256, 1),
    (Cell::Lstm, 10_000, 35, 20, 200, 2),
    (Cell::Gru, 96, 64, 16, 128, 1),
    (Cell::Gru, 96, 64, 64, 256, 1),
    (Cell::Rnn, 96, 64, 16, 128, 1),
];

/// Rows and width of eight residual blocks.
const BLOCKS: [(usize, usize); 2] = [(64, 256), (1024, 256)];
const DEPTH: usize = 8;

/// The points that `--quick` keeps.
const QUICK: [&str; 3] = ["lstm V96 T64 B16 H128 x1", "lstm V10000 T35 B20 H200 x2", "residual N64 D256 x8"];

/// The name of a point in this program: `lstm V96 T64 B16 H128 x1`.
pub fn name(point: &Point) -> String {
    format!("{} {}", point.cell.name(), point.size())
}

/// The points that were asked for.
pub fn points(args: &Args) -> Vec<Point> {
    let (mode, dtype) = (Mode::Step, Dtype::F32);
    let language = LANGUAGE.map(|(cell, vocabulary, steps, batch, hidden, depth)| Point {
        cell,
        mode,
        dtype,
        steps,
        batch,
        input: hidden,
        hidden,
        depth,
        vocabulary,
    });
    let blocks = BLOCKS.map(|(batch, width)| Point {
        cell: Cell::Residual,
        mode,
        dtype,
        steps: 1,
        batch,
        input: width,
        hidden: width,
        depth: DEPTH,
        vocabulary: 0,
    });
    let wanted = |point: &Point| {
        let name = name(point);
        let has = |parts: &Vec<String>| parts.iter().all(|part| name.split(' ').any(|own| own == part));
        (!args.quick || QUICK.contains(&name.as_str())) && (args.points.is_empty() || args.points.iter().any(has))
    };
    language.into_iter().chain(blocks).filter(wanted).collect()
}
