//! The result of a run: a table in Markdown.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use driver::{Worker, digits, machine};
use protocol::Point;

use crate::sides::{self, Side};

#[derive(Clone, Copy)]
pub struct Measured {
    /// Seconds of a run.
    pub best: f64,
    pub median: f64,
    /// The relative difference from the first side.
    pub error: f64,
}

pub struct Row {
    pub point: Point,
    /// The first is f32.
    pub sides: Vec<(Side, Measured)>,
}

impl Row {
    fn of(&self, side: Side) -> Option<Measured> {
        self.sides.iter().find(|(own, _)| *own == side).map(|(_, measured)| *measured)
    }

    /// The measurement, as a line of text.
    pub fn line(&self) -> String {
        let one = |(side, m): &(Side, Measured)| format!("{} {} us", side.name(), digits(1e6 * m.best));
        format!("{}: {}", self.point, self.sides.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

pub struct Report {
    head: String,
    pub rows: Vec<Row>,
}

impl Report {
    pub fn new(workers: &[Worker], rounds: usize) -> Self {
        let mut versions: Vec<&str> = workers.iter().map(|worker| worker.version.as_str()).collect();
        versions.dedup();
        let (date, cpu) = (machine::now(), machine::cpu());
        let date = date.split('T').next().unwrap_or_default();
        let versions = versions.join("; ");
        Report {
            head: format!("{date}; {cpu}; {versions}. Best of {rounds} rounds in turn, one thread."),
            rows: Vec::new(),
        }
    }

    /// The times, and how far the outputs are from those of f32.
    pub fn markdown(&self) -> String {
        let mut text = format!("# Weights in fewer bits\n\n{}\n", self.head);
        let names: Vec<&str> = sides::ALL.iter().map(|side| side.name()).collect();
        let line = |text: &mut String, first: &str, cells: &[String]| {
            writeln!(text, "| {first} | {} |", cells.join(" | ")).expect("a string");
        };
        let head = |text: &mut String, title: &str, names: &[&str]| {
            writeln!(text, "\n{title}\n\n| | {} |", names.join(" | ")).expect("a string");
            writeln!(text, "| --- |{}", " ---: |".repeat(names.len())).expect("a string");
        };
        head(&mut text, "Microseconds of a pass; in brackets how many times as fast as f32:", &names);
        for row in &self.rows {
            let full = row.sides[0].1;
            let cells = sides::ALL.map(|side| match row.of(side) {
                None => String::new(),
                Some(m) if side == sides::ALL[0] => digits(1e6 * m.best),
                Some(m) => format!("{} ({})", digits(1e6 * m.best), digits(full.best / m.best)),
            });
            line(&mut text, &name(&row.point), &cells);
        }
        let own: Vec<Side> = sides::ALL.into_iter().filter(|side| !side.is_peer()).collect();
        let own_names: Vec<&str> = own.iter().map(|side| side.name()).collect();
        head(&mut text, "The time of the faster int8 peer, divided by gradflow's; by medians in brackets:", &own_names);
        for row in &self.rows {
            let peers = || row.sides.iter().filter(|(side, _)| side.is_peer()).map(|(_, measured)| measured);
            let least = |of: fn(&Measured) -> f64| peers().map(of).fold(f64::INFINITY, f64::min);
            if peers().next().is_none() {
                continue;
            }
            let (best, median) = (least(|m| m.best), least(|m| m.median));
            let cells: Vec<String> = own
                .iter()
                .map(|&side| row.of(side).expect("one of this program's"))
                .map(|m| format!("{} ({})", digits(best / m.best), digits(median / m.median)))
                .collect();
            line(&mut text, &name(&row.point), &cells);
        }
        head(&mut text, "How far the outputs are from those of f32, relatively, in the Euclidean norm:", &names[1..]);
        for row in &self.rows {
            let cells = sides::ALL.map(|side| row.of(side).map_or(String::new(), |m| format!("{:.1e}", m.error)));
            line(&mut text, &name(&row.point), &cells[1..]);
        }
        text
    }

    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("reduced.md"), self.markdown())
    }
}

fn name(point: &Point) -> String {
    let batch = if point.batch == 1 { String::new() } else { format!(" B{}", point.batch) };
    format!("{} T{}{batch} H{}", point.cell.name().to_uppercase(), point.steps, point.hidden)
}
