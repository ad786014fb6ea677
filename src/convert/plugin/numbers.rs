//! Numbers in JSON: read one at a time, and written.

use std::io::{Read, Write};

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use serde_json::Map;

use crate::convert::FileError;
use crate::convert::json::{Value, malformed, message};
use crate::kernels::Float;

/// The limit of a file's metadata in bytes: parsed into values, they take many times as many.
const METADATA_BYTES: usize = 1 << 20;

/// Reads a whole file of at most `max_bytes`.
pub fn read(reader: &mut dyn Read, max_bytes: usize) -> Result<String, FileError> {
    let mut bytes = Vec::new();
    reader.take((max_bytes as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > max_bytes {
        return Err(FileError::Limit { path: None, place: String::new(), what: "bytes", limit: max_bytes });
    }
    String::from_utf8(bytes).map_err(|error| {
        let got = format!("bytes that are not UTF-8, from byte {} on", error.utf8_error().valid_up_to());
        malformed(String::new(), "JSON", got)
    })
}

impl Value<'_> {
    /// A number that is finite in the element type.
    pub fn number<F: Float>(&self) -> Result<F, FileError> {
        number(self.text).ok_or_else(|| self.malformed("a finite number"))
    }

    /// Adds a list of `length` numbers to `numbers`. The rest of a longer list is not kept.
    fn add_numbers<F: Float>(&self, length: usize, numbers: &mut Vec<F>) -> Result<(), FileError> {
        let expected = format!("a list of {length} numbers");
        let got = self.raw_elements(&expected, |i, text| {
            let value = number(text);
            let value = value.ok_or_else(|| Value { text, place: format!("{}[{i}]", self.place) });
            let value = value.map_err(|value| value.malformed("a finite number"))?;
            if i < length {
                numbers.push(value);
            }
            Ok(())
        })?;
        if got != length { Err(malformed(self.place.clone(), expected, format!("{got}"))) } else { Ok(()) }
    }

    /// A list of `length` numbers.
    pub fn vector<F: Float>(&self, length: usize) -> Result<Array1<F>, FileError> {
        let mut numbers = Vec::new();
        self.add_numbers(length, &mut numbers)?;
        Ok(numbers.into())
    }

    /// A list of `rows` lists of `columns` numbers.
    pub fn matrix<F: Float>(&self, [rows, columns]: [usize; 2]) -> Result<Array2<F>, FileError> {
        let expected = format!("a list of {rows} lists of {columns} numbers");
        let mut numbers = Vec::new();
        let got = self.elements(&expected, |i, row| {
            // Surplus lists are not read.
            if i < rows { row.add_numbers(columns, &mut numbers) } else { Ok(()) }
        })?;
        if got != rows {
            return Err(malformed(self.place.clone(), expected, format!("{got} lists")));
        }
        Ok(Array2::from_shape_vec((rows, columns), numbers).expect("rows of one length"))
    }

    /// An object of any values, parsed.
    pub fn metadata(&self) -> Result<Map<String, serde_json::Value>, FileError> {
        if self.text.len() > METADATA_BYTES {
            let place = self.place.clone();
            return Err(FileError::Limit { path: None, place, what: "bytes", limit: METADATA_BYTES });
        }
        if !self.text.starts_with('{') {
            return Err(self.malformed("an object"));
        }
        serde_json::from_str(self.text).map_err(|error| malformed(self.place.clone(), "an object", message(&error)))
    }
}

/// A JSON number that is finite in the element type. Other numbers that Rust parses, such as `inf`, are not JSON.
fn number<F: Float>(text: &str) -> Option<F> {
    text.parse().ok().map(F::of).filter(|number| number.is_finite())
}

/// Numbers as a list. They are written as `f64`, which every reader rounds back to the same `f32`.
pub fn write_vector<F: Float>(values: ArrayView1<'_, F>, writer: &mut dyn Write) -> std::io::Result<()> {
    for (i, value) in values.iter().enumerate() {
        write!(writer, "{}{:?}", if i == 0 { "[" } else { ", " }, value.widen())?;
    }
    writer.write_all(if values.is_empty() { b"[]" } else { b"]" })
}

/// Rows as a list of lists.
pub fn write_matrix<F: Float>(rows: ArrayView2<'_, F>, writer: &mut dyn Write) -> std::io::Result<()> {
    for (i, row) in rows.outer_iter().enumerate() {
        writer.write_all(if i == 0 { b"[" } else { b", " })?;
        write_vector(row, writer)?;
    }
    writer.write_all(if rows.is_empty() { b"[]" } else { b"]" })
}
