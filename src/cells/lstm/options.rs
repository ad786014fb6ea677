//! The options of an [`LstmCell`](super::LstmCell).

use crate::base::Init;
use crate::cells::activations::{Chosen, STANDARD};
use crate::cells::builder::{BuiltCell, CellBuilder, Model};
use crate::cells::options::{Activated, CellOptions, CommonOptions, Gated, GatedActivations, RecurrentProduct, Start};
use crate::layers::Nonlinearity;

/// The options of an [`LstmCell`](crate::recurrent::LstmCell); its [builder](CellBuilder) has a method for each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LstmOptions {
    /// Whether the gates read the memory.
    pub peepholes: bool,
    /// Whether `f = 1 - i`.
    pub coupled: bool,
    /// P, the size to which h is projected, if it is.
    pub projection: Option<usize>,
    /// The probability of recurrent dropout.
    pub recurrent_dropout: f64,
    /// The number of heads of the recurrent weights.
    pub heads: usize,
    /// The probability of [`Zoneout`](crate::recurrent::Zoneout) for a unit of c.
    pub zoneout_c: f64,
    /// The function used as σ: [`gate_activation`](CellBuilder::gate_activation).
    pub gate_activation: Nonlinearity,
    /// The function used as tanh in g: [`candidate_activation`](CellBuilder::candidate_activation).
    pub candidate_activation: Nonlinearity,
    /// The function used as tanh in h: [`output_activation`](CellBuilder::output_activation).
    pub output_activation: Nonlinearity,
    /// The limit to which the gates' sums are clipped, if any.
    pub clip: Option<f64>,
    /// The options that every cell has.
    pub common: CommonOptions,
}

impl Default for LstmOptions {
    fn default() -> Self {
        let Chosen { gate, candidate, output, clip } = STANDARD;
        LstmOptions {
            peepholes: false,
            coupled: false,
            projection: None,
            recurrent_dropout: 0.0,
            heads: 1,
            zoneout_c: 0.0,
            gate_activation: gate,
            candidate_activation: candidate,
            output_activation: output,
            clip,
            common: CommonOptions::default(),
        }
    }
}

/// The gates' indices.
pub(super) const INPUT: usize = 0;
pub(super) const FORGET: usize = 1;
pub(super) const CELL: usize = 2;
pub(super) const OUTPUT: usize = 3;

/// The gates that have weights.
pub(super) fn gates(coupled: bool) -> &'static [usize] {
    if coupled { &[INPUT, CELL, OUTPUT] } else { &[INPUT, FORGET, CELL, OUTPUT] }
}

impl CellOptions for LstmOptions {
    fn common(&mut self) -> &mut CommonOptions {
        &mut self.common
    }

    fn probabilities(&self) -> Vec<(&'static str, f64)> {
        let zoneout = [("zoneout of h", self.common.zoneout), ("zoneout of c", self.zoneout_c)];
        [("recurrent_dropout", self.recurrent_dropout)].into_iter().chain(zoneout).collect()
    }

    fn activations(&self) -> Vec<(&'static str, Nonlinearity)> {
        vec![
            ("gate_activation", self.gate_activation),
            ("candidate_activation", self.candidate_activation),
            ("output_activation", self.output_activation),
        ]
    }

    fn clip(&self) -> Option<f64> {
        self.clip
    }
}

impl Activated for LstmOptions {
    fn clip_mut(&mut self) -> &mut Option<f64> {
        &mut self.clip
    }
}

impl GatedActivations for LstmOptions {
    fn gate_and_candidate(&mut self) -> [&mut Nonlinearity; 2] {
        [&mut self.gate_activation, &mut self.candidate_activation]
    }
}

impl RecurrentProduct for LstmOptions {
    fn recurrent_dropout(&mut self) -> &mut f64 {
        &mut self.recurrent_dropout
    }

    fn heads(&mut self) -> &mut usize {
        &mut self.heads
    }
}

impl Gated for LstmOptions {
    fn chrono(keep: Init) -> Vec<(usize, Start)> {
        vec![(FORGET, Start::Init(keep)), (INPUT, Start::NegativeOf(FORGET))]
    }
}

impl<M: Model<Cell: BuiltCell<Options = LstmOptions>>> CellBuilder<M, LstmOptions> {
    /// Adds peepholes, through which the gates read the memory (Gers and Schmidhuber 2000). Their weights start at 0.
    pub fn peepholes(mut self) -> Self {
        self.options.peepholes = true;
        self
    }

    /// Couples the gates: `f = 1 - i`, so a unit forgets as much as it writes (Greff et al. 2017). Unless the input gate's bias is
    /// set, it starts as the negative of the forget gate's, so that the memory lasts from the start.
    pub fn coupled(mut self) -> Self {
        self.options.coupled = true;
        self
    }

    /// Projects h to `size` features, for a large memory with a small recurrent product (Sak et al. 2014).
    ///
    /// # Panics
    /// Panics if `size` is 0. [`build`](CellBuilder::build) panics if `size` is not below the number of hidden units.
    #[track_caller]
    pub fn projection(mut self, size: usize) -> Self {
        assert!(size > 0, "LstmCell: sizes must not be 0, got projection {size}");
        self.options.projection = Some(size);
        self
    }

    /// Adds [`Zoneout`](crate::recurrent::Zoneout): units of h keep their value for a step with probability `h`, units of c with
    /// probability `c`.
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics if a probability is not in `0..1`. A pass panics if it has no mode.
    #[track_caller]
    pub fn zoneout(mut self, h: f64, c: f64) -> Self {
        self.options.common.zoneout = h;
        self.options.zoneout_c = c;
        self
    }

    /// Replaces tanh in `h_t = o_t ∘ tanh(c_t)` by `f`: ONNX's h. Keras has one `activation` for this and for
    /// [`candidate_activation`](CellBuilder::candidate_activation).
    ///
    /// The gradient of the memory is then `dc_t = dc⁺ + dh_t ∘ o_t ∘ f'(c_t)`.
    ///
    /// # Panics
    /// [`build`](CellBuilder::build) panics if a number in `f` is not finite.
    #[track_caller]
    pub fn output_activation(mut self, f: Nonlinearity) -> Self {
        self.options.output_activation = f;
        self
    }

    /// The initialization of the projection's weight.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn weight_hr(self, init: impl Into<Init>) -> Self {
        self.init("weight_hr", init)
    }

    /// The initialization of the input gate's bias.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn input_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("input_bias", INPUT, init)
    }

    /// The initialization of the forget gate's bias: with `b`, each step multiplies an unused memory by `σ(b)`.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn forget_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("forget_bias", FORGET, init)
    }

    /// The initialization of the bias of `g`, the candidate.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn cell_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("cell_bias", CELL, init)
    }

    /// The initialization of the output gate's bias.
    ///
    /// # Panics
    /// Panics if a number in `init` is invalid: see [`Init::fill`].
    #[track_caller]
    pub fn output_bias(self, init: impl Into<Init>) -> Self {
        self.gate_init("output_bias", OUTPUT, init)
    }
}
