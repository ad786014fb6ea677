//! Burn on its CPU backend Flex: `Lstm`, `Gru`, `Rnn`, and residual blocks of its layers; gradients by its autodiff.

use std::hint::black_box;

use burn::module::Param;
use burn::nn::{
    GateController, Gelu, Gru, GruConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, Lstm, LstmConfig, Rnn,
    RnnConfig,
};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use protocol::{Cell, Dtype, Mode, Peer, Point, Tensor as Values, Tensors, Work};

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
        Ok(Box::new(Run::new(point, given)))
    }
}

enum Model {
    Lstm(Lstm),
    Gru(Gru),
    Rnn(Rnn),
    Blocks(Vec<Block>),
}

struct Block {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

struct Run {
    point: Point,
    model: Model,
    x: Tensor<3>, // [T, B, I]; a GRU's is [B, T, I], the only one it takes
    dy: Option<Tensor<3>>,
}

fn tensor<const D: usize>(values: &Values, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.f32(), values.shape.clone()), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Values {
    let shape = tensor.dims();
    let values: Vec<f32> = tensor.into_data().try_to_vec().expect("f32");
    Values::new(shape, values.into_iter().map(f64::from))
}

fn fill(linear: &mut Linear, weight: &Values, bias: &Values, device: &Device) {
    // Its rows are input features.
    linear.weight = Param::from_tensor(tensor(&transposed(weight), device));
    linear.bias = Some(Param::from_tensor(tensor(bias, device)));
}

/// PyTorch's gates in the order in which a cell's controllers are listed here.
fn gates(model: &mut Model) -> Vec<&mut GateController> {
    match model {
        Model::Lstm(lstm) => {
            let forget = lstm.forget_gate.as_mut().expect("not coupled");
            vec![&mut lstm.input_gate, forget, &mut lstm.cell_gate, &mut lstm.output_gate]
        }
        Model::Gru(gru) => vec![&mut gru.reset_gate, &mut gru.update_gate, &mut gru.new_gate],
        Model::Rnn(rnn) => vec![&mut rnn.gate],
        Model::Blocks(_) => Vec::new(),
    }
}

impl Run {
    fn new(point: &Point, given: &Tensors) -> Self {
        let trains = point.mode == Mode::Train;
        let device = if trains { Device::flex().autodiff() } else { Device::flex() };
        let parameter = |name: &str| given.get(&format!("param.{name}"));
        let &Point { input, hidden, .. } = point;
        let mut model = match point.cell {
            Cell::Lstm => Model::Lstm(LstmConfig::new(input, hidden, true).with_batch_first(false).init(&device)),
            Cell::Gru => Model::Gru(GruConfig::new(input, hidden, true).init(&device)),
            Cell::Rnn => Model::Rnn(RnnConfig::new(input, hidden, true).with_batch_first(false).init(&device)),
            Cell::Residual => {
                Model::Blocks((0..point.depth).map(|k| Block::new(point, k, parameter, &device)).collect())
            }
        };
        let gates = gates(&mut model);
        let count = gates.len();
        for (k, gate) in gates.into_iter().enumerate() {
            let part = |name: &str| block(parameter(&format!("{name}_l0")), k, count);
            fill(&mut gate.input_transform, &part("weight_ih"), &part("bias_ih"), &device);
            fill(&mut gate.hidden_transform, &part("weight_hh"), &part("bias_hh"), &device);
        }
        let sequence = |name: &str| tensor(&order(point, given.get(name)), &device);
        let x = if trains { sequence("x").require_grad() } else { sequence("x") };
        Run { point: *point, model, x, dy: trains.then(|| sequence("dy")) }
    }

    fn forward(&self) -> Tensor<3> {
        let x = self.x.clone();
        match &self.model {
            Model::Lstm(lstm) => lstm.forward(x, None).0,
            Model::Gru(gru) => gru.forward(x, None),
            Model::Rnn(rnn) => rnn.forward(x, None).0,
            Model::Blocks(blocks) => blocks.iter().fold(x, |x, block| block.forward(x)),
        }
    }

    fn train(&self, dy: &Tensor<3>) -> (Tensor<3>, Gradients) {
        let y = self.forward();
        let gradients = (y.clone() * dy.clone()).sum().backward();
        (y, gradients)
    }
}

/// Batch first where the layer takes nothing else; the same way back.
fn order(point: &Point, values: &Values) -> Values {
    if point.cell == Cell::Gru { swapped(values) } else { values.clone() }
}

impl Block {
    fn new<'a>(point: &Point, k: usize, parameter: impl Fn(&str) -> &'a Values, device: &Device) -> Self {
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

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = Gelu::new().forward(self.fc1.forward(self.norm.forward(x.clone())));
        x + self.fc2.forward(inner)
    }
}

/// The gradient of a parameter; zeros where none arrived.
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
                let bias = block.norm.beta.as_ref().expect("it was given one");
                outputs.insert(format!("grad.{k}.norm.weight"), gradient(&block.norm.gamma, &gradients));
                outputs.insert(format!("grad.{k}.norm.bias"), gradient(bias, &gradients));
                for (name, linear) in [("fc1", &block.fc1), ("fc2", &block.fc2)] {
                    let [weight, bias] = linear_gradients(linear, &gradients);
                    outputs.insert(format!("grad.{k}.{name}.weight"), weight);
                    outputs.insert(format!("grad.{k}.{name}.bias"), bias);
                }
            }
            return outputs;
        }
        let gates = gates(&mut self.model);
        let transforms: [(&str, fn(&GateController) -> &Linear); 2] =
            [("ih", |gate| &gate.input_transform), ("hh", |gate| &gate.hidden_transform)];
        for (name, transform) in transforms {
            let parts = gates.iter().map(|gate| linear_gradients(transform(gate), &gradients));
            let (weights, biases): (Vec<_>, Vec<_>) = parts.map(|[weight, bias]| (weight, bias)).unzip();
            outputs.insert(format!("grad.weight_{name}_l0"), joined(&weights));
            outputs.insert(format!("grad.bias_{name}_l0"), joined(&biases));
        }
        outputs
    }
}
