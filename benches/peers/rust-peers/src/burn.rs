//! Burn on its CPU backend Flex: `Lstm`, `Gru`, `Rnn`, and residual blocks of its layers; gradients by its autodiff.

use std::hint::black_box;

use burn::module::{Module, Param};
use burn::nn::{
    GateController, Gelu, Gru, GruConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, Lstm, LstmConfig,
    LstmState, Rnn, RnnConfig, RnnState,
};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use protocol::{Cell, Dtype, Mode, Peer, Point, Tensor as Values, Tensors, Training, Work};

use crate::burn_steps::Steps;
use crate::layout::{block, joined, swapped, transposed};
use crate::version::locked;

pub struct Burn;

impl Peer for Burn {
    fn version(&self) -> String {
        format!("burn {} (flex)", locked("burn"))
    }

    fn prepare(&self, point: &Point, given: &Tensors) -> Result<Box<dyn Work>, String> {
        if point.dtype == Dtype::F64 {
            return Err("its recurrent layers start from f32 tensors".into());
        }
        if point.mode == Mode::Step {
            return Ok(Box::new(Training::new(Steps::new(point, given))));
        }
        Ok(Box::new(Run::new(point, given)))
    }
}

enum Model {
    Recurrent(Recurrent),
    Blocks(Vec<Block>),
}

#[derive(Module, Debug)]
pub enum Recurrent {
    Lstm(Lstm),
    Gru(Gru),
    Rnn(Rnn),
}

/// h, and an LSTM's c: `[B, H]`.
pub type State = (Tensor<2>, Option<Tensor<2>>);

#[derive(Module, Debug)]
pub struct Block {
    pub norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

struct Run {
    point: Point,
    model: Model,
    x: Tensor<3>, // [T, B, I]; a GRU's is [B, T, I], the only one it takes
    dy: Option<Tensor<3>>,
}

pub fn tensor<const D: usize>(values: &Values, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.f32(), values.shape.clone()), device)
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Values {
    let shape = tensor.dims();
    let values: Vec<f32> = tensor.into_data().try_to_vec().expect("f32");
    Values::new(shape, values.into_iter().map(f64::from))
}

pub fn fill(linear: &mut Linear, weight: &Values, bias: &Values, device: &Device) {
    // The rows of Burn's weight are input features.
    linear.weight = Param::from_tensor(tensor(&transposed(weight), device));
    linear.bias = Some(Param::from_tensor(tensor(bias, device)));
}

/// The two products of a gate, by PyTorch's names.
const TRANSFORMS: [(&str, fn(&GateController) -> &Linear); 2] =
    [("ih", |gate| &gate.input_transform), ("hh", |gate| &gate.hidden_transform)];

impl Recurrent {
    /// Layer `k`, with the parameters that `parameter` finds by PyTorch's names.
    pub fn new<'a>(point: &Point, k: usize, parameter: impl Fn(&str) -> &'a Values, device: &Device) -> Self {
        let (input, hidden) = (if k == 0 { point.input } else { point.hidden }, point.hidden);
        let mut layer = match point.cell {
            Cell::Lstm => Recurrent::Lstm(LstmConfig::new(input, hidden, true).with_batch_first(false).init(device)),
            Cell::Gru => Recurrent::Gru(GruConfig::new(input, hidden, true).init(device)),
            Cell::Rnn => Recurrent::Rnn(RnnConfig::new(input, hidden, true).with_batch_first(false).init(device)),
            Cell::Residual => unreachable!("not recurrent"),
        };
        let gates = layer.gates();
        let count = gates.len();
        for (i, gate) in gates.into_iter().enumerate() {
            let part = |name: &str| block(parameter(&format!("{name}_l{k}")), i, count);
            fill(&mut gate.input_transform, &part("weight_ih"), &part("bias_ih"), device);
            fill(&mut gate.hidden_transform, &part("weight_hh"), &part("bias_hh"), device);
        }
        layer
    }

    /// In PyTorch's order.
    fn gates(&mut self) -> Vec<&mut GateController> {
        match self {
            Recurrent::Lstm(lstm) => {
                let forget = lstm.forget_gate.as_mut().expect("not coupled");
                vec![&mut lstm.input_gate, forget, &mut lstm.cell_gate, &mut lstm.output_gate]
            }
            Recurrent::Gru(gru) => vec![&mut gru.reset_gate, &mut gru.update_gate, &mut gru.new_gate],
            Recurrent::Rnn(rnn) => vec![&mut rnn.gate],
        }
    }

    /// The values that `of` gives for weight and bias of each product, by PyTorch's names.
    pub fn each(&mut self, k: usize, of: impl Fn(&Linear) -> [Values; 2]) -> Vec<(String, Values)> {
        let gates = self.gates();
        let both = TRANSFORMS.into_iter().flat_map(|(name, transform)| {
            let parts = gates.iter().map(|gate| of(transform(gate)));
            let (weights, biases): (Vec<_>, Vec<_>) = parts.map(|[weight, bias]| (weight, bias)).unzip();
            [(format!("weight_{name}_l{k}"), joined(&weights)), (format!("bias_{name}_l{k}"), joined(&biases))]
        });
        both.collect()
    }

    /// `x` in the [`order`] of the layer.
    pub fn forward(&self, x: Tensor<3>, state: Option<State>) -> (Tensor<3>, State) {
        match self {
            Recurrent::Lstm(lstm) => {
                let state = state.map(|(h, c)| LstmState::new(c.expect("an LSTM's"), h));
                let (y, state) = lstm.forward(x, state);
                (y, (state.hidden, Some(state.cell)))
            }
            Recurrent::Gru(gru) => {
                let y = gru.forward(x, state.map(|(h, _)| h));
                let last = y.dims()[1] - 1;
                (y.clone(), (y.narrow(1, last, 1).squeeze_dim(1), None))
            }
            Recurrent::Rnn(rnn) => {
                let (y, state) = rnn.forward(x, state.map(|(h, _)| RnnState::new(h)));
                (y, (state.hidden, None))
            }
        }
    }
}

impl Run {
    fn new(point: &Point, given: &Tensors) -> Self {
        let trains = point.mode == Mode::Train;
        let device = if trains { Device::flex().autodiff() } else { Device::flex() };
        let parameter = |name: &str| given.get(&format!("param.{name}"));
        let model = match point.cell {
            Cell::Residual => {
                Model::Blocks((0..point.depth).map(|k| Block::new(point, k, parameter, &device)).collect())
            }
            _ => Model::Recurrent(Recurrent::new(point, 0, parameter, &device)),
        };
        let sequence = |name: &str| tensor(&order(point, given.get(name)), &device);
        let x = if trains { sequence("x").require_grad() } else { sequence("x") };
        Run { point: *point, model, x, dy: trains.then(|| sequence("dy")) }
    }

    fn forward(&self) -> Tensor<3> {
        let x = self.x.clone();
        match &self.model {
            Model::Recurrent(layer) => layer.forward(x, None).0,
            Model::Blocks(blocks) => blocks.iter().fold(x, |x, block| block.forward(x)),
        }
    }

    fn train(&self, dy: &Tensor<3>) -> (Tensor<3>, Gradients) {
        let y = self.forward();
        let gradients = (y.clone() * dy.clone()).sum().backward();
        (y, gradients)
    }
}

/// Batch first if the layer takes nothing else; its own inverse.
pub fn order(point: &Point, values: &Values) -> Values {
    if point.cell == Cell::Gru { swapped(values) } else { values.clone() }
}

impl Block {
    /// The block of index `k`, with the parameters that `parameter` finds by PyTorch's names.
    pub fn new<'a>(point: &Point, k: usize, parameter: impl Fn(&str) -> &'a Values, device: &Device) -> Self {
        let get = |name: &str| parameter(&format!("{k}.{name}"));
        let (width, inner) = (point.hidden, Point::EXPANSION * point.hidden);
        let mut block = Block {
            norm: LayerNormConfig::new(width).init(device),
            fc1: LinearConfig::new(width, inner).init(device),
            fc2: LinearConfig::new(inner, width).init(device),
        };
        block.norm.gamma = Param::from_tensor(tensor(get("norm.weight"), device));
        block.norm.beta = Some(Param::from_tensor(tensor(get("norm.bias"), device)));
        fill(&mut block.fc1, get("fc1.weight"), get("fc1.bias"), device);
        fill(&mut block.fc2, get("fc2.weight"), get("fc2.bias"), device);
        block
    }

    pub fn norm_bias(&self) -> &Param<Tensor<1>> {
        self.norm.beta.as_ref().expect("it was given one")
    }

    /// `norm`, for weight and bias of the normalisation, and the values that `of` gives for those of each product, by PyTorch's
    /// names.
    pub fn each(&self, k: usize, norm: [Values; 2], of: impl Fn(&Linear) -> [Values; 2]) -> Vec<(String, Values)> {
        let parts = [("norm", norm), ("fc1", of(&self.fc1)), ("fc2", of(&self.fc2))];
        let both = parts.into_iter().flat_map(|(name, [weight, bias])| {
            [(format!("{k}.{name}.weight"), weight), (format!("{k}.{name}.bias"), bias)]
        });
        both.collect()
    }

    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = Gelu::new().forward(self.fc1.forward(self.norm.forward(x.clone())));
        x + self.fc2.forward(inner)
    }
}

/// The gradient of a parameter; zeros if none arrived.
fn gradient<const D: usize>(parameter: &Param<Tensor<D>>, gradients: &Gradients) -> Values {
    let value = parameter.val();
    value.grad(gradients).map_or_else(|| values(value.zeros_like()), values)
}

/// The gradients of weight and bias, as PyTorch has them.
fn linear_gradients(linear: &Linear, gradients: &Gradients) -> [Values; 2] {
    let bias = linear.bias.as_ref().expect("it was given one");
    [transposed(&gradient(&linear.weight, gradients)), gradient(bias, gradients)]
}

impl Work for Run {
    fn run(&mut self) {
        match &self.dy {
            Some(dy) => drop(black_box(self.train(dy))),
            None => drop(black_box(self.forward())),
        }
    }

    fn outputs(&mut self) -> Tensors {
        let point = self.point;
        let mut outputs = Tensors::default();
        let Some(dy) = &self.dy else {
            outputs.insert("y", order(&point, &values(self.forward())));
            return outputs;
        };
        let (y, gradients) = self.train(dy);
        outputs.insert("y", order(&point, &values(y)));
        outputs.insert("dx", order(&point, &values(self.x.grad(&gradients).expect("it requires one"))));
        if let Model::Blocks(blocks) = &self.model {
            for (k, block) in blocks.iter().enumerate() {
                let of = |linear: &Linear| linear_gradients(linear, &gradients);
                let norm = [gradient(&block.norm.gamma, &gradients), gradient(block.norm_bias(), &gradients)];
                block
                    .each(k, norm, of)
                    .into_iter()
                    .for_each(|(name, values)| outputs.insert(format!("grad.{name}"), values));
            }
        }
        if let Model::Recurrent(layer) = &mut self.model {
            let of_layer = layer.each(0, |linear| linear_gradients(linear, &gradients));
            of_layer.into_iter().for_each(|(name, values)| outputs.insert(format!("grad.{name}"), values));
        }
        outputs
    }
}
