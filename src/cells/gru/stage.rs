//! A GRU in a stream.

use super::GruCell;
use super::equations;
use super::options::{GruOptions, GruReset};
use crate::cells::activations::{Chosen, STANDARD};
use crate::cells::options::CommonOptions;
use crate::cells::stage::{CellStage, FEW, Gates, UnitSum, Units};
use crate::cells::weights::bias_of;
use crate::kernels::math::Fraction;
use crate::kernels::row_product::LANES;
use crate::kernels::{Float, once};
use crate::layer::Stage;

once! {
    /// The stage of a GRU that resets after the product; `None` if its options change what inference computes.
    pub(super) fn stage<'a, F: Float>(cell: &'a GruCell<F>) -> Option<Box<dyn Stage<F>>> {
        let GruOptions { reset, recurrent_dropout: _, heads, gate_activation, candidate_activation, clip, common } =
            cell.options();
        let CommonOptions { bias: _, layer_norm, zoneout } = common;
        let activations = Chosen { gate: gate_activation, candidate: candidate_activation, clip, ..STANDARD };
        let plain = reset == GruReset::AfterProduct && heads == 1 && layer_norm.is_none();
        let plain = plain && zoneout == 0.0 && activations == STANDARD;
        let (input, hidden) = (cell.input_size(), cell.hidden_size());
        let (weight_ih, weight_hh) = (cell.weight_ih.as_slice()?, cell.weight_hh.as_slice()?);
        plain.then(|| {
            CellStage::<F, GruUnits>::boxed(input, hidden, &|sum, unit| {
                // r, z, and the two parts of n: s from h and a_n from x
                let row = sum.min(2) * hidden + unit;
                let (bias_ih, bias_hh) = (bias_of(&cell.bias_ih, row), bias_of(&cell.bias_hh, row));
                UnitSum {
                    bias: [bias_ih + bias_hh, bias_ih + bias_hh, bias_hh, bias_ih][sum],
                    weight_ih: (sum != S).then(|| &weight_ih[row * input..][..input]),
                    weight_hh: (sum != A_N).then(|| &weight_hh[row * hidden..][..hidden]),
                }
            })
        })
    }
}

/// The sums of a unit.
const A_R: usize = 0;
const A_Z: usize = 1;
const S: usize = 2;
const A_N: usize = 3;

/// The sums of a unit are those of r and z, and two of n.
struct GruUnits;

impl<F: Float> Units<F> for GruUnits {
    const SUMS: usize = 4;
    const FROM_H: usize = 3;
    const MEMORY: bool = false;

    #[inline(always)]
    fn many(from_h: &[[F; LANES]], from_x: &[[F; LANES]], h: &mut [F; LANES], _: &mut [F; LANES]) {
        let from_h: &[[F; LANES]; 3] = from_h.try_into().expect("three sums");
        let a_n = &from_x[0];
        for u in 0..LANES {
            let sigmoid = |sum: usize| Fraction::sigmoid(from_h[sum][u]);
            h[u] = equations::step([sigmoid(A_R), sigmoid(A_Z)], from_h[S][u], a_n[u], h[u]);
        }
    }

    #[inline(always)]
    fn few(sums: &[F; LANES], h: &mut [F; FEW], _: &mut [F; FEW]) {
        let gates = Gates::new(sums, [F::one(); LANES]); // also for n's sums, which are not gates
        for u in 0..FEW {
            let (s, a_n) = (sums[S * FEW + u], sums[A_N * FEW + u]);
            h[u] = equations::step([gates.of(A_R, u), gates.of(A_Z, u)], s, a_n, h[u]);
        }
    }
}
