//! The flags of a command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::prelude::*;

use super::{Failure, Output};

/// A flag that an example has besides the common ones.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The name without the dashes.
    pub name: &'static str,
    /// What `--help` calls its value; empty for a switch, which has none.
    pub value: &'static str,
    /// What `--help` says, with the default in brackets.
    pub help: &'static str,
}

/// The flags common to all examples, and an example's own flags.
///
/// ```text
/// let settings = Settings::parse("What it shows, in a line.", &[
///     Flag { name: "steps", value: "N", help: "updates of each model [3000]" },
/// ])?;
/// let updates = settings.whole("steps", 1..=100_000, if settings.quick { 200 } else { 3000 })?;
/// ```
pub struct Settings {
    /// The first of the seeds.
    pub seed: u64,
    /// A few seconds instead of minutes.
    pub quick: bool,
    /// Where pictures go.
    pub out: PathBuf,
    values: BTreeMap<&'static str, OsString>,
}

impl Settings {
    /// Parses this program's command line. If it asks for help, prints it and ends the program.
    ///
    /// # Errors
    /// If a flag is unknown or has no good value.
    pub fn parse(about: &str, own: &[Flag]) -> Result<Self, Failure> {
        match Self::of(std::env::args_os().skip(1), own)? {
            Some(settings) => Ok(settings),
            None => {
                print!("{}", help(about, own));
                std::process::exit(0)
            }
        }
    }

    /// Parses a command line; `None` if it asks for help.
    fn of(arguments: impl IntoIterator<Item = OsString>, own: &[Flag]) -> Result<Option<Self>, Failure> {
        let mut settings = Settings { seed: 0, quick: false, out: "out".into(), values: BTreeMap::new() };
        let parser = &mut lexopt::Parser::from_args(arguments);
        while let Some(flag) = parser.next()? {
            match flag {
                Long("seed") => settings.seed = whole(parser, "seed", 0..=u64::from(u32::MAX))?,
                Long("quick") => settings.quick = true,
                Long("out") => settings.out = parser.value()?.into(),
                Long("help") | Short('h') => return Ok(None),
                Long(name) => match own.iter().find(|flag| flag.name == name) {
                    Some(flag) => {
                        let value = if flag.value.is_empty() { OsString::new() } else { parser.value()? };
                        settings.values.insert(flag.name, value);
                    }
                    None => return Err(Long(name).unexpected().into()),
                },
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(Some(settings))
    }

    /// `count` seeds, from `--seed` on: by default, five seeds are 0 to 4.
    pub fn seeds(&self, count: u64) -> Range<u64> {
        self.seed..self.seed + count
    }

    /// A picture's file, `NAME.svg`, opened before the work.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub fn picture(&self, name: &str) -> Result<Output, Failure> {
        Output::create(&self.out, &format!("{name}.svg"))
    }

    /// Whether the switch was given.
    pub fn switch(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of `--name`, a whole number in `range`.
    ///
    /// # Errors
    /// If the value is not one.
    pub fn whole<N: FromStr + PartialOrd + Display>(
        &self,
        name: &str,
        range: RangeInclusive<N>,
        default: N,
    ) -> Result<N, Failure> {
        self.get(
            name,
            &format!("a whole number from {} to {}", range.start(), range.end()),
            |n| range.contains(n),
            default,
        )
    }

    /// The value of `--name`, a finite number above 0.
    ///
    /// # Errors
    /// If the value is not one.
    pub fn positive(&self, name: &str, default: f64) -> Result<f64, Failure> {
        self.get(name, "a number above 0", |x: &f64| *x > 0.0 && x.is_finite(), default)
    }

    /// The value of `--name`: `expected` describes it, and `fits` must accept it.
    ///
    /// # Errors
    /// If `fits` does not accept it.
    pub fn get<T: FromStr>(
        &self,
        name: &str,
        expected: &str,
        fits: impl Fn(&T) -> bool,
        default: T,
    ) -> Result<T, Failure> {
        self.values.get(name).map_or(Ok(default), |value| read(value, name, expected, fits))
    }
}

fn help(about: &str, own: &[Flag]) -> String {
    let common = [
        Flag { name: "seed", value: "N", help: "the first of the seeds [0]" },
        Flag { name: "quick", value: "", help: "a few seconds, with weaker claims" },
        Flag { name: "out", value: "DIR", help: "where pictures go [out]" },
        Flag { name: "help", value: "", help: "this text" },
    ];
    let flags = own
        .iter()
        .chain(&common)
        .map(|Flag { name, value, help }| format!("  --{:<18} {help}\n", format!("{name} {value}")));
    format!("{about}\n\n{}", String::from_iter(flags))
}

/// The value of `--flag`: a whole number in `range`.
pub fn whole<N>(parser: &mut lexopt::Parser, flag: &str, range: RangeInclusive<N>) -> Result<N, Failure>
where
    N: FromStr + PartialOrd + Display,
{
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    parsed(parser, flag, &expected, |n| range.contains(n))
}

/// The value of `--flag`: a finite number above 0.
pub fn positive(parser: &mut lexopt::Parser, flag: &str) -> Result<f64, Failure> {
    parsed(parser, flag, "a number above 0", |x: &f64| *x > 0.0 && x.is_finite())
}

/// The value of `--flag`: `expected` describes it, and `fits` must accept it.
pub fn parsed<T: FromStr>(
    parser: &mut lexopt::Parser,
    flag: &str,
    expected: &str,
    fits: impl Fn(&T) -> bool,
) -> Result<T, Failure> {
    read(&parser.value()?, flag, expected, fits)
}

fn read<T: FromStr>(value: &OsString, flag: &str, expected: &str, fits: impl Fn(&T) -> bool) -> Result<T, Failure> {
    let parsed = value.to_str().and_then(|value| value.parse().ok()).filter(fits);
    parsed.ok_or_else(|| Failure::Usage(format!("--{flag}: expected {expected}, got {value:?}")))
}
