//! The command line.

use std::error::Error;
use std::path::PathBuf;

use driver::flags::{each, named, positive};
use driver::folder;
use lexopt::prelude::{Long, ValueExt};
use protocol::Cell;

const HELP: &str = "\
Times cells with weights in fewer bits, on one thread, in turn; writes results/reduced.md.

  --quick          one size
  --cells LIST     of lstm, gru, rnn
  --hidden LIST    [128,256,512,1024], as many inputs
  --steps LIST     [1,50]
  --batch N        sequences side by side [1]
  --rounds N       [15]
  --target-ms N    how long one measurement takes at least [30]
  --out DIR        [results]
";

pub struct Args {
    pub cells: Vec<Cell>,
    pub hidden: Vec<usize>,
    pub steps: Vec<usize>,
    pub batch: usize,
    pub rounds: usize,
    pub target: f64,
    pub out: PathBuf,
}

impl Args {
    /// `None` if help was asked for and given.
    pub fn parse() -> Result<Option<Self>, Box<dyn Error>> {
        let cells = [Cell::Lstm, Cell::Gru, Cell::Rnn];
        let mut args = Args {
            cells: cells.into(),
            hidden: vec![128, 256, 512, 1024],
            steps: vec![1, 50],
            batch: 1,
            rounds: 15,
            target: 0.03,
            out: folder().join("results"),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("quick") => (args.hidden, args.rounds) = (vec![256], 3),
                Long("cells") => args.cells = each(parser.value()?, |name| named(cells, Cell::name, name))?,
                Long("hidden") => args.hidden = each(parser.value()?, positive)?,
                Long("steps") => args.steps = each(parser.value()?, positive)?,
                Long("batch") => args.batch = parser.value()?.parse_with(positive)?,
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
        Ok(Some(args))
    }
}
