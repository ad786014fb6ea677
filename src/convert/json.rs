//! Untrusted JSON, read value by value.
//!
//! A [`Value`] is a piece of the text that is parsed only on request, so memory is taken only for what is requested. Lists are
//! read one element at a time.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::file_error::FileError;

/// Names of text in errors are cut after this many characters.
const SHOWN: usize = 40;

pub fn malformed(place: String, expected: impl Into<String>, got: impl Into<String>) -> FileError {
    FileError::Malformed { path: None, place, expected: expected.into(), got: got.into() }
}

/// A value in a JSON text, and its place there.
#[derive(Clone, Debug)]
pub struct Value<'t> {
    pub(super) text: &'t str,
    pub(super) place: String,
}

impl<'t> Value<'t> {
    /// A value of a text that was read before, and its place there.
    #[cfg(feature = "keras")]
    pub fn in_place(text: &'t str, place: &str) -> Self {
        Value { text, place: place.into() }
    }

    /// The outermost value of a text that must be JSON as a whole, as a part of something larger.
    #[cfg(feature = "keras")]
    pub fn of_text_in(text: &'t str, place: &str) -> Result<Self, FileError> {
        let value = Value::of_text(text)?;
        Ok(Value { place: place.into(), ..value })
    }

    /// The outermost value of a text that must be JSON as a whole.
    pub fn of_text(text: &'t str) -> Result<Self, FileError> {
        let text = text.trim_start_matches('\u{feff}').trim(); // a byte order mark
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Ok(Value { text, place: String::new() }),
            Err(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                Err(malformed(place, "JSON", not_json(text, &error)))
            }
        }
    }

    /// A description of the value, for an error.
    fn shown(&self) -> String {
        match self.text.chars().next() {
            Some('{') => "an object".into(),
            Some('[') => "a list".into(),
            _ if self.text.chars().count() > SHOWN => self.text.chars().take(SHOWN).collect::<String>() + "…",
            _ => self.text.into(),
        }
    }

    pub fn malformed(&self, expected: impl Into<String>) -> FileError {
        malformed(self.place.clone(), expected, self.shown())
    }

    pub fn unsupported(&self, expected: impl Into<String>) -> FileError {
        FileError::Unsupported { path: None, place: self.place.clone(), expected: expected.into(), got: self.shown() }
    }

    /// The error for another value than the expected one at this place.
    #[cfg(feature = "keras")]
    pub fn unsupported_as(&self, expected: &str, got: &str) -> FileError {
        let place = self.place.clone();
        FileError::Unsupported { path: None, place, expected: expected.into(), got: got.into() }
    }

    #[cfg(feature = "keras")]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Its text as in the file.
    pub fn raw(&self) -> &'t str {
        self.text
    }

    pub fn is_null(&self) -> bool {
        self.text == "null"
    }

    pub fn text(&self) -> Result<String, FileError> {
        serde_json::from_str(self.text).map_err(|_| self.malformed("a text"))
    }

    /// A number from `least` to `most`.
    #[cfg(feature = "plugin-formats")]
    pub fn whole(&self, least: usize, most: usize) -> Result<usize, FileError> {
        let number = self.text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| match most {
            usize::MAX => self.malformed(format!("a whole number from {least} on")),
            _ => self.malformed(format!("a whole number from {least} to {most}")),
        })
    }

    /// The values of an object under these keys. Other keys are skipped.
    pub fn members(&self, keys: &[&str]) -> Result<Members<'t>, FileError> {
        self.keyed(keys, false)
    }

    /// The values of an object under these keys; no other keys may exist.
    #[cfg(feature = "plugin-formats")]
    pub fn members_alone(&self, keys: &[&str]) -> Result<Members<'t>, FileError> {
        self.keyed(keys, true)
    }

    fn keyed(&self, keys: &[&str], alone: bool) -> Result<Members<'t>, FileError> {
        if !self.text.starts_with('{') {
            return Err(self.malformed("an object"));
        }
        let mut members = Members { of: self.clone(), found: Vec::new(), refused: None };
        let object = Object { keys, alone, members: &mut members };
        // The text is JSON, so only a key can fail, such as half of a surrogate pair.
        let read = Deserializer::from_str(self.text).deserialize_map(object);
        match members.refused.take() {
            Some(error) => Err(error),
            None => {
                read.map_err(|error| malformed(self.place.clone(), "an object", message(&error)))?;
                Ok(members)
            }
        }
    }

    /// Calls `each` with the elements of a list and their indices.
    pub fn elements(
        &self,
        expected: &str,
        mut each: impl FnMut(usize, Value<'t>) -> Result<(), FileError>,
    ) -> Result<usize, FileError> {
        self.raw_elements(expected, |i, text| {
            each(i, Value { text, place: format!("{}[{i}]", self.place) }) //
        })
    }

    pub fn raw_elements(
        &self,
        expected: &str,
        each: impl FnMut(usize, &'t str) -> Result<(), FileError>,
    ) -> Result<usize, FileError> {
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
    pub fn list(&self, expected: &str, limit: usize) -> Result<Vec<Value<'t>>, FileError> {
        let mut list = Vec::new();
        self.elements(expected, |i, value| {
            if i == limit {
                let place = self.place.clone();
                return Err(FileError::Limit { path: None, place, what: "elements", limit });
            }
            list.push(value);
            Ok(())
        })?;
        Ok(list)
    }
}

/// The values of an object that were asked for.
#[derive(Debug)]
pub struct Members<'t> {
    of: Value<'t>,
    found: Vec<(String, Value<'t>)>,
    refused: Option<FileError>,
}

impl<'t> Members<'t> {
    /// The value of a key; `None` if there is none or it is null.
    pub fn optional(&self, key: &str) -> Option<&Value<'t>> {
        self.found.iter().find(|(found, value)| found == key && !value.is_null()).map(|(_, value)| value)
    }

    /// The value of a key, which may be null; `None` if there is none.
    #[cfg(feature = "keras")]
    pub fn given(&self, key: &str) -> Option<&Value<'t>> {
        self.found.iter().find(|(found, _)| found == key).map(|(_, value)| value)
    }

    /// The value of a key.
    pub fn required(&self, key: &str) -> Result<&Value<'t>, FileError> {
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

/// A key: one of the known ones, or, if there must be no others, the beginning of an unknown one.
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
    refused: &'a mut Option<FileError>,
}

impl<'t, A: FnMut(usize, &'t str) -> Result<(), FileError>> Visitor<'t> for List<'_, A> {
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

/// The text of an error, without the place in the piece that was parsed.
pub fn message(error: &serde_json::Error) -> String {
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
