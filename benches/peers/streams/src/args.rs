//! The command line.

use std::error::Error;
use std::path::PathBuf;

use driver::flags::{each, named, positive};
use driver::folder;
use lexopt::prelude::{Long, ValueExt};
use protocol::Cell;

const HELP: &str = "\
Times gradflow's streams and nexus-inference in turn; writes results/streams.md and two CSV files.

  --quick              two sizes, 10^5 single steps
  --cells LIST         of lstm, gru
  --hidden LIST        numbers of units [4,8,12,16,20,24,32,40,64]
  --rounds N           [15; 5 with --quick]
  --steps N            single steps whose times are taken one by one, 0 for none [1000000]
  --target-ms N        how long one measurement takes at least [30]
  --out DIR            [results]
";

/// The cells that have streams here.
pub const CELLS: [Cell; 2] = [Cell::Lstm, Cell::Gru];

const HIDDEN: [usize; 9] = [4, 8, 12, 16, 20, 24, 32, 40, 64];
const QUICK_HIDDEN: [usize; 2] = [8, 16];

pub struct Args {
    pub cells: Vec<Cell>,
    pub hidden: Vec<usize>,
    pub rounds: usize,
    pub steps: usize,
    /// In seconds.
    pub target: f64,
    pub out: PathBuf,
}

impl Args {
    /// `None` if help was asked for and given.
    pub fn parse() -> Result<Option<Self>, Box<dyn Error>> {
        let (mut quick, mut cells, mut hidden, mut rounds, mut steps) = (false, CELLS.to_vec(), None, None, None);
        let (mut target, mut out) = (0.03, folder().join("results"));
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("quick") => quick = true,
                Long("cells") => cells = each(parser.value()?, |name| named(CELLS, Cell::name, name))?,
                Long("hidden") => hidden = Some(each(parser.value()?, positive)?),
                Long("rounds") => rounds = Some(positive(&parser.value()?.string()?)?),
                Long("steps") => steps = Some(parser.value()?.parse()?),
                Long("target-ms") => target = 1e-3 * parser.value()?.parse::<f64>()?,
                Long("out") => out = parser.value()?.into(),
                Long("help") => {
                    print!("{HELP}");
                    return Ok(None);
                }
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(Some(Args {
            cells,
            hidden: hidden.unwrap_or(if quick { QUICK_HIDDEN.into() } else { HIDDEN.into() }),
            rounds: rounds.unwrap_or(if quick { 5 } else { 15 }),
            steps: steps.unwrap_or(if quick { 100_000 } else { 1_000_000 }),
            target,
            out,
        }))
    }
}
