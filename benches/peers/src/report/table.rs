//! The results as Markdown: a summary, then a table per cell and mode.

use std::fmt::Write;

use driver::digits;
use protocol::{Dtype, Mode, Point};

use super::Row;
use super::summary::{Summary, summaries};
use crate::{args, peers, title};

pub fn format(rows: &[Row]) -> String {
    let mut text = String::new();
    head(&mut text, rows);
    let mut parts: Vec<(usize, &str, Dtype)> =
        rows.iter().map(|row| (row.threads, row.isa.as_str(), row.point.dtype)).collect();
    parts.sort();
    parts.dedup();
    for (threads, isa, dtype) in parts {
        let of_part = |row: &&Row| (row.threads, row.isa.as_str(), row.point.dtype) == (threads, isa, dtype);
        let rows: Vec<Row> = rows.iter().filter(of_part).cloned().collect();
        let instructions = if isa == "native" { String::new() } else { format!(", {isa} on both sides") };
        writeln!(text, "\n## {}, {}{instructions}\n", args::plural(threads, "thread"), dtype.name()).unwrap();
        summary(&mut text, &rows);
        share(&mut text, &rows);
        details(&mut text, &rows);
    }
    text
}

fn head(text: &mut String, rows: &[Row]) {
    let distinct = |value: fn(&Row) -> &str| {
        let mut values: Vec<&str> = rows.iter().map(value).collect();
        values.sort_unstable();
        values.dedup();
        values.join("; ")
    };
    writeln!(text, "# gradflow beside its peers\n").unwrap();
    writeln!(
        text,
        "A peer's time divided by gradflow's, medians of runs in turn: above 1, gradflow is faster; **bold**, where it"
    )
    .unwrap();
    writeln!(text, "is slower. Training is forward and backward with the gradients of input and parameters.\n")
        .unwrap();
    let dates: Vec<&str> = rows.iter().map(|row| row.date.split('T').next().unwrap_or_default()).collect();
    let (first, last) = (dates.iter().min().unwrap_or(&""), dates.iter().max().unwrap_or(&""));
    let dates = if first == last { (*first).to_owned() } else { format!("{first} to {last}") };
    writeln!(
        text,
        "{dates}; {}; {}; {}.",
        distinct(|row| &row.cpu),
        distinct(|row| &row.gradflow_version),
        distinct(|row| &row.peer_version)
    )
    .unwrap();
}

fn summary(text: &mut String, rows: &[Row]) {
    writeln!(text, "| | peer | points | minimum | geometric mean |\n| --- | --- | ---: | ---: | ---: |").unwrap();
    for Summary { group, points, minimum, geometric_mean } in summaries(rows) {
        let what = format!("{}, {}", title(group.cell), mode(group.mode));
        writeln!(text, "| {what} | {} | {points} | {} | {} |", group.peer, marked(minimum), marked(geometric_mean))
            .unwrap();
    }
}

/// gradflow's rate as a share of a large product's.
fn share(text: &mut String, rows: &[Row]) {
    for row in rows.iter().filter(|row| row.is_product()) {
        let ours = row.point.flops() / row.gradflow_seconds;
        let what = format!("{}, {}, {}", title(row.point.cell), row.point.size(), mode(row.point.mode));
        writeln!(
            text,
            "\n{what}: {:.0} GFLOP/s, {:.2} of the {:.0} of {}.",
            1e-9 * ours,
            ours / row.peer_flops,
            1e-9 * row.peer_flops,
            row.peer_version
        )
        .unwrap();
    }
}

fn details(text: &mut String, rows: &[Row]) {
    let mut tables: Vec<(Mode, protocol::Cell)> = rows.iter().map(|row| (row.point.mode, row.point.cell)).collect();
    tables.sort();
    tables.dedup();
    for (table_mode, cell) in tables {
        let rows: Vec<&Row> = rows
            .iter()
            .filter(|row| (row.point.mode, row.point.cell) == (table_mode, cell) && !row.is_product())
            .collect();
        let names: Vec<&str> = peers::ALL.into_iter().filter(|peer| rows.iter().any(|row| row.peer == *peer)).collect();
        writeln!(text, "\n### {}, {}\n", title(cell), mode(table_mode)).unwrap();
        writeln!(text, "| | gradflow ms | GFLOP/s | {} |", names.join(" | ")).unwrap();
        writeln!(text, "| --- | ---: | ---: | {} |", vec!["---:"; names.len()].join(" | ")).unwrap();
        let mut points: Vec<Point> = rows.iter().map(|row| row.point).collect();
        points.dedup();
        for point in points {
            let of_point: Vec<&&Row> = rows.iter().filter(|row| row.point == point).collect();
            let ours = of_point[0].gradflow_seconds;
            let ratios = names.iter().map(|name| {
                of_point.iter().find(|row| row.peer == *name).map_or(String::new(), |row| marked(row.ratio()))
            });
            let ratios: Vec<String> = ratios.collect();
            let (time, rate) = (digits(1e3 * ours), digits(1e-9 * point.flops() / ours));
            writeln!(text, "| {} | {time} | {rate} | {} |", point.size(), ratios.join(" | ")).unwrap();
        }
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Train => "training",
        Mode::Infer => "inference",
        Mode::Step => "whole steps",
    }
}

fn marked(ratio: f64) -> String {
    if ratio < 1.0 { format!("**{}**", digits(ratio)) } else { digits(ratio) }
}
