//! Whole training steps by candle-nn: its layers, losses and `AdamW`; clipping is written by hand, as it has none.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::rnn::{GRU, GRUConfig, GRUState, LSTM, LSTMConfig, LSTMState, RNN};
use candle_nn::{AdamW, Embedding, Linear, Optimizer, ParamsAdamW, VarBuilder, loss};
use protocol::{Cell, Mode, Point, Tensor as Values, Tensors, Trainer};

use crate::candle::{Block, tensor, values};
use crate::layout::transposed;

pub struct Steps {
    point: Point,
    model: Model,
    parameters: Vec<(String, Var)>,
    start: Vec<Tensor>,
    batches: Vec<[Tensor; 2]>,
    optimizer: AdamW,
}

enum Model {
    Language { embedding: Embedding, layers: Vec<Recurrent>, head: Linear },
    Blocks(Vec<Block>),
}

/// A layer with the state that it carries.
enum Recurrent {
    Lstm(LSTM, LSTMState),
    Gru(GRU, GRUState),
}

impl Recurrent {
    fn set_zero(&mut self, batch: usize) -> Result<()> {
        match self {
            Recurrent::Lstm(lstm, state) => *state = lstm.zero_state(batch)?,
            Recurrent::Gru(gru, state) => *state = gru.zero_state(batch)?,
        }
        Ok(())
    }

    /// `[B, T, I]` to `[B, T, H]`; the last state is carried, without its history.
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let hidden: Vec<Tensor> = match self {
            Recurrent::Lstm(lstm, state) => {
                let states = lstm.seq_init(x, state)?;
                let last = states.last().expect("at least one step");
                *state = LSTMState::new(last.h().detach(), last.c().detach());
                states.iter().map(|state| state.h().clone()).collect()
            }
            Recurrent::Gru(gru, state) => {
                let states = gru.seq_init(x, state)?;
                *state = GRUState { h: states.last().expect("at least one step").h().detach() };
                states.iter().map(|state| state.h().clone()).collect()
            }
        };
        Tensor::stack(&hidden, 1)
    }
}

fn optimizer(point: &Point, parameters: &[(String, Var)]) -> Result<AdamW> {
    // Without decay AdamW is Adam.
    let weight_decay = if point.vocabulary > 0 { 0.01 } else { 0.0 };
    let settings = ParamsAdamW { lr: Point::LEARNING_RATE, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay };
    AdamW::new(parameters.iter().map(|(_, var)| var.clone()).collect(), settings)
}

/// Ids `[T, B]` as `[B, T]`.
fn ids(values: &Values) -> Result<Tensor> {
    let ids = transposed(values);
    Tensor::from_iter(ids.values.iter().map(|&id| id as u32), &Device::Cpu)?.reshape(ids.shape)
}

impl Steps {
    pub fn new(point: &Point, given: &Tensors) -> Result<Self> {
        let parameters = point.parameters().into_iter().map(|(name, _)| {
            let var = Var::from_tensor(&tensor(given.get(&format!("param.{name}")), DType::F32)?)?;
            Ok((name, var))
        });
        let parameters = parameters.collect::<Result<Vec<_>>>()?;
        let start = parameters.iter().map(|(_, var)| var.as_detached_tensor().copy());
        let start = start.collect::<Result<Vec<_>>>()?;
        let named: HashMap<String, Tensor> =
            parameters.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let (x, targets) = (given.get("x").parts(), given.get("targets").parts());
        let batches = x.zip(targets).map(|(x, targets)| match point.cell {
            Cell::Residual => Ok([tensor(&x, DType::F32)?.squeeze(0)?, tensor(&targets, DType::F32)?.squeeze(0)?]),
            _ => Ok([ids(&x)?, ids(&targets)?.flatten_all()?]),
        });
        let batches = batches.collect::<Result<Vec<_>>>()?;
        let model = if point.cell == Cell::Residual {
            Model::Blocks((0..point.depth).map(|k| Block::new(k, &named)).collect())
        } else {
            let get = |name: &str| named[name].clone();
            let embedding = Embedding::new(get("0.weight"), point.input);
            let head = Linear::new(get("2.weight"), Some(get("2.bias")));
            let builder = VarBuilder::from_tensors(named.clone(), DType::F32, &Device::Cpu).pp("1");
            let layer = |k: usize| {
                let (input, hidden) = (if k == 0 { point.input } else { point.hidden }, point.hidden);
                if point.cell == Cell::Lstm {
                    let config = LSTMConfig { layer_idx: k, ..LSTMConfig::default() };
                    let lstm = LSTM::new(input, hidden, config, builder.clone())?;
                    let state = lstm.zero_state(point.batch)?;
                    return Ok(Recurrent::Lstm(lstm, state));
                }
                let gru = GRU::new(input, hidden, GRUConfig::default(), builder.clone())?;
                let state = gru.zero_state(point.batch)?;
                Ok(Recurrent::Gru(gru, state))
            };
            Model::Language { embedding, layers: (0..point.depth).map(layer).collect::<Result<_>>()?, head }
        };
        let optimizer = optimizer(point, &parameters)?;
        Ok(Steps { point: *point, model, parameters, start, batches, optimizer })
    }

    fn try_restart(&mut self) -> Result<()> {
        for ((_, var), start) in self.parameters.iter().zip(&self.start) {
            var.set(start)?;
        }
        if let Model::Language { layers, .. } = &mut self.model {
            layers.iter_mut().try_for_each(|layer| layer.set_zero(self.point.batch))?;
        }
        self.optimizer = optimizer(&self.point, &self.parameters)?;
        Ok(())
    }

    fn try_step(&mut self, batch: usize) -> Result<f64> {
        let [x, targets] = &self.batches[batch];
        let (loss, clips) = match &mut self.model {
            Model::Language { embedding, layers, head } => {
                let x = embedding.forward(x)?;
                let y = layers.iter_mut().try_fold(x, |x, layer| layer.forward(&x))?;
                let logits = head.forward(&y)?.flatten_to(1)?;
                (loss::cross_entropy(&logits, targets)?, true)
            }
            Model::Blocks(blocks) => {
                let y = blocks.iter().try_fold(x.clone(), |x, block| block.forward(&x, Mode::Step))?;
                (loss::mse(&y, targets)?, false)
            }
        };
        let mut grads = loss.backward()?;
        if clips {
            self.clip(&mut grads)?;
        }
        self.optimizer.step(&grads)?;
        loss.to_scalar::<f32>().map(f64::from)
    }

    /// Clips by the norm of all gradients together.
    fn clip(&self, grads: &mut GradStore) -> Result<()> {
        let mut squares = 0.0;
        for (_, var) in &self.parameters {
            if let Some(grad) = grads.get(var) {
                squares += f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?);
            }
        }
        let factor = Point::CLIP_NORM / (squares.sqrt() + 1e-6);
        if factor < 1.0 {
            for (_, var) in &self.parameters {
                if let Some(grad) = grads.remove(var) {
                    grads.insert(var, (grad * factor)?);
                }
            }
        }
        Ok(())
    }
}

impl Trainer for Steps {
    fn restart(&mut self) {
        self.try_restart().expect("it was made like this");
    }

    fn step(&mut self, batch: usize) -> f64 {
        self.try_step(batch).unwrap_or_else(|error| panic!("candle: {error}"))
    }

    fn parameters(&mut self) -> Tensors {
        let mut parameters = Tensors::default();
        for (name, var) in &self.parameters {
            parameters.insert(format!("param.{name}"), values(var).expect("floats"));
        }
        parameters
    }
}
