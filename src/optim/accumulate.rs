//! One gradient from several batches.

use ndarray::ArrayRef3;

use crate::base::{TensorsExt, ZerosLike};
use crate::kernels::Float;
use crate::layer::{Layer, Pass};

/// Sums the gradients of several small batches into that of the large batch they make up, for batches that do not fit
/// into memory at once.
///
/// Each small batch gives its *summed* loss and the number of positions that count in it; the result is the gradient of
/// the mean over all of them, so that batches with more positions weigh more. (In the mean of the small batches' means
/// they do not.)
///
/// ```
/// use gradflow::ndarray::Array3;
/// use gradflow::rand::{SeedableRng, rngs::StdRng};
/// use gradflow::{
///     Layer, Sequence, clip::ClipNorm, layers::Linear, loss::{Loss, MeanSquaredError},
///     optim::{GradAccumulator, Optimizer, Sgd}, recurrent::LstmCell,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rng = &mut StdRng::seed_from_u64(0);
/// let mut model = (LstmCell::<f64>::new(3, 4, rng), Linear::new(4, 2, rng));
/// let (mut squared_error, mut optimizer) = (MeanSquaredError::new().sum(), Sgd::new(0.1));
/// let (mut cache, mut accumulator) = (model.cache(), GradAccumulator::new(&model));
/// let (x, target) = (Array3::ones((5, 2, 3)), Array3::zeros((5, 2, 2)));
/// for lengths in [[5, 3], [2, 2], [4, 1]] {
///     let x = Sequence::from(&x).with_lengths(&lengths)?;
///     let mut state = model.zero_state(2);
///     let pass = model.pass(x, &mut state, &mut cache);
///     let sum = squared_error.of(&pass, &target);
///     accumulator.backward(pass, sum.gradient(), sum.value(), 2 * x.valid_count()); // every one of the 2 features counts
/// }
/// let (mean, grad) = accumulator.mean();
/// optimizer.step_clipped(&mut model, grad, ClipNorm::new(1.0))?;
/// # assert!(mean > 0.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GradAccumulator<L> {
    grad: L,
    loss: f64,
    count: usize,
    /// Whether the next batch starts anew.
    taken: bool,
}

impl<L: Layer> GradAccumulator<L> {
    /// An accumulator for gradients of `model`.
    pub fn new(model: &L) -> Self {
        GradAccumulator { grad: model.zeros_like(), loss: 0.0, count: 0, taken: true }
    }

    /// The backward pass of one small batch, whose summed loss over `count` positions is `loss` and has the gradient
    /// `dy`. The first after [`mean`](GradAccumulator::mean) starts from zero.
    ///
    /// # Panics
    /// Panics as [`Pass::backward`] does.
    #[track_caller]
    pub fn backward(&mut self, pass: Pass<'_, L>, dy: &ArrayRef3<L::Elem>, loss: f64, count: usize) {
        if self.taken {
            (self.loss, self.count, self.taken) = (0.0, 0, false);
            pass.backward_into(dy, &mut self.grad);
        } else {
            pass.backward(dy, &mut self.grad);
        }
        self.loss += loss;
        self.count += count;
    }

    /// The mean loss over all positions since the last call, and its gradient, for clipping and the optimizer's step. Zero
    /// if no position counts.
    ///
    /// # Panics
    /// Panics if there was no [`backward`](GradAccumulator::backward) since the last call.
    #[track_caller]
    pub fn mean(&mut self) -> (f64, &mut L) {
        assert!(!self.taken, "GradAccumulator: mean: no batch since the last mean");
        let weight = 1.0 / self.count.max(1) as f64;
        self.grad.scale(L::Elem::of(weight));
        self.taken = true;
        (self.loss * weight, &mut self.grad)
    }
}
