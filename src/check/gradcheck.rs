//! Finite-difference checks of hand-written gradients.

use std::fmt;

use ndarray::{Array3, ArrayView3};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::base::tensors::{join, shown};
use crate::base::{Expect, Size, Tensors, TensorsExt, ZerosLike, check_number, check_shape};
use crate::kernels::Float;
use crate::layer::{Layer, Sequence};

const NAME: &str = "GradCheck";

/// Checks a layer's backward pass against central differences.
///
/// The loss is `L = Σ r ∘ y + Σ q ∘ final state` with random r and q. Its gradient with respect to the input, every parameter and
/// the initial state is compared with `(L(v + step) - L(v - step)) / (2 step)`:
///
/// - [`full`](GradCheck::full), the default: element by element;
/// - [`fast`](GradCheck::fast): along a few random directions per tensor, for layers that are too large for the former.
///
/// A tensor's error is relative to its largest gradient, or to `floor` if that is larger: relative to single elements, the
/// rounding of a gradient that happens to be near zero would count as a mistake. `backward` adds into a gradient that is not
/// zero, so a forgotten `+=` is found too.
///
/// In `f32` the differences themselves have only two or three correct digits. Step and tolerance follow from the element type;
/// prefer a check in `f64`.
///
/// ```
/// use gradflow::{
///     Layer, Sequence, check::GradCheck, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell,
/// };
///
/// let cell = LstmCell::<f64>::new(3, 4, &mut StdRng::seed_from_u64(0));
/// let x = Array3::from_shape_fn((5, 2, 3), |(t, b, d)| ((t + 3 * b + 7 * d) as f64).sin());
/// let report = GradCheck::new().check(&cell, (&x).into(), &cell.zero_state(2));
/// assert!(report.passed(), "{report}");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct GradCheck {
    directions: Option<usize>,
    tolerance: Option<f64>,
    step: Option<f64>,
    floor: f64,
    seed: u64,
}

/// [`GradCheck`] with its defaults: every element of the input's, the parameters' and the initial state's gradient.
///
/// ```
/// use gradflow::{Layer, check::gradcheck, ndarray::Array3, rand::{SeedableRng, rngs::StdRng}, recurrent::GruCell};
///
/// let cell = GruCell::<f64>::new(2, 3, &mut StdRng::seed_from_u64(0));
/// let report = gradcheck(&cell, (&Array3::ones((4, 1, 2))).into(), &cell.zero_state(1));
/// assert!(report.passed(), "{report}");
/// ```
///
/// # Panics
/// Panics if `x` or `state` does not fit the layer.
#[track_caller]
pub fn gradcheck<L: Layer>(layer: &L, x: Sequence<'_, L::Elem>, state: &L::State) -> GradReport {
    GradCheck::new().check(layer, x, state)
}

impl Default for GradCheck {
    fn default() -> Self {
        GradCheck::new()
    }
}

impl GradCheck {
    /// Every element, with the default tolerance and step.
    pub fn new() -> Self {
        GradCheck { directions: None, tolerance: None, step: None, floor: 1e-3, seed: 0 }
    }
}

/// The result for one tensor.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TensorCheck {
    /// `x`, a parameter's name, or `state.` and a state tensor's name.
    pub tensor: String,
    /// The number of elements, or directions, that were tried.
    pub tried: usize,
    /// The largest error, relative to the tensor's largest gradient.
    pub error: f64,
    /// The index of the worst element, row-major, or of the worst direction.
    pub worst: usize,
    /// The gradient from `backward` there.
    pub analytic: f64,
    /// The gradient from the differences there.
    pub numeric: f64,
}

/// The result of a [`GradCheck`]; prints as a table with a line per tensor.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[must_use = "a check has failed unless `passed` says otherwise"]
pub struct GradReport {
    /// One entry per tensor: `x` if it has a gradient, the parameters, the state.
    pub tensors: Vec<TensorCheck>,
    /// The largest error that passes.
    pub tolerance: f64,
}

impl GradReport {
    /// Whether every tensor's error is at most the tolerance. NaN does not pass.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The tensors that did not pass.
    pub fn failures(&self) -> impl Iterator<Item = &TensorCheck> {
        self.tensors.iter().filter(|check| !within(check.error, self.tolerance))
    }

    /// The largest error of all tensors; NaN if one is NaN.
    #[must_use]
    pub fn worst_error(&self) -> f64 {
        self.tensors
            .iter()
            .map(|check| check.error)
            .fold(0.0, |worst, error| if error <= worst || worst.is_nan() { worst } else { error })
    }
}

/// `error <= tolerance`, which NaN is not.
fn within(error: f64, tolerance: f64) -> bool {
    error <= tolerance
}

impl fmt::Display for GradReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24} {:>6} {:>9}  {:>6} {:>14} {:>14}",
            "tensor", "tried", "error", "worst", "analytic", "numeric"
        )?;
        for check in &self.tensors {
            let TensorCheck { tensor, tried, error, worst, analytic, numeric } = check;
            let mark = if within(*error, self.tolerance) { "" } else { "  FAIL" };
            writeln!(f, "{tensor:<24} {tried:>6} {error:>9.1e}  {worst:>6} {analytic:>14.6e} {numeric:>14.6e}{mark}")?;
        }
        Ok(())
    }
}

impl GradCheck {
    /// Checks every element.
    pub fn full(self) -> Self {
        GradCheck { directions: None, ..self }
    }

    /// Checks `directions` random directions per tensor instead of every element.
    ///
    /// # Panics
    /// Panics if `directions` is 0.
    #[track_caller]
    pub fn fast(self, directions: usize) -> Self {
        assert!(directions > 0, "GradCheck: directions: expected at least 1, got 0");
        GradCheck { directions: Some(directions), ..self }
    }

    /// The largest error that passes. The default is 1e-6 in `f64` and 1e-2 in `f32`.
    ///
    /// # Panics
    /// Panics if it is negative or not finite.
    #[track_caller]
    pub fn tolerance(self, tolerance: f64) -> Self {
        check_number::<f64>(NAME, "tolerance", Expect::AtLeast0, tolerance);
        GradCheck { tolerance: Some(tolerance), ..self }
    }

    /// The step of the differences. The default is the cube root of the element type's epsilon, which balances rounding
    /// against curvature: 6e-6 in `f64`, 5e-3 in `f32`.
    ///
    /// # Panics
    /// Panics if it is not above 0 or not finite; [`check`](GradCheck::check) panics if that is so in the layer's element type.
    #[track_caller]
    pub fn step(self, step: f64) -> Self {
        check_number::<f64>(NAME, "step", Expect::Above0, step);
        GradCheck { step: Some(step), ..self }
    }

    /// If a tensor's largest gradient is below `floor`, errors are measured relative to `floor`. The default is 1e-3.
    ///
    /// # Panics
    /// Panics if it is not above 0 or not finite.
    #[track_caller]
    pub fn floor(self, floor: f64) -> Self {
        check_number::<f64>(NAME, "floor", Expect::Above0, floor);
        GradCheck { floor, ..self }
    }

    /// Sets the seed from which the loss and the directions are drawn.
    pub fn seed(self, seed: u64) -> Self {
        GradCheck { seed, ..self }
    }

    /// Checks `layer` at the input `x` from the initial state `state`.
    ///
    /// # Panics
    /// Panics if `x` or `state` does not fit the layer.
    #[track_caller]
    pub fn check<L: Layer>(&self, layer: &L, x: Sequence<'_, L::Elem>, state: &L::State) -> GradReport {
        let epsilon = <L::Elem as num_traits::Float>::epsilon().widen();
        let single = epsilon > 1e-10;
        let tolerance = self.tolerance.unwrap_or(if single { 1e-2 } else { 1e-6 });
        let step = check_number::<L::Elem>(NAME, "step", Expect::Above0, self.step.unwrap_or(epsilon.cbrt()));
        let differences = Differences { step, floor: self.floor, directions: self.directions };
        let rng = &mut StdRng::seed_from_u64(self.seed);

        let (mut dstate, mut cache) = (state.clone(), layer.cache());
        let y = layer.forward(x, &mut dstate, &mut cache);
        let loss = RandomLoss::draw(y.dim(), state, rng);
        let dy = loss.output_weights::<L::Elem>();
        loss.set_state_weights(&mut dstate);
        let mut grad = layer.zeros_like();
        let before = NonZero::fill(&mut grad, rng);
        let dx = layer.backward(x, &dy, Some(&mut dstate), &mut cache, &mut grad).to_owned();
        if x.wants_gradient() {
            check_shape("GradCheck", "dL/dx", x.features("GradCheck", None).shape(), dx.shape());
        }

        let mut tensors = Vec::new();
        if let (true, Size::Features(_)) = (x.wants_gradient(), x.size()) {
            let features = x.features("GradCheck", None).to_owned();
            let analytic: Vec<f64> = dx.iter().map(|value| value.widen()).collect();
            // Padding may hold anything, NaN included, and is not varied.
            let valid = features.indexed_iter().map(|((t, b, _), _)| x.valid(t, b)).collect::<Vec<_>>();
            let mut varied = features.as_standard_layout().into_owned();
            let mut numeric = |change: &mut Change<'_, L::Elem>| {
                let original = varied.clone();
                change(varied.as_slice_mut().expect("standard layout"));
                let value = loss.of(layer, x.with(varied.view()), state);
                varied = original;
                value
            };
            tensors.push(differences.compare("x".into(), &analytic, Some(&valid), rng, &mut numeric));
        }
        for i in 0..layer.count() {
            let analytic = before.added(&grad, i);
            let mut varied = layer.clone();
            let mut numeric = |change: &mut Change<'_, L::Elem>| {
                change(varied.tensor_mut(i));
                let value = loss.of(&varied, x, state);
                varied.tensor_mut(i).copy_from_slice(layer.values(i));
                value
            };
            tensors.push(differences.compare(shown(&layer.name(i)).to_owned(), &analytic, None, rng, &mut numeric));
        }
        for i in 0..state.count() {
            let analytic: Vec<f64> = dstate.values(i).iter().map(|value| value.widen()).collect();
            let mut varied = state.clone();
            let mut numeric = |change: &mut Change<'_, L::Elem>| {
                change(varied.tensor_mut(i));
                let value = loss.of(layer, x, &varied);
                varied.tensor_mut(i).copy_from_slice(state.values(i));
                value
            };
            let name = join("state", state.name(i));
            tensors.push(differences.compare(name, &analytic, None, rng, &mut numeric));
        }
        GradReport { tensors, tolerance }
    }
}

// The code below does not depend on the layer's type, so that it is compiled once and not for each layer.

/// `L = Σ r ∘ y + Σ q ∘ final state`.
struct RandomLoss {
    r: Array3<f64>,
    q: Vec<Vec<f64>>,
}

impl RandomLoss {
    fn draw<F: Float>(shape: (usize, usize, usize), state: &dyn Tensors<F>, rng: &mut StdRng) -> Self {
        let mut draw = || rng.random_range(-1.0..1.0);
        let r = Array3::from_shape_simple_fn(shape, &mut draw);
        let q = (0..state.count()).map(|i| state.values(i).iter().map(|_| draw()).collect()).collect();
        RandomLoss { r, q }
    }

    fn of<L: Layer>(&self, layer: &L, x: Sequence<'_, L::Elem>, state: &L::State) -> f64 {
        let (mut state, mut cache) = (state.clone(), layer.cache());
        let y = layer.forward(x, &mut state, &mut cache);
        self.of_outcome(y, &state)
    }

    fn of_outcome<F: Float>(&self, y: ArrayView3<'_, F>, state: &dyn Tensors<F>) -> f64 {
        let dot = |weights: &[f64], values: &[F]| -> f64 {
            weights.iter().zip(values).map(|(weight, value)| weight * value.widen()).sum()
        };
        let from_state: f64 = self.q.iter().enumerate().map(|(i, q)| dot(q, state.values(i))).sum();
        let from_output: f64 = self.r.iter().zip(y).map(|(r, y)| r * y.widen()).sum();
        from_output + from_state
    }

    fn output_weights<F: Float>(&self) -> Array3<F> {
        self.r.mapv(F::of)
    }

    fn set_state_weights<F: Float>(&self, state: &mut dyn Tensors<F>) {
        for (i, q) in self.q.iter().enumerate() {
            state.tensor_mut(i).iter_mut().zip(q).for_each(|(value, &q)| *value = F::of(q));
        }
    }
}

/// The values of a gradient before `backward` added to it.
struct NonZero(Vec<Vec<f64>>);

impl NonZero {
    fn fill<F: Float>(grad: &mut dyn Tensors<F>, rng: &mut StdRng) -> Self {
        for i in 0..grad.count() {
            grad.tensor_mut(i).iter_mut().for_each(|value| *value = F::of(rng.random_range(-1.0..1.0)));
        }
        NonZero((0..grad.count()).map(|i| grad.values(i).iter().map(|value| value.widen()).collect()).collect())
    }

    fn added<F: Float>(&self, grad: &dyn Tensors<F>, i: usize) -> Vec<f64> {
        grad.values(i).iter().zip(&self.0[i]).map(|(after, before)| after.widen() - before).collect()
    }
}

/// Changes a tensor's values.
type Change<'a, F> = dyn FnMut(&mut [F]) + 'a;

struct Differences {
    step: f64,
    floor: f64,
    directions: Option<usize>,
}

impl Differences {
    /// Compares one tensor; `loss` is the loss after a change of the tensor's values.
    fn compare<F: Float>(
        &self,
        tensor: String,
        analytic: &[f64],
        varied: Option<&[bool]>,
        rng: &mut StdRng,
        loss: &mut dyn FnMut(&mut Change<'_, F>) -> f64,
    ) -> TensorCheck {
        let is_varied = |k: usize| varied.is_none_or(|varied| varied[k]);
        let mut check = TensorCheck { tensor, tried: 0, error: 0.0, worst: 0, analytic: 0.0, numeric: 0.0 };
        let mut compare = |at: usize, analytic: f64, numeric: f64, scale: f64| {
            check.tried += 1;
            let error = (analytic - numeric).abs() / scale;
            // NaN is the worst error: it replaces any number, and no number replaces it.
            if check.tried == 1 || (!within(error, check.error) && !check.error.is_nan()) {
                (check.error, check.worst, check.analytic, check.numeric) = (error, at, analytic, numeric);
            }
        };
        let norm = |p: i32| analytic.iter().map(|value| value.abs().powi(p)).sum::<f64>();
        if let Some(directions) = self.directions {
            // Along random signs a gradient has the variance Σ g².
            let scale = norm(2).sqrt().max(self.floor);
            for at in 0..directions {
                let signs: Vec<f64> = (0..analytic.len())
                    .map(|k| if is_varied(k) { [-1.0, 1.0][usize::from(rng.random::<bool>())] } else { 0.0 })
                    .collect();
                // Elements that are not varied must have no gradient.
                let stray = (0..analytic.len()).filter(|&k| !is_varied(k)).map(|k| analytic[k].abs()).sum::<f64>();
                let along: f64 = stray + analytic.iter().zip(&signs).map(|(value, sign)| value * sign).sum::<f64>();
                let mut side = |step: f64| {
                    loss(&mut |values| {
                        for (value, &sign) in values.iter_mut().zip(&signs) {
                            if sign != 0.0 {
                                *value += F::of(step * sign);
                            }
                        }
                    })
                };
                let numeric = (side(self.step) - side(-self.step)) / (2.0 * self.step);
                compare(at, along, numeric, scale);
            }
        } else {
            let largest = analytic.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
            let scale = largest.max(self.floor);
            for (at, &analytic) in analytic.iter().enumerate() {
                if !is_varied(at) {
                    compare(at, analytic, 0.0, scale);
                    continue;
                }
                // The step that was really made, including rounding to the element type.
                let mut sides = [0.0; 2];
                let mut moved = [0.0; 2];
                for (k, sign) in [1.0, -1.0].into_iter().enumerate() {
                    sides[k] = loss(&mut |values| {
                        let value = values[at];
                        values[at] = value + F::of(sign * self.step);
                        moved[k] = values[at].widen() - value.widen();
                    });
                }
                compare(at, analytic, (sides[0] - sides[1]) / (moved[0] - moved[1]), scale);
            }
        }
        check
    }
}
