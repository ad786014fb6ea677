//! Whole training steps by Burn: its layers, losses and optimizers; clipping is written by hand, as its own clips each tensor by
//! itself.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::loss::{CrossEntropyLossConfig, MseLoss, Reduction};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData};
use protocol::{Cell, Point, Tensor as Values, Tensors, Trainer};

use crate::burn::{Block, Recurrent, State, fill, tensor, values};
use crate::layout::transposed;

#[derive(Module, Debug)]
enum Model {
    Language(LanguageModel),
    Blocks(Vec<Block>),
}

#[derive(Module, Debug)]
struct LanguageModel {
    embedding: Embedding,
    layers: Vec<Recurrent>,
    head: Linear,
}

enum Batch {
    /// Ids and the ids that follow them, in the order of the layers.
    Ids(Tensor<2, Int>, Tensor<1, Int>),
    /// Input and targets, `[1, N, D]`.
    Rows(Tensor<3>, Tensor<3>),
}

pub struct Steps {
    point: Point,
    device: Device,
    given: Tensors,
    /// Taken out by a step, and put back.
    model: Option<Model>,
    batches: Vec<Batch>,
    states: Vec<Option<State>>,
    optimizer: ModuleOptimizer,
}

fn optimizer(point: &Point) -> ModuleOptimizer {
    if point.vocabulary > 0 {
        AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.01).init()
    } else {
        AdamConfig::new().with_epsilon(1e-8).init()
    }
}

fn model(point: &Point, given: &Tensors, device: &Device) -> Model {
    let parameter = |name: &str| given.get(&format!("param.{name}"));
    if point.cell == Cell::Residual {
        return Model::Blocks((0..point.depth).map(|k| Block::new(point, k, parameter, device)).collect());
    }
    let mut embedding = EmbeddingConfig::new(point.vocabulary, point.input).init(device);
    embedding.weight = Param::from_tensor(tensor(parameter("0.weight"), device));
    let of_layers = |name: &str| parameter(&format!("1.{name}"));
    let layers = (0..point.depth).map(|k| Recurrent::new(point, k, of_layers, device)).collect();
    let mut head = LinearConfig::new(point.hidden, point.vocabulary).init(device);
    fill(&mut head, parameter("2.weight"), parameter("2.bias"), device);
    Model::Language(LanguageModel { embedding, layers, head })
}

impl Steps {
    pub fn new(point: &Point, given: &Tensors) -> Self {
        let device = Device::flex().autodiff();
        // A GRU takes the batch first.
        let ids = |values: Values| {
            let ordered = if point.cell == Cell::Gru { transposed(&values) } else { values };
            let ids: Vec<i64> = ordered.values.iter().map(|&id| id as i64).collect();
            Tensor::<2, Int>::from_data(TensorData::new(ids, ordered.shape), &device)
        };
        let batch = |(x, targets)| match point.cell {
            Cell::Residual => Batch::Rows(tensor(&x, &device), tensor(&targets, &device)),
            _ => Batch::Ids(ids(x), ids(targets).flatten(0, 1)),
        };
        let batches = given.get("x").parts().zip(given.get("targets").parts()).map(batch).collect();
        Steps {
            point: *point,
            given: given.clone(),
            model: None,
            batches,
            states: Vec::new(),
            optimizer: optimizer(point),
            device,
        }
    }
}

impl LanguageModel {
    /// Logits, and the states that are carried, without their history.
    fn forward(&self, ids: Tensor<2, Int>, states: &mut [Option<State>]) -> Tensor<2> {
        let mut y = self.embedding.forward(ids);
        for (layer, state) in self.layers.iter().zip(states) {
            let (h, c);
            (y, (h, c)) = layer.forward(y, state.take());
            *state = Some((h.detach(), c.map(Tensor::detach)));
        }
        self.head.forward(y).flatten(0, 1)
    }
}

/// The sum of the squares of all gradients, and their multiplication by a number.
struct Squares<'a>(&'a GradientsParams, f64);
struct Scale<'a>(&'a mut GradientsParams, f64);

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(grad) = self.0.get::<D>(parameter.id) {
            self.1 += f64::from(grad.square().sum().into_scalar::<f32>());
        }
    }
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if let Some(grad) = self.0.remove::<D>(parameter.id) {
            self.0.register(parameter.id, grad.mul_scalar(self.1));
        }
    }
}

impl Trainer for Steps {
    fn restart(&mut self) {
        self.model = Some(model(&self.point, &self.given, &self.device));
        self.states = (0..self.point.depth).map(|_| None).collect();
        self.optimizer = optimizer(&self.point);
    }

    fn step(&mut self, batch: usize) -> f64 {
        let model = self.model.take().expect("put back by the step before");
        let loss = match (&model, &self.batches[batch]) {
            (Model::Language(model), Batch::Ids(ids, targets)) => {
                let logits = model.forward(ids.clone(), &mut self.states);
                CrossEntropyLossConfig::new().init(&self.device).forward(logits, targets.clone())
            }
            (Model::Blocks(blocks), Batch::Rows(x, targets)) => {
                let y = blocks.iter().fold(x.clone(), |x, block| block.forward(x));
                MseLoss::new().forward(y, targets.clone(), Reduction::Mean)
            }
            _ => unreachable!("batches of the model's kind"),
        };
        let mut grads = GradientsParams::from_grads(loss.backward(), &model);
        if let Model::Language(_) = &model {
            let mut squares = Squares(&grads, 0.0);
            model.visit(&mut squares);
            let factor = Point::CLIP_NORM / (squares.1.sqrt() + 1e-6);
            if factor < 1.0 {
                model.visit(&mut Scale(&mut grads, factor));
            }
        }
        self.model = Some(self.optimizer.step(Point::LEARNING_RATE, model, grads));
        loss.into_scalar::<f32>().into()
    }

    fn parameters(&mut self) -> Tensors {
        let of = |linear: &Linear| {
            let bias = linear.bias.as_ref().expect("it was given one");
            [transposed(&values(linear.weight.val())), values(bias.val())]
        };
        let list: Vec<(String, Values)> = match self.model.as_mut().expect("put back by the step before") {
            Model::Language(LanguageModel { embedding, layers, head }) => {
                let [weight, bias] = of(head);
                let ends = [("0.weight", values(embedding.weight.val())), ("2.weight", weight), ("2.bias", bias)];
                let layers = layers.iter_mut().enumerate().flat_map(|(k, layer)| layer.each(k, of));
                let layers = layers.map(|(name, values)| (format!("1.{name}"), values));
                ends.map(|(name, values)| (name.into(), values)).into_iter().chain(layers).collect()
            }
            Model::Blocks(blocks) => {
                let each = |(k, block): (usize, &Block)| {
                    block.each(k, [values(block.norm.gamma.val()), values(block.norm_bias().val())], of)
                };
                blocks.iter().enumerate().flat_map(each).collect()
            }
        };
        let mut parameters = Tensors::default();
        list.into_iter().for_each(|(name, values)| parameters.insert(format!("param.{name}"), values));
        parameters
    }
}
