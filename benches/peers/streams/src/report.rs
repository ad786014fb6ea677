//! The tables: on the screen, as Markdown and as CSV.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use driver::turns::Timed;
use driver::{Worker, digits, machine};
use protocol::Cell;

use crate::latency::{Clock, Latency};
use crate::sides::{ALL, Side};

/// The speed of all sides, in the order of [`ALL`].
pub struct Speed {
    pub cell: Cell,
    pub hidden: usize,
    /// The times of one step.
    pub timed: Vec<Timed>,
    /// The errors relative to a reference in f64.
    pub errors: Vec<f64>,
}

pub struct Delays {
    pub cell: Cell,
    pub hidden: usize,
    pub sides: Vec<(Side, Latency)>,
}

pub struct Report {
    date: String,
    cpu: String,
    versions: Vec<String>,
    rounds: usize,
    clock: Clock,
    load_before: Option<f64>,
    pub load_after: Option<f64>,
    pub speeds: Vec<Speed>,
    pub delays: Vec<Delays>,
}

impl Report {
    pub fn new(workers: &[Worker], rounds: usize, clock: Clock) -> Self {
        let mut versions: Vec<String> = workers.iter().map(|worker| worker.version.clone()).collect();
        versions.dedup();
        Report {
            date: machine::now(),
            cpu: machine::cpu(),
            versions,
            rounds,
            clock,
            load_before: machine::load(),
            load_after: None,
            speeds: Vec::new(),
            delays: Vec::new(),
        }
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from("# Streams: one step after another\n\n");
        let load = |load: Option<f64>| load.map_or("unknown".into(), |load| load.to_string());
        let day = self.date.split('T').next().unwrap_or_default();
        let (cpu, versions) = (&self.cpu, self.versions.join("; "));
        let loads = (load(self.load_before), load(self.load_after));
        writeln!(text, "{day}; {cpu}; {versions}; load {} before, {} after.\n", loads.0, loads.1).expect("a string");
        self.speed_table(&mut text);
        self.error_table(&mut text);
        if !self.delays.is_empty() {
            self.delay_table(&mut text);
        }
        text
    }

    fn speed_table(&self, text: &mut String) {
        let rounds = self.rounds;
        writeln!(
            text,
            "Nanoseconds a step: median (best) of {rounds} rounds. The last column is nexus-inference's median"
        )
        .expect("a string");
        writeln!(text, "divided by that of `push`: above 1, gradflow is faster.\n").expect("a string");
        let titles = ALL.map(Side::title).join(" | ");
        writeln!(text, "| | {titles} | ratio |\n|{}", " --- |".to_owned() + &" ---: |".repeat(ALL.len() + 1))
            .expect("a string");
        for Speed { cell, hidden, timed, .. } in &self.speeds {
            let cells: Vec<String> = timed
                .iter()
                .map(|timed| format!("{} ({})", digits(1e9 * timed.seconds), digits(1e9 * timed.best)))
                .collect();
            let ratio = timed[ALL.len() - 1].seconds / timed[0].seconds;
            let what = format!("{} H{hidden}", cell.name().to_uppercase());
            writeln!(text, "| {what} | {} | {} |", cells.join(" | "), digits(ratio)).expect("a string");
        }
    }

    fn error_table(&self, text: &mut String) {
        text.push_str(
            "\nRelative error of the outputs (Euclidean norm over all steps), beside the equations in f64:\n\n",
        );
        text.push_str("| | gradflow | nexus-inference |\n| --- | ---: | ---: |\n");
        for Speed { cell, hidden, errors, .. } in &self.speeds {
            let (ours, theirs) = (errors[0], errors[ALL.len() - 1]);
            writeln!(text, "| {} H{hidden} | {ours:.1e} | {theirs:.1e} |", cell.name().to_uppercase())
                .expect("a string");
        }
    }

    fn delay_table(&self, text: &mut String) {
        let Clock { cost, resolution } = &self.clock;
        let steps = self.delays[0].sides[0].1.steps;
        let (p50, p999) = (cost.p50, cost.p999);
        writeln!(
            text,
            "\nNanoseconds of single steps, {steps} of each, the clock included. Two readings of the clock, one right after the\n\
             other, are {p50} ns apart (median), 99.9 % of them at most {p999} ns; it counts in steps of {resolution} ns.\n"
        )
        .expect("a string");
        text.push_str(
            "| | | mean | 50 % | 99 % | 99.9 % | worst |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for Delays { cell, hidden, sides } in &self.delays {
            for (side, latency) in sides {
                let Latency { mean, p50, p99, p999, worst, .. } = latency;
                let (what, side, mean) =
                    (format!("{} H{hidden}", cell.name().to_uppercase()), side.title(), digits(*mean));
                writeln!(text, "| {what} | {side} | {mean} | {p50} | {p99} | {p999} | {worst} |").expect("a string");
            }
        }
    }

    /// Writes `streams.md`, `streams.csv` and, if there are single steps, `streams_latency.csv`.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut speeds = String::from("date,cpu,cell,H,side,version,rounds,best_ns,median_ns,error\n");
        for Speed { cell, hidden, timed, errors } in &self.speeds {
            for (Timed { name, version, seconds, best, rounds }, error) in timed.iter().zip(errors) {
                let (best, median) = (1e9 * best, 1e9 * seconds);
                let what = format!("{},{},{},{hidden},{name}", self.date, self.cpu, cell.name());
                writeln!(speeds, "{what},{version},{rounds},{best:.2},{median:.2},{error:.2e}").expect("a string");
            }
        }
        let mut delays = String::from("date,cpu,cell,H,side,steps,mean_ns,p50_ns,p99_ns,p99.9_ns,worst_ns\n");
        for Delays { cell, hidden, sides } in &self.delays {
            for (side, latency) in sides {
                let Latency { steps, mean, p50, p99, p999, worst } = latency;
                let what = format!("{},{},{},{hidden},{}", self.date, self.cpu, cell.name(), side.name());
                writeln!(delays, "{what},{steps},{mean:.1},{p50},{p99},{p999},{worst}").expect("a string");
            }
        }
        if !self.delays.is_empty() {
            fs::write(folder.join("streams_latency.csv"), delays)?;
        }
        fs::write(folder.join("streams.csv"), speeds)?;
        fs::write(folder.join("streams.md"), self.markdown())
    }
}
