//! This crate's training steps, written as by a user: caches, gradient and loss are kept, and clipping and optimizer are one call.

use gradflow::ndarray::{Array2, Array3};
use gradflow::{
    Layer, TensorsExt, ZerosLike,
    clip::ClipNorm,
    compose::{PreNormBlock, Stacked},
    layers::{Embedding, Linear, Nonlinearity},
    loss::{Loss, MeanSquaredError, SoftmaxCrossEntropy},
    optim::{Adam, AdamW, Optimizer},
    recurrent::{Gru, Lstm, Rnn},
};
use protocol::{Cell, Dtype, Mode, Peer, Point, Tensor, Tensors, Trainer, Training, Work};

pub struct Gradflow;

impl Peer for Gradflow {
    fn version(&self) -> String {
        "gradflow".into()
    }

    fn prepare(&self, point: &Point, given: &Tensors) -> Result<Box<dyn Work>, String> {
        if point.mode != Mode::Step || point.dtype != Dtype::F32 {
            return Err("whole steps in f32 alone".into());
        }
        let &Point { input, hidden, depth, .. } = point;
        Ok(match point.cell {
            Cell::Lstm => LanguageModel::boxed(Lstm::builder(input, hidden).num_layers(depth).zeros(), point, given),
            Cell::Gru => LanguageModel::boxed(Gru::builder(input, hidden).num_layers(depth).zeros(), point, given),
            Cell::Rnn => LanguageModel::boxed(Rnn::builder(input, hidden).num_layers(depth).zeros(), point, given),
            Cell::Residual => Box::new(Training::new(Blocks::new(point, given))),
        })
    }
}

/// Embedding, recurrent layers and head, all parameters by PyTorch's names in a `Sequential`.
type Parts<L> = (Embedding<f32>, L, Linear<f32>);

struct LanguageModel<L: Layer<Elem = f32>> {
    rows: usize,
    start: Parts<L>,
    model: Parts<L>,
    batches: Vec<[Array2<u32>; 2]>, // ids and the next ones, [T, B]
    state: <Parts<L> as Layer>::State,
    cache: <Parts<L> as Layer>::Cache,
    grad: Parts<L>,
    cross_entropy: SoftmaxCrossEntropy<f32, u32>,
    optimizer: AdamW<f32>,
}

impl<L: Layer<Elem = f32> + Clone + 'static> LanguageModel<L>
where
    L::State: 'static,
{
    fn boxed(layers: L, point: &Point, given: &Tensors) -> Box<dyn Work> {
        let &Point { steps, batch, input, hidden, vocabulary, .. } = point;
        let mut model = (Embedding::zeros(vocabulary, input), layers, Linear::zeros(hidden, vocabulary));
        driver::given::load(&mut model, given, |name| name.into());
        let ids = |tensor: Tensor| {
            let ids = tensor.values.iter().map(|&id| id as u32).collect();
            Array2::from_shape_vec((steps, batch), ids).expect("[T, B]")
        };
        let (x, targets) = (given.get("x").parts(), given.get("targets").parts());
        Box::new(Training::new(LanguageModel {
            rows: batch,
            start: model.clone(),
            batches: x.zip(targets).map(|(x, targets)| [ids(x), ids(targets)]).collect(),
            state: model.zero_state(batch),
            cache: model.cache(),
            grad: model.zeros_like(),
            cross_entropy: SoftmaxCrossEntropy::new(),
            optimizer: AdamW::new(Point::LEARNING_RATE),
            model,
        }))
    }
}

impl<L: Layer<Elem = f32> + Clone> Trainer for LanguageModel<L> {
    fn restart(&mut self) {
        self.model.copy_from(&self.start);
        self.state = self.model.zero_state(self.rows);
        self.optimizer = AdamW::new(Point::LEARNING_RATE);
    }

    fn step(&mut self, batch: usize) -> f64 {
        let [x, targets] = &self.batches[batch];
        let pass = self.model.pass(x, &mut self.state, &mut self.cache);
        let loss = self.cross_entropy.of(&pass, targets);
        pass.backward_into(loss.gradient(), &mut self.grad);
        let clip = ClipNorm::new(Point::CLIP_NORM);
        self.optimizer.step_clipped(&mut self.model, &self.grad, clip).expect("a finite gradient");
        loss.value()
    }

    fn parameters(&mut self) -> Tensors {
        parameters(&self.model)
    }
}

struct Blocks {
    start: Stacked<PreNormBlock<f32>>,
    model: Stacked<PreNormBlock<f32>>,
    batches: Vec<[Array3<f32>; 2]>, // input and targets, [1, N, D]
    cache: <Stacked<PreNormBlock<f32>> as Layer>::Cache,
    grad: Stacked<PreNormBlock<f32>>,
    squared_error: MeanSquaredError<f32>,
    optimizer: Adam<f32>,
}

impl Blocks {
    fn new(point: &Point, given: &Tensors) -> Self {
        let &Point { steps, batch, hidden, depth, .. } = point;
        let block = |_| PreNormBlock::zeros(hidden, Point::EXPANSION * hidden, Nonlinearity::Gelu);
        let mut model = Stacked::build(depth, block);
        driver::given::load(&mut model, given, |name| name.into());
        let rows = |tensor: Tensor| Array3::from_shape_vec((steps, batch, hidden), tensor.f32()).expect("[1, N, D]");
        let (x, targets) = (given.get("x").parts(), given.get("targets").parts());
        Blocks {
            start: model.clone(),
            batches: x.zip(targets).map(|(x, targets)| [rows(x), rows(targets)]).collect(),
            cache: model.cache(),
            grad: model.zeros_like(),
            squared_error: MeanSquaredError::new(),
            optimizer: Adam::new(Point::LEARNING_RATE),
            model,
        }
    }
}

impl Trainer for Blocks {
    fn restart(&mut self) {
        self.model.copy_from(&self.start);
        self.optimizer = Adam::new(Point::LEARNING_RATE);
    }

    fn step(&mut self, batch: usize) -> f64 {
        let [x, targets] = &self.batches[batch];
        let x = gradflow::Sequence::from(x).constant();
        let mut state = self.model.zero_state(x.dims().1);
        let pass = self.model.pass(x, &mut state, &mut self.cache);
        let loss = self.squared_error.of(&pass, targets);
        pass.backward_into(loss.gradient(), &mut self.grad);
        self.optimizer.step(&mut self.model, &self.grad);
        loss.value()
    }

    fn parameters(&mut self) -> Tensors {
        parameters(&self.model)
    }
}

fn parameters<L: Layer<Elem = f32>>(model: &L) -> Tensors {
    let mut parameters = Tensors::default();
    for i in 0..model.count() {
        let (shape, values) = model.tensor(i);
        let name = format!("param.{}", model.name(i));
        parameters.insert(name, Tensor::new(shape, values.iter().map(|&value| value.into())));
    }
    parameters
}
