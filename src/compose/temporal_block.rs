//! Ready-made residual blocks of convolutions in time.

use rand::Rng;

use super::residual::Residual;
use crate::kernels::Float;
use crate::layer::Layer;
use crate::layers::{Activation, CausalConv1d, Dropout, LayerNorm, Linear};
use crate::sequential;
use crate::wrap::WeightNorm;

sequential! {
    /// A convolution in time, and a layer norm over the features of each step.
    #[derive(Clone, Debug, PartialEq)]
    pub struct NormedConv1d<F: Float>: Layer<F> {
        /// `conv(x)`
        pub conv as "": CausalConv1d<F>,
        /// `norm(conv(x))`
        pub norm: LayerNorm<F>,
    }
}

sequential! {
    /// The branch of a [`TemporalBlock`]: two convolutions, each followed by relu and dropout.
    #[derive(Clone, Debug, PartialEq)]
    pub struct TemporalBranch<C: Layer>: Layer<C::Elem> {
        /// From I to O features.
        pub conv1: C,
        /// After `conv1`.
        pub relu1: Activation<C::Elem>,
        /// After `relu1`.
        pub dropout1: Dropout<C::Elem>,
        /// From O to O features.
        pub conv2: C,
        /// After `conv2`.
        pub relu2: Activation<C::Elem>,
        /// After `relu2`.
        pub dropout2: Dropout<C::Elem>,
    }
}

sequential! {
    /// A residual block of two dilated causal convolutions. A temporal convolutional network is a stack of such blocks (Bai, Kolter
    /// and Koltun 2018).
    ///
    /// ```text
    /// y = relu(shortcut(x) + branch(x))          shortcut: the identity, or W x + b if I and O differ
    /// branch(x) = drop(relu(conv2(drop(relu(conv1(x))))))
    /// ```
    ///
    /// | | shape |
    /// | --- | --- |
    /// | `x` | `[T, B, I]` |
    /// | `y` | `[T, B, O]` |
    ///
    /// The convolutions have [weight norm](TemporalBlock::weight_norm), as in the paper, or a
    /// [layer norm](TemporalBlock::layer_norm) after them. A stack of n blocks with dilations 1, 2, 4, … reads
    /// `2 (K - 1) (2^n - 1)` steps back, and a gradient passes 2 n products on the way, not one for each step. Over these products
    /// it vanishes or explodes as it does over the steps of a recurrent net; the skip connections let it pass, as they do in any
    /// deep net.
    ///
    /// Parameters are named `conv1.weight_v`, `conv1.bias`, `conv1.weight_g`, …, `shortcut.weight`, `shortcut.bias`. Because of
    /// dropout, a pass must have a mode, such as [training](crate::Sequence::train).
    ///
    /// ```
    /// use gradflow::{
    ///     Layer, Sequence, compose::{Stacked, TemporalBlock}, layers::Linear, ndarray::Array3,
    ///     rand::{SeedableRng, rngs::StdRng},
    /// };
    ///
    /// // Kernels of 3 taps and dilations 1, 1, 2, 4, 8: each output reads 64 steps back.
    /// let rng = &mut StdRng::seed_from_u64(0);
    /// let blocks = Stacked::build(4, |k| TemporalBlock::weight_norm(16, 16, 3, 1 << k, 0.1, rng));
    /// let net = (TemporalBlock::layer_norm(2, 16, 3, 1, 0.1, rng), blocks, Linear::<f32>::new(16, 1, rng));
    /// let x = Array3::ones((100, 4, 2));
    /// let y = net.forward(Sequence::from(&x).eval(), &mut net.zero_state(4), &mut net.cache()).to_owned();
    /// assert_eq!(y.dim(), (100, 4, 1));
    /// ```
    #[derive(Clone, Debug, PartialEq)]
    pub struct TemporalBlock<C: Layer>: Layer<C::Elem> {
        /// `shortcut(x) + branch(x)`
        pub residual as "": Residual<TemporalBranch<C>>,
        /// The relu of the sum.
        pub relu: Activation<C::Elem>,
    }
}

impl<C: Layer> TemporalBlock<C> {
    #[track_caller]
    fn around(
        [conv1, conv2]: [C; 2],
        shortcut: Option<Linear<C::Elem>>,
        p: f64,
        rng: &mut (impl Rng + ?Sized),
    ) -> Self {
        let (relu1, relu2) = (Activation::relu(), Activation::relu());
        let (dropout1, dropout2) = (Dropout::new(p, rng), Dropout::new(p, rng));
        let branch = TemporalBranch { conv1, relu1, dropout1, conv2, relu2, dropout2 };
        TemporalBlock { residual: Residual { shortcut, ..Residual::new(branch) }, relu: Activation::relu() }
    }
}

/// Two convolutions, and the map on the skip connection if the sizes differ.
#[track_caller]
fn parts<F: Float, R: Rng + ?Sized>(
    [input, output, kernel, dilation]: [usize; 4],
    rng: &mut R,
) -> ([CausalConv1d<F>; 2], Option<Linear<F>>) {
    let builders = (CausalConv1d::builder(input, output, kernel), CausalConv1d::builder(output, output, kernel));
    let builders = (builders.0.dilation(dilation), builders.1.dilation(dilation));
    let convolutions = [builders.0.build(rng), builders.1.build(rng)];
    let shortcut = (input != output).then(|| Linear::new(input, output, rng));
    (convolutions, shortcut)
}

impl<F: Float> TemporalBlock<WeightNorm<CausalConv1d<F>>> {
    /// A block with weight norm, from `input` to `output` features, with kernels of `kernel` taps that are `dilation` steps apart
    /// and dropout with probability `p`. Weights are initialized as by [`CausalConv1d::new`].
    ///
    /// # Panics
    /// Panics if a size is 0, or `p` is not in `0..1`.
    #[track_caller]
    pub fn weight_norm(
        input: usize,
        output: usize,
        kernel: usize,
        dilation: usize,
        p: f64,
        rng: &mut (impl Rng + ?Sized),
    ) -> Self {
        let (convolutions, shortcut) = parts([input, output, kernel, dilation], rng);
        Self::around(convolutions.map(WeightNorm::new), shortcut, p, rng)
    }
}

impl<F: Float> TemporalBlock<NormedConv1d<F>> {
    /// A block with a layer norm after each convolution; sizes are as in [`weight_norm`](TemporalBlock::weight_norm).
    ///
    /// # Panics
    /// Panics if a size is 0, or `p` is not in `0..1`.
    #[track_caller]
    pub fn layer_norm(
        input: usize,
        output: usize,
        kernel: usize,
        dilation: usize,
        p: f64,
        rng: &mut (impl Rng + ?Sized),
    ) -> Self {
        let (convolutions, shortcut) = parts([input, output, kernel, dilation], rng);
        let normed = convolutions.map(|conv| NormedConv1d { conv, norm: LayerNorm::new(output) });
        Self::around(normed, shortcut, p, rng)
    }
}
