//! Minimum and geometric mean of the ratios, per peer and cell.

use driver::digits;
use protocol::{Cell, Dtype, Mode};

use super::Row;
use crate::peers;

/// The group of measurements in a line of the summary.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub threads: usize,
    pub isa: String,
    pub dtype: Dtype,
    pub cell: Cell,
    pub mode: Mode,
    /// A peer, or the faster of several.
    pub peer: String,
}

pub struct Summary {
    pub group: Group,
    pub points: usize,
    pub minimum: f64,
    pub geometric_mean: f64,
}

/// In inference, the faster of these two is also a line of the summary.
const FASTEST: [&str; 2] = ["torch", "onnx"];

/// The summaries of rows, which are in the grid's order.
pub fn summaries(rows: &[Row]) -> Vec<Summary> {
    let mut groups: Vec<(Group, Vec<f64>)> = Vec::new();
    let mut add = |row: &Row, peer: &str, ratio: f64| {
        let group = Group {
            threads: row.threads,
            isa: row.isa.clone(),
            dtype: row.point.dtype,
            cell: row.point.cell,
            mode: row.point.mode,
            peer: peer.into(),
        };
        match groups.iter_mut().find(|(other, _)| *other == group) {
            Some((_, ratios)) => ratios.push(ratio),
            None => groups.push((group, vec![ratio])),
        }
    };
    for row in rows.iter().filter(|row| !row.is_product()) {
        add(row, &row.peer, row.ratio());
    }
    for row in rows.iter().filter(|row| row.point.mode == Mode::Infer && row.peer == FASTEST[0]) {
        let same = |other: &&Row| other.point == row.point && other.threads == row.threads && other.isa == row.isa;
        if let Some(other) = rows.iter().filter(same).find(|other| other.peer == FASTEST[1]) {
            add(row, "the faster of torch and onnx", row.ratio().min(other.ratio()));
        }
    }
    let place = |peer: &str| peers::ALL.iter().position(|other| *other == peer).unwrap_or(1);
    groups.sort_by_key(|(group, _)| {
        (group.threads, group.isa.clone(), group.dtype, group.mode, group.cell, place(&group.peer))
    });
    let summary = |(group, ratios): (Group, Vec<f64>)| Summary {
        group,
        points: ratios.len(),
        minimum: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        geometric_mean: (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp(),
    };
    groups.into_iter().map(summary).collect()
}

/// A line per peer and cell.
pub fn print(rows: &[Row]) {
    println!("peer's time / gradflow's                                              points  minimum  geometric mean");
    for Summary { group, points, minimum, geometric_mean } in summaries(rows) {
        let Group { threads, isa, dtype, cell, mode, peer } = group;
        let what = format!("{} {} {} {isa} x{threads}: {peer}", cell.name(), mode.name(), dtype.name());
        println!("{what:<70}{points:>6} {:>8} {:>15}", digits(minimum), digits(geometric_mean));
    }
}
