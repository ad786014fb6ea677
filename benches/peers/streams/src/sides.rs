//! The ways to run a model that are timed: gradflow's here, nexus-inference in its own program.

use std::env;
use std::error::Error;
use std::process::Command;
use std::slice::from_ref;

use driver::{Worker, build, given, machine};
use gradflow::ndarray::Array3;
use gradflow::{
    Causal, TensorsExt, layers::Linear, recurrent::GruCell, recurrent::LstmCell, stream::Stream, wrap::Prepacked,
};
use protocol::{Cell, Peer, Point, Steps, Streaming, Tensors, Work};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `Stream::push`
    Push,
    /// `Stream::process` with this number of steps a call.
    Blocks(usize),
    /// `Causal::step` of a `Prepacked` model, which takes any batch.
    Step,
    Nexus,
}

/// All sides; the first is compared with the others.
pub const ALL: [Side; 5] = [Side::Push, Side::Blocks(16), Side::Blocks(64), Side::Step, Side::Nexus];

impl Side {
    pub fn name(self) -> String {
        match self {
            Side::Push => "push".into(),
            Side::Blocks(steps) => format!("process-{steps}"),
            Side::Step => "step".into(),
            Side::Nexus => "nexus-inference".into(),
        }
    }

    /// The title of its column.
    pub fn title(self) -> String {
        match self {
            Side::Push => "`push`".into(),
            Side::Blocks(steps) => format!("`process`, {steps} steps"),
            Side::Step => "`step`".into(),
            Side::Nexus => "nexus-inference".into(),
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|side| side.name() == name)
    }

    /// Whether it takes single steps.
    pub fn is_single(self) -> bool {
        !matches!(self, Side::Blocks(_))
    }

    /// Starts its process.
    pub fn start(self) -> Result<Worker, Box<dyn Error>> {
        if self == Side::Nexus {
            build::rust_peers(&[&self.name()])?;
            return Worker::start(&self.name(), build::rust_peer(&self.name()));
        }
        let mut command = Command::new(env::current_exe()?);
        command.args(["worker", &self.name()]);
        let mut worker = Worker::start(&self.name(), command)?;
        worker.version = machine::gradflow_version();
        Ok(worker)
    }
}

impl Peer for Side {
    fn version(&self) -> String {
        "gradflow".into()
    }

    fn prepare(&self, point: &Point, given: &Tensors) -> Result<Box<dyn Work>, String> {
        let &Point { input, hidden, .. } = point;
        let mut head = Linear::<f32>::zeros(hidden, 1);
        given::load(&mut head, given, |name| format!("head.{name}"));
        match point.cell {
            Cell::Lstm => {
                let mut cell = LstmCell::<f32>::zeros(input, hidden);
                given::load(&mut cell, given, |name| format!("{name}_l0"));
                self.work((cell, head), point, given)
            }
            Cell::Gru => {
                let mut cell = GruCell::<f32>::zeros(input, hidden);
                given::load(&mut cell, given, |name| format!("{name}_l0"));
                self.work((cell, head), point, given)
            }
            Cell::Rnn | Cell::Residual => Err(format!("no stream of {} is timed", point.cell.name())),
        }
    }
}

impl Side {
    fn work<M>(self, model: M, point: &Point, given: &Tensors) -> Result<Box<dyn Work>, String>
    where
        M: Causal<Elem = f32> + 'static,
    {
        let stream = || Stream::new(&model, point.input).map_err(|error| error.to_string());
        Ok(match self {
            Side::Push => Box::new(Streaming::new(Push(stream()?), point, given)),
            Side::Blocks(steps) => Box::new(Streaming::new(Blocks(stream()?, steps), point, given)),
            Side::Step => Box::new(Streaming::new(Step::new(model, point), point, given)),
            Side::Nexus => return Err("it has a program of its own".into()),
        })
    }
}

struct Push<M: Causal>(Stream<M>);

impl<M: Causal<Elem = f32>> Steps for Push<M> {
    fn reset(&mut self) {
        self.0.reset();
    }

    fn steps(&mut self, x: &[f32], y: &mut [f32]) {
        x.iter().zip(y).for_each(|(x, y)| *y = self.0.push(from_ref(x))[0]);
    }
}

struct Blocks<M: Causal>(Stream<M>, usize);

impl<M: Causal<Elem = f32>> Steps for Blocks<M> {
    fn reset(&mut self) {
        self.0.reset();
    }

    fn steps(&mut self, x: &[f32], y: &mut [f32]) {
        x.chunks(self.1).zip(y.chunks_mut(self.1)).for_each(|(x, y)| self.0.process(x, y));
    }
}

struct Step<M: Causal> {
    model: Prepacked<M>,
    x: Array3<f32>, // [1, 1, 1]
    state: M::State,
    cache: M::Cache,
}

impl<M: Causal<Elem = f32>> Step<M> {
    fn new(model: M, point: &Point) -> Self {
        let (state, cache) = (model.zero_state(1), model.cache());
        Step { model: Prepacked::new(model), x: Array3::zeros((1, 1, point.input)), state, cache }
    }
}

impl<M: Causal<Elem = f32>> Steps for Step<M> {
    fn reset(&mut self) {
        self.state.set_zero();
    }

    fn steps(&mut self, x: &[f32], y: &mut [f32]) {
        for (&x, y) in x.iter().zip(y) {
            self.x[[0, 0, 0]] = x;
            *y = self.model.step(&self.x, &mut self.state, &mut self.cache)[[0, 0]];
        }
    }
}
