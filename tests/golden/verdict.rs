//! Compares results with the expected tensors.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::case::{Case, Results, Tensor};
use crate::kinds;

/// The outcome of one case.
#[derive(Debug)]
pub enum Verdict {
    /// Everything could be compared.
    Compared {
        /// The largest of all tensors' relative errors, or NaN.
        error: f64,
        /// The tensor that has it.
        tensor: String,
        /// The allowed error.
        tolerance: f64,
    },
    /// Why it could not be read, run or compared.
    Failed(String),
}

impl Verdict {
    /// The verdict on the bytes of a file; a panic counts as a failure.
    pub fn on(bytes: &[u8]) -> Verdict {
        catch_unwind(AssertUnwindSafe(|| {
            let case = Case::parse(bytes)?;
            let results = kinds::run(&case)?;
            compare(&case, &results)
        }))
        .unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref().copied());
            Err(format!("panicked: {}", message.unwrap_or("without a message")))
        })
        .unwrap_or_else(Verdict::Failed)
    }

    /// Whether the error is within the tolerance; NaN never is.
    pub fn passed(&self) -> bool {
        matches!(self, Verdict::Compared { error, tolerance, .. } if error <= tolerance)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.passed() { "ok" } else { "FAIL" };
        match self {
            Verdict::Compared { error, tensor, .. } => write!(f, "{error:8.1e}  {tensor:<40} {word}"),
            Verdict::Failed(reason) => write!(f, "{:>8}  {:<40} {word}: {reason}", "-", "-"),
        }
    }
}

/// The tolerance of the case's kind and type, or the case's own, which may be a few times larger.
fn tolerance(case: &Case) -> Result<f64, String> {
    let (usual, largest) = match (case.dtype()?, case.kind()?) {
        ("F64", "train") => (1e-9, 1e-9),
        ("F64", _) => (1e-12, 1e-11),
        _ => (1e-5, 3e-5),
    };
    match case.number("tolerance")? {
        Some(own) if own <= largest => Ok(own),
        Some(own) => Err(format!("tolerance = {own:e}: more than {largest:e}")),
        None => Ok(usual),
    }
}

/// How far `results` are from the expected tensors. First checks that both have the same tensors.
pub fn compare(case: &Case, results: &Results) -> Result<Verdict, String> {
    let tolerance = tolerance(case)?;
    if let Some(name) = case.unused() {
        return Err(format!("{name} is given, and nothing uses it"));
    }
    if let Some(name) = results.names().find(|name| case.expected().all(|(expected, _)| expected != *name)) {
        return Err(format!("{name} came out, and the case has none to compare it with"));
    }
    let mut worst = None;
    for (name, want) in case.expected() {
        let got = results.get(name).ok_or(format!("{name} must come out, and did not"))?;
        if got.shape != want.shape {
            return Err(format!("{name}: expected {:?}, got {:?}", want.shape, got.shape));
        }
        let error = relative_error(got, want);
        if worst.as_ref().is_none_or(|&(largest, _)| larger(error, largest)) {
            worst = Some((error, name.to_owned()));
        }
    }
    let (error, tensor) = worst.ok_or("nothing must come out")?;
    Ok(Verdict::Compared { error, tensor, tolerance })
}

/// `max|got - want| / max(1, max|want|)`, or NaN if anything is NaN or infinite.
fn relative_error(got: &Tensor, want: &Tensor) -> f64 {
    let difference = largest(got.values.iter().zip(&want.values).map(|(got, want)| (got - want).abs()));
    let size = largest(want.values.iter().map(|want| want.abs()));
    if difference.is_finite() && size.is_finite() { difference / size.max(1.0) } else { f64::NAN }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |largest, value| if larger(value, largest) { value } else { largest })
}

/// Whether `a` is larger; NaN is larger than any number, unlike in `f64::max`.
fn larger(a: f64, b: f64) -> bool {
    a > b || (a.is_nan() && !b.is_nan())
}
