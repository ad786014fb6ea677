//! The file of all medians.

use std::io;

use protocol::{Cell, Dtype, Mode, Point};

use super::Row;

pub const FILE: &str = "latest.csv";

const HEAD: &str = "date,cpu,cell,mode,dtype,T,B,I,H,depth,threads,isa,peer,peer_version,gradflow_version,rounds,\
                    peer_seconds,gradflow_seconds,ratio,peer_gflops,gradflow_gflops";

pub fn format(rows: &[Row]) -> String {
    let mut text = format!("{HEAD}\n");
    for row in rows {
        let Point { cell, mode, dtype, steps, batch, input, hidden, depth, vocabulary: _ } = row.point;
        let fields = [
            row.date.clone(),
            row.cpu.clone(),
            cell.name().into(),
            mode.name().into(),
            dtype.name().into(),
            steps.to_string(),
            batch.to_string(),
            input.to_string(),
            hidden.to_string(),
            depth.to_string(),
            row.threads.to_string(),
            row.isa.clone(),
            row.peer.clone(),
            row.peer_version.clone(),
            row.gradflow_version.clone(),
            row.rounds.to_string(),
            format!("{:.4e}", row.peer_seconds),
            format!("{:.4e}", row.gradflow_seconds),
            format!("{:.3}", row.ratio()),
            format!("{:.2}", 1e-9 * row.peer_flops),
            format!("{:.2}", 1e-9 * row.point.flops() / row.gradflow_seconds),
        ];
        // No field has quotes or a line's end; commas become semicolons.
        text += &fields.map(|field| field.replace(',', ";")).join(",");
        text.push('\n');
    }
    text
}

pub fn parse(text: &str) -> io::Result<Vec<Row>> {
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return Err(io::Error::other(format!("{FILE}: its first line is another one: move it away")));
    }
    let rows = lines
        .enumerate()
        .map(|(i, line)| parse_row(line).ok_or_else(|| io::Error::other(format!("{FILE}: line {}: {line:?}", i + 2))));
    rows.collect()
}

fn parse_row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split(',').collect();
    let number = |i: usize| fields.get(i)?.parse::<usize>().ok();
    let real = |i: usize| fields.get(i)?.parse::<f64>().ok();
    let text = |i: usize| fields.get(i).map(|field| (*field).to_owned());
    let point = Point {
        cell: Cell::ALL.into_iter().find(|cell| fields.get(2) == Some(&cell.name()))?,
        mode: Mode::ALL.into_iter().find(|mode| fields.get(3) == Some(&mode.name()))?,
        dtype: Dtype::ALL.into_iter().find(|dtype| fields.get(4) == Some(&dtype.name()))?,
        steps: number(5)?,
        batch: number(6)?,
        input: number(7)?,
        hidden: number(8)?,
        depth: number(9)?,
        vocabulary: 0,
    };
    Some(Row {
        date: text(0)?,
        cpu: text(1)?,
        point,
        threads: number(10)?,
        isa: text(11)?,
        peer: text(12)?,
        peer_version: text(13)?,
        gradflow_version: text(14)?,
        rounds: number(15)?,
        peer_seconds: real(16)?,
        gradflow_seconds: real(17)?,
        peer_flops: 1e9 * real(19)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let point = Point {
            cell: Cell::Gru,
            mode: Mode::Infer,
            dtype: Dtype::F64,
            steps: 50,
            batch: 64,
            input: 512,
            hidden: 256,
            depth: 1,
            vocabulary: 0,
        };
        let row = Row {
            date: "2026-01-31T00:00:00Z".into(),
            cpu: "A processor".into(),
            point,
            threads: 2,
            isa: "avx2".into(),
            peer: "torch".into(),
            peer_version: "torch 2.0 (MKL; AVX2)".into(),
            gradflow_version: "gradflow 0.1.0".into(),
            rounds: 9,
            peer_seconds: 0.25,
            gradflow_seconds: 0.125,
            peer_flops: 5e9,
        };
        assert_eq!(parse(&format(std::slice::from_ref(&row))).unwrap(), [row]);
        assert!(parse("another head\n").is_err());
        assert!(parse(&format!("{HEAD}\n2026,cut off\n")).is_err());
    }
}
