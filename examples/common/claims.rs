//! The claims of an example, and whether they hold.

use super::{Failure, Settings};

/// The columns of the table.
const COLUMNS: [&str; 5] = ["", "published", "expected", "here", ""];

/// A table of claims: what was published, what is expected of this run, what was measured, and whether that holds.
pub struct Claims {
    quick: bool,
    rows: Vec<[String; 5]>,
    failed: Vec<String>,
}

impl Claims {
    /// No claims yet.
    pub fn new(settings: &Settings) -> Self {
        Claims { quick: settings.quick, rows: Vec::new(), failed: Vec::new() }
    }

    /// Adds a claim that must hold. A comparison with NaN is false, so NaN fails.
    pub fn check(
        &mut self,
        what: impl Into<String>,
        published: impl Into<String>,
        expected: impl Into<String>,
        here: impl Into<String>,
        holds: bool,
    ) {
        let what = what.into();
        if !holds {
            self.failed.push(what.clone());
        }
        let verdict = if holds { "holds" } else { "FAILS" };
        self.rows.push([what, published.into(), expected.into(), here.into(), verdict.into()]);
    }

    /// Adds a figure that is shown beside the claims without being judged.
    pub fn note(
        &mut self,
        what: impl Into<String>,
        published: impl Into<String>,
        expected: impl Into<String>,
        here: impl Into<String>,
    ) {
        self.rows.push([what.into(), published.into(), expected.into(), here.into(), String::new()]);
    }

    /// Prints the table.
    ///
    /// # Errors
    /// If a claim does not hold.
    pub fn finish(self) -> Result<(), Failure> {
        println!("\n{}", self.table());
        if self.quick {
            println!("\nThis is the quick form: smaller, with weaker claims.");
        }
        match self.failed.as_slice() {
            [] => Ok(()),
            failed => Err(Failure::Run(format!("does not hold: {}", failed.join("; ")))),
        }
    }

    fn table(&self) -> String {
        let length = |text: &str| text.chars().count();
        let widths: Vec<usize> = (0..COLUMNS.len())
            .map(|k| self.rows.iter().map(|row| length(&row[k])).max().unwrap_or(0).max(length(COLUMNS[k])))
            .collect();
        let line = |cells: [&str; 5]| {
            let cells = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            Vec::from_iter(cells).join("  ").trim_end().to_owned()
        };
        let rule = widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>().join("  ");
        let rows = self.rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
        [line(COLUMNS), rule.trim_end().to_owned()].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
    }
}
