//! The command line.

use std::error::Error;
use std::path::PathBuf;

use driver::flags::{each, named, positive};
use driver::folder;
use lexopt::prelude::{Long, ValueExt};
use protocol::{Cell, Dtype, Mode};

use crate::peers;

const HELP: &str = "\
Times gradflow and its peers in turn, on the same work; writes results/.

  --quick              a few points, one thread, two minutes
  --cells LIST         of lstm, gru, rnn, residual
  --mode train|infer   one of the two
  --points LIST        sizes by their parts, as --list shows them: 'T50 B64,T1 B1'
  --peers LIST         of torch, onnx, candle, burn, rust-lstm, rustyml [all]
  --threads LIST       [1,2]
  --dtype f32|f64      [f32]
  --isa native|avx2    the instructions of gradflow and PyTorch [native]
  --rounds N           [9; fewer where one run is long]
  --target-ms N        how long one measurement takes at least [30]
  --out DIR            [results]
  --resume             leaves out what DIR has
  --memory             peak memory of training instead of times
  --report             no measurement: table and picture from DIR's CSV
  --list               the points, nothing else
";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Time,
    Memory,
    Report,
    List,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    Native,
    Avx2,
}

impl Isa {
    pub fn name(self) -> &'static str {
        match self {
            Isa::Native => "native",
            Isa::Avx2 => "avx2",
        }
    }
}

pub struct Args {
    pub task: Task,
    pub quick: bool,
    pub resume: bool,
    pub cells: Vec<Cell>,
    pub modes: Vec<Mode>,
    /// A point must match any of these, each of which is a list of parts of its size.
    pub sizes: Vec<Vec<String>>,
    pub peers: Vec<String>,
    pub threads: Vec<usize>,
    pub dtype: Dtype,
    pub isa: Isa,
    pub rounds: usize,
    pub target: f64,
    pub out: PathBuf,
}

impl Args {
    /// `None` if help was asked for and given.
    pub fn parse() -> Result<Option<Self>, Box<dyn Error>> {
        let mut args = Args {
            task: Task::Time,
            quick: false,
            resume: false,
            cells: Cell::ALL.into(),
            modes: Mode::ALL.into(),
            sizes: Vec::new(),
            peers: peers::ALL.map(String::from).into(),
            threads: Vec::new(),
            dtype: Dtype::F32,
            isa: Isa::Native,
            rounds: 0,
            target: 0.03,
            out: folder().join("results"),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("quick") => args.quick = true,
                Long("resume") => args.resume = true,
                Long("memory") => args.task = Task::Memory,
                Long("report") => args.task = Task::Report,
                Long("list") => args.task = Task::List,
                Long("cells") => args.cells = each(parser.value()?, |name| named(Cell::ALL, Cell::name, name))?,
                Long("mode") => args.modes = each(parser.value()?, |name| named(Mode::ALL, Mode::name, name))?,
                Long("dtype") => args.dtype = named(Dtype::ALL, Dtype::name, &parser.value()?.string()?)?,
                Long("isa") => args.isa = named([Isa::Native, Isa::Avx2], Isa::name, &parser.value()?.string()?)?,
                Long("peers") => {
                    args.peers = each(parser.value()?, |name| named(peers::ALL, |name| name, name).map(String::from))?;
                }
                Long("points") => {
                    args.sizes = each(parser.value()?, |size| Ok(size.split_whitespace().map(String::from).collect()))?;
                }
                Long("threads") => {
                    args.threads = each(parser.value()?, positive)?;
                }
                Long("rounds") => args.rounds = parser.value()?.parse()?,
                Long("target-ms") => args.target = 1e-3 * parser.value()?.parse::<f64>()?,
                Long("out") => args.out = parser.value()?.into(),
                Long("help") => {
                    print!("{HELP}");
                    return Ok(None);
                }
                other => return Err(other.unexpected().into()),
            }
        }
        if args.threads.is_empty() {
            args.threads = if args.quick { vec![1] } else { vec![1, 2] };
        }
        if args.rounds == 0 {
            args.rounds = if args.quick { 5 } else { 9 };
        }
        Ok(Some(args))
    }
}

/// `1 thread`, `2 threads`
pub fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
