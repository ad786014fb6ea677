//! Loss functions: the number that training minimises, and its gradient with respect to the model's output.

mod binary;
mod cross_entropy;
pub mod ctc;
mod elements;
mod huber;
mod mean_squared;
mod reduction;
mod traits;
mod weights;

pub use binary::BinaryCrossEntropy;
pub use cross_entropy::SoftmaxCrossEntropy;
pub use ctc::Ctc;
pub use huber::Huber;
pub use mean_squared::MeanSquaredError;
pub use traits::{Evaluated, Loss};
pub use weights::Weights;
