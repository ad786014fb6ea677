//! What a cell is, and how its parameters start.

use std::marker::PhantomData;

use ndarray::{Array1, Array2, s};
use rand::Rng;

use super::gru::GruReset;
use super::rnn::RnnNonlinearity;
use crate::base::{Init, RandomDrop};
use crate::kernels::Float;
use crate::recurrence::{Cell, Zoneout};

mod sealed {
    use super::*;

    /// The parameters that every cell has; gate by gate, `G` of them.
    pub struct Parameters<F> {
        /// `[G H, I]`
        pub weight_ih: Array2<F>,
        /// `[G H, H]`, or `[G H, P]` with a projection.
        pub weight_hh: Array2<F>,
        /// `[P, H]`, of an LSTM with a projection.
        pub weight_hr: Option<Array2<F>>,
        /// `[G H]`
        pub bias_ih: Option<Array1<F>>,
        /// `[G H]`
        pub bias_hh: Option<Array1<F>>,
        /// `[G H]`, with layer normalisation.
        pub norm_ih: Option<Array1<F>>,
        /// `[G H]`, with layer normalisation.
        pub norm_hh: Option<Array1<F>>,
    }

    /// What a cell is, besides its weights: each option of the cells that have it.
    #[derive(Clone, Debug)]
    pub struct Options {
        pub hidden: usize,
        pub bias: bool,
        pub layer_norm: bool,
        pub nonlinearity: RnnNonlinearity,
        pub reset: GruReset,
        pub peepholes: bool,
        pub coupled: bool,
        pub projection: Option<usize>,
        pub recurrent_dropout: Option<RandomDrop>,
        pub zoneout: Option<Zoneout>,
    }

    /// What a builder builds: a cell, or a model of several.
    pub trait Model: Sized {
        type Cell: BuiltCell;
        const DIRECTIONS: usize;

        /// From its cells, layer by layer and in each direction by direction, and the dropout between layers.
        fn of_cells(cells: Vec<Self::Cell>, dropout: Vec<RandomDrop>) -> Self;
    }
}
pub(crate) use sealed::{Model, Options, Parameters};

/// A cell of this crate; sealed.
pub trait BuiltCell: Cell<Elem = <Self as BuiltCell>::Elem> {
    /// `f32` or `f64`.
    type Elem: Float;

    /// A gate whose bias does not start at 0.
    #[doc(hidden)]
    const DEFAULT_BIAS: Option<(usize, f64)> = None;

    /// The gates that it has, as places in the order in which their biases are named.
    #[doc(hidden)]
    fn gates(options: &Options) -> &'static [usize];

    /// From its parameters.
    #[doc(hidden)]
    fn assemble(parameters: Parameters<<Self as BuiltCell>::Elem>, options: &Options) -> Self;
}

/// A cell with a gate that keeps the state and, maybe, one that writes to it; sealed.
pub trait Gated: BuiltCell {
    /// The place of the gate that keeps.
    #[doc(hidden)]
    const KEEPS: usize;
    /// The place of the gate that writes, where it is not the opposite of the other.
    #[doc(hidden)]
    const WRITES: Option<usize>;
}

impl<C: BuiltCell> Model for C {
    type Cell = C;
    const DIRECTIONS: usize = 1;

    fn of_cells(mut cells: Vec<C>, _: Vec<RandomDrop>) -> C {
        cells.pop().expect("one cell")
    }
}

/// The most gates that a cell has.
const MOST_GATES: usize = 4;

/// How a gate's bias starts.
#[derive(Clone, Copy, Debug)]
enum Bias {
    /// Nobody said how: at 0.
    Zero,
    Init(Init),
    /// As the negative of another gate's.
    NegativeOf(usize),
}

/// What a recurrent cell is and how its parameters start; made by `builder` of [`RnnCell`](crate::RnnCell),
/// [`LstmCell`](crate::LstmCell) and [`GruCell`](crate::GruCell), and of the models [`Rnn`](crate::Rnn),
/// [`Lstm`](crate::Lstm) and [`Gru`](crate::Gru), which have the same options for each of their cells.
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
pub struct CellBuilder<M> {
    pub(super) options: Options,
    input: usize,
    num_layers: usize,
    dropout: f64,
    recurrent_dropout: f64,
    zoneout: (f64, f64),
    weight_ih: Init,
    weight_hh: Init,
    weight_hr: Init,
    bias_ih: [Bias; MOST_GATES],
    bias_hh: [Bias; MOST_GATES],
    model: PhantomData<fn() -> M>,
}

/// The forget gate's place among an LSTM's gates, and the input gate's.
const FORGET: usize = 1;
const INPUT: usize = 0;

impl<M: Model> CellBuilder<M> {
    pub(crate) fn new(input: usize, hidden: usize) -> Self {
        assert!(input > 0 && hidden > 0, "cell: sizes must not be 0, got input {input}, hidden {hidden}");
        let mut bias_ih = [Bias::Zero; MOST_GATES];
        if let Some((gate, bias)) = M::Cell::DEFAULT_BIAS {
            bias_ih[gate] = Bias::Init(Init::Constant(bias));
        }
        CellBuilder {
            options: Options {
                hidden,
                bias: true,
                layer_norm: false,
                nonlinearity: RnnNonlinearity::Tanh,
                reset: GruReset::AfterProduct,
                peepholes: false,
                coupled: false,
                projection: None,
                recurrent_dropout: None,
                zoneout: None,
            },
            input,
            num_layers: 1,
            dropout: 0.0,
            recurrent_dropout: 0.0,
            zoneout: (0.0, 0.0),
            weight_ih: Init::XavierUniform { gain: 1.0 },
            weight_hh: Init::Orthogonal { gain: 1.0 },
            weight_hr: Init::XavierUniform { gain: 1.0 },
            bias_ih,
            bias_hh: [Bias::Zero; MOST_GATES],
            model: PhantomData,
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
    pub fn bias(mut self, bias: bool) -> Self {
        self.options.bias = bias;
        self
    }

    /// With layer normalisation inside the cell (Ba, Kiros and Hinton 2016); its gains start at 1.
    pub fn layer_norm(mut self) -> Self {
        self.options.layer_norm = true;
        self
    }

    /// With dropout on what the recurrent product is given: each unit with probability `p`, the same mask at every step
    /// (Gal and Ghahramani 2016), another for each seed of [`Sequence::train`](crate::Sequence::train).
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics where `p` is not in `0..1`, and a pass that says no mode does.
    pub fn recurrent_dropout(self, p: f64) -> Self {
        CellBuilder { recurrent_dropout: p, ..self }
    }

    /// With [`Zoneout`]: units of h keep their value for a step with probability `h`, those of the memory with `c`.
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics where one is not in `0..1`, and a pass that says no mode does.
    pub fn zoneout(self, h: f64, c: f64) -> Self {
        CellBuilder { zoneout: (h, c), ..self }
    }

    /// Every parameter uniform in `±1/sqrt(H)`, as PyTorch starts them; peepholes and gains start as without.
    pub fn pytorch(self) -> Self {
        let init = Init::Uniform { bound: 1.0 / (self.options.hidden as f64).sqrt() };
        CellBuilder {
            weight_ih: init,
            weight_hh: init,
            weight_hr: init,
            bias_ih: [Bias::Init(init); MOST_GATES],
            bias_hh: [Bias::Init(init); MOST_GATES],
            ..self
        }
    }

    /// The two biases of a gate add up: `bias_ih` takes the value, `bias_hh` is zero.
    pub(super) fn gate_bias(mut self, gate: usize, init: impl Into<Init>) -> Self {
        // What was to be the negative of another value is not that of this one.
        for bias in &mut self.bias_ih {
            if matches!(bias, Bias::NegativeOf(other) if *other == gate) {
                *bias = Bias::Zero;
            }
        }
        self.bias_ih[gate] = Bias::Init(init.into());
        self.bias_hh[gate] = Bias::Zero;
        self
    }

    /// The bias of a gate starts as the negative of another's.
    pub(super) fn opposite_bias(mut self, gate: usize, other: usize) -> Self {
        self.bias_ih[gate] = Bias::NegativeOf(other);
        self.bias_hh[gate] = Bias::Zero;
        self
    }

    /// The bias of a gate on the input's side alone.
    pub(super) fn input_gate_bias(mut self, gate: usize, init: impl Into<Init>) -> Self {
        self.bias_ih[gate] = Bias::Init(init.into());
        self
    }

    /// The bias of a gate on the hidden state's side alone.
    pub(super) fn hidden_gate_bias(mut self, gate: usize, init: impl Into<Init>) -> Self {
        self.bias_hh[gate] = Bias::Init(init.into());
        self
    }

    /// How the projection starts.
    pub(super) fn projection_weight(self, init: impl Into<Init>) -> Self {
        CellBuilder { weight_hr: init.into(), ..self }
    }

    /// Another model with the same options.
    pub(crate) fn retarget<N>(self) -> CellBuilder<N> {
        let CellBuilder { options, input, num_layers, dropout, recurrent_dropout, zoneout, .. } = self;
        let CellBuilder { weight_ih, weight_hh, weight_hr, bias_ih, bias_hh, .. } = self;
        CellBuilder {
            options,
            input,
            num_layers,
            dropout,
            recurrent_dropout,
            zoneout,
            weight_ih,
            weight_hh,
            weight_hr,
            bias_ih,
            bias_hh,
            model: PhantomData,
        }
    }

    /// For models of several layers.
    pub(crate) fn with_layers(self, num_layers: usize) -> Self {
        assert!(num_layers > 0, "cell: num_layers must not be 0");
        CellBuilder { num_layers, ..self }
    }

    /// For models of several layers.
    pub(crate) fn with_dropout(self, dropout: f64) -> Self {
        CellBuilder { dropout, ..self }
    }

    /// With all parameters zero, for weights that will be loaded; what is dropped at random is drawn from a fixed seed.
    #[track_caller]
    pub fn zeros(self) -> M {
        use crate::TensorsExt;
        let rng = &mut <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(0);
        let none = Init::Constant(0.0); // spares the orthogonal weights of large cells
        let (cells, dropout) = CellBuilder { weight_ih: none, weight_hh: none, weight_hr: none, ..self }.draw(rng);
        let zero = |mut cell: M::Cell| {
            cell.set_zero();
            cell
        };
        M::of_cells(cells.into_iter().map(zero).collect(), dropout)
    }

    /// Drawn from `rng`: the same seed gives the same bits.
    ///
    /// # Panics
    /// Where a bias is said to start by [`Init::Chrono`] with a `t_max` below 2 or not finite, or a probability is not in
    /// `0..1`.
    #[track_caller]
    pub fn build(self, rng: &mut (impl Rng + ?Sized)) -> M {
        let (cells, dropout) = self.draw(rng);
        M::of_cells(cells, dropout)
    }

    #[track_caller]
    fn draw(mut self, rng: &mut (impl Rng + ?Sized)) -> (Vec<M::Cell>, Vec<RandomDrop>) {
        let output = M::DIRECTIONS * self.options.projection.unwrap_or(self.options.hidden);
        let mut cells = Vec::new();
        for layer in 0..self.num_layers {
            for _ in 0..M::DIRECTIONS {
                let input = if layer == 0 { self.input } else { output };
                cells.push(self.cell(input, rng));
            }
        }
        let between = if self.dropout != 0.0 { self.num_layers - 1 } else { 0 };
        let dropout = (0..between).map(|_| RandomDrop::new("dropout", self.dropout, rng)).collect();
        (cells, dropout)
    }

    #[track_caller]
    fn cell(&mut self, input: usize, rng: &mut (impl Rng + ?Sized)) -> M::Cell {
        let (hidden, projection) = (self.options.hidden, self.options.projection);
        let gates = M::Cell::gates(&self.options);
        let mut weight = |columns: usize, init: Init| {
            let mut weight = Array2::zeros((gates.len() * hidden, columns));
            for gate in 0..gates.len() {
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
        let mut bias_ih = self.bias_ih;
        if self.options.coupled && matches!(bias_ih[INPUT], Bias::Zero) {
            bias_ih[INPUT] = Bias::NegativeOf(FORGET);
        }
        let mut bias = |init: [Bias; MOST_GATES]| {
            // All gates that have a name, so that one can start as the negative of one that the cell has not.
            let mut named = Array1::zeros(MOST_GATES * hidden);
            for (mut gate, init) in named.exact_chunks_mut(hidden).into_iter().zip(init) {
                if let Bias::Init(init) = init {
                    init.fill(&mut gate.view_mut().insert_axis(ndarray::Axis(0)), rng);
                }
            }
            let rows = |gate: usize| s![gate * hidden..(gate + 1) * hidden];
            for (gate, init) in init.into_iter().enumerate() {
                if let Bias::NegativeOf(other) = init {
                    let negative = named.slice(rows(other)).mapv(|bias: <M::Cell as BuiltCell>::Elem| -bias);
                    named.slice_mut(rows(gate)).assign(&negative);
                }
            }
            gates.iter().flat_map(|&gate| named.slice(rows(gate)).to_vec()).collect::<Array1<_>>()
        };
        let [bias_ih, bias_hh] =
            if self.options.bias { [Some(bias(bias_ih)), Some(bias(self.bias_hh))] } else { [None, None] };
        let gain = || self.options.layer_norm.then(|| Array1::ones(gates.len() * hidden));
        let (norm_ih, norm_hh) = (gain(), gain());
        let p = self.recurrent_dropout;
        self.options.recurrent_dropout = (p != 0.0).then(|| RandomDrop::new("cell", p, rng));
        let (h, c) = self.zoneout;
        self.options.zoneout = (h != 0.0 || c != 0.0)
            .then(|| Zoneout { h: RandomDrop::new("zoneout", h, rng), c: RandomDrop::new("zoneout", c, rng) });
        let parameters = Parameters { weight_ih, weight_hh, weight_hr, bias_ih, bias_hh, norm_ih, norm_hh };
        M::Cell::assemble(parameters, &self.options)
    }
}

impl<M: Model<Cell: Gated>> CellBuilder<M> {
    /// Memories of one step to `t_max` steps from the start, `t_max` being the longest dependency expected (Tallec and
    /// Ollivier 2018).
    ///
    /// An LSTM's forget bias is `log(u)`, u uniform in `[1, t_max - 1)`, and its input bias `-log(u)`, so that what is
    /// written and what is forgotten balance. A GRU's update bias is `log(u)`: the paper's gate is the opposite of this
    /// one, which keeps; hence the other sign.
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
        assert!(t_max > 2.0 && t_max.is_finite(), "chrono: t_max: expected a finite number above 2, got {t_max}");
        let builder = self.gate_bias(M::Cell::KEEPS, Init::Chrono { t_max });
        match M::Cell::WRITES {
            Some(writes) => builder.opposite_bias(writes, M::Cell::KEEPS),
            None => builder,
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayView1;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{GruCell, LstmCell, TensorsExt};

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
