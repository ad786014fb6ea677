//! The options that all cells have in common, and traits over the options of a cell.

use std::fmt::Debug;

use crate::base::{Init, RandomDrop};
use crate::layers::Nonlinearity;
use crate::recurrence::Zoneout;

/// The options that every cell has.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CommonOptions {
    /// Whether there are biases.
    pub bias: bool,
    /// The eps of layer normalisation, if there is any.
    pub layer_norm: Option<f64>,
    /// The probability of [`Zoneout`](crate::recurrent::Zoneout) for a unit of h.
    pub zoneout: f64,
}

impl Default for CommonOptions {
    fn default() -> Self {
        CommonOptions { bias: true, layer_norm: None, zoneout: 0.0 }
    }
}

/// The eps of layer normalisation, unless another is chosen.
pub(super) const DEFAULT_EPS: f64 = 1e-5;

/// The options of a cell, one struct for each; sealed.
pub trait CellOptions: Clone + Debug + Default + PartialEq {
    /// The options that every cell has.
    #[doc(hidden)]
    fn common(&mut self) -> &mut CommonOptions;

    /// The options that are probabilities, with the names of their builder methods.
    #[doc(hidden)]
    fn probabilities(&self) -> Vec<(&'static str, f64)>;

    /// The options that are functions, with the names of their builder methods.
    #[doc(hidden)]
    fn activations(&self) -> Vec<(&'static str, Nonlinearity)> {
        Vec::new()
    }

    /// The limit to which sums are clipped, if any.
    #[doc(hidden)]
    fn clip(&self) -> Option<f64> {
        None
    }
}

/// Options of a cell whose sums can be clipped; sealed.
pub trait Activated: CellOptions {
    /// The limit to which sums are clipped, if any.
    #[doc(hidden)]
    fn clip_mut(&mut self) -> &mut Option<f64>;
}

/// Options of a cell whose gates and candidate can have other functions than σ and tanh; sealed.
pub trait GatedActivations: Activated {
    /// The functions of the gates and of the candidate.
    #[doc(hidden)]
    fn gate_and_candidate(&mut self) -> [&mut Nonlinearity; 2];
}

/// Options of a cell with a product of h at every step; sealed.
pub trait RecurrentProduct: CellOptions {
    /// The probability of recurrent dropout.
    #[doc(hidden)]
    fn recurrent_dropout(&mut self) -> &mut f64;

    /// The number of heads.
    #[doc(hidden)]
    fn heads(&mut self) -> &mut usize;
}

/// Options of a cell with zoneout for h alone; sealed.
pub trait HiddenZoneout: CellOptions {}

/// Options of a cell with a gate that keeps the state; sealed.
pub trait Gated: CellOptions {
    /// The initialization of gate biases with which units keep their state for 1 to `t_max` steps. `keep` is that of the bias of a
    /// gate that keeps.
    #[doc(hidden)]
    fn chrono(keep: Init) -> Vec<(usize, Start)>;
}

/// The initialization of a parameter.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub enum Start {
    Init(Init),
    /// The negative of such values.
    Negative(Init),
    /// The negative of another gate's bias.
    NegativeOf(usize),
}

/// The probability of recurrent dropout.
pub(super) fn probability(drop: Option<RandomDrop>) -> f64 {
    drop.map_or(0.0, |drop| drop.p)
}

/// The probabilities of zoneout for h and c.
pub(super) fn probabilities(zoneout: Option<Zoneout>) -> [f64; 2] {
    zoneout.map_or([0.0; 2], |zoneout| [zoneout.h.p, zoneout.c.p])
}
