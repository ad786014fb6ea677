//! Metrics: how good a model is, summed over the batches of a data set.
//!
//! | | of | |
//! | --- | --- | --- |
//! | [`Accuracy`] | logits and class ids | the share of positions that are right, or right among the k best |
//! | [`ConfusionMatrix`] | logits or class ids, and class ids | precision, recall and F1 of each class, and their means |
//! | [`Perplexity`] | logits and class ids | nats, bits and perplexity |
//! | [`Errors`] | values | mean absolute and root mean squared error |
//! | [`EditDistance`] | sequences of ids | insertions, deletions and substitutions per symbol |
//! | [`argmax`](argmax()) | logits | the class of each position |
//!
//! Each metric keeps sums and divides at the end, so the result is that of all positions together: the mean of the batches' means
//! would give too much weight to the positions of a short batch. Outputs are anything that converts to a
//! [`Sequence`](crate::Sequence), with its lengths: `&pass`, or [`Layer::output_sequence`](crate::Layer::output_sequence) of the
//! output of `forward`. Padding and ignored targets do not count; `add_weighted` gives each position a weight. `merge` adds the
//! sums of another thread. The sums are [`Tensors`](crate::Tensors), so they can be saved, or added up across machines.
//!
//! ```
//! use gradflow::metrics::{Accuracy, Perplexity};
//! use gradflow::ndarray::{arr2, arr3};
//!
//! let (mut accuracy, mut perplexity) = (Accuracy::new(), Perplexity::new());
//! for (logits, classes) in [
//!     (arr3(&[[[0.0, 9.0], [9.0, 0.0], [9.0, 0.0]]]), arr2(&[[1, 0, 1]])), // [1, B, V], [1, B]
//!     (arr3(&[[[0.0, 9.0]]]), arr2(&[[1]])),                               // the last batch is smaller
//! ] {
//!     accuracy.add(&logits, &classes);
//!     perplexity.add(&logits, &classes);
//! }
//! assert_eq!(accuracy.value(), 3.0 / 4.0);
//! assert!(perplexity.nats() > 2.0);
//! ```

mod accuracy;
mod argmax;
mod confusion;
mod edit_distance;
mod errors;
mod perplexity;
mod positions;

pub use accuracy::Accuracy;
pub use argmax::argmax;
pub use confusion::ConfusionMatrix;
pub use edit_distance::{EditDistance, edit_distance};
pub use errors::Errors;
pub use perplexity::Perplexity;
