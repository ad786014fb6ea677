//! The weights of cells: their shapes, their values, and biases.

use ndarray::{Array, Array1, Array2, ArrayView2, Axis, Dimension};

use super::heads::Heads;
use super::normal::GROUPS;
use crate::base::{Tensors, check_shape};
use crate::kernels::Float;
use crate::layer::affine::{add_rows, add_values};
use crate::layer::kit::reuse;

/// Weights of some gates, `[N, K]`, with the gain of their normalisation, if there is one.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, F> {
    pub weight: ArrayView2<'a, F>, // [N, K]
    pub gain: Option<&'a [F]>,     // [N], with layer normalisation
    pub eps: f64,
    pub groups: [usize; GROUPS], // the widths of the groups that are normalised separately, of sum N
}

impl<'a, F: Float> Weights<'a, F> {
    /// A whole parameter with its gain.
    pub fn whole(weight: &'a Array2<F>, gain: &'a Option<Array1<F>>, eps: f64, groups: [usize; GROUPS]) -> Self {
        Weights { weight: weight.view(), gain: values(gain), eps, groups }
    }

    /// The first `rows` of a parameter and the remaining ones: two products, each normalised separately.
    pub fn split(weight: &'a Array2<F>, gain: &'a Option<Array1<F>>, eps: f64, rows: usize) -> [Self; 2] {
        let (first, others) = weight.view().split_at(Axis(0), rows);
        let (gain_first, gain_others) = values(gain).map(|gain| gain.split_at(rows)).unzip();
        let of = |weight: ArrayView2<'a, F>, gain| Weights { weight, gain, eps, groups: [weight.nrows(), 0] };
        [of(first, gain_first), of(others, gain_others)]
    }
}

/// `(I, H)` of a cell of `gates` gates and `heads` heads whose h has `output` features (H if `None`); panics if its parameters do
/// not fit each other. `per_gate` are the biases and the gains of the normalisation.
#[track_caller]
pub(super) fn cell_sizes<F: Float>(
    cell: &str,
    gates: usize,
    heads: usize,
    output: Option<usize>,
    [weight_ih, weight_hh]: [&Array2<F>; 2],
    per_gate: [&Option<Array1<F>>; 4],
) -> (usize, usize) {
    let (input, hidden) = (weight_ih.ncols(), weight_hh.nrows() / gates);
    Heads::new(cell, heads, hidden);
    check_shape(cell, "weight_hh", &[gates * hidden, output.unwrap_or(hidden) / heads], weight_hh.shape());
    check_shape(cell, "weight_ih", &[gates * hidden, input], weight_ih.shape());
    for (name, values) in ["bias_ih", "bias_hh", "norm_ih", "norm_hh"].into_iter().zip(per_gate) {
        if let Some(values) = values {
            check_shape(cell, name, &[gates * hidden], values.shape());
        }
    }
    (input, hidden)
}

/// `(I, H)` of a cell whose gates depend on x alone; panics if its parameters do not fit each other.
#[track_caller]
pub(super) fn input_sizes<F: Float>(
    cell: &str,
    gates: usize,
    weight_ih: &Array2<F>,
    bias_ih: &Option<Array1<F>>,
    norm_ih: &Option<Array1<F>>,
) -> (usize, usize) {
    let (input, hidden) = (weight_ih.ncols(), weight_ih.nrows() / gates);
    check_shape(cell, "weight_ih", &[gates * hidden, input], weight_ih.shape());
    for (name, values) in [("bias_ih", bias_ih), ("norm_ih", norm_ih)] {
        if let Some(values) = values {
            check_shape(cell, name, &[gates * hidden], values.shape());
        }
    }
    (input, hidden)
}

/// The bias of a unit, 0 without biases.
pub(super) fn bias_of<F: Float>(bias: &Option<Array1<F>>, row: usize) -> F {
    bias.as_ref().map_or(F::zero(), |bias| bias[row])
}

/// The values of a parameter, if there is one.
pub(super) fn values<F: Float, D: Dimension>(tensor: &Option<Array<F, D>>) -> Option<&[F]> {
    tensor.as_ref().map(|tensor| tensor.tensor(0).1)
}

/// The values of a parameter, if there is one.
pub(super) fn values_mut<F: Float, D: Dimension>(tensor: &mut Option<Array<F, D>>) -> Option<&mut [F]> {
    tensor.as_mut().map(|tensor| tensor.tensor_mut(0))
}

/// The sum of the two biases, if there are any: the initial value of all rows. Only the first `columns` of the second are added.
pub(super) fn add_biases<'a, F: Float>(
    [first, second]: [&'a Option<Array1<F>>; 2],
    columns: usize,
    sum: &'a mut Array1<F>,
) -> Option<&'a [F]> {
    let Some(second) = values(second) else { return values(first) };
    reuse(sum, second.len());
    let (both, rest) = sum.tensor_mut(0).split_at_mut(columns);
    match values(first) {
        Some(first) => {
            add_values(&first[..columns], &second[..columns], both);
            rest.copy_from_slice(&first[columns..]);
        }
        None => {
            both.copy_from_slice(&second[..columns]);
            rest.fill(F::zero());
        }
    }
    sum.as_slice()
}

/// `db += Σ da`, for each bias.
pub(super) fn add_bias_gradients<F: Float, const N: usize>(da: ArrayView2<'_, F>, biases: [&mut Option<Array1<F>>; N]) {
    for bias in biases.into_iter().flatten() {
        add_rows(da, bias.tensor_mut(0));
    }
}
