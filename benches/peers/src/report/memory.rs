//! Peak memory of training.

use std::fmt::{self, Write};
use std::path::Path;
use std::{fs, io};

use protocol::{Dtype, Memory, Point};

/// The sides' memory at one point, gradflow's first.
pub struct MemoryRow {
    pub point: Point,
    pub threads: usize,
    pub measured: Vec<(String, Memory)>,
}

impl MemoryRow {
    /// Bytes that gradflow's layer keeps for each step, sequence and unit.
    fn cache_per_element(&self) -> Option<f64> {
        let Point { steps, batch, hidden, depth, .. } = self.point;
        let cache = self.measured.iter().find_map(|(_, memory)| memory.cache)?;
        Some(cache as f64 / (steps * batch * hidden * depth) as f64)
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl fmt::Display for MemoryRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<38} peak MiB", self.point.to_string())?;
        for (name, memory) in &self.measured {
            write!(f, " | {name} {:.2}", megabytes(memory.peak))?;
        }
        match self.cache_per_element() {
            Some(bytes) => write!(f, " | gradflow's cache: {bytes:.1} bytes a step, sequence and unit"),
            None => Ok(()),
        }
    }
}

/// Writes `memory.csv` and `memory.md`.
pub fn write(folder: &Path, rows: &[MemoryRow]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut csv = String::from("cell,mode,dtype,T,B,I,H,depth,threads,side,peak_bytes,cache_bytes\n");
    let mut table = String::from(
        "# Peak memory of training\n\nWhat three training steps make resident above what the process had before the point: weights, input, gradients and\nall that is kept between forward and backward; and of that, gradflow's cache for each step, sequence and unit.\n\n| | gradflow MiB | peers MiB | cache bytes | in elements |\n| --- | ---: | --- | ---: | ---: |\n",
    );
    for row in rows {
        let Point { cell, mode, dtype, steps, batch, input, hidden, depth, vocabulary: _ } = row.point;
        for (name, memory) in &row.measured {
            let cache = memory.cache.map_or(String::new(), |cache| cache.to_string());
            let sizes = format!("{steps},{batch},{input},{hidden},{depth},{}", row.threads);
            let (cell, mode, dtype) = (cell.name(), mode.name(), dtype.name());
            writeln!(csv, "{cell},{mode},{dtype},{sizes},{name},{},{cache}", memory.peak).expect("a string");
        }
        let peers = row.measured.iter().skip(1).map(|(name, memory)| format!("{name} {:.1}", megabytes(memory.peak)));
        let peers = peers.collect::<Vec<_>>().join(", ");
        let ours = row.measured.first().map_or(0, |(_, memory)| memory.peak);
        let size = if dtype == Dtype::F32 { 4.0 } else { 8.0 };
        let cache = row.cache_per_element().unwrap_or(f64::NAN);
        let what = format!("{} {}", cell.name(), row.point.size());
        writeln!(table, "| {what} | {:.1} | {peers} | {cache:.1} | {:.2} |", megabytes(ours), cache / size)
            .expect("a string");
    }
    fs::write(folder.join("memory.csv"), csv)?;
    fs::write(folder.join("memory.md"), table)
}
