//! The points of the grid.

use protocol::{Cell, Mode, Point};

use crate::args::Args;

/// T, B, I and H of the recurrent cells.
const SEQUENCES: [(usize, usize, usize, usize); 9] = [
    (32, 1, 32, 32),
    (64, 16, 64, 64),
    (128, 16, 128, 128),
    (50, 32, 128, 256),
    (100, 1, 128, 256),
    (150, 16, 256, 256),
    (50, 64, 512, 512),
    (25, 64, 1024, 1024),
    (25, 16, 1536, 1536),
];

/// Single steps: H, the input too, with each batch.
const STEP_WIDTHS: [usize; 3] = [32, 128, 512];
const STEP_BATCHES: [usize; 2] = [1, 16];

/// Residual blocks: widths, with each number of rows.
const WIDTHS: [usize; 3] = [64, 256, 1024];
const ROWS: [usize; 3] = [1, 64, 1024];
const DEPTH: usize = 8;

/// The points that `--quick` keeps.
const QUICK: [&str; 5] =
    ["T64 B16 I64 H64", "T50 B32 I128 H256", "T100 B1 I128 H256", "T1 B1 I128 H128", "N64 D256 x8"];

/// The point at which gradflow's rate is compared with that of a large product.
const SGEMM: &str = "T50 B64 I512 H512";
const SQUARE: f64 = 2048.0;

/// The points that were asked for, in the grid's order.
pub fn points(args: &Args) -> Vec<Point> {
    let mut points = Vec::new();
    for &cell in &args.cells {
        for &mode in &args.modes {
            points.extend(sizes(cell).into_iter().map(|(steps, batch, input, hidden)| Point {
                cell,
                mode,
                dtype: args.dtype,
                steps,
                batch,
                input,
                hidden,
                depth: if cell == Cell::Residual { DEPTH } else { 1 },
                vocabulary: 0,
            }));
        }
    }
    points.retain(|point| {
        let size = point.size();
        let has = |parts: &Vec<String>| parts.iter().all(|part| size.split(' ').any(|own| own == part));
        (!args.quick || QUICK.contains(&size.as_str())) && (args.sizes.is_empty() || args.sizes.iter().any(has))
    });
    points
}

fn sizes(cell: Cell) -> Vec<(usize, usize, usize, usize)> {
    if cell == Cell::Residual {
        return WIDTHS.iter().flat_map(|&width| ROWS.map(|rows| (1, rows, width, width))).collect();
    }
    let steps = STEP_WIDTHS.iter().flat_map(|&width| STEP_BATCHES.map(|batch| (1, batch, width, width)));
    SEQUENCES.into_iter().chain(steps).collect()
}

/// A point's position among those of its cell; points outside the grid come last.
pub fn place(point: &Point) -> usize {
    let own = (point.steps, point.batch, point.input, point.hidden);
    sizes(point.cell).into_iter().position(|size| size == own).unwrap_or(usize::MAX)
}

/// A small point of the same kind, after which a process has loaded what it loads once.
pub fn warm_up(point: &Point) -> Point {
    let depth = point.depth.min(1);
    Point { steps: point.steps.min(4), batch: point.batch.min(4), input: 16, hidden: 16, depth, ..*point }
}

/// Whether the rate of a large product is measured with this point.
pub fn is_sgemm_point(point: &Point) -> bool {
    point.cell == Cell::Lstm && point.mode == Mode::Train && point.size() == SGEMM
}

/// Floating-point operations of the products that are measured: the input projection of all steps, and a square one.
pub fn product_flops(name: &str, point: &Point) -> f64 {
    match (name, point.cell.gates()) {
        ("sgemm", Some(gates)) => 2.0 * (point.steps * point.batch * point.input * gates * point.hidden) as f64,
        _ => 2.0 * SQUARE.powi(3),
    }
}
