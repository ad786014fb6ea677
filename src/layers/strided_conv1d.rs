//! Convolution in time with a stride.

use ndarray::{Array3, ArrayRef3, ArrayView3};

use super::causal_conv1d::{CausalConv1d, CausalConv1dCache, backward, forward};
use crate::base::error::mismatch;
use crate::base::{Size, SizeError};
use crate::kernels::Float;
use crate::layer::{Gradient, Graph, Layer, Sequence, Signal, Steps, Unsupported};
use crate::parameters;

const NAME: &str = "StridedConv1d";

/// A [`CausalConv1d`] with stride s: it makes sequences shorter, with one output for every s steps, from the first on.
///
/// ```text
/// y_t = b + Σ_j W_j x_{t s - (K-1-j) d}         t < ⌈T / s⌉
///
/// dL/dW_j = Σ_t dL/dy_t x_{t s - (K-1-j) d}ᵀ     dL/db = Σ_t dL/dy_t     dL/dx_{t s - (K-1-j) d} += W_jᵀ dL/dy_t
/// ```
///
/// | | shape |
/// | --- | --- |
/// | `x` | `[T, B, I]` |
/// | `y` | `[⌈T / s⌉, B, O]` |
/// | state | `[P, B, I]`, P = (K - 1) d: the last P steps, oldest first |
///
/// A length n becomes `⌈n / s⌉`, and the next layer or the loss gets the output with these lengths. The result is that of
/// `conv(F.pad(x, (P, 0)))` for a `torch.nn.Conv1d` with `stride=s`; parameters have the same names and shapes.
///
/// It is not [`Causal`](crate::Causal), because it changes the number of steps. It can read a stream in chunks if each chunk but
/// the last has a multiple of s steps.
///
/// ```
/// use gradflow::{Layer, Sequence, layers::CausalConv1d, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}};
///
/// let layer = CausalConv1d::<f32>::new(3, 4, 5, &mut StdRng::seed_from_u64(0)).strided(2);
/// let (x, mut cache) = (Array3::ones((9, 2, 3)), layer.cache());
/// let x = Sequence::from(&x).with_lengths(&[9, 6])?;
/// let y = layer.forward(x, &mut layer.zero_state(2), &mut cache);
/// let y = layer.output_sequence(&x, y);
/// assert_eq!((y.dims(), y.length(0), y.length(1)), ((5, 2), 5, 3));
/// # Ok::<(), gradflow::author::LengthsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StridedConv1d<F> {
    /// The convolution without the stride.
    pub conv: CausalConv1d<F>,
    stride: usize,
}
parameters! { impl<F: Float> Tensors<F> for StridedConv1d<F> { conv as ""; skip stride } }

impl<F: Float> CausalConv1d<F> {
    /// The same layer with one output for every `stride` steps.
    ///
    /// # Panics
    /// Panics if `stride` is 0.
    #[track_caller]
    pub fn strided(self, stride: usize) -> StridedConv1d<F> {
        StridedConv1d::new(self, stride)
    }
}

impl<F: Float> StridedConv1d<F> {
    /// `conv` with one output for every `stride` steps.
    ///
    /// # Panics
    /// Panics if `stride` is 0.
    #[track_caller]
    pub fn new(conv: CausalConv1d<F>, stride: usize) -> Self {
        if stride == 0 {
            mismatch(NAME, "stride", &"at least 1", &stride)
        }
        StridedConv1d { conv, stride }
    }

    /// s, the number of steps per output.
    pub fn stride(&self) -> usize {
        self.stride
    }
}

impl<F: Float> Layer for StridedConv1d<F> {
    type Elem = F;
    type State = Array3<F>;
    type Cache = CausalConv1dCache<F>;

    fn output_size(&self, input: Size) -> Result<usize, SizeError> {
        self.conv.output_size(input)
    }

    fn output_steps(&self) -> Steps {
        Steps::Every(self.stride)
    }

    fn zero_state(&self, batch: usize) -> Array3<F> {
        self.conv.zero_state(batch)
    }

    fn add_to_graph(&self, graph: &mut Graph<F>, _: Signal) -> Result<Signal, Unsupported> {
        Err(graph.refuse(format!("{NAME} gives fewer steps than it gets: a graph here has one time axis")))
    }

    /// # Panics
    /// Panics if `x` is a [chunk](Sequence::steps) that does not begin at a multiple of the stride, or has a mask or resets: the
    /// numbers of steps between those need not be multiples of the stride.
    #[track_caller]
    fn forward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        state: &mut Array3<F>,
        cache: &'c mut CausalConv1dCache<F>,
    ) -> ArrayView3<'c, F> {
        if !x.first_step().is_multiple_of(self.stride) {
            let expected = format_args!("chunks that begin at a multiple of the stride {}", self.stride);
            mismatch(NAME, "x", &expected, &format_args!("one that begins at step {}", x.first_step()))
        }
        if x.has_mask() || x.has_resets() {
            mismatch(NAME, "x", &"a batch without a mask and resets", &"one with them")
        }
        forward(NAME, &self.conv, self.conv.taps(self.stride), &x.reborrow(), state, cache);
        cache.output()
    }

    fn output<'c>(&self, cache: &'c CausalConv1dCache<F>) -> ArrayView3<'c, F> {
        cache.output()
    }

    fn backward_pass<'c>(
        &self,
        x: &Sequence<'_, F>,
        dy: &ArrayRef3<F>,
        dstate: Option<&mut Array3<F>>,
        cache: &'c mut CausalConv1dCache<F>,
        grad: Gradient<'_, Self>,
    ) -> ArrayView3<'c, F> {
        let (grad, how) = grad.parts();
        let (taps, grad) = (self.conv.taps(self.stride), Gradient::new(&mut grad.conv, how));
        backward(NAME, &self.conv, taps, &x.reborrow(), dy, dstate, cache, grad);
        cache.input_gradient()
    }
}
