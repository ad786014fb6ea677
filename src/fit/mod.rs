//! The training loop that most programs write, built from public parts.
//!
//! [`Fit`] goes through epochs of batches with a [`Loss`](crate::loss::Loss) and an [`Optimizer`](crate::optim::Optimizer).
//! A step is the body of the plain loop at the top of the crate's documentation:
//!
//! ```text
//! x ← batch.train(a seed of this step's own)         dropout draws another mask in each step
//! y ← model(x), from the zero state                  L ← loss(y, targets)
//! g ← dL/dparameters                                 lr ← schedule(step)
//! parameters ← optimizer(parameters, clip(g))        an error if g is not finite
//! average ← average(parameters)                      if there is one
//! ```
//!
//! After each epoch the model is evaluated on the validation batches, without a gradient and without dropout; the weights of the
//! best epoch are kept. With an [average](Fit::average) of the weights, the average is evaluated and kept. The means over an
//! epoch are weighted by what counts in each batch ([`Loss::weight`](crate::loss::Loss::weight)), so a smaller last batch or
//! padding does not distort them.
//!
//! ```
//! use gradflow::fit::{self, Fit};
//! use gradflow::ndarray::Array3;
//! use gradflow::rand::{RngExt, SeedableRng, rngs::StdRng};
//! use gradflow::{clip::ClipNorm, layers::Linear, loss::MeanSquaredError, optim::AdamW, recurrent::Gru};
//!
//! // y_t = x_t + x_{t-1}
//! fn batch(rng: &mut StdRng) -> (Array3<f32>, Array3<f32>) {
//!     let x = Array3::from_shape_simple_fn((6, 8, 1), || rng.random_range(-1.0..1.0));
//!     let y = Array3::from_shape_fn(x.dim(), |(t, b, k)| x[[t, b, k]] + if t > 0 { x[[t - 1, b, k]] } else { 0.0 });
//!     (x, y)
//! }
//! let rng = &mut StdRng::seed_from_u64(0);
//! let (training, validation): (Vec<_>, _) = ((0..20).map(|_| batch(rng)).collect(), [batch(rng)]);
//!
//! let mut model = (Gru::new(1, 16, rng), Linear::new(16, 1, rng));
//! let (mut optimizer, mut loss) = (AdamW::new(1e-2), MeanSquaredError::new());
//! let history = Fit::new(&mut model, &mut optimizer, &mut loss)
//!     .epochs(30)
//!     .clip(ClipNorm::new(1.0))
//!     .patience(5)
//!     .run(|_epoch| &training, || &validation, fit::print)?;
//! let best = &history.epochs[history.best().unwrap()];
//! assert!(best.score() < 0.02, "{history}");
//! # Ok::<(), gradflow::fit::FitError>(())
//! ```
//!
//! The first closure gets the number of the epoch, for shuffling: the batches of an epoch should follow from it alone, so that a
//! resumed training sees the same ones. If a training fits neither this loop nor its report (a carried state, several losses,
//! several models), write your own loop.
//!
//! # Reports, and stopping
//!
//! The third closure is called for every step and every epoch ([`Report`]) and returns whether to continue. It may print
//! ([`print`](fn@print)), do nothing ([`quiet`]), draw a progress bar (`ProgressBar`, feature `indicatif`), collect points for a
//! plot, compute its own metrics from the model, or stop the training. Stopping between two steps also makes Ctrl-C safe; with
//! the crate `ctrlc`:
//!
//! ```
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//!
//! use gradflow::fit::Fit;
//! use gradflow::ndarray::Array3;
//! use gradflow::{layers::Linear, loss::MeanSquaredError, optim::Sgd};
//!
//! # let path = std::env::temp_dir().join(format!("gradflow-doc-fit-{}.safetensors", std::process::id()));
//! # let (mut model, mut optimizer, mut loss) = (Linear::<f32>::zeros(2, 1), Sgd::new(0.1), MeanSquaredError::new());
//! # let batches = [(Array3::ones((1, 4, 2)), Array3::ones((1, 4, 1)))];
//! let interrupted = Arc::new(AtomicBool::new(false));
//! let flag = interrupted.clone();
//! ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
//! # #[cfg(feature = "safetensors")]
//! # {
//! let mut fit = Fit::new(&mut model, &mut optimizer, &mut loss).epochs(3).checkpoint(&path);
//! if path.exists() {
//!     fit = fit.resume(&path)?; // the program was interrupted before
//! }
//! fit.run(|_| &batches, || None, |_| {
//!     if interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
//! })?;
//! # std::fs::remove_file(&path)?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The current step is finished, the checkpoint is saved, and the next run continues from there, to the bit, even within an epoch.
//! A process that is killed leaves the checkpoint of the last whole epoch.
//!
//! # Which learning rate
//!
//! [`lr_range`] trains a copy with a growing learning rate, until it diverges.

mod error;
mod history;
mod lr_range;
#[cfg(feature = "indicatif")]
mod progress_bar;
mod report;
mod run;
mod supervised;

pub use error::FitError;
pub use history::{End, Epoch, History};
pub use lr_range::{LrPoint, LrRange, lr_range};
#[cfg(feature = "indicatif")]
pub use progress_bar::ProgressBar;
pub use report::{Report, Step, print, quiet};
pub use run::Fit;
pub use supervised::{Supervised, Weighted};
