//! This crate, used as by a user: caches are kept, each backward pass overwrites the gradient, and weights are packed once for
//! inference.

use std::hint::black_box;

use gradflow::ndarray::{Array3, ArrayView3};
use gradflow::{
    Float, Layer, Sequence, TensorsExt, ZerosLike,
    compose::{PreNormBlock, Stacked},
    layers::Nonlinearity,
    recurrent::{GruCell, LstmCell, RnnCell},
    wrap::Prepacked,
};
use protocol::{Cell, Dtype, Mode, Peer, Point, Tensor, Tensors, Work};

pub struct Gradflow;

impl Peer for Gradflow {
    fn version(&self) -> String {
        "gradflow".into()
    }

    fn prepare(&self, point: &Point, given: &Tensors) -> Result<Box<dyn Work>, String> {
        if point.mode == Mode::Step {
            return Err("whole steps are of the program `steps`".into());
        }
        Ok(match point.dtype {
            Dtype::F32 => work::<f32>(point, given),
            Dtype::F64 => work::<f64>(point, given),
        })
    }
}

fn work<F: Float>(point: &Point, given: &Tensors) -> Box<dyn Work> {
    let &Point { input, hidden, depth, .. } = point;
    match point.cell {
        Cell::Lstm => run(LstmCell::<F>::zeros(input, hidden), point, given),
        Cell::Gru => run(GruCell::<F>::zeros(input, hidden), point, given),
        Cell::Rnn => run(RnnCell::<F>::zeros(input, hidden), point, given),
        Cell::Residual => {
            let inner = Point::EXPANSION * hidden;
            let block = |_| PreNormBlock::<F>::zeros(hidden, inner, Nonlinearity::Gelu);
            run(Stacked::build(depth, block), point, given)
        }
    }
}

fn run<L: Layer + 'static>(layer: L, point: &Point, given: &Tensors) -> Box<dyn Work>
where
    L::State: 'static,
{
    if point.mode == Mode::Train {
        Box::new(Run::new(layer, point, given))
    } else {
        Box::new(Run::new(Prepacked::new(layer), point, given))
    }
}

struct Run<L: Layer> {
    point: Point,
    layer: L,
    x: Array3<L::Elem>,  // [T, B, I]
    dy: Array3<L::Elem>, // [T, B, H], empty in inference
    state: L::State,
    cache: L::Cache,
    grad: L,
}

/// The PyTorch name of a parameter here.
fn torch_name(point: &Point, name: &str) -> String {
    if point.cell == Cell::Residual { name.into() } else { format!("{name}_l0") }
}

fn array<F: Float>(tensor: &Tensor, point: &Point) -> Array3<F> {
    let values = tensor.values.iter().map(|&value| F::of(value)).collect();
    let features = tensor.values.len() / (point.steps * point.batch);
    Array3::from_shape_vec((point.steps, point.batch, features), values).expect("[T, B, D]")
}

fn tensor<F: Float>(view: &ArrayView3<'_, F>) -> Tensor {
    Tensor::new(view.shape(), view.iter().map(|value| value.widen()))
}

impl<L: Layer> Run<L> {
    fn new(mut layer: L, point: &Point, given: &Tensors) -> Self {
        driver::given::load(&mut layer, given, |name| torch_name(point, name));
        let (state, cache, grad) = (layer.zero_state(point.batch), layer.cache(), layer.zeros_like());
        let x = array(given.get("x"), point);
        let dy = if point.mode == Mode::Train { array(given.get("dy"), point) } else { Array3::default((0, 0, 0)) };
        Run { point: *point, layer, x, dy, state, cache, grad }
    }

    fn train(&mut self) -> ArrayView3<'_, L::Elem> {
        self.state.set_zero();
        self.layer.pass(&self.x, &mut self.state, &mut self.cache).backward_into(&self.dy, &mut self.grad)
    }

    fn infer(&mut self) -> ArrayView3<'_, L::Elem> {
        self.state.set_zero();
        self.layer.forward(Sequence::from(&self.x).infer(), &mut self.state, &mut self.cache)
    }
}

impl<L: Layer> Work for Run<L> {
    fn run(&mut self) {
        if self.point.mode == Mode::Train {
            drop(black_box(self.train()));
        } else {
            drop(black_box(self.infer()));
        }
    }

    fn outputs(&mut self) -> Tensors {
        let mut outputs = Tensors::default();
        if self.point.mode == Mode::Infer {
            outputs.insert("y", tensor(&self.infer()));
            return outputs;
        }
        self.state.set_zero();
        let pass = self.layer.pass(&self.x, &mut self.state, &mut self.cache);
        outputs.insert("y", tensor(&pass.output()));
        outputs.insert("dx", tensor(&pass.backward_into(&self.dy, &mut self.grad)));
        for i in 0..self.grad.count() {
            let (shape, values) = self.grad.tensor(i);
            let name = format!("grad.{}", torch_name(&self.point, &self.grad.name(i)));
            outputs.insert(name, Tensor::new(shape, values.iter().map(|value| value.widen())));
        }
        outputs
    }

    fn cache_bytes(&mut self) -> Option<u64> {
        drop(std::mem::take(&mut self.cache)); // freed before counting starts
        let counted = allocation_counter::measure(|| self.run());
        u64::try_from(counted.bytes_current).ok()
    }
}
