//! JSON that anybody may have made, read value by value.
//!
//! A [`Value`] is a piece of the text that is not parsed before it is asked for, so memory is taken for what is asked for
//! alone. Lists are read one element at a time.

use std::fmt;
use std::io::{Read, Write};

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use serde::de::{DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Deserializer, Map};

use super::error::PluginFileError;
use crate::kernels::Float;

/// The metadata of a file, which are read as they are, may take this many bytes: as values they take many times as many.
const METADATA_BYTES: usize = 1 << 20;

/// Names of text in errors are cut after this many characters.
const SHOWN: usize = 40;

/// Reads a whole file of at most `max_bytes`.
pub fn read(reader: impl Read, max_bytes: usize) -> Result<String, PluginFileError> {
    let mut bytes = Vec::new();
    reader.take((max_bytes as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > max_bytes {
        return Err(PluginFileError::Limit { path: None, place: String::new(), what: "bytes", limit: max_bytes });
    }
    String::from_utf8(bytes).map_err(|error| {
        let got = format!("bytes that are not UTF-8, from byte {} on", error.utf8_error().valid_up_to());
        malformed(String::new(), "JSON", got)
    })
}

fn malformed(place: String, expected: impl Into<String>, got: impl Into<String>) -> PluginFileError {
    PluginFileError::Malformed { path: None, place, expected: expected.into(), got: got.into() }
}

/// A value in a text that is JSON, and its place there.
#[derive(Clone, Debug)]
pub struct Value<'t> {
    text: &'t str,
    place: String,
}

impl<'t> Value<'t> {
    /// The outermost value of a text, all of which must be JSON.
    pub fn of_text(text: &'t str) -> Result<Self, PluginFileError> {
        let text = text.trim_start_matches('\u{feff}').trim(); // a byte order mark
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Ok(Value { text, place: String::new() }),
            Err(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                Err(malformed(place, "JSON", not_json(text, &error)))
            }
        }
    }

    /// What it is, for an error.
    fn shown(&self) -> String {
        match self.text.chars().next() {
            Some('{') => "an object".into(),
            Some('[') => "a list".into(),
            _ if self.text.chars().count() > SHOWN => self.text.chars().take(SHOWN).collect::<String>() + "…",
            _ => self.text.into(),
        }
    }

    pub fn malformed(&self, expected: impl Into<String>) -> PluginFileError {
        malformed(self.place.clone(), expected, self.shown())
    }

    pub fn unsupported(&self, expected: impl Into<String>) -> PluginFileError {
        PluginFileError::Unsupported {
            path: None,
            place: self.place.clone(),
            expected: expected.into(),
            got: self.shown(),
        }
    }

    /// Its text as it stands in the file.
    pub fn raw(&self) -> &'t str {
        self.text
    }

    pub fn is_null(&self) -> bool {
        self.text == "null"
    }

    pub fn text(&self) -> Result<String, PluginFileError> {
        serde_json::from_str(self.text).map_err(|_| self.malformed("a text"))
    }

    /// A number from `least` to `most`.
    pub fn whole(&self, least: usize, most: usize) -> Result<usize, PluginFileError> {
        let number = self.text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| match most {
            usize::MAX => self.malformed(format!("a whole number from {least} on")),
            _ => self.malformed(format!("a whole number from {least} to {most}")),
        })
    }

    /// A number that is finite in the element type.
    pub fn number<F: Float>(&self) -> Result<F, PluginFileError> {
        number(self.text).ok_or_else(|| self.malformed("a finite number"))
    }

    /// The values of an object under these keys. Other keys are skipped.
    pub fn members(&self, keys: &[&str]) -> Result<Members<'t>, PluginFileError> {
        self.keyed(keys, false)
    }

    /// The values of an object under these keys, which are all that it may have.
    pub fn members_alone(&self, keys: &[&str]) -> Result<Members<'t>, PluginFileError> {
        self.keyed(keys, true)
    }

    fn keyed(&self, keys: &[&str], alone: bool) -> Result<Members<'t>, PluginFileError> {
        if !self.text.starts_with('{') {
            return Err(self.malformed("an object"));
        }
        let mut members = Members { of: self.clone(), found: Vec::new(), refused: None };
        let object = Object { keys, alone, members: &mut members };
        // The text is JSON: what fails is a key, such as half of a surrogate pair.
        let read = Deserializer::from_str(self.text).deserialize_map(object);
        match members.refused.take() {
            Some(error) => Err(error),
            None => {
                read.map_err(|error| malformed(self.place.clone(), "an object", message(&error)))?;
                Ok(members)
            }
        }
    }

    /// Calls `each` with the elements of a list and their numbers.
    pub fn elements(
        &self,
        expected: &str,
        mut each: impl FnMut(usize, Value<'t>) -> Result<(), PluginFileError>,
    ) -> Result<usize, PluginFileError> {
        self.raw_elements(expected, |i, text| {
            each(i, Value { text, place: format!("{}[{i}]", self.place) }) //
        })
    }

    fn raw_elements(
        &self,
        expected: &str,
        each: impl FnMut(usize, &'t str) -> Result<(), PluginFileError>,
    ) -> Result<usize, PluginFileError> {
        if !self.text.starts_with('[') {
            return Err(self.malformed(expected));
        }
        let mut refused = None;
        let read = Deserializer::from_str(self.text).deserialize_seq(List { each, refused: &mut refused });
        match refused {
            Some(error) => Err(error),
            None => read.map_err(|error| malformed(self.place.clone(), expected, message(&error))),
        }
    }

    /// The elements of a list of at most `limit`.
    pub fn list(&self, expected: &str, limit: usize) -> Result<Vec<Value<'t>>, PluginFileError> {
        let mut list = Vec::new();
        self.elements(expected, |i, value| {
            if i == limit {
                let place = self.place.clone();
                return Err(PluginFileError::Limit { path: None, place, what: "elements", limit });
            }
            list.push(value);
            Ok(())
        })?;
        Ok(list)
    }

    /// Adds a list of `length` numbers to `numbers`. Of a longer one, no more is kept.
    fn add_numbers<F: Float>(&self, length: usize, numbers: &mut Vec<F>) -> Result<(), PluginFileError> {
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
    pub fn vector<F: Float>(&self, length: usize) -> Result<Array1<F>, PluginFileError> {
        let mut numbers = Vec::new();
        self.add_numbers(length, &mut numbers)?;
        Ok(numbers.into())
    }

    /// A list of `rows` lists of `columns` numbers.
    pub fn matrix<F: Float>(&self, [rows, columns]: [usize; 2]) -> Result<Array2<F>, PluginFileError> {
        let expected = format!("a list of {rows} lists of {columns} numbers");
        let mut numbers = Vec::new();
        let got = self.elements(&expected, |i, row| {
            // Of lists that are too many, nothing is read.
            if i < rows { row.add_numbers(columns, &mut numbers) } else { Ok(()) }
        })?;
        if got != rows {
            return Err(malformed(self.place.clone(), expected, format!("{got} lists")));
        }
        Ok(Array2::from_shape_vec((rows, columns), numbers).expect("rows of one length"))
    }

    /// An object of any values, parsed.
    pub fn metadata(&self) -> Result<Map<String, serde_json::Value>, PluginFileError> {
        if self.text.len() > METADATA_BYTES {
            let place = self.place.clone();
            return Err(PluginFileError::Limit { path: None, place, what: "bytes", limit: METADATA_BYTES });
        }
        if !self.text.starts_with('{') {
            return Err(self.malformed("an object"));
        }
        serde_json::from_str(self.text).map_err(|error| malformed(self.place.clone(), "an object", message(&error)))
    }
}

/// The values of an object that were asked for.
#[derive(Debug)]
pub struct Members<'t> {
    of: Value<'t>,
    found: Vec<(String, Value<'t>)>,
    refused: Option<PluginFileError>,
}

impl<'t> Members<'t> {
    /// The value of a key; nothing if there is none or it is null.
    pub fn optional(&self, key: &str) -> Option<&Value<'t>> {
        self.found.iter().find(|(found, value)| found == key && !value.is_null()).map(|(_, value)| value)
    }

    /// The value of a key.
    pub fn required(&self, key: &str) -> Result<&Value<'t>, PluginFileError> {
        let missing = || malformed(self.of.place.clone(), format!("a value for {key:?}"), "none");
        self.optional(key).ok_or_else(missing)
    }
}

/// Collects the values of some keys.
struct Object<'a, 't> {
    keys: &'a [&'a str],
    alone: bool,
    members: &'a mut Members<'t>,
}

impl<'t> Visitor<'t> for Object<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<(), A::Error> {
        let Object { keys, alone, members } = self;
        let refuse = |members: &mut Members<'t>, expected: String, got: String| {
            members.refused = Some(malformed(members.of.place.clone(), expected, got));
            A::Error::custom("")
        };
        while let Some(key) = map.next_key_seed(Key { keys, alone })? {
            let key = match key {
                Ok(key) => key,
                Err(None) => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Err(Some(other)) => return Err(refuse(members, format!("keys {}", keys.join(", ")), other)),
            };
            if members.found.iter().any(|(found, _)| found == key) {
                return Err(refuse(members, format!("one value for {key:?}"), "two".into()));
            }
            let dot = if members.of.place.is_empty() { "" } else { "." };
            let place = format!("{}{dot}{key}", members.of.place);
            let text = map.next_value::<&'t RawValue>()?.get();
            members.found.push((key.to_owned(), Value { text, place }));
        }
        Ok(())
    }
}

/// A key: one of the known ones, or the beginning of another one if there must be no others.
struct Key<'a> {
    keys: &'a [&'a str],
    alone: bool,
}

impl<'t, 'a> DeserializeSeed<'t> for Key<'a> {
    type Value = Result<&'a str, Option<String>>;

    fn deserialize<D: serde::Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Result<&'a str, Option<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        let known = self.keys.iter().find(|known| **known == key).copied();
        Ok(known.ok_or_else(|| self.alone.then(|| format!("{:?}", key.chars().take(SHOWN).collect::<String>()))))
    }
}

/// Calls a function with the text of each element.
struct List<'a, A> {
    each: A,
    refused: &'a mut Option<PluginFileError>,
}

impl<'t, A: FnMut(usize, &'t str) -> Result<(), PluginFileError>> Visitor<'t> for List<'_, A> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<S: SeqAccess<'t>>(mut self, mut list: S) -> Result<usize, S::Error> {
        let mut count = 0;
        while let Some(element) = list.next_element::<&'t RawValue>()? {
            if let Err(error) = (self.each)(count, element.get()) {
                *self.refused = Some(error);
                return Err(S::Error::custom(""));
            }
            count += 1;
        }
        Ok(count)
    }
}

/// A number of JSON that is finite in the element type. What else Rust takes for a number, such as `inf`, is not JSON.
fn number<F: Float>(text: &str) -> Option<F> {
    text.parse().ok().map(F::of).filter(|number| number.is_finite())
}

/// The text of an error, without the place in the piece that was parsed.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(&*text, |(message, _)| message);
    format!("one that is refused: {text}")
}

/// Why a text is not JSON. Python writes NaN and infinite numbers as words.
fn not_json(text: &str, error: &serde_json::Error) -> String {
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let from = line.get(error.column().saturating_sub(1)..).unwrap_or_default();
    match ["NaN", "Infinity"].into_iter().find(|word| from.starts_with(word)) {
        Some(word) => word.into(),
        None => message(error),
    }
}

/// Numbers as a list. They are written as `f64`, which every reader rounds back to the same `f32`.
pub fn write_vector<F: Float>(values: ArrayView1<'_, F>, writer: &mut impl Write) -> std::io::Result<()> {
    for (i, value) in values.iter().enumerate() {
        write!(writer, "{}{:?}", if i == 0 { "[" } else { ", " }, value.widen())?;
    }
    writer.write_all(if values.is_empty() { b"[]" } else { b"]" })
}

/// Rows as a list of lists.
pub fn write_matrix<F: Float>(rows: ArrayView2<'_, F>, writer: &mut impl Write) -> std::io::Result<()> {
    for (i, row) in rows.outer_iter().enumerate() {
        writer.write_all(if i == 0 { b"[" } else { b", " })?;
        write_vector(row, writer)?;
    }
    writer.write_all(if rows.is_empty() { b"[]" } else { b"]" })
}
