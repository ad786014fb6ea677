//! The series, its years, and errors of forecasts.

use std::ops::RangeInclusive;

use gradflow::ndarray::Array2;

use crate::common::Failure;

/// The yearly figures, with their source and terms in the header.
const DATA: &str = include_str!("../data/sunspots.csv");

/// The longest forecast, in years.
pub const HORIZON: usize = 10;

/// One number a year.
pub struct Series {
    first_year: usize,
    values: Vec<f64>,
}

impl Series {
    /// The sunspot numbers of 1700 to 2008.
    ///
    /// # Errors
    /// If a line is not `year,number`, or the years are not one after the other.
    pub fn sunspots() -> Result<Self, Failure> {
        let lines = DATA.lines().filter(|line| !line.starts_with('#')).skip(1);
        let mut series = Series { first_year: 0, values: Vec::new() };
        for line in lines {
            let fields = line.split_once(',').and_then(|(year, value)| Some((year.parse().ok()?, value.parse().ok()?)));
            let (year, value): (usize, f64) =
                fields.ok_or_else(|| Failure::Run(format!("sunspots.csv: {line:?}: not a year and a number")))?;
            if series.values.is_empty() {
                series.first_year = year;
            }
            if year != series.first_year + series.values.len() {
                return Err(Failure::Run(format!("sunspots.csv: {line:?}: not the next year")));
            }
            series.values.push(value);
        }
        Ok(series)
    }

    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// All values up to and including a year.
    pub fn until(&self, year: usize) -> &[f64] {
        &self.values[..=self.index(year)]
    }

    /// The position of a year.
    pub fn index(&self, year: usize) -> usize {
        year - self.first_year
    }

    pub fn at(&self, year: usize) -> f64 {
        self.values[self.index(year)]
    }

    pub fn last_year(&self) -> usize {
        self.first_year + self.values.len() - 1
    }
}

/// Forecasts of the next [`HORIZON`] years, from every year of a range: row 0 from the first of them.
#[derive(Clone)]
pub struct Forecasts {
    origins: RangeInclusive<usize>,
    /// `[number of origins, HORIZON]`: column `h - 1` is for `h` years after the origin.
    table: Array2<f64>,
}

impl Forecasts {
    /// Makes the table row by row: `forecast` fills a row from the position of its origin in the series.
    pub fn new(series: &Series, origins: RangeInclusive<usize>, mut forecast: impl FnMut(usize, &mut [f64])) -> Self {
        let mut table = Array2::zeros((origins.clone().count(), HORIZON));
        for (year, mut row) in origins.clone().zip(table.rows_mut()) {
            forecast(series.index(year), row.as_slice_mut().expect("a row of a fresh table"));
        }
        Forecasts { origins, table }
    }

    /// The mean of several forecasts.
    pub fn mean(all: &[Forecasts]) -> Self {
        let mut mean = all[0].clone();
        all[1..].iter().for_each(|forecasts| mean.table += &forecasts.table);
        mean.table /= all.len() as f64;
        mean
    }

    /// The forecast of `year`, made `ahead` years before.
    pub fn of(&self, year: usize, ahead: usize) -> f64 {
        self.table[[year - ahead - self.origins.start(), ahead - 1]]
    }

    /// The root mean squared error of the forecasts made `ahead` years before, over those of `years` that have one.
    pub fn rmse(&self, series: &Series, years: &RangeInclusive<usize>, ahead: RangeInclusive<usize>) -> f64 {
        let mut squares = Vec::new();
        for ahead in ahead {
            let first = *years.start().max(&(self.origins.start() + ahead));
            squares.extend((first..=*years.end()).map(|year| (self.of(year, ahead) - series.at(year)).powi(2)));
        }
        (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
    }

    /// The mean logarithm of the errors one to [`HORIZON`] years ahead: an error that is a tenth smaller counts the same whether
    /// errors are large or small.
    pub fn log_error(&self, series: &Series, years: &RangeInclusive<usize>) -> f64 {
        (1..=HORIZON).map(|ahead| self.rmse(series, years, ahead..=ahead).ln()).sum::<f64>() / HORIZON as f64
    }
}
