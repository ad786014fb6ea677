//! The results of a run: a CSV of all medians, and a table and a picture of it.

mod csv;
mod memory;
mod picture;
mod summary;
mod table;

use std::path::{Path, PathBuf};
use std::{fs, io};

use driver::machine;
use protocol::{Cell, Dtype, Mode, Point};

use crate::measure::Measurement;
use crate::peers::Settings;
use crate::{grid, peers};
pub use memory::{MemoryRow, write as write_memory};
pub use summary::print as print_summary;

/// One peer's median at one point, and gradflow's of the same rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub date: String,
    pub cpu: String,
    pub point: Point,
    pub threads: usize,
    pub isa: String,
    pub peer: String,
    pub peer_version: String,
    pub gradflow_version: String,
    pub rounds: usize,
    pub peer_seconds: f64,
    pub gradflow_seconds: f64,
    /// Operations a second. For large products, the number of operations is not the point's.
    pub peer_flops: f64,
}

impl Row {
    /// How many times as long the peer takes.
    pub fn ratio(&self) -> f64 {
        self.peer_seconds / self.gradflow_seconds
    }

    /// Whether the row is of a large product, not of a peer.
    pub fn is_product(&self) -> bool {
        self.peer.starts_with("sgemm")
    }

    /// The key of a row; of two rows with the same key, the later one counts.
    fn key(&self) -> (Point, usize, &str, &str) {
        (self.point, self.threads, &self.isa, &self.peer)
    }
}

/// All rows of a folder; a measurement replaces what was there for the same point and peer.
pub struct Results {
    folder: PathBuf,
    rows: Vec<Row>,
    /// Of `rows`, those of this run.
    run: Vec<Row>,
}

impl Results {
    pub fn open(folder: &Path) -> io::Result<Self> {
        let rows = match fs::read_to_string(folder.join(csv::FILE)) {
            Ok(text) => csv::parse(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Results { folder: folder.into(), rows, run: Vec::new() })
    }

    pub fn has(&self, point: &Point, settings: &Settings, peer: &str) -> bool {
        let key = (*point, settings.threads, settings.isa.name(), peer);
        self.rows.iter().any(|row| row.key() == key)
    }

    /// Adds a point, and saves.
    pub fn add(&mut self, measurement: &Measurement, version: &str, settings: &Settings) -> io::Result<()> {
        let point = measurement.point;
        for timed in measurement.peers.iter().chain(&measurement.rates) {
            let is_rate = timed.name.starts_with("sgemm");
            let flops = if is_rate { grid::product_flops(&timed.name, &point) } else { point.flops() };
            let row = Row {
                date: machine::now(),
                cpu: machine::cpu(),
                point,
                threads: settings.threads,
                isa: settings.isa.name().into(),
                peer: timed.name.clone(),
                peer_version: timed.version.clone(),
                gradflow_version: version.into(),
                rounds: timed.rounds,
                peer_seconds: timed.seconds,
                gradflow_seconds: measurement.ours,
                peer_flops: flops / timed.seconds,
            };
            self.rows.retain(|old| old.key() != row.key());
            self.rows.push(row.clone());
            self.run.push(row);
        }
        self.save_csv()
    }

    /// The rows of this run.
    pub fn of_run(&self) -> Vec<Row> {
        self.run.clone()
    }

    fn save_csv(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let unfinished = self.folder.join("unfinished");
        fs::write(&unfinished, csv::format(&self.rows))?;
        fs::rename(unfinished, self.folder.join(csv::FILE))
    }

    /// The table and the picture of all rows.
    pub fn write(&mut self) -> io::Result<()> {
        self.rows.sort_by(|a, b| order(a).cmp(&order(b)));
        self.save_csv()?;
        fs::write(self.folder.join("table.md"), table::format(&self.rows))?;
        fs::write(self.folder.join("picture.svg"), picture::draw(&self.rows))
    }
}

/// The grid's order.
fn order(row: &Row) -> (usize, &str, Dtype, Mode, Cell, usize, usize) {
    let Point { cell, mode, dtype, .. } = row.point;
    let peer = peers::ALL.iter().position(|peer| *peer == row.peer);
    (row.threads, &row.isa, dtype, mode, cell, grid::place(&row.point), peer.unwrap_or(usize::MAX))
}
