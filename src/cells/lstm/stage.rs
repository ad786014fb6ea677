//! An LSTM in a stream.

use super::LstmCell;
use super::equations;
use super::options::{CELL, FORGET, INPUT, LstmOptions, OUTPUT};
use crate::cells::activations::{Chosen, STANDARD};
use crate::cells::options::CommonOptions;
use crate::cells::stage::{CellStage, FEW, Gates, UnitSum, Units};
use crate::cells::weights::bias_of;
use crate::kernels::math::Fraction;
use crate::kernels::row_product::LANES;
use crate::kernels::{Float, once};
use crate::layer::Stage;

once! {
    /// The stage of a plain LSTM; `None` if its options change what inference computes.
    pub(super) fn stage<'a, F: Float>(cell: &'a LstmCell<F>) -> Option<Box<dyn Stage<F>>> {
        let LstmOptions {
            peepholes,
            coupled,
            projection,
            recurrent_dropout: _,
            heads,
            zoneout_c,
            gate_activation: gate,
            candidate_activation: candidate,
            output_activation: output,
            clip,
            common,
        } = cell.options();
        let CommonOptions { bias: _, layer_norm, zoneout } = common;
        let plain = !peepholes && !coupled && projection.is_none() && heads == 1 && layer_norm.is_none();
        let plain = plain && zoneout == 0.0 && zoneout_c == 0.0 && Chosen { gate, candidate, output, clip } == STANDARD;
        let (input, hidden) = (cell.input_size(), cell.hidden_size());
        let (weight_ih, weight_hh) = (cell.weight_ih.as_slice()?, cell.weight_hh.as_slice()?);
        plain.then(|| {
            CellStage::<F, LstmUnits>::boxed(input, hidden, &|gate, unit| {
                let row = gate * hidden + unit;
                UnitSum {
                    bias: bias_of(&cell.bias_ih, row) + bias_of(&cell.bias_hh, row),
                    weight_ih: Some(&weight_ih[row * input..][..input]),
                    weight_hh: Some(&weight_hh[row * hidden..][..hidden]),
                }
            })
        })
    }
}

/// The sums of a unit are those of its four gates.
struct LstmUnits;

impl<F: Float> Units<F> for LstmUnits {
    const SUMS: usize = 4;
    const FROM_H: usize = 4;
    const MEMORY: bool = true;

    #[inline(always)]
    fn many(a: &[[F; LANES]], _: &[[F; LANES]], h: &mut [F; LANES], c: &mut [F; LANES]) {
        let a: &[[F; LANES]; 4] = a.try_into().expect("four gates");
        for u in 0..LANES {
            let sigmoid = |gate: usize| Fraction::sigmoid(a[gate][u]);
            let g = Fraction::tanh(a[CELL][u]);
            [c[u], h[u]] = equations::step([sigmoid(INPUT), sigmoid(FORGET), g, sigmoid(OUTPUT)], c[u]);
        }
    }

    #[inline(always)]
    fn few(a: &[F; LANES], h: &mut [F; FEW], c: &mut [F; FEW]) {
        let times = std::array::from_fn(|lane| F::of(if lane / FEW == CELL { 2.0 } else { 1.0 }));
        let gates = Gates::new(a, times);
        for u in 0..FEW {
            let gate = |gate| gates.of(gate, u);
            [c[u], h[u]] = equations::step([gate(INPUT), gate(FORGET), gate(CELL), gate(OUTPUT)], c[u]);
        }
    }
}
