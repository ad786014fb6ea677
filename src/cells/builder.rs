//! How a cell's parameters start.

use std::marker::PhantomData;

use ndarray::{Array1, Array2, s};
use rand::Rng;

use crate::{Float, GruCell, Init, LstmCell, RnnCell};

mod sealed {
    /// The parameters that every cell has; gate by gate, `G` of them.
    pub struct Parameters<F> {
        /// `[G H, I]`
        pub weight_ih: ndarray::Array2<F>,
        /// `[G H, H]`, or `[G H, P]` with a projection.
        pub weight_hh: ndarray::Array2<F>,
        /// `[P, H]`, of an LSTM with a projection.
        pub weight_hr: Option<ndarray::Array2<F>>,
        /// `[G H]`
        pub bias_ih: Option<ndarray::Array1<F>>,
        /// `[G H]`
        pub bias_hh: Option<ndarray::Array1<F>>,
    }

    pub trait FromParameters<F>: Sized {
        const GATES: usize;
        fn from_parameters(parameters: Parameters<F>) -> Self;
    }
}
pub(super) use sealed::{FromParameters, Parameters};

/// A cell of this crate; sealed.
pub trait Gated: FromParameters<<Self as Gated>::Elem> {
    /// `f32` or `f64`.
    type Elem: Float;
}

impl<F: Float> Gated for RnnCell<F> {
    type Elem = F;
}

impl<F: Float> Gated for LstmCell<F> {
    type Elem = F;
}

impl<F: Float> Gated for GruCell<F> {
    type Elem = F;
}

/// The most gates that a cell has.
const MOST_GATES: usize = 4;

/// How each parameter of a cell starts: made by `RnnCell::builder`, `LstmCell::builder` and `GruCell::builder`.
///
/// Unless said otherwise, input weights are Xavier uniform, recurrent weights orthogonal (each gate on its own), biases
/// zero, and an LSTM's forget bias 1, so that its memory holds from the start (Jozefowicz et al. 2015).
///
/// ```
/// use gradflow::{Init, LstmCell, rand::{SeedableRng, rngs::StdRng}};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let cell: LstmCell<f32> = LstmCell::builder(3, 4)
///     .weight_hh(Init::Orthogonal { gain: 0.9 })
///     .forget_bias(3.0)
///     .output_bias(-1.0)
///     .build(rng);
/// assert_eq!(cell.bias_ih.unwrap().to_vec()[4..8], [3.0; 4]);
/// ```
#[derive(Clone, Debug)]
pub struct CellBuilder<C> {
    input: usize,
    hidden: usize,
    weight_ih: Init,
    weight_hh: Init,
    weight_hr: Init,
    projection: Option<usize>,
    bias: bool,
    bias_ih: [Init; MOST_GATES],
    bias_hh: [Init; MOST_GATES],
    /// A gate whose bias starts as the negative of another's: `(this, that)`.
    opposite: Option<(usize, usize)>,
    cell: PhantomData<fn() -> C>,
}

impl<C: Gated> CellBuilder<C> {
    pub(super) fn new(input: usize, hidden: usize) -> Self {
        assert!(input > 0 && hidden > 0, "cell: sizes must not be 0, got input {input}, hidden {hidden}");
        CellBuilder {
            input,
            hidden,
            weight_ih: Init::XavierUniform { gain: 1.0 },
            weight_hh: Init::Orthogonal { gain: 1.0 },
            weight_hr: Init::XavierUniform { gain: 1.0 },
            projection: None,
            bias: true,
            bias_ih: [Init::Constant(0.0); MOST_GATES],
            bias_hh: [Init::Constant(0.0); MOST_GATES],
            opposite: None,
            cell: PhantomData,
        }
    }

    /// How the input weights start.
    pub fn weight_ih(self, init: impl Into<Init>) -> Self {
        CellBuilder { weight_ih: init.into(), ..self }
    }

    /// How the recurrent weights start.
    pub fn weight_hh(self, init: impl Into<Init>) -> Self {
        CellBuilder { weight_hh: init.into(), ..self }
    }

    /// Whether there are biases.
    pub fn bias(self, bias: bool) -> Self {
        CellBuilder { bias, ..self }
    }

    /// Every parameter uniform in `±1/sqrt(H)`, as PyTorch starts them.
    pub fn pytorch(self) -> Self {
        let init = Init::Uniform { bound: 1.0 / (self.hidden as f64).sqrt() };
        CellBuilder {
            weight_ih: init,
            weight_hh: init,
            weight_hr: init,
            bias_ih: [init; MOST_GATES],
            bias_hh: [init; MOST_GATES],
            opposite: None,
            ..self
        }
    }

    /// The two biases of a gate add up: `bias_ih` takes the value, `bias_hh` is zero.
    pub(super) fn gate_bias(mut self, gate: usize, init: impl Into<Init>) -> Self {
        self.bias_ih[gate] = init.into();
        self.bias_hh[gate] = Init::Constant(0.0);
        self.opposite = self.opposite.filter(|&(this, that)| gate != this && gate != that);
        self
    }

    /// The bias of a gate on the input's side alone.
    pub(super) fn input_gate_bias(mut self, gate: usize, init: impl Into<Init>) -> Self {
        self.bias_ih[gate] = init.into();
        self
    }

    /// The bias of a gate on the hidden state's side alone.
    pub(super) fn hidden_gate_bias(mut self, gate: usize, init: impl Into<Init>) -> Self {
        self.bias_hh[gate] = init.into();
        self
    }

    /// With the hidden state projected to `size` features.
    pub(super) fn projected(self, size: usize) -> Self {
        assert!(size > 0, "cell: sizes must not be 0, got projection {size}");
        CellBuilder { projection: Some(size), ..self }
    }

    /// How the projection starts.
    pub(super) fn projection_weight(self, init: impl Into<Init>) -> Self {
        CellBuilder { weight_hr: init.into(), ..self }
    }

    /// The cell with all parameters zero, for weights that will be loaded.
    pub fn zeros(self) -> C {
        let (rows, h_size) = (C::GATES * self.hidden, self.projection.unwrap_or(self.hidden));
        let bias = self.bias.then(|| Array1::zeros(rows));
        C::from_parameters(Parameters {
            weight_ih: Array2::zeros((rows, self.input)),
            weight_hh: Array2::zeros((rows, h_size)),
            weight_hr: self.projection.map(|projection| Array2::zeros((projection, self.hidden))),
            bias_ih: bias.clone(),
            bias_hh: bias,
        })
    }

    /// The cell, drawn from `rng`: the same seed gives the same bits.
    ///
    /// # Panics
    /// Where a bias is said to start by [`Init::Chrono`] with a `t_max` below 2 or not finite.
    #[track_caller]
    pub fn build(self, rng: &mut (impl Rng + ?Sized)) -> C {
        let Self { input, hidden, projection, .. } = self;
        let mut weight = |columns: usize, init: Init| {
            let mut weight = Array2::zeros((C::GATES * hidden, columns));
            for gate in 0..C::GATES {
                init.fill(&mut weight.slice_mut(s![gate * hidden..(gate + 1) * hidden, ..]), rng);
            }
            weight
        };
        let (weight_ih, weight_hh) =
            (weight(input, self.weight_ih), weight(projection.unwrap_or(hidden), self.weight_hh));
        let weight_hr = projection.map(|projection| {
            let mut weight = Array2::zeros((projection, hidden));
            self.weight_hr.fill(&mut weight, rng);
            weight
        });
        let mut bias = |init: [Init; MOST_GATES]| {
            let mut bias: Array1<C::Elem> = Array1::zeros(C::GATES * hidden);
            for (mut gate, init) in bias.exact_chunks_mut(hidden).into_iter().zip(init) {
                init.fill(&mut gate.view_mut().insert_axis(ndarray::Axis(0)), rng);
            }
            bias
        };
        let mut biases = self.bias.then(|| [bias(self.bias_ih), bias(self.bias_hh)]);
        if let (Some([bias_ih, _]), Some((this, that))) = (&mut biases, self.opposite) {
            let negative = bias_ih.slice(s![that * hidden..(that + 1) * hidden]).mapv(|bias| -bias);
            bias_ih.slice_mut(s![this * hidden..(this + 1) * hidden]).assign(&negative);
        }
        let [bias_ih, bias_hh] = biases.map_or([None, None], |biases| biases.map(Some));
        C::from_parameters(Parameters { weight_ih, weight_hh, weight_hr, bias_ih, bias_hh })
    }
}

#[track_caller]
fn check_t_max(cell: &str, t_max: f64) -> Init {
    assert!(t_max > 2.0 && t_max.is_finite(), "{cell}: t_max: expected a finite number above 2, got {t_max}");
    Init::Chrono { t_max }
}

impl<F: Float> CellBuilder<LstmCell<F>> {
    /// Memories of one step to `t_max` steps from the start, `t_max` being the longest dependency expected (Tallec and
    /// Ollivier 2018): the forget bias is `log(u)`, u uniform in `[1, t_max - 1)`, and the input bias `-log(u)`, so
    /// that what is written and what is forgotten balance.
    ///
    /// ```
    /// use gradflow::{LstmCell, ndarray::s, rand::{SeedableRng, rngs::StdRng}};
    ///
    /// let cell: LstmCell<f32> = LstmCell::builder(3, 4).chrono(100.0).build(&mut StdRng::seed_from_u64(0));
    /// let bias = cell.bias_ih.unwrap();
    /// assert_eq!(bias.slice(s![..4]), -&bias.slice(s![4..8])); // input and forget gate
    /// ```
    ///
    /// # Panics
    /// Where `t_max` is not above 2 or not finite.
    #[track_caller]
    pub fn chrono(self, t_max: f64) -> Self {
        let (input, forget) = (0, 1);
        let builder = self.gate_bias(forget, check_t_max("LstmCell", t_max)).gate_bias(input, 0.0);
        CellBuilder { opposite: Some((input, forget)), ..builder }
    }
}

impl<F: Float> CellBuilder<GruCell<F>> {
    /// Memories of one step to `t_max` steps from the start, `t_max` being the longest dependency expected (Tallec and
    /// Ollivier 2018): the update gate's bias is `log(u)`, u uniform in `[1, t_max - 1)`. The paper's gate is the
    /// opposite of this one, which keeps; hence the other sign.
    ///
    /// # Panics
    /// Where `t_max` is not above 2 or not finite.
    #[track_caller]
    pub fn chrono(self, t_max: f64) -> Self {
        let update = 1;
        self.gate_bias(update, check_t_max("GruCell", t_max))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayView1;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::TensorsExt;

    const HIDDEN: usize = 400;

    fn gate(bias: &Option<Array1<f64>>, gate: usize) -> ArrayView1<'_, f64> {
        bias.as_ref().expect("a bias").slice(s![gate * HIDDEN..(gate + 1) * HIDDEN])
    }

    fn lstm(seed: u64, choose: impl Fn(CellBuilder<LstmCell<f64>>) -> CellBuilder<LstmCell<f64>>) -> LstmCell<f64> {
        choose(LstmCell::builder(1, HIDDEN)).build(&mut StdRng::seed_from_u64(seed))
    }

    fn assert_chrono(bias: ArrayView1<'_, f64>, t_max: f64) {
        let u = bias.exp();
        assert!(u.iter().all(|&u| u > 1.0 - 1e-12 && u < t_max - 1.0 + 1e-9));
        // Uniform in [1, t_max - 1]; 400 draws have a mean within a tenth.
        assert!((u.mean().expect("not empty") / (t_max / 2.0) - 1.0).abs() < 0.1, "{:?}", u.mean());
    }

    #[test]
    fn chrono_spreads_memories_over_the_steps() {
        let cell = lstm(1, |builder| builder.chrono(200.0));
        assert_chrono(gate(&cell.bias_ih, 1), 200.0);
        assert_eq!(gate(&cell.bias_ih, 0), -&gate(&cell.bias_ih, 1));
        assert!(gate(&cell.bias_ih, 2).iter().chain(gate(&cell.bias_ih, 3)).all(|&bias| bias == 0.0));
        assert!(cell.bias_hh.expect("a bias").iter().all(|&bias| bias == 0.0));

        let cell = GruCell::<f64>::builder(1, HIDDEN).chrono(200.0).build(&mut StdRng::seed_from_u64(1));
        assert_chrono(gate(&cell.bias_ih, 1), 200.0);
        assert!(gate(&cell.bias_ih, 0).iter().chain(gate(&cell.bias_ih, 2)).all(|&bias| bias == 0.0));
    }

    #[test]
    fn chrono_is_drawn_from_the_seed() {
        let (a, b) = (lstm(1, |builder| builder.chrono(50.0)), lstm(1, |builder| builder.chrono(50.0)));
        assert!((0..4).all(|i| a.values(i) == b.values(i)));
        assert_ne!(a.bias_ih, lstm(2, |builder| builder.chrono(50.0)).bias_ih);
    }

    #[test]
    fn the_last_word_about_a_bias_holds() {
        let plain = lstm(1, |builder| builder.chrono(50.0).forget_bias(2.0));
        assert!(gate(&plain.bias_ih, 0).iter().all(|&bias| bias == 0.0));
        assert!(gate(&plain.bias_ih, 1).iter().all(|&bias| bias == 2.0));
        let uniform = lstm(1, |builder| builder.chrono(50.0).pytorch());
        assert_ne!(gate(&uniform.bias_ih, 0), -&gate(&uniform.bias_ih, 1));
        let output = lstm(1, |builder| builder.chrono(50.0).output_bias(-1.0));
        assert_eq!(gate(&output.bias_ih, 0), -&gate(&output.bias_ih, 1));
        assert!(gate(&output.bias_ih, 3).iter().all(|&bias| bias == -1.0));
    }

    #[test]
    fn a_longest_dependency_that_makes_no_sense_is_refused() {
        for t_max in [2.0, 0.0, -3.0, f64::NAN, f64::INFINITY] {
            assert!(std::panic::catch_unwind(|| LstmCell::<f32>::builder(1, 2).chrono(t_max)).is_err(), "{t_max}");
            assert!(std::panic::catch_unwind(|| GruCell::<f32>::builder(1, 2).chrono(t_max)).is_err(), "{t_max}");
        }
    }
}
