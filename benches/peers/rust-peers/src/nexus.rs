//! nexus-inference's cells with their dense head, one step after another.

use std::slice::from_ref;

use nexus_inference::{TinyGru, TinyLstm};
use protocol::{Cell, Dtype, Mode, Peer, Point, Steps, Streaming, Tensor, Tensors, Work};

use crate::version::locked;

pub struct Nexus;

impl Peer for Nexus {
    fn version(&self) -> String {
        // It chooses its instructions when it is compiled.
        let instructions = match (cfg!(target_feature = "avx512f"), cfg!(target_feature = "avx2")) {
            (true, _) => "AVX512",
            (false, true) => "AVX2",
            (false, false) => "scalar",
        };
        format!("nexus-inference {} ({instructions})", locked("nexus-inference"))
    }

    fn prepare(&self, point: &Point, given: &Tensors) -> Result<Box<dyn Work>, String> {
        let head = ["weight", "bias"].map(|name| given.0.get(&format!("param.head.{name}")).map(Tensor::f32));
        let [Some(w_out), Some(b_out)] = &head else { return Err("it has no cell without a dense head".into()) };
        if point.mode != Mode::Infer || point.dtype != Dtype::F32 || point.batch != 1 {
            return Err("it has f32 inference of one sequence alone".into());
        }
        let parts = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"];
        let [w_ih, w_hh, b_ih, b_hh] = &parts.map(|name| given.get(&format!("param.{name}_l0")).f32());
        let &Point { input, hidden, .. } = point;
        match point.cell {
            Cell::Lstm => {
                let model = TinyLstm::from_parts(input, hidden, 1, w_ih, w_hh, b_ih, b_hh, w_out, b_out);
                let model = model.map_err(|error| error.to_string())?;
                Ok(Box::new(Streaming::new(OneByOne(model), point, given)))
            }
            Cell::Gru => {
                let model = TinyGru::from_parts(input, hidden, 1, w_ih, w_hh, b_ih, b_hh, w_out, b_out);
                let model = model.map_err(|error| error.to_string())?;
                Ok(Box::new(Streaming::new(OneByOne(model), point, given)))
            }
            Cell::Rnn | Cell::Residual => Err("it has LSTM and GRU alone".into()),
        }
    }
}

/// A model that takes a step a call: it has no blocks.
struct OneByOne<M>(M);

/// Its models have no trait with `reset`.
macro_rules! one_by_one {
    ($($model:ty),*) => {$(
        impl Steps for OneByOne<$model> {
            fn reset(&mut self) {
                self.0.reset();
            }

            fn steps(&mut self, x: &[f32], y: &mut [f32]) {
                x.iter().zip(y).for_each(|(x, y)| *y = self.0.predict(from_ref(x)));
            }
        }
    )*};
}

one_by_one!(TinyLstm, TinyGru);
