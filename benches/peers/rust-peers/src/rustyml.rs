//! rustyml: its `LSTM` and `SimpleRNN`, which have one bias while PyTorch has two: it gets their sum.

use std::hint::black_box;

use ndarray::{Array2, ArrayD};
use protocol::{Cell, Dtype, Mode, Peer, Point, Tensor, Tensors, Work};
use rustyml::neural_network::Shape;
use rustyml::neural_network::ctx::Ctx;
use rustyml::neural_network::layers::{Activation, LSTM, SimpleRNN};
use rustyml::neural_network::traits::{ParamId, UnaryLayer};

use crate::layout::{swapped, transposed};
use crate::version::locked;

pub struct RustyMl;

impl Peer for RustyMl {
    fn version(&self) -> String {
        format!("rustyml {}", locked("rustyml"))
    }

    fn prepare(&self, point: &Point, given: &Tensors) -> Result<Box<dyn Work>, String> {
        if point.dtype == Dtype::F64 {
            return Err("f32 only".into());
        }
        match point.cell {
            _ if point.mode == Mode::Step => Err("single layers alone".into()),
            Cell::Lstm | Cell::Rnn => Ok(Box::new(Run::new(point, given).map_err(|error| error.to_string())?)),
            Cell::Gru => Err("its GRU resets before the product".into()),
            Cell::Residual => Err("no residual block".into()),
        }
    }
}

struct Run {
    layer: Box<dyn UnaryLayer>,
    x: ArrayD<f32>, // [B, T, I]
    dy: Option<ArrayD<f32>>,
}

type Error = rustyml::error::Error;

fn array(tensor: &Tensor) -> ArrayD<f32> {
    ArrayD::from_shape_vec(tensor.shape.clone(), tensor.f32()).expect("as many values as places")
}

fn tensor(array: &ArrayD<f32>) -> Tensor {
    Tensor::new(array.shape(), array.iter().map(|&value| f64::from(value)))
}

impl Run {
    fn new(point: &Point, given: &Tensors) -> Result<Self, Error> {
        let parameter = |name: &str| given.get(&format!("param.{name}_l0"));
        let kernel = |name: &str| -> Array2<f32> {
            array(&transposed(parameter(name))).into_dimensionality().expect("a matrix")
        };
        let (input, recurrent) = (kernel("weight_ih"), kernel("weight_hh"));
        let bias = parameter("bias_ih").values.iter().zip(&parameter("bias_hh").values);
        let bias: Vec<f32> = bias.map(|(a, b)| (a + b) as f32).collect();
        let bias = Array2::from_shape_vec((1, bias.len()), bias).expect("one row");

        let x = array(&swapped(given.get("x")));
        let shape = Shape::known(x.shape());
        let layer: Box<dyn UnaryLayer> = if point.cell == Cell::Lstm {
            let mut lstm = LSTM::new(point.hidden, Activation::Tanh)?.with_return_sequences(true);
            lstm.build(&shape)?;
            lstm.set_weights(input, recurrent, bias)?;
            Box::new(lstm)
        } else {
            let mut rnn = SimpleRNN::new(point.hidden, Activation::Tanh)?.with_return_sequences(true);
            rnn.build(&shape)?;
            rnn.set_weights(input, recurrent, bias)?;
            Box::new(rnn)
        };
        let dy = (point.mode == Mode::Train).then(|| array(&swapped(given.get("dy"))));
        Ok(Run { layer, x, dy })
    }

    fn infer(&self) -> ArrayD<f32> {
        self.layer.forward(&self.x, &mut Ctx::inference()).expect("a built layer")
    }

    fn train(&self, dy: &ArrayD<f32>) -> (ArrayD<f32>, ArrayD<f32>, Ctx) {
        let mut context = Ctx::training();
        let y = self.layer.forward(&self.x, &mut context).expect("a built layer");
        let dx = self.layer.backward(dy, &mut context).expect("a forward pass before");
        (y, dx, context)
    }
}

impl Work for Run {
    fn run(&mut self) {
        match &self.dy {
            Some(dy) => drop(black_box(self.train(dy))),
            None => drop(black_box(self.infer())),
        }
    }

    fn outputs(&mut self) -> Tensors {
        let mut outputs = Tensors::default();
        let Some(dy) = &self.dy else {
            outputs.insert("y", swapped(&tensor(&self.infer())));
            return outputs;
        };
        let (y, dx, context) = self.train(dy);
        outputs.insert("y", swapped(&tensor(&y)));
        outputs.insert("dx", swapped(&tensor(&dx)));
        let grad = |name| tensor(context.grads().get(&ParamId::new(0, name)).expect("a gradient"));
        outputs.insert("grad.weight_ih_l0", transposed(&grad("kernel")));
        outputs.insert("grad.weight_hh_l0", transposed(&grad("recurrent_kernel")));
        let bias = grad("bias").values;
        for name in ["bias_ih", "bias_hh"] {
            outputs.insert(format!("grad.{name}_l0"), Tensor::new([bias.len()], bias.iter().copied()));
        }
        outputs
    }
}
