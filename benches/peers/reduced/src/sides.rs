//! The sides: gradflow in each precision, and others' dynamic quantization.

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::process::Command;

use driver::build::python_peer;
use driver::{Worker, given, machine};
use gradflow::ndarray::Array3;
use gradflow::{
    Layer, Sequence, TensorsExt,
    recurrent::{GruCell, LstmCell, RnnCell},
    wrap::{Prepacked, WeightPrecision},
};
use protocol::{Cell, Peer, Point, Tensor, Tensors, Work};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Gradflow(WeightPrecision),
    Torch,
    Onnx,
}

/// All sides; the others are compared with the first.
pub const ALL: [Side; 6] = [
    Side::Gradflow(WeightPrecision::Full),
    Side::Gradflow(WeightPrecision::Bf16),
    Side::Gradflow(WeightPrecision::Int8),
    Side::Gradflow(WeightPrecision::Int8Dynamic),
    Side::Torch,
    Side::Onnx,
];

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Side::Gradflow(WeightPrecision::Full) => "f32",
            Side::Gradflow(WeightPrecision::Bf16) => "Bf16",
            Side::Gradflow(WeightPrecision::Int8) => "Int8",
            Side::Gradflow(WeightPrecision::Int8Dynamic) => "Int8Dynamic",
            Side::Gradflow(_) => unreachable!("a precision that is not measured"),
            Side::Torch => "PyTorch int8",
            Side::Onnx => "ONNX Runtime int8",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|side| side.name() == name)
    }

    /// Whether it is another library's.
    pub fn is_peer(self) -> bool {
        !matches!(self, Side::Gradflow(_))
    }

    /// Starts its process, for one thread.
    pub fn start(self) -> Result<Worker, Box<dyn Error>> {
        let mut command = match self {
            Side::Gradflow(_) => {
                let mut command = Command::new(env::current_exe()?);
                command.args(["worker", self.name()]);
                command
            }
            Side::Torch => python_peer("torch_int8", 1),
            Side::Onnx => python_peer("onnx_int8", 1),
        };
        for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
            command.env(variable, "1");
        }
        let mut worker = Worker::start(self.name(), command)?;
        if !self.is_peer() {
            worker.version = machine::gradflow_version();
        }
        Ok(worker)
    }
}

impl Peer for Side {
    fn version(&self) -> String {
        "gradflow".into()
    }

    fn prepare(&self, point: &Point, given: &Tensors) -> Result<Box<dyn Work>, String> {
        let (&Side::Gradflow(precision), &Point { input, hidden, .. }) = (self, point) else {
            return Err("not this program's".into());
        };
        Ok(match point.cell {
            Cell::Lstm => Run::boxed(LstmCell::zeros(input, hidden), precision, point, given),
            Cell::Gru => Run::boxed(GruCell::zeros(input, hidden), precision, point, given),
            Cell::Rnn => Run::boxed(RnnCell::zeros(input, hidden), precision, point, given),
            Cell::Residual => return Err("cells alone".into()),
        })
    }
}

struct Run<L: Layer<Elem = f32>> {
    layer: Prepacked<L>,
    x: Array3<f32>, // [T, B, I]
    state: L::State,
    cache: L::Cache,
}

impl<L: Layer<Elem = f32> + 'static> Run<L>
where
    L::State: 'static,
{
    fn boxed(mut layer: L, precision: WeightPrecision, point: &Point, given: &Tensors) -> Box<dyn Work> {
        given::load(&mut layer, given, |name| format!("{name}_l0"));
        let shape = (point.steps, point.batch, point.input);
        let x = Array3::from_shape_vec(shape, given.get("x").f32()).expect("[T, B, I]");
        let (state, cache) = (layer.zero_state(point.batch), layer.cache());
        Box::new(Run { layer: Prepacked::with_precision(layer, precision), x, state, cache })
    }
}

impl<L: Layer<Elem = f32>> Work for Run<L> {
    fn run(&mut self) {
        self.state.set_zero();
        black_box(self.layer.forward(Sequence::from(&self.x).infer(), &mut self.state, &mut self.cache));
    }

    fn outputs(&mut self) -> Tensors {
        self.run();
        let y = self.layer.output(&self.cache);
        let mut outputs = Tensors::default();
        outputs.insert("y", Tensor::new(y.shape(), y.iter().map(|&y| f64::from(y))));
        outputs
    }
}
