//! A plain recurrent cell in a stream.

use super::RnnCell;
use super::options::RnnOptions;
use crate::cells::options::CommonOptions;
use crate::cells::stage::{CellStage, FEW, UnitSum, Units};
use crate::cells::weights::bias_of;
use crate::kernels::math::{Fraction, relu};
use crate::kernels::row_product::LANES;
use crate::kernels::{Float, once};
use crate::layer::Stage;
use crate::layers::Nonlinearity;

once! {
    /// The stage of a plain cell; `None` if its options change what inference computes.
    pub(super) fn stage<'a, F: Float>(cell: &'a RnnCell<F>) -> Option<Box<dyn Stage<F>>> {
        let RnnOptions { nonlinearity, clip, recurrent_dropout: _, heads, common } = cell.options();
        let CommonOptions { bias: _, layer_norm, zoneout } = common;
        let (input, hidden) = (cell.input_size(), cell.hidden_size());
        let (weight_ih, weight_hh) = (cell.weight_ih.as_slice()?, cell.weight_hh.as_slice()?);
        let sum = |_, unit: usize| UnitSum {
            bias: bias_of(&cell.bias_ih, unit) + bias_of(&cell.bias_hh, unit),
            weight_ih: Some(&weight_ih[unit * input..][..input]),
            weight_hh: Some(&weight_hh[unit * hidden..][..hidden]),
        };
        match nonlinearity {
            _ if heads != 1 || layer_norm.is_some() || zoneout != 0.0 || clip.is_some() => None,
            Nonlinearity::Tanh => Some(CellStage::<F, RnnUnits<false>>::boxed(input, hidden, &sum)),
            Nonlinearity::Relu => Some(CellStage::<F, RnnUnits<true>>::boxed(input, hidden, &sum)),
            _ => None,
        }
    }
}

/// A unit has one sum, to which it applies relu or tanh.
struct RnnUnits<const RELU: bool>;

impl<const RELU: bool> RnnUnits<RELU> {
    #[inline(always)]
    fn activate<F: Float, const N: usize>(a: &[F; N], h: &mut [F; N]) {
        for u in 0..N {
            h[u] = if RELU { relu(a[u]) } else { Fraction::tanh(a[u]).value() };
        }
    }
}

impl<F: Float, const RELU: bool> Units<F> for RnnUnits<RELU> {
    const SUMS: usize = 1;
    const FROM_H: usize = 1;
    const MEMORY: bool = false;

    #[inline(always)]
    fn many(a: &[[F; LANES]], _: &[[F; LANES]], h: &mut [F; LANES], _: &mut [F; LANES]) {
        Self::activate(&a[0], h);
    }

    #[inline(always)]
    fn few(a: &[F; LANES], h: &mut [F; FEW], _: &mut [F; FEW]) {
        Self::activate(a.first_chunk().expect("four units"), h);
    }
}
