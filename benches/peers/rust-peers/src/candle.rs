//! candle-nn: its `LSTM` and `GRU`, and residual blocks of its layers; gradients by its `backward`.

use std::collections::HashMap;
use std::hint::black_box;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::rnn::{GRU, GRUConfig, LSTM, LSTMConfig, RNN};
use candle_nn::{Linear, VarBuilder, ops};
use protocol::{Cell, Dtype, Mode, Peer, Point, Tensor as Values, Tensors, Training, Work};

use crate::candle_steps::Steps;
use crate::layout::swapped;
use crate::version::locked;

pub struct Candle;

impl Peer for Candle {
    fn version(&self) -> String {
        format!("candle-nn {} (gemm)", locked("candle-nn"))
    }

    fn prepare(&self, point: &Point, given: &Tensors) -> std::result::Result<Box<dyn Work>, String> {
        if point.cell == Cell::Rnn {
            return Err("no plain RNN".into());
        }
        if point.mode == Mode::Step {
            let steps = Steps::new(point, given).map_err(|error| error.to_string())?;
            return Ok(Box::new(Training::new(steps)));
        }
        Ok(Box::new(Run::new(point, given).map_err(|error| error.to_string())?))
    }
}

enum Model {
    Lstm(LSTM),
    Gru(GRU),
    Blocks(Vec<Block>),
}

pub struct Block {
    norm: (Tensor, Tensor),
    fc1: Linear,
    fc2: Linear,
}

struct Run {
    mode: Mode,
    model: Model,
    parameters: Vec<(String, Var)>,
    x: Var, // [B, T, I], or the rows [B, I] of residual blocks
    dy: Option<Tensor>,
}

const EPSILON: f32 = 1e-5;

pub fn tensor(values: &Values, dtype: DType) -> Result<Tensor> {
    Tensor::from_slice(&values.values, values.shape.clone(), &Device::Cpu)?.to_dtype(dtype)
}

pub fn values(tensor: &Tensor) -> Result<Values> {
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    Ok(Values::new(tensor.dims(), values))
}

impl Run {
    fn new(point: &Point, given: &Tensors) -> Result<Self> {
        let dtype = if point.dtype == Dtype::F32 { DType::F32 } else { DType::F64 };
        let parameters = point.parameters().into_iter().map(|(name, _)| {
            let var = Var::from_tensor(&tensor(given.get(&format!("param.{name}")), dtype)?)?;
            Ok((name, var))
        });
        let parameters = parameters.collect::<Result<Vec<_>>>()?;
        // Without gradients nothing is recorded.
        let trains = point.mode == Mode::Train;
        let used = |var: &Var| if trains { var.as_tensor().clone() } else { var.as_detached_tensor() };
        let named: HashMap<String, Tensor> = parameters.iter().map(|(name, var)| (name.clone(), used(var))).collect();
        let model = match point.cell {
            Cell::Residual => Model::Blocks((0..point.depth).map(|k| Block::new(k, &named)).collect()),
            cell => {
                let builder = VarBuilder::from_tensors(named, dtype, &Device::Cpu);
                match cell {
                    Cell::Lstm => Model::Lstm(LSTM::new(point.input, point.hidden, LSTMConfig::default(), builder)?),
                    _ => Model::Gru(GRU::new(point.input, point.hidden, GRUConfig::default(), builder)?),
                }
            }
        };
        let input = |name: &str| {
            let values = given.get(name);
            match point.cell {
                Cell::Residual => tensor(values, dtype)?.squeeze(0),
                _ => tensor(&swapped(values), dtype),
            }
        };
        let dy = if trains { Some(input("dy")?) } else { None };
        Ok(Run { mode: point.mode, model, parameters, x: Var::from_tensor(&input("x")?)?, dy })
    }

    fn forward(&self) -> Result<Tensor> {
        let x = if self.mode == Mode::Train { self.x.as_tensor().clone() } else { self.x.as_detached_tensor() };
        match &self.model {
            Model::Lstm(lstm) => lstm.states_to_tensor(&lstm.seq(&x)?),
            Model::Gru(gru) => {
                // Its own `states_to_tensor` gives [B, T H].
                let states = gru.seq(&x)?;
                Tensor::stack(&states.iter().map(|state| state.h()).collect::<Vec<_>>(), 1)
            }
            Model::Blocks(blocks) => blocks.iter().try_fold(x, |x, block| block.forward(&x, self.mode)),
        }
    }

    fn train(&self, dy: &Tensor) -> Result<(Tensor, GradStore)> {
        let y = self.forward()?;
        let grads = (&y * dy)?.sum_all()?.backward()?;
        Ok((y, grads))
    }

    /// In the driver's order.
    fn given_order(&self, tensor: &Tensor) -> Result<Values> {
        match self.model {
            Model::Blocks(_) => values(&tensor.unsqueeze(0)?),
            _ => Ok(swapped(&values(tensor)?)),
        }
    }

    fn all_outputs(&self) -> Result<Tensors> {
        let mut outputs = Tensors::default();
        let Some(dy) = &self.dy else {
            outputs.insert("y", self.given_order(&self.forward()?)?);
            return Ok(outputs);
        };
        let (y, grads) = self.train(dy)?;
        outputs.insert("y", self.given_order(&y)?);
        let grad = |var: &Var| grads.get(var).cloned().map_or_else(|| var.zeros_like(), Ok);
        outputs.insert("dx", self.given_order(&grad(&self.x)?)?);
        for (name, var) in &self.parameters {
            outputs.insert(format!("grad.{name}"), values(&grad(var)?)?);
        }
        Ok(outputs)
    }
}

impl Block {
    /// The block of this index, with its parameters.
    pub fn new(k: usize, parameters: &HashMap<String, Tensor>) -> Self {
        let get = |name: &str| parameters[&format!("{k}.{name}")].clone();
        Block {
            norm: (get("norm.weight"), get("norm.bias")),
            fc1: Linear::new(get("fc1.weight"), Some(get("fc1.bias"))),
            fc2: Linear::new(get("fc2.weight"), Some(get("fc2.bias"))),
        }
    }

    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let (weight, bias) = &self.norm;
        // The fast one has no backward.
        let normalised = match mode {
            Mode::Infer => ops::layer_norm(x, weight, bias, EPSILON)?,
            Mode::Train | Mode::Step => ops::layer_norm_slow(x, weight, bias, EPSILON)?,
        };
        x + self.fc2.forward(&self.fc1.forward(&normalised)?.gelu_erf()?)?
    }
}

impl Work for Run {
    fn run(&mut self) {
        match &self.dy {
            Some(dy) => drop(black_box(self.train(dy).expect("it ran before"))),
            None => drop(black_box(self.forward().expect("it ran before"))),
        }
    }

    fn outputs(&mut self) -> Tensors {
        self.all_outputs().unwrap_or_else(|error| panic!("candle: {error}"))
    }
}
