//! A progress bar (feature `indicatif`).

use std::ops::ControlFlow;

use indicatif::ProgressStyle;

use super::report::{Report, Step};

/// A report that draws a progress bar with the last loss on standard error, and prints a line per epoch above it (feature
/// `indicatif`). If standard error is not a terminal, it prints the lines only.
///
/// ```
/// use gradflow::fit::{Fit, ProgressBar};
/// use gradflow::ndarray::Array3;
/// use gradflow::{layers::Linear, loss::MeanSquaredError, optim::Sgd};
///
/// let (mut model, mut optimizer, mut loss) = (Linear::<f32>::zeros(2, 1), Sgd::new(0.1), MeanSquaredError::new());
/// let batches = vec![(Array3::ones((1, 4, 2)), Array3::ones((1, 4, 1))); 10];
/// let bar = ProgressBar::new(3 * batches.len() as u64);
/// Fit::new(&mut model, &mut optimizer, &mut loss)
///     .epochs(3)
///     .run(|_| &batches, || None, |report| bar.report(&report))?;
/// # Ok::<(), gradflow::fit::FitError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProgressBar(indicatif::ProgressBar);

impl ProgressBar {
    /// A bar for `steps` training steps, including those before a training was resumed.
    #[must_use]
    pub fn new(steps: u64) -> Self {
        let style = ProgressStyle::with_template("{bar:20} {pos}/{len}  {eta} left  {wide_msg}");
        ProgressBar(indicatif::ProgressBar::new(steps).with_style(style.expect("a valid template")))
    }

    /// Shows the progress, and continues.
    pub fn report<L>(&self, report: &Report<'_, L>) -> ControlFlow<()> {
        match report {
            Report::Step(Step { steps, loss, norm, .. }) => {
                self.0.set_position(*steps);
                self.0.set_message(format!("loss {loss:.4}, gradient norm {norm:.2}"));
            }
            Report::Epoch { history, .. } if self.0.is_hidden() => eprintln!("{history}"),
            Report::Epoch { history, .. } => self.0.println(history.to_string()),
        }
        ControlFlow::Continue(())
    }
}
