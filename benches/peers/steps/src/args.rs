//! The command line.

use std::error::Error;
use std::path::PathBuf;

use driver::flags::{each, named, positive};
use driver::folder;
use lexopt::prelude::{Long, ValueExt};

use crate::peers;

const HELP: &str = "\
Times whole training steps of gradflow and its peers in turn, in f32; writes results/steps.md and steps.csv.

  --quick          three points, one thread
  --points LIST    sizes by their parts, as --list shows them: 'lstm V96,residual'
  --peers LIST     of torch, torch_compile, candle, burn [all]
  --threads LIST   [1,2]
  --rounds N       [9; fewer where one step is long]
  --target-ms N    how long one measurement takes at least [30]
  --out DIR        [results]
  --list           the points, nothing else
";

pub struct Args {
    pub list: bool,
    pub quick: bool,
    /// A point must match any of these, each of which is a list of parts of its name.
    pub points: Vec<Vec<String>>,
    pub peers: Vec<&'static str>,
    pub threads: Vec<usize>,
    pub rounds: usize,
    pub target: f64,
    pub out: PathBuf,
}

impl Args {
    /// `None` if help was asked for and given.
    pub fn parse() -> Result<Option<Self>, Box<dyn Error>> {
        let mut args = Args {
            list: false,
            quick: false,
            points: Vec::new(),
            peers: peers::ALL.into(),
            threads: Vec::new(),
            rounds: 9,
            target: 0.03,
            out: folder().join("results"),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("list") => args.list = true,
                Long("quick") => args.quick = true,
                Long("points") => {
                    args.points =
                        each(parser.value()?, |parts| Ok(parts.split_whitespace().map(String::from).collect()))?;
                }
                Long("peers") => args.peers = each(parser.value()?, |name| named(peers::ALL, |name| name, name))?,
                Long("threads") => args.threads = each(parser.value()?, positive)?,
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
        Ok(Some(args))
    }
}
