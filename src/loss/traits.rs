//! The trait of all losses.

use std::fmt;

use ndarray::{Array3, ArrayRef3};

use super::weights::Weights;
use crate::kernels::Float;
use crate::layer::Sequence;
use crate::layer::kit::reuse;

/// A number that training minimises, with its gradient with respect to the model's output.
///
/// ```text
/// L = loss(y, targets)        y [T, B, D]        dL/dy [T, B, D]
/// ```
///
/// Positions past a sequence's length do not count: they have no loss, and their gradient is zero. The output `y` is
/// anything that converts to a [`Sequence`]:
///
/// | `y` | lengths |
/// | --- | --- |
/// | `&pass`, a [`Pass`](crate::author::Pass) | those of its input |
/// | `x.with(output)`, with an input `x` and what `forward` returned | those of `x` |
/// | `&array` or a view, `[T, B, D]` | none: all positions count |
///
/// [`of`](Loss::of) evaluates loss and gradient, for training; [`value`](Loss::value) the loss alone, for validation.
/// [`of_weighted`](Loss::of_weighted) and [`value_weighted`](Loss::value_weighted) do the same with [`Weights`] for sequences,
/// steps or elements. The gradient's memory belongs to the loss and is reused: from the second step of a shape on, nothing is
/// allocated.
///
/// ```
/// use gradflow::ndarray::Array3;
/// use gradflow::rand::{SeedableRng, rngs::StdRng};
/// use gradflow::{Layer, Sequence, ZerosLike, layers::Linear, loss::{Loss, MeanSquaredError}, recurrent::GruCell};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let model = (GruCell::<f32>::new(3, 8, rng), Linear::new(8, 2, rng));
/// let (mut cache, mut grad) = (model.cache(), model.zeros_like());
/// let mut squared_error = MeanSquaredError::new();
/// let (x, targets) = (Array3::ones((5, 2, 3)), Array3::zeros((5, 2, 2)));
/// let x = Sequence::from(&x).with_lengths(&[5, 3])?;
///
/// let pass = model.pass(x, &mut model.zero_state(2), &mut cache);
/// let loss = squared_error.of(&pass, &targets);
/// let training = loss.value();
/// pass.backward_into(loss.gradient(), &mut grad);
///
/// let y = model.forward(x.infer(), &mut model.zero_state(2), &mut cache);
/// assert_eq!(squared_error.value(x.with(y), &targets), training);
/// # Ok::<(), gradflow::author::LengthsError>(())
/// ```
///
/// # Implementing it
/// A loss needs [`evaluate`](Loss::evaluate) and an array for the gradient:
///
/// ```
/// use gradflow::ndarray::{Array3, ArrayRef3};
/// use gradflow::{Float, Sequence, loss::Loss};
///
/// /// `L = Σ |y - target|`, with a slope of 0 if both are equal.
/// struct AbsoluteError<F>(Array3<F>);
///
/// impl<F: Float> Loss<F> for AbsoluteError<F> {
///     type Targets = ArrayRef3<F>;
///
///     fn evaluate(&self, y: Sequence<'_, F>, targets: &ArrayRef3<F>, mut dy: Option<&mut ArrayRef3<F>>) -> f64 {
///         let mut sum = 0.0;
///         for ((t, b, k), &value) in y.features("AbsoluteError", None).indexed_iter() {
///             let error = if y.valid(t, b) { value - targets[[t, b, k]] } else { F::zero() };
///             sum += error.abs().widen();
///             if let Some(dy) = &mut dy {
///                 dy[[t, b, k]] = if error == F::zero() { error } else { error.signum() };
///             }
///         }
///         sum
///     }
///
///     fn memory(&mut self) -> &mut Array3<F> {
///         &mut self.0
///     }
/// }
///
/// let (y, targets) = (Array3::ones((1, 1, 2)), Array3::from_elem((1, 1, 2), 3.0));
/// let mut absolute_error = AbsoluteError(Array3::default((0, 0, 0)));
/// let loss = absolute_error.of(&y, &targets);
/// assert_eq!(loss.value(), 4.0);
/// assert_eq!(loss.gradient(), &Array3::from_elem((1, 1, 2), -1.0));
/// ```
pub trait Loss<F: Float> {
    /// The targets for the output: class ids `[T, B]`, or values `[T, B, D]`.
    type Targets: ?Sized;

    /// The loss of the output `y`; if there is a `dy`, the gradient is written to all its elements.
    ///
    /// `dy` has the shape of `y`, is in standard layout and holds arbitrary values; the elements of positions that do
    /// not count become zero. The value must not depend on whether there is a `dy`.
    ///
    /// Implement this to write a loss; to use one, call [`of`](Loss::of) or [`value`](Loss::value).
    ///
    /// # Panics
    /// Panics if `y` and `targets` do not have the same shape, or the batch is empty.
    #[track_caller]
    fn evaluate(&self, y: Sequence<'_, F>, targets: &Self::Targets, dy: Option<&mut ArrayRef3<F>>) -> f64;

    /// The weight of this batch's value in the mean over several batches: the number of positions, or elements, or the sum of
    /// class weights, that the value is the mean of. A loss that is a sum has weight 1.
    ///
    /// By default, the number of positions within their sequence's length.
    ///
    /// ```
    /// use gradflow::{loss::{Loss, SoftmaxCrossEntropy}, ndarray::{Array3, arr2}};
    ///
    /// let cross_entropy = SoftmaxCrossEntropy::new().ignore(9);
    /// assert_eq!(cross_entropy.weight((&Array3::<f32>::zeros((3, 1, 4))).into(), &arr2(&[[3], [9], [0]])), 2.0);
    /// ```
    fn weight(&self, y: Sequence<'_, F>, targets: &Self::Targets) -> f64 {
        let _ = targets;
        y.valid_count() as f64
    }

    /// As [`evaluate`](Loss::evaluate), with [`Weights`], whose documentation says what can be weighted and how. Parts of weight
    /// 0 do not count, like padding.
    ///
    /// Implement this too to write a loss that takes weights; to use one, call [`of_weighted`](Loss::of_weighted) or
    /// [`value_weighted`](Loss::value_weighted).
    ///
    /// # Panics
    /// Panics as [`evaluate`](Loss::evaluate) does, and if the weights have another shape or the weight of a part that counts is
    /// negative or not finite. The default implementation always panics: the loss takes no weights.
    #[track_caller]
    fn evaluate_weighted(
        &self,
        y: Sequence<'_, F>,
        targets: &Self::Targets,
        weights: Weights<'_, F>,
        dy: Option<&mut ArrayRef3<F>>,
    ) -> f64 {
        let _ = (y, targets, weights, dy);
        panic!("{}: weights: this loss takes none", std::any::type_name::<Self>())
    }

    /// As [`weight`](Loss::weight), with [`Weights`]: the sum of the weights of the parts that the value is the mean of. A loss
    /// that is a sum has weight 1.
    ///
    /// By default, [`Weights::total`].
    ///
    /// # Panics
    /// Panics if the weights have another shape.
    #[track_caller]
    fn total_weight(&self, y: Sequence<'_, F>, targets: &Self::Targets, weights: Weights<'_, F>) -> f64 {
        let _ = targets;
        weights.total(y)
    }

    /// The array that holds the gradient, for [`of`](Loss::of) to reuse. It starts empty.
    fn memory(&mut self) -> &mut Array3<F>;

    /// The loss of the output `y` and its gradient, for [`Pass::backward_into`](crate::author::Pass::backward_into).
    ///
    /// # Panics
    /// Panics if `y` and `targets` do not have the same shape, or the batch is empty.
    #[track_caller]
    fn of<'y>(&mut self, y: impl Into<Sequence<'y, F>>, targets: &Self::Targets) -> Evaluated<'_, F>
    where
        Self: Sized,
    {
        let y = y.into();
        let mut gradient = memory_for(self, y);
        let value = self.evaluate(y, targets, Some(&mut gradient));
        keep(self, value, gradient)
    }

    /// As [`of`](Loss::of), with a weight for each sequence, step or element.
    ///
    /// # Panics
    /// Panics as [`of`](Loss::of) does, and if the weights have another shape, the weight of a part that counts is negative or
    /// not finite, or the loss takes no weights.
    #[track_caller]
    fn of_weighted<'y, 'w>(
        &mut self,
        y: impl Into<Sequence<'y, F>>,
        targets: &Self::Targets,
        weights: impl Into<Weights<'w, F>>,
    ) -> Evaluated<'_, F>
    where
        Self: Sized,
        F: 'w,
    {
        let y = y.into();
        let mut gradient = memory_for(self, y);
        let value = self.evaluate_weighted(y, targets, weights.into(), Some(&mut gradient));
        keep(self, value, gradient)
    }

    /// The loss of the output `y`, without its gradient.
    ///
    /// # Panics
    /// Panics if `y` and `targets` do not have the same shape, or the batch is empty.
    #[must_use]
    #[track_caller]
    fn value<'y>(&self, y: impl Into<Sequence<'y, F>>, targets: &Self::Targets) -> f64
    where
        Self: Sized,
    {
        self.evaluate(y.into(), targets, None)
    }

    /// As [`value`](Loss::value), with a weight for each sequence, step or element.
    ///
    /// # Panics
    /// Panics as [`of_weighted`](Loss::of_weighted) does.
    #[must_use]
    #[track_caller]
    fn value_weighted<'y, 'w>(
        &self,
        y: impl Into<Sequence<'y, F>>,
        targets: &Self::Targets,
        weights: impl Into<Weights<'w, F>>,
    ) -> f64
    where
        Self: Sized,
        F: 'w,
    {
        self.evaluate_weighted(y.into(), targets, weights.into(), None)
    }
}

/// Takes the memory out of a loss, with the shape of `y`.
#[track_caller]
fn memory_for<F: Float>(loss: &mut impl Loss<F>, y: Sequence<'_, F>) -> Array3<F> {
    let mut gradient = std::mem::take(loss.memory());
    let (steps, batch) = y.dims();
    let features = match y.size().features("Loss") {
        Ok(features) => features,
        Err(error) => panic!("{error}"),
    };
    reuse(&mut gradient, (steps, batch, features));
    gradient
}

/// Puts the memory back into the loss.
fn keep<F: Float>(loss: &mut impl Loss<F>, value: f64, gradient: Array3<F>) -> Evaluated<'_, F> {
    let memory = loss.memory();
    *memory = gradient;
    Evaluated { value, gradient: memory }
}

impl<F: Float, L: Loss<F> + ?Sized> Loss<F> for Box<L> {
    type Targets = L::Targets;

    fn evaluate(&self, y: Sequence<'_, F>, targets: &Self::Targets, dy: Option<&mut ArrayRef3<F>>) -> f64 {
        (**self).evaluate(y, targets, dy)
    }

    fn weight(&self, y: Sequence<'_, F>, targets: &Self::Targets) -> f64 {
        (**self).weight(y, targets)
    }

    fn evaluate_weighted(
        &self,
        y: Sequence<'_, F>,
        targets: &Self::Targets,
        weights: Weights<'_, F>,
        dy: Option<&mut ArrayRef3<F>>,
    ) -> f64 {
        (**self).evaluate_weighted(y, targets, weights, dy)
    }

    fn total_weight(&self, y: Sequence<'_, F>, targets: &Self::Targets, weights: Weights<'_, F>) -> f64 {
        (**self).total_weight(y, targets, weights)
    }

    fn memory(&mut self) -> &mut Array3<F> {
        (**self).memory()
    }
}

/// The result of [`Loss::of`]: a loss and its gradient, held in the loss's memory until the next evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "the gradient is for the backward pass; `Loss::value` evaluates the loss alone"]
pub struct Evaluated<'a, F> {
    value: f64,
    gradient: &'a ArrayRef3<F>,
}

impl<'a, F> Evaluated<'a, F> {
    /// The loss.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// Its gradient with respect to the output, `dL/dy`, `[T, B, D]`.
    #[must_use]
    pub fn gradient(&self) -> &'a ArrayRef3<F> {
        self.gradient
    }
}

/// The memory of a loss's gradient. It is not part of the loss's value: a clone starts with empty memory, and comparisons ignore
/// it.
pub(super) struct Memory<F>(pub Array3<F>);

impl<F> Default for Memory<F> {
    fn default() -> Self {
        Memory(Array3::from_shape_vec((0, 0, 0), Vec::new()).expect("no elements"))
    }
}

impl<F> Clone for Memory<F> {
    fn clone(&self) -> Self {
        Memory::default()
    }
}

impl<F> PartialEq for Memory<F> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<F> fmt::Debug for Memory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.shape())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, s};

    use super::*;
    use crate::layer::Layer;
    use crate::layers::Linear;
    use crate::loss::{BinaryCrossEntropy, Huber, MeanSquaredError, SoftmaxCrossEntropy};

    const LENGTHS: [usize; 3] = [4, 1, 2];

    fn grid<F: Float>(f: impl Fn(f64) -> f64) -> Array3<F> {
        Array3::from_shape_fn((4, 3, 5), |(t, b, k)| F::of(f((15 * t + 5 * b + k) as f64)))
    }

    fn ids() -> Array2<usize> {
        Array2::from_shape_fn((4, 3), |(t, b)| (3 * t + 2 * b) % 5)
    }

    /// Loss and gradient depend neither on the memory's content nor on the layout of `y`; the value alone is the same.
    fn check<F: Float, L: Loss<F>>(mut loss: L, y: &Array3<F>, targets: &L::Targets) {
        let turned = y.view().permuted_axes([2, 0, 1]).as_standard_layout().into_owned();
        let turned = turned.view().permuted_axes([1, 2, 0]);
        for lengths in [None, Some(&LENGTHS[..])] {
            let with_lengths = |y: Sequence<'_, F>| match lengths {
                Some(lengths) => loss.value(y.with_lengths(lengths).unwrap(), targets),
                None => loss.value(y, targets),
            };
            let value = with_lengths(y.into());
            assert_eq!(with_lengths((&turned).into()).to_bits(), value.to_bits());
            assert!(value > 0.0);
            let mut gradients = Vec::new();
            for layout in [y.view(), turned] {
                loss.memory().fill(F::of(f64::NAN));
                let sequence = Sequence::from(&layout);
                let sequence = lengths.map_or(sequence, |lengths| sequence.with_lengths(lengths).unwrap());
                let evaluated = loss.of(sequence, targets);
                assert_eq!(evaluated.value().to_bits(), value.to_bits());
                gradients.push(evaluated.gradient().to_owned());
            }
            assert_eq!(gradients[0], gradients[1]);
            for ((t, b, _), &slope) in gradients[0].indexed_iter() {
                let counts = lengths.is_none_or(|lengths| t < lengths[b]);
                assert_eq!(slope != F::zero(), counts, "step {t} of sequence {b}");
            }
        }
    }

    fn check_all<F: Float>() {
        let (y, targets) = (grid::<F>(|i| 3.0 * i.sin()), grid::<F>(|i| (0.7 * i).cos().abs()));
        check(MeanSquaredError::new(), &y, &targets);
        check(MeanSquaredError::new().sum().ignore(0.3), &y, &targets);
        check(Huber::new(0.5), &y, &targets);
        check(BinaryCrossEntropy::new().pos_weight(&[1.0, 2.0, 0.5, 1.0, 3.0]), &y, &targets);
        check(SoftmaxCrossEntropy::new(), &y, &ids());
        check(SoftmaxCrossEntropy::new().label_smoothing(0.1).class_weights(&[1.0, 2.0, 0.5, 1.0, 3.0]), &y, &ids());
        let boxed: Box<dyn Loss<F, Targets = ArrayRef3<F>>> = Box::new(Huber::new(1.0));
        check(boxed, &y, &targets);
    }

    #[test]
    fn the_value_alone_is_that_of_the_gradient_in_any_layout_and_with_lengths() {
        check_all::<f32>();
        check_all::<f64>();
    }

    #[test]
    fn a_pass_brings_the_lengths_of_its_input() {
        let layer = Linear::<f64>::zeros(5, 5);
        let (x, targets) = (grid(f64::sin), grid(f64::cos));
        let x = Sequence::from(&x).with_lengths(&LENGTHS).unwrap();
        let (mut cache, mut loss) = (layer.cache(), MeanSquaredError::new().sum());
        let y = layer.forward(x, &mut (), &mut cache).to_owned();
        let want = loss.value(x.with(y.view()), &targets);
        assert!(want < loss.value(&y, &targets), "padding counts without lengths");
        let pass = layer.pass(x, &mut (), &mut cache);
        assert_eq!((loss.of(&pass, &targets).value(), loss.value(&pass, &targets)), (want, want));
        assert_eq!(pass.input().length(1), 1);

        // Chunks have the lengths that are left, 0 included.
        let mut sum = 0.0;
        for t in 0..4 {
            let (chunk, targets) = (x.steps(t..t + 1), targets.slice(s![t..t + 1, .., ..]));
            let pass = layer.pass(chunk, &mut (), &mut cache);
            sum += loss.of(&pass, &targets).value();
        }
        assert!((sum - want).abs() < 1e-12);
    }

    /// The mean of a batch is the weighted mean of its sequences' means.
    fn check_weight<L: Loss<f64>, O: std::ops::Deref<Target = L::Targets>>(
        loss: L,
        y: &Array3<f64>,
        targets: &L::Targets,
        sequence: impl Fn(usize) -> O,
    ) {
        for lengths in [[4, 3, 4], LENGTHS] {
            let y = Sequence::from(y).with_lengths(&lengths).unwrap();
            let (mut sum, mut total) = (0.0, 0.0);
            for b in 0..3 {
                let (y, targets) = (y.sequences(b..b + 1), sequence(b));
                let weight = loss.weight(y, &targets);
                sum += weight * loss.value(y, &targets);
                total += weight;
            }
            assert_eq!(total, loss.weight(y, targets));
            let whole = loss.value(y, targets);
            assert!((sum / total - whole).abs() < 1e-14 * whole, "{} for {whole}", sum / total);
        }
    }

    #[test]
    fn the_mean_over_batches_is_weighted_by_what_counts() {
        let (y, ids) = (grid::<f64>(|i| 3.0 * i.sin()), ids());
        let values = grid::<f64>(|i| (0.7 * i).cos().abs().round());
        let ids_of = |b: usize| ids.slice(s![.., b..b + 1]);
        let values_of = |b: usize| values.slice(s![.., b..b + 1, ..]);
        let cross_entropy = SoftmaxCrossEntropy::new;
        check_weight(cross_entropy(), &y, &ids, ids_of);
        check_weight(cross_entropy().ignore(3).class_weights(&[1.0, 2.0, 0.5, 1.0, 3.0]), &y, &ids, ids_of);
        check_weight(MeanSquaredError::new(), &y, &values, values_of);
        check_weight(MeanSquaredError::new().ignore(1.0), &y, &values, values_of);
        check_weight(Huber::new(0.5).ignore(0.0), &y, &values, values_of);
        check_weight(
            BinaryCrossEntropy::new().ignore(1.0).pos_weight(&[1.0, 2.0, 0.5, 1.0, 3.0]),
            &y,
            &values,
            values_of,
        );
        // Sums are added up.
        let sum = MeanSquaredError::new().sum();
        let parts: f64 = (0..3).map(|b| sum.value(Sequence::from(&y).sequences(b..b + 1), &values_of(b))).sum();
        assert!((parts - sum.value(&y, &values)).abs() < 1e-12);
        assert_eq!((sum.weight((&y).into(), &values), cross_entropy().sum().weight((&y).into(), &ids)), (1.0, 1.0));
    }

    #[test]
    fn memory_is_no_part_of_a_loss() {
        let (y, targets) = (grid::<f64>(f64::sin), grid(f64::cos));
        let mut loss = Huber::new(1.0);
        let fresh = loss.clone();
        let _ = loss.of(&y, &targets);
        assert_eq!(loss, fresh);
        assert_ne!(loss, Huber::new(2.0));
        assert!(loss.clone().memory().is_empty());
    }
}
