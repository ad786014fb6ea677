//! The builder of cells, with their options and the initialization of their parameters. It knows no particular cell.

use std::marker::PhantomData;

use ndarray::{Array1, Array2, Axis, s};
use rand::Rng;

use super::activations::Chosen;
use super::options::{
    Activated, CellOptions, DEFAULT_EPS, Gated, GatedActivations, HiddenZoneout, RecurrentProduct, Start,
};
use crate::base::error::mismatch;
use crate::base::{Expect, Init, RandomDrop, TensorsExt, check_number, check_sizes};
use crate::kernels::Float;
use crate::layers::Nonlinearity;
use crate::recurrence::{Cell, StackState, Zoneout};

/// The name of builders in messages.
const NAME: &str = "cell";

mod sealed {
    use super::*;

    /// The result of a builder: a cell, or a model of several.
    pub trait Model: Sized {
        type Cell: BuiltCell;
        const DIRECTIONS: usize;

        /// Makes the model from its cells, ordered by layer and then by direction, and the dropout between layers.
        fn of_cells(cells: Vec<Self::Cell>, dropout: Vec<RandomDrop>) -> Self;
    }

    /// Draws the parameters of a cell.
    #[allow(missing_debug_implementations)] // sealed: no user has one
    pub struct Draw<'a, R: ?Sized> {
        pub input: usize,
        pub hidden: usize,
        pub(super) starts: &'a Starts,
        pub(super) rng: &'a mut R,
    }

    impl<R: Rng + ?Sized> Draw<'_, R> {
        /// Parameter `name`, `[gates · rows, columns]`, with each gate drawn separately.
        #[track_caller]
        pub fn weight<F: Float>(
            &mut self,
            name: &'static str,
            [gates, rows, columns]: [usize; 3],
            default: Init,
        ) -> Array2<F> {
            let sizes = [("input", self.input), ("hidden", self.hidden)];
            check_sizes::<F, 2>(NAME, sizes, &[&[gates, rows, columns]]);
            let init = match self.starts.of(name, 0) {
                Some(Start::Init(init)) => init,
                _ => default,
            };
            let mut weight = Array2::zeros((gates * rows, columns));
            for gate in 0..gates {
                init.fill(&mut weight.slice_mut(s![gate * rows..(gate + 1) * rows, ..]), self.rng);
            }
            weight
        }

        /// `weight_hh` of `gates` gates, `[G H, O / heads]`, for h of `output` features; each head of each gate is orthogonal by
        /// itself, unless another initialization is chosen.
        #[track_caller]
        pub fn recurrent_weight<F: Float>(&mut self, gates: usize, output: usize, heads: usize) -> Array2<F> {
            for (name, size) in [("hidden", self.hidden), ("projected", output)] {
                if heads == 0 || size % heads != 0 {
                    let expected = format!("a divisor of the {size} {name} features");
                    mismatch(NAME, "heads", &expected, &heads);
                }
            }
            let shape = [gates * heads, self.hidden / heads, output / heads];
            self.weight("weight_hh", shape, Init::Orthogonal { gain: 1.0 })
        }

        /// Parameter `name`, `[G H]`, of the cell's `gates`, which are some of `named` gates: a gate can start as the negative of
        /// one that the cell does not have. Gates that are not set start as in `defaults`, or at 0.
        #[track_caller]
        pub fn bias<F: Float>(
            &mut self,
            name: &'static str,
            named: usize,
            gates: &[usize],
            defaults: &[(usize, Start)],
        ) -> Array1<F> {
            let (hidden, starts) = (self.hidden, self.starts);
            let default = |gate| defaults.iter().find(|(of, _)| *of == gate).map(|&(_, start)| start);
            let start = |gate| starts.of(name, gate).or(default(gate)).unwrap_or(Start::Init(Init::Constant(0.0)));
            let mut all = Array2::<F>::zeros((named, hidden));
            for (gate, mut row) in all.outer_iter_mut().enumerate() {
                if let Start::Init(init) | Start::Negative(init) = start(gate) {
                    init.fill(&mut row.view_mut().insert_axis(Axis(0)), self.rng);
                }
                if let Start::Negative(_) = start(gate) {
                    row.mapv_inplace(|bias| -bias);
                }
            }
            let row = |gate: usize| match start(gate) {
                Start::NegativeOf(other) => all.row(other).mapv(|bias| -bias),
                _ => all.row(gate).to_owned(),
            };
            gates.iter().flat_map(|&gate| row(gate)).collect()
        }

        /// The dropout of a recurrent product, if there is any.
        #[track_caller]
        pub fn recurrent_dropout(&mut self, p: f64) -> Option<RandomDrop> {
            (p != 0.0).then(|| RandomDrop::new(NAME, p, self.rng))
        }

        /// The zoneout of h and c, if there is any.
        #[track_caller]
        pub fn zoneout(&mut self, h: f64, c: f64) -> Option<Zoneout> {
            let mut drop = |p| RandomDrop::new("zoneout", p, self.rng);
            (h != 0.0 || c != 0.0).then(|| Zoneout { h: drop(h), c: drop(c) })
        }
    }

    /// The chosen initializations.
    #[derive(Clone, Debug, Default)]
    pub struct Starts {
        pub(super) all: Option<Init>,
        pub(super) chosen: Vec<(&'static str, usize, Start)>, // name and gate; the last entry of each counts
    }

    impl Starts {
        fn of(&self, name: &str, gate: usize) -> Option<Start> {
            let chosen = self.chosen.iter().rev().find(|&&(of, at, _)| (of, at) == (name, gate));
            chosen.map(|&(.., start)| start).or(self.all.map(Start::Init))
        }
    }
}
pub(super) use sealed::Draw;
pub(crate) use sealed::Model;
use sealed::Starts;

/// The constructors of a cell; `$new` documents `new`.
macro_rules! constructors {
    ($Cell:ident, $new:literal) => {
        impl<F: Float> $Cell<F> {
            #[doc = $new]
            ///
            /// # Panics
            /// Panics if a size is 0.
            #[track_caller]
            pub fn new(input: usize, hidden: usize, rng: &mut (impl Rng + ?Sized)) -> Self {
                Self::builder(input, hidden).build(rng)
            }

            /// A builder, to choose variants and how each parameter is initialized.
            ///
            /// # Panics
            /// Panics if a size is 0.
            #[track_caller]
            pub fn builder(input: usize, hidden: usize) -> CellBuilder<Self> {
                CellBuilder::new(input, hidden)
            }

            /// All parameters zero, for weights that will be loaded.
            ///
            /// # Panics
            /// Panics if a size is 0.
            #[track_caller]
            pub fn zeros(input: usize, hidden: usize) -> Self {
                Self::builder(input, hidden).zeros()
            }

            /// I, the number of input features.
            pub fn input_size(&self) -> usize {
                self.weight_ih.ncols()
            }
        }
    };
}
pub(super) use constructors;

/// A cell of this crate; sealed.
pub trait BuiltCell: Cell<Elem = <Self as BuiltCell>::Elem, State: StackState<<Self as BuiltCell>::Elem>> {
    /// `f32` or `f64`.
    type Elem: Float;

    /// The options of the cell: everything besides its weights.
    type Options: CellOptions;

    /// Draws a cell with these options.
    #[doc(hidden)]
    fn draw<R: Rng + ?Sized>(options: &Self::Options, draw: &mut Draw<'_, R>) -> Self;
}

/// The element type of a model's cells.
type Elem<M> = <<M as Model>::Cell as BuiltCell>::Elem;

impl<C: BuiltCell> Model for C {
    type Cell = C;
    const DIRECTIONS: usize = 1;

    fn of_cells(mut cells: Vec<C>, _: Vec<RandomDrop>) -> C {
        cells.pop().expect("one cell")
    }
}

/// The options of a new recurrent cell or model, and how its parameters are initialized. It is made by `builder` of a cell, such as
/// [`LstmCell::builder`](crate::recurrent::LstmCell::builder), or of a model, such as [`Lstm`](crate::recurrent::Lstm), whose cells
/// all get the same options.
///
/// By default, input weights are Xavier uniform, recurrent weights orthogonal (each gate by itself), biases zero, and the
/// forget bias of an LSTM and an sLSTM 1 (0 if that gate is exponential), so that its memory lasts from the start (Jozefowicz et al. 2015).
///
/// The second type parameter is the struct of the cell's options, such as [`LstmOptions`](crate::recurrent::LstmOptions).
///
/// ```
/// use gradflow::{layers::Init, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell};
///
/// let rng = &mut StdRng::seed_from_u64(0);
/// let cell: LstmCell<f32> = LstmCell::builder(3, 4)
///     .weight_hh(Init::Orthogonal { gain: 0.9 })
///     .forget_bias(3.0)
///     .output_bias(-1.0)
///     .build(rng);
/// assert_eq!(cell.bias_ih.unwrap().to_vec()[4..8], [3.0; 4]);
/// ```
#[must_use = "a builder builds nothing until `build` or `zeros`"]
#[derive(Clone, Debug)]
pub struct CellBuilder<M: Model, O = <<M as Model>::Cell as BuiltCell>::Options> {
    pub(super) options: O,
    input: usize,
    hidden: usize,
    num_layers: usize,
    dropout: f64,
    starts: Starts,
    model: PhantomData<fn() -> M>,
}

impl<M: Model<Cell: BuiltCell<Options = O>>, O: CellOptions> CellBuilder<M, O> {
    #[track_caller]
    pub(crate) fn new(input: usize, hidden: usize) -> Self {
        let sizes = [("input", input), ("hidden", hidden)];
        check_sizes::<Elem<M>, 2>(NAME, sizes, &[&[hidden, input], &[hidden, hidden]]);
        CellBuilder {
            options: O::default(),
            input,
            hidden,
            num_layers: 1,
            dropout: 0.0,
            starts: Starts::default(),
            model: PhantomData,
        }
    }

    /// Sets all options at once, for example to those of another cell.
    pub fn options(self, options: O) -> Self {
        CellBuilder { options, ..self }
    }

    /// The initialization of the input weights.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn weight_ih(self, init: impl Into<Init>) -> Self {
        self.init("weight_ih", init)
    }

    /// Whether there are biases.
    pub fn bias(mut self, bias: bool) -> Self {
        self.options.common().bias = bias;
        self
    }

    /// Adds layer normalisation inside the cell (Ba, Kiros and Hinton 2016), with an eps of 1e-5. Its gains start at 1.
    ///
    /// While x and h are 0, as in silence or padding at the start of a sequence, the normalised sums have no variance. Their
    /// gradient is then that of a cell that only subtracts the mean, and does not grow by `1/sqrt(eps)` at every step: see
    /// [`LayerNorm`](crate::layers::LayerNorm#rows-without-a-variance).
    pub fn layer_norm(self) -> Self {
        self.layer_norm_eps(DEFAULT_EPS)
    }

    /// Adds layer normalisation inside the cell, with `eps` added to the variances.
    ///
    /// # Panics
    /// Panics if `eps` is not finite or not above 0, before or after rounding to the element type.
    #[track_caller]
    pub fn layer_norm_eps(mut self, eps: f64) -> Self {
        check_number::<Elem<M>>(NAME, "layer_norm_eps", Expect::Above0, eps);
        self.options.common().layer_norm = Some(eps);
        self
    }

    /// Initializes every parameter uniformly in `±1/sqrt(H)`, as PyTorch does. Peepholes and gains start as they do otherwise.
    pub fn pytorch(mut self) -> Self {
        let bound = 1.0 / (self.hidden as f64).sqrt();
        self.starts = Starts { all: Some(Init::Uniform { bound }), chosen: Vec::new() };
        self
    }

    /// The same options for another model.
    pub(crate) fn retarget<N: Model<Cell = M::Cell>>(self) -> CellBuilder<N, O> {
        let CellBuilder { options, input, hidden, num_layers, dropout, starts, model: _ } = self;
        CellBuilder { options, input, hidden, num_layers, dropout, starts, model: PhantomData }
    }

    /// For models of several layers.
    #[track_caller]
    pub(crate) fn with_layers(self, num_layers: usize) -> Self {
        assert!(num_layers > 0, "cell: num_layers must not be 0");
        CellBuilder { num_layers, ..self }
    }

    /// For models of several layers.
    pub(crate) fn with_dropout(self, dropout: f64) -> Self {
        CellBuilder { dropout, ..self }
    }

    /// Builds with all parameters zero, for weights that will be loaded. The ids of random masks are drawn from a fixed seed.
    ///
    /// # Panics
    /// Panics if a probability is not in `0..1`, if an eps of layer normalisation or a limit of sums is not above 0, or if a number
    /// in an activation is not finite, each before or after rounding to the element type. Panics if a projection has as many
    /// features as there are hidden units, or more, or if there is dropout between layers but only one layer.
    #[track_caller]
    pub fn zeros(self) -> M {
        let rng = &mut <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(0);
        // Avoids computing orthogonal weights, which is slow for large cells.
        let starts = Starts { all: Some(Init::Constant(0.0)), chosen: Vec::new() };
        let (mut cells, dropout) = CellBuilder { starts, ..self }.cells(rng);
        cells.iter_mut().for_each(TensorsExt::set_zero);
        M::of_cells(cells, dropout)
    }

    /// Builds with parameters drawn from `rng`: the same seed gives the same bits.
    ///
    /// # Panics
    /// Panics if a probability is not in `0..1`, if an eps of layer normalisation or a limit of sums is not above 0, or if a number
    /// in an activation is not finite, each before or after rounding to the element type. Panics if a projection has as many
    /// features as there are hidden units, or more, or if there is dropout between layers but only one layer.
    #[track_caller]
    pub fn build(self, rng: &mut (impl Rng + ?Sized)) -> M {
        let (cells, dropout) = self.cells(rng);
        M::of_cells(cells, dropout)
    }

    #[track_caller]
    fn cells(self, rng: &mut (impl Rng + ?Sized)) -> (Vec<M::Cell>, Vec<RandomDrop>) {
        let CellBuilder { mut options, input, hidden, num_layers, dropout, starts, model: _ } = self;
        // Options are also public fields, so their final values are checked here.
        if let Some(eps) = options.common().layer_norm {
            check_number::<Elem<M>>(NAME, "layer_norm", Expect::Above0, eps);
        }
        for (name, p) in options.probabilities().into_iter().chain([("dropout", dropout)]) {
            check_number::<Elem<M>>(NAME, name, Expect::Probability, p);
        }
        Chosen::check::<Elem<M>>(&options, NAME);
        let (mut cells, mut input) = (Vec::<M::Cell>::new(), input);
        for _ in 0..num_layers {
            for _ in 0..M::DIRECTIONS {
                cells.push(M::Cell::draw(&options, &mut Draw { input, hidden, starts: &starts, rng }));
            }
            input = M::DIRECTIONS * cells[0].sizes().output;
        }
        if dropout != 0.0 && num_layers == 1 {
            let expected = "several layers, since it stands between layers; `Dropout` drops what the last one gives";
            mismatch(cells[0].sizes().name, "dropout", &expected, &"1 layer");
        }
        let between = if dropout != 0.0 { num_layers - 1 } else { 0 };
        let dropout = (0..between).map(|_| RandomDrop::new("dropout", dropout, rng)).collect();
        (cells, dropout)
    }
}

impl<M: Model, O> CellBuilder<M, O> {
    /// Sets the initialization of a weight.
    #[track_caller]
    pub(super) fn init(self, name: &'static str, init: impl Into<Init>) -> Self {
        self.start(name, 0, Start::Init(init.into().checked::<Elem<M>>(NAME, name)))
    }

    /// Sets the initialization of a gate's bias, for the method `name`.
    #[track_caller]
    pub(super) fn gate_init(self, name: &str, gate: usize, init: impl Into<Init>) -> Self {
        self.gate_bias(gate, Start::Init(init.into().checked::<Elem<M>>(NAME, name)))
    }

    /// Sets the initialization of a gate's part of a parameter.
    pub(super) fn start(mut self, name: &'static str, gate: usize, start: Start) -> Self {
        self.starts.chosen.push((name, gate, start));
        self
    }

    /// Sets the initialization of a gate's biases, which add up: `bias_ih` takes the value, and `bias_hh` is zero.
    pub(super) fn gate_bias(mut self, gate: usize, start: Start) -> Self {
        // A bias that was to be the negative of this gate's previous bias is not the negative of the new one.
        self.starts.chosen.retain(|(.., start)| !matches!(start, Start::NegativeOf(other) if *other == gate));
        self.start("bias_ih", gate, start).start("bias_hh", gate, Start::Init(Init::Constant(0.0)))
    }
}

impl<M: Model<Cell: BuiltCell<Options = O>>, O: RecurrentProduct> CellBuilder<M, O> {
    /// The initialization of the recurrent weights.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn weight_hh(self, init: impl Into<Init>) -> Self {
        self.init("weight_hh", init)
    }

    /// Splits the recurrent weights into `n` heads: those of each gate are a block-diagonal matrix of `n` blocks, so that a unit
    /// reads only the units of its own head (Beck et al. 2024, "xLSTM", for the sLSTM).
    ///
    /// ```text
    /// W_hg = diag(W_1, …, W_n)        weight_hh: [G H, H / n], the blocks of each gate below each other
    /// ```
    ///
    /// The product at every step takes `n` times fewer operations. A [`Stream`](crate::stream::Stream) runs the forward pass of
    /// such a cell. Neither ONNX nor Keras has heads.
    ///
    /// ```
    /// use gradflow::{rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell};
    ///
    /// let cell: LstmCell<f32> = LstmCell::builder(3, 8).heads(2).build(&mut StdRng::seed_from_u64(0));
    /// assert_eq!(cell.weight_hh.dim(), (4 * 8, 4));
    /// ```
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics if `n` is 0 or does not divide the hidden size or that of the projection.
    #[track_caller]
    pub fn heads(mut self, n: usize) -> Self {
        *self.options.heads() = n;
        self
    }

    /// Adds dropout to the input of the recurrent product: each unit is dropped with probability `p`. The mask is the same at every
    /// step (Gal and Ghahramani 2016), and a new one for each seed of [`Sequence::train`](crate::Sequence::train).
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics if `p` is not in `0..1`. A pass panics if it has no mode.
    #[track_caller]
    pub fn recurrent_dropout(mut self, p: f64) -> Self {
        *self.options.recurrent_dropout() = p;
        self
    }
}

impl<M: Model<Cell: BuiltCell<Options = O>>, O: Activated> CellBuilder<M, O> {
    /// Clips sums to `±limit` before the activations, as in ONNX: `σ(clip(a))` instead of `σ(a)`, for all gates and for the
    /// candidate. An LSTM's memory, which also goes through a tanh, is not clipped, as in ONNX Runtime.
    ///
    /// A clipped sum has no gradient: `da = 0` if `|a| > limit`.
    ///
    /// ```
    /// use gradflow::{Layer, ndarray::{Array3, arr2}, recurrent::{Nonlinearity, RnnCell}};
    ///
    /// let mut cell: RnnCell<f64> = RnnCell::builder(1, 1).nonlinearity(Nonlinearity::Identity).clip(3.0).zeros();
    /// cell.weight_ih = arr2(&[[1.0]]);
    /// let y = cell.forward(&Array3::from_elem((1, 1, 1), 5.0), &mut cell.zero_state(1), &mut cell.cache()).sum();
    /// assert_eq!(y, 3.0);
    /// ```
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics if `limit` is not finite or not above 0, before or after rounding to the element type.
    #[track_caller]
    pub fn clip(mut self, limit: f64) -> Self {
        *self.options.clip_mut() = Some(limit);
        self
    }
}

impl<M: Model<Cell: BuiltCell<Options = O>>, O: GatedActivations> CellBuilder<M, O> {
    /// Replaces σ in the gates by `f`: ONNX's f, Keras' `recurrent_activation`.
    ///
    /// In the backward pass, `f'` replaces σ'. Such a cell computes unit by unit, without vector instructions, and a
    /// [`Stream`](crate::stream::Stream) runs its forward pass.
    ///
    /// ```
    /// use gradflow::{rand::{SeedableRng, rngs::StdRng}, recurrent::{Gru, Nonlinearity}};
    ///
    /// let rng = &mut StdRng::seed_from_u64(0);
    /// let gru: Gru<f32> = Gru::builder(3, 4).gate_activation(Nonlinearity::HARD_SIGMOID).build(rng);
    /// assert_eq!(gru.cell(0, 0).options().candidate_activation, Nonlinearity::Tanh);
    /// ```
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics if a number in `f` is not finite.
    #[track_caller]
    pub fn gate_activation(mut self, f: Nonlinearity) -> Self {
        *self.options.gate_and_candidate()[0] = f;
        self
    }

    /// Replaces tanh in the candidate, an LSTM's g or a GRU's n, by `f`: ONNX's g, Keras' `activation`.
    ///
    /// In the backward pass, `f'` replaces tanh'. An LSTM's h has a separate function:
    /// [`output_activation`](CellBuilder::output_activation).
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics if a number in `f` is not finite.
    #[track_caller]
    pub fn candidate_activation(mut self, f: Nonlinearity) -> Self {
        *self.options.gate_and_candidate()[1] = f;
        self
    }
}

impl<M: Model<Cell: BuiltCell<Options = O>>, O: HiddenZoneout> CellBuilder<M, O> {
    /// Adds [`Zoneout`]: units of h keep their value for a step with probability `h`. The method of an LSTM's builder takes two
    /// probabilities, `zoneout(h, c)`. An sLSTM's c, n and m belong together, so zoneout acts on h alone.
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics if `h` is not in `0..1`. A pass panics if it has no mode.
    #[track_caller]
    pub fn zoneout(mut self, h: f64) -> Self {
        self.options.common().zoneout = h;
        self
    }
}

impl<M: Model<Cell: BuiltCell<Options = O>>, O: Gated> CellBuilder<M, O> {
    /// Initializes the gate biases so that memories last from one step to `t_max` steps, the longest dependency expected (Tallec
    /// and Ollivier 2018).
    ///
    /// An LSTM's forget bias is `log(u)`, with u uniform in `[1, t_max - 1)`, and its input bias is `-log(u)`, so that writing and
    /// forgetting balance. A GRU's update bias is `log(u)`; the sign is not the paper's, because the paper's gate writes and this
    /// one keeps. The gates of an MGU and a minGRU write, as in the paper, so their bias is `-log(u)`. A minLSTM's biases are like
    /// an LSTM's.
    ///
    /// ```
    /// use gradflow::{ndarray::s, rand::{SeedableRng, rngs::StdRng}, recurrent::LstmCell};
    ///
    /// let cell: LstmCell<f32> = LstmCell::builder(3, 4).chrono(100.0).build(&mut StdRng::seed_from_u64(0));
    /// let bias = cell.bias_ih.unwrap();
    /// assert_eq!(bias.slice(s![..4]), -&bias.slice(s![4..8])); // input and forget gate
    /// ```
    ///
    /// # Panics
    /// Panics if `t_max` is not above 2 or not finite.
    #[track_caller]
    pub fn chrono(self, t_max: f64) -> Self {
        assert!(t_max > 2.0 && t_max.is_finite(), "chrono: t_max: expected a finite number above 2, got {t_max}");
        let starts = O::chrono(Init::Chrono { t_max });
        starts.into_iter().fold(self, |builder, (gate, start)| builder.gate_bias(gate, start))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayView1;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::cells::{GruCell, LstmCell};

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
