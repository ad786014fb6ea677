//! Values on a command line.

use std::error::Error;
use std::ffi::OsString;

use lexopt::prelude::ValueExt;

/// A list, each item of which is parsed.
///
/// # Errors
/// The first that an item gives.
pub fn each<T>(list: OsString, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Box<dyn Error>> {
    let list = list.string()?;
    list.split(',').map(|item| parse(item.trim()).map_err(Into::into)).collect()
}

/// The value of `all` with this name.
///
/// # Errors
/// If there is none.
pub fn named<T: Copy, const N: usize>(
    all: [T; N],
    name: impl Fn(T) -> &'static str,
    wanted: &str,
) -> Result<T, String> {
    let found = all.into_iter().find(|&value| name(value) == wanted);
    found.ok_or_else(|| format!("{wanted}: not one of {}", all.map(name).join(", ")))
}

/// A number above 0.
///
/// # Errors
/// If it is not one.
pub fn positive(number: &str) -> Result<usize, String> {
    number.parse().ok().filter(|&number| number > 0).ok_or(format!("{number}: not a number above 0"))
}
