//! What the options of all cells have in common.

use std::fmt::Debug;

use crate::base::{Init, RandomDrop};
use crate::recurrence::Zoneout;

/// The f of a plain recurrent cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RnnNonlinearity {
    /// `tanh(a)`
    #[default]
    Tanh,
    /// `max(a, 0)`
    Relu,
}

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
    /// Those that every cell has.
    #[doc(hidden)]
    fn common(&mut self) -> &mut CommonOptions;

    /// All that are probabilities, with the name of the builder's method.
    #[doc(hidden)]
    fn probabilities(&self) -> Vec<(&'static str, f64)>;
}

/// Options of a cell with a product of h at every step; sealed.
pub trait RecurrentProduct: CellOptions {
    /// The probability of recurrent dropout.
    #[doc(hidden)]
    fn recurrent_dropout(&mut self) -> &mut f64;
}

/// Options of a cell whose state is h alone; sealed.
pub trait WithoutMemory: CellOptions {}

/// Options of a cell with a gate that keeps the state; sealed.
pub trait Gated: CellOptions {
    /// How biases of gates start so that units keep their state for 1 to `t_max` steps, `keep` being the bias of a gate that
    /// keeps.
    #[doc(hidden)]
    fn chrono(keep: Init) -> Vec<(usize, Start)>;
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub enum Start {
    Init(Init),
    /// As the negative of such values.
    Negative(Init),
    /// As the negative of another gate's bias.
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
