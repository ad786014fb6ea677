//! The results of a run: a table in Markdown and a CSV.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use driver::turns::Timed;
use driver::{Worker, digits, machine};
use protocol::Point;

use crate::{peers, points};

pub struct Row {
    pub point: Point,
    pub threads: usize,
    /// The first is gradflow.
    pub timed: Vec<Timed>,
}

/// The time of which a ratio is made.
type Of = fn(&Timed) -> f64;
const MEDIAN: Of = |timed| timed.seconds;
const BEST: Of = |timed| timed.best;

impl Row {
    fn ratio(&self, peer: &str, of: Of) -> Option<f64> {
        let peer = self.timed.iter().find(|timed| timed.name == peer)?;
        Some(of(peer) / of(&self.timed[0]))
    }

    /// The time of the faster PyTorch as a multiple of gradflow's.
    fn faster_torch(&self, of: Of) -> Option<f64> {
        peers::ALL
            .into_iter()
            .filter(|peer| peers::is_torch(peer))
            .filter_map(|peer| self.ratio(peer, of))
            .reduce(f64::min)
    }

    pub fn line(&self) -> String {
        let peers = self.timed[1..].iter();
        let peers = peers.map(|peer| format!("| {} {} ", peer.name, digits(peer.seconds / self.timed[0].seconds)));
        let ours = digits(1e3 * self.timed[0].seconds);
        let line = format!(
            "{} x{}: gradflow {ours} ms {}",
            points::name(&self.point),
            self.threads,
            peers.collect::<String>()
        );
        line.trim_end().to_owned()
    }
}

pub struct Report {
    date: String,
    cpu: String,
    load: Option<f64>,
    versions: BTreeSet<String>,
    pub rows: Vec<Row>,
    /// The sides that were not timed, and why.
    pub refusals: Vec<String>,
}

impl Report {
    pub fn new() -> Self {
        Report {
            date: machine::now(),
            cpu: machine::cpu(),
            load: machine::load(),
            versions: BTreeSet::new(),
            rows: Vec::new(),
            refusals: Vec::new(),
        }
    }

    pub fn has_versions<'a>(&mut self, workers: impl Iterator<Item = &'a Worker>) {
        self.versions.extend(workers.map(|worker| worker.version.clone()));
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from("# Whole training steps\n\n");
        let versions: Vec<&str> = self.versions.iter().map(String::as_str).collect();
        let date = self.date.split('T').next().unwrap_or_default();
        let load = self.load.map_or(String::new(), |load| format!(" Load of the machine before the run: {load}."));
        writeln!(text, "{date}; {}; {}.{load}", self.cpu, versions.join("; ")).expect("a string");
        let mut threads: Vec<usize> = self.rows.iter().map(|row| row.threads).collect();
        threads.dedup();
        for threads in threads {
            self.table(&mut text, threads);
        }
        if !self.refusals.is_empty() {
            writeln!(text, "\nNot timed:\n").expect("a string");
            self.refusals.iter().for_each(|refusal| writeln!(text, "- {refusal}").expect("a string"));
        }
        text
    }

    fn table(&self, text: &mut String, threads: usize) {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.threads == threads).collect();
        let has = |peer: &&str| rows.iter().any(|row| row.ratio(peer, MEDIAN).is_some());
        let names: Vec<&str> = peers::ALL.into_iter().filter(has).collect();
        let plural = if threads == 1 { "" } else { "s" };
        writeln!(
            text,
            "\n{threads} thread{plural}: gradflow's time of a step, median of runs in turn, and the peers' times divided by it (best by best \
             in brackets):\n\n| | gradflow ms | {} | the faster PyTorch |\n| --- | ---: |{}",
            names.join(" | "),
            " ---: |".repeat(names.len() + 1)
        )
        .expect("a string");
        let both = |ratio: &dyn Fn(Of) -> Option<f64>| match (ratio(MEDIAN), ratio(BEST)) {
            (Some(median), Some(best)) => format!("{} ({})", digits(median), digits(best)),
            _ => String::new(),
        };
        for row in &rows {
            let mut cells: Vec<String> = names.iter().map(|name| both(&|of| row.ratio(name, of))).collect();
            cells.push(both(&|of| row.faster_torch(of)));
            let ours = digits(1e3 * row.timed[0].seconds);
            writeln!(text, "| {} | {ours} | {} |", points::name(&row.point), cells.join(" | ")).expect("a string");
        }
        let summary = |of: Of, join: fn(&[f64]) -> f64| {
            let column = |ratio: &dyn Fn(&Row) -> Option<f64>| {
                let ratios: Vec<f64> = rows.iter().filter_map(|row| ratio(row)).collect();
                if ratios.is_empty() { String::new() } else { digits(join(&ratios)) }
            };
            let mut cells: Vec<String> = names.iter().map(|name| column(&|row| row.ratio(name, of))).collect();
            cells.push(column(&|row| row.faster_torch(of)));
            cells.join(" | ")
        };
        writeln!(text, "| smallest | | {} |", summary(MEDIAN, minimum)).expect("a string");
        writeln!(text, "| geometric mean | | {} |", summary(MEDIAN, geometric_mean)).expect("a string");
        writeln!(text, "| smallest, best by best | | {} |", summary(BEST, minimum)).expect("a string");
        writeln!(text, "| geometric mean, best by best | | {} |", summary(BEST, geometric_mean)).expect("a string");
    }

    fn csv(&self) -> String {
        let mut text =
            String::from("date,cpu,cell,V,T,B,H,depth,threads,side,version,rounds,median_seconds,best_seconds\n");
        for Row { point, threads, timed } in &self.rows {
            let Point { cell, mode: _, dtype: _, steps, batch, input: _, hidden, depth, vocabulary } = point;
            for side in timed {
                // No field has quotes or a line's end; commas become semicolons.
                let (cpu, version) = (self.cpu.replace(',', ";"), side.version.replace(',', ";"));
                writeln!(
                    text,
                    "{},{cpu},{},{vocabulary},{steps},{batch},{hidden},{depth},{threads},{},{version},{},{:.4e},{:.4e}",
                    self.date,
                    cell.name(),
                    side.name,
                    side.rounds,
                    side.seconds,
                    side.best
                )
                .expect("a string");
            }
        }
        text
    }

    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("steps.md"), self.markdown())?;
        fs::write(folder.join("steps.csv"), self.csv())
    }
}

fn minimum(ratios: &[f64]) -> f64 {
    ratios.iter().copied().fold(f64::INFINITY, f64::min)
}

fn geometric_mean(ratios: &[f64]) -> f64 {
    (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use protocol::{Cell, Dtype, Mode};

    use super::*;

    fn timed(name: &str, seconds: f64, best: f64) -> Timed {
        Timed { name: name.into(), version: name.into(), seconds, best, rounds: 9 }
    }

    fn row(ours: f64, eager: f64, compiled: f64) -> Row {
        let (cell, mode, dtype) = (Cell::Lstm, Mode::Step, Dtype::F32);
        let point =
            Point { cell, mode, dtype, steps: 64, batch: 16, input: 128, hidden: 128, depth: 1, vocabulary: 96 };
        let peers = [timed("torch", eager, eager), timed("torch_compile", compiled, compiled), timed("burn", 9.0, 9.0)];
        Row { point, threads: 1, timed: [timed("gradflow", ours, ours)].into_iter().chain(peers).collect() }
    }

    #[test]
    fn the_faster_pytorch_counts() {
        assert_eq!(row(1.0, 3.0, 2.0).faster_torch(MEDIAN), Some(2.0));
        assert_eq!(row(2.0, 3.0, 4.0).faster_torch(BEST), Some(1.5));
        let mut alone = row(1.0, 3.0, 2.0);
        alone.timed.truncate(1);
        assert_eq!(alone.faster_torch(MEDIAN), None);
        assert_eq!((minimum(&[2.0, 8.0]), geometric_mean(&[2.0, 8.0])), (2.0, 4.0));
    }

    #[test]
    fn tables_have_every_peer_that_was_timed() {
        let mut report = Report::new();
        report.rows = vec![row(1.0, 3.0, 2.0), row(1.0, 9.0, 8.0)];
        report.refusals.push("a reason".into());
        let text = report.markdown();
        for part in [
            "| | gradflow ms | torch | torch_compile | burn | the faster PyTorch |",
            "| lstm V96 T64 B16 H128 x1 | 1000 | 3.00 (3.00) | 2.00 (2.00) | 9.00 (9.00) | 2.00 (2.00) |",
            "| smallest | | 3.00 | 2.00 | 9.00 | 2.00 |",
            "| geometric mean | | 5.20 | 4.00 | 9.00 | 4.00 |",
            "- a reason",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert_eq!(report.csv().lines().count(), 1 + 2 * 4);
    }
}
